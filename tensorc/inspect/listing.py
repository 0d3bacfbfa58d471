"""The functions of a file in a table: their names, where they were made, how large they are."""

from __future__ import annotations

from collections.abc import Sequence

from tensorc.inspect.found import Found
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import named_groups
from tensorc.ir.text import bodies, unnamed

HEAD = ("#", "name", "made at", "nodes", "after passes", "kernels", "inputs")


def listing(functions: Sequence[Found]) -> str:
    """A row for each function; nodes are counted as built, and after all passes."""
    rows = [HEAD, *(_row(i, found) for i, found in enumerate(functions, 1))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    numbers = {0, 3, 4, 5}
    return "\n".join("  ".join(cell.rjust(w) if i in numbers else cell.ljust(w)
                               for i, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows)


def _row(number: int, found: Found) -> tuple[str, ...]:
    planned = found.pipeline.run(found.graph)
    inputs = ", ".join(f"{p.name}: {p.type}" for p in found.graph.params if p.role == "input")
    kernels = sum(not group.bodies for _, group, _ in named_groups(planned))
    return (str(number), ", ".join(found.names), str(found.where or ""), str(size(found.graph)),
            str(size(planned)), str(kernels) if planned.plan else "", inputs)


def size(graph: Graph) -> int:
    """The nodes that stand in a line of the dump, those of bodies included."""
    return sum(not unnamed(n) for g in (*bodies(graph), graph) for n in g.nodes)
