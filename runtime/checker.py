"""What watches a program and holds each of its kernels against the references of its nodes.

Before a step, the references of its groups are computed on what memory holds; after it, memory is compared with them.
So a kernel is judged by its own work alone.  Of loops and choices, whose kernels are checked one by one, it is what
they hand on that is compared.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorc.codegen.cpu.assemble import Assembly
from tensorc.codegen.cpu.watch import Site
from tensorc.codegen.spec import Choice, Loop, ProgramSpec
from tensorc.errors import CheckError
from tensorc.ir import dims
from tensorc.ir.graph import Graph, Location
from tensorc.ir.kernels import Group, Place, memory_of, named_groups
from tensorc.ir.node import Node
from tensorc.ir.text import bodies, inline, labels, operand, shown_graphs, statement, unnamed
from tensorc.ir.types import numpy_kind
from tensorc.runtime import verdict

Array = np.ndarray[Any, Any]

FAULT = "  this is a fault of the compiler"


@dataclass(frozen=True, eq=False)
class _Work:
    """A group of the plan, its name in the program, the planned graph it is of, and the one that the text shows."""

    name: str
    group: Group
    planned: Graph
    graph: Graph


@dataclass(eq=False)
class _Running:
    """A loop or a choice that is under way.

    Attributes:
        operands: of its node, as they were before.
        step: the number of the present step, or of the branch.
        states: what the next step is to find.
        rows: of each step, what it keeps.
    """

    work: _Work
    operands: list[Array]
    step: int = -1
    states: list[Array] = field(default_factory=list)
    rows: list[list[Array]] = field(default_factory=list)


class Memory:
    """What lies in a program's memory at some moment: the values at the places of a plan."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int], externals: int, arena: int) -> None:
        assert graph.plan is not None
        first = len(graph.params)
        self._first = {"param": 0, "constant": first, "output": first + len(graph.plan.constants)}
        self._sizes, self._externals, self._arena = sizes, externals, arena

    def at(self, place: Place, node: Node) -> Array:
        """A copy of the value of a node that lies at a place."""
        shape = tuple(dims.evaluate(size, self._sizes) for size in node.shape)
        count = int(np.prod(shape, dtype=np.int64)) * node.dtype.size
        if not count:
            return np.empty(shape, node.dtype.numpy)
        if place.kind == "arena":
            address = self._arena + dims.evaluate(place.offset, self._sizes)
        else:
            entry = self._externals + 8 * (self._first[place.kind] + place.index)
            address = ctypes.c_void_p.from_address(entry).value or 0
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address))
        return raw.view(node.dtype.numpy).reshape(shape).copy()


class Checker:
    """Compares what one program does.

    `before` and `after` are called round each of its sites.  The first difference is kept as `error`; from then on,
    until `begin`, nothing is compared.

    Args:
        name: the function.
        graph: the planned graph.
    """

    def __init__(self, name: str, graph: Graph, assembly: Assembly, sites: Sequence[Site]) -> None:
        self.error: BaseException | None = None
        self._name = name
        shown = shown_graphs(graph)
        self._work = {n: _Work(n, group, inside, shown[id(inside)]) for n, group, inside in named_groups(graph)}
        self._graphs = _graphs(assembly.spec, graph, self._work)
        self._starts, self._ends = self._spans(assembly, sites)
        self._sites = sites
        self._expected: dict[str, dict[Node, Array]] = {}
        self._running: list[_Running] = []

    def _spans(self, assembly: Assembly, sites: Sequence[Site]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
        """For each site, the groups whose first launch is there, and those whose last one is.

        What is packed ahead for the body of a loop is none of the program around it.
        """
        of_kernel = {each.kernel.name: group.name for group, kernels in assembly.lowered for each in kernels}
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for number, site in enumerate(sites):
            for launch in site.step if isinstance(site.step, tuple) else ():
                name = of_kernel[launch.source]
                if self._work[name].planned is self._graphs[id(site.program)]:
                    first.setdefault(name, number)
                    last[name] = number
        return _inverted(first), _inverted(last)

    def begin(self) -> None:
        """A new run."""
        self.error = None
        self._expected.clear()
        self._running.clear()

    def before(self, number: int, externals: int, sizes: int, arena: int) -> None:
        """The step of a site is about to run."""
        self._quietly(self._before, number, externals, sizes, arena)

    def after(self, number: int, externals: int, sizes: int, arena: int) -> None:
        """The step of a site has run."""
        self._quietly(self._after, number, externals, sizes, arena)

    def _quietly(self, look: Callable[[Site, int, Memory, dict[str, int]], None], number: int, externals: int,
                 sizes: int, arena: int) -> None:
        """Looks, unless something was found already.  Native code knows no exceptions, so they are kept."""
        if self.error is not None:
            return
        try:
            site = self._sites[number]
            names = site.program.sizes
            known = dict(zip(names, (ctypes.c_int64 * len(names)).from_address(sizes), strict=True)) if names else {}
            look(site, number, Memory(self._graphs[id(site.program)], known, externals or 0, arena or 0), known)
        except BaseException as error:
            self.error = error

    def _before(self, site: Site, number: int, memory: Memory, sizes: dict[str, int]) -> None:
        if isinstance(site.step, Loop | Choice):
            work = self._work[site.step.source]
            self._running.append(_Running(work, _operands(work.group, memory)))
        elif site.step is None:
            if self._running:
                self._enter(self._running[-1], self._graphs[id(site.program)], memory)
        else:
            for name in self._starts.get(number, ()):
                work = self._work[name]
                given = {n: memory.at(place, n) for n, place in zip(work.group.inputs, work.group.reads, strict=True)}
                self._expected[name] = verdict.evaluate(_computed(work.group), given, sizes)

    def _after(self, site: Site, number: int, memory: Memory, sizes: dict[str, int]) -> None:
        if isinstance(site.step, Loop | Choice):
            self._leave(self._running[-1], memory)
            self._running.pop()
        elif site.step is None:
            if self._running:
                self._keep(self._running[-1], self._graphs[id(site.program)], memory)
        else:
            for name in self._ends.get(number, ()):
                self._judge(self._work[name], self._expected.pop(name), memory, sizes)

    # -- kernels

    def _judge(self, work: _Work, values: Mapping[Node, Array], memory: Memory, sizes: dict[str, int]) -> None:
        """Raises CheckError where a group has not computed what its references do, or makes a NaN."""
        group = work.group
        for node, place in zip(group.outputs, group.writes, strict=True):
            found, wanted = memory.at(place, node), values[node]
            if verdict.almost_equal(found, wanted).all():
                continue
            given = {n: values[n] for n in group.inputs}
            others = [verdict.evaluate(_computed(group), given, sizes, nudge)[node]
                      for nudge in verdict.nudges()]
            tolerance = verdict.allowed(wanted, others)
            fine = verdict.within(found, wanted, tolerance)
            if not fine.all():
                raise CheckError(self._difference(work, node, found, wanted, tolerance, fine))
        read, written = ([values[n] for n in nodes] for nodes in (group.inputs, group.outputs))
        if any(map(_has_nan, written)) and not any(map(_has_nan, read)):
            raise CheckError(self._first_nan(work, values))

    def _difference(self, work: _Work, node: Node, found: Array, wanted: Array, tolerance: Array, fine: Array) -> str:
        """What a kernel has computed in place of what."""
        much = tolerance[verdict.first(~fine)]
        allowed = f" ({much:.1e} more or less is allowed)" if numpy_kind(wanted.dtype) == "f" else ""
        return "\n".join([
            f"{self._name}: kernel {work.name} does not compute what its reference does{self._when()}",
            *self._told(work, node),
            f"  {verdict.difference(found, wanted, ~fine)}{allowed}",
            FAULT,
        ])

    def _first_nan(self, work: _Work, values: Mapping[Node, Array]) -> str:
        """Where a NaN comes from: the first node of a group that makes one of numbers."""
        node = next(n for n in work.group.nodes if _has_nan(values[n]) and not any(_has_nan(values[a]) for a in n.args))
        nan = np.isnan(values[node])
        at = verdict.first(nan)
        return "\n".join([
            f"{self._name}: {node.op.name} makes a NaN in kernel {work.name}{self._when()}",
            *self._told(work, node),
            f"  {verdict.counted(nan, 'are NaN')}, the first{verdict.placed(at)}",
            *(f"  {_value(work, a, values[a], values[node].shape, at)}" for a in node.args),
        ])

    def _told(self, work: _Work, node: Node) -> Iterator[str]:
        """The node as the dump after all passes has it, and the user's lines."""
        yield f"  {_line(work, node)}"
        lines = _lines(work, node)
        around = [run.work for run in reversed(self._running)]
        if not lines and around:
            lines = _lines(around[0], around[0].group.outputs[0])
        yield from dict.fromkeys(f"  {line.call} at {line}" if line.call else f"  at {line}" for line in lines)

    def _when(self) -> str:
        """In which step of which loop."""
        loops = [f"step {run.step} of loop {run.work.name}" for run in self._running if run.work.group.kind == "loop"]
        return f", in {' in '.join(reversed(loops))}" if loops else ""

    # -- loops and choices

    def _enter(self, run: _Running, body: Graph, memory: Memory) -> None:
        """A step, or a branch, is about to run: it must find what belongs to it."""
        node = run.work.group.outputs[0]
        run.step += 1
        found = [memory.at(Place("param", i), p) for i, p in enumerate(body.params)]
        if run.work.group.kind == "choice":
            run.step = 0 if run.operands[0] else 1
            wanted = run.operands[1:]
            if body is not run.work.group.bodies[run.step]:
                raise CheckError(f"{self._name}: choice {run.work.name} takes the wrong branch")
        else:
            rows, states = node.sequences, node.states
            if run.step == 0:
                run.states = run.operands[rows:rows + states]
            at = len(run.operands[0]) - 1 - run.step if node.reverse and rows else run.step
            wanted = [*(x[at] for x in run.operands[:rows]), *run.states, *run.operands[rows + states:]]
        for param, have, want in zip(body.params, found, wanted, strict=True):
            self._same(run.work, f"finds {param.name}", have, want)

    def _keep(self, run: _Running, body: Graph, memory: Memory) -> None:
        """A step, or a branch, has run: what it has made."""
        node = run.work.group.outputs[0]
        choice = run.work.group.kind == "choice"
        whole: Graph = (node.otherwise if run.step else node.then) if choice else node.body
        values = [memory.at(Place("output", i), out) for i, out in enumerate(body.outputs)]
        made = dict(zip(dict.fromkeys(whole.outputs), values, strict=True))
        results = [made[out] for out in whole.outputs]
        if not choice:
            run.states, results = results[:node.states], results[node.states:]
        run.rows.append(results)

    def _leave(self, run: _Running, memory: Memory) -> None:
        """A loop or a choice is done: its results must be what its steps have made."""
        for node, place in zip(run.work.group.outputs, run.work.group.writes, strict=True):
            if run.work.group.kind == "choice":
                wanted = run.rows[0][node.result]
            elif node.result < node.states:
                wanted = run.states[node.result] if run.rows else run.operands[node.sequences + node.result]
            else:
                steps = [row[node.result - node.states] for row in run.rows]
                found = memory.at(place, node)
                wanted = np.stack(steps[::-1] if node.reverse else steps) if steps else np.empty_like(found)
            self._same(run.work, f"hands on result {node.result}", memory.at(place, node), wanted)

    def _same(self, work: _Work, what: str, found: Array, wanted: Array) -> None:
        """Raises CheckError unless two values are the same to the bit."""
        if found.tobytes() != wanted.tobytes():
            head = f"{self._name}: {work.group.kind} {work.name} {what} wrong{self._when()}"
            raise CheckError("\n".join([head, *self._told(work, work.group.outputs[0]), FAULT]))


def _graphs(program: ProgramSpec, graph: Graph, work: Mapping[str, _Work]) -> dict[int, Graph]:
    """The graph of a program and of those in it, by the ids of these."""
    found = {id(program): graph}
    for step in program.steps:
        if isinstance(step, Loop | Choice):
            inner = (step.body,) if isinstance(step, Loop) else step.bodies
            for each, body in zip(inner, work[step.source].group.bodies, strict=True):
                found |= _graphs(each, body, work)
    return found


def _inverted(places: Mapping[str, int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, number in places.items():
        found.setdefault(number, []).append(name)
    return found


def _computed(group: Group) -> Sequence[Node]:
    """The nodes that a group computes; of a copy, what it copies."""
    return group.nodes or group.outputs


def _operands(group: Group, memory: Memory) -> list[Array]:
    """The operands of a loop, or of a choice."""
    read = {memory_of(n): place for n, place in zip(group.inputs, group.reads, strict=True)}
    return [memory.at(read[memory_of(a)], a) for a in group.outputs[0].args]


def _has_nan(x: Array) -> bool:
    return numpy_kind(x.dtype) == "f" and bool(np.isnan(x).any())


def _line(work: _Work, node: Node) -> str:
    """The node as the dump after all passes has it."""
    names = labels(work.graph)
    return operand(node, names) if unnamed(node) else statement(node, names, bodies(work.graph))


def _lines(work: _Work, node: Node) -> Sequence[Location]:
    return work.graph.provenance.get(node, ())


def _value(work: _Work, node: Node, x: Array, shape: tuple[int, ...], at: tuple[int, ...]) -> str:
    """An operand: its element at an index of the result where the shapes allow, else what it lies between."""
    name = operand(node, labels(work.graph))
    if inline(node):
        return name
    if x.size == 1:
        return f"{name} is {x.reshape(-1)[0]!s}"
    if x.shape == shape:
        return f"{name} is {x[at]!s} there"
    infinite = "" if numpy_kind(x.dtype) != "f" or np.isfinite(x).all() else ", some of it infinite"
    return f"{name} is from {x.min()!s} to {x.max()!s}{infinite}"
