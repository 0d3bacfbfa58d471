"""Pipelines: named passes in order, each verified; how to add to them, leave out and replace."""

from __future__ import annotations

import difflib
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from tensorc.errors import ArgumentError, IRError, RewriteError, TensorcError
from tensorc.ir.graph import Graph, verify, with_bodies
from tensorc.ir.node import Node, watching
from tensorc.passes.context import Context, Pass
from tensorc.passes.driver import Table, sweep
from tensorc.passes.repro import smallest, told
from tensorc.passes.rewrite import Rebuilt, Rewrite

__all__ = ["Context", "Pass", "Pipeline", "Step", "graph_pass", "rewrite", "steps_of", "unknown"]

PLACE = "before simplify"
"""Where a graph pass stands that does not say where."""


def rewrite(*rules: Rewrite) -> Pass:
    """The pass that applies rules, operands first, until none applies."""
    return Rewriting(rules)


class Rewriting:
    """A pass of rules, one table of them for all its runs."""

    def __init__(self, rules: Sequence[Rewrite]) -> None:
        self.rules = tuple(rules)
        self.__name__ = "+".join(r.name for r in rules)
        self._table = Table(rules)

    def __call__(self, graph: Graph, context: Context) -> Graph:
        return sweep(graph, self._table, context)


@overload
def graph_pass(run: Pass) -> Pass: ...


@overload
def graph_pass(*, place: str = PLACE, version: str | None = None,
               descends: bool = False) -> Callable[[Pass], Pass]: ...


def graph_pass(run: Pass | None = None, *, place: str = PLACE, version: str | None = None,
               descends: bool = False) -> Any:
    """Marks a function of a graph and a context as a pass, and says what a pipeline is to know of it.

    Args:
        place: where it stands, "before NAME" or "after NAME" of another pass.
        version: a text that changes with what the pass does; with one, its programs are kept on disk.
        descends: whether it goes into the bodies of loops and choices by itself.
    """
    def marked(run: Any) -> Any:
        run.place, run.version, run.descends = place, version, descends
        return run
    return marked if run is None else marked(run)


@dataclass(frozen=True)
class Step:
    """A pass and its name in a pipeline.

    Bodies of loops and branches of choices go through it before the graph around them does, unless it `descends` into
    them itself.  `applies` are rules that a graph pass has of its own, so that they can be asked about.
    """

    name: str
    run: Pass
    descends: bool = False
    applies: tuple[Rewrite, ...] = ()

    def __call__(self, graph: Graph, context: Context) -> Graph:
        """The graph after the pass; nodes that are only rebuilt keep the user's lines, whatever the pass does."""
        rebuilt: list[tuple[Node, Node]] = []
        with watching(rebuilt=lambda old, new: rebuilt.append((old, new))):
            after = self._run(graph, context)
        if not isinstance(after, Graph):
            raise RewriteError(f"pass {self.name!r} gives {after!r}, which is no graph")
        if context.trace is not None:
            context.trace.extend(Rebuilt(old, new) for old, new in rebuilt)
        lines = {**graph.provenance, **after.provenance}
        for old, new in rebuilt:
            if old in lines:
                lines.setdefault(new, lines[old])
        return replace(after, provenance=lines)

    def _run(self, graph: Graph, context: Context) -> Graph:
        return self.run(graph if self.descends else with_bodies(graph, lambda body: self._run(body, context)), context)


class Pipeline:
    """Passes in order.  Immutable: `after`, `before`, `without` and `replace` give a new one."""

    def __init__(self, *steps: Step) -> None:
        self.steps = steps
        repeated = [name for name, times in Counter(self.names).items() if times > 1]
        if repeated:
            raise ArgumentError(f"two passes of a pipeline are called {repeated[0]!r}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules that its sweeps apply."""
        return tuple(dict.fromkeys(rule.name for step in self.steps for rule in _rules(step)))

    @property
    def identity(self) -> str | None:
        """A text that differs where what the pipeline does may differ; None where that is not known.

        It is known of tensorc's own passes and rules, and of others that carry a `version`: a text which their author
        changes together with what they do.
        """
        from tensorc.passes.pipeline import default
        if self is default():
            return "default"

        own = _own()
        told = [(step.name, step.descends, [_identity(part, own) for part in _rules(step) or [step.run]])
                for step in self.steps]
        return None if any(None in parts for _, _, parts in told) else repr(told)

    def run(self, graph: Graph, context: Context | None = None) -> Graph:
        """The graph after every pass.

        Raises: IRError if `graph` is not valid; RewriteError naming the pass after which it is not, or which
            changed the type or number of results; what a pass raises.
        """
        context = context or Context()
        context.observe("input", verify(graph))
        for step in self.steps:
            after = _checked(step, graph, context)
            context.observe(step.name, after)
            graph = after
        return graph

    def after(self, name: str, *passes: Pass | Rewrite | Step) -> Pipeline:
        """With passes following the one called `name`; rewrites given side by side make one sweep."""
        at = self.index(name) + 1
        return Pipeline(*self.steps[:at], *steps_of(passes), *self.steps[at:])

    def before(self, name: str, *passes: Pass | Rewrite | Step) -> Pipeline:
        """With passes ahead of the one called `name`."""
        at = self.index(name)
        return Pipeline(*self.steps[:at], *steps_of(passes), *self.steps[at:])

    def without(self, *names: str) -> Pipeline:
        """Without the passes, or the rules, called so; a rule is left out of every sweep."""
        for name in names:
            self._known(name)
        kept = (_without(step, names) for step in self.steps if step.name not in names)
        return Pipeline(*filter(None, kept))

    def replace(self, name: str, *passes: Pass | Rewrite | Step) -> Pipeline:
        """With other passes in the place of one, a single one of which takes over its name; or with other rules in
        the place of one.
        """
        self._known(name)
        if name not in self.names:
            new = [p for p in passes if isinstance(p, Rewrite)]
            if len(new) < len(passes):
                raise ArgumentError(f"{name} is a rule: only rules take its place")
            return Pipeline(*(_with_rules(step, [r for rule in _rules(step) for r in
                                                 (new if rule.name == name else [rule])]) for step in self.steps))
        at = self.index(name)
        steps = steps_of(passes)
        if len(steps) == 1 and not isinstance(passes[0], Step):
            steps = (replace(steps[0], name=name),)
        return Pipeline(*self.steps[:at], *steps, *self.steps[at + 1:])

    def joined(self, *passes: Pass | Rewrite | Step) -> Pipeline:
        """With passes where their `place` says; rewrites for the same place make one sweep.

        What was joined before under the same name gives way.

        Raises: ArgumentError for a name of the compiler's own, or a place that is not there.
        """
        from tensorc.passes.pipeline import default

        names = [p.name if isinstance(p, Rewrite) else step.name for p in passes for step in steps_of([p])]
        for name in names:
            if name in (*default().names, *default().rules):
                raise ArgumentError(f"{name!r} is a pass of the compiler's own; call yours otherwise, "
                                    f"or put it there: pipeline.default().replace({name!r}, …)")
        changed = self.without(*(n for n in dict.fromkeys(names) if n in (*self.names, *self.rules)))
        placed: dict[str, list[Pass | Rewrite | Step]] = {}
        for item in passes:
            for place in _places(item):
                placed.setdefault(place, []).append(item)
        for place, items in placed.items():
            changed = changed._placed(place, items)
        return changed

    def _placed(self, place: str, items: Sequence[Any]) -> Pipeline:
        """With passes at one place."""
        how, _, name = place.partition(" ")
        if how not in ("before", "after", "in") or not name:
            raise ArgumentError(f"{_called(items[0])}: its place is 'before', 'after' or 'in' and the name of a pass, "
                                f"not {place!r}")
        if name not in self.names:
            raise ArgumentError(f"{_called(items[0])}: its place is {place!r}, but {unknown(name, self.names)}")
        if how == "before":
            return self.before(name, *items)
        if how == "after":
            return self.after(name, *items)
        step = self.steps[self.index(name)]
        if not _rules(step) or not all(isinstance(item, Rewrite) for item in items):
            raise ArgumentError(f"{_called(items[0])}: its place is {place!r}, but only rewrites join a pass, "
                                f"and only one of rewrites")
        return Pipeline(*(_with_rules(s, [*items, *_rules(s)]) if s is step else s for s in self.steps))

    def up_to(self, name: str) -> Pipeline:
        """The passes up to and with the one called `name`."""
        return Pipeline(*self.steps[:self.index(name) + 1])

    def index(self, name: str) -> int:
        """The place of the pass called `name`.  Raises ArgumentError."""
        if name not in self.names:
            raise ArgumentError(unknown(name, self.names))
        return self.names.index(name)

    def _known(self, name: str) -> None:
        """Raises ArgumentError unless a pass or a rule is called so."""
        if name not in self.names and name not in self.rules:
            known = self.names if not difflib.get_close_matches(name, self.rules) else (*self.names, *self.rules)
            raise ArgumentError(unknown(name, known))

    def __repr__(self) -> str:
        return f"Pipeline({' → '.join(self.names)})"


def steps_of(passes: Iterable[Pass | Rewrite | Step]) -> tuple[Step, ...]:
    """Steps for passes, rewrites that follow one another taken together.  Raises ArgumentError."""
    steps: list[Step] = []
    rules: list[Rewrite] = []

    def flush() -> None:
        if rules:
            steps.append(_sweeping(rules))
            rules.clear()

    for item in passes:
        if isinstance(item, type):
            raise ArgumentError(f"{item.__name__} is a class; a pipeline takes {item.__name__}()")
        if isinstance(item, Rewrite):
            rules.append(item)
            continue
        flush()
        if not isinstance(item, Step) and not callable(item):
            raise ArgumentError(f"a pass is a function of a graph and a context, or a Rewrite, not {item!r}")
        steps.append(item if isinstance(item, Step) else
                     Step(_called(item), item, descends=getattr(item, "descends", False)))
    flush()
    return tuple(steps)


def _sweeping(rules: Sequence[Rewrite]) -> Step:
    """The step of some rules, called like them."""
    return Step("+".join(r.name for r in rules), rewrite(*rules))


def _rules(step: Step) -> tuple[Rewrite, ...]:
    """The rules that a step applies; none where it is no sweep."""
    return step.run.rules if isinstance(step.run, Rewriting) else ()


def _with_rules(step: Step, rules: Sequence[Rewrite]) -> Step:
    """The step with other rules; one that was called like its rules still is."""
    if tuple(rules) == _rules(step):
        return step
    return _sweeping(rules) if step.name == _sweeping(_rules(step)).name else replace(step, run=rewrite(*rules))


def _without(step: Step, names: Sequence[str]) -> Step | None:
    """The step without the rules called so; None where it has no others."""
    rules = _rules(step)
    kept = [rule for rule in rules if rule.name not in names]
    return None if rules and not kept else _with_rules(step, kept)


def _places(item: Pass | Rewrite | Step) -> tuple[str, ...]:
    """Where a pass stands in a pipeline that it joins."""
    place = getattr(item.run if isinstance(item, Step) else item, "place", PLACE)
    return (place,) if isinstance(place, str) else tuple(place)


def _called(item: Any) -> str:
    """What a pass, a rewrite or a step is called."""
    name: str = item.name if isinstance(item, Rewrite | Step) else getattr(item, "__name__", repr(item))
    return name


@functools.cache
def _own() -> frozenset[int]:
    """The ids of tensorc's own passes and rules."""
    from tensorc.passes.pipeline import default
    return frozenset(id(part) for step in default().steps for part in (step.run, *_rules(step)))


def _identity(part: Pass | Rewrite, own: frozenset[int]) -> str | None:
    """The identity of a pass or of a rule."""
    if id(part) in own:
        return _called(part)
    from tensorc.passes.identity import identity_of
    return identity_of(part)


def _checked(step: Step, graph: Graph, context: Context) -> Graph:
    """The graph after a step.  Raises RewriteError with a repro where that broke it."""
    try:
        after = step(graph, context)
    except TensorcError:
        raise
    except Exception as error:
        error.add_note(f"in pass {step.name!r}, on {graph.name}")
        raise
    wrong = _wrong(graph, after)
    if not wrong:
        return after

    def fails(small: Graph) -> bool:
        try:
            return bool(_wrong(small, step(small, Context(context.target, context.options))))
        except Exception:
            return False

    found = smallest(graph.roots, fails) or graph
    raise RewriteError(f"pass {step.name!r} {wrong}\n{told(found, [step.run])}", repro=str(found))


def _wrong(before: Graph, after: Graph) -> str:
    """What a pass did wrong, if `after` is not valid, or gives no results of the same types for the same parameters."""
    try:
        verify(after)
    except IRError as error:
        return f"broke the graph: {error}"
    if after.params != before.params:
        return f"changed the parameters of {before.name}"
    if [v for v, _ in after.updates] != [v for v, _ in before.updates]:
        return f"changed which variables {before.name} updates"
    if [o.type for o in after.outputs] != [o.type for o in before.outputs]:
        return f"changed the outputs of {before.name} from ({_types(before)}) to ({_types(after)})"
    return ""


def _types(graph: Graph) -> str:
    return ", ".join(str(o.type) for o in graph.outputs)


def unknown(name: str, known: Iterable[str]) -> str:
    """That no pass is called so, with the near names."""
    known = tuple(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known) or 'none'}"
    return f"no pass is called {name!r}; {hint}"
