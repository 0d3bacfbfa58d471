"""Whether what a kernel has computed is what its reference computes, as far as the order of roundings allows.

Where the two are not almost equal, the reference is computed again with all that it rounds nudged by some 60 units in
the last place, up or down at random, and all that it adds up nudged alike.  An element may differ by a few times what
that changes: a sum of numbers that cancel by much, a comparison of numbers that are almost equal by all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tensorc.ir.node import Node
from tensorc.ir.types import numpy_kind
from tensorc.ops.interpret import apply

Array = np.ndarray[Any, Any]

ALMOST = {"bfloat16": 2.0**-5, "float16": 2.0**-8, "float32": 2.0**-17, "float64": 2.0**-46}
"""By how much numbers are nudged, and may differ at least: of themselves."""

PAIRS = 2
"""How often each nudge is tried, once one way and once the other."""

FACTOR = 4.0
"""How many times the change by a nudge is allowed."""

EXACT = frozenset({"neg", "abs", "sign", "floor", "ceil", "round", "maximum", "minimum", "select", "cast"})
"""Elementwise operations that round nothing, or are the same to the bit."""


def evaluate(nodes: Iterable[Node], given: Mapping[Node, Array], sizes: Mapping[str, int],
             nudge: Nudge | None = None) -> dict[Node, Array]:
    """The value of each node by its reference, besides those that are given; operands stand before their users."""
    values = dict(given)
    for node in nodes:
        if node not in values:
            operands = [values[a] for a in node.args]
            if nudge is not None and _adds_up(node):
                operands = [nudge(x) for x in operands]
            values[node] = apply(node, operands, sizes)
            if nudge is not None and _rounds(node):
                values[node] = nudge(values[node])
    return values


class Nudge:
    """Changes floats a little: twice the same calls change each of them once up and once down."""

    def __init__(self, seed: int, sign: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._sign = sign

    def __call__(self, x: Array) -> Array:
        if numpy_kind(x.dtype) != "f":
            return x
        signs = self._rng.integers(0, 2, size=x.shape, dtype=np.int8) * 2 - 1
        with np.errstate(all="ignore"):
            return np.asarray(x * (1 + self._sign * ALMOST[x.dtype.name] * signs), x.dtype)


def nudges() -> Iterator[Nudge]:
    """All that are tried."""
    for seed in range(PAIRS):
        yield from (Nudge(seed, 1), Nudge(seed, -1))


def almost_equal(found: Array, wanted: Array) -> Array:
    """For each element, whether it is what is wanted but for a few roundings."""
    if numpy_kind(found.dtype) != "f":
        return np.asarray(found == wanted)
    with np.errstate(all="ignore"):
        near = np.abs(found - wanted) <= ALMOST[found.dtype.name] * np.abs(wanted)
    return np.asarray(near | (found == wanted) | (np.isnan(found) & np.isnan(wanted)))


def allowed(wanted: Array, others: Sequence[Array]) -> Array:
    """For each element, by how much it may differ: infinity where a nudge decides what it is.

    Args:
        others: what else it is, with one nudge each.
    """
    if numpy_kind(wanted.dtype) != "f":
        return np.where(np.any([other != wanted for other in others], axis=0), np.inf, 0.0)
    with np.errstate(all="ignore"):
        changes = np.abs(np.asarray(others, np.float64) - wanted.astype(np.float64))
        same = np.asarray([(other == wanted) | (np.isnan(other) & np.isnan(wanted)) for other in others])
        changes = np.where(same, 0.0, np.where(np.isfinite(changes), changes, np.inf))
        largest = changes.max(axis=0)
        ordinary = largest[np.isfinite(largest)]
        usual = float(np.median(ordinary)) if ordinary.size else 0.0
        own = ALMOST[wanted.dtype.name] * np.where(np.isfinite(wanted), np.abs(wanted), 0.0)
    return np.asarray(FACTOR * (largest + usual) + own)


def within(found: Array, wanted: Array, tolerance: Array) -> Array:
    """For each element, whether it differs by no more than is allowed."""
    with np.errstate(all="ignore"):
        distance = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    near = almost_equal(found, wanted) | (distance <= tolerance) | np.isinf(tolerance)
    if wanted.dtype == np.float16:  # kernels compute it in float32, which overflows later
        near = near | ~np.isfinite(wanted)
    return np.asarray(near)


def difference(found: Array, wanted: Array, where: Array) -> str:
    """How many elements differ, and what the first of them is."""
    at = first(where)
    return f"{counted(where, 'differ')}, the first{placed(at)}: {found[at]!s} in place of {wanted[at]!s}"


def first(where: Array) -> tuple[int, ...]:
    """The index of the first true element."""
    return tuple(int(i) for i in np.argwhere(where)[0])


def placed(index: tuple[int, ...]) -> str:
    """An index as part of a sentence."""
    return f" at {list(index)}" if index else ""


def counted(where: Array, what: str) -> str:
    """How many elements are true, of how many."""
    return f"{int(where.sum())} of {where.size} elements {what}"


def _adds_up(node: Node) -> bool:
    """May the result depend on the order in which many numbers are added or multiplied?"""
    reduce = node.op.reduce
    return node.op.way in ("kernel", "expand") or reduce is not None and reduce.combine in ("add", "mul")


def _rounds(node: Node) -> bool:
    return _adds_up(node) or node.op.scalar is not None and node.op.name not in EXACT
