"""Choice at run time, stopping gradients, and printing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

from tensorc import ops
from tensorc.backend.convert import as_node, cast_node, promoted
from tensorc.backend.handle import flat_handles
from tensorc.backend.provenance import public, uses
from tensorc.backend.tensor import Tensor
from tensorc.errors import ShapeError
from tensorc.ir.node import Node
from tensorc.ir.types import boolean

T = TypeVar("T")

_prints = itertools.count()


@public("K.switch")
def switch(condition: Any, then_expression: Any, else_expression: Any) -> Tensor:
    """then_expression where the condition holds, else_expression elsewhere.

    Args:
        condition: a scalar, or a tensor whose axes are the first axes of the expressions.
        then_expression, else_expression: tensors, or functions that make them.

    Raises: ShapeError if the condition has more axes than the expressions.
    """
    test = cast_node(as_node(condition), boolean)
    then, other = promoted((_value(then_expression), _value(else_expression)))
    rank = max(len(then.shape), len(other.shape))
    if len(test.shape) > rank:
        raise ShapeError(f"the condition has rank {len(test.shape)}, more than the expressions, which have {rank}")

    if test.shape:
        test = ops.reshape(test, shape=(*test.shape, *(1,) * (rank - len(test.shape))))
    return Tensor(ops.select(test, then, other))


@public("K.stop_gradient")
def stop_gradient(variables: Any) -> Any:
    """The same value, constant to `K.gradients`; of a list, a list."""
    if isinstance(variables, list | tuple):
        return [Tensor(_stopped(as_node(v))) for v in variables]
    return Tensor(_stopped(as_node(variables)))


@public("K.print_tensor")
def print_tensor(x: Any, message: str = "") -> Tensor:
    """The same value, which every call that computes it prints to stdout after the message."""
    return Tensor(ops.print(as_node(x), message=message, uid=next(_prints)))


def _stopped(x: Node) -> Node:
    node: Node = ops.stop_gradient(x)
    return node


def _value(expression: T | Callable[[], T]) -> T:
    """The expression, or what it returns; the call at work hears of it."""
    if not callable(expression):
        return expression
    value = expression()
    for handle in flat_handles(value):
        uses(handle)
    return value
