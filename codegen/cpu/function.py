"""An LLVM function while it is being written: known integers folded, loops and branches as blocks of Python.

    f = Function("define i64 @sum(ptr %x, i64 %n)")
    total = f.cell("i64", "0")
    with f.loop(0, "%n") as i:
        x = f.let(f"load i64, ptr {f.at('%x', i, 'i64')}")
        f.store("i64", f.let(f"add i64 {f.load('i64', total)}, {x}"), total)
    f.line(f"ret i64 {f.load('i64', total)}")

What changes in a loop lies in cells, which LLVM's `sroa` turns into registers; so no phi is written but the counters'.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

Int = int | str
"""An i64: a number known now, or an SSA name."""

Bit = bool | str
"""An i1: known now, or an SSA name."""


class Function:
    """The text of one function; `head` is its `define …` without the brace."""

    def __init__(self, head: str) -> None:
        self._head = head
        self._cells: list[str] = []
        self._lines: list[str] = []
        self._count = 0

    def text(self) -> str:
        return "\n".join([f"{self._head} {{", "entry:", *self._cells, *self._lines, "}", ""])

    # -- lines

    def line(self, text: str) -> None:
        self._lines.append(f"  {text}")

    def fresh(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def let(self, text: str) -> str:
        """A line `%fresh = text`."""
        name = self.fresh()
        self.line(f"{name} = {text}")
        return name

    # -- memory

    def cell(self, kind: str, value: str | None = None) -> str:
        """A variable of LLVM type `kind`, on the stack until `sroa` puts it into a register."""
        name = self.fresh()
        self._cells.append(f"  {name} = alloca {kind}")
        if value is not None:
            self.store(kind, value, name)
        return name

    def array(self, kind: str, count: int) -> str:
        """`count` elements on the stack, aligned to a cache line."""
        name = self.fresh()
        self._cells.append(f"  {name} = alloca [{count} x {kind}], align 64")
        return name

    def load(self, kind: str, pointer: str, align: int | None = None) -> str:
        return self.let(f"load {kind}, ptr {pointer}" + (f", align {align}" if align else ""))

    def store(self, kind: str, value: str, pointer: str, align: int | None = None) -> None:
        self.line(f"store {kind} {value}, ptr {pointer}" + (f", align {align}" if align else ""))

    def at(self, pointer: str, index: Int, kind: str) -> str:
        """The address of element `index` of an array of LLVM type `kind`."""
        return pointer if index == 0 else self.let(f"getelementptr {kind}, ptr {pointer}, i64 {index}")

    # -- integers, none negative

    def add(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if 0 in (a, b):
            return b if a == 0 else a
        return self.let(f"add nsw i64 {a}, {b}")

    def sub(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self.let(f"sub nsw i64 {a}, {b}")

    def mul(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if 0 in (a, b):
            return 0
        if 1 in (a, b):
            return b if a == 1 else a
        return self.let(f"mul nsw i64 {a}, {b}")

    def div(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int) and b:
            return a // b
        return a if b == 1 else self.let(f"udiv i64 {a}, {b}")

    def rem(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int) and b:
            return a % b
        return 0 if b == 1 else self.let(f"urem i64 {a}, {b}")

    def ceildiv(self, a: Int, b: int) -> Int:
        return self.div(self.add(a, b - 1), b)

    def floor_to(self, a: Int, step: int) -> Int:
        """The largest multiple of `step` that is not greater."""
        return self.mul(self.div(a, step), step)

    def product(self, *factors: Int) -> Int:
        total: Int = 1
        for factor in factors:
            total = self.mul(total, factor)
        return total

    def minimum(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.let(f"call i64 @llvm.smin.i64(i64 {a}, i64 {b})")

    def maximum(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.let(f"call i64 @llvm.smax.i64(i64 {a}, i64 {b})")

    # -- conditions

    def less(self, a: Int, b: Int) -> Bit:
        if isinstance(a, int) and isinstance(b, int):
            return a < b
        return self.let(f"icmp slt i64 {a}, {b}")

    def equal(self, a: Int, b: Int) -> Bit:
        if isinstance(a, int) and isinstance(b, int):
            return a == b
        return self.let(f"icmp eq i64 {a}, {b}")

    def negation(self, a: Bit) -> Bit:
        return not a if isinstance(a, bool) else self.let(f"xor i1 {a}, true")

    def both(self, a: Bit, b: Bit) -> Bit:
        if isinstance(a, bool):
            return b if a else False
        if isinstance(b, bool):
            return a if b else False
        return self.let(f"and i1 {a}, {b}")

    def either(self, a: Bit, b: Bit) -> Bit:
        if isinstance(a, bool):
            return True if a else b
        if isinstance(b, bool):
            return True if b else a
        return self.let(f"or i1 {a}, {b}")

    def select(self, condition: Bit, a: Int, b: Int) -> Int:
        if isinstance(condition, bool):
            return a if condition else b
        return a if a == b else self.let(f"select i1 {condition}, i64 {a}, i64 {b}")

    # -- control

    @contextmanager
    def loop(self, start: Int, stop: Int, step: Int = 1) -> Iterator[str]:
        """The body for i = start, start + step, … < stop."""
        self._count += 1
        q = self._count
        self.line(f"br label %before{q}")
        self._label(f"before{q}")
        self.line(f"%enter{q} = icmp slt i64 {start}, {stop}")
        self.line(f"br i1 %enter{q}, label %body{q}, label %after{q}")
        self._label(f"body{q}")
        self.line(f"%i{q} = phi i64 [{start}, %before{q}], [%next{q}, %latch{q}]")

        yield f"%i{q}"

        self.line(f"br label %latch{q}")
        self._label(f"latch{q}")
        self.line(f"%next{q} = add nuw nsw i64 %i{q}, {step}")
        self.line(f"%again{q} = icmp slt i64 %next{q}, {stop}")
        self.line(f"br i1 %again{q}, label %body{q}, label %after{q}")
        self._label(f"after{q}")

    @contextmanager
    def when(self, condition: Bit) -> Iterator[None]:
        """The body if the condition holds."""
        if condition is True:
            yield
            return

        self._count += 1
        q = self._count
        self.line(f"br i1 {self.bit(condition)}, label %then{q}, label %end{q}")
        self._label(f"then{q}")
        yield
        self.line(f"br label %end{q}")
        self._label(f"end{q}")

    def bit(self, condition: Bit) -> str:
        """The condition as an operand."""
        return str(condition).lower() if isinstance(condition, bool) else condition

    def _label(self, name: str) -> None:
        self._lines.append(f"{name}:")
