import numpy as np

from tensorc import backend as K

x = K.placeholder(shape=(None, 3), name="x")
w = K.variable(np.array([[1, -1], [2, 0], [0, 3]]), name="w")
b = K.variable(np.array([-4, 1]), name="b")

layer = K.function([x], [K.relu(K.dot(x, w) + b)], name="layer")
print(layer([np.array([[1, 2, 3], [4, 5, 6]])])[0])
