"""Whether passes keep values: what the graph gives before each of them and after it, by the references.

Values are held against bounds on what rounding may change, so a formula may be computed in another order, and one that
gives NaN or too few digits may be computed better.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tensorc.errors import RewriteError, ShapeError, TensorcError
from tensorc.ir import dims
from tensorc.ir.graph import Graph, describe
from tensorc.ir.node import Node
from tensorc.ir.text import dump
from tensorc.ir.types import numpy_kind
from tensorc.ops.conditioned import Array, Known, difference, evaluate
from tensorc.ops.interpret import bind
from tensorc.passes.context import Context, Event
from tensorc.passes.driver import sweep
from tensorc.passes.manager import Pipeline, Rewriting
from tensorc.passes.repro import cut, cuts
from tensorc.passes.rewrite import Fired, Rewrite

Values = Mapping[str, Array]


@dataclass(frozen=True)
class Change:
    """A value that a pass changed.

    Attributes:
        step: the pass.
        rule: the rule of the pass that did it; None where no single one did.
        difference: in what the value differs.
        where: the node with its operands and the user's lines.
        graph: a small graph in which it happens.
        values: of its parameters, by name.
        run: the rule, or the pass.
    """

    step: str
    rule: str | None
    difference: str
    where: str
    graph: Graph
    values: Values
    run: Any = field(default=None, repr=False)

    @property
    def headline(self) -> str:
        """Who changed what, and where."""
        who = f"pass {self.step!r}" if self.rule is None else f"rewrite {self.rule}"
        return f"{who} changes a value: {self.difference}\n{self.where}"

    def __str__(self) -> str:
        shown = "".join(f"    {name} = {spelled(value)}\n" for name, value in self.values.items() if value.size < 50)
        text = "".join(f"    {line}\n" for line in dump(self.graph, lines=False).splitlines())
        return (f"{self.headline}\n  the smallest graph found in which it happens:\n{text}{shown}").rstrip()


@dataclass(frozen=True)
class Manners:
    """What is asked of a rule.

    Attributes:
        slack: by how much a value may be off, as an approximation is.
        special: whether infinities and NaN stay also where the formula is ill-conditioned, as in 0 / 0.
        heals: whether anything may take the place of an infinity or NaN.
    """

    slack: float = 0.0
    special: bool = False
    heals: bool = False

    @property
    def changes(self) -> bool:
        """Whether it may change values."""
        return self.heals or self.slack > 0

    def breach(self, after: Known, before: Known) -> str:
        """In what a value is another than it may be."""
        if self.heals and after.value.shape == before.value.shape and numpy_kind(before.value.dtype) == "f":
            after = Known(np.where(np.isfinite(before.value), after.value, before.value), after.error)
        loose = before if before.error is None else Known(before.value, before.error + self.slack)
        told = difference(after, loose)
        if told or not self.special or numpy_kind(after.value.dtype) != "f" or after.value.shape != before.value.shape:
            return told
        old, new = before.value, after.value
        wrong = (np.isnan(old) != np.isnan(new)) | ((np.isinf(old) | np.isinf(new)) & (old != new) & ~np.isnan(old))
        if not wrong.any():
            return ""
        place = np.unravel_index(np.argmax(wrong), wrong.shape)
        return f"it is {new[place]}{_at(place)}, not {old[place]}"


def check(graph: Graph, pipeline: Pipeline, values: Values | None = None) -> None:
    """Raises RewriteError if a pass of a pipeline changes what a graph gives, naming the pass and the rule.

    Args:
        values: of the parameters, by name; random ones of small sizes, where not given.
    """
    change = first_change(graph, pipeline, values)
    if change is not None:
        raise RewriteError(str(change), repro=dump(change.graph, lines=False))


def first_change(graph: Graph, pipeline: Pipeline, values: Values | None = None, *,
                 closely: Mapping[str, Manners] | None = None, context: Context | None = None) -> Change | None:
    """The first change of a value that passes of a pipeline make; None if they make none, or none can be told.

    Args:
        values: of the parameters, by name; random ones of small sizes, where not given.
        closely: rules whose every firing is looked at, also where it makes no difference to the results, and what is
            asked of them.  Where one of them may be off, the results are not compared.
        context: for the passes; it is told what they do.
    """
    context, closely = context or Context(), closely or {}
    exempt = any(manners.changes for manners in closely.values())
    stages: list[tuple[str, Graph, int]] = []
    trace: list[Event] = []
    context.trace, context.asked = trace, ()
    context.observers = (*context.observers, lambda name, g: stages.append((name, g, len(trace))))
    pipeline.run(graph, context)

    try:
        checking = _Checking(graph, random_values(graph) if values is None else values)
    except ShapeError:
        if values is not None:
            raise
        return None                                  # sizes that the parameters' shapes do not tell
    for (_, before, start), (name, after, end) in itertools.pairwise(stages):
        fired = [event for event in trace[start:end] if isinstance(event, Fired)]
        for event in fired:
            if event.rule in closely:
                change = checking.of_rule(name, event, pipeline, closely[event.rule])
                if change is not None:
                    return change
        change = None if exempt else checking.of_pass(name, before, after)
        if change is not None:
            of_rules = (checking.of_rule(name, event, pipeline, Manners()) for event in fired)
            return next(filter(None, of_rules), change)
    return None


class _Checking:
    """What is known of the nodes of one graph for one choice of values."""

    def __init__(self, graph: Graph, values: Values) -> None:
        self.graph = graph
        self.named = values
        self.values = {p: np.asarray(values[p.name]) for p in graph.params}
        self.sizes = bind({p.name: (p.type, self.values[p].shape) for p in graph.params})
        self.known: dict[Node, Known] = {}

    def of(self, nodes: Sequence[Node]) -> list[Known] | None:
        """What is known of nodes; None where they do not follow from the parameters, or the references refuse."""
        try:
            return evaluate(nodes, self.values, self.sizes, self.known)
        except Exception:                            # indices out of range, lengths that contradict each other, …
            return None

    def of_pass(self, name: str, before: Graph, after: Graph) -> Change | None:
        """What a pass changed in the results."""
        for old, new in zip(before.roots, after.roots, strict=True):
            both = None if old is new else self.of([old, new])
            differs = difference(both[1], both[0]) if both else ""
            if differs:
                return Change(name, None, differs, describe(old, before.provenance), self.graph, self.named)
        return None

    def of_rule(self, name: str, fired: Fired, pipeline: Pipeline, manners: Manners) -> Change | None:
        """What a rule changed at one place."""
        checking: _Checking = self
        both = self.of([fired.before, fired.after])
        if both is None:                             # in the body of a loop, whose rows have no value of their own
            small, _ = cut([fired.before, fired.after], ())
            checking = _Checking(small, random_values(small))
            both = checking.of(small.outputs)
        differs = manners.breach(both[1], both[0]) if both else ""
        if not differs:
            return None
        where = describe(fired.before, self.graph.provenance)
        rule = _rule(pipeline, name, fired.rule)
        graph, values, differs = (rule and checking.smaller(fired.before, rule, manners)) or (
            checking.graph, checking.named, differs)
        return Change(name, fired.rule, differs, where, graph, values, rule)

    def smaller(self, node: Node, rule: Rewrite, manners: Manners) -> tuple[Graph, Values, str] | None:
        """The smallest graph over a node found in which a rule changes the value, with values and the difference."""
        for graph, params in cuts(node):
            known = self.of(list(params))
            if known is None:
                continue
            values = {param.name: k.value for param, k in zip(params.values(), known, strict=True)}
            for sizes, fewer in _fewer(graph, values, self.sizes):
                resized = graph.resized({s: n for s, n in sizes.items() if s not in _bound(graph)})
                differs = _differs(resized, fewer, rule, manners)
                if differs:
                    return replace(resized, name=rule.name), fewer, differs
        return None


def _differs(graph: Graph, values: Values, rule: Rewrite, manners: Manners) -> str:
    """In what the result of a graph differs once a rule is applied to it."""
    try:
        after = sweep(graph, [rule], Context())
        checking = _Checking(graph, values)
    except TensorcError:
        return ""
    both = checking.of([graph.outputs[0], after.outputs[0]])
    return manners.breach(both[1], both[0]) if both else ""


def _fewer(graph: Graph, values: Values, sizes: Mapping[str, int]) -> Iterator[tuple[Mapping[str, int], Values]]:
    """Values cut down to fewer elements where all sizes are plain symbols or numbers, the fewest first; all at last."""
    plain = all(isinstance(s, int) or str(s) in dims.symbols(s) for p in graph.params for s in p.shape)
    for count in (1, 2, 3) if plain else ():
        fewer = {p.name: values[p.name][tuple(slice(None) if isinstance(s, int) else slice(count) for s in p.shape)]
                 for p in graph.params}
        yield {s: min(n, count) for s, n in sizes.items()}, fewer
    yield sizes, values


def _bound(graph: Graph) -> frozenset[str]:
    """The symbols that the parameters' shapes tell."""
    return frozenset().union(*(dims.symbols(s) for p in graph.params for s in p.shape))


def _rule(pipeline: Pipeline, step: str, name: str) -> Rewrite | None:
    """The rule of that name in a sweep."""
    run = next(s.run for s in pipeline.steps if s.name == step)
    return next((r for r in run.rules if r.name == name), None) if isinstance(run, Rewriting) else None


def _at(place: Sequence[Any]) -> str:
    return f" at [{', '.join(map(str, place))}]" if len(place) else ""


def random_values(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Values for the parameters of a graph, a small size of its own for each symbol."""
    generator = np.random.default_rng(seed)
    symbols = sorted(frozenset().union(*(dims.symbols(s) for p in graph.params for s in p.shape)))
    sizes = {s: 3 + i % 4 for i, s in enumerate(symbols)}
    return {p.name: _random(generator, p, tuple(dims.evaluate(s, sizes) for s in p.shape)) for p in graph.params}


def _random(generator: np.random.Generator, param: Node, shape: tuple[int, ...]) -> Array:
    if param.role == "key":
        return np.array([7, 0], param.dtype.numpy)
    if param.dtype.is_float:
        return np.asarray(generator.uniform(-2, 2, shape)).astype(param.dtype.numpy)
    return np.asarray(generator.integers(0, 2, shape)).astype(param.dtype.numpy)


def spelled(value: Array) -> str:
    """An array as Python that makes it, dtype and all."""
    text = np.array2string(value, separator=", ", threshold=1 << 20, floatmode="unique", max_line_width=1 << 20)
    text = " ".join(text.replace("nan", "np.nan").replace("inf", "np.inf").split())
    return f"np.array({text}, {value.dtype.name!r})" if value.size else f"np.zeros({value.shape}, {value.dtype.name!r})"
