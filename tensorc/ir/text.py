"""A graph as text.  `parse(dump(g))` gives the same nodes; see tensorc.ir.parse for the other direction.

    graph train(x: f32[n,784], y: f32[n,10]; w: variable f32[784,10])
      %0: f32[n,10] = matmul(x, w) {transpose_a=false, transpose_b=false}  # mlp.py:12
      %1: f32[n,10] = maximum(%0, 0.0:f32)
      return %1 ; w := %0

Graphs that operations run, such as the body of a loop, stand before the graph, and operations name them as `@body0`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tensorc.ir.dims import Dim
from tensorc.ir.graph import Graph, Location, nested
from tensorc.ir.kernels import named_groups
from tensorc.ir.node import Node
from tensorc.ir.types import DType, TensorType


def dump(graph: Graph, *, names: bool = True, lines: bool = True, notes: Mapping[Node, str] | None = None) -> str:
    """The graph as text.

    Args:
        names: False numbers the parameters instead (for cache keys).
        lines: whether the user's lines stand beside the nodes.
        notes: what else is to stand beside nodes.
    """
    inside, places = bodies(graph), placings(graph)
    label = labels(graph) if names else labels(graph) | {p: f"p{i}" for i, p in enumerate(graph.params)}
    blocks = [(inner, f"body {name}", labels(inner)) for inner, name in inside.items()]
    blocks.append((graph, f"graph {graph.name if names else 'g'}", label))

    def note(node: Node) -> str:
        where = comment(graph.provenance.get(node, ())) if lines else ""
        return "; ".join(filter(None, (where, (notes or {}).get(node, ""))))

    return "".join(_block(g, title, names, inside, places.get(g, {}), note) for g, title, names in blocks)


def bodies(graph: Graph) -> dict[Graph, str]:
    """The graphs that its operations run, each once and after those that it runs itself, and what text calls them."""
    return {inner: f"body{i}" for i, inner in enumerate(_bodies(graph))}


def _bodies(graph: Graph) -> list[Graph]:
    found: dict[Graph, None] = {}
    for node in graph.nodes:
        for inner in nested(node):
            found |= dict.fromkeys((*_bodies(inner), inner))
    return list(found)


def _block(graph: Graph, title: str, label: Mapping[Node, str], bodies: Mapping[Graph, str],
           places: Mapping[Node, str], note: Callable[[Node], str]) -> str:
    """One graph's lines."""
    inputs = [f"{label[p]}: {p.type}" for p in graph.params if p.role == "input"]
    others = [f"{label[p]}: {p.role} {p.type}" for p in graph.params if p.role != "input"]
    head = ", ".join(inputs) + ("; " + ", ".join(others) if others else "")
    body = [(f"{title}({head})", "")]
    for node in graph.nodes:
        if not unnamed(node):
            place = f"  @ {places[node]}" if node in places else ""
            body.append((f"  {statement(node, label, bodies)}{place}", note(node)))
    updates = ", ".join(f"{label[v]} := {operand(new, label)}" for v, new in graph.updates)
    returned = ", ".join(operand(o, label) for o in graph.outputs)
    body.append((f"  return {returned}".rstrip() + (f" ; {updates}" if updates else ""), ""))
    width = min(100, max((len(text) for text, note in body if note), default=0))
    return "\n".join(text.ljust(width) + f"  # {note}" if note else text for text, note in body) + "\n"


def labels(graph: Graph) -> dict[Node, str]:
    """The name of every node in the graph's text: parameters have their own, results are numbered."""
    named = {p: p.name for p in graph.params}
    numbered = (n for n in graph.nodes if not unnamed(n))
    return named | {n: f"%{i}" for i, n in enumerate(numbered)}


def statement(node: Node, label: Mapping[Node, str], bodies: Mapping[Graph, str]) -> str:
    """A node's line: its name, its type, the operation."""
    return f"{label[node]}: {node.type} = {application(node, lambda n: operand(n, label), bodies)}"


def shown_graphs(graph: Graph) -> dict[int, Graph]:
    """For a planned graph and the bodies in it, by their ids, the graphs that the text shows."""
    found = {id(graph): graph}
    for _, group, _ in named_groups(graph):
        if group.bodies:
            found |= zip(map(id, group.bodies), nested(group.outputs[0]), strict=True)
    return found


def placings(graph: Graph) -> dict[Graph, dict[Node, str]]:
    """What the plan says of nodes of the graph, and of the bodies in it: their kernels, and where they are kept."""
    found: dict[Graph, dict[Node, list[str]]] = {}
    shown = shown_graphs(graph)
    for name, group, inside in named_groups(graph):
        notes = found.setdefault(shown[id(inside)], {})
        assert inside.plan is not None
        when = " once" if inside.plan.is_once(group) else ""
        for node in group.nodes:
            keeps = " keeps panels" if group.keeps and node.op.kernel else ""
            notes.setdefault(node, []).append(f"{name}{when}{keeps}")
        for node, place in zip(group.outputs, group.writes, strict=False):
            notes.setdefault(node, []).append(f"→ {place}")
    return {inside: {node: " ".join(what) for node, what in notes.items()} for inside, notes in found.items()}


def unnamed(node: Node) -> bool:
    """Has the node no line of its own: a parameter, or a scalar constant."""
    return node.op.name == "parameter" or inline(node)


def inline(node: Node) -> bool:
    """Is the node written where it is used: a scalar constant."""
    return node.op.name == "constant" and node.value.ndim == 0


def operand(node: Node, label: Mapping[Node, str]) -> str:
    """A node as an operand."""
    return f"{number(node.value)}:{node.dtype}" if inline(node) else label[node]


def application(node: Node, name: Callable[[Node], str], bodies: Mapping[Graph, str] | None = None) -> str:
    """`op(operands) {attributes}`."""
    def spelled(value: Any) -> str:
        return f"@{(bodies or {}).get(value, value.name)}" if isinstance(value, Graph) else attribute(value)

    attrs = ", ".join(f"{k}={spelled(node.attrs[k])}" for k in node.op.attrs)
    return f"{node.op.name}({', '.join(map(name, node.args))})" + (f" {{{attrs}}}" if attrs else "")


def attribute(value: Any) -> str:
    """An attribute as text that tells its kind apart."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name}{_nested(value)}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(attribute, value)) + "]"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, float):
        return number(np.float64(value))
    if value is None or isinstance(value, (int, Dim, DType, TensorType)):
        return str(value) if value is not None else "none"
    raise TypeError(f"no text for an attribute {value!r}")


def several(n: int, what: str) -> str:
    """`1 kernel`, `2 kernels`."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def number(value: Any) -> str:
    """A scalar in the fewest digits that read back to it."""
    if value.dtype.kind == "b":
        return "true" if value else "false"
    if value.dtype.kind in "iu":
        return str(int(value))
    text = str(np.asarray(value)[()])
    return f"{text}.0" if text.lstrip("-").isdigit() else text      # bfloat16 leaves out what is 0


def comment(locations: tuple[Location, ...]) -> str:
    """The user's lines, each once."""
    return ", ".join(dict.fromkeys(map(str, locations)))


def _nested(array: np.ndarray[Any, Any]) -> str:
    if array.ndim == 0:
        return number(array)
    if array.size == 0:
        return f"[]({'x'.join(map(str, array.shape))})"
    return "[" + ", ".join(_nested(a) if array.ndim > 1 else number(a) for a in array) + "]"
