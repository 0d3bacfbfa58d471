"""Shape and dtype rules that operations share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensorc.errors import DTypeError, ShapeError
from tensorc.ir import dims
from tensorc.ir.assume import agree, at_least
from tensorc.ir.dims import Size
from tensorc.ir.types import DType, TensorType, boolean


def same_dtype(*types: TensorType) -> DType:
    """The one dtype of all operands.  Raises DTypeError."""
    first, *rest = types
    if any(t.dtype is not first.dtype for t in rest):
        raise DTypeError("the dtypes differ: " + ", ".join(t.dtype.name for t in types))
    return first.dtype


def broadcast_shapes(*shapes: Sequence[Size]) -> tuple[Size, ...]:
    """NumPy's broadcasting.  Raises ShapeError."""
    rank = max(map(len, shapes))
    out: list[Size] = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            both = dims.bcast(out[axis], size)
            if both is None:
                raise ShapeError("the shapes do not broadcast: " + " and ".join(map(show_shape, shapes)))
            out[axis] = both
    return tuple(out)


def show_shape(shape: Sequence[Size]) -> str:
    """(2, n) for people."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def elementwise(*types: TensorType) -> TensorType:
    """Operands of one dtype, broadcast together."""
    return TensorType(same_dtype(*types), broadcast_shapes(*(t.shape for t in types)))


def comparison(x: TensorType, y: TensorType) -> TensorType:
    """As elementwise, giving bool."""
    return elementwise(x, y).with_dtype(boolean)


def reduced(x: TensorType, *, axes: tuple[int, ...], keepdims: bool) -> TensorType:
    """x without `axes` (sorted, non-negative), or with size 1 there."""
    if any(not 0 <= a < x.rank for a in axes) or list(axes) != sorted(set(axes)):
        raise ShapeError(f"axes {list(axes)} are not sorted axes of a rank {x.rank} tensor")
    if keepdims:
        return x.with_shape([1 if i in axes else s for i, s in enumerate(x.shape)])
    return x.with_shape([s for i, s in enumerate(x.shape) if i not in axes])


def float_only(rule: Callable[..., TensorType]) -> Callable[..., TensorType]:
    """The rule, for float operands alone."""
    def checked(x: TensorType, *rest: TensorType) -> TensorType:
        if not x.dtype.is_float:
            raise DTypeError(f"takes floats, not {x.dtype.name}")
        return rule(x, *rest)
    return checked


__all__ = [
    "agree", "at_least", "broadcast_shapes", "comparison", "elementwise", "float_only", "reduced", "same_dtype",
    "show_shape",
]
