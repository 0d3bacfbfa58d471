"""Operations on sparse matrices as loops: a grid over rows or columns, inner loops over the entries of a row.

Where a row begins and ends is data, so the extents of inner loops are.  Sums follow the order of the entries, or of the
rows: neither depends on how many threads share the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tensorc.codegen import loopir as ir
from tensorc.ir import dims
from tensorc.ir.dims import Size

Grid = tuple[tuple[str, Size], ...]
Claim = Callable[[str], str]
"""A name like the one wished for that nothing else in the kernel has."""

BLOCK = 64
"""Columns of a product that are computed at a time: four vectors of float32, four cache lines of each row read."""

Step = Callable[[Size], ir.Stmt]
"""A statement of a loop over entries, given the place of the entry."""

Written = tuple[Grid, ir.Body]
Writer = Callable[[Claim, Sequence[ir.Buffer], ir.Buffer], Written]


def dot(claim: Claim, operands: Sequence[ir.Buffer], out: ir.Buffer) -> Written:
    """out[r, j] = Σ over the entries e of row r of data[e] · dense[column of e, j].

    All rows for one block of columns come before the next: what is read of `dense` at a time stays in cache.
    """
    data, indices, indptr, dense = operands
    r, j, total = claim("r"), claim("j"), claim("total")
    n = out.shape[1]
    width = _block(n)
    blocks = () if width == n else ((claim("b"), dims.floordiv(n, width)),)
    at = width * dims.symbol(blocks[0][0]) + dims.symbol(j) if blocks else dims.symbol(j)
    bounds, entries = _row(claim, indptr, r)
    column = claim("c")
    loop = entries((
        lambda e: ir.Let(column, _load(indices, e)),
        lambda e: ir.Accum(total, (_product(_load(data, e), _load(dense, column, at)),)),
    ))
    body = (*bounds, ir.Acc(total, "add", out.dtype), loop, _store(out, (r, at), ir.Var(total, out.dtype)))
    return (*blocks, (r, out.shape[0]), (j, width)), body


def dot_transposed(claim: Claim, operands: Sequence[ir.Buffer], out: ir.Buffer) -> Written:
    """out[column of e, j] += data[e] · dense[r, j] for the entries e of each row r, row after row."""
    data, indices, indptr, dense = operands
    r, j, factor, column = claim("r"), claim("j"), claim("factor"), claim("c")
    bounds, entries = _row(claim, indptr, r)

    def added(e: Size) -> ir.Stmt:
        step = _product(_load(data, e), ir.Var(factor, dense.dtype))
        return _store(out, (column, j), ir.Call("add", (_load(out, column, j), step), out.dtype))

    scatter = entries((lambda e: ir.Let(column, _load(indices, e)), added))
    rows = ir.For(r, dense.shape[0], (*bounds, ir.Let(factor, _load(dense, r, j)), scatter))
    return ((j, out.shape[1]),), (_zeros(claim, out, lambda row: (row, j), out.shape[0]), rows)


def to_dense(claim: Claim, operands: Sequence[ir.Buffer], out: ir.Buffer) -> Written:
    """Zeros along row r of out, and the row's entries in their columns."""
    data, indices, indptr = operands
    r, column = claim("r"), claim("c")
    bounds, entries = _row(claim, indptr, r)
    scatter = entries((
        lambda e: ir.Let(column, _load(indices, e)),
        lambda e: _store(out, (r, column), _load(data, e)),
    ))
    return ((r, out.shape[0]),), (_zeros(claim, out, lambda at: (r, at), out.shape[1]), *bounds, scatter)


def rows(claim: Claim, operands: Sequence[ir.Buffer], out: ir.Buffer) -> Written:
    """out[e] = r for the entries e of each row r."""
    indptr, = operands
    r = claim("r")
    bounds, entries = _row(claim, indptr, r)
    each = entries((lambda e: ir.Store(out.name, (e,), ir.Iter(dims.symbol(r), out.dtype)),))
    return (), (ir.For(r, indptr.shape[0] - 1, (*bounds, each)),)


def values(claim: Claim, operands: Sequence[ir.Buffer], out: ir.Buffer) -> Written:
    """out[e] = x[row of e, column of e]."""
    x, row_of, indices, _ = operands
    e, row, column = claim("e"), claim("r"), claim("c")
    lets = (ir.Let(row, _load(row_of, e)), ir.Let(column, _load(indices, e)))
    return ((e, out.shape[0]),), (*lets, _store(out, (e,), _load(x, row, column)))


def sampled_dot(claim: Claim, operands: Sequence[ir.Buffer], out: ir.Buffer) -> Written:
    """out[e] = Σ over j of x[row of e, j] · y[column of e, j]."""
    x, y, row_of, indices, _ = operands
    e, row, column, j, total = map(claim, ("e", "r", "c", "j", "total"))
    lets = (ir.Let(row, _load(row_of, e)), ir.Let(column, _load(indices, e)))
    term = ir.Accum(total, (_product(_load(x, row, j), _load(y, column, j)),))
    loop = ir.For(j, x.shape[1], (term,))
    body = (*lets, ir.Acc(total, "add", out.dtype), loop, _store(out, (e,), ir.Var(total, out.dtype)))
    return ((e, out.shape[0]),), body


WRITERS: Mapping[str, Writer] = {
    "csr_dot": dot,
    "csr_dot_transposed": dot_transposed,
    "csr_to_dense": to_dense,
    "csr_rows": rows,
    "csr_values": values,
    "csr_sampled_dot": sampled_dot,
}


def _row(claim: Claim, indptr: ir.Buffer, row: str) -> tuple[ir.Body, Callable[[Sequence[Step]], ir.For]]:
    """The statements that find where a row begins and ends, and how steps become the loop over its entries."""
    first, last, k = claim("first"), claim("last"), claim("k")
    at, start = dims.symbol(row), dims.symbol(first)

    def entries(steps: Sequence[Step]) -> ir.For:
        entry = start + dims.symbol(k)
        return ir.For(k, dims.symbol(last) - start, tuple(step(entry) for step in steps))

    return (ir.Let(first, _load(indptr, at)), ir.Let(last, _load(indptr, at + 1))), entries


def _block(columns: Size) -> Size:
    """How many columns to take at a time: a part that divides them all, where they are many."""
    if not isinstance(columns, int) or columns <= BLOCK:
        return columns
    return next((w for w in range(BLOCK, BLOCK // 4, -16) if columns % w == 0), columns)


def _zeros(claim: Claim, out: ir.Buffer, place: Callable[[str], Sequence[str]], extent: Size) -> ir.For:
    var = claim("z")
    return ir.For(var, extent, (_store(out, place(var), ir.Num(0, out.dtype)),))


def _load(buffer: ir.Buffer, *index: Size | str) -> ir.Expr:
    return ir.Load(buffer.name, _place(index), buffer.dtype)


def _store(buffer: ir.Buffer, index: Sequence[Size | str], value: ir.Expr) -> ir.Store:
    return ir.Store(buffer.name, _place(index), value)


def _place(index: Sequence[Size | str]) -> ir.Index:
    return tuple(dims.symbol(i) if isinstance(i, str) else i for i in index)


def _product(a: ir.Expr, b: ir.Expr) -> ir.Expr:
    return ir.Call("mul", (a, b), a.dtype)
