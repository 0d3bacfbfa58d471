"""Convolutions and their gradients, computed directly: no matrix is made of the windows."""

from __future__ import annotations

from tensorc.codegen.cpu.conv_depthwise import DepthwiseGather, DepthwiseWeights, is_depthwise
from tensorc.codegen.cpu.conv_gather import Gather
from tensorc.codegen.cpu.conv_gather_kernels import GatherKernels
from tensorc.codegen.cpu.conv_weights import WeightGradient, WeightKernels
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.loopir import AGE, Conv
from tensorc.errors import DTypeError
from tensorc.ir.dims import Size
from tensorc.ir.types import f32, f64

DTYPES = (f32, f64)


def is_direct(conv: Conv) -> bool:
    """Whether `emit_conv` takes a convolution: of its dtypes, with one to three spatial axes and known channels."""
    known = all(isinstance(size, int) for size in (*conv.w.shape, conv.groups))
    return known and len(conv.strides) <= 3 and all(b.dtype is conv.result.dtype in DTYPES for b in conv.buffers[:3])


def emit_conv(conv: Conv, target: Target) -> str:
    """The LLVM IR of the kernels that `phases` names, without the functions of `shared`.

    Each kernel NAME has the form of all kernels: NAME, NAME_units and NAME_work.  Its buffers are those of `conv`,
    then, where `workspace` is not 0, one of that many bytes, aligned to 64, which is kept from call to call where
    `keeps`.

    An epilogue E is called as `@E_box(ptr buffers, ptr sizes, i64 index…, i64 i0, i64 i1, i64 j0, i64 j1)`, i and j
    being the result's last two axes, on each part of the result that is finished.

    Raises: DTypeError unless `is_direct`.
    """
    return "".join(_kernels(conv, target).texts())


def shared(conv: Conv, target: Target) -> dict[str, str]:
    """The functions that `conv` calls: LLVM IR by name, for one module to hold once.  Raises DTypeError."""
    return _kernels(conv, target).shared()


def phases(conv: Conv, target: Target) -> tuple[str, ...]:
    """The kernels that make the result, each to be launched when the one before is done.  Raises DTypeError."""
    return _kernels(conv, target).phases()


def workspace(conv: Conv, target: Target) -> Size:
    """Bytes of scratch memory that the phases share.  Raises DTypeError."""
    return _kernels(conv, target).workspace()


def keeps(conv: Conv, target: Target) -> bool:
    """Whether the scratch memory is to be kept from call to call.  Raises DTypeError."""
    return AGE in conv.sizes and conv.kind != "weight_gradient" and workspace(conv, target) != 0


def _kernels(conv: Conv, target: Target) -> GatherKernels | WeightKernels:
    if not is_direct(conv):
        given = ", ".join(str(b.dtype) for b in conv.buffers[:3])
        raise DTypeError(
            f"no direct convolution of {given}; all three must be one of {', '.join(map(str, DTYPES))},"
            " with one to three spatial axes and known channels"
        )
    depthwise = is_depthwise(conv)
    if conv.kind == "weight_gradient":
        return WeightKernels((DepthwiseWeights.of_channels if depthwise else WeightGradient.of)(conv, target))
    return GatherKernels((DepthwiseGather.of_channels if depthwise else Gather.of)(conv, target))
