"""Loops whose steps treat each row of a batch by itself.

Row i of what such a step makes depends on row i of the states, and of what else comes row by row, alone.  So a loop may
run for some rows of the batch without waiting for the others: threads share the rows, and meet when all steps are done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph, postorder
from tensorc.ir.kernels import ROWS, reduced_axes
from tensorc.ir.node import Node, make
from tensorc.passes.batch import ALONG_AXES, ALONG_AXIS, ELEMENTWISE

FEWEST = 8
"""Rows of a batch that are worth sharing."""

SHARED_BYTES = 1 << 20
"""What all rows share, weights above all, stays in the second cache of a core from step to step up to this size.
More is better shared by threads that work on the same step."""

Attrs = Mapping[str, Any]


def by_rows(node: Node, body: Graph) -> tuple[Graph, Size] | None:
    """The body of a loop over ROWS rows, and how many there are; None where steps do not go row by row.

    Args:
        node: a result of the loop.
        body: its body, each output once.
    """
    first, behind = node.sequences, node.sequences + node.states
    states = body.params[first:behind]
    if not states or any(len(s.shape) < 2 for s in states):
        return None
    batch = states[0].shape[0]
    kept = node.body.outputs[node.states:]
    if isinstance(batch, int) and batch < FEWEST or len(set(kept)) < len(kept):
        return None
    shared = {p for p in body.params if not _has_rows(p, batch)}
    while shared.isdisjoint(states):
        found = _Rows(body, batch, shared)
        if found.blame is None:
            fits = _bytes(shared & set(body.params[behind:])) <= SHARED_BYTES
            return (found.graph, batch) if fits and found.by_row.issuperset(body.outputs) else None
        if found.blame in shared or found.blame not in body.params:
            return None
        shared.add(found.blame)
    return None


class _Rows:
    """An attempt to go by rows.

    Attributes:
        by_row: the nodes of which every row has its own.
        blame: what would have to be the same for all rows, and is not; None where the attempt succeeded.
    """

    def __init__(self, body: Graph, batch: Size, shared: Collection[Node]) -> None:
        self.batch = batch
        self.by_row = {p for p in body.params if p not in shared}
        self.blame: Node | None = None
        new = {p: _resized(p) if p in self.by_row else p for p in body.params}
        for node in postorder(body.outputs, body.params):
            attrs = self.attributes(node)
            if attrs is None:
                self.blame = next((a for a in reversed(node.args) if a in self.by_row), node)
                return
            new[node] = make(node.op, *(new[a] for a in node.args), **{**node.attrs, **attrs})
        lines = {new[n]: where for n, where in body.provenance.items() if n in new}
        self.graph = replace(body, params=tuple(new[p] for p in body.params),
                             outputs=tuple(new[o] for o in body.outputs), provenance=lines)

    def attributes(self, node: Node) -> Attrs | None:
        """What changes in the attributes of a node for some rows; None where its rows are not its operands' rows."""
        rows = [a in self.by_row for a in node.args]
        fresh = node.op.name == "broadcast" and _has_rows(node, self.batch) and self.same_in_all(node)
        if not any(rows) and not fresh:
            return {}
        found = self.of_rows(node, rows) if _has_rows(node, self.batch) else None
        if found is not None:
            self.by_row.add(node)
        return found

    def of_rows(self, node: Node, rows: Sequence[bool]) -> Attrs | None:
        """The same for a node that has rows, as some of its operands have."""
        name = node.op.name
        if name == "matmul" and len(node.shape) == 2:
            return {} if rows == [True, False] and not node.transpose_a else None
        if node.op.scalar or name in ELEMENTWISE or name in ("matmul", "broadcast"):
            return _resized_shape(node) if self.same_in_all(node) else None
        if name in RULES:
            return RULES[name](node, rows)
        if node.op.reduce or name in ALONG_AXES:
            return None if 0 in reduced_axes(node) else {}
        if name in ALONG_AXIS:
            return {} if node.axis and all(rows) else None
        return None

    def same_in_all(self, node: Node) -> bool:
        """Does each operand stand beside the rows of a node with rows of its own, or none at all?"""
        rank = len(node.shape)
        return all(len(a.shape) == rank if a in self.by_row else len(a.shape) < rank or a.shape[0] == 1
                   for a in node.args)


def _has_rows(node: Node, batch: Size) -> bool:
    return bool(node.shape) and node.shape[0] == batch


def _resized(param: Node) -> Node:
    return make(param.op, **{**param.attrs, "type": param.type.with_shape((dims.symbol(ROWS), *param.shape[1:]))})


def _bytes(nodes: Collection[Node]) -> int:
    """Bytes of some values; those whose size is not known count as more than there is room for."""
    sizes = [n.type.bytes for n in nodes]
    return sum(s if isinstance(s, int) else SHARED_BYTES + 1 for s in sizes)


def _resized_shape(node: Node) -> Attrs:
    """Of an operation that has its shape as an attribute, one of ROWS rows."""
    return {"shape": (dims.symbol(ROWS), *node.shape[1:])} if "shape" in node.attrs else {}


def _slice(node: Node, rows: Sequence[bool]) -> Attrs | None:
    return {"limits": (dims.symbol(ROWS), *node.limits[1:])} if node.steps[0] == 1 and not node.starts[0] else None


def _pad(node: Node, rows: Sequence[bool]) -> Attrs | None:
    return {} if not (node.low[0] or node.high[0] or node.interior[0]) else None


def _gather(node: Node, rows: Sequence[bool]) -> Attrs | None:
    """Each row looks up places of its own in a table that all share."""
    return {} if rows == [False, True] and node.axis == 0 else None


RULES: Mapping[str, Callable[[Node, Sequence[bool]], Attrs | None]] = {
    "slice": _slice, "pad": _pad, "gather": _gather,
    "reshape": lambda node, rows: _resized_shape(node),
    "transpose": lambda node, rows: None if node.perm[0] else {},
    "reverse": lambda node, rows: None if 0 in node.axes else {},
}
