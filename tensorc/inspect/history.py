"""The history of one function: its graph after every pass, and how each node came about.

    found, status = functions_of(Path("train.py"))      # tensorc.inspect.found
    history = trace(found[0].graph, found[0].pipeline)

    for stage in history.stages:                        # "input", then every pass
        for block in stage.blocks:                      # the bodies of loops, then the graph itself
            for node in block.nodes:
                print(block.line(node))                 # %3: f32[n,10] = add(%2, b)
                stage.came[node]                        # Came(how="made", source=…, rules=("LogSumExp",))
                stage.lines(node)                       # the user's lines
    history.stages[-1].kernels.of(node)                 # what the node became: see tensorc.inspect.kernels

Nodes are interned: one that a pass left alone is the same object in the stages before and after, and `came` and `went`
say how the others are related.  `history.back(node, i)` and `history.forth(node, i)` follow one through the stages.

The names of nodes are those of the dump after the same pass: numbers start anew in every stage and every block, so a
name says something together with its stage.  A node of a body is written `body0:%3`.
"""

from __future__ import annotations

import difflib
import functools
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tensorc.errors import ArgumentError
from tensorc.inspect.kernels import Kernels
from tensorc.inspect.origins import Came, Went, origins
from tensorc.ir.graph import Graph, Location
from tensorc.ir.node import Node
from tensorc.ir.text import bodies, dump, labels, placings, statement, unnamed
from tensorc.passes.context import Context, Event
from tensorc.passes.manager import Pipeline
from tensorc.passes.rewrite import Fired, Missed, Rewrite

INPUT = "input"


@dataclass(frozen=True)
class Block:
    """One of the graphs that stand in a dump: the body of a loop or a branch of a choice, or the function itself.

    Attributes:
        title: "body0", or "" for the function itself.
        graph: the graph.
        bodies: what the text calls the bodies that it runs.
        names: the name of every node that has one.
        places: what the plan says of nodes, such as "k0 → output[0]"; empty before fusion.
    """

    title: str
    graph: Graph
    bodies: Mapping[Graph, str] = field(repr=False)
    names: Mapping[Node, str] = field(repr=False)
    places: Mapping[Node, str] = field(repr=False)

    @functools.cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that have a line in the text, in its order."""
        return tuple(n for n in self.graph.nodes if not unnamed(n))

    def line(self, node: Node) -> str:
        """A node's line: `%3: f32[n,10] = add(%2, b)`."""
        return statement(node, self.names, self.bodies)

    def name(self, node: Node) -> str:
        """A node's name in the whole dump: `%3`, `body0:%3`, `x`."""
        return f"{self.title}:{self.names[node]}" if self.title else self.names[node]


@dataclass(frozen=True)
class Stage:
    """The graph after one pass.

    Attributes:
        name: of the pass; "input" for the graph as it was built.
        graph: the graph.
        notes: what passes have said of nodes.
        came: for every node, and those that were there for a while within the pass, where it comes from.
        went: for every node of the stage before, and those within the pass, what became of it.
        fired, missed: the rewrites of the pass, in order; misses of those rules alone that were asked about.
        seconds: that the pass took.
    """

    name: str
    graph: Graph
    notes: Mapping[Node, str] = field(default_factory=dict, repr=False)
    came: Mapping[Node, Came] = field(default_factory=dict, repr=False)
    went: Mapping[Node, Went] = field(default_factory=dict, repr=False)
    fired: tuple[Fired, ...] = field(default=(), repr=False)
    missed: tuple[Missed, ...] = field(default=(), repr=False)
    seconds: float = 0

    @property
    def when(self) -> str:
        """When the graph is so, in words."""
        return "as it was built" if self.name == INPUT else f"after {self.name}"

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The graphs of the dump, in its order: the function itself comes last."""
        inside, places = bodies(self.graph), placings(self.graph)
        graphs = [*((name, body) for body, name in inside.items()), ("", self.graph)]
        return tuple(Block(title, g, inside, labels(g), places.get(g, {})) for title, g in graphs)

    @functools.cached_property
    def text(self) -> str:
        """The graph's dump."""
        return dump(self.graph, notes=self.notes)

    @functools.cached_property
    def kernels(self) -> Kernels:
        """The kernels of the graph; of the last stage only, which has a plan."""
        return Kernels(self.graph)

    @functools.cached_property
    def _blocks_of(self) -> Mapping[Node, Block]:
        return {n: block for block in self.blocks for n in block.names}

    def block(self, node: Node) -> Block | None:
        """The block in which a node stands; None for one that is in no line of its own, or not of this stage."""
        return self._blocks_of.get(node)

    def title_of(self, node: Node) -> str:
        """The title of the block in which a node stands."""
        block = self.block(node)
        return "" if block is None else block.title

    def name_of(self, node: Node) -> str:
        """A node's name in the dump of this stage."""
        block = self.block(node)
        return repr(node) if block is None else block.name(node)

    def line_of(self, node: Node) -> str:
        """A node's line in the dump of this stage, without comment; of a parameter, its name and type."""
        block = self.block(node)
        if block is None:
            return repr(node)
        return f"{block.names[node]}: {node.type}" if unnamed(node) else block.line(node)

    def lines(self, node: Node) -> tuple[Location, ...]:
        """The user's lines behind a node."""
        return self.graph.provenance.get(node, ())

    def node(self, name: str) -> Node:
        """The node of a name, such as `%3`, `3`, `body0:%3` or `x`.  Raises ArgumentError."""
        named = {block.name(n): n for block in self.blocks for n in block.names}
        wanted = name.removeprefix("graph:")
        for spelled in (wanted, f"%{wanted}", wanted.replace(":", ":%")):
            if spelled in named:
                return named[spelled]
        near = difflib.get_close_matches(name, named, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {_range(list(named))}"
        raise ArgumentError(f"{self.graph.name} has no node {name!r} {self.when}; {hint}")


@dataclass(frozen=True)
class History:
    """A function on its way through its pipeline.

    Attributes:
        stages: the graph as it was built, and after every pass.
        rules: the rewrites that were there to fire, by name.
        failure: what the pass after the last stage raised, if one did.
    """

    pipeline: Pipeline
    stages: tuple[Stage, ...]
    rules: Mapping[str, Rewrite] = field(default_factory=dict, repr=False)
    failure: Exception | None = None

    def index(self, name: str | None) -> int:
        """The place of a stage by the name of its pass; None for the last.  Raises ArgumentError."""
        names = [stage.name for stage in self.stages]
        if name is None or name not in names:
            return len(names) - 1 if name is None else self.pipeline.index(name) + 1
        return names.index(name)

    def back(self, node: Node, stage: int) -> list[tuple[int, Node]]:
        """Where a node of a stage comes from: (stage, node), the oldest first, the node itself last."""
        path = [(stage, node)]
        while path[0][0] > 0:
            i, node = path[0]
            source = self.stages[i].came[node].source
            if source is None:
                break
            path.insert(0, (i - 1, source))
        return path

    def forth(self, node: Node, stage: int) -> list[tuple[int, Node]]:
        """What becomes of a node of a stage: (stage, node), the node itself first, as long as there is something."""
        path = [(stage, node)]
        for i in range(stage + 1, len(self.stages)):
            target = self.stages[i].went[path[-1][1]].target
            if target is None:
                break
            path.append((i, target))
        return path


def trace(graph: Graph, pipeline: Pipeline, asked: Collection[str] = ()) -> History:
    """The history of a graph.

    Args:
        asked: rewrites of which near misses are wanted.
    """
    events: list[Event] = []
    stages: list[Stage] = []
    start = time.perf_counter()

    def observe(name: str, after: Graph) -> None:
        nonlocal start
        seconds = time.perf_counter() - start
        related = origins(name, stages[-1].graph if stages else after, after, events)
        stages.append(Stage(
            name, after, dict(context.notes), related.came, related.went,
            tuple(e for e in events if isinstance(e, Fired)), tuple(e for e in events if isinstance(e, Missed)),
            seconds if name != INPUT else 0,
        ))
        events.clear()
        start = time.perf_counter()

    context = Context(trace=events, asked=asked, observers=(observe,))
    failure = None
    try:
        pipeline.run(graph, context)
    except Exception as error:
        if not stages:
            raise
        failure = error
    return History(pipeline, tuple(stages), context.applied, failure)


def _range(names: list[str]) -> str:
    """Names, or the first and the last of many."""
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:3])} … {names[-1]}"
