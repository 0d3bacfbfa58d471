"""What a call of a scalar function costs, those of users among them."""

from __future__ import annotations

from tensorc.codegen import loopir as ir
from tensorc.codegen.scalars import SCALARS
from tensorc.codegen.straight import NAMES, PURE, straight

CALLED = 100
"""The cost of a call for one lane after another, of a function of the C library."""

LANE_BY_LANE = 400
"""That of a user's function with a loop."""


def call_cost(e: ir.Call) -> int:
    """The work of a call, in the terms of `Scalar.cost`."""
    scalar = SCALARS[e.fn]
    if scalar.source is None:
        return scalar.cost
    line = straight(scalar.source(tuple(a.dtype for a in e.args)))
    if line is None:
        return LANE_BY_LANE
    return sum(_step_cost(step.what) for step in line.steps)


def _step_cost(what: str) -> int:
    if what == "freeze":
        return 0
    name = NAMES.get(what, "")
    return SCALARS[name].cost if name in SCALARS else CALLED if what in PURE else 1
