# mypy: allow-untyped-defs, allow-incomplete-defs
"""Rules about loops and choices, and about what is left of them outside."""

from __future__ import annotations

from collections.abc import Sequence

from tensorc.ir.graph import Graph, postorder, replace_nodes
from tensorc.ir.node import Node, Op
from tensorc.ops import matmul, reshape, select, sum
from tensorc.passes.rewrite import No, Rewrite

LIGHT = ("scalar", "view", "source")
SMALL = 24                           # operations of both branches that are better computed than chosen between
MANY = 400                           # the same where a choice waits


class SumOfProducts(Rewrite):
    """Σₜ aₜᵀ·bₜ → AᵀB  with the rows of all aₜ, and of all bₜ, below one another

    The gradient of a weight that every step of a loop uses is one product.
    """

    def pattern(self, a, b, axes, keepdims):
        return sum(matmul(a, b, transpose_a=True, transpose_b=False), axes=axes, keepdims=keepdims)

    def check(self, a, b, axes, keepdims):
        if axes != (0,) or keepdims:
            return No("the sum is over something else than the first axis")
        if len(a.shape) != 3 or len(b.shape) != 3:
            return No("the operands do not both have an axis of steps")
        return a.shape[0] == b.shape[0] or No("one operand is repeated along the steps")

    def build(self, a, b):
        flat = [reshape(x, shape=(x.shape[0] * x.shape[1], x.shape[2])) for x in (a, b)]
        return matmul(*flat, transpose_a=True, transpose_b=False)


class CondOfKnown(Rewrite):
    """cond(true, then, otherwise) → then,  and otherwise for false"""

    def pattern(self, x):
        return x

    def concerns(self, op: Op, operands: Sequence[Op]) -> bool:
        return op.name == "cond" and operands[0].name == "constant"

    def build(self, node):
        return inlined(node.then if node.args[0].value else node.otherwise, node)


class CondOfLight(Rewrite):
    """cond(c, then, otherwise) → select(c, then, otherwise),  where both are little elementwise work

    A choice ends a kernel, and a few operations cost less than what they would have to be written out for.  Many do
    where the machine would wait, find out and go on.
    """

    def pattern(self, x):
        return x

    def concerns(self, op: Op, operands: Sequence[Op]) -> bool:
        return op.name == "cond"

    def check(self, node, machine):
        made = [n for branch in (node.then, node.otherwise) for n in postorder([branch.outputs[node.result]])]
        heavy = next((n for n in made if not is_light(n)), None)
        if heavy is not None:
            return No(f"{heavy.op.name} is better left out where it is not needed")
        most = MANY if machine.waits else SMALL
        return len(made) <= most or No(f"{len(made)} operations are better left out where they are not needed")

    def build(self, node):
        return select(node.args[0], inlined(node.then, node), inlined(node.otherwise, node))


def is_light(node: Node) -> bool:
    """Elementwise, or no work at all."""
    return node.op.way in LIGHT or node.op.name in ("broadcast", "size", "iota", "relu", "clip", "uniform",
                                                    "stop_gradient", "log_sigmoid")


def inlined(branch: Graph, node: Node) -> Node:
    """A branch's result in terms of the operands of the choice."""
    operands = dict(zip(branch.params, node.args[1:], strict=True))
    return replace_nodes([branch.outputs[node.result]], operands)[0]


RULES = (SumOfProducts(), CondOfKnown(), CondOfLight())
