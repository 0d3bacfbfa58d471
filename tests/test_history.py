"""The history of a function: where each node of each stage comes from, and the kernel it becomes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.backend.provenance import ancestors
from tensorc.backend.tensor import Tensor
from tensorc.errors import ArgumentError
from tensorc.inspect.history import History, trace
from tensorc.inspect.origins import Came, Went, all_nodes
from tensorc.ir.graph import Graph
from tensorc.ir.parse import parse
from tensorc.ops import exp, log
from tensorc.passes.context import Context
from tensorc.passes.manager import Pipeline, Step, rewrite
from tensorc.passes.pipeline import default
from tensorc.passes.rewrite import Rewrite

LOGSUMEXP = """\
graph logsumexp(x: f32[n,m])
  %0: f32[n,m] = exp(x)
  %1: f32[n] = sum(%0) {axes=[1], keepdims=false}
  %2: f32[n] = log(%1)
  %3: f32[n] = neg(%2)
  return %3
"""


class LogExp(Rewrite):
    """log(exp x) → x"""

    def pattern(self, x):
        return log(exp(x))

    def build(self, x):
        return x


def dense() -> list[Tensor]:
    """A training step with softmax and cross-entropy."""
    x, y = K.placeholder(shape=(None, 8), name="x"), K.placeholder(shape=(None, 4), name="y")
    w = K.variable(np.ones((8, 4)), name="w")
    loss = K.mean(K.categorical_crossentropy(y, K.softmax(K.dot(x, w))))
    return [loss, *K.gradients(loss, [w])]


def recurrent() -> list[Tensor]:
    """A loop, and its gradients."""
    x, w = K.placeholder(shape=(None, 5, 3), name="x"), K.variable(np.eye(3), name="w")
    last, _, _ = K.rnn(lambda now, before: (h := K.tanh(now + K.dot(before[0], w)), [h]), x, [K.zeros_like(x[:, 0])])
    loss = K.sum(K.square(last))
    return [loss, *K.gradients(loss, [w])]


def channels_first() -> list[Tensor]:
    """Convolutions whose data has to be turned."""
    x = K.placeholder(shape=(None, 3, 8, 8), name="x")
    for _ in range(2):
        kernel = K.variable(np.ones((3, 3, x.shape[1], 4)))
        x = K.relu(K.conv2d(x, kernel, padding="same", data_format="channels_first"))
    return [x]


def choice() -> list[Tensor]:
    """One of two products."""
    x, w = K.placeholder(shape=(None, 8), name="x"), K.variable(np.ones((8, 8)), name="w")
    return [K.switch(K.sum(x) > 0, lambda: K.exp(K.dot(x, w)), lambda: K.dot(K.tanh(x), w))]


def graph_of(outputs: list[Tensor]) -> Graph:
    found = {h for output in outputs for h in ancestors([output]) if K.is_placeholder(h)}
    return K.function(sorted(found, key=lambda h: h.name), outputs).compiled.graph


@pytest.fixture
def logsumexp() -> History:
    return trace(parse(LOGSUMEXP)[0], default())


def test_stages_are_the_passes_in_order(logsumexp: History) -> None:
    assert [stage.name for stage in logsumexp.stages] == ["input", *default().names]
    assert logsumexp.failure is None


def test_a_rewrite_names_itself_and_the_node_it_took_the_place_of(logsumexp: History) -> None:
    before, after = logsumexp.stages[1], logsumexp.stages[2]
    made = after.node("%0")

    assert after.came[made] == Came("made", before.node("%2"), ("LogSumExp",))
    assert after.came[after.node("%1")] == Came("rebuilt", before.node("%3"))
    assert after.came[after.node("x")] == Came("kept", before.node("x"))
    assert after.went[before.node("%2")] == Went(made, ("LogSumExp",))
    assert after.went[before.node("%1")] == Went(None, ("LogSumExp",))
    assert [fired.rule for fired in after.fired] == ["LogSumExp"]


def test_a_node_is_followed_through_all_stages(logsumexp: History) -> None:
    last = len(logsumexp.stages) - 1
    path = logsumexp.back(logsumexp.stages[last].node("%8"), last)

    assert [i for i, _ in path] == list(range(last + 1))
    assert [node.op.name for _, node in path[:4]] == ["log", "log", "logsumexp", "logsumexp"]
    assert logsumexp.forth(path[0][1], 0)[:4] == path[:4]
    assert logsumexp.forth(path[0][1], 0)[-1] == (last, logsumexp.stages[last].node("%9"))
    inner = logsumexp.stages[0].node("%0")
    assert logsumexp.forth(inner, 0) == [(0, inner), (1, inner)]


def test_what_a_pass_does_without_rewrites_is_paired_from_the_results() -> None:
    def turned(graph: Graph, context: Context) -> Graph:
        root, = graph.outputs
        return graph.with_roots([exp(root.args[0].args[0]) * 2.0 + 1.0])

    graph, = parse("graph f(x: f32[n])\n  %0: f32[n] = log(x)\n  %1: f32[n] = exp(%0)\n  return %1\n")
    after = trace(graph, Pipeline(Step("turned", turned))).stages[1]

    assert after.came[after.node("%2")] == Came("made", graph.outputs[0], ("turned",))
    assert after.came[after.node("%0")] == Came("made", graph.outputs[0], ("turned",))
    assert after.went[graph.outputs[0]] == Went(after.node("%2"), ("turned",))
    assert after.went[graph.outputs[0].args[0]] == Went(None, ("turned",))


def test_a_failing_pass_leaves_the_stages_before_it() -> None:
    def broken(graph: Graph, context: Context) -> Graph:
        return replace(graph, outputs=graph.outputs * 2)

    graph, = parse(LOGSUMEXP)
    history = trace(graph, Pipeline(Step("simplify", rewrite(LogExp())), Step("broken", broken)))

    assert [stage.name for stage in history.stages] == ["input", "simplify"]
    assert "pass 'broken'" in str(history.failure)


def test_near_misses_of_the_rules_asked_about_alone() -> None:
    graph, = parse("graph f(x: f32[n])\n  %0: f32[n] = tanh(x)\n  %1: f32[n] = log(%0)\n  return %1\n")

    assert all(not stage.missed for stage in trace(graph, default()).stages)
    missed = trace(graph, default(), ["LogSumExp"]).stages[2].missed
    assert {miss.rule for miss in missed} == {"LogSumExp"}
    assert "tanh: f32[n] is no sum" in {miss.reason for miss in missed}


def test_names_are_those_of_the_dump() -> None:
    history = trace(graph_of(recurrent()), default())

    assert [block.title for block in history.stages[-1].blocks] == ["body0", "body1", ""]
    for stage in history.stages:
        assert stage.blocks[-1].title == ""
        for block in stage.blocks:
            for node in block.nodes:
                assert block.line(node) in stage.text
                assert stage.node(block.name(node)) is node


def test_an_unknown_name_is_met_with_those_there_are(logsumexp: History) -> None:
    with pytest.raises(ArgumentError, match=r"logsumexp has no node '%17' as it was built; .*%1"):
        logsumexp.stages[0].node("%17")


def test_a_node_knows_its_kernels(logsumexp: History) -> None:
    last = logsumexp.stages[-1]
    kernels = last.kernels

    assert [kernel.name for kernel in kernels.all] == ["k0"]
    assert kernels.of(last.graph.outputs[0]) == kernels.all
    assert kernels.of(last.node("x")) == ()
    assert kernels.all[0].loops[0].name == "k0"
    for name in kernels.all[0].functions:
        assert f"@{name}(" in kernels.llvm_functions[name].splitlines()[0].replace('"', "")
        assert kernels.asm_functions[name].startswith(f"{name}:")
        assert "ret" in kernels.asm_functions[name]


@pytest.mark.parametrize("outputs", [dense, recurrent, channels_first, choice])
def test_every_node_of_every_stage_has_an_origin(outputs: Callable[[], list[Tensor]]) -> None:
    history = trace(graph_of(outputs()), default())

    for before, after in zip(history.stages, history.stages[1:], strict=False):
        olds, news = set(all_nodes(before.graph)), set(all_nodes(after.graph))
        assert after.came.keys() >= news
        assert after.went.keys() >= olds
        for node, came in ((node, after.came[node]) for node in news):
            assert came.source is None or came.source in olds
            assert (came.how == "kept") == (node in olds)
            assert (came.how == "made") == bool(came.rules)
            assert came.how != "rebuilt" or came.source.op is node.op
        for went in after.went.values():
            assert went.target is None or went.target in news
