"""What a kernel costs at least: bytes that pass between it and memory, and operations on floats.

Every element that a kernel reads or writes counts once, however often it does; scratch memory of a product does not
count.  Of operations, a multiplication and an addition count 1 each, so a multiply-add counts 2, and a function counts
the instructions it takes (codegen/scalars.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tensorc.codegen import loopir as ir
from tensorc.codegen.moves import Moves
from tensorc.codegen.weigh import call_cost
from tensorc.ir import dims
from tensorc.ir.dims import Size

SAMPLES = 256
"""Values of a loop variable that an extent which depends on it is averaged over."""


@dataclass(frozen=True)
class Cost:
    """Bytes moved and operations on floats of one run; None where a number depends on data."""

    bytes: int
    flops: int | None


def cost(kernel: ir.Kernel | ir.Matmul | ir.Conv, sizes: Mapping[str, int]) -> Cost:
    """The cost of one run of a kernel for these values of its size symbols."""
    if isinstance(kernel, ir.Kernel):
        return _of_loops(kernel, sizes)
    epilogue = kernel.epilogue
    flops: int | None = _multiply_adds(kernel, sizes)
    if epilogue is not None:
        after = _of_loops(epilogue, sizes).flops
        flops = None if flops is None or after is None else flops + after
    moved = 0
    for buffer in kernel.buffers:
        if buffer.role != "scratch":
            again = buffer.role == "inout" and buffer is not kernel.buffers[2]  # of the result, only its tile is read
            moved += _bytes(buffer, sizes) * (2 if again else 1)
    return Cost(moved, flops)


def _multiply_adds(kernel: ir.Matmul | ir.Conv, sizes: Mapping[str, int]) -> int:
    """Operations of a product, each multiply-add being two.  Of a convolution, those on its padding count too."""
    if isinstance(kernel, ir.Matmul):
        return 2 * dims.evaluate(dims.product((*kernel.batch, kernel.m, kernel.n, kernel.k)), sizes)
    *places, channels, _ = kernel.w.shape
    return 2 * dims.evaluate(dims.product((*kernel.y.shape, *places, channels)), sizes)


def _of_loops(kernel: ir.Kernel, sizes: Mapping[str, int]) -> Cost:
    """The cost of a kernel of loops."""
    trips = _Trips(kernel, sizes)
    touched: dict[tuple[str, bool], float] = {}
    for access, around in ir.accesses(kernel.body):
        key = access.buffer, isinstance(access, ir.Store)
        touched[key] = touched.get(key, 0) + trips.through(around)

    moved = 0
    for (name, stored), times in touched.items():
        buffer = kernel.buffer(name)
        if buffer.role == "out" and not stored:  # what it has just written itself
            continue
        whole = dims.evaluate(dims.product(buffer.shape), sizes)
        moved += int(min(whole, times)) * buffer.dtype.size

    flops = sum(trips.through(around) * n for n, around in _operations(kernel.body, ()) if n)
    return Cost(moved, None if flops == float("inf") else int(flops))


def _operations(body: ir.Body, around: tuple[ir.For, ...]) -> Iterator[tuple[int, tuple[ir.For, ...]]]:
    """Operations on floats of each statement, and the loops around it."""
    for s in body:
        if isinstance(s, ir.For):
            yield from _operations(s.body, (*around, s))
            continue
        called = [e for value in ir.values(s) for e in ir.walk(value) if isinstance(e, ir.Call)]
        total = sum(call_cost(e) for e in called if any(x.dtype.is_float for x in (e, *e.args)))
        if isinstance(s, ir.Accum | ir.Scan):
            total += any(value.dtype.is_float for value in ir.values(s))
        yield total, around


class _Trips:
    """How often the inside of loops is gone through; infinity where that depends on data."""

    def __init__(self, kernel: ir.Kernel, sizes: Mapping[str, int]) -> None:
        self._kernel = kernel
        self._sizes = sizes
        self._moves = Moves(kernel)

    def through(self, around: tuple[ir.For, ...]) -> float:
        """All runs of what stands inside of these loops."""
        extents: dict[str, Size] = dict(self._kernel.grid) | {loop.var: loop.extent for loop in around}
        total = 1.0
        for loop in around:
            if self._moves.is_data(loop.extent):
                total *= self._entries(loop)
                for var in (loop.var, *self._moves.loops_of_size(loop.extent)):
                    extents.pop(var, None)
        known = dict(self._sizes)
        for var, extent in extents.items():
            known[var], count = 0, self._count(extent, extents, known)
            total *= count
        return total

    def _entries(self, loop: ir.For) -> float:
        """The runs of a loop over the entries of a sparse row, for all rows: as many as there are entries."""
        for access, _ in ir.accesses(loop.body):
            if isinstance(access, ir.Load) and len(access.index) == 1 and loop.var in dims.symbols(access.index[0]):
                return dims.evaluate(self._kernel.buffer(access.buffer).shape[0], self._sizes)
        return float("inf")

    def _count(self, extent: Size, extents: Mapping[str, Size], known: Mapping[str, int]) -> float:
        """An extent, on average over the loop variable that it depends on, as the last chunk of a reduction does."""
        inner = sorted(dims.symbols(extent).difference(self._sizes))
        if not inner:
            return dims.evaluate(extent, known)
        if len(inner) > 1 or inner[0] not in extents or dims.symbols(extents[inner[0]]).difference(self._sizes):
            return dims.evaluate(extent, known)
        outer = dims.evaluate(extents[inner[0]], known)
        places = range(0, outer, max(1, outer // SAMPLES))
        return sum(dims.evaluate(extent, {**known, inner[0]: at}) for at in places) / max(1, len(places))


def _bytes(buffer: ir.Buffer, sizes: Mapping[str, int]) -> int:
    return dims.evaluate(dims.product(buffer.shape), sizes) * buffer.dtype.size
