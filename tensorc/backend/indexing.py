"""`x[1:, ::-1, None, ..., 0]`: NumPy's basic indexing as slice, reverse and reshape; computed places as gather."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc import ops
from tensorc.backend.handle import Handle
from tensorc.backend.sizes import as_size, canonical, sizes_in
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ir.types import i32, i64


@dataclass(frozen=True)
class _Edge:
    """A place on an axis: `distance` from its front, or from its back."""

    distance: Size
    back: bool = False

    def plus_one(self) -> _Edge:
        if self.back:
            return _Edge(dims.maximum(self.distance - 1, 0), True)
        return _Edge(self.distance + 1)


@dataclass(frozen=True)
class _Range:
    """The elements of one axis that an index takes; `drop` for a single one whose axis goes."""

    first: Size
    count: Size
    step: int = 1
    drop: bool = False


def index(x: Node, key: Any) -> Node:
    """The elements of x that `key` names.

    A bound beyond the end of an axis is cut off there, also where its size is known only in the call.  A place may
    also be an integer that the call computes; it is looked up as by K.gather.

    Raises: ShapeError for too many indices or an int outside its axis; ArgumentError for anything that is no
        int, slice, None or Ellipsis.
    """
    x, entries = _looked_up(x, _expanded(key if isinstance(key, tuple) else (key,), len(x.shape)))

    ranges: list[_Range] = []
    shape: list[Size] = []
    for entry in entries:
        if entry is None:
            shape.append(1)
            continue
        taken = _range(entry, x.shape[len(ranges)], len(ranges))
        ranges.append(taken)
        if not taken.drop:
            shape.append(dims.ceildiv(taken.count, abs(taken.step)))

    return canonical(_reshaped(_stepped(_cut(x, ranges), ranges), shape))


def _expanded(key: tuple[Any, ...], rank: int) -> list[Any]:
    """The key with one entry for every axis of x, and None for every new one."""
    taken = sum(1 for k in key if k is not None and k is not Ellipsis)
    if taken > rank:
        raise ShapeError(f"{taken} indices for a tensor of rank {rank}")
    dots = [i for i, k in enumerate(key) if k is Ellipsis]
    if len(dots) > 1:
        raise ArgumentError("an index holds one Ellipsis at most")

    at = dots[0] if dots else len(key)
    whole = [slice(None)] * (rank - taken)
    return [*key[:at], *whole, *key[at + 1:]]


def _looked_up(x: Node, entries: Sequence[Any]) -> tuple[Node, list[Any]]:
    """x at the places that a call computes, and the entries that are left."""
    left: list[Any] = []
    for entry in entries:
        if _is_computed(entry):
            place = entry.node if entry.node.dtype in (i32, i64) else ops.cast(entry.node, dtype=i32)
            x = ops.gather(x, place, axis=sum(e is not None for e in left))
        else:
            left.append(entry)
    return x, left


def _is_computed(entry: Any) -> bool:
    """A scalar integer tensor that is made of more than sizes."""
    if not isinstance(entry, Handle) or entry.ndim:
        return False
    return entry.node.dtype.is_integer and sizes_in(entry.node) is None


def _range(entry: Any, n: Size, axis: int) -> _Range:
    if isinstance(entry, slice):
        return _slice_range(entry, n)
    if isinstance(entry, bool | np.bool_ | list | np.ndarray) or (isinstance(entry, Handle) and entry.ndim):
        raise ArgumentError("an index is an int, a slice, None or Ellipsis"
                            "\nrows at given places: K.gather; a choice by condition: K.switch")
    place = as_size(entry)
    if isinstance(place, int) and isinstance(n, int) and not -n <= place < n:
        raise ShapeError(f"index {place} is outside axis {axis}, which has size {n}")
    first = place + n if isinstance(place, int) and place < 0 else place
    return _Range(first, 1, drop=True)


def _slice_range(entry: slice, n: Size) -> _Range:
    step = 1 if entry.step is None else _step(entry.step)
    start = None if entry.start is None else _edge(as_size(entry.start), n)
    stop = None if entry.stop is None else _edge(as_size(entry.stop), n)
    front, back = _Edge(0), _Edge(0, True)

    if step > 0:
        first, count = _window(start or front, stop or back, n)
    else:
        first, count = _window(stop.plus_one() if stop else front, start.plus_one() if start else back, n)
    return _Range(0 if count == 0 else first, count, step)


def _step(step: Any) -> int:
    try:
        value = operator.index(step)
    except TypeError:
        raise ArgumentError(f"the step of a slice is an int, not {step!r}") from None
    if value == 0:
        raise ArgumentError("the step of a slice cannot be 0")
    return value


def _edge(bound: Size, n: Size) -> _Edge:
    """A bound as an edge: -1 and n-1 are one from the back."""
    if isinstance(bound, int):
        return _Edge(-bound, True) if bound < 0 else _Edge(bound)
    behind = n - bound
    if isinstance(behind, int) and behind >= 0:
        return _Edge(behind, True)
    return _Edge(bound)


def _window(start: _Edge, stop: _Edge, n: Size) -> tuple[Size, Size]:
    """(first, count) of the elements from start to stop.

    The forms are chosen so that equal windows get equal sizes: x[1:] and x[:-1] both have n - min(n,1).
    """
    a, b = start.distance, stop.distance
    if not start.back and stop.back:
        return a, n - _least(n, a + b)
    if not start.back:
        return a, _between(n, a, b)
    if stop.back:
        return n - _least(n, a), _between(n, b, a)
    first = n - _least(n, a)
    return first, dims.maximum(_least(n, b) - first, 0)


def _between(n: Size, low: Size, high: Size) -> Size:
    """How many of n elements lie from distance `low` to `high`: max(min(n,high) - min(n,low), 0)."""
    count = _least(n, high) - _least(n, low)
    gap = high - low
    if isinstance(gap, int) or low == 0:
        return 0 if isinstance(gap, int) and gap <= 0 else count
    return dims.maximum(count, 0)


def _least(n: Size, k: Size) -> Size:
    return 0 if k == 0 or n == 0 else dims.minimum(n, k)


def _cut(x: Node, ranges: Sequence[_Range]) -> Node:
    """x within the ranges; backward ones still forward, and without their steps."""
    if all(r.first == 0 and r.count == n and r.step in (1, -1) for r, n in zip(ranges, x.shape, strict=True)):
        return x
    node: Node = ops.slice(
        x,
        starts=tuple(r.first for r in ranges),
        limits=tuple(r.first + r.count for r in ranges),
        steps=tuple(max(r.step, 1) for r in ranges),
    )
    return node


def _stepped(x: Node, ranges: Sequence[_Range]) -> Node:
    """x with the backward ranges reversed and stepped through."""
    backward = tuple(i for i, r in enumerate(ranges) if r.step < 0)
    if not backward:
        return x
    x = ops.reverse(x, axes=backward)
    if all(r.step >= -1 for r in ranges):
        return x
    node: Node = ops.slice(
        x,
        starts=(0,) * len(x.shape),
        limits=x.shape,
        steps=tuple(max(-r.step, 1) for r in ranges),
    )
    return node


def _reshaped(x: Node, shape: Sequence[Size]) -> Node:
    if x.shape == tuple(shape):
        return x
    node: Node = ops.reshape(x, shape=tuple(shape))
    return node
