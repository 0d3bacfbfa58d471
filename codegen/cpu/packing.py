"""The right operand of a matrix product, copied into panels that a tile reads straight through.

A panel holds all k of as many columns as the main tile is wide, row by row: element (k, j) of the panel stands at
k · columns + j.  Columns past the last one of b hold anything: the tiles compute with them and never store the result.
"""

from __future__ import annotations

import functools

from tensorc.codegen.cpu.function import Function
from tensorc.codegen.cpu.matmul_tiles import FIRST_CACHE, Tiles, first_lanes, prefetch, read
from tensorc.codegen.cpu.squares import transposed_square

ROWS_AHEAD = 24
"""How far ahead rows of b are fetched."""


def pack_name(t: Tiles, transposed: bool) -> str:
    return t.name("pack_transposed" if transposed else "pack")


@functools.cache
def pack_function(t: Tiles, transposed: bool) -> str:
    """`void pack(ptr b, i64 ldb, ptr panel, i64 columns, i64 k)`: k rows of one panel, of which `columns` exist."""
    f = Function(
        f"define internal void @{pack_name(t, transposed)}"
        "(ptr noalias %b, i64 %ldb, ptr noalias %panel, i64 %columns, i64 %k) noinline"
    )
    (_transpose if transposed else _copy)(f, t)
    f.line("ret void")
    return f.text()


def _copy(f: Function, t: Tiles) -> None:
    """b[k, j] stands at k · ldb + j: rows are copied as they are."""
    ops = t.instructions(f, t.lanes)
    vectors = t.columns // t.lanes
    full = f.less(t.columns - 1, "%columns")

    with f.when(full), f.loop(0, "%k") as k:
        source = f.at("%b", f.mul(k, "%ldb"), t.scalar)
        target = f.at("%panel", f.mul(k, t.columns), t.scalar)
        prefetch(f, f.at(source, f.mul("%ldb", ROWS_AHEAD), t.scalar), t.columns * t.dtype.size, FIRST_CACHE)
        for q in range(vectors):
            row = f.load(ops.T, f.at(source, q * t.lanes, t.scalar), t.dtype.size)
            f.store(ops.T, row, f.at(target, q * t.lanes, t.scalar), t.dtype.size)

    with f.when(f.negation(full)):
        masks = [first_lanes(f, t.lanes, f.sub("%columns", q * t.lanes)) for q in range(vectors)]
        with f.loop(0, "%k") as k:
            source = f.at("%b", f.mul(k, "%ldb"), t.scalar)
            target = f.at("%panel", f.mul(k, t.columns), t.scalar)
            for q, mask in enumerate(masks):
                row = read(f, ops, f.at(source, q * t.lanes, t.scalar), mask)
                f.store(ops.T, row, f.at(target, q * t.lanes, t.scalar), t.dtype.size)


def _transpose(f: Function, t: Tiles) -> None:
    """b[k, j] stands at j · ldb + k: squares of lanes × lanes are transposed in registers.

    Where a square sticks out to the right, the last column is read again in place of those that do not exist.
    """
    ops = t.instructions(f, t.lanes)
    last = f.sub("%columns", 1)
    whole = f.floor_to("%k", t.lanes)

    with f.loop(0, t.columns, t.lanes) as j:
        target = f.at("%panel", j, t.scalar)
        columns = [f.at("%b", f.mul(f.minimum(f.add(j, q), last), "%ldb"), t.scalar) for q in range(t.lanes)]

        with f.loop(0, whole, t.lanes) as k:
            square = [f.load(ops.T, f.at(column, k, t.scalar), t.dtype.size) for column in columns]
            for q, row in enumerate(transposed_square(f, ops.T, square)):
                f.store(ops.T, row, f.at(target, f.mul(f.add(k, q), t.columns), t.scalar), t.dtype.size)

        with f.loop(whole, "%k") as k:
            row_start = f.at(target, f.mul(k, t.columns), t.scalar)
            for q, column in enumerate(columns):
                value = f.load(t.scalar, f.at(column, k, t.scalar), t.dtype.size)
                f.store(t.scalar, value, f.at(row_start, q, t.scalar), t.dtype.size)
