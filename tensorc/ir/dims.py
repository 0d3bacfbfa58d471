"""Sizes: integers, or interned integer polynomials over named symbols.

    Size = int | Dim          n, 2*n+1, n*t, (n+511)//512, n%3, min(n, 64)

Two equal sizes are one object, so equality is identity.  The loop IR speaks the same language:
its loop variables are symbols too, and an index is a size with loop variables in it.
Symbols stand for integers >= 0.
"""

from __future__ import annotations

import ast
import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar


class Dim:
    """A sum of `coefficient * atom * atom * …`; made by arithmetic on `symbol(...)`, never directly.

    An atom is a symbol's name or an `Apply` (floor division, remainder, min, max, bcast).
    """

    __slots__ = ("__weakref__", "_names", "_symbols", "terms")
    terms: tuple[tuple[Monomial, int], ...]
    _symbols: frozenset[str]
    _names: frozenset[str]                       # the symbols, and the texts of all applications
    _interned: ClassVar[weakref.WeakValueDictionary[tuple[tuple[Monomial, int], ...], Dim]] = (
        weakref.WeakValueDictionary())

    @staticmethod
    def of(terms: Mapping[Monomial, int]) -> int | Dim:
        """The size with these terms: an int when nothing symbolic is left."""
        kept = [(m, c) for m, c in terms.items() if c]
        if not kept:
            return 0
        if len(kept) == 1 and kept[0][0] == ():
            return kept[0][1]
        key = tuple(sorted(kept, key=_order))
        found = Dim._interned.get(key)
        if found is None:
            found = object.__new__(Dim)
            found.terms = key
            found._symbols = frozenset(s for m, _ in key for a in m for s in _atom_symbols(a))
            found._names = frozenset(s for m, _ in key for a in m for s in _atom_names(a))
            Dim._interned[key] = found
        return found

    def __add__(self, other: int | Dim) -> int | Dim:
        return _combine(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: int | Dim) -> int | Dim:
        return _combine(self, other, -1)

    def __rsub__(self, other: int | Dim) -> int | Dim:
        return _combine(other, self, -1)

    def __neg__(self) -> int | Dim:
        return _combine(0, self, -1)

    def __mul__(self, other: int | Dim) -> int | Dim:
        if isinstance(other, int):
            return Dim.of({m: c * other for m, c in self.terms})
        out: dict[Monomial, int] = {}
        for m, c in self.terms:
            for n, k in other.terms:
                key = tuple(sorted(m + n, key=_atom_text))
                out[key] = out.get(key, 0) + c * k
        return Dim.of(out)

    __rmul__ = __mul__

    def __floordiv__(self, other: int | Dim) -> int | Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: int | Dim) -> int | Dim:
        return floordiv(other, self)

    def __mod__(self, other: int | Dim) -> int | Dim:
        return mod(self, other)

    def __rmod__(self, other: int | Dim) -> int | Dim:
        return mod(other, self)

    def __reduce__(self) -> tuple[Callable[[str], int | Dim], tuple[str]]:
        return parse, (str(self),)

    def __str__(self) -> str:
        parts = [_monomial_text(m, c) for m, c in self.terms]
        return "+".join(parts).replace("+-", "-")

    __repr__ = __str__


class Apply:
    """An interned application of one of FUNCTIONS to sizes that do not reduce further."""

    __slots__ = ("__weakref__", "args", "fn")
    fn: str
    args: tuple[int | Dim, ...]
    _interned: ClassVar[weakref.WeakValueDictionary[tuple[str, tuple[int | Dim, ...]], Apply]] = (
        weakref.WeakValueDictionary())

    @staticmethod
    def of(fn: str, *args: int | Dim) -> int | Dim:
        found = Apply._interned.get((fn, args))
        if found is None:
            found = object.__new__(Apply)
            found.fn, found.args = fn, args
            Apply._interned[fn, args] = found
        return Dim.of({(found,): 1})

    def __str__(self) -> str:
        a, b = self.args
        if self.fn in ("floordiv", "mod"):
            return f"{_operand(a)}{'//' if self.fn == 'floordiv' else '%'}{_operand(b)}"
        return f"{self.fn}({a},{b})"


Atom = str | Apply
Monomial = tuple[Atom, ...]


def symbol(name: str) -> Dim:
    """The size called `name`."""
    d = Dim.of({(name,): 1})
    assert isinstance(d, Dim)
    return d


def floordiv(a: int | Dim, b: int | Dim) -> int | Dim:
    """a // b, exact parts divided out: (2*n+1)//2 stays, (2*n)//2 is n."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    if a == 0:
        return 0
    if a is b:
        return 1
    quotient = _exact(a, b)
    return Apply.of("floordiv", a, b) if quotient is None else quotient


def mod(a: int | Dim, b: int | Dim) -> int | Dim:
    """a % b; 0 where b divides a for sure."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if b == 1 or a == 0 or _exact(a, b) is not None:
        return 0
    return Apply.of("mod", a, b)


def ceildiv(a: int | Dim, b: int | Dim) -> int | Dim:
    """a / b rounded up."""
    return floordiv(a + b - 1, b)


def minimum(a: int | Dim, b: int | Dim) -> int | Dim:
    return _extreme("min", min, a, b)


def maximum(a: int | Dim, b: int | Dim) -> int | Dim:
    return _extreme("max", max, a, b)


def bcast(a: int | Dim, b: int | Dim) -> int | Dim | None:
    """The size two operands broadcast to, or None where they cannot.

    Of two different symbols neither is known to be 1: the result stays `bcast(n,m)` until a graph is
    closed, which assumes them equal, or is specialised for a call in which one is 1.
    """
    if a is b or a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int) and isinstance(b, int):
        return None
    return Apply.of("bcast", *sorted((a, b), key=str))


FUNCTIONS: dict[str, Callable[[int | Dim, int | Dim], int | Dim | None]] = {
    "floordiv": floordiv, "mod": mod, "min": minimum, "max": maximum, "bcast": bcast,
}


class Incompatible(ValueError):
    """Sizes that a substitution made contradictory: `bcast(n,m)` with n = 2, m = 3."""


def symbols(size: int | Dim) -> frozenset[str]:
    """The names a size depends on."""
    return size._symbols if isinstance(size, Dim) else frozenset()


def applications(size: int | Dim, fn: str) -> Iterator[Apply]:
    """Every application of `fn` inside a size, innermost first."""
    if isinstance(size, Dim):
        for m, _ in size.terms:
            for atom in m:
                if isinstance(atom, Apply):
                    for arg in atom.args:
                        yield from applications(arg, fn)
                    if atom.fn == fn:
                        yield atom


def substitute(size: int | Dim, values: Mapping[str, int | Dim]) -> int | Dim:
    """The size with symbols replaced, simplified again.  Raises Incompatible.

    A key may also be the text of an application, such as `n//2`: what is known of it without knowing n.
    """
    if not isinstance(size, Dim) or values.keys().isdisjoint(size._names):
        return size
    total: int | Dim = 0
    for m, c in size.terms:
        product: int | Dim = c
        for atom in m:
            product = product * _substitute_atom(atom, values)
        total = total + product
    return total


def evaluate(size: int | Dim, values: Mapping[str, int]) -> int:
    """The number a size stands for.  Raises KeyError for an unbound symbol, Incompatible."""
    result = substitute(size, values)
    if isinstance(result, Dim):
        raise KeyError(sorted(result._symbols)[0])
    return result


def names(size: int | Dim) -> frozenset[str]:
    """The symbols of a size and the texts of its applications: all that `substitute` can replace."""
    return size._names if isinstance(size, Dim) else frozenset()


def linear(size: int | Dim, name: str) -> tuple[int | Dim, int | Dim] | None:
    """(coefficient, rest) with size = coefficient*name + rest and neither depending on name, else None.

    `name` is a symbol or the text of an application.
    """
    if name not in names(size):
        return 0, size
    assert isinstance(size, Dim)
    factor: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for m, c in size.terms:
        at = next((i for i, atom in enumerate(m) if str(atom) == name), None)
        if at is None:
            rest[m] = c
        else:
            factor[m[:at] + m[at + 1:]] = c
    coefficient, remainder = Dim.of(factor), Dim.of(rest)
    if name in names(coefficient) or name in names(remainder):
        return None
    return coefficient, remainder


def product(sizes: Iterable[int | Dim]) -> int | Dim:
    """The product of sizes; 1 for none."""
    total: int | Dim = 1
    for s in sizes:
        total = total * s
    return total


def parse(text: str) -> int | Dim:
    """The size that `text` spells.  Raises ValueError.  `parse(str(d)) is d`."""
    try:
        return _parsed(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError):
        raise ValueError(f"not a size: {text!r}") from None


def _parsed(e: ast.expr) -> int | Dim:
    match e:
        case ast.Constant(value=int() as v) if not isinstance(v, bool):
            return v
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=a):
            return 0 - _parsed(a)
        case ast.BinOp(left=a, op=op, right=b):
            x, y = _parsed(a), _parsed(b)
            match op:
                case ast.Add():
                    return x + y
                case ast.Sub():
                    return x - y
                case ast.Mult():
                    return x * y
                case ast.FloorDiv():
                    return floordiv(x, y)
                case ast.Mod():
                    return mod(x, y)
        case ast.Call(func=ast.Name(id=fn), args=[a, b], keywords=[]) if fn in FUNCTIONS:
            result = FUNCTIONS[fn](_parsed(a), _parsed(b))
            if result is not None:
                return result
    raise ValueError(f"not a size: {ast.unparse(e)!r}")


@functools.lru_cache(maxsize=1 << 14)
def _combine(a: int | Dim, b: int | Dim, sign: int) -> int | Dim:
    out = dict(_terms(a))
    for m, c in _terms(b):
        out[m] = out.get(m, 0) + sign * c
    return Dim.of(out)


def _terms(size: int | Dim) -> tuple[tuple[Monomial, int], ...]:
    return size.terms if isinstance(size, Dim) else (((), size),)


def _exact(a: int | Dim, b: int | Dim) -> int | Dim | None:
    """a / b where every term of a is a multiple of the single term b."""
    divisor = _terms(b)
    if len(divisor) != 1 or not divisor[0][1]:
        return None
    monomial, coefficient = divisor[0]
    out: dict[Monomial, int] = {}
    for m, c in _terms(a):
        left = list(m)
        for atom in monomial:
            if atom not in left:
                return None
            left.remove(atom)
        if c % coefficient:
            return None
        out[tuple(left)] = c // coefficient
    return Dim.of(out)


def _extreme(fn: str, pick: Callable[..., int], a: int | Dim, b: int | Dim) -> int | Dim:
    if isinstance(a, int) and isinstance(b, int):
        return pick(a, b)
    if a is b:
        return a
    if isinstance(difference := a - b, int):
        return a if (difference > 0) == (fn == "max") else b
    return Apply.of(fn, *sorted((a, b), key=str))


def _substitute_atom(atom: Atom, values: Mapping[str, int | Dim]) -> int | Dim:
    if str(atom) in values:
        return values[str(atom)]
    if isinstance(atom, str):
        return symbol(atom)
    args = [substitute(a, values) for a in atom.args]
    result = FUNCTIONS[atom.fn](*args)
    if result is None:
        raise Incompatible(f"sizes {args[0]} and {args[1]} do not broadcast")
    return result


def _atom_symbols(atom: Atom) -> frozenset[str]:
    return frozenset((atom,)) if isinstance(atom, str) else symbols(atom.args[0]) | symbols(atom.args[1])


def _atom_names(atom: Atom) -> frozenset[str]:
    if isinstance(atom, str):
        return frozenset((atom,))
    return frozenset((str(atom),)).union(*(a._names for a in atom.args if isinstance(a, Dim)))


def _atom_text(atom: Atom) -> str:
    return str(atom)


def _monomial_text(m: Monomial, c: int) -> str:
    if not m:
        return str(c)
    alone = len(m) == 1 and c == 1
    body = "*".join(str(a) if alone or isinstance(a, str) or a.fn not in ("floordiv", "mod") else f"({a})" for a in m)
    return body if c == 1 else f"-{body}" if c == -1 else f"{c}*{body}"


def _order(term: tuple[Monomial, int]) -> tuple[bool, tuple[str, ...]]:
    return term[0] == (), tuple(map(str, term[0]))


def _operand(size: int | Dim) -> str:
    text = str(size)
    return text if text.isalnum() or text.isidentifier() else f"({text})"


Size = int | Dim
