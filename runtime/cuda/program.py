"""Programs for a GPU: what they do, and their kernels as machine code, from the store or newly compiled."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorc.codegen.bodies import memory_of_program
from tensorc.codegen.spec import ProgramSpec
from tensorc.ir.graph import Graph
from tensorc.runtime import identity, store
from tensorc.runtime.cuda.device import Device, device
from tensorc.runtime.cuda.driver import named
from tensorc.runtime.cuda.kernels import Code, Kernel
from tensorc.runtime.cuda.machine import Launchable
from tensorc.runtime.cuda.memory import ALIGNMENT
from tensorc.runtime.program import Program

if TYPE_CHECKING:
    from tensorc.codegen.cuda.assemble import CudaAssembly
    from tensorc.passes.manager import Pipeline

Array = np.ndarray[Any, Any]

COMPILERS = ("numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")
"""The packages that decide what machine code a kernel's text becomes."""


class CudaProgram(Program):
    """A program for the GPU that the driver finds first.

    Attributes:
        spec: what it does.
        order: for each of its symbols, the place in `sizes`.
        code: what its launches name.
        constants: the addresses of what follows the parameters among its externals.
        memory: the bytes that it needs besides its externals.
        others as in Program, of which those that are about native code are not there.
    """

    device = "cuda"

    def __init__(self, graph: Graph, text: str, pipeline: Pipeline | None) -> None:
        self._set(graph, pipeline)
        self.on: Device = device()
        key = identity.of_program(graph, text, pipeline, made_for(self.on.gpu.capability))
        entry = store.fetch(key, self._compile)
        self.is_kept = key is not None and store.shared() is not None
        self.spec: ProgramSpec
        code: Mapping[str, Code]
        self.spec, code = pickle.loads(entry.image)     # of this user only, and whole: the store has seen to that
        self.order: Sequence[int] = entry.facts["order"]
        self.kernels = len(code)
        self.memory = memory_of_program(self.spec)
        with self._timed("load"), named(graph.name), self.on.current():
            self.code: Mapping[str, Launchable] = {name: Kernel(each, self.on) for name, each in code.items()}
            self._block, *self.constants = uploaded(self.on, entry.arrays)

    @functools.cached_property
    def assembly(self) -> CudaAssembly:      # type: ignore[override]
        """The launches, and the texts of their kernels."""
        from tensorc.codegen.cuda.assemble import assemble

        planned = self.planned
        with self._timed("assemble"):
            return assemble(planned)

    def _compile(self) -> store.Entry:
        from tensorc.codegen.cuda.compile import cubins

        sources = self.assembly.sources
        with self._timed("compile"):
            made = cubins(sources.values(), self.on.gpu.capability)
        code = {name: Code.of(source, cubin.entry, cubin.code)
                for (name, source), cubin in zip(sources.items(), made, strict=True)}
        assert self.planned.plan is not None
        constants = tuple(np.ascontiguousarray(c.value) for c in self.planned.plan.constants)
        spec = self.assembly.spec
        order = [self.sizes.index(symbol) for symbol in spec.sizes]
        return store.Entry(pickle.dumps((spec, code)), {"order": order}, constants)

    def loops(self) -> str:
        return str(self.assembly)

    def texts(self) -> Iterator[str]:
        from tensorc.codegen.cuda.compile import ptx

        for source in self.assembly.sources.values():
            yield ptx(source, self.on.gpu.capability)


def made_for(capability: tuple[int, int]) -> str:
    """What machine code depends on: the GPU, and the versions of what compiles for it."""
    from importlib.metadata import PackageNotFoundError, version

    def found(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "none"

    return " ".join([f"sm_{capability[0]}{capability[1]}", *(f"{each} {found(each)}" for each in COMPILERS)])


def uploaded(on: Device, arrays: Sequence[Array]) -> Iterator[Any]:
    """Memory that holds arrays, and the address of each; the device is current."""
    starts, size = [], 0
    for array in arrays:
        starts.append(size)
        size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    with on.lanes.lent() as lane:
        block = on.memory.take(size, lane)
        for start, array in zip(starts, arrays, strict=True):
            if array.nbytes:
                on.cu.cuMemcpyHtoDAsync_v2(block.address + start, array.ctypes.data, array.nbytes, lane.stream)
        lane.synchronise()
    yield block
    yield from (block.address + start for start in starts)
