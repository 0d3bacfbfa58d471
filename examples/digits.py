"""Trains a classifier of handwritten digits, several times, and tests each on images it has not seen.

The model is 64 → 256 → 128 → 10 with relu and dropout; the optimiser is Adam.  All of it is written in the K API,
compiled once, and used for every seed: a seed chooses the split of the data and the first weights.

    python examples/digits.py [--seeds N] [--epochs N] [--out FILE.png]

Prints the accuracy of each seed and their median, and exits with 1 if the median is below 97 %.
"""

import argparse
import itertools
import sys
import time

import numpy as np
from common import adam, forget, load_digits, scaled, shuffled
from matplotlib.figure import Figure
from tqdm import tqdm

from tensorc import backend as K

TEST_IMAGES = 360
BATCH = 32
RATE = 2e-3
DROPOUT = 0.3
SIZES = (64, 256, 128, 10)
TARGET = 0.97


def initial(rng):
    """Names and first values of the parameters."""
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(SIZES)):
        yield f"weights_{layer}", scaled(rng, inputs, outputs)
        yield f"bias_{layer}", np.zeros(outputs, "float32")


def logits(x, parameters, dropout):
    """The network: x (n, 64) → (n, 10)."""
    *hidden, last = zip(parameters[::2], parameters[1::2], strict=True)
    for layer, (weights, bias) in enumerate(hidden):
        x = K.relu(K.dot(x, weights) + bias)
        if dropout:
            x = K.dropout(x, dropout, seed=layer)
    return K.dot(x, last[0]) + last[1]


class Model:
    """The compiled functions: `train(images, digits, rate) → loss`, which learns, and `read(images) → digits`."""

    def __init__(self):
        x = K.placeholder(shape=(None, 64), name="x")
        digits = K.placeholder(shape=(None,), dtype="int32", name="digits")
        rate = K.placeholder(shape=(), name="rate")
        self.parameters = [K.variable(value, name=name) for name, value in initial(np.random.default_rng())]

        scores = logits(x, self.parameters, DROPOUT)
        loss = K.mean(K.sparse_categorical_crossentropy(digits, scores, from_logits=True))
        self.memory, updates = adam(loss, self.parameters, rate)
        self.train = K.function([x, digits, rate], [loss], updates, name="train")
        self.read = K.function([x], [K.argmax(logits(x, self.parameters, 0))], name="read")

    def restart(self, rng):
        """Forgets what was learnt: new parameters, empty memory."""
        for variable, (_, value) in zip(self.parameters, initial(rng), strict=True):
            K.set_value(variable, value)
        forget(self.memory)


def run(model, images, digits, seed, epochs, progress):
    """One training from scratch.  Returns the mean loss of each epoch, the test images' numbers and what was read."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    model.restart(rng)

    losses = []
    for epoch in range(epochs):
        rate = np.float32(RATE * (1 - epoch / epochs))
        losses.append(np.mean([model.train([images[b], digits[b], rate])[0] for b in shuffled(rng, train, BATCH)]))
        progress.update()
        progress.set_postfix(loss=f"{losses[-1]:.4f}")
    return losses, test, model.read([images[test]])[0]


def picture(path, histories, images, digits, test, read):
    """Loss by epoch for every seed, and digits that the last one misread."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[3, 2])

    axes = left.subplots()
    for seed, losses in enumerate(histories):
        axes.semilogy(range(1, len(losses) + 1), losses, label=f"seed {seed}")
    axes.set(xlabel="epoch", ylabel="cross-entropy, training")
    axes.legend()

    wrong = np.flatnonzero(read != digits[test])
    right.suptitle(f"misread by seed {len(histories) - 1}: {len(wrong)} of {len(test)}")
    places = right.subplots(2, 4).ravel()
    for place in places:
        place.axis("off")
    for place, i in zip(places, wrong, strict=False):
        place.imshow(images[test[i]].reshape(8, 8), cmap="gray_r")
        place.set_title(f"{digits[test[i]]} as {read[i]}", fontsize=9)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many trainings (default: 5)")
    parser.add_argument("--epochs", type=int, default=30, help="epochs of each (default: 30)")
    parser.add_argument("--out", default="digits.png", metavar="FILE", help="the picture (default: digits.png)")
    options = parser.parse_args()

    images, digits = load_digits()
    start = time.perf_counter()
    model = Model()
    model.train([images[:BATCH], digits[:BATCH], 0.0])
    model.read([images[:BATCH]])
    print(f"compiled in {time.perf_counter() - start:.2f} s")

    histories, accuracies = [], []
    start = time.perf_counter()
    with tqdm(total=options.seeds * options.epochs, unit="epoch") as progress:
        for seed in range(options.seeds):
            losses, test, read = run(model, images, digits, seed, options.epochs, progress)
            histories.append(losses)
            accuracies.append(np.mean(read == digits[test]))
    seconds = time.perf_counter() - start
    seen = options.seeds * options.epochs * (len(images) - TEST_IMAGES)

    for seed, accuracy in enumerate(accuracies):
        print(f"seed {seed}: {accuracy:.2%} of {TEST_IMAGES} test images read rightly")
    print(f"trained on {seen / seconds:,.0f} images per second")
    picture(options.out, histories, images, digits, test, read)
    print(f"wrote {options.out}")

    median = np.median(accuracies)
    print(f"median accuracy {median:.2%}, asked for {TARGET:.0%}")
    return 0 if median >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
