"""A planned graph to a program: which kernels run in which order, and where their buffers lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterator
from dataclasses import replace

from tensorc.codegen.bodies import Places, run_bodies
from tensorc.codegen.externals import Externals
from tensorc.codegen.loopir import AGE, Work
from tensorc.codegen.lower import Lowered, Scratch
from tensorc.codegen.places import External
from tensorc.codegen.spec import Choice, Gate, Keep, Launch, Loop, Packed, ProgramSpec, Step
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import ROWS, Group, Place, checked_outputs, prefix_of_body
from tensorc.ir.node import Node
from tensorc.ir.text import labels
from tensorc.ops.gather import NONE


def sizes_of(graph: Graph) -> tuple[str, ...]:
    """The size symbols of a graph's parameters, sorted."""
    return tuple(sorted({s for p in graph.params for size in p.shape for s in dims.symbols(size)}))


class KernelList(tuple[Work, ...]):
    """Kernels in the order they run; printed one after another."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self))


class Assembler(ABC):
    """The programs of a graph and of the bodies in it.

    Attributes:
        sizes: the symbols that a program takes.
        lowered: for each group so far, its kernels in the order they run.
    """

    def __init__(self, sizes: tuple[str, ...]) -> None:
        self.sizes = sizes
        self.lowered: list[tuple[Group, tuple[Lowered, ...]]] = []

    @abstractmethod
    def launches(self, group: Group, names: dict[Node, str], places: Places, panels: Panels) -> list[Launch]:
        """The launches of one group's kernels, in order."""

    def program(self, graph: Graph, prefix: str, lasting: Container[Place | Scratch] = ()) -> ProgramSpec:
        """A planned graph's program.

        Args:
            prefix: tells its kernels from those of other graphs.
            lasting: what is the same each time the program is run by the one around it.
        """
        assert graph.plan is not None
        externals = Externals(graph)
        panels = Panels(externals.state, lasting)
        names = labels(graph)
        steps: list[Step | Loop | Choice] = []
        scratch: list[Size] = []
        checked = once = 0
        for number, groups in enumerate(graph.plan.steps):
            used: Size = 0
            columns: list[list[Launch]] = []
            for group in groups:
                places = Places(externals, graph.plan.arena + used)
                group = replace(group, name=prefix + group.name)
                if group.bodies:
                    steps += run_bodies(group, [self.body(group, i) for i in range(len(group.bodies))], places)
                else:
                    columns.append(self.launches(group, names, places, panels))
                used = used + places.used
            steps.extend(zip_columns(columns))
            scratch.append(used)
            if number < graph.plan.once:
                once = len(steps)
            if any(_tells(group, graph) for group in groups):
                checked = len(steps)
        gate = Gate(checked, _checks(graph), NONE) if graph.updates and 0 < checked < len(steps) else None
        kept = tuple(dims.evaluate(size, {}) for size in externals.kept)
        keep = Keep(once, externals.state, kept, externals.watched, AGE) if kept else None
        return ProgramSpec(
            graph.name, self.sizes, externals.count, tuple(steps), graph.plan.arena, gate,
            tuple(dict.fromkeys(scratch)), keep, externals.updated, externals.counted, tuple(panels.packed),
        )  # fmt: skip

    def body(self, group: Group, number: int) -> ProgramSpec:
        """The program of a loop's body, or of a branch of a choice."""
        sizes = self.sizes if group.batch is None else (*self.sizes, ROWS)
        program = self.program(group.bodies[number], prefix_of_body(group.name, number), _lasting(group))
        return replace(program, sizes=sizes)


def zip_columns(columns: list[list[Launch]]) -> Iterator[Step]:
    """Steps that take the next launch of every column."""
    for i in range(max(map(len, columns), default=0)):
        yield tuple(c[i] for c in columns if i < len(c))


def _checks(graph: Graph) -> tuple[int, ...]:
    """The externals that hold where checks have found something: the outputs before those of the checks."""
    externals = Externals(graph)
    return tuple(externals.of(Place("output", i)).index for i in checked_outputs(graph))


def _tells(group: Group, graph: Graph) -> bool:
    """Whether a group writes what a check has found."""
    places = {Place("output", i) for i in checked_outputs(graph)}
    return any(n.op.name == "check" for n in group.outputs) or not places.isdisjoint(group.writes)


class Panels:
    """The operands of products that last from run to run of a program, packed ahead.

    Attributes:
        lasting: the places of what lasts.
        packed: one of these for each product.
    """

    def __init__(self, externals: int, lasting: Container[Place | Scratch]) -> None:
        self.first = externals
        self.lasting = lasting
        self.packed: list[Packed] = []

    def add(self, packing: Launch, bytes: Size) -> External:
        """Where the panels are found that a launch makes from the second of its places."""
        source = packing.places[1]
        assert isinstance(source, External)
        self.packed.append(Packed(packing, source, bytes))
        return External(self.first + len(self.packed) - 1)


def _lasting(group: Group) -> frozenset[Place]:
    """What all steps of a loop find unchanged: captured values and constants."""
    if group.kind != "loop":
        return frozenset()
    node, (body,) = group.outputs[0], group.bodies
    assert body.plan is not None
    captures = range(node.sequences + node.states, len(body.params))
    return frozenset([*(Place("param", i) for i in captures),
                      *(Place("constant", i) for i in range(len(body.plan.constants)))])
