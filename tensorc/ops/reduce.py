# mypy: no-warn-return-any
"""Reductions over axes, scans along one, and what is made of them.

Floats of 16 bits accumulate in float32; integers keep their dtype and wrap.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.errors import DTypeError, ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ir.node import constant as number
from tensorc.ir.types import DType, TensorType, i32, i64
from tensorc.ops.define import NoGradient, Reduce, defop
from tensorc.ops.elementwise import abs as absolute
from tensorc.ops.elementwise import cast, eq, floats, floordiv, logical_and, numbers, select, sign, square, zero
from tensorc.ops.infer import reduced, show_shape
from tensorc.ops.sample import Sample, sample
from tensorc.ops.shape import (
    broadcast,
    checked_axis,
    concatenate,
    inverse,
    reshape,
    reverse,
    size,
    slice,
    transpose,
)

Array = NDArray[Any]


# What gradients and expansions share.

def spread(x: Node, like: Node, axes: tuple[int, ...]) -> Node:
    """x, a result of reducing `like` over axes, repeated along them again."""
    return broadcast(kept(x, like, axes), shape=like.shape)


def kept(x: Node, like: Node, axes: tuple[int, ...]) -> Node:
    """x, a result of reducing `like` over axes, with size 1 there."""
    if x.type.rank == like.type.rank:
        return x
    return reshape(x, shape=tuple(1 if i in axes else n for i, n in enumerate(like.shape)))


def dropped(x: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    """x, of size 1 along axes, without them unless they are kept."""
    if keepdims or not axes:
        return x
    return reshape(x, shape=tuple(n for i, n in enumerate(x.shape) if i not in axes))


def count(x: Node, axes: tuple[int, ...], dtype: DType) -> Node:
    """How many elements a reduction of x over axes takes together, as a scalar."""
    n = dims.product(x.shape[a] for a in axes)
    return number(n, dtype) if isinstance(n, int) else cast(size(value=n, dtype=i64), dtype=dtype)


def _numbers_reduced(x: TensorType, *, axes: tuple[int, ...], keepdims: bool) -> TensorType:
    return reduced(numbers(x), axes=axes, keepdims=keepdims)


def _floats_reduced(x: TensorType, *, axes: tuple[int, ...], keepdims: bool) -> TensorType:
    return reduced(floats(x), axes=axes, keepdims=keepdims)


def _accumulating(function: Callable[..., Any]) -> Callable[..., Array]:
    """A NumPy sum or product in the dtype of its operand."""
    def reference(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(function(x, axis=axes, keepdims=keepdims, dtype=x.dtype))
    return reference


def _extreme(function: Callable[..., Any], low: bool) -> Callable[..., Array]:
    """np.max or np.min, giving the least or the greatest value of the dtype for no elements."""
    def reference(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        start: Any
        if x.dtype.kind == "f":
            start = -np.inf if low else np.inf
        elif x.dtype.kind == "b":
            start = not low
        else:
            start = np.iinfo(x.dtype).min if low else np.iinfo(x.dtype).max
        return np.asarray(function(x, axis=axes, keepdims=keepdims, initial=start))
    return reference


def _samples(*dtypes: str, span: tuple[float, float] = (-2.0, 2.0)) -> list[Sample]:
    """Rows, columns, all and none, with and without keepdims, sizes 0 and 1 among them."""
    more = [sample(f"{d}[3,4]", axes=(0,), keepdims=False, span=span) for d in dtypes]
    return [
        sample("f32[3,4]", axes=(1,), keepdims=False, span=span),
        sample("f32[3,4]", axes=(0,), keepdims=True, span=span),
        sample("f32[2,3,4]", axes=(0, 2), keepdims=False, span=span),
        sample("f32[2,3]", axes=(0, 1), keepdims=True, span=span),
        sample("f32[2,1]", axes=(1,), keepdims=False, span=span),
        sample("f32[2,3]", axes=(), keepdims=False, span=span),
        sample("f32[0,3]", axes=(0,), keepdims=False, span=span),
        sample("f32[]", axes=(), keepdims=False, span=span),
        *more,
    ]


# Reductions.

sum = defop(
    "sum",
    doc="The sum over axes.",
    infer=_numbers_reduced,
    reference=_accumulating(np.sum),
    gradient=lambda node, g: [spread(g, node.x, node.axes)],
    reduce=Reduce("add"),
    samples=_samples("f64", "f16", "bf16", "i32", "u8"),
)


def _prod_gradient(node: Any, g: Any) -> list[Node | None]:
    """g times the product of the other elements, which is right also where elements are 0."""
    x, axes = node.x, node.axes
    perm = tuple(i for i in range(x.type.rank) if i not in axes) + axes
    moved = transpose(x, perm=perm)
    lead = moved.shape[:len(perm) - len(axes)]
    rows = reshape(moved, shape=(*lead, dims.product(x.shape[a] for a in axes)))

    along = (len(lead),)
    after = reverse(_before(reverse(rows, axes=along)), axes=along)
    others = transpose(reshape(_before(rows) * after, shape=moved.shape), perm=inverse(perm))
    return [spread(g, x, axes) * others]


def _before(rows: Node) -> Node:
    """The product of all earlier elements along the last axis; 1 for the first."""
    *lead, n = rows.shape
    one = broadcast(number(1, rows.dtype), shape=(*lead, 1))
    longer = concatenate(one, cumprod(rows, axis=len(lead)), axis=len(lead))
    rank = len(rows.shape)
    return slice(longer, starts=(0,) * rank, limits=(*lead, n), steps=(1,) * rank)


prod = defop(
    "prod",
    doc="The product over axes.",
    infer=_numbers_reduced,
    reference=_accumulating(np.prod),
    gradient=_prod_gradient,
    reduce=Reduce("mul"),
    samples=_samples("f64", "f16", "bf16", "i32"),
)


def _extreme_gradient(node: Any, g: Any) -> list[Node | None]:
    """Shared equally among the elements that reach the extreme."""
    x, axes = node.x, node.axes
    winners = eq(x, kept(node, x, axes))
    ties = sum(cast(winners, dtype=g.dtype), axes=axes, keepdims=True)
    return [select(winners, kept(g, x, axes) / ties, zero(g))]


max = defop(
    "max",
    doc="The largest element over axes, NaN if there is one, −inf or the least integer of none.",
    infer=reduced,
    reference=_extreme(np.max, low=True),
    gradient=_extreme_gradient,
    reduce=Reduce("max"),
    samples=_samples("f64", "f16", "bf16", "i32", "u8", "bool"),
)

min = defop(
    "min",
    doc="The smallest element over axes, NaN if there is one, +inf or the greatest integer of none.",
    infer=reduced,
    reference=_extreme(np.min, low=False),
    gradient=_extreme_gradient,
    reduce=Reduce("min"),
    samples=_samples("f64", "f16", "bf16", "i32", "u8", "bool"),
)


def _truths_reduced(x: TensorType, *, axes: tuple[int, ...], keepdims: bool) -> TensorType:
    if not x.dtype.is_bool:
        raise DTypeError(f"takes bool, not {x.dtype.name}")
    return reduced(x, axes=axes, keepdims=keepdims)


_TRUTHS = [sample("bool[3,4]", axes=(1,), keepdims=False), sample("bool[3]", axes=(0,), keepdims=True),
           sample("bool[0,2]", axes=(0,), keepdims=False), sample("bool[2,3,2]", axes=(0, 2), keepdims=True)]

any = defop(
    "any",
    doc="Whether one element over axes is true.",
    infer=_truths_reduced,
    reference=lambda x, *, axes, keepdims: np.any(x, axis=axes, keepdims=keepdims),
    gradient=NoGradient("truth values have no gradient"),
    reduce=Reduce("or"),
    samples=_TRUTHS,
)

all = defop(
    "all",
    doc="Whether every element over axes is true.",
    infer=_truths_reduced,
    reference=lambda x, *, axes, keepdims: np.all(x, axis=axes, keepdims=keepdims),
    gradient=NoGradient("truth values have no gradient"),
    reduce=Reduce("and"),
    samples=_TRUTHS,
)


def _place_type(x: TensorType, *, axis: int) -> TensorType:
    if x.shape[checked_axis(axis, x.rank)] == 0:
        raise ShapeError(f"axis {axis} of {show_shape(x.shape)} has no elements")
    return reduced(numbers(x), axes=(axis,), keepdims=False).with_dtype(i64)


_PLACES = [sample("f32[3,4]", axis=1), sample("f32[3,4]", axis=0), sample("f64[5]", axis=0), sample("i32[2,6]", axis=1),
           sample("f16[2,1]", axis=1), sample("f32[0,3]", axis=1)]

argmax = defop(
    "argmax",
    doc="The place of the first largest element along an axis, or of the first NaN.",
    infer=_place_type,
    reference=lambda x, *, axis: np.argmax(x, axis),
    gradient=NoGradient("the place of a maximum is piecewise constant"),
    reduce=Reduce("argmax"),
    samples=_PLACES,
)

argmin = defop(
    "argmin",
    doc="The place of the first smallest element along an axis, or of the first NaN.",
    infer=_place_type,
    reference=lambda x, *, axis: np.argmin(x, axis),
    gradient=NoGradient("the place of a minimum is piecewise constant"),
    reduce=Reduce("argmin"),
    samples=_PLACES,
)


# Scans.

def _scan_type(x: TensorType, *, axis: int) -> TensorType:
    checked_axis(axis, x.rank)
    return numbers(x)


def _scanning(function: Callable[..., Any]) -> Callable[..., Array]:
    def reference(x: Array, *, axis: int) -> Array:
        return np.asarray(function(x, axis=axis, dtype=x.dtype))
    return reference


_SCANS = [sample("f32[3,4]", axis=1), sample("f32[3,4]", axis=0), sample("f64[2,3,2]", axis=1),
          sample("f16[5]", axis=0), sample("i32[4]", axis=0), sample("f32[0]", axis=0), sample("f32[2,1]", axis=1)]

cumsum = defop(
    "cumsum",
    doc="The sums of the first 1, 2, … elements along an axis.",
    infer=_scan_type,
    reference=_scanning(np.cumsum),
    gradient=lambda node, g: [_from_the_end(g, node.axis)],
    reduce=Reduce("add", cumulative=True),
    samples=_SCANS,
)


def _from_the_end(x: Node, axis: int) -> Node:
    """The sums of the last 1, 2, … elements, each at the first of its summands."""
    return reverse(cumsum(reverse(x, axes=(axis,)), axis=axis), axes=(axis,))


def _cumprod_gradient(node: Any, g: Any) -> list[Node | None]:
    """dxᵢ = Σ_{k ≥ i} gₖ·yₖ / xᵢ, where no element divides that is 0.

    At the first 0 of a row, the products without it take the place of y; beyond it every product is 0.
    """
    x, axis = node.x, node.axis
    flat = eq(x, 0)
    first = logical_and(flat, eq(cumsum(cast(flat, dtype=i32), axis=axis), 1))
    one = number(1, x.dtype)
    without = cumprod(select(first, one, x), axis=axis)

    quotient = _from_the_end(node * g, axis) / select(flat, one, x)
    elsewhere = select(flat, zero(g), quotient)
    return [select(first, _from_the_end(without * g, axis), elsewhere)]


cumprod = defop(
    "cumprod",
    doc="The products of the first 1, 2, … elements along an axis.",
    infer=_scan_type,
    reference=_scanning(np.cumprod),
    gradient=_cumprod_gradient,
    reduce=Reduce("mul", cumulative=True),
    samples=_SCANS,
)


# In terms of sums.

def _mean(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
    n = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    if x.dtype.kind == "f":
        return np.asarray(np.sum(x, axis=axes, keepdims=keepdims) / x.dtype.type(n))
    total = np.asarray(np.sum(x, axis=axes, keepdims=keepdims, dtype=np.int64))
    return np.asarray(np.sign(total) * (np.abs(total) // np.int64(n))).astype(x.dtype)


def _mean_expansion(node: Any) -> Node:
    x, axes = node.x, node.axes
    if x.dtype.is_float:
        wide = cast_unless(x, x.dtype.wide)
        total = sum(wide, axes=axes, keepdims=node.keepdims)
        return cast_unless(total / count(x, axes, wide.dtype), x.dtype)
    total = sum(cast_unless(x, i64), axes=axes, keepdims=node.keepdims)
    return cast_unless(sign(total) * floordiv(absolute(total), count(x, axes, i64)), x.dtype)


def cast_unless(x: Node, dtype: DType) -> Node:
    """x in a dtype; x itself if it has it."""
    return x if x.dtype is dtype else cast(x, dtype=dtype)


def _over_count(g: Node, x: Node, axes: tuple[int, ...]) -> Node:
    """g over how many elements a reduction of x over axes takes together, which floats of 16 bits may not hold."""
    wide = cast_unless(g, g.dtype.wide)
    return cast_unless(wide / count(x, axes, wide.dtype), g.dtype)


mean = defop(
    "mean",
    doc="The mean over axes; of integers an integer, rounded towards zero.  NaN, or 0 for integers, of none.",
    infer=_numbers_reduced,
    reference=_mean,
    gradient=lambda node, g: [spread(_over_count(g, node.x, node.axes), node.x, node.axes)],
    expand=_mean_expansion,
    samples=_samples("f64", "f16", "bf16", "i32", "u8", span=(-9, 9)),
)


def _variance(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
    away = x - _mean(x, axes=axes, keepdims=True)
    return _mean(away * away, axes=axes, keepdims=keepdims)


def _variance_expansion(node: Any) -> Node:
    x, axes = cast_unless(node.x, node.dtype.wide), node.axes
    away = x - mean(x, axes=axes, keepdims=True)
    return cast_unless(mean(square(away), axes=axes, keepdims=node.keepdims), node.dtype)


def _variance_gradient(node: Any, g: Any) -> list[Node | None]:
    x, axes = node.x, node.axes
    away = x - mean(x, axes=axes, keepdims=True)
    return [away * kept(_over_count(g * 2, x, axes), x, axes)]


variance = defop(
    "variance",
    doc="The mean square of the distance from the mean over axes, in two passes.",
    infer=_floats_reduced,
    reference=_variance,
    gradient=_variance_gradient,
    expand=_variance_expansion,
    samples=_samples("f64", "f16", "bf16"),
)


# The inverse of broadcasting.

def _sum_to_type(g: TensorType, like: TensorType) -> TensorType:
    lead = g.rank - like.rank
    pairs = list(zip(like.shape, g.shape[lead:], strict=True)) if lead >= 0 else []
    if lead < 0 or builtins.any(a != 1 and isinstance(a - b, int) and a - b != 0 for a, b in pairs):
        raise ShapeError(f"{show_shape(like.shape)} does not broadcast to {show_shape(g.shape)}")
    return numbers(g).with_shape(like.shape)


def _sum_to(g: Array, like: Array) -> Array:
    lead = g.ndim - like.ndim
    axes = (*range(lead), *(i + lead for i, n in enumerate(like.shape) if n == 1))
    return _accumulating(np.sum)(g, axes=axes, keepdims=True).reshape(like.shape)


def _sum_to_expansion(node: Any) -> Node:
    """A sum over the axes that were broadcast; the node itself while sizes do not tell which those are."""
    g, shape = node.g, node.shape
    lead = g.type.rank - len(shape)
    pairs: list[tuple[Size, Size]] = list(zip(shape, g.shape[lead:], strict=True))
    ones = tuple(i for i, (a, b) in enumerate(pairs, lead) if a == 1 and b != 1)
    if len(ones) < len([1 for a, b in pairs if a is not b and a != b]):
        return node
    if lead == 0:
        return sum(g, axes=ones, keepdims=True) if ones else g
    total = sum(g, axes=(*range(lead), *ones), keepdims=False)
    return reshape(total, shape=shape) if ones else total


sum_to = defop(
    "sum_to",
    doc="g summed over the axes along which a tensor shaped like `like` was broadcast to the shape of g.",
    infer=_sum_to_type,
    reference=_sum_to,
    gradient=lambda node, g: [broadcast(g, shape=node.g.shape), None],
    expand=_sum_to_expansion,
    samples=[sample("f32[2,3]", "f32[3]"), sample("f32[2,3]", "f32[2,1]"), sample("f32[4,2,3]", "f32[1,3]"),
             sample("f32[2,3]", "f32[]"), sample("f32[2,3]", "f32[2,3]"), sample("f32[0,3]", "f32[1,3]"),
             sample("f64[2,1]", "f64[2,1]")],
)
