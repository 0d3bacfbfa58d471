"""The scalar functions of the loop language: what they take, what they give, how NumPy spells them.

This table knows no target.  The LLVM spelling of a function is the method of its name of `codegen.cpu.lanes.Lanes`.

float16 and bfloat16 are storage types: arithmetic on them is written as float32 arithmetic between casts, so only
`select` takes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc.codegen import scalars_numpy
from tensorc.ir.types import DType, boolean, f32, f64, i32, i64

Rule = Callable[[tuple[DType, ...]], DType | None]
Source = Callable[[tuple[DType, ...]], str]
"""LLVM IR of a function on arguments of these dtypes; `codegen.cpu.foreign` says in which form."""


@dataclass(frozen=True)
class Scalar:
    """One function of the loop language.

    Attributes:
        arity: how many arguments it takes.
        result: the result's dtype from the arguments' dtypes, None where they do not fit.
        cost: its work in instructions on vectors of f32, a multiplication being 1 and what is slower more; of a user's
            function `codegen.weigh` finds it in the code.
        numpy: its meaning over NumPy values; the dtype of the result is that of `result`.
        text: the same as Python text over `np` and `scalars_numpy`, to be formatted with the arguments' texts.
        doc: what it is, and its special values.
        source: of a function that a user wrote, its code.
        python: the function that a user wrote.
    """

    name: str
    arity: int
    result: Rule
    cost: int
    numpy: Callable[..., Any]
    text: str
    doc: str
    source: Source | None = None
    python: Callable[..., Any] | None = None


SCALARS: dict[str, Scalar] = {}


def result(fn: str, dtypes: tuple[DType, ...]) -> DType | None:
    """The dtype of fn on arguments of these dtypes; None if they do not fit or are too many or few."""
    scalar = SCALARS[fn]
    return scalar.result(dtypes) if len(dtypes) == scalar.arity else None


def evaluate(fn: str, *args: Any) -> Any:
    """fn over NumPy values, without NumPy's floating-point warnings."""
    with np.errstate(all="ignore"):
        return SCALARS[fn].numpy(*args)


def add_foreign(wish: str, arity: int, rule: Rule, numpy: Callable[..., Any], source: Source,
                python: Callable[..., Any]) -> str:
    """Adds a function that a user wrote, by a name like the one wished for that no other has; the name."""
    name = next(n for k in itertools.count(1) if (n := wish if k == 1 else f"{wish}_{k}") not in SCALARS)
    text = f"scalars.evaluate({name!r}, {', '.join(f'{{{k}}}' for k in range(arity))})"
    SCALARS[name] = Scalar(name, arity, rule, 0, numpy, text, "A function of the user's.", source, python)
    return name


# -- rules


def _alike(dtypes: tuple[DType, ...], fits: Callable[[DType], bool]) -> DType | None:
    first = dtypes[0]
    return first if fits(first) and all(d is first for d in dtypes) else None


def _is_computed_float(d: DType) -> bool:
    return d in (f32, f64)


def _is_number(d: DType) -> bool:
    return _is_computed_float(d) or d.is_integer


def numbers(dtypes: tuple[DType, ...]) -> DType | None:
    """Numbers of one dtype give that dtype."""
    return _alike(dtypes, _is_number)


def floats(dtypes: tuple[DType, ...]) -> DType | None:
    """Floats of one dtype give that dtype."""
    return _alike(dtypes, _is_computed_float)


def bools(dtypes: tuple[DType, ...]) -> DType | None:
    """Bools give a bool."""
    return _alike(dtypes, lambda d: d.is_bool)


def compared(dtypes: tuple[DType, ...]) -> DType | None:
    """Numbers or bools of one dtype give a bool."""
    return boolean if _alike(dtypes, lambda d: _is_number(d) or d.is_bool) else None


def ordered(dtypes: tuple[DType, ...]) -> DType | None:
    """Numbers or bools of one dtype give that dtype."""
    return _alike(dtypes, lambda d: _is_number(d) or d.is_bool)


def classified(dtypes: tuple[DType, ...]) -> DType | None:
    """A float gives a bool."""
    return boolean if floats(dtypes) else None


def chosen(dtypes: tuple[DType, ...]) -> DType | None:
    """A bool and two values of any one dtype give that dtype."""
    return _alike(dtypes[1:], lambda d: True) if dtypes[0].is_bool else None


def drawn(dtype: DType) -> Rule:
    """Three i64 and an i32 give a float."""
    return lambda dtypes: dtype if dtypes == (i64, i64, i64, i32) else None


# -- the table


def _define(
    name: str, rule: Rule, cost: int, numpy: Callable[..., Any], doc: str, text: str | None = None, arity: int = 1
) -> None:
    if text is None:
        module = "np" if isinstance(numpy, np.ufunc) else "scalars_numpy"
        text = f"{module}.{numpy.__name__}({', '.join(f'{{{k}}}' for k in range(arity))})"
    SCALARS[name] = Scalar(name, arity, rule, cost, numpy, text, doc)


def _define_infix(name: str, rule: Rule, cost: int, numpy: Callable[..., Any], sign: str, doc: str) -> None:
    _define(name, rule, cost, numpy, doc, f"({{0}} {sign} {{1}})", arity=2)


_define_infix("add", numbers, 1, np.add, "+", "a + b; integers wrap around.")
_define_infix("sub", numbers, 1, np.subtract, "-", "a - b; integers wrap around.")
_define_infix("mul", numbers, 1, np.multiply, "*", "a · b; integers wrap around.")
_define_infix("div", floats, 5, np.divide, "/", "a / b, correctly rounded; x / ±0 is ±inf, 0 / 0 is NaN.")

_define(
    "floordiv", numbers, 80, np.floor_divide, arity=2,
    doc="floor(a / b), for floats by way of mod, as NumPy's; 0 for an integer over 0.",
)  # fmt: skip
_define(
    "mod", numbers, 70, np.remainder, arity=2,
    doc="a - b floor(a / b), exact, of the sign of b; mod(x, 0) is NaN, for integers 0.",
)  # fmt: skip
_define(
    "pow", numbers, 140, scalars_numpy.power, arity=2,
    doc="a to the power b by C99's special values: pow(x, 0) = pow(1, y) = 1, pow(-1, ±inf) = 1, NaN for a negative a "
    "and a b that is not whole.  Integers wrap around; a negative integer exponent gives the integer part: 0, ±1.",
)  # fmt: skip
_define("neg", numbers, 1, np.negative, "-a; unsigned integers wrap around.", "(-{0})")
_define("abs", numbers, 1, np.abs, "|a|; the smallest integer is its own.", "np.abs({0})")
_define("sign", numbers, 5, np.sign, "-1, 0 or 1; NaN of NaN.")
_define("sqrt", floats, 6, np.sqrt, "The square root, correctly rounded; NaN below 0, -0 of -0.")
_define("rsqrt", floats, 11, scalars_numpy.rsqrt, "1 / sqrt(a); inf of 0, NaN below 0.")

_define("exp", floats, 22, np.exp, "e to the power a; 0 of -inf, inf of inf, denormals are kept.")
_define("expm1", floats, 26, np.expm1, "exp(a) - 1, accurate near 0; -1 of -inf, ±0 of ±0.")
_define("log", floats, 36, np.log, "The natural logarithm; -inf of 0, NaN below 0, denormals are exact inputs.")
_define("log1p", floats, 42, np.log1p, "log(1 + a), accurate near 0; -inf of -1, NaN below, ±0 of ±0.")
_define("sin", floats, 24, np.sin, "The sine of any finite angle; NaN of ±inf, ±0 of ±0.")
_define("cos", floats, 26, np.cos, "The cosine of any finite angle; NaN of ±inf.")
_define("tanh", floats, 42, np.tanh, "The hyperbolic tangent; ±1 of ±inf, ±0 of ±0.")
_define("sigmoid", floats, 36, scalars_numpy.sigmoid, "1 / (1 + exp(-a)), relatively accurate in its far tail.")
_define("softplus", floats, 58, scalars_numpy.softplus, "log(1 + exp(a)): no overflow, 0 of -inf, inf of inf.")
_define("log_sigmoid", floats, 58, scalars_numpy.log_sigmoid, "log(sigmoid(a)): -inf of -inf, 0 of inf.")
_define("erf", floats, 60, scalars_numpy.erf, "The error function; ±1 of ±inf, ±0 of ±0.")
_define("erfinv", floats, 90, scalars_numpy.erfinv, "The inverse of erf; ±inf of ±1, NaN beyond.")

_define("floor", floats, 1, np.floor, "The largest integer not above a.")
_define("ceil", floats, 3, np.ceil, "The smallest integer not below a.")
_define("round", floats, 1, np.rint, "The nearest integer, half to even.")

_define("maximum", ordered, 3, np.maximum, "The larger; NaN if either is.", arity=2)
_define("minimum", ordered, 3, np.minimum, "The smaller; NaN if either is.", arity=2)

_define_infix("eq", compared, 1, np.equal, "==", "a = b; false with NaN.")
_define_infix("ne", compared, 1, np.not_equal, "!=", "a ≠ b; true with NaN.")
_define_infix("lt", compared, 1, np.less, "<", "a < b; false with NaN.")
_define_infix("le", compared, 1, np.less_equal, "<=", "a ≤ b; false with NaN.")
_define_infix("gt", compared, 1, np.greater, ">", "a > b; false with NaN.")
_define_infix("ge", compared, 1, np.greater_equal, ">=", "a ≥ b; false with NaN.")

_define_infix("and", bools, 1, np.logical_and, "&", "Both.")
_define_infix("or", bools, 1, np.logical_or, "|", "Either or both.")
_define_infix("xor", bools, 1, np.logical_xor, "^", "Either, not both.")
_define("not", bools, 1, np.logical_not, "The opposite.")
_define("select", chosen, 1, np.where, "b where the bool a is true, else c.", "np.where({0}, {1}, {2})", arity=3)

_define("isnan", classified, 1, np.isnan, "Whether a is NaN.")
_define("isfinite", classified, 2, np.isfinite, "Whether a is neither NaN nor ±inf.")

_define(
    "philox_uniform32", drawn(f32), 220, scalars_numpy.philox_uniform32, arity=4,
    doc="A uniform f32 in [0, 1): 24 bits of word (0 to 3) of the Philox block of (index, seed, step).",
)  # fmt: skip
_define(
    "philox_uniform64", drawn(f64), 220, scalars_numpy.philox_uniform64, arity=4,
    doc="A uniform f64 in [0, 1): 53 bits of words 2·word and 2·word + 1 of the Philox block of (index, seed, step).",
)  # fmt: skip
