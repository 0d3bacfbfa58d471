"""A convolution as plain loops: what its generators must agree with, and how it runs where none of them takes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tensorc.codegen import loopir as ir
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.types import boolean, i64
from tensorc.ops.windows import span, stays_inside

Loop = tuple[str, Size]
Test = tuple[str, Size, Size]


def conv_loops(conv: ir.Conv) -> ir.Kernel:
    """The result of a convolution, without its epilogue, as a plain kernel; floats of 16 bits are summed in float32.

    An iteration of the grid is one element of the result.  What lies outside adds nothing.
    """
    loops = _Loops(conv)
    match conv.kind:
        case "forward":
            grid = (*loops.batch, *loops.y, *loops.group, *loops.given)
            return _summed(conv, loops, grid, loops.w, loops.taken)
        case "input_gradient":
            grid = (*loops.batch, *loops.x, *loops.group, *loops.taken)
            return _summed(conv, loops, grid, loops.w, loops.given)
        case "weight_gradient":
            grid = (*loops.w, *loops.taken, *loops.group, *loops.given)
            return _summed(conv, loops, grid, (*loops.batch, *loops.y), ())


class _Loops:
    """The loops that lead through the three tensors.

    Attributes:
        batch, x, w, y: over the batch and the spatial axes of each tensor.
        group, taken, given: over groups of channels, and over those of x and of y within one.
    """

    def __init__(self, conv: ir.Conv) -> None:
        self.used = {*conv.sizes, *(b.name for b in conv.buffers)}
        self.of_group = dims.floordiv(conv.w.shape[-1], conv.groups)
        self.batch = self.over("b", conv.x.shape[:1])
        self.x = self.over("s", conv.x.shape[1:-1])
        self.w = self.over("q", conv.w.shape[:-2])
        self.y = self.over("p", conv.y.shape[1:-1])
        self.group = self.over("g", (conv.groups,))
        self.taken = self.over("c", conv.w.shape[-2:-1])
        self.given = self.over("o", (self.of_group,))

    def over(self, stem: str, extents: Sequence[Size]) -> tuple[Loop, ...]:
        """A loop for each extent, under a name of its own."""
        names = (self.name(stem if len(extents) == 1 else f"{stem}{k}") for k in range(len(extents)))
        return tuple(zip(names, extents, strict=True))

    def name(self, wish: str) -> str:
        while wish in self.used:
            wish += "_"
        self.used.add(wish)
        return wish


def _summed(conv: ir.Conv, loops: _Loops, grid: Sequence[Loop], outer: Sequence[Loop],
            inner: Sequence[Loop]) -> ir.Kernel:
    """The kernel that sums x · w, x · y or y · w over the loops that `outer` and `inner` name; tests stand between."""
    dtype = conv.result.dtype.wide
    total, inside = loops.name("total"), loops.name("inside")
    tests = list(_reads_y(conv, loops) if conv.kind == "input_gradient" else _reads_x(conv, loops))
    places = _places(conv, loops)

    def operand(buffer: ir.Buffer, where: ir.Expr | None) -> ir.Expr:
        load = ir.Load(buffer.name, places[buffer.name], buffer.dtype, where)
        return load if buffer.dtype is dtype else ir.Cast(load, dtype)

    first, second, result = conv.buffers[:3]
    holds = ir.Var(inside, boolean) if tests else None
    product = ir.Call("mul", (operand(first, holds), operand(second, holds)), dtype)
    body: ir.Body = _nest(inner, (ir.Accum(total, (product,)),))
    if tests:
        body = (ir.Let(inside, _all_hold(tests)), *body)
    value: ir.Expr = ir.Var(total, dtype)
    if result.dtype is not dtype:
        value = ir.Cast(value, result.dtype)

    summing = _nest(outer, body)
    if summing == body:                          # an accumulator is read after a loop that feeds it
        summing = (ir.For(loops.name("once"), 1, body),)
    body = (ir.Acc(total, "add", dtype), *summing, ir.Store(result.name, places[result.name], value))
    return ir.Kernel(conv.name, conv.sizes, conv.buffers, tuple(loop for loop in grid if loop[1] != 1), body)


def _nest(loops: Sequence[Loop], body: ir.Body) -> ir.Body:
    """The body inside loops, outermost first; those that run once are left out."""
    for var, extent in reversed(loops):
        if extent != 1:
            body = (ir.For(var, extent, body),)
    return body


def _at(loops: Sequence[Loop]) -> tuple[Size, ...]:
    """Where the loops are."""
    return tuple(0 if extent == 1 else dims.symbol(var) for var, extent in loops)


def _places(conv: ir.Conv, loops: _Loops) -> dict[str, ir.Index]:
    """For each of the three buffers the element that belongs to an iteration of the loops."""
    (batch,), (group,), (taken,), (given,) = map(_at, (loops.batch, loops.group, loops.taken, loops.given))
    geometry = list(zip(conv.strides, conv.dilations, conv.low, _at(loops.w), strict=True))
    if conv.kind == "input_gradient":
        x = _at(loops.x)
        y = tuple(dims.floordiv(s + low - q * dilation, stride)
                  for s, (stride, dilation, low, q) in zip(x, geometry, strict=True))
    else:
        y = _at(loops.y)
        x = tuple(p * stride + q * dilation - low for p, (stride, dilation, low, q) in zip(y, geometry, strict=True))

    channel = group * loops.of_group + given
    return {
        conv.x.name: (batch, *x, group * conv.w.shape[-2] + taken),
        conv.w.name: (*_at(loops.w), taken, channel),
        conv.y.name: (batch, *y, channel),
    }


def _reads_x(conv: ir.Conv, loops: _Loops) -> Iterator[Test]:
    """The tests that a place of a window lies inside x, where it is not known to."""
    places = _places(conv, loops)[conv.x.name][1:-1]
    for axis, (place, n) in enumerate(zip(places, conv.x.shape[1:-1], strict=True)):
        stride, low, count = conv.strides[axis], conv.low[axis], conv.y.shape[axis + 1]
        reach = span(conv.w.shape[axis], conv.dilations[axis])
        if not stays_inside(n, reach, stride, low, count):
            yield "ge", place, 0
            yield "lt", place, n


def _reads_y(conv: ir.Conv, loops: _Loops) -> Iterator[Test]:
    """The tests that a window of y reads a place of x with an element of the kernel."""
    geometry = zip(conv.strides, conv.dilations, conv.low, conv.y.shape[1:-1], strict=True)
    for s, q, (stride, dilation, low, count) in zip(_at(loops.x), _at(loops.w), geometry, strict=True):
        place = s + low - q * dilation
        yield "ge", place, 0
        yield "lt", place, count * stride
        if stride > 1:
            yield "eq", dims.mod(place, stride), 0


def _all_hold(tests: Sequence[Test]) -> ir.Expr:
    """Whether all the tests hold."""
    def number(size: Size) -> ir.Expr:
        return ir.Num(size, i64) if isinstance(size, int) else ir.Iter(size, i64)

    each = [ir.Call(fn, (number(a), number(b)), boolean) for fn, a, b in tests]
    together: ir.Expr = each[0]
    for one in each[1:]:
        together = ir.Call("and", (together, one), boolean)
    return together
