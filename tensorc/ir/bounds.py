"""What is known of sizes whatever their symbols stand for: that they are never negative."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

from tensorc.ir import dims
from tensorc.ir.dims import Apply, Dim, Size

DEPTH = 12
"""Replacements of an application by its bounds before the search is given up."""


def never_negative(size: Size) -> bool:
    """Whether a size is 0 or more for all values of its symbols.  False where that cannot be shown."""
    return size >= 0 if isinstance(size, int) else _shown(size, DEPTH)


@functools.lru_cache(maxsize=4096)
def _shown(size: Size, depth: int) -> bool:
    """`never_negative`, one application after another replaced by what it may be, or by what bounds it."""
    if isinstance(size, int):
        return size >= 0
    if all(c > 0 and all(isinstance(atom, str) for atom in m) for m, c in size.terms):
        return True
    if not depth:
        return False
    applied = [atom for m, _ in size.terms for atom in m if isinstance(atom, Apply)]
    if any(_is_bounded(size, atom, depth) for atom in applied):
        return True
    choice = next((atom for atom in _within(applied) if atom.fn in ("min", "max", "bcast")), None)
    return choice is not None and all(_shown(dims.substitute(size, {str(choice): a}), depth - 1) for a in choice.args)


def _within(applied: Iterable[Apply]) -> Iterator[Apply]:
    """Applications, those of their operands first."""
    for atom in applied:
        for size in atom.args:
            yield from _within(a for m, _ in getattr(size, "terms", ()) for a in m if isinstance(a, Apply))
        yield atom


def _is_bounded(size: Dim, applied: Apply, depth: int) -> bool:
    """Whether a size is shown to be 0 or more by what bounds one application from the side that matters."""
    split = dims.linear(size, str(applied))
    if split is None:
        return False
    factor, rest = split

    def holds(bound: Size) -> bool:
        return _shown(factor * bound + rest, depth - 1)

    a, b = applied.args
    if _shown(factor, depth - 1):
        match applied.fn:
            case "max":
                return holds(a) or holds(b)
            case "mod":
                return holds(0)
            case "floordiv":
                return _shown(a, depth - 1) and holds(0) or _is_divided(factor * (a - b + 1) + rest * b, b, depth)
    elif _shown(-factor, depth - 1):
        match applied.fn:
            case "min":
                return holds(a) or holds(b)
            case "mod":
                return holds(b - 1) or _shown(a, depth - 1) and holds(a)
            case "floordiv":
                return _is_divided(factor * a + rest * b, b, depth) or _shown(a, depth - 1) and holds(a)
    return False


def _is_divided(multiple: Size, divisor: Size, depth: int) -> bool:
    """Whether a size is never negative of which this is the multiple by a divisor."""
    return isinstance(divisor, int) and divisor > 0 and _shown(multiple, depth - 1)


def least(size: Size) -> tuple[str, int] | None:
    """(symbol, number) where a size is not negative just if the symbol is that number or more; None for others."""
    if not isinstance(size, Dim) or len(dims.symbols(size)) != 1:
        return None
    (name,) = dims.symbols(size)
    split = dims.linear(size, name)
    if split is None:
        return None
    factor, rest = split
    if not isinstance(factor, int) or not isinstance(rest, int) or factor <= 0:
        return None
    return name, -(rest // factor)
