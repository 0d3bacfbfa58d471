# mypy: allow-untyped-defs, allow-incomplete-defs, no-warn-return-any
"""The rows of a product in another order: what is turned is the narrow side.

Recurrent layers want steps first, and their inputs have samples first.  The wide thing is what a product makes of the
inputs for all gates of all steps, and its gradient.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tensorc.ir.dims import Size
from tensorc.ir.node import Node, rebuild
from tensorc.ops import matmul, reshape, transpose
from tensorc.ops.shape import inverse
from tensorc.passes.rewrite import No, Rewrite


class TransposeOfProducts(Rewrite):
    """transpose(f(reshape(a · b)), p) → f(reshape(transpose(a, p) · b)),  f elementwise, p keeps columns

    Pays where the rows of a are narrower than those of the product, which nothing else uses.

    Args:
        alone: nodes with one user.
    """

    def __init__(self, alone: Collection[Node] = ()) -> None:
        super().__init__()
        self.alone = alone

    def pattern(self, x, perm):
        return transpose(x, perm=perm)

    def check(self, x, perm):
        if perm[-1] != len(perm) - 1 or len(perm) < 3:
            return No(f"{list(perm)} moves columns")
        product = self._product(x)
        if product is None:
            return No("it is not of a product, or of one that is used as it is, too")
        return _known(product.a.shape[1]) < _known(product.shape[1]) or No("the operand is no narrower")

    def build(self, x, perm):
        return self._turned(x, perm)

    def _product(self, x: Node) -> Node | None:
        """The product that x is made of row by row."""
        shape = x.shape
        while x.op.scalar and x in self.alone:
            whole = [a for a in x.args if a.shape == shape]
            if len(whole) != 1 or any(len(a.shape) > 1 for a in x.args if a is not whole[0]):
                return None
            x = whole[0]
        if x.op is not reshape or x not in self.alone or x.args[0] not in self.alone:
            return None
        inner: Node = x.args[0]
        by_rows = inner.op is matmul and len(inner.shape) == 2 and not inner.transpose_a
        return inner if by_rows and inner.shape[1] == shape[-1] else None

    def _turned(self, x: Node, perm: Sequence[int]) -> Node:
        if x.op is reshape:
            product = x.args[0]
            a = _turned_rows(product.a, x.shape[:-1], perm)
            turned = matmul(a, product.b, transpose_a=False, transpose_b=product.transpose_b)
            return reshape(turned, shape=tuple(x.shape[p] for p in perm))
        return rebuild(x, [self._turned(a, perm) if a.shape == x.shape else a for a in x.args])


class ProductOverTurnedRows(Rewrite):
    """aᵀ · reshape(transpose(y, p)) → reshape(transpose(a, p⁻¹))ᵀ · reshape(y),  p keeps columns

    The order of the rows that are summed over does not matter, as long as it is the same on both sides.
    Pays where those of a are narrower.
    """

    def __init__(self, alone: Collection[Node] = ()) -> None:
        super().__init__()
        self.alone = alone

    def pattern(self, a, b):
        return matmul(a, b, transpose_a=True, transpose_b=False)

    def check(self, a, b):
        if len(a.shape) != 2:
            return No("it is one of many products")
        if not self._turned(b):
            return No("the right operand has its rows as they come")
        narrower = _known(a.shape[1]) < _known(b.shape[1])
        return narrower or No("the left operand is no narrower")

    def build(self, a, b):
        turned = b.args[0]
        rows = _turned_rows(a, turned.shape[:-1], inverse(turned.perm))
        return matmul(rows, reshape(turned.x, shape=b.shape), transpose_a=True, transpose_b=False)

    def _turned(self, b: Node) -> bool:
        if b.op is not reshape or b.args[0].op is not transpose:
            return False
        if b not in self.alone or b.args[0] not in self.alone:
            return False
        perm = b.args[0].perm
        return perm[-1] == len(perm) - 1 and b.args[0].shape[-1] == b.shape[1]


def _turned_rows(a: Node, lead: Sequence[Size], perm: Sequence[int]) -> Node:
    """The rows of a matrix, which `lead` counts, in the order that a transpose by `perm` gives them."""
    return reshape(transpose(reshape(a, shape=(*lead, a.shape[1])), perm=tuple(perm)), shape=a.shape)


def _known(size: Size) -> int:
    """A size, or more than any that is known."""
    return size if isinstance(size, int) else 1 << 62
