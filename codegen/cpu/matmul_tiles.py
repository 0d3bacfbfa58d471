"""Register tiles: the inner loops of a matrix product, and how they sweep over a block of it.

    tile    c[i, j] (+)= Σ_k a[i, k] · b[k, j]   for a few rows i and a few vectors of columns j, the sums in registers
    line    the same for one row, which streams over long lines of b
    single  the same for one row, where b is packed: along several panels side by side
    sweep   the same for any block, cut into tiles
    block   the same for any k, cut into chunks so that a panel of b stays in the first cache
    dots    the same where b is stored transposed and a has few rows: vectors run along k

Strides are arguments, so all matrix products of one dtype in a module share these functions.  Every c[i, j] is
summed in one order, which sizes alone decide: k by k in chunks of K_CHUNK, or in the lanes of `dots`.

Source of the scheme: Goto & van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.cpu.squares import transposed_square
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.vectormath import LLVM_SCALAR, Instructions, vector_of
from tensorc.ir.types import DType

K_CHUNK = 256
"""How much of k is summed in registers before it is added to c; a panel of b this long takes half the first cache."""

ROWS_AHEAD = 24
"""How far ahead rows of b are fetched where they stand: the first tile of a panel finds them in an outer cache."""

COPY_COLUMNS, COPY_BYTES = 16, 1024
"""From how many vectors of columns, and bytes between neighbours along k, a block works on a copy of its part of a."""

CACHE_LINE = 64
CACHE_WAYS, CACHE_WAY_BYTES = 8, 4096
"""Lines that lie a multiple of so many bytes apart share a set of the first cache, which holds so many of them."""

DOT_COLUMNS = 4
DOT_VECTORS = 2
"""`dots` makes four elements of c at once, each from two vectors of partial sums."""

MAIN_TILE = {512: (14, 2), 256: (6, 2), 128: (6, 2)}
"""(rows, vectors) per vector width: sums, a row of b and a factor fill the registers."""

LOW_ROWS = 4
"""Rows of the tile that takes what the main tile leaves over.  Fewer would take as long: eight sums hide the latency of
multiply-add, and no less than that does."""

LINE_ROWS = 8
"""A single row of c takes its sums from so many rows of b at a time, along their whole length: the speed is that of the
memory, which wants long lines, so here the sums are better off in the first cache."""

SINGLE_PANELS = 4
"""Panels of b that a single row goes along side by side: their sums hide the latency of multiply-add."""

BLOCK_ROWS = {512: 56, 256: 48, 128: 48}
"""The most rows of a block: whole tiles, few enough for a copy of its part of a on the stack."""


@dataclass(frozen=True)
class Tiles:
    """The tiles of one dtype on one kind of vector registers."""

    dtype: DType
    bits: int
    fma: bool

    @staticmethod
    def on(target: Target, dtype: DType) -> Tiles:
        return Tiles(dtype, target.bits, target.fma)

    @property
    def scalar(self) -> str:
        return LLVM_SCALAR[self.dtype]

    @property
    def lanes(self) -> int:
        return self.bits // (8 * self.dtype.size)

    @property
    def rows(self) -> int:
        """Rows of the main tile."""
        return MAIN_TILE[self.bits][0]

    @property
    def vectors(self) -> int:
        """Vectors of the main tile, and of the low one."""
        return MAIN_TILE[self.bits][1]

    @property
    def columns(self) -> int:
        """Columns of the main tile; a panel of packed b is this wide."""
        return self.vectors * self.lanes

    @property
    def rest_lanes(self) -> int:
        """Columns that a tile at the right edge takes at once: a masked vector, or one where masks are not native."""
        return self.lanes if self.bits >= 256 else 1

    def name(self, function: str) -> str:
        """The LLVM name of one of these functions for this dtype."""
        return f"mm_{self.dtype.short}x{self.lanes}_{function}"

    def instructions(self, f: Function, lanes: int) -> Instructions:
        fma = self.fma and self.dtype.is_float
        return Instructions(lambda text: f.line(text.strip()), f.fresh, self.dtype, lanes, fma)


@functools.cache
def product_functions(t: Tiles) -> str:
    """The functions that `block` needs, itself included."""
    parts = [
        _tile(t, "main", t.rows, t.vectors, t.lanes),
        _tile(t, "main_edge", t.rows, 1, t.rest_lanes, edge=True),
        _tile(t, "low", LOW_ROWS, t.vectors, t.lanes, low=True),
        _tile(t, "low_edge", LOW_ROWS, 1, t.rest_lanes, edge=True, low=True),
        _line(t),
        _single(t),
    ]
    if t.rest_lanes > 1:
        parts.append(_tile(t, "main_wide_edge", t.rows, t.vectors, t.lanes, edge=True))
    return "".join([*parts, _copy_rows(t), _sweep(t), _block(t)])


@functools.cache
def dot_functions(t: Tiles) -> str:
    """The functions that `dots` needs, itself included."""
    return _dot(t, DOT_COLUMNS) + _dot(t, 1) + _dots(t)


def call(f: Function, name: str, *arguments: tuple[str, Int]) -> None:
    """A call of a function that returns nothing; arguments are (type, value)."""
    f.line(f"call void @{name}({', '.join(f'{kind} {value}' for kind, value in arguments)})")


def masked_load(f: Function, ops: Instructions, pointer: str, mask: str) -> str:
    """A vector of which only the lanes of `mask` are read; the others are 0."""
    arguments = f"ptr {pointer}, i32 {ops.dtype.size}, {ops.B} {mask}, {ops.T} zeroinitializer"
    return f.let(f"call {ops.T} @llvm.masked.load.{ops.tag}.p0({arguments})")


def first_lanes(f: Function, lanes: int, count: Int) -> str:
    """A mask of the first `count` lanes."""
    numbers = ", ".join(f"i32 {q}" for q in range(lanes))
    narrow = f.let(f"trunc i64 {count} to i32")
    return f.let(f"icmp sgt {vector_of('i32', lanes)} {splat(f, 'i32', narrow, lanes)}, <{numbers}>")


def splat(f: Function, scalar: str, value: str, lanes: int) -> str:
    if lanes == 1:
        return value
    kind = vector_of(scalar, lanes)
    first = f.let(f"insertelement {kind} poison, {scalar} {value}, i32 0")
    return f.let(f"shufflevector {kind} {first}, {kind} poison, <{lanes} x i32> zeroinitializer")


TILE_ARGUMENTS = (
    "ptr noalias %a, i64 %row, i64 %step, ptr noalias %b, i64 %ldb, ptr noalias %c, i64 %ldc,"
    " i64 %rows, i64 %columns, i64 %k, i1 %more, ptr %ahead, i64 %pace"
)


def _tile(t: Tiles, name: str, rows: int, vectors: int, lanes: int, edge: bool = False, low: bool = False) -> str:
    """c[i, j] = Σ_k a·b, or += if %more, for a tile of c; a[i, k] stands at %a + i·%row + k·%step.

    An `edge` tile has %columns columns, its last vector is masked, and nothing beyond is read or written.  A `low` tile
    has %rows rows: it computes the last one again in place of those that do not exist.  The main tile fetches a row's
    width of what stands at %ahead, %pace bytes further with each k.
    """
    f = Function(f"define internal void @{t.name(name)}({TILE_ARGUMENTS}) noinline")
    ops = t.instructions(f, lanes)
    align = t.dtype.size
    mask = first_lanes(f, lanes, f.sub("%columns", (vectors - 1) * lanes)) if edge and lanes > 1 else None

    sums = [[f.cell(ops.T, "zeroinitializer") for _ in range(vectors)] for _ in range(rows)]
    a_cell, b_cell, later_cell = (f.cell("ptr", start) for start in ("%a", "%b", "%ahead"))
    row_address = _clamped_rows(f, t, rows) if low else _scaled_rows(f, t, rows)

    with f.loop(0, "%k"):
        a, b = f.load("ptr", a_cell), f.load("ptr", b_cell)
        line = [_read(f, ops, place, part) for place, part in _side_by_side(f, t, ops, b, vectors, mask)]
        if name == "main":
            later = f.load("ptr", later_cell)
            prefetch(f, later, vectors * lanes * align)
            f.store("ptr", f.at(later, "%pace", "i8"), later_cell)
        for i in range(rows):
            factor = splat(f, t.scalar, f.load(t.scalar, row_address(a, i), align), lanes)
            for q in range(vectors):
                f.store(ops.T, ops.muladd(factor, line[q], f.load(ops.T, sums[i][q])), sums[i][q])
        f.store("ptr", f.at(a, "%step", t.scalar), a_cell)
        f.store("ptr", f.at(b, "%ldb", t.scalar), b_cell)

    for i in range(rows):
        with f.when(f.less(i, "%rows") if low else True):
            row = f.at("%c", f.mul("%ldc", i), t.scalar)
            _hand_over(f, t, ops, sums[i], row, mask)

    f.line("ret void")
    return f.text()


def _hand_over(f: Function, t: Tiles, ops: Instructions, sums: Sequence[str], row: str, mask: str | None) -> None:
    """Writes sums, or adds them if %more, to vectors that stand side by side, of the last one the lanes of `mask`."""
    vectors = _side_by_side(f, t, ops, row, len(sums), mask)
    with f.when("%more"):
        for (place, part), total in zip(vectors, sums, strict=True):
            f.store(ops.T, ops.plus(_read(f, ops, place, part), f.load(ops.T, total)), total)
    for (place, part), total in zip(vectors, sums, strict=True):
        _write(f, ops, f.load(ops.T, total), place, part)


def _side_by_side(f: Function, t: Tiles, ops: Instructions, start: str, count: int,
                  mask: str | None) -> list[tuple[str, str | None]]:
    """The places of so many vectors, each with the mask of what there is of it: `mask` for the last one."""
    return [(f.at(start, q * ops.n, t.scalar), mask if q == count - 1 else None) for q in range(count)]


def _read(f: Function, ops: Instructions, place: str, mask: str | None) -> str:
    return masked_load(f, ops, place, mask) if mask else f.load(ops.T, place, ops.dtype.size)


def prefetch(f: Function, pointer: str, size: int) -> None:
    """Fetches the cache lines of `size` bytes."""
    for byte in range(0, size, CACHE_LINE):
        f.line(f"call void @llvm.prefetch.p0(ptr {f.at(pointer, byte, 'i8')}, i32 0, i32 3, i32 1)")


def _write(f: Function, ops: Instructions, value: str, place: str, mask: str | None) -> None:
    size = ops.dtype.size
    if mask is None:
        f.store(ops.T, value, place, size)
    else:
        f.line(f"call void @llvm.masked.store.{ops.tag}.p0({ops.T} {value}, ptr {place}, i32 {size}, {ops.B} {mask})")


def _scaled_rows(f: Function, t: Tiles, rows: int) -> Callable[[str, int], str]:
    """Addresses of rows, as odd multiples of their distance scaled by 1, 2, 4 or 8: what one address of x86 can hold.

    So fourteen rows take seven registers, and one pointer moves with k.
    """
    distance = f.mul("%row", t.dtype.size)
    odd = {q: f.mul(distance, q) for q in range(1, rows, 2)}

    def address(a: str, i: int) -> str:
        scale = i & -i
        return f.at(a, odd[i // scale], f"i{8 * scale}") if i else a

    return address


def _clamped_rows(f: Function, t: Tiles, rows: int) -> Callable[[str, int], str]:
    """Addresses of rows, those past %rows being that of the last."""
    last = f.sub("%rows", 1)
    offsets = [f.mul(f.minimum(last, i), "%row") for i in range(1, rows)]
    return lambda a, i: f.at(a, offsets[i - 1], t.scalar) if i else a


def _line(t: Tiles) -> str:
    """One row of c, whole vectors of it, = Σ_k a·b, or += if %more; a[k] stands at %a + k·%step."""
    f = Function(
        f"define internal void @{t.name('line')}"
        "(ptr noalias %a, i64 %step, ptr noalias %b, i64 %ldb, ptr noalias %c, i64 %columns, i64 %k, i1 %more) noinline"
    )
    ops = t.instructions(f, t.lanes)
    align = t.dtype.size

    def add_rows(k: str, count: int) -> None:
        rows = [f.at("%b", f.mul(f.add(k, q), "%ldb"), t.scalar) for q in range(count)]
        places = [f.at("%a", f.mul(f.add(k, q), "%step"), t.scalar) for q in range(count)]
        factors = [splat(f, t.scalar, f.load(t.scalar, place, align), t.lanes) for place in places]
        with f.loop(0, "%columns", t.lanes) as j:
            place = f.at("%c", j, t.scalar)
            total = f.load(ops.T, place, align)
            for row, factor in zip(rows, factors, strict=True):
                total = ops.muladd(factor, f.load(ops.T, f.at(row, j, t.scalar), align), total)
            f.store(ops.T, total, place, align)

    with f.when(f.negation("%more")), f.loop(0, "%columns", t.lanes) as j:
        f.store(ops.T, "zeroinitializer", f.at("%c", j, t.scalar), align)

    whole = f.floor_to("%k", LINE_ROWS)
    with f.loop(0, whole, LINE_ROWS) as k:
        add_rows(k, LINE_ROWS)
    with f.loop(whole, "%k") as k:
        add_rows(k, 1)
    f.line("ret void")
    return f.text()


def _single(t: Tiles) -> str:
    """One row of c, SINGLE_PANELS panels of it, = Σ_k a·b, or += if %more; the sums are those of a tile."""
    f = Function(
        f"define internal void @{t.name('single')}"
        "(ptr noalias %a, i64 %step, ptr noalias %b, i64 %ldb, i64 %spread, ptr noalias %c, i64 %k, i1 %more) noinline"
    )
    ops = t.instructions(f, t.lanes)
    align = t.dtype.size
    panels = [f.at("%b", f.product(p, t.columns, "%spread"), t.scalar) for p in range(SINGLE_PANELS)]
    sums = [[f.cell(ops.T, "zeroinitializer") for _ in range(t.vectors)] for _ in panels]
    with f.loop(0, "%k") as k:
        factor = splat(f, t.scalar, f.load(t.scalar, f.at("%a", f.mul(k, "%step"), t.scalar), align), t.lanes)
        row = f.mul(k, "%ldb")
        for panel, line in zip(panels, sums, strict=True):
            start = f.at(panel, row, t.scalar)
            for q, total in enumerate(line):
                part = f.load(ops.T, f.at(start, q * t.lanes, t.scalar), align)
                f.store(ops.T, ops.muladd(factor, part, f.load(ops.T, total)), total)
    for p, line in enumerate(sums):
        _hand_over(f, t, ops, line, f.at("%c", p * t.columns, t.scalar), None)
    f.line("ret void")
    return f.text()


SWEEP_ARGUMENTS = (
    "ptr noalias %a, i64 %row, i64 %step, i64 %tile, ptr noalias %b, i64 %ldb, i64 %spread,"
    " ptr noalias %c, i64 %ldc, i64 %m, i64 %n, i64 %k, i1 %more"
)


def _sweep(t: Tiles) -> str:
    """A block of c by tiles: panels of columns outside, so that a panel of b stays in the first cache.

    Tiles of rows of a stand %tile apart.  Panels of b stand %spread times their width apart: 1 where b is not packed, 2
    where there is only one.
    """
    f = Function(f"define internal void @{t.name('sweep')}({SWEEP_ARGUMENTS}) noinline")
    panels = f.floor_to("%n", t.columns)
    tiles = f.div("%m", t.rows)
    low = f.mul(tiles, t.rows)

    def b_at(j: Int) -> str:
        panel = f.floor_to(j, t.columns)
        return f.at("%b", f.add(f.mul(panel, "%spread"), f.sub(j, panel)), t.scalar)

    def tile(name: str, a: str, b: str, i: Int, j: Int, rows: Int, columns: Int, ahead: str = "null",
             pace: Int = 0) -> None:
        c = f.at("%c", f.add(f.mul(i, "%ldc"), j), t.scalar)
        call(
            f, t.name(name), ("ptr", a), ("i64", "%row"), ("i64", "%step"), ("ptr", b), ("i64", "%ldb"), ("ptr", c),
            ("i64", "%ldc"), ("i64", rows), ("i64", columns), ("i64", "%k"), ("i1", "%more"),
            ("ptr", ahead), ("i64", pace),
        )  # fmt: skip

    follow = f.less(2, "%spread")
    part = f.div(t.columns * t.dtype.size, f.maximum(tiles, 1))
    pace = f.select(follow, part, f.mul("%ldb", t.dtype.size))
    share = f.select(follow, f.mul(part, "%k"), 0)
    in_next_chunk = f.at("%b", f.mul("%k", t.columns), t.scalar)

    def main(name: str, j: Int, columns: Int) -> None:
        """Main tiles below each other, from column j.

        Where panels follow one another in memory each tile fetches a share of the next one, elsewhere rows of its own.
        """
        b, right = b_at(j), f.add(j, t.columns)
        next_panel = f.let(f"select i1 {f.bit(f.less(right, panels))}, ptr {b_at(right)}, ptr {in_next_chunk}")
        own = f.at(b, f.mul("%ldb", ROWS_AHEAD), t.scalar)
        start = f.let(f"select i1 {f.bit(follow)}, ptr {next_panel}, ptr {own}")
        with f.loop(0, tiles) as i:
            a, ahead = f.at("%a", f.mul(i, "%tile"), t.scalar), f.at(start, f.mul(i, share), "i8")
            tile(name, a, b, f.mul(i, t.rows), j, t.rows, columns, ahead, pace)

    with f.loop(0, panels, t.columns) as j:
        main("main", j, t.columns)

    edge = panels
    if t.rest_lanes > 1:
        left = f.sub("%n", panels)
        wide = f.less(t.columns - t.lanes, left)
        with f.when(wide):
            main("main_wide_edge", panels, left)
        edge = f.select(wide, "%n", panels)
    with f.loop(edge, "%n", t.rest_lanes) as j:
        main("main_edge", j, f.minimum(f.sub("%n", j), t.rest_lanes))

    below = f.at("%a", f.mul(tiles, "%tile"), t.scalar)
    in_place = f.less("%spread", 2)
    with f.loop(low, "%m", LOW_ROWS) as i:
        rows = f.minimum(f.sub("%m", i), LOW_ROWS)
        a = f.at(below, f.mul(f.sub(i, low), "%row"), t.scalar)

        single = f.equal(rows, 1)
        row = f.at("%c", f.mul(i, "%ldc"), t.scalar)
        lines = f.both(in_place, single)
        with f.when(lines):
            call(
                f, t.name("line"), ("ptr", a), ("i64", "%step"), ("ptr", "%b"), ("i64", "%ldb"),
                ("ptr", row), ("i64", f.floor_to("%n", t.lanes)), ("i64", "%k"), ("i1", "%more"),
            )  # fmt: skip
        beside = f.select(f.both(f.negation(in_place), single), f.floor_to("%n", SINGLE_PANELS * t.columns), 0)
        with f.loop(0, beside, SINGLE_PANELS * t.columns) as j:
            call(
                f, t.name("single"), ("ptr", a), ("i64", "%step"), ("ptr", b_at(j)), ("i64", "%ldb"),
                ("i64", "%spread"), ("ptr", f.at(row, j, t.scalar)), ("i64", "%k"), ("i1", "%more"),
            )  # fmt: skip
        line = f.select(lines, f.floor_to("%n", t.lanes), beside)
        with f.loop(line, panels, t.columns) as j:
            tile("low", a, b_at(j), i, j, rows, t.columns)
        with f.loop(f.maximum(line, panels), "%n", t.rest_lanes) as j:
            tile("low_edge", a, b_at(j), i, j, rows, f.minimum(f.sub("%n", j), t.rest_lanes))
    f.line("ret void")
    return f.text()


BLOCK_ARGUMENTS = (
    "ptr noalias %a, i64 %row, i64 %step, ptr noalias %b, i64 %ldb, i64 %spread,"
    " ptr noalias %c, i64 %ldc, i64 %m, i64 %n, i64 %k"
)


def _block(t: Tiles) -> str:
    """A block of c for the whole of k, zeros where k = 0.

    Where neighbours along k stand far apart, as in a transposed a, or where the rows of a tile do not fit the cache
    side by side, a's part is copied first; that pays where many columns share it.
    """
    f = Function(f"define internal void @{t.name('block')}({BLOCK_ARGUMENTS}) noinline")
    copy = f.array(t.scalar, BLOCK_ROWS[t.bits] * K_CHUNK + t.lanes)
    copies = f.less(COPY_BYTES // t.dtype.size - 1, "%step")
    if t.rows > CACHE_WAYS:
        copies = f.either(copies, f.equal(f.rem("%row", CACHE_WAY_BYTES // t.dtype.size), 0))
    copies = f.both(copies, f.both(f.less(COPY_COLUMNS * t.lanes - 1, "%n"), f.less(t.rows - 1, "%m")))

    with f.loop(0, f.maximum("%k", 1), K_CHUNK) as k:
        a = f.at("%a", f.mul(k, "%step"), t.scalar)
        b = f.at("%b", f.mul(k, "%ldb"), t.scalar)
        count = f.minimum(f.sub("%k", k), K_CHUNK)
        with f.when(copies):
            call(
                f, t.name("copy_rows"), ("ptr", a), ("i64", "%row"), ("i64", "%step"), ("ptr", copy),
                ("i64", "%m"), ("i64", count),
            )  # fmt: skip

        source = f.let(f"select i1 {f.bit(copies)}, ptr {copy}, ptr {a}")
        row = f.select(copies, 1, "%row")
        step = f.select(copies, t.rows, "%step")
        tile = f.mul(f.select(copies, count, "%row"), t.rows)
        call(
            f, t.name("sweep"), ("ptr", source), ("i64", row), ("i64", step), ("i64", tile),
            ("ptr", b), ("i64", "%ldb"), ("i64", "%spread"), ("ptr", "%c"), ("i64", "%ldc"),
            ("i64", "%m"), ("i64", "%n"), ("i64", count), ("i1", f.bit(f.less(0, k))),
        )  # fmt: skip
    f.line("ret void")
    return f.text()


def _copy_rows(t: Tiles) -> str:
    """Tiles of a one after the other, each with k outside: element (i, k) of a tile stands at k · rows + i.

    What stands side by side in a, rows or k, is read in whole vectors.
    """
    f = Function(f"define internal void @{t.name('copy_rows')}"
                 "(ptr noalias %a, i64 %row, i64 %step, ptr noalias %copy, i64 %m, i64 %k) noinline")
    kind = vector_of(t.scalar, t.rows)
    whole = f.floor_to("%m", t.rows)
    along_rows, along_k = f.equal("%row", 1), f.equal("%step", 1)

    with f.when(along_rows), f.loop(0, whole, t.rows) as i:
        source = f.at("%a", i, t.scalar)
        target = f.at("%copy", f.mul(i, "%k"), t.scalar)
        with f.loop(0, "%k") as k:
            column = f.load(kind, f.at(source, f.mul(k, "%step"), t.scalar), t.dtype.size)
            f.store(kind, column, f.at(target, f.mul(k, t.rows), t.scalar), t.dtype.size)

    squares = f.select(along_k, f.floor_to("%k", t.lanes), 0)
    with f.loop(0, whole, t.rows) as i:
        _copy_squares(f, t, f.at("%a", f.mul(i, "%row"), t.scalar), f.at("%copy", f.mul(i, "%k"), t.scalar), squares)

    with f.loop(0, "%m") as i:
        tile = f.floor_to(i, t.rows)
        source = f.at("%a", f.mul(i, "%row"), t.scalar)
        target = f.at("%copy", f.add(f.mul(tile, "%k"), f.sub(i, tile)), t.scalar)
        in_tile = f.less(i, whole)
        done = f.select(in_tile, f.select(along_rows, "%k", squares), 0)
        with f.loop(done, "%k") as k:
            value = f.load(t.scalar, f.at(source, f.mul(k, "%step"), t.scalar), t.dtype.size)
            f.store(t.scalar, value, f.at(target, f.mul(k, t.rows), t.scalar), t.dtype.size)
    f.line("ret void")
    return f.text()


def _copy_squares(f: Function, t: Tiles, source: str, target: str, stop: Int) -> None:
    """The first `stop` columns of a tile whose rows are contiguous along k, squares of lanes × lanes at a time.

    The last square of a tile reads its last row again for those that do not exist, and each column of it is written
    over the beginning of what is written next.
    """
    ops = t.instructions(f, t.lanes)
    starts = range(0, t.rows, t.lanes)
    rows = [f.at(source, f.mul(i, "%row"), t.scalar) for i in range(t.rows)]

    with f.loop(0, stop, t.lanes) as k:
        squares = []
        for start in starts:
            picked = [rows[min(start + q, t.rows - 1)] for q in range(t.lanes)]
            read = {row: f.load(ops.T, f.at(row, k, t.scalar), t.dtype.size) for row in dict.fromkeys(picked)}
            squares.append(transposed_square(f, ops.T, [read[row] for row in picked]))
        for q in range(t.lanes):
            column = f.at(target, f.mul(f.add(k, q), t.rows), t.scalar)
            for start, square in zip(starts, squares, strict=True):
                f.store(ops.T, square[q], f.at(column, start, t.scalar), t.dtype.size)


def _dot(t: Tiles, columns: int) -> str:
    """%c[j] = Σ_k %a[k] · %b[j·%ldb + k] for `columns` values of j."""
    f = Function(f"define internal void @{t.name(f'dot_{columns}')}"
                 "(ptr noalias %a, ptr noalias %b, i64 %ldb, ptr noalias %c, i64 %k) noinline")
    ops = t.instructions(f, t.lanes)
    step = DOT_VECTORS * t.lanes
    whole = f.floor_to("%k", step)
    rows = [f.at("%b", f.mul("%ldb", j), t.scalar) for j in range(columns)]
    sums = [[f.cell(ops.T, "zeroinitializer") for _ in range(DOT_VECTORS)] for _ in range(columns)]

    def add_products(k: str, mask: str | None, part: int) -> None:
        def read(pointer: str) -> str:
            return masked_load(f, ops, pointer, mask) if mask else f.load(ops.T, pointer, t.dtype.size)

        a = read(f.at("%a", k, t.scalar))
        for row, parts in zip(rows, sums, strict=True):
            product = ops.muladd(a, read(f.at(row, k, t.scalar)), f.load(ops.T, parts[part]))
            f.store(ops.T, product, parts[part])

    with f.loop(0, whole, step) as k:
        for part in range(DOT_VECTORS):
            add_products(str(f.add(k, part * t.lanes)), None, part)
    with f.loop(whole, "%k", t.lanes) as k:
        add_products(k, first_lanes(f, t.lanes, f.minimum(f.sub("%k", k), t.lanes)), 0)

    for j, parts in enumerate(sums):
        values = [f.load(ops.T, part) for part in parts]
        f.store(t.scalar, _total(f, t, values), f.at("%c", j, t.scalar), t.dtype.size)
    f.line("ret void")
    return f.text()


def _total(f: Function, t: Tiles, values: Sequence[str]) -> str:
    """The sum of all lanes of two vectors: first the vectors, then halves upon halves."""
    ops = t.instructions(f, t.lanes)
    total = ops.plus(*values)
    lanes = t.lanes
    while lanes > 1:
        kind = vector_of(t.scalar, lanes)
        lanes //= 2
        halves = []
        for start in (0, lanes):
            picked = ", ".join(f"i32 {start + q}" for q in range(lanes))
            halves.append(
                f.let(f"shufflevector {kind} {total}, {kind} poison, <{lanes} x i32> <{picked}>")
                if lanes > 1
                else f.let(f"extractelement {kind} {total}, i32 {start}")
            )
        total = t.instructions(f, lanes).plus(*halves)
    return total


def _dots(t: Tiles) -> str:
    """A block of c from rows of a and rows of the transposed b, both contiguous along k."""
    f = Function(f"define internal void @{t.name('dots')}(ptr noalias %a, i64 %row, ptr noalias %b, i64 %ldb,"
                 " ptr noalias %c, i64 %ldc, i64 %m, i64 %n, i64 %k) noinline")

    def columns(start: Int, stop: Int, step: int) -> None:
        with f.loop(start, stop, step) as j, f.loop(0, "%m") as i:
            a = f.at("%a", f.mul(i, "%row"), t.scalar)
            b = f.at("%b", f.mul(j, "%ldb"), t.scalar)
            c = f.at("%c", f.add(f.mul(i, "%ldc"), j), t.scalar)
            call(f, t.name(f"dot_{step}"), ("ptr", a), ("ptr", b), ("i64", "%ldb"), ("ptr", c), ("i64", "%k"))

    whole = f.floor_to("%n", DOT_COLUMNS)
    columns(0, whole, DOT_COLUMNS)
    columns(whole, "%n", 1)
    f.line("ret void")
    return f.text()
