"""Functions that users wrote, in the text for a GPU: a straight line of operations, one line of text each.

What of LLVM has no operator in Python is an intrinsic or a function of libdevice, as everywhere else in the text.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorc.codegen.cuda.scalars import Bench, cast, library, literal, spell
from tensorc.codegen.scalars import SCALARS
from tensorc.codegen.straight import INTEGERS, NAMES, PURE, Step, Straight, computing, number, straight
from tensorc.errors import DeviceError
from tensorc.ir.types import DType, boolean, f32, i8

FLOATS = frozenset("exp2 log2 log10 tan copysign round trunc".split()) | PURE
"""Functions of floats that libdevice has under the same name."""

OTHER_NAMES = {"minnum": "fmin", "maxnum": "fmax"}
BITS = {"and": "bit_and", "or": "bit_or", "xor": "bit_xor"}
LOGIC = {"and": "both", "or": "either", "xor": "differ", "add": "differ", "sub": "differ", "mul": "both"}
SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
OPPOSITE = {"eq": "ne", "ne": "eq", "lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}


def call(bench: Bench, fn: str, dtypes: tuple[DType, ...], result: DType, args: Sequence[str]) -> str:
    """A call of a user's function on values of these dtypes; lines before it compute parts.

    Raises: DeviceError for a function with a loop or a table.
    """
    scalar = SCALARS[fn]
    assert scalar.source is not None
    source = scalar.source(dtypes)
    line = straight(source)
    if line is None:
        raise DeviceError(f"{fn} is a function of your own with a loop or a table, which has no code for a GPU; "
                          f"arithmetic, branches and the functions of `math` have")
    inlined = _Inlined(bench, line, computing(source, dtypes))
    return cast(inlined.value(args, dtypes), inlined.dtype(line.kind), result)


class _Inlined:
    """A straight line as lines of text; doubles are of the dtype that is computed in."""

    def __init__(self, bench: Bench, line: Straight, computed: DType) -> None:
        self.bench = bench
        self.line = line
        self.computed = computed
        self.known: dict[str, str] = {}

    def value(self, args: Sequence[str], dtypes: Sequence[DType]) -> str:
        for (name, kind), text, dtype in zip(self.line.params, args, dtypes, strict=True):
            self.known[name] = self.bench.bind(cast(text, dtype, self.dtype(kind)))
        for step in self.line.steps:
            kinds = ["i1" if step.what == "select" and at == 0 else step.of for at in range(len(step.args))]
            given = list(map(self.operand, step.args, kinds))
            self.known[step.name] = self.bench.bind(self.step(step, self.dtype(step.of), given))
        return self.operand(self.line.result, self.line.kind)

    def dtype(self, kind: str) -> DType:
        return self.computed if kind == "double" else INTEGERS.get(kind, f32)

    def operand(self, text: str, kind: str) -> str:
        """A name, or a literal in a variable."""
        if text not in self.known:
            return self.bench.bind(literal(number(text), self.dtype(kind)))
        return self.known[text]

    def step(self, step: Step, dtype: DType, args: Sequence[str]) -> str:
        match step.what:
            case "select":
                return f"select({', '.join(args)})"
            case "freeze":
                return args[0]
            case "fcmp":
                return self.compared(step.predicate, *args)
            case "icmp":
                return self.compared_integers(step.predicate, dtype, *args)
            case "fptosi" | "fptoui" | "fpext" | "fptrunc" | "sext" | "sitofp":
                if dtype is boolean:
                    args, dtype = [self.bench.bind(f"neg(cast_i8({args[0]}))")], i8
                return cast(args[0], dtype, self.dtype(step.kind))
            case "zext" | "uitofp" | "trunc" if not dtype.is_float:
                return self.converted(step.what, args[0], dtype, self.dtype(step.kind))
            case "fma" | "fmuladd":
                return f"(({args[0]} * {args[1]}) + {args[2]})"
            case "fmod" | "frem":
                return library("fmod", dtype, *args)
            case what if what in NAMES:
                return spell(self.bench, NAMES[what], dtype, tuple(args))
            case what if dtype.is_float and (what in FLOATS or what in OTHER_NAMES):
                return library(OTHER_NAMES.get(what, what), dtype, *args)
            case "abs":
                return spell(self.bench, "abs", dtype, tuple(args))
            case "smin" | "smax" | "umin" | "umax":
                wins = self.bench.bind(self.compared_integers(f"{step.what[0]}lt", dtype, *args))
                return f"select({wins}, {', '.join(args if step.what.endswith('min') else args[::-1])})"
            case what if dtype is boolean:
                return f"{LOGIC[what]}({', '.join(args)})"
            case what:
                return f"{BITS.get(what, what)}({', '.join(args)})"

    def compared(self, predicate: str, a: str, b: str) -> str:
        """Of floats: an ordered comparison is false where one is NaN, an unordered one true."""
        order, sign = predicate[0], predicate[1:]
        unordered = f"either(isnan({a}), isnan({b}))"
        match predicate:
            case "true" | "false":
                return literal(predicate == "true", boolean)
            case "uno":
                return unordered
            case "ord":
                return f"negate({unordered})"
            case "one" | "ueq":
                apart = f"either({a} < {b}, {a} > {b})"
                return apart if predicate == "one" else f"negate({apart})"
            case "une":
                return f"({a} != {b})"
        return f"({a} {SIGNS[sign]} {b})" if order == "o" else f"negate({a} {SIGNS[OPPOSITE[sign]]} {b})"

    def compared_integers(self, predicate: str, dtype: DType, a: str, b: str) -> str:
        """Of integers, which have signs in the text: to compare them as if unsigned, the sign is turned first."""
        order, sign = (predicate[0], predicate[1:]) if len(predicate) > 2 else ("", predicate)
        if dtype is boolean:
            a, b = f"cast_u8({a})", f"cast_u8({b})"
            return f"({b} {SIGNS[sign]} {a})" if order == "s" else f"({a} {SIGNS[sign]} {b})"
        if order == "u":
            lowest = literal(-(2 ** (8 * dtype.size - 1)), dtype)
            a, b = f"add({a}, {lowest})", f"add({b}, {lowest})"
        return f"({a} {SIGNS[sign]} {b})"

    def converted(self, what: str, a: str, dtype: DType, to: DType) -> str:
        """An integer without its sign in a wider one or a float, or its last bits."""
        if what == "trunc":
            return cast(f"bit_and({a}, {literal(1, dtype)})" if to is boolean else a, dtype, to)
        if dtype is boolean or what == "zext":
            mask = literal(2 ** (8 * dtype.size) - 1, to)
            return cast(a, dtype, to) if dtype is boolean else f"bit_and({cast(a, dtype, to)}, {mask})"
        near = self.bench.bind(cast(a, dtype, to))
        return f"select({a} < {literal(0, dtype)}, {near} + {literal(2 ** (8 * dtype.size), to)}, {near})"
