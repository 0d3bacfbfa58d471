"""The plan that fusion adds to a graph: which kernels run, in which order, and where results live."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph, postorder, replace_nodes
from tensorc.ir.node import Node

ROWS = "rows__"
"""The size that stands, in the body of a loop that runs for some rows of a batch at a time, for how many these are."""


@dataclass(frozen=True)
class Place:
    """Where a value lives: parameter, constant or output number `index`, or `offset` bytes into the program's arena.

    A value that is kept from call to call has memory of its own, number `index` among them.
    """

    kind: str                       # "param", "constant", "output", "kept" or "arena"
    index: int = -1
    offset: Size = 0

    def __str__(self) -> str:
        return f"{self.kind}[{self.offset if self.kind == 'arena' else self.index}]"


@dataclass(frozen=True, eq=False)
class Group:
    """Nodes that run as one kernel: everything between `inputs`, read from memory, and `outputs`, written to it.

    `kind` is `map` (no reduction), `row` (reductions over the innermost axes, whose results may be used again in
    the same row), `column` (other reductions), `along` (cumulative), `matmul` (a matrix product and what follows it
    elementwise), `conv` (the same of a convolution), `scatter` (rows added at places that come from data), `sparse` (an
    operation on the arrays of a sparse matrix), `written` (an operation that writes its own loops, such as a
    recursion over the steps of sequences), `loop` (the results of one `scan`), `choice` (those of one `cond`) or
    `copy`.  `frame` holds the sizes of the loops (sizes of 1 left out) and `reduced` the positions of those that are
    reductions; `axes` says for each axis of each output which loop it follows (None: size 1).  A product that `keeps`
    has a right operand that stays as it is from call to call, of which it may keep a copy that is laid out for it.
    """

    name: str
    kind: str
    outputs: tuple[Node, ...]
    inputs: tuple[Node, ...]
    frame: tuple[Size, ...] = ()
    reduced: frozenset[int] = frozenset()
    axes: tuple[tuple[int | None, ...], ...] = ()
    reads: tuple[Place, ...] = ()   # of inputs, once buffers are planned
    writes: tuple[Place, ...] = ()  # of outputs
    bodies: tuple[Graph, ...] = ()  # the graphs that a loop or a choice runs, with plans of their own
    keeps: bool = False
    batch: Size | None = None       # the rows that threads share in a loop, whose body is for ROWS of them

    @property
    def nodes(self) -> list[Node]:
        """The nodes computed here, operands first."""
        return [] if self.kind == "copy" else postorder(self.outputs, self.inputs)


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps in order; the groups of a step do not depend on one another and run side by side.

    The first `once` steps compute what depends on variables alone.  They run in the first call and after one of these
    has changed; what the others read of their results is `kept`.  `watched` are those variables, and the ones that the
    right operands of products that keep panels depend on.
    """

    steps: tuple[tuple[Group, ...], ...]
    arena: Size = 0                 # bytes
    constants: tuple[Node, ...] = ()
    once: int = 0
    kept: tuple[Node, ...] = ()
    watched: tuple[Node, ...] = ()

    def is_once(self, group: Group) -> bool:
        """Whether a group runs only after a variable has changed."""
        return any(group in step for step in self.steps[:self.once])

    @property
    def keeps(self) -> bool:
        """Whether anything may be kept from call to call."""
        return bool(self.kept) or any(g.keeps for g in self.groups)

    @property
    def groups(self) -> tuple[Group, ...]:
        return tuple(g for step in self.steps for g in step)


def named_groups(graph: Graph, prefix: str = "", batch: Size | None = None) -> Iterator[tuple[str, Group, Graph]]:
    """The groups of a planned graph, and after each those of the bodies that it runs.

    With every group comes its name in the program, and the graph that it is of.  The nodes of a group are those of the
    graph's text: where a body is planned for ROWS rows, what they are of all rows, of which there are `batch`.
    """
    for group in graph.plan.groups if graph.plan else ():
        name = prefix + group.name
        yield name, group if batch is None else _of_all_rows(group, batch), graph
        for i, body in enumerate(group.bodies):
            yield from named_groups(body, prefix_of_body(name, i), group.batch if batch is None else batch)


def _of_all_rows(group: Group, batch: Size) -> Group:
    """A group of a body with the nodes that these are for all rows at once."""
    nodes = (*group.outputs, *group.inputs)
    made = replace_nodes(nodes, {}, {ROWS: batch})
    return replace(group, outputs=tuple(made[:len(group.outputs)]), inputs=tuple(made[len(group.outputs):]))


def prefix_of_body(group: str, number: int) -> str:
    """What the names of the kernels begin with that are of a loop's body, or of a branch of a choice."""
    return f"{group}_{number}_" if number else f"{group}_"


def memory_of(node: Node) -> Node:
    """The node whose memory this one shares: views are looked through."""
    while node.op.view:
        node = node.args[0]
    return node


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes a reduction removes: `axes`, or the `axis` of an arg-reduction."""
    axes: tuple[int, ...] = node.axes if "axes" in node.attrs else (node.axis,)
    return axes


def checked_outputs(graph: Graph) -> list[int]:
    """The outputs that say where a check has found something: each stands before the `check` itself."""
    return [i - 1 for i, output in enumerate(graph.outputs) if output.op.name == "check"]
