"""Every operation of the registry: its record, its meaning, and that its way down says the same."""

import itertools
import math
import warnings

import numpy as np
import pytest

import tensorc.ops as ops
from tensorc.errors import DTypeError, IRError, ShapeError
from tensorc.ir import dims
from tensorc.ir.assume import collecting
from tensorc.ir.graph import Graph
from tensorc.ir.node import OPS, NoGradient, make
from tensorc.ir.types import TensorType, bf16, boolean, f16, f32, f64, i32, i64, parse_type, u8
from tensorc.ops import philox
from tensorc.ops.define import At, Compute, Fill, Position, Where
from tensorc.ops.interpret import apply, bind, evaluate

CASES = [pytest.param(op, s, id=f"{op.name}-{i}") for op in OPS.values() for i, s in enumerate(op.samples)]


def parameter(name, type, role="input"):
    type = parse_type(type) if isinstance(type, str) else type
    return make(OPS["parameter"], name=name, role=role, uid=0, type=type)


def built(op, sample):
    """The node of a sample on parameters called x0, x1, …, and values for them."""
    params = [parameter(f"x{i}", t) for i, t in enumerate(sample.operands)]
    values = {p.name: v for p, v in zip(params, sample.arrays(), strict=True)}
    return make(op, *params, **sample.attrs), tuple(params), values


def both_ways(node, array):
    """What the reference and the expansion make of x."""
    (expanded,), _ = evaluate(Graph("f", node.args, (node.op.expand(node),)), {"x": array})
    return [apply(node, [array]).tolist(), expanded.tolist()]


# The record.

@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_record_is_complete(op):
    assert op.way in ("scalar", "reduce", "index", "view", "expand", "kernel", "source")
    assert op.doc.endswith(".")
    assert op.reference is not None or op.source
    assert op.samples or op.name == "parameter"
    if isinstance(op.gradient, NoGradient):
        assert op.gradient.reason
    assert getattr(ops, op.name) is op


def test_all_operations_are_exported():
    assert sorted(ops.__all__) == sorted(OPS)


# The meaning.

@pytest.mark.parametrize(("op", "sample"), CASES)
def test_inferred_type_is_that_of_the_reference(op, sample):
    node, params, values = built(op, sample)
    result = apply(node, [values[p.name] for p in params])
    assert result.shape == node.shape
    assert result.dtype == node.dtype.numpy


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e30, -1e30, 1e-30])


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.scalar and op.samples[0].operands[-1].dtype is f32],
                         ids=lambda op: op.name)
def test_no_special_value_warns(op):
    x = SPECIAL.astype(np.float32)
    operands = [x, x[:, None]][: len(op.params)] if len(op.params) < 3 else [x > 0, x, x[::-1]]
    types = [TensorType(f32 if v.dtype == np.float32 else boolean, v.shape) for v in operands]
    node = make(op, *(parameter(f"x{i}", t) for i, t in enumerate(types)), **op.samples[0].attrs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply(node, operands)


@pytest.mark.parametrize(("op", "sample"), [c for c in CASES if c.values[0].expand])
def test_expansion_agrees_with_the_reference(op, sample):
    node, params, values = built(op, sample)
    expansion = op.expand(node)
    assert expansion.type == node.type
    (got,), _ = evaluate(Graph("f", params, (expansion,)), values)
    want = apply(node, [values[p.name] for p in params])
    tolerance = {bf16: 3e-2, f16: 4e-3, f32: 4e-6}.get(node.dtype, 1e-12)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def element(e, arrays, dtype):
    """The number that an Element stands for."""
    match e:
        case At(operand, index):
            place = tuple(element(i, arrays, None) if isinstance(i, Compute | At) else i for i in index)
            assert all(0 <= i < n for i, n in zip(place, arrays[operand].shape, strict=True))
            return arrays[operand][place]
        case Fill(number, own):
            return (own or dtype).numpy.type(number)
        case Position(size, own):
            return (own or dtype).numpy.type(size)
        case Where(bounds, then, otherwise):
            holds = all(b.low <= b.size < b.high for b in bounds)
            return element(then if holds else otherwise, arrays, dtype)
        case Compute("cast", (arg,), own):
            return element(arg, arrays, None).astype(own.numpy)
        case Compute("maximum" | "minimum" as fn, args, own):
            return getattr(np, fn)(*(element(a, arrays, own) for a in args))
        case Compute(fn, args, own):
            assert fn in ("philox_uniform32", "philox_uniform64")
            index, seed, step, word = (element(a, arrays, own) for a in args)
            assert (index.dtype, seed.dtype, step.dtype, word.dtype) == ("int64", "int64", "int64", "int32")
            return philox.uniform(index, seed, step, int(word), own)[()]
    raise AssertionError(e)


@pytest.mark.parametrize(("op", "sample"), [c for c in CASES if c.values[0].index])
def test_index_agrees_with_the_reference(op, sample):
    node, params, values = built(op, sample)
    arrays = [values[p.name] for p in params]
    want = apply(node, arrays)
    got = np.empty(node.shape, node.dtype.numpy)
    for place in itertools.product(*map(range, node.shape)):
        got[place] = element(op.index(node, place), arrays, node.dtype)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.index], ids=lambda op: op.name)
def test_index_takes_symbols(op):
    for sample in op.samples:
        node, _, _ = built(op, sample)
        op.index(node, tuple(dims.symbol(f"i{k}") for k in range(node.type.rank)))


# What single operations mean where it is easily got wrong.

def test_empty_extremes_are_the_identity():
    x = parameter("x", "f32[0,2]")
    empty = np.zeros((0, 2), np.float32)
    assert apply(ops.max(x, axes=(0,), keepdims=False), [empty]).tolist() == [-math.inf] * 2
    assert apply(ops.min(x, axes=(0,), keepdims=False), [empty]).tolist() == [math.inf] * 2
    assert np.isnan(both_ways(ops.mean(x, axes=(0,), keepdims=False), empty)).all()


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_half_precision_sums_in_single(dtype):
    x = parameter("x", f"{dtype}[4096]")
    ones = np.ones(4096, dtype.numpy)
    assert apply(ops.sum(x, axes=(0,), keepdims=False), [ones]) == 4096
    assert both_ways(ops.mean(x, axes=(0,), keepdims=False), ones * 100) == [100, 100]


def test_integer_mean_rounds_towards_zero():
    x = parameter("x", "i32[2]")
    node = ops.mean(x, axes=(0,), keepdims=False)
    for numbers, want in (([-3, 0], -1), ([3, 0], 1), ([2**31 - 1, 2**31 - 1], 2**31 - 1)):
        assert both_ways(node, np.array(numbers, np.int32)) == [want, want]


def test_integer_division_by_zero_and_negative_powers():
    x, y = parameter("x", "i32[3]"), parameter("y", "i32[3]")

    def result(op, a, b):
        return apply(op(x, y), [np.array(a, np.int32), np.array(b, np.int32)]).tolist()

    assert result(ops.floordiv, [7, -7, 5], [2, 2, 0]) == [3, -4, 0]
    assert result(ops.mod, [7, -7, 5], [2, -2, 0]) == [1, -1, 0]
    assert result(ops.pow, [-1, 2, 0], [-3, -1, -2]) == [-1, 0, 0]


def test_cast_saturates():
    x = parameter("x", "f32[5]")
    numbers = np.array([np.nan, np.inf, -np.inf, 300.7, -1.5], np.float32)
    assert apply(ops.cast(x, dtype=i32), [numbers]).tolist() == [0, 2**31 - 1, -(2**31), 300, -1]
    assert apply(ops.cast(x, dtype=u8), [numbers]).tolist() == [0, 255, 0, 255, 0]
    assert apply(ops.cast(x, dtype=i64), [numbers]).tolist() == [0, 2**63 - 1, -(2**63), 300, -1]
    assert apply(ops.cast(x, dtype=boolean), [numbers]).tolist() == [True] * 5


def test_variance_far_from_zero():
    x = parameter("x", "f32[1000]")
    node = ops.variance(x, axes=(0,), keepdims=False)
    numbers = (np.random.default_rng(0).normal(size=1000) + 4096).astype(np.float32)
    exact = np.var(numbers.astype(np.float64))
    assert both_ways(node, numbers) == pytest.approx([exact, exact], rel=1e-5)


@pytest.mark.parametrize("row", [
    [1000.0, 1000.0], [-1000.0, -1001.0], [-math.inf, -math.inf], [math.inf, 3.0], [math.inf, -math.inf],
    [math.inf, math.inf], [math.nan, 1.0], [-math.inf, 2.0],
])
def test_logsumexp_of_extremes(row):
    x = parameter("x", "f32[2]")
    node = ops.logsumexp(x, axes=(0,), keepdims=False)
    array = np.array(row, np.float32)
    with np.errstate(all="ignore"):
        want = np.logaddexp(*array.astype(np.float64))
    np.testing.assert_allclose(both_ways(node, array), [want, want], rtol=1e-6)


def test_special_functions_against_scipy():
    scipy = pytest.importorskip("scipy.special")
    y = np.array([-1, -0.999999, -0.5, -1e-20, 0, 1e-9, 0.3, 0.5, 0.9, 1 - 1e-12, 1, 1.5])
    x = np.linspace(-7, 7, 41)
    p = parameter("x", TensorType(f64, y.shape))
    q = parameter("x", TensorType(f64, x.shape))
    np.testing.assert_allclose(apply(ops.erfinv(p), [y]), scipy.erfinv(y), rtol=4e-15)
    np.testing.assert_allclose(apply(ops.erf(q), [x]), scipy.erf(x), rtol=1e-15)
    np.testing.assert_allclose(apply(ops.sigmoid(q), [x * 100]), scipy.expit(x * 100), rtol=1e-15)
    np.testing.assert_allclose(apply(ops.log_sigmoid(q), [x * 100]), scipy.log_expit(x * 100), rtol=1e-14)


def test_random_numbers_are_distributed_as_they_say():
    key = parameter("key", "i64[2]")
    state = np.array([42, 7], np.int64)
    n = 20_000

    u = apply(ops.uniform(key, shape=(n,), dtype=f32, word=0), [state])
    z = apply(ops.normal(key, shape=(n,), dtype=f64), [state])
    t = apply(ops.truncated_normal(key, shape=(n,), dtype=f32), [state])

    assert 0 <= u.min() <= u.max() < 1
    assert abs(u.mean() - 0.5) < 0.01
    assert abs(z.mean()) < 0.03
    assert abs(z.std() - 1) < 0.02
    assert abs((z**4).mean() - 3) < 0.15
    assert abs(t).max() <= 2
    assert abs(t.std() - 0.8796) < 0.02


# Shapes.

def test_strided_parts_of_unknown_size_fit_their_gradient():
    n = dims.symbol("n")
    x = parameter("x", TensorType(f32, (n,)))
    part = ops.slice(x, starts=(1,), limits=(n,), steps=(2,))
    (back,) = part.op.gradient(part, part)
    assert back.type == x.type
    (again,) = back.op.gradient(back, x)
    assert again.type == part.type


def test_sum_to_waits_until_sizes_are_known():
    n, m = dims.symbol("n"), dims.symbol("m")
    g = parameter("g", TensorType(f32, (n, 3)))
    undecided = ops.sum_to(g, parameter("x", TensorType(f32, (m, 3))))
    assert undecided.op.expand(undecided) is undecided
    row = ops.sum_to(g, parameter("x", TensorType(f32, (1, 3))))
    assert row.op.expand(row) is ops.sum(g, axes=(0,), keepdims=True)
    vector = ops.sum_to(g, parameter("x", TensorType(f32, (3,))))
    assert vector.op.expand(vector) is ops.sum(g, axes=(0,), keepdims=False)
    same = ops.sum_to(g, parameter("x", TensorType(f32, (n, 3))))
    assert same.op.expand(same) is g


def test_broadcast_between_names_is_an_assumption():
    n, m = dims.symbol("n"), dims.symbol("m")
    x = parameter("x", TensorType(f32, (n,)))
    with collecting() as needs:
        ops.broadcast(x, shape=(2, dims.bcast(n, m)))
        assert needs.equal == []
        ops.broadcast(x, shape=(2, m))
        assert needs.equal == [(n, m)]


X, K = "f32[2,3]", "i64[2]"
WRONG = [
    (ops.add, (X, "f32[4]"), {}, ShapeError, r"\(2, 3\) and \(4,\)"),
    (ops.add, (X, "f64[3]"), {}, DTypeError, "float32, float64"),
    (ops.add, ("bool[2]", "bool[2]"), {}, DTypeError, "not bool"),
    (ops.div, ("i32[2]", "i32[2]"), {}, DTypeError, "not int32"),
    (ops.exp, ("i32[2]",), {}, DTypeError, "not int32"),
    (ops.logical_and, (X, X), {}, DTypeError, "takes bool"),
    (ops.select, (X, X, X), {}, DTypeError, "condition is float32"),
    (ops.broadcast, (X,), {"shape": (3,)}, ShapeError, r"\(2, 3\) does not broadcast to \(3,\)"),
    (ops.broadcast, (X,), {"shape": (2, 4)}, ShapeError, "does not broadcast"),
    (ops.reshape, (X,), {"shape": (4,)}, ShapeError, "different counts: 6 and 4"),
    (ops.transpose, (X,), {"perm": (0, 0)}, ShapeError, "each axis"),
    (ops.slice, (X,), {"starts": (0, 2), "limits": (2, 4), "steps": (1, 1)}, ShapeError, "axis 1 of size 3"),
    (ops.slice, (X,), {"starts": (0,), "limits": (2,), "steps": (1,)}, ShapeError, "each axis"),
    (ops.pad, (X,), {"low": (-3, 0), "high": (0, 0), "interior": (0, 0)}, ShapeError, "would become"),
    (ops.reverse, (X,), {"axes": (2,)}, ShapeError, "no axis 2"),
    (ops.concatenate, (X, "f32[3,3]"), {"axis": 1}, ShapeError, "outside axis 1"),
    (ops.concatenate, (X, "f32[3]"), {"axis": 0}, ShapeError, "ranks differ"),
    (ops.iota, (), {"shape": (3,), "axis": 0, "dtype": f32}, DTypeError, "not float32"),
    (ops.sum, (X,), {"axes": (1, 0), "keepdims": False}, ShapeError, "axes"),
    (ops.any, (X,), {"axes": (0,), "keepdims": False}, DTypeError, "takes bool"),
    (ops.argmax, ("f32[0]",), {"axis": 0}, ShapeError, "no elements"),
    (ops.sum_to, (X, "f32[2]"), {}, ShapeError, "does not broadcast"),
    (ops.matmul, (X, X), {"transpose_a": False, "transpose_b": False}, ShapeError, "inner sizes"),
    (ops.matmul, (X, "f32[3]"), {"transpose_a": False, "transpose_b": False}, ShapeError, "rank 2"),
    (ops.softmax, (X,), {"axis": -1}, ShapeError, "no axis -1"),
    (ops.softmax_cross_entropy, (X, "f32[2,4]"), {"axis": 1}, ShapeError, "targets and logits"),
    (ops.uniform, (K,), {"shape": (2,), "dtype": f16, "word": 0}, DTypeError, "float32 or float64"),
    (ops.uniform, (K,), {"shape": (2,), "dtype": f64, "word": 2}, ShapeError, "2 float64 numbers"),
    (ops.normal, ("i32[2]",), {"shape": (2,), "dtype": f32}, ShapeError, "key"),
]


@pytest.mark.parametrize(("op", "types", "attrs", "error", "words"), WRONG, ids=lambda v: getattr(v, "name", None))
def test_wrong_operands_are_told_plainly(op, types, attrs, error, words):
    with pytest.raises(error, match=words):
        make(op, *(parameter(f"x{i}", t) for i, t in enumerate(types)), **attrs)


# The interpreter.

def test_sizes_come_from_the_arrays():
    n, m = dims.symbol("n"), dims.symbol("m")
    types = {"y": TensorType(f32, (2 * n + 1, n * m)), "x": TensorType(f32, (n, m))}
    assert bind({k: (t, s) for (k, t), s in zip(types.items(), [(7, 6), (3, 2)], strict=True)}) == {"n": 3, "m": 2}
    with pytest.raises(ShapeError, match=r"y has shape \(7, 5\), not .*, m = 2, n = 3"):
        bind({k: (t, s) for (k, t), s in zip(types.items(), [(7, 5), (3, 2)], strict=True)})
    with pytest.raises(ShapeError, match="x has shape"):
        bind({"x": (TensorType(f32, (n,)), (3, 2))})


def test_evaluate_gives_outputs_and_updates():
    n = dims.symbol("n")
    x = parameter("x", TensorType(f32, (n,)))
    w = parameter("w", "f32[]", role="variable")
    count = ops.cast(ops.size(value=2 * n, dtype=i64), dtype=f32)
    graph = Graph("f", (x, w), (ops.sum(x * w, axes=(0,), keepdims=False),), ((w, w + count),))

    outputs, updates = evaluate(graph, {"x": np.arange(4, dtype=np.float32), "w": np.float32(2)})
    assert outputs[0] == 12
    assert updates["w"] == 10

    with pytest.raises(IRError, match="w has no value"):
        evaluate(graph, {"x": np.zeros(3, np.float32)})
    with pytest.raises(IRError, match="x is float64"):
        evaluate(graph, {"x": np.zeros(3), "w": np.float32(2)})

