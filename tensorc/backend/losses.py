"""The three cross-entropies."""

from __future__ import annotations

from typing import Any

from tensorc import ops
from tensorc.backend.config import epsilon
from tensorc.backend.convert import as_node, promoted
from tensorc.backend.indexing import index
from tensorc.backend.math import clipped
from tensorc.backend.provenance import public
from tensorc.backend.reduce import one_axis
from tensorc.backend.shapes import one_hot_node
from tensorc.backend.tensor import Tensor
from tensorc.errors import ShapeError
from tensorc.ir.node import Node


@public("K.categorical_crossentropy")
def categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Tensor:
    """-Σ target · log(output) along the class axis.

    Args:
        target: probabilities of the classes, of the shape of output.
        output: probabilities, which are divided by their sum and cut to [ε, 1 - ε]; logits if `from_logits`.
            If it is directly a softmax along this axis, its logits are used instead.
    """
    t, p = promoted((target, output))
    if len(t.shape) != len(p.shape):
        raise ShapeError(f"target has {len(t.shape)} axes, output {len(p.shape)}")
    at = one_axis(axis, len(p.shape))
    logits = p if from_logits else _logits_of_softmax(p, at)
    if logits is not None:
        return Tensor(ops.softmax_cross_entropy(t, logits, axis=at))

    normed = p / ops.sum(p, axes=(at,), keepdims=True)
    loss = ops.sum(t * ops.log(_cut(normed)), axes=(at,), keepdims=False)
    return Tensor(ops.neg(loss))


@public("K.sparse_categorical_crossentropy")
def sparse_categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Tensor:
    """-log(output) at the target's class.

    Args:
        target: class ids, without the class axis or with a trailing axis of size 1.
        output: probabilities, which are cut to [ε, 1 - ε] and then divided by their sum; logits if
            `from_logits`.  If it is directly a softmax along this axis, its logits are used instead.
    """
    ids, p = as_node(target), as_node(output)
    rank = len(p.shape)
    at = one_axis(axis, rank)
    if len(ids.shape) == rank:
        ids = index(ids, (..., 0))
    if len(ids.shape) != rank - 1:
        raise ShapeError(f"target has {len(ids.shape)} axes, not {rank - 1} or {rank}")

    logits = p if from_logits else _logits_of_softmax(p, at)
    if logits is None:
        logits = ops.log(_cut(p))
    if at != rank - 1:
        logits = ops.transpose(logits, perm=(*(i for i in range(rank) if i != at), at))
    hot = one_hot_node(ids, logits.shape[-1], logits.dtype)
    return Tensor(ops.softmax_cross_entropy(hot, logits, axis=rank - 1))


@public("K.binary_crossentropy")
def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Tensor:
    """-(target · log(output) + (1 - target) · log(1 - output)), for each element.

    Args:
        output: probabilities, which are cut to [ε, 1 - ε]; logits if `from_logits`.  If it is directly a
            sigmoid, its logits are used instead.
    """
    t, p = promoted((target, output))
    logits = p if from_logits else p.x if p.op.name == "sigmoid" else None
    if logits is not None:
        return Tensor(ops.sigmoid_cross_entropy(t, logits))

    q = _cut(p)
    one = as_node(1, q.dtype)
    return Tensor(ops.neg(t * ops.log(q) + (one - t) * ops.log(one - q)))


def _logits_of_softmax(p: Node, axis: int) -> Node | None:
    """The logits of which p is the softmax along an axis, if it is one."""
    if p.op.name != "softmax" or p.axis != axis:
        return None
    logits: Node = p.x
    return logits


def _cut(p: Node) -> Node:
    """Probabilities kept away from 0 and 1 by the fuzz factor."""
    return clipped(p, epsilon(), 1.0 - epsilon())
