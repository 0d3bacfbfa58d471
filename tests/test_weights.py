"""Scales and shifts of channels move into the weights of convolutions and matrix products, where that pays."""

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.ir.parse import parse
from tensorc.ir.text import dump
from tensorc.passes import weights
from tensorc.passes.context import Context
from tensorc.passes.pipeline import default


class Network:
    """Variables of seeded values, and what is built of them."""

    def __init__(self):
        K.clear_session()
        self.random = np.random.default_rng(11)
        self.made = 0

    def weight(self, *shape):
        self.made += 1
        return K.variable(self.random.normal(size=shape, scale=0.5).astype("float32"), name=f"w{self.made}")

    def normalised(self, h, width, axis=-1):
        statistics = self.weight(width), K.square(self.weight(width)) + 0.5, self.weight(width), self.weight(width)
        return K.batch_normalization(h, *statistics, axis=axis)


def convolution(net, x):
    return K.relu(net.normalised(K.bias_add(K.conv2d(x, net.weight(3, 3, 3, 4), padding="same"), net.weight(4)), 4))


def two_layers_and_a_skip(net, x):
    h = net.normalised(K.conv2d(x, net.weight(3, 3, 3, 3), padding="same"), 3)
    return K.relu(net.normalised(K.conv2d(K.relu(h), net.weight(3, 3, 3, 3), padding="same"), 3) + h)


def depthwise(net, x):
    return net.normalised(K.depthwise_conv2d(x, net.weight(3, 3, 3, 2), strides=(2, 2)), 6)


def transposed(net, x):
    grown = K.conv2d_transpose(x, net.weight(2, 2, 5, 3), (None, 32, 32, 5), strides=(2, 2))
    return net.normalised(grown, 5)


def dense(net, x):
    rows = K.reshape(x, (-1, 3))[: 16 * 16]
    return net.normalised(K.dot(rows, net.weight(3, 7)) + net.weight(7), 7)


def one_number_for_all(net, x):
    return K.conv2d(x, net.weight(3, 3, 3, 4)) * net.weight() - net.weight(1)


def channels_first(net, x):
    h = K.permute_dimensions(x, (0, 3, 1, 2))
    h = K.conv2d(h, net.weight(3, 3, 3, 4), padding="same", data_format="channels_first")
    return K.relu(net.normalised(h, 4, axis=1))


FOLDED = [convolution, two_layers_and_a_skip, depthwise, transposed, dense, one_number_for_all, channels_first]
PRODUCTS = ("conv", "conv_input_gradient", "matmul")


def built(make, **more):
    net = Network()
    x = K.placeholder(shape=(None, 16, 16, 3), name="x")
    return K.function([x], [make(net, x)], name=make.__name__, **more)


@pytest.mark.parametrize("make", FOLDED)
def test_normalisation_is_in_the_weights(make):
    graph = default().up_to("share").run(built(make).compiled.graph)
    products = [node for node in graph.nodes if node.op.name in PRODUCTS]
    assert products
    for product in products:
        w = product.args[1]
        assert w.op.name == "mul" or w.args[0].op.name == "mul"
    large = [node for node in graph.nodes if node.shape[:1] == products[0].shape[:1] and len(node.shape) > 1]
    assert not [node for node in large if node.op.name in ("mul", "sub")]


@pytest.mark.parametrize("make", FOLDED)
def test_the_values_are_those_of_the_formula(make):
    images = np.random.default_rng(2).normal(size=(2, 16, 16, 3)).astype("float32")
    (folded,), (plain,) = built(make)([images]), built(make, passes=default().without("weights"))([images])
    np.testing.assert_allclose(folded, plain, rtol=1e-4, atol=1e-5)


def test_the_text(golden):
    graph = default().up_to("share").run(built(two_layers_and_a_skip).compiled.graph)
    golden("passes/normalisation_in_weights.txt", dump(graph, lines=False))


def test_new_weights_are_seen_by_the_next_call():
    x, w, s = K.placeholder(shape=(None, 9, 9, 1)), K.variable(np.ones((2, 2, 1, 1))), K.variable([3.0])
    scaled = K.function([x], [K.conv2d(x, w) * s])
    ones = np.ones((1, 9, 9, 1))
    assert set(scaled([ones])[0].flat) == {12.0}
    K.set_value(s, [0.5])
    K.set_value(w, np.full((2, 2, 1, 1), 2.0))
    assert set(scaled([ones])[0].flat) == {4.0}


def test_a_step_that_learns_normalises_what_it_computed():
    net = Network()
    x, w, gamma = K.placeholder(shape=(None, 16, 16, 3), name="x"), net.weight(3, 3, 3, 4), net.weight(4)
    h = K.normalize_batch_in_training(K.conv2d(x, w), gamma, net.weight(4), [0, 1, 2])[0]
    loss = K.mean(K.square(h))
    step = K.function([x], [loss], updates=[(p, p - g) for p, g in zip([w, gamma], K.gradients(loss, [w, gamma]),
                                                                       strict=True)])
    graph = default().up_to("share").run(step.compiled.graph)
    assert [n.args[1].op.name for n in graph.nodes if n.op.name == "conv"] == ["parameter"]


CONV = "conv(x, w) {strides=[1], dilations=[1], low=[0], shape=[30], groups=1}"
STAY = {
    "is used without its scale": f"%0 = {CONV}\n%1 = mul(%0, s)\nreturn %0, %1",
    "the product is used without": f"%0 = {CONV}\n%1 = add(%0, s)\n%2 = mul(%1, s)\n%3 = exp(%1)\nreturn %2, %3",
    "more than variables and constants": f"%0 = {CONV}\n%1 = mul(%0, t)\nreturn %1",
    "not one number a channel": f"%0 = {CONV}\n%1 = mul(%0, r)\nreturn %1",
    "fewer than 4 elements": "%0 = matmul(a, b) {transpose_a=false, transpose_b=false}\n%1 = mul(%0, s)\nreturn %1",
    "not one set for the whole batch": "%0 = matmul(a3, b3) {transpose_a=false, transpose_b=false}\n"
                                       "%1 = mul(%0, s)\nreturn %1",
    "no product of float32 or float64": "%0 = matmul(i, j) {transpose_a=false, transpose_b=false}\n"
                                        "%1 = mul(%0, k)\nreturn %1",
}
PARAMETERS = ("x: f32[n,30,2], t: f32[2], r: f32[30,1], a: f32[n,8], a3: f32[5,90,2], i: i32[90,2]; "
              "w: variable f32[1,2,2], s: variable f32[2], b: variable f32[8,2], b3: variable f32[5,2,2], "
              "j: variable i32[2,2], k: variable i32[2]")


@pytest.mark.parametrize("reason", STAY)
def test_a_scale_that_stays_says_why(reason):
    (graph,) = parse(f"graph g({PARAMETERS})\n{STAY[reason]}\n")
    context = Context(trace=[])
    assert weights.fold_scales(graph, context).roots == graph.roots
    assert any(reason in miss.reason for miss in context.trace)
