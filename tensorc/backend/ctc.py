"""Connectionist temporal classification: the loss, decoding, sparse labels.  The last class is the blank."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from tensorc import ops
from tensorc.backend.config import epsilon
from tensorc.backend.convert import as_node, cast_node
from tensorc.backend.math import as_float
from tensorc.backend.provenance import public
from tensorc.backend.shapes import reshaped
from tensorc.backend.sizes import size_node
from tensorc.backend.sparse import Csr, SparseTensor
from tensorc.backend.tensor import Tensor
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ir.types import i32, i64
from tensorc.ops.infer import agree, show_shape
from tensorc.ops.late import late_size


@public("K.ctc_batch_cost")
def ctc_batch_cost(y_true: Any, y_pred: Any, input_length: Any, label_length: Any) -> Tensor:
    """Minus the logarithm of the probability of a label sequence, summed over all its alignments.

    Args:
        y_true: labels (batch, n), whole numbers below classes - 1; those beyond a label length do not count.
        y_pred: probabilities (batch, steps, classes), the last class being the blank.  ε is added to them, and
            each step is normalised.
        input_length, label_length: how many steps, and how many labels, count: (batch, 1).  A label length of 0
            stands for no label at all.

    Returns: (batch, 1), in the dtype of y_pred; inf, with gradient 0, where the steps are too few for the labels.
    Raises: ShapeError for shapes that do not fit.  A call raises IndexRangeError for a length or a label outside.
    Source: Graves et al., Connectionist Temporal Classification, ICML 2006.
    """
    labels, p = cast_node(as_node(y_true), i32), as_float(y_pred)
    _check_ranks(labels, p)
    batch = p.shape[0]
    steps, count = _lengths(input_length, batch, "input_length"), _lengths(label_length, batch, "label_length")
    agree(batch, labels.shape[0], f"y_pred is of {batch} sequences, y_true of {labels.shape[0]}")
    wide = cast_node(p, p.dtype.wide)
    loss = ops.ctc_loss(_log_probabilities(wide), labels, steps, count)
    return Tensor(cast_node(reshaped(loss, (batch, 1)), p.dtype))


@public("K.ctc_decode")
def ctc_decode(y_pred: Any, input_length: Any, greedy: bool = True, beam_width: int = 100, top_paths: int = 1,
               merge_repeated: bool = False, dict_seq_lens: Any = None,
               dict_values: Any = None) -> tuple[list[Tensor], Tensor]:
    """The most probable label sequences.

    Args:
        y_pred: probabilities (batch, steps, classes), the last class being the blank; ε is added to them.
        input_length: how many steps count: (batch,) or (batch, 1).
        greedy: take the most probable class of each step, merge repeats and drop blanks; else search among the
            prefixes of label sequences, keeping the best ones at each step.
        beam_width: how many prefixes the search keeps.
        top_paths: how many sequences the search gives.
        merge_repeated: merge equal neighbours in what the search gives: "a b b" becomes "a b".
        dict_values, dict_seq_lens: label sequences, one a row, and how long they are: the search gives no others.

    Returns: a list of sequences, int64 (batch, longest), each filled with -1 up to the longest one of the batch, and
        logarithms of probabilities: (batch, 1) for the greedy path, that of the alignment with the opposite sign and
        without normalisation; (batch, top_paths) for the search, -inf where there was no further sequence, which is
        empty then.  `longest` is known only when a function has run: the sequences can be outputs of a function, but
        nothing can be computed from them.
    Raises: ShapeError for shapes that do not fit; ArgumentError for a beam that is narrower than the paths asked for,
        or a dictionary that does not fit.  A call raises IndexRangeError for a length outside.
    Source: Graves, Supervised Sequence Labelling with Recurrent Neural Networks, 2012, section 7.5.
    """
    p = as_float(y_pred)
    _check_probabilities(p)
    steps = _lengths(input_length, p.shape[0], "input_length")
    wide = cast_node(p, p.dtype.wide)
    if greedy:
        found, scores = _best_path(wide, steps)
    else:
        tree = _tree(dict_values, dict_seq_lens, wide)
        found, scores = _searched(wide, steps, tree, beam_width, top_paths, merge_repeated)
    return [Tensor(_cut_to_longest(path)) for path in found], Tensor(cast_node(scores, p.dtype))


def _best_path(p: Node, lengths: Node) -> tuple[list[Node], Node]:
    """The labels of the most probable alignment, and minus the logarithms of its steps, summed."""
    batch, steps, classes = p.shape
    z = ops.log(_raised(p))
    best = cast_node(ops.argmax(z, axis=2), i32)
    counts = ops.lt(ops.iota(shape=(batch, steps), axis=1, dtype=i32), reshaped(lengths, (batch, 1)))
    each = ops.select(counts, ops.max(z, axes=(2,), keepdims=False), as_node(0, p.dtype))
    score = ops.neg(ops.sum(each, axes=(1,), keepdims=True))
    return [ops.ctc_greedy(best, lengths, blank=classes - 1)], score


def _searched(p: Node, lengths: Node, tree: tuple[Node, Node], width: int, top: int,
              merge: bool) -> tuple[list[Node], Node]:
    """The label sequences that the search finds, and the logarithms of their probabilities."""
    if not 1 <= top <= width:
        raise ArgumentError(f"top_paths is {top} and beam_width {width}: of so many prefixes one or more can be given")
    batch, steps, _ = p.shape
    found = ops.ctc_beam(_log_probabilities(p), lengths, *tree, width=width, top=top, merge=bool(merge))

    def columns(k: int, count: int, first: int, last: Size) -> Node:
        part: Node = ops.slice(found, starts=(0, k, first), limits=(batch, k + count, last), steps=(1, 1, 1))
        return part

    paths = [cast_node(reshaped(columns(k, 1, 1, steps + 1), (batch, steps)), i64) for k in range(top)]
    return paths, reshaped(columns(0, top, 0, 1), (batch, top))


def _tree(values: Any, lengths: Any, p: Node) -> tuple[Node, Node]:
    """The prefixes that the search may take: which one follows each on each label, and 0 where a sequence may end.

    Without a dictionary there is one node that every label leads back to.
    """
    classes = p.shape[2]
    if values is None:
        if lengths is not None:
            raise ArgumentError("dict_seq_lens are the lengths of dict_values, which are missing")
        free = ops.broadcast(as_node(0, i32), shape=(1, dims.maximum(classes - 1, 0)))
        return free, as_node([0.0], p.dtype)
    rows = [[operator.index(c) for c in row] for row in values]
    if lengths is not None:
        counts = [operator.index(n) for n in np.ravel(lengths)]
        if len(counts) != len(rows) or any(not 0 <= n <= len(row) for n, row in zip(counts, rows, strict=True)):
            raise ArgumentError("dict_seq_lens holds a length for each row of dict_values, none longer than the row")
        rows = [row[:n] for n, row in zip(counts, rows, strict=True)]
    most = max((c for row in rows for c in row), default=0)
    if any(c < 0 for row in rows for c in row) or isinstance(classes, int) and any(rows) and most >= classes - 1:
        raise ArgumentError("dict_values holds labels that are not 0 … classes - 2")

    after: list[dict[int, int]] = [{}]
    ends = set[int]()
    for row in rows:
        node = 0
        for c in row:
            if c not in after[node]:
                after[node][c] = len(after)
                after.append({})
            node = after[node][c]
        ends.add(node)
    table = [[following.get(c, -1) for c in range(most + 1)] for following in after]
    return as_node(np.array(table), i32), as_node([0.0 if n in ends else -np.inf for n in range(len(after))], p.dtype)


def _log_probabilities(p: Node) -> Node:
    """The logarithms of probabilities raised by the fuzz factor, each step normalised."""
    raised = _raised(p)
    found: Node = ops.log(raised) - ops.log(ops.sum(raised, axes=(2,), keepdims=True))
    return found


def _cut_to_longest(path: Node) -> Node:
    """Label sequences (batch, steps), filled with -1, without the columns that no label reaches."""
    there = cast_node(ops.ge(path, as_node(0, i64)), i64)
    longest = ops.max(ops.sum(there, axes=(1,), keepdims=False), axes=(0,), keepdims=False)
    cut: Node = ops.cut(path, ops.maximum(longest, as_node(0, i64)), axis=1, size=late_size())
    return cut


@public("K.ctc_label_dense_to_sparse")
def ctc_label_dense_to_sparse(labels: Any, label_lengths: Any) -> SparseTensor:
    """Labels as a sparse tensor of the same shape, in which those beyond a label length are left out.

    Args:
        labels: (batch, n).
        label_lengths: how many count: (batch,) or (batch, 1).

    Raises: ShapeError for shapes that do not fit.
    """
    node = as_node(labels)
    if len(node.shape) != 2:
        raise ShapeError(f"labels are (batch, n), not {show_shape(node.shape)}")
    batch, n = node.shape
    lengths = _lengths(label_lengths, batch, "label_lengths")
    at = ops.iota(shape=(batch, n), axis=1, dtype=i32)
    counts = ops.lt(at, reshaped(lengths, (batch, 1)))
    kept = ops.select(counts, node, as_node(0, node.dtype))
    starts = ops.iota(shape=(batch + 1,), axis=0, dtype=i32) * size_node(n)
    return SparseTensor(Csr(reshaped(kept, (batch * n,)), reshaped(at, (batch * n,)), starts, n))


def _check_ranks(labels: Node, p: Node) -> None:
    if len(labels.shape) != 2:
        raise ShapeError(f"y_true is (batch, labels), not {show_shape(labels.shape)}")
    _check_probabilities(p)


def _check_probabilities(p: Node) -> None:
    if len(p.shape) != 3:
        raise ShapeError(f"y_pred is (batch, steps, classes), not {show_shape(p.shape)}")
    if p.shape[2] == 0:
        raise ShapeError("y_pred has no classes; the last one is the blank")


def _lengths(lengths: Any, batch: Size, name: str) -> Node:
    """Lengths (batch,) or (batch, 1) as an int32 vector."""
    node = cast_node(as_node(lengths), i32)
    shape = node.shape
    if len(shape) not in (1, 2) or isinstance(shape[-1], int) and len(shape) == 2 and shape[-1] != 1:
        raise ShapeError(f"{name} is (batch, 1), not {show_shape(shape)}")
    agree(batch, shape[0], f"y_pred is of {batch} sequences, {name} of {shape[0]}")
    return reshaped(node, (shape[0],))


def _raised(p: Node) -> Node:
    """Probabilities raised by the fuzz factor."""
    raised: Node = p + as_node(epsilon(), p.dtype)
    return raised
