"""Dear values kept: what two loops of a kernel compute alike, the first leaves where the second will store its result.

A softmax wants exp(x - max) twice, for the sum and for the result.  To write it into the row of results and rescale
that row costs less than to compute it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from tensorc.codegen import loopir as ir
from tensorc.codegen.loopverify import verify
from tensorc.codegen.weigh import call_cost
from tensorc.ir import dims
from tensorc.ir.dims import Size

DEAR = 15
"""Cost from which a value is better stored and loaded than computed again."""


def keep_values(kernel: ir.Kernel) -> ir.Kernel:
    """The kernel in which neighbouring loops of one extent share their dear values through its results."""
    body = kernel.body
    loops = [at for at, s in enumerate(body) if isinstance(s, ir.For)]
    for first, second in combinations(loops, 2):
        body = _kept(kernel, body, first, second)
    return kernel if body is kernel.body else verify(replace(kernel, body=body))


@dataclass(frozen=True)
class _Kept:
    """A value that two loops compute, as variable `early` and as `late`, and a store of the second into its own place.

    Attributes:
        reads: the buffers that it is computed from.
    """

    early: str
    late: str
    store: ir.Store
    reads: frozenset[str]


def _kept(kernel: ir.Kernel, body: ir.Body, first: int, second: int) -> ir.Body:
    """The body where the loop at `first` stores what the one at `second` then loads; as it is if they share nothing."""
    a, b = body[first], body[second]
    if not (isinstance(a, ir.For) and isinstance(b, ir.For)) or a.extent != b.extent or not (_flat(a) and _flat(b)):
        return body

    written = [s.buffer for s in ir.statements(body) if isinstance(s, ir.Store)]
    elsewhere = {access.buffer for access, _ in ir.accesses((*body[first + 1:second], *body[second + 1:]))}
    for kept in _shared(kernel, a, b):
        buffer, place = kept.store.buffer, kept.store.index
        if written.count(buffer) > 1 or buffer in elsewhere or not kept.reads.isdisjoint({*written} - {buffer}):
            continue

        there = tuple(dims.substitute(size, {b.var: dims.symbol(a.var)}) for size in place)
        before = [access for access, _ in ir.accesses(a.body) if access.buffer == buffer]
        late = replace(b, body=_without_unused(_reloaded(b.body, kept)))
        after = [access for access, _ in ir.accesses(late.body) if access.buffer == buffer]
        if all(access.index == there for access in before) and len(after) == 2:
            value = ir.Var(kept.early, kernel.buffer(buffer).dtype)
            early = replace(a, body=(*a.body, ir.Store(buffer, there, value)))
            return (*body[:first], early, *body[first + 1:second], late, *body[second + 1:])
    return body


def _flat(loop: ir.For) -> bool:
    return not any(isinstance(s, ir.For | ir.Scan) for s in loop.body)


def _shared(kernel: ir.Kernel, a: ir.For, b: ir.For) -> Iterator[_Kept]:
    """The dear values of both loops that have a store to go to, the last ones first."""
    table: dict[object, int] = {}
    early = {number: var for var, number in numbers_of(a, a.var, table).items()}
    steady = {*kernel.sizes, *(var for var, _ in kernel.grid), b.var}
    stores = [s for s in b.body if isinstance(s, ir.Store)]

    for late, number in reversed([*numbers_of(b, a.var, table).items()]):
        if number in early:
            parts = made_of(b, late)
            value = parts[-1].value
            cost = sum(call_cost(e) for let in parts for e in ir.walk(let.value) if isinstance(e, ir.Call))
            reads = frozenset(e.buffer for let in parts for e in ir.walk(let.value) if isinstance(e, ir.Load))
            for s in stores:
                fits = kernel.buffer(s.buffer).dtype is value.dtype
                if cost >= DEAR and fits and all(dims.symbols(size) <= steady for size in s.index):
                    yield _Kept(early[number], late, s, reads)


def numbers_of(loop: ir.For, var: str, table: dict[object, int]) -> dict[str, int]:
    """A number for the value of each Let of a loop, whose variable is called `var`; equal numbers are equal values."""
    found: dict[str, int] = {}
    here: dict[str, Size] = {loop.var: dims.symbol(var)}

    def number(e: ir.Expr) -> int:
        inner = tuple(map(number, ir.children(e)))
        key: object = (type(e), e.dtype, inner)
        match e:
            case ir.Num(value, _):
                key = key, repr(value)
            case ir.Var(name, _):
                key = found.get(name, (key, name))
            case ir.Call(fn, _, _):
                key = key, fn
            case ir.Iter(size, _):
                key = key, dims.substitute(size, here), _own(dims.symbols(size), found)
            case ir.Load(buffer, index, _, _):
                names = {name for size in index for name in dims.symbols(size)}
                key = key, buffer, tuple(dims.substitute(size, here) for size in index), _own(names, found)
        return key if isinstance(key, int) else table.setdefault(key, len(table))

    for s in loop.body:
        if isinstance(s, ir.Let):
            found[s.var] = number(s.value)
    return found


def _own(names: frozenset[str] | set[str], found: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The data of this loop that a size depends on: such sizes of two loops count as different."""
    return tuple(sorted((name, found[name]) for name in names if name in found))


def made_of(loop: ir.For, var: str) -> list[ir.Let]:
    """The Lets of a loop that a variable of it is computed by, its own last."""
    wanted = {var}
    found: list[ir.Let] = []
    for s in reversed(loop.body):
        if isinstance(s, ir.Let) and s.var in wanted:
            wanted |= names_in(s)
            found.append(s)
    return found[::-1]


def _reloaded(body: ir.Body, kept: _Kept) -> ir.Body:
    """The body that loads the late variable from where it will be stored over."""
    return tuple(
        ir.Let(s.var, ir.Load(kept.store.buffer, kept.store.index, s.value.dtype))
        if isinstance(s, ir.Let) and s.var == kept.late
        else s
        for s in body
    )


def _without_unused(body: ir.Body) -> ir.Body:
    """The body without Lets that nothing after them reads."""
    wanted: set[str] = set()
    found: list[ir.Stmt] = []
    for s in reversed(body):
        if not isinstance(s, ir.Let) or s.var in wanted:
            wanted |= names_in(s)
            found.append(s)
    return tuple(found[::-1])


def names_in(s: ir.Stmt) -> set[str]:
    """The variables that a statement without a body of its own reads, as values or in indices."""
    names: set[str] = set()
    sizes = list(s.index) if isinstance(s, ir.Store) else []
    for value in ir.values(s):
        for e in ir.walk(value):
            match e:
                case ir.Var(name, _):
                    names.add(name)
                case ir.Iter(size, _):
                    sizes.append(size)
                case ir.Load(_, index, _, _):
                    sizes.extend(index)
    return names.union(*map(dims.symbols, sizes))
