"""Whole calls by one builtin: what it computes, what it declines, whom objects belong to, errors and locks."""

import ctypes
import gc
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from test_fastcall import waiting_program

from tensorc import backend as K
from tensorc.backend.functions import Function
from tensorc.codegen.cpu.direct import SCRATCH
from tensorc.codegen.cpu.program import load_program
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.places import External
from tensorc.codegen.spec import Launch, ProgramSpec
from tensorc.errors import DTypeError, IndexRangeError, ShapeError
from tensorc.ir import dims
from tensorc.ir.types import TensorType, i64
from tensorc.runtime import direct, fastcall, threads
from tensorc.runtime.memory import POOLED
from tensorc.runtime.variable import Cell

pytestmark = pytest.mark.skipif(not fastcall.layout_is_known(), reason="objects are laid out in an unknown way")

Values = tuple[Any, ...]


@pytest.fixture(autouse=True)
def _fresh_session() -> Iterator[None]:
    yield
    K.clear_session()


def direct_of(f: Function) -> direct.Direct:
    """The direct way of a function that has one, whose program is there already."""
    usual = f.compiled._usual
    assert usual is not None
    assert usual.direct is not direct.declined
    return usual.direct


def counter(size: int = 1) -> tuple[Function, Any]:
    count = K.variable(np.zeros(size))
    f = K.function([], [count + 1], updates=[(count, count + 1)])
    f([])
    return f, count


def doubling() -> tuple[Function, Values]:
    x = K.placeholder((None,))
    return K.function([x], [x * 2 + 1, K.sum(x)]), (np.ones(8, np.float32),)


# more(x, y): y[i] = x[i] + 1
MORE = """
define internal void @more(i64 %first, i64 %last, ptr %buffers, ptr %sizes) {
entry:
  %y_place = getelementptr ptr, ptr %buffers, i64 1
  %x = load ptr, ptr %buffers
  %y = load ptr, ptr %y_place
  br label %next
next:
  %i = phi i64 [ %first, %entry ], [ %following, %each ]
  %left = icmp slt i64 %i, %last
  br i1 %left, label %each, label %end
each:
  %x_at = getelementptr i64, ptr %x, i64 %i
  %y_at = getelementptr i64, ptr %y, i64 %i
  %value = load i64, ptr %x_at
  %sum = add i64 %value, 1
  store i64 %sum, ptr %y_at
  %following = add i64 %i, 1
  br label %next
end:
  ret void
}
define internal i64 @more_units(ptr %sizes) alwaysinline {
  %units = load i64, ptr %sizes
  ret i64 %units
}
define internal i64 @more_work(ptr %sizes) alwaysinline {
  ret i64 1
}
"""


def more(locks: Sequence[Any] = (), result: TensorType | None = None, arena: int = 0) -> direct.Direct:
    """A call that adds one to a row of int64, as a program of `more`."""
    n = dims.symbol("n")
    spec = ProgramSpec("more", ("n",), 2, ((Launch("more", (External(0), External(1)), (n,)),),), arena)
    loaded = load_program(MORE, spec, Target.host(), threads.symbols())
    signature = fastcall.signature([TensorType(i64, (n,))], [0], ["n"])
    assert signature is not None
    return direct.direct(signature, [result or TensorType(i64, (n,))], 1, (ctypes.c_void_p * 2)(), locks, loaded)


class Lock:
    """A lock that writes down what happens to it."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def acquire(self) -> bool:
        self.told.append(f"+{self.name}")
        return True

    def release(self) -> None:
        self.told.append(f"-{self.name}")


class Refusing(Lock):
    def acquire(self) -> bool:
        raise KeyboardInterrupt(self.name)


class Stuck(Lock):
    def release(self) -> None:
        raise RuntimeError(self.name)


@pytest.mark.parametrize("n", [0, 1, 5, 1000])
def test_a_call_computes(n: int) -> None:
    call, x = more(), np.arange(n)
    results = call((x,))
    assert results is not None
    assert [each.tolist() for each in results] == [list(range(1, n + 1))]
    assert results[0].dtype == np.int64
    assert results[0].flags.c_contiguous
    assert results[0].flags.owndata
    assert results[0].flags.writeable


def test_the_usual_functions_have_a_direct_way() -> None:
    x, y, w = K.placeholder((None, 3)), K.placeholder(()), K.variable(np.ones((3, 2)))
    several = [K.dot(x, w), K.sum(x) + y, w * 2]
    f = K.function([x, y], several, updates=[(w, w * y)])
    values = np.arange(6, dtype=np.float32).reshape(2, 3), np.array(2, np.float32)
    f(values)

    product, total, double = direct_of(f)(values) or []
    assert product.tolist() == [[6, 6], [24, 24]]
    assert (total.shape, total) == ((), 17)
    assert double.tolist() == [[4, 4]] * 3
    assert K.get_value(w).tolist() == [[4, 4]] * 3


def test_no_results_are_an_empty_list() -> None:
    count = K.variable(np.zeros(2))
    f = K.function([], [], updates=[(count, count + 1)])
    f([])
    assert direct_of(f)(()) == []
    assert K.get_value(count).tolist() == [2, 2]


def test_a_place_outside_is_told_of_direct_calls() -> None:
    table, places, total = K.placeholder((None, 2)), K.placeholder((None,), dtype="int32"), K.variable(0.0)
    f = K.function([table, places], [K.gather(table, places)], updates=[(total, total + 1)])
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    f([rows, np.array([1], np.int32)])

    found = direct_of(f)((rows, np.array([2, 0], np.int32)))
    assert found is not None
    assert [each.tolist() for each in found] == [[[4, 5], [0, 1]]]
    with pytest.raises(IndexRangeError, match=r"3 at \[1\] is outside an axis of size 3"):
        direct_of(f)((rows, np.array([2, 3], np.int32)))
    assert K.get_value(total) == 2


def test_random_numbers_and_formulas_have_none() -> None:
    x = K.placeholder((None, 3))
    for y in (K.dropout(x, 0.5), K.concatenate([x, x], axis=0)):
        f = K.function([x], [y])
        f([np.ones((2, 3), np.float32)])
        usual = f.compiled._usual
        assert usual is not None
        assert usual.direct is direct.declined


class Subclass(np.ndarray):
    pass


UNUSUAL: dict[str, Any] = {
    "another dtype": np.zeros((4, 9), np.float64),
    "other byte order": np.zeros((4, 9), np.dtype(np.float32).newbyteorder()),
    "a subclass": np.zeros((4, 9), np.float32).view(Subclass),
    "transposed": np.zeros((9, 4), np.float32).T,
    "strided": np.zeros((4, 18), np.float32)[:, ::2],
    "misaligned": np.zeros(4 * 9 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(4, 9),
    "a list": [[0.0] * 9] * 4,
}
WRONG: dict[str, tuple[Any, type[Exception]]] = {
    "another rank": (np.zeros(36, np.float32), ShapeError),
    "another size": (np.zeros((4, 8), np.float32), ShapeError),
    "a scalar": (np.float32(3), ShapeError),
    "of text": (np.full((4, 9), "a"), DTypeError),
    "complex": (np.zeros((4, 9), complex), DTypeError),
}


class TestWhatIsDeclined:
    @pytest.fixture
    def summing(self) -> tuple[Function, Any]:
        x, total = K.placeholder((None, 9)), K.variable(np.zeros(9))
        f = K.function([x], [total], updates=[(total, total + K.sum(x + 1, axis=0))])
        f([np.zeros((4, 9), np.float32)])
        return f, total

    @pytest.mark.parametrize("what", UNUSUAL)
    def test_unusual_values_leave_all_as_it_was_and_are_converted(self, summing: Any, what: str) -> None:
        f, total = summing
        assert direct_of(f)((UNUSUAL[what],)) is None
        assert K.get_value(total).tolist() == [4] * 9

        f([UNUSUAL[what]])
        assert K.get_value(total).tolist() == [8] * 9

    @pytest.mark.parametrize("what", WRONG)
    def test_wrong_values_are_refused_and_leave_all_as_it_was(self, summing: Any, what: str) -> None:
        f, total = summing
        value, error = WRONG[what]
        assert direct_of(f)((value,)) is None
        with pytest.raises(error):
            f([value])
        assert K.get_value(total).tolist() == [4] * 9

    def test_another_number_of_values_is_declined(self, summing: Any) -> None:
        f, total = summing
        x = np.zeros((4, 9), np.float32)
        wrong: Any
        for wrong in ((), (x, x), [x], x, None):
            assert direct_of(f)(wrong) is None
        assert K.get_value(total).tolist() == [4] * 9

    def test_values_that_may_only_be_read_are_not(self, summing: Any) -> None:
        x = np.ones((2, 9), np.float32)
        x.flags.writeable = False
        assert direct_of(summing[0])((x,)) is not None

    def test_large_results_are(self) -> None:
        call, limit = more(), POOLED // 8
        assert call((np.zeros(limit - 1, np.int64),)) is not None
        assert call((np.zeros(limit, np.int64),)) is None

    def test_much_scratch_memory_is(self) -> None:
        x = np.zeros(3, np.int64)
        assert more(arena=SCRATCH)((x,)) is not None
        assert more(arena=SCRATCH + 64)((x,)) is None

    def test_variables_that_may_be_elsewhere_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        f, count = counter()
        told: list[str] = []
        call, x = more([Lock("a", told)]), np.zeros(3, np.int64)
        monkeypatch.setattr(Cell.any_elsewhere, "value", True)

        assert direct_of(f)(()) is None
        assert call((x,)) is None
        assert told == ["+a", "-a"]
        assert K.get_value(count) == 1
        assert f([])[0] == 2

    def test_all_is_where_numpy_is_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(direct, "_array_maker", lambda: None)
        assert more() is direct.declined


class TestLocks:
    def test_they_are_taken_in_order_and_given_back(self) -> None:
        told: list[str] = []
        results = more([Lock("a", told), Lock("b", told)])((np.zeros(2, np.int64),))
        assert results is not None
        assert told == ["+a", "+b", "-a", "-b"]

    def test_those_that_were_taken_are_given_back_when_one_cannot_be(self) -> None:
        told: list[str] = []
        call = more([Lock("a", told), Lock("b", told), Refusing("c", told)])
        with pytest.raises(KeyboardInterrupt, match="c"):
            call((np.zeros(2, np.int64),))
        assert told == ["+a", "+b", "-a", "-b"]

    def test_one_that_cannot_be_given_back_is_told(self) -> None:
        with pytest.raises(RuntimeError, match="stuck"):
            more([Stuck("stuck", [])])((np.zeros(2, np.int64),))

    def test_a_call_waits_for_whoever_holds_the_variable(self) -> None:
        f, _ = counter()
        (cell,) = f.compiled._cells.values()
        values: list[float] = []
        caller = threading.Thread(target=lambda: values.append(f([])[0].item()))
        with cell.lock:
            caller.start()
            caller.join(0.05)
            assert caller.is_alive()
            cell.set(np.full(1, 10.0))
        caller.join()
        assert values == [11]

    def test_a_call_within_a_call_is_one(self) -> None:
        inner: list[Any] = []

        class Calling(Lock):
            def acquire(self) -> bool:
                if not inner:
                    inner.append(None)
                    inner.append(call((np.full(4, 20),)))
                return True

        call = more([Calling("a", [])])
        assert call((np.full(3, 10),))[0].tolist() == [11] * 3  # type: ignore[index]
        assert inner[1][0].tolist() == [21] * 4


class TestObjects:
    """Nothing is kept that should go, nothing goes that should be kept."""

    def test_reference_counts_stay(self) -> None:
        told: list[str] = []
        lock = Lock("a", told)
        call, failing = more([lock]), more([lock, Refusing("b", told)])
        x, other = np.zeros(3, np.int64), np.zeros(3, np.float32)
        values, declined = (x,), (other,)
        watched = [x, other, values, declined, lock, call]
        results = call(values)
        before, of_dtype = [sys.getrefcount(each) for each in watched], sys.getrefcount(x.dtype)

        for _ in range(1000):
            results = call(values)
            assert call(declined) is None
            with pytest.raises(KeyboardInterrupt):
                failing(values)

        assert results is not None
        of_list, of_array = sys.getrefcount(results), sys.getrefcount(results[0])
        assert of_list == of_array == 2
        assert [sys.getrefcount(each) for each in watched] == before
        assert abs(sys.getrefcount(x.dtype) - of_dtype) < 100

    def test_none_is_counted(self) -> None:
        call = more()
        before = sys.getrefcount(None)
        for _ in range(1000):
            call(())
        assert abs(sys.getrefcount(None) - before) < 100

    def test_a_result_that_cannot_be_made_raises(self) -> None:
        told: list[str] = []
        huge = TensorType(i64, (dims.symbol("n"), 1 << 62))
        call, x = more([Lock("a", told)], huge), np.zeros(4, np.int64)
        before = sys.getrefcount(x.dtype)

        for _ in range(200):
            with pytest.raises(ValueError, match="array"):
                call((x,))
        assert told == []
        assert abs(sys.getrefcount(x.dtype) - before) < 20

    @pytest.mark.parametrize("make", [lambda: (counter()[0], ()), lambda: doubling()])
    def test_memory_does_not_grow(self, make: Callable[[], tuple[Function, Values]]) -> None:
        f, values = make()
        f(values)

        def calls() -> None:
            for _ in range(3000):
                f(values)

        calls()
        gc.collect()
        tracemalloc.start()
        try:
            calls()
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            calls()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 3000

    def test_a_call_keeps_what_it_needs(self) -> None:
        call = more([Lock("a", [])])
        gc.collect()
        results = call((np.arange(3),))
        assert results is not None
        assert results[0].tolist() == [1, 2, 3]

    def test_each_call_has_results_of_its_own(self) -> None:
        f, _ = counter(3)
        first = f([])[0]
        second = f([])[0]
        assert first.tolist() == [2] * 3
        assert second.tolist() == [3] * 3


def test_others_run_while_a_direct_call_does() -> None:
    signature = fastcall.signature([TensorType(i64, ()), TensorType(i64, ())], [0, 1], [])
    assert signature is not None
    call = direct.direct(signature, [], 2, (ctypes.c_void_p * 2)(), (), waiting_program())
    flag, answer = np.array(0), np.array(0)

    caller = threading.Thread(target=call, args=((flag, answer),))
    caller.start()
    while answer != 3:
        pass
    flag[()] = 1
    caller.join()

    assert answer == 1
