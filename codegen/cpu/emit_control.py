"""Loops in code: vectorised ones as a body of whole vectors and a tail under masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tensorc.codegen import loopir as ir
from tensorc.codegen.access import never_negative
from tensorc.codegen.cpu.emit_accumulators import Accumulators
from tensorc.codegen.cpu.emit_sizes import Entry
from tensorc.codegen.cpu.emit_text import Known
from tensorc.codegen.cpu.emit_values import Region, Value
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import i64

FEW = 4
"""A tail of more than 1/FEW of the unrolled vectors runs as all of them under masks, a shorter one vector by vector.

All of a known extent of less than FEW vectors runs under masks: code for whole vectors too would take longer to compile
than it saves.
"""


@dataclass(frozen=True)
class Span:
    """A part of a grid variable, from `low`, a multiple of the vector width, to `high`; `total` is its extent."""

    var: str
    low: Known
    high: Known
    total: Size


class Control(Accumulators):
    """Statements, and the loops they stand in."""

    def block(self, body: ir.Body) -> None:
        """The statements of one scope; what they bind is forgotten after it."""
        self.block_then(body, lambda: None)

    def block_then(self, body: ir.Body, rest: Callable[[], None]) -> None:
        """The statements of one scope, and after them what `rest` writes into it."""
        env, depth = dict(self.env), len(self.scopes)
        opened: dict[str, str] = {}
        around = self.mark
        for s in body:
            self.mark = self.marks.statements.get(id(s), around)
            match s:
                case ir.Let(var, value):
                    self.bind(var, self.expr(value))
                case ir.Acc(var, _, _):
                    self.open(s)
                    opened[var] = self.mark
                case ir.Accum(acc, several):
                    self.accum(acc, several)
                case ir.Scan(var, _, _):
                    self.bind(var, self.scan(s))
                case ir.Store():
                    self.store(s)
                case ir.For():
                    self.repeat(s)
                    for acc in sorted(ir.fed(s) & opened.keys()):
                        self.mark = opened[acc]
                        self.close(acc)
        self.mark = around
        rest()
        self.env = env
        del self.scopes[depth:]

    def bind(self, name: str, v: Value) -> None:
        """A variable; a uniform integer becomes a symbol of sizes too."""
        self.env[name] = v
        if v.dtype.is_integer and not v.vector:
            wide = self.lanes(v.dtype, 1).cast(v.texts[0], i64)
            self.push({name: wide})

    def repeat(self, s: ir.For) -> None:
        """A loop, in lanes where the schedule says so."""
        extent = self.size(s.extent)
        if not never_negative(s.extent, self.signed):
            extent = self.higher(extent, 0)
        if s.var in self.loops:
            self.lane_loop(s.var, 0, extent, self.loops[s.var], lambda: self.block(s.body), total=s.extent)
            return

        entry = Entry(self.slot(), frozenset(self.env))

        def body(i: str) -> None:
            with self.scope({s.var: i}, entry):
                self.block(s.body)

        self.loop(0, extent, 1, body)

    def lane_loop(
        self,
        var: str,
        low: Known,
        high: Known,
        unroll: int,
        body: Callable[[], None],
        *,
        total: Size | None = None,
        together: bool = False,
        stream: str | None = None,
    ) -> None:
        """body for var from low to high, lanes and unrolled vectors at a time.

        Args:
            total: the extent of var, where low is a multiple of the unrolled vectors: known, it tells of the tail.
            together: the body has loops of its own: a tail keeps the unrolled vectors, to run through them once.
            stream: an i1 that says to write past the caches, or None for no such code.
        """
        width = self.schedule.width
        at_once = width * unroll
        entry = Entry(self.slot(), frozenset(self.env))

        def run(copies: int, masked: bool, past: bool = False) -> Callable[[Known], None]:
            def iterate(i: Known) -> None:
                with self.scope({var: i}, entry):
                    rest = self.sub(high, i)
                    left = [self.sub(rest, u * width) for u in range(copies if masked else 0)]
                    masks = [self.count_mask(n, width) for n in left] or None
                    self.region = Region(var, width, copies, masks, left, stream=past)
                    body()
                    self.region = None

            return iterate

        left = total % at_once if isinstance(total, int) else None
        whole = high
        if isinstance(total, int) and total < FEW * width and total % width:
            whole = low
        elif left != 0:
            whole = self.add(low, self.mul(self.divide(self.sub(high, low), at_once), at_once))
        start = low
        if stream is not None:
            start = self.choose(stream, whole, low)
            self.loop(low, start, at_once, run(unroll, masked=False, past=True))
        self.loop(start, whole, at_once, run(unroll, masked=False))

        if whole == high:
            return
        if not together or unroll == 1:
            self.loop(whole, high, width, run(1, masked=left is None or left % width > 0))
        elif left is not None:
            copies = unroll if left > at_once // FEW else 1
            self.loop(whole, high, width * copies, run(copies, masked=left % (width * copies) > 0))
        else:
            many = self.let(f"icmp sgt i64 {self.sub(high, whole)}, {at_once // FEW}")
            middle = self.choose(many, high, whole)
            self.loop(whole, middle, at_once, run(unroll, masked=True))
            self.loop(middle, high, width, run(1, masked=True))

    def tile_loops(self, lanes: Span, tile: Span, body: Callable[[], None], stream: str | None) -> None:
        """body for the variables of a transpose in squares of `width`: lanes along the one, copies along the other.

        The lanes run fastest: a few neighbouring squares fill whole lines of the cache.
        """
        width = self.schedule.width
        outer = Entry(self.slot(), frozenset(self.env))

        def squares(end: Known, start: Callable[[str], Known], high: Known, masked: bool, past: bool = False) -> None:
            def row(j: str) -> None:
                with self.scope({tile.var: j}, outer):
                    inner = Entry(self.slot(), frozenset(self.env))

                    def square(i: str) -> None:
                        with self.scope({lanes.var: i}, inner):
                            room = self.sub(tile.high, j)
                            masks = self._masks(self.sub(lanes.high, i), room) if masked else None
                            self.region = Region(lanes.var, width, width, masks, [], tile.var, room, past)
                            body()
                            self.region = None

                    self.loop(start(j), high, width, square)

            self.loop(tile.low, end, width, row)

        whole, end = self._whole(lanes), self._whole(tile)
        if stream is not None:
            squares(self.choose(stream, end, tile.low), lambda _: lanes.low, whole, masked=False, past=True)
            squares(self.choose(stream, tile.low, end), lambda _: lanes.low, whole, masked=False)
        else:
            squares(end, lambda _: lanes.low, whole, masked=False)
        if whole == lanes.high and end == tile.high:
            return

        def rest(j: str) -> Known:
            return self.choose(self.let(f"icmp slt i64 {j}, {end}"), whole, lanes.low)

        squares(tile.high, rest, lanes.high, masked=True)

    def _whole(self, span: Span) -> Known:
        """Where the last whole vectors of a span end."""
        width = self.schedule.width
        if isinstance(span.total, int) and span.total % width == 0:
            return span.high
        return self.add(span.low, self.mul(self.divide(self.sub(span.high, span.low), width), width))

    def _masks(self, left: Known, room: Known) -> list[str]:
        """Of each copy of a square the lanes before the end, none of copies past the end of the tile."""
        width = self.schedule.width
        along = self.count_mask(left, width)
        rows = [self.let(f"icmp sgt i64 {room}, {u}") for u in range(width)]
        return [self.let(f"and <{width} x i1> {along}, {self.splat('i1', row, width)}") for row in rows]

    def steady(self, body: ir.Body, moving: set[str]) -> tuple[ir.Body, ir.Body]:
        """The Lets of a body that are the same for all values of the `moving` variables, and the other statements."""
        first: dict[str, ir.Let] = {}
        rest: list[ir.Stmt] = []
        for s in body:
            same = isinstance(s, ir.Let) and moving.isdisjoint(self.moves.loops_of(s.value))
            if isinstance(s, ir.Let) and same and self._needs(s) <= first.keys():
                first[s.var] = s
            else:
                rest.append(s)
        return tuple(first.values()), tuple(rest)

    def _needs(self, s: ir.Let) -> set[str]:
        """The variables a Let reads, and the buffers that the kernel writes."""
        names: set[str] = set()
        for e in ir.walk(s.value):
            match e:
                case ir.Var(name, _):
                    names.add(name)
                case ir.Iter(size, _):
                    names |= dims.symbols(size) & self.moves.varies.keys()
                case ir.Load(buffer, index, _, _):
                    names.update(*(dims.symbols(size) & self.moves.varies.keys() for size in index))
                    if self.buffers[buffer].writable:
                        names.add(buffer)
        return names
