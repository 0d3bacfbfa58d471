"""Convolutions by cuDNN, through its frontend.

cuDNN names dimensions in the order n, c, spatial for x and y, and co, ci / groups, spatial for w, whatever their order
in memory is; that the strides say.  So channels last and our w, [*k, ci / groups, co], are read and written where they
stand.  It has at least two spatial dimensions; one is given another of size 1.  What we call `low` is the padding
before; the padding after is what makes the sizes agree.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cudnn

from tensorc.codegen.access import strides
from tensorc.codegen.cuda.library import FIRST, RESULT, SECOND, Call, ConvolutionCall
from tensorc.codegen.loopir import ConvKind
from tensorc.errors import DeviceError
from tensorc.ir import dims
from tensorc.ir.types import DType, bf16, f16, f32, f64
from tensorc.runtime.cuda.libraries.memory import WORKSPACE

log = logging.getLogger("tensorc")

BYTES = 16
"""What the addresses of tensors are multiples of, unless it is told otherwise."""

BIAS = RESULT + 1
"""The number of the bias among a graph's tensors, after the operands and the result."""

Numbers = tuple[int, ...]
Shape = tuple[Numbers, Numbers]


@dataclass(frozen=True)
class Geometry:
    """A convolution as cuDNN is told of it.

    Attributes:
        x, w, y: dimensions and strides, in elements, of axes in its order.
        before, after, strides, dilations: a number for each spatial axis.
    """

    x: Shape
    w: Shape
    y: Shape
    before: Numbers
    after: Numbers
    strides: Numbers
    dilations: Numbers


def geometry(call: ConvolutionCall, sizes: Mapping[str, int]) -> Geometry | None:
    """What cuDNN is told of a convolution; None where it is empty, or leaves out more of x than cuDNN can."""
    x, w, y, low = (tuple(dims.evaluate(size, sizes) for size in shape) for shape in (call.x, call.w, call.y, call.low))
    if not all((*x, *w, *y)) or min(low) < 0:
        return None
    after = []
    for size, kernel, given, before, stride, dilation in zip(
            x[1:-1], w[:-2], y[1:-1], low, call.strides, call.dilations, strict=True):
        reach = dilation * (kernel - 1) + 1
        missing = max(0, (given - 1) * stride + reach - size - before)
        if (size + before + missing - reach) // stride + 1 != given:
            return None                 # windows end so early that another would fit in
        after.append(missing)
    one = (1,) * (len(x) == 3)
    x, y, w = (x[0], *one, *x[1:]), (y[0], *one, *y[1:]), (*one, *w)
    none = tuple(0 for _ in one)
    return Geometry(_last_first(x), _filter(w), _last_first(y), (*none, *low), (*none, *after),
                    (*one, *call.strides), (*one, *call.dilations))


class Cudnn:
    """The library, loaded for the device whose context is current.  Raises ImportError, or its own errors."""

    def __init__(self) -> None:
        self.handles: dict[int, Any] = {}
        self.handle(0)

    def handle(self, stream: int) -> Any:
        """The handle for a stream."""
        if stream not in self.handles:
            made = cudnn.create_handle()
            cudnn.set_stream(made, stream)
            self.handles[stream] = made
        return self.handles[stream]

    def plan(self, call: Call, sizes: Mapping[str, int], alignments: Sequence[int],
             tf32: bool) -> ConvolutionPlan | None:
        """The kernel that cuDNN thinks best; None where it has none that we may use."""
        assert isinstance(call, ConvolutionCall)
        used = [FIRST, SECOND, RESULT, *([] if call.bias is None else [call.bias])]
        found = geometry(call, sizes)
        if found is None or min(alignments[x] for x in used) < BYTES:
            return None
        try:
            graph = graph_of(call.kind, call.dtype, found, call.bias is not None, self.handle(0))
            graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
            graph.deselect_numeric_notes(refused(call.dtype, tf32))
            graph.deselect_workspace_greater_than(WORKSPACE)
            graph.check_support()
            graph.build_plans()
        except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
            log.info("cuDNN does not take a convolution (%s): %s", found, str(error))
            return None
        return ConvolutionPlan(self, graph, call.bias)


def graph_of(kind: ConvKind, dtype: DType, of: Geometry, bias: bool, handle: Any) -> Any:
    """The graph of a convolution, whose tensors are numbered FIRST, SECOND, RESULT and BIAS, brought to cuDNN.

    Raises: cudnnGraphNotSupportedError, RuntimeError.
    """
    kinds = cudnn.data_type
    io = {f16: kinds.HALF, bf16: kinds.BFLOAT16, f32: kinds.FLOAT, f64: kinds.DOUBLE}[dtype]
    within = cudnn.data_type.DOUBLE if dtype is f64 else cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=io, intermediate_data_type=within, compute_data_type=within, handle=handle)

    def tensor(name: str, number: int, shape: Shape) -> Any:
        return graph.tensor(name=name, dim=list(shape[0]), stride=list(shape[1]), data_type=io, uid=number + 1)

    how = {"pre_padding": list(of.before), "post_padding": list(of.after), "stride": list(of.strides),
           "dilation": list(of.dilations)}
    match kind:
        case "forward":
            result = graph.conv_fprop(image=tensor("x", FIRST, of.x), weight=tensor("w", SECOND, of.w), **how)
        case "input_gradient":
            result = graph.conv_dgrad(loss=tensor("y", FIRST, of.y), filter=tensor("w", SECOND, of.w), **how)
        case "weight_gradient":
            result = graph.conv_wgrad(image=tensor("x", FIRST, of.x), loss=tensor("y", SECOND, of.y), **how)
    shape = {"forward": of.y, "input_gradient": of.x, "weight_gradient": of.w}[kind]
    if bias:
        channels = shape[0][1]
        ones = (1,) * len(of.strides)
        row = (1, channels, *ones), (channels, 1, *(channels for _ in ones))
        result = graph.bias(input=result, bias=tensor("bias", BIAS, row))
    result.set_output(True).set_dim(list(shape[0])).set_stride(list(shape[1])).set_data_type(io).set_uid(RESULT + 1)
    graph.validate()
    graph.build_operation_graph()
    return graph


def refused(dtype: DType, tf32: bool) -> list[Any]:
    """What kernels must not do: sum in another order each time, or round operands or sums to less than they have."""
    note = cudnn.numerical_note
    rounding = [note.REDUCED_PRECISION_REDUCTION] if dtype.is_half else []
    lossy = [note.TENSOR_CORE] if dtype is f32 and not tf32 else rounding
    return [note.NONDETERMINISTIC, note.DOWN_CONVERT_INPUTS, *lossy]


class ConvolutionPlan:
    """A graph with the kernel that has been chosen for it."""

    def __init__(self, on: Cudnn, graph: Any, bias: int | None) -> None:
        self._on, self._graph = on, graph
        self._numbers = [FIRST, SECOND, RESULT, *([] if bias is None else [BIAS])]
        self._buffers = [FIRST, SECOND, RESULT, *([] if bias is None else [bias])]

    def run(self, stream: int, addresses: Sequence[int], workspace: int) -> None:
        """Adds the convolution to a stream.  Raises DeviceError."""
        where = {number + 1: addresses[x] for number, x in zip(self._numbers, self._buffers, strict=True)}
        try:
            self._graph.execute(where, workspace, handle=self._on.handle(stream))
        except RuntimeError as error:
            raise DeviceError(f"cuDNN failed at a convolution: {error}") from None


def _last_first(shape: Numbers) -> Shape:
    """Dimensions and strides in the order n, c, spatial, of what lies in memory as n, spatial, c."""
    steps = _steps(shape)
    return (shape[0], shape[-1], *shape[1:-1]), (steps[0], steps[-1], *steps[1:-1])


def _filter(shape: Numbers) -> Shape:
    """Dimensions and strides in the order co, ci, spatial, of what lies in memory as spatial, ci, co."""
    steps = _steps(shape)
    return (shape[-1], shape[-2], *shape[:-2]), (steps[-1], steps[-2], *steps[:-2])


def _steps(shape: Numbers) -> Numbers:
    """How far apart neighbours along each axis of row-major memory lie."""
    return tuple(dims.evaluate(step, {}) for step in strides(shape))
