"""Functions that users wrote, in the text for a GPU: a straight line of operations, one line of text each; of one with
a loop, its blocks, among which each thread goes its own way.

What of LLVM has no operator in Python is an intrinsic or a function of libdevice, as everywhere else in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from tensorc.codegen.cuda.scalars import Bench, cast, library, literal, spell
from tensorc.codegen.scalars import SCALARS
from tensorc.codegen.straight import (
    INTEGERS,
    NAMES,
    PURE,
    Block,
    Blocks,
    Step,
    Straight,
    blocks,
    computing,
    number,
    straight,
)
from tensorc.errors import DeviceError
from tensorc.ir.types import DType, boolean, f32, i8, i32

FLOATS = frozenset("exp2 log2 log10 tan copysign round trunc".split()) | PURE
"""Functions of floats that libdevice has under the same name."""

OTHER_NAMES = {"minnum": "fmin", "maxnum": "fmax"}
BITS = {"and": "bit_and", "or": "bit_or", "xor": "bit_xor"}
LOGIC = {"and": "both", "or": "either", "xor": "differ", "add": "differ", "sub": "differ", "mul": "both"}
SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
OPPOSITE = {"eq": "ne", "ne": "eq", "lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}


def call(bench: Bench, fn: str, dtypes: tuple[DType, ...], result: DType, args: Sequence[str]) -> str:
    """A call of a user's function on values of these dtypes; lines before it compute parts.

    Raises: DeviceError for a function with a table or memory of its own.
    """
    scalar = SCALARS[fn]
    assert scalar.source is not None
    source = scalar.source(dtypes)
    computed = computing(source, dtypes)
    line = straight(source)
    if line is not None:
        inlined = _Inlined(bench, line.params, computed)
        return cast(inlined.along(line, args, dtypes), inlined.dtype(line.kind), result)
    apart = blocks(source)
    if apart is None:
        raise DeviceError(f"{fn} is a function of your own with a table, or memory of its own, which has no code for a "
                          f"GPU; arithmetic, branches, loops and the functions of `math` have")
    inlined = _Inlined(bench, apart.params, computed)
    return cast(inlined.among(apart, args, dtypes), inlined.dtype(apart.kind), result)


class _Inlined:
    """Operations as lines of text; doubles are of the dtype that is computed in."""

    def __init__(self, bench: Bench, params: Sequence[tuple[str, str]], computed: DType) -> None:
        self.bench = bench
        self.params = params
        self.computed = computed
        self.known: dict[str, str] = {}

    def along(self, line: Straight, args: Sequence[str], dtypes: Sequence[DType]) -> str:
        """The value of a straight line."""
        self.begin(args, dtypes)
        for step in line.steps:
            self.compute(step)
        return self.operand(line.result, line.kind)

    def among(self, function: Blocks, args: Sequence[str], dtypes: Sequence[DType]) -> str:
        """The value of a function that goes from block to block: `at` is the number of the one that comes next."""
        bench = self.bench
        self.begin(args, dtypes)
        numbers = {label: number for number, label in enumerate(function.blocks)}
        for block in function.blocks.values():
            for phi in block.phis:
                self.known[phi.name] = self.variable("phi", self.dtype(phi.kind))
        result = self.variable("result", self.dtype(function.kind))
        at = self.variable("at", i32)

        with bench.block(f"while {at} >= {literal(0, i32)}:"):
            for label, block in function.blocks.items():
                with bench.block(f"if {at} == {literal(numbers[label], i32)}:"):
                    for step in block.steps:
                        self.compute(step)
                    if block.result is not None:
                        bench.line(f"{result} = {self.operand(block.result, function.kind)}")
                    if not block.edges:
                        bench.line(f"{at} = {literal(-1, i32)}")
                    taken = [self.condition(condition, negated) for _, condition, negated in block.edges]
                    for (target, _, _), condition in zip(block.edges, taken, strict=True):
                        with bench.block(f"if {condition}:") if condition else nullcontext():
                            self.follow(label, function.blocks[target])
                            bench.line(f"{at} = {literal(numbers[target], i32)}")
        return result

    def variable(self, wish: str, dtype: DType) -> str:
        name = self.bench.fresh(wish)
        self.bench.line(f"{name} = {literal(0, dtype)}")
        return name

    def condition(self, condition: str, negated: bool) -> str:
        """A bool, in a variable, since what it is made of may change on the way; "" for none."""
        if not condition:
            return ""
        text = self.operand(condition, "i1")
        return self.bench.bind(f"negate({text})") if negated else text

    def follow(self, label: str, block: Block) -> None:
        """What a block finds that is reached from another, all of it computed before any changes."""
        values = [self.operand(phi.values[label], phi.kind) for phi in block.phis]
        kept = [self.bench.fresh("t") for _ in values]
        for name, value in zip(kept, values, strict=True):
            self.bench.line(f"{name} = {value}")
        for phi, name in zip(block.phis, kept, strict=True):
            self.bench.line(f"{self.known[phi.name]} = {name}")

    def begin(self, args: Sequence[str], dtypes: Sequence[DType]) -> None:
        for (name, kind), text, dtype in zip(self.params, args, dtypes, strict=True):
            self.known[name] = self.bench.bind(cast(text, dtype, self.dtype(kind)))

    def compute(self, step: Step) -> None:
        kinds = ["i1" if step.what == "select" and at == 0 else step.of for at in range(len(step.args))]
        given = list(map(self.operand, step.args, kinds))
        self.known[step.name] = self.bench.bind(self.step(step, self.dtype(step.of), given))

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
