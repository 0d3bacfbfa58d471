"""How a kernel spreads over a GPU: what a thread does, which threads share a row, what goes through shared memory.

A schedule says nothing about values but the order of a reduction, and follows from the kernel's text alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorc.codegen import loopir as ir
from tensorc.codegen.access import same_place
from tensorc.codegen.cuda.lanes import is_multiple
from tensorc.codegen.moves import Move, Moves
from tensorc.codegen.schedule import votes
from tensorc.ir import dims
from tensorc.ir.dims import Size

THREADS = 256
"""Threads of a block, where nothing speaks for another number."""

MOST_THREADS = 1024

WARP = 32

VECTOR = 16
"""Bytes of the widest load."""

VECTORS = 2
"""Vectors of a thread in an elementwise kernel over one flat index: loads of both are under way at a time."""

HELD = 8
"""Vectors of a row that a thread may keep in registers."""

SHORT = 16
"""Elements of a row up to which one thread goes through it."""


@dataclass(frozen=True)
class Points:
    """A thread does `vectors` vectors of `width` neighbouring points of the grid, whose last variable is `vector`.

    Attributes:
        grid: the grid variables, the fastest last.
    """

    grid: tuple[tuple[str, Size], ...]
    width: int
    vectors: int

    def __str__(self) -> str:
        over = ", ".join(var for var, _ in self.grid) or "one point"
        each = f", {self.width} wide, {self.vectors} a thread" if self.width > 1 else ""
        return f"points of {over}{each}"


@dataclass(frozen=True)
class Rows:
    """`threads` threads share a point of the grid; iterations of each loop in `loops` are spread over them.

    Attributes:
        loops: each such loop with the width of its vectors.
        several: rows of one block.
    """

    threads: int
    several: int
    loops: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        who = "a warp" if self.threads == WARP else f"{self.threads} threads"
        loops = ", ".join(f"{var}×{width}" for var, width in self.loops)
        return f"{who} for each point, over {loops}"


@dataclass(frozen=True)
class Tile:
    """Tiles of `across` and `along`: loads that are contiguous along `across` go through shared memory."""

    across: str
    along: str

    def __str__(self) -> str:
        return f"tiles of {self.across} and {self.along} through shared memory"


Schedule = Points | Rows | Tile


def schedule(k: ir.Kernel, aligned: bool = True) -> Schedule:
    """The schedule of a kernel; without vectors where its buffers may begin anywhere."""
    moves = Moves(k)
    score, inner = votes(k, moves)
    grid = [var for var, extent in k.grid if extent != 1]
    best = max(grid, key=lambda var: score[var], default=None)

    rows = _rows(k, moves, inner, aligned)
    if rows is not None and (best is None or sum(score[var] for var, _ in rows.loops) > score[best]):
        return rows
    if best is None:
        return Points(k.grid, 1, 1)

    tile = None if any(isinstance(s, ir.For) for s in k.body) else _tile(k, moves, best, grid)
    if tile is not None:
        return tile
    ordered = (*(loop for loop in k.grid if loop[0] != best), *(loop for loop in k.grid if loop[0] == best))
    width = _width(k, moves, best, dict(k.grid)[best], flat=len(k.grid) == 1) if aligned else 1
    flat = width > 1 and len(k.grid) == 1 and not inner
    return Points(ordered, width, VECTORS if flat else 1)


def _width(k: ir.Kernel, moves: Moves, var: str, extent: Size, flat: bool) -> int:
    """Neighbours along a grid variable that a thread does: as many as a load takes, if most accesses are vectors."""
    if not moves.lanes_over_grid(var):
        return 1
    touched = [(access, 4 ** len(around)) for access, around in ir.accesses(k.body)]
    width = _bytes_to_width(k, [a.buffer for a, _ in touched])
    while width > 1:
        whole = sum(weight for a, weight in touched if _is_whole(moves, a, var, width))
        other = sum(weight for a, weight in touched
                    if not _is_whole(moves, a, var, width) and _moves_with(moves, a, var))
        if (flat or isinstance(extent, int) and extent % width == 0) and whole >= 2 * other and whole:
            return width
        width //= 2
    return 1


def _bytes_to_width(k: ir.Kernel, buffers: list[str]) -> int:
    return min(8, VECTOR // max((k.buffer(name).dtype.size for name in buffers), default=VECTOR))


def _is_whole(moves: Moves, access: ir.Load | ir.Store, var: str, width: int) -> bool:
    """Whether `width` neighbours of an access are an aligned vector."""
    return moves.move(access, var) == "unit" and is_multiple(moves.offset(access), var, width) and (
        isinstance(access, ir.Store) or access.where is None)


def _moves_with(moves: Moves, access: ir.Load | ir.Store, var: str) -> bool:
    return moves.move(access, var) != "uniform"


# -- rows


def _rows(k: ir.Kernel, moves: Moves, inner: list[tuple[ir.For, tuple[ir.For, ...]]], aligned: bool) -> Rows | None:
    """Threads over the innermost loops, where these may be cut so and are long enough."""
    steady = {*k.sizes, *(var for var, _ in k.grid)}
    loops = [(loop, around) for loop, around in inner
             if moves.lanes_over_loop(loop, around) and dims.symbols(loop.extent) <= steady
             and not any(isinstance(s, ir.Scan) for s in loop.body)]
    if all(isinstance(s.extent, int) and s.extent <= SHORT for s, _ in loops):
        return None
    spread = {loop.var for loop, _ in loops}
    if not _is_spreadable(k, spread):
        return None

    cuts = tuple((loop.var, _loop_width(k, moves, loop) if aligned else 1) for loop, _ in loops)
    widths = dict(cuts)
    known = [-(-loop.extent // widths[loop.var]) for loop, _ in loops if isinstance(loop.extent, int)]
    threads = WARP
    while threads < THREADS and (len(known) < len(loops) or max(known) > 4 * threads):
        threads *= 2
    while threads < MOST_THREADS and len(known) == len(loops) and max(known) > HELD * threads:
        threads *= 2
    return Rows(threads, 4 if threads == WARP and k.grid else 1, cuts)


def _loop_width(k: ir.Kernel, moves: Moves, loop: ir.For) -> int:
    """The width of vectors over a loop; one whose extent is not known may leave some elements behind the last."""
    touched = [access for access, around in ir.accesses(loop.body) if not around]
    width = _bytes_to_width(k, [a.buffer for a in touched])
    while width > 1:
        fits = not isinstance(loop.extent, int) or loop.extent % width == 0
        if fits and any(_is_whole(moves, a, loop.var, width) for a in touched) and all(
            _is_whole(moves, a, loop.var, width) or moves.move(a, loop.var) == "uniform" for a in touched
        ):
            return width
        width //= 2
    return 1


def _is_spreadable(k: ir.Kernel, spread: set[str]) -> bool:
    """Whether threads that share a point need nothing of each other but accumulators.

    An accumulator is fed inside spread loops alone, or outside of them alone, and not read before the last of them;
    what a thread stores, no other reads.
    """
    inside, outside = set[str](), set[str]()
    stores: list[tuple[ir.Store, tuple[ir.For, ...]]] = []

    def visit(body: ir.Body, shared: bool) -> None:
        for s in body:
            if isinstance(s, ir.For):
                visit(s.body, shared or s.var in spread)
            elif isinstance(s, ir.Accum | ir.Scan):
                (inside if shared else outside).add(s.acc)

    visit(k.body, False)
    if inside & outside or _is_read_early(k.body):
        return False
    accesses = list(ir.accesses(k.body))
    stores = [(a, around) for a, around in accesses if isinstance(a, ir.Store)]
    shapes = {b.name: b.shape for b in k.buffers}
    for store, around in stores:
        for other, at in accesses:
            if other is store or other.buffer != store.buffer:
                continue
            alike = around and at and around[-1].extent == at[-1].extent and {around[-1].var, at[-1].var} <= spread
            if not alike or not same_place(store, around, other, at, shapes[store.buffer]):
                return False
    return True


def _is_read_early(body: ir.Body) -> bool:
    """Whether an accumulator is read between two loops that feed it."""
    fed_later: set[str] = set()
    for s in reversed(body):
        names = {e.name.partition(".")[0] for x in ir.statements((s,)) for v in ir.values(x) for e in ir.walk(v)
                 if isinstance(e, ir.Var)}
        if not names.isdisjoint(fed_later) or isinstance(s, ir.For) and _is_read_early(s.body):
            return True
        fed_later |= ir.fed(s)
    return False


# -- tiles


def _tile(k: ir.Kernel, moves: Moves, along: str, grid: list[str]) -> Tile | None:
    """Tiles over a grid variable along which a load is contiguous that is not so along the fastest one."""
    stored = {a.buffer for a, _ in ir.accesses(k.body) if isinstance(a, ir.Store)}
    crossed = [a for a, _ in ir.accesses(k.body) if crosses(a, moves, along) and a.buffer not in stored]
    across = next((v for v in grid if v != along and any(moves.move(a, v) == "unit" for a in crossed)), None)
    return None if across is None else Tile(across, along)


def crosses(access: ir.Load | ir.Store, moves: Moves, along: str) -> bool:
    """Whether an access jumps from one iteration of `along` to the next."""
    move: Move = moves.move(access, along)
    return isinstance(access, ir.Load) and access.where is None and move == "strided"
