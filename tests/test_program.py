"""Native programs: plans, arenas, sizes at run time, side-by-side launches, images that outlive a process."""

import ctypes
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tensorc.codegen.cpu.compile import CodeError, assembly, compile_text, load, optimised
from tensorc.codegen.cpu.program import Loaded, emit_program, load_image, load_program
from tensorc.codegen.cpu.sizes import SizeArithmetic
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.places import Arena, External, Place
from tensorc.codegen.spec import Launch, ProgramSpec
from tensorc.errors import InternalError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.runtime import threads

TARGET = Target.host()

# add(x, y, out; rows, columns): out = x + y, a unit a row, work as many operations as elements.
# mark(counts; units, work): counts[unit] += 1, with as much work as it is told to claim.
KERNELS = """
define internal void @add(i64 %first, i64 %last, ptr %buffers, ptr %sizes) {
entry:
  %y_place = getelementptr ptr, ptr %buffers, i64 1
  %out_place = getelementptr ptr, ptr %buffers, i64 2
  %columns_place = getelementptr i64, ptr %sizes, i64 1
  %x = load ptr, ptr %buffers
  %y = load ptr, ptr %y_place
  %out = load ptr, ptr %out_place
  %columns = load i64, ptr %columns_place
  %from = mul i64 %first, %columns
  %to = mul i64 %last, %columns
  br label %look
look:
  %i = phi i64 [ %from, %entry ], [ %following, %each ]
  %more = icmp slt i64 %i, %to
  br i1 %more, label %each, label %end
each:
  %xi_place = getelementptr float, ptr %x, i64 %i
  %yi_place = getelementptr float, ptr %y, i64 %i
  %oi_place = getelementptr float, ptr %out, i64 %i
  %xi = load float, ptr %xi_place
  %yi = load float, ptr %yi_place
  %oi = fadd float %xi, %yi
  store float %oi, ptr %oi_place
  %following = add i64 %i, 1
  br label %look
end:
  ret void
}
define internal i64 @add_units(ptr %sizes) alwaysinline {
  %rows = load i64, ptr %sizes
  ret i64 %rows
}
define internal i64 @add_work(ptr %sizes) alwaysinline {
  %columns_place = getelementptr i64, ptr %sizes, i64 1
  %rows = load i64, ptr %sizes
  %columns = load i64, ptr %columns_place
  %work = mul i64 %rows, %columns
  ret i64 %work
}

define internal void @mark(i64 %first, i64 %last, ptr %buffers, ptr %sizes) {
entry:
  %counts = load ptr, ptr %buffers
  br label %look
look:
  %i = phi i64 [ %first, %entry ], [ %following, %each ]
  %more = icmp slt i64 %i, %last
  br i1 %more, label %each, label %end
each:
  %place = getelementptr i64, ptr %counts, i64 %i
  %old = load i64, ptr %place
  %new = add i64 %old, 1
  store i64 %new, ptr %place
  %following = add i64 %i, 1
  br label %look
end:
  ret void
}
define internal i64 @mark_units(ptr %sizes) alwaysinline {
  %units = load i64, ptr %sizes
  ret i64 %units
}
define internal i64 @mark_work(ptr %sizes) alwaysinline {
  %work_place = getelementptr i64, ptr %sizes, i64 1
  %work = load i64, ptr %work_place
  ret i64 %work
}
"""

n, m = dims.symbol("n"), dims.symbol("m")


def program(spec: ProgramSpec) -> Loaded:
    return load_program(KERNELS, spec, TARGET, threads.symbols())


def run(loaded: Loaded, buffers: list[np.ndarray], sizes: tuple[int, ...] = ()) -> int:
    """Runs with an arena of just the size asked for; returns that size."""
    externals = (ctypes.c_void_p * len(buffers))(*[b.ctypes.data for b in buffers])
    table = (ctypes.c_int64 * len(sizes))(*sizes)

    needed = loaded.arena_bytes(table)
    arena = np.full(needed + 128, 0xAA, np.uint8)
    loaded.run(externals, table, arena.ctypes.data + 64)

    assert (arena[:64] == 0xAA).all()
    assert (arena[64 + needed:] == 0xAA).all()
    return int(needed)


def add(x: Place, y: Place, out: Place) -> Launch:
    return Launch("add", (x, y, out), (n, m))


@pytest.fixture(params=[1, 2, 3, 8])
def thread_count(request: pytest.FixtureRequest) -> Iterator[int]:
    before = threads.num_threads()
    threads.set_num_threads(request.param)
    yield request.param
    threads.set_num_threads(before)


def test_steps_pass_values_through_an_arena_of_any_size(thread_count: int) -> None:
    first, second = Arena(0), Arena(4 * n * m)
    x, out = External(0), External(1)
    loaded = program(ProgramSpec(
        name="eight times x",
        sizes=("n", "m"),
        externals=2,
        steps=((add(x, x, first),), (add(first, first, second),), (add(second, second, out),)),
        arena=8 * n * m,
    ))

    for rows, columns in [(1, 1), (3, 5), (7, 1000), (400, 300), (0, 4), (5, 0)]:
        data = np.random.default_rng(rows).random((rows, columns), np.float32)
        result = np.full_like(data, np.nan)

        assert run(loaded, [data, result], (rows, columns)) == 8 * rows * columns
        np.testing.assert_array_equal(result, 8 * data)


MARKED = [
    [(1, 1)],
    [(5, 40_000)],
    [(1000, 10**6)],
    [(1000, 2**62)],                                        # work * units does not fit 64 bits
    [(3_000_000, 2**61)],
    [(0, 0), (7, 10**6), (0, 0)],
    [(0, 10**6), (3, 0), (2, 10**6)],
    [(1, 10)] * 100 + [(5000, 10**8)] + [(3, 1)] * 50,
    [(17, 10**9), (10**6, 17), (40, 10**5)],
    [(2, 100)] * 5,
]


@pytest.mark.parametrize("parts", MARKED, ids=lambda parts: f"{len(parts)}x{parts[0][0]}")
def test_launches_side_by_side_run_each_unit_once(parts: list[tuple[int, int]], thread_count: int) -> None:
    step = tuple(Launch("mark", (External(i),), sizes) for i, sizes in enumerate(parts))
    loaded = program(ProgramSpec("marks", (), len(parts), (step, step), 0))

    counts = [np.zeros(units + 1, np.int64) for units, _ in parts]
    for _ in range(3):
        run(loaded, counts)

    for marked, (units, _) in zip(counts, parts, strict=True):
        assert (marked[:units] == 6).all()
        assert marked[units] == 0


def test_steps_run_in_order(thread_count: int) -> None:
    x, total = External(0), External(1)
    loaded = program(ProgramSpec("sums", ("n", "m"), 2, ((add(total, x, total),),) * 20, 0))
    data, result = np.ones((300, 200), np.float32), np.zeros((300, 200), np.float32)

    run(loaded, [data, result], data.shape)
    assert (result == 20).all()


def test_the_arena_has_room_for_the_step_that_needs_most() -> None:
    scratch = tuple(64 * ((n + i) // (1 + i % 7)) for i in range(2000))
    loaded = program(ProgramSpec("deep", ("n",), 0, (), 64 * n, scratch=scratch))
    for rows in (0, 1, 1000):
        assert run(loaded, [], (rows,)) == 64 * rows + max(64 * ((rows + i) // (1 + i % 7)) for i in range(2000))


def test_several_threads_call_one_program() -> None:
    halfway = Arena(64 * (n // 3))
    steps = ((add(External(0), External(0), halfway),), (add(halfway, External(0), External(1)),))
    loaded = program(ProgramSpec("three times x", ("n", "m"), 2, steps, 64 * (n // 3) + 4 * n * m))
    wrong = []

    def call(seed: int) -> None:
        data = np.random.default_rng(seed).random((50 * seed, 40), np.float32)
        expected = (data + data) + data
        for _ in range(30):
            result = np.full_like(data, np.nan)
            run(loaded, [data, result], data.shape)
            if not np.array_equal(result, expected):
                wrong.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in (1, 2, 7, 40)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.parametrize("steps", [(), ((),), ((), ())])
def test_a_program_may_do_nothing(steps: tuple[tuple[Launch, ...], ...]) -> None:
    loaded = program(ProgramSpec("nothing", ("n",), 0, steps, 64 * n))
    assert run(loaded, [], (3,)) == 192


def test_code_stays_while_its_function_is_held() -> None:
    run_alone = program(ProgramSpec("marks", (), 1, ((Launch("mark", (External(0),), (9, 9)),),), 0)).run
    counts = np.zeros(9, np.int64)
    run_alone((ctypes.c_void_p * 1)(counts.ctypes.data), None, None)
    assert (counts == 1).all()


SIZES: list[Size] = [
    0, -3, n, -n, n + m, 2 * n * m - 7, n * n * m + n * m, (n + 511) // 512, (n - 5) // 4, (n - 5) % 4,
    dims.floordiv(n * m + 1, m), dims.mod(n - 9, m), dims.minimum(n, m), dims.maximum(n, 3 * m - 1),
    dims.ceildiv(n, 64) * 64 * m, dims.minimum(dims.ceildiv(n, 16), 8) % 3,
]


def test_sizes_are_computed_as_in_python() -> None:
    lines: list[str] = []
    arithmetic = SizeArithmetic(lines.append, {"n": "%n", "m": "%m"})
    for i, size in enumerate(SIZES):
        lines.append(f"  %place{i} = getelementptr i64, ptr %out, i64 {i}")
        lines.append(f"  store i64 {arithmetic.value(size)}, ptr %place{i}")

    text = "\n".join(["define void @sizes(i64 %n, i64 %m, ptr %out) {", *lines, "  ret void", "}"])
    library = load(compile_text(text, TARGET).image, ["sizes"])
    function = library.function("sizes", None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)

    for rows, columns in itertools.product([0, 1, 4, 5, 64, 1000], [1, 2, 7, 513]):
        out = np.zeros(len(SIZES), np.int64)
        function(rows, columns, out.ctypes.data)
        assert out.tolist() == [dims.evaluate(size, {"n": rows, "m": columns}) for size in SIZES]


def test_each_size_is_computed_once() -> None:
    lines: list[str] = []
    arithmetic = SizeArithmetic(lines.append, {"n": "%n", "m": "%m"})

    assert arithmetic.value(n * m + 1) == arithmetic.value(n * m + 1)
    assert len(lines) == 2
    arithmetic.value(3 * n * m)
    assert len(lines) == 3
    arithmetic.value(n // m)
    arithmetic.value(n % m)
    assert sum("sdiv" in line for line in lines) == 1


def test_an_unknown_symbol_is_our_fault() -> None:
    with pytest.raises(InternalError, match="no value for the size m; known are n"):
        emit_program(ProgramSpec("wrong", ("n",), 0, (), n * m))


def test_a_refused_text_is_kept() -> None:
    with pytest.raises(CodeError, match="a fault of tensorc") as caught:
        compile_text("define i64 @f() {\n  ret i32 0\n}", TARGET)
    assert "ret i32 0" in caught.value.text


def test_a_damaged_image_is_refused() -> None:
    image = compile_text("define i64 @f() {\n  ret i64 5\n}", TARGET).image
    for damaged in (b"", b"not code at all", image[:100], image[8:]):
        with pytest.raises(InternalError, match="cannot be loaded"):
            load_image(damaged, {})


def test_code_can_be_read() -> None:
    text = "define i64 @seven() {\n  %x = add i64 3, 4\n  ret i64 %x\n}"
    assert "ret i64 7" in optimised(text, TARGET)
    assert "seven" in assembly(text, TARGET)


SPEC = ProgramSpec("marks", (), 1, ((Launch("mark", (External(0),), (1000, 10**6)),),), 0)

LOADS_AN_IMAGE = """
import ctypes, sys
from pathlib import Path
from tensorc.codegen.cpu.program import load_image
from tensorc.runtime import threads

loaded = load_image(Path(sys.argv[1]).read_bytes(), threads.symbols())
counts = (ctypes.c_int64 * 1000)()
loaded.run((ctypes.c_void_p * 1)(ctypes.addressof(counts)), None, None)
print(sum(counts))
"""


def test_an_image_runs_in_another_process(tmp_path: Path) -> None:
    text = KERNELS + emit_program(SPEC)
    image = compile_text(text, TARGET).image
    assert compile_text(text, TARGET).image == image

    (tmp_path / "program.o").write_bytes(image)
    result = subprocess.run(
        [sys.executable, "-c", LOADS_AN_IMAGE, str(tmp_path / "program.o")],
        capture_output=True, text=True, timeout=60, cwd=Path(__file__).parent.parent, env=dict(os.environ),
    )
    assert result.stdout.strip() == "1000", result.stderr


def test_targets_know_their_vectors() -> None:
    x86 = "x86_64-unknown-linux-gnu"
    plain = Target.of(x86, "x86-64", "")
    assert (plain.bits, plain.fma, plain.half, plain.lanes(4)) == (128, False, False, 4)

    haswell = Target.of(x86, "haswell", "+avx2,+fma,+f16c,-avx512f")
    assert (haswell.bits, haswell.fma, haswell.half, haswell.lanes(8)) == (256, True, True, 4)

    wide = Target.of(x86, "znver5", "+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512dq,+avx512vl")
    assert (wide.bits, wide.lanes(2)) == (512, 32)

    arm = Target.of("arm64-apple-darwin23", "apple-m1", "")
    assert (arm.architecture, arm.system, arm.bits, arm.fma) == ("aarch64", "darwin", 128, True)

    assert len({t.key for t in (plain, haswell, wide, arm)}) == 4
