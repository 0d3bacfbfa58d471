"""Loops that threads share by rows of the batch: which they are, and that nobody can tell from the results."""

from __future__ import annotations

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.codegen.cpu.assemble import assemble
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.spec import Loop
from tensorc.ir.kernels import ROWS
from tensorc.runtime.threads import num_threads, set_num_threads

RNG = np.random.default_rng(8)


def lstm(x, hidden, batch=None, **options):
    """The outputs of an LSTM, and its variables."""
    features = K.int_shape(x)[-1]
    kernel, recurrent = (K.variable(RNG.normal(size=(n, 4 * hidden)) / 4) for n in (features, hidden))

    def step(row, states):
        h, c = states
        gates = K.dot(row, kernel) + K.dot(h, recurrent)
        i, f, g, o = (gates[:, k * hidden:(k + 1) * hidden] for k in range(4))
        c = K.sigmoid(f) * c + K.sigmoid(i) * K.tanh(g)
        h = K.sigmoid(o) * K.tanh(c)
        return h, [h, c]

    zeros = K.dot(x[:, 0] * 0, K.zeros((features, hidden))) if batch is None else K.zeros((batch, hidden))
    return K.rnn(step, x, [zeros, zeros], **options)[1], [kernel, recurrent]


def batches(f):
    """Of each loop of a function: how many rows threads share, None where they share steps."""
    return [g.batch for g in f.compiled.program.planned.plan.groups if g.kind == "loop"]


def unary(step, shape=(None, 5, 6), state=(6,), **options):
    """A function of a recurrence of one state, and its gradient in the inputs."""
    x = K.placeholder(shape=shape)
    first = K.placeholder(shape=(shape[0], *state))
    outputs = K.rnn(lambda row, states: (new := step(row, states[0]), [new]), x, [first], **options)[1]
    return K.function([x, first], [outputs, *K.gradients(K.sum(K.square(outputs)), [x])])


@pytest.mark.parametrize("masked", [False, True])
def test_rows_do_not_know_of_each_other_nor_of_threads(masked):
    x, mask = K.placeholder(shape=(None, 7, 3)), K.placeholder(shape=(None, 7))
    outputs, weights = lstm(x, 24, mask=mask if masked else None)
    f = K.function([x, mask], [outputs, *K.gradients(K.sum(K.square(outputs)), [x]),
                               *K.gradients(K.sum(K.square(outputs)), weights)])
    rows, counted = RNG.normal(size=(90, 7, 3)), RNG.integers(0, 2, size=(90, 7))
    before, results = num_threads(), {}
    for threads in (1, 2, 3, 5):
        set_num_threads(threads)
        for n in (0, 1, 2, 7, 8, 9, 90):
            results.setdefault(n, []).append(f([rows[:n], counted[:n]]))
    set_num_threads(before)

    assert len(batches(f)) == 2
    assert None not in batches(f)
    for runs in results.values():
        assert len({b"".join(a.tobytes() for a in run) for run in runs}) == 1
    for n, (run, *_) in results.items():
        for part, whole in zip(run[:2], results[90][0], strict=False):
            np.testing.assert_array_equal(part, whole[:n])


def test_a_single_row_adds_up_long_products_as_others_do():
    recurrent = K.variable(RNG.normal(size=(270, 270)) / 17)
    f = unary(lambda row, h: K.tanh(row + K.dot(h, recurrent)), (None, 3, 270), (270,))
    x, h = RNG.normal(size=(9, 3, 270)), RNG.normal(size=(9, 270))
    before, results = num_threads(), set()
    for threads in (1, 2, 3):                # three units of rows, the last of which is a single row
        set_num_threads(threads)
        results.add(b"".join(a.tobytes() for a in f([x, h])))
    set_num_threads(before)
    assert len(results) == 1


def test_weights_as_wide_as_the_batch_are_no_rows():
    square = K.variable(RNG.normal(size=(8, 8)) / 3)
    f = unary(lambda row, h: K.tanh(row + K.dot(h, square)), (8, 5, 8), (8,))
    x, h = RNG.normal(size=(8, 5, 8)), RNG.normal(size=(8, 8))
    got = f([x, h])[0]
    for t in range(5):
        h = np.tanh(x[:, t] + h @ K.get_value(square))
        np.testing.assert_allclose(got[:, t], h, rtol=1e-4)
    assert batches(f) == [8, 8]


STEPS = {
    "elementwise": (lambda row, h: K.tanh(row * 0.3 + h), True),
    "reduced within a row": (lambda row, h: h / (1 + K.sum(K.square(h), axis=1, keepdims=True)) + row, True),
    "softmax of a row": (lambda row, h: K.softmax(row + h), True),
    "slices and joins": (lambda row, h: K.concatenate([h[:, 3:], row[:, :3]], axis=1), True),
    "reversed within a row": (lambda row, h: K.reverse(h, 1) + row, True),
    "reduced over the batch": (lambda row, h: row + h - K.mean(h, axis=0, keepdims=True), False),
    "a row moves on": (lambda row, h: row + K.concatenate([h[1:], h[:1]], axis=0), False),
    "the batch reversed": (lambda row, h: row + K.reverse(h, 0), False),
    "rows meet rows": (lambda row, h: row + 0.1 * K.dot(K.dot(h, K.transpose(h)), h), False),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("batch", [8, None])
def test_steps(name, batch):
    step, independent = STEPS[name]
    f = unary(step, (batch, 5, 6))
    assert [b is not None for b in batches(f)] == [independent] * 2
    unrolled = unary(step, (batch, 5, 6), unroll=True)
    x, h = RNG.normal(size=(8, 5, 6)), RNG.normal(size=(8, 6))
    for a, b in zip(f([x, h]), unrolled([x, h]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_every_row_brings_along():
    """Attention over values of its own, a different number of them for each call."""
    x, memory = K.placeholder(shape=(None, None, 6)), K.placeholder(shape=(None, None, 6))

    def step(row, states):
        weights = K.softmax(K.batch_dot(memory, states[0], axes=(2, 1)))
        new = K.tanh(row + K.batch_dot(weights, memory, axes=(1, 1)))
        return new, [new]

    f = K.function([x, memory], [K.rnn(step, x, [x[:, 0]])[0]])
    a, m = RNG.normal(size=(9, 4, 6)), RNG.normal(size=(9, 3, 6))
    h = a[:, 0]
    for t in range(4):
        e = np.exp(np.einsum("bkd,bd->bk", m, h))
        h = np.tanh(a[:, t] + np.einsum("bk,bkd->bd", e / e.sum(1, keepdims=True), m))
    np.testing.assert_allclose(f([a, m])[0], h, rtol=1e-4)
    assert None not in batches(f)


def test_large_weights_are_shared_by_threads_that_do_the_same_step():
    x = K.placeholder(shape=(16, 2, 4))
    outputs, _ = lstm(x, 300, 16)
    f = K.function([x], [outputs])
    f([np.zeros((16, 2, 4))])
    assert batches(f) == [None]


def test_weights_are_packed_before_the_loop():
    x = K.placeholder(shape=(8, 3, 6))
    outputs, _ = lstm(x, 5, 8)
    planned = K.function([x], [outputs]).compiled.program.planned
    steps = assemble(planned, Target.host()).spec.steps
    (loop,) = [i for i, step in enumerate(steps) if isinstance(step, Loop)]
    assert [launch.source for launch in steps[loop - 1]] == [steps[loop].body.steps[0][0].source]
    assert not [launch for step in steps[loop].body.steps for launch in step if launch.kernel.endswith("_pack")]
    (body,) = [g.bodies[0] for g in planned.plan.groups if g.kind == "loop"]
    assert {str(o.shape[0]) for o in body.outputs} == {ROWS}
