"""Writing the text of a GPU kernel: lines, names, sizes and expressions."""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from contextlib import contextmanager

from tensorc.codegen import loopir as ir
from tensorc.codegen.access import never_negative, offset
from tensorc.codegen.cuda.foreign import call
from tensorc.codegen.cuda.intrinsics import INTRINSICS, in_register
from tensorc.codegen.cuda.scalars import cast, literal, spell
from tensorc.codegen.cuda.source import Source, is_large
from tensorc.codegen.scalars import SCALARS
from tensorc.errors import InternalError
from tensorc.ir import dims
from tensorc.ir.dims import Apply, Size
from tensorc.ir.types import DType

INDENT = "    "
RESERVED = frozenset({
    *keyword.kwlist, *INTRINSICS, "I", "g", "l", "cuda", "libdevice", "math", "range", "boolean", "uint8", "uint16",
    "int8", "int16", "int32", "int64", "float32", "float64",
    *(f"{what}{width}{end}" for what in ("load", "store") for width in (2, 4, 8) for end in ("", "_below")),
})  # fmt: skip
"""Names that the text uses itself, g and l in loops over registers; a kernel's own among them gets an underscore."""


class Writer:
    """The body of one kernel under construction.

    Attributes:
        places: the text of each variable that may stand in an index, of type `I`.
        values: the text of each variable's value.
    """

    def __init__(self, k: ir.Kernel | ir.Matmul | ir.Conv, body: ir.Body) -> None:
        self.k = k
        self.shapes = {b.name: b.shape for b in k.buffers}
        self.dtypes = {b.name: b.dtype for b in k.buffers}
        self.signed = frozenset(s.var for s in ir.statements(body) if isinstance(s, ir.Let | ir.Scan))
        self.lines: list[str] = []
        self.pad = INDENT
        self.taken = {*RESERVED, *map(spelled, (*k.sizes, *self.shapes)), *_bound(body)}
        self.places = {name: spelled(name) for name in k.sizes}
        self.values: dict[str, str] = {}

    # -- lines and names

    def line(self, text: str) -> None:
        self.lines.append(self.pad + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """A compound statement; what is written inside the `with` is its body."""
        self.line(head)
        before, start = self.pad, len(self.lines)
        self.pad += INDENT
        yield
        if len(self.lines) == start:
            self.line("pass")
        self.pad = before

    def fresh(self, wish: str) -> str:
        """`wish`, or something like it that is no name yet."""
        name, count = wish, 1
        while name in self.taken:
            count += 1
            name = f"{wish}{count}"
        self.taken.add(name)
        return name

    def bind(self, text: str) -> str:
        """The name of a variable that holds the value of an expression."""
        if text.isidentifier():
            return text
        name = self.fresh("t")
        self.line(f"{name} = {text}")
        return name

    def array(self, wish: str, count: int, dtype: DType) -> str:
        """Registers of one thread: an array whose indices are known when it is compiled."""
        name = self.fresh(wish)
        kind = "boolean" if dtype.is_bool else in_register(dtype).name
        self.line(f"{name} = cuda.local.array({count}, {kind})")
        return name

    def source(self, name: str, blocks: Size, threads: int, schedule: str) -> Source:
        """The finished kernel."""
        parameters = ", ".join(map(spelled, (*self.shapes, *self.k.sizes)))
        text = "\n".join([f"def {spelled(name)}({parameters}):", *(self.lines or [f"{INDENT}pass"])]) + "\n"
        counts = tuple(map(dims.product, self.shapes.values()))
        return Source(spelled(name), text, tuple(self.shapes), tuple(self.dtypes.values()), counts, self.k.sizes,
                      blocks, threads, schedule, any(map(is_large, counts)))

    # -- sizes

    def size(self, size: Size) -> str:
        """A size as text of type `I`."""
        if isinstance(size, int):
            return f"I({size})"
        total = ""
        for monomial, coefficient in sorted(size.terms, key=lambda term: term[1] < 0):
            factors = [self._atom(atom) for atom in monomial]
            if not factors or abs(coefficient) != 1:
                factors.append(f"I({abs(coefficient) if total else coefficient})")
            elif not total and coefficient == -1:
                factors.append("I(-1)")
            term = factors[0]
            for factor in factors[1:]:
                term = f"mul({term}, {factor})"
            total = term if not total else f"{'sub' if coefficient < 0 else 'add'}({total}, {term})"
        return total

    def _atom(self, atom: str | Apply) -> str:
        if isinstance(atom, str):
            return self.place(atom)
        a, b = map(self.size, atom.args)
        positive = never_negative(atom.args[0], self.signed) and never_negative(atom.args[1], self.signed)
        match atom.fn:
            case "min" | "max":
                return f"{atom.fn}imum({a}, {b})"
            case "bcast":
                return f"select({a} == I(1), {b}, {a})"
            case "floordiv":
                return f"{'quo' if positive else 'floordiv'}({a}, {b})"
            case "mod":
                return f"{'rem' if positive else 'modulo'}({a}, {b})"
        raise InternalError(f"{atom.fn} of sizes has no text on a GPU")

    def place(self, name: str) -> str:
        """The variable of an index, or a variable that holds integer data."""
        if name in self.places:
            return self.places[name]
        return f"I({self.value(name)})"

    def offset(self, buffer: str, index: ir.Index) -> str:
        """The element of a buffer that an index points at."""
        return self.size(offset(self.shapes[buffer], index))

    # -- expressions

    def value(self, name: str) -> str:
        """The value of a variable."""
        return self.values.get(name) or spelled(name)

    def expr(self, e: ir.Expr) -> str:
        """An expression; lines before it may compute parts."""
        match e:
            case ir.Num(value, dtype):
                return literal(value, dtype)
            case ir.Var(name, _):
                acc, dot, _ = name.partition(".")
                return f"cast_i64({self.value(acc + '.index')})" if dot else self.value(name)
            case ir.Iter(size, dtype):
                return f"cast_{dtype.short}({self.size(size)})"
            case ir.Load():
                return self.load(e)
            case ir.Call(fn, args, dtype):
                parts = tuple(self.bind(self.expr(a)) if not isinstance(a, ir.Num) else self.expr(a) for a in args)
                if SCALARS[fn].source is not None:
                    return call(self, fn, tuple(a.dtype for a in args), dtype, parts)
                return spell(self, fn, dtype if fn in ("select", *_DRAWS) else args[0].dtype, parts)
            case ir.Cast(arg, dtype):
                return cast(self.bind(self.expr(arg)), arg.dtype, dtype)

    def load(self, e: ir.Load) -> str:
        """An element, or 0 where its condition does not hold."""
        if e.where is None:
            return self.loaded(e.buffer, self.offset(e.buffer, e.index))
        condition = self.bind(self.expr(e.where))
        name = self.fresh("t")
        self.line(f"{name} = {literal(0, e.dtype)}")
        with self.block(f"if {condition}:"):
            self.line(f"{name} = {self.loaded(e.buffer, self.offset(e.buffer, e.index))}")
        return name

    def loaded(self, buffer: str, at: str) -> str:
        """The element at an offset."""
        return from_memory(f"{spelled(buffer)}[{at}]", self.dtypes[buffer])

    def stored(self, s: ir.Store, value: str) -> None:
        """Stores a value."""
        at = self.offset(s.buffer, s.index)
        self.line(f"{spelled(s.buffer)}[{at}] = {to_memory(value, self.dtypes[s.buffer])}")


_DRAWS = ("philox_uniform32", "philox_uniform64")


def spelled(name: str) -> str:
    """A name of the kernel in the text."""
    return f"{name}_" if name in RESERVED else name


def _bound(body: ir.Body) -> Iterator[str]:
    for s in ir.statements(body):
        if not isinstance(s, ir.Store | ir.Accum):
            yield spelled(s.var)


def memory_kind(dtype: DType) -> str:
    """The type of a dtype's elements in memory."""
    return "uint8" if dtype.is_bool else in_register(dtype).name


def from_memory(text: str, dtype: DType) -> str:
    """What memory holds, as a value: a bool is a byte there."""
    return f"({text} != uint8(0))" if dtype.is_bool else text


def to_memory(text: str, dtype: DType) -> str:
    """A value as memory holds it."""
    return f"cast_u8({text})" if dtype.is_bool else text
