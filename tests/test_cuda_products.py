"""Products and convolutions in tiles for a GPU, run in lock-step against NumPy and their plain loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_machine import on_gpu

from tensorc.codegen import loopir as ir
from tensorc.codegen.cuda.emit import emit
from tensorc.codegen.cuda.lockstep import run
from tensorc.codegen.cuda.products import contraction, emit_product, in_parts, loops_of
from tensorc.codegen.python import oracle
from tensorc.codegen.transform import bake_matmul, followed
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import DType, bf16, f16, f32, f64, i32

n, m, k = map(dims.symbol, "nmk")


def product(dtype: DType, batch: tuple[Size, ...] = (), transposed: tuple[bool, bool] = (False, False),
            epilogue: bool = False, columns: Size = m) -> ir.Matmul:
    """c[…, n, m] = Σ a · b, and with an epilogue c := max(c + bias, 0)."""
    ta, tb = transposed
    a = ir.Buffer("a", dtype, (*batch, k, n) if ta else (*batch, n, k))
    b = ir.Buffer("b", dtype, (columns, k) if tb else (k, columns))
    c = ir.Buffer("c", dtype, (*batch, n, columns), "inout" if epilogue else "out")
    sizes = tuple(sorted({s for x in (a, b) for size in x.shape for s in dims.symbols(size)}))
    mm = ir.Matmul("mm", sizes, (a, b, c), batch, n, columns, k, ta, tb)
    if not epilogue:
        return mm
    bias = ir.Buffer("bias", dtype, (columns,))
    grid = (*((f"z{d}", size) for d, size in enumerate(batch)), ("r", n), ("s", columns))
    at = tuple(dims.symbol(v) for v, _ in grid)
    shifted = ir.Call("add", (ir.Var("v", dtype), ir.Load("bias", at[-1:], dtype)), dtype)
    body = (ir.Let("v", ir.Load("c", at, dtype)), ir.Let("w", shifted),
            ir.Store("c", at, ir.Call("maximum", (ir.Var("w", dtype), ir.Num(0, dtype)), dtype)))
    buffers = (a, b, c, bias)
    return replace(mm, buffers=buffers, epilogue=ir.Kernel("mm_epilogue", sizes, buffers, grid, body))


def arrays_of(work: ir.Matmul | ir.Conv, sizes: dict[str, int]) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    found = {}
    for b in work.buffers:
        shape = tuple(dims.evaluate(s, sizes) for s in b.shape)
        found[b.name] = rng.integers(-4, 5, shape).astype(b.dtype.numpy)     # whole numbers, so that sums are exact
    return found


def ran(work: ir.Matmul | ir.Conv, sizes: dict[str, int], arrays: dict[str, Any], wide: bool = False) -> Any:
    source = emit_product(work)
    assert source is not None
    source = replace(source, wide=wide)
    own = {name: on_gpu(a) for name, a in arrays.items()}
    run(source, [own[b.name] for b in work.buffers], sizes)
    return own[work.buffers[2].name]


@pytest.mark.parametrize("dtype", [f16, bf16, f32, f64, i32], ids=str)
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)], ids=str)
def test_every_form(dtype: DType, transposed: tuple[bool, bool]) -> None:
    mm, sizes = product(dtype, transposed=transposed), {"n": 37, "m": 70, "k": 19}
    arrays = arrays_of(mm, sizes)
    a = arrays["a"].T if transposed[0] else arrays["a"]
    b = arrays["b"].T if transposed[1] else arrays["b"]
    np.testing.assert_array_equal(ran(mm, sizes, arrays), a @ b)


@pytest.mark.parametrize("columns", [10, 33, 200])
@pytest.mark.parametrize("sizes", [(1, 0), (130, 8), (64, 17)], ids=str)
def test_every_tile_with_an_epilogue_and_a_batch(columns: int, sizes: tuple[int, int]) -> None:
    mm = product(f32, batch=(2,), epilogue=True, columns=columns)
    numbers = {"n": sizes[0], "k": sizes[1]}
    arrays = arrays_of(mm, numbers)
    want = np.maximum(arrays["a"] @ arrays["b"] + arrays["bias"], 0)
    np.testing.assert_array_equal(ran(mm, numbers, arrays, wide=columns == 33), want)


def conv(kind: ir.ConvKind, channels: tuple[int, int], groups: int, stride: int, low: int) -> ir.Conv:
    taken, given = channels
    height = 9
    count = (height + 2 * low - 3) // stride + 1
    x = ir.Buffer("x", f32, (n, height, height, taken))
    w = ir.Buffer("w", f32, (3, 3, taken // groups, given))
    y = ir.Buffer("y", f32, (n, count, count, given))
    orders = {"forward": (x, w, y), "input_gradient": (y, w, x), "weight_gradient": (x, y, w)}
    first, second, result = orders[kind]
    buffers = (first, second, replace(result, role="out"))
    return ir.Conv(kind, "conv", ("n",), buffers, (stride, stride), (1, 1), (low, low), groups)


@pytest.mark.parametrize("kind", ["forward", "input_gradient", "weight_gradient"])
@pytest.mark.parametrize(("groups", "stride", "low"), [(1, 1, 1), (2, 2, 0)])
def test_convolutions(kind: ir.ConvKind, groups: int, stride: int, low: int) -> None:
    work, sizes = conv(kind, (16, 16), groups, stride, low), {"n": 1}
    arrays = arrays_of(work, sizes)
    want = {name: a.copy() for name, a in arrays.items()}
    oracle(work)(*(want[b.name] for b in work.buffers), sizes["n"])
    np.testing.assert_array_equal(ran(work, sizes, arrays), want[work.buffers[2].name])


def test_what_lies_outside_is_not_multiplied() -> None:
    """0 · inf is NaN: an infinite weight must not reach elements that read nothing with it."""
    work, sizes = conv("forward", (8, 8), 1, 1, 1), {"n": 1}
    arrays = arrays_of(work, sizes)
    arrays["x"][:] = 1
    arrays["w"][:] = 0
    arrays["w"][0, 0] = np.inf
    got = ran(work, sizes, arrays)
    assert np.isposinf(got[0, 1:, 1:]).all()
    assert (got[0, 0] == 0).all()
    assert (got[0, :, 0] == 0).all()


# Long sums in parts.


def ran_in_parts(work: ir.Matmul | ir.Conv, sizes: dict[str, int], arrays: dict[str, Any]) -> tuple[Any, int]:
    """The result of a product that is cut into two kernels, and how many parts its sum had."""
    loops = loops_of(work)
    found = contraction(loops)
    assert found is not None
    halves = in_parts(loops, found)
    assert halves is not None
    part, join = halves
    if work.epilogue is not None:
        join = followed(join, work.epilogue)
    own = {name: on_gpu(a) for name, a in arrays.items()}
    (scratch,) = (b for b in part.buffers if b.role == "scratch")
    shape = tuple(dims.evaluate(s, sizes) for s in scratch.shape)
    own[scratch.name] = on_gpu(np.full(shape, np.nan, scratch.dtype.numpy))
    for kernel in (part, join):
        run(emit(kernel), [own[b.name] for b in kernel.buffers], {s: sizes[s] for s in kernel.sizes})
    return own[work.buffers[2].name], shape[0]


@pytest.mark.parametrize(("length", "parts"), [(0, 0), (1, 1), (256, 1), (257, 2), (1000, 4)])
def test_the_sum_of_a_weight_gradient_is_cut(length: int, parts: int) -> None:
    work = bake_matmul(product(f32, transposed=(True, False), columns=20, epilogue=True), {"n": 24})
    arrays = arrays_of(work, {"k": length})
    got, count = ran_in_parts(work, {"k": length}, arrays)
    np.testing.assert_array_equal(got, np.maximum(arrays["a"].T @ arrays["b"] + arrays["bias"], 0))
    assert count == parts


@pytest.mark.parametrize("groups", [1, 2])
def test_the_sum_of_a_convolutions_weight_gradient_is_cut_along_the_batch(groups: int) -> None:
    work, sizes = conv("weight_gradient", (16, 16), groups, 1, 1), {"n": 9}
    arrays = arrays_of(work, sizes)
    want = {name: a.copy() for name, a in arrays.items()}
    oracle(work)(*(want[b.name] for b in work.buffers), sizes["n"])
    got, parts = ran_in_parts(work, sizes, arrays)
    np.testing.assert_array_equal(got, want["w"])
    assert parts == 3                       # 81 places an image, so four images are 256 steps and more


def cut(work: ir.Matmul, **known: int) -> tuple[ir.Kernel, ir.Kernel] | None:
    loops = loops_of(bake_matmul(work, known))
    found = contraction(loops)
    assert found is not None
    return in_parts(loops, found)


def test_what_is_not_cut() -> None:
    """Sums of results that fill a GPU, or may, and sums that are known to be short."""
    assert cut(product(f32)) is None
    assert cut(product(f32, columns=64)) is None
    assert cut(product(f32), n=64, k=512, m=64) is None
    assert cut(product(f32), n=4096, k=4096, m=4096) is None
    halves = cut(product(f32), n=64, k=513, m=64)
    assert halves is not None
    assert halves[0].grid[0][1] == 3


def test_narrow_products_are_left_to_plain_loops() -> None:
    assert contraction(loops_of(product(f32, columns=4))) is None
    assert emit_product(product(f32, columns=4)) is None
    assert contraction(loops_of(conv("forward", (8, 8), 8, 1, 1))) is None
