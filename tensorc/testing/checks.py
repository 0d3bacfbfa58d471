"""The checks that authors of passes call."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from tensorc.errors import ArgumentError
from tensorc.ir.closing import close
from tensorc.ir.graph import Graph
from tensorc.ir.parse import parse
from tensorc.ir.text import dump
from tensorc.passes.checked import Change, Manners, first_change, random_values, spelled
from tensorc.passes.choice import loaded
from tensorc.passes.context import Context, Event
from tensorc.passes.manager import Pipeline, Step, steps_of
from tensorc.passes.pipeline import default
from tensorc.passes.rewrite import Fired, Missed, Rewrite
from tensorc.testing.around import Barren, around_graph, around_pattern
from tensorc.testing.compiled import differs, named
from tensorc.testing.grow import Grown

BARREN = 20
"""How many graphs in a row may turn out to be none in which a rule fires."""


def check_text(passes: Any, before: str, after: str) -> None:
    """Fails unless passes turn one graph into another, both written as text.

    Args:
        passes: a rewrite, a graph pass, a name, or a list of these, which run in this order and alone; or a Pipeline.
        before, after: texts of one graph each; its name, those of values, comments and blanks make no difference.

    Raises: AssertionError with the difference line by line, and with why no rewrite fired where none did.
    """
    __tracebackhide__ = True
    graph, wanted = _graph(before), _graph(after)
    context = Context(trace=[])
    found = replace(_pipeline(passes).run(graph, context), name=wanted.name)
    if _text(found) == _text(wanted):
        return
    lines = difflib.unified_diff(_text(wanted).splitlines(), _text(found).splitlines(), "wanted", "found", lineterm="")
    silent = "" if context.firings else "\n".join(["", *_reasons(context.trace or (), _rules(passes))])
    raise AssertionError("\n".join([f"{_called(passes)} makes another graph", *lines]) + silent)


def check_silent(passes: Any, text: str, because: str | None = None) -> None:
    """Fails if passes change a graph.

    Args:
        passes: as for `check_text`.
        because: what must be found in the reason for which a rewrite does not apply, a regular expression.

    Raises: AssertionError with what was changed, or with the reasons there were.
    """
    __tracebackhide__ = True
    graph = _graph(text)
    context = Context(trace=[])
    found = _pipeline(passes).run(graph, context)
    if _text(found) != _text(graph):
        texts = _text(graph).splitlines(), _text(found).splitlines()
        lines = difflib.unified_diff(*texts, "given", "found", lineterm="")
        fired = [e.rule for e in context.trace or () if isinstance(e, Fired)]
        raise AssertionError("\n".join([f"{' and '.join(dict.fromkeys(fired)) or _called(passes)} fires", *lines]))
    if because is not None:
        reasons = _reasons(context.trace or (), _rules(passes))
        if not any(re.search(because, reason) for reason in reasons):
            raise AssertionError("\n".join([f"nothing says {because!r}", *(reasons or ["  no rewrite came near"])]))


def check_graph(passes: Any, text: str, values: Mapping[str, Any] | None = None, *, tolerance: float = 0.0,
                heals: bool = False) -> None:
    """Fails if passes change the values of one graph, by the references or compiled.

    Args:
        passes: what joins the compiler's own: as for `K.function`.
        values: arrays for the names of the parameters; random ones, where not given.
        tolerance: by how much a rewrite may be off, where it is an approximation.
        heals: whether a rewrite may give numbers where the formula as written gives NaN or infinities.

    Raises: AssertionError with the rule that changes a value; RewriteError for one that changes a type or oscillates.
    """
    __tracebackhide__ = True
    graph = _graph(text)
    given = random_values(graph) if values is None else {
        p.name: np.asarray(values[p.name], p.dtype.numpy) for p in graph.params}
    pipeline, asked = _joined(passes), _asked(passes, tolerance, heals)
    change = first_change(graph, pipeline, given, closely=asked)
    if change is not None:
        raise AssertionError(_report(change, passes))
    if not any(p.role == "key" for p in graph.params):
        _hold_compiled(_grown(graph, given), passes, graph, _judge(graph, pipeline, asked))


def check_numbers(passes: Any, around: str | Sequence[str] = (), *, examples: int = 40, compiled: int = 5,
                  seed: int = 0, tolerance: float = 0.0, heals: bool = False) -> None:
    """Fails if passes change values in random graphs in which they fire, also among NaN, infinities and zeros.

    Such a graph is grown around the pattern of a rewrite, or around graphs given as text: other operands, more
    operations before and after, and often the gradients.  Its values are held against the references, after every pass
    and for some of the graphs compiled, with the passes and without them, for two choices of sizes.

    Args:
        passes: what joins the compiler's own: as for `K.function`.
        around: graphs in which they fire, for a graph pass, or where a rewrite fires on nothing that its holes are
            filled with.
        examples: how many graphs.
        compiled: how many of them are compiled, too.
        tolerance: by how much a rewrite may be off, where it is an approximation.
        heals: whether a rewrite may give numbers where the formula as written gives NaN or infinities.

    Raises: AssertionError with the rule that changes a value and the smallest graph found, or where none is found in
        which a pass fires; RewriteError for a rule that changes a type or oscillates.
    """
    __tracebackhide__ = True
    pipeline, asked = _joined(passes), _asked(passes, tolerance, heals)
    texts = [around] if isinstance(around, str) else list(around)
    for i, grown in enumerate(_planted(passes, texts, pipeline, examples, seed, not tolerance)):
        closed = close("f", grown.inputs, grown.outputs, grown.updates)
        for values in grown.values:
            change = first_change(closed.graph, pipeline, named(closed, values), closely=asked)
            if change is not None:
                raise AssertionError(_report(change, passes))
        if i < compiled:
            _hold_compiled(grown, passes, closed.graph, _judge(closed.graph, pipeline, asked))


def _planted(passes: Any, texts: Sequence[str], pipeline: Pipeline, examples: int, seed: int,
             with_gradients: bool) -> Iterator[Grown]:
    """Random computations in which passes fire, each pass in its turn.  Raises AssertionError where there are none."""
    subjects: list[tuple[str, Rewrite | Graph]] = [(", ".join(_names(passes)), _graph(text)) for text in texts]
    subjects = subjects or [(p.name, p) for p in _items(passes) if isinstance(p, Rewrite)]
    if not subjects:
        raise ArgumentError(f"check_numbers: {_called(passes)} has no pattern; "
                            f"give graphs in which it fires as `around`")
    for i in range(examples):
        names, subject = subjects[i % len(subjects)]
        why = ""
        for attempt in range(BARREN):
            random = Random(f"{seed} {i} {attempt}")
            try:
                grown = (around_pattern if isinstance(subject, Rewrite) else around_graph)(
                    subject, random, with_gradients)  # type: ignore[arg-type]
            except Barren as barren:
                why = str(barren)
                continue
            if _fires(grown, pipeline, names.split(", ")):
                yield grown
                break
            why = "other rules come before it"
        else:
            raise AssertionError(f"{names}: no graph was found in which it fires: {why}; "
                                 f"give graphs in which it does as `around`")


def _fires(grown: Grown, pipeline: Pipeline, names: Sequence[str]) -> bool:
    """Whether one of the passes so called does something."""
    graphs: dict[str, Graph] = {}
    before: dict[str, Graph] = {}
    context = Context()
    last = close("f", grown.inputs, grown.outputs, grown.updates).graph

    def observe(name: str, graph: Graph) -> None:
        nonlocal last
        before[name], graphs[name] = last, graph
        last = graph

    context.observers = (observe,)
    pipeline.run(last, context)
    return any(context.firings[name] or (name in graphs and graphs[name] != before[name]) for name in names)


def _hold_compiled(grown: Grown, passes: Any, graph: Graph, judge: Graph | None) -> None:
    """Raises AssertionError where the compiled results are wrong, and says whether they are without the passes, too."""
    told = differs(grown, passes, judge)
    if told:
        alone = differs(grown, default())
        whose = "so they are without it" if alone else "without it they are right"
        raise AssertionError(f"{_called(passes)}: compiled results are wrong; {whose}\n  {told}\n{_indented(graph)}")


def _judge(graph: Graph, pipeline: Pipeline, asked: Mapping[str, Manners]) -> Graph | None:
    """What compiled results are held against where rewrites may change values: the graph after them, checked before."""
    return pipeline.up_to("share").run(graph) if any(manners.changes for manners in asked.values()) else None


def _report(change: Change, passes: Any) -> str:
    """What a pass changed, and the lines that show it again."""
    kind = type(change.run)
    local = change.rule is None or "<locals>" in kind.__qualname__ or not isinstance(change.run, Rewrite)
    first = [] if local else [f"from {kind.__module__} import {kind.__qualname__}"]
    arrays = ", ".join(f'"{name}": {spelled(value)}' for name, value in change.values.items())
    code = ["import numpy as np", *first, "from tensorc.testing import check_graph", "",
            f'check_graph({change.rule or _called(passes)}{"()" if change.rule else ""}, """',
            *dump(change.graph, lines=False).rstrip().splitlines(), f'""", {{{arrays}}})']
    return "\n".join([change.headline, "  this shows it again:", *(f"    {line}" for line in code)])


def _grown(graph: Graph, values: Mapping[str, Any]) -> Grown:
    """A graph with values, as a computation to be compiled."""
    from tensorc.ops.interpret import bind

    sizes = bind({p.name: (p.type, values[p.name].shape) for p in graph.params})
    variables = [p for p in graph.params if p.role == "variable"]
    return Grown([p for p in graph.params if p.role != "variable"], variables, list(graph.outputs), list(graph.updates),
                 [sizes], [{p: values[p.name] for p in graph.params}])


def _graph(text: str) -> Graph:
    """The one graph in a text.  Raises ArgumentError for none or several, IRError for what is no graph."""
    graphs = parse(text)
    if len(graphs) != 1:
        raise ArgumentError(f"a text of one graph is wanted, this has {len(graphs)}")
    return graphs[0]


def _text(graph: Graph) -> str:
    return dump(graph, lines=False)


def _indented(graph: Graph) -> str:
    return "\n".join(f"    {line}" for line in _text(graph).splitlines())


def _items(passes: Any) -> list[Any]:
    """The passes in what a check is given."""
    if isinstance(passes, Pipeline):
        return list(passes.steps)
    return loaded(passes if isinstance(passes, list | tuple) else [passes])


def _pipeline(passes: Any) -> Pipeline:
    """Passes alone."""
    return passes if isinstance(passes, Pipeline) else Pipeline(*steps_of(_items(passes)))


def _joined(passes: Any) -> Pipeline:
    """Passes among the compiler's own."""
    return passes if isinstance(passes, Pipeline) else default().joined(*_items(passes))


def _names(passes: Any) -> list[str]:
    """The names of rules and graph passes."""
    return [p.name if isinstance(p, Rewrite | Step) else steps_of([p])[0].name for p in _items(passes)]


def _called(passes: Any) -> str:
    return " and ".join(_names(passes))


def _rules(passes: Any) -> list[str]:
    """The names of rules."""
    return [p.name for p in _items(passes) if isinstance(p, Rewrite)]


def _asked(passes: Any, tolerance: float, heals: bool) -> dict[str, Manners]:
    """What is asked of each rule."""
    return dict.fromkeys(_rules(passes), Manners(tolerance, special=not heals, heals=heals))


def _reasons(trace: Sequence[Event], rules: Sequence[str]) -> list[str]:
    """Why rules did not fire, the nearest misses first."""
    misses = sorted((e for e in trace if isinstance(e, Missed) and e.rule in rules), key=lambda m: -m.agreed)
    return list(dict.fromkeys(f"  {m.rule} did not fire at {m.node!r}: {m.reason}" for m in misses))[:5]
