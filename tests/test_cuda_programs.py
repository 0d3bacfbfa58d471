"""Whole programs for a GPU, run in lock-step: grown graphs, training steps, loops, choices, random numbers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from cuda_machine import compute, planned
from graphs import assert_close

from tensorc import backend as K
from tensorc.codegen.cuda.assemble import assemble
from tensorc.ir.closing import close
from tensorc.ir.graph import Graph
from tensorc.ops.conditioned import evaluate
from tensorc.runtime.program import program
from tensorc.testing.grow import Grown, grow

RNG = np.random.default_rng(5)
SEEDS = [range(k, k + 8) for k in range(900, 924, 8)]
Program = tuple[Any, ...]
"""A function, then its inputs."""


@pytest.fixture(autouse=True)
def forget():
    yield
    K.clear_session()


def numbers(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def both(function: Any, *inputs: Any) -> tuple[list[Any], list[Any]]:
    """Outputs and new values of variables of one call, by the GPU's kernels in lock-step and by native code."""
    call = function.compiled.apart(inputs)
    plan = planned(call.graph)
    values = [call.values[p.name] for p in call.graph.params]
    got = compute(plan, assemble(plan), values, call.sizes)
    native = call.on(program(call.graph))()
    count = len(call.graph.outputs)
    return [*got[:len(native)], *got[count:]], [*native, *(call.now[v.name] for v, _ in call.graph.updates)]


def agree(function: Any, *inputs: Any, tolerance: float = 2e-5) -> None:
    for got, want in zip(*both(function, *inputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def grown(seed: int) -> tuple[Grown, Graph]:
    """A random graph, and how it grew."""
    g = grow(Random(seed), 12)
    return g, close("f", g.inputs, g.outputs, g.updates).graph


@pytest.mark.parametrize("seeds", SEEDS, ids=str)
def test_grown_graphs(seeds: range) -> None:
    for seed in seeds:
        g, graph = grown(seed)
        values = {p: next(v for q, v in g.values[0].items() if q.name == p.name) for p in graph.params}
        want = evaluate([*g.outputs, *(new for _, new in g.updates)], g.values[0], g.sizes[0])
        plan = planned(graph)
        got = compute(plan, assemble(plan), list(values.values()), g.sizes[0])
        for mine, theirs in zip(got, want, strict=True):
            assert_close(mine, theirs, str(graph))


# Programs: each makes a function, and inputs for it.


def dense_layers_by_adam() -> Program:
    x, y = K.placeholder((None, 20)), K.placeholder((None, 12))
    w, b = K.variable(numbers(20, 12) / 5), K.variable(np.zeros(12))
    loss = K.mean(K.categorical_crossentropy(y, K.dot(x, w) + b, from_logits=True))
    updates = []
    for p, g in zip((w, b), K.gradients(loss, [w, b]), strict=True):
        m, v = K.variable(np.zeros(K.int_shape(p))), K.variable(np.zeros(K.int_shape(p)))
        mean, square = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * K.square(g)
        updates += [(m, mean), (v, square), (p, p - 0.01 * mean / (K.sqrt(square) + 1e-7))]
    targets = np.eye(12, dtype=np.float32)[RNG.integers(0, 12, 33)]
    return K.function([x, y], [loss], updates), numbers(33, 20), targets


def convolutional_network_and_its_gradients() -> Program:
    x = K.placeholder((None, 8, 8, 3))
    w, dense = K.variable(numbers(3, 3, 3, 8) / 5), K.variable(numbers(8, 4))
    h = K.pool2d(K.relu(K.conv2d(x, w, padding="same")), (2, 2), (2, 2))
    loss = K.sum(K.square(K.dot(K.mean(h, axis=[1, 2]), dense)))
    return K.function([x], [loss, *K.gradients(loss, [w, dense])]), numbers(2, 8, 8, 3)


def recurrent_network_and_its_gradients(backwards: bool = False) -> Program:
    x = K.placeholder((None, None, 3))
    w, u = K.variable(numbers(3, 4)), K.variable(numbers(4, 4) / 2)
    last, every, _ = K.rnn(lambda now, states: (h := K.tanh(K.dot(now, w) + K.dot(states[0], u)), [h]),
                           x, [K.zeros_like(K.dot(x[:, 0], w))], go_backwards=backwards)
    loss = K.sum(K.square(every)) + K.sum(last)
    return K.function([x], [loss, last, *K.gradients(loss, [w, u])]), numbers(5, 6, 3)


def choice() -> Program:
    x = K.placeholder((None, 4))
    chosen = K.switch(K.sum(x) > 0, lambda: K.dot(x, K.transpose(x)), lambda: K.dot(K.exp(x), K.transpose(x)))
    return K.function([x], [chosen]), np.abs(numbers(3, 4))


PROGRAMS: dict[str, Callable[..., Program]] = {
    f.__name__: f for f in (dense_layers_by_adam, convolutional_network_and_its_gradients,
                            recurrent_network_and_its_gradients, choice)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str) -> None:
    agree(*PROGRAMS[name](), tolerance=2e-4 if "gradients" in name else 2e-5)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_recurrent_network_of_any_length(backwards: bool) -> None:
    function, _ = recurrent_network_and_its_gradients(backwards)
    for steps in (1, 4):
        agree(function, numbers(5, steps, 3), tolerance=1e-4)


def test_the_other_side_of_a_choice() -> None:
    function, given = choice()
    agree(function, -given)


def test_an_update_does_not_happen_where_an_index_is_outside() -> None:
    rows, at = K.variable(numbers(5, 3)), K.placeholder((None,), dtype="int64")
    function = K.function([at], [K.sum(K.gather(rows, at))], updates=[(rows, rows * 2)])
    for places, factor in (([0, 4, 4], 2), ([0, 5, 1], 1)):
        call = function.compiled.apart([np.array(places)])
        plan = planned(call.graph)
        *_, after = compute(plan, assemble(plan), [call.values[p.name] for p in call.graph.params], call.sizes)
        np.testing.assert_array_equal(after, K.get_value(rows) * factor)


def test_random_numbers_are_equal_to_the_bit() -> None:
    uniform = K.random_uniform((40, 7), seed=3)
    (got, *_), (want, *_) = both(K.function([], [uniform]))
    np.testing.assert_array_equal(got, want)
