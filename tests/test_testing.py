"""tensorc.testing on passes that are right and on passes that are wrong, each in its own way."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.errors import ArgumentError, RewriteError, ShapeError
from tensorc.ir.closing import close
from tensorc.ir.graph import Graph
from tensorc.ir.node import Node, constant
from tensorc.ir.parse import parse
from tensorc.ops import broadcast, exp, log, matmul, maximum, minimum, neg, relu, sigmoid, sum, tanh, transpose
from tensorc.ops.conditioned import Array
from tensorc.passes import No, Rewrite, checked, graph_pass
from tensorc.passes.checked import Manners, first_change
from tensorc.passes.context import Context
from tensorc.passes.manager import Pipeline, Rewriting, rewrite, steps_of
from tensorc.passes.pipeline import default
from tensorc.testing import check_graph, check_numbers, check_silent, check_text
from tensorc.testing.around import Barren, around_pattern
from tensorc.testing.grow import Grown, grow


class ExpProduct(Rewrite):
    """exp x · exp y → exp(x + y)"""

    def pattern(self, x, y):
        return exp(x) * exp(y)

    def check(self, node, x, y):
        return x.type == y.type or No("one of them is broadcast")

    def build(self, x, y):
        return exp(x + y)


class WrongSign(Rewrite):
    """x · sigmoid(x) → x · sigmoid(−x), which is wrong"""

    def pattern(self, x):
        return x * sigmoid(x)

    def build(self, x):
        return x * sigmoid(neg(x))


BEFORE = """
    graph f(x: f32[n], y: f32[n])
      %a = exp(x)
      %b = exp(y)
      %c = mul(%a, %b)
      return %c
"""
AFTER = """
    graph f(x: f32[n], y: f32[n])
      %0 = add(x, y)
      %1 = exp(%0)
      return %1
"""


# Text.

def test_a_graph_becomes_another():
    check_text(ExpProduct(), BEFORE, AFTER)
    check_text([ExpProduct()], AFTER, AFTER)
    check_text(Pipeline(*steps_of([ExpProduct()])), BEFORE, AFTER)


def test_another_graph_is_shown_as_a_difference(golden: Callable[[str, str], None]):
    with pytest.raises(AssertionError) as failure:
        check_text(ExpProduct(), BEFORE, AFTER.replace("add", "mul"))
    golden("testing/text.txt", str(failure.value))


def test_a_rule_that_does_not_fire_says_why(golden: Callable[[str, str], None]):
    with pytest.raises(AssertionError) as failure:
        check_text(ExpProduct(), BEFORE.replace("y: f32[n]", "y: f32[]"), AFTER)
    golden("testing/text_silent.txt", str(failure.value))


def test_silence():
    scalar = BEFORE.replace("y: f32[n]", "y: f32[]")
    check_silent(ExpProduct(), AFTER)
    check_silent(ExpProduct(), scalar, because="broadcast")
    check_silent(ExpProduct(), BEFORE.replace("exp(y)", "tanh(y)"), because="tanh.* is no exp")
    with pytest.raises(AssertionError, match=r"nothing says 'dtype'\n.*one of them is broadcast"):
        check_silent(ExpProduct(), scalar, because="dtype")
    with pytest.raises(AssertionError, match=r"ExpProduct fires\n--- given"):
        check_silent(ExpProduct(), BEFORE)
    with pytest.raises(AssertionError, match="no rewrite came near"):
        check_silent(ExpProduct(), "graph f(x: f32[n])\n  return x", because="x")


def test_texts_are_of_one_graph():
    with pytest.raises(ArgumentError, match="a text of one graph is wanted, this has 2"):
        check_silent(ExpProduct(), BEFORE + AFTER)


# Numbers.

def test_a_rule_that_is_right_passes():
    check_numbers(ExpProduct(), examples=10, compiled=2)


def test_a_rule_is_tried_on_products_and_reductions():
    class SumFirst(Rewrite):
        """sum(a · bᵀ, over rows) → (sum a) · bᵀ"""

        def pattern(self, a, b, axes):
            return sum(matmul(a, b, transpose_a=False, transpose_b=True), axes=axes, keepdims=True)

        def check(self, a, b, axes):
            if len(a.shape) != 2 or len(b.shape) != 2:
                return No("these are several products")
            return axes == (0,) or No("the sum is not over the rows")

        def build(self, a, b, axes):
            return matmul(sum(a, axes=axes, keepdims=True), b, transpose_a=False, transpose_b=True)

    check_numbers(SumFirst(), examples=6, compiled=2)


def test_a_rule_that_changes_values_is_named_with_a_repro(golden: Callable[[str, str], None], tmp_path: Path):
    with pytest.raises(AssertionError) as failure:
        check_numbers(WrongSign())
    golden("testing/numbers.txt", str(failure.value))

    again = str(failure.value).partition("this shows it again:\n")[2].replace("\n    ", "\n").removeprefix("    ")
    (tmp_path / "again.py").write_text(again)
    here = Path(__file__).resolve().parent
    done = subprocess.run([sys.executable, "again.py"], cwd=tmp_path, capture_output=True, text=True,
                          env={"PYTHONPATH": f"{here}:{here.parent}", "HOME": str(tmp_path)})
    assert "AssertionError: rewrite WrongSign changes a value" in done.stderr


class DropNaN(Rewrite):
    """x − x → 0, which for an infinity it is not"""

    def pattern(self, x):
        return x - x

    def build(self, x):
        return broadcast(constant(0, x.dtype), shape=x.shape)


class Quotient(Rewrite):
    """x / x → x · 0 + 1, which for 0 it is not"""

    def pattern(self, x):
        return x / x

    def build(self, x):
        return x * 0 + 1


class LogOfNegative(Rewrite):
    """tanh(x) · y → exp(log(tanh x)) · y, which for a negative x is NaN"""

    def pattern(self, x, y):
        return tanh(x) * y

    def build(self, x, y):
        return exp(log(tanh(x))) * y


class Overflowing(Rewrite):
    """x + y → x − (0 − y), but with y cut where that shows in large numbers alone"""

    def pattern(self, x):
        return relu(x)

    def build(self, x):
        return minimum(maximum(x, 0), 3.5)


class OnlyForMatrices(Rewrite):
    """sum x → sum(xᵀ) over the same axes, which for matrices that are not square it is not"""

    def pattern(self, x, axes):
        return sum(x, axes=axes, keepdims=False)

    def check(self, x):
        return len(x.shape) == 2 or No("x is no matrix")

    def build(self, x, axes):
        return sum(transpose(x, perm=(1, 0)), axes=axes, keepdims=False)


@pytest.mark.parametrize(("rule", "told"), [
    (DropNaN(), "it is 0.0.*not nan"),
    (Quotient(), "it is 1.0.*not nan"),
    (LogOfNegative(), "it is nan"),
    (Overflowing(), "it is 3.5"),
], ids=lambda x: x.name if isinstance(x, Rewrite) else "")
def test_rules_that_are_wrong_somewhere_are_found(rule: Rewrite, told: str):
    with pytest.raises(AssertionError, match=f"rewrite {rule.name} changes a value: {told}"):
        check_numbers(rule)


def test_a_rule_may_be_allowed_to_heal():
    check_numbers(Quotient(), heals=True, examples=10, compiled=1)


def test_a_rule_that_breaks_types_is_named_with_a_repro():
    with pytest.raises(RewriteError, match=r"rewrite OnlyForMatrices turned (.|\n)*smallest graph found") as failure:
        check_numbers(OnlyForMatrices())
    (graph,) = parse(failure.value.repro)
    with pytest.raises(RewriteError, match="rewrite OnlyForMatrices turned"):
        rewrite(OnlyForMatrices())(graph, Context())


def test_rules_that_oscillate_are_named_with_a_repro():
    class Negate(Rewrite):
        """x − y → x + (−y), which the compiler turns back"""

        def pattern(self, x, y):
            return x - y

        def build(self, x, y):
            return x + neg(y)

    with pytest.raises(RewriteError, match=r"undo one another: .*Negate(.|\n)*smallest graph found"):
        check_numbers(Negate(), examples=20)


def test_an_approximation_has_a_tolerance():
    class HardSwish(Rewrite):
        """x · sigmoid(x) → x · min(max(x / 6 + 1/2, 0), 1)"""

        def pattern(self, x):
            return x * sigmoid(x)

        def build(self, x):
            return x * minimum(maximum(x / 6 + 0.5, 0), 1)

    check_numbers(HardSwish(), tolerance=0.15, heals=True, examples=10, compiled=2)
    with pytest.raises(AssertionError, match="rewrite HardSwish changes a value"):
        check_numbers(HardSwish(), tolerance=0.01, heals=True)
    with pytest.raises(AssertionError, match="rewrite HardSwish changes a value"):
        check_numbers(HardSwish())


def test_a_rule_that_never_fires_says_why():
    class Never(Rewrite):
        """exp x, but never"""

        def pattern(self, x):
            return exp(x)

        def check(self, x):
            return No("the moon is not full")

        def build(self, x):
            return x

    with pytest.raises(AssertionError, match="Never: no graph was found in which it fires: its check says: the moon"):
        check_numbers(Never())


def test_a_rule_that_fails_is_named():
    class Fails(Rewrite):
        """exp x, with a mistake"""

        def pattern(self, x):
            return exp(x)

        def build(self, x):
            return x.nonesuch

    with pytest.raises(AttributeError, match="nonesuch") as failure:
        check_numbers(Fails())
    assert "in rewrite Fails, at" in failure.value.__notes__[0]


# Graph passes.

@graph_pass(place="after simplify")
def halved(graph: Graph, context: Context) -> Graph:
    """New values of variables go half the way, which is not what was asked for."""
    return graph.with_roots([*graph.outputs, *(v + (new - v) * 0.5 for v, new in graph.updates)])


@graph_pass(place="after share")
def doubled_and_halved(graph: Graph, context: Context) -> Graph:
    """The same values by another way."""
    return graph.with_roots([(o * 2) * 0.5 if o.dtype.is_float else o for o in graph.roots])


TRAINING = """
    graph step(x: f32[n,3]; w: variable f32[3,2])
      %0 = matmul(x, w) {transpose_a=false, transpose_b=false}
      %1 = matmul(x, %0) {transpose_a=true, transpose_b=false}
      %2 = mul(%1, 0.1:f32)
      %3 = sub(w, %2)
      return %0 ; w := %3
"""


def test_a_graph_pass_is_tried_round_graphs_that_are_given():
    check_numbers(doubled_and_halved, around=TRAINING, examples=6, compiled=2)
    with pytest.raises(AssertionError, match="pass 'halved' changes a value"):
        check_numbers(halved, around=TRAINING)
    with pytest.raises(ArgumentError, match="halved has no pattern; give graphs in which it fires as `around`"):
        check_numbers(halved)
    with pytest.raises(AssertionError, match="halved: no graph was found in which it fires"):
        check_numbers(halved, around="graph f(x: f32[n])\n  %0 = exp(x)\n  return %0", examples=1)


def test_one_graph_is_held_to_its_values():
    check_graph(ExpProduct(), BEFORE)
    check_graph(ExpProduct(), BEFORE, {"x": [1.0, np.inf], "y": [2.0, -1.0]})
    with pytest.raises(AssertionError, match=r"rewrite DropNaN changes a value: it is 0.0 at \[1\], not nan"):
        check_graph(DropNaN(), "graph f(x: f32[n])\n  %0 = sub(x, x)\n  return %0", {"x": [1.0, np.inf]})


# What it rests on.

def closed(g: Grown) -> tuple[Graph, dict[str, Array]]:
    """A computation as a graph, and values for its parameters by name."""
    found = close("f", g.inputs, g.outputs, g.updates)
    return found.graph, {param.name: g.values[0][leaf] if leaf.op.name == "parameter" else leaf.value
                         for param, leaf in zip(found.graph.params, found.leaves, strict=True)}


def test_the_compilers_own_passes_change_nothing():
    for seed in range(25):
        graph, values = closed(grow(Random(seed), 15))
        assert first_change(graph, default(), values) is None


SWEEPS = {rule.name: rule for step in default().steps if isinstance(step.run, Rewriting) for rule in step.run.rules}


def test_the_compilers_own_rules_change_nothing_where_they_fire():
    fired = 0
    for rule in SWEEPS.values():
        try:
            g = around_pattern(rule, Random(rule.name))
        except Barren:
            continue
        graph, values = closed(g)
        context = Context()
        change = first_change(graph, Pipeline(*steps_of([rule])), values,
                              closely={rule.name: Manners()}, context=context)
        assert change is None, str(change)
        fired += context.firings[rule.name] > 0
    assert fired > 0.6 * len(SWEEPS)


def test_a_change_in_the_body_of_a_loop_is_laid_to_the_rule():
    (graph,) = parse("""
        body body0(x0: f32[4], s0: f32[4])
          %0 = sigmoid(s0)
          %1 = mul(s0, %0)
          %2 = add(%1, x0)
          return %2
        graph f(x: f32[n,4], s: f32[4])
          %0 = scan(x, s) {body=@body0, sequences=1, states=1, length=n, reverse=false, result=0}
          return %0
    """)
    change = first_change(graph, default().joined(WrongSign()), {
        "x": np.ones((3, 4), "float32"), "s": np.full(4, 0.5, "float32")})
    assert change is not None
    assert change.rule == "WrongSign"
    with pytest.raises(RewriteError, match="rewrite WrongSign changes a value"):
        checked.check(graph, default().joined(WrongSign()))


def test_where_no_values_can_be_made_up_nothing_is_told():
    (graph,) = parse("graph f(x: f32[n*m])\n  %0 = sigmoid(x)\n  %1 = mul(x, %0)\n  return %1")
    assert first_change(graph, default().joined(WrongSign())) is None
    values = {"x": np.array([1.0], "float32")}
    with pytest.raises(ShapeError):
        first_change(graph, default().joined(WrongSign()), values)


def test_arrays_are_spelled_as_python():
    for array in (np.array([1.5, np.nan, -np.inf], "float32"), np.array(True), np.zeros((0, 2), "int64"),
                  np.arange(2000.0).reshape(2, 1000)):
        again = eval(checked.spelled(array), {"np": np, "array": np.array})
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert np.array_equal(again, array, equal_nan=array.dtype.kind == "f")


def test_a_repro_is_small():
    x: Node = parse("graph f(x: f32[n,3])\n  return x")[0].params[0]
    deep = x
    for _ in range(30):
        deep = tanh(deep)
    wide = sum(deep, axes=(0,), keepdims=False)
    graph = Graph("f", (x,), (relu(wide), deep))

    class Bad(Rewrite):
        """relu x → x and one more axis"""

        def pattern(self, x):
            return relu(x)

        def build(self, x):
            return broadcast(x, shape=(2, *x.shape))

    with pytest.raises(RewriteError, match="Bad turned") as failure:
        default().joined(Bad()).run(graph)
    assert failure.value.repro == "graph repro(x0: f32[3])\n  %0: f32[3] = relu(x0)\n  return %0\n"


def test_a_running_program_checks_the_passes_it_was_given(monkeypatch: pytest.MonkeyPatch):
    x = K.placeholder((None, 3), name="x")
    right, wrong = (K.function([x], [x * K.sigmoid(x)], passes=p) for p in (ExpProduct(), WrongSign()))
    row = np.ones((1, 3), "float32")
    monkeypatch.setenv("TENSORC_CHECK", "1")
    assert right([row])[0].shape == (1, 3)
    with pytest.raises(RewriteError, match=r"rewrite WrongSign changes a value(.|\n)*test_testing.py"):
        wrong([row])
