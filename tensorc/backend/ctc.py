"""Connectionist temporal classification: its loss, and its labels as a sparse tensor.  The last class is the blank."""

from __future__ import annotations

from typing import Any

from tensorc import ops
from tensorc.backend.config import epsilon
from tensorc.backend.convert import as_node, cast_node
from tensorc.backend.math import as_float
from tensorc.backend.provenance import public
from tensorc.backend.shapes import reshaped
from tensorc.backend.sizes import size_node
from tensorc.backend.sparse import Csr, SparseTensor
from tensorc.backend.tensor import Tensor
from tensorc.errors import ShapeError
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ir.types import f16, f32, i32
from tensorc.ops.infer import agree, show_shape


@public("K.ctc_batch_cost")
def ctc_batch_cost(y_true: Any, y_pred: Any, input_length: Any, label_length: Any) -> Tensor:
    """Minus the logarithm of the probability of a label sequence, summed over all its alignments.

    Args:
        y_true: labels (batch, n), whole numbers below classes - 1; those beyond a label length do not count.
        y_pred: probabilities (batch, steps, classes), the last class being the blank.  ε is added to them, and
            each step is normalised.
        input_length, label_length: how many steps, and how many labels, count: (batch, 1).  A label length of 0
            stands for no label at all.

    Returns: (batch, 1), in the dtype of y_pred; inf, with gradient 0, where the steps are too few for the labels.
    Raises: ShapeError for shapes that do not fit.  A call raises IndexRangeError for a length or a label outside.
    Source: Graves et al., Connectionist Temporal Classification, ICML 2006.
    """
    labels, p = cast_node(as_node(y_true), i32), as_float(y_pred)
    _check_ranks(labels, p)
    batch = p.shape[0]
    steps, count = _lengths(input_length, batch, "input_length"), _lengths(label_length, batch, "label_length")
    agree(batch, labels.shape[0], f"y_pred is of {batch} sequences, y_true of {labels.shape[0]}")
    wide = cast_node(p, f32) if p.dtype is f16 else p
    raised = _raised(wide)
    whole = ops.sum(raised, axes=(2,), keepdims=True)
    loss = ops.ctc_loss(ops.log(raised) - ops.log(whole), labels, steps, count)
    return Tensor(cast_node(reshaped(loss, (batch, 1)), p.dtype))


@public("K.ctc_label_dense_to_sparse")
def ctc_label_dense_to_sparse(labels: Any, label_lengths: Any) -> SparseTensor:
    """Labels as a sparse tensor of the same shape, in which those beyond a label length are left out.

    Args:
        labels: (batch, n).
        label_lengths: how many count: (batch,) or (batch, 1).

    Raises: ShapeError for shapes that do not fit.
    """
    node = as_node(labels)
    if len(node.shape) != 2:
        raise ShapeError(f"labels are (batch, n), not {show_shape(node.shape)}")
    batch, n = node.shape
    lengths = _lengths(label_lengths, batch, "label_lengths")
    at = ops.iota(shape=(batch, n), axis=1, dtype=i32)
    counts = ops.lt(at, reshaped(lengths, (batch, 1)))
    kept = ops.select(counts, node, as_node(0, node.dtype))
    starts = ops.iota(shape=(batch + 1,), axis=0, dtype=i32) * size_node(n)
    return SparseTensor(Csr(reshaped(kept, (batch * n,)), reshaped(at, (batch * n,)), starts, n))


def _check_ranks(labels: Node, p: Node) -> None:
    if len(labels.shape) != 2:
        raise ShapeError(f"y_true is (batch, labels), not {show_shape(labels.shape)}")
    _check_probabilities(p)


def _check_probabilities(p: Node) -> None:
    if len(p.shape) != 3:
        raise ShapeError(f"y_pred is (batch, steps, classes), not {show_shape(p.shape)}")
    if p.shape[2] == 0:
        raise ShapeError("y_pred has no classes; the last one is the blank")


def _lengths(lengths: Any, batch: Size, name: str) -> Node:
    """Lengths (batch,) or (batch, 1) as an int32 vector."""
    node = cast_node(as_node(lengths), i32)
    shape = node.shape
    if len(shape) not in (1, 2) or isinstance(shape[-1], int) and len(shape) == 2 and shape[-1] != 1:
        raise ShapeError(f"{name} is (batch, 1), not {show_shape(shape)}")
    agree(batch, shape[0], f"y_pred is of {batch} sequences, {name} of {shape[0]}")
    return reshaped(node, (shape[0],))


def _raised(p: Node) -> Node:
    """Probabilities raised by the fuzz factor."""
    raised: Node = p + as_node(epsilon(), p.dtype)
    return raised
