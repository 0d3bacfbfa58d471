"""A machine of `runtime.walk`: what a program does becomes work of a lane, added at once or as a graph to be replayed.

What a program does depends on sizes, addresses, and on numbers that it reads while it runs.  Between two of these reads
its work is always the same: it is recorded once as a CUDA graph and takes one launch from then on.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tensorc.runtime.cuda.device import Device
from tensorc.runtime.cuda.driver import EXTERNAL, SET_DEPENDENCIES, THREAD_LOCAL, DriverError, N, P, number
from tensorc.runtime.cuda.lanes import Lane, Launchable, Unready
from tensorc.runtime.cuda.memory import Block
from tensorc.runtime.cuda.order import Order, Touch

BRANCHES = 4
"""Answers to a read for which what follows is remembered; a bool has two, and a check mostly finds nothing."""


class Machine:
    """Work added to a lane as it comes.

    Args:
        word: memory of the host that the device can write to.

    Attributes:
        needed: what has to be there as long as the work.
    """

    def __init__(self, code: Mapping[str, Launchable], lane: Lane, word: Block) -> None:
        self.code, self.lane, self.word, self.cu = code, lane, word, lane.cu
        self.needed: list[object] = []

    def launch(self, kernel: str, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        try:
            self._launch(kernel, addresses, sizes)
        except Unready as error:
            error.prepare()
            self._launch(kernel, addresses, sizes)

    def _launch(self, kernel: str, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        needed = self.code[kernel].launch(self.lane, addresses, sizes)
        if needed is not None:
            self.needed.append(needed)

    def copy(self, destination: int, source: int, count: int) -> None:
        if count:
            self.cu.cuMemcpyDtoDAsync_v2(destination, source, count, self.lane.stream)

    def upload(self, destination: int, source: int, count: int) -> None:
        """Copies bytes of the host to the device."""
        if count:
            self.cu.cuMemcpyHtoDAsync_v2(destination, source, count, self.lane.stream)

    def download(self, destination: int, source: int, count: int) -> None:
        """Copies bytes of the device to the host."""
        if count:
            self.cu.cuMemcpyDtoHAsync_v2(destination, source, count, self.lane.stream)

    def stamp(self, event: int) -> None:
        """Lets an event tell when all that was added so far is done."""
        self.cu.cuEventRecord(event, self.lane.stream)

    def read(self, address: int, count: int) -> bytes:
        assert count <= self.word.size
        self.download(self.word.address, address, count)
        self.lane.synchronise()
        return self.word.bytes(count)


class _Recorder(Machine):
    """Work that is recorded, from where a program has read what is `known`, to where it reads again.

    A stream would record that each piece of work waits for the one before.  It is told instead what that has to wait
    for, so that the device may do side by side what can be.

    Args:
        order: what has to wait for what; None where all is to be done one after the other.

    Attributes:
        asks: the address and the number of bytes that it reads there.
    """

    def __init__(self, machine: Machine, known: Sequence[bytes], order: Order | None) -> None:
        super().__init__(machine.code, machine.lane, machine.word)
        self.known, self.order = list(known), order
        self.asks: tuple[int, int] | None = None

    def launch(self, kernel: str, addresses: Sequence[int], sizes: Sequence[int]) -> None:
        if not self.known:
            touches = self.code[kernel].touches(self.lane, addresses, sizes) if self.order is not None else []
            with self._in_order(touches):
                self._launch(kernel, addresses, sizes)

    def copy(self, destination: int, source: int, count: int) -> None:
        if not self.known:
            with self._in_order([Touch(source, source + count, False), Touch(destination, destination + count, True)]):
                super().copy(destination, source, count)

    def upload(self, destination: int, source: int, count: int) -> None:
        if not self.known:
            with self._in_order([Touch(destination, destination + count, True)]):
                super().upload(destination, source, count)

    def download(self, destination: int, source: int, count: int) -> None:
        if not self.known:
            with self._in_order([Touch(source, source + count, False)]):
                super().download(destination, source, count)

    @contextlib.contextmanager
    def _in_order(self, touches: Sequence[Touch]) -> Iterator[None]:
        """What is recorded within the block touches this memory, and waits for what has to be done before."""
        if self.order is None:
            yield
            return
        before, stream = self.order.before(touches), self.lane.stream
        nodes = (P * len(before))(*before)
        self.cu.cuStreamUpdateCaptureDependencies_v2(stream, nodes, None, len(nodes), SET_DEPENDENCIES)
        yield
        status, found, count = ctypes.c_int(), ctypes.POINTER(P)(), N()
        self.cu.cuStreamGetCaptureInfo_v3(stream, ctypes.byref(status), None, None, ctypes.byref(found), None,
                                          ctypes.byref(count))
        self.order.add(touches, [found[i] or 0 for i in range(count.value)])

    def stamp(self, event: int) -> None:
        """The same in each run of the graph."""
        if not self.known:
            self.cu.cuEventRecordWithFlags(event, self.lane.stream, EXTERNAL)

    def read(self, address: int, count: int) -> bytes:
        if self.known:
            return self.known.pop(0)
        self.asks = address, count
        raise _Asks


class _Asks(Exception):
    """A program reads what is not known before its work so far is done."""


class Recorded:
    """What a program does at certain sizes and addresses, as graphs between its reads.

    Args:
        follow: goes through all of the program on a machine.
        in_turn: whether all that it does is to be done one after the other.
    """

    def __init__(self, on: Device, follow: Callable[[Machine], None], in_turn: bool = False) -> None:
        self._on, self._follow, self._in_turn = on, follow, in_turn
        self._first: _Piece | None = None

    def run(self, machine: Machine) -> None:
        """Adds its work to the machine's lane.  What fails adds nothing after the read before."""
        known: list[bytes] = []
        if self._first is None:
            self._first = self._record(machine, known)
        piece = self._first
        while True:
            machine.cu.cuGraphLaunch(piece.graph.handle, machine.lane.stream)
            if piece.asks is None:
                return
            answer = machine.read(*piece.asks)
            known.append(answer)
            if answer not in piece.then:
                if len(piece.then) >= BRANCHES:
                    piece.then.clear()
                piece.then[answer] = self._record(machine, known)
            piece = piece.then[answer]

    def _record(self, machine: Machine, known: Sequence[bytes]) -> _Piece:
        while True:
            try:
                return self._recorded(machine, known)
            except Unready as error:
                error.prepare()

    def _recorded(self, machine: Machine, known: Sequence[bytes]) -> _Piece:
        with self._on.recording:
            return self._captured(machine, known)

    def _captured(self, machine: Machine, known: Sequence[bytes]) -> _Piece:
        recorder, lane = _Recorder(machine, known, None if self._in_turn else Order()), machine.lane
        machine.cu.cuStreamBeginCapture_v2(lane.stream, THREAD_LOCAL)
        graph = ctypes.c_void_p()
        try:
            with contextlib.suppress(_Asks):
                self._follow(recorder)
            machine.cu.cuStreamEndCapture(lane.stream, ctypes.byref(graph))
            return _Piece(Graph(self._on, graph.value or 0), recorder.asks, recorder.needed)
        except BaseException:
            if not graph:
                with contextlib.suppress(DriverError):
                    machine.cu.cuStreamEndCapture(lane.stream, ctypes.byref(graph))
            raise
        finally:
            if graph:
                machine.cu.cuGraphDestroy(graph)


class Graph:
    """A recorded graph, ready to be launched.  It outlives the recording."""

    def __init__(self, on: Device, recorded: int) -> None:
        self._on = on
        self.handle: int = number(on.cu.cuGraphInstantiateWithFlags, recorded, 0, kind=P)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            self._on.later(self._on.cu.cuGraphExecDestroy, self.handle)


@dataclass
class _Piece:
    """What a program does between two reads.

    Attributes:
        asks: what is read then; None at the program's end.
        needed: what has to be there as long as the graph.
        then: what follows, by what was read.
    """

    graph: Graph
    asks: tuple[int, int] | None
    needed: list[object]
    then: dict[bytes, _Piece] = field(default_factory=dict)
