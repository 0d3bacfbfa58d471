"""`Tensor`: the handle with Python's operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tensorc import ops
from tensorc.backend.convert import as_node, promoted
from tensorc.backend.handle import Handle
from tensorc.backend.indexing import index
from tensorc.backend.provenance import public
from tensorc.errors import DTypeError
from tensorc.ir.node import Node, Op

Binary = Callable[[Any, Any], "Tensor"]
Unary = Callable[[Any], "Tensor"]


def apply(op: Callable[..., Node], *values: Any) -> Tensor:
    """An operation on operands brought to one dtype."""
    return Tensor(op(*promoted(values)))


def divide(x: Node, y: Node) -> Node:
    """The true quotient: integers divide as floatx."""
    if not x.dtype.is_float:
        x, y = promoted((x, 1.0))[0], promoted((y, 1.0))[0]
    quotient: Node = ops.div(x, y)
    return quotient


def _binary(symbol: str, op: Callable[..., Node]) -> tuple[Binary, Binary]:
    """The methods for a tensor on the left of an operator and on its right."""
    def left(x: Any, y: Any) -> Tensor:
        return apply(op, x, y)

    def right(y: Any, x: Any) -> Tensor:
        return apply(op, x, y)

    name = f"x {symbol} y"
    return public(name)(left), public(name)(right)


def _logical(symbol: str, op: Op) -> tuple[Binary, Binary]:
    """As `_binary`, for bool operands alone."""
    def checked(x: Node, y: Node) -> Node:
        if not x.dtype.is_bool:
            raise DTypeError(f"takes bools, not {x.dtype.name}")
        result: Node = op(x, y)
        return result

    return _binary(symbol, checked)


def _unary(name: str, op: Callable[..., Node]) -> Unary:
    def method(x: Any) -> Tensor:
        return Tensor(op(x.node))

    return public(name)(method)


class Tensor(Handle):
    """A value of a graph under construction.

    Arithmetic with numbers, arrays and other tensors gives tensors; `==` and `!=` compare identity, so that
    tensors can be looked up in lists and dicts.  NumPy arrays leave the arithmetic to us also on their left.
    """

    __slots__ = ()
    __array_ufunc__ = None
    __array_priority__ = 1000

    __add__, __radd__ = _binary("+", ops.add)
    __sub__, __rsub__ = _binary("-", ops.sub)
    __mul__, __rmul__ = _binary("*", ops.mul)
    __truediv__, __rtruediv__ = _binary("/", divide)
    __floordiv__, __rfloordiv__ = _binary("//", ops.floordiv)
    __mod__, __rmod__ = _binary("%", ops.mod)
    __pow__, __rpow__ = _binary("**", ops.pow)
    __and__, __rand__ = _logical("&", ops.logical_and)
    __or__, __ror__ = _logical("|", ops.logical_or)
    __xor__, __rxor__ = _logical("^", ops.logical_xor)

    __lt__ = _binary("<", ops.lt)[0]
    __le__ = _binary("<=", ops.le)[0]
    __gt__ = _binary(">", ops.gt)[0]
    __ge__ = _binary(">=", ops.ge)[0]

    __neg__ = _unary("-x", ops.neg)
    __abs__ = _unary("abs(x)", ops.abs)
    __invert__ = _unary("~x", ops.logical_not)

    @public("x @ y")
    def __matmul__(x, y: Any) -> Tensor:  # noqa: N805
        return apply(matmul, x, y)

    @public("x @ y")
    def __rmatmul__(y, x: Any) -> Tensor:  # noqa: N805
        return apply(matmul, x, y)

    @public("x[key]")
    def __getitem__(x, key: Any) -> Tensor:  # noqa: N805
        return Tensor(index(x.node, key))

    def __iter__(self) -> Iterator[Tensor]:
        """The rows along the first axis.  Raises TypeError where their number is not known."""
        shape = self.shape
        if not shape or shape[0] is None:
            raise TypeError("only a tensor whose first size is known can be iterated over; "
                            f"this one has shape {tuple(shape)}")
        return iter(_rows(self, shape[0]))


@public("iter(x)")
def _rows(x: Tensor, count: int) -> list[Tensor]:
    return [Tensor(index(x.node, i)) for i in range(count)]


def matmul(x: Node, y: Node) -> Node:
    """The product over the last axis of x and the last but one of y; the axes before them broadcast."""
    product: Node = ops.matmul(x, y, transpose_a=False, transpose_b=False)
    return product


def tensor(value: Any) -> Tensor:
    """The tensor itself, or a constant."""
    return value if isinstance(value, Tensor) else Tensor(as_node(value))
