"""On a real GPU, `pytest -m gpu`: all operations, all K functions, training steps and the examples, beside the CPU.

The same cases are tried on a driver that has no GPU, a few of them, so that what is to run there has run before.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gpu_cases as cases
import pytest
from fake_gpu import FakeGpu, gpu
from k_examples import GROUPS
from test_registry import COMPUTING, DIFFERENTIABLE

from tensorc import backend as K
from tensorc.codegen.cuda.compile import INSTALL, missing
from tensorc.errors import DeviceError
from tensorc.ir.node import OPS
from tensorc.runtime.cuda.timing import limits

assert gpu
ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ("classifier.py", "clipping.py", "cnn.py --out picture.png", "ctc.py",
            "digits.py --seeds 1 --epochs 12 --out picture.png", "flops.py", "int8.py", "layer.py", "lstm.py",
            "own_operations.py", "own_pass.py", "resnet.py --out picture.png", "theano_style.py",
            "vae.py --out picture.png")


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU that is there; the test is skipped where none is, and says what is missing."""
    from tensorc.runtime.cuda.device import device

    try:
        device()
    except DeviceError as error:
        pytest.skip(f"no GPU: {str(error).splitlines()[0]}")
    if lacking := missing():
        pytest.skip(f"{', '.join(lacking)} missing: {INSTALL}")
    before = K.floatx()
    yield
    K.set_floatx(before)
    K.clear_session()


@pytest.fixture
def stand_in(gpu: FakeGpu) -> Iterator[FakeGpu]:
    before = K.floatx()
    yield gpu
    K.set_floatx(before)
    K.clear_session()


@pytest.mark.gpu
@pytest.mark.usefixtures("real")
class TestOnAGpu:
    @pytest.mark.parametrize("op", COMPUTING, ids=lambda op: op.name)
    def test_value(self, op) -> None:
        cases.value(op)

    @pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
    def test_gradient(self, op) -> None:
        cases.gradient(op)

    @pytest.mark.parametrize("floatx", ["float32", "float64"])
    @pytest.mark.parametrize("group", GROUPS)
    def test_functions_of_k(self, group: str, floatx: str) -> None:
        cases.functions_of_k(group, floatx)

    @pytest.mark.parametrize("libraries", ["1", "0"], ids=["libraries", "own kernels"])
    @pytest.mark.parametrize("network", cases.NETWORKS)
    def test_training(self, network: Callable[[], cases.Network], libraries: str,
                      monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TENSORC_CUDA_LIBRARIES", libraries)
        cases.training(network)

    @pytest.mark.parametrize("network", cases.NETWORKS)
    def test_kernels_beside_their_references(self, network: Callable[[], cases.Network],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TENSORC_CHECK", "1")
        cases.training(network)

    def test_profiles(self) -> None:
        cases.profiled()

    def test_results_are_the_same_bits_every_time(self) -> None:
        cases.repeats()

    def test_random_numbers(self) -> None:
        cases.random_numbers()

    @pytest.mark.parametrize("command", EXAMPLES)
    def test_examples(self, command: str, tmp_path: Path) -> None:
        name, *arguments = command.split()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TENSORC_DEVICE": "cuda"}
        done = subprocess.run([sys.executable, ROOT / "examples" / name, *arguments], cwd=tmp_path, text=True,
                              capture_output=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["tanh", "matmul", "gather", "cumsum", "conv", "argmax"])
def test_operations_on_a_stand_in(name: str, stand_in: FakeGpu) -> None:
    cases.value(OPS[name])
    assert stand_in.launched


@pytest.mark.parametrize("name", ["softmax", "matmul", "max"])
def test_gradients_on_a_stand_in(name: str, stand_in: FakeGpu) -> None:
    cases.gradient(OPS[name])


@pytest.mark.parametrize("group", [next(iter(GROUPS))])
def test_functions_of_k_on_a_stand_in(group: str, stand_in: FakeGpu) -> None:
    cases.functions_of_k(group, "float32")


@pytest.mark.parametrize("network", cases.NETWORKS)
def test_training_on_a_stand_in(network: Callable[[], cases.Network], stand_in: FakeGpu) -> None:
    cases.training(network, rows=(9, 9, 4))


def test_repeats_on_a_stand_in(stand_in: FakeGpu) -> None:
    cases.repeats()
    cases.random_numbers()


def test_profiles_and_checks_on_a_stand_in(stand_in: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorc.runtime.cuda.timing.COPIES", (1 << 12, 1 << 16))
    limits.cache_clear()
    cases.profiled(rows=3)
    limits.cache_clear()
    monkeypatch.setenv("TENSORC_CHECK", "1")
    cases.training(cases.dense, rows=(9, 4))


def test_no_example_is_left_out() -> None:
    imported = {"common.py", "shapes.py"}
    assert {each.split()[0] for each in EXAMPLES} == {p.name for p in (ROOT / "examples").glob("*.py")} - imported


@pytest.mark.parametrize("name", ["layer.py", "classifier.py"])
def test_examples_on_a_stand_in(name: str, stand_in: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORC_DEVICE", "cuda")
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert stand_in.launched
