"""Pooling of images and volumes."""

from __future__ import annotations

from typing import Any

from tensorc import ops
from tensorc.backend.config import normalize_data_format
from tensorc.backend.convert import as_node
from tensorc.backend.provenance import public
from tensorc.backend.spatial import OLD_NAMES, channels_last, check_padding, entries, original, standing
from tensorc.backend.tensor import Tensor
from tensorc.errors import ArgumentError


@public("K.pool2d", old=OLD_NAMES)
def pool2d(x: Any, pool_size: Any, strides: Any = (1, 1), padding: str = "valid", data_format: str | None = None,
           pool_mode: str = "max") -> Tensor:
    """The largest element or the mean of each window of images, channel by channel.

    Args:
        padding: 'valid', or 'same', where means leave the padding out.
        pool_mode: 'max' or 'avg'.  The gradient of a maximum goes to the first of equal elements.

    Raises: ArgumentError for another padding or mode.
    """
    return _pooled(x, 2, pool_size, strides, padding, data_format, pool_mode)


@public("K.pool3d", old=OLD_NAMES)
def pool3d(x: Any, pool_size: Any, strides: Any = (1, 1, 1), padding: str = "valid", data_format: str | None = None,
           pool_mode: str = "max") -> Tensor:
    """`K.pool2d` of volumes."""
    return _pooled(x, 3, pool_size, strides, padding, data_format, pool_mode)


def _pooled(x: Any, count: int, pool_size: Any, strides: Any, padding: str, data_format: str | None,
            pool_mode: str) -> Tensor:
    order = normalize_data_format(data_format)
    check_padding(padding)
    ways = {"max": ops.max_pool, "avg": ops.avg_pool}
    if pool_mode not in ways:
        raise ArgumentError(f'pool_mode is one of "max", "avg"; received {pool_mode!r}')

    node = channels_last(as_node(x), count, order)
    window, steps = entries(pool_size, count, "pool_size"), entries(strides, count, "strides")
    low, counts = standing(node.shape[1:-1], window, steps, padding)
    pooled = ways[pool_mode](node, window=window, strides=steps, low=low, shape=counts)
    return Tensor(original(pooled, order))
