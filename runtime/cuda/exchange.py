"""Arrays from and to other libraries without a copy: DLPack and the CUDA array interface.

Sources: dlpack.h, version 0.8; the Python array API standard, for `__dlpack__`; "CUDA Array Interface (Version 3)" in
Numba's documentation.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc.errors import DeviceError, DTypeError
from tensorc.ir.types import bf16
from tensorc.runtime.cuda.array import DeviceArray, Foreign
from tensorc.runtime.cuda.device import Device
from tensorc.runtime.cuda.driver import DEVICE_OF_POINTER, NO_TIMING, DriverError, P, number
from tensorc.runtime.cuda.lanes import Lane
from tensorc.runtime.cuda.layout import nbytes

Array = np.ndarray[Any, Any]

CUDA, MANAGED = 2, 13
"""DLPack's numbers for memory of a GPU, and for memory that moves there by itself."""

KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}
"""DLPack's numbers for kinds of dtypes, as NumPy calls them."""

BFLOAT = 4

DEFAULT_STREAM = 1
VECTOR = 16
"""What kernels take addresses to be multiples of."""


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_python = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(("PyCapsule_New", _python))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _python))
_pointer_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _python))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _python))

_exported: dict[int, tuple[Any, ...]] = {}
"""What is kept alive for whoever holds a capsule, by the address of its record."""


def _drop_unused(capsule: int) -> None:
    """Drops the record of a capsule that nobody took over."""
    if _is_valid(capsule, b"dltensor"):
        _exported.pop(_pointer_in(capsule, b"dltensor"), None)


_delete = _Deleter(lambda record: _exported.pop(record, None) and None)
_destroy = _Destructor(_drop_unused)


def exported(array: DeviceArray) -> Any:
    """A DLPack capsule of an array, which stays where it is as long as anybody reads it."""
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    record = _Managed()
    tensor = record.tensor
    tensor.data, (tensor.device_type, tensor.device) = array.address, array.__dlpack_device__()
    tensor.ndim, tensor.shape = array.ndim, shape
    tensor.code = BFLOAT if array.dtype.name == bf16.name else KINDS[array.dtype.kind]
    tensor.bits, tensor.lanes = 8 * array.dtype.itemsize, 1
    record.deleter = ctypes.cast(_delete, ctypes.c_void_p)
    address = ctypes.addressof(record)
    _exported[address] = record, shape, array
    return _new(address, b"dltensor", _destroy)


def is_on_device(value: object) -> bool:
    """Whether a value is an array on a GPU: one of ours, or another library's."""
    if isinstance(value, np.ndarray | list | tuple | int | float):
        return False
    if isinstance(value, DeviceArray):
        return True
    if hasattr(value, "__dlpack_device__"):
        return value.__dlpack_device__()[0] in (CUDA, MANAGED)
    return hasattr(value, "__cuda_array_interface__")


def imported(value: Any, on: Device) -> DeviceArray | Array:
    """An array on the GPU as one of ours, without a copy where it is contiguous; a copy on the host where it is not.

    Raises: DeviceError for one on another GPU; DTypeError for a dtype that NumPy does not have.
    """
    if isinstance(value, DeviceArray):
        return value
    with on.current(), on.lanes.lent() as lane:
        seen = (_by_dlpack if hasattr(value, "__dlpack__") else _by_interface)(value, on, lane)
        lane.mark()
        if seen.strides is not None and not _is_contiguous(seen):
            return _copied(seen, on, lane)
        if seen.address % VECTOR == 0:
            memory = Foreign(seen.owner)
            memory.users.add(lane)
            return DeviceArray(on, memory, seen.address, seen.shape, seen.dtype)
        block = on.memory.take(nbytes(seen.shape, seen.dtype), lane)
        on.cu.cuMemcpyDtoDAsync_v2(block.address, seen.address, nbytes(seen.shape, seen.dtype), lane.stream)
        lane.synchronise()
        return DeviceArray(on, block, block.address, seen.shape, seen.dtype)


@dataclass(frozen=True)
class _Seen:
    """Another library's array.  Attributes: strides are bytes, None where it is C-contiguous."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...] | None
    owner: object


def _by_dlpack(value: Any, on: Device, lane: Lane) -> _Seen:
    capsule = value.__dlpack__(stream=lane.stream)
    tensor = _Managed.from_address(_pointer(capsule, b"dltensor")).tensor
    shape = tuple(tensor.shape[:tensor.ndim])
    dtype = _dtype(tensor)
    strides = tuple(dtype.itemsize * s for s in tensor.strides[:tensor.ndim]) if tensor.strides else None
    return _checked(_Seen((tensor.data or 0) + tensor.offset, shape, dtype, strides, capsule), on)


def _dtype(tensor: Any) -> np.dtype[Any]:
    """NumPy's dtype of a tensor.  Raises DTypeError where it has none."""
    if (tensor.code, tensor.bits, tensor.lanes) == (BFLOAT, 16, 1):
        return bf16.numpy
    kind = next((k for k, code in KINDS.items() if code == tensor.code), None)
    if kind is None or tensor.lanes != 1:
        raise DTypeError(f"an array by DLPack has a dtype that NumPy has not: kind {tensor.code}, {tensor.bits} bits")
    return np.dtype(f"{kind}{tensor.bits // 8}")


def _by_interface(value: Any, on: Device, lane: Lane) -> _Seen:
    told = value.__cuda_array_interface__
    stream = told.get("stream") if told["version"] >= 3 else DEFAULT_STREAM
    if stream is not None:
        event = number(on.cu.cuEventCreate, NO_TIMING, kind=P)
        try:
            on.cu.cuEventRecord(event, stream)
            on.cu.cuStreamWaitEvent(lane.stream, event, 0)
        finally:
            on.cu.cuEventDestroy_v2(event)
    strides = told.get("strides")
    return _checked(_Seen(told["data"][0], tuple(told["shape"]), np.dtype(told["typestr"]),
                          None if strides is None else tuple(strides), value), on)


def _checked(seen: _Seen, on: Device) -> _Seen:
    """The same.  Raises DeviceError where it is not on the GPU that functions run on."""
    if math.prod(seen.shape):
        try:
            ordinal = number(on.cu.cuPointerGetAttribute, DEVICE_OF_POINTER, seen.address)
        except DriverError as error:
            raise DeviceError(f"an input says it is on a GPU, but its address is not of one: {error.what}") from None
        if ordinal != on.gpu.ordinal:
            raise DeviceError(f"an input is on GPU {ordinal}, but functions run on GPU {on.gpu.ordinal}; copy it "
                              f"there, or let CUDA_VISIBLE_DEVICES show that one only")
    return seen


def _is_contiguous(seen: _Seen) -> bool:
    """Whether elements lie as in C; axes of size 1 may have any stride."""
    expected = seen.dtype.itemsize
    for size, stride in zip(reversed(seen.shape), reversed(seen.strides or ()), strict=True):
        if size != 1 and stride != expected:
            return math.prod(seen.shape) == 0
        expected *= size
    return True


def _copied(seen: _Seen, on: Device, lane: Lane) -> Array:
    """The elements on the host, by way of all that lies between the first and the last."""
    steps = [(size - 1) * stride for size, stride in zip(seen.shape, seen.strides or (), strict=True)]
    first, last = sum(min(0, s) for s in steps), sum(max(0, s) for s in steps)
    span = np.empty(last - first + seen.dtype.itemsize, np.uint8)
    on.cu.cuMemcpyDtoHAsync_v2(span.ctypes.data, seen.address + first, span.nbytes, lane.stream)
    lane.synchronise()
    return np.ndarray(seen.shape, seen.dtype, span.data, -first, seen.strides).copy()


def arrived(value: Any, dtype: np.dtype[Any], on: Device) -> Any:
    """A value for an input of this dtype: what lies on the GPU and fits stays there, the rest comes to the host.

    Raises: what `imported` raises.
    """
    if not is_on_device(value):
        return value
    found = imported(value, on)
    return found if not isinstance(found, DeviceArray) or found.dtype == dtype else found.get()
