"""Matrix products of few rows with a transposed matrix: dot products along k.

    dot   c[j] = Σ_k a[k] · b[j, k]   for a few j, vectors running along k
    dots  the same for a block of c

Every sum is the lanes' sums, halves upon halves, so its order is one for all blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.cpu.matmul_tiles import Tiles, call, first_lanes, read
from tensorc.codegen.cpu.vectormath import vector_of

DOT_COLUMNS = 4
DOT_VECTORS = 2
"""`dots` makes four elements of c at once, each from two vectors of partial sums."""


@functools.cache
def dot_functions(t: Tiles) -> str:
    """The functions that `dots` needs, itself included."""
    return _dot(t, DOT_COLUMNS) + _dot(t, 1) + _dots(t)


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
        a = read(f, ops, f.at("%a", k, t.scalar), mask)
        for row, parts in zip(rows, sums, strict=True):
            product = ops.muladd(a, read(f, ops, f.at(row, k, t.scalar), mask), f.load(ops.T, parts[part]))
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
