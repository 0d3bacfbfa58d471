"""Operations that concern something else than values: differentiation, and what a run shows."""

from __future__ import annotations

from tensorc.ops.define import NoGradient, defop
from tensorc.ops.sample import sample

print = defop(
    "print",
    doc="x, which each run shows after the message, in the order of uid.",
    infer=lambda x, *, message, uid: x,
    reference=lambda x, *, message, uid: x,
    gradient=lambda node, g: [g],
    expand=lambda node: node.x,
    samples=[sample("f32[2,3]", message="x", uid=0), sample("i32[]", message="", uid=1)],
)

stop_gradient = defop(
    "stop_gradient",
    doc="x, taken as a constant by differentiation.",
    infer=lambda x: x,
    reference=lambda x: x,
    gradient=NoGradient("stop_gradient says so"),
    expand=lambda node: node.x,
    samples=[sample("f32[2,3]"), sample("i32[]"), sample("bool[0]")],
)
