"""Trains a variational autoencoder on handwritten digits, and has it write digits of its own.

The encoder turns 64 pixels into a normal distribution over 6 numbers, the decoder turns 6 numbers into 64 pixels;
Adam raises the evidence lower bound.  Kingma & Welling, Auto-Encoding Variational Bayes, 2014.

    python examples/vae.py [--full] [--seed N] [--out FILE.png]

Draws test images beside what came out of the autoencoder, and digits made of random numbers.  Prints the bound on
test images and, for comparison, the log-likelihood of a model whose pixels do not know of each other; exits with 1
if the bound is not better by 2 nats.
"""

import argparse
import sys
import time

import numpy as np
from common import adam, load_digits, scaled, shuffled
from matplotlib.figure import Figure
from tqdm import tqdm

from tensorc import backend as K

TEST_IMAGES = 360
BATCH = 32
RATE = 2e-3
LATENT = 6
MARGIN = 2.0
LAYERS = {"encoder": (64, 256), "mean": (256, LATENT), "log_variance": (256, LATENT),
          "decoder": (LATENT, 256), "pixels": (256, 64)}


def layers(rng):
    """For each layer its weights and bias, as variables."""
    return {name: (K.variable(scaled(rng, *shape), name=f"{name}_weights"),
                   K.zeros(shape[1:], name=f"{name}_bias"))
            for name, shape in LAYERS.items()}


class Model:
    """The compiled functions.

    `train(images, rate) → loss` learns; `bound(images)` is the evidence lower bound of each image, in nats, with one
    random draw; `rebuild(images)` and `decode(numbers)` give images.
    """

    def __init__(self, rng):
        self.layers = layers(rng)
        x = K.placeholder(shape=(None, 64), name="x")
        rate = K.placeholder(shape=(), name="rate")
        z = K.placeholder(shape=(None, LATENT), name="z")

        hidden = K.relu(self.dense("encoder", x))
        mean, log_variance = self.dense("mean", hidden), self.dense("log_variance", hidden)
        noise = K.random_normal(K.shape(mean), seed=1)
        pixels = self.decoded(mean + K.exp(log_variance / 2) * noise)

        likelihood = -K.sum(K.binary_crossentropy(x, pixels), axis=1)
        divergence = K.sum(K.square(mean) + K.exp(log_variance) - 1 - log_variance, axis=1) / 2
        bound = likelihood - divergence
        loss = -K.mean(bound)

        parameters = [v for layer in self.layers.values() for v in layer]
        _, updates = adam(loss, parameters, rate)
        self.train = K.function([x, rate], [loss], updates, name="train")
        self.bound = K.function([x], bound, name="bound")
        self.rebuild = K.function([x], self.decoded(mean), name="rebuild")
        self.decode = K.function([z], self.decoded(z), name="decode")

    def dense(self, name, x):
        weights, bias = self.layers[name]
        return K.dot(x, weights) + bias

    def decoded(self, z):
        """Numbers (n, LATENT) → the ink of each pixel (n, 64)."""
        return K.sigmoid(self.dense("pixels", K.relu(self.dense("decoder", z))))


def alone(train, test):
    """The mean log-likelihood of test images where each pixel is ink with its own share in the training images."""
    share = np.clip(train.mean(axis=0), 1e-3, 1 - 1e-3)
    return (test * np.log(share) + (1 - test) * np.log(1 - share)).sum(axis=1).mean()


def sheet(images, columns):
    """Images (n, 64) side by side in one, with a pixel of paper between them."""
    framed = np.pad(images.reshape(-1, columns, 8, 8), ((0, 0), (0, 0), (0, 1), (0, 1)))
    return framed.transpose(0, 2, 1, 3).reshape(-1, columns * 9)[:-1, :-1]


def picture(path, bounds, floor, test, rebuilt, written):
    """The bound by epoch; test images and what became of them; digits that nobody wrote."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    curve, pairs, own = figure.subplots(1, 3, width_ratios=[3, 4, 4])

    curve.plot(range(1, len(bounds) + 1), bounds, label="evidence lower bound")
    curve.axhline(floor, color="gray", linestyle="--", label="pixels that do not know of each other")
    curve.set(xlabel="epoch", ylabel="nats an image, test")
    curve.legend()

    rows = np.stack([test[:60].reshape(6, 10, 64), rebuilt[:60].reshape(6, 10, 64)], axis=1)
    for place, title, images in ((pairs, "test images, and under each what the autoencoder makes of it", rows),
                                 (own, "digits made of random numbers", written)):
        place.imshow(sheet(images.reshape(-1, 64), 10), cmap="gray_r", vmin=0, vmax=1)
        place.set_title(title, fontsize=9)
        place.axis("off")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="600 epochs, not 60")
    parser.add_argument("--seed", type=int, default=0, help="chooses the split and the weights (default: 0)")
    parser.add_argument("--out", default="vae.png", metavar="FILE", help="the picture (default: vae.png)")
    options = parser.parse_args()
    epochs = 600 if options.full else 60

    rng = np.random.default_rng(options.seed)
    images = rng.permutation(load_digits()[0])
    test, train = images[:TEST_IMAGES], images[TEST_IMAGES:]
    model = Model(rng)

    bounds = []
    start = time.perf_counter()
    with tqdm(range(epochs), unit="epoch") as progress:
        for epoch in progress:
            rate = np.float32(RATE * (1 - epoch / epochs))
            for batch in shuffled(rng, len(train), BATCH):
                model.train([train[batch], rate])
            bounds.append(model.bound([test]).mean())
            progress.set_postfix(bound=f"{bounds[-1]:.2f}")
    print(f"{epochs * len(train) / (time.perf_counter() - start):,.0f} images per second, compiling included")

    written = model.decode([rng.normal(size=(120, LATENT)).astype("float32")])
    floor = alone(train, test)
    picture(options.out, bounds, floor, test, model.rebuild([test]), written)
    print(f"wrote {options.out}")

    print(f"test images: bound {bounds[-1]:.2f} nats, pixels alone {floor:.2f} nats")
    return 0 if bounds[-1] > floor + MARGIN else 1


if __name__ == "__main__":
    sys.exit(main())
