"""Functions that NumPy lacks, for the references: each keeps the dtype and shape of its operand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.ir.types import DType

Array = NDArray[Any]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp −x), without overflow."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, e) / (1 + e)).astype(x.dtype)


def softplus(x: Array) -> Array:
    """log(1 + exp x), without overflow."""
    return np.asarray(np.logaddexp(x, x.dtype.type(0)))


def log_sigmoid(x: Array) -> Array:
    """log(1 / (1 + exp −x)), without overflow."""
    return np.asarray(-softplus(-x))


def erf(x: Array) -> Array:
    """The error function."""
    return _each(math.erf, x)


def erfinv(x: Array) -> Array:
    """The inverse of erf: ±inf at ±1, NaN outside."""
    return _each(_erfinv, x)


def power(x: Array, y: Array) -> Array:
    """x to the power y.  Integers wrap; a negative exponent gives the integer part of the real result, 0 for x = 0."""
    if x.dtype.kind == "f":
        return np.asarray(np.power(x, y))
    whole = np.power(x, np.maximum(y, 0))
    odd = np.where(y % 2 == 0, 1, -1)
    inverse = np.where(x == 1, 1, np.where(np.asarray(x).astype(np.int64) == -1, odd, 0))
    return np.asarray(np.where(y < 0, inverse, whole)).astype(x.dtype)


def cast(x: Array, dtype: DType) -> Array:
    """`astype`, where a float out of an integer's range saturates and NaN gives 0."""
    if not (x.dtype.kind == "f" and dtype.is_integer):
        return x.astype(dtype.numpy)
    limits = np.iinfo(dtype.numpy)
    wide = x.astype(np.float64)
    low, high = wide <= float(limits.min), wide >= float(limits.max)
    inside = np.where(low | high | np.isnan(wide), 0.0, wide).astype(dtype.numpy)
    return np.where(low, limits.min, np.where(high, limits.max, inside)).astype(dtype.numpy)


def _each(function: Callable[[float], float], x: Array) -> Array:
    """A function of one float applied to every element."""
    return np.array([function(v) for v in x.ravel().tolist()], np.float64).reshape(x.shape).astype(x.dtype)


def _erfinv(y: float) -> float:
    """Winitzki's approximation, then Newton's method.  Source: Winitzki 2008, a handy approximation for erf."""
    size = abs(y)
    if size >= 1:
        return math.copysign(math.inf, y) if size == 1 else math.nan
    half = math.log1p(-size * size) / 2
    middle = 2 / (math.pi * 0.147) + half
    x = math.sqrt(math.sqrt(middle * middle - 2 * half / 0.147) - middle)

    # Towards 1, erfc has the digits that are lost in erf.
    for _ in range(4):
        error = math.erf(x) - size if size < 0.5 else (1 - size) - math.erfc(x)
        x -= error * math.sqrt(math.pi) / 2 * math.exp(x * x)
    return math.copysign(x, y)
