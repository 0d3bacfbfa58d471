"""bfloat16, float32 without its last 16 bits: how numbers are rounded to it, what they are computed in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_machine import compute, planned

from tensorc import backend as K
from tensorc.codegen.cuda.assemble import assemble
from tensorc.errors import DTypeError
from tensorc.ir import types

BF16 = np.dtype(ml_dtypes.bfloat16)
Run = Callable[[Any, Any], list[Any]]


def bits(array: Any) -> Any:
    """Floats as whole numbers: NaN is like no other, but its bits are."""
    return array.view(f"u{array.dtype.itemsize}")


def on_cpu(function: Any, x: Any) -> list[Any]:
    found: list[Any] = function([x])
    return found


def on_gpu(function: Any, x: Any) -> list[Any]:
    """What the kernels for a GPU give, in lock-step."""
    call = function.compiled.apart([x])
    plan = planned(call.graph)
    return compute(plan, assemble(plan), [call.values[p.name] for p in call.graph.params], call.sizes)


def casting(source: str, *to: str) -> Any:
    x = K.placeholder((None,), dtype=source)
    return K.function([x], [K.cast(x, d) for d in to])


@pytest.fixture(params=[on_cpu, on_gpu])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.param
    return found


# Rounding: to the nearest, ties to even, as `ml_dtypes` does it; the bits are compared.

def every_upper_half(*lower: int) -> Any:
    """float32 of all upper halves, infinities, denormals and NaNs with any payload among them."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    return np.concatenate([upper | k for k in lower]).view(np.float32)


@pytest.mark.parametrize("lower", [(0, 1, 0x7FFF), (0x8000, 0x8001, 0xFFFF)], ids=["below", "ties and above"])
def test_float32_is_rounded_to_the_nearest(run: Run, lower: tuple[int, ...]) -> None:
    x = every_upper_half(*lower)[:-3]
    (got,) = run(casting("float32", "bfloat16"), x)
    assert got.dtype == BF16
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(bits(got), bits(x.astype(BF16)))


def test_ties_go_to_even_and_nan_stays_one(run: Run) -> None:
    x = np.array([0x3F808000, 0x3F818000, 0x7F7F8000, 0x00008000, 0x00018000, 0x7F800001, 0xFFFFFFFF], np.uint32)
    (got,) = run(casting("float32", "bfloat16"), x.view(np.float32))
    assert list(map(hex, bits(got))) == ["0x3f80", "0x3f82", "0x7f80", "0x0", "0x2", "0x7fc0", "0xffc0"]


def test_every_bfloat16_as_another_float(run: Run) -> None:
    x = np.arange(1 << 16).astype(np.uint16).view(BF16)
    single, double, half = run(casting("bfloat16", "float32", "float64", "float16"), x)
    numbers = ~np.isnan(single)
    np.testing.assert_array_equal(bits(single), bits(x).astype(np.uint32) << 16)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(double, x.astype(np.float64))
        np.testing.assert_array_equal(bits(half[numbers]), bits(x.astype(np.float16)[numbers]))
    assert np.isnan(half[~numbers]).all()


def test_what_is_wider_is_rounded_to_float32_on_its_way(run: Run) -> None:
    """1 + 2⁻⁸ + 2⁻⁴⁰ is nearer to 1 + 2⁻⁷, but float32 makes a tie of it: so say `ml_dtypes`, JAX and PyTorch."""
    x = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8 + 2.0**-20, 1e39, -1e-42, np.nan])
    (got,) = run(casting("float64", "bfloat16"), x)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(bits(got), bits(x.astype(BF16)))
    assert got[:2].tolist() == [1, 1 + 2.0**-7]


@pytest.mark.parametrize("source", ["int64", "int32", "int16", "uint8", "bool", "float16"])
def test_other_numbers_become_bfloat16(run: Run, source: str) -> None:
    if source == "float16":
        x = np.arange(1 << 16).astype(np.uint16).view(np.float16)
    else:
        whole = [(1 << 24) + (1 << 16) + 1, (1 << 31) - 1, -257, 257, 258, 259, 0, 1, -1, 127, 255]
        x = np.array(whole).astype(source)
    (got,) = run(casting(source, "bfloat16"), x)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(bits(got), bits(x.astype(BF16)))


def test_whole_numbers_from_bfloat16_saturate(run: Run) -> None:
    x = np.array([1.75, -3.5, 300, -300, 1e30, -1e30, np.nan, np.inf, 0], BF16)
    small, wide, truth = run(casting("bfloat16", "int8", "int32", "bool"), x)
    assert small.tolist() == [1, -3, 127, -128, 127, -128, 0, 127, 0]
    assert wide.tolist() == [1, -3, 300, -300, 2**31 - 1, -(2**31), 0, 2**31 - 1, 0]
    assert truth.tolist() == [True] * 8 + [False]


# What is computed is computed in float32.

def test_kernels_round_once(run: Run) -> None:
    """(1 + 2⁻⁷) · 1.5 − 1.5 is 1.5 · 2⁻⁷; rounded on the way it would be 2⁻⁶."""
    x = K.placeholder((None,), dtype="bfloat16")
    (got,) = run(K.function([x], [x * 1.5 - 1.5]), np.full(33, 1 + 2.0**-7, BF16))
    assert set(got.tolist()) == {1.5 * 2.0**-7}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_cast_rounds_wherever_it_stands(run: Run, dtype: str) -> None:
    x = K.placeholder((None,))
    a = np.linspace(0.1, 9, 37).astype(np.float32)
    (got,) = run(K.function([x], [K.cast(K.cast(x, dtype), "float32") * 3]), a)
    np.testing.assert_array_equal(got, a.astype(dtype).astype(np.float32) * 3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_only_moves_keeps_its_bits(run: Run, dtype: str) -> None:
    x = K.placeholder((None, 16), dtype=dtype)
    moved = [K.transpose(x), K.temporal_padding(K.reshape(x, (-1, 4, 4)), (1, 0)), K.reverse(x, 1),
             K.gather(x, [2, 0])]
    a = np.arange(0x7F00, 0x7F00 + 512).astype(np.uint16).view(dtype).reshape(-1, 16)       # NaNs of many kinds
    turned, padded, reversed_, taken = map(bits, run(K.function([x], moved), a)[:4])
    np.testing.assert_array_equal(turned, bits(a).T)
    np.testing.assert_array_equal(padded[:, 1:], bits(a).reshape(-1, 4, 4))
    np.testing.assert_array_equal(reversed_, bits(a)[:, ::-1])
    np.testing.assert_array_equal(taken, bits(a)[[2, 0]])


def test_sums_of_many_numbers(run: Run) -> None:
    """Beyond 256, bfloat16 cannot count; neither may it divide by a number of elements that it has rounded."""
    x = K.placeholder((None,), dtype="bfloat16")
    total, mean, running = K.sum(x), K.mean(x), K.cumsum(x)[-1]
    slope = K.gradients(K.mean(x), [x])[0][0]
    got = run(K.function([x], [total, mean, running, slope]), np.ones(259, BF16))
    assert [float(v) for v in got] == [260, 1, 260, np.float32(1 / 259).astype(BF16)]


def test_a_gradient_of_a_mean_over_more_than_float16_counts() -> None:
    x = K.placeholder((None,), dtype="float16")
    (slope,) = K.function([x], K.gradients(K.mean(x), [x]))([np.ones(80_000, np.float16)])
    assert set(slope.tolist()) == {np.float16(1 / 80_000)}


def test_a_network_in_bfloat16_is_one_in_float32_rounded(run: Run) -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, 3, 4, 8)) / 6, rng.normal(size=(32, 5)) / 6]
    image = rng.normal(size=(5, 6, 6, 4)).astype(BF16)

    def results(dtype: str) -> Any:
        x = K.placeholder((None, 6, 6, 4), dtype=dtype)
        kernel, dense = (K.constant(np.asarray(w, BF16), dtype=dtype) for w in weights)
        hidden = K.pool2d(K.relu(K.conv2d(x, kernel, padding="same")), (3, 3), (3, 3))
        scores = K.softmax(K.dot(K.reshape(hidden, (-1, 32)), dense))
        loss = K.mean(K.square(scores))
        return run(K.function([x], [scores, loss, *K.gradients(loss, [kernel, dense])]), image.astype(dtype))

    for got, want in zip(results("bfloat16"), results("float32"), strict=True):
        assert (got.dtype, want.dtype) == (BF16, np.float32)
        size = np.abs(want).max()
        np.testing.assert_allclose(got.astype(np.float32), want, rtol=0, atol=4 * 2.0**-8 * size)


def test_a_loop_keeps_its_states_in_bfloat16(run: Run) -> None:
    x = K.placeholder((None, 5, 3), dtype="bfloat16")
    _, steps, _ = K.rnn(lambda row, states: (row + states[0], [row + states[0]]), x, [K.zeros((4, 3), "bfloat16")])
    (got,) = run(K.function([x], [steps]), np.full((4, 5, 3), 100.5, BF16))
    assert got.dtype == BF16
    state, want = np.zeros((), BF16), []
    for _ in range(5):
        state = (state + BF16.type(100.5)).astype(BF16)
        want.append(float(state))
    assert got[0, :, 0].tolist() == want


# Random numbers.

@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_no_draw_is_rounded_to_1(dtype: str) -> None:
    drawn = K.eval(K.random_uniform((200_000,), dtype=dtype, seed=1)).astype("float64")
    assert (drawn.min(), drawn.max()) == (0, 1 - ml_dtypes.finfo(dtype).eps / 2)
    assert abs(drawn.mean() - 0.5) < 3e-3


def test_a_rate_is_not_rounded() -> None:
    ones = K.ones((400, 500), "bfloat16")
    dropped = K.eval(K.dropout(ones, 0.001, seed=3))
    assert dropped.dtype == BF16
    assert 0.0008 < (dropped == 0).mean() < 0.0012
    assert 0.0008 < K.eval(K.random_binomial((400, 500), 0.001, "bfloat16", seed=3)).astype("f4").mean() < 0.0012


# Memory.

def test_variables_and_large_results() -> None:
    w = K.variable(np.linspace(0, 1, 300_000), dtype="bfloat16")
    x = K.placeholder((), dtype="bfloat16")
    move = K.function([x], [w * 2], updates=[(w, w + x)])
    before = K.get_value(w)
    (doubled,) = move([1])
    assert before.dtype == doubled.dtype == K.get_value(w).dtype == BF16
    np.testing.assert_array_equal(doubled, before * BF16.type(2))
    np.testing.assert_array_equal(K.get_value(w), (before + BF16.type(1)).astype(BF16))
    K.set_value(w, np.full(300_000, 1 + 2.0**-8))
    assert set(K.get_value(w).tolist()) == {1.0}
    n = K.placeholder((1,), dtype="int32", name="n")
    count = K.function([n], [n + 1])
    assert count([np.array([3], BF16)])[0].tolist() == [4]
    with pytest.raises(DTypeError, match="n is int32, the value given is bfloat16"):
        count([np.array([0.5], BF16)])


def test_numpy_stays_what_it_is_until_bfloat16_is_asked_for() -> None:
    import subprocess

    code = ("import sys, numpy, tensorc.backend as K\nx = K.placeholder((2,))\nK.function([x], [x * 2])([[1, 2]])\n"
            "print('ml_dtypes' in sys.modules)")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "False\n"


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    types._ml_dtypes.cache_clear()
    x = K.placeholder((2,))
    try:
        for make in (lambda: K.placeholder((2,), dtype="bfloat16"), lambda: K.cast(x, "bfloat16"),
                     lambda: K.variable([1.0], dtype="bfloat16"), lambda: K.zeros((2,), "bfloat16")):
            with pytest.raises(DTypeError, match=r"bfloat16 needs the package ml_dtypes") as error:
                make()
            assert "pip install 'tensorc[bfloat16]'" in str(error.value)
        assert K.eval(K.cast(K.ones((2,)), "float16")).tolist() == [1, 1]
    finally:
        types._ml_dtypes.cache_clear()


def test_floatx_is_one_of_keras() -> None:
    with pytest.raises(ValueError, match="unknown floatx 'bfloat16'; it is one of float16, float32, float64"):
        K.set_floatx("bfloat16")
