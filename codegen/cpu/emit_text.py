"""Writing LLVM IR text: lines, places in it that stay open, fresh names, integer arithmetic, counted loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Known: TypeAlias = int | str
"""An i64: a number known now, or the name of a value."""

Lines: TypeAlias = "list[str | Lines]"
"""Text with open places: a list inside stands where it was put, and may still grow."""


def flatten(lines: Lines) -> str:
    """The text of nested lines."""
    out: list[str] = []

    def visit(inner: Lines) -> None:
        for x in inner:
            if isinstance(x, str):
                out.append(x)
            else:
                visit(x)

    visit(lines)
    return "\n".join(out)


def numbers(scalar: str, values: Iterator[int] | range | list[int]) -> str:
    """A vector literal."""
    return "<" + ", ".join(f"{scalar} {v}" for v in values) + ">"


class Text:
    """The body of one function under construction.

    Attributes:
        mark: a comment behind each line that is written, empty unless somebody wants to know where lines come from.
    """

    def __init__(self) -> None:
        self.lines: Lines = []
        self.count = 0
        self.mark = ""

    def line(self, text: str) -> None:
        self.lines.append(text + self.mark)

    def fresh(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def let(self, text: str) -> str:
        """A line `%v = text`; the name it defines."""
        name = self.fresh()
        self.lines.append(f"  {name} = {text}{self.mark}")
        return name

    def slot(self) -> Lines:
        """A place here that can still be written to later."""
        place: Lines = []
        self.lines.append(place)
        return place

    @contextmanager
    def into(self, slot: Lines) -> Iterator[None]:
        """Lines go to the end of a slot."""
        lines, self.lines = self.lines, slot
        try:
            yield
        finally:
            self.lines = lines

    # -- i64 arithmetic, done now where both sides are known

    def add(self, a: Known, b: Known) -> Known:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0 or b == 0:
            return b if a == 0 else a
        return self.let(f"add i64 {a}, {b}")

    def sub(self, a: Known, b: Known) -> Known:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self.let(f"sub i64 {a}, {b}")

    def mul(self, a: Known, b: Known) -> Known:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1 or b == 1:
            return b if a == 1 else a
        return self.let(f"mul i64 {a}, {b}")

    def divide(self, a: Known, b: Known) -> Known:
        """a // b for a >= 0, b > 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        return a if b == 1 else self.let(f"udiv i64 {a}, {b}")

    def lower(self, a: Known, b: Known) -> Known:
        return self._extreme(min, "smin", a, b)

    def higher(self, a: Known, b: Known) -> Known:
        return self._extreme(max, "smax", a, b)

    def _extreme(self, pick: Callable[[int, int], int], name: str, a: Known, b: Known) -> Known:
        if isinstance(a, int) and isinstance(b, int):
            return pick(a, b)
        return self.let(f"call i64 @llvm.{name}.i64(i64 {a}, i64 {b})")

    def choose(self, condition: str, a: Known, b: Known) -> Known:
        return self.let(f"select i1 {condition}, i64 {a}, i64 {b}")

    # -- vectors

    def splat(self, scalar: str, x: Known, n: int) -> str:
        """A scalar of an LLVM type in all of n lanes."""
        if n == 1:
            return str(x)
        if isinstance(x, int):
            return f"splat ({scalar} {x})"
        first = self.let(f"insertelement <{n} x {scalar}> poison, {scalar} {x}, i32 0")
        return self.shuffle(f"<{n} x {scalar}>", first, "poison", [0] * n)

    def shuffle(self, vector: str, a: str, b: str, order: list[int]) -> str:
        """The lanes of a and b, counted on, in the order told."""
        lanes = numbers("i32", order)
        return self.let(f"shufflevector {vector} {a}, {vector} {b}, <{len(order)} x i32> {lanes}")

    # -- control

    def loop(self, low: Known, high: Known, step: int, body: Callable[[Any], Any]) -> None:
        """body(i) for i from low in steps while i < high; a single iteration that is known needs no loop."""
        if isinstance(low, int) and isinstance(high, int) and high <= low + step:
            if low < high:
                body(low)
            return
        self.count += 1
        q = self.count
        self.line(f"  br label %before{q}")
        self.line(f"before{q}:")
        self.line(f"  %enter{q} = icmp slt i64 {low}, {high}")
        self.line(f"  br i1 %enter{q}, label %body{q}, label %after{q}")
        self.line(f"body{q}:")
        self.line(f"  %at{q} = phi i64 [{low}, %before{q}], [%next{q}, %end{q}]")
        body(f"%at{q}")
        self.line(f"  br label %end{q}")
        self.line(f"end{q}:")
        self.line(f"  %next{q} = add nuw nsw i64 %at{q}, {step}")
        self.line(f"  %again{q} = icmp slt i64 %next{q}, {high}")
        self.line(f"  br i1 %again{q}, label %body{q}, label %after{q}")
        self.line(f"after{q}:")
