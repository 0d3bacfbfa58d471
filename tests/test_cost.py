"""What kernels cost: bytes and operations, counted by hand."""

import pytest

from tensorc import backend as K
from tensorc.backend.tensor import Tensor
from tensorc.codegen import loopir as ir
from tensorc.codegen.cost import Cost, cost
from tensorc.ir import dims
from tensorc.ir.types import f32, i32


@pytest.fixture(autouse=True)
def fresh_names() -> None:
    K.clear_session()


def kernels(*outputs: Tensor, inputs: list[Tensor]) -> list[ir.Kernel | ir.Matmul | ir.Conv]:
    """The kernels of a function."""
    return list(K.function(inputs, list(outputs)).kernels)


def test_an_elementwise_kernel_reads_and_writes_each_element_once() -> None:
    x, y = (K.placeholder((None, 3), name=name) for name in "xy")

    kernel, = kernels(x * y + x, inputs=[x, y])

    assert cost(kernel, {"x_0": 5}) == Cost(bytes=3 * 15 * 4, flops=2 * 15)


def test_a_function_counts_its_instructions() -> None:
    x = K.placeholder((10,), name="x", dtype="float64")

    kernel, = kernels(K.exp(x), inputs=[x])

    assert cost(kernel, {}) == Cost(bytes=2 * 80, flops=22 * 10)


def test_operations_on_integers_are_none_on_floats() -> None:
    x = K.placeholder((10,), name="x", dtype="int32")

    kernel, = kernels(x * x, inputs=[x])

    assert cost(kernel, {}) == Cost(bytes=2 * 40, flops=0)


def test_a_row_that_is_read_several_times_counts_once() -> None:
    x = K.placeholder((None, 100), name="x")

    kernel, = kernels(K.softmax(x), inputs=[x])

    assert cost(kernel, {"x_0": 7}).bytes == 2 * 4 * 700


def test_what_is_broadcast_counts_once() -> None:
    x, b = K.placeholder((None, 8), name="x"), K.placeholder((8,), name="b")

    kernel, = kernels(x + b, inputs=[x, b])

    assert cost(kernel, {"x_0": 100}) == Cost(bytes=2 * 3200 + 32, flops=800)


@pytest.mark.parametrize("n", [20_000, 100_000])
def test_the_chunks_of_a_long_reduction_count_as_far_as_they_go(n: int) -> None:
    x = K.placeholder((None,), name="x")

    part, join = kernels(K.sum(x), inputs=[x])

    chunks = -(-n // 16384)
    assert cost(part, {"x_0": n}) == Cost(bytes=4 * n + 4 * chunks, flops=n)
    assert cost(join, {"x_0": n}) == Cost(bytes=4 * chunks + 4, flops=chunks)


def test_rows_that_are_gathered_count_as_many_as_are_read() -> None:
    x, at = K.placeholder((1000, 8), name="x"), K.placeholder((None,), name="at", dtype="int32")

    kernel = next(k for k in kernels(K.gather(x, at), inputs=[x, at]) if "x" in [b.name for b in k.buffers])

    assert cost(kernel, {"at_0": 5}).bytes == 5 * 8 * 4 + 5 * 4 + 5 * 8 * 4
    assert cost(kernel, {"at_0": 10_000}).bytes == 1000 * 8 * 4 + 10_000 * 4 + 10_000 * 8 * 4


def test_a_product_with_its_epilogue() -> None:
    x, w, b = K.placeholder((None, 20), name="x"), K.placeholder((20, 30), name="w"), K.placeholder((30,), name="b")

    kernel, = kernels(K.dot(x, w) + b, inputs=[x, w, b])

    assert isinstance(kernel, ir.Matmul)
    assert cost(kernel, {"x_0": 7}) == Cost(bytes=4 * (140 + 600 + 30 + 210), flops=2 * 7 * 20 * 30 + 210)


@pytest.mark.parametrize("which", ["forward", "input_gradient", "weight_gradient"])
def test_a_convolution_and_its_gradients(which: str) -> None:
    x, w = K.placeholder((2, 9, 9, 8), name="x"), K.placeholder((3, 3, 8, 16), name="w")
    y = K.conv2d(x, w, padding="valid", data_format="channels_last")
    outputs = {"forward": y, "input_gradient": K.gradients(K.sum(y), [x])[0],
               "weight_gradient": K.gradients(K.sum(y), [w])[0]}

    found = [k for k in kernels(outputs[which], inputs=[x, w]) if isinstance(k, ir.Conv)]

    for kernel in found:
        assert cost(kernel, {}).flops == 2 * (2 * 7 * 7 * 16) * (3 * 3 * 8)
    assert [kernel.kind for kernel in found] == [which]


def test_a_sparse_product_does_two_operations_for_each_entry_and_column() -> None:
    x, w = K.placeholder((None, 100), name="x", sparse=True), K.placeholder((100, 40), name="w")
    kernel, = (k for k in kernels(K.dot(x, w), inputs=[x, w]) if isinstance(k, ir.Kernel) and len(k.buffers) == 5)
    sizes = dict.fromkeys(kernel.sizes, 12)

    entries, rows = (kernel.buffers[i].shape[0] for i in (0, 4))
    assert str(entries) in kernel.sizes
    assert cost(kernel, {**sizes, str(entries): 70}).flops == 2 * 70 * 40
    assert rows != entries


def test_what_depends_on_data_is_not_known() -> None:
    i, times = dims.symbol("i"), dims.symbol("times")
    read = ir.Let("times", ir.Load("x", (i,), i32))
    loop = ir.For("j", times, (ir.Store("y", (i,), ir.Call("exp", (ir.Num(1.0, f32),), f32)),))
    buffers = ir.Buffer("x", i32, (9,)), ir.Buffer("y", f32, (9,), "out")
    kernel = ir.Kernel("k", (), buffers, (("i", 9),), (read, loop))

    assert cost(kernel, {}) == Cost(bytes=2 * 36, flops=None)
