"""x · sigmoid(x) that is 0 at −∞, as its limit is, and so is its slope.

As written both are −∞ · 0 there, NaN, which a mask of −∞ then spreads over a whole network.
"""

from tensorc.ops import maximum, sigmoid
from tensorc.passes import No, Rewrite


def bounded(x):
    """x, and −1000 where it is less: sigmoid(−1000) is 0 in every float."""
    return maximum(x, -1000)


class Swish(Rewrite):
    """x · sigmoid(x) → max(x, −1000) · sigmoid(x)"""

    place = "before simplify"       # which would take the bound of what it knows to be larger away again
    version = "1"

    def pattern(self, x):
        return x * sigmoid(x)

    def build(self, x):
        return bounded(x) * sigmoid(x)


class SwishSlope(Rewrite):
    """g · x · (sigmoid(x) · (1 − sigmoid(x))) → g · max(x, −1000) · (sigmoid(x) · (1 − sigmoid(x)))"""

    place = "before simplify"
    version = "1"

    def pattern(self, a, x):
        return a * (sigmoid(x) * (1 - sigmoid(x)))

    def check(self, a, x):
        return a is x or (a.op.name == "mul" and x in a.args) or No("what the slope is multiplied by has no factor x")

    def build(self, node, a, x):
        product = bounded(x) if a is x else a.args[a.args[0] is x] * bounded(x)
        return product * (sigmoid(x) * (1 - sigmoid(x)))


PASSES = [Swish(), SwishSlope()]
