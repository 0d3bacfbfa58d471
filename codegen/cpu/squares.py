"""Squares of vectors, transposed in registers."""

from __future__ import annotations

from collections.abc import Sequence

from tensorc.codegen.cpu.function import Function


def transposed_square(f: Function, kind: str, rows: Sequence[str]) -> list[str]:
    """The transpose of as many vectors of LLVM type `kind` as it has lanes, in log2(lanes) rounds that exchange ever
    larger parts of two rows."""
    rows = list(rows)
    lanes = len(rows)
    span = 1
    while span < lanes:
        upper = [q - span + lanes if q & span else q for q in range(lanes)]
        lower = [q + lanes if q & span else q + span for q in range(lanes)]
        for i in range(lanes):
            if not i & span:
                above, below = rows[i], rows[i + span]
                rows[i] = _shuffle(f, kind, above, below, upper)
                rows[i + span] = _shuffle(f, kind, above, below, lower)
        span *= 2
    return rows


def _shuffle(f: Function, kind: str, a: str, b: str, lanes: Sequence[int]) -> str:
    picked = ", ".join(f"i32 {q}" for q in lanes)
    return f.let(f"shufflevector {kind} {a}, {kind} {b}, <{len(lanes)} x i32> <{picked}>")
