"""The command `tensorc`: what it prints, and what it says when something is wrong."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tensorc
from tensorc import backend as K
from tensorc import cli
from tensorc.inspect.found import functions_of
from tensorc.inspect.history import trace
from tensorc.inspect.why import rules_of
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

    cpu, cuda, *_ = capsys.readouterr().out.splitlines()
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


RISK = """\
import numpy as np
from tensorc import backend as K

x = K.placeholder(shape=(None, 3), name="x")
w = K.variable(np.ones((3, 2)), name="w")
scores = K.dot(x, w)
risk = K.log(K.sum(K.tanh(scores), axis=-1))
safe = K.log(K.sum(K.exp(scores), axis=-1))
f = K.function([x], [risk, safe * 1.0], name="risk")
"""

RECURRENT = """\
import numpy as np
from tensorc import backend as K

x = K.placeholder(shape=(None, 5, 3), name="x")
w = K.variable(np.ones((3, 4)), name="w")
u = K.variable(np.eye(4), name="u")

def step(now, states):
    h = K.tanh(K.dot(now, w) + K.dot(states[0], u))
    return h, [h]

last, _, _ = K.rnn(step, x, [K.zeros_like(K.dot(x[:, 0], w))])
loss = K.sum(K.square(last))
train = K.function([x], [loss, *K.gradients(loss, [w, u])], name="train")
"""

VIEWS = [
    ("changed", RISK, ["--after", "changed"]),
    ("diff", RISK, ["--diff"]),
    ("diff_of_one_pass", RISK, ["--diff", "--after", "simplify"]),
    ("diff_of_a_loop", RECURRENT, ["--diff"]),
    ("loop", RECURRENT, []),
    ("node", RISK, ["--node", "%12"]),
    ("node_from_the_start", RISK, ["--node", "%4", "--after", "input"]),
    ("node_that_goes", RISK, ["--node", "5", "--after", "input"]),
    ("node_of_a_body", RECURRENT, ["--node", "body0:%2"]),
    ("node_that_left_a_body", RECURRENT, ["--node", "2"]),
    ("why_it_fired_and_did_not", RISK, ["--why", "LogSumExp"]),
    ("why_its_check_says_no", RECURRENT, ["--why", "SumOfProducts"]),
    ("why_a_rule_of_a_graph_pass", RECURRENT, ["--why", "ScaleIntoWeights"]),
    ("why_nothing_comes_near", RISK, ["--why", "SumTo"]),
    ("dot", RISK, ["--dot"]),
    ("dot_of_a_loop", RECURRENT, ["--dot", "--after", "input"]),
]


@pytest.mark.parametrize(("name", "text", "arguments"), VIEWS, ids=[name for name, _, _ in VIEWS])
def test_views(
    name: str,
    text: str,
    arguments: list[str],
    write: Callable[[str, str], str],
    capsys: pytest.CaptureFixture[str],
    golden: Callable[[str, str], None],
) -> None:
    assert cli.main(["--dump-ir", write("model.py", text), *arguments]) == 0

    printed = capsys.readouterr()
    golden(f"cli/{name}.txt", printed.out)
    assert printed.err == ""


def test_list(
    write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str], golden: Callable[[str, str], None]
) -> None:
    write("layers.py", "from tensorc import backend as K\n\n"
                       "def doubler(x):\n    return K.function([x], [x + x], name='double')\n")
    write("model.py", "import layers\n" + SCRIPT + "layers.doubler(x)\n")

    assert cli.main(["--list", "model.py"]) == 0

    golden("cli/list.txt", capsys.readouterr().out)


def test_a_function_of_a_library_is_chosen_by_its_number(
    write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    write("layers.py", "from tensorc import backend as K\n\n"
                       "def doubler(x):\n    return K.function([x], [x * 2], name='double')\n")
    write("model.py", "import layers\n" + SCRIPT + "layers.doubler(x)\n")

    assert cli.main(["--dump-ir", "model.py:3", "--after", "input"]) == 0

    out = capsys.readouterr().out
    assert [graph.name for graph in parse(out)] == ["double"]
    assert "# layers.py:4" in out


def test_functions_of_keras_are_listed(
    write: Callable[[str, str], str], golden: Callable[[str, str], None]
) -> None:
    path = write("model.py", """\
import numpy as np
from keras.layers import Dense
from keras.models import Sequential

model = Sequential([Dense(4, activation="relu", input_shape=(3,), name="hidden"), Dense(2, name="out")])
model.compile("sgd", "mse")
model.fit(np.ones((8, 3)), np.ones((8, 2)), verbose=0)
model.predict(np.ones((8, 3)))
""")

    done = subprocess.run(
        [sys.executable, "-m", "tensorc", "--list", path],
        env={**os.environ, "PYTHONPATH": str(Path(tensorc.__file__).parent.parent), "KERAS_BACKEND": "tensorc.keras"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    golden("cli/list_of_keras.txt", done.stdout)


def test_rules_are_listed_with_their_formulas(
    write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    write("mine.py", '''\
from tensorc.ops import exp
from tensorc.passes.rewrite import Rewrite


class ExpSum(Rewrite):
    """exp(x + y) → exp(x) · exp(y)"""

    def pattern(self, x, y):
        return exp(x + y)

    def build(self, x, y):
        return exp(x) * exp(y)
''')

    assert cli.main(["--rules", "--passes", "mine.py"]) == 0

    out = capsys.readouterr().out
    assert "  LogSumExp " in out
    assert "exp(x + y) → exp(x) · exp(y)" in out
    assert [line.split()[0] for line in out.splitlines() if line[:1].strip()].count("fuse") == 1


@pytest.mark.parametrize("script", [RISK, RECURRENT], ids=["risk", "recurrent"])
def test_every_rule_that_may_fire_is_listed(
    script: str, write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    function, = functions_of(Path(write("model.py", script)))[0]
    history = trace(function.graph, function.pipeline)

    assert history.rules.keys() <= {rule.name for step in function.pipeline.steps for rule in rules_of(step)}


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colours(
    environment: dict[str, str],
    coloured: bool,
    write: Callable[[str, str], str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write("model.py", RISK)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    plain = [shown(path, arguments, capsys) for _, _, arguments in VIEWS if "body0:%2" not in arguments]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    painted = [shown(path, arguments, capsys) for _, _, arguments in VIEWS if "body0:%2" not in arguments]

    assert (painted != plain) == coloured
    assert [re.sub("\x1b\\[[0-9;]*m", "", text) for text in painted] == plain


def shown(path: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    K.clear_session()
    assert cli.main(["--dump-ir", path, *arguments]) == 0
    return capsys.readouterr().out


def test_functions_are_shown_while_the_script_goes_on(
    write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("model.py", SCRIPT + "sys.__stdout__.write('the script goes on\\n')\n")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "__stdout__", sys.stdout)
        assert cli.main(["--dump-ir", f"{path}:double", "--after", "input"]) == 0

    assert capsys.readouterr().out.splitlines()[-1] == "the script goes on"


def test_a_mistake_in_the_command_ends_the_script(
    write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("model.py", SCRIPT.replace("double =", "print('went on')\ndouble ="))

    assert cli.main(["--dump-ir", path, "--after", "fuze"]) == 1

    assert capsys.readouterr().err == "tensorc: no pass is called 'fuze'; did you mean fuse?\n"


def test_a_function_answers_to_its_variable(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--dump-ir", f"{script}:layer", "--after", "input"]) == 0

    assert [graph.name for graph in parse(capsys.readouterr().out)] == ["dense"]


def test_graphs_of_a_text(
    write: Callable[[str, str], str], capsys: pytest.CaptureFixture[str], golden: Callable[[str, str], None]
) -> None:
    assert cli.main(["--dump-ir", write("double.ir", GRAPH)]) == 0

    golden("cli/text.txt", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("stage", "shows"), [("loops", "kernel"), ("llvm", "define"), ("asm", ".text"), ("cuda", "cuda.blockIdx")],
    ids=["loops", "llvm", "asm", "cuda"],
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
        ("unknown_pass_of_a_diff", GRAPH, ["model.ir", "--diff", "--after", "fuze"]),
        ("unknown_rule", GRAPH, ["model.ir", "--why", "logsumexp"]),
        ("pass_for_a_rule", GRAPH, ["model.ir", "--why", "layout"]),
        ("rule_after_a_pass", GRAPH, ["model.ir", "--why", "LogSumExp", "--after", "fold"]),
        ("unknown_node", GRAPH, ["model.ir", "--node", "%10"]),
        ("node_of_many_functions", SCRIPT, ["model.py", "--node", "%0"]),
        ("node_after_all", GRAPH, ["model.ir", "--node", "%0", "--after", "all"]),
        ("empty_text", "", ["model.ir"]),
        ("empty_script", "", ["model.py"]),
        ("text_with_two_errors", GRAPH + "  %1 = tahn(%0)\n", ["model.ir"]),
        ("directory", None, ["."]),
        ("near_file", GRAPH, ["modle.ir"]),
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
        write("model" + Path(arguments[0].partition(":")[0]).suffix, text)

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
