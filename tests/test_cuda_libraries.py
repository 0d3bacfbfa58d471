"""Products and convolutions handed to cuBLASLt and cuDNN, by stand-ins that compute from what they are told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import stub_cublaslt
import stub_cudnn
from cuda_machine import LockStep, compute, planned
from fake_gpu import FakeGpu, gpu
from library_memory import Memory

from tensorc import backend as K
from tensorc.codegen.cuda.assemble import CudaAssembly, assemble
from tensorc.codegen.cuda.library import ConvolutionCall, ProductCall
from tensorc.errors import DeviceError
from tensorc.runtime.cuda.libraries.calls import Libraries, are_wanted, missing
from tensorc.runtime.cuda.libraries.memory import alignment
from tensorc.runtime.devices import libraries
from tensorc.runtime.program import program

assert gpu
RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def forget():
    yield
    K.clear_session()


class Bench:
    """Functions run on a machine whose libraries are stand-ins, beside native code."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.machine: LockStep | None = None
        memory = Memory(lambda: self.machine.memory)            # type: ignore[union-attr]
        self.cublaslt = stub_cublaslt.install(patch, memory)
        self.cudnn = stub_cudnn.install(patch, memory)

    def libraries(self, machine: LockStep) -> Libraries:
        self.machine = machine
        return Libraries(machine.allocate, nullcontext, nullcontext())

    def run(self, function: Any, *inputs: Any, exact: bool = True) -> CudaAssembly:
        """Compares one call.  Gives the program."""
        call = function.compiled.apart(inputs)
        plan = planned(call.graph)
        assembly = assemble(plan, libraries=True)
        values = [call.values[p.name] for p in call.graph.params]
        got = compute(plan, assembly, values, call.sizes, LockStep(assembly, self.libraries))
        native = call.on(program(call.graph))()
        count = len(call.graph.outputs)
        got = [*got[:len(native)], *got[count:]]
        want = [*native, *(call.now[v.name] for v, _ in call.graph.updates)]
        for one, other in zip(got, want, strict=True):
            if exact:
                np.testing.assert_array_equal(one, other)
            else:
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
        return assembly


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def whole(*shape: int, dtype: str = "float32") -> Any:
    """Whole numbers, so that sums are exact in any order."""
    return RNG.integers(-3, 4, shape).astype(dtype)


def fixed(*shape: int, dtype: str = "float32") -> Any:
    return K.variable(whole(*shape, dtype=dtype), dtype=dtype)


# -- products


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)], ids=str)
def test_every_layout_of_operands(bench: Bench, dtype: str, turned: tuple[bool, bool]) -> None:
    a, b = ((19, None), (17, 19)) if turned == (True, True) else \
        ((19, None) if turned[0] else (None, 19), (17, 19) if turned[1] else (19, 17))
    x = K.placeholder(shape=a, dtype=dtype)
    w = fixed(*b, dtype=dtype)
    y = K.dot(K.transpose(x) if turned[0] else x, K.transpose(w) if turned[1] else w)
    given = whole(*(31 if n is None else n for n in a), dtype=dtype)
    (call,) = bench.run(K.function([x], [y]), given).calls.values()
    assert isinstance(call, ProductCall)
    assert (call.transpose_a, call.transpose_b) == turned
    assert bench.cublaslt.multiplied == 1
    assert bench.cublaslt.told[0]["stream"] == LockStep.stream


def dense_bias(x: Any, w: Any) -> Any:
    return K.dot(x, w) + fixed(int(w.shape[1]), dtype=K.dtype(w))


def dense_relu(x: Any, w: Any) -> Any:
    return K.relu(dense_bias(x, w))


def dense_residual(x: Any, w: Any) -> Any:
    return K.dot(x, w) + x


def dense_row(x: Any, w: Any) -> Any:
    return K.reshape(fixed(int(w.shape[1]), dtype=K.dtype(w)), (1, -1)) + K.dot(x, w)


@pytest.mark.parametrize(("build", "bias", "finish"), [(dense_bias, True, False), (dense_row, True, False),
                                                       (dense_relu, False, True), (dense_residual, False, True)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_epilogues(bench: Bench, build: Callable[[Any, Any], Any], bias: bool, finish: bool, dtype: str) -> None:
    """A bias is the library's to add; all else is a kernel of ours, since its relu makes 0 of a NaN."""
    x, w = K.placeholder(shape=(None, 24), dtype=dtype), fixed(24, 24, dtype=dtype)
    (call,) = bench.run(K.function([x], [build(x, w)]), whole(40, 24, dtype=dtype)).calls.values()
    assert (call.bias is not None, call.parts.finish is not None) == (bias, finish)
    assert bench.cublaslt.multiplied == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_bias_of_half_precision(bench: Bench, dtype: str) -> None:
    x = K.placeholder(shape=(None, 24), dtype=dtype)
    w, b = fixed(24, 16, dtype=dtype), fixed(16, dtype=dtype)
    (call,) = bench.run(K.function([x], [K.dot(x, w) + b]), whole(9, 24, dtype=dtype)).calls.values()
    assert call.bias is not None


def test_a_bias_for_each_row_is_none(bench: Bench) -> None:
    x, w, b = K.placeholder(shape=(16, 24)), fixed(24, 16), fixed(16, 1)
    (call,) = bench.run(K.function([x], [K.dot(x, w) + b]), whole(16, 24)).calls.values()
    assert call.bias is None


def test_the_update_of_a_weight_follows_the_product_that_makes_its_gradient(bench: Bench) -> None:
    x, w = K.placeholder(shape=(None, 16)), fixed(16, 24)
    loss = K.sum(K.square(K.dot(x, w)))
    (g,) = K.gradients(loss, [w])
    calls = bench.run(K.function([x], [loss], [(w, w - 0.5 * g)]), whole(8, 16)).calls.values()
    assert len(calls) == bench.cublaslt.multiplied == 2
    assert all(call.parts.finish is not None for call in calls)


@pytest.mark.parametrize(("shapes", "calls", "at_once"), [
    (((3, 20, 16), (3, 16, 24)), 1, 3),                 # one after the other
    (((2, 3, 20, 16), (2, 3, 16, 24)), 1, 6),           # neighbours are one
    (((3, 20, 16), (16, 24)), 1, 1),                    # the rows of all are rows of one
    (((1, 20, 16), (3, 16, 24)), 1, 3),                 # the left operand is shared
    (((2, 1, 20, 16), (1, 3, 16, 24)), 2, 3),           # a call for each of the left ones, which the others share
    (((2, 3, 20, 16), (2, 1, 16, 24)), 1, 2),
    (((2, 1, 3, 20, 16), (1, 4, 3, 16, 24)), 8, 3),
], ids=str)
def test_batches(bench: Bench, shapes: Any, calls: int, at_once: int) -> None:
    from tensorc.backend.tensor import Tensor
    from tensorc.ops.linalg import matmul

    x, y = (K.placeholder(shape=shape) for shape in shapes)
    product = Tensor(matmul(x.node, y.node, transpose_a=False, transpose_b=False))
    bench.run(K.function([x, y], [product]), *(whole(*shape) for shape in shapes))
    assert bench.cublaslt.multiplied == calls
    assert bench.cublaslt.told[0]["batch"] == at_once


def test_a_kernel_is_chosen_once_for_sizes_and_alignment(bench: Bench) -> None:
    """In a loop, rows of an odd length begin at other multiples each time."""
    x, w = K.placeholder(shape=(None, 9, 9)), fixed(9, 9)
    last, _, _ = K.rnn(lambda now, states: (h := K.dot(now, w) + states[0], [h]), K.permute_dimensions(x, (1, 0, 2)),
                       [K.zeros_like(x[0])])
    bench.run(K.function([x], [last]), whole(6, 9, 9))
    assert bench.cublaslt.asked < bench.cublaslt.multiplied or bench.cublaslt.multiplied == 1


@pytest.mark.parametrize(("asked", "used"), [("", "COMPUTE_32F"), ("0", "COMPUTE_32F"), ("1", "COMPUTE_32F_FAST_TF32")])
def test_operands_are_rounded_only_if_that_is_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch, asked: str,
                                                        used: str) -> None:
    monkeypatch.setenv("TENSORC_TF32", asked)
    x, w = K.placeholder(shape=(None, 16)), fixed(16, 16)
    image, filters = K.placeholder(shape=(None, 6, 6, 8)), fixed(3, 3, 8, 8)
    bench.run(K.function([x, image], [K.dot(x, w), K.conv2d(image, filters)]), whole(8, 16), whole(1, 6, 6, 8))
    assert bench.cublaslt.told[0]["compute"].name == used
    notes = {note.name for note in bench.cudnn.told[0]["notes"]}
    assert ("TENSOR_CORE" in notes) == (asked != "1")
    assert notes >= {"NONDETERMINISTIC", "DOWN_CONVERT_INPUTS"}


def test_nothing_to_sum_is_left_to_our_kernel(bench: Bench) -> None:
    x, y = K.placeholder(shape=(16, None)), K.placeholder(shape=(None, 16))
    bench.run(K.function([x, y], [K.dot(x, y) + fixed(16)]), whole(16, 0), whole(0, 16))
    assert bench.cublaslt.multiplied == 0


def test_whole_numbers_and_narrow_products_are_ours(bench: Bench) -> None:
    x, w = K.placeholder(shape=(None, 16), dtype="int32"), fixed(16, 16, dtype="int32")
    narrow = K.placeholder(shape=(None, 16))
    program = bench.run(K.function([x, narrow], [K.dot(x, w), K.dot(narrow, fixed(16, 3))]),
                        whole(9, 16, dtype="int32"), whole(9, 16))
    assert not program.calls


# -- convolutions


def network(kind: str, size: tuple[int, ...], taken: int, given: int, **how: Any) -> tuple[Any, Any]:
    """A function that makes a convolution or one of its gradients, and its input."""
    rank = len(size)
    conv = {1: K.conv1d, 2: K.conv2d, 3: K.conv3d}[rank]
    x, w = K.placeholder(shape=(None, *size, taken)), fixed(*[3] * rank, taken, given)
    y = conv(x, w, **how)
    if kind == "forward":
        return K.function([x], [y]), whole(2, *size, taken)
    wanted = x if kind == "input_gradient" else w
    pulled = y * whole(*(n or 1 for n in K.int_shape(y)[1:]))
    return K.function([x], K.gradients(K.sum(pulled), [wanted])), whole(2, *size, taken)


@pytest.mark.parametrize("kind", ["forward", "input_gradient", "weight_gradient"])
@pytest.mark.parametrize(("size", "how"), [
    ((7, 6), {"padding": "valid"}),
    ((7, 6), {"padding": "same"}),
    ((7, 6), {"padding": "same", "strides": (2, 2)}),            # more after than before
    ((8, 7), {"padding": "valid", "strides": (2, 3)}),           # an end that nothing reads
    ((9, 8), {"padding": "same", "dilation_rate": (2, 2)}),
    ((11,), {"padding": "same"}),
    ((11,), {"padding": "causal", "dilation_rate": 2}),
    ((11,), {"padding": "valid", "strides": 2}),
    ((5, 4, 6), {"padding": "same"}),
    ((5, 4, 6), {"padding": "valid", "strides": (2, 1, 2)}),
], ids=str)
def test_every_form_of_convolution(bench: Bench, kind: str, size: tuple[int, ...], how: Any) -> None:
    function, given = network(kind, size, 8, 16, **how)
    calls = [c for c in bench.run(function, given).calls.values() if isinstance(c, ConvolutionCall)]
    assert [c.kind for c in calls] == [kind]
    assert [told["kind"] for told in bench.cudnn.told] == [kind]
    assert bench.cudnn.told[0]["stream"] == LockStep.stream


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_convolutions_of_other_precisions(bench: Bench, dtype: str) -> None:
    x, w = K.placeholder(shape=(None, 6, 6, 8), dtype=dtype), fixed(3, 3, 8, 8, dtype=dtype)
    bench.run(K.function([x], [K.conv2d(x, w, padding="same")]), whole(2, 6, 6, 8, dtype=dtype))
    lossy = "NONDETERMINISTIC" if dtype == "float64" else "REDUCED_PRECISION_REDUCTION"
    assert lossy in {note.name for note in bench.cudnn.told[0]["notes"]}


@pytest.mark.parametrize("kind", ["forward", "input_gradient", "weight_gradient"])
def test_groups(bench: Bench, kind: str) -> None:
    from tensorc.backend.tensor import Tensor
    from tensorc.ops.conv import conv

    x, w = K.placeholder(shape=(2, 6, 6, 16)), fixed(3, 3, 8, 16)
    y = Tensor(conv(x.node, w.node, strides=(1, 1), dilations=(1, 1), low=(1, 1), shape=(6, 6), groups=2))
    wanted = [y] if kind == "forward" else K.gradients(K.sum(y * whole(6, 6, 16)),
                                                       [x if kind == "input_gradient" else w])
    bench.run(K.function([x], wanted), whole(2, 6, 6, 16))
    assert [told["kind"] for told in bench.cudnn.told] == [kind]


@pytest.mark.parametrize(("build", "bias", "finish"), [
    (lambda y: K.bias_add(y, fixed(16)), True, False),
    (lambda y: K.relu(K.bias_add(y, fixed(16))), False, True),
    (lambda y: y * 2, False, True),
], ids=["bias", "relu", "scale"])
def test_epilogues_of_convolutions(bench: Bench, build: Callable[[Any], Any], bias: bool, finish: bool) -> None:
    x, w = K.placeholder(shape=(None, 6, 6, 8)), fixed(3, 3, 8, 16)
    (call,) = bench.run(K.function([x], [build(K.conv2d(x, w))]), whole(2, 6, 6, 8)).calls.values()
    assert (call.bias is not None, call.parts.finish is not None) == (bias, finish)


def test_a_network_with_nan_and_infinity(bench: Bench) -> None:
    x, w, b = K.placeholder(shape=(None, 16)), fixed(16, 16), fixed(16)
    given = whole(12, 16)
    given[3, 2], given[5, 1] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        bench.run(K.function([x], [K.relu(K.dot(x, w) + b)]), given)


def test_a_training_step_of_a_convolutional_network(bench: Bench) -> None:
    x, y = K.placeholder((None, 8, 8, 8)), K.placeholder((None, 10))
    filters, bias = K.variable(RNG.normal(size=(3, 3, 8, 16)) / 9), K.variable(np.zeros(16))
    dense = K.variable(RNG.normal(size=(16, 10)) / 4)
    h = K.pool2d(K.relu(K.bias_add(K.conv2d(x, filters, padding="same"), bias)), (2, 2), (2, 2))
    loss = K.mean(K.categorical_crossentropy(y, K.dot(K.mean(h, axis=[1, 2]), dense), from_logits=True))
    params = [filters, bias, dense]
    updates = [(p, p - 0.1 * g) for p, g in zip(params, K.gradients(loss, params), strict=True)]
    targets = np.eye(10, dtype=np.float32)[RNG.integers(0, 10, 12)]
    images = RNG.normal(size=(12, 8, 8, 8)).astype(np.float32)
    bench.run(K.function([x, y], [loss], updates), images, targets, exact=False)
    assert len(bench.cudnn.told) == 2
    assert bench.cublaslt.multiplied == 3


# -- without


def test_where_a_library_has_nothing_our_kernel_runs(bench: Bench) -> None:
    bench.cublaslt.refuses = bench.cudnn.refuses = True
    x, w = K.placeholder(shape=(None, 16)), fixed(16, 16)
    image, filters = K.placeholder(shape=(None, 6, 6, 8)), fixed(3, 3, 8, 8)
    bench.run(K.function([x, image], [dense_relu(x, w), K.conv2d(image, filters)]), whole(8, 16), whole(1, 6, 6, 8))
    assert bench.cublaslt.asked == bench.cudnn.planned == 1
    assert not bench.cublaslt.multiplied
    assert not bench.cudnn.told


def test_a_failing_call_is_an_error_in_our_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise stub_cublaslt.cuBLASLtError("CUBLAS_STATUS_EXECUTION_FAILED")

    monkeypatch.setattr(sys.modules["nvmath.bindings.cublasLt"], "matmul", fails)
    x, w = K.placeholder(shape=(None, 16)), fixed(16, 16)
    with pytest.raises(DeviceError, match="cuBLASLt failed at a product: CUBLAS_STATUS_EXECUTION_FAILED"):
        bench.run(K.function([x], [K.dot(x, w)]), whole(8, 16))


def test_a_library_that_cannot_be_loaded_is_told_of_once(bench: Bench, monkeypatch: pytest.MonkeyPatch,
                                                         caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise stub_cublaslt.cuBLASLtError("CUBLAS_STATUS_NOT_INITIALIZED")

    monkeypatch.setattr(sys.modules["nvmath.bindings.cublasLt"], "create", fails)
    monkeypatch.setitem(sys.modules, "cudnn", None)
    x, w = K.placeholder(shape=(None, 16)), fixed(16, 16)
    image, filters = K.placeholder(shape=(None, 6, 6, 8)), fixed(3, 3, 8, 8)
    with caplog.at_level("INFO", logger="tensorc"):
        twice = K.dot(K.dot(x, w), w)
        bench.run(K.function([x, image], [twice, K.conv2d(image, filters)]), whole(8, 16), whole(1, 6, 6, 8))
    instead = "so kernels of our own do its work"
    told = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "tensorc"]
    assert ("WARNING", f"cuBLASLt cannot be used, {instead}: CUBLAS_STATUS_NOT_INITIALIZED") in told
    assert [level for level, text in told if "cuDNN is not installed" in text] == ["INFO"]
    assert len([text for _, text in told if "cuBLASLt" in text]) == 1


def test_they_are_imported_only_when_a_program_with_one_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, tensorc.runtime.cuda.libraries.calls as c, tensorc.codegen.cuda.assemble\n"
         "print(sorted({'nvmath', 'cudnn'} & set(sys.modules)))"],
        capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]


@pytest.mark.usefixtures("bench")
def test_they_may_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert are_wanted()
    monkeypatch.setenv("TENSORC_CUDA_LIBRARIES", "0")
    assert not are_wanted()


def test_what_is_missing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorc.runtime.cuda.libraries.calls.find_spec", lambda name: None)
    assert missing() == ["nvmath-python", "nvidia-cudnn-frontend"]
    assert not are_wanted()


def test_alignment() -> None:
    assert [alignment(x) for x in (0, 1, 2, 6, 48, 256, 768, 1 << 20)] == [256, 1, 2, 2, 16, 256, 256, 256]


class OnGpu(Memory):
    """Memory of the driver that has no GPU."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.on_stream = gpu.on_stream  # type: ignore[method-assign]

    def flat(self, address: int, count: int, dtype: Any) -> Any:
        return self.gpu.array(address, count, dtype)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_training_step_through_the_driver(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, refuses: bool) -> None:
    """Planned ahead of what is recorded, and replayed; or by our kernels, where the libraries have none."""
    memory = OnGpu(gpu)
    libraries = stub_cublaslt.install(monkeypatch, memory), stub_cudnn.install(monkeypatch, memory)
    for each in libraries:
        each.refuses = refuses
    x, w, filters = K.placeholder((None, 8, 8, 8)), fixed(16, 12), fixed(3, 3, 8, 16)

    def step(device: str) -> Any:
        y = K.dot(K.mean(K.relu(K.conv2d(x, filters, padding="same")), axis=[1, 2]), w)
        loss = K.sum(K.square(y))
        updates = [(p, p - 0.001 * g) for p, g in zip([w, filters], K.gradients(loss, [w, filters]), strict=True)]
        return K.function([x], [loss, y], updates, device=device)

    here, there = step("cpu"), step("cuda")
    before = [K.get_value(p) for p in (w, filters)]
    batches = [RNG.normal(size=(n, 8, 8, 8)).astype(np.float32) for n in (3, 3, 2, 3)]
    found = {}
    for name, function in (("cpu", here), ("cuda", there)):
        K.batch_set_value(list(zip((w, filters), before, strict=True)))
        found[name] = [*(r for batch in batches for r in function([batch])), *map(K.get_value, (w, filters))]
    for got, want in zip(found["cuda"], found["cpu"], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    if refuses:
        assert not libraries[0].multiplied + len(libraries[1].told)
    else:
        assert libraries[0].multiplied >= 3
        assert {told["kind"] for told in libraries[1].told} == {"forward", "weight_gradient"}


def test_equal_functions_do_what_the_settings_said_when_each_was_compiled(gpu: FakeGpu,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """A program is shared by equal graphs, but not by settings that ask for another."""
    library = stub_cublaslt.install(monkeypatch, OnGpu(gpu))
    stub_cudnn.install(monkeypatch, OnGpu(gpu))
    x, w = K.placeholder((None, 16)), fixed(16, 16)

    def compiled(libraries: str, tf32: str) -> Any:
        monkeypatch.setenv("TENSORC_CUDA_LIBRARIES", libraries)
        monkeypatch.setenv("TENSORC_TF32", tf32)
        function = K.function([x], [K.dot(x, w)], device="cuda")
        function([whole(9, 16)])
        return function

    def computes(function: Any, rows: int) -> list[str]:
        library.told.clear()
        given = whole(rows, 16)
        np.testing.assert_array_equal(function([given])[0], given @ K.get_value(w))
        return [told["compute"].name for told in library.told]

    ours, usual, tf32, again = (compiled(*asked) for asked in (("0", "0"), ("1", "0"), ("1", "1"), ("0", "0")))
    assert ours.compiled.program is again.compiled.program
    assert len({each.compiled.program for each in (ours, usual, tf32)}) == 3
    for rows in (10, 11):                   # recorded now, whatever the settings are
        assert computes(ours, rows) == []
        assert computes(usual, rows) == ["COMPUTE_32F"]
        assert computes(tf32, rows) == ["COMPUTE_32F_FAST_TF32"]


def test_what_is_shown(golden: Callable[[str, str], None]) -> None:
    x, image = K.placeholder(shape=(None, 784), name="x"), K.placeholder(shape=(None, 32, 32, 16), name="image")
    w, b, filters = fixed(784, 128), fixed(128), fixed(3, 3, 16, 32)
    many, several = K.placeholder(shape=(4, None, 64), name="many"), K.placeholder(shape=(4, 64, 64), name="several")
    loss = K.sum(K.square(K.conv2d(image, filters, strides=(2, 2))))
    outputs = [K.relu(K.dot(x, w) + b), K.bias_add(K.conv2d(image, filters, padding="same"), fixed(32)),
               K.batch_dot(many, several), *K.gradients(loss, [filters])]
    graph = planned(K.function([x, image, many, several], outputs).graph)
    golden("kernels/cuda_calls.txt", str(assemble(graph, libraries=True)).partition("# tiles")[0])


def test_devices_tell_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorc.runtime.cuda.libraries.calls.find_spec", lambda name: None)
    assert libraries() == ("no libraries for products and convolutions, nvmath-python, nvidia-cudnn-frontend missing: "
                           "pip install 'tensorc[cuda-libraries]'")
    monkeypatch.setattr("tensorc.runtime.cuda.libraries.calls.find_spec", lambda name: name)
    assert libraries() == "products by cuBLASLt, convolutions by cuDNN"
