"""Reads strings of handwritten digits, learnt from pictures of whole strings: nobody says where a digit stands.

A string is three to six digits side by side, with gaps of different widths.  Two convolutions along the columns give
every second column a distribution over the ten digits and a blank; the CTC loss sums over all the ways in which a
string can lie in them.  The strings it is tested on show digits that it has not seen.

    python examples/ctc.py [--epochs N]

Prints some strings as they were read, and exits with 1 if less than 80 % were read rightly.
"""

import argparse
import sys
import time

import numpy as np
from common import adam, load_digits, scaled

from tensorc import backend as K

COLUMNS, HEIGHT = 64, 8
LONGEST = 6
STEPS = COLUMNS // 2
CLASSES = 11
CHANNELS = 64
BATCH = 32
STRINGS = 2000
TEST_IMAGES, TEST_STRINGS = 360, 500
RATE = 3e-3
TARGET = 0.8


def rendered(rng, images, digits, count):
    """Pictures (count, columns, height), labels (count, longest), and how long each string is (count, 1)."""
    pictures = np.zeros((count, COLUMNS, HEIGHT), "float32")
    labels = np.zeros((count, LONGEST), "int32")
    lengths = rng.integers(3, LONGEST + 1, (count, 1)).astype("int32")
    for picture, label, (length,) in zip(pictures, labels, lengths, strict=True):
        chosen = rng.integers(0, len(images), length)
        label[:length] = digits[chosen]
        gaps = rng.multinomial(COLUMNS - 8 * length, np.full(length + 1, 1 / (length + 1)))
        at = 0
        for gap, image in zip(gaps, images[chosen], strict=False):
            at += gap
            picture[at:at + 8] = image.reshape(HEIGHT, 8).T
            at += 8
    return pictures, labels, lengths


class Model:
    """`train(pictures, labels, lengths, rate) → loss`, and two ways to read: the best path, and a search."""

    def __init__(self, rng):
        x = K.placeholder((None, COLUMNS, HEIGHT), name="x")
        labels = K.placeholder((None, LONGEST), dtype="int32", name="labels")
        lengths = K.placeholder((None, 1), dtype="int32", name="lengths")
        rate = K.placeholder((), name="rate")

        shapes = [(5, HEIGHT, CHANNELS), (5, CHANNELS, CHANNELS), (CHANNELS, CLASSES)]
        weights = [K.variable(scaled(rng, *s)) for s in shapes]
        biases = [K.variable(np.zeros(s[-1])) for s in shapes]
        h = K.relu(K.conv1d(x, weights[0], padding="same") + biases[0])
        h = K.relu(K.conv1d(h, weights[1], strides=2, padding="same") + biases[1])
        classes = K.softmax(K.dot(h, weights[2]) + biases[2])

        steps = K.zeros_like(x[:, 0, :1]) + STEPS
        loss = K.mean(K.ctc_batch_cost(labels, classes, steps, lengths))
        _, updates = adam(loss, [*weights, *biases], rate)
        self.train = K.function([x, labels, lengths, rate], [loss], updates, name="train")

        (path,), _ = K.ctc_decode(classes, steps)
        (found,), scores = K.ctc_decode(classes, steps, greedy=False, beam_width=10)
        self.read = K.function([x], [path, found, scores], name="read")


def text(labels):
    return "".join(str(c) for c in labels if c >= 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="how often the strings are gone through (default: 20)")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    images, digits = load_digits()
    order = rng.permutation(len(images))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    model = Model(rng)

    start = time.perf_counter()
    for epoch in range(options.epochs):
        strings = rendered(rng, images[train], digits[train], STRINGS)
        rate = np.float32(RATE * (1 - epoch / options.epochs))
        batches = [[part[i:i + BATCH] for part in strings] for i in range(0, STRINGS, BATCH)]
        loss = np.mean([model.train([*batch, rate])[0] for batch in batches])
        print(f"epoch {epoch + 1}: loss {loss:.3f}")
    print(f"trained in {time.perf_counter() - start:.1f} s")

    pictures, labels, lengths = rendered(rng, images[test], digits[test], TEST_STRINGS)
    path, found, scores = model.read([pictures])
    wanted = [text(row[:n]) for row, (n,) in zip(labels, lengths, strict=True)]
    for want, best, searched, score in zip(wanted[:5], path, found, scores[:, 0], strict=False):
        print(f"{want:>6} read as {text(best):>6}, by the search {text(searched):>6}, probability {np.exp(score):.2f}")
    right = [np.mean([text(row) == want for row, want in zip(rows, wanted, strict=True)]) for rows in (path, found)]
    print(f"strings read rightly: {right[0]:.1%} on the best path, {right[1]:.1%} by the search")
    return 0 if min(right) >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
