"""The builtins in front of a program: what they bind, what they decline, what they leave alone."""

import ctypes
import gc
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tensorc.codegen.cpu.program import Loaded, load_program
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.places import External
from tensorc.codegen.spec import Launch, ProgramSpec
from tensorc.ir import dims
from tensorc.ir.types import TensorType, boolean, f32, i32, parse_type
from tensorc.runtime import fastcall, threads
from tensorc.runtime.fastcall import Runner

pytestmark = pytest.mark.skipif(not fastcall.layout_is_known(), reason="objects are laid out in an unknown way")

INPUTS = [parse_type("f32[n,784]"), parse_type("f32[n,m]"), parse_type("i32[]"), parse_type("bool[m,m,2]")]


def binder(inputs: Sequence[TensorType], externals: Sequence[int], symbols: Sequence[str]) -> fastcall.Binder:
    signature = fastcall.signature(inputs, externals, symbols)
    assert signature is not None
    return fastcall.binder(signature)


class Call:
    """Tables and a binder for INPUTS, whose externals stand in reverse order."""

    def __init__(self) -> None:
        self.bind = binder(INPUTS, [3, 2, 1, 0], ["m", "n"])
        self.externals = (ctypes.c_void_p * 4)()
        self.sizes = (ctypes.c_int64 * 2)()

    def __call__(self, arrays: Any) -> bool:
        return self.bind(arrays, ctypes.addressof(self.externals), ctypes.addressof(self.sizes))


@pytest.fixture(scope="module")
def call() -> Call:
    return Call()


def arrays(n: int = 4, m: int = 9) -> tuple[Any, ...]:
    return (
        np.zeros((n, 784), np.float32), np.zeros((n, m), np.float32), np.array(7, np.int32), np.zeros((m, m, 2), bool),
    )


def arrays_but(place: int, other: Any) -> tuple[Any, ...]:
    """The usual arrays with another one in one place."""
    return tuple(other if i == place else each for i, each in enumerate(arrays()))


@pytest.mark.parametrize(("n", "m"), [(4, 9), (1, 1), (0, 3), (1000, 0)])
def test_usual_arrays_are_bound(call: Call, n: int, m: int) -> None:
    given = arrays(n, m)

    assert call(given) is True
    assert list(call.sizes) == [m, n]
    assert list(call.externals) == [each.ctypes.data for each in reversed(given)]


class Subclass(np.ndarray):
    pass


def _misaligned() -> np.ndarray:
    return np.zeros(4 * 9 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(4, 9)


UNUSUAL = {
    "another dtype": np.zeros((4, 9), np.float64),
    "same width": np.zeros((4, 9), np.int32),
    "other byte order": np.zeros((4, 9), np.dtype(np.float32).newbyteorder()),
    "a subclass": np.zeros((4, 9), np.float32).view(Subclass),
    "transposed": np.zeros((9, 4), np.float32).T,
    "strided": np.zeros((4, 18), np.float32)[:, ::2],
    "misaligned": _misaligned(),
    "another rank": np.zeros(36, np.float32),
    "n differs": np.zeros((5, 9), np.float32),
    "m differs": np.zeros((4, 8), np.float32),
    "a list": [[0.0] * 9] * 4,
    "a scalar": np.float32(3),
    "nothing": None,
    "a class": np.ndarray,
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_unusual_arrays_are_declined(call: Call, what: str) -> None:
    assert call(arrays_but(1, UNUSUAL[what])) is False


def test_known_sizes_are_compared(call: Call) -> None:
    assert call(arrays_but(0, np.zeros((4, 783), np.float32))) is False
    assert call(arrays_but(3, np.zeros((9, 9, 3), bool))) is False


def test_only_a_tuple_of_the_right_length_will_do(call: Call) -> None:
    class Tuple(tuple[Any, ...]):
        pass

    wrong: Any
    for wrong in (list(arrays()), Tuple(arrays()), arrays()[:3], arrays() * 2, (), {}, None, 3):
        assert call(wrong) is False


def test_wrong_use_raises(call: Call) -> None:
    table = ctypes.addressof(call.sizes)
    wrong: Any
    for wrong in ((), (arrays(),), (arrays(), table), (arrays(), table, "sizes"), (arrays(), table, table, table)):
        with pytest.raises(TypeError):
            call.bind(*wrong)


def test_reference_counts_stay(call: Call) -> None:
    given = arrays()
    watched = [given, *given, given[0].dtype, np.float64(1), 10**6]
    declined = (*given[:3], None)
    before = [sys.getrefcount(each) for each in watched]

    for _ in range(1000):
        call(given)
        call(declined)

    assert [sys.getrefcount(each) for each in watched] == before


def test_formulas_and_unknown_symbols_have_no_fast_way() -> None:
    n = dims.symbol("n")
    assert fastcall.signature([TensorType(f32, (2 * n,))], [0], ["n"]) is None
    assert fastcall.signature([TensorType(i32, (n,))], [0], ["m"]) is None


def test_no_inputs_bind_to_nothing() -> None:
    bind = binder([], [], [])
    assert bind((), 0, 0) is True
    assert bind((np.zeros(3),), 0, 0) is False


# wait(flag, answer): answer = 1 once flag is set by someone else, 2 if that takes too long
WAIT = """
define internal void @wait(i64 %first, i64 %last, ptr %buffers, ptr %sizes) {
entry:
  %answer_place = getelementptr ptr, ptr %buffers, i64 1
  %flag = load ptr, ptr %buffers
  %answer = load ptr, ptr %answer_place
  store atomic i64 3, ptr %answer release, align 8
  br label %look
look:
  %i = phi i64 [ 0, %entry ], [ %following, %again ]
  %seen = load atomic i64, ptr %flag acquire, align 8
  %set = icmp ne i64 %seen, 0
  br i1 %set, label %end, label %again
again:
  %following = add i64 %i, 1
  %patient = icmp slt i64 %following, 4000000000
  br i1 %patient, label %look, label %end
end:
  %result = select i1 %set, i64 1, i64 2
  store i64 %result, ptr %answer
  ret void
}
define internal i64 @wait_units(ptr %sizes) alwaysinline {
  ret i64 1
}
define internal i64 @wait_work(ptr %sizes) alwaysinline {
  ret i64 1
}
"""


def waiting_program() -> Loaded:
    step = (Launch("wait", (External(0), External(1)), ()),)
    return load_program(WAIT, ProgramSpec("wait", (), 2, (step,), 0), Target.host(), threads.symbols())


def fast(loaded: Loaded) -> Runner:
    run = fastcall.runner(loaded)
    assert run is not None
    return run


def test_others_run_while_a_program_runs() -> None:
    flag, answer = np.zeros(1, np.int64), np.zeros(1, np.int64)
    table = (ctypes.c_void_p * 2)(flag.ctypes.data, answer.ctypes.data)

    caller = threading.Thread(target=fast(waiting_program()), args=(ctypes.addressof(table), 0, 0))
    caller.start()
    while answer[0] != 3:
        pass
    flag[0] = 1
    caller.join()

    assert answer[0] == 1


def test_a_runner_keeps_its_program() -> None:
    run = fast(waiting_program())
    gc.collect()

    flag, answer = np.ones(1, np.int64), np.zeros(1, np.int64)
    table = (ctypes.c_void_p * 2)(flag.ctypes.data, answer.ctypes.data)
    assert run(ctypes.addressof(table), 0, 0) is None
    assert answer[0] == 1


def test_a_runner_returns_none_and_counts_it() -> None:
    run = fast(waiting_program())
    flag, answer = np.ones(1, np.int64), np.zeros(1, np.int64)
    table = (ctypes.c_void_p * 2)(flag.ctypes.data, answer.ctypes.data)
    before = sys.getrefcount(None)

    for _ in range(1000):
        run(ctypes.addressof(table), 0, 0)

    assert abs(sys.getrefcount(None) - before) < 100


def test_a_runner_takes_three_addresses() -> None:
    run = fast(waiting_program())
    with pytest.raises(TypeError):
        run(1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        run("table", 0, 0)  # type: ignore[arg-type]


def test_dtypes_of_every_kind_bind() -> None:
    for dtype in (boolean, f32, i32):
        bind = binder([TensorType(dtype, (3,))], [0], [])
        table = (ctypes.c_void_p * 1)()
        assert bind((np.zeros(3, dtype.name),), ctypes.addressof(table), 0) is True
        assert bind((np.zeros(3, np.complex64),), ctypes.addressof(table), 0) is False
