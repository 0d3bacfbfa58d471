"""A graph: parameters, outputs, updates of variables; how to walk one, and what makes one valid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tensorc.errors import IRError, TensorcError
from tensorc.ir import dims
from tensorc.ir.assume import Assumption
from tensorc.ir.node import Nested, Node, rebuild, symbols_of, watching

if TYPE_CHECKING:
    from tensorc.ir.kernels import Plan

BODY = "body"
"""The name of every graph that an operation runs, so that equal ones are equal."""

ROLES = ("input", "variable", "key", "data")     # fed by the caller; kept; a random stream; a large constant


@dataclass(frozen=True)
class Location:
    """A line of the user's, and the K call made there."""

    file: str
    line: int
    call: str = ""

    def __str__(self) -> str:
        return f"{self.file.replace(chr(92), '/').rpartition('/')[2]}:{self.line}"


Provenance = Mapping[Node, tuple[Location, ...]]


@dataclass(frozen=True)
class Graph(Nested):
    """A closed computation.  Outputs and updates see the values that variables had before the call.

    `params` are nodes of the op `parameter`, each name once.  `assumptions` are the sizes taken to be equal.
    `plan`, which fusion adds, says which kernels run in which order and where their results live.
    """

    name: str
    params: tuple[Node, ...]
    outputs: tuple[Node, ...]
    updates: tuple[tuple[Node, Node], ...] = ()
    provenance: Provenance = field(default_factory=dict, compare=False, repr=False)
    assumptions: tuple[Assumption, ...] = ()
    plan: Plan | None = field(default=None, compare=False, repr=False)

    @property
    def roots(self) -> tuple[Node, ...]:
        return self.outputs + tuple(new for _, new in self.updates)

    @property
    def nodes(self) -> list[Node]:
        """Every node that a result needs, operands before their users, in a deterministic order."""
        return postorder(self.roots)

    def with_roots(self, roots: Iterable[Node], provenance: Provenance | None = None) -> Graph:
        """The graph with other results in the order of `roots`."""
        roots = tuple(roots)
        n = len(self.outputs)
        updates = tuple((v, new) for (v, _), new in zip(self.updates, roots[n:], strict=True))
        return replace(self, outputs=roots[:n], updates=updates,
                       provenance=self.provenance if provenance is None else provenance)

    @property
    def symbols(self) -> frozenset[str]:
        """The size symbols of parameters and nodes."""
        return frozenset().union(*map(symbols_of, (*self.params, *self.nodes)))

    def resized(self, sizes: Mapping[str, dims.Size]) -> Graph:
        """With sizes replaced; itself where there are none of these."""
        if self.symbols.isdisjoint(sizes):
            return self
        lines = dict(self.provenance)
        with watching(rebuilt=carrying(lines)):
            params = {p: rebuild(p, (), sizes) for p in self.params}
            roots = replace_nodes(self.roots, params, sizes)
        updates = tuple((params[v], new) for v, new in self.updates)
        return replace(self, params=tuple(params.values()), updates=updates).with_roots(roots, lines)

    def __str__(self) -> str:
        from tensorc.ir.text import dump
        return dump(self)


def nested(node: Node) -> list[Graph]:
    """The graphs that an operation runs: the body of a loop, the branches of a choice."""
    return [value for value in node.attrs.values() if isinstance(value, Graph)]


def all_nodes(graph: Graph) -> list[Node]:
    """Parameters and nodes, and those of the graphs that operations run, operands first."""
    inner = [n for node in graph.nodes for body in nested(node) for n in all_nodes(body)]
    return list(dict.fromkeys((*inner, *graph.params, *graph.nodes)))


def carrying(lines: dict[Node, tuple[Location, ...]]) -> Callable[[Node, Node], None]:
    """What hands on the user's lines to nodes as they are rebuilt, in `watching`."""
    def rebuilt(old: Node, new: Node) -> None:
        if old in lines:
            lines[new] = tuple(dict.fromkeys((*lines.get(new, ()), *lines[old])))
    return rebuilt


def with_bodies(graph: Graph, change: Callable[[Graph], Graph]) -> Graph:
    """The graph with the graphs that its operations run changed; `change` sees them with the user's lines."""
    if not any(map(nested, graph.nodes)):
        return graph
    changed: dict[Graph, Graph] = {}
    done: dict[Node, Node] = {}
    lines = dict(graph.provenance)
    for node in graph.nodes:
        inner = {k: v for k, v in node.attrs.items() if isinstance(v, Graph)}
        for body in inner.values():
            if body not in changed:
                after = change(replace(body, provenance=lines))
                lines = {**after.provenance, **lines}
                changed[body] = replace(after, provenance={})
        other: dict[str, Any] = {k: changed[v] for k, v in inner.items()}
        new = done[node] = rebuild(node, [done[a] for a in node.args], **other)
        if node in lines:
            lines.setdefault(new, lines[node])
    return graph.with_roots([done[r] for r in graph.roots], lines)


def postorder(roots: Iterable[Node], given: Iterable[Node] = ()) -> list[Node]:
    """Operands before users, depth first, without recursion; `given` nodes and what only they need are left out."""
    seen = set(given)
    order: list[Node] = []
    stack = [(r, False) for r in reversed(tuple(roots))]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args) if a not in seen)
    return order


def users(roots: Iterable[Node]) -> dict[Node, list[Node]]:
    """The nodes that take each node as an operand, once per operand."""
    found: dict[Node, list[Node]] = {}
    for node in postorder(roots):
        found.setdefault(node, [])
        for a in node.args:
            found[a].append(node)
    return found


def replace_nodes(roots: Iterable[Node], new: Mapping[Node, Node],
                  sizes: Mapping[str, dims.Size] | None = None) -> list[Node]:
    """Roots with nodes replaced throughout (the replacements are taken as they are), and sizes substituted."""
    roots = tuple(roots)
    done: dict[Node, Node] = dict(new)
    for node in postorder(roots):
        if node not in done:
            done[node] = rebuild(node, [done[a] for a in node.args], sizes)
    return [done[r] for r in roots]


def verify(graph: Graph, lines: Provenance | None = None) -> Graph:
    """The graph itself, if it is valid.  Raises IRError naming the node, its operands and the user's line.

    Args:
        lines: those of the graph around, which has them for the nodes of bodies, too.
    """
    lines = graph.provenance if lines is None else lines
    known = set(graph.params)
    names = [p.name for p in graph.params]
    if len(set(names)) < len(names):
        raise IRError(f"{graph.name}: two parameters are called {max(names, key=names.count)}")
    for node in graph.nodes:
        if node.op.name == "parameter" and node not in known:
            raise IRError(f"{graph.name}: {node.name} is used but is no parameter")
        try:
            inferred = node.op.infer(*(a.type for a in node.args), **node.attrs)
        except TensorcError as error:
            raise IRError(f"{graph.name}: {error}\n{describe(node, lines)}") from None
        if inferred != node.type:
            raise IRError(f"{graph.name}: the type should be {inferred}\n{describe(node, lines)}")
        for inner in nested(node):
            verify(inner, lines)
    for variable, new in graph.updates:
        if variable not in known or variable.role != "variable":
            label = variable.name if variable.op.name == "parameter" else repr(variable)
            raise IRError(f"{graph.name}: update of {label}, which is no variable of this graph")
        if variable.type != new.type:
            raise IRError(f"{graph.name}: variable {variable.name} is {variable.type}, its new value {new.type}"
                          f"\n{describe(new, lines)}")
    updated = [variable.name for variable, _ in graph.updates]
    if len(set(updated)) < len(updated):
        raise IRError(f"{graph.name}: {max(updated, key=updated.count)} is updated twice")
    return graph


def describe(node: Node, provenance: Provenance) -> str:
    """A node with its operands and the user's lines, for an error."""
    def line(n: Node) -> str:
        label = n.name if n.op.name == "parameter" else n.op.name
        where = ", ".join(map(str, provenance.get(n, ())))
        return f"{label}: {n.type}" + (f"  # {where}" if where else "")
    return "\n".join([f"  in {line(node)}", *(f"    operand {line(a)}" for a in node.args)])
