"""Memory on the device, and memory of the host that it copies from and to: kept for the next user, since both are dear.

A piece of memory knows the lanes that have used it.  It is given to another user at once, who waits for these on the
device, or, where the host is to write to it, here.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable

from tensorc.runtime.cuda.driver import OUT_OF_MEMORY, PORTABLE, D, Driver, DriverError, P, number
from tensorc.runtime.cuda.lanes import Lane

ALIGNMENT = 256
"""What addresses on the device are multiples of."""

STEPS = 8
"""Sizes of memory between one power of two and the next."""


def rounded(size: int) -> int:
    """The size of memory that is kept for such a request."""
    step = max(ALIGNMENT, 1 << max(0, (size - 1).bit_length() - STEPS.bit_length()))
    return max(1, -(-size // step)) * step


Waiting = tuple[int, int, set[Lane], bool]
"""Address, size, the lanes that have used it, and whether others have."""


class Block:
    """Memory that returns to its pool when nobody holds it any more.

    Attributes:
        address, size: of a multiple of ALIGNMENT bytes.
        users: the lanes that have used it.
        lent: whether others have used it, on streams that are not known.
    """

    __slots__ = ("_pool", "address", "lent", "size", "users")

    def __init__(self, pool: Pool, address: int, size: int, users: Iterable[Lane] = (), lent: bool = False) -> None:
        self._pool = pool
        self.address, self.size = address, size
        self.users, self.lent = set(users), lent

    def bytes(self, count: int) -> bytes:
        """What the first bytes of memory of the host are."""
        return ctypes.string_at(self.address, count)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):        # while the interpreter shuts down
            self._pool.take_back(self)


class Pool(ABC):
    """Memory that waits to be used again, by its size.  The device is current where any is taken.

    Args:
        synchronise: waits for all work of the device.
    """

    def __init__(self, cu: Driver, synchronise: Callable[[], None]) -> None:
        self.cu, self.synchronise = cu, synchronise
        self._lock = threading.Lock()
        self._free: dict[int, list[Waiting]] = {}
        self._returned: deque[Waiting] = deque()    # objects die at any time, while this lock is held too

    def take(self, size: int, lane: Lane | None) -> Block:
        """At least `size` bytes, to be used in a lane; None where the host writes to it.  Raises DriverError."""
        size = rounded(size)
        with self._lock:
            self._sort()
            waiting = self._free.get(size)
            found = waiting.pop() if waiting else None
        if found is None:
            block = Block(self, self.allocated(size), size)
        else:
            block = Block(self, *found)
            if block.lent:
                self.synchronise()
            elif lane is not None:
                lane.wait_for(block.users)
            else:
                for user in block.users:
                    user.finish()
        block.users, block.lent = ({lane} if lane is not None else set()), False
        return block

    def take_back(self, block: Block) -> None:
        self._returned.append((block.address, block.size, block.users, block.lent))

    def release(self) -> None:
        """Gives what waits back to the driver."""
        self.synchronise()
        with self._lock:
            self._sort()
            for waiting in self._free.values():
                while waiting:
                    self.freed(waiting.pop()[0])
            self._free.clear()

    def _sort(self) -> None:
        while self._returned:
            each = self._returned.popleft()
            self._free.setdefault(each[1], []).append(each)

    @abstractmethod
    def allocated(self, size: int) -> int:
        """The address of fresh memory."""

    @abstractmethod
    def freed(self, address: int) -> None:
        """Gives memory back."""


class OnDevice(Pool):
    """Memory of the device."""

    def allocated(self, size: int) -> int:
        try:
            return int(number(self.cu.cuMemAlloc_v2, size, kind=D))
        except DriverError as error:
            if error.code != OUT_OF_MEMORY:
                raise
        self.release()
        try:
            return int(number(self.cu.cuMemAlloc_v2, size, kind=D))
        except DriverError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            free, total = D(), D()
            self.cu.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
            raise DriverError(error.code, f"{error.what}: {_megabytes(size)} were asked for, {_megabytes(free.value)} "
                                          f"of {_megabytes(total.value)} are free") from None

    def freed(self, address: int) -> None:
        self.cu.cuMemFree_v2(address)


class Pinned(Pool):
    """Memory of the host that the device can copy from and to on its own."""

    def allocated(self, size: int) -> int:
        return int(number(self.cu.cuMemHostAlloc, size, PORTABLE, kind=P))

    def freed(self, address: int) -> None:
        self.cu.cuMemFreeHost(address)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
