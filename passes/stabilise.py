# mypy: allow-untyped-defs, allow-incomplete-defs, no-warn-return-any
"""Formulas that overflow, underflow or cancel become operations that do not.

A rule here keeps the value where the formula as written gives a right one, and gives the right one where it
gives inf, NaN or too few digits.  A clip is part of the value, so log(clip(softmax x)) stays what it is.
"""

from __future__ import annotations

from typing import Any

from tensorc.ir import dims
from tensorc.ir.node import Node, make
from tensorc.ops import (
    abs,
    broadcast,
    cast,
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
    reshape,
    reverse,
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
from tensorc.ops.reduce import count
from tensorc.passes.facts import fitted, same_along
from tensorc.passes.quotients import (
    CancelQuotient,
    DistributeQuotient,
    NormGradient,
    SumOfQuotient,
    normalised,
    opposite,
)
from tensorc.passes.rewrite import No, Rewrite, filled_with

VIEWS = (reshape, transpose, slice, reverse, broadcast)


class LogSumExp(Rewrite):
    """log(sum(exp x)) → logsumexp x

    Blanchard, Higham & Higham, 2021: shifted by max x, exp stays in [0, 1].
    """

    def pattern(self, x, axes, keepdims):
        return log(sum(exp(x), axes=axes, keepdims=keepdims))

    def build(self, x, axes, keepdims):
        return logsumexp(x, axes=axes, keepdims=keepdims)


class LogMeanExp(Rewrite):
    """log(mean(exp x)) → logsumexp x − log n"""

    def pattern(self, x, axes, keepdims):
        return log(mean(exp(x), axes=axes, keepdims=keepdims))

    def build(self, x, axes, keepdims):
        return logsumexp(x, axes=axes, keepdims=keepdims) - log(count(x, axes, x.dtype))


class LogSumExpShifted(Rewrite):
    """logsumexp(x − c) + c → logsumexp x,  for c the same along the axes of the sum"""

    def pattern(self, x, c, d, axes, keepdims):
        return logsumexp(x - c, axes=axes, keepdims=keepdims) + d

    def check(self, x, c, d, axes, keepdims):
        if not same_along(axes, c, len(x.shape)):
            return No("what is subtracted varies along the axes of the sum")
        return _without_axes(d) is _without_axes(c) or No("what is added is not what was subtracted")

    def build(self, node, x, axes, keepdims):
        return fitted(logsumexp(x, axes=axes, keepdims=keepdims), node)


class Softmax(Rewrite):
    """exp(x) / sum(exp x) → softmax x"""

    def pattern(self, x, axes):
        return exp(x) / sum(exp(x), axes=axes, keepdims=True)

    def build(self, x, axes):
        return normalised(x, axes)


class SoftmaxShifted(Rewrite):
    """softmax(x − max x) → softmax x,  log_softmax(x − max x) → log_softmax x,  and so for any number"""

    def pattern(self, x, c, axis):
        return softmax(x - c, axis=axis), log_softmax(x - c, axis=axis)

    def check(self, node, x, c, axis):
        if filled_with(c) is None and (c.op is not max or c.x is not x):
            return No("what is subtracted is neither max x nor a number")
        return same_along((axis,), c, len(x.shape)) or No("what is subtracted varies along the axis")

    def build(self, node, x, axis):
        return make(node.op, x, axis=axis)


class LogSoftmax(Rewrite):
    """log(softmax x) → log_softmax x"""

    def pattern(self, x, axis):
        return log(softmax(x, axis=axis))

    def build(self, x, axis):
        return log_softmax(x, axis=axis)


class ExpLogSoftmax(Rewrite):
    """exp(log_softmax x) → softmax x"""

    def pattern(self, x, axis):
        return exp(log_softmax(x, axis=axis))

    def build(self, x, axis):
        return softmax(x, axis=axis)


class LogOfView(Rewrite):
    """log(view(p)) → view(log p)  for views of a softmax or sigmoid, so that the logarithm meets it"""

    def pattern(self, x):
        return log(x)

    def concerns(self, op, operands):
        return operands[0] in VIEWS

    def check(self, x):
        while x.op in VIEWS:
            x = x.args[0]
        return x.op in (softmax, sigmoid) or No(f"it is a view of {x.op.name}, neither softmax nor sigmoid")

    def build(self, x):
        return make(x.op, log(x.args[0]), **x.attrs)


class Sigmoid(Rewrite):
    """1 / (1 + exp(−x)) → sigmoid x"""

    def pattern(self, x):
        return 1 / (1 + exp(x))

    def build(self, node, x):
        return fitted(sigmoid(-x), node)


class SigmoidOfExp(Rewrite):
    """exp(x) / (1 + exp x) → sigmoid x"""

    def pattern(self, x):
        return exp(x) / (1 + exp(x))

    def build(self, node, x):
        return fitted(sigmoid(x), node)


class Tanh(Rewrite):
    """(exp x − exp(−x)) / (exp x + exp(−x)) → tanh x"""

    def pattern(self, x, y):
        return (exp(x) - exp(y)) / (exp(x) + exp(y))

    def check(self, x, y):
        return opposite(x, y) or No("the exponents are not opposite")

    def build(self, x):
        return tanh(x)


class LogSigmoid(Rewrite):
    """log(sigmoid x) → log_sigmoid x"""

    def pattern(self, x):
        return log(sigmoid(x))

    def build(self, x):
        return log_sigmoid(x)


class LogOneMinusSigmoid(Rewrite):
    """log(1 − sigmoid x) → log_sigmoid(−x)"""

    def pattern(self, x):
        return log(1 - sigmoid(x)), log1p(-sigmoid(x))

    def build(self, node, x):
        return fitted(log_sigmoid(-x), node)


class Softplus(Rewrite):
    """log(1 + exp x) → softplus x"""

    def pattern(self, x):
        return log(1 + exp(x)), log1p(exp(x))

    def build(self, node, x):
        return fitted(softplus(x), node)


class SoftplusShifted(Rewrite):
    """x + softplus(−x) → softplus x,  max(x, 0) + softplus(−|x|) → softplus x"""

    def pattern(self, x):
        return x + softplus(-x), maximum(x, 0) + softplus(-abs(x))

    def build(self, node, x):
        return fitted(softplus(x), node)


class Log1p(Rewrite):
    """log(1 + x) → log1p x"""

    def pattern(self, x):
        return log(1 + x)

    def build(self, node, x):
        return fitted(log1p(x), node)


class Log1pNeg(Rewrite):
    """log(1 − x) → log1p(−x)"""

    def pattern(self, x):
        return log(1 - x)

    def build(self, node, x):
        return fitted(log1p(-x), node)


class Expm1(Rewrite):
    """exp(x) − 1 → expm1 x"""

    def pattern(self, x):
        return exp(x) - 1, exp(x) + -1

    def build(self, node, x):
        return fitted(expm1(x), node)


class OneMinusExp(Rewrite):
    """1 − exp x → −expm1 x"""

    def pattern(self, x):
        return 1 - exp(x)

    def build(self, node, x):
        return fitted(-expm1(x), node)


class LogExp(Rewrite):
    """log(exp x) → x"""

    def pattern(self, x):
        return log(exp(x))

    def build(self, x):
        return x


class SqrtSquare(Rewrite):
    """sqrt(x²) → |x|"""

    def pattern(self, x):
        return sqrt(square(x))

    def build(self, x):
        return abs(x)


class MulSelf(Rewrite):
    """x · x → x²:  one spelling for the rules"""

    def pattern(self, x):
        return x * x

    def build(self, x):
        return square(x)


class MeanOfSum(Rewrite):
    """sum(x) / n → mean x,  for n the number of elements"""

    def pattern(self, x, axes, keepdims, n):
        return sum(x, axes=axes, keepdims=keepdims) / n

    def check(self, node, x, axes, n):
        if not x.dtype.is_float:
            return No("not floats")
        many = _number(n)
        meant = dims.product(x.shape[a] for a in axes)
        return many == meant or No(f"{many} is not {meant}, the number of elements")

    def build(self, node, x, axes, keepdims):
        return fitted(mean(x, axes=axes, keepdims=keepdims), node)


class Variance(Rewrite):
    """mean(x²) − mean(x)² → variance x,  which does not cancel

    Chan, Golub & LeVeque, 1983.
    """

    def pattern(self, x, axes, keepdims):
        return mean(square(x), axes=axes, keepdims=keepdims) - square(mean(x, axes=axes, keepdims=keepdims))

    def check(self, x):
        return x.dtype.is_float or No(f"x is {x.dtype}, whose means are cut")

    def build(self, x, axes, keepdims):
        return variance(x, axes=axes, keepdims=keepdims)


class SigmoidCrossEntropy(Rewrite):
    """t · log_sigmoid(x) + (1 − t) · log_sigmoid(−x) → −sigmoid_cross_entropy(t, x)"""

    def pattern(self, t, x, y):
        return t * log_sigmoid(x) + (1 - t) * log_sigmoid(y)

    def check(self, x, y):
        return opposite(x, y) or No("the logits are not opposite")

    def build(self, node, t, x):
        return fitted(-sigmoid_cross_entropy(t, x), node)


class SigmoidCrossEntropyGradient(Rewrite):
    """t · sigmoid(−x) − (1 − t) · sigmoid(x) → t − sigmoid x"""

    def pattern(self, t, x, y):
        return t * sigmoid(y) - (1 - t) * sigmoid(x), t * sigmoid(y) + (t - 1) * sigmoid(x)

    def check(self, x, y):
        return opposite(x, y) or No("the logits are not opposite")

    def build(self, node, t, x):
        return fitted(t - sigmoid(x), node)


def _number(n: Node) -> Any | None:
    """The number or size that a node stands for, or None."""
    if n.op is cast:
        n = n.x
    return n.value if n.op is size else filled_with(n)


def _without_axes(c: Node) -> Node:
    """c as it is without axes of size 1 that a view or keepdims added: two such nodes hold the same numbers."""
    while c.op is reshape and [n for n in c.shape if n != 1] == [n for n in c.args[0].shape if n != 1]:
        c = c.args[0]
    if c.attrs.get("keepdims"):
        return make(c.op, *c.args, **{**c.attrs, "keepdims": False})
    return c


RULES = (
    MulSelf(), MeanOfSum(),
    LogSumExp(), LogMeanExp(), LogSumExpShifted(),
    Softmax(), SoftmaxShifted(), LogSoftmax(), ExpLogSoftmax(), LogOfView(),
    Sigmoid(), SigmoidOfExp(), Tanh(), LogSigmoid(), LogOneMinusSigmoid(),
    Softplus(), SoftplusShifted(), Log1p(), Log1pNeg(), Expm1(), OneMinusExp(), LogExp(),
    SqrtSquare(), Variance(), SigmoidCrossEntropy(), SigmoidCrossEntropyGradient(),
    CancelQuotient(), SumOfQuotient(), DistributeQuotient(), NormGradient(),
)
