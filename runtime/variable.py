"""The memory of a variable."""

from __future__ import annotations

import ctypes
import threading
from typing import Any, ClassVar, Protocol

import numpy as np

from tensorc.errors import DTypeError, ShapeError
from tensorc.ir.types import numpy_kind

ALIGNMENT = 64

Array = np.ndarray[Any, Any]


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised C-contiguous array whose data begins at a multiple of 64 bytes."""
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(count + ALIGNMENT, dtype=np.uint8)
    offset = -raw.ctypes.data % ALIGNMENT
    return raw[offset:offset + count].view(dtype).reshape(shape)


class Elsewhere(Protocol):
    """Memory of a variable on another device.

    It holds the value where `changes` is that of the variable; where its array does not, it is `newest`.
    """

    changes: int
    newest: bool

    def fetch(self, array: Array) -> None:
        """Copies the value into an array of the host."""


class Cell:
    """One variable's value: an array of fixed dtype and shape that it owns.

    `lock` is held while the array is read or written; a program that writes it in place holds it too.  `changes` counts
    how often it was written: programs, which keep what they make of variables, compare this number.

    The newest value may be in memory of another device only: `elsewhere`.  Whoever reads the array, or writes a part of
    it, asks for it `here` first.
    """

    __slots__ = ("__weakref__", "array", "changes", "elsewhere", "lock", "name")
    array: Array
    any_elsewhere: ClassVar[ctypes.c_bool] = ctypes.c_bool(False)
    """Whether any variable in this process has had memory on another device; native code reads it."""

    def __init__(self, value: Array, name: str = "variable") -> None:
        self.name = name
        self.lock = threading.RLock()
        self.changes = ctypes.c_int64(0)
        self.elsewhere: Elsewhere | None = None
        self.array = aligned_empty(value.shape, value.dtype)
        self.array[...] = value

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    def get(self) -> Array:
        """A copy of the value."""
        with self.lock:
            self.here()
            return self.array.copy()

    def here(self) -> None:
        """Sees to it that the array holds the newest value.  The lock is held."""
        if self.elsewhere is not None and self.elsewhere.newest:
            self.elsewhere.fetch(self.array)
            self.elsewhere.newest = False

    def set(self, value: object) -> None:
        """Takes a new value, cast where nothing but precision is lost.  Raises what `fitting` raises."""
        new = self.fitting(value)
        with self.lock:
            self.array[...] = new
            self.changes.value += 1
            if self.elsewhere is not None:
                self.elsewhere.newest = False

    def fitting(self, value: object, fill: bool = False) -> Array:
        """The value as an array that this cell can take.

        Args:
            fill: whether a scalar stands for an array full of it.

        Raises: ShapeError for another shape; DTypeError for values that the dtype cannot hold.
        """
        given = np.asarray(value)
        if given.shape != self.shape and not (fill and given.ndim == 0):
            raise ShapeError(f"variable {self.name} has shape {self.shape}, the value has shape {given.shape}")
        if given.dtype == self.dtype:
            return given
        if numpy_kind(given.dtype) not in "biuf":
            raise DTypeError(f"variable {self.name} is {self.dtype}, the value is {given.dtype}")

        with np.errstate(over="ignore", invalid="ignore"):
            new = given.astype(self.dtype)
        if numpy_kind(self.dtype) != "f" and not np.array_equal(new.astype(given.dtype), given):
            raise DTypeError(f"variable {self.name} is {self.dtype} and cannot hold these {given.dtype} values")
        return new
