"""Integer division and powers as NumPy defines them, without a trap and without undefined behaviour."""

from __future__ import annotations

from tensorc.codegen.cpu.vectormath import Instructions
from tensorc.ir.types import f32, f64, i64


def quotient(o: Instructions, a: str, b: str) -> str:
    """a / b rounded towards zero; 0 where b is 0, and the smallest integer over -1 wraps to itself."""
    zero = o.compare("eq", b, o.c(0))
    if o.unsigned:
        q = _narrow_quotient(o, a, o.select(zero, o.c(1), b))
        return o.select(zero, o.c(0), q)

    minus_one = o.compare("eq", b, o.c(-1))
    safe = o.select(o.mask("or", zero, minus_one), o.c(1), b)
    q = o.binary("sdiv", a, safe) if o.dtype is i64 else _narrow_quotient(o, a, safe)
    q = o.select(minus_one, o.negated(a), q)
    return o.select(zero, o.c(0), q)


def _narrow_quotient(o: Instructions, a: str, b: str) -> str:
    """Through a float division: a quotient that is no integer is further from one than the rounding reaches."""
    wide = o.like(f64 if o.dtype.size == 4 else f32)
    to_float, to_integer = ("uitofp", "fptoui") if o.unsigned else ("sitofp", "fptosi")
    q = wide.over(o.convert(to_float, a, wide), o.convert(to_float, b, wide))
    return wide.convert(to_integer, q, o)


def floordiv(o: Instructions, a: str, b: str) -> str:
    """floor(a / b); 0 where b is 0."""
    q = quotient(o, a, b)
    if o.unsigned:
        return q
    rest = o.minus(a, o.times(q, b))
    return o.minus(q, o.select(_wrong_side(o, rest, b), o.c(1), o.c(0)))


def mod(o: Instructions, a: str, b: str) -> str:
    """a - b floor(a / b), of the sign of b; 0 where b is 0."""
    rest = o.minus(a, o.times(quotient(o, a, b), b))
    if not o.unsigned:
        rest = o.select(_wrong_side(o, rest, b), o.plus(rest, b), rest)
    return o.when("eq", b, o.c(0), o.c(0), rest)


def _wrong_side(o: Instructions, rest: str, b: str) -> str:
    """Whether a remainder other than 0 has not the sign of a divisor other than 0."""
    differs = o.compare("slt", o.binary("xor", rest, b), o.c(0))
    something = o.mask("and", o.compare("ne", rest, o.c(0)), o.compare("ne", b, o.c(0)))
    return o.mask("and", differs, something)


def pow(o: Instructions, x: str, y: str) -> str:
    """x to the power y, modulo 2^bits.

    A negative y gives the integer part of the real result: 0, or ±1 for x = ±1, and 0 for x = 0.
    """
    result = o.emit(f"call {o.T} @tc.pow.{o.tag}({o.T} {x}, {o.T} {y})")
    if o.unsigned:
        return result

    odd = o.compare("ne", o.binary("and", y, o.c(1)), o.c(0))
    unit = o.when("eq", x, o.c(-1), o.select(odd, o.c(-1), o.c(1)), o.when("eq", x, o.c(1), o.c(1), o.c(0)))
    return o.when("slt", y, o.c(0), unit, result)


def pow_by_squaring(o: Instructions, lines: list[str]) -> None:
    """The body of pow(%a, %b) for %b >= 0: as many turns as the largest exponent has bits."""
    result, square, left = o.fresh(), o.fresh(), o.fresh()
    lines += ["  br label %loop", "loop:"]
    head = len(lines)

    odd = o.compare("ne", o.binary("and", left, o.c(1)), o.c(0))
    next_result = o.select(odd, o.times(result, square), result)
    next_square = o.times(square, square)
    next_left = o.binary("lshr", left, o.c(1))
    again = o.any(o.compare("ne", next_left, o.c(0)))

    states = ((result, o.c(1), next_result), (square, "%a", next_square), (left, "%b", next_left))
    for name, first, then in states:
        lines.insert(head, f"  {name} = phi {o.T} [{first}, %entry], [{then}, %loop]")
    lines += [f"  br i1 {again}, label %loop, label %done", "done:", f"  ret {o.T} {next_result}"]
