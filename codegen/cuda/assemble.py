"""A planned graph to the texts of its kernels."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tensorc.codegen import loopir as ir
from tensorc.codegen.assemble import Assembler, KernelList, Panels, sizes_of
from tensorc.codegen.bodies import Places
from tensorc.codegen.cuda.emit import emit
from tensorc.codegen.cuda.library import Call, Part, Parts, call_of
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
        calls: what other launches name: work that a library may do.
    """

    lowered: tuple[tuple[Group, tuple[Lowered, ...]], ...]
    spec: ProgramSpec
    sources: Mapping[str, Source]
    calls: Mapping[str, Call]

    @property
    def loops(self) -> KernelList:
        """The kernels of the loop IR, in the order they run."""
        return KernelList(each.kernel for _, kernels in self.lowered for each in kernels)

    def __str__(self) -> str:
        calls = "".join(f"# {name} {call}\n\n" for name, call in self.calls.items())
        return calls + "\n".join(map(str, self.sources.values()))


def assemble(graph: Graph, libraries: bool = False) -> CudaAssembly:
    """The program of a graph that fusion and buffer planning have been through.

    Args:
        libraries: whether products and convolutions are calls, which a library does where it can.
    """
    assembler = _ForCuda(sizes_of(graph), libraries)
    spec = assembler.program(graph, "")
    return CudaAssembly(tuple(assembler.lowered), spec, assembler.sources, assembler.calls)


class _ForCuda(Assembler):
    """Programs for a GPU, and the texts of their kernels."""

    def __init__(self, sizes: tuple[str, ...], libraries: bool) -> None:
        super().__init__(sizes)
        self.libraries = libraries
        self.sources: dict[str, Source] = {}
        self.calls: dict[str, Call] = {}
        self.called: dict[Hashable, str | None] = {}
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
        found: list[Launch] = []
        kernels: list[Lowered] = []
        for each in lower(group, names, by_owner=True):
            ready = prepare(each)
            kernels += ready
            call = self.call(each, ready)
            if call is None:
                found += [self.launch(k.kernel, self.code(k.kernel), k.operands, places) for k in ready]
            else:
                own = dict.fromkeys(x for k in ready for x in k.operands if isinstance(x, Scratch))
                more = [x for x in own if x not in each.operands]
                whole = self.launch(each.kernel, call, (*each.operands, *more), places)
                found.append(replace(whole, source=ready[0].kernel.name))
        self.lowered.append((group, tuple(kernels)))
        return found

    @staticmethod
    def launch(kernel: Work, name: str, operands: Iterable[Place | Scratch], places: Places) -> Launch:
        return Launch(name, tuple(map(places.of, operands)), tuple(map(dims.symbol, kernel.sizes)), kernel.name)

    def call(self, product: Lowered, ready: Sequence[Lowered]) -> str | None:
        """The name of the call that stands for our kernels of a product, whose scratch memory is behind its buffers.

        None for other kernels, and where there is none.
        """
        kernel = product.kernel
        if not self.libraries or isinstance(kernel, ir.Kernel) or contraction(loops_of(kernel)) is None:
            return None
        key = self.aligned, signature(kernel)
        if key not in self.called:
            buffers = list(dict.fromkeys(b.name for k in (kernel, *(each.kernel for each in ready)) for b in k.buffers))

            def part(each: Lowered) -> Part:
                own = each.kernel
                return Part(self.code(own), tuple(buffers.index(b.name) for b in own.buffers),
                            tuple(map(kernel.sizes.index, own.sizes)))

            epilogue = [] if kernel.epilogue is None else prepare(replace(product, kernel=kernel.epilogue))
            found = call_of(kernel, Parts(tuple(map(part, ready)), next(map(part, epilogue), None)))
            name = f"{kernel.name}_call"
            if found is not None:
                self.calls[name] = found
            self.called[key] = None if found is None else name
        return self.called[key]

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
