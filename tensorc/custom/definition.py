"""A definition as Python text that makes it again elsewhere: for scripts that repeat what a program did."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from tensorc.custom.fingerprint import python_of


def definition(name: str, defined: Any, maker: str) -> str:
    """The statements that define operation `name`, with what they read; a comment where the source cannot tell.

    Args:
        defined: the function or the class it was made of.
        maker: what made it, where that needs nothing but the function: `custom.op`, else nothing.
    """
    function = python_of(defined)
    parts = [] if function is None else [function]
    if isinstance(defined, type):
        parts = [f for member in vars(defined).values() if (f := python_of(member)) is not None]
    around = {k: v for f in parts for k, v in _read(f).items()}
    text = _source(name, defined, maker)
    if text is None:
        where = f", at {parts[0].__code__.co_filename}:{parts[0].__code__.co_firstlineno}" if parts else ""
        return f"# define {name} here as it was{where}\n"
    return "\n".join([*_needed(text, around, {name}), text])


def _read(function: Any) -> Mapping[str, Any]:
    """What the names in a function stand for."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {**function.__globals__, **{name: cell.cell_contents for name, cell in cells}}


def _source(name: str, defined: Any, maker: str) -> str | None:
    """The statement that makes the operation, decorator or assignment included; None where the source is another."""
    try:
        text = textwrap.dedent(inspect.getsource(defined))
        (statement,) = ast.parse(text).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if isinstance(statement, ast.Assign):
        return text
    if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return None
    if statement.decorator_list:
        return text
    return f"from tensorc import custom\n\n{text}\n{maker}({statement.name}, name={name!r})\n" if maker else None


def _needed(text: str, around: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    """Statements that define what the text reads."""
    nodes = list(ast.walk(ast.parse(text)))
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    bound |= {a.name for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in around and node.id not in known | bound:
            known.add(node.id)
            yield from _statement(node.id, around[node.id], known)


def _statement(name: str, value: Any, known: set[str]) -> Iterator[str]:
    if isinstance(value, ModuleType):
        yield f"import {value.__name__}" + f" as {name}" * (value.__name__ != name)
        return
    if all(isinstance(v, bool | int | float | str | None) for v in (value if isinstance(value, tuple) else (value,))):
        yield f"{name} = {value!r}"
        return
    inner = python_of(value)
    try:
        text = None if inner is None else textwrap.dedent(inspect.getsource(inner))
        ast.parse(text or "")
    except (OSError, SyntaxError):
        text = None
    if text is None or inner is None:
        yield f"# define {name} here as it was"
    else:
        yield from _needed(text, _read(inner), known)
        yield text
