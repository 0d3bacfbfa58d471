"""A function's history as plain data: every node once, and for each stage where nodes stand and how they came there."""

from __future__ import annotations

import linecache
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tensorc.inspect.history import INPUT, Block, History, Stage
from tensorc.ir.graph import Graph, Location, all_nodes, nested
from tensorc.ir.node import Node
from tensorc.ir.text import application, inline, operand
from tensorc.passes.manager import Rewriting

Data = dict[str, Any]

LONG = 400
"""Characters of attributes after which the rest is left out: constants may be large."""


class Tables:
    """Nodes, bodies and the user's lines by number, each once for all stages."""

    def __init__(self) -> None:
        self.nodes: dict[Node, int] = {}
        self.graphs: dict[Graph, str] = {}
        self.lines: dict[tuple[str, int, str], int] = {}
        self._lines_of: dict[Node, dict[int, None]] = {}

    def node(self, node: Node) -> int:
        """A node's number; its operands have smaller ones."""
        stack = [node]
        while stack:
            top = stack[-1]
            missing = [a for a in top.args if a not in self.nodes]
            if missing:
                stack += missing
                continue
            self.nodes.setdefault(stack.pop(), len(self.nodes))
        return self.nodes[node]

    def numbers(self, nodes: Iterable[Node]) -> list[int]:
        return [self.node(n) for n in nodes]

    def graph(self, graph: Graph) -> int:
        """A body's number."""
        self.graphs.setdefault(graph, f"<{len(self.graphs)}>")
        return list(self.graphs).index(graph)

    def seen_at(self, node: Node, locations: Iterable[Location]) -> None:
        """Notes the user's lines behind a node."""
        for at in locations:
            number = self.lines.setdefault((at.file, at.line, at.call), len(self.lines))
            self._lines_of.setdefault(node, {})[number] = None

    def data(self) -> Data:
        return {
            "nodes": [self._node(n) for n in self.nodes],
            "lines": [{"file": file.replace("\\", "/").rpartition("/")[2], "line": line, "call": call,
                       "text": linecache.getline(file, line).strip()} for file, line, call in self.lines],
        }

    def _node(self, node: Node) -> Data:
        """Operation, type, operands, attributes; a name for parameters and the spelling of constants."""
        about: Data = {"op": node.op.name, "type": str(node.type)}
        if node.op.name == "parameter":
            return about | {"way": "source", "name": node.name, "role": node.role}
        if inline(node):
            return about | {"way": "source", "name": operand(node, {}), "role": "number"}
        about["way"] = "loop" if nested(node) else node.op.way
        about["args"] = self.numbers(node.args)
        attributes = application(node, lambda _: "", self.graphs).partition(")")[2].strip()
        if attributes:
            about["attrs"] = attributes if len(attributes) < LONG else f"{attributes[:LONG]} …}}"
        if node in self._lines_of:
            about["lines"] = list(self._lines_of[node])
        return about


def history_data(history: History, tables: Tables) -> Data:
    """The stages of a history, with the formulas of the rewrites that took place in it."""
    stages = [_stage(history, i, tables) for i in range(len(history.stages))]
    return {
        "stages": stages,
        "rules": _formulas(history, {rule for stage in stages for rule in stage["fired"]}),
        "failure": None if history.failure is None else str(history.failure),
    }


def _stage(history: History, index: int, tables: Tables) -> Data:
    """One stage: of its nodes, those that are new to it; of those before it, those that are gone."""
    stage = history.stages[index]
    before = history.stages[index - 1] if index else None
    for block in stage.blocks:
        for node in block.nodes:
            tables.seen_at(node, stage.lines(node) or block.graph.provenance.get(node, ()))
    came = {tables.node(n): [c.how, None if c.source is None else tables.node(c.source), *c.rules]
            for n in all_nodes(stage.graph) if (c := stage.came[n]).how != "kept"} if before else {}
    went = {tables.node(n): [None if w.target is None else tables.node(w.target), *w.rules]
            for n in all_nodes(before.graph) if (w := stage.went[n]).target is not n} if before else {}
    return {
        "name": stage.name,
        "doc": _doc(history, stage.name),
        "blocks": [_block(block, stage, before, tables) for block in stage.blocks],
        "came": came,
        "went": went,
        "fired": dict(Counter(fired.rule for fired in stage.fired).most_common()),
        "notes": {tables.node(n): note for n, note in stage.notes.items() if n in tables.nodes},
    }


def _block(block: Block, stage: Stage, before: Stage | None, tables: Tables) -> Data:
    return {
        "title": block.title,
        "graph": tables.graph(block.graph) if block.title else None,
        "before": _block_before(block, stage, before),
        "params": tables.numbers(block.graph.params),
        "nodes": tables.numbers(block.nodes),
        "outputs": tables.numbers(block.graph.outputs),
        "updates": [tables.numbers(pair) for pair in block.graph.updates],
        "places": {tables.node(n): place for n, place in block.places.items()},
    }


def _block_before(block: Block, stage: Stage, before: Stage | None) -> int | None:
    """Which block of the stage before a block stands for: the body of the node that its owner comes from."""
    if before is None:
        return None
    titles = [b.title for b in before.blocks]
    if not block.title:
        return titles.index("")
    graphs = [b.graph for b in before.blocks]
    for owner, came in stage.came.items():
        inside = nested(owner)
        if block.graph in inside and came.source is not None:
            old = nested(came.source)
            at = inside.index(block.graph)
            if at < len(old) and old[at] in graphs:
                return graphs.index(old[at])
    return None


def _doc(history: History, name: str) -> str:
    """What a pass says of itself, in a line."""
    if name == INPUT:
        return "the graph as it was built"
    run = next(step.run for step in history.pipeline.steps if step.name == name)
    if isinstance(run, Rewriting):
        return f"one sweep of {len(run.rules)} rewrites, operands first, until none applies"
    return _first_line(run)


def _formulas(history: History, names: set[str]) -> dict[str, str]:
    """The first line of each rewrite's docstring: its formula."""
    return {name: _first_line(history.rules[name]) for name in sorted(names)}


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]
