"""Activations, normalisation, dropout and the like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorc import ops
from tensorc.backend.config import normalize_data_format
from tensorc.backend.convert import as_node, cast_node
from tensorc.backend.handle import Handle
from tensorc.backend.leaves import random_key
from tensorc.backend.math import clipped
from tensorc.backend.provenance import public
from tensorc.backend.random import uniform_node
from tensorc.backend.reduce import one_axis, some_axes
from tensorc.backend.shapes import one_hot_node, reshaped
from tensorc.backend.sizes import as_size
from tensorc.backend.tensor import Tensor
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ir.types import i32


@public("K.relu")
def relu(x: Any, alpha: Any = 0.0, max_value: Any = None, threshold: Any = 0.0) -> Tensor:
    """x above the threshold, cut at max_value; alpha · (x - threshold) below it.  The gradient at 0 is 0."""
    node = as_node(x)
    shifted = not _is_zero(threshold)
    if shifted:
        edge = as_node(threshold, node.dtype)
        result = node * cast_node(ops.gt(node, edge), node.dtype)
    else:
        result = ops.relu(node)

    if max_value is not None:
        result = ops.clip(result, as_node(0.0, node.dtype), as_node(max_value, node.dtype))
    if not _is_zero(alpha):
        below = ops.relu(edge - node if shifted else ops.neg(node))
        result = result - as_node(alpha, node.dtype) * below
    return Tensor(result)


@public("K.elu")
def elu(x: Any, alpha: Any = 1.0) -> Tensor:
    """x where positive, alpha · (exp x - 1) elsewhere."""
    node = as_node(x)
    zero = as_node(0, node.dtype)
    below = as_node(alpha, node.dtype) * ops.expm1(ops.minimum(node, zero))
    return Tensor(ops.select(ops.gt(node, zero), node, below))


@public("K.softmax")
def softmax(x: Any, axis: int = -1) -> Tensor:
    """exp x / Σ exp x along an axis."""
    node = as_node(x)
    return Tensor(ops.softmax(node, axis=one_axis(axis, len(node.shape))))


@public("K.softplus")
def softplus(x: Any) -> Tensor:
    """log(1 + exp x), without overflow."""
    return Tensor(ops.softplus(as_node(x)))


@public("K.softsign")
def softsign(x: Any) -> Tensor:
    """x / (1 + |x|)."""
    node = as_node(x)
    return Tensor(node / (ops.abs(node) + as_node(1, node.dtype)))


@public("K.sigmoid")
def sigmoid(x: Any) -> Tensor:
    """1 / (1 + exp(-x))."""
    return Tensor(ops.sigmoid(as_node(x)))


@public("K.hard_sigmoid")
def hard_sigmoid(x: Any) -> Tensor:
    """0.2·x + 0.5, cut to [0, 1]."""
    node = as_node(x)
    return Tensor(clipped(node * as_node(0.2, node.dtype) + as_node(0.5, node.dtype), 0.0, 1.0))


@public("K.dropout")
def dropout(x: Any, level: Any, noise_shape: Any = None, seed: int | None = None) -> Tensor:
    """A fraction `level` of the elements set to 0, the others divided by 1 - level.

    Args:
        level: in [0, 1), or a scalar tensor of such a value.
        noise_shape: the shape in which elements are dropped together, broadcast to x; None is x's own size.
            An int here is the seed, as in older signatures.
        seed: drawn from NumPy's global generator for None.

    Raises: ArgumentError for a level outside [0, 1).
    """
    if isinstance(noise_shape, int) and seed is None:
        noise_shape, seed = None, noise_shape
    node = as_node(x)
    if not isinstance(level, Handle) and not 0.0 <= level < 1.0:
        raise ArgumentError(f"the level is a fraction in [0, 1), not {level}")

    shape = node.shape if noise_shape is None else _noise_shape(noise_shape, node)
    wide = node.dtype.wide
    noise, fraction = uniform_node(random_key(seed), shape, wide), as_node(level, wide)
    kept = cast_node(cast_node(node, wide) / (as_node(1, wide) - fraction), node.dtype)
    return Tensor(ops.select(ops.ge(noise, fraction), kept, as_node(0, node.dtype)))


@public("K.batch_normalization")
def batch_normalization(x: Any, mean: Any, var: Any, beta: Any, gamma: Any, axis: Any = -1,
                        epsilon: float = 1e-3) -> Tensor:
    """x normalised with given statistics: (x - mean) / sqrt(var + epsilon) · gamma + beta.

    Args:
        mean, var, beta, gamma: tensors that broadcast to x, or vectors along `axis`; beta and gamma may be None.
        axis: the axis of the statistics.  A float here is epsilon, as in older signatures.

    Source: Ioffe & Szegedy 2015, equation for inference; argument order of Keras 2.3.1.
    """
    if isinstance(axis, float):
        axis, epsilon = -1, axis
    node = as_node(x)
    at = one_axis(axis, len(node.shape))
    mean_, var_, beta_, gamma_ = (None if s is None else _along(as_node(s, node.dtype), at, node)
                                  for s in (mean, var, beta, gamma))
    return Tensor(_normalised(node, mean_, var_, beta_, gamma_, epsilon))


@public("K.normalize_batch_in_training")
def normalize_batch_in_training(x: Any, gamma: Any, beta: Any, reduction_axes: Sequence[int],
                                epsilon: float = 1e-3) -> tuple[Tensor, Tensor, Tensor]:
    """(x normalised by its own mean and variance, the mean, the population variance) over the axes.

    Args:
        gamma, beta: tensors of the shape that is left, or None.
    """
    node = as_node(x)
    axes = some_axes(reduction_axes, len(node.shape))
    mean = ops.mean(node, axes=axes, keepdims=False)
    variance = ops.variance(node, axes=axes, keepdims=False)

    wide = tuple(1 if i in axes else s for i, s in enumerate(node.shape))
    gamma_, beta_ = (None if s is None else reshaped(as_node(s, node.dtype), wide) for s in (gamma, beta))
    normed = _normalised(node, reshaped(mean, wide), reshaped(variance, wide), beta_, gamma_, epsilon)
    return Tensor(normed), Tensor(mean), Tensor(variance)


@public("K.bias_add", old={"dim_ordering": "data_format"})
def bias_add(x: Any, bias: Any, data_format: str | None = None) -> Tensor:
    """x + bias.

    Args:
        bias: one number a channel, or a tensor of one axis less than x, channels last; for channels first its
            elements are taken on in their order, as Keras does.
        data_format: where x has its channels; the default order for None.

    Raises: ShapeError for a bias of another rank.
    """
    node = as_node(x)
    order = normalize_data_format(data_format)
    term = as_node(bias, node.dtype)
    rank = len(node.shape)
    if len(term.shape) not in (1, rank - 1):
        raise ShapeError(f"the bias has {len(term.shape)} axes, not 1 or {rank - 1}")

    first = order == "channels_first" and rank > 2
    if len(term.shape) == 1:
        channels = 1 if first else rank - 1
        return Tensor(node + _along(term, channels, node))
    sizes = (term.shape[-1], *term.shape[:-1]) if first else term.shape
    return Tensor(node + reshaped(term, (1, *sizes)))


@public("K.in_top_k")
def in_top_k(predictions: Any, targets: Any, k: int) -> Tensor:
    """For each sample whether fewer than k classes are predicted strictly above the target's; a bool."""
    scores, classes = as_node(predictions), as_node(targets)
    hit = one_hot_node(classes, scores.shape[-1], scores.dtype)
    chosen = ops.select(ops.gt(hit, as_node(0, hit.dtype)), scores, as_node(0, scores.dtype))
    target = ops.sum(chosen, axes=(1,), keepdims=True)
    above = ops.sum(cast_node(ops.gt(scores, target), i32), axes=(1,), keepdims=False)
    return Tensor(ops.lt(above, as_node(k, i32)))


def _normalised(x: Node, mean: Any, variance: Any, beta: Any, gamma: Any, epsilon: float) -> Node:
    scale = ops.rsqrt(variance + as_node(epsilon, x.dtype))
    if gamma is not None:
        scale = scale * gamma
    result: Node = (x - mean) * scale
    return result if beta is None else result + beta


def _along(statistic: Node, axis: int, x: Node) -> Node:
    """A vector laid along an axis of x; anything else as it is."""
    if len(statistic.shape) != 1 or axis == len(x.shape) - 1:
        return statistic
    return reshaped(statistic, tuple(statistic.shape[0] if i == axis else 1 for i in range(len(x.shape))))


def _noise_shape(shape: Any, x: Node) -> tuple[Size, ...]:
    if isinstance(shape, Tensor):
        shape = list(shape)
    if len(shape) != len(x.shape):
        raise ShapeError(f"the noise shape has {len(shape)} axes, x has {len(x.shape)}")
    return tuple(n if s is None else as_size(s) for s, n in zip(shape, x.shape, strict=True))


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float | np.generic | np.ndarray) and not np.any(value)
