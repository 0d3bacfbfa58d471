"""Counting operations on floats, as a pass that changes nothing: how many of them a function does, and where.

A multiplication, an addition, a comparison or the value of a function such as exp is one operation; what only moves or
repeats values is none.  The counts are polynomials in the sizes that are open until the call.

    python examples/flops.py [--batch N]
    tensorc --dump-ir train.py --passes examples/flops.py        counts of every function of a script

Holds the counts of a network and of its training step against the formula for products of matrices: 2 · n · inputs ·
outputs for each layer, and as much again for its two gradients each, of which the first layer needs one.
"""

import argparse
import itertools
import sys
from collections import Counter

import numpy as np

from tensorc import backend as K
from tensorc.ir import dims
from tensorc.ir.graph import nested
from tensorc.passes import graph_pass

SIZES = (64, 256, 128, 10)


def operations(node):
    """What one node does: operations on floats, as a number or a polynomial of sizes."""
    of_result, of_operand = node.type.count, node.args[0].type.count if node.args else 0
    if node.op.name == "matmul":
        return 2 * of_result * node.a.shape[-2 if node.transpose_a else -1]
    if node.op.kernel == "conv":
        return 2 * of_result * dims.floordiv(node.args[1].type.count, node.shape[-1])
    if node.op.name == "scan":
        return node.length * total(count(node.body))
    if not node.dtype.is_float:
        return 0
    if node.op.reduce:
        return of_operand
    return of_result if node.op.scalar else 0


def count(graph):
    """Operations by the name of what does them."""
    found = Counter()
    for node in graph.nodes:
        found[node.op.name] += operations(node)
        for body in nested(node) if node.op.name == "cond" else ():
            found["cond"] += total(count(body))           # both branches, of which a call takes one
    return Counter({name: n for name, n in found.items() if n != 0})


def total(found):
    return sum(found.values(), 0)


def counting(results):
    """The pass that leaves the counts of each graph that it sees in `results`, by the graph's name."""
    @graph_pass(place="after share", descends=True)
    def flops(graph, context):
        results[graph.name] = count(graph)
        return graph
    return flops


@graph_pass(place="after share", descends=True)
def print_flops(graph, context):
    """The pass for the command: prints the counts."""
    show(graph.name, count(graph))
    return graph


def show(name, found, **sizes):
    """Prints counts, the largest first; as numbers where sizes are given."""
    def number(n):
        return dims.substitute(n, sizes) if sizes else n

    print(f"{name}: {number(total(found))} operations")
    known = {op: number(n) for op, n in found.items()}
    for op, n in sorted(known.items(), key=lambda entry: (-dims.evaluate(entry[1], dict.fromkeys(
            dims.symbols(entry[1]), 1)), entry[0])):
        print(f"  {op:12} {n}")


def step_and_network():
    """A training step of a classifier by gradient descent, and the network alone."""
    x = K.placeholder(shape=(None, SIZES[0]), name="x")
    y = K.placeholder(shape=(None, SIZES[-1]), name="y")
    rng = np.random.default_rng(0)
    weights = [K.variable(rng.normal(0, i**-0.5, (i, o)), name=f"w{n}")
               for n, (i, o) in enumerate(itertools.pairwise(SIZES))]
    h = x
    for w in weights[:-1]:
        h = K.relu(K.dot(h, w))
    scores = K.dot(h, weights[-1])
    loss = K.mean(K.categorical_crossentropy(y, scores, from_logits=True))
    updates = [(w, w - 0.1 * g) for w, g in zip(weights, K.gradients(loss, weights), strict=True)]

    results = {}
    network = K.function([x], [scores], name="network", passes=counting(results))
    step = K.function([x, y], [loss], updates=updates, name="step", passes=counting(results))
    return network, step, results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32, help="the size of a batch (default: 32)")
    n = parser.parse_args().batch

    network, step, results = step_and_network()
    network([np.zeros((n, SIZES[0]))])
    step([np.zeros((n, SIZES[0])), np.zeros((n, SIZES[-1]))])

    layers = [2 * n * i * o for i, o in itertools.pairwise(SIZES)]
    formula = {"network": sum(layers), "step": 3 * sum(layers) - layers[0]}
    right = True
    for name, found in results.items():
        show(name, found)
        sizes = dict.fromkeys(dims.symbols(total(found)), n)
        products = dims.substitute(found["matmul"], sizes)
        print(f"  of a batch of {n}: {dims.substitute(total(found), sizes)}, of which products {products}; "
              f"by the formula {formula[name]}")
        right = right and products == formula[name]
    return 0 if right else 1


PASSES = [print_flops]


if __name__ == "__main__":
    sys.exit(main())
