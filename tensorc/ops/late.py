"""Results whose length only a run can tell: computed at their largest, and cut by the runtime.

The length is data, so it stands in types as a symbol of its own.  Kernels know nothing of it: such a result can be an
output of a program, but nothing else is computed from it.
"""

from __future__ import annotations

import builtins
import itertools
from typing import Any

from numpy.typing import NDArray

from tensorc.errors import DTypeError
from tensorc.ir import dims
from tensorc.ir.dims import Dim, Size
from tensorc.ir.types import TensorType, i64
from tensorc.ops.define import At, NoGradient, defop
from tensorc.ops.sample import sample
from tensorc.ops.shape import checked_axis

_LATE = "late__"
_numbers = itertools.count()


def late_size() -> Dim:
    """A size that nobody knows before the run, another one each time."""
    return dims.symbol(f"{_LATE}{next(_numbers)}")


def is_late(symbol: str) -> bool:
    """Whether a symbol stands for such a size."""
    return symbol.startswith(_LATE)


def _cut_type(x: TensorType, length: TensorType, *, axis: int, size: Size) -> TensorType:
    checked_axis(axis, x.rank)
    if length.dtype is not i64 or length.rank:
        raise DTypeError("a length is one int64")
    return x.with_shape((*x.shape[:axis], size, *x.shape[axis + 1:]))


def _cut(x: NDArray[Any], length: NDArray[Any], *, axis: int, size: int) -> NDArray[Any]:
    return x[(*[builtins.slice(None)] * axis, builtins.slice(size))]


cut = defop(
    "cut",
    doc="The first elements of x along an axis: as many as `length` says, which in types is `size`.",
    infer=_cut_type,
    reference=_cut,
    gradient=NoGradient("nothing is computed from a result whose length only a run can tell"),
    index=lambda node, index: At(0, index),
    samples=[sample("i64[2,5]", "i64[]", fixed={1: 3}, axis=1, size=3),
             sample("f32[4]", "i64[]", fixed={1: 0}, axis=0, size=0)],
)
