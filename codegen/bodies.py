"""Where the buffers of a group's kernels lie, and of the programs that a loop or a choice runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tensorc.codegen.cpu.row_loops import row_arena
from tensorc.codegen.externals import Externals
from tensorc.codegen.lower import Scratch
from tensorc.codegen.places import Arena, Part, Within
from tensorc.codegen.places import Place as Memory
from tensorc.codegen.spec import (
    Ahead,
    Batch,
    Before,
    Begin,
    Choice,
    ChoiceSpec,
    Copy,
    Fixed,
    Launch,
    Loop,
    LoopSpec,
    ProgramSpec,
    Row,
    Slot,
    Step,
    Turns,
)
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import ROWS, Group, Place, memory_of
from tensorc.ir.node import Node
from tensorc.ops.scan import kept_before

MANY = 8
"""Sizes up to which a maximum of them is formed."""


class Places:
    """Where the buffers of one group lie; scratch memory follows the plan's arena."""

    def __init__(self, externals: Externals, start: Size) -> None:
        self.externals = externals
        self.constants = externals.constants
        self.start = start
        self.used: Size = 0
        self.scratch: dict[str, Memory] = {}

    def of(self, place: Place | Scratch) -> Memory:
        """A place of the plan, or the scratch memory of that name."""
        if isinstance(place, Scratch):
            if place.name not in self.scratch:
                self.scratch[place.name] = self.more(place.bytes)
            return self.scratch[place.name]
        return Arena(place.offset) if place.kind == "arena" else self.externals.of(place)

    def more(self, bytes: Size) -> Memory:
        """Fresh scratch memory."""
        return Arena(self.region(bytes))

    def region(self, bytes: Size) -> Size:
        """Where fresh scratch memory begins within the arena."""
        start = self.start + self.used
        self.used = self.used + dims.ceildiv(bytes, 64) * 64
        return start


def run_bodies(group: Group, programs: Sequence[ProgramSpec], places: Places) -> Iterator[Step | Loop | Choice]:
    """The steps of a program that are a loop, after what packs operands that last through it, or a choice."""
    if group.kind == "loop":
        (program,) = programs
        batch = None if group.batch is None else Batch(group.batch, memory_of_program(program))
        loop = _Loop(group, program, batch, places).spec()
        yield tuple(_packing(program, loop, batch))
        yield Loop(loop, program, group.name, batch)
        return
    node = group.outputs[0]
    operands, results = _operands(group, places), _results(group, places)
    first, second = programs
    branches = [[*operands[1:], *_constants(body, places), *_outputs(whole, body, results, places)]
                for whole, body in zip((node.then, node.otherwise), group.bodies, strict=True)]
    arenas = [places.region(memory_of_program(program)) for program in programs]
    copies = [tuple(_repeated(whole, results)) for whole in (node.then, node.otherwise)]
    spec = ChoiceSpec(operands[0], (tuple(branches[0]), tuple(branches[1])), (arenas[0], arenas[1]),
                      (copies[0], copies[1]))
    yield Choice(spec, (first, second), group.name)


def _packing(program: ProgramSpec, spec: LoopSpec, batch: Batch | None) -> Iterator[Launch]:
    """What makes the panels of a loop's body."""
    fixed = {i: _base(slot.place) for i, slot in enumerate(spec.slots) if isinstance(slot, Fixed)}
    for i, packed in enumerate(program.packed, len(spec.slots) - len(program.packed)):
        source = fixed[packed.source.index]
        sizes = tuple(_of_all(size, batch) for size in packed.launch.sizes)
        yield replace(packed.launch, places=(*(source for _ in packed.launch.places), fixed[i]), sizes=sizes)


def _operands(group: Group, places: Places) -> list[Memory]:
    read = {memory_of(n): places.of(place) for n, place in zip(group.inputs, group.reads, strict=True)}
    return [read[memory_of(a)] for a in group.outputs[0].args]


def _results(group: Group, places: Places) -> dict[int, Memory]:
    return {n.result: places.of(place) for n, place in zip(group.outputs, group.writes, strict=True)}


class _Loop:
    """Where a loop's body finds what it reads and puts what it makes.

    A state that is also kept of every step has no place of its own: it is read in the row of the step before, or, where
    it is kept as steps find it, each step writes its new value to the row of the next one.
    """

    def __init__(self, group: Group, program: ProgramSpec, batch: Batch | None, places: Places) -> None:
        self.node = group.outputs[0]
        self.body = group.bodies[0]
        self.batch = batch
        self.program, self.places = program, places
        self.operands, self.results = _operands(group, places), _results(group, places)
        whole: Graph = self.node.body
        self.ahead = kept_before(self.node)
        self.computed = tuple(dict.fromkeys(o for i, o in enumerate(whole.outputs) if i not in self.ahead))
        self.inner = dict(zip((*whole.params, *self.computed), (*self.body.params, *self.body.outputs), strict=True))

    def part(self, place: Memory, node: Node) -> Part:
        """The memory of a value, or what of it belongs to the rows that the body is run for."""
        inner = self.inner[node]
        if self.batch is None or inner.shape[:1] != (dims.symbol(ROWS),):
            return place
        return Within(place, dims.product(inner.shape[1:]) * inner.dtype.size)

    def more(self, node: Node) -> Part:
        return self.part(self.places.more(node.type.bytes), node)

    def spec(self) -> LoopSpec:
        """How the loop runs its body."""
        node, places = self.node, self.places
        rows, states = node.sequences, node.states
        params, outputs = node.body.params, node.body.outputs
        results = {i: self.part(place, outputs[i]) for i, place in self.results.items()}
        operands = [self.part(place, p) for place, p in zip(self.operands, params, strict=True)]
        left: dict[Node, Fixed | Row | Turns | Ahead] = {}
        copies: list[Copy] = []
        begins: list[Begin] = []
        for i, state in self.ahead.items():
            new = outputs[state]
            kept = Row(results[i], new.type.bytes)
            left[new] = Ahead(kept, results.get(state) or self.more(new))
            begins.append(Begin(kept, operands[rows + state], self.inner[new].type.bytes))
        for i, out in enumerate(outputs[states:], states):
            if i in self.ahead:
                continue
            if i in results and out in left:
                first = next(k for k in results if k >= states and outputs[k] is out)
                copies.append(Copy(results[i], results[first], out.type.bytes * node.length))
            elif i in results:
                left[out] = Row(results[i], out.type.bytes)
        for i, out in enumerate(outputs[:states]):
            if out not in left:
                left[out] = Turns(results.get(i) or self.more(out), self.more(out))
        for out in self.computed:
            if out not in left:
                left[out] = Fixed(self.more(out))

        before: list[Slot] = []
        for i, (new, initial) in enumerate(zip(outputs[:states], operands[rows:], strict=False)):
            where = left[new]
            assert not isinstance(where, Fixed)
            found = Before(initial, where)
            before.append(found)
            if i in results:
                copies.append(Copy(results[i], found, self.inner[new].type.bytes))
        slots: list[Slot] = [Row(place, p.type.bytes) for place, p in zip(operands[:rows], params, strict=False)]
        slots += before
        slots += map(Fixed, [*operands[rows + states:], *_constants(self.body, places)])
        slots += [left[out] for out in self.computed]
        slots += [Fixed(places.more(_of_all(packed.bytes, self.batch))) for packed in self.program.packed]
        arena = places.region(memory_of_program(self.program) if self.batch is None else row_arena(self.batch))
        return LoopSpec(node.length, node.reverse, tuple(slots), arena, tuple(copies), tuple(begins))


def _of_all(size: Size, batch: Batch | None) -> Size:
    """A size for the whole batch where it is one for some rows."""
    return size if batch is None else dims.substitute(size, {ROWS: batch.rows})


def _base(part: Part) -> Memory:
    return part.base if isinstance(part, Within) else part


def _constants(body: Graph, places: Places) -> list[Memory]:
    assert body.plan is not None
    return [places.constants[c] for c in body.plan.constants]


def _outputs(whole: Graph, body: Graph, results: Mapping[int, Memory], places: Places) -> list[Memory]:
    """Where a branch puts each of its outputs: the first result that is that output."""
    wanted = {whole.outputs[i]: place for i, place in sorted(results.items(), reverse=True)}
    return [wanted.get(out) or places.more(out.type.bytes) for out in body.outputs]


def _repeated(whole: Graph, results: Mapping[int, Memory]) -> Iterator[Copy]:
    """Results that are the same output of a branch as one before them."""
    first: dict[Node, Memory] = {}
    for i, place in sorted(results.items()):
        out = whole.outputs[i]
        if out in first:
            yield Copy(place, first[out], out.type.bytes)
        first.setdefault(out, place)


def memory_of_program(program: ProgramSpec) -> Size:
    """Bytes that one run of a program needs besides its externals.

    The largest scratch; the sum of many, since a maximum of many sizes is nested too deeply.
    """
    total: Size = 0
    for scratch in program.scratch:
        total = total + scratch if len(program.scratch) > MANY else dims.maximum(total, scratch)
    return program.arena + total
