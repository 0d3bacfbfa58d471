"""Why a rewrite did not fire: where it came nearest, and what was in the way; where it did, if it did."""

from __future__ import annotations

import difflib
import inspect

from tensorc.errors import ArgumentError
from tensorc.inspect.follow import lines_told
from tensorc.inspect.history import History, Stage
from tensorc.inspect.paint import Paint
from tensorc.ir.node import Node
from tensorc.ir.text import comment
from tensorc.passes.manager import Pass, Pipeline, Step
from tensorc.passes.rewrite import Fired, Missed, Rewrite, whole

SHOWN = 8
"""How many places are told of each kind."""


def rules_of(step: Step) -> tuple[Rewrite, ...]:
    """The rewrites that a pass applies, as far as it tells without being run."""
    return (*step.applies, *getattr(step.run, "rules", ()))


def known_rules(history: History) -> dict[str, Rewrite]:
    """The rewrites of a pipeline by name: those that were there to fire, and those of passes that had nothing to do."""
    return {rule.name: rule for step in history.pipeline.steps for rule in rules_of(step)} | dict(history.rules)


def near_misses(history: History, rule: Rewrite) -> list[tuple[Stage, Missed]]:
    """Where the rule did not fire, the nearest first, each node once; each with the stage after which it is so."""
    fired = {event.before for stage in history.stages for event in stage.fired if event.rule == rule.name}
    found: dict[Node, tuple[Stage, Missed]] = {}
    for stage in history.stages:
        for miss in stage.missed:
            if miss.rule == rule.name and miss.node not in fired:
                known = found.get(miss.node)
                if known is None or miss.agreed > known[1].agreed:
                    found[miss.node] = stage, miss
    return sorted(found.values(), key=lambda pair: -pair[1].agreed)


def print_why(history: History, name: str, paint: Paint) -> None:
    """Where the rewrite of that name fired, and where it nearly did, with the reason.

    Args:
        history: traced with near misses of the rewrite.

    Raises: ArgumentError for a rewrite that is not there, with the near names; what a pass raises.
    """
    rules = known_rules(history)
    if name not in rules:
        raise ArgumentError(_unknown(name, history.pipeline, rules))
    if history.failure is not None:
        raise history.failure
    rule = rules[name]
    print(paint("title", f"# {name} in {history.stages[0].graph.name}: {formula(rule)}"))
    fired = [(i, event) for i, stage in enumerate(history.stages) for event in stage.fired if event.rule == name]
    misses = near_misses(history, rule)
    for i, event in fired[:SHOWN]:
        _print_fired(history, i, event, paint)
    if len(fired) > SHOWN:
        print(f"and {len(fired) - SHOWN} times more")
    if misses:
        _print_miss(history, *misses[0], rule, paint)
        for stage, miss in misses[1:SHOWN]:
            print(f"  also    {_told(stage, miss.node, history)}: {miss.reason}")
        if len(misses) > SHOWN:
            print(f"  and     {len(misses) - SHOWN} more")
    if not fired and not misses:
        print(f"did not fire, and nothing comes near: {_sought(rule)}")
    print()


def _print_fired(history: History, i: int, event: Fired, paint: Paint) -> None:
    stage = history.stages[i]
    print(f"{paint('added', 'fired')} in {stage.name}")
    print(paint.graph(f"  on      {_told(stage, event.before, history)}{_where(stage, event.before)}"))
    print(paint.graph(f"  became  {_told(stage, event.after, history)}"))


def _print_miss(history: History, stage: Stage, miss: Missed, rule: Rewrite, paint: Paint) -> None:
    all_agree = miss.agreed >= whole(rule)
    how_near = "its pattern is there" if all_agree else f"{miss.agreed} of {whole(rule)} operations agree"
    print(f"{paint('removed', 'nearest miss')} in {stage.name}: {how_near}")
    print(paint.graph(f"  node    {_told(stage, miss.node, history)}{_where(stage, miss.node)}"))
    print(f"  reason  {paint('strong', miss.reason)}")
    for _, place, written in lines_told(stage.lines(miss.node)):
        print(f"  from    {place}" + (f"  {paint('comment', '# ' + written)}" if written else ""))


def _told(stage: Stage, node: Node, history: History) -> str:
    """A node as the dump after the pass has it, or else that before it, or else as what it was for a while."""
    before = history.stages[max(0, history.stages.index(stage) - 1)]
    if stage.block(node) is not None:
        return _in_block(stage, node)
    if before.block(node) is not None:
        return f"{_in_block(before, node)} ({before.when})"
    made = f"{node.op.name}({', '.join(_operand(stage, a) for a in node.args)}): {node.type}"
    came = stage.came.get(node)
    source = came.source if came else None
    return f"{made} (within the pass" + (f", for {before.name_of(source)} {before.when})" if source else ")")


def _in_block(stage: Stage, node: Node) -> str:
    title = stage.title_of(node)
    return f"{title + ':' if title else ''}{stage.line_of(node)}"


def _operand(stage: Stage, node: Node) -> str:
    return stage.name_of(node) if stage.block(node) is not None else f"{node.op.name}: {node.type}"


def _where(stage: Stage, node: Node) -> str:
    lines = comment(stage.lines(node))
    return f"  # {lines}" if lines else ""


def formula(rule: Rewrite | Pass) -> str:
    """What a rule or a pass does, in the first sentence of its docstring."""
    doc = inspect.getdoc(type(rule) if isinstance(rule, Rewrite) else rule) or "nothing is said of what it does"
    return " ".join(doc.split("\n\n")[0].split())


def _sought(rule: Rewrite) -> str:
    """What the rule begins with, and does not find."""
    ops = sorted({p.op.name for p in rule.patterns if p.op is not None})
    return f"there is no {' or '.join(ops)} in the graph" if ops else "there is no operation that it concerns"


def _unknown(name: str, pipeline: Pipeline, rules: dict[str, Rewrite]) -> str:
    if name in pipeline.names:
        return f"{name} is a pass, not a rewrite; `--diff --after {name}` shows what it changed"
    folded = {known.casefold(): known for known in rules}
    near = [folded[n] for n in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else "`tensorc --rules` lists them"
    return f"no rewrite is called {name!r}; {hint}"
