"""Writing a kernel in the loop language, as loops look in Python.

    def kernel(k, x, out):
        with k.grid(x.shape[0]) as i:
            largest = k.accumulator("max")
            with k.loop(x.shape[1]) as j:
                out[i, j] = largest.scan(x[i, j])

Iterations of the grid are independent: that is the one promise that a kernel makes.  Everything else runs in the order
in which it stands.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tensorc.codegen import loopir as ir
from tensorc.codegen.scalars import SCALARS, result
from tensorc.codegen.writing import Workshop, Written
from tensorc.errors import ArgumentError
from tensorc.ir import dims
from tensorc.ir.dims import Dim, Size
from tensorc.ir.types import DType, boolean, i32, i64
from tensorc.ir.types import dtype as dtype_of


def written(write: Callable[..., Any], shop: Workshop) -> Written:
    """The grid and the body of the kernel that `write` writes.  Raises ArgumentError for what is no kernel."""
    k = Kernel(shop)
    write(k, *(Memory(k, b) for b in shop.operands), Memory(k, shop.out), **shop.node.attrs)
    if k.sides is None:
        raise ArgumentError(f"the kernel of {shop.node.op.name} has no grid\n"
                            f"write its loops inside `with k.grid(size) as i:`; sizes may be none at all")
    return k.sides, tuple(k.blocks[0])


Binary = Callable[["Value", Any], "Value"]
Unary = Callable[["Value"], "Value"]


def _compared(fn: str) -> Any:
    return lambda x, y: x.k.call(fn, x, y)


def _binary(fn: str) -> tuple[Binary, Binary]:
    """The methods for a value on the left of an operator and on its right."""
    return lambda x, y: x.k.call(fn, x, y), lambda x, y: x.k.call(fn, y, x)


def _unary(fn: str) -> Unary:
    return lambda x: x.k.call(fn, x)


class Value:
    """A number in the kernel, with Python's operators."""

    def __init__(self, k: Kernel, expr: ir.Expr) -> None:
        self.k, self.expr = k, expr

    @property
    def dtype(self) -> DType:
        return self.expr.dtype

    def cast(self, dtype: object) -> Value:
        """The value in another dtype, as NumPy's `astype`."""
        to = dtype_of(dtype)
        return self if to is self.dtype else self.k.bound(ir.Cast(self.expr, to))

    __add__, __radd__ = _binary("add")
    __sub__, __rsub__ = _binary("sub")
    __mul__, __rmul__ = _binary("mul")
    __truediv__, __rtruediv__ = _binary("div")
    __floordiv__, __rfloordiv__ = _binary("floordiv")
    __mod__, __rmod__ = _binary("mod")
    __pow__, __rpow__ = _binary("pow")
    __and__, __rand__ = _binary("and")
    __or__, __ror__ = _binary("or")
    __xor__, __rxor__ = _binary("xor")
    __lt__, __le__, __gt__, __ge__ = map(_compared, ("lt", "le", "gt", "ge"))
    __eq__, __ne__ = _compared("eq"), _compared("ne")
    __hash__ = None  # type: ignore[assignment]
    __neg__, __abs__, __invert__ = map(_unary, ("neg", "abs", "not"))

    def __bool__(self) -> bool:
        raise ArgumentError("a value of a kernel is not known while the kernel is written\n"
                            "use k.select(condition, a, b), or `with k.when(condition):`")


class Memory:
    """An operand, the result or scratch memory: `m[i, j]` reads an element, `m[i, j] = value` writes it.

    float16 and bfloat16 are read as float32, and written from it.

    Attributes:
        shape, dtype: of what lies there; sizes may be symbols.
    """

    def __init__(self, k: Kernel, buffer: ir.Buffer) -> None:
        self.k, self.buffer = k, buffer
        self.shape, self.dtype = buffer.shape, buffer.dtype

    def __getitem__(self, index: Any) -> Value:
        loaded = ir.Load(self.buffer.name, self._place(index), self.dtype)
        value = self.k.bound(loaded)
        return value.cast(self.dtype.wide)

    def __setitem__(self, index: Any, value: Any) -> None:
        expr = self.k.term(value, self.dtype.wide)
        if expr.dtype is not self.dtype:
            expr = ir.Cast(expr, self.dtype)
        self.k.add(ir.Store(self.buffer.name, self._place(index), expr))

    def _place(self, index: Any) -> tuple[Size, ...]:
        places = index if isinstance(index, tuple) else (index,)
        if len(places) != len(self.shape):
            raise ArgumentError(f"{self.buffer.name} has {len(self.shape)} axes, the index {len(places)}")
        return tuple(self.k.place(p) if isinstance(p, Value) else p for p in places)


class Accumulator:
    """What many values come to; read it with `value` after the loop that feeds it."""

    def __init__(self, k: Kernel, name: str, dtype: DType) -> None:
        self.k, self.name, self.dtype = k, name, dtype

    def add(self, value: Any) -> None:
        """Takes one more value in."""
        self.k.add(ir.Accum(self.name, (self.k.term(value, self.dtype),)))

    def scan(self, value: Any) -> Value:
        """Takes one more value in; what they all have come to with it."""
        name = self.k.name("v")
        self.k.add(ir.Scan(name, self.name, self.k.term(value, self.dtype)))
        return Value(self.k, ir.Var(name, self.dtype))

    @property
    def value(self) -> Value:
        return Value(self.k, ir.Var(self.name, self.dtype))


class Kernel:
    """The kernel while it is being written.  `k.exp(x)` and its like call any scalar function of the loop language.

    Attributes:
        dtype: what floats are computed in: the result's dtype, float32 for float16 and bfloat16.
        sides: the grid, once it is there.
    """

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.dtype = shop.out.dtype.wide
        self.sides: tuple[tuple[str, Size], ...] | None = None
        self.blocks: list[list[ir.Stmt]] = [[]]
        self._count = itertools.count()

    # -- loops

    @contextmanager
    def grid(self, *sizes: Size) -> Iterator[Any]:
        """The outermost loops, whose iterations are independent: one index, or a tuple of them."""
        if self.sides is not None or len(self.blocks) > 1 or self.blocks[0]:
            raise ArgumentError("a kernel has one grid, around everything else")
        self.sides = tuple((self.name("i"), size) for size in sizes)
        places = tuple(dims.symbol(var) for var, _ in self.sides)
        yield places[0] if len(places) == 1 else places

    @contextmanager
    def loop(self, extent: Size | Value) -> Iterator[Dim]:
        """A loop for 0 ≤ index < extent, in this order."""
        size = self.place(extent) if isinstance(extent, Value) else extent
        var = self.name("j")
        self.blocks.append([])
        yield dims.symbol(var)
        body = self.blocks.pop()
        self.add(ir.For(var, size, tuple(body)))

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """What is inside, where the condition holds."""
        with self.loop(condition.cast(i32)):
            yield

    def accumulator(self, op: str = "add", dtype: object = None) -> Accumulator:
        """`add`, `mul`, `max`, `min`, of bools `and` or `or`; it begins at what changes nothing."""
        if op not in ir.ACCUMULATORS or op in ir.ARG_ACCUMULATORS:
            raise ArgumentError(f"no accumulator is called {op!r}; known are add, mul, max, min, and, or")
        kind = self.dtype if dtype is None else dtype_of(dtype)
        name = self.name("acc")
        self.add(ir.Acc(name, op, kind))
        return Accumulator(self, name, kind)

    def scratch(self, shape: Sequence[Size], dtype: object = None) -> Memory:
        """Memory that belongs to the launch; iterations of the grid need parts of their own."""
        kind = self.dtype if dtype is None else dtype_of(dtype)
        return Memory(self, self.shop.scratch("scratch", kind, tuple(shape)))

    # -- values

    def number(self, size: Any, dtype: object = None) -> Value:
        """An index, a size or a Python number as a value; in the dtype of the kernel by default."""
        kind = self.dtype if dtype is None else dtype_of(dtype)
        if not isinstance(size, Dim):
            if kind.is_integer and size != int(size):
                raise ArgumentError(f"{size} is not whole, as {kind.name} is\ncast the values that it meets")
            return Value(self, ir.Num(size, kind))
        exact = kind if kind in (i32, i64) else i64
        return Value(self, ir.Iter(size, exact)).cast(kind)

    def call(self, fn: str, *args: Any) -> Value:
        """A scalar function of the loop language; numbers and indices take the dtype of the values."""
        if fn not in SCALARS or len(args) != SCALARS[fn].arity:
            raise ArgumentError(f"no scalar function {fn} takes {len(args)} arguments")
        counted = args[1:] if fn == "select" else args
        dtype = next((a.dtype for a in counted if isinstance(a, Value)), self.dtype)
        terms = tuple(self.term(a, boolean if fn == "select" and i == 0 else dtype) for i, a in enumerate(args))
        found = result(fn, tuple(t.dtype for t in terms))
        if found is None:
            raise ArgumentError(f"{fn} does not take {', '.join(t.dtype.name for t in terms)}; cast one of them")
        return self.bound(ir.Call(fn, terms, found))

    def __getattr__(self, fn: str) -> Callable[..., Value]:
        if fn not in SCALARS:
            raise AttributeError(f"no scalar function of the loop language is called {fn}")
        return lambda *args: self.call(fn, *args)

    # -- statements

    def term(self, value: Any, dtype: DType) -> ir.Expr:
        """What stands for a value, an index or a number; the last two in `dtype`."""
        return value.expr if isinstance(value, Value) else self.number(value, dtype).expr

    def bound(self, expr: ir.Expr) -> Value:
        """The value of an expression here and now."""
        name = self.name("v")
        self.add(ir.Let(name, expr))
        return Value(self, ir.Var(name, expr.dtype))

    def place(self, value: Value) -> Size:
        """A whole number among the values as an index or an extent."""
        if not value.dtype.is_integer:
            raise ArgumentError(f"an index is an integer, not {value.dtype.name}; cast it")
        if isinstance(value.expr, ir.Num):
            return int(value.expr.value)
        expr = value.expr if isinstance(value.expr, ir.Var) else self.bound(value.expr).expr
        assert isinstance(expr, ir.Var)
        return dims.symbol(expr.name)

    def name(self, wish: str) -> str:
        """A name that nothing else in the kernel has."""
        return self.shop.claim(f"{wish}{next(self._count)}")

    def add(self, s: ir.Stmt) -> None:
        if self.sides is None:
            raise ArgumentError("what a kernel computes stands inside `with k.grid(size) as i:`")
        self.blocks[-1].append(s)
