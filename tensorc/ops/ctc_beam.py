"""The search for probable label sequences among their prefixes.

A prefix is kept with two probabilities: that of all alignments so far which end in a blank, and of those which end in
its last label.  A step leaves it as it is, or adds a label.  Graves, 2012, section 7.5.

A dictionary is a tree of prefixes as a table: row `node` says for each label which node follows, -1 for none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.errors import DTypeError, ShapeError
from tensorc.ir.node import Op
from tensorc.ir.types import TensorType, f32, f64, i32
from tensorc.ops.define import NoGradient, defop
from tensorc.ops.infer import agree
from tensorc.ops.sample import sample

Array = NDArray[Any]

_Prefix = tuple[tuple[int, ...], Any, Any, Any, int]
"""Labels, the logarithms of probabilities: ending in a blank, in a label, in either; the node of the tree."""


def _beam_type(logp: TensorType, lengths: TensorType, words: TensorType, ends: TensorType, *, width: int, top: int,
               merge: bool) -> TensorType:
    if logp.dtype not in (f32, f64) or ends.dtype is not logp.dtype or {lengths.dtype, words.dtype} != {i32}:
        raise DTypeError("takes floats of 32 or 64 bits, int32 lengths, an int32 tree and floats like the first")
    if (logp.rank, lengths.rank, words.rank, ends.rank) != (3, 1, 2, 1):
        raise ShapeError("takes log-probabilities (batch, steps, classes), lengths, a tree (nodes, labels), its ends")
    if not 1 <= top <= width:
        raise ShapeError(f"of {width} prefixes {top} cannot be given")
    batch, steps, _ = logp.shape
    agree(batch, lengths.shape[0], "log-probabilities and lengths are of different batches")
    agree(words.shape[0], ends.shape[0], "the tree and its ends are of different sizes")
    return logp.with_shape((batch, top, steps + 1))


def _log_sum(a: Any, b: Any) -> Any:
    top = np.maximum(a, b)
    base = type(a)(0) if top == -np.inf else top
    return base + np.log(np.exp(a - base) + np.exp(b - base))


def _search(logp: Array, words: Array, ends: Array, width: int) -> list[tuple[Any, tuple[int, ...]]]:
    """(score, labels) of the kept sequences, the best first."""
    number, none = logp.dtype.type, logp.dtype.type(-np.inf)
    blank = logp.shape[1] - 1
    beam: list[_Prefix] = [((), number(0), none, number(0), 0)]
    for row in logp:
        kept = {b[0]: b for b in beam}
        found: list[_Prefix] = []
        for labels, _, in_label, both, node in beam:
            after = none
            if labels:
                before = kept.get(labels[:-1])
                if before is not None:
                    again = before[0][-1:] == labels[-1:]
                    in_label = _log_sum(in_label, before[1] if again else before[3])
                after = in_label + row[labels[-1]]
            found.append((labels, both + row[blank], after, _log_sum(both + row[blank], after), node))
        for labels, in_blank, _, both, node in beam:
            for c in range(min(blank, words.shape[1])):
                if (*labels, c) not in kept and words[node, c] >= 0:
                    mass = (in_blank if labels[-1:] == (c,) else both) + row[c]
                    found.append(((*labels, c), none, mass, mass, words[node, c]))
        beam = _best(found, width, lambda b: b[3])
    return _best([(b[3] + ends[b[4]], b[0]) for b in beam], width, lambda b: b[0])


def _best(found: list[Any], width: int, score: Any) -> list[Any]:
    return sorted((b for b in found if score(b) > -np.inf), key=lambda b: -score(b))[:width]


def _beam(logp: Array, lengths: Array, words: Array, ends: Array, *, width: int, top: int, merge: bool) -> Array:
    batch, steps, classes = logp.shape
    out = np.full((batch, top, steps + 1), -1, logp.dtype)
    out[:, :, 0] = -np.inf
    with np.errstate(all="ignore"):
        for b in range(batch):
            last = int(np.clip(lengths[b], 0, steps if classes else 0))
            for k, (score, labels) in enumerate(_search(logp[b, :last], words, ends, width)[:top]):
                path = [c for j, c in enumerate(labels) if not (merge and j and labels[j - 1] == c)]
                out[b, k, 0] = score
                out[b, k, 1:len(path) + 1] = path
    return out


_FREE = {1: [5, 0, 3], 2: [[0, 0, 0]], 3: [0]}
_WORDS = {1: [5, 4], 2: [[1, -1], [-1, 2], [2, -1]], 3: [-np.inf, 0, 0]}

ctc_beam: Op = defop(
    "ctc_beam",
    doc="The `top` most probable label sequences that a search over the best `width` prefixes finds.  Of each: the "
        "logarithm of its probability, its labels (with `merge`, equal neighbours once), then -1.  `words` is the tree "
        "of allowed prefixes, `ends` holds for each of its nodes 0 where a sequence may end, else -inf.",
    infer=_beam_type,
    reference=_beam,
    gradient=NoGradient("the search chooses"),
    kernel="ctc",
    samples=[
        sample("f32[3,5,4]", "i32[3]", "i32[1,3]", "f32[1]", fixed=_FREE, width=6, top=2, merge=False),
        sample("f64[3,5,4]", "i32[3]", "i32[1,3]", "f64[1]", fixed=_FREE, width=40, top=3, merge=True),
        sample("f32[2,5,3]", "i32[2]", "i32[3,2]", "f32[3]", fixed=_WORDS, width=3, top=3, merge=False),
        sample("f32[1,3,1]", "i32[1]", "i32[1,0]", "f32[1]", fixed={1: [3], 2: [[]], 3: [0]}, width=2, top=1,
               merge=False),
        sample("f32[0,2,3]", "i32[0]", "i32[1,2]", "f32[1]", span=(0, 0), width=2, top=2, merge=False),
    ],
)
