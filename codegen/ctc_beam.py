"""The search among prefixes as loops: `tensorc.ops.ctc_beam` says what it means.

A prefix is a slot of tables of two layers: step t reads layer t % 2 and fills the other.  Candidates are put where they
belong in a list of the best, the slots themselves first and then their children, so of equal ones the first stays.
A slot finds its parent by comparing the labels where lengths and hashes agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tensorc.codegen import loopir as ir
from tensorc.codegen.writing import Workshop, Writer, Written
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import DType, boolean, i32, i64
from tensorc.ops.ctc import steps_of

FACTOR = 6364136223846793005
"""What a hash is multiplied by: Knuth's multiplier of 64 bits."""

EMPTY = -2
"""The length of a slot that holds no prefix: no other length is one more or less."""


@dataclass(frozen=True)
class _Slots:
    """The tables of prefixes [b, layer, slot, …]; `above` is the hash of all labels but the last."""

    blank: ir.Buffer
    label: ir.Buffer
    both: ir.Buffer
    length: ir.Buffer
    hash: ir.Buffer
    above: ir.Buffer
    last: ir.Buffer
    node: ir.Buffer
    path: ir.Buffer


@dataclass(frozen=True)
class _Best:
    """The list of the best candidates [b, place]: score, the slot they come from, the label added or -1."""

    score: ir.Buffer
    slot: ir.Buffer
    label: ir.Buffer


def beam(shop: Workshop) -> Written:
    """For each sequence, step after step: parents are found, slots stay and grow, the best fill the next layer."""
    return _Beam(shop).written()


class _Beam:
    def __init__(self, shop: Workshop) -> None:
        self.logp, self.lengths, self.words, self.ends = shop.operands
        self.out, self.shop = shop.out, shop
        self.width: int = shop.node.width
        self.batch, self.steps, self.classes = self.logp.shape
        self.b = shop.claim("b")
        self.w = Writer(shop.claim, self.out.dtype)

        def table(name: str, dtype: DType, *shape: Size) -> ir.Buffer:
            return shop.scratch(name, dtype, (self.batch, *shape))

        number, many = self.out.dtype, self.width
        self.slots = _Slots(
            table("in_blank", number, 2, many), table("in_label", number, 2, many), table("both", number, 2, many),
            table("length", i32, 2, many), table("hash", i64, 2, many), table("above", i64, 2, many),
            table("last_label", i32, 2, many), table("node", i32, 2, many), table("path", i32, 2, many, self.steps),
        )
        self.best = _Best(table("score", number, many), table("slot", i32, many), table("grown", i32, many))
        self.stay_blank, self.stay_label = table("stay_blank", number, many), table("stay_label", number, many)
        self.parent = table("parent", i32, many)
        self.taken = table("taken", i32, many, dims.maximum(self.words.shape[1], 1))

    def written(self) -> Written:
        w, b, out = self.w, self.b, self.out
        _, top, columns = out.shape

        def blank_row(k: Size) -> None:
            w.loop("z", columns, lambda z: w.store(out, (b, k, z), -1.0))
            w.store(out, (b, k, 0), -math.inf)

        w.loop("i", top, blank_row)
        last = w.length("last", self.lengths, b, steps_of(self.shop.node.args[0]))
        self.start()
        w.loop("t", last, self.step)
        self.give(dims.mod(last, 2), top)
        return ((b, self.batch),), w.body

    # -- access

    def at(self, table: ir.Buffer, layer: Size, slot: Size, *more: Size) -> ir.Expr:
        return self.w.load(table, self.b, layer, slot, *more)

    def put(self, table: ir.Buffer, layer: Size, slot: Size, value: ir.Expr | float, *more: Size) -> None:
        self.w.store(table, (self.b, layer, slot, *more), value)

    def least(self, value: ir.Expr) -> ir.Expr:
        """A whole number that is not below 0."""
        return self.w.call("maximum", value, 0)

    # -- steps

    def start(self) -> None:
        """The empty prefix, whose probability is 1, in the first slot."""
        s = self.slots

        def empty(v: Size) -> None:
            for table in (s.blank, s.label, s.both):
                self.put(table, 0, v, -math.inf)
            self.put(s.length, 0, v, EMPTY)
            for table in (s.hash, s.above, s.last, s.node):
                self.put(table, 0, v, 0)

        self.w.loop("v", self.width, empty)
        self.put(s.blank, 0, 0, 0.0)
        self.put(s.both, 0, 0, 0.0)
        self.put(s.length, 0, 0, 0)

    def step(self, t: Size) -> None:
        w, b = self.w, self.b
        now, then = dims.mod(t, 2), dims.mod(t + 1, 2)
        self.clear()
        w.loop("v", self.width, lambda v: w.loop("z", self.taken.shape[2], lambda z: w.store(self.taken, (b, v, z), 0)))
        w.loop("v", self.width, lambda v: w.loop("u", self.width, lambda u: self.find_parent(now, v, u)))
        w.loop("v", self.width, lambda v: self.stay(now, t, v))
        w.loop("v", self.width, lambda v: self.grow(now, t, v))
        w.loop("v", self.width, lambda v: self.fill(now, then, v))

    def clear(self) -> None:
        """An empty list of candidates, and no parents."""
        w, b = self.w, self.b

        def nothing(v: Size) -> None:
            w.store(self.best.score, (b, v), -math.inf)
            w.store(self.best.slot, (b, v), 0)
            w.store(self.best.label, (b, v), -1)
            w.store(self.parent, (b, v), -1)

        w.loop("v", self.width, nothing)

    def find_parent(self, now: Size, v: Size, u: Size) -> None:
        """Slot u is the parent of v if it holds all of its labels but the last."""
        w, s = self.w, self.slots
        lengths = w.call("eq", w.call("add", self.at(s.length, now, u), 1), self.at(s.length, now, v))
        alike = w.call("and", lengths, w.call("eq", self.at(s.hash, now, u), self.at(s.above, now, v)))

        def compare() -> None:
            same = w.acc("same", "and", boolean)
            n = w.place("n", self.at(s.length, now, u))
            w.loop("j", n, lambda j: w.feed(same, w.call(
                "eq", self.at(s.path, now, u, j), self.at(s.path, now, v, j))))
            w.when(same, link)

        def link() -> None:
            w.store(self.parent, (self.b, v), w.size(u))
            w.store(self.taken, (self.b, u, w.place("c", self.at(s.last, now, v))), 1)

        w.when(alike, compare)

    def stay(self, now: Size, t: Size, v: Size) -> None:
        """A prefix as it is: a blank, its last label again, or that label for the first time from its parent."""
        w, s = self.w, self.slots
        label = self.at(s.last, now, v)
        c = w.place("c", label)
        up = w.load(self.parent, self.b, v)
        u = w.place("u", self.least(up))
        again = w.call("and", w.call("eq", self.at(s.last, now, u), label), w.call("gt", self.at(s.length, now, u), 0))
        mass = w.call("select", again, self.at(s.blank, now, u), self.at(s.both, now, u))
        joined = w.call("select", w.call("ge", up, 0), mass, -math.inf)
        ending = w.call("add", w.log_sum(self.at(s.label, now, v), joined), w.load(self.logp, self.b, t, c))
        ended = w.bound("ended", w.call("select", w.call("gt", self.at(s.length, now, v), 0), ending, -math.inf))
        silence = w.load(self.logp, self.b, t, self.classes - 1)
        silent = w.bound("silent", w.call("add", self.at(s.both, now, v), silence))
        w.store(self.stay_blank, (self.b, v), silent)
        w.store(self.stay_label, (self.b, v), ended)
        self.insert(w.log_sum(silent, ended), v, w.size(-1))

    def grow(self, now: Size, t: Size, v: Size) -> None:
        """A prefix and one label more, where no slot holds that already and the tree allows it."""
        w, s = self.w, self.slots
        node = w.place("at", self.at(s.node, now, v))
        real = w.bound("real", w.call("gt", self.at(s.length, now, v), 0))
        label = w.bound("label", self.at(s.last, now, v))
        blank, both = w.bound("quiet", self.at(s.blank, now, v)), w.bound("all", self.at(s.both, now, v))

        def child(c: Size) -> None:
            again = w.call("and", real, w.call("eq", label, w.size(c)))
            mass = w.bound("mass", w.call("add", w.call("select", again, blank, both), w.load(self.logp, self.b, t, c)))
            free = w.call("eq", w.load(self.taken, self.b, v, c), 0)
            allowed = w.call("and", free, w.call("ge", w.load(self.words, node, c), 0))
            self.insert(mass, v, w.size(c), allowed)

        w.loop("c", dims.minimum(self.words.shape[1], dims.maximum(self.classes - 1, 0)), child)

    def insert(self, score: ir.Expr, slot: Size, label: ir.Expr, allowed: ir.Expr | None = None) -> None:
        """A candidate behind all that are as good, if it is better than the last one."""
        w, b, best = self.w, self.b, self.best
        fits = w.call("gt", score, w.load(best.score, b, self.width - 1))

        def shift() -> None:
            better = w.acc("better", "add", i32)
            w.loop("k", self.width, lambda k: w.feed(better, ir.Cast(
                w.call("ge", w.load(best.score, b, k), score), i32)))
            place = w.place("place", better)

            def move(k: Size) -> None:
                for table in (best.score, best.slot, best.label):
                    w.store(table, (b, self.width - 1 - k), w.load(table, b, self.width - 2 - k))

            w.loop("k", self.width - 1 - place, move)
            w.store(best.score, (b, place), score)
            w.store(best.slot, (b, place), w.size(slot))
            w.store(best.label, (b, place), label)

        w.when(fits if allowed is None else w.call("and", allowed, fits), shift)

    def fill(self, now: Size, then: Size, i: Size) -> None:
        """A slot of the next layer from the candidate at its place."""
        w, b, s = self.w, self.b, self.slots
        score = w.bound("score_here", w.load(self.best.score, b, i))
        v = w.place("from_", w.load(self.best.slot, b, i))
        label = w.bound("label", w.load(self.best.label, b, i))
        filled = w.bound("filled", w.call("gt", score, -math.inf))
        n = w.place("n", self.least(self.at(s.length, now, v)))
        kept = w.bound("kept", w.call("and", filled, w.call("lt", label, 0)))
        self.put(s.both, then, i, score)
        self.put(s.blank, then, i, w.call("select", kept, w.load(self.stay_blank, b, v), -math.inf))
        self.put(s.label, then, i, w.call("select", kept, w.load(self.stay_label, b, v), score))
        self.put(s.length, then, i, w.call("select", filled, w.size(n), w.size(EMPTY)))
        for table in (s.hash, s.above, s.last, s.node):
            self.put(table, then, i, self.at(table, now, v))
        w.loop("j", n, lambda j: self.put(s.path, then, i, self.at(s.path, now, v, j), j))

        def added() -> None:
            c = w.place("c", label)
            before = w.bound("before", self.at(s.hash, now, v))
            self.put(s.length, then, i, w.size(n + 1))
            self.put(s.above, then, i, before)
            mixed = w.call("add", w.call("mul", before, FACTOR), ir.Iter(c + 1, i64))
            self.put(s.hash, then, i, mixed)
            self.put(s.last, then, i, label)
            self.put(s.node, then, i, w.load(self.words, w.place("at", self.at(s.node, now, v)), c))
            self.put(s.path, then, i, label, n)

        w.when(w.call("and", filled, w.call("ge", label, 0)), added)

    def give(self, layer: Size, top: Size) -> None:
        """The best of the slots that may end, in the form that the operation gives."""
        w, b, s, out = self.w, self.b, self.slots, self.out
        self.clear()

        def rank(v: Size) -> None:
            node = w.place("at", self.at(s.node, layer, v))
            total = w.call("add", self.at(s.both, layer, v), w.load(self.ends, node))
            self.insert(w.bound("total", total), v, w.size(-1))

        w.loop("v", self.width, rank)

        def row(k: Size) -> None:
            score = w.bound("score_here", w.load(self.best.score, b, k))
            v = w.place("from_", w.load(self.best.slot, b, k))

            def write() -> None:
                w.store(out, (b, k, 0), score)
                kept = w.acc("kept", "add", i32)

                def label(j: Size) -> None:
                    own = w.bound("own", self.at(s.path, layer, v, j))
                    counts: ir.Expr = w.call("eq", w.size(0), 0)
                    if self.shop.node.merge:
                        other = w.call("ne", own, self.at(s.path, layer, v, dims.maximum(j - 1, 0)))
                        counts = w.call("or", other, w.call("eq", w.size(j), 0))
                    keep = w.place("keep", ir.Cast(counts, i32))
                    place = dims.symbol(w.scan("place", kept, w.size(keep)).name)
                    w.loop("once", keep, lambda _: w.store(out, (b, k, place), ir.Cast(own, out.dtype)))

                w.loop("j", w.place("n", self.at(s.length, layer, v)), label)

            w.when(w.call("gt", score, -math.inf), write)

        w.loop("k", top, row)
