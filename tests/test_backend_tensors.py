"""Handles, operators, dtypes, indexing, shapes that are tensors."""

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.backend.sizes import as_size, as_sizes
from tensorc.backend.variables import first_value as value
from tensorc.errors import IndexRangeError


def array(*shape, dtype="float32"):
    return (np.arange(np.prod(shape)).reshape(shape) - 3).astype(dtype)


def test_handles_are_themselves_alone():
    x = K.placeholder((None, 3), name="x")
    same = K.identity(x)
    assert same is not x
    assert same.node is x.node
    assert x != same
    assert len({x, same}) == 2
    x._keras_history = 1
    assert not hasattr(same, "_keras_history")
    assert x in [same, x]


def test_what_a_handle_tells():
    x = K.placeholder((None, 3), name="data", dtype="int64")
    assert (x.dtype, x.ndim, x.shape, x.get_shape().as_list()) == ("int64", 2, (None, 3), [None, 3])
    assert K.int_shape(x) == (None, 3)
    assert (K.ndim(x), K.dtype(x), K.count_params(K.zeros((4, 5)))) == (2, "int64", 20)
    assert x.name.startswith("data")
    x._keras_shape = (7, 3)
    assert K.int_shape(x) == (7, 3)


def test_a_tensor_has_no_truth_value():
    x = K.placeholder((2,))
    with pytest.raises(TypeError, match="no truth value"):
        bool(x)
    with pytest.raises(TypeError, match="no truth value"):
        assert x > 1


BINARY = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "//": np.floor_divide, "%": np.mod,
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
}


@pytest.mark.parametrize("symbol", BINARY)
def test_operators_as_in_numpy(symbol):
    a, b = array(2, 3) + 0.5, array(3) + 4
    x, y = K.variable(a), K.variable(b)
    names = {"x": x, "y": y, "a": a, "b": b}
    for text in f"x {symbol} y", f"x {symbol} b", f"a {symbol} y":
        np.testing.assert_allclose(value(eval(text, names)), BINARY[symbol](a, b), rtol=1e-6)


def test_other_operators():
    a = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
    x = K.variable(a)
    np.testing.assert_allclose(value(-x), -a)
    np.testing.assert_allclose(value(abs(x)), abs(a))
    np.testing.assert_allclose(value(x ** 2), a ** 2)
    np.testing.assert_allclose(value(2 ** x), 2 ** a)
    np.testing.assert_allclose(value(x @ x), a @ a)
    np.testing.assert_allclose(value(a @ x), a @ a)
    np.testing.assert_allclose(value(1 - x), 1 - a)
    positive, small = x > 0, x < 1
    assert value(positive & ~small).tolist() == ((a > 0) & ~(a < 1)).tolist()
    assert value(positive | small).all()
    assert value(positive ^ positive).sum() == 0


@pytest.mark.parametrize(("left", "right", "expected"), [
    ("float32", 2, "float32"), ("float16", 2.5, "float16"), ("int32", 2, "int32"), ("int32", 2.5, "float32"),
    ("uint8", np.float64(2.5), "float32"), ("float32", np.ones(2), "float32"), ("float64", np.float32(1), "float64"),
    ("bool", 2, "int32"), ("bool", 2.5, "float32"), ("int8", np.ones(2, np.int64), "int8"),
    ("bfloat16", 2.5, "bfloat16"), ("bfloat16", np.float32(2), "bfloat16"),
    ("int32", np.ones(2, "bfloat16"), "float32"),
])
def test_literals_take_the_dtype_of_the_tensor(left, right, expected):
    x = K.placeholder((2,), dtype=left)
    assert (x + right).dtype == (right + x).dtype == expected
    assert K.maximum(x, right).dtype == expected


@pytest.mark.parametrize(("left", "right", "expected"), [
    ("float16", "float32", "float32"), ("float64", "float32", "float64"), ("int64", "float16", "float16"),
    ("int32", "int64", "int64"), ("bool", "float32", "float32"), ("uint8", "int8", "int16"),
    ("bfloat16", "float16", "float32"), ("bfloat16", "float32", "float32"), ("bfloat16", "float64", "float64"),
    ("bfloat16", "int64", "bfloat16"), ("bfloat16", "bool", "bfloat16"),
])
def test_tensors_promote(left, right, expected):
    x, y = K.placeholder((2,), dtype=left), K.placeholder((2,), dtype=right)
    assert (x * y).dtype == (y * x).dtype == expected
    assert K.concatenate([x, y]).dtype == expected


def test_integers_divide_truly():
    x = K.variable([7, 8], dtype="int32")
    assert (x / 2).dtype == "float32"
    assert value(x / 2).tolist() == [3.5, 4.0]
    assert value(x // 2).dtype == np.int32


def test_a_literal_out_of_range_is_refused():
    with pytest.raises(ValueError, match="300 is outside the range of uint8"):
        K.placeholder((2,), dtype="uint8") + 300


INDICES = [
    "0", "-1", "1:", ":-1", "::2", "::-1", "3:0:-2", "-1:-4:-1", "...", "..., 0", "None", ":, None, 1", "1, ..., -2",
    ":2, 1:3, ::-2", "2:1", "10:", ":10", "-10:2", "1, 2, 3", "-1, ::-3, 1:-1", "::-1, ::-1, ::-1", "..., None",
]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("text", INDICES)
def test_indexing_as_in_numpy(text, known):
    a = array(4, 5, 6)
    key = eval(f"np.s_[{text}]")
    x = K.variable(a) if known else K.placeholder((None, 5, None))
    taken = x[key]
    assert taken.ndim == a[key].ndim
    if known:
        assert value(taken).tolist() == a[key].tolist()
    else:
        sizes = dict(zip((str(x.sizes[0]), str(x.sizes[2])), (4, 6), strict=True))
        from tensorc.ir.dims import evaluate
        assert tuple(evaluate(s, sizes) for s in taken.sizes) == a[key].shape


@pytest.mark.parametrize("n", range(5))
@pytest.mark.parametrize("bounds", [(a, b) for a in (None, 0, 2, -1, -3) for b in (None, 0, 1, 3, -2)])
def test_bounds_beyond_an_unknown_size_are_cut_off(bounds, n):
    from tensorc.ir.dims import evaluate
    x = K.placeholder((None,))
    for step in 1, 2, -1, -2:
        taken = x[slice(*bounds, step)]
        assert evaluate(taken.sizes[0], {str(x.sizes[0]): n}) == len(range(n)[slice(*bounds, step)])


def test_equal_windows_have_equal_sizes():
    x = K.placeholder((None, 3))
    assert x[1:].sizes == x[:-1].sizes
    assert x[2:].sizes == x[1:-1].sizes == x[:-2].sizes
    assert x[:, :].node is x.node


def test_bounds_may_be_sizes():
    x, y = K.placeholder((None, 8), name="x"), K.placeholder((None, 5), name="y")
    width = K.shape(y)[1]
    assert x[:, :width].shape == (None, 5)
    assert x[:, width:].shape == (None, 3)
    assert x[:, :K.shape(x)[1] - 1].shape == (None, 7)
    rows = K.shape(x)[0]
    assert x[rows - 1].shape == (8,)
    assert x[rows::-1].sizes == x.sizes
    assert x[:rows:-1].sizes == (0, 8)


def test_places_may_be_computed():
    a = np.arange(60.0, dtype="float32").reshape(3, 4, 5)
    x, i = K.placeholder((3, None, 5)), K.placeholder((), dtype="int32")
    last = K.cast(i + 1, "uint8")
    outputs = [x[i], x[:, i], x[..., i], x[None, i, 1:, last], x[K.argmax(x[:, 0, 0])]]
    f = K.function([x, i], [*outputs, K.gradients(x[1, i, i], [x])[0]])

    *got, gradient = f([a, 2])

    for value_, expected in zip(got, [a[2], a[:, 2], a[..., 2], a[None, 2, 1:, 3], a[2]], strict=True):
        np.testing.assert_array_equal(value_, expected)
    assert (gradient.sum(), gradient[1, 2, 2]) == (1, 1)
    with pytest.raises(IndexRangeError):
        f([a, 3])


def test_iteration():
    x = K.variable(array(3, 2))
    assert [value(row).tolist() for row in x] == array(3, 2).tolist()
    with pytest.raises(TypeError, match="first size is known"):
        iter(K.placeholder((None, 2)))


def test_sizes_survive_arithmetic():
    x = K.placeholder((None, 6, None))
    n, _, m = x.sizes
    batch, width, time = K.shape(x)
    assert as_size(batch) is n
    assert as_size(batch * 3 + time) is n * 3 + m
    assert as_size((batch * width) // 2) is n * 3
    assert as_size(K.prod(K.shape(x))) is n * m * 6
    assert as_size(K.prod([batch, time])) is n * m
    assert as_size(K.cast(K.shape(x)[-1], "int64") - 1) is m - 1
    assert as_sizes(K.stack([batch, 2, time])) == (n, 2, m)
    assert as_sizes(K.concatenate([K.shape(x)[:1], K.shape(x)[2:]])) == (n, m)
    assert as_sizes(K.shape(x)[::-1]) == (m, 6, n)
    assert as_size(K.maximum(batch, batch - 1)) is n
    assert as_size(width) == 6


def test_sizes_make_shapes():
    x = K.placeholder((None, 4))
    n = x.sizes[0]
    assert K.reshape(x, (K.shape(x)[0] * 2, 2)).sizes == (n * 2, 2)
    assert K.reshape(x, (-1, 2)).sizes == (n * 2, 2)
    assert K.zeros((K.shape(x)[0], 3)).sizes == (n, 3)
    assert K.random_normal(shape=(K.shape(x)[0], 3)).sizes == (n, 3)
    assert K.tile(x, (K.shape(x)[0], 2)).sizes == (n * n, 8)
    assert K.arange(K.shape(x)[0]).sizes == (n,)
    with pytest.raises(ValueError, match="cannot depend on the values of a tensor"):
        K.reshape(x, (K.cast(K.sum(x), "int32"), 4))


def test_shape_and_size_as_values():
    x = K.variable(array(2, 5))
    assert value(K.shape(x)).tolist() == [2, 5]
    assert K.dtype(K.shape(x)) == "int32"
    assert value(K.size(x)) == 10


def test_lists_of_tensors_are_stacked():
    one, two = K.variable(1.0), K.variable(2.0)
    assert value(K.sum([one, two])) == 3
    assert value(K.prod([one, 4, two])) == 8
