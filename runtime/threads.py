"""How many threads share the work, and the native code they run in: the pool and the launcher."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from collections.abc import Mapping

from tensorc import settings
from tensorc.codegen.cpu import launch, pool
from tensorc.codegen.cpu.compile import Library, load
from tensorc.codegen.cpu.target import Target
from tensorc.errors import ArgumentError
from tensorc.runtime.images import image
from tensorc.settings import MOST_THREADS

SPIN = 100_000
"""Nanoseconds before an idle thread sleeps: more than lies between two kernels or two calls, less than a time slice."""

SPIN_CROWDED = 1_500
"""The same where threads outnumber processors, and a spinning thread keeps a working one waiting."""

PAUSES = 1000
"""How many are timed: one takes 2 to 40 ns, as the processor has it."""

_loaded: Library | None = None
_loading = threading.Lock()


def num_threads() -> int:
    """How many threads share the work of a kernel, the caller's included."""
    return int(_library().function("tc_threads", ctypes.c_int32)())


def set_num_threads(threads: int) -> None:
    """Lets `threads` threads share the work of a kernel from now on; results stay the same to the bit.

    Raises: ArgumentError unless 1 <= threads <= settings.MOST_THREADS.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MOST_THREADS:
        raise ArgumentError(f"the number of threads is a whole number from 1 to {MOST_THREADS}, not {threads!r}")
    _set_threads(_library(), threads)


def default_num_threads() -> int:
    """TENSORC_NUM_THREADS, or as many as there are processors for this process.

    Raises: ArgumentError if the variable is not a number from 1 to MOST_THREADS.
    """
    return settings.num_threads() or min(_processors(), MOST_THREADS)


def symbols() -> Mapping[str, int]:
    """Addresses of what compiled programs call: tc_run, and tc_parallel for kernels that launch by themselves."""
    library = _library()
    return {name: library.address(name) for name in ("tc_run", "tc_parallel", "tc_threads")}


def _library() -> Library:
    """The pool and the launcher, loaded once and never unloaded: workers run in them to the end of the process."""
    global _loaded
    with _loading:
        if _loaded is None:
            _loaded = _load()
    return _loaded


def _load() -> Library:
    target = Target.host()
    code = image("pool", lambda: pool.emit_pool(target) + launch.emit_launch())
    library = load(code, pool.EXPORTS + launch.EXPORTS, _system_symbols(target))

    _set_threads(library, default_num_threads())
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=library.function("tc_forked", None))
    return library


def _set_threads(library: Library, threads: int) -> None:
    spin = SPIN if threads <= _processors() else SPIN_CROWDED
    library.function("tc_set_threads", None, ctypes.c_int32, ctypes.c_int32)(threads, int(spin / _pause(library)))


@functools.cache
def _pause(library: Library) -> float:
    """How long a pause takes, in nanoseconds: at best, since anything may come between."""
    pause = library.function("tc_pause", None, ctypes.c_int32)

    def timed() -> int:
        start = time.perf_counter_ns()
        pause(PAUSES)
        return time.perf_counter_ns() - start

    return max(min(timed() for _ in range(3)), 1) / PAUSES


def _processors() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _system_symbols(target: Target) -> dict[str, int]:
    """Addresses of system functions that are not found by name in the running process."""
    if target.system != "windows":
        return {}

    names = {
        "kernel32": ("CreateThread", "CloseHandle", "SwitchToThread"),
        "api-ms-win-core-synch-l1-2-0": ("WaitOnAddress", "WakeByAddressAll"),
    }
    return {
        name: ctypes.cast(getattr(ctypes.CDLL(library), name), ctypes.c_void_p).value or 0
        for library, functions in names.items()
        for name in functions
    }
