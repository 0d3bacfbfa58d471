"""The smallest graph in which something goes wrong with a pass, as text that can be run."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tensorc.ir.graph import Graph, postorder, replace_nodes
from tensorc.ir.node import Node, make
from tensorc.ir.text import dump
from tensorc.ops import constant, parameter
from tensorc.passes.rewrite import Rewrite

LONGEST = 40
"""Lines of a graph that an error shows."""


def cut(roots: Iterable[Node], below: Iterable[Node]) -> tuple[Graph, dict[Node, Node]]:
    """The graph of some roots with the nodes `below` fed instead of computed; which parameter stands for which node.

    A parameter that is reached keeps its role, one that is fed instead is an input; constants stay where they are.
    """
    roots = tuple(roots)
    fed = {n for n in below if n.op is not constant} - set(roots)
    inner = postorder(roots, fed)
    reached = dict.fromkeys(m for n in inner for m in (n, *n.args) if m in fed or m.op is parameter)
    taken = {n.name for n in reached if n.op is parameter}
    params: dict[Node, Node] = {}
    for node in reached:
        if node.op is parameter:
            params[node] = make(parameter, **{**node.attrs, "uid": 0})
        else:
            name = next(name for i in range(len(taken) + 1) if (name := f"x{i}") not in taken)
            taken.add(name)
            params[node] = make(parameter, name=name, role="input", uid=0, type=node.type)
    graph = Graph("repro", tuple(params.values()), tuple(replace_nodes(roots, params)))
    return graph, params


def cuts(root: Node) -> Iterator[tuple[Graph, dict[Node, Node]]]:
    """Ever larger graphs over a root, up to all that it needs, as `cut` gives them."""
    depth = 1
    whole = cut([root], ())
    while True:
        found = cut([root], _at_depth(root, depth))
        yield found
        if found[0] == whole[0]:
            return
        depth += max(1, depth // 2)


def smallest(roots: Iterable[Node], fails: Callable[[Graph], bool]) -> Graph | None:
    """The first of ever larger graphs over one of the roots in which something fails; None if it fails in none."""
    return next((graph for root in roots for graph, _ in cuts(root) if fails(graph)), None)


def told(graph: Graph, passes: Iterable[Any] = ()) -> str:
    """A graph for an error, indented, with the command that runs it again."""
    text = dump(graph, lines=False).rstrip().splitlines()
    if len(text) > LONGEST:
        text = [*text[:LONGEST], f"… and {len(text) - LONGEST} lines more"]
    files = sorted({file for p in passes if (file := source_of(p)) is not None})
    given = "".join(f" --passes {os.path.relpath(file)}" for file in files)
    return "\n".join(["  the smallest graph found in which it happens:", *(f"    {line}" for line in text),
                      f"  saved as repro.ir: tensorc --dump-ir repro.ir --after all{given}"])


def source_of(thing: Any) -> str | None:
    """The file that a pass or a rewrite of a user's is written in; None for tensorc's own, and where there is none."""
    kind = type(thing) if isinstance(thing, Rewrite) or not hasattr(thing, "__name__") else thing
    if (getattr(kind, "__module__", None) or "tensorc").partition(".")[0] == "tensorc":
        return None
    try:
        return inspect.getsourcefile(kind)
    except TypeError:
        return None


def _at_depth(root: Node, depth: int) -> list[Node]:
    """The nodes that are `depth` operations below a root at the nearest, but not among those above."""
    seen = {root}
    level = [root]
    for _ in range(depth):
        level = list(dict.fromkeys(a for n in level for a in n.args if a not in seen))
        seen.update(level)
    return level
