"""Programs whose steps are watched.  They are compiled apart: the normal ones hold nothing of this.

A watched program runs the same launches in the same order and calls, round each step and each run of a body,

    void @watch_before(i64 site, ptr externals, ptr sizes, ptr arena)
    void @watch_after(i64 site, ptr externals, ptr sizes, ptr arena)

where `site` is the number of a Site.  They are imported, or defined in the program by a clock that adds the time up in

    @watch_table      for each site: ticks, runs, and when the present run began
    @watch_parts      for each launch that runs beside others: ticks of all threads together
    i64 @watch_now()  what the clock says
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tensorc.codegen.cpu.target import Target
from tensorc.codegen.spec import Site

if TYPE_CHECKING:
    from tensorc.codegen.spec import Choice, Loop, ProgramSpec, Step

IMPORTS = ("watch_before", "watch_after")
EXPORTS = ("watch_table", "watch_parts", "watch_now")

WORDS = 3
"""Words of a site in the clock's table."""

CLOCKS = {"x86_64": "llvm.readcyclecounter", "aarch64": "llvm.readsteadycounter"}
"""The counter that runs at one rate on all cores, by architecture."""


class Watch:
    """What watches a program, and its sites in the order of their numbers, once the program is emitted.

    Args:
        target: given, times are taken with its clock; else the two functions are imported.
    """

    def __init__(self, target: Target | None = None) -> None:
        self.sites: list[Site] = []
        self.exports: tuple[str, ...] = () if target is None else EXPORTS
        self._clock = None if target is None else CLOCKS.get(target.architecture, "llvm.readcyclecounter")
        self._parts: dict[int, range] = {}
        self._wrapped: list[str] = []

    def functions(self, step: Step) -> list[str]:
        """What to launch in a step: of launches that run side by side, functions that take their times."""
        if self._clock is None or len(step) < 2:
            return [each.kernel for each in step]
        first = len(self._wrapped)
        self._wrapped += [each.kernel for each in step]
        self._parts[id(step)] = range(first, len(self._wrapped))
        return [f"watch_part{number}" for number in self._parts[id(step)]]

    def around(self, program: ProgramSpec, step: Step | Loop | Choice | None, inside: Iterable[str]) -> Iterator[str]:
        """The lines of a step, or of a program, with the calls before and after them."""
        number = len(self.sites)
        self.sites.append(Site(program, step, self._parts.get(id(step), range(0))))
        arguments = f"(i64 {number}, ptr %externals, ptr %sizes, ptr %arena)"
        yield f"  call void @watch_before{arguments}"
        yield from inside
        yield f"  call void @watch_after{arguments}"

    def definitions(self) -> Iterator[str]:
        """What a watched program needs besides itself, once all of it has been emitted."""
        if self._clock is None:
            yield from (f"declare void @{name}(i64, ptr, ptr, ptr)" for name in IMPORTS)
            return
        yield CLOCK.replace("COUNTER", self._clock).replace("SITES", str(len(self.sites)))
        yield f"@watch_parts = global [{len(self._wrapped)} x i64] zeroinitializer, align 64"
        for number, kernel in enumerate(self._wrapped):
            yield PART.replace("COUNTER", self._clock).replace("NUMBER", str(number)).replace("KERNEL", kernel)


CLOCK = """
@watch_table = global [SITES x { i64, i64, i64 }] zeroinitializer, align 64

declare i64 @COUNTER()

define i64 @watch_now() {
  %now = call i64 @COUNTER()
  ret i64 %now
}

define internal void @watch_before(i64 %site, ptr %externals, ptr %sizes, ptr %arena) {
  %now_place = getelementptr { i64, i64, i64 }, ptr @watch_table, i64 %site, i32 2
  %now = call i64 @COUNTER()
  store i64 %now, ptr %now_place, align 8
  ret void
}

define internal void @watch_after(i64 %site, ptr %externals, ptr %sizes, ptr %arena) {
  %now = call i64 @COUNTER()
  %ticks_place = getelementptr { i64, i64, i64 }, ptr @watch_table, i64 %site, i32 0
  %runs_place = getelementptr { i64, i64, i64 }, ptr @watch_table, i64 %site, i32 1
  %began_place = getelementptr { i64, i64, i64 }, ptr @watch_table, i64 %site, i32 2
  %began = load i64, ptr %began_place, align 8
  %took = sub i64 %now, %began
  %ticks = load i64, ptr %ticks_place, align 8
  %more_ticks = add i64 %ticks, %took
  store i64 %more_ticks, ptr %ticks_place, align 8
  %runs = load i64, ptr %runs_place, align 8
  %more_runs = add i64 %runs, 1
  store i64 %more_runs, ptr %runs_place, align 8
  ret void
}
"""

PART = """
define internal void @watch_partNUMBER(i64 %first, i64 %last, ptr %buffers, ptr %sizes) {
  %began = call i64 @COUNTER()
  call void @KERNEL(i64 %first, i64 %last, ptr %buffers, ptr %sizes)
  %ended = call i64 @COUNTER()
  %took = sub i64 %ended, %began
  %place = getelementptr i64, ptr @watch_parts, i64 NUMBER
  %before = atomicrmw add ptr %place, i64 %took monotonic
  ret void
}
"""
