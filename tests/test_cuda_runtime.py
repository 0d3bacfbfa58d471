"""Programs on a GPU, from K.function to launches, on a driver that has none: what the host does, call by call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeGpu, gpu

from tensorc import backend as K

assert gpu
RNG = np.random.default_rng(11)


def numbers(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def close(got: Any, want: Any, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_elementwise(gpu: FakeGpu) -> None:
    x, y = K.placeholder((None, 5)), K.placeholder((None, 5))
    function = K.function([x, y], [K.tanh(x) * y + 1, x - y], device="cuda")
    for n in (3, 3, 1, 0, 7, 3):
        a, b = numbers(n, 5), numbers(n, 5)
        first, second = function([a, b])
        close(first, np.tanh(a) * b + 1)
        close(second, a - b)
    assert gpu.launched
