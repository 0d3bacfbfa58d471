"""The grammar on the page about the graph's text describes what is printed and read."""

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tensorc.errors import IRError
from tensorc.ir.closing import close
from tensorc.ir.parse import parse
from tensorc.ir.text import dump
from tensorc.ir.types import DTYPES
from tensorc.passes.pipeline import default
from tensorc.testing.grow import grow

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "ir.md").read_text(encoding="utf-8")
TOKEN = re.compile(r'\s*("[^"]*"|/(?:\\.|[^/\\])*/|\w+|[\[\]{}()|])')


class Grammar:
    """Rules as on the page; of alternatives the first that fits is taken."""

    def __init__(self, text: str) -> None:
        self.rules: dict[str, Any] = {}
        for line in text.strip().splitlines():
            name, _, rule = line.partition("=")
            self.tokens = TOKEN.findall(rule)
            assert "".join(self.tokens) == re.sub(r"\s", "", rule) or "/  @" in rule, line
            self.rules[name.strip()] = self.alternatives()
            assert not self.tokens, line

    def alternatives(self) -> Any:
        found = [self.sequence()]
        while self.tokens[:1] == ["|"]:
            self.tokens.pop(0)
            found.append(self.sequence())
        return ("any", found)

    def sequence(self) -> Any:
        found = []
        while self.tokens and self.tokens[0] not in "|)]}":
            token = self.tokens.pop(0)
            if token in "([{":
                inner = self.alternatives()
                assert self.tokens.pop(0) == {"(": ")", "[": "]", "{": "}"}[token]
                found.append(({"(": "one", "[": "maybe", "{": "many"}[token], inner))
            else:
                found.append(token)
        return ("all", found)

    def accepts(self, text: str) -> bool:
        lines = [re.split(r"(?:^|\s)#", line, maxsplit=1)[0].rstrip() for line in text.splitlines()]
        text = "".join(f"{line}\n" for line in lines if line.strip())
        return any(end == len(text) for end in self.ends(self.rules["file"], text, 0))

    def ends(self, rule: Any, text: str, at: int) -> Iterator[int]:
        """Where text that fits a rule may end."""
        if isinstance(rule, str):
            yield from self.token(rule, text, at)
            return
        kind, inner = rule
        if kind == "any":
            for choice in inner:
                yield from self.ends(choice, text, at)
        elif kind == "all":
            yield from self.all(inner, text, at)
        elif kind == "one":
            yield from self.ends(inner, text, at)
        elif kind == "maybe":
            yield from self.ends(inner, text, at)
            yield at
        else:
            reached = [at]
            while True:
                further = next(iter(self.ends(inner, text, reached[-1])), None)
                if further is None or further == reached[-1]:
                    break
                reached.append(further)
            yield from reversed(reached)

    def all(self, parts: list[Any], text: str, at: int) -> Iterator[int]:
        if not parts:
            yield at
            return
        for end in self.ends(parts[0], text, at):
            yield from self.all(parts[1:], text, end)

    def token(self, token: str, text: str, at: int) -> Iterator[int]:
        if token in self.rules:
            yield from self.ends(self.rules[token], text, at)
            return
        assert token[0] in '"/', f"{token} is not in the grammar"
        pattern = re.escape(token[1:-1]) if token[0] == '"' else token[1:-1]
        if not pattern.startswith(" "):
            at = re.compile(r"[ \t]*").match(text, at).end()      # type: ignore[union-attr]
        match = re.compile(pattern).match(text, at)
        if match:
            yield match.end()


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    (text,) = re.findall(r"^```ebnf\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return Grammar(text)


EXAMPLES = re.findall(r"^```ir\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_are_graphs_and_come_back_as_they_are(text: str, grammar: Grammar) -> None:
    (graph,) = parse(text)
    assert dump(graph).split() == re.sub(r"#.*", "", text).split()
    assert parse(dump(graph)) == [graph]
    assert grammar.accepts(text)


def test_it_describes_what_is_printed(grammar: Grammar) -> None:
    texts = []
    for seed in range(40):
        g = grow(Random(seed), 20)
        graph = close("f", g.inputs, g.outputs, g.updates).graph
        texts += [dump(graph), dump(default().run(graph))]
    for path in sorted((ROOT / "tests" / "golden").rglob("*.txt")):
        text = path.read_text(encoding="utf-8")
        try:
            found = parse(text)
        except IRError:
            continue
        texts += [text] if found else []
    assert len(texts) > 90
    assert [text for text in texts if not grammar.accepts(text)] == []


@pytest.mark.parametrize("wrong", [
    "graph f(x: f32[n])", "graph f(x: f32[n]\n  return x", "graph f(x: f33[n])\n  return x",
    "graph f(x: f32[n])\n  %0 = add(x x)\n  return %0", "graph f(x: f32[n])\n  %0 = add(x, x) {a}\n  return %0",
    "graph f(x: f32[n])\n  y = add(x, x)\n  return y", "graph f(x: f32[n])\n  return x ; x = x",
    "graph f(x: f32[n-])\n  return x", "graph f(x: f32[n])\n  return 1", "%0 = add(x, x)",
])
def test_what_it_refuses_is_refused(wrong: str, grammar: Grammar) -> None:
    assert not grammar.accepts(wrong + "\n")
    with pytest.raises(IRError):
        parse(wrong)


def test_it_knows_every_dtype(grammar: Grammar) -> None:
    for dtype in DTYPES:
        for name in (dtype.name, dtype.short):
            assert grammar.accepts(f"graph f(x: {name}[2])\n  return x\n"), name
