"""Lanes: a stream of work on the GPU for each of the callers at a time, and what one has to wait for of another.

A lane marks the end of every call by its event.  Whoever follows on memory that a lane has used waits for the last mark
of that lane: work in it is done in order, so that this is late enough, whatever has come since.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from tensorc.runtime.cuda.driver import NO_TIMING, NON_BLOCKING, NOT_READY, Driver, DriverError, P, number
from tensorc.runtime.cuda.order import Touch


class Lane:
    """A stream that one caller has to itself at a time.

    Attributes:
        stream, event: the driver's handles.
    """

    __slots__ = ("cu", "event", "stream")

    def __init__(self, cu: Driver) -> None:
        self.cu = cu
        self.stream: int = number(cu.cuStreamCreate, NON_BLOCKING, kind=P)
        try:
            self.event: int = number(cu.cuEventCreate, NO_TIMING, kind=P)
        except DriverError:
            cu.cuStreamDestroy_v2(self.stream)
            raise

    def wait_for(self, others: Iterable[Lane]) -> None:
        """What is added from now on runs after all that these lanes have marked."""
        for other in others:
            if other is not self:
                self.cu.cuStreamWaitEvent(self.stream, other.event, 0)

    def mark(self) -> None:
        """Others can wait for all that was added so far."""
        self.cu.cuEventRecord(self.event, self.stream)

    def is_done(self) -> bool:
        """Whether all that was marked is done."""
        return bool(self.cu.cuEventQuery(self.event) != NOT_READY)

    def finish(self) -> None:
        """Waits until all that was marked is done."""
        self.cu.cuEventSynchronize(self.event)

    def synchronise(self) -> None:
        """Waits until all that was added is done."""
        self.cu.cuStreamSynchronize(self.stream)


class Lanes:
    """The lanes of a device; a program of one thread has but one."""

    def __init__(self, cu: Driver) -> None:
        self._cu = cu
        self._free: deque[Lane] = deque()

    @contextmanager
    def lent(self) -> Iterator[Lane]:
        """A lane that nobody else adds work to within the block, on a device that is current.

        Where the block fails, what it had added to the lane is done when that is told.
        """
        try:
            lane = self._free.pop()
        except IndexError:
            lane = Lane(self._cu)
        try:
            yield lane
        except BaseException:
            with contextlib.suppress(DriverError):
                lane.synchronise()
            raise
        finally:
            self._free.append(lane)


class Launchable(Protocol):
    """What a launch of a program names."""

    def launch(self, lane: Lane, addresses: Sequence[int], sizes: Sequence[int]) -> object:
        """Adds its work to that of a lane, or to the graph that is recorded there; the device is current.

        Args:
            addresses, sizes: in the order in which the launch has them.

        Returns: what has to be there as long as the work, or the graph; None for nothing.
        Raises: Unready where something has to be done first that cannot be done while a graph is recorded.
        """

    def touches(self, lane: Lane, addresses: Sequence[int], sizes: Sequence[int]) -> list[Touch]:
        """The memory that such a launch reads and writes."""


class Unready(Exception):
    """What a launch needs once before it can be done.  Attributes: what does that, while the device is current."""

    def __init__(self, prepare: Callable[[], None]) -> None:
        super().__init__()
        self.prepare = prepare
