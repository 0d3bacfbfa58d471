"""Scalar functions that need a branch or a loop: LLVM functions that the code of `Lanes` calls.

They stand outside the kernels so that a kernel's own basic blocks stay whole.  Those of floats are short functions that
LLVM inlines: the common case in line, and a call of a cold function for the lanes beyond it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tensorc.codegen.cpu import vectormath_fmod as fmod
from tensorc.codegen.cpu import vectormath_integer as integer
from tensorc.codegen.cpu import vectormath_trig as trig
from tensorc.codegen.cpu.vectormath import Instructions
from tensorc.ir.types import DTYPES, DType

Body = Callable[[Instructions, list[str]], None]

BODIES: dict[str, tuple[int, str, Body]] = {
    "sin": (1, "alwaysinline", trig.sin),
    "cos": (1, "alwaysinline", trig.cos),
    "sin_far": (1, "noinline cold", trig.sin_far),
    "cos_far": (1, "noinline cold", trig.cos_far),
    "fmod": (2, "alwaysinline", fmod.fmod),
    "mod": (2, "alwaysinline", fmod.mod),
    "floordiv": (2, "alwaysinline", fmod.floordiv),
    "pow": (2, "noinline", integer.pow_by_squaring),
    "fmod_far": (2, "noinline cold", fmod.fmod_far),
}
"""Per function: its arity, its attributes, and what writes its body over the arguments %a, %b."""

_CALL = re.compile(r"call [^@\n]*@tc\.(\w+)\.(?:v(\d+))?(f32|f64|i8|i16|i32|i64)\(")


def library(text: str, fma: bool = True) -> str:
    """Definitions of the functions `@tc.…` that LLVM IR `text` calls, and of those that they call."""
    defined: dict[tuple[str, str, int], str] = {}
    waiting = list(_called(text))

    while waiting:
        key = waiting.pop()
        if key in defined:
            continue
        defined[key] = _definition(*key, fma=fma)
        waiting.extend(_called(defined[key]))

    parts = [defined[key] for key in sorted(defined)]
    if any("@tc.inverse_pi" in part for part in parts):
        parts.insert(0, trig.inverse_pi_table())
    return "\n".join(parts)


def _called(text: str) -> Iterator[tuple[str, str, int]]:
    for name, lanes, dtype in _CALL.findall(text):
        yield name, dtype, int(lanes or 1)


def _definition(name: str, dtype: str, n: int, fma: bool) -> str:
    arity, attributes, body = BODIES[name]
    lines: list[str] = []
    count = iter(range(1_000_000))
    o = Instructions(lines.append, lambda: f"%v{next(count)}", _dtype(dtype), n, fma)

    parameters = ", ".join(f"{o.T} %{p}" for p in "ab"[:arity])
    body(o, lines)
    head = f"define internal {o.T} @tc.{name}.{o.tag}({parameters}) {attributes} {{"
    return "\n".join([head, "entry:", *lines, "}", ""])


def _dtype(short: str) -> DType:
    return next(d for d in DTYPES if d.short == short)
