"""Choice at run time, stopping gradients, and printing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence, Set
from typing import Any

from tensorc import ops
from tensorc.backend.body import captured, is_function, trace
from tensorc.backend.convert import as_node, cast_node, promoted
from tensorc.backend.provenance import public
from tensorc.backend.tensor import Tensor
from tensorc.errors import ShapeError
from tensorc.ir.graph import postorder
from tensorc.ir.node import Node
from tensorc.ir.types import boolean
from tensorc.ops.reads import looks_up
from tensorc.ops.scan import choice

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
    traced = [trace(e) if is_function(e) else None for e in (then_expression, else_expression)]
    values = [e if t is None else t.value for e, t in zip((then_expression, else_expression), traced, strict=True)]
    then, other = promoted(values)
    if not test.shape and any(traced):
        made = {n for t in traced if t for n in t.made if n.op.name != "parameter"}
        return Tensor(_one_of(test, (then, other), made))
    rank = max(len(then.shape), len(other.shape))
    if len(test.shape) > rank:
        raise ShapeError(f"the condition has rank {len(test.shape)}, more than the expressions, which have {rank}")

    if test.shape:
        test = ops.reshape(test, shape=(*test.shape, *(1,) * (rank - len(test.shape))))
    return Tensor(_selected(test, then, other))


def _one_of(test: Node, branches: Sequence[Node], made: Set[Node]) -> Node:
    """The value of one of two branches; what their functions made is computed only where it is needed.

    Random streams and variables that they began are given from outside, as all parameters are.
    Where a branch looks something up, which a call has to check, or prints, both are computed.
    """
    then, other = branches
    apart = then.type.shape != other.type.shape
    if apart or any(n.op.name == "print" or looks_up(n) for n in postorder(branches)):
        return _selected(test, then, other)
    inside, taken = captured(branches, made)
    return choice(test, taken, inside[:1], inside[1:])[0]


def _selected(test: Node, then: Node, other: Node) -> Node:
    node: Node = ops.select(test, then, other)
    return node


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
