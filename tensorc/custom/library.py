"""Functions of the C library that are no operations, as such, for derivatives that need them and theirs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from tensorc.ir.node import Op

Scalar = Callable[..., float]

FUNCTIONS: Mapping[str, tuple[Scalar, list[Scalar]]] = {
    "asin": (lambda x: math.asin(x), [lambda x: 1.0 / math.sqrt(1.0 - x * x)]),
    "acos": (lambda x: math.acos(x), [lambda x: -1.0 / math.sqrt(1.0 - x * x)]),
    "atan": (lambda x: math.atan(x), [lambda x: 1.0 / (1.0 + x * x)]),
    "asinh": (lambda x: math.asinh(x), [lambda x: 1.0 / math.sqrt(x * x + 1.0)]),
    "acosh": (lambda x: math.acosh(x), [lambda x: 1.0 / math.sqrt(x * x - 1.0)]),
    "atanh": (lambda x: math.atanh(x), [lambda x: 1.0 / (1.0 - x * x)]),
    "atan2": (lambda y, x: math.atan2(y, x), [lambda y, x: x / (x * x + y * y), lambda y, x: -y / (x * x + y * y)]),
    "hypot": (lambda x, y: math.hypot(x, y), [lambda x, y: x / math.hypot(x, y), lambda x, y: y / math.hypot(x, y)]),
}
"""Each function, and its derivative in each argument."""


@functools.cache
def operation(name: str) -> Op | None:
    """The operation of a function of the C library; None where its derivative is not known."""
    from tensorc.custom.elementwise import elementwise

    if name not in FUNCTIONS:
        return None
    function, slopes = FUNCTIONS[name]
    made: Any = elementwise(function, gradient=slopes, name=name)
    op: Op = made.op
    return op
