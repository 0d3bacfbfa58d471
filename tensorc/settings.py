"""What the environment may ask for.  Each setting is read when it is needed, so a program may set it too.

The README shows the table.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from tensorc.errors import ArgumentError

log = logging.getLogger("tensorc")

MOST_THREADS = 1024
"""How many threads may be asked for; the pool has a share for each of so many."""


@dataclass(frozen=True)
class Setting:
    """A variable of the environment, and what it does."""

    name: str
    meaning: str

    @property
    def text(self) -> str:
        """Its value; empty where it is not set."""
        return os.environ.get(self.name, "").strip()

    @property
    def is_off(self) -> bool:
        return self.text.lower() in ("0", "off", "no", "false")

    def number(self, low: int, high: int) -> int | None:
        """Its value; None where it is not set.  Raises ArgumentError for anything but a number from low to high."""
        if not self.text:
            return None
        if not self.text.isdecimal() or not low <= int(self.text) <= high:
            raise ArgumentError(f"{self.name} is a whole number from {low} to {high}, not {self.text!r}")
        return int(self.text)


NUM_THREADS = Setting(
    "TENSORC_NUM_THREADS", "threads that kernels run on; by default the processors this process may use"
)
CACHE = Setting("TENSORC_CACHE", "`0` keeps compiled programs out of the store on disk")
CACHE_DIR = Setting("TENSORC_CACHE_DIR", "where the store is, instead of `tensorc` in the user's cache folder")
CACHE_SIZE = Setting(
    "TENSORC_CACHE_SIZE", "megabytes it may hold, 512 by default; what was not used for longest goes first"
)
DEBUG = Setting(
    "TENSORC_DEBUG",
    "`1` tells of each function that is compiled, `2` of its passes too, `3` shows its graph and kernels, `4` its code",
)
CHECK = Setting(
    "TENSORC_CHECK", "`1` runs each kernel beside its NumPy reference and names the first that differs or makes a NaN"
)
DUMP = Setting(
    "TENSORC_DUMP", "a folder in which each function that is compiled leaves all its stages, and a script to repeat it"
)
DEVICE = Setting("TENSORC_DEVICE", "what functions run on, `cpu` or `cuda`; a GPU that is not there is an error")
TF32 = Setting(
    "TENSORC_TF32", "`1` lets products and convolutions on a GPU round float32 operands to 10 bits, which is faster"
)
CUDA_LIBRARIES = Setting(
    "TENSORC_CUDA_LIBRARIES", "`0` leaves products and convolutions on a GPU to kernels of our own"
)
KERAS_HOME = Setting(
    "KERAS_HOME", "where `keras.json` with floatx, epsilon and image_data_format is, instead of `~/.keras`"
)

SETTINGS = (NUM_THREADS, CACHE, CACHE_DIR, CACHE_SIZE, DEBUG, CHECK, DUMP, DEVICE, TF32, CUDA_LIBRARIES, KERAS_HOME)


def table() -> str:
    """All settings as a table in Markdown."""
    rows = [f"| `{each.name}` | {each.meaning} |" for each in SETTINGS]
    return "\n".join(["| variable | what it does |", "|---|---|", *rows])


def num_threads() -> int | None:
    """How many threads are asked for.  Raises ArgumentError unless that is a number from 1 to MOST_THREADS."""
    return NUM_THREADS.number(1, MOST_THREADS)


def cache_size(default: int) -> int:
    """Megabytes that the store may hold."""
    try:
        asked = CACHE_SIZE.number(0, 2**40)
    except ArgumentError:
        name, text = CACHE_SIZE.name, CACHE_SIZE.text
        log.warning("%s is a whole number of megabytes, not %r; %d are taken", name, text, default)
        return default
    return default if asked is None else asked


def debug() -> int:
    """How much is told of what is compiled, 0 to 4.  Raises ArgumentError for anything else."""
    return DEBUG.number(0, 4) or 0


def check() -> bool:
    """Whether kernels run beside their references."""
    return bool(CHECK.text) and not CHECK.is_off


def tf32() -> bool:
    """Whether products and convolutions on a GPU may round float32 operands."""
    return bool(TF32.text) and not TF32.is_off


def dump() -> Path | None:
    """Where functions that are compiled are written to."""
    return Path(DUMP.text).expanduser().absolute() if DUMP.text else None
