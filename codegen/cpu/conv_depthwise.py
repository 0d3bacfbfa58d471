"""Depthwise convolutions: every channel has a kernel of its own, and lanes run along channels.

The frames of the other convolutions serve these too, with all channels in one panel; only the tiles differ.  Weights
are read where they stand.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tensorc.codegen.cpu.conv_gather import Combination, Gather
from tensorc.codegen.cpu.conv_geometry import axes_of
from tensorc.codegen.cpu.conv_tiles import HIDING, PARAMETERS, AnyTile, ConvTiles
from tensorc.codegen.cpu.conv_weight_tiles import PARAMETERS as WEIGHT_PARAMETERS
from tensorc.codegen.cpu.conv_weights import WeightGradient
from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.cpu.matmul_tiles import first_lanes, read, write
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.loopir import Conv

MOST_VECTORS = 4
"""Vectors of channels that a tile of few pixels takes."""


def is_depthwise(conv: Conv) -> bool:
    """Whether each channel of y reads its own channel of x."""
    return conv.groups > 1 and conv.w.shape[-2:] == (1, conv.groups)


@dataclass(frozen=True)
class DepthwiseTiles(ConvTiles):
    """Tiles whose vectors of channels share nothing, so that they are rather wide than high: memory likes that."""

    @staticmethod
    def on_channels(target: Target, conv: Conv) -> DepthwiseTiles:
        """As many vectors, up to MOST_VECTORS, as leave no rest of the channels."""
        vectors = -(-conv.groups // target.lanes(conv.result.dtype.size))
        width = max(n for n in range(1, MOST_VECTORS + 1) if vectors % n == 0)
        return DepthwiseTiles(conv.result.dtype, target.bits, target.fma, width)

    @property
    def rows(self) -> int:
        return max(HIDING // self.width, 2)

    def name(self, function: str) -> str:
        return f"dw_{self.dtype.short}x{self.lanes}x{self.width}_{function}"


@dataclass(frozen=True)
class DepthwiseGather(Gather):
    """A forward convolution or an input gradient with one panel of all channels."""

    @staticmethod
    def of_channels(conv: Conv, target: Target) -> DepthwiseGather:
        tiles = DepthwiseTiles.on_channels(target, conv)
        return DepthwiseGather(conv, tiles, axes_of(conv), 1, conv.groups, conv.groups)

    @property
    def panels(self) -> int:
        return 1

    @property
    def panel_columns(self) -> int:
        return self.gives

    @property
    def tap_size(self) -> int:
        return self.gives

    @property
    def multiplications(self) -> int:
        return self.taps * self.gives

    @property
    def packs(self) -> bool:
        return False

    def weights_of(self, taps: Combination) -> tuple[int, int, int, int]:
        start, step = 0, self.tap_size
        steps = []
        for axis, each in zip(reversed(self.axes), reversed(taps), strict=True):
            start += each.first * step
            steps.append(each.stride * step)
            step *= axis.kernel
        x, y, z = steps
        return start, z, y, x

    def _tile(self, pixels: int, between: int, all_taps: bool) -> AnyTile:
        x = self.axes[2]
        stride = next((taps.stride for taps in x.classes if taps.count), 0)
        return DepthwiseTile(
            self.tiles, pixels, between, x.classes[0].count if all_taps and pixels else 0,
            x.tap_step * self.gives, stride * self.gives, self.gives,
        )  # fmt: skip


@dataclass(frozen=True)
class DepthwiseTile:
    """A tile function with the parameters of `conv_tiles.Tile`; convolutions that have equal ones share them.

    Attributes:
        pixels: of a tile whose pixels read `between` elements apart; 0 for one that takes pixels one by one.
        x_count: taps along x, 0 where that is not known.
        x_step, w_step: from tap to tap along x, of source and weights.
    """

    tiles: ConvTiles
    pixels: int
    between: int
    x_count: int
    x_step: int
    w_step: int
    channels: int

    @property
    def name(self) -> str:
        which = f"run{self.pixels}_{self.between}" if self.pixels else "low"
        return self.tiles.name(f"{which}_x{self.x_count}_{self.x_step}_{self.w_step}_{self.channels}".replace("-", "m"))

    @functools.cached_property
    def text(self) -> str:
        t = self.tiles
        f = Function(f"define internal void @{self.name}({PARAMETERS}) noinline")
        pixels = self.pixels or 1
        with f.loop(0, "%count") as number:
            between = self.between or "%between"
            source = f.at("%source", f.product(number, pixels, between), t.scalar)
            result = f.at("%result", f.product(number, pixels, "%step"), t.scalar)
            with channels(f, t, self.channels) as block:
                sums = block.sums(pixels)
                self._add(f, block, source, sums)
                for i, row in enumerate(sums):
                    for q, cell in enumerate(row):
                        block.store(f.load(block.kind, cell), f.at(result, f.mul(i, "%step"), t.scalar), q)
        f.line("ret void")
        return f.text()

    def _add(self, f: Function, block: Channels, source: str, sums: list[list[str]]) -> None:
        t = self.tiles
        with f.loop(0, "%z_count") as z, f.loop(0, "%y_count") as y:
            a = f.at(source, f.add(f.mul(z, "%z_source"), f.mul(y, "%y_source")), t.scalar)
            w = f.at("%weights", f.add(f.mul(z, "%z_weights"), f.mul(y, "%y_weights")), t.scalar)
            if self.x_count:
                self._taps_at_once(f, block, a, w, sums)
                return
            with f.loop(0, "%x_count") as x:
                there = f.at(a, f.mul(x, self.x_step), t.scalar)
                weights = f.at(w, f.mul(x, self.w_step), t.scalar)
                for q in range(len(sums[0])):
                    weight = block.load(weights, q)
                    for i, row in enumerate(sums):
                        block.add(row[q], block.load(f.at(there, i * self.between, t.scalar), q), weight)

    def _taps_at_once(self, f: Function, block: Channels, a: str, w: str, sums: list[list[str]]) -> None:
        """All taps of a row: what several pixels read is loaded once."""
        t = self.tiles
        meetings: dict[int, list[tuple[int, int]]] = {}
        for i, j in itertools.product(range(len(sums)), range(self.x_count)):
            meetings.setdefault(i * self.between + j * self.x_step, []).append((i, j))

        for q in range(len(sums[0])):
            weights = [block.load(f.at(w, j * self.w_step, t.scalar), q) for j in range(self.x_count)]
            for place, pairs in sorted(meetings.items()):
                value = block.load(f.at(a, place, t.scalar), q)
                for i, j in pairs:
                    block.add(sums[i][q], value, weights[j])


class Channels:
    """The channels that one round of a loop over all of them takes."""

    def __init__(self, f: Function, t: ConvTiles, first: Int, count: int) -> None:
        self.f, self.t, self.first = f, t, first
        self.ops = t.instructions(f, t.lanes)
        self.kind = self.ops.T
        left = f.sub(count, first) if count % t.lanes else 0
        self.masks = [first_lanes(f, t.lanes, f.sub(left, q * t.lanes)) if left else None for q in range(t.width)]

    def place(self, pointer: str, q: int) -> str:
        return self.f.at(pointer, self.f.add(self.first, q * self.t.lanes), self.t.scalar)

    def load(self, pointer: str, q: int) -> str:
        """Vector q of the pixel or tap at `pointer`."""
        return read(self.f, self.ops, self.place(pointer, q), self.masks[q])

    def store(self, value: str, pointer: str, q: int) -> None:
        write(self.f, self.ops, value, self.place(pointer, q), self.masks[q])

    def sums(self, pixels: int) -> list[list[str]]:
        """Cells of zeros: for each pixel one for each vector."""
        return [[self.f.cell(self.kind, "zeroinitializer") for _ in range(self.t.width)] for _ in range(pixels)]

    def add(self, cell: str, a: str, b: str) -> None:
        """cell += a · b."""
        self.f.store(self.kind, self.ops.muladd(a, b, self.f.load(self.kind, cell)), cell)


@contextmanager
def channels(f: Function, t: ConvTiles, count: int) -> Iterator[Channels]:
    """A loop over all channels, as many at a time as a tile is wide."""
    with f.loop(0, count, t.columns) as first:
        yield Channels(f, t, first, count)


# -- weight gradients


@dataclass(frozen=True)
class DepthwiseWeights(WeightGradient):
    """A weight gradient with one panel of all channels."""

    @staticmethod
    def of_channels(conv: Conv, target: Target) -> DepthwiseWeights:
        frame = WeightGradient.of(conv, target)
        return DepthwiseWeights(
            conv, DepthwiseTiles.on_channels(target, conv), frame.kernel, frame.strides, frame.dilations, frame.low,
            frame.x_sizes, frame.y_sizes, 1, 1, conv.groups,
        )  # fmt: skip

    @property
    def x_channels(self) -> int:
        return self.outputs

    @property
    def panels(self) -> int:
        return 1

    @property
    def panel_columns(self) -> int:
        return self.outputs

    def tile(self, rows: int) -> AnyTile:
        return DepthwiseWeightTile(self.tiles, self.strides[2] * self.x_channels, self.outputs)

    def heights(self) -> list[tuple[int, int]]:
        return [(1, 1)]


@dataclass(frozen=True)
class DepthwiseWeightTile:
    """A tile function with the parameters of `conv_weight_tiles.WeightTile`: one tap of all channels."""

    tiles: ConvTiles
    x_step: int
    channels: int

    @property
    def name(self) -> str:
        return self.tiles.name(f"add_{self.x_step}_{self.channels}")

    @functools.cached_property
    def text(self) -> str:
        """%weights[c] += Σ source[p, c] · weights[p, c], with sums of their own for some neighbouring pixels p."""
        t = self.tiles
        f = Function(f"define internal void @{self.name}({WEIGHT_PARAMETERS}) noinline")
        pixels = max(HIDING // t.width, 1)

        with channels(f, t, self.channels) as block:
            sums = block.sums(pixels)
            with f.loop(0, "%y_count") as y:
                source = f.at("%source", f.mul(y, "%y_source"), t.scalar)
                weights = f.at("%weights", f.mul(y, "%y_weights"), t.scalar)
                whole = f.floor_to("%x_count", pixels)
                for start, stop, count in ((0, whole, pixels), (whole, "%x_count", 1)):
                    with f.loop(start, stop, count) as x:
                        for i in range(count):
                            at = f.add(x, i)
                            a = f.at(source, f.mul(at, self.x_step), t.scalar)
                            g = f.at(weights, f.mul(at, self.channels), t.scalar)
                            for q, cell in enumerate(sums[i]):
                                block.add(cell, block.load(a, q), block.load(g, q))
            for q in range(t.width):
                total = block.load("%result", q)
                for row in sums:
                    total = block.ops.plus(total, f.load(block.kind, row[q]))
                block.store(total, "%result", q)
        f.line("ret void")
        return f.text()
