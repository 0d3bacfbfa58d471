"""What is known of sizes for all values of their symbols, and that calls check what is not."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorc import backend as K
from tensorc.errors import ShapeError
from tensorc.ir import dims
from tensorc.ir.bounds import least, never_negative
from tensorc.ir.parse import parse
from tensorc.runtime.replay import call_of

N, M = dims.symbol("n"), dims.symbol("m")

ALWAYS = ["n", "2*n+m", "n*m+3", "n-min(2,n)", "n+2-min(5,n+2)", "n-n//2", "n-(n//2)*2", "n%3", "2-n%3", "max(0,n-3)",
          "n-(n-min(n,1))", "(n+3)//2-n//2", "max(min(1,n)-1,min(1,n)-n)", "max(n,m)-n", "bcast(n,m)", "n//m"]
SOMETIMES = ["n-1", "n-m", "min(n,3)-2", "n//2-1", "3-n%5", "n-(n//2)*3", "max(n-1,m-1)", "bcast(n,m)-1"]


@pytest.mark.parametrize("text", ALWAYS)
def test_what_is_never_negative_is_known_to_be(text):
    assert never_negative(dims.parse(text))


@pytest.mark.parametrize("text", SOMETIMES)
def test_what_may_be_negative_is_not_taken_for_granted(text):
    assert not never_negative(dims.parse(text))


def sizes():
    def grown(inner):
        pairs = st.tuples(inner, inner)
        return st.one_of(pairs.map(lambda p: p[0] + p[1]), pairs.map(lambda p: p[0] - p[1]),
                         pairs.map(lambda p: dims.minimum(*p)), pairs.map(lambda p: dims.maximum(*p)),
                         inner.map(lambda a: dims.floordiv(a, 2)), inner.map(lambda a: dims.mod(a, 3)),
                         inner.map(lambda a: a * 2), pairs.map(lambda p: p[0] * p[1]))
    return st.recursive(st.sampled_from([N, M, 0, 1, 3]), grown, max_leaves=8)


@given(sizes())
def test_nothing_is_said_that_does_not_hold(size):
    if never_negative(size):
        assert all(dims.evaluate(size, {"n": n, "m": m}) >= 0 for n, m in itertools.product(range(7), repeat=2))


def test_the_least_a_symbol_may_be():
    assert least(N - 3) == ("n", 3)
    assert least(2 * N - 3) == ("n", 2)
    assert least(2 * N - 4) == ("n", 2)
    assert least(3 - N) is None
    assert least(N - M) is None


@pytest.mark.parametrize("n", range(6))
def test_slices_of_an_axis_of_any_size(n):
    """All are NumPy's, and ask nothing of the size."""
    x = K.placeholder(shape=(None,))
    value = np.arange(n, dtype="float32")
    edges = (None, 0, 1, 3, -1, -3)
    keys = [slice(a, b, c) for a in edges for b in edges for c in (None, 2, -1, -2)]
    function = K.function([x], [x[key] for key in keys])
    for key, got in zip(keys, function([value]), strict=True):
        np.testing.assert_array_equal(got, value[key], err_msg=f"{key} of {n}")


READS = {
    "x[3]": (lambda x: x[3], 4),
    "x[-3]": (lambda x: x[-3], 3),
    "K.slice": (lambda x: K.slice(x, [1, 0], [4, 2]), 5),
    "the place before the last but one": (lambda x: x[K.shape(x)[0] - 3], 3),
    "foldl": (lambda x: K.foldl(lambda a, b: a + b, x), 1),
}


@pytest.mark.parametrize("name", READS)
def test_what_lies_outside_an_axis_is_not_read(name):
    make, needed = READS[name]
    x = K.placeholder(shape=(None, 3), name="x")
    total = K.variable(0.0)
    function = K.function([x], [make(x)], updates=[K.update_add(total, 1.0)])
    for n in (needed, needed + 1):
        function([np.ones((n, 3), "float32")])
    for n in range(needed):
        wanted = rf"x\w* \(axis 0\) gives {n}; .* at test_bounds.py:\d+ needs at least {needed}"
        with pytest.raises(ShapeError, match=wanted):
            function([np.ones((n, 3), "float32")])
    assert K.get_value(total) == 2
    function([np.ones((needed, 3), "float32")])


def test_sizes_that_become_negative_are_refused():
    x = K.placeholder(shape=(2, None, 3), name="x")
    grown = K.conv2d_transpose(K.expand_dims(x, 1), K.ones((1, 3, 4, 3)), (2, 1, K.shape(x)[1] * 2 - 3, 4))
    function = K.function([x], [grown])
    assert function([np.ones((2, 3, 3))])[0].shape == (2, 1, 3, 4)
    with pytest.raises(ShapeError, match=r"x\w* \(axis 1\) gives 1; K.conv2d_transpose at .* needs at least 2"):
        function([np.ones((2, 1, 3))])


def test_two_sizes_of_which_one_must_reach_the_other():
    x, y = K.placeholder(shape=(None,), name="x"), K.placeholder(shape=(None,), name="y")
    last = x[K.shape(y)[0]]
    function = K.function([x, y], [last])
    assert function([np.arange(4), np.zeros(3)])[0] == 3
    with pytest.raises(ShapeError, match=r"x\w* \(axis 0\) gives 3, y\w* \(axis 0\) gives 3; x\[key\] at .* beyond"):
        function([np.arange(3), np.zeros(3)])


def test_a_graph_from_text_is_run_at_sizes_that_reach_alone():
    graph, = parse("graph g(x: f32[n])\n  %0: f32[1] = slice(x) {starts=[3], limits=[4], steps=[1]}\n  return %0\n")
    call_of(graph, {"x": np.zeros(4)})
    with pytest.raises(ShapeError, match="size 2 has no elements 3 to 4"):
        call_of(graph, {"x": np.zeros(2)})
