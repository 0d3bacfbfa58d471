"""What waits for what in a graph: by the memory that it touches, and no more than that."""

from __future__ import annotations

from typing import Any

import numpy as np
from fake_gpu import FakeGpu, gpu
from hypothesis import given
from hypothesis import strategies as st

from tensorc import backend as K
from tensorc.runtime.cuda.order import Order, Touch

assert gpu

PLACES = st.tuples(st.integers(0, 30), st.integers(0, 12), st.booleans())
TOUCHES = st.builds(lambda place: Touch(place[0], place[0] + place[1], place[2]), PLACES)


def clash(one: list[Touch], other: list[Touch]) -> bool:
    """Must one piece of work wait for another that touches this memory?"""
    return any(a.start < b.end and b.start < a.end and max(a.start, b.start) < min(a.end, b.end)
               and (a.written or b.written) for a in one for b in other)


@given(st.lists(st.lists(TOUCHES, min_size=1, max_size=4), max_size=14))
def test_a_piece_of_work_waits_for_those_that_it_must_and_no_others(works: list[list[Touch]]) -> None:
    order = Order()
    behind: list[set[int]] = []                 # those that have to be done before, by way of others too
    for number, touches in enumerate(works):
        waits = order.before(touches)
        assert all(clash(touches, works[other]) for other in waits)
        order.add(touches, [number])
        behind.append(set(waits).union(*(behind[other] for other in waits)))
        assert {n for n in range(number) if clash(touches, works[n])} <= behind[number]


def test_what_is_independent_is_so_in_the_graph(gpu: FakeGpu) -> None:
    """A copy from the host, products that need nothing of each other, a copy to the host."""
    x, weights = K.placeholder((None, 4)), [K.variable(np.full((4, n), n)) for n in (3, 5, 6, 7)]
    a = np.ones((2, 4), np.float32)
    function = K.function([x], [K.dot(x, w) for w in weights], device="cuda")
    for got, w in zip(function([a]), weights, strict=True):
        np.testing.assert_allclose(got, a @ K.get_value(w))
    assert gpu.graphs() == (1 + 4 + 1, 3)


def test_what_needs_no_input_waits_for_none(gpu: FakeGpu) -> None:
    v = K.variable(np.arange(3))
    x = K.placeholder((None,))
    function = K.function([x], [x * 2], [(v, v * 2)], device="cuda")
    for turn in (1, 2, 3):
        np.testing.assert_array_equal(function([[3, 4]])[0], [6, 8])
        np.testing.assert_array_equal(K.get_value(v), np.arange(3) * 2**turn)
    assert gpu.graphs() == (4, 3)


def test_updates_that_read_each_other_do_not_overtake(gpu: FakeGpu) -> None:
    """Every variable is read by one kernel and written by another."""
    ring: list[Any] = [K.variable(np.full((3, 3), float(n))) for n in range(1, 6)]
    updates = [(v, K.dot(v, ring[n - 1]) * 0.25) for n, v in enumerate(ring)]
    there, values = K.function([], [], updates, device="cuda"), [K.get_value(v) for v in ring]
    for _ in range(3):
        there([])
        values = [v @ values[n - 1] * np.float32(0.25) for n, v in enumerate(values)]
    for v, value in zip(ring, values, strict=True):
        np.testing.assert_allclose(K.get_value(v), value, rtol=1e-5)
