"""What addresses are multiples of: kernels of the libraries are chosen by that."""

from __future__ import annotations

MOST = 256
"""The largest power of two that makes a difference."""


def alignment(address: int) -> int:
    """The largest power of two, MOST at most, that an address or a distance in bytes is a multiple of."""
    return (address | MOST) & -(address | MOST)
