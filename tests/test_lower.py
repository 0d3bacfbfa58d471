"""Lowering: kernels of telling groups as text, and every kernel of them by the oracle and natively."""

from collections.abc import Callable, Mapping
from random import Random

import numpy as np
import pytest
from graphs import assert_close
from test_fuzz import numbers

from tensorc.codegen import loopir as ir
from tensorc.codegen.loopverify import verify
from tensorc.codegen.lower import Lowered, lower
from tensorc.codegen.prepare import prepare
from tensorc.codegen.python import oracle
from tensorc.codegen.share import share_values
from tensorc.ir import dims
from tensorc.ir.closing import close
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import Place
from tensorc.ir.node import Node
from tensorc.ir.parse import parse
from tensorc.ir.text import labels
from tensorc.ir.types import f32
from tensorc.ops.conditioned import Array, evaluate
from tensorc.passes.context import Context
from tensorc.passes.pipeline import default
from tensorc.runtime.function import Function
from tensorc.runtime.variable import Cell
from tensorc.testing.grow import grow

GROUPS = {
    "softmax": """
        graph g(x: f32[n,10])
          %0 = softmax(x) {axis=1}
          return %0
    """,
    "variance": """
        graph g(x: f32[n,m])
          %0 = variance(x) {axes=[1], keepdims=false}
          return %0
    """,
    "update_in_a_column_sum": """
        graph g(d: f32[n,5]; b: variable f32[5])
          %0 = sum(d) {axes=[0], keepdims=false}
          %1 = mul(%0, 0.5:f32)
          %2 = sub(b, %1)
          return ; b := %2
    """,
    "long_sum_in_chunks": """
        graph g(x: f32[n], y: f32[n])
          %0 = mul(x, y)
          %1 = sum(%0) {axes=[0], keepdims=false}
          %2 = sqrt(%1)
          return %2
    """,
    "argmax": """
        graph g(x: f32[3,n])
          %0 = argmax(x) {axis=1}
          %1 = max(x) {axes=[1], keepdims=false}
          return %0, %1
    """,
    "pieces": """
        graph g(x: f32[n,4], y: f32[n,2])
          %0 = concatenate(x, y) {axis=1}
          %1 = pad(%0) {low=[0,1], high=[0,1], interior=[0,0]}
          %2 = reverse(%1) {axes=[1]}
          return %2
    """,
    "cumulative": """
        graph g(x: i32[2,5])
          %0 = cumsum(x) {axis=1}
          return %0
    """,
    "product_with_epilogue": """
        graph g(x: f32[n,3], w: f32[3,4], b: f32[4])
          %0 = matmul(x, w) {transpose_a=false, transpose_b=false}
          %1 = add(%0, b)
          %2 = tanh(%1)
          return %2
    """,
    "product_that_updates": """
        graph g(x: f32[n,3], d: f32[n,4]; w: variable f32[3,4])
          %0 = matmul(x, d) {transpose_a=true, transpose_b=false}
          %1 = mul(%0, 0.1:f32)
          %2 = sub(w, %1)
          return %0 ; w := %2
    """,
    "positions": """
        graph g(x: f32[n,m])
          %0 = size() {value=n, dtype=i64}
          %1 = cast(%0) {dtype=f32}
          %2 = iota() {shape=[n,m], axis=1, dtype=i32}
          %3 = cast(%2) {dtype=f32}
          %4 = mul(x, %3)
          %5 = div(%4, %1)
          return %5
    """,
    "half_precision": """
        graph g(x: f16[n,6])
          %0 = exp(x)
          %1 = max(%0) {axes=[1], keepdims=true}
          %2 = sub(%0, %1)
          return %2
    """,
    "half_precisions": """
        graph g(x: bf16[n,6], y: f16[n,1])
          %0 = cast(y) {dtype=bf16}
          %1 = concatenate(x, %0) {axis=1}
          %2 = add(x, %0)
          return %1, %2
    """,
    "reduced_pieces": """
        graph g(x: bool[3,n], y: bool[3,1], z: bool[3])
          %0 = logical_not(z)
          %1 = reshape(%0) {shape=[3,1]}
          %2 = logical_and(y, %1)
          %3 = concatenate(x, %2, x, y) {axis=1}
          %4 = any(%3) {axes=[0], keepdims=false}
          return %4
    """,
    "transposed": """
        graph g(x: f32[n,m], y: f32[m,n])
          %0 = transpose(x) {perm=[1,0]}
          %1 = add(%0, y)
          return %1
    """,
}
SIZES = {"n": 7, "m": 4}


@pytest.mark.parametrize("name", GROUPS)
def test_kernels(name: str, golden: Callable[[str, str], None]) -> None:
    (graph,) = parse(GROUPS[name])
    kernels = [str(each.kernel) for each in lowered(planned(graph))]
    golden(f"kernels/lower_{name}.txt", f"{graph}\n==>\n" + "\n".join(kernels))


@pytest.mark.parametrize("name", GROUPS)
def test_oracle_and_native_agree_with_the_references(name: str) -> None:
    (graph,) = parse(GROUPS[name])
    values = {p: numbers(p, SIZES) for p in graph.params}
    values = {p: np.abs(v) if name == "long_sum_in_chunks" else v for p, v in values.items()}
    want = evaluate(graph.roots, values, SIZES)

    for got in (by_oracle(planned(graph), values, SIZES), natively(graph, values)):
        for mine, theirs in zip(got, want, strict=True):
            assert theirs.error is not None
            assert_close(mine, theirs)


@pytest.mark.parametrize("seeds", [range(k, k + 10) for k in range(500, 530, 10)], ids=str)
def test_oracle_agrees_on_grown_graphs(seeds: range) -> None:
    for seed in seeds:
        g = grow(Random(seed), 12)
        graph = close("f", g.inputs, g.outputs, g.updates).graph
        values = {p: next(v for q, v in g.values[0].items() if q.name == p.name) for p in graph.params}
        want = evaluate([*g.outputs, *(new for _, new in g.updates)], g.values[0], g.sizes[0])
        if max((v.size for v in values.values()), default=0) < 500:
            got = by_oracle(planned(graph), values, g.sizes[0])
            for mine, theirs in zip(got, want, strict=True):
                assert_close(mine, theirs, str(graph))


def test_long_reductions_are_cut_by_sizes_alone() -> None:
    for text, axis, parts in (
        ("x: f32[n]", 0, 2),                # one number from many
        ("x: f32[100000]", 0, 2),
        ("x: f32[1000]", 0, 1),             # short
        ("x: f32[n,m]", 0, 1),              # as many results as a size says
        ("x: f32[n,64]", 0, 2),
        ("x: f32[n,4096]", 0, 1),           # enough of them
        ("x: f32[64,n]", 1, 2),
        ("x: f32[65,n]", 1, 1),             # enough rows
        ("x: f32[32,16384]", 1, 1),         # short rows
    ):
        (graph,) = parse(f"""
            graph g({text})
              %0 = sum(x) {{axes=[{axis}], keepdims=false}}
              return %0
        """)
        assert len(lowered(planned(graph))) == parts, text


def test_equal_values_are_computed_once_unless_a_store_comes_between() -> None:
    x, i = ir.Load("x", (dims.symbol("i"),), f32), (dims.symbol("i"),)
    body = (
        ir.Let("a", x),
        ir.Let("b", x),
        ir.Let("c", ir.Call("add", (ir.Var("a", f32), ir.Var("b", f32)), f32)),
        ir.Store("x", i, ir.Var("c", f32)),
        ir.Let("d", x),
        ir.Let("e", ir.Call("add", (ir.Var("b", f32), ir.Var("a", f32)), f32)),
        ir.Store("y", i, ir.Call("mul", (ir.Var("d", f32), ir.Var("e", f32)), f32)),
    )
    n = dims.symbol("n")
    buffers = (ir.Buffer("x", f32, (n,), "inout"), ir.Buffer("y", f32, (n,), "out"))
    shared = verify(share_values(ir.Kernel("k", ("n",), buffers, (("i", n),), body)))
    assert [s.var for s in shared.body if isinstance(s, ir.Let)] == ["a", "c", "d"]


# Running a plan by the oracle.

def planned(graph: Graph) -> Graph:
    return default().run(graph, Context())


def lowered(graph: Graph) -> list[Lowered]:
    """The kernels of a planned graph, in order."""
    assert graph.plan is not None
    names = labels(graph)
    return [ready for group in graph.plan.groups for each in kernels_of(lower(group, names)) for ready in prepare(each)]


def kernels_of(found: Lowered | list[Lowered]) -> list[Lowered]:
    return found if isinstance(found, list) else [found]


def by_oracle(graph: Graph, values: Mapping[Node, Array], sizes: Mapping[str, int]) -> list[Array]:
    """The roots of a planned graph, kernel by kernel in Python, with memory laid out as the plan says."""
    assert graph.plan is not None
    arena = np.zeros(dims.evaluate(graph.plan.arena, sizes), np.uint8)
    external = {Place("param", i): values[p].copy() for i, p in enumerate(graph.params)}
    external |= {Place("constant", i): c.value.copy() for i, c in enumerate(graph.plan.constants)}
    external |= {Place("output", i): empty(o, sizes) for i, o in enumerate(graph.outputs)}
    scratch: dict[str, Array] = {}

    for each in lowered(graph):
        arrays = []
        for buffer, where in zip(each.kernel.buffers, each.operands, strict=True):
            shape = tuple(dims.evaluate(s, sizes) for s in buffer.shape)
            count = int(np.prod(shape)) * buffer.dtype.size
            if not isinstance(where, Place):
                raw = scratch.setdefault(f"{each.kernel.name.removesuffix('_part').removesuffix('_join')}/{where.name}",
                                         np.zeros(count, np.uint8))
            elif where.kind == "arena":
                start = dims.evaluate(where.offset, sizes)
                raw = arena[start:start + count]
            else:
                raw = external[where].reshape(-1).view(np.uint8)
            arrays.append(raw.view(buffer.dtype.numpy).reshape(shape))
        oracle(each.kernel)(*arrays, *(sizes[s] for s in each.kernel.sizes))

    places = [Place("output", i) for i in range(len(graph.outputs))]
    places += [Place("param", graph.params.index(v)) for v, _ in graph.updates]
    return [external[p] for p in places]


def natively(graph: Graph, values: Mapping[Node, Array]) -> list[Array]:
    cells = {p: Cell(values[p], p.name) for p in graph.params if p.role == "variable"}
    inputs = [p for p in graph.params if p.role == "input"]
    function = Function("g", inputs, graph.outputs, graph.updates, cells=cells)
    return function([values[p] for p in inputs]) + [cells[v].get() for v, _ in graph.updates]


def empty(node: Node, sizes: Mapping[str, int]) -> Array:
    return np.zeros(tuple(dims.evaluate(s, sizes) for s in node.shape), node.dtype.numpy)
