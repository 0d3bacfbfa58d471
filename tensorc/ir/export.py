"""A graph handed to networkx, for analyses and drawings of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorc.ir.graph import Graph
from tensorc.ir.text import application, labels, operand

if TYPE_CHECKING:
    import networkx as nx


def to_networkx(graph: Graph) -> nx.MultiDiGraph[str]:
    """The graph with an edge from every operand to its user.

    Nodes are the names in the graph's text; their attributes are `op`, `type`, `text` and `lines`, and `result` for
    outputs and new values of variables.  An edge's `operand` is its position.  Scalar constants, which the text writes
    in place, are part of their user's `text`.
    """
    import networkx as nx

    label = labels(graph)
    exported: nx.MultiDiGraph[str] = nx.MultiDiGraph(name=graph.name)
    for node in dict.fromkeys([*graph.params, *graph.nodes]):
        if node not in label:
            continue
        name = label[node]
        text = name if node.op.name == "parameter" else application(node, lambda n: operand(n, label))
        exported.add_node(name, op=node.op.name, type=str(node.type), text=text, result=node in graph.roots,
                          lines=tuple(map(str, graph.provenance.get(node, ()))))
        exported.add_edges_from((label[a], name, {"operand": i}) for i, a in enumerate(node.args) if a in label)
    return exported
