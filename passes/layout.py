# mypy: allow-untyped-defs, allow-incomplete-defs, no-warn-return-any
"""Layout: transposes are read in place where that is possible, meet and cancel, or stay with a reason.

A product of matrices reads an operand either way; a reduction takes its axes from anywhere; elementwise operations,
pads, reshapes of neighbouring axes and concatenations let a transpose through, which pays where another takes it up: a
network of convolutions with channels first turns its input once, and its result.
"""

from __future__ import annotations

import builtins
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import Graph, users
from tensorc.ir.node import Node, make, rebuild
from tensorc.ops import (
    all,
    any,
    argmax,
    argmin,
    broadcast,
    concatenate,
    matmul,
    max,
    min,
    pad,
    prod,
    reshape,
    reverse,
    slice,
    sum,
    transpose,
)
from tensorc.ops.shape import inverse
from tensorc.passes import simplify
from tensorc.passes.context import Context
from tensorc.passes.driver import Table, sweep
from tensorc.passes.rewrite import No, Rewrite
from tensorc.passes.row_order import ProductOverTurnedRows, TransposeOfProducts

TYPICAL = 64                         # what a symbolic size is taken for when layouts are compared


class MatmulOfTransposeLeft(Rewrite):
    """matmul(aᵀ, b) → matmul(a, b) that reads a transposed

    Where other axes change places too, their transpose is left, and rows stay rows in it.
    """

    def pattern(self, a, b, perm, flip, other):
        return matmul(transpose(a, perm=perm), b, transpose_a=flip, transpose_b=other)

    def check(self, perm):
        return _turns_rows(perm) or No(f"{list(perm)} does not make columns of rows")

    def build(self, a, b, perm, flip, other):
        return matmul(_unturned(a, perm), b, transpose_a=not flip, transpose_b=other)


class MatmulOfTransposeRight(Rewrite):
    """matmul(a, bᵀ) → matmul(a, b) that reads b transposed,  as MatmulOfTransposeLeft"""

    def pattern(self, a, b, perm, flip, other):
        return matmul(a, transpose(b, perm=perm), transpose_a=other, transpose_b=flip)

    def check(self, perm):
        return _turns_rows(perm) or No(f"{list(perm)} does not make columns of rows")

    def build(self, a, b, perm, flip, other):
        return matmul(a, _unturned(b, perm), transpose_a=other, transpose_b=not flip)


class ReduceTranspose(Rewrite):
    """sum(transpose(x, p), axes) → transpose(sum(x, p[axes])),  and so for every reduction"""

    def pattern(self, x, perm, axes):
        return tuple(reduce(transpose(x, perm=perm), axes=axes) for reduce in (sum, prod, max, min, any, all))

    def build(self, node, x, perm, axes):
        moved = tuple(sorted(perm[a] for a in axes))
        reduced = make(node.op, x, axes=moved, keepdims=node.keepdims)
        return _transposed(reduced, perm if node.keepdims else _without(perm, moved))


class ArgOfTranspose(Rewrite):
    """argmax(transpose(x, p), axis) → transpose(argmax(x, p[axis]))"""

    def pattern(self, x, perm, axis):
        return argmax(transpose(x, perm=perm), axis=axis), argmin(transpose(x, perm=perm), axis=axis)

    def build(self, node, x, perm, axis):
        return _transposed(make(node.op, x, axis=perm[axis]), _without(perm, (perm[axis],)))


class SliceOfTranspose(Rewrite):
    """slice(transpose x) → transpose(slice x):  what is cut off need not be moved"""

    def pattern(self, x, perm, starts, limits, steps):
        return slice(transpose(x, perm=perm), starts=starts, limits=limits, steps=steps)

    def build(self, x, perm, starts, limits, steps):
        back = inverse(perm)
        cut = slice(x, starts=_permuted(starts, back), limits=_permuted(limits, back), steps=_permuted(steps, back))
        return transpose(cut, perm=perm)


class TransposeOfBroadcast(Rewrite):
    """transpose(broadcast x) → broadcast(transpose x):  what is repeated need not be moved"""

    def pattern(self, x, shape, perm):
        return transpose(broadcast(x, shape=shape), perm=perm)

    def build(self, node, x, perm):
        return broadcast(_transposed(_of_rank(x, len(perm)), perm), shape=node.shape)


class ConcatenateTransposes(Rewrite):
    """concatenate(transpose(x, p), transpose(y, p)) → transpose(concatenate(x, y), p)"""

    def pattern(self, *xs, axis):
        return concatenate(*xs, axis=axis)

    def concerns(self, op, operands):
        return set(operands) == {transpose}

    def check(self, *xs):
        return len({x.perm for x in xs}) == 1 or No("the operands are transposed differently")

    def build(self, *xs, axis):
        perm = xs[0].perm
        return transpose(concatenate(*(x.x for x in xs), axis=perm[axis]), perm=perm)


class TransposeOfRepeated(Rewrite):
    """transpose(reshape(broadcast x)) → reshape(broadcast(transpose x)):  what is repeated need not be moved"""

    def pattern(self, x, wide, shape, perm):
        return transpose(reshape(broadcast(x, shape=wide), shape=shape), perm=perm)

    def build(self, node, x, wide, shape, perm):
        turned = _before(wide, shape, perm)
        if turned is None:
            return No("the reshape joins or splits axes that the transpose parts")
        repeated = broadcast(_transposed(_of_rank(x, len(wide)), turned), shape=_permuted(wide, turned))
        return reshape(repeated, shape=node.shape)


class SinkThroughPad(Rewrite):
    """pad(transpose x) → transpose(pad x)"""

    def pattern(self, x, perm, low, high, interior):
        return pad(transpose(x, perm=perm), low=low, high=high, interior=interior)

    def build(self, x, perm, low, high, interior):
        back = inverse(perm)
        padded = pad(x, low=_permuted(low, back), high=_permuted(high, back), interior=_permuted(interior, back))
        return transpose(padded, perm=perm)


class SinkThroughReverse(Rewrite):
    """reverse(transpose(x, p), axes) → transpose(reverse(x, p[axes]), p)"""

    def pattern(self, x, perm, axes):
        return reverse(transpose(x, perm=perm), axes=axes)

    def build(self, x, perm, axes):
        return transpose(reverse(x, axes=tuple(sorted(perm[a] for a in axes))), perm=perm)


class SinkThroughReshape(Rewrite):
    """reshape(transpose x) → transpose(reshape x)  where it splits or joins axes that are neighbours in x, too"""

    def pattern(self, x, perm, shape):
        return reshape(transpose(x, perm=perm), shape=shape)

    def build(self, node, x, perm, shape):
        turned = _before(shape, node.x.shape, inverse(perm))
        if turned is None:
            return No("it joins or splits axes that are no neighbours in x")
        return _transposed(reshape(x, shape=_permuted(shape, turned)), inverse(turned))


class SinkThroughRepeat(Rewrite):
    """reshape(broadcast(transpose x)) → transpose(reshape(broadcast x)),  as SinkThroughReshape"""

    def pattern(self, x, perm, wide, shape):
        return reshape(broadcast(transpose(x, perm=perm), shape=wide), shape=shape)

    def check(self, perm, wide):
        return len(perm) == len(wide) or No("the broadcast adds axes")

    def build(self, x, perm, wide, shape):
        back = inverse(perm)
        turned = _before(shape, wide, back)
        if turned is None:
            return No("it joins or splits axes that are no neighbours in x")
        repeated = broadcast(x, shape=_permuted(wide, back))
        return _transposed(reshape(repeated, shape=_permuted(shape, turned)), inverse(turned))


class SinkTranspose(Rewrite):
    """f(transpose(x, p), transpose(y, p)) → transpose(f(x, y), p),  for an elementwise f

    An operand may be there whose transposition is a mere view, or a parameter that is there transposed anyway; when
    trading, others too that are smaller than those that need no transposing then.

    Args:
        turned: transposes that are in the graph already.
    """

    def __init__(self, turned: Collection[Node] = (), trading: bool = False) -> None:
        super().__init__()
        self.turned = turned
        self.trading = trading

    def pattern(self, x):
        return x

    def concerns(self, op, operands):
        return op.scalar is not None and transpose in operands

    def check(self, node):
        perms = {a.perm for a in node.args if a.op is transpose}
        if len(perms) != 1:
            return No("the operands are transposed differently")
        perm = next(iter(perms))
        if len(perm) != len(node.shape):
            return No("the operands differ in rank")
        back = inverse(perm)
        others = [_of_rank(a, len(perm)) for a in node.args if a.op is not transpose]
        fixed = [a for a in others if not _view(a, back)]
        if not fixed:
            return True
        price = builtins.sum(_bytes(a) for a in fixed if a.args or transpose(a, perm=back) not in self.turned)
        gain = builtins.sum(_bytes(a) for a in node.args if a.op is transpose and a.x.args)
        return price < gain and (self.trading or not price) or No(
            f"an operand {fixed[0].op.name} would have to be transposed instead")

    def build(self, node):
        perm = next(a.perm for a in node.args if a.op is transpose)
        back = inverse(perm)
        operands = [a.x if a.op is transpose else _transposed(_of_rank(a, len(perm)), back) for a in node.args]
        return transpose(rebuild(node, operands), perm=perm)


class TransposeOfMatmul(Rewrite):
    """matmul(a, b)ᵀ → matmul(bᵀ, aᵀ) that reads both transposed,  for products that nothing else uses"""

    def __init__(self, alone: Collection[Node]) -> None:
        super().__init__()
        self.alone = alone

    def pattern(self, a, b, ta, tb, perm):
        return transpose(matmul(a, b, transpose_a=ta, transpose_b=tb), perm=perm)

    def check(self, node, perm):
        if not _swaps_last(perm):
            return No(f"{list(perm)} is not a swap of the last two axes")
        return node.x in self.alone or No("the product is used as it is, too")

    def build(self, a, b, ta, tb):
        return matmul(b, a, transpose_a=not tb, transpose_b=not ta)


ABSORB = (
    MatmulOfTransposeLeft(), MatmulOfTransposeRight(), ReduceTranspose(), ArgOfTranspose(),
    SliceOfTranspose(), TransposeOfBroadcast(), ConcatenateTransposes(),
)
SINK = (SinkThroughPad(), SinkThroughReverse(), SinkThroughReshape(), SinkThroughRepeat())

RULES = (*ABSORB, TransposeOfRepeated(), TransposeOfMatmul(()), TransposeOfProducts(), ProductOverTurnedRows(), *SINK,
         SinkTranspose())
_ABSORBING = Table((*ABSORB, TransposeOfRepeated(), *simplify.RULES))


def assign(graph: Graph, context: Context) -> Graph:
    """The graph with as few bytes moved by transposes as the rules find; a reason is noted for each that stays."""
    if not moved(graph):
        return graph
    graph = sweep(graph, _ABSORBING, context)
    alone = _alone(graph)
    graph = sweep(graph, (TransposeOfMatmul(alone), ProductOverTurnedRows(alone), *ABSORB, *simplify.RULES), context)
    graph = sweep(graph, (TransposeOfProducts(_alone(graph)), *ABSORB, *simplify.RULES), context)
    turned = {node for node in graph.nodes if node.op is transpose}
    for trading in (False, True) if turned else ():
        attempt = context.attempt()
        sunk = sweep(graph, (*ABSORB, *SINK, SinkTranspose(turned, trading), *simplify.RULES), attempt)
        sunk = sweep(sunk, _ABSORBING, attempt)
        if _cost(sunk) < _cost(graph):
            graph = sunk
            context.accept(attempt)
    using = users(graph.roots)
    for node in graph.nodes:
        if node.op is transpose:
            context.notes[node] = _reason(node, using, graph)
    return graph


def _alone(graph: Graph) -> set[Node]:
    """Nodes with one user that are no result."""
    return {node for node, using in users(graph.roots).items() if len(using) == 1} - set(graph.roots)


def moved(graph: Graph) -> int:
    """How many bytes the transposes of a graph move, symbols taken to be TYPICAL."""
    return builtins.sum(_bytes(node) for node in graph.nodes if node.op is transpose)


def _cost(graph: Graph) -> tuple[int, int]:
    """What is moved, and how many products cannot have what follows them as an epilogue, a transpose being between."""
    parted = [node for node in graph.nodes if node.op is transpose and node.x.op.kernel is not None]
    return moved(graph), len(parted)


def _reason(node: Node, using: Mapping[Node, list[Node]], graph: Graph) -> str:
    takers = sorted({user.op.name for user in using[node]})
    if node in graph.roots:
        takers.append("the caller")
    wanted = f"{' and '.join(takers)} want{'s' if len(takers) == 1 else ''}"
    source = node.x.name if node.x.op.name == "parameter" else node.x.op.name
    return f"stays, as {wanted} the axes of {source} as {list(node.perm)}"


def _bytes(node: Node) -> int:
    size = node.type.bytes
    return dims.evaluate(size, dict.fromkeys(dims.symbols(size), TYPICAL))


def _swaps_last(perm: Sequence[int]) -> bool:
    n = len(perm)
    return n >= 2 and tuple(perm) == (*range(n - 2), n - 1, n - 2)


def _turns_rows(perm: Sequence[int]) -> bool:
    """Whether the last axis becomes the last but one, so that a matrix read transposed would have its rows."""
    return len(perm) >= 2 and perm[-2] == len(perm) - 1


def _unturned(x: Node, perm: Sequence[int]) -> Node:
    """x transposed by the rest of a permutation that turns rows."""
    return _transposed(x, (*perm[:-2], perm[-1], perm[-2]))


def _before(wide: Sequence[Size], shape: Sequence[Size], perm: Sequence[int]) -> tuple[int, ...] | None:
    """The permutation q for which transpose(reshape(x, shape), perm) is a reshape of transpose(x, q), x being `wide`.

    None where the reshape splits or joins axes that `perm` does not keep side by side.
    """
    most = builtins.min(len(wide), len(shape))
    first = next((i for i in range(most) if wide[i] != shape[i]), most)
    last = next((i for i in range(most - first) if wide[-1 - i] != shape[-1 - i]), most - first)
    joined = list(range(first, len(shape) - last))
    parts = range(first, len(wide) - last)
    longer = len(wide) - len(shape)
    place = perm.index(first) if joined else perm.index(first - 1) + 1 if first else 0
    if list(perm[place:place + len(joined)]) != joined:
        return None
    others = [[axis if axis < first else axis + longer for axis in part]
              for part in (perm[:place], perm[place + len(joined):])]
    return (*others[0], *parts, *others[1])


def _permuted(values: Sequence[Any], perm: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[i] for i in perm)


def _without(perm: Sequence[int], gone: Sequence[int]) -> tuple[int, ...]:
    """The permutation of the axes that are left when input axes `gone` are."""
    left = [p for p in perm if p not in gone]
    return tuple(sorted(left).index(p) for p in left)


def _transposed(x: Node, perm: Sequence[int]) -> Node:
    """transpose(x, perm), or x where nothing changes places."""
    return x if tuple(perm) == tuple(range(len(perm))) else transpose(x, perm=tuple(perm))


def _of_rank(x: Node, rank: int) -> Node:
    """x with leading axes of size 1 up to a rank."""
    missing = rank - len(x.shape)
    return reshape(x, shape=(1,) * missing + x.shape) if missing else x


def _view(x: Node, perm: Sequence[int]) -> bool:
    """Whether transposing x moves only axes of size 1."""
    long = [i for i in perm if x.shape[i] != 1]
    return long == sorted(long)
