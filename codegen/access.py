"""How loads and stores move through memory: offsets, strides, and which iterations can meet at one element."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise, permutations

from tensorc.codegen.loopir import For, Index, Load, Store
from tensorc.ir import dims
from tensorc.ir.dims import Apply, Dim, Size

Loop = tuple[str, Size]


def strides(shape: Sequence[Size]) -> tuple[Size, ...]:
    """Elements between neighbours along each dimension of a row-major array."""
    return tuple(dims.product(shape[d + 1:]) for d in range(len(shape)))


def offset(shape: Sequence[Size], index: Index) -> Size:
    """The element of a row-major array that `index` points at; `e//w*w + e%w` is joined to e."""
    total: Size = 0
    for at, stride in zip(index, strides(shape), strict=True):
        total = total + at * stride
    return join_quotients(total)


def join_quotients(size: Size) -> Size:
    """The size with every `c*w*(e//w) + c*(e%w)` written as c*e: what views in another shape leave behind."""
    for monomial, coefficient in size.terms if isinstance(size, Dim) else ():
        for at, atom in enumerate(monomial):
            if isinstance(atom, Apply) and atom.fn == "mod":
                e, w = atom.args
                factor = Dim.of({monomial[:at] + monomial[at + 1:]: coefficient})
                divided = factor * (dims.mod(e, w) + w * dims.floordiv(e, w))
                rest = size - divided
                if _length(rest) == _length(size) - _length(divided):
                    return join_quotients(rest + factor * e)
    return size


def step(size: Size, var: str, varying: Collection[str] = ()) -> Size | None:
    """How much `size` grows from one iteration of `var` to the next, or None where that is not one number for all.

    `varying` are the variables with integer data that change with `var`.
    """
    if not dims.symbols(size).isdisjoint(varying):
        return None
    parts = dims.linear(size, var)
    return None if parts is None else parts[0]


def determined(
    shape: Sequence[Size], index: Index, loops: Sequence[Loop], constants: Collection[str]
) -> frozenset[str]:
    """The loop variables that the place of a store determines: iterations that differ in one of them write elsewhere.

    A dimension, or the offset as a whole, is read as a number in mixed radix.  `constants` are the kernel's sizes; a
    place that depends on anything else but them and the loops determines nothing.
    """
    found = {var for var, extent in loops if extent == 1}
    known = {*constants, *(var for var, _ in loops)}

    for size in (*index, offset(shape, index)):
        if dims.symbols(size) <= known:
            digits = [(var, extent) for var, extent in loops if var in dims.symbols(size) and extent != 1]
            if _is_radix(size, digits):
                found.update(var for var, _ in digits)
    return frozenset(found)


def same_place(
    a: Load | Store, around_a: Sequence[For], b: Load | Store, around_b: Sequence[For], shape: Sequence[Size]
) -> bool:
    """Whether two accesses to a buffer touch the same elements in the same order of their loops.

    Loops around both are one loop; of the others, those of equal extent correspond.
    """
    want = offset(shape, a.index)
    common = {loop.var for loop in around_a} & {loop.var for loop in around_b}
    own_a = [loop for loop in around_a if loop.var not in common and loop.var in dims.symbols(want)]
    own_b = [loop for loop in around_b if loop.var not in common and loop.var in dims.symbols(offset(shape, b.index))]

    if len(own_a) != len(own_b):
        return False
    for order in permutations(own_a):
        if all(x.extent == y.extent for x, y in zip(order, own_b, strict=True)):
            renamed = {y.var: dims.symbol(x.var) for x, y in zip(order, own_b, strict=True)}
            if offset(shape, tuple(dims.substitute(at, renamed) for at in b.index)) == want:
                return True
    return False


def never_meet(a: Size, b: Size, loops: Sequence[Loop], constants: Collection[str]) -> bool:
    """Whether two places along a dimension differ whatever the iterations: they have parts of it to themselves."""
    spread: Size = 0
    gap = b - a
    if not dims.symbols(gap) <= set(constants):
        return False
    for var, extent in loops:
        first, second = step(a, var), step(b, var)
        if first is None or first != second or not never_negative(first):
            return False
        spread = spread + first * (extent - 1)
    return never_negative(gap - spread - 1) or never_negative(-gap - spread - 1)


def never_negative(size: Size, signed: Collection[str] = ()) -> bool:
    """Whether a size is at least 0 for sure; `signed` are the symbols that may be negative."""
    if isinstance(size, int):
        return size >= 0
    return all(
        coefficient >= 0 and all(_atom_never_negative(atom, signed) for atom in monomial)
        for monomial, coefficient in size.terms
    )


def _atom_never_negative(atom: str | Apply, signed: Collection[str]) -> bool:
    if isinstance(atom, str):
        return atom not in signed
    a, b = atom.args
    match atom.fn:
        case "mod":
            return True
        case "floordiv":
            return never_negative(a, signed)
        case "max":
            return never_negative(a, signed) or never_negative(b, signed)
        case _:
            return never_negative(a, signed) and never_negative(b, signed)


def _is_radix(size: Size, digits: Sequence[Loop]) -> bool:
    """Whether size = rest + Σ coefficient·digit, where each coefficient is at least the span of the digits below it."""
    coefficients = {var: step(size, var) for var, _ in digits}
    if any(c is None or not dims.symbols(c).isdisjoint(coefficients) for c in coefficients.values()):
        return False
    return any(
        all(
            any(_at_least(coefficients[high], coefficients[low], bound) for bound in _bounds(extent))
            for (low, extent), (high, _) in pairwise(order)
        )
        for order in permutations(digits)
    )


def _at_least(high: Size | None, low: Size | None, extent: Size) -> bool:
    assert high is not None
    assert low is not None
    if isinstance(high, int) and isinstance(low, int):
        high, low = abs(high), abs(low)
    return never_negative(high - low * extent)


def _bounds(extent: Size) -> Iterator[Size]:
    """Sizes that an extent cannot exceed."""
    yield extent
    if isinstance(extent, Dim) and len(extent.terms) == 1:
        (monomial, coefficient), = extent.terms
        if len(monomial) == 1 and coefficient == 1 and isinstance(monomial[0], Apply) and monomial[0].fn == "min":
            for arg in monomial[0].args:
                yield from _bounds(arg)


def _length(size: Size) -> int:
    """How many terms a size has."""
    return len(size.terms) if isinstance(size, Dim) else int(size != 0)
