"""The real Keras 2.3.1, unmodified, on `tensorc.keras`: dense networks, held against the same steps in NumPy."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tensorc import backend as K

Array = np.ndarray[Any, Any]
Gradients = list[Array]
Step = Callable[[list[Array], Gradients], list[Array]]

EPSILON = 1e-7


@pytest.fixture(autouse=True)
def _seed() -> None:
    np.random.seed(7)


def samples(count: int = 96, classes: int = 3) -> tuple[Array, Array]:
    """Points, and which of three sectors of their first two coordinates each lies in, as one-hot rows."""
    points = np.random.default_rng(1).normal(size=(count, 5))
    sector = ((np.arctan2(points[:, 0], points[:, 1]) + np.pi) // (2 * np.pi / classes)).astype(int)
    return points, np.eye(classes)[np.minimum(sector, classes - 1)]


def classifier(keras: ModuleType, optimizer: Any) -> Any:
    """5 → 8 tanh → 3 softmax."""
    model = keras.models.Sequential([
        keras.layers.Dense(8, activation="tanh", input_shape=(5,)),
        keras.layers.Dense(3, activation="softmax"),
    ])
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    return model


def forward(weights: list[Array], x: Array) -> tuple[Array, Array]:
    w, b, v, c = weights
    hidden = np.tanh(x @ w + b)
    scores = hidden @ v + c
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, shares / shares.sum(axis=1, keepdims=True)


def loss_and_gradients(weights: list[Array], x: Array, y: Array) -> tuple[float, Gradients]:
    hidden, shares = forward(weights, x)
    by_scores = (shares - y) / len(x)
    by_hidden = (by_scores @ weights[2].T) * (1 - hidden**2)
    gradients = [x.T @ by_hidden, by_hidden.sum(axis=0), hidden.T @ by_scores, by_scores.sum(axis=0)]
    return float(-np.log((shares * y).sum(axis=1)).mean()), gradients


def momentum(rate: float, keep: float) -> Step:
    velocity = [0.0] * 4

    def step(weights: list[Array], gradients: Gradients) -> list[Array]:
        velocity[:] = [keep * v - rate * g for v, g in zip(velocity, gradients, strict=True)]
        return [w + v for w, v in zip(weights, velocity, strict=True)]

    return step


def clipped(rate: float, norm: float) -> Step:
    def step(weights: list[Array], gradients: Gradients) -> list[Array]:
        length = np.sqrt(sum((g**2).sum() for g in gradients))
        return [w - rate * g * min(1, norm / length) for w, g in zip(weights, gradients, strict=True)]

    return step


def rmsprop(rate: float) -> Step:
    square = [0.0] * 4

    def step(weights: list[Array], gradients: Gradients) -> list[Array]:
        square[:] = [0.9 * s + 0.1 * g**2 for s, g in zip(square, gradients, strict=True)]
        return [w - rate * g / (np.sqrt(s) + EPSILON) for w, g, s in zip(weights, gradients, square, strict=True)]

    return step


def adam(rate: float) -> Step:
    mean, square, time = [0.0] * 4, [0.0] * 4, [0]

    def step(weights: list[Array], gradients: Gradients) -> list[Array]:
        time[0] += 1
        mean[:] = [0.9 * m + 0.1 * g for m, g in zip(mean, gradients, strict=True)]
        square[:] = [0.999 * s + 0.001 * g**2 for s, g in zip(square, gradients, strict=True)]
        size = rate * np.sqrt(1 - 0.999 ** time[0]) / (1 - 0.9 ** time[0])
        return [w - size * m / (np.sqrt(s) + EPSILON) for w, m, s in zip(weights, mean, square, strict=True)]

    return step


@pytest.mark.parametrize(("name", "options", "reference"), [
    ("SGD", {"lr": 0.5}, momentum(0.5, 0)),
    ("SGD", {"lr": 0.2, "momentum": 0.9}, momentum(0.2, 0.9)),
    ("SGD", {"lr": 0.2, "clipnorm": 0.3}, clipped(0.2, 0.3)),
    ("RMSprop", {"lr": 0.01}, rmsprop(0.01)),
    ("Adam", {"lr": 0.01}, adam(0.01)),
])
@pytest.mark.usefixtures("float64")
def test_optimizers_take_the_steps_of_their_formulas(keras: ModuleType, name: str, options: dict[str, float],
                                                     reference: Step) -> None:
    x, y = samples()
    model = classifier(keras, getattr(keras.optimizers, name)(**options))
    weights = model.get_weights()

    for first in range(0, len(x), 24):
        batch = slice(first, first + 24)
        loss, gradients = loss_and_gradients(weights, x[batch], y[batch])
        accuracy = (forward(weights, x[batch])[1].argmax(axis=1) == y[batch].argmax(axis=1)).mean()
        np.testing.assert_allclose(model.train_on_batch(x[batch], y[batch]), [loss, accuracy], rtol=1e-10)
        weights = reference(weights, gradients)

    for got, want in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.predict(x), forward(weights, x)[1], rtol=1e-9)


def test_fit_learns_and_evaluate_measures(keras: ModuleType) -> None:
    x, y = samples(240)
    model = classifier(keras, keras.optimizers.Adam(0.05))

    history = model.fit(x, y, batch_size=32, epochs=30, validation_split=0.2, verbose=0).history
    loss, accuracy = model.evaluate(x, y, batch_size=100, verbose=0)
    shares = model.predict(x, batch_size=64)

    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ("loss", "accuracy", "val_loss", "val_accuracy"), 30)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert accuracy > 0.9
    assert accuracy == pytest.approx((shares.argmax(axis=1) == y.argmax(axis=1)).mean())
    assert loss == pytest.approx(-np.log((shares * y).sum(axis=1)).mean(), rel=1e-5)


def test_metrics_count_over_all_batches_and_begin_anew(keras: ModuleType) -> None:
    metrics = keras.metrics
    x, y = samples()
    target = y[:, :1]
    model = keras.models.Sequential([keras.layers.Dense(1, activation="sigmoid", input_shape=(5,))])
    model.compile("sgd", "mse", metrics=[
        metrics.Precision(), metrics.Recall(), metrics.AUC(), metrics.SensitivityAtSpecificity(0.5)])

    measured = [model.evaluate(x, target, batch_size=20, verbose=0) for _ in range(2)]

    shares = model.predict(x)
    positive, negative = shares[target == 1], shares[target == 0]
    hits, false = (positive > 0.5).sum(), (negative > 0.5).sum()
    thresholds = np.linspace(0, 1, 200, dtype="float32")[:, None]
    nearest = np.abs((negative <= thresholds).mean(axis=1) - 0.5).argmin()
    _, precision, recall, area, at_half = measured[0]
    assert measured[0] == measured[1]
    assert precision == pytest.approx(hits / (hits + false))
    assert recall == pytest.approx(hits / len(positive))
    assert area == pytest.approx((positive[:, None] > negative).mean(), abs=0.02)
    assert at_half == pytest.approx((positive > thresholds[nearest]).mean())


def test_dropout_and_batch_normalisation_know_the_phase(keras: ModuleType) -> None:
    x = np.random.default_rng(2).normal(3, 2, (400, 4)).astype("float32")
    model = keras.models.Sequential([
        keras.layers.BatchNormalization(momentum=0.75, input_shape=(4,)),
        keras.layers.Dropout(0.25),
    ])
    model.compile("sgd", "mse")
    run = keras.backend.function([model.input, keras.backend.learning_phase()], [model.output])

    dropped, = run([x, 1])
    normal = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3)
    kept = dropped != 0
    assert 0.7 < kept.mean() < 0.8
    np.testing.assert_allclose(dropped[kept], normal[kept] / 0.75, rtol=1e-4, atol=1e-4)

    model.train_on_batch(x, np.zeros_like(x))
    mean, variance = model.layers[0].get_weights()[2:]
    np.testing.assert_allclose(mean, 0.25 * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance, 0.75 + 0.25 * x.var(axis=0) * 400 / (400 - 1.001), rtol=1e-4)

    gamma, beta = model.layers[0].get_weights()[:2]
    tested = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(model.predict(x), tested, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run([x, 0])[0], tested, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_loaded_model_goes_on_where_the_saved_one_was(keras: ModuleType, tmp_path: Path, where: str) -> None:
    x, y = samples()
    model = classifier(keras, "adam")
    model.fit(x, y, epochs=2, verbose=0)

    target: Any = str(tmp_path / "model.h5") if where == "file" else io.BytesIO()
    model.save(target)
    if where == "memory":
        target.seek(0)
    loaded = keras.models.load_model(target)

    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    for one in (model, loaded):
        one.fit(x, y, epochs=1, shuffle=False, verbose=0)
    for got, want in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_weights_and_configuration_travel_apart(keras: ModuleType, tmp_path: Path) -> None:
    x, _ = samples()
    model = classifier(keras, "sgd")
    model.save_weights(str(tmp_path / "weights.h5"))

    json, yaml = model.to_json(), model.to_yaml()
    for other in (keras.models.model_from_json(json), keras.models.model_from_yaml(yaml)):
        other.load_weights(str(tmp_path / "weights.h5"))
        np.testing.assert_array_equal(other.predict(x), model.predict(x))


def test_callbacks_stop_and_slow_down(keras: ModuleType, tmp_path: Path) -> None:
    x, y = samples()
    model = classifier(keras, keras.optimizers.SGD(0.0))
    best = tmp_path / "best-{epoch}.h5"

    history = model.fit(x, y, epochs=9, verbose=0, validation_split=0.25, callbacks=[
        keras.callbacks.EarlyStopping(patience=3),
        keras.callbacks.ReduceLROnPlateau(patience=2),
        keras.callbacks.ModelCheckpoint(str(best), save_best_only=True),
    ])

    assert len(history.epoch) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["best-1.h5"]


def test_labels_of_unknown_shape_meet_predictions(keras: ModuleType) -> None:
    x, y = samples()
    model = classifier(keras, "sgd")
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy", "sparse_top_k_categorical_accuracy"])

    loss, accuracy, among_five = model.evaluate(x, y.argmax(axis=1), verbose=0)

    shares = model.predict(x)
    assert loss == pytest.approx(-np.log((shares * y).sum(axis=1)).mean(), rel=1e-5)
    assert accuracy == pytest.approx((shares.argmax(axis=1) == y.argmax(axis=1)).mean())
    assert among_five == 1


@pytest.mark.usefixtures("keras")
def test_settings_are_those_of_keras(float64: None) -> None:
    from keras import backend

    assert backend.backend() == "tensorc.keras"
    assert K.floatx() == "float64"
    K.set_epsilon(1e-3)
    assert backend.epsilon() == 1e-3
    backend.set_epsilon(EPSILON)
    assert K.epsilon() == EPSILON
    backend.set_image_data_format("channels_first")
    assert K.image_data_format() == "channels_first"
    K.set_image_data_format("channels_last")
    assert backend.image_data_format() == "channels_last"


@pytest.mark.usefixtures("keras")
def test_files_of_others_are_what_they_were(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "new.h5") as file:
        file.attrs["one"], file.attrs["several"], file.attrs["number"] = "ä", ["b", "c"], 3
    with h5py.File(tmp_path / "new.h5") as file:
        assert file.mode == "r"
        assert file.attrs["one"] == "ä"
        assert file.attrs["one"].decode("utf8") == "ä"
        assert [text.decode() for text in file.attrs["several"]] == ["b", "c"]
        assert file.attrs["number"] == 3
    with pytest.raises(FileNotFoundError):
        h5py.File(tmp_path / "missing.h5", "r")


def test_without_keras_nothing_is_restored(tmp_path: Path) -> None:
    script = ("import collections, h5py, numpy, sys; before = h5py.File.__init__; import tensorc.keras\n"
              "print(hasattr(collections, 'Mapping'), hasattr(numpy, 'Inf'), h5py.File.__init__ is before)")

    done = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "KERAS_BACKEND": "tensorc.keras"})

    assert (done.stdout, done.stderr) == ("False False True\n", "")
