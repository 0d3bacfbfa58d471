"""The compiler on one screen: what happens to a graph, in order."""

from __future__ import annotations

import functools

from tensorc.passes import expand, fold, layout, loops, simplify, stabilise, weights
from tensorc.passes.buffers import plan_buffers
from tensorc.passes.fuse import fuse
from tensorc.passes.manager import Pipeline, Step, rewrite


@functools.cache
def default(target: str = "cpu") -> Pipeline:
    """The pipeline of a target, "cpu" or "cuda"."""
    return Pipeline(
        Step("loops", loops.arrange),
        Step("simplify", rewrite(*stabilise.RULES, *simplify.RULES)),      # one sweep: each sees canonical operands
        Step("fold", rewrite(*fold.RULES, *simplify.RULES)),
        Step("expand", rewrite(*expand.RULES[target], *fold.RULES, *simplify.RULES)),
        Step("layout", layout.assign, applies=layout.RULES),
        Step("weights", weights.fold_scales, applies=weights.RULES),
        Step("share", simplify.share),
        Step("fuse", fuse, descends=True),
        Step("buffers", plan_buffers, descends=True),
    )
