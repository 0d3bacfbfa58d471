"""Programs on a GPU, from K.function to launches, on a driver that has none: what the host does, call by call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeGpu, gpu

from tensorc import backend as K

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
