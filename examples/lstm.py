"""Learns to spell like Shakespeare: an LSTM that foretells the next character of ten sonnets, and then writes its own.

The text is cut into strips that are read side by side, a window at a time (truncated backpropagation: the state after
one window, kept in variables, is where the next one starts, and no gradient goes back beyond it).  The last sonnet is
kept apart to be tested on.  Entropies are in bits a character; that of single characters is what a model could reach
that knows how often each occurs, and nothing about its neighbours.

    python examples/lstm.py [--full]

Prints what was learnt and some lines written by the model; exits with 1 if the unseen sonnet takes more than 3.4 bits.
With --full it goes on until it knows its nine sonnets by heart, which makes it worse at the tenth; exits with 1 if they
take more than half a bit.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from common import adam, forget
from tqdm import tqdm

from tensorc import backend as K

SONNETS = Path(__file__).parent / "data" / "sonnets.txt"
STRIPS, WINDOW = 16, 32
EMBEDDED, UNITS = 32, 128
RATE = 4e-3
DROPOUT = 0.3
WRITTEN = 400
TARGET, BY_HEART = 3.4, 0.5


def entropy_of_characters(train, test, kinds):
    """Bits a character of the test text by the frequencies in the other; a character not seen counts as seen once."""
    counts = np.bincount(train, minlength=kinds) + 1
    return -np.mean(np.log2(counts / counts.sum())[test])


class Model:
    """The compiled functions:

    train([characters (STRIPS, time), next ones, rate]) → [bits], which learns and moves the strips' state on;
    measure([characters (1, time), next ones]) → [bits], from an empty state;
    write([character (1,), temperature]) → [next character (1,)], which moves the writer's state on.
    """

    def __init__(self, kinds, rng):
        def normal(*shape):
            return rng.normal(0, shape[0] ** -0.5, shape)

        self.embedding = K.variable(rng.normal(0, 1, (kinds, EMBEDDED)), name="embedding")
        self.inputs = K.variable(normal(EMBEDDED, 4 * UNITS), name="inputs")
        self.recurrent = K.variable(normal(UNITS, 4 * UNITS), name="recurrent")
        # The forget gates start open (Jozefowicz et al. 2015).
        self.bias = K.variable(np.repeat([0, 1, 0, 0], UNITS), name="bias")
        self.out = K.variable(normal(UNITS, kinds), name="out")
        self.out_bias = K.variable(np.zeros(kinds), name="out_bias")
        parameters = [self.embedding, self.inputs, self.recurrent, self.bias, self.out, self.out_bias]

        now = K.placeholder((None, None), dtype="int32", name="now")
        after = K.placeholder((None, None), dtype="int32", name="after")
        rate = K.placeholder((), name="rate")
        self.state = [K.zeros((STRIPS, UNITS), name=name) for name in ("output", "cell")]
        bits, new_state = self.bits(now, after, self.state, DROPOUT)
        _, updates = adam(bits, parameters, rate)
        self.train = K.function([now, after, rate], [bits], [*updates, *zip(self.state, new_state, strict=True)],
                                name="train")

        empty = [K.zeros((1, UNITS))] * 2
        self.measure = K.function([now, after], [self.bits(now, after, empty, 0)[0]], name="measure")

        character = K.placeholder((1,), dtype="int32", name="character")
        temperature = K.placeholder((), name="temperature")
        self.writer = [K.zeros((1, UNITS), name=name) for name in ("writer_output", "writer_cell")]
        output, new_writer = self.step(K.gather(self.embedding, character), self.writer)
        # The largest of logits with Gumbel noise is a draw from their softmax.
        noise = -K.log(-K.log(K.random_uniform((1, kinds), 1e-7, 1, seed=1)))
        drawn = K.argmax(self.logits(output) / temperature + noise)
        self.write = K.function([character, temperature], [K.cast(drawn, "int32")],
                                list(zip(self.writer, new_writer, strict=True)), name="write")

    def step(self, x, states):
        """One step of an LSTM with a forget gate (Gers et al. 2000): x (n, EMBEDDED) → (n, UNITS)."""
        output, cell = states
        sums = K.dot(x, self.inputs) + K.dot(output, self.recurrent) + self.bias
        gate_in, gate_forget, gate_out = (K.sigmoid(sums[:, i * UNITS:(i + 1) * UNITS]) for i in range(3))
        cell = gate_forget * cell + gate_in * K.tanh(sums[:, 3 * UNITS:])
        output = gate_out * K.tanh(cell)
        return output, [output, cell]

    def logits(self, output):
        return K.dot(output, self.out) + self.out_bias

    def bits(self, now, after, state, dropout):
        """(bits a character, state after the window)."""
        _, outputs, state = K.rnn(self.step, K.gather(self.embedding, now), state)
        if dropout:
            outputs = K.dropout(outputs, dropout, seed=0)
        nats = K.sparse_categorical_crossentropy(after, self.logits(outputs), from_logits=True)
        return K.mean(nats) / np.log(2), state


def strips(text):
    """The windows of the text in strips: pairs (STRIPS, WINDOW) of characters and those after them."""
    length = (len(text) - 1) // STRIPS // WINDOW * WINDOW
    now, after = (text[i:i + STRIPS * length].reshape(STRIPS, length) for i in (0, 1))
    for start in range(0, length, WINDOW):
        yield now[:, start:start + WINDOW], after[:, start:start + WINDOW]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="200 epochs, to learn the sonnets by heart, not 30")
    full = parser.parse_args().full
    epochs = 200 if full else 30

    text = SONNETS.read_text(encoding="utf-8")
    characters = sorted(set(text))
    coded = np.array([characters.index(c) for c in text], "int32")
    end = text.rindex("\n\n") + 2
    train, test = coded[:end], coded[end:]
    rng = np.random.default_rng(0)
    model = Model(len(characters), rng)

    progress = tqdm(range(epochs), unit="epoch")
    for epoch in progress:
        forget(model.state)
        rate = np.float32(RATE * (1 - epoch / epochs))
        shifted = np.roll(train, -rng.integers(len(train)))
        bits = np.mean([model.train([now, after, rate])[0] for now, after in strips(shifted)])
        progress.set_postfix(bits=f"{bits:.2f}")

    (unseen,) = model.measure([test[None, :-1], test[None, 1:]])
    alone = entropy_of_characters(train, test, len(characters))
    print(f"bits a character: {bits:.2f} in training, {unseen:.2f} on the unseen sonnet; "
          f"single characters {alone:.2f}\n")

    character = np.array([characters.index("\n")], "int32")
    for _ in range(WRITTEN):
        (character,) = model.write([character, 0.6])
        print(characters[character[0]], end="")
    print()
    reached = bits <= BY_HEART if full else unseen <= TARGET
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
