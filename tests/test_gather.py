"""Rows at places that come from data: values, gradients, order of sums, and indices that are outside."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tensorc import backend as K
from tensorc import ops
from tensorc.errors import DTypeError, IndexRangeError, ShapeError, TensorcError
from tensorc.ir.dims import symbol
from tensorc.ir.types import DType, f16, f32, f64, i32, i64, parse_type
from tensorc.ops.gather import NONE
from tensorc.ops.source import parameter
from tensorc.runtime.function import Function
from tensorc.runtime.threads import num_threads, set_num_threads

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    threads = num_threads()
    yield
    set_num_threads(threads)


def table(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def places(bound: int, *shape: int, dtype: str = "int32") -> Array:
    return np.random.default_rng(1).integers(0, bound, shape).astype(dtype)


def node(name: str, type: str) -> Any:
    return parameter(name=name, role="input", uid=0, type=parse_type(type))


# Values.

@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32", "uint8", "bool"])
def test_rows_at_indices_of_every_rank(dtype: str, known: bool) -> None:
    x = (table(7, 3) * 9).astype(dtype)
    rows = K.placeholder(x.shape if known else (None, None), dtype=dtype)
    at = [places(7, *shape) for shape in [(), (4,), (2, 3), (0,), (1, 1)]]
    indices = [K.placeholder(a.shape if known else [None] * a.ndim, dtype="int32") for a in at]

    taken = [K.gather(rows, i) for i in indices]
    for symbolic, found, a in zip(taken, K.function([rows, *indices], taken)([x, *at]), at, strict=True):
        assert symbolic.dtype == found.dtype == dtype
        np.testing.assert_array_equal(found, x[a])


def test_references_of_every_rank() -> None:
    shapes = [(5,), (5, 1), (1, 4), (5, 0), (5, 3, 2)]
    taken = [K.gather(K.constant(table(*s)), K.constant(places(s[0], 6), dtype="int32")) for s in shapes]
    for found, shape in zip(K.function([], taken)([]), shapes, strict=True):
        np.testing.assert_array_equal(found, table(*shape)[places(shape[0], 6)])


def test_indices_of_every_integer_dtype_also_python_numbers() -> None:
    x = K.constant(table(5, 2))
    indices = [K.constant([4, 0, 4], dtype=dtype) for dtype in ("int8", "uint8", "int16", "int64")]
    *found, one, two = K.function([], [K.gather(x, i) for i in (*indices, 3, [3, 1])])([])
    for each in found:
        np.testing.assert_array_equal(each, table(5, 2)[[4, 0, 4]])
    np.testing.assert_array_equal(one, table(5, 2)[3])
    np.testing.assert_array_equal(two, table(5, 2)[[3, 1]])


def test_any_axis() -> None:
    x, i = node("x", "f32[a,b,c]"), node("i", "i32[n,m]")
    function = Function("columns", [x, i], [ops.gather(x, i, axis=1)])
    at = places(4, 2, 5)
    np.testing.assert_array_equal(function([table(3, 4, 6), at])[0], table(3, 4, 6)[:, at])


def test_what_is_gathered_and_what_follows_may_be_computed() -> None:
    x, i = K.placeholder((6, 4)), K.placeholder((None,), dtype="float32")
    summed = K.sum(K.gather(K.exp(x) + 1, K.cast(i + 1, "int32")) * 2, axis=0)
    (found,) = K.function([x, i], [summed])([table(6, 4), np.array([0.0, 4.0, 0.0])])
    np.testing.assert_allclose(found, ((np.exp(table(6, 4)) + 1) * 2)[[1, 5, 1]].sum(0), rtol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="a scalar has no rows"):
        K.gather(K.constant(1.0), K.constant([0], dtype="int32"))
    with pytest.raises(DTypeError, match=r"indices are integers, not float32\n(.|\n)*K.cast"):
        K.gather(K.constant(table(3)), K.constant([0.0]))


# Gradients.

def test_gradients_of_first_and_second_order_agree_with_differences() -> None:
    x, i, w = K.placeholder((4, 3), dtype="float64"), K.placeholder((None,), dtype="int32"), table(5, 3)
    loss = K.sum(K.square(K.gather(K.tanh(x), i)) * K.constant(w, dtype="float64"))
    (first,) = K.gradients(loss, [x])
    (second,) = K.gradients(K.sum(K.square(first)), [x])
    function = K.function([x, i], [loss, first, K.sum(K.square(first)), second])

    at, values, step = np.array([3, 0, 3, 3, 1], np.int32), table(4, 3, dtype="float64"), 1e-6
    _, to_x, _, again = function([values, at])
    assert (to_x[2] == 0).all()
    for place in np.ndindex(4, 3):
        moved = np.zeros((4, 3))
        moved[place] = step
        ahead, behind = function([values + moved, at]), function([values - moved, at])
        assert to_x[place] == pytest.approx((ahead[0] - behind[0]) / (2 * step), rel=1e-6, abs=1e-8)
        assert again[place] == pytest.approx((ahead[2] - behind[2]) / (2 * step), rel=1e-6, abs=1e-7)


def scattering(dtype: DType, axis: int = 0, known: int | None = None) -> Function:
    size = known or symbol("s")
    g = node("g", f"{dtype}[a,n,c]" if axis else f"{dtype}[n,c]")
    i, unused = node("i", "i32[n]"), node("unused", "f32[s]")
    return Function("scatter", [g, i, unused], [ops.scatter_add(g, i, axis=axis, size=size)])


@pytest.mark.parametrize("dtype", [f16, f32, f64, i32, i64])
def test_duplicates_are_summed_in_the_order_of_the_indices(dtype: DType) -> None:
    g, at = (table(500, 37) * 100).astype(dtype.name), places(9, 500)
    wanted = np.zeros((9, 37), g.dtype)
    np.add.at(wanted, at, g)
    np.testing.assert_array_equal(scattering(dtype)([g, at, np.zeros(9, "f")])[0], wanted)


def test_sums_of_few_or_no_rows() -> None:
    scatter = scattering(f32)
    for rows, columns, size in [(0, 3, 2), (4, 0, 2), (3, 1, 1), (5, 2, 1), (0, 0, 0), (0, 3, 0)]:
        g, at = table(rows, columns), np.zeros(rows, np.int32)
        wanted = np.zeros((size, columns), "f")
        wanted[:1] = g.sum(0, dtype="f") if size else 0
        np.testing.assert_allclose(scatter([g, at, np.zeros(size, "f")])[0], wanted, rtol=1e-6)


def test_rows_of_a_later_axis_are_summed() -> None:
    g, at = table(3, 50, 5), places(4, 50)
    wanted = np.zeros((3, 4, 5), "f")
    np.add.at(wanted, (slice(None), at), g)
    np.testing.assert_array_equal(scattering(f32, axis=1)([g, at, np.zeros(4, "f")])[0], wanted)


def embedding() -> Any:
    weights, at = K.placeholder((3000, 64)), K.placeholder((None, 20), dtype="int32")
    taken = K.gather(weights, at)
    return K.function([weights, at], [taken, *K.gradients(K.sum(K.square(taken)), [weights])])


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    function, results = embedding(), []
    for threads in (1, 2, 5):
        set_num_threads(threads)
        results.append(function([table(3000, 64), places(3000, 100, 20)]))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_rows_are_read_and_written_whole() -> None:
    """Lanes lie along a row, whose index is one for all: no gather or scatter instruction."""
    text = embedding().compiled.program.llvm()
    assert "masked.gather" not in text
    assert "masked.scatter" not in text


# Indices that are outside.

class Step:
    """A step of training that looks up rows, counts calls, and has an update that needs no index."""

    def __init__(self) -> None:
        self.weights = K.variable(table(6, 4))
        self.calls = K.variable(0, dtype="int32")
        self.other = K.variable(table(6, 4, seed=2))
        self.at = K.placeholder((None, 2), dtype="int32")
        taken = K.gather(self.weights, self.at)
        loss = K.sum(K.square(taken))
        (gradient,) = K.gradients(loss, [self.weights])
        self.function = K.function([self.at], [loss], updates=[
            (self.weights, self.weights - 0.5 * gradient), K.update_add(self.calls, 1), (self.other, self.weights),
        ])

    def values(self) -> list[Array]:
        return [K.get_value(v) for v in (self.weights, self.calls, self.other)]


@pytest.mark.parametrize(("wrong", "index", "at"), [
    ([[0, 1], [6, -1]], 6, "1, 0"), ([[0, -1]], -1, "0, 1"), ([[5, 2**31 - 1]], 2**31 - 1, "0, 1"),
    ([[-2**31, 0]], -2**31, "0, 0"),
])
def test_an_index_outside_is_an_error_and_no_variable_changes(wrong: list[list[int]], index: int, at: str) -> None:
    step = Step()
    before = step.values()
    with pytest.raises(IndexRangeError) as caught:
        step.function([np.array(wrong)])
    for value, old in zip(step.values(), before, strict=True):
        np.testing.assert_array_equal(value, old)

    assert isinstance(caught.value, TensorcError | IndexError)
    first, second = str(caught.value).splitlines()
    assert first == f"function: K.gather: index {index} at [{at}] is outside an axis of size 6: 0 … 5 are allowed"
    assert second.startswith("  K.gather at test_gather.py:")

    (loss,) = step.function([np.array([[0, 5], [5, 5]])])
    weights = before[0]
    assert loss == pytest.approx((weights[[0, 5, 5, 5]] ** 2).sum())
    wanted = weights.copy()
    wanted[0] -= weights[0]
    wanted[5] -= 3 * weights[5]
    for value, new in zip(step.values(), [wanted, 1, weights], strict=True):
        np.testing.assert_allclose(value, new, rtol=1e-5, atol=1e-6)


def test_the_new_value_of_a_variable_may_be_the_index() -> None:
    """It cannot be computed in place: whether it may be written is known only after it has been computed."""
    at, x = K.variable(2, dtype="int32"), K.constant(table(4, 3))
    function = K.function([], [K.gather(x, at + 1)], updates=[K.update_add(at, 1)])
    np.testing.assert_array_equal(function([])[0], table(4, 3)[3])
    for _ in range(2):
        with pytest.raises(IndexRangeError, match="index 4 is outside an axis of size 4"):
            function([])
        assert K.get_value(at) == 3


def test_variables_exchange_values_or_keep_them() -> None:
    a, b, at = K.variable(table(3)), K.variable(table(3, seed=2)), K.placeholder((1,), dtype="int32")
    function = K.function([at], [K.gather(a, at)], updates=[(a, b), (b, a)])
    with pytest.raises(IndexRangeError):
        function([[3]])
    np.testing.assert_array_equal(K.get_value(a), table(3))
    function([[2]])
    np.testing.assert_array_equal(K.get_value(a), table(3, seed=2))
    np.testing.assert_array_equal(K.get_value(b), table(3))


def test_an_index_computed_in_the_graph_is_checked() -> None:
    x, scores = K.placeholder((None, 3)), K.placeholder((None, None))
    at = K.argmax(scores, axis=-1)
    function = K.function([x, scores], [K.gather(x, at) * 2])
    np.testing.assert_array_equal(function([table(2, 3), np.eye(2)[::-1]])[0], 2 * table(2, 3)[::-1])
    with pytest.raises(IndexRangeError, match=r"index 2 at \[1\] is outside an axis of size 2"):
        function([table(2, 3), np.eye(3)[[0, 2, 1]]])


def test_an_empty_axis_has_no_index() -> None:
    x, at = K.placeholder((None, 3)), K.placeholder((None,), dtype="int32")
    (to_x,) = K.gradients(K.sum(K.gather(x, at)), [x])
    function = K.function([x, at], [K.gather(x, at), to_x])
    with pytest.raises(IndexRangeError, match=r"index 0 at \[0\] is outside an axis of size 0: the axis is empty"):
        function([np.zeros((0, 3)), [0]])
    taken, to_x = function([np.zeros((0, 3)), np.zeros(0)])
    assert taken.shape == to_x.shape == (0, 3)


def test_the_first_of_many_offending_indices_is_told() -> None:
    at = places(10, 200_000, dtype="int64")
    at[[150_001, 70_007]] = [12, 11]
    x, i = K.placeholder((10,)), K.placeholder((None,), dtype="int64")
    with pytest.raises(IndexRangeError, match=r"index 11 at \[70007\]"):
        K.function([x, i], [K.gather(x, i)])([table(10), at])


def test_each_call_of_gather_names_its_own_line() -> None:
    x, y, i = K.placeholder((3, 2)), K.placeholder((2, 2)), K.placeholder((2,), dtype="int32")
    both = [K.gather(x, i), K.gather(y, i)]
    function = K.function([x, y, i], both)
    with pytest.raises(IndexRangeError, match="outside an axis of size 2"):
        function([table(3, 2), table(2, 2), [2, 0]])
    with pytest.raises(IndexRangeError, match="outside an axis of size 3"):
        function([table(3, 2), table(2, 2), [2, 3]])


def test_one_check_serves_a_gather_and_its_gradient() -> None:
    step = Step()
    checks = [n for n in step.function.compiled.graph.nodes if n.op.name == "check"]
    assert len(checks) == 1


def test_indices_that_are_known_are_checked_when_the_program_is_made() -> None:
    inside, outside = (K.gather(K.constant(table(3)), K.constant(at, dtype="int32")) for at in ([0, 2], [0, 3]))
    assert not [n for n in K.function([], [inside]).compiled.graph.nodes if n.op.name == "check"]
    with pytest.raises(IndexRangeError, match="index 3"):
        K.eval(outside)


def test_kernels_read_nothing_foreign_whatever_the_indices() -> None:
    """Without checks, the nearest row takes the place of the one that is not there."""
    x, i = node("x", "f32[a,b]"), node("i", "i64[n]")
    rows = ops.gather(x, i, axis=0)
    graph_without_checks = Function("f", [x, i], [rows, ops.scatter_add(rows, i, axis=0, size=symbol("a"))])
    binding = graph_without_checks._variant(frozenset())
    binding._effects = None

    at = np.array([-2**62, 2**62, 1])
    taken, back, first, index = binding.run([table(3, 2), at], {"a": 3, "b": 2, "n": 3})
    np.testing.assert_array_equal(taken, table(3, 2)[[0, 2, 1]])
    np.testing.assert_array_equal(back, table(3, 2)[[0, 1, 2]])
    assert (first, index) == (0, -2**62)
    assert first != NONE
