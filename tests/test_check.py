"""TENSORC_CHECK=1: kernels beside their references, and what is said of the first that differs or makes a NaN."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.codegen import bodies
from tensorc.codegen.cpu import program
from tensorc.codegen.cpu.lanes import Lanes
from tensorc.errors import CheckError, IndexRangeError
from tensorc.runtime import verdict
from tensorc.runtime.binding import Binding
from tensorc.runtime.check import Checked

Golden = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def checking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    K.clear_session()
    monkeypatch.setenv("TENSORC_CHECK", "1")
    yield
    K.clear_session()


def training(seed: int = 3) -> tuple[Any, list[Any], list[np.ndarray[Any, Any]]]:
    """A step with a product, dropout, a loop, a choice, a gather and updates, its variables and its inputs."""
    rng = np.random.default_rng(0)
    x, at = K.placeholder((None, 5, 6), name="x"), K.placeholder((None,), name="at", dtype="int32")
    rare = K.placeholder((), name="rare", dtype="bool")
    w, table = K.variable(rng.normal(size=(6, 6)), name="w"), K.variable(rng.normal(size=(9, 6)), name="table")
    h = K.dropout(K.dot(x, w) + K.gather(table, at)[:, None, :], 0.3, seed=seed)
    _, states, _ = K.rnn(lambda step, s: (K.tanh(step + s[0]), [K.tanh(step + s[0])]), h, [h[:, 0] * 0.0])
    last = K.switch(rare, lambda: K.dot(states, w), lambda: K.softmax(states))
    loss = K.mean(K.square(last))
    updates = [(v, v - 0.1 * g) for v, g in zip((w, table), K.gradients(loss, [w, table]), strict=True)]
    step = K.function([x, at, rare], [loss, last], updates, name="step")
    return step, [w, table], [rng.normal(size=(4, 5, 6)).astype("f"), np.array([0, 8, 8, 1], "i")]


def trained(rare: bool) -> list[bytes]:
    """What two steps of `training` give, and the variables then."""
    K.clear_session()
    step, variables, inputs = training()
    results = [each for _ in range(2) for each in step([*inputs, np.array(rare)])]
    return [np.asarray(each).tobytes() for each in (*results, *map(K.get_value, variables))]


@pytest.mark.parametrize("rare", [True, False])
def test_a_sound_program_passes_and_computes_the_same(rare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = trained(rare)
    monkeypatch.setenv("TENSORC_CHECK", "0")

    assert trained(rare) == checked


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_floats_of_16_bits_pass(dtype: str) -> None:
    x, w = K.placeholder((None, 40), dtype=dtype), K.variable(np.linspace(-1, 1, 240).reshape(40, 6), dtype=dtype)
    away = x - K.mean(x, axis=1, keepdims=True)
    scaled = away / K.sqrt(K.mean(K.square(away), axis=1, keepdims=True) + 1e-3)
    loss = K.mean(K.softmax(K.dot(scaled, w)) * K.cast(K.cast(w[:6, 0], "float32") * 3, dtype))
    step = K.function([x], [loss, K.cast(scaled, "float32")], [(w, w - g) for g in K.gradients(loss, [w])])
    for seed in range(2):
        loss_found, found = step([np.random.default_rng(seed).normal(size=(30, 40))])
        assert (loss_found.dtype, found.dtype) == (dtype, "float32")


def test_it_is_asked_for_when_a_function_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    x = K.placeholder((2,), name="x")
    checked, plain = K.function([x], [K.exp(x)]), K.function([x], [K.exp(x)])
    checked([np.ones(2)])
    monkeypatch.delenv("TENSORC_CHECK")
    plain([np.ones(2)])

    assert type(checked.compiled._usual) is Checked
    assert type(plain.compiled._usual) is Binding


def test_a_nan_names_its_node_and_line_and_variables_are_left(golden: Golden) -> None:
    x, w = K.placeholder((None, 4), name="x"), K.variable(np.ones((4, 3)), name="w")
    y = K.sum(K.log(K.dot(x, w)) * 2)
    step = K.function([x], [y], [(w, w - 0.1 * K.gradients(y, [w])[0])], name="step")
    assert np.isfinite(step([np.ones((2, 4))])[0])
    before = K.get_value(w)

    with pytest.raises(CheckError) as caught:
        step([[[1, 1, 1, 1], [-1, 1, 1, -2]]])

    assert np.array_equal(K.get_value(w), before)
    golden("errors/check_nan.txt", without_lines(str(caught.value)))
    step([np.ones((2, 4))])
    assert not np.array_equal(K.get_value(w), before)


def test_a_nan_in_a_loop_names_the_step(golden: Golden) -> None:
    x = K.placeholder((None, 3), name="x")
    last = K.foldl(lambda s, row: K.log(s - row) + 1, x, K.ones((3,)))
    function = K.function([x], [last], name="fold")

    with pytest.raises(CheckError) as caught:
        function([[[0, 0, 0], [0, 0.5, 0], [0, 2, 0], [0, 0, 0]]])

    golden("errors/check_loop.txt", without_lines(str(caught.value)))


def test_a_nan_that_was_fed_is_no_kernels_fault() -> None:
    x = K.placeholder((3,), name="x")

    assert np.isnan(K.function([x], [K.exp(x) + 1])([[0, np.nan, np.inf]])[0]).tolist() == [False, True, False]


def test_an_infinity_is_none_either() -> None:
    x = K.placeholder((2,), name="x")

    assert np.isinf(K.function([x], [K.exp(x)])([[1000, 0]])[0]).tolist() == [True, False]


def test_a_kernel_that_computes_something_else_is_named(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lanes, "tanh", Lanes.sin)
    x, w = K.placeholder((None, 3), name="x"), K.variable(np.ones((3, 3)), name="w")
    first = K.dot(x, w)
    step = K.function([x], [K.softmax(first)], [(w, K.tanh(w) + 0 * first[0])], name="step")

    with pytest.raises(CheckError) as caught:
        step([np.ones((2, 3))])

    assert np.array_equal(K.get_value(w), np.ones((3, 3)))
    golden("errors/check_difference.txt", without_lines(str(caught.value)))


def test_a_loop_that_hands_on_the_wrong_rows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = bodies._Loop.spec
    monkeypatch.setattr(bodies._Loop, "spec", lambda loop: replace(spec(loop), reverse=True))
    x = K.placeholder((None, 3), name="x")
    function = K.function([x], [K.foldl(lambda s, row: K.tanh(s * 0.5 + row), x, K.zeros((3,)))], name="fold")

    with pytest.raises(CheckError, match=r"fold: loop k\d+ finds x0 wrong, in step 0 of loop k\d+"):
        function([np.arange(6).reshape(2, 3)])


def test_a_choice_that_takes_the_wrong_branch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    emit = program.emit_choice
    monkeypatch.setattr(program, "emit_choice", lambda name, spec, bodies, *rest: emit(name, spec, bodies[::-1], *rest))
    x, test = K.placeholder((8, 8), name="x"), K.placeholder((), name="test", dtype="bool")
    y = K.switch(test, lambda: K.dot(x, x), lambda: K.dot(x, x + 1))

    with pytest.raises(CheckError, match="wrong branch"):
        K.function([x, test], [y])([np.ones((8, 8)), True])


def test_an_index_outside_is_told_as_such() -> None:
    step, variables, (x, _) = training()
    before = [K.get_value(v) for v in variables]

    with pytest.raises(IndexRangeError):
        step([x, np.array([0, 9, 1, 2]), False])

    assert all(np.array_equal(K.get_value(v), old) for v, old in zip(variables, before, strict=True))


def test_what_is_computed_from_nothing_and_from_constants() -> None:
    x = K.placeholder((None, 0), name="x")
    table = K.constant(np.arange(200).reshape(100, 2))
    outputs = [K.sum(x, axis=1), K.gather(table, K.constant([3, 99], dtype="int32")), K.ones((2, 0)), x]

    results = K.function([x], outputs)([np.ones((3, 0))])

    assert [r.shape for r in results] == [(3,), (2, 2), (2, 0), (3, 0)]


@pytest.mark.parametrize(
    ("found", "wanted", "others", "fine"),
    [
        ([1.0, 2.0], [1.0, 2.0 + 1e-6], [], [True, True]),
        ([np.nan, np.inf, 1.0], [np.nan, np.inf, np.nan], [], [True, True, False]),
        ([1e-3], [0.0], [[4e-4], [-4e-4]], [True]),      # what cancels
        ([1e-1], [0.0], [[4e-4], [-4e-4]], [False]),
        ([1.0, 0.0, 2.0], [0.0, 1.0, 2.0], [[1.0, 1.0, 2.0], [0.0, 1.0, 2.0]], [True, False, True]),
        ([-np.inf], [3e38], [[np.inf], [3e38]], [True]),
    ],
    ids=["roundings", "special", "cancelled", "too_much", "decided", "overflow"],
)
def test_verdicts(found: list[float], wanted: list[float], others: list[list[float]], fine: list[bool]) -> None:
    x, y = np.asarray(found, "f"), np.asarray(wanted, "f")
    near = verdict.almost_equal(x, y)
    if others:
        near = verdict.within(x, y, verdict.allowed(y, [np.asarray(each, "f") for each in others]))

    assert near.tolist() == fine


def test_an_integer_may_differ_only_where_a_nudge_decides_it() -> None:
    found, wanted = np.array([1, 2, 3]), np.array([1, 0, 0])
    tolerance = verdict.allowed(wanted, [np.array([1, 0, 5]), wanted])

    assert verdict.within(found, wanted, tolerance).tolist() == [True, False, True]


def test_a_loop_whose_rows_threads_share_is_checked_step_by_step() -> None:
    x, w = K.placeholder((None, 4, 6), name="x"), K.variable(np.eye(6), name="w")
    _, states, _ = K.rnn(lambda row, s: (n := K.tanh(row + K.dot(s[0], w)), [n]), x, [K.dot(x[:, 0], w)])
    function = K.function([x], [K.sum(states), *K.gradients(K.sum(states), [w])])
    values = np.random.default_rng(0).normal(size=(9, 4, 6))

    results = function([values])

    loops = [g for g in function.ir.plan.groups if g.kind == "loop"]
    assert [g.batch is not None for g in loops] == [True, True]
    row = next(r for r in function.profile([values], seconds=0).rows if r.kernel.startswith(f"{loops[0].name}_"))
    assert row.calls == 4
    assert row.bytes > 4 * 9 * 6 * 4
    assert np.isfinite(results[0])


def without_lines(text: str) -> str:
    """A message without the numbers of this file's lines."""
    return re.sub(r"test_check\.py:\d+", "test_check.py:LINE", text)
