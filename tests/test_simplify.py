"""Simplification and folding: every rule on its forms, in shape and in numbers, and what it must leave alone."""

import numpy as np
import pytest
from graphs import closed, commuted, evaluate, tensor

from tensorc.ir.dims import symbol
from tensorc.ir.node import constant
from tensorc.ir.types import bf16, boolean, f16, f32, f64, i8, i16, i32, i64
from tensorc.ops import (
    abs,
    all,
    broadcast,
    cast,
    concatenate,
    cumsum,
    eq,
    exp,
    log,
    logical_and,
    logical_not,
    logical_or,
    lt,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    ne,
    neg,
    normal,
    pad,
    pow,
    prod,
    relu,
    reshape,
    reverse,
    select,
    sigmoid,
    size,
    slice,
    sqrt,
    square,
    stop_gradient,
    sum,
    sum_to,
    tanh,
    transpose,
    uniform,
)
from tensorc.ops.scan import choice
from tensorc.passes import fold, simplify
from tensorc.passes.context import Context
from tensorc.passes.driver import sweep
from tensorc.passes.pipeline import default
from tensorc.passes.rewrite import Missed

N, M = symbol("n"), symbol("m")
X, Y = tensor("x", N, 4), tensor("y", N, 4)
R, S = tensor("r", 4), tensor("s")
I, J = tensor("i", N, dtype=i32), tensor("j", N, dtype=i32)
SMALL = tensor("small", N, dtype=i8)
B, C = tensor("b", N, 4, dtype=boolean), tensor("c", N, 4, dtype=boolean)
T, K = tensor("t", dtype=boolean), tensor("k", N, 1)
P, Q = tensor("p", M, N, 4), tensor("q", M, N, 2)
SIZES = {"n": 3, "m": 2}


def number(value, dtype=f32):
    return constant(value, dtype)


def total(x, *axes, keepdims=False):
    return sum(x, axes=axes, keepdims=keepdims)


def product(a, b):
    return matmul(a, b, transpose_a=True, transpose_b=False)


def rows_of(x):
    return reshape(x, shape=(x.shape[0] * x.shape[1], x.shape[2]))


def spread(x, *shape):
    return broadcast(x, shape=shape)


def piece(x, starts, limits, steps=(1, 1)):
    return slice(x, starts=starts, limits=limits, steps=steps)


ZEROS = spread(number(0.0), N, 4)
CASES = {
    "AddZero": [(X + 0, X), (0 + X, X), (X - 0, X), (R + ZEROS, spread(R, N, 4)), (I + 0, I)],
    "SubFromZero": [(0 - X, -X), (0 - I, -I)],
    "MulOne": [(X * 1, X), (X / 1, X), (pow(X, 1), X), (R * spread(number(1.0), N, 4), spread(R, N, 4)), (I * 1, I)],
    "MulMinusOne": [(X * -1, -X), (X / -1, -X)],
    "MulZero": [(I * 0, spread(number(0, i32), N))],
    "SubSelf": [(I - I, spread(number(0, i32), N))],
    "NegNeg": [(neg(neg(X)), X)],
    "AddNeg": [(X + -Y, X - Y), (-Y + X, X - Y)],
    "SubNeg": [(X - -Y, X + Y)],
    "NegSub": [(-(X - Y), Y - X)],
    "MulNeg": [(-X * Y, -(X * Y)), (X * -Y, -(X * Y)), (-X * -Y, X * Y)],
    "DivNeg": [(-X / Y, -(X / Y)), (X / -Y, -(X / Y))],
    "NegScaled": [(-(X * 2.5), X * -2.5)],
    "MulNumbers": [(X * 2.5 * 3, X * 7.5), (3 * (2.5 * X), X * 7.5), (I * 2 * 3, I * 6)],
    "DivNumbers": [(X / 3 / 5, X / 15)],
    "DivPowerOfTwo": [(X / 4, X * 0.25)],
    "AddNumbers": [(I + 2 + 3, I + 5)],
    "PowZero": [(pow(X, 0), spread(number(1.0), N, 4))],
    "PowTwo": [(pow(X, 2), X * X), (pow(I, 2), I * I)],
    "PowThree": [(pow(X, 3), X * X * X)],
    "PowMinusOne": [(pow(X, -1), 1 / X)],
    "PowHalf": [(pow(square(X), 0.5), sqrt(square(X)))],
    "ExpLog": [(exp(log(abs(X))), abs(X))],
    "AbsNonnegative": [
        (abs(exp(X)), exp(X)), (maximum(square(X), 0), square(X)),
        (maximum(total(X * X, 1) + 4, 0), total(X * X, 1) + 4),
    ],
    "AbsNeg": [(abs(-X), abs(X))],
    "ExtremeSelf": [(maximum(X, X), X), (minimum(X, X), X)],
    "ExtremeNoLimit": [(maximum(X, -np.inf), X), (minimum(X, np.inf), X)],
    "NotNot": [(logical_not(logical_not(B)), B)],
    "NotEqual": [(logical_not(eq(X, Y)), ne(X, Y))],
    "NotUnequal": [(logical_not(ne(X, Y)), eq(X, Y))],
    "TestOfCast": [(ne(cast(B, dtype=f32), 0), B)],
    "LogicNeutral": [(logical_and(B, True), B), (logical_or(False, B), B)],
    "AndFalse": [(logical_and(B, False), spread(number(False, boolean), N, 4))],
    "OrTrue": [(logical_or(B, True), spread(number(True, boolean), N, 4))],
    "SelectTrue": [(select(number(True, boolean), X, Y), X), (select(number(True, boolean), R, Y), spread(R, N, 4))],
    "SelectFalse": [(select(number(False, boolean), X, Y), Y)],
    "SelectSame": [(select(B, X, X), X), (select(B, R, R), spread(R, N, 4))],
    "SelectNot": [(select(logical_not(B), X, Y), select(B, Y, X))],
    "CastSame": [(cast(X, dtype=f32), X)],
    "CastCast": [(cast(cast(X, dtype=f64), dtype=f16), cast(X, dtype=f16)), (cast(cast(X, dtype=f64), dtype=f32), X),
                 (cast(cast(SMALL, dtype=bf16), dtype=f32), cast(SMALL, dtype=f32))],

    "StopGradient": [(stop_gradient(X), X)],
    "SumTo": [
        (sum_to(X, Y), X), (sum_to(X, R), total(X, 0)), (sum_to(X, S), total(X, 0, 1)),
        (sum_to(X, K), total(X, 1, keepdims=True)),
    ],
    "ReshapeSame": [(reshape(X, shape=(N, 4)), X)],
    "ReshapeReshape": [(reshape(reshape(X, shape=(4 * N,)), shape=(4, N)), reshape(X, shape=(4, N)))],
    "ReshapeReduced": [
        (reshape(total(X, 1), shape=(N, 1)), total(X, 1, keepdims=True)),
        (reshape(max(X, axes=(0,), keepdims=True), shape=(4,)), max(X, axes=(0,), keepdims=False)),
    ],
    "BroadcastSame": [(spread(X, N, 4), X)],
    "BroadcastBroadcast": [(spread(spread(R, N, 4), 2, N, 4), spread(R, 2, N, 4))],
    "BroadcastReshape": [(spread(reshape(R, shape=(1, 4)), N, 4), spread(R, N, 4))],
    "ReshapeSpread": [(reshape(spread(S, N, 4), shape=(4, N)), spread(S, 4, N))],
    "ElementwiseOfBroadcast": [
        (X + spread(R, N, 4), X + R),
        (exp(spread(R, N, 4)), spread(exp(R), N, 4)),
        (spread(R, N, 4) * spread(S, N, 4), spread(R * S, N, 4)),
        (select(spread(T, N, 4), X, spread(R, N, 4)), select(T, X, R)),
    ],
    "ElementwiseOfLeadingOnes": [
        (X + reshape(R, shape=(1, 4)), X + R), (X * reshape(number(3.0), shape=(1, 1)), X * 3),
    ],
    "TransposeSame": [(transpose(X, perm=(0, 1)), X)],
    "TransposeTranspose": [(transpose(transpose(X, perm=(1, 0)), perm=(1, 0)), X)],
    "TransposeOnes": [(transpose(K, perm=(1, 0)), reshape(K, shape=(1, N)))],
    "ReverseReverse": [
        (reverse(reverse(X, axes=(0,)), axes=(0,)), X),
        (reverse(reverse(X, axes=(0, 1)), axes=(1,)), reverse(X, axes=(0,))),
    ],
    "ReverseNothing": [(reverse(K, axes=(1,)), K)],
    "SliceAll": [(piece(X, (0, 0), (N, 4)), X)],
    "SliceSlice": [(piece(piece(X, (0, 1), (N, 4)), (0, 1), (N, 3), (1, 2)), piece(X, (0, 2), (N, 4), (1, 2)))],
    "SliceOfConcatenate": [
        (piece(concatenate(X, Y, axis=0), (N, 0), (2 * N, 4)), Y),
        (piece(concatenate(X, Y, axis=1), (0, 5), (N, 7)), piece(Y, (0, 1), (N, 3))),
    ],
    "PadNothing": [(pad(X, low=(0, 0), high=(0, 0), interior=(0, 0)), X)],
    "ConcatenateOne": [(concatenate(X, axis=0), X)],
    "ConcatenateNested": [(concatenate(concatenate(X, Y, axis=0), X, axis=0), concatenate(X, Y, X, axis=0))],
    "ReduceNothing": [(total(X), X), (total(K, 1), reshape(K, shape=(N,)))],
    "ReduceReduced": [
        (total(total(X, 1), 0), total(X, 0, 1)),
        (max(max(X, axes=(0,), keepdims=True), axes=(1,), keepdims=True), max(X, axes=(0, 1), keepdims=True)),
        (all(all(B, axes=(0,), keepdims=False), axes=(0,), keepdims=False), all(B, axes=(0, 1), keepdims=False)),
    ],
    "SumNeg": [(total(-X, 1), -total(X, 1)), (mean(-X, axes=(1,), keepdims=True), -mean(X, axes=(1,), keepdims=True))],
    "SumBroadcast": [
        (total(spread(R, 5, 4), 0), R * 5),
        (total(spread(R, N, 4), 0, 1), total(R, 0) * cast(size(value=N, dtype=i64), dtype=f32)),
        (total(spread(K, N, 4), 1, keepdims=True), K * 4),
        (total(spread(R, 2, N, 4), 0), spread(R * 2, N, 4)),
    ],
    "ExtremeBroadcast": [(max(spread(R, 5, 4), axes=(0,), keepdims=False), R)],
    "SizeNumber": [(X * cast(size(value=7, dtype=i64), dtype=f32), X * 7)],
    "FoldNumbers": [(X * (number(2.0) + number(3.0)), X * 5)],
    "SumOfProducts": [
        (total(product(P, Q), 0), matmul(rows_of(P), rows_of(Q), transpose_a=True, transpose_b=False)),
    ],
    "CondOfKnown": [
        (choice(number(True, boolean), [(X, X)], [cumsum(X, axis=0)], [exp(X)])[0], cumsum(X, axis=0)),
        (choice(number(False, boolean), [(X, X)], [cumsum(X, axis=0)], [exp(X)])[0], exp(X)),
    ],
    "CondOfLight": [
        (choice(T, [(X, X), (Y, Y)], [X + Y], [exp(X)])[0], select(T, X + Y, exp(X))),
    ],
}


def simplified(*outputs, context=None):
    return sweep(closed(*outputs), simplify.RULES, context or Context()).outputs


def arrays():
    rng = np.random.default_rng(11)
    return {
        "x": rng.normal(size=(3, 4)), "y": rng.normal(size=(3, 4)), "r": rng.normal(size=4), "s": rng.normal(),
        "i": rng.integers(-9, 9, 3), "j": rng.integers(-9, 9, 3), "k": rng.normal(size=(3, 1)), "t": np.True_,
        "b": rng.integers(0, 2, (3, 4)), "c": rng.integers(0, 2, (3, 4)),
        "p": rng.normal(size=(2, 3, 4)), "q": rng.normal(size=(2, 3, 2)),
        "small": rng.integers(-128, 128, 3),
    }


@pytest.mark.parametrize("rule", CASES)
def test_rules(rule):
    for before, after in CASES[rule]:
        context = Context()
        (found,) = simplified(before, context=context)
        assert context.firings[rule], f"{rule} does not fire on\n{closed(before)}"
        assert commuted(found) is commuted(after), f"{closed(found)}\nis not\n{closed(after)}"
        wanted = evaluate(closed(before), SIZES, **arrays())[0]
        np.testing.assert_allclose(evaluate(closed(found), SIZES, **arrays())[0], wanted, rtol=1e-5)


def test_every_rule_has_a_case():
    assert {rule.name for rule in simplify.RULES} == CASES.keys()


def test_every_rule_says_its_formula():
    for rule in simplify.RULES:
        assert "→" in (type(rule).__doc__ or ""), rule.name


LEFT_ALONE = {
    "0 · NaN is NaN": (X * 0, "MulZero", "0 · NaN and 0 · inf are NaN"),
    "inf − inf is NaN": (X - X, "SubSelf", "NaN − NaN and inf − inf are NaN"),
    "floats do not add in any order": (
        X + 1e30 + -1e30, "AddNumbers", "the sums round differently: (x + 1e30) − 1e30 is not x",
    ),
    "a product that overflows": (X * 1e30 * 1e30, "MulNumbers", "the factors are not numbers with a normal product"),
    "(−inf)^½ is inf": (pow(X, 0.5), "PowHalf", "x may be negative"),
    "log of a negative is NaN": (exp(log(X)), "ExpLog", "x may be negative, where log gives NaN"),
    "a cast that loses": (cast(cast(X, dtype=f16), dtype=f32), "CastCast", "float16 does not hold every float32"),
    "a cast that loses the last places": (
        cast(cast(X, dtype=bf16), dtype=f32), "CastCast", "bfloat16 does not hold every float32",
    ),
    "neither of two halves holds the other": (
        cast(cast(tensor("h", dtype=f16), dtype=bf16), dtype=f32), "CastCast", "bfloat16 does not hold every float16",
    ),
    "an integer that bfloat16 lacks": (
        cast(cast(tensor("i", dtype=i16), dtype=bf16), dtype=f32), "CastCast", "bfloat16 does not hold every int16",
    ),
    "an integer that float32 lacks": (
        cast(cast(I, dtype=f32), dtype=f64), "CastCast", "float32 does not hold every int32",
    ),
    "3 is no power of two": (X / 3, "DivPowerOfTwo", "3.0 is no power of two"),
    "a slice that goes across": (
        piece(concatenate(X, Y, axis=1), (0, 3), (N, 6)), "SliceOfConcatenate",
        "the slice does not stay within one operand",
    ),
    "a reshape of more than the reduced axes": (
        reshape(total(X, 1), shape=(1, N)), "ReshapeReduced",
        "the reshape does more than to add or drop the reduced axes",
    ),
    "sizes that may be 1": (
        sum_to(X + tensor("z", M, 4), X), "SumTo", "which axes were broadcast is not known",
    ),
    "float16 cannot count": (
        total(spread(tensor("h", dtype=f16), 5), 0), "SumBroadcast", "float16 may not hold how many there are",
    ),
    "bfloat16 cannot count": (
        total(spread(tensor("h", dtype=bf16), 5), 0), "SumBroadcast", "bfloat16 may not hold how many there are",
    ),
    "the maximum of nothing": (
        max(spread(R, N, 4), axes=(0,), keepdims=False), "ExtremeBroadcast", "there may be no element at all",
    ),
    "a sum of what is computed by rows": (
        total(total(exp(X - max(X, axes=(1,), keepdims=True)), 1), 0), "ReduceReduced",
        "x is computed row by row, and its sum with it",
    ),
    "a transpose of long axes": (transpose(X, perm=(1, 0)), "TransposeOnes", "axes longer than 1 change places"),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_is_left_alone(case):
    node, rule, reason = LEFT_ALONE[case]
    trace = []
    assert simplified(node, context=Context(trace=trace)) == (node,)
    assert reason in {m.reason for m in trace if isinstance(m, Missed) and m.rule == rule}


def test_nan_and_inf_stay_where_they_are():
    odd = np.array([[np.nan, np.inf, -np.inf, 0.0]] * 3, np.float32)
    outputs = [
        X * 0, X - X, X / X, pow(X, 0), pow(X, 2), pow(X, 3), pow(X, -1), pow(square(X), 0.5), maximum(X, -np.inf),
        abs(-X), maximum(square(X), 0), -(X * 2.5), X / 4, sum(-X, axes=(0,), keepdims=False),
        exp(log(abs(X))), select(lt(X, Y), X, X), X * 1 + 0,
    ]
    before = evaluate(closed(*outputs), SIZES, x=odd, y=odd)
    after = evaluate(closed(*simplified(*outputs)), SIZES, x=odd, y=odd)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old)


def test_simplified_graphs_do_not_change_again():
    once = simplified(*(before for cases in CASES.values() for before, _ in cases))
    again = Context()
    assert simplified(*once, context=again) == once
    assert not again.firings


# Sharing.

def shared(*outputs):
    return simplify.share(closed(*outputs), Context()).outputs


def test_operands_in_another_order_are_the_same_node():
    first, second = shared(tanh(X * Y), exp(Y * X))
    assert first.x is second.x


def test_a_reduction_is_computed_once_with_and_without_its_axes():
    dropped, kept = shared(total(X, 1), total(X, 1, keepdims=True))
    assert dropped is reshape(kept, shape=(N,))
    assert shared(total(X, 1)) == (total(X, 1),)


# Folding.

def folded(*outputs):
    return sweep(closed(*outputs), (*fold.RULES, *simplify.RULES), Context()).outputs


def test_constants_are_computed_now():
    table = constant(np.arange(6).reshape(2, 3), f32)
    (found,) = folded(tanh(sum(exp(table), axes=(1,), keepdims=False)))
    assert found.op.name == "constant"
    np.testing.assert_allclose(found.value, np.tanh(np.exp(table.value).sum(1)))


def test_what_is_not_folded():
    key = constant([1, 2], i64)
    wide = spread(number(1.0), 4000)
    for node in (uniform(key, shape=(2,), dtype=f32, word=0), normal(key, shape=(2,), dtype=f32), wide,
                 size(value=N, dtype=i64)):
        assert folded(node) == (node,)
    column, row = constant(np.arange(100).reshape(100, 1), f32), constant(np.arange(100), f32)
    assert folded(column * row) == (column * row,)


def test_folding_waits_until_formulas_are_stable():
    big = constant([[1000.0, 999.0]], f32)
    (found,) = default().up_to("expand").run(closed(log(sum(exp(big), axes=(1,), keepdims=False)))).outputs
    np.testing.assert_allclose(found.value, [1000 + np.log1p(np.exp(-1))], rtol=1e-6)


def test_integers_wrap_when_folded():
    (found,) = folded(constant(100, i8) + constant(100, i8))
    assert found.value == np.int8(-56)


def test_operations_made_of_others_are_gone_after_expand():
    outputs = [relu(X), sigmoid(X), square(X), prod(X, axes=(1,), keepdims=False), min(X, axes=(0,), keepdims=True)]
    final = default().up_to("expand").run(closed(*outputs))
    assert not [n for n in final.nodes if n.op.expand]
