"""LLVM IR of scalar functions as straight lines, and those on lanes."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from tensorc.codegen import loopir as ir
from tensorc.codegen.cpu.foreign import foreign_functions
from tensorc.codegen.scalars import SCALARS, add_foreign
from tensorc.codegen.straight import straight
from tensorc.codegen.weigh import LANE_BY_LANE, call_cost
from tensorc.ir.types import f32, f64

BRANCHES = """
define internal double @custom.scalar(double %x0, double %x1) {
entry:
  %v0 = fcmp ogt double %x0, 0.000000e+00
  br i1 %v0, label %v1, label %v2
v1:
  %v3 = fcmp olt double %x1, 1.000000e+00
  br i1 %v3, label %v4, label %v5
v2:
  %v6 = call double @llvm.exp.f64(double %x0)
  br label %v5
v4:
  %v7 = fmul nnan double %x0, %x1
  br label %v5
v5:
  %v8 = phi double [ %v6, %v2 ], [ %v7, %v4 ], [ %x1, %v1 ]
  ret double %v8
}
"""

LOOP = """
define internal double @custom.scalar(double %x0) {
entry:
  br label %v0
v0:
  %v1 = phi double [ %x0, %entry ], [ %v2, %v0 ]
  %v2 = fmul double %v1, 5.000000e-01
  %v3 = fcmp ogt double %v2, 1.000000e+00
  br i1 %v3, label %v0, label %v4
v4:
  ret double %v2
}
"""

LOAD = """
@custom.part0 = internal constant [2 x double] [double 1.000000e+00, double 2.000000e+00]
define internal double @custom.scalar(double %x0, i64 %x1) {
entry:
  %v0 = getelementptr double, ptr @custom.part0, i64 %x1
  %v1 = load double, ptr %v0, align 8
  ret double %v1
}
"""

ONE = """
define internal double @custom.scalar(double %x0) {
entry:
  %v0 = call double @lgamma(double %x0)
  %v1 = fadd double %v0, 0x3FF8000000000000
  ret double %v1
}
"""


def shown(source: str) -> str:
    line = straight(source)
    assert line is not None
    steps = [f"{s.name}: {s.kind} = {' '.join(filter(None, (s.what, s.predicate)))}({', '.join(s.args)})"
             for s in line.steps]
    return "\n".join([*steps, f"return {line.result}"])


def test_branches_become_selections(golden: Callable[[str, str], None]) -> None:
    golden("kernels/straight_branches.txt", shown(BRANCHES))


@pytest.mark.parametrize("source", [LOOP, LOAD], ids=["loop", "load"])
def test_loops_and_memory_are_no_straight_line(source: str) -> None:
    assert straight(source) is None


def named(wish: str, source: str, arity: int) -> str:
    return add_foreign(wish, arity, lambda dtypes: dtypes[0], np.add, lambda dtypes: source, lambda *args: 0.0)


def test_lanes(golden: Callable[[str, str], None]) -> None:
    """In vectors of float32 and as a single float64; what the C library does goes lane by lane."""
    texts = []
    branches = BRANCHES.replace("exp", "fabs")
    for wish, source, arity in (("branches", branches, 2), ("outside", ONE, 1), ("halved", LOOP, 1)):
        fn = named(wish, source, arity)
        calls = [f"call x @custom.{fn}.v4{'.f32' * arity}(", f"call x @custom.{fn}.v1{'.f64' * arity}("]
        texts.append(foreign_functions("\n".join(calls), fma=True, half=True).replace(fn, wish))
        del SCALARS[fn]
    golden("kernels/foreign_lanes.txt", "\n".join(re.sub(r"\n{2,}", "\n", t) for t in texts))


def test_what_a_call_costs() -> None:
    fns = [named("cost", source, arity) for source, arity in ((BRANCHES, 2), (ONE, 1), (LOOP, 1))]
    branches, outside, loop = (
        call_cost(ir.Call(fn, (ir.Var("x", f64),) * SCALARS[fn].arity, f64)) for fn in fns)
    assert SCALARS["exp"].cost < branches < 2 * SCALARS["exp"].cost < outside < loop == LANE_BY_LANE
    assert call_cost(ir.Call("exp", (ir.Var("x", f32),), f32)) == SCALARS["exp"].cost
    for fn in fns:
        del SCALARS[fn]
