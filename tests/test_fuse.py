"""Fusion and buffers: plans of telling graphs as text, and what holds for every plan."""

from collections.abc import Callable
from random import Random

import pytest

from tensorc.ir import dims
from tensorc.ir.closing import close
from tensorc.ir.graph import Graph
from tensorc.ir.kernels import Group, Place, Plan, memory_of
from tensorc.ir.node import Node
from tensorc.ir.parse import parse
from tensorc.ir.text import dump, labels
from tensorc.passes.context import Context
from tensorc.passes.pipeline import default
from tensorc.testing.grow import grow

PLANS = {
    "chain": """
        graph g(x: f32[n,m], b: f32[m])
          %0 = add(x, b)
          %1 = tanh(%0)
          %2 = mul(%1, 0.5:f32)
          %3 = exp(%2)
          return %3
    """,
    "repeated_twice": """
        graph g(x: f32[n,1,m], y: f32[n,1,m], w: f32[2,1], v: f32[200,1])
          %0 = sub(x, y)
          %1 = mul(%0, w)
          %2 = add(x, y)
          %3 = mul(%2, v)
          return %1, %3
    """,
    "softmax": """
        graph g(x: f32[n,10])
          %0 = softmax(x) {axis=1}
          return %0
    """,
    "layer_norm": """
        graph g(x: f32[n,64], gamma: f32[64], beta: f32[64])
          %0 = mean(x) {axes=[1], keepdims=true}
          %1 = variance(x) {axes=[1], keepdims=true}
          %2 = sub(x, %0)
          %3 = add(%1, 1e-05:f32)
          %4 = rsqrt(%3)
          %5 = mul(%2, %4)
          %6 = mul(%5, gamma)
          %7 = add(%6, beta)
          return %7
    """,
    "loss_over_a_batch": """
        graph g(x: f32[n,10], y: f32[n,10])
          %0 = softmax_cross_entropy(y, x) {axis=1}
          %1 = mean(%0) {axes=[0], keepdims=false}
          return %1
    """,
    "bias_gradient_of_relu": """
        graph g(x: f32[n,32], d: f32[n,32])
          %0 = gt(x, 0.0:f32)
          %1 = select(%0, d, 0.0:f32)
          %2 = sum(%1) {axes=[0], keepdims=false}
          return %2
    """,
    "dense_layer": """
        graph g(x: f32[n,784], w: f32[784,32], b: f32[32])
          %0 = matmul(x, w) {transpose_a=false, transpose_b=false}
          %1 = add(%0, b)
          %2 = relu(%1)
          return %2
    """,
    "adam_of_a_weight": """
        graph g(x: f32[n,784], d: f32[n,32]; w: variable f32[784,32], m: variable f32[784,32], v: variable f32[784,32])
          %0 = matmul(x, d) {transpose_a=true, transpose_b=false}
          %1 = mul(m, 0.9:f32)
          %2 = mul(%0, 0.1:f32)
          %3 = add(%1, %2)
          %4 = mul(v, 0.999:f32)
          %5 = square(%0)
          %6 = mul(%5, 0.001:f32)
          %7 = add(%4, %6)
          %8 = sqrt(%7)
          %9 = add(%8, 1e-07:f32)
          %10 = div(%3, %9)
          %11 = mul(%10, 0.01:f32)
          %12 = sub(w, %11)
          return ; w := %12, m := %3, v := %7
    """,
    "momentum_of_a_bias": """
        graph g(d: f32[n,32]; b: variable f32[32], m: variable f32[32])
          %0 = sum(d) {axes=[0], keepdims=false}
          %1 = mul(m, 0.9:f32)
          %2 = mul(%0, 0.01:f32)
          %3 = sub(%1, %2)
          %4 = add(b, %3)
          return ; b := %4, m := %3
    """,
    "several_results": """
        graph g(x: f32[n,m])
          %0 = exp(x)
          %1 = sin(%0)
          %2 = cos(%0)
          %3 = mul(%1, %2)
          return %0, %1, %3
    """,
    "diamond_round_a_product": """
        graph g(x: f32[n,32], w: f32[32,32])
          %0 = tanh(x)
          %1 = matmul(%0, w) {transpose_a=false, transpose_b=false}
          %2 = add(%1, %0)
          return %2
    """,
    "diamond_round_a_sum": """
        graph g(x: f32[n,m])
          %0 = exp(x)
          %1 = max(%0) {axes=[0], keepdims=true}
          %2 = div(%0, %1)
          return %2
    """,
    "cheap_work_is_repeated": """
        graph g(mask: bool[n,m])
          %0 = cast(mask) {dtype=f32}
          %1 = sum(%0) {axes=[0], keepdims=false}
          %2 = sum(%0) {axes=[1], keepdims=false}
          return %1, %2
    """,
    "centred_columns_are_not_stored": """
        graph g(x: f32[n,m], y: f32[m,k])
          %0 = matmul(x, y) {transpose_a=false, transpose_b=false}
          %1 = sum(%0) {axes=[0], keepdims=true}
          %2 = sub(%0, %1)
          %3 = mul(%2, %2)
          %4 = sum(%3) {axes=[0], keepdims=true}
          %5 = mul(%2, %4)
          return %5
    """,
    "side_by_side": """
        graph g(x: f32[n,m], y: f32[m,n])
          %0 = sin(x)
          %1 = sum(%0) {axes=[0], keepdims=false}
          %2 = mul(x, %0)
          %3 = matmul(x, y) {transpose_a=false, transpose_b=false}
          return %1, %2, %3
    """,
    "transposes": """
        graph g(x: f32[n,m], y: f32[m,n], w: f32[m,5])
          %0 = transpose(x) {perm=[1,0]}
          %1 = add(%0, y)
          %2 = matmul(%1, w) {transpose_a=true, transpose_b=false}
          %3 = transpose(%2) {perm=[1,0]}
          return %1, %3
    """,
    "thin_reshapes": """
        graph g(x: f32[n,m])
          %0 = sum(x) {axes=[1], keepdims=false}
          %1 = reshape(%0) {shape=[n,1]}
          %2 = div(x, %1)
          %3 = reshape(%2) {shape=[n,1,m]}
          %4 = exp(%3)
          return %4
    """,
    "pieces": """
        graph g(x: f32[n,m], y: f32[n,m])
          %0 = exp(x)
          %1 = concatenate(%0, y) {axis=1}
          %2 = slice(%1) {starts=[0, 1], limits=[n, 2*m], steps=[1, 1]}
          %3 = add(%2, 1.0:f32)
          %4 = cumsum(%3) {axis=1}
          return %4
    """,
    "exchange": """
        graph g(; a: variable f32[3], b: variable f32[3], c: variable f32[3])
          %0 = add(a, b)
          return a, %0 ; a := b, b := a, c := %0
    """,
    "what_stays_is_kept": """
        graph g(x: f32[n,512]; w: variable f32[256,512], s: variable f32[256], t: variable f32[])
          %0 = reshape(s) {shape=[256,1]}
          %1 = mul(w, %0)
          %2 = matmul(x, %1) {transpose_a=false, transpose_b=true}
          %3 = mul(s, s)
          %4 = sum(%3) {axes=[0], keepdims=false}
          %5 = sqrt(%4)
          %6 = add(%2, %5)
          %7 = tanh(t)
          %8 = mul(%6, %7)
          return %8, %7
    """,
    "what_is_updated_is_not_kept": """
        graph g(x: f32[n,512]; w: variable f32[512,256], v: variable f32[256,256])
          %0 = exp(w)
          %1 = matmul(x, %0) {transpose_a=false, transpose_b=false}
          %2 = exp(v)
          %3 = matmul(%1, %2) {transpose_a=false, transpose_b=false}
          return %3 ; w := %0
    """,
    "new_values_wait_for_readers_of_the_old": """
        graph g(; a: variable f32[3,3], b: variable f32[3,3])
          %0 = matmul(a, b) {transpose_a=false, transpose_b=false}
          %1 = tanh(b)
          %2 = transpose(a) {perm=[1,0]}
          %3 = add(%2, %1)
          return %3 ; a := %0, b := %1
    """,
}


@pytest.mark.parametrize("name", PLANS)
def test_plan(name: str, golden: Callable[[str, str], None]) -> None:
    (graph,) = parse(PLANS[name])
    planned = default().run(graph, Context())
    assert_sound(planned)
    golden(f"passes/plan_{name}.txt", f"{dump(graph)}\n==>\n{plan_text(planned)}")


@pytest.mark.parametrize("seeds", [range(k, k + 30) for k in range(0, 180, 30)], ids=str)
def test_plans_of_grown_graphs_are_sound(seeds: range) -> None:
    for seed in seeds:
        g = grow(Random(seed), 30)
        assert_sound(default().run(close("f", g.inputs, g.outputs, g.updates).graph, Context()))


def plan_text(graph: Graph) -> str:
    """The graph, and each step's groups with what they read and write."""
    plan = the_plan(graph)
    name = labels(graph)

    def places(nodes: tuple[Node, ...], where: tuple[Place, ...]) -> str:
        return ", ".join(f"{name[n]} {p}" for n, p in zip(nodes, where, strict=True))

    lines = [dump(graph), f"arena: {plan.arena}"]
    if plan.keeps:
        lines.append(f"watched: {', '.join(name[v] for v in plan.watched)}")
    for number, step in enumerate(plan.steps):
        lines.append(f"step {number}{', once' if number < plan.once else ''}")
        for g in step:
            frame = ", ".join(f"sum {s}" if i in g.reduced else str(s) for i, s in enumerate(g.frame))
            lines.append(f"  {g.name}: {g.kind} [{frame}]  {places(g.inputs, g.reads)} → {places(g.outputs, g.writes)}")
    return "\n".join(lines)


# What holds for every plan.

def assert_sound(graph: Graph) -> None:
    """Plays the plan with names of values in place of numbers: what a group reads is there when it runs."""
    memory = _Memory(graph)
    plan = the_plan(graph)
    for number, step in enumerate(plan.steps):
        if number == plan.once:
            memory.forget_arena()
        for group in step:
            assert_is_kernel(group)
            memory.check_reads(group)
        for group in step:
            memory.check_apart(group, [g for g in step if g is not group])
        for group in step:
            memory.write(group)

    for i, output in enumerate(graph.outputs):
        assert memory.holds(Place("output", i)) is memory_of(output)
    new = {v: memory_of(n) for v, n in graph.updates}
    for i, param in enumerate(graph.params):
        assert memory.holds(Place("param", i)) is new.get(param, param)


def assert_is_kernel(group: Group) -> None:
    """A kernel can be written for the group: one that computes its outputs from its inputs."""
    for node in group.nodes:
        assert node.op.way != "expand", node
        assert node.op.name != "parameter", f"{group.name} reads a parameter that it does not name"
        assert node.op.kernel is None or group.kind == node.op.kernel, node
        assert node.op.kernel is None or set(node.args) <= set(group.inputs)
        assert not node.op.view or [s for s in node.shape if s != 1] == [s for s in node.args[0].shape if s != 1]
    inside = set(group.nodes)
    assert group.kind == "copy" or all(memory_of(n) not in inside for n in group.inputs)


class _Memory:
    """Which value lies where; the arena byte by byte, for some sizes."""

    def __init__(self, graph: Graph) -> None:
        symbols = sorted({s for p in graph.params for size in p.shape for s in dims.symbols(size)})
        self.sizes = {s: 2 + 3 * i for i, s in enumerate(symbols)}
        self.external: dict[Place, Node] = {Place("param", i): p for i, p in enumerate(graph.params)}
        self.external |= {Place("constant", i): c for i, c in enumerate(the_plan(graph).constants)}
        self.arena: list[Node | None] = [None] * dims.evaluate(the_plan(graph).arena, self.sizes)

    def span(self, place: Place, node: Node) -> range:
        start = dims.evaluate(place.offset, self.sizes)
        return range(start, start + max(0, dims.evaluate(node.type.count, self.sizes)) * node.dtype.size)

    def forget_arena(self) -> None:
        """What the steps that run once leave there is not to be relied on."""
        self.arena = [None] * len(self.arena)

    def holds(self, place: Place, like: Node | None = None) -> Node | None:
        """The value at a place, `like` giving how much of the arena that is."""
        if place.kind != "arena":
            return self.external.get(place)
        assert like is not None
        found = {self.arena[b] for b in self.span(place, like)}
        return found.pop() if len(found) == 1 else None

    def check_reads(self, group: Group) -> None:
        for node, place in zip(group.inputs, group.reads, strict=True):
            if place.kind != "arena" or len(self.span(place, node)):
                assert self.holds(place, node) is memory_of(node), f"{group.name} reads {place}"
        for node, place in zip(group.outputs, group.writes, strict=True):
            if place in group.reads:
                assert_replaces(group, place, node)

    def check_apart(self, group: Group, others: list[Group]) -> None:
        """What a group writes, no other one beside it reads or writes."""
        for node, place in zip(group.outputs, group.writes, strict=True):
            for other in others:
                for n, p in zip((*other.inputs, *other.outputs), (*other.reads, *other.writes), strict=True):
                    assert place != p, f"{group.name} and {other.name} meet at {place}"
                    if place.kind == p.kind == "arena":
                        assert not set(self.span(place, node)) & set(self.span(p, n))

    def write(self, group: Group) -> None:
        for node, place in zip(group.outputs, group.writes, strict=True):
            if place.kind != "arena":
                self.external[place] = memory_of(node)
            else:
                for b in self.span(place, node):
                    self.arena[b] = memory_of(node)


def assert_replaces(group: Group, place: Place, new: Node) -> None:
    """A group that writes where it reads does so element by element, and last."""
    (old,) = (n for n, p in zip(group.inputs, group.reads, strict=True) if p == place)
    assert group.kind in ("map", "column", "matmul")
    assert new.op.kernel is None
    assert old.type == new.type
    for node in group.nodes:
        assert node.op.name != "transpose"
        assert node.op.index is None or node.op.name in ("broadcast", "iota", "size")
        if old in node.args:
            assert node.op.scalar is not None
            assert node.shape == new.shape


def the_plan(graph: Graph) -> Plan:
    assert graph.plan is not None
    return graph.plan
