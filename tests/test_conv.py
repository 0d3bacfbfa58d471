"""Convolutions: K functions against sums written out, their geometry, gradients of both orders, and errors."""

import itertools
import math
from functools import partial

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.codegen import loopir as ir
from tensorc.codegen.convolution import conv_loops
from tensorc.codegen.loopverify import verify
from tensorc.codegen.python import oracle
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir import dims
from tensorc.ir.types import f32

RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def floatx():
    K.set_floatx("float64")
    yield
    K.set_floatx("float32")
    K.clear_session()


def numbers(*shape):
    return RNG.normal(size=shape)


# The definition, element by element.

def before_and_count(n, reach, stride, padding):
    """Padding before an axis and how many windows stand on it, as TensorFlow's notes on padding have it."""
    if padding == "valid":
        return 0, math.ceil((n - reach + 1) / stride)
    if padding == "causal":
        return reach - 1, math.ceil((n + reach - 1 - reach + 1) / stride)
    lacking = max(reach - stride, 0) if n % stride == 0 else max(reach - n % stride, 0)
    return lacking // 2, math.ceil(n / stride)


def readings(sizes, window, strides, dilations, padding):
    """The shape of the output, and (p, q, s): output place p reads place s with kernel element q."""
    geometry = [before_and_count(n, (k - 1) * d + 1, t, padding)
                for n, k, t, d in zip(sizes, window, strides, dilations, strict=True)]
    counts = tuple(count for _, count in geometry)
    triples = []
    for p in itertools.product(*map(range, counts)):
        for q in itertools.product(*map(range, window)):
            s = tuple(a * t + b * d - low for a, b, t, d, (low, _) in
                      zip(p, q, strides, dilations, geometry, strict=True))
            if all(0 <= place < n for place, n in zip(s, sizes, strict=True)):
                triples.append((p, q, s))
    return counts, triples


def convolved(x, w, strides, padding, dilations):
    counts, triples = readings(x.shape[1:-1], w.shape[:-2], strides, dilations, padding)
    y = np.zeros((x.shape[0], *counts, w.shape[-1]))
    for p, q, s in triples:
        y[(slice(None), *p)] += x[(slice(None), *s)] @ w[q]
    return y


def transposed(y, w, sizes, strides, padding, dilations):
    counts, triples = readings(sizes, w.shape[:-2], strides, dilations, padding)
    assert counts == y.shape[1:-1]
    x = np.zeros((y.shape[0], *sizes, w.shape[-2]))
    for p, q, s in triples:
        x[(slice(None), *s)] += y[(slice(None), *p)] @ w[q].T
    return x


def depthwise(x, w, strides, padding, dilations):
    each = [convolved(x[..., c:c + 1], w[..., c:c + 1, :], strides, padding, dilations) for c in range(x.shape[-1])]
    return np.concatenate(each, axis=-1)


def first(x):
    """Channels first."""
    return np.moveaxis(x, -1, 1)


def run(function, *arrays, unknown=()):
    """A K function on arrays; the axes in `unknown` of the first one are None to the compiler."""
    return run_all([(function, arrays)], unknown)[0]


def run_all(calls, unknown=()):
    """Several K functions, each on arrays of its own, as one program."""
    inputs, outputs = [], []
    for function, arrays in calls:
        own = [K.placeholder(shape=tuple(None if not inputs and a in unknown else n for a, n in enumerate(array.shape)))
               for array in arrays]
        inputs += own
        outputs.append(function(*own))
    return K.function(inputs, outputs)([array for _, arrays in calls for array in arrays])


def check_all(cases):
    """Calls (function, arrays) as one program against what each is wanted to give."""
    for got, (_, _, want) in zip(run_all([case[:2] for case in cases]), cases, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


# Values.

SHAPES = {
    1: [((9,), (3,)), ((8,), (4,)), ((5,), (1,))],
    2: [((7, 6), (3, 2)), ((5, 8), (2, 4))],
    3: [((4, 5, 3), (2, 3, 2))],
}
FUNCTIONS = {1: K.conv1d, 2: K.conv2d, 3: K.conv3d}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_conv(rank, padding):
    cases = []
    for (sizes, window), stride, dilation in itertools.product(SHAPES[rank], (1, 2, 3), (1, 2)):
        if any((k - 1) * dilation >= n for k, n in zip(window, sizes, strict=True)):
            continue
        x, w = numbers(2, *sizes, 3), numbers(*window, 3, 4)
        strides, dilations = (stride,) * rank, (dilation,) * rank
        want = convolved(x, w, strides, padding, dilations)
        last = partial(FUNCTIONS[rank], strides=strides, padding=padding, dilation_rate=dilations)
        cases.append((last, (x, w), want))
        cases.append((partial(last, data_format="channels_first"), (first(x), w), first(want)))
    check_all(cases)


def test_strides_and_dilations_differ_by_axis_and_meet():
    x, w = numbers(2, 9, 8, 3), numbers(2, 3, 3, 4)
    for padding in "valid", "same":
        got = run(lambda x, w, p=padding: K.conv2d(x, w, (3, 2), p, dilation_rate=(2, 3)), x, w)
        np.testing.assert_allclose(got, convolved(x, w, (3, 2), padding, (2, 3)), atol=1e-12)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_causal_convolution_sees_no_later_step(stride, dilation):
    x, w = numbers(2, 9, 3), numbers(3, 3, 4)
    want = convolved(x, w, (stride,), "causal", (dilation,))
    got = run(lambda x, w: K.conv1d(x, w, stride, "causal", dilation_rate=dilation), x, w)
    np.testing.assert_allclose(got, want, atol=1e-12)

    x[:, 5:] = 0
    again = run(lambda x, w: K.conv1d(x, w, stride, "causal", dilation_rate=dilation), x, w)
    np.testing.assert_array_equal(again[:, : 4 // stride + 1], got[:, : 4 // stride + 1])


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed(stride, padding):
    cases, strides, sizes = [], (stride, stride), (8, 7)
    for window in (3, 3), (2, 4), (1, 2):
        counts, _ = readings(sizes, window, strides, (1, 1), padding)
        y, w = numbers(2, *counts, 3), numbers(*window, 4, 3)
        want = transposed(y, w, sizes, strides, padding, (1, 1))
        last = partial(K.conv2d_transpose, output_shape=(None, *sizes, 4), strides=strides, padding=padding)
        old = partial(K.deconv2d, output_shape=(2, 4, *sizes), strides=strides, border_mode=padding, dim_ordering="th")
        cases += [(last, (y, w), want), (old, (first(y), w), first(want))]
    check_all(cases)
    function, arrays, want = cases[0]
    np.testing.assert_allclose(run(function, *arrays, unknown=(0, 1, 2)), want, atol=1e-12)


def test_transposed_of_volumes_and_with_dilation():
    y, w = numbers(1, 2, 3, 2, 3), numbers(2, 3, 2, 2, 3)
    got = run(lambda y, w: K.conv3d_transpose(y, w, (1, 4, 6, 4, 2), (2, 2, 2), "same"), y, w)
    np.testing.assert_allclose(got, transposed(y, w, (4, 6, 4), (2, 2, 2), "same", (1, 1, 1)), atol=1e-12)

    y, w = numbers(2, 3, 4, 3), numbers(3, 2, 2, 3)
    got = run(lambda y, w: K.conv2d_transpose(y, w, (2, 7, 6, 2), dilation_rate=(2, 2)), y, w)
    np.testing.assert_allclose(got, transposed(y, w, (7, 6), (1, 1), "valid", (2, 2)), atol=1e-12)


def test_output_shape_may_be_a_tensor_of_sizes():
    y, w = numbers(2, 3, 4, 3), numbers(2, 2, 2, 3)

    def doubled(y, w):
        rows, columns = K.shape(y)[1] * 2, K.shape(y)[2] * 2
        return K.conv2d_transpose(y, w, K.stack([K.shape(y)[0], rows, columns, 2]), (2, 2), "same")

    want = transposed(y, w, (6, 8), (2, 2), "same", (1, 1))
    np.testing.assert_allclose(run(doubled, y, w, unknown=(0, 1, 2)), want, atol=1e-12)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_and_separable(multiplier):
    x, w, mix = numbers(2, 6, 7, 3), numbers(3, 2, 3, multiplier), numbers(1, 1, 3 * multiplier, 4)
    cases = []
    for padding, stride, dilation in itertools.product(("valid", "same"), (1, 2), (1, 2)):
        want = depthwise(x, w, (stride,) * 2, padding, (dilation,) * 2)
        geometry = {"strides": (stride,) * 2, "padding": padding, "dilation_rate": (dilation,) * 2}
        cases.append((partial(K.depthwise_conv2d, **geometry), (x, w), want))
        both = partial(K.separable_conv2d, data_format="channels_first", **geometry)
        cases.append((both, (first(x), w, mix), first(want @ mix[0, 0])))
    check_all(cases)


def test_separable_of_sequences():
    x, w, mix = numbers(2, 8, 3), numbers(3, 3, 2), numbers(1, 6, 4)
    got = run(lambda x, w, m: K.separable_conv1d(x, w, m, 2, "same"), x, w, mix)
    np.testing.assert_allclose(got, depthwise(x, w, (2,), "same", (1,)) @ mix[0], atol=1e-12)


def test_local():
    x, w = numbers(2, 7, 3), numbers(3, 9, 4)
    parts = [x[:, 2 * i:2 * i + 3].reshape(2, 9) @ w[i] for i in range(3)]
    np.testing.assert_allclose(run(lambda x, w: K.local_conv1d(x, w, (3,), (2,)), x, w), np.stack(parts, 1), atol=1e-12)

    x, w = numbers(2, 5, 4, 3), numbers(6, 18, 4)
    places = list(np.ndindex(2, 3))
    for order in "channels_last", "channels_first":
        cuts = [x[:, 2 * i:2 * i + 3, j:j + 2] for i, j in places]
        cuts = cuts if order == "channels_last" else [np.moveaxis(cut, -1, 1) for cut in cuts]
        want = np.stack([cut.reshape(2, 18) @ w[k] for k, cut in enumerate(cuts)], 1).reshape(2, 2, 3, 4)

        got = run(lambda x, w, o=order: K.local_conv2d(x, w, (3, 2), (2, 1), (2, 3), o),
                  x if order == "channels_last" else first(x), w, unknown=(0,))
        np.testing.assert_allclose(got, want if order == "channels_last" else first(want), atol=1e-12)


# Sizes that are not known, or nothing.

@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_one_program_takes_every_size(stride, padding):
    w = numbers(3, 2, 3, 4)
    x = K.placeholder((None, None, None, 3))
    f = K.function([x], [K.conv2d(x, K.constant(w), (stride, stride), padding)])
    for shape in (2, 5, 6, 3), (1, 3, 2, 3), (0, 4, 4, 3), (2, 4, 9, 3):
        array = numbers(*shape)
        np.testing.assert_allclose(f([array])[0], convolved(array, w, (stride, stride), padding, (1, 1)), atol=1e-12)


def test_nothing_to_convolve():
    w = K.constant(numbers(3, 2, 4))
    x = K.placeholder((None, None, 2))
    valid, same = K.function([x], [K.conv1d(x, w), K.conv1d(x, w, padding="same")])([numbers(2, 0, 2)])
    assert valid.shape == same.shape == (2, 0, 4)
    (few,) = K.function([x], [K.conv1d(x, w)])([numbers(2, 2, 2)])
    assert few.shape == (2, 0, 4)


def test_shapes_that_are_known_stay_simple():
    x = K.placeholder((None, None, 32, 3))
    w = K.placeholder((3, 3, 3, 8))
    assert K.int_shape(K.conv2d(x, w, padding="same")) == (None, None, 32, 8)
    assert K.int_shape(K.conv2d(x, w, (2, 2), "same")) == (None, None, 16, 8)
    assert K.conv2d(x, w, padding="same").node.shape[1] is x.node.shape[1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_floats_of_16_bits_are_summed_in_float32(dtype):
    x, w = K.ones((1, 4096, 1), dtype), K.ones((4096, 1, 1), dtype)
    assert K.eval(K.conv1d(x, w)).tolist() == [[[4096]]]


# The loops.

def test_loops_find_names_of_their_own():
    """Buffers and sizes may be called as the loops would be."""
    n = dims.symbol("p")
    buffers = (ir.Buffer("s", f32, (n, 5, 2)), ir.Buffer("q", f32, (3, 2, 4)), ir.Buffer("b", f32, (n, 3, 4), "out"))
    conv = ir.Conv("forward", "total", ("p",), buffers, (2,), (1,), (1,))
    kernel = verify(conv_loops(conv))
    x, w, y = (RNG.normal(size=shape).astype("f") for shape in ((2, 5, 2), (3, 2, 4), (2, 3, 4)))
    oracle(conv)(x, w, y, 2)
    np.testing.assert_allclose(y, convolved(x, w, (2,), "same", (1,)), atol=1e-5)
    assert len({*kernel.sizes, *(b.name for b in buffers), *(var for var, _ in kernel.grid)}) == 7


# Gradients.

def assert_derivatives(function, *arrays):
    """First and second gradients agree with differences along random directions."""
    inputs = [K.placeholder(shape=(None, *a.shape[1:]) if i == 0 else a.shape) for i, a in enumerate(arrays)]
    output = function(*inputs)
    loss = K.sum(K.square(output) * K.constant(numbers(*function(*map(K.constant, arrays)).shape)))
    once = K.gradients(loss, inputs)
    squares = sum(K.sum(K.square(g)) for g in once)
    twice = K.gradients(squares, inputs)
    value = K.function(inputs, [loss, squares])
    found = K.function(inputs, [*once, *twice])(list(arrays))
    assert [g.shape for g in found] == [a.shape for a in arrays] * 2

    for i, array in enumerate(arrays):
        direction = numbers(*array.shape)
        ahead, behind = (value([a + sign * 1e-5 * direction if k == i else a for k, a in enumerate(arrays)])
                         for sign in (1, -1))
        for gradient, high, low in zip((found[i], found[len(arrays) + i]), ahead, behind, strict=True):
            assert (gradient * direction).sum() == pytest.approx((high - low) / 2e-5, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("geometry", [
    {}, {"padding": "same"}, {"strides": (2, 3), "padding": "same"}, {"strides": (2, 1)}, {"dilation_rate": (2, 1)},
    {"data_format": "channels_first", "padding": "same", "dilation_rate": (1, 2)},
], ids=str)
def test_derivatives(geometry):
    x, w = numbers(2, 5, 6, 2), numbers(3, 2, 2, 3)
    x = first(x) if "data_format" in geometry else x
    assert_derivatives(lambda x, w: K.conv2d(x, w, **geometry), x, w)


def test_derivatives_of_the_others():
    assert_derivatives(lambda x, w: K.conv1d(x, w, 2, "causal"), numbers(2, 7, 2), numbers(3, 2, 3))
    assert_derivatives(lambda x, w: K.conv3d(x, w, padding="same"), numbers(1, 3, 2, 3, 2), numbers(2, 2, 2, 2, 2))
    assert_derivatives(lambda x, w: K.conv2d_transpose(x, w, (None, 6, 5, 2), (2, 2), "same"),
                       numbers(2, 3, 3, 2), numbers(3, 3, 2, 2))
    assert_derivatives(lambda x, w: K.depthwise_conv2d(x, w, (2, 2), "same"), numbers(2, 5, 4, 3), numbers(3, 3, 3, 2))
    assert_derivatives(lambda x, w: K.local_conv1d(x, w, (2,), (2,)), numbers(2, 5, 2), numbers(2, 4, 3))


def test_no_path_past_a_kernel():
    x, w = K.placeholder((2, 5, 2)), K.placeholder((3, 2, 3))
    assert K.gradients(K.sum(K.conv1d(x, K.stop_gradient(w))), [w]) == [None]


# Errors.

def test_errors_tell_what_is_wrong():
    x, w = K.placeholder((2, 5, 6, 3), name="x"), K.placeholder((3, 3, 3, 4), name="w")
    with pytest.raises(ArgumentError, match=r'K\.conv2d: padding is one of "valid", "same"; received \'causal\''):
        K.conv2d(x, w, padding="causal")
    with pytest.raises(ArgumentError, match="data_format"):
        K.conv2d(x, w, data_format="channels_middle")
    with pytest.raises(ArgumentError, match="strides is 2 whole numbers from 1, not 0"):
        K.conv2d(x, w, strides=0)
    with pytest.raises(ArgumentError, match="dilation_rate is 2 whole numbers"):
        K.conv2d(x, w, dilation_rate=(1, 1, 1))
    with pytest.raises(ShapeError, match="x has 3 channels, the kernel takes 2"):
        K.conv2d(x, K.placeholder((3, 3, 2, 4)))
    with pytest.raises(ShapeError, match="x has 4 axes, not 3"):
        K.conv1d(x, K.placeholder((3, 3, 4)))
    with pytest.raises(ShapeError, match="a kernel has 3 axes, not 4"):
        K.conv2d(x, K.placeholder((3, 3, 4)))
    with pytest.raises(ShapeError, match="a window of 7 does not fit into 5 along spatial axis 0"):
        K.conv2d(x, K.placeholder((7, 3, 3, 4)))
    with pytest.raises(ArgumentError, match='padding "causal" takes'):
        K.conv1d(K.placeholder((2, 3, 5)), K.placeholder((3, 3, 4)), padding="causal", data_format="channels_first")


def test_errors_of_the_others_tell_what_is_wrong():
    x, w = K.placeholder((2, 5, 6, 3)), K.placeholder((3, 3, 4, 3))
    with pytest.raises(ShapeError, match="does not have the shape of x along spatial axis 1"):
        K.conv2d_transpose(x, w, (2, 7, 9, 4))
    with pytest.raises(ShapeError, match="channels of output_shape"):
        K.conv2d_transpose(x, w, (2, 7, 8, 5))
    with pytest.raises(ShapeError, match="different numbers of samples"):
        K.conv2d_transpose(x, w, (3, 7, 8, 4))
    with pytest.raises(ShapeError, match="output_shape has 3 entries, not 4"):
        K.conv2d_transpose(x, w, (7, 8, 4))
    with pytest.raises(ShapeError, match="x has 3 channels, the kernel takes 4"):
        K.depthwise_conv2d(x, K.placeholder((3, 3, 4, 2)))
    with pytest.raises(ShapeError, match=r"the pointwise kernel covers \(3, 1\) places"):
        K.separable_conv2d(x, K.placeholder((3, 3, 3, 1)), K.placeholder((3, 1, 3, 2)))
    with pytest.raises(ShapeError, match="3 windows of 3 by strides of 2 take 7 places, x has 6"):
        K.local_conv1d(K.placeholder((2, 6, 2)), K.placeholder((3, 6, 2)), (3,), (2,))
    with pytest.raises(ShapeError, match="inner sizes"):
        K.local_conv1d(K.placeholder((2, 7, 2)), K.placeholder((3, 5, 2)), (3,), (2,))
