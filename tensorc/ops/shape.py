"""Operations that move elements, or make them out of their place: no arithmetic on values."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.errors import DTypeError, ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node, Op
from tensorc.ir.types import DType, TensorType, i32, i64
from tensorc.ops.define import At, Bound, Element, Fill, NoGradient, Position, Where, defop
from tensorc.ops.infer import agree, at_least, same_dtype, show_shape
from tensorc.ops.sample import sample

Index = tuple[Size, ...]


def checked_axis(axis: int, rank: int) -> int:
    """The axis itself.  Raises ShapeError unless 0 <= axis < rank."""
    if not 0 <= axis < rank:
        raise ShapeError(f"there is no axis {axis} in a rank {rank} tensor")
    return axis


# Positions and sizes as numbers.

def _whole(dtype: DType) -> DType:
    if dtype not in (i32, i64):
        raise DTypeError(f"gives int32 or int64, not {dtype.name}")
    return dtype


def _iota_type(*, shape: tuple[Size, ...], axis: int, dtype: DType) -> TensorType:
    checked_axis(axis, len(shape))
    return TensorType(_whole(dtype), shape)


def _iota(*, shape: tuple[int, ...], axis: int, dtype: DType) -> NDArray[Any]:
    along = np.arange(shape[axis], dtype=dtype.numpy)
    return np.broadcast_to(along.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)


iota = defop(
    "iota",
    doc="The position of each element along an axis.",
    infer=_iota_type,
    reference=_iota,
    gradient=NoGradient("a position depends on nothing"),
    index=lambda node, index: Position(index[node.axis], node.dtype),
    samples=[sample(shape=(4,), axis=0, dtype=i64), sample(shape=(2, 3), axis=1, dtype=i32),
             sample(shape=(0, 3), axis=0, dtype=i32)],
)


def _size_type(*, value: Size, dtype: DType) -> TensorType:
    return TensorType(_whole(dtype), ())


size = defop(
    "size",
    doc="A size as a number.",
    infer=_size_type,
    reference=lambda *, value, dtype: np.asarray(value, dtype.numpy),
    gradient=NoGradient("a size depends on no value"),
    index=lambda node, index: Position(node.value, node.dtype),
    samples=[sample(value=7, dtype=i64), sample(value=0, dtype=i32)],
)


# The same elements at other places.

def _broadcast_type(x: TensorType, *, shape: tuple[Size, ...]) -> TensorType:
    lead = len(shape) - x.rank
    fits = lead >= 0 and all(_stretches(a, b) for a, b in zip(x.shape, shape[lead:], strict=True))
    if not fits:
        raise ShapeError(f"{show_shape(x.shape)} does not broadcast to {show_shape(shape)}")
    return x.with_shape(shape)


def _stretches(a: Size, b: Size) -> bool:
    """Whether size a broadcasts to size b; two sizes that differ only in name are taken to be equal."""
    if a == 1 or a is b or a == b:
        return True
    if any(a is part or a == part for found in dims.applications(b, "bcast") for part in found.args):
        return True
    if isinstance(a - b, int):
        return False
    agree(a, b)
    return True


def _broadcast_element(node: Any, index: Index) -> Element:
    lead = len(index) - node.x.type.rank
    return At(0, tuple(0 if s == 1 else i for s, i in zip(node.x.shape, index[lead:], strict=True)))


broadcast = defop(
    "broadcast",
    doc="x repeated to a full shape, by NumPy's rules.",
    infer=_broadcast_type,
    reference=lambda x, *, shape: np.broadcast_to(x, shape),
    gradient=lambda node, g: [g],
    index=_broadcast_element,
    samples=[sample("f32[3]", shape=(2, 3)), sample("f32[2,1]", shape=(4, 2, 3)), sample("f32[]", shape=(0, 2)),
             sample("i32[1]", shape=(1,))],
)


def _transpose_type(x: TensorType, *, perm: tuple[int, ...]) -> TensorType:
    if sorted(perm) != list(range(x.rank)):
        raise ShapeError(f"{list(perm)} does not name each axis of a rank {x.rank} tensor once")
    return x.with_shape([x.shape[p] for p in perm])


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `perm`."""
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


transpose: Op = defop(
    "transpose",
    doc="Axes in another order: axis k of the result is axis perm[k] of x.",
    infer=_transpose_type,
    reference=lambda x, *, perm: np.transpose(x, perm),
    gradient=lambda node, g: [transpose(g, perm=inverse(node.perm))],
    index=lambda node, index: At(0, tuple(index[k] for k in inverse(node.perm))),
    samples=[sample("f32[2,3]", perm=(1, 0)), sample("f32[2,3,4]", perm=(2, 0, 1)), sample("i32[]", perm=()),
             sample("f32[0,2]", perm=(1, 0))],
)


def _reshape_type(x: TensorType, *, shape: tuple[Size, ...]) -> TensorType:
    agree(x.count, dims.product(shape), f"{show_shape(x.shape)} and {show_shape(shape)} hold different counts")
    return x.with_shape(shape)


reshape: Op = defop(
    "reshape",
    doc="The same elements in the same order under another shape.",
    infer=_reshape_type,
    reference=lambda x, *, shape: np.reshape(x, shape),
    gradient=lambda node, g: [reshape(g, shape=node.x.shape)],
    view=True,
    samples=[sample("f32[2,3]", shape=(3, 2)), sample("f32[2,3]", shape=(1, 6)), sample("f32[]", shape=(1, 1)),
             sample("f32[0,3]", shape=(5, 0))],
)


# Parts, and parts together.

def _slice_type(x: TensorType, *, starts: tuple[Size, ...], limits: tuple[Size, ...],
                steps: tuple[int, ...]) -> TensorType:
    if not len(starts) == len(limits) == len(steps) == x.rank:
        raise ShapeError(f"a start, a limit and a step are needed for each axis of {show_shape(x.shape)}")
    for axis, (start, limit, step, count) in enumerate(zip(starts, limits, steps, x.shape, strict=True)):
        taken, left = limit - start, count - limit
        if any(isinstance(size, int) and size < 0 for size in (start, taken, left, step - 1)):
            raise ShapeError(f"axis {axis} of size {count} has no elements {start} to {limit} by steps of {step}")
        at_least(start, 0)
        at_least(limit, start)
        if isinstance(taken, int):
            at_least(count, limit if taken else 0)
        else:                                   # what takes nothing may lie anywhere
            at_least(dims.maximum(left, -taken), 0)
    return x.with_shape([dims.ceildiv(b - a, k) for a, b, k in zip(starts, limits, steps, strict=True)])


def _slice_gradient(node: Any, g: Any) -> list[Node | None]:
    """g at the places it was read from, zeros elsewhere."""
    high = [whole - start - (step * count - (step - 1))
            for whole, start, step, count in zip(node.x.shape, node.starts, node.steps, node.shape, strict=True)]
    return [pad(g, low=node.starts, high=tuple(high), interior=tuple(k - 1 for k in node.steps))]


slice = defop(
    "slice",
    doc="Elements start, start + step … before limit of each axis; 0 <= start <= limit, step >= 1, and limit <= size "
        "where there are elements.",
    infer=_slice_type,
    reference=lambda x, *, starts, limits, steps: x[tuple(map(builtins.slice, starts, limits, steps))],
    gradient=_slice_gradient,
    index=lambda node, index: At(0, tuple(a + k * i for a, k, i in zip(node.starts, node.steps, index, strict=True))),
    samples=[sample("f32[5]", starts=(1,), limits=(4,), steps=(1,)),
             sample("f32[5,4]", starts=(0, 1), limits=(5, 4), steps=(2, 2)),
             sample("f32[3,2]", starts=(2, 0), limits=(2, 2), steps=(3, 1)),
             sample("i32[]", starts=(), limits=(), steps=())],
)


def _reverse_type(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
    for axis in axes:
        checked_axis(axis, x.rank)
    return x


def _reverse_element(node: Any, index: Index) -> Element:
    return At(0, tuple(n - 1 - i if axis in node.axes else i for axis, (i, n) in
                       enumerate(zip(index, node.shape, strict=True))))


reverse: Op = defop(
    "reverse",
    doc="x with the order along some axes reversed.",
    infer=_reverse_type,
    reference=lambda x, *, axes: np.flip(x, axes),
    gradient=lambda node, g: [reverse(g, axes=node.axes)],
    index=_reverse_element,
    samples=[sample("f32[5]", axes=(0,)), sample("f32[2,3]", axes=(0, 1)), sample("f32[0,2]", axes=(0,)),
             sample("i32[2,2]", axes=())],
)


def _pad_type(x: TensorType, *, low: tuple[Size, ...], high: tuple[Size, ...],
              interior: tuple[int, ...]) -> TensorType:
    if not len(low) == len(high) == len(interior) == x.rank:
        raise ShapeError(f"low, high and interior are needed for each axis of {show_shape(x.shape)}")
    shape = [a + n * (k + 1) - k + b for a, b, k, n in zip(low, high, interior, x.shape, strict=True)]
    if any(k < 0 for k in interior) or any(isinstance(s, int) and s < 0 for s in shape):
        raise ShapeError(f"{show_shape(x.shape)} would become {show_shape(shape)}")
    return x.with_shape(shape)


def _pad(x: NDArray[Any], *, low: tuple[int, ...], high: tuple[int, ...], interior: tuple[int, ...]) -> NDArray[Any]:
    spread = np.zeros([max(n * (k + 1) - k, 0) for n, k in zip(x.shape, interior, strict=True)], x.dtype)
    spread[tuple(builtins.slice(None, None, k + 1) for k in interior)] = x
    for axis, (a, b, n, k) in enumerate(zip(low, high, x.shape, interior, strict=True)):
        places = np.arange(-a, n * (k + 1) - k + b)
        inside = (places >= 0) & (places < spread.shape[axis])
        taken = np.zeros((*spread.shape[:axis], len(places), *spread.shape[axis + 1:]), x.dtype)
        taken[(*[builtins.slice(None)] * axis, inside)] = np.take(spread, places[inside], axis)
        spread = taken
    return spread


def _pad_element(node: Any, index: Index) -> Element:
    """Element j of an axis of x lies at low + j · (interior + 1)."""
    bounds: list[Bound] = []
    source: list[Size] = []
    for i, n, low, high, interior in zip(index, node.x.shape, node.low, node.high, node.interior, strict=True):
        place, step = i - low, interior + 1
        if not (isinstance(low, int) and low <= 0 and isinstance(high, int) and high <= 0):
            bounds.append(Bound(place, 0, n * step - interior))
        if interior:
            bounds.append(Bound(dims.mod(place, step), 0, 1))
        source.append(dims.floordiv(place, step))
    element = At(0, tuple(source))
    return Where(tuple(bounds), element, Fill(0)) if bounds else element


def _pad_gradient(node: Any, g: Any) -> list[Node | None]:
    """What lies at the places of x; zeros for elements that a negative pad has cut off."""
    none = (0,) * node.type.rank
    cut = g
    if any(a != 0 or b != 0 for a, b in zip(node.low, node.high, strict=True)):
        cut = pad(g, low=tuple(-a for a in node.low), high=tuple(-b for b in node.high), interior=none)
    if not any(node.interior):
        return [cut]
    limits = tuple(n * (k + 1) - k if isinstance(n, dims.Dim) else max(n * (k + 1) - k, 0)
                   for n, k in zip(node.x.shape, node.interior, strict=True))
    return [slice(cut, starts=none, limits=limits, steps=tuple(k + 1 for k in node.interior))]


pad = defop(
    "pad",
    doc="Zeros before, after and between the elements of each axis: size low + n·(interior + 1) − interior + high.  "
        "Negative low or high cut off.",
    infer=_pad_type,
    reference=_pad,
    gradient=_pad_gradient,
    index=_pad_element,
    samples=[sample("f32[3]", low=(1,), high=(2,), interior=(0,)),
             sample("f32[2,3]", low=(0, 1), high=(0, -1), interior=(2, 0)),
             sample("f32[4]", low=(-1,), high=(1,), interior=(1,)),
             sample("f32[0,2]", low=(2, 0), high=(1, 0), interior=(0, 1)),
             sample("i32[]", low=(), high=(), interior=())],
)


def _concatenate_type(*xs: TensorType, axis: int) -> TensorType:
    if not xs:
        raise ShapeError("there is nothing to concatenate")
    first, *rest = xs
    checked_axis(axis, first.rank)
    shape = list(first.shape)
    for x in rest:
        if x.rank != first.rank:
            raise ShapeError(f"the ranks differ: {show_shape(first.shape)} and {show_shape(x.shape)}")
        for i, n in enumerate(x.shape):
            what = f"{show_shape(first.shape)} and {show_shape(x.shape)} differ also outside axis {axis}"
            shape[i] = shape[i] + n if i == axis else agree(shape[i], n, what)
    return TensorType(same_dtype(*xs), tuple(shape))


def _offsets(node: Any) -> list[Size]:
    """Where each operand begins along the axis, and where the last one ends."""
    offsets: list[Size] = [0]
    for x in node.args:
        offsets.append(offsets[-1] + x.shape[node.axis])
    return offsets


def _concatenate_element(node: Any, index: Index) -> Element:
    """A choice by halves, so that many operands take few comparisons."""
    offsets, axis = _offsets(node), node.axis

    def among(first: int, last: int) -> Element:
        if last - first == 1:
            return At(first, (*index[:axis], index[axis] - offsets[first], *index[axis + 1:]))
        middle = (first + last) // 2
        earlier = Bound(index[axis], offsets[first], offsets[middle])
        return Where((earlier,), among(first, middle), among(middle, last))

    return among(0, len(node.args))


def _concatenate_gradient(node: Any, g: Any) -> list[Node | None]:
    offsets, axis, rank = _offsets(node), node.axis, node.type.rank
    parts: list[Node | None] = []
    for k in range(len(node.args)):
        starts = tuple(offsets[k] if i == axis else 0 for i in range(rank))
        limits = tuple(offsets[k + 1] if i == axis else n for i, n in enumerate(g.shape))
        parts.append(slice(g, starts=starts, limits=limits, steps=(1,) * rank))
    return parts


concatenate = defop(
    "concatenate",
    doc="Tensors one after the other along an axis.",
    infer=_concatenate_type,
    reference=lambda *xs, axis: np.concatenate(xs, axis),
    gradient=_concatenate_gradient,
    index=_concatenate_element,
    samples=[sample("f32[2]", "f32[3]", axis=0), sample("f32[2,1]", "f32[2,0]", "f32[2,4]", axis=1),
             sample("i32[2,2]", axis=0)],
)
