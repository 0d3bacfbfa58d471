"""Applies rewrites to a graph, operands first, until none applies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from tensorc.errors import RewriteError, TensorcError
from tensorc.ir.graph import Graph, Location, describe
from tensorc.ir.node import Node, Op, Pattern, rebuild, watching
from tensorc.passes.context import Context
from tensorc.passes.repro import smallest, told
from tensorc.passes.rewrite import (
    Binding,
    Fired,
    Kind,
    Missed,
    No,
    Rewrite,
    kind_of,
    matches,
    may_match,
    near_miss,
    numbers_in,
    whole,
)

Marks = dict[Node, bool]               # what is known of nodes

Candidates = tuple[tuple[Rewrite, tuple[Pattern, ...]], ...]


class Table:
    """Rules in order, and which of them are worth trying on a node: known from its operation and its operands' kinds.

    What it finds out it keeps, so a table that is used again is quicker.
    """

    def __init__(self, rules: Iterable[Rewrite]) -> None:
        self.rules = tuple(rules)
        self.numbers = sorted(set().union(*(numbers_in(p) for rule in self.rules for p in rule.patterns)))
        self.known: dict[tuple[Op | Kind, ...], Candidates] = {}

    def candidates(self, node: Node) -> Candidates:
        """Rules in order, with those of their patterns that could match."""
        kinds = [kind_of(a, self.numbers) for a in node.args]
        signature: tuple[Op | Kind, ...] = (node.op, *kinds)
        found = self.known.get(signature)
        if found is None:
            operands = [a.op for a in node.args]
            tried = ((rule, tuple(p for p in rule.patterns if may_match(p, node.op, kinds))) for rule in self.rules)
            found = tuple((rule, ps) for rule, ps in tried if ps and rule.concerns(node.op, operands))
            self.known[signature] = found
        return found


def sweep(graph: Graph, rules: Iterable[Rewrite] | Table, context: Context, marks: Marks | None = None) -> Graph:
    """The graph in which no rule applies any more; where several apply, the first in `rules` is taken.

    A node is looked at when its operands have settled, so one walk suffices, and the result does not depend on
    anything but the order of the rules.  New nodes take over the user's lines of the node they replace.

    Args:
        marks: what rules know of nodes by other means than looking at them, such as how often they are used; new
            nodes take them over, too, in this very dictionary.

    Raises: RewriteError naming the rule that changed a type or failed, or the rules that undo one another.
    """
    table = rules if isinstance(rules, Table) else Table(rules)
    try:
        return _settled(graph, table, context, {} if marks is None else marks)
    except _Broken as broken:
        raise _with_repro(broken, graph, table, context) from broken.__cause__


def _settled(graph: Graph, table: Table, context: Context, marks: Marks) -> Graph:
    """The graph in which no rule applies any more.  Raises _Broken."""
    settling = _Settling(graph, table, context, marks)
    return graph.with_roots([settling.settle(root) for root in graph.roots], settling.provenance)


class _Broken(RewriteError):
    """What rules did at a node, before a smaller graph is looked for in which they do it."""

    def __init__(self, message: str, rules: Iterable[str], node: Node) -> None:
        super().__init__(message)
        self.rules = frozenset(rules)
        self.node = node


def _with_repro(broken: _Broken, graph: Graph, table: Table, context: Context) -> RewriteError:
    """The error with the smallest graph found in which the same rules break."""
    def fails(small: Graph) -> bool:
        try:
            _settled(small, table, Context(context.target, context.options), {})
        except _Broken as again:
            return again.rules == broken.rules
        except TensorcError:
            return False
        return False

    found = smallest([broken.node], fails) or graph
    blamed = [rule for rule in table.rules if rule.name in broken.rules]
    return RewriteError(f"{broken}\n{told(found, blamed)}", repro=str(found))


def _forestalled(rule: Rewrite, patterns: Iterable[Pattern], node: Node, first: Rewrite) -> Missed | None:
    """That a rule could have been tried on a node, had another that stands before it not applied."""
    if not any(next(matches(p, node), None) for p in patterns):
        return None
    return Missed(rule.name, node, f"{first.name} came first", whole(rule))


class _Settling:
    """One walk over one graph.

    A node is settled when no rule applies to what it became.  `path` holds the nodes that wait for another to
    settle, each for the one after it: to wait for a node on the path is to wait for ever.
    """

    def __init__(self, graph: Graph, table: Table, context: Context, marks: Marks) -> None:
        self.context = context
        self.trace = context.trace
        self.marks = marks
        self.table = table
        self.provenance: dict[Node, tuple[Location, ...]] = dict(graph.provenance)
        self.settled: dict[Node, Node] = {}
        self.became: dict[Node, Node] = {}
        self.rule: dict[Node, str] = {}
        self.path: dict[Node, None] = {}
        self.fuel = 1000 + 100 * len(graph.nodes)
        if context.trace is not None:
            context.applied.update((rule.name, rule) for rule in table.rules)
        self.asked = [rule for rule in table.rules if context.asks(rule.name)]

    def settle(self, root: Node) -> Node:
        """What `root` is in the end."""
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self.settled:
                stack.pop()
                continue
            needed = [self.became[node]] if node in self.became else list(node.args)
            waiting = [n for n in needed if n not in self.settled]
            if waiting:
                self._wait(node, waiting)
                stack.extend(reversed(waiting))
            elif node in self.became:
                self._settle(node, self.settled[self.became[node]])
            else:
                self._step(node)
        return self.settled[root]

    def _wait(self, node: Node, waiting: list[Node]) -> None:
        self.path[node] = None
        looped = next((n for n in waiting if n in self.path), None)
        if looped is not None:
            path = list(self.path)
            rules = [self.rule[n] for n in path[path.index(looped):] if n in self.rule]
            self._refuse("undo one another", rules, looped)

    def _settle(self, node: Node, final: Node) -> None:
        self.settled[node] = final
        self.path.pop(node, None)

    def _step(self, node: Node) -> None:
        """Rebuilds a node on its settled operands, or rewrites it, or finds it settled."""
        new = rebuild(node, [self.settled[a] for a in node.args])
        if new is node:
            new = self._rewritten(node)
        if new is node:
            self._settle(node, node)
            return
        self._inherit([new], node)
        self.became[node] = new

    def _rewritten(self, node: Node) -> Node:
        """The node after the first rule that applies, or itself."""
        if self.asked:
            self._miss(near_miss(rule, node) for rule in self.asked)
        candidates = self.table.candidates(node)
        for i, (rule, patterns) in enumerate(candidates):
            for binding in (b for p in patterns for b in matches(p, node)):
                new = self._apply(rule, node, binding)
                if isinstance(new, Node):
                    if self.asked:
                        self._miss(_forestalled(other, ps, node, rule) for other, ps in candidates[i + 1:])
                    return new
                if self.asked:
                    self._miss([Missed(rule.name, node, new.reason, whole(rule))])
        return node

    def _miss(self, misses: Iterable[Missed | None]) -> None:
        """Traces those that were asked about."""
        if self.trace is not None:
            self.trace.extend(miss for miss in misses if miss is not None and self.context.asks(miss.rule))

    def _apply(self, rule: Rewrite, node: Node, binding: Binding) -> Node | No:
        """What a rule makes of a match; of the same type, and counted."""
        made: list[Node] = []
        try:
            with watching(made.append):
                new = rule.replacement(binding, self.context.machine)
        except TensorcError as error:
            raise _Broken(f"rewrite {rule.name} failed: {error}\n{describe(node, self.provenance)}",
                          [rule.name], node) from error
        except Exception as error:
            error.add_note(f"in rewrite {rule.name}, at\n{describe(node, self.provenance)}")
            raise
        if isinstance(new, No):
            return new
        if new is node:
            return No("what it would build is there already")
        if new.type != node.type:
            raise _Broken(f"rewrite {rule.name} turned {node.type} into {new.type}"
                          f"\n{describe(node, self.provenance)}", [rule.name], node)
        self._inherit(made, node)
        self.rule[node] = rule.name
        self.context.firings[rule.name] += 1
        if self.trace is not None:
            self.trace.append(Fired(rule.name, node, new, tuple(made)))
        self.fuel -= 1
        if self.fuel < 0:
            self._refuse("do not settle", list(self.rule.values())[-2:], node)
        return new

    def _inherit(self, made: Iterable[Node], node: Node) -> None:
        """Nodes that are new get the user's lines, and the marks, of the one they come from."""
        made = tuple(made)
        if node in self.marks:
            for n in made:
                self.marks.setdefault(n, self.marks[node])
        lines = self.provenance.get(node)
        if lines:
            for n in made:
                self.provenance.setdefault(n, lines)

    def _refuse(self, what: str, rules: Iterable[str], node: Node) -> NoReturn:
        names = list(dict.fromkeys(rules))
        raise _Broken(f"rewrites {what}: {' and '.join(names)}\n{describe(node, self.provenance)}", names, node)
