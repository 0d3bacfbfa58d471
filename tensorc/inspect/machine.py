"""What programs run on here."""

from __future__ import annotations

import ctypes.util


def devices() -> str:
    """The processor with its vectors and threads, and what became of the GPU."""
    from tensorc.codegen.cpu.target import Target
    from tensorc.runtime.threads import num_threads

    target = Target.host()
    threads = num_threads()
    driver = ctypes.util.find_library("cuda")
    return "\n".join([
        f"cpu   {target.cpu} ({target.architecture}), vectors of {target.bits} bits, "
        f"{threads} thread{'s' if threads > 1 else ''}",
        "cuda  " + ("a driver is there, but this version makes no code for it" if driver else "no driver found"),
    ])
