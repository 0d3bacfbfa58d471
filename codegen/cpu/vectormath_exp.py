"""exp and what is made of it: expm1, sigmoid, tanh.

x = n ln 2 + r with |r| <= ln(2)/2 (Cody & Waite), exp x = 2^n exp r.
"""

from __future__ import annotations

from tensorc.codegen.cpu.vectormath import Instructions
from tensorc.ir.types import f64

LOG2_E = 1.4426950408889634

# ln 2 in two parts (Cephes, FDLIBM); the first has so few bits that its products with an exponent are exact.
LN2_F32 = (0.693359375, -2.12194440e-4)
LN2_F64 = (0.693147180369123816490, 1.90821492927058770002e-10)

# (exp r - 1 - r) / r² on |r| <= 0.3473: for exp to 2^-28, for expm1 to 2^-31, in double for both to 2^-61.
EXP_F32 = (0.0013822948, 0.0083688395, 0.041668244, 0.1666652, 0.49999994)
EXPM1_F32 = (0.00019944269, 0.0013932708, 0.008333208, 0.04166649, 0.16666667, 0.5)
EXP_F64 = (
    2.0920114445259583e-09, 2.5109284920577805e-08, 2.755725755933139e-07, 2.755724353685196e-06,
    2.4801587342035615e-05, 0.0001984126988675316, 0.0013888888888877056, 0.0083333333333214,
    0.04166666666666668, 0.16666666666666677, 0.5,
)  # fmt: skip

# (tanh x - x) / x³ in x² on |x| <= 0.625, to 2^-27; in double a quotient (Cephes).
TANH_F32 = (-0.0057121506, 0.020646349, -0.053742282, 0.13331479, -0.33333284)
TANH_F64_N = (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3)
TANH_F64_D = (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3)


def reduced(o: Instructions, x: str) -> tuple[str, str]:
    """(r, n) with x = n ln 2 + r, for |x| below 2^mantissa / 8; n is of `o.integers`."""
    high, low = LN2_F64 if o.dtype is f64 else LN2_F32
    n, exponent = o.rounded_product(x, LOG2_E)
    r = o.muladd(n, o.c(-high), x)
    return o.muladd(n, o.c(-low), r), exponent


def expm1_reduced(o: Instructions, r: str) -> str:
    """exp r - 1 for |r| <= ln(2)/2, relatively accurate."""
    z = o.times(r, r)
    p = o.poly2(EXP_F64 if o.dtype is f64 else EXPM1_F32, r, z)
    return o.muladd(p, z, r)


def exp_reduced(o: Instructions, r: str) -> str:
    """exp r for |r| <= ln(2)/2."""
    z = o.times(r, r)
    p = o.poly2(EXP_F64 if o.dtype is f64 else EXP_F32, r, z)
    return o.plus(o.muladd(p, z, r), o.c(1.0))


def exp(o: Instructions, x: str) -> str:
    """exp x: denormal results, overflow to inf, 0 of -inf, NaN of NaN."""
    r, n = reduced(o, o.clamp(x, o.vanishing / LOG2_E, 710.0 if o.dtype is f64 else 89.0))
    return o.scaled(exp_reduced(o, r), n)


def expm1(o: Instructions, x: str) -> str:
    """exp x - 1, accurate near 0; expm1(±0) = ±0.

    2^n (p + 1) - 1 = 2 (h p + (h - 1/2)) with p = exp r - 1 and h = 2^(n-1), which does not overflow before its time.
    """
    i = o.integers
    clamped = o.clamp(x, *((-50.0, 710.0) if o.dtype is f64 else (-30.0, 89.0)))
    r, n = reduced(o, clamped)
    p = expm1_reduced(o, r)

    h = o.power_of_two(i.minus(n, i.c(1)))
    y = o.muladd(h, p, o.minus(h, o.c(0.5)))
    y = o.select(i.compare("eq", n, i.c(0)), p, o.plus(y, y))
    return o.when("oeq", x, o.c(0.0), x, y)


def exp_of_minus_magnitude(o: Instructions, x: str) -> str:
    """exp(-|x|), in [0, 1], to little more than half an ulp.

    1 + x - n ln 2 keeps what its sums lose.  That takes four operations more than `exp`, which the quotients and
    logarithms taken of the result repay: their own errors come on top.
    """
    high, low = LN2_F64 if o.dtype is f64 else LN2_F32
    floor = o.c(o.vanishing / LOG2_E)
    a = o.negated(o.magnitude(x))
    a = o.when("olt", a, floor, floor, a)

    n, exponent = o.rounded_product(a, LOG2_E)
    first = o.muladd(n, o.c(-high), a)
    r = o.muladd(n, o.c(-low), first)

    s, s_low = o.fast_two_sum(o.c(1.0), first)
    s_low = o.muladd(n, o.c(-low), s_low)
    z = o.times(r, r)
    p = o.poly2(EXP_F64 if o.dtype is f64 else EXP_F32, r, z)
    y = o.plus(s, o.muladd(p, z, s_low))

    # Exponents here are not positive: one lift keeps the power of two normal, and a constant takes it back.
    lifted = o.times(y, o.power_of_two(o.integers.plus(exponent, o.integers.c(o.lift))))
    return o.times(lifted, o.c(2.0**-o.lift))


def sigmoid(o: Instructions, x: str) -> str:
    """1 / (1 + exp(-x)), relatively accurate in the far tail, where it is exp x.

    With e = exp(-|x|) it is 1 / (1 + e) or q = e / (1 + e) = e - e q: well below 0 the latter weighs the quotient's
    errors less.
    """
    e = exp_of_minus_magnitude(o, x)
    q = o.over(o.when("olt", x, o.c(0.0), e, o.c(1.0)), o.plus(e, o.c(1.0)))
    return o.when("olt", x, o.c(-1.25), o.muladd(o.negated(e), q, e), q)


def tanh(o: Instructions, x: str) -> str:
    """tanh x; tanh(±0) = ±0, tanh(±inf) = ±1.

    Of a = |x|: near 0 a + a³ P(a²), elsewhere 1 - 2 / (exp(2 a) + 1).
    """
    a = o.magnitude(x)
    limit = 22.0 if o.dtype is f64 else 10.0
    capped = o.when("ogt", a, o.c(limit), o.c(limit), a)
    r, n = reduced(o, o.plus(capped, capped))
    grown = o.times(exp_reduced(o, r), o.power_of_two(n))
    below_one = o.plus(grown, o.c(1.0))

    z = o.times(x, x)
    cube = o.times(a, z)
    near = o.compare("olt", a, o.c(0.625))
    if o.dtype is f64:
        top = o.select(near, o.times(cube, o.poly(TANH_F64_N, z)), o.c(-2.0))
        bottom = o.select(near, o.poly(TANH_F64_D, z), below_one)
        y = o.plus(o.select(near, a, o.c(1.0)), o.over(top, bottom))
    else:
        far = o.minus(o.c(1.0), o.over(o.c(2.0), below_one))
        y = o.select(near, o.muladd(cube, o.poly(TANH_F32, z), a), far)
    return o.copysign(y, x)
