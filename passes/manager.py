"""Pipelines: named passes in order, each verified; how to add, leave out and look up passes."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tensorc.errors import ArgumentError, IRError, RewriteError
from tensorc.ir.graph import Graph, verify, with_bodies
from tensorc.ir.node import Node, watching
from tensorc.passes.context import Context, Pass
from tensorc.passes.driver import Table, sweep
from tensorc.passes.rewrite import Rebuilt, Rewrite

__all__ = ["Context", "Pass", "Pipeline", "Step", "find", "register", "rewrite"]

ENTRY_POINTS = "tensorc.passes"


def rewrite(*rules: Rewrite) -> Pass:
    """The pass that applies rules, operands first, until none applies."""
    return _Rewriting(rules)


class _Rewriting:
    """A pass of rules, one table of them for all its runs."""

    def __init__(self, rules: Sequence[Rewrite]) -> None:
        self.__name__ = rules[0].name if len(rules) == 1 else "rewrite"
        self._table = Table(rules)

    def __call__(self, graph: Graph, context: Context) -> Graph:
        return sweep(graph, self._table, context)

    @property
    def version(self) -> str | None:
        """The versions of all rules, where each has one."""
        versions = [(rule.name, version_of(rule)) for rule in self._table.rules]
        return None if any(v is None for _, v in versions) else ", ".join(f"{n} {v}" for n, v in versions)


@dataclass(frozen=True)
class Step:
    """A pass and its name in a pipeline.

    Bodies of loops and branches of choices go through it before the graph around them does, unless it `descends` into
    them itself.
    """

    name: str
    run: Pass
    descends: bool = False

    def __call__(self, graph: Graph, context: Context) -> Graph:
        """The graph after the pass; nodes that are only rebuilt keep the user's lines, whatever the pass does."""
        rebuilt: list[tuple[Node, Node]] = []
        with watching(rebuilt=lambda old, new: rebuilt.append((old, new))):
            after = self._run(graph, context)
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
    def identity(self) -> str | None:
        """A text that differs where what the pipeline does may differ; None where that is not known.

        It is known of tensorc's own passes, and of others that carry a `version`: a text which their author
        changes together with what they do.
        """
        from tensorc.passes.pipeline import default
        if self is default():
            return "default"

        own = {id(step.run) for step in default().steps}
        versions = ["own" if id(step.run) in own else version_of(step.run) for step in self.steps]
        return None if None in versions else "; ".join(f"{n}: {v}" for n, v in zip(self.names, versions, strict=True))

    def run(self, graph: Graph, context: Context | None = None) -> Graph:
        """The graph after every pass.

        Raises: IRError if `graph` is not valid; RewriteError naming the pass after which it is not, or which
            changed the type or number of results; what a pass raises.
        """
        context = context or Context()
        context.observe("input", verify(graph))
        for step in self.steps:
            after = step(graph, context)
            _check(step.name, graph, after)
            context.observe(step.name, after)
            graph = after
        return graph

    def after(self, name: str, *passes: Pass | Rewrite | Step) -> Pipeline:
        """With passes following the one called `name`; rewrites given side by side make one sweep."""
        at = self.index(name) + 1
        return Pipeline(*self.steps[:at], *_steps(passes), *self.steps[at:])

    def before(self, name: str, *passes: Pass | Rewrite | Step) -> Pipeline:
        """With passes ahead of the one called `name`."""
        at = self.index(name)
        return Pipeline(*self.steps[:at], *_steps(passes), *self.steps[at:])

    def without(self, *names: str) -> Pipeline:
        """Without the passes called so."""
        left_out = {self.index(name) for name in names}
        return Pipeline(*(step for i, step in enumerate(self.steps) if i not in left_out))

    def replace(self, name: str, *passes: Pass | Rewrite | Step) -> Pipeline:
        """With other passes in the place of one; a single one takes over its name."""
        at = self.index(name)
        steps = _steps(passes)
        if len(steps) == 1 and not isinstance(passes[0], Step):
            steps = (Step(name, steps[0].run),)
        return Pipeline(*self.steps[:at], *steps, *self.steps[at + 1:])

    def up_to(self, name: str) -> Pipeline:
        """The passes up to and with the one called `name`."""
        return Pipeline(*self.steps[:self.index(name) + 1])

    def index(self, name: str) -> int:
        """The place of the pass called `name`.  Raises ArgumentError."""
        if name not in self.names:
            raise ArgumentError(unknown(name, self.names))
        return self.names.index(name)

    def __repr__(self) -> str:
        return f"Pipeline({' → '.join(self.names)})"


def version_of(thing: Pass | Rewrite) -> str | None:
    """The version that a pass or a rewrite carries, with the module it is of."""
    version = getattr(thing, "version", None)
    return None if version is None else f"{thing.__module__} {version}"


_registered: dict[str, Pass] = {}


def register(name: str, run: Pass | Rewrite) -> None:
    """Makes a pass known by name, as an entry point in the group `tensorc.passes` would."""
    if name in _registered:
        raise ArgumentError(f"a pass called {name!r} is registered already")
    _registered[name] = _steps([run])[0].run


def find(name: str, pipeline: Pipeline) -> Step:
    """The pass of that name: of `pipeline`, registered, or an installed entry point.  Raises ArgumentError."""
    for step in pipeline.steps:
        if step.name == name:
            return step
    if name in _registered:
        return Step(name, _registered[name])
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name in installed:
        return Step(name, _steps([installed[name].load()])[0].run)
    raise ArgumentError(unknown(name, (*pipeline.names, *_registered, *installed)))


def _steps(passes: Iterable[Pass | Rewrite | Step]) -> tuple[Step, ...]:
    """Steps for passes, rewrites that follow one another taken together."""
    steps: list[Step] = []
    rules: list[Rewrite] = []

    def flush() -> None:
        if rules:
            steps.append(Step("+".join(r.name for r in rules), rewrite(*rules)))
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
        steps.append(item if isinstance(item, Step) else Step(getattr(item, "__name__", repr(item)), item))
    flush()
    return tuple(steps)


def _check(name: str, before: Graph, after: Graph) -> None:
    """Raises RewriteError unless `after` is valid and gives results of the same types for the same parameters."""
    try:
        verify(after)
    except IRError as error:
        raise RewriteError(f"pass {name!r} broke the graph: {error}") from error
    if after.params != before.params:
        raise RewriteError(f"pass {name!r} changed the parameters of {before.name}")
    if [v for v, _ in after.updates] != [v for v, _ in before.updates]:
        raise RewriteError(f"pass {name!r} changed which variables {before.name} updates")
    if [o.type for o in after.outputs] != [o.type for o in before.outputs]:
        raise RewriteError(f"pass {name!r} changed the outputs of {before.name} from "
                           f"({_types(before)}) to ({_types(after)})")


def _types(graph: Graph) -> str:
    return ", ".join(str(o.type) for o in graph.outputs)


def unknown(name: str, known: Iterable[str]) -> str:
    """That no pass is called so, and which names come near."""
    known = tuple(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return f"no pass is called {name!r}; {hint}"
