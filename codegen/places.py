"""Where the buffers of a program lie."""

from __future__ import annotations

from dataclasses import dataclass

from tensorc.ir.dims import Size


@dataclass(frozen=True)
class External:
    """Memory the caller supplies: an input, a variable, a constant or an output."""

    index: int


@dataclass(frozen=True)
class Arena:
    """Memory inside the program's arena, `offset` bytes from its start."""

    offset: Size


Place = External | Arena


@dataclass(frozen=True)
class Within:
    """What belongs to some rows of a batch: a row takes `row` bytes of the memory at `base`."""

    base: Place
    row: Size


Part = Place | Within
