"""The memory that libraries work in: how much more than operands and results they may have, and how it is aligned."""

from __future__ import annotations

WORKSPACE = 128 << 20
"""Bytes that a stream lends to whatever runs in it."""

MOST = 256
"""The largest power of two that it matters whether addresses are multiples of."""


def alignment(address: int) -> int:
    """The largest power of two, MOST at most, that an address or a distance in bytes is a multiple of."""
    return (address | MOST) & -(address | MOST)
