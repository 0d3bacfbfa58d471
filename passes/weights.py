# mypy: allow-untyped-defs, allow-incomplete-defs, no-warn-return-any
"""What follows a convolution or a matrix product channel by channel moves into its weights.

That is batch normalisation by given statistics, above all: conv(x, w) · s + t becomes conv(x, w · s) + t, and what is
done to w, s and t depends on variables and constants alone.  It happens once for each change of these then, and in
functions that update them once a call, not once an element, so it pays where there are many elements to a weight.
Where there are few, as in the late layers of a network that looks at one image, scaling the weights may cost more than
it saves.

Values change in their last digits, as by another order of products; where a weight times its scale overflows or
vanishes, or a product is infinite and its scale 0, they change altogether.
"""

from __future__ import annotations

from tensorc.ir import dims
from tensorc.ir.graph import Graph, users
from tensorc.ir.node import Node, rebuild
from tensorc.ir.types import f32, f64
from tensorc.ops import add, conv, conv_input_gradient, matmul, reshape
from tensorc.passes.context import Context
from tensorc.passes.driver import Marks, sweep
from tensorc.passes.rewrite import No, Rewrite

PRODUCTS = (conv, conv_input_gradient, matmul)

ENOUGH = 4
"""Elements of a result to each of the weights from which scaling these costs less than it saves, as measured: 3x3
convolutions of 3 or 16 channels gain 3 to 7 %, depthwise ones 6 %, large ones nothing; with one element to a weight
they lose 5 %, with a tenth 30 %, if the weights change in every call; if they never do, they neither gain nor lose.  A
size that is not known counts as 1."""

DEPTH = 12
"""How many operations deep it is looked whether a value depends on variables and constants alone."""


class ChannelRule(Rewrite):
    """A rule about products and what follows them.

    Args:
        alone: the nodes of the graph that have one user and are no result, as marks.
    """

    def __init__(self, alone: Marks) -> None:
        super().__init__()
        self.alone = alone

    def concerns(self, op, operands):
        return any(operand in (*PRODUCTS, add) for operand in operands)


class ScaleIntoWeights(ChannelRule):
    """product(x, w) · s → product(x, w · s)"""

    def pattern(self, y, s):
        return y * s

    def check(self, node, y, s):
        return _channels(node, y, s) and (self.alone.get(y, False) or No("the product is used without its scale, too"))

    def build(self, y, s):
        return _scaled(y, s)


class ScaleBehindShift(ChannelRule):
    """(product(x, w) + t) · s → product(x, w · s) + t · s"""

    def pattern(self, y, t, s):
        return (y + t) * s

    def check(self, node, y, t, s):
        total = _other(node, s)
        used_once = self.alone.get(y, False) and self.alone.get(total, False)
        return _channels(node, y, t, s) and (used_once or No("the product is used without its scale, too"))

    def build(self, y, t, s):
        return _scaled(y, s) + _vector(t) * _vector(s)


class JoinShifts(ChannelRule):
    """(product + t) + u → product + (t + u)"""

    def pattern(self, y, t, u):
        return (y + t) + u

    def check(self, node, y, t, u):
        total = _other(node, u)
        return _channels(node, y, t, u) and (self.alone.get(total, False) or No("the inner sum is used by itself, too"))

    def build(self, y, t, u):
        return y + (_vector(t) + _vector(u))


class AddNegative(ChannelRule):
    """(product + t) − u → (product + t) + (−u),  so that the others need to know of sums alone"""

    def pattern(self, y, t, u):
        return (y + t) - u, y - u

    def check(self, node, y, u):
        return _channels(node, y, u)

    def build(self, node, u):
        return node.args[0] + -_vector(u)


def fold_scales(graph: Graph, context: Context) -> Graph:
    """The graph with per-channel scales moved into the weights of the products they follow, where that pays."""
    if not any(node.op in PRODUCTS for node in graph.nodes):
        return graph
    results = set(graph.roots)
    alone: Marks = {n: len(using) == 1 and n not in results for n, using in users(graph.roots).items()}
    return sweep(graph, _rules(alone), context, alone)


def _rules(alone: Marks) -> tuple[ChannelRule, ...]:
    return ScaleIntoWeights(alone), ScaleBehindShift(alone), JoinShifts(alone), AddNegative(alone)


RULES = _rules({})


def _channels(node: Node, y: Node, *vectors: Node) -> bool | No:
    """Whether y is a product large enough, its weights and the vectors are steady, the vectors one number a channel."""
    if y.op not in PRODUCTS or y.dtype not in (f32, f64):
        return No(f"{y.op.name} is no product of float32 or float64")
    axis = _channel_axis(y)
    if axis is None:
        return No("the weights are not one set for the whole batch, or belong to groups of channels")
    weights, channels = y.args[1], y.shape[-1]
    if node.shape != y.shape:
        return No("the product is broadcast")
    count = weights.type.count
    if not isinstance(count, int) or least(y) < ENOUGH * count:
        return No(f"there may be fewer than {ENOUGH} elements to a weight")
    for vector in vectors:
        if any(n != 1 for n in vector.shape[:-1]) or vector.shape and vector.shape[-1] not in (1, channels):
            return No(f"{vector.type} is not one number a channel")
    changing = next((v for v in (weights, *vectors) if not steady(v)), None)
    return changing is None or No("the weights, the scale or the shift depend on more than variables and constants")


def _other(node: Node, operand: Node) -> Node:
    """The operand of a sum or a product beside the one that is given."""
    a, b = node.args
    return a if b is operand else b


def least(y: Node) -> int:
    """How many elements there are at least, sizes that are not known being 1 or more."""
    count = y.type.count
    return dims.evaluate(count, dict.fromkeys(dims.symbols(count), 1))


def steady(node: Node, depth: int = DEPTH) -> bool:
    """Whether a value surely depends on variables and constants alone; looks `depth` operations far."""
    if not node.args:
        return node.op.name == "constant" or node.op.name == "parameter" and node.role == "variable"
    return depth > 0 and all(steady(a, depth - 1) for a in node.args)


def _channel_axis(y: Node) -> int | None:
    """The axis of a product's weights that its channels come from, or None where that is not so simple."""
    if y.op is matmul:
        return None if len(y.args[1].shape) != 2 else 0 if y.transpose_b else 1
    if y.op is conv:
        return len(y.shape) - 1
    return len(y.shape) - 2 if y.groups == 1 else None


def _scaled(y: Node, s: Node) -> Node:
    """The product with its weights multiplied, channel by channel."""
    x, w = y.args
    axis, scale = _channel_axis(y), _vector(s)
    if scale.shape and axis != len(w.shape) - 1:
        scale = reshape(scale, shape=(*scale.shape, 1))
    return rebuild(y, [x, w * scale])


def _vector(t: Node) -> Node:
    """One number a channel, or one for all, as a tensor of rank 1 or 0."""
    shape = t.shape[-1:] if t.type.count != 1 else ()
    return t if t.shape == shape else reshape(t, shape=shape)
