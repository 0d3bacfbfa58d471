"""Where the buffers of a group's kernels lie, and of the programs that a loop or a choice runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tensorc.codegen.cpu.loops import Before, ChoiceSpec, Copy, Fixed, LoopSpec, Row, Slot, Turns
from tensorc.codegen.cpu.places import Arena
from tensorc.codegen.cpu.places import Place as Memory
from tensorc.codegen.cpu.program import Choice, Loop, ProgramSpec
from tensorc.codegen.externals import Externals
from tensorc.codegen.lower import Scratch
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import Group, Place, memory_of
from tensorc.ir.node import Node

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


def run_bodies(group: Group, programs: Sequence[ProgramSpec], places: Places) -> Loop | Choice:
    """The step of a program that is a loop or a choice."""
    node = group.outputs[0]
    read = {memory_of(n): places.of(place) for n, place in zip(group.inputs, group.reads, strict=True)}
    operands = [read[memory_of(a)] for a in node.args]
    results = {n.result: places.of(place) for n, place in zip(group.outputs, group.writes, strict=True)}
    if group.kind == "loop":
        return Loop(_loop(node, group.bodies[0], operands, results, programs[0], places), programs[0])

    first, second = programs
    branches = [[*operands[1:], *_constants(body, places), *_outputs(whole, body, results, places)]
                for whole, body in zip((node.then, node.otherwise), group.bodies, strict=True)]
    arenas = [places.region(_memory(program)) for program in programs]
    copies = [tuple(_repeated(whole, results)) for whole in (node.then, node.otherwise)]
    spec = ChoiceSpec(operands[0], (tuple(branches[0]), tuple(branches[1])), (arenas[0], arenas[1]),
                      (copies[0], copies[1]))
    return Choice(spec, (first, second))


def _loop(node: Node, body: Graph, operands: Sequence[Memory], results: Mapping[int, Memory], program: ProgramSpec,
          places: Places) -> LoopSpec:
    """Where a loop's body finds what it reads and puts what it makes.

    A state that is also kept of every step has no place of its own: it is read in the row of the step before.
    """
    rows, states = node.sequences, node.states
    outputs: Sequence[Node] = node.body.outputs
    left: dict[Node, Fixed | Row | Turns] = {}
    copies: list[Copy] = []
    for i, out in enumerate(outputs[states:], states):
        if i in results and out in left:
            first = next(k for k in results if k >= states and outputs[k] is out)
            copies.append(Copy(results[i], results[first], _bytes(out) * node.length))
        elif i in results:
            left[out] = Row(results[i], _bytes(out))
    for i, out in enumerate(outputs[:states]):
        if out not in left:
            left[out] = Turns(results.get(i) or places.more(_bytes(out)), places.more(_bytes(out)))
    for out in outputs[states:]:
        if out not in left:
            left[out] = Fixed(places.more(_bytes(out)))

    before: list[Slot] = []
    for i, (new, initial) in enumerate(zip(outputs[:states], operands[rows:], strict=False)):
        where = left[new]
        assert not isinstance(where, Fixed)
        state = Before(initial, where)
        before.append(state)
        if i in results:
            copies.append(Copy(results[i], state, _bytes(new)))
    slots: list[Slot] = [Row(place, _bytes(p)) for place, p in zip(operands[:rows], body.params, strict=False)]
    slots += before
    slots += map(Fixed, [*operands[rows + states:], *_constants(body, places)])
    slots += [left[out] for out in body.outputs]
    return LoopSpec(node.length, node.reverse, tuple(slots), places.region(_memory(program)), tuple(copies))


def _constants(body: Graph, places: Places) -> list[Memory]:
    assert body.plan is not None
    return [places.constants[c] for c in body.plan.constants]


def _outputs(whole: Graph, body: Graph, results: Mapping[int, Memory], places: Places) -> list[Memory]:
    """Where a branch puts each of its outputs: the first result that is that output."""
    wanted = {whole.outputs[i]: place for i, place in sorted(results.items(), reverse=True)}
    return [wanted.get(out) or places.more(_bytes(out)) for out in body.outputs]


def _repeated(whole: Graph, results: Mapping[int, Memory]) -> Iterator[Copy]:
    """Results that are the same output of a branch as one before them."""
    first: dict[Node, Memory] = {}
    for i, place in sorted(results.items()):
        out = whole.outputs[i]
        if out in first:
            yield Copy(place, first[out], _bytes(out))
        first.setdefault(out, place)


def _memory(program: ProgramSpec) -> Size:
    """Bytes that one run of a program needs besides its externals.

    The largest scratch; the sum of many, since a maximum of many sizes is nested too deeply.
    """
    total: Size = 0
    for scratch in program.scratch:
        total = total + scratch if len(program.scratch) > MANY else dims.maximum(total, scratch)
    return program.arena + total


def _bytes(node: Node) -> Size:
    """Bytes of a value, without any at its end."""
    return node.type.count * node.dtype.size
