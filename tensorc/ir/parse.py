"""Text to graphs: the other direction of tensorc.ir.text.  Errors give line, column and a caret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tensorc.errors import IRError, TensorcError
from tensorc.ir import dims
from tensorc.ir.graph import BODY, Graph, verify
from tensorc.ir.node import OPS, Node, constant, make
from tensorc.ir.types import DTYPES, DType, dtype, parse_type, split_commas

_TYPES = "|".join(d.short for d in DTYPES)
_HEAD = re.compile(r"(graph|body)\s+([A-Za-z_]\w*)\s*\((.*)\)\s*$")
_LINE = re.compile(r"(%\w+)\s*(?::\s*(\w+\[[^=]*\])\s*)?=\s*([A-Za-z_]\w*)\((.*)$")
_ARRAY = re.compile(r"([a-z]+\d*)(\[.*)$", re.DOTALL)


def parse(text: str) -> list[Graph]:
    """Every graph in the text, verified.  Raises IRError with line, column and a caret."""
    import tensorc.ops  # noqa: F401  (fills OPS)

    graphs: list[Graph] = []
    bodies: dict[str, Graph] = {}
    open_graph: _Reader | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = _without_comment(raw)
        if not line.strip():
            continue
        try:
            if line.lstrip().startswith(("graph", "body")):
                if open_graph is not None:
                    raise IRError("the graph before this one has no return")
                open_graph = _Reader(line.strip(), bodies)
            elif open_graph is None:
                raise IRError("expected `graph name(parameters)`")
            elif line.strip().startswith("return"):
                graph = open_graph.finish(line.strip())
                if open_graph.is_body:
                    bodies[open_graph.name] = replace(graph, name=BODY)
                else:
                    graphs.append(graph)
                open_graph = None
            else:
                open_graph.node(line.strip())
        except (TensorcError, ValueError, TypeError, KeyError) as error:
            raise _pointing(error, number, raw) from None
    if open_graph is not None:
        raise IRError(f"line {len(text.splitlines())}: graph {open_graph.name} has no return")
    return graphs


class _Reader:
    """One graph being read: names known so far, and the bodies read before it."""

    def __init__(self, head: str, bodies: Mapping[str, Graph]) -> None:
        match = _HEAD.match(head)
        if match is None:
            raise IRError("expected `graph name(parameters)`")
        self.is_body, self.name = match[1] == "body", match[2]
        self.bodies = bodies
        self.known: dict[str, Node] = {}
        self.params: list[Node] = []
        inputs, _, others = match[3].partition(";")
        for item in [*split_commas(inputs), *split_commas(others)]:
            label, colon, rest = item.partition(":")
            role, _, type = rest.strip().rpartition(" ")
            if not colon:
                raise IRError(f"expected `name: type`, got {item!r}")
            node = make(OPS["parameter"], name=label.strip(), role=role.strip() or "input", uid=0,
                        type=parse_type(type))
            self.known[label.strip()] = node
            self.params.append(node)

    def node(self, line: str) -> None:
        """`%0: type = op(operands) {attributes}`."""
        match = _LINE.match(line.partition("  @ ")[0].rstrip())
        if match is None:
            raise IRError("expected `%name: type = op(operands) {attributes}`")
        label, type, name, rest = match.groups()
        end = _closing(rest)
        attrs = rest[end + 1:].strip()
        if name not in OPS:
            raise IRError(f"no op is called {name}")
        if attrs and not (attrs.startswith("{") and attrs.endswith("}")):
            raise IRError(f"expected attributes in braces, got {attrs!r}")
        pairs = (item.partition("=") for item in split_commas(attrs[1:-1]))
        node = make(OPS[name], *(self.operand(a) for a in split_commas(rest[:end])),
                    **{k.strip(): self.attribute(v.strip()) for k, _, v in pairs})
        if type is not None and parse_type(type) != node.type:
            raise IRError(f"{name} gives {node.type}, the text says {type.strip()}")
        self.known[label] = node

    def attribute(self, text: str) -> Any:
        """`@body0`, or a value."""
        if not text.startswith("@"):
            return value(text)
        if text[1:] not in self.bodies:
            raise IRError(f"no body before this graph is called {text[1:]}")
        return self.bodies[text[1:]]

    def operand(self, text: str) -> Node:
        if text in self.known:
            return self.known[text]
        literal, colon, kind = text.rpartition(":")
        if colon and re.fullmatch(_TYPES, kind):
            return constant(scalar(literal, dtype(kind)))
        raise IRError(f"{text} is not defined")

    def finish(self, line: str) -> Graph:
        """`return outputs ; variable := value, …`."""
        outputs, _, updates = line.removeprefix("return").partition(";")
        pairs = [u.partition(":=") for u in split_commas(updates)]
        return verify(Graph(self.name, tuple(self.params), tuple(map(self.operand, split_commas(outputs))),
                            tuple((self.operand(v.strip()), self.operand(new.strip())) for v, _, new in pairs)))


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


def _closing(text: str) -> int:
    """Where the parenthesis opened before `text` closes."""
    depth = 1
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if depth == 0:
            return i
    raise IRError("a parenthesis is not closed")


def _without_comment(line: str) -> str:
    return re.split(r"(?:^|\s)#", line, maxsplit=1)[0].rstrip()


def _pointing(error: Exception, number: int, line: str) -> IRError:
    """The error with its place; the caret stands under the first word of the message that the line contains."""
    message = str(error.args[0]) if error.args else str(error)
    words = [re.escape(word) for each in message.split() if (word := each.strip("`'\",:;"))]
    found = filter(None, (re.search(rf"(?<!\w){word}(?!\w)", line) for word in words))
    column = next((match.start() for match in found), len(line) - len(line.lstrip()))
    return IRError(f"line {number}, column {column + 1}: {message}\n    {line}\n    {' ' * column}^")
