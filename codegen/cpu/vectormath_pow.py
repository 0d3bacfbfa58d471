"""x to the power y for floats, as C99 and NumPy define it.

|x|^y = exp(y log |x|) needs log with more bits than the result has: f32 goes through f64, f64 through pairs of f64.
"""

from __future__ import annotations

import math

from tensorc.codegen.cpu.vectormath import Instructions
from tensorc.codegen.cpu.vectormath_exp import LN2_F64, LOG2_E, exp_reduced
from tensorc.codegen.cpu.vectormath_log import whole
from tensorc.ir.types import f64

# log2(1 + f) / f on sqrt(1/2) <= 1 + f <= sqrt(2), to 2^-35.
LOG2_OF_F32 = (
    0.07736451067567535, -0.14283503386795726, 0.14474920675789515, -0.14315750813548417,
    0.1587698196673642, -0.18030050651061616, 0.2061753535280243, -0.2404531694503369,
    0.2885372937202851, -0.36067367476156575, 0.4808983613924773, -0.7213475208690906,
    1.4426950408687105,
)  # fmt: skip

# (2^r - 1) / r on |r| <= 1/2, to 2^-28.
EXP2_F32 = (0.00015329264, 0.0013390969, 0.009618499, 0.055503596, 0.24022648, 0.6931472)

# (atanh(s) / s - 1) / s² = 1/3 + s² Q(s²) on |s| <= 0.1716: Q, to 2^-76, and 1/3 as a pair.
ATANH_F64 = (
    0.060152953157486415, 0.05139391985502036, 0.058886375032431465, 0.06666479878717692,
    0.07692311093540032, 0.09090909053006845, 0.11111111111358257, 0.14285714285713444,
    0.2,
)  # fmt: skip
THIRD = (0.3333333333333333, 1.850371707708594e-17)


def pow(o: Instructions, x: str, y: str) -> str:
    """x to the power y.

    A negative x with a y that is not whole gives NaN; 1 and exponent 0 give 1 whatever the other is; (-1)^±inf = 1.
    """
    a = o.magnitude(x)
    tiny = o.compare("olt", a, o.c(o.smallest_normal))
    m, e = o.split_exponent(o.select(tiny, o.times(a, o.c(2.0**o.lift)), a))
    e = o.integers.minus(e, o.integers.select(tiny, o.integers.c(o.lift), o.integers.c(0)))

    size = _f64(o, m, e, y) if o.dtype is f64 else _f32(o, m, e, y)
    return _with_special_values(o, x, y, a, size)


def _f32(o: Instructions, m: str, e: str, y: str) -> str:
    """(m 2^e)^y: the exponent y (e + log2 m) in f64, its power of two in f32."""
    wide = o.like(f64)
    f = wide.minus(o.convert("fpext", m, wide), wide.c(1.0))
    log2 = wide.muladd(wide.poly2(LOG2_OF_F32, f, wide.times(f, f)), f, o.integers.convert("sitofp", e, wide))
    exponent = wide.clamp(wide.times(o.convert("fpext", y, wide), log2), o.vanishing, o.bias + 2)

    n, _ = wide.rounded(exponent)
    r = wide.convert("fptrunc", wide.minus(exponent, n), o)
    whole_part = o.convert("fptosi", wide.convert("fptrunc", n, o), o.integers)
    return o.scaled(o.muladd(o.poly2(EXP2_F32, r, o.times(r, r)), r, o.c(1.0)), whole_part)


def _f64(o: Instructions, m: str, e: str, y: str) -> str:
    """(m 2^e)^y through log(m 2^e) as a pair that is good to about 2^-66."""
    high, low = _log_pair(o, m, whole(o, e))

    # A larger exponent gives 0, 1 or inf just as this one does, and keeps inf out of the pairs.
    huge = 2.0**65
    y = o.clamp(y, -huge, huge)
    p, rest = o.two_product(y, high)
    rest = o.muladd(y, low, rest)

    within = o.clamp(p, o.vanishing / LOG2_E, (o.bias + 2) / LOG2_E)
    rest = o.select(o.compare("one", within, p), o.c(0.0), rest)
    p = within

    n, exponent = o.rounded_product(p, LOG2_E)
    r = o.muladd(n, o.c(-LN2_F64[0]), p)
    r = o.plus(r, o.muladd(n, o.c(-LN2_F64[1]), rest))
    return o.scaled(exp_reduced(o, r), exponent)


def _log_pair(o: Instructions, m: str, e: str) -> tuple[str, str]:
    """e ln 2 + log m as a pair: log m = 2 atanh(s), s = (m - 1) / (m + 1)."""
    f = o.minus(m, o.c(1.0))
    d, d_low = o.two_sum(m, o.c(1.0))
    inverse = o.over(o.c(1.0), d)
    s = o.times(f, inverse)
    p, p_low = o.two_product(s, d)
    s_low = o.times(o.minus(o.minus(o.minus(f, p), p_low), o.times(s, d_low)), inverse)

    z, z_low = o.two_product(s, s)
    z_low = o.muladd(o.plus(s, s), s_low, z_low)

    # c = s³ (1/3 + z Q(z)), every factor a pair.
    a, a_low = o.fast_two_sum(o.c(THIRD[0]), o.times(z, o.poly2(ATANH_F64, z, o.times(z, z))))
    a_low = o.plus(a_low, o.c(THIRD[1]))
    b, b_low = o.two_product(a, z)
    b_low = o.muladd(a, z_low, o.muladd(a_low, z, b_low))
    c, c_low = o.two_product(b, s)
    c_low = o.muladd(b, s_low, o.muladd(b_low, s, c_low))

    t, t_low = o.fast_two_sum(s, c)
    t_low = o.plus(t_low, o.plus(s_low, c_low))

    high, low = o.fast_two_sum(o.times(e, o.c(LN2_F64[0])), o.plus(t, t))
    return high, o.plus(low, o.muladd(e, o.c(LN2_F64[1]), o.plus(t_low, t_low)))


def _with_special_values(o: Instructions, x: str, y: str, a: str, size: str) -> str:
    """x^y from |x|^y, right for every x and y."""
    i = o.integers
    zero, one, inf, nan = (o.c(v) for v in (0.0, 1.0, math.inf, math.nan))

    # |x| = 0 or inf: the result is inf where |x| is large just when y is positive.
    infinite = o.compare("oeq", a, inf)
    edge = o.mask("or", infinite, o.compare("oeq", a, zero))
    grows = o.mask("xor", infinite, o.compare("olt", y, zero))
    size = o.select(edge, o.select(grows, inf, zero), size)
    size = o.when("oeq", a, one, one, size)

    half = o.times(y, o.c(0.5))
    whole_y = o.compare("oeq", o.nearest(y), y)
    odd = o.mask("and", whole_y, o.compare("one", o.nearest(half), half))
    sign = i.binary("and", o.bits(x), i.c(-(1 << (8 * o.dtype.size - 1))))
    result = o.from_bits(i.binary("or", o.bits(size), i.select(odd, sign, i.c(0))))

    finite_negative = o.mask("and", o.compare("olt", x, zero), o.mask_not(infinite))
    undefined = o.mask("and", finite_negative, o.mask_not(whole_y))
    undefined = o.mask("or", undefined, o.compare("uno", x, y))
    result = o.select(undefined, nan, result)

    always_one = o.mask("or", o.compare("oeq", y, zero), o.compare("oeq", x, one))
    return o.select(always_one, one, result)
