"""Typed LLVM instructions on n lanes: what the vector mathematics is written in.

Every method emits lines of LLVM IR text and returns the SSA name of its result.  n = 1 gives scalar code of the same
operations, so a scalar tail and a vector body agree bit for bit.

No instruction here carries a fast-math flag, unless the caller names one: the algorithms of the `vectormath_…` modules
depend on the order and the rounding of each operation.

Coefficients there that name no source are minimax fits for the interval they name, highest power first, rounded from
the constant upwards; "to 2^-k" is their largest error relative to the function that they serve.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from tensorc.ir.types import DType, bf16, boolean, f16, f32, f64, i8, i16, i32, i64, u8

LLVM_SCALAR: dict[DType, str] = {
    f16: "half", bf16: "i16", f32: "float", f64: "double", i8: "i8", i16: "i16", i32: "i32", i64: "i64", u8: "i8",
    boolean: "i1",
}
"""What a value of each dtype is in a register; of bfloat16 it is its bits."""

INTEGER_OF = {f16: i16, bf16: i16, f32: i32, f64: i64}
"""The signed integer as wide as a float."""


def vector_of(scalar: str, n: int) -> str:
    """The LLVM type of n lanes of an LLVM scalar type."""
    return scalar if n == 1 else f"<{n} x {scalar}>"


def llvm_type(dtype: DType, n: int = 1) -> str:
    """The LLVM type of n lanes in registers."""
    return vector_of(LLVM_SCALAR[dtype], n)


def memory_type(dtype: DType, n: int = 1) -> str:
    """The LLVM type of n elements in memory: a bool takes a byte there."""
    return vector_of("i8" if dtype.is_bool else LLVM_SCALAR[dtype], n)


def mangled(dtype: DType, n: int = 1) -> str:
    """The suffix of an overloaded intrinsic, such as `v8f32` or `i64`."""
    tag = {"u8": "i8", "bool": "i1", "bf16": "i16"}.get(dtype.short, dtype.short)
    return tag if n == 1 else f"v{n}{tag}"


def literal(x: float, dtype: DType) -> str:
    """A number in LLVM's spelling: floats as the bits of their value rounded to `dtype`, bfloat16 as a whole number."""
    if dtype.is_bool:
        return "true" if x else "false"
    if dtype.is_integer:
        return str(int(x))
    if dtype is f64:
        return f"0x{_bits('d', x):016X}"

    if dtype is bf16:
        return str(int(np.asarray(x).astype(dtype.numpy).view(np.int16)))

    code = "f" if dtype is f32 else "e"
    try:
        packed = struct.pack(code, x)
    except OverflowError:
        packed = struct.pack(code, math.copysign(math.inf, x))
    if dtype is f16:
        return f"0xH{int.from_bytes(packed, 'little'):04X}"
    return f"0x{_bits('d', struct.unpack(code, packed)[0]):016X}"


def _bits(code: str, x: float) -> int:
    return int.from_bytes(struct.pack(f"<{code}", x), "little")


class Instructions:
    """Instructions on `n` lanes of `dtype`.

    Attributes:
        T, B, I: the LLVM types of the lanes, of a mask for them, and of integers as wide as they.
        fma: whether multiply-add is one instruction; where not, `llvm.fma` would be a call into libm and is not used.
        half: whether float16 converts to and from float32 in one instruction.
    """

    def __init__(
        self,
        line: Callable[[str], None],
        fresh: Callable[[], str],
        dtype: DType,
        n: int = 1,
        fma: bool = True,
        half: bool | None = None,
    ) -> None:
        self.line, self.fresh, self.dtype, self.n = line, fresh, dtype, n
        self.fma = fma
        self.half = fma if half is None else half
        self.T = llvm_type(dtype, n)
        self.B = vector_of("i1", n)
        self.I = vector_of(f"i{8 * dtype.size}", n)
        self.tag = mangled(dtype, n)

    def like(self, dtype: DType) -> Self:
        """The same lanes with another element type."""
        return type(self)(self.line, self.fresh, dtype, self.n, self.fma, self.half)

    @property
    def integers(self) -> Self:
        """Signed integers as wide as these floats."""
        return self.like(INTEGER_OF[self.dtype])

    # -- instructions

    def emit(self, text: str) -> str:
        """A line `%fresh = text`."""
        name = self.fresh()
        self.line(f"  {name} = {text}")
        return name

    def c(self, x: float) -> str:
        """The number x in every lane."""
        text = literal(x, self.dtype)
        return text if self.n == 1 else f"splat ({LLVM_SCALAR[self.dtype]} {text})"

    def binary(self, op: str, a: str, b: str, flags: str = "") -> str:
        """An LLVM binary instruction."""
        return self.emit(f"{op} {flags + ' ' if flags else ''}{self.T} {a}, {b}")

    def intr(self, name: str, *args: str, flags: str = "", extra: str = "") -> str:
        """A call of `llvm.name` on lanes of one type; `extra` is a literal last argument."""
        given = ", ".join(f"{self.T} {a}" for a in args) + (f", {extra}" if extra else "")
        return self.emit(f"call {flags + ' ' if flags else ''}{self.T} @llvm.{name}.{self.tag}({given})")

    def compare(self, predicate: str, a: str, b: str) -> str:
        """fcmp or icmp; `slt` and its like become unsigned where the lanes are."""
        if self.dtype.is_float:
            return self.emit(f"fcmp {predicate} {self.T} {a}, {b}")
        if predicate[0] == "s" and self.unsigned:
            predicate = "u" + predicate[1:]
        return self.emit(f"icmp {predicate} {self.T} {a}, {b}")

    def select(self, mask: str, a: str, b: str) -> str:
        """a where the mask is true, else b."""
        return self.emit(f"select {self.B} {mask}, {self.T} {a}, {self.T} {b}")

    def when(self, predicate: str, a: str, b: str, then: str, otherwise: str) -> str:
        """then where a compares to b as told, else otherwise."""
        return self.select(self.compare(predicate, a, b), then, otherwise)

    def mask(self, op: str, a: str, b: str) -> str:
        """and, or, xor of two masks."""
        return self.emit(f"{op} {self.B} {a}, {b}")

    def mask_not(self, a: str) -> str:
        return self.mask("xor", a, "true" if self.n == 1 else "splat (i1 true)")

    @property
    def unsigned(self) -> bool:
        return self.dtype is u8 or self.dtype is boolean

    def broadcast(self, scalar: str) -> str:
        """One value in every lane."""
        if self.n == 1:
            return scalar
        first = self.emit(f"insertelement {self.T} poison, {LLVM_SCALAR[self.dtype]} {scalar}, i32 0")
        return self.emit(f"shufflevector {self.T} {first}, {self.T} poison, <{self.n} x i32> zeroinitializer")

    def any(self, mask: str) -> str:
        """Whether a mask is true in some lane, an i1."""
        if self.n == 1:
            return mask
        return self.emit(f"call i1 @llvm.vector.reduce.or.v{self.n}i1({self.B} {mask})")

    def branch(self, rare: str, usual: str, otherwise: Callable[[], str]) -> str:
        """`usual`, and in the lanes of mask `rare` what `otherwise` emits, which runs only if there is such a lane.

        Ends a block named `entry` and begins one named `end`.
        """
        self.line(f"  br i1 {self.any(rare)}, label %rare, label %end")
        self.line("rare:")
        mixed = self.select(rare, otherwise(), usual)
        self.line("  br label %end")
        self.line("end:")
        return self.emit(f"phi {self.T} [{usual}, %entry], [{mixed}, %rare]")

    # -- conversions between types of these lanes

    def bits(self, a: str) -> str:
        """Floats as the integers of `self.integers`."""
        return self.emit(f"bitcast {self.T} {a} to {self.I}")

    def from_bits(self, a: str) -> str:
        """Integers of `self.integers` as these floats."""
        return self.emit(f"bitcast {self.I} {a} to {self.T}")

    def convert(self, op: str, a: str, to: Instructions) -> str:
        """A conversion instruction such as sitofp or fpext."""
        return self.emit(f"{op} {self.T} {a} to {to.T}")

    # -- arithmetic in exactly the order written

    def plus(self, a: str, b: str) -> str:
        return self.binary("fadd" if self.dtype.is_float else "add", a, b)

    def minus(self, a: str, b: str) -> str:
        return self.binary("fsub" if self.dtype.is_float else "sub", a, b)

    def times(self, a: str, b: str) -> str:
        return self.binary("fmul" if self.dtype.is_float else "mul", a, b)

    def over(self, a: str, b: str) -> str:
        """IEEE division, correctly rounded."""
        return self.binary("fdiv", a, b)

    def negated(self, a: str) -> str:
        return self.emit(f"fneg {self.T} {a}") if self.dtype.is_float else self.minus(self.c(0), a)

    def magnitude(self, a: str) -> str:
        return self.intr("fabs", a) if self.dtype.is_float else self.intr("abs", a, extra="i1 false")

    def copysign(self, a: str, sign: str) -> str:
        return self.intr("copysign", a, sign)

    def muladd(self, a: str, b: str, c: str) -> str:
        """a·b + c, with one rounding where the processor has it, else with two."""
        return self.intr("fma", a, b, c) if self.fma else self.plus(self.times(a, b), c)

    def poly(self, coefficients: Sequence[float], x: str) -> str:
        """A polynomial by Horner's rule, highest power first."""
        p = self.c(coefficients[0])
        for k in coefficients[1:]:
            p = self.muladd(p, x, self.c(k))
        return p

    def poly2(self, coefficients: Sequence[float], x: str, square: str) -> str:
        """The same polynomial as two in x², the square given, which halves the chain of dependent operations."""
        odd = len(coefficients) % 2
        even_powers = self.poly(coefficients[1 - odd :: 2], square)
        odd_powers = self.poly(coefficients[odd::2], square)
        return self.muladd(odd_powers, x, even_powers)

    def clamp(self, x: str, low: float, high: float) -> str:
        """x within [low, high]; NaN stays NaN."""
        x = self.when("olt", x, self.c(low), self.c(low), x)
        return self.when("ogt", x, self.c(high), self.c(high), x)

    # -- rounding to integers

    def nearest(self, x: str) -> str:
        """The nearest integer, half to even."""
        return self.intr("rint", x) if self.fma else self._nearest_by_adding(x)

    def down(self, x: str) -> str:
        """The largest integer that is not greater."""
        if self.fma:
            return self.intr("floor", x)
        r = self._nearest_by_adding(x)
        return self.copysign(self.minus(r, self.when("ogt", r, x, self.c(1.0), self.c(0.0))), x)

    def truncated(self, x: str) -> str:
        """The integer part."""
        if self.fma:
            return self.intr("trunc", x)
        return self.copysign(self.down(self.magnitude(x)), x)

    def _nearest_by_adding(self, x: str) -> str:
        """Adding and taking away 2^mantissa bits rounds; larger numbers are integers already.

        A processor old enough to lack fma may lack the rounding instructions too, and then they are calls into libm.
        """
        big = self.c(2.0 ** self.mantissa)
        a = self.magnitude(x)
        r = self.minus(self.plus(a, big), big)
        return self.copysign(self.when("olt", a, big, r, a), x)

    # -- the float format

    @property
    def mantissa(self) -> int:
        """Stored bits of the mantissa."""
        return 52 if self.dtype is f64 else 23

    @property
    def bias(self) -> int:
        """The exponent field of 1."""
        return 1023 if self.dtype is f64 else 127

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    def power_of_two(self, exponent: str) -> str:
        """2^exponent for integers of `self.integers` within the exponents of normal numbers."""
        i = self.integers
        return self.from_bits(i.binary("shl", i.plus(exponent, i.c(self.bias)), i.c(self.mantissa)))

    @property
    def lift(self) -> int:
        """An exponent of 2 by which denormals, and what rounds to them, become normal."""
        return self.mantissa + 2

    @property
    def vanishing(self) -> int:
        """An exponent of 2 so low that the product with a number below 2 is 0."""
        return -(self.bias + self.lift)

    def scaled(self, x: str, exponent: str) -> str:
        """x · 2^exponent for 1/2 < x < 2 and vanishing <= exponent <= bias + 2; overflow and denormals come right.

        Two factors, of which the second is 2^-lift or 2, so that the first is a normal number but for `vanishing`,
        where it is 0: a product that surely is 0 is not left to rounding, for which processors take an assist of a
        hundred cycles.
        """
        i = self.integers
        small = i.compare("slt", exponent, i.c(0))
        first = self.power_of_two(i.plus(exponent, i.select(small, i.c(self.lift), i.c(-1))))
        return self.times(self.times(x, first), self.select(small, self.c(2.0**-self.lift), self.c(2.0)))

    def split_exponent(self, x: str) -> tuple[str, str]:
        """(m, e) with x = m · 2^e, sqrt(1/2) <= m < sqrt(2), e of `self.integers`, for positive normal x."""
        i = self.integers
        b = self.bits(x)
        e = i.binary("ashr", i.minus(b, i.c(self.bits_of(math.sqrt(0.5)))), i.c(self.mantissa))
        m = self.from_bits(i.minus(b, i.binary("shl", e, i.c(self.mantissa))))
        return m, e

    def bits_of(self, x: float) -> int:
        return _bits("d" if self.dtype is f64 else "f", x)

    def rounded_product(self, x: str, factor: float) -> tuple[str, str]:
        """The integer n nearest to x · factor, as a float and as an integer, for |n| < 2^(mantissa - 2).

        Adding 1.5 · 2^mantissa rounds, and leaves n in the low bits.  Zero comes out as +0.
        """
        return self._without_magic(self.muladd(x, self.c(factor), self.c(self._magic)))

    def rounded(self, x: str) -> tuple[str, str]:
        """The integer nearest to x, as `rounded_product` gives it."""
        return self._without_magic(self.plus(x, self.c(self._magic)))

    @property
    def _magic(self) -> float:
        return 1.5 * 2.0**self.mantissa

    def _without_magic(self, shifted: str) -> tuple[str, str]:
        i = self.integers
        n = self.minus(shifted, self.c(self._magic))
        return n, i.minus(self.bits(shifted), i.c(self.bits_of(self._magic)))

    # -- exact sums and products: pairs (high, low) whose sum is the result

    def two_sum(self, a: str, b: str) -> tuple[str, str]:
        """a + b exactly (Knuth)."""
        s = self.plus(a, b)
        t = self.minus(s, a)
        return s, self.plus(self.minus(a, self.minus(s, t)), self.minus(b, t))

    def fast_two_sum(self, a: str, b: str) -> tuple[str, str]:
        """a + b exactly for |a| >= |b| (Dekker)."""
        s = self.plus(a, b)
        return s, self.minus(b, self.minus(s, a))

    def two_product(self, a: str, b: str) -> tuple[str, str]:
        """a · b exactly, unless the low part underflows."""
        p = self.times(a, b)
        if self.fma:
            return p, self.intr("fma", a, b, self.negated(p))

        ah, al = self.halves(a)
        bh, bl = self.halves(b)
        low = self.minus(self.times(ah, bh), p)
        low = self.plus(self.plus(low, self.times(ah, bl)), self.times(al, bh))
        return p, self.plus(low, self.times(al, bl))

    def halves(self, a: str) -> tuple[str, str]:
        """a as a sum of two numbers of at most half the mantissa's bits each (the low one with a sign)."""
        i = self.integers
        drop = self.mantissa // 2 + 1
        high = self.from_bits(i.binary("and", self.bits(a), i.c(-(1 << drop))))
        return high, self.minus(a, high)
