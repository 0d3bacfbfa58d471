"""Which device programs run on: asked for in the environment, in a `with`, or for a function; and what there is.

So far all run on the CPU.  A GPU that is asked for is refused, with what was found and what is missing: nothing runs
elsewhere than where it was told to.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tensorc import settings
from tensorc.errors import ArgumentError, DeviceError

DEVICES = ("cpu", "cuda")
CAPABILITY = 75, 76
"""CUDA's numbers for the two halves of a device's compute capability."""

_current: ContextVar[str | None] = ContextVar("device", default=None)


@contextmanager
def device(name: str) -> Iterator[None]:
    """Functions that are made inside the `with` run on this device, `cpu` or `cuda`.

    Raises: ArgumentError for another name, DeviceError for a device that nothing runs on.
    """
    before = _current.set(chosen(name, "tensorc.device"))
    try:
        yield
    finally:
        _current.reset(before)


def chosen(asked: str | None, by: str) -> str:
    """The device of a function: `asked` for by its maker, or by a `with`, or by TENSORC_DEVICE, else `cpu`.

    Raises: ArgumentError for an unknown name, DeviceError for a device that nothing runs on.
    """
    if asked is None:
        asked, by = _current.get(), "tensorc.device"
    if asked is None:
        asked, by = settings.DEVICE.text or "cpu", settings.DEVICE.name
    if asked not in DEVICES:
        raise ArgumentError(f"{by}: {asked!r} is no device; known are {', '.join(DEVICES)}")
    if asked == "cuda":
        found = "; ".join([*gpus(), compiler()])
        raise DeviceError(f"{by} asks for a GPU, but this version of tensorc runs programs on the CPU only.  It shows "
                          f"their kernels for a GPU: tensorc --dump-ir FILE --stage cuda\n  here: {found}")
    return asked


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
