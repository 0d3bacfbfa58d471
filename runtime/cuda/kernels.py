"""Kernels as machine code: kept, loaded into the GPU, launched."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensorc.codegen.cuda.source import Source
from tensorc.ir import dims
from tensorc.runtime.cuda.device import Device
from tensorc.runtime.cuda.driver import P, number
from tensorc.runtime.cuda.lanes import Lane, Unready
from tensorc.runtime.cuda.order import Touch

REMEMBERED = 256
"""Combinations of sizes for which a kernel remembers how it is launched."""


@dataclass(frozen=True)
class Code:
    """What is kept of a kernel: its text, and the machine code with the name that it has there."""

    source: Source
    entry: str
    image: bytes


class Kernel:
    """A kernel that is loaded.  The device is current where one is made.

    Its parameters are a pointer for each buffer and a number for each size, of 32 bits or 64 as its indices have; each
    has 8 bytes here, of which the driver takes as many as the code says.

    Args:
        wider: gives the same with indices of 64 bits.
    """

    def __init__(self, code: Code, on: Device, wider: Callable[[Source], Code]) -> None:
        self._on, self._wider = on, wider
        self._source, self._loaded = code.source, _Loaded(code, on)
        self._wide: _Loaded | None = None
        count = len(code.source.buffers) + len(code.source.sizes)
        self._values, self._pointers = ctypes.c_uint64 * count, ctypes.c_void_p * count
        self._known: dict[tuple[int, ...], tuple[_Loaded, int]] = {}

    def launch(self, lane: Lane, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        """Adds a launch to the work of a lane.

        Args:
            addresses, sizes: in the kernel's order.

        Raises: Unready where its indices need 64 bits for the first time.
        """
        key = tuple(sizes)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[key] = self._launched_at(key)
        loaded, blocks = known
        if not blocks:
            return
        values = self._values(*addresses, *sizes)
        first = ctypes.addressof(values)
        pointers = self._pointers(*range(first, first + ctypes.sizeof(values), 8))
        self._on.cu.cuLaunchKernel(loaded.function, blocks, 1, 1, self._source.threads, 1, 1, 0, lane.stream, pointers,
                                   None)

    def touches(self, lane: Lane, addresses: Sequence[int], sizes: Sequence[int]) -> list[Touch]:
        """The memory that a launch reads and writes."""
        source = self._source
        known = dict(zip(source.sizes, sizes, strict=True))
        bytes = [dims.evaluate(count, known) * dtype.size
                 for count, dtype in zip(source.counts, source.dtypes, strict=True)]
        return [Touch(address, address + size, written)
                for address, size, written in zip(addresses, bytes, source.written, strict=True)]

    def _launched_at(self, sizes: Sequence[int]) -> tuple[_Loaded, int]:
        """The code for these sizes, and how many blocks there are."""
        known = dict(zip(self._source.sizes, sizes, strict=True))
        loaded = self._loaded
        if self._source.at(known).wide and not self._source.wide:
            if self._wide is None:
                raise Unready(self._widen)
            loaded = self._wide
        return loaded, dims.evaluate(self._source.blocks, known)

    def _widen(self) -> None:
        self._wide = _Loaded(self._wider(self._source), self._on)


class _Loaded:
    """Machine code in the GPU's memory.  Attributes: the driver's handle of its function.

    The driver would load it when it is first launched, which may be while a graph is recorded; so it is told to now.
    """

    def __init__(self, code: Code, on: Device) -> None:
        self._on = on
        self._module: int = number(on.cu.cuModuleLoadData, code.image, kind=P)
        self.function: int = number(on.cu.cuModuleGetFunction, self._module, code.entry.encode(), kind=P)
        on.cu.cuFuncLoad(self.function)

    def __del__(self) -> None:
        if hasattr(self, "_module"):
            self._on.later(self._on.cu.cuModuleUnload, self._module)
