"""Where the buffers of one call lie in the memory that a caller has to itself, and how a program can be run then."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc.codegen.spec import Choice, Loop, ProgramSpec
from tensorc.ir import dims
from tensorc.ir.kernels import ROWS
from tensorc.runtime.cuda.memory import ALIGNMENT

RECORDED = 8192
"""Launches of a program up to which it is recorded."""

KEY = 16
"""Bytes of the key of a random stream."""


@dataclass(frozen=True)
class Region:
    """Some of the memory: buffers one behind the other, each at a multiple of ALIGNMENT.

    Attributes:
        start, size: where it is, in bytes.
        places: where each buffer is; None for those that lie elsewhere.
    """

    start: int
    size: int
    places: tuple[int | None, ...]

    @staticmethod
    def of(start: int, sizes: Sequence[int | None]) -> Region:
        places: list[int | None] = []
        at = start
        for size in sizes:
            places.append(None if size is None else at)
            at += -(-(size or 0) // ALIGNMENT) * ALIGNMENT
        return Region(start, at - start, tuple(places))


@dataclass(frozen=True, eq=False)
class Layout:
    """What follows from the sizes of a call, and from which of its inputs and outputs stay on the device.

    Attributes:
        sizes: what the program's symbols stand for.
        staged: what comes from the host: inputs, then the keys of random streams.
        landed: what goes to the host: outputs.
        arena: where the program's own memory begins.
        size: of all this, in bytes.
        shapes: of the outputs.
        is_recorded: whether the program runs as recorded graphs.
    """

    sizes: Mapping[str, int]
    staged: Region
    landed: Region
    arena: int
    size: int
    shapes: tuple[tuple[int, ...], ...]
    is_recorded: bool


def nbytes(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize


def can_be_recorded(spec: ProgramSpec, sizes: Mapping[str, int]) -> bool:
    """Whether all reads are outside of loops, and launches are not too many."""
    return not any(_decides(step.body) for step in _loops(spec)) and _launches(spec, sizes) <= RECORDED


def has_choice(spec: ProgramSpec) -> bool:
    """Whether what is run depends on what was computed, besides what checks have found."""
    return any(isinstance(step, Choice) or isinstance(step, Loop) and has_choice(step.body) for step in spec.steps)


def _decides(spec: ProgramSpec) -> bool:
    return spec.gate is not None or has_choice(spec) or any(_decides(loop.body) for loop in _loops(spec))


def _loops(spec: ProgramSpec) -> Iterator[Loop]:
    """Every loop, those in branches of choices included."""
    for step in spec.steps:
        if isinstance(step, Loop):
            yield step
        elif isinstance(step, Choice):
            for body in step.bodies:
                yield from _loops(body)


def _launches(spec: ProgramSpec, sizes: Mapping[str, int]) -> int:
    total = 0
    for step in spec.steps:
        if isinstance(step, Loop):
            inner = sizes if step.batch is None else {**sizes, ROWS: dims.evaluate(step.batch.rows, sizes)}
            total += dims.evaluate(step.spec.length, sizes) * _launches(step.body, inner)
        elif isinstance(step, Choice):
            total += max(_launches(body, sizes) for body in step.bodies)
        else:
            total += len(step)
    return total
