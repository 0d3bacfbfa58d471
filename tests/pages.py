"""Functions for the tests of the page that `--html` writes."""

from __future__ import annotations

from pathlib import Path

from tensorc.inspect.found import Found, functions_of
from tensorc.inspect.history import trace
from tensorc.ir.parse import parse
from tensorc.passes.pipeline import default

LOGSUMEXP = Path(__file__).parents[1] / "examples/logsumexp.ir"

SCRIPT = """from tensorc import backend as K

x = K.placeholder(shape=(None, 8), name="x")
y = K.placeholder(shape=(None, 3), name="y")
w = K.variable([[0.1] * 3] * 8, name="w")
loss = K.mean(K.categorical_crossentropy(y, K.softmax(K.dot(x, w))))
train = K.function([x, y], [loss], [(w, w - 0.1 * K.gradients(loss, [w])[0])], name="train")

decay = K.foldl(lambda total, row: K.tanh(total * 0.5 + row), x, K.zeros((8,)))
loop = K.function([x], [decay], name="loop")
"""


def small() -> list[Found]:
    return functions_of(LOGSUMEXP)[0]


def of_script(folder: Path) -> list[Found]:
    """A training step, and a loop."""
    path = folder / "model.py"
    path.write_text(SCRIPT)
    found, status = functions_of(path)
    assert status == 0
    return found


def long(nodes: int) -> Found:
    """A graph of so many nodes, of which one in seven is rewritten, up to the first sweep."""
    lines = ["graph long(x: f32[n])", "  %0: f32[n] = exp(x)", "  %1: f32[n] = exp(%0)"]
    for i in range(2, nodes):
        plain = f"add(%{i - 1}, %{max(0, i - 5)})" if i % 2 else f"tanh(%{i - 1})"
        lines.append(f"  %{i}: f32[n] = " + (plain if i % 7 else f"mul(%{i - 1}, 1.0:f32)"))
    graph = parse("\n".join([*lines, f"  return %{nodes - 1}", ""]))[0]
    return Found((graph.name,), graph, default().up_to("simplify"))


def history_of(found: Found):
    return trace(found.graph, found.pipeline)
