"""fmod, mod and floordiv of floats, exact for any quotient.

The remainder of |a| by |b| is a - b trunc(a / b), computed exactly, while the quotient fits the mantissa; beyond that
`fmod_far` divides as on paper, a bit at a time.
"""

from __future__ import annotations

import math

from tensorc.codegen.cpu.vectormath import Instructions
from tensorc.ir.types import f32, f64


def fmod(o: Instructions, lines: list[str]) -> None:
    """C's fmod: a - b trunc(a / b), of the sign of a."""
    lines.append(f"  ret {o.T} {_fmod(o)}")


def mod(o: Instructions, lines: list[str]) -> None:
    """a - b floor(a / b), of the sign of b, as NumPy's mod."""
    rest = _fmod(o)
    lines.append(f"  ret {o.T} {_with_sign_of_divisor(o, rest)[0]}")


def floordiv(o: Instructions, lines: list[str]) -> None:
    """floor(a / b), by NumPy's definition (a - mod(a, b)) / b; a / b where b is 0."""
    rest = _fmod(o)
    _, wrong_side = _with_sign_of_divisor(o, rest)
    zero, one = o.c(0.0), o.c(1.0)

    q = o.over(o.minus("%a", rest), "%b")
    q = o.minus(q, o.select(wrong_side, one, zero))
    low = o.down(q)
    low = o.plus(low, o.when("ogt", o.minus(q, low), o.c(0.5), one, zero))

    exact = o.over("%a", "%b")
    low = o.when("oeq", q, zero, o.copysign(zero, exact), low)
    lines.append(f"  ret {o.T} {o.when('oeq', '%b', zero, exact, low)}")


def _with_sign_of_divisor(o: Instructions, rest: str) -> tuple[str, str]:
    """NumPy's mod from C's fmod, and where the two differ."""
    zero = o.c(0.0)
    differs = o.mask("xor", o.compare("olt", rest, zero), o.compare("olt", "%b", zero))
    wrong_side = o.mask("and", differs, o.compare("one", rest, zero))
    moved = o.select(wrong_side, o.plus(rest, "%b"), rest)
    return o.when("oeq", rest, zero, o.copysign(zero, "%b"), moved), wrong_side


def _fmod(o: Instructions) -> str:
    """C's fmod(%a, %b); ends the entry block."""
    a, b = o.magnitude("%a"), o.magnitude("%b")
    near = _near_remainder(o, a, b)

    # Everything beyond here, NaN, inf and division by 0 apart, has a remainder that takes longer.
    limit = 2.0**o.mantissa
    far = o.compare("ogt", a, o.times(b, o.c(limit)))
    far = o.mask("and", far, o.compare("ogt", b, o.c(0.0)))
    far = o.mask("and", far, o.compare("olt", a, o.c(math.inf)))
    if o.dtype is f64 and not o.fma:
        small = o.mask("or", o.compare("olt", b, o.c(2.0**-900)), o.compare("ogt", a, o.c(2.0**900)))
        usual = o.mask("and", o.compare("ogt", b, o.c(0.0)), o.compare("olt", a, o.c(math.inf)))
        far = o.mask("or", far, o.mask("and", small, o.mask("and", usual, o.compare("oge", a, b))))

    r = o.branch(far, near, lambda: o.emit(f"call {o.T} @tc.fmod_far.{o.tag}({o.T} {a}, {o.T} {b}) cold"))
    undefined = o.mask("or", o.compare("ueq", b, o.c(0.0)), o.compare("ueq", a, o.c(math.inf)))
    undefined = o.mask("or", undefined, o.compare("uno", a, b))
    return o.copysign(o.select(undefined, o.c(math.nan), r), "%a")


def _near_remainder(o: Instructions, a: str, b: str) -> str:
    """The remainder of a by b, both positive, where the quotient fits the mantissa."""
    q = o.truncated(o.over(a, b))
    if o.fma:
        r = o.muladd(o.negated(q), b, a)
    elif o.dtype is f32:
        wide = o.like(f64)
        product = wide.times(o.convert("fpext", q, wide), o.convert("fpext", b, wide))
        r = wide.convert("fptrunc", wide.minus(o.convert("fpext", a, wide), product), o)
    else:
        high, low = o.two_product(q, b)
        r = o.minus(o.minus(a, high), low)

    # The division may have been rounded up to the next whole number.
    r = o.when("olt", r, o.c(0.0), o.plus(r, b), r)
    return o.when("olt", a, b, a, r)


def fmod_far(o: Instructions, lines: list[str]) -> None:
    """The remainder of %a by %b where 0 < %b < %a < inf: long division on the mantissas."""
    i = o.integers
    ma, ea = _decoded(o, "%a")
    mb, eb = _decoded(o, "%b")
    steps = i.minus(ea, eb)
    steps = i.when("slt", steps, i.c(0), i.c(0), steps)

    lines += ["  br label %loop", "loop:"]
    m, left = "%m", "%left"
    lines.append(f"  {m} = phi {i.T} [{ma}, %entry], [%m.next, %loop]")
    lines.append(f"  {left} = phi {i.T} [{steps}, %entry], [%left.next, %loop]")
    active = i.compare("sgt", left, i.c(0))
    doubled = i.binary("shl", _less_if_possible(i, m, mb), i.c(1))
    lines.append(f"  %m.next = select {i.B} {active}, {i.T} {doubled}, {i.T} {m}")
    lines.append(f"  %left.next = {_call_text(i, 'smax', i.minus(left, i.c(1)), i.c(0))}")
    lines.append(f"  br i1 {o.any(active)}, label %loop, label %done")

    lines.append("done:")
    r = _less_if_possible(i, "%m.next", mb)
    lines.append(f"  ret {o.T} {_encoded(o, r, eb)}")


def _call_text(i: Instructions, name: str, a: str, b: str) -> str:
    return f"call {i.T} @llvm.{name}.{i.tag}({i.T} {a}, {i.T} {b})"


def _less_if_possible(i: Instructions, m: str, mb: str) -> str:
    rest = i.minus(m, mb)
    return i.when("slt", rest, i.c(0), m, rest)


def _leading(o: Instructions, m: str) -> str:
    """How far the highest bit of m is below the mantissa's hidden one."""
    i = o.integers
    zeros = i.intr("ctlz", m, extra="i1 false")
    return i.minus(zeros, i.c(8 * o.dtype.size - 1 - o.mantissa))


def _decoded(o: Instructions, x: str) -> tuple[str, str]:
    """(m, e) with the hidden bit of m set, for positive x, a denormal one too."""
    i = o.integers
    b = o.bits(x)
    e = i.binary("lshr", b, i.c(o.mantissa))
    m = i.binary("and", b, i.c((1 << o.mantissa) - 1))

    shift = _leading(o, m)
    denormal = i.compare("eq", e, i.c(0))
    shift = i.select(i.compare("slt", shift, i.c(o.mantissa + 1)), shift, i.c(0))
    lifted = i.binary("shl", m, shift)
    hidden = i.binary("or", m, i.c(1 << o.mantissa))
    return i.select(denormal, lifted, hidden), i.select(denormal, i.minus(i.c(1), shift), e)


def _encoded(o: Instructions, m: str, e: str) -> str:
    """The float m 2^e of the format of `_decoded`; 0 for m = 0."""
    i = o.integers
    nothing = i.compare("eq", m, i.c(0))
    shift = i.select(nothing, i.c(0), _leading(o, m))
    m, e = i.binary("shl", m, shift), i.minus(e, shift)

    denormal = i.compare("slt", e, i.c(1))
    below = i.select(denormal, i.minus(i.c(1), e), i.c(0))
    below = i.select(i.compare("slt", below, i.c(o.mantissa + 2)), below, i.c(o.mantissa + 1))
    low = i.binary("lshr", m, below)

    field = i.binary("shl", i.select(denormal, i.c(0), e), i.c(o.mantissa))
    normal = i.binary("or", i.binary("and", m, i.c((1 << o.mantissa) - 1)), field)
    bits = i.select(nothing, i.c(0), i.select(denormal, low, normal))
    return o.from_bits(bits)
