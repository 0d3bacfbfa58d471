# mypy: allow-untyped-defs, allow-incomplete-defs
"""Operations that are made of others become those, once no rule wants to see them whole."""

from __future__ import annotations

from tensorc.passes.rewrite import Rewrite


class Expand(Rewrite):
    """f(x…) → its definition,  for operations defined by others"""

    def pattern(self, x):
        return x

    def concerns(self, op, operands):
        return op.expand is not None

    def build(self, node):
        return node.op.expand(node)


RULES = (Expand(),)
