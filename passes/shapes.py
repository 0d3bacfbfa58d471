# mypy: allow-untyped-defs, allow-incomplete-defs, no-warn-return-any
"""Simplifications of shapes: views, pieces, broadcasts, and reductions that meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tensorc.ir.dims import Size
from tensorc.ir.node import Node, make, rebuild
from tensorc.ops import (
    all,
    any,
    broadcast,
    concatenate,
    max,
    mean,
    min,
    pad,
    prod,
    reshape,
    reverse,
    slice,
    stop_gradient,
    sum,
    sum_to,
    transpose,
)
from tensorc.ops.reduce import count
from tensorc.passes.facts import fitted
from tensorc.passes.rewrite import No, Rewrite


class ReshapeSame(Rewrite):
    """reshape(x, its own shape) → x"""

    def pattern(self, x, shape):
        return reshape(x, shape=shape)

    def check(self, node, x):
        return node.shape == x.shape or No("the shape changes")

    def build(self, x):
        return x


class ReshapeReshape(Rewrite):
    """reshape(reshape x) → reshape x"""

    def pattern(self, x, shape):
        return reshape(reshape(x), shape=shape)

    def build(self, x, shape):
        return reshape(x, shape=shape)


class ReshapeReduced(Rewrite):
    """reshape(reduce(x, keepdims)) → reduce(x, not keepdims)  where that is all the reshape does"""

    def pattern(self, x):
        return reshape(x)

    def concerns(self, op, operands):
        return "keepdims" in operands[0].attrs

    def check(self, node, x):
        return _flipped(x).type == node.type or No("the reshape does more than to add or drop the reduced axes")

    def build(self, x):
        return _flipped(x)


class BroadcastSame(Rewrite):
    """broadcast(x, its own shape) → x"""

    def pattern(self, x, shape):
        return broadcast(x, shape=shape)

    def check(self, node, x):
        return node.shape == x.shape or No("the shape changes")

    def build(self, x):
        return x


class BroadcastBroadcast(Rewrite):
    """broadcast(broadcast x) → broadcast x"""

    def pattern(self, x, shape):
        return broadcast(broadcast(x), shape=shape)

    def build(self, x, shape):
        return broadcast(x, shape=shape)


class BroadcastReshape(Rewrite):
    """broadcast(reshape x) → broadcast x  where the reshape only adds leading ones"""

    def pattern(self, x, shape):
        return broadcast(reshape(x), shape=shape)

    def check(self, node):
        return _only_leads(node.x) or No("the reshape does more than to add leading ones")

    def build(self, x, shape):
        return broadcast(x, shape=shape)


class ReshapeSpread(Rewrite):
    """reshape(broadcast c) → broadcast c  for a single number c"""

    def pattern(self, x, shape):
        return reshape(broadcast(x), shape=shape)

    def check(self, x):
        return x.type.rank == 0 or No("x is more than a single number")

    def build(self, x, shape):
        return broadcast(x, shape=shape)


class ElementwiseOfBroadcast(Rewrite):
    """f(broadcast x, broadcast y) → broadcast f(x, y),  for an elementwise f: no element is computed twice"""

    def pattern(self, y):
        return y

    def concerns(self, op, operands):
        return op.scalar is not None and broadcast in operands

    def build(self, node):
        small = [a.x if a.op is broadcast else a for a in node.args]
        return fitted(rebuild(node, small), node)


class ElementwiseOfLeadingOnes(Rewrite):
    """f(reshape x, y) → f(x, y)  where the reshape only adds leading ones, for an elementwise f"""

    def pattern(self, y):
        return y

    def concerns(self, op, operands):
        return op.scalar is not None and reshape in operands

    def build(self, node):
        plain = [a.x if a.op is reshape and _only_leads(a) else a for a in node.args]
        new = rebuild(node, plain)
        return new if new.type == node.type else No("the ones give the result its rank")


class TransposeSame(Rewrite):
    """transpose(x, 0 1 2 …) → x"""

    def pattern(self, x, perm):
        return transpose(x, perm=perm)

    def check(self, perm):
        return tuple(perm) == tuple(range(len(perm))) or No("the axes change places")

    def build(self, x):
        return x


class TransposeTranspose(Rewrite):
    """transpose(transpose(x, p), q) → transpose(x, p∘q)"""

    def pattern(self, x, p, q):
        return transpose(transpose(x, perm=p), perm=q)

    def build(self, x, p, q):
        return transpose(x, perm=tuple(p[i] for i in q))


class TransposeOnes(Rewrite):
    """transpose x → reshape x  where only axes of size 1 change places"""

    def pattern(self, x, perm):
        return transpose(x, perm=perm)

    def check(self, x, perm):
        moved = [i for i in perm if x.shape[i] != 1]
        return moved == sorted(moved) or No("axes longer than 1 change places")

    def build(self, node, x):
        return reshape(x, shape=node.shape)


class ReverseReverse(Rewrite):
    """reverse(reverse(x, a), b) → reverse(x, a xor b)"""

    def pattern(self, x, a, b):
        return reverse(reverse(x, axes=a), axes=b)

    def build(self, x, a, b):
        axes = tuple(sorted(set(a) ^ set(b)))
        return reverse(x, axes=axes) if axes else x


class ReverseNothing(Rewrite):
    """reverse x → x  over axes of size 1"""

    def pattern(self, x, axes):
        return reverse(x, axes=axes)

    def check(self, x, axes):
        long = [a for a in axes if x.shape[a] != 1]
        return not long or No(f"axis {long[0] if long else None} is longer than 1")

    def build(self, x):
        return x


class SliceAll(Rewrite):
    """slice x → x  where it takes all"""

    def pattern(self, x, starts, limits, steps):
        return slice(x, starts=starts, limits=limits, steps=steps)

    def check(self, node, x, steps):
        if node.shape != x.shape:
            return No("elements are left out")
        return set(steps) <= {1} or No("the steps are not 1")

    def build(self, x):
        return x


class SliceSlice(Rewrite):
    """slice(slice(x, s₁, l₁), s₂, l₂, step) → slice(x, s₁ + s₂, s₁ + l₂, step)"""

    def pattern(self, x, starts, steps, from_, to, by):
        return slice(slice(x, starts=starts, steps=steps), starts=from_, limits=to, steps=by)

    def check(self, steps):
        return set(steps) <= {1} or No("the inner slice has steps")

    def build(self, x, starts, from_, to, by):
        return slice(x, starts=_added(starts, from_), limits=_added(starts, to), steps=by)


class SliceOfConcatenate(Rewrite):
    """slice(concatenate(…, x, …)) → slice x  where it stays within x"""

    def pattern(self, *xs, axis, starts, limits, steps):
        return slice(concatenate(*xs, axis=axis), starts=starts, limits=limits, steps=steps)

    def check(self, *xs, axis, starts, limits):
        return _piece(xs, axis, starts, limits) is not None or No("the slice does not stay within one operand")

    def build(self, *xs, axis, starts, limits, steps):
        piece = _piece(xs, axis, starts, limits)
        assert piece is not None
        x, offset = piece
        shift = tuple(-offset if i == axis else 0 for i in range(len(starts)))
        return slice(x, starts=_added(starts, shift), limits=_added(limits, shift), steps=steps)


class PadNothing(Rewrite):
    """pad(x, nothing) → x"""

    def pattern(self, x, low, high, interior):
        return pad(x, low=low, high=high, interior=interior)

    def check(self, low, high, interior):
        return {*low, *high, *interior} <= {0} or No("elements are added or cut off")

    def build(self, x):
        return x


class ConcatenateOne(Rewrite):
    """concatenate x → x"""

    def pattern(self, x):
        return concatenate(x)

    def build(self, x):
        return x


class ConcatenateNested(Rewrite):
    """concatenate(…, concatenate(x…), …) → concatenate(…, x…, …)  on the same axis"""

    def pattern(self, *xs, axis):
        return concatenate(*xs, axis=axis)

    def concerns(self, op, operands):
        return concatenate in operands

    def check(self, *xs, axis):
        return _flat(xs, axis) != xs or No("the inner one is on another axis")

    def build(self, *xs, axis):
        return concatenate(*_flat(xs, axis), axis=axis)


class ReduceNothing(Rewrite):
    """sum(x, axes of size 1) → reshape x,  and so for every reduction that gives one element back"""

    def pattern(self, x, axes):
        return tuple(reduce(x, axes=axes) for reduce in (sum, prod, max, min, any, all))

    def check(self, x, axes):
        return {x.shape[a] for a in axes} <= {1} or No("an axis is longer than 1")

    def build(self, node, x):
        return reshape(x, shape=node.shape)


class ReduceReduced(Rewrite):
    """sum(sum(x, a), b) → sum(x, a and b),  and so for prod, max, min, any, all"""

    def pattern(self, x, inner, outer):
        return tuple(reduce(reduce(x, axes=inner), axes=outer) for reduce in (sum, prod, max, min, any, all))

    def check(self, x, inner):
        return not _row_by_row(x, inner) or No("x is computed row by row, and its sum with it")

    def build(self, node, x, inner, outer):
        first = node.x
        left = [i for i in range(len(x.shape)) if first.keepdims or i not in inner]
        axes = tuple(sorted({*inner, *(left[i] for i in outer)}))
        keepdims = first.keepdims and node.keepdims
        return reshape(make(node.op, x, axes=axes, keepdims=keepdims), shape=node.shape)


class SumNeg(Rewrite):
    """sum(−x) → −sum x,  mean(−x) → −mean x"""

    def pattern(self, x):
        return sum(-x), mean(-x)

    def build(self, node, x):
        return -make(node.op, x, **node.attrs)


class SumBroadcast(Rewrite):
    """sum(broadcast x) → n · sum x  over the axes along which x is repeated n times"""

    def pattern(self, x, shape, axes):
        return sum(broadcast(x, shape=shape), axes=axes)

    def check(self, x, shape, axes):
        if x.dtype.is_half:
            return No(f"{x.dtype.name} may not hold how many there are")
        return bool(_repeated(x, shape, axes)) or No("x is not repeated along the axes of the sum")

    def build(self, node, x, shape, axes):
        times = count(node.x, tuple(_repeated(x, shape, axes)), x.dtype)
        return fitted(_reduced_once(node, x, shape, axes) * times, node)


class ExtremeBroadcast(Rewrite):
    """max(broadcast x) → max x,  min(broadcast x) → min x"""

    def pattern(self, x, shape, axes):
        return max(broadcast(x, shape=shape), axes=axes), min(broadcast(x, shape=shape), axes=axes)

    def check(self, x, shape, axes):
        repeated = _repeated(x, shape, axes)
        if not repeated:
            return No("x is not repeated along the axes of the reduction")
        some = [shape[a] for a in repeated if isinstance(shape[a], int) and shape[a] > 0]
        return len(some) == len(repeated) or No("there may be no element at all")

    def build(self, node, x, shape, axes):
        return fitted(_reduced_once(node, x, shape, axes), node)


class SumTo(Rewrite):
    """sum_to(g, like) → g where the shapes agree, else the sum over the axes along which `like` was repeated"""

    def pattern(self, g, like):
        return sum_to(g, like)

    def build(self, node):
        expanded = node.op.expand(node)
        return expanded if expanded is not node else No("which axes were broadcast is not known")


class StopGradient(Rewrite):
    """stop_gradient x → x:  gradients have been taken by now"""

    def pattern(self, x):
        return stop_gradient(x)

    def build(self, x):
        return x


def _row_by_row(x: Node, axes: tuple[int, ...]) -> bool:
    """Whether a reduction over the same axes is among what x is computed from element by element."""
    todo, seen = [x], 0
    while todo and seen < 30:
        node, seen = todo.pop(), seen + 1
        if node.attrs.get("axes") == axes and node.op.reduce:
            return True
        if node.op.scalar:
            todo.extend(node.args)
    return False


def _only_leads(view: Node) -> bool:
    """Whether a reshape only adds leading ones."""
    leading = len(view.shape) - len(view.x.shape)
    return leading >= 0 and view.shape == (1,) * leading + view.x.shape


def _flipped(reduction: Node) -> Node:
    """The same reduction with keepdims the other way."""
    return make(reduction.op, *reduction.args, **{**reduction.attrs, "keepdims": not reduction.keepdims})


def _added(a: Sequence[Size], b: Sequence[Size]) -> tuple[Size, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _flat(xs: tuple[Node, ...], axis: int) -> tuple[Node, ...]:
    """Operands of a concatenation with those of nested ones in their place."""
    return tuple(y for x in xs for y in (x.args if x.op is concatenate and x.axis == axis else (x,)))


def _piece(xs: tuple[Node, ...], axis: int, starts: Sequence[Size],
           limits: Sequence[Size]) -> tuple[Node, Size] | None:
    """(operand of a concatenation, its offset) that holds all from start to limit, or None."""
    offset: Size = 0
    for x in xs:
        before, after = starts[axis] - offset, offset + x.shape[axis] - limits[axis]
        if isinstance(before, int) and isinstance(after, int) and before >= 0 and after >= 0:
            return x, offset
        offset = offset + x.shape[axis]
    return None


def _repeated(x: Node, shape: Sequence[Size], axes: Iterable[int]) -> list[int]:
    """Those of `axes` along which broadcasting x to `shape` repeats it; none where that is not known of one."""
    leading = len(shape) - len(x.shape)
    if {n for n, m in zip(x.shape, shape[leading:], strict=True) if n != m} - {1}:
        return []
    return [a for a in axes if a < leading or x.shape[a - leading] != shape[a]]


def _reduced_once(node: Node, x: Node, shape: Sequence[Size], axes: Iterable[int]) -> Node:
    """The reduction `node` of x before it is broadcast: each element counts once."""
    leading = len(shape) - len(x.shape)
    inner = tuple(a - leading for a in axes if a >= leading)
    return make(node.op, x, axes=inner, keepdims=node.keepdims)


RULES = (
    StopGradient(), SumTo(),
    ReshapeSame(), ReshapeReshape(), ReshapeReduced(),
    BroadcastSame(), BroadcastBroadcast(), BroadcastReshape(), ReshapeSpread(), ElementwiseOfBroadcast(),
    ElementwiseOfLeadingOnes(),
    TransposeSame(), TransposeTranspose(), TransposeOnes(),
    ReverseReverse(), ReverseNothing(), SliceAll(), SliceSlice(), SliceOfConcatenate(),
    PadNothing(), ConcatenateOne(), ConcatenateNested(),
    ReduceNothing(), ReduceReduced(), SumNeg(), SumBroadcast(), ExtremeBroadcast(),
)
