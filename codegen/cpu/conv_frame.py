"""What the kernels of all convolutions have in common: their sizes and buffers, and how they tell units and work."""

from __future__ import annotations

from collections.abc import Sequence

from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.cpu.matmul_tiles import call
from tensorc.codegen.cpu.sizes import SizeArithmetic
from tensorc.codegen.loopir import Conv
from tensorc.ir.dims import Size


class Kernel(Function):
    """A function of a convolution while it is being written; it finds sizes in %sizes and buffers in %bufs."""

    def __init__(self, conv: Conv, head: str) -> None:
        super().__init__(head)
        self.conv = conv
        symbols = {name: self.load("i64", self.at("%sizes", q, "i64"), 8) for q, name in enumerate(conv.sizes)}
        self._arithmetic = SizeArithmetic(lambda text: self.line(text.strip()), symbols)

    def value(self, size: Size) -> Int:
        """A size; to be asked for where the code that uses it cannot be skipped."""
        return size if isinstance(size, int) else self._arithmetic.value(size)

    def buffer(self, index: int) -> str:
        return self.load("ptr", self.at("%bufs", index, "ptr"), 8)

    def epilogue(self, at: Sequence[Int], rows: tuple[Int, Int], columns: tuple[Int, Int]) -> None:
        """Has the epilogue, if there is one, run over rows and columns of the result at these other indices."""
        if self.conv.epilogue is None:
            return
        given: list[tuple[str, Int]] = [("ptr", "%bufs"), ("ptr", "%sizes")]
        given += [("i64", x) for x in (*at, *rows, *columns)]
        call(self, f"{self.conv.epilogue.name}_box", *given)

    def steps(self, sizes: tuple[Int, ...], channels: int) -> tuple[Int, Int, Int]:
        """Elements from plane to plane, from row to row and from pixel to pixel of images of these sizes."""
        row = self.mul(sizes[2], channels)
        return self.mul(row, sizes[1]), row, channels

    def split(self, index: Int, *counts: Int) -> list[Int]:
        """The indices that `index` stands for, last one fastest; the first has no bound."""
        found: list[Int] = []
        for count in reversed(counts):
            if count == 1:
                found.insert(0, 0)
                continue
            above = self.div(index, count)
            found.insert(0, self.sub(index, self.mul(above, count)))
            index = above
        return [index, *found]

    def part(self, index: Int, parts: Int, size: Int) -> tuple[Int, Int]:
        """Where part number `index` of so many equal parts begins and ends."""
        return self.div(self.mul(size, index), parts), self.div(self.mul(size, self.add(index, 1)), parts)


def body_head(name: str) -> str:
    return f"define void @{name}(i64 %lo, i64 %hi, ptr %bufs, ptr %sizes)"


def about_head(name: str, what: str) -> str:
    """The head of a function that tells about a kernel; the program's only call of it takes it in."""
    return f"define internal i64 @{name}_{what}(ptr %sizes) alwaysinline"


def channels_of(conv: Conv) -> tuple[int, int]:
    """Channels of one group of x and of y."""
    taken, given = conv.w.shape[-2:]
    assert isinstance(taken, int)
    assert isinstance(given, int)
    return taken, given // conv.groups
