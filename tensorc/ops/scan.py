"""Loops and choices: operations that run graphs of their own.

A loop has several results, and a node has one value; so a `scan` node is one result of a loop.  Nodes that differ in
`result` alone are results of the same loop, which runs once.  The same holds for `cond`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.errors import DTypeError, ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.graph import BODY, Graph, replace_nodes
from tensorc.ir.node import JointGradient, Node, make, rebuild
from tensorc.ir.types import TensorType, parse_type
from tensorc.ops import elementwise
from tensorc.ops.define import defop
from tensorc.ops.infer import agree, show_shape
from tensorc.ops.interpret import evaluate
from tensorc.ops.sample import sample
from tensorc.ops.source import parameter

Array = NDArray[Any]


def body_parameter(name: str, type: TensorType) -> Node:
    """The parameter of a body, by the name that its place gives it: x0 … rows, s0 … states, c0 … other operands."""
    return make(parameter, name=name, role="input", uid=0, type=type)


def parameter_names(sequences: int, states: int, captures: int) -> list[str]:
    """The names of a body's parameters in order."""
    return [f"{letter}{i}" for letter, n in (("x", sequences), ("s", states), ("c", captures)) for i in range(n)]


def _scan_type(*operands: TensorType, body: Graph, sequences: int, states: int, length: Size, reverse: bool,
               result: int) -> TensorType:
    if len(operands) != len(body.params):
        raise ShapeError(f"the body takes {len(body.params)} values, {len(operands)} are given")
    for i, (given, param) in enumerate(zip(operands, body.params, strict=True)):
        if i < sequences:
            if not given.rank:
                raise ShapeError("what a loop goes through has an axis of steps; this is a single number")
            agree(given.shape[0], length, "the numbers of steps differ")
            given = given.with_shape(given.shape[1:])
        _fits(given, param.type, "a value")
    for param, new in zip(body.params[sequences:sequences + states], body.outputs, strict=False):
        _fits(new.type, param.type, "the new value of a state")
    out = body.outputs[result].type
    return body.params[sequences + result].type if result < states else out.with_shape((length, *out.shape))


def _fits(given: TensorType, want: TensorType, what: str) -> None:
    """Raises DTypeError or ShapeError unless one type can be the other."""
    if given.dtype is not want.dtype:
        raise DTypeError(f"{what} is {given.dtype.name}, not {want.dtype.name}")
    message = f"{what} has shape {show_shape(given.shape)}, not {show_shape(want.shape)}"
    if given.rank != want.rank:
        raise ShapeError(message)
    for a, b in zip(given.shape, want.shape, strict=True):
        agree(a, b, message)


def run(body: Graph, values: Sequence[Array]) -> list[Array]:
    """The outputs of a body by the references."""
    return evaluate(body, {p.name: v for p, v in zip(body.params, values, strict=True)})[0]


def _scan(*operands: Array, body: Graph, sequences: int, states: int, length: int, reverse: bool,
          result: int) -> Array:
    rows, state = operands[:sequences], list(operands[sequences:sequences + states])
    out = body.outputs[result]
    shape = (length, *(dims.evaluate(n, {}) for n in out.shape))
    kept = np.zeros(shape, out.dtype.numpy) if result >= states else None
    for t in reversed(range(length)) if reverse else range(length):
        results = run(body, [*(x[t] for x in rows), *state, *operands[sequences + states:]])
        state = results[:states]
        if kept is not None:
            kept[t] = results[result]
    return state[result] if kept is None else kept


def _sample_body() -> Graph:
    """A decaying sum of squares, and its steps under tanh."""
    x, s = (body_parameter(name, parse_type("f32[2,3]")) for name in ("x0", "s0"))
    c = body_parameter("c0", parse_type("f32[3]"))
    new = elementwise.add(elementwise.mul(s, c), elementwise.mul(x, x))
    return Graph(BODY, (x, s, c), (new, elementwise.tanh(new)))


scan = defop(
    "scan",
    doc="One result of a loop over the first axis of `sequences` operands, each step of which is `body`: of a row of "
        "each of these, `states` states and the operands behind them, it makes the new states and what is kept of the "
        "step.  Result i is the last value of state i, or, past the states, all steps' values along a new first axis.  "
        "`reverse` goes from the last row to the first.",
    params=("*operands",),
    attrs=("body", "sequences", "states", "length", "reverse", "result"),
    infer=_scan_type,
    reference=_scan,
    gradient=JointGradient(),
    kernel="scan",
    samples=[sample("f32[4,2,3]", "f32[2,3]", "f32[3]", body=_sample_body(), sequences=1, states=1, length=4,
                    reverse=reverse, result=result) for reverse in (False, True) for result in (0, 1)],
)


def _cond_type(test: TensorType, *operands: TensorType, then: Graph, otherwise: Graph, result: int) -> TensorType:
    if not test.dtype.is_bool or test.rank:
        raise DTypeError(f"the condition is a single bool, not {test}")
    for branch in then, otherwise:
        if len(operands) != len(branch.params):
            raise ShapeError(f"a branch takes {len(branch.params)} values, {len(operands)} are given")
        for given, param in zip(operands, branch.params, strict=True):
            _fits(given, param.type, "a value")
    _fits(otherwise.outputs[result].type, then.outputs[result].type, "the second branch")
    return then.outputs[result].type


def _cond(test: Array, *operands: Array, then: Graph, otherwise: Graph, result: int) -> Array:
    return run(then if test else otherwise, operands)[result]


def _sample_branch(value: Callable[[Node, Node], Node]) -> Graph:
    x, y = (body_parameter(name, parse_type("f32[2,3]")) for name in ("c0", "c1"))
    return Graph(BODY, (x, y), (value(x, y),))


cond = defop(
    "cond",
    doc="One result of `then` on the operands where the condition holds, else of `otherwise`; the other is not "
        "computed.",
    params=("test", "*operands"),
    attrs=("then", "otherwise", "result"),
    infer=_cond_type,
    reference=_cond,
    gradient=JointGradient(),
    kernel="cond",
    samples=[sample("bool[]", "f32[2,3]", "f32[2,3]", fixed={0: truth}, result=0, then=_sample_branch(elementwise.mul),
                    otherwise=_sample_branch(lambda x, y: elementwise.sin(x))) for truth in (1, 0)],
)


Bound = Sequence[tuple[Node, Node]]
"""Pairs: a node that stands for a value in each step, and the operand that gives it."""


def loop(rows: Bound, states: Bound, captures: Bound, results: Sequence[Node], *, length: Size,
         reverse: bool = False) -> list[Node]:
    """All results of a loop.

    Args:
        rows: of each, the operand has a further first axis, of `length` steps.
        states: the operand is the state before the first step.
        results: what a step makes, in terms of the nodes that stand for rows, states and captures: the new states,
            and what is kept of the step.

    Raises: ShapeError, DTypeError for operands and new states that do not fit.
    """
    bound = [*rows, *states, *captures]
    names = parameter_names(len(rows), len(states), len(captures))
    body = closed_body([inner for inner, _ in bound], names, results)
    return [make(scan, *(operand for _, operand in bound), body=body, sequences=len(rows), states=len(states),
                 length=length, reverse=reverse, result=i) for i in range(len(results))]


def choice(test: Node, captures: Bound, then: Sequence[Node], otherwise: Sequence[Node]) -> list[Node]:
    """All results of a choice between two branches in terms of the nodes that stand for captures."""
    inner = [node for node, _ in captures]
    names = parameter_names(0, 0, len(captures))
    branches = [closed_body(inner, names, results) for results in (then, otherwise)]
    return [make(cond, test, *(operand for _, operand in captures), then=branches[0], otherwise=branches[1], result=i)
            for i in range(len(then))]


def closed_body(inner: Sequence[Node], names: Sequence[str], results: Sequence[Node]) -> Graph:
    """The graph of results with the nodes that stand for given values renamed."""
    params = [body_parameter(name, node.type) for name, node in zip(names, inner, strict=True)]
    return Graph(BODY, tuple(params), tuple(replace_nodes(results, dict(zip(inner, params, strict=True)))))


def group_of(node: Node) -> object:
    """What is equal for the results of one loop, or of one choice."""
    return node.op, node.args, *(v for k, v in node.attrs.items() if k != "result")


def loop_with(node: Node, body: Graph, result: int) -> Node:
    """A result of the loop that runs another body on the same operands, such as one that keeps more of each step."""
    return rebuild(node, node.args, body=body, result=result)
