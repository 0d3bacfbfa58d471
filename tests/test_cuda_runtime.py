"""Programs on a GPU, from K.function to launches, on a driver that has none: what the host does, call by call."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeGpu, forget, gpu

import tensorc
from tensorc import backend as K
from tensorc.errors import ArgumentError, DeviceError
from tensorc.runtime.cuda import driver, machine
from tensorc.runtime.cuda.device import device
from tensorc.runtime.devices import gpus

assert gpu
RNG = np.random.default_rng(11)


def numbers(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def close(got: Any, want: Any, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_elementwise(gpu: FakeGpu) -> None:
    x, y = K.placeholder((None, 5)), K.placeholder((None, 5))
    function = K.function([x, y], [K.tanh(x) * y + 1, x - y], device="cuda")
    for n in (3, 3, 1, 0, 7, 3):
        a, b = numbers(n, 5), numbers(n, 5)
        first, second = function([a, b])
        close(first, np.tanh(a) * b + 1)
        close(second, a - b)
    assert gpu.launched


class Adam:
    """A training step of a dense layer, with all that it keeps."""

    def __init__(self, device: str, seed: int = 3) -> None:
        rng = np.random.default_rng(seed)
        x, y = K.placeholder((None, 6)), K.placeholder((None, 4))
        self.w, self.b = K.variable(rng.normal(size=(6, 4)) / 3), K.variable(np.zeros(4))
        loss = K.mean(K.categorical_crossentropy(y, K.dot(x, self.w) + self.b, from_logits=True))
        self.all, updates = [self.w, self.b], []
        for p, g in zip((self.w, self.b), K.gradients(loss, [self.w, self.b]), strict=True):
            m, v = K.variable(np.zeros(K.int_shape(p))), K.variable(np.zeros(K.int_shape(p)))
            self.all += [m, v]
            mean, square = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * K.square(g)
            updates += [(m, mean), (v, square), (p, p - 0.05 * mean / (K.sqrt(square) + 1e-7))]
        self.step = K.function([x, y], [loss], updates, device=device)
        self.score = K.function([x], [K.dot(x, self.w) + self.b], device="cpu")

    @staticmethod
    def batch(n: int) -> list[Any]:
        return [numbers(n, 6), np.eye(4, dtype=np.float32)[RNG.integers(0, 4, n)]]

    def values(self) -> list[Any]:
        return [K.get_value(each) for each in self.all]


def test_a_training_step_leaves_variables_on_the_gpu(gpu: FakeGpu) -> None:
    here, there = Adam("cpu"), Adam("cuda")
    for n in (5, 5, 3, 5):
        batch = Adam.batch(n)
        close(there.step(batch), here.step(batch))
    for mine, theirs in zip(there.values(), here.values(), strict=True):
        close(mine, theirs)


def test_one_variable_is_used_on_both_sides_by_turns(gpu: FakeGpu) -> None:
    here, there = Adam("cpu"), Adam("cuda")
    batch = Adam.batch(4)
    for turn in range(3):
        close(there.step(batch), here.step(batch))
        close(there.score([batch[0]]), here.score([batch[0]]))
        if turn == 1:
            for each in (here, there):
                K.set_value(each.b, np.arange(4, dtype=np.float32))
    close(there.values()[0], here.values()[0])


def test_copies_are_made_only_when_they_are_needed(gpu: FakeGpu) -> None:
    there, batch = Adam("cuda"), Adam.batch(4)
    there.step(batch)
    gpu.fail(0)
    there.step(batch)
    again = gpu.calls
    there.values()
    gpu.fail(0)
    there.step(batch)
    assert gpu.calls == again               # reading variables has not made the device's copies old
    K.set_value(there.b, np.zeros(4))
    gpu.fail(0)
    there.step(batch)
    assert gpu.calls > again


def test_dropout_and_random_numbers_are_those_of_the_cpu(gpu: FakeGpu) -> None:
    x = K.placeholder((None, 9))
    a = numbers(4, 9)

    def drawn(device: str) -> list[Any]:
        function = K.function([x], [K.dropout(x, 0.4, seed=5), K.random_uniform((3, 2), seed=7)], device=device)
        return [function([a]) for _ in range(3)]

    for mine, theirs in zip(drawn("cuda"), drawn("cpu"), strict=True):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_loop(gpu: FakeGpu) -> None:
    x = K.placeholder((None, None, 3))
    w, u = K.variable(numbers(3, 4)), K.variable(numbers(4, 4) / 2)
    last, every, _ = K.rnn(lambda now, states: (h := K.tanh(K.dot(now, w) + K.dot(states[0], u)), [h]),
                           x, [K.zeros_like(K.dot(x[:, 0], w))])
    outputs = [last, *K.gradients(K.sum(K.square(every)), [w, u])]
    there, here = (K.function([x], outputs, device=device) for device in ("cuda", "cpu"))
    for steps in (1, 4, 4):
        a = numbers(2, steps, 3)
        for mine, theirs in zip(there([a]), here([a]), strict=True):
            close(mine, theirs, 1e-4)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_choice(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, recorded: bool) -> None:
    if not recorded:
        monkeypatch.setattr("tensorc.runtime.cuda.layout.RECORDED", 0)
    x, v = K.placeholder((None, 4)), K.variable(np.ones(4))
    chosen = K.switch(K.sum(x) > 0, lambda: K.dot(x, K.transpose(x)), lambda: K.exp(K.dot(x, K.transpose(x))))
    function = K.function([x], [chosen], [(v, v + K.sum(chosen))], device="cuda")
    total = 0.0
    for sign in (1, -1, 1, -1):
        a = sign * np.abs(numbers(3, 4)) / 4
        want = a @ a.T if sign > 0 else np.exp(a @ a.T)
        close(function([a])[0], want)
        total += want.sum()
    close(K.get_value(v), 1 + np.full(4, total), 1e-4)


def test_an_index_outside_leaves_variables_alone(gpu: FakeGpu) -> None:
    rows, at = K.variable(numbers(5, 3)), K.placeholder((None,), dtype="int64")
    function = K.function([at], [K.sum(K.gather(rows, at))], [(rows, rows * 2)], device="cuda")
    before = K.get_value(rows)
    for places, factor in (([0, 4], 2), ([0, 5], 2), ([1, 2], 4), ([-1, 9], 4)):
        if max(places) < 5:
            function([np.array(places)])
        else:
            with pytest.raises(IndexError, match=r"outside"):
                function([np.array(places)])
        np.testing.assert_array_equal(K.get_value(rows), before * factor)


def test_a_sparse_product(gpu: FakeGpu) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    x, w = K.placeholder((None, 6), sparse=True), K.variable(numbers(6, 3))
    function = K.function([x], [K.dot(x, w)], device="cuda")
    a = sparse.random(4, 6, 0.4, "csr", np.float32, random_state=1)
    close(function([a])[0], a @ K.get_value(w))


def test_ctc(gpu: FakeGpu) -> None:
    labels, lengths = np.array([[1, 2], [0, 0]]), np.array([[5], [4]])
    logits = K.placeholder((2, None, 4))
    cost = K.ctc_batch_cost(K.constant(labels), K.softmax(logits), K.constant(lengths, dtype="int64"),
                            K.constant([[2], [1]], dtype="int64"))
    there, here = (K.function([logits], [cost], device=device) for device in ("cuda", "cpu"))
    a = numbers(2, 5, 4)
    close(there([a]), here([a]), 1e-4)


def test_calls_of_several_threads(gpu: FakeGpu) -> None:
    x, total = K.placeholder((None, 3)), K.variable(np.zeros(3))
    w = K.variable(numbers(3, 3))
    function = K.function([x], [K.dot(x, w)], [(total, total + K.sum(x, axis=0))], device="cuda")
    batches = [numbers(n % 3 + 1, 3) for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for got, batch in zip(pool.map(lambda batch: function([batch])[0], batches), batches, strict=True):
            close(got, batch @ K.get_value(w))
    close(K.get_value(total), sum(batch.sum(axis=0) for batch in batches), 1e-4)


def test_outputs_stay_there_and_go_on_from_there(gpu: FakeGpu) -> None:
    x, v = K.placeholder((None, 4)), K.variable(np.zeros(4))
    double = K.function([x], [x * 2, K.sum(x)], [(v, v + K.sum(x, axis=0))], device="cuda", device_outputs=True)
    a = numbers(3, 4)
    before = len(gpu.launched)
    results = [a]
    for _ in range(5):
        results = [results[0], *double([results[0]])]
        results = results[1:]
    assert len(gpu.launched) - before < 5 * 3       # nothing waits for the last ones
    close(results[0], a * 32)
    assert float(results[1]) == pytest.approx(float(np.sum(a * 16)), rel=1e-4)
    close(K.get_value(v), (a * 31).sum(axis=0), 1e-4)
    assert (results[0].shape, results[0].dtype, len(results[0])) == ((3, 4), np.float32, 3)
    close(K.function([x], [x + 1], device="cpu")([results[0]])[0], a * 32 + 1)


def test_numpy_arrays_may_change_as_soon_as_a_call_returns(gpu: FakeGpu) -> None:
    x = K.placeholder((4,))
    function = K.function([x], [x + 1], device="cuda", device_outputs=True)
    a = np.zeros(4, np.float32)
    kept = []
    for n in range(6):
        a[:] = n
        kept += function([a])
    for n, each in enumerate(kept):
        np.testing.assert_array_equal(each.get(), np.full(4, n + 1, np.float32))


class Foreign:
    """Another library's array, by the CUDA array interface."""

    def __init__(self, array: Any, shape: Any, strides: Any = None, offset: int = 0) -> None:
        self.array = array
        self.__cuda_array_interface__ = {"shape": shape, "typestr": "<f4", "data": (array.address + offset, False),
                                         "strides": strides, "version": 3, "stream": 1}


class ByDLPack:
    """Another library's array, by DLPack alone."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.asked: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, stream: Any = None) -> Any:
        self.asked.append(stream)
        return self.array.__dlpack__(stream=stream)


def test_arrays_of_other_libraries_are_read_where_they_are(gpu: FakeGpu) -> None:
    x = K.placeholder((None, 4))
    keep = K.function([x], [x * 1], device="cuda", device_outputs=True)
    negated = K.function([x], [-x], device="cuda")
    a = numbers(3, 4)
    (there,) = keep([a])
    by_dlpack = ByDLPack(there)
    for _ in range(2):
        np.testing.assert_array_equal(negated([by_dlpack])[0], -a)
    assert all(stream > 2 for stream in by_dlpack.asked)
    np.testing.assert_array_equal(negated([Foreign(there, (3, 4))])[0], -a)
    np.testing.assert_array_equal(negated([Foreign(there, (2, 4), None, 16)])[0], -a[1:])
    np.testing.assert_array_equal(negated([Foreign(there, (2, 4), None, 4)])[0], -a.ravel()[1:9].reshape(2, 4))
    np.testing.assert_array_equal(negated([Foreign(there, (3, 4), (4, 12))])[0], -a.ravel().reshape(4, 3).T)
    np.testing.assert_array_equal(negated([Foreign(there, (2, 4), (-16, 4), 16)])[0], -a[1::-1])
    with pytest.raises(DeviceError, match="its address is not of one"):
        negated([Foreign(there, (3, 4), None, 1 << 40)])
    told = there.__cuda_array_interface__
    assert told["data"] == (there.address, False)
    assert told["stream"] > 2
    with pytest.raises(BufferError, match="stream 0"):
        there.__dlpack__(stream=0)
    for asked in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(BufferError, match="where it is"):
            there.__dlpack__(**asked)
    assert there.__dlpack__(max_version=(1, 1), dl_device=(2, 0), copy=False)


def test_bfloat16_goes_by_dlpack_alone(gpu: FakeGpu) -> None:
    x = K.placeholder((None, 4), dtype="bfloat16")
    keep = K.function([x], [x * 1], device="cuda", device_outputs=True)
    a = numbers(3, 4).astype("bfloat16")
    (there,) = keep([a])
    assert (there.dtype, there.nbytes) == (a.dtype, 24)
    np.testing.assert_array_equal(there.get(), a)
    (again,) = keep([ByDLPack(there)])
    np.testing.assert_array_equal(np.asarray(again), a)
    assert not hasattr(there, "__cuda_array_interface__")
    with pytest.raises(AttributeError, match="no name for bfloat16; DLPack has"):
        _ = there.__cuda_array_interface__


def test_memory_that_others_may_still_read_is_not_given_away(gpu: FakeGpu) -> None:
    x = K.placeholder((None,))
    function = K.function([x], [x + 1], device="cuda", device_outputs=True)
    (first,) = function([np.zeros(8, np.float32)])
    capsule = first.__dlpack__()
    address = first.address
    del first
    (second,) = function([np.zeros(8, np.float32)])
    assert second.address != address                # the capsule still has it
    del capsule
    gpu.fail(0)
    (third,) = function([np.zeros(8, np.float32)])
    assert (third.address, third.get()[0]) == (address, 1)


def test_nobody_waits_for_the_whole_device_while_a_graph_is_recorded(gpu: FakeGpu,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA lets that fail, and the recording of the other thread with it."""
    x = K.placeholder((None,))
    lend = K.function([x], [x + 1], device="cuda", device_outputs=True)
    function = K.function([x], [x * 2], device="cuda")
    function([[1.0]])
    (lent,) = lend([[1.0]])
    lent.__dlpack__()
    del lent

    def reuse() -> None:
        with device().current():
            assert not device().memory.take(4, None).lent

    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
        waiting: list[Any] = []
        download = machine.Machine.download

        def meanwhile(self: Any, *arguments: int) -> None:
            waiting.append(pool.submit(reuse))
            with contextlib.suppress(TimeoutError):
                waiting[0].result(0.2)
            download(self, *arguments)

        patch.setattr(machine.Machine, "download", meanwhile)
        close(function([[3.0, 4.0]])[0], [6, 8])
        waiting[0].result()
        assert len(waiting) == 1


def fails_everywhere(gpu: FakeGpu, call: Any, variables: Any) -> set[str]:
    """Lets every call of the driver fail that `call` makes, one by one; the functions that failed.

    Variables have all their old values then, or all their new ones, and the function can be called again.
    """
    old = [K.get_value(v) for v in variables]
    call()
    new = [K.get_value(v) for v in variables]
    failed: set[str] = set()
    for number in range(1, 1000):
        for variable, value in zip(variables, old, strict=True):
            K.set_value(variable, value)
        gpu.fail(number)
        with contextlib.suppress(DeviceError):
            call()
        if not gpu.failed:
            gpu.check()
            return failed
        failed.add(gpu.failed)
        gpu.fail(0)
        now = [K.get_value(v) for v in variables]
        assert any(all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(now, state, strict=True))
                   for state in (old, new)), (number, gpu.failed)
    raise AssertionError("there was no end")


def test_whatever_fails_variables_are_old_or_new(gpu: FakeGpu) -> None:
    there, batch = Adam("cuda"), Adam.batch(3)
    failed = fails_everywhere(gpu, lambda: there.step(batch), there.all)
    assert {"cuCtxPushCurrent_v2", "cuGraphLaunch", "cuEventSynchronize", "cuMemcpyHtoDAsync_v2"} <= failed


def test_whatever_fails_in_a_first_call_the_next_one_works(gpu: FakeGpu) -> None:
    a = numbers(2, 4)

    def tried(number: int) -> str:
        x, v = K.placeholder((None, 4)), K.variable(np.ones(4))
        gpu.fail(number)
        with contextlib.suppress(DeviceError):
            K.function([x], [K.sum(x * v)], [(v, v + K.sum(x, axis=0))], device="cuda")([a])
        failed = gpu.failed
        gpu.fail(0)
        K.set_value(v, np.ones(4))
        close(K.function([x], [K.sum(x * v)], [(v, v + K.sum(x, axis=0))], device="cuda")([a])[0], a.sum())
        close(K.get_value(v), 1 + a.sum(axis=0))
        return failed

    seen = set()
    for number in range(1, 1000):
        seen.add(tried(number))
        forget()
        if "" in seen:
            break
    elsewhere = """cuGetErrorName cuGetErrorString cuMemGetInfo_v2 cuMemcpyDtoDAsync_v2 cuPointerGetAttribute
        cuEventQuery cuEventElapsedTime_v2 cuCtxSynchronize cuMemFree_v2 cuMemFreeHost cuGraphExecDestroy cuModuleUnload
        cuEventDestroy_v2 cuStreamDestroy_v2 cuStreamWaitEvent cuStreamSynchronize cuThreadExchangeStreamCaptureMode"""
    assert set(driver.SIGNATURES) - seen <= set(elsewhere.split())


@pytest.mark.parametrize("recorded", [True, False])
def test_whatever_fails_in_a_choice_variables_are_old_or_new(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch,
                                                             recorded: bool) -> None:
    if not recorded:
        monkeypatch.setattr("tensorc.runtime.cuda.layout.RECORDED", 0)
    x, v, w = K.placeholder((None, 4)), K.variable(np.ones(4)), K.variable(np.ones((4, 4)))
    chosen = K.switch(K.sum(x) > 0, lambda: K.dot(x, w), lambda: K.exp(K.dot(x, w)))
    updates = [(v, v * 2), (w, w + K.dot(K.transpose(x), chosen))]
    function = K.function([x], [K.sum(chosen)], updates, device="cuda")
    a = np.abs(numbers(2, 4))
    failed = fails_everywhere(gpu, lambda: function([a]), [v, w])
    assert "cuMemcpyDtoDAsync_v2" in failed


def test_a_gpu_without_room_says_how_much_was_asked_for(gpu: FakeGpu) -> None:
    x = K.placeholder((None,))
    function = K.function([x], [x + 1], name="more", device="cuda")
    function([np.zeros(10, np.float32)])
    gpu.library.fake_memory(4_000_000)
    try:
        with pytest.raises(DeviceError) as raised:
            function([np.zeros(1_000_000, np.float32)])
        assert str(raised.value).startswith("more: the GPU's driver failed: cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (2), "
                                            "out of memory: 8.4 MB were asked for, ")
        assert "of 4.0 MB are free\n  use smaller inputs" in str(raised.value)
        close(function([np.zeros(10, np.float32)])[0], 1)
    finally:
        gpu.library.fake_memory(1 << 30)


def test_no_gpu_is_an_error_that_says_what_was_found(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def complaint(count: int, version: int, major: int = 9) -> str:
        gpu.library.fake_devices(count, version, major)
        forget()
        try:
            with pytest.raises(DeviceError) as raised:
                K.function([], [K.constant(1.0)], device="cuda")
        finally:
            gpu.library.fake_devices(1, 13000, 9)
            forget()
        return str(raised.value)

    assert "CUDA_ERROR_NO_DEVICE (100)" in complaint(0, 13000)
    assert "CUDA_VISIBLE_DEVICES" in complaint(0, 13000)
    assert "a Fake GPU, compute capability 6.0, but kernels are compiled for 7.5 and later" in complaint(1, 13000, 6)
    assert "for CUDA 12.4, kernels are compiled for 13.0; install NVIDIA's driver, version 580" in complaint(1, 12040)
    monkeypatch.setattr(driver, "NAMES", ("libc.so.6",))
    forget()
    with pytest.raises(DeviceError, match="NVIDIA's driver has no cuInit"):
        K.function([], [K.constant(1.0)], device="cuda")


def test_devices_are_listed(gpu: FakeGpu) -> None:
    assert gpus() == ["Fake GPU, compute capability 9.0"]


def test_another_process_compiles_nothing(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")

    def told(what: str) -> str:
        environment = {**os.environ, "TENSORC_CACHE": "1", "TENSORC_CACHE_DIR": str(tmp_path)}
        script = Path(__file__).parent / "fake_cuda" / "another_process.py"
        return subprocess.run([sys.executable, script, what], env=environment, text=True, capture_output=True,
                              check=True, cwd=Path(__file__).parents[1]).stdout

    made, loaded = told("make").rpartition(" "), told("load").rpartition(" ")
    assert made[0] == loaded[0]
    assert (made[2], loaded[2]) == ("True\n", "False\n")


def test_indices_have_64_bits_where_buffers_need_them(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorc.codegen.cuda.source.NARROW", 100)
    x, v = K.placeholder((None, 4)), K.variable(np.zeros(4))
    function = K.function([x], [K.tanh(x)], [(v, v + K.sum(x, axis=0))], device="cuda")
    total = 0
    for n in (5, 30, 5, 30):
        a = numbers(n, 4)
        total = total + a.sum(axis=0)
        close(function([a])[0], np.tanh(a))
    close(K.get_value(v), total)
    assert {source.wide for source in gpu.sources.values()} == {False, True}


def test_the_environment_and_blocks_choose_the_gpu(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    with tensorc.device("cuda"):
        close(K.eval(K.constant([1.0, 2.0]) * 2), [2, 4])
    assert gpu.launched
    monkeypatch.setenv("TENSORC_DEVICE", "cuda")
    gpu.launched.clear()
    close(K.eval(K.constant([1.0, 2.0]) * 3), [3, 6])
    assert gpu.launched


def test_what_is_not_there_on_a_gpu_says_so(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    x = K.placeholder((None,))
    function = K.function([x], [x + 1], device="cuda")
    with pytest.raises(DeviceError, match="device='cpu'"):
        function.profile([[1.0]])
    monkeypatch.setenv("TENSORC_CHECK", "1")
    with pytest.raises(DeviceError, match="TENSORC_CHECK checks the kernels of programs on the CPU only"):
        K.function([x], [x + 1], device="cuda")([[1.0]])


def test_what_is_compiled_is_told(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("TENSORC_DEBUG", "3")
    x = K.placeholder((None,))
    function = K.function([x], [x + 1], device="cuda")
    function([[1.0]])
    told = capsys.readouterr().err
    assert re.search(r"function: compiled in .* 1 kernel; not kept in the store", told)
    assert "cuda.blockIdx" in told
    assert "kernel" in str(function.kernels)


def test_a_result_whose_length_is_computed_comes_to_the_host(gpu: FakeGpu) -> None:
    y = K.placeholder((2, 5, 4))
    (decoded,), _ = K.ctc_decode(K.softmax(y), [5, 4])
    a = numbers(2, 5, 4)
    there, here = (K.function([y], [decoded], device=device) for device in ("cuda", "cpu"))
    np.testing.assert_array_equal(there([a])[0], here([a])[0])
    with pytest.raises(ArgumentError, match="output 0 is known only when computed"):
        K.function([y], [decoded], device="cuda", device_outputs=True)


def test_a_dump_holds_what_becomes_of_the_graph_on_a_gpu(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch,
                                                         tmp_path: Path) -> None:
    monkeypatch.setenv("TENSORC_DUMP", str(tmp_path))
    x = K.placeholder((None, 4))
    K.function([x], [K.softmax(x)], name="soft", device="cuda")([numbers(2, 4)])
    own = tmp_path / "01-soft"
    assert "cuda.blockIdx" in (own / "kernels.py").read_text()
    assert "kernel" in (own / "loops.txt").read_text()
    assert not (own / "program.ll").exists()


def test_the_driver_is_called_as_nvidia_declares_it() -> None:
    """The table of signatures, against the declarations in NVIDIA's own bindings."""
    bindings = pytest.importorskip("cuda.bindings")
    folder = Path(bindings.__file__).parent
    declared = (folder / "cydriver.pxd").read_text()
    loaded = (folder / "_bindings" / "cydriver.pyx").read_text()
    kinds = {"unsigned int": driver.U, "int": driver.I, "CUdevice": driver.I, "CUresult": driver.I, "size_t": driver.N,
             "CUdeviceptr": driver.D, "unsigned long long": driver.Q, "CUstreamCaptureMode": driver.I,
             "CUpointer_attribute": driver.I, "CUdevice_attribute": driver.I, "const char*": ctypes.c_char_p,
             **dict.fromkeys(["CUcontext", "CUstream", "CUevent", "CUgraph", "CUgraphExec", "CUmodule", "CUfunction"],
                             driver.P)}

    def kind(parameter: str) -> Any:
        words = parameter.rpartition(" ")[0]
        return kinds[words] if words in kinds or "*" not in words else driver.P

    for name, arguments in driver.SIGNATURES.items():
        plain = name.partition("_")[0].removesuffix("WithFlags")
        (parameters,) = re.findall(rf"^cdef CUresult {plain}\((.*?)\) except", declared, re.M)
        want = tuple(kind(p) for p in parameters.split(", ")) if parameters else ()
        assert [ctypes.sizeof(a) for a in arguments] == [ctypes.sizeof(a) for a in want], name
        assert [a is driver.P or a is ctypes.c_char_p for a in arguments] == [
            a is driver.P or a is ctypes.c_char_p for a in want], name
        assert f"__{name} = dlfcn.dlsym(handle, '{name}')" in loaded, name


def test_numbers_are_those_of_nvidias_header() -> None:
    """What the driver is told, and what it tells, by NVIDIA's own bindings."""
    bindings = pytest.importorskip("cuda.bindings.driver")
    result, attribute, mode = bindings.CUresult, bindings.CUdevice_attribute, bindings.CUstreamCaptureMode

    def numbers(kind: Any, prefix: str, names: str) -> list[int]:
        return [int(kind[f"{prefix}_{name}"]) for name in names.split()]

    assert numbers(result, "CUDA_ERROR", "OUT_OF_MEMORY NO_DEVICE NOT_READY") == [
        driver.OUT_OF_MEMORY, driver.NO_DEVICE, driver.NOT_READY]
    assert numbers(result, "CUDA_ERROR", """ECC_UNCORRECTABLE NVLINK_UNCORRECTABLE CONTAINED ILLEGAL_ADDRESS
        LAUNCH_TIMEOUT CONTEXT_IS_DESTROYED ASSERT HARDWARE_STACK_ERROR ILLEGAL_INSTRUCTION MISALIGNED_ADDRESS
        INVALID_ADDRESS_SPACE INVALID_PC LAUNCH_FAILED UNKNOWN""") == list(driver.LOST)
    assert set(driver.FIXES) == {*driver.LOST, *numbers(result, "CUDA_ERROR", """OUT_OF_MEMORY NOT_INITIALIZED
        STUB_LIBRARY CALL_REQUIRES_NEWER_DRIVER NO_DEVICE INVALID_DEVICE INVALID_IMAGE NO_BINARY_FOR_GPU
        UNSUPPORTED_PTX_VERSION SYSTEM_NOT_READY SYSTEM_DRIVER_MISMATCH COMPAT_NOT_SUPPORTED_ON_DEVICE""")}
    assert numbers(attribute, "CU_DEVICE_ATTRIBUTE", "COMPUTE_CAPABILITY_MAJOR COMPUTE_CAPABILITY_MINOR") == list(
        driver.CAPABILITY)
    assert numbers(bindings.CUpointer_attribute, "CU_POINTER_ATTRIBUTE", "DEVICE_ORDINAL") == [driver.DEVICE_OF_POINTER]
    assert numbers(mode, "CU_STREAM_CAPTURE_MODE", "THREAD_LOCAL RELAXED") == [driver.THREAD_LOCAL, driver.RELAXED]
    assert int(bindings.CUstream_flags.CU_STREAM_NON_BLOCKING) == driver.NON_BLOCKING
    assert int(bindings.CUevent_flags.CU_EVENT_DISABLE_TIMING) == driver.NO_TIMING
    assert int(bindings.CU_MEMHOSTALLOC_PORTABLE) == driver.PORTABLE
