"""The calls of a program: planned once for sizes and alignments, run by a library if it has a plan, else by our kernel.

A plan says which of a library's kernels runs and in how much memory, and never changes: results are the same on every
run.  Those that were used last are kept, and those that a graph was recorded with as long as that.  Each stream has a
workspace of its own, always in the same place, so what runs can be recorded as a graph.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Protocol

from tensorc import settings
from tensorc.codegen.cuda.library import Call, Parts, ProductCall
from tensorc.runtime.cuda.lanes import Lane, Launchable, Unready
from tensorc.runtime.cuda.libraries.memory import WORKSPACE, alignment
from tensorc.runtime.cuda.order import Touch

log = logging.getLogger("tensorc")

INSTALL = "pip install 'tensorc[cuda-libraries]'"

PLANS = 512
"""Plans that are kept for calls to come, the ones that were used last."""

PACKAGES = {"nvmath": "nvmath-python", "cudnn": "nvidia-cudnn-frontend"}
"""What calls the libraries, by the name of its module."""


class Plan(Protocol):
    """How a library does a call at certain sizes."""

    def run(self, stream: int, addresses: Sequence[int], workspace: int) -> None:
        """Adds the work to a stream.  Raises DeviceError."""


class Library(Protocol):
    """A library that is loaded."""

    def plan(self, call: Call, sizes: Mapping[str, int], alignments: Sequence[int], tf32: bool) -> Plan | None:
        """A plan for buffers at addresses that are multiples of `alignments`; None where the library has none."""


def missing() -> list[str]:
    """What a program would run faster with, and is not installed."""
    return [package for name, package in PACKAGES.items() if find_spec(name) is None]


class Called:
    """A launch that a library does where it can, and kernels of ours where not.

    Args:
        code: our kernels by name.
        tf32: whether TF32 will do for float32.
    """

    def __init__(self, call: Call, by: Libraries, code: Mapping[str, Launchable], tf32: bool) -> None:
        self._call, self._by = replace(call, parts=Parts((), None)), by     # one plan whatever our kernels are called
        self._tf32 = tf32
        self._alone = [(part, code[part.kernel]) for part in call.parts.alone]
        self._finish = [(part, code[part.kernel]) for part in (call.parts.finish,) if part is not None]

    def launch(self, lane: Lane, addresses: Sequence[int], sizes: Sequence[int]) -> Plan | None:
        """Adds the work to the stream of a lane, or to the graph that is recorded there, with which the plan is kept.

        Raises: Unready where this has to be planned; DeviceError where the library fails.
        """
        alignments = tuple(map(alignment, addresses))
        plan = self._by.plan(self._call, lane.stream, tuple(sizes), alignments, self._tf32)
        if plan is not None:
            self._by.run(plan, lane.stream, addresses)
        for part, kernel in self._alone if plan is None else self._finish:
            kernel.launch(lane, [addresses[i] for i in part.buffers], [sizes[i] for i in part.sizes])
        return plan

    def touches(self, lane: Lane, addresses: Sequence[int], sizes: Sequence[int]) -> list[Touch]:
        """What our kernels read and write: a library does the same, and works in the stream's workspace."""
        found = self._by.workspace(lane.stream)
        for part, kernel in (*self._alone, *self._finish):
            found += kernel.touches(lane, [addresses[i] for i in part.buffers], [sizes[i] for i in part.sizes])
        return found


Key = tuple[Call, tuple[int, ...], tuple[int, ...], bool]
"""A call, its sizes, what its buffers are aligned to, and whether TF32 will do."""


class Libraries:
    """The libraries of a device, and the plans made so far.

    Args:
        allocate: gives memory of the device that is never given back.
        relaxed: in a block of this, this thread may load and allocate while a stream of its own is recorded.
        alone: in a block of this, no thread records: a library that is loaded, or plans, may wait for the device.
    """

    def __init__(self, allocate: Callable[[int], int], relaxed: Callable[[], AbstractContextManager[object]],
                 alone: AbstractContextManager[object]) -> None:
        self._allocate, self._relaxed, self._alone = allocate, relaxed, alone
        self._lock = threading.Lock()
        self._loaded: dict[str, Library | None] = {}
        self._plans: OrderedDict[Key, Plan | None] = OrderedDict()
        self._workspaces: dict[int, int] = {}

    def plan(self, call: Call, stream: int, sizes: tuple[int, ...], alignments: tuple[int, ...],
             tf32: bool) -> Plan | None:
        """The plan for a call, `sizes` and `alignments` in its order; None where our kernel is to run.

        Raises: Unready where there is none yet, or no workspace for the stream: what makes them may not be done while
            a graph is recorded.
        """
        key = call, sizes, alignments, tf32
        with self._lock:
            if key not in self._plans or self._plans[key] is not None and stream not in self._workspaces:
                raise Unready(partial(self._prepare, key, stream))
            self._plans.move_to_end(key)
            return self._plans[key]

    def _prepare(self, key: Key, stream: int) -> None:
        with self._alone, self._lock:               # in this order: whoever records takes the lock too
            if key not in self._plans:
                call, sizes, alignments, tf32 = key
                library, numbers = self._library(call.library), dict(zip(call.sizes, sizes, strict=True))
                self._plans[key] = None if library is None else library.plan(call, numbers, alignments, tf32)
            if stream not in self._workspaces:
                self._workspaces[stream] = self._allocate(WORKSPACE)

    def workspace(self, stream: int) -> list[Touch]:
        """The workspace of a stream, if it has one by now."""
        address = self._workspaces.get(stream)
        return [] if address is None else [Touch(address, address + WORKSPACE, True)]

    def trim(self) -> None:
        """Forgets the plans that were not used for longest; not while anything waits for one that it has asked for."""
        with self._lock:
            while len(self._plans) > PLANS:
                self._plans.popitem(last=False)

    def run(self, plan: Plan, stream: int, addresses: Sequence[int]) -> None:
        """Adds what was planned to a stream.  Raises DeviceError."""
        with self._lock, self._relaxed():           # a library loads its kernels when they are first launched
            plan.run(stream, addresses, self._workspaces[stream])

    def _library(self, name: str) -> Library | None:
        """A library, loaded if it is there."""
        if name not in self._loaded:
            self._loaded[name] = _loaded(name)
        return self._loaded[name]


def _loaded(name: str) -> Library | None:
    try:
        if name == ProductCall.library:
            from tensorc.runtime.cuda.libraries.products import CublasLt

            return CublasLt()
        from tensorc.runtime.cuda.libraries.convolutions import Cudnn

        return Cudnn()
    except ImportError:
        log.info("%s is not installed, so kernels of our own do its work; %s", name, INSTALL)
    except Exception as error:
        log.warning("%s cannot be used, so kernels of our own do its work: %s", name, str(error))
    return None


def are_wanted() -> bool:
    """Whether programs may use the libraries, and there are any."""
    return not settings.CUDA_LIBRARIES.is_off and len(missing()) < len(PACKAGES)
