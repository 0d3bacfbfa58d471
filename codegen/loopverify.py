"""What a valid kernel is.  Every pass ends with `verify`: valid in, valid out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NoReturn

from tensorc.codegen import loopir as ir
from tensorc.codegen.access import determined, never_meet, same_place
from tensorc.codegen.looptext import expression_text, index_text, statement_text
from tensorc.codegen.scalars import SCALARS
from tensorc.errors import InternalError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import DType, boolean, i32, i64


class InvalidKernel(InternalError):
    """A kernel that breaks a rule of the loop IR.  The text names the kernel, the statement and the rule."""


def verify(k: ir.Kernel) -> ir.Kernel:
    """k itself.  Raises InvalidKernel.

    - Buffers, sizes and variables have different names; each variable is bound once, before it is used.
    - Indices have the rank of their buffer and speak of sizes, loop variables and integer variables in scope.
    - Every expression has the dtype it says.
    - Accumulators are fed in their scope and read after the loop that feeds them.
    - Two iterations of the grid never meet: the place of each store determines every grid variable, and all accesses to
      a buffer that is stored to agree about what a grid variable says of the place.  An output is stored to before it
      is read.
    """
    _Verifier(k).kernel()
    return k


def verify_matmul(mm: ir.Matmul) -> ir.Matmul:
    """mm itself.  Raises InvalidKernel: shapes or dtypes that do not fit, an epilogue that is not elementwise."""
    if len(mm.buffers) < 3:
        raise InvalidKernel(f"{mm.name}: a matmul has at least three buffers, not {len(mm.buffers)}")

    def operand(buffer: ir.Buffer, rows: Size, columns: Size, transposed: bool) -> None:
        want = (columns, rows) if transposed else (rows, columns)
        outer = buffer.shape[:-2]
        fits = len(outer) <= len(mm.batch) and all(
            size in (1, full) for size, full in zip(outer, mm.batch[len(mm.batch) - len(outer):], strict=True)
        )
        if buffer.shape[-2:] != want or not fits:
            expected = index_text((*mm.batch, *want))
            shape = index_text(buffer.shape)
            raise InvalidKernel(f"{mm.name}: {buffer.name} is {shape}, which does not fit {expected}")

    operand(mm.a, mm.m, mm.k, mm.transpose_a)
    operand(mm.b, mm.k, mm.n, mm.transpose_b)
    operand(mm.c, mm.m, mm.n, transposed=False)

    if mm.c.shape[:-2] != mm.batch or not mm.c.writable:
        raise InvalidKernel(f"{mm.name}: {mm.c.name} must be written, with all batch dimensions")
    if mm.a.dtype is not mm.b.dtype:
        raise InvalidKernel(f"{mm.name}: {mm.a.name} is {mm.a.dtype}, but {mm.b.name} is {mm.b.dtype}")
    if mm.epilogue is not None:
        _verify_epilogue(mm, mm.epilogue, mm.c, (*mm.batch, mm.m, mm.n))
    return mm


def verify_conv(conv: ir.Conv) -> ir.Conv:
    """conv itself.  Raises InvalidKernel: shapes or dtypes that do not fit, an epilogue that is not elementwise."""
    def fail(reason: str) -> NoReturn:
        raise InvalidKernel(f"{conv.name}: {reason}")

    if len(conv.buffers) < 3:
        fail(f"a convolution has at least three buffers, not {len(conv.buffers)}")
    x, w, y = conv.x, conv.w, conv.y
    rank = len(conv.strides)
    if not 1 <= rank <= 3 or {len(conv.dilations), len(conv.low)} != {rank}:
        fail("strides, dilations and low must have one entry for each of one to three spatial axes")
    if {len(b.shape) for b in (x, w, y)} != {rank + 2}:
        fail(f"with {rank} spatial axes {x.name}, {w.name} and {y.name} have rank {rank + 2}")
    if not all(isinstance(size, int) for size in w.shape):
        fail(f"{w.name} is {index_text(w.shape)}, which must be numbers")

    *_, taken, given = w.shape
    if min(*conv.strides, *conv.dilations, conv.groups) < 1 or dims.mod(given, conv.groups) != 0:
        fail("strides, dilations and groups are 1 or more, and groups divide the channels")
    if x.shape[0] != y.shape[0]:
        fail(f"the batches of {x.name} and {y.name} differ")
    for buffer, channels in ((x, taken * conv.groups), (y, given)):
        if buffer.shape[-1] != channels:
            fail(f"{buffer.name} has {buffer.shape[-1]} channels, not {channels}")
    if len({b.dtype for b in (x, w, y)}) > 1 or not conv.result.writable:
        fail(f"{conv.result.name} must be written, in the dtype of the two others")
    if conv.epilogue is not None:
        _verify_epilogue(conv, conv.epilogue, conv.result, conv.result.shape)
    return conv


def _verify_epilogue(owner: ir.Matmul | ir.Conv, epilogue: ir.Kernel, result: ir.Buffer, shape: ir.Index) -> None:
    name = owner.name
    extents = tuple(extent for _, extent in epilogue.grid)
    if extents != shape:
        raise InvalidKernel(f"{name}: the grid of the epilogue is {extents}, not {shape}")
    if epilogue.buffers != _inout(owner.buffers, result) or epilogue.sizes != owner.sizes:
        raise InvalidKernel(f"{name}: the epilogue has other buffers or sizes than the {type(owner).__name__.lower()},"
                            f" whose {result.name} it updates")
    for s in ir.statements(epilogue.body):
        if not isinstance(s, ir.Let | ir.Store):
            raise InvalidKernel(f"{name}: {statement_text(s)}: an epilogue is elementwise")

    own = tuple(dims.symbol(var) for var, _ in epilogue.grid)
    for access, _ in ir.accesses(epilogue.body):
        if access.buffer == result.name and access.index != own:
            place = f"{result.name}{index_text(access.index)}"
            raise InvalidKernel(f"{name}: the epilogue touches {place}, not its own point")
    verify(epilogue)


def _inout(buffers: tuple[ir.Buffer, ...], c: ir.Buffer) -> tuple[ir.Buffer, ...]:
    """The buffers as an epilogue sees them: c holds the product."""
    return tuple(ir.Buffer(b.name, b.dtype, b.shape, "inout") if b is c else b for b in buffers)


class _Verifier:
    """Walks a kernel once, with the names in scope at each statement."""

    def __init__(self, k: ir.Kernel) -> None:
        self.k = k
        self.buffers = {b.name: b for b in k.buffers}
        self.bound = {*k.sizes, *self.buffers}
        self.stored: list[tuple[ir.Store, tuple[ir.For, ...]]] = []
        self.stores = [(a, around) for a, around in ir.accesses(k.body) if isinstance(a, ir.Store)]

    def fail(self, reason: str, s: ir.Stmt | None = None) -> NoReturn:
        where = "" if s is None else f"{statement_text(s)}: "
        raise InvalidKernel(f"{self.k.name}: {where}{reason}")

    def kernel(self) -> None:
        k = self.k
        if len(self.bound) < len(k.sizes) + len(k.buffers):
            self.fail("two sizes or buffers have one name")
        for b in k.buffers:
            for size in b.shape:
                self.size(size, k.sizes, None)
        for var, extent in k.grid:
            self.size(extent, k.sizes, None)
            self.bind(var, None)
        self.body(k.body, {}, {}, ())

    def bind(self, name: str, s: ir.Stmt | None) -> None:
        if not name.isidentifier():
            self.fail(f"{name!r} is not a name", s)
        if name in self.bound:
            self.fail(f"{name} is bound twice", s)
        self.bound.add(name)

    def size(self, size: Size, names: Collection[str], s: ir.Stmt | None) -> None:
        unknown = dims.symbols(size).difference(names)
        if unknown:
            self.fail(f"{min(unknown)} in {size} is no size, loop or integer variable in scope", s)

    # -- statements

    def body(
        self, body: ir.Body, env: Mapping[str, DType], accs: Mapping[str, ir.Acc], around: tuple[ir.For, ...]
    ) -> None:
        env = dict(env)
        accs = dict(accs)
        opened: dict[str, ir.Acc] = {}

        for s in body:
            names = self.names(env, around)
            for value in ir.values(s):
                self.expr(value, env, names, s, around)
            match s:
                case ir.Let(var, value):
                    self.bind(var, s)
                    env[var] = value.dtype
                case ir.Acc(var, op, dtype):
                    self.bind(var, s)
                    self.acc(s, op, dtype)
                    opened[var] = accs[var] = s
                case ir.Accum(acc, several):
                    self.accum(s, accs.get(acc), several)
                    self.unread(acc, env, s)
                case ir.Scan(var, acc, value):
                    self.scan(s, accs.get(acc), value)
                    self.unread(acc, env, s)
                    self.bind(var, s)
                    env[var] = value.dtype
                case ir.Store():
                    self.store(s, names, around)
                case ir.For(var, extent, inner):
                    self.size(extent, names, s)
                    self.bind(var, s)
                    self.body(inner, {n: t for n, t in env.items() if n not in ir.fed(s)}, accs, (*around, s))
                    for name in sorted(ir.fed(s) & opened.keys()):
                        env[name] = opened[name].dtype
                        if opened[name].op in ir.ARG_ACCUMULATORS:
                            env[f"{name}.index"] = i64

    def names(self, env: Mapping[str, DType], around: tuple[ir.For, ...]) -> frozenset[str]:
        """What an index or an extent may speak of."""
        integers = (name for name, dtype in env.items() if dtype.is_integer and "." not in name)
        return frozenset((*self.k.sizes, *(v for v, _ in self.k.grid), *(loop.var for loop in around), *integers))

    def acc(self, s: ir.Stmt, op: str, dtype: DType) -> None:
        if op not in ir.ACCUMULATORS:
            self.fail(f"no accumulator is called {op}", s)
        if dtype.is_half:
            self.fail(f"{dtype.name} is stored, never computed with", s)
        if (op in ("and", "or")) > dtype.is_bool or dtype.is_bool > (op in ("and", "or", "max", "min")):
            self.fail(f"{op} does not accumulate {dtype}", s)

    def accum(self, s: ir.Stmt, acc: ir.Acc | None, several: tuple[ir.Expr, ...]) -> None:
        if acc is None:
            self.fail("no such accumulator is open", s)
        want = (acc.dtype, i32) if acc.op in ir.ARG_ACCUMULATORS else (acc.dtype,)
        got = tuple(value.dtype for value in several)
        if got != want:
            self.fail(f"{acc.op} takes {', '.join(map(str, want))}, not {', '.join(map(str, got))}", s)

    def scan(self, s: ir.Stmt, acc: ir.Acc | None, value: ir.Expr) -> None:
        if acc is None:
            self.fail("no such accumulator is open", s)
        if acc.op in ir.ARG_ACCUMULATORS:
            self.fail(f"{acc.op} cannot be scanned", s)
        if value.dtype is not acc.dtype:
            self.fail(f"the accumulator is {acc.dtype}, the value {value.dtype}", s)

    def unread(self, acc: str, env: Mapping[str, DType], s: ir.Stmt) -> None:
        if acc in env:
            self.fail(f"{acc} has been closed by the loop that fed it", s)

    # -- expressions

    def expr(
        self, e: ir.Expr, env: Mapping[str, DType], names: frozenset[str], s: ir.Stmt, around: tuple[ir.For, ...]
    ) -> None:
        for inner in ir.children(e):
            self.expr(inner, env, names, s, around)
        match e:
            case ir.Var(name, dtype):
                if env.get(name) is not dtype:
                    self.fail(f"{name} is {env.get(name, 'not bound')}, read as {dtype}", s)
            case ir.Iter(size, dtype):
                self.size(size, names, s)
                if dtype not in (i32, i64):
                    self.fail(f"{size} as data is i32 or i64, not {dtype}", s)
            case ir.Load():
                self.load(e, names, s, around)
            case ir.Call(fn, args, dtype):
                scalar = SCALARS.get(fn)
                if scalar is None:
                    self.fail(f"no scalar function is called {fn}", s)
                got = tuple(a.dtype for a in args)
                if len(args) != scalar.arity or scalar.result(got) is not dtype:
                    self.fail(f"{expression_text(e)} is not {dtype} for {', '.join(map(str, got))}", s)

    def access(self, a: ir.Load | ir.Store, names: frozenset[str], s: ir.Stmt) -> ir.Buffer:
        b = self.buffers.get(a.buffer)
        if b is None:
            self.fail(f"no buffer is called {a.buffer}", s)
        if len(a.index) != len(b.shape):
            self.fail(f"{b.name} has {len(b.shape)} dimensions, the index {len(a.index)}", s)
        for size in a.index:
            self.size(size, names, s)
        return b

    def load(self, e: ir.Load, names: frozenset[str], s: ir.Stmt, around: tuple[ir.For, ...]) -> None:
        b = self.access(e, names, s)
        if b.dtype is not e.dtype:
            self.fail(f"{b.name} is {b.dtype}, loaded as {e.dtype}", s)
        if e.where is not None and e.where.dtype is not boolean:
            self.fail(f"`where` is {e.where.dtype}, not bool", s)

        if b.role == "out" and not any(a.buffer == b.name for a, _ in self.stored):
            self.fail(f"{b.name} is read before this iteration has stored it", s)
        if not all(self.apart(e, around, a, at, b) for a, at in self.stores if a.buffer == b.name):
            self.fail(f"{b.name} is read where another iteration may store it", s)

    def store(self, s: ir.Store, names: frozenset[str], around: tuple[ir.For, ...]) -> None:
        b = self.access(s, names, s)
        if not b.writable:
            self.fail(f"{b.name} is read only", s)
        if b.dtype is not s.value.dtype:
            self.fail(f"{b.name} is {b.dtype}, the value {s.value.dtype}", s)

        loops = [*self.k.grid, *((loop.var, loop.extent) for loop in around)]
        told = determined(b.shape, s.index, loops, self.k.sizes)
        missing = [var for var, _ in self.k.grid if var not in told]
        if missing:
            self.fail(f"iterations of {missing[0]} may store to one place", s)

        for other, at in self.stored:
            if other.buffer == b.name and not self.apart(s, around, other, at, b):
                self.fail(f"`{statement_text(other)}` in another iteration may store to the same place", s)
        self.stored.append((s, around))

    def apart(
        self,
        s: ir.Load | ir.Store,
        around: tuple[ir.For, ...],
        other: ir.Store,
        at: tuple[ir.For, ...],
        b: ir.Buffer,
    ) -> bool:
        """Whether two accesses can meet only within an iteration, if at all: the grid variables stand in both alike."""
        grid = frozenset(var for var, _ in self.k.grid)
        if same_place(s, around, other, at, b.shape):
            return True
        pairs = list(zip(s.index, other.index, strict=True))
        if all(x == y for x, y in pairs if not grid.isdisjoint(dims.symbols(x) | dims.symbols(y))):
            return True
        return any(never_meet(x, y, self.k.grid, self.k.sizes) for x, y in pairs)
