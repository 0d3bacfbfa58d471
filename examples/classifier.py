"""A linear classifier and one step of its training, as a beginner would write it: what docs/looking.md looks into."""

import numpy as np

from tensorc import backend as K

x = K.placeholder(shape=(None, 4), name="x")
y = K.placeholder(shape=(None, 3), name="y")
w = K.variable(np.zeros((4, 3)), name="w")

scores = K.dot(x, w)
loss = -K.mean(K.sum(y * K.log(K.softmax(scores)), axis=-1))
(slope,) = K.gradients(loss, [w])
step = K.function([x, y], [loss], updates=[(w, w - 0.1 * slope)], name="step")

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    images = rng.normal(size=(100, 4))
    kinds = np.eye(3)[np.argmax(images[:, :3], axis=1)]
    print([round(float(step([images, kinds])[0]), 3) for _ in range(50)][::10])
