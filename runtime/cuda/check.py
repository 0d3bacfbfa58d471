"""Bindings on a GPU whose kernels run beside their references: what TENSORC_CHECK=1 asks for there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorc.codegen.spec import ProgramSpec
from tensorc.ir.closing import Closed
from tensorc.passes.manager import Pipeline
from tensorc.runtime.bound import Kept
from tensorc.runtime.checker import Checker
from tensorc.runtime.cuda.array import DeviceArray
from tensorc.runtime.cuda.binding import Array, CudaBinding, Frame, Given
from tensorc.runtime.cuda.lanes import Lane
from tensorc.runtime.cuda.layout import Layout
from tensorc.runtime.cuda.machine import Machine
from tensorc.runtime.cuda.watched import Sites, WatchedOnGpu
from tensorc.runtime.debug import tell_program
from tensorc.runtime.effects import Effects
from tensorc.runtime.walk import Moment, Watcher, What


class CheckedOnGpu(CudaBinding):
    """A binding that raises CheckError for the first kernel that does not compute what it should, or makes a NaN.

    After each kernel the host waits for it, and fetches what it has read and written.  Variables have their old values
    where anything differs.  Libraries do not use TF32.  Calls run one after the other.
    """

    def __init__(self, closed: Closed, pipeline: Pipeline | None, inputs: int, leaves: Sequence[Kept],
                 effects: Effects, left: int = 0) -> None:
        program = WatchedOnGpu(closed.graph, pipeline, tf32=False)
        super().__init__(program, closed, inputs, leaves, effects, left)
        tell_program(program, "compiled, to be checked,")
        self._alone = threading.Lock()
        self._sites = Sites(program.spec)
        self._checker = Checker(self.name, program.planned, program.assembly.lowered, program.spec, self._sites.all)

    def _call(self, arrays: Sequence[Given], sizes: tuple[int, ...], there: tuple[bool, ...]) -> list[Any]:
        """An index outside its axis is told first: what kernels make of it is not what references do."""
        with self._alone:
            results = super()._call(arrays, sizes, there)
            if self._checker.error is not None:
                raise self._checker.error
            return results

    def _compute(self, frame: Frame, layout: Layout, there: Sequence[DeviceArray], arrays: Sequence[Given],
                 outputs: Sequence[DeviceArray | None], lane: Lane) -> None:
        undo = self._undo(lane)
        self._checker.begin()
        try:
            self._follow(frame, layout, arrays, outputs)(Machine(self.program.code, lane, frame.word))
        except BaseException:
            undo()
            raise
        if self._checker.error is not None:
            undo()

    def watcher(self, machine: Machine) -> Watcher:
        return _Beside(self._checker, self._sites, machine)


class _Beside:
    """Shows the checker what is in the memory of a machine."""

    def __init__(self, checker: Checker, sites: Sites, machine: Machine) -> None:
        self._checker, self._sites, self._machine = checker, sites, machine

    def before(self, program: ProgramSpec, what: What, moment: Moment) -> None:
        self._checker.before(self._sites.number(program, what), moment, self._read)

    def after(self, program: ProgramSpec, what: What, moment: Moment) -> None:
        self._checker.after(self._sites.number(program, what), moment, self._read)

    def _read(self, address: int, count: int) -> Array:
        found = np.empty(count, np.uint8)
        self._machine.download(found.ctypes.data, address, count)
        self._machine.lane.synchronise()
        return found
