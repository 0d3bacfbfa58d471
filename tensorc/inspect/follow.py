"""The history of one node: what it was at every stage, the rewrites that made it, the user's lines, its kernels."""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Iterator
from itertools import groupby

from tensorc.errors import ArgumentError
from tensorc.inspect.history import History, Stage
from tensorc.inspect.paint import Paint
from tensorc.ir.graph import Location
from tensorc.ir.kernels import named_groups
from tensorc.ir.node import Node
from tensorc.ir.text import unnamed

WIDTH = 100

Row = tuple[str, str, str]                      # what stands at the left, a line, a comment


def print_node(history: History, name: str, after: str | None, paint: Paint) -> None:
    """The history of the node that the dump after a pass calls so; of the last dump for None.

    Raises: ArgumentError for a pass or a node that is not there; what a pass raises.
    """
    if history.failure is not None and after is None:
        raise history.failure
    at = history.index(after)
    stage = history.stages[at]
    node = stage.node(name)
    print(paint("title", f"# {stage.name_of(node)} {stage.when}, in {stage.graph.name}"))

    path = dict([*history.back(node, at), *history.forth(node, at)])
    rows = [*_stages(history, path), *_kernels(history, path)]
    lines = [*lines_told(stage.lines(node))]
    left = max(len(title) for title, _, _ in (*rows, *lines))
    for part in (rows, lines):
        width = min(WIDTH, max((len(text) for _, text, why in part if why), default=0))
        for title, text, why in part:
            told = f"{text.ljust(width)}  # {why}" if why else text
            print(f"{paint('strong', title.ljust(left))}  {paint.graph(told)}".rstrip())
    print()


def _stages(history: History, path: dict[int, Node]) -> Iterator[Row]:
    """What the node was at every stage from the first to the last that has it."""
    before = None
    for i, stage in enumerate(history.stages):
        if i in path:
            text = _line(stage, path[i])
            same = before is not None and before[0] is path[i] and _place(stage, path[i]) == before[1]
            yield stage.name, _renamed(history, path, i) if same else text, "" if same else _how(history, path, i)
            before = path[i], _place(stage, path[i])
        elif before is not None:
            rules = stage.went[before[0]].rules
            yield stage.name, "not needed any more", ", ".join(rules)
            return


def _line(stage: Stage, node: Node) -> str:
    """A node's line, with the block it stands in and what the plan says of it."""
    title, place = stage.title_of(node), _place(stage, node)
    return f"{title + ':' if title else ''}{stage.line_of(node)}{f'  @ {place}' if place else ''}"


def _place(stage: Stage, node: Node) -> str:
    block = stage.block(node)
    return "" if block is None else block.places.get(node, "")


def _renamed(history: History, path: dict[int, Node], i: int) -> str:
    """That a node is as before, and its name if that is another."""
    name, before = (history.stages[j].name_of(path[j]) for j in (i, i - 1))
    return "as before" if name == before else f"as before; {name} now"


def _how(history: History, path: dict[int, Node], i: int) -> str:
    """How a node came about in a pass."""
    stage, before = history.stages[i], history.stages[i - 1]
    came = stage.came[path[i]]
    if i == 0 or came.how != "made":
        return ""
    by = ", ".join(came.rules)
    if came.source is None:
        return by
    replaced = stage.went[came.source].target is path[i]
    return f"{by}, {'in place of' if replaced else 'for'} {before.name_of(came.source)}"


def _kernels(history: History, path: dict[int, Node]) -> Iterator[Row]:
    """The kernels that a node is computed in at the end."""
    last = len(history.stages) - 1
    if last not in path or unnamed(path[last]):
        return
    stage = history.stages[last]
    found = [(name, group) for name, group, _ in named_groups(stage.graph) if path[last] in group.nodes]
    for name, group in found:
        others = [stage.name_of(n) for n in group.nodes if n is not path[last] and not unnamed(n)]
        beside = f", with {' '.join(others)}" if others else ""
        yield "kernel", f"{name} ({group.kind}){beside}", ""
    if stage.graph.plan is not None and not found:
        yield "kernel", "none: it takes no work", ""


def lines_told(lines: Iterable[Location]) -> Iterator[Row]:
    """The user's lines, with what is written there."""
    for (file, number), calls in groupby(lines, lambda at: (at.file, at.line)):
        told = ", ".join(dict.fromkeys(at.call for at in calls if at.call))
        linecache.checkcache(file)
        written = linecache.getline(file, number).strip()
        where = Location(file, number)
        yield "from", f"{where}  {told}", written


def check_after(after: str | None) -> None:
    """Raises ArgumentError for what names no single stage."""
    if after in ("all", "changed"):
        raise ArgumentError(f"a node stands in one dump: --after {after} says not in which; name a pass, or `input`")
