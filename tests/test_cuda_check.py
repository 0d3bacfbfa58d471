"""TENSORC_CHECK=1 on a GPU: each kernel beside its references, on a driver that has no GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import stub_cublaslt
import stub_cudnn
from fake_gpu import FakeGpu, gpu
from test_check import trained
from test_cuda_libraries import OnGpu

import tensorc
from tensorc import backend as K
from tensorc.codegen.cuda import lockstep
from tensorc.errors import CheckError, IndexRangeError
from tensorc.runtime.cuda.binding import CudaBinding
from tensorc.runtime.cuda.check import CheckedOnGpu

assert gpu


@pytest.fixture(autouse=True)
def checking(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    K.clear_session()
    monkeypatch.setenv("TENSORC_CHECK", "1")
    monkeypatch.setenv("TENSORC_DEVICE", "cuda")


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[Any], None]], None]:
    """Changes what kernels write in whose text a word stands."""
    run = lockstep.run

    def let(word: str, change: Callable[[Any], None]) -> None:
        def wrong(source: Any, arrays: Any, sizes: Any) -> None:
            run(source, arrays, sizes)
            if word in source.text:
                (result,) = (array for array, written in zip(arrays, source.written, strict=True) if written)
                change(result)

        monkeypatch.setattr(lockstep, "run", wrong)

    return let


@pytest.mark.parametrize("libraries", [False, True])
@pytest.mark.parametrize("rare", [True, False])
def test_a_sound_program_passes_and_computes_the_same(gpu: FakeGpu, rare: bool, libraries: bool,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    if libraries:
        stub_cublaslt.install(monkeypatch, OnGpu(gpu))
        stub_cudnn.install(monkeypatch, OnGpu(gpu))

    checked = trained(rare)
    monkeypatch.setenv("TENSORC_CHECK", "0")

    assert trained(rare) == checked


def test_it_is_asked_for_when_a_function_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    x = K.placeholder((2,), name="x")
    checked, plain = K.function([x], [K.exp(x)]), K.function([x], [K.exp(x)])
    checked([np.ones(2)])
    monkeypatch.delenv("TENSORC_CHECK")
    plain([np.ones(2)])

    assert type(checked.compiled._usual) is CheckedOnGpu
    assert type(plain.compiled._usual) is CudaBinding


def test_a_nan_is_told_as_on_the_cpu_and_variables_are_left() -> None:
    def told(device: str) -> str:
        K.clear_session()
        with tensorc.device(device):
            x, w = K.placeholder((None, 4), name="x"), K.variable(np.ones((4, 3)), name="w")
            y = K.sum(K.log(K.dot(x, w)) * 2)
            step = K.function([x], [y], [(w, w - 0.1 * K.gradients(y, [w])[0])], name="step")
        assert np.isfinite(step([np.ones((2, 4))])[0])
        before = K.get_value(w)
        with pytest.raises(CheckError) as caught:
            step([[[1, 1, 1, 1], [-1, 1, 1, -2]]])
        assert np.array_equal(K.get_value(w), before)
        step([np.ones((2, 4))])
        assert not np.array_equal(K.get_value(w), before)
        return str(caught.value)

    there = told("cuda")
    assert there == told("cpu")
    assert "log makes a NaN in kernel k0" in there
    assert "3 of 6 elements are NaN, the first at [1, 0]" in there


def test_a_kernel_that_computes_something_else_is_named(spoil: Any) -> None:
    def change(w: Any) -> None:
        w[2] += 1

    x, w = K.placeholder((None, 3), name="x"), K.variable(np.ones((3, 3)), name="w")
    first = K.dot(x, w)
    step = K.function([x], [K.softmax(first)], [(w, K.tanh(w) + 0 * first[0])], name="step")
    spoil("tanh", change)

    with pytest.raises(CheckError, match=r"(?s)step: kernel k\d+ does not compute what its reference does"
                                         r".* 1 of 9 elements differ, the first at \[0, 2\]"):
        step([np.ones((2, 3))])
    assert np.array_equal(K.get_value(w), np.ones((3, 3)))


def test_a_step_of_a_loop_is_named(spoil: Any) -> None:
    def change(total: Any) -> None:
        total[total > 2.5] = 9

    x = K.placeholder((None, 3), name="x")
    function = K.function([x], [K.foldl(lambda s, row: s + K.exp(row), x, K.zeros((3,)))], name="fold")
    spoil("exp", change)

    with pytest.raises(CheckError, match=r"does not compute what its reference does, in step 2 of loop k\d+"):
        function([np.zeros((4, 3))])


def test_an_index_outside_is_told_first() -> None:
    rows, at = K.variable(np.ones((5, 3)), name="rows"), K.placeholder((None,), dtype="int64")
    function = K.function([at], [K.sum(K.gather(rows, at))], [(rows, rows * 2)])
    function([[0, 4]])
    with pytest.raises(IndexRangeError):
        function([[0, 5]])
    assert np.array_equal(K.get_value(rows), np.full((5, 3), 2))


def test_arrays_on_the_gpu_are_checked_where_they_are() -> None:
    x = K.placeholder((None, 3), name="x")
    double = K.function([x], [x * 2], device_outputs=True)
    (there,) = double(double([np.ones((2, 3))]))
    assert np.array_equal(there.get(), np.full((2, 3), 4))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_float_has_room_for_its_roundings(dtype: str) -> None:
    x, w = K.placeholder((None, 8), dtype=dtype), K.variable(np.eye(8) / 3, dtype=dtype)
    y = K.softmax(K.tanh(K.dot(x, w)))
    step = K.function([x], [y, K.sum(y)], [(w, w * 2)])
    for _ in range(2):
        step([np.random.default_rng(1).normal(size=(3, 8))])
    np.testing.assert_allclose(K.get_value(w).astype(float), np.eye(8) * 4 / 3, rtol=1e-2)
