"""Graphs evaluated with the NumPy references: what compiled code is held against, and how constants are folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tensorc.errors import InternalError, IRError, ShapeError
from tensorc.ir import dims
from tensorc.ir.assume import solve
from tensorc.ir.dims import Dim, Size
from tensorc.ir.graph import Graph, postorder
from tensorc.ir.node import Nested, Node
from tensorc.ir.types import TensorType
from tensorc.ops.infer import show_shape

Array = NDArray[Any]


def evaluate(graph: Graph, values: Mapping[str, ArrayLike]) -> tuple[list[Array], dict[str, Array]]:
    """The outputs of a graph, and the new values of the variables that it updates.

    Args:
        values: an array for the name of each parameter, of its dtype; the sizes are taken from their shapes.

    Raises: IRError for a parameter without a value or of another dtype, ShapeError for shapes that do not fit.
    """
    arrays: dict[Node, Array] = {}
    for param in graph.params:
        if param.name not in values:
            raise IRError(f"{graph.name}: parameter {param.name} has no value")
        array = np.asarray(values[param.name])
        if array.dtype != param.dtype.numpy:
            raise IRError(f"{graph.name}: {param.name} is {array.dtype}, not {param.dtype.name}")
        arrays[param] = array

    sizes = bind({p.name: (p.type, array.shape) for p, array in arrays.items()})
    for node in postorder(graph.roots):
        if node not in arrays:
            arrays[node] = apply(node, [arrays[a] for a in node.args], sizes)
    return [arrays[o] for o in graph.outputs], {v.name: arrays[new] for v, new in graph.updates}


def apply(node: Node, operands: Sequence[Array], sizes: Mapping[str, int] | None = None) -> Array:
    """The value of one node on the values of its operands.

    Raises: InternalError where the reference does not keep to the inferred type, KeyError for an unknown size.
    """
    if node.op.reference is None:
        raise IRError(f"{node.op.name} has no value of its own")
    known = sizes or {}
    result = meaning(node, operands, {name: _number(value, known) for name, value in node.attrs.items()})

    shape = tuple(dims.evaluate(s, known) for s in node.shape)
    if result.dtype != node.dtype.numpy or result.shape != shape:
        raise InternalError(f"the reference of {node.op.name} gave {result.dtype} {show_shape(result.shape)}, "
                            f"not {node.dtype.name} {show_shape(shape)}")
    return result


def meaning(node: Node, operands: Sequence[Array], attrs: Mapping[str, Any]) -> Array:
    """What the reference of a node's operation makes of operands.

    Floats of 16 bits are only stored: the reference gets them as float32, and a float32 result is rounded.  Operations
    that hold graphs hand on what they get, and get it as it is.
    """
    assert node.op.reference is not None
    if not any(isinstance(value, Nested) for value in attrs.values()):
        operands = [x.astype(a.dtype.wide.numpy) if a.dtype.is_half else x
                    for x, a in zip(operands, node.args, strict=True)]
    with np.errstate(all="ignore"):
        result = np.asarray(node.op.reference(*operands, **attrs))
        if node.dtype.is_half and result.dtype == node.dtype.wide.numpy:
            return result.astype(node.dtype.numpy)
    return result


def bind(shapes: Mapping[str, tuple[TensorType, tuple[int, ...]]]) -> dict[str, int]:
    """What the symbols in types stand for, given a shape for the type of each name.  Raises ShapeError."""
    found: dict[str, int] = {}
    wanted: list[tuple[str, Size, int]] = []
    for name, (type, shape) in shapes.items():
        if len(shape) != type.rank:
            raise ShapeError(f"{name} has shape {show_shape(shape)}, not {show_shape(type.shape)}")
        wanted.extend((name, size, actual) for size, actual in zip(type.shape, shape, strict=True))

    # Plain symbols come before the polynomials that they explain.
    wanted.sort(key=lambda entry: dims.symbols(entry[1]) != {str(entry[1])})
    for name, size, actual in wanted:
        left = dims.substitute(size, found)
        solution = solve(left, actual)
        if solution is not None and isinstance(solution[1], int):
            found[solution[0]] = solution[1]
        elif left != actual:
            type, shape = shapes[name]
            raise ShapeError(f"{name} has shape {show_shape(shape)}, not {show_shape(type.shape)}"
                             + "".join(f", {s} = {found[s]}" for s in sorted(dims.symbols(size) & found.keys())))
    return found


def _number(value: Any, sizes: Mapping[str, int]) -> Any:
    """An attribute with its sizes as numbers."""
    if isinstance(value, Dim):
        return dims.evaluate(value, sizes)
    if isinstance(value, tuple):
        return tuple(_number(v, sizes) for v in value)
    if isinstance(value, Nested):
        return value.resized(sizes)
    return value
