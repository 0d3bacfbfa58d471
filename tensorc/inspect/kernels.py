"""The kernels that a planned graph becomes, which nodes went into each, and their text at every stage."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorc.codegen import loopir
from tensorc.codegen.cpu import marks
from tensorc.codegen.cpu.assemble import assemble
from tensorc.codegen.cpu.compile import assembly as machine_text
from tensorc.codegen.cpu.compile import optimised
from tensorc.codegen.cpu.target import Target
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import Group, named_groups
from tensorc.ir.node import Node

_LLVM_FUNCTION = re.compile(r'^define [^\n]*?@"?([\w.$]+)"?\(.*?^}', re.MULTILINE | re.DOTALL)
_ASM_FUNCTION = re.compile(r"^([A-Za-z_][\w.$]*):.*?^\s*\.size\s+\1,[^\n]*", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Kernel:
    """What one group of nodes became.

    Attributes:
        name: as the dump has it, such as `k3`, or `k3_k0` within the loop k3.
        group: the nodes, with what they read and write.
        loops: its loop IR, a kernel or a few, in the order they run.
        functions: the functions of the program's text that run it; equal kernels share theirs.
    """

    name: str
    group: Group = field(repr=False)
    loops: tuple[loopir.Kernel | loopir.Matmul | loopir.Conv, ...] = field(repr=False)
    functions: tuple[str, ...]


class Kernels:
    """The kernels of a planned graph for this machine, in the order they run.

    Attributes:
        all: every kernel, those in bodies of loops included.
        functions: for each part of a kernel, by name, the functions that run it.
        llvm: the LLVM IR of the whole program.
    """

    def __init__(self, graph: Graph) -> None:
        self._target = Target.host()
        assembly = assemble(graph, self._target, marks=True)
        groups = {name: group for name, group, _ in named_groups(graph)}
        self.all = tuple(
            Kernel(group.name, groups[group.name], tuple(each.kernel for each in lowered),
                   tuple(dict.fromkeys(f for each in lowered for f in assembly.functions[each.kernel.name])))
            for group, lowered in assembly.lowered
        )
        self.functions = assembly.functions
        self._marked = assembly.text
        self.llvm = marks.unmarked(assembly.text)

    def of(self, node: Node) -> tuple[Kernel, ...]:
        """The kernels that compute a node: several where each user repeats it, none where it takes no work."""
        return self._by_node.get(node, ())

    @functools.cached_property
    def asm(self) -> str:
        """The machine code of the whole program as assembly text."""
        return machine_text(self.llvm, self._target)

    @functools.cached_property
    def llvm_functions(self) -> Mapping[str, str]:
        """The LLVM IR of each function, by name."""
        return {m[1]: m[0] for m in _LLVM_FUNCTION.finditer(self.llvm)}

    @functools.cached_property
    def asm_functions(self) -> Mapping[str, str]:
        """The assembly of each function, by name."""
        return {m[1]: m[0] for m in _ASM_FUNCTION.finditer(self.asm)}

    @functools.cached_property
    def listings(self) -> Mapping[str, Mapping[str, marks.Listing]]:
        """The functions as `written` in LLVM IR, as `optimised`, and as `machine` code: each line with the line of the
        kernel's text that it comes from.
        """
        located = marks.located(self._marked)
        return {
            "written": marks.marked_functions(self._marked),
            "optimised": marks.located_functions(optimised(located, self._target)),
            "machine": marks.assembly_functions(machine_text(located, self._target)),
        }

    @functools.cached_property
    def _by_node(self) -> Mapping[Node, tuple[Kernel, ...]]:
        found: dict[Node, tuple[Kernel, ...]] = {}
        for kernel in self.all:
            for node in kernel.group.nodes:
                found[node] = (*found.get(node, ()), kernel)
        return found
