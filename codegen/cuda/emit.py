"""A kernel of the loop IR as text for a GPU."""

from __future__ import annotations

from tensorc.codegen import loopir as ir
from tensorc.codegen.cuda.points import emit_points
from tensorc.codegen.cuda.products import emit_product
from tensorc.codegen.cuda.rows import emit_rows
from tensorc.codegen.cuda.schedule import Points, Rows, Schedule, schedule
from tensorc.codegen.cuda.source import Source
from tensorc.codegen.cuda.tiles import emit_tile
from tensorc.codegen.loopir import Work
from tensorc.codegen.loopverify import verify
from tensorc.errors import InternalError


def emit(k: Work, how: Schedule | None = None, aligned: bool = True) -> Source:
    """The text of a kernel.

    Args:
        how: its schedule; None for tiles of a product, or for the one that `schedule` finds.
        aligned: whether every buffer begins at a multiple of 16 bytes; rows of a loop may not.
    """
    product = emit_product(k) if how is None else None
    if product is not None:
        return product
    if not isinstance(k, ir.Kernel):
        raise InternalError(f"{k.name} is too narrow for tiles")
    how = how or schedule(verify(k), aligned)
    match how:
        case Points():
            return emit_points(k, how)
        case Rows():
            return emit_rows(k, how)
        case _:
            return emit_tile(k, how)
