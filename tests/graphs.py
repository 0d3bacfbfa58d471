"""Graphs for the tests of passes: built from nodes, and evaluated through the references of their operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph, postorder, replace_nodes
from tensorc.ir.node import Node, make
from tensorc.ir.types import DType, TensorType, f32
from tensorc.ops.conditioned import Array, Known, difference
from tensorc.ops.interpret import apply
from tensorc.ops.source import parameter


def tensor(name: str, *shape: Size, dtype: DType = f32, role: str = "input") -> Node:
    """A parameter."""
    return parameter(name=name, role=role, uid=0, type=TensorType(dtype, shape))


def closed(*outputs: Node, **more: Any) -> Graph:
    """The graph of outputs, with the parameters that they need."""
    params = tuple(n for n in postorder(outputs) if n.op is parameter)
    return Graph("g", params, outputs, **more)


def evaluate(graph: Graph, sizes: dict[str, Size], **inputs: Any) -> list[np.ndarray[Any, Any]]:
    """The outputs, computed node by node by NumPy."""
    roots = replace_nodes(graph.outputs, {}, sizes)
    values: dict[Node, np.ndarray[Any, Any]] = {}
    with np.errstate(all="ignore"):
        for node in postorder(roots):
            values[node] = _value(node, values, inputs)
    return [values[r] for r in roots]


def commuted(node: Node) -> Node:
    """The node with the operands of commutative operations in one order, so that equal formulas are one node."""
    args = [commuted(a) for a in node.args]
    if node.op.commutative:
        args.sort(key=_spelled)
    return make(node.op, *args, **node.attrs)


def _spelled(node: Node) -> str:
    return f"{node.op.name}({', '.join(map(_spelled, node.args))}) {dict(node.attrs)} {node.type}"


def _value(node: Node, values: dict[Node, Any], inputs: dict[str, Any]) -> np.ndarray[Any, Any]:
    if node.op is parameter:
        return np.asarray(inputs[node.name], node.dtype.numpy)
    return apply(node, [values[a] for a in node.args])


def assert_close(got: Array, want: Known, what: str = "") -> None:
    """Fails where `got` is not within the bounds of `want`; dtype and shape count, NaN and infinities too."""
    differs = difference(got, want)
    assert not differs, f"{differs}\n{what}"
