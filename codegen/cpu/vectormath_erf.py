"""erf and its inverse."""

from __future__ import annotations

import math

from tensorc.codegen.cpu.vectormath import Instructions
from tensorc.codegen.cpu.vectormath_exp import expm1
from tensorc.codegen.cpu.vectormath_log import log
from tensorc.ir.types import f64

# erf x / x - 1 in x² for |x| <= ERF_NEAR, and -log(erfc x) / x - 1 in x beyond it.
ERF_NEAR_F32 = (-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
ERF_FAR_F32 = (
    -1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1,
)  # fmt: skip
ERF_NEAR = {False: 0.925, True: 1.0}
ERF_END = {False: 4.0, True: 6.0}

# Giles 2010, single precision: erfinv x / x in w - 5/2 and in sqrt(w) - 3, w = -log(1 - x²).
ERFINV_F32_NEAR = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
ERFINV_F32_FAR = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip

# Wichura 1988, PPND16: numerators and denominators of the three ranges.
PPND16_MIDDLE = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
)  # fmt: skip
PPND16_TAIL = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258,
     3.64784832476320460504, 5.76949722146069140550, 4.63033784615654529590, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940, 2.05319162663775882187, 1.0),
)  # fmt: skip
PPND16_FAR_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580, 5.46378491116411436990, 6.65790464350110377720),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
)  # fmt: skip


def erf(o: Instructions, x: str) -> str:
    """The error function; ±1 at ±inf, erf(±0) = ±0.

    Near 0 an odd polynomial, beyond it 1 - exp(-p(|x|)) with p a polynomial for -log(erfc).
    """
    double = o.dtype is f64
    a = o.magnitude(x)
    z = o.times(x, x)
    near = o.muladd(o.poly(ERF_NEAR_F64 if double else ERF_NEAR_F32, z), x, x)

    t = o.when("ogt", a, o.c(ERF_END[double]), o.c(ERF_END[double]), a)
    exponent = o.muladd(o.poly(ERF_FAR_F64 if double else ERF_FAR_F32, t), t, o.negated(t))
    far = o.copysign(o.negated(expm1(o, exponent)), x)
    return o.when("ogt", a, o.c(ERF_NEAR[double]), far, near)


def erfinv(o: Instructions, x: str) -> str:
    """The inverse of erf; ±inf at ±1, NaN beyond, erfinv(±0) = ±0."""
    y = _erfinv64(o, x) if o.dtype is f64 else _erfinv32(o, x)
    return o.when("oeq", o.magnitude(x), o.c(1.0), o.copysign(o.c(math.inf), x), y)


def _erfinv32(o: Instructions, x: str) -> str:
    """Giles, Approximating the erfinv function (2010)."""
    one = o.c(1.0)
    w = o.negated(log(o, o.times(o.minus(one, x), o.plus(one, x))))

    near = o.poly(ERFINV_F32_NEAR, o.minus(w, o.c(2.5)))
    far = o.poly(ERFINV_F32_FAR, o.minus(o.intr("sqrt", w), o.c(3.0)))
    return o.times(o.when("olt", w, o.c(5.0), near, far), x)


def _erfinv64(o: Instructions, x: str) -> str:
    """Wichura, Algorithm AS 241 (1988): the normal quantile at (1 + x) / 2, over sqrt(2)."""
    a = o.magnitude(x)
    half = o.times(x, o.c(0.5))
    middle = o.compare("ole", a, o.c(0.85))
    r = o.intr("sqrt", o.negated(log(o, o.times(o.minus(o.c(1.0), a), o.c(0.5)))))
    far = o.compare("ogt", r, o.c(5.0))

    def rational(part: int) -> str:
        near_value = o.poly(PPND16_MIDDLE[part], o.minus(o.c(0.180625), o.times(half, half)))
        tail_value = o.poly(PPND16_TAIL[part], o.minus(r, o.c(1.6)))
        far_value = o.poly(PPND16_FAR_TAIL[part], o.minus(r, o.c(5.0)))
        return o.select(middle, near_value, o.select(far, far_value, tail_value))

    quantile = o.over(rational(0), rational(1))
    factor = o.select(middle, half, o.copysign(o.c(1.0), x))
    return o.times(o.times(quantile, factor), o.c(math.sqrt(0.5)))


ERF_NEAR_F64 = ERF_NEAR_F32
ERF_FAR_F64 = ERF_FAR_F32
