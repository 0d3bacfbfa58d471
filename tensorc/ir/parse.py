"""Text to graphs: the other direction of tensorc.ir.text.  Errors give line, column and a caret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tensorc.errors import IRError
from tensorc.ir import dims
from tensorc.ir.graph import BODY, ROLES, Graph, verify
from tensorc.ir.node import OPS, Node, Op, constant, make
from tensorc.ir.piece import Misread, Piece, near, outside_strings, reading
from tensorc.ir.types import DTYPES, DType, dtype, parse_type, split_commas

_TYPES = "|".join(d.short for d in DTYPES)
_HEAD = re.compile(r"(graph|body)\s+([A-Za-z_]\w*)\s*\(")
_ARRAY = re.compile(r"([a-z]+\d*)(\[.*)$", re.DOTALL)

EXPECTED = "expected `graph name(parameters)`, `%name: type = op(operands) {attributes}` or `return results`"


def parse(text: str) -> list[Graph]:
    """Every graph in the text, verified.  Raises IRError with line, column and a caret."""
    import tensorc.ops  # noqa: F401  (fills OPS)

    graphs: list[Graph] = []
    bodies: dict[str, Graph] = {}
    open_graph: _Reader | None = None
    lines = text.splitlines()
    began = 0
    for number, raw in enumerate(lines, 1):
        line = Piece.of(_without_comment(raw))
        if not line.text:
            continue
        try:
            if _word(line) in ("graph", "body"):
                if open_graph is not None:
                    raise Misread(f"{open_graph.name}, the graph before this one, has no return", line)
                open_graph, began = _Reader(line, bodies), number
            elif open_graph is None:
                raise Misread("expected `graph name(parameters)`", line)
            elif _word(line) == "return":
                graph = open_graph.finish(line)
                if open_graph.is_body:
                    bodies[open_graph.name] = replace(graph, name=BODY)
                else:
                    graphs.append(graph)
                open_graph = None
            else:
                open_graph.node(line)
        except Misread as error:
            raise IRError(error.shown(number, raw)) from None
    if open_graph is not None:
        raise IRError(Misread("this graph has no return", Piece.of(lines[began - 1])).shown(began, lines[began - 1]))
    return graphs


class _Reader:
    """One graph being read: names known so far, and the bodies read before it."""

    def __init__(self, head: Piece, bodies: Mapping[str, Graph]) -> None:
        match = _HEAD.match(head.text)
        if match is None:
            raise Misread("expected `graph name(parameters)`", head)
        self.is_body, self.name = match[1] == "body", match[2]
        self.bodies = bodies
        self.known: dict[str, Node] = {}
        self.params: list[Node] = []
        inside, rest = _parenthesised(head, match.end() - 1)
        if rest.text:
            raise Misread("nothing may follow the parameters", rest)
        for items in inside.parts(";"):
            for item in items.parts(","):
                self._param(item)

    def _param(self, item: Piece) -> None:
        """`name: type` or `name: role type`."""
        name, rest = item.halves(":")
        if rest is None or not name.text.isidentifier():
            raise Misread("expected `name: type`", item)
        role, _, spelled = rest.text.rpartition(" ")
        if role.strip() not in ("", *ROLES):
            raise Misread(f"there is no role {role.strip()!r}; there are {', '.join(ROLES)}", rest)
        if name.text in self.known:
            raise Misread(f"two parameters are called {name.text}", name)
        kind = rest.cut(len(rest.text) - len(spelled))
        with reading(kind):
            node = make(OPS["parameter"], name=name.text, role=role.strip() or "input", uid=0,
                        type=parse_type(kind.text))
        self.known[name.text] = node
        self.params.append(node)

    def node(self, line: Piece) -> None:
        """`%0: type = op(operands) {attributes}`, and perhaps what the plan says of it."""
        left, right = line.halves("  @ ")[0].halves("=")
        label, kind = left.halves(":")
        if not re.fullmatch(r"%\w+", label.text):
            raise Misread(EXPECTED, line)
        if right is None:
            raise Misread("expected `= op(operands)`", left.end())
        if label.text in self.known:
            raise Misread(f"{label.text} is defined twice", label)
        node = self._application(right)
        if kind is not None:
            with reading(kind):
                stated = parse_type(kind.text)
            if stated != node.type:
                raise Misread(f"{node.op.name} gives {node.type}, the text says {kind.text}", kind)
        self.known[label.text] = node

    def _application(self, text: Piece) -> Node:
        """`op(operands) {attributes}`."""
        match = re.match(r"[A-Za-z_]\w*", text.text)
        if match is None:
            raise Misread("expected `op(operands)`", text)
        name, opening = text.cut(0, match.end()), text.text.find("(", match.end())
        if name.text not in OPS:
            raise Misread(f"no op is called {name.text}{near(name.text, OPS)}", name)
        if opening < 0 or text.text[match.end():opening].strip():
            raise Misread(f"expected `(` after {name.text}", name.end())
        inside, rest = _parenthesised(text, opening)
        if rest.text and not (rest.text.startswith("{") and rest.text.endswith("}")):
            raise Misread("expected attributes in braces", rest)
        op = OPS[name.text]
        operands = [self.operand(a) for a in inside.parts(",")]
        attributes = dict(self._attribute(item, op) for item in rest.cut(1, -1).parts(","))
        missing = [a for a in op.attrs if a not in attributes]
        if missing:
            raise Misread(f"{op.name}: attribute {missing[0]!r} is missing", rest if rest.text else rest.end())
        with reading(name, f"{op.name} does not take such operands and attributes"):
            return make(op, *operands, **attributes)

    def _attribute(self, item: Piece, op: Op) -> tuple[str, Any]:
        """`name=value`, where a value may be `@body0`."""
        name, spelled = item.halves("=")
        if spelled is None:
            raise Misread("expected `name=value`", item)
        if name.text not in op.attrs:
            there = near(name.text, op.attrs) or f"; there are {', '.join(op.attrs) or 'none'}"
            raise Misread(f"{op.name} has no attribute {name.text!r}{there}", name)
        if not spelled.text.startswith("@"):
            with reading(spelled):
                return name.text, value(spelled.text)
        body = spelled.text[1:]
        if body not in self.bodies:
            raise Misread(f"no body before this graph is called {body}{near(body, self.bodies)}", spelled)
        return name.text, self.bodies[body]

    def operand(self, text: Piece) -> Node:
        """A name, or a number with its dtype."""
        if text.text in self.known:
            return self.known[text.text]
        literal, colon, kind = text.text.rpartition(":")
        if colon and re.fullmatch(_TYPES, kind):
            with reading(text, f"{literal} is no {kind}"):
                return constant(scalar(literal, dtype(kind)))
        if colon:
            raise Misread(f"there is no dtype {kind}", text.cut(len(literal) + 1))
        if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text.text):
            raise Misread(f"a number needs its dtype, such as {text.text}:f32", text)
        raise Misread(f"{text.text or 'nothing'} is not defined{near(text.text, self.known)}", text)

    def finish(self, line: Piece) -> Graph:
        """`return outputs ; variable := value, …`."""
        outputs, *updates = line.cut(len("return")).parts(";")[:2] or [line.end()]
        pairs = [self._update(u) for part in updates for u in part.parts(",")]
        with reading(line):
            return verify(Graph(self.name, tuple(self.params), tuple(map(self.operand, outputs.parts(","))),
                                tuple(pairs)))

    def _update(self, text: Piece) -> tuple[Node, Node]:
        variable, new = text.halves(":=")
        if new is None:
            raise Misread("expected `variable := value`", text)
        return self.operand(variable), self.operand(new)


def value(text: str) -> Any:
    """An attribute."""
    if text in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text]
    if text.startswith("["):
        return tuple(value(v) for v in split_commas(text[1:-1]))
    if text.startswith("'"):
        return text[1:-1].replace("\\'", "'").replace("\\\\", "\\")
    if re.fullmatch(_TYPES, text):
        return dtype(text)
    if re.fullmatch(rf"({_TYPES})\[.*\]", text):
        return parse_type(text)
    array = _ARRAY.match(text)
    if array:
        return _array(array[2], dtype(array[1]))
    if re.fullmatch(r"[-+]?(\d+\.\d*(e[-+]?\d+)?|\d+e[-+]?\d+|inf|nan)", text):
        return float(text)
    return dims.parse(text)


def scalar(text: str, kind: DType) -> np.generic:
    """A number of a dtype."""
    if kind.is_bool:
        return np.bool_(text == "true")
    result: np.generic = kind.numpy.type(text if kind.is_float else int(text))
    return result


def _array(text: str, kind: DType) -> np.ndarray[Any, Any]:
    if text.startswith("[]("):
        return np.zeros([int(n) for n in text[3:-1].split("x")], kind.numpy)

    def nested(t: str) -> Any:
        return [nested(p) for p in split_commas(t[1:-1])] if t.startswith("[") else scalar(t, kind)
    return np.array(nested(text), kind.numpy)


def _parenthesised(text: Piece, opening: int) -> tuple[Piece, Piece]:
    """What stands in the parenthesis that opens at a place, and what follows it."""
    depth = 0
    for i, inner in outside_strings(text.text):
        if i == opening:
            depth = inner
        elif i > opening and inner < depth:
            return text.cut(opening + 1, i), text.cut(i + 1)
    raise Misread("this parenthesis is not closed", Piece("(", text.at + opening))


def _word(line: Piece) -> str:
    """What a line begins with."""
    match = re.match(r"\w+", line.text)
    return match[0] if match else ""


def _without_comment(line: str) -> str:
    """The line up to a `#` that follows a blank or begins it, and stands in no string."""
    end = next((i for i, _ in outside_strings(line) if line[i] == "#" and (i == 0 or line[i - 1].isspace())), None)
    return line[:end].rstrip()
