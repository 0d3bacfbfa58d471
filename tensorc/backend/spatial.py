"""The spatial axes of sequences, images and volumes: where they stand, and how windows stand on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorc import ops
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ops.shape import inverse
from tensorc.ops.windows import fitting

Ints = tuple[int, ...]
Sizes = tuple[Size, ...]

OLD_NAMES = {"border_mode": "padding", "dim_ordering": "data_format"}


def channels_last(x: Node, count: int, data_format: str) -> Node:
    """x, of `count` spatial axes, with its channels as the last axis.  Raises ShapeError for another rank."""
    if len(x.shape) != count + 2:
        raise ShapeError(f"x has {len(x.shape)} axes, not {count + 2}: samples, channels and {count} spatial")
    return x if data_format == "channels_last" else _turned(x, _last(count))


def original(x: Node, data_format: str) -> Node:
    """A result, channels last, in the order that its operand had."""
    return x if data_format == "channels_last" else _turned(x, inverse(_last(len(x.shape) - 2)))


def with_channels_last(shape: Sequence[Any], data_format: str) -> tuple[Any, ...]:
    """A shape in the order that tensors have inside."""
    return tuple(shape) if data_format == "channels_last" else tuple(shape[i] for i in _last(len(shape) - 2))


def entries(value: Any, count: int, what: str) -> Ints:
    """One whole number from 1 for each of `count` axes; one number stands for all.  Raises ArgumentError."""
    given = (value,) * count if isinstance(value, int | np.integer) else tuple(value)
    if len(given) != count or not all(isinstance(v, int | np.integer) and v >= 1 for v in given):
        numbers = "a whole number" if count == 1 else f"{count} whole numbers"
        raise ArgumentError(f"{what} is {numbers} from 1, not {value!r}")
    return tuple(map(int, given))


def check_padding(padding: str, allowed: Sequence[str] = ("valid", "same")) -> None:
    """Raises ArgumentError for a padding that is not allowed."""
    if padding not in allowed:
        known = ", ".join(f'"{name}"' for name in allowed)
        raise ArgumentError(f"padding is one of {known}; received {padding!r}")


def standing(sizes: Sizes, reach: Sizes, strides: Ints, padding: str) -> tuple[Sizes, Sizes]:
    """The padding before each axis, and how many windows stand on it.

    'valid' windows stay inside; 'same' ones stand at every stride, the padding being shared between both ends, the
    last one taking what is over; 'causal' ones end where they stand.

    Args:
        reach: how many places a window reaches over.

    Raises: ShapeError where a 'valid' window is larger than what it slides over.
    Source: TensorFlow, "Notes on padding" of tf.nn.
    """
    before: list[Size] = []
    counts: list[Size] = []
    for axis, (n, over, stride) in enumerate(zip(sizes, reach, strides, strict=True)):
        if padding == "valid":
            if isinstance(n, int) and isinstance(over, int) and n < over:
                raise ShapeError(f"a window of {over} does not fit into {n} along spatial axis {axis}"
                                 '\npadding "same" puts zeros around')
            before.append(0)
            counts.append(fitting(n, over, stride))
            continue
        count = dims.floordiv(n, stride) if dims.mod(n, stride) == 0 else dims.ceildiv(n, stride)
        counts.append(count)
        if padding == "causal":
            before.append(over - 1)
        else:
            lacking = dims.maximum((count - 1) * stride + over - n, 0)
            before.append(dims.floordiv(lacking, 2))
    return tuple(before), tuple(counts)


def _last(count: int) -> Ints:
    """The permutation that makes channels the last axis."""
    return (0, *range(2, count + 2), 1)


def _turned(x: Node, perm: Ints) -> Node:
    node: Node = ops.transpose(x, perm=perm)
    return node
