"""Every operation of the registry as kernels for a GPU, run in lock-step, against its reference; and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from cuda_machine import compute, planned
from samples import Case, Sizes, cases_of, distinct, with_gradients
from test_registry import COMPUTING, DIFFERENTIABLE, close, of_known_sizes, several_sizes

from tensorc.codegen.cuda.assemble import assemble
from tensorc.ir.closing import close as closed
from tensorc.ir.node import Op
from tensorc.ops.interpret import evaluate


class OnGpu:
    """Cases as one program, and whether it computes what the references do."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        self.origins = [case for case in cases for _ in case.outputs]
        params = [p for case in cases for p in case.params]
        self.graph = closed(cases[0].node.op.name, params, [o for case in cases for o in case.outputs], []).graph
        self.planned = planned(self.graph)
        self.assembly = assemble(self.planned)

    def check(self, sizes: Sizes, values: Any, slack: int = 1) -> None:
        arrays = [array for case in self.cases for array in values(case, sizes)]
        named = dict(zip([p.name for p in self.graph.params], arrays, strict=True))
        wanted, _ = evaluate(self.graph, named)
        got = compute(self.planned, self.assembly, arrays, sizes)
        for case, a, b in zip(self.origins, got, wanted, strict=False):
            close(a, np.asarray(b), slack, bool(case.accumulates), f"{case.label} {dict(sizes)}")


LENGTHY = ("windows", "ctc_")
"""Operations whose kernels take many steps one after the other: run at the sizes of their samples alone."""
WEIGHTY = ("conv", "matmul", "avg_pool", "max_pool", *LENGTHY)


def of_known(op: Op) -> OnGpu:
    """An operation's samples at known sizes."""
    cases = cases_of(op)
    if op.name.startswith(LENGTHY):
        return OnGpu([case.with_sizes(case.sizes) for case in cases[:1]])
    return OnGpu(list(of_known_sizes(cases)))


def of_unknown(op: Op) -> OnGpu:
    """The same at unknown sizes."""
    return OnGpu(distinct(case for case in cases_of(op) if case.sizes))


def of_gradients(op: Op) -> OnGpu:
    """The gradients of an operation's samples in float32."""
    cases = [case for case in cases_of(op) if case.node.dtype.name == "float32"]
    return OnGpu(distinct(filter(None, map(with_gradients, cases))))


@pytest.mark.parametrize("op", COMPUTING, ids=lambda op: op.name)
def test_value(op):
    gpu = of_known(op)
    gpu.check({}, Case.arrays)
    if op.scalar or op.reduce:
        gpu.check({}, Case.extremes)


@pytest.mark.parametrize("op", [op for op in COMPUTING if not op.name.startswith(LENGTHY)], ids=lambda op: op.name)
def test_value_for_unknown_sizes(op):
    gpu = of_unknown(op)
    for sizes in list(several_sizes(gpu.cases))[1 if op.name.startswith(WEIGHTY) else 0:2]:
        gpu.check(sizes, Case.arrays)


@pytest.mark.parametrize("op", [op for op in DIFFERENTIABLE if op.name != "windows"], ids=lambda op: op.name)
def test_gradient(op):
    gpu = of_gradients(op)
    gpu.check(list(several_sizes(gpu.cases))[1], Case.arrays, slack=8)
