"""Random graphs run natively and by the references, and graphs that have gone wrong once."""

import os
from random import Random

import numpy as np
import pytest
from graphs import assert_close
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tensorc.ir import dims
from tensorc.ir.graph import Graph
from tensorc.ir.node import Node
from tensorc.ir.parse import parse
from tensorc.ops.conditioned import Array, evaluate
from tensorc.runtime.function import Function
from tensorc.runtime.random import Stream
from tensorc.runtime.variable import Cell
from tensorc.testing.grow import Grown, grow

EXAMPLES = int(os.environ.get("TENSORC_FUZZ_EXAMPLES", "100"))


@settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None,
    phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
)
@given(st.randoms(use_true_random=False), st.sampled_from([4, 10, 20, 40]))
def test_grown_graph(random: Random, steps: int) -> None:
    check(grow(random, steps))


def check(g: Grown) -> None:
    """Two calls of one function, with other sizes each, give what the references give."""
    cells = {v: Cell(g.values[0][v], v.name) for v in g.variables}
    function = Function("f", g.inputs, g.outputs, g.updates, cells=cells)

    for sizes, values in zip(g.sizes, g.values, strict=True):
        now = {**values, **{v: cell.get() for v, cell in cells.items()}}
        want = evaluate([*g.outputs, *(new for _, new in g.updates)], now, sizes)
        got = function([values[p] for p in g.inputs])
        got += [cells[v].get() for v, _ in g.updates]

        assert len(got) == len(want)
        for k, (mine, theirs) in enumerate(zip(got, want, strict=True)):
            assert_close(mine, theirs, f"result {k} for {sizes}\n{function.graph}")
    assert function.compilations == 1


# Graphs that have gone wrong once, each with what was wrong.

WRONG = {
    "a product's operand is no part of its epilogue": """
        graph g(x: f32[5,5], w: f32[5,5])
          %0 = tanh(x)
          %1 = matmul(%0, w) {transpose_a=false, transpose_b=false}
          %2 = add(%1, %0)
          return %2
    """,
    "an epilogue reads the product at its own place only": """
        graph g(x: f32[n,4], w: f32[4,n])
          %0 = matmul(x, w) {transpose_a=false, transpose_b=false}
          %1 = transpose(%0) {perm=[1,0]}
          %2 = sub(%1, %0)
          return %2
    """,
    "both operands of a product are one": """
        graph g(x: f32[n,4])
          %0 = matmul(x, x) {transpose_a=true, transpose_b=false}
          %1 = tanh(%0)
          return %1
    """,
    "an epilogue reads a product that is a result itself": """
        graph g(x: f32[n,4], w: f32[4,6])
          %0 = matmul(x, w) {transpose_a=false, transpose_b=false}
          %1 = tanh(%0)
          return %0, %1
    """,
    "a reduction of one element in an epilogue is no loop": """
        graph g(x: f32[n,4], w: f32[4,1])
          %0 = matmul(x, w) {transpose_a=false, transpose_b=false}
          %1 = argmax(%0) {axis=1}
          %2 = exp(%0)
          return %1, %2
    """,
    "values without elements have places of their own": """
        graph g(x: f32[0,3])
          %0 = exp(x)
          %1 = cumsum(%0) {axis=1}
          %2 = sum(%1) {axes=[0], keepdims=false}
          %3 = cumsum(%2) {axis=0}
          return %3
    """,
    "a bare product is not written over what its epilogue reads": """
        graph g(; w: variable f32[3,3], v: variable f32[3,3])
          %0 = abs(v)
          %1 = matmul(w, %0) {transpose_a=false, transpose_b=true}
          %2 = gt(v, w)
          %3 = select(%2, %1, w)
          return %3 ; w := %1
    """,
    "a group reads no view of what it computes from memory": """
        graph g(x: f32[n,1], y: f32[n//2,0])
          %0 = slice(x) {starts=[0, 0], limits=[n//2, 0], steps=[1, 1]}
          %1 = gt(%0, y)
          %2 = reshape(%0) {shape=[0]}
          %3 = select(%1, %2, y)
          return %3
    """,
    "a long reduction over nothing": """
        graph g(x: f32[n,0,3], y: f32[n,0])
          %0 = max(x) {axes=[0], keepdims=false}
          %1 = sum(y) {axes=[0,1], keepdims=false}
          return %0, %1
    """,
    "loops are not called like sizes or buffers": """
        graph g(i: f32[n,j], k: f32[j,i0])
          %0 = matmul(i, k) {transpose_a=false, transpose_b=false}
          %1 = exp(%0)
          %2 = max(%1) {axes=[0], keepdims=false}
          return %1, %2
    """,
    "a loop is not called like a size that only an attribute has": """
        graph g(x: f32[n], y: f32[i0])
          %0 = size() {value=3*i0+1, dtype=i64}
          %1 = cast(%0) {dtype=f32}
          %2 = mul(x, %1)
          return %2
    """,
    "reductions over no axes": """
        graph g(x: bool[], y: f32[n])
          %0 = all(x) {axes=[], keepdims=true}
          %1 = any(x) {axes=[], keepdims=false}
          %2 = sum(y) {axes=[], keepdims=false}
          return %0, %1, %2
    """,
    "the largest of no absolute values is negative": """
        graph g(x: f32[z])
          %0 = abs(x)
          %1 = max(%0) {axes=[0], keepdims=false}
          %2 = maximum(%1, 0.0:f32)
          return %2
    """,
    "squares and sums of integers wrap": """
        graph g(x: i32[n])
          %0 = mul(x, 40000:i32)
          %1 = square(%0)
          %2 = maximum(%1, 0:i32)
          %3 = abs(%0)
          %4 = sum(%3) {axes=[0], keepdims=false}
          %5 = maximum(%4, 0:i32)
          return %2, %5
    """,
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_went_wrong_once(text: str) -> None:
    (graph,) = parse(text)
    assert_runs(graph, {"n": 7, "j": 4, "i0": 3, "z": 0})


def assert_runs(graph: Graph, sizes: dict[str, int]) -> None:
    """A closed graph gives natively what the references give, on numbers from a fixed seed."""
    values = {p: numbers(p, sizes) for p in graph.params}
    cells = {p: Cell(values[p], p.name) for p in graph.params if p.role == "variable"}
    streams = {p: Stream(int(values[p][0])) for p in graph.params if p.role == "key"}
    inputs = [p for p in graph.params if p.role == "input"]
    function = Function(graph.name, inputs, graph.outputs, graph.updates, cells=cells, streams=streams)

    want = evaluate(graph.roots, values, sizes)
    got = function([values[p] for p in inputs]) + [cells[v].get() for v, _ in graph.updates]
    for mine, theirs in zip(got, want, strict=True):
        assert_close(mine, theirs)
        assert theirs.error is not None


def numbers(param: Node, sizes: dict[str, int]) -> Array:
    """A value for a parameter."""
    generator = np.random.default_rng(len(param.name))
    shape = tuple(dims.evaluate(s, sizes) for s in param.shape)
    if param.role == "key":
        return np.array([7, 0])
    if param.dtype.is_float:
        return generator.uniform(-2, 2, shape).astype(param.dtype.numpy)
    return generator.integers(-4, 5, shape).astype(param.dtype.numpy)
