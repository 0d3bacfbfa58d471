"""Sparse matrices at the boundary: what users give, as compressed rows that kernels can trust; the memory of variables.

SciPy is not imported: its matrices bring their conversions along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc.errors import ArgumentError, DTypeError, ShapeError
from tensorc.ir.types import numpy_kind

Array = np.ndarray[Any, Any]

MOST = 2**31 - 1
"""Columns, and stored entries, that int32 can count."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A matrix in compressed rows: the columns rise within each row, and nothing lies outside.

    Attributes:
        data: the value of each stored entry, row by row.
        indices: the column of each, int32.
        indptr: where each row begins among them, and where the last one ends, int32.
        columns: how many columns there are.
    """

    data: Array
    indices: Array
    indptr: Array
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.indptr) - 1, self.columns

    def dense(self) -> Array:
        """The matrix as an array."""
        found = np.zeros(self.shape, self.data.dtype)
        found[np.repeat(np.arange(self.shape[0]), np.diff(self.indptr)), self.indices] = self.data
        return found


def is_scipy(value: object) -> bool:
    """Whether a value is a scipy.sparse matrix or array."""
    return hasattr(value, "tocsr")


def compressed(value: Any, dtype: np.dtype[Any], what: str) -> Rows:
    """A value as compressed rows.

    Args:
        value: a scipy.sparse matrix of any format, whose repeated entries are summed, or a dense matrix, whose zeros
            are left out.
        what: what errors call it.

    Raises: ShapeError for other than two axes; DTypeError for values that the dtype cannot hold; ArgumentError for a
        scipy.sparse matrix that contradicts itself.
    """
    return _from_scipy(value, dtype, what) if is_scipy(value) else _from_dense(value, dtype, what)


class SparseCell:
    """The value of a sparse variable, of fixed dtype and shape.

    `value` is replaced as a whole: who has read it keeps a matrix that does not change.
    """

    __slots__ = ("__weakref__", "name", "value")
    value: Rows

    def __init__(self, value: Rows, name: str) -> None:
        self.name = name
        self.value = value

    @property
    def shape(self) -> tuple[int, int]:
        return self.value.shape

    def get(self) -> Array:
        """The value as a dense array."""
        return self.value.dense()

    def set(self, value: object) -> None:
        """Takes a new value.  Raises what `fitting` raises."""
        self.value = value if isinstance(value, Rows) else self.fitting(value)

    def fitting(self, value: object) -> Rows:
        """The value as one that this cell can take.  Raises ShapeError, and what `compressed` raises."""
        new = compressed(value, self.value.data.dtype, f"the value of variable {self.name}")
        if new.shape != self.value.shape:
            raise ShapeError(f"variable {self.name} has shape {self.value.shape}, the value has shape {new.shape}")
        return new


def _from_scipy(value: Any, dtype: np.dtype[Any], what: str) -> Rows:
    if len(value.shape) != 2:
        raise ShapeError(f"{what} has shape {tuple(value.shape)}, and a sparse tensor two axes")
    matrix = value.tocsr()
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    rows, columns = matrix.shape
    if max(columns, matrix.indptr[-1]) > MOST:
        raise ArgumentError(f"{what} has more entries or columns than int32 counts")

    indptr = np.ascontiguousarray(matrix.indptr, np.int32)
    count = int(indptr[-1])
    indices = np.ascontiguousarray(matrix.indices[:count], np.int32)
    data = matrix.data[:count]
    _check_structure(indices, indptr, data, rows, columns, what)
    return Rows(_as_numbers(data, dtype, what), indices, indptr, columns)


def _from_dense(value: Any, dtype: np.dtype[Any], what: str) -> Rows:
    try:
        array = np.asarray(value)
    except ValueError:
        raise ShapeError(f"{what} is no regular array") from None
    if array.ndim != 2:
        raise ShapeError(f"{what} has shape {array.shape}, and a sparse tensor two axes")
    array = _as_numbers(array, dtype, what)
    row, column = np.nonzero(array)
    indptr = np.zeros(array.shape[0] + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=array.shape[0]), out=indptr[1:])
    if max(array.shape[1], int(indptr[-1])) > MOST:
        raise ArgumentError(f"{what} has more entries or columns than int32 counts")
    return Rows(array[row, column], column.astype(np.int32), indptr.astype(np.int32), array.shape[1])


def _check_structure(indices: Array, indptr: Array, data: Array, rows: int, columns: int, what: str) -> None:
    """Raises ArgumentError where following the arrays would lead outside of them."""
    if len(indptr) != rows + 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise ArgumentError(f"{what} is no valid matrix: its row starts do not rise from 0")
    if len(indices) != indptr[-1] or len(data) != indptr[-1]:
        raise ArgumentError(f"{what} is no valid matrix: it has fewer entries than its row starts say")
    if len(indices) and not 0 <= indices.min() <= indices.max() < columns:
        raise ArgumentError(f"{what} is no valid matrix: it has entries outside its {columns} columns")


def _as_numbers(given: Array, dtype: np.dtype[Any], what: str) -> Array:
    """Values in a dtype.  Raises DTypeError where more than precision would be lost."""
    if numpy_kind(given.dtype) not in "biuf":
        raise DTypeError(f"{what} is {given.dtype}, not numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        new = np.ascontiguousarray(given, dtype)
    if numpy_kind(dtype) != "f" and given.dtype != dtype and not np.array_equal(new.astype(given.dtype), given):
        raise DTypeError(f"{what} is {given.dtype}, and {dtype} cannot hold these values")
    return new
