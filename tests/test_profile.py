"""Profiles: what they say of each kernel, and that they leave no trace."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.codegen.cpu.assemble import assemble
from tensorc.codegen.cpu.target import Target
from tensorc.errors import ArgumentError, IndexRangeError, ShapeError
from tensorc.runtime import limits as limits_module
from tensorc.runtime import profile as profile_module
from tensorc.runtime import store
from tensorc.runtime.limits import COPIES, Limits, limits
from tensorc.runtime.profile import Profile, Row

LIMITS = Limits(2, ((1 << 16, 50e9), (1 << 20, 80e9), (1 << 28, 10e9)), (200e9, 100e9))

Golden = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def known_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No second spent on measuring the machine; the names of a fresh session."""
    K.clear_session()
    monkeypatch.setattr(profile_module, "limits", lambda: LIMITS)
    yield
    K.clear_session()


def training() -> tuple[Any, list[Any], list[np.ndarray[Any, Any]]]:
    """A training step, its variables and its inputs."""
    rng = np.random.default_rng(0)
    x, y = K.placeholder((None, 20), name="x"), K.placeholder((None, 3), name="y")
    w, b = K.variable(rng.normal(size=(20, 3)), name="w"), K.variable(np.zeros(3), name="b")
    dropped = K.dropout(x, 0.5)
    loss = K.mean(K.categorical_crossentropy(y, K.softmax(K.dot(dropped, w) + b)))
    updates = [(v, v - 0.1 * g) for v, g in zip((w, b), K.gradients(loss, [w, b]), strict=True)]
    step = K.function([x, y], [loss], updates, name="step")
    return step, [w, b], [rng.normal(size=(8, 20)).astype("f"), np.eye(3, dtype="f")[rng.integers(3, size=8)]]


def test_the_table(golden: Golden) -> None:
    rows = [
        Row("k0", 1, 400e-6, 0.8, 4_000_000, 40_000_000, "float32", 0.5, "arithmetic",
            ("%0", "%1"), ("matmul", "add"), ("mlp.py:3", "mlp.py:4")),
        Row("k1_k0", 20, 100e-6, 0.2, 800_000, None, "float64", 0.1, "memory", ("%2",), tuple("abcdefgh"), ()),
        Row("k2", 1, 4e-8, 0.0, 12, 1, "float32", 0.004, "memory", ("%3",), ("div",), ()),
    ]
    golden("cli/profile.txt", str(Profile("train", {"n": 128, "m": 3}, 2, 57, 512e-6, 520e-6, tuple(rows), LIMITS)))


def test_a_training_step_is_left_as_it_was() -> None:
    step, variables, inputs = training()
    before = [K.get_value(v) for v in variables]

    step.profile(inputs, seconds=0)

    assert all(np.array_equal(K.get_value(v), old) for v, old in zip(variables, before, strict=True))
    stream, = step.compiled._streams.values()
    assert stream.key()[1] == 0
    step(inputs)
    assert stream.key()[1] == 1
    assert not np.array_equal(K.get_value(variables[0]), before[0])


def test_there_is_a_row_for_every_kernel_of_the_program() -> None:
    step, _, inputs = training()

    profile = step.profile(inputs, seconds=0)

    assert sorted(row.kernel for row in profile.rows) == sorted(k.name for k in step.kernels)
    assert profile.sizes == {"x_0": 8}
    assert sum(row.share for row in profile.rows) == pytest.approx(1)
    assert [row.seconds for row in profile.rows] == sorted((row.seconds for row in profile.rows), reverse=True)
    assert all(row.seconds > 0 and row.calls == 1 for row in profile.rows)
    assert sum(row.seconds for row in profile.rows) <= profile.watched
    matmul = next(row for row in profile.rows if "matmul" in row.operations)
    assert profile[matmul.kernel] is matmul
    assert matmul.flops is not None
    assert matmul.flops >= 2 * 8 * 20 * 3
    assert re.fullmatch(r"test_profile\.py:\d+", matmul.lines[0])
    text = str(step.ir)
    for row in profile.rows:
        assert all(re.search(rf"^  {name}: .*@ .*\bk", text, re.MULTILINE) for name in row.nodes)


def test_the_result_of_a_watched_program_is_that_of_the_normal_one() -> None:
    from tensorc.runtime.timing import Stopwatch

    step, _, inputs = training()
    apart = step.compiled.apart(inputs)
    watch = Stopwatch(apart, None)

    run = apart.on(watch.program)
    apart.restore()
    watched, = run()

    assert watched.tobytes() == step(inputs)[0].tobytes()


def test_the_normal_program_holds_nothing_of_the_watch() -> None:
    step, _, inputs = training()
    step(inputs)

    assert "watch_" not in step.compiled.program.llvm()
    assert "watch_" not in assemble(step.ir, Target.host()).text


def test_a_kernel_of_a_loop_runs_once_a_step() -> None:
    x = K.placeholder((None, 4), name="x")
    total = K.foldl(lambda state, row: K.tanh(state * 0.5 + row), x, K.zeros((4,)))
    function = K.function([x], [total])

    profile = function.profile([np.ones((7, 4), "f")], seconds=0)

    inner = [row for row in profile.rows if row.calls == 7]
    assert [row.kernel for row in inner] == [k.name for k in function.kernels if "_" in k.name]
    assert inner[0].bytes == 7 * (2 * 16 + 16)
    assert all(row.lines for row in profile.rows)


def test_a_branch_that_is_not_taken_has_no_row() -> None:
    x, test = K.placeholder((64, 64), name="x"), K.placeholder((), name="test", dtype="bool")
    y = K.switch(test, lambda: K.sum(K.dot(x, x)), lambda: K.sum(K.exp(x)))
    function = K.function([x, test], [y])

    taken = {case: function.profile([np.ones((64, 64), "f"), case], seconds=0) for case in (True, False)}

    assert any("matmul" in row.operations for row in taken[True].rows)
    assert not any("matmul" in row.operations for row in taken[False].rows)


def test_kernels_that_run_side_by_side_share_the_time_of_their_step() -> None:
    xs = [K.placeholder((None,), name=f"x{i}") for i in range(3)]
    function = K.function(xs, [K.exp(x) * i for i, x in enumerate(xs, 1)])
    values = [np.ones(n, "f") for n in (200_000, 100, 100)]

    profile = function.profile(values, seconds=0)

    assert len(profile.rows) == 3
    assert len(function.ir.plan.steps) == 1
    assert profile.rows[0].share > 0.5
    assert profile.rows[0].bytes == 1_600_000


def test_what_a_call_refuses_a_profile_refuses() -> None:
    x, at = K.placeholder((4, 2), name="x"), K.placeholder((None,), name="at", dtype="int32")
    function = K.function([x, at], [K.gather(x, at)])

    with pytest.raises(IndexRangeError):
        function.profile([np.ones((4, 2)), [7]], seconds=0)
    with pytest.raises(ShapeError):
        function.profile([np.ones((4, 3)), [1]], seconds=0)
    with pytest.raises(ArgumentError, match="takes 2 inputs, got 1"):
        function.profile([np.ones((4, 2))], seconds=0)


def test_what_a_call_prints_a_profile_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    x = K.placeholder((2,), name="x")
    function = K.function([x], [K.print_tensor(x, "look:")])

    function.profile([np.ones(2)], seconds=0)
    assert capsys.readouterr().out == ""

    function([np.ones(2)])
    assert capsys.readouterr().out == "look: [1. 1.]\n"


def test_a_sparse_input_and_a_single_one() -> None:
    x = K.placeholder((None, 5), name="x")
    single = K.function(x, K.exp(x))

    assert single.profile(np.ones((3, 5), "f"), seconds=0).sizes == {"x_0": 3}

    s = K.placeholder((None, 5), name="s", sparse=True)
    w = K.variable(np.ones((5, 2)), name="w")
    function = K.function([s], [K.dot(s, w)])
    assert function.profile([np.eye(5, dtype="f")], seconds=0).rows[0].flops == 2 * 5 * 2


def test_limits_by_the_bytes_moved_and_the_dtype() -> None:
    from tensorc.ir.types import f16, f32, f64

    assert [LIMITS.bandwidth(n) for n in (0, 1 << 18, 1 << 22, 1 << 40)] == [80e9, 80e9, 10e9, 10e9]
    assert [LIMITS.peak(dtype) for dtype in (f16, f32, f64)] == [200e9, 200e9, 100e9]
    assert (LIMITS.cache, LIMITS.memory) == (80e9, 10e9)


def test_limits_are_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = store.Store(tmp_path / "store", 1 << 30)
    monkeypatch.setattr(store, "shared", lambda: shared)
    monkeypatch.setattr(limits_module, "COPIES", COPIES[:2])
    monkeypatch.setattr(limits_module, "SECONDS", 0)
    limits_module._known.cache_clear()

    measured = limits()
    assert all(rate > 1e6 for _, rate in measured.copies)
    assert all(rate > 1e6 for rate in measured.flops)

    monkeypatch.setattr(limits_module, "measure", lambda: pytest.fail("measured again"))
    limits_module._known.cache_clear()
    assert limits() == measured

    kept, = shared.folder.glob("limits-*.json")
    kept.write_text("damaged")
    monkeypatch.setattr(limits_module, "measure", lambda: LIMITS)
    limits_module._known.cache_clear()
    assert limits() == LIMITS
    limits_module._known.cache_clear()
