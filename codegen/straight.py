"""A function of scalars in LLVM IR, read as a straight line of operations, what can be said once for all lanes; or as
its blocks, where each lane goes its own way.

    define double @custom.scalar(double %x) {            %t = fcmp olt double %x, 0.0
      %t = fcmp olt double %x, 0.0                       %e = call double @llvm.exp.f64(double %x)
      br i1 %t, label %a, label %b              →        %r = select i1 %t, double %e, double %x
    …

Branches become selections: both sides are computed, and the one that is not taken does not count.  That is the same
value because nothing that is read here has an effect; who writes divisions of integers sees to it that none traps.  A
function with a loop is no straight line; one with memory of its own or with tables is not read at all.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorc.ir.types import DType, boolean, f32, f64, i8, i16, i32, i64

PREFIX = "@custom."
SCALAR = "@custom.scalar"
"""What users' functions are called in LLVM IR, and how the names of all they need begin."""

BINARY = frozenset("fadd fsub fmul fdiv frem add sub mul sdiv udiv srem urem shl lshr ashr and or xor".split())
CONVERSIONS = frozenset("zext sext trunc sitofp uitofp fptosi fptoui fpext fptrunc".split())
INTEGERS: Mapping[str, DType] = {"i1": boolean, "i8": i8, "i16": i16, "i32": i32, "i64": i64}
TYPES = frozenset(("double", "float", *INTEGERS))

PURE = frozenset(
    "acos acosh asin asinh atan atan2 atanh cbrt cos cosh erf erfc exp exp2 expm1 fmod hypot lgamma log log10 log1p "
    "log2 pow remainder sin sinh sqrt tan tanh tgamma".split()
)
"""Functions of the C library on doubles that do nothing but give a number."""

NAMES = {
    "fadd": "add", "fsub": "sub", "fmul": "mul", "fdiv": "div", "fneg": "neg", "fabs": "abs", "sqrt": "sqrt",
    "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "sin": "sin", "cos": "cos", "tanh": "tanh",
    "pow": "pow", "erf": "erf", "floor": "floor", "ceil": "ceil", "rint": "round", "nearbyint": "round",
    "roundeven": "round", "maximum": "maximum", "minimum": "minimum", "frem": "fmod", "fmod": "fmod",
}
"""What the loop language calls them."""

_INTRINSICS = frozenset(
    "fabs sqrt exp exp2 log log2 log10 sin cos tan tanh pow floor ceil trunc rint nearbyint roundeven round copysign "
    "fma fmuladd minnum maxnum minimum maximum abs smin smax umin umax ctpop".split()
)
_LABEL = re.compile(r'^([-\w.$]+|"[^"]+"):')
_ASSIGNED = re.compile(r'^(%(?:[-\w.$]+|"[^"]+")) = (.*)$')
_CALL = re.compile(r"^call .*?(\S+) @([\w.]+)\((.*)\)$")
_PHI = re.compile(r"\[ (\S+), (%\S+) \]")
_FLAGS = frozenset("nuw nsw exact nnan ninf nsz arcp contract afn reassoc fast disjoint nneg samesign tail".split())


@dataclass(frozen=True)
class Step:
    """name = what(args), without an effect.

    Attributes:
        what: LLVM's instruction, or the function called: `fadd`, `exp`.
        kind: LLVM's type of the result.
        of: that of the arguments; of a selection, that of the two values.
        args: names and literals, in LLVM's spelling.
        predicate: of a comparison, how it compares.
    """

    name: str
    what: str
    kind: str
    of: str
    args: tuple[str, ...]
    predicate: str = ""


@dataclass(frozen=True)
class Straight:
    """The steps from parameters, name and type of each, to a result."""

    params: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    result: str
    kind: str


@dataclass(frozen=True)
class Phi:
    """A name that gets one value or another, by the block from which control comes."""

    name: str
    kind: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Block:
    """Steps, and where control goes then.

    Attributes:
        phis: what is done first, all at once.
        edges: labels of blocks, the condition for each ("" for none), and whether it is to be false.
        result: what the function returns here; None where it does not.
    """

    phis: tuple[Phi, ...]
    steps: tuple[Step, ...]
    edges: tuple[tuple[str, str, bool], ...]
    result: str | None


@dataclass(frozen=True)
class Blocks:
    """The blocks of a function by label, its parameters, and the type of the result.

    What a block reads is computed in those before it, but for the values of phis that a loop brings back.
    """

    params: tuple[tuple[str, str], ...]
    blocks: Mapping[str, Block]
    kind: str


class _Crooked(Exception):
    """The function is no straight line, or not to be read."""


@functools.lru_cache(maxsize=256)
def straight(source: str) -> Straight | None:
    """The function @custom.scalar of LLVM IR `source` as a straight line, or None where it is none."""
    try:
        return _Reader(*_function(source)).straight()
    except _Crooked:
        return None


@functools.lru_cache(maxsize=256)
def blocks(source: str) -> Blocks | None:
    """The function @custom.scalar of LLVM IR `source` as blocks; None where there is more in it than operations."""
    try:
        return _Reader(*_function(source)).apart()
    except _Crooked:
        return None


def computing(source: str, dtypes: tuple[DType, ...]) -> DType:
    """What a user's function computes floats in, on arguments of these dtypes.

    float32 where that is the widest float among them, else float64; where it is no straight line always float64.
    """
    return f32 if f32 in dtypes and f64 not in dtypes and straight(source) is not None else f64


def number(text: str) -> float:
    """A literal of LLVM's as a number; 0 for one that may be anything."""
    if text in ("undef", "poison", "zeroinitializer"):
        return 0
    if text in ("true", "false"):
        return text == "true"
    if text.startswith("0x"):
        (value,) = struct.unpack("<d", int(text, 16).to_bytes(8, "little"))
        return float(value)
    return float(text) if "." in text or "e" in text else int(text)


def _function(text: str) -> tuple[str, list[str]]:
    """The parameters of @custom.scalar, and its lines."""
    head = re.search(rf"^define [^\n]*{SCALAR}\((.*)\)[^\n]*{{\n", text, re.MULTILINE)
    assert head is not None, text
    body = text[head.end():text.index("\n}", head.end())]
    lines = (re.sub(r", !.*|  *; .*| #\d+$", "", line).strip() for line in body.splitlines())
    return head[1], [line for line in lines if line and not line.startswith(";")]


@dataclass
class _Block:
    """A basic block: its operations, where it goes under which condition, what it returns."""

    lines: list[str] = field(default_factory=list)
    edges: list[tuple[str, str, bool]] = field(default_factory=list)     # target, condition ("" for none), negated
    result: str | None = None


class _Reader:
    """The blocks of one function on their way to a single line."""

    def __init__(self, parameters: str, lines: list[str]) -> None:
        pairs = [p.split() for p in parameters.split(", ") if p]
        self.params = tuple((words[-1], words[0]) for words in pairs)
        self.steps: list[Step] = []
        self.kind = ""
        self.added: dict[tuple[str, ...], str] = {}
        self.conditions: dict[str, str] = {}          # of blocks, as `_reached` finds them
        self.blocks = self._blocks(lines)
        self.order: list[str] = []

    def _blocks(self, lines: list[str]) -> Mapping[str, _Block]:
        here = "%entry"
        blocks = {here: _Block()}
        for number, line in enumerate(lines):
            label = _LABEL.match(line)
            if label is not None:
                here = f"%{label[1]}"
                if number == 0:
                    blocks.clear()
                blocks[here] = _Block()
            else:
                self._line(blocks[here], line)
        return blocks

    def _line(self, block: _Block, line: str) -> None:
        words = line.replace(",", "").split()
        match words[0]:
            case "br" if words[1] == "label":
                block.edges = [(words[2], "", False)]
            case "br":
                block.edges = [(words[4], words[2], False), (words[6], words[2], True)]
            case "ret" if len(words) == 3:
                self.kind, block.result = words[1:]
            case "unreachable":
                pass
            case _ if _ASSIGNED.match(line):
                block.lines.append(line)
            case _:
                raise _Crooked

    def apart(self) -> Blocks:
        found: dict[str, Block] = {}
        for label in self._in_order(loops=True):
            block = self.blocks[label]
            phis: list[Phi] = []
            steps: list[Step] = []
            for line in block.lines:
                name, opcode, rest = _parts(line)
                if opcode == "phi":
                    values = {source: value for value, source in _PHI.findall(rest)}
                    phis.append(Phi(name, rest.split(" ")[0], values))
                else:
                    steps.append(self._step_of(name, opcode, rest))
            found[label] = Block(tuple(phis), tuple(steps), tuple(block.edges), block.result)
        if self.kind not in TYPES or any(phi.kind not in TYPES for block in found.values() for phi in block.phis):
            raise _Crooked
        return Blocks(self.params, found, self.kind)

    def straight(self) -> Straight:
        self.order = self._in_order()
        results: list[tuple[str, str]] = []
        for label in self.order:
            for line in self.blocks[label].lines:
                self._operation(line, label)
            result = self.blocks[label].result
            if result is not None:
                results.append((label, result))
        if not results or self.kind not in TYPES:
            raise _Crooked
        cases = [(self._reached(label), result) for label, result in results[:-1]]
        result = self._chosen(cases, results[-1][1], self.kind)
        return Straight(self.params, tuple(self.steps), result, self.kind)

    def _in_order(self, loops: bool = False) -> list[str]:
        """The blocks, each after all that lead to it, but for those behind it in a loop.

        Raises _Crooked for a loop unless there may be some.
        """
        done: list[str] = []
        open_: set[str] = set()

        def visit(label: str) -> None:
            if label in open_ and not loops:
                raise _Crooked
            if label not in done and label not in open_:
                open_.add(label)
                for target, _, _ in self.blocks[label].edges:
                    visit(target)
                open_.remove(label)
                done.append(label)

        visit(next(iter(self.blocks)))
        return done[::-1]

    def _into(self, label: str) -> list[tuple[str, str, bool]]:
        """The edges that lead to a block: from where, under which condition."""
        return [(source, condition, negated) for source in self.order
                for target, condition, negated in self.blocks[source].edges if target == label]

    def _along(self, edge: tuple[str, str, bool]) -> str:
        """A bool: is this edge on the way taken."""
        source, condition, negated = edge
        if not condition:
            return self._reached(source)
        if negated:
            condition = self._step("xor", "i1", condition, "true")
        return self._both(self._reached(source), condition)

    def _both(self, a: str, b: str) -> str:
        return b if not a else a if not b else self._step("and", "i1", a, b)

    def _reached(self, label: str) -> str:
        """A bool: is this block on the way taken; "" for always."""
        if label not in self.conditions:
            ways = [self._along(edge) for edge in self._into(label)]
            condition = "" if label == self.order[0] or "" in ways else ways[0]
            for other in ways[1:] if condition else ():
                condition = self._step("or", "i1", condition, other)
            self.conditions[label] = condition
        return self.conditions[label]

    def _chosen(self, cases: list[tuple[str, str]], otherwise: str, kind: str) -> str:
        """The value whose condition holds, of several of which one may."""
        value = otherwise
        for condition, other in reversed(cases):
            value = self._step("select", kind, condition, other, value) if condition else other
        return value

    def _step(self, what: str, kind: str, *args: str) -> str:
        """The name of an operation on what is known, which is added unless it is there."""
        key = (what, kind, *args)
        if key not in self.added:
            self.added[key] = name = f"%straight.{len(self.added)}"
            self.steps.append(Step(name, what, kind, kind, args))
        return self.added[key]

    # -- operations

    def _operation(self, line: str, label: str) -> None:
        name, opcode, rest = _parts(line)
        self.steps.append(self._phi(name, rest, label) if opcode == "phi" else self._step_of(name, opcode, rest))

    def _step_of(self, name: str, opcode: str, rest: str) -> Step:
        step = self._call(name, f"call {rest}") if opcode == "call" else _plain(name, opcode, rest)
        if step.kind not in TYPES or step.of not in TYPES:
            raise _Crooked
        return step

    def _phi(self, name: str, rest: str, label: str) -> Step:
        kind = rest.split(" ")[0]
        values = {source: value for value, source in _PHI.findall(rest)}
        edges = self._into(label)
        if len({source for source, _, _ in edges}) != len(edges):
            raise _Crooked
        cases = [(self._along(edge), values[edge[0]]) for edge in edges[:-1]]
        if kind not in TYPES:
            raise _Crooked
        return Step(name, "freeze", kind, kind, (self._chosen(cases, values[edges[-1][0]], kind),))

    def _call(self, name: str, text: str) -> Step:
        found = _CALL.match(text)
        if found is None:
            raise _Crooked
        kind, function, given = found.groups()
        args = [a.split() for a in given.split(", ")]
        if function.startswith("llvm."):
            function = function.split(".")[1]
            if function not in _INTRINSICS:
                raise _Crooked
            if function == "abs":
                args = args[:1]
        elif function not in PURE:
            raise _Crooked
        if {a[0] for a in args} != {kind}:
            raise _Crooked
        return Step(name, function, kind, kind, tuple(a[-1] for a in args))


def _parts(line: str) -> tuple[str, str, str]:
    """The name that an operation gives its value, what it is, and what it is of."""
    assigned = _ASSIGNED.match(line)
    assert assigned is not None
    name, text = assigned.groups()
    opcode, _, rest = " ".join(word for word in text.split(" ") if word not in _FLAGS).partition(" ")
    return name, opcode, rest


def _plain(name: str, opcode: str, rest: str) -> Step:
    """An instruction that is no call and no phi.  Raises _Crooked for those with an effect."""
    parts = [p.split() for p in rest.split(", ")]
    if opcode in BINARY or opcode in ("fneg", "freeze"):
        kind = parts[0][0]
        return Step(name, opcode, kind, kind, tuple(p[-1] for p in parts))
    if opcode in ("icmp", "fcmp"):
        predicate, kind, first = parts[0]
        return Step(name, opcode, "i1", kind, (first, parts[1][-1]), predicate)
    if opcode == "select" and parts[0][0] == "i1":
        kind = parts[1][0]
        return Step(name, opcode, kind, kind, tuple(p[-1] for p in parts))
    if opcode in CONVERSIONS:
        kind, value, _, to = parts[0]
        return Step(name, opcode, to, kind, (value,))
    raise _Crooked
