"""What has to be done before what, by the memory that each piece of work reads and writes.

Memory is used again and again in a program's arena, so it is addresses that count, not names of buffers: who reads
comes after who wrote there last, who writes comes after these and all that have read since.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Touch(NamedTuple):
    """Bytes from `start` to before `end` that a piece of work reads, and writes too where it says so."""

    start: int
    end: int
    written: bool


@dataclass
class _Span:
    """Bytes from `start` to before `end`: who has written them last, and who has read them since."""

    start: int
    end: int
    writers: tuple[int, ...]
    readers: tuple[int, ...]


class Order:
    """Pieces of work, numbered by whoever asks, in an order in which they may be done one after the other."""

    def __init__(self) -> None:
        self._spans: list[_Span] = []       # none of them overlap, and each begins behind the one before

    def before(self, touches: Sequence[Touch]) -> list[int]:
        """What has to be done before a piece of work that touches this memory."""
        found: dict[int, None] = {}
        for touch in touches:
            for span in self._spans[self._at(touch.start):self._at(touch.end)]:
                found |= dict.fromkeys(span.writers)
                if touch.written:
                    found |= dict.fromkeys(span.readers)
        return list(found)

    def add(self, touches: Sequence[Touch], numbers: Sequence[int]) -> None:
        """A piece of work, which is done when these are."""
        own = tuple(numbers)
        for touch in sorted(touches, key=lambda touch: touch.written):
            if touch.start == touch.end:
                continue
            first, last = self._at(touch.start), self._at(touch.end)
            if touch.written:
                self._spans[first:last] = [_Span(touch.start, touch.end, own, ())]
                continue
            read: list[_Span] = []
            at = touch.start
            for span in self._spans[first:last]:
                if at < span.start:
                    read.append(_Span(at, span.start, (), own))
                read.append(_Span(span.start, span.end, span.writers, tuple(dict.fromkeys((*span.readers, *own)))))
                at = span.end
            if at < touch.end:
                read.append(_Span(at, touch.end, (), own))
            self._spans[first:last] = read

    def _at(self, place: int) -> int:
        """The number of the first span that begins at an address or behind it; one that reaches over it is cut."""
        at = bisect_right(self._spans, place, key=lambda span: span.start)
        if at and (span := self._spans[at - 1]).start < place < span.end:
            rest = _Span(place, span.end, span.writers, span.readers)
            span.end = place
            self._spans.insert(at, rest)
        return bisect_left(self._spans, place, key=lambda span: span.start)
