"""Kernels that read along one variable and write along another: a transpose, and whatever is computed on its way.

Reads of a warp are 32 neighbours into a row of shared memory, and its writes 32 neighbours out of a column.  Rows of
shared memory are one element longer than a tile, so that the elements of a column lie in different banks.
"""

from __future__ import annotations

from tensorc.codegen import loopir as ir
from tensorc.codegen.cuda.lanes import LaneWriter
from tensorc.codegen.cuda.points import split_point
from tensorc.codegen.cuda.schedule import THREADS, WARP, Tile, crosses
from tensorc.codegen.cuda.source import Source
from tensorc.codegen.cuda.text import from_memory, memory_kind, spelled
from tensorc.ir import dims


def emit_tile(k: ir.Kernel, how: Tile) -> Source:
    """The text of a kernel: a block does a tile of 32 by 32 points."""
    writer = _TileWriter(k)
    extents = dict(k.grid)
    across, along = how.across, how.along
    rows, columns = extents[across], extents[along]
    outer = [loop for loop in k.grid if loop[0] not in (across, along)]
    tiles = [*outer, (f"{across}_tile", dims.ceildiv(rows, WARP)), (f"{along}_tile", dims.ceildiv(columns, WARP))]
    blocks = dims.product(extent for _, extent in tiles)

    block, tx, ty = writer.fresh("block"), writer.fresh("tx"), writer.fresh("ty")
    writer.line(f"{block} = I(cuda.blockIdx.x)")
    writer.line(f"{tx} = rem(I(cuda.threadIdx.x), I({WARP}))")
    writer.line(f"{ty} = quo(I(cuda.threadIdx.x), I({WARP}))")
    split_point(writer, block, tiles)
    row0, column0 = writer.fresh("row"), writer.fresh("column")
    writer.line(f"{row0} = mul({writer.places[f'{across}_tile']}, I({WARP}))")
    writer.line(f"{column0} = mul({writer.places[f'{along}_tile']}, I({WARP}))")

    step = THREADS // WARP
    loads = dict.fromkeys(
        access for access, _ in ir.accesses(k.body)
        if isinstance(access, ir.Load) and crosses(access, writer.moves, along)
        and writer.moves.move(access, across) == "unit" and _is_free(access, k)
    )
    for e in loads:
        name = writer.shared[e.buffer, e.index] = writer.fresh(f"{e.buffer}_tile")
        writer.line(f"{name} = cuda.shared.array(({WARP}, {WARP + 1}), {memory_kind(e.dtype)})")
    row, column, slot, turn = (writer.fresh(wish) for wish in (f"{across}_at", f"{along}_at", "slot", "turn"))
    writer.places[across], writer.places[along] = row, column

    with writer.block(f"for {turn} in range({WARP // step}):"):
        writer.line(f"{slot} = add({ty}, I({turn} * {step}))")
        writer.line(f"{row} = add({row0}, {tx})")
        writer.line(f"{column} = add({column0}, {slot})")
        with writer.block(f"if both({row} < {writer.size(rows)}, {column} < {writer.size(columns)}):"):
            for (buffer, index), name in writer.shared.items():
                writer.line(f"{name}[{slot}, {tx}] = {spelled(buffer)}[{writer.offset(buffer, index)}]")
    writer.line("cuda.syncthreads()")
    with writer.block(f"for {turn} in range({WARP // step}):"):
        writer.line(f"{slot} = add({ty}, I({turn} * {step}))")
        writer.line(f"{row} = add({row0}, {slot})")
        writer.line(f"{column} = add({column0}, {tx})")
        with writer.block(f"if both({row} < {writer.size(rows)}, {column} < {writer.size(columns)}):"):
            writer.at = f"{tx}, {slot}"
            writer.body(k.body, None)
    return writer.source(k.name, blocks, THREADS, str(how))


def _is_free(e: ir.Load, k: ir.Kernel) -> bool:
    """Whether the place of a load depends on the grid and the sizes alone, and nobody stores there."""
    known = {*k.sizes, *(var for var, _ in k.grid)}
    stored = {a.buffer for a, _ in ir.accesses(k.body) if isinstance(a, ir.Store)}
    return e.buffer not in stored and all(dims.symbols(size) <= known for size in e.index)


class _TileWriter(LaneWriter):
    """A writer that finds some loads in shared memory, at the place `at`."""

    def __init__(self, k: ir.Kernel) -> None:
        super().__init__(k)
        self.shared: dict[tuple[str, ir.Index], str] = {}
        self.at = ""

    def load(self, e: ir.Load) -> str:
        name = self.shared.get((e.buffer, e.index))
        return super().load(e) if name is None else from_memory(f"{name}[{self.at}]", e.dtype)
