"""The kernels of a convolution that gathers: packing the weights, and the convolution itself.

A unit of work is a box of the result: rows and columns of one plane, and some panels of its channels.  Panels are
outermost in it, so that the weights of one stay in the second cache; then the classes of results, then rows.

How the result is cut depends on sizes alone, and no sum is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorc.codegen.cpu.conv_box import Box, Sizes, box_of_class
from tensorc.codegen.cpu.conv_frame import Kernel, about_head, body_head
from tensorc.codegen.cpu.conv_gather import Combination, Gather, column_blocks
from tensorc.codegen.cpu.conv_geometry import Taps
from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.cpu.matmul_tiles import call
from tensorc.codegen.cpu.packing import pack_function, pack_name
from tensorc.codegen.loopir import AGE
from tensorc.ir import dims
from tensorc.ir.dims import Size

UNIT = 1 << 21
"""Multiplications that make a unit worth its overhead."""

UNIT_ROWS = 8
"""Rows of a unit at least, so that columns at the edges fill tiles."""

ENOUGH_UNITS = 32
"""Panels of channels are spread over units where there are fewer."""


class GatherKernels:
    """Writes the kernels of one convolution that gathers."""

    def __init__(self, gather: Gather) -> None:
        self.g = gather
        self.t = gather.tiles
        self.conv = gather.conv
        self.name = gather.conv.name
        self.transposes = gather.conv.kind == "input_gradient"

    def texts(self) -> list[str]:
        texts = [self.kernel(), self.units(), self.work()]
        return [*texts, self.pack(), self.pack_units(), self.pack_work()] if self.g.packs else texts

    def shared(self) -> dict[str, str]:
        """The functions that the kernels call, by name."""
        texts = {tile.name: tile.text for tile in self.g.used_tiles()}
        if self.g.packs:
            texts[pack_name(self.t, self.transposes)] = pack_function(self.t, self.transposes)
        return texts

    def phases(self) -> tuple[str, ...]:
        return (f"{self.name}_pack", self.name) if self.g.packs else (self.name,)

    def workspace(self) -> Size:
        return self.g.workspace

    # -- the convolution

    def kernel(self) -> str:
        f = Kernel(self.conv, body_head(self.name))
        g = self.g
        sizes = Sizes.of(f, g)
        source, result = f.buffer(0), f.buffer(2)
        weights = f.buffer(len(self.conv.buffers) if g.packs else 1)
        grid = _Grid.of(f, g, sizes)

        with f.loop("%lo", "%hi") as unit:
            b, z, rows, columns, some = f.split(unit, sizes.result[0], grid.rows, grid.columns, grid.panels)
            ys = f.part(rows, grid.rows, sizes.result[1])
            xs = f.part(columns, grid.columns, sizes.result[2])
            panels = f.part(some, grid.panels, g.groups * g.panels)
            read = f.at(source, f.product(b, sizes.source[0], sizes.source_steps[0]), self.t.scalar)
            written = f.at(result, f.product(b, sizes.result[0], sizes.result_steps[0]), self.t.scalar)

            with f.loop(*panels) as panel:
                group, of_group = f.split(panel, g.panels)
                first = f.mul(of_group, g.panel_columns)
                box = Box(
                    source=f.at(read, f.mul(group, g.takes), self.t.scalar),
                    weights=f.at(weights, f.mul(panel, g.panel_size), self.t.scalar),
                    result=f.at(written, f.add(f.mul(group, g.gives), first), self.t.scalar),
                    columns=f.minimum(f.sub(g.gives, first), g.panel_columns),
                    extents=((z, f.add(z, 1)), ys, xs),
                )
                for taps in g.combinations():
                    box_of_class(f, g, sizes, taps, box)

            if self.conv.epilogue is not None:
                channels = self._first_channel(f, panels[0]), self._first_channel(f, panels[1])
                with f.loop(*ys) as y:
                    f.epilogue([b, *[z, y][3 - len(self.conv.strides):]], xs, channels)
        f.line("ret void")
        return f.text()

    def _first_channel(self, f: Function, panel: Int) -> Int:
        group, of_group = f.div(panel, self.g.panels), f.rem(panel, self.g.panels)
        return f.add(f.mul(group, self.g.gives), f.minimum(f.mul(of_group, self.g.panel_columns), self.g.gives))

    def units(self) -> str:
        f = Kernel(self.conv, about_head(self.name, "units"))
        sizes = Sizes.of(f, self.g)
        grid = _Grid.of(f, self.g, sizes)
        some = f.less(0, f.product(sizes.result[1], sizes.result[2], self.g.channels[1]))
        count = f.product(sizes.batch, sizes.result[0], grid.rows, grid.columns, grid.panels)
        f.line(f"ret i64 {f.select(some, count, 0)}")
        return f.text()

    def work(self) -> str:
        f = Kernel(self.conv, about_head(self.name, "work"))
        pixels = f.product(*map(f.value, self.conv.y.shape[:-1]))
        f.line(f"ret i64 {f.div(f.product(2, pixels, self.g.multiplications), self.t.lanes)}")
        return f.text()

    # -- packing

    def pack(self) -> str:
        """Unit number p packs panel p: for each class the taps that it uses, in the order in which it reads."""
        f = Kernel(self.conv, body_head(f"{self.name}_pack"))
        g = self.g
        weights, packed = f.buffer(1), f.buffer(len(self.conv.buffers))
        row = g.channels[0] if self.transposes else g.channels[1]

        with f.loop("%lo", "%hi") as panel:
            group, of_group = f.split(panel, g.panels)
            first = f.mul(of_group, g.panel_columns)
            columns = f.minimum(f.sub(g.gives, first), g.panel_columns)
            if self.transposes:
                start = f.add(f.mul(group, g.takes), f.mul(first, row))
            else:
                start = f.add(f.mul(group, g.gives), first)
            target = f.mul(panel, g.panel_size)
            for taps in g.combinations():
                self._pack_class(f, taps, f.at(weights, start, self.t.scalar), row, columns,
                                 f.at(packed, target, self.t.scalar))
                target = f.add(target, g.class_size(taps))
        f.line("ret void")
        return f.text()

    def _pack_class(self, f: Function, taps: Combination, source: str, row: int, columns: Int, target: str) -> None:
        """One panel's weights of one class; rows of weights are `row` apart."""
        g = self.g
        tz, ty, tx = taps
        _, ky, kx = (axis.kernel for axis in g.axes)

        def number(of: Taps, j: str) -> Int:
            return f.add(of.first, f.mul(j, of.stride))

        with f.loop(0, tz.count) as z, f.loop(0, ty.count) as y, f.loop(0, tx.count) as x:
            tap = f.add(f.mul(f.add(f.mul(number(tz, z), ky), number(ty, y)), kx), number(tx, x))
            order = f.add(f.mul(f.add(f.mul(z, ty.count), y), tx.count), x)
            size = g.takes * g.gives * g.groups
            call(
                f, pack_name(self.t, self.transposes),
                ("ptr", f.at(source, f.mul(tap, size), self.t.scalar)), ("i64", row),
                ("ptr", f.at(target, f.mul(order, g.tap_size), self.t.scalar)), ("i64", columns), ("i64", g.takes),
            )  # fmt: skip

    def pack_units(self) -> str:
        return self._about_packing("units", self.g.groups * self.g.panels)

    def pack_work(self) -> str:
        return self._about_packing("work", self.g.groups * self.g.panels * self.g.panel_size)

    def _about_packing(self, what: str, count: int) -> str:
        """A function that tells `count`, or 0 where the panels are kept and the weights have not changed."""
        f = Kernel(self.conv, about_head(f"{self.name}_pack", what))
        changed = f.equal(f.value(dims.symbol(AGE)), 0) if AGE in self.conv.sizes else True
        f.line(f"ret i64 {f.select(changed, count, 0)}")
        return f.text()


@dataclass(frozen=True)
class _Grid:
    """Into how many blocks rows, columns and panels are cut."""

    rows: Int
    columns: Int
    panels: Int

    @staticmethod
    def of(f: Function, g: Gather, sizes: Sizes) -> _Grid:
        columns = column_blocks(f, sizes.result[2])
        width = f.div(f.add(sizes.result[2], f.sub(columns, 1)), columns)
        of_row = f.maximum(f.mul(width, g.multiplications), 1)
        height = f.maximum(f.div(UNIT, of_row), UNIT_ROWS)
        rows = f.maximum(f.div(sizes.result[1], height), 1)
        boxes = f.maximum(f.product(sizes.batch, sizes.result[0], rows, columns), 1)
        panels = f.minimum(f.maximum(f.div(ENOUGH_UNITS, boxes), 1), max(g.panels * g.groups, 1))
        return _Grid(rows, columns, panels)
