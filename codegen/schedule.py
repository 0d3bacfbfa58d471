"""How a kernel runs on a processor with vectors: which loop carries the lanes, and what a unit of parallel work is.

A schedule says nothing about values.  It follows from the kernel's text and the vector width alone, so that results
depend on neither the number of threads nor the sizes of a call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tensorc.codegen import loopir as ir
from tensorc.codegen.moves import Move, Moves
from tensorc.codegen.weigh import call_cost
from tensorc.ir.dims import Size

BLOCK = 16384
"""Iterations of an elementwise kernel in one unit of work: 64 KiB of float32."""

LINE = 64
"""Bytes of a cache line: what one unit of a transposing kernel writes of a row."""

TILE_ROWS = 64
"""Rows that one unit of a transposing kernel writes, along the variable of its tile."""

STREAM = 16 << 20
"""Bytes of output above which an elementwise kernel writes past the caches."""

DEAR = 30
"""Cost of a body from which arithmetic rather than memory decides."""


@dataclass(frozen=True)
class Schedule:
    """
    Attributes:
        vector: the grid variable whose iterations are lanes, or None where the loops in `loops` are vectorised.
        loops: the vectorised For loops, each with the number of vectors it takes at a time.
        tile: a second grid variable taken `width` at a time, where a load is contiguous only along it: a transpose.
        width: lanes of a vector.
        unroll: vectors of `vector` taken at a time.
        block: iterations of `vector` in one unit of parallel work.
        stream: outputs of more bytes than this are written past the caches; 0 for never.
    """

    vector: str | None
    loops: tuple[tuple[str, int], ...]
    tile: str | None
    width: int
    unroll: int = 1
    block: int = 1
    stream: int = 0

    def __str__(self) -> str:
        over = f"grid {self.vector}" if self.vector else "loops " + ", ".join(f"{v}×{u}" for v, u in self.loops)
        if not self.vector and not self.loops:
            return "scalar"
        parts = [f"lanes {self.width} over {over}", f"unroll {self.unroll}", f"block {self.block}"]
        return ", ".join([*parts, f"tile {self.tile}"] if self.tile else parts)


def schedule(k: ir.Kernel, bits: int, registers: int = 16) -> Schedule:
    """The schedule of a kernel for vectors of `bits` bits in so many registers."""
    moves = Moves(k)
    score, inner = votes(k, moves)
    grid = [var for var, extent in k.grid if extent != 1 and moves.lanes_over_grid(var)]
    best = max(grid, key=lambda var: score[var], default=None)

    loops = [loop for loop, around in inner if moves.lanes_over_loop(loop, around)]
    if loops and (best is None or sum(score[loop.var] for loop in loops) > score[best]):
        chosen = [loop for loop in loops if score[loop.var] >= 0]
        if chosen:
            width = lanes(k, moves, bits, [loop.var for loop in chosen])
            return Schedule(None, tuple((loop.var, _loop_unroll(loop, moves, width)) for loop in chosen), None, width)
    if best is None:
        return Schedule(None, (), None, 1)

    width = lanes(k, moves, bits, [best])
    extent = dict(k.grid)[best]
    total = cost(k.body)
    if inner:
        accumulators = max((len(ir.fed(loop)) for loop, _ in inner), default=1)
        many = 4 if total > DEAR else registers // 2
        unroll = max(1, many // max(accumulators, len(inner))) if accumulators else 4
        unroll = _at_most(unroll, extent, width, rest=True)
        return Schedule(best, (), None, width, unroll, width * unroll)

    stream = 0 if total > DEAR else STREAM
    tile = _tile(k, moves, best, grid)
    if tile is not None:
        return Schedule(best, (), tile, width, width, max(width, LINE * width * 8 // bits), stream)
    unroll = 4 if total <= DEAR else 2 if total <= 4 * DEAR else 1
    return Schedule(best, (), None, width, _at_most(unroll, extent, width), BLOCK, stream)


def by_rows(k: ir.Kernel) -> bool:
    """Whether loops of a kernel carry the lanes, not its grid: each point of the grid is a unit of work then."""
    return schedule(k, LINE * 8).vector is None


def box_schedule(k: ir.Kernel, bits: int) -> Schedule:
    """The schedule of an elementwise kernel that runs on rectangles: lanes along its last grid variable."""
    last = k.grid[-1][0]
    return Schedule(last, (), None, lanes(k, Moves(k), bits, [last]), 2)


def lanes(k: ir.Kernel, moves: Moves, bits: int, carriers: Collection[str]) -> int:
    """Lanes of vectors over the `carriers`: those of the widest dtype that is loaded, or computed as a float.

    Integers computed on the way, positions mostly, take two registers where they are wider.
    """
    widest = 4
    for e in ir.expressions(k.body):
        if (isinstance(e, ir.Load) or e.dtype.is_float) and not moves.loops_of(e).isdisjoint(carriers):
            widest = max(widest, e.dtype.size)
    return bits // (8 * widest)


def cost(body: ir.Body) -> int:
    """Scalar operations of all statements, those of a loop counted once."""
    return sum(call_cost(e) for e in ir.expressions(body) if isinstance(e, ir.Call))


def votes(k: ir.Kernel, moves: Moves) -> tuple[Counter[str], list[tuple[ir.For, tuple[ir.For, ...]]]]:
    """How much each variable would gain as the one that carries lanes, and the innermost loops with those around them.

    Contiguous accesses count for a variable, others against it, deeper ones more.
    """
    worth: dict[Move, int] = {"unit": 2, "reversed": 2, "uniform": 0, "strided": -2, "irregular": -2}
    found: Counter[str] = Counter()
    for access, around in ir.accesses(k.body):
        for var in [*(var for var, _ in k.grid), *(loop.var for loop in around[-1:])]:
            move = moves.move(access, var)
            found[var] += worth[move] * 4 ** len(around) + (isinstance(access, ir.Store) and move == "unit")
    return found, list(innermost(k.body, ()))


def innermost(body: ir.Body, around: tuple[ir.For, ...]) -> list[tuple[ir.For, tuple[ir.For, ...]]]:
    found: list[tuple[ir.For, tuple[ir.For, ...]]] = []
    for s in body:
        if isinstance(s, ir.For):
            found += innermost(s.body, (*around, s)) or [(s, around)]
    return found


def _loop_unroll(loop: ir.For, moves: Moves, width: int) -> int:
    """Vectors at a time: many to hide the latency of a cheap reduction, few where a dear body fills the processor.

    A trip count that is data, that of a sparse row, is taken for a short one.
    """
    total = cost(loop.body)
    if any(isinstance(s, ir.Scan) for s in loop.body) or moves.is_data(loop.extent):
        return 1
    if any(isinstance(s, ir.Accum) and len(s.values) == 2 for s in loop.body):
        return _at_most(4, loop.extent, width)
    cheap = total <= 2 and ir.fed(loop)
    return _at_most(8 if cheap else 4 if total <= 2 * DEAR else 2, loop.extent, width)


def _at_most(unroll: int, extent: Size, width: int, rest: bool = False) -> int:
    """No more vectors at a time than an extent fills, or than it touches with its rest."""
    if not isinstance(extent, int):
        return unroll
    return max(1, min(unroll, (extent + (width - 1 if rest else 0)) // width))


def _tile(k: ir.Kernel, moves: Moves, vector: str, grid: Sequence[str]) -> str | None:
    """A grid variable along which a load is contiguous that is not so along the lanes."""
    crossed = [
        access
        for access, _ in ir.accesses(k.body)
        if isinstance(access, ir.Load) and access.where is None and moves.move(access, vector) == "strided"
    ]
    return next((v for v in grid if v != vector and any(moves.move(a, v) == "unit" for a in crossed)), None)
