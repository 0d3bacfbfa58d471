"""For every K function that gives a tensor: examples, each with its meaning in NumPy.

An operand is a kind and a shape.  Kinds: x any floats, p positive ones, q probabilities, i class numbers, s whole
numbers of both signs, b truth values.  In a shape letters are sizes that tests choose, and that the compiler may not
know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import special

from tensorc import backend as K

EPSILON = 1e-7


@dataclass(frozen=True)
class Example:
    """An expression over K and its meaning, over operands such as "x n m".

    Attributes:
        smooth: whether it has a gradient in its float operands.
        total: whether NaN and infinities mean the same in NumPy's spelling.
    """

    build: Callable[..., Any]
    meaning: Callable[..., Any]
    operands: tuple[str, ...]
    smooth: bool = True
    total: bool = True


def of(*operands: str, smooth: bool = True, total: bool = True) -> Callable[..., Example]:
    def example(build: Callable[..., Any], meaning: Callable[..., Any]) -> Example:
        return Example(build, meaning, operands, smooth, total)

    return example


def steps(*operands: str) -> Callable[..., Example]:
    """Examples that are constant but for jumps, or whole numbers."""
    return of(*operands, smooth=False)


# What NumPy has no word for.


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf))
    return e / e.sum(axis, keepdims=True)


def normalised(x, mean, var, beta, gamma, epsilon):
    return (x - mean) / np.sqrt(var + x.dtype.type(epsilon)) * gamma + beta


def crossentropy(target, output):
    p = np.clip(output / output.sum(-1, keepdims=True), EPSILON, 1 - EPSILON)
    return -(target * np.log(p)).sum(-1)


def binary_crossentropy(target, output):
    p = np.clip(output, output.dtype.type(EPSILON), output.dtype.type(1 - EPSILON))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def whole_mean(x):
    """Over the first axis, rounded towards zero; 0 of none."""
    total = x.sum(0)
    return (np.sign(total) * (abs(total) // max(len(x), 1))).astype(x.dtype)


def one_hot(i, n):
    return (i[..., None] == np.arange(n)).astype("float32")


def clipped(x, low, high):
    return np.minimum(np.maximum(x, low), high)


def bilinear(x, factor, axis):
    """The value at i / factor between the two neighbours."""
    place = np.arange(x.shape[axis] * factor) / factor
    low = place.astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    weight = (place - low).astype(x.dtype).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return x.take(low, axis) + (x.take(high, axis) - x.take(low, axis)) * weight


def windows(x, window, strides, dilation=None):
    """The elements in each window over the spatial axes, [b, *p, c, *window]."""
    rank = len(window)
    dilation = dilation or (1,) * rank
    reach = [d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True)]
    every = sliding_window_view(x, reach, tuple(range(1, 1 + rank)))
    inside = tuple(slice(None, None, s) for s in strides), tuple(slice(None, None, d) for d in dilation)
    return every[(slice(None), *inside[0], slice(None), *inside[1])]


def conv(x, w, strides, dilation=None):
    """Cross-correlation, padding valid, channels last."""
    found = windows(x, w.shape[:-2], strides, dilation)
    rank = w.ndim - 2
    apart = np.moveaxis(found, rank + 1, -1)
    return np.tensordot(apart, w, rank + 1).astype(x.dtype)


def conv_padded(x, pairs, w, strides, dilation=None):
    """As conv, of x with so many places more on each side; what lies outside adds nothing, whatever its weight."""
    ends = ((0, 0), *pairs, (0, 0))
    window = w.shape[:-2]
    found = windows(np.pad(x, ends), window, strides, dilation)
    inside = windows(np.pad(np.ones((1, *x.shape[1:-1], 1), bool), ends), window, strides, dilation)
    total = np.zeros((*found.shape[: 1 + len(window)], w.shape[-1]), x.dtype)
    for tap in np.ndindex(*window):
        total += np.where(inside[(..., *tap)], np.tensordot(found[(..., *tap)], w[tap], 1), 0)
    return total


def depthwise(x, w, strides):
    found = windows(x, w.shape[:-2], strides)
    each = np.einsum("bpqcij,ijcm->bpqcm", found, w)
    return each.reshape(*each.shape[:-2], -1)


def conv_transpose(x, w, strides, shape):
    """What conv's gradient in its input is: every element of x times the kernel, laid out in strides and added up."""
    *window, out, _ = w.shape
    total = np.zeros((x.shape[0], *shape, out), x.dtype)
    for place in np.ndindex(*x.shape[1:-1]):
        at = tuple(slice(p * s, p * s + k) for p, s, k in zip(place, strides, window, strict=True))
        total[(slice(None), *at)] += np.tensordot(x[(slice(None), *place)], w, (1, w.ndim - 1))
    return total


def padded(x, *pairs):
    return np.pad(x, pairs)


def local(x, w, window, strides):
    """Each window with a kernel of its own, whose rows count places before channels."""
    found = np.moveaxis(windows(x, window, strides), 1 + len(window), -1)
    shape = found.shape[: 1 + len(window)]
    rows = found.reshape(shape[0], int(np.prod(shape[1:])), -1)
    return np.einsum("bpk,pko->bpo", rows, w).reshape(*shape, w.shape[-1])


first = "channels_first"
last = "channels_last"

ELEMENTWISE = {
    "square": [of("x n m")(K.square, np.square), steps("s n")(K.square, np.square)],
    "abs": [of("x n m")(K.abs, np.abs), steps("s n")(K.abs, np.abs)],
    "sqrt": [of("x n m")(K.sqrt, lambda x: np.sqrt(np.maximum(x, 0))), of("p n")(K.sqrt, np.sqrt)],
    "exp": [of("x n m")(K.exp, np.exp)],
    "log": [of("p n m")(K.log, np.log)],
    "round": [steps("x n m")(lambda x: K.round(x * 3), lambda x: np.rint(x * 3)), steps("s n")(K.round, lambda s: s)],
    "sign": [steps("x n m")(K.sign, np.sign), steps("s n")(K.sign, np.sign)],
    "pow": [
        of("x n m")(lambda x: K.pow(x, 3), lambda x: x**3),
        of("p n", "x n")(K.pow, np.power),
        of("p n")(lambda p: K.pow(p, -0.5), lambda p: p**-0.5),
        steps("s n")(lambda s: K.pow(s, 2), np.square),
    ],
    "clip": [
        of("x n m")(lambda x: K.clip(x, -0.5, 0.7), lambda x: clipped(x, -0.5, 0.7)),
        of("x n m", "x m")(lambda x, y: K.clip(x, y, None), np.maximum),
        of("x n m", "x n m", "p m")(lambda x, y, p: K.clip(x, y, y + p), lambda x, y, p: clipped(x, y, y + p)),
        steps("s n")(lambda s: K.clip(s, None, 2), lambda s: np.minimum(s, 2)),
    ],
    "equal": [steps("x n m", "x n m")(K.equal, np.equal), steps("s n")(lambda s: K.equal(s, 2), lambda s: s == 2)],
    "not_equal": [steps("x n m", "x m")(K.not_equal, np.not_equal)],
    "greater": [steps("x n m", "x m")(K.greater, np.greater)],
    "greater_equal": [steps("x n m", "x n 1")(K.greater_equal, np.greater_equal)],
    "less": [steps("x n m", "x n m")(K.less, np.less)],
    "less_equal": [steps("s n", "s n")(K.less_equal, np.less_equal)],
    "lesser": [steps("x n")(lambda x: K.lesser(x, 0.5), lambda x: x < 0.5)],
    "lesser_equal": [steps("x n")(lambda x: K.lesser_equal(x, 0.5), lambda x: x <= 0.5)],
    "maximum": [of("x n m", "x m")(K.maximum, np.maximum), steps("s n", "s n")(K.maximum, np.maximum)],
    "minimum": [
        of("x n m", "x n 1")(K.minimum, np.minimum),
        of("x n")(lambda x: K.minimum(x, 0.3), lambda x: np.minimum(x, x.dtype.type(0.3))),
    ],
    "sin": [of("x n m")(K.sin, np.sin)],
    "cos": [of("x n m")(K.cos, np.cos)],
    "cast": [
        steps("x n m")(lambda x: K.cast(x, "float16"), lambda x: x.astype("float16")),
        steps("x n m")(lambda x: K.cast(x, "bfloat16"), lambda x: x.astype("bfloat16")),
        of("x n m")(lambda x: K.cast(x, K.floatx()), lambda x: x),
        steps("s n m")(lambda s: K.cast(s, "float64"), lambda s: s.astype("float64")),
        steps("b n")(lambda b: K.cast(b, "int8"), lambda b: b.astype("int8")),
        steps("x n")(lambda x: K.cast(x, "bool"), lambda x: x.astype("bool")),
    ],
    "relu": [
        of("x n m")(K.relu, lambda x: np.maximum(x, 0)),
        of("x n m")(lambda x: K.relu(x, 0.2, max_value=0.8), lambda x: np.where(x > 0, np.minimum(x, 0.8), 0.2 * x)),
        of("x n", total=False)(
            lambda x: K.relu(x, 0.2, threshold=0.3), lambda x: np.where(x > 0.3, x, 0.2 * (x - 0.3))
        ),
    ],
    "elu": [of("x n m")(lambda x: K.elu(x, 1.3), lambda x: np.where(x > 0, x, 1.3 * np.expm1(np.minimum(x, 0))))],
    "softplus": [of("x n m")(K.softplus, lambda x: np.logaddexp(x, x.dtype.type(0)))],
    "softsign": [of("x n m")(K.softsign, lambda x: x / (1 + abs(x)))],
    "sigmoid": [of("x n m")(K.sigmoid, special.expit)],
    "hard_sigmoid": [of("x n m")(K.hard_sigmoid, lambda x: clipped(0.2 * x + 0.5, 0, 1))],
    "tanh": [of("x n m")(K.tanh, np.tanh)],
}

REDUCTIONS = {
    "max": [
        of("x n m")(K.max, lambda x: x.max(initial=-np.inf)),
        of("x n m k")(lambda x: K.max(x, [0, -1], True), lambda x: x.max((0, 2), keepdims=True, initial=-np.inf)),
        steps("s n m")(lambda s: K.max(s, 1), lambda s: s.max(1)),
    ],
    "min": [
        of("x n m")(lambda x: K.min(x, 0), lambda x: x.min(0, initial=np.inf)),
        steps("b n m")(lambda b: K.min(b, 1), lambda b: b.min(1, initial=True)),
    ],
    "sum": [
        of("x n m")(K.sum, np.sum),
        of("x n m k")(lambda x: K.sum(x, [1]), lambda x: x.sum(1)),
        of("x n m k")(lambda x: K.sum(x, (0, 2), True), lambda x: x.sum((0, 2), keepdims=True)),
        steps("s n m")(lambda s: K.sum(s, -1), lambda s: s.sum(-1, dtype="int32")),
    ],
    "prod": [of("x n m")(lambda x: K.prod(x, 1), lambda x: x.prod(1)), of("x n m")(K.prod, np.prod)],
    "mean": [
        of("x n m")(K.mean, np.mean),
        of("x n m k")(lambda x: K.mean(x, [0, 2]), lambda x: x.mean((0, 2))),
        steps("s n m")(lambda s: K.mean(s, 0), whole_mean),
        steps("s n m")(
            lambda s: K.mean(K.cast(s * s * 12, "uint8"), 0), lambda s: whole_mean(s * s * 12).astype("uint8")
        ),
    ],
    "var": [of("x n m")(lambda x: K.var(x, -1, True), lambda x: x.var(-1, keepdims=True)), of("x n m")(K.var, np.var)],
    "std": [of("x n m")(lambda x: K.std(x, 0), lambda x: x.std(0))],
    "any": [steps("x n m")(lambda x: K.any(x, 1), lambda x: x.any(1)), steps("b n m")(K.any, np.any)],
    "all": [steps("x n m")(lambda x: K.all(x, 0), lambda x: x.all(0)), steps("b n m")(K.all, np.all)],
    "argmax": [
        steps("x n m")(K.argmax, lambda x: x.argmax(-1)),
        steps("s n m")(lambda s: K.argmax(s, 0), lambda s: s.argmax(0)),
    ],
    "argmin": [steps("x n m")(lambda x: K.argmin(x, 0), lambda x: x.argmin(0))],
    "cumsum": [
        of("x n m")(K.cumsum, lambda x: x.cumsum(0)),
        of("x n m")(lambda x: K.cumsum(x, -1), lambda x: x.cumsum(-1)),
    ],
    "cumprod": [of("x n m")(lambda x: K.cumprod(x, 1), lambda x: x.cumprod(1))],
    "logsumexp": [
        of("x n m")(K.logsumexp, special.logsumexp),
        of("x n m")(lambda x: K.logsumexp(x, 1, True), lambda x: np.logaddexp.reduce(x, 1, keepdims=True)),
    ],
    "l2_normalize": [
        of("x n m", total=False)(
            lambda x: K.l2_normalize(x, 1), lambda x: x / np.sqrt(np.maximum((x**2).sum(1, keepdims=True), 1e-12))
        )
    ],
    "softmax": [of("x n m")(K.softmax, softmax), of("x n m k")(lambda x: K.softmax(x, 1), lambda x: softmax(x, 1))],
}

PRODUCTS = {
    "dot": [
        of("x n m", "x m k")(K.dot, np.matmul),
        of("x n m", "x k m 2")(K.dot, lambda x, y: np.einsum("nm,kmj->nkj", x, y)),
        of("x m", "x m k")(K.dot, np.matmul),
        steps("s n m", "s m k")(K.dot, np.matmul),
    ],
    "batch_dot": [
        of("x n m", "x n m")(K.batch_dot, lambda x, y: (x * y).sum(1, keepdims=True)),
        of("x n 2 m", "x n k m")(lambda x, y: K.batch_dot(x, y, 2), lambda x, y: np.einsum("nam,nkm->nak", x, y)),
        of("x n m", "x n m k")(lambda x, y: K.batch_dot(x, y, (1, 1)), lambda x, y: np.einsum("nm,nmk->nk", x, y)),
    ],
    "transpose": [of("x n m k")(K.transpose, np.transpose), steps("b n m")(K.transpose, np.transpose)],
    "permute_dimensions": [of("x n m k")(lambda x: K.permute_dimensions(x, (1, 2, 0)), lambda x: x.transpose(1, 2, 0))],
    "gather": [of("x 4 m", "i n 2")(K.gather, lambda x, i: x[i])],
}

SHAPES = {
    "concatenate": [
        of("x n m", "x n k", "x n m")(lambda *xs: K.concatenate(xs), lambda *xs: np.concatenate(xs, -1)),
        of("x n m", "x 2 m")(lambda *xs: K.concatenate(xs, 0), lambda *xs: np.concatenate(xs, 0)),
        steps("b n", "b m")(lambda *bs: K.concatenate(bs), lambda *bs: np.concatenate(bs)),
    ],
    "reshape": [
        of("x n 6")(lambda x: K.reshape(x, (-1, 2)), lambda x: x.reshape(x.shape[0] * 3, 2)),
        of("x n m k")(
            lambda x: K.reshape(x, (K.shape(x)[0], K.shape(x)[1] * K.shape(x)[2])),
            lambda x: x.reshape(x.shape[0], x.shape[1] * x.shape[2]),
        ),
    ],
    "repeat_elements": [of("x n m k")(lambda x: K.repeat_elements(x, 3, 1), lambda x: x.repeat(3, 1))],
    "repeat": [of("x n m")(lambda x: K.repeat(x, 3), lambda x: x[:, None].repeat(3, 1))],
    "tile": [
        of("x n m")(lambda x: K.tile(x, 2), lambda x: np.tile(x, 2)),
        of("x n m k")(lambda x: K.tile(x, [2, 1, 3]), lambda x: np.tile(x, (2, 1, 3))),
    ],
    "flatten": [of("x n m k")(K.flatten, np.ravel)],
    "batch_flatten": [of("x n m k")(K.batch_flatten, lambda x: x.reshape(x.shape[0], x.shape[1] * x.shape[2]))],
    "expand_dims": [
        of("x n m")(K.expand_dims, lambda x: x[..., None]),
        of("x n m")(lambda x: K.expand_dims(x, 1), lambda x: x[:, None]),
    ],
    "squeeze": [of("x n 1 m")(lambda x: K.squeeze(x, 1), lambda x: x[:, 0])],
    "stack": [
        of("x n m", "x n m")(lambda *xs: K.stack(xs, -1), lambda *xs: np.stack(xs, -1)),
        of("x n", "x n")(lambda *xs: K.stack(xs), lambda *xs: np.stack(xs)),
    ],
    "reverse": [
        of("x n m k")(lambda x: K.reverse(x, [0, -1]), lambda x: x[::-1, :, ::-1]),
        steps("b n")(lambda b: K.reverse(b, 0), lambda b: b[::-1]),
    ],
    "slice": [of("x n 5")(lambda x: K.slice(x, [0, 1], [-1, 3]), lambda x: x[:, 1:4])],
    "arange": [
        steps("x n")(lambda x: K.arange(K.shape(x)[0]), lambda x: np.arange(x.shape[0], dtype="int32")),
        steps("x n")(
            lambda x: K.arange(7, 2, -2, "int64") + 0 * K.cast(K.shape(x)[0], "int64"), lambda x: np.arange(7, 2, -2)
        ),
    ],
    "one_hot": [
        steps("i n m")(lambda i: K.one_hot(i, 4), lambda i: one_hot(i, 4)),
        steps("s n")(lambda s: K.one_hot(s, 3), lambda s: one_hot(s, 3)),
    ],
    "temporal_padding": [
        of("x n m k")(lambda x: K.temporal_padding(x, (2, 1)), lambda x: padded(x, (0, 0), (2, 1), (0, 0)))
    ],
    "asymmetric_temporal_padding": [
        of("x n m k")(lambda x: K.asymmetric_temporal_padding(x, 0, 2), lambda x: padded(x, (0, 0), (0, 2), (0, 0)))
    ],
    "spatial_2d_padding": [
        of("x n m k 2")(
            lambda x: K.spatial_2d_padding(x, ((1, 0), (2, 1))), lambda x: padded(x, (0, 0), (1, 0), (2, 1), (0, 0))
        ),
        of("x n 2 m k")(
            lambda x: K.spatial_2d_padding(x, (1, 2), first), lambda x: padded(x, (0, 0), (0, 0), (1, 1), (2, 2))
        ),
    ],
    "spatial_3d_padding": [
        of("x n m k 2 2")(
            lambda x: K.spatial_3d_padding(x, (1, 0, 2)), lambda x: padded(x, (0, 0), (1, 1), (0, 0), (2, 2), (0, 0))
        )
    ],
    "resize_images": [
        of("x n m k 2")(lambda x: K.resize_images(x, 2, 3, last), lambda x: x.repeat(2, 1).repeat(3, 2)),
        of("x n 2 m k", total=False)(
            lambda x: K.resize_images(x, 2, 3, first, "bilinear"), lambda x: bilinear(bilinear(x, 2, 2), 3, 3)
        ),
    ],
    "resize_volumes": [
        of("x n m k 2 2")(lambda x: K.resize_volumes(x, 2, 1, 2, last), lambda x: x.repeat(2, 1).repeat(2, 3))
    ],
    "shape": [steps("x n m")(K.shape, lambda x: np.array(x.shape, "int32"))],
    "size": [steps("x n m")(K.size, lambda x: np.int32(x.size))],
    "identity": [of("x n m")(K.identity, lambda x: x)],
    "zeros_like": [steps("x n m")(K.zeros_like, np.zeros_like)],
    "ones_like": [
        steps("x n m")(K.ones_like, np.ones_like),
        steps("s n")(lambda s: K.ones_like(s, "int32"), np.ones_like),
    ],
    "zeros": [steps("x n")(lambda x: K.zeros((K.shape(x)[0], 2)), lambda x: np.zeros((x.shape[0], 2), x.dtype))],
    "ones": [steps("x n")(lambda x: K.ones((2, K.shape(x)[0]), "int32"), lambda x: np.ones((2, x.shape[0]), "int32"))],
    "eye": [of("x n 3")(lambda x: x * K.eye((1, 3)), lambda x: x * np.eye(1, 3, dtype=x.dtype))],
    "constant": [of("x n 2")(lambda x: x + K.constant([1, 2]), lambda x: x + np.array([1, 2], x.dtype))],
}

CHOICE = {
    "switch": [
        of("b n m", "x n m", "x n m")(K.switch, np.where),
        of("b n", "x n m", "x n m")(K.switch, lambda b, x, y: np.where(b[:, None], x, y)),
        of("b", "x n m", "x n m")(lambda b, x, y: K.switch(b, lambda: x, lambda: y), np.where),
    ],
    "stop_gradient": [steps("x n m")(K.stop_gradient, lambda x: x)],
    "in_train_phase": [of("x n", "x n")(lambda x, y: K.in_train_phase(x, y, training=1), lambda x, y: x)],
    "in_test_phase": [of("x n", "x n")(lambda x, y: K.in_test_phase(x, lambda: y, training=1), lambda x, y: y)],
}

LEARNING = {
    "batch_normalization": [
        of("x n m", "x m", "p m", "x m", "x m")(
            lambda *xs: K.batch_normalization(*xs, epsilon=0.1), lambda *xs: normalised(*xs, 0.1)
        ),
        of("x n m k", "x m", "p m", "x m", "x m")(
            lambda *xs: K.batch_normalization(*xs, axis=1, epsilon=0.1),
            lambda x, *xs: normalised(x, *(s[:, None] for s in xs), 0.1),
        ),
    ],
    "normalize_batch_in_training": [
        of("x n m", "x m", "x m")(
            lambda x, g, b: K.normalize_batch_in_training(x, g, b, [0], 0.1)[0],
            lambda x, g, b: normalised(x, x.mean(0), x.var(0), b, g, 0.1),
        ),
        of("x n m k")(lambda x: K.normalize_batch_in_training(x, None, None, [0, 2])[2], lambda x: x.var((0, 2))),
    ],
    "categorical_crossentropy": [
        of("q n m", "q n m", total=False)(K.categorical_crossentropy, crossentropy),
        of("x n m", "x n m", total=False)(
            lambda y, x: K.categorical_crossentropy(K.softmax(y), K.softmax(x)),
            lambda y, x: -(softmax(y) * special.log_softmax(x, -1)).sum(-1),
        ),
        of("q n m", "x n m k", total=False)(
            lambda q, x: K.categorical_crossentropy(K.softmax(x + 1, 1), x, True, axis=1) + K.sum(q),
            lambda q, x: -(softmax(x + 1, 1) * special.log_softmax(x, 1)).sum(1) + q.sum(),
        ),
    ],
    "sparse_categorical_crossentropy": [
        of("i n", "x n 4", total=False)(
            lambda i, x: K.sparse_categorical_crossentropy(i, K.softmax(x)),
            lambda i, x: -special.log_softmax(x, -1)[np.arange(len(i)), i],
        ),
        of("i n 1", "q n 4", total=False)(
            K.sparse_categorical_crossentropy,
            lambda i, q: -np.log(q / q.sum(-1, keepdims=True))[np.arange(len(i)), i[:, 0]],
        ),
    ],
    "binary_crossentropy": [
        of("q n m", "q n m", total=False)(K.binary_crossentropy, binary_crossentropy),
        of("q n m", "x n m")(
            lambda q, x: K.binary_crossentropy(q, K.sigmoid(x)),
            lambda q, x: np.maximum(x, 0) - x * q + np.log1p(np.exp(-abs(x))),
        ),
    ],
    "in_top_k": [
        steps("x n 4", "i n")(
            lambda x, i: K.in_top_k(x, i, 2), lambda x, i: (x > x[np.arange(len(i)), i][:, None]).sum(1) < 2
        )
    ],
    "bias_add": [
        of("x n m", "x m")(K.bias_add, np.add),
        of("x n m k 2", "x m")(lambda x, b: K.bias_add(x, b, first), lambda x, b: x + b[:, None, None]),
        of("x n m k", "x m k")(K.bias_add, np.add),
    ],
}

CONVOLUTIONS = {
    "conv1d": [
        of("x n 7 m", "x 3 m k")(lambda x, w: K.conv1d(x, w, 2), lambda x, w: conv(x, w, (2,))),
        of("x n 7 m", "x 3 m k")(
            lambda x, w: K.conv1d(x, w, padding="causal", dilation_rate=2),
            lambda x, w: conv_padded(x, ((4, 0),), w, (1,), (2,)),
        ),
    ],
    "conv2d": [
        of("x n 6 5 m", "x 3 2 m k")(lambda x, w: K.conv2d(x, w, (2, 1)), lambda x, w: conv(x, w, (2, 1))),
        of("x n m 5 5", "x 3 3 m k")(
            lambda x, w: K.conv2d(x, w, padding="same", data_format=first),
            lambda x, w: np.moveaxis(
                conv_padded(np.moveaxis(x, 1, -1), ((1, 1), (1, 1)), w, (1, 1)), -1, 1
            ),
        ),
    ],
    "conv3d": [of("x n 4 3 3 m", "x 2 2 1 m k")(K.conv3d, lambda x, w: conv(x, w, (1, 1, 1)))],
    "conv2d_transpose": [
        of("x n 3 2 m", "x 2 3 k m")(
            lambda x, w: K.conv2d_transpose(x, w, (None, 6, 5, K.shape(w)[2]), (2, 2)),
            lambda x, w: conv_transpose(x, w, (2, 2), (6, 5)),
        )
    ],
    "deconv2d": [
        of("x n 3 2 m", "x 2 3 2 m")(
            lambda x, w: K.deconv2d(x, w, (None, 4, 4, 2)), lambda x, w: conv_transpose(x, w, (1, 1), (4, 4))
        )
    ],
    "conv3d_transpose": [
        of("x n 2 2 2 m", "x 2 1 2 2 m")(
            lambda x, w: K.conv3d_transpose(x, w, (None, 3, 2, 3, 2)),
            lambda x, w: conv_transpose(x, w, (1, 1, 1), (3, 2, 3)),
        )
    ],
    "depthwise_conv2d": [
        of("x n 5 4 2", "x 2 3 2 3")(
            lambda x, w: K.depthwise_conv2d(x, w, (2, 1)), lambda x, w: depthwise(x, w, (2, 1))
        )
    ],
    "separable_conv1d": [
        of("x n 5 2", "x 2 2 3", "x 1 6 k")(
            K.separable_conv1d, lambda x, d, p: conv(depthwise(x[:, None], d[None], (1, 1))[:, 0], p, (1,))
        )
    ],
    "separable_conv2d": [
        of("x n 5 4 2", "x 2 3 2 3", "x 1 1 6 k")(
            K.separable_conv2d, lambda x, d, p: conv(depthwise(x, d, (1, 1)), p, (1, 1))
        )
    ],
    "local_conv1d": [
        of("x n 5 2", "x 4 4 3")(lambda x, w: K.local_conv1d(x, w, (2,), (1,)), lambda x, w: local(x, w, (2,), (1,)))
    ],
    "local_conv2d": [
        of("x n 4 3 2", "x 4 8 3")(
            lambda x, w: K.local_conv2d(x, w, (2, 2), (2, 1), (2, 2), last), lambda x, w: local(x, w, (2, 2), (2, 1))
        )
    ],
    "pool2d": [
        of("x n 6 5 m")(lambda x: K.pool2d(x, (3, 2), (2, 1)), lambda x: windows(x, (3, 2), (2, 1)).max((-2, -1))),
        of("x n m 4 4")(
            lambda x: K.pool2d(x, (2, 2), (2, 2), data_format=first, pool_mode="avg"),
            lambda x: x.reshape(*x.shape[:2], 2, 2, 2, 2).mean((3, 5)),
        ),
    ],
    "pool3d": [
        of("x n 4 3 3 m")(
            lambda x: K.pool3d(x, (2, 2, 2), pool_mode="avg"),
            lambda x: windows(x, (2, 2, 2), (1, 1, 1)).mean((-3, -2, -1)),
        )
    ],
}

GROUPS = {
    "elementwise": ELEMENTWISE,
    "reductions": REDUCTIONS,
    "products": PRODUCTS,
    "shapes": SHAPES,
    "choice": CHOICE,
    "learning": LEARNING,
    "convolutions": CONVOLUTIONS,
}
