"""Operations on each element by itself; operands broadcast as in NumPy.

A gradient may leave the operands' broadcast shape as it is: differentiation sums it back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorc.errors import DTypeError
from tensorc.ir.node import Node, Op
from tensorc.ir.node import constant as number
from tensorc.ir.types import DType, TensorType, bf16, boolean, f16, f32, f64, i8, i32, i64, u8
from tensorc.ops import special
from tensorc.ops.define import NoGradient, defop
from tensorc.ops.infer import broadcast_shapes, elementwise, same_dtype
from tensorc.ops.sample import binary, sample, unary

Gradient = Callable[[Any, Any], Sequence[Node | None]]


def floats(x: TensorType) -> TensorType:
    """The type of x, a float.  Raises DTypeError."""
    if not x.dtype.is_float:
        raise DTypeError(f"takes floats, not {x.dtype.name}")
    return x


def numbers(x: TensorType) -> TensorType:
    """The type of x, no bool.  Raises DTypeError."""
    if x.dtype.is_bool:
        raise DTypeError("takes numbers, not bool")
    return x


def two_floats(x: TensorType, y: TensorType) -> TensorType:
    return floats(elementwise(x, y))


def two_numbers(x: TensorType, y: TensorType) -> TensorType:
    return numbers(elementwise(x, y))


def zero(like: Node) -> Node:
    """The number 0 in the dtype of `like`."""
    return number(0, like.dtype)


def _function(name: str, doc: str, reference: Callable[..., Any], gradient: Gradient | NoGradient,
              span: tuple[float, float] = (-2.0, 2.0)) -> Op:
    """A function of one float."""
    return defop(name, doc=doc, infer=floats, reference=reference, gradient=gradient, scalar=name,
                 samples=unary("f64", "f16", span=span))


# Arithmetic.

add = defop(
    "add",
    doc="x + y.  Integers wrap.",
    infer=two_numbers,
    reference=np.add,
    gradient=lambda node, g: [g, g],
    scalar="add",
    commutative=True,
    samples=binary("f64", "f16", "i32", "u8"),
)

sub = defop(
    "sub",
    doc="x − y.  Integers wrap.",
    infer=two_numbers,
    reference=np.subtract,
    gradient=lambda node, g: [g, -g],
    scalar="sub",
    samples=binary("f64", "f16", "i32"),
)

mul = defop(
    "mul",
    doc="x · y.  Integers wrap.",
    infer=two_numbers,
    reference=np.multiply,
    gradient=lambda node, g: [g * node.y, g * node.x],
    scalar="mul",
    commutative=True,
    samples=binary("f64", "f16", "i32", "i8"),
)

div = defop(
    "div",
    doc="x / y for floats.",
    infer=two_floats,
    reference=np.divide,
    gradient=lambda node, g: [g / node.y, -(g * node / node.y)],
    scalar="div",
    samples=binary("f64", "f16", span=(0.5, 2.0)),
)

floordiv = defop(
    "floordiv",
    doc="floor(x / y); 0 for an integer x over 0.",
    infer=two_numbers,
    reference=np.floor_divide,
    gradient=NoGradient("floor division is piecewise constant"),
    scalar="floordiv",
    samples=binary("f64", "f16", "i32", "i8", "u8"),
)

mod = defop(
    "mod",
    doc="x − y · floor(x / y), of the sign of y; 0 for an integer x and y = 0.",
    infer=two_numbers,
    reference=np.mod,
    gradient=lambda node, g: [g, -(g * floordiv(node.x, node.y))],
    scalar="mod",
    samples=binary("f64", "i32", "i8", "u8"),
)


def _pow_gradient(node: Any, g: Any) -> list[Node | None]:
    """y·x^(y−1) and x^y·log x, with x⁰ flat also at 0, and no slope in y where x ≤ 0 (there it is not real)."""
    x, y = node.x, node.y
    slope = y * pow(x, y - 1)
    if not (y.op.name == "constant" and (y.value != 0).all()):
        slope = select(eq(y, 0), zero(x), slope)
    positive = gt(x, 0)
    growth = node * log(select(positive, x, number(1, x.dtype)))
    return [g * slope, g * select(positive, growth, zero(x))]


pow = defop(
    "pow",
    doc="x to the power y; 0⁰ = 1.  Integers wrap; a negative exponent of an integer rounds towards zero.",
    infer=two_numbers,
    reference=special.power,
    gradient=_pow_gradient,
    scalar="pow",
    samples=[*binary("f64", "f16", span=(0.5, 2.0)), sample("i32[2,3]", "i32[3]", span=(-3, 3)),
             sample("u8[4]", "u8[]", span=(0, 5))],
)

maximum = defop(
    "maximum",
    doc="The larger of x and y, or NaN if either is.  A tie is x's.",
    infer=elementwise,
    params=("x", "y"),
    reference=np.maximum,
    gradient=lambda node, g: _to_winner(ge(node.x, node.y), g),
    scalar="maximum",
    commutative=True,
    samples=binary("f64", "f16", "i32", "bool"),
)

minimum = defop(
    "minimum",
    doc="The smaller of x and y, or NaN if either is.  A tie is x's.",
    infer=elementwise,
    params=("x", "y"),
    reference=np.minimum,
    gradient=lambda node, g: _to_winner(le(node.x, node.y), g),
    scalar="minimum",
    commutative=True,
    samples=binary("f64", "f16", "i32", "bool"),
)


def _to_winner(first: Node, g: Node) -> list[Node | None]:
    """g for x where `first` holds, else for y."""
    return [select(first, g, zero(g)), select(first, zero(g), g)]


neg = defop(
    "neg",
    doc="−x.  Integers wrap.",
    infer=numbers,
    reference=np.negative,
    gradient=lambda node, g: [-g],
    scalar="neg",
    samples=unary("f64", "f16", "i32", "u8"),
)

abs = defop(
    "abs",
    doc="|x|; its gradient at 0 is 0.",
    infer=numbers,
    reference=np.abs,
    gradient=lambda node, g: [g * sign(node.x)],
    scalar="abs",
    samples=unary("f64", "f16", "i32", "u8"),
)

sign: Op = defop(
    "sign",
    doc="1, −1 or 0; NaN of NaN.",
    infer=numbers,
    reference=np.sign,
    gradient=NoGradient("the sign is piecewise constant"),
    scalar="sign",
    samples=unary("f64", "f16", "i32", "u8"),
)

square = defop(
    "square",
    doc="x².",
    infer=numbers,
    reference=np.square,
    gradient=lambda node, g: [g * (node.x * 2)],
    expand=lambda node: node.x * node.x,
    samples=unary("f64", "f16", "i32"),
)


# Functions of floats.

sqrt = _function("sqrt", "The square root; NaN below 0.", np.sqrt, lambda node, g: [g * 0.5 / node], (0.1, 2.0))
rsqrt = _function("rsqrt", "1 / √x.", lambda x: 1 / np.sqrt(x), lambda node, g: [g * (node * node * node) * -0.5],
                  (0.1, 2.0))
exp = _function("exp", "e to the power x.", np.exp, lambda node, g: [g * node])
expm1 = _function("expm1", "exp(x) − 1, exact near 0.", np.expm1, lambda node, g: [g * exp(node.x)])
log = _function("log", "The natural logarithm; −inf at 0, NaN below.", np.log, lambda node, g: [g / node.x], (0.1, 2.0))
log1p = _function("log1p", "log(1 + x), exact near 0.", np.log1p, lambda node, g: [g / (node.x + 1)], (-0.9, 2.0))
sin = _function("sin", "The sine; NaN of ±inf.", np.sin, lambda node, g: [g * cos(node.x)])
cos: Op = _function("cos", "The cosine; NaN of ±inf.", np.cos, lambda node, g: [-(g * sin(node.x))])
tanh = _function("tanh", "The hyperbolic tangent.", np.tanh, lambda node, g: [g * (1 - node * node)])
sigmoid = _function("sigmoid", "1 / (1 + exp −x).", special.sigmoid, lambda node, g: [g * (node * (1 - node))])
softplus = _function("softplus", "log(1 + exp x), without overflow for large x.", special.softplus,
                     lambda node, g: [g * sigmoid(node.x)])
log_sigmoid = _function("log_sigmoid", "log(sigmoid x), without overflow for x far below 0.", special.log_sigmoid,
                        lambda node, g: [g * sigmoid(-node.x)])
erf = _function("erf", "The error function.", special.erf,
                lambda node, g: [g * (exp(-(node.x * node.x)) * (2 / math.sqrt(math.pi)))])
erfinv = _function("erfinv", "The inverse of erf; ±inf at ±1, NaN outside.", special.erfinv,
                   lambda node, g: [g * (exp(node * node) * (math.sqrt(math.pi) / 2))], (-0.9, 0.9))

_FLAT = NoGradient("rounding is piecewise constant")
floor = _function("floor", "The largest whole number ≤ x.", np.floor, _FLAT)
ceil = _function("ceil", "The smallest whole number ≥ x.", np.ceil, _FLAT)
round = _function("round", "The nearest whole number, halves to even.", np.rint, _FLAT)


# Truth values.

def _comparison(x: TensorType, y: TensorType) -> TensorType:
    return elementwise(x, y).with_dtype(boolean)


def _compare(name: str, doc: str, reference: Callable[..., Any], commutative: bool = False) -> Op:
    """A comparison of two operands of one dtype."""
    return defop(name, doc=doc, infer=_comparison, reference=reference, scalar=name, commutative=commutative,
                 gradient=NoGradient("comparisons are piecewise constant"),
                 samples=binary("f64", "f16", "i32", "u8", "bool"))


eq = _compare("eq", "x = y; false for NaN.", np.equal, commutative=True)
ne = _compare("ne", "x ≠ y; true for NaN.", np.not_equal, commutative=True)
lt = _compare("lt", "x < y; false for NaN.", np.less)
le: Op = _compare("le", "x ≤ y; false for NaN.", np.less_equal)
gt = _compare("gt", "x > y; false for NaN.", np.greater)
ge: Op = _compare("ge", "x ≥ y; false for NaN.", np.greater_equal)


def _truths(x: TensorType, y: TensorType) -> TensorType:
    return _truth(elementwise(x, y))


def _truth(x: TensorType) -> TensorType:
    if not x.dtype.is_bool:
        raise DTypeError(f"takes bool, not {x.dtype.name}")
    return x


_LOGIC = NoGradient("truth values have no gradient")
_TRUTHS = [sample("bool[2,3]", "bool[2,3]"), sample("bool[2,1]", "bool[3]"), sample("bool[]", "bool[0,2]")]

logical_and = defop(
    "logical_and", doc="Both.", infer=_truths, reference=np.logical_and, gradient=_LOGIC, scalar="and",
    commutative=True, samples=_TRUTHS,
)
logical_or = defop(
    "logical_or", doc="One at least.", infer=_truths, reference=np.logical_or, gradient=_LOGIC, scalar="or",
    commutative=True, samples=_TRUTHS,
)
logical_xor = defop(
    "logical_xor", doc="One alone.", infer=_truths, reference=np.logical_xor, gradient=_LOGIC, scalar="xor",
    commutative=True, samples=_TRUTHS,
)
logical_not = defop(
    "logical_not", doc="Not.", infer=_truth, reference=np.logical_not, gradient=_LOGIC, scalar="not",
    samples=[sample("bool[2,3]"), sample("bool[]"), sample("bool[0]")],
)


def _test(x: TensorType) -> TensorType:
    return floats(x).with_dtype(boolean)


isnan = defop(
    "isnan", doc="Whether x is NaN.", infer=_test, reference=np.isnan, gradient=_LOGIC, scalar="isnan",
    samples=unary("f64", "f16"),
)
isfinite = defop(
    "isfinite", doc="Whether x is neither NaN nor infinite.", infer=_test, reference=np.isfinite, gradient=_LOGIC,
    scalar="isfinite", samples=unary("f64", "f16"),
)


# Choice and conversion.

def _chosen(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if not condition.dtype.is_bool:
        raise DTypeError(f"the condition is {condition.dtype.name}, not bool")
    return TensorType(same_dtype(x, y), broadcast_shapes(condition.shape, x.shape, y.shape))


select = defop(
    "select",
    doc="x where the condition holds, else y; the one not chosen does not count, NaN or not.",
    infer=_chosen,
    reference=np.where,
    gradient=lambda node, g: [None, *_to_winner(node.condition, g)],
    scalar="select",
    samples=[sample("bool[2,3]", "f32[2,3]", "f32[2,3]"), sample("bool[3]", "f32[2,1]", "f32[]"),
             sample("bool[]", "i32[4]", "i32[4]"), sample("bool[0,1]", "f64[]", "f64[2]")],
)


def _cast_type(x: TensorType, *, dtype: DType) -> TensorType:
    return x.with_dtype(dtype)


cast: Op = defop(
    "cast",
    doc="x in another dtype.  Floats become integers by truncation, saturating, NaN as 0; anything but 0 is true.",
    infer=_cast_type,
    reference=lambda x, *, dtype: special.cast(x, dtype),
    gradient=lambda node, g: [cast(g, dtype=node.x.dtype) if node.dtype.is_float and node.x.dtype.is_float else None],
    scalar="cast",
    samples=[
        sample("f32[2,3]", dtype=f64), sample("f64[3]", dtype=f32), sample("f32[3]", dtype=f16),
        sample("f16[3]", dtype=bf16), sample("f64[3]", dtype=bf16), sample("i64[3]", dtype=bf16, span=(-999, 999)),
        sample("f32[]", dtype=i32, span=(-9, 9)), sample("f64[5]", dtype=i8, span=(-300, 300)),
        sample("f32[4]", dtype=boolean), sample("i32[0,2]", dtype=f32), sample("i64[3]", dtype=u8, span=(-9, 300)),
        sample("bool[4]", dtype=f32), sample("bool[2]", dtype=i64),
    ],
)


def _clip_gradient(node: Any, g: Any) -> list[Node | None]:
    """To the limit that holds x back, and to x inside and at the bounds; `low` alone counts if the two cross."""
    x, low, high = node.x, node.low, node.high
    crossed = lt(high, low)
    below, above = lt(x, low), gt(x, maximum(high, low))
    inside = logical_not(logical_or(below, above))
    by_low = logical_or(below, logical_and(above, crossed))
    by_high = logical_and(above, logical_not(crossed))
    return [select(taken, g, zero(g)) for taken in (inside, by_low, by_high)]


clip = defop(
    "clip",
    doc="x raised to `low` and lowered to `high`, which is itself raised to `low`.  At a bound the gradient passes.",
    infer=lambda x, low, high: numbers(elementwise(x, low, high)),
    reference=lambda x, low, high: np.minimum(np.maximum(x, low), np.maximum(high, low)),
    gradient=_clip_gradient,
    expand=lambda node: minimum(maximum(node.x, node.low), maximum(node.high, node.low)),
    samples=[sample("f32[2,3]", "f32[]", "f32[]"), sample("f64[2,3]", "f64[3]", "f64[2,1]"),
             sample("i32[4]", "i32[]", "i32[]"), sample("f32[0]", "f32[]", "f32[]")],
)
