"""How long each kernel of a call takes, by a clock round the steps of its program.

Launches of one step run side by side.  Each gets the part of the step's time that its code took of all threads' time.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.watch import WORDS, Watch
from tensorc.passes.manager import Pipeline
from tensorc.runtime.watched import Apart, Watched


@dataclass(frozen=True)
class Timing:
    """One run.

    Attributes:
        ticks: of each kernel by name, and of the whole under the empty name.
        calls: how often each kernel ran; those of a loop run once a step.
    """

    ticks: Mapping[str, float]
    calls: Mapping[str, int]


class Stopwatch:
    """A call whose kernels are timed.

    Attributes:
        program: what is run, with its graph after all passes and its kernels.
    """

    def __init__(self, apart: Apart, pipeline: Pipeline | None) -> None:
        self.program = Watched(apart.graph, pipeline, Watch(Target.host()))
        self._restore, self._run = apart.restore, apart.on(self.program)
        self._table = self._words("watch_table", WORDS * len(self.program.watch.sites)).reshape(-1, WORDS)
        self._parts = self._words("watch_parts", sum(len(site.parts) for site in self.program.watch.sites))
        self._now = self.program.native.library.function("watch_now", ctypes.c_int64)
        self._made = time.perf_counter(), self._now()

    def run(self) -> Timing:
        """One run, from the state that the call finds.  Raises what a call raises."""
        self._table[:, :2] = 0
        self._parts[:] = 0
        self._restore()
        self._run()

        ticks: dict[str, float] = {}
        calls: dict[str, int] = {}
        for site, (took, runs, _) in zip(self.program.watch.sites, self._table.tolist(), strict=True):
            if site.step is None and site.program is self.program.assembly.spec:
                ticks[""] = took
            elif isinstance(site.step, tuple):
                shares = self._shares(site.parts) if site.parts else [1.0]
                for launch, share in zip(site.step, shares, strict=True):
                    ticks[launch.source] = ticks.get(launch.source, 0.0) + share * took
                    calls[launch.source] = max(runs, calls.get(launch.source, 0))
        return Timing(ticks, calls)

    def second(self) -> float:
        """Ticks of a second, from all the time that this has been here, and a twentieth of a second at least."""
        time.sleep(max(0.0, self._made[0] + 0.05 - time.perf_counter()))
        seconds, ticks = time.perf_counter() - self._made[0], self._now() - self._made[1]
        return float(ticks) / seconds

    def _shares(self, parts: range) -> list[float]:
        """What each of some launches has of their time."""
        took = self._parts[parts.start:parts.stop]
        whole = int(took.sum())
        return [float(each) / whole for each in took] if whole else [1 / len(parts)] * len(parts)

    def _words(self, name: str, count: int) -> np.ndarray[Any, Any]:
        """The int64 words of a table of the program."""
        if not count:
            return np.zeros(0, np.int64)
        return np.ctypeslib.as_array((ctypes.c_int64 * count).from_address(self.program.native.library.address(name)))
