"""Bindings whose kernels run beside their references: what TENSORC_CHECK=1 asks for."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence

import numpy as np

from tensorc.codegen.cpu.watch import IMPORTS, Watch
from tensorc.ir.closing import Closed
from tensorc.passes.manager import Pipeline
from tensorc.runtime.binding import Array, Binding, Frame
from tensorc.runtime.bound import Kept
from tensorc.runtime.checker import Checker
from tensorc.runtime.debug import tell_program
from tensorc.runtime.direct import declined
from tensorc.runtime.effects import Effects
from tensorc.runtime.variable import Cell
from tensorc.runtime.walk import Moment
from tensorc.runtime.watched import Watched

CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class Checked(Binding):
    """A binding that raises CheckError for the first kernel that does not compute what it should, or makes a NaN.

    Variables have their old values then.  Calls run one after the other.
    """

    def __init__(self, closed: Closed, pipeline: Pipeline | None, inputs: int, kept: Sequence[Kept],
                 effects: Effects) -> None:
        self._alone = threading.Lock()
        self._callbacks = [CALLBACK(self._before), CALLBACK(self._after)]
        addresses = [ctypes.cast(each, ctypes.c_void_p).value or 0 for each in self._callbacks]
        program = Watched(closed.graph, pipeline, Watch(), dict(zip(IMPORTS, addresses, strict=True)))
        super().__init__(program, closed, inputs, kept, effects)
        self.direct = declined
        tell_program(program, "compiled, to be checked,")
        assembly, self._sites = program.assembly, program.watch.sites
        self._checker = Checker(closed.graph.name, program.planned, assembly.lowered, assembly.spec, self._sites)
        updated = {variable for variable, _ in closed.graph.updates}
        self._updated = [each for param, each in zip(closed.graph.params[inputs:], kept, strict=True)
                         if param in updated and isinstance(each, Cell)]

    def _finish(self, frame: Frame) -> list[Array]:
        """An index outside its axis is told first: what kernels make of it is not what references do."""
        with self._alone:
            outputs = super()._finish(frame)
            if self._checker.error is not None:
                raise self._checker.error
            return outputs

    def _execute(self, frame: Frame, scratch: int) -> None:
        before = [cell.array.copy() for cell in self._updated]
        self._checker.begin()
        super()._execute(frame, scratch)
        if self._checker.error is not None:
            for cell, value in zip(self._updated, before, strict=True):
                cell.array[...] = value

    def _before(self, site: int, externals: int | None, sizes: int | None, arena: int | None) -> None:
        self._checker.before(site, self._moment(site, externals, sizes, arena), _read)

    def _after(self, site: int, externals: int | None, sizes: int | None, arena: int | None) -> None:
        self._checker.after(site, self._moment(site, externals, sizes, arena), _read)

    def _moment(self, site: int, externals: int | None, sizes: int | None, arena: int | None) -> Moment:
        """What the tables say that native code runs on."""
        program = self._sites[site].program
        buffers = (ctypes.c_uint64 * program.externals).from_address(externals)[:] if externals else []
        numbers = (ctypes.c_int64 * len(program.sizes)).from_address(sizes)[:] if sizes else []
        return Moment(buffers, dict(zip(program.sizes, numbers, strict=True)), arena or 0)


def _read(address: int, count: int) -> Array:
    """A copy of bytes of the host."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address)).copy()
