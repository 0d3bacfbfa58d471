"""Accumulators in code: stack cells that LLVM turns into registers, combined in an order that sizes alone decide.

What an accumulator consists of depends on where it is opened:

    lane    in a region: each lane of each copy has its own
    fold    outside, and fed by vectorised loops: one vector for each copy, folded when the loop ends,
            and one scalar if it is fed outside those loops too
    one     a single scalar
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tensorc.codegen import loopir as ir
from tensorc.codegen.cpu.emit_memory import Memory
from tensorc.codegen.cpu.emit_text import Lines
from tensorc.codegen.cpu.emit_values import Value
from tensorc.codegen.cpu.lanes import llvm_type
from tensorc.codegen.cpu.marks import Marks
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.schedule import Schedule
from tensorc.ir.types import DType, i32, i64

Cell = list[str]
"""The address of the value, and for argmax and argmin that of the index."""

State = tuple[str, ...]
"""The value, and for argmax and argmin the index."""


@dataclass
class Accumulator:
    """An open accumulator.

    Attributes:
        cells: one for each copy of the region that feeds it, of `width` lanes.
        scalar: of a fold, the cell of what is fed outside its vectorised loops.
    """

    acc: ir.Acc
    kind: Literal["lane", "fold", "one"]
    cells: list[Cell]
    width: int
    scalar: Cell | None = None

    @property
    def dtypes(self) -> list[DType]:
        return [self.acc.dtype, i32] if self.acc.op in ir.ARG_ACCUMULATORS else [self.acc.dtype]


class Accumulators(Memory):
    """Opens, feeds, scans and closes accumulators; `allocas` is a place at the start of the function."""

    def __init__(self, k: ir.Kernel, target: Target, schedule: Schedule, marks: Marks) -> None:
        super().__init__(k, target)
        self.schedule = schedule
        self.marks = marks
        self.loops = dict(schedule.loops)
        self.allocas: Lines = []
        self.accumulators: dict[str, Accumulator] = {}

    def open(self, acc: ir.Acc) -> None:
        r = self.region
        feeders = [s for s in ir.statements(self.k.body) if isinstance(s, ir.For) and s.var in self.loops]
        feeders = [s for s in feeders if acc.var in ir.fed(s)]
        scanned = any(isinstance(s, ir.Scan) and s.acc == acc.var for s in ir.statements(self.k.body))

        if r is not None:
            self._new(acc, "lane", r.unroll, r.width)
        elif feeders and not scanned:
            a = self._new(acc, "fold", max(self.loops[s.var] for s in feeders), self.schedule.width)
            if _fed_outside(self.k.body, acc.var, self.loops):
                a.scalar = self._cell(a, 1)
        else:
            self._new(acc, "one", 1, 1)

    def _new(self, acc: ir.Acc, kind: Literal["lane", "fold", "one"], copies: int, width: int) -> Accumulator:
        a = Accumulator(acc, kind, [], width)
        a.cells = [self._cell(a, width) for _ in range(copies)]
        self.accumulators[acc.var] = a
        return a

    def _cell(self, a: Accumulator, n: int) -> Cell:
        cell: Cell = []
        for dtype, start in zip(a.dtypes, [ir.identity(a.acc.op, a.acc.dtype), ir.NO_INDEX], strict=False):
            with self.into(self.allocas):
                address = self.let(f"alloca {llvm_type(dtype, n)}")
            o = self.lanes(dtype, n)
            self.line(f"  store {o.T} {o.c(start)}, ptr {address}")
            cell.append(address)
        return cell

    def _get(self, a: Accumulator, cell: Cell, n: int) -> State:
        pairs = zip(a.dtypes, cell, strict=True)
        return tuple(self.let(f"load {llvm_type(dtype, n)}, ptr {address}") for dtype, address in pairs)

    def _put(self, a: Accumulator, cell: Cell, n: int, state: State) -> None:
        for dtype, address, x in zip(a.dtypes, cell, state, strict=True):
            self.line(f"  store {llvm_type(dtype, n)} {x}, ptr {address}")

    def _combine(self, a: Accumulator, n: int, old: State, new: State) -> State:
        return self.lanes(a.acc.dtype, n).combine(a.acc.op, old, new)

    def accum(self, name: str, several: tuple[ir.Expr, ...]) -> list[str]:
        """Feeds an accumulator; its new value in each copy."""
        a, r = self.accumulators[name], self.region
        fed = [self.expr(e) for e in several]

        if r is None:
            scalar = a.scalar if a.kind == "fold" else a.cells[0]
            assert scalar is not None
            state = self._combine(a, 1, self._get(a, scalar, 1), tuple(v.texts[0] for v in fed))
            self._put(a, scalar, 1, state)
            return [state[0]]

        out: list[str] = []
        for u, new in enumerate(zip(*map(self.vectors, fed), strict=True)):
            old = self._get(a, a.cells[u], r.width)
            state = self._combine(a, r.width, old, new)
            if r.masks is not None and a.kind == "fold":
                state = tuple(
                    self.lanes(dtype, r.width).select(r.masks[u], y, x)
                    for dtype, x, y in zip(a.dtypes, old, state, strict=True)
                )
            self._put(a, a.cells[u], r.width, state)
            out.append(state[0])
        return out

    def close(self, name: str) -> None:
        """Makes the result readable: copies combined in a tree, then lanes in halves, then what was fed as scalars."""
        a = self.accumulators[name]
        states = [self._get(a, cell, a.width) for cell in a.cells]

        if a.kind == "lane":
            results = [Value(dtype, [s[q] for s in states], vector=True) for q, dtype in enumerate(a.dtypes)]
        else:
            while len(states) > 1:
                states = [
                    self._combine(a, a.width, *states[q:q + 2]) if q + 1 < len(states) else states[q]
                    for q in range(0, len(states), 2)
                ]
            state = self._folded(a, states[0])
            if a.scalar is not None:
                state = self._combine(a, 1, state, self._get(a, a.scalar, 1))
            results = [self.uniform(dtype, x) for dtype, x in zip(a.dtypes, state, strict=True)]

        self.env[name] = results[0]
        if len(results) == 2:
            self.env[f"{name}.index"] = self.each(
                (results[1],), i64, lambda n, x: self.lanes(i32, n).cast(x, i64)
            )

    def _folded(self, a: Accumulator, state: State) -> State:
        """The lanes of a vector combined: upper half onto lower half until one is left."""
        n = a.width
        while n > 1:
            n //= 2
            halves: list[State] = []
            for first in (0, n):
                parts = []
                for dtype, x in zip(a.dtypes, state, strict=True):
                    vector = llvm_type(dtype, 2 * n)
                    if n > 1:
                        parts.append(self.shuffle(vector, x, "poison", list(range(first, first + n))))
                    else:
                        parts.append(self.let(f"extractelement {vector} {x}, i32 {first}"))
                halves.append(tuple(parts))
            state = self._combine(a, n, *halves)
        return state

    def scan(self, s: ir.Scan) -> Value:
        """Feeds a running accumulator; its values after each iteration."""
        a, r = self.accumulators[s.acc], self.region
        dtype = s.value.dtype
        if r is None or a.kind == "lane":
            running = self.accum(s.acc, (s.value,))
            return self.uniform(dtype, running[0]) if r is None else Value(dtype, running, vector=True)

        w, o = r.width, self.lanes(dtype, r.width)
        nothing = o.c(ir.identity(a.acc.op, dtype))
        x = self.vectors(self.expr(s.value))[0]
        if r.masks is not None:
            x = o.select(r.masks[0], x, nothing)

        # Each round adds what stands 1, 2, 4 … lanes before; then all lanes add what came before the vector.
        back = 1
        while back < w:
            shifted = self.shuffle(o.T, x, nothing, [q - back if q >= back else w for q in range(w)])
            (x,) = self._combine(a, w, (shifted,), (x,))
            back *= 2
        (carried,) = self._get(a, a.cells[0], 1)
        (x,) = self._combine(a, w, (self.splat(llvm_type(dtype), carried, w),), (x,))

        last = self.let(f"extractelement {o.T} {x}, i32 {w - 1}")
        self._put(a, a.cells[0], 1, (last,))
        return Value(dtype, [x], vector=True)


def _fed_outside(body: ir.Body, acc: str, loops: dict[str, int]) -> bool:
    """Whether an accumulator is fed anywhere but in vectorised loops."""
    return any(
        _fed_outside(s.body, acc, loops) if isinstance(s, ir.For) else acc in ir.fed(s)
        for s in body
        if not (isinstance(s, ir.For) and s.var in loops)
    )
