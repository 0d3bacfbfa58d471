"""Every layer of Keras 2.3.1, unmodified, on `tensorc.keras`: shapes, configurations, and gradients by differences."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tensorc import backend as K

Array = np.ndarray[Any, Any]
Case = tuple[str, dict[str, Any], tuple[int, ...]]

BATCH = 3
STEP = 1e-6
WORDS = 7
RANDOM = ("Dropout", "Noise")

LINE, IMAGE, VOLUME = (9, 3), (8, 7, 3), (6, 5, 4, 3)

OVER_SPACE: list[Case] = [
    ("Conv1D", {"filters": 4, "kernel_size": 3, "activation": "relu"}, LINE),
    ("Conv1D", {"filters": 4, "kernel_size": 3, "padding": "same", "dilation_rate": 2}, LINE),
    ("Conv1D", {"filters": 4, "kernel_size": 3, "padding": "causal"}, LINE),
    ("SeparableConv1D", {"filters": 4, "kernel_size": 3, "padding": "same", "depth_multiplier": 2}, LINE),
    ("Conv2D", {"filters": 4, "kernel_size": (3, 2), "strides": 2}, IMAGE),
    ("Conv2D", {"filters": 4, "kernel_size": (3, 2), "strides": 2, "padding": "same"}, IMAGE),
    ("Conv2D", {"filters": 4, "kernel_size": 3, "dilation_rate": 2, "use_bias": False}, IMAGE),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": (3, 2), "strides": 2}, IMAGE),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1}, IMAGE),
    ("Conv2DTranspose", {"filters": 4, "kernel_size": 3, "dilation_rate": 2}, IMAGE),
    ("SeparableConv2D", {"filters": 4, "kernel_size": 3, "padding": "same"}, IMAGE),
    ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2}, IMAGE),
    ("Conv3D", {"filters": 4, "kernel_size": (3, 2, 2), "padding": "same"}, VOLUME),
    ("Conv3DTranspose", {"filters": 4, "kernel_size": (3, 2, 2), "strides": 2}, VOLUME),
    ("LocallyConnected1D", {"filters": 2, "kernel_size": 3}, LINE),
    ("LocallyConnected2D", {"filters": 2, "kernel_size": (3, 2)}, IMAGE),
    ("ConvLSTM2D", {"filters": 2, "kernel_size": 3, "padding": "same"}, (2, *IMAGE)),
    ("ConvLSTM2D", {"filters": 2, "kernel_size": 3, "return_sequences": True, "use_bias": False}, (2, *IMAGE)),
    ("MaxPooling1D", {"pool_size": 2}, LINE),
    ("MaxPooling2D", {"pool_size": (3, 2), "strides": 2, "padding": "same"}, IMAGE),
    ("MaxPooling3D", {"pool_size": 2}, VOLUME),
    ("AveragePooling1D", {"pool_size": 2, "padding": "same"}, LINE),
    ("AveragePooling2D", {"pool_size": (3, 2), "strides": 2, "padding": "same"}, IMAGE),
    ("AveragePooling3D", {"pool_size": 2}, VOLUME),
    *[(f"Global{kind}Pooling{axes}D", {}, shape) for kind in ("Max", "Average")
      for axes, shape in enumerate((LINE, IMAGE, VOLUME), 1)],
    ("UpSampling2D", {"size": (2, 3)}, IMAGE),
    ("UpSampling2D", {"size": (2, 3), "interpolation": "bilinear"}, IMAGE),
    ("UpSampling3D", {"size": (2, 3, 1)}, VOLUME),
    ("ZeroPadding2D", {"padding": ((1, 2), (0, 1))}, IMAGE),
    ("ZeroPadding3D", {"padding": ((1, 2), (0, 1), (1, 1))}, VOLUME),
    ("Cropping2D", {"cropping": ((1, 2), (0, 1))}, IMAGE),
    ("Cropping3D", {"cropping": ((1, 2), (0, 1), (1, 1))}, VOLUME),
    ("SpatialDropout2D", {"rate": 0.5}, IMAGE),
    ("SpatialDropout3D", {"rate": 0.5}, VOLUME),
]

OVER_TIME: list[Case] = [
    *[(name, options, (6, 3)) for name in ("SimpleRNN", "GRU", "LSTM") for options in (
        {"units": 4}, {"units": 4, "return_sequences": True, "go_backwards": True},
        {"units": 4, "unroll": True, "use_bias": False}, {"units": 4, "dropout": 0.2, "recurrent_dropout": 0.2},
        {"units": 4, "recurrent_regularizer": "l2", "kernel_constraint": "max_norm"})],
    ("GRU", {"units": 4, "implementation": 1}, (6, 3)),
    ("LSTM", {"units": 4, "implementation": 1}, (6, 3)),
    ("GRU", {"units": 4, "reset_after": True}, (6, 3)),
]

OTHERS: list[Case] = [
    *[("Activation", {"activation": name}, (5,)) for name in (
        "elu", "selu", "relu", "softmax", "softplus", "softsign", "tanh", "sigmoid", "hard_sigmoid", "exponential",
        "linear")],
    ("LeakyReLU", {"alpha": 0.2}, (5,)), ("PReLU", {}, (5, 4)), ("PReLU", {"shared_axes": [1]}, (5, 4)),
    ("ELU", {"alpha": 0.5}, (5,)), ("ThresholdedReLU", {"theta": 0.5}, (5,)), ("Softmax", {"axis": 1}, (5, 4)),
    ("ReLU", {"max_value": 2.0, "negative_slope": 0.1, "threshold": 0.3}, (5,)),
    ("Dense", {"units": 3, "kernel_regularizer": "l1_l2", "kernel_constraint": "unit_norm",
               "bias_constraint": "non_neg", "activity_regularizer": "l2"}, (5,)),
    ("Dense", {"units": 3}, (4, 5)),
    ("BatchNormalization", {}, IMAGE), ("BatchNormalization", {"axis": 1}, IMAGE),
    ("BatchNormalization", {"scale": False, "center": False, "momentum": 0.5}, (5,)),
    ("Reshape", {"target_shape": (3, -1)}, (6, 2)), ("Permute", {"dims": (2, 1)}, (6, 2)), ("Flatten", {}, (6, 2)),
    ("Flatten", {"data_format": "channels_first"}, (6, 2, 3)), ("RepeatVector", {"n": 3}, (5,)),
    ("UpSampling1D", {"size": 2}, (5, 3)), ("ZeroPadding1D", {"padding": (1, 2)}, (5, 3)),
    ("Cropping1D", {"cropping": (1, 2)}, (5, 3)), ("ActivityRegularization", {"l1": 0.1, "l2": 0.2}, (5,)),
    ("Masking", {}, (5, 3)), ("SpatialDropout1D", {"rate": 0.5}, (5, 3)), ("GaussianNoise", {"stddev": 0.5}, (5,)),
    ("GaussianDropout", {"rate": 0.5}, (5,)), ("AlphaDropout", {"rate": 0.5}, (5,)),
    ("Dropout", {"rate": 0.5, "noise_shape": (None, 1)}, (5,)),
    ("Embedding", {"input_dim": WORDS, "output_dim": 3}, (5,)),
    ("Embedding", {"input_dim": WORDS, "output_dim": 3, "mask_zero": True}, (5,)),
]


def name_of(case: Case) -> str:
    return "-".join([case[0], *(f"{key}={value}" for key, value in case[1].items())])


@pytest.mark.parametrize("case", [*OVER_SPACE, *OVER_TIME, *OTHERS], ids=name_of)
def test_layers(keras: ModuleType, float64: None, case: Case) -> None:
    name, options, shape = case
    check(keras, lambda: getattr(keras.layers, name)(**options), shape)


EITHER_WAY = [case for case in OVER_SPACE       # others are random, have other weights, or refuse channels first
              if "Dropout" not in case[0] and "Locally" not in case[0] and case[1].get("padding") != "causal"]


@pytest.mark.parametrize("case", EITHER_WAY, ids=name_of)
def test_channels_first_is_channels_last_turned(keras: ModuleType, float64: None, case: Case) -> None:
    name, options, shape = case
    last, first = (getattr(keras.layers, name)(data_format=f"channels_{order}", **options)
                   for order in ("last", "first"))
    x = values(last, shape)
    spatial = len(shape) - (2 if name == "ConvLSTM2D" else 1)
    at = x.ndim - 1 - spatial       # where the channels are when they come first

    lasts, firsts = model_of(keras, last, x.shape[1:]), model_of(keras, first, np.moveaxis(x, -1, at).shape[1:])
    firsts.set_weights(lasts.get_weights())
    want, got = lasts.predict(x), firsts.predict(np.moveaxis(x, -1, at))

    if got.ndim > 2 + (at - 1):
        got = np.moveaxis(got, at if got.ndim == x.ndim else 1, -1)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


WRAPPED: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "each step's dense layer": (lambda layers: layers.TimeDistributed(layers.Dense(4)), (5, 3)),
    "each step's convolution": (lambda layers: layers.TimeDistributed(layers.Conv2D(4, 3)), (2, 8, 7, 3)),
    "both ways, summed": (lambda layers: layers.Bidirectional(layers.GRU(4), merge_mode="sum"), (6, 3)),
    "both ways, multiplied": (lambda layers: layers.Bidirectional(layers.SimpleRNN(4), merge_mode="mul"), (6, 3)),
    "both ways, averaged": (lambda layers: layers.Bidirectional(layers.GRU(4), merge_mode="ave"), (6, 3)),
    "both ways, in sequence": (
        lambda layers: layers.Bidirectional(layers.LSTM(4, return_sequences=True)), (6, 3)),
    "cells above each other": (
        lambda layers: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3), layers.SimpleRNNCell(2)]), (6, 3)),
    "an expression": (lambda layers: layers.Lambda(lambda t: K.square(t) + 1, output_shape=(5,)), (5,)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_layers_around_others(keras: ModuleType, float64: None, name: str) -> None:
    make, shape = WRAPPED[name]
    check(keras, lambda: make(keras.layers), shape)


MERGES: dict[str, Callable[[Array, Array], Array]] = {
    "Add": lambda x, y: x + y, "Subtract": lambda x, y: x - y, "Multiply": lambda x, y: x * y,
    "Average": lambda x, y: (x + y) / 2, "Maximum": np.maximum, "Minimum": np.minimum,
    "Concatenate": lambda x, y: np.concatenate([x, y], axis=-1),
}


@pytest.mark.parametrize("name", MERGES)
def test_layers_of_two(keras: ModuleType, float64: None, name: str) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, BATCH, 4, 5))
    inputs = [keras.layers.Input((4, 5)), keras.layers.Input((4, 5))]

    model = keras.models.Model(inputs, getattr(keras.layers, name)()(inputs))

    np.testing.assert_allclose(model.predict([x, y]), MERGES[name](x, y), rtol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_layer_of_products(keras: ModuleType, float64: None, normalize: bool) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(BATCH, 4, 5)), rng.normal(size=(BATCH, 6, 5))
    inputs = [keras.layers.Input((4, 5)), keras.layers.Input((6, 5))]

    model = keras.models.Model(inputs, keras.layers.Dot(2, normalize=normalize)(inputs))

    if normalize:
        x, y = (each / np.linalg.norm(each, axis=2, keepdims=True) for each in (x, y))
    np.testing.assert_allclose(model.predict(inputs_of(x, y, normalize)), np.einsum("bik,bjk->bij", x, y), rtol=1e-9)


def inputs_of(x: Array, y: Array, normalized: bool) -> list[Array]:
    """Rows of any length: the layer is to normalise them."""
    return [3 * x, 2 * y] if normalized else [x, y]


def values(layer: Any, shape: tuple[int, ...]) -> Array:
    """A batch for a layer: words for an embedding, else normal numbers."""
    rng = np.random.default_rng(5)
    if type(layer).__name__ == "Embedding":
        return rng.integers(0, WORDS, (BATCH, *shape)).astype("float64")
    return rng.normal(size=(BATCH, *shape))


def model_of(keras: ModuleType, layer: Any, shape: tuple[int, ...]) -> Any:
    x = keras.layers.Input(shape)
    return keras.models.Model(x, layer(x))


def check(keras: ModuleType, make: Callable[[], Any], shape: tuple[int, ...]) -> None:
    """Results have the shape that the layer tells, its copy has the same, and gradients are those of differences."""
    np.random.seed(2)
    layer = make()
    x = values(layer, shape)
    model = model_of(keras, layer, shape)
    y = model.predict(x)

    told = layer.compute_output_shape((None, *shape))
    assert all(size is None or size == n for size, n in zip(told[1:], y.shape[1:], strict=True))
    assert np.isfinite(y).all()

    twin = keras.models.Model.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    assert np.array_equal(twin.predict(x), y)

    if not any(word in type(layer).__name__ for word in RANDOM) and not getattr(layer, "dropout", 0):
        check_gradients(model, x)
    model.compile("rmsprop", "mse")
    assert np.isfinite(model.train_on_batch(x, np.zeros_like(y)))


def check_gradients(model: Any, x: Array) -> None:
    """The derivative of a weighted sum of the outputs while training, along one direction of weights and inputs."""
    rng = np.random.default_rng(8)
    (source,), (result,) = model.inputs, model.outputs
    scale = K.variable(rng.normal(size=model.predict(x).shape), dtype="float64")
    total = K.sum(result * scale)
    wanted = [*model.trainable_weights, *([] if "embedding" in model.layers[-1].name else [source])]
    if not wanted:
        return
    measure = K.function([source, K.learning_phase()], [total, *K.gradients(total, wanted)])

    start = [K.get_value(w) for w in model.trainable_weights]
    directions = [rng.normal(size=value.shape) for value in (*start, x)[:len(wanted)]]
    _, *slopes = measure([x, 1])

    def at(step: float) -> float:
        for weight, value, direction in zip(model.trainable_weights, start, directions, strict=False):
            K.set_value(weight, value + step * direction)
        moved = x + step * directions[-1] if wanted[-1] is source else x
        return float(measure([moved, 1])[0])

    difference = (at(STEP) - at(-STEP)) / (2 * STEP)
    at(0)
    along = sum(float(np.sum(s * d)) for s, d in zip(slopes, directions, strict=True))
    assert along == pytest.approx(difference, rel=1e-6, abs=1e-6)
