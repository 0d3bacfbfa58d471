"""Where the nodes of a graph come from: which node before a pass each stands for, and which rewrites led there.

Nodes are interned, so one that a pass has left alone is the same object before and after.  For the others the trace of
the driver says which rewrite asked for them, and on behalf of which node.  What a graph pass builds by itself, without
telling, is paired with what was there: results with results, and from there down along equal operations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from tensorc.ir.graph import Graph, all_nodes, nested
from tensorc.ir.node import Node
from tensorc.passes.context import Event
from tensorc.passes.rewrite import Fired, Missed, Rebuilt


@dataclass(frozen=True)
class Came:
    """How a node after a pass came about.

    Attributes:
        how: "kept" as it was, "rebuilt" as the same operation on changed operands, or "made".
        source: the node before the pass that it stands for, or on behalf of which it was made; None where the pass
            does not tell.
        rules: the rewrites that made it, in order, or the one pass that did without any.
    """

    how: str
    source: Node | None
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Went:
    """What became of a node from before a pass: `target` after it, None where it is needed no more, and by what."""

    target: Node | None
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origins:
    """How the nodes of two stages are related, and those that were there in between.

    Attributes:
        came: for each node after the pass, and each in between, where it comes from.
        went: for each node before the pass, and each in between, what became of it.
    """

    came: Mapping[Node, Came]
    went: Mapping[Node, Went]


def origins(name: str, before: Graph, after: Graph, trace: Sequence[Event]) -> Origins:
    """How the nodes after the pass `name` are related to those before it."""
    return _Origins(name, before, after, trace).found()


Links = Mapping[Node, Mapping[Node, str]]
"""From nodes to nodes, with the rewrite that leads there, "" where a node was only rebuilt."""


class _Origins:
    """One pass; `back` and `forth` are the single steps of the trace."""

    def __init__(self, name: str, before: Graph, after: Graph, trace: Sequence[Event]) -> None:
        self.name = name
        self.before, self.after = before, after
        self.old = dict.fromkeys(all_nodes(before))
        self.new = dict.fromkeys(all_nodes(after))
        self.back: dict[Node, dict[Node, str]] = {}
        self.forth: dict[Node, dict[Node, str]] = {}
        told = [n for e in trace for n in ((e.node,) if isinstance(e, Missed) else (e.before, e.after))]
        self.between = dict.fromkeys(n for n in told if n not in self.old and n not in self.new)
        for event in sorted(trace, key=lambda event: not isinstance(event, Fired)):
            self._note(event)
        self.came: dict[Node, Came] = {}
        self.went: dict[Node, Went] = {}

    def _note(self, event: Event) -> None:
        """Steps of the trace, in either direction."""
        if isinstance(event, Fired):
            rule, made = event.rule, (event.after, *event.made)
        elif isinstance(event, Rebuilt):
            rule, made = "" if _same_operation(event.before, event.after) else self.name, (event.after,)
        else:
            return
        self.forth.setdefault(event.before, {}).setdefault(event.after, rule)
        for node in made:
            if node not in self.old and node is not event.before:
                self.back.setdefault(node, {}).setdefault(event.before, rule)

    def found(self) -> Origins:
        for node in (*self.new, *self.between):
            if node in self.old:
                self.came[node] = Came("kept", node)
            elif (chased := _chase(node, self.back, self.old.keys())) is not None:
                source, rules = chased
                self.came[node] = Came("made" if rules else "rebuilt", source, rules[::-1])
        for node in (*self.old, *self.between):
            if node in self.new:
                self.went[node] = Went(node)
            elif (chased := _chase(node, self.forth, self.new.keys())) is not None:
                self.went[node] = Went(*chased)
        self._pair()
        for node in self.new:
            self.came.setdefault(node, Came("made", None, (self.name,)))
        self._lose()
        return Origins(self.came, self.went)

    def _pair(self) -> None:
        """What the trace does not tell: results correspond, and the operands of equal operations.

        What is only part of something new waits until all that corresponds has been found.
        """
        stack = [(o, n, False) for o, n in zip(self.before.roots, self.after.roots, strict=False)][::-1]
        waiting: list[tuple[Node, Node, bool]] = []
        seen: set[Node] = set()
        while stack or waiting:
            old, new, within = (stack or waiting).pop()
            if old is new or new in seen:
                continue
            seen.add(new)
            known = self.came.get(new)
            if known is None:
                same = not within and _same_operation(old, new)
                self.came[new] = Came("rebuilt", old) if same else Came("made", old, (self.name,))
            elif known.source is not None:
                old = known.source
            if not within and old is not new:
                self.went.setdefault(old, Went(new, self.came[new].rules or (() if known is None else (self.name,))))
            if new not in self.old:
                below = [*self._below(old, new)][::-1]
                (waiting if within or old.op is not new.op else stack).extend(below)

    def _below(self, old: Node, new: Node) -> Iterator[tuple[Node, Node, bool]]:
        """The operands of two nodes that correspond, and the results of the graphs that they run."""
        if old.op is not new.op or len(old.args) != len(new.args):
            yield from ((old, a, True) for a in new.args if a not in self.old)
            return
        yield from ((o, n, False) for o, n in zip(old.args, new.args, strict=True))
        for o, n in zip(nested(old), nested(new), strict=False):
            yield from ((a, b, False) for a, b in zip(o.roots, n.roots, strict=False))

    def _lose(self) -> None:
        """Nodes with no trace are needed no more; by the rewrites, if any, of what needed them."""
        blame: dict[Node, tuple[str, ...]] = {}
        for node in reversed(self.old):
            if node not in self.went:
                self.went[node] = Went(None, blame.get(node, (self.name,)))
            rules = self.went[node].rules
            if rules:
                for a in (*node.args, *(r for body in nested(node) for r in body.roots)):
                    blame.setdefault(a, rules)


def _chase(node: Node, links: Links, goal: AbstractSet[Node]) -> tuple[Node, tuple[str, ...]] | None:
    """Along links to the nearest node of `goal`, with the rewrites passed; None where there is no way."""
    waiting: deque[tuple[Node, tuple[str, ...]]] = deque([(node, ())])
    seen = {node}
    while waiting:
        node, rules = waiting.popleft()
        for other, rule in links.get(node, {}).items():
            passed = (*rules, rule) if rule else rules
            if other in goal:
                return other, passed
            if other not in seen:
                seen.add(other)
                waiting.append((other, passed))
    return None


def _same_operation(a: Node, b: Node) -> bool:
    """The same operation but for its operands, and for what stands in the graphs that it runs."""
    def attributes(node: Node) -> Sequence[object]:
        return [v for v in node.attrs.values() if not isinstance(v, Graph)]
    return a.op is b.op and a.type == b.type and all(
        x is y or repr(x) == repr(y) for x, y in zip(attributes(a), attributes(b), strict=True))
