"""The GPU that programs run on, and what its callers share: lanes, memory, and what is left to be destroyed."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tensorc.errors import DeviceError
from tensorc.runtime.cuda.driver import FIXES, NO_DEVICE, RELAXED, Driver, Gpu, P, driver, gpus, number
from tensorc.runtime.cuda.lanes import Lanes
from tensorc.runtime.cuda.libraries.calls import Libraries
from tensorc.runtime.cuda.memory import Block, OnDevice, Pinned

OLDEST_GPU = (7, 5)
"""The least compute capability that the compiler makes code for."""


class Device:
    """A GPU with its primary context, which other libraries in this process use as well.

    Attributes:
        gpu: which one.
        cu: the driver's functions.
        lanes, memory, pinned: what calls work in, memory of the device, and of the host that it can reach.
        recording: held while a graph is recorded, and by what would make that fail in another thread.
        libraries: NVIDIA's, as far as they are installed.
    """

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.cu = gpu, driver()
        handle = number(self.cu.cuDeviceGet, gpu.ordinal)
        self._context: int = number(self.cu.cuDevicePrimaryCtxRetain, handle, kind=P)
        self._kept: list[Block] = []
        self._gone: deque[tuple[Callable[[Any], Any], Any]] = deque()
        self.recording = threading.RLock()
        self.lanes = Lanes(self.cu)
        self.memory, self.pinned = OnDevice(self.cu, self.synchronise), Pinned(self.cu, self.synchronise)
        self.libraries = Libraries(self._for_good, self.relaxed, self.recording)

    @contextmanager
    def current(self) -> Iterator[Driver]:
        """Within the block, this thread's calls of the driver are for this device.  Gives the driver's functions."""
        cu = self.cu
        cu.cuCtxPushCurrent_v2(self._context)
        try:
            while self._gone:
                destroy, handle = self._gone.popleft()
                destroy(handle)
            yield cu
        finally:
            cu.cuCtxPopCurrent_v2(ctypes.byref(P()))

    def synchronise(self) -> None:
        """Waits for all work of the context, whoever gave it.  CUDA forbids that while any thread records a graph."""
        with self.recording:
            self.cu.cuCtxSynchronize()

    @contextmanager
    def relaxed(self) -> Iterator[None]:
        """Within the block, this thread may load and allocate while a graph is recorded in a lane of its own."""
        mode = ctypes.c_int(RELAXED)
        self.cu.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))
        try:
            yield
        finally:
            self.cu.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))

    def _for_good(self, size: int) -> int:
        """The address of memory that is never given back."""
        self._kept.append(Block(self.memory, self.memory.allocated(size), size))
        return self._kept[-1].address

    def later(self, destroy: Callable[[Any], Any], handle: Any) -> None:
        """Destroys something when that is allowed next: objects die at any time and in any thread."""
        self._gone.append((destroy, handle))


@functools.cache
def device() -> Device:
    """The GPU that programs run on: the first that the driver finds, in an order that CUDA_VISIBLE_DEVICES decides.

    Raises: DeviceError where there is none, or no driver that can load what is compiled.
    """
    found = gpus()
    if not found:
        raise DeviceError(f"NVIDIA's driver finds no GPU; {FIXES[NO_DEVICE]}")
    if found[0].capability < OLDEST_GPU:
        major, minor = OLDEST_GPU
        raise DeviceError(f"the first GPU is a {found[0]}, but kernels are compiled for {major}.{minor} and later; "
                          f"let CUDA_VISIBLE_DEVICES name another first")
    return Device(found[0])
