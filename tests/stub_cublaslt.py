"""A stand-in for `nvmath.bindings.cublasLt`: strict about what it is told, and computes from that with NumPy.

Attributes, their dtypes and numbers are those of nvmath-python 1.0; matrices are column-major, as the library's are.
"""

from __future__ import annotations

import itertools
import sys
from enum import IntEnum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from library_memory import Memory, import_anew, read

TYPES = {0: np.float32, 1: np.float64, 2: np.float16, 14: ml_dtypes.bfloat16}


class ComputeType(IntEnum):
    COMPUTE_32F = 68
    COMPUTE_32F_FAST_TF32 = 77
    COMPUTE_64F = 70


class MatmulDescAttribute(IntEnum):
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8


class MatrixLayoutAttribute(IntEnum):
    BATCH_COUNT = 5
    STRIDED_BATCH_OFFSET = 6


class MatmulPreferenceAttribute(IntEnum):
    MAX_WORKSPACE_BYTES = 1
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


class Epilogue(IntEnum):
    DEFAULT = 1
    RELU = 2
    BIAS = 4


DTYPES: dict[str, dict[int, Any]] = {
    "matmul_desc": {MatmulDescAttribute.TRANSA: np.int32, MatmulDescAttribute.TRANSB: np.int32,
                    MatmulDescAttribute.EPILOGUE: np.uint32, MatmulDescAttribute.BIAS_POINTER: np.int64},
    "matrix_layout": {MatrixLayoutAttribute.BATCH_COUNT: np.int32,
                      MatrixLayoutAttribute.STRIDED_BATCH_OFFSET: np.int64},
    "matmul_preference": {MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES: np.uint64,
                          **{kind: np.uint32 for kind in MatmulPreferenceAttribute if "ALIGNMENT" in kind.name}},
}
RESULT = np.dtype([("algo", [("data_", "<u8", (8,))]), ("workspace_size", "<u8"), ("state", "<i4"),
                   ("waves_count", "<f4"), ("reserved", "<i4", (4,))])
HANDLE, NEEDS = 77, 4096

SUPPORTED = {(ComputeType.COMPUTE_32F, 0, 0, 0), (ComputeType.COMPUTE_32F_FAST_TF32, 0, 0, 0),
             (ComputeType.COMPUTE_32F, 0, 2, 2), (ComputeType.COMPUTE_32F, 0, 2, 0),
             (ComputeType.COMPUTE_32F, 0, 14, 14), (ComputeType.COMPUTE_32F, 0, 14, 0),
             (ComputeType.COMPUTE_64F, 1, 1, 1)}
"""What sums are made in; the types of scale, operands and result: the library's table, cut down."""


class cuBLASLtError(Exception):  # noqa: N801
    pass


class Library:
    """The state of the stand-in.

    Attributes:
        memory: the device's.
        refuses: whether it finds no kernel for anything.
        asked, multiplied: how often it was asked for a kernel, and to run one.
        told: what it was told in the latter.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.refuses = False
        self.asked = self.multiplied = 0
        self.told: list[dict[str, Any]] = []
        self.made: dict[int, dict[Any, Any]] = {}
        self.numbers = itertools.count(1000, 8)
        self.chosen: dict[int, tuple[Any, ...]] = {}

    def new(self, kind: str, **what: Any) -> int:
        number = next(self.numbers)
        self.made[number] = {"kind": kind, **what}
        return number

    def set(self, kind: str, what: int, attribute: Any, pointer: int, size: int) -> None:
        assert self.made[what]["kind"] == kind
        self.made[what][attribute] = read(pointer, size, DTYPES[kind][attribute])

    # -- the functions of the library

    def create(self) -> int:
        return HANDLE

    def matmul_desc_create(self, compute: int, scale: int) -> int:
        return self.new("matmul_desc", compute=ComputeType(compute), scale=scale)

    def matrix_layout_create(self, dtype: int, rows: int, columns: int, leading: int) -> int:
        assert leading >= rows > 0 < columns
        return self.new("matrix_layout", dtype=dtype, rows=rows, columns=columns, leading=leading)

    def matmul_preference_create(self) -> int:
        return self.new("matmul_preference")

    def matmul_preference_destroy(self, preference: int) -> None:
        assert self.made.pop(preference)["kind"] == "matmul_preference"

    def matmul_desc_set_attribute(self, *args: Any) -> None:
        self.set("matmul_desc", *args)

    def matrix_layout_set_attribute(self, *args: Any) -> None:
        self.set("matrix_layout", *args)

    def matmul_preference_set_attribute(self, *args: Any) -> None:
        self.set("matmul_preference", *args)

    def matmul_algo_get_heuristic(self, handle: int, product: int, a: int, b: int, c: int, d: int, preference: int,
                                  wanted: int, results: int, count: int) -> None:
        self.asked += 1
        assert handle == HANDLE
        limits = self.made[preference]
        assert all(kind in limits for kind in MatmulPreferenceAttribute)
        for kind in MatmulPreferenceAttribute:
            if "ALIGNMENT" in kind.name:
                assert limits[kind] in (1, 2, 4, 8, 16, 32, 64, 128, 256)
        self.shapes(product, a, b, c, d)
        found = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * (wanted * RESULT.itemsize)).from_address(results))
        found = found.view(RESULT)
        if not self.refuses:
            mark = next(self.numbers)
            self.chosen[mark] = product, a, b, c, d, dict(limits)
            found["algo"]["data_"][0] = mark
            found["workspace_size"][0] = NEEDS
        np.ctypeslib.ctypes.c_int32.from_address(count).value = int(not self.refuses)

    def shapes(self, product: int, a: int, b: int, c: int, d: int) -> tuple[int, int, int]:
        """Rows, columns and the length of the sums.  Fails where descriptions do not fit each other."""
        how, of_a, of_b, of_c = self.made[product], self.made[a], self.made[b], self.made[d]
        assert c == d
        assert of_a["dtype"] == of_b["dtype"]
        assert (how["compute"], how["scale"], of_a["dtype"], of_c["dtype"]) in SUPPORTED

        def shape(layout: dict[Any, Any], turned: int) -> tuple[int, int]:
            assert turned in (0, 1)
            return (layout["columns"], layout["rows"]) if turned else (layout["rows"], layout["columns"])

        (rows, depth), (other, columns) = shape(of_a, how[MatmulDescAttribute.TRANSA]), \
            shape(of_b, how[MatmulDescAttribute.TRANSB])
        assert depth == other
        assert (of_c["rows"], of_c["columns"]) == (rows, columns)
        counts = {layout.get(MatrixLayoutAttribute.BATCH_COUNT, 1) for layout in (of_a, of_b, of_c)}
        assert len(counts) == 1
        return rows, columns, depth

    def matmul(self, handle: int, product: int, alpha: int, a: int, of_a: int, b: int, of_b: int, beta: int, c: int,
               of_c: int, d: int, of_d: int, algorithm: int, workspace: int, size: int, stream: int) -> None:
        self.multiplied += 1
        assert handle == HANDLE
        assert c == d
        mark = read(algorithm, 8, np.uint64)
        *chosen, limits = self.chosen[mark]
        assert chosen == [product, of_a, of_b, of_c, of_d], "a kernel chosen for something else"
        assert NEEDS <= size <= limits[MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES]
        self.memory.view(workspace, np.uint8, (size,), (1,))
        assert workspace % 256 == 0
        for address, kind in zip((a, b, c, d), list(MatmulPreferenceAttribute)[1:], strict=True):
            assert address % limits[kind] == 0, f"{address} does not keep {kind.name}"
        how = self.made[product]
        scale = TYPES[how["scale"]]
        assert read(alpha, np.dtype(scale).itemsize, scale) == 1
        assert read(beta, np.dtype(scale).itemsize, scale) == 0

        first, second, result = (self.matrices(x, y) for x, y in ((a, of_a), (b, of_b), (d, of_d)))
        first = np.swapaxes(first, 1, 2) if how[MatmulDescAttribute.TRANSA] else first
        second = np.swapaxes(second, 1, 2) if how[MatmulDescAttribute.TRANSB] else second
        bias: Any = scale(0)
        if how.get(MatmulDescAttribute.EPILOGUE, Epilogue.DEFAULT) == Epilogue.BIAS:
            at = how[MatmulDescAttribute.BIAS_POINTER]
            assert at % limits[MatmulPreferenceAttribute.MIN_ALIGNMENT_D_BYTES] == 0
            bias = self.memory.view(at, result.dtype, (result.shape[1],), (1,))[:, None]

        def work() -> None:
            total = first.astype(scale) @ second.astype(scale) + bias.astype(scale)
            result[:] = total.astype(result.dtype)

        self.memory.on_stream(stream, work)
        self.told.append({"compute": how["compute"], "stream": stream, "batch": result.shape[0]})

    def matrices(self, address: int, layout: int) -> Any:
        how = self.made[layout]
        count = how.get(MatrixLayoutAttribute.BATCH_COUNT, 1)
        apart = how.get(MatrixLayoutAttribute.STRIDED_BATCH_OFFSET, 0)
        return self.memory.view(address, TYPES[how["dtype"]], (count, how["rows"], how["columns"]),
                                (apart, 1, how["leading"]))


def install(patch: pytest.MonkeyPatch, memory: Memory) -> Library:
    """Puts a stand-in where the library's bindings are imported from."""
    library = Library(memory)
    lt, cublas = ModuleType("nvmath.bindings.cublasLt"), ModuleType("nvmath.bindings.cublas")
    for name in dir(Library):
        if name.startswith(("matmul", "matrix_layout", "create")):
            setattr(lt, name, getattr(library, name))
    for kind in (MatmulDescAttribute, MatrixLayoutAttribute, MatmulPreferenceAttribute, Epilogue, cuBLASLtError):
        setattr(lt, kind.__name__, kind)
    for name, dtypes in DTYPES.items():
        setattr(lt, f"get_{name}_attribute_dtype", dtypes.__getitem__)
    lt.matmul_heuristic_result_dtype = RESULT  # type: ignore[attr-defined]
    cublas.ComputeType = ComputeType  # type: ignore[attr-defined]
    bindings = ModuleType("nvmath.bindings")
    bindings.cublas, bindings.cublasLt = cublas, lt  # type: ignore[attr-defined]
    for module in (ModuleType("nvmath"), bindings, cublas, lt):
        module.__spec__ = ModuleSpec(module.__name__, None)
        patch.setitem(sys.modules, module.__name__, module)
    import_anew(patch, "tensorc.runtime.cuda.libraries.products")
    return library
