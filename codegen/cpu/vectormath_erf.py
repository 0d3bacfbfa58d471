"""erf and its inverse."""

from __future__ import annotations

import math

from tensorc.codegen.cpu.vectormath import Instructions
from tensorc.codegen.cpu.vectormath_exp import exp
from tensorc.codegen.cpu.vectormath_log import log
from tensorc.ir.types import f64

# erf x / x - 1 in x² for |x| <= 1 (f32: 0.93), to 2^-29 and 2^-56, and beyond it -log(erfc x) / x - 1 in x up to where
# erf rounds to 1, to 2^-30 and 2^-59.
ERF_NEAR_F32 = (
    7.99665e-05, -0.00080497697, 0.005192405, -0.026855731, 0.11283626, -0.3761263,
    0.12837917,
)  # fmt: skip
ERF_NEAR_F64 = (
    1.3849977153363643e-10, -1.6161083281735285e-09, 1.5932077190716868e-08, -1.654477362824667e-07,
    1.6479877656378547e-06, -1.4926807810718029e-05, 0.00012055383180433754, -0.0008548328456549629,
    0.0052239776514173605, -0.026866170647917083, 0.11283791670970629, -0.3761263890318409,
    0.1283791670955126,
)  # fmt: skip
ERF_FAR_F32 = (
    1.1230942e-05, -0.00032280333, 0.0036424678, -0.023762101, 0.10623694, 0.63515127,
    0.1286485,
)  # fmt: skip
ERF_FAR_F64 = (
    -1.0158180242795624e-14, 6.628889201594429e-13, -1.9758548389910982e-11, 3.613580928496353e-10,
    -4.576125190493545e-09, 4.280620281356402e-08, -3.0725583592332615e-07, 1.7296070999855338e-06,
    -7.699958259739271e-06, 2.6892242808425244e-05, -7.0824125178627e-05, 0.00012225834324065192,
    -3.968473282610208e-05, -0.000530313917658931, 0.0016529172018017518, -0.00018489485919783303,
    -0.01913864648998402, 0.10277561473169945, 0.6366192148032028, 0.12837921577000644,
)  # fmt: skip

# Giles 2010, single precision: erfinv x / x in w - 5/2 and in sqrt(w) - 3, w = -log(1 - x²).
ERFINV_F32_NEAR = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
ERFINV_F32_FAR = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip

# Minimax quotients, all coefficients positive so that no digits cancel, each to 2^-57 of the result:
# (erfinv x / x - sqrt(π)/2) / x² in 0.5625 - x² for |x| <= 0.75,
# and r - erfinv x in r - 1.4375 beyond it, r = sqrt(-log((1 - |x|) / 2)).
ERFINV_F64_MIDDLE_N = (
    0.0006079751889603777, 0.14052551676619224, 1.2538060663334538, 3.4534311086123126,
    3.94576401995615, 1.964943474525706, 0.3525917712783408,
)  # fmt: skip
ERFINV_F64_MIDDLE_D = (
    0.2178555030414749, 2.859200652010047, 11.496355124973586, 19.96213266854108, 16.709027372988864,
    6.631791458372303, 1.0,
)  # fmt: skip
ERFINV_F64_TAIL_N = (
    6.995574235387099e-09, 8.941621719221418e-06, 0.0005439330446323215, 0.01005946545288898,
    0.0832342804956664, 0.3700332428433622, 0.9279832921453672, 1.212340019769818,
    0.6296882173287139,
)  # fmt: skip
ERFINV_F64_TAIL_D = (
    2.7104673213630147e-06, 0.0002240356244462616, 0.005351745068779409, 0.05674802035354685,
    0.3255753649397982, 1.0997510679351696, 2.175703835494479, 2.3053796970595197,
    1.0,
)  # fmt: skip


def erf(o: Instructions, x: str) -> str:
    """The error function; ±1 at ±inf, erf(±0) = ±0.

    Near 0 an odd polynomial, beyond it 1 - exp(-p(|x|)) with p a polynomial for -log(erfc).
    """
    double = o.dtype is f64
    border, end = (o.c(1.0), o.c(6.0)) if double else (o.c(0.925), o.c(4.0))

    a = o.magnitude(x)
    z = o.times(x, x)
    near = o.muladd(o.poly2(ERF_NEAR_F64 if double else ERF_NEAR_F32, z, o.times(z, z)), x, x)

    t = o.when("ogt", a, end, end, a)
    exponent = o.negated(o.muladd(o.poly2(ERF_FAR_F64 if double else ERF_FAR_F32, t, o.times(t, t)), t, t))
    far = o.copysign(o.minus(o.c(1.0), exp(o, exponent)), x)
    return o.when("ogt", a, border, far, near)


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
    """An odd function of x in the middle; in the tails, where erfinv grows like sqrt(-log), a correction to that."""
    a = o.magnitude(x)
    z = o.times(x, x)
    r = o.intr("sqrt", o.negated(log(o, o.times(o.minus(o.c(1.0), a), o.c(0.5)))))
    middle, tail = o.minus(o.c(0.5625), z), o.minus(r, o.c(1.4375))

    in_middle = o.compare("ole", a, o.c(0.75))
    numerator = o.select(in_middle, o.poly(ERFINV_F64_MIDDLE_N, middle), o.poly(ERFINV_F64_TAIL_N, tail))
    denominator = o.select(in_middle, o.poly(ERFINV_F64_MIDDLE_D, middle), o.poly(ERFINV_F64_TAIL_D, tail))
    q = o.over(numerator, denominator)

    near = o.muladd(x, o.c(math.sqrt(math.pi) / 2), o.times(o.times(x, z), q))
    return o.select(in_middle, near, o.copysign(o.minus(r, q), x))
