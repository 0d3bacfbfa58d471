"""What this machine can do at most: how fast it copies, and how fast it multiplies and adds.

Both are measured once, by compiled kernels on as many threads as programs run on, and kept in the store's folder.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tensorc.codegen.cpu.peak import multiply_adds, operations
from tensorc.codegen.cpu.program import load_program
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.places import External
from tensorc.codegen.spec import Launch, ProgramSpec
from tensorc.ir import dims
from tensorc.ir.types import DType, TensorType, f32, f64
from tensorc.ops.elementwise import neg
from tensorc.ops.source import parameter
from tensorc.runtime import store, threads
from tensorc.runtime.timing import Stopwatch

log = logging.getLogger("tensorc")

FORMAT = 2
"""Changes with how limits are measured, so that those measured otherwise are not read."""

COPIES = tuple(1 << bits for bits in range(16, 29, 2))
"""Bytes that the copies move, half of them read and half of them written."""

ROUNDS = 5
"""How often each of them is measured at least; the best counts."""

SECONDS = 0.15
"""How long, at least: others may keep the processors busy for a while."""


@dataclass(frozen=True)
class Limits:
    """
    Attributes:
        threads: how many they were measured with.
        copies: of copies, (bytes moved, bytes a second), from few to many.
        flops: operations a second on float32 and on float64, a multiply-add being two.
    """

    threads: int
    copies: tuple[tuple[int, float], ...]
    flops: tuple[float, float]

    def bandwidth(self, moved: int) -> float:
        """Bytes a second for so many bytes: the best of the copies that move no less; of the largest for more."""
        return max((rate for size, rate in self.copies if size >= moved), default=self.copies[-1][1])

    def peak(self, dtype: DType) -> float:
        """Operations a second on floats; those that are not float64 are computed as float32."""
        return self.flops[dtype is f64]

    @property
    def cache(self) -> float:
        """The fastest copy, from cache to cache."""
        return self.bandwidth(0)

    @property
    def memory(self) -> float:
        """The largest copy."""
        return self.copies[-1][1]


def limits() -> Limits:
    """Those of this machine, measured now unless they are known for its present number of threads."""
    return _known(threads.num_threads())


@functools.cache
def _known(count: int) -> Limits:
    shared = store.shared()
    path = None if shared is None else shared.folder / f"limits-{_key(count)}.json"
    found = None if path is None else _read(path, count)
    if found is None:
        found = measure()
        if shared is not None and path is not None:
            shared.write(path, json.dumps(dataclasses.asdict(found)).encode())
    return found


def _key(count: int) -> str:
    return hashlib.sha256(f"{FORMAT} {count} {Target.host().key}".encode()).hexdigest()[:16]


def _read(path: Path, count: int) -> Limits | None:
    """What a file says; None where there is none, or not what was written."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        copies = tuple((int(size), float(rate)) for size, rate in said["copies"])
        single, double = map(float, said["flops"])
        assert said["threads"] == count
        assert [size for size, _ in copies] == list(COPIES)
    except (OSError, ValueError, TypeError, KeyError, AssertionError):
        return None
    return Limits(count, copies, (single, double))


def measure() -> Limits:
    """Measures them, in one or two seconds."""
    log.info("measuring what this machine can do")
    return Limits(threads.num_threads(), tuple(map(_copy, COPIES)), (_multiply_adds(f32), _multiply_adds(f64)))


def _copy(moved: int) -> tuple[int, float]:
    """(bytes, bytes a second) of a kernel that negates float32."""
    from tensorc.runtime.function import Function

    x = parameter(name="x", role="input", uid=0, type=TensorType(f32, (dims.symbol("n"),)))
    watch = Stopwatch(Function("copy", [x], [neg(x)]).apart([np.zeros(moved // 8, np.float32)]), None)
    watch.run()
    taken = _least(lambda: watch.run().ticks["k0"])
    return moved, moved * watch.second() / taken


def _multiply_adds(dtype: DType) -> float:
    """Operations a second of a kernel that does nothing but multiply and add in registers."""
    target = Target.host()
    text = multiply_adds(dtype, target)
    spec = ProgramSpec("multiply_adds", (), 1, ((Launch("multiply_adds", (External(0),), ()),),), 0)
    loaded = load_program(text, spec, target, threads.symbols())
    result = np.zeros(1, np.float64)
    externals = (ctypes.c_void_p * 1)(result.ctypes.data)

    def run() -> float:
        start = time.perf_counter()
        loaded.run(ctypes.addressof(externals), 0, 0)
        return time.perf_counter() - start

    run()
    return operations(dtype, target) / _least(run)


def _least(measured: Callable[[], float]) -> float:
    """The least of several measurements."""
    end = time.perf_counter() + SECONDS
    taken = [measured() for _ in range(ROUNDS)]
    while time.perf_counter() < end:
        taken.append(measured())
    return min(taken)
