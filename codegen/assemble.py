"""A planned graph to the text of one native program."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tensorc.codegen.bodies import Places, run_bodies
from tensorc.codegen.cpu.program import Choice, Gate, Launch, Loop, ProgramSpec, Step, emit_program
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.vectormath_library import library
from tensorc.codegen.cpu.watch import Watch
from tensorc.codegen.lower import Lowered, lower
from tensorc.codegen.module import Module, Work
from tensorc.codegen.prepare import prepare
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import Group, Place, checked_outputs, prefix_of_body
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
        spec: the launches; externals are the parameters, the constants and the outputs, in this order.
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
    sizes = sorted({s for p in graph.params for size in p.shape for s in dims.symbols(size)})
    assembler = _Assembler(target, tuple(sizes), marks)
    spec = assembler.program(graph, "")
    kernels_text = "\n".join(assembler.module.texts.values())
    text = f"{kernels_text}\n{library(kernels_text, target.fma)}"
    return Assembly(tuple(assembler.lowered), spec, text, assembler.functions)


class _Assembler:
    """The programs of a graph and of the bodies in it, and the text of their kernels."""

    def __init__(self, target: Target, sizes: tuple[str, ...], marks: bool) -> None:
        self.module = Module(target, marks)
        self.sizes = sizes
        self.lowered: list[tuple[Group, tuple[Lowered, ...]]] = []
        self.functions: dict[str, tuple[str, ...]] = {}

    def program(self, graph: Graph, prefix: str) -> ProgramSpec:
        """A planned graph's program; `prefix` tells its kernels from those of other graphs."""
        assert graph.plan is not None
        names = labels(graph)
        steps: list[Step | Loop | Choice] = []
        scratch: list[Size] = []
        checked = 0
        for step in graph.plan.steps:
            used: Size = 0
            columns: list[list[Launch]] = []
            for group in step:
                places = Places(graph, graph.plan.arena + used)
                group = replace(group, name=prefix + group.name)
                if group.bodies:
                    inner = [self.program(body, prefix_of_body(group.name, i)) for i, body in enumerate(group.bodies)]
                    steps.append(run_bodies(group, inner, places))
                else:
                    columns.append(self.launches(group, names, places))
                used = used + places.used
            steps.extend(zip_columns(columns))
            scratch.append(used)
            if any(_tells(group, graph) for group in step):
                checked = len(steps)
        externals = len(graph.params) + len(graph.plan.constants) + len(graph.outputs)
        gate = Gate(checked, _checks(graph), NONE) if graph.updates and 0 < checked < len(steps) else None
        return ProgramSpec(graph.name, self.sizes, externals, tuple(steps), graph.plan.arena, gate,
                           tuple(dict.fromkeys(scratch)))

    def launches(self, group: Group, names: dict[Node, str], places: Places) -> list[Launch]:
        """The launches of one group's kernels, in order."""
        kernels = tuple(ready for each in lower(group, names) for ready in prepare(each))
        self.lowered.append((group, kernels))
        launches: list[Launch] = []
        for each in kernels:
            launched = _launches(each, places, self.module)
            self.functions[each.kernel.name] = tuple(launch.kernel for launch in launched)
            launches += launched
        return launches


def zip_columns(columns: list[list[Launch]]) -> Iterator[Step]:
    """Steps that take the next launch of every column."""
    for i in range(max(map(len, columns), default=0)):
        yield tuple(c[i] for c in columns if i < len(c))


def _checks(graph: Graph) -> tuple[int, ...]:
    """The externals that hold where checks have found something: the outputs before those of the checks."""
    assert graph.plan is not None
    first = len(graph.params) + len(graph.plan.constants)
    return tuple(first + i for i in checked_outputs(graph))


def _tells(group: Group, graph: Graph) -> bool:
    """Whether a group writes what a check has found."""
    places = {Place("output", i) for i in checked_outputs(graph)}
    return any(n.op.name == "check" for n in group.outputs) or not places.isdisjoint(group.writes)


def _launches(lowered: Lowered, places: Places, module: Module) -> list[Launch]:
    """The launches of one kernel, whose code is in `module` then."""
    code = module.add(lowered.kernel)
    where = tuple(map(places.of, lowered.operands))
    if code.workspace is not None:
        where = (*where, places.more(code.workspace))
    sizes = tuple(map(dims.symbol, lowered.kernel.sizes))
    return [Launch(name, where, sizes, lowered.kernel.name) for name in code.phases]
