"""Operations that become others before they are lowered."""

import numpy as np
import pytest
from graphs import closed, evaluate, tensor

from tensorc import backend as K
from tensorc.ir.types import DType, bf16, f16, f32, i8, i32
from tensorc.ops import matmul
from tensorc.passes.pipeline import default


@pytest.mark.parametrize(("narrow", "wide"), [(f16, f32), (bf16, f32), (i8, i32)])
def test_products_of_narrow_numbers_are_computed_wide(narrow: DType, wide: DType) -> None:
    a, b = tensor("a", 40, 300, dtype=narrow), tensor("b", 50, 300, dtype=narrow)
    graph = closed(matmul(a, b, transpose_a=False, transpose_b=True))

    final = default().up_to("layout").run(graph)
    assert {n.dtype for n in final.nodes if n.op is matmul} == {wide}

    rng = np.random.default_rng(0)
    arrays = {"a": rng.integers(-9, 9, (40, 300)), "b": rng.integers(-9, 9, (50, 300))}
    np.testing.assert_array_equal(evaluate(final, {}, **arrays)[0], evaluate(graph, {}, **arrays)[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_programs_of_16_bits_multiply_and_differentiate(dtype: str) -> None:
    a, b = K.placeholder((None, 8), dtype=dtype), K.placeholder((8, 4), dtype=dtype)
    product = K.relu(K.dot(a, b) + 1)
    function = K.function([a, b], [product, *K.gradients(K.sum(product), [a, b])])

    x, y = np.full((3, 8), 0.5, dtype), np.full((8, 4), 0.25, dtype)
    value, to_a, to_b = function([x, y])
    assert value.dtype == to_a.dtype == to_b.dtype == dtype
    np.testing.assert_array_equal(value, np.full((3, 4), 2.0))
    np.testing.assert_array_equal(to_a, np.full((3, 8), 1.0))
    np.testing.assert_array_equal(to_b, np.full((8, 4), 1.5))
