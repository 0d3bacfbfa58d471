"""From a function of the user's to the body of a loop or the branch of a choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

from tensorc.backend.handle import Handle, flat_handles
from tensorc.backend.leaves import parameter
from tensorc.backend.provenance import uses
from tensorc.backend.tensor import Tensor
from tensorc.ir.closing import LARGE
from tensorc.ir.dims import Size
from tensorc.ir.graph import postorder, replace_nodes
from tensorc.ir.node import Node, make, watching
from tensorc.ir.types import TensorType

Pairs = list[tuple[Node, Node]]

DRAWS = ("uniform", "normal", "truncated_normal")


@dataclass
class Traced:
    """What a function made of the values it was given.

    Attributes:
        value: what it returned.
        made: the nodes that it asked for, in order.
        keys: the random streams that it began.
    """

    value: Any
    made: Sequence[Node]
    keys: set[Node]


def stand_in(type: TensorType, name: str) -> Node:
    """A node for a value that differs from step to step."""
    return parameter(name, "input", type)


def trace(function: Callable[..., Any], *arguments: Any) -> Traced:
    """Calls a function of the user's.  The call at work hears of what it returns."""
    made: dict[Node, None] = {}
    with watching(lambda node: made.setdefault(node)):
        value = function(*arguments)
    for handle in flat_handles(value):
        uses(handle)
    return Traced(value, list(made), {n for n in made if n.op.name == "parameter" and n.role == "key"})


def drawn_ahead(results: Sequence[Node], keys: Iterable[Node], length: Size) -> tuple[list[Node], Pairs]:
    """Results in which numbers drawn in each step are rows of numbers drawn for all steps at once, and these rows."""
    begun = set(keys)
    rows = {n: stand_in(n.type, "drawn") for n in postorder(results) if n.op.name in DRAWS and n.args[0] in begun}
    ahead = [(row, make(n.op, *n.args, **{**n.attrs, "shape": (length, *n.shape)})) for n, row in rows.items()]
    return replace_nodes(results, rows), ahead


def depending(results: Sequence[Node], varying: Iterable[Node]) -> set[Node]:
    """What of the results differs from step to step: nodes that stand for such values, and what is computed of them."""
    inside = set(varying)
    for node in postorder(results):
        if not inside.isdisjoint(node.args):
            inside.add(node)
    return inside


def captured(results: Sequence[Node], inside: Set[Node]) -> tuple[list[Node], Pairs]:
    """Results in which each value that comes from outside is a node that stands for it, with that value.

    Numbers, and what is made of numbers and sizes alone, stay where they are.
    """
    order = postorder(results)
    given: set[Node] = set()
    for node in order:
        if _is_given(node) or not given.isdisjoint(node.args):
            given.add(node)
    used = [a for n in order if n in inside for a in n.args] + list(results)
    found = {n: stand_in(n.type, "taken") for n in dict.fromkeys(used) if n in given and n not in inside}
    return replace_nodes(results, found), [(inner, n) for n, inner in found.items()]


def handles(nodes: Iterable[Node]) -> list[Tensor]:
    """A tensor for each node."""
    return [Tensor(node) for node in nodes]


def _is_given(node: Node) -> bool:
    """Is it a value that comes with a call, or a large constant?"""
    return node.op.name == "parameter" or node.op.name == "constant" and node.value.size > LARGE


def is_function(value: Any) -> bool:
    """Something to call, and no tensor."""
    return callable(value) and not isinstance(value, Handle)
