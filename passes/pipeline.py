"""The compiler on one screen: what happens to a graph, in order, and what a GPU has otherwise."""

from __future__ import annotations

import functools

from tensorc.passes import expand, fold, layout, loops, simplify, stabilise, weights
from tensorc.passes.buffers import plan_buffers
from tensorc.passes.fuse import fuse
from tensorc.passes.manager import Pipeline, Step, rewrite


@functools.cache
def default() -> Pipeline:
    """The compiler's own pipeline, one for all targets: some steps ask `Context.machine` (passes/target.py)."""
    # One sweep to simplify and to stabilise: each sees the other's canonical operands.  On a GPU, where a choice waits
    # for the device, it turns choices between elementwise work into selections; expanding leaves products of 16 bits;
    # fusing leaves the body of a loop one for all rows of a batch, of which threads of a processor take some each; and
    # no value is kept for the next call.
    return Pipeline(
        Step("loops", loops.arrange),
        Step("simplify", rewrite(*stabilise.RULES, *simplify.RULES)),
        Step("fold", rewrite(*fold.RULES, *simplify.RULES)),
        Step("expand", rewrite(*expand.RULES, *fold.RULES, *simplify.RULES)),
        Step("layout", layout.assign, applies=layout.RULES),
        Step("weights", weights.fold_scales, applies=weights.RULES),
        Step("share", simplify.share),
        Step("fuse", fuse, descends=True),
        Step("buffers", plan_buffers, descends=True),
    )
