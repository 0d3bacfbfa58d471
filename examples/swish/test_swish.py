import numpy as np
from swish import Swish, SwishSlope

from tensorc.testing import check_graph, check_numbers, check_silent, check_text

SLOPE = """
    graph slope(g: f32[n], x: f32[n])
      %0 = mul(g, x)
      %1 = sigmoid(x)
      %2 = sub(1.0:f32, %1)
      %3 = mul(%1, %2)
      %4 = mul(%0, %3)
      return %4
"""


def test_it_bounds_the_factor():
    check_text(Swish(), """
        graph f(x: f32[n])
          %0 = sigmoid(x)
          %1 = mul(x, %0)
          return %1
    """, """
        graph f(x: f32[n])
          %0 = maximum(x, -1000.0:f32)
          %1 = sigmoid(x)
          %2 = mul(%0, %1)
          return %2
    """)


def test_the_slope_of_something_else_stays():
    check_silent(SwishSlope(), SLOPE.replace("mul(g, x)", "mul(g, g)"), because="no factor x")


def test_values_stay_but_where_they_were_nan():
    check_numbers([Swish(), SwishSlope()], heals=True)
    check_numbers(SwishSlope(), around=SLOPE, heals=True, examples=20)


def test_it_is_0_at_minus_infinity():
    check_graph([Swish(), SwishSlope()], SLOPE, {"g": np.ones(2), "x": np.array([-np.inf, 1.0])}, heals=True)
