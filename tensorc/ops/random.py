# mypy: no-warn-return-any
"""Random numbers, each a pure function of its place and of a key: (seed, step).

The element at flat place i of the shape takes number i of the stream; `tensorc.ops.philox` says which bits those are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.errors import DTypeError, ShapeError
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ir.types import DType, TensorType, f32, f64, i32, i64
from tensorc.ops import philox, special
from tensorc.ops.define import At, Compute, Element, Fill, NoGradient, Position, defop
from tensorc.ops.elementwise import erfinv, log1p, maximum, minimum, sin, sqrt
from tensorc.ops.infer import show_shape
from tensorc.ops.sample import sample

Array = NDArray[Any]

SPREAD = math.erf(math.sqrt(2))
"""The part of a normal distribution that lies within two standard deviations."""


def _stream(key: TensorType, shape: tuple[Size, ...], dtype: DType) -> TensorType:
    """The type of random numbers.  Raises DTypeError, ShapeError."""
    if key.dtype is not i64 or key.shape != (2,):
        raise ShapeError(f"a key is int64 (2,), not {key.dtype.name} {show_shape(key.shape)}")
    if dtype not in (f32, f64):
        raise DTypeError(f"gives float32 or float64, not {dtype.name}")
    return TensorType(dtype, shape)


def _uniform_type(key: TensorType, *, shape: tuple[Size, ...], dtype: DType, word: int) -> TensorType:
    words = 4 if dtype is f32 else 2
    if not 0 <= word < words:
        raise ShapeError(f"there are {words} {dtype.name} numbers at each place, none is number {word}")
    return _stream(key, shape, dtype)


def _uniform(key: Array, *, shape: tuple[int, ...], dtype: DType, word: int) -> Array:
    places = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    return philox.uniform(places, key[0], key[1], word, dtype)


def _uniform_element(node: Any, index: tuple[Size, ...]) -> Element:
    flat: Size = 0
    for i, n in zip(index, node.shape, strict=True):
        flat = flat * n + i
    function = "philox_uniform32" if node.dtype is f32 else "philox_uniform64"
    return Compute(function, (Position(flat, i64), At(0, (0,)), At(0, (1,)), Fill(node.word, i32)), node.dtype)


uniform = defop(
    "uniform",
    doc="Random numbers, uniform in [0, 1).  `word` tells several apart at one place: 0 to 3 for float32, 0 and 1 for "
        "float64.",
    infer=_uniform_type,
    reference=_uniform,
    gradient=NoGradient("random numbers depend on nothing but a key"),
    index=_uniform_element,
    samples=[sample("i64[2]", shape=(2, 3), dtype=f32, word=0), sample("i64[2]", shape=(5,), dtype=f64, word=1),
             sample("i64[2]", shape=(), dtype=f32, word=3), sample("i64[2]", shape=(0, 2), dtype=f32, word=0)],
)


def _normal_type(key: TensorType, *, shape: tuple[Size, ...], dtype: DType) -> TensorType:
    return _stream(key, shape, dtype)


def _normal(key: Array, *, shape: tuple[int, ...], dtype: DType) -> Array:
    u, v = (_uniform(key, shape=shape, dtype=dtype, word=w).astype(np.float64) for w in (0, 1))
    return np.asarray(np.sqrt(-2 * np.log1p(-u)) * np.sin(np.pi * (v - 0.5))).astype(dtype.numpy)


def _normal_expansion(node: Any) -> Node:
    """√(−2 log(1 − u)) · sin θ of Box & Muller 1958, θ in a half circle, over which a sine has the same distribution.

    So it is exact near its only zero.
    """
    u, v = (uniform(node.key, shape=node.shape, dtype=node.dtype, word=w) for w in (0, 1))
    return sqrt(log1p(-u) * -2) * sin((v - 0.5) * math.pi)


_DRAWS = [sample("i64[2]", shape=(2, 3), dtype=f32), sample("i64[2]", shape=(7,), dtype=f64),
          sample("i64[2]", shape=(), dtype=f32), sample("i64[2]", shape=(0, 2), dtype=f32)]

normal = defop(
    "normal",
    doc="Random numbers of the normal distribution with mean 0 and standard deviation 1.",
    infer=_normal_type,
    reference=_normal,
    gradient=NoGradient("random numbers depend on nothing but a key"),
    expand=_normal_expansion,
    samples=_DRAWS,
)


def _truncated_normal(key: Array, *, shape: tuple[int, ...], dtype: DType) -> Array:
    u = _uniform(key, shape=shape, dtype=dtype, word=0).astype(np.float64)
    return np.clip(special.erfinv((2 * u - 1) * SPREAD) * math.sqrt(2), -2, 2).astype(dtype.numpy)


def _truncated_normal_expansion(node: Any) -> Node:
    """The inverse of the distribution function; the limits take off what rounding adds beyond them."""
    u = uniform(node.key, shape=node.shape, dtype=node.dtype, word=0)
    z = erfinv((u * 2 - 1) * SPREAD) * math.sqrt(2)
    return minimum(maximum(z, -2), 2)


truncated_normal = defop(
    "truncated_normal",
    doc="As normal, given that it lies within two standard deviations.",
    infer=_normal_type,
    reference=_truncated_normal,
    gradient=NoGradient("random numbers depend on nothing but a key"),
    expand=_truncated_normal_expansion,
    samples=_DRAWS,
)
