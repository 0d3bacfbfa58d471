"""What has to come before what."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Precedence(Generic[T]):
    """Items, and pairs of them of which one comes before the other.

    A graph of our own because fusion runs in every process that compiles: importing networkx takes longer than all
    the ordering that a program needs.  Graphs are handed to networkx where users analyse them.
    """

    def __init__(self) -> None:
        self._after: dict[T, dict[T, None]] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(self._after)

    def add(self, item: T) -> None:
        self._after.setdefault(item, {})

    def add_pairs(self, pairs: Iterable[tuple[T, T]]) -> None:
        """Pairs (earlier, later)."""
        for earlier, later in pairs:
            self.add(earlier)
            self.add(later)
            self._after[earlier][later] = None

    def directly_before(self, earlier: T, later: T) -> bool:
        return later in self._after[earlier]

    def is_last(self, item: T) -> bool:
        """Has nothing to come after it?"""
        return not self._after[item]

    def before(self, earlier: T, later: T) -> bool:
        """Does one come before the other, directly or by way of others?"""
        seen = {earlier}
        stack = [earlier]
        while stack:
            for item in self._after[stack.pop()]:
                if item is later:
                    return True
                if item not in seen:
                    seen.add(item)
                    stack.append(item)
        return False

    def ordered(self, key: Callable[[T], Any]) -> list[T]:
        """All items, each after those before it; among those that could come next the one of the smallest key.

        Items that wait for one another are left out: the result is shorter then.
        """
        waiting = dict.fromkeys(self._after, 0)
        for later in itertools.chain.from_iterable(self._after.values()):
            waiting[later] += 1
        number = itertools.count()
        ready = [(key(item), next(number), item) for item, n in waiting.items() if not n]
        heapq.heapify(ready)
        order: list[T] = []
        while ready:
            _, _, item = heapq.heappop(ready)
            order.append(item)
            for later in self._after[item]:
                waiting[later] -= 1
                if not waiting[later]:
                    heapq.heappush(ready, (key(later), next(number), later))
        return order
