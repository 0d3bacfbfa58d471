"""What has to hold on a GPU, whichever: each function computes something there and compares it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import test_k_sweep as sweep
from samples import Case, Sizes, cases_of, distinct, with_gradients
from test_registry import close, of_known_sizes, several_sizes

import tensorc
from tensorc import backend as K
from tensorc.ir.node import Op
from tensorc.ops.interpret import evaluate
from tensorc.runtime.function import Function

RNG = np.random.default_rng(23)


class Compared:
    """Cases of an operation as one function on the GPU, held against the references."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        self.origins = [case for case in cases for _ in case.outputs]
        params = [p for case in cases for p in case.params]
        outputs = [o for case in cases for o in case.outputs]
        self.function = Function(cases[0].node.op.name, params, outputs, device="cuda")

    def check(self, sizes: Sizes, values: Any, slack: int = 1) -> None:
        arrays = [array for case in self.cases for array in values(case, sizes)]
        graph = self.function.graph
        wanted, _ = evaluate(graph, dict(zip([p.name for p in graph.params], arrays, strict=True)))
        for case, got, want in zip(self.origins, self.function(arrays), wanted, strict=False):
            close(got, np.asarray(want), slack, bool(case.accumulates), f"{case.label} {dict(sizes)}")


def value(op: Op) -> None:
    """An operation at the sizes of its samples, then with sizes that are not known, 0 and 1 among them."""
    cases = cases_of(op)
    known = Compared(list(of_known_sizes(cases)))
    known.check({}, Case.arrays)
    if op.scalar or op.reduce:
        known.check({}, Case.extremes)
    unknown = Compared(distinct(case for case in cases if case.sizes))
    for sizes in several_sizes(unknown.cases):
        unknown.check(sizes, Case.arrays)


def gradient(op: Op) -> None:
    """An operation's gradient in float32."""
    cases = [case for case in cases_of(op) if case.node.dtype.name == "float32"]
    compared = Compared(distinct(filter(None, map(with_gradients, cases))))
    for sizes in several_sizes(compared.cases):
        compared.check(sizes, Case.arrays, slack=8)


def functions_of_k(group: str, floatx: str) -> None:
    """Every K function of a group that gives a tensor, with known sizes and unknown ones."""
    K.set_floatx(floatx)
    with tensorc.device("cuda"):
        for known in (sweep.SIZES, {}):
            applied = list(sweep.applications(group, known))
            function = sweep.compiled(applied)
            for sizes in [sweep.SIZES] if known else [sweep.SIZES, sweep.SIZES | {"n": 19, "m": 17, "k": 9}]:
                values = [a.arrays(sizes) for a in applied]
                values = [v if a.wanted(v) is not None else a.arrays(sweep.SIZES)
                          for a, v in zip(applied, values, strict=True)]
                sweep.check(applied, function, values)


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def one_hot(rows: int, classes: int) -> Any:
    return np.eye(classes, dtype=np.float32)[RNG.integers(0, classes, rows)]


Network = tuple[list[Any], Any, list[Any], Callable[[int], list[Any]]]
"""Inputs, a loss, parameters, and what makes a batch."""


def dense() -> Network:
    x, y = K.placeholder((None, 20)), K.placeholder((None, 12))
    params = [K.variable(normal(20, 32) / 5), K.variable(np.zeros(32)), K.variable(normal(32, 12) / 6)]
    logits = K.dot(K.relu(K.dot(x, params[0]) + params[1]), params[2])
    loss = K.mean(K.categorical_crossentropy(y, logits, from_logits=True))
    return [x, y], loss, params, lambda n: [normal(n, 20), one_hot(n, 12)]


def convolutions() -> Network:
    x, y = K.placeholder((None, 12, 12, 3)), K.placeholder((None, 10))
    params = [K.variable(normal(3, 3, 3, 16) / 5), K.variable(np.zeros(16)), K.variable(normal(3, 3, 16, 16) / 12),
              K.variable(normal(16, 10) / 4)]
    h = K.relu(K.bias_add(K.conv2d(x, params[0], padding="same"), params[1]))
    h = K.pool2d(h, (2, 2), (2, 2))
    h = K.relu(K.conv2d(h, params[2], strides=(2, 2), padding="same"))
    loss = K.mean(K.categorical_crossentropy(y, K.dot(K.mean(h, axis=[1, 2]), params[3]), from_logits=True))
    return [x, y], loss, params, lambda n: [normal(n, 12, 12, 3), one_hot(n, 10)]


def recurrent() -> Network:
    x, y = K.placeholder((None, 7, 8)), K.placeholder((None, 9))
    params = [K.variable(normal(8, 16) / 3), K.variable(normal(16, 16) / 4), K.variable(normal(16, 9) / 4)]
    start = K.zeros_like(K.dot(x[:, 0], params[0]))
    last, _, _ = K.rnn(lambda now, s: (h := K.tanh(K.dot(now, params[0]) + K.dot(s[0], params[1])), [h]), x, [start])
    loss = K.mean(K.categorical_crossentropy(y, K.dot(last, params[2]), from_logits=True))
    return [x, y], loss, params, lambda n: [normal(n, 7, 8), one_hot(n, 9)]


def normalised() -> Network:
    x, y = K.placeholder((None, 40)), K.placeholder((None, 40))
    params = [K.variable(normal(40, 40) / 6), K.variable(np.ones(40)), K.variable(np.zeros(40))]
    h = K.dot(x, params[0])
    centred = h - K.mean(h, axis=1, keepdims=True)
    h = centred / K.sqrt(K.mean(K.square(centred), axis=1, keepdims=True) + 1e-3) * params[1] + params[2]
    return [x, y], K.mean(K.square(K.softmax(h) - y)), params, lambda n: [normal(n, 40), abs(normal(n, 40))]


NETWORKS = (dense, convolutions, recurrent, normalised)


def training(network: Callable[[], Network], rows: Sequence[int] = (33, 33, 8, 33)) -> None:
    """A few steps of Adam beside the CPU: losses, and the parameters that are left."""
    inputs, loss, params, batch = network()
    batches = [batch(n) for n in rows]
    start = [K.get_value(p) for p in params]

    def trained(device: str) -> Iterator[Any]:
        updates = []
        for p, g, before in zip(params, K.gradients(loss, params), start, strict=True):
            K.set_value(p, before)
            m, v = K.zeros(K.int_shape(p)), K.zeros(K.int_shape(p))
            mean, square = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * K.square(g)
            updates += [(m, mean), (v, square), (p, p - 0.01 * mean / (K.sqrt(square) + 1e-3))]
        step = K.function(inputs, [loss], updates, device=device)
        for values in batches:
            yield step(values)[0]
        yield from map(K.get_value, params)

    for got, want in zip(list(trained("cuda")), list(trained("cpu")), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


def profiled(rows: int = 33) -> None:
    """Each kernel of a step has a time, and all of them together no more than the step."""
    inputs, loss, params, batch = recurrent()
    updates = [(p, p - 0.01 * g) for p, g in zip(params, K.gradients(loss, params), strict=True)]
    profile = K.function(inputs, [loss], updates, device="cuda").profile(batch(rows), seconds=0.1)
    assert profile.gpu
    assert max(row.calls for row in profile.rows) == 7
    assert all(row.seconds > 0 for row in profile.rows)
    assert sum(row.seconds for row in profile.rows) < profile.watched * 1.01
    assert profile.limits.memory > 0 < profile.limits.flops[0]


def repeats() -> None:
    """Results are the same bits in every call, replayed or recorded anew."""
    x = K.placeholder((None, 64))
    w = K.variable(normal(64, 48))
    loss = K.sum(K.square(K.dot(x, w)))
    outputs = [K.dot(x, w), K.sum(x, axis=0), K.sum(K.exp(x)), K.softmax(x), *K.gradients(loss, [w])]
    given, other = normal(50, 64), normal(7, 64)
    function = K.function([x], outputs, device="cuda")
    first = function([given])
    for _ in range(3):
        function([other])
        for one, again in zip(first, function([given]), strict=True):
            np.testing.assert_array_equal(one, again)


def random_numbers() -> None:
    """Those of the CPU, to the bit where they are uniform."""
    (uniform, gaussian), (same, near) = (
        K.function([], [K.random_uniform((40, 7), seed=3), K.random_normal((40, 7), seed=4)], device=device)([])
        for device in ("cuda", "cpu"))
    np.testing.assert_array_equal(uniform, same)
    np.testing.assert_allclose(gaussian, near, rtol=1e-5, atol=1e-6)
