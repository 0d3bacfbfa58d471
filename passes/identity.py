"""What a user's pass is, as a text for the keys of compiled programs: it differs where what the pass does may differ.

A pass is known by the `version` that its author gives it, and by all of it that can be seen besides: the code of its
functions, what these take from their own package or close over, and the values that an instance holds.
"""

from __future__ import annotations

import dis
import hashlib
from collections.abc import Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from tensorc import ops
from tensorc.ir.dims import Dim
from tensorc.ir.node import Op
from tensorc.ir.types import DType, TensorType
from tensorc.passes.context import Pass
from tensorc.passes.rewrite import Rewrite

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), Op, DType, TensorType, Dim)
MADE = {"name", "patterns", "_check", "_build"}      # of a rewrite's attributes, those that follow from its class


class _Unknown(Exception):
    """Something that has no text which would tell it from others."""


def identity_of(thing: Pass | Rewrite) -> str | None:
    """A text for a pass or a rewrite; None where it carries no version, or holds what cannot be told."""
    version = getattr(thing, "version", None)
    if version is None:
        return None
    kind = thing if hasattr(thing, "__name__") else type(thing)
    try:
        told = _Telling(kind.__module__).told(thing, frozenset())
    except _Unknown:
        return None
    return f"{kind.__module__}.{kind.__name__} {version} {hashlib.sha256(told.encode()).hexdigest()}"


class _Telling:
    """Tells what things are.  What is not of the package of `module` is told by its name alone."""

    def __init__(self, module: str) -> None:
        self.package = module.partition(".")[0]

    def told(self, value: Any, around: frozenset[int]) -> str:
        """A value as text.  `around` are the ids of what is being told, for what refers to itself."""
        if isinstance(value, Op) and getattr(ops, value.name, None) is not value:
            raise _Unknown                           # an operation of a user's, of which its name says too little
        if isinstance(value, PLAIN):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, BuiltinFunctionType | np.ufunc):
            return f"builtin {value.__name__}"
        if id(value) in around:
            return "itself"
        around |= {id(value)}
        if isinstance(value, tuple | list):
            return f"({', '.join(self.told(v, around) for v in value)})"
        if isinstance(value, set | frozenset):
            return f"{{{', '.join(sorted(self.told(v, around) for v in value))}}}"
        if isinstance(value, Mapping):
            pairs = (f"{self.told(k, around)}: {self.told(v, around)}" for k, v in value.items())
            return f"{{{', '.join(pairs)}}}"
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind != "O":
            return f"array {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
        if isinstance(value, CodeType):
            return f"code {value.co_code.hex()} {value.co_names} {self.told(value.co_consts, around)}"
        if isinstance(value, FunctionType):
            return self.function(value, around)
        if isinstance(value, MethodType):
            return f"{self.told(value.__func__, around)} of {self.told(value.__self__, around)}"
        if isinstance(value, staticmethod | classmethod):
            return self.told(value.__func__, around)
        if isinstance(value, property):
            return self.told((value.fget, value.fset), around)
        if isinstance(value, type):
            return self.kind(value, around)
        return self.instance(value, around)

    def function(self, function: FunctionType, around: frozenset[int]) -> str:
        """Its code, its own attributes, what it closes over, and what it takes from its module."""
        if self.is_foreign(function):
            return f"function {function.__module__}.{function.__qualname__}"
        closed = {name: _content(cell) for name, cell in
                  zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)}
        taken = {n: function.__globals__[n] for n in _names(function.__code__) if n in function.__globals__}
        parts = (function.__code__, function.__defaults__, function.__kwdefaults__, vars(function), closed, taken)
        return f"function {self.told(parts, around)}"

    def kind(self, kind: type, around: frozenset[int]) -> str:
        """A class: its own attributes, and the classes it is made from."""
        if self.is_foreign(kind):
            return f"class {kind.__module__}.{kind.__qualname__}"
        own = {k: v for k, v in vars(kind).items() if k in ("__init__", "__call__") or not k.startswith("__")}
        return f"class {kind.__qualname__} {self.told(own, around)} {self.told(kind.__bases__, around)}"

    def instance(self, value: Any, around: frozenset[int]) -> str:
        """An object: its class, and what it holds.  Raises _Unknown where that cannot be seen."""
        if not hasattr(value, "__dict__") or self.is_foreign(type(value)):
            raise _Unknown
        held = {k: v for k, v in vars(value).items() if not (isinstance(value, Rewrite) and k in MADE)}
        return f"instance {self.told(type(value), around)} {self.told(held, around)}"

    def is_foreign(self, thing: Any) -> bool:
        return (thing.__module__ or "").partition(".")[0] != self.package


def _names(code: CodeType) -> list[str]:
    """The names that a function, and what is defined in it, looks up in its module."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return sorted(own.union(*(_names(c) for c in code.co_consts if isinstance(c, CodeType))))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None
