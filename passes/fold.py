# mypy: allow-untyped-defs, allow-incomplete-defs
"""Constant folding: what is known now is computed now, through the reference of each operation."""

from __future__ import annotations

from collections.abc import Sequence

from tensorc.ir.node import Op, constant, symbols_of
from tensorc.ops.interpret import meaning
from tensorc.passes.rewrite import No, Rewrite

LARGEST = 4096                       # elements of a result worth keeping as a constant
KEPT = {"scan", "cond", "uniform", "normal", "truncated_normal", "check", "broadcast"}
ARITHMETIC = {"add", "sub", "mul", "div", "neg", "pow", "maximum", "minimum", "cast", "sqrt", "logical_not", "sum_to"}


class Fold(Rewrite):
    """f(constants) → a constant,  unless f is random, a check, or the result is large"""

    def pattern(self, x):
        return x

    def concerns(self, op: Op, operands: Sequence[Op]) -> bool:
        known = bool(operands) and all(operand.name == "constant" for operand in operands)
        return known and op.reference is not None and op.name not in KEPT

    def check(self, node):
        count = node.type.count
        if not isinstance(count, int) or symbols_of(node):
            return No("its size, or one that it is computed with, is not known")
        return count <= max(LARGEST, *(a.type.count for a in node.args)) or No(f"{count} elements are too many to keep")

    def build(self, node):
        return constant(meaning(node, [a.value for a in node.args], node.attrs), node.dtype)


class FoldNumbers(Fold):
    """a + b → their sum,  for single numbers and arithmetic alone

    Runs while graphs are still being stabilised, where exp(1000) has to stay what it is.
    """

    def concerns(self, op: Op, operands: Sequence[Op]) -> bool:
        return op.name in ARITHMETIC and super().concerns(op, operands)

    def check(self, node):
        return node.type.count == 1 or No("more than one number")


class SizeNumber(Rewrite):
    """size(n) → n  where n is a number by now"""

    def pattern(self, x):
        return x

    def concerns(self, op, operands):
        return op.name == "size"

    def check(self, node):
        return isinstance(node.value, int) or No(f"{node.value} is known at run time")

    def build(self, node):
        return constant(node.value, node.dtype)


RULES = (SizeNumber(), Fold())
