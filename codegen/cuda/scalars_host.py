"""What libdevice's functions mean, over NumPy arrays: for running the text of GPU kernels without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorc.codegen import scalars_numpy

LIBDEVICE: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt, "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sin": np.sin, "cos": np.cos,
    "tanh": np.tanh, "erf": scalars_numpy.erf, "erfinv": scalars_numpy.erfinv, "floor": np.floor, "ceil": np.ceil,
    "rint": np.rint, "fabs": np.fabs, "fmod": np.fmod, "copysign": np.copysign, "pow": np.power,
}  # fmt: skip
"""Each of float64; the function of float32 has an f behind its name."""
