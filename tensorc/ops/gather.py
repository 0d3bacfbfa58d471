"""Operations whose places come from data: rows at given indices, and their sum back to where they came from.

An index outside its axis is an error, which the `check` that closing adds to a program finds and the runtime raises.
Here the nearest index inside takes its place, so that every operation has a value and nothing foreign is read.
"""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.errors import DTypeError
from tensorc.ir.dims import Size
from tensorc.ir.node import Node, constant
from tensorc.ir.types import TensorType, i32, i64
from tensorc.ops.define import At, Bound, Compute, Element, Fill, NoGradient, Position, Where, defop
from tensorc.ops.elementwise import cast, ge, logical_or, lt, numbers, select
from tensorc.ops.infer import agree, show_shape
from tensorc.ops.reduce import min as least
from tensorc.ops.sample import sample
from tensorc.ops.shape import Index, broadcast, checked_axis, iota, reshape, size

NONE = int(np.iinfo(np.int64).max)
"""The place of an offending index where there is none."""


def _indices(type: TensorType) -> TensorType:
    if type.dtype not in (i32, i64):
        raise DTypeError(f"indices are int32 or int64, not {type.dtype.name}")
    return type


def _gather_type(x: TensorType, indices: TensorType, *, axis: int) -> TensorType:
    checked_axis(axis, x.rank)
    return x.with_shape((*x.shape[:axis], *_indices(indices).shape, *x.shape[axis + 1:]))


def _gather(x: NDArray[Any], indices: NDArray[Any], *, axis: int) -> NDArray[Any]:
    if x.shape[axis] == 0:
        return np.zeros((*x.shape[:axis], *indices.shape, *x.shape[axis + 1:]), x.dtype)
    return np.take(x, indices, axis, mode="clip")


def _gather_element(node: Any, index: Index) -> Element:
    axis, rank, n = node.axis, node.indices.type.rank, node.x.shape[node.axis]
    place = inside(At(1, index[axis:axis + rank]), n)
    row = At(0, (*index[:axis], place, *index[axis + rank:]))
    if isinstance(n, int) and n > 0:
        return row
    return Where((Bound(n, 1, n + 1),), row, Fill(0))


def inside(index: Element, size: Size) -> Element:
    """The nearest of 0 … size − 1."""
    wide = Compute("cast", (index,), i64)
    low = Compute("maximum", (wide, Fill(0, i64)), i64)
    return Compute("minimum", (low, Position(size - 1, i64)), i64)


def _gather_gradient(node: Any, g: Any) -> list[Node | None]:
    """g summed to the rows that it was read from; of floats of 16 bits in float32, as every sum."""
    wide = cast(g, dtype=g.dtype.wide) if g.dtype.is_half else g
    total = scatter_add(wide, node.indices, axis=node.axis, size=node.x.shape[node.axis])
    return [cast(total, dtype=g.dtype) if g.dtype.is_half else total, None]


gather = defop(
    "gather",
    doc="The elements of x at integer indices along an axis, whose place in the shape the indices' shape takes.",
    infer=_gather_type,
    reference=_gather,
    gradient=_gather_gradient,
    index=_gather_element,
    samples=[sample("f32[5,3]", "i32[4]", axis=0, span=(0, 2)), sample("f32[2,5,3]", "i64[2,2]", axis=1, span=(0, 4)),
             sample("f64[3]", "i32[]", axis=0, span=(0, 2)), sample("f16[4,3]", "i32[2]", axis=1, span=(0, 2)),
             sample("i32[3,2]", "i32[0]", axis=0), sample("bool[3,2]", "i32[7]", axis=0, span=(0, 2)),
             sample("f32[1,3]", "i64[5]", axis=0, span=(0, 0)), sample("f32[0,2]", "i32[0]", axis=0)],
)


def _scatter_add_type(g: TensorType, indices: TensorType, *, axis: int, size: Size) -> TensorType:
    rank = _indices(indices).rank
    if axis + rank > g.rank:
        checked_axis(axis + rank - 1, g.rank)
    for have, want in zip(g.shape[axis:axis + rank], indices.shape, strict=True):
        agree(have, want, f"rows {show_shape(g.shape)} and indices {show_shape(indices.shape)} do not go together")
    return numbers(g.with_shape((*g.shape[:axis], size, *g.shape[axis + rank:])))


def _scatter_add(g: NDArray[Any], indices: NDArray[Any], *, axis: int, size: int) -> NDArray[Any]:
    total = np.zeros((*g.shape[:axis], size, *g.shape[axis + indices.ndim:]), g.dtype)
    if size:
        place = (*[builtins.slice(None)] * axis, np.clip(indices, 0, size - 1))
        np.add.at(total, place, g)
    return total


scatter_add = defop(
    "scatter_add",
    doc="Zeros of `size` along an axis, to which the rows of g are added at integer indices, one after the other.",
    infer=_scatter_add_type,
    reference=_scatter_add,
    gradient=lambda node, g: [gather(g, node.indices, axis=node.axis), None],
    kernel="scatter_add",
    samples=[sample("f32[4,3]", "i32[4]", axis=0, size=5, span=(0, 4)),
             sample("f64[6]", "i64[6]", axis=0, size=2, span=(0, 1)),
             sample("f32[2,3,2,4]", "i32[3,2]", axis=1, size=3, span=(0, 2)),
             sample("f32[3]", "i32[]", axis=0, size=4, span=(0, 3)),
             sample("f32[0,3]", "i32[0]", axis=0, size=2), sample("f32[0,3]", "i32[0]", axis=0, size=0),
             sample("i32[5,2]", "i32[5]", axis=0, size=3, span=(0, 2)),
             sample("f16[2,5]", "i32[5]", axis=1, size=3, span=(0, 2))],
)


# What becomes of an index that is outside.

def _outside_type(indices: TensorType, *, size: Size) -> TensorType:
    _indices(indices)
    return TensorType(i64, ())


def _outside(indices: NDArray[Any], *, size: int) -> NDArray[Any]:
    found = np.flatnonzero((indices < 0) | (indices >= size))
    return np.asarray(found[0] if len(found) else NONE, np.int64)


def _outside_expansion(node: Any) -> Node:
    """The least of the places where an index is outside."""
    n, bound = node.indices.shape[0], node.size
    wide = cast(node.indices, dtype=i64) if node.indices.dtype is i32 else node.indices
    limit = constant(bound, i64) if isinstance(bound, int) else size(value=bound, dtype=i64)
    wrong = logical_or(lt(wide, 0), ge(wide, limit))
    none = broadcast(constant(NONE, i64), shape=(n,))
    places = select(wrong, iota(shape=(n,), axis=0, dtype=i64), none)
    first: Node = least(places, axes=(0,), keepdims=False)
    return first


outside = defop(
    "outside",
    doc="The place of the first of some indices that is not 0 … size − 1; the largest int64 where there is none.",
    infer=_outside_type,
    reference=_outside,
    gradient=NoGradient("it counts"),
    expand=_outside_expansion,
    samples=[sample("i32[5]", size=2), sample("i64[4]", size=9, span=(0, 8)), sample("i32[0]", size=0)],
)


def _check_type(indices: TensorType, first: TensorType, *, size: Size, what: str) -> TensorType:
    _indices(indices)
    return TensorType(i64, ())


def _check(indices: NDArray[Any], first: NDArray[Any], *, size: int, what: str) -> NDArray[Any]:
    return np.asarray(indices[min(int(first), len(indices) - 1)] if len(indices) else 0, np.int64)


def _check_element(node: Any, index: Index) -> Element:
    n = node.indices.shape[0]
    offending = Compute("cast", (At(0, (inside(At(1, ()), n),)),), i64)
    return Where((Bound(n, 1, n + 1),), offending, Fill(0))


check = defop(
    "check",
    doc="The index at the first place where one is outside, for the runtime to tell by the name of `what` it is.  "
        "Variables are written after all checks, and not at all where one has found something.",
    infer=_check_type,
    reference=_check,
    gradient=NoGradient("no value depends on it"),
    index=_check_element,
    samples=[sample("i32[3]", "i64[]", size=4, what="index", span=(1, 2)),
             sample("i64[0]", "i64[]", size=0, what="index", span=(1, 2)),
             sample("i32[1]", "i64[]", size=2, what="length", span=(3, 5))],
)


def check_inside(indices: Node, bound: Size, what: str) -> tuple[Node, Node]:
    """The place of the first index that is not 0 … bound − 1, among the indices laid flat, and its `check`."""
    flat = reshape(indices, shape=(indices.type.count,))
    first = outside(flat, size=bound)
    return first, check(flat, first, size=bound, what=what)
