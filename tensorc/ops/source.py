"""Values that are given: parameters and constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorc.ir.types import TensorType, dtype
from tensorc.ops.define import NoGradient, defop
from tensorc.ops.sample import sample

parameter = defop(
    "parameter",
    doc="A value the caller gives or the program keeps.  Role: input, variable, key or data; uid keeps two of one "
        "name apart while a graph is being built, and is 0 in a closed one.",
    infer=lambda *, name, role, uid, type: type,
    reference=None,
    gradient=NoGradient("a parameter depends on nothing"),
    source=True,
)


def _constant_type(*, value: np.ndarray[Any, Any]) -> TensorType:
    return TensorType(dtype(value.dtype), value.shape)


constant = defop(
    "constant",
    doc="An array known at compile time; made by `tensorc.ir.node.constant`.",
    infer=_constant_type,
    reference=lambda *, value: value,
    gradient=NoGradient("a constant depends on nothing"),
    source=True,
    samples=[sample(value=np.float32(1.5).reshape(())), sample(value=np.arange(6).reshape(2, 3))],
)
