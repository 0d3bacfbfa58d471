"""The meaning of each K function, held against NumPy."""

import numpy as np
import pytest
from scipy import special

from tensorc import backend as K
from tensorc.backend.variables import first_value

RNG = np.random.default_rng(7)
X = RNG.normal(size=(4, 3, 5)).astype("float32")
Y = RNG.normal(size=(4, 3, 5)).astype("float32")
POSITIVE = (abs(X) + 0.1).astype("float32")
IMAGE = RNG.normal(size=(2, 3, 4, 5)).astype("float32")
MATRIX = RNG.normal(size=(5, 6)).astype("float32")
VECTOR = RNG.normal(size=5).astype("float32")
TIES = np.array([[1, 3, 3], [2, 2, 0]], np.float32)
INTS = np.array([[3, -2, 0], [7, 4, -5]], np.int32)
BOOLS = np.array([[True, False], [True, True]])
ARRAYS = {"x": X, "y": Y, "p": POSITIVE, "image": IMAGE, "matrix": MATRIX, "vector": VECTOR, "ties": TIES,
          "ints": INTS, "bools": BOOLS}


def softmax(x, axis=-1):
    return special.softmax(x, axis=axis)


def enlarged(x, factors, axes):
    """Bilinear, the definition: the value at i / factor, between the two neighbours."""
    for factor, axis in zip(factors, axes, strict=True):
        place = np.arange(x.shape[axis] * factor) / factor
        low = place.astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        weight = (place - low).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        x = x.take(low, axis) * (1 - weight) + x.take(high, axis) * weight
    return x


CASES = {
    # expression over K: the same over NumPy
    "K.square(x)": X ** 2,
    "K.abs(ints)": abs(INTS),
    "K.sqrt(x)": np.sqrt(np.maximum(X, 0)),
    "K.exp(x)": np.exp(X),
    "K.log(p)": np.log(POSITIVE),
    "K.round(x * 3)": np.rint(X * 3),
    "K.round(K.constant([0.5, 1.5, -2.5]))": np.array([0, 2, -2]),
    "K.sign(ints)": np.sign(INTS),
    "K.sin(x)": np.sin(X),
    "K.cos(x)": np.cos(X),
    "K.pow(p, 3)": POSITIVE ** 3,
    "K.pow(p, y)": POSITIVE ** Y,
    "K.clip(x, -0.5, 0.7)": np.clip(X, -0.5, 0.7),
    "K.clip(x, None, 0.2)": np.minimum(X, 0.2),
    "K.clip(x, 0.2, None)": np.maximum(X, 0.2),
    "K.clip(x, 0.5, 0.1)": np.full_like(X, 0.5),
    "K.clip(x, y, y + 1)": np.clip(X, Y, Y + 1),
    "K.clip(ints, None, 2)": np.minimum(INTS, 2),
    "K.equal(ints, 4)": INTS == 4,
    "K.not_equal(ints, 4)": INTS != 4,
    "K.lesser_equal(ints, 3)": INTS <= 3,
    "K.maximum(x, 0.1)": np.maximum(X, 0.1),
    "K.sum(x)": X.sum(),
    "K.sum(x, axis=[0, -1])": X.sum((0, 2)),
    "K.sum(x, axis=(2, 0), keepdims=True)": X.sum((0, 2), keepdims=True),
    "K.prod(x, axis=np.int64(1))": X.prod(1),
    "K.max(x, axis=1, keepdims=True)": X.max(1, keepdims=True),
    "K.min(x)": X.min(),
    "K.mean(ints, axis=0)": np.trunc(INTS.mean(0)),
    "K.mean(bools)": 0.75,
    "K.var(x, axis=-1)": X.var(-1),
    "K.var(bools, axis=0)": BOOLS.var(0),
    "K.std(x, axis=[0, 1])": X.std((0, 1)),
    "K.any(ints, axis=1)": INTS.any(1),
    "K.all(ints, axis=1)": INTS.all(1),
    "K.argmax(ties)": np.array([1, 0]),
    "K.argmin(ties, axis=0)": TIES.argmin(0),
    "K.cumsum(x, axis=-1)": X.cumsum(-1),
    "K.cumprod(x)": X.cumprod(0),
    "K.logsumexp(x * 300, axis=1)": special.logsumexp(X.astype("float64") * 300, axis=1),
    "K.logsumexp(x, keepdims=True)": special.logsumexp(X, keepdims=True),
    "K.l2_normalize(x, axis=1)": X / np.sqrt((X ** 2).sum(1, keepdims=True)),
    "K.l2_normalize(x * 0)": X * 0,
    "K.dot(x, matrix)": X @ MATRIX,
    "K.dot(vector, matrix)": VECTOR @ MATRIX,
    "K.batch_dot(x, y, axes=2)": np.einsum("bik,bjk->bij", X, Y),
    "K.batch_dot(x, K.permute_dimensions(y, (0, 2, 1)))": X @ Y.transpose(0, 2, 1),
    "K.batch_dot(x[:, 0], y[:, 1])": (X[:, 0] * Y[:, 1]).sum(1, keepdims=True),
    "K.batch_dot(image, image, axes=(1, 1))": np.einsum("bkij,bkmn->bijmn", IMAGE, IMAGE),
    "K.transpose(x)": X.T,
    "K.permute_dimensions(x, (1, 2, 0))": X.transpose(1, 2, 0),
    "K.concatenate([x, y], axis=-2)": np.concatenate([X, Y], -2),
    "K.stack([x, y], axis=-1)": np.stack([X, Y], -1),
    "K.reshape(x, (5, -1))": X.reshape(5, -1),
    "K.flatten(x)": X.reshape(-1),
    "K.batch_flatten(x)": X.reshape(4, -1),
    "K.expand_dims(x, 1)": X[:, None],
    "K.squeeze(K.expand_dims(x), -1)": X,
    "K.tile(x, 2)": np.tile(X, 2),
    "K.tile(x, [2, 1, 3])": np.tile(X, (2, 1, 3)),
    "K.repeat(matrix, 3)": np.repeat(MATRIX[:, None], 3, 1),
    "K.repeat_elements(x, 3, -2)": np.repeat(X, 3, 1),
    "K.reverse(x, [0, -1])": X[::-1, :, ::-1],
    "K.reverse(x, 1)": X[:, ::-1],
    "K.slice(x, [1, 0, 2], [2, 3, -1])": X[1:3, :, 2:],
    "K.arange(3)": np.arange(3),
    "K.arange(7, 2, -2)": np.arange(7, 2, -2),
    "K.arange(-4)": np.arange(0),
    "K.arange(0.0, 1.0, 0.3)": np.arange(0.0, 1.0, 0.3),
    "K.one_hot(ints, 5)": (INTS[..., None] == np.arange(5)) * 1.0,
    "K.eye(3)": np.eye(3),
    "K.eye((2, 4))": np.eye(2, 4),
    "K.ones_like(x) + K.zeros_like(x)": np.ones_like(X),
    "K.constant(3, shape=(2, 2))": np.full((2, 2), 3.0),
    "K.constant([1, 2, 3, 4], shape=(2, 2))": np.array([[1, 2], [3, 4]]),
    "K.cast(x, 'bool')": X != 0,
    "K.cast(x * 9, 'int16')": np.trunc(X * 9),
    "K.temporal_padding(x, (2, 1))": np.pad(X, ((0, 0), (2, 1), (0, 0))),
    "K.temporal_padding(x, 2)": np.pad(X, ((0, 0), (2, 2), (0, 0))),
    "K.asymmetric_temporal_padding(x, 0, 3)": np.pad(X, ((0, 0), (0, 3), (0, 0))),
    "K.spatial_2d_padding(image, ((1, 0), (2, 3)))": np.pad(IMAGE, ((0, 0), (1, 0), (2, 3), (0, 0))),
    "K.spatial_2d_padding(image, (1, 2), 'channels_first')": np.pad(IMAGE, ((0, 0), (0, 0), (1, 1), (2, 2))),
    "K.spatial_3d_padding(K.expand_dims(image, 1), ((0, 1), (1, 1), (0, 0)))":
        np.pad(IMAGE[:, None], ((0, 0), (0, 1), (1, 1), (0, 0), (0, 0))),
    "K.resize_images(image, 2, 3, 'channels_last')": IMAGE.repeat(2, 1).repeat(3, 2),
    "K.resize_images(image, 2, 3, 'channels_first')": IMAGE.repeat(2, 2).repeat(3, 3),
    "K.resize_images(image, 2, 3, 'channels_last', 'bilinear')": enlarged(IMAGE, (2, 3), (1, 2)),
    "K.resize_images(image, 3, 1, 'channels_first', 'bilinear')": enlarged(IMAGE, (3, 1), (2, 3)),
    "K.resize_volumes(K.expand_dims(image, 1), 2, 1, 2, 'channels_last')":
        IMAGE[:, None].repeat(2, 1).repeat(2, 3),
    "K.switch(K.constant(True, 'bool'), x, y)": X,
    "K.switch(x > 0, x, y)": np.where(X > 0, X, Y),
    "K.switch(x[:, 0, 0] > 0, lambda: x, lambda: y)": np.where(X[:, :1, :1] > 0, X, Y),
    "K.relu(x)": np.maximum(X, 0),
    "K.relu(x, alpha=0.2)": np.where(X > 0, X, 0.2 * X),
    "K.relu(x, max_value=0.5)": np.clip(X, 0, 0.5),
    "K.relu(x, alpha=0.2, max_value=0.8, threshold=0.3)":
        np.where(X > 0.3, np.minimum(X, 0.8), 0.2 * (X - 0.3)),
    "K.elu(x, 1.3)": np.where(X > 0, X, 1.3 * np.expm1(X)),
    "K.softmax(x, axis=1)": softmax(X, 1),
    "K.softplus(x)": np.logaddexp(X, 0),
    "K.softsign(x)": X / (1 + abs(X)),
    "K.sigmoid(x)": special.expit(X),
    "K.hard_sigmoid(x)": np.clip(0.2 * X + 0.5, 0, 1),
    "K.tanh(x)": np.tanh(X),
    "K.batch_normalization(x, vector, vector ** 2, vector, vector, -1, 0.1)":
        (X - VECTOR) / np.sqrt(VECTOR ** 2 + 0.1) * VECTOR + VECTOR,
    "K.batch_normalization(x, vector, vector ** 2, None, None, 0.1)": (X - VECTOR) / np.sqrt(VECTOR ** 2 + 0.1),
    "K.batch_normalization(x, vector[:3], vector[:3] ** 2, None, None, axis=1)":
        (X - VECTOR[:3, None]) / np.sqrt(VECTOR[:3, None] ** 2 + 1e-3),
    "K.normalize_batch_in_training(x, None, None, [0, 1])[0]": (X - X.mean((0, 1))) / np.sqrt(X.var((0, 1)) + 1e-3),
    "K.normalize_batch_in_training(x, vector[:3], vector[:3], [0, 2])[0]":
        (X - X.mean((0, 2), keepdims=True)) / np.sqrt(X.var((0, 2), keepdims=True) + 1e-3)
        * VECTOR[:3, None] + VECTOR[:3, None],
    "K.normalize_batch_in_training(x, None, None, [0, 1])[2]": X.var((0, 1)),
    "K.bias_add(x, vector)": X + VECTOR,
    "K.bias_add(x, vector[:3], 'channels_first')": X + VECTOR[:3, None],
    "K.bias_add(image, image[0])": IMAGE + IMAGE[0],
    "K.bias_add(image, K.reshape(image[0], (4, 5, 3)), 'channels_first')": IMAGE + IMAGE[0].reshape(1, 3, 4, 5),
    "K.in_top_k(ties, K.constant([1, 0], 'int32'), 1)": np.array([True, True]),
    "K.in_top_k(ties, K.constant([0, 2], 'int32'), 2)": np.array([False, False]),
    "K.stop_gradient([x, y])[1]": Y,
    "K.in_train_phase(lambda: x, y, training=True)": X,
    "K.in_test_phase(x, y, training=0)": X,
}


@pytest.fixture(scope="module")
def variables():
    return {name: K.variable(array, dtype=array.dtype) for name, array in ARRAYS.items()}


def close(got, expected):
    np.testing.assert_allclose(got.astype("float64"), np.asarray(expected, "float64"), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("text", CASES)
def test_meaning(text, variables):
    result = eval(text, {"K": K, "np": np, **variables})
    got = first_value(result)
    close(got, CASES[text])
    assert got.shape == np.shape(CASES[text]) == result.shape
    assert got.dtype == result.dtype


def test_the_compiled_functions_agree(variables):
    """All cases in one program: the references above are also what native code computes."""
    names = list(ARRAYS)
    placeholders = {n: K.placeholder(ARRAYS[n].shape, dtype=ARRAYS[n].dtype, name=n) for n in names}
    outputs = [eval(text, {"K": K, "np": np, **placeholders}) for text in CASES]
    results = K.function([placeholders[n] for n in names], outputs)([ARRAYS[n] for n in names])
    for text, got in zip(CASES, results, strict=True):
        try:
            close(got, CASES[text])
        except AssertionError as error:
            pytest.fail(f"{text}: {error}")


def test_result_dtypes(variables):
    x, ints = variables["x"], variables["ints"]
    assert K.argmax(x).dtype == "int64"
    assert K.any(x).dtype == K.equal(x, 1).dtype == K.in_top_k(x[0], K.constant([0, 0, 0], "int32"), 1).dtype == "bool"
    assert K.one_hot(ints, 3).dtype == "float32"
    assert K.arange(3).dtype == "int32"
    assert K.mean(ints).dtype == "int32"
    assert K.sum(ints).dtype == "int32"


class TestCrossEntropies:
    target = np.array([[0, 1, 0], [0.5, 0.25, 0.25]], np.float32)
    logits = np.array([[1, 2, -1], [0, 40, -40]], np.float32)
    ids = np.array([1, 2], np.int32)

    def value(self, x):
        return first_value(x)

    def test_of_logits(self):
        expected = -(self.target * special.log_softmax(self.logits, -1)).sum(-1)
        t, x = K.variable(self.target), K.variable(self.logits)
        close(self.value(K.categorical_crossentropy(t, x, from_logits=True)), expected)
        close(self.value(K.categorical_crossentropy(t, K.softmax(x))), expected)

    def test_probabilities_are_renormalised_and_cut(self):
        output = np.array([[2, 6, 0], [1, 0, 3]], np.float32)
        p = np.clip(output / output.sum(-1, keepdims=True), 1e-7, 1 - 1e-7)
        got = self.value(K.categorical_crossentropy(K.variable(self.target), K.variable(output)))
        close(got, -(self.target * np.log(p)).sum(-1))

    def test_another_axis(self):
        t, x = K.variable(self.target.T), K.variable(self.logits.T)
        expected = -(self.target * special.log_softmax(self.logits, -1)).sum(-1)
        close(self.value(K.categorical_crossentropy(t, K.softmax(x, axis=0), axis=0)), expected)

    def test_a_softmax_of_other_axes_counts_as_probabilities(self):
        x = K.variable(self.logits)
        loss = K.categorical_crossentropy(K.variable(self.target), K.softmax(x, axis=0))
        assert "clip" in {n.op.name for n in everything(loss)}

    def test_sparse(self):
        x = K.variable(self.logits)
        expected = -special.log_softmax(self.logits, -1)[[0, 1], self.ids]
        for ids in self.ids, self.ids[:, None], self.ids.astype("float32"):
            close(self.value(K.sparse_categorical_crossentropy(K.constant(ids, ids.dtype), K.softmax(x))), expected)
        close(self.value(K.sparse_categorical_crossentropy(K.constant(self.ids, "int32"), x, True)), expected)
        p = np.array([[0.2, 0.5, 0.1], [0.3, 0.3, 0.0]], np.float32)
        cut = np.clip(p, 1e-7, 1 - 1e-7)
        close(self.value(K.sparse_categorical_crossentropy(K.constant(self.ids, "int32"), K.variable(p))),
              -np.log(cut[[0, 1], self.ids] / cut.sum(-1)))

    def test_binary(self):
        t, x = K.variable(self.target), K.variable(self.logits)
        expected = np.logaddexp(0, self.logits) - self.logits * self.target
        close(self.value(K.binary_crossentropy(t, x, from_logits=True)), expected)
        close(self.value(K.binary_crossentropy(t, K.sigmoid(x))), expected)
        p = np.array([[0, 1, 0.3], [0.5, 0.7, 1]], np.float32)
        q = np.clip(p, np.float32(1e-7), np.float32(1 - 1e-7))
        close(self.value(K.binary_crossentropy(t, K.variable(p))),
              -(self.target * np.log(q) + (1 - self.target) * np.log(1 - q)))

    def test_ranks_must_fit(self):
        with pytest.raises(ValueError, match="target has 1 axes, output 2"):
            K.categorical_crossentropy(K.placeholder((3,)), K.placeholder((2, 3)))


def everything(tensor):
    from tensorc.ir.graph import postorder
    return postorder([tensor.node])


class TestRandom:
    def test_equal_seeds_give_equal_numbers_and_calls_move_on(self):
        first, second = (K.function([], [K.random_normal((3,), seed=5)]) for _ in range(2))
        one, two = first([])[0], first([])[0]
        assert (one == second([])[0]).all()
        assert (one != two).all()

    def test_seeds_come_from_numpy(self):
        draws = []
        for _ in range(2):
            np.random.seed(3)
            draws.append(K.eval(K.random_uniform((4,))))
        assert (draws[0] == draws[1]).all()
        assert (draws[0] != K.eval(K.random_uniform((4,)))).all()

    def test_distributions(self):
        n = 20000
        normal = first_value(K.random_normal((n,), 2.0, 3.0, seed=1))
        assert abs(normal.mean() - 2) < 0.1
        assert abs(normal.std() - 3) < 0.1
        cut = first_value(K.truncated_normal((n,), 2.0, 3.0, seed=1))
        assert abs(cut - 2).max() <= 6.0
        assert abs(cut.mean() - 2) < 0.1
        uniform = first_value(K.random_uniform((n,), -1, 3, seed=1))
        assert uniform.min() >= -1
        assert uniform.max() < 3
        assert abs(uniform.mean() - 1) < 0.05
        whole = first_value(K.random_uniform((n,), 2, 5, dtype="int32", seed=1))
        assert set(whole.tolist()) == {2, 3, 4}
        coins = first_value(K.random_binomial((n,), 0.3, seed=1))
        assert set(coins.tolist()) == {0.0, 1.0}
        assert abs(coins.mean() - 0.3) < 0.02

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
    def test_dtypes(self, dtype):
        for make in K.random_normal, K.random_uniform, K.random_binomial, K.truncated_normal:
            assert first_value(make((2, 2), dtype=dtype)).dtype == dtype

    def test_variables(self):
        uniform = K.random_uniform_variable((50, 20), -1, 1, seed=4)
        normal = K.random_normal_variable((50, 20), 3, 0.1, dtype="float64", seed=4)
        assert K.is_variable(uniform)
        assert -1 <= K.get_value(uniform).min() < -0.9
        assert 0.9 < K.get_value(uniform).max() < 1
        assert K.get_value(normal).dtype == np.float64
        assert abs(K.get_value(normal).mean() - 3) < 0.02
        again = K.random_uniform_variable((50, 20), -1, 1, seed=4)
        assert (K.get_value(again) == K.get_value(uniform)).all()

    def test_dropout(self):
        x = np.ones((100, 50), np.float32)
        got = first_value(K.dropout(K.variable(x), 0.4, seed=2))
        assert set(np.round(got, 4).ravel().tolist()) == {0.0, np.float32(np.round(1 / 0.6, 4)).item()}
        assert abs((got == 0).mean() - 0.4) < 0.03
        rows = first_value(K.dropout(K.variable(x), 0.4, noise_shape=(None, 1), seed=2))
        assert all(len(set(row)) == 1 for row in rows.tolist())
        old = first_value(K.dropout(K.variable(x), 0.4, 2))
        assert (old == got).all()
        for level in -0.1, 1.0:
            with pytest.raises(ValueError, match=r"fraction in \[0, 1\)"):
                K.dropout(x, level)
