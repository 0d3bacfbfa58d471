"""Register tiles of a convolution that gathers: a few pixels of the result times a few vectors of its channels.

    run     tiles of neighbouring pixels that read alike, the sums in registers over all taps and channels
    low     the same for a few pixels any distance apart

The weights have been packed: for each panel of channels of the result, all taps one after the other, and of each its
channels of the source, and of each the columns of the panel, filled up with anything.  Every element is summed in one
order, that of taps and channels, so that it does not matter which tile it is in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.cpu.matmul_tiles import Tiles, first_lanes, read, splat, write
from tensorc.codegen.cpu.target import Target
from tensorc.ir.types import DType

SUMS = {512: 28, 256: 12, 128: 12}
"""Vectors of sums in a tile per vector width: with a row of weights and a factor they fill the registers."""

MOST_PIXELS = 14
"""Pixels of a tile; more would not make better use of the weights."""

HIDING = 8
"""So many sums hide the latency of multiply-add."""

UNROLL = 4
"""Channels of the source that one round of the inner loop takes."""

STRAIGHT = 12
"""So many rounds of the inner loop, known in number, are written out."""


@dataclass(frozen=True)
class ConvTiles(Tiles):
    """The tiles of one dtype and so many vectors of channels."""

    width: int

    @staticmethod
    def of(target: Target, dtype: DType, channels: int) -> ConvTiles:
        """Tiles for a result with so many channels: as few empty lanes as three widths of panels allow."""
        vectors = -(-channels // target.lanes(dtype.size))
        width = 1 if vectors <= 1 else 3 if vectors % 2 and vectors % 3 == 0 else 2
        return ConvTiles(dtype, target.bits, target.fma, width)

    @property
    def vectors(self) -> int:
        return self.width

    @property
    def rows(self) -> int:
        return min(SUMS[self.bits] // self.width, MOST_PIXELS)

    @property
    def low_rows(self) -> int:
        return max(HIDING // self.width, 2)

    def name(self, function: str) -> str:
        return f"cv_{self.dtype.short}x{self.lanes}x{self.width}_{function}"


def heights(length: int, most: int) -> list[tuple[int, int]]:
    """(height, how many) of as few tiles as cover a length, of heights that differ by one at most."""
    count = -(-length // most)
    if count == 0:
        return []
    height, more = divmod(length, count)
    return [pair for pair in ((height + 1, more), (height, count - more)) if pair[1]]


@dataclass(frozen=True)
class Loop:
    """One of the loops of a sum: how often, and how far the pointers into source and weights move each time."""

    count: Int
    source: Int
    weights: Int


PARAMETERS = (
    "ptr noalias %source, ptr noalias %weights, ptr noalias %result, i64 %step, i64 %columns,"
    " i64 %z_count, i64 %z_source, i64 %z_weights, i64 %y_count, i64 %y_source, i64 %y_weights, i64 %x_count,"
    " i64 %count, i64 %between"
)
"""What a tile function takes.

    source, weights, result    the first pixel's, the first tap's, the first column's
    step                       from pixel to pixel of the result
    columns                    of the panel that exist
    A_count                    taps along axis A
    A_source, A_weights        from tap to tap
    count                      tiles, or pixels of a low one
    between                    from pixel to pixel of the source; a low one's alone
"""

class AnyTile(Protocol):
    """A tile function of any form."""

    @property
    def name(self) -> str: ...

    @property
    def text(self) -> str: ...


Columns = Literal["whole", "part", "either"]
"""Whether panels of the result have all their columns."""


@dataclass(frozen=True)
class Tile:
    """A tile function; convolutions that have equal ones share them.

    Attributes:
        pixels: of a tile whose pixels read `between` elements apart; 0 for a low tile.
        along_z, along_y: whether there are taps along these axes.
        x_count, x_step: taps along x, 0 where that is not known, and how far apart they read.
        channels: of the source that are summed over.
    """

    tiles: ConvTiles
    pixels: int
    between: int
    along_z: bool
    along_y: bool
    x_count: int
    x_step: int
    channels: int
    columns: Columns

    @property
    def name(self) -> str:
        axes = "z" * self.along_z + "y" * self.along_y + f"x{self.x_count}"
        which = f"run{self.pixels}_{self.between}" if self.pixels else "low"
        return self.tiles.name(f"{which}_{axes}_{self.x_step}_{self.channels}_{self.columns}")

    @functools.cached_property
    def text(self) -> str:
        f = Function(f"define internal void @{self.name}({PARAMETERS}) noinline")
        if self.pixels:
            self._run(f)
        else:
            self._low(f)
        f.line("ret void")
        return f.text()

    def loops(self) -> list[Loop]:
        """The loops of a sum, outermost first."""
        columns = self.tiles.columns
        loops = [Loop("%z_count", "%z_source", "%z_weights")] if self.along_z else []
        loops += [Loop("%y_count", "%y_source", "%y_weights")] if self.along_y else []
        if self.x_count and self.x_step == self.channels:
            return [*loops, Loop(self.x_count * self.channels, 1, columns)]
        return [
            *loops, Loop(self.x_count or "%x_count", self.x_step, self.channels * columns),
            Loop(self.channels, 1, columns),
        ]  # fmt: skip

    def _run(self, f: Function) -> None:
        """%count tiles beside each other.

        What one pixel reads and its neighbour reads later must not stand in one piece of code: LLVM would keep it in
        registers that are not there.
        """
        t = self.tiles
        most = min(self.between, STRAIGHT)
        with f.loop(0, "%count") as number:
            source = f.at("%source", f.mul(number, self.pixels * self.between), t.scalar)
            result = f.at("%result", f.mul(f.mul(number, "%step"), self.pixels), t.scalar)
            sums = tile_sums(f, t, self.pixels, source, self.loops(), lambda a, i: f.at(a, i * self.between, t.scalar),
                             most=most)
            store_sums(f, t, sums, result, self.columns)

    def _low(self, f: Function) -> None:
        """%count pixels, the last tile computing its last pixel again in place of those that do not exist."""
        t = self.tiles
        with f.loop(0, "%count", t.low_rows) as start:
            last = f.sub(f.sub("%count", start), 1)
            source = f.at("%source", f.mul(start, "%between"), t.scalar)
            result = f.at("%result", f.mul(start, "%step"), t.scalar)
            offsets = [f.mul(f.minimum(last, i), "%between") if i else 0 for i in range(t.low_rows)]
            sums = tile_sums(f, t, t.low_rows, source, self.loops(), lambda a, i: f.at(a, offsets[i], t.scalar))
            store_sums(f, t, sums, result, self.columns, last)


Place = Callable[[str, int], str]
"""Where pixel number i of a tile reads, whose first one reads at a pointer."""


def tile_sums(
    f: Function, t: ConvTiles, pixels: int, source: str, loops: Sequence[Loop], place: Place,
    masks: Sequence[str | None] | None = None, most: int = STRAIGHT,
) -> list[list[str]]:  # fmt: skip
    """Cells with the sums of a tile: for each pixel one for each vector of channels.

    Vectors of %weights are read under the masks, if there are any.  No more than `most` rounds of the innermost loop
    are written in one piece.
    """
    kind = t.instructions(f, t.lanes).T
    sums = [[f.cell(kind, "zeroinitializer") for _ in range(t.width)] for _ in range(pixels)]

    def level(a: str, w: str, loop: Loop, *inner: Loop) -> None:
        if not inner:
            _add_channels(f, t, loop, a, w, sums, place, masks or [None] * t.width, most)
            return
        with f.loop(0, loop.count) as i:
            there = f.at(a, f.mul(i, loop.source), t.scalar)
            level(there, f.at(w, f.mul(i, loop.weights), t.scalar), *inner)

    level(source, "%weights", *loops)
    return sums


def _add_channels(
    f: Function, t: ConvTiles, loop: Loop, a: str, w: str, sums: list[list[str]], place: Place,
    masks: Sequence[str | None], most: int,
) -> None:  # fmt: skip
    """The innermost loop, some channels at a time, or written out where they are few.

    As many at a time as divide a known count: with a rest behind them, LLVM spills sums of pixels that lie close.
    """
    ops = t.instructions(f, t.lanes)

    def turn(a: str, w: str, count: int) -> None:
        values = [[f.load(ops.T, cell) for cell in row] for row in sums]
        for k in range(count):
            row_of_weights = f.at(w, f.mul(k, loop.weights), t.scalar)
            channel = f.at(a, f.mul(k, loop.source), t.scalar)
            vectors = [read(f, ops, f.at(row_of_weights, q * t.lanes, t.scalar), mask) for q, mask in enumerate(masks)]
            for i, row in enumerate(values):
                factor = splat(f, t.scalar, f.load(t.scalar, place(channel, i), t.dtype.size), t.lanes)
                values[i] = [ops.muladd(factor, vector, value) for vector, value in zip(vectors, row, strict=True)]
        for cells, row in zip(sums, values, strict=True):
            for cell, value in zip(cells, row, strict=True):
                f.store(ops.T, value, cell)

    if isinstance(loop.count, int) and loop.count <= most:
        turn(a, w, loop.count)
        return

    a_cell, w_cell = f.cell("ptr"), f.cell("ptr")
    f.store("ptr", a, a_cell)
    f.store("ptr", w, w_cell)
    some = min(UNROLL, most)
    if isinstance(loop.count, int):
        some = next(n for n in range(some, 0, -1) if loop.count % n == 0)
    whole = f.floor_to(loop.count, some)
    for start, stop, count in ((0, whole, some), (whole, loop.count, 1)):
        if start != stop:
            with f.loop(start, stop, count):
                a, w = f.load("ptr", a_cell), f.load("ptr", w_cell)
                turn(a, w, count)
                f.store("ptr", f.at(a, f.mul(count, loop.source), t.scalar), a_cell)
                f.store("ptr", f.at(w, f.mul(count, loop.weights), t.scalar), w_cell)


def store_sums(
    f: Function, t: ConvTiles, sums: list[list[str]], result: str, columns: Columns, last: Int | None = None
) -> None:
    """The sums into the result, those of pixels after `last` and of columns that do not exist left out."""
    ops = t.instructions(f, t.lanes)

    def each(write: Callable[[str, str, int], None]) -> None:
        for i, row in enumerate(sums):
            with f.when(True if last is None or i == 0 else f.less(i - 1, last)):
                pixel = f.at(result, f.mul("%step", i), t.scalar)
                for q, cell in enumerate(row):
                    write(f.load(ops.T, cell), f.at(pixel, q * t.lanes, t.scalar), q)

    full = columns == "whole" or columns == "either" and f.less(t.columns - 1, "%columns")
    if full is not False:
        with f.when(full):
            each(lambda value, place, _: write(f, ops, value, place))
    if full is not True:
        with f.when(f.negation(full)):
            masks = [first_lanes(f, t.lanes, f.sub("%columns", q * t.lanes)) for q in range(t.width)]
            each(lambda value, place, q: write(f, ops, value, place, masks[q]))
