"""Rewrites: a pattern written in the op language, a condition, and what takes its place.

    class MulOne(Rewrite):
        \"\"\"x · 1 → x\"\"\"

        def pattern(self, x):
            return x * 1

        def check(self, node, x):
            return node.type == x.type or No("the 1 broadcasts x")

        def build(self, x):
            return x

The names in the signature of `pattern` are holes, for operands and attributes alike.  `check` and `build`
ask for the holes they need by name; `node` is the node that matched, and
`machine` what the graph is compiled for, as passes/target.py describes it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorc.errors import RewriteError
from tensorc.ir.node import Node, Op, Pattern
from tensorc.passes.target import TARGETS, Target

Binding = Mapping[str, Any]


@dataclass(frozen=True)
class No:
    """Why a rewrite does not apply; false, so that `check` may return it."""

    reason: str

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True)
class Fired:
    """A rewrite that took place; `made` are the nodes that its `build` asked for."""

    rule: str
    before: Node
    after: Node
    made: tuple[Node, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Rebuilt:
    """The same operation, on what its operands have become."""

    before: Node
    after: Node


@dataclass(frozen=True)
class Missed:
    """A rewrite that did not: `agreed` operations of its pattern were there before the first that was not."""

    rule: str
    node: Node
    reason: str
    agreed: int


class Rewrite:
    """A local rule.  The docstring is its formula, the class name is its name.

    pattern(holes…): what to look for, or a tuple of such where there are several spellings.  A hole spelled
        `*xs` takes all operands that are left.  An attribute that is not mentioned may be anything.
    check(holes…): whether it applies, or No("why not").  Optional.
    build(holes…): what takes the place of the match, of the same type; No("why not") where only building tells.

    A rule about whole families of operations has a lone hole for its pattern and says in `concerns` which.

    Attributes:
        place: where it stands in a pipeline that it joins: one or several of "before NAME", "after NAME" and "in NAME"
            of a pass.  As it is, a rule sees the graph as it was written, and then, in one sweep with the rules that
            simplify, what these uncover; they tidy up what it makes.
        version: a text that changes with what the rule does; with one, its programs are kept on disk.
    """

    place: str | tuple[str, ...] = ("before simplify", "in simplify")
    version: str | None = None

    pattern: Callable[..., Any]
    build: Callable[..., Node | No]
    check: Callable[..., bool | No]

    def __init__(self) -> None:
        self.name = type(self).__name__
        parameters = inspect.signature(self.pattern).parameters.values()
        found = _call(self.pattern, parameters, {p.name: _hole(p) for p in parameters})
        self.patterns: tuple[Pattern, ...] = found if isinstance(found, tuple) else (found,)
        self._check = inspect.signature(self.check).parameters.values() if hasattr(self, "check") else None
        self._build = inspect.signature(self.build).parameters.values()
        asked = {p.name for p in (*self._build, *(self._check or ()))} - {"node", "machine"}
        if "node" in _holes(self.patterns[0]):
            raise RewriteError(f"{self.name}: no hole may be called node; that is what matched")
        for pattern in self.patterns:
            if unknown := asked - _holes(pattern):
                raise RewriteError(f"{self.name}: {pattern} has no hole {min(unknown)!r}")

    def concerns(self, op: Op, operands: Sequence[Op]) -> bool:
        """Whether the rule is worth trying on nodes of `op` on results of `operands`; asked once for each."""
        return True

    def replacement(self, binding: Binding, machine: Target = TARGETS["cpu"]) -> Node | No:
        """What the rule makes of a match, or why it makes nothing."""
        binding = {"machine": machine, **binding}
        allowed = True if self._check is None else _call(self.check, self._check, binding)
        if not allowed:
            return allowed if isinstance(allowed, No) else No("its check says no")
        new: Node | No = _call(self.build, self._build, binding)
        return new

    def __repr__(self) -> str:
        return f"<rewrite {self.name}>"


def matches(pattern: Pattern, node: Node) -> Iterator[Binding]:
    """Every way in which the holes of `pattern` can be filled to make it `node`; the first operand order first."""
    return _match(pattern, node, {"node": node})


Literal = tuple[bool, float]                 # a number in a pattern; that it is a bool keeps True from being 1
Kind = tuple[Op, Literal | None]             # what is seen of an operand at a glance


def numbers_in(pattern: Any) -> set[Literal]:
    """The numbers that a pattern asks for."""
    if isinstance(pattern, Pattern):
        return set().union(*map(numbers_in, pattern.args))
    return set() if isinstance(pattern, Node) else {_literal(pattern)}


def kind_of(node: Node, numbers: Iterable[Literal]) -> Kind:
    """The operation of an operand, and which of the numbers that make a difference it is."""
    fill = filled_with(node)
    if fill is None:
        return node.op, None
    return node.op, next((n for n in numbers if _equals(fill, n)), None)


def may_match(pattern: Pattern, op: Op, operands: Sequence[Kind]) -> bool:
    """False if no node of `op` on such operands can match: a cheap test that settles most cases."""
    if pattern.op is None:
        return True
    if pattern.op is not op:
        return False
    return any(
        len(order) == len(operands) or _rest(order) is not None
        for order in _orders(pattern)
        if all(_may_be(p, o) for p, o in zip(order, operands, strict=False))
    )


def filled_with(node: Node) -> Any:
    """The one number that a constant, possibly broadcast, is filled with, as a NumPy scalar; None also for NaN."""
    while node.op.name == "broadcast":
        node = node.args[0]
    if node.op.name != "constant" or not node.value.size:
        return None
    first = node.value.flat[0]
    return first if (node.value == first).all() else None


def whole(rule: Rewrite) -> int:
    """How many operations the largest pattern of a rule names."""
    return max(map(_operations, rule.patterns))


def near_miss(rule: Rewrite, node: Node) -> Missed | None:
    """How far the pattern of a rule agrees with a node and where it stops.

    None where not even the root agrees, and where all agrees: then it is `check` that has the reason.
    """
    misses = [_disagreement(p, node) for p in rule.patterns if p.op is node.op]
    if not misses or any(next(matches(p, node), None) for p in rule.patterns):
        return None
    agreed, reason = max(misses, key=lambda m: m[0])
    return Missed(rule.name, node, reason or "one hole would stand for two different things", agreed)


def _call(function: Callable[..., Any], parameters: Any, values: Binding) -> Any:
    """Calls a method with the holes that its signature names."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL:
            positional.extend(values[p.name])
        elif p.kind is p.KEYWORD_ONLY:
            named[p.name] = values[p.name]
        else:
            positional.append(values[p.name])
    return function(*positional, **named)


def _operations(pattern: object) -> int:
    if not isinstance(pattern, Pattern) or pattern.op is None:
        return 0
    return 1 + sum(map(_operations, pattern.args))


def _hole(parameter: inspect.Parameter) -> Any:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return (Pattern(None, name=f"*{parameter.name}"),)
    return Pattern(None, name=parameter.name)


def _holes(pattern: object) -> set[str]:
    if not isinstance(pattern, Pattern):
        return set()
    if pattern.op is None:
        return {pattern.name.lstrip("*")}
    return set().union(*map(_holes, (*pattern.args, *pattern.attrs.values())))


def _match(pattern: Any, value: Any, bound: Binding) -> Iterator[Binding]:
    if isinstance(pattern, Pattern):
        if pattern.op is None:
            yield from _bind(pattern.name, value, bound)
        elif isinstance(value, Node) and value.op is pattern.op:
            attrs = tuple((p, value.attrs[name]) for name, p in pattern.attrs.items())
            for order in _orders(pattern):
                pairs = _pairs(order, value.args)
                if pairs is not None:
                    yield from _match_all(pairs + attrs, bound)
    elif isinstance(value, Node) and not isinstance(pattern, Node):
        fill = filled_with(value)
        if fill is not None and _equals(fill, _literal(pattern)):
            yield bound
    elif _same(pattern, value):
        yield bound


def _match_all(pairs: tuple[tuple[Any, Any], ...], bound: Binding) -> Iterator[Binding]:
    if not pairs:
        yield bound
        return
    for more in _match(*pairs[0], bound):
        yield from _match_all(pairs[1:], more)


def _bind(name: str, value: Any, bound: Binding) -> Iterator[Binding]:
    name = name.lstrip("*")
    if name not in bound:
        yield {**bound, name: value}
    elif _same(bound[name], value):
        yield bound


def _orders(pattern: Pattern) -> tuple[tuple[Any, ...], ...]:
    """The operands, and swapped for a commutative operation where that makes a difference."""
    args = pattern.args
    if pattern.op is not None and pattern.op.commutative and len(args) == 2 and args[0] is not args[1]:
        return args, args[::-1]
    return (args,)


def _rest(args: Sequence[Any]) -> Pattern | None:
    """The hole `*xs` at the end of a pattern's operands."""
    last = args[-1] if args else None
    return last if isinstance(last, Pattern) and last.name.startswith("*") else None


def _pairs(patterns: tuple[Any, ...], values: tuple[Node, ...]) -> tuple[tuple[Any, Any], ...] | None:
    """Patterns beside what they must match, or None where the numbers differ."""
    rest = _rest(patterns)
    if rest is None:
        return tuple(zip(patterns, values, strict=True)) if len(patterns) == len(values) else None
    n = len(patterns) - 1
    return (*zip(patterns[:n], values[:n], strict=True), (rest, values[n:])) if len(values) >= n else None


def _may_be(pattern: Any, kind: Kind) -> bool:
    op, number = kind
    if isinstance(pattern, Pattern):
        return pattern.op is None or pattern.op is op
    return isinstance(pattern, Node) or number == _literal(pattern)


def _literal(number: bool | float) -> Literal:
    return isinstance(number, bool), float(number)


def _equals(fill: Any, literal: Literal) -> bool:
    """Whether a NumPy scalar is that number, as precisely as its dtype has it; 0 is also -0."""
    is_bool, number = literal
    return is_bool == isinstance(fill, np.bool_) and bool(fill == number)


def _same(a: Any, b: Any) -> bool:
    """Whether two operands or attributes are the same."""
    if a is b:
        return True
    if type(a) is not type(b) or isinstance(a, Node):
        return False
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b)


def _disagreement(pattern: Any, value: Any) -> tuple[int, str]:
    """(operations that agree, what the first difference is)."""
    if not isinstance(pattern, Pattern) or pattern.op is None:
        fits = next(_match(pattern, value, {}), None) is not None
        return 0, "" if fits else f"{_show(value)} is not {_show(pattern)}"
    if not isinstance(value, Node) or value.op is not pattern.op:
        return 0, f"{_show(value)} is no {pattern.op.name}"
    tried = []
    for order in _orders(pattern):
        pairs = _pairs(order, value.args)
        if pairs is None:
            tried.append((1, f"{value.op.name} of {len(value.args)} operands"))
            continue
        pairs += tuple((p, value.attrs[name]) for name, p in pattern.attrs.items())
        below = [_disagreement(p, v) for p, v in pairs]
        reason = next((why for _, why in below if why), "")
        tried.append((1 + sum(n for n, _ in below), reason))
    agreed, reason = max(tried, key=lambda t: (not t[1], t[0]))
    return agreed, reason


def _show(value: object) -> str:
    if isinstance(value, Node):
        fill = filled_with(value)
        return f"{value.op.name}: {value.type}" if fill is None else f"{fill}: {value.type}"
    return str(value)
