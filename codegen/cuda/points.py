"""Kernels in which a thread does points of the grid by itself, all loops included."""

from __future__ import annotations

from collections.abc import Sequence

from tensorc.codegen import loopir as ir
from tensorc.codegen.cuda.lanes import Lanes, LaneWriter
from tensorc.codegen.cuda.schedule import THREADS, Points
from tensorc.codegen.cuda.source import Source
from tensorc.ir import dims
from tensorc.ir.dims import Size


def emit_points(k: ir.Kernel, how: Points) -> Source:
    """The text of a kernel: a thread counts the points of the grid, the last variable running fastest."""
    writer = LaneWriter(k)
    total = dims.product(extent for _, extent in how.grid)
    each = how.width * how.vectors
    blocks = dims.ceildiv(total, THREADS * each)

    if how.vectors > 1 or how.width > 1 and len(how.grid) == 1:
        ((var, extent),) = how.grid
        starts = _starts(writer, how)
        below = None if isinstance(extent, int) and extent % (THREADS * each) == 0 else writer.size(extent)
        writer.body(k.body, Lanes(var, how.width, starts, THREADS * how.width, below))
        return writer.source(k.name, blocks, THREADS, str(how))

    point = writer.fresh("p")
    writer.line(f"{point} = add(mul(I(cuda.blockIdx.x), I({THREADS})), I(cuda.threadIdx.x))")
    if how.width > 1:
        writer.line(f"{point} = mul({point}, I({how.width}))")
    with writer.block(f"if {point} < {writer.size(total)}:"):
        split_point(writer, point, how.grid)
        lanes = None
        if how.width > 1:
            lanes = Lanes(how.grid[-1][0], how.width, (writer.places.pop(how.grid[-1][0]),))
        writer.body(k.body, lanes)
    return writer.source(k.name, blocks, THREADS, str(how))


def _starts(writer: LaneWriter, how: Points) -> tuple[str, ...]:
    """Where each vector of a thread begins: threads lie side by side in each."""
    tile = THREADS * how.width
    first = writer.fresh("p")
    writer.line(f"{first} = add(mul(I(cuda.blockIdx.x), I({tile * how.vectors})), "
                f"mul(I(cuda.threadIdx.x), I({how.width})))")
    names = [first]
    for number in range(1, how.vectors):
        names.append(writer.fresh("p"))
        writer.line(f"{names[-1]} = add({first}, I({tile * number}))")
    return tuple(names)


def split_point(writer: LaneWriter, point: str, grid: Sequence[tuple[str, Size]]) -> None:
    """Writes the variables of a grid that the number of a point stands for."""
    left = point
    for at in range(len(grid) - 1, -1, -1):
        var, extent = grid[at]
        name = writer.places[var] = writer.fresh(f"{var}_at") if var in writer.taken else writer.fresh(var)
        if extent == 1:
            writer.line(f"{name} = I(0)")
        elif at == 0 or all(size == 1 for _, size in grid[:at]):
            writer.line(f"{name} = {left}")
        else:
            writer.line(f"{name} = rem({left}, {writer.size(extent)})")
            rest = writer.fresh("q")
            writer.line(f"{rest} = quo({left}, {writer.size(extent)})")
            left = rest
