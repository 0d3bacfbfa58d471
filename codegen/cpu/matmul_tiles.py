"""Register tiles: the inner loops of a matrix product.

    tile    c[i, j] (+)= Σ_k a[i, k] · b[k, j]   for a few rows i and a few vectors of columns j, the sums in registers
    line    the same for one row, which streams over long lines of b
    single  the same for one row, where b is packed: along several panels side by side

Strides are arguments, so all matrix products of one dtype in a module share these functions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.vectormath import LLVM_SCALAR, Instructions, vector_of
from tensorc.ir.types import DType

CACHE_LINE = 64
FIRST_CACHE, SECOND_CACHE = 3, 2
"""Where to fetch lines to, as LLVM numbers it: what will be read at once, and what later."""

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
def tile_functions(t: Tiles) -> str:
    """The tiles, the line and the single row."""
    parts = [
        _tile(t, "main", t.rows, t.vectors, t.lanes, main=True),
        _tile(t, "copying", t.rows, t.vectors, t.lanes, main=True, copying=True),
        _tile(t, "main_edge", t.rows, 1, t.rest_lanes, edge=True),
        _tile(t, "low", LOW_ROWS, t.vectors, t.lanes, low=True),
        _tile(t, "low_edge", LOW_ROWS, 1, t.rest_lanes, edge=True, low=True),
        _line(t),
        _single(t),
    ]
    if t.rest_lanes > 1:
        parts.append(_tile(t, "main_wide_edge", t.rows, t.vectors, t.lanes, edge=True))
    return "".join(parts)


def call(f: Function, name: str, *arguments: tuple[str, Int]) -> None:
    """A call of a function that returns nothing; arguments are (type, value)."""
    f.line(f"call void @{name}({', '.join(f'{kind} {value}' for kind, value in arguments)})")


def read(f: Function, ops: Instructions, place: str, mask: str | None = None) -> str:
    """A vector, of which only the lanes of `mask` are read, if there is one; the others are 0."""
    size = ops.dtype.size
    if mask is None:
        return f.load(ops.T, place, size)
    arguments = f"ptr {place}, i32 {size}, {ops.B} {mask}, {ops.T} zeroinitializer"
    return f.let(f"call {ops.T} @llvm.masked.load.{ops.tag}.p0({arguments})")


def write(f: Function, ops: Instructions, value: str, place: str, mask: str | None = None) -> None:
    """Writes a vector, of which only the lanes of `mask`, if there is one."""
    size = ops.dtype.size
    if mask is None:
        f.store(ops.T, value, place, size)
    else:
        f.line(f"call void @llvm.masked.store.{ops.tag}.p0({ops.T} {value}, ptr {place}, i32 {size}, {ops.B} {mask})")


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
    " i64 %rows, i64 %columns, i64 %k, i1 %more, ptr %ahead, i64 %pace, ptr %panel"
)


def _tile(t: Tiles, name: str, rows: int, vectors: int, lanes: int, edge: bool = False, low: bool = False,
          main: bool = False, copying: bool = False) -> str:
    """c[i, j] = Σ_k a·b, or += if %more, for a tile of c; a[i, k] stands at %a + i·%row + k·%step.

    An `edge` tile has %columns columns, its last vector is masked, and nothing beyond is read or written.  A `low` tile
    has %rows rows: it computes the last one again in place of those that do not exist.  A `main` tile fetches a row's
    width of what stands at %ahead, %pace bytes further with each k.  A `copying` one leaves the rows of b, packed, at
    %panel, which is nearly free beside so many multiply-adds.
    """
    f = Function(f"define internal void @{t.name(name)}({TILE_ARGUMENTS}) noinline")
    ops = t.instructions(f, lanes)
    align = t.dtype.size
    mask = first_lanes(f, lanes, f.sub("%columns", (vectors - 1) * lanes)) if edge and lanes > 1 else None

    sums = [[f.cell(ops.T, "zeroinitializer") for _ in range(vectors)] for _ in range(rows)]
    a_cell, b_cell, later_cell, copy_cell = (f.cell("ptr", start) for start in ("%a", "%b", "%ahead", "%panel"))
    row_address = _clamped_rows(f, t, rows) if low else _scaled_rows(f, t, rows)

    with f.loop(0, "%k"):
        a, b = f.load("ptr", a_cell), f.load("ptr", b_cell)
        line = [read(f, ops, place, part) for place, part in _side_by_side(f, t, ops, b, vectors, mask)]
        if copying:
            copy = f.load("ptr", copy_cell)
            for (place, part), value in zip(_side_by_side(f, t, ops, copy, vectors, mask), line, strict=True):
                write(f, ops, value, place, part)
            f.store("ptr", f.at(copy, vectors * lanes, t.scalar), copy_cell)
        if main:
            later = f.load("ptr", later_cell)
            prefetch(f, later, vectors * lanes * align, FIRST_CACHE if copying else SECOND_CACHE)
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
            f.store(ops.T, ops.plus(read(f, ops, place, part), f.load(ops.T, total)), total)
    for (place, part), total in zip(vectors, sums, strict=True):
        write(f, ops, f.load(ops.T, total), place, part)


def _side_by_side(f: Function, t: Tiles, ops: Instructions, start: str, count: int,
                  mask: str | None) -> list[tuple[str, str | None]]:
    """The places of so many vectors, each with the mask of what there is of it: `mask` for the last one."""
    return [(f.at(start, q * ops.n, t.scalar), mask if q == count - 1 else None) for q in range(count)]


def prefetch(f: Function, pointer: str, size: int, cache: int) -> None:
    """Fetches the cache lines in which `size` bytes end; where they begin in a line's midst, it came with what stands
    before them."""
    for byte in range(CACHE_LINE - 1, size, CACHE_LINE):
        f.line(f"call void @llvm.prefetch.p0(ptr {f.at(pointer, byte, 'i8')}, i32 0, i32 {cache}, i32 1)")


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
