"""The passes of a pipeline in order, and the rewrites of each with their formulas."""

from __future__ import annotations

from tensorc.inspect.paint import Paint
from tensorc.inspect.why import formula, rules_of
from tensorc.passes.manager import Pipeline


def rules(pipeline: Pipeline, paint: Paint) -> str:
    """Each pass, and below it the rewrites that no pass before it has told of."""
    lines: list[str] = []
    told: set[str] = set()
    for step in pipeline.steps:
        found = {rule.name: rule for rule in rules_of(step)}
        again = len(found.keys() & told)
        what = f"and {again} of those above" if again else formula(step.run) if not found else ""
        lines.append(paint("title", step.name) + (f"  {what}" if what else ""))
        new = [rule for name, rule in found.items() if name not in told]
        width = max((len(rule.name) for rule in new), default=0)
        lines += [f"  {paint('name', rule.name.ljust(width))}  {formula(rule)}" for rule in new]
        told |= found.keys()
    return "\n".join(lines)
