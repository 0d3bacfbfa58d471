"""Loop IR as Python text over NumPy scalars: slow, obvious, stepped into with a debugger.  The oracle of the emitters.

    def sum1(x, y, n, m):
        for i in range(n):
            s = np.float32(0)
            for j in range(m):
                s = s + x[at(x, i, j)]
            y[at(y, i)] = s

Every access is checked against the bounds of its array.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tensorc.codegen import loopir as ir
from tensorc.codegen import scalars, scalars_numpy
from tensorc.codegen.convolution import conv_loops
from tensorc.codegen.scalars import SCALARS
from tensorc.codegen.transform import matmul_loops
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import DType

INDENT = "    "
RESERVED = {*keyword.kwlist, "np", "scalars", "scalars_numpy", "at", "better", "bcast", "int", "range", "min", "max"}
"""Names that the text uses itself; a kernel's own name among them gets an underscore."""

COMBINE = {
    "add": "{0} + {1}",
    "mul": "{0} * {1}",
    "max": "np.maximum({0}, {1})",
    "min": "np.minimum({0}, {1})",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
}


def oracle(k: ir.Kernel | ir.Matmul | ir.Conv) -> Callable[..., None]:
    """The kernel as a function of its buffers and sizes, in their order; arrays have the shapes of the buffers.

    Raises IndexError, from the function, for an access outside a buffer.
    """
    if isinstance(k, ir.Matmul):
        return _with_epilogue(matmul_loops(k), k.epilogue)
    if isinstance(k, ir.Conv):
        return _with_epilogue(conv_loops(k), k.epilogue)
    names: dict[str, Any] = {"np": np, "scalars": scalars, "scalars_numpy": scalars_numpy,
                             "at": at, "better": better, "bcast": bcast}
    exec(text(k), names)
    run: Callable[..., None] = names[spelled(k.name)]

    def quiet(*args: Any) -> None:
        with np.errstate(all="ignore"):
            run(*args)

    return quiet


def text(k: ir.Kernel) -> str:
    """The Python source of a kernel."""
    ops = {s.var: s for s in ir.statements(k.body) if isinstance(s, ir.Acc)}
    integers = {
        s.var: f"{s.var}_int"
        for s in ir.statements(k.body)
        if isinstance(s, ir.Let | ir.Scan) and s.value.dtype.is_integer
    }
    parameters = [spelled(name) for name in (*(b.name for b in k.buffers), *k.sizes)]
    head = f"def {spelled(k.name)}({', '.join(parameters)}):"
    writer = _Writer(ops, integers)

    pad = INDENT
    lines = [head]
    for var, extent in k.grid:
        lines.append(f"{pad}for {spelled(var)} in range({writer.size(extent)}):")
        pad += INDENT
    return "\n".join([*lines, *writer.body(k.body, pad)]) + "\n"


def spelled(name: str) -> str:
    """A name of the kernel in the text."""
    return f"{name}_" if name in RESERVED else name.replace(".", "_")


def at(array: np.ndarray[Any, Any], *index: int) -> tuple[int, ...]:
    """The index itself.  Raises IndexError where it is outside the array, negative numbers included."""
    if any(not 0 <= i < n for i, n in zip(index, array.shape, strict=True)):
        raise IndexError(f"index {index} is outside an array of shape {array.shape}")
    return index


def better(op: str, a: Any, a_index: int, b: Any, b_index: int) -> tuple[Any, int]:
    """The winner of two candidates of argmax or argmin: NaN first, then the better value, then the earlier index."""
    if a != a or b != b:
        first = a != a and (b == b or a_index < b_index)
    elif a == b:
        first = a_index < b_index
    else:
        first = a > b if op == "argmax" else a < b
    return (a, a_index) if first else (b, b_index)


def bcast(a: int, b: int) -> int:
    """What two sizes broadcast to."""
    return b if a == 1 else a


def literal(value: float, dtype: DType) -> str:
    """A NumPy scalar as text."""
    if dtype.is_half:
        return f"np.float32('{value}').astype('{dtype.name}')"
    if dtype.is_float and not np.isfinite(value):
        return f"np.{dtype.name}('{value}')"
    return f"np.{dtype.numpy.type.__name__}({value!r})"


class _Writer:
    """Statements and expressions of one kernel; `integers` names the Python ints behind integer variables."""

    def __init__(self, ops: Mapping[str, ir.Acc], integers: Mapping[str, str]) -> None:
        self.ops = ops
        self.integers = integers

    def body(self, body: ir.Body, pad: str) -> Iterator[str]:
        if not body:
            yield f"{pad}pass"
        for s in body:
            for line in self.statement(s):
                yield pad + line

    def statement(self, s: ir.Stmt) -> Iterator[str]:
        match s:
            case ir.Let(var, value):
                yield f"{spelled(var)} = {self.expr(value)}"
                yield from self.as_int(var)
            case ir.Acc(var, op, dtype):
                yield f"{spelled(var)} = {literal(ir.identity(op, dtype), dtype)}"
                if op in ir.ARG_ACCUMULATORS:
                    yield f"{var}_index = {ir.NO_INDEX}"
            case ir.Accum(acc, (value, index)):
                pair = f"{spelled(acc)}, {acc}_index"
                yield f"{pair} = better({self.ops[acc].op!r}, {pair}, {self.expr(value)}, {self.expr(index)})"
            case ir.Accum(acc, (value,)):
                name = spelled(acc)
                yield f"{name} = {COMBINE[self.ops[acc].op].format(name, self.expr(value))}"
            case ir.Scan(var, acc, value):
                name = spelled(acc)
                yield f"{spelled(var)} = {name} = {COMBINE[self.ops[acc].op].format(name, self.expr(value))}"
                yield from self.as_int(var)
            case ir.Store(buffer, index, value):
                yield f"{spelled(buffer)}[{self.place(buffer, index)}] = {self.expr(value)}"
            case ir.For(var, extent, inner):
                yield f"for {spelled(var)} in range({self.size(extent)}):"
                yield from self.body(inner, INDENT)

    def as_int(self, var: str) -> Iterator[str]:
        if var in self.integers:
            yield f"{self.integers[var]} = int({spelled(var)})"

    def size(self, size: Size) -> str:
        names = {name: dims.symbol(self.integers.get(name) or spelled(name)) for name in dims.symbols(size)}
        return str(dims.substitute(size, names))

    def place(self, buffer: str, index: ir.Index) -> str:
        return f"at({', '.join([spelled(buffer), *map(self.size, index)])})"

    def expr(self, e: ir.Expr) -> str:
        match e:
            case ir.Num(value, dtype):
                return literal(value, dtype)
            case ir.Var(name, dtype):
                acc, dot, _ = name.partition(".")
                return f"np.int64({acc}_index)" if dot else spelled(name)
            case ir.Iter(size, dtype):
                return f"np.{dtype.name}({self.size(size)})"
            case ir.Load(buffer, index, dtype, where):
                loaded = f"{spelled(buffer)}[{self.place(buffer, index)}]"
                return loaded if where is None else f"({loaded} if {self.expr(where)} else {literal(0, dtype)})"
            case ir.Call(fn, args, _):
                return SCALARS[fn].text.format(*map(self.expr, args))
            case ir.Cast(arg, dtype):
                return f"{self.expr(arg)}.astype('{dtype.name}')"


def _with_epilogue(product: ir.Kernel, epilogue: ir.Kernel | None) -> Callable[..., None]:
    steps = [oracle(product)] if epilogue is None else [oracle(product), oracle(epilogue)]

    def run(*args: Any) -> None:
        for step in steps:
            step(*args)

    return run
