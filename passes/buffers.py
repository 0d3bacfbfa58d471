"""Buffers: where every result lives, and which kernels may run side by side.

A result that is returned is computed straight into the output array, the new value of a variable straight into the
variable where nobody needs the old one afterwards; everything else shares one arena, a slot being used again as soon as
its last reader is done.

What depends on variables alone is computed in steps of its own, which come first and run only after one has changed;
what later steps read of it has memory of its own.

Variables are written after everything that could find a mistake in the call, and after all who read their old values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from tensorc.errors import InternalError
from tensorc.ir import dims
from tensorc.ir.dims import Dim, Size
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import Group, Place, Plan, checked_outputs, memory_of
from tensorc.ir.node import Node
from tensorc.passes.context import Context
from tensorc.passes.fuse import PRODUCTS, is_shift
from tensorc.passes.order import Precedence
from tensorc.passes.steady import may_keep_panels, once, steady_nodes, variables_of

ALIGN = 64
DEFERRED = 1 << 16
"""Elements up to which an update waits for the others, to run beside them."""


def plan_buffers(graph: Graph, context: Context) -> Graph:
    """The graph with places for all its kernels read and write, and its kernels in steps."""
    assert graph.plan is not None
    bodies = {g: tuple(plan_buffers(inner, context) for inner in g.bodies) for g in graph.plan.groups}
    planner = _Planner(graph, bodies, steady_nodes(graph, context))
    planner.choose_results()
    planner.keep()
    first, others = planner.steps()
    arena = planner.allocate(first + others)
    placed = tuple(tuple(map(planner.placed, step)) for step in first + others)
    return replace(graph, plan=Plan(placed, arena, tuple(planner.constants), len(first), tuple(planner.kept),
                                    tuple(planner.watched())))


@dataclass(eq=False)
class _Slot:
    """A piece of the arena while it is handed on."""

    offset: Size
    bytes: Size


class _Planner:
    """One graph's groups, their order, and where results go."""

    def __init__(self, graph: Graph, bodies: Mapping[Group, tuple[Graph, ...]], steady: set[Node]) -> None:
        self.graph = graph
        self.bodies: dict[Group, tuple[Graph, ...]] = dict(bodies)
        groups = list(bodies)
        self.steady = steady
        self.once = once(graph, groups, steady)
        self.kept: list[Node] = []
        self.writer = {n: g for g in groups for n in g.outputs}
        self.constants = list(dict.fromkeys(_in_memory(graph, groups, bodies)))
        self.place: dict[Node, Place] = {p: Place("param", i) for i, p in enumerate(graph.params)}
        self.place |= {c: Place("constant", i) for i, c in enumerate(self.constants)}
        self.copies: dict[Group, Place] = {}
        self.source: dict[Group, Place] = {}
        self.reserved: Size = 0
        self.before: Precedence[Group] = Precedence()
        self.reading: dict[Node, list[Group]] = {}
        for group in groups:
            self.add(group)
        self.checks = [self.writer[o] for o in graph.outputs if o.op.name == "check"]

    def add(self, group: Group) -> None:
        """A group, after those that compute what it reads."""
        self.before.add(group)
        self.before.add_pairs((w, group) for w in self.writers(group) if w is not group)
        for memory in {memory_of(n) for n in group.inputs}:
            self.reading.setdefault(memory, []).append(group)

    def writers(self, group: Group) -> Iterable[Group]:
        return [w for n in group.inputs if (w := self.writer.get(memory_of(n))) is not None]

    def readers(self, node: Node) -> list[Group]:
        """The groups that read a parameter."""
        return [g for g in self.reading.get(node, ()) if g not in self.source]

    def choose_results(self) -> None:
        """Results into outputs and variables; copies where a result is wanted in two places or is only passed on."""
        for i, output in enumerate(self.graph.outputs):
            copied = self.deliver(output, Place("output", i))
            if copied is not None and i in checked_outputs(self.graph):
                self.checks.append(copied)
        moved = {v for v, new in self.graph.updates if memory_of(new) is not v}
        staged = {new: self.stage(new) for _, new in self.graph.updates if memory_of(new) in moved}
        for variable, new in self.graph.updates:
            if variable not in moved:
                continue
            if new not in staged and self.fits_in_place(variable, memory_of(new)):
                self.place[memory_of(new)] = self.place[variable]
                writer = self.writer[memory_of(new)]
            else:
                writer = self.copy(new, self.place[variable], staged.get(new))
            self.before.add_pairs((r, writer) for r in self.readers(variable) if r is not writer)
            self.before.add_pairs((check, writer) for check in self.checks)

    def deliver(self, result: Node, place: Place) -> Group | None:
        """Into `place`: computed there, or by the copy that is returned."""
        memory = memory_of(result)
        if memory in self.writer and memory not in self.place:
            self.place[memory] = place
            return None
        return self.copy(result, place)

    def copy(self, node: Node, place: Place, source: Group | None = None) -> Group:
        """A kernel that moves a value to `place`, from where it lives or from where `source` put it."""
        inputs = () if node.op.name == "constant" and not node.value.ndim else (node,)
        group = Group(f"copy{len(self.copies)}", "copy", (node,), inputs, tuple(s for s in node.shape if s != 1),
                      axes=(_plain_axes(node),))
        self.add(group)
        if source is not None:
            self.source[group] = self.copies[source]
            self.before.add_pairs([(source, group)])
        self.copies[group] = place
        self.bodies[group] = ()
        return group

    def stage(self, node: Node) -> Group:
        """A copy of a variable's old value that survives its update (two variables that are exchanged)."""
        place = Place("arena", offset=self.reserved)
        self.reserved = self.reserved + aligned_bytes(node)
        return self.copy(node, place)

    def fits_in_place(self, variable: Node, new: Node) -> bool:
        """May the kernel that computes `new` write it straight into the variable?"""
        group = self.writer.get(new)
        if group is None or new in self.place:
            return False
        if any(r is not group and self.before.before(group, r) for r in self.readers(variable)):
            return False
        if any(check is group or self.before.before(group, check) for check in self.checks):
            return False
        if not any(memory_of(n) is variable for n in group.inputs):
            return True
        written_early = new.op.kernel is not None          # a bare product, before its epilogue
        return (group.kind in ("map", "column", "matmul", "conv") and not written_early
                and _reads_own_place(group, variable, new))

    def keep(self) -> None:
        """Memory of their own for what is computed once and read in every call."""
        read = {memory_of(n) for group in self.before if group not in self.once for n in group.inputs}
        self.kept += [n for group in self.bodies if group in self.once for n in group.outputs if n in read]
        self.place |= {n: Place("kept", i) for i, n in enumerate(self.kept)}

    def steps(self) -> tuple[list[list[Group]], list[list[Group]]]:
        """Groups in order, first those that run once; neighbours that do not depend on one another share a step."""
        last = {g for g in self.before if self.before.is_last(g) and _is_small(g)}
        order = self.before.ordered(self._rank)
        if len(order) < len(list(self.before)):
            raise InternalError(f"{self.graph.name}: updates of variables wait for one another")
        ordered = [g for g in order if g not in last] + [g for g in order if g in last]
        return (self.side_by_side(g for g in order if g in self.once),
                self.side_by_side(g for g in ordered if g not in self.once))

    def side_by_side(self, groups: Iterable[Group]) -> list[list[Group]]:
        """Groups in this order as steps."""
        steps: list[list[Group]] = []
        for group in groups:
            if steps and not any(self.before.directly_before(g, group) for g in steps[-1]):
                steps[-1].append(group)
            else:
                steps.append([group])
        return steps

    def _rank(self, group: Group) -> tuple[bool, int]:
        return group.kind == "copy", int(group.name.lstrip("kcopy"))

    def allocate(self, steps: list[list[Group]]) -> Size:
        """Arena slots for what has no place yet; returns the arena's bytes."""
        last_use: dict[Node, int] = {}
        for i, step in enumerate(steps):
            for group in step:
                for n in (*group.inputs, *group.outputs):
                    last_use[memory_of(n)] = i
        free: list[_Slot] = []
        held: dict[Node, _Slot] = {}
        top = self.reserved
        for i, step in enumerate(steps):
            for group in step:
                for node in group.outputs if group.kind != "copy" else ():
                    if node in self.place:
                        continue
                    need = aligned_bytes(node)
                    slot = next((s for s in free if _covers(s.bytes, need)), None)
                    if slot is None:
                        slot = _Slot(top, need)
                        top = top + need
                    else:
                        free.remove(slot)
                    held[node] = slot
                    self.place[node] = Place("arena", offset=slot.offset)
            free.extend(held.pop(n) for n in list(held) if last_use[n] <= i)
        return top

    def placed(self, group: Group) -> Group:
        """The group with its places."""
        reads = tuple(self.source.get(group) or self.place[memory_of(n)] for n in group.inputs)
        writes = (self.copies[group],) if group in self.copies else tuple(self.place[n] for n in group.outputs)
        return replace(group, reads=reads, writes=writes, bodies=self.bodies[group], keeps=self.may_keep(group))

    def may_keep(self, group: Group) -> bool:
        """Whether the group has a product that runs in every call, and may keep a copy of its right operand."""
        return group not in self.once and any(n.args[1] in self.steady and may_keep_panels(n) for n in _products(group))

    def watched(self) -> list[Node]:
        """The variables that must be as they were for what is kept to be of use."""
        packed = [n.args[1] for group in self.bodies if self.may_keep(group) for n in _products(group)]
        return variables_of([*self.kept, *packed])


def _products(group: Group) -> list[Node]:
    """The matrix product or the convolution that a group computes, if it does."""
    return [n for n in group.nodes if n.op.kernel in PRODUCTS]


def _in_memory(graph: Graph, groups: Iterable[Group], bodies: Mapping[Group, tuple[Graph, ...]]) -> Iterator[Node]:
    """The constants that are read from memory: arrays, operands of loops, and what the bodies of these read."""
    yield from (n for n in graph.nodes if n.op.name == "constant" and n.value.ndim)
    for group in groups:
        if bodies[group]:
            yield from (n for n in group.inputs if n.op.name == "constant")
        for body in bodies[group]:
            assert body.plan is not None
            yield from body.plan.constants


def aligned_bytes(node: Node) -> Size:
    """Bytes of a node's value, up to whole cache lines; one at least, so that no two values have the same place."""
    return dims.ceildiv(node.type.bytes, ALIGN) * ALIGN or ALIGN


def _plain_axes(node: Node) -> tuple[int | None, ...]:
    at: list[int | None] = []
    for size in node.shape:
        at.append(None if size == 1 else sum(p is not None for p in at))
    return tuple(at)


def _is_small(group: Group) -> bool:
    sizes = dims.product(group.frame)
    return isinstance(sizes, int) and sizes <= DEFERRED and group.kind in ("map", "copy")


def _covers(have: Size, need: Size) -> bool:
    """Is one size at least the other whatever its symbols stand for?"""
    difference = have - need
    if isinstance(difference, Dim):
        return all(c >= 0 for _, c in difference.terms)
    return difference == 0 or isinstance(have, int) and 0 < difference <= have // 4


def _reads_own_place(group: Group, variable: Node, new: Node) -> bool:
    """Is the variable read only at the element that is being replaced?"""
    nodes = group.nodes
    if any(is_shift(n) or n.op.name == "transpose" for n in nodes):
        return False
    readers = [n for n in nodes if any(memory_of(a) is variable for a in n.args)]
    return all(n.op.way == "scalar" and n.shape == new.shape and variable.shape == new.shape
               and not any(memory_of(a) is variable and a is not variable for a in n.args) for n in readers)
