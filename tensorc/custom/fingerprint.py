"""What a Python function does, as a digest: its code and all the code it reads.

It finds the compiled form of a function again without compiling it.  Where something is read whose meaning cannot be
told from here, there is no digest, and the function is compiled once in each process.
"""

from __future__ import annotations

import functools
import hashlib
import math
import sys
from collections.abc import Iterator
from importlib.metadata import version
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from tensorc.ir.types import numpy_kind

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), np.generic)
MODULES = ("math", "cmath", "operator", "numpy", "builtins")
"""Modules whose contents depend on their version alone."""


class _Unknown(Exception):
    """Something that a digest cannot cover."""


def digest(function: FunctionType) -> str | None:
    """A digest of what the function does; None where that depends on more than its code and plain values."""
    try:
        text = repr(list(_function(function, ())))
    except _Unknown:
        return None
    return hashlib.sha256(f"{_versions()}\0{text}".encode()).hexdigest()


@functools.cache
def _versions() -> str:
    """The versions of all that turns the code into something else."""
    return " ".join([sys.version, *(f"{name} {version(name)}" for name in ("numba", "llvmlite", "numpy"))])


def reads(function: FunctionType) -> dict[str, Any]:
    """The globals and the closed-over values that a function may read, by name."""
    found: dict[str, Any] = {}
    for name in _names(function.__code__):
        if name in function.__globals__:
            found[name] = function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found


def python_of(value: Any) -> FunctionType | None:
    """The Python function behind a function of Numba's or of Python's, else None."""
    inner = getattr(value, "py_func", value)
    return inner if isinstance(inner, FunctionType) else None


def _names(code: CodeType) -> Iterator[str]:
    """The names that code and the functions in it look up; attributes are among them."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _function(function: FunctionType, around: tuple[FunctionType, ...]) -> Iterator[Any]:
    if function in around:
        yield "itself", len(around) - around.index(function)
        return
    yield _code(function.__code__)
    yield _value(function.__defaults__, around), _value(function.__kwdefaults__, around)
    for name, value in sorted(reads(function).items()):
        yield name, _value(value, (*around, function))


def _code(code: CodeType) -> tuple[Any, ...]:
    """Code without the file and the lines where it stands."""
    return (code.co_code.hex(), code.co_exceptiontable, tuple(map(_constant, code.co_consts)), code.co_names,
            code.co_varnames, code.co_freevars, code.co_argcount, code.co_flags)


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, frozenset):
        return "set", sorted(map(_constant, value), key=repr)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    return type(value).__name__, repr(value)


def _value(value: Any, around: tuple[FunctionType, ...]) -> Any:
    if isinstance(value, PLAIN):
        return type(value).__name__, value.hex() if isinstance(value, float) else repr(value)
    if isinstance(value, tuple):
        return tuple(_value(v, around) for v in value)
    if isinstance(value, dict):
        return tuple((k, _value(v, around)) for k, v in sorted(value.items()))
    if isinstance(value, np.ndarray) and numpy_kind(value.dtype) in "biuf":
        return value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, ModuleType) and value.__name__ in MODULES:
        return "module", value.__name__
    name = getattr(value, "__name__", "")
    if isinstance(value, np.ufunc) or getattr(math, name, None) is value:
        return "function", name
    inner = python_of(value)
    if inner is None:
        raise _Unknown(value)
    options = getattr(value, "targetoptions", {})
    return tuple(_function(inner, around)), repr(sorted(options.items()))
