"""Shape and place: nothing here computes a new number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorc import ops
from tensorc.backend.convert import as_node, cast_node, parse_dtype, promoted, stacked
from tensorc.backend.provenance import public
from tensorc.backend.reduce import one_axis, some_axes
from tensorc.backend.sizes import as_size, as_sizes, canonical, size_node
from tensorc.backend.sparse import SparseTensor, dense_node
from tensorc.backend.sparse import joined as joined_sparse
from tensorc.backend.tensor import Tensor
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ir.types import DType, i32, i64


@public("K.reshape")
def reshape(x: Any, shape: Any) -> Tensor:
    """The same elements in the same order under another shape.

    Args:
        shape: ints, sizes made of K.shape, and at most one -1, which takes what is left.
    """
    node = as_node(x)
    return Tensor(reshaped(node, target_shape(node, as_sizes(shape))))


@public("K.flatten")
def flatten(x: Any) -> Tensor:
    """All elements along one axis."""
    node = as_node(x)
    return Tensor(reshaped(node, (node.type.count,)))


@public("K.batch_flatten")
def batch_flatten(x: Any) -> Tensor:
    """All axes but the first made one."""
    node = as_node(x)
    if not node.shape:
        raise ShapeError("a scalar has no batch axis")
    return Tensor(reshaped(node, (node.shape[0], dims.product(node.shape[1:]))))


@public("K.expand_dims", old={"dim": "axis"})
def expand_dims(x: Any, axis: int = -1) -> Tensor:
    """x with a new axis of size 1 at `axis`."""
    node = as_node(x)
    at = one_axis(axis, len(node.shape) + 1)
    return Tensor(reshaped(node, (*node.shape[:at], 1, *node.shape[at:])))


@public("K.squeeze")
def squeeze(x: Any, axis: int) -> Tensor:
    """x without an axis of size 1.  Raises ShapeError if its size is another."""
    node = as_node(x)
    at = one_axis(axis, len(node.shape))
    size = node.shape[at]
    if isinstance(size, int) and size != 1:
        raise ShapeError(f"axis {at} has size {size}; only an axis of size 1 can go")
    return Tensor(reshaped(node, (*node.shape[:at], *node.shape[at + 1:])))


@public("K.concatenate")
def concatenate(tensors: Sequence[Any], axis: int = -1) -> Tensor:
    """Tensors one after another along an axis; their other sizes must agree.  Of sparse tensors alone, a sparse one."""
    nodes = promoted([dense_node(t) if isinstance(t, SparseTensor) else t for t in tensors])
    if not nodes:
        raise ArgumentError("there is nothing to concatenate")
    if any(len(n.shape) != len(nodes[0].shape) for n in nodes):
        raise ShapeError("the ranks differ: " + ", ".join(str(len(n.shape)) for n in nodes))
    at = one_axis(axis, len(nodes[0].shape))
    sparse = [t for t in tensors if isinstance(t, SparseTensor)]
    if len(sparse) == len(nodes):
        return joined_sparse(sparse, at)
    return Tensor(nodes[0] if len(nodes) == 1 else canonical(ops.concatenate(*nodes, axis=at)))


@public("K.stack")
def stack(x: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis."""
    nodes = promoted(x)
    if not nodes:
        raise ArgumentError("there is nothing to stack")
    if any(len(n.shape) != len(nodes[0].shape) for n in nodes):
        raise ShapeError("the ranks differ: " + ", ".join(str(len(n.shape)) for n in nodes))
    return Tensor(canonical(stacked(nodes, one_axis(axis, len(nodes[0].shape) + 1))))


@public("K.repeat_elements")
def repeat_elements(x: Any, rep: int, axis: int) -> Tensor:
    """Each element along an axis `rep` times in a row."""
    node = as_node(x)
    return Tensor(repeated(node, rep, one_axis(axis, len(node.shape))))


@public("K.repeat")
def repeat(x: Any, n: Any) -> Tensor:
    """(samples, dim) → (samples, n, dim).  Raises ShapeError for any other rank."""
    node = as_node(x)
    if len(node.shape) != 2:
        raise ShapeError(f"takes a tensor of two axes, not {len(node.shape)}")
    samples, width = node.shape
    spread = reshaped(node, (samples, 1, width))
    return Tensor(ops.broadcast(spread, shape=(samples, as_size(n), width)))


@public("K.tile")
def tile(x: Any, n: Any) -> Tensor:
    """x repeated along its axes.

    Args:
        n: how often along each axis; a shorter list counts from the last axis, an int is for the last alone.
    """
    node = as_node(x)
    counts = as_sizes(n)
    if len(counts) > len(node.shape):
        raise ShapeError(f"{len(counts)} counts for a tensor of rank {len(node.shape)}")
    counts = (1,) * (len(node.shape) - len(counts)) + counts
    if all(c == 1 for c in counts):
        return Tensor(node)

    apart = reshaped(node, tuple(s for size in node.shape for s in (1, size)))
    spread = ops.broadcast(apart, shape=tuple(s for pair in zip(counts, node.shape, strict=True) for s in pair))
    return Tensor(reshaped(spread, tuple(c * s for c, s in zip(counts, node.shape, strict=True))))


@public("K.reverse")
def reverse(x: Any, axes: Any) -> Tensor:
    """The elements along the axes in opposite order."""
    node = as_node(x)
    return Tensor(ops.reverse(node, axes=some_axes(axes, len(node.shape))))


@public("K.slice")
def slice(x: Any, start: Any, size: Any) -> Tensor:
    """The part of x that begins at `start` and has `size` elements along each axis; size -1 takes all that is left.

    Raises: ShapeError if there is not one start and one size for each axis.
    """
    node = as_node(x)
    starts, counts = as_sizes(start), as_sizes(size)
    if not len(starts) == len(counts) == len(node.shape):
        raise ShapeError(f"{len(starts)} starts and {len(counts)} sizes for a tensor of rank {len(node.shape)}")
    limits = tuple(n if c == -1 else s + c for s, c, n in zip(starts, counts, node.shape, strict=True))
    for axis, (s, limit, n) in enumerate(zip(starts, limits, node.shape, strict=True)):
        if any(isinstance(d, int) and d < 0 for d in (s, limit - s, n - limit)):
            raise ShapeError(f"the elements from {s} to {limit} are outside axis {axis}, which has size {n}")
    return Tensor(canonical(ops.slice(node, starts=starts, limits=limits, steps=(1,) * len(starts))))


@public("K.arange")
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = "int32") -> Tensor:
    """start, start + step … up to stop, which is left out; a single argument is the stop.

    Returns: int32 unless `dtype` is another, floatx where a bound is a float.
    """
    if stop is None:
        start, stop = 0, start
    kind = parse_dtype(dtype)
    if any(isinstance(b, float | np.floating) for b in (start, stop, step)):
        count = max(0, math.ceil((stop - start) / step))
        values = np.arange(count) * step + start
        return Tensor(as_node(values, parse_dtype(None) if kind is i32 else kind))

    first, last, stride = as_size(start), as_size(stop), as_size(step)
    if not isinstance(stride, int) or not stride:
        raise ArgumentError(f"the step of K.arange is an int and not 0, not {step!r}")
    count_ = dims.ceildiv(last - first, stride) if stride > 0 else dims.ceildiv(first - last, -stride)
    counted = cast_node(ops.iota(shape=(_at_least_0(count_),), axis=0, dtype=i64 if kind is i64 else i32), kind)
    if stride != 1:
        counted = counted * as_node(stride, kind)
    return Tensor(counted if first == 0 else counted + size_node(first, kind))


@public("K.one_hot", old={"nb_classes": "num_classes"})
def one_hot(indices: Any, num_classes: Any) -> Tensor:
    """float32 rows that hold 1 at the index and 0 elsewhere; all 0 for an index outside."""
    return Tensor(one_hot_node(as_node(indices), as_size(num_classes), parse_dtype("float32")))


def one_hot_node(indices: Node, classes: Size, dtype: DType) -> Node:
    """Rows that hold 1 at the index and 0 elsewhere, along a new last axis."""
    whole = indices if indices.dtype is i64 else cast_node(indices, i32)
    column = reshaped(whole, (*indices.shape, 1))
    places = ops.iota(shape=(classes,), axis=0, dtype=column.dtype)
    return cast_node(ops.eq(column, places), dtype)


def reshaped(x: Node, shape: tuple[Size, ...]) -> Node:
    """x under another shape; x itself if it is the same."""
    if x.shape == shape:
        return x
    node: Node = ops.reshape(x, shape=shape)
    return node


def repeated(x: Node, times: int, axis: int) -> Node:
    """Each element along an axis several times in a row."""
    before, n, rest = x.shape[:axis], x.shape[axis], x.shape[axis + 1:]
    spread = ops.broadcast(reshaped(x, (*before, n, 1, *rest)), shape=(*before, n, times, *rest))
    return reshaped(spread, (*before, n * times, *rest))


def target_shape(x: Node, shape: tuple[Size, ...]) -> tuple[Size, ...]:
    """A shape with its -1 resolved.  Raises ShapeError if the number of elements cannot be right."""
    free = [i for i, s in enumerate(shape) if s == -1]
    if len(free) > 1 or any(isinstance(s, int) and s < -1 for s in shape):
        raise ShapeError(f"the shape {shape} holds more than one unknown size")
    known = dims.product(s for s in shape if s != -1)
    count = x.type.count
    if not free:
        if isinstance(count, int) and isinstance(known, int) and count != known:
            raise ShapeError(f"{count} elements do not fit the shape {shape}")
        return shape
    if known == 0:
        raise ShapeError(f"the size for -1 cannot be known in {shape}")
    if isinstance(count, int) and isinstance(known, int) and count % known:
        raise ShapeError(f"{count} elements cannot be spread over {shape}")
    return tuple(dims.floordiv(count, known) if s == -1 else s for s in shape)


def _at_least_0(size: Size) -> Size:
    return max(size, 0) if isinstance(size, int) else size
