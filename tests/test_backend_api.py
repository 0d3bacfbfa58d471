"""The K API as it is written down: signatures, older spellings, configuration, names, what is a tensor."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tensorc import backend as K

SIGNATURES = """
    backend() epsilon() set_epsilon(e) floatx() set_floatx(floatx) cast_to_floatx(x) image_data_format()
    set_image_data_format(data_format) normalize_data_format(value) symbolic(func) eager(func)
    is_keras_tensor(x) get_uid(prefix='') reset_uids() clear_session() manual_variable_initialization(value)
    learning_phase() set_learning_phase(value) get_session() set_session(session) name_scope(name)
    is_sparse(tensor) to_dense(tensor) variable(value, dtype=None, name=None, constraint=None)
    placeholder(shape=None, ndim=None, dtype=None, sparse=False, name=None)
    constant(value, dtype=None, shape=None, name=None) identity(x, name=None) size(x, name=None)
    shape(x) int_shape(x) ndim(x) dtype(x) eval(x) is_tensor(x) is_variable(x) is_placeholder(x)
    zeros(shape, dtype=None, name=None) ones(shape, dtype=None, name=None) eye(size, dtype=None, name=None)
    zeros_like(x, dtype=None, name=None) ones_like(x, dtype=None, name=None) count_params(x) cast(x, dtype)
    update(x, new_x) update_add(x, increment) update_sub(x, decrement) moving_average_update(x, value, momentum)
    get_value(x) batch_get_value(ops) set_value(x, value) batch_set_value(tuples) get_variable_shape(x)
    control_dependencies(control_inputs) function(inputs, outputs, updates=None, **kwargs)
    gradients(loss, variables) stop_gradient(variables)
    dot(x, y) batch_dot(x, y, axes=None) transpose(x) permute_dimensions(x, pattern)
    max(x, axis=None, keepdims=False) min(x, axis=None, keepdims=False) sum(x, axis=None, keepdims=False)
    prod(x, axis=None, keepdims=False) var(x, axis=None, keepdims=False) std(x, axis=None, keepdims=False)
    mean(x, axis=None, keepdims=False) any(x, axis=None, keepdims=False) all(x, axis=None, keepdims=False)
    logsumexp(x, axis=None, keepdims=False) argmax(x, axis=-1) argmin(x, axis=-1) cumsum(x, axis=0)
    cumprod(x, axis=0) l2_normalize(x, axis=None)
    square(x) abs(x) sqrt(x) exp(x) log(x) round(x) sign(x) pow(x, a) clip(x, min_value, max_value) equal(x, y)
    not_equal(x, y) greater(x, y) greater_equal(x, y) less(x, y) less_equal(x, y) maximum(x, y) minimum(x, y)
    sin(x) cos(x) lesser(x, y) lesser_equal(x, y)
    concatenate(tensors, axis=-1) reshape(x, shape) stack(x, axis=0) squeeze(x, axis) expand_dims(x, axis=-1)
    resize_images(x, height_factor, width_factor, data_format, interpolation='nearest')
    resize_volumes(x, depth_factor, height_factor, width_factor, data_format)
    repeat_elements(x, rep, axis) repeat(x, n) arange(start, stop=None, step=1, dtype='int32') tile(x, n)
    batch_flatten(x) flatten(x) temporal_padding(x, padding=(1, 1))
    asymmetric_temporal_padding(x, left_pad=1, right_pad=1)
    spatial_2d_padding(x, padding=((1, 1), (1, 1)), data_format=None)
    spatial_3d_padding(x, padding=((1, 1), (1, 1), (1, 1)), data_format=None)
    one_hot(indices, num_classes) reverse(x, axes) slice(x, start, size)
    switch(condition, then_expression, else_expression) in_train_phase(x, alt, training=None)
    in_test_phase(x, alt, training=None)
    relu(x, alpha=0.0, max_value=None, threshold=0.0) elu(x, alpha=1.0) softmax(x, axis=-1) softplus(x) softsign(x)
    sigmoid(x) hard_sigmoid(x) tanh(x)
    batch_normalization(x, mean, var, beta, gamma, axis=-1, epsilon=0.001)
    normalize_batch_in_training(x, gamma, beta, reduction_axes, epsilon=0.001)
    categorical_crossentropy(target, output, from_logits=False, axis=-1)
    sparse_categorical_crossentropy(target, output, from_logits=False, axis=-1)
    binary_crossentropy(target, output, from_logits=False) dropout(x, level, noise_shape=None, seed=None)
    in_top_k(predictions, targets, k) bias_add(x, bias, data_format=None)
    ctc_decode(y_pred, input_length, greedy=True, beam_width=100, top_paths=1, merge_repeated=False,
    dict_seq_lens=None, dict_values=None)
    ctc_batch_cost(y_true, y_pred, input_length, label_length) ctc_label_dense_to_sparse(labels, label_lengths)
    random_normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None)
    random_uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None)
    random_binomial(shape, p=0.0, dtype=None, seed=None)
    truncated_normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None)
    random_uniform_variable(shape, low, high, dtype=None, name=None, seed=None)
    random_normal_variable(shape, mean, scale, dtype=None, name=None, seed=None)
"""


@pytest.fixture(autouse=True)
def _restore():
    before = K.floatx(), K.epsilon(), K.image_data_format()
    yield
    K.set_floatx(before[0])
    K.set_epsilon(before[1])
    K.set_image_data_format(before[2])
    K.clear_session()


def signatures():
    depth, start = 0, 0
    text = " ".join(SIGNATURES.split())
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == ")" and depth == 0:
            yield text[start:i + 1].strip()
            start = i + 1


@pytest.mark.parametrize("expected", list(signatures()))
def test_signature(expected):
    name = expected.partition("(")[0]
    parameters = inspect.signature(getattr(K, name)).parameters.values()
    bare = ", ".join(str(p.replace(annotation=inspect.Parameter.empty)) for p in parameters)
    assert f"{name}({bare})" == expected
    assert getattr(K, name).__doc__


def test_every_public_name_is_a_documented_function():
    for name in K.__all__:
        assert inspect.getdoc(getattr(K, name)), name


def test_older_keywords():
    x = K.placeholder((2, 3))
    assert K.expand_dims(x, dim=0).shape == (1, 2, 3)
    assert K.one_hot(K.cast(x, "int32"), nb_classes=5).shape == (2, 3, 5)
    images = K.placeholder((2, 3, 4, 5))
    assert K.spatial_2d_padding(images, dim_ordering="th").shape == (2, 3, 6, 7)
    assert K.spatial_2d_padding(images, dim_ordering="tf").shape == (2, 5, 6, 5)
    with pytest.raises(TypeError, match="two names of one argument"):
        K.expand_dims(x, axis=0, dim=0)


def test_floatx_decides_what_dtype_is_not_said():
    K.set_floatx("float64")
    assert K.placeholder((1,)).dtype == K.variable(1).dtype == K.constant(1).dtype == "float64"
    assert K.zeros_like(K.constant(1, "int32")).dtype == "float64"
    assert K.cast_to_floatx(np.ones(2, np.float32)).dtype == np.float64
    with pytest.raises(ValueError, match="unknown floatx 'int8'"):
        K.set_floatx("int8")


def test_data_format():
    assert K.normalize_data_format(None) == "channels_last"
    K.set_image_data_format("channels_first")
    assert K.normalize_data_format(None) == K.image_data_format() == "channels_first"
    assert K.normalize_data_format("Channels_Last") == "channels_last"
    with pytest.raises(ValueError, match="unknown data_format"):
        K.set_image_data_format("middle")
    with pytest.raises(ValueError, match="data_format is one of"):
        K.normalize_data_format("middle")


def test_keras_json_is_honoured(tmp_path):
    settings = {"floatx": "float64", "epsilon": 1e-5, "image_data_format": "channels_first", "backend": "theano"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    code = "from tensorc import backend as K; print(K.floatx(), K.epsilon(), K.image_data_format(), K.backend())"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "KERAS_HOME": str(tmp_path)}, check=True,
                          capture_output=True, text=True)
    assert done.stdout.split() == ["float64", "1e-05", "channels_first", "tensorc"]


def test_a_bad_keras_json_is_no_obstacle(tmp_path):
    from tensorc.backend.config import read_config
    path = tmp_path / "keras.json"
    path.write_text('{"floatx": "float8", "epsilon": 1e-4}')
    with pytest.warns(UserWarning, match="floatx is ignored"):
        read_config(path)
    assert K.floatx() == "float32"
    assert K.epsilon() == 1e-4
    path.write_text("no json")
    read_config(path)


def test_uids_count_from_one_for_each_prefix():
    K.reset_uids()
    assert [K.get_uid("dense"), K.get_uid("dense"), K.get_uid()] == [1, 2, 1]
    K.clear_session()
    assert K.get_uid("dense") == 1


def test_names_are_unique_within_their_scopes():
    K.clear_session()
    with K.name_scope("cell"):
        first, second = (K.variable(0, name="kernel") for _ in range(2))
    assert (first.name, second.name) == ("cell/kernel", "cell/kernel_1")
    assert K.variable(0, name="kernel").name == "kernel"


def test_what_is_a_tensor():
    placeholder, variable, tensor = K.placeholder((2,)), K.variable(1), K.constant(1) + 1
    for x in placeholder, variable, tensor:
        assert K.is_tensor(x)
        assert not K.is_keras_tensor(x)
        assert not K.is_sparse(x)
    assert [K.is_variable(x) for x in (placeholder, variable, tensor)] == [False, True, False]
    assert [K.is_placeholder(x) for x in (placeholder, variable, tensor)] == [True, False, False]
    tensor._keras_history = "layer"
    assert K.is_keras_tensor(tensor)
    with pytest.raises(ValueError, match="expected a tensor"):
        K.is_keras_tensor(np.ones(2))
    assert not K.is_tensor(np.ones(2))


def test_there_are_no_sessions():
    for call in K.get_session, lambda: K.set_session(None):
        with pytest.raises(RuntimeError, match="no sessions"):
            call()


def test_no_module_hides_behind_a_function_of_its_name():
    folder = Path(K.__file__).parent
    assert {path.stem for path in folder.glob("*.py")}.isdisjoint(K.__all__)
