"""Updates of variables: what they are, how several of one variable add up, what waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tensorc import ops
from tensorc.backend import scope
from tensorc.backend.convert import as_node, cast_node
from tensorc.backend.handle import Handle, flat_handles, shown
from tensorc.backend.leaves import Variable, reads
from tensorc.backend.provenance import ancestors, origin_here, public
from tensorc.backend.tensor import Tensor
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir.graph import postorder, replace_nodes
from tensorc.ir.node import Node

Step = Callable[[Node], Node]


class Update(Tensor):
    """The new value of a variable; whatever computes it also assigns it.

    Attributes:
        variable: the variable assigned.
        step: the new value as a function of the value before.
        relative: whether `step` depends on the value before; several such updates of one variable all apply.
    """

    __slots__ = ("relative", "step", "variable")

    def __init__(self, variable: Variable, step: Step, relative: bool) -> None:
        super().__init__(step(variable.node))
        self.variable = variable
        self.step = step
        self.relative = relative


@public("K.update")
def update(x: Variable, new_x: Any) -> Update:
    """The assignment x := new_x.

    Returns: a tensor with the new value; evaluating it assigns, once per call.
    Raises: ArgumentError if x is no variable; ShapeError if the shapes differ.
    """
    return plain_update(x, new_x)


@public("K.update_add")
def update_add(x: Variable, increment: Any) -> Update:
    """The assignment x := x + increment; several of one variable all apply."""
    variable = _variable(x)
    change = as_node(increment, variable.parameter.dtype)
    return Update(variable, lambda before: _fitting(ops.add(before, change), variable), relative=True)


@public("K.update_sub")
def update_sub(x: Variable, decrement: Any) -> Update:
    """The assignment x := x - decrement; several of one variable all apply."""
    variable = _variable(x)
    change = as_node(decrement, variable.parameter.dtype)
    return Update(variable, lambda before: _fitting(ops.sub(before, change), variable), relative=True)


@public("K.moving_average_update")
def moving_average_update(x: Variable, value: Any, momentum: Any) -> Update:
    """The assignment x := x·momentum + value·(1 - momentum), computed as x - (x - value)·(1 - momentum)."""
    variable = _variable(x)
    dtype = variable.parameter.dtype
    target = as_node(value, dtype)
    decay = as_node(1.0 - momentum, dtype)

    def step(before: Node) -> Node:
        return _fitting(before - (before - target) * decay, variable)

    return Update(variable, step, relative=True)


@contextmanager
def control_dependencies(control_inputs: Any) -> Iterator[None]:
    """Within the block, tensors are computed after the updates given: variables read there have their new values.

    Args:
        control_inputs: None, an update or a list of updates; of any other tensor, the updates it waits for.
    """
    given = control_inputs if isinstance(control_inputs, list | tuple) else [control_inputs]
    with scope.after(updates_behind(h for h in given if isinstance(h, Handle))):
        yield


def plain_update(x: Any, new_x: Any) -> Update:
    """x := new_x, whatever x was."""
    variable = _variable(x)
    value = _fitting(as_node(new_x, variable.parameter.dtype), variable)
    return Update(variable, lambda before: value, relative=False)


def as_updates(given: Iterable[Any]) -> list[Tensor]:
    """Updates from what users list: updates, (variable, new value) pairs, tensors that wait for updates."""
    found: list[Tensor] = []
    for item in given:
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, list | tuple) and len(item) == 2:
            found.append(pair_update(*item))
        else:
            raise ArgumentError(f"an update is a K.update or a pair (variable, new value), not {item!r}")
    return found


def pair_update(x: Any, new_x: Any) -> Update:
    """The update that a pair (variable, new value) stands for."""
    made = plain_update(x, new_x)
    made.origin = origin_here("K.update", flat_handles((x, new_x)))
    return made


def updates_behind(handles: Iterable[Handle]) -> list[Update]:
    """The updates that run when these values are computed, in an order in which they can run."""
    return [h for h in ancestors(handles) if isinstance(h, Update)]


def values_after(updates: Sequence[Update]) -> tuple[dict[Node, Node], dict[Update, Node]]:
    """The new value of each variable, and the value right after each update; later reads are still leaves in them.

    Raises: ArgumentError for two plain updates of one variable that neither agree nor wait for one another.
    """
    current: dict[Node, Node] = {}
    plain: dict[Node, Update] = {}
    behind: dict[Update, Node] = {}

    for update in updates:
        variable = update.variable.parameter
        if not update.relative:
            _check_conflict(plain.get(variable), update)
            plain[variable] = update
        current[variable] = update.step(current.get(variable, variable))
        behind[update] = current[variable]
    return current, behind


def settle(roots: Sequence[Node], new: Mapping[Node, Node] | None = None) -> list[Node]:
    """Roots in which the leaves that stand for later reads are replaced by the values they stand for.

    Args:
        new: further replacements.
    """
    replacements = dict(new or {})
    for leaf in [n for n in postorder(roots) if n in reads and n not in replacements]:
        variable, updates = reads[leaf]
        value = values_after(scope.closure(updates))[0][variable]
        replacements[leaf], = settle([value])
    return replace_nodes(roots, replacements) if replacements else list(roots)


def _variable(x: Any) -> Variable:
    if isinstance(x, Handle) and x.sparse:
        raise ArgumentError("a sparse tensor cannot be updated\nK.set_value gives a sparse variable another value")
    if not isinstance(x, Variable):
        raise ArgumentError("only a variable can be updated\nmake one with K.variable")
    return x


def _fitting(value: Node, variable: Variable) -> Node:
    """The value as one that the variable can take.  Raises ShapeError."""
    value = cast_node(value, variable.parameter.dtype)
    want = variable.parameter.shape
    if value.shape == want:
        return value
    pairs = zip(value.shape, want, strict=False)
    if len(value.shape) != len(want) or any(isinstance(a, int) and a != b for a, b in pairs):
        raise ShapeError(f"the variable has shape {tuple(want)}, its new value {tuple(shown(value.shape))}")
    node: Node = ops.reshape(value, shape=want)
    return node


def _check_conflict(first: Update | None, second: Update) -> None:
    if first is None or first is second or first.node is second.node or first in scope.closure([second]):
        return
    raise ArgumentError(f"variable {second.variable.name} gets two different new values in one call"
                        f"\nthey come from {_line(first)} and {_line(second)}")


def _line(update: Update) -> str:
    """The user's line for an update; for a pair, that of its value."""
    sources = [h for h in update.origin.parents if h is not update.variable] if update.origin else []
    origin = sources[-1].origin if sources else update.origin
    return str(origin.location) if origin else "an unknown line"
