"""The command `tensorc`: what it prints, and what it says when something is wrong."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tensorc
from tensorc import backend as K
from tensorc import cli
from tensorc.ir.parse import parse

SCRIPT = """\
import sys
import numpy as np
from tensorc import backend as K

x = K.placeholder(shape=(None, 3), name="x")
w = K.variable(np.ones((3, 2)), name="w")
b = K.variable(np.zeros(2), name="b")

layer = K.function([x], [K.relu(K.dot(x, w) + b)], name="dense")
double = K.function([x], [x + x], name="double")
print("the script was given", sys.argv[1:])
"""

GRAPH = """\
graph double(x: f32[n,3])
  %0: f32[n,3] = add(x, x)
  return %0
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """A function that writes a file into the empty folder in which the test runs, and returns its name."""
    monkeypatch.chdir(tmp_path)
    K.clear_session()

    def write_file(name: str, text: str) -> str:
        Path(name).write_text(text)
        return name

    return write_file


@pytest.fixture
def script(write: Callable[[str, str], str]) -> str:
    return write("model.py", SCRIPT)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])

    assert stop.value.code == 0
    assert capsys.readouterr().out == f"tensorc {tensorc.__version__}\n"


def test_devices_names_the_processor_and_its_threads(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--devices"]) == 0

    cpu, cuda = capsys.readouterr().out.splitlines()
    assert cpu.startswith("cpu ")
    assert "bits" in cpu
    assert "thread" in cpu
    assert cuda.startswith("cuda ")


def test_functions_of_a_script(
    script: str, capsys: pytest.CaptureFixture[str], golden: Callable[[str, str], None]
) -> None:
    assert cli.main(["--dump-ir", script, "--", "--epochs", "3"]) == 0

    printed = capsys.readouterr()
    golden("cli/script.txt", printed.out)
    assert printed.err == "the script was given ['--epochs', '3']\n"


def test_every_pass_in_turn(
    script: str, capsys: pytest.CaptureFixture[str], golden: Callable[[str, str], None]
) -> None:
    assert cli.main(["--dump-ir", f"{script}:dense", "--after", "all"]) == 0

    out = capsys.readouterr().out
    golden("cli/all_passes.txt", out)
    assert all(graph.name == "dense" for graph in parse(out))


def test_a_function_answers_to_its_variable(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--dump-ir", f"{script}:layer", "--after", "input"]) == 0

    assert [graph.name for graph in parse(capsys.readouterr().out)] == ["dense"]


def test_graphs_of_a_text(
    write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str], golden: Callable[[str, str], None]
) -> None:
    assert cli.main(["--dump-ir", write("double.ir", GRAPH)]) == 0

    golden("cli/text.txt", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("stage", "shows"), [("loops", "kernel"), ("llvm", "define"), ("asm", ".text")], ids=["loops", "llvm", "asm"]
)
def test_stages(
    stage: str, shows: str, write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--dump-ir", write("double.ir", GRAPH), "--stage", stage]) == 0

    assert shows in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "arguments"),
    [
        ("missing_file", None, ["nowhere.py"]),
        ("unknown_name", SCRIPT, ["model.py:dens"]),
        ("unknown_pass", GRAPH, ["model.ir", "--after", "simplfy"]),
        ("pass_of_another_stage", GRAPH, ["model.ir", "--after", "all", "--stage", "asm"]),
        ("no_function", "print(1)\n", ["model.py"]),
        ("syntax_of_a_graph", GRAPH.replace("add(x, x)", "add(x, y)"), ["model.ir"]),
        ("unknown_op", GRAPH.replace("add", "plus"), ["model.ir"]),
    ],
)
def test_errors(
    name: str,
    text: str | None,
    arguments: list[str],
    write: Callable[[str, str], str],
    capsys: pytest.CaptureFixture[str],
    golden: Callable[[str, str], None],
) -> None:
    if text is not None:
        write(arguments[0].partition(":")[0], text)

    assert cli.main(["--dump-ir", *arguments]) == 1

    printed = capsys.readouterr()
    golden(f"errors/cli_{name}.txt", printed.err)
    assert printed.out == ""


def test_an_error_of_the_script_is_shown_as_python_shows_it(
    write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("model.py", SCRIPT + "def fail():\n    return 1 / 0\n\nfail()\n")

    assert cli.main(["--dump-ir", path]) == 1

    printed = capsys.readouterr()
    assert "ZeroDivisionError" in printed.err
    assert "runpy" not in printed.err
    assert "cli.py" not in printed.err
    assert [graph.name for graph in parse(printed.out)] == ["dense", "double"]


def test_a_script_that_fails_at_once_is_not_blamed_for_having_no_function(
    write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--dump-ir", write("model.py", "a = = 1\n")]) == 1

    printed = capsys.readouterr()
    assert printed.err.startswith('  File "model.py", line 1')
    assert "SyntaxError" in printed.err.splitlines()[-1]
    assert printed.out == ""


def test_a_reader_may_leave_early(write: Callable[[str, str], str]) -> None:
    path = write("double.ir", GRAPH)
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-m", "tensorc", "--dump-ir", path],
        env={**os.environ, "PYTHONPATH": str(Path(tensorc.__file__).parent.parent)},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)

    assert done.stderr == ""


def test_the_script_decides_the_status(write: Callable[[str, str], str]) -> None:
    assert cli.main(["--dump-ir", write("model.py", SCRIPT + "sys.exit(7)\n")]) == 7


def test_the_interpreter_is_left_as_it_was(script: str) -> None:
    argv, search = list(sys.argv), list(sys.path)

    cli.main(["--dump-ir", script])

    assert (sys.argv, sys.path) == (argv, search)
