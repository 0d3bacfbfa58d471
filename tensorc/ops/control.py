"""Operations that concern differentiation, not values."""

from __future__ import annotations

from tensorc.ops.define import NoGradient, defop
from tensorc.ops.sample import sample

stop_gradient = defop(
    "stop_gradient",
    doc="x, taken as a constant by differentiation.",
    infer=lambda x: x,
    reference=lambda x: x,
    gradient=NoGradient("stop_gradient says so"),
    expand=lambda node: node.x,
    samples=[sample("f32[2,3]"), sample("i32[]"), sample("bool[0]")],
)
