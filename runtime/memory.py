"""Memory for results and arenas: aligned, and used again once nobody holds it.

Fresh pages for a result of 40 MB cost more than computing it, so large results come from memory that returns to a pool
when the last array that looks at it is gone.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorc.runtime.variable import ALIGNMENT, aligned_empty

POOLED = 1 << 18
"""Bytes from which a result's memory is kept for the next one."""

KEPT = 1 << 30
"""Bytes the pool holds at most while nobody uses them."""

Array = np.ndarray[Any, Any]


class _Lease:
    """Pooled memory on loan to the arrays that have this object as their base."""

    __slots__ = ("__array_interface__", "_raw")

    def __init__(self, raw: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._raw = raw
        self.__array_interface__ = {"data": (raw.ctypes.data, False), "shape": shape, "typestr": dtype.str,
                                    "version": 3}

    def __del__(self) -> None:
        _pool.give_back(self._raw)


class _Pool:
    """Byte arrays that wait to be used again, by their size."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[int, list[Array]] = {}
        self._bytes = 0

    def take(self, size: int) -> Array:
        """At least `size` bytes, 64-byte aligned."""
        with self._lock:
            waiting = self._free.get(size)
            if waiting:
                self._bytes -= size
                return waiting.pop()
        return aligned_empty((size,), np.dtype(np.uint8))

    def give_back(self, raw: Array) -> None:
        with self._lock:
            if self._bytes + raw.nbytes <= KEPT:
                self._free.setdefault(raw.nbytes, []).append(raw)
                self._bytes += raw.nbytes


_pool = _Pool()


class Arena:
    """Scratch memory of a program.  Attributes: its address, a multiple of 64, and its size in bytes."""

    __slots__ = ("_raw", "address", "size")

    def __init__(self, size: int) -> None:
        self._raw = aligned_empty((size,), np.dtype(np.uint8))
        self.address: int = self._raw.ctypes.data
        self.size = size


class Kept:
    """What one function keeps from call to call of the variables that it reads.

    Args:
        sizes: bytes of each buffer.  The first one says of which values of the variables the others are, to begin with
            of none.

    Attributes:
        addresses: of the buffers, multiples of 64.
    """

    __slots__ = ("_raw", "addresses")

    def __init__(self, sizes: Sequence[int]) -> None:
        *starts, end = itertools.accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0)
        self._raw = aligned_empty((end,), np.dtype(np.uint8))
        self._raw[:sizes[0]] = 0xFF
        self.addresses = [self._raw.ctypes.data + start for start in starts]


def maker(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Callable[[tuple[int, ...], np.dtype[Any]], Array]:
    """The quickest function to make a `result` of this shape and dtype with."""
    return np.empty if math.prod(shape) * dtype.itemsize < POOLED else result


def result(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised C-contiguous array for a program to write a result into."""
    size = math.prod(shape) * dtype.itemsize
    if size < POOLED:
        return np.empty(shape, dtype)
    return np.asarray(_Lease(_pool.take(size), shape, dtype)).view(dtype)   # bfloat16 has no letter of its own
