"""How long each kernel of a call takes on a GPU, by events before and after it; and what the GPU can do at most.

The events are part of the graph that a call runs as, so what the host takes to launch is not in the times; only loops
and choices that the host follows are launched one by one.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

from tensorc.codegen.spec import Launch, ProgramSpec
from tensorc.ir.closing import Closed
from tensorc.passes.manager import Pipeline
from tensorc.runtime.bound import Kept
from tensorc.runtime.cuda.binding import CudaBinding
from tensorc.runtime.cuda.device import Device, device
from tensorc.runtime.cuda.driver import CLOCK, DOUBLES, PROCESSORS, WITH_TIMING, P, number
from tensorc.runtime.cuda.machine import Machine
from tensorc.runtime.cuda.watched import WatchedOnGpu
from tensorc.runtime.effects import Effects
from tensorc.runtime.limits import COPIES, ROUNDS, Limits
from tensorc.runtime.timing import Timing
from tensorc.runtime.walk import Moment, Watcher, What
from tensorc.runtime.watched import Apart

LANES = {(7, 5): 64, (8, 0): 64}
"""How many multiply-adds of float32 a multiprocessor does in a cycle, by compute capability, where not 128."""

AT_ONCE = 20
"""Copies in a row of which the time is taken, so that the host is ahead of the device."""


class Events:
    """Events that tell the time, made as they are needed."""

    def __init__(self, on: Device) -> None:
        self._on = on
        self._all: list[int] = []

    def __getitem__(self, at: int) -> int:
        while len(self._all) <= at:
            self._all.append(number(self._on.cu.cuEventCreate, WITH_TIMING, kind=P))
        return self._all[at]

    def milliseconds(self, first: int, last: int) -> float:
        """Between two that are done."""
        found: float = number(self._on.cu.cuEventElapsedTime_v2, self[first], self[last], kind=ctypes.c_float)
        return found

    def __del__(self) -> None:
        for event in self._all:
            self._on.later(self._on.cu.cuEventDestroy_v2, event)


class Stopwatch:
    """A call whose kernels are timed.

    Attributes:
        program: what is run, with its graph after all passes and its kernels.
    """

    def __init__(self, apart: Apart, pipeline: Pipeline | None) -> None:
        self.program = WatchedOnGpu(apart.graph, pipeline)
        self._clock = _Clock(self.program)
        self._restore, self._run = apart.restore, apart.by(self._clocked)

    def run(self) -> Timing:
        """One run, from the state that the call finds.  Raises what a call raises."""
        self._restore()
        self._run()
        return self._clock.timing()

    def second(self) -> float:
        """Ticks of a second."""
        return 1e3

    def _clocked(self, closed: Closed, inputs: int, kept: Sequence[Kept], effects: Effects) -> CudaBinding:
        return _Clocked(self._clock, self.program, closed, inputs, kept, effects)


class _Clocked(CudaBinding):
    """A binding whose launches are timed."""

    in_turn = True

    def __init__(self, clock: _Clock, program: WatchedOnGpu, closed: Closed, inputs: int, kept: Sequence[Kept],
                 effects: Effects) -> None:
        super().__init__(program, closed, inputs, kept, effects)
        self._clock = clock

    def watcher(self, machine: Machine) -> Watcher:
        return self._clock.on(machine)


class _Clock:
    """What times launches, and the whole, as a walk tells of them.

    A walk that records part of a graph begins where all do, so what the last one has found is how it was.
    """

    def __init__(self, program: WatchedOnGpu) -> None:
        self._spec, self._on = program.spec, program.on
        self._events = Events(program.on)
        self._spans: list[tuple[str, int, int]] = []
        self._open: list[int] = []
        self._count = 0
        self._machine: Machine | None = None

    def on(self, machine: Machine) -> _Clock:
        self._machine = machine
        self._spans, self._open, self._count = [], [], 0
        return self

    def before(self, program: ProgramSpec, what: What, moment: Moment) -> None:
        if isinstance(what, Launch) or program is self._spec and what is None:
            self._open.append(self._stamp())

    def after(self, program: ProgramSpec, what: What, moment: Moment) -> None:
        if isinstance(what, Launch) or program is self._spec and what is None:
            name = what.source if isinstance(what, Launch) else ""
            self._spans.append((name, self._open.pop(), self._stamp()))

    def _stamp(self) -> int:
        assert self._machine is not None
        self._machine.stamp(self._events[self._count])
        self._count += 1
        return self._count - 1

    def timing(self) -> Timing:
        """The last run."""
        ticks: dict[str, float] = {}
        calls: dict[str, int] = {}
        with self._on.current():
            self._on.synchronise()
            for name, first, last in self._spans:
                ticks[name] = ticks.get(name, 0.0) + self._events.milliseconds(first, last)
                calls[name] = calls.get(name, 0) + 1
        return Timing(ticks, calls)


@functools.cache
def limits() -> Limits:
    """Those of the GPU: of copies as measured, of arithmetic by its clock and how many units it has."""
    on = device()
    with on.current():
        of = number(on.cu.cuDeviceGet, on.gpu.ordinal)
        clock, processors, ratio = (number(on.cu.cuDeviceGetAttribute, x, of) for x in (CLOCK, PROCESSORS, DOUBLES))
        single = 2e3 * clock * processors * LANES.get(on.gpu.capability, 128)
        copies = tuple((moved, _copied(on, moved // 2)) for moved in COPIES)
    return Limits(0, copies, (single, single / max(1, ratio)))


def _copied(on: Device, size: int) -> float:
    """Bytes a second that copies of so many bytes move, read and written."""
    events = Events(on)
    with on.lanes.lent() as lane:
        ends = [on.memory.take(size, lane) for _ in range(2)]
        best = float("inf")
        for _ in range(ROUNDS):
            on.cu.cuEventRecord(events[0], lane.stream)
            for _ in range(AT_ONCE):
                on.cu.cuMemcpyDtoDAsync_v2(ends[1].address, ends[0].address, size, lane.stream)
            on.cu.cuEventRecord(events[1], lane.stream)
            lane.synchronise()
            best = min(best, events.milliseconds(0, 1))
    return 2e3 * size * AT_ONCE / best
