"""A planned graph to the text of one native program."""

from __future__ import annotations

from dataclasses import dataclass

from tensorc.codegen.cpu.program import Arena, External, Gate, Launch, ProgramSpec, emit_program
from tensorc.codegen.cpu.program import Place as Memory
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.vectormath_library import library
from tensorc.codegen.lower import Lowered, Scratch, lower
from tensorc.codegen.module import Module
from tensorc.codegen.prepare import prepare
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import Group, Place, checked_outputs
from tensorc.ir.text import labels
from tensorc.ops.gather import NONE


@dataclass(frozen=True)
class Assembly:
    """All of a program but its machine code.

    Attributes:
        lowered: for each group of the plan, its kernels in the order they run.
        spec: the launches; externals are the parameters, the constants and the outputs, in this order.
        text: LLVM IR of the kernels and of `run`.
    """

    lowered: tuple[tuple[Group, tuple[Lowered, ...]], ...]
    spec: ProgramSpec
    text: str


def assemble(graph: Graph, target: Target) -> Assembly:
    """The program of a graph that fusion and buffer planning have been through."""
    assert graph.plan is not None
    names = labels(graph)
    steps: list[tuple[Launch, ...]] = []
    lowered: list[tuple[Group, tuple[Lowered, ...]]] = []
    module = Module(target)
    scratch: list[Size] = []
    checked = 0
    for step in graph.plan.steps:
        used: Size = 0
        columns: list[list[Launch]] = []
        for group in step:
            kernels = tuple(ready for each in lower(group, names) for ready in prepare(each))
            lowered.append((group, kernels))
            place = _Places(graph, graph.plan.arena + used)
            columns.append([launch for k in kernels for launch in _launches(k, place, module)])
            used = used + place.used
        depth = max(map(len, columns))
        steps.extend(tuple(c[i] for c in columns if i < len(c)) for i in range(depth))
        scratch.append(used)
        if any(_tells(group, graph) for group in step):
            checked = len(steps)
    sizes = sorted({s for p in graph.params for size in p.shape for s in dims.symbols(size)})
    externals = len(graph.params) + len(graph.plan.constants) + len(graph.outputs)
    gate = Gate(checked, _checks(graph), NONE) if graph.updates and 0 < checked < len(steps) else None
    spec = ProgramSpec(graph.name, tuple(sizes), externals, tuple(steps), graph.plan.arena, gate, tuple(scratch))
    kernels_text = "\n".join(module.texts.values())
    text = "\n".join([kernels_text, library(kernels_text, target.fma), emit_program(spec)])
    return Assembly(tuple(lowered), spec, text)


def _checks(graph: Graph) -> tuple[int, ...]:
    """The externals that hold where checks have found something: the outputs before those of the checks."""
    assert graph.plan is not None
    first = len(graph.params) + len(graph.plan.constants)
    return tuple(first + i for i in checked_outputs(graph))


def _tells(group: Group, graph: Graph) -> bool:
    """Whether a group writes what a check has found."""
    places = {Place("output", i) for i in checked_outputs(graph)}
    return any(n.op.name == "check" for n in group.outputs) or not places.isdisjoint(group.writes)


class _Places:
    """Where the buffers of one group's kernels lie; scratch memory follows the plan's arena."""

    def __init__(self, graph: Graph, start: Size) -> None:
        assert graph.plan is not None
        self.first = {"param": 0, "constant": len(graph.params),
                      "output": len(graph.params) + len(graph.plan.constants)}
        self.start = start
        self.used: Size = 0
        self.scratch: dict[str, Memory] = {}

    def of(self, place: Place | Scratch) -> Memory:
        """A place of the plan, or the scratch memory of that name."""
        if isinstance(place, Scratch):
            if place.name not in self.scratch:
                self.scratch[place.name] = self.more(place.bytes)
            return self.scratch[place.name]
        if place.kind == "arena":
            return Arena(place.offset)
        return External(self.first[place.kind] + place.index)

    def more(self, bytes: Size) -> Memory:
        """Fresh scratch memory."""
        memory = Arena(self.start + self.used)
        self.used = self.used + dims.ceildiv(bytes, 64) * 64
        return memory


def _launches(lowered: Lowered, places: _Places, module: Module) -> list[Launch]:
    """The launches of one kernel, whose code is in `module` then."""
    code = module.add(lowered.kernel)
    where = tuple(map(places.of, lowered.operands))
    if code.workspace is not None:
        where = (*where, places.more(code.workspace))
    sizes = tuple(map(dims.symbol, lowered.kernel.sizes))
    return [Launch(name, where, sizes) for name in code.phases]
