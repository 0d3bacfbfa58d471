"""A planned graph to the text of one native program."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

from tensorc.codegen.bodies import Places, memory, run_choice, run_loop
from tensorc.codegen.cpu.places import External
from tensorc.codegen.cpu.program import Choice, Gate, Launch, Loop, Packed, ProgramSpec, Step, emit_program
from tensorc.codegen.cpu.row_loops import emit_row_loop, row_buffers
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.vectormath_library import library
from tensorc.codegen.loopir import Matmul
from tensorc.codegen.lower import Lowered, Scratch, lower
from tensorc.codegen.module import Module
from tensorc.codegen.prepare import prepare
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import ROWS, Group, Place, checked_outputs
from tensorc.ir.node import Node
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
    sizes = sorted({s for p in graph.params for size in p.shape for s in dims.symbols(size)})
    assembler = _Assembler(target, tuple(sizes))
    spec = assembler.program(graph, "")
    kernels_text = "\n".join(assembler.module.texts.values())
    text = "\n".join([kernels_text, library(kernels_text, target.fma), emit_program(spec)])
    return Assembly(tuple(assembler.lowered), spec, text)


class _Assembler:
    """The programs of a graph and of the bodies in it, and the text of their kernels."""

    def __init__(self, target: Target, sizes: tuple[str, ...]) -> None:
        self.module = Module(target)
        self.sizes = sizes
        self.lowered: list[tuple[Group, tuple[Lowered, ...]]] = []

    def program(self, graph: Graph, prefix: str, lasting: Container[Place | Scratch] = ()) -> ProgramSpec:
        """A planned graph's program.

        Args:
            prefix: tells its kernels from those of other graphs.
            lasting: what is the same each time the program is run by the one around it.
        """
        assert graph.plan is not None
        externals = len(graph.params) + len(graph.plan.constants) + len(graph.outputs)
        panels = _Panels(externals, lasting)
        names = labels(graph)
        steps: list[Step | Loop | Choice] = []
        scratch: list[Size] = []
        checked = 0
        for groups in graph.plan.steps:
            used: Size = 0
            columns: list[list[Step]] = []
            for group in groups:
                places = Places(graph, graph.plan.arena + used)
                if group.kind == "choice":
                    branches = [self.program(body, f"{prefix}{group.name}_{i}_" if i else f"{prefix}{group.name}_")
                                for i, body in enumerate(group.bodies)]
                    steps.append(run_choice(group, branches, places))
                elif group.kind == "loop":
                    packing, step = self.loop(group, prefix + group.name, places)
                    if isinstance(step, Loop):
                        steps += [packing, step]
                    else:
                        columns.append([packing, step])
                else:
                    named = replace(group, name=prefix + group.name)
                    columns.append([(each,) for each in self.launches(named, names, places, panels)])
                used = used + places.used
            steps.extend(zip_columns(columns))
            scratch.append(used)
            if any(_tells(group, graph) for group in groups):
                checked = len(steps)
        gate = Gate(checked, _checks(graph), NONE) if graph.updates and 0 < checked < len(steps) else None
        return ProgramSpec(graph.name, self.sizes, externals, tuple(steps), graph.plan.arena, gate,
                           tuple(dict.fromkeys(scratch)), tuple(panels.packed))

    def loop(self, group: Group, name: str, places: Places) -> tuple[Step, Step | Loop]:
        """What is done before a loop, and the loop: a kernel, where its steps go by rows."""
        (graph,) = group.bodies
        sizes = self.sizes if group.batch is None else (*self.sizes, ROWS)
        body = replace(self.program(graph, f"{name}_", _lasting(group)), sizes=sizes)
        packing, spec = run_loop(group, body, places)
        if group.batch is None:
            return packing, Loop(spec, body)
        self.module.texts[name] = emit_row_loop(name, spec, body, memory(body), group.batch, self.sizes)
        return packing, (Launch(name, row_buffers(spec), tuple(map(dims.symbol, self.sizes)), chunks=1),)

    def launches(self, group: Group, names: dict[Node, str], places: Places, panels: _Panels) -> list[Launch]:
        """The launches of one group's kernels, in order."""
        kernels = tuple(ready for each in lower(group, names) for ready in prepare(each))
        self.lowered.append((group, kernels))
        return [launch for k in kernels for launch in _launches(k, places, panels, self.module)]


def zip_columns(columns: list[list[Step]]) -> Iterator[Step]:
    """Steps that take the next launches of every column."""
    for i in range(max(map(len, columns), default=0)):
        yield tuple(launch for c in columns if i < len(c) for launch in c[i])


def _checks(graph: Graph) -> tuple[int, ...]:
    """The externals that hold where checks have found something: the outputs before those of the checks."""
    assert graph.plan is not None
    first = len(graph.params) + len(graph.plan.constants)
    return tuple(first + i for i in checked_outputs(graph))


def _tells(group: Group, graph: Graph) -> bool:
    """Whether a group writes what a check has found."""
    places = {Place("output", i) for i in checked_outputs(graph)}
    return any(n.op.name == "check" for n in group.outputs) or not places.isdisjoint(group.writes)


def _launches(lowered: Lowered, places: Places, panels: _Panels, module: Module) -> list[Launch]:
    """The launches of one kernel, whose code is in `module` then."""
    kernel, operands = lowered.kernel, lowered.operands
    where = tuple(map(places.of, operands))
    sizes = tuple(map(dims.symbol, kernel.sizes))
    if isinstance(kernel, Matmul) and kernel.n != 1 and operands[1] in panels.lasting:
        code = module.add(replace(kernel, lasting=True))
        pack, *products = code.phases
        source = where[1]
        assert isinstance(source, External)
        packed = panels.add(Packed(pack, len(where) + 1, source.index, sizes, code.workspace or 0))
        return [Launch(name, (*where, packed), sizes) for name in products]
    code = module.add(kernel)
    if code.workspace is not None:
        where = (*where, places.more(code.workspace))
    return [Launch(name, where, sizes) for name in code.phases]


class _Panels:
    """The operands of products that last from run to run of a program, packed ahead.

    Attributes:
        lasting: the places of what lasts.
        packed: one of these for each product.
    """

    def __init__(self, externals: int, lasting: Container[Place | Scratch]) -> None:
        self.first = externals
        self.lasting = lasting
        self.packed: list[Packed] = []

    def add(self, packed: Packed) -> External:
        """Where the panels are found."""
        self.packed.append(packed)
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
