"""Products of matrices, transposition, rows by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorc import ops
from tensorc.backend.convert import as_node, cast_node, promoted
from tensorc.backend.provenance import public
from tensorc.backend.reduce import one_axis
from tensorc.backend.shapes import reshaped
from tensorc.backend.sparse import SparseTensor, dense_node, product
from tensorc.backend.tensor import Tensor, matmul
from tensorc.errors import ArgumentError, DTypeError, ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ir.types import i32, i64


@public("K.dot")
def dot(x: Any, y: Any) -> Tensor:
    """The sum of products over the last axis of x and the last but one of y.

    Args:
        x: a tensor of one axis or more, or a sparse matrix, whose rows are summed in the order of their entries.

    Returns: a dense tensor of shape (x's other sizes, y's other sizes): (2,3)·(4,3,5) → (2,4,5).
    Raises: ArgumentError if y is sparse; ShapeError if x is a scalar, y has fewer than two axes, or the sizes differ.
    """
    if isinstance(y, SparseTensor):
        raise ArgumentError("x may be sparse, y not\nK.to_dense(y) is the dense tensor of the same values")
    a, b = promoted((dense_node(x) if isinstance(x, SparseTensor) else x, y))
    if len(a.shape) < 1 or len(b.shape) < 2:
        raise ShapeError("x needs one axis or more, y two\nK.expand_dims adds one, K.squeeze takes it off")
    _check_inner(a.shape[-1], b.shape[-2], _dot_advice(a, b))

    rank = len(b.shape)
    rows = reshaped(a, (dims.product(a.shape[:-1]), a.shape[-1]))
    columns = _permuted(b, (rank - 2, *range(rank - 2), rank - 1))
    columns = reshaped(columns, (b.shape[-2], dims.product((*b.shape[:-2], b.shape[-1]))))
    found = product(x, columns) if isinstance(x, SparseTensor) else matmul(rows, columns)
    return Tensor(reshaped(found, (*a.shape[:-1], *b.shape[:-2], b.shape[-1])))


@public("K.batch_dot")
def batch_dot(x: Any, y: Any, axes: Any = None) -> Tensor:
    """For each sample the sum of products over one axis of x and one of y.

    Args:
        axes: the two axes, or one int for both; x's last and y's last but one for None (y's last if y has two).

    Returns: a tensor of shape (batch, x's other sizes, y's other sizes), with a trailing 1 where no others are left.
    Raises: ShapeError for operands of fewer than two axes or sizes that differ; ArgumentError for axis 0 or
        several axes of one operand.
    """
    a, b = promoted((x, y))
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise ShapeError("takes tensors of two axes or more, the first of which counts the samples")
    p, q = _batch_axes(axes, len(a.shape), len(b.shape))
    _check_inner(a.shape[p], b.shape[q], f"axis {p} of x and axis {q} of y are summed over")
    if isinstance(a.shape[0], int) and isinstance(b.shape[0], int) and a.shape[0] != b.shape[0]:
        raise ShapeError(f"the batch sizes differ, {a.shape[0]} and {b.shape[0]}")

    rest_a = [i for i in range(1, len(a.shape)) if i != p]
    rest_b = [i for i in range(1, len(b.shape)) if i != q]
    sizes_a = [a.shape[i] for i in rest_a]
    sizes_b = [b.shape[i] for i in rest_b]

    left = reshaped(_permuted(a, (0, *rest_a, p)), (a.shape[0], dims.product(sizes_a), a.shape[p]))
    right = reshaped(_permuted(b, (0, q, *rest_b)), (b.shape[0], b.shape[q], dims.product(sizes_b)))
    product = matmul(left, right)
    return Tensor(reshaped(product, (product.shape[0], *(sizes_a + sizes_b or [1]))))


@public("K.transpose")
def transpose(x: Any) -> Tensor:
    """The axes in reverse order."""
    node = as_node(x)
    return Tensor(_permuted(node, tuple(reversed(range(len(node.shape))))))


@public("K.permute_dimensions")
def permute_dimensions(x: Any, pattern: Sequence[int]) -> Tensor:
    """The axes in the order of `pattern`.  Raises ArgumentError if it does not name each axis once."""
    node = as_node(x)
    perm = tuple(one_axis(p, len(node.shape)) for p in pattern)
    if sorted(perm) != list(range(len(node.shape))):
        raise ArgumentError(f"the pattern {tuple(pattern)} must name each axis of a rank {len(node.shape)} tensor once")
    return Tensor(_permuted(node, perm))


@public("K.gather")
def gather(reference: Any, indices: Any) -> Tensor:
    """The rows of `reference` at integer indices.

    Returns: a tensor of shape (*indices.shape, *reference.shape[1:]).
    Raises: ShapeError if the reference is a scalar, DTypeError for indices that are no integers.  A call in which an
        index is negative or too large raises IndexRangeError and leaves every variable as it was.
    """
    rows, places = as_node(reference), as_node(indices)
    if not rows.shape:
        raise ShapeError("a scalar has no rows")
    if not places.dtype.is_integer:
        raise DTypeError(f"indices are integers, not {places.dtype.name}\nK.cast(indices, 'int32') makes them so")
    if places.dtype not in (i32, i64):
        places = cast_node(places, i32)
    return Tensor(ops.gather(rows, places, axis=0))


def _batch_axes(axes: Any, x_rank: int, y_rank: int) -> tuple[int, int]:
    """The axes that batch_dot sums over, non-negative."""
    if axes is None:
        axes = (x_rank - 1, y_rank - 1 if y_rank == 2 else y_rank - 2)
    elif isinstance(axes, int):
        axes = (axes, axes)
    if len(axes) != 2 or any(isinstance(a, list | tuple) for a in axes):
        raise ArgumentError(f"axes is None, an int or two ints, not {axes!r}: one axis of each operand is summed over")
    p, q = one_axis(axes[0], x_rank), one_axis(axes[1], y_rank)
    if p == 0 or q == 0:
        raise ArgumentError("axis 0 counts the samples and cannot be summed over"
                            "\nwithout samples, add an axis to both: K.expand_dims(x, 0)")
    return p, q


def _check_inner(a: Size, b: Size, advice: str) -> None:
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise ShapeError(f"the inner sizes differ, {a} and {b}\n{advice}")


def _dot_advice(a: Node, b: Node) -> str:
    """What to try where the inner sizes of a dot differ."""
    rule = "x's last size must equal y's last but one."
    if len(b.shape) == 2 and b.shape[-1] == a.shape[-1]:
        return f"{rule} Did you mean K.dot(x, K.transpose(y))?"
    if len(a.shape) == 2 and a.shape[-2] == b.shape[-2]:
        return f"{rule} Did you mean K.dot(K.transpose(x), y)?"
    return rule


def _permuted(x: Node, perm: tuple[int, ...]) -> Node:
    """x with its axes in another order."""
    if perm == tuple(range(len(perm))):
        return x
    node: Node = ops.transpose(x, perm=perm)
    return node
