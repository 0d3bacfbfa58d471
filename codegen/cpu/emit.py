"""Loop IR to LLVM IR text with explicit lanes; nothing here relies on LLVM's vectorisers.

Of a kernel NAME come three functions, and a fourth of an epilogue:

    void @NAME(i64 lo, i64 hi, ptr buffers, ptr sizes)     the units lo … hi - 1 of its parallel work
    i64  @NAME_units(ptr sizes)                            how many units there are
    i64  @NAME_work(ptr sizes)                             scalar operations of all of them, roughly
    void @NAME_box(ptr buffers, ptr sizes, i64 batch…, i64 i0, i64 i1, i64 j0, i64 j1)
                                                           the points i0 ≤ i < i1, j0 ≤ j < j1 of an elementwise kernel

`buffers` points at the addresses of the kernel's buffers, `sizes` at the i64 values of its sizes, both in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorc.codegen import loopir as ir
from tensorc.codegen.cpu.emit_control import Control, Span
from tensorc.codegen.cpu.emit_sizes import Entry
from tensorc.codegen.cpu.emit_text import Known, flatten
from tensorc.codegen.cpu.emit_values import Region
from tensorc.codegen.cpu.marks import NO_MARKS, Marks, marked
from tensorc.codegen.cpu.sizes import SizeArithmetic
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.schedule import TILE_ROWS, Schedule, box_schedule, schedule
from tensorc.codegen.weigh import call_cost
from tensorc.errors import InternalError
from tensorc.ir import dims
from tensorc.ir.dims import Size

UNKNOWN_EXTENT = 16
"""What the estimate of work takes for a trip count that depends on data."""


def emit(k: ir.Kernel, target: Target, how: Schedule | None = None, marks: Marks = NO_MARKS) -> str:
    """The functions @NAME, @NAME_units and @NAME_work of a verified kernel.

    Args:
        how: replaces its default schedule.
        marks: comments that tell where code comes from.
    """
    how = how or schedule(k, target.bits, target.registers)
    return "\n".join([
        _Emitter(k, target, how, marks).units_function(),
        marked(_entry_function(k), marks.head),
        _count_function(f"{k.name}_units", k, dims.product(_units(k, how).values())),
        _count_function(f"{k.name}_work", k, work(k)),
    ])


def emit_box(k: ir.Kernel, target: Target, marks: Marks = NO_MARKS) -> str:
    """The function @NAME_box of an elementwise kernel with a grid (batch…, i, j).

    Raises InternalError for a kernel with loops of its own, or with fewer than two grid dimensions.
    """
    if len(k.grid) < 2 or not all(isinstance(s, ir.Let | ir.Store) for s in k.body):
        raise InternalError(f"{k.name} is not elementwise over two dimensions")
    return _Emitter(k, target, box_schedule(k, target.bits), marks).box_function()


def work(k: ir.Kernel) -> Size:
    """Scalar operations, loads and stores of all iterations, as a size."""
    return dims.product(extent for _, extent in k.grid) * _work_of(k.body, set(k.sizes))


def _work_of(body: ir.Body, known: set[str]) -> Size:
    total: Size = 0
    for s in body:
        if isinstance(s, ir.For):
            guess: dict[str, Size] = dict.fromkeys(dims.symbols(s.extent) - known, 0)
            extent = dims.substitute(s.extent, guess)
            total = total + _work_of(s.body, known) * (UNKNOWN_EXTENT if extent == 0 else extent)
        else:
            total = total + 1 + sum(_work_of_expr(e) for e in ir.values(s))
    return total


def _work_of_expr(e: ir.Expr) -> int:
    return sum(call_cost(x) if isinstance(x, ir.Call) else isinstance(x, ir.Load) for x in ir.walk(e))


def _units(k: ir.Kernel, how: Schedule) -> dict[str, Size]:
    """How many units each grid variable makes, slowest first.

    Blocks of lanes come last, tiles before them, so that neighbouring units read the same cache lines and pages.
    """
    blocks = _blocks(how)
    extents = dict(k.grid)
    outer = {var: extent for var, extent in k.grid if var not in blocks}
    return outer | {var: dims.ceildiv(extents[var], block) for var, block in blocks.items()}


def _blocks(how: Schedule) -> dict[str, int]:
    """How many iterations of the vectorised grid variables one unit takes."""
    blocks = {how.vector: how.block, how.tile: TILE_ROWS}
    return {var: block for var, block in blocks.items() if var is not None}


class _Emitter(Control):
    """The functions that run a kernel.

    Attributes:
        past_caches: whether there is code that writes past the caches.
    """

    past_caches = False

    def units_function(self) -> str:
        """@NAME_body: a loop over units."""
        self._start()
        self.loop("%lo", "%hi", 1, self._unit)
        if self.past_caches:
            self.line("  fence seq_cst")  # what went past the caches is not ordered by the launch's own atomics
        self.line("  ret void")
        return self._function(f"{self.k.name}_body", ["i64 %lo", "i64 %hi"])

    def box_function(self) -> str:
        """@NAME_box: a loop over rows, lanes along them."""
        (*batch, (i, _), (j, _)) = self.k.grid
        self._start()
        steady, rest = self.steady(self.k.body, {j})

        def row(i_value: str) -> None:
            with self.scope({i: i_value, **{var: f"%at_{var}" for var, _ in batch}}):
                self.block_then(steady, lambda: self.lane_loop(
                    j, "%j0", "%j1", self.schedule.unroll, lambda: self.block(rest)
                ))

        self.loop("%i0", "%i1", 1, row)
        self.line("  ret void")
        corner = ["i64 %i0", "i64 %i1", "i64 %j0", "i64 %j1"]
        body = self._function(f"{self.k.name}_box_body", [*(f"i64 %at_{var}" for var, _ in batch), *corner])
        return f"{body}\n{marked(_box_entry(self.k, [var for var, _ in batch]), self.marks.head)}"

    def _start(self) -> None:
        self.line("entry:")
        self.mark = self.marks.grid
        self.lines.append(self.allocas)
        if any(isinstance(e, ir.Load) and e.where is not None for e in ir.expressions(self.k.body)):
            self.line("  %nothing = alloca i64, align 8")
            self.line("  store i64 0, ptr %nothing, align 8")
        self.push({name: f"%s_{name}" for name in self.k.sizes})
        self.once = Entry(self.slot(), frozenset())

    def _function(self, name: str, arguments: Sequence[str]) -> str:
        given = ", ".join([*arguments, *_buffer_parameters(self.k), *(f"i64 %s_{n}" for n in self.k.sizes)])
        return f"define internal void @{name}({given}) alwaysinline {{\n{flatten(self.lines)}\n}}\n"

    # -- units

    def _unit(self, number: str) -> None:
        how, extents = self.schedule, dict(self.k.grid)
        at = self._position(number)
        numbers = {var: (at.pop(var), block) for var, block in _blocks(how).items()}

        with self.scope(at, self.once):
            spans = [self._span(var, number, block, extents[var]) for var, (number, block) in numbers.items()]
            if spans:
                self._lanes_of_unit(*spans)
            else:
                self.block(self.k.body)

    def _span(self, var: str, number: Known, block: int, extent: Size) -> Span:
        """The block of a variable with this number."""
        low = self.mul(number, block)
        high = self.add(low, block)
        if not (isinstance(extent, int) and extent % block == 0):
            high = self.lower(high, self.size(extent))
        return Span(var, low, high, extent)

    def _position(self, number: str) -> dict[str, Known]:
        """The place of a unit along each grid variable."""
        counts = _units(self.k, self.schedule)
        at: dict[str, Known] = {}
        rest: Known = number
        for index, (var, count) in reversed(list(enumerate(counts.items()))):
            if index == 0 or count == 1:
                at[var] = rest if index == 0 else 0
                continue
            n = self.size(count)
            above = self.divide(rest, n)
            at[var] = self.sub(rest, self.mul(above, n))
            rest = above
        return at

    def _lanes_of_unit(self, lanes: Span, tile: Span | None = None) -> None:
        """A unit's part of the vectorised grid variable; what its lanes agree about comes first."""
        steady, rest = self.steady(self.k.body, {span.var for span in (lanes, tile) if span is not None})

        def body() -> None:
            self.block(rest)

        def units() -> None:
            stream = self._stream(lanes, tile)
            if tile is not None:
                self.tile_loops(lanes, tile, body, stream)
                return
            self.lane_loop(
                lanes.var, lanes.low, lanes.high, self.schedule.unroll, body,
                total=self._total(), together=any(isinstance(s, ir.For) for s in rest), stream=stream,
            )

        self.block_then(steady, units)

    def _total(self) -> Size | None:
        """The extent of the vectorised grid variable, if its units begin at multiples of what is done at once."""
        how = self.schedule
        at_once = how.width * how.unroll
        return dict(self.k.grid)[how.vector] if how.vector is not None and how.block % at_once == 0 else None

    def _streams_of_body(self) -> list[ir.Store]:
        """The stores that may go past the caches."""
        how = self.schedule
        if not how.stream or how.vector is None:
            return []
        self.region = Region(how.vector, how.width, how.unroll, tile=how.tile)
        found = [s for s in self.k.body if isinstance(s, ir.Store) and self.streams(s)]
        self.region = None
        return found

    def _stream(self, lanes: Span, tile: Span | None) -> str | None:
        """An i1: the outputs are too large to keep in the caches, and this unit fills whole lines of them."""
        stores = self._streams_of_body()
        buffers = [self.buffers[s.buffer] for s in stores]
        total: Size = 0
        for b in buffers:
            total = total + dims.product(b.shape) * b.dtype.size
        if not stores or isinstance(total, int) and total <= self.schedule.stream:
            return None

        places: list[str] = []
        for s, b in zip(stores, buffers, strict=True):
            with self.scope({span.var: span.low for span in (lanes, tile) if span is not None}):
                p = self.pointer(b, self.moves.offset(s))
                places.append(self.let(f"ptrtoint ptr {p} to i64"))
                if tile is not None:
                    places.append(str(self.size(self.distance(s, tile.var) * b.dtype.size)))

        bits = places[0]
        for place in places[1:]:
            bits = self.let(f"or i64 {bits}, {place}")
        aligned = self.let(f"icmp eq i64 {self.let(f'and i64 {bits}, 63')}, 0")
        self.past_caches = True
        much = self.let(f"icmp sgt i64 {self.size(total)}, {self.schedule.stream}")
        return self.let(f"and i1 {aligned}, {much}")


def _buffer_parameters(k: ir.Kernel) -> list[str]:
    return [f"ptr {'' if b.role == 'inout' else 'noalias '}%b_{b.name}" for b in k.buffers]


def _entry_function(k: ir.Kernel) -> str:
    """@NAME, which unpacks its buffers and sizes."""
    given = ", ".join(["i64 %lo", "i64 %hi", *_unpacked(k)])
    return "\n".join([
        f"define internal void @{k.name}(i64 %lo, i64 %hi, ptr %buffers, ptr %sizes) {{",
        *_load_buffers(k),
        *_load_sizes(k),
        f"  call void @{k.name}_body({given})",
        "  ret void",
        "}\n",
    ])


def _box_entry(k: ir.Kernel, batch: Sequence[str]) -> str:
    """@NAME_box, which unpacks its buffers and sizes."""
    own = [*(f"i64 %at_{var}" for var in batch), "i64 %i0", "i64 %i1", "i64 %j0", "i64 %j1"]
    return "\n".join([
        f"define internal void @{k.name}_box(ptr %buffers, ptr %sizes, {', '.join(own)}) {{",
        *_load_buffers(k),
        *_load_sizes(k),
        f"  call void @{k.name}_box_body({', '.join([*own, *_unpacked(k)])})",
        "  ret void",
        "}\n",
    ])


def _count_function(name: str, k: ir.Kernel, count: Size) -> str:
    """A function of the sizes alone."""
    lines = [f"define internal i64 @{name}(ptr %sizes) alwaysinline {{", *_load_sizes(k)]
    value = SizeArithmetic(lines.append, {n: f"%s_{n}" for n in k.sizes}).value(count)
    return "\n".join([*lines, f"  ret i64 {value}", "}\n"])


def _unpacked(k: ir.Kernel) -> list[str]:
    return [*(f"ptr %b_{b.name}" for b in k.buffers), *(f"i64 %s_{n}" for n in k.sizes)]


def _load_buffers(k: ir.Kernel) -> list[str]:
    return [
        line
        for at, b in enumerate(k.buffers)
        for line in (
            f"  %at_b_{b.name} = getelementptr ptr, ptr %buffers, i64 {at}",
            f"  %b_{b.name} = load ptr, ptr %at_b_{b.name}, align 8",
        )
    ]


def _load_sizes(k: ir.Kernel) -> list[str]:
    return [
        line
        for at, n in enumerate(k.sizes)
        for line in (
            f"  %at_s_{n} = getelementptr i64, ptr %sizes, i64 {at}",
            f"  %s_{n} = load i64, ptr %at_s_{n}, align 8",
        )
    ]
