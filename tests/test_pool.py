"""The thread pool: every task once, whatever the number of threads, callers, nestings and forks."""

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from tensorc.codegen.cpu import pool
from tensorc.codegen.cpu.compile import Library, compile_text, load
from tensorc.codegen.cpu.launch import emit_launch
from tensorc.codegen.cpu.target import Target
from tensorc.errors import ArgumentError
from tensorc.runtime import threads

TASKS = """
; counts[i] += 1, which only tells the truth if no task runs twice at once
define internal void @count(ptr %counts, i64 %i) {
  %place = getelementptr i64, ptr %counts, i64 %i
  %old = load i64, ptr %place
  %new = add i64 %old, 1
  store i64 %new, ptr %place
  ret void
}

; `times` regions of n tasks
define void @count_often(i64 %times, i64 %n, ptr %counts) {
entry:
  br label %next
next:
  %k = phi i64 [ 0, %entry ], [ %following, %next ]
  call void @tc_parallel(i64 %n, ptr @count, ptr %counts)
  %following = add i64 %k, 1
  %more = icmp slt i64 %following, %times
  br i1 %more, label %next, label %end
end:
  ret void
}

; step k writes its half of a table of 2 * n from the neighbours in the other half: everything must have arrived
%Ring = type { ptr, i64, i64 }
define internal void @pass_on(ptr %ring, i64 %i) {
  %values = load ptr, ptr %ring
  %n_place = getelementptr %Ring, ptr %ring, i32 0, i32 1
  %n = load i64, ptr %n_place
  %odd_place = getelementptr %Ring, ptr %ring, i32 0, i32 2
  %odd = load i64, ptr %odd_place
  %even = sub i64 1, %odd
  %right = add i64 %i, 1
  %neighbour = urem i64 %right, %n
  %from_base = mul i64 %even, %n
  %to_base = mul i64 %odd, %n
  %from = add i64 %from_base, %neighbour
  %to = add i64 %to_base, %i
  %from_place = getelementptr i64, ptr %values, i64 %from
  %to_place = getelementptr i64, ptr %values, i64 %to
  %old = load i64, ptr %from_place
  %new = add i64 %old, 1
  store i64 %new, ptr %to_place
  ret void
}

define void @pass_on_often(i64 %times, i64 %n, ptr %values) {
entry:
  %ring = alloca %Ring
  %n_place = getelementptr %Ring, ptr %ring, i32 0, i32 1
  %odd_place = getelementptr %Ring, ptr %ring, i32 0, i32 2
  store ptr %values, ptr %ring
  store i64 %n, ptr %n_place
  br label %next
next:
  %k = phi i64 [ 0, %entry ], [ %following, %next ]
  %following = add i64 %k, 1
  %odd = and i64 %following, 1
  store i64 %odd, ptr %odd_place
  call void @tc_parallel(i64 %n, ptr @pass_on, ptr %ring)
  %more = icmp slt i64 %following, %times
  br i1 %more, label %next, label %end
end:
  ret void
}

; row i of an 8-column table is counted by a region inside a region
define internal void @count_row(ptr %counts, i64 %i) {
  %offset = mul i64 %i, 8
  %row = getelementptr i64, ptr %counts, i64 %offset
  call void @tc_parallel(i64 8, ptr @count, ptr %row)
  ret void
}

define void @count_rows(i64 %n, ptr %counts) {
  call void @tc_parallel(i64 %n, ptr @count_row, ptr %counts)
  ret void
}

; task i takes i milliseconds or so
define internal void @dawdle(ptr %counts, i64 %i) {
entry:
  %clock = alloca i64
  %ticks = mul i64 %i, 1000000
  br label %tick
tick:
  %k = phi i64 [ 0, %entry ], [ %following, %tick ]
  store volatile i64 %k, ptr %clock
  %following = add i64 %k, 1
  %more = icmp slt i64 %following, %ticks
  br i1 %more, label %tick, label %end
end:
  call void @count(ptr %counts, i64 %i)
  ret void
}

define void @dawdle_all(i64 %n, ptr %counts) {
  call void @tc_parallel(i64 %n, ptr @dawdle, ptr %counts)
  ret void
}

; the n tasks of a region wait for each other, though not for ever; each notes how many it saw come, and on whose stack
%Meeting = type { i64, i64, [8 x i64], [8 x i64] }
declare ptr @llvm.frameaddress.p0(i32)
define internal void @meet(ptr %meeting, i64 %i) {
entry:
  %come_place = getelementptr %Meeting, ptr %meeting, i32 0, i32 1
  %seen_place = getelementptr %Meeting, ptr %meeting, i32 0, i32 2, i64 %i
  %n = load i64, ptr %meeting
  %before = atomicrmw add ptr %come_place, i64 1 seq_cst
  br label %look
look:
  %k = phi i64 [ 0, %entry ], [ %following, %look ]
  %come = load atomic i64, ptr %come_place seq_cst, align 8
  %following = add i64 %k, 1
  %missing = icmp slt i64 %come, %n
  %patient = icmp slt i64 %following, 3000000000
  %go_on = and i1 %missing, %patient
  br i1 %go_on, label %look, label %end
end:
  store i64 %come, ptr %seen_place
  %stack_place = getelementptr %Meeting, ptr %meeting, i32 0, i32 3, i64 %i
  %stack = call ptr @llvm.frameaddress.p0(i32 0)
  store ptr %stack, ptr %stack_place
  ret void
}

define void @meet_all(i64 %n, ptr %meeting) {
  call void @tc_parallel(i64 %n, ptr @meet, ptr %meeting)
  ret void
}
"""

ENTRIES = ("count_often", "pass_on_often", "count_rows", "dawdle_all", "meet_all")

THREADS = [1, 2, 3, 8]
SPINS = [0, 50, 2000]


class Pool:
    """A pool of its own for these tests, beside the one of the process."""

    def __init__(self, library: Library) -> None:
        word, narrow, pointer = ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p
        self.set_threads = library.function("tc_set_threads", None, narrow, narrow)
        self.threads = library.function("tc_threads", narrow)
        self.count_often = library.function("count_often", None, word, word, pointer)
        self.pass_on_often = library.function("pass_on_often", None, word, word, pointer)
        self.count_rows = library.function("count_rows", None, word, pointer)
        self.meet_all = library.function("meet_all", None, word, pointer)
        self.dawdle_all = library.function("dawdle_all", None, word, pointer)


@pytest.fixture(scope="module")
def own_pool() -> Pool:
    return Pool(_library())


_kept: list[Library] = []


def _library() -> Library:
    """Loaded once and kept: its workers stay in it."""
    if not _kept:
        target = Target.host()
        image = compile_text(pool.emit_pool(target) + TASKS, target).image
        _kept.append(load(image, pool.EXPORTS + ENTRIES))
    return _kept[0]


@pytest.mark.parametrize("spin", SPINS)
@pytest.mark.parametrize("count", THREADS)
def test_every_task_runs_once(own_pool: Pool, count: int, spin: int) -> None:
    own_pool.set_threads(count, spin)
    assert own_pool.threads() == count

    for n in (0, 1, 2, 7, 100):
        counts = np.zeros(n + 1, np.int64)
        own_pool.count_often(300, n, counts.ctypes.data)

        assert (counts[:n] == 300).all()
        assert counts[n] == 0


@pytest.mark.parametrize("spin", SPINS)
@pytest.mark.parametrize("count", THREADS)
def test_a_region_sees_all_that_the_last_one_wrote(own_pool: Pool, count: int, spin: int) -> None:
    own_pool.set_threads(count, spin)

    for n in (2, 5, 16):
        values = np.zeros(2 * n, np.int64)
        own_pool.pass_on_often(1001, n, values.ctypes.data)

        assert values.tolist() == [1000] * n + [1001] * n


@pytest.mark.parametrize("count", THREADS)
def test_regions_nest(own_pool: Pool, count: int) -> None:
    own_pool.set_threads(count, 50)
    counts = np.zeros((40, 8), np.int64)

    for _ in range(50):
        own_pool.count_rows(40, counts.ctypes.data)

    assert (counts == 50).all()


def test_a_caller_may_sleep_until_others_finish(own_pool: Pool) -> None:
    own_pool.set_threads(3, 50)
    counts = np.zeros(7, np.int64)

    for _ in range(4):
        own_pool.dawdle_all(7, counts.ctypes.data)

    assert (counts == 4).all()


@pytest.mark.parametrize("count", [2, 3, 8])
def test_tasks_run_at_the_same_time(own_pool: Pool, count: int) -> None:
    own_pool.set_threads(count, 0)

    for _ in range(5):
        meeting = meet(own_pool, count)
        assert meeting[2:2 + count].tolist() == [count] * count


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_thread_has_the_same_share_of_every_region(own_pool: Pool, count: int) -> None:
    own_pool.set_threads(count, 50)

    stacks = {tuple(meet(own_pool, count)[10:10 + count].tolist()) for _ in range(20)}

    assert len(stacks) == 1
    assert len(set(stacks.pop())) == count


def meet(own_pool: Pool, count: int) -> np.ndarray:
    """What `count` tasks of one region noted, as a %Meeting."""
    meeting = np.zeros(18, np.int64)
    meeting[0] = count
    own_pool.meet_all(count, meeting.ctypes.data)
    return meeting


def test_several_callers_while_the_number_of_threads_changes(own_pool: Pool) -> None:
    seen: list[tuple[list[int], int]] = []

    def call(n: int) -> None:
        values = np.zeros(2 * n, np.int64)
        rounds = 40
        for _ in range(rounds):
            own_pool.pass_on_often(50, n, values.ctypes.data)
        seen.append((values.tolist(), n))

    callers = [threading.Thread(target=call, args=(n,)) for n in (2, 3, 8, 33)]
    for caller in callers:
        caller.start()

    step = 0
    while any(caller.is_alive() for caller in callers):
        own_pool.set_threads(THREADS[step % 4], SPINS[step % 3])
        step += 1
        callers[step % 4].join(timeout=0.001)

    assert len(seen) == 4
    for values, n in seen:
        assert values == [2000] * n + [1999] * n


FORKS = """
import ctypes, os, threading
import numpy as np
from tests.test_pool import Pool, _library

own = Pool(_library())
library = _library()
os.register_at_fork(after_in_child=library.function("tc_forked", None))
own.set_threads(3, 50)

def works():
    counts = np.zeros(16, np.int64)
    own.count_often(20, 16, counts.ctypes.data)
    return (counts == 20).all()

stop = False
def hammer():
    counts = np.zeros(16, np.int64)
    while not stop:
        own.count_often(100, 16, counts.ctypes.data)

busy = threading.Thread(target=hammer)
busy.start()

for _ in range(25):
    child = os.fork()
    if child == 0:
        ok = works() and (own.set_threads(2, 0) or works())
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if works() else 1)
        os._exit(0 if ok and os.waitpid(grandchild, 0)[1] == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert works()

stop = True
busy.join()
print("forked")
"""

LEAVES_WHILE_BUSY = """
import threading
import numpy as np
from tests.test_pool import Pool, _library

own = Pool(_library())
own.set_threads(4, 2000)
counts = np.zeros(16, np.int64)
threading.Thread(target=own.count_often, args=(10**12, 16, counts.ctypes.data), daemon=True).start()
while not counts[0]:
    pass
print("leaving")
"""

ASKS_FOR_THREADS = "from tensorc.runtime import threads; print(threads.num_threads())"


def _run(script: str, **environment: str) -> str:
    """What a process of its own prints; it must end well."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environment},
        cwd=os.path.dirname(os.path.dirname(__file__)),
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_children_make_workers_of_their_own() -> None:
    assert _run(FORKS) == "forked"


def test_a_process_may_end_while_workers_work() -> None:
    assert _run(LEAVES_WHILE_BUSY) == "leaving"


def test_the_environment_sets_the_number_of_threads() -> None:
    assert _run(ASKS_FOR_THREADS, TENSORC_NUM_THREADS="5") == "5"


def test_the_environment_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("0", "many", "-2", "4096"):
        monkeypatch.setenv("TENSORC_NUM_THREADS", wrong)
        with pytest.raises(ArgumentError, match="TENSORC_NUM_THREADS is a whole number"):
            threads.default_num_threads()


def test_the_number_of_threads_changes_at_run_time() -> None:
    before = threads.num_threads()
    threads.set_num_threads(3)
    assert threads.num_threads() == 3
    threads.set_num_threads(before)

    for wrong in (0, -1, 1.5, True, 5000):
        with pytest.raises(ArgumentError, match="the number of threads"):
            threads.set_num_threads(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("triple", "can_thread"), [
    ("aarch64-unknown-linux-gnu", True),
    ("arm64-apple-darwin", True),
    ("x86_64-apple-darwin", True),
    ("x86_64-pc-windows-msvc-elf", True),
    ("x86_64-unknown-freebsd", False),
])
def test_other_systems_get_code_too(triple: str, can_thread: bool) -> None:
    target = Target.of(triple, "", "")

    assert pool.can_thread(target) == can_thread
    assert compile_text(pool.emit_pool(target) + emit_launch(), target).image
