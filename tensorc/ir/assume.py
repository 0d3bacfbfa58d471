"""What a graph takes for granted of its symbolic sizes: that two of them are equal.

Shape rules call `agree` where two sizes must be the same.  While a graph is being built nothing more happens;
when it is closed, the pairs are collected and solved by substitution.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tensorc.errors import ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Dim, Size


@dataclass(frozen=True)
class Assumption:
    """Two sizes that an operation needs to be equal."""

    left: Size
    right: Size
    where: str = ""


_state = threading.local()


@contextmanager
def collecting() -> Iterator[list[tuple[Size, Size]]]:
    """Within the block, pairs passed to `agree` that are not known to be equal are gathered."""
    previous = getattr(_state, "pairs", None)
    pairs: list[tuple[Size, Size]] = []
    _state.pairs = pairs
    try:
        yield pairs
    finally:
        _state.pairs = previous


def agree(a: Size, b: Size, what: str = "the sizes differ") -> Size:
    """The common value of two sizes that must be equal, the known one if one is.  Raises ShapeError."""
    if a is b or a == b:
        return a
    difference = a - b
    if isinstance(difference, int):
        raise ShapeError(f"{what}: {a} and {b}")
    pairs = getattr(_state, "pairs", None)
    if pairs is not None:
        pairs.append((a, b))
    return a if isinstance(a, int) else b if isinstance(b, int) else min(a, b, key=str)


def solve(a: Size, b: Size) -> tuple[str, Size] | None:
    """(name, value) that makes a equal b by substitution, or None where nothing can be isolated.

    The name is a symbol if one can be isolated, else the text of an application such as `n//2`.  The later name in
    sorted order gives way, so that closing a graph is deterministic.  Of n*t = n*u and n = n*t, t is what has to
    fit, although an n of 0 would do.
    """
    difference = _without_common_factors(a - b)
    if not isinstance(difference, Dim):
        return None
    free = dims.symbols(difference)
    for name in [*sorted(free, reverse=True), *sorted(dims.names(difference) - free, reverse=True)]:
        split = dims.linear(difference, name)
        if split is None or not isinstance(split[0], int) or not split[0] or dims.mod(split[1], split[0]) != 0:
            continue
        return name, dims.floordiv(-split[1], split[0])
    return None


def _without_common_factors(size: Size) -> Size:
    """A sum divided by the symbols that all its terms share: n*t - n*u → t - u."""
    if isinstance(size, Dim) and len(size.terms) > 1:
        for factor in map(dims.symbol, sorted(dims.symbols(size))):
            while dims.mod(size, factor) == 0:
                size = dims.floordiv(size, factor)
    return size
