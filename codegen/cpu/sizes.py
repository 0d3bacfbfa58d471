"""Sizes as LLVM IR: the polynomials of tensorc.ir.dims in 64-bit arithmetic, each computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tensorc.errors import InternalError
from tensorc.ir.dims import Apply, Atom, Dim, Monomial, Size


class SizeArithmetic:
    """Writes instructions that compute sizes, all in one block, and remembers what it has computed.

    Args:
        write: takes one line of LLVM IR.
        symbols: the i64 value that each symbol stands for.
        prefix: what the names of the values it defines begin with.
    """

    def __init__(self, write: Callable[[str], None], symbols: Mapping[str, str], prefix: str = "%size") -> None:
        self._write = write
        self._symbols = symbols
        self._prefix = prefix
        self._known: dict[Size | Monomial | tuple[str, Size, Size], str] = {}
        self._count = 0

    def value(self, size: Size) -> str:
        """The i64 operand, a literal or a name, that holds `size`.  Raises InternalError for an unknown symbol."""
        if isinstance(size, int):
            return str(size)
        if size not in self._known:
            self._known[size] = self._sum(size)
        return self._known[size]

    def _sum(self, size: Dim) -> str:
        total = ""
        for monomial, coefficient in size.terms:
            term = self._term(monomial, coefficient)
            total = self._let(f"add i64 {total}, {term}") if total else term
        return total

    def _term(self, monomial: Monomial, coefficient: int) -> str:
        if not monomial:
            return str(coefficient)
        product = self._product(monomial)
        return product if coefficient == 1 else self._let(f"mul i64 {product}, {coefficient}")

    def _product(self, monomial: Monomial) -> str:
        """The product of a monomial's atoms; products of fewer of them are shared."""
        if monomial not in self._known:
            last = self._atom(monomial[-1])
            rest = monomial[:-1]
            self._known[monomial] = self._let(f"mul i64 {self._product(rest)}, {last}") if rest else last
        return self._known[monomial]

    def _atom(self, atom: Atom) -> str:
        if isinstance(atom, Apply):
            return self._apply(atom.fn, *atom.args)
        if atom not in self._symbols:
            raise InternalError(f"no value for the size {atom}; known are {', '.join(self._symbols) or 'none'}")
        return self._symbols[atom]

    def _apply(self, function: str, left: Size, right: Size) -> str:
        key = function, left, right
        if key not in self._known:
            a, b = self.value(left), self.value(right)
            match function:
                case "min" | "max":
                    self._known[key] = self._let(f"call i64 @llvm.s{function}.i64(i64 {a}, i64 {b})")
                case "bcast":
                    is_one = self._let(f"icmp eq i64 {b}, 1")
                    self._known[key] = self._let(f"select i1 {is_one}, i64 {a}, i64 {b}")
                case "floordiv" | "mod":
                    self._divide(left, right, a, b)
                case _:
                    raise InternalError(f"no LLVM IR for the size function {function}")
        return self._known[key]

    def _divide(self, left: Size, right: Size, a: str, b: str) -> None:
        """Quotient and remainder rounded downwards, as Python's, for b > 0; a divisor below 1 counts as 1."""
        if not isinstance(right, int) or right < 1:
            b = self._let(f"call i64 @llvm.smax.i64(i64 {b}, i64 1)")

        truncated = self._let(f"sdiv i64 {a}, {b}")
        remainder = self._let(f"srem i64 {a}, {b}")
        below = self._let(f"ashr i64 {remainder}, 63")
        lift = self._let(f"and i64 {below}, {b}")
        self._known["floordiv", left, right] = self._let(f"add i64 {truncated}, {below}")
        self._known["mod", left, right] = self._let(f"add i64 {remainder}, {lift}")

    def _let(self, instruction: str) -> str:
        name = f"{self._prefix}{self._count}"
        self._count += 1
        self._write(f"  {name} = {instruction}")
        return name
