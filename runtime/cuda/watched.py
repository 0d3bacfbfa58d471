"""What is looked into on a GPU: a program of one function's own graph, and the numbers of what it does."""

from __future__ import annotations

from collections.abc import Iterator

from tensorc.codegen.spec import Choice, Launch, Loop, ProgramSpec, Site
from tensorc.ir.graph import Graph
from tensorc.passes.manager import Pipeline
from tensorc.runtime.cuda.program import CudaProgram
from tensorc.runtime.walk import What


class WatchedOnGpu(CudaProgram):
    """A program with the names and lines of its graph, which is never stored or shared.

    Args:
        tf32: whether libraries may round operands where that was asked for.
    """

    def __init__(self, graph: Graph, pipeline: Pipeline | None, tf32: bool = True) -> None:
        self._set(graph, pipeline)
        self._tf32 = self._tf32 and tf32
        self._take(self._compile())


class Sites:
    """All that a program does, and the programs in it, one launch at a time, numbered.

    Attributes:
        all: what is at each number.
    """

    def __init__(self, spec: ProgramSpec) -> None:
        self.all = list(_sites(spec))
        self._numbers = {_key(site.program, _what(site)): number for number, site in enumerate(self.all)}

    def number(self, program: ProgramSpec, what: What) -> int:
        return self._numbers[_key(program, what)]


def _sites(spec: ProgramSpec) -> Iterator[Site]:
    yield Site(spec, None)
    for step in spec.steps:
        if isinstance(step, tuple):
            yield from (Site(spec, (launch,)) for launch in step)
            continue
        yield Site(spec, step)
        for body in (step.body,) if isinstance(step, Loop) else step.bodies:
            yield from _sites(body)


def _what(site: Site) -> What:
    """A launch alone is no step, but it is what a walk tells of."""
    return site.step if isinstance(site.step, Loop | Choice | None) else site.step[0]


def _key(program: ProgramSpec, what: Launch | Loop | Choice | None) -> tuple[int, int]:
    return id(program), id(what)
