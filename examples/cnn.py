"""Trains a convolutional network on handwritten digits, five times, and tests each on images it has not seen.

8×8 pixels → two 3×3 convolutions of 32 channels, the half, one of 64, the half, 128 units, 10 digits, with dropout;
Adam.  Compiled once, used for every seed: a seed chooses the split of the data and the first weights.

    python examples/cnn.py [--full] [--seeds N] [--out FILE.png]

Prints the accuracy of each seed and their median, and exits with 1 if the median is below 98.5 %.
"""

import argparse
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
DROPOUT = 0.4
TARGET = 0.985
LAYERS = {
    "conv_1": (3, 3, 1, 32), "conv_2": (3, 3, 32, 32), "conv_3": (3, 3, 32, 64),
    "dense_1": (2 * 2 * 64, 128), "dense_2": (128, 10),
}


def initial(rng):
    """Names and first values of the parameters."""
    for name, shape in LAYERS.items():
        yield f"{name}_weights", scaled(rng, *shape)
        yield f"{name}_bias", np.zeros(shape[-1], "float32")


def logits(x, parameters, dropout):
    """The network: x (n, 8, 8, 1) → (n, 10)."""
    (w1, b1), (w2, b2), (w3, b3), (w4, b4), (w5, b5) = zip(parameters[::2], parameters[1::2], strict=True)
    x = K.relu(K.bias_add(K.conv2d(x, w1, padding="same"), b1))
    x = K.relu(K.bias_add(K.conv2d(x, w2, padding="same"), b2))
    x = K.pool2d(x, (2, 2), strides=(2, 2))
    x = K.relu(K.bias_add(K.conv2d(x, w3, padding="same"), b3))
    x = K.batch_flatten(K.pool2d(x, (2, 2), strides=(2, 2)))
    if dropout:
        x = K.dropout(x, dropout, seed=1)
    x = K.relu(K.dot(x, w4) + b4)
    if dropout:
        x = K.dropout(x, dropout, seed=2)
    return K.dot(x, w5) + b5


class Model:
    """The compiled functions: `train(images, digits, rate) → loss`, which learns, and `read(images) → digits`."""

    def __init__(self):
        x = K.placeholder(shape=(None, 8, 8, 1), name="x")
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


def picture(path, histories, filters, images, digits, test, read):
    """Loss by epoch for every seed; of the last one, the filters of the first layer and the digits it misread."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=[3, 2, 2])

    axes = left.subplots()
    for seed, losses in enumerate(histories):
        axes.semilogy(range(1, len(losses) + 1), losses, label=f"seed {seed}")
    axes.set(xlabel="epoch", ylabel="cross-entropy, training")
    axes.legend()

    middle.suptitle("filters of the first layer")
    for i, place in enumerate(middle.subplots(4, 8).ravel()):
        place.imshow(filters[:, :, 0, i], cmap="RdBu", vmin=-1.5, vmax=1.5)
        place.axis("off")

    wrong = np.flatnonzero(read != digits[test])
    right.suptitle(f"misread: {len(wrong)} of {len(test)}")
    places = right.subplots(2, 4).ravel()
    for place in places:
        place.axis("off")
    for place, i in zip(places, wrong, strict=False):
        place.imshow(images[test[i], :, :, 0], cmap="gray_r")
        place.set_title(f"{digits[test[i]]} as {read[i]}", fontsize=9)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="60 epochs of each training, not 16")
    parser.add_argument("--seeds", type=int, default=5, help="how many trainings (default: 5)")
    parser.add_argument("--out", default="cnn.png", metavar="FILE", help="the picture (default: cnn.png)")
    options = parser.parse_args()
    epochs = 60 if options.full else 16

    images, digits = load_digits()
    images = images.reshape(-1, 8, 8, 1)
    start = time.perf_counter()
    model = Model()
    model.train([images[:BATCH], digits[:BATCH], 0.0])
    model.read([images[:BATCH]])
    print(f"compiled in {time.perf_counter() - start:.2f} s")

    histories, accuracies = [], []
    start = time.perf_counter()
    with tqdm(total=options.seeds * epochs, unit="epoch") as progress:
        for seed in range(options.seeds):
            losses, test, read = run(model, images, digits, seed, epochs, progress)
            histories.append(losses)
            accuracies.append(np.mean(read == digits[test]))
    seconds = time.perf_counter() - start
    seen = options.seeds * epochs * (len(images) - TEST_IMAGES)

    for seed, accuracy in enumerate(accuracies):
        print(f"seed {seed}: {accuracy:.2%} of {TEST_IMAGES} test images read rightly")
    print(f"trained on {seen / seconds:,.0f} images per second")
    picture(options.out, histories, K.get_value(model.parameters[0]), images, digits, test, read)
    print(f"wrote {options.out}")

    median = np.median(accuracies)
    print(f"median accuracy {median:.2%}, asked for {TARGET:.1%}")
    return 0 if median >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
