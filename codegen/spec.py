"""What a program does, on any machine: launches in their order, loops and choices, and where their buffers lie.

A loop's body and a branch are programs with a table of externals of their own.  A loop fills that table anew for each
step: what comes row by row moves on by a row, a state is read where the step before has left it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensorc.codegen.places import External, Part, Place
from tensorc.ir.dims import Size


@dataclass(frozen=True)
class Fixed:
    """The same memory in every step."""

    place: Part


@dataclass(frozen=True)
class Row:
    """A row of some memory, `stride` bytes from the one before."""

    place: Part
    stride: Size


@dataclass(frozen=True)
class Turns:
    """Two places that steps write to by turns, so that the last step writes to `final`."""

    final: Part
    other: Part


@dataclass(frozen=True)
class Ahead:
    """Rows of which each step writes to that of the next one, and the last step to `final`."""

    rows: Row
    final: Part


@dataclass(frozen=True)
class Before:
    """A state as a step finds it: `initial` in the first step, later where the step before has left it."""

    initial: Part
    left: Row | Turns | Ahead


Slot = Fixed | Row | Turns | Ahead | Before


@dataclass(frozen=True)
class Copy:
    """`count` bytes to be moved when all steps are done.

    Of a state, its last value where that was left elsewhere, and its first one where there was no step.
    """

    destination: Part
    source: Before | Part
    count: Size


@dataclass(frozen=True)
class Begin:
    """`count` bytes that are to be in the row of the first step."""

    rows: Row
    initial: Part
    count: Size


@dataclass(frozen=True)
class LoopSpec:
    """How a loop runs its body.

    Attributes:
        slots: for each external of the body, where it is.
        arena: where the body's arena begins, in bytes from that of the program around.
        copies: what is left to do after the last step.
        begins: what is done before the first, where there is one.
    """

    length: Size
    reverse: bool
    slots: tuple[Slot, ...]
    arena: Size
    copies: tuple[Copy, ...]
    begins: tuple[Begin, ...] = ()


@dataclass(frozen=True)
class ChoiceSpec:
    """Which body a choice runs: the first where the bool at `test` is true.

    For each, its externals, its arena, and what is left to be copied.
    """

    test: Place
    slots: tuple[tuple[Place, ...], tuple[Place, ...]]
    arenas: tuple[Size, Size]
    copies: tuple[tuple[Copy, ...], tuple[Copy, ...]]


@dataclass(frozen=True)
class Batch:
    """The rows that threads may share in a loop, whose body is a program for ROWS of them.

    Attributes:
        rows: how many there are.
        memory: bytes of the body's arena, for ROWS rows.
    """

    rows: Size
    memory: Size


@dataclass(frozen=True)
class Launch:
    """One run of a kernel: where its buffers lie and what its own sizes are, both in the kernel's order.

    `source` is the kernel of the loop IR that it runs, alone or as one of its phases; equal kernels share code.  Its
    units are cut into `chunks` for each thread of a processor, at most, or as many as is usual.
    """

    kernel: str
    places: tuple[Place, ...]
    sizes: tuple[Size, ...]
    source: str = ""
    chunks: int | None = None


Step = tuple[Launch, ...]
"""Launches that do not depend on each other and run side by side."""


@dataclass(frozen=True)
class Loop:
    """A program that runs once for each step of a loop.

    `source` is the group of the plan that it is.  With a `batch`, threads share the rows of that; only where steps are
    watched, each of them is for all rows.
    """

    spec: LoopSpec
    body: ProgramSpec
    source: str = ""
    batch: Batch | None = None


@dataclass(frozen=True)
class Choice:
    """Two programs, of which one runs.  `source` is the group of the plan that it is."""

    spec: ChoiceSpec
    bodies: tuple[ProgramSpec, ProgramSpec]
    source: str = ""


@dataclass(frozen=True)
class Gate:
    """After `steps` steps the others run only if the first int64 of each of these external buffers is `value`."""

    steps: int
    externals: tuple[int, ...]
    value: int


@dataclass(frozen=True)
class Keep:
    """What lets a program leave out what it has computed before.

    The sum of the watched numbers of changes tells whether anything has changed since the last call that came to its
    end: numbers of changes only grow.  The first steps run where it has.

    Attributes:
        steps: how many steps run only then.
        state: the external buffer that holds two int64: this sum, which is -1 before the first call, and the age.
        kept: bytes of this and of the external buffers that follow it, which are the same in every call.
        watched: external buffers with numbers of changes.
        age: the symbol for how many calls before this one have found the same sum.
    """

    steps: int
    state: int
    kept: tuple[int, ...]
    watched: tuple[int, ...]
    age: str


@dataclass(frozen=True)
class Packed:
    """Panels of an operand that lasts from one run of a program to the next: made before the first, read in each.

    Attributes:
        launch: makes them; the panels, of `bytes` bytes, are its last buffer, which is missing here.
        source: the only other buffer that it looks at.
    """

    launch: Launch
    source: External
    bytes: Size


@dataclass(frozen=True)
class ProgramSpec:
    """What a program does.

    Attributes:
        name: for people; the code does not hold it.
        sizes: the symbols that the sizes of launches, offsets and arena are made of.
        externals: how many buffers the caller supplies.
        steps: run in order.
        arena: bytes of memory that steps share, aligned to 64.
        gate: what the later steps depend on.
        scratch: bytes behind the arena that one step or another needs for itself.
        keep: what the first steps depend on.
        changed: the external buffers that hold the numbers of changes of those variables that the program changes.
        counted: the parameters whose numbers of changes are the last external buffers.
        packed: panels that the caller makes ahead; each is one more external.
    """

    name: str
    sizes: tuple[str, ...]
    externals: int
    steps: tuple[Step | Loop | Choice, ...]
    arena: Size
    gate: Gate | None = None
    scratch: tuple[Size, ...] = ()
    keep: Keep | None = None
    changed: tuple[int, ...] = ()
    counted: tuple[int, ...] = ()
    packed: tuple[Packed, ...] = ()


@dataclass(frozen=True, eq=False)
class Site:
    """What is watched: a step of a program, or with no step a whole run of it.

    Attributes:
        parts: the numbers of its launches among those that are timed one by one; none of a single launch.
    """

    program: ProgramSpec
    step: Step | Loop | Choice | None
    parts: range = range(0)


def parts_of(slot: Slot) -> Iterator[Part]:
    """The memory that a slot moves about in."""
    match slot:
        case Fixed(place) | Row(place, _):
            yield place
        case Turns(final, other):
            yield from (final, other)
        case Ahead(rows, final):
            yield from (rows.place, final)
        case Before(initial, left):
            yield initial
            yield from parts_of(left)
