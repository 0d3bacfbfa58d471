"""Loops and choices of a program in LLVM IR: functions that call the programs of their bodies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tensorc.codegen.cpu.sizes import SizeArithmetic
from tensorc.codegen.places import Arena, External, Part, Place, Within
from tensorc.codegen.spec import Ahead, Batch, Before, ChoiceSpec, Copy, Fixed, LoopSpec, Row, Slot, Turns, parts_of
from tensorc.ir.kernels import ROWS


def emit_loop(name: str, spec: LoopSpec, body: str, batch: Batch | None, symbols: Sequence[str]) -> Iterator[str]:
    """The function `name(externals, sizes, arena)` that calls the function `body` in each step, for all rows."""
    writer = Writer(symbols)
    sizes = "%sizes"
    if batch is not None:
        writer.known[ROWS] = writer.sizes.value(batch.rows)
        sizes = "%body_sizes"
        writer.table(sizes, "i64", list(writer.known.values()))
    yield f"define internal void @{name}(ptr %externals, ptr %sizes, ptr %arena) {{"
    yield "entry:"
    yield from steps(spec, body, writer, sizes, writer.pointer(Arena(spec.arena)))
    yield "}"


def steps(spec: LoopSpec, body: str, writer: Writer, sizes: str, arena: str) -> Iterator[str]:
    """The blocks of a function that calls `body` in each step and returns, from within the first one.

    Args:
        writer: has written what is known before; its lines go ahead.
        sizes, arena: pointers to the body's.
    """
    for slot in spec.slots:
        writer.pointers(slot)
    for copy in spec.copies:
        writer.copy(copy)
    length = writer.sizes.value(spec.length)
    strides = {row: writer.sizes.value(row.stride) for slot in spec.slots if (row := _row(slot)) is not None}
    counts = [writer.sizes.value(copy.count) for copy in spec.copies]
    begins = [(begin, writer.pointer(begin.initial), writer.sizes.value(begin.count)) for begin in spec.begins]

    yield f"  %table = alloca [{max(1, len(spec.slots))} x ptr], align 8"
    yield from writer.lines
    yield f"  %last_step = add i64 {length}, -1"
    yield f"  %some = icmp sgt i64 {length}, 0"
    yield "  br i1 %some, label %enter, label %none"
    yield "enter:"
    for i, (begin, initial, count) in enumerate(begins):
        place = "%last_step" if spec.reverse else "0"
        yield f"  %begin{i}.offset = mul i64 {place}, {strides[begin.rows]}"
        yield f"  %begin{i} = getelementptr i8, ptr {writer.pointer(begin.rows.place)}, i64 %begin{i}.offset"
        yield _copied(f"%begin{i}", initial, count)
    yield "  br label %step"
    yield "step:"
    yield "  %t = phi i64 [ 0, %enter ], [ %next, %step ]"
    yield "  %left = sub i64 %last_step, %t"
    yield "  %is_first = icmp eq i64 %t, 0"
    yield "  %other_turn = trunc i64 %left to i1"
    yield "  %is_last = icmp eq i64 %left, 0"
    at, back = ("%left", 1) if spec.reverse else ("%t", -1)
    yield f"  %before = add i64 {at}, {back}"
    yield f"  %behind = add i64 {at}, {-back}"
    for i, slot in enumerate(spec.slots):
        yield from _slot(i, slot, at, writer, strides)
    yield f"  call void @{body}(ptr %table, ptr {sizes}, ptr {arena})"
    yield "  %next = add i64 %t, 1"
    yield f"  %more = icmp slt i64 %next, {length}"
    yield "  br i1 %more, label %step, label %done"
    yield "done:"
    for i, (copy, count) in enumerate(zip(spec.copies, counts, strict=True)):
        match copy.source:
            case Before(_, Row() as left):
                place = "0" if spec.reverse else "%last_step"
                yield f"  %done{i}_offset = mul i64 {place}, {strides[left]}"
                yield f"  %done{i} = getelementptr i8, ptr {writer.pointer(left.place)}, i64 %done{i}_offset"
                yield _copied(writer.pointer(copy.destination), f"%done{i}", count)
            case Before(_, Turns(final) | Ahead(_, final)) if final != copy.destination:
                yield _copied(writer.pointer(copy.destination), writer.pointer(final), count)
            case External() | Arena() | Within() as source:
                yield _copied(writer.pointer(copy.destination), writer.pointer(source), count)
    yield "  ret void"
    yield "none:"
    for copy, count in zip(spec.copies, counts, strict=True):
        if isinstance(copy.source, Before):
            yield _copied(writer.pointer(copy.destination), writer.pointer(copy.source.initial), count)
    yield "  ret void"


def emit_choice(name: str, spec: ChoiceSpec, bodies: Sequence[str], symbols: Sequence[str]) -> Iterator[str]:
    """The function `name(externals, sizes, arena)` that calls one of two functions."""
    writer = Writer(symbols)
    for place in (spec.test, *spec.slots[0], *spec.slots[1]):
        writer.pointer(place)
    for copy in (*spec.copies[0], *spec.copies[1]):
        writer.copy(copy)
    counts = {copy: writer.sizes.value(copy.count) for copy in (*spec.copies[0], *spec.copies[1])}
    arenas = [writer.pointer(Arena(offset)) for offset in spec.arenas]

    yield f"define internal void @{name}(ptr %externals, ptr %sizes, ptr %arena) {{"
    yield "entry:"
    yield f"  %table = alloca [{max(1, *map(len, spec.slots))} x ptr], align 8"
    yield from writer.lines
    yield f"  %test = load i8, ptr {writer.pointer(spec.test)}, align 1"
    yield "  %holds = icmp ne i8 %test, 0"
    yield "  br i1 %holds, label %branch0, label %branch1"
    for branch, (body, places) in enumerate(zip(bodies, spec.slots, strict=True)):
        yield f"branch{branch}:"
        for i, place in enumerate(places):
            yield f"  %branch{branch}_slot{i} = getelementptr ptr, ptr %table, i64 {i}"
            yield f"  store ptr {writer.pointer(place)}, ptr %branch{branch}_slot{i}, align 8"
        yield f"  call void @{body}(ptr %table, ptr %sizes, ptr {arenas[branch]})"
        for copy in spec.copies[branch]:
            assert not isinstance(copy.source, Before)
            yield _copied(writer.pointer(copy.destination), writer.pointer(copy.source), counts[copy])
        yield "  ret void"
    yield "}"


def load_sizes(names: Sequence[str], lines: list[str]) -> dict[str, str]:
    """Reads the table of sizes; returns the value of each symbol."""
    for i in range(len(names)):
        lines.append(f"  %symbol{i}.place = getelementptr i64, ptr %sizes, i64 {i}")
        lines.append(f"  %symbol{i} = load i64, ptr %symbol{i}.place, align 8")
    return {name: f"%symbol{i}" for i, name in enumerate(names)}


class Writer:
    """The first block of a function: sizes and the pointers of places, each computed once.

    Args:
        symbols: what the table %sizes holds.
        buffers: the places whose pointers %externals holds; if there are none, it holds those of externals by their
            index, and %arena points to the arena.

    Attributes:
        lines: what has been written.
        sizes: computes sizes.
        known: the values of symbols, to which others may be added.
        first_row: the first row of a batch that the function is for.
    """

    def __init__(self, symbols: Sequence[str], buffers: Sequence[Place] = ()) -> None:
        self.lines: list[str] = []
        self.known = load_sizes(symbols, self.lines)
        self.sizes = SizeArithmetic(self.lines.append, self.known)
        self.first_row = "0"
        self._index = {place: i for i, place in enumerate(buffers)}
        self._pointers: dict[Part, str] = {}

    def table(self, name: str, kind: str, values: Sequence[str]) -> None:
        """An array of values on the stack."""
        self.lines.append(f"  {name} = alloca [{max(1, len(values))} x {kind}], align 8")
        for i, value in enumerate(values):
            self.lines.append(f"  {name}.{i} = getelementptr {kind}, ptr {name}, i64 {i}")
            self.lines.append(f"  store {kind} {value}, ptr {name}.{i}, align 8")

    def pointers(self, slot: Slot) -> None:
        """Makes the pointers that a slot is made of."""
        for part in parts_of(slot):
            self.pointer(part)

    def copy(self, copy: Copy) -> None:
        """Makes the pointers of both ends."""
        self.pointer(copy.destination)
        if isinstance(copy.source, Before):
            self.pointers(copy.source)
        else:
            self.pointer(copy.source)

    def pointer(self, part: Part) -> str:
        """The pointer to the beginning of a place, or of the rows of it that the function is for."""
        if part not in self._pointers:
            start = self.pointer(part.base) if isinstance(part, Within) else ""
            name = f"%place{len(self._pointers)}"
            match part:
                case Within(_, row):
                    self.lines.append(f"  {name}.row = mul i64 {self.first_row}, {self.sizes.value(row)}")
                    self.lines.append(f"  {name} = getelementptr i8, ptr {start}, i64 {name}.row")
                case Arena(offset) if not self._index:
                    self.lines.append(f"  {name} = getelementptr i8, ptr %arena, i64 {self.sizes.value(offset)}")
                case External(index) | Arena(index):
                    index = self._index[part] if self._index else index
                    self.lines.append(f"  {name}.entry = getelementptr ptr, ptr %externals, i64 {index}")
                    self.lines.append(f"  {name} = load ptr, ptr {name}.entry, align 8")
            self._pointers[part] = name
        return self._pointers[part]


def _row(slot: Slot) -> Row | None:
    """The rows that a slot moves along."""
    if isinstance(slot, Before):
        slot = slot.left
    if isinstance(slot, Ahead):
        return slot.rows
    return slot if isinstance(slot, Row) else None


def _slot(i: int, slot: Slot, at: str, writer: Writer, strides: Mapping[Row, str]) -> Iterator[str]:
    """Writes the pointer of one slot for this step into the table."""
    def row(place: Row, step: str, name: str) -> Iterator[str]:
        yield f"  {name}.offset = mul i64 {step}, {strides[place]}"
        yield f"  {name} = getelementptr i8, ptr {writer.pointer(place.place)}, i64 {name}.offset"

    def turn(places: Turns, name: str, flipped: bool) -> str:
        first, second = writer.pointer(places.other), writer.pointer(places.final)
        if flipped:
            first, second = second, first
        return f"  {name} = select i1 %other_turn, ptr {first}, ptr {second}"

    name = f"%slot{i}"
    match slot:
        case Fixed(place):
            name = writer.pointer(place)
        case Row():
            yield from row(slot, at, name)
        case Turns():
            yield turn(slot, name, flipped=False)
        case Ahead(rows, final):
            yield from row(rows, "%behind", f"{name}.next")
            yield f"  {name} = select i1 %is_last, ptr {writer.pointer(final)}, ptr {name}.next"
        case Before(initial, left):
            if isinstance(left, Row):
                yield from row(left, "%before", f"{name}.left")
            elif isinstance(left, Ahead):
                yield from row(left.rows, at, f"{name}.left")
            else:
                yield turn(left, f"{name}.left", flipped=True)
            yield f"  {name} = select i1 %is_first, ptr {writer.pointer(initial)}, ptr {name}.left"
    yield f"  %slot{i}.entry = getelementptr ptr, ptr %table, i64 {i}"
    yield f"  store ptr {name}, ptr %slot{i}.entry, align 8"


def _copied(destination: str, source: str, count: str) -> str:
    return f"  call void @llvm.memcpy.p0.p0.i64(ptr {destination}, ptr {source}, i64 {count}, i1 false)"
