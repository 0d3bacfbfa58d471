"""What the passes of one compilation share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, MutableSequence
from dataclasses import dataclass, field, replace
from typing import Any

from tensorc.ir.graph import Graph
from tensorc.ir.node import Node
from tensorc.passes.rewrite import Fired, Missed, Rebuilt, Rewrite
from tensorc.passes.target import TARGETS, Target

Event = Fired | Rebuilt | Missed


@dataclass
class Context:
    """What passes may ask of one compilation, and what they tell about it.

    Attributes:
        target: "cpu" or "cuda".
        options: what the user asked for, by name.
        trace: where given, what rewrites do is appended to it, and where one nearly did.
        asked: the rules whose near misses are traced, which takes time; None for all.
        observers: each hears (name, graph) before the first pass, as "input", and after every pass.
        firings: how often each rule fired.
        applied: where there is a trace, the rules that were there to fire.
        notes: what a pass has to say of a node that is left in the graph, for the dump.
    """

    target: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    trace: MutableSequence[Event] | None = None
    asked: Collection[str] | None = None
    observers: tuple[Callable[[str, Graph], None], ...] = ()
    firings: Counter[str] = field(default_factory=Counter)
    notes: dict[Node, str] = field(default_factory=dict)
    applied: dict[str, Rewrite] = field(default_factory=dict)

    @property
    def machine(self) -> Target:
        """What is known of the target."""
        return TARGETS[self.target]

    def observe(self, name: str, graph: Graph) -> None:
        """Tells every observer."""
        for observer in self.observers:
            observer(name, graph)

    def asks(self, rule: str) -> bool:
        """Whether near misses of a rule are wanted."""
        return self.trace is not None and (self.asked is None or rule in self.asked)

    def attempt(self) -> Context:
        """A context for work that may be given up: `accept` takes over what it tells."""
        return replace(self, trace=None if self.trace is None else [], firings=Counter(), notes=dict(self.notes))

    def accept(self, attempt: Context) -> None:
        """What an attempt has told becomes part of this."""
        if self.trace is not None:
            self.trace.extend(attempt.trace or ())
        self.firings += attempt.firings
        self.notes.update(attempt.notes)


Pass = Callable[[Graph, Context], Graph]
