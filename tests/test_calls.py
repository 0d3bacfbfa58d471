"""Calls of compiled functions: the quick way in and the thorough one, callers at the same time, who owns results."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.backend.functions import Function
from tensorc.errors import ShapeError, TensorcError
from tensorc.runtime import fastcall
from tensorc.runtime.binding import LAYOUTS, Binding, _Together
from tensorc.runtime.direct import declined
from tensorc.runtime.memory import POOLED

QUICK = pytest.mark.skipif(not fastcall.layout_is_known(), reason="there is no quick way")


@pytest.fixture(autouse=True)
def _fresh_session() -> Iterator[None]:
    yield
    K.clear_session()


def binding(f: Function) -> Binding:
    found = f.compiled._usual
    assert isinstance(found, Binding)
    return found


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


def several_outputs() -> tuple[Function, list[np.ndarray]]:
    x, y = K.placeholder((None, 3)), K.placeholder((None, 3))
    both = K.concatenate([x, y], axis=0)
    f = K.function([x, y], [both, K.sum(x, axis=1), K.reshape(y, (-1,)), K.sum(both)])
    return f, [numbers(4, 3), numbers(5, 3)]


def update_and_scratch() -> tuple[Function, list[np.ndarray]]:
    x, w = K.placeholder((None, 6)), K.variable(numbers(6, 6))
    h = K.softmax(K.dot(K.tanh(K.dot(x, w)), w))
    (g,) = K.gradients(K.sum(K.square(h)), [w])
    return K.function([x], [h, w], updates=[(w, w - g)]), [numbers(7, 6)]


def random_and_constant() -> tuple[Function, list[np.ndarray]]:
    x = K.placeholder((None, 80))
    return K.function([x], [K.dropout(x, 0.5, seed=4) + K.constant(numbers(80))]), [numbers(3, 80)]


@QUICK
@pytest.mark.parametrize("make", [several_outputs, update_and_scratch, random_and_constant])
def test_all_ways_give_the_same(make: Callable[[], tuple[Function, list[np.ndarray]]]) -> None:
    (usual, arrays), (quick, _), (thorough, _) = functions = make(), make(), make()
    for f, _ in functions:
        f(arrays)
    for f in (quick, thorough):
        binding(f).direct = declined
    assert binding(quick).quickly(tuple(arrays)) is not None
    binding(thorough)._bind_inputs = None
    usual(arrays)
    thorough(arrays)

    for _ in range(3):
        for a, b, c in zip(usual(arrays), quick(arrays), thorough(arrays), strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)


def test_values_that_need_converting_are_converted() -> None:
    x, flag = K.placeholder((2, 3)), K.placeholder((), dtype="int32")
    f = K.function([x, flag], [x * 2, flag + 1])
    wanted = np.arange(6, dtype=np.float32).reshape(2, 3)

    for value in (wanted, wanted.astype(np.float64), wanted.tolist(), np.asfortranarray(wanted), wanted.astype("i2")):
        for number in (1, True, np.int64(1), np.array(1, np.int32)):
            doubled, more = f([value, number])
            np.testing.assert_array_equal(doubled, wanted * 2)
            assert more == 2


def test_each_result_belongs_to_its_caller() -> None:
    for size in (8, POOLED):
        x = K.placeholder((None,))
        f = K.function([x], [x + 1])
        first = f([np.zeros(size, np.float32)])[0]
        first[:] = 7
        second = f([np.zeros(size, np.float32)])[0]

        assert second.max() == 1
        assert first.min() == 7


def test_a_call_that_does_not_fit_changes_nothing() -> None:
    x, total = K.placeholder((None, 2)), K.variable(np.zeros(2))
    f = K.function([x], [total], updates=[(total, total + K.sum(x, axis=0))])
    f([np.ones((3, 2), np.float32)])

    for wrong in (np.ones((3, 4), np.float32), np.ones(2, np.float32), np.ones((3, 2), complex)):
        with pytest.raises(TensorcError, match="function"):
            f([wrong])
    assert K.get_value(total).tolist() == [3, 3]


def test_sizes_that_disagree_are_refused_after_calls_that_fit() -> None:
    x, y = K.placeholder((None,)), K.placeholder((None,))
    f = K.function([x, y], [x + y])

    assert f([np.ones(3, np.float32)] * 2)[0].tolist() == [2, 2, 2]
    with pytest.raises(ShapeError, match=r"3.*4"):
        f([np.ones(3, np.float32), np.ones(4, np.float32)])
    assert f([np.ones(3, np.float32), np.ones(1, np.float32)])[0].tolist() == [2, 2, 2]
    assert f([np.ones(1, np.float32)] * 2)[0].tolist() == [2]


def test_sizes_related_by_a_formula_are_looked_at() -> None:
    x, y = K.placeholder((None,)), K.placeholder((None,))
    f = K.function([x, y], [x[::2] + y])

    assert f([np.ones(5, np.float32), np.ones(3, np.float32)])[0].shape == (3,)
    with pytest.raises(ShapeError):
        f([np.ones(5, np.float32), np.ones(4, np.float32)])


def test_a_size_that_leaves_a_product_as_it_is_is_1() -> None:
    x, y = K.placeholder((None,)), K.placeholder((None, None))
    f = K.function([x, y], [K.stack([x + y[:, 0], x + K.flatten(y)])])

    assert f([np.ones(3, np.float32), np.ones((3, 1), np.float32)])[0].tolist() == [[2, 2, 2]] * 2
    with pytest.raises(ShapeError):
        f([np.ones(3, np.float32), np.ones((3, 2), np.float32)])


def test_sizes_whose_equation_has_no_solution_in_one_of_them_are_looked_at() -> None:
    x, y = K.placeholder((None,)), K.placeholder((None,))
    squares = [K.flatten(K.expand_dims(v) * K.expand_dims(v, 0)) for v in (x, y)]
    f = K.function([x, y], [K.stack([squares[0] + squares[1], squares[0]])])

    assert f([np.ones(2, np.float32), np.ones(2, np.float32)])[0].tolist() == [[2, 2, 2, 2], [1, 1, 1, 1]]
    with pytest.raises(ShapeError):
        f([np.ones(2, np.float32), np.ones(3, np.float32)])


def test_many_sizes_are_not_all_remembered() -> None:
    x = K.placeholder((None,))
    f = K.function([x], [x * 2])
    for n in range(LAYOUTS + 20):
        assert f([np.ones(n, np.float32)])[0].shape == (n,)
    assert len(binding(f)._layouts) <= LAYOUTS


class TestManyCallers:
    CALLERS, CALLS = 8, 60

    def at_once(self, call: Callable[[int], object]) -> list[object]:
        """What `call` gives, CALLS times in each of CALLERS threads."""
        start = threading.Barrier(self.CALLERS)

        def caller(which: int) -> list[object]:
            start.wait()
            return [call(which) for _ in range(self.CALLS)]

        with ThreadPoolExecutor(self.CALLERS) as pool:
            return [value for values in pool.map(caller, range(self.CALLERS)) for value in values]

    def test_every_update_counts_once(self) -> None:
        count = K.variable(np.zeros(1))
        f = K.function([], [count + 1], updates=[(count, count + 1)])

        seen = self.at_once(lambda which: f([])[0].item())
        assert sorted(seen) == list(range(1, self.CALLERS * self.CALLS + 1))

    def test_nobody_sees_half_an_update(self) -> None:
        a, b = K.variable(np.zeros(300)), K.variable(np.full(300, 10.0))
        give = K.function([], [], updates=[(a, a + 1), (b, b - 1)])
        take = K.function([], [], updates=[(b, b + 1), (a, a - 1)])
        look = K.function([], [a + b])

        found = self.at_once(lambda which: (give if which % 2 else take)([]) or look([])[0])
        assert all(np.all(total == 10) for total in found)
        assert np.all(K.get_value(a) == 0)

    def test_each_has_its_own_results_and_scratch_memory(self) -> None:
        f, _ = update_and_scratch()
        x = f.inputs[0]
        g = K.function([x], [K.softmax(K.tanh(K.dot(x, K.constant(numbers(6, 6)))))])
        given = [numbers(5 + which, 6) * which for which in range(self.CALLERS)]
        wanted = [g([each])[0] for each in given]

        found = self.at_once(lambda which: (which, g([given[which]])[0]))
        for which, value in found:
            np.testing.assert_array_equal(value, wanted[which])

    def test_no_two_get_the_same_random_numbers(self) -> None:
        f = K.function([], [K.random_uniform((4,), seed=1)])
        found = self.at_once(lambda which: f([])[0].tobytes())
        assert len(set(found)) == len(found)


def test_locks_that_were_taken_are_given_back_when_one_cannot_be() -> None:
    class Broken:
        def acquire(self) -> None:
            raise KeyboardInterrupt

    first = threading.Lock()
    with pytest.raises(KeyboardInterrupt), _Together([first, Broken()]):
        pass
    assert not first.locked()
