"""Kernels written down statement by statement, for the operations that are loops of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensorc.codegen import loopir as ir
from tensorc.codegen.scalars import result
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ir.types import DType, i32

Grid = tuple[tuple[str, Size], ...]
Place = Sequence[Size | str]
Term = ir.Expr | float


@dataclass(frozen=True)
class Workshop:
    """What a kernel is made with.

    Attributes:
        node: the operation.
        operands, out: their buffers.
        claim: a name like the one wished for that nothing else in the kernel has.
        scratch: a buffer that belongs to the launch, given a name, dtype and shape.
    """

    node: Node
    operands: Sequence[ir.Buffer]
    out: ir.Buffer
    claim: Callable[[str], str]
    scratch: Callable[[str, DType, tuple[Size, ...]], ir.Buffer]


Written = tuple[Grid, ir.Body]


class Writer:
    """Statements of a body as they are asked for; numbers among operands take the dtype of the others, or `dtype`."""

    def __init__(self, claim: Callable[[str], str], dtype: DType) -> None:
        self.claim = claim
        self.dtype = dtype
        self.open: list[list[ir.Stmt]] = [[]]

    @property
    def body(self) -> ir.Body:
        return tuple(self.open[0])

    # -- statements

    def add(self, s: ir.Stmt) -> None:
        self.open[-1].append(s)

    def bound(self, wish: str, value: ir.Expr) -> ir.Var:
        """The value in a variable."""
        name = self.claim(wish)
        self.add(ir.Let(name, value))
        return ir.Var(name, value.dtype)

    def place(self, wish: str, value: ir.Expr) -> Size:
        """A whole number that indices and extents may speak of."""
        return dims.symbol(self.bound(wish, value).name)

    def store(self, buffer: ir.Buffer, index: Place, value: Term) -> None:
        self.add(ir.Store(buffer.name, _index(index), _term(value, buffer.dtype)))

    def acc(self, wish: str, op: str, dtype: DType | None = None) -> ir.Var:
        """An accumulator, to be read after the loop that feeds it."""
        name = self.claim(wish)
        self.add(ir.Acc(name, op, dtype or self.dtype))
        return ir.Var(name, dtype or self.dtype)

    def feed(self, acc: ir.Var, value: Term) -> None:
        self.add(ir.Accum(acc.name, (_term(value, acc.dtype),)))

    def scan(self, wish: str, acc: ir.Var, value: Term) -> ir.Var:
        """What an accumulator holds after this value."""
        name = self.claim(wish)
        self.add(ir.Scan(name, acc.name, _term(value, acc.dtype)))
        return ir.Var(name, acc.dtype)

    def loop(self, wish: str, extent: Size, inside: Callable[[Size], None]) -> None:
        """What `inside` writes, given the loop's variable, so many times."""
        var = self.claim(wish)
        self.open.append([])
        inside(dims.symbol(var))
        self.add(ir.For(var, extent, tuple(self.open.pop())))

    def when(self, condition: ir.Expr, inside: Callable[[], None]) -> None:
        """What `inside` writes, once or not at all."""
        holds = self.place("holds", ir.Cast(condition, i32))
        self.loop("once", holds, lambda _: inside())

    # -- expressions

    def call(self, fn: str, *args: Term) -> ir.Expr:
        values = args[1:] if fn == "select" else args
        dtype = next((a.dtype for a in values if not isinstance(a, int | float)), self.dtype)
        terms = tuple(_term(a, dtype) for a in args)
        found = result(fn, tuple(t.dtype for t in terms))
        assert found is not None, fn
        return ir.Call(fn, terms, found)

    def load(self, buffer: ir.Buffer, *index: Size | str) -> ir.Expr:
        return ir.Load(buffer.name, _index(index), buffer.dtype)

    def size(self, size: Size) -> ir.Expr:
        """A size as data."""
        return ir.Num(size, i32) if isinstance(size, int) else ir.Iter(size, i32)

    def length(self, wish: str, lengths: ir.Buffer, b: str, most: Size) -> Size:
        """How many of `most` things count in sequence b."""
        least = self.call("maximum", self.load(lengths, b), self.size(0))
        return self.place(wish, self.call("minimum", least, self.size(most)))

    def finite(self, x: ir.Expr) -> ir.Expr:
        """x, or 0 for -inf."""
        return self.call("select", self.call("eq", x, -math.inf), 0.0, x)

    def log_sum(self, *terms: ir.Expr) -> ir.Expr:
        """The logarithm of the sum of what the terms are logarithms of."""
        known: list[ir.Expr] = [self.bound("x", term) for term in terms]
        top = known[0]
        for term in known[1:]:
            top = self.call("maximum", top, term)
        base = self.bound("base", self.finite(self.bound("top", top)))
        total, *rest = (self.call("exp", self.call("sub", term, base)) for term in known)
        for term in rest:
            total = self.call("add", total, term)
        return self.bound("sum", self.call("add", base, self.call("log", total)))


def _index(index: Place) -> ir.Index:
    return tuple(dims.symbol(i) if isinstance(i, str) else i for i in index)


def _term(value: Term, dtype: DType) -> ir.Expr:
    return ir.Num(value, dtype) if isinstance(value, int | float) else value
