"""The loop IR: its text, its verifier, its transformations, and the code made of it against its Python oracle and NumPy."""

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from loop_cases import CASES, Arrays, call, index, kernel, load, loop, size_as, store, var

from tensorc.codegen.access import determined, join_quotients
from tensorc.codegen.cpu.compile import compile_text, load as load_image
from tensorc.codegen.cpu.emit import emit, emit_box, work
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.vectormath_library import library
from tensorc.codegen.loopir import Acc, Accum, Buffer, Cast, Iter, Kernel, Let, Matmul, Num, Scan, Store, identity
from tensorc.codegen.loopverify import InvalidKernel, verify, verify_matmul
from tensorc.codegen.python import oracle
from tensorc.codegen.schedule import Schedule, schedule
from tensorc.codegen.transform import bake, collapse, matmul_loops, merge_loops, split
from tensorc.ir import dims
from tensorc.ir.types import DType, boolean, f16, f32, f64, i32, i64

SIZES = [(0, 5), (3, 0), (1, 1), (1, 7), (5, 3), (3, 16), (7, 17), (2, 63), (33, 65), (130, 10), (4, 259)]
ORACLE_LIMIT = 260
"""Elements of a case up to which the Python oracle runs too."""


# -- running kernels


class Machine:
    """Kernels compiled for one vector width, callable by name over NumPy arrays."""

    def __init__(self, kernels: dict[str, Kernel], target: Target, schedules: dict[str, Schedule] | None = None) -> None:
        self.kernels = kernels
        parts = []
        for name, k in kernels.items():
            parts.append(emit(replace(k, name=name), target, (schedules or {}).get(name)))
            parts.append(f"define void @run_{name}(i64 %a, i64 %b, ptr %c, ptr %d) {{\n"
                         f"  call void @{name}(i64 %a, i64 %b, ptr %c, ptr %d)\n  ret void\n}}\n")
            for what in ("units", "work"):
                parts.append(f"define i64 @{what}_{name}(ptr %d) {{\n"
                             f"  %n = call i64 @{name}_{what}(ptr %d)\n  ret i64 %n\n}}\n")
        text = "\n".join(parts)
        image = compile_text(text + library(text, target.fma), target).image
        exports = [f"{what}_{name}" for name in kernels for what in ("run", "units", "work")]
        self.library = load_image(image, exports)

    def run(self, name: str, arrays: Arrays, sizes: dict[str, int], chunks: int = 1) -> None:
        k = self.kernels[name]
        pointers = (ctypes.c_void_p * len(k.buffers))(*[arrays[b.name].ctypes.data for b in k.buffers])
        numbers = (ctypes.c_int64 * max(1, len(k.sizes)))(*[sizes[n] for n in k.sizes])
        units = self.count("units", name, sizes)
        run = self.library.function(f"run_{name}", None, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 2)
        for c in reversed(range(chunks)):
            run(units * c // chunks, units * (c + 1) // chunks, pointers, numbers)

    def count(self, what: str, name: str, sizes: dict[str, int]) -> int:
        k = self.kernels[name]
        numbers = (ctypes.c_int64 * max(1, len(k.sizes)))(*[sizes[n] for n in k.sizes])
        return int(self.library.function(f"{what}_{name}", ctypes.c_int64, ctypes.c_void_p)(numbers))


def guarded(a: Any, at_end: bool, keep: list[Any]) -> Any:
    """A copy that ends, or starts, at a page that cannot be touched: one element too far is a crash."""
    if sys.platform == "win32":
        return a.copy()
    need = -(-max(a.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, need + 2 * mmap.PAGESIZE)
    keep.append(memory)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None).mprotect
    assert protect(ctypes.c_void_p(base), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    assert protect(ctypes.c_void_p(base + mmap.PAGESIZE + need), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    start = mmap.PAGESIZE + (need - a.nbytes if at_end else 0)
    view = np.frombuffer(memory, np.uint8, a.nbytes, start).view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def arrays_for(kernels: list[Kernel], sizes: dict[str, int], special: bool) -> Arrays:
    """An array for each buffer: random inputs, outputs full of 77."""
    rng = np.random.default_rng(sum(sizes.values()))
    found: Arrays = {}
    for k in kernels:
        for b in k.buffers:
            if b.name in found:
                continue
            shape = tuple(dims.evaluate(size, sizes) for size in b.shape)
            t = b.dtype.numpy
            if b.role in ("out", "scratch"):
                found[b.name] = np.full(shape, 77, t)
            elif b.name == "ids":
                high = sizes["n"] if k.name != "gather_elements" else sizes["n"] * sizes["m"]
                found[b.name] = rng.integers(0, max(high, 1), shape).astype(t)
            elif b.dtype.is_float:
                x = rng.normal(size=shape).astype(t)
                if special and x.size > 3:
                    x.flat[rng.integers(0, x.size, 3)] = [np.nan, np.inf, -np.inf]
                found[b.name] = x
            else:
                low, high = (0, 2) if b.dtype.is_bool else (0, 250) if t.kind == "u" else (-9, 10)
                found[b.name] = rng.integers(low, high, shape).astype(t)
    return found


def check(got: Any, want: Any, exact: bool, what: str) -> None:
    want = np.asarray(want)
    assert got.shape == want.shape, what
    if exact or got.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    finite = np.isfinite(want)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=what)
    np.testing.assert_array_equal(got[np.isinf(want)], want[np.isinf(want)], err_msg=what)
    scale = float(np.abs(want[finite]).max(initial=1.0))
    error = float(np.abs(got[finite].astype("f8") - want[finite]).max(initial=0.0))
    assert error <= 60 * scale * float(np.finfo(got.dtype).eps), f"{what}: error {error} at scale {scale}"


RUNS = [(name, t) for name, case in CASES.items() for t in case.dtypes]
KERNELS = {(name, t): CASES[name].make(t) for name, t in RUNS}
HOST = Target.host()


@pytest.fixture(scope="module", params=[512, 256, 128])
def machine(request: pytest.FixtureRequest) -> Machine:
    named = {f"{k.name}_{t}": k for (_, t), kernels in KERNELS.items() for k in kernels}
    kept = {n: k for n, k in named.items() if request.param == HOST.bits or n.endswith("_f32")}
    target = replace(HOST, bits=request.param, fma=HOST.fma and request.param != 128)
    return Machine(kept, target)


@pytest.mark.parametrize(("name", "t"), RUNS, ids=[f"{name}-{t}" for name, t in RUNS])
def test_code_agrees_with_oracle_and_numpy(machine: Machine, name: str, t: DType) -> None:
    case, kernels = CASES[name], KERNELS[name, t]
    if f"{kernels[0].name}_{t}" not in machine.kernels:
        pytest.skip("only float32 runs at this width")
    for n, m in SIZES:
        if not case.empty and n * m == 0:
            continue
        compare(machine, case, kernels, t, {"n": n, "m": m}, special=m % 2 == 1)


def compare(machine: Machine, case: Any, kernels: list[Kernel], t: DType, sizes: dict[str, int], special: bool) -> None:
    """One size of a case: four ways to cut the work, bit-equal; then the oracle and NumPy."""
    keep: list[Any] = []
    start = arrays_for(kernels, sizes, special)
    arrays = {name: guarded(a, not special, keep) for name, a in start.items()}
    written = sorted({b.name for k in kernels for b in k.buffers if b.role in ("out", "inout")})
    results: list[Arrays] = []
    for chunks in (1, 2, 3, 7):
        for name in written:
            arrays[name][...] = start[name]
        for k in kernels:
            machine.run(f"{k.name}_{t}", arrays, sizes, chunks)
        results.append({name: arrays[name].copy() for name in written})
    for other in results[1:]:
        for name in written:
            assert other[name].tobytes() == results[0][name].tobytes(), f"{name} depends on the cut at {sizes}"

    inputs = {b.name: start[b.name] for k in kernels for b in k.buffers if b.role in ("in", "inout")}
    with np.errstate(all="ignore"):
        meaning = case.meaning(**inputs)
    for name, want in meaning.items():
        check(results[0][name], want, case.exact, f"{name} against NumPy at {sizes}")

    if sizes["n"] * sizes["m"] <= ORACLE_LIMIT:
        for k in kernels:
            oracle(k)(*[start[b.name] for b in k.buffers], *[sizes[n] for n in k.sizes])
        for name in written:
            check(results[0][name], start[name], case.exact, f"{name} against the oracle at {sizes}")
