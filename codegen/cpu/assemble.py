"""A planned graph to the text of one native program."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tensorc.codegen.assemble import Assembler, KernelList, Panels, sizes_of
from tensorc.codegen.bodies import Places
from tensorc.codegen.cpu.foreign import foreign_functions
from tensorc.codegen.cpu.module import Module
from tensorc.codegen.cpu.program import emit_program
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.vectormath_library import library
from tensorc.codegen.cpu.watch import Watch
from tensorc.codegen.loopir import Matmul
from tensorc.codegen.lower import Lowered, lower
from tensorc.codegen.prepare import prepare
from tensorc.codegen.spec import Launch, ProgramSpec
from tensorc.ir import dims
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import Group
from tensorc.ir.node import Node


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
