"""What a run does besides computing: it prints, refuses indices that are outside their axis, and cuts results.

The first two are further outputs of a program, behind those that the user asked for: `print` nodes, and of each check
the place of the first offending index and a `check` node, that index.  Where there is one the program leaves variables
alone, and it is told here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tensorc.errors import IndexRangeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph, Location, nested, postorder
from tensorc.ir.node import OPS, Node, make, rebuild
from tensorc.ops.gather import NONE, check_inside
from tensorc.ops.reads import READERS, Read
from tensorc.ops.scan import loop_with, scan
from tensorc.runtime.late import Cut, shorten

Array = np.ndarray[Any, Any]

EDGE = 3
"""Elements shown at either end of an axis that is too long to be shown whole."""


def with_effects(graph: Graph) -> Graph:
    """The graph with its prints, in the order of evaluation, and the checks of its indices as further outputs."""
    order = postorder(graph.roots)
    if not any(node.op.name == "print" or node.op.name in READERS or nested(node) for node in order):
        return graph

    lines = dict(graph.provenance)
    done: dict[Node, Node] = {}
    prints: list[Node] = []
    printed: set[int] = set()
    for node in order:
        args = [done[a] for a in node.args]
        if node.op.name == "print":
            prints.append(make(node.op, *args, message=node.message, uid=len(prints)))
            lines.setdefault(prints[-1], lines.get(node, ()))
            done[node] = args[0]
        else:
            done[node] = rebuild(node, args)
            if node in lines:
                lines[done[node]] = tuple(dict.fromkeys((*lines.get(done[node], ()), *lines[node])))
            for value, message, uid in _printed(done[node]):
                if uid not in printed:
                    printed.add(uid)
                    prints.append(make(OPS["print"], value, message=message, uid=len(prints)))
                    lines.setdefault(prints[-1], lines.get(node, ()))

    roots = [done[root] for root in graph.roots]
    checks: dict[tuple[Node, Size], tuple[Node, Node]] = {}
    for node in postorder(roots):
        for indices, bound, what in _read(node):
            if (indices, bound) not in checks and not _surely_inside(indices, bound):
                made = checks[indices, bound] = check_inside(indices, bound, what)
                for each in made:
                    lines.setdefault(each, lines.get(node, ()))

    whole = graph.with_roots(roots, lines)
    return replace(whole, outputs=(*whole.outputs, *prints, *itertools.chain.from_iterable(checks.values())))


def _read(node: Node) -> Read:
    """The indices that an operation takes; of a loop, those of all its steps, one step's above the other's."""
    if node.op is not scan:
        return READERS[node.op.name](node) if node.op.name in READERS else []
    found = [each for n in node.body.nodes for each in _read(n) if not _surely_inside(*each[:2])]
    steps = _all_steps(node, [indices for indices, _, _ in found])
    return [(indices, bound, what) for indices, (_, bound, what) in zip(steps, found, strict=True)]


def _printed(node: Node) -> list[tuple[Node, str, int]]:
    """What the steps of a loop print, one step's value above the other's, with the message and the uid of the print."""
    if node.op is not scan:
        return []
    found = [each for n in node.body.nodes for each in _printed(n)]
    found += [(n.args[0], n.message, n.uid) for n in node.body.nodes if n.op.name == "print"]
    steps = _all_steps(node, [value for value, _, _ in found])
    return [(value, message, uid) for value, (_, message, uid) in zip(steps, found, strict=True)]


def _all_steps(node: Node, values: Sequence[Node]) -> list[Node]:
    """Nodes of a loop's body as further results of the loop."""
    body = node.body
    fuller = replace(body, outputs=(*body.outputs, *values))
    return [loop_with(node, fuller, i) for i in range(len(body.outputs), len(fuller.outputs))]


def _surely_inside(indices: Node, bound: Size) -> bool:
    """Are the indices numbers that are known to be inside?"""
    return (indices.op.name == "constant" and isinstance(bound, int)
            and bool(np.all((indices.value >= 0) & (indices.value < bound))))


class Effects:
    """The prints and checks of one function.

    Args:
        function: its name.
        graph: its graph, as `with_effects` made it.
        outputs: how many outputs the function has without these; lengths that only a run can tell are the last.
        cuts: where such lengths count.
        silent: whether nothing is printed.
    """

    def __init__(self, function: str, graph: Graph, outputs: int, cuts: Sequence[Cut] = (), *,
                 silent: bool = False) -> None:
        self._function = function
        self._graph = graph
        self._outputs = outputs - len({cut.length for cut in cuts})
        self._cuts = cuts
        extra = list(enumerate(graph.outputs))[outputs:]
        self._prints = [(i, node.message) for i, node in extra if node.op.name == "print" and not silent]
        self._checks = [(i, node) for i, node in extra if node.op.name == "check"]

    def __bool__(self) -> bool:
        return bool(self._prints or self._checks or self._cuts)

    def settle(self, results: list[Array], sizes: Callable[[], Mapping[str, int]]) -> list[Array]:
        """What the user asked for, of all results of a run.  Prints what is to be printed.

        Args:
            sizes: gives the values of the graph's symbols.

        Raises: IndexRangeError where an index was outside its axis.
        """
        for i, node in self._checks:
            if results[i - 1].item() != NONE:
                raise IndexRangeError(self._complaint(node, int(results[i - 1]), int(results[i]), sizes()))
        for i, message in self._prints:
            print(f"{message} {shown(results[i])}")
        shorten(results, self._cuts)
        return results[:self._outputs]

    def _complaint(self, node: Node, place: int, index: int, sizes: Mapping[str, int]) -> str:
        """Which index is outside which axis, and where that was asked for."""
        indices = node.indices.args[0] if node.indices.op.view else node.indices
        shape = [dims.evaluate(n, sizes) for n in indices.shape]
        bound = dims.evaluate(node.size, sizes)
        at = ", ".join(map(str, np.unravel_index(place, shape)))
        lines: Sequence[Location] = self._graph.provenance.get(node, ())
        call = next((line.call for line in lines if line.call), "gather")
        where = ", ".join(dict.fromkeys(map(str, lines)))
        allowed = f"0 … {bound - 1} are allowed" if bound else "the axis is empty"
        found = f"{self._function}: {call}: {node.what} {index}{f' at [{at}]' if at else ''} is outside "
        axis = f"an axis of size {bound}: {allowed}" if node.what == "index" else f"0 … {bound - 1}"
        return found + axis + (f"\n  {call} at {where}" if where else "")


def shown(value: Array) -> str:
    """A value as NumPy prints it, without the middle of long axes."""
    return np.array2string(value, threshold=0, edgeitems=EDGE)
