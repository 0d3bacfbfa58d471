"""Operations of one's own in a network that reads digits: a scalar function, and loops.

    python examples/own_operations.py
    tensorc --dump-ir examples/own_operations.py:train --stage loops      shows both in the kernels
"""

import math

import numpy as np
from common import adam, load_digits, scaled, shuffled

from tensorc import backend as K
from tensorc import custom


@custom.elementwise
def selu(x):
    """Scaled exponential linear unit.  Klambauer et al., Self-Normalizing Neural Networks, 2017."""
    if x > 0:
        return 1.0507009873554805 * x
    return 1.7580993408473766 * (math.exp(x) - 1)


@custom.op
class winners:
    """The k largest of each row, 0 in place of the others.  Makhzani & Frey, Winner-Take-All Autoencoders, 2015."""

    def infer(x, *, k):
        return x

    def reference(x, *, k):
        rank = (x[:, None, :] > x[:, :, None]).sum(axis=2)
        return np.where(rank < k, x, np.zeros_like(x))

    def kernel(w, x, out, *, k):
        rows, columns = x.shape
        with w.grid(rows, columns) as (i, j):
            larger = w.accumulator("add", "int32")
            with w.loop(columns) as p:
                larger.add((x[i, p] > x[i, j]).cast("int32"))
            out[i, j] = w.select(larger.value < k, x[i, j], 0)

    def gradient(x, y, g, *, k):
        return g * K.cast(K.not_equal(y, 0), y.dtype)

    samples = (custom.sample("f32[3,7]", k=2), custom.sample("f64[2,5]", k=5), custom.sample("f32[0,4]", k=1))


for operation in (selu, winners):
    custom.check(operation)
print("compiled code, references and gradients agree")

images, digits = load_digits()
rng = np.random.default_rng(0)
order = rng.permutation(len(images))
train_on, test_on = order[:1400], order[1400:]

x = K.placeholder((None, 64), name="x")
target = K.placeholder((None,), dtype="int32", name="target")
w1, b1 = K.variable(scaled(rng, 64, 96), name="w1"), K.zeros((96,), name="b1")
w2, b2 = K.variable(scaled(rng, 96, 10), name="w2"), K.zeros((10,), name="b2")

hidden = winners(selu(K.dot(x, w1) + b1), k=24)
scores = K.dot(hidden, w2) + b2
loss = K.mean(K.sparse_categorical_crossentropy(target, scores, from_logits=True))
_, updates = adam(loss, [w1, b1, w2, b2], 0.003)
train = K.function([x, target], [loss], updates, name="train")
predict = K.function([x], [K.argmax(scores)], name="predict")

for _ in range(25):
    for batch in shuffled(rng, train_on, 50):
        train([images[batch], digits[batch]])

accuracy = np.mean(predict([images[test_on]])[0] == digits[test_on])
print(f"accuracy {accuracy:.1%} on {len(test_on)} digits that it has not seen")
