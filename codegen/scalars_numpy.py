"""Scalar functions that NumPy lacks, over NumPy values; the result has the dtype of the arguments."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from tensorc.ir.types import f32, f64
from tensorc.ops.philox import uniform


def rsqrt(x: Any) -> Any:
    """1 / sqrt(x)."""
    return np.divide(1, np.sqrt(x), dtype=np.result_type(x))


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), the small side relatively accurate."""
    e = np.exp(-np.abs(x))
    return np.where(np.less(x, 0), e, np.ones_like(e)) / (1 + e)


def softplus(x: Any) -> Any:
    """log(1 + exp(x))."""
    return np.maximum(x, np.zeros_like(x)) + np.log1p(np.exp(-np.abs(x)))


def log_sigmoid(x: Any) -> Any:
    """log(1 / (1 + exp(-x)))."""
    return np.minimum(x, np.zeros_like(x)) - np.log1p(np.exp(-np.abs(x)))


def erf(x: Any) -> Any:
    """The error function."""
    return _each(math.erf, x)


def erfinv(x: Any) -> Any:
    """The inverse of the error function."""
    return _each(_erfinv, x)


def power(x: Any, y: Any) -> Any:
    """x to the power y; for integers modulo 2^bits, and the integer part where y is negative."""
    dtype = np.result_type(x, y)
    if dtype.kind not in "iu":
        return np.power(x, y)

    x, y = np.asarray(x, dtype), np.asarray(y, dtype)
    grown = np.power(x, np.maximum(y, np.zeros_like(y)))
    unit = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0)) if dtype.kind == "i" else grown
    return np.where(y < 0, unit, grown).astype(dtype)[()]


def philox_uniform32(index: Any, seed: Any, step: Any, word: Any) -> Any:
    """`uniform` of f32."""
    return uniform(index, seed, step, word, f32)


def philox_uniform64(index: Any, seed: Any, step: Any, word: Any) -> Any:
    """`uniform` of f64."""
    return uniform(index, seed, step, word, f64)


def _each(function: Any, x: Any) -> Any:
    x = np.asarray(x)
    return np.vectorize(function, otypes=[np.float64])(x).astype(x.dtype)[()]


def _erfinv(x: float) -> float:
    """The normal quantile, improved by Newton's rule on whichever of erf and erfc keeps its digits."""
    if not abs(x) < 1:
        return math.copysign(math.inf, x) if abs(x) == 1 else math.nan

    a = abs(x)
    y = -NormalDist().inv_cdf((1 - a) / 2) * math.sqrt(0.5)
    for _ in range(2):
        error = math.erf(y) - a if a < 0.5 else (1 - a) - math.erfc(y)
        y -= error * math.exp(y * y) * math.sqrt(math.pi) / 2
    return math.copysign(y, x)
