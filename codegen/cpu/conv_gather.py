"""Convolutions whose every result gathers what it sums: forward ones, and gradients in the input.

A unit of work is a box of the result: rows and columns of one plane, and some panels of its channels.  In it the panels
are outermost, so that the weights of one stay in the second cache; then the classes of results, then rows.  Of a row, the
part where all taps read inside is made of tiles of neighbouring pixels.  The pixels to its left and right are taken
column by column, since those below each other read alike.  So nothing is read outside the source, and no padding either.

How the result is cut depends on sizes alone, and no sum is cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from tensorc.codegen.cpu.conv_frame import Kernel, about_head, body_head
from tensorc.codegen.cpu.conv_geometry import Axis, Taps, axes_of, body, results_between, taps_inside
from tensorc.codegen.cpu.conv_tiles import ConvTiles, Tile
from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.cpu.matmul_tiles import call
from tensorc.codegen.cpu.packing import pack_function, pack_name
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.loopir import Conv
from tensorc.ir import dims
from tensorc.ir.dims import Size

UNIT = 1 << 21
"""Multiplications that make a unit worth its overhead."""

UNIT_ROWS, UNIT_COLUMNS = 8, 256
"""Rows a unit has at least, so that columns at the edges fill tiles; and columns it has at most, roughly."""

ENOUGH_UNITS = 32
"""Panels of channels are spread over units where there are fewer."""

Combination = tuple[Taps, Taps, Taps]


@dataclass(frozen=True)
class Gather:
    """A forward convolution or an input gradient, seen as the same thing.

    Attributes:
        source, result: which buffers are read and written.
        takes, gives: channels of one group of the source and of the result.
    """

    conv: Conv
    tiles: ConvTiles
    axes: tuple[Axis, Axis, Axis]
    takes: int
    gives: int

    @staticmethod
    def of(conv: Conv, target: Target) -> Gather:
        *_, per_group, outputs = conv.w.shape
        assert isinstance(per_group, int)
        assert isinstance(outputs, int)
        takes, gives = per_group, outputs // conv.groups
        if conv.kind == "input_gradient":
            takes, gives = gives, takes
        return Gather(conv, ConvTiles.of(target, conv.result.dtype, gives), axes_of(conv), takes, gives)

    @property
    def panels(self) -> int:
        """Panels of one group."""
        return -(-self.gives // self.tiles.columns)

    @property
    def taps(self) -> int:
        """Numbers of one kernel of one pair of channels."""
        z, y, x = (axis.kernel for axis in self.axes)
        return z * y * x

    @property
    def packs(self) -> bool:
        """Whether the weights must be packed: where they do not lie that way already."""
        z, y, x = self.axes
        alike = self.conv.kind == "forward" and self.gives == self.tiles.columns and self.conv.groups == 1
        return not alike and self.panel_size > 0

    @property
    def panel_size(self) -> int:
        """Elements of one panel."""
        return self.taps * self.takes * self.tiles.columns

    @property
    def pack_transposes(self) -> bool:
        return self.conv.kind == "input_gradient"

    def workspace(self) -> Size:
        """Bytes of packed weights."""
        return self.conv.groups * self.panels * self.panel_size * self.tiles.dtype.size if self.packs else 0

    def combinations(self) -> Iterator[Combination]:
        z, y, x = (axis.classes for axis in self.axes)
        return itertools.product(z, y, x)

    def class_size(self, taps: Combination) -> int:
        """Elements of one panel that the results of one class meet."""
        z, y, x = taps
        return z.count * y.count * x.count * self.takes * self.tiles.columns

    def body_heights(self) -> tuple[int, ...]:
        """How many pixels the tiles of a run have: of two heights that make up a row where its length is known."""
        z, y, x = self.axes
        rows = self.tiles.rows
        lengths = {self._body_length(taps) for taps in x.classes}
        if len(lengths) > 1 or None in lengths:
            return (rows,)
        (length,) = lengths
        assert length is not None
        return tuple(height for height, count in _heights(length, rows) if count) or (rows,)

    def _body_length(self, taps: Taps) -> int | None:
        """How long the body of a row is, if that is known."""
        x = self.axes[2]
        f = Function("")
        sizes = (x.source, x.result, taps.base, taps.phase)
        if not all(isinstance(size, int) for size in sizes) or column_blocks(f, x.result) != 1:
            return None
        source, result, base, phase = sizes
        start, stop = results_between(f, x, phase, 0, result)
        low, high = body(f, x, taps, base, start, stop, source)
        assert isinstance(low, int) and isinstance(high, int)
        return high - low


def _heights(length: int, most: int) -> list[tuple[int, int]]:
    """(height, how many) of as few tiles as cover a length, of heights that differ by one at most."""
    count = -(-length // most)
    if count == 0:
        return []
    height, more = divmod(length, count)
    return [(height + 1, more), (height, count - more)]


def column_blocks(f: Function, columns: Int) -> Int:
    """Into how many blocks columns are cut."""
    return f.maximum(f.ceildiv(columns, UNIT_COLUMNS), 1)


class GatherKernels:
    """Writes the kernels of one convolution that gathers."""

    def __init__(self, g: Gather) -> None:
        self.g = g
        self.t = g.tiles
        self.conv = g.conv
        self.name = g.conv.name
        self.heights = g.body_heights()
        z, y, x = g.axes
        self.channels = g.takes * g.conv.groups, g.gives * g.conv.groups

    def texts(self) -> list[str]:
        texts = [self.kernel(), self.units(), self.work()]
        if self.g.packs:
            texts += [self.pack(), self.pack_units(), self.pack_work()]
        return texts

    @property
    def only_runs(self) -> bool:
        """Whether rows are made of runs alone."""
        return self.g.axes[2].inside and self.g._body_length(self.g.axes[2].classes[0]) is not None and \
            len({self.g._body_length(t) for t in self.g.axes[2].classes}) == 1

    def only_heights(self, length: int) -> bool:
        """Whether the tiles that a row of known length is made of are there."""
        return all(height in self.heights for height, count in _heights(length, self.t.rows) if count)

    # -- tiles

    def run_tile(self, pixels: int) -> Tile:
        return self._tile(pixels, self.g.axes[2].source_step * self.channels[0], len(self.g.axes[2].classes) == 1)

    def low_tile(self) -> Tile:
        return self._tile(0, 0, self.g.axes[2].is_single)

    def _tile(self, pixels: int, between: int, all_taps: bool) -> Tile:
        z, y, x = self.g.axes
        whole = self.g.gives % self.t.columns == 0
        return Tile(
            self.t, pixels, between, not z.is_single, not y.is_single, x.classes[0].count if all_taps else 0,
            x.tap_step * self.channels[0], self.g.takes,
            "whole" if whole else "part" if self.g.panels == 1 else "either",
        )  # fmt: skip

    # -- the kernel

    def kernel(self) -> str:
        f = Kernel(self.conv, body_head(self.name))
        v = _Values.of(f, self.g)
        source, result = f.buffer(0), f.buffer(2)
        weights = f.buffer(len(self.conv.buffers) if self.g.packs else 1)
        grid = _Grid.of(f, self.g, v)
        places = {
            taps: (f.value(taps.base), f.value(taps.phase)) for axis in self.g.axes for taps in axis.classes
        }

        with f.loop("%lo", "%hi") as unit:
            b, z, row_block, column_block, panel_block = f.split(unit, v.result[0], grid.rows, grid.columns, grid.panels)
            y0, y1 = f.part(row_block, grid.rows, v.result[1])
            x0, x1 = f.part(column_block, grid.columns, v.result[2])
            p0, p1 = f.part(panel_block, grid.panels, self.conv.groups * self.g.panels)
            box = ((z, f.add(z, 1)), (y0, y1), (x0, x1))

            with f.loop(p0, p1) as panel:
                group, of_group = f.split(panel, self.g.panels)
                columns = f.minimum(f.sub(self.g.gives, f.mul(of_group, self.t.columns)), self.t.columns)
                read = f.at(source, f.add(f.product(b, v.source_plane, v.source[0]), f.mul(group, self.g.takes)), self.t.scalar)
                place = f.add(f.mul(group, self.g.gives), f.mul(of_group, self.t.columns))
                written = f.at(result, f.add(f.product(b, v.result_plane, v.result[0]), place), self.t.scalar)
                at = f.at(weights, f.mul(panel, self.g.panel_size), self.t.scalar)
                for taps in self.g.combinations():
                    _Class(self, f, v, taps, [places[each] for each in taps], box, read, at, written, columns).write()
                    at = f.at(at, self.g.class_size(taps), self.t.scalar)

            self._epilogue(f, b, box, self._channel_range(f, p0, p1))
        f.line("ret void")
        return f.text()

    def _channel_range(self, f: Function, p0: Int, p1: Int) -> tuple[Int, Int]:
        def channel(panel: Int) -> Int:
            group, of_group = f.div(panel, self.g.panels), f.rem(panel, self.g.panels)
            return f.add(f.mul(group, self.g.gives), f.minimum(f.mul(of_group, self.t.columns), self.g.gives))
        return channel(p0), channel(p1)

    def _epilogue(self, f: Kernel, b: Int, box: tuple[tuple[Int, Int], ...], columns: tuple[Int, Int]) -> None:
        if self.conv.epilogue is None:
            return
        rank = len(self.conv.strides)
        (z, _), (y0, y1), xs = box
        with f.loop(y0, y1) as y:
            f.epilogue([b, z, y][:1] + [z, y][3 - rank:], xs, columns)

    def units(self) -> str:
        f = Kernel(self.conv, about_head(self.name, "units"))
        v = _Values.of(f, self.g)
        grid = _Grid.of(f, self.g, v)
        some = f.less(0, f.product(v.result[1], v.result[2], self.channels[1]))
        count = f.product(v.batch, v.result[0], grid.rows, grid.columns, grid.panels)
        f.line(f"ret i64 {f.select(some, count, 0)}")
        return f.text()

    def work(self) -> str:
        f = Kernel(self.conv, about_head(self.name, "work"))
        pixels = f.product(*map(f.value, self.conv.y.shape[:-1]))
        count = f.product(2, pixels, self.g.taps, self.g.takes, self.channels[1])
        f.line(f"ret i64 {f.div(count, self.t.lanes)}")
        return f.text()

    # -- packing

    def pack(self) -> str:
        """Unit number p packs panel p: for each class the taps that it uses, in the order in which it reads."""
        f = Kernel(self.conv, body_head(f"{self.name}_pack"))
        weights, packed = f.buffer(1), f.buffer(len(self.conv.buffers))
        z, y, x = self.g.axes
        outputs = self.conv.w.shape[-1]
        per_group = self.conv.w.shape[-2]
        assert isinstance(outputs, int) and isinstance(per_group, int)
        one = per_group * outputs

        with f.loop("%lo", "%hi") as panel:
            group, of_group = f.split(panel, self.g.panels)
            first = f.mul(of_group, self.t.columns)
            columns = f.minimum(f.sub(self.g.gives, first), self.t.columns)
            if self.g.pack_transposes:
                start = f.add(f.mul(group, outputs // self.conv.groups), f.mul(first, outputs))
            else:
                start = f.add(f.mul(group, self.g.gives), first)
            target = f.mul(panel, self.g.panel_size)
            for tz, ty, tx in self.g.combinations():
                with f.loop(0, tz.count) as jz, f.loop(0, ty.count) as jy, f.loop(0, tx.count) as jx:
                    def number(taps: Taps, j: Int) -> Int:
                        return f.add(taps.first, f.mul(j, taps.stride))
                    tap = f.add(f.mul(f.add(f.mul(number(tz, jz), y.kernel), number(ty, jy)), x.kernel), number(tx, jx))
                    order = f.add(f.mul(f.add(f.mul(jz, ty.count), jy), tx.count), jx)
                    to = f.add(target, f.mul(order, self.g.takes * self.t.columns))
                    call(
                        f, pack_name(self.t, self.g.pack_transposes),
                        ("ptr", f.at(weights, f.add(start, f.mul(tap, one)), self.t.scalar)), ("i64", outputs),
                        ("ptr", f.at(packed, to, self.t.scalar)), ("i64", columns), ("i64", self.g.takes),
                    )  # fmt: skip
                target = f.add(target, self.g.class_size((tz, ty, tx)))
        f.line("ret void")
        return f.text()

    def pack_units(self) -> str:
        f = Function(about_head(f"{self.name}_pack", "units"))
        f.line(f"ret i64 {self.conv.groups * self.g.panels}")
        return f.text()

    def pack_work(self) -> str:
        f = Function(about_head(f"{self.name}_pack", "work"))
        f.line(f"ret i64 {self.conv.groups * self.g.panels * self.g.panel_size}")
        return f.text()

    def phases(self) -> tuple[str, ...]:
        return (f"{self.name}_pack", self.name) if self.g.packs else (self.name,)

    def workspace(self) -> Size:
        return self.g.workspace()

    def shared(self) -> dict[str, str]:
        """The functions that this convolution calls, by name."""
        tiles = [self.run_tile(height) for height in self.heights]
        if not self.only_runs:
            tiles.append(self.low_tile())
        texts = {tile.name: tile.text for tile in tiles}
        if self.g.packs:
            texts[pack_name(self.t, self.g.pack_transposes)] = pack_function(self.t, self.g.pack_transposes)
        return texts


@dataclass(frozen=True)
class _Values:
    """Sizes inside a function; steps are in elements."""

    batch: Int
    source: tuple[Int, ...]
    result: tuple[Int, ...]
    source_row: Int
    source_plane: Int
    result_row: Int
    result_plane: Int

    @staticmethod
    def of(f: Kernel, g: Gather) -> _Values:
        source = tuple(f.value(axis.source) for axis in g.axes)
        result = tuple(f.value(axis.result) for axis in g.axes)
        source_row = f.mul(source[2], g.takes * g.conv.groups)
        result_row = f.mul(result[2], g.gives * g.conv.groups)
        return _Values(
            f.value(g.conv.x.shape[0]), source, result,
            source_row, f.mul(source_row, source[1]), result_row, f.mul(result_row, result[1]),
        )  # fmt: skip


@dataclass(frozen=True)
class _Grid:
    """Into how many blocks rows, columns and panels are cut."""

    rows: Int
    columns: Int
    panels: Int

    @staticmethod
    def of(f: Kernel, g: Gather, v: _Values) -> _Grid:
        columns = column_blocks(f, v.result[2])
        width = f.div(f.add(v.result[2], f.sub(columns, 1)), columns)
        of_row = f.maximum(f.product(width, g.taps * g.takes * g.gives * g.conv.groups), 1)
        height = f.maximum(f.div(UNIT, of_row), UNIT_ROWS)
        rows = f.maximum(f.div(v.result[1], height), 1)
        boxes = f.maximum(f.product(v.batch, v.result[0], rows, columns), 1)
        panels = f.minimum(f.maximum(f.div(ENOUGH_UNITS, boxes), 1), g.panels * g.conv.groups)
        return _Grid(rows, columns, panels)


class _Class:
    """Writes the code for the results of one class in one box and one panel."""

    def __init__(self, kernels: GatherKernels, f: Kernel, v: _Values, taps: Combination, known: list[tuple[Int, Int]],
                 box: tuple[tuple[Int, Int], ...], source: str, weights: str, result: str, columns: Int) -> None:
        self.k, self.f, self.v, self.taps, self.known = kernels, f, v, taps, known
        self.source, self.weights, self.result, self.columns = source, weights, result, columns
        self.axes = kernels.g.axes
        self.ranges = [
            results_between(f, axis, phase, *extent)
            for axis, (_, phase), extent in zip(self.axes, known, box, strict=True)
        ]

    def write(self) -> None:
        f = self.f
        _, y, x = (
            (*self.ranges[a], *body(f, self.axes[a], self.taps[a], self.known[a][0], *self.ranges[a], self.v.source[a]))
            for a in range(3)
        )
        y_start, y_stop, y_low, y_high = y
        x_start, x_stop, x_low, x_high = x
        with f.loop(*self.ranges[0]) as tz:
            z_taps = self.inside(0, tz)
            with f.loop(y_start, y_stop) as ty:
                self.row(z_taps, tz, ty, x_low, x_high)
            if not self.axes[2].inside:
                left = f.sub(x_low, x_start)
                with f.loop(0, f.add(left, f.sub(x_stop, x_high))) as edge:
                    right = f.add(x_high, f.sub(edge, left))
                    tx = f.select(f.less(edge, left), f.add(x_start, edge), right)
                    self.column(z_taps, tz, tx, y_start, y_low, y_high, y_stop)

    def column(self, z_taps: tuple[Int, Int], tz: Int, tx: Int, start: Int, low: Int, high: Int, stop: Int) -> None:
        """Results start … stop − 1 below each other: those from low to high read alike, the others one by one."""
        f = self.f
        above, middle = f.sub(low, start), f.sub(high, low)
        some = f.minimum(middle, 1)
        with f.loop(0, f.add(f.add(above, some), f.sub(stop, high))) as part:
            is_middle = f.both(f.equal(part, above), f.less(0, middle))
            below = f.select(f.less(above, part), f.sub(middle, some), 0)
            ty = f.add(f.add(start, part), below)
            self.low(z_taps, tz, ty, tx, f.select(is_middle, middle, 1))

    def inside(self, a: int, t: Int) -> tuple[Int, Int]:
        return taps_inside(self.f, self.axes[a], self.taps[a], self.known[a][0], t, self.v.source[a])

    def row(self, z_taps: tuple[Int, Int], tz: Int, ty: Int, low: Int, high: Int) -> None:
        """Results low … high − 1 of a row."""
        f, t = self.f, self.k.t
        length = f.sub(high, low)
        x_taps = (0, self.taps[2].count)
        step = self.axes[2].result_step
        if isinstance(length, int) and self.k.only_heights(length):
            for height, count in _heights(length, t.rows):
                if count:
                    self.call(self.k.run_tile(height), z_taps, x_taps, tz, ty, low, count)
                low = f.add(low, height * count)
            return
        rows = self.k.heights[0]
        tiles = f.div(length, rows)
        self.call(self.k.run_tile(rows), z_taps, x_taps, tz, ty, low, tiles)
        done = f.mul(tiles, rows)
        between = self.axes[2].source_step * self.k.channels[0]
        with f.when(f.less(done, length)):
            self.call(self.k.low_tile(), z_taps, x_taps, tz, ty, f.add(low, done), f.sub(length, done), between)

    def low(self, z_taps: tuple[Int, Int], tz: Int, ty: Int, tx: Int, count: Int) -> None:
        """`count` results below each other, which read alike."""
        between = self.f.mul(self.v.source_row, self.axes[1].source_step)
        self.call(self.k.low_tile(), z_taps, self.inside(2, tx), tz, ty, tx, count, between, below=True)

    def call(self, tile: Tile, z_taps: tuple[Int, Int], x_taps: tuple[Int, Int], tz: Int, ty: Int, tx: Int,
             count: Int, between: Int = 0, below: bool = False) -> None:
        f, v, t = self.f, self.v, self.k.t
        y_taps = self.inside(1, ty)
        read = self.k.channels[0]
        steps = (v.source_plane, v.source_row, read)
        source: Int = 0
        for axis, (base, _), at, (first, _), step in zip(
            self.axes, self.known, (tz, ty, tx), (z_taps, y_taps, x_taps), steps, strict=True
        ):
            place = f.add(f.add(f.mul(at, axis.source_step), base), f.mul(first, axis.tap_step))
            source = f.add(source, f.mul(place, step))
        result: Int = 0
        for axis, (_, phase), at, step in zip(
            self.axes, self.known, (tz, ty, tx), (v.result_plane, v.result_row, self.k.channels[1]), strict=True
        ):
            result = f.add(result, f.mul(f.add(f.mul(at, axis.result_step), phase), step))
        tap = self.k.g.takes * t.columns
        x_weights = tap
        y_weights = self.taps[2].count * tap
        z_weights = self.taps[1].count * y_weights
        weights = f.add(f.add(f.mul(z_taps[0], z_weights), f.mul(y_taps[0], y_weights)), f.mul(x_taps[0], x_weights))
        pixel = (self.axes[1].result_step, v.result_row) if below else (self.axes[2].result_step, self.k.channels[1])
        call(
            f, tile.name, ("ptr", f.at(self.source, source, t.scalar)),
            ("ptr", f.at(self.weights, weights, t.scalar)), ("ptr", f.at(self.result, result, t.scalar)),
            ("i64", f.mul(*pixel)), ("i64", self.columns),
            ("i64", z_taps[1]), ("i64", f.mul(v.source_plane, self.axes[0].tap_step)), ("i64", z_weights),
            ("i64", y_taps[1]), ("i64", f.mul(v.source_row, self.axes[1].tap_step)), ("i64", y_weights),
            ("i64", x_taps[1]), ("i64", count), ("i64", between),
        )  # fmt: skip
