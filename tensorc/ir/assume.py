"""What a graph takes for granted of its symbolic sizes: that two of them are equal, or one not less than another.

Shape rules call `agree` where two sizes must be the same, and `at_least` where one must reach another.  While a graph
is being built nothing more happens; when it is closed, both are collected.  Equal sizes are solved by substitution;
what remains is checked by every call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tensorc.errors import ShapeError
from tensorc.ir import dims
from tensorc.ir.bounds import never_negative
from tensorc.ir.dims import Dim, Size


@dataclass(frozen=True)
class Assumption:
    """Two sizes that an operation needs to be equal."""

    left: Size
    right: Size
    where: str = ""


@dataclass(frozen=True)
class Reach:
    """A size that an operation needs to be no less than another."""

    size: Size
    least: Size
    where: str = ""


@dataclass
class Needs:
    """What shape rules have asked for that is not known to hold.

    Attributes:
        equal: pairs of sizes that must be equal.
        reach: pairs of sizes of which the first must be no less than the second.
    """

    equal: list[tuple[Size, Size]] = field(default_factory=list)
    reach: list[tuple[Size, Size]] = field(default_factory=list)


_state = threading.local()


@contextmanager
def collecting() -> Iterator[Needs]:
    """Within the block, what shape rules of this thread ask for is gathered."""
    previous = getattr(_state, "needs", None)
    needs = _state.needs = Needs()
    try:
        yield needs
    finally:
        _state.needs = previous


def agree(a: Size, b: Size, what: str = "the sizes differ") -> Size:
    """The common value of two sizes that must be equal, the known one if one is.  Raises ShapeError."""
    if a is b or a == b:
        return a
    difference = a - b
    if isinstance(difference, int):
        raise ShapeError(f"{what}: {a} and {b}")
    needs = getattr(_state, "needs", None)
    if needs is not None:
        needs.equal.append((a, b))
    return a if isinstance(a, int) else b if isinstance(b, int) else min(a, b, key=str)


def at_least(size: Size, least: Size, what: str = "too small") -> None:
    """Asks for a size that is no less than another.  Raises ShapeError where it is known to be less."""
    difference = size - least
    if isinstance(difference, int):
        if difference < 0:
            raise ShapeError(f"{what}: {size} is less than {least}")
        return
    needs = getattr(_state, "needs", None)
    if needs is not None and not never_negative(difference):
        needs.reach.append((size, least))


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
