"""Profiles of calls on a GPU, on a driver that has none, whose clock is a count of what was done."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import stub_cublaslt
import stub_cudnn
from fake_gpu import FakeGpu, gpu
from test_check import training
from test_cuda_libraries import OnGpu

from tensorc import backend as K
from tensorc.errors import ArgumentError
from tensorc.inspect.found import Found
from tensorc.inspect.page import page
from tensorc.inspect.times import profile_of
from tensorc.passes.pipeline import default
from tensorc.runtime.cuda import timing

assert gpu
LAUNCH = 10e-6
"""How long one takes here."""


@pytest.fixture(autouse=True)
def on_gpu(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> Any:
    K.clear_session()
    monkeypatch.setenv("TENSORC_DEVICE", "cuda")
    monkeypatch.setattr(timing, "COPIES", (1 << 12, 1 << 16))
    timing.limits.cache_clear()
    yield
    timing.limits.cache_clear()


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("rare", [True, False])
def test_a_training_step(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, rare: bool, recorded: bool) -> None:
    if not recorded:
        monkeypatch.setattr("tensorc.runtime.cuda.layout.RECORDED", 0)
    step, variables, inputs = training()
    inputs = [*inputs, np.array(rare)]
    step(inputs)
    before = [K.get_value(v) for v in variables]
    profile = step.profile(inputs, seconds=0)
    assert all(np.array_equal(K.get_value(v), value) for v, value in zip(variables, before, strict=True))

    gpu.launched.clear()
    step(inputs)
    assert sum(row.calls for row in profile.rows) == len(gpu.launched)
    for row in profile.rows:
        assert row.seconds == pytest.approx(row.calls * LAUNCH)
    assert max(row.calls for row in profile.rows) == 5            # a step of the loop for each of as many rows
    assert sum(row.share for row in profile.rows) == pytest.approx(1)
    assert profile.watched >= sum(row.seconds for row in profile.rows)
    assert profile.runs >= 5
    assert any("tanh" in row.operations for row in profile.rows)


def test_the_table_tells_of_the_gpu() -> None:
    x, w = K.placeholder((None, 256), name="x"), K.variable(np.ones((256, 64)), name="w")
    layer = K.function([x], [K.relu(K.dot(x, w))], name="layer")
    text = str(layer.profile([np.ones((8, 256))], seconds=0))
    assert re.match(r"layer: a call takes .*, 1 kernel, x_0 = 8, Fake GPU, median of \d+ runs\n", text)
    # 1.5 GHz, 100 multiprocessors, 128 lanes, two operations each; 65,536 bytes in 33 µs, 4,096 in 3
    assert "limits: memory 2 GB/s, cache 2 GB/s, float32 38400 GFLOP/s, float64 19200 GFLOP/s" in text
    assert "matmul, maximum" in text


def test_what_a_library_does_is_a_row(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    stub_cublaslt.install(monkeypatch, OnGpu(gpu))
    stub_cudnn.install(monkeypatch, OnGpu(gpu))
    x, w = K.placeholder((None, 256), name="x"), K.variable(np.ones((256, 64)), name="w")
    layer = K.function([x], [K.relu(K.dot(x, w)), K.exp(x)], name="layer")
    profile = layer.profile([np.ones((9, 256))], seconds=0)
    product, other = (next(row for row in profile.rows if name in row.operations) for name in ("matmul", "exp"))
    assert product.seconds == pytest.approx(2 * LAUNCH)         # the library's, and that of the relu
    assert product.flops is not None
    assert product.flops > 2 * 9 * 256 * 64 * 0.9
    assert other.seconds == pytest.approx(LAUNCH)


def test_what_a_call_reads_may_be_on_the_gpu() -> None:
    x = K.placeholder((None, 3), name="x")
    double = K.function([x], [x * 2], name="double", device_outputs=True)
    (profile,) = [double.profile(double([np.ones((2, 3))]), seconds=0)]
    assert profile["k0"].seconds == pytest.approx(LAUNCH)


def test_a_graph_from_text_is_timed_where_programs_run() -> None:
    x = K.placeholder((None, 3), name="x")
    graph = K.function([x], [K.exp(x)], name="text").compiled.graph
    profile = profile_of(Found(("text",), graph, default()), {"x_0": 7})
    assert (profile.gpu, profile.sizes) == ("Fake GPU", {"x_0": 7})
    with pytest.raises(ArgumentError, match="text was timed on Fake GPU, but the page shows kernels for the CPU"):
        page([Found(("text",), graph, default())], "text", [profile])
