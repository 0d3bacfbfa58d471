"""Gradients clipped by their global norm, as a graph pass: a training that runs away is kept on its way.

The pass finds the updates of plain gradient descent, w := w − rate · g, and scales all g by one number where their
norm together is larger than it may be.  Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural
networks, 2013, algorithm 1.

    python examples/clipping.py [--steps N] [--rate R] [--limit L]

Trains a deep network of tanh layers on the digits at a rate that is too large for it, with the pass and without it.
"""

import argparse
import itertools
import sys

import numpy as np
from common import load_digits, shuffled

from tensorc import backend as K
from tensorc.ops import minimum, rsqrt, square, sum
from tensorc.passes import graph_pass

SIZES = (64, *(48,) * 8, 10)
BATCH = 64


def clip_gradients(limit):
    """The pass that keeps the norm of all gradients of a function together at `limit` or less."""
    @graph_pass(version="1")
    def clipped(graph, context):
        """w := w − rate · g  →  w := w − (rate · min(1, limit / ‖all g‖)) · g"""
        steps = {}
        for variable, new in graph.updates:
            if new.op.name == "sub" and new.args[0] is variable and new.args[1].op.name == "mul":
                rate, gradient = sorted(new.args[1].args, key=lambda a: len(a.shape))
                if not rate.shape and gradient.type == variable.type:
                    steps[variable] = rate, gradient
        if not steps:
            return graph

        squares = [sum(square(g), axes=tuple(range(len(g.shape))), keepdims=False) for _, g in steps.values()]
        total = squares[0]
        for square_of_one in squares[1:]:
            total = total + square_of_one
        factor = minimum(rsqrt(total) * limit, 1)          # 1 / √0 is ∞, and the smaller of it and 1 is 1
        new = [v - rate * factor * g for v, (rate, g) in steps.items()]
        found = dict(zip(steps, new, strict=True))
        context.notes |= dict.fromkeys(new, f"clipped at {limit}")
        return graph.with_roots([*graph.outputs, *(found.get(v, old) for v, old in graph.updates)])

    return clipped


def network(x, weights):
    *hidden, last = weights
    for w in hidden:
        x = K.tanh(K.dot(x, w))
    return K.dot(x, last)


def train(images, digits, steps, rate, passes):
    """Losses of a training from the same start, and the share of digits that are read rightly after it."""
    rng = np.random.default_rng(0)
    weights = [K.variable(rng.normal(0, 2 / np.sqrt(i), (i, o)), name=f"w{n}")
               for n, (i, o) in enumerate(itertools.pairwise(SIZES))]
    x = K.placeholder(shape=(None, 64), name="x")
    y = K.placeholder(shape=(None,), dtype="int32", name="y")
    loss = K.mean(K.sparse_categorical_crossentropy(y, network(x, weights), from_logits=True))
    updates = [(w, w - rate * g) for w, g in zip(weights, K.gradients(loss, weights), strict=True)]
    step = K.function([x, y], [loss], updates=updates, name="step", passes=passes)
    read = K.function([x], [K.argmax(network(x, weights))], name="read")

    batches = itertools.chain.from_iterable(shuffled(rng, np.arange(len(images)), BATCH) for _ in itertools.count())
    losses = [float(step([images[b], digits[b]])[0]) for b in itertools.islice(batches, steps)]
    return losses, np.mean(read([images])[0] == digits)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="steps of each training (default: 600)")
    parser.add_argument("--rate", type=float, default=1.0, help="the rate (default: 1)")
    parser.add_argument("--limit", type=float, default=0.3, help="the norm that gradients may have (default: 0.3)")
    options = parser.parse_args()

    images, digits = load_digits()
    results = {}
    for name, passes in (("as it is", []), ("clipped", clip_gradients(options.limit))):
        losses, right = train(images, digits, options.steps, options.rate, passes)
        print(f"{name:8}: loss {losses[0]:.2f} at first, {np.mean(losses[-50:]):.2f} at last; {right:.1%} read rightly")
        results[name] = right
    return 0 if results["clipped"] > results["as it is"] else 1


if __name__ == "__main__":
    sys.exit(main())
