"""Errors and dumps speak of the user's call, operands and lines."""

import inspect

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.backend.provenance import provenance
from tensorc.errors import ArgumentError, DTypeError, ShapeError, TensorcError


@pytest.fixture(autouse=True)
def _fresh_names():
    K.clear_session()


def line():
    """Where the caller stands."""
    return inspect.currentframe().f_back.f_lineno


def test_the_whole_text():
    images, first = K.placeholder((None, 784), name="images"), line()
    weights, second = K.variable(np.zeros((100, 784)), name="weights"), line()
    with pytest.raises(ShapeError) as caught:
        logits = K.dot(images, weights)  # noqa: F841
    assert str(caught.value) == f"""\
K.dot: the inner sizes differ, 784 and 100
    x = images    float32 (images_0, 784)   test_backend_errors.py:{first}
    y = weights   float32 (100, 784)        test_backend_errors.py:{second}
  x's last size must equal y's last but one. Did you mean K.dot(x, K.transpose(y))?
  raised while building `logits` at test_backend_errors.py:{second + 2}"""


def test_unnamed_operands_go_by_the_call_that_made_them():
    x = K.placeholder((2, 3))
    with pytest.raises(ShapeError) as caught:
        K.relu(x) + np.ones(4)
    text = str(caught.value)
    assert text.startswith("x + y: the shapes do not broadcast: (2, 3) and (4,)")
    assert "x = K.relu   float32 (2, 3)" in text
    assert "y = array    float64 (4,)" in text


def test_lists_show_each_tensor():
    with pytest.raises(ShapeError) as caught:
        K.concatenate([K.placeholder((2, 3), name="a"), K.placeholder((3,), name="b")], axis=0)
    text = str(caught.value)
    assert "tensors[0] = a   float32 (2, 3)" in text
    assert "tensors[1] = b   float32 (3,)" in text
    assert "axis = 0" in text


def test_errors_in_a_users_function_name_the_inner_call():
    x = K.placeholder((2, 3), name="x")
    with pytest.raises(ShapeError) as caught:
        K.in_train_phase(lambda: K.dot(x, x), x)
    assert str(caught.value).startswith("K.dot:")
    assert str(caught.value).count("raised") == 1


BAD = {
    "K.dot(x, K.placeholder((5,)))": (ShapeError, "x needs one axis or more, y two"),
    "K.batch_dot(x, x, axes=0)": (ArgumentError, "axis 0 counts the samples"),
    "K.batch_dot(x, x, axes=[[1, 2], 1])": (ArgumentError, "axes is None, an int or two ints"),
    "K.batch_dot(x, K.placeholder((3, 3, 4)))": (ShapeError, "the batch sizes differ, 2 and 3|the inner sizes differ"),
    "K.reshape(x, (4, -1))": (ShapeError, "6 elements cannot be spread over"),
    "K.reshape(x, (7,))": (ShapeError, r"6 elements do not fit the shape \(7,\)"),
    "K.reshape(x, (-1, -1))": (ShapeError, "more than one unknown"),
    "K.permute_dimensions(x, (0, 0))": (ArgumentError, "must name each axis"),
    "K.squeeze(x, 1)": (ShapeError, "axis 1 has size 3"),
    "K.sum(x, axis=2)": (ShapeError, "axis 2 is outside a tensor of rank 2"),
    "K.sum(x, axis=[0, -2])": (ArgumentError, "an axis is given twice"),
    "K.sum(x, axis='rows')": (ArgumentError, "an axis is an int"),
    "K.exp(K.placeholder((2,), dtype='int32'))": (DTypeError, r"takes floats, not int32(.|\n)*K.cast\(x, 'float32'\)"),
    "x[0, 0, 0]": (ShapeError, "3 indices for a tensor of rank 2"),
    "x[5]": (ShapeError, "index 5 is outside axis 0, which has size 2"),
    "x[[0, 1]]": (ArgumentError, "K.gather"),
    "x[x > 0]": (ArgumentError, "K.switch"),
    "x[..., ...]": (ArgumentError, "one Ellipsis"),
    "x[::0]": (ArgumentError, "cannot be 0"),
    "x + None": (DTypeError, "None is neither a tensor nor numbers"),
    "x + 'a'": (DTypeError, "'a' is neither a tensor nor numbers"),
    "K.cast(x, 'float8')": (DTypeError, "unknown dtype 'float8'"),
    "K.bias_add(x, K.placeholder((2, 3)))": (ShapeError, "the bias has 2 axes, not 1"),
    "K.repeat(K.expand_dims(x), 2)": (ShapeError, "takes a tensor of two axes"),
    "K.tile(x, (1, 2, 3))": (ShapeError, "3 counts for a tensor of rank 2"),
    "K.slice(x, [0], [1])": (ShapeError, "1 starts and 1 sizes"),
    "K.slice(x, [0, 2], [1, 2])": (ShapeError, "outside axis 1, which has size 3"),
    "K.arange(0, 5, 0)": (ArgumentError, "the step of K.arange"),
    "K.stack([])": (ArgumentError, "nothing to stack"),
    "K.stack([x, x[0]])": (ShapeError, "the ranks differ"),
    "K.spatial_2d_padding(x)": (ShapeError, "takes a tensor of 4 axes, not 2"),
    "K.temporal_padding(x[None], (-1, 0))": (ArgumentError, "whole elements from 0"),
    "K.temporal_padding(x[None], (1, 2, 3))": (ArgumentError, "an int or two"),
    "K.resize_images(x[None, None], 2, 2, 'tf', 'cubic')": (ArgumentError, "interpolation is one of"),
    "K.resize_images(x[None, None], 2, 0.5, 'tf')": (ArgumentError, "whole number from 1"),
    "K.random_normal((2,), dtype='int32')": (ArgumentError, "draws floats, not int32"),
    "K.softmax(x, axis=3)": (ShapeError, "axis 3 is outside"),
    "K.batch_flatten(K.constant(1))": (ShapeError, "no batch axis"),
    "(x > 0) & x": (DTypeError, "takes bools|dtypes"),
}


@pytest.mark.parametrize("text", BAD)
def test_refusals(text):
    kind, message = BAD[text]
    with pytest.raises(kind, match=message) as caught:
        eval(text, {"K": K, "x": K.placeholder((2, 3), name="x")})
    assert isinstance(caught.value, TensorcError)
    assert "raised at <string>:1" in str(caught.value)


def test_nodes_know_the_lines_that_made_them():
    x, first = K.placeholder((None, 3)), line()
    hidden, second = K.softmax(x * 2), line()
    loss, third = K.sum(hidden), line()
    lines = provenance([loss])
    assert {loc.line for loc in lines[x.node]} == {first}
    assert {(loc.call, loc.line) for loc in lines[hidden.node]} == {("K.softmax", second)}
    assert {loc.call for loc in lines[hidden.node.x]} == {"x * y"}
    assert {loc.line for loc in lines[loss.node]} == {third}
    assert str(lines[loss.node][0]) == f"test_backend_errors.py:{third}"


def test_one_node_may_come_from_several_lines():
    x = K.placeholder((3,))
    first = K.exp(x)
    second = K.exp(x)
    assert first.node is second.node
    assert len(provenance([first])[first.node]) == 1
    assert len(provenance([first, second])[first.node]) == 2


def test_gradients_come_from_the_lines_they_differentiate():
    x = K.placeholder((3,))
    loss, made = K.sum(K.tanh(x)), line()
    gradient, asked = K.gradients(loss, [x])[0], line()
    lines = {loc.line for loc in provenance([gradient])[gradient.node]}
    assert {made, asked} <= lines


def test_functions_of_users_are_noted_where_they_stand():
    x = K.placeholder((3,))
    inside = []

    def branch():
        inside.append(line() + 1)
        return K.tanh(x)

    y = K.switch(K.placeholder((), dtype="bool"), branch, x)
    lines = provenance([y])
    tanh = next(n for n in lines if n.op.name == "tanh")
    assert [(loc.call, loc.line) for loc in lines[tanh]] == [("K.tanh", inside[0])]


def test_the_dump_shows_lines():
    x = K.placeholder((3,), name="x")
    y, made = K.exp(x), line()
    assert f"test_backend_errors.py:{made}" in str(K.function([x], [y]).graph)


def test_lines_of_keras_are_not_the_users():
    library = {"__name__": "keras.layers.core", "K": K}
    exec("def call(x):\n    return K.exp(x)", library)
    result, mine = library["call"](K.placeholder((3,))), line()
    assert result.origin.line == mine
    assert result.origin.file == __file__
