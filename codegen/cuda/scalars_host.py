"""What libdevice's functions mean, over NumPy arrays: for running the text of GPU kernels without a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorc.codegen import scalars_numpy


def _each(function: Callable[..., float], otherwise: Callable[[float], float] = lambda x: math.nan
          ) -> Callable[..., Any]:
    """A function of `math` on each element, and what it gives where `math` raises."""
    def one(x: float, *more: float) -> float:
        try:
            return function(x, *more)
        except (ValueError, OverflowError):
            return otherwise(x)

    return np.vectorize(one, otypes=[np.float64])


def _rounded(x: Any) -> Any:
    """The nearest whole number, halves away from zero."""
    size = np.abs(x)
    low = np.floor(size)
    return np.copysign(np.where(size - low >= 0.5, low + 1, low), x)


LIBDEVICE: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt, "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sin": np.sin, "cos": np.cos,
    "tanh": np.tanh, "erf": scalars_numpy.erf, "erfinv": scalars_numpy.erfinv, "floor": np.floor, "ceil": np.ceil,
    "rint": np.rint, "fabs": np.fabs, "fmod": np.fmod, "copysign": np.copysign, "pow": np.power,
    "tan": np.tan, "sinh": np.sinh, "cosh": np.cosh, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "atan2": np.arctan2, "hypot": np.hypot,
    "exp2": np.exp2, "log2": np.log2, "log10": np.log10, "cbrt": np.cbrt, "trunc": np.trunc, "fmin": np.fmin,
    "fmax": np.fmax, "erfc": _each(math.erfc), "tgamma": _each(math.gamma, lambda x: math.inf if x > 0 else math.nan),
    "lgamma": _each(math.lgamma, lambda x: math.inf), "remainder": _each(math.remainder), "round": _rounded,
}  # fmt: skip
"""Each of float64; the function of float32 has an f behind its name."""
