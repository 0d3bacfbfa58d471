"""`K.gradients`, and what to ask where it gives None."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorc.autodiff import cuts
from tensorc.autodiff import gradients as differentiate
from tensorc.backend.convert import as_node
from tensorc.backend.handle import Handle
from tensorc.backend.leaves import Variable
from tensorc.backend.provenance import derives, provenance, public
from tensorc.backend.sparse import SparseTensor
from tensorc.backend.tensor import Tensor
from tensorc.backend.variables import filled
from tensorc.errors import ArgumentError
from tensorc.ir.graph import Location
from tensorc.ir.node import Node


@public("K.gradients")
def gradients(loss: Any, variables: Any) -> list[Tensor | None]:
    """The gradients of a loss, summed if it is no scalar, in each of the variables or other tensors.

    Returns: one tensor for each variable; None where the loss does not depend on it, or only through operations
        that have no gradient (`tensorc.why_no_gradient` says which).  In a sparse tensor it is a sparse tensor of
        the same entries: those that are not stored do not count as variables.
    """
    outputs = [as_node(x) for x in (loss if isinstance(loss, list | tuple) else [loss])]
    wanted = list(variables) if isinstance(variables, list | tuple) else [variables]
    seeds = [filled(as_node(1, n.dtype), n.shape) for n in outputs]
    leaves = [_leaves(x) for x in wanted]

    found = iter(differentiate(outputs, seeds, [leaf for some in leaves for leaf in some], note=derives))
    parts = [[next(found) for _ in some] for some in leaves]
    return [_sparse(x, some) if isinstance(x, SparseTensor) else _total(some)
            for x, some in zip(wanted, parts, strict=True)]


def why_no_gradient(loss: Any, variable: Any) -> str:
    """Why `K.gradients(loss, [variable])` gives None: the operations that cut the path, with the user's lines."""
    found = cuts(as_node(loss), as_node(variable))
    if not found:
        return "the loss does not depend on it"
    lines = provenance([loss])
    return "\n".join(_cut(node, reason, lines.get(node, ())) for node, reason in found)


def _cut(node: Node, reason: str, lines: Sequence[Location]) -> str:
    where = f" at {lines[0]}" if lines else ""
    call = lines[0].call if lines else node.op.name
    return f"{call}{where}: {reason}"


def _leaves(x: Any) -> list[Node]:
    """The nodes to differentiate by: of a variable also its values after updates."""
    if isinstance(x, Variable):
        return [x.parameter, *x.later_reads]
    if isinstance(x, SparseTensor):
        return x.matrix.values()
    if not isinstance(x, Handle):
        raise ArgumentError(f"gradients are taken in tensors, not {x!r}")
    return [x.node]


def _sparse(x: SparseTensor, parts: list[Node | None]) -> SparseTensor | None:
    """The entries of x with gradients for values, zeros where there is none."""
    if all(p is None for p in parts):
        return None
    found = iter(parts)
    return SparseTensor(x.matrix.map(lambda data: next(found) or filled(as_node(0, data.dtype), data.shape)))


def _total(parts: list[Node | None]) -> Tensor | None:
    """The sum of gradients that exist."""
    terms = [p for p in parts if p is not None]
    if not terms:
        return None
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return Tensor(total)
