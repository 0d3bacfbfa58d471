"""The text of one GPU kernel, and how it is launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import DType

NARROW = 2**31 - 2**16
"""Elements of a buffer up to which indices have 32 bits: those of its last threads reach a little beyond its end."""


@dataclass(frozen=True)
class Source:
    """A kernel as Python text for Numba-CUDA: a function of pointers to its buffers, then of its sizes.

    Attributes:
        text: the function.  It names the intrinsics, `cuda`, `libdevice`, dtypes, and `I`, the type of indices.
        buffers, dtypes, counts: names, element types and numbers of elements of what the pointers point at.
        written: whether it writes there.
        sizes: the size symbols that follow them, of type `I`.
        blocks: how many blocks are launched; where that is 0 there is nothing to do.
        threads: how many threads a block has.
        schedule: how work is spread over them, in words.
        wide: whether indices, and the sizes that are passed, have 64 bits; where a buffer is known to be large they do.
    """

    name: str
    text: str
    buffers: tuple[str, ...]
    dtypes: tuple[DType, ...]
    counts: tuple[Size, ...]
    written: tuple[bool, ...]
    sizes: tuple[str, ...]
    blocks: Size
    threads: int
    schedule: str
    wide: bool = False

    def at(self, sizes: Mapping[str, int]) -> Source:
        """The kernel as it is launched for these values of `sizes`: the same text, its indices as wide as they need."""
        large = self.wide or any(is_large(dims.evaluate(count, sizes)) for count in self.counts)
        return replace(self, wide=large)

    def __str__(self) -> str:
        return f"# {self.schedule}: {self.blocks} blocks of {self.threads} threads\n{self.text}"


def is_large(count: Size) -> bool:
    """Whether so many elements are known to be too many for indices of 32 bits."""
    return isinstance(count, int) and count > NARROW
