"""Making and inspecting tensors: variables, placeholders, constants, their values and shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorc import ops
from tensorc.backend.convert import as_node, cast_node, literal, parse_dtype
from tensorc.backend.functions import eval
from tensorc.backend.leaves import Placeholder, Variable, cells, defaults, streams
from tensorc.backend.names import identifier, serial, unique_name
from tensorc.backend.provenance import public
from tensorc.backend.sizes import as_sizes, known_sizes, size_node, sizes_node
from tensorc.backend.sparse import SparseTensor, dense_node
from tensorc.backend.sparse import cast as cast_sparse
from tensorc.backend.sparse_leaves import SparsePlaceholder, SparseVariable
from tensorc.backend.sparse_leaves import cells as sparse_cells
from tensorc.backend.tensor import Tensor
from tensorc.backend.updates import updates_behind
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir.dims import Size, symbol
from tensorc.ir.graph import postorder
from tensorc.ir.node import Node
from tensorc.ir.types import TensorType, i32
from tensorc.ops.interpret import apply as evaluated
from tensorc.runtime.sparse import SparseCell, compressed, is_scipy
from tensorc.runtime.variable import Cell

Array = np.ndarray[Any, Any]

NOT_COMPILED = 2**17    # elements of all nodes together, up to which a first value is computed by the references


@public("K.variable")
def variable(value: Any, dtype: Any = None, name: str | None = None,
             constraint: Callable[..., Any] | None = None) -> Variable | SparseVariable:
    """A variable; of a scipy.sparse matrix, a sparse one.

    Args:
        value: its first value: an array, a number, nested lists, a scipy.sparse matrix, or a tensor, which is
            computed once now.
        dtype: floatx for None.
        constraint: kept as an attribute; Keras applies it after an optimiser's step.
    """
    kind = parse_dtype(dtype)
    if is_scipy(value):
        rows = compressed(value, kind.numpy, "the first value")
        return SparseVariable(rows, kind, unique_name(name or "variable"), constraint)
    if isinstance(value, Tensor):
        value = first_value(value)
    array = np.asarray(value).astype(kind.numpy)
    return Variable(array, unique_name(name or "variable"), constraint)


@public("K.placeholder")
def placeholder(shape: Sequence[int | None] | None = None, ndim: int | None = None, dtype: Any = None,
                sparse: bool = False, name: str | None = None) -> Placeholder | SparsePlaceholder:
    """A tensor that is fed in every call.

    Args:
        shape: its sizes; None for one that only the call knows.
        ndim: the number of axes, all unknown; shape wins if both are given.
        dtype: floatx for None.
        sparse: whether it is a matrix of which each call feeds the entries, as a scipy.sparse matrix or an array.

    Raises: ArgumentError if neither shape nor ndim is given; ShapeError if a sparse one has other than two axes.
    """
    if shape is None and ndim is None:
        raise ArgumentError("a placeholder needs a shape or ndim")
    sizes = (None,) * (ndim or 0) if shape is None else tuple(shape)

    called = unique_name(name or "placeholder")
    made: list[Size] = []
    for axis, size in enumerate(sizes):
        made.append(symbol(f"{identifier(called)}_{axis}__{serial()}") if size is None else _fixed(size))
    type = TensorType(parse_dtype(dtype), tuple(made))
    if sparse and type.rank != 2:
        raise ShapeError(f"a sparse placeholder has two axes, not {type.rank}")
    return SparsePlaceholder(type, called) if sparse else Placeholder(type, called)


@public("K.constant")
def constant(value: Any, dtype: Any = None, shape: Any = None, name: str | None = None) -> Tensor:
    """A tensor of fixed values.

    Args:
        dtype: floatx for None.
        shape: the shape of the result; a single value fills it, as many values as it has elements take it on.
    """
    node = as_node(value, parse_dtype(dtype))
    if shape is not None:
        sizes = known_sizes(shape)
        node = filled(node, sizes) if node.type.count == 1 else ops.reshape(node, shape=sizes)
    return Tensor(node, None if name is None else unique_name(name))


@public("K.zeros")
def zeros(shape: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """A variable of zeros; a tensor where a size is 0 or known only in the call."""
    return _full(0, shape, dtype, name)


@public("K.ones")
def ones(shape: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """A variable of ones; a tensor where a size is 0 or known only in the call."""
    return _full(1, shape, dtype, name)


@public("K.eye")
def eye(size: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """The identity matrix; size is an int or (rows, columns)."""
    rows, columns = size if isinstance(size, list | tuple) else (size, size)
    shape = known_sizes((rows, columns))
    row, column = (ops.iota(shape=shape, axis=axis, dtype=i32) for axis in (0, 1))
    return Tensor(ops.cast(ops.eq(row, column), dtype=parse_dtype(dtype)), name and unique_name(name))


@public("K.zeros_like")
def zeros_like(x: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """Zeros of the shape of x; dtype floatx for None."""
    return Tensor(filled(literal(0, parse_dtype(dtype)), as_node(x).shape), name and unique_name(name))


@public("K.ones_like")
def ones_like(x: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """Ones of the shape of x; dtype floatx for None."""
    return Tensor(filled(literal(1, parse_dtype(dtype)), as_node(x).shape), name and unique_name(name))


@public("K.identity")
def identity(x: Any, name: str | None = None) -> Tensor:
    """A new tensor with the same value."""
    named = name and unique_name(name)
    return SparseTensor(x.matrix, named) if isinstance(x, SparseTensor) else Tensor(as_node(x), named)


@public("K.cast")
def cast(x: Any, dtype: Any) -> Tensor:
    """x in another dtype; floats lose their fraction on the way to integers, and are compared with 0 for bool."""
    kind = parse_dtype(dtype)
    return cast_sparse(x, kind) if isinstance(x, SparseTensor) else Tensor(cast_node(as_node(x), kind))


@public("K.shape")
def shape(x: Any) -> Tensor:
    """The shape as an int32 vector; its elements and what is computed of them serve as sizes."""
    return Tensor(sizes_node(_node_of(x).shape))


@public("K.size")
def size(x: Any, name: str | None = None) -> Tensor:
    """The number of elements, an int32 scalar."""
    return Tensor(size_node(_node_of(x).type.count), name and unique_name(name))


def int_shape(x: Any) -> tuple[int | None, ...]:
    """The sizes as Python ints, None where unknown; `_keras_shape` where Keras has set it."""
    if hasattr(x, "_keras_shape"):
        found: tuple[int | None, ...] = x._keras_shape
        return found
    return tuple(x.shape)


def get_variable_shape(x: Variable) -> tuple[int | None, ...]:
    """As `int_shape`."""
    return int_shape(x)


def ndim(x: Any) -> int:
    """The number of axes."""
    number: int = x.ndim
    return number


def dtype(x: Any) -> str:
    """The name of the element type, such as 'float32'."""
    return str(x.dtype)


def count_params(x: Any) -> int:
    """The number of elements of a tensor whose shape is known."""
    return int(np.prod([s for s in int_shape(x) if s is not None], dtype=np.int64))


def is_tensor(x: Any) -> bool:
    """Whether x is a tensor, variables and placeholders among them."""
    return isinstance(x, Tensor)


def is_variable(x: Any) -> bool:
    """Whether x is a variable."""
    return isinstance(x, Variable | SparseVariable)


def is_placeholder(x: Any) -> bool:
    """Whether x is a placeholder."""
    return isinstance(x, Placeholder | SparsePlaceholder)


def is_keras_tensor(x: Any) -> bool:
    """Whether a Keras layer made this tensor.  Raises ArgumentError for something that is no tensor."""
    if not isinstance(x, Tensor):
        raise ArgumentError(f"K.is_keras_tensor: expected a tensor, got an instance of {type(x)}")
    return hasattr(x, "_keras_history")


def is_sparse(tensor: Any) -> bool:
    """Whether a tensor is sparse; a property of its type, not of its values."""
    return isinstance(tensor, SparseTensor)


@public("K.to_dense")
def to_dense(tensor: Any) -> Tensor:
    """The dense tensor of the same values."""
    return Tensor(tensor.dense) if isinstance(tensor, SparseTensor) else tensor


def get_value(x: Any) -> Array:
    """The value of a variable, a copy, dense also for a sparse one; of any other tensor, its value computed now."""
    return eval(x)


def batch_get_value(ops: Sequence[Any]) -> list[Array]:
    """The values of several variables."""
    return [get_value(x) for x in ops]


def set_value(x: Variable, value: Any) -> None:
    """Gives a variable a new value; either kind takes an array or a scipy.sparse matrix.

    Raises: ShapeError and DTypeError for a value that does not fit.
    """
    cell = _cell("K.set_value", x)
    cell.set(value if isinstance(cell, SparseCell) else as_dense(value))


def batch_set_value(tuples: Sequence[tuple[Variable, Any]]) -> None:
    """Gives several variables new values, all or none; a scalar fills its variable."""
    targets = [_cell("K.batch_set_value", x) for x, _ in tuples]
    fitting = [cell.fitting(value) if isinstance(cell, SparseCell) else cell.fitting(as_dense(value), fill=True)
               for cell, (_, value) in zip(targets, tuples, strict=True)]
    for cell, new in zip(targets, fitting, strict=True):
        cell.set(np.broadcast_to(new, cell.shape) if isinstance(new, np.ndarray) else new)


def filled(node: Node, sizes: Sequence[Size]) -> Node:
    """A scalar, or a tensor of one element, in every place of a shape."""
    if node.shape:
        node = ops.reshape(node, shape=())
    return node if not sizes else ops.broadcast(node, shape=tuple(sizes))


def as_dense(value: Any) -> Any:
    """A scipy.sparse matrix as an array; anything else as it is."""
    return value.toarray() if is_scipy(value) else value


def first_value(x: Tensor) -> Array:
    """The value of a tensor that a variable begins with.

    Small ones are computed by the references, since compiling for one use would take longer.

    Raises: ArgumentError if it depends on a placeholder.
    """
    order = postorder([x.node])
    kept_sparse = any(node in sparse_cells for node in order)
    if kept_sparse or updates_behind([x]) or sum(_elements(node) for node in order) > NOT_COMPILED:
        return eval(x)
    arrays: dict[Node, Array] = {}
    for node in order:
        arrays[node] = _given(node) if node.op.name == "parameter" else evaluated(node, [arrays[a] for a in node.args])
    return arrays[x.node]


def _elements(node: Node) -> int:
    count = node.type.count
    return count if isinstance(count, int) else 0


def _given(leaf: Node) -> Array:
    """The value of a leaf now."""
    if leaf in cells:
        return cells[leaf].get()
    if leaf in streams:
        return streams[leaf].take()
    if leaf in defaults:
        return defaults[leaf]
    raise ArgumentError(f"the first value of a variable cannot depend on placeholder {leaf.name}")


def _full(value: int, shape: Any, dtype: Any, name: str | None) -> Tensor:
    kind = parse_dtype(dtype)
    sizes = known_sizes(shape)
    if all(isinstance(s, int) and s for s in sizes):
        array = np.full(tuple(s for s in sizes if isinstance(s, int)), value, dtype=kind.numpy)
        return Variable(array, unique_name(name or "variable"))
    return Tensor(filled(literal(value, kind), sizes), name and unique_name(name))


def _fixed(size: Any) -> int:
    """A size of a placeholder's shape.  Raises ArgumentError, ShapeError."""
    found = as_sizes((size,))[0]
    if not isinstance(found, int):
        raise ArgumentError("the sizes of a placeholder are ints or None")
    if found < 0:
        raise ShapeError(f"a placeholder cannot have size {found}; use None for one that only the call knows")
    return found


def _node_of(x: Any) -> Node:
    """The node of a tensor, sparse ones included, or of what is made one."""
    return dense_node(x) if isinstance(x, Tensor) else as_node(x)


def _cell(call: str, x: Any) -> Cell | SparseCell:
    if not isinstance(x, Variable | SparseVariable):
        raise ArgumentError(f"{call}: {x!r} is no variable")
    return x.cell
