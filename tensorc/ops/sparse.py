"""Sparse matrices in compressed rows: products, dense forms, and what their gradients need.

A matrix of `rows` rows is three arrays: the values of its entries row by row, the column of each (int32), and the place
of the first entry of each row and one past the last entry of all (int32, rows + 1 of them).  In a row the columns rise.
Whoever makes the arrays vouches for that: no operation here checks them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.errors import DTypeError, ShapeError
from tensorc.ir.dims import Size
from tensorc.ir.node import Node, Op
from tensorc.ir.types import DType, TensorType, i32
from tensorc.ops.define import NoGradient, defop
from tensorc.ops.infer import agree, same_dtype, show_shape
from tensorc.ops.sample import sample

Array = NDArray[Any]

# Of samples: the entries of three rows, the middle one empty, and of one row without any.
COLUMNS, STARTS, ROWS = [0, 3, 1, 2, 4], [0, 2, 2, 5], [0, 0, 2, 2, 2]
STRUCTURE: dict[int, list[int]] = {1: COLUMNS, 2: STARTS}
NO_ENTRIES: dict[int, list[int]] = {1: [], 2: [0, 0]}


def _rows(data: TensorType, indices: TensorType, indptr: TensorType) -> Size:
    """How many rows the three arrays describe.  Raises ShapeError, DTypeError."""
    if indices.dtype is not i32 or indptr.dtype is not i32:
        raise DTypeError(f"columns and row starts are int32, not {indices.dtype.name} and {indptr.dtype.name}")
    if not data.rank == indices.rank == indptr.rank == 1:
        raise ShapeError("the three arrays of a sparse matrix have one axis each")
    agree(data.shape[0], indices.shape[0], "values and columns differ in number")
    return indptr.shape[0] - 1


def _summed(*types: TensorType) -> DType:
    """The dtype of sums of products.  Raises DTypeError."""
    dtype = same_dtype(*types)
    if dtype.is_half or dtype.is_bool:
        raise DTypeError(f"takes numbers of 32 or 64 bits, not {dtype.name}")
    return dtype


def _matrix(x: TensorType) -> tuple[Size, Size]:
    if x.rank != 2:
        raise ShapeError(f"takes a matrix, not {show_shape(x.shape)}")
    return x.shape[0], x.shape[1]


def _row_of_each(indptr: Array) -> Array:
    return np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))


# Products.

def _dot_type(data: TensorType, indices: TensorType, indptr: TensorType, dense: TensorType, *,
              columns: Size) -> TensorType:
    rows, (height, n) = _rows(data, indices, indptr), _matrix(dense)
    agree(columns, height, f"{columns} sparse columns do not fit {show_shape(dense.shape)}")
    return TensorType(_summed(data, dense), (rows, n))


def _dot(data: Array, indices: Array, indptr: Array, dense: Array, *, columns: int) -> Array:
    result = np.zeros((len(indptr) - 1, dense.shape[1]), dense.dtype)
    np.add.at(result, _row_of_each(indptr), data[:, None] * dense[indices])
    return result


def _dot_gradient(node: Any, g: Any) -> list[Node | None]:
    entries = node.data.shape[0]
    to_data = csr_sampled_dot(g, node.dense, csr_rows(node.indptr, entries=entries), node.indices, node.indptr)
    to_dense = csr_dot_transposed(node.data, node.indices, node.indptr, g, columns=node.columns)
    return [to_data, None, None, to_dense]


csr_dot = defop(
    "csr_dot",
    doc="The product of a sparse matrix and a dense one.  A row is summed in the order of its entries.",
    infer=_dot_type,
    reference=_dot,
    gradient=_dot_gradient,
    kernel="csr",
    samples=[sample("f32[5]", "i32[5]", "i32[4]", "f32[5,2]", fixed=STRUCTURE, columns=5),
             sample("f64[5]", "i32[5]", "i32[4]", "f64[5,1]", fixed=STRUCTURE, columns=5),
             sample("i32[5]", "i32[5]", "i32[4]", "i32[6,3]", fixed=STRUCTURE, columns=6),
             sample("f32[0]", "i32[0]", "i32[2]", "f32[0,3]", fixed=NO_ENTRIES, columns=0)],
)


def _transposed_type(data: TensorType, indices: TensorType, indptr: TensorType, dense: TensorType, *,
                     columns: Size) -> TensorType:
    rows, (height, n) = _rows(data, indices, indptr), _matrix(dense)
    agree(rows, height, f"{rows} sparse rows do not fit {show_shape(dense.shape)}")
    return TensorType(_summed(data, dense), (columns, n))


def _transposed(data: Array, indices: Array, indptr: Array, dense: Array, *, columns: int) -> Array:
    result = np.zeros((columns, dense.shape[1]), dense.dtype)
    np.add.at(result, indices, data[:, None] * dense[_row_of_each(indptr)])
    return result


def _transposed_gradient(node: Any, g: Any) -> list[Node | None]:
    entries = node.data.shape[0]
    to_data = csr_sampled_dot(node.dense, g, csr_rows(node.indptr, entries=entries), node.indices, node.indptr)
    return [to_data, None, None, csr_dot(node.data, node.indices, node.indptr, g, columns=node.columns)]


csr_dot_transposed = defop(
    "csr_dot_transposed",
    doc="The product of a sparse matrix, transposed, and a dense one.  Sums follow the order of the rows.",
    infer=_transposed_type,
    reference=_transposed,
    gradient=_transposed_gradient,
    kernel="csr",
    samples=[sample("f32[5]", "i32[5]", "i32[4]", "f32[3,2]", fixed=STRUCTURE, columns=5),
             sample("f64[5]", "i32[5]", "i32[4]", "f64[3,1]", fixed=STRUCTURE, columns=6),
             sample("f32[0]", "i32[0]", "i32[2]", "f32[1,3]", fixed=NO_ENTRIES, columns=2)],
)


# Between sparse and dense.

def _to_dense_type(data: TensorType, indices: TensorType, indptr: TensorType, *, columns: Size) -> TensorType:
    return TensorType(data.dtype, (_rows(data, indices, indptr), columns))


def _to_dense(data: Array, indices: Array, indptr: Array, *, columns: int) -> Array:
    result = np.zeros((len(indptr) - 1, columns), data.dtype)
    result[_row_of_each(indptr), indices] = data
    return result


def _to_dense_gradient(node: Any, g: Any) -> list[Node | None]:
    rows = csr_rows(node.indptr, entries=node.data.shape[0])
    return [csr_values(g, rows, node.indices, node.indptr), None, None]


csr_to_dense: Op = defop(
    "csr_to_dense",
    doc="The dense matrix of a sparse one.",
    infer=_to_dense_type,
    reference=_to_dense,
    gradient=_to_dense_gradient,
    kernel="csr",
    samples=[sample("f32[5]", "i32[5]", "i32[4]", fixed=STRUCTURE, columns=5),
             sample("f16[5]", "i32[5]", "i32[4]", fixed=STRUCTURE, columns=7),
             sample("f32[0]", "i32[0]", "i32[2]", fixed=NO_ENTRIES, columns=0)],
)


def _rows_type(indptr: TensorType, *, entries: Size) -> TensorType:
    if indptr.dtype is not i32 or indptr.rank != 1:
        raise DTypeError("row starts are an int32 vector")
    return TensorType(i32, (entries,))


csr_rows = defop(
    "csr_rows",
    doc="The row of each entry.",
    infer=_rows_type,
    reference=lambda indptr, *, entries: _row_of_each(indptr),
    gradient=NoGradient("a place depends on no value"),
    kernel="csr",
    samples=[sample("i32[4]", fixed={0: STARTS}, entries=5), sample("i32[2]", fixed={0: [0, 0]}, entries=0)],
)


def _values_type(x: TensorType, rows: TensorType, indices: TensorType, indptr: TensorType) -> TensorType:
    height, _ = _matrix(x)
    count = _rows(rows, indices, indptr)
    agree(height, count, f"{count} sparse rows do not fit {show_shape(x.shape)}")
    return TensorType(x.dtype, indices.shape)


csr_values = defop(
    "csr_values",
    doc="The elements of a dense matrix at the entries of a sparse one, whose rows and columns are given.",
    infer=_values_type,
    reference=lambda x, rows, indices, indptr: x[rows, indices],
    gradient=lambda node, g: [
        csr_to_dense(g, node.indices, node.indptr, columns=node.x.shape[1]), None, None, None],
    kernel="csr",
    samples=[sample("f32[3,5]", "i32[5]", "i32[5]", "i32[4]", fixed={1: ROWS, 2: COLUMNS, 3: STARTS}),
             sample("f32[1,3]", "i32[0]", "i32[0]", "i32[2]", fixed={1: [], 2: [], 3: [0, 0]})],
)


def _sampled_type(x: TensorType, y: TensorType, rows: TensorType, indices: TensorType,
                  indptr: TensorType) -> TensorType:
    (height, n), (_, m) = _matrix(x), _matrix(y)
    count = _rows(rows, indices, indptr)
    agree(n, m, f"the last sizes of {show_shape(x.shape)} and {show_shape(y.shape)} differ")
    agree(height, count, f"{count} sparse rows do not fit {show_shape(x.shape)}")
    return TensorType(_summed(x, y), indices.shape)


def _sampled_gradient(node: Any, g: Any) -> list[Node | None]:
    to_x = csr_dot(g, node.indices, node.indptr, node.y, columns=node.y.shape[0])
    to_y = csr_dot_transposed(g, node.indices, node.indptr, node.x, columns=node.y.shape[0])
    return [to_x, to_y, None, None, None]


csr_sampled_dot = defop(
    "csr_sampled_dot",
    doc="For each entry (row, column) of a sparse matrix the product of that row of x and that row of y: the elements "
        "of x·yᵀ at the entries.",
    infer=_sampled_type,
    reference=lambda x, y, rows, indices, indptr: np.sum(x[rows] * y[indices], 1, dtype=x.dtype),
    gradient=_sampled_gradient,
    kernel="csr",
    samples=[sample("f32[3,4]", "f32[5,4]", "i32[5]", "i32[5]", "i32[4]",
                    fixed={2: ROWS, 3: COLUMNS, 4: STARTS}),
             sample("f64[3,1]", "f64[5,1]", "i32[5]", "i32[5]", "i32[4]",
                    fixed={2: ROWS, 3: COLUMNS, 4: STARTS}),
             sample("f32[1,2]", "f32[3,2]", "i32[0]", "i32[0]", "i32[2]", fixed={2: [], 3: [], 4: [0, 0]})],
)
