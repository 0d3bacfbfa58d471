"""The native code that all programs share, made ready while the first of them still goes through its passes."""

from __future__ import annotations

import functools
import threading

from tensorc.runtime import fastcall, threads


@functools.cache
def prepare() -> None:
    """Starts to make the pool and the call builtins ready, once a process.

    LLVM holds no lock of Python's, so the work costs the first program nothing on a second core.  What fails here fails
    again, and is reported, where the code is needed.
    """
    threading.Thread(target=_make, name="tensorc-ready", daemon=True).start()


def _make() -> None:
    for make in (threads.symbols, fastcall.preload):
        try:
            make()
        except Exception:
            return
