"""What generated GPU code says beyond Python's operators: each intrinsic's types, its LLVM, its meaning in NumPy.

Python's `+` on two int32 is an int64 to Numba, and its comparisons know nothing of NumPy's NaN, so the text calls
`add(a, b)` and `maximum(a, b)`.  This table imports neither Numba nor CUDA: `compile.py` hands it to Numba,
`lockstep.py` runs it over NumPy, and the tests compile its LLVM for the host and hold the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir as llvm

from tensorc.codegen import scalars_numpy
from tensorc.ir.types import DTYPES, DType, bf16, boolean, f16, f32, f64, i8, i16, i32, i64, u8
from tensorc.ops import philox, special

Build = Callable[[Any, tuple[DType, ...], Sequence[Any]], Any]
INTEGERS = (i8, i16, i32, i64, u8)
BITS = DType("uint16", "u16", 2)
"""What a register holds of a float of 16 bits: the number of its bits."""


def in_register(dtype: DType) -> DType:
    """What values of a dtype are while a kernel works with them."""
    return BITS if dtype.is_half else dtype


REGISTERS = tuple(dict.fromkeys(map(in_register, DTYPES)))


@dataclass(frozen=True)
class Intrinsic:
    """
    Attributes:
        arity: how many arguments it takes.
        result: its dtype from the arguments', None where they do not fit.
        build: (llvmlite builder, dtypes of the arguments, their values) → the LLVM value of the result.
        numpy: the same over NumPy arrays.
    """

    name: str
    arity: int
    result: Callable[[tuple[DType, ...]], DType | None]
    build: Build
    numpy: Callable[..., Any]


INTRINSICS: dict[str, Intrinsic] = {}


def llvm_type(dtype: DType) -> Any:
    """The LLVM type of a value in a register."""
    if dtype is f32:
        return llvm.FloatType()
    if dtype is f64:
        return llvm.DoubleType()
    return llvm.IntType(1 if dtype.is_bool else 8 * dtype.size)


def is_unsigned(dtype: DType) -> bool:
    """Whether an integer dtype has no sign; a bool has none."""
    return dtype.is_bool or dtype.short[0] == "u"


def _number(dtype: DType, value: float) -> Any:
    return llvm.Constant(llvm_type(dtype), value)


# -- rules


def _alike(count: int, *dtypes: DType) -> Callable[[tuple[DType, ...]], DType | None]:
    return lambda given: given[0] if len(given) == count and given[0] in dtypes and len({*given}) == 1 else None


def _chosen(given: tuple[DType, ...]) -> DType | None:
    fits = len(given) == 3 and given[0].is_bool and given[1] is given[2]
    return given[1] if fits else None


def _drawn(dtype: DType) -> Callable[[tuple[DType, ...]], DType | None]:
    return lambda given: dtype if given == (i64, i64, i64, i32) else None


def _define(name: str, result: Callable[[tuple[DType, ...]], DType | None], numpy: Callable[..., Any],
            build: Build, arity: int = 1) -> None:
    INTRINSICS[name] = Intrinsic(name, arity, result, build, numpy)


# -- integers


def _plain(instruction: str) -> Build:
    return lambda b, _, args: getattr(b, instruction)(*args)


_define("add", _alike(2, *INTEGERS), np.add, _plain("add"), arity=2)
_define("sub", _alike(2, *INTEGERS), np.subtract, _plain("sub"), arity=2)
_define("mul", _alike(2, *INTEGERS), np.multiply, _plain("mul"), arity=2)
_define("neg", _alike(1, *INTEGERS), np.negative, _plain("neg"))
_define("either", _alike(2, boolean), np.logical_or, _plain("or_"), arity=2)
_define("both", _alike(2, boolean), np.logical_and, _plain("and_"), arity=2)
_define("differ", _alike(2, boolean), np.logical_xor, _plain("xor"), arity=2)
_define("negate", _alike(1, boolean), np.logical_not, _plain("not_"))


# Of indices, which are not negative: divided as if unsigned, which takes half the instructions.
_define("quo", _alike(2, i32, i64), np.floor_divide, _plain("udiv"), arity=2)
_define("rem", _alike(2, i32, i64), np.remainder, _plain("urem"), arity=2)


def _divided(b: Any, dtypes: tuple[DType, ...], args: Sequence[Any]) -> tuple[Any, Any]:
    """Quotient and remainder rounded downwards; both are 0 for a divisor of 0."""
    (dtype, _), (x, y) = dtypes, args
    zero, one = _number(dtype, 0), _number(dtype, 1)
    none = b.icmp_unsigned("==", y, zero)
    if is_unsigned(dtype):
        y = b.select(none, one, y)
        quotient, rest = b.udiv(x, y), b.urem(x, y)
    else:
        minus = _number(dtype, -1)
        overflows = b.and_(b.icmp_signed("==", y, minus),
                           b.icmp_signed("==", x, _number(dtype, -(2 ** (8 * dtype.size - 1)))))
        safe = b.select(b.or_(none, overflows), one, y)
        quotient, rest = b.sdiv(x, safe), b.srem(x, safe)
        below = b.and_(b.icmp_signed("!=", rest, zero), b.icmp_signed("<", b.xor(rest, y), zero))
        quotient = b.select(below, b.sub(quotient, one), quotient)
        rest = b.select(below, b.add(rest, y), rest)
    return b.select(none, zero, quotient), b.select(none, zero, rest)


_define("floordiv", _alike(2, *INTEGERS), np.floor_divide, lambda *a: _divided(*a)[0], arity=2)
_define("modulo", _alike(2, *INTEGERS), np.remainder, lambda *a: _divided(*a)[1], arity=2)


def _power(b: Any, dtypes: tuple[DType, ...], args: Sequence[Any]) -> Any:
    """By squaring, bit after bit of the exponent; of a negative exponent the integer part of the result."""
    (dtype, _), (x, y) = dtypes, args
    zero, one = _number(dtype, 0), _number(dtype, 1)
    before, loop = b.block, b.append_basic_block("power")
    after = b.append_basic_block("powered")
    b.branch(loop)
    b.position_at_end(loop)
    total, square, left = (b.phi(llvm_type(dtype)) for _ in range(3))
    raised = b.select(b.trunc(left, llvm.IntType(1)), b.mul(total, square), total)
    halved = b.lshr(left, one)
    for phi, start, value in ((total, one, raised), (square, x, b.mul(square, square)), (left, y, halved)):
        phi.add_incoming(start, before)
        phi.add_incoming(value, loop)
    b.cbranch(b.icmp_unsigned("!=", halved, zero), loop, after)
    b.position_at_end(after)
    total = raised
    if is_unsigned(dtype):
        return total
    sign = b.select(b.trunc(y, llvm.IntType(1)), x, one)
    of_unit = b.select(b.or_(b.icmp_signed("==", x, one), b.icmp_signed("==", x, _number(dtype, -1))), sign, zero)
    return b.select(b.icmp_signed("<", y, zero), of_unit, total)


_define("power", _alike(2, *INTEGERS), scalars_numpy.power, _power, arity=2)


# Bits, and LLVM's own divisions, as functions of users have them.  Where a divisor gives nothing it counts as 1.
def _unsigned(x: Any) -> Any:
    return x.view(f"u{x.dtype.itemsize}")


def _shift_numpy(shift: Callable[..., Any], unsigned: bool = False) -> Callable[[Any, Any], Any]:
    def run(x: Any, y: Any) -> Any:
        places = y & y.dtype.type(8 * y.dtype.itemsize - 1)
        return shift(_unsigned(x), _unsigned(places)).view(x.dtype) if unsigned else shift(x, places)
    return run


def _shift(instruction: str) -> Build:
    def build(b: Any, dtypes: tuple[DType, ...], args: Sequence[Any]) -> Any:
        return getattr(b, instruction)(args[0], b.and_(args[1], _number(dtypes[0], 8 * dtypes[0].size - 1)))
    return build


def _divisor(b: Any, dtype: DType, args: Sequence[Any]) -> Any:
    lowest = _number(dtype, -(2 ** (8 * dtype.size - 1)))
    over = b.and_(b.icmp_signed("==", args[0], lowest), b.icmp_signed("==", args[1], _number(dtype, -1)))
    return b.select(b.or_(over, b.icmp_signed("==", args[1], _number(dtype, 0))), _number(dtype, 1), args[1])


def _division(instruction: str) -> Build:
    return lambda b, dtypes, args: getattr(b, instruction)(args[0], _divisor(b, dtypes[0], args))


def _division_numpy(unsigned: bool, rest: bool) -> Callable[[Any, Any], Any]:
    def run(x: Any, y: Any) -> Any:
        lowest = np.iinfo(x.dtype).min
        safe = np.where((y == 0) | (x == lowest) & (y == -1), 1, y).astype(y.dtype)
        if unsigned:
            found = np.remainder if rest else np.floor_divide
            return found(_unsigned(x), _unsigned(safe)).view(x.dtype)
        left = np.fmod(x, safe)
        return left if rest else (x - left) // safe
    return run


SIGNED = (i8, i16, i32, i64)
for _name, _of, _instruction in (("bit_and", np.bitwise_and, "and_"), ("bit_or", np.bitwise_or, "or_"),
                                 ("bit_xor", np.bitwise_xor, "xor")):
    _define(_name, _alike(2, *SIGNED), _of, _plain(_instruction), arity=2)
_define("shl", _alike(2, *SIGNED), _shift_numpy(np.left_shift), _shift("shl"), arity=2)
_define("ashr", _alike(2, *SIGNED), _shift_numpy(np.right_shift), _shift("ashr"), arity=2)
_define("lshr", _alike(2, *SIGNED), _shift_numpy(np.right_shift, unsigned=True), _shift("lshr"), arity=2)
for _name in ("sdiv", "srem", "udiv", "urem"):
    _define(_name, _alike(2, *SIGNED), _division_numpy(_name[0] == "u", _name.endswith("rem")), _division(_name),
            arity=2)
_define("ctpop", _alike(1, *SIGNED), lambda x: np.bitwise_count(_unsigned(x)).astype(x.dtype),
        lambda b, _, args: b.ctpop(args[0]))


# -- choices


def _compared(sign: str) -> Build:
    def build(b: Any, dtypes: tuple[DType, ...], args: Sequence[Any]) -> Any:
        (dtype, _), (x, y) = dtypes, args
        if dtype.is_float:
            wins = b.or_(b.fcmp_ordered(sign, x, y), b.fcmp_unordered("uno", x, x))
        else:
            wins = (b.icmp_unsigned if is_unsigned(dtype) else b.icmp_signed)(sign, x, y)
        return b.select(wins, x, y)
    return build


_define("maximum", _alike(2, f32, f64, boolean, *INTEGERS), np.maximum, _compared(">"), arity=2)
_define("minimum", _alike(2, f32, f64, boolean, *INTEGERS), np.minimum, _compared("<"), arity=2)
_define("select", _chosen, np.where, lambda b, _, args: b.select(*args), arity=3)
_define("isnan", lambda given: boolean if given in ((f32,), (f64,)) else None, np.isnan,
        lambda b, _, args: b.fcmp_unordered("uno", args[0], args[0]))


# -- conversions


def _cast(to: DType) -> Build:
    """As NumPy converts; what is out of range of an integer saturates, NaN becomes 0."""
    def build(b: Any, dtypes: tuple[DType, ...], args: Sequence[Any]) -> Any:
        (dtype,), (x,), out = dtypes, args, llvm_type(to)
        if dtype is to:
            return x
        if to.is_bool:
            zero = _number(dtype, 0)
            return b.fcmp_unordered("!=", x, zero) if dtype.is_float else b.icmp_unsigned("!=", x, zero)
        if dtype.is_float and to.is_float:
            return b.fpext(x, out) if to is f64 else b.fptrunc(x, out)
        if to.is_float:
            return b.uitofp(x, out) if is_unsigned(dtype) else b.sitofp(x, out)
        if dtype.is_float:
            return _saturated(b, dtype, to, x)
        if dtype.is_bool or to.size > dtype.size:
            return b.zext(x, out) if is_unsigned(dtype) else b.sext(x, out)
        return x if to.size == dtype.size else b.trunc(x, out)

    return build


def _saturated(b: Any, dtype: DType, to: DType, x: Any) -> Any:
    """A float as an integer: the bounds are compared as floats, so that the conversion itself is always in range."""
    bits = 8 * to.size
    low, high = (0, 2**bits - 1) if is_unsigned(to) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    above = b.fcmp_ordered(">=", x, _number(dtype, float(high + 1)))
    below = b.fcmp_ordered("<=", x, _number(dtype, float(low)))
    fits = b.and_(b.fcmp_ordered(">", x, _number(dtype, float(low))),
                  b.fcmp_ordered("<", x, _number(dtype, float(high + 1))))
    safe = b.select(fits, x, _number(dtype, 0.0))
    whole = (b.fptoui if is_unsigned(to) else b.fptosi)(safe, llvm_type(to))
    return b.select(above, _number(to, high), b.select(below, _number(to, low), whole))


def _cast_numpy(to: DType) -> Callable[[Any], Any]:
    return lambda x: special.cast(x, to)


def _converted(to: DType) -> Callable[[tuple[DType, ...]], DType | None]:
    return lambda given: to if len(given) == 1 and given[0] is not BITS else None


for _to in (*INTEGERS, f32, f64, boolean):
    _define(f"cast_{_to.short}", _converted(_to), _cast_numpy(_to), _cast(_to))

# Floats of 16 bits are stored.  NVVM has no type for bfloat16, so its bits are shifted, and rounded as whole numbers:
# the instruction for it, from capability 8.0, makes all NaNs one, which no other conversion here does.
def _widened(given: tuple[DType, ...]) -> DType | None:
    return f32 if given == (BITS,) else None


def _to_bfloat(b: Any, _: tuple[DType, ...], args: Sequence[Any]) -> Any:
    (x,), word = args, llvm.IntType(32)

    def number(value: int) -> Any:
        return llvm.Constant(word, value)

    bits = b.bitcast(x, word)
    odd = b.and_(b.lshr(bits, number(16)), number(1))
    rounded = b.add(b.add(bits, number(0x7FFF)), odd)
    nan = b.or_(b.and_(bits, number(0x80000000)), number(0x7FC00000))
    value = b.select(b.fcmp_unordered("uno", x, x), nan, rounded)
    return b.trunc(b.lshr(value, number(16)), llvm.IntType(16))


_define("from_half", _widened, lambda x: x.view(f16.numpy).astype(np.float32),
        lambda b, _, args: b.fpext(b.bitcast(args[0], llvm.HalfType()), llvm.FloatType()))
_define("to_half", lambda given: BITS if given in ((f32,), (f64,)) else None,
        lambda x: special.cast(x, f16).view(np.uint16),
        lambda b, _, args: b.bitcast(b.fptrunc(args[0], llvm.HalfType()), llvm.IntType(16)))
_define("from_bfloat", _widened, lambda x: x.view(bf16.numpy).astype(np.float32),
        lambda b, _, args: b.bitcast(b.shl(b.zext(args[0], llvm.IntType(32)), llvm.Constant(llvm.IntType(32), 16)),
                                     llvm.FloatType()))
_define("to_bfloat", lambda given: BITS if given == (f32,) else None, lambda x: special.cast(x, bf16).view(np.uint16),
        _to_bfloat)


# -- random numbers


def _philox(b: Any, index: Any, seed: Any, step: Any) -> list[Any]:
    """The four words of a block."""
    word, wide = llvm.IntType(32), llvm.IntType(64)
    half = llvm.Constant(wide, 32)

    def halves(x: Any) -> tuple[Any, Any]:
        return b.trunc(x, word), b.trunc(b.lshr(x, half), word)

    def product(x: Any, factor: int) -> tuple[Any, Any]:
        low, high = halves(b.mul(b.zext(x, wide), llvm.Constant(wide, factor)))
        return high, low

    (c0, c1), (c2, c3), (k0, k1) = halves(index), halves(step), halves(seed)
    for turn in range(philox.ROUNDS):
        if turn:
            k0 = b.add(k0, llvm.Constant(word, philox.KEY_STEP[0]))
            k1 = b.add(k1, llvm.Constant(word, philox.KEY_STEP[1]))
        high0, low0 = product(c0, philox.MULTIPLIERS[0])
        high1, low1 = product(c2, philox.MULTIPLIERS[1])
        c0, c1, c2, c3 = b.xor(b.xor(high1, c1), k0), low1, b.xor(b.xor(high0, c3), k1), low0
    return [c0, c1, c2, c3]


def _pick(b: Any, words: Sequence[Any], word: Any) -> Any:
    found = words[0]
    for number, candidate in enumerate(words[1:], 1):
        found = b.select(b.icmp_signed("==", word, llvm.Constant(llvm.IntType(32), number)), candidate, found)
    return found


def _uniform32(b: Any, _: tuple[DType, ...], args: Sequence[Any]) -> Any:
    index, seed, step, word = args
    bits = _pick(b, _philox(b, index, seed, step), word)
    whole = b.uitofp(b.lshr(bits, llvm.Constant(llvm.IntType(32), 8)), llvm.FloatType())
    return b.fmul(whole, llvm.Constant(llvm.FloatType(), 2.0**-24))


def _uniform64(b: Any, _: tuple[DType, ...], args: Sequence[Any]) -> Any:
    index, seed, step, word = args
    words = _philox(b, index, seed, step)
    wide, double = llvm.IntType(64), llvm.DoubleType()
    upper = b.zext(b.lshr(_pick(b, words[0::2], word), llvm.Constant(llvm.IntType(32), 5)), wide)
    lower = b.zext(b.lshr(_pick(b, words[1::2], word), llvm.Constant(llvm.IntType(32), 6)), wide)
    whole = b.or_(b.shl(upper, llvm.Constant(wide, 26)), lower)
    return b.fmul(b.uitofp(whole, double), llvm.Constant(double, 2.0**-53))


_define("philox_uniform32", _drawn(f32), scalars_numpy.philox_uniform32, _uniform32, arity=4)
_define("philox_uniform64", _drawn(f64), scalars_numpy.philox_uniform64, _uniform64,
        arity=4)
