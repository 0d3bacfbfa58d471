"""What passes ask of the machine that a graph is compiled for: all that makes a GPU's graph another than a processor's.

The passes are the same, so a pipeline that a user made holds on either.  Layout is the same, too: kernels for a GPU
have channels last as well, where neighbouring threads read neighbouring channels, and read operands of products either
way.  Scales move into weights on both: a bias is added on a product's way out, also by libraries, a scale is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorc.ir.types import DType, bf16, f16, f32, f64, i32, i64


@dataclass(frozen=True)
class Target:
    """
    Attributes:
        products: the dtypes that matrix products are computed in, or from.
        keeps: whether what is made of variables alone is kept from call to call.
        takes_rows: whether a loop may run for some rows of a batch at a time.
        waits: whether to choose between branches is to wait for all that runs before.
    """

    products: tuple[DType, ...]
    keeps: bool
    takes_rows: bool
    waits: bool


TARGETS: Mapping[str, Target] = {
    "cpu": Target(
        products=(f32, f64, i32, i64),
        keeps=True,             # weights packed and scaled save more than it costs to see whether they have changed
        takes_rows=True,        # a thread finds in its cache what its step before has left
        waits=False,
    ),
    "cuda": Target(
        products=(f16, bf16, f32, f64, i32, i64),   # those of 16 bits are widened on their way into the sum
        keeps=False,            # kernels want no packed weights; the rest is little among launches that are replayed
        takes_rows=False,       # all rows of a step run side by side, and a size that is known stays known
        waits=True,             # the host decides which kernels to launch, so it waits until the condition is there
    ),
}
