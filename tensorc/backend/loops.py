"""Loops: `K.rnn`, `K.map_fn`, `K.foldl`, `K.foldr`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorc import ops
from tensorc.backend import phase
from tensorc.backend.body import captured, depending, drawn_ahead, handles, stand_in, trace
from tensorc.backend.convert import as_node, cast_node, parse_dtype, promoted, stacked
from tensorc.backend.handle import shown
from tensorc.backend.indexing import index
from tensorc.backend.provenance import public
from tensorc.backend.tensor import Tensor
from tensorc.backend.variables import filled
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir.dims import Size
from tensorc.ir.graph import postorder
from tensorc.ir.node import Node
from tensorc.ir.types import boolean, i32
from tensorc.ops.scan import loop

Step = Callable[[Node, Sequence[Node]], tuple[Node, list[Node]]]
Run = tuple[Node, Node, list[Node]]


@public("K.rnn")
def rnn(step_function: Callable[..., Any], inputs: Any, initial_states: Sequence[Any], go_backwards: bool = False,
        mask: Any = None, constants: Sequence[Any] | None = None, unroll: bool = False,
        input_length: Any = None) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Goes through the time steps of a tensor.

    Args:
        step_function: (input of one step (samples, …), states and constants) → (output (samples, …), new states).
        inputs: (samples, time, …).
        initial_states: the states before the first step, each of the shape that the step function gives it.
        go_backwards: from the last step to the first; the outputs are in the order they are made.
        mask: (samples, time) or (samples, time, 1): where it is 0 a step repeats the output before, zeros before the
            first, and keeps its states.
        constants: tensors that are appended to the states in each step.
        unroll: writes the steps out one after the other; their number must be known.
        input_length: the number of steps, which is known from `inputs`; of a tensor (samples,), how many steps of
            each sample count, as with a mask.

    Returns: (last output, outputs (samples, time, …), last states).
    Raises: ShapeError for inputs of rank below 3, an unknown number of steps to unroll, or states that change shape;
        ArgumentError for a mask without states.
    """
    x = as_node(inputs)
    if len(x.shape) < 3:
        raise ShapeError(f"inputs have rank 3 at least: (samples, time, …); these have shape {tuple(shown(x.shape))}")
    initial = [as_node(s) for s in initial_states]
    rows = _time_first(x)
    counted = None if mask is None else _time_first(_mask_by_step(mask))
    if mask is not None and not initial:
        raise ArgumentError("a mask keeps states where it is 0, and there are no states")
    if counted is None and isinstance(input_length, Tensor) and input_length.ndim == 1:
        counted = _within(input_length.node, rows.shape[0])
    if go_backwards:
        rows = ops.reverse(rows, axes=(0,))
        counted = None if counted is None else ops.reverse(counted, axes=(0,))

    step = _Step(step_function, constants or (), len(initial))
    run = _unrolled if unroll else _looped
    last, outputs, states = run(step, rows, counted, initial)
    result = Tensor(last)
    learning = phase.learning_phase()
    if isinstance(learning, Tensor) and learning.node in postorder([last]):
        result._uses_learning_phase = True
    return result, Tensor(_time_first(outputs)), handles(states)


@public("K.map_fn")
def map_fn(fn: Callable[..., Any], elems: Any, name: str | None = None, dtype: Any = None) -> Any:
    """The function on each row along the first axis.

    Args:
        fn: of a row; of as many rows as there are, in a list, where `elems` is a list.
        dtype: of the result; that of what `fn` gives for None.

    Returns: the results one above the other; a list where `fn` gives a list.
    Raises: ShapeError for elements without a first axis.
    """
    many = isinstance(elems, list | tuple)
    rows = [_with_rows(as_node(x)) for x in (elems if many else [elems])]
    length = rows[0].shape[0]
    inner = [stand_in(r.type.with_shape(r.shape[1:]), "row") for r in rows]
    traced = trace(fn, handles(inner) if many else Tensor(inner[0]))
    several = isinstance(traced.value, list | tuple)
    results = [as_node(v) for v in (traced.value if several else [traced.value])]
    if dtype is not None:
        results = [cast_node(r, parse_dtype(dtype)) for r in results]
    results, drawn = drawn_ahead(results, traced.keys, length)
    results, taken = captured(results, depending(results, [*inner, *(row for row, _ in drawn)]))
    made = loop([*zip(inner, rows, strict=True), *drawn], [], taken, results, length=length)
    return handles(made) if several else Tensor(made[0])


@public("K.foldl")
def foldl(fn: Callable[..., Any], elems: Any, initializer: Any = None, name: str | None = None) -> Tensor:
    """fn(… fn(fn(initializer, elems[0]), elems[1]) …); without an initializer, elems[0] takes its place."""
    rows = _with_rows(as_node(elems))
    if initializer is None:
        initializer, rows = index(rows, 0), index(rows, slice(1, None))
    return Tensor(_folded(fn, rows, as_node(initializer), reverse=False))


@public("K.foldr")
def foldr(fn: Callable[..., Any], elems: Any, initializer: Any = None, name: str | None = None) -> Tensor:
    """fn(… fn(fn(initializer, elems[-1]), elems[-2]) …); without an initializer, elems[-1] takes its place."""
    rows = _with_rows(as_node(elems))
    if initializer is None:
        initializer, rows = index(rows, -1), index(rows, slice(None, -1))
    return Tensor(_folded(fn, rows, as_node(initializer), reverse=True))


def _folded(fn: Callable[..., Any], rows: Node, initial: Node, reverse: bool) -> Node:
    length = rows.shape[0]
    row, state = stand_in(rows.type.with_shape(rows.shape[1:]), "row"), stand_in(initial.type, "sum")
    traced = trace(fn, Tensor(state), Tensor(row))
    results, drawn = drawn_ahead([_kept_type(as_node(traced.value), state, "the value so far")], traced.keys, length)
    results, taken = captured(results, depending(results, [row, state, *(row for row, _ in drawn)]))
    return loop([(row, rows), *drawn], [(state, initial)], taken, results, length=length, reverse=reverse)[0]


class _Step:
    """A step function of the user's, over nodes."""

    def __init__(self, function: Callable[..., Any], constants: Sequence[Any], states: int) -> None:
        self.function = function
        self.constants = tuple(c if isinstance(c, Tensor) else Tensor(as_node(c)) for c in constants)
        self.states = states
        self.keys: set[Node] = set()

    def __call__(self, x: Node, states: Sequence[Node]) -> tuple[Node, list[Node]]:
        """(output, new states).  Raises ArgumentError for a function that gives something else."""
        traced = trace(self.function, Tensor(x), (*handles(states), *self.constants))
        self.keys |= traced.keys
        if not isinstance(traced.value, list | tuple) or len(traced.value) != 2:
            raise ArgumentError("the step function returns (output, new states)")
        output, new = traced.value
        if not isinstance(new, list | tuple) or len(new) != self.states:
            count = len(new) if isinstance(new, list | tuple) else "no list"
            raise ArgumentError(f"the step function returns {self.states} new states, not {count}: "
                                f"as many as there are initial states")
        return as_node(output), [_kept_type(as_node(n), s, f"state {i}")
                                 for i, (n, s) in enumerate(zip(new, states, strict=True))]


def _looped(step: _Step, rows: Node, mask: Node | None, initial: Sequence[Node]) -> Run:
    """The steps as a loop.

    The output before is a state of its own: masked steps repeat it, and the last one is returned.
    """
    length = rows.shape[0]
    x = stand_in(rows.type.with_shape(rows.shape[1:]), "x")
    states = [stand_in(s.type, "state") for s in initial]
    output, new = step(x, states)
    before = stand_in(output.type, "before")
    varying = [(x, rows)]
    if mask is not None:
        counts = stand_in(mask.type.with_shape(mask.shape[1:]), "counts")
        varying.append((counts, mask))
        output = _where(counts, output, before)
        new = [_where(counts, n, s) for n, s in zip(new, states, strict=True)]

    results, drawn = drawn_ahead([output, *new, output], step.keys, length)
    varying += drawn
    inner = [before, *states]
    results, taken = captured(results, depending(results, [*inner, *(v for v, _ in varying)]))
    zeros = filled(as_node(0, output.dtype), output.shape)
    made = loop(varying, list(zip(inner, [zeros, *initial], strict=True)), taken, results, length=length)
    return made[0], made[-1], made[1:-1]


def _unrolled(step: _Step, rows: Node, mask: Node | None, initial: Sequence[Node]) -> Run:
    """The steps one after the other."""
    length = rows.shape[0]
    if not isinstance(length, int) or not length:
        raise ShapeError("to unroll, the number of time steps must be known, and 1 at least; leave out unroll=True")
    states = list(initial)
    outputs: list[Node] = []
    for t in range(length):
        output, new = step(index(rows, t), states)
        if mask is not None:
            counts = index(mask, t)
            before = outputs[-1] if outputs else filled(as_node(0, output.dtype), output.shape)
            output = _where(counts, output, before)
            new = [_where(counts, n, s) for n, s in zip(new, states, strict=True)]
        states = new
        outputs.append(output)
    return outputs[-1], stacked(outputs, axis=0), states


def _kept_type(new: Node, old: Node, what: str) -> Node:
    """A new state in the dtype of the one before.  Raises ShapeError where its shape is another."""
    wanted, given = old.shape, new.shape
    differ = len(wanted) != len(given) or any(isinstance(d := a - b, int) and d for a, b in
                                              zip(wanted, given, strict=True))
    if differ:
        raise ShapeError(f"{what} has shape {tuple(shown(wanted))} before a step and {tuple(shown(given))} after it")
    return cast_node(new, old.dtype)


def _where(counts: Node, new: Node, old: Node) -> Node:
    """new where a step counts, else old; the axes of `counts` are the first ones."""
    rank = len(new.shape)
    axes = counts.shape if len(counts.shape) <= rank else counts.shape[:rank]
    test = ops.reshape(counts, shape=(*axes, *(1,) * (rank - len(axes))))
    node: Node = ops.select(test, new, old)
    return node


def _mask_by_step(mask: Any) -> Node:
    """A mask as bools (samples, time), or with further axes."""
    node = cast_node(as_node(mask), boolean)
    if len(node.shape) < 2:
        raise ShapeError(f"a mask has shape (samples, time) or (samples, time, 1), not {tuple(shown(node.shape))}")
    if len(node.shape) == 3 and node.shape[2] == 1:
        node = ops.reshape(node, shape=node.shape[:2])
    return node


def _within(lengths: Node, steps: Size) -> Node:
    """(time, samples): whether a step is one of the first `lengths` of its sample."""
    place = ops.iota(shape=(steps, 1), axis=0, dtype=i32)
    place, count = promoted([place, ops.reshape(lengths, shape=(1, *lengths.shape))])
    node: Node = ops.lt(place, count)
    return node


def _time_first(x: Node) -> Node:
    """The first two axes exchanged."""
    node: Node = ops.transpose(x, perm=(1, 0, *range(2, len(x.shape))))
    return node


def _with_rows(x: Node) -> Node:
    if not x.shape:
        raise ShapeError("a loop goes along the first axis; this is a single number")
    return x
