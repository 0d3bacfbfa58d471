"""What programs run on here."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator

CAPABILITY = 75, 76
"""CUDA's numbers for the two halves of a device's compute capability."""


def devices() -> str:
    """The processor with its vectors and threads; the GPU, and what is missing for one."""
    from tensorc.codegen.cpu.target import Target
    from tensorc.runtime.threads import num_threads

    target = Target.host()
    threads = num_threads()
    cpu = (f"{target.cpu} ({target.architecture}), vectors of {target.bits} bits, "
           f"{threads} thread{'s' if threads > 1 else ''}")
    return "\n".join([f"cpu   {cpu}", "cuda  " + "\n      ".join([*gpus(), compiler()])])


def gpus() -> list[str]:
    """A line for each GPU, or one that says why there is none."""
    library = ctypes.util.find_library("cuda")
    if library is None:
        return ["no driver found"]
    try:
        return list(_gpus(ctypes.CDLL(library))) or ["a driver is there, but no GPU"]
    except OSError as error:
        return [f"the driver cannot be loaded: {error}"]


def _gpus(driver: ctypes.CDLL) -> Iterator[str]:
    count, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(128)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return
    for number in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), number)
        driver.cuDeviceGetName(name, len(name), device)
        halves = []
        for attribute in CAPABILITY:
            value = ctypes.c_int()
            driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            halves.append(str(value.value))
        what = f"{name.value.decode()}, compute capability {'.'.join(halves)}"
        yield f"{what}; this version makes code for it, but runs none"


def compiler() -> str:
    """What makes machine code for a GPU here, or what to install for that."""
    from tensorc.codegen.cuda.compile import INSTALL, missing

    lacking = missing()
    if lacking:
        return f"no compiler for its kernels, {', '.join(lacking)} missing: {INSTALL}"
    from importlib.metadata import version

    return f"kernels are compiled by numba-cuda {version('numba-cuda')}, with or without a GPU"
