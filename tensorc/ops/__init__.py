"""The operations, each under its name; importing this fills `tensorc.ir.node.OPS`."""

from __future__ import annotations

from tensorc.ops.control import print, stop_gradient
from tensorc.ops.conv import conv, conv_input_gradient, conv_weight_gradient
from tensorc.ops.ctc import ctc_greedy, ctc_loss, ctc_paths, ctc_posterior
from tensorc.ops.ctc_beam import ctc_beam
from tensorc.ops.elementwise import (
    abs,
    add,
    cast,
    ceil,
    clip,
    cos,
    div,
    eq,
    erf,
    erfinv,
    exp,
    expm1,
    floor,
    floordiv,
    ge,
    gt,
    isfinite,
    isnan,
    le,
    log,
    log1p,
    log_sigmoid,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    ne,
    neg,
    pow,
    round,
    rsqrt,
    select,
    sigmoid,
    sign,
    sin,
    softplus,
    sqrt,
    square,
    sub,
    tanh,
)
from tensorc.ops.gather import check, gather, outside, scatter_add
from tensorc.ops.late import cut
from tensorc.ops.linalg import matmul
from tensorc.ops.nn import log_softmax, logsumexp, relu, sigmoid_cross_entropy, softmax, softmax_cross_entropy
from tensorc.ops.pool import avg_pool, max_pool
from tensorc.ops.random import normal, truncated_normal, uniform
from tensorc.ops.reduce import (
    all,
    any,
    argmax,
    argmin,
    cumprod,
    cumsum,
    max,
    mean,
    min,
    prod,
    sum,
    sum_to,
    variance,
)
from tensorc.ops.scan import cond, scan
from tensorc.ops.shape import broadcast, concatenate, iota, pad, reshape, reverse, size, slice, transpose
from tensorc.ops.source import constant, parameter
from tensorc.ops.sparse import (
    csr_dot,
    csr_dot_transposed,
    csr_rows,
    csr_sampled_dot,
    csr_to_dense,
    csr_values,
)
from tensorc.ops.windows import unwindow, windows

__all__ = [
    "abs", "add", "all", "any", "argmax", "argmin", "avg_pool", "broadcast", "cast", "ceil", "check", "clip",
    "concatenate", "cond", "constant", "conv", "conv_input_gradient", "conv_weight_gradient", "cos", "csr_dot",
    "csr_dot_transposed", "csr_rows", "csr_sampled_dot", "csr_to_dense", "csr_values", "ctc_beam", "ctc_greedy",
    "ctc_loss", "ctc_paths", "ctc_posterior", "cumprod", "cumsum", "cut", "div", "eq", "erf", "erfinv", "exp", "expm1",
    "floor", "floordiv", "gather", "ge", "gt", "iota", "isfinite", "isnan", "le", "log", "log1p", "log_sigmoid",
    "log_softmax", "logical_and", "logical_not", "logical_or", "logical_xor", "logsumexp", "lt", "matmul", "max",
    "max_pool", "maximum", "mean", "min", "minimum", "mod", "mul", "ne", "neg", "normal", "outside", "pad", "parameter",
    "pow", "print", "prod", "relu", "reshape", "reverse", "round", "rsqrt", "scan", "scatter_add", "select", "sigmoid",
    "sigmoid_cross_entropy", "sign", "sin", "size", "slice", "softmax", "softmax_cross_entropy", "softplus", "sqrt",
    "square", "stop_gradient", "sub", "sum", "sum_to", "tanh", "transpose", "truncated_normal", "uniform", "unwindow",
    "variance", "windows",
]
