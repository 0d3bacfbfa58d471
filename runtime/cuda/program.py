"""Programs for a GPU: what they do, and their kernels as machine code, from the store or newly compiled."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorc import settings
from tensorc.codegen.bodies import memory_of_program
from tensorc.codegen.cuda.library import Call
from tensorc.codegen.cuda.source import Source
from tensorc.codegen.spec import ProgramSpec
from tensorc.ir.graph import Graph
from tensorc.runtime import identity, store
from tensorc.runtime.cuda.device import Device, device
from tensorc.runtime.cuda.driver import named
from tensorc.runtime.cuda.kernels import Code, Kernel
from tensorc.runtime.cuda.lanes import Launchable
from tensorc.runtime.cuda.libraries.calls import Called, are_wanted
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
        calls: whether libraries may do any of it.
        addresses: those of what follows the parameters among its externals.
        memory: the bytes that it needs besides its externals.
        others as in Program, of which those that are about native code are not there.
    """

    device = "cuda"

    @classmethod
    def asked(cls) -> tuple[bool, bool]:
        """Whether libraries may do any of it, and whether these may use TF32."""
        return are_wanted(), settings.tf32()

    def __init__(self, graph: Graph, text: str, pipeline: Pipeline | None) -> None:
        self._set(graph, pipeline)
        made = f"{made_for(self.on.gpu.capability)} {self._libraries}"
        key = identity.of_program(graph, text, pipeline, made)
        entry = store.fetch(key, self._compile)
        self.is_kept = key is not None and store.shared() is not None
        self._take(entry)

    def _set(self, graph: Graph, pipeline: Pipeline | None) -> None:
        super()._set(graph, pipeline)
        self.on: Device = device()
        self._libraries, self._tf32 = self.asked()

    def _take(self, entry: store.Entry) -> None:
        """What an entry says that the program does, its kernels and constants loaded."""
        self.spec: ProgramSpec
        code: Mapping[str, Code]
        calls: Mapping[str, Call]
        self.spec, code, calls = pickle.loads(entry.image)  # of this user only, and whole: the store has seen to that
        self.calls = bool(calls)
        self.order: Sequence[int] = entry.facts["order"]
        self.kernels = len(code)
        self.memory = memory_of_program(self.spec)
        with self._timed("load"), named(self.graph.name), self.on.current():
            kernels = {name: Kernel(each, self.on, self._wider) for name, each in code.items()}
            called = {name: Called(call, self.on.libraries, kernels, self._tf32) for name, call in calls.items()}
            self.code: Mapping[str, Launchable] = {**kernels, **called}
            self._block, *self.addresses = uploaded(self.on, entry.arrays)

    @functools.cached_property
    def assembly(self) -> CudaAssembly:     # type: ignore[override]
        """The launches, and the texts of their kernels."""
        from tensorc.codegen.cuda.assemble import assemble

        planned = self.planned
        with self._timed("assemble"):
            return assemble(planned, libraries=self._libraries)

    def _compile(self) -> store.Entry:
        sources = self.assembly.sources
        with self._timed("compile"):
            code = dict(zip(sources, compiled(sources.values(), self.on), strict=True))
        assert self.planned.plan is not None
        constants = tuple(np.ascontiguousarray(c.value) for c in self.planned.plan.constants)
        spec = self.assembly.spec
        order = [self.sizes.index(symbol) for symbol in spec.sizes]
        return store.Entry(pickle.dumps((spec, code, self.assembly.calls)), {"order": order}, constants)

    def _wider(self, source: Source) -> Code:
        """The code of a kernel whose indices have 64 bits, kept in the store as well."""
        wide = replace(source, wide=True)

        def make() -> store.Entry:
            (code,) = compiled([wide], self.on)
            return store.Entry(pickle.dumps(code))

        key = identity.of_kernel(str(wide), made_for(self.on.gpu.capability))
        made: Code = pickle.loads(store.fetch(key, make).image)
        return made

    def loops(self) -> str:
        return str(self.assembly)

    def texts(self) -> Iterator[str]:
        from tensorc.codegen.cuda.compile import ptx

        for source in self.assembly.sources.values():
            yield ptx(source, self.on.gpu.capability)


def compiled(sources: Iterable[Source], on: Device) -> list[Code]:
    """Kernels as machine code for a GPU.  Raises DeviceError where a compiler is missing."""
    from tensorc.codegen.cuda import compile

    sources = list(sources)
    return [Code(source, made.entry, made.code)
            for source, made in zip(sources, compile.cubins(sources, on.gpu.capability), strict=True)]


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
