"""The scalar functions of the loop language on n lanes, as LLVM IR text.

A function is called on the Lanes of its last argument's dtype: a comparison on those of its operands, select on those
of its values, philox_uniform on those of `word`.
"""

from __future__ import annotations

import keyword
import math

from tensorc.codegen.cpu import vectormath_erf as erf_
from tensorc.codegen.cpu import vectormath_exp as exp_
from tensorc.codegen.cpu import vectormath_integer as integer
from tensorc.codegen.cpu import vectormath_log as log_
from tensorc.codegen.cpu import vectormath_philox as philox
from tensorc.codegen.cpu import vectormath_pow as pow_
from tensorc.codegen.cpu.vectormath import Instructions, literal, llvm_type, mangled, memory_type
from tensorc.codegen.cpu.vectormath_cast import cast
from tensorc.ir.types import DType, i32

__all__ = ["Lanes", "literal", "llvm_type", "mangled", "memory_type"]

FLOAT_PREDICATES = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
INTEGER_PREDICATES = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}


class Lanes(Instructions):
    """Scalar functions on n lanes of one dtype; every method emits lines and returns an SSA name.

    sin, cos, mod and floordiv of floats and pow of integers call functions that `vectormath_library` defines: append
    `library(text, fma)` to the module.
    """

    def apply(self, name: str, *args: str) -> str:
        """The scalar function `name` of the table; "and" is the method and_."""
        method = name + "_" if keyword.iskeyword(name) else name
        result: str = getattr(self, method)(*args)
        return result

    def cmp(self, relation: str, a: str, b: str) -> str:
        """eq ne lt le gt ge as NumPy compares: with NaN all are false but ne."""
        predicates = FLOAT_PREDICATES if self.dtype.is_float else INTEGER_PREDICATES
        return self.compare(predicates[relation], a, b)

    def cast(self, x: str, to: DType) -> str:
        """x converted to lanes of another dtype as `astype` does; out of range floats saturate, NaN gives 0."""
        return cast(self, x, to)

    # -- arithmetic: multiply and add may fuse where the processor has it

    @property
    def _fusible(self) -> str:
        return "contract" if self.fma and self.dtype.is_float else ""

    def add(self, a: str, b: str) -> str:
        return self.binary("fadd" if self.dtype.is_float else "add", a, b, self._fusible)

    def sub(self, a: str, b: str) -> str:
        return self.binary("fsub" if self.dtype.is_float else "sub", a, b, self._fusible)

    def mul(self, a: str, b: str) -> str:
        return self.binary("fmul" if self.dtype.is_float else "mul", a, b, self._fusible)

    def div(self, a: str, b: str) -> str:
        return self.over(a, b)

    def neg(self, a: str) -> str:
        return self.negated(a)

    def abs(self, a: str) -> str:
        return a if self.unsigned else self.magnitude(a)

    def sign(self, x: str) -> str:
        zero = self.c(0)
        if self.unsigned:
            return self.when("ne", x, zero, self.c(1), zero)
        if not self.dtype.is_float:
            return self.when("sgt", x, zero, self.c(1), self.when("slt", x, zero, self.c(-1), zero))
        side = self.when("ogt", x, zero, self.c(1), self.when("olt", x, zero, self.c(-1), zero))
        return self.when("uno", x, x, x, side)

    def sqrt(self, x: str) -> str:
        return self.intr("sqrt", x)

    def rsqrt(self, x: str) -> str:
        return self.over(self.c(1.0), self.sqrt(x))

    def maximum(self, a: str, b: str) -> str:
        return self._extreme("max", "maximum", a, b)

    def minimum(self, a: str, b: str) -> str:
        return self._extreme("min", "minimum", a, b)

    def _extreme(self, short: str, long: str, a: str, b: str) -> str:
        if self.dtype.is_float:
            return self.intr(long, a, b, flags="nsz")
        if self.dtype.is_bool:
            return self.binary("or" if short == "max" else "and", a, b)
        return self.intr(("u" if self.unsigned else "s") + short, a, b)

    def floor(self, x: str) -> str:
        return self.down(x)

    def ceil(self, x: str) -> str:
        return self.negated(self.down(self.negated(x)))

    def round(self, x: str) -> str:
        return self.nearest(x)

    # -- comparisons, masks

    def eq(self, a: str, b: str) -> str:
        return self.cmp("eq", a, b)

    def ne(self, a: str, b: str) -> str:
        return self.cmp("ne", a, b)

    def lt(self, a: str, b: str) -> str:
        return self.cmp("lt", a, b)

    def le(self, a: str, b: str) -> str:
        return self.cmp("le", a, b)

    def gt(self, a: str, b: str) -> str:
        return self.cmp("gt", a, b)

    def ge(self, a: str, b: str) -> str:
        return self.cmp("ge", a, b)

    def and_(self, a: str, b: str) -> str:
        return self.mask("and", a, b)

    def or_(self, a: str, b: str) -> str:
        return self.mask("or", a, b)

    def xor(self, a: str, b: str) -> str:
        return self.mask("xor", a, b)

    def not_(self, a: str) -> str:
        return self.mask_not(a)

    def isnan(self, x: str) -> str:
        return self.compare("uno", x, x)

    def isfinite(self, x: str) -> str:
        return self.compare("olt", self.magnitude(x), self.c(math.inf))

    # -- division with a whole result

    def floordiv(self, a: str, b: str) -> str:
        return self._called("floordiv", a, b) if self.dtype.is_float else integer.floordiv(self, a, b)

    def mod(self, a: str, b: str) -> str:
        return self._called("mod", a, b) if self.dtype.is_float else integer.mod(self, a, b)

    def fmod(self, a: str, b: str) -> str:
        """C's fmod, of the sign of a."""
        return self._called("fmod", a, b)

    # -- transcendental functions

    def pow(self, x: str, y: str) -> str:
        return pow_.pow(self, x, y) if self.dtype.is_float else integer.pow(self, x, y)

    def exp(self, x: str) -> str:
        return exp_.exp(self, x)

    def expm1(self, x: str) -> str:
        return exp_.expm1(self, x)

    def log(self, x: str) -> str:
        return log_.log(self, x)

    def log1p(self, x: str) -> str:
        return log_.log1p(self, x)

    def sin(self, x: str) -> str:
        return self._called("sin", x)

    def cos(self, x: str) -> str:
        return self._called("cos", x)

    def tanh(self, x: str) -> str:
        return exp_.tanh(self, x)

    def sigmoid(self, x: str) -> str:
        return exp_.sigmoid(self, x)

    def softplus(self, x: str) -> str:
        return log_.softplus(self, x)

    def log_sigmoid(self, x: str) -> str:
        return log_.log_sigmoid(self, x)

    def erf(self, x: str) -> str:
        return erf_.erf(self, x)

    def erfinv(self, x: str) -> str:
        return erf_.erfinv(self, x)

    # -- random numbers

    def philox_uniform32(self, index: str, seed: str, step: str, word: str) -> str:
        return philox.uniform32(self, index, seed, step, word)

    def philox_uniform64(self, index: str, seed: str, step: str, word: str) -> str:
        return philox.uniform64(self, index, seed, step, word)

    def _called(self, function: str, *args: str) -> str:
        """A call of a function that has a branch, and therefore stands outside."""
        given = ", ".join(f"{self.T} {a}" for a in args)
        return self.emit(f"call {self.T} @tc.{function}.{self.tag}({given})")

    # -- reductions

    def combine(self, op: str, a: tuple[str, ...], b: tuple[str, ...], index: DType = i32) -> tuple[str, ...]:
        """One step of a reduction from states a (so far) and b (new).

        A state is (value,), for argmax and argmin (value, index).  There the lower index wins ties, and the first NaN
        wins all, whatever the order of combination.
        """
        if op.startswith("arg"):
            return self._combine_arg(op[3:], a, b, self.like(index))
        function = {"max": "maximum", "min": "minimum"}.get(op, op)
        return (self.apply(function, a[0], b[0]),)

    def _combine_arg(self, which: str, a: tuple[str, ...], b: tuple[str, ...], index: Lanes) -> tuple[str, ...]:
        better = self.cmp("gt" if which == "max" else "lt", b[0], a[0])
        tie = self.cmp("eq", b[0], a[0])
        if self.dtype.is_float:
            a_nan, b_nan = self.isnan(a[0]), self.isnan(b[0])
            better = self.mask("or", better, self.mask("and", b_nan, self.mask_not(a_nan)))
            tie = self.mask("or", tie, self.mask("and", a_nan, b_nan))

        earlier = index.cmp("lt", b[1], a[1])
        take = self.mask("or", better, self.mask("and", tie, earlier))
        return self.select(take, b[0], a[0]), index.select(take, b[1], a[1])
