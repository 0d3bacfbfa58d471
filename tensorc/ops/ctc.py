"""Connectionist temporal classification: how probable a label sequence is, summed over its alignments.

An alignment gives every time step a class; merging repeats and then dropping blanks, the last class, leaves the labels.
So alignments are the paths through the labels with a blank before, between and after them: l labels make 2·l + 1
states, and from one step to the next a path stays, moves to the next state, or skips a blank between two different
labels.

Graves, Fernández, Gomez & Schmidhuber, 2006.  All sums are of logarithms; each step is divided by the largest entry of
the step before, so that long sequences lose no digits.

A length outside of 0 … what there is, or a label that is no class, is an error that the runtime raises (`ctc_places`);
here the nearest one inside takes its place.
"""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.errors import DTypeError, ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node, Op, constant
from tensorc.ir.types import TensorType, f32, f64, i32, i64
from tensorc.ops.define import NoGradient, defop
from tensorc.ops.elementwise import lt, neg, select
from tensorc.ops.infer import agree, show_shape
from tensorc.ops.sample import sample
from tensorc.ops.shape import iota, reshape, slice

Array = NDArray[Any]

EDGE = 2
"""Columns of -inf before the first state, so that every state has two before it."""


def steps_of(logp: Node) -> Size:
    """How many time steps there are to go through; none where there is not even a class for blanks."""
    _, steps, classes = logp.shape
    return steps if isinstance(classes, int) and classes > 0 else dims.minimum(classes, 1) * steps


def _sequences(logp: TensorType, labels: TensorType, input_lengths: TensorType,
               label_lengths: TensorType) -> tuple[Size, Size, Size, Size]:
    """(batch, steps, classes, labels).  Raises ShapeError, DTypeError."""
    if logp.dtype not in (f32, f64):
        raise DTypeError(f"takes float32 or float64, not {logp.dtype.name}")
    if {labels.dtype, input_lengths.dtype, label_lengths.dtype} != {i32}:
        raise DTypeError("labels and lengths are int32")
    if (logp.rank, labels.rank, input_lengths.rank, label_lengths.rank) != (3, 2, 1, 1):
        raise ShapeError("takes log-probabilities (batch, steps, classes), labels (batch, n), two vectors of lengths")
    for other in (labels, input_lengths, label_lengths):
        agree(logp.shape[0], other.shape[0],
              f"{show_shape(logp.shape)} and {show_shape(other.shape)} are of different batches")
    batch, steps, classes = logp.shape
    return batch, steps, classes, labels.shape[1]


# What the references share.

def _extended(labels: Array, length: int, classes: int) -> tuple[Array, Array]:
    """The class of each state, and for each one 0 where it is reached over a skipped blank, else -inf."""
    states = np.full(2 * length + 1, classes - 1)
    skips = np.full(2 * length + 1, -np.inf)
    own = np.clip(labels[:length], 0, builtins.max(classes - 1, 0))
    states[1::2] = own
    skips[3::2] = np.where(own[1:] != own[:-1], 0, -np.inf)
    return states, skips


def _log_sum(*terms: Array) -> Array:
    top = np.maximum.reduce(terms)
    base = np.where(top == -np.inf, 0, top).astype(top.dtype)
    total = np.add.reduce([np.exp(x - base) for x in terms])
    return np.asarray(base + np.log(total), top.dtype)


def _divisor(row: Array) -> Any:
    top = row.max()
    return row.dtype.type(0) if top == -np.inf else top


def _inside(length: Any, most: int) -> int:
    return int(np.clip(length, 0, most))


# The loss.

def _paths_type(logp: TensorType, labels: TensorType, input_lengths: TensorType,
                label_lengths: TensorType) -> TensorType:
    batch, steps, _, n = _sequences(logp, labels, input_lengths, label_lengths)
    return logp.with_shape((batch, steps + 1, 2 * n + 1 + EDGE))


def _paths(logp: Array, labels: Array, input_lengths: Array, label_lengths: Array) -> Array:
    batch, steps, classes = logp.shape
    table = np.full((batch, steps + 1, 2 * labels.shape[1] + 1 + EDGE), -np.inf, logp.dtype)
    with np.errstate(all="ignore"):
        for b in range(batch):
            length = _inside(label_lengths[b], labels.shape[1])
            states, skips = _extended(labels[b], length, classes)
            width = len(states)
            table[b, 0, EDGE] = 0
            total = logp.dtype.type(0)
            last = _inside(input_lengths[b], steps if classes else 0)
            for t in range(last):
                stay, move, skip = (table[b, t, e:e + width] for e in (2, 1, 0))
                before = _log_sum(stay, move, (skip + skips).astype(logp.dtype))
                base = _divisor(stay)
                table[b, t + 1, EDGE:EDGE + width] = logp[b, t, states] + (before - base)
                total += base
                table[b, t + 1, 0] = total
            ends = table[b, last, EDGE + width - 2:EDGE + width]
            table[b, 0, 0] = -(total + _log_sum(ends[:1], ends[1:])[0])
    return table


ctc_paths: Op = defop(
    "ctc_paths",
    doc="For each sequence a table: from column 2 on, row t + 1 holds for each state the logarithm of the probability "
        "of all paths that are there at step t, less what stands in column 0: the sum of the largest entries of all "
        "rows before.  In the first element stands the loss.",
    infer=_paths_type,
    reference=_paths,
    gradient=NoGradient("it serves ctc_loss, whose gradient is ctc_posterior; that has none of its own"),
    kernel="ctc",
    samples=[
        sample("f32[2,5,4]", "i32[2,3]", "i32[2]", "i32[2]", fixed={1: [[0, 0, 2], [1, 2, 9]], 2: [5, 4], 3: [3, 2]}),
        sample("f64[3,4,3]", "i32[3,2]", "i32[3]", "i32[3]",
               fixed={1: [[1, 1], [0, 1], [0, 0]], 2: [2, 0, 3], 3: [2, 0, 0]}),
        sample("f32[1,3,1]", "i32[1,0]", "i32[1]", "i32[1]", fixed={1: [[]], 2: [3], 3: [0]}),
        sample("f32[0,3,2]", "i32[0,1]", "i32[0]", "i32[0]", span=(0, 0.9)),
    ],
)


def _loss_type(logp: TensorType, labels: TensorType, input_lengths: TensorType,
               label_lengths: TensorType) -> TensorType:
    return logp.with_shape((_sequences(logp, labels, input_lengths, label_lengths)[0],))


def _loss_gradient(node: Any, g: Any) -> list[Node | None]:
    """The probability of each class at each step, given the labels, with the opposite sign."""
    paths = ctc_paths(node.logp, node.labels, node.input_lengths, node.label_lengths)
    given = ctc_posterior(node.logp, node.labels, node.input_lengths, node.label_lengths, paths)
    return [neg(reshape(g, shape=(node.shape[0], 1, 1)) * given), None, None, None]


def _loss_expansion(node: Any) -> Node:
    paths = ctc_paths(node.logp, node.labels, node.input_lengths, node.label_lengths)
    batch = node.shape[0]
    corner = slice(paths, starts=(0, 0, 0), limits=(batch, 1, 1), steps=(1, 1, 1))
    loss: Node = reshape(corner, shape=(batch,))
    return loss


ctc_loss = defop(
    "ctc_loss",
    doc="For each sequence minus the logarithm of the probability of its labels, given that of each class at each step "
        "(batch, steps, classes); inf where no alignment is long enough.  Only the first of the labels and of the "
        "steps count, as many as the lengths say.",
    infer=_loss_type,
    reference=lambda *operands: _paths(*operands)[:, 0, 0],
    gradient=_loss_gradient,
    expand=_loss_expansion,
    samples=[
        sample("f32[2,5,4]", "i32[2,3]", "i32[2]", "i32[2]", fixed={1: [[0, 0, 2], [1, 2, 9]], 2: [5, 4], 3: [3, 2]}),
        sample("f64[3,4,3]", "i32[3,2]", "i32[3]", "i32[3]",
               fixed={1: [[1, 1], [0, 1], [0, 0]], 2: [3, 0, 3], 3: [2, 0, 0]}),
        sample("f32[0,3,2]", "i32[0,1]", "i32[0]", "i32[0]", span=(0, 0.9)),
    ],
)


def _posterior_type(logp: TensorType, labels: TensorType, input_lengths: TensorType, label_lengths: TensorType,
                    paths: TensorType) -> TensorType:
    table = _paths_type(logp, labels, input_lengths, label_lengths)
    if paths.dtype is not logp.dtype or paths.rank != 3:
        raise DTypeError(f"paths are {table.dtype.name} and have three axes")
    for have, want in zip(paths.shape, table.shape, strict=True):
        agree(have, want, f"paths are {show_shape(table.shape)}, not {show_shape(paths.shape)}")
    return logp


def _posterior(logp: Array, labels: Array, input_lengths: Array, label_lengths: Array, paths: Array) -> Array:
    batch, steps, classes = logp.shape
    found = np.zeros_like(logp)
    with np.errstate(all="ignore"):
        for b in range(batch):
            length = _inside(label_lengths[b], labels.shape[1])
            states, skips = _extended(labels[b], length, classes)
            width = len(states)
            skips = np.append(skips, [0, -np.inf])
            total_cost, divided = paths[b, 0, 0], logp.dtype.type(0)
            after = np.append(np.full(width, -np.inf), [0, -np.inf]).astype(logp.dtype)
            for t in reversed(range(_inside(input_lengths[b], steps if classes else 0))):
                skip = (after[2:] + skips[2:]).astype(logp.dtype)
                rest = _log_sum(after[:width], after[1:width + 1], skip)
                through = paths[b, t + 1, EDGE:EDGE + width] + rest
                known = -(total_cost + paths[b, t + 1, 0] + divided)
                weights = np.exp(through - (0 if known == -np.inf else known))
                total = weights.sum()
                scale = logp.dtype.type(0) if total == 0 else logp.dtype.type(1) / total
                np.add.at(found[b, t], states, weights * scale)
                base = _divisor(after[:width + 1])
                row = logp[b, t, states] + (rest - base)
                divided += base
                after = np.append(row, [-np.inf, -np.inf]).astype(logp.dtype)
    return found


ctc_posterior: Op = defop(
    "ctc_posterior",
    doc="The probability of each class at each step given the labels; 0 after the last step, and where no alignment is "
        "long enough.  `paths` are those of ctc_paths.",
    infer=_posterior_type,
    reference=_posterior,
    gradient=NoGradient("second derivatives of the CTC loss are not supported"),
    kernel="ctc",
    samples=[
        sample("f32[2,5,4]", "i32[2,3]", "i32[2]", "i32[2]", "f32[2,6,9]",
               fixed={1: [[0, 0, 2], [1, 2, 9]], 2: [5, 4], 3: [3, 2]}),
        sample("f64[3,4,3]", "i32[3,2]", "i32[3]", "i32[3]", "f64[3,5,7]",
               fixed={1: [[1, 1], [0, 1], [0, 0]], 2: [2, 0, 3], 3: [2, 0, 0]}),
        sample("f32[1,3,1]", "i32[1,0]", "i32[1]", "i32[1]", "f32[1,4,3]", fixed={1: [[]], 2: [3], 3: [0]}),
        sample("f32[0,3,2]", "i32[0,1]", "i32[0]", "i32[0]", "f32[0,4,5]", span=(0, 0.9)),
    ],
)


# Decoding.

def _greedy_type(best: TensorType, lengths: TensorType, *, blank: Size) -> TensorType:
    if best.dtype is not i32 or lengths.dtype is not i32:
        raise DTypeError("classes and lengths are int32")
    if best.rank != 2 or lengths.rank != 1:
        raise ShapeError("takes classes (batch, steps) and a vector of lengths")
    agree(best.shape[0], lengths.shape[0], "classes and lengths are of different batches")
    return best.with_dtype(i64)


def _greedy(best: Array, lengths: Array, *, blank: int) -> Array:
    found = np.full(best.shape, -1, np.int64)
    for row, out, length in zip(best, found, lengths, strict=True):
        path = row[:_inside(length, len(row))]
        first = np.append(True, path[1:] != path[:-1])[:len(path)]
        kept = path[first & (path != blank)]
        out[:len(kept)] = kept
    return found


ctc_greedy = defop(
    "ctc_greedy",
    doc="The labels of one alignment of each sequence: repeats merged, blanks dropped, then -1.",
    infer=_greedy_type,
    reference=_greedy,
    gradient=NoGradient("labels are whole numbers"),
    kernel="ctc",
    samples=[sample("i32[3,6]", "i32[3]", blank=2,
                    fixed={0: [[0, 0, 2, 0, 1, 1], [2, 2, 2, 2, 2, 2], [1, 0, 1, 1, 0, 0]], 1: [6, 6, 4]}),
             sample("i32[1,0]", "i32[1]", blank=3, fixed={0: [[]], 1: [0]}),
             sample("i32[0,2]", "i32[0]", blank=0, span=(0, 0))],
)


# Indices that must be inside.

def ctc_places(node: Any) -> list[tuple[Node, Size, str]]:
    """What the runtime checks of a loss: indices, how many there are to choose from, and what they are."""
    _, steps, classes = node.logp.shape
    batch, n = node.labels.shape
    at = iota(shape=(batch, n), axis=1, dtype=i32)
    counts = lt(at, reshape(node.label_lengths, shape=(batch, 1)))
    labels = select(counts, node.labels, constant(0, i32))
    return [(node.input_lengths, steps + 1, "input_length"), (node.label_lengths, n + 1, "label_length"),
            (labels, dims.maximum(classes - 1, 1), "label")]
