"""What stand-ins for NVIDIA's libraries share: memory by address, and settings that are read as C reads them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Memory:
    """A device's memory.  `bytes` gives all of it, addresses are places there."""

    def __init__(self, all_of_it: Callable[[], Array]) -> None:
        self.all_of_it = all_of_it

    def view(self, address: int, dtype: Any, shape: Sequence[int], strides: Sequence[int]) -> Array:
        """An array over memory, `strides` in elements.  Fails where it would leave the memory."""
        width = np.dtype(dtype).itemsize
        assert type(address) is int
        assert address % width == 0
        assert len(shape) == len(strides)
        assert all(type(x) is int and x >= 0 for x in (*shape, *strides))
        last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        flat = self.all_of_it()[address:address + (last + 1) * width]
        assert flat.nbytes == (last + 1) * width, "outside of the device's memory"
        return np.lib.stride_tricks.as_strided(flat.view(dtype), shape, [s * width for s in strides])


def read(pointer: int, size: int, dtype: Any) -> Any:
    """The number of this dtype at a pointer of the host, which is said to have so many bytes."""
    assert size == np.dtype(dtype).itemsize, f"{size} bytes for a {np.dtype(dtype)}"
    return np.frombuffer(ctypes.string_at(pointer, size), dtype)[0].item()
