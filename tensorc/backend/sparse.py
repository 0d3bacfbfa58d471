"""Sparse tensors: matrices in compressed rows, side by side or above one another.

They are fed, kept and multiplied, never computed: what K functions make of them is dense, or the same entries under
another dtype or in a larger matrix.  Any other function refuses them, since it would have to make them dense unasked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tensorc import ops
from tensorc.backend.convert import cast_node, promoted
from tensorc.backend.tensor import Tensor
from tensorc.errors import ArgumentError
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ir.types import DType


@dataclass(frozen=True, eq=False)
class Csr:
    """A matrix in compressed rows: its entries' values and columns, and where its rows begin."""

    data: Node
    indices: Node
    indptr: Node
    columns: Size

    def dense(self) -> Node:
        """The dense matrix."""
        made: Node = ops.csr_to_dense(self.data, self.indices, self.indptr, columns=self.columns)
        return made

    def times(self, y: Node) -> Node:
        """The product with a dense matrix."""
        made: Node = ops.csr_dot(self.data, self.indices, self.indptr, y, columns=self.columns)
        return made

    def map(self, change: Callable[[Node], Node]) -> Csr:
        """The matrix of the same entries with other values."""
        return Csr(change(self.data), self.indices, self.indptr, self.columns)

    def values(self) -> list[Node]:
        """The values of all entries, one vector for each matrix in compressed rows."""
        return [self.data]


@dataclass(frozen=True, eq=False)
class Joined:
    """Matrices above one another (axis 0) or side by side (axis 1)."""

    parts: tuple[Matrix, ...]
    axis: int

    def dense(self) -> Node:
        """The dense matrix."""
        made: Node = ops.concatenate(*(part.dense() for part in self.parts), axis=self.axis)
        return made

    def times(self, y: Node) -> Node:
        """The product with a dense matrix: of matrices side by side, the sum of their products with its parts."""
        if self.axis == 0:
            above: Node = ops.concatenate(*(part.times(y) for part in self.parts), axis=0)
            return above
        total: Node | None = None
        start: Size = 0
        for part in self.parts:
            limit = start + part.dense().shape[1]
            rows = ops.slice(y, starts=(start, 0), limits=(limit, y.shape[1]), steps=(1, 1))
            product = part.times(rows)
            total = product if total is None else total + ops.reshape(product, shape=total.shape)
            start = limit
        assert total is not None
        return total

    def map(self, change: Callable[[Node], Node]) -> Joined:
        """The matrix of the same entries with other values."""
        return Joined(tuple(part.map(change) for part in self.parts), self.axis)

    def values(self) -> list[Node]:
        """The values of all entries, one vector for each matrix in compressed rows."""
        return [data for part in self.parts for data in part.values()]


Matrix = Csr | Joined


class SparseTensor(Tensor):
    """A sparse matrix.

    Attributes:
        matrix: its arrays.
        dense: the dense matrix of the same values.
    """

    __slots__ = ("matrix",)
    sparse = True

    def __init__(self, matrix: Matrix, name: str | None = None) -> None:
        super().__init__(matrix.dense(), name)
        self.matrix = matrix

    @property
    def node(self) -> Node:
        """Raises ArgumentError: only the functions that know sparse tensors take them."""
        raise ArgumentError("takes no sparse tensor\nK.to_dense(x) is the dense tensor of the same values; "
                            "K.dot(x, y), K.concatenate and K.cast take sparse ones")

    @property
    def dense(self) -> Node:
        return self._node


def product(x: SparseTensor, y: Any) -> Node:
    """The product of a sparse matrix and a dense one, in the dtype they promote to, summed in float32 at least."""
    _, b = promoted((x.dense, y))
    wide = b.dtype.wide
    found = x.matrix.map(lambda data: cast_node(data, wide)).times(cast_node(b, wide))
    return cast_node(found, b.dtype)


def joined(tensors: list[SparseTensor], axis: int) -> SparseTensor:
    """Sparse matrices one after another along an axis, in the dtype that they promote to."""
    dtype = promoted([t.dense for t in tensors])[0].dtype
    parts = tuple(cast(t, dtype).matrix for t in tensors)
    return SparseTensor(parts[0] if len(parts) == 1 else Joined(parts, axis))


def cast(x: SparseTensor, dtype: DType) -> SparseTensor:
    """The same entries in another dtype."""
    return SparseTensor(x.matrix.map(lambda data: cast_node(data, dtype)))


def dense_node(x: Tensor) -> Node:
    """The value of a tensor as one node: of a sparse one, the dense matrix."""
    return x.dense if isinstance(x, SparseTensor) else x.node
