"""What variables and random streams keep."""

import threading

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.errors import DTypeError, ShapeError
from tensorc.runtime.random import Stream
from tensorc.runtime.variable import Cell, aligned_empty


@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7), (1, 0, 2)])
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "float64"])
def test_memory_is_aligned(shape, dtype):
    array = aligned_empty(shape, np.dtype(dtype))
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.ctypes.data % 64 == 0 or array.size == 0
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_a_cell_owns_its_value():
    given = np.arange(3, dtype="float32")
    cell = Cell(given, "w")
    given[0] = 9
    taken = cell.get()
    taken[1] = 9
    assert cell.get().tolist() == [0, 1, 2]
    memory = cell.array
    cell.set([4, 5, 6])
    assert cell.array is memory
    assert (cell.shape, cell.dtype, cell.get().tolist()) == ((3,), np.float32, [4, 5, 6])


def test_what_a_cell_takes():
    count = Cell(np.array(3, dtype="int8"), "count")
    count.set(5.0)
    count.set(True)
    assert count.get() == 1
    for value in 0.5, 300, np.nan:
        with pytest.raises(DTypeError, match="cannot hold"):
            count.set(value)
    with pytest.raises(ShapeError, match=r"has shape \(\), the value has shape \(1,\)"):
        count.set([1])
    assert Cell(np.zeros(2, "float16")).fitting([1e6, 1]).tolist() == [np.inf, 1]
    assert Cell(np.zeros(2, "bfloat16")).fitting([1e39, 1.0039]).tolist() == [np.inf, 1]
    assert Cell(np.zeros(2)).fitting(np.array([1.5, 2], "bfloat16")).tolist() == [1.5, 2]
    assert Cell(np.zeros(2)).fitting(7, fill=True) == 7


def test_a_stream_gives_each_call_its_key():
    stream = Stream(5)
    assert stream.key().tolist() == stream.take().tolist() == [5, 0]
    assert stream.key().tolist() == [5, 1]
    assert stream.draw() == (5, 1)
    assert stream.take().tolist() == [5, 2]
    assert stream.key().dtype == np.int64
    assert Stream(2**64 - 1).key().tolist() == [-1, 0]
    assert Stream(2**63).key().tolist() == [-(2**63), 0]


def test_seeds_repeat_with_numpys_generator():
    np.random.seed(11)
    seeds = [int(Stream().key()[0]) for _ in range(3)]
    np.random.seed(11)
    assert seeds == [int(np.random.randint(10_000_000)) for _ in range(3)]


def test_streams_and_graphs_serve_several_threads():
    stream = Stream(1)
    steps, results = [], {}

    def work(i):
        steps.extend(int(stream.take()[1]) for _ in range(50))
        v = K.variable(float(i))
        with K.control_dependencies(K.update_add(v, 1)):
            doubled = v * 2
        results[i] = float(K.eval(doubled)), doubled.origin.call

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(steps) == list(range(200))
    assert results == {i: (2.0 * (i + 1), "x * y") for i in range(4)}
