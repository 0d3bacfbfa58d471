"""Windows that slide over the spatial axes of channels-last tensors: their geometry, and their elements by index.

A window that stands at p covers the places s = p·stride + q·dilation − low, for q = 0 … window − 1, along each spatial
axis; the places outside the tensor are padding.  Pooling and convolution are made of this one relation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tensorc.errors import ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node, Op
from tensorc.ir.types import TensorType
from tensorc.ops.define import At, Bound, Element, Fill, Where, defop
from tensorc.ops.infer import agree, show_shape
from tensorc.ops.sample import sample

Array = NDArray[Any]
Ints = tuple[int, ...]
Sizes = tuple[Size, ...]
_S = TypeVar("_S", Size, int)


def span(window: _S, dilation: int) -> _S:
    """How many places a window reaches over, from its first to its last."""
    return dilation * (window - 1) + 1


def fitting(n: Size, reach: Size, stride: int) -> Size:
    """How many windows that reach over `reach` places fit among n.

    Where n may be too small for one, the form is that of slices: for a stride of 1, n − min(n, reach − 1).
    """
    lost = reach - stride
    return dims.floordiv(n - lost if _always_holds(n, lost) else n - dims.minimum(n, lost), stride)


def _always_holds(n: Size, part: Size) -> bool:
    """Whether n is at least `part` for sure."""
    left = n - part
    if isinstance(left, int):
        return left >= 0
    return all(count >= 0 and all(isinstance(atom, str) for atom in atoms) for atoms, count in left.terms)


def stays_inside(n: Size, reach: Size, stride: int, low: Size, count: Size) -> bool:
    """Whether no window of an axis of size n meets padding, for sure; `count` is how many windows there are."""
    if not (isinstance(low, int) and low <= 0):
        return False
    left = n + low - (count - 1) * stride - reach
    return left >= 0 if isinstance(left, int) else count == fitting(n + low, reach, stride)


def check_geometry(rank: int, strides: Sequence[int], *others: Sequence[Size]) -> None:
    """Raises ShapeError unless there is one entry for each of `rank` spatial axes, and each stride is 1 or more."""
    if rank < 1:
        raise ShapeError("a batch axis, spatial axes and a channel axis are needed")
    if any(len(entries) != rank for entries in (strides, *others)):
        raise ShapeError(f"one entry is needed for each of {rank} spatial axes")
    if any(stride < 1 for stride in strides):
        raise ShapeError(f"strides and dilations are 1 or more, not {tuple(strides)}")


def check_counts(*sizes: Size) -> None:
    """Raises ShapeError for a size that is negative."""
    if any(isinstance(n, int) and n < 0 for n in sizes):
        raise ShapeError(f"a size is negative in {show_shape(sizes)}")


# The elements of windows, as arrays.

def cut(x: Array, *, window: Sequence[int], strides: Sequence[int], dilations: Sequence[int], low: Sequence[int],
        counts: Sequence[int], fill: float) -> Array:
    """The elements in each window: [b, *s, …] → [b, *counts, *window, …].  In the padding they are `fill`."""
    rank = len(window)
    geometry = zip(window, strides, dilations, low, counts, strict=True)
    for axis, (taps, stride, dilation, before, count) in enumerate(geometry, 1):
        places = np.arange(count)[:, None] * stride + np.arange(taps) * dilation - before
        inside = (places >= 0) & (places < x.shape[axis])
        taken = np.full((*x.shape[:axis], count, taps, *x.shape[axis + 1:]), fill, x.dtype)
        taken[(slice(None),) * axis + np.nonzero(inside)] = np.take(x, places[inside], axis)
        x = np.moveaxis(taken, axis + 1, rank + axis)
    return x


def add_back(g: Array, *, strides: Sequence[int], dilations: Sequence[int], low: Sequence[int],
             sizes: Sequence[int]) -> Array:
    """The adjoint of `cut`, [b, *counts, *window, …] → [b, *sizes, …]: elements added up where windows read them."""
    rank = len(strides)
    counts, window = g.shape[1:1 + rank], g.shape[1 + rank:1 + 2 * rank]
    total = np.zeros((g.shape[0], *sizes, *g.shape[1 + 2 * rank:]), g.dtype)
    for taps in np.ndindex(*window):
        source, target = [], []
        for count, q, stride, dilation, before, n in zip(counts, taps, strides, dilations, low, sizes, strict=True):
            places = np.arange(count) * stride + q * dilation - before
            inside = (places >= 0) & (places < n)
            source.append(np.flatnonzero(inside))
            target.append(places[inside])
        part = g[(slice(None), *(slice(None),) * rank, *taps)]
        for axis, chosen in enumerate(source, 1):
            part = np.take(part, chosen, axis)
        total[(slice(None), *np.ix_(*target))] += part
    return total


# The elements of windows, by index.
#
# A place s is read by the windows that stand at (s + low) // stride − j, for j = 0 … ceil(window / stride) − 1, and by
# the j-th of them with its tap q = (s + low) % stride + j·stride.  The other way round, j = q // stride.

def readers(window: Sequence[int], strides: Sequence[int]) -> Ints:
    """How many windows may read one place, along each axis."""
    return tuple(-(-taps // stride) for taps, stride in zip(window, strides, strict=True))


def _digits(number: Size, extents: Sequence[int]) -> list[Size]:
    """The coordinates of an element of that number among `extents`, in row-major order."""
    found: list[Size] = []
    for extent in reversed(extents[1:]):
        found.append(dims.mod(number, extent))
        number = dims.floordiv(number, extent)
    return [number, *reversed(found)]


def _number(digits: Sequence[Size], extents: Sequence[int]) -> Size:
    """The inverse of `_digits`."""
    number, *rest = digits
    for digit, extent in zip(rest, extents[1:], strict=True):
        number = number * extent + digit
    return number


def _reader(tap: Sequence[Size], window: Ints, strides: Ints) -> Size:
    """The number, among the windows that may read a place, of the one that reads it with this tap."""
    return _number([q // stride for q, stride in zip(tap, strides, strict=True)], readers(window, strides))


def _check_windows(x: TensorType, window: Ints, strides: Ints, low: Sizes, shape: Sizes) -> None:
    """Raises ShapeError unless windows, strides and sizes fit a tensor with an axis between space and channels."""
    check_geometry(x.rank - 3, strides, window, low, shape)
    check_counts(*shape)
    if min(window) < 1:
        raise ShapeError(f"a window has one element or more along each axis, not {window}")


def _moved(low: Sequence[int], tap: Sequence[int]) -> list[int]:
    """The padding before a window that consists of one tap."""
    return [before - q for before, q in zip(low, tap, strict=True)]


def _windows_type(x: TensorType, *, window: Ints, strides: Ints, low: Sizes, shape: Sizes, fill: float) -> TensorType:
    _check_windows(x, window, strides, low, shape)
    parts = math.prod(readers(window, strides))
    if x.shape[-2] not in (1, parts):
        raise ShapeError(f"the last axis but one of {show_shape(x.shape)} is neither 1 nor the {parts} windows "
                         "that may read a place")
    return x.with_shape((x.shape[0], *shape, math.prod(window), x.shape[-1]))


def _windows(x: Array, *, window: Ints, strides: Ints, low: Ints, shape: Ints, fill: float) -> Array:
    ones = (1,) * len(window)
    parts = []
    for tap in np.ndindex(*window):
        part = x[..., 0 if x.shape[-2] == 1 else dims.evaluate(_reader(tap, window, strides), {}), :]
        alone = cut(part, window=ones, strides=strides, dilations=ones, low=_moved(low, tap), counts=shape, fill=fill)
        parts.append(alone.reshape(x.shape[0], *shape, x.shape[-1]))
    return np.stack(parts, axis=-2)


def _windows_element(node: Any, index: Sizes) -> Element:
    batch, *at, number, channel = index
    tap = _digits(number, node.window)
    bounds: list[Bound] = []
    places: list[Size] = []
    for axis, (p, q) in enumerate(zip(at, tap, strict=True)):
        n, reach, stride, low = node.x.shape[axis + 1], node.window[axis], node.strides[axis], node.low[axis]
        place = p * stride + q - low
        if not stays_inside(n, reach, stride, low, node.attrs["shape"][axis]):
            bounds.append(Bound(place, 0, n))
        places.append(place)
    part = 0 if node.x.shape[-2] == 1 else _reader(tap, node.window, node.strides)
    element = At(0, (batch, *places, part, channel))
    return Where(tuple(bounds), element, Fill(node.fill)) if bounds else element


def _windows_gradient(node: Any, g: Any) -> list[Node | None]:
    back: Node = unwindow(g, window=node.window, strides=node.strides, low=node.low, shape=node.x.shape[1:-2])
    return [back]


windows: Op = defop(
    "windows",
    doc="The elements in each window: [b, *s, 1, c] → [b, *shape, taps, c], the elements of a window in row-major "
        "order; in the padding `fill`.  Of [b, *s, r, c] each of the r windows that may read a place reads its own "
        "part.",
    infer=_windows_type,
    reference=_windows,
    gradient=_windows_gradient,
    index=_windows_element,
    samples=[
        sample("f32[2,5,1,3]", window=(2,), strides=(1,), low=(0,), shape=(4,), fill=0.0),
        sample("f32[1,5,4,1,2]", window=(3, 2), strides=(2, 1), low=(1, 0), shape=(3, 4), fill=-1.0),
        sample("f32[2,4,3,2]", window=(3,), strides=(1,), low=(1,), shape=(4,), fill=0.0),
        sample("f32[2,7,5,6,2]", window=(5, 3), strides=(2, 2), low=(2, 1), shape=(4, 3), fill=0.0),
        sample("f64[1,3,1,1]", window=(1,), strides=(2,), low=(0,), shape=(2,), fill=0.0),
        sample("i32[1,2,1,2]", window=(3,), strides=(1,), low=(3,), shape=(6,), fill=7),
        sample("f32[0,2,1,1]", window=(2,), strides=(1,), low=(0,), shape=(1,), fill=0.0),
        sample("f32[1,0,1,1]", window=(2,), strides=(1,), low=(1,), shape=(1,), fill=0.0),
    ],
)


def _unwindow_type(g: TensorType, *, window: Ints, strides: Ints, low: Sizes, shape: Sizes) -> TensorType:
    _check_windows(g, window, strides, low, shape)
    agree(g.shape[-2], math.prod(window), f"{show_shape(g.shape)} does not hold the elements of windows")
    return g.with_shape((g.shape[0], *shape, math.prod(readers(window, strides)), g.shape[-1]))


def _unwindow(g: Array, *, window: Ints, strides: Ints, low: Ints, shape: Ints) -> Array:
    ones = (1,) * len(window)
    result = np.zeros((g.shape[0], *shape, math.prod(readers(window, strides)), g.shape[-1]), g.dtype)
    for number, tap in enumerate(np.ndindex(*window)):
        part = g[..., number, :].reshape(*g.shape[:-2], *ones, g.shape[-1])
        placed = add_back(part, strides=strides, dilations=ones, low=_moved(low, tap), sizes=shape)
        result[..., dims.evaluate(_reader(tap, window, strides), {}), :] += placed
    return result


def _unwindow_element(node: Any, index: Sizes) -> Element:
    batch, *at, number, channel = index
    bounds: list[Bound] = []
    places: list[Size] = []
    tap: list[Size] = []
    for axis, (s, j) in enumerate(zip(at, _digits(number, readers(node.window, node.strides)), strict=True)):
        taps, stride = node.window[axis], node.strides[axis]
        p = dims.floordiv(s + node.low[axis], stride) - j
        q = dims.mod(s + node.low[axis], stride) + j * stride
        bounds.append(Bound(p, 0, node.g.shape[axis + 1]))
        if taps % stride:
            bounds.append(Bound(q, 0, taps))
        places.append(p)
        tap.append(q)
    return Where(tuple(bounds), At(0, (batch, *places, _number(tap, node.window), channel)), Fill(0))


def _unwindow_gradient(node: Any, g: Any) -> list[Node | None]:
    again: Node = windows(g, window=node.window, strides=node.strides, low=node.low, shape=node.g.shape[1:-2], fill=0)
    return [again]


unwindow: Op = defop(
    "unwindow",
    doc="Elements of windows put back where `windows` reads them: [b, *p, taps, c] → [b, *shape, r, c], one part for "
        "each window that may read a place, zeros where none does.  Their sum is the gradient of windows.",
    infer=_unwindow_type,
    reference=_unwindow,
    gradient=_unwindow_gradient,
    index=_unwindow_element,
    samples=[
        sample("f32[2,4,2,3]", window=(2,), strides=(1,), low=(0,), shape=(5,)),
        sample("f32[1,3,4,6,2]", window=(3, 2), strides=(2, 1), low=(1, 0), shape=(5, 4)),
        sample("f64[1,2,1,1]", window=(1,), strides=(2,), low=(0,), shape=(3,)),
        sample("i32[1,6,3,2]", window=(3,), strides=(1,), low=(3,), shape=(2,)),
        sample("f32[1,0,2,1]", window=(2,), strides=(1,), low=(0,), shape=(1,)),
    ],
)
