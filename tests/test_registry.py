"""Every operation of the registry as native code, held against its reference: each sample in all dtypes, with sizes
known and unknown and with extreme values, and the same for its gradients.

An operation is tested here by being in the registry.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from samples import Array, Case, Sizes, cases_of, distinct, with_gradients

import tensorc.ops  # noqa: F401
from tensorc.ir.node import OPS, NoGradient
from tensorc.ir.types import dtype as dtype_of
from tensorc.ir.types import numpy_kind
from tensorc.ops.interpret import evaluate
from tensorc.runtime.function import Function

COMPUTING = [op for op in OPS.values() if not op.source]
DIFFERENTIABLE = [op for op in COMPUTING if not isinstance(op.gradient, NoGradient)]
TOLERANCE = {"bfloat16": 8e-3, "float16": 1e-3, "float32": 5e-7, "float64": 1e-15}


@pytest.mark.parametrize("op", COMPUTING, ids=lambda op: op.name)
def test_value(op):
    assert op.samples, f"{op.name} has no samples"
    native = Native(list(of_known_sizes(cases_of(op))))
    native.check({}, Case.arrays)
    native.check({}, Case.extremes)


@pytest.mark.parametrize("op", COMPUTING, ids=lambda op: op.name)
def test_value_for_unknown_sizes(op):
    native = Native(distinct(case for case in cases_of(op) if case.sizes))
    for sizes in several_sizes(native.cases):
        native.check(sizes, Case.arrays)
        native.check(sizes, Case.extremes)


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_gradient(op):
    """Of float32 and float64: what a kernel keeps of floats of 16 bits is wider than what the references keep."""
    cases = [case for case in cases_of(op) if case.node.dtype.name in ("float32", "float64")]
    native = Native(distinct(filter(None, map(with_gradients, cases))))
    for sizes in several_sizes(native.cases):
        native.check(sizes, Case.arrays, slack=8)
        native.check(sizes, Case.extremes, slack=8)


class Native:
    """Cases as one native program, and whether it computes what the references do."""

    def __init__(self, cases: Sequence[Case]) -> None:
        assert cases
        self.cases = cases
        self.origins = [case for case in cases for _ in case.outputs]
        params = [p for case in cases for p in case.params]
        self.function = Function(cases[0].node.op.name, params, [o for case in cases for o in case.outputs])
        assert len(self.function.graph.params) == len(params)
        all_outputs_come_from_kernels(self.function)

    def check(self, sizes: Sizes, values: Any, slack: int = 1) -> None:
        arrays = [array for case in self.cases for array in values(case, sizes)]
        names = [p.name for p in self.function.graph.params]
        wanted, _ = evaluate(self.function.graph, dict(zip(names, arrays, strict=True)))
        with no_references():
            got = self.function(arrays)
        assert self.function.compilations == 1
        for case, a, b in zip(self.origins, got, wanted[:len(got)], strict=True):
            close(a, b, slack, bool(case.accumulates), f"{case.label} {dict(sizes)}")


def all_outputs_come_from_kernels(function: Function) -> None:
    """Each output of the planned program is written by a kernel of it."""
    program = function.program
    plan = program.planned.plan
    written = {place.index for group in plan.groups for place in group.writes if place.kind == "output"}
    assert written == set(range(len(program.planned.outputs)))
    assert all(kernels for _, kernels in program.assembly.lowered)


@contextlib.contextmanager
def no_references() -> Iterator[None]:
    """Within the block no reference can be called."""
    def refuse(*operands: Any, **attrs: Any) -> Array:
        raise AssertionError("a reference is called while a program runs")

    references = {op: op.reference for op in OPS.values()}
    try:
        for op in references:
            object.__setattr__(op, "reference", refuse)
        yield
    finally:
        for op, reference in references.items():
            object.__setattr__(op, "reference", reference)


def of_known_sizes(cases: Sequence[Case]) -> Iterator[Case]:
    """The cases with the sizes of their samples, the first one in each dtype with larger ones."""
    seen = set()
    for case in cases:
        dtypes = tuple(p.dtype for p in case.params)
        large = larger(case)
        yield case.with_sizes(large if dtypes not in seen and case.takes(large) else case.sizes)
        seen.add(dtypes)


def several_sizes(cases: Sequence[Case]) -> Iterator[Sizes]:
    """Those of the samples, larger ones, and 0 and 1 for one symbol of each case after the other.

    Where an operation does not take what is wished for, its sample's own sizes.
    """
    def for_all(wish: Any) -> Sizes:
        wishes = [wish(case) for case in cases]
        taken = [w if c.takes(w) else c.sizes for c, w in zip(cases, wishes, strict=True)]
        return {symbol: n for sizes in taken for symbol, n in sizes.items()}

    yield for_all(larger)
    yield for_all(lambda case: case.sizes)
    for which in range(max(len(case.sizes) for case in cases)):
        for n in 0, 1:
            yield for_all(lambda case, k=which, n=n: {**case.sizes, **dict.fromkeys(list(case.sizes)[k:k + 1], n)})


def larger(case: Case) -> Sizes:
    """Sizes that take whole vectors and a rest; smaller ones for convolutions, which multiply all their sizes."""
    times = 2 if case.node.op.kernel == "conv" else 9
    return {symbol: times * n + 1 if n else 5 for symbol, n in case.sizes.items()}


def close(got: Array, want: Array, slack: int, accumulated: bool, label: str) -> None:
    """Equal up to rounding, which counts relative to the largest number there is where sums may cancel."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape), label
    if numpy_kind(want.dtype) != "f":
        np.testing.assert_array_equal(got, want, err_msg=label)
        return
    tolerance = slack * TOLERANCE[want.dtype.name]
    least = 4 * float(dtype_of(want.dtype).finfo.smallest_subnormal)
    if accumulated:
        tolerance *= 8
        finite = np.abs(want, where=np.isfinite(want), out=np.zeros_like(want))
        least = tolerance * float(finite.max(initial=1))
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=least, err_msg=label)
