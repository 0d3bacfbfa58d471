"""Weights in eight bits, as a pass: a quarter of the memory, and of the time of single images what memory costs.

The weights of a trained network are rounded to int8, with a scale of its own for each output; the kernel of a product
reads them as they are and applies the scale at the end.  After Jacob et al., Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference, 2018, section 2, for the weights alone.

    python examples/int8.py [--epochs N] [--wide N]

Prints how large the weights are and what is read rightly with them, then the times of one product with N by N weights.
"""

import argparse
import sys
import time

import numpy as np
from common import load_digits
from digits import TEST_IMAGES, Model, logits, run
from tqdm import tqdm

from tensorc import backend as K
from tensorc.ir.node import constant
from tensorc.ops import cast, matmul, reshape, sum
from tensorc.passes import No, Rewrite

LOSS = 0.01


def quantised(weights):
    """float (inputs, outputs) → int8 of that shape and a scale for each output: weights ≈ int8 · scale."""
    largest = np.abs(weights).max(axis=0)
    scale = np.where(largest > 0, largest / 127, 1).astype("float32")
    return np.rint(weights / scale).astype("int8"), scale


class Int8Weights(Rewrite):
    """x · w → (Σₖ x[…, k] · q[k, …]) · scale,  for the weights w as they are now, which then are no longer read

    Spelled as a sum, the product is one kernel that turns q into floats as it reads it.
    """

    place = "after share"                   # nothing folds constants after it
    version = "1"

    def __init__(self, variables):
        super().__init__()
        self.kept = {v.name: quantised(K.get_value(v)) for v in variables if K.ndim(v) == 2}

    def pattern(self, x, w):
        return matmul(x, w, transpose_a=False, transpose_b=False)

    def check(self, x, w):
        if w.op.name != "parameter" or w.name not in self.kept:
            return No("what it multiplies by is none of the weights")
        return len(x.shape) == 2 or No("these are several products")

    def build(self, x, w):
        q, scale = self.kept[w.name]
        products = reshape(x, shape=(*x.shape, 1)) * cast(constant(q), dtype=x.dtype)
        return sum(products, axes=(1,), keepdims=False) * constant(scale)


def memory(function):
    """Bytes of the constants and variables that a function reads."""
    program = function.compiled.program
    read = [n for n in program.planned.nodes if n.op.name == "parameter" and n.role == "variable"]
    return int(np.sum([c.nbytes for c in program.constants] + [n.type.count * n.dtype.size for n in read]))


def microseconds(function, *values):
    """The least of some times that a call takes."""
    function(values)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        function(values)
        times.append(time.perf_counter() - start)
    return 1e6 * min(times)


def compare(name, function, images, digits):
    """Prints size and accuracy of a function that reads digits; returns the accuracy."""
    right = np.mean(function([images])[0] == digits)
    print(f"{name}: {memory(function):7,} bytes, {right:.2%} of {len(digits)} test images read rightly")
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12, help="epochs of training (default: 12)")
    parser.add_argument("--wide", type=int, default=1024, help="size of the product timed (default: 1024)")
    options = parser.parse_args()

    images, digits = load_digits()
    model = Model()
    with tqdm(total=options.epochs, unit="epoch") as progress:
        _, test, _ = run(model, images, digits, 0, options.epochs, progress)
    assert len(test) == TEST_IMAGES

    x = K.placeholder(shape=(None, 64), name="x")
    answer = K.argmax(logits(x, model.parameters, 0))
    whole = K.function([x], [answer], name="whole")
    small = K.function([x], [answer], name="small", passes=Int8Weights(model.parameters))
    before = compare("float32", whole, images[test], digits[test])
    after = compare("int8   ", small, images[test], digits[test])

    n = options.wide
    w = K.variable(np.random.default_rng(0).normal(size=(n, n)), name="w")
    row = K.placeholder(shape=(None, n), name="row")
    product = K.dot(row, w)
    functions = [K.function([row], [product]), K.function([row], [product], passes=Int8Weights([w]))]
    for rows in (1, 32):
        times = [microseconds(f, np.ones((rows, n), "float32")) for f in functions]
        print(f"{n} by {n}, {rows:2} rows: float32 {times[0]:6.0f} µs, int8 {times[1]:6.0f} µs")
    return 0 if after >= before - LOSS else 1


if __name__ == "__main__":
    sys.exit(main())
