"""Runs the text of a GPU kernel without a GPU: all threads go through it in lock-step, as lanes of NumPy arrays.

It finds what a GPU would not tell: accesses outside a buffer or not aligned, two threads that meet in memory without
a barrier between them, barriers and shuffles that some threads of their block or warp do not reach, shared memory that
is read before it is written, registers that are indexed by a variable, and values whose dtype changes on the way, as
float32 does where a literal is a float64.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorc.codegen.cuda.intrinsics import INTRINSICS, REGISTERS, in_register
from tensorc.codegen.cuda.scalars_host import LIBDEVICE
from tensorc.codegen.cuda.source import Source
from tensorc.errors import InternalError
from tensorc.ir import dims
from tensorc.ir.types import DType, boolean, u8

Array = np.ndarray[Any, Any]
WARP = 32
VECTOR = 16
NOBODY = -1
SEVERAL = -2
"""In place of a thread's number: none, or more than one."""

TYPES = {"boolean" if d is boolean else d.name: d.numpy for d in REGISTERS}
KINDS = {d.numpy: d for d in REGISTERS}
RESULTS: dict[tuple[str, tuple[DType | None, ...]], DType | None] = {}
"""What intrinsics give, as they are asked for."""


class KernelFault(InternalError):
    """What the text of a kernel does wrong.  The text names the kernel, the line and the fault."""


def run(source: Source, arrays: Sequence[Array], sizes: Mapping[str, int]) -> None:
    """Launches a kernel over NumPy arrays, whose contents it changes.

    Args:
        arrays: one for each buffer, C-contiguous, of its dtype.
        sizes: a number for each size symbol.

    Raises: KernelFault.
    """
    blocks = dims.evaluate(source.blocks, sizes)
    if blocks:
        stored = [u8 if d is boolean else in_register(d) for d in source.dtypes]
        flat = [a.reshape(-1).view(d.numpy) for a, d in zip(arrays, stored, strict=True)]
        _Run(source, flat, [sizes[s] for s in source.sizes], blocks)


class _Memory:
    """A buffer, or the shared memory of every block, with who touched each element last and when.

    Attributes:
        writer, reader: the thread, NOBODY or SEVERAL.
        written, read: how many barriers its block had passed then, and its warp.
    """

    def __init__(self, name: str, data: Array, shape: tuple[int, ...] = (), written: bool = True) -> None:
        self.name, self.data, self.shape = name, data, shape
        self.is_set = np.full(data.size, written)
        self.writer = np.full(data.size, NOBODY, np.int64)
        self.reader = np.full(data.size, NOBODY, np.int64)
        self.written = np.zeros((2, data.size), np.int64)
        self.read = np.zeros((2, data.size), np.int64)


class _Registers(list[Any]):
    """An array of one thread."""

    def __init__(self, name: str, count: int, dtype: np.dtype[Any]) -> None:
        super().__init__([None] * count)
        self.name, self.dtype = name, dtype


class _Run:
    """One launch."""

    def __init__(self, source: Source, arrays: Sequence[Array], sizes: Sequence[int], blocks: int) -> None:
        self.source = source
        self.shape = blocks, source.threads
        self.literals: dict[tuple[np.dtype[Any], str], Array] = {}
        self.index = np.dtype(np.int64 if source.wide else np.int32)
        (function,) = ast.parse(source.text).body
        assert isinstance(function, ast.FunctionDef)
        block, thread = np.indices(self.shape, np.int32)
        self.block, self.thread = block, thread
        self.number = block.astype(np.int64) * source.threads + thread
        self.passed = np.zeros((2, *self.shape), np.int64)
        self.names: dict[str, Any] = {}
        values = [*map(_Memory, source.buffers, arrays), *(self.typed(self.index, n) for n in sizes)]
        for parameter, value in zip(function.args.args, values, strict=True):
            self.names[parameter.arg] = value
        self.line = 0
        with np.errstate(all="ignore"):
            self.body(function.body, np.ones(self.shape, bool))

    def fail(self, what: str) -> KernelFault:
        text = self.source.text.splitlines()[self.line - 1].strip()
        return KernelFault(f"{self.source.name}, line {self.line}, `{text}`: {what}")

    def typed(self, dtype: np.dtype[Any], value: Any) -> Array:
        """A value of all threads; numbers are remembered."""
        if isinstance(value, np.ndarray):
            return np.broadcast_to(value.astype(dtype), self.shape)
        key = dtype, repr(value)
        if key not in self.literals:
            self.literals[key] = np.full(self.shape, np.asarray(value).astype(dtype))
        return self.literals[key]

    # -- statements

    def body(self, statements: Sequence[ast.stmt], mask: Array) -> None:
        for s in statements:
            self.line = s.lineno
            self.statement(s, mask)

    def statement(self, s: ast.stmt, mask: Array) -> None:
        match s:
            case ast.Assign(targets=[target], value=value):
                self.assign(target, self.value(value, mask), mask)
            case ast.Expr(value=value):
                self.value(value, mask)
            case ast.If(test=test, body=body, orelse=[]):
                inside = mask & self.array(self.value(test, mask), np.dtype(bool))
                if inside.any():
                    self.body(body, inside)
            case ast.For(target=ast.Name(id=name), iter=ast.Call(args=args), body=body):
                self.loop(name, [self.value(a, mask) for a in args], body, mask)
            case ast.Pass():
                pass
            case _:
                raise self.fail("no statement of generated kernels")

    def loop(self, name: str, bounds: list[Any], body: Sequence[ast.stmt], mask: Array) -> None:
        if all(isinstance(b, int) for b in bounds):
            for number in range(*bounds):
                self.names[name] = number
                self.body(body, mask)
            return
        start, stop, step = (self.array(b, self.index) for b in bounds)
        at = start
        while (inside := mask & (at < stop)).any():
            self.assign(ast.Name(id=name, ctx=ast.Store()), at, inside)
            self.body(body, inside)
            at = at + step

    def assign(self, target: ast.expr, value: Any, mask: Array) -> None:
        match target:
            case ast.Name(id=name):
                self.names[name] = self.merged(name, value, mask)
            case ast.Tuple(elts=elements):
                for element, part in zip(elements, value, strict=True):
                    self.assign(element, part, mask)
            case ast.Subscript(value=base, slice=place):
                memory = self.value(base, mask)
                if isinstance(memory, _Registers):
                    at = self.register(memory, place, mask)
                    value = self.array(value, memory.dtype)
                    memory[at] = value if memory[at] is None else np.where(mask, value, memory[at])
                else:
                    self.store(memory, self.place(memory, place, mask), value, mask)
            case _:
                raise self.fail("nothing that is assigned to")

    def merged(self, name: str, value: Any, mask: Array) -> Any:
        before = self.names.get(name)
        if not isinstance(value, np.ndarray):
            return value
        if isinstance(before, np.ndarray) and before.dtype != value.dtype:
            raise self.fail(f"{name} turns from {before.dtype} into {value.dtype}")
        if mask.all() or not isinstance(before, np.ndarray):
            return value
        return np.where(mask, value, before)

    # -- expressions

    def array(self, value: Any, dtype: np.dtype[Any]) -> Array:
        """A value that must have this dtype."""
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            raise self.fail(f"a {getattr(value, 'dtype', type(value).__name__)} where a {dtype} is wanted")
        return value if value.shape == self.shape else np.broadcast_to(value, self.shape)

    def value(self, e: ast.expr, mask: Array) -> Any:
        match e:
            case ast.Call(func=ast.Name(id=name), args=args):
                return self.call(name, args, mask)
            case ast.Call(func=ast.Attribute(attr=name, value=module), args=args):
                return self.call(f"{ast.unparse(module)}.{name}", args, mask)
            case ast.Name(id=name):
                if name not in self.names:
                    raise self.fail(f"{name} has no value")
                return self.names[name]
            case ast.Constant(value=value):
                return value
            case ast.Tuple(elts=elements):
                return tuple(self.value(x, mask) for x in elements)
            case ast.BinOp(left=left, op=op, right=right):
                return self.arithmetic(op, self.value(left, mask), self.value(right, mask))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.value(operand, mask)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                a, b = self.value(left, mask), self.value(right, mask)
                if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or a.dtype != b.dtype:
                    raise self.fail("what is compared has two dtypes")
                return COMPARISONS[type(op)](a, b)
            case ast.Subscript(value=base, slice=place):
                return self.element(self.value(base, mask), place, mask)
            case ast.Attribute():
                return self.attribute(ast.unparse(e))
        raise self.fail("no expression of generated kernels")

    def attribute(self, name: str) -> Any:
        match name:
            case "cuda.threadIdx.x":
                return self.thread
            case "cuda.blockIdx.x":
                return self.block
            case "math.inf" | "math.nan":
                return getattr(math, name[5:])
        raise self.fail(f"{name} is unknown")

    def arithmetic(self, op: ast.operator, a: Any, b: Any) -> Any:
        """Of floats of one dtype; integers are Python's own, known when the text is compiled."""
        if isinstance(a, int) and isinstance(b, int):
            return OPERATORS[type(op)](a, b)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype == b.dtype and a.dtype.kind == "f":
            return OPERATORS[type(op)](a, b)
        kinds = " and ".join(str(getattr(x, "dtype", type(x).__name__)) for x in (a, b))
        raise self.fail(f"{kinds} together become another dtype")

    def call(self, name: str, args: Sequence[ast.expr], mask: Array) -> Any:
        match name:
            case "cuda.local.array":
                count, kind = args
                return _Registers("registers", ast.literal_eval(count), TYPES[ast.unparse(kind)])
            case "cuda.shared.array":
                given = ast.literal_eval(args[0])
                shape = given if isinstance(given, tuple) else (given,)
                data = np.zeros(self.shape[0] * math.prod(shape), TYPES[ast.unparse(args[1])])
                return _Memory("shared memory", data, shape, written=False)
            case "cuda.syncthreads":
                return self.barrier(0, mask)
            case "cuda.syncwarp":
                return self.barrier(1, mask)
        values = [self.value(a, mask) for a in args]
        if name == "I":
            return self.typed(self.index, values[0])
        if name in TYPES:
            if isinstance(values[0], np.ndarray):
                raise self.fail(f"{name} of a variable converts without saturating")
            return self.typed(TYPES[name], values[0])
        if name in INTRINSICS:
            return self.intrinsic(name, values)
        if name.startswith("libdevice."):
            return self.library(name.removeprefix("libdevice."), values)
        if name == "cuda.shfl_xor_sync":
            return self.shuffle(values[1], values[2], mask)
        stem, _, below = name.partition("_")
        if stem[:-1] in ("load", "store"):
            return self.vector(stem[:-1], int(stem[-1]), values, bool(below), mask)
        raise self.fail(f"{name} is unknown")

    def intrinsic(self, name: str, values: Sequence[Any]) -> Array:
        dtypes = tuple([KINDS.get(v.dtype) if isinstance(v, np.ndarray) else None for v in values])
        key = name, dtypes
        if key not in RESULTS:
            RESULTS[key] = None if None in dtypes else INTRINSICS[name].result(dtypes)  # type: ignore[arg-type]
        result = RESULTS[key]
        if result is None:
            raise self.fail(f"{name} does not take {', '.join(str(d or 'what is no variable') for d in dtypes)}")
        found = np.asarray(INTRINSICS[name].numpy(*values))
        return found if found.dtype == result.numpy else found.astype(result.numpy)

    def library(self, name: str, values: Sequence[Any]) -> Array:
        dtype = np.dtype(np.float32 if name not in LIBDEVICE else np.float64)
        function = LIBDEVICE[name if name in LIBDEVICE else name.removesuffix("f")]
        return np.asarray(function(*(self.array(v, dtype) for v in values))).astype(dtype)

    # -- threads together

    def barrier(self, scope: int, mask: Array) -> None:
        """All threads of a block, or of a warp, wait for one another."""
        width = self.shape[1] if scope == 0 else WARP
        groups = mask.reshape(-1, width)
        if (groups.any(1) & ~groups.all(1)).any():
            raise self.fail(f"some threads of a {'block' if scope == 0 else 'warp'} do not reach this barrier")
        self.passed[scope][mask] += 1
        if scope == 0:
            self.passed[1][mask] += 1

    def shuffle(self, value: Array, distance: int, mask: Array) -> Array:
        """The value of the thread of the same warp whose number differs in one bit."""
        lanes = mask.reshape(-1, WARP)
        if (lanes.any(1) & ~lanes.all(1)).any():
            raise self.fail("some threads of a warp do not reach this shuffle")
        if value.dtype.name not in ("int32", "int64", "float32", "float64"):
            raise self.fail(f"a shuffle does not take {value.dtype}")
        return self.array(value, value.dtype)[:, np.arange(self.shape[1]) ^ distance]

    # -- memory

    def element(self, base: Any, place: ast.expr, mask: Array) -> Any:
        if isinstance(base, tuple):
            return base[ast.literal_eval(place)]
        if isinstance(base, _Registers):
            at = self.register(base, place, mask)
            if base[at] is None:
                raise self.fail(f"element {at} of {base.name} has no value")
            return base[at]
        return self.load(base, self.place(base, place, mask), mask)

    def register(self, registers: _Registers, place: ast.expr, mask: Array) -> int:
        at = self.value(place, mask)
        if not isinstance(at, int) or not 0 <= at < len(registers):
            raise self.fail(f"registers are indexed by {at if isinstance(at, int) else 'a variable'}")
        return at

    def place(self, memory: _Memory, place: ast.expr, mask: Array) -> Array:
        """Where each thread reads or writes, as an offset."""
        at = self.value(place, mask)
        if not memory.shape:
            return self.array(at, self.index).astype(np.int64)
        total = self.block.astype(np.int64)
        for index, size in zip(at if isinstance(at, tuple) else (at,), memory.shape, strict=True):
            index = np.broadcast_to(np.asarray(index, np.int64), self.shape)
            if ((index < 0) | (index >= size))[mask].any():
                raise self.fail(f"an index outside of shared memory of size {size}")
            total = np.asarray(total * size + index)
        return total

    def inside(self, memory: _Memory, at: Array, mask: Array) -> Array:
        chosen: Array = at[mask]
        wrong = (chosen < 0) | (chosen >= memory.data.size)
        if wrong.any():
            raise self.fail(f"{memory.name}[{chosen[wrong][0]}] is outside of {memory.data.size} elements")
        return chosen

    def apart(self, memory: _Memory, who: Array, when: Array, at: Array, mask: Array) -> Array:
        """Whether others touched elements since the last barrier that this thread shares with them."""
        other, me = who[at], self.number[mask]
        foreign: Array = (other != NOBODY) & (other != me)
        if not foreign.any():
            return foreign
        threads = self.shape[1]
        near = (other >= 0) & (other // threads == me // threads)
        block = near & (when[0, at] < self.passed[0][mask])
        same_warp = other % threads // WARP == me % threads // WARP
        warp = near & same_warp & (when[1, at] < self.passed[1][mask])
        several = (other == SEVERAL) & memory.name.startswith("shared") & (when[0, at] < self.passed[0][mask])
        return np.asarray(foreign & ~(block | warp | several))

    def load(self, memory: _Memory, at: Array, mask: Array) -> Array:
        chosen = self.inside(memory, at, mask)
        if not memory.is_set[chosen].all():
            raise self.fail(f"{memory.name} is read before it is written")
        if self.apart(memory, memory.writer, memory.written, chosen, mask).any():
            raise self.fail(f"a race: {memory.name} is read where another thread wrote")
        me = self.number[mask]
        first = np.full(memory.data.size, NOBODY, np.int64)
        first[chosen] = me
        shared = np.zeros(memory.data.size, bool)
        shared[chosen[first[chosen] != me]] = True
        now = self.passed[:, mask]
        stale = (memory.read[0, chosen] < now[0]) & memory.name.startswith("shared")
        before = np.where(stale, NOBODY, memory.reader[chosen])
        memory.reader[chosen] = np.where(shared[chosen] | (before != NOBODY) & (before != me), SEVERAL, me)
        memory.read[:, chosen] = now
        result = np.zeros(self.shape, memory.data.dtype)
        result[mask] = memory.data[chosen]
        return result

    def store(self, memory: _Memory, at: Array, value: Any, mask: Array) -> None:
        chosen = self.inside(memory, at, mask)
        value = self.array(value, memory.data.dtype)
        if np.unique(chosen).size < chosen.size:
            raise self.fail(f"a race: two threads write to one element of {memory.name}")
        if self.apart(memory, memory.writer, memory.written, chosen, mask).any():
            raise self.fail(f"a race: {memory.name} is written where another thread wrote")
        if self.apart(memory, memory.reader, memory.read, chosen, mask).any():
            raise self.fail(f"a race: {memory.name} is written where another thread reads")
        memory.data[chosen] = value[mask]
        memory.writer[chosen] = self.number[mask]
        memory.written[:, chosen] = self.passed[:, mask]
        memory.is_set[chosen] = True

    def vector(self, what: str, width: int, values: Sequence[Any], below: bool, mask: Array) -> Any:
        """A load or store of neighbours; `below` says where they end."""
        memory, at = values[0], self.array(values[1], self.index).astype(np.int64)
        end = self.array(values[-1], self.index) if below else np.broadcast_to(memory.data.size, self.shape)
        bytes_in = at * memory.data.itemsize + memory.data.ctypes.data % VECTOR
        if (bytes_in % (width * memory.data.itemsize))[mask].any():
            raise self.fail(f"a vector of {memory.name} is not aligned")
        if not below:
            self.inside(memory, at + width - 1, mask)
        parts = []
        for k in range(width):
            here = mask & (at + k < end)
            if what == "store":
                self.store(memory, at + k, values[2][k], here)
            else:
                parts.append(self.load(memory, at + k, here))
        return tuple(parts)


OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.RShift: operator.rshift,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater, ast.GtE: np.greater_equal, ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}  # fmt: skip
