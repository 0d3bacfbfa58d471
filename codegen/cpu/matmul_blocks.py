"""How tiles sweep over a block of a matrix product.

    sweep  a block of c by tiles, for a k so short that a panel of b stays in the first cache
    block  the same for any k, cut into chunks

Every c[i, j] is summed in one order, which sizes alone decide: k by k in chunks of K_CHUNK.

Source of the scheme: Goto & van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
"""

from __future__ import annotations

import functools

from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.cpu.matmul_tiles import (
    LOW_ROWS,
    SECOND_CACHE,
    SINGLE_PANELS,
    Tiles,
    call,
    first_lanes,
    prefetch,
    read,
    tile_functions,
    write,
)
from tensorc.codegen.cpu.squares import transposed_square
from tensorc.codegen.cpu.vectormath import vector_of

K_CHUNK = 256
"""How much of k is summed in registers before it is added to c; a panel of b this long takes half the first cache."""

ROWS_AHEAD = 8
"""How far ahead the first tile of a panel fetches rows of b where they stand.  Of rows 4096 bytes apart the first cache
holds no more."""

COPY_COLUMNS, COPY_BYTES = 8, 1024
"""From how many vectors of columns, and bytes between neighbours along k, a block works on a copy of its part of a."""

CACHE_WAYS, CACHE_WAY_BYTES = 8, 4096
"""Lines that lie a multiple of so many bytes apart share a set of the first cache, which holds so many of them."""

COLUMNS_AHEAD = 8
"""How far ahead a copy of a transposed part fetches: each of its columns may be on a page of its own."""

BLOCK_ROWS = {512: 56, 256: 48, 128: 48}
"""The most rows of a block: whole tiles, few enough for a copy of its part of a on the stack."""


@functools.cache
def product_functions(t: Tiles) -> str:
    """The functions that `block` needs, itself included."""
    return "".join([tile_functions(t), _copy_rows(t), _sweep(t), _block(t)])


SWEEP_ARGUMENTS = (
    "ptr noalias %a, i64 %row, i64 %step, i64 %tile, ptr noalias %b, i64 %ldb, i64 %spread,"
    " ptr noalias %c, i64 %ldc, i64 %m, i64 %n, i64 %k, i1 %more, ptr noalias %panel,"
    " ptr %next_a, ptr %next_b, ptr %next_c"
)


def _sweep(t: Tiles) -> str:
    """A block of c by tiles: panels of columns outside, so that a panel of b stays in the first cache.

    Tiles of rows of a stand %tile apart.  Panels of b stand %spread times their width apart.  That is 1 where b is not
    packed: then the first tile of several leaves a copy at %panel to those below it, so that lines which b does not
    fill, or which share few sets of the cache, are met once.
    """
    f = Function(f"define internal void @{t.name('sweep')}({SWEEP_ARGUMENTS}) noinline")
    panels = f.floor_to("%n", t.columns)
    tiles = f.div("%m", t.rows)
    low = f.mul(tiles, t.rows)
    in_place = f.less("%spread", 2)
    copies = f.both(in_place, f.both(f.less(0, tiles), f.less(t.rows, "%m")))
    copied = f.select(copies, 1, 0)
    below = f.at("%a", f.mul(tiles, "%tile"), t.scalar)
    single = f.equal(f.rem(f.sub("%m", low), LOW_ROWS), 1)
    paired = f.sub("%m", f.select(single, 1, 0))

    def b_at(j: Int) -> str:
        panel = f.floor_to(j, t.columns)
        return f.at("%b", f.add(f.mul(panel, "%spread"), f.sub(j, panel)), t.scalar)

    def tile(name: str, a: str, b: str, ldb: Int, i: Int, j: Int, rows: Int, columns: Int, ahead: str = "null",
             pace: Int = 0) -> None:
        c = f.at("%c", f.add(f.mul(i, "%ldc"), j), t.scalar)
        call(
            f, t.name(name), ("ptr", a), ("i64", "%row"), ("i64", "%step"), ("ptr", b), ("i64", ldb), ("ptr", c),
            ("i64", "%ldc"), ("i64", rows), ("i64", columns), ("i64", "%k"), ("i1", "%more"),
            ("ptr", ahead), ("i64", pace), ("ptr", "%panel"),
        )  # fmt: skip

    def low_rows(name: str, b: str, ldb: Int, stop: Int, j: Int, columns: Int) -> None:
        with f.loop(low, stop, LOW_ROWS) as i:
            a = f.at(below, f.mul(f.sub(i, low), "%row"), t.scalar)
            tile(name, a, b, ldb, i, j, f.minimum(f.sub("%m", i), LOW_ROWS), columns)

    ahead = _Ahead(f, t, panels, f.sub(tiles, copied))

    with f.loop(0, panels, t.columns) as j:
        b, right = b_at(j), f.add(j, t.columns)
        in_next_chunk = f.at("%b", f.mul("%k", f.select(in_place, "%ldb", t.columns)), t.scalar)
        next_panel = f.let(f"select i1 {f.bit(f.less(right, panels))}, ptr {b_at(right)}, ptr {in_next_chunk}")
        with f.when(copies):
            own = f.at(b, f.mul("%ldb", ROWS_AHEAD), t.scalar)
            tile("copying", "%a", b, "%ldb", 0, j, t.rows, t.columns, own, f.mul("%ldb", t.dtype.size))

        source = f.let(f"select i1 {f.bit(copies)}, ptr %panel, ptr {b}")
        ldb = f.select(copies, t.columns, "%ldb")
        with f.loop(copied, tiles) as i:
            a = f.at("%a", f.mul(i, "%tile"), t.scalar)
            tile("main", a, source, ldb, f.mul(i, t.rows), j, t.rows, t.columns,
                 *ahead.of(f.div(j, t.columns), f.sub(i, copied), next_panel))
        low_rows("low", source, ldb, paired, j, t.columns)

    edge = panels
    if t.rest_lanes > 1:
        left = f.sub("%n", panels)
        wide = f.less(t.columns - t.lanes, left)
        with f.when(wide), f.loop(0, tiles) as i:
            a = f.at("%a", f.mul(i, "%tile"), t.scalar)
            tile("main_wide_edge", a, b_at(panels), "%ldb", f.mul(i, t.rows), panels, t.rows, left)
        edge = f.select(wide, "%n", panels)
    with f.loop(edge, "%n", t.rest_lanes) as j, f.loop(0, tiles) as i:
        a = f.at("%a", f.mul(i, "%tile"), t.scalar)
        columns = f.minimum(f.sub("%n", j), t.rest_lanes)
        tile("main_edge", a, b_at(j), "%ldb", f.mul(i, t.rows), j, t.rows, columns)
    with f.loop(panels, "%n", t.rest_lanes) as j:
        low_rows("low_edge", b_at(j), "%ldb", paired, j, f.minimum(f.sub("%n", j), t.rest_lanes))

    with f.when(single):
        last = f.sub("%m", 1)
        a = f.at(below, f.mul(f.sub(last, low), "%row"), t.scalar)
        row = f.at("%c", f.mul(last, "%ldc"), t.scalar)
        with f.when(in_place):
            call(
                f, t.name("line"), ("ptr", a), ("i64", "%step"), ("ptr", "%b"), ("i64", "%ldb"),
                ("ptr", row), ("i64", f.floor_to("%n", t.lanes)), ("i64", "%k"), ("i1", "%more"),
            )  # fmt: skip
        beside = f.select(in_place, 0, f.floor_to("%n", SINGLE_PANELS * t.columns))
        with f.loop(0, beside, SINGLE_PANELS * t.columns) as j:
            call(
                f, t.name("single"), ("ptr", a), ("i64", "%step"), ("ptr", b_at(j)), ("i64", "%ldb"),
                ("i64", "%spread"), ("ptr", f.at(row, j, t.scalar)), ("i64", "%k"), ("i1", "%more"),
            )  # fmt: skip
        done = f.select(in_place, f.floor_to("%n", t.lanes), beside)
        with f.loop(done, panels, t.columns) as j:
            tile("low", a, b_at(j), "%ldb", last, j, 1, t.columns)
        with f.loop(f.maximum(done, panels), "%n", t.rest_lanes) as j:
            tile("low_edge", a, b_at(j), "%ldb", last, j, 1, f.minimum(f.sub("%n", j), t.rest_lanes))
    f.line("ret void")
    return f.text()


class _Ahead:
    """What the main tiles of a sweep fetch into the second cache while they compute, so many bytes further with each k.

    Where the sweep is a whole product of many, the matrices of the next one, one after the other; where panels follow
    one another in memory, the next panel; of both each tile its share.  Elsewhere the last tile fetches rows of the
    next panel, and the others meet lines that are there.
    """

    def __init__(self, f: Function, t: Tiles, panels: Int, tiles: Int) -> None:
        size = t.dtype.size
        self.f = f
        self.tiles = tiles
        self.many = f.let("icmp ne ptr %next_c, null")
        self.follow = f.less(2, "%spread")
        self.row = f.mul("%ldb", size)
        self.a, self.b = f.product("%m", "%k", size), f.product("%k", "%n", size)

        every = f.add(f.add(self.a, self.b), f.product("%m", "%n", size))
        steps = f.maximum(f.product(f.div(panels, t.columns), tiles, "%k"), 1)
        pace = f.div(t.columns * size, f.maximum(tiles, 1))
        self.pace = f.select(self.many, f.add(f.div(every, steps), 1), pace)
        self.share = f.mul(self.pace, "%k")

    def of(self, panel: Int, tile: Int, next_panel: str) -> tuple[str, Int]:
        """Where a tile begins to fetch, and its pace."""
        f = self.f
        in_a = f.mul(f.add(f.mul(panel, self.tiles), tile), self.share)
        in_b = f.sub(in_a, self.a)
        in_c = f.sub(in_b, self.b)
        start = f.at("%next_c", in_c, "i8")
        position: Int
        for position, size, matrix in ((in_b, self.b, "%next_b"), (in_a, self.a, "%next_a")):
            start = f.let(f"select i1 {f.less(position, size)}, ptr {f.at(matrix, position, 'i8')}, ptr {start}")

        last = f.equal(tile, f.sub(self.tiles, 1))
        rows = f.let(f"select i1 {f.bit(last)}, ptr {next_panel}, ptr %panel")
        part = f.at(next_panel, f.mul(tile, self.share), "i8")
        one = f.let(f"select i1 {f.bit(self.follow)}, ptr {part}, ptr {rows}")
        shared = f.either(self.many, self.follow)
        pace = f.select(shared, self.pace, f.select(last, self.row, 0))
        return f.let(f"select i1 {self.many}, ptr {start}, ptr {one}"), pace


BLOCK_ARGUMENTS = (
    "ptr noalias %a, i64 %row, i64 %step, ptr noalias %b, i64 %ldb, i64 %spread,"
    " ptr noalias %c, i64 %ldc, i64 %m, i64 %n, i64 %k, ptr %next_a, ptr %next_b, ptr %next_c"
)


def _block(t: Tiles) -> str:
    """A block of c for the whole of k, zeros where k = 0.

    Where neighbours along k stand far apart, as in a transposed a, or where the rows of a tile do not fit the cache
    side by side, a's part is copied first, so many rows at a time; that pays where many columns share it.  What stands
    at %next_a, %next_b and %next_c are the matrices of the product that comes next, if this is a whole one, else null.
    """
    f = Function(f"define internal void @{t.name('block')}({BLOCK_ARGUMENTS}) noinline")
    panel = f.array(t.scalar, K_CHUNK * t.columns)
    copy = f.array(t.scalar, BLOCK_ROWS[t.bits] * K_CHUNK + t.lanes)
    copies = f.less(COPY_BYTES // t.dtype.size - 1, "%step")
    if t.rows > CACHE_WAYS:
        copies = f.either(copies, f.equal(f.rem("%row", CACHE_WAY_BYTES // t.dtype.size), 0))
    copies = f.both(copies, f.both(f.less(COPY_COLUMNS * t.lanes - 1, "%n"), f.less(t.rows - 1, "%m")))
    part = f.select(copies, BLOCK_ROWS[t.bits], f.maximum("%m", 1))

    with f.loop(0, "%m", part) as i, f.loop(0, f.maximum("%k", 1), K_CHUNK) as k:
        a = f.at("%a", f.add(f.mul(i, "%row"), f.mul(k, "%step")), t.scalar)
        b = f.at("%b", f.mul(k, "%ldb"), t.scalar)
        c = f.at("%c", f.mul(i, "%ldc"), t.scalar)
        rows, count = f.minimum(f.sub("%m", i), part), f.minimum(f.sub("%k", k), K_CHUNK)
        with f.when(copies):
            call(
                f, t.name("copy_rows"), ("ptr", a), ("i64", "%row"), ("i64", "%step"), ("ptr", copy),
                ("i64", rows), ("i64", count),
            )  # fmt: skip

        source = f.let(f"select i1 {f.bit(copies)}, ptr {copy}, ptr {a}")
        row = f.select(copies, 1, "%row")
        step = f.select(copies, t.rows, "%step")
        tile = f.mul(f.select(copies, count, "%row"), t.rows)
        call(
            f, t.name("sweep"), ("ptr", source), ("i64", row), ("i64", step), ("i64", tile),
            ("ptr", b), ("i64", "%ldb"), ("i64", "%spread"), ("ptr", c), ("i64", "%ldc"),
            ("i64", rows), ("i64", "%n"), ("i64", count), ("i1", f.bit(f.less(0, k))), ("ptr", panel),
            ("ptr", "%next_a"), ("ptr", "%next_b"), ("ptr", "%next_c"),
        )  # fmt: skip
    f.line("ret void")
    return f.text()


def _copy_rows(t: Tiles) -> str:
    """Tiles of a one after the other, each with k outside: element (i, k) of a tile stands at k · rows + i.

    What stands side by side in a, rows or k, is read in whole vectors.
    """
    f = Function(f"define internal void @{t.name('copy_rows')}"
                 "(ptr noalias %a, i64 %row, i64 %step, ptr noalias %copy, i64 %m, i64 %k) noinline")
    whole = f.floor_to("%m", t.rows)
    along_rows, along_k = f.equal("%row", 1), f.equal("%step", 1)

    with f.when(along_rows), f.loop(0, "%k") as k, f.loop(0, whole, t.rows) as i:
        source = f.at("%a", f.add(f.mul(k, "%step"), i), t.scalar)
        target = f.at("%copy", f.add(f.mul(i, "%k"), f.mul(k, t.rows)), t.scalar)
        _copy_column(f, t, source, target)
        prefetch(f, f.at(source, f.mul("%step", COLUMNS_AHEAD), t.scalar), t.rows * t.dtype.size, SECOND_CACHE)

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


def _copy_column(f: Function, t: Tiles, source: str, target: str) -> None:
    """As many elements as a tile has rows: under a mask where that is as fast as without, else in parts."""
    if t.bits < 512:
        kind = vector_of(t.scalar, t.rows)
        f.store(kind, f.load(kind, source, t.dtype.size), target, t.dtype.size)
        return
    ops = t.instructions(f, t.lanes)
    for start in range(0, t.rows, t.lanes):
        mask = first_lanes(f, t.lanes, t.rows - start) if t.rows - start < t.lanes else None
        write(f, ops, read(f, ops, f.at(source, start, t.scalar), mask), f.at(target, start, t.scalar), mask)


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
            values = {row: read(f, ops, f.at(row, k, t.scalar)) for row in dict.fromkeys(picked)}
            squares.append(transposed_square(f, ops.T, [values[row] for row in picked]))
        for q in range(t.lanes):
            column = f.at(target, f.mul(f.add(k, q), t.rows), t.scalar)
            for start, square in zip(starts, squares, strict=True):
                f.store(ops.T, square[q], f.at(column, start, t.scalar), t.dtype.size)
