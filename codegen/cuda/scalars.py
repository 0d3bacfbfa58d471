"""The scalar functions of the loop language in the text for a GPU: operators, intrinsics and NVIDIA's libdevice.

Where several steps are needed they are written as lines of their own, so that running the text tests them too.
Numba's fast-math stays off: `tanh.approx` and its kin are too coarse.  Error bounds of libdevice's functions stand in
the CUDA Math API; square root and division are correctly rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from tensorc.ir.types import DType, f16, f32, f64


class Bench(Protocol):
    """What a recipe writes on."""

    def bind(self, text: str) -> str:
        """The name of a variable that holds the value of an expression, which a line before computes."""


Recipe = Callable[["Bench", DType, tuple[str, ...]], str]


def spell(bench: Bench, fn: str, dtype: DType, args: tuple[str, ...]) -> str:
    """A function's text on arguments of one dtype; of `select` and of random numbers `dtype` is the result's."""
    return RECIPES[fn](bench, dtype, args)


def literal(value: float, dtype: DType) -> str:
    """A number as text; of a float of 16 bits the number of its bits."""
    if dtype.is_half:
        return f"uint16({int(np.asarray(value).astype(dtype.numpy).view(np.uint16))})"
    if dtype.is_bool:
        return f"cast_bool(uint8({int(value)}))"
    if dtype.is_integer:
        return f"{dtype.name}({int(value)})"
    if math.isnan(value):
        return f"{dtype.name}(math.nan)"
    if math.isinf(value):
        return f"{dtype.name}({'-' if value < 0 else ''}math.inf)"
    return f"{dtype.name}({float(value)!r})"


def cast(text: str, dtype: DType, to: DType) -> str:
    """A value converted; a float of 16 bits is widened first and narrowed last."""
    if dtype is to:
        return text
    if dtype.is_half:
        return cast(f"from_{_storage(dtype)}({text})", f32, to)
    if not to.is_half:
        return f"cast_{to.short}({text})"
    rounded_once = dtype is f64 and to is f16
    return f"to_{_storage(to)}({text if dtype is f32 or rounded_once else f'cast_f32({text})'})"


def _storage(dtype: DType) -> str:
    """What intrinsics call a float of 16 bits."""
    return "half" if dtype is f16 else "bfloat"


def library(fn: str, dtype: DType, *args: str) -> str:
    """A call of libdevice, whose float32 functions end in f."""
    return f"libdevice.{fn}{'f' if dtype is f32 else ''}({', '.join(args)})"


def _infix(sign: str, of_integers: str | None = None) -> Recipe:
    def recipe(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
        a, b = args
        return f"({a} {sign} {b})" if dtype.is_float or of_integers is None else f"{of_integers}({a}, {b})"
    return recipe


def _comparison(sign: str) -> Recipe:
    def recipe(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
        a, b = (f"cast_u8({x})" for x in args) if dtype.is_bool else args
        return f"({a} {sign} {b})"
    return recipe


def _intrinsic(name: str) -> Recipe:
    return lambda bench, dtype, args: f"{name}({', '.join(args)})"


def _library(fn: str) -> Recipe:
    return lambda bench, dtype, args: library(fn, dtype, *args)


def _neg(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
    return f"(-{args[0]})" if dtype.is_float else f"neg({args[0]})"


def _abs(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
    (a,) = args
    if dtype.is_float:
        return library("fabs", dtype, a)
    return a if dtype.short[0] == "u" else f"select({a} < {literal(0, dtype)}, neg({a}), {a})"


def _sign(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
    (a,), zero, one = args, literal(0, dtype), literal(1, dtype)
    if dtype.short[0] == "u":
        return f"select({a} > {zero}, {one}, {zero})"
    of_zero = f"select({a} == {zero}, {zero}, {a})" if dtype.is_float else zero
    below = bench.bind(f"select({a} < {zero}, {literal(-1, dtype)}, {of_zero})")
    return f"select({a} > {zero}, {one}, {below})"


def _rsqrt(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
    return f"({literal(1, dtype)} / {library('sqrt', dtype, *args)})"


def _isfinite(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
    return f"({library('fabs', dtype, *args)} < {literal(math.inf, dtype)})"


def _far(bench: Bench, dtype: DType, a: str) -> str:
    """exp(-|a|), which cannot overflow."""
    return bench.bind(library("exp", dtype, f"-{library('fabs', dtype, a)}"))


def _sigmoid(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
    (a,), one = args, literal(1, dtype)
    e = _far(bench, dtype, a)
    return f"(select({a} < {literal(0, dtype)}, {e}, {one}) / ({one} + {e}))"


def _softplus(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
    rest = library("log1p", dtype, _far(bench, dtype, args[0]))
    return f"(maximum({args[0]}, {literal(0, dtype)}) + {rest})"


def _log_sigmoid(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
    rest = library("log1p", dtype, _far(bench, dtype, args[0]))
    return f"(minimum({args[0]}, {literal(0, dtype)}) - {rest})"


def _mod(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
    """As C's fmod, then of the sign of the divisor: NumPy's way."""
    if dtype.is_integer:
        return f"modulo({', '.join(args)})"
    a, b = args
    zero = literal(0, dtype)
    rest = bench.bind(library("fmod", dtype, a, b))
    turned = bench.bind(f"select(both({rest} != {zero}, differ({rest} < {zero}, {b} < {zero})), {rest} + {b}, {rest})")
    return f"select({turned} == {zero}, {library('copysign', dtype, zero, b)}, {turned})"


def _floordiv(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
    """By way of fmod: NumPy's way, exact where a / b would round up to a whole number."""
    if dtype.is_integer:
        return f"floordiv({', '.join(args)})"
    a, b = args
    zero, one, half = literal(0, dtype), literal(1, dtype), literal(0.5, dtype)
    rest = bench.bind(library("fmod", dtype, a, b))
    near = bench.bind(f"({a} - {rest}) / {b}")
    near = bench.bind(f"select(both({rest} != {zero}, differ({rest} < {zero}, {b} < {zero})), {near} - {one}, {near})")
    whole = bench.bind(library("floor", dtype, near))
    whole = bench.bind(f"select({near} - {whole} > {half}, {whole} + {one}, {whole})")
    return f"select({b} == {zero}, {a} / {b}, {whole})"


def _pow(bench: Bench, dtype: DType, args: tuple[str, ...]) -> str:
    return library("pow", dtype, *args) if dtype.is_float else f"power({', '.join(args)})"


RECIPES: dict[str, Recipe] = {
    "add": _infix("+", "add"), "sub": _infix("-", "sub"), "mul": _infix("*", "mul"), "div": _infix("/"),
    "floordiv": _floordiv, "mod": _mod, "pow": _pow,
    "neg": _neg, "abs": _abs, "sign": _sign, "sqrt": _library("sqrt"), "rsqrt": _rsqrt,
    **{fn: _library(fn) for fn in ("exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "erf", "erfinv")},
    "sigmoid": _sigmoid, "softplus": _softplus, "log_sigmoid": _log_sigmoid,
    "floor": _library("floor"), "ceil": _library("ceil"), "round": _library("rint"),
    "maximum": _intrinsic("maximum"), "minimum": _intrinsic("minimum"),
    "eq": _comparison("=="), "ne": _comparison("!="), "lt": _comparison("<"), "le": _comparison("<="),
    "gt": _comparison(">"), "ge": _comparison(">="),
    "and": _intrinsic("both"), "or": _intrinsic("either"), "xor": _intrinsic("differ"), "not": _intrinsic("negate"),
    "select": _intrinsic("select"), "isnan": _intrinsic("isnan"), "isfinite": _isfinite,
    "philox_uniform32": _intrinsic("philox_uniform32"), "philox_uniform64": _intrinsic("philox_uniform64"),
}  # fmt: skip
"""Every function of `codegen.scalars` but those that users wrote, which `foreign.py` inlines."""
