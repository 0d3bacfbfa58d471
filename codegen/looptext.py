"""Kernels as text, for people and for golden tests."""

from __future__ import annotations

from collections.abc import Iterator

from tensorc.codegen import loopir as ir

INDENT = "  "


def kernel_text(k: ir.Kernel) -> str:
    """
        kernel sum1(x: f32[n, m], out y: f32[n]) sizes(n, m)
          grid i < n
            acc s: f32 = add
            for j < m:
              s <- x[i, j]
            y[i] = s
    """
    grid = ", ".join(f"{v} < {n}" for v, n in k.grid)
    head = f"kernel {k.name}{_signature(k.buffers, k.sizes)}"
    return "\n".join([head, f"{INDENT}grid {grid}".rstrip(), *_body_lines(k.body, 2 * INDENT)]) + "\n"


def matmul_text(mm: ir.Matmul) -> str:
    """
        matmul dense(a: f32[n, 784], b: f32[784, 10], out c: f32[n, 10]) sizes(n)
          c[i, j] = sum k < 784: a[i, k] * b[k, j]   for i < n, j < 10
          kernel dense_epilogue(…
    """
    *batch, i, j, p, _ = mm.names

    def operand(buffer: ir.Buffer, row: str, column: str, transposed: bool) -> str:
        outer = buffer.shape[:-2]
        names = batch[len(batch) - len(outer):]
        at = ["0" if size == 1 else name for name, size in zip(names, outer, strict=True)]
        return f"{buffer.name}[{', '.join([*at, *((column, row) if transposed else (row, column))])}]"

    a = operand(mm.a, i, p, mm.transpose_a)
    b = operand(mm.b, p, j, mm.transpose_b)
    c = operand(mm.c, i, j, False)
    extents = zip([*batch, i, j], [*mm.batch, mm.m, mm.n], strict=True)
    lines = [
        f"matmul {mm.name}{_signature(mm.buffers, mm.sizes)}",
        f"{INDENT}{c} = sum {p} < {mm.k}: {a} * {b}   for {', '.join(f'{v} < {n}' for v, n in extents)}",
    ]
    if mm.epilogue is not None:
        lines += [INDENT + line for line in kernel_text(mm.epilogue).splitlines()]
    return "\n".join(lines) + "\n"


def conv_text(conv: ir.Conv) -> str:
    """
        conv layer(x: f32[n, 28, 28, 3], w: f32[5, 5, 3, 8], out y: f32[n, 14, 14, 8]) sizes(n)
          forward: y from x, w   strides [2, 2], low [1, 1]
          kernel layer_epilogue(…
    """
    first, second, result = conv.buffers[:3]
    usual: dict[str, ir.Index] = {"strides": conv.strides, "dilations": conv.dilations, "low": conv.low}
    told = [f"{name} {index_text(at)}" for name, at in usual.items() if any(a != (name != "low") for a in at)]
    told += [f"groups {conv.groups}"] if conv.groups != 1 else []
    lines = [
        f"conv {conv.name}{_signature(conv.buffers, conv.sizes)}",
        f"{INDENT}{conv.kind}: {result.name} from {first.name}, {second.name}   {', '.join(told)}".rstrip(),
    ]
    if conv.epilogue is not None:
        lines += [INDENT + line for line in kernel_text(conv.epilogue).splitlines()]
    return "\n".join(lines) + "\n"


def statement_text(s: ir.Stmt) -> str:
    """A statement on one line; of a loop its head."""
    match s:
        case ir.Let(var, value):
            return f"{var}: {value.dtype} = {expression_text(value)}"
        case ir.Acc(var, op, dtype):
            return f"acc {var}: {dtype} = {op}"
        case ir.Accum(acc, several):
            return f"{acc} <- {', '.join(map(expression_text, several))}"
        case ir.Scan(var, acc, value):
            return f"{var} = {acc} <- {expression_text(value)}"
        case ir.Store(buffer, index, value):
            return f"{buffer}{index_text(index)} = {expression_text(value)}"
        case ir.For(var, extent, _):
            return f"for {var} < {extent}:"


def expression_text(e: ir.Expr) -> str:
    match e:
        case ir.Num(value, dtype):
            return f"{value!r}:{dtype}"
        case ir.Var(name, _):
            return name
        case ir.Iter(size, dtype):
            return f"{dtype}({size})"
        case ir.Load(buffer, index, _, None):
            return f"{buffer}{index_text(index)}"
        case ir.Load(buffer, index, _, where):
            assert where is not None
            return f"{buffer}{index_text(index)} where {expression_text(where)}"
        case ir.Call(fn, args, _):
            return f"{fn}({', '.join(map(expression_text, args))})"
        case ir.Cast(arg, dtype):
            return f"{dtype}({expression_text(arg)})"


def index_text(index: ir.Index) -> str:
    return f"[{', '.join(map(str, index))}]"


def _signature(buffers: tuple[ir.Buffer, ...], sizes: tuple[str, ...]) -> str:
    return f"({', '.join(map(_buffer_text, buffers))}) sizes({', '.join(sizes)})"


def _buffer_text(b: ir.Buffer) -> str:
    role = "" if b.role == "in" else f"{b.role} "
    return f"{role}{b.name}: {b.dtype}{index_text(b.shape)}"


def _body_lines(body: ir.Body, pad: str) -> Iterator[str]:
    for s in body:
        yield pad + statement_text(s)
        if isinstance(s, ir.For):
            yield from _body_lines(s.body, pad + INDENT)
