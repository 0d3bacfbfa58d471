"""K.rnn, K.map_fn, K.foldl, K.foldr and K.switch: values against NumPy, gradients by differences, and what runs."""

from __future__ import annotations

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.errors import ArgumentError, IndexRangeError, ShapeError
from tensorc.ops.interpret import evaluate
from tensorc.runtime.threads import num_threads, set_num_threads


@pytest.fixture(autouse=True)
def float64():
    K.set_floatx("float64")
    yield
    K.set_floatx("float32")


RNG = np.random.default_rng(5)
W, U = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 4)) / 2
X, H = RNG.normal(size=(2, 6, 3)), RNG.normal(size=(2, 4))
MASK = np.array([[1, 1, 0, 1, 0, 0], [0, 1, 1, 1, 1, 1]])


def numpy_rnn(x, h, mask=None, backwards=False, u=U):
    outputs, out = [], np.zeros_like(h)
    for t in range(x.shape[1])[::-1 if backwards else 1]:
        new = np.tanh(x[:, t] @ W + h @ u)
        if mask is not None:
            keep = mask[:, t, None].astype(bool)
            out, h = np.where(keep, new, out), np.where(keep, new, h)
        else:
            out = h = new
        outputs.append(out)
    return outputs[-1], np.stack(outputs, 1), h


class Recurrence:
    """A recurrence with K.rnn over (None, None, 3)."""

    def __init__(self, steps=None, masked=False, **options):
        self.x, self.h = K.placeholder(shape=(None, steps, 3)), K.placeholder(shape=(None, 4))
        self.mask = K.placeholder(shape=(None, steps)) if masked else None
        self.w, self.u = K.variable(W), K.variable(U)

        def step(x, states):
            new = K.tanh(K.dot(x, self.w) + K.dot(states[0], self.u))
            return new, [new]

        self.last, self.outputs, (self.state,) = K.rnn(step, self.x, [self.h], mask=self.mask, **options)
        self.fed = [self.x, self.h] + ([self.mask] if masked else [])

    def function(self, outputs):
        return K.function(self.fed, outputs)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_rnn(unroll, masked, backwards):
    made = Recurrence(6 if unroll else None, masked, unroll=unroll, go_backwards=backwards)
    got = made.function([made.last, made.outputs, made.state])([X, H, MASK][:2 + masked])
    want = numpy_rnn(X, H, MASK if masked else None, backwards)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_one_program_for_every_length():
    made = Recurrence()
    f = made.function([made.outputs, made.state])
    for steps in (6, 1, 17, 0, 3):
        x = RNG.normal(size=(2, steps, 3))
        outputs, state = f([x, H])
        want = numpy_rnn(x, H) if steps else (None, np.zeros((2, 0, 4)), H)
        np.testing.assert_allclose(outputs, want[1], rtol=1e-13)
        np.testing.assert_allclose(state, want[2], rtol=1e-13)
    assert f.compiled.compilations == 1


@pytest.mark.parametrize("options", [{}, {"masked": True}, {"go_backwards": True}, {"unroll": True, "steps": 6}])
def test_gradients(options):
    made = Recurrence(**options)
    masked = options.get("masked", False)
    loss = K.sum(K.square(made.outputs)) + K.sum(made.state * K.sin(made.state))
    grads = K.gradients(loss, [made.x, made.h, made.u])
    f = made.function([loss, *grads])

    def value(x, h, u):
        _, outputs, state = numpy_rnn(x, h, MASK if masked else None, options.get("go_backwards", False), u)
        return np.sum(outputs**2) + np.sum(state * np.sin(state))

    total, *found = f([X, H, MASK][:2 + masked])
    np.testing.assert_allclose(total, value(X, H, U), rtol=1e-12)
    for i, gradient in enumerate(found):
        np.testing.assert_allclose(gradient, differences(value, [X, H, U], i), rtol=1e-6, atol=1e-8)


def differences(value, arguments, which, step=1e-6):
    found = np.zeros_like(arguments[which])
    for place in np.ndindex(found.shape):
        ends = []
        for move in (step, -step):
            moved = [a.copy() for a in arguments]
            moved[which][place] += move
            ends.append(value(*moved))
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


def test_second_derivatives():
    x = K.placeholder(shape=(None,))
    folded = K.foldl(lambda total, row: total * K.sin(total) + row * row, x, K.constant(0.5))
    (slope,) = K.gradients(folded, [x])
    (bend,) = K.gradients(K.sum(slope * slope), [x])
    f = K.function([x], [slope, bend])
    at = np.array([0.3, -0.7, 0.2])
    slopes = K.function([x], [K.sum(slope * slope)])
    np.testing.assert_allclose(f([at])[1], differences(lambda v: slopes([v])[0], [at], 0), rtol=1e-6)


def test_nested_loops():
    x = K.placeholder(shape=(None, None, 3))
    total = K.map_fn(lambda rows: K.foldl(lambda t, row: K.tanh(t + row), rows, K.zeros((3,))), x)
    (slope,) = K.gradients(total, [x])
    f = K.function([x], [total, slope])

    def value(v):
        t = np.zeros((v.shape[0], 3))
        for i in range(v.shape[1]):
            t = np.tanh(t + v[:, i])
        return t

    got, gradient = f([X])
    np.testing.assert_allclose(got, value(X), rtol=1e-13)
    np.testing.assert_allclose(gradient, differences(lambda v: value(v).sum(), [X], 0), rtol=1e-6, atol=1e-9)


def test_several_states_and_constants_of_any_rank():
    x, c = K.placeholder(shape=(None, None, 2, 3)), K.placeholder(shape=(2, 3))

    def step(row, states):
        count, total, scale = states
        return total * 2, [count + 1, total + row * scale]

    x0 = RNG.normal(size=(4, 5, 2, 3))
    start = [K.zeros_like(x)[:, 0, 0, 0], K.zeros_like(x)[:, 0]]
    last, outputs, (count, total) = K.rnn(step, x, start, constants=[c])
    got = K.function([x, c], [last, outputs, count, total])([x0, np.full((2, 3), 3.0)])
    sums = np.cumsum(3 * x0, 1)
    np.testing.assert_allclose(got[3], sums[:, -1])
    np.testing.assert_allclose(got[1], 2 * np.concatenate([np.zeros((4, 1, 2, 3)), sums[:, :-1]], 1))
    np.testing.assert_allclose(got[0], got[1][:, -1])
    np.testing.assert_array_equal(got[2], np.full(4, 5.0))


@pytest.mark.parametrize("steps", [0, 1, 6])
@pytest.mark.parametrize("wanted", [(0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_states_that_hold_the_same_value_each_have_it(wanted, steps):
    x = K.placeholder(shape=(2, None, 4))
    states = [K.variable(np.full((2, 4), i)) for i in range(3)]

    def step(row, held):
        new = K.tanh(row + held[0] + held[1] - held[2])
        return row, [new, new, new]

    _, _, ends = K.rnn(step, x, states)
    K.function([x], [], updates=[(states[i], ends[i]) for i in wanted])([np.tile(X, 2)[:, :steps, :4]])

    first, second, third = np.zeros((2, 4)), np.ones((2, 4)), np.full((2, 4), 2.0)
    for row in np.tile(X, 2)[:, :steps, :4].swapaxes(0, 1):
        first = second = third = np.tanh(row + first + second - third)
    for i in wanted:
        np.testing.assert_allclose(K.get_value(states[i]), (first, second, third)[i])


def test_random_numbers_of_a_step_are_its_own():
    x = K.placeholder(shape=(None, None, 3))
    _, outputs, _ = K.rnn(lambda row, states: (K.dropout(K.ones_like(row), 0.5, seed=1), states), x, [x[:, 0]])
    f = K.function([x], [outputs])
    first, second = f([np.ones((2, 40, 3))])[0], f([np.ones((2, 40, 3))])[0]
    assert set(np.unique(first)) == {0.0, 2.0}
    assert len({row.tobytes() for row in first[0]}) > 4
    assert not np.array_equal(first, second)


def test_the_number_of_threads_changes_nothing():
    made = Recurrence()
    loss = K.sum(K.square(made.outputs))
    f = made.function([loss, *K.gradients(loss, [made.w, made.u, made.x])])
    x, h = RNG.normal(size=(300, 20, 3)), RNG.normal(size=(300, 4))
    before, results = num_threads(), set()
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results.add(b"".join(a.tobytes() for a in f([x, h])))
    set_num_threads(before)
    assert len(results) == 1


def test_products_of_inputs_and_gradients_of_weights_are_one_product_each():
    made = Recurrence()
    loss = K.sum(made.outputs)
    f = made.function([loss, *K.gradients(loss, [made.w, made.u])])
    planned = f.compiled.program.planned
    outside = [n for n in planned.nodes if n.op.name == "matmul"]
    loops = [g for g in planned.plan.groups if g.kind == "loop"]
    assert len(loops) == 2
    assert [len([n for n in g.bodies[0].nodes if n.op.name == "matmul"]) for g in loops] == [1, 1]
    assert [n.type.rank for n in outside] == [2, 2, 2]


def test_map_fn():
    x, y = K.placeholder(shape=(None, 3)), K.placeholder(shape=(None,))
    pair = K.map_fn(lambda row: [K.sum(row[0]) * row[1], row[0] > 0], [x, y])
    single = K.map_fn(lambda row: K.max(row), x, dtype="float32")
    a, b = RNG.normal(size=(5, 3)), RNG.normal(size=5)
    got = K.function([x, y], [*pair, single])([a, b])
    np.testing.assert_allclose(got[0], a.sum(1) * b)
    np.testing.assert_array_equal(got[1], a > 0)
    assert got[2].dtype == np.float32
    np.testing.assert_allclose(got[2], a.max(1).astype("float32"))


def test_folds():
    x = K.placeholder(shape=(None,))
    left = K.foldl(lambda total, row: total / 2 - row, x)
    right = K.foldr(lambda total, row: total / 2 - row, x)
    for values in ([3.0], [1.0, 5.0, -2.0, 4.0]):
        got = K.function([x], [left, right])([values])
        for result, ordered in zip(got, (values, values[::-1]), strict=True):
            want = ordered[0]
            for v in ordered[1:]:
                want = want / 2 - v
            np.testing.assert_allclose(result, want)


class TestSwitch:
    def test_only_the_branch_taken_runs(self):
        x, c = K.placeholder(shape=(3, 3)), K.placeholder(shape=(), dtype="bool")
        chosen = K.switch(c, lambda: K.dot(x, x), lambda: K.tanh(x))
        (slope,) = K.gradients(K.sum(chosen), [x])
        f = K.function([x, c], [chosen, slope])
        assert {g.kind for g in f.compiled.program.planned.plan.groups} >= {"choice"}
        a = RNG.normal(size=(3, 3))
        for test, want, gradient in ((True, a @ a, np.ones((3, 3)) @ a.T + a.T @ np.ones((3, 3))),
                                     (False, np.tanh(a), 1 - np.tanh(a)**2)):
            got = f([a, np.array(test)])
            np.testing.assert_allclose(got[0], want, rtol=1e-12)
            np.testing.assert_allclose(got[1], gradient, rtol=1e-12)

    def test_a_branch_holds_what_its_function_made_and_no_more(self):
        """Not what came before it and happens to use the same number, or the same operation on the same value."""
        c, x = K.placeholder(shape=(), dtype="bool"), K.placeholder(shape=(2, 2))
        before = K.tanh(K.relu(x, max_value=6.0)) + 3.0
        chosen = K.switch(c, lambda: K.relu(x, max_value=6.0) * before + 3.0, lambda: before)
        inner = [node for node in K.function([c, x], [chosen]).compiled.graph.nodes if node.op.name == "cond"]
        assert [node.op.name for node in inner[0].then.nodes].count("tanh") == 0
        assert [node.op.name for node in inner[0].otherwise.nodes] == ["parameter"]

    def test_nothing_of_the_other_branch_reaches_the_gradient(self):
        x = K.placeholder(shape=(None,))
        chosen = K.switch(K.greater(K.sum(x), 100.0), lambda: K.sqrt(x), lambda: x * 2.0)
        (slope,) = K.gradients(K.sum(chosen), [x])
        got = K.function([x], [chosen, slope])([np.array([-1.0, 0.0, 4.0])])
        np.testing.assert_array_equal(got[0], [-2.0, 0.0, 8.0])
        np.testing.assert_array_equal(got[1], [2.0, 2.0, 2.0])

    def test_in_a_loop(self):
        x = K.placeholder(shape=(None, 3, 3))

        def step(total, row):
            return K.switch(K.greater(K.sum(row), 0.0), lambda: K.dot(total, row), lambda: total)

        last = K.foldl(step, x, K.eye(3))
        rows = RNG.normal(size=(6, 3, 3))
        want = np.eye(3)
        for row in rows:
            want = want @ row if row.sum() > 0 else want
        np.testing.assert_allclose(K.function([x], [last])([rows])[0], want, rtol=1e-12)


def test_what_steps_print_is_shown_step_by_step(capsys):
    x = K.placeholder(shape=(None,))
    total = K.foldl(lambda t, row: t + K.print_tensor(row * 2, "row"), x, K.constant(0.0))
    (slope,) = K.gradients(K.square(total), [x])
    K.function([x], [total, slope])([[1.0, 2.5]])
    assert capsys.readouterr().out == "row [2. 5.]\n"


class TestErrors:
    def test_an_index_outside_its_axis_in_a_branch(self):
        table, place = K.variable(np.arange(4.0)), K.placeholder(shape=(), dtype="int32")

        def looked_up():
            return K.foldl(lambda t, row: t + K.gather(table, place), table)

        chosen = K.switch(place > 1, looked_up, lambda: table[0])
        f = K.function([place], [chosen])
        assert [f([np.int32(i)])[0] for i in (0, 3)] == [0.0, 9.0]
        with pytest.raises(IndexRangeError, match="index 4 is outside an axis of size 4"):
            f([np.int32(4)])

    def test_an_index_outside_its_axis_in_a_step(self):
        table, places = K.variable(np.arange(12.0).reshape(4, 3)), K.placeholder(shape=(None,), dtype="int32")
        total = K.variable(np.zeros(3))
        found = K.foldl(lambda t, i: t + K.gather(table, K.cast(K.sum(t), "int32") * 0 + i), places, K.zeros((3,)))
        f = K.function([places], [found], [(total, found)])
        np.testing.assert_array_equal(f([[1, 3]])[0], [12.0, 14.0, 16.0])
        with pytest.raises(IndexRangeError, match=r"index 4 at \[1\] is outside an axis of size 4"):
            f([[1, 4, 2]])
        np.testing.assert_array_equal(K.get_value(total), [12.0, 14.0, 16.0])

    def test_rank(self):
        with pytest.raises(ShapeError, match=r"K\.rnn: inputs have rank 3"):
            K.rnn(lambda x, s: (x, s), K.placeholder(shape=(None, 3)), [])

    def test_unrolling_what_is_not_known(self):
        x = K.placeholder(shape=(None, None, 3))
        with pytest.raises(ShapeError, match="to unroll, the number of time steps must be known"):
            K.rnn(lambda x, s: (x, s), x, [x[:, 0]], unroll=True)

    def test_a_mask_without_states(self):
        x, m = K.placeholder(shape=(None, 4, 3)), K.placeholder(shape=(None, 4))
        with pytest.raises(ValueError, match="a mask keeps states"):
            K.rnn(lambda x, s: (x, s), x, [], mask=m)

    def test_a_state_that_changes_its_shape(self):
        x = K.placeholder(shape=(None, 4, 3))
        with pytest.raises(ShapeError, match=r"state 0 has shape \(None, 3\) before a step and \(None, 6\) after it"):
            K.rnn(lambda x, s: (x, [K.concatenate([s[0], x])]), x, [x[:, 0]])

    def test_a_step_function_with_another_number_of_states(self):
        x = K.placeholder(shape=(None, 4, 3))
        with pytest.raises(ArgumentError, match="returns 1 new states, not 0"):
            K.rnn(lambda x, s: (x, []), x, [x[:, 0]])


def test_text_reads_back_to_the_same_nodes():
    from tensorc.ir.parse import parse

    made = Recurrence(masked=True)
    graph = made.function([made.last, *K.gradients(K.sum(made.outputs), [made.u])]).compiled.graph
    (again,) = parse(str(graph))
    assert again.outputs == graph.outputs


def test_the_references_agree_with_native_code():
    made = Recurrence(masked=True)
    f = made.function([made.outputs, *K.gradients(K.sum(made.outputs), [made.x])])
    graph = f.compiled.graph
    names = dict(zip([p.name for p in graph.params], [X, H, MASK.astype(float), W, U], strict=True))
    for got, want in zip(f([X, H, MASK]), evaluate(graph, names)[0], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_branch_may_begin_a_random_stream():
    x = K.placeholder((None, 4))
    y = K.in_train_phase(lambda: K.dropout(2 * x, 0.25) * K.variable(np.ones(4)), x)
    f = K.function([x, K.learning_phase()], [y])
    ones = np.ones((500, 4))

    np.testing.assert_array_equal(f([ones, 0])[0], ones)
    first, second = f([ones, 1])[0], f([ones, 1])[0]
    assert set(np.unique(first)) == {0, 2 / 0.75}
    assert 0.7 < (first > 0).mean() < 0.8
    assert (first != second).any()
