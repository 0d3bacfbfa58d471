"""Connectionist temporal classification as loops: the sequences of a batch are the grid, steps follow one another.

The states of a step are one loop whose iterations do not meet, since they read the row of the step before: lanes lie
along them.  What `tensorc.ops.ctc` says in NumPy is said here in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tensorc.codegen import loopir as ir
from tensorc.codegen.ctc_beam import beam
from tensorc.codegen.writing import Workshop, Writer, Written
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import i32, i64
from tensorc.ops.ctc import EDGE, steps_of


def paths(shop: Workshop) -> Written:
    """out[b, t + 1, s] from out[b, t, …]: the logarithms of the sums over paths, row after row; the loss in front."""
    logp, labels, input_lengths, label_lengths = shop.operands
    out, b = shop.out, shop.claim("b")
    batch, rows, width = out.shape
    w = Writer(shop.claim, out.dtype)
    with_states, states, skips = _states(w, shop, b, labels, logp.shape[2], extra=0)
    largest = shop.scratch("largest", out.dtype, (batch, rows))

    w.loop("i", rows, lambda i: w.loop("z", width, lambda z: w.store(out, (b, i, z), -math.inf)))
    last = w.length("last", input_lengths, b, steps_of(shop.node.args[0]))
    n = with_states(label_lengths)
    w.store(out, (b, 0, EDGE), 0.0)
    w.store(largest, (b, 0), 0.0)
    total = w.acc("total", "add")

    def step(t: Size) -> None:
        base = w.bound("divisor", w.finite(w.load(largest, b, t)))
        high = w.acc("high", "max")

        def state(s: Size) -> None:
            before = w.log_sum(w.load(out, b, t, s + 2), w.load(out, b, t, s + 1),
                               w.call("add", w.load(out, b, t, s), w.load(skips, b, s)))
            own = w.place("c", w.load(states, b, s))
            value = w.bound("v", w.call("add", w.load(logp, b, t, own), w.call("sub", before, base)))
            w.store(out, (b, t + 1, s + EDGE), value)
            w.feed(high, value)

        w.loop("s", 2 * n + 1, state)
        w.store(largest, (b, t + 1), high)
        w.store(out, (b, t + 1, 0), w.scan("divided", total, base))

    w.loop("t", last, step)
    ends = w.log_sum(w.load(out, b, last, 2 * n + 1), w.load(out, b, last, 2 * n + 2))
    w.store(out, (b, 0, 0), w.call("neg", w.call("add", total, ends)))
    return ((b, batch),), w.body


def posterior(shop: Workshop) -> Written:
    """out[b, t, c] = Σ over the states of class c of exp(paths up to t + paths after t), each step divided by its sum.

    `after[b, k, s]` sums the paths from state s on, over the last k steps.  What a step sums to is known from the loss
    and from what the rows were divided by, but for rounding: so exp stays in its range.
    """
    logp, labels, input_lengths, label_lengths, before = shop.operands
    out, b = shop.out, shop.claim("b")
    batch, steps, classes = out.shape
    w = Writer(shop.claim, out.dtype)
    width = before.shape[2]
    after = shop.scratch("after", out.dtype, (batch, steps + 1, width))
    weights = shop.scratch("weights", out.dtype, (batch, width))
    largest = shop.scratch("largest", out.dtype, (batch, steps + 1))
    with_states, states, skips = _states(w, shop, b, labels, classes, extra=2)

    w.loop("i", steps, lambda i: w.loop("z", classes, lambda z: w.store(out, (b, i, z), 0.0)))
    last = w.length("last", input_lengths, b, steps_of(shop.node.args[0]))
    n = with_states(label_lengths)
    w.store(skips, (b, 2 * n + 1), 0.0)
    w.store(skips, (b, 2 * n + 2), -math.inf)
    w.loop("z", width, lambda z: w.store(after, (b, 0, z), -math.inf))
    w.store(after, (b, 0, 2 * n + 1), 0.0)
    w.store(largest, (b, 0), 0.0)
    loss = w.bound("loss", w.load(before, b, 0, 0))
    all_after = w.acc("all_after", "add")

    def step(k: Size) -> None:
        t = last - 1 - k
        base = w.bound("divisor", w.finite(w.load(largest, b, k)))
        divided = w.scan("divided", all_after, base)
        both = w.call("add", w.load(before, b, t + 1, 0), w.call("sub", divided, base))
        known = w.bound("known", w.finite(w.call("neg", w.call("add", loss, both))))
        high, total, blank = w.acc("high", "max"), w.acc("total", "add"), w.acc("blank", "add")

        def state(s: Size) -> None:
            rest = w.log_sum(w.load(after, b, k, s), w.load(after, b, k, s + 1),
                             w.call("add", w.load(after, b, k, s + 2), w.load(skips, b, s + 2)))
            through = w.call("add", w.load(before, b, t + 1, s + EDGE), rest)
            weight = w.bound("weight", w.call("exp", w.call("sub", through, known)))
            w.store(weights, (b, s), weight)
            w.feed(total, weight)
            own = w.place("c", w.load(states, b, s))
            is_blank = w.call("eq", w.load(states, b, s), w.size(classes - 1))
            w.feed(blank, w.call("select", is_blank, weight, 0.0))
            value = w.bound("v", w.call("add", w.load(logp, b, t, own), w.call("sub", rest, base)))
            w.store(after, (b, k + 1, s), value)
            w.feed(high, value)

        w.loop("s", 2 * n + 1, state)
        w.store(after, (b, k + 1, 2 * n + 1), -math.inf)
        w.store(after, (b, k + 1, 2 * n + 2), -math.inf)
        w.store(largest, (b, k + 1), high)
        scale = w.bound("scale", w.call("select", w.call("eq", total, 0.0), 0.0, w.call("div", 1.0, total)))
        w.store(out, (b, t, classes - 1), w.call("mul", blank, scale))

        def label(j: Size) -> None:
            own = w.place("c", w.load(states, b, 2 * j + 1))
            more = w.call("mul", w.load(weights, b, 2 * j + 1), scale)
            w.store(out, (b, t, own), w.call("add", w.load(out, b, t, own), more))

        w.loop("j", n, label)

    w.loop("k", last, step)
    return ((b, batch),), w.body


def greedy(shop: Workshop) -> Written:
    """out[b, …] = the classes best[b, t] that are no blanks and differ from the one before, one behind the other."""
    best, lengths = shop.operands
    out, b = shop.out, shop.claim("b")
    batch, steps = out.shape
    w = Writer(shop.claim, i32)
    w.loop("z", steps, lambda z: w.store(out, (b, z), -1))
    last = w.length("last", lengths, b, steps)
    kept = w.acc("kept", "add")

    def step(t: Size) -> None:
        own, before = w.load(best, b, t), w.load(best, b, dims.maximum(t - 1, 0))
        first = w.call("or", w.call("ne", own, before), w.call("eq", w.size(t), 0))
        keep = w.place("keep", ir.Cast(w.call("and", first, w.call("ne", own, w.size(shop.node.blank))), i32))
        place = dims.symbol(w.scan("place", kept, w.size(keep)).name)
        w.loop("once", keep, lambda _: w.store(out, (b, place - 1), ir.Cast(own, i64)))

    w.loop("t", last, step)
    return ((b, batch),), w.body


def _states(w: Writer, shop: Workshop, b: str, labels: ir.Buffer, classes: Size,
            extra: int) -> tuple[Callable[[ir.Buffer], Size], ir.Buffer, ir.Buffer]:
    """What writes the states of sequence b, given the buffer of label counts, and says how many labels there are.

    Besides, the buffers that hold the class of each state, and 0 where it is reached over a skipped blank, else -inf.
    """
    batch, most = labels.shape
    states = shop.scratch("states", i32, (batch, 2 * most + 1))
    skips = shop.scratch("skips", w.dtype, (batch, 2 * most + 1 + extra))

    def written(label_lengths: ir.Buffer) -> Size:
        n = w.length("n", label_lengths, b, most)
        blank = w.size(classes - 1)

        def label(j: Size) -> None:
            def at(place: Size) -> ir.Expr:
                low = w.call("maximum", w.load(labels, b, place), w.size(0))
                return w.call("minimum", low, w.call("maximum", blank, w.size(0)))

            own, before = at(j), at(dims.maximum(j - 1, 0))
            w.store(states, (b, 2 * j), blank)
            w.store(skips, (b, 2 * j), -math.inf)
            w.store(states, (b, 2 * j + 1), own)
            w.store(skips, (b, 2 * j + 1), w.call("select", w.call("ne", own, before), 0.0, -math.inf))

        w.loop("j", n, label)
        w.store(states, (b, 2 * n), blank)
        w.store(skips, (b, 2 * n), -math.inf)
        return n

    return written, states, skips


WRITERS: Mapping[str, Callable[[Workshop], Written]] = {
    "ctc_paths": paths,
    "ctc_posterior": posterior,
    "ctc_greedy": greedy,
    "ctc_beam": beam,
}
