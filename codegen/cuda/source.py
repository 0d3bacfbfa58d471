"""The text of one GPU kernel, and how it is launched."""

from __future__ import annotations

from dataclasses import dataclass

from tensorc.ir.dims import Size
from tensorc.ir.types import DType


@dataclass(frozen=True)
class Source:
    """A kernel as Python text for Numba-CUDA: a function of pointers to its buffers, then of its sizes.

    Attributes:
        text: the function.  It names the intrinsics, `cuda`, `libdevice`, dtypes, and `I`, the type of indices.
        buffers, dtypes, counts: names, element types and numbers of elements of what the pointers point at.
        sizes: the size symbols that follow them, of type `I`.
        blocks: how many blocks are launched; where that is 0 there is nothing to do.
        threads: how many threads a block has.
        schedule: how work is spread over them, in words.
        wide: whether indices have 64 bits.
    """

    name: str
    text: str
    buffers: tuple[str, ...]
    dtypes: tuple[DType, ...]
    counts: tuple[Size, ...]
    sizes: tuple[str, ...]
    blocks: Size
    threads: int
    schedule: str
    wide: bool = False

    def __str__(self) -> str:
        return f"# {self.schedule}: {self.blocks} blocks of {self.threads} threads\n{self.text}"
