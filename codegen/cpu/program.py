"""A whole program as one native function: a plan of launches, followed without a step through Python.

A kernel NAME is LLVM IR that defines

    void @NAME(i64 first, i64 last, ptr buffers, ptr sizes)    its units first … last − 1
    i64  @NAME_units(ptr sizes)                                how many units there are
    i64  @NAME_work(ptr sizes)                                 scalar operations of all of them

the last two best as `internal` and `alwaysinline`: each function of a module costs LLVM half a millisecond.
The program adds

    void @run(ptr externals, ptr sizes, ptr arena)
    i64  @arena_bytes(ptr sizes)
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tensorc.codegen.cpu import launch
from tensorc.codegen.cpu.compile import Library, compile_text, load
from tensorc.codegen.cpu.loops import emit_choice, emit_loop, load_sizes
from tensorc.codegen.cpu.row_loops import emit_row_loop, row_buffers
from tensorc.codegen.cpu.sizes import SizeArithmetic
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.watch import Watch
from tensorc.codegen.places import Arena, External, Place
from tensorc.codegen.spec import Choice, Gate, Keep, Launch, Loop, ProgramSpec, Step
from tensorc.ir.dims import Size, symbol

EXPORTS = ("run", "arena_bytes")


class Loaded:
    """A program in memory.

    `run(externals, sizes, arena)` and `arena_bytes(sizes)` take addresses: of a table of pointers, a table of
    int64, and an arena of at least `arena_bytes` aligned to 64.  They release the GIL, keep the code loaded, and may
    be called from several threads at once with tables and arenas of their own.
    """

    def __init__(self, library: Library) -> None:
        pointer = ctypes.c_void_p
        self.library = library
        self.run = library.function("run", None, pointer, pointer, pointer)
        self.arena_bytes = library.function("arena_bytes", ctypes.c_int64, pointer)


def load_program(text: str, spec: ProgramSpec, target: Target, imports: Mapping[str, int]) -> Loaded:
    """The program of `spec`, whose kernels `text` defines, compiled and loaded.

    Args:
        imports: addresses of tc_run and of whatever else the kernels call.

    Raises: CodeError if LLVM refuses the text.
    """
    image = compile_text(text + emit_program(spec), target).image
    return load_image(image, imports)


def load_image(image: bytes, imports: Mapping[str, int], exports: Sequence[str] = ()) -> Loaded:
    """The program whose object image is `image`.

    Args:
        exports: what else the image defines that will be asked for.

    Raises: InternalError if the image is damaged.
    """
    return Loaded(load(image, (*EXPORTS, *exports), imports))


def emit_program(spec: ProgramSpec, watch: Watch | None = None) -> str:
    """The LLVM IR of `run` and `arena_bytes`, to stand in one module with the kernels.

    Args:
        watch: what watches its steps; None for a program as it is run.
    """
    return "\n".join([
        launch.PLAN,
        "declare void @tc_run(ptr, ptr, ptr, ptr)",
        "",
        *_function("run", spec, watch, ""),
        *_arena_bytes(spec),
        *(watch.definitions() if watch else ()),
        "",
    ])


def _function(name: str, spec: ProgramSpec, watch: Watch | None, linkage: str = "internal ") -> Iterator[str]:
    """The function `name(externals, sizes, arena)` that carries out a program, and all that it calls."""
    for i, step in enumerate(spec.steps):
        inner = f"{name}_step{i}"
        if isinstance(step, Loop) and step.batch is not None and not watch:
            kernel = f"{inner}_rows"
            inside = [each for launches in _launches(step.body) for each in launches]
            yield from emit_row_loop(kernel, step.spec, inside, step.batch, spec.sizes)
            whole = Launch(kernel, row_buffers(step.spec), tuple(map(symbol, spec.sizes)), step.source, chunks=1)
            yield from _function(inner, replace(spec, steps=((whole,),), gate=None, keep=None, changed=()), None)
        elif isinstance(step, Loop):
            yield from _function(f"{inner}_body", step.body, watch)
            yield from emit_loop(inner, step.spec, f"{inner}_body", step.batch, spec.sizes)
        elif isinstance(step, Choice):
            bodies = [f"{inner}_branch{k}" for k in (0, 1)]
            for body, branch in zip(bodies, step.bodies, strict=True):
                yield from _function(body, branch, watch)
            yield from emit_choice(inner, step.spec, bodies, spec.sizes)
    yield from _plan(name, spec, watch)
    yield ""
    yield from _measure(name, _kernels(spec))
    yield ""
    yield from _run(name, spec, watch, linkage)
    yield ""


def _launches(spec: ProgramSpec) -> list[Step]:
    """The steps that are launches."""
    return [step for step in spec.steps if isinstance(step, tuple)]


def _segments(spec: ProgramSpec, watch: Watch | None) -> list[tuple[int, int, int]]:
    """What runs in one go: the first step, the number of its first launch, and how many launches there are.

    A loop and a choice stand alone, as no launches; so does each step that is watched.  Nothing runs across the gate,
    or beyond what may be left out.
    """
    bounds = {spec.gate.steps} if spec.gate is not None else set()
    if spec.keep is not None:
        bounds.add(spec.keep.steps)
    found: list[tuple[int, int, int]] = []
    number = 0
    for i, step in enumerate(spec.steps):
        if not isinstance(step, tuple):
            found.append((i, number, 0))
            continue
        if not step:
            continue
        if watch or not found or not found[-1][2] or i in bounds:
            found.append((i, number, 0))
        first, launch_number, count = found[-1]
        found[-1] = first, launch_number, count + len(step)
        number += len(step)
    return found


def _values(spec: ProgramSpec) -> dict[Size, int]:
    """Every size and offset that launches use, with its index in the table of values."""
    used = [
        size
        for step in _launches(spec)
        for each in step
        for size in (*each.sizes, *(place.offset for place in each.places if isinstance(place, Arena)))
    ]
    return {size: index for index, size in enumerate(dict.fromkeys(used))}


def _kernels(spec: ProgramSpec) -> dict[str, int]:
    """Every kernel, with its number."""
    used = dict.fromkeys(each.kernel for step in _launches(spec) for each in step)
    return {kernel: number for number, kernel in enumerate(used)}


def _plan(name: str, spec: ProgramSpec, watch: Watch | None) -> Iterator[str]:
    """The launches and their words as constants, and a plan of each segment."""
    values = _values(spec)
    kernels = _kernels(spec)
    steps = _launches(spec)
    launches: list[str] = []
    words: list[int] = []

    for step in steps:
        functions = watch.functions(step) if watch else [each.kernel for each in step]
        chunks = min((each.chunks or launch.CHUNKS_PER_THREAD for each in step), default=0)
        for position, (each, function) in enumerate(zip(step, functions, strict=True)):
            launches.append(_launch(name, each, function, kernels[each.kernel], len(words),
                                    0 if position else len(step), chunks))
            words += [_word(place, values) for place in each.places]
            words += [values[size] for size in each.sizes]

    most_parts = max((len(step) for step in steps), default=0)
    most_words = max((sum(map(_words, step)) for step in steps), default=0)

    yield _constant(f"{name}_words", "i32", [f"i32 {word}" for word in words])
    yield _constant(f"{name}_launches", "%Launch", launches)
    for i, (_, start, count) in enumerate(_segments(spec, watch)):
        if count:
            at = f"ptr getelementptr (%Launch, ptr @{name}_launches, i64 {start})"
            fields = f"{at}, i64 {count}, ptr @{name}_measure, i64 {most_parts}, i64 {most_words}"
            yield f"@{name}_plan{i} = internal constant %Plan {{ {fields} }}"


def _launch(name: str, each: Launch, function: str, kernel: int, first_word: int, launches_of_step: int,
            chunks: int) -> str:
    words = f"ptr getelementptr (i32, ptr @{name}_words, i64 {first_word})"
    numbers = f"i32 {kernel}, i32 {len(each.places)}, i32 {len(each.sizes)}, i32 {launches_of_step}, i64 {chunks}"
    return f"%Launch {{ ptr @{function}, {words}, {numbers} }}"


def _measure(name: str, kernels: Mapping[str, int]) -> Iterator[str]:
    """A function that tells units and work of kernel number `kernel`."""
    cases = " ".join(f"i32 {number}, label %kernel{number}" for number in kernels.values())
    yield f"define internal {{ i64, i64 }} @{name}_measure(i32 %kernel, ptr %sizes) {{"
    yield f"  switch i32 %kernel, label %unknown [ {cases} ]"

    for kernel, number in kernels.items():
        yield f"kernel{number}:"
        yield f"  %units{number} = call i64 @{kernel}_units(ptr %sizes)"
        yield f"  %work{number} = call i64 @{kernel}_work(ptr %sizes)"
        yield f"  %half{number} = insertvalue {{ i64, i64 }} poison, i64 %units{number}, 0"
        yield f"  %both{number} = insertvalue {{ i64, i64 }} %half{number}, i64 %work{number}, 1"
        yield f"  ret {{ i64, i64 }} %both{number}"

    yield "unknown:"
    yield "  unreachable"
    yield "}"


def _word(place: Place, values: Mapping[Size, int]) -> int:
    match place:
        case External(index):
            return index
        case Arena(offset):
            return -1 - values[offset]


def _words(each: Launch) -> int:
    return len(each.places) + len(each.sizes)


def _constant(name: str, kind: str, items: list[str]) -> str:
    body = ",\n  ".join(items)
    return f"@{name} = internal constant [{len(items)} x {kind}] [\n  {body}\n]"


def _run(name: str, spec: ProgramSpec, watch: Watch | None, linkage: str) -> Iterator[str]:
    """Computes the table of values and goes through the segments."""
    values = _values(spec)
    yield f"define {linkage}void @{name}(ptr %externals, ptr %sizes, ptr %arena) {{"
    yield f"  %values = alloca [{len(values)} x i64], align 8"

    lines: list[str] = []
    symbols = load_sizes(spec.sizes, lines)
    if spec.keep is not None:
        symbols[spec.keep.age] = _age(spec.keep, lines)
    arithmetic = SizeArithmetic(lines.append, symbols)
    for size, index in values.items():
        value = arithmetic.value(size)
        lines.append(f"  %value{index} = getelementptr i64, ptr %values, i64 {index}")
        lines.append(f"  store i64 {value}, ptr %value{index}, align 8")

    yield from lines
    inside = _steps(name, spec, watch)
    yield from watch.around(spec, None, inside) if watch else inside
    yield "  ret void"
    yield "}"


def _steps(name: str, spec: ProgramSpec, watch: Watch | None) -> Iterator[str]:
    """Calls of the segments, in order."""
    waiting = spec.gate
    seldom = spec.keep.steps if spec.keep is not None else 0
    if seldom:
        yield "  br i1 %kept.same, label %kept.used, label %kept.made"
        yield "kept.made:"
    for i, (step, _, count) in enumerate(_segments(spec, watch)):
        if seldom and step >= seldom:
            yield from ("  br label %kept.used", "kept.used:")
            seldom = 0
        if waiting is not None and step >= waiting.steps:
            yield from _gate(waiting)
            waiting = None
        if count:
            call = f"  call void @tc_run(ptr @{name}_plan{i}, ptr %externals, ptr %values, ptr %arena)"
        else:
            call = f"  call void @{name}_step{step}(ptr %externals, ptr %sizes, ptr %arena)"
        yield from watch.around(spec, spec.steps[step], [call]) if watch else [call]
    yield from _settle(spec)
    if spec.gate is not None:
        yield "  br label %closed"
        yield "closed:"


def _external(index: int, name: str) -> Iterator[str]:
    """Reads the address of an external buffer into %name."""
    yield f"  %{name}.place = getelementptr ptr, ptr %externals, i64 {index}"
    yield f"  %{name} = load ptr, ptr %{name}.place, align 8"


def _age(keep: Keep, lines: list[str]) -> str:
    """Computes %kept.sum, whether it is what it was, and the age, whose name is returned."""
    lines += _external(keep.state, "kept.state")
    total = "0"
    for i, external in enumerate(keep.watched):
        lines += _external(external, f"kept.changes{i}")
        lines.append(f"  %kept.number{i} = load i64, ptr %kept.changes{i}, align 8")
        lines.append(f"  %kept.sum{i} = add i64 {total}, %kept.number{i}")
        total = f"%kept.sum{i}"
    lines += [
        f"  %kept.sum = add i64 {total}, 0",
        "  %kept.before = load i64, ptr %kept.state, align 8",
        "  %kept.same = icmp eq i64 %kept.sum, %kept.before",
        "  %kept.age_place = getelementptr i64, ptr %kept.state, i64 1",
        "  %kept.age_before = load i64, ptr %kept.age_place, align 8",
        "  %kept.older = add i64 %kept.age_before, 1",
        "  %kept.age = select i1 %kept.same, i64 %kept.older, i64 0",
    ]
    return "%kept.age"


def _settle(spec: ProgramSpec) -> Iterator[str]:
    """Once all has been done: remembers what is kept, and counts the changes of variables."""
    if spec.keep is not None:
        yield "  store i64 %kept.sum, ptr %kept.state, align 8"
        yield "  store i64 %kept.age, ptr %kept.age_place, align 8"
    for i, external in enumerate(spec.changed):
        yield from _external(external, f"changed{i}")
        yield f"  %changed{i}.before = load i64, ptr %changed{i}, align 8"
        yield f"  %changed{i}.now = add i64 %changed{i}.before, 1"
        yield f"  store i64 %changed{i}.now, ptr %changed{i}, align 8"


def _gate(gate: Gate) -> Iterator[str]:
    """Goes to the end if a buffer holds another value."""
    for external in gate.externals:
        yield from _external(external, f"gate{external}")
        yield f"  %gate{external}.found = load i64, ptr %gate{external}, align 8"
        yield f"  %gate{external}.open = icmp eq i64 %gate{external}.found, {gate.value}"
        yield f"  br i1 %gate{external}.open, label %open{external}, label %closed"
        yield f"open{external}:"


def _arena_bytes(spec: ProgramSpec) -> Iterator[str]:
    yield "define i64 @arena_bytes(ptr %sizes) {"

    lines: list[str] = []
    arithmetic = SizeArithmetic(lines.append, load_sizes(spec.sizes, lines))
    most = "0"
    for i, scratch in enumerate(dict.fromkeys(spec.scratch)):
        lines.append(f"  %most{i} = call i64 @llvm.smax.i64(i64 {most}, i64 {arithmetic.value(scratch)})")
        most = f"%most{i}"
    lines.append(f"  %total = add i64 {arithmetic.value(spec.arena)}, {most}")

    yield from lines
    yield "  ret i64 %total"
    yield "}"
