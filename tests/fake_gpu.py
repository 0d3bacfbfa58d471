"""A GPU that is not there: the library of tests/fake_cuda in place of NVIDIA's, whose kernels run in lock-step."""

from __future__ import annotations

import ctypes
import functools
import gc
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.codegen.cuda import compile as compiler
from tensorc.codegen.cuda import lockstep
from tensorc.codegen.cuda.source import Source
from tensorc.ir import dims
from tensorc.runtime.cuda import driver
from tensorc.runtime.cuda.device import device
from tensorc.runtime.program import forget_programs
from tensorc.runtime.variable import Cell

SOURCE = Path(__file__).parent / "fake_cuda" / "driver.c"
KINDS = ("memory of the device", "memory of the host", "streams", "events", "graphs", "executables", "modules")
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint64), ctypes.c_int, ctypes.c_uint,
                          ctypes.c_uint)


@functools.cache
def built() -> Path:
    """The library, compiled once a process; its folder is removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="tensorc-fake-")
    built.folder = folder                                                    # type: ignore[attr-defined]
    path = Path(folder.name) / "libcuda.so.1"
    subprocess.run([shutil.which("cc") or "cc", "-O1", "-shared", "-fPIC", "-pthread", "-Wall", "-Werror",
                    "-Wno-unused-parameter", "-o", path, SOURCE], check=True)
    return path


HOST_CALL = b"host_call"
"""The kernel in whose place a function of the host runs."""


class FakeGpu:
    """The library with what tests ask of it.

    Attributes:
        launched: the kernels that were run, by the names of their sources.
        errors: what went wrong in them.
    """

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(built()))
        self.library.fake_where.restype = ctypes.c_uint64
        self.library.fake_where.argtypes = [ctypes.c_uint64, ctypes.c_size_t]
        self.library.fake_memory.argtypes = [ctypes.c_size_t]
        for name in ("fake_failed", "fake_fault"):
            getattr(self.library, name).restype = ctypes.c_char_p
        self.sources: dict[str, Source] = {}
        self.launched: list[str] = []
        self.errors: list[str] = []
        self._host_calls: list[Callable[[], None]] = []
        self._host_module = 0
        self._callback = KERNEL(self._run)
        self.library.fake_kernel(self._callback)

    def cubins(self, sources: Iterable[Source], capability: tuple[int, int]) -> list[compiler.Cubin]:
        """In place of the compiler: images that name their kernels."""
        assert capability == (9, 0)
        return [self._cubin(source) for source in sources]

    def _cubin(self, source: Source) -> compiler.Cubin:
        entry = f"{source.name}_{hashlib.sha256(repr(source).encode()).hexdigest()[:12]}"
        self.sources[entry] = source
        parameters = [8] * len(source.buffers) + [8 if source.wide else 4] * len(source.sizes)
        image = " ".join(["FAKE", entry, str(len(parameters)), *map(str, parameters)])
        return compiler.Cubin(entry, image.encode() + b"\0", 1, 0, 0)

    def know(self, kernel: Any) -> None:
        """Knows the text of a kernel that was loaded from the store."""
        self._cubin(kernel._source)

    def _run(self, entry: bytes, parameters: Any, count: int, blocks: int, threads: int) -> None:
        try:
            if entry == HOST_CALL:
                self._host_calls[parameters[0]]()
                return
            source = self.sources[entry.decode()]
            sizes = dict(zip(source.sizes, parameters[len(source.buffers):count], strict=True))
            assert (blocks, threads) == (dims.evaluate(source.blocks, sizes), source.threads), source
            self.launched.append(source.name)
            arrays = [self.array(address, dims.evaluate(number, sizes), dtype.numpy)
                      for address, number, dtype in zip(parameters, source.counts, source.dtypes, strict=False)]
            lockstep.run(source, arrays, sizes)
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    def on_stream(self, stream: int, work: Callable[[], None]) -> None:
        """Adds what the host does to a stream, or to the graph that is recorded there."""
        cu = driver.driver()
        image = b"FAKE " + HOST_CALL + b" 1 8"
        if not self._host_module:
            self._host_module = driver.number(cu.cuModuleLoadData, image, kind=ctypes.c_void_p)
        function = driver.number(cu.cuModuleGetFunction, self._host_module, HOST_CALL, kind=ctypes.c_void_p)
        cu.cuFuncLoad(function)
        number = ctypes.c_uint64(len(self._host_calls))
        self._host_calls.append(work)
        cu.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, (ctypes.c_void_p * 1)(ctypes.addressof(number)), None)

    def forget_host_calls(self) -> None:
        if self._host_module:
            with device().current() as cu:
                cu.cuModuleUnload(self._host_module)
            self._host_module = 0

    def array(self, address: int, count: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Memory of the device."""
        size = count * dtype.itemsize
        if not size:
            return np.empty(0, dtype)
        where = self.library.fake_where(address, size)
        assert where, f"{count} × {dtype} at {address:#x} are no memory of the device"
        assert address % dtype.itemsize == 0
        return np.frombuffer((ctypes.c_char * size).from_address(where), dtype)

    def fail(self, call: int, code: int = 999) -> None:
        """Lets the call of that number from now on fail; 0 lets none."""
        self.library.fake_fail(call, code)

    @property
    def failed(self) -> str:
        """The function that was let fail."""
        return self.library.fake_failed().decode()

    @property
    def calls(self) -> int:
        """How many there were since `fail`."""
        return self.library.fake_calls()

    def counts(self) -> dict[str, int]:
        """How many things of each kind there are."""
        return {name: self.library.fake_count(i) for i, name in enumerate(KINDS)}

    def graphs(self) -> tuple[int, int]:
        """Of how many pieces all graphs are made, and how many of these wait for one another in the longest row."""
        nodes, depth = ctypes.c_int(), ctypes.c_int()
        self.library.fake_graphs(ctypes.byref(nodes), ctypes.byref(depth))
        return nodes.value, depth.value

    def check(self) -> None:
        """Nothing went wrong so far."""
        assert self.library.fake_fault() == b""
        assert self.errors == []


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A fresh GPU, on which nothing must go wrong and nothing be left."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    fake = FakeGpu()
    monkeypatch.setattr(driver, "NAMES", (str(built()),))
    monkeypatch.setattr(compiler, "cubins", fake.cubins)
    monkeypatch.setattr(Cell.any_elsewhere, "value", False)     # or CPU programs would look there from now on
    forget()
    yield fake
    fake.fail(0)
    K.clear_session()
    fake.forget_host_calls()
    forget()
    left = fake.counts()
    fake.check()
    lanes = left.pop("streams"), left.pop("events")
    assert lanes[0] == lanes[1], lanes
    assert not any(left.values()), left


def forget() -> None:
    """Gives back what waits to be used again, and looks for the driver and the GPU anew when they are needed."""
    forget_programs()
    gc.collect()
    if device.cache_info().currsize:
        on = device()
        on._kept.clear()
        with on.current():
            on.memory.release()
            on.pinned.release()
    driver.driver.cache_clear()
    device.cache_clear()
