"""What stays as it is from call to call: values of variables that the graph leaves alone, and what is made of them.

Such values are computed when one of their variables has changed, and kept until the next change: weights scaled,
transposed or packed, moments, tables of positions.  A value is kept where it is not much larger than the variables it
is made of, so what a function keeps is bounded by them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tensorc.ir.graph import Graph, postorder
from tensorc.ir.kernels import Group, memory_of
from tensorc.ir.node import Node, symbols_of
from tensorc.passes.context import Context

SMALL = 1 << 20
"""Bytes that a kept value may have however small its variables are."""

LARGE = 1 << 16
"""Bytes from which the right operand of a matrix product is worth a copy of its own."""

ORDERED = frozenset(("print", "check"))
"""Operations that happen in every call."""


def steady_nodes(graph: Graph, context: Context) -> set[Node]:
    """The nodes whose values only change when a variable does that the graph does not update.

    Empty for graphs without variables, as the bodies of loops are, and for targets that keep nothing.
    """
    updated = {variable for variable, _ in graph.updates}
    found: set[Node] = set()
    if not context.machine.keeps or not any(p.role == "variable" and p not in updated for p in graph.params):
        return found
    for node in graph.nodes:
        if node.op.name == "parameter":
            stays = node.role == "data" or node.role == "variable" and node not in updated
        else:
            stays = found.issuperset(node.args) and not symbols_of(node) and node.op.name not in ORDERED
        if stays:
            found.add(node)
    return found


def once(graph: Graph, groups: Iterable[Group], steady: Collection[Node]) -> set[Group]:
    """The groups that need to run only after a variable has changed; those that make results of the graph do not.

    Args:
        groups: each after those it depends on.
        steady: the nodes whose values only change when a variable does.
    """
    writer: dict[Node, Group] = {}
    roots = {memory_of(r) for r in graph.roots}
    found: set[Group] = set()
    for group in groups if steady else ():
        writer.update(dict.fromkeys(group.outputs, group))
        reads = (writer.get(memory_of(n)) for n in group.inputs)
        if (all(n in steady for n in group.outputs) and roots.isdisjoint(group.outputs)
                and all(w is None or w in found for w in reads) and all(map(is_kept, group.outputs))):
            found.add(group)
    return found


def is_kept(node: Node) -> bool:
    """Whether a value is small enough to be kept, compared with what it is made of."""
    return _bytes(node) <= SMALL or _bytes(node) <= sum(map(_bytes, variables_of([node])))


def may_keep_panels(product: Node) -> bool:
    """Whether a matrix product or a convolution may gain by a copy of its right operand that is laid out for it.

    Matrices that are read by rows, small or by a single row of the left operand, are read in place as fast.
    """
    b = product.args[1]
    return product.op.name != "matmul" or product.transpose_b or product.shape[-2] != 1 and _bytes(b) >= LARGE


def variables_of(nodes: Collection[Node]) -> list[Node]:
    """The variables that values depend on, each once."""
    return [n for n in postorder(nodes) if n.op.name == "parameter" and n.role == "variable"]


def _bytes(node: Node) -> int:
    size = node.type.bytes
    assert isinstance(size, int)
    return size
