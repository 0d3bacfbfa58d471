"""Sparse tensors: against SciPy, with gradients by finite differences, for any number of entries and of threads."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse

from tensorc import backend as K
from tensorc.errors import ArgumentError, DTypeError, ShapeError
from tensorc.runtime.threads import num_threads, set_num_threads

ROWS, COLUMNS = 23, 17


def matrix(rows=ROWS, columns=COLUMNS, density=0.2, seed=0, dtype="float32"):
    """Random entries, and the second row empty."""
    generator = np.random.default_rng(seed)
    dense = generator.normal(size=(rows, columns)) * (generator.random((rows, columns)) < density)
    dense[1:2] = 0
    return scipy.sparse.csr_matrix(dense.astype(dtype))


def numbers(*shape, seed=1, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def close(got, want, tolerance=2e-5):
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.fixture
def float64():
    before = K.floatx()
    K.set_floatx("float64")
    yield
    K.set_floatx(before)


class TestValues:
    @pytest.mark.parametrize("n", [1, 3, 16, 40, 300])
    def test_products_with_fed_matrices(self, n):
        x, w = K.placeholder((None, COLUMNS), sparse=True), K.placeholder((COLUMNS, n))
        f = K.function([x, w], [K.dot(x, w)])
        for m in matrix(), matrix(rows=2), matrix(rows=1, density=1), matrix(density=0), matrix(rows=0):
            dense = numbers(COLUMNS, n)
            close(f([m, dense])[0], m @ dense)

    @pytest.mark.parametrize("kind", ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"])
    def test_formats(self, kind):
        m, w = matrix(), numbers(COLUMNS, 4)
        x = K.placeholder((None, COLUMNS), sparse=True)
        close(K.function([x], [K.dot(x, K.constant(w))])([m.asformat(kind)])[0], m @ w)
        close(K.eval(K.variable(m.asformat(kind))), m.toarray())
        close(K.eval(K.variable(scipy.sparse.csr_array(m).asformat(kind))), m.toarray())

    def test_repeated_entries_are_summed_and_the_users_matrix_stays(self):
        given = scipy.sparse.csr_matrix((np.float32([1, 2, 4]), [3, 0, 3], [0, 3, 3]), shape=(2, 5))
        assert K.eval(K.variable(given)).tolist() == [[2, 0, 0, 5, 0], [0] * 5]
        assert given.data.tolist() == [1, 2, 4]

    def test_unknown_rows_and_columns(self):
        x, w = K.placeholder(ndim=2, sparse=True), K.placeholder((None, 3))
        f = K.function([x, w], [K.dot(x, w), K.to_dense(x), K.shape(x)])
        for m in matrix(), matrix(5, 40, seed=3), matrix(1, 1, density=1), matrix(0, 4):
            w_ = numbers(m.shape[1], 3)
            product, dense, shape = f([m, w_])
            close(product, m @ w_)
            close(dense, m.toarray())
            assert shape.tolist() == list(m.shape)

    def test_dense_arrays_are_fed_too(self):
        x = K.placeholder((None, 3), sparse=True)
        given = np.float32([[0, 2, 0], [0, 0, 0], [np.nan, 0, -1]])
        f = K.function([x], [K.to_dense(x), K.dot(x, K.constant(np.ones((3, 1), "float32")))])
        dense, summed = f([given])
        np.testing.assert_array_equal(dense, given)
        np.testing.assert_array_equal(summed, [[2], [0], [np.nan]])
        assert f([[[1, 0, 0]]])[1].tolist() == [[1]]

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32"])
    def test_dtypes(self, dtype):
        m = scipy.sparse.csr_matrix(np.round(matrix().toarray() * 4))
        w = np.round(numbers(COLUMNS, 5) * 4).astype(dtype)
        got = K.eval(K.dot(K.variable(m, dtype=dtype), K.variable(w, dtype=dtype)))
        assert got.dtype == dtype
        assert got.tolist() == (m.toarray() @ w.astype("float64")).tolist()

    def test_operands_promote(self):
        m, w = matrix(), numbers(COLUMNS, 2, dtype="float64")
        got = K.eval(K.dot(K.variable(m), K.variable(w, dtype="float64")))
        assert got.dtype == "float64"
        close(got, m @ w)
        assert K.dtype(K.cast(K.variable(m), "float64")) == "float64"
        assert K.is_sparse(K.cast(K.variable(m), "float64"))

    def test_dense_operands_of_any_rank(self):
        m, w = matrix(), numbers(4, COLUMNS, 5)
        close(K.eval(K.dot(K.variable(m), K.variable(w))), np.dot(m.toarray(), w))

    def test_what_follows_a_product(self):
        m, w, b = matrix(), numbers(COLUMNS, 6), numbers(6)
        x = K.placeholder((None, COLUMNS), sparse=True)
        f = K.function([x], [K.relu(K.bias_add(K.dot(x, K.constant(w)), K.constant(b)))])
        close(f([m])[0], np.maximum(m @ w + b, 0))


class TestConcatenation:
    @pytest.mark.parametrize("axis", [0, 1, -1])
    def test_of_sparse_tensors_is_sparse(self, axis):
        first, second = matrix(), matrix(seed=5)
        x, v = K.placeholder((None, COLUMNS), sparse=True), K.variable(second)
        both = K.concatenate([x, v], axis=axis)
        want = (scipy.sparse.vstack if axis == 0 else scipy.sparse.hstack)([first, second]).tocsr()
        assert K.is_sparse(both)
        assert K.int_shape(both) == ((None, COLUMNS) if axis == 0 else (ROWS, 2 * COLUMNS))
        w = numbers(want.shape[1], 3)
        product, dense = K.function([x], [K.dot(both, K.constant(w)), K.to_dense(both)])([first])
        close(product, want @ w)
        close(dense, want.toarray())

    def test_within_concatenations(self):
        m = matrix(4, 3, density=0.5)
        v = K.variable(m)
        block = K.concatenate([K.concatenate([v, v], axis=1), K.concatenate([v, v], axis=1)], axis=0)
        want = scipy.sparse.bmat([[m, m], [m, m]])
        close(K.eval(block), want.toarray())
        w = numbers(6, 2)
        close(K.eval(K.dot(block, K.constant(w))), want @ w)

    def test_with_a_dense_tensor_is_dense(self):
        m = matrix()
        both = K.concatenate([K.variable(m), K.variable(m.toarray())], axis=0)
        assert not K.is_sparse(both)
        close(K.eval(both), np.concatenate([m.toarray()] * 2))

    def test_sizes_that_differ(self):
        x, y = K.placeholder((None, 3), sparse=True), K.placeholder((None, 3), sparse=True)
        with pytest.raises(ShapeError, match=r"K\.concatenate"):
            K.concatenate([x, K.variable(matrix())], axis=0)
        f = K.function([x, y], [K.dot(K.concatenate([x, y], axis=1), K.constant(numbers(6, 2)))])
        for rows in (5, 4), (5, 1), (1, 5):
            with pytest.raises(ShapeError):
                f([matrix(n, 3) for n in rows])


class TestVariables:
    def test_is_what_it_says(self):
        v = K.variable(matrix(), name="v")
        x = K.placeholder((None, 3), sparse=True)
        questions = K.is_sparse, K.is_tensor, K.is_variable, K.is_placeholder
        assert [asked(v) for asked in questions] == [True, True, True, False]
        assert [asked(x) for asked in questions] == [True, True, False, True]
        assert K.int_shape(v) == (ROWS, COLUMNS)
        assert (K.int_shape(x), K.ndim(x), K.dtype(x)) == ((None, 3), 2, "float32")
        assert not K.is_sparse(K.to_dense(v))
        assert not K.is_sparse(K.variable(matrix().toarray()))
        assert K.is_sparse(K.identity(v))
        assert K.eval(K.shape(v)).tolist() == [ROWS, COLUMNS]
        assert K.eval(K.size(v)) == ROWS * COLUMNS

    def test_values_go_in_and_out(self):
        first, second = matrix(), matrix(seed=9, density=0.7)
        v, w = K.variable(first), K.variable(np.zeros((ROWS, COLUMNS)))
        f = K.function([], [K.dot(v, K.constant(np.eye(COLUMNS, dtype="float32")))])
        for value in second, second.tocoo(), second.toarray(), matrix(density=0), first:
            dense = value.toarray() if scipy.sparse.issparse(value) else value
            K.set_value(v, value)
            assert K.get_value(v).tolist() == K.eval(v).tolist() == dense.tolist()
            assert f([])[0].tolist() == dense.tolist()
            K.batch_set_value([(v, second), (w, value)])
            assert [x.tolist() for x in K.batch_get_value([v, w])] == [second.toarray().tolist(), dense.tolist()]
        assert f.compiled.compilations == 1

    def test_may_be_overridden(self):
        v, u = K.variable(matrix()), K.variable(matrix(seed=2))
        w = numbers(COLUMNS, 2)
        f = K.function([v], [K.dot(v, K.constant(w)), K.dot(u, K.constant(w))])
        other = matrix(seed=7, density=0.5)
        a, b = f([other])
        close(a, other @ w)
        close(b, matrix(seed=2) @ w)
        close(K.eval(v), matrix().toarray())

    def test_gives_a_dense_variable_its_first_value(self):
        m = matrix()
        close(K.eval(K.variable(K.to_dense(K.variable(m)) * 2)), m.toarray() * 2)

    def test_no_value_that_does_not_fit(self):
        v = K.variable(matrix(), name="features")
        before = K.get_value(v)
        with pytest.raises(ShapeError, match=r"variable features has shape \(23, 17\), the value has shape \(2, 17\)"):
            K.set_value(v, matrix(rows=2))
        with pytest.raises(DTypeError, match="complex"):
            K.set_value(v, before.astype("complex64"))
        with pytest.raises(ShapeError):
            K.batch_set_value([(v, matrix(seed=4)), (v, matrix(rows=2))])
        assert K.get_value(v).tolist() == before.tolist()


class TestGradients:
    def difference(self, loss, value, step=1e-6):
        """The gradient of loss(array) by central differences."""
        found = np.zeros_like(value)
        for place in np.ndindex(*value.shape):
            moved = [value.copy(), value.copy()]
            moved[0][place] += step
            moved[1][place] -= step
            found[place] = (loss(moved[0]) - loss(moved[1])) / (2 * step)
        return found

    @pytest.mark.parametrize("axis", [None, 0, 1])
    def test_in_both_operands(self, axis, float64):
        m = matrix(6, 5, density=0.4, dtype="float64")
        dense = numbers(10 if axis == 1 else 5, 3, dtype="float64")
        x, w = K.placeholder((None, 5), sparse=True), K.placeholder(dense.shape)
        whole = x if axis is None else K.concatenate([x, x], axis=axis)
        loss = K.sum(K.tanh(K.dot(whole, w)))
        f = K.function([x, w], [loss, *K.gradients(loss, [x, w])])

        _, to_x, to_w = f([m, dense])
        close(to_w, self.difference(lambda a: f([m, a])[0], dense), 1e-7)
        pattern = m.toarray() != 0
        want = self.difference(lambda a: f([scipy.sparse.csr_matrix(a * pattern), dense])[0], m.toarray())
        close(to_x, want * pattern, 1e-7)
        assert not to_x[~pattern].any()

    def test_in_a_variable_are_sparse(self):
        m, w = matrix(), numbers(COLUMNS, 4)
        v = K.variable(m)
        grad, = K.gradients(K.sum(K.dot(v, K.constant(w))), [v])
        assert K.is_sparse(grad)
        close(K.eval(grad), np.tile(w.sum(1), (ROWS, 1)) * (m.toarray() != 0))

    def test_through_to_dense(self):
        m, w = matrix(), numbers(ROWS, COLUMNS)
        v = K.variable(m)
        grad, = K.gradients(K.sum(K.to_dense(v) * K.constant(w)), [v])
        close(K.eval(grad), w * (m.toarray() != 0))

    def test_of_gradients(self, float64):
        m, dense = matrix(4, 5, density=0.4, dtype="float64"), numbers(5, 2, dtype="float64")
        x, w = K.placeholder((None, 5), sparse=True), K.placeholder((5, 2))
        first, = K.gradients(K.sum(K.square(K.dot(x, w))), [w])
        loss = K.sum(K.square(first))
        f = K.function([x, w], [loss, *K.gradients(loss, [w])])
        close(f([m, dense])[1], self.difference(lambda a: f([m, a])[0], dense), 1e-5)

    def test_none_without_a_path(self):
        v = K.variable(matrix())
        assert K.gradients(K.sum(K.variable([1.0])), [v]) == [None]

    def test_descent(self):
        m, target = matrix(200, 8, density=0.5), numbers(8, 2)
        x, w = K.placeholder((None, 8), sparse=True), K.variable(np.zeros((8, 2)))
        loss = K.mean(K.square(K.dot(x, w) - K.dot(x, K.constant(target))))
        grad, = K.gradients(loss, [w])
        step = K.function([x], [loss], updates=[(w, w - 1.0 * grad)])
        for _ in range(120):
            step([m])
        close(K.get_value(w), target, 1e-3)


def test_one_program_for_any_number_of_entries_and_rows():
    x, w = K.placeholder((None, COLUMNS), sparse=True), K.variable(numbers(COLUMNS, 3))
    loss = K.sum(K.square(K.dot(x, w)))
    f = K.function([x], [loss, *K.gradients(loss, [w])])
    for seed in range(20):
        m = matrix(2 + 7 * seed, seed=seed, density=seed / 20)
        product = m @ K.get_value(w)
        got, grad = f([m])
        np.testing.assert_allclose(got, (product ** 2).sum(), rtol=1e-4)
        close(grad, 2 * m.T @ product, 1e-3)
    assert f.compiled.compilations == 1


@pytest.mark.parametrize("n", [1, 5, 64])
def test_bits_are_the_same_for_any_number_of_threads(n):
    m = scipy.sparse.random(3000, 400, density=0.02, format="csr", dtype=np.float32, random_state=0)
    x, w = K.placeholder((None, 400), sparse=True), K.variable(numbers(400, n))
    y = K.dot(x, w)
    f = K.function([x], [y, K.to_dense(x), *K.gradients(K.sum(K.square(y)), [w, x])])
    before = num_threads()
    try:
        found = []
        for threads in 1, 2, 3, 8:
            set_num_threads(threads)
            found.append([a.tobytes() for a in f([m])])
    finally:
        set_num_threads(before)
    assert all(other == found[0] for other in found)


class TestErrors:
    @pytest.mark.parametrize("call", [
        "K.sum(x)", "K.transpose(x)", "K.relu(x)", "x + 1", "x[0]", "K.dot(y, x)", "K.dot(x, x)", "y @ x",
        "K.concatenate([x, y], 0) * x", "K.stack([x, x])", "K.switch(True, x, x)", "K.update(w, x)",
    ])
    def test_functions_of_dense_tensors_name_to_dense(self, call):
        names = {"K": K, "x": K.placeholder((5, 5), sparse=True, name="features"), "y": K.placeholder((5, 5)),
                 "w": K.variable(np.eye(5))}
        with pytest.raises(ArgumentError, match=r"K\.to_dense") as caught:
            eval(call, names)
        assert "sparse float32 (5, 5)" in str(caught.value)

    def test_the_whole_text(self):
        x = K.placeholder((None, 5), sparse=True, name="features")
        with pytest.raises(ArgumentError) as caught:
            K.sum(x)
        lines = str(caught.value).splitlines()
        assert lines[0] == "K.sum: takes no sparse tensor"
        assert "sparse float32 (features" in lines[1]
        assert lines[2].startswith("  K.to_dense(x) is the dense tensor of the same values")
        assert "test_sparse.py" in lines[-1]

    def test_updates(self):
        v = K.variable(matrix())
        with pytest.raises(ArgumentError, match=r"K\.update: a sparse tensor cannot be updated\n(.*\n)*.*K\.set_value"):
            K.update(v, K.constant(matrix().toarray()))

    def test_shapes(self):
        x = K.placeholder((None, 5), sparse=True, name="features")
        with pytest.raises(ShapeError, match=r"K\.dot: the inner sizes differ, 5 and 4"):
            K.dot(x, K.placeholder((4, 2)))
        with pytest.raises(ShapeError, match=r"K\.placeholder: a sparse placeholder has two axes, not 3"):
            K.placeholder((None, 2, 3), sparse=True)
        f = K.function([x], [K.to_dense(x)], name="f")
        with pytest.raises(ShapeError, match=r"f: the value for input features.* \(2, 4\).*\(None, 5\)"):
            f([matrix(2, 4)])
        with pytest.raises(ShapeError, match=r"f: the value for input features.* has shape \(5,\)"):
            f([np.zeros(5)])

    def test_inner_sizes_of_a_call(self):
        x, w = K.placeholder(ndim=2, sparse=True), K.placeholder((None, 2))
        f = K.function([x, w], [K.dot(x, w)])
        for rows in 3, 1, 0:
            with pytest.raises(ShapeError):
                f([matrix(4, 5), numbers(rows, 2)])

    def test_values(self):
        x = K.placeholder((None, 3), sparse=True, dtype="int32")
        f = K.function([x], [K.to_dense(x)], name="f")
        with pytest.raises(DTypeError, match="f: the value for input"):
            f([scipy.sparse.csr_matrix([[0.5, 0, 0]])])
        with pytest.raises(DTypeError, match="f: the value for input"):
            f([np.array([["a", "b", "c"]])])

    @pytest.mark.parametrize(("indices", "indptr"), [([0, 3], [0, 1, 2]), ([0, -1], [0, 1, 2]), ([0, 1], [0, 2, 1]),
                                                     ([0, 1], [0, 1, 9]), ([0, 1], [1, 1, 2])])
    def test_damaged_matrices_are_refused(self, indices, indptr):
        damaged = scipy.sparse.csr_matrix((np.ones(2, "float32"), np.int32([0, 1]), np.int32([0, 1, 2])), shape=(2, 3))
        assert damaged.has_canonical_format
        damaged.indices[:], damaged.indptr[:] = indices, indptr
        x = K.placeholder((None, 3), sparse=True)
        with pytest.raises(ArgumentError, match="is no valid matrix"):
            K.function([x], [K.to_dense(x)])([damaged])

    def test_what_is_not_fed(self):
        x, y = K.placeholder((2, 3), sparse=True, name="features"), K.placeholder((3, 2))
        with pytest.raises(ArgumentError, match="features"):
            K.function([y], [K.dot(x, y)])
        with pytest.raises(ArgumentError, match="only placeholders and variables are fed"):
            K.function([K.concatenate([x, x])], [y])


def test_scipy_is_imported_by_users_alone():
    text = ("import sys; from tensorc import backend as K; x = K.placeholder((None, 2), sparse=True);"
            "print(K.function([x], [K.dot(x, K.constant([[1.], [2.]]))])([[[0, 3.]]]), 'scipy' in sys.modules)")
    told = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[array([[6.]], dtype=float32)] False"
