"""A stand-in for `cudnn`, the frontend: strict about what it is told and in which order, computes from that with NumPy.

Names and arguments are those of nvidia-cudnn-frontend 1.28; dimensions are in the order n, c, spatial whatever the
strides say, convolutions are cross-correlations.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import Enum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from library_memory import Memory, import_anew


class data_type(Enum):  # noqa: N801
    HALF = np.float16
    BFLOAT16 = ml_dtypes.bfloat16
    FLOAT = np.float32
    DOUBLE = np.float64


class heur_mode(Enum):  # noqa: N801
    A = 0
    FALLBACK = 1


class numerical_note(Enum):  # noqa: N801
    TENSOR_CORE = 0
    DOWN_CONVERT_INPUTS = 1
    REDUCED_PRECISION_REDUCTION = 2
    NONDETERMINISTIC = 3


class cudnnGraphNotSupportedError(Exception):  # noqa: N801
    pass


class Tensor:
    """A tensor of a graph; the result is described by what is set."""

    def __init__(self, dim: list[int] | None = None, stride: list[int] | None = None, data_type: Any = None,
                 uid: int = -1) -> None:
        self.dim, self.stride, self.data_type, self.uid = dim, stride, data_type, uid
        self.is_output = False

    def set_output(self, value: bool) -> Tensor:
        self.is_output = value
        return self

    def set_dim(self, dim: list[int]) -> Tensor:
        assert self.dim in (None, dim), f"{dim} where {self.dim} follows"
        self.dim = dim
        return self

    def set_stride(self, stride: list[int]) -> Tensor:
        assert len(stride) == len(self.dim or ())
        self.stride = stride
        return self

    def set_data_type(self, dtype: data_type) -> Tensor:
        self.data_type = dtype
        return self

    def set_uid(self, uid: int) -> Tensor:
        self.uid = uid
        return self


STAGES = ("made", "validate", "build_operation_graph", "create_execution_plans", "check_support", "build_plans")


class Graph:
    """A convolution, with or without a bias."""

    def __init__(self, library: Library, io_data_type: data_type, intermediate_data_type: data_type,
                 compute_data_type: data_type, handle: Handle) -> None:
        assert handle in library.handles
        wide = data_type.DOUBLE if io_data_type is data_type.DOUBLE else data_type.FLOAT
        assert intermediate_data_type is compute_data_type is wide
        self.library, self.io, self.wide = library, io_data_type, wide
        self.stage = 0
        self.tensors: list[Tensor] = []
        self.kind, self.how = "", {}
        self.last = self.added = None

    def tensor(self, name: str, dim: list[int], stride: list[int], data_type: data_type, uid: int) -> Tensor:
        assert len(dim) == len(stride) >= 4
        assert all(type(x) is int and x > 0 for x in (*dim, *stride))
        assert data_type is self.io
        assert uid not in [t.uid for t in self.tensors]
        self.tensors.append(Tensor(dim, stride, data_type, uid))
        return self.tensors[-1]

    def conv(self, kind: str, first: Tensor, second: Tensor, result: list[int] | None, how: Any) -> Tensor:
        assert not self.kind
        assert set(how) == {"pre_padding", "post_padding", "stride", "dilation"}
        assert all(len(v) == len(first.dim) - 2 and all(type(x) is int for x in v) for v in how.values())
        assert min(*how["pre_padding"], *how["post_padding"]) >= 0
        self.kind, self.how, self.operands = kind, how, (first, second)
        self.last = Tensor(result)
        return self.last

    def conv_fprop(self, image: Tensor, weight: Tensor, **how: Any) -> Tensor:
        return self.conv("forward", image, weight, self.given(image.dim, weight.dim, how), how)

    def conv_dgrad(self, loss: Tensor, filter: Tensor, **how: Any) -> Tensor:
        return self.conv("input_gradient", loss, filter, None, how)

    def conv_wgrad(self, image: Tensor, loss: Tensor, **how: Any) -> Tensor:
        return self.conv("weight_gradient", image, loss, None, how)

    @staticmethod
    def given(x: list[int], w: list[int], how: Any) -> list[int]:
        """The dimensions of y."""
        assert x[1] % w[1] == 0
        assert w[0] % (x[1] // w[1]) == 0
        each = zip(x[2:], w[2:], how["pre_padding"], how["post_padding"], how["stride"], how["dilation"], strict=True)
        return [x[0], w[0], *((s + low + high - d * (k - 1) - 1) // step + 1 for s, k, low, high, step, d in each)]

    def bias(self, input: Tensor, bias: Tensor) -> Tensor:
        assert input is self.last
        assert input.dim is not None
        assert bias.dim == [1, input.dim[1], *(1 for _ in input.dim[2:])]
        self.added, self.last = bias, Tensor(input.dim)
        return self.last

    def reach(self, stage: str) -> None:
        assert STAGES[self.stage + 1] == stage, f"{stage} after {STAGES[self.stage]}"
        self.stage += 1

    def validate(self) -> None:
        self.reach("validate")
        assert self.last is not None
        assert self.last.is_output
        assert self.last.data_type is self.io
        x, w, y = self.three()
        assert self.given(x.dim, w.dim, self.how) == y.dim

    def three(self) -> tuple[Any, Any, Any]:
        (first, second), last = self.operands, self.last
        return {"forward": (first, second, last), "input_gradient": (last, second, first),
                "weight_gradient": (first, last, second)}[self.kind]

    def build_operation_graph(self) -> None:
        self.reach("build_operation_graph")

    def create_execution_plans(self, modes: list[heur_mode]) -> None:
        self.reach("create_execution_plans")
        assert modes == [heur_mode.A, heur_mode.FALLBACK]

    def deselect_numeric_notes(self, notes: list[numerical_note]) -> None:
        assert STAGES[self.stage] == "create_execution_plans"
        self.notes = set(notes)

    def deselect_workspace_greater_than(self, limit: int) -> None:
        assert STAGES[self.stage] == "create_execution_plans"
        self.limit = limit

    def check_support(self) -> None:
        self.reach("check_support")
        self.library.planned += 1
        if self.library.refuses:
            raise cudnnGraphNotSupportedError("nothing for this")

    def build_plans(self) -> None:
        self.reach("build_plans")

    def execute(self, where: dict[int, int], workspace: int, handle: Handle) -> None:
        assert STAGES[self.stage] == "build_plans"
        assert handle in self.library.handles
        used = [*self.operands, self.last, *([] if self.added is None else [self.added])]
        assert sorted(where) == sorted(t.uid for t in used)
        assert all(address % 16 == 0 for address in where.values())
        self.library.memory.view(workspace, np.uint8, (self.limit,), (1,))
        arrays = {t.uid: self.library.memory.view(where[t.uid], self.io.value, t.dim, t.stride) for t in used}

        def work() -> None:
            x, w, y = (arrays[t.uid] if t is not self.last else np.zeros(t.dim, self.wide.value) for t in self.three())
            convolve(self.kind, x, w, y, self.how, self.wide.value)
            total = {"forward": y, "input_gradient": x, "weight_gradient": w}[self.kind]
            if self.added is not None:
                total = total + arrays[self.added.uid].astype(self.wide.value)
            arrays[self.last.uid][:] = total.astype(self.io.value)

        self.library.memory.on_stream(handle.stream, work)
        self.library.told.append({"notes": self.notes, "stream": handle.stream, "kind": self.kind})


def convolve(kind: str, x: Any, w: Any, y: Any, how: Any, dtype: Any) -> None:
    """Adds to one of the three what the two others make of it."""
    pads = [(0, 0), (0, 0), *zip(how["pre_padding"], how["post_padding"], strict=True)]
    wide = np.pad(x, pads).astype(dtype)
    inner = tuple(slice(low, low + n) for (low, _), n in zip(pads, x.shape, strict=True))
    groups = x.shape[1] // w.shape[1]
    for tap in np.ndindex(*w.shape[2:]):
        at = tuple(slice(q * d, q * d + (p - 1) * s + 1, s)
                   for q, d, s, p in zip(tap, how["dilation"], how["stride"], y.shape[2:], strict=True))
        seen, part = wide[(..., *at)], w[(..., *tap)]
        for g in range(groups):
            taken = slice(g * w.shape[1], (g + 1) * w.shape[1])
            given = slice(g * (w.shape[0] // groups), (g + 1) * (w.shape[0] // groups))
            if kind == "forward":
                y[:, given] += np.einsum("nc...,oc->no...", seen[:, taken], part[given])
            elif kind == "input_gradient":
                seen[:, taken] += np.einsum("no...,oc->nc...", y[:, given].astype(dtype), part[given])
            else:
                over = (0, *range(2, x.ndim))
                part[given] += np.tensordot(y[:, given].astype(dtype), seen[:, taken], (over, over))
    if kind == "input_gradient":
        x[:] = wide[inner]


class Handle:
    stream = 0


class Library:
    """The state of the stand-in.

    Attributes:
        memory: the device's.
        refuses: whether it has no kernel for anything.
        planned: how often it was asked for one; `told` is how each was run.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.refuses = False
        self.planned = 0
        self.told: list[dict[str, Any]] = []
        self.handles: list[Handle] = []

    def create_handle(self) -> Handle:
        self.handles.append(Handle())
        return self.handles[-1]

    @staticmethod
    def set_stream(handle: Handle, stream: int) -> None:
        assert type(stream) is int
        handle.stream = stream

    def pygraph(self, **how: Any) -> Graph:
        return Graph(self, **how)


def install(patch: pytest.MonkeyPatch, memory: Memory) -> Library:
    """Puts a stand-in where the frontend is imported from."""
    library, module = Library(memory), ModuleType("cudnn")
    parts: Iterable[Any] = (data_type, heur_mode, numerical_note, cudnnGraphNotSupportedError,
                            library.create_handle, library.set_stream, library.pygraph)
    for part in parts:
        setattr(module, part.__name__, part)
    module.__spec__ = ModuleSpec("cudnn", None)
    patch.setitem(sys.modules, "cudnn", module)
    import_anew(patch, "tensorc.runtime.cuda.libraries.convolutions")
    return library
