"""A loop whose steps treat each row of a batch by itself, as one kernel in LLVM IR.

Its units are rows.  A thread goes through all steps for the rows that are its own, and through the kernels of a step
one after the other: nobody waits for anybody between steps, and what a step leaves in the cache the next one finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tensorc.codegen.cpu.loops import Writer, steps
from tensorc.codegen.places import Arena, Place, Within
from tensorc.codegen.spec import Batch, LoopSpec, parts_of
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.kernels import ROWS

if TYPE_CHECKING:
    from tensorc.codegen.spec import Launch

UNIT = 4
"""Rows that are a unit of work."""


def row_buffers(spec: LoopSpec) -> tuple[Place, ...]:
    """The buffers of the kernel; the last one is the arena, of `row_arena` bytes."""
    parts = [*(part for slot in spec.slots for part in parts_of(slot)), *(copy.destination for copy in spec.copies)]
    return *dict.fromkeys(part.base if isinstance(part, Within) else part for part in parts), Arena(spec.arena)


def row_arena(batch: Batch) -> Size:
    """Bytes of memory that a loop needs for all its rows."""
    return dims.ceildiv(batch.rows, UNIT) * _unit_arena(batch.memory)


def _unit_arena(body: Size) -> Size:
    return dims.ceildiv(dims.substitute(body, {ROWS: UNIT}), 64) * 64


def emit_row_loop(name: str, spec: LoopSpec, body: Sequence[Launch], batch: Batch,
                  symbols: Sequence[str]) -> Iterator[str]:
    """The kernel `name`, with what tells its units and work.

    Args:
        body: what a step runs, in order.
        symbols: the sizes of the kernel.
    """
    yield from _kernel(name, spec, batch, symbols)
    yield from _step(f"{name}_step", body, symbols)
    yield from _units(name, batch, symbols)
    yield from _work(name, spec, body, batch, symbols)


def _kernel(name: str, spec: LoopSpec, batch: Batch, symbols: Sequence[str]) -> Iterator[str]:
    writer = Writer(symbols, row_buffers(spec))
    write = writer.lines.append
    arena = writer.pointer(Arena(spec.arena))
    write(f"  %arena.before = mul i64 %first, {writer.sizes.value(_unit_arena(batch.memory))}")
    write(f"  %arena.own = getelementptr i8, ptr {arena}, i64 %arena.before")
    write(f"  %from = mul i64 %first, {UNIT}")
    write(f"  %end = mul i64 %last, {UNIT}")
    write(f"  %to = call i64 @llvm.smin.i64(i64 %end, i64 {writer.sizes.value(batch.rows)})")
    write("  %rows = sub i64 %to, %from")
    writer.table("%step_sizes", "i64", [*(writer.known[symbol] for symbol in symbols), "%rows"])
    writer.known[ROWS], writer.first_row = "%rows", "%from"

    yield f"define void @{name}(i64 %first, i64 %last, ptr %externals, ptr %sizes) {{"
    yield "entry:"
    yield from steps(spec, f"{name}_step", writer, "%step_sizes", "%arena.own")
    yield "}"


def _step(name: str, body: Sequence[Launch], symbols: Sequence[str]) -> Iterator[str]:
    """The function `name(externals, sizes, arena)` that runs all kernels of a step."""
    writer = Writer((*symbols, ROWS))
    write = writer.lines.append
    for i, launch in enumerate(body):
        writer.table(f"%buffers{i}", "ptr", [writer.pointer(place) for place in launch.places])
        writer.table(f"%sizes{i}", "i64", [writer.sizes.value(size) for size in launch.sizes])
        write(f"  %units{i} = call i64 @{launch.kernel}_units(ptr %sizes{i})")
        write(f"  call void @{launch.kernel}(i64 0, i64 %units{i}, ptr %buffers{i}, ptr %sizes{i})")
    yield f"define internal void @{name}(ptr %externals, ptr %sizes, ptr %arena) {{"
    yield from writer.lines
    yield "  ret void"
    yield "}"


def _units(name: str, batch: Batch, symbols: Sequence[str]) -> Iterator[str]:
    writer = Writer(symbols)
    units = writer.sizes.value(dims.ceildiv(batch.rows, UNIT))
    yield f"define internal i64 @{name}_units(ptr %sizes) alwaysinline {{"
    yield from writer.lines
    yield f"  ret i64 {units}"
    yield "}"


def _work(name: str, spec: LoopSpec, body: Sequence[Launch], batch: Batch, symbols: Sequence[str]) -> Iterator[str]:
    """The work of all steps for the whole batch."""
    writer = Writer(symbols)
    write = writer.lines.append
    writer.known[ROWS] = writer.sizes.value(batch.rows)
    step = "0"
    for i, launch in enumerate(body):
        writer.table(f"%sizes{i}", "i64", [writer.sizes.value(size) for size in launch.sizes])
        write(f"  %work{i} = call i64 @{launch.kernel}_work(ptr %sizes{i})")
        write(f"  %step{i} = add i64 {step}, %work{i}")
        step = f"%step{i}"
    write(f"  %work = mul i64 {step}, {writer.sizes.value(spec.length)}")
    yield f"define internal i64 @{name}_work(ptr %sizes) alwaysinline {{"
    yield from writer.lines
    yield "  ret i64 %work"
    yield "}"
