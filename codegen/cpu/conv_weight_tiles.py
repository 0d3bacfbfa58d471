"""Register tiles of a weight gradient: a few channels of x times a few vectors of channels of y, summed over pixels."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from tensorc.codegen.cpu.conv_tiles import HIDING, SUMS, ConvTiles, Loop, heights, tile_sums
from tensorc.codegen.cpu.function import Function
from tensorc.codegen.cpu.matmul_tiles import first_lanes, read, write
from tensorc.codegen.cpu.target import Target
from tensorc.ir.types import DType

WIDEST = 8
"""Vectors of the widest tile."""


def weight_tiles(target: Target, dtype: DType, inputs: int, outputs: int) -> ConvTiles:
    """The width of tiles that takes least time for a pixel of so many channels of x and of y."""
    vectors = -(-outputs // target.lanes(dtype.size))

    def time(width: int) -> float:
        rows = SUMS[target.bits] // width
        strips = -(-vectors // width)
        each = [max(height * width, height + width, HIDING) * count for height, count in heights(inputs, rows)]
        return strips * sum(each)

    width = min(range(1, min(WIDEST, max(vectors, 1)) + 1), key=time)
    return ConvTiles(dtype, target.bits, target.fma, width)


PARAMETERS = (
    "ptr noalias %source, ptr noalias %weights, ptr noalias %result, i64 %columns,"
    " i64 %y_count, i64 %y_source, i64 %y_weights, i64 %x_count, i64 %count"
)
"""What a tile function takes: the first pixels of x and of y, the first of the weights, columns of the panel that
exist, rows of pixels and from row to row of x and of y, pixels of a row, and how many tiles are below each other."""


@dataclass(frozen=True)
class WeightTile:
    """A tile function; convolutions that have equal ones share them.

    Attributes:
        rows: channels of x.
        x_step, y_step: from pixel to pixel of x and of y.
        step: from row to row of the weights.
        whole: whether panels have all their columns.
    """

    tiles: ConvTiles
    rows: int
    x_step: int
    y_step: int
    step: int
    whole: bool

    @property
    def name(self) -> str:
        columns = "whole" if self.whole else "part"
        return self.tiles.name(f"add{self.rows}_{self.x_step}_{self.y_step}_{self.step}_{columns}")

    @functools.cached_property
    def text(self) -> str:
        t = self.tiles
        f = Function(f"define internal void @{self.name}({PARAMETERS}) noinline")
        ops = t.instructions(f, t.lanes)
        masks = [None if self.whole else first_lanes(f, t.lanes, f.sub("%columns", q * t.lanes))
                 for q in range(t.width)]
        loops = [Loop("%y_count", "%y_source", "%y_weights"), Loop("%x_count", self.x_step, self.y_step)]

        with f.loop(0, "%count") as number:
            source = f.at("%source", f.mul(number, self.rows), t.scalar)
            result = f.at("%result", f.mul(number, self.rows * self.step), t.scalar)
            sums = tile_sums(f, t, self.rows, source, loops, lambda a, i: f.at(a, i, t.scalar), masks)
            for i, row in enumerate(sums):
                for q, cell in enumerate(row):
                    place = f.at(result, i * self.step + q * t.lanes, t.scalar)
                    more = f.load(ops.T, cell)
                    write(f, ops, ops.plus(read(f, ops, place, masks[q]), more), place, masks[q])
        f.line("ret void")
        return f.text()
