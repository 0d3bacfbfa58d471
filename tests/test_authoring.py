"""What the command offers to authors of passes: a file to start from, and passes of a file in every function."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tensorc import backend as K
from tensorc import cli
from tensorc.errors import ArgumentError
from tensorc.ir.parse import parse

SCRIPT = """\
from tensorc import backend as K
from tensorc.passes import pipeline

x = K.placeholder(shape=(None,), name="x")
plain = K.function([x], [x * K.sigmoid(x)], name="plain")
exact = K.function([x], [x * K.sigmoid(x)], name="exact", passes=pipeline.default().without("weights"))
"""

PASSES = """\
from tensorc.ops import sigmoid, tanh
from tensorc.passes import Rewrite, graph_pass


class Swish(Rewrite):
    def pattern(self, x):
        return x * sigmoid(x)

    def build(self, x):
        return tanh(x)


@graph_pass(place="after share")
def look(graph, context):
    print("looked at", graph.name)
    return graph


def helper(graph):
    return graph

print("read")
"""

GRAPH = """\
graph f(x: f32[n])
  %0: f32[n] = sigmoid(x)
  %1: f32[n] = mul(x, %0)
  return %1
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    K.clear_session()

    def write_file(name: str, text: str) -> str:
        Path(name).write_text(text)
        return name

    yield write_file
    for name in ("mine", "tensorc_passes_mine", "other"):
        sys.modules.pop(name, None)


def ops_of(text: str) -> list[list[str]]:
    return [[node.op.name for node in graph.nodes if node.op.name != "parameter"] for graph in parse(text)]


# Passes from files.

def test_passes_of_a_file_join_every_function(write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]):
    write("mine.py", PASSES)
    assert cli.main(["--dump-ir", write("model.py", SCRIPT), "--passes", "mine.py"]) == 0
    printed = capsys.readouterr()
    assert ops_of(printed.out) == [["tanh"], ["tanh"]]
    assert printed.err == "read\nlooked at plain\nlooked at exact\n"

    assert cli.main(["--dump-ir", write("f.ir", GRAPH), "--passes", "mine.py", "--after", "look"]) == 0
    assert ops_of(capsys.readouterr().out) == [["tanh"]]

    assert cli.main(["--dump-ir", "f.ir"]) == 0
    assert ops_of(capsys.readouterr().out) == [["sigmoid", "mul"]]


def test_the_script_may_import_the_same_file(write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]):
    write("mine.py", PASSES)
    write("model.py", f"import mine\n{SCRIPT}with_it = K.function([x], [x + 1], name='with', passes=mine.Swish())\n")
    assert cli.main(["--dump-ir", "model.py:with", "--passes", "mine.py"]) == 0
    assert capsys.readouterr().err.count("read\n") == 1


def test_a_file_may_list_its_passes(write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]):
    write("mine.py", PASSES + "PASSES = [look]\n")
    write("f.ir", GRAPH)
    assert cli.main(["--dump-ir", "f.ir", "--passes", "mine.py"]) == 0
    assert ops_of(capsys.readouterr().out) == [["sigmoid", "mul"]]


def test_passes_and_rules_are_left_out_by_name(write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]):
    write("f.ir", "graph f(x: f32[n])\n  %0 = exp(x)\n  %1 = log(%0)\n  return %1\n")
    assert cli.main(["--dump-ir", "f.ir", "--without", "LogExp", "--without", "weights"]) == 0
    assert ops_of(capsys.readouterr().out) == [["exp", "log"]]


@pytest.mark.parametrize(("name", "text", "arguments"), [
    ("missing", None, ["--passes", "mine2.py"]),
    ("none_defined", "x = 1\n", ["--passes", "mine.py"]),
    ("unknown_name", None, ["--passes", "nonesuch"]),
    ("unknown_pass", None, ["--without", "layot"]),
    ("three", "PASSES = [3]\n", ["--passes", "mine.py"]),
])
def test_what_cannot_be_had(name: str, text: str | None, arguments: list[str], write: Callable[[str, str], str],
                            capsys: pytest.CaptureFixture[str], golden: Callable[[str, str], None]):
    write("f.ir", GRAPH)
    write("mine.py", PASSES if text is None else text)
    assert cli.main(["--dump-ir", "f.ir", *arguments]) == 1
    golden(f"errors/passes_{name}.txt", capsys.readouterr().err)


def test_a_file_that_fails_shows_its_own_traceback(write: Callable[[str, str], str],
                                                   capsys: pytest.CaptureFixture[str]):
    write("f.ir", GRAPH)
    write("mine.py", "def fail():\n    return 1 / 0\n\nfail()\n")
    assert cli.main(["--dump-ir", "f.ir", "--passes", "mine.py"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n  File ")
    assert 'mine.py", line 4' in err.splitlines()[1]
    assert err.endswith("ZeroDivisionError: division by zero\ntensorc: --passes mine.py: it failed\n")
    assert "importlib" not in err


# A file to start from.

def test_a_new_pass_works_and_so_does_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str], golden: Callable[[str, str], None]):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["--new-pass", "FastSwish"]) == 0
    golden("cli/new_pass.txt", "\n".join([capsys.readouterr().out, Path("fast_swish.py").read_text(),
                                          Path("test_fast_swish.py").read_text()]))
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": root, "TENSORC_CACHE": "0"})
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    Path("test_fast_swish.py").write_text("mine")
    assert cli.main(["--new-pass", "fast-swish"]) == 1
    assert "test_fast_swish.py is there already, and stays as it is" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["test_fast_swish.py"]
    assert Path("test_fast_swish.py").read_text() == "mine"


@pytest.mark.parametrize(("name", "told"), [
    ("3d", "letters and digits"), ("", "letters and digits"), ("a b", "letters and digits"), ("../x", "letters and"),
    ("class", "a word of Python's"), ("None", "a word of Python's"), ("json", "would hide a module"),
    ("Softmax", "has a pass of that name"), ("layout", "has a pass of that name"),
])
def test_names_are_checked(name: str, told: str, tmp_path: Path):
    from tensorc.authoring import new_pass

    with pytest.raises(ArgumentError, match=told):
        new_pass(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "module", "rule"), [
    ("FastSwish", "fast_swish", "FastSwish"), ("fast_swish", "fast_swish", "FastSwish"), ("Relu6", "relu6", "Relu6"),
    ("fold-bias2", "fold_bias2", "FoldBias2"),
])
def test_names_of_file_and_class_follow_from_one_another(name: str, module: str, rule: str, tmp_path: Path):
    from tensorc.authoring import new_pass

    file, test = new_pass(name, tmp_path)
    assert (file.name, test.name) == (f"{module}.py", f"test_{module}.py")
    assert f"class {rule}(Rewrite):" in file.read_text()
