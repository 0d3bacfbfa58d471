"""Weight gradients of convolutions: sums over all pixels of all images.

Pixels are taken in strips, so few that they stay in the first caches while all weights take their part of them.  Chunks
of strips have sums of their own, which a second phase adds up in order; weights too large for that are cut by panels of
columns instead.  A unit of work is a chunk and some panels.  Sizes alone decide about strips and chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tensorc.codegen.cpu.conv_frame import Kernel, about_head, body_head, channels_of
from tensorc.codegen.cpu.conv_tiles import AnyTile, ConvTiles, heights
from tensorc.codegen.cpu.conv_weight_tiles import WeightTile, weight_tiles
from tensorc.codegen.cpu.function import Bit, Int
from tensorc.codegen.cpu.matmul_tiles import call
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.loopir import Conv
from tensorc.ir.dims import Size

V = TypeVar("V")

STRIP = 192
"""Pixels of a strip, roughly."""

UNIT = 1 << 21
"""Multiplications that make a chunk worth the sums of its own."""

ENOUGH_UNITS = 32

CHUNK_BYTES = 1 << 21
"""Bytes that the sums of all chunks may take."""

SUM_BLOCK = 4096
"""Weights that one unit of the second phase adds up."""


@dataclass(frozen=True)
class WeightGradient:
    """What is known of a weight gradient."""

    conv: Conv
    tiles: ConvTiles
    kernel: tuple[int, int, int]
    strides: tuple[int, int, int]
    dilations: tuple[int, int, int]
    low: tuple[Size, Size, Size]
    x_sizes: tuple[Size, Size, Size]
    y_sizes: tuple[Size, Size, Size]
    groups: int
    inputs: int
    outputs: int

    @staticmethod
    def of(conv: Conv, target: Target) -> WeightGradient:
        inputs, outputs = channels_of(conv)
        kernel = [size for size in conv.w.shape[:-2] if isinstance(size, int)]
        return WeightGradient(
            conv, weight_tiles(target, conv.w.dtype, inputs, outputs),
            _three(kernel, 1), _three(conv.strides, 1), _three(conv.dilations, 1), _three(conv.low, 0),
            _three(conv.x.shape[1:-1], 1), _three(conv.y.shape[1:-1], 1), conv.groups, inputs, outputs,
        )  # fmt: skip

    @property
    def taps(self) -> int:
        z, y, x = self.kernel
        return z * y * x

    @property
    def size(self) -> int:
        """How many weights there are."""
        return self.taps * self.inputs * self.columns

    @property
    def columns(self) -> int:
        """Of all groups: channels of y."""
        return self.outputs * self.groups

    @property
    def x_channels(self) -> int:
        return self.inputs * self.groups

    @property
    def panel_columns(self) -> int:
        """Columns of a panel."""
        return self.tiles.columns

    @property
    def panels(self) -> int:
        """Panels of one group."""
        return -(-self.outputs // self.tiles.columns)

    @property
    def most_chunks(self) -> int:
        of_one = max(self.size * self.tiles.dtype.size, 1)
        return max(min(CHUNK_BYTES // of_one, ENOUGH_UNITS), 1)

    def tile(self, rows: int) -> AnyTile:
        x_step = self.strides[2] * self.x_channels
        return WeightTile(self.tiles, rows, x_step, self.columns, self.columns, self.outputs % self.tiles.columns == 0)

    def heights(self) -> list[tuple[int, int]]:
        return heights(self.inputs, self.tiles.rows)


def _three(values: Sequence[V], missing: V) -> tuple[V, V, V]:
    """Values for z, y and x, where the axes that are not there come first."""
    z, y, x = [*[missing] * (3 - len(values)), *values]
    return z, y, x


class WeightKernels:
    """Writes the kernels of one weight gradient."""

    def __init__(self, w: WeightGradient) -> None:
        self.w = w
        self.t = w.tiles
        self.conv = w.conv
        self.name = w.conv.name

    def texts(self) -> list[str]:
        texts = [self.kernel(), self.units(), self.work()]
        if self.adds:
            texts += [self.sum(), self.sum_units(), self.sum_work()]
        return texts

    @property
    def adds(self) -> bool:
        """Whether there is a second phase."""
        return self.w.most_chunks > 1 or self.conv.epilogue is not None

    def phases(self) -> tuple[str, ...]:
        return (self.name, f"{self.name}_sum") if self.adds else (self.name,)

    def workspace(self) -> Size:
        return (self.w.most_chunks - 1) * self.w.size * self.t.dtype.size

    def shared(self) -> dict[str, str]:
        tiles = [self.w.tile(rows) for rows, _ in self.w.heights()]
        return {tile.name: tile.text for tile in tiles}

    # -- the sums

    def kernel(self) -> str:
        f = Kernel(self.conv, body_head(self.name))
        v = _Values.of(f, self.w)
        x, y, weights = (f.buffer(index) for index in range(3))
        sums = f.buffer(len(self.conv.buffers)) if self.w.most_chunks > 1 else weights

        with f.loop("%lo", "%hi") as unit:
            chunk, part = f.split(unit, v.parts)
            p0, p1 = f.part(part, v.parts, self.w.panels * self.w.groups)
            s0, s1 = f.part(chunk, v.chunks, v.strips)
            later = f.at(sums, f.mul(f.sub(chunk, 1), self.w.size), self.t.scalar)
            own = f.let(f"select i1 {f.bit(f.equal(chunk, 0))}, ptr {weights}, ptr {later}")
            self._clear(f, own, p0, p1)
            with f.loop(s0, s1) as strip, f.loop(p0, p1) as panel:
                self._strip(f, v, x, y, own, strip, panel)
        f.line("ret void")
        return f.text()

    def _column(self, f: Kernel, panel: Int) -> Int:
        """The first column of a panel."""
        group, of_group = f.split(panel, self.w.panels)
        return f.add(f.mul(group, self.w.outputs), f.mul(of_group, self.w.panel_columns))

    def _clear(self, f: Kernel, own: str, p0: Int, p1: Int) -> None:
        """Zeros in the columns of panels p0 … p1 − 1."""
        t, w = self.t, self.w
        kind = t.instructions(f, t.lanes).T
        start, stop = self._column(f, p0), f.minimum(self._column(f, p1), w.columns)
        whole = f.floor_to(f.sub(stop, start), t.lanes)
        with f.loop(0, w.taps * w.inputs) as row:
            at = f.at(own, f.add(f.mul(row, w.columns), start), t.scalar)
            with f.loop(0, whole, t.lanes) as j:
                f.store(kind, "zeroinitializer", f.at(at, j, t.scalar), t.dtype.size)
            with f.loop(whole, f.sub(stop, start)) as j:
                f.store(t.scalar, "zeroinitializer", f.at(at, j, t.scalar))

    def _strip(self, f: Kernel, v: _Values, x_buffer: str, y_buffer: str, sums: str, strip: Int, panel: Int) -> None:
        """Adds what one strip gives to one panel of all taps."""
        w = self.w
        b, plane, rows, columns_of_strip = f.split(strip, v.y_sizes[0], v.row_blocks, v.column_blocks)
        box = (
            (plane, f.add(plane, 1)),
            f.part(rows, v.row_blocks, v.y_sizes[1]),
            f.part(columns_of_strip, v.column_blocks, v.y_sizes[2]),
        )
        group, of_group = f.split(panel, w.panels)
        columns = f.minimum(f.sub(w.outputs, f.mul(of_group, w.panel_columns)), w.panel_columns)
        column = self._column(f, panel)
        x_at = f.add(f.product(b, v.x_sizes[0], v.x_steps[0]), f.mul(group, w.inputs))
        y_at = f.add(f.product(b, v.y_sizes[0], v.y_steps[0]), column)
        x_of_panel, y_of_panel = f.at(x_buffer, x_at, self.t.scalar), f.at(y_buffer, y_at, self.t.scalar)

        kz, ky, kx = w.kernel
        with f.loop(0, kz) as z:
            zs = self._meeting(f, v, 0, z, box[0])
            with f.loop(0, ky) as y:
                ys = self._meeting(f, v, 1, y, box[1])
                with f.loop(0, kx) as x:
                    xs = self._meeting(f, v, 2, x, box[2])
                    some: Bit = True
                    for pixels in (zs, ys, xs):
                        some = f.both(some, f.less(*pixels))
                    tap = f.add(f.mul(f.add(f.mul(z, ky), y), kx), x)
                    with f.when(some):
                        first = f.add(f.mul(tap, w.inputs * w.columns), column)
                        of_panel = (x_of_panel, y_of_panel, f.at(sums, first, self.t.scalar))
                        self._tap(f, v, (z, y, x), (zs, ys, xs), of_panel, columns)

    def _meeting(self, f: Kernel, v: _Values, a: int, tap: Int, of: tuple[Int, Int]) -> tuple[Int, Int]:
        """The pixels of y, among `of`, for which a tap reads inside."""
        w = self.w
        ahead = f.sub(v.low[a], f.mul(tap, w.dilations[a]))
        first = f.ceildiv(f.maximum(ahead, 0), w.strides[a])
        after = f.ceildiv(f.maximum(f.add(v.x_sizes[a], ahead), 0), w.strides[a])
        return f.maximum(first, of[0]), f.minimum(after, of[1])

    def _tap(self, f: Kernel, v: _Values, tap: tuple[Int, ...], pixels: tuple[tuple[Int, Int], ...],
             pointers: tuple[str, str, str], columns: Int) -> None:
        """Adds what some pixels of y give to one tap; the pointers lead to x, y and sums of one panel."""
        t, w = self.t, self.w
        x, y, sums = pointers
        x_at: Int = 0
        y_at: Int = 0
        for a, (low, _) in enumerate(pixels):
            place = f.sub(f.add(f.mul(low, w.strides[a]), f.mul(tap[a], w.dilations[a])), v.low[a])
            x_at = f.add(x_at, f.mul(place, v.x_steps[a]))
            y_at = f.add(y_at, f.mul(low, v.y_steps[a]))
        _, (y_low, y_high), (x_low, x_high) = pixels

        done = 0
        for rows, count in w.heights():
            call(
                f, w.tile(rows).name, ("ptr", f.at(x, f.add(x_at, done), t.scalar)), ("ptr", f.at(y, y_at, t.scalar)),
                ("ptr", f.at(sums, done * w.columns, t.scalar)), ("i64", columns),
                ("i64", f.sub(y_high, y_low)), ("i64", f.mul(v.x_steps[1], w.strides[1])), ("i64", v.y_steps[1]),
                ("i64", f.sub(x_high, x_low)), ("i64", count),
            )  # fmt: skip
            done += rows * count

    def units(self) -> str:
        f = Kernel(self.conv, about_head(self.name, "units"))
        v = _Values.of(f, self.w)
        f.line(f"ret i64 {f.mul(v.chunks, v.parts) if self.w.size else 0}")
        return f.text()

    def work(self) -> str:
        f = Kernel(self.conv, about_head(self.name, "work"))
        pixels = f.product(*map(f.value, self.conv.y.shape[:-1]))
        f.line(f"ret i64 {f.div(f.product(2, pixels, self.w.size), self.t.lanes)}")
        return f.text()

    # -- the sums of the chunks

    @property
    def sum_blocks(self) -> int:
        """Into how many blocks the rows of one tap are cut."""
        return max(self.w.inputs * self.w.columns // SUM_BLOCK, 1)

    def sum(self) -> str:
        """Unit number u adds the chunks' sums of a block of rows of one tap, then runs the epilogue."""
        f = Kernel(self.conv, body_head(f"{self.name}_sum"))
        v = _Values.of(f, self.w)
        t, w = self.t, self.w
        weights = f.buffer(2)
        sums = f.buffer(len(self.conv.buffers)) if w.most_chunks > 1 else weights

        with f.loop("%lo", "%hi") as unit:
            tap, block = f.split(unit, self.sum_blocks)
            i0, i1 = f.part(block, self.sum_blocks, w.inputs)
            start = f.mul(f.add(f.mul(tap, w.inputs), i0), w.columns)
            stop = f.mul(f.add(f.mul(tap, w.inputs), i1), w.columns)
            whole = f.add(start, f.floor_to(f.sub(stop, start), t.lanes))
            if w.most_chunks > 1:
                for lanes, low, high in ((t.lanes, start, whole), (1, whole, stop)):
                    ops = t.instructions(f, lanes)
                    with f.loop(low, high, lanes) as e:
                        total = f.cell(ops.T)
                        f.store(ops.T, f.load(ops.T, f.at(weights, e, t.scalar), t.dtype.size), total)
                        with f.loop(1, v.chunks) as chunk:
                            place = f.at(sums, f.add(f.mul(f.sub(chunk, 1), w.size), e), t.scalar)
                            more = f.load(ops.T, place, t.dtype.size)
                            f.store(ops.T, ops.plus(f.load(ops.T, total), more), total)
                        f.store(ops.T, f.load(ops.T, total), f.at(weights, e, t.scalar), t.dtype.size)
            *_, ky, kx = w.kernel
            at = f.split(tap, ky, kx)[3 - len(self.conv.strides):]
            f.epilogue(at, (i0, i1), (0, w.columns))
        f.line("ret void")
        return f.text()

    def sum_units(self) -> str:
        f = Kernel(self.conv, about_head(f"{self.name}_sum", "units"))
        v = _Values.of(f, self.w)
        count = self.w.taps * self.sum_blocks if self.w.size else 0
        f.line(f"ret i64 {count if self.conv.epilogue else f.select(f.less(1, v.chunks), count, 0)}")
        return f.text()

    def sum_work(self) -> str:
        f = Kernel(self.conv, about_head(f"{self.name}_sum", "work"))
        v = _Values.of(f, self.w)
        f.line(f"ret i64 {f.div(f.mul(v.chunks, self.w.size), self.t.lanes)}")
        return f.text()


@dataclass(frozen=True)
class _Values:
    """Sizes inside a function; steps are in elements."""

    low: tuple[Int, ...]
    x_sizes: tuple[Int, ...]
    y_sizes: tuple[Int, ...]
    x_steps: tuple[Int, ...]
    y_steps: tuple[Int, ...]
    row_blocks: Int
    column_blocks: Int
    strips: Int
    chunks: Int
    parts: Int

    @staticmethod
    def of(f: Kernel, w: WeightGradient) -> _Values:
        low, x_sizes, y_sizes = (tuple(map(f.value, sizes)) for sizes in (w.low, w.x_sizes, w.y_sizes))
        batch = f.value(w.conv.x.shape[0])

        column_blocks = f.maximum(f.ceildiv(y_sizes[2], STRIP), 1)
        width = f.maximum(f.div(y_sizes[2], column_blocks), 1)
        height = f.maximum(f.div(STRIP, width), 1)
        row_blocks = f.maximum(f.div(f.sub(f.add(y_sizes[1], height), 1), height), 1)
        strips = f.product(batch, y_sizes[0], row_blocks, column_blocks)
        multiplications = f.product(batch, *y_sizes, w.size)
        chunks = f.minimum(f.minimum(f.div(multiplications, UNIT), w.most_chunks), strips)
        chunks = f.maximum(chunks, 1)
        parts = f.minimum(f.maximum(f.div(ENOUGH_UNITS, chunks), 1), max(w.panels * w.groups, 1))
        return _Values(
            low, x_sizes, y_sizes, f.steps(x_sizes, w.x_channels), f.steps(y_sizes, w.columns),
            row_blocks, column_blocks, strips, chunks, parts,
        )  # fmt: skip
