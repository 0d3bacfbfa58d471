"""Matrix products: what is computed where, in how many units, and from which copy of b.

    a · b      rows of b are read where they stand, once for all tiles below each other; for many rows of a, a large b
               is packed into panels before all units
    a · bᵀ     packed, which transposes; of few rows as dot products along k
    aᵀ · b     a's columns are contiguous, and a tile reads one element of each of its rows at a time all the same; a
               block copies its part first where neighbours along k stand far apart
    a · v      is vᵀ · aᵀ

A b that lasts from product to product is packed in any case, once for all of them.

A unit of work is a block of c.  How c is cut depends on sizes alone, and no sum is cut, so the result does not depend
on how many threads share the units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorc.codegen.cpu.function import Bit, Function, Int
from tensorc.codegen.cpu.matmul_blocks import BLOCK_ROWS, K_CHUNK, product_functions
from tensorc.codegen.cpu.matmul_dots import dot_functions
from tensorc.codegen.cpu.matmul_tiles import Tiles, call
from tensorc.codegen.cpu.packing import pack_function, pack_name
from tensorc.codegen.cpu.sizes import SizeArithmetic
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.loopir import AGE, Matmul
from tensorc.errors import DTypeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import f32, f64, i32, i64

DTYPES = (f32, f64, i32, i64)

UNIT = 1 << 18
"""Multiplications that make a unit worth its overhead: two microseconds or so."""

ENOUGH_UNITS = 32
"""A product is cut further only where its blocks would not stay in the second cache."""

ENOUGH_COPIES = 16
"""As few units suffice for a transposed a, of which each copies its rows: beside one another they would copy alike."""

BLOCK_BYTES = 2048
"""The most columns of a block, in bytes."""

DOT_ROWS = 4
"""Fewer rows of a than these are multiplied with a transposed b by dot products."""

KEPT_ROWS = 2
"""From how many rows of a panels that are there already pay: a single row reads rows of b in place as fast."""

PACK_ROWS, PACK_BYTES = 48, 1 << 16
"""From how many rows of a, and bytes of b, packing pays for a b that is not transposed."""

IN_PLACE_ROWS = 168
"""The most rows of a block whose b is read in place: a copy of one panel serves them all from the first cache."""

IN_PLACE_PANELS = 8
"""Fewer panels than these make too few such blocks."""

ROW_UNITS = 4
"""Blocks of few rows are cut into fewer rows only for so many units: each reads its panels of b again."""

PACK_CHUNK = 1024
"""Rows of a panel that one unit of packing copies."""


def emit_matmul(mm: Matmul, target: Target) -> str:
    """The LLVM IR of the kernels that `phases` names, without the functions of `shared`.

    Each kernel NAME has the form of all kernels: NAME, NAME_units and NAME_work.  Its buffers are those of `mm`, then,
    where `workspace` is not 0, one of that many bytes, aligned to 64, which is kept from call to call where
    `keeps`.  NAME_work counts what elementwise kernels count:
    an operation on one scalar of a full vector; so 2·m·n·k over the lanes of a vector.

    An epilogue E is called as `@E_box(ptr buffers, ptr sizes, i64 batch…, i64 i0, i64 i1, i64 j0, i64 j1)` on each
    block of c that is finished.

    Raises: DTypeError unless a, b and c have one dtype of DTYPES.
    """
    p = _Product.of(mm, target)
    return "".join(_Kernels(p).texts())


def shared(mm: Matmul, target: Target) -> dict[str, str]:
    """The functions that `mm` calls: LLVM IR by name, for one module to hold once whoever asks.  Raises DTypeError."""
    p = _Product.of(mm, target)
    t = p.tiles
    dots = p.dots(Function(""), _known(p.m))

    parts = {"mm_grid": _grid_function()}
    if dots is not True:
        parts[t.name("block")] = product_functions(t)
    if dots is not False:
        parts[t.name("dots")] = dot_functions(t)
    if p.may_pack:
        parts[pack_name(t, p.transpose_b)] = pack_function(t, p.transpose_b)
    return parts


def phases(mm: Matmul, target: Target) -> tuple[str, ...]:
    """The kernels that make the product, each to be launched when the one before is done.  Raises DTypeError."""
    return (f"{mm.name}_pack", mm.name) if _Product.of(mm, target).may_pack else (mm.name,)


def workspace(mm: Matmul, target: Target) -> Size:
    """Bytes of scratch memory that the phases share; 0 where there is one phase.  Raises DTypeError."""
    p = _Product.of(mm, target)
    return p.panels_size * p.tiles.dtype.size if p.may_pack else 0


def keeps(mm: Matmul, target: Target) -> bool:
    """Whether the scratch memory is to be kept from call to call.  Raises DTypeError."""
    p = _Product.of(mm, target)
    return p.keeps and p.may_pack


@dataclass(frozen=True)
class _Product:
    """A product brought into the form that the kernels compute: never a matrix times a single column.

    `a` and `b` say which of the buffers is left and right; `swapped` says that c is computed as its transpose, which,
    being a row or a column, is stored alike.
    """

    mm: Matmul
    tiles: Tiles
    m: Size
    n: Size
    a: int
    b: int
    transpose_a: bool
    transpose_b: bool
    swapped: bool

    @staticmethod
    def of(mm: Matmul, target: Target) -> _Product:
        dtype = mm.c.dtype
        if dtype not in DTYPES or mm.a.dtype is not dtype or mm.b.dtype is not dtype:
            raise DTypeError(
                f"no matrix product of {mm.a.dtype} and {mm.b.dtype} into {dtype};"
                f" all three must be one of {', '.join(map(str, DTYPES))}"
            )
        tiles = Tiles.on(target, dtype)
        if mm.n == 1:
            return _Product(mm, tiles, 1, mm.m, 1, 0, mm.transpose_b, not mm.transpose_a, swapped=True)
        return _Product(mm, tiles, mm.m, mm.n, 0, 1, mm.transpose_a, mm.transpose_b, swapped=False)

    @property
    def k(self) -> Size:
        return self.mm.k

    @property
    def panels_size(self) -> Size:
        """Elements of all panels of all matrices of b."""
        columns = self.tiles.columns
        return dims.product(self.outer(self.b)) * self.k * dims.ceildiv(self.n, columns) * columns

    @property
    def may_pack(self) -> bool:
        return self.packs(Function(""), self._outside()) is not False

    def _outside(self) -> _Values:
        """The sizes for the rules below, outside of any function."""
        m, n, k = map(_known, (self.m, self.n, self.k))
        return _Values((), m, n, k, 1, {}, "%unknown")

    def outer(self, operand: int) -> tuple[Size, ...]:
        """The batch dimensions of an operand."""
        return self.mm.buffers[operand].shape[:-2]

    def dots(self, f: Function, m: Int) -> Bit:
        """Whether rows of a and rows of the transposed b are multiplied by dot products."""
        if not self.transpose_b or self.mm.lasting:
            return False
        return f.equal(m, 1) if self.transpose_a else f.less(m, DOT_ROWS)

    @property
    def keeps(self) -> bool:
        """Whether panels of b are kept from call to call, once two calls have found b the same."""
        return AGE in self.mm.sizes and not self.swapped

    def packs(self, f: Function, v: _Values) -> Bit:
        """Whether c is computed from packed panels of b."""
        if self.mm.lasting:
            return True
        if not self.keeps or self.transpose_b:
            return self.packs_at_once(f, v)
        kept = f.both(f.less(0, v.age), f.less(KEPT_ROWS - 1, v.m))
        return f.either(self.packs_at_once(f, v), kept)

    def packs_at_once(self, f: Function, v: _Values) -> Bit:
        """Whether packing all of b pays for a single call, or for all those of a loop."""
        if self.mm.lasting:
            return True
        if self.transpose_b:
            return f.negation(self.dots(f, v.m))
        few = f.both(f.less(v.m, IN_PLACE_ROWS + 1), f.less(IN_PLACE_PANELS * self.tiles.columns - 1, v.n))
        large = f.less(PACK_BYTES - 1, f.product(v.n, v.k, self.tiles.dtype.size))
        return f.both(f.both(f.less(PACK_ROWS - 1, v.m), large), f.negation(few))

    def packs_now(self, f: Function, v: _Values) -> Bit:
        """Whether this call packs b: a call after which panels are kept does so whatever its own sizes."""
        if not self.keeps:
            return self.packs_at_once(f, v)
        at_once = self.packs_at_once(f, v)
        first = f.both(f.equal(v.age, 0), at_once)
        return first if at_once is True else f.either(f.equal(v.age, 1), first)


def _known(size: Size) -> Int:
    """A size for the rules above: a name stands for one that is not a number."""
    return size if isinstance(size, int) else "%unknown"


@dataclass(frozen=True)
class _Values:
    """The sizes of a product inside one function."""

    batch: tuple[Int, ...]
    m: Int
    n: Int
    k: Int
    matrices: Int
    """How many matrices b is."""
    outer: Mapping[int, tuple[Int, ...]]
    """The batch dimensions of operands a and b."""
    age: Int = 0
    """How many earlier calls have found b as it is; 0 where it is not known to stay."""


class _Kernels:
    """Writes the kernels of one product."""

    def __init__(self, p: _Product) -> None:
        self.p = p
        self.t = p.tiles
        self.name = p.mm.name

    def texts(self) -> list[str]:
        texts = [self.product(), self.units(), self.work()]
        if self.p.may_pack:
            texts += [self.pack(), self.pack_units(), self.pack_work()]
        return texts

    # -- the product

    def product(self) -> str:
        f = Function(f"define void @{self.name}(i64 %lo, i64 %hi, ptr %bufs, ptr %sizes)")
        v = self._sizes(f)
        a, b, c = (self._buffer(f, index) for index in (self.p.a, self.p.b, 2))
        packs, dots = self.p.packs(f, v), self.p.dots(f, v.m)
        panels = self._buffer(f, len(self.p.mm.buffers)) if packs is not False else ""
        tiles, strips, row_blocks, column_blocks = self._grid(f, v)
        blocks = f.mul(row_blocks, column_blocks)

        with f.loop("%lo", "%hi") as unit:
            item = f.div(unit, blocks)
            block = f.sub(unit, f.mul(item, blocks))
            block_row = f.div(block, column_blocks)
            block_column = f.sub(block, f.mul(block_row, column_blocks))
            i0, i1 = _part(f, block_row, row_blocks, tiles, self.t.rows, v.m)
            j0, j1 = _part(f, block_column, column_blocks, strips, self.t.columns, v.n)

            at = self._coordinates(f, item, v.batch)
            a_item, b_item = (self._item(f, at, v.outer[operand]) for operand in (self.p.a, self.p.b))
            row, step = (1, v.m) if self.p.transpose_a else (v.k, 1)
            a_block = f.at(a, f.add(f.product(a_item, v.m, v.k), f.mul(i0, row)), self.t.scalar)
            c_block = f.at(c, f.add(f.product(f.add(f.mul(item, v.m), i0), v.n), j0), self.t.scalar)
            b_start = f.product(b_item, v.n, v.k)
            extent = [("ptr", c_block), ("i64", v.n), ("i64", f.sub(i1, i0)), ("i64", f.sub(j1, j0)), ("i64", v.k)]

            def multiply(b_block: str, ldb: Int, spread: Int, following: Sequence[str]) -> None:
                call(
                    f, self.t.name("block"), ("ptr", a_block), ("i64", row), ("i64", step),
                    ("ptr", b_block), ("i64", ldb), ("i64", spread), *extent, *(("ptr", x) for x in following),
                )  # fmt: skip

            if packs is not False:
                with f.when(packs):
                    start = f.add(f.product(b_item, self._panels(f, v), v.k), f.mul(j0, v.k))
                    multiply(f.at(panels, start, self.t.scalar), self.t.columns, v.k, ["null"] * 3)
            if dots is not False:
                with f.when(dots):
                    b_block = ("ptr", f.at(b, f.add(b_start, f.mul(j0, v.k)), self.t.scalar))
                    call(f, self.t.name("dots"), ("ptr", a_block), ("i64", v.k), b_block, ("i64", v.k), *extent)
            in_place = False if self.p.transpose_b else f.negation(packs)
            if in_place is not False:
                with f.when(in_place):
                    place = f.at(b, f.add(b_start, j0), self.t.scalar)
                    multiply(place, v.n, 1, self._following(f, v, blocks, a_block, place, c_block))

            self._epilogue(f, at, (i0, i1), (j0, j1))

        f.line("ret void")
        return f.text()

    def _following(self, f: Function, v: _Values, blocks: Int, *matrices: str) -> list[str]:
        """Where a, b and c of the next product of a batch stand, if a block is all of one and takes all k at once,
        else null."""
        if not v.batch:
            return ["null"] * len(matrices)
        sizes = [(self.p.a, f.mul(v.m, v.k)), (self.p.b, f.mul(v.k, v.n)), (2, f.mul(v.m, v.n))]
        whole = f.both(f.equal(blocks, 1), f.less(v.k, K_CHUNK + 1))
        following = []
        for (operand, size), matrix in zip(sizes, matrices, strict=True):
            moves = operand == 2 or self.p.outer(operand) == self.p.mm.batch
            place = f.at(matrix, size if moves else 0, self.t.scalar)
            following.append(f.let(f"select i1 {f.bit(whole)}, ptr {place}, ptr null"))
        return following

    def _epilogue(self, f: Function, at: list[Int], rows: tuple[Int, Int], columns: tuple[Int, Int]) -> None:
        if self.p.mm.epilogue is None:
            return
        box = (*columns, *rows) if self.p.swapped else (*rows, *columns)
        arguments: list[tuple[str, Int]] = [("ptr", "%bufs"), ("ptr", "%sizes")]
        arguments += [("i64", x) for x in (*at, *box)]
        call(f, f"{self.p.mm.epilogue.name}_box", *arguments)

    def units(self) -> str:
        f = Function(self._about("units"))
        v = self._sizes(f)
        *_, row_blocks, column_blocks = self._grid(f, v)
        some = f.both(f.less(0, v.m), f.less(0, v.n))
        f.line(f"ret i64 {f.select(some, f.product(*v.batch, row_blocks, column_blocks), 0)}")
        return f.text()

    def work(self) -> str:
        f = Function(self._about("work"))
        v = self._sizes(f)
        f.line(f"ret i64 {f.div(f.product(2, *v.batch, v.m, v.n, v.k), self.t.lanes)}")
        return f.text()

    # -- packing

    def pack(self) -> str:
        f = Function(f"define void @{self.name}_pack(i64 %lo, i64 %hi, ptr %bufs, ptr %sizes)")
        v = self._sizes(f)
        b, panels = self._buffer(f, self.p.b), self._buffer(f, len(self.p.mm.buffers))
        strips, chunks = f.ceildiv(v.n, self.t.columns), f.ceildiv(v.k, PACK_CHUNK)

        with f.loop("%lo", "%hi") as unit:
            strip = f.div(unit, chunks)
            item = f.div(strip, strips)
            j = f.mul(f.sub(strip, f.mul(item, strips)), self.t.columns)
            k = f.mul(f.sub(unit, f.mul(strip, chunks)), PACK_CHUNK)

            at_k, at_j = (k, f.mul(j, v.k)) if self.p.transpose_b else (f.mul(k, v.n), j)
            source = f.add(f.product(item, v.n, v.k), f.add(at_k, at_j))
            target = f.add(f.product(item, self._panels(f, v), v.k), f.add(f.mul(j, v.k), f.mul(k, self.t.columns)))
            call(
                f, pack_name(self.t, self.p.transpose_b), ("ptr", f.at(b, source, self.t.scalar)),
                ("i64", v.k if self.p.transpose_b else v.n), ("ptr", f.at(panels, target, self.t.scalar)),
                ("i64", f.minimum(f.sub(v.n, j), self.t.columns)), ("i64", f.minimum(f.sub(v.k, k), PACK_CHUNK)),
            )  # fmt: skip

        f.line("ret void")
        return f.text()

    def pack_units(self) -> str:
        f = Function(self._about("pack_units"))
        v = self._sizes(f)
        count = f.product(v.matrices, f.ceildiv(v.n, self.t.columns), f.ceildiv(v.k, PACK_CHUNK))
        f.line(f"ret i64 {f.select(self.p.packs_now(f, v), count, 0)}")
        return f.text()

    def pack_work(self) -> str:
        f = Function(self._about("pack_work"))
        v = self._sizes(f)
        count = f.product(v.matrices, v.n, v.k)
        f.line(f"ret i64 {f.select(self.p.packs_now(f, v), count, 0)}")
        return f.text()

    # -- what they share

    def _about(self, what: str) -> str:
        """The head of a function that tells about a kernel; the program's only call of it takes it in."""
        return f"define internal i64 @{self.name}_{what}(ptr %sizes) alwaysinline"

    def _sizes(self, f: Function) -> _Values:
        """The sizes, read from %sizes."""
        p = self.p
        symbols = {
            symbol: f.load("i64", f.at("%sizes", q, "i64"), 8) for q, symbol in enumerate(p.mm.sizes)
        }
        arithmetic = SizeArithmetic(lambda text: f.line(text.strip()), symbols)

        def value(size: Size) -> Int:
            return size if isinstance(size, int) else arithmetic.value(size)

        outer = {operand: tuple(map(value, p.outer(operand))) for operand in (p.a, p.b)}
        matrices = f.product(*outer[p.b])
        age: Int = symbols[AGE] if p.keeps else 0
        return _Values(tuple(map(value, p.mm.batch)), value(p.m), value(p.n), value(p.k), matrices, outer, age)

    def _buffer(self, f: Function, index: int) -> str:
        return f.load("ptr", f.at("%bufs", index, "ptr"), 8)

    def _panels(self, f: Function, v: _Values) -> Int:
        """Columns of all panels of one matrix."""
        return f.mul(f.ceildiv(v.n, self.t.columns), self.t.columns)

    def _grid(self, f: Function, v: _Values) -> tuple[Int, Int, Int, Int]:
        """(tiles, strips, row blocks, column blocks): rows and columns in tiles, then in blocks."""
        t = self.t
        tiles, strips = f.ceildiv(v.m, t.rows), f.ceildiv(v.n, t.columns)
        most = f.maximum(f.div(ENOUGH_UNITS, f.maximum(f.product(*v.batch), 1)), 1)
        want = f.minimum(f.div(f.product(v.m, v.n, v.k), UNIT), most)
        most_tiles = f.select(self.p.packs(f, v), BLOCK_ROWS[t.bits] // t.rows, IN_PLACE_ROWS // t.rows)
        if self.p.transpose_a:
            want = f.minimum(want, ENOUGH_COPIES)
        most_strips = max(BLOCK_BYTES // (t.columns * t.dtype.size), 1)
        blocks = f.let(
            f"call {{i64, i64}} @mm_grid(i64 {tiles}, i64 {t.rows}, i64 {most_tiles},"
            f" i64 {strips}, i64 {t.columns}, i64 {most_strips}, i64 {want})"
        )
        rows, columns = (f.let(f"extractvalue {{i64, i64}} {blocks}, {q}") for q in range(2))
        return tiles, strips, rows, columns

    def _coordinates(self, f: Function, item: Int, batch: tuple[Int, ...]) -> list[Int]:
        """The indices of batch element number `item`."""
        at: list[Int] = []
        for q, size in reversed(list(enumerate(batch))):
            above = f.div(item, size) if q else 0
            at.insert(0, f.sub(item, f.mul(above, size)))
            item = above
        return at

    def _item(self, f: Function, at: list[Int], outer: tuple[Int, ...]) -> Int:
        """Which matrix of an operand belongs to a batch element; sizes of 1 and missing ones broadcast."""
        item: Int = 0
        for index, size in zip(at[len(at) - len(outer):], outer, strict=True):
            item = f.add(f.mul(item, size), 0 if size == 1 else index)
        return item


def _part(f: Function, index: Int, parts: Int, steps: Int, step: int, size: Int) -> tuple[Int, Int]:
    """Where part `index` of equal `parts` of a range of `steps` steps begins and ends, the end within `size`."""
    start = f.div(f.mul(steps, index), parts)
    stop = f.div(f.mul(steps, f.add(index, 1)), parts)
    return f.mul(start, step), f.minimum(f.mul(stop, step), size)


def _grid_function() -> str:
    """Into how many blocks rows and columns are cut: into the largest that are allowed, then the longer side in two,
    until there are as many as wanted."""
    f = Function(
        "define internal {i64, i64} @mm_grid(i64 %tiles, i64 %height, i64 %most_tiles,"
        " i64 %strips, i64 %width, i64 %most_strips, i64 %want)"
    )
    start = [
        f.maximum(f.div(f.sub(f.add(f"%{count}", f"%most_{count}"), 1), f"%most_{count}"), 1)
        for count in ("tiles", "strips")
    ]
    cells = [f.cell("i64", str(blocks)) for blocks in start]

    with f.loop(0, ENOUGH_UNITS.bit_length()):
        rows, columns = (f.load("i64", cell) for cell in cells)
        with f.when(f.less(f.mul(rows, columns), "%want")):
            high = f.div(f.mul("%tiles", "%height"), rows)
            wide = f.div(f.mul("%strips", "%width"), columns)
            cut_rows = f.both(f.less(wide, f.add(high, 1)), f.less(rows, "%tiles"))
            cut_rows = f.either(cut_rows, f.equal(columns, "%strips"))
            cut_rows = f.both(cut_rows, f.less(f.mul(rows, columns), ROW_UNITS))
            halved_rows = f.minimum(f.mul(rows, 2), f.maximum("%tiles", 1))
            halved_columns = f.minimum(f.mul(columns, 2), f.maximum("%strips", 1))
            f.store("i64", str(f.select(cut_rows, halved_rows, rows)), cells[0])
            f.store("i64", str(f.select(cut_rows, columns, halved_columns)), cells[1])

    rows, columns = (f.load("i64", cell) for cell in cells)
    first = f.let(f"insertvalue {{i64, i64}} poison, i64 {rows}, 0")
    f.line(f"ret {{i64, i64}} {f.let(f'insertvalue {{i64, i64}} {first}, i64 {columns}, 1')}")
    return f.text()
