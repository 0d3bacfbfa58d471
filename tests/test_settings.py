"""Settings from the environment: what they mean, and what is said of values that are not allowed."""

from pathlib import Path

import pytest

import tensorc
from tensorc import backend as K
from tensorc import settings
from tensorc.errors import ArgumentError, DeviceError
from tensorc.runtime import devices

ROOT = Path(__file__).resolve().parent.parent


def test_the_readme_shows_the_table() -> None:
    assert settings.table() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_nothing_else_is_read_from_the_environment() -> None:
    sources = [path for folder in ("tensorc", "passes", "codegen", "runtime") for path in (ROOT / folder).rglob("*.py")]
    of_the_platform = ("LOCALAPPDATA", "XDG_CACHE_HOME", "NO_COLOR", "FORCE_COLOR", "TERM")
    for path in sources:
        for line in path.read_text(encoding="utf-8").splitlines():
            if "os.environ" in line and path.name != "settings.py":
                assert any(name in line for name in of_the_platform), f"{path}: {line}"


@pytest.mark.parametrize("value", ["many", "0", "-1", "2.5", "1025"])
def test_a_number_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORC_NUM_THREADS", value)

    with pytest.raises(ArgumentError, match=r"TENSORC_NUM_THREADS is a whole number from 1 to 1024, not "):
        settings.num_threads()


def test_what_is_not_set_is_left_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TENSORC_NUM_THREADS", "TENSORC_CACHE_SIZE"):
        monkeypatch.setenv(name, " ")

    assert settings.num_threads() is None
    assert settings.cache_size(512) == 512


# The device.

def made() -> None:
    K.function([], [K.constant(1.0)])


def test_a_gpu_that_is_asked_for_is_refused_and_nothing_runs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=r"K\.function asks for a GPU(.|\n)*here: "):
        K.function([], [K.constant(1.0)], device="cuda")
    with pytest.raises(DeviceError, match=r"tensorc\.device asks for a GPU"), tensorc.device("cuda"):
        made()

    monkeypatch.setenv("TENSORC_DEVICE", "cuda")
    with pytest.raises(DeviceError, match="TENSORC_DEVICE asks for a GPU"):
        made()
    with tensorc.device("cpu"):
        made()
    K.function([], [K.constant(1.0)], device="cpu")


def test_an_unknown_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORC_DEVICE", "tpu")
    with pytest.raises(ArgumentError, match="TENSORC_DEVICE: 'tpu' is no device; known are cpu, cuda"):
        made()


def test_what_a_compiler_needs_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorc.codegen.cuda.compile.missing", lambda: ["numba-cuda"])
    assert devices.compiler() == "no compiler for its kernels, numba-cuda missing: pip install 'tensorc[cuda]'"
