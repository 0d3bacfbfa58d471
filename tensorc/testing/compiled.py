"""Compiled functions held against the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorc.ir.graph import postorder, replace_nodes
from tensorc.ir.node import Node
from tensorc.ops.conditioned import Array, Known, difference, known
from tensorc.runtime.function import Function
from tensorc.runtime.variable import Cell
from tensorc.testing.grow import Grown


def differs(grown: Grown, passes: Any, loose: Mapping[Node, float]) -> str:
    """In what the compiled results of a computation are not what the references give; nothing where they are.

    Every one of its sizes is a call of one function.  Variables keep what the call before has left in them.

    Args:
        passes: what `K.function` takes as `passes`.
        loose: nodes that may be off by so much.
    """
    cells = {v: Cell(grown.values[0][v], v.name) for v in grown.variables}
    function = Function("f", grown.inputs, grown.outputs, grown.updates, cells=cells, passes=passes)
    for sizes, values in zip(grown.sizes, grown.values, strict=True):
        now = {**values, **{v: cell.get() for v, cell in cells.items()}}
        want = wanted([*grown.outputs, *(new for _, new in grown.updates)], now, sizes, loose)
        got = function([values[p] for p in grown.inputs]) + [cells[v].get() for v, _ in grown.updates]
        for i, (mine, theirs) in enumerate(zip(got, want, strict=True)):
            if told := difference(mine, theirs):
                return f"result {i} for {', '.join(f'{s} = {n}' for s, n in sizes.items())}: {told}"
    return ""


def wanted(roots: Sequence[Node], values: Mapping[Node, Array], sizes: Mapping[str, int],
           loose: Mapping[Node, float]) -> list[Known]:
    """The roots by the references, where some nodes may be off."""
    fixed = replace_nodes([*values, *loose, *roots], {}, sizes)
    done = {p: Known(np.asarray(v)) for p, v in zip(fixed, values.values(), strict=False)}
    slack = dict(zip(fixed[len(values):], loose.values(), strict=False))
    for node in postorder(fixed[len(values):], done):
        found = known(node, [done[a] for a in node.args])
        if found.error is not None and node in slack:
            found = Known(found.value, found.error + slack[node])
        done[node] = found
    return [done[r] for r in fixed[len(values) + len(loose):]]
