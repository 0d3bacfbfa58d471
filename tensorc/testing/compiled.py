"""Compiled functions held against the references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorc.ir.closing import Closed, close
from tensorc.ir.graph import Graph
from tensorc.ir.node import Node
from tensorc.ops.conditioned import Array, difference, evaluate
from tensorc.ops.interpret import bind
from tensorc.runtime.function import Function
from tensorc.runtime.variable import Cell
from tensorc.testing.grow import Grown


def differs(grown: Grown, passes: Any, judge: Graph | None = None) -> str:
    """In what the compiled results of a computation are not what the references give; nothing where they are.

    Every one of its sizes is a call of one function.  Variables keep what the call before has left in them.

    Args:
        passes: what `K.function` takes as `passes`.
        judge: the graph that the references are asked of; the computation as it was written, where not given.
    """
    closed = close("f", grown.inputs, grown.outputs, grown.updates)
    graph = judge or closed.graph
    cells = {v: Cell(grown.values[0][v], v.name) for v in grown.variables}
    function = Function("f", grown.inputs, grown.outputs, grown.updates, cells=cells, passes=passes)
    for values in grown.values:
        now = named(closed, {**values, **{v: cell.get() for v, cell in cells.items()}})
        sizes = bind({p.name: (p.type, now[p.name].shape) for p in graph.params})
        want = evaluate(graph.roots, {p: now[p.name] for p in graph.params}, sizes)
        got = function([values[p] for p in grown.inputs]) + [cells[v].get() for v, _ in grown.updates]
        for i, (mine, theirs) in enumerate(zip(got, want, strict=True)):
            if told := difference(mine, theirs):
                return f"result {i} for {', '.join(f'{s} = {n}' for s, n in sizes.items())}: {told}"
    return ""


def named(closed: Closed, values: Mapping[Node, Array]) -> dict[str, Array]:
    """Values by the names that closing has left."""
    return {param.name: values[leaf] if leaf.op.name == "parameter" else leaf.value
            for param, leaf in zip(closed.graph.params, closed.leaves, strict=True)}
