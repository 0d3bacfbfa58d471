"""Sizes in code: every part of a polynomial is computed once, in the outermost scope that knows all it needs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tensorc.codegen import loopir as ir
from tensorc.codegen.access import never_negative
from tensorc.codegen.cpu.emit_text import Known, Lines, Text
from tensorc.ir import dims
from tensorc.ir.dims import Apply, Atom, Monomial, Size


@dataclass
class Entry:
    """The place right before a loop, for what is the same in all its iterations.

    Attributes:
        known: the data variables that are bound there.
        memo: what has been put there, by the expression it computes.
    """

    slot: Lines
    known: frozenset[str]
    memo: dict[Hashable, object] = field(default_factory=dict)


@dataclass
class Scope:
    """A stretch of code that binds variables: what depends on them, and on nothing bound deeper, stands in its slot.

    Attributes:
        slot: the place right behind the binding.
        vars: the i64 value of each variable bound here.
        entry: the place before the loop, where the scope is the body of one.
        memo: what stands in the slot, by what it is.
    """

    slot: Lines
    vars: dict[str, Known]
    entry: Entry | None = None
    memo: dict[Hashable, Known] = field(default_factory=dict)


class Sizes(Text):
    """Scopes, and the sizes that are computed in them."""

    def __init__(self, k: ir.Kernel) -> None:
        super().__init__()
        self.k = k
        self.scopes: list[Scope] = []
        self.signed = frozenset(s.var for s in ir.statements(k.body) if isinstance(s, ir.Let | ir.Scan))

    @contextmanager
    def scope(self, bound: dict[str, Known], entry: Entry | None = None) -> Iterator[None]:
        """A scope that starts here; it ends with the `with`, and all that were pushed in it."""
        depth = len(self.scopes)
        self.push(bound, entry)
        yield
        del self.scopes[depth:]

    def push(self, bound: dict[str, Known], entry: Entry | None = None) -> None:
        """A scope that starts here and ends with the one around it."""
        self.scopes.append(Scope(self.slot(), bound, entry))

    def depth(self, names: Iterable[str]) -> int:
        """The innermost scope that binds one of the names; the outermost scope for none."""
        wanted = frozenset(names)
        return max((d for d, scope in enumerate(self.scopes) if not wanted.isdisjoint(scope.vars)), default=0)

    def hoisted(self, depth: int, key: Hashable, make: Callable[[], Known]) -> Known:
        """make(), emitted once, in the slot of a scope."""
        scope = self.scopes[depth]
        if key not in scope.memo:
            with self.into(scope.slot):
                scope.memo[key] = make()
        return scope.memo[key]

    def value_of(self, name: str) -> Known:
        """The i64 that a loop variable or size symbol stands for."""
        return next(scope.vars[name] for scope in reversed(self.scopes) if name in scope.vars)

    def size(self, size: Size) -> Known:
        """The value of a size."""
        if isinstance(size, int):
            return size
        terms = sorted((self.depth(symbols_of(m)), str(m), m, c) for m, c in size.terms)
        total: Known = 0
        for depth, _, monomial, coefficient in terms:
            term = self._product(monomial, coefficient)
            total = self._step(depth, "add", total, term)
        return total

    def _product(self, monomial: Monomial, coefficient: int) -> Known:
        total: Known = coefficient
        atoms = sorted(monomial, key=lambda atom: (self.depth(symbols_of((atom,))), str(atom)))
        for at, atom in enumerate(atoms):
            total = self._step(self.depth(symbols_of(atoms[:at + 1])), "mul", total, self._atom(atom))
        return total

    def _step(self, depth: int, op: str, a: Known, b: Known) -> Known:
        def make() -> Known:
            return self.add(a, b) if op == "add" else self.mul(a, b)

        return self.hoisted(depth, (op, a, b), make)

    def _atom(self, atom: Atom) -> Known:
        if isinstance(atom, str):
            return self.value_of(atom)
        a, b = map(self.size, atom.args)
        return self.hoisted(self.depth(symbols_of((atom,))), atom, lambda: self._apply(atom, a, b))

    def _apply(self, atom: Apply, a: Known, b: Known) -> Known:
        left, right = atom.args
        match atom.fn:
            case "min":
                return self.lower(a, b)
            case "max":
                return self.higher(a, b)
            case "bcast":
                is_one = self.let(f"icmp eq i64 {a}, 1")
                return self.choose(is_one, b, a)
            case "floordiv":
                return self._quotient(left, a, self.divisor(right, b))
            case _:
                b = self.divisor(right, b)
                return self.sub(a, self.mul(self._quotient(left, a, b), b))

    def divisor(self, size: Size, value: Known) -> Known:
        """A divisor, at least 1: code hoisted out of an empty loop may run where the size is 0."""
        return value if isinstance(size, int) else self.higher(value, 1)

    def _quotient(self, left: Size, a: Known, b: Known) -> Known:
        """a / b rounded downwards."""
        if never_negative(left, self.signed):
            return self.divide(a, b)
        quotient = self.let(f"sdiv i64 {a}, {b}")
        rest = self.let(f"srem i64 {a}, {b}")
        below = self.let(f"ashr i64 {rest}, 63")
        return self.add(quotient, below)


def symbols_of(atoms: Iterable[Atom]) -> frozenset[str]:
    """The names that a product of atoms depends on."""
    names: set[str] = set()
    for atom in atoms:
        if isinstance(atom, str):
            names.add(atom)
        else:
            names.update(*map(dims.symbols, atom.args))
    return frozenset(names)
