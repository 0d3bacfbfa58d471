"""What is known of a convolution whose every result gathers what it sums: a forward one, or an input gradient."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from tensorc.codegen.cpu.conv_frame import channels_of
from tensorc.codegen.cpu.conv_geometry import Axis, Taps, axes_of, body, results_between
from tensorc.codegen.cpu.conv_tiles import AnyTile, ConvTiles, Tile, heights
from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.loopir import Conv
from tensorc.ir.dims import Size

UNIT_COLUMNS = 256
"""Columns of a unit of work at most, roughly."""

Combination = tuple[Taps, Taps, Taps]
"""A class of results: what they read along each axis."""


@dataclass(frozen=True)
class Gather:
    """A forward convolution or an input gradient, seen as the same thing.

    Attributes:
        axes: z, y and x.
        takes, gives: channels of one group of the source and of the result.
    """

    conv: Conv
    tiles: ConvTiles
    axes: tuple[Axis, Axis, Axis]
    groups: int
    takes: int
    gives: int

    @staticmethod
    def of(conv: Conv, target: Target) -> Gather:
        takes, gives = channels_of(conv)
        if conv.kind == "input_gradient":
            takes, gives = gives, takes
        tiles = ConvTiles.of(target, conv.result.dtype, gives)
        return Gather(conv, tiles, axes_of(conv), conv.groups, takes, gives)

    @property
    def channels(self) -> tuple[int, int]:
        """Of source and result."""
        return self.takes * self.groups, self.gives * self.groups

    @property
    def taps(self) -> int:
        """Weights of one pair of channels."""
        z, y, x = (axis.kernel for axis in self.axes)
        return z * y * x

    @property
    def multiplications(self) -> int:
        """For one pixel."""
        return self.taps * self.takes * self.gives * self.groups

    def combinations(self) -> Iterator[Combination]:
        """All classes of results."""
        z, y, x = (axis.classes for axis in self.axes)
        return itertools.product(z, y, x)

    # -- weights

    @property
    def panels(self) -> int:
        """Panels of one group."""
        return -(-self.gives // self.tiles.columns)

    @property
    def panel_columns(self) -> int:
        return self.tiles.columns

    @property
    def tap_size(self) -> int:
        """Weights of one tap of one panel."""
        return self.takes * self.tiles.columns

    @property
    def panel_size(self) -> int:
        """Weights of one panel."""
        return self.taps * self.tap_size

    @property
    def packs(self) -> bool:
        """Whether the weights must be packed: where they do not lie that way already."""
        alike = self.conv.kind == "forward" and self.gives == self.tiles.columns and self.groups == 1
        return not alike and self.panel_size > 0

    @property
    def workspace(self) -> Size:
        """Bytes of packed weights."""
        return self.groups * self.panels * self.panel_size * self.tiles.dtype.size if self.packs else 0

    def class_size(self, taps: Combination) -> int:
        """Weights of one panel that the results of one class meet."""
        z, y, x = taps
        return z.count * y.count * x.count * self.tap_size

    def weights_of(self, taps: Combination) -> tuple[int, int, int, int]:
        """Where in a panel the weights of a class begin, and how far they are apart along each axis."""
        before = itertools.takewhile(lambda other: other != taps, self.combinations())
        row = taps[2].count * self.tap_size
        return sum(map(self.class_size, before)), taps[1].count * row, row, self.tap_size

    # -- tiles

    def run_tile(self, pixels: int) -> AnyTile:
        """Tiles of neighbouring pixels."""
        x = self.axes[2]
        return self._tile(pixels, x.source_step * self.channels[0], len(x.classes) == 1)

    def low_tile(self) -> AnyTile:
        """Tiles of a few pixels any distance apart."""
        return self._tile(0, 0, self.axes[2].is_single)

    def _tile(self, pixels: int, between: int, all_taps: bool) -> AnyTile:
        z, y, x = self.axes
        whole = self.gives % self.tiles.columns == 0
        return Tile(
            self.tiles, pixels, between, not z.is_single, not y.is_single, x.classes[0].count if all_taps else 0,
            x.tap_step * self.channels[0], self.takes,
            "whole" if whole else "part" if self.panels == 1 else "either",
        )  # fmt: skip

    @property
    def body_length(self) -> int | None:
        """How many results of a row read inside with all taps, if that is known and the same for all classes."""
        lengths = {self._body_length(taps) for taps in self.axes[2].classes}
        return lengths.pop() if len(lengths) == 1 else None

    def _body_length(self, taps: Taps) -> int | None:
        x = self.axes[2]
        known = [size for size in (x.source, x.result, taps.base, taps.phase) if isinstance(size, int)]
        f = Function("")
        if len(known) < 4 or column_blocks(f, known[1]) != 1:
            return None
        source, result, base, phase = known
        low, high = body(f, x, taps, base, *results_between(f, x, phase, 0, result), source)
        assert isinstance(low, int)
        assert isinstance(high, int)
        return high - low

    @property
    def run_heights(self) -> tuple[int, ...]:
        """How many pixels the tiles of a row have: heights that make up its body, where that is known."""
        length = self.body_length
        return tuple(height for height, _ in heights(length, self.tiles.rows)) if length else (self.tiles.rows,)

    def used_tiles(self) -> list[AnyTile]:
        """The tiles that rows are made of."""
        tiles = [self.run_tile(height) for height in self.run_heights]
        only_runs = self.axes[2].inside and self.body_length is not None
        return tiles if only_runs else [*tiles, self.low_tile()]


def column_blocks(f: Function, columns: Int) -> Int:
    """Into how many blocks columns are cut."""
    return f.maximum(f.ceildiv(columns, UNIT_COLUMNS), 1)
