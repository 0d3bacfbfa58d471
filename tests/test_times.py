"""`tensorc --time`: whose time, at which sizes, on which values."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tensorc import backend as K
from tensorc import cli
from tensorc.ir.parse import parse
from tensorc.runtime import profile
from tensorc.runtime.limits import Limits
from tensorc.runtime.program import program
from tensorc.runtime.replay import call_of, made_up

Golden = Callable[[str, str], None]

LIMITS = Limits(2, ((1 << 16, 50e9), (1 << 28, 10e9)), (200e9, 100e9))

SCRIPT = """\
import numpy as np
from tensorc import backend as K

x = K.placeholder(shape=(None, 3), name="x")
w = K.variable(np.ones((3, 2)), name="w")

train = K.function([x], [K.sum(K.dot(x, w))], [(w, w * 0.5)], name="step")
idle = K.function([x], [x + x], name="idle")

fed = np.ones((7, 3), "float32")
train([fed[:2]])
train([fed])
fed[:] = np.nan
print("left with", K.get_value(w)[0, 0])
"""

GRAPH = """\
graph scaled(x: f32[n,m]; w: variable f32[m], key: key i64[2], at: data i32[n])
  %0: f32[n,m] = mul(x, w)
  return %0 ; w := w
"""


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, limits that need no measuring, and no time spent on good medians."""
    from tensorc.inspect import times

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profile, "limits", lambda: LIMITS)
    monkeypatch.setattr(times, "SECONDS", 0)
    K.clear_session()
    yield
    K.clear_session()


def without_times(text: str) -> str:
    """The table with what was measured left out, and its rows in the order of their kernels."""
    lines = [re.sub(r"[\d.]+ (ns|µs|ms|s)\b", "TIME", line) for line in text.splitlines()]
    lines = [re.sub(r"\d+ threads?, median of \d+ runs", "THREADS, RUNS", line) for line in lines]
    lines = [re.sub(r"^ *[\d.]+ % .*(memory|arithm\.) +", "MEASURED  ", line) for line in lines]
    blocks = "\n".join(lines).split("\n\n")
    return "\n\n".join("\n".join(sorted(map(str.strip, b.splitlines()))) if "MEASURED" in b else b for b in blocks)


def test_functions_of_a_script_at_their_last_calls(capsys: pytest.CaptureFixture[str], golden: Golden) -> None:
    Path("model.py").write_text(SCRIPT)

    assert cli.main(["--time", "model.py"]) == 0

    printed = capsys.readouterr()
    golden("cli/time.txt", without_times(printed.out))
    assert printed.err == "left with 0.25\n"


def test_one_function_by_the_variable_that_holds_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.py").write_text(SCRIPT)

    assert cli.main(["--time", "model.py:train"]) == 0

    assert re.findall(r"^(\w+): a call takes .* x_0 = 7,", capsys.readouterr().out, re.MULTILINE) == ["step"]


def test_a_graph_at_given_sizes(capsys: pytest.CaptureFixture[str], golden: Golden) -> None:
    Path("net.ir").write_text(GRAPH)

    assert cli.main(["--time", "net.ir", "--sizes", "m=5"]) == 0

    golden("cli/time_text.txt", without_times(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("unknown_size", ["net.ir", "--sizes", "k=3"]),
        ("sizes_are_a_list", ["net.ir", "--sizes", "n"]),
        ("sizes_of_a_script", ["model.py:step", "--sizes", "n=3"]),
        ("never_called", ["model.py:idle"]),
    ],
)
def test_errors(name: str, arguments: list[str], capsys: pytest.CaptureFixture[str], golden: Golden) -> None:
    Path("net.ir").write_text(GRAPH)
    Path("model.py").write_text(SCRIPT.replace('print("left', 'pass #'))

    assert cli.main(["--time", *arguments]) == 1

    golden(f"errors/time_{name}.txt", capsys.readouterr().err)


def test_the_status_is_that_of_the_script() -> None:
    Path("model.py").write_text(SCRIPT + "raise SystemExit(7)\n")

    assert cli.main(["--time", "model.py"]) == 7


def test_calls_are_not_kept_after_the_script() -> None:
    from tensorc.runtime.function import Function

    call = Function.__call__
    Path("model.py").write_text(SCRIPT)
    cli.main(["--time", "model.py"])

    assert Function.__call__ is call


def test_made_up_values_fit_and_stay_the_same() -> None:
    graph, = parse(GRAPH)

    values = made_up(graph, {"n": 4, "m": 3})
    again = made_up(graph, {"n": 4, "m": 3})

    assert {name: (v.shape, str(v.dtype)) for name, v in values.items()} == {
        "x": ((4, 3), "float32"), "w": ((3,), "float32"), "key": ((2,), "int64"), "at": ((4,), "int32"),
    }
    assert all(np.array_equal(values[name], again[name]) for name in values)
    assert set(values["at"]) <= {0, 1}


def test_a_graph_of_a_text_runs_on_given_values() -> None:
    graph, = parse("graph f(x: f32[n]; w: variable f32[n])\n  %0: f32[n] = add(x, w)\n  return %0 ; w := %0\n")
    call = call_of(graph, {"w": np.array([1, 2], "f"), "x": np.array([10, 20], "f")})
    run = call.on(program(graph))

    assert run()[0].tolist() == [11, 22]
    assert run()[0].tolist() == [21, 42]
    call.restore()
    assert run()[0].tolist() == [11, 22]
