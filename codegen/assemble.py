"""A planned graph to the text of one native program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tensorc.codegen.bodies import Places, run_bodies
from tensorc.codegen.cpu.program import Choice, Gate, Keep, Launch, Loop, ProgramSpec, Step, emit_program
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.vectormath_library import library
from tensorc.codegen.externals import Externals
from tensorc.codegen.loopir import AGE
from tensorc.codegen.lower import Lowered, lower
from tensorc.codegen.module import Module
from tensorc.codegen.prepare import prepare
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import Group, Place, checked_outputs
from tensorc.ir.node import Node
from tensorc.ir.text import labels
from tensorc.ops.gather import NONE


@dataclass(frozen=True)
class Assembly:
    """All of a program but its machine code.

    Attributes:
        lowered: for each group of the plan, its kernels in the order they run.
        spec: the launches; externals are in the order of `Externals`.
        text: LLVM IR of the kernels and of `run`.
        kept: bytes of each external that is kept.
        counted: the parameters whose numbers of changes are the last externals.
    """

    lowered: tuple[tuple[Group, tuple[Lowered, ...]], ...]
    spec: ProgramSpec
    text: str
    kept: tuple[int, ...] = ()
    counted: tuple[int, ...] = ()


def assemble(graph: Graph, target: Target) -> Assembly:
    """The program of a graph that fusion and buffer planning have been through."""
    sizes = sorted({s for p in graph.params for size in p.shape for s in dims.symbols(size)})
    assembler = _Assembler(target, tuple(sizes))
    externals = Externals(graph)
    spec = assembler.program(graph, "", externals)
    kernels_text = "\n".join(assembler.module.texts.values())
    text = "\n".join([kernels_text, library(kernels_text, target.fma), emit_program(spec)])
    kept = tuple(dims.evaluate(size, {}) for size in externals.kept)
    return Assembly(tuple(assembler.lowered), spec, text, kept, externals.counted)


class _Assembler:
    """The programs of a graph and of the bodies in it, and the text of their kernels."""

    def __init__(self, target: Target, sizes: tuple[str, ...]) -> None:
        self.module = Module(target)
        self.sizes = sizes
        self.lowered: list[tuple[Group, tuple[Lowered, ...]]] = []

    def program(self, graph: Graph, prefix: str, externals: Externals) -> ProgramSpec:
        """A planned graph's program; `prefix` tells its kernels from those of other graphs."""
        assert graph.plan is not None
        names = labels(graph)
        steps: list[Step | Loop | Choice] = []
        scratch: list[Size] = []
        checked = once = 0
        for number, step in enumerate(graph.plan.steps):
            used: Size = 0
            columns: list[list[Launch]] = []
            for group in step:
                places = Places(externals, graph.plan.arena + used)
                if group.bodies:
                    inner = [self.program(body, f"{prefix}{group.name}_{i}_" if i else f"{prefix}{group.name}_",
                                          Externals(body)) for i, body in enumerate(group.bodies)]
                    steps.append(run_bodies(group, inner, places))
                else:
                    columns.append(self.launches(replace(group, name=prefix + group.name), names, places))
                used = used + places.used
            steps.extend(zip_columns(columns))
            scratch.append(used)
            if number < graph.plan.once:
                once = len(steps)
            if any(_tells(group, graph) for group in step):
                checked = len(steps)
        gate = Gate(checked, _checks(graph), NONE) if graph.updates and 0 < checked < len(steps) else None
        keep = Keep(once, externals.state, externals.watched, AGE) if externals.kept else None
        return ProgramSpec(graph.name, self.sizes, externals.count, tuple(steps), graph.plan.arena, gate,
                           tuple(dict.fromkeys(scratch)), keep, externals.updated)

    def launches(self, group: Group, names: dict[Node, str], places: Places) -> list[Launch]:
        """The launches of one group's kernels, in order."""
        kernels = tuple(ready for each in lower(group, names) for ready in prepare(each))
        self.lowered.append((group, kernels))
        return [launch for k in kernels for launch in _launches(k, places, self.module)]


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


def _launches(lowered: Lowered, places: Places, module: Module) -> list[Launch]:
    """The launches of one kernel, whose code is in `module` then."""
    code = module.add(lowered.kernel)
    where = tuple(map(places.of, lowered.operands))
    if code.workspace is not None:
        more = places.externals.keep if code.keeps else places.more
        where = (*where, more(code.workspace))
    sizes = tuple(map(dims.symbol, lowered.kernel.sizes))
    return [Launch(name, where, sizes) for name in code.phases]
