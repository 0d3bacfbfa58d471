"""Errors for the person who reads them: the call, its operands with their shapes and lines, the user's line."""

from __future__ import annotations

import inspect
import linecache
import re
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np

from tensorc.backend.config import floatx
from tensorc.backend.handle import Handle
from tensorc.errors import DTypeError, TensorcError
from tensorc.ir.dims import Size
from tensorc.ir.graph import Location

_ASSIGNMENT = re.compile(r"\s*(\w+)\s*=[^=]")
_SERIAL = re.compile(r"__\d+\b")


def complain(error: TensorcError, call: str, function: Callable[..., Any], args: Sequence[Any],
             kwargs: Mapping[str, Any], frame: FrameType) -> TensorcError:
    """An error of the same class that tells the whole story.

    The first line of the text below says what is wrong; further lines are advice and come after the operands.
    """
    if getattr(error, "complete", False):
        return error
    what, _, advice = str(error).partition("\n")
    if isinstance(error, DTypeError) and what.startswith("takes "):
        advice = advice or f"K.cast(x, {floatx()!r}) changes the dtype"
    where = Location(frame.f_code.co_filename, frame.f_lineno, call)
    lines = [
        f"{call}: {readable(what.removeprefix(f'{call}: '))}",
        *operand_lines(arguments(function, args, kwargs)),
        *(f"  {readable(line.strip())}" for line in advice.splitlines()),
        f"  raised {_building(where)}at {where}",
    ]
    told = type(error)("\n".join(lines))
    setattr(told, "complete", True)  # noqa: B010  (exceptions take attributes, their types do not say so)
    return told


def arguments(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The arguments given, each with its parameter's name; of a list that holds tensors, each element."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    named: list[tuple[str, Any]] = []
    for name, value in bound.arguments.items():
        if isinstance(value, list | tuple) and any(isinstance(v, Handle | np.ndarray) for v in value):
            named.extend((f"{name}[{i}]", v) for i, v in enumerate(value))
        else:
            named.append((name, value))
    return named


def operand_lines(named: Sequence[tuple[str, Any]]) -> list[str]:
    """One aligned line for each argument: `    x = images   float32 (n, 784)      train.py:12`."""
    rows = []
    for name, value in named:
        if isinstance(value, Handle):
            origin = value.origin
            label = value.given_name or (origin.call if origin else value.name)
            kind = f"{'sparse ' if value.sparse else ''}{value.dtype}"
            rows.append((f"{name} = {label}", f"{kind} {shape_text(value.sizes)}",
                         str(origin.location) if origin else ""))
        elif isinstance(value, np.ndarray):
            rows.append((f"{name} = array", f"{value.dtype} {value.shape}", ""))
        else:
            rows.append((f"{name} = {_brief(value)}", "", ""))

    left = max((len(r[0]) for r in rows), default=0)
    middle = max((len(r[1]) for r in rows), default=0)
    return [f"    {a:{left}}   {b:{middle}}   {c}".rstrip() for a, b, c in rows]


def shape_text(sizes: Sequence[Size]) -> str:
    """(n, 784): symbols by the name that their placeholder gave them."""
    return readable("(" + ", ".join(map(str, sizes)) + ("," if len(sizes) == 1 else "") + ")")


def readable(text: str) -> str:
    """Text without the serial numbers that keep symbols apart."""
    return _SERIAL.sub("", text)


def _brief(value: object) -> str:
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _building(where: Location) -> str:
    """`while building `logits` `, where the user's line assigns a name."""
    found = _ASSIGNMENT.match(linecache.getline(where.file, where.line))
    return f"while building `{found[1]}` " if found else ""
