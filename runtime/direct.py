"""Whole calls by one builtin, where a call needs nothing else of Python: the usual call on a few numbers."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tensorc.codegen.cpu.program import Loaded
from tensorc.ir.types import TensorType
from tensorc.runtime import fastcall
from tensorc.runtime.memory import POOLED
from tensorc.runtime.variable import Cell

Array = np.ndarray[Any, Any]
Direct = Callable[[tuple[Any, ...]], list[Array] | None]

TABLES = 512
"""Words that the tables of a call may take on the stack."""

ABI = 0x2000000
"""NumPy's, for which a place in the table of its C API means what it means here."""
GET_VERSION, EMPTY = 0, 184


class _Objects:
    """A table of objects, and its address."""

    def __init__(self, objects: Iterable[Any]) -> None:
        self._objects = tuple(objects)
        self._table = (ctypes.c_void_p * len(self._objects))(*map(id, self._objects))
        self.address = ctypes.addressof(self._table)


class _Result(ctypes.Structure):
    _fields_ = [("array", fastcall.Record), ("limit", ctypes.c_int64)]


class _Direct(ctypes.Structure):
    _fields_ = [
        ("signature", ctypes.c_void_p),
        ("none", ctypes.c_void_p),
        ("externals", ctypes.c_void_p),
        ("externals_count", ctypes.c_int64),
        ("symbols", ctypes.c_int64),
        ("results_count", ctypes.c_int64),
        ("results", ctypes.c_void_p),
        ("ranks", ctypes.c_int64),
        ("empty", ctypes.c_void_p),
        ("locks", ctypes.c_int64),
        ("acquire", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("elsewhere", ctypes.c_void_p),
        ("run", ctypes.c_void_p),
        ("arena_bytes", ctypes.c_void_p),
    ]


def declined(values: tuple[Any, ...]) -> None:
    """In place of a builtin where every call takes a closer look."""


def direct(inputs: fastcall.Signature, results: Sequence[TensorType], first: int, externals: ctypes.Array[Any],
           locks: Sequence[Any], loaded: Loaded) -> Direct:
    """A builtin that makes a whole call: from a tuple of arrays to the list of results.

    Args:
        results: their types; they follow one another in the table of externals.
        first: the place of the first one there.
        externals: the table as a call finds it, with all but inputs and results entered.
        locks: those of the program's variables, in the order in which all take them.
        loaded: the program.

    Returns: what gives None, with nothing done, where arrays do not fit the signature, a result is so large that its
        memory is pooled, the program needs more than a little scratch memory, or variables may be on another device.
        `declined` where a result's size is a formula, or the tables are large.
    """
    words = fastcall.size_words(results, inputs.symbols, {}, are_bound=True)
    empty = _array_maker()
    ranks = sum(each.rank for each in results)
    if words is None or empty is None or len(externals) + len(inputs.symbols) + ranks > TABLES:
        return declined

    records, *rest = fastcall.described(results, words, range(first, first + len(results)))
    limits = [-(-POOLED // each.dtype.numpy.itemsize) for each in results]
    table = (_Result * len(results))(*map(_Result, records, limits))
    acquire, release = _Objects(lock.acquire for lock in locks), _Objects(lock.release for lock in locks)

    call = _Direct(
        inputs.address, id(None), ctypes.addressof(externals), len(externals), len(inputs.symbols),
        len(results), ctypes.addressof(table), ranks, empty,
        len(locks), acquire.address, release.address, ctypes.addressof(Cell.any_elsewhere),
        loaded.library.address("run"), loaded.library.address("arena_bytes"),
    )
    held = (ctypes.addressof(call), call, inputs, table, rest, externals, acquire, release, loaded)
    made: Direct = fastcall.builtin("tc_direct", held)
    return made


@functools.cache
def _array_maker() -> int | None:
    """The address of `PyArray_Empty`; None for a NumPy with another ABI."""
    from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi))
    table = (ctypes.c_size_t * (EMPTY + 1)).from_address(pointer(_multiarray_umath._ARRAY_API, None))
    version = ctypes.CFUNCTYPE(ctypes.c_uint)(table[GET_VERSION])()
    return int(table[EMPTY]) if version == ABI else None
