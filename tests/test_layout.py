"""Layout: transposes that are read in place, cancel, or stay with a reason."""

import numpy as np
import pytest
from graphs import closed, commuted, evaluate, tensor

from tensorc.autodiff import gradients
from tensorc.ir.dims import symbol
from tensorc.ops import (
    argmax,
    broadcast,
    concatenate,
    conv,
    exp,
    gt,
    matmul,
    max,
    maximum,
    pad,
    reshape,
    reverse,
    select,
    slice,
    sum,
    tanh,
    transpose,
)
from tensorc.passes import layout
from tensorc.passes.context import Context
from tensorc.passes.pipeline import default

N = symbol("n")
A, B, W = tensor("a", N, 4), tensor("b", N, 4), tensor("w", 4, 4)
Q, K, H = tensor("q", N, 5, 4), tensor("k", N, 5, 4), tensor("h", 5, N, 4)
V, B_TURNED = tensor("v", 4), tensor("bt", 4, N)
IMAGE, KERNEL = tensor("image", N, 4, 5), tensor("kernel", 3, 4, 4)
WIDE, BIAS, STEPS = tensor("wide", 4, 9), tensor("bias", 9), tensor("steps", 5, N, 9)
SIZES = {"n": 3}


def arrays():
    rng = np.random.default_rng(7)
    shapes = {"a": (3, 4), "b": (3, 4), "w": (4, 4), "q": (3, 5, 4), "k": (3, 5, 4), "h": (5, 3, 4), "v": (4,),
              "bt": (4, 3), "image": (3, 4, 5), "kernel": (3, 4, 4), "wide": (4, 9), "bias": (9,), "steps": (5, 3, 9)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def flip(x, perm=(1, 0)):
    return transpose(x, perm=perm)


def product(a, b, ta=False, tb=False):
    return matmul(a, b, transpose_a=ta, transpose_b=tb)


def rows(x):
    """One below the other."""
    return reshape(x, shape=(5 * N, x.shape[-1]))


def convolved(x):
    return conv(x, KERNEL, strides=(1,), dilations=(1,), low=(1,), shape=(5,), groups=1)


def total(x, *axes, keepdims=False):
    return sum(x, axes=axes, keepdims=keepdims)


def assigned(*outputs, context=None):
    return layout.assign(closed(*outputs), context or Context()).outputs


LAST = (0, 2, 1)
CASES = {
    "the left of a product": (product(flip(A), B), product(A, B, ta=True)),
    "the right of a product": (product(A, flip(B)), product(A, B, tb=True)),
    "both": (product(flip(W), flip(A)), product(W, A, ta=True, tb=True)),
    "of a product": (flip(product(A, W)), product(W, A, ta=True, tb=True)),
    "one that is read transposed already": (product(flip(A), B, ta=True, tb=True), product(A, B, tb=True)),
    "a batch": (product(Q, flip(K, LAST)), product(Q, K, tb=True)),
    "the rest of a batch": (product(Q, flip(flip(H, (1, 0, 2)), LAST)), product(Q, flip(H, (1, 0, 2)), tb=True)),
    "a sum over rows": (total(flip(A), 1), total(A, 0)),
    "a sum over some axes": (total(flip(Q, (2, 0, 1)), 0, 2), total(Q, 1, 2)),
    "kept axes": (total(flip(A), 1, keepdims=True), reshape(total(A, 0, keepdims=True), shape=(4, 1))),
    "a maximum that leaves two axes": (
        max(flip(Q, (2, 1, 0)), axes=(0,), keepdims=False), flip(max(Q, axes=(2,), keepdims=False)),
    ),
    "argmax": (argmax(flip(A), axis=0), argmax(A, axis=1)),
    "elementwise in between": (flip(tanh(flip(A))), tanh(A)),
    "two that agree": (flip(flip(A) * flip(B) + flip(A)), A * B + A),
    "a bias in between": (
        flip(maximum(flip(Q, LAST) + reshape(V, shape=(4, 1)), 0), LAST),
        maximum(Q + V, 0),
    ),
    "elementwise before a product": (product(tanh(flip(A)), B), product(tanh(A), B, ta=True)),
    "elementwise before a sum": (total(exp(flip(A)), 1), total(exp(A), 0)),
    "a piece": (
        slice(flip(A), starts=(1, 0), limits=(2, N), steps=(1, 1)),
        reshape(slice(A, starts=(0, 1), limits=(N, 2), steps=(1, 1)), shape=(1, N)),
    ),
    "pieces together": (flip(concatenate(flip(A), flip(B), axis=1)), concatenate(A, B, axis=0)),
    "what is padded": (
        flip(pad(flip(A), low=(1, 0), high=(0, 2), interior=(0, 1))), pad(A, low=(0, 1), high=(2, 0), interior=(1, 0)),
    ),
    "what is turned round": (flip(reverse(flip(A), axes=(0,))), reverse(A, axes=(1,))),
    "a reshape of neighbours": (
        flip(reshape(flip(Q, (2, 0, 1)), shape=(4, 5 * N))), reshape(Q, shape=(5 * N, 4)),
    ),
    "axes of size 1": (
        flip(exp(reshape(flip(Q, (0, 2, 1)), shape=(N, 4, 5, 1))), (0, 2, 3, 1)),
        exp(reshape(Q, shape=(N, 5, 1, 4))),
    ),
    "images enlarged": (
        flip(reshape(broadcast(reshape(flip(Q, (0, 2, 1)), shape=(N, 4, 5, 1)), shape=(N, 4, 5, 3)),
                     shape=(N, 4, 15)), LAST),
        reshape(broadcast(reshape(Q, shape=(N, 5, 1, 4)), shape=(N, 5, 3, 4)), shape=(N, 15, 4)),
    ),
    "images enlarged and changed": (
        flip(exp(reshape(broadcast(reshape(flip(Q, (0, 2, 1)), shape=(N, 4, 5, 1)), shape=(N, 4, 5, 3)),
                         shape=(N, 4, 15))), LAST),
        exp(reshape(broadcast(reshape(Q, shape=(N, 5, 1, 4)), shape=(N, 5, 3, 4)), shape=(N, 15, 4))),
    ),
    "what follows a product": (tanh(flip(convolved(Q), LAST)), flip(tanh(convolved(Q)), LAST)),
    "a parameter that is turned anyway": (
        convolved(flip(exp(flip(convolved(flip(IMAGE, LAST)), LAST)) + IMAGE, LAST)),
        convolved(exp(convolved(flip(IMAGE, LAST))) + flip(IMAGE, LAST)),
    ),
    "the rows of a wider product": (
        flip(tanh(reshape(product(rows(Q), WIDE), shape=(N, 5, 9)) + BIAS), (1, 0, 2)),
        tanh(reshape(product(rows(flip(Q, (1, 0, 2))), WIDE), shape=(5, N, 9)) + BIAS),
    ),
    "wide rows that are summed over": (
        product(rows(Q), rows(flip(STEPS, (1, 0, 2))), ta=True),
        product(rows(flip(Q, (1, 0, 2))), rows(STEPS), ta=True),
    ),
    "a mask in the way": (
        flip(select(gt(B_TURNED, 0.5), exp(exp(flip(A))), flip(A))), select(flip(gt(B_TURNED, 0.5)), exp(exp(A)), A),
    ),
    "what is repeated": (flip(broadcast(V, shape=(N, 4))), broadcast(reshape(V, shape=(4, 1)), shape=(4, N))),
}


@pytest.mark.parametrize("case", CASES)
def test_transposes_go(case):
    before, after = CASES[case]
    (found,) = assigned(before)
    assert commuted(found) is commuted(after), f"{closed(found)}\nis not\n{closed(after)}"
    wanted = evaluate(closed(before), SIZES, **arrays())[0]
    np.testing.assert_allclose(evaluate(closed(found), SIZES, **arrays())[0], wanted, rtol=1e-5, atol=1e-6)


def test_every_rule_fires_in_some_case():
    context = Context()
    for before, _ in CASES.values():
        assigned(before, context=context)
    assert {rule.name for rule in layout.RULES} <= context.firings.keys()


STAY = {
    "into the caller's hands": flip(A),
    "before a reshape": reshape(flip(A), shape=(2, 2 * N)),
    "where sinking would gain nothing": (tanh(flip(A))),
    "where one would take the place of another": flip(A) + reshape(B, shape=(4, N)),
    "two that differ": flip(Q, (1, 0, 2)) + reshape(flip(K, (2, 0, 1)), shape=(5, N, 4)),
    "a product of other axes": product(flip(Q, (1, 0, 2)), W),
    "the rows of a product as wide as its operand": flip(reshape(product(rows(Q), W), shape=(N, 5, 4)), (1, 0, 2)),
    "rows summed over beside wider ones": product(rows(STEPS), rows(flip(Q, (1, 0, 2))), ta=True),
}


@pytest.mark.parametrize("case", STAY)
def test_transposes_stay_with_a_reason(case):
    context = Context()
    assert assigned(STAY[case], context=context) == (STAY[case],)
    left = [n for n in closed(STAY[case]).nodes if n.op is transpose]
    assert left
    assert all(context.notes[n].startswith("stays, as ") for n in left)


def test_the_reason_names_who_wants_it():
    context = Context()
    assigned(flip(A), reshape(flip(A), shape=(2, 2 * N)), context=context)
    assert context.notes == {flip(A): "stays, as reshape and the caller want the axes of a as [1, 0]"}


def test_a_transpose_with_other_users_is_not_sunk_for_nothing():
    shared = flip(A)
    outputs = (tanh(shared), reshape(shared, shape=(2, 2 * N)))
    assert assigned(*outputs) == outputs


def test_a_product_that_is_used_both_ways_is_computed_once():
    outputs = (flip(product(A, W)), product(A, W))
    assert assigned(*outputs) == outputs


def test_the_gradient_of_a_layer_needs_no_transpose():
    w = tensor("w", 4, 4, role="variable")
    loss = total(tanh(product(flip(flip(A)), flip(w))), 0, 1)
    found = gradients([loss], None, [w, A])
    final = default().up_to("layout").run(closed(loss, *found))
    assert not [n for n in final.nodes if n.op is transpose]
