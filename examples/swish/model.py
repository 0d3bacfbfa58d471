"""Scores of which some are masked by −∞, through x · sigmoid(x), and the slope of their sum in the weights.

    python examples/swish/model.py
"""

import numpy as np

from tensorc import backend as K

x = K.placeholder(shape=(None, 4), name="x")
mask = K.placeholder(shape=(None, 4), name="mask")
w = K.variable(np.ones(4), name="w")

scores = x * w + mask
total = K.sum(scores * K.sigmoid(scores))
step = K.function([x, mask], [total, K.gradients(total, w)], name="step")

if __name__ == "__main__":
    print(*step([np.array([[1, 2, 3, 4]]), np.array([[0, 0, 0, -np.inf]])]))
