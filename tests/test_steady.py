"""What depends on variables alone is computed after one of them has changed, and kept until the next change."""

import ctypes
import threading

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.errors import IndexRangeError
from tensorc.ir.text import dump
from tensorc.passes import steady

RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


def variable(*shape, name="w"):
    return K.variable(normal(*shape), name=name)


def memory(f):
    """What the function keeps."""
    return f.compiled._variant(frozenset()).memory


def spoil(f):
    """Overwrites all buffers that a function keeps, except for what it knows of them."""
    program = f.compiled.program
    for address, size in list(zip(memory(f).addresses, program.kept, strict=True))[1:]:
        ctypes.memset(address, 0x7F, size)


def elementwise(x, w):
    return x + K.exp(w)


def dense(x, w):
    return K.relu(K.dot(x, w))


def transposed(x, w):
    return K.dot(x, K.transpose(w))


def normalised(x, w):
    gamma = K.variable(np.linspace(0.5, 1.5, 256), name="gamma")
    return K.batch_normalization(K.dot(x, w), gamma * 0, gamma, None, gamma)


def convolution(x, w):
    images = K.reshape(x, (-1, 4, 4, 16))
    return K.conv2d(images, K.reshape(w, (4, 4, 16, 256)), padding="same")


def transposed_convolution(x, w):
    images = K.reshape(x, (-1, 4, 4, 16))
    return K.conv2d_transpose(images, K.reshape(w, (4, 4, 256, 16)), (None, 4, 4, 256), padding="same")


def channels_first(x, w):
    images = K.reshape(x, (-1, 16, 4, 4))
    return K.conv2d(images, K.reshape(w, (4, 4, 16, 256)), padding="same", data_format="channels_first")


MODELS = [elementwise, dense, transposed, normalised, convolution, transposed_convolution, channels_first]


def built(model):
    """A function of rows, its variable, and the same function of row and variable, which keeps nothing."""
    x, given = K.placeholder((None, 256), name="x"), K.placeholder((256, 256), name="given")
    w = variable(256, 256)
    rows = x if model is not elementwise else x[:256]
    function = K.function([x], [model(rows, w)], name=model.__name__)
    return function, w, K.function([x, given], [model(rows, given)], name="plain")


@pytest.mark.parametrize("model", MODELS)
def test_results_are_those_of_the_variable_as_it_is(model):
    f, w, plain = built(model)
    for rows in (256, 256, 5, 256, 1, 256, 64):
        if model is elementwise and rows < 256:
            continue
        x = normal(rows, 256)
        np.testing.assert_allclose(f([x])[0], plain([x, K.get_value(w)])[0], rtol=1e-4, atol=1e-4)
        if rows == 5:
            K.set_value(w, normal(256, 256))
    assert not any(v.name.startswith("given") for v in plain.compiled.program.planned.plan.watched)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_kept_is_not_computed_again_before_a_change(model):
    f, w, _ = built(model)
    x = normal(256, 256)
    first = f([x])[0]
    for _ in range(3):
        np.testing.assert_array_equal(f([x])[0], first)

    spoil(f)
    assert not np.allclose(f([x])[0], first)
    K.set_value(w, K.get_value(w))
    np.testing.assert_array_equal(f([x])[0], first)


def test_panels_are_packed_in_the_second_call_where_one_alone_would_not_pay():
    f, _, _ = built(dense)
    x = normal(8, 256)
    first = f([x])[0]
    spoil(f)
    np.testing.assert_array_equal(f([x])[0], first)
    spoil(f)
    assert not np.allclose(f([x])[0], first)


def test_every_way_to_change_a_variable_counts():
    w, c = K.variable(np.full((64,), 2.0), name="w"), K.placeholder((), name="c")
    f = K.function([c], [c * K.exp(w)], name="f")
    assert len(f.compiled.program.kept) == 2
    changes = [
        lambda: K.set_value(w, np.full((64,), 3.0)),
        lambda: K.batch_set_value([(w, np.full((64,), 4.0))]),
        K.function([], [], updates=[K.update(w, w + 1)]),
        K.function([], [], updates=[(w, w * 0.5)]),
        K.function([], [w], updates=[K.moving_average_update(w, K.constant(np.ones(64)), 0.5)]),
        K.function([], [], updates=[K.update_sub(w, K.constant(np.ones(64)))]),
    ]
    for change in changes:
        before = f([1.0])[0]
        np.testing.assert_allclose(before, np.exp(K.get_value(w)), rtol=1e-6)
        if isinstance(change, type(f)):
            change([])
        else:
            change()
        np.testing.assert_allclose(f([1.0])[0], np.exp(K.get_value(w)), rtol=1e-6)


def test_a_function_that_trains_keeps_only_what_is_frozen():
    x = K.placeholder((None, 256), name="x")
    frozen, trained = variable(256, 256, name="frozen"), variable(256, 256, name="trained")
    loss = K.sum(K.square(K.dot(K.dot(x, K.exp(frozen * 0.01)), trained)))
    (slope,) = K.gradients(loss, [trained])
    f = K.function([x], [loss], updates=[(trained, trained - 1e-9 * slope)], name="step")
    planned = f.compiled.program.planned
    assert [v.name for v in planned.plan.watched] == ["frozen"]
    assert [n.op.name for n in planned.plan.kept] == ["exp"]

    def step(x):
        hidden = x @ np.exp(np.float32(0.01) * K.get_value(frozen))
        w = K.get_value(trained)
        return np.sum((hidden @ w) ** 2), w - np.float32(1e-9) * hidden.T @ (2 * hidden @ w)

    for k in range(4):
        if k == 2:
            K.set_value(frozen, normal(256, 256))
        rows = normal(70, 256)
        expected, updated = step(rows)
        np.testing.assert_allclose(f([rows])[0], expected, rtol=1e-4)
        np.testing.assert_allclose(K.get_value(trained), updated, rtol=1e-4, atol=1e-4)


def test_functions_that_share_a_program_keep_their_own():
    first, second = variable(64, name="a"), variable(64, name="b")
    c = K.placeholder((), name="c")
    f, g = (K.function([c], [c * K.exp(w)]) for w in (first, second))
    assert f.compiled.program is g.compiled.program
    for _ in range(3):
        for h, w in ((f, first), (g, second)):
            np.testing.assert_allclose(h([1.0])[0], np.exp(K.get_value(w)), rtol=1e-6)


def test_a_variable_that_the_caller_feeds_is_not_kept():
    w, c = variable(64), K.placeholder((), name="c")
    f = K.function([w, c], [c * K.exp(w)])
    for _ in range(3):
        given = normal(64)
        np.testing.assert_allclose(f([given, 1.0])[0], np.exp(given), rtol=1e-6)
    assert not f.compiled.program.kept


@pytest.mark.parametrize("failing", range(4))
def test_a_call_that_fails_leaves_nothing_half_kept(failing):
    rows, x = K.placeholder((None,), dtype="int32", name="rows"), K.placeholder((None, 256), name="x")
    table, w, calls = variable(4, 256, name="table"), variable(256, 256), K.variable(0.0, name="calls")
    result = K.dot(x + K.sum(K.gather(table, rows), axis=0), w) * K.exp(w[0])
    f = K.function([rows, x], [result], updates=[(calls, calls + 1)])
    for k in range(6):
        given = normal(9, 256)
        if k == failing:
            with pytest.raises(IndexRangeError):
                f([np.array([1, 7]), given])
        expected = (given + K.get_value(table)[[1, 3]].sum(axis=0)) @ K.get_value(w) * np.exp(K.get_value(w)[0])
        np.testing.assert_allclose(f([np.array([1, 3]), given])[0], expected, rtol=1e-3, atol=1e-3)
    assert K.get_value(calls) == 6


def test_random_numbers_are_drawn_in_every_call():
    w, x = variable(64, 64), K.placeholder((64, 64), name="x")
    f = K.function([x], [x + K.exp(w) * K.random_uniform((64, 64))])
    assert not np.array_equal(f([normal(64, 64)])[0], f([normal(64, 64)])[0])
    noise = K.function([x], [x * 0 + K.dropout(w, 0.5, seed=3)])
    first, second = (noise([np.zeros((64, 64))])[0] for _ in range(2))
    assert not np.array_equal(first, second)


def test_values_much_larger_than_their_variables_are_not_kept():
    assert steady.SMALL < 4 * 1024 * 1024
    v, x = variable(1024, name="v"), K.placeholder((1024, 1024), name="x")
    outer = K.exp(K.expand_dims(v, 0) + K.expand_dims(v, 1))
    f = K.function([x], [K.dot(x, outer)])
    assert not f.compiled.program.planned.plan.kept
    small = K.function([x], [K.dot(x, K.exp(K.expand_dims(v[:256], 0) + K.expand_dims(v, 1)))])
    assert [n.op.name for n in small.compiled.program.planned.plan.kept] == ["exp"]


def test_a_result_is_computed_into_an_array_of_its_own():
    w, x = variable(64), K.placeholder((64,), name="x")
    f = K.function([x], [K.exp(w), x * K.exp(w)])
    first = f([np.ones(64)])
    first[0][:] = 0
    np.testing.assert_allclose(f([np.ones(64)])[0], np.exp(K.get_value(w)), rtol=1e-6)
    assert not f.compiled.program.kept


def test_loops_over_variables_are_kept_too():
    w, x = variable(7, 64), K.placeholder((64,), name="x")
    decayed = K.foldl(lambda total, row: total * 0.5 + row, w, K.zeros((64,)))
    f = K.function([x], [x * decayed])
    assert "loop" in {g.kind for step in f.compiled.program.planned.plan.steps[:1] for g in step}
    for _ in range(2):
        for _ in range(3):
            total = np.zeros(64)
            for row in K.get_value(w):
                total = total * 0.5 + row
            np.testing.assert_allclose(f([np.ones(64)])[0], total, rtol=1e-5, atol=1e-5)
        K.set_value(w, normal(7, 64))


def test_callers_in_several_threads_find_one_value_of_a_variable():
    w, x = K.variable(np.zeros((256, 256)), name="w"), K.placeholder((None, 256), name="x")
    f = K.function([x], [K.dot(x, w) + K.sum(K.square(w), axis=0)])
    found, ended = [], threading.Event()

    def call(seed):
        rows = np.ones((3 + seed, 256), "float32")
        while not ended.is_set():
            found.append(f([rows])[0])

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
    for caller in callers:
        caller.start()
    for k in range(1, 60):
        K.set_value(w, np.full((256, 256), k))
    ended.set()
    for caller in callers:
        caller.join()

    for result in found:
        k = (np.sqrt(1 + 4 * result[0, 0] / 256) - 1) / 2
        assert k == np.round(k)
        assert np.all(result == result[0, 0])


def test_the_dump_tells_what_is_kept():
    f, _, _ = built(normalised)
    text = dump(f.compiled.program.planned)
    assert "once → kept[0]" in text
    assert "keeps panels" in text
