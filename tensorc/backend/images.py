"""Padding and resizing along the axes of sequences, images and volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorc import ops
from tensorc.backend.config import normalize_data_format
from tensorc.backend.convert import as_node
from tensorc.backend.indexing import index
from tensorc.backend.provenance import public
from tensorc.backend.shapes import repeated, reshaped
from tensorc.backend.tensor import Tensor
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir.node import Node

_DATA_FORMAT = {"dim_ordering": "data_format"}

Pair = tuple[int, int]


@public("K.temporal_padding")
def temporal_padding(x: Any, padding: Any = (1, 1)) -> Tensor:
    """(samples, time, features) with zeros before and after the time axis.

    Args:
        padding: (left, right), or one int for both.
    """
    return Tensor(_padded(as_node(x), [_pair(padding)], "channels_last"))


@public("K.asymmetric_temporal_padding")
def asymmetric_temporal_padding(x: Any, left_pad: int = 1, right_pad: int = 1) -> Tensor:
    """`K.temporal_padding` under its older name."""
    return Tensor(_padded(as_node(x), [(left_pad, right_pad)], "channels_last"))


@public("K.spatial_2d_padding", old=_DATA_FORMAT)
def spatial_2d_padding(x: Any, padding: Any = ((1, 1), (1, 1)), data_format: str | None = None) -> Tensor:
    """Images with zeros around.

    Args:
        padding: ((top, bottom), (left, right)), or (rows, columns) for the same on both sides.
        data_format: where the channels stand; the default order for None.
    """
    return Tensor(_padded(as_node(x), _pairs(padding, 2), normalize_data_format(data_format)))


@public("K.spatial_3d_padding", old=_DATA_FORMAT)
def spatial_3d_padding(x: Any, padding: Any = ((1, 1), (1, 1), (1, 1)), data_format: str | None = None) -> Tensor:
    """Volumes with zeros around: three pairs, or three ints for the same on both sides."""
    return Tensor(_padded(as_node(x), _pairs(padding, 3), normalize_data_format(data_format)))


@public("K.resize_images", old=_DATA_FORMAT)
def resize_images(x: Any, height_factor: int, width_factor: int, data_format: str,
                  interpolation: str = "nearest") -> Tensor:
    """Images enlarged by whole factors.

    Args:
        interpolation: 'nearest' repeats pixels; 'bilinear' blends neighbours, where the pixel at i comes from
            i / factor, with neither a shift by half a pixel nor aligned corners, as in TensorFlow 1.

    Raises: ArgumentError for another interpolation or a factor below 1; ShapeError unless x has four axes.
    """
    ways = {"nearest": repeated, "bilinear": _blended}
    if interpolation not in ways:
        raise ArgumentError(f'interpolation is one of "nearest", "bilinear"; received {interpolation!r}')
    return Tensor(_enlarged(as_node(x), (height_factor, width_factor), data_format, ways[interpolation]))


@public("K.resize_volumes", old=_DATA_FORMAT)
def resize_volumes(x: Any, depth_factor: int, height_factor: int, width_factor: int, data_format: str) -> Tensor:
    """Volumes enlarged by whole factors, each element repeated."""
    return Tensor(_enlarged(as_node(x), (depth_factor, height_factor, width_factor), data_format, repeated))


def _padded(x: Node, padding: Sequence[Pair], data_format: str) -> Node:
    """x with zeros around its spatial axes.  Raises ShapeError for another rank, ArgumentError for a negative count."""
    axes = _spatial_axes(x, len(padding), data_format)
    if any(n < 0 for pair in padding for n in pair):
        raise ArgumentError(f"padding is counted in whole elements from 0, not {list(padding)}")
    around = dict(zip(axes, padding, strict=True))
    rank = len(x.shape)
    node: Node = ops.pad(
        x,
        low=tuple(around.get(i, (0, 0))[0] for i in range(rank)),
        high=tuple(around.get(i, (0, 0))[1] for i in range(rank)),
        interior=(0,) * rank,
    )
    return node


def _enlarged(x: Node, factors: Sequence[int], data_format: str, way: Callable[[Node, int, int], Node]) -> Node:
    """x with each spatial axis made longer by its factor, in one of the ways."""
    for axis, factor in zip(_spatial_axes(x, len(factors), normalize_data_format(data_format)), factors, strict=True):
        if not isinstance(factor, int | np.integer) or factor < 1:
            raise ArgumentError(f"a factor is a whole number from 1, not {factor!r}")
        x = way(x, int(factor), axis)
    return x


def _blended(x: Node, factor: int, axis: int) -> Node:
    """Along an axis, the elements at 0, 1/factor, 2/factor …; beyond the last element it stays what it is."""
    if factor == 1:
        return x
    here = (slice(None),) * axis
    following = ops.concatenate(index(x, (*here, slice(1, None))), index(x, (*here, slice(-1, None))), axis=axis)

    before, n, rest = x.shape[:axis], x.shape[axis], x.shape[axis + 1:]
    weights = (np.arange(factor) / factor).reshape(factor, *(1,) * len(rest))
    near = reshaped(x, (*before, n, 1, *rest))
    far = reshaped(following, (*before, n, 1, *rest))
    blend = near + (far - near) * as_node(weights, x.dtype)
    return reshaped(blend, (*before, n * factor, *rest))


def _spatial_axes(x: Node, count: int, data_format: str) -> range:
    if len(x.shape) != count + 2:
        raise ShapeError(f"takes a tensor of {count + 2} axes, not {len(x.shape)}")
    first = 1 if data_format == "channels_last" else 2
    return range(first, first + count)


def _pairs(padding: Any, count: int) -> list[Pair]:
    """One pair for each spatial axis."""
    if not isinstance(padding, int):
        given = list(padding)
        if len(given) != count:
            raise ArgumentError(f"padding needs {count} entries, not {len(given)}")
        return [_pair(p) for p in given]
    return [_pair(padding)] * count


def _pair(padding: Any) -> Pair:
    if isinstance(padding, int | np.integer):
        return int(padding), int(padding)
    if len(padding) != 2:
        raise ArgumentError(f"padding of one axis is an int or two, not {padding!r}")
    return int(padding[0]), int(padding[1])
