"""Differentiation: graph to graph, in reverse, once through the nodes between results and what they depend on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext

from tensorc.autodiff_loops import joint_gradients
from tensorc.errors import DTypeError, InternalError, ShapeError
from tensorc.ir.graph import postorder
from tensorc.ir.node import JointGradient, Node, NoGradient, constant, watching
from tensorc.ops import broadcast, sum_to
from tensorc.ops.infer import agree, show_shape
from tensorc.ops.scan import group_of

Note = Callable[[Node, Node], None]


def gradients(outputs: Sequence[Node], seeds: Sequence[Node] | None, wrt: Sequence[Node],
              note: Note | None = None) -> list[Node | None]:
    """The gradients of the sum over all elements of the outputs, each weighted by its seed.

    Args:
        outputs: nodes of any shape; one that is no float contributes nothing.
        seeds: weights for each output, of its type; ones if None.
        wrt: any nodes, intermediate ones too: a node among them that another depends through is no obstacle.
        note: hears (new node, node whose differentiation asked for it); of the nodes given, it hears nothing.

    Returns: for each of `wrt` a node of its type, or None where no differentiable path leads to it (see `cuts`).
    Raises: ShapeError or DTypeError for a seed that does not fit its output.
    """
    order = postorder(outputs)
    given = set(order)
    carrying = _carrying(order, set(wrt))
    parts: dict[Node, Node] = {}
    for i, output in enumerate(outputs):
        if output in carrying:
            with _noting(note, output, given):
                _accumulate(parts, output, _ones(output) if seeds is None else _fitting_seed(seeds[i], output))

    for node, members in _joined(order):
        found = {member: parts[member] for member in members if member in parts}
        if not found or isinstance(node.op.gradient, NoGradient) or carrying.isdisjoint(node.args):
            continue
        with _noting(note, node, given):
            for operand, part in zip(node.args, _operand_gradients(node, found, carrying, note), strict=True):
                if part is not None and operand in carrying:
                    _accumulate(parts, operand, _summed_back(part, operand))
    return [parts.get(w) for w in wrt]


def cuts(output: Node, wrt: Node) -> list[tuple[Node, str]]:
    """The nodes at which the paths from an output to what it depends on stop being differentiable, and why.

    Nothing where the output does not depend on `wrt` at all.
    """
    depending: set[Node] = set()
    for node in postorder([output]):
        if node is wrt or not depending.isdisjoint(node.args):
            depending.add(node)

    found: list[tuple[Node, str]] = []
    seen: set[Node] = set()
    stack = [output] if output in depending else []
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            reasons, onwards = _cut(node, wrt, depending)
            found.extend((node, reason) for reason in reasons)
            stack.extend(reversed(onwards))
    return found


def _joined(order: Sequence[Node]) -> list[tuple[Node, list[Node]]]:
    """The nodes in reverse, each with those it is differentiated with: of a loop's results, the first for all."""
    loops: dict[object, list[Node]] = {}
    found: list[tuple[Node, list[Node]]] = []
    for node in order:
        if isinstance(node.op.gradient, JointGradient):
            members = loops.setdefault(group_of(node), [])
            members.append(node)
            if len(members) == 1:
                found.append((node, members))
        else:
            found.append((node, [node]))
    return found[::-1]


def _operand_gradients(node: Node, parts: Mapping[Node, Node], wanted: Container[Node],
                       note: Note | None = None) -> Sequence[Node | None]:
    """The gradients in the operands of a node, given those of it and of what is differentiated with it."""
    gradient = node.op.gradient
    assert not isinstance(gradient, NoGradient)
    if isinstance(gradient, JointGradient):
        return joint_gradients(node, {n.result: part for n, part in parts.items()}, wanted,
                               functools.partial(gradients, note=note))
    return gradient(node, parts[node])


def _carrying(order: Iterable[Node], wrt: Set[Node]) -> set[Node]:
    """The nodes whose gradient is wanted, or leads to one that is."""
    carrying: set[Node] = set()
    for node in order:
        passes = not isinstance(node.op.gradient, NoGradient) and not carrying.isdisjoint(node.args)
        if node.dtype.is_float and (node in wrt or passes):
            carrying.add(node)
    return carrying


def _cut(node: Node, wrt: Node, depending: Set[Node]) -> tuple[list[str], list[Node]]:
    """Why paths end at a node, and the operands through which others go on."""
    operands = [a for a in dict.fromkeys(node.args) if a in depending]
    gradient = node.op.gradient
    no_float = f"{node.dtype.name} has no gradient"
    if node is wrt:
        return [] if node.dtype.is_float else [no_float], []
    if isinstance(gradient, NoGradient):
        return [gradient.reason], []
    if not node.dtype.is_float:
        return ([no_float], []) if any(a.dtype.is_float for a in operands) else ([], operands)

    # The gradient of the node itself stands in for one that arrives: only which parts are None matters.
    parts = dict.fromkeys(node.args, False)
    for operand, part in zip(node.args, _operand_gradients(node, {node: node}, parts), strict=True):
        parts[operand] |= part is not None
    blocked = [a for a in operands if a.dtype.is_float and not parts[a]]
    names = [node.op.params[min(node.args.index(a), len(node.op.params) - 1)] for a in blocked]
    return [f"{node.op.name} has no gradient in {name}" for name in names], [a for a in operands if a not in blocked]


def _noting(note: Note | None, because: Node, given: Set[Node]) -> AbstractContextManager[None]:
    """Within the block `note` hears of nodes that were not given."""
    if note is None:
        return nullcontext()

    def heard(new: Node) -> None:
        if new not in given:
            note(new, because)
    return watching(heard)


def _accumulate(parts: dict[Node, Node], node: Node, part: Node) -> None:
    parts[node] = parts[node] + part if node in parts else part


def _summed_back(part: Node, operand: Node) -> Node:
    """A gradient in the type of the operand it belongs to."""
    if part.dtype is not operand.dtype:
        raise InternalError(f"a gradient of {operand!r} is {part.dtype.name}")
    result = part if part.shape == operand.shape else sum_to(part, operand)
    assert isinstance(result, Node)
    return result


def _ones(output: Node) -> Node:
    one = constant(1, output.dtype)
    result = broadcast(one, shape=output.shape) if output.shape else one
    assert isinstance(result, Node)
    return result


def _fitting_seed(seed: Node, output: Node) -> Node:
    if seed.dtype is not output.dtype:
        raise DTypeError(f"the weights are {seed.dtype.name}, the output {output.dtype.name}")
    what = f"the weights have shape {show_shape(seed.shape)}, the output {show_shape(output.shape)}"
    if seed.type.rank != output.type.rank:
        raise ShapeError(what)
    for a, b in zip(seed.shape, output.shape, strict=True):
        agree(a, b, what)
    return seed
