"""Operations that look something up at places, or for lengths, that come from data: what a run has to check of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tensorc.ir.dims import Size
from tensorc.ir.graph import nested
from tensorc.ir.node import Node
from tensorc.ops.ctc import ctc_places

Read = list[tuple[Node, Size, str]]

READERS: Mapping[str, Callable[[Any], Read]] = {
    "gather": lambda node: [(node.indices, node.x.shape[node.axis], "index")],
    "scatter_add": lambda node: [(node.indices, node.size, "index")],
    "ctc_loss": ctc_places, "ctc_paths": ctc_places, "ctc_posterior": ctc_places,
    "ctc_greedy": lambda node: [(node.lengths, node.best.shape[1] + 1, "input_length")],
    "ctc_beam": lambda node: [(node.lengths, node.logp.shape[1] + 1, "input_length")],
}
"""For operations that take indices or lengths: these, each with how many there are to choose from and what it is."""


def looks_up(node: Node) -> bool:
    """Whether an operation, or one that its body or a branch of it runs, has something to check."""
    return node.op.name in READERS or any(looks_up(n) for graph in nested(node) for n in graph.nodes)
