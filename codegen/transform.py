"""Loop IR → loop IR: known sizes baked in, grids collapsed, long reductions split, neighbouring loops merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tensorc.codegen import loopir as ir
from tensorc.codegen.access import offset, same_place
from tensorc.codegen.loopverify import InvalidKernel, verify, verify_matmul
from tensorc.errors import InternalError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import DType, i32, i64

SizeMap = Callable[[Size], Size]
PlaceMap = Callable[[str, ir.Index], ir.Index]


def rebuild(body: ir.Body, size: SizeMap, place: PlaceMap | None = None) -> ir.Body:
    """The body with extents and sizes as data passed through `size`, and indices through `place(buffer, index)`.

    Without `place`, each dimension of an index goes through `size` too.
    """
    if place is None:
        def place(_: str, index: ir.Index) -> ir.Index:
            return tuple(map(size, index))

    def expr(e: ir.Expr) -> ir.Expr:
        match e:
            case ir.Iter(n, dtype):
                return ir.Iter(size(n), dtype)
            case ir.Load(buffer, index, dtype, where):
                return ir.Load(buffer, place(buffer, index), dtype, None if where is None else expr(where))
            case ir.Call(fn, args, dtype):
                return ir.Call(fn, tuple(map(expr, args)), dtype)
            case ir.Cast(arg, dtype):
                return ir.Cast(expr(arg), dtype)
        return e

    def statement(s: ir.Stmt) -> ir.Stmt:
        match s:
            case ir.Let(var, value):
                return ir.Let(var, expr(value))
            case ir.Accum(acc, several):
                return ir.Accum(acc, tuple(map(expr, several)))
            case ir.Scan(var, acc, value):
                return ir.Scan(var, acc, expr(value))
            case ir.Store(buffer, index, value):
                return ir.Store(buffer, place(buffer, index), expr(value))
            case ir.For(var, extent, inner):
                return ir.For(var, size(extent), tuple(map(statement, inner)))
        return s

    return tuple(map(statement, body))


# -- known sizes


def bake(k: ir.Kernel, known: Mapping[str, int]) -> ir.Kernel:
    """The kernel for these values of some of its size symbols, which leave its `sizes`: strides and tails fold away."""
    def size(n: Size) -> Size:
        return dims.substitute(n, known)

    return verify(ir.Kernel(
        k.name,
        tuple(n for n in k.sizes if n not in known),
        tuple(_reshaped(b, size) for b in k.buffers),
        tuple((var, size(extent)) for var, extent in k.grid),
        rebuild(k.body, size),
    ))


def bake_matmul(mm: ir.Matmul, known: Mapping[str, int]) -> ir.Matmul:
    """The matmul, and its epilogue, for these values of some of its size symbols."""
    def size(n: Size) -> Size:
        return dims.substitute(n, known)

    return verify_matmul(replace(
        mm,
        sizes=tuple(n for n in mm.sizes if n not in known),
        buffers=tuple(_reshaped(b, size) for b in mm.buffers),
        batch=tuple(map(size, mm.batch)),
        m=size(mm.m),
        n=size(mm.n),
        k=size(mm.k),
        epilogue=None if mm.epilogue is None else bake(mm.epilogue, known),
    ))


def _reshaped(b: ir.Buffer, size: SizeMap) -> ir.Buffer:
    return replace(b, shape=tuple(map(size, b.shape)))


# -- fewer grid dimensions, fewer loops


def collapse(k: ir.Kernel) -> ir.Kernel:
    """Grid dimensions of extent 1 dropped, and neighbours merged that the whole kernel walks as one: [n, m] → [n*m].

    Two dimensions i < n, j < m merge where every offset depends on m*i + j alone, and so do two loops of which one is
    all that is in the other.  A buffer that is indexed by both is seen flat from then on, unless they are neighbours in
    its index too.
    """
    k = _without_ones(k)
    for at, ((a, n), (b, m)) in enumerate(zip(k.grid, k.grid[1:], strict=False)):
        merged = _as_one(k, a, b, m)
        if merged is not None:
            return collapse(replace(merged, grid=(*k.grid[:at], (b, n * m), *k.grid[at + 2:])))

    for outer in ir.statements(k.body):
        if isinstance(outer, ir.For) and isinstance(outer.body[0], ir.For) and len(outer.body) == 1:
            merged = _as_one(k, outer.var, outer.body[0].var, outer.body[0].extent)
            if merged is not None:
                shorter = replace(merged, body=_without_loop(merged.body, outer.var))
                if _is_valid(shorter):
                    return collapse(shorter)
    return verify(k)


def _is_valid(k: ir.Kernel) -> bool:
    """Whether a kernel is valid: seen flat, other accesses to a buffer may no longer be told apart by the grid."""
    try:
        verify(k)
    except InvalidKernel:
        return False
    return True


def _without_ones(k: ir.Kernel) -> ir.Kernel:
    ones: dict[str, Size] = {var: 0 for var, extent in k.grid if extent == 1}
    if not ones:
        return k
    grid = tuple((var, extent) for var, extent in k.grid if var not in ones)
    return replace(k, grid=grid, body=rebuild(k.body, lambda n: dims.substitute(n, ones)))


def _without_loop(body: ir.Body, outer: str) -> ir.Body:
    """The body where the only statement of the loop `outer`, a loop itself, does all of its iterations."""
    found: list[ir.Stmt] = []
    for s in body:
        if isinstance(s, ir.For):
            s = replace(s, body=_without_loop(s.body, outer))
            if s.var == outer:
                inner, = s.body
                assert isinstance(inner, ir.For)
                s = replace(inner, extent=s.extent * inner.extent)
        found.append(s)
    return tuple(found)


class _Apart(Exception):
    """Two variables are not used as one."""


def _as_one(k: ir.Kernel, a: str, b: str, m: Size) -> ir.Kernel | None:
    """The kernel in which b stands for m*a + b everywhere but where the two are bound; or None.  b runs below m."""
    shapes = {x.name: x.shape for x in k.buffers}
    paired = {name: _pair(k, name, a, b, m) for name in shapes}
    crossed = {
        access.buffer
        for access, _ in ir.accesses(k.body)
        if any({a, b} & dims.symbols(size) for size in access.index)
    }

    def together(size: Size) -> Size:
        inner = dims.linear(size, b)
        outer = None if inner is None else dims.linear(inner[1], a)
        if inner is None or outer is None or outer[0] != m * inner[0] or a in dims.symbols(inner[0]):
            raise _Apart
        return outer[1] + inner[0] * dims.symbol(b)

    def place(name: str, index: ir.Index) -> ir.Index:
        pair = paired[name]
        if pair is not None:
            return (*map(together, index[:pair]), dims.symbol(b), *map(together, index[pair + 2:]))
        if name in crossed:
            return (together(offset(shapes[name], index)),)
        return index

    def shape(x: ir.Buffer) -> ir.Buffer:
        pair = paired[x.name]
        if pair is not None:
            return replace(x, shape=(*x.shape[:pair], x.shape[pair] * m, *x.shape[pair + 2:]))
        return replace(x, shape=(dims.product(x.shape),)) if x.name in crossed else x

    if a in dims.symbols(m):
        return None
    try:
        body = rebuild(k.body, together, place)
    except _Apart:
        return None
    return replace(k, buffers=tuple(map(shape, k.buffers)), body=body)


def _pair(k: ir.Kernel, name: str, a: str, b: str, m: Size) -> int | None:
    """Where every index of a buffer reads …, a, b, … with m the size under b; None without such a place."""
    want = (dims.symbol(a), dims.symbol(b))
    found: set[int | None] = set()
    for access, _ in ir.accesses(k.body):
        if access.buffer == name:
            pairs = zip(access.index, access.index[1:], strict=False)
            found.add(next((d for d, pair in enumerate(pairs) if pair == want), None))
    at = found.pop() if len(found) == 1 else None
    return at if at is not None and k.buffer(name).shape[at + 1] == m else None


# -- long reductions


def split(k: ir.Kernel, var: str, chunk: Size) -> tuple[ir.Kernel, ir.Kernel]:
    """Cuts the reduction loop `var` of `lets; accs; for var: …; rest` into chunks, by its extent alone.

    The first kernel has one more grid dimension and leaves partial results in scratch buffers [chunks, *grid]; the
    second combines them in order and does the rest.

    Raises InternalError for a kernel of another form.
    """
    plan = _split_plan(k, var)
    count = dims.ceildiv(plan.loop.extent, chunk)
    chunk_var = f"{var}_chunk"
    taken = {b.name for b in k.buffers} | {v for v, _ in k.grid}
    own = tuple(dims.symbol(v) for v, _ in k.grid)

    start = chunk * dims.symbol(chunk_var)
    shifted = rebuild(plan.loop.body, lambda n: dims.substitute(n, {var: dims.symbol(var) + start}))
    extent = plan.loop.extent
    each = chunk if dims.mod(extent, chunk) == 0 else dims.minimum(chunk, extent - start)
    part = ir.For(var, each, shifted)

    scratch: list[ir.Buffer] = []
    stores: list[ir.Stmt] = []
    joins: list[ir.Stmt] = []
    for acc in plan.accs:
        loads: list[ir.Expr] = []
        for name, dtype in _state(acc):
            buffer = ir.Buffer(_fresh(f"{name.replace('.', '_')}_part", taken), dtype, (count, *_extents(k)), "scratch")
            scratch.append(buffer)
            stores.append(ir.Store(buffer.name, (dims.symbol(chunk_var), *own), ir.Var(name, dtype)))
            load: ir.Expr = ir.Load(buffer.name, (dims.symbol(var), *own), dtype)
            loads.append(ir.Cast(load, i32) if name != acc.var else load)
        joins.append(ir.Accum(acc.var, tuple(loads)))

    before: ir.Body = (*plan.lets, *plan.accs)
    first_body: ir.Body = (*before, part, *stores)
    second_body: ir.Body = (*before, ir.For(var, count, tuple(joins)), *plan.rest)
    grid = ((chunk_var, count), *k.grid)
    first = ir.Kernel(f"{k.name}_part", k.sizes, (*_used(k.buffers, first_body), *scratch), grid, first_body)
    second = ir.Kernel(f"{k.name}_join", k.sizes, (*scratch, *_used(k.buffers, second_body)), k.grid, second_body)
    return verify(first), verify(second)


def followed(k: ir.Kernel, epilogue: ir.Kernel) -> ir.Kernel:
    """The kernel, which stores one element an iteration, with what its epilogue makes of that element.

    Raises InvalidKernel where the two have variables of one name.
    """
    (store,) = (s for s in ir.statements(k.body) if isinstance(s, ir.Store))
    at = dict(zip((var for var, _ in epilogue.grid), store.index, strict=True))
    body = (*k.body, *rebuild(epilogue.body, lambda n: dims.substitute(n, at)))
    own = {b.name for b in k.buffers}
    others = _used([b for b in epilogue.buffers if b.name not in own], epilogue.body)
    return verify(replace(k, buffers=(*k.buffers, *others), body=body))


@dataclass(frozen=True)
class _SplitPlan:
    lets: tuple[ir.Let, ...]
    accs: tuple[ir.Acc, ...]
    loop: ir.For
    rest: ir.Body


def _split_plan(k: ir.Kernel, var: str) -> _SplitPlan:
    at = next((at for at, s in enumerate(k.body) if isinstance(s, ir.For) and s.var == var), None)
    loop = None if at is None else k.body[at]
    if at is None or not isinstance(loop, ir.For):
        raise InternalError(f"{k.name} has no loop {var} to split")

    lets = tuple(s for s in k.body[:at] if isinstance(s, ir.Let))
    accs = tuple(s for s in k.body[:at] if isinstance(s, ir.Acc) and s.var in ir.fed(loop))
    rest = k.body[at + 1:]
    inner = list(ir.statements(loop.body))
    if len(lets) + len(accs) < at or any(isinstance(s, ir.Store | ir.Scan) for s in inner) or any(
        ir.fed(s) & {a.var for a in accs} for s in rest
    ):
        raise InternalError(f"the loop {var} of {k.name} is no reduction that can be split")
    return _SplitPlan(lets, accs, loop, rest)


def _state(acc: ir.Acc) -> list[tuple[str, DType]]:
    """What a closed accumulator is read as."""
    index = [(f"{acc.var}.index", i64)] if acc.op in ir.ARG_ACCUMULATORS else []
    return [(acc.var, acc.dtype), *index]


def _extents(k: ir.Kernel) -> tuple[Size, ...]:
    return tuple(extent for _, extent in k.grid)


def _used(buffers: Sequence[ir.Buffer], body: ir.Body) -> tuple[ir.Buffer, ...]:
    names = {access.buffer for access, _ in ir.accesses(body)}
    return tuple(b for b in buffers if b.name in names)


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


# -- fewer loops


def merge_loops(k: ir.Kernel) -> ir.Kernel:
    """Neighbouring loops of one extent that do not need each other's results run as one, at every depth.

    Accumulators opened between the two open before both.  The order within each loop stays, so results do too.
    """
    return verify(replace(k, body=_merged(k.body, {b.name: b.shape for b in k.buffers})))


def _merged(body: ir.Body, shapes: Mapping[str, tuple[Size, ...]]) -> ir.Body:
    out: list[ir.Stmt] = []
    for s in body:
        if isinstance(s, ir.For):
            s = replace(s, body=_merged(s.body, shapes))
            at = len(out) - 1
            while at >= 0 and isinstance(out[at], ir.Acc):
                at -= 1
            before = out[at] if at >= 0 else None
            if isinstance(before, ir.For) and _independent(before, s, shapes):
                renamed = {s.var: dims.symbol(before.var)}
                inner = rebuild(s.body, lambda n, renamed=renamed: dims.substitute(n, renamed))  # type: ignore[misc]
                out[at:] = [*out[at + 1:], replace(before, body=_merged((*before.body, *inner), shapes))]
                continue
        out.append(s)
    return tuple(out)


def _independent(first: ir.For, second: ir.For, shapes: Mapping[str, tuple[Size, ...]]) -> bool:
    """Whether iteration i of both may run before iteration i + 1 of the first."""
    if first.extent != second.extent or ir.fed(first) & ir.fed(second):
        return False
    if any(isinstance(e, ir.Var) and e.name.partition(".")[0] in ir.fed(first) for e in ir.expressions(second.body)):
        return False

    for a, around_a in ir.accesses(first.body, (first,)):
        for b, around_b in ir.accesses(second.body, (second,)):
            if a.buffer != b.buffer or not (isinstance(a, ir.Store) or isinstance(b, ir.Store)):
                continue
            meets = (a.index, b.index) if len(around_a) == len(around_b) == 1 else None
            if meets is None or not same_place(a, around_a, b, around_b, shapes[a.buffer]):
                return False
            if first.var not in {v for size in a.index for v in dims.symbols(size)}:
                return False
    return True


# -- a matmul as loops


def matmul_loops(mm: ir.Matmul) -> ir.Kernel:
    """The product of a matmul, without its epilogue, as a plain kernel: what its generators must agree with.

    Operands of 16 bits are summed in float32.
    """
    *batch, i, j, p, name = mm.names
    total = mm.c.dtype.wide

    def operand(buffer: ir.Buffer, row: str, column: str, transposed: bool) -> ir.Expr:
        outer = buffer.shape[:-2]
        names = batch[len(batch) - len(outer):]
        lead = [0 if size == 1 else dims.symbol(name) for name, size in zip(names, outer, strict=True)]
        last = (column, row) if transposed else (row, column)
        load = ir.Load(buffer.name, (*lead, *map(dims.symbol, last)), buffer.dtype)
        return load if buffer.dtype is total else ir.Cast(load, total)

    product = ir.Call(
        "mul", (operand(mm.a, i, p, mm.transpose_a), operand(mm.b, p, j, mm.transpose_b)), total
    )
    result: ir.Expr = ir.Var(name, total)
    body = (
        ir.Acc(name, "add", total),
        ir.For(p, mm.k, (ir.Accum(name, (product,)),)),
        ir.Store(
            mm.c.name,
            tuple(map(dims.symbol, [*batch, i, j])),
            result if mm.c.dtype is total else ir.Cast(result, mm.c.dtype),
        ),
    )
    grid = tuple(zip([*batch, i, j], [*mm.batch, mm.m, mm.n], strict=True))
    return ir.Kernel(mm.name, mm.sizes, mm.buffers, grid, body)
