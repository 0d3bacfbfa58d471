"""CTC against the enumeration of all alignments."""

import itertools

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.codegen.python import oracle
from tensorc.codegen.schedule import schedule
from tensorc.errors import DTypeError, IndexRangeError, ShapeError
from tensorc.ir.graph import postorder
from tensorc.ir.node import OPS, make
from tensorc.runtime.function import Function
from tensorc.runtime.threads import num_threads, set_num_threads

EPSILON = 1e-7


@pytest.fixture(autouse=True)
def _restore():
    before = K.floatx()
    yield
    K.set_floatx(before)


def collapsed(path, blank):
    """The labels of an alignment."""
    return tuple(c for c, _ in itertools.groupby(path) if c != blank)


def normalised(p):
    raised = p + EPSILON
    return raised / raised.sum(-1, keepdims=True)


def by_enumeration(p, steps):
    """The probability of every label sequence, summed over all alignments of the first `steps` steps."""
    found = {}
    rows = normalised(p)
    for path in itertools.product(range(p.shape[1]), repeat=steps):
        labels = collapsed(path, p.shape[1] - 1)
        found[labels] = found.get(labels, 0.0) + np.prod([rows[t, c] for t, c in enumerate(path)])
    return found


def probabilities(*shape, seed=0, dtype="float64"):
    p = np.random.default_rng(seed).uniform(0.05, 1, shape)
    return (p / p.sum(-1, keepdims=True)).astype(dtype)


def cost(labels, p, steps, counts, gradient=True):
    """A function of labels, probabilities and lengths, with and without its gradient."""
    inputs = [K.placeholder(x.shape, dtype=str(x.dtype)) for x in (labels, p, steps, counts)]
    loss = K.ctc_batch_cost(*inputs)
    slopes = K.gradients(loss, [inputs[1]]) if gradient else []
    return K.function(inputs, [loss, *slopes])([labels, p, steps, counts])


def column(*lengths):
    return np.array(lengths, "int32")[:, None]


LABELS = np.array([[0, 1, 7], [1, 1, -1], [0, 5, 5], [9, 9, 9], [0, 1, 0], [1, 1, 1]], "int32")
STEPS, COUNTS = column(5, 5, 4, 3, 3, 4), column(2, 2, 1, 0, 3, 3)


@pytest.mark.parametrize(("dtype", "digits"), [("float64", 1e-12), ("float32", 2e-6)])
def test_cost_sums_all_alignments(dtype, digits):
    p = probabilities(6, 5, 3, dtype=dtype)
    loss, slope = cost(LABELS, p, STEPS, COUNTS)
    want = [by_enumeration(row.astype("float64"), steps).get(tuple(labels[:n]), 0.0)
            for row, labels, (steps,), (n,) in zip(p, LABELS, STEPS, COUNTS, strict=True)]
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(loss[:, 0], -np.log(want), rtol=digits)
    assert loss.dtype == slope.dtype == dtype
    assert loss[5] == np.inf
    assert not slope[5].any()                    # 1 1 1 needs five steps
    assert not slope[2, 4:].any()                # steps beyond the length


def test_gradient_is_the_slope():
    p = probabilities(6, 5, 3)
    _, slope = cost(LABELS, p, STEPS, COUNTS)
    numeric = np.zeros_like(p)
    h = 1e-6
    for t, c in np.ndindex(*p.shape[1:]):
        up, down = p.copy(), p.copy()
        up[:, t, c] += h
        down[:, t, c] -= h
        either = [cost(LABELS, x, STEPS, COUNTS, gradient=False)[0][:, 0] for x in (up, down)]
        with np.errstate(invalid="ignore"):
            numeric[:, t, c] = np.nan_to_num((either[0] - either[1]) / (2 * h))
    np.testing.assert_allclose(slope, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 4e-3)])
def test_half_precision_is_summed_in_single(dtype, tolerance):
    p = probabilities(2, 5, 3, dtype=dtype)
    loss, slope = cost(LABELS[:2], p, STEPS[:2], COUNTS[:2])
    wide, _ = cost(LABELS[:2], p.astype("float32"), STEPS[:2], COUNTS[:2])
    assert loss.dtype == slope.dtype == dtype
    np.testing.assert_allclose(loss, wide, rtol=tolerance)


def test_sizes_are_known_at_the_call_only():
    y = K.placeholder((None, None), dtype="int32")
    p = K.placeholder((None, None, None))
    steps, counts = K.placeholder((None, 1), dtype="int32"), K.placeholder((None, 1), dtype="int32")
    loss = K.ctc_batch_cost(y, p, steps, counts)
    f = K.function([y, p, steps, counts], [loss, *K.gradients(loss, [p])])
    for batch, length, classes, n in ((2, 5, 3, 2), (1, 4, 4, 1), (3, 3, 2, 0), (0, 4, 3, 2)):
        values = probabilities(batch, length, classes, dtype="float32")
        labels = np.zeros((batch, n), "int32")
        given = [labels, values, np.full((batch, 1), length, "int32"), np.full((batch, 1), min(n, 1), "int32")]
        loss, slope = f(given)
        assert loss.shape == (batch, 1)
        assert slope.shape == values.shape
        for row, got in zip(values.astype("float64"), loss, strict=True):
            want = by_enumeration(row, length)[(0,) * min(n, 1)]
            np.testing.assert_allclose(got, -np.log(want), rtol=1e-5)
    assert f.compiled.compilations == 1


def test_a_thousand_steps_lose_no_digits():
    """What each step adds to the gradient is a distribution; single precision keeps to double."""
    single = probabilities(2, 1000, 20, dtype="float32")
    labels = np.random.default_rng(1).integers(0, 19, (2, 60)).astype("int32")
    steps, counts = column(1000, 900), column(60, 3)
    loss, slope = cost(labels, single, steps, counts)
    exact_loss, exact_slope = cost(labels, single.astype("float64"), steps, counts)
    np.testing.assert_allclose(loss, exact_loss, rtol=1e-6)
    scale = np.abs(exact_slope).max()
    assert np.abs(slope - exact_slope).max() < 2e-5 * scale


def test_bits_do_not_depend_on_threads():
    p = probabilities(9, 30, 11, dtype="float32")
    labels = np.random.default_rng(2).integers(0, 10, (9, 8)).astype("int32")
    before, found = num_threads(), set()
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results = cost(labels, p, column(*[30] * 9), column(*range(9)))
        found.add(b"".join(r.tobytes() for r in results))
    set_num_threads(before)
    assert len(found) == 1


@pytest.mark.parametrize(("steps", "counts", "label", "message"), [
    (6, 1, 0, r"K\.ctc_batch_cost: input_length 6 at \[1\] is outside 0 … 5"),
    (-1, 1, 0, r"input_length -1 at \[1\] is outside 0 … 5"),
    (5, 4, 0, r"label_length 4 at \[1\] is outside 0 … 3"),
    (5, 3, 2, r"label 2 at \[1, 0\] is outside 0 … 1"),
    (5, 3, -1, r"label -1 at \[1, 0\] is outside 0 … 1"),
])
def test_lengths_and_labels_outside_are_refused(steps, counts, label, message):
    labels = np.array([[0, 0, 0], [label, 0, 0]], "int32")
    with pytest.raises(IndexRangeError, match=message) as error:
        cost(labels, probabilities(2, 5, 3), column(5, steps), column(1, counts))
    assert "test_ctc.py" in str(error.value)


def test_a_refused_call_leaves_variables_alone():
    w = K.variable(np.ones(()), dtype="float64")
    p = K.placeholder((1, 5, 3), dtype="float64")
    steps = K.placeholder((1, 1), dtype="int32")
    loss = K.sum(K.ctc_batch_cost(np.zeros((1, 1), "int32"), p * w, steps, column(1)))
    step = K.function([p, steps], [loss], updates=[K.update_add(w, loss)])
    with pytest.raises(IndexRangeError):
        step([probabilities(1, 5, 3), column(9)])
    assert K.get_value(w) == 1


def test_shapes_that_do_not_fit_are_refused():
    p = K.placeholder((2, 5, 3), name="p")
    with pytest.raises(ShapeError, match=r"y_pred is \(batch, steps, classes\)"):
        K.ctc_batch_cost(np.zeros((2, 3)), K.placeholder((2, 5)), column(5, 5), column(1, 1))
    with pytest.raises(ShapeError, match=r"y_true is \(batch, labels\)"):
        K.ctc_batch_cost(np.zeros(2), p, column(5, 5), column(1, 1))
    with pytest.raises(ShapeError, match="label_length of 3"):
        K.ctc_batch_cost(np.zeros((2, 3)), p, column(5, 5), column(1, 1, 1))
    with pytest.raises(ShapeError, match=r"input_length is \(batch, 1\)"):
        K.ctc_batch_cost(np.zeros((2, 3)), p, np.ones((2, 2)), column(1, 1))


def test_second_derivatives_say_why_there_are_none():
    p = K.placeholder((2, 5, 3))
    slope, = K.gradients(K.ctc_batch_cost(LABELS[:2], p, STEPS[:2], COUNTS[:2]), [p])
    assert K.gradients(K.sum(slope), [K.placeholder((3,))]) == [None]
    posterior = next(n for n in postorder([slope.node]) if n.op.name == "ctc_posterior")
    assert "second derivatives" in posterior.op.gradient.reason


def test_the_loss_and_its_gradient_share_the_paths():
    p = K.placeholder((2, 5, 3))
    loss = K.ctc_batch_cost(LABELS[:2], p, STEPS[:2], COUNTS[:2])
    groups = K.function([p], [loss, *K.gradients(loss, [p])]).compiled.program.planned.plan.groups
    assert [g.nodes[0].op.name for g in groups if g.kind == "written"] == ["ctc_paths", "ctc_posterior"]


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.kernel == "ctc"], ids=lambda op: op.name)
def test_kernels_run_as_python(op):
    for sample in op.samples:
        params = [make(OPS["parameter"], name=f"x{i}", role="input", uid=0, type=t)
                  for i, t in enumerate(sample.operands)]
        f = Function("f", params, [make(op, *params, **sample.attrs)])
        arrays = sample.arrays()
        want, = f(arrays)
        lowered = next(several[0] for group, several in f.program.assembly.lowered if group.kind == "written")
        given = {p.name: a for p, a in zip(params, arrays, strict=True)}
        buffers = [given.get(b.name, np.full(b.shape, 99, b.dtype.numpy)) for b in lowered.kernel.buffers]
        oracle(lowered.kernel)(*buffers)
        got, = (a for b, a in zip(lowered.kernel.buffers, buffers, strict=True) if b.role == "out")
        np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-6, atol=1e-6)


def test_lanes_lie_along_the_states():
    p = K.placeholder((2, 5, 3))
    f = K.function([p], K.gradients(K.ctc_batch_cost(LABELS[:2], p, STEPS[:2], COUNTS[:2]), [p]))
    for group, (lowered, *_) in f.compiled.program.assembly.lowered:
        if group.kind == "written":
            assert "for s < 2*n+1" in str(lowered.kernel)
            assert "s" in dict(schedule(lowered.kernel, 256).loops)


def test_labels_as_a_sparse_tensor():
    labels, lengths = K.placeholder((None, None), dtype="int32"), K.placeholder((None,), dtype="int32")
    sparse = K.ctc_label_dense_to_sparse(labels, lengths)
    assert K.is_sparse(sparse)
    f = K.function([labels, lengths], [K.to_dense(sparse)])
    got, = f([np.array([[3, 1, 4], [1, 5, 9]]), np.array([2, 0])])
    assert got.tolist() == [[3, 1, 0], [0, 0, 0]]
    assert got.dtype == "int32"
    got, = f([np.array([[3], [1]]), np.array([9, 1])])
    assert got.tolist() == [[3], [1]]
    with pytest.raises(ShapeError, match=r"labels are \(batch, n\)"):
        K.ctc_label_dense_to_sparse(np.zeros(3), np.zeros(3))


def test_what_is_no_number_is_refused():
    with pytest.raises((DTypeError, ShapeError)):
        K.ctc_batch_cost("a", K.placeholder((2, 5, 3)), column(5, 5), column(1, 1))


def test_lengths_may_be_constants_of_a_training_step():
    """What is known to be inside when compiled opens the gate before the updates like any other check."""
    x = K.placeholder((16, 30, 8))
    w, b = K.variable(np.eye(8, 4)), K.variable(np.zeros(4))
    steps, counts = (K.constant(np.full((16, 1), n), dtype="int32") for n in (30, 5))
    y = K.placeholder((16, 5), dtype="int32")
    loss = K.mean(K.ctc_batch_cost(y, K.softmax(K.bias_add(K.dot(x, w), b)), steps, counts))
    slopes = K.gradients(loss, [w, b])
    step = K.function([x, y], [loss], updates=[K.update_sub(v, 0.1 * g) for v, g in zip((w, b), slopes, strict=True)])
    given = [np.random.default_rng(0).normal(size=(16, 30, 8)), np.zeros((16, 5), "int32")]
    losses = [float(step(given)[0]) for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
