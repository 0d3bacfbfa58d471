"""From what users pass to nodes: literals, arrays, lists, and the dtype that operands share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tensorc import ops
from tensorc.backend.config import floatx
from tensorc.backend.handle import Handle
from tensorc.errors import ArgumentError, DTypeError
from tensorc.ir.node import Node, constant
from tensorc.ir.types import DType, bf16, boolean, i32, numpy_kind
from tensorc.ir.types import dtype as dtype_of

SYMBOLIC = (Handle, Node)


def parse_dtype(spec: object, default: str | None = None) -> DType:
    """The dtype of a name, a NumPy dtype or a DType; `default`, or floatx, for None.  Raises DTypeError."""
    if spec is None:
        spec = default or floatx()
    try:
        found = dtype_of(spec)
    except TypeError as error:
        raise DTypeError(str(error)) from None
    if found is bf16:
        _ = found.numpy         # says what to install where that is needed
    return found


def as_node(value: Any, dtype: DType | None = None) -> Node:
    """The node of a handle, or a constant of a number, array or list; a list that holds tensors is stacked.

    Args:
        dtype: the dtype of literals, and the one that handles are cast to; None keeps that of handles and
            arrays, and makes Python floats floatx and Python ints int32.
    """
    if isinstance(value, Handle):
        return cast_node(value.node, dtype)
    if isinstance(value, Node):
        return cast_node(value, dtype)
    if isinstance(value, list | tuple) and any(isinstance(v, SYMBOLIC) for v in value):
        return stacked([cast_node(n, dtype) for n in promoted(value)], axis=0)
    return literal(value, dtype or literal_dtype(value))


def promoted(values: Iterable[Any]) -> list[Node]:
    """Nodes of one dtype.

    Tensors promote among themselves: bool gives way to the other, an integer to a float, the narrower to the
    wider.  Numbers and arrays take the dtype of the tensors, except that a float makes integers floatx, and an
    integer makes bools int32.
    """
    values = list(values)
    dtypes = [_node(v).type.dtype for v in values if isinstance(v, SYMBOLIC)]
    if not dtypes:
        return _literals(values)

    dtype = common_dtype(dtypes)
    if len(dtypes) < len(values):
        for value in values:
            if not isinstance(value, SYMBOLIC):
                dtype = making_room(dtype, literal_dtype(value))
    return [as_node(v, dtype) for v in values]


def common_dtype(dtypes: Sequence[DType]) -> DType:
    """The dtype that tensors promote to."""
    found = dtypes[0]
    for other in dtypes[1:]:
        found = _promote(found, other)
    return found


def cast_node(node: Node, dtype: DType | None) -> Node:
    """The node in another dtype; itself where it has it or `dtype` is None."""
    if dtype is None or node.dtype is dtype:
        return node
    cast: Node = ops.cast(node, dtype=dtype)
    return cast


def literal_dtype(value: Any) -> DType:
    """The dtype of a value that stands alone: floatx for Python floats, int32 for Python ints, its own for an array."""
    if isinstance(value, bool):
        return boolean
    if isinstance(value, int):
        return i32
    if isinstance(value, float):
        return parse_dtype(None)
    if isinstance(value, np.ndarray | np.generic):
        return parse_dtype(value.dtype)
    if isinstance(value, list | tuple):
        return _list_dtype(value)
    raise DTypeError(f"{value!r} is neither a tensor nor numbers")


def literal(value: Any, dtype: DType) -> Node:
    """A constant of the given dtype.  Raises ArgumentError for an integer out of its range."""
    array = np.asarray(value)
    if numpy_kind(array.dtype) not in "biuf":
        raise DTypeError(f"{value!r} is neither a tensor nor numbers")
    if dtype.is_integer and numpy_kind(array.dtype) in "iu" and array.size:
        range_ = np.iinfo(dtype.numpy)
        if array.min() < range_.min or array.max() > range_.max:
            raise ArgumentError(f"{value!r} is outside the range of {dtype.name}")
    with np.errstate(over="ignore", invalid="ignore"):
        return constant(array.astype(dtype.numpy))


def stacked(nodes: Sequence[Node], axis: int) -> Node:
    """Nodes of one shape side by side along a new axis."""
    rows: list[Node] = []
    for node in nodes:
        shape = list(node.shape)
        shape.insert(axis, 1)
        rows.append(ops.reshape(node, shape=tuple(shape)))
    if len(rows) == 1:
        return rows[0]
    joined: Node = ops.concatenate(*rows, axis=axis)
    return joined


def _literals(values: Sequence[Any]) -> list[Node]:
    """Constants of one dtype."""
    dtypes = [literal_dtype(v) for v in values]
    return [literal(v, common_dtype(dtypes)) for v in values]


def _list_dtype(values: Sequence[Any]) -> DType:
    """The dtype of nested lists of numbers; floatx for an empty one."""
    if not values:
        return parse_dtype(None)
    return common_dtype([literal_dtype(v) for v in values])


def making_room(dtype: DType, value: DType) -> DType:
    """The dtype of tensors when they meet a literal of dtype `value`."""
    if value.is_float and not dtype.is_float:
        return parse_dtype(None)
    if value.is_integer and dtype.is_bool:
        return i32
    return dtype


def _promote(a: DType, b: DType) -> DType:
    if a is b or b.is_bool:
        return a
    if a.is_bool:
        return b
    if a.is_float != b.is_float:
        return a if a.is_float else b
    if a.is_float:
        return a.wide if a.size == b.size else max(a, b, key=lambda d: d.size)
    return dtype_of(np.promote_types(a.numpy, b.numpy))


def _node(value: Handle | Node) -> Node:
    return value.node if isinstance(value, Handle) else value
