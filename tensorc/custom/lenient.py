"""A scalar Python function over NumPy numbers, with the answers of machine code: what has none is NaN or inf.

It is the meaning of the operation for tests, for the checker and for constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import CellType, FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from tensorc.custom.fingerprint import python_of, reads

Array = np.ndarray[Any, Any]


def over_arrays(function: FunctionType) -> Callable[..., Array]:
    """The function on each element of arrays that broadcast, integers among them as int64.

    Further arguments are the dtype that floats are computed in, and that of the result.
    """
    lenient = _lenient(function, {})

    def run(*arrays: Any, computing: np.dtype[Any], dtype: np.dtype[Any]) -> Array:
        given = np.broadcast_arrays(*(_wide(a, computing) for a in arrays))
        out = np.empty(given[0].shape, computing if dtype.kind == "f" else dtype)
        with np.errstate(all="ignore"):
            for place in np.ndindex(out.shape):
                out[place] = lenient(*(a[place] for a in given))
        found: Array = out.astype(dtype)
        return found

    return run


def _wide(array: Any, computing: np.dtype[Any]) -> Array:
    """An array as what the function gets."""
    array = np.asarray(array)
    wide: Array = array.astype({"i": np.dtype(np.int64), "u": np.dtype(np.int64), "f": computing}.get(
        array.dtype.kind, array.dtype))
    return wide


def _lenient(function: FunctionType, done: dict[FunctionType, FunctionType]) -> FunctionType:
    """The function with mathematics that never raises in place of `math`, and so for those it calls."""
    if function in done:
        return done[function]
    code = function.__code__
    names = dict(function.__globals__)
    made = done[function] = FunctionType(code, names, function.__name__, function.__defaults__,
                                         tuple(CellType() for _ in code.co_freevars))
    made.__kwdefaults__ = function.__kwdefaults__
    names.update((name, whole) for name, whole in WHOLE.items() if name not in names)
    for name, value in reads(function).items():
        replaced = _replaced(value, done)
        if name in code.co_freevars:
            made.__closure__[code.co_freevars.index(name)].cell_contents = replaced  # type: ignore[index]
        else:
            names[name] = replaced
    return made


def _replaced(value: Any, done: dict[FunctionType, FunctionType]) -> Any:
    if value is math:
        return SimpleNamespace(**{**vars(math), **MATH})
    name = getattr(value, "__name__", "")
    if getattr(math, name, None) is value:
        return MATH.get(name, value)
    inner = python_of(value)
    return value if inner is None else _lenient(inner, done)


def _whole(rounded: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def whole(x: Any) -> Any:
        return np.int64(rounded(x)) if np.isfinite(x) else np.int64(0)
    return whole


def _rounded(x: Any, *digits: Any) -> Any:
    return round(x, *digits) if digits else _whole(np.rint)(x)


def _each(function: Callable[..., float], otherwise: Callable[[Any], float] = lambda x: math.nan) -> Callable[..., Any]:
    """A function of math's on numbers, in the dtype of the first."""
    def run(x: Any, *more: Any) -> Any:
        try:
            value = function(float(x), *map(float, more))
        except (ValueError, OverflowError):
            value = otherwise(x)
        return np.asarray(x).dtype.type(value) if isinstance(x, np.floating) else value
    return run


WHOLE: Mapping[str, Callable[..., Any]] = {"int": _whole(np.trunc), "round": _rounded}
"""Builtins that raise for NaN."""

MATH: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in (
        "sqrt", "exp", "expm1", "exp2", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "hypot",
        "copysign", "isnan", "isinf", "isfinite", "degrees", "radians", "fabs", "fmod", "cbrt")},
    **{name: getattr(np, f"arc{name[1:]}") for name in (
        "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2")},
    "pow": np.power,
    "log": lambda x, base=None: np.log(x) if base is None else np.log(x) / np.log(base),
    "floor": _whole(np.floor), "ceil": _whole(np.ceil), "trunc": _whole(np.trunc),
    "erf": _each(math.erf), "erfc": _each(math.erfc),
    "gamma": _each(math.gamma, lambda x: math.inf if x > 0 else math.nan),
    "lgamma": _each(math.lgamma, lambda x: math.inf),
}
