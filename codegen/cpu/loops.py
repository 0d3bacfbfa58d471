"""Loops and choices of a program in LLVM IR: functions that call the programs of their bodies.

A body is a program with a table of externals of its own.  A loop fills that table anew for each step: what comes row by
row moves on by a row, a state is read where the step before has left it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tensorc.codegen.cpu.places import Arena, External, Place
from tensorc.codegen.cpu.sizes import SizeArithmetic
from tensorc.ir.dims import Size


@dataclass(frozen=True)
class Fixed:
    """The same memory in every step."""

    place: Place


@dataclass(frozen=True)
class Row:
    """A row of some memory, `stride` bytes from the one before."""

    place: Place
    stride: Size


@dataclass(frozen=True)
class Turns:
    """Two places that steps write to by turns, so that the last step writes to `final`."""

    final: Place
    other: Place


@dataclass(frozen=True)
class Before:
    """A state as a step finds it: `initial` in the first step, later where the step before has left it."""

    initial: Place
    left: Row | Turns


Slot = Fixed | Row | Turns | Before


@dataclass(frozen=True)
class Copy:
    """`count` bytes to be moved when all steps are done.

    Of a state, its last value where that was left elsewhere, and its first one where there was no step.
    """

    destination: Place
    source: Before | Place
    count: Size


@dataclass(frozen=True)
class LoopSpec:
    """How a loop runs its body.

    Attributes:
        slots: for each external of the body, where it is.
        arena: where the body's arena begins, in bytes from that of the program around.
        copies: what is left to do after the last step.
    """

    length: Size
    reverse: bool
    slots: tuple[Slot, ...]
    arena: Size
    copies: tuple[Copy, ...]


@dataclass(frozen=True)
class ChoiceSpec:
    """Which body a choice runs: the first where the bool at `test` is true.

    For each, its externals, its arena, and what is left to be copied.
    """

    test: Place
    slots: tuple[tuple[Place, ...], tuple[Place, ...]]
    arenas: tuple[Size, Size]
    copies: tuple[tuple[Copy, ...], tuple[Copy, ...]]


def emit_loop(name: str, spec: LoopSpec, body: str, symbols: Sequence[str]) -> Iterator[str]:
    """The function `name(externals, sizes, arena)` that calls the function `body` in each step."""
    writer = _Writer(symbols)
    for slot in spec.slots:
        writer.pointers(slot)
    for copy in spec.copies:
        writer.copy(copy)
    length = writer.sizes.value(spec.length)
    strides = {row: writer.sizes.value(row.stride) for slot in spec.slots if (row := _row(slot)) is not None}
    counts = [writer.sizes.value(copy.count) for copy in spec.copies]
    arena = writer.arena(spec.arena)

    yield f"define internal void @{name}(ptr %externals, ptr %sizes, ptr %arena) {{"
    yield "entry:"
    yield f"  %table = alloca [{max(1, len(spec.slots))} x ptr], align 8"
    yield from writer.lines
    yield f"  %last = add i64 {length}, -1"
    yield f"  %some = icmp sgt i64 {length}, 0"
    yield "  br i1 %some, label %step, label %none"
    yield "step:"
    yield "  %t = phi i64 [ 0, %entry ], [ %next, %step ]"
    yield "  %left = sub i64 %last, %t"
    yield "  %is_first = icmp eq i64 %t, 0"
    yield "  %other_turn = trunc i64 %left to i1"
    at, back = ("%left", 1) if spec.reverse else ("%t", -1)
    yield f"  %before = add i64 {at}, {back}"
    for i, slot in enumerate(spec.slots):
        yield from _slot(i, slot, at, writer, strides)
    yield f"  call void @{body}(ptr %table, ptr %sizes, ptr {arena})"
    yield "  %next = add i64 %t, 1"
    yield f"  %more = icmp slt i64 %next, {length}"
    yield "  br i1 %more, label %step, label %done"
    yield "done:"
    for i, (copy, count) in enumerate(zip(spec.copies, counts, strict=True)):
        match copy.source:
            case Before(_, Row() as left):
                place = "0" if spec.reverse else "%last"
                yield f"  %done{i}_offset = mul i64 {place}, {strides[left]}"
                yield f"  %done{i} = getelementptr i8, ptr {writer.pointer(left.place)}, i64 %done{i}_offset"
                yield _copied(writer.pointer(copy.destination), f"%done{i}", count)
            case Before(_, Turns(final)) if final != copy.destination:
                yield _copied(writer.pointer(copy.destination), writer.pointer(final), count)
            case External() | Arena() as source:
                yield _copied(writer.pointer(copy.destination), writer.pointer(source), count)
    yield "  ret void"
    yield "none:"
    for copy, count in zip(spec.copies, counts, strict=True):
        if isinstance(copy.source, Before):
            yield _copied(writer.pointer(copy.destination), writer.pointer(copy.source.initial), count)
    yield "  ret void"
    yield "}"


def emit_choice(name: str, spec: ChoiceSpec, bodies: Sequence[str], symbols: Sequence[str]) -> Iterator[str]:
    """The function `name(externals, sizes, arena)` that calls one of two functions."""
    writer = _Writer(symbols)
    for place in (spec.test, *spec.slots[0], *spec.slots[1]):
        writer.pointer(place)
    for copy in (*spec.copies[0], *spec.copies[1]):
        writer.copy(copy)
    counts = {copy: writer.sizes.value(copy.count) for copy in (*spec.copies[0], *spec.copies[1])}
    arenas = [writer.arena(offset) for offset in spec.arenas]

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


class _Writer:
    """The first block of a function: sizes and the pointers of places, each computed once."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.lines: list[str] = []
        self.sizes = SizeArithmetic(self.lines.append, load_sizes(symbols, self.lines))
        self._known: dict[Place, str] = {}

    def pointers(self, *slots: Slot) -> None:
        """Makes the pointers that some slots are made of."""
        for slot in slots:
            match slot:
                case Fixed(place) | Row(place, _):
                    self.pointer(place)
                case Turns(final, other):
                    self.pointer(final)
                    self.pointer(other)
                case Before(initial, left):
                    self.pointer(initial)
                    self.pointers(left)

    def copy(self, copy: Copy) -> None:
        """Makes the pointers of both ends."""
        self.pointer(copy.destination)
        if isinstance(copy.source, Before):
            self.pointers(copy.source)
        else:
            self.pointer(copy.source)

    def pointer(self, place: Place) -> str:
        """The pointer to the beginning of a place."""
        if place not in self._known:
            name = f"%place{len(self._known)}"
            if isinstance(place, External):
                self.lines.append(f"  {name}.entry = getelementptr ptr, ptr %externals, i64 {place.index}")
                self.lines.append(f"  {name} = load ptr, ptr {name}.entry, align 8")
            else:
                self.lines.append(f"  {name} = getelementptr i8, ptr %arena, i64 {self.sizes.value(place.offset)}")
            self._known[place] = name
        return self._known[place]

    def arena(self, offset: Size) -> str:
        """The pointer to `offset` bytes within the arena."""
        return self.pointer(Arena(offset))


def _row(slot: Slot) -> Row | None:
    """The rows that a slot moves along."""
    if isinstance(slot, Before):
        slot = slot.left
    return slot if isinstance(slot, Row) else None


def _slot(i: int, slot: Slot, at: str, writer: _Writer, strides: Mapping[Row, str]) -> Iterator[str]:
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
        case Before(initial, left):
            if isinstance(left, Row):
                yield from row(left, "%before", f"{name}.left")
            else:
                yield turn(left, f"{name}.left", flipped=True)
            yield f"  {name} = select i1 %is_first, ptr {writer.pointer(initial)}, ptr {name}.left"
    yield f"  %slot{i}.entry = getelementptr ptr, ptr %table, i64 {i}"
    yield f"  store ptr {name}, ptr %slot{i}.entry, align 8"


def _copied(destination: str, source: str, count: str) -> str:
    return f"  call void @llvm.memcpy.p0.p0.i64(ptr {destination}, ptr {source}, i64 {count}, i1 false)"
