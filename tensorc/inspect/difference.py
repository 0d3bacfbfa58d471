"""What a pass changed: nodes that went beside nodes that came in their place.

Nodes that are only numbered anew, or rebuilt because their operands changed, are no change.  A *hunk* is one change:
the node that was replaced, those that nobody needs any more with it, and those made for it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorc.inspect.history import History, Stage
from tensorc.inspect.paint import Paint
from tensorc.ir.kernels import Group, Plan, named_groups
from tensorc.ir.node import Node
from tensorc.ir.text import comment, unnamed

WIDTH = 100


@dataclass(frozen=True)
class Hunk:
    """One change.

    Attributes:
        removed: nodes of the stage before, in its order.
        added: nodes of the stage after, in its order.
        context: nodes of both stages, or rebuilt, that those added work on.
        target: what stands in the place of the last node removed where nothing was made for it.
        rules: the rewrites that did it, or the pass.
    """

    removed: tuple[Node, ...]
    added: tuple[Node, ...]
    context: tuple[Node, ...]
    target: Node | None
    rules: tuple[str, ...]


def hunks(before: Stage, after: Stage) -> list[Hunk]:
    """What changed from one stage to the next, in the order of the nodes that were replaced."""
    order = {n: i for i, n in enumerate(_named(before))}
    replaced = _replaced(before, after)
    removed: dict[Node, list[Node]] = {}
    for node in order:
        if node in replaced:
            removed.setdefault(replaced[node], []).append(node)

    added: dict[Node | None, list[Node]] = {}
    for node in _named(after):
        came = after.came[node]
        if came.how == "made":
            source = came.source
            added.setdefault(source if source is None else replaced.get(source, source), []).append(node)

    heads = sorted({*removed, *(h for h in added if h is not None)}, key=lambda n: order.get(n, len(order)))
    changes = [_hunk(h, removed.get(h, []), added.get(h, []), after) for h in heads]
    return changes + ([_hunk(None, [], added[None], after)] if None in added else [])


def _replaced(before: Stage, after: Stage) -> dict[Node, Node]:
    """For each node that went, the one of the same block that was replaced and took it along, which may be itself."""
    users: dict[Node, list[Node]] = {}
    for node in _named(before):
        for operand in node.args:
            users.setdefault(operand, []).append(node)
    found: dict[Node, Node] = {}
    for node in reversed([*_named(before)]):
        went = after.went[node]
        if went.target is None:
            found[node] = next((found[user] for user in users.get(node, ()) if user in found), node)
        elif went.rules:
            found[node] = node
    return found


def _hunk(head: Node | None, removed: Sequence[Node], added: Sequence[Node], after: Stage) -> Hunk:
    went = after.went.get(head) if head is not None and head in removed else None
    rules = [*(went.rules if went else ()), *(rule for n in added for rule in after.came[n].rules)]
    operands = dict.fromkeys(a for n in added for a in n.args if after.came[a].how != "made" and not unnamed(a))
    target = went.target if went and not added else None
    return Hunk(tuple(removed), tuple(added), tuple(operands), target, tuple(dict.fromkeys(rules)))


def _named(stage: Stage) -> Iterator[Node]:
    for block in stage.blocks:
        yield from block.nodes


def print_differences(history: History, paint: Paint, only: str | None = None) -> None:
    """What each pass changed, or one of them alone; at the end, what a pass that failed raised."""
    for before, after in zip(history.stages, history.stages[1:], strict=False):
        if only is None or after.name == only:
            print(difference(before, after, paint))
    if history.failure is not None:
        raise history.failure


def difference(before: Stage, after: Stage, paint: Paint) -> str:
    """What changed from one stage to the next, as text."""
    lines: list[str] = []
    within = ""
    for hunk in hunks(before, after):
        title = next((s.title_of(n) for s, ns in ((after, hunk.added), (before, hunk.removed)) for n in ns), "")
        if lines:
            lines.append("")
        if title != within:
            lines.append(f"in {title or 'the graph'}:")
        within = title
        lines += _hunk_lines(hunk, title, before, after, paint)
    lines += _noted(before, after)
    if after.graph.plan is not None:
        lines += _planned(before, after, paint)
    if not lines:
        return paint("title", f"# {after.when}, as before") + "\n"
    return "\n".join([paint("title", f"# {after.when}"), *lines, ""])


def _hunk_lines(hunk: Hunk, title: str, before: Stage, after: Stage, paint: Paint) -> list[str]:
    """The lines of a change in the block of that title."""
    told: list[tuple[str, str, str, str]] = []
    for node in hunk.context:
        old = after.came[node].source
        name = _name(old, before, title) if old is not None else ""
        told.append(("", "  ", _line(node, after, title), f"was {name}" if name != _name(node, after, title) else ""))
    for node in hunk.removed:
        last = node is hunk.removed[-1] and not hunk.added
        fate = "" if not last else "not needed" if hunk.target is None else f"is {_name(hunk.target, after, title)} now"
        by = ", ".join(hunk.rules) if last else ""
        told.append(("removed", "- ", _line(node, before, title), _joined(comment(before.lines(node)), fate, by)))
    for node in hunk.added:
        by = ", ".join(after.came[node].rules)
        told.append(("added", "+ ", _line(node, after, title), _joined(comment(after.lines(node)), by)))
    width = min(WIDTH, max(len(text) for _, _, text, _ in told))
    lines = [(style, sign + (f"{text.ljust(width)}  # {why}" if why else text)) for style, sign, text, why in told]
    return [paint(style, line) if style else line for style, line in lines]


def _name(node: Node, stage: Stage, title: str) -> str:
    """A node's name in the block of that title, or with that of its own."""
    block = stage.block(node)
    return stage.name_of(node) if block is None or block.title != title else block.names[node]


def _line(node: Node, stage: Stage, title: str) -> str:
    block = stage.block(node)
    line = stage.line_of(node)
    return line if block is None or block.title == title else f"{block.title or 'graph'}:{line}"


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _noted(before: Stage, after: Stage) -> list[str]:
    """What the pass has to say of nodes."""
    return [f"  {after.line_of(n)}  # {after.notes[n]}" for n in _named(after)
            if n in after.notes and after.notes[n] != before.notes.get(n)]


def _planned(before: Stage, after: Stage, paint: Paint) -> list[str]:
    """What changed in the plan: which kernels there are, where they write, which run side by side."""
    old = {name: group for name, group, _ in named_groups(before.graph)}
    new = {name: group for name, group, _ in named_groups(after.graph)}
    lines = [paint("removed", f"- {_kernel(name, group, before)}") for name, group in old.items() if name not in new]
    for name, group in new.items():
        if name not in old:
            lines.append(paint("added", f"+ {_kernel(name, group, after)}"))
        elif group.writes != old[name].writes:
            lines.append(f"~ {name} → {', '.join(map(str, group.writes))}")
    assert after.graph.plan is not None
    steps = {step for step in _steps(after.graph.plan) if len(step) > 1}
    if before.graph.plan is not None:
        steps -= {*_steps(before.graph.plan)}
    lines += [f"~ side by side: {' '.join(step)}" for step in _steps(after.graph.plan) if step in steps]
    if after.graph.plan.arena != (before.graph.plan.arena if before.graph.plan else 0):
        lines.append(f"~ arena of {after.graph.plan.arena} bytes")
    return lines


def _kernel(name: str, group: Group, stage: Stage) -> str:
    nodes = " ".join(stage.name_of(n) for n in group.nodes if not unnamed(n)) or "passes on what is there"
    return textwrap.fill(f"{name} ({group.kind}): {nodes}", 120, subsequent_indent="    ")


def _steps(plan: Plan) -> list[tuple[str, ...]]:
    return [tuple(group.name for group in step) for step in plan.steps]
