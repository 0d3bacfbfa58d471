"""Between tensors and sizes: `K.shape(x)[0] * 2` is a tensor to the user and the size `2*n` to the compiler."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tensorc import ops
from tensorc.backend.convert import cast_node, literal, stacked
from tensorc.backend.handle import Handle
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Dim, Size
from tensorc.ir.node import Node
from tensorc.ir.types import DType, i32, i64

Sizes = np.ndarray[Any, np.dtype[np.object_]]

LARGEST = 4096      # no shape is computed from more numbers than this


def as_size(value: Any) -> Size:
    """One size: an int, or a scalar tensor made of sizes and integers.  Raises ArgumentError."""
    if isinstance(value, Dim):
        return value
    if isinstance(value, Handle | Node):
        found = sizes_in(value.node if isinstance(value, Handle) else value)
        if found is None:
            raise ArgumentError("a size cannot depend on the values of a tensor, only on K.shape and integers")
        if found.size != 1:
            raise ArgumentError(f"a size is a scalar, not of shape {found.shape}")
        size: Size = found.reshape(-1)[0]
        return size
    try:
        return operator.index(value)
    except TypeError:
        pass
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ArgumentError(f"a size is an integer or a scalar made of K.shape, not {value!r}")


def as_sizes(shape: Any) -> tuple[Size, ...]:
    """A shape: one size, a sequence of sizes, or a tensor made of sizes.  Raises ArgumentError."""
    if isinstance(shape, Handle | Node):
        found = sizes_in(shape.node if isinstance(shape, Handle) else shape)
        if found is None:
            raise ArgumentError("a shape cannot depend on the values of a tensor, only on K.shape and integers")
        return tuple(found.reshape(-1))
    if isinstance(shape, Iterable):
        return tuple(as_size(s) for s in shape)
    return (as_size(shape),)


def known_sizes(shape: Any) -> tuple[Size, ...]:
    """As `as_sizes`, for shapes in which no size is negative.  Raises ShapeError."""
    sizes = as_sizes(shape)
    if any(isinstance(s, int) and s < 0 for s in sizes):
        raise ShapeError(f"a size is negative in {sizes}")
    return sizes


def size_node(size: Size, dtype: DType = i32) -> Node:
    """A size as a scalar."""
    if isinstance(size, int):
        return literal(size, dtype)
    return cast_node(ops.size(value=size, dtype=i64 if dtype is i64 else i32), dtype)


def sizes_node(sizes: Iterable[Size], dtype: DType = i32) -> Node:
    """Sizes as a vector."""
    sizes = tuple(sizes)
    if all(isinstance(s, int) for s in sizes):
        return literal(np.array(sizes, dtype=np.int64), dtype)
    return stacked([size_node(s, dtype) for s in sizes], axis=0)


def canonical(node: Node) -> Node:
    """The node itself, or where it is a scalar or vector made of sizes, the shortest node of that value."""
    if not node.dtype.is_integer or len(node.shape) > 1:
        return node
    found = sizes_in(node)
    if found is None or not found.size:
        return node
    return sizes_node(found, node.dtype) if found.ndim else size_node(found.item(), node.dtype)


def sizes_in(node: Node) -> Sizes | None:
    """The elements of an integer tensor as sizes, or None where they depend on data."""
    if not node.dtype.is_integer or not isinstance(node.type.count, int) or node.type.count > LARGEST:
        return None
    rule = _RULES.get(node.op.name)
    if rule is None:
        return None
    args = []
    for arg in node.args:
        known = sizes_in(arg)
        if known is None:
            return None
        args.append(known)
    return _objects(rule(node, *args))


def _objects(value: Any) -> Sizes:
    """An object array, of rank 0 for a single size."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        return value
    if isinstance(value, Dim):
        out = np.empty((), dtype=object)
        out[()] = value
        return out
    return np.asarray(value).astype(object)


def _elementwise(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    apply = np.frompyfunc(function, 2, 1)
    return lambda node, a, b: apply(a, b)


def _reduction(function: Callable[[Any, Any], Any], start: int) -> Callable[..., Any]:
    apply = np.frompyfunc(function, 2, 1)

    def reduce(node: Node, x: Sizes) -> Any:
        for axis in reversed(node.axes):
            x = _objects(apply.reduce(x, axis=axis, initial=start))
        return x.reshape(node.shape)

    return reduce


def _slice(node: Node, x: Sizes) -> Any:
    return x[tuple(slice(*bounds) for bounds in zip(node.starts, node.limits, node.steps, strict=True))]


_RULES: dict[str, Callable[..., Any]] = {
    "constant": lambda node: node.value,
    "size": lambda node: node.attrs["value"],
    "iota": lambda node: node.op.reference(**node.attrs),
    "cast": lambda node, x: x,
    "neg": lambda node, x: 0 - x,
    "add": _elementwise(operator.add),
    "sub": _elementwise(operator.sub),
    "mul": _elementwise(operator.mul),
    "floordiv": _elementwise(dims.floordiv),
    "mod": _elementwise(dims.mod),
    "maximum": _elementwise(dims.maximum),
    "minimum": _elementwise(dims.minimum),
    "sum": _reduction(operator.add, 0),
    "prod": _reduction(operator.mul, 1),
    "concatenate": lambda node, *xs: np.concatenate(xs, axis=node.axis),
    "slice": _slice,
    "reshape": lambda node, x: x.reshape(node.shape),
    "broadcast": lambda node, x: np.broadcast_to(x, node.shape),
    "transpose": lambda node, x: x.transpose(node.perm),
    "reverse": lambda node, x: np.flip(x, node.axes),
}
