"""Layout over whole networks: channels first outside, channels last inside, turned where they enter and leave."""

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.ir.text import dump
from tensorc.passes.context import Context
from tensorc.passes.pipeline import default


class Weights:
    """Small variables of seeded values, kept in the order in which they were asked for."""

    def __init__(self):
        self.random = np.random.default_rng(3)
        self.all = []

    def __call__(self, *shape):
        values = self.random.normal(size=shape, scale=0.3).astype("float32")
        self.all.append(K.variable(values, name=f"w{len(self.all)}"))
        return self.all[-1]


def five_layers(x, weight, normalise):
    """Convolutions with biases, normalisation and activations, a residual block, pooling; channels first."""
    h, channels = x, 3
    for layer, width in enumerate((4, 8, 8, 8, 6)):
        new = K.conv2d(h, weight(3, 3, channels, width), padding="same")
        new = normalise(K.bias_add(new, weight(width)), width, weight)
        h, channels = K.relu(new + h if layer == 3 else new), width
        if layer in (1, 2):
            h = K.pool2d(h, (2, 2), strides=(2, 2), pool_mode="max" if layer == 1 else "avg")
    return h


def by_moving_statistics(h, width, weight):
    variance = K.square(weight(width)) + 1
    return K.batch_normalization(h, weight(width), variance, weight(width), weight(width), axis=1)


def by_the_batch(h, width, weight):
    return K.normalize_batch_in_training(h, weight(width), weight(width), [0, 2, 3])[0]


def branches(x, weight, normalise):
    """Skips from the input, padding, concatenation, softmax over channels, enlargement, slices, a gate."""
    h = K.relu(K.conv2d(x, weight(3, 3, 3, 3), padding="same")) + x
    h = K.conv2d(K.spatial_2d_padding(h, ((1, 2), (2, 1))), weight(3, 3, 3, 4))
    h = K.concatenate([K.elu(K.conv2d(h, weight(3, 3, 4, 4), padding="same")), K.conv2d(h, weight(1, 1, 4, 2))], axis=1)
    h = normalise(K.resize_images(K.softmax(h, axis=1), 2, 3, "channels_first"), 6, weight)
    h = K.depthwise_conv2d(K.reverse(h, 2), weight(3, 3, 6, 1), strides=(2, 2))[:, :, 1:, 2:-1]
    h = K.conv2d(K.resize_images(h, 2, 2, "channels_first", interpolation="bilinear"), weight(3, 3, 6, 5))
    gate = K.sigmoid(K.conv2d(K.mean(h, axis=[2, 3], keepdims=True), weight(1, 1, 5, 5)))
    return h * gate


@pytest.fixture(autouse=True)
def channels_first():
    K.clear_session()
    before = K.image_data_format()
    K.set_image_data_format("channels_first")
    yield
    K.set_image_data_format(before)


def after(step, function):
    """A function's graph after a pass, and what the passes have to say of its nodes."""
    context = Context()
    return default().up_to(step).run(function.compiled.graph, context), context.notes


def transposes(graph):
    return [node for node in graph.nodes if node.op.name == "transpose"]


def image():
    return K.placeholder(shape=(None, 3, 8, 8), name="x")


def test_five_layers_turn_their_input_and_their_result_alone(golden):
    x = image()
    network = K.function([x], [five_layers(x, Weights(), by_moving_statistics)], name="network")
    graph, notes = after("share", network)
    entering, leaving = transposes(graph)
    assert entering.x in graph.params
    assert (leaving,) == graph.outputs
    golden("passes/channels_first.txt", dump(graph, lines=False, notes=notes))


def step_of(network, normalise, passes=None):
    """A step of gradient descent that returns the loss, and the variables that it changes."""
    x, weight = image(), Weights()
    loss = K.mean(K.square(network(x, weight, normalise)))
    updates = [(w, w - 0.1 * g) for w, g in zip(weight.all, K.gradients(loss, weight.all), strict=True)]
    return K.function([x], [loss], updates=updates, name="step", passes=passes), weight.all


def test_a_training_step_turns_its_input_alone(golden):
    step, _ = step_of(five_layers, by_the_batch)
    graph, notes = after("share", step)
    (entering,) = transposes(graph)
    assert entering.x in graph.params
    golden("passes/channels_first_step.txt", dump(graph, lines=False, notes=notes))


@pytest.mark.parametrize("normalise", [by_moving_statistics, by_the_batch])
def test_branches_are_not_turned_either(normalise):
    x = image()
    graph, _ = after("share", K.function([x], [branches(x, Weights(), normalise)]))
    entering, leaving = transposes(graph)
    assert entering.x in graph.params
    assert (leaving,) == graph.outputs
    graph, _ = after("share", step_of(branches, normalise)[0])
    assert [node.x.op.name for node in transposes(graph)] == ["parameter"]


def test_dropout_turns_its_mask_and_not_what_it_drops():
    x, weight = image(), Weights()
    h = K.dropout(K.relu(K.conv2d(x, weight(3, 3, 3, 4))), 0.5, seed=1)
    graph, _ = after("share", K.function([x], [K.mean(K.conv2d(h, weight(3, 3, 4, 2)))]))
    assert sorted((node.dtype.name, node.x.op.name) for node in transposes(graph)) == [
        ("bool", "ge"), ("float32", "parameter")]


@pytest.mark.parametrize("network", [five_layers, branches])
@pytest.mark.parametrize("normalise", [by_moving_statistics, by_the_batch])
def test_steps_are_the_same_as_without_the_pass(network, normalise):
    images = np.random.default_rng(5).normal(size=(3, 3, 8, 8)).astype("float32")
    plain, laid_out = (step_of(network, normalise, passes) for passes in (default().without("layout"), None))
    for _ in range(2):
        np.testing.assert_allclose(laid_out[0]([images]), plain[0]([images]), rtol=1e-4)
    for found, wanted in zip(laid_out[1], plain[1], strict=True):
        np.testing.assert_allclose(K.get_value(found), K.get_value(wanted), rtol=1e-3, atol=1e-5)


def test_a_flattened_result_is_turned_for_the_dense_layer():
    x, weight = image(), Weights()
    h = K.batch_flatten(K.relu(K.conv2d(x, weight(3, 3, 3, 4))))
    graph, notes = after("share", K.function([x], [K.dot(h, weight(4 * 36, 2))]))
    assert [notes[node] for node in transposes(graph)] == [
        "stays, as conv wants the axes of x as [0, 2, 3, 1]",
        "stays, as reshape wants the axes of maximum as [0, 3, 1, 2]",
    ]
