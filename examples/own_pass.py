"""A rewrite of one's own: an approximation that a compiler may not choose by itself, but its user may.

    python examples/own_pass.py
    tensorc --dump-ir examples/own_pass.py:cheap --after all      shows the graph after each pass
"""

import numpy as np

from tensorc import backend as K
from tensorc.ops.elementwise import maximum, minimum, sigmoid
from tensorc.passes import No, Rewrite


class HardSwish(Rewrite):
    """x · sigmoid(x) → x · min(max(x / 6 + 1/2, 0), 1)

    Howard et al., Searching for MobileNetV3, 2019.
    """

    def pattern(self, x):
        return x * sigmoid(x)

    def check(self, x):
        return x.dtype.name == "float32" or No(f"x is {x.dtype}: who asks for more digits wants the right ones")

    def build(self, x):
        return x * minimum(maximum(x / 6 + 0.5, 0), 1)


x = K.placeholder(shape=(None,), name="x")
swish = x * K.sigmoid(x)

exact = K.function([x], [swish], name="exact")
cheap = K.function([x], [swish], name="cheap", passes=HardSwish())

print("# The same expression, compiled as it is")
print(exact.compiled.program.planned)
print("# and with HardSwish")
print(cheap.compiled.program.planned)

points = np.linspace(-6, 6, 1001, dtype="float32")
error = np.abs(exact([points])[0] - cheap([points])[0]).max()
print(f"largest difference between -6 and 6: {error:.3f}")
