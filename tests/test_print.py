"""Tensors that print themselves: what, when, in which order."""

import numpy as np
import pytest

from tensorc import backend as K

Capture = pytest.CaptureFixture[str]


def test_each_call_prints_the_value_after_the_message(capsys: Capture) -> None:
    x = K.placeholder((None, 1))
    printed = K.print_tensor(x * 2, "twice x is")
    function = K.function([x], [printed + 1])
    assert capsys.readouterr().out == ""

    (result,) = function([[[0.5]]])
    assert result == [[2.0]]
    assert capsys.readouterr().out == "twice x is [[1.]]\n"
    function([[[1.5], [2.0]]])
    assert capsys.readouterr().out == "twice x is [[3.]\n [4.]]\n"


def test_without_a_message_only_the_value_is_printed(capsys: Capture) -> None:
    K.eval(K.print_tensor(K.constant([1, 2], dtype="int32")))
    assert capsys.readouterr().out.strip() == "[1 2]"


def test_only_what_is_computed_is_printed(capsys: Capture) -> None:
    x = K.placeholder(())
    K.print_tensor(x, "unused")
    K.function([x], [x + 1])([1.0])
    assert capsys.readouterr().out == ""


def test_prints_come_in_the_order_of_evaluation_each_as_often_as_it_stands_there(capsys: Capture) -> None:
    x = K.placeholder(())
    first = K.print_tensor(x, "first")
    second = K.print_tensor(first * 2, "second")
    same = K.print_tensor(x, "again") + K.print_tensor(x, "again")
    K.function([x], [same, second, first])([3.0])
    assert capsys.readouterr().out == "again 3.\nagain 3.\nfirst 3.\nsecond 6.\n"


def test_a_new_value_prints_itself(capsys: Capture) -> None:
    v = K.variable(1.0)
    function = K.function([], [], updates=[(v, K.print_tensor(v + 1, "v becomes"))])
    function([])
    function([])
    assert capsys.readouterr().out == "v becomes 2.\nv becomes 3.\n"
    assert K.get_value(v) == 3


def test_gradients_pass_and_print_what_they_need(capsys: Capture) -> None:
    x = K.placeholder((2,))
    (gradient,) = K.gradients(K.sum(K.square(K.print_tensor(x, "x"))), [x])
    np.testing.assert_array_equal(K.function([x], [gradient])([[1.0, 2.0]])[0], [2.0, 4.0])
    assert capsys.readouterr().out == "x [1. 2.]\n"


def test_functions_of_one_computation_have_messages_of_their_own(capsys: Capture) -> None:
    for message in ("a", "b"):
        x = K.placeholder(())
        K.function([x], [K.print_tensor(x, message)])([1.0])
    assert capsys.readouterr().out == "a 1.\nb 1.\n"


def test_of_long_axes_both_ends_are_shown(capsys: Capture) -> None:
    K.eval(K.print_tensor(K.constant(np.arange(100.0).reshape(10, 10))))
    rows = capsys.readouterr().out.strip().splitlines()
    assert rows[0] == "[[ 0.  1.  2. ...  7.  8.  9.]"
    assert rows[3] == " ..."
    assert len(rows) == 7


def test_the_graph_shows_the_message() -> None:
    K.clear_session()                            # other tests of this process may have taken the name
    x = K.placeholder((3,), name="x")
    text = str(K.function([x], [K.print_tensor(x, "look:")]).graph)
    assert "print(x) {message='look:', uid=0}" in text
