"""What a graph becomes for a processor and for a GPU."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from tensorc import backend as K
from tensorc.codegen.cuda.assemble import assemble
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import ROWS
from tensorc.passes.context import Context
from tensorc.passes.pipeline import default
from tensorc.passes.target import TARGETS


def on(target: str, function: K.Function) -> Graph:
    return default().run(function.graph, Context(target))


def on_both(function: K.Function) -> str:
    """The graph after all passes, for each target."""
    return "\n".join(f"# {target}\n" + re.sub(r" +#.*", "", str(on(target, function))) for target in TARGETS)


def test_a_loop_runs_for_all_rows_of_a_batch() -> None:
    x, first = K.placeholder((32, None, 6)), K.placeholder((32, 6))
    u = K.variable(np.eye(6))
    _, every, _ = K.rnn(lambda row, states: (h := K.tanh(row + K.dot(states[0], u)), [h]), x, [first])
    function = K.function([x, first], [every])

    shared = {target: [g.batch for g in on(target, function).plan.groups if g.kind == "loop"] for target in TARGETS}
    assert shared == {"cpu": [32], "cuda": [None]}
    assert not any(ROWS in source.sizes for source in assemble(on("cuda", function)).sources.values())


def test_nothing_is_kept(golden: Callable[[str, str], None]) -> None:
    x, w = K.placeholder((None, 300), name="x"), K.variable(np.ones((300, 200)), name="w")
    golden("passes/target_kept.txt", on_both(K.function([x], [K.dot(x, K.exp(w))], name="f")))


def test_both_sides_of_a_choice_are_computed(golden: Callable[[str, str], None]) -> None:
    x, flag = K.placeholder((None,), name="x"), K.placeholder((), dtype="bool", name="flag")

    def long() -> K.Tensor:
        y = x
        for _ in range(12):
            y = K.sin(y) * x
        return y

    golden("passes/target_choice.txt", on_both(K.function([x, flag], [K.switch(flag, long, lambda: x * 2)], name="f")))


def test_a_choice_with_a_product_stays_one() -> None:
    x, flag = K.placeholder((4, 4)), K.placeholder((), dtype="bool")
    chosen = K.function([x, flag], [K.switch(flag, lambda: K.dot(x, x), lambda: x)])
    assert [g.kind for g in on("cuda", chosen).plan.groups] == ["choice"]
