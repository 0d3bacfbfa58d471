"""The table of scalar functions, its NumPy meanings, and the generator behind the random ones."""

from __future__ import annotations

import keyword

import numpy as np
import pytest
from scipy import special

from tensorc.codegen import scalars_numpy
from tensorc.codegen.cpu.lanes import Lanes
from tensorc.codegen.scalars import SCALARS, evaluate, result
from tensorc.ir.types import DTYPES, bf16, boolean, f16, f32, f64, i8, i32, i64, u8
from tensorc.ops.philox import philox, uniform


def arguments(fn, dtype):
    """The dtypes fn would take around `dtype`."""
    if fn.startswith("philox"):
        return (i64, i64, i64, i32)
    return (boolean, dtype, dtype) if fn == "select" else (dtype,) * SCALARS[fn].arity


def some(dtype):
    return np.array([1, 0, 1, 0] if dtype.is_bool else [0, 1, 2, 3], dtype.numpy)


CASES = [
    (fn, arguments(fn, d)) for fn in SCALARS for d in DTYPES
    if result(fn, arguments(fn, d)) is not None and (d is f32 or not fn.startswith("philox"))
]  # fmt: skip


@pytest.mark.parametrize("fn", SCALARS)
def test_every_function_has_a_meaning_a_cost_and_lanes(fn):
    scalar = SCALARS[fn]
    assert scalar.doc
    assert scalar.cost >= 1
    assert callable(getattr(Lanes, fn + "_" if keyword.iskeyword(fn) else fn))
    assert any(case[0] == fn for case in CASES)


@pytest.mark.parametrize(("fn", "dtypes"), CASES, ids=lambda case: str(case).replace(" ", ""))
def test_numpy_spellings_agree_and_give_the_dtype_of_the_rule(fn, dtypes):
    values = [some(d) for d in dtypes]
    if fn == "philox_uniform64":
        values[-1] = values[-1] % 2

    got = evaluate(fn, *values)
    assert got.dtype == result(fn, dtypes).numpy

    names = [f"x{k}" for k in range(len(values))]
    with np.errstate(all="ignore"):
        text = SCALARS[fn].text.format(*names)
        written = eval(text, {"np": np, "scalars_numpy": scalars_numpy, **dict(zip(names, values, strict=True))})
    np.testing.assert_array_equal(written, got)


def test_result_refuses_what_does_not_fit():
    assert result("add", (f32, f32)) is f32
    assert result("add", (f32, f64)) is None
    assert result("add", (f32,)) is None
    assert result("add", (boolean, boolean)) is None
    assert result("add", (f16, f16)) is None
    assert result("div", (i32, i32)) is None
    assert result("exp", (i64,)) is None
    assert result("lt", (u8, u8)) is boolean
    assert result("and", (i8, i8)) is None
    assert result("select", (boolean, f16, f16)) is f16
    assert result("add", (bf16, bf16)) is None
    assert result("select", (boolean, bf16, f16)) is None
    assert result("select", (f32, f32, f32)) is None
    assert result("philox_uniform32", (i64, i64, i64, i32)) is f32
    assert result("philox_uniform64", (i64, i64, i64, i64)) is None


def test_functions_numpy_lacks_agree_with_scipy():
    x = np.linspace(-8, 8, 1001)
    np.testing.assert_allclose(scalars_numpy.sigmoid(x), special.expit(x), rtol=1e-15)
    np.testing.assert_allclose(scalars_numpy.log_sigmoid(x), special.log_expit(x), rtol=4e-16)
    np.testing.assert_allclose(scalars_numpy.erf(x), special.erf(x), rtol=1e-15)

    p = np.concatenate([np.linspace(-1, 1, 401), [1e-300, -1e-9, 1 - 2**-53]])
    np.testing.assert_allclose(scalars_numpy.erfinv(p), special.erfinv(p), rtol=1e-14)
    assert np.isnan(scalars_numpy.erfinv(1.5))


def test_integer_power_wraps_and_takes_negative_exponents():
    x = np.array([2, 3, -1, -1, 1, 0, 5, 2], np.int8)
    y = np.array([9, 5, -3, -2, -7, -1, -1, 3], np.int8)
    np.testing.assert_array_equal(evaluate("pow", x, y), np.array([0, -13, -1, 1, 1, 0, 0, 8], np.int8))


KNOWN_BLOCKS = [
    ((0, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((-1, -1, -1), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ((0x85A308D3243F6A88, 0x299F31D0A4093822, 0x0370734413198A2E), "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter_and_key", "block"), KNOWN_BLOCKS)
def test_philox_gives_the_known_answers_of_its_authors(counter_and_key, block):
    index, seed, step = (np.array(v & (2**64 - 1), np.uint64).astype(np.int64) for v in counter_and_key)
    assert [f"{w:08x}" for w in philox(index, seed, step)] == block.split()


def test_uniform_numbers_are_the_documented_bits():
    block = philox(7, 11, 3).astype(np.float64)
    assert uniform(7, 11, 3, 2, f32) == np.float32(block[2] // 2**8 / 2**24)
    assert uniform(7, 11, 3, 1, f64) == (block[2] // 2**5 * 2**26 + block[3] // 2**6) / 2**53
    np.testing.assert_array_equal(uniform(7, 11, 3, [2, 0], f32), [uniform(7, 11, 3, k, f32) for k in (2, 0)])


@pytest.mark.parametrize("dtype", [f32, f64])
def test_uniform_numbers_fill_the_unit_interval(dtype):
    x = uniform(np.arange(100_000), 5, 0, 0, dtype)
    assert x.dtype == dtype.numpy
    assert x.min() >= 0
    assert x.max() < 1
    assert abs(x.mean() - 0.5) < 0.005
    counts, _ = np.histogram(x, bins=20, range=(0, 1))
    assert counts.min() > 4600


def test_uniform_refuses_what_a_block_has_not():
    with pytest.raises(ValueError, match="no f64 number 2"):
        uniform(0, 0, 0, 2, f64)
    with pytest.raises(ValueError, match="f32 or f64"):
        uniform(0, 0, 0, 0, i32)
