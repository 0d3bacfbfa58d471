"""Which elements meet in a convolution, one axis at a time.

A forward convolution and an input gradient are the same thing once the results are sorted into classes: along one axis
those of a class stand at

    result_step · t + phase        and read        source_step · t + base + tap_step · j,    j = 0 … count − 1

where tap j is the kernel's number  first + stride · j.  A forward convolution has one class; an input gradient has as
many as its stride, because results whose places leave different remainders meet different numbers of the kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tensorc.codegen.cpu.function import Function, Int
from tensorc.codegen.loopir import Conv
from tensorc.ir import dims
from tensorc.ir.dims import Size


@dataclass(frozen=True)
class Taps:
    """What the results of one class read along one axis, in the order in which it is stored.

    Attributes:
        count: how many numbers of the kernel they meet.
        first, stride: which ones: first, first + stride, …; the stride may be negative.
        phase: the place of the first result.
        base: the place that its first tap reads, which may lie outside.
    """

    count: int
    first: int
    stride: int
    phase: Size
    base: Size


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution that gathers.

    Attributes:
        source, result: how many places there are.
        source_step, result_step, tap_step: as in the formulas above.
        kernel: size of the kernel.
    """

    source: Size
    result: Size
    source_step: int
    result_step: int
    tap_step: int
    kernel: int
    classes: tuple[Taps, ...]

    @property
    def inside(self) -> bool:
        """Whether no result reads anything outside, for sure."""
        return all(self._is_inside(taps) for taps in self.classes)

    @property
    def is_single(self) -> bool:
        """Whether each result reads one place, for sure."""
        return self.inside and all(taps.count == 1 for taps in self.classes)

    def _is_inside(self, taps: Taps) -> bool:
        if taps.count == 0:
            return True
        last = dims.floordiv(self.result - 1 - taps.phase, self.result_step)
        left = self.source - 1 - (self.source_step * last + taps.base + self.tap_step * (taps.count - 1))
        return isinstance(taps.base, int) and taps.base >= 0 and isinstance(left, int) and left >= 0


ONE = Axis(1, 1, 1, 1, 1, 1, (Taps(1, 0, 1, 0, 0),))
"""The axis that is not there."""


def axes_of(conv: Conv) -> tuple[Axis, Axis, Axis]:
    """The axes of a forward convolution or an input gradient, missing ones before the others."""
    spatial = [_axis(conv, a) for a in range(len(conv.strides))]
    z, y, x = [ONE] * (3 - len(spatial)) + spatial
    return z, y, x


def _axis(conv: Conv, a: int) -> Axis:
    inner, outer = conv.x.shape[1 + a], conv.y.shape[1 + a]
    kernel = conv.w.shape[a]
    assert isinstance(kernel, int)
    stride, dilation, low = conv.strides[a], conv.dilations[a], conv.low[a]

    if conv.kind == "forward":
        taps = Taps(kernel, 0, 1, 0, -low)
        return Axis(inner, outer, stride, 1, dilation, kernel, (taps,))

    common = math.gcd(stride, dilation)
    classes = tuple(_class(r, kernel, stride, dilation, low) for r in range(stride))
    return Axis(outer, inner, 1, stride, dilation // common, kernel, classes)


def _class(remainder: int, kernel: int, stride: int, dilation: int, low: Size) -> Taps:
    """Results x whose x + low leaves `remainder`: number k of the kernel meets y at (x + low − k·dilation) / stride."""
    every = stride // math.gcd(stride, dilation)
    meets = [k for k in range(min(every, kernel)) if (k * dilation - remainder) % stride == 0]
    phase, moved = dims.mod(remainder - low, stride), dims.floordiv(remainder - low, stride)
    if not meets:
        return Taps(0, 0, 1, phase, 0)
    numbers = range(meets[0], kernel, every)
    base = (remainder - numbers[-1] * dilation) // stride - moved
    return Taps(len(numbers), numbers[-1], -every, phase, base)


# -- ranges, at run time


def results_between(f: Function, axis: Axis, phase: Int, start: Int, stop: Int) -> tuple[Int, Int]:
    """The first t of a class whose result is at `start` or after it, and likewise for `stop`."""
    def first(place: Int) -> Int:
        return f.ceildiv(f.maximum(f.sub(place, phase), 0), axis.result_step)

    return first(start), first(stop)


def taps_inside(f: Function, axis: Axis, taps: Taps, base: Int, t: Int, source: Int) -> tuple[Int, Int]:
    """(first, count) of the taps of result t that read inside."""
    if axis.inside or taps.count == 0:
        return 0, taps.count
    place = f.add(f.mul(t, axis.source_step), base)
    first = f.ceildiv(f.maximum(f.sub(0, place), 0), axis.tap_step)
    after = f.ceildiv(f.maximum(f.sub(source, place), 0), axis.tap_step)
    return first, f.maximum(f.sub(f.minimum(after, taps.count), first), 0)


def body(f: Function, axis: Axis, taps: Taps, base: Int, start: Int, stop: Int, source: Int) -> tuple[Int, Int]:
    """The part of start … stop − 1 where all taps read inside; where there is none, an empty one at either end."""
    if axis.inside or taps.count == 0:
        return start, stop
    reach = axis.tap_step * (taps.count - 1)
    first = f.ceildiv(f.maximum(f.sub(0, base), 0), axis.source_step)
    room = f.sub(f.sub(source, reach), base)
    after = f.div(f.maximum(f.add(room, axis.source_step - 1), 0), axis.source_step)
    low = f.minimum(f.maximum(first, start), stop)
    return low, f.maximum(f.minimum(after, stop), low)
