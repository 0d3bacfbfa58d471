"""A closed graph made ready to be called, on whichever device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorc.ir.closing import Closed
from tensorc.runtime.binding import Binding
from tensorc.runtime.effects import Effects
from tensorc.runtime.program import program, program_of
from tensorc.runtime.random import Stream
from tensorc.runtime.variable import Cell

if TYPE_CHECKING:
    from tensorc.passes.manager import Pipeline
    from tensorc.runtime.cuda.binding import CudaBinding

Kept = Cell | Stream | np.ndarray[Any, Any]
"""What a function keeps for a parameter from call to call."""


def bound(device: str, closed: Closed, pipeline: Pipeline | None, inputs: int, kept: Sequence[Kept], effects: Effects,
          left: int = 0) -> Binding | CudaBinding:
    """Its program with what that reads.

    Args:
        device: `cpu` or `cuda`.
        pipeline: the passes it goes through; None for the default ones.
        inputs: how many of its parameters a call gives; they are the first.
        kept: what the others are.
        effects: what a run does besides.
        left: how many outputs, the first ones, stay on the device.
    """
    if device == "cpu":
        return Binding(program(closed.graph, pipeline), closed, inputs, kept, effects)
    from tensorc.runtime.cuda.binding import CudaBinding
    from tensorc.runtime.cuda.program import CudaProgram

    return CudaBinding(program_of(CudaProgram, closed.graph, pipeline), closed, inputs, kept, effects, left)


def checked(device: str, closed: Closed, pipeline: Pipeline | None, inputs: int, kept: Sequence[Kept],
            effects: Effects, left: int = 0) -> Binding | CudaBinding:
    """The same, each kernel beside its references: it raises CheckError besides what calls raise.

    Passes that the function was given are tried on random values: RewriteError names one that changes them.
    """
    if pipeline is not None:
        from tensorc.passes.checked import check
        check(closed.graph, pipeline)
    if device == "cpu":
        from tensorc.runtime.check import Checked
        return Checked(closed, pipeline, inputs, kept, effects)
    from tensorc.runtime.cuda.check import CheckedOnGpu
    return CheckedOnGpu(closed, pipeline, inputs, kept, effects, left)
