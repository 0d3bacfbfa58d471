"""Pooling: K functions against windows written out, ties, gradients of both orders, and errors."""

import itertools
import math

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.errors import ArgumentError, DTypeError, ShapeError

RNG = np.random.default_rng(12)
FUNCTIONS = {2: K.pool2d, 3: K.pool3d}


@pytest.fixture(autouse=True)
def floatx():
    K.set_floatx("float64")
    yield
    K.set_floatx("float32")
    K.clear_session()


def numbers(*shape):
    return RNG.normal(size=shape)


def windows(sizes, window, strides, padding):
    """The shape of the output, and for each of its places the part of x that the window there covers."""
    starts = []
    for n, k, t in zip(sizes, window, strides, strict=True):
        if padding == "valid":
            low, count = 0, math.ceil((n - k + 1) / t)
        else:
            low, count = (max(k - t, 0) if n % t == 0 else max(k - n % t, 0)) // 2, math.ceil(n / t)
        starts.append([p * t - low for p in range(count)])
    parts = {}
    for p in itertools.product(*(range(len(s)) for s in starts)):
        first = [starts[axis][i] for axis, i in enumerate(p)]
        parts[p] = tuple(slice(max(s, 0), max(s + k, 0)) for s, k in zip(first, window, strict=True))
    return tuple(map(len, starts)), parts


def pooled(x, window, strides, padding, mode):
    counts, parts = windows(x.shape[1:-1], window, strides, padding)
    y = np.zeros((x.shape[0], *counts, x.shape[-1]))
    for p, part in parts.items():
        covered = x[(slice(None), *part)]
        over = tuple(range(1, x.ndim - 1))
        y[(slice(None), *p)] = covered.max(over) if mode == "max" else covered.mean(over)
    return y


def first(x):
    return np.moveaxis(x, -1, 1)


def run(function, x, unknown=()):
    """A K function on an array whose axes in `unknown` are None to the compiler."""
    node = K.placeholder(shape=tuple(None if a in unknown else n for a, n in enumerate(x.shape)))
    return K.function([node], [function(node)])([x])[0]


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pool(padding, mode):
    inputs, outputs, arrays, wanted, labels = [], [], [], [], []
    cases = [((7, 8), (3, 2)), ((5, 5), (2, 2)), ((6, 4), (1, 4)), ((4, 5, 6), (2, 3, 2))]
    for (sizes, window), stride in itertools.product(cases, (1, 2, 3)):
        last, strides = numbers(2, *sizes, 3), (stride,) * len(sizes)
        want = pooled(last, window, strides, padding, mode)
        for order, array, value in ("tf", last, want), ("th", first(last), first(want)):
            x = K.placeholder(array.shape)
            inputs.append(x)
            outputs.append(FUNCTIONS[len(sizes)](x, window, strides, padding, order, mode))
            arrays.append(array)
            wanted.append(value)
            labels.append(f"{sizes} {window} {strides} {order}")

    for got, want, label in zip(K.function(inputs, outputs)(arrays), wanted, labels, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-14, err_msg=label)


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_one_program_takes_every_size(padding, mode):
    x = K.placeholder((None, None, None, 3))
    y = K.pool2d(x, (3, 2), (2, 2), padding, pool_mode=mode)
    f = K.function([x], [y, *K.gradients(K.sum(K.square(y)), [x])])
    for shape in (2, 7, 8, 3), (1, 3, 2, 3), (0, 4, 4, 3), (2, 6, 3, 3):
        array = numbers(*shape)
        value, gradient = f([array])
        np.testing.assert_allclose(value, pooled(array, (3, 2), (2, 2), padding, mode), atol=1e-14)
        assert gradient.shape == shape


def test_means_leave_the_padding_out_and_maxima_do_not_see_it():
    x = np.full((1, 3, 3, 1), -5.0)
    for mode in "max", "avg":
        assert (run(lambda x, m=mode: K.pool2d(x, (3, 3), padding="same", pool_mode=m), x) == -5).all()


def test_nan_is_the_largest_and_spoils_a_mean():
    x = np.array([1.0, np.nan, 3.0, 4.0]).reshape(1, 2, 2, 1)
    for mode in "max", "avg":
        assert np.isnan(run(lambda x, m=mode: K.pool2d(x, (2, 2), pool_mode=m), x)).all()


def test_the_first_of_equal_elements_takes_the_gradient():
    x = K.placeholder((1, 2, 4, 1))
    y = K.pool2d(x, (2, 2), (2, 2))
    (gradient,) = K.gradients(y, [x])
    array = np.array([[1, 2, 0, 0], [2, 2, 0, 0]], float).reshape(1, 2, 4, 1)
    assert K.function([x], [gradient])([array])[0][0, ..., 0].tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]


def test_overlapping_windows_add_their_gradients():
    x = K.placeholder((1, 1, 4, 1))
    array = np.array([0.0, 3.0, 1.0, 2.0]).reshape(1, 1, 4, 1)
    gradients = {}
    for mode in "max", "avg":
        y = K.pool2d(x, (1, 3), (1, 1), "same", pool_mode=mode)
        (gradient,) = K.gradients(y, [x])
        gradients[mode] = K.function([x], [gradient])([array])[0].ravel().tolist()
    assert gradients["max"] == [0, 3, 0, 1]
    assert gradients["avg"] == pytest.approx([1 / 2 + 1 / 3, 1 / 2 + 2 / 3, 1 / 2 + 2 / 3, 1 / 2 + 1 / 3])


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_derivatives(padding, mode):
    """First and second gradients agree with differences along a random direction."""
    array = numbers(2, 5, 6, 2)
    x = K.placeholder((None, 5, 6, 2))
    loss = K.sum(K.pow(K.pool2d(x, (3, 2), (2, 1), padding, pool_mode=mode), 3))
    once = K.gradients(loss, [x])[0]
    squares = K.sum(K.square(once))
    twice = K.gradients(squares, [x])[0]
    direction = numbers(*array.shape)
    value, gradients = K.function([x], [loss, squares]), K.function([x], [once, twice])
    ahead, behind = (value([array + sign * 1e-6 * direction]) for sign in (1, -1))
    for gradient, high, low in zip(gradients([array]), ahead, behind, strict=True):
        assert (gradient * direction).sum() == pytest.approx((high - low) / 2e-6, rel=1e-5, abs=1e-5)


def test_what_is_pooled_may_meet_the_result():
    """The sum waits for the pooling, which waits for what both read."""
    x = K.placeholder((None, 4, 4, 3))
    y = K.exp(x)
    z = y + K.pool2d(y, (3, 3), padding="same")
    (gradient,) = K.gradients(K.sum(z * K.pool2d(z, (2, 2), padding="same", pool_mode="avg")), [x])
    array = numbers(2, 4, 4, 3)
    value, back = K.function([x], [z, gradient])([array])
    want = np.exp(array) + pooled(np.exp(array), (3, 3), (1, 1), "same", "max")
    np.testing.assert_allclose(value, want, atol=1e-13)
    assert np.isfinite(back).all()


def test_integers_have_maxima():
    x = K.placeholder((1, 2, 3, 1), dtype="int32")
    y = K.pool2d(x, (2, 2), padding="same")
    array = np.array([[-5, -7, -1], [-6, -9, -8]], np.int32).reshape(1, 2, 3, 1)
    assert K.function([x], [y])([array])[0].ravel().tolist() == [-5, -1, -1, -6, -8, -8]
    with pytest.raises(DTypeError, match="takes floats"):
        K.pool2d(x, (2, 2), pool_mode="avg")


def test_errors_tell_what_is_wrong():
    x = K.placeholder((2, 5, 6, 3), name="x")
    with pytest.raises(ArgumentError, match=r'K\.pool2d: pool_mode is one of "max", "avg"; received \'median\''):
        K.pool2d(x, (2, 2), pool_mode="median")
    with pytest.raises(ArgumentError, match="padding is one of"):
        K.pool2d(x, (2, 2), border_mode="full")
    with pytest.raises(ArgumentError, match="pool_size is 2 whole numbers"):
        K.pool2d(x, (2, 2, 2))
    with pytest.raises(ShapeError, match="x has 4 axes, not 5"):
        K.pool3d(x, (2, 2, 2))
    with pytest.raises(ShapeError, match="a window of 7 does not fit into 6 along spatial axis 1"):
        K.pool2d(x, (2, 7))
