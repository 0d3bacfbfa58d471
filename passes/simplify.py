"""Simplification: the rules that make canonical operands, and the sharing of what is equal but spelled differently."""

from __future__ import annotations

from collections.abc import Sequence

from tensorc.ir.graph import Graph
from tensorc.ir.node import Node, make, rebuild
from tensorc.ops import reshape
from tensorc.passes import arithmetic, bodies, fold, shapes
from tensorc.passes.context import Context

RULES = (fold.SizeNumber(), fold.FoldNumbers(), *shapes.RULES, *arithmetic.RULES, *bodies.RULES)


def share(graph: Graph, context: Context) -> Graph:
    """y + x is x + y, and a reduction without the reduced axes is a view of the one that keeps them.

    Equal nodes are one by construction; here those become one that differ in the order of operands or in keepdims.
    """
    present = set(graph.nodes)
    first: dict[object, Node] = {}
    done: dict[Node, Node] = {}
    provenance = dict(graph.provenance)
    for node in graph.nodes:
        args = [done[a] for a in node.args]
        new = rebuild(node, args)
        if node.op.commutative:
            new = first.setdefault((node.op, frozenset(args), node.type), new)
        elif node.attrs.get("keepdims") is False and _kept(node, node.args) in present:
            new = reshape(_kept(node, args), shape=node.shape)
        done[node] = new
        if node in context.notes:
            context.notes[new] = context.notes[node]
        provenance.setdefault(new, provenance.get(node, ()))
    return graph.with_roots([done[r] for r in graph.roots], provenance)


def _kept(reduction: Node, args: Sequence[Node]) -> Node:
    """The reduction on other operands, keeping the reduced axes."""
    return make(reduction.op, *args, **{**reduction.attrs, "keepdims": True})
