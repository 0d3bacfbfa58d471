"""The K API: the classic Keras-2 backend functions, each of which builds nodes and decides nothing.

    from tensorc import backend as K
"""

from tensorc.backend.config import (
    backend,
    cast_to_floatx,
    eager,
    epsilon,
    floatx,
    image_data_format,
    normalize_data_format,
    set_epsilon,
    set_floatx,
    set_image_data_format,
    symbolic,
)
from tensorc.backend.control import print_tensor, stop_gradient, switch
from tensorc.backend.conv import (
    conv1d,
    conv2d,
    conv2d_transpose,
    conv3d,
    conv3d_transpose,
    deconv2d,
    depthwise_conv2d,
    local_conv1d,
    local_conv2d,
    separable_conv1d,
    separable_conv2d,
)
from tensorc.backend.ctc import ctc_batch_cost, ctc_decode, ctc_label_dense_to_sparse
from tensorc.backend.differentiation import gradients
from tensorc.backend.functions import eval, function
from tensorc.backend.images import (
    asymmetric_temporal_padding,
    resize_images,
    resize_volumes,
    spatial_2d_padding,
    spatial_3d_padding,
    temporal_padding,
)
from tensorc.backend.linalg import batch_dot, dot, gather, permute_dimensions, transpose
from tensorc.backend.loops import foldl, foldr, map_fn, rnn
from tensorc.backend.losses import binary_crossentropy, categorical_crossentropy, sparse_categorical_crossentropy
from tensorc.backend.math import (
    abs,
    clip,
    cos,
    equal,
    exp,
    greater,
    greater_equal,
    less,
    less_equal,
    lesser,
    lesser_equal,
    log,
    maximum,
    minimum,
    not_equal,
    pow,
    round,
    sign,
    sin,
    sqrt,
    square,
    tanh,
)
from tensorc.backend.names import get_uid, name_scope, reset_uids
from tensorc.backend.nn import (
    batch_normalization,
    bias_add,
    dropout,
    elu,
    hard_sigmoid,
    in_top_k,
    normalize_batch_in_training,
    relu,
    sigmoid,
    softmax,
    softplus,
    softsign,
)
from tensorc.backend.phase import (
    clear_session,
    get_session,
    in_test_phase,
    in_train_phase,
    learning_phase,
    manual_variable_initialization,
    set_learning_phase,
    set_session,
)
from tensorc.backend.pool import pool2d, pool3d
from tensorc.backend.random import (
    random_binomial,
    random_normal,
    random_normal_variable,
    random_uniform,
    random_uniform_variable,
    truncated_normal,
)
from tensorc.backend.reduce import (
    all,
    any,
    argmax,
    argmin,
    cumprod,
    cumsum,
    l2_normalize,
    logsumexp,
    max,
    mean,
    min,
    prod,
    std,
    sum,
    var,
)
from tensorc.backend.shapes import (
    arange,
    batch_flatten,
    concatenate,
    expand_dims,
    flatten,
    one_hot,
    repeat,
    repeat_elements,
    reshape,
    reverse,
    slice,
    squeeze,
    stack,
    tile,
)
from tensorc.backend.updates import (
    control_dependencies,
    moving_average_update,
    update,
    update_add,
    update_sub,
)
from tensorc.backend.variables import (
    batch_get_value,
    batch_set_value,
    cast,
    constant,
    count_params,
    dtype,
    eye,
    get_value,
    get_variable_shape,
    identity,
    int_shape,
    is_keras_tensor,
    is_placeholder,
    is_sparse,
    is_tensor,
    is_variable,
    ndim,
    ones,
    ones_like,
    placeholder,
    set_value,
    shape,
    size,
    to_dense,
    variable,
    zeros,
    zeros_like,
)

__all__ = [
    "abs", "all", "any", "arange", "argmax", "argmin", "asymmetric_temporal_padding", "backend", "batch_dot",
    "batch_flatten", "batch_get_value", "batch_normalization", "batch_set_value", "bias_add", "binary_crossentropy",
    "cast", "cast_to_floatx", "categorical_crossentropy", "clear_session", "clip", "concatenate", "constant",
    "control_dependencies", "conv1d", "conv2d", "conv2d_transpose", "conv3d", "conv3d_transpose", "cos", "count_params",
    "ctc_batch_cost", "ctc_decode", "ctc_label_dense_to_sparse", "cumprod", "cumsum", "deconv2d", "depthwise_conv2d",
    "dot", "dropout", "dtype", "eager", "elu", "epsilon", "equal", "eval", "exp", "expand_dims", "eye", "flatten",
    "floatx", "foldl", "foldr", "function", "gather", "get_session", "get_uid", "get_value", "get_variable_shape",
    "gradients", "greater", "greater_equal", "hard_sigmoid", "identity", "image_data_format", "in_test_phase",
    "in_top_k", "in_train_phase", "int_shape", "is_keras_tensor", "is_placeholder", "is_sparse", "is_tensor",
    "is_variable", "l2_normalize", "learning_phase", "less", "less_equal", "lesser", "lesser_equal", "local_conv1d",
    "local_conv2d", "log", "logsumexp", "manual_variable_initialization", "map_fn", "max", "maximum", "mean", "min",
    "minimum", "moving_average_update", "name_scope", "ndim", "normalize_batch_in_training", "normalize_data_format",
    "not_equal", "one_hot", "ones", "ones_like", "permute_dimensions", "placeholder", "pool2d", "pool3d", "pow",
    "print_tensor", "prod", "random_binomial", "random_normal", "random_normal_variable", "random_uniform",
    "random_uniform_variable", "relu", "repeat", "repeat_elements", "reset_uids", "reshape", "resize_images",
    "resize_volumes", "reverse", "rnn", "round",
    "separable_conv1d", "separable_conv2d", "set_epsilon", "set_floatx", "set_image_data_format", "set_learning_phase",
    "set_session", "set_value", "shape", "sigmoid", "sign", "sin", "size", "slice", "softmax", "softplus", "softsign",
    "sparse_categorical_crossentropy", "spatial_2d_padding", "spatial_3d_padding", "sqrt", "square", "squeeze", "stack",
    "std", "stop_gradient", "sum", "switch", "symbolic", "tanh", "temporal_padding", "tile", "to_dense", "transpose",
    "truncated_normal", "update", "update_add", "update_sub", "var", "variable", "zeros", "zeros_like",
]
