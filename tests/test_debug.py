"""TENSORC_DEBUG: what is told of programs as they are made."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.errors import ArgumentError
from tensorc.passes.manager import graph_pass
from tensorc.runtime import store
from tensorc.runtime.program import forget_programs

Golden = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No names and no programs of other tests."""
    K.clear_session()
    forget_programs()
    monkeypatch.delenv("TENSORC_DEBUG", raising=False)


def layer(name: str = "layer", **options: Any) -> Any:
    """A function that is called once."""
    x, w = K.placeholder((None, 3), name="x"), K.variable(np.ones((3, 2)), name="w")
    function = K.function([x], [K.log(K.sum(K.exp(K.dot(x, w) * 1), axis=1))], name=name, **options)
    function([np.ones((4, 3))])
    return function


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What was written, without times and lines."""
    printed = capsys.readouterr()
    assert printed.out == ""
    text = re.sub(r"test_debug\.py:\d+", "test_debug.py:LINE", printed.err)
    text = re.sub(r" *[\d.]+ ms", " TIME", text)
    return re.sub(r"(passes|assemble|compile|load) [\d.]+", r"\1 TIME", text)


def test_nothing_is_told_that_is_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    layer()

    assert told(capsys) == ""


@pytest.mark.parametrize("level", ["1", "2", "3"])
def test_a_program_that_is_compiled(level: str, monkeypatch: pytest.MonkeyPatch, golden: Golden,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TENSORC_DEBUG", level)

    layer()

    golden(f"cli/debug_{level}.txt", told(capsys))


def test_the_last_level_shows_machine_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TENSORC_DEBUG", "4")

    layer()

    lines = told(capsys).splitlines()
    assert all(line.startswith("tensorc:") for line in lines)
    for shown in ("kernel k0", "define void @run", ".text"):
        assert any(shown in line for line in lines)


def test_functions_that_compute_the_same_share_a_program(monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TENSORC_DEBUG", "1")
    first, second, third = layer("one"), layer("other"), layer("one")

    assert told(capsys).splitlines()[1:] == ["tensorc: other: shares the program of one",
                                             "tensorc: one: shares the program of another one"]
    assert first.compiled.program is second.compiled.program is third.compiled.program


def test_what_the_store_has_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    shared = store.Store(tmp_path / "store", 1 << 30)
    monkeypatch.setattr(store, "shared", lambda: shared)
    monkeypatch.setenv("TENSORC_DEBUG", "1")

    for _ in range(2):
        layer()
        forget_programs()
    layer(passes=[graph_pass(lambda graph, context: graph)])

    first, second, third = told(capsys).splitlines()
    assert first.startswith("tensorc: layer: compiled in")
    assert first.endswith("kernels; kept in the store")
    assert re.fullmatch(r"tensorc: layer: loaded from the store in TIME \(load TIME\): \d+ nodes, \d+ kernels", second)
    assert third.endswith("; not kept in the store")


def test_a_program_that_is_loaded_tells_its_passes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    shared = store.Store(tmp_path / "store", 1 << 30)
    monkeypatch.setattr(store, "shared", lambda: shared)
    layer()
    forget_programs()
    monkeypatch.setenv("TENSORC_DEBUG", "2")

    layer()

    lines = told(capsys).splitlines()
    assert "loaded from the store" in lines[0]
    assert [line.split()[1] for line in lines[1:4]] == ["loops", "simplify", "fold"]


def test_a_program_that_is_checked_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TENSORC_DEBUG", "1")
    monkeypatch.setenv("TENSORC_CHECK", "1")

    layer()

    assert told(capsys).startswith("tensorc: layer: compiled, to be checked, in TIME (")


def test_another_level_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORC_DEBUG", "5")

    with pytest.raises(ArgumentError, match="TENSORC_DEBUG is a whole number from 0 to 4, not '5'"):
        layer()
