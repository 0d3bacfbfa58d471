"""Pooling: the largest element or the mean of each window, channel by channel.

x is [b, *s, c], the result [b, *shape, c].  A window that stands at p covers the places p·stride + q − low; those
outside x are padding and do not count.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorc.errors import ShapeError
from tensorc.ir.dims import Size
from tensorc.ir.node import Node, Op, constant
from tensorc.ir.types import TensorType, i32, i64, numpy_kind
from tensorc.ops.define import defop
from tensorc.ops.elementwise import cast, eq, floats, maximum, minimum, numbers, select, zero
from tensorc.ops.reduce import argmax, cast_unless, max, sum
from tensorc.ops.sample import sample
from tensorc.ops.shape import broadcast, iota, reshape, size
from tensorc.ops.windows import Array, Ints, Sizes, check_counts, check_geometry, cut, stays_inside, unwindow, windows


def _pooled(x: TensorType, window: Ints, strides: Ints, low: Sizes, shape: Sizes) -> TensorType:
    check_geometry(x.rank - 2, strides, window, low, shape)
    check_counts(*shape)
    if math.prod(window) < 1:
        raise ShapeError(f"a window has one element or more along each axis, not {window}")
    return x.with_shape((x.shape[0], *shape, x.shape[-1]))


def _parts(node: Any, x: Node, fill: float) -> Node:
    """The elements in each window: [b, *shape, taps, c]."""
    with_taps = reshape(x, shape=(*x.shape[:-1], 1, x.shape[-1]))
    found: Node = windows(with_taps, fill=fill, **_geometry(node), shape=node.attrs["shape"])
    return found


def _put_back(node: Any, parts: Node) -> Node:
    """What the elements of windows, [b, *shape, taps, c], add up to at each place of x."""
    spread = unwindow(parts, **_geometry(node), shape=node.x.shape[1:-1])
    total: Node = sum(spread, axes=(_taps_axis(node),), keepdims=False)
    return total


def _geometry(node: Any) -> dict[str, Any]:
    return {name: node.attrs[name] for name in ("window", "strides", "low")}


def _taps_axis(node: Any) -> int:
    axis: int = node.type.rank - 1
    return axis


def _beside_taps(node: Any, x: Node) -> Node:
    """A tensor of the pooled shape as [b, *shape, 1, c]."""
    kept: Node = reshape(x, shape=(*node.shape[:-1], 1, node.shape[-1]))
    return kept


# The largest.

def _lowest(dtype: np.dtype[Any]) -> float:
    return -np.inf if numpy_kind(dtype) == "f" else int(np.iinfo(dtype).min)


def _max_pool_type(x: TensorType, *, window: Ints, strides: Ints, low: Sizes, shape: Sizes) -> TensorType:
    return _pooled(numbers(x), window, strides, low, shape)


def _max_pool(x: Array, *, window: Ints, strides: Ints, low: Ints, shape: Ints) -> Array:
    ones = (1,) * len(window)
    parts = cut(x, window=window, strides=strides, dilations=ones, low=low, counts=shape, fill=_lowest(x.dtype))
    return np.asarray(parts.max(axis=tuple(range(1 + len(shape), 1 + 2 * len(shape)))))


def _max_pool_expansion(node: Any) -> Node:
    parts = _parts(node, node.x, _lowest(node.dtype.numpy))
    largest: Node = max(parts, axes=(_taps_axis(node),), keepdims=False)
    return largest


def _max_pool_gradient(node: Any, g: Any) -> list[Node | None]:
    """To the first of the largest elements of each window, as TensorFlow has it."""
    axis = _taps_axis(node)
    place = argmax(_parts(node, node.x, _lowest(node.dtype.numpy)), axis=axis)
    tap = iota(shape=(math.prod(node.window), 1), axis=0, dtype=i32)
    chosen = eq(_beside_taps(node, cast(place, dtype=i32)), tap)
    return [_put_back(node, select(chosen, _beside_taps(node, g), zero(g)))]


max_pool: Op = defop(
    "max_pool",
    doc="The largest element of each window, NaN if there is one, −inf or the least integer where all is padding.",
    infer=_max_pool_type,
    reference=_max_pool,
    gradient=_max_pool_gradient,
    expand=_max_pool_expansion,
    samples=[
        sample("f32[2,5,3]", window=(2,), strides=(1,), low=(0,), shape=(4,)),
        sample("f32[2,5,6,3]", window=(3, 2), strides=(2, 2), low=(1, 0), shape=(3, 3)),
        sample("f64[1,3,4,3,2]", window=(2, 3, 2), strides=(1, 2, 1), low=(0, 1, 0), shape=(2, 2, 2)),
        sample("i32[1,4,2]", window=(3,), strides=(1,), low=(1,), shape=(4,)),
        sample("f16[1,4,1]", window=(2,), strides=(2,), low=(0,), shape=(2,)),
        sample("f32[0,4,1]", window=(2,), strides=(2,), low=(0,), shape=(2,)),
        sample("f32[2,1,1]", window=(5,), strides=(1,), low=(2,), shape=(1,)),
    ],
)


# The mean.

def _avg_pool_type(x: TensorType, *, window: Ints, strides: Ints, low: Sizes, shape: Sizes) -> TensorType:
    return _pooled(floats(x), window, strides, low, shape)


def _avg_pool(x: Array, *, window: Ints, strides: Ints, low: Ints, shape: Ints) -> Array:
    geometry = {"window": window, "strides": strides, "dilations": (1,) * len(window), "low": low, "counts": shape}
    over = tuple(range(1 + len(shape), 1 + 2 * len(shape)))
    inside = cut(np.ones((1, *x.shape[1:-1], 1), x.dtype), fill=0, **geometry).sum(axis=over)
    return np.asarray(cut(x, fill=0, **geometry).sum(axis=over) / inside)


def _covered(node: Any) -> Node:
    """How many elements of x each window covers: a number, or [1, *shape, 1] where some meet padding."""
    wide = node.dtype.wide
    total = constant(1, wide)
    axes = zip(node.x.shape[1:-1], node.window, node.strides, node.low, node.attrs["shape"], strict=True)
    for axis, geometry in enumerate(axes, 1):
        along = _covered_along(*geometry)
        if along.shape:
            along = reshape(along, shape=tuple(along.shape[0] if i == axis else 1 for i in range(node.type.rank)))
        total = total * cast(along, dtype=wide)
    return total


def _covered_along(n: Size, window: int, stride: int, low: Size, count: Size) -> Node:
    """How many of n places each of `count` windows covers."""
    if stays_inside(n, window, stride, low, count):
        return constant(window, i64)
    first = iota(shape=(count,), axis=0, dtype=i64) * stride - _number(low)
    covered: Node = maximum(minimum(first + window, _number(n)) - maximum(first, 0), 0)
    return covered


def _number(n: Size) -> Node:
    found: Node = constant(n, i64) if isinstance(n, int) else size(value=n, dtype=i64)
    return found


def _avg_pool_expansion(node: Any) -> Node:
    covered = _covered(node)
    total = sum(_parts(node, cast_unless(node.x, covered.dtype), 0), axes=(_taps_axis(node),), keepdims=False)
    return cast_unless(total / covered, node.dtype)


def _avg_pool_gradient(node: Any, g: Any) -> list[Node | None]:
    """An equal part to each element that a window covers."""
    part = g / cast_unless(_covered(node), g.dtype)
    taps = math.prod(node.window)
    shape = (*node.shape[:-1], taps, node.shape[-1])
    return [_put_back(node, broadcast(_beside_taps(node, part), shape=shape))]


avg_pool: Op = defop(
    "avg_pool",
    doc="The mean of the elements of x that each window covers, NaN where it covers none.",
    infer=_avg_pool_type,
    reference=_avg_pool,
    gradient=_avg_pool_gradient,
    expand=_avg_pool_expansion,
    samples=[
        sample("f32[2,5,3]", window=(2,), strides=(1,), low=(0,), shape=(4,)),
        sample("f32[2,5,6,3]", window=(3, 2), strides=(2, 2), low=(1, 0), shape=(3, 3)),
        sample("f64[1,3,4,3,2]", window=(2, 3, 2), strides=(1, 2, 1), low=(0, 1, 0), shape=(2, 2, 2)),
        sample("f64[2,4,1]", window=(4,), strides=(1,), low=(1,), shape=(4,)),
        sample("f16[1,4,1]", window=(2,), strides=(2,), low=(0,), shape=(2,)),
        sample("f32[0,4,1]", window=(2,), strides=(2,), low=(0,), shape=(2,)),
        sample("f32[2,1,1]", window=(5,), strides=(1,), low=(2,), shape=(1,)),
    ],
)
