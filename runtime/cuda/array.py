"""Arrays on the device: what functions give when they are asked to leave results there, and take as inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorc.ir.types import bf16
from tensorc.runtime.cuda.device import Device
from tensorc.runtime.cuda.lanes import Lane
from tensorc.runtime.cuda.layout import nbytes
from tensorc.runtime.cuda.memory import Block

Array = np.ndarray[Any, Any]


class DeviceArray:
    """A C-contiguous array on the GPU.

    `get()` or `numpy.asarray` copies it to the host.  Other libraries read it without a copy by DLPack or by
    `__cuda_array_interface__`: `torch.from_dlpack(a)`, `cupy.from_dlpack(a)`, `numba.cuda.as_cuda_array(a)`.

    Attributes:
        shape, dtype: as those of a NumPy array.
        address: where it is.
        memory: what keeps it there.
        is_foreign: whether it is another library's.
    """

    def __init__(self, on: Device, memory: Memory, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._on = on
        self.memory, self.address = memory, address
        self.shape, self.dtype = shape, dtype

    @property
    def is_foreign(self) -> bool:
        return isinstance(self.memory, Foreign)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.nbytes // self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return nbytes(self.shape, self.dtype)

    def get(self) -> Array:
        """A copy on the host.  Raises DeviceError where the GPU failed to compute it."""
        result = np.empty(self.shape, self.dtype)
        if result.nbytes:
            with self._on.current() as cu, self._on.lanes.lent() as lane:
                lane.wait_for(self.memory.users)
                cu.cuMemcpyDtoHAsync_v2(result.ctypes.data, self.address, result.nbytes, lane.stream)
                lane.synchronise()
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("an array on the GPU cannot be seen from the host without a copy")
        return self.get() if dtype is None else self.get().astype(dtype, copy=False)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without axes has no length")
        return self.shape[0]

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype} {self.shape} on {self._on.gpu.name}>"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; the stream is one that whoever reads the array has to wait for.

        Raises: AttributeError for bfloat16, which the interface has no name for; DLPack has.
        """
        if self.dtype.name == bf16.name:
            raise AttributeError("the CUDA array interface has no name for bfloat16; DLPack has")
        stream = self._lend()
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address if self.nbytes else 0, False),
                "strides": None, "version": 3, "stream": stream}

    def __dlpack_device__(self) -> tuple[int, int]:
        """CUDA's number in DLPack, and the device's."""
        from tensorc.runtime.cuda.exchange import CUDA

        return CUDA, self._on.gpu.ordinal

    def __dlpack__(self, *, stream: int | None = None, max_version: tuple[int, int] | None = None,
                   dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> Any:
        """A capsule of the unversioned kind, which every consumer takes, without a copy.

        Args:
            stream: CUDA's handle of the stream that it is read on: that waits until it is computed.  None and 1 stand
                for the default stream, 2 for that of the thread, -1 for no waiting.

        Raises: BufferError for a stream of 0, which says neither, or that is not one of CUDA's; for a copy, or another
            device.
        """
        from tensorc.runtime.cuda.exchange import exported

        if stream is not None and (stream == 0 or stream < -1):
            raise BufferError(f"stream {stream} is none of CUDA's: 1 is the default stream, 2 that of the thread")
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("an array on the GPU is given as it is and where it is; get() makes a copy on the host")
        users = set(self.memory.users)
        self._lend()
        if stream != -1:
            with self._on.current() as cu:
                for user in users:
                    cu.cuStreamWaitEvent(1 if stream is None else stream, user.event, 0)
        return exported(self)

    def _lend(self) -> int | None:
        """Tells the memory that others use it.  Gives a stream on which it is computed, if it may not be yet."""
        users = list(self.memory.users)
        if isinstance(self.memory, Block):
            self.memory.lent = True
        for user in users[1:]:
            user.finish()
        return users[0].stream if users else None


class Foreign:
    """Another library's memory.

    Attributes:
        owner: what keeps it there.
        users: the lanes that read it; calls wait for these before they return.
    """

    __slots__ = ("owner", "users")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.users: set[Lane] = set()


Memory = Block | Foreign
