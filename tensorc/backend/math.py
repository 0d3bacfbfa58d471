"""Elementwise functions and comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorc import ops
from tensorc.backend.convert import as_node, cast_node, parse_dtype, promoted
from tensorc.backend.provenance import public
from tensorc.backend.tensor import Tensor, apply
from tensorc.ir.node import Node
from tensorc.ir.types import DType


@public("K.square")
def square(x: Any) -> Tensor:
    """x·x."""
    return Tensor(ops.square(as_node(x)))


@public("K.abs")
def abs(x: Any) -> Tensor:
    """|x|; its gradient at 0 is 0."""
    return Tensor(ops.abs(as_node(x)))


@public("K.sqrt")
def sqrt(x: Any) -> Tensor:
    """The square root of x cut to [0, ∞): of a negative number 0."""
    node = as_node(x)
    return Tensor(ops.sqrt(clipped(node, 0.0, np.inf)))


@public("K.exp")
def exp(x: Any) -> Tensor:
    """e to the power of x."""
    return Tensor(ops.exp(as_node(x)))


@public("K.log")
def log(x: Any) -> Tensor:
    """The natural logarithm."""
    return Tensor(ops.log(as_node(x)))


@public("K.round")
def round(x: Any) -> Tensor:
    """The nearest integer, of two equally near the even one."""
    node = as_node(x)
    return Tensor(ops.round(node) if node.dtype.is_float else node)


@public("K.sign")
def sign(x: Any) -> Tensor:
    """1, 0 or -1."""
    return Tensor(ops.sign(as_node(x)))


@public("K.sin")
def sin(x: Any) -> Tensor:
    """The sine of x in radians."""
    return Tensor(ops.sin(as_node(x)))


@public("K.cos")
def cos(x: Any) -> Tensor:
    """The cosine of x in radians."""
    return Tensor(ops.cos(as_node(x)))


@public("K.pow")
def pow(x: Any, a: Any) -> Tensor:
    """x to the power of a, which is a number or a tensor."""
    return apply(ops.pow, x, a)


@public("K.clip")
def clip(x: Any, min_value: Any, max_value: Any) -> Tensor:
    """x cut to [min_value, max_value]; its gradient passes at the bounds.

    Args:
        min_value, max_value: numbers, tensors, or None for no bound; of numbers, a max_value below min_value
            counts as min_value.
    """
    numbers = isinstance(min_value, int | float) and isinstance(max_value, int | float)
    if numbers and max_value < min_value:
        max_value = min_value
    bounds = [b for b in (min_value, max_value) if b is not None]
    node, *given = promoted((x, *bounds))
    if len(given) < 2:
        low = given[0] if min_value is not None else limit(node.dtype, -1)
        high = given[0] if max_value is not None else limit(node.dtype, 1)
    else:
        low, high = given
    return Tensor(ops.clip(node, low, high))


@public("K.equal")
def equal(x: Any, y: Any) -> Tensor:
    """Where x = y."""
    return apply(ops.eq, x, y)


@public("K.not_equal")
def not_equal(x: Any, y: Any) -> Tensor:
    """Where x ≠ y."""
    return apply(ops.ne, x, y)


@public("K.greater")
def greater(x: Any, y: Any) -> Tensor:
    """Where x > y."""
    return apply(ops.gt, x, y)


@public("K.greater_equal")
def greater_equal(x: Any, y: Any) -> Tensor:
    """Where x ≥ y."""
    return apply(ops.ge, x, y)


@public("K.less")
def less(x: Any, y: Any) -> Tensor:
    """Where x < y."""
    return apply(ops.lt, x, y)


@public("K.less_equal")
def less_equal(x: Any, y: Any) -> Tensor:
    """Where x ≤ y."""
    return apply(ops.le, x, y)


@public("K.maximum")
def maximum(x: Any, y: Any) -> Tensor:
    """The larger of each pair; the gradient at a tie goes to x."""
    return apply(ops.maximum, x, y)


@public("K.minimum")
def minimum(x: Any, y: Any) -> Tensor:
    """The smaller of each pair; the gradient at a tie goes to x."""
    return apply(ops.minimum, x, y)


@public("K.tanh")
def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent."""
    return Tensor(ops.tanh(as_node(x)))


def clipped(x: Node, low: float, high: float) -> Node:
    """x cut to [low, high], numbers."""
    node: Node = ops.clip(x, *(as_node(b, x.dtype) for b in (low, high)))
    return node


def limit(dtype: DType, sign: int) -> Node:
    """A constant that nothing of this dtype exceeds: ±∞, or the largest or smallest integer."""
    if dtype.is_float:
        return as_node(sign * np.inf, dtype)
    if dtype.is_bool:
        return as_node(sign > 0)
    range_ = np.iinfo(dtype.numpy)
    return as_node(range_.max if sign > 0 else range_.min, dtype)


def as_float(x: Any) -> Node:
    """x, or floatx of the same values where it holds bools."""
    node = as_node(x)
    return cast_node(node, parse_dtype(None)) if node.dtype.is_bool else node


lesser = less
lesser_equal = less_equal
