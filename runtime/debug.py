"""What is told of each program as it is made: what TENSORC_DEBUG asks for, on the standard error stream.

    tensorc: step: compiled in 214.3 ms (passes 31.0, assemble 22.1, compile 158.2, load 3.0): 38 nodes, 11 kernels; …
    tensorc:   simplify        4.1 ms     38 → 25 nodes   AddZero 2, MulOne 1
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from tensorc import settings
from tensorc.ir.graph import Graph
from tensorc.ir.text import dump, several

if TYPE_CHECKING:
    from tensorc.passes.context import Context
    from tensorc.runtime.program import Program

INDENT = "  "


def tell(text: str) -> None:
    """Writes lines, each marked as one of these."""
    for line in text.splitlines():
        print(f"tensorc: {line}".rstrip(), file=sys.stderr)


def tell_program(program: Program, how: str) -> None:
    """Tells of a program that is new in this process, as much as is asked for.

    Args:
        how: where it comes from.
    """
    level = settings.debug()
    if not level:
        return
    times = program.times
    spent = ", ".join(f"{stage} {1e3 * seconds:.1f}" for stage, seconds in times.items())
    kept = "" if "compile" not in times else "; kept in the store" if program.is_kept else "; not kept in the store"
    tell(f"{program.graph.name}: {how} in {1e3 * sum(times.values()):.1f} ms ({spent}): "
         f"{several(len(program.graph.nodes), 'node')}, {several(program.kernels, 'kernel')}{kept}")
    if level >= 2:
        planned = program.planned
        tell("\n".join(INDENT + line for line in program.passes_told))
    if level >= 3:
        tell(dump(planned))
        tell(program.loops())
    if level >= 4:
        for text in program.texts():
            tell(text)


def tell_shared(graph: Graph, program: Program) -> None:
    """Tells that a function needs no program of its own."""
    if settings.debug():
        other = program.graph.name
        tell(f"{graph.name}: shares the program of {'another ' if other == graph.name else ''}{other}")


class PassLog:
    """What each pass took, and how often its rules fired, as lines.

    Args:
        context: that of the passes, which then tells this.
    """

    def __init__(self, context: Context) -> None:
        self.lines: list[str] = []
        self._context = context
        self._fired: Counter[str] = Counter()
        self._nodes = 0
        self._start = time.perf_counter()
        context.observers = (*context.observers, self._observe)

    def _observe(self, name: str, graph: Graph) -> None:
        seconds = time.perf_counter() - self._start
        nodes = len(graph.nodes)
        fired = self._context.firings - self._fired
        if name != "input":
            rules = ", ".join(f"{rule} {n}" for rule, n in sorted(fired.items()))
            self.lines.append(f"{name:<10} {1e3 * seconds:8.1f} ms {self._nodes:>6} → {nodes} nodes   {rules}".rstrip())
        self._nodes, self._fired = nodes, Counter(self._context.firings)
        self._start = time.perf_counter()
