"""sin and cos for every finite argument.

x = n π + r with |r| <= π/2 and sin x = (-1)^n sin r; for cos, x = (n + 1/2) π + r and cos x = (-1)^(n+1) sin r.
π in several parts keeps r relatively accurate (Cody & Waite) up to `near_limit`; lanes beyond it go through `_far`.
"""

from __future__ import annotations

import functools

from tensorc.codegen.cpu.vectormath import Instructions, literal
from tensorc.ir.types import f32, f64

INVERSE_PI = 0.3183098861837907

# π as sums: parts of a whole mantissa for fused multiply-add, and short ones whose products with n are exact.
PI_F32 = (3.1415927410125732, -8.742277657347586e-08, -3.4302490200117637e-15)
PI_F64 = (3.141592653589793, 1.2246467991473532e-16, -2.9947698097183397e-33)
PI_F32_SHORT = (3.1415926534682512, 1.2154201013012384e-10)
PI_F64_SHORT = (3.141592651605606, 1.9841871617964912e-09, -2.4354103497132157e-18, -5.881577340774656e-27)

# (sin r - r) / r³ in r² on |r| <= 1.583, to 2^-27 and 2^-61.
SIN_F32 = (2.6053294e-06, -0.00019809528, 0.008333067, -0.1666666)
SIN_F64 = (
    2.721076347571014e-15, -7.642992178418677e-13, 1.6058940175089266e-10, -2.5052106892447035e-08,
    2.755731921148789e-06, -0.00019841269841212273, 0.008333333333333207, -0.16666666666666666,
)  # fmt: skip

CHUNK_BITS = 26
CHUNKS = 46
FAR_SCALE = 2.0**200


def near_limit(o: Instructions) -> float:
    """Up to which |x| π in parts is accurate enough."""
    if o.dtype is f32:
        return 2.0**17 if o.fma else 2.0**19
    return 2.0**45 if o.fma else 2.0**24


def near(o: Instructions, x: str, cosine: bool) -> str:
    """sin x or cos x for |x| <= near_limit."""
    if o.dtype is f32 and not o.fma:
        wide = o.like(f64)
        r, low, n = _reduced(wide, o.convert("fpext", x, wide), PI_F32_SHORT, cosine)
        parity = wide.integers.convert("trunc", n, o.integers)
        return _signed_sine(o, wide.convert("fptrunc", wide.plus(r, low), o), o.c(0.0), parity, cosine)

    parts = PI_F32 if o.dtype is f32 else PI_F64 if o.fma else PI_F64_SHORT
    r, low, n = _reduced(o, x, parts, cosine)
    return _signed_sine(o, r, low, n, cosine)


def _reduced(o: Instructions, x: str, parts: tuple[float, ...], cosine: bool) -> tuple[str, str, str]:
    """(r, what r lacks, n)."""
    if cosine:
        n, integer = o.rounded(o.muladd(x, o.c(INVERSE_PI), o.c(-0.5)))
        n = o.plus(n, o.c(0.5))
    else:
        n, integer = o.rounded_product(x, INVERSE_PI)

    r = x
    for part in parts[:-1]:
        r = o.muladd(n, o.c(-part), r)
    return r, o.times(n, o.c(-parts[-1])), integer


def _signed_sine(o: Instructions, r: str, low: str, n: str, cosine: bool) -> str:
    """sin r + low, negated for odd n (for cosine, for even n)."""
    i = o.integers
    z = o.times(r, r)
    p = o.poly(SIN_F32 if o.dtype is f32 else SIN_F64, z)
    y = o.plus(r, o.muladd(o.times(r, z), p, low))

    if cosine:
        n = i.plus(n, i.c(1))
    sign = i.binary("shl", n, i.c(8 * o.dtype.size - 1))
    return o.from_bits(i.binary("xor", o.bits(y), sign))


def sin(o: Instructions, lines: list[str]) -> None:
    """The body of sin(%a)."""
    _body(o, lines, cosine=False)


def cos(o: Instructions, lines: list[str]) -> None:
    """The body of cos(%a)."""
    _body(o, lines, cosine=True)


def sin_far(o: Instructions, lines: list[str]) -> None:
    """The body of sin(%a) for large %a."""
    _far(o, lines, cosine=False)


def cos_far(o: Instructions, lines: list[str]) -> None:
    """The body of cos(%a) for large %a."""
    _far(o, lines, cosine=True)


def _body(o: Instructions, lines: list[str], cosine: bool) -> None:
    usual = near(o, "%a", cosine)
    if not cosine:
        usual = o.when("oeq", "%a", o.c(0.0), "%a", usual)

    rare = o.compare("ogt", o.magnitude("%a"), o.c(near_limit(o)))
    name = "cos_far" if cosine else "sin_far"
    y = o.branch(rare, usual, lambda: o.emit(f"call {o.T} @tc.{name}.{o.tag}({o.T} %a) cold"))
    lines.append(f"  ret {o.T} {y}")


def _far(o: Instructions, lines: list[str], cosine: bool) -> None:
    """sin %a or cos %a in double, from x / π less its whole part; NaN for inf."""
    wide = o.like(f64)
    x = "%a" if o.dtype is f64 else o.convert("fpext", "%a", wide)
    high, low, whole = _half_turns(wide, lines, x, -0.5 if cosine else 0.0)

    r, r_low = wide.two_product(high, wide.c(PI_F64[0]))
    r_low = wide.muladd(high, wide.c(PI_F64[1]), wide.muladd(low, wide.c(PI_F64[0]), r_low))
    integer = wide.emit(f"call {wide.I} @llvm.fptosi.sat.{wide.integers.tag}.{wide.tag}({wide.T} {whole})")

    # sin(r + low) = sin r + low cos r, and 1 - (2 r / π)² is close enough to the cosine for that.
    slope = wide.muladd(wide.times(r, r), wide.c(-4 * INVERSE_PI**2), wide.c(1.0))
    y = _signed_sine(wide, r, wide.times(r_low, slope), integer, cosine)
    lines.append(f"  ret {o.T} {y if o.dtype is f64 else wide.convert('fptrunc', y, o)}")


def _half_turns(o: Instructions, lines: list[str], x: str, start: float) -> tuple[str, str, str]:
    """start + x / π as (high, low, whole): a pair within ±1/2 and a whole number, modulo 2.  Begins a block.

    1/π is a sum of chunks of 26 bits.  Their products with either half of x are exact, and so is what remains of them
    modulo 2.  The remainders add up in a pair that loses its whole part as it goes (after Payne & Hanek).
    """
    halves = o.halves(o.times(x, o.c(1 / FAR_SCALE)))
    zero = o.c(0.0)

    lines += ["  br label %loop", "loop:"]
    head = len(lines)
    state = high, low, whole = o.fresh(), o.fresh(), o.fresh()
    k, following = o.fresh(), o.fresh()
    chunk = o.broadcast(o.emit(f"load double, ptr {o.emit(f'getelementptr double, ptr @tc.inverse_pi, i64 {k}')}"))
    for half in halves:
        state = _accumulated(o, state, o.times(half, chunk))

    lines.insert(head, f"  {k} = phi i64 [0, %entry], [{following}, %loop]")
    for name, first, then in zip((high, low, whole), (o.c(start), zero, zero), state, strict=True):
        lines.insert(head, f"  {name} = phi {o.T} [{first}, %entry], [{then}, %loop]")
    lines.append(f"  {following} = add i64 {k}, 1")
    lines.append(f"  br i1 {o.emit(f'icmp slt i64 {following}, {CHUNKS}')}, label %loop, label %done")
    lines.append("done:")
    return state


def _accumulated(o: Instructions, state: tuple[str, str, str], p: str) -> tuple[str, str, str]:
    """(high + low, whole part) with p added: p first modulo 2, then what is whole of the sum moved over."""
    high, low, whole = state
    p = o.minus(p, o.times(o.nearest(o.times(p, o.c(0.5))), o.c(2.0)))
    high, error = o.two_sum(high, p)
    n = o.nearest(high)
    return *o.fast_two_sum(o.minus(high, n), o.plus(low, error)), o.plus(whole, n)


def inverse_pi_table() -> str:
    """The chunks of 1/π, scaled so that none is a denormal number."""
    bits = inverse_pi_bits(CHUNK_BITS * CHUNKS)
    chunks = []
    for k in range(CHUNKS):
        digit = (bits >> (CHUNK_BITS * (CHUNKS - 1 - k))) & ((1 << CHUNK_BITS) - 1)
        chunks.append(digit * 2.0 ** -(CHUNK_BITS * (k + 1) - 200))
    values = ", ".join(f"double {literal(c, f64)}" for c in chunks)
    return f"@tc.inverse_pi = internal constant [{CHUNKS} x double] [{values}]\n"


@functools.cache
def inverse_pi_bits(n: int) -> int:
    """floor(2^n / π), by Machin's formula π = 16 arctan(1/5) - 4 arctan(1/239)."""
    one = 1 << (n + 64)

    def arctan(inverse: int) -> int:
        term = total = one // inverse
        k = 1
        while term:
            term //= -inverse * inverse
            k += 2
            total += term // k
        return total

    return (one << n) // (16 * arctan(5) - 4 * arctan(239))
