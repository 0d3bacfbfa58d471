"""The memory of a variable."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np

from tensorc.errors import DTypeError, ShapeError

ALIGNMENT = 64

Array = np.ndarray[Any, Any]


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised C-contiguous array whose data begins at a multiple of 64 bytes."""
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(count + ALIGNMENT, dtype=np.uint8)
    offset = -raw.ctypes.data % ALIGNMENT
    return raw[offset:offset + count].view(dtype).reshape(shape)


class Cell:
    """One variable's value: an array of fixed dtype and shape that it owns.

    `lock` is held while the array is read or written; a program that writes it in place holds it too.  `changes` counts
    how often it was written: programs, which keep what they make of variables, compare this number.
    """

    __slots__ = ("__weakref__", "array", "changes", "lock", "name")
    array: Array

    def __init__(self, value: Array, name: str = "variable") -> None:
        self.name = name
        self.lock = threading.RLock()
        self.changes = ctypes.c_int64(0)
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
            return self.array.copy()

    def set(self, value: object) -> None:
        """Takes a new value, cast where nothing but precision is lost.  Raises what `fitting` raises."""
        new = self.fitting(value)
        with self.lock:
            self.array[...] = new
            self.changes.value += 1

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
        if given.dtype.kind not in "biuf":
            raise DTypeError(f"variable {self.name} is {self.dtype}, the value is {given.dtype}")

        with np.errstate(over="ignore", invalid="ignore"):
            new = given.astype(self.dtype)
        if self.dtype.kind != "f" and not np.array_equal(new.astype(given.dtype), given):
            raise DTypeError(f"variable {self.name} is {self.dtype} and cannot hold these {given.dtype} values")
        return new
