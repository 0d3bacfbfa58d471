"""Equal values computed once: what two merged loops, or two results of one kernel, have in common."""

from __future__ import annotations

from dataclasses import replace

from tensorc.codegen import loopir as ir
from tensorc.ir import dims
from tensorc.ir.dims import Size


def share_values(kernel: ir.Kernel) -> ir.Kernel:
    """The kernel without a Let whose value an earlier one in the same or an outer scope has.

    A load is not taken for the same across a store into its buffer.
    """
    return replace(kernel, body=_shared(kernel.body, {}, {}))


def _shared(body: ir.Body, known: dict[ir.Expr, str], names: dict[str, str]) -> ir.Body:
    """The body; `known` are values of this and outer scopes with their variables, `names` variables that are gone."""
    known, names = dict(known), dict(names)
    out: list[ir.Stmt] = []
    for statement in body:
        match statement:
            case ir.Let(var, value):
                value = _renamed(value, names)
                if value in known:
                    names[var] = known[value]
                    continue
                known[value] = var
                out.append(ir.Let(var, value))
            case ir.Store(buffer, index, value):
                out.append(ir.Store(buffer, _index(index, names), _renamed(value, names)))
                known = {e: v for e, v in known.items() if not _reads(e, buffer)}
            case ir.Accum(acc, values):
                out.append(ir.Accum(acc, tuple(_renamed(v, names) for v in values)))
            case ir.Scan(var, acc, value):
                out.append(ir.Scan(var, acc, _renamed(value, names)))
            case ir.For(var, extent, inner):
                stored = {s.buffer for s in ir.statements(inner) if isinstance(s, ir.Store)}
                known = {e: v for e, v in known.items() if not any(_reads(e, b) for b in stored)}
                out.append(ir.For(var, _size(extent, names), _shared(inner, known, names)))
            case _:
                out.append(statement)
    return tuple(out)


def _reads(value: ir.Expr, buffer: str) -> bool:
    return any(isinstance(e, ir.Load) and e.buffer == buffer for e in ir.walk(value))


def _renamed(value: ir.Expr, names: dict[str, str]) -> ir.Expr:
    if not names:
        return value
    match value:
        case ir.Var(name, dtype):
            return ir.Var(names.get(name, name), dtype)
        case ir.Iter(size, dtype):
            return ir.Iter(_size(size, names), dtype)
        case ir.Load(buffer, index, dtype, where):
            return ir.Load(buffer, _index(index, names), dtype, None if where is None else _renamed(where, names))
        case ir.Call(fn, args, dtype):
            return ir.Call(fn, tuple(_renamed(a, names) for a in args), dtype)
        case ir.Cast(arg, dtype):
            return ir.Cast(_renamed(arg, names), dtype)
    return value


def _size(size: Size, names: dict[str, str]) -> Size:
    """A size in which variables of data that are gone are replaced."""
    return dims.substitute(size, {s: dims.symbol(names[s]) for s in dims.symbols(size) if s in names})


def _index(index: ir.Index, names: dict[str, str]) -> ir.Index:
    return tuple(_size(i, names) for i in index)
