"""Matrix products and convolutions without a library: tiles of operands in shared memory, of results in registers.

A product is read off its plain loops: one accumulator of first[rows, k] · second[columns, k], where rows, columns and k
are each one or several variables.  A convolution is one too, whose first operand is found as it is read: none is copied
into a matrix beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorc.codegen import loopir as ir
from tensorc.codegen.convolution import conv_loops
from tensorc.codegen.cuda.lanes import LaneWriter
from tensorc.codegen.cuda.points import split_point
from tensorc.codegen.cuda.scalars import cast, literal, spell
from tensorc.codegen.cuda.schedule import THREADS
from tensorc.codegen.cuda.source import Source
from tensorc.codegen.cuda.text import spelled, to_memory
from tensorc.codegen.keep import DEAR
from tensorc.codegen.loopir import Work
from tensorc.codegen.moves import Moves
from tensorc.codegen.schedule import cost
from tensorc.codegen.transform import matmul_loops, split
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import DType, boolean

FEWEST = 8
"""Rows and columns from which tiles are worth it."""

BLOCKS = 256
"""Blocks that a large GPU has room for at a time, about; parts of a sum give as many."""

SHALLOW = 256
"""Steps of a sum that are not cut further."""

Loop = tuple[str, Size]


@dataclass(frozen=True)
class Tiles:
    """A block makes `rows` by `columns` results, `down` by `across` of them a thread, `deep` steps of k at a time."""

    rows: int
    columns: int
    down: int
    across: int
    deep: int

    def __str__(self) -> str:
        return f"tiles of {self.rows} by {self.columns}, {self.down} by {self.across} a thread, {self.deep} deep"


@dataclass(frozen=True)
class Contraction:
    """Σ over `summed` of first · second for each of `batch`, `rows`, `columns`; first counts where `inside` holds.

    Attributes:
        store: where the sum goes.
        dtype: what it is summed in.
    """

    batch: tuple[Loop, ...]
    rows: tuple[Loop, ...]
    columns: tuple[Loop, ...]
    summed: tuple[Loop, ...]
    first: ir.Load
    second: ir.Load
    inside: ir.Expr | None
    store: ir.Store
    dtype: DType


def contraction(kernel: ir.Kernel) -> Contraction | None:
    """What plain loops say that are a product; None for others, and where tiles do not fit it."""
    loops = [s for s in ir.statements(kernel.body) if isinstance(s, ir.For)]
    lets = {s.var: s.value for s in ir.statements(kernel.body) if isinstance(s, ir.Let)}
    match [s for s in ir.statements(kernel.body) if not isinstance(s, ir.For | ir.Let)]:
        case [ir.Acc(total, "add", dtype) as acc, ir.Accum(values=(value,)), ir.Store() as store]:
            product, result = _inlined(value, lets), _uncast(_inlined(store.value, lets))
        case _:
            return None
    match product:
        case ir.Call("mul", (a, b)):
            first, second = map(_uncast, (a, b))
        case _:
            return None
    if not (isinstance(first, ir.Load) and isinstance(second, ir.Load) and isinstance(result, ir.Var)
            and result.name == total and first.where == second.where and all(map(ir.fed, loops))
            and {acc, store} <= {*kernel.body} and store.buffer not in (first.buffer, second.buffer)):
        return None
    inside = None if first.where is None else _inlined(first.where, lets)
    of_first, of_second = (frozenset().union(*map(dims.symbols, e.index)) for e in (first, second))

    def those(test: Callable[[str], bool]) -> tuple[Loop, ...]:
        return tuple(loop for loop in kernel.grid if loop[1] != 1 and test(loop[0]))

    found = Contraction(
        those(lambda v: v in of_first and v in of_second),
        those(lambda v: v in of_first and v not in of_second),
        those(lambda v: v not in of_first and v in of_second),
        tuple((s.var, s.extent) for s in loops),
        first, second, inside, store, dtype,
    )  # fmt: skip
    known = {*kernel.sizes, *(var for var, _ in found.batch)}
    places = {*known, *(var for var, _ in (*kernel.grid, *found.summed))}
    grid = {var for var, extent in kernel.grid if extent != 1}
    steady = all(dims.symbols(extent) <= known for _, extent in found.summed)
    if not steady or not grid <= of_first | of_second <= places:
        return None
    few = any(isinstance(n := _count(loops), int) and n < FEWEST for loops in (found.rows, found.columns))
    return None if few else found


def _inlined(e: ir.Expr, lets: Mapping[str, ir.Expr]) -> ir.Expr:
    """An expression with what variables stand for in their places."""
    match e:
        case ir.Var(name) if name in lets:
            return _inlined(lets[name], lets)
        case ir.Call(fn, args, dtype):
            return ir.Call(fn, tuple(_inlined(a, lets) for a in args), dtype)
        case ir.Cast(arg, dtype):
            return ir.Cast(_inlined(arg, lets), dtype)
    return e


def _uncast(e: ir.Expr) -> ir.Expr:
    return e.arg if isinstance(e, ir.Cast) else e


def loops_of(k: ir.Matmul | ir.Conv) -> ir.Kernel:
    """A product as plain loops, without its epilogue."""
    return matmul_loops(k) if isinstance(k, ir.Matmul) else conv_loops(k)


def tiles_of(c: Contraction, dear: bool) -> Tiles:
    """Large tiles for large products, unless every result has dear work to follow; narrow ones for few columns."""
    rows, columns = _count(c.rows), _count(c.columns)
    if isinstance(columns, int) and columns <= 16:
        return Tiles(128, 16, 8, 1, 16)
    small = isinstance(columns, int) and columns <= 64 or isinstance(rows, int) and rows <= 512
    return Tiles(64, 64, 4, 4, 16) if small or dear or c.dtype.size > 4 else Tiles(128, 128, 8, 8, 8)


def in_parts(kernel: ir.Kernel, c: Contraction) -> tuple[ir.Kernel, ir.Kernel] | None:
    """A product whose result is known to be few tiles and whose sum may be long, in two: parts of the sum, all of them.

    Each part is a product itself, of a piece of the outermost loop that is summed over; sizes alone say how many.
    """
    how = tiles_of(c, dear=False)
    (var, extent), *inner = c.summed
    tiles = dims.product(map(dims.ceildiv, (_count(c.batch), _count(c.rows), _count(c.columns)),
                             (1, how.rows, how.columns)))
    if not isinstance(tiles, int) or not 0 < tiles <= BLOCKS // 2:
        return None
    each = _count(inner)
    least = -(-SHALLOW // each) if isinstance(each, int) and each else 1
    if isinstance(extent, int) and extent <= 2 * least:
        return None
    return split(kernel, var, dims.maximum(least, dims.ceildiv(extent, BLOCKS // tiles)))


def emit_product(k: Work) -> Source | None:
    """The text of a product with its epilogue; None where its plain loops do better, or it is none."""
    kernel = k if isinstance(k, ir.Kernel) else loops_of(k)
    found = contraction(kernel)
    return None if found is None else _Product(k, kernel, found).source_of()


class _Product(LaneWriter):
    """The text of one product."""

    def __init__(self, k: Work, kernel: ir.Kernel, c: Contraction) -> None:
        self.epilogue = None if isinstance(k, ir.Kernel) else k.epilogue
        super().__init__(self.epilogue or kernel)
        self.taken |= {s.var for s in ir.statements(kernel.body) if isinstance(s, ir.For)} | {v for v, _ in kernel.grid}
        self.owner, self.c = k, c
        self.how = tiles_of(c, dear=self.epilogue is not None and cost(self.epilogue.body) > DEAR)
        self.product_moves = Moves(kernel)
        self.places |= {var: "I(0)" for var, extent in kernel.grid if extent == 1}
        self.result = self.counts = ""

    def source_of(self) -> Source:
        c, how = self.c, self.how
        rows, columns, depth = map(_count, (c.rows, c.columns, c.summed))
        down, right_of = dims.ceildiv(rows, how.rows), dims.ceildiv(columns, how.columns)
        tiles = (*c.batch, ("row_tile", down), ("column_tile", right_of))
        block, thread, tx, ty, row0, column0, k0 = (
            self.fresh(n) for n in ("block", "thread", "tx", "ty", "row0", "column0", "k0"))
        across = how.columns // how.across
        self.line(f"{block} = I(cuda.blockIdx.x)")
        self.line(f"{thread} = I(cuda.threadIdx.x)")
        self.line(f"{tx} = rem({thread}, I({across}))")
        self.line(f"{ty} = quo({thread}, I({across}))")
        split_point(self, block, tiles)
        self.line(f"{row0} = mul({self.places['row_tile']}, I({how.rows}))")
        self.line(f"{column0} = mul({self.places['column_tile']}, I({how.columns}))")

        total = self.array("total", how.down * how.across, c.dtype)
        left, right = self.array("left", how.down, c.dtype), self.array("right", how.across, c.dtype)
        with self.block(f"for l in range({how.down * how.across}):"):
            self.line(f"{total}[l] = {literal(0, c.dtype)}")
        if c.inside is not None:       # 0 · inf is NaN, so what lies outside of the input must not be multiplied
            self.counts, counted = self.fresh("counts_tile"), self.array("counts", how.down, boolean)
            self.line(f"{self.counts} = cuda.shared.array(({how.deep}, {how.rows + 1}), uint8)")
        first, second = self.fresh("first_tile"), self.fresh("second_tile")
        for name, width in ((first, how.rows), (second, how.columns)):
            self.line(f"{name} = cuda.shared.array(({how.deep}, {width + 1}), {c.dtype.name})")

        step, i, j = self.fresh("step"), self.fresh("down"), self.fresh("across")
        with self.block(f"for {k0} in range(I(0), {self.size(depth)}, I({how.deep})):"):
            self.stage(first, c.first, c.rows, how.rows, row0, k0, rows, depth, thread)
            self.stage(second, c.second, c.columns, how.columns, column0, k0, columns, depth, thread)
            self.line("cuda.syncthreads()")
            with self.block(f"for {step} in range({how.deep}):"):
                with self.block(f"for {i} in range({how.down}):"):
                    slot = f"{step}, add({ty}, I({i} * {how.rows // how.down}))"
                    self.line(f"{left}[{i}] = {first}[{slot}]")
                    if c.inside is not None:
                        self.line(f"{counted}[{i}] = {self.counts}[{slot}] != uint8(0)")
                with self.block(f"for {j} in range({how.across}):"):
                    self.line(f"{right}[{j}] = {second}[{step}, add({tx}, I({j} * {across}))]")
                with self.block(f"for {i} in range({how.down}):"), self.block(f"for {j} in range({how.across}):"):
                    product = spell(self, "mul", c.dtype, (f"{left}[{i}]", f"{right}[{j}]"))
                    if c.inside is not None:
                        product = f"select({counted}[{i}], {product}, {literal(0, c.dtype)})"
                    place = f"{total}[{i} * {how.across} + {j}]"
                    self.line(f"{place} = {spell(self, 'add', c.dtype, (place, product))}")
            self.line("cuda.syncthreads()")

        row, column = self.fresh("row"), self.fresh("column")
        with self.block(f"for {i} in range({how.down}):"):
            self.line(f"{row} = add({row0}, add({ty}, I({i} * {how.rows // how.down})))")
            with self.block(f"if {row} < {self.size(rows)}:"):
                split_point(self, row, c.rows)
                with self.block(f"for {j} in range({how.across}):"):
                    self.line(f"{column} = add({column0}, add({tx}, I({j} * {across})))")
                    with self.block(f"if {column} < {self.size(columns)}:"):
                        split_point(self, column, c.columns)
                        self.finish(f"{total}[{i} * {how.across} + {j}]")
        blocks = dims.product(extent for _, extent in tiles)
        return self.source(self.owner.name, blocks, THREADS, str(how))

    def stage(self, tile: str, e: ir.Load, loops: Sequence[Loop], width: int, start: str, k0: str, extent: Size,
              depth: Size, thread: str) -> None:
        """Brings a tile of an operand into shared memory, neighbouring threads along what is contiguous there."""
        deep = self.how.deep
        along_k = self.product_moves.move(e, self.c.summed[-1][0]) == "unit"
        turn, at, here, k, value = (self.fresh(n) for n in ("turn", "slot", "here", "k", "value"))
        with self.block(f"for {turn} in range({width * deep // THREADS}):"):
            self.line(f"{at} = add({thread}, I({turn} * {THREADS}))")
            inner = deep if along_k else width
            small, large = f"rem({at}, I({inner}))", f"quo({at}, I({inner}))"
            self.line(f"{here} = {large if along_k else small}")
            self.line(f"{k} = {small if along_k else large}")
            self.line(f"{value} = {literal(0, self.c.dtype)}")
            flag = self.fresh("flag") if self.c.inside is not None and loops is self.c.rows else ""
            if flag:
                self.line(f"{flag} = uint8(0)")
            point, step = self.fresh("point"), self.fresh("at_k")
            self.line(f"{point} = add({start}, {here})")
            self.line(f"{step} = add({k0}, {k})")
            with self.block(f"if both({point} < {self.size(extent)}, {step} < {self.size(depth)}):"):
                split_point(self, point, loops)
                split_point(self, step, self.c.summed)
                loaded = cast(self.loaded(e.buffer, self.offset(e.buffer, e.index)), e.dtype, self.c.dtype)
                if flag:
                    assert self.c.inside is not None
                    self.line(f"{flag} = cast_u8({self.bind(self.expr(self.c.inside))})")
                    with self.block(f"if {flag} != uint8(0):"):
                        self.line(f"{value} = {loaded}")
                else:
                    self.line(f"{value} = {loaded}")
            self.line(f"{tile}[{k}, {here}] = {value}")
            if flag:
                self.line(f"{self.counts}[{k}, {here}] = {flag}")

    def finish(self, total: str) -> None:
        """Stores an element of the product, or what the epilogue makes of it."""
        c, epilogue = self.c, self.epilogue
        result = next(b for b in self.owner.buffers if b.name == c.store.buffer)
        product = self.bind(cast(total, c.dtype, result.dtype))
        stored = set() if epilogue is None else {s.buffer for s in ir.statements(epilogue.body)
                                                 if isinstance(s, ir.Store)}
        if epilogue is None or result.role != "scratch" and result.name not in stored:
            place = self.offset(result.name, c.store.index)
            self.line(f"{spelled(result.name)}[{place}] = {to_memory(product, result.dtype)}")
        if epilogue is not None:
            for (var, _), at in zip(epilogue.grid, c.store.index, strict=True):
                self.places[var] = self.bind(self.size(at))
            self.result = product
            self.body(epilogue.body, None)

    def load(self, e: ir.Load) -> str:
        if self.result and e.buffer == self.c.store.buffer:
            return self.result
        return super().load(e)


def _count(loops: Sequence[Loop]) -> Size:
    return dims.product(extent for _, extent in loops)
