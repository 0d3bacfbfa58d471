"""A planned graph to the text of one native program."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace

from tensorc.codegen.bodies import Places, run_bodies
from tensorc.codegen.cpu.foreign import foreign_functions
from tensorc.codegen.cpu.places import External
from tensorc.codegen.cpu.program import Choice, Gate, Keep, Launch, Loop, Packed, ProgramSpec, Step, emit_program
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.vectormath_library import library
from tensorc.codegen.cpu.watch import Watch
from tensorc.codegen.externals import Externals
from tensorc.codegen.loopir import AGE, Matmul
from tensorc.codegen.lower import Lowered, Scratch, lower
from tensorc.codegen.module import Module, Work
from tensorc.codegen.prepare import prepare
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import ROWS, Group, Place, checked_outputs, prefix_of_body
from tensorc.ir.node import Node
from tensorc.ir.text import labels
from tensorc.ops.gather import NONE


class KernelList(tuple[Work, ...]):
    """Kernels in the order they run; printed one after another."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self))


@dataclass(frozen=True)
class Assembly:
    """All of a program but its machine code.

    Attributes:
        lowered: for each group of the plan, its kernels in the order they run.
        spec: the launches; externals are in the order of `Externals`.
        kernels: LLVM IR of the kernels.
        functions: for each kernel, by name, the functions of the text that run it, one after another.
    """

    lowered: tuple[tuple[Group, tuple[Lowered, ...]], ...]
    spec: ProgramSpec
    kernels: str
    functions: Mapping[str, tuple[str, ...]]

    @property
    def loops(self) -> KernelList:
        """The kernels in the loop language."""
        return KernelList(each.kernel for _, kernels in self.lowered for each in kernels)

    @functools.cached_property
    def text(self) -> str:
        """LLVM IR of the kernels and of `run`."""
        return f"{self.kernels}\n{emit_program(self.spec)}"

    def watched(self, watch: Watch) -> str:
        """The same with every step watched."""
        return f"{self.kernels}\n{emit_program(self.spec, watch)}"


def assemble(graph: Graph, target: Target, marks: bool = False) -> Assembly:
    """The program of a graph that fusion and buffer planning have been through.

    Args:
        marks: whether the text says of each line which line of its kernel it comes from (codegen/cpu/marks.py).
    """
    assembler = _Native(target, sizes_of(graph), marks)
    spec = assembler.program(graph, "")
    kernels_text = "\n".join(assembler.module.texts.values())
    kernels_text = f"{kernels_text}\n{foreign_functions(kernels_text, target.fma, target.half)}"
    text = f"{kernels_text}\n{library(kernels_text, target.fma)}"
    return Assembly(tuple(assembler.lowered), spec, text, assembler.functions)


def sizes_of(graph: Graph) -> tuple[str, ...]:
    """The size symbols of a graph's parameters, sorted."""
    return tuple(sorted({s for p in graph.params for size in p.shape for s in dims.symbols(size)}))


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


class _Native(Assembler):
    """Programs for a processor, and the LLVM IR of their kernels."""

    def __init__(self, target: Target, sizes: tuple[str, ...], marks: bool) -> None:
        super().__init__(sizes)
        self.module = Module(target, marks)
        self.functions: dict[str, tuple[str, ...]] = {}

    def launches(self, group: Group, names: dict[Node, str], places: Places, panels: Panels) -> list[Launch]:
        kernels = tuple(ready for each in lower(group, names) for ready in prepare(each))
        self.lowered.append((group, kernels))
        launches: list[Launch] = []
        for each in kernels:
            launched = _launches(each, places, panels, self.module)
            self.functions[each.kernel.name] = tuple(launch.kernel for launch in launched)
            launches += launched
        return launches


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


def _launches(lowered: Lowered, places: Places, panels: Panels, module: Module) -> list[Launch]:
    """The launches of one kernel, whose code is in `module` then."""
    kernel, operands = lowered.kernel, lowered.operands
    where = tuple(map(places.of, operands))
    sizes = tuple(map(dims.symbol, kernel.sizes))
    lasts = isinstance(kernel, Matmul) and kernel.n != 1 and operands[1] in panels.lasting
    code = module.add(replace(kernel, lasting=True) if isinstance(kernel, Matmul) and lasts else kernel)
    phases = code.phases
    if lasts:
        where = (*where, panels.add(Launch(phases[0], where, sizes, kernel.name), code.workspace or 0))
        phases = phases[1:]
    elif code.workspace is not None:
        more = places.externals.keep if code.keeps else places.more
        where = (*where, more(code.workspace))
    return [Launch(name, where, sizes, kernel.name) for name in phases]


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
