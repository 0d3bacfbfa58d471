"""The loop IR: text, verifier, transformations, and the code made of it against its Python oracle and NumPy."""

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from loop_cases import CASES, Arrays, call, index, kernel, load, loop, store, var

from tensorc.codegen.access import determined, join_quotients
from tensorc.codegen.cpu.compile import compile_text
from tensorc.codegen.cpu.compile import load as load_image
from tensorc.codegen.cpu.emit import emit, emit_box, work
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.cpu.vectormath_library import library
from tensorc.codegen.keep import keep_values
from tensorc.codegen.loopir import Acc, Accum, Buffer, Call, Cast, For, Iter, Kernel, Let, Matmul, Num, Scan, identity
from tensorc.codegen.loopverify import InvalidKernel, verify, verify_matmul
from tensorc.codegen.python import oracle
from tensorc.codegen.schedule import Schedule, schedule
from tensorc.codegen.transform import bake, collapse, matmul_loops, merge_loops, split
from tensorc.errors import InternalError
from tensorc.ir import dims
from tensorc.ir.types import DType, boolean, f16, f32, f64, i32, i64, numpy_kind

SIZES = [(0, 5), (3, 0), (1, 1), (5, 3), (7, 17), (33, 65), (130, 10), (4, 259)]
ORACLE_LIMIT = 260
"""Elements of a case up to which the Python oracle runs too."""


# -- running kernels


class Machine:
    """Kernels compiled for one vector width, callable by name over NumPy arrays."""

    def __init__(
        self, kernels: dict[str, Kernel], target: Target, schedules: dict[str, Schedule] | None = None
    ) -> None:
        self.kernels = kernels
        parts = []
        for name, k in kernels.items():
            parts.append(emit(replace(k, name=name), target, (schedules or {}).get(name)))
            parts.append(f"define void @run_{name}(i64 %a, i64 %b, ptr %c, ptr %d) {{\n"
                         f"  call void @{name}(i64 %a, i64 %b, ptr %c, ptr %d)\n  ret void\n}}\n")
            parts += [
                f"define i64 @{what}_{name}(ptr %d) {{\n  %n = call i64 @{name}_{what}(ptr %d)\n  ret i64 %n\n}}\n"
                for what in ("units", "work")
            ]
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
            elif b.name in ("ids", "places", "lengths"):
                high = {"ids": sizes["n"], "places": sizes["n"] * sizes["m"], "lengths": sizes["m"] + 1}[b.name]
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
    if got.dtype == "bfloat16":         # whose NaN is none to NumPy's assertions
        got, want = got.astype("f4"), want.astype("f4")
    if exact or numpy_kind(got.dtype) != "f":
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    finite = np.isfinite(want)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=what)
    np.testing.assert_array_equal(got[np.isinf(want)], want[np.isinf(want)], err_msg=what)
    scale = float(np.abs(want[finite]).max(initial=1.0))
    error = float(np.abs(got[finite].astype("f8") - want[finite]).max(initial=0.0))
    assert error <= 60 * scale * float(np.finfo(got.dtype).eps), f"{what}: error {error} at scale {scale}"


HOST = Target.host()
KERNELS = {(name, t): case.make(t) for name, case in CASES.items() for t in case.dtypes}
RUNS = [
    (bits, name, t)
    for bits in (512, 256, 128)
    for name, case in CASES.items()
    for t in case.dtypes
    if bits == HOST.bits or t is case.dtypes[0]
]


@functools.cache
def machine(bits: int) -> Machine:
    """All cases for vectors of so many bits; the narrowest without fused multiply-add."""
    runs = [(name, t) for b, name, t in RUNS if b == bits]
    kernels = {f"{k.name}_{t}": k for name, t in runs for k in KERNELS[name, t]}
    return Machine(kernels, replace(HOST, bits=bits, fma=HOST.fma and bits != 128))


@pytest.mark.parametrize(("bits", "name", "t"), RUNS, ids=[f"{name}-{t}-{bits}" for bits, name, t in RUNS])
def test_code_agrees_with_oracle_and_numpy(bits: int, name: str, t: DType) -> None:
    case = CASES[name]
    for n, m in SIZES:
        if case.empty or n * m:
            compare(machine(bits), case, KERNELS[name, t], t, {"n": n, "m": m}, special=m % 2 == 1)


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


@pytest.mark.parametrize("bits", [256, 512])
@pytest.mark.parametrize(("n", "m"), [(5, 3), (9, 44), (3, 64)], ids=["short", "rest", "even"])
def test_code_for_known_sizes_agrees_with_numpy(bits: int, n: int, m: int) -> None:
    """Extents that are numbers take other ways through the emitter: fewer tails, stores in pieces, no streaming."""
    sizes = {"n": n, "m": m}
    baked = {name: [bake(k, sizes) for k in KERNELS[name, f32]] for name, case in CASES.items() if f32 in case.dtypes}
    kernels = {f"{k.name}_{f32}": k for several in baked.values() for k in several}
    made = Machine(kernels, replace(HOST, bits=bits))
    for name, several in baked.items():
        compare(made, CASES[name], several, f32, sizes, special=True)


# -- special schedules


def aligned(shape: tuple[int, ...], t: str = "f4") -> Any:
    """An array on a 64-byte boundary."""
    count = int(np.prod(shape))
    raw = np.zeros(count * np.dtype(t).itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + count * np.dtype(t).itemsize].view(t).reshape(shape)


@pytest.mark.parametrize("name", ["flat_chain", "transpose"])
def test_stores_past_the_caches_store_the_same(name: str) -> None:
    (k,) = KERNELS[name, f32]
    how = schedule(k, HOST.bits)
    assert how.stream
    text = emit(k, HOST, replace(how, stream=1))
    assert "!nontemporal" in text
    assert "fence" in text

    streaming = Machine({name: k}, HOST, {name: replace(how, stream=1)})
    plain = Machine({name: k}, HOST, {name: replace(how, stream=0)})
    for sizes in ({"n": 64, "m": 128}, {"n": 67, "m": 64}, {"n": 33, "m": 5}):
        start = arrays_for([k], sizes, special=False)
        results = []
        for m in (streaming, plain):
            arrays = {n: aligned(a.shape) for n, a in start.items()}
            for n, a in start.items():
                arrays[n][...] = a
            m.run(name, arrays, sizes, 3)
            results.append(arrays["y"])
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("chain", "lanes 8 over grid j, unroll 4, block 16384"),
        ("flat_chain", "lanes 8 over grid j, unroll 4, block 16384"),
        ("softmax", "lanes 8 over loops j0×8, j1×4, j2×4, unroll 1, block 1"),
        ("column_add", "lanes 8 over grid j, unroll 8, block 64"),
        ("transpose", "lanes 8 over grid j, unroll 8, block 16, tile i"),
        ("scatter_add", "lanes 8 over grid j, unroll 4, block 32"),
        ("scatter_elements", "lanes 8 over loops k×4, unroll 1, block 1"),
        ("triangle", "lanes 8 over loops j×8, unroll 1, block 1"),
        ("reversed_rows", "lanes 8 over grid j, unroll 4, block 16384"),
    ],
)
def test_schedule(name: str, want: str) -> None:
    assert str(schedule(KERNELS[name, f32][0], 256)) == want


def test_units_and_work_are_counted_from_the_sizes() -> None:
    m = machine(HOST.bits)
    assert m.count("units", "row_add_f32", {"n": 12, "m": 7}) == 12
    assert m.count("units", "flat_chain_f32", {"n": 1000, "m": 100}) == 7
    assert m.count("units", "flat_chain_f32", {"n": 0, "m": 100}) == 0
    small, large = (m.count("work", "row_add_f32", {"n": 10, "m": size}) for size in (100, 1000))
    assert 1000 <= small < 10_000
    assert 9 < large / small < 11


def test_work_guesses_trip_counts_that_depend_on_loops_or_data() -> None:
    for name in ("ragged", "triangle", "column_sum_split"):
        for k in KERNELS[name, f32]:
            assert dims.evaluate(work(k), {"n": 100, "m": 100}) >= 100


@pytest.mark.parametrize("bits", [256, 512])
def test_box_runs_a_rectangle_and_nothing_else(bits: int) -> None:
    k = kernel(
        "bias", "bias: t[m]; inout y: t[3,n,m]", "b<3, i<n, j<m",
        Let("c", load("bias", "j")),
        store("y", "b,i,j", call("maximum", call("add", load("y", "b,i,j"), var("c")), Num(0.0, f32))),
    )
    target = replace(HOST, bits=bits)
    entry = ("define void @box(ptr %p, ptr %s, i64 %b, i64 %a, i64 %c, i64 %d, i64 %e) {\n"
             "  call void @bias_box(ptr %p, ptr %s, i64 %b, i64 %a, i64 %c, i64 %d, i64 %e)\n  ret void\n}\n")
    box = load_image(compile_text(emit_box(verify(k), target) + entry, target).image, ["box"])
    run = box.function("box", None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 5)

    rng = np.random.default_rng(0)
    n, m = 9, 70
    bias, y = rng.normal(size=m).astype("f4"), rng.normal(size=(3, n, m)).astype("f4")
    want = y.copy()
    for b, i0, i1, j0, j1 in [(0, 0, 9, 0, 70), (1, 2, 5, 3, 50), (2, 8, 9, 69, 70), (2, 4, 4, 0, 70)]:
        want[b, i0:i1, j0:j1] = np.maximum(want[b, i0:i1, j0:j1] + bias[j0:j1], 0)
        pointers = (ctypes.c_void_p * 2)(bias.ctypes.data, y.ctypes.data)
        run(pointers, (ctypes.c_int64 * 2)(m, n), b, i0, i1, j0, j1)
    np.testing.assert_array_equal(y, want)


def test_box_refuses_reductions() -> None:
    with pytest.raises(InternalError, match="softmax is not elementwise"):
        emit_box(KERNELS["softmax", f32][0], HOST)


def test_division_by_a_uniform_is_exact() -> None:
    """x / s for a denormal s, where x · (1/s) would be infinite."""
    k = kernel("scaled", "s: t[n]; inout y: t[n,m]", "i<n",
               Let("d", load("s", "i")),
               loop("j", "m", store("y", "i,j", call("div", load("y", "i,j"), var("d")))))
    y = np.full((1, 40), 1e-39, "f4")
    Machine({"scaled": k}, HOST).run("scaled", {"s": np.full(1, 1e-40, "f4"), "y": y}, {"n": 1, "m": 40})
    np.testing.assert_array_equal(y, np.float32(1e-39) / np.float32(1e-40))


def test_buffers_updated_in_place_may_alias_themselves_only() -> None:
    text = emit(KERNELS["updated", f32][0], HOST)
    assert "ptr noalias %b_x, ptr %b_w" in text
    assert "nnan" not in text
    assert "ninf" not in text
    assert "arcp" not in text


# -- text


def test_kernels_print(golden: Callable[[str, str], None]) -> None:
    names = [
        "chain", "flat_chain", "softmax", "argmax1", "running_add_row", "column_sum_split", "padded", "gather_rows",
        "tiled", "updated",
    ]
    pages = [f"{k}  # {schedule(k, 256)}\n" for name in names for k in KERNELS[name, f32]]
    golden("kernels/loops.txt", "\n".join([*pages, str(dense(True))]))


# -- the verifier


def bad(*body: Any, parameters: str = "x: t[n,m]; out y: t[n,m]", grid: str = "i<n, j<m") -> Kernel:
    return kernel("bad", parameters, grid, *body)


X = load("x", "i,j")
SUM = Acc("s", "add", f32)
INVALID: dict[str, tuple[Kernel, str]] = {
    "unbound": (bad(store("y", "i,j", var("t"))), r"bad: y\[i, j\] = t: t is not bound, read as f32"),
    "late": (bad(store("y", "i,j", var("t")), Let("t", X)), "t is not bound"),
    "twice": (bad(Let("t", X), Let("t", X)), "t is bound twice"),
    "clash": (bad(Let("x", X)), "x is bound twice"),
    "names": (replace(bad(), sizes=("n", "m", "x")), "two sizes or buffers have one name"),
    "buffer": (bad(store("y", "i,j", load("z", "i,j"))), "no buffer is called z"),
    "rank": (bad(store("y", "i", X)), "y has 2 dimensions, the index 1"),
    "index": (bad(store("y", "i,k", X)), "k in k is no size, loop or integer variable in scope"),
    "float index": (bad(Let("t", X), store("y", "i,t", X)), "t in t is no size"),
    "loaded as": (bad(store("y", "i,j", load("x", "i,j", f64))), "x is f32, loaded as f64"),
    "stored as": (bad(store("y", "i,j", Cast(X, f64))), "y is f32, the value f64"),
    "read only": (bad(store("x", "i,j", X)), "x is read only"),
    "function": (bad(store("y", "i,j", Call("frob", (X,), f32))), "no scalar function is called frob"),
    "call": (bad(store("y", "i,j", Call("add", (X, Num(1, i32)), f32))), "is not f32 for f32, i32"),
    "where": (bad(store("y", "i,j", load("x", "i,j", f32, X))), "`where` is f32, not bool"),
    "iter": (bad(store("y", "i,j", Iter(dims.symbol("i"), f32))), "i as data is i32 or i64, not f32"),
    "unread": (bad(store("y", "i,j", load("y", "i,j"))), "y is read before this iteration has stored it"),
    "race": (bad(store("y", "i,0", X)), r"y\[i, 0\] = .*: iterations of j may store to one place"),
    "sum race": (bad(store("y", "0,i+j", X)), "may store to one place"),
    "data race": (bad(Let("k", Num(1, i32)), store("y", "k,j", X)), "iterations of i may store to one place"),
    "two stores": (bad(store("y", "i,j", X), store("y", "i,m-j-1", X)), "in another iteration may store to the same"),
    "shifted": (
        bad(store("y", "i,j", load("y", "i,j+1")), parameters="x: t[n,m]; inout y: t[n,m]"),
        "y is read where another iteration may store it",
    ),
    "accumulator": (bad(Acc("s", "mean", f32)), "no accumulator is called mean"),
    "half": (bad(Acc("s", "add", f16)), "float16 is stored, never computed with"),
    "logic": (bad(Acc("s", "and", f32)), "and does not accumulate f32"),
    "bool sum": (bad(Acc("s", "add", boolean)), "add does not accumulate bool"),
    "open": (bad(loop("k", "3", Accum("s", (X,)))), "no such accumulator is open"),
    "early": (bad(SUM, loop("k", "3", Accum("s", (X,)), store("y", "i,j", var("s")))), "s is not bound"),
    "closed": (bad(SUM, loop("k", "3", Accum("s", (X,))), Accum("s", (X,))), "s has been closed"),
    "fed": (bad(SUM, loop("k", "3", Accum("s", (Num(1, i32),)))), "add takes f32, not i32"),
    "argmax": (bad(Acc("s", "argmax", f32), loop("k", "3", Accum("s", (X,)))), "argmax takes f32, i32, not f32"),
    "scan": (bad(Acc("s", "argmax", f32), loop("k", "3", Scan("p", "s", X))), "argmax cannot be scanned"),
    "extent": (bad(Let("t", X), loop("k", "t", Let("u", X))), "t in t is no size"),
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_kernels_are_named_with_statement_and_reason(what: str) -> None:
    k, reason = INVALID[what]
    with pytest.raises(InvalidKernel, match=reason):
        verify(k)


def test_cases_are_valid() -> None:
    for kernels in KERNELS.values():
        for k in kernels:
            assert verify(k) is k


def test_stores_of_views_and_halves_are_no_races() -> None:
    verify(bad(store("y", "(m*i+j)//n,(m*i+j)%n", X), parameters="x: t[n,m]; out y: t[m,n]"))
    verify(bad(store("y", "i,j", X), store("y", "i,j+m", X), parameters="x: t[n,m]; out y: t[n,2*m]", grid="i<n, j<m"))


def test_determined() -> None:
    loops = [("i", dims.symbol("n")), ("j", dims.symbol("m"))]
    for text, want in {
        "i,j": {"i", "j"}, "m*i+j,0": {"i", "j"}, "i,0": {"i"}, "i+j,0": set(), "k,j": {"j"}, "2*i+1,m-j": {"i", "j"},
    }.items():
        shape = (dims.symbol("n"), dims.symbol("w"))
        assert determined(shape, index(text), loops, ("n", "m", "w")) == want, text


def test_quotients_join() -> None:
    assert str(join_quotients(dims.parse("m*((i*m+j)//m)+(i*m+j)%m+3"))) == "i*m+j+3"
    apart = dims.parse("6*(i//6)+2*(i//2%3)+i%2")
    assert join_quotients(apart) == apart
    assert str(join_quotients(dims.parse("6*(i//2//3)+2*(i//2%3)+i%2"))) == "i"


# -- transformations


def run_oracle(kernels: list[Kernel], arrays: Arrays, sizes: dict[str, int]) -> Arrays:
    arrays = {name: a.copy() for name, a in arrays.items()}
    for k in kernels:
        oracle(k)(*[arrays[b.name] for b in k.buffers], *[sizes[n] for n in k.sizes])
    return arrays


def test_collapse_merges_what_is_walked_as_one() -> None:
    assert [v for v, _ in KERNELS["flat_chain", f32][0].grid] == ["j"]
    assert str(KERNELS["flat_chain", f32][0].grid[0][1]) == "m*n"
    assert len(collapse(KERNELS["chain", f32][0]).grid) == 2
    assert len(collapse(KERNELS["positions", f32][0]).grid) == 2
    assert str(KERNELS["reshaped", f32][0].buffers[1].shape[0]) == "m*n"
    cube = kernel("cube", "x: t[n,m,4]; r: t[n]; out y: t[n,m,4]", "i<n, j<m, k<4",
                  store("y", "i,j,k", call("mul", load("x", "i,j,k"), load("r", "i"))))
    assert [(v, str(n)) for v, n in collapse(cube).grid] == [("i", "n"), ("k", "4*m")]
    one = kernel("one", "x: t[n,1]; out y: t[n,1]", "i<n, j<1", store("y", "i,j", load("x", "i,j")))
    assert [v for v, _ in collapse(one).grid] == ["i"]


def test_collapse_merges_loops_that_do_nothing_but_hold_one() -> None:
    total = kernel("total", "x: t[n,m,4]; w: t[4]; out s: t[n]; out y: t[m,n]", "i<n",
                   Acc("s0", "add", f32), loop("j", "m", loop("k", "4", Accum("s0", (load("x", "i,j,k"),)))),
                   store("s", "i", var("s0")),
                   loop("l", "m", store("y", "l,i", load("x", "i,l,0"))))
    loops = [s for s in collapse(total).body if isinstance(s, For)]
    assert [(s.var, str(s.extent)) for s in loops] == [("k", "4*m"), ("l", "m")]

    columns = kernel("columns", "x: t[n,m,4]; w: t[m]; out s: t[4]", "k<4",
                     Acc("s0", "add", f32),
                     loop("i", "n", loop("j", "m", Accum("s0", (call("mul", load("x", "i,j,k"), load("w", "j")),)))),
                     store("s", "k", var("s0")))
    assert str(collapse(columns)) == str(columns)

    for k in (total, columns):
        sizes = {"n": 5, "m": 7}
        arrays = arrays_for([k], sizes, special=True)
        got = {n: a.copy() for n, a in arrays.items()}
        name = k.name
        Machine({name: collapse(k)}, HOST).run(name, got, sizes)
        for n, want in run_oracle([k], arrays, sizes).items():
            check(got[n], want, False, n)


def test_bake_substitutes_sizes_everywhere() -> None:
    k = bake(KERNELS["layernorm", f32][0], {"m": 10})
    assert k.sizes == ("n",)
    assert "m" not in str(k).replace("mean", "").replace("sum", "").replace("mul", "").replace("layernorm", "")
    sizes = {"n": 5, "m": 10}
    arrays = arrays_for([k], sizes, special=False)
    full, baked = (run_oracle([x], arrays, sizes)["y"] for x in (KERNELS["layernorm", f32][0], k))
    np.testing.assert_array_equal(full, baked)

    got = {n: a.copy() for n, a in arrays.items()}
    Machine({"baked": k}, HOST).run("baked", got, sizes)
    check(got["y"], full, False, "baked layernorm")


def test_split_makes_two_kernels_over_a_scratch_buffer() -> None:
    first, second = KERNELS["column_sum_split", f32]
    assert [b.role for b in first.buffers] == ["in", "scratch"]
    assert [b.role for b in second.buffers] == ["scratch", "out"]
    assert str(first.grid[0][1]) == "(n+15)//16"


def test_split_refuses_what_is_no_reduction() -> None:
    with pytest.raises(InternalError, match="no reduction that can be split"):
        split(KERNELS["running_add_row", f32][0], "j", 8)
    with pytest.raises(InternalError, match="has no loop k to split"):
        split(KERNELS["row_add", f32][0], "k", 8)


def exponentials(result: str, *then: Any) -> Kernel:
    """Rows of exponentials computed for their sum, and again for the loops of `then`."""
    def e(k: int) -> tuple[Any, ...]:
        x = Let(f"x{k}", load("x", f"i,j{k}"))
        return x, Let(f"e{k}", call("exp", call("sub", var(f"x{k}"), Num(1.0, f32))))

    return verify(kernel(
        "rows", result, "i<n",
        Acc("s", "add", f32),
        loop("j1", "m", *e(1), Accum("s", (var("e1"),))),
        loop("j2", "m", *e(2), *then),
    ))


SCALED = call("div", var("e2"), var("s"))


@pytest.mark.parametrize("result", ["x: t[n,m]; out y: t[n,m]", "inout x: t[n,m]"])
def test_dear_values_are_kept_in_the_result(result: str) -> None:
    y = "x" if "inout" in result else "y"
    k = exponentials(result, store(y, "i,j2", SCALED))
    kept = keep_values(k)
    assert str(k).count("exp") == 2
    assert str(kept).count("exp") == 1

    sizes = {"n": 5, "m": 37}
    both = Machine({"twice": k, "once": kept}, HOST)
    results = []
    for name in both.kernels:
        arrays = arrays_for([k], sizes, special=True)
        both.run(name, arrays, sizes)
        results.append(arrays[y])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("result", "then"),
    [
        ("x: t[n,m]; inout y: t[n,m]", [store("y", "i,j2", call("mul", SCALED, load("y", "i,j2")))]),
        ("x: t[n,m]; out y: t[n,m]; out z: t[n,m,2]",
         [store("y", "i,j2", SCALED), loop("k", "2", store("z", "i,j2,k", SCALED))]),
        ("inout x: t[n,m]", [store("x", "i,j2", call("mul", SCALED, var("x2")))]),
        ("x: t[n,m]; out y: t[n,2,m]", [store("y", "i,0,j2", SCALED), store("y", "i,1,j2", SCALED)]),
        ("x: t[n,m]; out y: f16[n,m]", [store("y", "i,j2", Cast(SCALED, f16))]),
    ],
    ids=["needed", "nested", "reads its place", "two stores", "narrower"],
)
def test_values_that_cannot_lie_in_the_result_are_computed_again(result: str, then: list[Any]) -> None:
    k = exponentials(result, *then)
    assert keep_values(k) is k


def test_merge_loops_joins_independent_neighbours() -> None:
    def loops(k: Kernel) -> int:
        return str(k).count("for ")

    two = kernel(
        "two", "x: t[n,m]; out a: t[n]; out b: t[n,m]", "i<n",
        Acc("s", "add", f32),
        loop("j", "m", Accum("s", (load("x", "i,j"),))),
        Acc("h", "max", f32),
        loop("k", "m", Accum("h", (load("x", "i,k"),)), store("b", "i,k", load("x", "i,k"))),
        store("a", "i", call("add", var("s"), var("h"))),
    )
    merged = merge_loops(two)
    assert loops(merged) == 1
    sizes = {"n": 4, "m": 9}
    arrays = arrays_for([two], sizes, special=False)
    for name in ("a", "b"):
        np.testing.assert_array_equal(run_oracle([two], arrays, sizes)[name], run_oracle([merged], arrays, sizes)[name])
    for needed in ("softmax", "layernorm", "scatter_add", "column_moments"):
        assert loops(merge_loops(KERNELS[needed, f32][0])) == loops(KERNELS[needed, f32][0]), needed


# -- matmul


def dense(epilogue: bool) -> Matmul:
    n, m = dims.symbol("n"), dims.symbol("m")
    x, w = Buffer("x", f32, (n, 7)), Buffer("w", f32, (m, 7))
    own = (x, w, Buffer("y", f32, (n, m), "out"), Buffer("bias", f32, (m,)))
    relu = Kernel(
        "dense_epilogue", ("n", "m"), (own[0], own[1], replace(own[2], role="inout"), own[3]), (("i", n), ("j", m)),
        (store("y", "i,j", call("maximum", call("add", load("y", "i,j"), load("bias", "j")), Num(0.0, f32))),),
    )
    return Matmul("dense", ("n", "m"), own, (), n, m, 7, transpose_b=True, epilogue=relu if epilogue else None)


def test_matmul_oracle() -> None:
    rng = np.random.default_rng(0)
    x, w, bias = rng.normal(size=(5, 7)), rng.normal(size=(3, 7)), rng.normal(size=3)
    arrays = [a.astype("f4") for a in (x, w, np.zeros((5, 3)), bias)]
    oracle(verify_matmul(dense(True)))(*arrays, 5, 3)
    np.testing.assert_allclose(arrays[2], np.maximum(x @ w.T + bias, 0), rtol=1e-4, atol=1e-6)


def test_matmul_oracle_broadcasts_batches() -> None:
    n = dims.symbol("n")
    mm = Matmul(
        "batched", ("n",),
        (Buffer("a", f16, (1, 4, n)), Buffer("b", f16, (4, 3)), Buffer("c", f32, (n, n, 3), "out")), (n,), n, 3, 4,
        transpose_a=True,
    )
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(1, 4, 5)).astype("f2"), rng.normal(size=(4, 3)).astype("f2")
    c = np.zeros((5, 5, 3), "f4")
    oracle(verify_matmul(mm))(a, b, c, 5)
    want = np.broadcast_to(a.astype("f4").transpose(0, 2, 1) @ b.astype("f4"), c.shape)
    np.testing.assert_allclose(c, want, rtol=1e-5)
    verify(matmul_loops(mm))


def test_invalid_matmuls() -> None:
    mm = dense(True)
    with pytest.raises(InvalidKernel, match=r"dense: w is \[m, 7\], which does not fit \[7, m\]"):
        verify_matmul(replace(mm, transpose_b=False))
    assert mm.epilogue is not None
    with pytest.raises(InvalidKernel, match="the grid of the epilogue is"):
        verify_matmul(replace(mm, epilogue=replace(mm.epilogue, grid=mm.epilogue.grid[:1])))
    shifted = (store("y", "i,j", load("y", "i,j+1")),)
    with pytest.raises(InvalidKernel, match=r"the epilogue touches y\[i, j\+1\], not its own point"):
        verify_matmul(replace(mm, epilogue=replace(mm.epilogue, body=shifted)))


# -- the oracle


def test_oracle_checks_bounds() -> None:
    k = kernel("off", "x: t[n]; out y: t[n]", "i<n", store("y", "i", load("x", "i-1")))
    with pytest.raises(IndexError, match=r"index \(-1,\) is outside an array of shape \(3,\)"):
        oracle(k)(np.zeros(3, "f4"), np.zeros(3, "f4"), 3)


def test_identities() -> None:
    assert identity("max", f32) == -np.inf
    assert identity("min", i32) == 2**31 - 1
    assert identity("argmax", i64) == -(2**63)
    assert identity("max", boolean) == 0
    assert identity("and", boolean) == 1
