"""NVIDIA's driver: the one module that speaks to it, through the library that comes with it and needs nothing else.

Each function is called by its name in that library; the table below has its arguments.  What fails raises DriverError.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tensorc.errors import DeviceError

NAMES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")

OLDEST = 13000
"""The driver's CUDA version, 1000 times the major one, that loads the code which the pinned compiler makes."""

P, D, N, U, I, Q = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint64)

SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (U,),
    "cuDriverGetVersion": (P,),
    "cuGetErrorName": (I, P),
    "cuGetErrorString": (I, P),
    "cuDeviceGetCount": (P,),
    "cuDeviceGet": (P, I),
    "cuDeviceGetName": (P, I, I),
    "cuDeviceGetAttribute": (P, I, I),
    "cuDevicePrimaryCtxRetain": (P, I),
    "cuCtxPushCurrent_v2": (P,),
    "cuCtxPopCurrent_v2": (P,),
    "cuCtxSynchronize": (),
    "cuMemGetInfo_v2": (P, P),
    "cuMemAlloc_v2": (P, N),
    "cuMemFree_v2": (D,),
    "cuMemHostAlloc": (P, N, U),
    "cuMemFreeHost": (P,),
    "cuMemcpyHtoDAsync_v2": (D, P, N, P),
    "cuMemcpyDtoHAsync_v2": (P, D, N, P),
    "cuMemcpyDtoDAsync_v2": (D, D, N, P),
    "cuPointerGetAttribute": (P, I, D),
    "cuStreamCreate": (P, U),
    "cuStreamDestroy_v2": (P,),
    "cuStreamSynchronize": (P,),
    "cuStreamWaitEvent": (P, P, U),
    "cuStreamBeginCapture_v2": (P, I),
    "cuStreamEndCapture": (P, P),
    "cuStreamGetCaptureInfo_v3": (P, P, P, P, P, P, P),
    "cuStreamUpdateCaptureDependencies_v2": (P, P, P, N, U),
    "cuThreadExchangeStreamCaptureMode": (P,),
    "cuEventCreate": (P, U),
    "cuEventDestroy_v2": (P,),
    "cuEventRecord": (P, P),
    "cuEventRecordWithFlags": (P, P, U),
    "cuEventQuery": (P,),
    "cuEventSynchronize": (P,),
    "cuEventElapsedTime_v2": (P, P, P),
    "cuGraphInstantiateWithFlags": (P, P, Q),
    "cuGraphLaunch": (P, P),
    "cuGraphDestroy": (P,),
    "cuGraphExecDestroy": (P,),
    "cuModuleLoadData": (P, P),
    "cuModuleGetFunction": (P, P, ctypes.c_char_p),
    "cuModuleUnload": (P,),
    "cuFuncLoad": (P,),
    "cuLaunchKernel": (P, U, U, U, U, U, U, U, P, P, P),
}
"""For each function, its arguments: pointers and handles, addresses on the device, sizes, numbers."""

OUT_OF_MEMORY, NO_DEVICE, NOT_READY = 2, 100, 600
NON_BLOCKING, NO_TIMING, WITH_TIMING, EXTERNAL, PORTABLE = 1, 2, 0, 1, 1
THREAD_LOCAL, RELAXED, SET_DEPENDENCIES = 1, 2, 1
CAPABILITY = 75, 76
CLOCK, PROCESSORS, DOUBLES = 13, 16, 87
"""Attributes of a device: kilohertz, multiprocessors, and how many times as fast single precision is as double."""

DEVICE_OF_POINTER = 9

LOST = (214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999)
"""Errors after which nothing more can be done with the GPU in this process."""

FIXES = {
    2: "use smaller inputs, or drop device arrays and functions that are no longer needed",
    3: "a forked process cannot use the GPU of its parent: start processes by `spawn`",
    100: "see whether nvidia-smi shows a GPU, and whether CUDA_VISIBLE_DEVICES hides it",
    101: "see whether CUDA_VISIBLE_DEVICES names a GPU that is there",
    200: "what is in the store may be damaged: run once with TENSORC_CACHE=0",
    209: "the code is for another GPU: run once with TENSORC_CACHE=0",
    802: "the machine's fabric manager has not started yet",
    803: "the driver's library and its kernel module differ: restart the machine after an update",
    **dict.fromkeys((34, 36, 222, 804), "install NVIDIA's driver, version 580 or later"),
    **dict.fromkeys(LOST, "the GPU is lost to this process, with the values of variables there: start it anew"),
}
"""What to do about an error, where that is known."""


class DriverError(DeviceError):
    """A function of the driver failed.  Attributes: CUDA's number for how, and what failed, in words."""

    def __init__(self, code: int, what: str, where: str = "") -> None:
        fix = FIXES.get(code)
        super().__init__(f"{where}the GPU's driver failed: {what}" + (f"\n  {fix}" if fix else ""))
        self.code, self.what = code, what


@contextmanager
def named(function: str) -> Iterator[None]:
    """Within the block, what fails is said to be of a call of this function."""
    try:
        yield
    except DriverError as error:
        raise DriverError(error.code, error.what, f"{function}: ") from None


class Driver:
    """The functions of the driver, as attributes by their names; each raises DriverError where it fails.

    Raises: OSError where there is no such library; DeviceError where it is too old to have them.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, arguments in SIGNATURES.items():
            try:
                function = getattr(library, name)
            except AttributeError:
                raise DeviceError(f"NVIDIA's driver has no {name}; {FIXES[36]}") from None
            function.restype, function.argtypes = I, arguments
            if not name.startswith("cuGetError"):
                function.errcheck = self._checked
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is not among the functions of the driver that tensorc uses")

    def _checked(self, code: int, function: Any, _: Any) -> int:
        if code and code != NOT_READY:
            raise DriverError(code, f"{function.__name__.partition('_')[0]}: {self.words(code)}")
        return code

    def words(self, code: int) -> str:
        """CUDA's name for an error, and its text."""
        found = []
        for ask in (self.cuGetErrorName, self.cuGetErrorString):
            text = ctypes.c_char_p()
            ask(code, ctypes.byref(text))
            found.append((text.value or b"").decode(errors="replace"))
        return f"{found[0]} ({code}), {found[1]}" if found[0] else f"error {code}"


@functools.cache
def driver() -> Driver:
    """The driver, ready for use.

    Raises: DeviceError where there is none, it finds no GPU, or is older than the code that it is to load.
    """
    found = Driver(_library())
    found.cuInit(0)
    version = number(found.cuDriverGetVersion)
    if version < OLDEST:
        raise DeviceError(f"NVIDIA's driver here is for CUDA {version // 1000}.{version % 1000 // 10}, kernels are "
                          f"compiled for {OLDEST // 1000}.0; {FIXES[36]}")
    return found


def _library() -> ctypes.CDLL:
    for name in NAMES:
        try:
            return ctypes.CDLL(name)       # on 64 bits, Windows calls the same way
        except OSError as error:
            why = str(error)
    raise DeviceError(f"NVIDIA's driver is not there ({why}); install it, version 580 or later")


def number(function: Any, *arguments: Any, kind: Any = ctypes.c_int) -> Any:
    """What a function of the driver writes to where its first argument points."""
    found = kind()
    function(ctypes.byref(found), *arguments)
    return found.value


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver finds.  Attributes: its number, its name, and its compute capability."""

    ordinal: int
    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.capability[0]}.{self.capability[1]}"


def gpus() -> list[Gpu]:
    """Every GPU, in the driver's order.  Raises DeviceError."""
    cu, found = driver(), []
    for ordinal in range(number(cu.cuDeviceGetCount)):
        handle = number(cu.cuDeviceGet, ordinal)
        name = ctypes.create_string_buffer(256)
        cu.cuDeviceGetName(name, len(name), handle)
        major, minor = (number(cu.cuDeviceGetAttribute, half, handle) for half in CAPABILITY)
        found.append(Gpu(ordinal, name.value.decode(errors="replace"), (major, minor)))
    return found


def forget() -> None:
    """Looks for the driver anew when it is needed next."""
    driver.cache_clear()
