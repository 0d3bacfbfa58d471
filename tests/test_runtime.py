"""Compiled functions at run time: threads, sizes, what callers give and keep, variables, randomness, sharing."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from graphs import assert_close, tensor

from tensorc import backend as K
from tensorc import ops
from tensorc.errors import ArgumentError, DTypeError, ShapeError
from tensorc.ir.dims import symbol
from tensorc.ir.node import Node
from tensorc.ops.conditioned import evaluate
from tensorc.runtime.function import Function
from tensorc.runtime.threads import num_threads, set_num_threads
from tensorc.runtime.variable import Cell

N, M = symbol("n"), symbol("m")


@pytest.fixture(autouse=True)
def _fresh_session() -> Iterator[None]:
    threads = num_threads()
    yield
    set_num_threads(threads)
    K.clear_session()


def random(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(dtype)


def mlp(classes: int = 10) -> tuple[list, list]:
    """Inputs and parameters of a network of two layers, and its outputs."""
    x, y = K.placeholder((None, 32), name="x"), K.placeholder((None, classes), name="y")
    w1, b1 = K.variable(random(32, 64)), K.variable(random(64, seed=1))
    w2, b2 = K.variable(random(64, classes, seed=2)), K.variable(random(classes, seed=3))
    hidden = K.relu(K.bias_add(K.dot(x, w1), b1))
    logits = K.bias_add(K.dot(hidden, w2), b2)
    loss = K.mean(K.categorical_crossentropy(y, logits, from_logits=True))
    return [x, y, w1, b1, w2, b2], [logits, loss]


# The number of threads.

X, Y, B = tensor("x", N, M), tensor("y", N, M), tensor("b", M)
SCALES = ops.softmax(X, axis=1) * B
LARGE: dict[str, tuple[list[Node], list[Node], dict[str, int]]] = {
    "elementwise": ([X, Y], [ops.tanh(X) * Y + 1, ops.exp(X)], {"n": 700, "m": 500}),
    "rows": ([X, B], [SCALES, ops.logsumexp(X, axes=(1,), keepdims=False)], {"n": 2000, "m": 150}),
    "columns": ([X, Y], [ops.sum(X * Y, axes=(0,), keepdims=False), ops.max(X, axes=(0,), keepdims=True)],
                {"n": 5000, "m": 33}),
    "to one number": ([X, Y], [ops.sum(X * Y, axes=(0, 1), keepdims=False), ops.mean(X, axes=(0, 1), keepdims=False)],
                      {"n": 900, "m": 401}),
    "the place of the largest": ([X], [ops.argmax(ops.reshape(X, shape=(N * M,)), axis=0)], {"n": 900, "m": 401}),
    "products": ([X, Y], [ops.tanh(ops.matmul(X, Y, transpose_a=True, transpose_b=False)),
                          ops.matmul(X, Y, transpose_a=False, transpose_b=True)], {"n": 260, "m": 170}),
    "transposes": ([X, Y], [ops.transpose(ops.exp(X), perm=(1, 0)) + 1], {"n": 700, "m": 500}),
    "along": ([X], [ops.cumsum(X, axis=0), ops.cumsum(X, axis=1)], {"n": 700, "m": 130}),
}


@pytest.mark.parametrize("name", LARGE)
def test_bits_do_not_depend_on_the_number_of_threads(name: str) -> None:
    inputs, outputs, sizes = LARGE[name]
    values = {p: random(*(sizes[str(s)] for s in p.shape), seed=i) for i, p in enumerate(inputs)}
    function = Function("f", inputs, outputs)

    results = []
    for threads in (1, 2, 3, 1):
        set_num_threads(threads)
        results.append(function(list(values.values())))
    for each in results[1:]:
        for one, other in zip(results[0], each, strict=True):
            assert one.tobytes() == other.tobytes()
    for got, want in zip(results[0], evaluate(outputs, values, sizes), strict=True):
        assert_close(got, want)


def test_training_does_not_depend_on_the_number_of_threads() -> None:
    weights = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        (x, y, *params), (_, loss) = mlp()
        updates = [K.update_sub(p, 0.1 * g) for p, g in zip(params, K.gradients(loss, params), strict=True)]
        train = K.function([x, y], [loss], updates=updates)
        for step in range(5):
            train([random(3000, 32, seed=step), np.eye(10, dtype="float32")[np.arange(3000) % 10]])
        weights.append([K.get_value(p).tobytes() for p in params])
    assert weights[0] == weights[1] == weights[2]


# Sizes.

def test_one_program_serves_every_batch_size() -> None:
    (x, _, w1, b1, w2, b2), (logits, _) = mlp()
    w1, b1, w2, b2 = (K.get_value(p).astype("float64") for p in (w1, b1, w2, b2))
    predict = K.function([x], [logits])

    for n in np.random.default_rng(0).permutation(64):
        data = random(n, 32, seed=int(n))
        want = np.maximum(data.astype("float64") @ w1 + b1, 0) @ w2 + b2
        (got,) = predict([data])
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)
    assert predict.compiled.compilations == 1


def test_a_size_of_1_that_broadcasts_is_compiled_for_once_and_told(caplog: pytest.LogCaptureFixture) -> None:
    x, y = K.placeholder((None, 3), name="x"), K.placeholder((None, 3), name="y")
    f = K.function([x, y], [x * 2 + y])
    with caplog.at_level(logging.WARNING, "tensorc"):
        for a, b in ((4, 4), (4, 1), (1, 1), (1, 4), (6, 1), (1, 7), (5, 5)):
            u, v = random(a, 3), random(b, 3, seed=1)
            np.testing.assert_allclose(f([u, v])[0], u * 2 + v, rtol=1e-6)
    assert f.compiled.compilations == 3
    assert [r.getMessage().split(":", 1)[1].split(",")[0] for r in caplog.records] == [
        " compiled a variant for y_0 = 1", " compiled a variant for x_0 = 1"]


@pytest.mark.parametrize("sizes", [(1, 5, 5), (5, 1, 5), (5, 5, 1), (1, 1, 5), (1, 5, 1), (5, 1, 1), (1, 1, 1)])
def test_three_operands_broadcast_as_in_numpy(sizes: tuple[int, ...]) -> None:
    xs = [K.placeholder((None,)) for _ in sizes]
    values = [random(n, seed=i) for i, n in enumerate(sizes)]
    (got,) = K.function(xs, [xs[0] + xs[1] * xs[2]])(values)
    np.testing.assert_allclose(got, values[0] + values[1] * values[2], rtol=1e-6)


def test_a_formula_that_is_1_broadcasts_too() -> None:
    x, v = tensor("x", N), tensor("v", 3)
    part = ops.slice(x, starts=(1,), limits=(N,), steps=(1,))
    half = ops.slice(x, starts=(0,), limits=(N // 2,), steps=(1,))
    f, g = Function("f", [x, v], [part + v]), Function("g", [x, v], [half + v])
    for n in (4, 2):
        (got,) = f([np.arange(float(n)), np.arange(3.0)])
        assert got.tolist() == (np.arange(1.0, n) + np.arange(3.0)).tolist()
    for n in (6, 7, 2, 3):
        (got,) = g([np.arange(float(n)), np.arange(3.0)])
        assert got.tolist() == (np.arange(float(n // 2)) + np.arange(3.0)).tolist()
    with pytest.raises(ShapeError, match=r"a fixed size is 3, x \(axis 0\) gives 10"):
        g([np.arange(20.0), np.arange(3.0)])


@pytest.mark.parametrize("a", [1, 4])
def test_sizes_that_disagree_name_both_placeholders_and_the_line(a: int) -> None:
    x, w = K.placeholder((None, None), name="x"), K.placeholder((None, 2), name="w")
    f = K.function([x, w], [K.dot(x, w)])
    with pytest.raises(ShapeError, match=rf"x \(axis 1\) gives {a}, w \(axis 0\) gives 5; "
                                         r"K\.dot at test_runtime\.py:\d+ needs them equal"):
        f([random(3, a), random(5, 2)])
    assert f([random(3, 5), random(5, 2)])[0].shape == (3, 2)


def test_the_third_size_is_the_one_that_disagrees() -> None:
    x, y, z = (K.placeholder((None,), name=name) for name in "xyz")
    f = K.function([x, y, z], [x + y + z])
    with pytest.raises(ShapeError, match=r"y \(axis 0\) gives 5, z \(axis 0\) gives 3"):
        f([random(1), random(5), random(3)])


# What a caller gives.

def test_values_that_do_not_fit_leave_variables_alone() -> None:
    x, k = K.placeholder((None, 3), name="image"), K.placeholder((2,), dtype="int32", name="label")
    v = K.variable(1.0)
    f = K.function([x, k], [K.sum(x) + v], updates=[K.update_add(v, 1.0)])
    good = [random(2, 3), [1, 2]]

    for wrong, error, text in (
        ([random(3), [1, 2]], ShapeError, r"image has rank 1, not 2"),
        ([random(2, 4), [1, 2]], ShapeError, r"image has size 4 on axis 1, not 3.*\(2, 4\), image is \(None, 3\)"),
        ([random(2, 3), [1, 2, 3]], ShapeError, r"label has size 3 on axis 0, not 2"),
        ([random(2, 3), [1.5, 2]], DTypeError, r"label is int32, the value given is float64"),
        ([random(2, 3), ["a", "b"]], DTypeError, r"label is int32"),
        ([[[1, 2, 3], [4]], [1, 2]], ShapeError, r"image is no regular array"),
        ([random(2, 3)], ArgumentError, r"takes 2 inputs, got 1"),
        ([random(2, 3), [1, 2], 0], ArgumentError, r"takes 2 inputs, got 3"),
    ):
        with pytest.raises(error, match=text):
            f(wrong)
        assert K.get_value(v) == 1
    f(good)
    assert K.get_value(v) == 2


def test_a_size_of_a_placeholder_that_is_not_fed() -> None:
    x, y = K.placeholder((None,), name="x"), K.placeholder((None,), name="y")
    with pytest.raises(ArgumentError, match=r"placeholder x .* is needed"):
        K.function([y], [x + 1])
    with pytest.raises(ArgumentError, match="the size x_0 is needed, but its placeholder is not among the inputs"):
        K.function([y], [K.shape(x)[0] + 1])


VIEWS: dict[str, Callable[[np.ndarray], object]] = {
    "transposed": lambda a: np.asfortranarray(a),
    "every second": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
    "float64": lambda a: a.astype("float64"),
    "of the other byte order": lambda a: a.astype(">f4"),
    "not aligned": lambda a: np.frombuffer(b"." + a.tobytes(), np.uint8)[1:].view("float32").reshape(a.shape),
    "a list of lists": lambda a: a.tolist(),
    "a matrix of whole numbers": lambda a: a.astype("int64"),
}


@pytest.mark.parametrize("how", VIEWS)
def test_arrays_of_any_kind_are_taken_and_left_alone(how: str) -> None:
    a = np.round(random(5, 6) * 3)
    given = VIEWS[how](a)
    if isinstance(given, np.ndarray):
        given.setflags(write=False)
    x = K.placeholder((None, 6))
    np.testing.assert_array_equal(K.function([x], [x * 2])([given])[0], a * 2)
    np.testing.assert_array_equal(given, a)


def test_numbers_are_taken_for_scalars() -> None:
    x, k = K.placeholder((), name="x"), K.placeholder((), dtype="bool", name="k")
    f = K.function([x, k], [K.switch(k, x, -x)])
    assert f([2, True])[0] == 2
    assert f([np.float64(3), np.False_])[0] == -3


def test_one_array_for_two_inputs() -> None:
    x, y = K.placeholder((None,)), K.placeholder((None,))
    a = random(9)
    np.testing.assert_allclose(K.function([x, y], [x * y])([a, a])[0], a * a, rtol=1e-6)


# What a caller keeps.

@pytest.mark.parametrize("n", [3, 100_000], ids=["small", "pooled"])
def test_results_stay_while_they_are_held(n: int) -> None:
    x = K.placeholder((None,))
    f = K.function([x], [x + 1, x, K.reverse(x, 0)])
    held = [f([np.full(n, float(i))]) for i in range(5)]
    views = [outputs[0][1:] for outputs in held]
    copies = [[a.copy() for a in outputs] for outputs in held]
    for i in range(20):
        f([np.full(n, -float(i))])

    for outputs, copied, view in zip(held, copies, views, strict=True):
        for a, b in zip(outputs, copied, strict=True):
            assert a.tobytes() == b.tobytes()
            assert a.flags.writeable
        assert view.tobytes() == copied[0][1:].tobytes()


def test_memory_of_dropped_results_is_used_again() -> None:
    x = K.placeholder((None,))
    f = K.function([x], [x + 1])
    data = np.zeros(200_000, "float32")
    first = f([data])[0]
    places = {first.ctypes.data}
    del first
    for _ in range(10):
        gc.collect()
        places.add(f([data])[0].ctypes.data)
    assert len(places) == 1


def test_what_a_caller_does_to_a_result_changes_nothing() -> None:
    v = K.variable([1.0, 2.0])
    x = K.placeholder((2,))
    f = K.function([x], [v, x, K.constant([5.0, 6.0])])
    a = np.ones(2, "float32")
    for out in f([a]):
        out[:] = 0
    assert [out.tolist() for out in f([a])] == [[1, 2], [1, 1], [5, 6]]
    assert K.get_value(v).tolist() == [1, 2]


# Variables.

def test_variables_are_exchanged() -> None:
    a, b, c = K.variable([1.0]), K.variable([2.0]), K.variable([3.0])
    turn = K.function([], [a], updates=[K.update(a, b), K.update(b, c), K.update(c, a)])
    assert turn([])[0] == 1
    assert [K.get_value(v)[0] for v in (a, b, c)] == [2, 3, 1]
    turn([])
    assert [K.get_value(v)[0] for v in (a, b, c)] == [3, 1, 2]


def test_updates_and_outputs_see_what_was_before() -> None:
    a, b = K.variable(random(3, 3)), K.variable(random(3, 3, seed=1))
    old_a, old_b = K.get_value(a), K.get_value(b)
    outputs = [a + b, K.transpose(a), a]
    step = K.function([], outputs, updates=[K.update(a, K.dot(a, b)), K.update(b, K.transpose(b) + a)])
    got = step([])

    for mine, want in zip(got, (old_a + old_b, old_a.T, old_a), strict=True):
        np.testing.assert_allclose(mine, want, rtol=1e-6)
    np.testing.assert_allclose(K.get_value(a), old_a @ old_b, rtol=1e-5)
    np.testing.assert_allclose(K.get_value(b), old_b.T + old_a, rtol=1e-6)


def test_a_product_does_not_go_over_a_variable_that_its_epilogue_reads() -> None:
    v, w = tensor("v", 3, 3, role="variable"), tensor("w", 3, 3, role="variable")
    product = ops.matmul(w, w, transpose_a=False, transpose_b=False)
    values = {v: random(3, 3), w: random(3, 3, seed=1)}
    cells = {p: Cell(a) for p, a in values.items()}
    chosen = ops.select(ops.gt(product, v), product, v)
    (got,) = Function("f", [], [chosen], [(v, product)], cells=cells)([])
    np.testing.assert_allclose(got, np.maximum(values[w] @ values[w], values[v]), rtol=1e-5)
    np.testing.assert_allclose(cells[v].get(), values[w] @ values[w], rtol=1e-5)


def test_one_new_value_for_several_variables_and_an_output() -> None:
    a, b = K.variable([1.0, 2.0]), K.variable([0.0, 0.0])
    new = a * 3
    f = K.function([], [new, new], updates=[K.update(a, new), K.update(b, new)])
    assert [out.tolist() for out in f([])] == [[3, 6], [3, 6]]
    assert K.get_value(a).tolist() == K.get_value(b).tolist() == [3, 6]


# Several threads at once.

def at_once(work: Callable[[int], None], count: int = 4) -> None:
    """Runs `work(k)` in threads, and raises what one of them raised."""
    errors: list[BaseException] = []

    def run(k: int) -> None:
        try:
            work(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_one_function_is_called_from_several_threads() -> None:
    x = K.placeholder((None, 20))
    f = K.function([x], [K.softmax(x), K.sum(K.exp(x), axis=0)])

    def work(k: int) -> None:
        for i in range(30):
            a = random(50 + 10 * k + i, 20, seed=k)
            got = f([a])
            np.testing.assert_allclose(got[0].sum(axis=1), 1, rtol=1e-5)
            np.testing.assert_allclose(got[1], np.exp(a).sum(axis=0), rtol=1e-4)

    at_once(work)
    assert f.compiled.compilations == 1


def test_functions_that_share_variables_see_whole_updates() -> None:
    a, b = K.variable(np.zeros(2000)), K.variable(np.zeros(2000))
    add = K.function([], [], updates=[K.update_add(a, K.ones_like(a)), K.update_add(b, K.ones_like(b))])
    swap = K.function([], [], updates=[K.update(a, b), K.update(b, a)])
    read = K.function([], [K.max(a), K.min(a), K.max(b), K.min(b)])

    def work(k: int) -> None:
        for _ in range(40):
            (add if k % 2 else swap)([])
            assert len(set(map(float, read([])))) == 1

    at_once(work)
    assert K.get_value(a)[0] == 80


# Randomness.

def test_streams_move_on_and_equal_seeds_are_equal() -> None:
    f = K.function([], [K.random_uniform((100,), seed=3)])
    g = K.function([], [K.random_uniform((100,), seed=3)])
    other = K.function([], [K.random_uniform((100,), seed=4)])
    first, second = f([])[0], f([])[0]
    assert not np.array_equal(first, second)
    assert np.array_equal(first, g([])[0])
    assert np.array_equal(second, g([])[0])
    assert not np.array_equal(first, other([])[0])


def test_two_draws_in_one_function_differ() -> None:
    a, b = K.function([], [K.random_normal((50,)), K.random_normal((50,))])([])
    assert not np.array_equal(a, b)


def test_dropout_drops_its_share_and_scales_the_rest() -> None:
    x = K.placeholder((None, 100))
    f = K.function([x], [K.dropout(x, 0.3, seed=1)])
    ones = np.ones((1000, 100), "float32")
    first, second = f([ones])[0], f([ones])[0]
    np.testing.assert_allclose(np.unique(first), [0, 1 / 0.7], rtol=1e-6)
    assert abs((first == 0).mean() - 0.3) < 0.01
    assert abs(((first == 0) & (second == 0)).mean() - 0.09) < 0.01


# Programs are shared.

def test_equal_functions_share_a_program() -> None:
    def made(factor: float, width: int = 3, dtype: str = "float32") -> Function:
        x = K.placeholder((None, width), dtype=dtype)
        return K.function([x], [K.tanh(x) * factor]).compiled

    assert made(2.0).program is made(2.0).program
    assert made(2.0).program is not made(3.0).program
    assert made(2.0).program is not made(2.0, width=4).program
    assert made(2.0).program is not made(2.0, dtype="float64").program


def test_values_of_variables_and_seeds_are_no_part_of_a_program() -> None:
    def made(value: float, seed: int) -> Function:
        v = K.variable(np.full(5, value))
        return K.function([], [v + K.random_uniform((5,), seed=seed)], updates=[K.update(v, v * 2)]).compiled

    one, other = made(1.0, 1), made(7.0, 2)
    assert one.program is other.program
    assert 1 <= one([])[0].min() <= one([])[0].max() <= 3
    assert 7 <= other([])[0].min() <= 8


def test_large_constants_are_no_part_of_a_program() -> None:
    def made(seed: int) -> Function:
        x = K.placeholder((None, 100))
        return K.function([x], [x + K.constant(random(100, seed=seed))]).compiled

    one, other = made(1), made(2)
    assert one.program is other.program
    zero = np.zeros((1, 100), "float32")
    np.testing.assert_array_equal(one([zero])[0][0], random(100, seed=1))
    np.testing.assert_array_equal(other([zero])[0][0], random(100, seed=2))


# Numbers out of the ordinary.

def test_special_values_pass_through_products_and_epilogues() -> None:
    x, w, b = K.placeholder((None, 3)), K.placeholder((3, 4)), K.placeholder((4,))
    product = K.bias_add(K.dot(x, w), b)
    f = K.function([x, w, b], [product, K.relu(product), K.sigmoid(product)])
    a = np.array([[1, 0, 0], [np.nan, 0, 0], [np.inf, 0, 0], [1e-40, 0, 0]], "float32")
    m = np.ones((3, 4), "float32")
    bias = np.array([0, np.inf, -np.inf, np.nan], "float32")
    with np.errstate(invalid="ignore", over="ignore"):
        want = a @ m + bias
        linear, relu, sigmoid = f([a, m, bias])
        np.testing.assert_array_equal(linear, want)
        np.testing.assert_array_equal(relu, np.maximum(want, 0))
        np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-want)), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_denormals_are_kept(dtype: str) -> None:
    x = K.placeholder((None,), dtype=dtype)
    tiny = np.finfo(dtype).smallest_subnormal * np.arange(1, 40, dtype=dtype)
    doubled, total = K.function([x], [x * 2, K.sum(x)])([tiny])
    np.testing.assert_array_equal(doubled, tiny * 2)
    np.testing.assert_array_equal(total, tiny.sum())
