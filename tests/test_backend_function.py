"""K.function, variables and their updates, phases, gradients."""

import numpy as np
import pytest
import scipy.sparse

import tensorc
from tensorc import backend as K


@pytest.fixture(autouse=True)
def _fresh_session():
    yield
    K.clear_session()


def value(x):
    return K.get_value(x).tolist()


class TestCalls:
    def test_lists_give_lists_and_one_gives_one(self):
        x = K.placeholder((None,))
        a = np.arange(3, dtype="float32")
        assert K.function([x], [x * 2])([a])[0].tolist() == [0, 2, 4]
        assert K.function(x, x * 2)(a).tolist() == [0, 2, 4]
        assert K.function(x, x * 2)([0, 1, 2]).tolist() == [0, 2, 4]
        assert K.function([x], x * 2)([a]).tolist() == [0, 2, 4]
        assert K.function([], [K.constant(1)])([])[0] == 1
        assert K.function([x], [])([a]) == []

    def test_any_size_of_an_unknown_dimension(self):
        x = K.placeholder((None, 2))
        f = K.function([x], [K.sum(x, axis=0)])
        for n in 1, 5, 0:
            assert f([np.ones((n, 2))])[0].tolist() == [n, n]

    def test_numbers_of_inputs_must_fit(self):
        x = K.placeholder((None,))
        with pytest.raises(ValueError, match="takes 1 inputs, got 2"):
            K.function([x], [x])([1, 2])

    def test_keywords(self):
        x = K.placeholder((1,))
        assert K.function([x], [x], name="train").name == "train"
        with pytest.raises(ValueError, match="unknown keyword 'session'"):
            K.function([x], [x], session=None)

    def test_what_is_missing_among_the_inputs(self):
        x, y = K.placeholder((1,), name="image"), K.placeholder((1,), name="label")
        with pytest.raises(ValueError, match=r"placeholder label .*test_backend_function\.py.* is needed"):
            K.function([x], [x + y])

    def test_inputs_and_outputs_that_are_no_tensors(self):
        x = K.placeholder((1,))
        with pytest.raises(ValueError, match="input 1 is 0, which is no tensor"):
            K.function([x, 0], [x])
        with pytest.raises(ValueError, match=r"output 1 is None\n(.*\n)*.*why_no_gradient"):
            K.function([x], [x, None])
        assert K.function([x], [3.5])([[1]]) == [3.5]

    def test_a_variable_or_an_intermediate_tensor_may_be_fed(self):
        x, w = K.placeholder((2,)), K.variable([1, 2])
        hidden = x * 3
        assert K.function([x, w], [x * w])([[1, 1], [5, 6]])[0].tolist() == [5, 6]
        assert value(w) == [1, 2]
        assert K.function([hidden], [hidden + 1])([[1, 1]])[0].tolist() == [2, 2]

    def test_a_variable_may_be_fed_and_updated(self):
        w, fed = K.variable([1, 2]), np.array([5, 6], np.float32)
        assert K.function([w], [w], [(w, w * 10)])([fed])[0].tolist() == [5, 6]
        assert fed.tolist() == [5, 6]
        assert value(w) == [50, 60]

    def test_eval(self):
        w = K.variable([1, 2])
        assert K.eval(w).tolist() == [1, 2]
        assert K.eval(w * 2 + 1).tolist() == [3, 5]
        K.eval(w)[0] = 9
        assert value(w) == [1, 2]

    def test_sparse_values(self):
        matrix = scipy.sparse.csr_matrix(np.eye(3, dtype="float32") * 2)
        x, v = K.placeholder((None, 3), sparse=True), K.variable(matrix)
        assert K.is_sparse(x)
        assert K.is_sparse(v)
        assert K.is_sparse(K.concatenate([x, v], axis=0))
        assert not K.is_sparse(K.to_dense(x))
        assert K.function([x], [K.dot(x, K.to_dense(v))])([matrix])[0].tolist() == (np.eye(3) * 4).tolist()
        assert K.eval(K.to_dense(v)).tolist() == matrix.toarray().tolist()


class TestVariables:
    def test_first_values(self):
        assert value(K.variable([[1, 2]])) == [[1, 2]]
        assert K.variable(np.arange(3)).dtype == "float32"
        assert K.variable(np.arange(3), dtype="int8").dtype == "int8"
        np.random.seed(0)
        drawn = K.variable(K.random_uniform((2, 3), 5, 6))
        assert drawn.shape == (2, 3)
        assert ((K.get_value(drawn) >= 5) & (K.get_value(drawn) < 6)).all()
        assert value(K.variable(drawn * 0 + 1)) == [[1, 1, 1]] * 2
        with pytest.raises(ValueError, match="cannot depend on placeholder"):
            K.variable(K.placeholder((1,)))

    def test_attributes(self):
        constraint = abs
        v = K.variable(0, constraint=constraint)
        assert v.constraint is constraint
        assert v.trainable is True
        assert K.variable(0).constraint is None
        assert K.get_variable_shape(K.ones((2, 3))) == (2, 3)

    def test_zeros_and_ones(self):
        assert value(K.zeros(2)) == [0, 0]
        assert value(K.ones((1, 2), dtype="int32")) == [[1, 1]]
        assert K.is_variable(K.zeros((2, 3)))
        assert not K.is_variable(K.zeros((2, 0)))
        assert not K.is_variable(K.ones((K.shape(K.placeholder((None,)))[0],)))
        with pytest.raises(ValueError, match="a size is negative"):
            K.zeros((2, -1))

    def test_setting(self):
        v, w = K.variable([1, 2]), K.variable(np.ones((2, 2)), dtype="float64")
        K.set_value(v, np.array([3, 4], dtype="float64"))
        assert value(v) == [3, 4]
        K.batch_set_value([(v, 0), (w, np.eye(2))])
        assert [a.tolist() for a in K.batch_get_value([v, w])] == [[0, 0], [[1, 0], [0, 1]]]

    def test_values_that_do_not_fit(self):
        v, n = K.variable([1, 2], name="weights"), K.variable(0, dtype="int32", name="count")
        with pytest.raises(ValueError, match=r"variable weights has shape \(2,\), the value has shape \(3,\)"):
            K.set_value(v, [1, 2, 3])
        with pytest.raises(TypeError, match="variable count is int32 and cannot hold these float64 values"):
            K.set_value(n, 1.5)
        with pytest.raises(TypeError, match="the value is complex128"):
            K.set_value(v, [1j, 2])
        with pytest.raises(ValueError, match="shape"):
            K.batch_set_value([(n, 5), (v, [1, 2, 3])])
        assert (value(v), value(n)) == ([1, 2], 0)
        with pytest.raises(ValueError, match="is no variable"):
            K.set_value(v * 2, [1, 2])


class TestPlaceholders:
    def test_shapes(self):
        assert K.placeholder((2, None)).shape == (2, None)
        assert K.placeholder(ndim=3).shape == (None, None, None)
        assert K.placeholder((2,), ndim=3).shape == (2,)
        assert K.placeholder(()).ndim == 0
        with pytest.raises(ValueError, match="needs a shape or ndim"):
            K.placeholder()
        with pytest.raises(ValueError, match="cannot have size -1"):
            K.placeholder((-1, 2))

    def test_unknown_sizes_combine_with_known_ones(self):
        target, output = K.placeholder(ndim=2), K.placeholder((None, 3))
        loss = K.mean(K.square(target - output), axis=-1)
        got = K.function([target, output], [loss])([np.ones((4, 3)), np.zeros((4, 3))])
        assert got[0].tolist() == [1, 1, 1, 1]


class TestUpdates:
    def test_outputs_see_what_was_before(self):
        v = K.variable(1.0)
        f = K.function([], [v, v * 10], updates=[(v, v + 1)])
        assert [f([]), f([])] == [[1, 10], [2, 20]]
        assert value(v) == 3

    def test_every_kind(self):
        v = K.variable([2.0, 4.0])
        for made, expected in [
            (lambda: K.update(v, v * 3), [6, 12]), (lambda: K.update_add(v, 1), [7, 13]),
            (lambda: K.update_sub(v, [1, 2]), [6, 11]), (lambda: K.moving_average_update(v, 10.0, 0.5), [8, 10.5]),
        ]:
            assert K.eval(made()).tolist() == expected
            assert value(v) == expected

    def test_several_of_one_variable_all_apply_in_order(self):
        v = K.variable(1.0)
        twice = K.update_add(v, 2)
        updates = [K.update_add(v, 10), K.moving_average_update(v, 1.0, 0.5), twice, twice]
        K.function([], [], updates)([])
        assert value(v) == ((1 + 10) * 0.5 + 1 * 0.5) + 2

    def test_increments_see_what_was_before(self):
        v = K.variable(1.0)
        K.function([], [], [K.update_add(v, v), K.update_add(v, v)])([])
        assert value(v) == 3

    def test_conflicts(self):
        v = K.variable(1.0, name="step")
        with pytest.raises(ValueError, match=r"step gets two different new values(.|\n)*test_backend_function"):
            K.function([], [], [(v, v + 1), K.update(v, v + 2)])
        K.function([], [], [(v, v + 1), K.update(v, v + 1)])([])
        assert value(v) == 2

    def test_what_fits_a_variable(self):
        v = K.variable(np.ones((2, 3)), name="state")
        x = K.placeholder((None, 3))
        assert K.update(v, x).shape == (2, 3)
        K.function([x], [], [(v, x)])([np.zeros((2, 3))])
        assert value(v) == [[0] * 3] * 2
        with pytest.raises(ValueError, match=r"the variable has shape \(2, 3\), its new value \(3,\)"):
            K.update(v, [1, 2, 3])
        with pytest.raises(ValueError, match="only a variable can be updated"):
            K.update(x, x + 1)
        with pytest.raises(ValueError, match=r"an update is a K\.update or a pair"):
            K.function([], [], [3])

    def test_an_update_runs_when_something_made_of_it_is_computed(self):
        v = K.variable(1.0)
        later = K.update_add(v, 1) * 10
        assert K.eval(later) == 20
        assert value(v) == 2
        f = K.function([], [later])
        assert [f([]), f([])] == [[30], [40]]


class TestControlDependencies:
    def test_reads_inside_see_new_values_and_run_the_update(self):
        v, other = K.variable(1.0), K.variable(7.0)
        with K.control_dependencies([K.update_add(v, 1)]):
            inside, untouched = v * 10, K.identity(other)
        outside = v * 10
        assert K.function([], [inside, outside, untouched])([]) == [20, 10, 7]
        assert value(v) == 2
        assert K.eval(inside) == 30
        assert K.eval(outside) == 30

    def test_none_and_one_update(self):
        v = K.variable(1.0)
        with K.control_dependencies(None):
            assert K.eval(v * 2) == 2
        with K.control_dependencies(K.update(v, 5.0)):
            read = K.identity(v)
        assert K.eval(read) == 5

    def test_what_is_made_later_of_a_tensor_inside_waits_too(self):
        v = K.variable(1.0)
        with K.control_dependencies(K.update_add(v, 1)):
            inside = K.identity(v)
        assert K.eval(K.exp(inside * 0)) == 1
        assert value(v) == 2

    def test_blocks_nest_and_updates_inside_follow(self):
        v = K.variable(1.0)
        with K.control_dependencies(K.update_add(v, 1)), K.control_dependencies(K.update(v, v * 10)):
            assert K.eval(K.identity(v)) == 20
        assert value(v) == 20

    def test_gradients_reach_the_variable_through_later_reads(self):
        v = K.variable(3.0)
        with K.control_dependencies(K.update_add(v, 1)):
            loss = K.square(v)
        assert K.eval(K.gradients(loss + v, [v])[0]) == 9

    def test_metrics_are_evaluated_after_the_updates(self):
        total, x = K.variable(0.0), K.placeholder(())
        plain, metric = total * 2, total * 2
        assert plain.node is metric.node
        metric._is_metric = True
        f = K.function([x], [plain, metric], [K.update_add(total, x)])
        assert [f([3.0]), f([4.0])] == [[0, 6], [6, 14]]

    def test_a_metric_inside_the_block_counts_once(self):
        total, x = K.variable(0.0), K.placeholder(())
        update = K.update_add(total, x)
        with K.control_dependencies([update]):
            metric = K.identity(total)
        metric._is_metric = True
        f = K.function([x], [metric], [update])
        assert [f([3.0]), f([4.0])] == [[3], [7]]


class TestPhase:
    def test_the_phase_is_fed_or_0(self):
        x = K.placeholder((2,))
        y = K.in_train_phase(x * 2, lambda: x * 3)
        assert y._uses_learning_phase
        f = K.function([x, K.learning_phase()], [y, K.in_test_phase(x * 2, x * 3)])
        assert [a.tolist() for a in f([[1, 1], 1])] == [[2, 2], [3, 3]]
        assert [a.tolist() for a in f([[1, 1], 0.0])] == [[3, 3], [2, 2]]
        assert K.function([x], [y])([[1, 1]])[0].tolist() == [3, 3]

    def test_a_fixed_phase_chooses_now(self):
        x, y = K.placeholder((2,)), K.placeholder((2,))
        K.set_learning_phase(1)
        assert K.learning_phase() == 1
        chosen = K.in_train_phase(lambda: x, lambda: 1 / 0)
        assert chosen is x
        assert not chosen._uses_learning_phase
        assert K.in_train_phase(x, y, training=False) is y
        with pytest.raises(ValueError, match="0 or 1"):
            K.set_learning_phase(2)
        K.clear_session()
        assert K.is_tensor(K.learning_phase())
        assert K.learning_phase() is K.learning_phase()

    def test_a_branch_may_hold_updates(self):
        v, x = K.variable(0.0), K.placeholder(())
        with K.control_dependencies(K.update_add(v, 1)):
            counted = K.identity(v)
        y = K.in_train_phase(lambda: counted, lambda: x)
        assert K.function([x], [y])([5.0]) == [5]
        assert value(v) == 1


class TestSwitch:
    def test_ranks(self):
        x = K.placeholder((2, 3))
        assert K.switch(K.placeholder((2,), dtype="bool"), x, x + 1).shape == (2, 3)
        with pytest.raises(ValueError, match="the condition has rank 3, more than the expressions"):
            K.switch(K.placeholder((2, 3, 1)), x, x)


class TestGradients:
    def test_values(self):
        x, w = K.placeholder((None, 2)), K.variable([2.0, 3.0])
        by_x, by_w = K.gradients(K.sum(x * w), [x, w])
        got = K.function([x], [by_x, by_w])([np.array([[1, 2], [3, 4]])])
        assert got[0].tolist() == [[2, 3], [2, 3]]
        assert got[1].tolist() == [4, 6]

    def test_a_loss_that_is_no_scalar_is_summed(self):
        w = K.variable([2.0, 3.0])
        assert K.eval(K.gradients(K.square(w), [w])[0]).tolist() == [4, 6]
        assert K.eval(K.gradients([w, w * 2], [w])[0]).tolist() == [3, 3]

    def test_second_derivatives(self):
        w = K.variable(2.0)
        first = K.gradients(w ** 3, [w])[0]
        assert K.eval(K.gradients(first, [w])[0]) == pytest.approx(12)

    def test_intermediate_tensors(self):
        w = K.variable(2.0)
        hidden = w * 3
        assert K.eval(K.gradients(hidden ** 2, [hidden])[0]) == pytest.approx(12)

    def test_none_and_why(self):
        x, other = K.placeholder((2,)), K.variable(1.0)
        rounded = K.round(x)
        loss = K.sum(rounded) + K.sum(K.stop_gradient(x))
        assert K.gradients(loss, [x, other]) == [None, None]
        why = tensorc.why_no_gradient(loss, x)
        assert "K.round at test_backend_function.py" in why
        assert "K.stop_gradient at test_backend_function.py" in why
        assert "does not depend" in tensorc.why_no_gradient(loss, other)

    def test_operands_must_be_tensors(self):
        with pytest.raises(ValueError, match="gradients are taken in tensors"):
            K.gradients(K.variable(1.0), [3])
