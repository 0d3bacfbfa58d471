"""Kernels as machine code: kept, loaded into the GPU, launched."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorc.codegen.cuda.source import Source
from tensorc.errors import DeviceError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.runtime.cuda.device import Device
from tensorc.runtime.cuda.driver import P, number
from tensorc.runtime.cuda.lanes import Lane

NARROW = 1 << 31
"""Elements that a buffer has less of where indices have 32 bits."""

REMEMBERED = 256
"""Combinations of sizes for which a kernel remembers how many blocks it needs."""


@dataclass(frozen=True)
class Code:
    """What is kept of a kernel.

    Attributes:
        entry: its name in the image.
        image: the machine code.
        counts: how many elements its buffers have, at most, where that depends on sizes.
        others as in Source.
    """

    entry: str
    image: bytes
    buffers: tuple[str, ...]
    counts: tuple[Size, ...]
    sizes: tuple[str, ...]
    blocks: Size
    threads: int
    wide: bool

    @staticmethod
    def of(source: Source, entry: str, image: bytes) -> Code:
        return Code(entry, image, source.buffers, source.counts, source.sizes, source.blocks, source.threads, source.wide)


class Kernel:
    """A kernel that is loaded.  The device is current where one is made.

    Its parameters are a pointer for each buffer and a number for each size, 32 bits or 64 as its indices have; here each
    has 8 bytes, of which the driver takes as many as the code says.
    """

    def __init__(self, code: Code, on: Device) -> None:
        self._on, self._cu, self._code = on, on.cu, code
        self._module: int = number(self._cu.cuModuleLoadData, code.image, kind=P)
        try:
            self._function: int = number(self._cu.cuModuleGetFunction, self._module, code.entry.encode(), kind=P)
        except Exception:
            self._cu.cuModuleUnload(self._module)
            raise
        count = len(code.buffers) + len(code.sizes)
        self._values, self._pointers = ctypes.c_uint64 * count, ctypes.c_void_p * count
        self._grids: dict[tuple[int, ...], int] = {}

    def __del__(self) -> None:
        if hasattr(self, "_function"):
            self._on.later(self._cu.cuModuleUnload, self._module)

    def launch(self, lane: Lane, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        """Adds a launch to the work of a lane.

        Args:
            addresses, sizes: in the kernel's order.
        """
        key = tuple(sizes)
        blocks = self._grids.get(key)
        if blocks is None:
            if len(self._grids) >= REMEMBERED:
                self._grids.clear()
            blocks = self._grids[key] = self._grid(dict(zip(self._code.sizes, key, strict=True)))
        if not blocks:
            return
        values = self._values(*addresses, *sizes)
        first = ctypes.addressof(values)
        pointers = self._pointers(*range(first, first + ctypes.sizeof(values), 8))
        self._cu.cuLaunchKernel(self._function, blocks, 1, 1, self._code.threads, 1, 1, 0, lane.stream, pointers, None)

    def _grid(self, sizes: Mapping[str, int]) -> int:
        """How many blocks there are.  Raises DeviceError where indices are too narrow for these sizes."""
        for buffer, count in zip(self._code.buffers, self._code.counts, strict=True):
            if not self._code.wide and (found := dims.evaluate(count, sizes)) >= NARROW:
                raise DeviceError(f"{buffer} would have {found:,} elements; on a GPU an array has fewer than 2^31 so far, "
                                  f"run this on the CPU or in parts")
        return dims.evaluate(self._code.blocks, sizes)
