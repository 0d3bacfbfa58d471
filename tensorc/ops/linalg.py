"""Matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.errors import ShapeError
from tensorc.ir.node import Node
from tensorc.ir.types import TensorType
from tensorc.ops.define import defop
from tensorc.ops.elementwise import numbers
from tensorc.ops.infer import agree, broadcast_shapes, same_dtype, show_shape
from tensorc.ops.sample import sample


def _matmul_type(a: TensorType, b: TensorType, *, transpose_a: bool, transpose_b: bool) -> TensorType:
    if a.rank < 2 or b.rank < 2:
        raise ShapeError(f"both must have rank 2 or more: {show_shape(a.shape)} and {show_shape(b.shape)}")
    m, k = a.shape[:-3:-1] if transpose_a else a.shape[-2:]
    inner, n = b.shape[:-3:-1] if transpose_b else b.shape[-2:]
    agree(k, inner, f"the inner sizes of {show_shape(a.shape)} and {show_shape(b.shape)} differ")
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return numbers(TensorType(same_dtype(a, b), (*batch, m, n)))


def _matmul(a: NDArray[Any], b: NDArray[Any], *, transpose_a: bool, transpose_b: bool) -> NDArray[Any]:
    left = a.swapaxes(-1, -2) if transpose_a else a
    right = b.swapaxes(-1, -2) if transpose_b else b
    return np.asarray(np.matmul(left, right))


def _matmul_gradient(node: Any, g: Any) -> list[Node | None]:
    """G·Bᵀ and Aᵀ·G, each in the layout its operand is stored in."""
    a, b, ta, tb = node.a, node.b, node.transpose_a, node.transpose_b
    to_a = (matmul(b, g, transpose_a=tb, transpose_b=True) if ta
            else matmul(g, b, transpose_a=False, transpose_b=not tb))
    to_b = (matmul(g, a, transpose_a=True, transpose_b=ta) if tb
            else matmul(a, g, transpose_a=not ta, transpose_b=False))
    return [to_a, to_b]


matmul = defop(
    "matmul",
    doc="The product of the matrices in the last two axes; the axes before them broadcast.  A transposed operand is "
        "stored with its last two axes swapped.  Floats of 16 bits accumulate in float32.",
    infer=_matmul_type,
    reference=_matmul,
    gradient=_matmul_gradient,
    kernel="matmul",
    samples=[
        sample("f32[2,3]", "f32[3,4]", transpose_a=False, transpose_b=False),
        sample("f32[3,2]", "f32[3,4]", transpose_a=True, transpose_b=False),
        sample("f32[2,3]", "f32[4,3]", transpose_a=False, transpose_b=True),
        sample("f64[5,3,2]", "f64[4,3]", transpose_a=True, transpose_b=True),
        sample("f32[2,1,2,3]", "f32[4,3,1]", transpose_a=False, transpose_b=False),
        sample("f32[2,0]", "f32[0,3]", transpose_a=False, transpose_b=False),
        sample("f16[1,3]", "f16[3,2]", transpose_a=False, transpose_b=False),
        sample("i32[2,3]", "i32[3,2]", transpose_a=False, transpose_b=False),
    ],
)
