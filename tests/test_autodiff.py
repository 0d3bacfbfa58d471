"""Gradients: against finite differences for every operation, at ties and edges, and where there are none."""

import math

import numpy as np
import pytest

from tensorc import ops
from tensorc.autodiff import cuts, gradients
from tensorc.errors import DTypeError, ShapeError
from tensorc.ir import dims
from tensorc.ir.graph import Graph, postorder
from tensorc.ir.node import OPS, NoGradient, constant, make
from tensorc.ir.types import TensorType, f32, f64, i32, parse_type
from tensorc.ops.interpret import evaluate
from tensorc.ops.sample import sample


def parameter(name, type):
    type = parse_type(type) if isinstance(type, str) else type
    return make(OPS["parameter"], name=name, role="input", uid=0, type=type)


def values(nodes, **arrays):
    """Nodes evaluated on arrays for their parameters."""
    params = tuple(n for n in postorder(nodes) if n.op.name == "parameter")
    results, _ = evaluate(Graph("f", params, tuple(nodes)), arrays)
    return results


def slope(f, arrays, name, direction, step=1e-5):
    """The central difference of f along a direction in one of its arguments."""
    ahead, behind = ({**arrays, name: arrays[name] + sign * step * direction} for sign in (1, -1))
    return (f(**ahead) - f(**behind)) / (2 * step)


def assert_gradients(output, arrays, tolerance=1e-6):
    """Every gradient of the weighted output agrees with finite differences along random directions."""
    generator = np.random.default_rng(1)
    weights = generator.normal(size=output.shape)
    params = [n for n in postorder([output]) if n.op.name == "parameter" and n.dtype.is_float]
    found = gradients([output], [constant(weights, f64)], params)

    for param, gradient in zip(params, found, strict=True):
        assert gradient is None or gradient.type == param.type
        if 0 in param.shape:
            continue
        direction = generator.normal(size=param.shape)
        want = slope(lambda **at: (values([output], **at)[0] * weights).sum(), arrays, param.name, direction)
        got = 0.0 if gradient is None else (values([gradient], **arrays)[0] * direction).sum()
        assert got == pytest.approx(want, rel=tolerance, abs=tolerance), param.name


DIFFERENTIABLE = [
    pytest.param(op, s.in_dtype(f64), id=f"{op.name}-{i}")
    for op in OPS.values() if not isinstance(op.gradient, NoGradient)
    for i, s in enumerate(op.samples) if any(t.dtype.is_float for t in s.operands)
]


def built(op, sample):
    params = [parameter(f"x{i}", t) for i, t in enumerate(sample.operands)]
    arrays = sample.arrays(3)
    if op is ops.softmax_cross_entropy:
        arrays[0] = np.exp(arrays[0]) / np.exp(arrays[0]).sum(sample.attrs["axis"], keepdims=True)
    return make(op, *params, **sample.attrs), {p.name: v for p, v in zip(params, arrays, strict=True)}


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_against_finite_differences(op, sample):
    node, arrays = built(op, sample)
    if node.dtype.is_float:
        assert_gradients(node, arrays)


SMOOTH = [c for c in DIFFERENTIABLE if c.values[0].name in set(
    "pow div sqrt tanh softplus erf clip prod cumprod cumsum max variance mean matmul softmax log_softmax logsumexp "
    "softmax_cross_entropy sigmoid_cross_entropy pad concatenate sum_to select".split()
)]


@pytest.mark.parametrize(("op", "sample"), SMOOTH)
def test_second_derivatives(op, sample):
    node, arrays = built(op, sample)
    params = [a for a in node.args if a.dtype.is_float]
    weights = constant(np.random.default_rng(2).normal(size=node.shape), f64)
    for first in gradients([node], [weights], params):
        if first is not None:
            assert_gradients(first, arrays, tolerance=1e-5)


# Ties and edges.

def at(build, *points, dtype=f64):
    """The gradient of the sum of `build(x)` at the given points."""
    x = parameter("x", TensorType(dtype, (len(points),)))
    (g,) = gradients([build(x)], None, [x])
    return values([g], x=np.array(points, dtype.numpy))[0].tolist()


def test_ties_of_a_reduction_share():
    assert at(lambda x: ops.max(x, axes=(0,), keepdims=False), 1, 3, 3, 3) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert at(lambda x: ops.min(x, axes=(0,), keepdims=True), 1, 3, 1) == [0.5, 0, 0.5]


def test_ties_of_two_operands_go_to_the_first():
    x, y = parameter("x", "f64[3]"), parameter("y", "f64[3]")
    arrays = {"x": np.array([1.0, 2.0, 3.0]), "y": np.array([2.0, 2.0, 2.0])}
    of_max = values(gradients([ops.maximum(x, y)], None, [x, y]), **arrays)
    of_min = values(gradients([ops.minimum(x, y)], None, [x, y]), **arrays)
    assert [g.tolist() for g in of_max] == [[0, 1, 1], [1, 0, 0]]
    assert [g.tolist() for g in of_min] == [[1, 1, 0], [0, 0, 1]]


def test_kinks():
    assert at(ops.relu, -1, 0, 1) == [0, 0, 1]
    assert at(ops.abs, -1, 0, 1) == [-1, 0, 1]
    assert at(lambda x: ops.clip(x, constant(-1.0), constant(1.0)), -2, -1, 0, 1, 2) == [0, 1, 1, 1, 0]


def test_clip_with_limits_crossed_is_the_lower_one():
    x, low, high = (parameter(n, "f64[]") for n in ("x", "low", "high"))
    for number in (0.0, 2.0, 3.0, 4.0):
        arrays = {"x": np.float64(number), "low": np.float64(3), "high": np.float64(1)}
        node = ops.clip(x, low, high)
        assert values([node], **arrays)[0] == 3
        wanted = [1, 0, 0] if number == 3 else [0, 1, 0]
        assert [float(g) for g in values(gradients([node], None, [x, low, high]), **arrays)] == wanted


def test_powers_at_zero():
    x, y = parameter("x", "f64[4]"), parameter("y", "f64[4]")
    arrays = {"x": np.array([0.0, 0.0, 0.0, -2.0]), "y": np.array([0.0, 1.0, 2.0, 3.0])}
    of_x, of_y = values(gradients([ops.pow(x, y)], None, [x, y]), **arrays)
    assert of_x.tolist() == [0, 1, 0, 12]
    assert of_y.tolist() == [0, 0, 0, 0]
    assert at(lambda x: ops.pow(x, constant(2.0)), 0, -3) == [0, -6]


@pytest.mark.parametrize("numbers", [(2, 3, 4), (0, 3, 4), (2, 0, 4), (0, 3, 0), (0, 0, 0)])
def test_products_with_zeros(numbers):
    others = [math.prod(numbers[:i] + numbers[i + 1:]) for i in range(3)]
    assert at(lambda x: ops.prod(x, axes=(0,), keepdims=False), *numbers) == others

    a, b, c = numbers
    assert at(lambda x: ops.cumprod(x, axis=0), *numbers) == [1 + b + b * c, a + a * c, a * b]


def test_second_derivative_of_a_product_with_zeros():
    x = parameter("x", "f64[3]")
    (first,) = gradients([ops.prod(x, axes=(0,), keepdims=False)], None, [x])
    (second,) = gradients([first], [constant([1.0, 0.0, 0.0])], [x])
    assert values([second], x=np.array([0.0, 0.0, 5.0]))[0].tolist() == [0, 5, 0]


@pytest.mark.parametrize(("row", "want"), [
    ([1000, 1000], [0.5, 0.5]), ([-math.inf, -math.inf], [0, 0]), ([math.inf, 3], [1, 0]), ([-math.inf, 2], [0, 1]),
    ([math.inf, math.inf], [0.5, 0.5]), ([math.inf, -math.inf], [1, 0]), ([-1e5, -1e5], [0.5, 0.5]),
])
def test_logsumexp_at_extremes(row, want):
    for dtype in (f32, f64):
        assert at(lambda x: ops.logsumexp(x, axes=(0,), keepdims=False), *row, dtype=dtype) == want


def test_cross_entropies_at_extremes():
    logits, target = parameter("x", "f64[2]"), constant([1.0, 0.0])
    row = {"x": np.array([-1e4, 1e4])}
    by_softmax = gradients([ops.softmax_cross_entropy(target, logits, axis=0)], None, [logits])
    by_sigmoid = gradients([ops.sigmoid_cross_entropy(target, logits)], None, [logits])
    assert values(by_softmax, **row)[0].tolist() == [-1, 1]
    assert values(by_sigmoid, **row)[0].tolist() == [-1, 1]


# The transformation.

def test_of_an_intermediate_node_and_through_it():
    x = parameter("x", "f64[3]")
    middle = ops.exp(x)
    loss = ops.sum(middle * middle, axes=(0,), keepdims=False)
    of_middle, of_x, of_loss = gradients([loss], None, [middle, x, loss])
    point = np.array([0.0, 1.0, -1.0])
    got = values([of_middle, of_x, of_loss], x=point)
    np.testing.assert_allclose(got[0], 2 * np.exp(point))
    np.testing.assert_allclose(got[1], 2 * np.exp(2 * point))
    assert got[2] == 1


def test_several_outputs_are_added():
    x = parameter("x", "f64[2]")
    (g,) = gradients([x * 3, ops.sum(x, axes=(0,), keepdims=False), x * 3], None, [x])
    assert values([g], x=np.zeros(2))[0].tolist() == [7, 7]


def test_unknown_sizes_are_summed_back():
    n, m = dims.symbol("n"), dims.symbol("m")
    x, y = parameter("x", TensorType(f64, (n, 3))), parameter("y", TensorType(f64, (m, 1)))
    of_x, of_y = gradients([x * y], None, [x, y])
    assert (of_x.type, of_y.type) == (x.type, y.type)
    arrays = {"x": np.ones((4, 3)), "y": np.full((1, 1), 2.0)}
    assert values([of_y], **{**arrays, "y": np.ones((4, 1))})[0].tolist() == [[3]] * 4


def test_linear_in_the_graph():
    def nodes(depth):
        node = x = parameter("x", "f64[]")
        for _ in range(depth):
            node = ops.sin(node) * node
        return len(postorder(gradients([node], None, [x])))

    assert nodes(300) - nodes(200) == nodes(200) - nodes(100)


def test_only_paths_that_lead_there():
    x, y = parameter("x", "f64[2,2]"), parameter("y", "f64[2,2]")
    product = ops.matmul(ops.exp(x), y, transpose_a=False, transpose_b=False)
    (g,) = gradients([product], None, [y])
    assert [n.op.name for n in postorder([g])].count("matmul") == 1


def test_stops():
    x = parameter("x", "f64[2]")
    assert gradients([ops.stop_gradient(x) * 2], None, [x]) == [None]
    assert cuts(ops.stop_gradient(x) * 2, x) == [(ops.stop_gradient(x), "stop_gradient says so")]
    (g,) = gradients([ops.stop_gradient(x) * x], None, [x])
    assert values([g], x=np.array([3.0, 4.0]))[0].tolist() == [3, 4]


def test_reasons_for_no_gradient():
    x, y = parameter("x", "f64[3]"), parameter("y", "f64[3]")
    whole = ops.cast(x, dtype=i32)
    place = ops.argmax(x, axis=0)
    cases = [
        (ops.floor(x) + y, [(ops.floor(x), "rounding is piecewise constant")]),
        (ops.cast(whole * 2, dtype=f64), [(whole, "int32 has no gradient")]),
        (ops.cast(place, dtype=f64), [(place, "the place of a maximum is piecewise constant")]),
        (ops.select(ops.gt(x, 0), y, -y), [(ops.gt(x, 0), "comparisons are piecewise constant")]),
        (ops.sum_to(y, x), [(ops.sum_to(y, x), "sum_to has no gradient in like")]),
        (y * 2, []),
    ]
    for output, want in cases:
        assert gradients([output], None, [x]) == [None]
        assert cuts(output, x) == want
    k = parameter("k", "i64[3]")
    assert gradients([ops.cast(k, dtype=f64)], None, [k]) == [None]
    assert cuts(ops.cast(k, dtype=f64), k) == [(k, "int64 has no gradient")]


def test_new_nodes_are_attributed():
    x = parameter("x", "f64[3]")
    middle = ops.tanh(x)
    loss = ops.sum(middle, axes=(0,), keepdims=False)
    because = {}
    (g,) = gradients([loss], None, [x], note=lambda new, node: because.setdefault(new, node))
    new = set(postorder([g])) - set(postorder([loss]))
    assert new <= because.keys()
    assert because[g] is middle
    assert not because.keys() & set(postorder([loss]))


def test_seeds_must_fit():
    x = parameter("x", "f64[3]")
    with pytest.raises(ShapeError, match=r"\(2,\), the output \(3,\)"):
        gradients([x * 2], [constant([1.0, 2.0])], [x])
    with pytest.raises(DTypeError, match="float32, the output float64"):
        gradients([x * 2], [constant([1.0, 2.0, 3.0], f32)], [x])


def test_samples_repeat():
    one = sample("f32[3]", "i32[2]", span=(0, 5))
    assert [a.tolist() for a in one.arrays(1)] == [a.tolist() for a in one.arrays(1)]
