"""What stand-ins for NVIDIA's libraries share: memory by address, and settings that are read as C reads them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]


class Memory:
    """A device's memory, whose addresses are places in one array.

    Args:
        all_of_it: gives that array.
    """

    def __init__(self, all_of_it: Callable[[], Array]) -> None:
        self.all_of_it = all_of_it

    def flat(self, address: int, count: int, dtype: np.dtype[Any]) -> Array:
        """So many elements.  Fails outside of the memory."""
        found = self.all_of_it()[address:address + count * dtype.itemsize]
        assert found.nbytes == count * dtype.itemsize, "outside of the device's memory"
        return found.view(dtype)

    def on_stream(self, stream: int, work: Callable[[], None]) -> None:
        """Does something when all before it on a stream is done: here, that is now."""
        work()

    def view(self, address: int, dtype: Any, shape: Sequence[int], strides: Sequence[int]) -> Array:
        """An array over memory, `strides` in elements.  Fails where it would leave the memory."""
        width = np.dtype(dtype).itemsize
        assert type(address) is int
        assert address % width == 0
        assert len(shape) == len(strides)
        assert all(type(x) is int and x >= 0 for x in (*shape, *strides))
        last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        flat = self.flat(address, last + 1, np.dtype(dtype))
        return np.lib.stride_tricks.as_strided(flat, shape, [s * width for s in strides])


def read(pointer: int, size: int, dtype: Any) -> Any:
    """The number of this dtype at a pointer of the host, which is said to have so many bytes."""
    assert size == np.dtype(dtype).itemsize, f"{size} bytes for a {np.dtype(dtype)}"
    return np.frombuffer(ctypes.string_at(pointer, size), dtype)[0].item()


def import_anew(patch: pytest.MonkeyPatch, module: str) -> None:
    """Lets a module be imported once more, now and when the test is over: it keeps what it has imported."""
    patch.setitem(sys.modules, module, None)
    del sys.modules[module]
