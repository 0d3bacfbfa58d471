"""Matrix products by cuBLASLt.

cuBLASLt thinks in columns: to it, our row-major c[m, n] is cᵀ, n by m, each column contiguous; and cᵀ = bᵀ · aᵀ.  So
its first operand is our b and its second our a:

    b stored as [k, n]       is bᵀ as it stands, n by k, n from column to column
    b stored as [n, k]       is b, k by n, to be transposed, k from column to column
    a stored as [m, k]       is aᵀ as it stands, k by m, k from column to column
    a stored as [k, m]       is a, m by k, to be transposed, m from column to column

The n numbers that our rows have added are one for each row of cᵀ, which is what it calls a bias.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence

import numpy as np
from nvmath.bindings import cublas
from nvmath.bindings import cublasLt as lt  # noqa: N813

from tensorc.codegen.cuda.library import FIRST, RESULT, SECOND, Call, ProductCall
from tensorc.errors import DeviceError
from tensorc.ir import dims
from tensorc.ir.types import DType, bf16, f16, f32, f64
from tensorc.runtime.cuda.libraries.memory import alignment

log = logging.getLogger("tensorc")

CUDA_TYPES = {f32: 0, f64: 1, f16: 2, bf16: 14}
"""cudaDataType's numbers: CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF."""

LARGEST = 32 << 20
"""The largest workspace that it may ask for, in bytes: what NVIDIA recommends for the largest GPUs."""

MOST_CALLS = 64
"""Batches that are not evenly spaced take a call each; more than so many are left to our kernel."""


class CublasLt:
    """The library, loaded for the device whose context is current.  Raises ImportError, or its own errors."""

    def __init__(self) -> None:
        self.handle: int = lt.create()

    def plan(self, call: Call, sizes: Mapping[str, int], alignments: Sequence[int], tf32: bool) -> ProductPlan | None:
        """The kernel that cuBLASLt thinks best for a product; None where it has none, or there is nothing to sum."""
        assert isinstance(call, ProductCall)
        m, n, k = (dims.evaluate(size, sizes) for size in (call.m, call.n, call.k))
        batches = [(dims.evaluate(each.count, sizes), [dims.evaluate(s, sizes) for s in each.strides])
                   for each in call.batches]
        batches = [each for each in batches if each[0] != 1]
        count, strides = batches.pop() if batches else (1, [0, 0, 0])
        if not (m and n and k and count and all(c for c, _ in batches)) or count >= 1 << 31:
            return None
        offsets = [[sum(i * s[x] for i, (_, s) in zip(at, batches, strict=True)) for x in range(3)]
                   for at in itertools.islice(itertools.product(*(range(c) for c, _ in batches)), MOST_CALLS + 1)]
        if len(offsets) > MOST_CALLS:
            return None
        plan = ProductPlan(self.handle, call, (m, n, k), (count, strides), offsets, tf32)
        why = plan.choose(alignments)
        if why:
            log.info("cuBLASLt does not take a product of %d × %d × %d: %s", m, n, k, why)
        return None if why else plan


class ProductPlan:
    """What cuBLASLt is told of a product, and the kernel that it has chosen.

    Args:
        shape: m, n and k.
        batch: how many products it makes in one call, and how many elements these lie apart.
        offsets: where the operands of each call begin, in elements.
    """

    def __init__(self, handle: int, call: ProductCall, shape: tuple[int, int, int], batch: tuple[int, Sequence[int]],
                 offsets: Sequence[Sequence[int]], tf32: bool) -> None:
        m, n, k = shape
        self._handle, self._bias = handle, call.bias
        scale = f64 if call.dtype is f64 else f32
        self._one, self._zero = np.ones(1, scale.numpy), np.zeros(1, scale.numpy)
        self._product = lt.matmul_desc_create(_compute_type(call.dtype, tf32), CUDA_TYPES[scale])
        kinds = lt.MatmulDescAttribute
        self._set(kinds.TRANSA, int(call.transpose_b))
        self._set(kinds.TRANSB, int(call.transpose_a))
        if call.bias is not None:
            self._set(kinds.EPILOGUE, int(lt.Epilogue.BIAS))

        def layout(dtype: DType, rows: int, columns: int, stride: int) -> int:
            made: int = lt.matrix_layout_create(CUDA_TYPES[dtype], rows, columns, rows)
            if batch[0] > 1:
                for kind, value in ((lt.MatrixLayoutAttribute.BATCH_COUNT, batch[0]),
                                    (lt.MatrixLayoutAttribute.STRIDED_BATCH_OFFSET, stride)):
                    held = np.array([value], lt.get_matrix_layout_attribute_dtype(kind))
                    lt.matrix_layout_set_attribute(made, kind, held.ctypes.data, held.nbytes)
            return made

        of_a, of_b, of_c = batch[1]
        self._b = layout(call.dtype, *((k, n) if call.transpose_b else (n, k)), of_b)
        self._a = layout(call.dtype, *((m, k) if call.transpose_a else (k, m)), of_a)
        self._c = layout(call.result, n, m, of_c)

        widths = call.dtype.size, call.dtype.size, call.result.size
        self._offsets = [tuple(at * width for at, width in zip(each, widths, strict=True)) for each in offsets]
        self._algorithm = np.zeros(1, lt.matmul_heuristic_result_dtype)

    def _set(self, kind: int, value: int) -> None:
        held = np.array([value], lt.get_matmul_desc_attribute_dtype(kind))
        lt.matmul_desc_set_attribute(self._product, kind, held.ctypes.data, held.nbytes)

    def choose(self, alignments: Sequence[int]) -> str:
        """Takes the best kernel for buffers that begin at multiples of so many bytes; says why there is none."""
        kinds = lt.MatmulPreferenceAttribute
        a, b, c = (min(alignments[x], *(alignment(each[x]) for each in self._offsets)) for x in range(3))
        d = c if self._bias is None else min(c, alignments[self._bias])
        preference = lt.matmul_preference_create()
        try:
            for kind, value in ((kinds.MAX_WORKSPACE_BYTES, LARGEST), (kinds.MIN_ALIGNMENT_A_BYTES, b),
                                (kinds.MIN_ALIGNMENT_B_BYTES, a), (kinds.MIN_ALIGNMENT_C_BYTES, c),
                                (kinds.MIN_ALIGNMENT_D_BYTES, d)):
                held = np.array([value], lt.get_matmul_preference_attribute_dtype(kind))
                lt.matmul_preference_set_attribute(preference, kind, held.ctypes.data, held.nbytes)
            found, count = self._algorithm, np.zeros(1, np.int32)
            lt.matmul_algo_get_heuristic(self._handle, self._product, self._b, self._a, self._c, self._c, preference, 1,
                                         found.ctypes.data, count.ctypes.data)
        except lt.cuBLASLtError as error:
            return str(error)
        finally:
            lt.matmul_preference_destroy(preference)
        return "" if count[0] and not found["state"][0] else "no kernel of its for these sizes and this alignment"

    def run(self, stream: int, addresses: Sequence[int], workspace: int) -> None:
        """Adds the product to a stream.  Raises DeviceError."""
        one, zero, algorithm = (x.ctypes.data for x in (self._one, self._zero, self._algorithm))
        try:
            if self._bias is not None:
                self._set(lt.MatmulDescAttribute.BIAS_POINTER, addresses[self._bias])
            for offset in self._offsets:
                a, b, c = (addresses[x] + offset[x] for x in (FIRST, SECOND, RESULT))
                lt.matmul(self._handle, self._product, one, b, self._b, a, self._a, zero, c, self._c, c, self._c,
                          algorithm, workspace, LARGEST, stream)
        except lt.cuBLASLtError as error:
            raise DeviceError(f"cuBLASLt failed at a product: {error}") from None


def _compute_type(dtype: DType, tf32: bool) -> int:
    kinds = cublas.ComputeType
    if dtype is f64:
        return int(kinds.COMPUTE_64F)
    return int(kinds.COMPUTE_32F_FAST_TF32 if tf32 and dtype is f32 else kinds.COMPUTE_32F)
