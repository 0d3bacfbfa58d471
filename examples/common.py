"""What several examples share: the digits, Adam, batches."""

from pathlib import Path

import numpy as np

from tensorc import backend as K

DIGITS = Path(__file__).parent / "data" / "digits.csv.gz"


def load_digits():
    """1,797 images as float32 (1797, 64) in [0, 1], and the digits they show as int32 (1797,)."""
    table = np.loadtxt(DIGITS, delimiter=",", dtype="float32")
    return table[:, :64] / 16, table[:, 64].astype("int32")


def adam(loss, parameters, rate):
    """Its variables and its updates.  Kingma & Ba 2015, algorithm 1, with the step size of section 2."""
    step = K.variable(0.0, name="step")
    means = [K.zeros(K.int_shape(p), name=f"{p.name}_mean") for p in parameters]
    squares = [K.zeros(K.int_shape(p), name=f"{p.name}_square") for p in parameters]

    t = step + 1
    size = rate * K.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    updates = [(step, t)]
    for p, m, v, g in zip(parameters, means, squares, K.gradients(loss, parameters), strict=True):
        new_m = 0.9 * m + 0.1 * g
        new_v = 0.999 * v + 0.001 * K.square(g)
        updates += [(m, new_m), (v, new_v), (p, p - size * new_m / (K.sqrt(new_v) + 1e-7))]
    return [step, *means, *squares], updates


def scaled(rng, *shape):
    """Normal weights scaled for relu (He et al. 2015): the last axis is the outputs, the others feed each of them."""
    return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype("float32")


def shuffled(rng, numbers, size):
    """The numbers in random order, `size` at a time; what is left over waits for the next epoch."""
    order = rng.permutation(numbers)
    whole = len(order) // size * size
    return order[:whole].reshape(-1, size)


def forget(variables):
    """Sets variables to zero."""
    for variable in variables:
        K.set_value(variable, np.zeros(K.int_shape(variable), "float32"))
