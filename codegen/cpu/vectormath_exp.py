"""exp and what is made of it: expm1, sigmoid, tanh.

x = n ln 2 + r with |r| <= ln(2)/2 (Cody & Waite), exp x = 2^n exp r.
"""

from __future__ import annotations

import math

from tensorc.codegen.cpu.vectormath import Instructions
from tensorc.ir.types import f64

LOG2_E = 1.4426950408889634

# ln 2 in two parts; the first has so few bits that its products with an exponent are exact.
LN2_F32 = (0.693359375, -2.12194440e-4)
LN2_F64 = (0.693147180369123816490, 1.90821492927058770002e-10)

# (exp r - 1 - r) / r² on |r| <= 0.3466, minimax.
EXP_F32 = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
EXP_F64 = tuple(1 / math.factorial(k) for k in range(13, 1, -1))

# tanh x = x + x³ P(x²) on |x| <= 0.625.
TANH_F32 = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
TANH_F64P = (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3)
TANH_F64Q = (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3)


def reduced(o: Instructions, x: str) -> tuple[str, str]:
    """(r, n) with x = n ln 2 + r, for |x| below 2^mantissa / 8; n is of `o.integers`."""
    high, low = LN2_F64 if o.dtype is f64 else LN2_F32
    n, exponent = o.rounded_product(x, LOG2_E)
    r = o.muladd(n, o.c(-high), x)
    return o.muladd(n, o.c(-low), r), exponent


def expm1_reduced(o: Instructions, r: str) -> str:
    """exp r - 1 for |r| <= ln(2)/2."""
    p = o.poly(EXP_F64 if o.dtype is f64 else EXP_F32, r)
    return o.muladd(p, o.times(r, r), r)


def exp(o: Instructions, x: str) -> str:
    """exp x: denormal results, overflow to inf, 0 of -inf, NaN of NaN."""
    x = o.clamp(x, *((-746.0, 710.0) if o.dtype is f64 else (-104.0, 89.0)))
    r, n = reduced(o, x)
    return o.scaled(o.plus(expm1_reduced(o, r), o.c(1.0)), n)


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
    """exp(-|x|), in [0, 1]."""
    a = o.negated(o.magnitude(x))
    low = -746.0 if o.dtype is f64 else -104.0
    r, n = reduced(o, o.when("olt", a, o.c(low), o.c(low), a))
    return o.scaled(o.plus(expm1_reduced(o, r), o.c(1.0)), n)


def sigmoid(o: Instructions, x: str) -> str:
    """1 / (1 + exp(-x)), relatively accurate in the far tail, where it is exp x."""
    e = exp_of_minus_magnitude(o, x)
    top = o.when("olt", x, o.c(0.0), e, o.c(1.0))
    return o.over(top, o.plus(e, o.c(1.0)))


def tanh(o: Instructions, x: str) -> str:
    """tanh x; tanh(±0) = ±0, tanh(±inf) = ±1.

    Near 0 an odd polynomial (f64: a rational, Cephes), elsewhere 1 - 2 / (exp(2|x|) + 1).
    """
    z = o.times(x, x)
    xz = o.times(x, z)
    if o.dtype is f64:
        near = o.muladd(xz, o.over(o.poly(TANH_F64P, z), o.poly(TANH_F64Q, z)), x)
    else:
        near = o.muladd(xz, o.poly(TANH_F32, z), x)

    a = o.magnitude(x)
    limit = 22.0 if o.dtype is f64 else 10.0
    capped = o.when("ogt", a, o.c(limit), o.c(limit), a)
    r, n = reduced(o, o.plus(capped, capped))
    grown = o.times(o.plus(expm1_reduced(o, r), o.c(1.0)), o.power_of_two(n))
    far = o.minus(o.c(1.0), o.over(o.c(2.0), o.plus(grown, o.c(1.0))))
    return o.when("olt", a, o.c(0.625), near, o.copysign(far, x))
