"""Models of Keras 2.3.1, unmodified, on `tensorc.keras`: states, masks, several inputs, own layers, losses, metrics."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tensorc import backend as K

Array = np.ndarray[Any, Any]


@pytest.fixture
def rng() -> np.random.Generator:
    np.random.seed(3)
    return np.random.default_rng(3)


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_a_stateful_layer_goes_on_until_it_is_reset(keras: ModuleType, rng: np.random.Generator, kind: str) -> None:
    layer = getattr(keras.layers, kind)(4, stateful=True, batch_input_shape=(2, 3, 5))
    whole = getattr(keras.layers, kind)(4, input_shape=(None, 5))
    model, reference = keras.models.Sequential([layer]), keras.models.Sequential([whole])
    reference.set_weights(model.get_weights())
    x = rng.normal(size=(2, 6, 5))

    model.predict(x[:, :3])
    assert model.predict(x[:, 3:]) == pytest.approx(reference.predict(x), rel=1e-5)

    model.reset_states()
    assert model.predict(x[:, :3]) == pytest.approx(reference.predict(x[:, :3]), rel=1e-5)
    model.compile("adam", "mse")
    model.train_on_batch(x[:, :3], np.zeros((2, 4)))
    layer.reset_states([np.ones((2, 4))] * len(layer.states))
    assert all((K.get_value(state) == 1).all() for state in layer.states)


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_masked_steps_change_nothing(keras: ModuleType, rng: np.random.Generator, kind: str) -> None:
    model = keras.models.Sequential([
        keras.layers.Masking(0.0, input_shape=(None, 5)),
        getattr(keras.layers, kind)(4),
        keras.layers.Dense(3, activation="softmax"),
    ])
    x = rng.normal(size=(2, 7, 5))
    x[:, 4:] = 0

    assert model.predict(x) == pytest.approx(model.predict(x[:, :4]), rel=1e-5)

    model.compile("adam", "categorical_crossentropy")
    losses = [model.train_on_batch(x, np.eye(3)[[0, 2]]) for _ in range(30)]
    assert losses[-1] < losses[0]


def test_steps_have_weights_of_their_own(keras: ModuleType, rng: np.random.Generator) -> None:
    model = keras.models.Sequential([keras.layers.TimeDistributed(keras.layers.Dense(1), input_shape=(4, 3))])
    model.compile("sgd", "mse", sample_weight_mode="temporal")
    x, y = rng.normal(size=(6, 4, 3)), rng.normal(size=(6, 4, 1))
    weights = rng.uniform(size=(6, 4))

    loss = model.evaluate(x, y, sample_weight=weights, verbose=0)

    assert loss == pytest.approx((weights * ((model.predict(x) - y)**2)[..., 0]).mean(), rel=1e-5)


def test_an_encoder_hands_its_state_to_a_decoder(keras: ModuleType, rng: np.random.Generator, tmp_path: Path) -> None:
    layers = keras.layers
    source, target = layers.Input((None, 8)), layers.Input((None, 8))
    _, *state = layers.LSTM(6, return_state=True)(source)
    steps = layers.LSTM(6, return_sequences=True)(target, initial_state=state)
    model = keras.models.Model([source, target], layers.Dense(8, activation="softmax")(steps))
    model.compile("rmsprop", "categorical_crossentropy")

    words = np.eye(8)[rng.integers(0, 8, (10, 7))]
    history = model.fit([rng.normal(size=(10, 5, 8)), words], words, epochs=25, batch_size=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]

    model.save(str(tmp_path / "model.h5"))
    other = [rng.normal(size=(2, 3, 8)), rng.normal(size=(2, 9, 8))]
    assert np.array_equal(keras.models.load_model(str(tmp_path / "model.h5")).predict(other), model.predict(other))


def test_several_inputs_and_outputs_by_name(keras: ModuleType, rng: np.random.Generator) -> None:
    layers = keras.layers
    a, b = layers.Input((4,), name="a"), layers.Input((3,), name="b")
    hidden = layers.Dense(5)(layers.concatenate([a, b]))
    outputs = [layers.Dense(2, activation="softmax", name="kind")(hidden), layers.Dense(1, name="size")(hidden)]
    model = keras.models.Model([a, b], outputs)
    model.compile("adam", {"kind": "sparse_categorical_crossentropy", "size": "mse"},
                  metrics={"kind": ["accuracy"], "size": ["mae"]}, loss_weights={"kind": 1.0, "size": 0.5})
    x = {"a": rng.normal(size=(20, 4)), "b": rng.normal(size=(20, 3))}
    y = {"kind": rng.integers(0, 2, 20), "size": rng.normal(size=(20, 1))}

    history = model.fit(x, y, validation_split=0.2, epochs=2, verbose=0).history
    total, kind, size, accuracy, distance = model.evaluate(x, y, verbose=0)

    assert {"val_kind_accuracy", "val_size_mae"} <= set(history)
    assert total == pytest.approx(kind + size / 2, rel=1e-5)
    shares, sizes = model.predict(x)
    assert accuracy == pytest.approx((shares.argmax(axis=1) == y["kind"]).mean())
    assert distance == pytest.approx(np.abs(sizes - y["size"]).mean(), rel=1e-5)


def test_a_shared_layer_learns_from_all_its_uses(keras: ModuleType, rng: np.random.Generator) -> None:
    layers = keras.layers
    shared, a, b = layers.Dense(1, use_bias=False), layers.Input((3,)), layers.Input((3,))
    model = keras.models.Model([a, b], layers.subtract([shared(a), shared(b)]))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y, z = rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
    (before,) = model.get_weights()

    model.train_on_batch([x, y], z)

    step = 0.1 * 2 / 8 * (x - y).T @ ((x - y) @ before - z)
    assert model.get_weights()[0] == pytest.approx(before - step, rel=1e-4, abs=1e-6)


def test_frozen_layers_stay_as_they_are(keras: ModuleType, rng: np.random.Generator) -> None:
    layers = keras.layers
    model = keras.models.Sequential([layers.Dense(4, input_dim=3), layers.BatchNormalization(), layers.Dense(1)])
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    frozen, *_, last = (layer.get_weights() for layer in model.layers)

    model.fit(rng.normal(size=(8, 3)), rng.normal(size=(8, 1)), verbose=0)

    assert np.array_equal(model.layers[0].get_weights()[0], frozen[0])
    assert not np.array_equal(model.layers[2].get_weights()[0], last[0])


def test_losses_of_a_models_own(keras: ModuleType, rng: np.random.Generator) -> None:
    layers = keras.layers
    x = layers.Input((8,))
    mean, log_variance = layers.Dense(2)(x), layers.Dense(2)(x)
    drawn = layers.Lambda(lambda m: m[0] + K.exp(m[1] / 2) * K.random_normal(K.shape(m[0]), seed=1),
                          output_shape=(2,))([mean, log_variance])
    y = layers.Dense(8)(drawn)
    model = keras.models.Model(x, y)
    divergence = -0.5 * K.sum(1 + log_variance - K.square(mean) - K.exp(log_variance), axis=-1)
    model.add_loss(K.mean(K.sum(K.square(x - y), axis=-1) + divergence))
    with pytest.warns(UserWarning, match="missing from loss"):
        model.compile("adam")
    data = rng.normal(size=(32, 8))

    history = model.fit(data, epochs=40, verbose=0).history

    assert history["loss"][-1] < history["loss"][0]


def test_a_layer_of_ones_own(keras: ModuleType, rng: np.random.Generator) -> None:
    class Product(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight("kernel", (shape[1], 3), initializer="uniform")
            super().build(shape)

        def call(self, x: Any) -> Any:
            return K.in_train_phase(2 * K.dot(x, self.kernel), K.dot(x, self.kernel))

        def compute_output_shape(self, shape: Any) -> Any:
            return shape[0], 3

    model = keras.models.Sequential([Product(input_shape=(5,))])
    x = rng.normal(size=(2, 5)).astype("float32")
    both = K.function([model.input, K.learning_phase()], [model.output])
    slope = K.function([model.input, K.learning_phase()], K.gradients(K.sum(model.output), [model.input]))

    assert both([x, 1])[0] == pytest.approx(2 * both([x, 0])[0])
    assert both([x, 0])[0] == pytest.approx(model.predict(x))
    assert slope([x, 0])[0] == pytest.approx(np.tile(model.get_weights()[0].sum(axis=1), (2, 1)), rel=1e-5)


def test_generators_feed_models(keras: ModuleType, rng: np.random.Generator) -> None:
    model = keras.models.Sequential([keras.layers.Dense(2, activation="softmax", input_dim=4)])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["acc"])
    x, y = rng.normal(size=(24, 4)), rng.integers(0, 2, 24)

    class Batches(keras.utils.Sequence):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> tuple[Array, Array]:
            return x[8 * i:8 * i + 8], y[8 * i:8 * i + 8]

    model.fit_generator(Batches(), epochs=2, verbose=0)
    loss, accuracy = model.evaluate_generator(Batches())
    assert accuracy == pytest.approx(model.evaluate(x, y, verbose=0)[1])
    assert loss == pytest.approx(model.evaluate(x[16:], y[16:], verbose=0)[0], rel=1e-5)    # Keras: the last batch's
    assert model.predict_generator(Batches()) == pytest.approx(model.predict(x), rel=1e-5)


def test_ctc_as_a_models_loss(keras: ModuleType, rng: np.random.Generator) -> None:
    layers = keras.layers
    x, labels = layers.Input((12, 5)), layers.Input((3,))
    steps, length = layers.Input((1,)), layers.Input((1,))
    y = layers.Dense(6, activation="softmax")(layers.LSTM(8, return_sequences=True)(x))
    cost = layers.Lambda(lambda a: K.ctc_batch_cost(*a), output_shape=(1,))([labels, y, steps, length])
    model = keras.models.Model([x, labels, steps, length], cost)
    model.compile(keras.optimizers.Adam(0.02), lambda _, predicted: predicted)
    data = [rng.normal(size=(8, 12, 5)), rng.integers(0, 5, (8, 3)), np.full((8, 1), 12), np.full((8, 1), 3)]

    history = model.fit(data, np.zeros(8), epochs=20, verbose=0).history

    assert history["loss"][-1] < 0.8 * history["loss"][0]


def shares(rng: np.random.Generator, count: int = 6) -> Array:
    """Rows of five positive numbers that add up to 1."""
    x = rng.uniform(0.1, 1, (count, 5))
    return x / x.sum(axis=1, keepdims=True)


LOSSES = {
    "mean_squared_error": lambda t, p: ((t - p)**2).mean(-1),
    "mean_absolute_error": lambda t, p: np.abs(t - p).mean(-1),
    "mean_absolute_percentage_error": lambda t, p: 100 * np.abs((t - p) / np.maximum(np.abs(t), 1e-7)).mean(-1),
    "mean_squared_logarithmic_error": lambda t, p: ((np.log1p(t) - np.log1p(p))**2).mean(-1),
    "hinge": lambda t, p: np.maximum(1 - (2 * t - 1) * p, 0).mean(-1),
    "squared_hinge": lambda t, p: (np.maximum(1 - (2 * t - 1) * p, 0)**2).mean(-1),
    "categorical_hinge": lambda t, p: np.maximum(((1 - t) * p).max(-1) - (t * p).sum(-1) + 1, 0),
    "logcosh": lambda t, p: np.log(np.cosh(p - t)).mean(-1),
    "huber_loss": lambda t, p: (t - p)**2 / 2,
    "binary_crossentropy": lambda t, p: -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(-1),
    "categorical_crossentropy": lambda t, p: -(t * np.log(p)).sum(-1),
    "kullback_leibler_divergence": lambda t, p: (t * np.log(np.maximum(t, 1e-7) / p)).sum(-1),
    "poisson": lambda t, p: (p - t * np.log(p + 1e-7)).mean(-1),
    "cosine_proximity": lambda t, p: -(t * p).sum(-1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(p, axis=-1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_their_formulas(keras: ModuleType, rng: np.random.Generator, name: str) -> None:
    p = shares(rng).astype("float32")
    t = np.eye(5, dtype="float32")[rng.integers(0, 5, 6)]

    value = K.eval(keras.losses.get(name)(K.variable(t), K.variable(p)))

    assert value == pytest.approx(LOSSES[name](t, p), rel=2e-4, abs=1e-5)


@pytest.mark.parametrize("reduction", ["none", "sum", "sum_over_batch_size"])
def test_weighted_losses_are_reduced(keras: ModuleType, rng: np.random.Generator, reduction: str) -> None:
    p, weights = shares(rng).astype("float32"), rng.uniform(size=6).astype("float32")
    t = rng.integers(0, 5, 6).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)

    value = K.eval(loss(K.variable(t), K.variable(p), sample_weight=K.variable(weights)))

    each = -weights * np.log(p[np.arange(6), t.astype(int)])
    wanted = {"none": each, "sum": each.sum(), "sum_over_batch_size": each.mean()}[reduction]
    assert value == pytest.approx(wanted, rel=1e-5)


METRICS = {
    "accuracy": lambda t, p: (t.argmax(1) == p.argmax(1)).mean(),
    "top_k_categorical_accuracy": lambda t, p: 1.0,
    "cosine_proximity": lambda t, p: np.mean((t * p).sum(1) / np.linalg.norm(t, axis=1) / np.linalg.norm(p, axis=1)),
    "mse": lambda t, p: ((t - p)**2).mean(),
    "mae": lambda t, p: np.abs(t - p).mean(),
}
COUNTS = {
    "TruePositives": lambda t, p: (t * p).sum(), "FalsePositives": lambda t, p: ((1 - t) * p).sum(),
    "TrueNegatives": lambda t, p: ((1 - t) * (1 - p)).sum(), "FalseNegatives": lambda t, p: (t * (1 - p)).sum(),
    "Precision": lambda t, p: (t * p).sum() / p.sum(), "Recall": lambda t, p: (t * p).sum() / t.sum(),
    "BinaryAccuracy": lambda t, p: (t == p).mean(),
}


def test_metrics_are_their_formulas(keras: ModuleType, rng: np.random.Generator) -> None:
    model = keras.models.Sequential([keras.layers.Activation("linear", input_shape=(5,))])
    model.compile("sgd", "categorical_crossentropy", metrics=list(METRICS))
    p, t = shares(rng, 20).astype("float32"), np.eye(5)[rng.integers(0, 5, 20)]

    _, *found = model.evaluate(p, t, batch_size=8, verbose=0)

    assert found == pytest.approx([formula(t, p) for formula in METRICS.values()], rel=1e-4)


def test_metrics_that_count_are_their_formulas(keras: ModuleType, rng: np.random.Generator) -> None:
    model = keras.models.Sequential([keras.layers.Activation("linear", input_shape=(1,))])
    auc = keras.metrics.AUC(num_thresholds=2000)
    model.compile("sgd", "mse", metrics=[*(getattr(keras.metrics, name)() for name in COUNTS), auc])
    p, t = rng.uniform(size=(30, 1)), rng.integers(0, 2, (30, 1))

    _, *found, area = model.evaluate(p, t, batch_size=8, verbose=0)

    assert found == pytest.approx([formula(t, p > 0.5) for formula in COUNTS.values()], rel=1e-5)
    pairs = p[t == 1][:, None] - p[t == 0][None]
    assert area == pytest.approx((pairs > 0).mean(), abs=0.02)


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"momentum": 0.9, "nesterov": True}), ("RMSprop", {}), ("Adagrad", {}), ("Adadelta", {}), ("Adamax", {}),
    ("Adam", {"amsgrad": True}), ("Nadam", {}), ("SGD", {"clipnorm": 1.0}), ("SGD", {"clipvalue": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_optimizers_learn_and_go_on_from_a_file(keras: ModuleType, rng: np.random.Generator, tmp_path: Path, name: str,
                                                options: dict[str, Any]) -> None:
    layers = keras.layers
    model = keras.models.Sequential([layers.Dense(8, activation="tanh", input_dim=4), layers.Dense(1)])
    model.compile(getattr(keras.optimizers, name)(**options), "mse")
    x = rng.normal(size=(32, 4))
    y = x[:, :1] / 2
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, epochs=4, shuffle=False, verbose=0)
    assert model.evaluate(x, y, verbose=0) < before

    model.save(str(tmp_path / "model.h5"))
    loaded = keras.models.load_model(str(tmp_path / "model.h5"))
    for each in (model, loaded):
        each.fit(x, y, shuffle=False, verbose=0)
    for mine, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(mine, other)
