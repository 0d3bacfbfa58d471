# mypy: allow-untyped-defs, allow-incomplete-defs
"""Operations that are made of others become those, once no rule wants to see them whole."""

from __future__ import annotations

from tensorc.ir.types import DType, i32
from tensorc.ops import cast, matmul
from tensorc.passes.rewrite import No, Rewrite


class Expand(Rewrite):
    """f(x…) → its definition,  for operations defined by others"""

    def pattern(self, x):
        return x

    def concerns(self, op, operands):
        return op.expand is not None

    def build(self, node):
        return node.op.expand(node)


class WidenMatmul(Rewrite):
    """matmul(a, b) → cast(matmul(cast a, cast b)),  for dtypes that products are not computed in

    Floats of 16 bits are multiplied and summed in float32; of narrow integers, the low bits of wide sums are the
    wrapped sums.
    """

    def pattern(self, a, b, ta, tb):
        return matmul(a, b, transpose_a=ta, transpose_b=tb)

    def check(self, node, machine):
        return node.dtype not in machine.products or No(f"there are products of {node.dtype}")

    def build(self, node, a, b, ta, tb):
        wide = _wide(node.dtype)
        product = matmul(cast(a, dtype=wide), cast(b, dtype=wide), transpose_a=ta, transpose_b=tb)
        return cast(product, dtype=node.dtype)


def _wide(dtype: DType) -> DType:
    return dtype.wide if dtype.is_half else i32


RULES = (Expand(), WidenMatmul())
