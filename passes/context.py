"""What the passes of one compilation share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, MutableSequence
from dataclasses import dataclass, field
from typing import Any

from tensorc.ir.graph import Graph
from tensorc.ir.node import Node
from tensorc.passes.rewrite import Fired, Missed


@dataclass
class Context:
    """What passes may ask of one compilation, and what they tell about it.

    Attributes:
        target: "cpu" or "cuda".
        options: what the user asked for, by name.
        trace: where given, every rewrite that fired and every near miss is appended to it.
        observers: each hears (name, graph) before the first pass, as "input", and after every pass.
        firings: how often each rule fired.
        notes: what a pass has to say of a node that is left in the graph, for the dump.
    """

    target: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    trace: MutableSequence[Fired | Missed] | None = None
    observers: tuple[Callable[[str, Graph], None], ...] = ()
    firings: Counter[str] = field(default_factory=Counter)
    notes: dict[Node, str] = field(default_factory=dict)

    def observe(self, name: str, graph: Graph) -> None:
        """Tells every observer."""
        for observer in self.observers:
            observer(name, graph)


Pass = Callable[[Graph, Context], Graph]
