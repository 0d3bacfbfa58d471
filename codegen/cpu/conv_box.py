"""The results of one class in a box of the result, for one panel of channels.

Of a row, the part where all taps read inside is made of tiles of neighbouring pixels.  The pixels to its left and right
are taken column by column, since those below each other read alike.  So nothing is read outside the source, and no
padding either.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorc.codegen.cpu.conv_frame import Kernel
from tensorc.codegen.cpu.conv_gather import Combination, Gather
from tensorc.codegen.cpu.conv_geometry import body, results_between, taps_inside
from tensorc.codegen.cpu.conv_tiles import AnyTile, heights
from tensorc.codegen.cpu.function import Int
from tensorc.codegen.cpu.matmul_tiles import call

Range = tuple[Int, Int]


@dataclass(frozen=True)
class Sizes:
    """The sizes of a convolution inside a function; z, y and x each, steps in elements.

    Attributes:
        places: for each class along an axis where it begins to read and to write.
    """

    batch: Int
    source: tuple[Int, ...]
    result: tuple[Int, ...]
    source_steps: tuple[Int, ...]
    result_steps: tuple[Int, ...]
    places: dict[tuple[int, int], tuple[Int, Int]]

    @staticmethod
    def of(f: Kernel, g: Gather) -> Sizes:
        source = tuple(f.value(axis.source) for axis in g.axes)
        result = tuple(f.value(axis.result) for axis in g.axes)
        places = {
            (a, number): (f.value(taps.base), f.value(taps.phase))
            for a, axis in enumerate(g.axes)
            for number, taps in enumerate(axis.classes)
        }
        read, written = g.channels
        batch = f.value(g.conv.x.shape[0])
        return Sizes(batch, source, result, f.steps(source, read), f.steps(result, written), places)


@dataclass(frozen=True)
class Box:
    """Where a box lies.

    Attributes:
        source, result: pointers to the image's first pixel, at the first channel that matters.
        weights: pointer to the panel.
        columns: of the panel that exist.
        extents: of the box along z, y and x.
    """

    source: str
    weights: str
    result: str
    columns: Int
    extents: tuple[Range, Range, Range]


def box_of_class(f: Kernel, g: Gather, sizes: Sizes, taps: Combination, box: Box) -> None:
    """Writes the code for the results of one class in one box."""
    _BoxWriter(f, g, sizes, taps, box).write()


class _BoxWriter:
    """One class in one box while its code is being written; t counts the results of the class along an axis."""

    def __init__(self, f: Kernel, g: Gather, sizes: Sizes, taps: Combination, box: Box) -> None:
        self.f, self.g, self.sizes, self.taps, self.box = f, g, sizes, taps, box
        numbers = [axis.classes.index(of) for axis, of in zip(g.axes, taps, strict=True)]
        self.bases, self.phases = zip(*(sizes.places[a, number] for a, number in enumerate(numbers)), strict=True)
        self.ranges = [
            results_between(f, axis, phase, *extent)
            for axis, phase, extent in zip(g.axes, self.phases, box.extents, strict=True)
        ]

    def write(self) -> None:
        f = self.f
        ys, (start, stop) = self.ranges[1], self.ranges[2]
        low, high = self.body(2)
        middle = self.body(1)

        with f.loop(*self.ranges[0]) as z:
            with f.loop(*ys) as y:
                self.row(z, y, low, high)
            if not self.g.axes[2].inside:
                left = f.sub(low, start)
                with f.loop(0, f.add(left, f.sub(stop, high))) as edge:
                    right = f.add(high, f.sub(edge, left))
                    self.column(z, f.select(f.less(edge, left), f.add(start, edge), right), ys, middle)

    def body(self, a: int) -> Range:
        return body(self.f, self.g.axes[a], self.taps[a], self.bases[a], *self.ranges[a], self.sizes.source[a])

    def row(self, z: Int, y: Int, low: Int, high: Int) -> None:
        """Results low … high − 1 of a row."""
        f, g = self.f, self.g
        between = g.axes[2].source_step * g.channels[0]
        step = g.axes[2].result_step * g.channels[1]
        all_taps = 0, self.taps[2].count

        if g.body_length is not None:
            for height, count in heights(g.body_length, g.tiles.rows):
                self.call(g.run_tile(height), (z, y, low), all_taps, step, count, between)
                low = f.add(low, height * count)
            return

        (rows,) = g.run_heights
        tiles = f.div(f.sub(high, low), rows)
        self.call(g.run_tile(rows), (z, y, low), all_taps, step, tiles, between)
        low = f.add(low, f.mul(tiles, rows))
        with f.when(f.less(low, high)):
            self.call(g.low_tile(), (z, y, low), all_taps, step, f.sub(high, low), between)

    def column(self, z: Int, x: Int, whole: Range, middle: Range) -> None:
        """Results below each other: those in the middle read alike, the others one by one."""
        f, g, sizes = self.f, self.g, self.sizes
        (start, stop), (low, high) = whole, middle
        above, length = f.sub(low, start), f.sub(high, low)
        some = f.minimum(length, 1)
        between = f.mul(sizes.source_steps[1], g.axes[1].source_step)
        step = f.mul(sizes.result_steps[1], g.axes[1].result_step)

        with f.loop(0, f.add(f.add(above, some), f.sub(stop, high))) as part:
            alike = f.both(f.equal(part, above), f.less(0, length))
            passed = f.select(f.less(above, part), f.sub(length, some), 0)
            y = f.add(f.add(start, part), passed)
            self.call(g.low_tile(), (z, y, x), self.inside(2, x), step, f.select(alike, length, 1), between)

    def inside(self, a: int, t: Int) -> Range:
        """The first of the taps of t that read inside, and how many there are."""
        return taps_inside(self.f, self.g.axes[a], self.taps[a], self.bases[a], t, self.sizes.source[a])

    def call(self, tile: AnyTile, at: tuple[Int, Int, Int], x_taps: Range, step: Int, count: Int, between: Int) -> None:
        """Calls a tile function for the result at `at` and what lies beside or below it."""
        f, g, sizes = self.f, self.g, self.sizes
        used = self.inside(0, at[0]), self.inside(1, at[1]), x_taps
        weights: Int
        weights, *weight_steps = g.weights_of(self.taps)
        source: Int = 0
        result: Int = 0

        for a, axis in enumerate(g.axes):
            first, _ = used[a]
            read = f.add(f.add(f.mul(at[a], axis.source_step), self.bases[a]), f.mul(first, axis.tap_step))
            written = f.add(f.mul(at[a], axis.result_step), self.phases[a])
            source = f.add(source, f.mul(read, sizes.source_steps[a]))
            result = f.add(result, f.mul(written, sizes.result_steps[a]))
            weights = f.add(weights, f.mul(first, weight_steps[a]))

        z_source, y_source = (f.mul(sizes.source_steps[a], g.axes[a].tap_step) for a in range(2))
        z_weights, y_weights, _ = weight_steps
        scalar = g.tiles.scalar
        call(
            f, tile.name, ("ptr", f.at(self.box.source, source, scalar)),
            ("ptr", f.at(self.box.weights, weights, scalar)), ("ptr", f.at(self.box.result, result, scalar)),
            ("i64", step), ("i64", self.box.columns),
            ("i64", used[0][1]), ("i64", z_source), ("i64", z_weights),
            ("i64", used[1][1]), ("i64", y_source), ("i64", y_weights),
            ("i64", used[2][1]), ("i64", count), ("i64", between),
        )  # fmt: skip
