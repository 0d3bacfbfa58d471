"""log and what is made of it: log1p, softplus, log_sigmoid.

x = 2^e m with sqrt(1/2) <= m < sqrt(2), log x = e ln 2 + log(1 + f), f = m - 1.
"""

from __future__ import annotations

import math

from tensorc.codegen.cpu.vectormath import Instructions
from tensorc.codegen.cpu.vectormath_exp import LN2_F32, LN2_F64, exp_of_minus_magnitude
from tensorc.ir.types import f64, i32

# (log(1 + f) - f + f²/2) / f³ on the range of f, to 2^-30.
LOG_F32 = (
    0.067494765, -0.116701566, 0.118834764, -0.124062106, 0.14220363, -0.1666799, 0.20002072,
    -0.2500001, 0.33333313,
)  # fmt: skip

# log((1 + s) / (1 - s)) = 2 s + s R(s²) (FDLIBM).
LOG_F64 = (
    1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01,
    2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01,
)  # fmt: skip


def log_reduced(o: Instructions, f: str, e: str) -> str:
    """e ln 2 + log(1 + f) for sqrt(1/2) <= 1 + f <= sqrt(2) and a whole number e."""
    square = o.times(f, f)
    half_square = o.times(square, o.c(0.5))
    if o.dtype is f64:
        high, low = LN2_F64
        s = o.over(f, o.plus(f, o.c(2.0)))
        z = o.times(s, s)
        r = o.times(o.poly(LOG_F64, z), z)
        small = o.muladd(s, o.plus(half_square, r), o.times(e, o.c(low)))
    else:
        high, low = LN2_F32
        small = o.muladd(o.poly2(LOG_F32, f, square), o.times(square, f), o.times(e, o.c(low)))

    tail = o.minus(half_square, small)
    return o.muladd(e, o.c(high), o.minus(f, tail))


def with_limits(o: Instructions, x: str, y: str) -> str:
    """log's values at the ends of its domain: -inf at 0, inf at inf, NaN below 0; elsewhere y."""
    y = o.when("oeq", x, o.c(math.inf), x, y)
    y = o.when("ult", x, o.c(0.0), o.c(math.nan), y)
    return o.when("oeq", x, o.c(0.0), o.c(-math.inf), y)


def log(o: Instructions, x: str) -> str:
    """log x; denormals are exact inputs, log(±0) = -inf, log of a negative number is NaN."""
    i = o.integers
    tiny = o.compare("olt", x, o.c(o.smallest_normal))
    m, e = o.split_exponent(o.select(tiny, o.times(x, o.c(2.0**o.lift)), x))
    e = i.minus(e, i.select(tiny, i.c(o.lift), i.c(0)))

    y = log_reduced(o, o.minus(m, o.c(1.0)), whole(o, e))
    return with_limits(o, x, y)


def whole(o: Instructions, e: str) -> str:
    """Exponents as floats, through the low half of an i64: most processors convert only 32-bit integers quickly."""
    if o.dtype is not f64:
        return o.integers.convert("sitofp", e, o)
    narrow = o.like(i32)
    return narrow.convert("sitofp", o.integers.convert("trunc", e, narrow), o)


def log1p(o: Instructions, x: str) -> str:
    """log(1 + x), accurate near 0; log1p(±0) = ±0, log1p(-1) = -inf.

    1 + x = u + c exactly, and c joins f once u is reduced.
    """
    i = o.integers
    u, c = o.two_sum(o.c(1.0), x)
    m, e = o.split_exponent(u)

    # 2^(1-e) is a number for every exponent of u, 2^-e is not.
    two = i.c(o.bits_of(2.0))
    scale = o.from_bits(i.minus(two, i.binary("shl", e, i.c(o.mantissa))))
    f = o.muladd(o.times(c, scale), o.c(0.5), o.minus(m, o.c(1.0)))

    y = with_limits(o, u, log_reduced(o, f, whole(o, e)))
    return o.when("oeq", x, o.c(0.0), x, y)


def log1p_of_fraction(o: Instructions, x: str) -> str:
    """log(1 + x) for x in [0, 1]."""
    upper = o.compare("ogt", x, o.c(math.sqrt(2.0) - 1.0))
    f = o.select(upper, o.times(o.minus(x, o.c(1.0)), o.c(0.5)), x)
    return log_reduced(o, f, o.select(upper, o.c(1.0), o.c(0.0)))


def softplus(o: Instructions, x: str) -> str:
    """log(1 + exp x) = max(x, 0) + log1p(exp(-|x|)): no overflow, relatively accurate in the tail."""
    tail = log1p_of_fraction(o, exp_of_minus_magnitude(o, x))
    return o.plus(o.when("olt", x, o.c(0.0), o.c(0.0), x), tail)


def log_sigmoid(o: Instructions, x: str) -> str:
    """log(1 / (1 + exp(-x))) = min(x, 0) - log1p(exp(-|x|))."""
    tail = log1p_of_fraction(o, exp_of_minus_magnitude(o, x))
    return o.minus(o.when("ogt", x, o.c(0.0), o.c(0.0), x), tail)
