"""Kernels as text for a GPU, run in lock-step over NumPy lanes against the meaning of each kernel."""

from dataclasses import replace

import numpy as np
import pytest
from cuda_machine import on_gpu
from loop_cases import CASES
from test_loops import arrays_for, check

from tensorc.codegen.cuda.emit import emit
from tensorc.codegen.cuda.lockstep import KernelFault, run
from tensorc.codegen.transform import bake
from tensorc.ir.types import DType, f32

SIZES = [(0, 5), (3, 0), (1, 1), (5, 3), (7, 17), (33, 65), (4, 259)]
RUNS = [(name, t) for name, case in CASES.items() for t in case.dtypes]


def compare(name: str, t: DType, sizes: dict[str, int], known: dict[str, int] | None = None, wide: bool = False
            ) -> None:
    """The kernels of a case at some sizes, against NumPy."""
    case = CASES[name]
    kernels = case.make(t) if known is None else [bake(k, known) for k in case.make(t)]
    arrays = {name: on_gpu(a) for name, a in arrays_for(kernels, sizes, special=sizes["m"] % 2 == 1).items()}
    inputs = {b.name: arrays[b.name].copy() for k in kernels for b in k.buffers if b.role in ("in", "inout")}
    for k in kernels:
        run(replace(emit(k), wide=wide), [arrays[b.name] for b in k.buffers], sizes)
    with np.errstate(all="ignore"):
        meaning = case.meaning(**inputs)
    for output, want in meaning.items():
        check(arrays[output], want, case.exact, f"{output} at {sizes}")


@pytest.mark.parametrize(("name", "t"), RUNS, ids=[f"{name}-{t}" for name, t in RUNS])
def test_text_agrees_with_numpy(name: str, t: DType) -> None:
    for n, m in SIZES:
        if CASES[name].empty or n * m:
            compare(name, t, {"n": n, "m": m})


@pytest.mark.parametrize(("n", "m"), [(5, 3), (9, 44), (2, 1000)])
def test_text_for_known_sizes_agrees_with_numpy(n: int, m: int) -> None:
    for name, case in CASES.items():
        if f32 in case.dtypes:
            compare(name, f32, {"n": n, "m": m}, {"m": m}, wide=m == 44)


def test_indices_have_64_bits_where_a_buffer_needs_them() -> None:
    """Of known sizes the kernel says so itself; others are asked for their values at the launch."""
    (k,) = CASES["row_add"].make(f32)
    source = emit(k)
    assert not source.wide
    assert not source.at({"n": 1 << 15, "m": 1 << 15}).wide
    assert source.at({"n": 1 << 16, "m": 1 << 15}).wide
    assert source.at({"n": 1 << 16, "m": 1 << 15}).text == source.text
    assert emit(bake(k, {"n": 1 << 16, "m": 1 << 15})).wide
    assert not emit(bake(k, {"m": 1 << 15})).wide


# What running in lock-step finds.

FAULTS = [
    ("flat_chain", "I(2048)", "I(1024)", "a race: y is written where another thread wrote"),
    ("flat_chain", "mul(I(cuda.threadIdx.x), I(4))", "add(mul(I(cuda.threadIdx.x), I(4)), I(2))", "not aligned"),
    ("flat_chain", "float32(1.0)", "float64(1.0)", "float64 and float32 together become another dtype"),
    ("flat_chain", "float32(1.0)", "1.0", "float and float32 together become another dtype"),
    ("gather_rows", "if p < ", "if p <= ", "is outside of"),
    ("transpose", "    cuda.syncthreads()\n", "", "a race: shared memory is read where another thread wrote"),
    ("transpose", "(32, 33)", "(31, 33)", "an index outside of shared memory"),
    ("row_add", "    cuda.syncthreads()\n", "", "is read where another thread wrote"),
    ("row_add", "    cuda.sync", "    if t < I(40):\n        cuda.sync", "do not reach this barrier"),
    ("row_add", "    for turn", "    if t < I(40):\n      for turn", "do not reach this shuffle"),
    ("row_add", "if rem(t, I(32)) == I(0):", "if rem(t, I(64)) == I(0):", "shared memory is read before it is written"),
    ("row_add", "if t == I(0):", "if t < I(2):", "a race: two threads write to one element of y"),
    ("flat_chain", "x_l[l]", "x_l[p]", "registers are indexed by a variable"),
]


@pytest.mark.parametrize(("name", "before", "after", "message"), FAULTS, ids=[m[-24:] for *_, m in FAULTS])
def test_planted_faults_are_found(name: str, before: str, after: str, message: str) -> None:
    (k,) = CASES[name].make(f32)
    source = emit(k)
    assert before in source.text
    sizes = {"n": 33, "m": 300}
    arrays = [on_gpu(a) for a in (arrays_for([k], sizes, special=False)[b.name] for b in k.buffers)]
    with pytest.raises(KernelFault, match=message):
        run(replace(source, text=source.text.replace(before, after)), arrays, sizes)
