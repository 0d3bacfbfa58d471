"""Random streams: a seed and a counter that moves on with every call."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np


def draw_seed() -> int:
    """A seed from NumPy's global generator, as Keras draws one: `np.random.seed` makes runs repeatable."""
    return int(np.random.randint(10_000_000))


class Stream:
    """The key of one random operation: (seed, step).  Equal keys give equal numbers, on every machine.

    Args:
        seed: any integer; None draws one by `draw_seed`.  It is kept modulo 2**64.
    """

    __slots__ = ("__weakref__", "_lock", "seed", "step")

    def __init__(self, seed: int | None = None) -> None:
        self.seed = _as_int64(draw_seed() if seed is None else int(seed))
        self.step = 0
        self._lock = threading.Lock()

    def key(self) -> np.ndarray[Any, Any]:
        """int64 [seed, step] of the next call."""
        return np.array([self.seed, self.step], dtype=np.int64)

    def advance(self) -> None:
        """Moves on to the next step."""
        with self._lock:
            self.step = _as_int64(self.step + 1)

    def draw(self) -> tuple[int, int]:
        """(seed, step), moving on: no two callers get the same pair."""
        with self._lock:
            step = self.step
            self.step = _as_int64(step + 1)
        return self.seed, step

    def take(self) -> np.ndarray[Any, Any]:
        """The key, moving on: int64 [seed, step] like `key`."""
        return np.array(self.draw(), dtype=np.int64)


def _as_int64(n: int) -> int:
    """The integer modulo 2**64, within int64."""
    return (n + 2**63) % 2**64 - 2**63
