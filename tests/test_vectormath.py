"""Scalar functions as LLVM code: values, error bounds, special values, and the same bits for any number of lanes."""

from __future__ import annotations

import ctypes
import functools
import itertools
import re

import numpy as np
import pytest

from tensorc.codegen.cpu.compile import assembly, compile_text, load
from tensorc.codegen.cpu.lanes import Lanes, memory_type
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.vectormath_library import library
from tensorc.codegen.scalars import SCALARS, evaluate, result
from tensorc.ir.types import DTYPES, bf16, boolean, f16, f32, f64, i8, i16, i32, i64, u8
from tensorc.ops.philox import uniform

LANES = (1, 4, 8, 16)
FLOATS = (f32, f64)
INTEGERS = (i8, i16, i32, i64, u8)
wide = np.longdouble

# Largest error in units in the last place: float32, float64.  The same bounds hold with fma and without.
BOUNDS = {
    "exp": (1.1, 1.1),
    "expm1": (1.6, 2.1),
    "log": (0.9, 0.9),
    "log1p": (1.5, 1.5),
    "sin": (2.0, 2.4),
    "cos": (2.0, 2.4),
    "tanh": (1.4, 1.4),
    "sigmoid": (2.0, 2.0),
    "softplus": (1.9, 1.9),
    "log_sigmoid": (1.9, 1.9),
    "erf": (1.2, 1.5),
    "erfinv": (4.0, 4.0),
    "pow": (1.5, 1.1),
    "sqrt": (0.5, 0.5),
    "rsqrt": (1.5, 1.5),
    "div": (0.5, 0.5),
}
# Where long double is no wider than double, the reference itself is off by as much.
REFERENCE_ERROR = 0.0 if np.finfo(wide).nmant > 52 else 1.0


# -- compiling one kernel a function: out[i] = fn(p0[i], p1[i], …)


def arguments(fn, dtype):
    if fn.startswith("philox"):
        return (i64, i64, i64, i32)
    return (boolean, dtype, dtype) if fn == "select" else (dtype,) * SCALARS[fn].arity


def functions_of(dtype):
    """The table's functions on a dtype; philox stands with i32, its last argument."""
    return [
        fn for fn in SCALARS
        if result(fn, arguments(fn, dtype)) is not None and (not fn.startswith("philox") or dtype is i32)
    ]  # fmt: skip


def kernel(name, inputs, outputs, n, fma, body, half=None):
    """LLVM text of a loop over n elements at a time; `body` maps SSA names of the inputs to those of the outputs."""
    lines = []
    count = itertools.count()

    def lanes(dtype):
        return Lanes(lines.append, lambda: f"%v{next(count)}", dtype, n, fma, half)

    values = []
    for k, dtype in enumerate(inputs):
        lines.append(f"  %p{k} = getelementptr {memory_type(dtype)}, ptr %in{k}, i64 %i")
        lines.append(f"  %x{k} = load {memory_type(dtype, n)}, ptr %p{k}, align {dtype.size}")
        values.append(lanes(u8).compare("ne", f"%x{k}", lanes(u8).c(0)) if dtype.is_bool else f"%x{k}")

    for k, (dtype, value) in enumerate(zip(outputs, body(lanes, *values), strict=True)):
        if dtype.is_bool:
            value = lanes(boolean).cast(value, u8)
        lines.append(f"  %q{k} = getelementptr {memory_type(dtype)}, ptr %out{k}, i64 %i")
        lines.append(f"  store {memory_type(dtype, n)} {value}, ptr %q{k}, align {dtype.size}")

    parameters = [f"ptr %out{k}" for k in range(len(outputs))] + [f"ptr %in{k}" for k in range(len(inputs))]
    return "\n".join([
        f"define void @{name}(i64 %n, {', '.join(parameters)}) {{",
        "entry:", "  br label %loop", "loop:", "  %i = phi i64 [0, %entry], [%next, %tail]",
        *lines, "  br label %tail", "tail:", f"  %next = add i64 %i, {n}", "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %done", "done:", "  ret void", "}", "",
    ])  # fmt: skip


def module(dtype, n, fma):
    """A kernel for each function of a dtype, named k_function."""
    parts = []
    for fn in functions_of(dtype):
        dtypes = arguments(fn, dtype)
        body = lambda lanes, *xs, fn=fn, last=dtypes[-1]: [lanes(last).apply(fn, *xs)]  # noqa: E731
        parts.append(kernel(f"k_{fn}", dtypes, [result(fn, dtypes)], n, fma, body))
    text = "".join(parts)
    return text + library(text, fma)


def linked(text, names):
    return load(compile_text(text, Target.host()).image, names)


@functools.cache
def compiled(dtype, n, fma):
    return linked(module(dtype, n, fma), [f"k_{fn}" for fn in functions_of(dtype)])


def run(lib, name, outputs, *arrays):
    """Runs a kernel; the arrays' length is a multiple of 16."""
    arrays = [np.ascontiguousarray(a) for a in arrays]
    results = [np.empty(arrays[0].size, d.numpy) for d in outputs]
    pointers = [a.ctypes.data for a in (*results, *arrays)]
    lib.function(name, None, ctypes.c_int64, *[ctypes.c_void_p] * len(pointers))(arrays[0].size, *pointers)
    return results


def call(fn, dtype, n, fma, *arrays):
    out = result(fn, arguments(fn, dtype))
    return run(compiled(dtype, n, fma), f"k_{fn}", [out], *arrays)[0]


def fused():
    return [True, False] if Target.host().fma else [False]


def padded(*arrays):
    """The arrays repeated at their ends to a multiple of 16 elements."""
    size = -(-arrays[0].size // 16) * 16
    return [np.resize(a, size) for a in arrays]


# -- inputs


def special_values(dtype):
    tiny, huge = np.finfo(dtype.numpy).tiny, np.finfo(dtype.numpy).max
    denormal = np.finfo(dtype.numpy).smallest_subnormal
    positive = [0.0, denormal, tiny / 3, tiny, 1e-20, 1e-3, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 8.0, 20.0, 80.0, 88.8, 100.0]
    positive += [709.0, 746.0, 2.0**24 + 2, 2.0**30, 1e30, huge / 2, huge, np.inf]
    return np.array([s * x for x in positive for s in (1, -1)] + [np.nan], dtype.numpy)


def bit_patterns(dtype, count, rng):
    unsigned = np.dtype(f"u{dtype.size}")
    return rng.integers(0, 2 ** (8 * dtype.size), count, dtype=np.uint64).astype(unsigned).view(dtype.numpy)


RANGES = {
    "exp": (-104, 89), "expm1": (-20, 89), "log": (0, 4), "log1p": (-1, 4), "sin": (-30, 30), "cos": (-30, 30),
    "tanh": (-10, 10), "sigmoid": (-105, 20), "softplus": (-105, 20), "log_sigmoid": (-20, 105), "erf": (-4, 4),
    "erfinv": (-1, 1),
}  # fmt: skip
F64_STRETCH = {"exp": 7.15, "expm1": 7.95, "sigmoid": 7.1, "softplus": 7.1, "log_sigmoid": 7.1, "erf": 1.5, "tanh": 2}


def unary_inputs(fn, dtype):
    """Dense over the range that matters, logarithmic towards 0 and the far end, any bits, and the special values."""
    rng = np.random.default_rng(1)
    low, high = RANGES.get(fn, (0, 4))
    stretch = F64_STRETCH.get(fn, 1) if dtype is f64 else 1
    dense = rng.uniform(low * stretch, high * stretch, 16_000)
    near_one = rng.uniform(-1.3, 1.3, 10_000)
    scattered = rng.choice([-1, 1], 10_000) * 10.0 ** rng.uniform(-7, 8, 10_000)
    parts = [x.astype(dtype.numpy) for x in (dense, near_one, scattered)]
    return padded(np.concatenate([special_values(dtype), *parts, bit_patterns(dtype, 10_000, rng)]))[0]


def pow_inputs(dtype):
    """Pairs whose results spread over the whole range, near 1 too, and all pairs of special values."""
    rng = np.random.default_rng(2)
    n = 8_000
    low, high = (-103, 88) if dtype is f32 else (-745, 709)
    exponent = rng.uniform(low, high, n)
    x = np.exp(rng.uniform(low / 2, high / 2, n)).astype(dtype.numpy)
    close = (1 + rng.choice([-1, 1], n) * 10.0 ** rng.uniform(-6, -0.5, n)).astype(dtype.numpy)
    small, whole = rng.uniform(-4, 4, n), np.round(rng.uniform(-20, 20, n))

    special = np.concatenate([special_values(dtype), np.array([-8.0, 2.0**53 + 2], dtype.numpy)])
    x_special, y_special = (a.ravel() for a in np.meshgrid(special, special))
    bases = [x_special, x, close, small, bit_patterns(dtype, n, rng)]
    with np.errstate(all="ignore"):
        powers = [y_special, exponent / np.log(x.astype(float)), exponent / np.log(close.astype(float)), whole]
    powers.append(bit_patterns(dtype, n, rng))
    return padded(*(np.concatenate([p.astype(dtype.numpy) for p in parts]) for parts in (bases, powers)))


# -- references in long double


def erf_series(x):
    """erf for |x| <= 3: 2/√π e^-x² Σ 2^k x^(2k+1) / (2k+1)!!."""
    term = total = x
    for k in range(1, 70):
        term = term * 2 * x * x / (2 * k + 1)
        total = total + term
    return 2 / np.sqrt(PI) * np.exp(-x * x) * total


def erfc_fraction(x):
    """erfc for x >= 1.5 or so, by its continued fraction."""
    f = np.zeros_like(x)
    for k in range(120, 0, -1):
        f = wide(k) / 2 / (x + f)
    return np.exp(-x * x) / np.sqrt(PI) / (x + f)


PI = wide(3.141592653589793) + wide(1.2246467991473532e-16)


def exact_erf(x):
    a = np.minimum(np.abs(x), 30)
    return np.copysign(np.where(a < 2, erf_series(np.minimum(a, 2)), 1 - erfc_fraction(np.maximum(a, 2))), x)


def exact_softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def exact_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, wide(1)) / (1 + e)


EXACT = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sin": np.sin, "cos": np.cos,
    "tanh": np.tanh, "sigmoid": exact_sigmoid, "softplus": exact_softplus, "log_sigmoid": lambda x: -exact_softplus(-x),
    "erf": exact_erf, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x),
}  # fmt: skip


def errors_in_ulps(got, exact, dtype):
    """How far each result is off; 0 where both are NaN or the same infinity, inf where only one is."""
    rounded = exact.astype(dtype.numpy)
    distance = np.abs(got.astype(wide) - exact) / np.spacing(np.abs(rounded)).astype(wide)
    special = ~np.isfinite(rounded) | ~np.isfinite(got)
    alike = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(special, np.where(alike, 0, np.inf), distance).astype(float)


def assert_within(bound, got, exact, dtype, *inputs):
    with np.errstate(all="ignore"):
        errors = errors_in_ulps(got, exact, dtype)
    worst = int(np.argmax(errors))
    at = ", ".join(repr(x[worst]) for x in inputs)
    allowed = bound + REFERENCE_ERROR
    assert errors[worst] <= allowed, f"{errors[worst]} ulp at {at}: {got[worst]!r}, not {exact[worst]!r}"


def bound_of(fn, dtype):
    return BOUNDS[fn][dtype is f64]


# -- accuracy


@pytest.mark.parametrize("fma", fused())
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("fn", EXACT)
def test_function_keeps_its_bound(fn, dtype, fma):
    x = unary_inputs(fn, dtype)
    with np.errstate(all="ignore"):
        exact = EXACT[fn](x.astype(wide))
    assert_within(bound_of(fn, dtype), call(fn, dtype, 8, fma, x), exact, dtype, x)


@pytest.mark.parametrize("fma", fused())
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_pow_keeps_its_bound_and_its_special_values(dtype, fma):
    x, y = pow_inputs(dtype)
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(wide), y.astype(wide))
    got = call("pow", dtype, 8, fma, x, y)
    assert_within(bound_of("pow", dtype), got, exact, dtype, x, y)
    zero = got == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(exact[zero]))


@pytest.mark.parametrize("fma", fused())
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_erfinv_keeps_its_bound(dtype, fma):
    """The error is the residual of erf over its slope; near ±1 erfc has the digits."""
    x = unary_inputs("erfinv", dtype)
    y = call("erfinv", dtype, 8, fma, x)
    inside = (np.abs(x) < 1) & (x != 0)
    np.testing.assert_array_equal(y[x == 0], 0)
    np.testing.assert_array_equal(y[np.abs(x) == 1], np.copysign(np.inf, x[np.abs(x) == 1]))
    assert np.isnan(y[~(np.abs(x) <= 1)]).all()

    a, b = np.abs(x[inside].astype(wide)), np.abs(y[inside].astype(wide))
    small = b < 1.6
    residual = np.where(small, erf_series(np.minimum(b, 1.6)) - a, (1 - a) - erfc_fraction(np.maximum(b, 1.5)))
    exact = b - residual * np.exp(b * b) * np.sqrt(PI) / 2
    assert_within(bound_of("erfinv", dtype), np.abs(y[inside]), exact, dtype, x[inside])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_division_is_correctly_rounded(dtype):
    x, y = unary_inputs("div", dtype), unary_inputs("div", dtype)[::-1].copy()
    np.testing.assert_array_equal(call("div", dtype, 8, True in fused(), x, y), evaluate("div", x, y))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("fn", ["sin", "expm1", "log1p", "tanh", "erf", "erfinv", "sqrt", "round", "floor", "ceil"])
def test_sign_of_zero_and_denormals_survive(fn, dtype):
    least = np.finfo(dtype.numpy).smallest_subnormal
    x, = padded(np.array([0.0, -0.0, least, -least], dtype.numpy))
    with np.errstate(all="ignore"):
        want = evaluate(fn, x)
    got = call(fn, dtype, 8, True in fused(), x)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


def test_sigmoid_is_right_in_its_far_tail():
    x, = padded(np.array([-80, -100, -103.5, -104.5, -200], np.float32))
    got = call("sigmoid", f32, 8, True in fused(), x)
    exact = np.exp(x.astype(float))
    np.testing.assert_allclose(got[0], exact[0], rtol=2e-7)
    np.testing.assert_array_equal(got, exact.astype(np.float32))


# -- exact functions


EXACT_FLOAT = [
    "add", "sub", "mul", "neg", "abs", "sign", "floor", "ceil", "round", "maximum", "minimum", "floordiv", "mod",
    "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isfinite", "select",
]  # fmt: skip


@pytest.mark.parametrize("fma", fused())
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("fn", EXACT_FLOAT)
def test_exact_function_is_numpys(fn, dtype, fma):
    rng = np.random.default_rng(3)
    special = special_values(dtype)
    x, y = (a.ravel() for a in np.meshgrid(special, special))
    halves = np.round(rng.uniform(-9, 9, 2000)) / 2
    x_parts = [x, halves, rng.uniform(-100, 100, 2000), bit_patterns(dtype, 4000, rng)]
    y_parts = [y, halves[::-1], rng.uniform(-3, 3, 2000), bit_patterns(dtype, 4000, rng)]
    x, y = padded(*(np.concatenate([p.astype(dtype.numpy) for p in parts]) for parts in (x_parts, y_parts)))

    inputs = [x, y][: SCALARS[fn].arity] if fn != "select" else [x > 0, x, y]
    np.testing.assert_array_equal(call(fn, dtype, 8, fma, *inputs), evaluate(fn, *inputs))


@pytest.mark.parametrize("dtype", [*INTEGERS, boolean], ids=str)
def test_integer_and_bool_functions_are_numpys(dtype):
    rng = np.random.default_rng(4)
    if dtype.is_bool:
        edge = np.array([False, True])
    else:
        info = np.iinfo(dtype.numpy)
        edge = np.array([0, 1, 2, 3, 7, info.max, info.max - 1, info.min, info.min + 1, info.max // 3], dtype.numpy)
        edge = np.concatenate([edge, -edge])
    x, y = (a.ravel() for a in np.meshgrid(edge, edge))
    more = bit_patterns(u8 if dtype.is_bool else dtype, 500, rng)
    more = more > 99 if dtype.is_bool else more
    x, y = padded(np.concatenate([x, more]), np.concatenate([y, more[::-1] if dtype.is_bool else more[::-1] % 50]))

    for fn in functions_of(dtype):
        if fn.startswith("philox"):
            continue
        inputs = [x, y][: SCALARS[fn].arity] if fn != "select" else [x > y, x, y]
        got = call(fn, dtype, 8, True in fused(), *inputs)
        np.testing.assert_array_equal(got, evaluate(fn, *inputs), err_msg=fn)


@pytest.mark.parametrize("n", LANES)
def test_philox_gives_numpys_bits(n):
    rng = np.random.default_rng(5)
    index, seed, step = bit_patterns(i64, 48, rng).reshape(3, 16)
    for fn, dtype, words in (("philox_uniform32", f32, 4), ("philox_uniform64", f64, 2)):
        for word in range(words):
            got = call(fn, i32, n, True in fused(), index, seed, step, np.full(16, word, np.int32))
            np.testing.assert_array_equal(got, uniform(index, seed, step, word, dtype))


# -- the same bits for any number of lanes


def bits(x):
    """Bit patterns, one pattern for all NaNs."""
    if x.dtype.kind != "f":
        return x
    return np.where(np.isnan(x), np.array(np.nan, x.dtype), x).view(f"u{x.dtype.itemsize}")


@pytest.mark.parametrize("fma", fused())
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_have_the_same_bits_for_any_lanes(dtype, fma):
    rng = np.random.default_rng(6)
    special = special_values(dtype)
    x, y = (a.ravel() for a in np.meshgrid(special, special))
    x = np.concatenate([x, rng.uniform(-3, 3, 3000), rng.uniform(-90, 90, 3000)]).astype(dtype.numpy)
    y = np.concatenate([y, rng.uniform(-3, 3, 3000), rng.uniform(-9, 9, 3000)]).astype(dtype.numpy)
    x, y = padded(x, y)

    for fn in functions_of(dtype):
        inputs = [x, y][: SCALARS[fn].arity] if fn != "select" else [x > y, x, y]
        scalar = bits(call(fn, dtype, 1, fma, *inputs))
        for n in LANES[1:]:
            np.testing.assert_array_equal(bits(call(fn, dtype, n, fma, *inputs)), scalar, err_msg=f"{fn}, {n} lanes")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fused_arithmetic_has_the_same_bits_for_any_lanes(dtype):
    def body(lanes, a, b, c):
        o = lanes(dtype)
        return [o.sub(o.add(o.mul(a, b), o.mul(b, c)), o.mul(o.add(a, o.mul(c, c)), b))]

    a, b, c = np.random.default_rng(9).normal(size=(3, 4800)).astype(dtype.numpy)
    kinds = [dtype] * 3
    text = "".join(kernel(f"k{n}", kinds, [dtype], n, True in fused(), body) for n in LANES)
    lib = linked(text, [f"k{n}" for n in LANES])
    scalar = run(lib, "k1", [dtype], a, b, c)[0]
    for n in LANES[1:]:
        np.testing.assert_array_equal(run(lib, f"k{n}", [dtype], a, b, c)[0], scalar)


@pytest.mark.parametrize("dtype", [*INTEGERS, boolean], ids=str)
def test_integers_have_the_same_bits_for_any_lanes(dtype):
    rng = np.random.default_rng(7)
    x, y = bit_patterns(u8 if dtype.is_bool else dtype, 1600, rng).reshape(2, 800)
    if dtype.is_bool:
        x, y = x > 99, y > 99

    for fn in functions_of(dtype):
        if fn.startswith("philox"):
            continue
        inputs = [x, y][: SCALARS[fn].arity] if fn != "select" else [x > y, x, y]
        scalar = call(fn, dtype, 1, True in fused(), *inputs)
        for n in LANES[1:]:
            got = call(fn, dtype, n, True in fused(), *inputs)
            np.testing.assert_array_equal(got, scalar, err_msg=f"{fn}, {n} lanes")


# -- conversions


TIES = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-11 + 2.0**-40, 65519.99, 65520, 2.0**-25, 2.0**-24 * 1.5])
"""Numbers between two float16, one of them off by too little for float32 to see."""


def values_to_cast(source, to):
    """Values of `source`; where `to` is no float, within its range."""
    rng = np.random.default_rng(8)
    if source.is_bool:
        return np.array([True, False] * 8)

    if source.is_float and to.is_float:
        x = np.concatenate([special_values(f64), rng.normal(size=200) * 10.0 ** rng.uniform(-9, 6, 200), TIES, -TIES])
        with np.errstate(all="ignore"):
            return padded(x.astype(source.numpy))[0]

    if source.is_integer:
        return bit_patterns(source, 160, rng)

    reach = {f16: 6e4}.get(source, 1e12)
    if to.is_integer:
        reach = min(reach, np.iinfo(to.numpy).max)
    x = np.concatenate([rng.uniform(-reach, reach, 100), [0, 0.5, -0.5, 0.99, -0.99, 1, 1.5]])
    return padded((np.abs(x) if to is u8 else x).astype(source.numpy) * source.numpy.type(0.9))[0]


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("n", [1, 8])
def test_casts_are_numpys(n, half):
    half = half and Target.host().half
    pairs = list(itertools.product(DTYPES, DTYPES))
    parts = [
        kernel(f"k_{a}_{b}", [a], [b], n, half, lambda lanes, x, a=a, b=b: [lanes(a).cast(x, b)], half)
        for a, b in pairs
    ]
    lib = linked("".join(parts), [f"k_{a}_{b}" for a, b in pairs])

    for a, b in pairs:
        x = values_to_cast(a, b)
        got, = run(lib, f"k_{a}_{b}", [b], x)
        with np.errstate(all="ignore"):
            want = x.astype(b.numpy)
        if b is bf16:       # NaN is never equal to NumPy there; its bits are
            got, want = got.view(np.int16), want.view(np.int16)
        np.testing.assert_array_equal(got, want, err_msg=f"{a} to {b}")


def test_float_to_integer_saturates_and_nan_gives_zero():
    x, = padded(np.array([1e30, -1e30, np.inf, -np.inf, np.nan], np.float64))
    for to in INTEGERS:
        lib = linked(kernel("k", [f64], [to], 8, True, lambda lanes, v, to=to: [lanes(f64).cast(v, to)]), ["k"])
        got, = run(lib, "k", [to], x)
        info = np.iinfo(to.numpy)
        assert list(got[:5]) == [info.max, info.min, info.max, info.min, 0]


# -- reductions


@pytest.mark.parametrize("dtype", [f32, i32, u8], ids=str)
@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_arg_reduction_takes_the_first_of_equals_and_nan_above_all(op, dtype):
    values = np.array([0, 1, 2, 7], dtype.numpy)
    if dtype.is_float:
        values = np.concatenate([values, [np.nan, np.inf, -np.inf]]).astype(dtype.numpy)
    a, b = (v.ravel() for v in np.meshgrid(values, values))
    a, b = padded(a, b)
    low, high = np.full(a.size, 3, np.int32), np.full(a.size, 5, np.int32)

    def body(lanes, x, i, y, j):
        return lanes(dtype).combine(op, (x, i), (y, j))

    lib = linked(kernel("k", [dtype, i32, dtype, i32], [dtype, i32], 8, True, body), ["k"])
    pick = getattr(np, op)(np.stack([a, b]), axis=0)
    want = np.where(pick == 0, a, b)
    for first, second in (((a, low), (b, high)), ((b, high), (a, low))):
        value, index = run(lib, "k", [dtype, i32], *first, *second)
        np.testing.assert_array_equal(value, want)
        np.testing.assert_array_equal(index, np.where(pick == 0, low, high))


@pytest.mark.parametrize(("op", "dtype", "ufunc"), [
    ("add", f32, np.add), ("mul", i32, np.multiply), ("max", f32, np.maximum), ("min", u8, np.minimum),
    ("or", boolean, np.logical_or), ("and", boolean, np.logical_and), ("max", boolean, np.maximum),
])  # fmt: skip
def test_reduction_step_is_numpys(op, dtype, ufunc):
    values = np.array([False, True]) if dtype.is_bool else np.array([0, 1, 5, 200], dtype.numpy)
    a, b = padded(*(v.ravel() for v in np.meshgrid(values, values)))
    text = kernel("k", [dtype, dtype], [dtype], 8, True, lambda lanes, x, y: lanes(dtype).combine(op, (x,), (y,)))
    np.testing.assert_array_equal(run(linked(text, ["k"]), "k", [dtype], a, b)[0], ufunc(a, b))


# -- no call leaves the object


AVX512_AND_FMA = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "fma", "f16c")
TARGETS = {
    "host": Target.host(),
    "x86-64 of 2003": Target.of("x86_64-unknown-linux-gnu", "x86-64", "+sse2"),
    "avx512": Target.of("x86_64-unknown-linux-gnu", "skylake-avx512", ",".join("+" + f for f in AVX512_AND_FMA)),
    "neon": Target.of("aarch64-unknown-linux-gnu", "generic", "+neon"),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", [f32, f64, i64], ids=str)
def test_nothing_is_left_to_libm(dtype, name):
    target = TARGETS[name]
    code = assembly(module(dtype, target.lanes(dtype.size), target.fma), target)
    called = set(re.findall(r"^\s*(?:callq?|bl|jmpq?|b)\s+([\w.$@\"]+)", code, re.MULTILINE))
    outside = {c for c in called if not c.strip('"').startswith((".L", "tc.", "k_"))}
    assert not outside
