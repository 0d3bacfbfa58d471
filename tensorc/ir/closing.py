"""Closing: from nodes that users made to a graph that stands alone.

Sizes that operations need to be equal become one symbol, parameters and symbols get short names that are unique in the
graph, and large constants become parameters, so that equal computations have equal graphs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tensorc.errors import IRError, ShapeError, TensorcError
from tensorc.ir import dims
from tensorc.ir.assume import Assumption, Reach, collecting, solve
from tensorc.ir.bounds import never_negative
from tensorc.ir.dims import Dim, Size
from tensorc.ir.graph import Graph, Location, Provenance, carrying, describe, nested, postorder
from tensorc.ir.node import OPS, Node, make, rebuild, watching

LARGE = 64
"""Elements above which a constant is a parameter."""


@dataclass(frozen=True)
class Closed:
    """A closed graph and what its parts were.

    Attributes:
        leaves: for each parameter of the graph, the node it stands for: a parameter or a constant of the user's.
        sizes: for each symbol of the user's parameters, its value in symbols of the graph.
        assumptions: what had to be taken as equal, in the user's symbols, with the place that needs it.
        reaches: what had to be taken as no less than something else, likewise.
    """

    graph: Graph
    leaves: tuple[Node, ...]
    sizes: Mapping[str, Size]
    assumptions: tuple[Assumption, ...]
    reaches: tuple[Reach, ...]


def close(name: str, inputs: Sequence[Node], outputs: Sequence[Node], updates: Sequence[tuple[Node, Node]],
          provenance: Provenance | None = None, given: Mapping[str, Size] | None = None) -> Closed:
    """The graph of some outputs and updates.

    Args:
        inputs: the first parameters of the graph, in this order, used or not.
        given: sizes that are known beforehand (a specialised variant).

    Raises: ShapeError where sizes contradict each other; IRError for a parameter fed twice.
    """
    if len(set(inputs)) < len(inputs):
        raise IRError(f"{name}: an input is given twice")
    lines = dict(provenance or {})
    with watching(rebuilt=carrying(lines)):
        return _closed(name, inputs, outputs, updates, lines, dict(given or {}))


def _closed(name: str, inputs: Sequence[Node], outputs: Sequence[Node], updates: Sequence[tuple[Node, Node]],
            lines: dict[Node, tuple[Location, ...]], solved: dict[str, Size]) -> Closed:
    """As `close`; `lines` grow while nodes are rebuilt."""
    roots = [*outputs, *(v for v, _ in updates), *(new for _, new in updates)]
    roots = _substituted(roots, solved, lines)
    found: list[Assumption] = []
    while True:
        undecided, reaches = _needs(roots, lines)
        step: dict[str, Size] = {}
        for need in undecided:
            left, right = dims.substitute(need.left, step), dims.substitute(need.right, step)
            if left is right or left == right:
                continue
            found.append(Assumption(left, right, need.where))
            answer = solve(left, right)
            if answer is not None:
                step = {s: dims.substitute(v, dict([answer])) for s, v in step.items()} | dict([answer])
        if not step:
            break
        solved = {s: dims.substitute(v, step) for s, v in solved.items()} | step
        before, roots = roots, _substituted(roots, step, lines)
        if roots == before:     # shape rules made again what was solved: the call will tell
            break

    fed = _substituted(inputs, solved, lines)
    leaves = list(dict.fromkeys([*fed, *(n for n in postorder(roots) if _is_leaf(n))]))
    origin = dict(zip(fed, inputs, strict=True))
    short = _short_names(leaves)
    params = _parameters(leaves, set(fed).difference(roots[len(outputs):len(outputs) + len(updates)]), short)
    moved = carrying(lines)
    for leaf, param in zip(leaves, params, strict=True):
        moved(leaf, param)
    final = _replaced(roots, dict(zip(leaves, params, strict=True)), short, lines)
    n, u = len(outputs), len(updates)
    graph = Graph(name, tuple(params), tuple(final[:n]), tuple(zip(final[n:n + u], final[n + u:], strict=True)),
                  {k: v for k, v in lines.items() if v})
    sizes = {s: dims.substitute(dims.substitute(dims.symbol(s), solved), short)
             for s in sorted({*solved, *short})}
    return Closed(graph, tuple(origin.get(leaf, leaf) for leaf in leaves), sizes, tuple(found), tuple(reaches))


def _is_leaf(node: Node) -> bool:
    return node.op.name == "parameter" or node.op.name == "constant" and node.value.size > LARGE


def _needs(roots: Iterable[Node], lines: Provenance) -> tuple[list[Assumption], list[Reach]]:
    """What operations need sizes to be, which are not so for sure, with the operation and the user's line."""
    equal: list[Assumption] = []
    reach: dict[Size, Reach] = {}
    for node in postorder(roots):
        for inner in nested(node):
            inside = _needs(inner.roots, inner.provenance)
            equal += inside[0]
            reach |= {r.size - r.least: r for r in inside[1]}
        with collecting() as needs:
            node.op.infer(*(a.type for a in node.args), **node.attrs)
        needs.equal.extend((a.args[0], a.args[1]) for size in node.shape for a in dims.applications(size, "bcast"))
        needs.reach.extend((size, 0) for size in node.shape if not never_negative(size))
        at = lines.get(node, ())
        where = f"{at[0].call or node.op.name} at {at[0]}" if at else node.op.name
        equal += [Assumption(a, b, where) for a, b in needs.equal]
        for size, least in needs.reach:
            reach.setdefault(size - least, Reach(size, least, where))
    return equal, list(reach.values())


def _substituted(roots: Sequence[Node], sizes: Mapping[str, Size], lines: Provenance) -> list[Node]:
    return _replaced(roots, {}, sizes, lines) if sizes else list(roots)


def _replaced(roots: Sequence[Node], new: Mapping[Node, Node], sizes: Mapping[str, Size],
              lines: Provenance) -> list[Node]:
    """Roots rebuilt with nodes and sizes replaced.  Raises ShapeError with the user's line."""
    done = dict(new)
    for node in postorder(roots):
        if node not in done:
            try:
                done[node] = rebuild(node, [done[a] for a in node.args], sizes)
            except (TensorcError, dims.Incompatible) as error:
                raise ShapeError(f"{error}\n{describe(node, lines)}") from None
    return [done[r] for r in roots]


def _short_names(leaves: Iterable[Node]) -> dict[str, Size]:
    """A short unique symbol for every symbol of the leaves; what follows `__` in the user's is dropped."""
    short: dict[str, Size] = {}
    taken: set[str] = set()
    for leaf in leaves:
        for size in leaf.shape:
            for s in sorted(dims.symbols(size)):
                if s not in short:
                    short[s] = dims.symbol(_unique(s.partition("__")[0], taken))
    return short


def _parameters(leaves: Iterable[Node], fed: Collection[Node], sizes: Mapping[str, Size]) -> list[Node]:
    """The parameters of the closed graph, one for each leaf; those that are fed are inputs, whatever they were."""
    taken: set[str] = {str(s) for s in sizes.values()}
    params = []
    for leaf in leaves:
        constant = leaf.op.name == "constant"
        name = _unique("c" if constant else leaf.name, taken)
        shape = [dims.substitute(s, sizes) if isinstance(s, Dim) else s for s in leaf.shape]
        role = "data" if constant else "input" if leaf in fed else leaf.role
        params.append(make(OPS["parameter"], name=name, role=role, uid=0,
                           type=leaf.type.with_shape(shape)))
    return params


def _unique(wish: str, taken: set[str]) -> str:
    """`wish` as an identifier that is not taken yet."""
    name = stem = re.sub(r"\W", "_", wish) or "x"
    if stem[0].isdigit():
        name = stem = f"x{stem}"
    count = 1
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    taken.add(name)
    return name
