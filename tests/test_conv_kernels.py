"""Generated convolutions against NumPy: every kind, odd geometry, guarded memory, any cut of the work."""

import ctypes
import dataclasses
import functools
import mmap
import re
import sys
import threading

import numpy as np
import pytest

from tensorc.codegen.cpu.compile import assembly, compile_text, load
from tensorc.codegen.cpu.conv import emit_conv, is_direct, phases, shared, workspace
from tensorc.codegen.cpu.emit import emit_box
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.loopir import Buffer, Call, Conv, Kernel, Let, Load, Num, Store, Var
from tensorc.codegen.looptext import conv_text
from tensorc.codegen.loopverify import InvalidKernel, verify_conv
from tensorc.errors import DTypeError
from tensorc.ir import dims
from tensorc.ir.types import f16, f32, f64

HOST = Target.host()
KINDS = ("forward", "input_gradient", "weight_gradient")
B, H, W = (dims.symbol(name) for name in ("batch", "h", "w"))


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes of a convolution: x is [batch, *inner, ci], w is [*kernel, ci/groups, co], y is [batch, *outer, co]."""

    batch: int
    inner: tuple
    kernel: tuple
    ci: int
    co: int
    outer: tuple
    strides: tuple
    dilations: tuple
    low: tuple
    groups: int = 1

    @property
    def shapes(self):
        return (
            (self.batch, *self.inner, self.ci),
            (*self.kernel, self.ci // self.groups, self.co),
            (self.batch, *self.outer, self.co),
        )


def case(batch, inner, kernel, ci, co, strides=None, dilations=None, low=None, high=None, groups=1):
    """A Case; what is not said is 1 for strides and dilations, 0 for padding."""
    rank = len(inner)
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    low, high = low or (0,) * rank, high or (0,) * rank
    outer = tuple(
        (n + a + b - (k - 1) * d - 1) // s + 1
        for n, k, s, d, a, b in zip(inner, kernel, strides, dilations, low, high, strict=True)
    )
    return Case(batch, inner, kernel, ci, co, outer, strides, dilations, low, groups)


CASES = [
    case(2, (9, 11), (3, 3), 3, 20, low=(1, 1), high=(1, 1)),
    case(1, (12, 30), (3, 3), 16, 16, low=(1, 1), high=(1, 1)),
    case(2, (7, 9), (3, 2), 5, 33, strides=(2, 3), dilations=(1, 2), low=(1, 0), high=(1, 2)),
    case(2, (9, 14), (2, 4), 4, 24, dilations=(3, 2), low=(2, 5), high=(1, 1)),
    case(1, (10, 10), (4, 4), 2, 3, strides=(2, 2), low=(1, 1), high=(2, 2)),
    case(2, (6, 7), (3, 3), 6, 40, strides=(3, 3)),
    case(2, (8, 8), (2, 2), 3, 5, strides=(3, 3)),
    case(2, (9, 9), (1, 1), 9, 7, strides=(2, 2)),
    case(3, (13, 5), (1, 1), 40, 48),
    case(1, (9, 8), (3, 3), 1, 1, low=(1, 1), high=(1, 1)),
    case(1, (5, 4), (5, 5), 2, 9, low=(4, 4), high=(4, 4)),
    case(2, (5, 5), (3, 3), 4, 8, low=(-1, 0), high=(1, -1)),
    case(2, (3, 2), (3, 3), 4, 8, dilations=(4, 3), low=(4, 3), high=(4, 3)),
    case(2, (40,), (4,), 3, 10, strides=(2,), low=(2,), high=(1,)),
    case(1, (600,), (5,), 2, 16, low=(4,)),
    case(2, (4, 5, 6), (3, 2, 1), 3, 5, strides=(2, 1, 1), low=(1, 0, 1), high=(1, 1, 1)),
    case(2, (7, 8), (3, 3), 6, 9, low=(1, 1), high=(1, 1), groups=3),
    case(2, (9, 10), (3, 3), 20, 20, low=(1, 1), high=(1, 1), groups=20),
    case(1, (9, 30), (3, 4), 32, 32, strides=(1, 3), dilations=(2, 2), low=(0, 2), high=(1, 2), groups=32),
    case(2, (9, 9), (3, 3), 8, 8, strides=(2, 2), groups=8),
    case(2, (6, 6), (3, 3), 5, 10, low=(1, 1), high=(1, 1), groups=5),
]
"""Square and even kernels, steps that share no divisor, more padding than kernel, kernels larger than the image, few
and many channels, one to three axes, groups, depthwise kernels with one and with two results a channel."""


# -- running kernels


@functools.cache
def convolution(c, kind, dtype=f32, name="conv", symbolic=False):
    """The Conv of a case; `symbolic` leaves batch and spatial sizes to the run time, those of y being formulas."""
    shapes = list(c.shapes)
    if symbolic:
        inner = (H, W)[: len(c.inner)]
        outer = tuple(o + symbol - n for o, n, symbol in zip(c.outer, c.inner, inner, strict=True))
        shapes = [(B, *inner, c.ci), c.shapes[1], (B, *outer, c.co)]
    result = {"forward": 2, "input_gradient": 0, "weight_gradient": 1}[kind]
    x, w, y = (
        Buffer(letter, dtype, shape, "out" if q == result else "in")
        for q, (letter, shape) in enumerate(zip("xwy", shapes, strict=True))
    )
    buffers = {"forward": (x, w, y), "input_gradient": (y, w, x), "weight_gradient": (x, y, w)}[kind]
    sizes = tuple(sorted(frozenset().union(*(dims.symbols(s) for b in buffers for s in b.shape))))
    return verify_conv(Conv(kind, name, sizes, buffers, c.strides, c.dilations, c.low, c.groups))


TELL = """
define i64 @tell_{name}(ptr %sizes) {{
  %number = call i64 @{name}(ptr %sizes)
  ret i64 %number
}}
"""


@functools.cache
def module(convs, target):
    """A library of convolutions with their epilogues."""
    parts = {}
    for conv in convs:
        parts |= shared(conv, target)
    own = [emit_conv(conv, target) for conv in convs]
    boxes = [emit_box(conv.epilogue, target) for conv in convs if conv.epilogue]
    names = [phase for conv in convs for phase in phases(conv, target)]
    told = [f"{name}_{what}" for name in names for what in ("units", "work")]
    text = "".join([*parts.values(), *boxes, *own, *(TELL.format(name=name) for name in told)])
    return load(compile_text(text, target).image, [*names, *(f"tell_{name}" for name in told)])


def run(convs, conv, arrays, sizes=None, target=HOST, ranges=1, threads=False):
    """Runs one convolution of a module, each phase cut into `ranges` ranges of units, the last range first."""
    library = module(convs, target)
    sizes = sizes or {}
    scratch = np.full(dims.evaluate(workspace(conv, target), sizes) + 64, 0xFF, np.uint8)
    addresses = [array.ctypes.data for array in arrays] + [-(-scratch.ctypes.data // 64) * 64]
    buffers = (ctypes.c_void_p * len(addresses))(*addresses)
    values = (ctypes.c_int64 * max(1, len(conv.sizes)))(*(sizes[name] for name in conv.sizes))

    for phase in phases(conv, target):
        count = library.function(f"tell_{phase}_units", ctypes.c_int64, ctypes.c_void_p)(values)
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


def modules_of(cases, **how):
    """All kinds of some cases as one library: (convolutions, (case, convolution) pairs)."""
    pairs = [(c, convolution(c, kind, name=f"{kind}{q}", **how)) for q, c in enumerate(cases) for kind in KINDS]
    return tuple(conv for _, conv in pairs), pairs


def numbers(c, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in c.shapes]


def in_order(kind, x, w, y):
    """The arrays in the order of the buffers; the result, which is last, is filled with what nobody should read."""
    order = {"forward": (x, w, y), "input_gradient": (y, w, x), "weight_gradient": (x, y, w)}[kind]
    return [*order[:2], np.full_like(order[2], 777)]


# -- the reference


def expected(c, kind, x, w, y):
    """The result in float64, tap by tap."""
    x, w, y = (array.astype(np.float64) for array in (x, w, y))
    result = {"forward": y, "input_gradient": x, "weight_gradient": w}[kind]
    result[...] = 0
    taken, given = c.ci // c.groups, c.co // c.groups
    for tap in np.ndindex(*c.kernel):
        at_x, at_y = [np.arange(c.batch)], [np.arange(c.batch)]
        for q, n, count, stride, dilation, low in zip(
            tap, c.inner, c.outer, c.strides, c.dilations, c.low, strict=True
        ):
            places = np.arange(count) * stride + q * dilation - low
            inside = (places >= 0) & (places < n)
            at_x.append(places[inside])
            at_y.append(np.flatnonzero(inside))
        for g in range(c.groups):
            from_x, to_y = np.arange(taken) + g * taken, np.arange(given) + g * given
            part_x, part_y = np.ix_(*at_x, from_x), np.ix_(*at_y, to_y)
            weights = w[tap][:, to_y]
            if kind == "forward":
                y[part_y] += x[part_x] @ weights
            elif kind == "input_gradient":
                x[part_x] += y[part_y] @ weights.T
            else:
                axes = tuple(range(len(c.inner) + 1))
                w[tap][:, to_y] = np.tensordot(x[part_x], y[part_y], (axes, axes))
    return result


def assert_close(got, c, kind, x, w, y):
    """Each element within the error bound of its sum."""
    want = expected(c, kind, x, w, y)
    size = expected(c, kind, *(np.abs(array) for array in (x, w, y)))
    terms = np.prod(c.kernel) * max(c.ci, c.co)
    if kind == "weight_gradient":
        terms = c.batch * np.prod(c.outer)
    assert np.all(np.abs(got - want) <= (terms + 4) * np.finfo(got.dtype).eps * size)


def check(convs, pairs, target=HOST, sizes=None, ranges=1):
    for c, conv in pairs:
        arrays = numbers(c, conv.result.dtype.numpy)
        buffers = in_order(conv.kind, *arrays)
        run(convs, conv, buffers, sizes, target, ranges)
        assert_close(buffers[2], c, conv.kind, *arrays)


# -- values


def test_every_kind_of_every_case():
    check(*modules_of(CASES))


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [({"bits": 128}, f32), ({"bits": 512}, f32), ({"bits": 512}, f64), ({"fma": False}, f32), ({}, f64)],
    ids=str,
)
def test_every_vector_width(changes, dtype):
    target = dataclasses.replace(HOST, **changes)
    check(*modules_of([CASES[q] for q in (0, 2, 5, 17)], dtype=dtype), target=target)


def test_sizes_known_at_run_time_only_give_the_same_bits():
    known = [c for c in CASES if set(c.strides) == {1} and len(c.inner) == 2][:4]
    convs, pairs = modules_of(known)
    unknown, others = modules_of(known, symbolic=True)
    for (c, conv), (_, other) in zip(pairs, others, strict=True):
        arrays = numbers(c)
        got, same = in_order(conv.kind, *arrays), in_order(conv.kind, *arrays)
        run(convs, conv, got)
        run(unknown, other, same, {"batch": c.batch, "h": c.inner[0], "w": c.inner[1]}, ranges=2)
        assert got[2].tobytes() == same[2].tobytes()


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 300), (2, 20, 6), (0, 4, 4)])
def test_one_program_serves_all_batches_and_images(sizes):
    batch, height, width = sizes
    base = CASES[0]
    convs, _ = modules_of([base], symbolic=True)
    c = case(batch, (height, width), (3, 3), 3, 20, low=(1, 1), high=(1, 1))
    check(convs, [(c, conv) for conv in convs], sizes={"batch": batch, "h": height, "w": width})


def test_padding_may_be_a_size():
    low = dims.floordiv(W, 2)
    c = case(2, (9,), (3,), 4, 6, strides=(2,), low=(4,), high=(3,))
    convs = []
    for kind in KINDS:
        known = convolution(c, kind, name=kind)
        convs.append(dataclasses.replace(known, low=(low,), sizes=("w",)))
    check(tuple(convs), [(c, conv) for conv in convs], sizes={"w": 8})


# -- promises


def test_any_cut_of_the_work_gives_the_same_bits():
    large = [
        case(4, (40, 24), (3, 3), 24, 40, low=(1, 1), high=(1, 1)),
        case(8, (24, 24), (3, 3), 64, 64, low=(1, 1), high=(1, 1), groups=64),
    ]
    convs, pairs = modules_of(large)
    for c, conv in pairs:
        arrays = numbers(c)
        results = set()
        for ranges, threads in ((1, False), (2, True), (3, False), (7, False)):
            buffers = in_order(conv.kind, *arrays)
            run(convs, conv, buffers, ranges=ranges, threads=threads)
            results.add(buffers[2].tobytes())
        assert len(results) == 1
        assert_close(buffers[2], c, conv.kind, *arrays)


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


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_outside_the_buffers_is_touched(at_end):
    guarded = Guarded()
    convs, pairs = modules_of(CASES)
    for c, conv in pairs:
        arrays = numbers(c)
        buffers = [guarded.array(array, at_end) for array in in_order(conv.kind, *arrays)]
        run(convs, conv, buffers)
        assert_close(buffers[2], c, conv.kind, *arrays)


@pytest.mark.parametrize("bits", [128, 256])
def test_inputs_are_left_as_they_are(bits):
    target = dataclasses.replace(HOST, bits=min(bits, HOST.bits))
    convs, pairs = modules_of(CASES[:4])
    for c, conv in pairs:
        buffers = in_order(conv.kind, *numbers(c))
        before = [array.copy() for array in buffers[:2]]
        run(convs, conv, buffers, target=target)
        assert all(np.array_equal(a, b) for a, b in zip(before, buffers, strict=False))


def test_nan_and_infinity_reach_just_what_reads_them():
    convs, pairs = modules_of(CASES)
    for c, conv in pairs:
        x, w, y = numbers(c, seed=1)
        for array, value in ((x, np.nan), (w, np.inf), (y, -np.inf)):
            array.reshape(-1)[:: max(array.size // 3, 1)] = value
        buffers = in_order(conv.kind, x, w, y)
        run(convs, conv, buffers)
        with np.errstate(invalid="ignore"):
            want = expected(c, conv.kind, x, w, y)
        assert np.array_equal(np.isnan(buffers[2]), np.isnan(want))
        assert np.array_equal(np.isinf(buffers[2]), np.isinf(want))


@pytest.mark.parametrize(
    "c",
    [
        Case(2, (4,), (0,), 3, 5, (3,), (1,), (1,), (0,)),
        Case(2, (4, 4), (3, 3), 0, 5, (2, 2), (1, 1), (1, 1), (0, 0)),
        Case(2, (0, 4), (3, 3), 2, 5, (1, 4), (1, 1), (1, 1), (1, 1)),
        Case(2, (4, 4), (3, 3), 2, 5, (0, 2), (1, 1), (1, 1), (0, 0)),
        Case(0, (4, 4), (3, 3), 2, 5, (2, 2), (1, 1), (1, 1), (0, 0)),
        Case(2, (4, 4), (3, 3), 2, 0, (2, 2), (1, 1), (1, 1), (0, 0)),
    ],
    ids=["kernel", "ci", "inner", "outer", "batch", "co"],
)
def test_empty_sums_are_zero(c):
    convs, pairs = modules_of([c])
    for _, conv in pairs:
        buffers = in_order(conv.kind, *numbers(c))
        run(convs, conv, buffers)
        assert not buffers[2].any()


# -- epilogues


def bias_relu(conv):
    """The convolution with: out = max(result + bias, 0), and the result itself doubled in place."""
    result = dataclasses.replace(conv.result, role="inout")
    bias, out = Buffer("bias", f32, result.shape[-1:]), Buffer("out", f32, result.shape, "out")
    buffers = (*conv.buffers[:2], result, bias, out)
    names = tuple(f"i{q}" for q in range(len(result.shape)))
    at = tuple(map(dims.symbol, names))
    total = Call("add", (Var("v", f32), Load("bias", at[-1:], f32)), f32)
    body = (
        Let("v", Load(result.name, at, f32)),
        Store("out", at, Call("maximum", (total, Num(0.0, f32)), f32)),
        Store(result.name, at, Call("add", (Var("v", f32), Var("v", f32)), f32)),
    )
    grid = tuple(zip(names, result.shape, strict=True))
    epilogue = Kernel(f"{conv.name}_epilogue", conv.sizes, buffers, grid, body)
    return verify_conv(dataclasses.replace(conv, buffers=buffers, epilogue=epilogue))


def test_an_epilogue_runs_once_on_each_element():
    chosen = [CASES[q] for q in (0, 2, 5, 13, 15, 16, 17)] + [case(1, (8, 8), (3, 3), 40, 300)]
    _, pairs = modules_of(chosen)
    pairs = [(c, bias_relu(conv)) for c, conv in pairs]
    convs = tuple(conv for _, conv in pairs)
    for c, conv in pairs:
        arrays = numbers(c)
        buffers = in_order(conv.kind, *arrays)
        bias = np.random.default_rng(3).standard_normal(buffers[2].shape[-1]).astype(np.float32)
        out = np.full_like(buffers[2], 5)
        run(convs, conv, [*buffers, bias, out], ranges=3)
        assert_close(buffers[2] / 2, c, conv.kind, *arrays)
        assert np.array_equal(out, np.maximum(buffers[2] / 2 + bias, 0))


# -- what is refused, what is shared, how it reads


def test_other_dtypes_and_unknown_channels_are_left_to_plain_loops():
    half = convolution(CASES[0], "forward", dtype=f16)
    assert not is_direct(half)
    with pytest.raises(DTypeError, match="no direct convolution of f16, f16, f16"):
        emit_conv(half, HOST)


def test_only_convolutions_that_pack_or_add_have_a_second_phase():
    plain = case(1, (8, 8), (3, 3), 4, 2 * HOST.lanes(4))
    assert phases(convolution(plain, "forward"), HOST) == ("conv",)
    assert workspace(convolution(plain, "forward"), HOST) == 0
    assert phases(convolution(plain, "input_gradient"), HOST) == ("conv_pack", "conv")
    assert phases(convolution(plain, "weight_gradient"), HOST) == ("conv", "conv_sum")


def test_tiles_are_shared_by_convolutions_that_read_alike():
    first = shared(convolution(case(2, (24, 24), (3, 3), 32, 32, low=(1, 1), high=(1, 1)), "forward"), HOST)
    second = shared(convolution(case(5, (8, 24), (3, 3), 32, 64, low=(1, 1), high=(1, 1)), "input_gradient"), HOST)
    third = shared(convolution(case(5, (8, 24), (5, 3), 32, 64, low=(2, 1), high=(2, 1)), "forward"), HOST)
    assert first.items() <= third.items()
    assert first.keys() != second.keys()


@pytest.mark.parametrize(
    ("channels", "stride", "taps"), [(1, 2, 3), (3, 1, 3), (3, 2, 7), (4, 2, 3), (5, 2, 3), (64, 1, 3)]
)
def test_sums_stay_in_registers(channels, stride, taps):
    wide = Target.of("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f,+avx512bw,+avx512dq,+avx512vl,+fma")
    conv = convolution(case(1, (8, 60), (taps, taps), channels, 64, strides=(stride, stride)), "forward")
    tiles = {name: text for name, text in shared(conv, wide).items() if "_run" in name}
    assert tiles

    for name, text in tiles.items():
        code = assembly(text.replace("define internal", "define"), wide)
        assert "vfmadd" in code
        assert re.findall(r"zmm.*%rsp", code) == [], name


def test_a_convolution_as_text():
    conv = convolution(CASES[2], "forward", name="layer")
    assert conv_text(conv) == (
        "conv layer(x: f32[2, 7, 9, 5], w: f32[3, 2, 5, 33], out y: f32[2, 4, 3, 33]) sizes()\n"
        "  forward: y from x, w   strides [2, 3], dilations [1, 2], low [1, 0]\n"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strides": (1,)}, "one entry for each"),
        ({"groups": 2}, "channels, not"),
        ({"strides": (0, 1)}, "1 or more"),
        ({"buffers": ()}, "at least three buffers"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(changes, words):
    conv = convolution(CASES[0], "forward")
    with pytest.raises(InvalidKernel, match=words):
        verify_conv(dataclasses.replace(conv, **changes))
