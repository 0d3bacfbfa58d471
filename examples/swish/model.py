import numpy as np

from tensorc import backend as K

x = K.placeholder(shape=(None, 4), name="x")
mask = K.placeholder(shape=(None, 4), name="mask")
w = K.variable(np.ones(4), name="w")

scores = x * w + mask
total = K.sum(scores * K.sigmoid(scores))
step = K.function([x, mask], [total, K.gradients(total, w)], name="step")

print(*step([np.array([[1, 2, 3, 4]]), np.array([[0, 0, 0, -np.inf]])]))
