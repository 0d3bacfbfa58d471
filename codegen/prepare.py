"""Loop IR → loop IR before a schedule is chosen: loops merged and collapsed, long reductions cut into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tensorc.codegen import loopir as ir
from tensorc.codegen.convolution import conv_loops
from tensorc.codegen.keep import keep_values
from tensorc.codegen.lower import Lowered, Scratch
from tensorc.codegen.schedule import by_rows
from tensorc.codegen.share import share_values
from tensorc.codegen.transform import collapse, merge_loops, split
from tensorc.ir import dims

CHUNK = 16384
"""Elements of a reduction that one unit of work takes where the rest of the kernel gives too few units."""

LONG = 4 * CHUNK
"""Elements up to which a reduction is not worth cutting."""

FEW_COLUMNS = 2048
"""Points of a grid up to which reductions that have their lanes over it are cut: many points are one unit."""

FEW_ROWS = 64
"""Points of a grid up to which reductions that have their lanes in the loop are cut: each point is a unit."""


def prepare(lowered: Lowered) -> list[Lowered]:
    """The kernels that do a group's work, in order."""
    kernel = lowered.kernel
    if isinstance(kernel, ir.Matmul):
        return [lowered]
    if isinstance(kernel, ir.Conv):
        from tensorc.codegen.cpu.conv import is_direct  # imported where a program has one

        if is_direct(kernel):
            return [lowered]
        parts = [conv_loops(kernel), kernel.epilogue]
        return [ready for part in parts if part is not None for ready in prepare(replace(lowered, kernel=part))]
    return placed(lowered, _cut(arranged(kernel)))


def arranged(kernel: ir.Kernel, keep: bool = True) -> ir.Kernel:
    """The kernel with as few loops as its work can be done in.

    Args:
        keep: whether dear values that two loops compute alike go through memory, where nothing else keeps them.
    """
    kernel = share_values(merge_loops(kernel))
    return collapse(keep_values(kernel) if keep else kernel)


def placed(lowered: Lowered, kernels: Iterable[ir.Kernel]) -> list[Lowered]:
    """The kernels that one became, with where their buffers lie."""
    where = dict(zip((b.name for b in lowered.kernel.buffers), lowered.operands, strict=True))
    return [Lowered(k, tuple(where.get(b.name) or Scratch(b.name, dims.product(b.shape) * b.dtype.size)
                             for b in k.buffers)) for k in kernels]


@dataclass(frozen=True)
class Reduction:
    """The loop that a kernel mostly is, and that may be cut into chunks.

    Attributes:
        points: of the grid around it.
        inner: iterations of the loops in it, 1 where that is not known.
    """

    loop: ir.For
    points: int
    inner: int


def reduction(kernel: ir.Kernel) -> Reduction | None:
    """The reduction over a grid of known size that a kernel is."""
    loops = [s for s in kernel.body if isinstance(s, ir.For)]
    points = dims.product(extent for _, extent in kernel.grid)
    cuttable = len(loops) == 1 and _is_reduction(loops[0]) and dims.symbols(loops[0].extent) <= set(kernel.sizes)
    if not cuttable or not isinstance(points, int):
        return None
    inner = dims.product(s.extent for s in ir.statements(loops[0].body) if isinstance(s, ir.For))
    return Reduction(loops[0], points, inner if isinstance(inner, int) else 1)


def _cut(kernel: ir.Kernel) -> Iterator[ir.Kernel]:
    """The kernel, or its two halves where one long reduction would leave most threads idle."""
    found = reduction(kernel)
    if found is not None:
        rows = by_rows(kernel)
        extent, elements = found.loop.extent, found.points * found.inner
        chunk = CHUNK // max(1, found.inner if rows else elements) or 1
        is_long = not isinstance(extent, int) or (extent > chunk and extent * elements > LONG)
        if is_long and found.points <= (FEW_ROWS if rows else FEW_COLUMNS):
            yield from split(kernel, found.loop.var, chunk)
            return
    yield kernel


def _is_reduction(loop: ir.For) -> bool:
    """Does a loop do nothing but feed accumulators?"""
    return bool(ir.fed(loop)) and not any(isinstance(s, ir.Store | ir.Scan) for s in ir.statements(loop.body))
