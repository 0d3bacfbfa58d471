"""Derivatives of a straight line of operations, as nodes.

Forwards, because of the branches: the derivative of a selection is that of the side taken, whatever the other one is.
√x for x > 0, else 0, has the derivative 0 at 0, where a gradient that goes backwards finds 0 · ∞.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorc import ops
from tensorc.codegen.straight import Step, Straight, number
from tensorc.custom.library import operation
from tensorc.ir.node import JointGradient, Node, NoGradient, Op, constant
from tensorc.ir.types import DType, boolean, f32, i8, i16, i32, i64


class Underivable(Exception):
    """The text names what has no derivative here."""


@dataclass(frozen=True)
class Dual:
    """A value and its derivatives in each argument: a node, 1.0, or None for none."""

    value: Node
    slopes: tuple[Node | float | None, ...]


def derivatives(line: Straight, args: Sequence[Node], dtype: DType) -> list[Node | float | None]:
    """The derivative of the line's result in each argument, in `dtype`, which floats are computed in.

    Raises: Underivable for an operation that has none here.
    """
    run = _Run(line, args, dtype)
    for step in line.steps:
        run.known[step.name] = run.step(step)
    return list(run.operand(line.result, line.kind).slopes)


class _Run:
    """The line on nodes, step by step."""

    def __init__(self, line: Straight, args: Sequence[Node], dtype: DType) -> None:
        self.dtype = dtype
        self.flat: tuple[None, ...] = (None,) * len(args)
        self.known: dict[str, Dual] = {}
        for i, ((name, kind), arg) in enumerate(zip(line.params, args, strict=True)):
            slopes = tuple(1.0 if i == k and arg.dtype.is_float else None for k in range(len(args)))
            self.known[name] = Dual(_cast(arg, self.kind(kind)), slopes)

    def kind(self, kind: str) -> DType:
        kinds = {"double": self.dtype, "float": f32, "i1": boolean, "i8": i8, "i16": i16, "i32": i32, "i64": i64}
        return kinds[kind]

    def operand(self, text: str, kind: str) -> Dual:
        if text in self.known:
            return self.known[text]
        return Dual(constant(number(text), self.kind(kind)), self.flat)

    def step(self, step: Step) -> Dual:
        if step.what == "select":
            condition, a, b = step.args
            return self.chosen(self.operand(condition, "i1").value, self.operand(a, step.of), self.operand(b, step.of))
        args = [self.operand(a, step.of) for a in step.args]
        key = f"{step.what} {step.predicate}" if step.predicate else step.what
        if key in CONVERSIONS:
            value = _cast(args[0].value, self.kind(step.kind))
            if key == "sext" and step.of == "i1":
                value = -value
            return Dual(value, args[0].slopes if value.dtype.is_float else self.flat)
        rule = TRUTH.get(key) if step.of == "i1" else RULES.get(key)
        if rule is not None:
            return rule(self, *args)
        outside = operation(step.what) if step.of == "double" else None
        if outside is None:
            raise Underivable(step.what)
        return self.apply(outside, *args)

    def chosen(self, condition: Node, a: Dual, b: Dual) -> Dual:
        """a where the condition holds, else b."""
        value: Node = ops.select(condition, a.value, b.value)
        slopes = tuple(None if s is None and t is None else
                       ops.select(condition, self.number(s), self.number(t))
                       for s, t in zip(a.slopes, b.slopes, strict=True))
        return Dual(value, slopes if value.dtype.is_float else self.flat)

    def number(self, slope: Node | float | None) -> Node:
        return slope if isinstance(slope, Node) else constant(slope or 0.0, self.dtype)

    def apply(self, op: Op, *args: Dual) -> Dual:
        """An operation by its own rule of differentiation: Σ slope · partial."""
        node: Node = op(*(a.value for a in args))
        rule = op.gradient
        if not node.dtype.is_float or isinstance(rule, NoGradient | JointGradient):
            return Dual(node, self.flat)
        partials = rule(node, constant(1, node.dtype))
        slopes: list[Node | float | None] = list(self.flat)
        for arg, partial in zip(args, partials, strict=True):
            if partial is not None:
                slopes = [_plus(s, _times(t, partial)) for s, t in zip(slopes, arg.slopes, strict=True)]
        return Dual(node, tuple(slopes))

    def constant(self, value: float) -> Dual:
        return Dual(constant(value, self.dtype), self.flat)


def _times(slope: Node | float | None, partial: Node) -> Node | float | None:
    return None if slope is None else slope * partial if isinstance(slope, Node) else partial


def _plus(a: Node | float | None, b: Node | float | None) -> Node | float | None:
    if a is None or b is None:
        return b if a is None else a
    total: Node | float = a + b
    return total


def _cast(node: Node, dtype: DType) -> Node:
    cast: Node = node if node.dtype is dtype else ops.cast(node, dtype=dtype)
    return cast


Rule = Callable[..., Dual]


def _by(op: Op) -> Rule:
    return lambda run, *args: run.apply(op, *args)


def _not(rule: Rule) -> Rule:
    return lambda run, *args: run.apply(ops.logical_not, rule(run, *args))


def _larger(compare: Op) -> Rule:
    return lambda run, a, b: run.chosen(compare(a.value, b.value), a, b)


def _unordered(run: _Run, a: Dual, b: Dual) -> Dual:
    return run.apply(ops.logical_or, run.apply(ops.isnan, a), run.apply(ops.isnan, b))


def _apart(run: _Run, a: Dual, b: Dual) -> Dual:
    return run.apply(ops.logical_or, run.apply(ops.lt, a, b), run.apply(ops.gt, a, b))


def _fused(run: _Run, a: Dual, b: Dual, c: Dual) -> Dual:
    return run.apply(ops.add, run.apply(ops.mul, a, b), c)


def _copysign(run: _Run, a: Dual, b: Dual) -> Dual:
    size = run.apply(ops.abs, a)
    return run.chosen(ops.lt(b.value, 0), run.apply(ops.neg, size), size)


def _truncated(run: _Run, a: Dual) -> Dual:
    return run.chosen(ops.lt(a.value, 0), run.apply(ops.ceil, a), run.apply(ops.floor, a))


def _remainder(run: _Run, a: Dual, b: Dual) -> Dual:
    """a − b · trunc(a / b)."""
    whole = _truncated(run, run.apply(ops.div, a, b))
    return run.apply(ops.sub, a, run.apply(ops.mul, b, whole))


def _erfc(run: _Run, a: Dual) -> Dual:
    return run.apply(ops.sub, run.constant(1.0), run.apply(ops.erf, a))


def _tan(run: _Run, a: Dual) -> Dual:
    return run.apply(ops.div, run.apply(ops.sin, a), run.apply(ops.cos, a))


def _half_of(op: Op) -> Rule:
    """(exp x ± exp −x) / 2."""
    def rule(run: _Run, a: Dual) -> Dual:
        both = run.apply(op, run.apply(ops.exp, a), run.apply(ops.exp, run.apply(ops.neg, a)))
        return run.apply(ops.mul, both, run.constant(0.5))
    return rule


def _scaled(op: Op, factor: float, before: bool) -> Rule:
    """op(factor · x), or factor · op(x)."""
    def rule(run: _Run, a: Dual) -> Dual:
        k = run.constant(factor)
        return run.apply(op, run.apply(ops.mul, a, k)) if before else run.apply(ops.mul, run.apply(op, a), k)
    return rule


CONVERSIONS = frozenset("zext sext trunc sitofp uitofp fptosi fptoui fpext fptrunc freeze".split())

LOG_2, LOG_10 = 0.6931471805599453, 2.302585092994046

RULES: Mapping[str, Rule] = {
    "fadd": _by(ops.add), "fsub": _by(ops.sub), "fmul": _by(ops.mul), "fdiv": _by(ops.div), "fneg": _by(ops.neg),
    "add": _by(ops.add), "sub": _by(ops.sub), "mul": _by(ops.mul),
    "fabs": _by(ops.abs), "sqrt": _by(ops.sqrt), "exp": _by(ops.exp), "expm1": _by(ops.expm1), "log": _by(ops.log),
    "log1p": _by(ops.log1p), "sin": _by(ops.sin), "cos": _by(ops.cos), "tanh": _by(ops.tanh), "pow": _by(ops.pow),
    "erf": _by(ops.erf), "floor": _by(ops.floor), "ceil": _by(ops.ceil), "rint": _by(ops.round),
    "nearbyint": _by(ops.round), "roundeven": _by(ops.round), "trunc": _truncated, "copysign": _copysign,
    "maxnum": _larger(ops.ge), "maximum": _larger(ops.ge), "minnum": _larger(ops.le), "minimum": _larger(ops.le),
    "smax": _larger(ops.ge), "smin": _larger(ops.le), "fma": _fused, "fmuladd": _fused, "frem": _remainder,
    "fmod": _remainder, "erfc": _erfc, "tan": _tan, "sinh": _half_of(ops.sub), "cosh": _half_of(ops.add),
    "exp2": _scaled(ops.exp, LOG_2, before=True), "log2": _scaled(ops.log, 1 / LOG_2, before=False),
    "log10": _scaled(ops.log, 1 / LOG_10, before=False),
    "fcmp oeq": _by(ops.eq), "fcmp une": _by(ops.ne), "fcmp olt": _by(ops.lt), "fcmp ole": _by(ops.le),
    "fcmp ogt": _by(ops.gt), "fcmp oge": _by(ops.ge), "fcmp uge": _not(_by(ops.lt)), "fcmp ugt": _not(_by(ops.le)),
    "fcmp ule": _not(_by(ops.gt)), "fcmp ult": _not(_by(ops.ge)), "fcmp uno": _unordered,
    "fcmp ord": _not(_unordered), "fcmp one": _apart, "fcmp ueq": _not(_apart),
    "icmp eq": _by(ops.eq), "icmp ne": _by(ops.ne), "icmp slt": _by(ops.lt), "icmp sle": _by(ops.le),
    "icmp sgt": _by(ops.gt), "icmp sge": _by(ops.ge),
}

TRUTH: Mapping[str, Rule] = {
    "and": _by(ops.logical_and), "or": _by(ops.logical_or), "xor": _by(ops.logical_xor),
    "icmp eq": _by(ops.eq), "icmp ne": _by(ops.ne),
}
