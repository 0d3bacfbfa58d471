"""Where the time of a call goes, kernel by kernel, and how near each is to what the machine can do.

    train: a call takes 731 µs, 11 kernels, n = 128, 2 threads, median of 149 runs
    limits: memory 40 GB/s, cache 99 GB/s, float32 223 GFLOP/s, float64 109 GFLOP/s

      share       time  calls    GB/s  GFLOP/s      of limit  kernel  operations
     49.5 %   349.9 µs      1     6.1    148.0  66 % arithm.  k6      matmul, mul, sub  # mlp.py:8, mlp.py:11
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorc.codegen.cost import cost
from tensorc.ir import dims
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import ROWS, named_groups
from tensorc.ir.text import inline, labels, several, shown_graphs
from tensorc.ir.types import f32, f64
from tensorc.passes.manager import Pipeline
from tensorc.runtime import threads
from tensorc.runtime.limits import Limits, limits
from tensorc.runtime.timing import Stopwatch
from tensorc.runtime.watched import Apart, Watched

if TYPE_CHECKING:
    from tensorc.runtime.cuda.timing import Stopwatch as GpuStopwatch
    from tensorc.runtime.cuda.watched import WatchedOnGpu

FEWEST = 5
"""Runs that a profile takes at least."""

BOUNDS = {"memory": "memory ", "arithmetic": "arithm."}
"""What the table calls the limits."""

SHOWN = 6
"""Operations that the table names of a kernel."""

MOST = 1000
"""Runs after which more say no more."""


@dataclass(frozen=True)
class Row:
    """What one kernel does in a call.

    Attributes:
        kernel: its name, as in the loop IR and behind the nodes of the graph after all passes.
        calls: how often it runs; those of a loop run once a step.
        seconds: all these runs together.
        share: of the time of all kernels.
        bytes: what passes between it and memory, each element once a run.
        flops: operations on floats; None where their number depends on data.
        dtype: what its floats are.
        limit: how near to the machine's limit it is, 1 being the limit.
        bound: what that limit is of, "memory" or "arithmetic".
        nodes: the operations it carries out, by the names of the graph after all passes.
        operations: what these are, the same for all kernels of a group.
        lines: the user's lines behind them.
    """

    kernel: str
    calls: int
    seconds: float
    share: float
    bytes: int
    flops: int | None
    dtype: str
    limit: float
    bound: str
    nodes: tuple[str, ...]
    operations: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def bandwidth(self) -> float:
        """Bytes a second."""
        return self.bytes / self.seconds if self.seconds else 0.0

    @property
    def rate(self) -> float | None:
        """Operations a second."""
        return None if self.flops is None else self.flops / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Profile:
    """The kernels of a call, those that take longest first.

    Attributes:
        name: the function.
        sizes: what the symbols of its graph stood for.
        runs: over how many runs each time is the median.
        threads: that it ran on; 0 on a GPU.
        seconds: a run of the program as it always is.
        watched: a run of the program with a clock round each step, all kernels and what lies between them.
        gpu: the GPU that it ran on; None for the CPU.
    """

    name: str
    sizes: Mapping[str, int]
    threads: int
    runs: int
    seconds: float
    watched: float
    rows: tuple[Row, ...]
    limits: Limits
    gpu: str | None = None

    @property
    def on(self) -> str:
        """What it ran on, in words."""
        return self.gpu or several(self.threads, "thread")

    def __getitem__(self, kernel: str) -> Row:
        """The row of a kernel.  Raises KeyError."""
        for row in self.rows:
            if row.kernel == kernel:
                return row
        raise KeyError(kernel)

    def __str__(self) -> str:
        return "\n".join(_text(self))


def profile(apart: Apart, pipeline: Pipeline | None, seconds: float) -> Profile:
    """The profile of a call, from runs for so many seconds.

    Raises: what a call raises.
    """
    plain = apart.usual(pipeline)
    plain()
    watch, best, gpu = _clock(apart, pipeline)
    watch.run()

    taken: list[float] = []
    timings = []
    end = time.perf_counter() + seconds
    while len(taken) < FEWEST or (len(taken) < MOST and time.perf_counter() < end):
        apart.restore()
        start = time.perf_counter()
        plain()
        taken.append(time.perf_counter() - start)
        timings.append(watch.run())

    second = watch.second()
    medians = {name: statistics.median(t.ticks[name] for t in timings) / second for name in timings[0].ticks}
    whole = medians.pop("")
    rows = _rows(watch.program, apart.sizes, medians, timings[0].calls, best)
    return Profile(apart.graph.name, apart.sizes, 0 if gpu else threads.num_threads(), len(taken),
                   statistics.median(taken), whole, rows, best, gpu)


def _clock(apart: Apart, pipeline: Pipeline | None) -> tuple[Stopwatch | GpuStopwatch, Limits, str | None]:
    """What times a call on its device, what that can do, and its name if it is a GPU."""
    if apart.device == "cpu":
        return Stopwatch(apart, pipeline), limits(), None
    from tensorc.runtime.cuda import timing
    watch = timing.Stopwatch(apart, pipeline)
    return watch, timing.limits(), watch.program.on.gpu.name


def _rows(program: Watched | WatchedOnGpu, sizes: Mapping[str, int], seconds: Mapping[str, float],
          calls: Mapping[str, int], best: Limits) -> tuple[Row, ...]:
    """The rows of all kernels that ran, the slowest first."""
    sources = _sources(program.planned)
    inside = _sizes(program.planned, sizes)
    total = sum(seconds.values()) or 1.0
    rows = []
    for group, kernels in program.assembly.lowered:
        for kernel in (each.kernel for each in kernels):
            times, took = calls.get(kernel.name, 0), seconds.get(kernel.name, 0.0)
            if not times:                   # a step of a loop that has none, or left to a library
                continue
            spent = cost(kernel, inside[group.name])
            wide = any(b.dtype is f64 for b in kernel.buffers)
            memory = spent.bytes / best.bandwidth(spent.bytes)
            arithmetic = (spent.flops or 0) / best.peak(f64 if wide else f32)
            rows.append(Row(
                kernel.name, times, took, took / total, times * spent.bytes,
                None if spent.flops is None else times * spent.flops, "float64" if wide else "float32",
                times * max(memory, arithmetic) / took if took else 0.0,
                "arithmetic" if arithmetic > memory else "memory", *sources[group.name],
            ))
    return tuple(sorted(rows, key=lambda row: -row.seconds))


def _sources(graph: Graph) -> dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
    """Of every group: its nodes by name, their operations, and the user's lines; of a body, those of its loop."""
    found: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {}
    shown = shown_graphs(graph)
    for name, group, inside in ((n, g, shown[id(planned)]) for n, g, planned in named_groups(graph)):
        names = labels(inside)
        nodes = [n for n in (group.nodes or group.outputs) if n.op.name != "parameter" and not inline(n)]
        lines = dict.fromkeys(str(line) for n in nodes for line in inside.provenance.get(n, ()))
        around = next((found[n][2] for n in reversed(found) if name.startswith(f"{n}_")), ())
        operations = [n.op.name for n in nodes] if group.nodes else ["copy"]
        found[name] = tuple(names[n] for n in nodes), tuple(dict.fromkeys(operations)), tuple(lines) or around
    return found


def _sizes(graph: Graph, sizes: Mapping[str, int]) -> dict[str, Mapping[str, int]]:
    """What the symbols of each group stand for; a loop that is watched goes through all rows of its batch at once."""
    found: dict[str, Mapping[str, int]] = {}
    batches: dict[str, Mapping[str, int]] = {}
    for name, group, _ in named_groups(graph):
        found[name] = next((batches[n] for n in reversed(batches) if name.startswith(f"{n}_")), sizes)
        if group.bodies:
            rows = {} if group.batch is None else {ROWS: dims.evaluate(group.batch, found[name])}
            batches[name] = {**found[name], **rows}
    return found


def _text(profile: Profile) -> Iterator[str]:
    """The profile as a table."""
    best, sizes = profile.limits, ", ".join(f"{name} = {n}" for name, n in profile.sizes.items())
    facts = [f"a call takes {_time(profile.seconds)}", several(len(profile.rows), "kernel"),
             *([sizes] if sizes else []), profile.on, f"median of {profile.runs} runs"]
    yield f"{profile.name}: {', '.join(facts)}"
    yield (f"limits: memory {best.memory / 1e9:.0f} GB/s, cache {best.cache / 1e9:.0f} GB/s, "
           f"float32 {best.flops[0] / 1e9:.0f} GFLOP/s, float64 {best.flops[1] / 1e9:.0f} GFLOP/s")
    yield ""
    width = max([6, *(len(row.kernel) for row in profile.rows)])
    yield f"  share       time  calls    GB/s  GFLOP/s      of limit  {'kernel':<{width}}  operations"
    for row in profile.rows:
        speeds = f"{row.bandwidth / 1e9:7.1f} {'–' if row.rate is None else f'{row.rate / 1e9:.1f}':>8}"
        limit = f"{100 * row.limit:3.0f} % {BOUNDS[row.bound]}"
        what = ", ".join(row.operations[:SHOWN]) + (", …" if len(row.operations) > SHOWN else "")
        where = f"  # {', '.join(row.lines)}" if row.lines else ""
        yield (f"{100 * row.share:5.1f} % {_time(row.seconds):>10} {row.calls:>6} {speeds}  {limit}  "
               f"{row.kernel:<{width}}  {what}{where}")
    between = profile.watched - sum(row.seconds for row in profile.rows)
    yield f"        {_time(max(between, 0.0)):>10} between kernels"


def _time(seconds: float) -> str:
    """A time in the unit that gives it one digit or more before the point."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.2f} {unit}" if seconds * scale < 10 else f"{seconds * scale:.1f} {unit}"
    return f"{seconds * 1e9:.0f} ns"
