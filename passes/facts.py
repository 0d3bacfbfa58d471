"""What rules ask of nodes, and the small nodes that they build."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tensorc.ir.node import Node, constant
from tensorc.ops import broadcast
from tensorc.passes.rewrite import filled_with

DEPTH = 6


def fitted(x: Node, node: Node) -> Node:
    """x broadcast to the shape of `node`; x itself where it has that shape."""
    return x if x.shape == node.shape else broadcast(x, shape=node.shape)


def filled(value: float, node: Node) -> Node:
    """A constant of the dtype and shape of `node`."""
    return fitted(constant(value, node.dtype), node)


def same_along(axes: Iterable[int], c: Node, rank: int) -> bool:
    """Whether c, broadcast to a tensor of that rank, has one value along its axes."""
    leading = rank - len(c.shape)
    return leading >= 0 and all(a < leading or c.shape[a - leading] == 1 for a in axes)


def nonnegative(node: Node, depth: int = DEPTH) -> bool:
    """Whether every element is surely >= 0 or NaN; looks `depth` operations far.

    -0 counts as 0.
    """
    fill = filled_with(node)
    if fill is not None:
        return bool(fill >= 0)
    if depth == 0:
        return False
    x, *rest = node.args or (node,)
    match node.op.name:
        case ("exp" | "sqrt" | "rsqrt" | "sigmoid" | "softplus" | "softmax" | "relu" | "variance" | "uniform" | "iota"
              | "size"):
            return True
        case "square" | "abs":                   # of integers they wrap
            return node.dtype.is_float
        case "mul" if x is rest[0]:
            return node.dtype.is_float
        case "add" | "mul" | "div" | "minimum" | "pow":
            return node.dtype.is_float and all(nonnegative(a, depth - 1) for a in node.args)
        case "maximum":
            return any(nonnegative(a, depth - 1) for a in node.args)
        case "select":
            return all(nonnegative(a, depth - 1) for a in rest)
        case "concatenate":
            return all(nonnegative(a, depth - 1) for a in node.args)
        case "sum" | "prod" | "sum_to" | "cumsum":
            return node.dtype.is_float and nonnegative(x, depth - 1)
        case "max":                              # −inf of no elements
            return all(isinstance(x.shape[a], int) and x.shape[a] > 0 for a in node.axes) and nonnegative(x, depth - 1)
        case "mean" | "min" | "reshape" | "broadcast" | "transpose" | "slice" | "reverse" | "stop_gradient":
            return nonnegative(x, depth - 1)
    return False


def as_number(node: Node) -> Any:
    """The number that a constant is filled with, as a NumPy scalar, if it is finite; else None."""
    fill = filled_with(node)
    return fill if fill is not None and np.isfinite(fill) else None
