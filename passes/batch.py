"""One operation for all steps of a loop at once: the operation on operands with a further first axis of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorc.ir.dims import Size
from tensorc.ir.graph import postorder
from tensorc.ir.node import Node, make, rebuild
from tensorc.ops import broadcast, gather, matmul, reshape

ELEMENTWISE = frozenset("clip log_sigmoid relu sigmoid_cross_entropy stop_gradient".split())
"""Operations that are elementwise without being scalar functions of the loop language."""

ALONG_AXES = frozenset("all any max mean min prod sum variance logsumexp".split())
ALONG_AXIS = frozenset("argmax argmin concatenate cumprod cumsum log_softmax softmax".split())


@dataclass(frozen=True)
class Lifted:
    """A value outside a loop: the same in all steps, or with a first axis of steps."""

    node: Node
    by_row: bool


def lift(node: Node, operands: Sequence[Lifted], length: Size) -> Lifted | None:
    """What a node of a loop's body is for all steps at once, on what its operands are; None where that is not known."""
    if not any(x.by_row for x in operands):
        return Lifted(rebuild(node, [x.node for x in operands]), by_row=False)
    return _by_rows(node, operands, length)


def all_steps(value: Lifted, shape: Sequence[Size], length: Size) -> Node:
    """A value of that shape in each step, with its axis of steps."""
    if value.by_row:
        return value.node
    node: Node = broadcast(reshape(value.node, shape=(1, *shape)), shape=(length, *shape))
    return node


def _by_rows(node: Node, operands: Sequence[Lifted], length: Size) -> Lifted | None:
    name = node.op.name
    if node.op.scalar or name in ELEMENTWISE:
        aligned = [_aligned(x, a, node.type.rank) for x, a in zip(operands, node.args, strict=True)]
        return Lifted(make(node.op, *aligned, **node.attrs), by_row=True)
    if name in RULES:
        made = RULES[name](node, operands, length)
        return None if made is None else Lifted(made, by_row=True)
    if name in ALONG_AXES:
        axes = tuple(a + 1 for a in node.axes)
        return Lifted(make(node.op, operands[0].node, **{**node.attrs, "axes": axes}), by_row=True)
    if name in ALONG_AXIS:
        rows = [all_steps(x, a.shape, length) for x, a in zip(operands, node.args, strict=True)]
        return Lifted(make(node.op, *rows, **{**node.attrs, "axis": node.axis + 1}), by_row=True)
    return _by_definition(node, operands, length)


def _by_definition(node: Node, operands: Sequence[Lifted], length: Size) -> Lifted | None:
    """By the operations that this one is made of."""
    if node.op.expand is None or (whole := node.op.expand(node)) is node:
        return None
    done: dict[Node, Lifted] = dict(zip(node.args, operands, strict=True))
    for part in postorder([whole], node.args):
        made = lift(part, [done[a] for a in part.args], length)
        if made is None:
            return None
        done[part] = made
    return done[whole]


def _aligned(x: Lifted, inner: Node, rank: int) -> Node:
    """An operand whose first axis, if it is one of steps, is that of a result of `rank` axes and steps."""
    if not x.by_row or inner.type.rank == rank:
        return x.node
    steps, *rest = x.node.shape
    node: Node = reshape(x.node, shape=(steps, *(1,) * (rank - len(rest)), *rest))
    return node


def _matmul(node: Node, operands: Sequence[Lifted], length: Size) -> Node:
    """One product of all rows where the right operand is the same in all steps, else one product a step."""
    (left, right), (a, b) = operands, node.args
    if left.by_row and not right.by_row and a.type.rank == b.type.rank == 2 and not node.transpose_a:
        m, k = a.shape
        flat = matmul(reshape(left.node, shape=(length * m, k)), right.node, **node.attrs)
        product: Node = reshape(flat, shape=(length, *node.shape))
        return product
    rank = node.type.rank
    return make(node.op, _aligned(left, a, rank), _aligned(right, b, rank), **node.attrs)


def _reshape(node: Node, operands: Sequence[Lifted], length: Size) -> Node:
    made: Node = reshape(operands[0].node, shape=(length, *node.shape))
    return made


def _broadcast(node: Node, operands: Sequence[Lifted], length: Size) -> Node:
    made: Node = broadcast(_aligned(operands[0], node.args[0], node.type.rank), shape=(length, *node.shape))
    return made


def _transpose(node: Node, operands: Sequence[Lifted], length: Size) -> Node:
    return make(node.op, operands[0].node, perm=(0, *(p + 1 for p in node.perm)))


def _slice(node: Node, operands: Sequence[Lifted], length: Size) -> Node:
    return make(node.op, operands[0].node, starts=(0, *node.starts), limits=(length, *node.limits),
                steps=(1, *node.steps))


def _reverse(node: Node, operands: Sequence[Lifted], length: Size) -> Node:
    return make(node.op, operands[0].node, axes=tuple(a + 1 for a in node.axes))


def _pad(node: Node, operands: Sequence[Lifted], length: Size) -> Node | None:
    if any(x.by_row for x in operands[1:]):
        return None
    more = {name: (0, *node.attrs[name]) for name in ("low", "high", "interior")}
    return make(node.op, *(x.node for x in operands), **{**node.attrs, **more})


def _gather(node: Node, operands: Sequence[Lifted], length: Size) -> Node | None:
    table, places = operands
    if table.by_row or node.axis != 0:
        return None
    made: Node = gather(table.node, places.node, axis=0)
    return made


RULES: Mapping[str, Callable[[Node, Sequence[Lifted], Size], Node | None]] = {
    "matmul": _matmul, "reshape": _reshape, "broadcast": _broadcast, "transpose": _transpose, "slice": _slice,
    "reverse": _reverse, "pad": _pad, "gather": _gather,
}
