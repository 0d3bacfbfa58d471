"""The whole pipeline on random graphs and their gradients: it must agree with NumPy wherever that is finite."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import closed, evaluate, tensor

from tensorc.autodiff import gradients
from tensorc.errors import TensorcError
from tensorc.ir.dims import symbol
from tensorc.ir.graph import Graph
from tensorc.ir.node import Node, constant
from tensorc.ir.types import f64
from tensorc.ops import (
    abs,
    add,
    broadcast,
    div,
    exp,
    expm1,
    gt,
    log,
    log1p,
    log_sigmoid,
    log_softmax,
    logsumexp,
    matmul,
    max,
    maximum,
    mean,
    minimum,
    mul,
    neg,
    pow,
    relu,
    select,
    sigmoid,
    softmax,
    softplus,
    sqrt,
    square,
    sub,
    sum,
    tanh,
    transpose,
    variance,
)
from tensorc.passes.context import Context
from tensorc.passes.pipeline import default

N = symbol("n")
INPUTS = [tensor("a", N, 3, dtype=f64), tensor("b", N, 3, dtype=f64), tensor("c", 3, dtype=f64),
          tensor("d", N, 1, dtype=f64), tensor("e", dtype=f64)]
FUNCTIONS = [neg, abs, exp, log, sqrt, sigmoid, tanh, square, softplus, log1p, expm1, relu, log_sigmoid]
PAIRS = [add, sub, mul, div, maximum, minimum]
REDUCTIONS = [sum, sum, max, mean, variance, logsumexp]
NUMBERS = [0.0, 1.0, 2.0, -1.0, 0.5, 3.0]


def step(pick: random.Random, pool: list[Node]) -> Node:
    """One more operation on what is there.  Raises ShapeError where it does not fit."""
    x, other = pick.choice(pool[-6:]), pick.choice(pool)
    rank = len(x.shape)
    kind = pick.choice(["function", "pair", "pair", "number", "reduce", "softmax", "move", "select", "power"])
    if kind == "function":
        return pick.choice(FUNCTIONS)(x)
    if kind == "number":
        operands = [x, constant(pick.choice(NUMBERS), f64)]
        pick.shuffle(operands)
        return pick.choice(PAIRS)(*operands)
    if kind == "reduce" and rank:
        axes = tuple(sorted(pick.sample(range(rank), pick.randint(1, rank))))
        return pick.choice(REDUCTIONS)(x, axes=axes, keepdims=pick.random() < 0.5)
    if kind == "softmax" and rank:
        return pick.choice([softmax, log_softmax])(x, axis=pick.randrange(rank))
    if kind == "move" and rank == 2:
        both = {"transpose_a": pick.random() < 0.5, "transpose_b": pick.random() < 0.5}
        return pick.choice([
            lambda: transpose(x, perm=(1, 0)), lambda: broadcast(x, shape=(N, 3)), lambda: matmul(x, other, **both),
        ])()
    if kind == "select":
        return select(gt(x, 0), x, other)
    if kind == "power":
        return pow(x, constant(pick.choice(NUMBERS), f64))
    return pick.choice(PAIRS)(x, other)


def random_outputs(seed: int) -> list[Node]:
    """Some results over INPUTS, and often the gradients of the last."""
    pick = random.Random(seed)
    pool = list(INPUTS)
    for _ in range(pick.randint(3, 14)):
        try:
            pool.append(step(pick, pool))
        except TensorcError:
            continue
    outputs = pool[-2:]
    if pick.random() < 0.6:
        outputs += [g for g in gradients(outputs[-1:], None, INPUTS) if g is not None]
    return outputs


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(4, 3)), "b": rng.uniform(0.2, 2, (4, 3)), "c": rng.normal(size=3),
            "d": rng.normal(size=(4, 1)), "e": rng.uniform(0.5, 2)}


def compare(seed: int) -> bool:
    """Whether the graph of a seed could be compared; asserts that its values are the same."""
    graph = closed(*random_outputs(seed))
    try:
        wanted = evaluate(graph, {"n": 4}, **arrays(seed))
    except TensorcError:
        return False                         # sizes that only look as if they fitted
    found = evaluate(default().up_to("share").run(graph), {"n": 4}, **arrays(seed))

    for old, new in zip(wanted, found, strict=True):
        finite = np.isfinite(old)
        scale = np.max(np.abs(old), where=finite, initial=1.0)
        np.testing.assert_allclose(new[finite], old[finite], rtol=1e-6, atol=1e-9 * scale, err_msg=f"seed {seed}")
    return True


@pytest.mark.parametrize("block", range(8))
def test_random_graphs(block):
    compared = [compare(seed) for seed in range(block * 25, block * 25 + 25)]
    assert compared.count(True) > 12


def logistic_regression() -> Graph:
    """A step of gradient descent on softmax regression, with the loss spelled out."""
    x, y = tensor("x", N, 784), tensor("y", N, 10)
    w, b = tensor("w", 784, 10, role="variable"), tensor("b", 10, role="variable")
    scores = exp(matmul(x, w, transpose_a=False, transpose_b=False) + b)
    p = scores / sum(scores, axes=(1,), keepdims=True)
    loss = mean(-sum(y * log(p), axes=(1,), keepdims=False), axes=(0,), keepdims=False)
    slopes = gradients([loss], None, [w, b])
    updates = tuple((v, v - slope * 0.1) for v, slope in zip((w, b), slopes, strict=True))
    return Graph("logistic_regression", (x, y, w, b), (loss,), updates)


def attention() -> Graph:
    """Attention over heads, as frameworks without batched products in mixed order spell it."""
    q, k, v = (tensor(name, N, 8, 2, 16) for name in "qkv")
    heads = [transpose(a, perm=(0, 2, 1, 3)) for a in (q, k, v)]
    keys = transpose(heads[1], perm=(0, 1, 3, 2))
    weights = softmax(matmul(heads[0], keys, transpose_a=False, transpose_b=False) * 0.25, axis=3)
    mixed = matmul(weights, heads[2], transpose_a=False, transpose_b=False)
    return Graph("attention", (q, k, v), (transpose(mixed, perm=(0, 2, 1, 3)),))


def standardised() -> Graph:
    """A row less its mean over its deviation, the variance as the difference of means."""
    x = tensor("x", N, 64)
    centre = mean(x, axes=(1,), keepdims=True)
    spread = mean(x * x, axes=(1,), keepdims=True) - pow(centre, 2)
    return Graph("standardised", (x,), ((x - centre) / sqrt(spread + 1e-3),))


@pytest.mark.parametrize("example", [logistic_regression, attention, standardised])
def test_examples_read_well_after_every_pass(example, golden):
    stages = []
    context = Context(observers=(lambda name, graph: stages.append((name, str(graph))),))
    default().up_to("share").run(example(), context)

    changed = [f"# {name}\n{text}" for (_, before), (name, text) in zip([("", "")] + stages, stages, strict=False)
               if text != before]
    golden(f"passes/{example.__name__}.txt", "\n".join(changed))


def test_the_result_does_not_depend_on_the_hash_seed():
    program = (
        "from test_pipeline import closed, default, random_outputs\n"
        "print(*[default().up_to('share').run(closed(*random_outputs(s))) for s in range(4)])"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    texts = {
        subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path},
                       capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
