"""A planned graph to the texts of its kernels."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace

from tensorc.codegen import loopir as ir
from tensorc.codegen.assemble import Assembler, Panels, sizes_of
from tensorc.codegen.bodies import Places
from tensorc.codegen.cuda.emit import emit
from tensorc.codegen.cuda.products import contraction, in_parts, loops_of
from tensorc.codegen.cuda.schedule import VECTOR, Rows, schedule
from tensorc.codegen.cuda.source import Source
from tensorc.codegen.loopir import Work
from tensorc.codegen.lower import Lowered, Scratch, lower
from tensorc.codegen.prepare import arranged, placed, reduction
from tensorc.codegen.signature import signature
from tensorc.codegen.spec import Launch, ProgramSpec
from tensorc.codegen.transform import followed, split
from tensorc.ir import dims
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import Group, Place
from tensorc.ir.node import Node

CHUNK = 4096
"""Elements of a row that one block takes where there are too few rows."""

COLUMN = 128
"""Elements of a column that one thread takes where there are too few columns."""

FEW_ROWS, FEW_COLUMNS = 512, 1 << 16
"""How many are too few."""


@dataclass(frozen=True)
class CudaAssembly:
    """All of a program for a GPU but its machine code.

    Attributes:
        lowered: for each group of the plan, its kernels in the order they run.
        spec: the launches; externals are the parameters, the constants and the outputs, in this order.
        sources: the texts that launches name; equal kernels share one.
    """

    lowered: tuple[tuple[Group, tuple[Lowered, ...]], ...]
    spec: ProgramSpec
    sources: Mapping[str, Source]

    def __str__(self) -> str:
        return "\n".join(map(str, self.sources.values()))


def assemble(graph: Graph) -> CudaAssembly:
    """The program of a graph that fusion and buffer planning have been through."""
    assembler = _ForCuda(sizes_of(graph))
    spec = assembler.program(graph, "")
    return CudaAssembly(tuple(assembler.lowered), spec, assembler.sources)


class _ForCuda(Assembler):
    """Programs for a GPU, and the texts of their kernels."""

    def __init__(self, sizes: tuple[str, ...]) -> None:
        super().__init__(sizes)
        self.sources: dict[str, Source] = {}
        self.known: dict[Hashable, str] = {}
        self.aligned = True

    def program(self, graph: Graph, prefix: str, lasting: Container[Place | Scratch] = ()) -> ProgramSpec:
        before = self.aligned
        if prefix:                      # a body, which finds row after row of what the graph around it has whole
            self.aligned = all(_is_aligned(n) for n in (*graph.params, *graph.outputs))
        spec = super().program(graph, prefix, lasting)
        self.aligned = before
        return spec

    def launches(self, group: Group, names: dict[Node, str], places: Places, panels: Panels) -> list[Launch]:
        kernels = tuple(ready for each in lower(group, names, by_owner=True) for ready in prepare(each))
        self.lowered.append((group, kernels))
        return [Launch(self.code(each.kernel), tuple(map(places.of, each.operands)),
                       tuple(map(dims.symbol, each.kernel.sizes)), each.kernel.name) for each in kernels]

    def code(self, kernel: Work) -> str:
        """The name of the text of a kernel: that of an equal one, or newly made."""
        key = self.aligned, signature(kernel)
        if key not in self.known:
            source = emit(kernel, aligned=self.aligned)
            self.sources[source.name] = source
            self.known[key] = source.name
        return self.known[key]


def _is_aligned(node: Node) -> bool:
    """Whether a node's values, one behind the other, all begin at multiples of 16 bytes."""
    size = node.type.bytes
    return isinstance(size, int) and size % VECTOR == 0


def prepare(lowered: Lowered) -> list[Lowered]:
    """The kernels that do a group's work, in order, as a GPU runs them."""
    kernel = lowered.kernel
    if isinstance(kernel, ir.Kernel):
        return placed(lowered, _cut(arranged(kernel, keep=False)))
    product, epilogue = loops_of(kernel), kernel.epilogue
    found = contraction(product)
    if found is None:
        parts = [product] if epilogue is None else [product, epilogue]
        return [ready for part in parts for ready in prepare(replace(lowered, kernel=part))]
    if (halves := in_parts(product, found)) is None:
        return [lowered]
    part, join = halves
    return placed(lowered, [part, join if epilogue is None else followed(join, epilogue)])


def _cut(kernel: ir.Kernel) -> Iterator[ir.Kernel]:
    """The kernel, or its two halves where one long reduction would leave most of the GPU idle."""
    product = contraction(kernel)
    if product is not None:
        yield from in_parts(kernel, product) or (kernel,)
        return
    found = reduction(kernel)
    if found is not None:
        by_rows = isinstance(schedule(kernel), Rows)
        chunk = (CHUNK if by_rows else COLUMN) // max(1, found.inner) or 1
        extent = found.loop.extent
        is_long = not isinstance(extent, int) or extent > 4 * chunk
        if is_long and found.points <= (FEW_ROWS if by_rows else FEW_COLUMNS):
            yield from split(kernel, found.loop.var, chunk)
            return
    yield kernel
