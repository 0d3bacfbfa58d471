"""Sparse leaves: matrices in compressed rows that are fed, or kept from call to call.

Both stand for three arrays whose number of entries is a size like any other, so that one program serves all numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorc.backend.handle import shown
from tensorc.backend.leaves import parameter
from tensorc.backend.names import identifier, serial
from tensorc.backend.sparse import Csr, SparseTensor
from tensorc.errors import ShapeError
from tensorc.ir.dims import symbol
from tensorc.ir.node import Node
from tensorc.ir.types import DType, TensorType, i8, i32
from tensorc.runtime.sparse import Rows, SparseCell, compressed

Array = np.ndarray[Any, Any]

cells: weakref.WeakKeyDictionary[Node, tuple[SparseCell, str]] = weakref.WeakKeyDictionary()
"""For each parameter of a sparse variable its memory, and which of the arrays there it stands for."""


class SparseLeaf(SparseTensor):
    """A sparse matrix that is given as a whole.

    Attributes:
        parameters: the leaves that stand for its arrays.
    """

    __slots__ = ("parameters",)

    def __init__(self, type: TensorType, name: str) -> None:
        rows, columns = type.shape
        entries = symbol(f"{identifier(name)}_entries__{serial()}")
        data = parameter(f"{name}_data", "input", TensorType(type.dtype, (entries,)))
        indices = parameter(f"{name}_indices", "input", TensorType(i32, (entries,)))
        indptr = parameter(f"{name}_indptr", "input", TensorType(i32, (rows + 1,)))
        super().__init__(Csr(data, indices, indptr, columns), name)
        self.parameters: tuple[Node, ...] = (data, indices, indptr)
        if not (isinstance(rows, int) and isinstance(columns, int)):
            empty = TensorType(i8, (0, rows, columns))          # no element, but a shape that says the sizes
            self.parameters = (parameter(f"{name}_shape", "input", empty), *self.parameters)
        self._keras_shape = shown(type.shape)
        self._uses_learning_phase = False

    def fed(self, value: object, function: str) -> list[Array]:
        """The arrays that stand for a value.  Raises ShapeError, and what `compressed` raises."""
        rows = compressed(value, self.dense.dtype.numpy, f"{function}: the value for input {self.name}")
        if any(want not in (None, have) for want, have in zip(self.shape, rows.shape, strict=True)):
            raise ShapeError(f"{function}: the value for input {self.name} has shape {rows.shape}, "
                             f"{self.name} is {tuple(self.shape)}")
        arrays = [rows.data, rows.indices, rows.indptr]
        return arrays if len(self.parameters) == 3 else [np.empty((0, *rows.shape), np.int8), *arrays]


class SparsePlaceholder(SparseLeaf):
    """A sparse matrix that each call of a function feeds."""

    __slots__ = ()


class SparseVariable(SparseLeaf):
    """A sparse matrix that is kept between calls; `K.set_value` alone gives it another value.

    Attributes:
        cell, constraint, trainable: as those of a `Variable`.
    """

    __slots__ = ("cell", "constraint", "trainable")

    def __init__(self, value: Rows, dtype: DType, name: str, constraint: Callable[..., Any] | None = None) -> None:
        super().__init__(TensorType(dtype, value.shape), name)
        self.cell = SparseCell(value, name)
        self.constraint = constraint
        self.trainable = False
        cells.update({node: (self.cell, part) for node, part in
                      zip(self.parameters, ("data", "indices", "indptr"), strict=True)})
