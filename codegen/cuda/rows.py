"""Kernels in which threads share a row: a reduction over it, a softmax, a layer normalisation.

A row of known length stays in registers between the loops that go through it; threads combine what they have by
shuffles within a warp, then through shared memory, in an order that the number of threads decides.
"""

from __future__ import annotations

from tensorc.codegen import loopir as ir
from tensorc.codegen.cuda.lanes import Held, Lanes, LaneWriter, better, combined
from tensorc.codegen.cuda.points import split_point
from tensorc.codegen.cuda.schedule import HELD, WARP, Rows
from tensorc.codegen.cuda.source import Source
from tensorc.codegen.cuda.text import from_memory, memory_kind, spelled, to_memory
from tensorc.codegen.keep import DEAR, made_of, numbers_of
from tensorc.codegen.weigh import call_cost
from tensorc.ir import dims
from tensorc.ir.types import DType, f32, f64, i32, i64

REGISTERS = 64
"""Registers of a thread for what loops keep of a row."""


def emit_rows(k: ir.Kernel, how: Rows) -> Source:
    """The text of a kernel: a block, or a warp of it, for each point of the grid."""
    writer = _RowWriter(k, how)
    points = dims.product(extent for _, extent in k.grid)
    block = how.threads * how.several
    row = writer.fresh("row")
    if how.several == 1:
        writer.line(f"{writer.thread} = I(cuda.threadIdx.x)")
        writer.line(f"{row} = I(cuda.blockIdx.x)")
        split_point(writer, row, k.grid)
        writer.body(k.body, None)
    else:
        writer.line(f"{writer.thread} = rem(I(cuda.threadIdx.x), I({how.threads}))")
        first = f"mul(I(cuda.blockIdx.x), I({how.several}))"
        writer.line(f"{row} = add({first}, quo(I(cuda.threadIdx.x), I({how.threads})))")
        with writer.block(f"if {row} < {writer.size(points)}:"):
            split_point(writer, row, k.grid)
            writer.body(k.body, None)
    return writer.source(k.name, dims.ceildiv(points, how.several), block, str(how))


class _RowWriter(LaneWriter):
    """A writer of statements that the threads of a row do together."""

    def __init__(self, k: ir.Kernel, how: Rows) -> None:
        super().__init__(k)
        self.how = how
        self.thread = self.fresh("t")
        self.widths = dict(how.loops)
        self.depth = 0
        self.inside = False
        spread = [s for s in ir.statements(k.body) if isinstance(s, ir.For) and s.var in self.widths]
        self.fed_by_lanes = frozenset().union(*map(ir.fed, spread))
        self.kept = _plan(k, how)
        self.rooms: dict[str, str] = {}

    def body(self, body: ir.Body, lanes: Lanes | None) -> None:
        if self.inside:
            return super().body(body, lanes)
        opened = {s.var for s in body if isinstance(s, ir.Acc)} & self.fed_by_lanes
        last = {acc: s for s in body if isinstance(s, ir.For) for acc in ir.fed(s) & opened}
        for s in body:
            self.statement(s, None)
            for acc in sorted(acc for acc, loop in last.items() if loop is s):
                self.join(self.accs[acc])
        return None

    def statement(self, s: ir.Stmt, lanes: Lanes | None) -> None:
        if isinstance(s, ir.Store) and not self.inside:
            value = self.bind(self.expr(s.value))
            with self.block(f"if {self.thread} == I(0):"):
                self.stored(s, value)
            return
        super().statement(s, lanes)

    def loop(self, s: ir.For, lanes: Lanes | None) -> None:
        if s.var not in self.widths:
            self.depth += 1
            super().loop(s, lanes)
            self.depth -= 1
            return
        self.inside = True
        if self.is_held(s):
            self.held_loop(s)
        else:
            self.spread_loop(s, self.widths[s.var])
        self.inside = False

    def spread_loop(self, s: ir.For, width: int) -> None:
        """A loop of any extent: in vectors as far as these are full, then what is left of the last one."""
        extent, whole = self.size(s.extent), ""
        if dims.mod(s.extent, width) != 0:
            extent, before = self.bind(extent), dict(self.arrays)
            whole = self.bind(f"bit_and({extent}, I({-width}))")
        start = self.thread if width == 1 else f"mul({self.thread}, I({width}))"
        with self.counted(s.var, whole or extent, start, f"I({self.how.threads * width})"):
            self.spread_body(s, width)
        if whole:
            self.arrays = before
            with self.counted(s.var, extent, f"add({whole}, {self.thread})", f"I({self.how.threads})"):
                self.spread_body(s, 1)

    def is_held(self, s: ir.For) -> bool:
        """Whether a loop is written so that its values may stay in registers: it is short, and unrolled."""
        saves, reuses = self.kept.get(s.var, ({}, {}))
        return bool(saves or reuses)

    def held_loop(self, s: ir.For) -> None:
        """A loop of known extent, each of whose iterations has registers of its own."""
        assert isinstance(s.extent, int)
        width, threads = self.widths[s.var], self.how.threads
        turns = -(-s.extent // (threads * width))
        saves, reuses = self.kept[s.var]
        for number, dtype in saves.values():
            if number not in self.rooms:
                self.rooms[number] = self.array("row_l", turns * width, dtype)
        self.held = Held({var: self.rooms[number] for var, (number, _) in saves.items()},
                         {var: self.rooms[number] for var, number in reuses.items()},
                         f"g * {width} + l" if width > 1 else "g")
        name = self.places[s.var] = spelled(s.var)
        with self.block(f"for g in range({turns}):"):
            first = self.thread if width == 1 else f"mul({self.thread}, I({width}))"
            self.line(f"{name} = add({first}, I(g * {threads * width}))")
            if turns * threads * width == s.extent:
                self.spread_body(s, width)
            else:
                with self.block(f"if {name} < {self.size(s.extent)}:"):
                    self.spread_body(s, width)
        self.held = Held()

    def spread_body(self, s: ir.For, width: int) -> None:
        """What one thread does at a time of a loop."""
        if width > 1:
            name = self.places.pop(s.var)
            self.body(s.body, Lanes(s.var, width, (name,)))
            return None
        if not self.held.save and not self.held.reuse:
            return self.body(s.body, None)
        for inner in s.body:
            if isinstance(inner, ir.Let) and inner.var in self.held.reuse:
                self.line(f"{spelled(inner.var)} = {self.held.reuse[inner.var]}[{self.held.slot}]")
                continue
            self.statement(inner, None)
            if isinstance(inner, ir.Let) and inner.var in self.held.save:
                self.line(f"{self.held.save[inner.var]}[{self.held.slot}] = {spelled(inner.var)}")
        return None

    # -- what threads have, put together

    def join(self, s: ir.Acc) -> None:
        """Combines an accumulator over the threads of a row; all of them know the result."""
        state = [(self.value(s.var), s.dtype)]
        if s.op in ir.ARG_ACCUMULATORS:
            state.append((self.value(f"{s.var}.index"), i32))
        turn = self.fresh("turn")
        with self.block(f"for {turn} in range({WARP.bit_length() - 1}):"):
            others = [self.bind(_shuffled(name, dtype, f"{WARP // 2} >> {turn}")) for name, dtype in state]
            self.merge(s, [name for name, _ in state], others)
        warps = self.how.threads // WARP
        if warps == 1:
            return
        shared = []
        for name, dtype in state:
            shared.append(self.fresh(f"{name}_warps"))
            self.line(f"{shared[-1]} = cuda.shared.array({warps}, {memory_kind(dtype)})")
        if self.depth:
            self.line("cuda.syncthreads()")
        with self.block(f"if rem({self.thread}, I({WARP})) == I(0):"):
            for room, (name, dtype) in zip(shared, state, strict=True):
                self.line(f"{room}[quo({self.thread}, I({WARP}))] = {to_memory(name, dtype)}")
        self.line("cuda.syncthreads()")
        for room, (name, dtype) in zip(shared, state, strict=True):
            self.line(f"{name} = {from_memory(f'{room}[0]', dtype)}")
        warp = self.fresh("warp")
        with self.block(f"for {warp} in range(1, {warps}):"):
            others = [self.bind(from_memory(f"{room}[{warp}]", dtype))
                      for room, (_, dtype) in zip(shared, state, strict=True)]
            self.merge(s, [name for name, _ in state], others)

    def merge(self, s: ir.Acc, mine: list[str], others: list[str]) -> None:
        """mine = op(mine, others)."""
        if s.op in ir.ARG_ACCUMULATORS:
            wins = better(s, others[0], others[1], mine[0], mine[1], self)
            for name, other in zip(mine, others, strict=True):
                self.line(f"{name} = select({wins}, {other}, {name})")
        else:
            self.line(f"{mine[0]} = {combined(s.op, s.dtype, mine[0], others[0])}")


def _shuffled(name: str, dtype: DType, distance: str) -> str:
    """The value that a thread of the same warp has, `distance` away."""
    if dtype in (f32, f64, i32, i64):
        return f"cuda.shfl_xor_sync(0xffffffff, {name}, {distance})"
    return f"cast_{dtype.short}(cuda.shfl_xor_sync(0xffffffff, cast_i32({name}), {distance}))"


# -- values that stay in registers

Kept = dict[str, tuple[dict[str, tuple[str, DType]], dict[str, str]]]
"""For each loop: its variables that are saved, with a name for the value and its dtype; those that are read instead."""


def _plan(k: ir.Kernel, how: Rows) -> Kept:
    """What loops of one extent over the row share, as far as registers go: loads, and what is dear to compute."""
    spread = [s for s in k.body if isinstance(s, ir.For) and s.var in dict(how.loops)]
    stored = {a.buffer for a, _ in ir.accesses(k.body) if isinstance(a, ir.Store)}
    widths = dict(how.loops)
    plan: Kept = {s.var: ({}, {}) for s in spread}
    left = REGISTERS
    table: dict[object, int] = {}
    known: dict[int, tuple[ir.For, str, DType, bool]] = {}
    taken: set[int] = set()

    for s in spread:
        if not isinstance(s.extent, int) or any(isinstance(x, ir.For) for x in s.body):
            continue
        turns = -(-s.extent // (how.threads * widths[s.var]))
        if turns > HELD:
            continue
        found = numbers_of(s, "row", table)
        for let in s.body:
            if not isinstance(let, ir.Let):
                continue
            number = found[let.var]
            whole = made_of(s, let.var)
            loads = {e.buffer for x in whole for e in ir.walk(x.value) if isinstance(e, ir.Load)}
            cost = sum(call_cost(e) for x in whole for e in ir.walk(x.value) if isinstance(e, ir.Call))
            is_load = isinstance(let.value, ir.Load) and let.value.where is None
            if not loads.isdisjoint(stored) or not (is_load or cost >= DEAR):
                continue
            first = known.get(number)
            if first is None or first[0].extent != s.extent or widths[first[0].var] != widths[s.var]:
                known[number] = s, let.var, let.value.dtype, is_load
                continue
            need = turns * widths[s.var] * max(1, let.value.dtype.size // 4)
            if number not in taken:
                if need > left:
                    continue
                left -= need
                taken.add(number)
                plan[first[0].var][0][first[1]] = str(number), first[2]
            plan[s.var][1][let.var] = str(number)
    return plan
