"""Builtins that bind a call's arrays and run a program, in a tenth of a microsecond each.

They serve the usual call.  Whatever is unusual, a list of lists, another dtype, a transposed array, they decline, and
Python code that can convert and explain takes over.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import sysconfig
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc.codegen.cpu import stub
from tensorc.codegen.cpu.compile import Library, load
from tensorc.codegen.cpu.program import Loaded
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import TensorType
from tensorc.runtime.images import image

Binder = Callable[[tuple[Any, ...], int, int], bool]
Runner = Callable[[int, int, int], None]

METH_O, METH_FASTCALL = 0x08, 0x80

CONVENTIONS = {"tc_bind": METH_FASTCALL, "tc_call": METH_FASTCALL, "tc_direct": METH_O}
"""How CPython calls each builtin."""

_loaded: Library | None = None
_loading = threading.Lock()


class Record(ctypes.Structure):
    """What the builtins know of an array."""

    _fields_ = [
        ("dtype", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("sizes", ctypes.c_void_p),
        ("external", ctypes.c_int64),
    ]


class _Signature(ctypes.Structure):
    _fields_ = [
        ("tuple_type", ctypes.c_void_p),
        ("array_type", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("inputs", ctypes.c_void_p),
    ]


class _MethodDefinition(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


@dataclass(frozen=True)
class Signature:
    """What the inputs of a call must be, as the builtins read it.

    Attributes:
        address: of its record.
        symbols: of the table of sizes, in its order.
        held: what the record refers to.
    """

    address: int
    symbols: tuple[str, ...]
    held: tuple[Any, ...]


def signature(inputs: Sequence[TensorType], externals: Sequence[int], symbols: Sequence[str],
              least: Mapping[str, int] | None = None) -> Signature | None:
    """The signature of a call.

    Args:
        inputs: the type of each input; its sizes are numbers or single symbols.
        externals: the place of each input in the table of externals.
        symbols: the symbols of the table of sizes, in its order.
        least: what symbols may not be less than.

    Returns: None where a size is a formula, or where this Python or NumPy lays its objects out in an unknown way.
    """
    words = size_words(inputs, symbols, least or {})
    if words is None or not layout_is_known():
        return None
    records, *rest = described(inputs, words, externals)
    table = (Record * len(inputs))(*records)
    whole = _Signature(id(tuple), id(np.ndarray), len(inputs), ctypes.addressof(table))
    return Signature(ctypes.addressof(whole), tuple(symbols), (whole, table, rest))


def described(types: Sequence[TensorType], words: Sequence[Sequence[int]],
              externals: Sequence[int]) -> tuple[list[Record], list[Any], list[Any]]:
    """The record of each array, and what these refer to."""
    tables = [(ctypes.c_int64 * len(row))(*row) for row in words]
    dtypes = [each.dtype.numpy for each in types]
    records = [
        Record(id(dtype), each.rank, ctypes.addressof(table), external)
        for each, dtype, table, external in zip(types, dtypes, tables, externals, strict=True)
    ]
    return records, tables, dtypes


def binder(inputs: Signature) -> Binder:
    """A builtin that binds the inputs of a call.

    Returns: `bind(arrays, externals, sizes)`, which takes a tuple and the addresses of both tables, and tells whether
        the arrays fit; if not, the tables hold anything.  It keeps no array alive.
    """
    bind: Binder = builtin("tc_bind", (inputs.address, None, inputs))
    return bind


def runner(loaded: Loaded) -> Runner | None:
    """A builtin `run(externals, sizes, arena)` like that of `loaded`, with a third of its overhead, or None."""
    if not layout_is_known():
        return None
    held = (loaded.library.address("run"), None, loaded)
    run: Runner = builtin("tc_call", held)
    return run


@functools.cache
def layout_is_known() -> bool:
    """Whether objects of this Python and arrays of this NumPy lie in memory as the builtins expect."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    if object.__basicsize__ != 16 or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False

    whole = np.zeros((3, 5), np.float32)
    return _is_laid_out(whole, flags=0x101) and _is_laid_out(whole[:, ::2], flags=0x100)


def _is_laid_out(array: np.ndarray[Any, Any], flags: int) -> bool:
    """Whether the fields of `array` lie where NumPy 2.0 has them."""
    def field(offset: int) -> int:
        return ctypes.c_uint64.from_address(id(array) + offset).value

    if field(8) != id(np.ndarray) or field(56) != id(array.dtype) or field(16) != array.ctypes.data:
        return False
    if field(24) & 0xFFFFFFFF != array.ndim or field(64) & 0x101 != flags:
        return False

    shape = (ctypes.c_int64 * array.ndim).from_address(field(32))
    return bool(tuple(shape) == array.shape)


def size_words(types: Sequence[TensorType], symbols: Sequence[str], least: Mapping[str, int], *,
               are_bound: bool = False) -> list[list[int]] | None:
    """What says what each size may be, two words each; None where a size is more than a number or a symbol.

    Args:
        are_bound: whether all symbols have their values already; else each gets it where it stands first.
    """
    known = {dims.symbol(name): number for number, name in enumerate(symbols)}
    seen: set[Size] = set(known) if are_bound else set()
    words: list[list[int]] = []

    for each in types:
        row: list[int] = []
        for size in each.shape:
            if isinstance(size, int):
                row += [size, 0]
            elif size in known:
                row += [-1 - 2 * known[size] - (size in seen), least.get(str(size), 0)]
                seen.add(size)
            else:
                return None
        words.append(row)
    return words


def builtin(name: str, held: tuple[Any, ...]) -> Any:
    """A builtin whose code is `name` and whose `self` is `held`."""
    create = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    return create(ctypes.addressof(_definition(name)), held, None)


@functools.cache
def _definition(name: str) -> _MethodDefinition:
    """CPython's record of a builtin, which must outlive every builtin made from it."""
    return _MethodDefinition(name.encode(), _library().address(name), CONVENTIONS[name], None)


def preload() -> None:
    """Loads the builtins' code, if it is not yet loaded."""
    _library()


def _library() -> Library:
    """The builtins' code, loaded once for all programs."""
    global _loaded
    with _loading:
        if _loaded is None:
            python = {
                name: ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
                for name in stub.PYTHON_SYMBOLS
            }
            _loaded = load(image("call", stub.emit_stub), stub.EXPORTS, python)
    return _loaded
