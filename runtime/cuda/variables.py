"""Variables on the device: a copy of a value that calls read and write, and the host asks for when it must."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorc.runtime.cuda.device import Device
from tensorc.runtime.cuda.lanes import Lane
from tensorc.runtime.variable import Cell

Array = np.ndarray[Any, Any]


class Home:
    """A variable's memory on the device, at an address that never changes.  Who uses it holds the variable's lock.

    Attributes:
        changes: the variable's number of changes when the value came here or was written here.
        newest: whether the host's array holds an older one.
        address: where it is.
        wrote, read: the lane that wrote it last, and those that have read it since.
    """

    def __init__(self, cell: Cell, on: Device, lane: Lane) -> None:
        self._on = on
        self._block = on.memory.take(cell.array.nbytes, lane)
        self.address = self._block.address
        self.changes, self.newest = -1, False
        self.wrote: Lane | None = lane
        self.read: set[Lane] = set()
        cell.elsewhere = self
        Cell.any_elsewhere.value = True

    def for_use(self, cell: Cell, lane: Lane, writes: bool) -> None:
        """Lets a lane wait for those before it, and brings the value here if it is not."""
        if self.wrote is not None:
            lane.wait_for((self.wrote,))
        stale = self.changes != cell.changes.value
        if writes or stale:
            lane.wait_for(self.read)
        if stale:
            if cell.array.nbytes:
                self._on.cu.cuMemcpyHtoDAsync_v2(self.address, cell.array.ctypes.data, cell.array.nbytes, lane.stream)
                lane.mark()
                lane.finish()           # the array may change as soon as its lock is given up
            self._used(lane, writes=True)
            self.changes = cell.changes.value

    def was_used(self, cell: Cell, lane: Lane, writes: bool) -> None:
        """A lane has used it, and written it where it says so, and has marked that."""
        self._used(lane, writes)
        if writes:
            cell.changes.value += 1
            self.changes, self.newest = cell.changes.value, True

    def _used(self, lane: Lane, writes: bool) -> None:
        if writes:
            self.wrote, self.read = lane, set()
        else:
            self.read.add(lane)
        self._block.users.add(lane)

    def fetch(self, array: Array) -> None:
        """Copies the value into an array of the host."""
        if not array.nbytes:
            return
        with self._on.current() as cu, self._on.lanes.lent() as lane:
            if self.wrote is not None:
                lane.wait_for((self.wrote,))
            cu.cuMemcpyDtoHAsync_v2(array.ctypes.data, self.address, array.nbytes, lane.stream)
            lane.synchronise()


def home(cell: Cell, on: Device, lane: Lane) -> Home:
    """The memory of a variable, whose lock is held, on the device, which is current."""
    found = cell.elsewhere
    return found if isinstance(found, Home) else Home(cell, on, lane)
