"""Expressions in code: scalars where all lanes agree, else one vector for each unrolled copy.

A *region* is the body of a vectorised loop.  A value in it is uniform, one scalar that becomes a vector right behind
its definition when a vector needs it; or it is `unroll` vectors of `width` lanes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tensorc.codegen import loopir as ir
from tensorc.codegen.access import step
from tensorc.codegen.cpu.emit_sizes import Entry, Sizes, symbols_of
from tensorc.codegen.cpu.emit_text import Known, Lines, numbers
from tensorc.codegen.cpu.foreign import call_text, in_lanes
from tensorc.codegen.cpu.lanes import Lanes, literal, llvm_type
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.scalars import SCALARS
from tensorc.ir import dims
from tensorc.ir.dims import Apply, Atom, Dim, Size
from tensorc.ir.types import DType, f64, i32, i64

MAGIC = 1.5 * 2.0**52
MAGIC_BITS = 0x4338 << 48
"""The bits of MAGIC as a double."""


@dataclass
class Value:
    """A value: one scalar, or one vector for each copy of the region.

    Attributes:
        slot: of a scalar, the place right behind its definition.
        number: of a literal, what it is.
        splats: of a scalar, the vectors of it that exist, by width.
    """

    dtype: DType
    texts: list[str]
    vector: bool = False
    slot: Lines | None = None
    number: float | None = None
    splats: dict[int, str] = field(default_factory=dict)


@dataclass
class Region:
    """The lanes of a stretch of code.

    Attributes:
        var: the loop variable that the lanes count on from its value.
        width, unroll: lanes of a vector, vectors side by side.
        masks: which lanes are alive, for each copy; None for all.
        left: how many they are if at the start of a vector, or less than none or more than all; empty where unknown.
        tile: a second variable, in a transpose: copy u is its value plus u, and all copies have the same lanes.
        room: how many iterations of `tile` are left.
        stream: whether stores go past the caches.
    """

    var: str
    width: int
    unroll: int
    masks: list[str] | None = None
    left: Sequence[Known] = ()
    tile: str | None = None
    room: Known = 0
    stream: bool = False


class Values(Sizes):
    """Evaluates expressions in the current region, or outside one."""

    def __init__(self, k: ir.Kernel, target: Target) -> None:
        super().__init__(k)
        self.target = target
        self.region: Region | None = None
        self.env: dict[str, Value] = {}
        self._lanes: dict[tuple[DType, int], Lanes] = {}

    @property
    def here(self) -> Region:
        """The current region, where there must be one."""
        assert self.region is not None
        return self.region

    @abstractmethod
    def load(self, e: ir.Load) -> Value:
        """What a load reads."""

    def lanes(self, dtype: DType, n: int) -> Lanes:
        """The instructions for n lanes of a dtype."""
        if (dtype, n) not in self._lanes:
            self._lanes[dtype, n] = Lanes(self.line, self.fresh, dtype, n, self.target.fma, self.target.half)
        return self._lanes[dtype, n]

    def uniform(self, dtype: DType, text: str) -> Value:
        """A scalar that has just been defined."""
        return Value(dtype, [text], slot=self.slot())

    def vectors(self, v: Value) -> list[str]:
        """The value as one vector for each copy of the region."""
        if v.vector:
            return v.texts
        r = self.here
        if v.number is not None:
            return [self.lanes(v.dtype, r.width).c(v.number)] * r.unroll
        if r.width not in v.splats:
            assert v.slot is not None
            with self.into(v.slot):
                v.splats[r.width] = self.splat(llvm_type(v.dtype), v.texts[0], r.width)
        return [v.splats[r.width]] * r.unroll

    # -- expressions

    def expr(self, e: ir.Expr) -> Value:
        match e:
            case ir.Num(number, dtype):
                return Value(dtype, [literal(number, dtype)], number=number)
            case ir.Var(name, _):
                return self.env[name]
            case ir.Load():
                return self.load(e)
            case ir.Iter(size, dtype):
                return self.size_as_data(size, dtype)
            case ir.Cast(arg, dtype):
                if arg.dtype is dtype:
                    return self.expr(arg)
                return self.before_loop(e, (arg,), lambda n, x: self.lanes(arg.dtype, n).cast(x, dtype))
            case ir.Call(fn, args, dtype) if SCALARS[fn].source is not None:
                return self.foreign(e, fn, args, dtype)
            case ir.Call(fn, args, _):
                return self.before_loop(e, args, lambda n, *xs: self.lanes(args[-1].dtype, n).apply(fn, *xs))

    def foreign(self, e: ir.Expr, fn: str, args: tuple[ir.Expr, ...], dtype: DType) -> Value:
        """A user's function."""
        dtypes = tuple(a.dtype for a in args)

        def compute(n: int, *texts: str) -> str:
            return call_text(self.lanes(dtype, n), fn, dtypes, dtype, texts)

        if self.region is None or self.region.masks is None or in_lanes(fn, dtypes):
            return self.before_loop(e, args, compute)
        return self.each(tuple(self.alive(self.expr(a)) for a in args), dtype, compute)

    def alive(self, v: Value) -> Value:
        """The value with that of the first lane in those that are not alive: a loop ends on it as on the others."""
        r = self.here
        if not v.vector or r.masks is None:
            return v
        kind, o = llvm_type(v.dtype, r.width), self.lanes(v.dtype, r.width)
        first = self.let(f"extractelement {kind} {v.texts[0]}, i32 0")
        others = self.splat(llvm_type(v.dtype), first, r.width)
        return replace(v, texts=[o.select(m, x, others) for m, x in zip(r.masks, v.texts, strict=True)])

    def before_loop(self, e: ir.Expr, args: tuple[ir.Expr, ...], compute: Callable[..., str]) -> Value:
        """compute(lanes, arguments…), before the outermost loop that `e` does not depend on."""
        entry = self._entry_for(e)
        if entry is None:
            return self.each(tuple(map(self.expr, args)), e.dtype, compute)

        found = entry.memo.get(e)
        if not isinstance(found, Value):
            region, self.region = self.region, None
            with self.into(entry.slot):
                found = self.each(tuple(map(self.expr, args)), e.dtype, compute)
            self.region = region
            entry.memo[e] = found
        return found

    def _entry_for(self, e: ir.Expr) -> Entry | None:
        """The place before the outermost loop that an expression does not depend on; None for one that has to stay."""
        names: set[str] = set()
        symbols: set[str] = set()
        for inner in ir.walk(e):
            match inner:
                case ir.Load():
                    return None
                case ir.Var(name, _):
                    if self.env[name].vector:
                        return None
                    names.add(name)
                case ir.Iter(size, _):
                    if not self.agrees(size):
                        return None
                    symbols |= dims.symbols(size)
        depth = self.depth(symbols)
        entries = (scope.entry for scope in self.scopes[depth + 1:])
        return next((entry for entry in entries if entry is not None and names <= entry.known), None)

    def each(self, args: tuple[Value, ...], dtype: DType, compute: Callable[..., str]) -> Value:
        """compute(1, scalars…) where all arguments are uniform, else compute(width, vectors…) for each copy."""
        if not any(a.vector for a in args):
            return self.uniform(dtype, compute(1, *(a.texts[0] for a in args)))
        copies = zip(*map(self.vectors, args), strict=True)
        return Value(dtype, [compute(self.here.width, *texts) for texts in copies], vector=True)

    # -- sizes in lanes

    def data(self) -> frozenset[str]:
        """The integer variables that hold a vector."""
        return frozenset(name for name, v in self.env.items() if v.vector and v.dtype.is_integer)

    def moving(self) -> frozenset[str]:
        """The variables whose integer differs from lane to lane."""
        return frozenset() if self.region is None else self.data() | {self.region.var}

    def agrees(self, size: Size) -> bool:
        """Whether a size is one number for all lanes of all copies."""
        r = self.region
        return r is None or (r.tile not in dims.symbols(size) and self.moving().isdisjoint(dims.symbols(size)))

    def stride(self, size: Size, var: str) -> Size | None:
        """How much a size grows with one iteration of `var`; None where lanes differ about it."""
        distance = step(size, var, self.data())
        return distance if distance is None or self.agrees(distance) else None

    def size_as_data(self, size: Size, dtype: DType) -> Value:
        r = self.region
        if r is None or self.agrees(size):
            value = self.size(size)
            if isinstance(value, int):
                return Value(dtype, [str(value)], number=value)
            return self.uniform(dtype, value if dtype is i64 else self.let(f"trunc i64 {value} to i32"))
        return Value(dtype, [self.size_in_lanes(size, u, dtype) for u in range(r.unroll)], vector=True)

    def size_in_lanes(self, size: Size, u: int, dtype: DType = i64) -> str:
        """The value of a size in each lane of copy u, i64 or i32."""
        r = self.here
        o = self.lanes(dtype, r.width)
        distance = self.stride(size, r.var)

        if distance is not None and self.moving().isdisjoint(dims.symbols(size) - {r.var}):
            ahead = {r.tile: dims.symbol(r.tile) + u} if r.tile else {r.var: dims.symbol(r.var) + u * r.width}
            first = self._narrowed(self.size(dims.substitute(size, ahead)), dtype)
            base = self.splat(llvm_type(dtype), first, r.width)
            return base if distance == 0 else o.plus(base, self.lane_steps(distance, dtype))

        if dtype is not i64:
            return self.lanes(i64, r.width).cast(self.size_in_lanes(size, u), dtype)
        return self._sum_in_lanes(size, u)

    def lane_steps(self, distance: Size, dtype: DType = i64) -> str:
        """0, 1, 2 … times a distance that all lanes agree about."""
        r = self.here
        counted = numbers(llvm_type(dtype), range(r.width))
        if isinstance(distance, int):
            return numbers(llvm_type(dtype), [distance * lane for lane in range(r.width)])

        def make() -> Known:
            factor = self.splat(llvm_type(dtype), self._narrowed(self.size(distance), dtype), r.width)
            return self.lanes(dtype, r.width).times(counted, factor)

        key = ("lane steps", distance, dtype, r.width)
        return str(self.hoisted(self.depth(dims.symbols(distance)), key, make))

    def _narrowed(self, value: Known, dtype: DType) -> Known:
        return value if dtype is not i32 or isinstance(value, int) else self.let(f"trunc i64 {value} to i32")

    def _sum_in_lanes(self, size: Size, u: int) -> str:
        r = self.here
        o = self.lanes(i64, r.width)
        if not isinstance(size, Dim):
            return o.c(size)

        apart = {*self.moving(), r.tile}
        same = {m: c for m, c in size.terms if apart.isdisjoint(symbols_of(m))}
        steady = self.size(Dim.of(same))
        total = None if steady == 0 else self.splat("i64", steady, r.width)

        for monomial, coefficient in size.terms:
            if monomial in same:
                continue
            factor = Dim.of({tuple(a for a in monomial if apart.isdisjoint(symbols_of((a,)))): coefficient})
            term = None if factor == 1 else self.splat("i64", self.size(factor), r.width)
            for atom in monomial:
                if not apart.isdisjoint(symbols_of((atom,))):
                    x = self._atom_in_lanes(atom, u)
                    term = x if term is None else o.times(term, x)
            assert term is not None
            total = term if total is None else o.plus(total, term)
        return o.c(0) if total is None else total

    def _atom_in_lanes(self, atom: Atom, u: int) -> str:
        r = self.here
        if isinstance(atom, str):
            if atom in (r.var, r.tile):
                return self.size_in_lanes(dims.symbol(atom), u)
            v = self.env[atom]
            return self.lanes(v.dtype, r.width).cast(self.vectors(v)[u], i64)

        o = self.lanes(i64, r.width)
        left, right = atom.args
        a = self.size_in_lanes(left, u)
        b = self.size_in_lanes(right, u)
        match atom.fn:
            case "min":
                return o.minimum(a, b)
            case "max":
                return o.maximum(a, b)
            case "bcast":
                return o.when("eq", a, o.c(1), b, a)
            case "floordiv":
                return self._divided_in_lanes(atom, a, b, u)[0]
            case _:
                return self._divided_in_lanes(atom, a, b, u)[1]

    def _divided_in_lanes(self, atom: Apply, a: str, b: str, u: int) -> tuple[str, str]:
        """Quotient and remainder of a / b rounded downwards, for |a| < 2^51.

        Vectors have no integer division.  Doubles divide such integers so exactly that the nearest integer is the
        quotient or one more, and the sign of what is left tells which.  Adding 1.5 · 2^52 puts an integer into the
        mantissa of a double, and rounds a double to an integer.
        """
        r = self.here
        o, d = self.lanes(i64, r.width), self.lanes(f64, r.width)
        left, right = atom.args
        if isinstance(right, int) and right & (right - 1) == 0:
            return o.binary("ashr", a, o.c(right.bit_length() - 1)), o.binary("and", a, o.c(right - 1))

        def numbers() -> tuple[str, str]:
            x, y = (d.minus(d.from_bits(o.plus(n, o.c(MAGIC_BITS))), d.c(MAGIC)) for n in (a, divisor))
            q = d.minus(d.plus(d.over(x, y), d.c(MAGIC)), d.c(MAGIC))
            rest = d.minus(x, d.times(q, y))
            over = d.compare("olt", rest, d.c(0.0))
            q = d.select(over, d.minus(q, d.c(1.0)), q)
            rest = d.select(over, d.plus(rest, y), rest)
            low, high = (o.minus(d.bits(d.plus(n, d.c(MAGIC))), o.c(MAGIC_BITS)) for n in (q, rest))
            return low, high

        divisor = b if isinstance(right, int) else o.maximum(b, o.c(1))
        memo = self.scopes[-1].memo
        key = ("divided", left, right, u)
        if (key, 0) not in memo:
            memo[key, 0], memo[key, 1] = numbers()
        return str(memo[key, 0]), str(memo[key, 1])
