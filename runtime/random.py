"""Random streams: a seed and a counter that moves on with every call."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np


def draw_seed() -> int:
    """A seed from NumPy's global generator, as Keras draws one: `np.random.seed` makes runs repeatable."""
    return int(np.random.randint(10_000_000))


class Stream:
    """The key of one random operation: (seed, step).  Equal keys give equal numbers, on every machine.

    `lock` is held while the key moves on; `state` is where native code finds it.

    Args:
        seed: any integer; None draws one by `draw_seed`.  Seed and step are kept modulo 2**64.
    """

    __slots__ = ("__weakref__", "lock", "state")

    def __init__(self, seed: int | None = None, step: int = 0) -> None:
        self.state = (ctypes.c_int64 * 2)(draw_seed() if seed is None else int(seed), step)
        self.lock = threading.Lock()

    def key(self) -> np.ndarray[Any, Any]:
        """int64 [seed, step] of the next call."""
        return np.array(self.state, dtype=np.int64)

    def draw(self) -> tuple[int, int]:
        """(seed, step), moving on: no two callers get the same pair."""
        with self.lock:
            seed, step = self.state
            self.state[1] = step + 1
        return seed, step

    def take(self) -> np.ndarray[Any, Any]:
        """The key, moving on: int64 [seed, step] like `key`."""
        return np.array(self.draw(), dtype=np.int64)
