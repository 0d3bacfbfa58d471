"""Differentiation of loops and choices.

The gradient of a loop is a loop in the other direction.  Its states are the gradients in the states; of the values that
the steps computed it needs some again.  Those that depend on rows and captures alone it computes itself, the others the
loop keeps: it gets further results, which a pass makes the same loop as the one that there was.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from tensorc.ir.graph import Graph, postorder
from tensorc.ir.node import Node, constant
from tensorc.ir.types import i64
from tensorc.ops import broadcast, gt, reshape, scan, select, size, sum
from tensorc.ops.scan import body_parameter, choice, loop, loop_with

Differentiate = Callable[[Sequence[Node], Sequence[Node] | None, Sequence[Node]], list[Node | None]]


def joint_gradients(node: Node, parts: Mapping[int, Node], wanted: Container[Node],
                    differentiate: Differentiate) -> list[Node | None]:
    """The gradients in the operands of a loop or a choice.

    Args:
        node: one of its results.
        parts: the gradients in its results, by their number.
        wanted: operands whose gradients matter; of others None is given.
        differentiate: `tensorc.autodiff.gradients`.
    """
    return (_of_loop if node.op is scan else _of_choice)(node, parts, wanted, differentiate)


def _of_loop(node: Node, parts: Mapping[int, Node], wanted: Container[Node],
             differentiate: Differentiate) -> list[Node | None]:
    body, rows, states = node.body, node.sequences, node.states
    asked = [i for i, a in enumerate(node.args) if a in wanted and (i < rows or i >= rows + states)]
    parts, untouched = _without_copies(node, parts)
    carried, found = _adjoints(body, rows, states, parts, [body.params[i] for i in asked], differentiate)

    seeds = [(_arriving(body, rows, states, i), parts[i]) for i in sorted(parts) if i >= states]
    adjoints = [(_arriving(body, rows, states, i), parts.get(i) or _zeros(body.params[rows + i])) for i in carried]
    new = [found[body.params[rows + i]] or _zeros(body.params[rows + i]) for i in carried]
    kept = [i for i in asked if found[body.params[i]] is not None]
    results = [*new, *(g for i in kept if (g := found[body.params[i]]) is not None)]

    again = _Residuals(node, results)
    made = loop([*seeds, *again.rows], adjoints, again.captures, again.results, length=node.length,
                reverse=not node.reverse)

    gradients: list[Node | None] = [None] * len(node.args)
    for i, part in untouched.items():
        gradients[rows + i] = part
    for i, result in zip(carried, made, strict=False):
        gradients[rows + i] = result
    for i, result in zip(kept, made[len(carried):], strict=True):
        gradients[i] = result if i < rows else sum(result, axes=(0,), keepdims=False)
    return gradients


def _without_copies(node: Node, parts: Mapping[int, Node]) -> tuple[Mapping[int, Node], Mapping[int, Node]]:
    """The gradients in results, those of states that are mere copies of others added to these; and what reaches the
    initial values of the copies: nothing, where there is a step.

    A copy has the new value of another state, and no step reads it.  So is the last output of most recurrent layers.
    """
    body, states = node.body, node.states
    read = set(postorder(body.outputs))
    params = body.params[node.sequences:]
    left, untouched = dict(parts), {}
    for i in [i for i in parts if i < states and params[i] not in read]:
        same = [k for k, out in enumerate(body.outputs[:states]) if out is body.outputs[i] and params[k] in read]
        if same and params[same[0]].shape == params[i].shape:
            part, none = left.pop(i), _zeros(parts[i])
            runs = gt(size(value=node.length, dtype=i64), constant(0, i64))
            moved = select(runs, part, none)
            left[same[0]] = left[same[0]] + moved if same[0] in left else moved
            untouched[i] = select(runs, none, part)
    return left, untouched


def _adjoints(body: Graph, rows: int, states: int, parts: Mapping[int, Node], asked: Sequence[Node],
              differentiate: Differentiate) -> tuple[list[int], dict[Node, Node | None]]:
    """The states that a gradient reaches, now or in an earlier step, and the gradients of a step in its parameters.

    What arrives is written `g0`, `g1` … for outputs 0, 1 … of the body.
    """
    params = body.params[rows:rows + states]
    carried = {i for i in parts if i < states}
    while True:
        arriving = sorted(carried | parts.keys())
        seeds = [_shaped(_arriving(body, rows, states, i), body.outputs[i]) for i in arriving]
        wrt = [*params, *asked]
        found = dict(zip(wrt, differentiate([body.outputs[i] for i in arriving], seeds, wrt), strict=True))
        more = {i for i, p in enumerate(params) if found[p] is not None} - carried
        if not more:
            return sorted(carried), found
        carried |= more


def _arriving(body: Graph, rows: int, states: int, i: int) -> Node:
    """What stands for the gradient in output i of a body; in a state it has the shape that this has between steps."""
    return body_parameter(f"g{i}", (body.params[rows + i] if i < states else body.outputs[i]).type)


def _shaped(x: Node, like: Node) -> Node:
    """x in the shape of another node: the same, where sizes with two names are equal."""
    node: Node = x if x.shape == like.shape else reshape(x, shape=like.shape)
    return node


class _Residuals:
    """What a loop backwards needs of the loop forwards.

    Attributes:
        rows, captures: the nodes that stand for its values in the step backwards, with the operands that give them.
        results: the results of the step backwards in these terms.
    """

    def __init__(self, node: Node, results: Sequence[Node]) -> None:
        body, rows, states = node.body, node.sequences, node.states
        of_states = _depending(body, body.params[rows:rows + states])
        forward = {*postorder(body.outputs), *body.params}
        order = postorder(results, [n for n in forward if n in of_states])
        operands = dict.fromkeys(a for n in (*order,) for a in n.args) | dict.fromkeys(results)
        stored = [n for n in operands if n in forward and n in of_states]

        keeping = dict.fromkeys((*body.outputs[states:], *stored))
        fuller = Graph(body.name, body.params, (*body.outputs[:states], *keeping))
        place = {n: states + i for i, n in enumerate(keeping)}

        def all_steps(n: Node) -> Node:
            return loop_with(node, fuller, place[n])

        self.rows = [(p, a) for p, a in zip(body.params[:rows], node.args, strict=False) if p in operands]
        self.rows += [(n, all_steps(n)) for n in stored]
        behind = rows + states
        self.captures = [(p, a) for p, a in zip(body.params[behind:], node.args[behind:], strict=True) if p in operands]
        self.results = list(results)


def _depending(body: Graph, params: Sequence[Node]) -> set[Node]:
    """The nodes of a body that depend on some of its parameters."""
    found = set(params)
    for node in postorder(body.outputs):
        if not found.isdisjoint(node.args):
            found.add(node)
    return found


def _of_choice(node: Node, parts: Mapping[int, Node], wanted: Container[Node],
               differentiate: Differentiate) -> list[Node | None]:
    test, *operands = node.args
    inner = node.then.params
    seeds = [body_parameter(f"g{i}", node.then.outputs[i].type) for i in sorted(parts)]
    asked = [p for p, a in zip(inner, operands, strict=True) if a in wanted]
    found = [differentiate([branch.outputs[i] for i in sorted(parts)], seeds, asked)
             for branch in (node.then, node.otherwise)]
    reached = [i for i, pair in enumerate(zip(*found, strict=True)) if pair != (None, None)]
    branches = [[branch[i] or _zeros(asked[i]) for i in reached] for branch in found]
    captures = [*zip(inner, operands, strict=True), *zip(seeds, (parts[i] for i in sorted(parts)), strict=True)]
    used = {n for branch in branches for n in postorder(branch)}
    made = choice(test, [pair for pair in captures if pair[0] in used], *branches)
    of = dict(zip((asked[i] for i in reached), made, strict=True))
    return [None, *(of.get(p) for p in inner)]


def _zeros(like: Node) -> Node:
    zero = constant(0, like.dtype)
    node: Node = broadcast(zero, shape=like.shape) if like.shape else zero
    return node
