# mypy: allow-untyped-defs, allow-incomplete-defs, no-warn-return-any
"""Simplifications of numbers: identities of addition, multiplication, powers, casts and logic.

They keep what IEEE arithmetic gives, up to rounding: NaN and inf stay where they are, so x − x, x · 0 and x / x
are left alone for floats.  Two things are not kept: the sign of a zero (x + 0 → x keeps −0), and an overflow on
the way to a result that is finite, as in (x · 10³⁰) · 10⁻³⁰.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorc.ir.node import Node, constant
from tensorc.ir.types import DType
from tensorc.ops import (
    abs,
    cast,
    eq,
    exp,
    log,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    ne,
    neg,
    pow,
    select,
    sqrt,
)
from tensorc.passes.facts import as_number, filled, fitted, nonnegative
from tensorc.passes.rewrite import No, Rewrite, filled_with


class AddZero(Rewrite):
    """x + 0 → x,  x − 0 → x"""

    def pattern(self, x):
        return x + 0, x - 0

    def build(self, node, x):
        return fitted(x, node)


class SubFromZero(Rewrite):
    """0 − x → −x"""

    def pattern(self, x):
        return 0 - x

    def build(self, node, x):
        return fitted(-x, node)


class MulOne(Rewrite):
    """x · 1 → x,  x / 1 → x,  x¹ → x"""

    def pattern(self, x):
        return x * 1, x / 1, pow(x, 1)

    def check(self, node, x):
        return node.dtype is x.dtype or No(f"the quotient of {x.dtype.name} is {node.dtype.name}")

    def build(self, node, x):
        return fitted(x, node)


class MulMinusOne(Rewrite):
    """x · −1 → −x,  x / −1 → −x"""

    def pattern(self, x):
        return x * -1, x / -1

    def check(self, node, x):
        return node.dtype is x.dtype or No(f"the quotient of {x.dtype.name} is {node.dtype.name}")

    def build(self, node, x):
        return fitted(-x, node)


class MulZero(Rewrite):
    """x · 0 → 0"""

    def pattern(self, x):
        return x * 0

    def check(self, x):
        return x.dtype.is_integer or No("0 · NaN and 0 · inf are NaN")

    def build(self, node):
        return filled(0, node)


class SubSelf(Rewrite):
    """x − x → 0"""

    def pattern(self, x):
        return x - x

    def check(self, x):
        return x.dtype.is_integer or No("NaN − NaN and inf − inf are NaN")

    def build(self, node):
        return filled(0, node)


class NegNeg(Rewrite):
    """−(−x) → x"""

    def pattern(self, x):
        return neg(neg(x))

    def build(self, x):
        return x


class AddNeg(Rewrite):
    """x + (−y) → x − y"""

    def pattern(self, x, y):
        return x + neg(y)

    def build(self, x, y):
        return x - y


class SubNeg(Rewrite):
    """x − (−y) → x + y"""

    def pattern(self, x, y):
        return x - neg(y)

    def build(self, x, y):
        return x + y


class NegSub(Rewrite):
    """−(x − y) → y − x"""

    def pattern(self, x, y):
        return neg(x - y)

    def build(self, x, y):
        return y - x


class MulNeg(Rewrite):
    """(−x) · y → −(x · y):  signs move outwards, where they meet others"""

    def pattern(self, x, y):
        return neg(x) * y

    def build(self, x, y):
        return -(x * y)


class DivNeg(Rewrite):
    """(−x) / y → −(x / y),  x / (−y) → −(x / y)"""

    def pattern(self, x, y):
        return neg(x) / y, x / neg(y)

    def build(self, x, y):
        return -(x / y)


class NegScaled(Rewrite):
    """−(x · c) → x · (−c)  for a number c"""

    def pattern(self, x, c):
        return neg(x * c)

    def check(self, x, c):
        if filled_with(x) is not None or not c.dtype.is_float:
            return No("no float scaled by a number")
        return filled_with(c) is not None or No("no operand is a number")

    def build(self, node, x, c):
        return fitted(x * constant(-filled_with(c), c.dtype), node)


class MulNumbers(Rewrite):
    """(x · a) · b → x · (a · b)  for numbers a, b"""

    def pattern(self, x, a, b):
        return (x * a) * b

    def check(self, x, a, b):
        if filled_with(x) is not None:
            return No("all three are numbers")
        return _product(a, b) is not None or No("the factors are not numbers with a normal product")

    def build(self, node, x, a, b):
        return fitted(x * constant(_product(a, b), x.dtype), node)


class DivNumbers(Rewrite):
    """(x / a) / b → x / (a · b)  for numbers a, b"""

    def pattern(self, x, a, b):
        return (x / a) / b

    def check(self, x, a, b):
        if not x.dtype.is_float:
            return No("integers round between the divisions")
        return _product(a, b) is not None or No("the divisors are not numbers with a normal product")

    def build(self, node, x, a, b):
        return fitted(x / constant(_product(a, b), x.dtype), node)


class DivPowerOfTwo(Rewrite):
    """x / 2ᵏ → x · 2⁻ᵏ, exactly"""

    def pattern(self, x, c):
        return x / c

    def check(self, x, c):
        number = as_number(c)
        if number is None or not x.dtype.is_float:
            return No("the divisor is not a float number")
        mantissa, exponent = np.frexp(number)
        return (np.abs(mantissa) == 0.5 and np.abs(exponent) < 14) or No(f"{number} is no power of two")

    def build(self, node, x, c):
        return fitted(x * constant(1 / filled_with(c), c.dtype), node)


class AddNumbers(Rewrite):
    """(x + a) + b → x + (a + b)  for integers a, b"""

    def pattern(self, x, a, b):
        return (x + a) + b

    def check(self, x, a, b):
        if not x.dtype.is_integer:
            return No("the sums round differently: (x + 1e30) − 1e30 is not x")
        numbers = as_number(a) is not None and as_number(b) is not None and filled_with(x) is None
        return numbers or No("the terms are not numbers")

    def build(self, node, x, a, b):
        with np.errstate(over="ignore"):
            return fitted(x + constant(filled_with(a) + filled_with(b), x.dtype), node)


class PowZero(Rewrite):
    """x⁰ → 1, also for NaN"""

    def pattern(self, x):
        return pow(x, 0)

    def build(self, node):
        return filled(1, node)


class PowTwo(Rewrite):
    """x² → x · x"""

    def pattern(self, x):
        return pow(x, 2)

    def build(self, node, x):
        return fitted(x * x, node)


class PowThree(Rewrite):
    """x³ → x · x · x"""

    def pattern(self, x):
        return pow(x, 3)

    def build(self, node, x):
        return fitted(x * x * x, node)


class PowMinusOne(Rewrite):
    """x⁻¹ → 1 / x"""

    def pattern(self, x):
        return pow(x, -1)

    def check(self, x):
        return x.dtype.is_float or No("integers have no reciprocal")

    def build(self, node, x):
        return fitted(1 / x, node)


class PowHalf(Rewrite):
    """x^½ → sqrt x  for x >= 0:  (−inf)^½ is inf, sqrt(−inf) is NaN"""

    def pattern(self, x):
        return pow(x, 0.5)

    def check(self, x):
        return nonnegative(x) or No("x may be negative")

    def build(self, node, x):
        return fitted(sqrt(x), node)


class ExpLog(Rewrite):
    """exp(log x) → x  for x >= 0"""

    def pattern(self, x):
        return exp(log(x))

    def check(self, x):
        return nonnegative(x) or No("x may be negative, where log gives NaN")

    def build(self, x):
        return x


class AbsNonnegative(Rewrite):
    """|x| → x,  max(x, 0) → x  for x >= 0"""

    def pattern(self, x):
        return abs(x), maximum(x, 0)

    def check(self, x):
        return nonnegative(x) or No("x may be negative")

    def build(self, node, x):
        return fitted(x, node)


class AbsNeg(Rewrite):
    """|−x| → |x|"""

    def pattern(self, x):
        return abs(neg(x))

    def build(self, x):
        return abs(x)


class ExtremeSelf(Rewrite):
    """max(x, x) → x,  min(x, x) → x"""

    def pattern(self, x):
        return maximum(x, x), minimum(x, x)

    def build(self, x):
        return x


class ExtremeNoLimit(Rewrite):
    """max(x, −inf) → x,  min(x, inf) → x"""

    def pattern(self, x):
        return maximum(x, -np.inf), minimum(x, np.inf)

    def build(self, node, x):
        return fitted(x, node)


class CastSame(Rewrite):
    """cast(x, its own dtype) → x"""

    def pattern(self, x, dtype):
        return cast(x, dtype=dtype)

    def check(self, x, dtype):
        return x.dtype is dtype or No(f"{x.dtype.name} becomes {dtype.name}")

    def build(self, x):
        return x


class CastCast(Rewrite):
    """cast(cast(x, a), b) → cast(x, b)  where a holds every value of x"""

    def pattern(self, x, a, b):
        return cast(cast(x, dtype=a), dtype=b)

    def check(self, x, a):
        return holds(a, x.dtype) or No(f"{a.name} does not hold every {x.dtype.name}")

    def build(self, x, b):
        return cast(x, dtype=b)


class NotNot(Rewrite):
    """not not x → x"""

    def pattern(self, x):
        return logical_not(logical_not(x))

    def build(self, x):
        return x


class NotEqual(Rewrite):
    """not x = y → x ≠ y"""

    def pattern(self, x, y):
        return logical_not(eq(x, y))

    def build(self, x, y):
        return ne(x, y)


class NotUnequal(Rewrite):
    """not x ≠ y → x = y"""

    def pattern(self, x, y):
        return logical_not(ne(x, y))

    def build(self, x, y):
        return eq(x, y)


class TestOfCast(Rewrite):
    """cast(x, number) ≠ 0 → x  for a bool x"""

    def pattern(self, x):
        return ne(cast(x), 0)

    def check(self, x):
        return x.dtype.is_bool or No(f"x is {x.dtype.name}")

    def build(self, node, x):
        return fitted(x, node)


class LogicNeutral(Rewrite):
    """x and true → x,  x or false → x"""

    def pattern(self, x):
        return logical_and(x, True), logical_or(x, False)

    def build(self, node, x):
        return fitted(x, node)


class AndFalse(Rewrite):
    """x and false → false"""

    def pattern(self, x):
        return logical_and(x, False)

    def build(self, node):
        return filled(False, node)


class OrTrue(Rewrite):
    """x or true → true"""

    def pattern(self, x):
        return logical_or(x, True)

    def build(self, node):
        return filled(True, node)


class SelectTrue(Rewrite):
    """true ? x : y → x"""

    def pattern(self, x, y):
        return select(True, x, y)

    def build(self, node, x):
        return fitted(x, node)


class SelectFalse(Rewrite):
    """false ? x : y → y"""

    def pattern(self, x, y):
        return select(False, x, y)

    def build(self, node, y):
        return fitted(y, node)


class SelectSame(Rewrite):
    """c ? x : x → x"""

    def pattern(self, c, x):
        return select(c, x, x)

    def build(self, node, x):
        return fitted(x, node)


class SelectNot(Rewrite):
    """(not c) ? x : y → c ? y : x"""

    def pattern(self, c, x, y):
        return select(logical_not(c), x, y)

    def build(self, c, x, y):
        return select(c, y, x)


def holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow` is a value of `wide`."""
    if wide is narrow or narrow.is_bool:
        return True
    if wide.is_bool or (narrow.is_float and not wide.is_float):
        return False
    if wide.is_float and narrow.is_float:
        return wide.size > narrow.size
    if wide.is_float:
        return wide.finfo.nmant + 1 >= np.iinfo(narrow.numpy).bits
    limits, inner = np.iinfo(wide.numpy), np.iinfo(narrow.numpy)
    return limits.min <= inner.min and inner.max <= limits.max


def _product(a: Node, b: Node) -> Any | None:
    """The product of two numbers where it is a normal one, or of integers; else None."""
    x, y = as_number(a), as_number(b)
    if x is None or y is None:
        return None
    with np.errstate(all="ignore"):
        product = x * y
    if not a.dtype.is_float:
        return product
    return product if np.isfinite(product) and np.abs(product) >= a.dtype.finfo.tiny else None


RULES = (
    CastSame(), CastCast(),
    AddZero(), SubFromZero(), MulOne(), MulMinusOne(), MulZero(), SubSelf(),
    NegNeg(), AddNeg(), SubNeg(), NegSub(), MulNeg(), DivNeg(), NegScaled(),
    MulNumbers(), DivNumbers(), DivPowerOfTwo(), AddNumbers(),
    PowZero(), PowTwo(), PowThree(), PowMinusOne(), PowHalf(), ExpLog(),
    AbsNonnegative(), AbsNeg(), ExtremeSelf(), ExtremeNoLimit(),
    NotNot(), NotEqual(), NotUnequal(), TestOfCast(), LogicNeutral(), AndFalse(), OrTrue(),
    SelectTrue(), SelectFalse(), SelectSame(), SelectNot(),
)
