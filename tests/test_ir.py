"""Sizes, types, nodes and the text of graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorc.ops as ops
from tensorc.errors import IRError, ShapeError
from tensorc.ir import dims
from tensorc.ir.closing import close
from tensorc.ir.dims import bcast, ceildiv, evaluate, floordiv, linear, maximum, minimum, mod, symbol
from tensorc.ir.graph import verify
from tensorc.ir.node import constant, make
from tensorc.ir.parse import parse
from tensorc.ir.text import dump
from tensorc.ir.types import f32, parse_type
from tests.graphs import closed, tensor

n, m = symbol("n"), symbol("m")

sizes = st.recursive(
    st.one_of(st.integers(-4, 9), st.sampled_from([n, m])),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] * p[1]),
        st.tuples(inner, st.integers(1, 5)).map(lambda p: floordiv(*p)),
        st.tuples(inner, st.integers(1, 5)).map(lambda p: mod(*p)),
        st.tuples(inner, inner).map(lambda p: minimum(*p)),
        st.tuples(inner, inner).map(lambda p: maximum(*p)),
    ), max_leaves=8)


def test_equal_sizes_are_one_object():
    assert (n + 2 - 2) is n
    assert (2 * n) // 2 is n
    assert n * 3 - n is 2 * n
    assert n * m is m * n
    assert str((n - 3) // 2 + 1) == "(n-3)//2+1"
    assert ceildiv(n, 4) is (n + 3) // 4


@given(sizes)
def test_a_size_parses_back_to_itself(size):
    back = dims.parse(str(size))
    assert back is size or back == size


@given(sizes, st.integers(0, 40), st.integers(0, 40))
def test_a_size_computes_what_python_does(size, a, b):
    text = str(size)
    assert evaluate(size, {"n": a, "m": b}) == eval(text, {"n": a, "m": b, "min": min, "max": max})


def test_linear_splits_a_size_along_a_variable():
    assert linear(n * m + 3, "n") == (m, 3)
    assert linear(n * n, "n") is None
    assert linear(m, "n") == (0, m)


def test_broadcasting_of_sizes():
    assert bcast(n, 1) is n
    assert bcast(3, 4) is None
    both = bcast(n, m)
    assert dims.substitute(both, {"n": 1}) is m
    assert dims.substitute(both, {"n": m}) is m
    with pytest.raises(dims.Incompatible):
        dims.substitute(both, {"n": 2, "m": 3})


def test_interning_keeps_floats_apart():
    assert constant(0.0, f32) is constant(0.0, f32)
    assert constant(0.0, f32) is not constant(-0.0, f32)
    assert constant(1.0, f32) is not constant(1, None)
    assert constant(np.nan, f32) is constant(np.nan, f32)


MLP = """graph train(x: f32[n,784]; w: variable f32[784,10], b: variable f32[10])
  %0: f32[n,10] = matmul(x, w) {transpose_a=false, transpose_b=false}
  %1: f32[n,10] = add(%0, b)
  %2: f32[n,10] = maximum(%1, 0.0:f32)
  %3: f32[10] = sum(%2) {axes=[0], keepdims=false}
  %4: f32[10] = sub(b, %3)
  return %2 ; b := %4
"""


def test_text_parses_back_to_the_same_nodes():
    (graph,) = parse(MLP)
    assert dump(graph) == MLP
    (again,) = parse(dump(graph))
    assert again.outputs[0] is graph.outputs[0]
    assert again.updates[0][1] is graph.updates[0][1]


@pytest.mark.parametrize("value", [
    np.float32(0.1), np.float32(-0.0), np.float64(1e300), np.float32(np.inf), np.float32(np.nan), np.int64(-3),
    np.bool_(True), np.float16(1.5), np.array(0.1, "bfloat16"), np.array([[2, -np.inf]], "bfloat16"),
    np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((2, 0), np.int32),
])
def test_constants_survive_the_text(value):
    graph = close("f", [], [ops.neg(constant(value)) if value.dtype != bool else ops.logical_not(constant(value))],
                  []).graph
    (again,) = parse(dump(graph))
    assert again.outputs[0] is graph.outputs[0]


HEAD = "graph f(x: f32[n,4]; w: variable f32[4,2])\n"
WRONG = [
    "  return x\n",
    "graf f(x: f32[n])\n",
    "graph f(x: f32[n]\n",
    "graph f(x: f32[n]) -> f32\n",
    "graph f(x f32[n])\n",
    "graph f(x: g32[n])\n",
    "graph f(x: f32[n*])\n",
    "graph f(x: f32[n], x: f32[n])\n",
    "graph f(x: weight f32[n])\n",
    HEAD + "  %0 = tanh(x)\n",
    HEAD + "  %0 = tanh(x)\ngraph g(x: f32[n])\n",
    HEAD + "  y = tanh(x)\n",
    HEAD + "  %0: f32[n,4]\n",
    HEAD + "  %0 = tahn(x)\n",
    HEAD + "  %0 = tanh x\n",
    HEAD + "  %0 = tanh(x\n",
    HEAD + "  %0 = 3\n",
    HEAD + "  %0 = tanh(y)\n",
    HEAD + "  %0 = tanh()\n",
    HEAD + "  %0 = add(x, 1)\n",
    HEAD + "  %0 = add(x, 1:f33)\n",
    HEAD + "  %0 = add(x, one:f32)\n",
    HEAD + "  %0 = add(x, w)\n",
    HEAD + "  %0: f32[n,5] = tanh(x)\n",
    HEAD + "  %0: f32n = tanh(x)\n",
    HEAD + "  %0 = tanh(x)\n  %0 = exp(x)\n",
    HEAD + "  %0 = sum(x) axes=[1]\n",
    HEAD + "  %0 = sum(x) {axes=[1]}\n",
    HEAD + "  %0 = sum(x) {axis=[1], keepdims=true}\n",
    HEAD + "  %0 = sum(x) {axes, keepdims=true}\n",
    HEAD + "  %0 = sum(x) {axes=1, keepdims=true}\n",
    HEAD + "  %0 = sum(x) {axes=[2], keepdims=true}\n",
    HEAD + "  %0 = sum(x) {axes=[&], keepdims=true}\n",
    HEAD + "  %0 = scan(x) {body=@body0, sequences=1, states=0, length=n, reverse=false, result=0}\n",
    HEAD + "  %0 = tanh(x)\n  return %1\n",
    HEAD + "  %0 = tanh(w)\n  return %0 ; w = %0\n",
    HEAD + "  %0 = tanh(x)\n  return %0 ; w := %0\n",
    HEAD + "  %0 = tanh(x)\n  return %0 ; x := %0\n",
]


def test_errors_in_the_text_as_they_are_shown(golden):
    shown = []
    for text in WRONG:
        with pytest.raises(IRError) as caught:
            parse(text)
        shown.append(str(caught.value))
    golden("errors/ir_text.txt", "\n\n".join(shown))


def test_strings_may_hold_what_separates():
    message = "a, (b # 'c' = \\"
    x = tensor("x", 3)
    graph = closed(ops.print(x, message=message, uid=0))

    again, = parse(str(graph))
    assert again.outputs == graph.outputs


@pytest.mark.parametrize(("change", "message"), [
    (("784,10]", "783,10]"), "line 2, column"),
    (("add(%0, b)", "add(%9, b)"), "%9 is not defined"),
    (("maximum(", "maximam("), "no op is called maximam"),
    (("f32[n,10] = add", "f32[n,11] = add"), "the text says f32[n,11]"),
    (("{axes=[0]", "{axis=[0]"), "sum has no attribute 'axis'; did you mean axes?"),
    (("return", "  "), "line"),
])
def test_an_error_in_the_text_has_its_place(change, message):
    with pytest.raises(IRError) as caught:
        parse(MLP.replace(*change))
    assert message in str(caught.value)
    assert "line " in str(caught.value)


def placeholder(name, type, uid):
    return make(ops.parameter, name=name, role="input", uid=uid, type=parse_type(type))


def test_closing_takes_sizes_to_be_equal_and_says_so():
    x, y = placeholder("x", "f32[a__1,3]", 1), placeholder("y", "f32[b__2,3]", 2)
    closed = close("f", [x, y], [x + y], [])
    assert dump(closed.graph) == ("graph f(x: f32[a,3], y: f32[a,3])\n  %0: f32[a,3] = add(x, y)\n  return %0\n")
    (assumption,) = closed.assumptions
    assert {str(assumption.left), str(assumption.right)} == {"a__1", "b__2"}
    assert closed.sizes["a__1"] is closed.sizes["b__2"]


def test_closing_with_a_size_of_one_broadcasts():
    x, y = placeholder("x", "f32[a__1,3]", 1), placeholder("y", "f32[b__2,3]", 2)
    graph = close("f", [x, y], [x + y], [], given={"a__1": 1}).graph
    assert str(graph.outputs[0].type) == "f32[b,3]"


def test_closing_names_the_operation_that_cannot_be():
    x, y = placeholder("x", "f32[a__1]", 1), placeholder("y", "f32[b__2]", 2)
    with pytest.raises(ShapeError, match="add"):
        close("f", [x, y], [x + y], [], given={"a__1": 2, "b__2": 3})


def test_large_constants_become_parameters():
    table = constant(np.arange(100.0), f32)
    graph = close("f", [], [ops.neg(table)], []).graph
    assert graph.params[0].role == "data"


def test_the_verifier_names_a_wrong_update():
    (graph,) = parse(MLP)
    wrong = type(graph)(graph.name, graph.params, graph.outputs, ((graph.params[2], graph.outputs[0]),))
    with pytest.raises(IRError, match=r"variable b is f32\[10\], its new value f32\[n,10\]"):
        verify(wrong)


def test_a_graph_goes_to_networkx():
    from tensorc.ir.export import to_networkx

    (graph,) = parse(MLP)
    exported = to_networkx(graph)
    assert list(exported.predecessors("%1")) == ["%0", "b"]
    assert exported.nodes["%2"]["text"] == "maximum(%1, 0.0:f32)"
    assert exported.nodes["%4"]["result"]
    assert exported.get_edge_data("x", "%0")[0] == {"operand": 0}
