import numpy as np

from tensorc import backend as K

DELAY, UNITS = 3, 24
rng = np.random.default_rng(0)

x = K.placeholder(ndim=3, name="x")
y = K.placeholder(ndim=3, name="y")
w_in = K.variable(rng.normal(0, 0.5, (1, UNITS)), name="w_in")
w_rec = K.variable(np.linalg.qr(rng.normal(size=(UNITS, UNITS)))[0], name="w_rec")
w_out = K.variable(rng.normal(0, 0.2, (UNITS, 1)), name="w_out")


def step(x_t, states):
    h = K.tanh(K.dot(x_t, w_in) + K.dot(states[0], w_rec))
    return h, [h]


h0 = K.zeros_like(K.dot(x[:, 0], w_in))
_, hidden, _ = K.rnn(step, x, [h0])
out = K.dot(hidden, w_out)
cost = K.mean(K.square(out - y))

updates = []
parameters = [w_in, w_rec, w_out]
for p, g in zip(parameters, K.gradients(cost, parameters), strict=True):
    v = K.variable(np.zeros_like(K.get_value(p)))
    new_v = 0.9 * v - 0.05 * g
    updates += [(v, new_v), (p, p + new_v)]

train = K.function([x, y], [cost], updates=updates)
predict = K.function([x], [out])


def batch(samples, steps):
    """Random signs, and what they were DELAY steps before."""
    signs = rng.choice([-1.0, 1.0], (samples, steps, 1))
    earlier = np.zeros_like(signs)
    earlier[:, DELAY:] = signs[:, :-DELAY]
    return signs, earlier


for _ in range(200):
    (loss,) = train([*batch(32, 20)])
print(f"cost below 0.01: {loss < 0.01}")

signs, earlier = batch(100, 60)
(said,) = predict([signs])
print(f"right in sequences three times as long: {np.mean(np.sign(said) == earlier, where=earlier != 0):.1%}")
