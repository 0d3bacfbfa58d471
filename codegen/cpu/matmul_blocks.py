"""How tiles sweep over a block of a matrix product.

    sweep  a block of c by tiles, for a k so short that a panel of b stays in the first cache
    block  the same for any k, cut into chunks

Every c[i, j] is summed in one order, which sizes alone decide: k by k in chunks of K_CHUNK.

Source of the scheme: Goto & van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
"""

from __future__ import annotations

import functools

from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.cpu.matmul_tiles import LOW_ROWS, SINGLE_PANELS, Tiles, call, tile_functions
from tensorc.codegen.cpu.squares import transposed_square
from tensorc.codegen.cpu.vectormath import vector_of

K_CHUNK = 256
"""How much of k is summed in registers before it is added to c; a panel of b this long takes half the first cache."""

ROWS_AHEAD = 24
"""How far ahead rows of b are fetched where they stand: the first tile of a panel finds them in an outer cache."""

COPY_COLUMNS, COPY_BYTES = 16, 1024
"""From how many vectors of columns, and bytes between neighbours along k, a block works on a copy of its part of a."""

CACHE_WAYS, CACHE_WAY_BYTES = 8, 4096
"""Lines that lie a multiple of so many bytes apart share a set of the first cache, which holds so many of them."""

BLOCK_ROWS = {512: 56, 256: 48, 128: 48}
"""The most rows of a block: whole tiles, few enough for a copy of its part of a on the stack."""


@functools.cache
def product_functions(t: Tiles) -> str:
    """The functions that `block` needs, itself included."""
    return "".join([tile_functions(t), _copy_rows(t), _sweep(t), _block(t)])


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
