"""The buffers that a program finds outside of its arena, and their order."""

from __future__ import annotations

from collections.abc import Iterable

from tensorc.codegen.places import External
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import Place
from tensorc.ir.node import Node

STATE = 16
"""Bytes of what is known of the buffers that are kept."""


class Externals:
    """The external buffers of a planned graph's program.

    They are the parameters, the constants, the outputs; where anything may be kept from call to call, what is known of
    that and the buffers that are kept; the numbers of changes of variables.  What is kept is known when all kernels
    are, so the rest may be asked for only then.

    Attributes:
        constants: where each constant is.
        kept: bytes of each buffer that is kept, the state of the others being the first.
    """

    def __init__(self, graph: Graph) -> None:
        plan = graph.plan
        assert plan is not None
        constants = len(graph.params)
        outputs = constants + len(plan.constants)
        self.state = outputs + len(graph.outputs)
        self._first = {"param": 0, "constant": constants, "output": outputs, "kept": self.state + 1}
        self._number = {p: i for i, p in enumerate(graph.params)}
        self._watched = plan.watched
        self._updated = tuple(variable for variable, _ in graph.updates)
        self.constants = {c: External(constants + i) for i, c in enumerate(plan.constants)}
        self.kept: list[Size] = [STATE, *(n.type.bytes for n in plan.kept)] if plan.keeps else []

    def of(self, place: Place) -> External:
        """A place of the plan that is not in the arena."""
        return External(self._first[place.kind] + place.index)

    def keep(self, bytes: Size) -> External:
        """Fresh memory that is kept."""
        self.kept.append(bytes)
        return External(self.state + len(self.kept) - 1)

    @property
    def counted(self) -> tuple[int, ...]:
        """The parameters whose numbers of changes are the last externals."""
        return tuple(sorted({self._number[v] for v in (*self._updated, *self._watched)}))

    @property
    def count(self) -> int:
        """How many buffers there are."""
        return self.state + len(self.kept) + len(self.counted)

    @property
    def watched(self) -> tuple[int, ...]:
        """The numbers of changes of variables on which that depends what is kept."""
        return self._changes(self._watched)

    @property
    def updated(self) -> tuple[int, ...]:
        """The numbers of changes of the variables that the program changes."""
        return self._changes(self._updated)

    def _changes(self, variables: Iterable[Node]) -> tuple[int, ...]:
        first = self.count - len(self.counted)
        return tuple(first + self.counted.index(self._number[v]) for v in variables)
