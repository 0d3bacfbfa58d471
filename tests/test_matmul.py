"""Generated matrix products against NumPy: every form, odd sizes, guarded memory, any cut of the work."""

import ctypes
import dataclasses
import functools
import itertools
import mmap
import sys
import threading

import numpy as np
import pytest

from tensorc.codegen.cpu.compile import compile_text, load
from tensorc.codegen.cpu.emit import emit_box
from tensorc.codegen.cpu.matmul import emit_matmul, phases, shared, workspace
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.loopir import AGE, Buffer, Call, Kernel, Let, Load, Matmul, Num, Store, Var
from tensorc.errors import DTypeError
from tensorc.ir import dims
from tensorc.ir.types import f16, f32, f64, i32, i64

HOST = Target.host()
M, N, K = (dims.symbol(name) for name in "mnk")

FORMS = tuple(itertools.product((False, True), repeat=2))

SHAPES = [
    (1, 1, 1), (1, 1, 700), (1, 70, 33), (2, 9, 5), (3, 130, 17), (4, 8, 40), (5, 16, 16), (6, 16, 3), (7, 17, 300),
    (13, 31, 64), (14, 32, 9), (15, 10, 50), (29, 100, 7), (33, 1, 90), (50, 140, 260), (61, 301, 270), (100, 48, 513),
    (31, 300, 1024), (180, 300, 60),
]  # fmt: skip
"""Below and above one tile, one vector, one chunk of k, the limits for packing b and for copying a."""


# -- running kernels


@functools.cache
def module(products, target):
    """A library of products with their epilogues."""
    parts = {}
    for mm in products:
        parts |= shared(mm, target)
    own = [emit_matmul(mm, target) for mm in products]
    boxes = [emit_box(mm.epilogue, target) for mm in products if mm.epilogue]
    names = [phase for mm in products for phase in phases(mm, target)]
    told = [f"{name}_{what}" for name in names for what in ("units", "work")]
    asking = [TELL.format(name=name) for name in told]
    text = "".join([*parts.values(), *boxes, *own, *asking])
    return load(compile_text(text, target).image, [*names, *(f"tell_{name}" for name in told)])


TELL = """
define i64 @tell_{name}(ptr %sizes) {{
  %number = call i64 @{name}(ptr %sizes)
  ret i64 %number
}}
"""


def told(products, name, sizes, target=HOST):
    """What NAME_units or NAME_work tells of these sizes, in the order of the product's own."""
    words = (ctypes.c_int64 * max(1, len(sizes)))(*sizes)
    return module(products, target).function(f"tell_{name}", ctypes.c_int64, ctypes.c_void_p)(words)


def run(products, mm, arrays, sizes=None, target=HOST, ranges=1, threads=False, scratch=None):
    """Runs one product of a module, each phase cut into `ranges` ranges of units, the last range first."""
    library = module(products, target)
    sizes = sizes or {}
    if scratch is None:
        scratch = np.full(dims.evaluate(workspace(mm, target), sizes) + 64, 0xFF, np.uint8)
    addresses = [array.ctypes.data for array in arrays] + [-(-scratch.ctypes.data // 64) * 64]
    buffers = (ctypes.c_void_p * len(addresses))(*addresses)
    values = (ctypes.c_int64 * max(1, len(mm.sizes)))(*(sizes[name] for name in mm.sizes))

    for phase in phases(mm, target):
        count = told(products, phase + "_units", list(values), target)
        kernel = library.function(phase, None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        cuts = [(count * q // ranges, count * (q + 1) // ranges, buffers, values) for q in range(ranges)]
        workers = [threading.Thread(target=kernel, args=cut) for cut in cuts] if threads else []
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if not threads:
            for cut in reversed(cuts):
                kernel(*cut)


@functools.cache
def product(m, n, k, transpose_a=False, transpose_b=False, dtype=f32, batch=(), outer_a=None, outer_b=None, name="p"):
    """A Matmul without epilogue; its sizes are whatever symbols it has, in alphabetical order."""
    outer_a = batch if outer_a is None else outer_a
    outer_b = batch if outer_b is None else outer_b
    a = Buffer("a", dtype, (*outer_a, *((k, m) if transpose_a else (m, k))))
    b = Buffer("b", dtype, (*outer_b, *((n, k) if transpose_b else (k, n))))
    c = Buffer("c", dtype, (*batch, m, n), "out")
    sizes = tuple(sorted(frozenset().union(*(dims.symbols(s) for s in (*batch, m, n, k)))))
    return Matmul(name, sizes, (a, b, c), batch, m, n, k, transpose_a, transpose_b)


@functools.cache
def forms(dtype):
    """A product of each form, all of whose sizes are known at run time only."""
    return tuple(product(M, N, K, ta, tb, dtype, name=f"p{ta:d}{tb:d}") for ta, tb in FORMS)


def values(rng, dtype, *shape):
    if dtype.is_integer:
        return rng.integers(-(2**31), 2**31, shape).astype(dtype.numpy)
    return rng.standard_normal(shape).astype(dtype.numpy)


def stored(array, transposed):
    return np.ascontiguousarray(np.swapaxes(array, -1, -2) if transposed else array)


def assert_product(c, a, b):
    """c is a · b, each element within the error bounds of two sums of k products; integers wrap around exactly."""
    if c.dtype.kind == "i":
        assert np.array_equal(c, a @ b)
        return
    a, b = a.astype(np.float64), b.astype(np.float64)
    bound = 2 * (a.shape[-1] + 2) * np.finfo(c.dtype).eps * (np.abs(a) @ np.abs(b))
    assert np.all(np.abs(c - a @ b) <= bound)


class Guarded:
    """Arrays that end where readable memory ends, or begin where it begins."""

    def __init__(self):
        self._maps = []
        self._libc = ctypes.CDLL(None, use_errno=True)

    def array(self, like, at_end):
        page = mmap.PAGESIZE
        pages = -(-like.nbytes // page)
        area = mmap.mmap(-1, (pages + 2) * page)
        self._maps.append(area)
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        for guard in (start, start + (pages + 1) * page):
            assert self._libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0

        offset = page + (pages * page - like.nbytes if at_end else 0)
        array = np.frombuffer(area, like.dtype, like.size, offset).reshape(like.shape)
        array[...] = like
        return array


# -- values


@pytest.mark.parametrize("dtype", [f32, f64, i32, i64], ids=str)
@pytest.mark.parametrize("form", range(4))
def test_every_form_of_every_shape(dtype, form):
    rng = np.random.default_rng(form)
    products = forms(dtype)
    mm = products[form]
    for m, n, k in SHAPES:
        a, b = values(rng, dtype, m, k), values(rng, dtype, k, n)
        c = values(rng, dtype, m, n)
        run(products, mm, (stored(a, mm.transpose_a), stored(b, mm.transpose_b), c), {"m": m, "n": n, "k": k})
        assert_product(c, a, b)


@pytest.mark.parametrize("dtype", [f32, f64, i64], ids=str)
@pytest.mark.parametrize("form", range(4))
def test_panels_of_a_matrix_that_stays_are_packed_once(dtype, form):
    rng = np.random.default_rng(form)
    mm = dataclasses.replace(forms(dtype)[form], sizes=("k", AGE, "m", "n"))
    n, k = 65, 140
    b, scratch = values(rng, dtype, k, n), np.zeros(1 << 20, np.uint8)
    given = stored(b, mm.transpose_b).copy()

    def multiply(m, age):
        a, c = values(rng, dtype, m, k), values(rng, dtype, m, n)
        run((mm,), mm, (stored(a, mm.transpose_a), given, c), {"m": m, "n": n, "k": k, AGE: age}, scratch=scratch)
        return c, a

    for m in (1, 200, 5):
        for age, rows in enumerate((m, 4, 1, 100, 60)):
            c, a = multiply(rows, age)
            assert_product(c, a, b)
        given[...] = 0
        assert_product(*multiply(100, 5), b)
        given[...] = stored(b, mm.transpose_b)


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [({"bits": 128}, f32), ({"bits": 256}, f32), ({"bits": 512}, f32), ({"bits": 512}, f64), ({"fma": False}, f32)],
    ids=str,
)
def test_every_vector_width(changes, dtype):
    target = dataclasses.replace(HOST, **changes)
    rng = np.random.default_rng(0)
    for mm, (m, n, k) in itertools.product(forms(dtype), SHAPES[-8:]):
        a, b, c = values(rng, dtype, m, k), values(rng, dtype, k, n), values(rng, dtype, m, n)
        arrays = stored(a, mm.transpose_a), stored(b, mm.transpose_b), c
        run(forms(dtype), mm, arrays, {"m": m, "n": n, "k": k}, target)
        assert_product(c, a, b)


@pytest.mark.parametrize("shape", [(1, 40, 30), (50, 1, 30), (61, 144, 130)])
def test_known_and_unknown_sizes_give_the_same_bits(shape):
    known = [
        product(*(s if bake else symbol for s, symbol, bake in zip(shape, (M, N, K), which, strict=True)), *form,
                name=f"p{number}")
        for number, (which, form) in enumerate(itertools.product(itertools.product((0, 1), repeat=3), FORMS[::3]))
    ]  # fmt: skip
    rng = np.random.default_rng(1)
    m, n, k = shape
    a, b = values(rng, f32, m, k), values(rng, f32, k, n)
    found = {}
    for mm in known:
        c = values(rng, f32, m, n)
        arrays = stored(a, mm.transpose_a), stored(b, mm.transpose_b), c
        run(tuple(known), mm, arrays, {"m": m, "n": n, "k": k})
        assert_product(c, a, b)
        if n > 1 and not mm.transpose_b:
            found[mm.name] = c.tobytes()
    assert len(set(found.values())) <= 1


BATCH = dims.symbol("batch")


@pytest.mark.parametrize(
    ("batch", "outer_a", "outer_b"),
    [((3,), (3,), (3,)), ((3,), (), (3,)), ((3,), (3,), ()), ((2, 3), (3,), (2, 1)), ((2, 3), (2, 3), (1, 3)),
     ((BATCH,), (BATCH,), (1,)), ((BATCH, 2), (1, 2), (BATCH, 1)), ((0,), (0,), ())],
    ids=str,
)  # fmt: skip
def test_batches_broadcast(batch, outer_a, outer_b):
    products = tuple(
        product(M, n, 40, ta, tb, f32, batch, outer_a, outer_b, name=f"p{ta:d}{tb:d}_{n}")
        for ta, tb in FORMS
        for n in (1, 20)
    )
    rng = np.random.default_rng(2)

    def concrete(outer):
        return [dims.evaluate(size, {"batch": 4}) for size in outer]

    for mm, m in itertools.product(products, (1, 9)):
        a, b = values(rng, f32, *concrete(outer_a), m, 40), values(rng, f32, *concrete(outer_b), 40, mm.n)
        c = values(rng, f32, *concrete(batch), m, mm.n)
        run(products, mm, (stored(a, mm.transpose_a), stored(b, mm.transpose_b), c), {"m": m, "batch": 4}, ranges=2)
        assert_product(c, a, b)


def test_a_large_product_on_two_threads():
    rng = np.random.default_rng(3)
    mm = forms(f32)[1]
    a, b, c = values(rng, f32, 300, 700), values(rng, f32, 700, 600), values(rng, f32, 300, 600)
    run(forms(f32), mm, (a, stored(b, True), c), {"m": 300, "n": 600, "k": 700}, ranges=2, threads=True)
    assert_product(c, a, b)


# -- promises


@pytest.mark.parametrize("form", range(4))
@pytest.mark.parametrize("shape", [(1, 200, 300), (3, 70, 300), (61, 301, 270), (200, 130, 90)])
def test_any_cut_of_the_work_gives_the_same_bits(form, shape):
    rng = np.random.default_rng(4)
    mm = forms(f32)[form]
    m, n, k = shape
    a, b = values(rng, f32, *mm_shape(mm, "a", shape)), values(rng, f32, *mm_shape(mm, "b", shape))
    results = set()
    for ranges in (1, 2, 3, 7):
        c = values(rng, f32, m, n)
        run(forms(f32), mm, (a, b, c), {"m": m, "n": n, "k": k}, ranges=ranges)
        results.add(c.tobytes())
    assert len(results) == 1


def mm_shape(mm, operand, shape):
    buffer = getattr(mm, operand)
    return [dims.evaluate(size, dict(zip("mnk", shape, strict=True))) for size in buffer.shape]


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.parametrize("bits", [128, 256, 512])
@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_outside_the_buffers_is_touched(bits, at_end):
    target = dataclasses.replace(HOST, bits=bits)
    rng = np.random.default_rng(5)
    guarded = Guarded()
    shapes = [(1, 1, 1), (1, 70, 33), (2, 9, 5), (3, 5, 17), (7, 17, 300), (15, 33, 9), (61, 301, 270)]
    for mm, shape in itertools.product(forms(f32), shapes):
        m, n, k = shape
        a, b = values(rng, f32, m, k), values(rng, f32, k, n)
        arrays = stored(a, mm.transpose_a), stored(b, mm.transpose_b), values(rng, f32, m, n)
        arrays = [guarded.array(array, at_end) for array in arrays]
        run(forms(f32), mm, arrays, {"m": m, "n": n, "k": k}, target)
        assert_product(arrays[2], a, b)


@pytest.mark.parametrize("form", range(4))
@pytest.mark.parametrize("shape", [(1, 37, 50), (3, 37, 50), (20, 37, 50), (61, 301, 270)])
def test_nan_and_infinity_reach_just_their_rows_and_columns(form, shape):
    rng = np.random.default_rng(6)
    mm = forms(f32)[form]
    m, n, k = shape
    a, b = values(rng, f32, m, k), values(rng, f32, k, n)
    a[m - 1, k - 1] = np.inf
    b[k - 1, 0] = 0
    b[0, n - 1] = np.nan
    b[1, n // 2] = -np.inf
    c = values(rng, f32, m, n)
    run(forms(f32), mm, (stored(a, mm.transpose_a), stored(b, mm.transpose_b), c), {"m": m, "n": n, "k": k})
    with np.errstate(invalid="ignore"):
        expected = a @ b
    assert np.array_equal(np.isnan(c), np.isnan(expected))
    assert np.array_equal(np.isinf(c), np.isinf(expected))


@pytest.mark.parametrize("dtype", [f32, i64], ids=str)
def test_empty_sums_are_zero_and_empty_results_are_no_work(dtype):
    rng = np.random.default_rng(7)
    for mm, (m, n, k) in itertools.product(forms(dtype), [(5, 40, 0), (1, 1, 0), (60, 300, 0), (0, 7, 3), (7, 0, 3)]):
        sizes = {"m": m, "n": n, "k": k}
        a, b, c = values(rng, dtype, m, k), values(rng, dtype, k, n), values(rng, dtype, m, n)
        run(forms(dtype), mm, (a, b, c), sizes)
        assert not c.any()
        units = told(forms(dtype), f"{mm.name}_units", [sizes[name] for name in mm.sizes])
        assert (units == 0) == (m * n == 0)


def test_units_are_many_for_large_products_and_few_for_small_ones():
    mm = forms(f32)[0]

    def of(what, m, n, k):
        by_name = {"m": m, "n": n, "k": k}
        return told(forms(f32), f"{mm.name}_{what}", [by_name[name] for name in mm.sizes])

    assert of("units", 1024, 1024, 1024) >= 32
    assert of("units", 128, 512, 784) >= 8
    assert of("units", 16, 16, 16) == 1
    assert of("work", 128, 512, 784) == 2 * 128 * 512 * 784 // HOST.lanes(4)


# -- epilogues


def bias_relu(name, batch, m, n, buffers):
    """out = max(c + bias, 0), and c itself doubled in place: a block visited twice would show."""
    at = tuple(dims.symbol(f"b{q}") for q in range(len(batch)))
    i, j = dims.symbol("i"), dims.symbol("j")
    c = Load("c", (*at, i, j), f32)
    total = Call("add", (Var("x", f32), Load("bias", (j,), f32)), f32)
    body = (
        Let("x", c),
        Store("out", (*at, i, j), Call("maximum", (total, Num(0.0, f32)), f32)),
        Store("c", (*at, i, j), Call("add", (Var("x", f32), Var("x", f32)), f32)),
    )
    sizes = tuple(sorted(frozenset().union(*(dims.symbols(s) for s in (*batch, m, n)))))
    return Kernel(name, sizes, buffers, (*((f"b{q}", s) for q, s in enumerate(batch)), ("i", m), ("j", n)), body)


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_an_epilogue_runs_once_on_each_element(batch):
    rng = np.random.default_rng(8)
    products = []
    for (ta, tb), n in itertools.product(FORMS, (1, 37, 150)):
        plain = product(M, n, 120, ta, tb, f32, batch, name=f"p{ta:d}{tb:d}_{n}")
        a, b, c = plain.buffers
        buffers = (a, b, dataclasses.replace(c, role="inout"), Buffer("bias", f32, (n,)),
                   Buffer("out", f32, c.shape, "out"))  # fmt: skip
        epilogue = bias_relu(f"{plain.name}_epilogue", batch, M, n, buffers)
        products.append(dataclasses.replace(plain, buffers=buffers, epilogue=epilogue))

    for mm, m in itertools.product(products, (1, 3, 50)):
        a, b = values(rng, f32, *batch, m, 120), values(rng, f32, *batch, 120, mm.n)
        c, bias, out = values(rng, f32, *batch, m, mm.n), values(rng, f32, mm.n), values(rng, f32, *batch, m, mm.n)
        arrays = stored(a, mm.transpose_a), stored(b, mm.transpose_b), c, bias, out
        run(tuple(products), mm, arrays, {"m": m}, ranges=3)
        assert_product(c / 2, a, b)
        assert np.array_equal(out, np.maximum(c / 2 + bias, 0))


# -- what is refused, what is shared


def test_half_precision_and_mixed_types_are_refused():
    with pytest.raises(DTypeError, match="no matrix product of f16 and f16 into f16"):
        emit_matmul(product(M, N, K, dtype=f16), HOST)

    mm = product(M, N, K)
    mixed = dataclasses.replace(mm, buffers=(*mm.buffers[:2], dataclasses.replace(mm.c, dtype=f64)))
    with pytest.raises(DTypeError, match="f32 and f32 into f64"):
        phases(mixed, HOST)


def test_only_products_that_may_pack_have_a_second_phase():
    assert phases(product(M, 10, 20), HOST) == ("p",)
    assert workspace(product(M, 10, 20), HOST) == 0
    assert phases(product(M, 10, 20, transpose_b=True), HOST) == ("p_pack", "p")
    assert phases(product(1, 10, 20, transpose_b=True), HOST) == ("p",)
    assert phases(product(20, 784, 512), HOST) == ("p",)
    assert phases(product(M, 784, 512), HOST) == ("p_pack", "p")
    assert workspace(product(M, 64, 512, batch=(BATCH,)), HOST) == BATCH * 64 * 512 * 4


def test_functions_are_shared_by_all_products_of_a_dtype():
    first = shared(product(M, 10, 20, transpose_a=True), HOST)
    second = shared(product(M, 784, 512), HOST)
    assert first.items() <= second.items()
