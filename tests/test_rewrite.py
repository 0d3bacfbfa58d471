"""Rewrites, the driver that applies them, and pipelines, on rules made for the purpose."""

import pytest

from tensorc.errors import ArgumentError, RewriteError
from tensorc.ir.dims import symbol
from tensorc.ir.graph import Graph, Location
from tensorc.ir.node import Node, constant
from tensorc.ir.types import TensorType, f16, f32, i32
from tensorc.ops.elementwise import add, cast, exp, log, maximum, mul, neg, sqrt, sub, tanh
from tensorc.ops.reduce import sum
from tensorc.ops.shape import broadcast, concatenate
from tensorc.ops.source import parameter
from tensorc.passes.context import Context
from tensorc.passes.driver import Table, sweep
from tensorc.passes.manager import Pipeline, Step, rewrite
from tensorc.passes.rewrite import Fired, Missed, No, Rewrite, filled_with, matches

N = symbol("n")


def tensor(name: str, *shape, dtype=f32) -> Node:
    return parameter(name=name, role="input", uid=0, type=TensorType(dtype, shape))


X, Y = tensor("x", N, 3), tensor("y", N, 3)


def graph(*outputs: Node, provenance=None) -> Graph:
    params = dict.fromkeys(n for o in outputs for n in Graph("g", (), (o,)).nodes if n.op is parameter)
    return Graph("g", tuple(params), outputs, provenance=provenance or {})


def applied(rules, *outputs: Node, context=None) -> tuple[Node, ...]:
    return sweep(graph(*outputs), rules, context or Context()).outputs


class LogExp(Rewrite):
    """log(exp x) → x"""

    def pattern(self, x):
        return log(exp(x))

    def build(self, x):
        return x


class AddZero(Rewrite):
    """x + 0 → x"""

    def pattern(self, x):
        return x + 0

    def check(self, node, x):
        return node.type == x.type or No("the 0 broadcasts x")

    def build(self, x):
        return x


class SumSum(Rewrite):
    """sum(sum(x, a), b) → sum(x, a and b)  where both keep the axes"""

    def pattern(self, x, a, b):
        return sum(sum(x, axes=a, keepdims=True), axes=b, keepdims=True)

    def build(self, x, a, b):
        return sum(x, axes=tuple(sorted({*a, *b})), keepdims=True)


class Reassociate(Rewrite):
    """x + (y + z) → (x + y) + z"""

    def pattern(self, x, y, z):
        return sub(x, sub(y, z))

    def build(self, x, y, z):
        return add(sub(x, y), z)


# Matching.

def test_a_number_matches_constants_filled_with_it_of_any_dtype_and_shape():
    zero = broadcast(constant([0.0, 0.0, 0.0], f32), shape=(N, 3))
    assert applied([AddZero()], X + 0, 0 + X, X + zero) == (X, X, X)
    k = tensor("k", 3, dtype=i32)
    assert applied([AddZero()], k + 0) == (k,)
    assert filled_with(constant([1.0, 2.0], f32)) is None
    assert filled_with(constant(float("nan"), f32)) is None
    assert filled_with(X) is None


def test_operands_of_commutative_operations_match_in_either_order():
    pattern = AddZero().patterns[0]
    assert [m["x"] for m in matches(pattern, add(constant(0.0, f32), X))] == [X]

    class Product(Rewrite):
        """(x · y) · exp x"""

        def pattern(self, x, y):
            return (x * y) * exp(x)

        def build(self, x, y):
            return x + y

    for spelled in (mul(mul(X, Y), exp(X)), mul(exp(X), mul(X, Y)), mul(mul(Y, X), exp(X)), mul(exp(X), mul(Y, X))):
        assert applied([Product()], spelled) == (X + Y,)
    assert applied([Product()], mul(mul(Y, Y), exp(X))) == (mul(mul(Y, Y), exp(X)),)


def test_a_hole_stands_for_one_thing():
    class Twice(Rewrite):
        """x − x → x"""

        def pattern(self, x):
            return x - x

        def build(self, x):
            return x

    assert applied([Twice()], X - X, X - Y) == (X, X - Y)


def test_attributes_are_holes_values_or_left_out():
    inner = sum(X, axes=(0,), keepdims=True)
    assert applied([SumSum()], sum(inner, axes=(1,), keepdims=True)) == (sum(X, axes=(0, 1), keepdims=True),)
    dropped = sum(inner, axes=(1,), keepdims=False)
    assert applied([SumSum()], dropped) == (dropped,)

    class CastOfCast(Rewrite):
        """cast(cast x) → cast x"""

        def pattern(self, x, dtype):
            return cast(cast(x), dtype=dtype)

        def build(self, x, dtype):
            return cast(x, dtype=dtype)

    assert applied([CastOfCast()], cast(cast(X, dtype=i32), dtype=f32)) == (cast(X, dtype=f32),)


def test_a_starred_hole_takes_the_operands_that_are_left():
    class First(Rewrite):
        """concatenate(x, ys) + 0 → concatenate(ys, x)"""

        def pattern(self, x, *ys, axis):
            return concatenate(x, *ys, axis=axis) + 0

        def build(self, x, *ys, axis):
            return concatenate(*ys, x, axis=axis)

    z = tensor("z", N, 3)
    assert applied([First()], concatenate(X, Y, z, axis=0) + 0) == (concatenate(Y, z, X, axis=0),)
    assert applied([First()], concatenate(X, axis=0) + 0) == (concatenate(X, axis=0),)


def test_a_rule_may_have_several_spellings_and_its_methods_ask_for_the_holes_they_need():
    class Either(Rewrite):
        """−(x − y), −y + x → y"""

        def pattern(self, x, y):
            return neg(x - y), neg(y) + x

        def check(self, x):
            return x is X

        def build(self, y):
            return y

    assert applied([Either()], neg(X - Y), neg(Y) + X, neg(Y - X)) == (Y, Y, neg(Y - X))


def test_a_rule_that_asks_for_a_hole_its_pattern_lacks_is_refused():
    class Wrong(Rewrite):
        """log x → y"""

        def pattern(self, x):
            return log(x)

        def build(self, y):
            return y

    class Taken(Rewrite):
        """log x → x"""

        def pattern(self, node):
            return log(node)

        def build(self, node):
            return node

    with pytest.raises(RewriteError, match=r"Wrong: log\(x\) has no hole 'y'"):
        Wrong()
    with pytest.raises(RewriteError, match="Taken: no hole may be called node"):
        Taken()


def test_a_lone_hole_sees_every_node_that_concerns_it():
    seen = []

    class Watch(Rewrite):
        """nothing"""

        def pattern(self, x):
            return x

        def concerns(self, op, operands):
            return exp in operands

        def build(self, node):
            seen.append(node)
            return No("only looks")

    applied([Watch()], log(exp(X)) + tanh(X))
    assert seen == [log(exp(X))]


# The driver.

def test_rules_apply_to_what_other_rules_made():
    assert applied([LogExp(), AddZero()], log(exp(log(exp(X) + 0)) + 0)) == (X,)


def test_the_first_rule_that_applies_is_taken():
    class Other(LogExp):
        """log(exp x) → tanh x"""

        def build(self, x):
            return tanh(x)

    assert applied([Other(), LogExp()], log(exp(X))) == (tanh(X),)
    assert applied([LogExp(), Other()], log(exp(X))) == (X,)


def test_shared_nodes_are_rewritten_once():
    context = Context()
    shared = log(exp(X))
    assert applied([LogExp()], shared * shared, -shared, context=context) == (X * X, -X)
    assert context.firings == {"LogExp": 1}


def test_a_changed_type_is_refused_with_the_rule_and_the_line():
    class Bad(Rewrite):
        """exp x → sum x"""

        def pattern(self, x):
            return exp(x)

        def build(self, x):
            return sum(x, axes=(0,), keepdims=False)

    lines = {exp(X): (Location("train.py", 12),)}
    with pytest.raises(RewriteError, match=r"Bad turned f32\[n,3\] into f32\[3\](.|\n)*train.py:12"):
        sweep(graph(exp(X), provenance=lines), [Bad()], Context())


def test_a_build_that_fails_is_reported_with_the_rule():
    class Fails(Rewrite):
        """exp x → x + something of another shape"""

        def pattern(self, x):
            return exp(x)

        def build(self, x):
            return x + tensor("w", 5)

    with pytest.raises(RewriteError, match="Fails failed: "):
        applied([Fails()], exp(X))


def test_rules_that_undo_one_another_are_named():
    class There(Rewrite):
        """exp x → tanh x"""

        def pattern(self, x):
            return exp(x)

        def build(self, x):
            return tanh(x)

    class Back(Rewrite):
        """tanh x → exp x"""

        def pattern(self, x):
            return tanh(x)

        def build(self, x):
            return exp(x)

    with pytest.raises(RewriteError, match="undo one another: There and Back"):
        applied([There(), Back()], exp(X))


def test_a_rule_that_wraps_its_own_match_is_named():
    class Wrap(Rewrite):
        """exp x → −(−exp x)"""

        def pattern(self, x):
            return exp(x)

        def build(self, node):
            return neg(neg(node))

    with pytest.raises(RewriteError, match="undo one another: Wrap"):
        applied([Wrap()], exp(X))


def test_rules_that_grow_for_ever_are_stopped():
    class Grow(Rewrite):
        """exp x → exp(x + x)"""

        def pattern(self, x):
            return exp(x)

        def build(self, x):
            return exp(x + x)

    with pytest.raises(RewriteError, match="do not settle: Grow"):
        applied([Grow()], exp(X))


def test_new_nodes_take_over_the_lines_of_the_old():
    here, there = (Location("a.py", 1),), (Location("a.py", 2),)
    inner, outer = sub(X, Y), sub(X, sub(X, Y))
    made = sweep(graph(outer, provenance={inner: here, outer: there}), [Reassociate()], Context())
    assert made.outputs == (add(sub(X, X), Y),)
    assert made.provenance[made.outputs[0]] == there
    assert made.provenance[sub(X, X)] == there
    assert made.provenance[inner] == here


def test_a_node_rebuilt_on_new_operands_keeps_its_lines():
    here = (Location("a.py", 1),)
    made = sweep(graph(tanh(log(exp(X))), provenance={tanh(log(exp(X))): here}), [LogExp()], Context())
    assert made.provenance[tanh(X)] == here


def test_deep_graphs_need_no_recursion():
    deep = X
    for _ in range(3000):
        deep = log(exp(deep + 0))
    assert applied([LogExp(), AddZero()], deep) == (X,)


def test_updates_are_rewritten_too():
    w = parameter(name="w", role="variable", uid=0, type=TensorType(f32, (3,)))
    before = Graph("g", (w,), (w,), ((w, log(exp(w))),))
    assert sweep(before, [LogExp()], Context()).updates == ((w, w),)


# Tracing.

def test_the_trace_tells_what_fired_and_why_not():
    trace = []
    applied([LogExp(), AddZero()], log(exp(X)), log(tanh(X)), tensor("r", 1) + constant([0.0, 0.0], f32),
            context=Context(trace=trace))
    assert Fired("LogExp", log(exp(X)), X) in trace
    assert Missed("LogExp", log(tanh(X)), "tanh: f32[n,3] is no exp", 1) in trace
    assert [m.reason for m in trace if isinstance(m, Missed) and m.rule == "AddZero"] == ["the 0 broadcasts x"]


def test_a_near_miss_counts_the_operations_that_agree():
    trace = []
    inner = sum(X, axes=(0,), keepdims=False)
    applied([SumSum()], sum(inner, axes=(0,), keepdims=True), context=Context(trace=trace))
    outer_miss = max((m for m in trace if isinstance(m, Missed)), key=lambda m: m.agreed)
    assert outer_miss.agreed == 2
    assert outer_miss.reason == "False is not True"


def test_near_misses_prefer_the_order_of_operands_that_agrees_most():
    class Rule(Rewrite):
        """sqrt(x) + exp(tanh y)"""

        def pattern(self, x, y):
            return sqrt(x) + exp(tanh(y))

        def build(self, x, y):
            return x + y

    trace = []
    applied([Rule()], exp(tanh(Y)) + X, context=Context(trace=trace))
    assert trace == [Missed("Rule", exp(tanh(Y)) + X, "parameter: f32[n,3] is no sqrt", 3)]


def test_a_rule_that_stands_behind_one_that_fired_hears_of_it():
    class ExpExp(Rewrite):
        """exp(exp x) → x + x"""

        def pattern(self, x):
            return exp(exp(x))

        def build(self, x):
            return x + x

    class ExpAny(ExpExp):
        """exp(x) → x"""

        def pattern(self, x):
            return exp(x)

        def build(self, node, x):
            return x

    trace = []
    applied([ExpAny(), ExpExp()], exp(exp(X)), context=Context(trace=trace, asked=["ExpExp"]))
    assert [m for m in trace if isinstance(m, Missed)] == [Missed("ExpExp", exp(X), "parameter: f32[n,3] is no exp", 1)]
    trace.clear()
    applied([AddZero(), ExpAny(), ExpExp()], exp(exp(X)), context=Context(trace=trace, asked=["ExpAny"]))
    assert [m for m in trace if isinstance(m, Missed)] == []


def test_a_rule_hears_of_the_one_that_came_first():
    class First(AddZero):
        """x + 0 → x, too"""

    trace = []
    applied([First(), AddZero()], X + 0, context=Context(trace=trace, asked=["AddZero"]))
    assert [m for m in trace if isinstance(m, Missed)] == [Missed("AddZero", X + 0, "First came first", 1)]


# Pipelines.

def identity(graph: Graph, context: Context) -> Graph:
    return graph


BASE = Pipeline(Step("simplify", rewrite(AddZero())), Step("tidy", identity))


def test_pipelines_are_changed_by_name():
    assert BASE.after("simplify", LogExp()).names == ("simplify", "LogExp", "tidy")
    assert BASE.before("simplify", identity).names == ("identity", "simplify", "tidy")
    assert BASE.without("tidy").names == ("simplify",)
    assert BASE.replace("tidy", LogExp()).names == ("simplify", "tidy")
    assert BASE.replace("tidy", Step("a", identity), Step("b", identity)).names == ("simplify", "a", "b")
    assert BASE.up_to("simplify").names == ("simplify",)
    assert BASE.names == ("simplify", "tidy")


def test_rewrites_given_side_by_side_make_one_sweep():
    together = BASE.after("tidy", LogExp(), Reassociate())
    assert together.names[-1] == "LogExp+Reassociate"
    assert together.run(graph(log(exp(X)))).outputs == (X,)


def test_unknown_names_list_near_ones():
    with pytest.raises(ArgumentError, match="no pass is called 'simplfy'; did you mean simplify"):
        BASE.after("simplfy", LogExp())
    with pytest.raises(ArgumentError, match="there are simplify, tidy"):
        BASE.without("qqqq")
    with pytest.raises(ArgumentError, match="LogExp is a class"):
        BASE.after("simplify", LogExp)
    with pytest.raises(ArgumentError, match="not 3"):
        BASE.after("simplify", 3)
    with pytest.raises(ArgumentError, match="two passes of a pipeline are called 'simplify'"):
        Pipeline(*BASE.steps, BASE.steps[0])


def test_observers_see_the_graph_before_and_after_every_pass():
    seen = []
    BASE.run(graph(X + 0), Context(observers=(lambda name, g: seen.append((name, g.outputs[0])),)))
    assert seen == [("input", X + 0), ("simplify", X), ("tidy", X)]


def test_a_pass_that_breaks_the_graph_is_named():
    def lose(graph: Graph, context: Context) -> Graph:
        return Graph(graph.name, (), graph.outputs)

    def retype(graph: Graph, context: Context) -> Graph:
        return Graph(graph.name, graph.params, tuple(sum(o, axes=(0,), keepdims=False) for o in graph.outputs))

    def swap(graph: Graph, context: Context) -> Graph:
        return Graph(graph.name, (*graph.params, Y), graph.outputs)

    with pytest.raises(RewriteError, match="pass 'lose' broke the graph: g: x is used but is no parameter"):
        BASE.after("tidy", lose).run(graph(exp(X)))
    with pytest.raises(RewriteError, match=r"'retype' changed the outputs of g from \(f32\[n,3\]\) to \(f32\[3\]\)"):
        BASE.after("tidy", retype).run(graph(exp(X)))
    with pytest.raises(RewriteError, match="'swap' changed the parameters of g"):
        BASE.after("tidy", swap).run(graph(exp(X)))


def test_the_result_does_not_depend_on_the_order_in_which_nodes_were_made():
    rules = [LogExp(), AddZero(), Reassociate()]
    first = applied(rules, log(exp(X)) - (X - Y))
    again = applied(rules, maximum(X, Y) + 0, log(exp(X)) - (X - Y))
    assert first == again[1:]


def test_numbers_are_as_precise_as_the_constant():
    class Tenth(Rewrite):
        """x · 0.1 → x"""

        def pattern(self, x):
            return x * 0.1

        def build(self, x):
            return x

    h = tensor("h", 3, dtype=f16)
    assert applied([Tenth()], X * 0.1, h * 0.1, X * 0.2) == (X, h, X * 0.2)


def test_a_repeated_constant_is_a_number_and_a_broadcast():
    class Spread(Rewrite):
        """exp(broadcast x) → broadcast(exp x)"""

        def pattern(self, x, shape):
            return exp(broadcast(x, shape=shape))

        def build(self, x, shape):
            return broadcast(exp(x), shape=shape)

    zero = constant(0.0, f32)
    assert applied([Spread(), AddZero()], exp(broadcast(zero, shape=(N, 3)))) == (broadcast(exp(zero), shape=(N, 3)),)


def test_a_table_that_is_used_again_tells_a_constant_from_one_that_is_repeated():
    seen = []

    class OfConstants(Rewrite):
        """nothing"""

        def pattern(self, x):
            return x

        def concerns(self, op, operands):
            return op is exp and operands[0].name == "constant"

        def build(self, node):
            seen.append(node)
            return No("only looks")

    table = Table([OfConstants(), AddZero()])
    zero = constant(0.0, f32)
    for node in (exp(zero), exp(broadcast(zero, shape=(N, 3)))):
        sweep(graph(node), table, Context())
    assert seen == [exp(zero)]
