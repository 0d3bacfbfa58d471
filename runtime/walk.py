"""A program followed step by step: launches, loops and choices, on a machine that runs kernels when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from tensorc.codegen.places import External, Part, Within
from tensorc.codegen.spec import (
    Ahead,
    Before,
    Choice,
    Copy,
    Fixed,
    Launch,
    Loop,
    LoopSpec,
    ProgramSpec,
    Row,
    Slot,
    Turns,
    parts_of,
)
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.kernels import ROWS


class Machine(Protocol):
    """What runs kernels.  Memory is named by its address there."""

    def launch(self, kernel: str, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        """Runs a kernel over buffers at addresses, with its sizes, both in the kernel's order."""

    def copy(self, destination: int, source: int, count: int) -> None:
        """Copies bytes."""

    def read(self, address: int, count: int) -> bytes:
        """Bytes as they are once all that was launched before is done."""


@dataclass(frozen=True)
class Moment:
    """Where a program's memory is while it runs.

    Attributes:
        externals: the address of each of its buffers that come from outside.
        sizes: a number for each of its symbols.
        arena: the address of its arena.
    """

    externals: Sequence[int]
    sizes: Mapping[str, int]
    arena: int


What = Launch | Loop | Choice | None
"""What a program does: with none of these, all of it."""


class Watcher(Protocol):
    """What is told of all that a program does, and that the programs in it do."""

    def before(self, program: ProgramSpec, what: What, moment: Moment) -> None: ...

    def after(self, program: ProgramSpec, what: What, moment: Moment) -> None: ...


def walk(spec: ProgramSpec, machine: Machine, externals: Sequence[int], sizes: Mapping[str, int], arena: int,
         watcher: Watcher | None = None) -> None:
    """Runs a program.

    Args:
        externals: the address of each.
        sizes: a number for each of its symbols.
        arena: the address of as many bytes as the arena and the largest scratch take.
    """
    _Walk(machine, sizes, watcher).program(spec, externals, arena)


class _Walk:
    """One run."""

    def __init__(self, machine: Machine, sizes: Mapping[str, int], watcher: Watcher | None) -> None:
        self.machine = machine
        self.sizes = sizes
        self.watcher = watcher

    def number(self, size: Size) -> int:
        return dims.evaluate(size, self.sizes)

    def program(self, spec: ProgramSpec, externals: Sequence[int], arena: int) -> None:
        with self.watched(spec, None, externals, arena):
            self.steps(spec, externals, arena)

    @contextmanager
    def watched(self, program: ProgramSpec, what: What, externals: Sequence[int], arena: int) -> Iterator[None]:
        if self.watcher is None:
            yield
            return
        moment = Moment(externals, self.sizes, arena)
        self.watcher.before(program, what, moment)
        yield
        self.watcher.after(program, what, moment)

    def steps(self, spec: ProgramSpec, externals: Sequence[int], arena: int) -> None:
        def at(place: Part) -> int:
            if isinstance(place, Within):
                place = place.base
            return externals[place.index] if isinstance(place, External) else arena + self.number(place.offset)

        for number, step in enumerate(spec.steps):
            if spec.gate is not None and number == spec.gate.steps and not self.is_open(spec, externals):
                return
            for each in step if isinstance(step, tuple) else (step,):
                with self.watched(spec, each, externals, arena):
                    self.run(each, at, arena)

    def run(self, what: Launch | Loop | Choice, at: Callable[[Part], int], arena: int) -> None:
        match what:
            case Loop(loop, body):
                for_all = self if what.batch is None else self.with_rows(what.batch.rows)
                for_all.loop(loop, body, {p: at(p) for p in _places(loop)}, arena)
            case Choice(choice, bodies):
                which = 0 if self.machine.read(at(choice.test), 1) != b"\0" else 1
                own = arena + self.number(choice.arenas[which])
                self.program(bodies[which], list(map(at, choice.slots[which])), own)
                for copy in choice.copies[which]:
                    assert not isinstance(copy.source, Before)
                    self.machine.copy(at(copy.destination), at(copy.source), self.number(copy.count))
            case Launch():
                self.launch(what, list(map(at, what.places)))

    def with_rows(self, rows: Size) -> _Walk:
        """The same for the body of a loop over all rows of a batch."""
        return _Walk(self.machine, {**self.sizes, ROWS: self.number(rows)}, self.watcher)

    def launch(self, launch: Launch, addresses: Sequence[int]) -> None:
        self.machine.launch(launch.kernel, addresses, list(map(self.number, launch.sizes)))

    def is_open(self, spec: ProgramSpec, externals: Sequence[int]) -> bool:
        """Whether no check has found anything."""
        assert spec.gate is not None
        value = spec.gate.value
        return all(int.from_bytes(self.machine.read(externals[i], 8), "little", signed=True) == value
                   for i in spec.gate.externals)

    def loop(self, spec: LoopSpec, body: ProgramSpec, where: Mapping[Part, int], arena: int) -> None:
        length = self.number(spec.length)
        for begin in spec.begins if length else ():
            first = self.slot(begin.rows, where, length - 1 if spec.reverse else 0, 0, spec.reverse, 0)
            self.machine.copy(first, where[begin.initial], self.number(begin.count))
        for step in range(length):
            at = length - 1 - step if spec.reverse else step
            externals = [self.slot(slot, where, at, step, spec.reverse, length - 1 - step)
                         for slot in spec.slots]
            self.program(body, externals, arena + self.number(spec.arena))
        for copy in spec.copies:
            self.leave(copy, where, length, spec.reverse)

    def slot(self, slot: Slot, where: Mapping[Part, int], at: int, step: int, reverse: bool, left: int) -> int:
        """The address of a slot in a step, after which `left` others come."""
        match slot:
            case Fixed(place):
                return where[place]
            case Row(place, stride):
                return where[place] + at * self.number(stride)
            case Turns(final, second):
                return where[second if left % 2 else final]
            case Ahead(rows, final):
                behind = at + (-1 if reverse else 1)
                return self.slot(rows, where, behind, step, reverse, left) if left else where[final]
            case Before(initial, place):
                if step == 0:
                    return where[initial]
                before = at + (1 if reverse else -1)
                return self.slot(place, where, before, step - 1, reverse, left + 1)

    def leave(self, copy: Copy, where: Mapping[Part, int], length: int, reverse: bool) -> None:
        """Moves what is left to be moved after the last step."""
        source = copy.source
        if not isinstance(source, Before):
            address = where[source]
        elif length == 0:
            address = where[source.initial]
        elif isinstance(source.left, Row):
            address = self.slot(source.left, where, 0 if reverse else length - 1, length - 1, reverse, 0)
        else:
            address = where[source.left.final]
        if address != where[copy.destination]:
            self.machine.copy(where[copy.destination], address, self.number(copy.count))


def _places(spec: LoopSpec) -> list[Part]:
    """Every place that a loop speaks of."""
    found = [part for slot in spec.slots for part in parts_of(slot)]
    for copy in spec.copies:
        found.append(copy.destination)
        found.extend(parts_of(copy.source) if isinstance(copy.source, Before) else [copy.source])
    return found
