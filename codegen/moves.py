"""How the values and the accesses of one kernel change with its loops: what schedules and emitters decide by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from tensorc.codegen import loopir as ir
from tensorc.codegen.access import determined, offset, same_place, step
from tensorc.ir import dims
from tensorc.ir.dims import Size

Move = Literal["uniform", "unit", "reversed", "strided", "irregular"]


def move_of(distance: Size | None) -> Move:
    """A name for the elements between neighbouring iterations."""
    if distance is None:
        return "irregular"
    named: dict[Size, Move] = {0: "uniform", 1: "unit", -1: "reversed"}
    return named.get(distance, "strided")


class Moves:
    """Facts about a kernel.

    Attributes:
        varies: for each variable the grid and loop variables that its value changes with.
    """

    def __init__(self, k: ir.Kernel) -> None:
        self.k = k
        self.shapes = {b.name: b.shape for b in k.buffers}
        self.varies: dict[str, frozenset[str]] = {}
        self._offsets: dict[tuple[str, ir.Index], Size] = {}
        self._visit(k.body)

    def offset(self, access: ir.Load | ir.Store) -> Size:
        """The element that an access touches, counted from the start of its buffer."""
        key = (access.buffer, access.index)
        if key not in self._offsets:
            self._offsets[key] = offset(self.shapes[access.buffer], access.index)
        return self._offsets[key]

    def move(self, access: ir.Load | ir.Store, var: str) -> Move:
        """How an access moves with a grid or loop variable."""
        varying = [name for name, loops in self.varies.items() if var in loops]
        return move_of(step(self.offset(access), var, varying))

    def loops_of(self, e: ir.Expr) -> frozenset[str]:
        """The grid and loop variables that the value of an expression changes with."""
        found: set[str] = set()
        for inner in ir.walk(e):
            match inner:
                case ir.Var(name, _):
                    found |= self.varies[name.partition(".")[0]]
                case ir.Iter(size, _):
                    found |= self.loops_of_size(size)
                case ir.Load(_, index, _, _):
                    found.update(*map(self.loops_of_size, index))
        return frozenset(found)

    def loops_of_size(self, size: Size) -> frozenset[str]:
        """The grid and loop variables that a size changes with."""
        found: set[str] = set()
        for name in dims.symbols(size).difference(self.k.sizes):
            found |= self.varies.get(name, {name})
        return frozenset(found)

    def is_data(self, size: Size) -> bool:
        """Whether a size depends on what a Let has read."""
        return not self.varies.keys().isdisjoint(dims.symbols(size))

    def lanes_over_grid(self, var: str) -> bool:
        """Whether iterations of a grid variable can be lanes: they must agree about every trip count."""
        return not any(
            isinstance(s, ir.For) and var in self.loops_of_size(s.extent) for s in ir.statements(self.k.body)
        )

    def lanes_over_loop(self, loop: ir.For, around: Sequence[ir.For]) -> bool:
        """Whether iterations of an innermost loop can be lanes.

        No two of them may meet in memory, and a running accumulator must have this loop as its only kind of food.
        """
        scanned = {s.acc for s in ir.statements(self.k.body) if isinstance(s, ir.Scan)}
        if any(isinstance(s, ir.Accum) and s.acc in scanned or isinstance(s, ir.For) for s in loop.body):
            return False

        inside = (*around, loop)
        loops = [*self.k.grid, *((x.var, x.extent) for x in inside)]
        touched = [access for access, _ in ir.accesses(loop.body)]
        return all(
            loop.var in determined(self.shapes[s.buffer], s.index, loops, self.k.sizes)
            and all(same_place(s, inside, t, inside, self.shapes[s.buffer]) or self._lie_apart(s, t, loop.var)
                    for t in touched if t.buffer == s.buffer)
            for s in touched
            if isinstance(s, ir.Store)
        )

    def _lie_apart(self, a: ir.Load | ir.Store, b: ir.Load | ir.Store, var: str) -> bool:
        """Whether two accesses of a loop never meet, since along some dimension they are a fixed number apart."""
        return any(
            isinstance(gap := x - y, int) and gap != 0 and var not in self.loops_of_size(x) | self.loops_of_size(y)
            for x, y in zip(a.index, b.index, strict=True)
        )

    def _visit(self, body: ir.Body) -> None:
        for s in body:
            match s:
                case ir.Let(var, value):
                    self.varies[var] = self.loops_of(value)
                case ir.Acc(var, _, _):
                    self.varies[var] = frozenset()
                case ir.Accum(acc, several):
                    self.varies[acc] |= self._of_all(several)
                case ir.Scan(var, acc, value):
                    self.varies[acc] |= self._of_all((value,))
                    self.varies[var] = self.varies[acc]
                case ir.For(var, extent, inner):
                    self._visit(inner)
                    for acc in ir.fed(s):
                        self.varies[acc] = (self.varies[acc] - {var}) | self.loops_of_size(extent)

    def _of_all(self, several: Iterable[ir.Expr]) -> frozenset[str]:
        return frozenset().union(*map(self.loops_of, several))
