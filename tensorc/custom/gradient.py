"""The forms in which users give gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from tensorc.backend.convert import as_node, cast_node
from tensorc.backend.tensor import Tensor
from tensorc.errors import ArgumentError
from tensorc.ir.node import Node, NoGradient, Op

Function = Callable[..., Any]
Gradient = Function | Sequence[Function | None] | NoGradient | None
Rule = Callable[[Node, Node], list[Node | None]]


Checked = Function | tuple[Function | None, ...] | NoGradient | None


def checked(gradient: Gradient, params: Sequence[str], name: str) -> Checked:
    """The gradient of an elementwise operation, scalar functions as a tuple.  Raises ArgumentError for another form."""
    if gradient is None or isinstance(gradient, NoGradient):
        return gradient
    n = len(params)
    if not callable(gradient):
        slopes = tuple(gradient)
        if len(slopes) == n and all(s is None or (callable(s) and _count(s) == n) for s in slopes):
            return slopes
    elif _count(gradient) == n == 1:
        return (gradient,)
    elif _count(gradient) in (n + 1, n + 2):
        return gradient
    given = ", ".join(params)
    raise ArgumentError(
        f"custom.elementwise: the gradient of {name}({given}) does not fit\n"
        f"give {'a scalar function' if n == 1 else f'a list of {n} scalar functions'} of ({given}), or a function on "
        f"tensors of ({given}, g) or ({given}, result, g)")


def by_slopes(slopes: Sequence[Op | None]) -> Rule:
    """g times the derivative in each argument."""
    def rule(node: Node, g: Node) -> list[Node | None]:
        return [None if slope is None else times(g, slope(*node.args), a)
                for slope, a in zip(slopes, node.args, strict=True)]
    return rule


def times(g: Node, slope: Node | float, operand: Node) -> Node | None:
    """g · slope in the dtype of an operand; None where that is no float."""
    if not operand.dtype.is_float:
        return None
    factor = cast_node(slope, operand.dtype) if isinstance(slope, Node) else slope
    product: Node = cast_node(g, operand.dtype) * factor
    return product


def by_graph(gradient: Function, operands: int, name: str) -> Rule:
    """What a function on tensors makes of (operands…, g) or (operands…, result, g)."""
    with_result = _count(gradient) == operands + 2

    def rule(node: Node, g: Node) -> list[Node | None]:
        given = [*node.args, node, g] if with_result else [*node.args, g]
        found = gradient(*map(Tensor, given), **node.attrs)
        parts = list(found) if isinstance(found, list | tuple) else [found]
        if len(parts) != len(node.args):
            raise ArgumentError(f"the gradient of {name} gives {len(parts)} tensors for {len(node.args)} arguments")
        return [None if part is None or not a.dtype.is_float else as_node(part, a.dtype)
                for part, a in zip(parts, node.args, strict=True)]
    return rule


def _count(function: Function) -> int:
    """How many arguments a function takes by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds for p in inspect.signature(function).parameters.values())
