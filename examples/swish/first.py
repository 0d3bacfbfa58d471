from tensorc.ops import maximum, sigmoid
from tensorc.passes import Rewrite


class Swish(Rewrite):
    """x · sigmoid(x) → max(x, −1000) · sigmoid(x),  which is 0 at −∞ and the same everywhere else"""

    def pattern(self, x):
        return x * sigmoid(x)

    def build(self, x):
        return maximum(x, -1000) * sigmoid(x)


class SwishSlope(Rewrite):
    """x · sigmoid(x) · (1 − sigmoid(x)) → max(x, −1000) · sigmoid(x) · (1 − sigmoid(x))"""

    def pattern(self, x):
        return (x * sigmoid(x)) * (1 - sigmoid(x))

    def build(self, x):
        return (maximum(x, -1000) * sigmoid(x)) * (1 - sigmoid(x))
