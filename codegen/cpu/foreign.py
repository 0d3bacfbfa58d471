"""Scalar functions that come as LLVM IR, those of users: their code for lanes, to be inlined like any other.

The IR defines @custom.scalar on doubles, i64 and i1, and what it calls and reads under names that begin alike.  A
straight line is said again for whole vectors, with the functions of this package in place of the C library's; anything
else is called for one lane after another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tensorc.codegen.cpu.lanes import Lanes, llvm_type
from tensorc.codegen.scalars import SCALARS
from tensorc.codegen.straight import (
    INTEGERS,
    NAMES,
    PREFIX,
    PURE,
    SCALAR,
    Step,
    Straight,
    computing,
    number,
    straight,
)
from tensorc.ir.types import DTYPES, DType, f32, f64

_USED = re.compile(r"@custom\.(\w+)\.v(\d+)((?:\.\w+)+)\(")
_EXTREMES = {"smin": "smin", "smax": "smax", "umin": "umin", "umax": "umax", "abs": "abs", "ctpop": "ctpop"}
_DIVISIONS = ("sdiv", "udiv", "srem", "urem")


def call_text(lanes: Lanes, fn: str, dtypes: tuple[DType, ...], result: DType, args: tuple[str, ...]) -> str:
    """A call of a user's function on n lanes of each dtype, whose definition `foreign_functions` gives."""
    given = ", ".join(f"{llvm_type(d, lanes.n)} {a}" for d, a in zip(dtypes, args, strict=True))
    return lanes.emit(f"call {llvm_type(result, lanes.n)} {_name(fn, lanes.n, dtypes)}({given})")


def foreign_functions(text: str, fma: bool, half: bool) -> str:
    """Definitions of the functions `@custom.…` that LLVM IR `text` calls."""
    used = {(fn, int(n), tuple(map(_dtype, kinds[1:].split(".")))) for fn, n, kinds in _USED.findall(text)}
    parts: dict[str, None] = {}
    for fn, n, dtypes in sorted(used, key=str):
        parts |= dict.fromkeys(_definitions(fn, n, dtypes, fma, half))
    return "\n".join(parts)


def in_lanes(fn: str, dtypes: tuple[DType, ...]) -> bool:
    """Whether a user's function is computed for all lanes at once."""
    source = SCALARS[fn].source
    return source is not None and straight(source(dtypes)) is not None


def _definitions(fn: str, n: int, dtypes: tuple[DType, ...], fma: bool, half: bool) -> Iterator[str]:
    scalar = SCALARS[fn]
    result = scalar.result(dtypes)
    assert scalar.source is not None
    assert result is not None
    source = scalar.source(dtypes)
    line = straight(source)

    lines: list[str] = []
    counter = iter(range(1_000_000))
    o = Lanes(lines.append, lambda: f"%v{next(counter)}", computing(source, dtypes), n, fma, half)
    args = [f"%a{i}" for i in range(len(dtypes))]
    if line is not None:
        writer = _Writer(o, line)
        value, kind = writer.value(dict(zip(args, dtypes, strict=True)))
        yield from (f"declare double @{name}(double{', double' * (arity - 1)})" for name, arity in writer.outside)
    else:
        own = f"{PREFIX}{fn}.own"
        yield from _own(source, f"{own}.")
        value, kind = _one_by_one(o, own, source, dict(zip(args, dtypes, strict=True)))

    value = o.like(kind).cast(value, result)
    given = ", ".join(f"{llvm_type(d, n)} {a}" for a, d in zip(args, dtypes, strict=True))
    kept = "alwaysinline" if line is not None else "noinline"
    head = f"define internal {llvm_type(result, n)} {_name(fn, n, dtypes)}({given}) {kept} {{"
    yield "\n".join([head, "entry:", *lines, f"  ret {llvm_type(result, n)} {value}", "}", ""])


class _Writer:
    """A straight line on lanes; doubles are lanes of the dtype that is computed in.

    Attributes:
        outside: the functions of the C library it calls, and their arity.
    """

    def __init__(self, o: Lanes, line: Straight) -> None:
        self.o = o
        self.line = line
        self.known: dict[str, str] = {}
        self.outside: dict[tuple[str, int], None] = {}

    def value(self, args: dict[str, DType]) -> tuple[str, DType]:
        """The result for arguments of these dtypes, and its dtype."""
        for (name, kind), (text, dtype) in zip(self.line.params, args.items(), strict=True):
            self.known[name] = self.o.like(dtype).cast(text, self.dtype(kind))
        for step in self.line.steps:
            self.known[step.name] = self.step(step)
        return self.operand(self.line.result, self.line.kind), self.dtype(self.line.kind)

    def dtype(self, kind: str) -> DType:
        if kind == "double":
            return self.o.dtype
        return f32 if kind == "float" else INTEGERS[kind]

    def operand(self, text: str, kind: str) -> str:
        """A name or a literal in lanes."""
        if text in self.known:
            return self.known[text]
        o = self.o.like(self.dtype(kind))
        return o.c(number(text))

    def step(self, step: Step) -> str:
        o = self.o.like(self.dtype(step.of))
        if step.what == "select":
            condition, *values = step.args
            return o.select(self.operand(condition, "i1"), *(self.operand(v, step.of) for v in values))
        args = [self.operand(a, step.of) for a in step.args]
        match step.what:
            case "icmp":
                return o.emit(f"icmp {step.predicate} {o.T} {args[0]}, {args[1]}")
            case "fcmp":
                return o.compare(step.predicate, *args)
            case "freeze":
                return args[0]
            case what if what in NAMES:
                return o.apply(NAMES[what], *args)
            case what if what in PURE and what not in ("exp2", "log2", "log10"):
                return self.outside_lanes(what, o, args)
            case what if what in _EXTREMES:
                return o.intr(what, *args, extra="i1 false" if what == "abs" else "")
            case what if what in _DIVISIONS:
                return o.binary(what, args[0], self.divisor(o, *args))
            case "shl" | "lshr" | "ashr":
                return o.binary(step.what, args[0], o.binary("and", args[1], o.c(8 * o.dtype.size - 1)))
            case "round":
                return self.away_from_zero(o, args[0])
            case "fmuladd" | "fma":
                return o.muladd(*args)
            case "trunc" if o.dtype.is_float:
                return o.truncated(args[0])
            case "fptosi" | "fptoui" | "fpext" | "fptrunc":
                return o.cast(args[0], self.dtype(step.kind))
            case "zext" | "sext" | "trunc" | "sitofp" | "uitofp":
                return o.convert(step.what, args[0], o.like(self.dtype(step.kind)))
            case what if o.dtype.is_float:
                return o.intr(what, *args)
            case what:
                return o.binary(what, *args)

    def divisor(self, o: Lanes, a: str, b: str) -> str:
        """b where a / b is a number that the processor divides, else 1: the lane does not count."""
        lowest = -(2 ** (8 * o.dtype.size - 1))
        over = o.mask("and", o.compare("eq", a, o.c(lowest)), o.compare("eq", b, o.c(-1)))
        return o.select(o.mask("or", o.compare("eq", b, o.c(0)), over), o.c(1), b)

    def away_from_zero(self, o: Lanes, x: str) -> str:
        """C's round: halves away from zero."""
        size = o.magnitude(x)
        low = o.down(size)
        up = o.when("oge", o.minus(size, low), o.c(0.5), o.plus(low, o.c(1.0)), low)
        return o.copysign(up, x)

    def outside_lanes(self, what: str, o: Lanes, args: list[str]) -> str:
        """A function of the C library, for one lane after another."""
        self.outside[what, len(args)] = None
        return each_lane(o, what, tuple(args), (o.dtype,) * len(args), (f64,) * len(args), f64, o.dtype)


def _one_by_one(o: Lanes, own: str, source: str, args: dict[str, DType]) -> tuple[str, DType]:
    """The function itself, called for one lane after another."""
    head = re.search(rf"define internal (\S+) {re.escape(SCALAR)}\((.*?)\)", source)
    assert head is not None
    kinds = tuple(_scalar_dtype(p.split()[0]) for p in head[2].split(", "))
    kind = _scalar_dtype(head[1])
    return each_lane(o, f"{own[1:]}.scalar", tuple(args), tuple(args.values()), kinds, kind, kind), kind


def each_lane(o: Lanes, function: str, args: tuple[str, ...], dtypes: tuple[DType, ...], takes: tuple[DType, ...],
              gives: DType, result: DType) -> str:
    """@function of scalars on every lane: arguments of `dtypes` as `takes`, what it `gives` as `result`."""
    one = Lanes(o.line, o.fresh, o.dtype, 1, o.fma, o.half)
    into = o.like(result)
    total = "poison"
    for lane in range(o.n):
        given = []
        for text, dtype, taken in zip(args, dtypes, takes, strict=True):
            if o.n > 1:
                text = o.emit(f"extractelement {llvm_type(dtype, o.n)} {text}, i32 {lane}")
            given.append(f"{llvm_type(taken)} {one.like(dtype).cast(text, taken)}")
        value = one.emit(f"call {llvm_type(gives)} @{function}({', '.join(given)})")
        value = one.like(gives).cast(value, result)
        if o.n == 1:
            return value
        total = o.emit(f"insertelement {into.T} {total}, {llvm_type(result)} {value}, i32 {lane}")
    return total


def _own(source: str, prefix: str) -> Iterator[str]:
    """The IR as it came, under names of its own, and declarations of what it calls outside."""
    text = source.replace(PREFIX, prefix)
    declared = re.compile(r"^declare [^\n]*\n", re.MULTILINE)
    yield from (line.strip() for line in declared.findall(text) if "@llvm." not in line)
    yield declared.sub("", text)


def _name(fn: str, n: int, dtypes: tuple[DType, ...]) -> str:
    return f"{PREFIX}{fn}.v{n}" + "".join(f".{d.short}" for d in dtypes)


def _dtype(short: str) -> DType:
    return next(d for d in DTYPES if d.short == short)


def _scalar_dtype(kind: str) -> DType:
    return f64 if kind == "double" else INTEGERS[kind]
