"""TENSORC_DUMP: every stage of a function on disk, and a script that repeats its first call."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.codegen.cpu.lanes import Lanes
from tensorc.ir.parse import parse
from tensorc.passes.manager import graph_pass
from tensorc.passes.pipeline import default
from tensorc.runtime.replay import replay

Golden = Callable[[str, str], None]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that functions are written to."""
    K.clear_session()
    monkeypatch.setenv("TENSORC_DUMP", str(tmp_path / "dumps"))
    return tmp_path / "dumps"


def repeat(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the script of a function, far from the folder it lies in."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(folder / "repro.py")], cwd="/", text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def layer() -> Any:
    x, w = K.placeholder((None, 3), name="x"), K.variable(np.ones((3, 2)), name="w")
    y = K.tanh(K.dot(x, w))
    return K.function([x], [K.log(K.sum(K.exp(y), axis=1))], [(w, w + K.sum(y))], name="layer")


def test_every_stage_is_there_and_the_graphs_parse(dumps: Path, golden: Golden) -> None:
    function = layer()
    function([np.ones((4, 3))])

    own, = dumps.iterdir()
    graphs = sorted(own.glob("*.ir"))
    assert own.name == "01-layer"
    assert [path.stem[3:] for path in graphs] == ["input", *default().names]
    assert [parse(path.read_text())[-1].name for path in graphs] == ["layer"] * len(graphs)
    assert parse(graphs[-1].read_text())[-1].outputs == function.ir.outputs
    assert (own / "loops.txt").read_text() == str(function.kernels)
    assert "define" in (own / "program.ll").read_text()
    assert ".text" in (own / "program.s").read_text()
    golden("cli/repro.py.txt", re.sub(r":\d+", ":LINE", (own / "repro.py").read_text()))


def test_the_script_repeats_the_first_call(dumps: Path) -> None:
    function = layer()
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("f")
    function([x])
    function([x + 1])

    own, = dumps.iterdir()
    with np.load(own / "values.npz") as values:
        assert values["x"].tobytes() == x.tobytes()
        assert np.array_equal(values["w"], np.ones((3, 2)))
    done = repeat(own)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("layer: x_0 = 4, values.npz\n"
                           "  output 0 (float32, 4): as the reference\n"
                           "  w (float32, 3×2): as the reference\n")


def test_random_streams_loops_choices_and_messages_come_back(dumps: Path) -> None:
    x, at = K.placeholder((None, 5, 4), name="x"), K.placeholder((None,), name="at", dtype="int32")
    test, table = K.placeholder((), name="test", dtype="bool"), K.variable(np.ones((3, 4)), name="table")
    h = K.dropout(x, 0.5) + K.gather(table, at)[:, None, :]
    last, _, _ = K.rnn(lambda row, s: (K.tanh(row + s[0]), [K.tanh(row + s[0])]), h, [h[:, 0] * 0.0])
    y = K.print_tensor(K.switch(test, lambda: K.dot(last, K.ones((4, 4))), lambda: last), 'say "\\this" """now""":')
    function = K.function([x, at, test], [y, K.random_normal((3,))], [(table, table * 0.5)], name="all of it!")
    function([np.ones((2, 5, 4)), [0, 2], True])

    own, = dumps.iterdir()
    done = repeat(own, TENSORC_CHECK="1")

    assert (done.returncode, done.stderr) == (0, "")
    assert own.name == "01-all_of_it_"
    assert done.stdout.count("as the reference") == len(done.stdout.splitlines()) - 1


def test_bfloat16_comes_back(dumps: Path) -> None:
    x = K.placeholder((None, 3), name="x", dtype="bfloat16")
    w = K.variable(np.ones((3, 2)) / 3, dtype="bfloat16", name="w")
    K.function([x], [K.softmax(K.dot(x, w) + 0.1)], name="half")([np.ones((4, 3))])
    done = repeat(dumps / "01-half")
    assert done.stdout == "half: x_0 = 4, values.npz\n  output 0 (bfloat16, 4×2): as the reference\n", done.stderr


def test_without_a_call_values_are_made_up(dumps: Path) -> None:
    function = layer()
    assert function.compiled.program is not None

    own, = dumps.iterdir()
    done = repeat(own)

    assert not (own / "values.npz").exists()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("layer: x_0 = 8, values that are made up\n")


def test_a_difference_is_told(dumps: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    layer()([np.ones((4, 3))])
    own, = dumps.iterdir()
    graph = parse((own / "00-input.ir").read_text())[-1]
    monkeypatch.delenv("TENSORC_DUMP")
    monkeypatch.setattr(Lanes, "tanh", Lanes.sin)

    assert replay(graph, own / "values.npz", {}, passes=default().without("weights")) == 1

    told = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"  output 0 .*: 4 of 4 elements differ, the first at \[0\]: \S+ in place of \S+", told[1])
    assert re.fullmatch(r"  w .*: 6 of 6 elements differ, the first at \[0, 0\]: \S+ in place of \S+", told[2])


def test_what_passes_have_stabilised_is_no_difference(dumps: Path) -> None:
    x = K.placeholder((None,), name="x")
    function = K.function([x], [K.log(K.sum(K.exp(x)))])
    assert function([[1000, 0]])[0] == 1000

    assert repeat(next(dumps.iterdir())).returncode == 0


def test_a_sparse_matrix_is_saved_and_never_made_up(dumps: Path) -> None:
    x, w = K.placeholder((None, 4), name="x", sparse=True), K.variable(np.ones((4, 2)), name="w")
    K.function([x], [K.dot(x, w)], name="saved")([np.eye(4, dtype="f")])
    saved = dumps / "01-saved"

    assert repeat(saved).returncode == 0
    (saved / "values.npz").unlink()
    assert "whose values cannot be made up" in repeat(saved).stderr


def test_each_function_has_a_folder_of_its_own(dumps: Path) -> None:
    x = K.placeholder((None,), name="x")
    for name in ("a", "b", "a"):
        K.function([x], [K.exp(x)], name=name)([[1.0]])

    assert sorted(each.name for each in dumps.iterdir()) == ["01-a", "02-b", "03-a"]


def test_a_pass_that_fails_leaves_what_came_before_it(dumps: Path) -> None:
    @graph_pass(place="after simplify")
    def broken(graph: Any, context: Any) -> Any:
        raise ZeroDivisionError

    x = K.placeholder((None,), name="x")
    with pytest.raises(ZeroDivisionError):
        K.function([x], [K.exp(x)], name="f", passes=[broken])([[1.0]])

    own, = dumps.iterdir()
    assert sorted(each.name for each in own.iterdir())[-3:] == ["02-simplify.ir", "repro.py", "values.npz"]
    assert "broken" in (own / "repro.py").read_text()
