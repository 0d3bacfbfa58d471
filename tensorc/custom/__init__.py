"""Operations of one's own: scalar functions, graphs of K functions, and kernels in the loop language."""

from __future__ import annotations

from tensorc.custom.check import check
from tensorc.custom.elementwise import elementwise
from tensorc.custom.operation import op
from tensorc.errors import ArgumentError, DTypeError, ShapeError
from tensorc.ir.node import NoGradient
from tensorc.ir.types import dtype
from tensorc.ops.sample import sample

__all__ = ["ArgumentError", "DTypeError", "NoGradient", "ShapeError", "check", "dtype", "elementwise", "op", "sample"]
