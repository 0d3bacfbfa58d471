"""A GPU that is not there: memory in one NumPy array, kernels run in lock-step from their text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc import settings
from tensorc.codegen.bodies import memory_of_program
from tensorc.codegen.cuda import lockstep
from tensorc.codegen.cuda.assemble import CudaAssembly
from tensorc.ir import dims
from tensorc.ir.graph import Graph
from tensorc.passes.context import Context
from tensorc.passes.pipeline import default
from tensorc.runtime.cuda.lanes import Unready
from tensorc.runtime.cuda.libraries.calls import Called, Libraries
from tensorc.runtime.walk import walk

Array = np.ndarray[Any, Any]
ALIGNED = 256


def aligned(count: int) -> Array:
    """Bytes full of what nobody wrote, on a boundary as a GPU's memory begins at."""
    raw = np.full(count + ALIGNED, 0xA5, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    return raw[start:start + count]


def on_gpu(array: Array) -> Array:
    """A copy that begins where memory of a GPU does."""
    memory = aligned(array.nbytes)
    memory[:] = np.frombuffer(array.tobytes(), np.uint8)
    return memory.view(array.dtype).reshape(array.shape)


class LockStep:
    """A machine of `runtime.walk`: addresses are places in one array; each buffer is checked against its own bounds.

    With `libraries`, products and convolutions go through these.
    """

    stream = 16

    def __init__(self, assembly: CudaAssembly, libraries: Callable[[LockStep], Libraries] | None = None) -> None:
        self.assembly = assembly
        self.memory = aligned(ALIGNED)
        self.launched: list[str] = []
        self.called: dict[str, Called] = {}
        if libraries is not None:
            found, code = libraries(self), {name: _Kernel(self, name) for name in assembly.sources}
            self.called = {name: Called(call, found, code, settings.tf32()) for name, call in assembly.calls.items()}

    def allocate(self, count: int) -> int:
        """The address of fresh memory, full of what nobody wrote."""
        start = self.memory.size
        grown = aligned(start + -(-max(count, 1) // ALIGNED) * ALIGNED)
        grown[:start] = self.memory
        self.memory = grown
        return start

    def upload(self, array: Array) -> int:
        address = self.allocate(array.nbytes)
        self.memory[address:address + array.nbytes] = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        return address

    def download(self, address: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        count = int(np.prod(shape)) * dtype.itemsize
        return self.memory[address:address + count].copy().view(dtype).reshape(shape)

    def launch(self, kernel: str, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        if kernel not in self.called:
            self.run(kernel, addresses, sizes)
            return
        try:
            self.called[kernel].launch(self, addresses, sizes)
        except Unready as error:
            error.prepare()
            self.called[kernel].launch(self, addresses, sizes)

    def run(self, kernel: str, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        """Runs a kernel's text."""
        source = self.assembly.sources[kernel]
        numbers = dict(zip(source.sizes, sizes, strict=True))
        source = source.at(numbers)
        arrays = []
        for address, dtype, count in zip(addresses, source.dtypes, source.counts, strict=True):
            assert address % dtype.size == 0
            end = address + dims.evaluate(count, numbers) * dtype.size
            arrays.append(self.memory[address:end].view(dtype.numpy))
        self.launched.append(kernel)
        lockstep.run(source, arrays, numbers)

    def copy(self, destination: int, source: int, count: int) -> None:
        self.memory[destination:destination + count] = self.memory[source:source + count].copy()

    def read(self, address: int, count: int) -> bytes:
        return self.memory[address:address + count].tobytes()


@dataclass
class _Kernel:
    """A kernel by its name."""

    machine: LockStep
    name: str

    def launch(self, _: object, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        self.machine.run(self.name, addresses, sizes)


def planned(graph: Graph) -> Graph:
    return default().run(graph, Context("cuda"))


def compute(graph: Graph, assembly: CudaAssembly, values: Sequence[Array], sizes: Mapping[str, int],
            machine: LockStep | None = None) -> list[Array]:
    """The outputs of a planned graph, then the new values of its variables."""
    machine = machine or LockStep(assembly)
    assert graph.plan is not None
    params = [machine.upload(v) for v in values]
    constants = [machine.upload(np.asarray(c.value)) for c in graph.plan.constants]
    shapes = [tuple(dims.evaluate(s, sizes) for s in o.shape) for o in graph.outputs]
    outputs = [machine.allocate(int(np.prod(shape)) * o.dtype.size)
               for o, shape in zip(graph.outputs, shapes, strict=True)]
    arena = machine.allocate(dims.evaluate(memory_of_program(assembly.spec), sizes))
    walk(assembly.spec, machine, [*params, *constants, *outputs], sizes, arena)

    found = [machine.download(a, shape, o.dtype.numpy)
             for a, shape, o in zip(outputs, shapes, graph.outputs, strict=True)]
    for variable, _ in graph.updates:
        at = graph.params.index(variable)
        found.append(machine.download(params[at], values[at].shape, variable.dtype.numpy))
    return found
