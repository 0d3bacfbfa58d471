# mypy: no-warn-return-any
"""Activations and losses: each in terms of other operations, with a gradient in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.errors import ShapeError
from tensorc.ir.node import Node
from tensorc.ir.types import TensorType
from tensorc.ops.control import stop_gradient
from tensorc.ops.define import defop
from tensorc.ops.elementwise import abs as absolute
from tensorc.ops.elementwise import exp, floats, gt, log, log1p, maximum, minimum, numbers, select, sigmoid, zero
from tensorc.ops.infer import agree, elementwise, reduced, same_dtype, show_shape
from tensorc.ops.reduce import dropped, kept, sum
from tensorc.ops.reduce import max as largest
from tensorc.ops.sample import binary, sample, unary
from tensorc.ops.shape import checked_axis

Array = NDArray[Any]

relu = defop(
    "relu",
    doc="max(x, 0); its gradient at 0 is 0.",
    infer=numbers,
    params=("x",),
    reference=lambda x: np.maximum(x, x.dtype.type(0)),
    gradient=lambda node, g: [select(gt(node.x, 0), g, zero(g))],
    expand=lambda node: maximum(node.x, 0),
    samples=unary("f64", "f16", "i32"),
)


# Exponentials that share a sum.

def _along(x: TensorType, *, axis: int) -> TensorType:
    checked_axis(axis, x.rank)
    return floats(x)


_ROWS = [sample("f32[3,4]", axis=1), sample("f32[3,4]", axis=0), sample("f64[2,3,2]", axis=1), sample("f16[5]", axis=0),
         sample("f32[2,1]", axis=1), sample("f32[0,3]", axis=1)]


def _top(x: Array, axis: int | tuple[int, ...]) -> Array:
    return np.asarray(np.max(x, axis=axis, keepdims=True, initial=-np.inf))


def _softmax(x: Array, *, axis: int) -> Array:
    e = np.exp(x - _top(x, axis))
    return np.asarray(e / np.sum(e, axis=axis, keepdims=True))


def _softmax_expansion(node: Any) -> Node:
    x, axes = node.x, (node.axis,)
    e = exp(x - largest(x, axes=axes, keepdims=True))
    return e * (1 / sum(e, axes=axes, keepdims=True))      # one division a row; the sum is 1 at least, or NaN


softmax = defop(
    "softmax",
    doc="exp x over its sum along an axis, without overflow.",
    infer=_along,
    reference=_softmax,
    gradient=lambda node, g: [(g - sum(g * node, axes=(node.axis,), keepdims=True)) * node],
    expand=_softmax_expansion,
    samples=_ROWS,
)


def _log_softmax(x: Array, *, axis: int) -> Array:
    away = x - _top(x, axis)
    return np.asarray(away - np.log(np.sum(np.exp(away), axis=axis, keepdims=True)))


def _log_softmax_expansion(node: Any) -> Node:
    x, axes = node.x, (node.axis,)
    away = x - largest(x, axes=axes, keepdims=True)
    return away - log(sum(exp(away), axes=axes, keepdims=True))


log_softmax = defop(
    "log_softmax",
    doc="The logarithm of softmax, without overflow or underflow.",
    infer=_along,
    reference=_log_softmax,
    gradient=lambda node, g: [g - exp(node) * sum(g, axes=(node.axis,), keepdims=True)],
    expand=_log_softmax_expansion,
    samples=_ROWS,
)


def _logsumexp_type(x: TensorType, *, axes: tuple[int, ...], keepdims: bool) -> TensorType:
    return reduced(floats(x), axes=axes, keepdims=keepdims)


def _logsumexp(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
    top = _top(x, axes)
    finite = np.where(np.isfinite(top), top, 0).astype(x.dtype)
    total = np.log(np.sum(np.exp(x - finite), axis=axes, keepdims=True)) + finite
    return np.asarray(total if keepdims else np.squeeze(total, axes))


def _exponentials(x: Node, axes: tuple[int, ...]) -> tuple[Node, Node, Node]:
    """exp(x − m), its sum along axes, and m = max x, all with axes kept and m constant to differentiation.

    Both x and m are brought between the largest finite numbers before they are subtracted: then where m = +inf the
    exponentials are 1 for every +inf and 0 for the others, and where m = −inf all are 0.
    """
    bound = float(x.dtype.finfo.max)
    top = stop_gradient(largest(x, axes=axes, keepdims=True))
    e = exp(minimum(x, bound) - minimum(maximum(top, -bound), bound))
    return e, sum(e, axes=axes, keepdims=True), top


def _logsumexp_expansion(node: Any) -> Node:
    _, total, top = _exponentials(node.x, node.axes)
    return dropped(log(total) + top, node.axes, node.keepdims)


def _logsumexp_gradient(node: Any, g: Any) -> list[Node | None]:
    """exp x over its sum: 1 at least if an element is finite or +inf; of −inf alone it is 0, and so is the gradient."""
    e, total, _ = _exponentials(node.x, node.axes)
    return [e * (kept(g, node.x, node.axes) / maximum(total, 1))]


logsumexp = defop(
    "logsumexp",
    doc="log Σ exp x over axes, without overflow: −inf where all are −inf, +inf where one is +inf.",
    infer=_logsumexp_type,
    reference=_logsumexp,
    gradient=_logsumexp_gradient,
    expand=_logsumexp_expansion,
    samples=[sample("f32[3,4]", axes=(1,), keepdims=False), sample("f32[3,4]", axes=(0,), keepdims=True),
             sample("f64[2,3,2]", axes=(0, 2), keepdims=False), sample("f16[5]", axes=(0,), keepdims=False),
             sample("f32[2,1]", axes=(1,), keepdims=False), sample("f32[0,3]", axes=(0,), keepdims=False),
             sample("f32[2,3]", axes=(), keepdims=False)],
)


# Losses.

def _cross_entropy_type(target: TensorType, logits: TensorType, *, axis: int) -> TensorType:
    what = f"targets and logits differ: {show_shape(target.shape)} and {show_shape(logits.shape)}"
    if target.rank != logits.rank:
        raise ShapeError(what)
    shape = [agree(a, b, what) for a, b in zip(target.shape, logits.shape, strict=True)]
    checked_axis(axis, len(shape))
    return reduced(floats(TensorType(same_dtype(target, logits), tuple(shape))), axes=(axis,), keepdims=False)


def _softmax_cross_entropy_gradient(node: Any, g: Any) -> list[Node | None]:
    # In the logits it is softmax − target, as in TensorFlow: the derivative for targets that sum to 1.
    above = kept(g, node.logits, (node.axis,))
    return [-(above * log_softmax(node.logits, axis=node.axis)),
            above * (softmax(node.logits, axis=node.axis) - node.target)]


def _softmax_cross_entropy_expansion(node: Any) -> Node:
    return -sum(node.target * log_softmax(node.logits, axis=node.axis), axes=(node.axis,), keepdims=False)


softmax_cross_entropy = defop(
    "softmax_cross_entropy",
    doc="−Σ target · log softmax(logits) along an axis.  The gradient takes the targets to sum to 1.",
    infer=_cross_entropy_type,
    reference=lambda target, logits, *, axis: -np.sum(target * _log_softmax(logits, axis=axis), axis=axis),
    gradient=_softmax_cross_entropy_gradient,
    expand=_softmax_cross_entropy_expansion,
    samples=[sample("f32[3,4]", "f32[3,4]", axis=1), sample("f64[2,3,2]", "f64[2,3,2]", axis=1),
             sample("f16[3]", "f16[3]", axis=0), sample("f32[0,3]", "f32[0,3]", axis=1)],
)


def _sigmoid_cross_entropy(target: Array, logits: Array) -> Array:
    positive = np.maximum(logits, logits.dtype.type(0))
    return np.asarray(positive - logits * target + np.log1p(np.exp(-np.abs(logits))))


def _sigmoid_cross_entropy_expansion(node: Any) -> Node:
    x = node.logits
    return maximum(x, 0) - x * node.target + log1p(exp(-absolute(x)))


sigmoid_cross_entropy = defop(
    "sigmoid_cross_entropy",
    doc="−(target · log σ(logits) + (1 − target) · log(1 − σ(logits))), without overflow.",
    infer=lambda target, logits: floats(elementwise(target, logits)),
    reference=_sigmoid_cross_entropy,
    gradient=lambda node, g: [-(g * node.logits), g * (sigmoid(node.logits) - node.target)],
    expand=_sigmoid_cross_entropy_expansion,
    samples=binary("f64", "f16"),
)
