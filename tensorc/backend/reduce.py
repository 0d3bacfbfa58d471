"""Reductions, running totals, and the normalisations that rest on them."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from tensorc import ops
from tensorc.backend.convert import as_node, cast_node
from tensorc.backend.math import as_float
from tensorc.backend.provenance import public
from tensorc.backend.tensor import Tensor
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir.node import Node, Op
from tensorc.ir.types import boolean, i64

TINY_SQUARE = 1e-12     # the least sum of squares that l2_normalize divides by


@public("K.max")
def max(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest element along the axes; equal ones share the gradient."""
    return _reduced(ops.max, as_node(x), axis, keepdims)


@public("K.min")
def min(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The smallest element along the axes; equal ones share the gradient."""
    return _reduced(ops.min, as_node(x), axis, keepdims)


@public("K.sum")
def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The sum along the axes: an int, a list, or None for all."""
    return _reduced(ops.sum, as_node(x), axis, keepdims)


@public("K.prod")
def prod(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The product along the axes; x may be a list of scalars."""
    return _reduced(ops.prod, as_node(x), axis, keepdims)


@public("K.mean")
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean along the axes: floatx of bools, an integer of integers, rounded towards 0."""
    return Tensor(mean_node(as_float(x), axis, keepdims))


@public("K.var")
def var(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The population variance along the axes; bools count as floatx."""
    return Tensor(variance_node(as_float(x), axis, keepdims))


@public("K.std")
def std(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The population standard deviation along the axes."""
    return Tensor(ops.sqrt(variance_node(as_float(x), axis, keepdims)))


@public("K.any")
def any(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether any element along the axes is true, a bool."""
    return _reduced(ops.any, cast_node(as_node(x), boolean), axis, keepdims)


@public("K.all")
def all(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether all elements along the axes are true, a bool."""
    return _reduced(ops.all, cast_node(as_node(x), boolean), axis, keepdims)


@public("K.argmax")
def argmax(x: Any, axis: int = -1) -> Tensor:
    """The place of the largest element along an axis, int64; the first of equal ones."""
    node = as_node(x)
    return Tensor(cast_node(ops.argmax(node, axis=one_axis(axis, len(node.shape))), i64))


@public("K.argmin")
def argmin(x: Any, axis: int = -1) -> Tensor:
    """The place of the smallest element along an axis, int64; the first of equal ones."""
    node = as_node(x)
    return Tensor(cast_node(ops.argmin(node, axis=one_axis(axis, len(node.shape))), i64))


@public("K.cumsum")
def cumsum(x: Any, axis: int = 0) -> Tensor:
    """The running sum along an axis."""
    node = as_node(x)
    return Tensor(ops.cumsum(node, axis=one_axis(axis, len(node.shape))))


@public("K.cumprod")
def cumprod(x: Any, axis: int = 0) -> Tensor:
    """The running product along an axis."""
    node = as_node(x)
    return Tensor(ops.cumprod(node, axis=one_axis(axis, len(node.shape))))


@public("K.logsumexp")
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """log Σ exp x along the axes, without needless overflow or underflow."""
    return _reduced(ops.logsumexp, as_node(x), axis, keepdims)


@public("K.l2_normalize")
def l2_normalize(x: Any, axis: Any = None) -> Tensor:
    """x · rsqrt(max(Σ x², 1e-12)) along the axes; None for all."""
    node = as_node(x)
    squares = ops.sum(ops.square(node), axes=some_axes(axis, len(node.shape)), keepdims=True)
    return Tensor(node * ops.rsqrt(ops.maximum(squares, as_node(TINY_SQUARE, node.dtype))))


def mean_node(x: Node, axis: Any, keepdims: bool) -> Node:
    """The mean along the axes, in the dtype of x."""
    mean: Node = ops.mean(x, axes=some_axes(axis, len(x.shape)), keepdims=keepdims)
    return mean


def variance_node(x: Node, axis: Any, keepdims: bool) -> Node:
    """The population variance along the axes, in the dtype of x."""
    if x.dtype.is_float:
        variance: Node = ops.variance(x, axes=some_axes(axis, len(x.shape)), keepdims=keepdims)
        return variance
    deviation = ops.sub(x, mean_node(x, axis, keepdims=True))
    return mean_node(ops.square(deviation), axis, keepdims)


def some_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """Sorted non-negative axes of an int, an iterable or None, which means all.  Raises ShapeError, ArgumentError."""
    if axis is None:
        return tuple(range(rank))
    given = axis if isinstance(axis, Iterable) else (axis,)
    axes = sorted(one_axis(a, rank) for a in given)
    if len(set(axes)) < len(axes):
        raise ArgumentError(f"an axis is given twice in {axis}")
    return tuple(axes)


def one_axis(axis: Any, rank: int) -> int:
    """A non-negative axis.  Raises ShapeError for one that the tensor does not have."""
    try:
        number = operator.index(axis)
    except TypeError:
        raise ArgumentError(f"an axis is an int, not {axis!r}") from None
    if not -rank <= number < rank:
        raise ShapeError(f"axis {number} is outside a tensor of rank {rank}")
    return number % rank


def _reduced(op: Op, x: Node, axis: Any, keepdims: bool) -> Tensor:
    return Tensor(op(x, axes=some_axes(axis, len(x.shape)), keepdims=bool(keepdims)))
