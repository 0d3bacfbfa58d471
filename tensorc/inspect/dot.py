"""A graph in the language of Graphviz: a box for each node, a frame round each kernel and each body."""

from __future__ import annotations

from collections.abc import Iterator

from tensorc.inspect.history import Block, Stage
from tensorc.ir.graph import nested
from tensorc.ir.node import Node
from tensorc.ir.text import application, comment, inline, operand, unnamed


def dot(stage: Stage) -> str:
    """The graph of a stage, to be drawn by `dot -Tsvg`."""
    lines = [
        f"digraph {_quoted(stage.graph.name)} {{",
        f"  label={_quoted(f'{stage.graph.name}, {stage.when}')}; labelloc=t; fontname=monospace",
        "  node [shape=box, fontname=monospace, fontsize=10]; edge [fontname=monospace, fontsize=8]",
    ]
    for block in stage.blocks:
        inside = [*_nodes(stage, block), *_edges(stage, block)]
        if block.title:
            frame = [f"subgraph {_quoted('cluster_' + block.title)} {{", f"  label={_quoted(block.title)}"]
            inside = [*frame, *(f"  {line}" for line in inside), "}"]
        lines += [f"  {line}" for line in inside]
    return "\n".join([*lines, "}", ""])


def _nodes(stage: Stage, block: Block) -> Iterator[str]:
    """Parameters, nodes in the frames of their kernels, and what is returned."""
    for param in block.graph.params:
        role = "" if param.role == "input" else f"{param.role} "
        yield f"{_id(block, param)} [shape=ellipse, label={_quoted(f'{block.names[param]}: {role}{param.type}')}]"

    kernels: dict[str, list[Node]] = {}
    for node in block.nodes:
        kernels.setdefault(block.places.get(node, "").partition(" ")[0], []).append(node)
    for name, nodes in kernels.items():
        boxes = [_box(stage, block, n) for n in nodes]
        if name:
            frame = f"subgraph {_quoted(f'cluster_{block.title}_{name}')} {{ style=dashed; label={_quoted(name)}"
            boxes = [frame, *(f"  {box}" for box in boxes), "}"]
        yield from boxes

    returned = [*((f"output {i}", o) for i, o in enumerate(block.graph.outputs)),
                *((f"{block.names[v]} :=", new) for v, new in block.graph.updates)]
    for i, (label, node) in enumerate(returned):
        end = _quoted(f"{block.title}:end{i}")
        text = label if not inline(node) else f"{label} {operand(node, block.names)}"
        yield f"{end} [shape=plaintext, label={_quoted(text)}]"
        if not inline(node):
            yield f"{_id(block, node)} -> {end}"


def _box(stage: Stage, block: Block, node: Node) -> str:
    """A node's box: what it computes, with numbers in place and other operands as arrows; its lines as a tooltip."""
    text = application(node, lambda n: operand(n, block.names), block.bodies)
    note = stage.notes.get(node, "")
    label = f"{block.names[node]}: {node.type}\\n{_escaped(text)}" + (f"\\n{_escaped(note)}" if note else "")
    lines = comment(stage.lines(node))
    return f'{_id(block, node)} [label="{label}"' + (f", tooltip={_quoted(lines)}]" if lines else "]")


def _edges(stage: Stage, block: Block) -> Iterator[str]:
    for node in block.nodes:
        for i, a in enumerate(node.args):
            if not inline(a):
                label = f" [label={i}]" if len(node.args) > 1 and not node.op.commutative else ""
                yield f"{_id(block, a)} -> {_id(block, node)}{label}"
        for body in nested(node):
            inner = next(b for b in stage.blocks if b.graph == body and b.title)
            last = next((n for n in body.outputs if not unnamed(n)), None)
            if last is not None:
                yield f"{_id(inner, last)} -> {_id(block, node)} [style=dotted, label={_quoted(inner.title)}]"


def _id(block: Block, node: Node) -> str:
    return _quoted(block.name(node))


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
