"""Stabilisation: every rule on its form, what must stay, and values and gradients of unstable formulas far out."""

import numpy as np
import pytest
from graphs import closed, commuted, evaluate, tensor
from scipy import special

from tensorc.autodiff import gradients
from tensorc.ir.dims import symbol
from tensorc.ir.node import constant
from tensorc.ir.types import f32, i32, i64
from tensorc.ops import (
    abs,
    broadcast,
    cast,
    clip,
    exp,
    expm1,
    log,
    log1p,
    log_sigmoid,
    log_softmax,
    logsumexp,
    max,
    maximum,
    mean,
    mul,
    pow,
    reshape,
    sigmoid,
    sigmoid_cross_entropy,
    size,
    slice,
    softmax,
    softplus,
    sqrt,
    square,
    sum,
    tanh,
    transpose,
    variance,
)
from tensorc.passes.context import Context
from tensorc.passes.pipeline import default
from tensorc.passes.rewrite import Missed

N = symbol("n")
X, T = tensor("x", N, 4), tensor("t", N, 4)
G = tensor("g", N)


def total(x, keepdims=False, axes=(1,)):
    return sum(x, axes=axes, keepdims=keepdims)


def largest(x, keepdims=True):
    return max(x, axes=(1,), keepdims=keepdims)


def average(x):
    return mean(x, axes=(1,), keepdims=False)


def simplified(*outputs, context=None):
    return default().up_to("simplify").run(closed(*outputs), context).outputs


E, S, P = exp(X), sigmoid(X), softmax(X, axis=1)
COUNT = cast(size(value=N, dtype=i64), dtype=f32)

FORMS = {
    "log(sum(exp x))": (log(total(E)), logsumexp(X, axes=(1,), keepdims=False)),
    "all axes, kept": (log(total(E, True, (0, 1))), logsumexp(X, axes=(0, 1), keepdims=True)),
    "log(mean(exp x))": (log(average(E)), logsumexp(X, axes=(1,), keepdims=False) - log(constant(4.0, f32))),
    "shifted, kept": (log(total(exp(X - largest(X)), True)) + largest(X), logsumexp(X, axes=(1,), keepdims=True)),
    "shifted, not kept": (largest(X, False) + log(total(exp(X - largest(X)))), logsumexp(X, axes=(1,), keepdims=False)),
    "shifted, by a view": (log(total(exp(X - reshape(G, shape=(N, 1))))) + G, logsumexp(X, axes=(1,), keepdims=False)),

    "exp x / sum(exp x)": (E / total(E, True), P),
    "spread by hand": (E / broadcast(reshape(total(E), shape=(N, 1)), shape=(N, 4)), P),
    "times the reciprocal": (E * (1 / total(E, True)), P),
    "over the first axis": (E / total(E, axes=(0,)), softmax(X, axis=0)),
    "over two axes": (E / total(E, axes=(0, 1)), exp(X - logsumexp(X, axes=(0, 1), keepdims=True))),
    "softmax, shifted by its maximum": (exp(X - largest(X)) / total(exp(X - largest(X)), True), P),
    "softmax, shifted by a number": (softmax(X - 3, axis=1), P),
    "log(softmax x)": (log(P), log_softmax(X, axis=1)),
    "log of softmax by hand": (log(E / total(E, True)), log_softmax(X, axis=1)),
    "log of a piece of softmax": (
        log(slice(transpose(P, perm=(1, 0)), starts=(1, 0), limits=(2, N), steps=(1, 1))),
        slice(transpose(log_softmax(X, axis=1), perm=(1, 0)), starts=(1, 0), limits=(2, N), steps=(1, 1)),
    ),
    "exp(log_softmax x)": (exp(log_softmax(X, axis=1)), P),
    "softmax cross-entropy": (-total(T * log(P)), -total(T * log_softmax(X, axis=1))),

    "1 / (1 + exp(−x))": (1 / (1 + exp(-X)), S),
    "1 / (exp(−x) + 1)": (1 / (exp(-X) + 1), S),
    "(1 + exp(−x))⁻¹": (pow(1 + exp(-X), -1), S),
    "exp x / (1 + exp x)": (E / (1 + E), S),
    "1 / (1 + exp(−2x))": (1 / (1 + exp(X * -2)), sigmoid(X * 2)),
    "log(sigmoid x)": (log(S), log_sigmoid(X)),
    "log of sigmoid by hand": (log(1 / (1 + exp(-X))), log_sigmoid(X)),
    "log(1 − sigmoid x)": (log(1 - S), log_sigmoid(-X)),
    "log1p(−sigmoid x)": (log1p(-S), log_sigmoid(-X)),
    "log of a view of sigmoid": (log(reshape(S, shape=(4 * N,))), reshape(log_sigmoid(X), shape=(4 * N,))),
    "tanh": ((E - exp(-X)) / (E + exp(-X)), tanh(X)),
    "sigmoid cross-entropy": (-(T * log(S) + (1 - T) * log(1 - S)), sigmoid_cross_entropy(T, X)),
    "the other way round": (-((1 - T) * log(1 - S) + T * log(S)), sigmoid_cross_entropy(T, X)),

    "log(1 + exp x)": (log(1 + E), softplus(X)),
    "log1p(exp x)": (log1p(E), softplus(X)),
    "x + log(1 + exp(−x))": (X + log(1 + exp(-X)), softplus(X)),
    "max(x, 0) + log(1 + exp(−|x|))": (maximum(X, 0) + log1p(exp(-abs(X))), softplus(X)),
    "log(1 + x)": (log(1 + X), log1p(X)),
    "log(1 − x)": (log(1 - X), log1p(-X)),
    "exp(x) − 1": (E - 1, expm1(X)),
    "exp(x) + −1": (E + -1, expm1(X)),
    "1 − exp x": (1 - E, -expm1(X)),
    "log(exp x)": (log(E), X),
    "sqrt(x²)": (sqrt(X * X), abs(X)),

    "mean(x²) − mean(x)²": (average(square(X)) - square(average(X)), variance(X, axes=(1,), keepdims=False)),
    "by powers and sums": (
        total(pow(X, 2)) / 4 - pow(total(X) / 4, 2),
        variance(X, axes=(1,), keepdims=False),
    ),
    "sum(x) / n": (total(X, axes=(0,)) / COUNT, mean(X, axes=(0,), keepdims=False)),

    "x / ‖x‖ stays": (X / sqrt(total(square(X), True)), X / sqrt(total(square(X), True))),
    "gradient of log(sum(exp x))": (broadcast(reshape(G / total(E), shape=(N, 1)), shape=(N, 4)) * E,
                                    mul(reshape(G, shape=(N, 1)), P)),
    "gradient of log(sigmoid x)": (T / S * (S * (1 - S)), T * sigmoid(-X)),
    "gradient of log(1 − sigmoid x)": (-(T / (1 - S)) * (S * (1 - S)), -(T * S)),
    "gradient of log(1 + exp x)": (T / (1 + E) * E, T * S),
    "gradient of sigmoid cross-entropy": ((T / S - (1 - T) / (1 - S)) * (S * (1 - S)), T - S),
    "gradient of log(softmax x)": ((T / P - total(T / P * P, True)) * P, T - mul(P, total(T, True))),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    before, after = FORMS[form]
    (found,) = simplified(before)
    assert commuted(found) is commuted(after), f"{closed(found)}\nis not\n{closed(after)}"


@pytest.mark.parametrize("form", FORMS)
def test_forms_keep_their_values(form):
    before, after = FORMS[form]
    rng = np.random.default_rng(3)
    arrays = {"x": rng.uniform(0.1, 0.9, (3, 4)), "t": rng.uniform(0, 1, (3, 4)), "g": rng.uniform(0, 1, 3)}
    wanted, found, final = (
        evaluate(graph, {"n": 3}, **arrays)[0]
        for graph in (closed(before), closed(after), default().up_to("share").run(closed(before)))
    )
    np.testing.assert_allclose(found, wanted, rtol=3e-5, atol=1e-6)
    np.testing.assert_allclose(final, wanted, rtol=3e-5, atol=1e-6)


# What must stay.

STAYS = {
    "a clip is part of the value": (log(clip(P, constant(1e-7, f32), constant(1 - 1e-7, f32))), {"log_softmax"}),
    "so is one by max": (log(maximum(S, 1e-7)), {"log_sigmoid"}),
    "an epsilon too": (log(P + 1e-7), {"log_softmax"}),
    "the sum of another exp": (E / total(exp(T), True), {"softmax"}),
    "a weighted sum": (log(total(E * T)), {"logsumexp"}),
    "a shift that is not undone": (log(total(exp(X - largest(X)))) + G, {"softmax"}),
    "a shift that varies": (log(total(exp(X - T))) + G, {"softmax"}),
    "factors that may be 0": (T / X * X, {"softmax", "sigmoid"}),
    "2 + exp": (T / (2 + E) * E, {"sigmoid"}),
    "logits that are not opposite": (T * log_sigmoid(X) + (1 - T) * log_sigmoid(T), {"sigmoid_cross_entropy"}),
    "another number of elements": (total(X) / 5, {"mean"}),
    "the mean of something else": (average(square(X)) - square(average(T)), {"variance"}),
}


@pytest.mark.parametrize("form", STAYS)
def test_what_must_stay(form):
    node, unwanted = STAYS[form]
    (found,) = simplified(node)
    assert not unwanted & ({n.op.name for n in closed(found).nodes} - {n.op.name for n in closed(node).nodes})
    rng = np.random.default_rng(5)
    arrays = {"x": rng.normal(size=(3, 4)), "t": rng.uniform(0.1, 1, (3, 4)), "g": rng.normal(size=3)}
    wanted = evaluate(closed(node), {"n": 3}, **arrays)[0]
    np.testing.assert_allclose(evaluate(closed(found), {"n": 3}, **arrays)[0], wanted, rtol=1e-5)


def test_0_over_0_stays_nan():
    zeros = np.zeros((1, 4), np.float32)
    found = evaluate(default().up_to("share").run(closed(T / X * X, X / X)), {"n": 1}, x=zeros, t=zeros)
    assert np.isnan(found[0]).all()
    assert np.isnan(found[1]).all()


def test_the_reason_is_told():
    trace = []
    simplified(T * log_sigmoid(X) + (1 - T) * log_sigmoid(T), total(X) / 5, context=Context(trace=trace))
    reasons = {m.rule: m.reason for m in trace if isinstance(m, Missed)}
    assert reasons["SigmoidCrossEntropy"] == "the logits are not opposite"
    assert "5.0 is not 4, the number of elements" in {m.reason for m in trace if isinstance(m, Missed)}
    trace.clear()
    simplified(log(clip(P, constant(1e-7, f32), constant(1.0, f32))), context=Context(trace=trace))
    assert {m.reason for m in trace if m.rule == "LogSoftmax"} == {"clip: f32[n,4] is no softmax"}


# Far out, through the whole pipeline.

FAR = np.array([[300, -300, 0, 1], [1e4, -1e4, 5, 9.9e3], [-1e4, -300, -1e4, -9.5e3], [0.1, 0.2, -0.3, 2]], np.float32)
TARGET = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0.5, 0, 0.5, 0], [0.25, 0.25, 0.5, 0]], np.float32)
WIDE, WEIGHT = FAR.astype(np.float64), TARGET.astype(np.float64)
SOFT = special.softmax(WIDE, 1)
LOG_SOFT = special.log_softmax(WIDE, 1)
SIGMOID = special.expit(WIDE)
CROSS = np.logaddexp(0, WIDE) - WIDE * WEIGHT

BY_HAND = E / total(E, True)
SIGMOID_BY_HAND = 1 / (1 + exp(-X))

UNSTABLE = {
    "log(sum(exp))": (log(total(E)), special.logsumexp(WIDE, 1), SOFT),
    "log(sum(exp)), kept": (log(total(E, True)), special.logsumexp(WIDE, 1, keepdims=True), SOFT),
    "log(mean(exp))": (log(average(E)), special.logsumexp(WIDE, 1) - np.log(4), SOFT),
    "softmax by hand": (T * BY_HAND, WEIGHT * SOFT, SOFT * (WEIGHT - (WEIGHT * SOFT).sum(1, keepdims=True))),
    "log(softmax)": (T * log(P), WEIGHT * LOG_SOFT, WEIGHT - SOFT * WEIGHT.sum(1, keepdims=True)),
    "log of softmax by hand": (T * log(BY_HAND), WEIGHT * LOG_SOFT, WEIGHT - SOFT * WEIGHT.sum(1, keepdims=True)),
    "cross-entropy": (-total(T * log(P)), -(WEIGHT * LOG_SOFT).sum(1), SOFT * WEIGHT.sum(1, keepdims=True) - WEIGHT),
    "mean cross-entropy": (
        mean(-total(T * log(BY_HAND)), axes=(0,), keepdims=False),
        -(WEIGHT * LOG_SOFT).sum(1).mean(),
        (SOFT * WEIGHT.sum(1, keepdims=True) - WEIGHT) / 4,
    ),
    "log(sigmoid)": (log(S), -np.logaddexp(0, -WIDE), special.expit(-WIDE)),
    "log of sigmoid by hand": (
        T * log(SIGMOID_BY_HAND), -WEIGHT * np.logaddexp(0, -WIDE), WEIGHT * special.expit(-WIDE),
    ),
    "log(1 − sigmoid)": (T * log(1 - S), -WEIGHT * np.logaddexp(0, WIDE), -WEIGHT * SIGMOID),
    "log(1 − sigmoid by hand)": (log(1 - SIGMOID_BY_HAND), -np.logaddexp(0, WIDE), -SIGMOID),
    "sigmoid by hand": (SIGMOID_BY_HAND, SIGMOID, SIGMOID * special.expit(-WIDE)),
    "exp / (1 + exp)": (E / (1 + E), SIGMOID, SIGMOID * special.expit(-WIDE)),
    "tanh by hand": (
        (E - exp(-X)) / (E + exp(-X)), np.tanh(WIDE), 4 * special.expit(2 * WIDE) * special.expit(-2 * WIDE),
    ),
    "log(1 + exp)": (log(1 + E), np.logaddexp(0, WIDE), SIGMOID),
    "log1p(exp)": (T * log1p(E), WEIGHT * np.logaddexp(0, WIDE), WEIGHT * SIGMOID),
    "log(1 + exp(−x))": (log(1 + exp(-X)), np.logaddexp(0, -WIDE), -special.expit(-WIDE)),
    "binary cross-entropy": (-(T * log(S) + (1 - T) * log(1 - S)), CROSS, SIGMOID - WEIGHT),
    "binary cross-entropy by hand": (
        -(T * log(SIGMOID_BY_HAND) + (1 - T) * log(1 - SIGMOID_BY_HAND)), CROSS, SIGMOID - WEIGHT,
    ),
    "mean binary cross-entropy": (
        average(-(T * log(S) + (1 - T) * log(1 - S))), CROSS.mean(1), (SIGMOID - WEIGHT) / 4,
    ),
    "log(exp)": (log(E), WIDE, np.ones_like(WIDE)),
}


@pytest.mark.parametrize("formula", UNSTABLE)
def test_values_and_gradients_far_out(formula):
    node, value, slope = UNSTABLE[formula]
    (gradient,) = gradients([node], None, [X])
    final = default().up_to("share").run(closed(node, gradient))
    found = evaluate(final, {"n": 4}, x=FAR, t=TARGET)
    np.testing.assert_allclose(found[0], value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", [
    sqrt(total(square(X))),
    sqrt(maximum(total(X * X), 0)),
    mean(sqrt(total(square(X), True)), axes=(0,), keepdims=False),
])
def test_the_gradient_of_a_norm_is_0_at_0(norm):
    (gradient,) = gradients([norm], None, [X])
    x = np.array([[3, 0, -4, 0], [0, 0, 0, 0]], np.float32)
    (found,) = evaluate(default().up_to("share").run(closed(gradient)), {"n": 2}, x=x)
    np.testing.assert_allclose(found * (2 if norm.op is mean else 1), [[0.6, 0, -0.8, 0], [0, 0, 0, 0]], rtol=1e-6)


def test_variance_does_not_cancel():
    x = (1e4 + np.arange(8).reshape(2, 4)).astype(np.float32)
    node = average(square(X)) - square(average(X))
    (found,) = evaluate(default().up_to("share").run(closed(node)), {"n": 2}, x=x)
    np.testing.assert_allclose(found, [1.25, 1.25], rtol=1e-6)


def test_the_variance_of_integers_stays_as_it_is_written():
    x = tensor("x", N, 4, dtype=i32)
    node = average(square(x)) - square(average(x))
    value = np.arange(8, dtype=np.int32).reshape(2, 4)
    (found,) = evaluate(default().up_to("share").run(closed(node)), {"n": 2}, x=value)
    np.testing.assert_array_equal(found, [2, 6])


def test_small_arguments_keep_their_digits():
    x = np.full((1, 4), 1e-6, np.float32)
    for node, wanted in ((log(1 + X), np.log1p(1e-6)), (exp(X) - 1, np.expm1(1e-6)), (log(1 - X), np.log1p(-1e-6))):
        (found,) = evaluate(default().up_to("share").run(closed(node)), {"n": 1}, x=x)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
