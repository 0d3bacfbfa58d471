"""`defop`: one operation in one place, with its meaning, its gradient and its way down to a loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tensorc.errors import IRError
from tensorc.ir.dims import Size
from tensorc.ir.node import OPS, JointGradient, Kernel, Node, NoGradient, Op, Reduce
from tensorc.ir.types import DType, TensorType

__all__ = ["At", "Bound", "Compute", "Element", "Fill", "NoGradient", "Position", "Reduce", "Where", "defop"]


@dataclass(frozen=True)
class At:
    """The element of operand number `operand` at an index.

    An entry of the index is a size, or an integer element: an index that comes from data.
    """

    operand: int
    index: tuple[Size | Element, ...]


@dataclass(frozen=True)
class Fill:
    """A number, in the dtype given or else that of the result."""

    value: float
    dtype: DType | None = None


@dataclass(frozen=True)
class Position:
    """A size as a number: the place itself (iota), or how many."""

    size: Size
    dtype: DType | None = None


@dataclass(frozen=True)
class Bound:
    """low <= size < high."""

    size: Size
    low: Size
    high: Size


@dataclass(frozen=True)
class Where:
    """`then` where every bound holds, else `otherwise`; only the one chosen is read."""

    bounds: tuple[Bound, ...]
    then: Element
    otherwise: Element


@dataclass(frozen=True)
class Compute:
    """A scalar function of the loop language on elements."""

    fn: str
    args: tuple[Element, ...]
    dtype: DType


Element = At | Fill | Position | Where | Compute


def defop(
    name: str,
    *,
    doc: str,
    infer: Callable[..., TensorType],
    reference: Callable[..., Any] | None,
    gradient: Callable[[Any, Any], Sequence[Node | None]] | NoGradient | JointGradient,
    scalar: str | None = None,
    reduce: Reduce | None = None,
    index: Callable[[Any, tuple[Size, ...]], Element] | None = None,
    view: bool = False,
    expand: Callable[[Any], Node] | None = None,
    kernel: str | Kernel | None = None,
    source: bool = False,
    commutative: bool = False,
    params: tuple[str, ...] | None = None,
    attrs: tuple[str, ...] | None = None,
    samples: Sequence[Any] = (),
    digest: Callable[[Node], str | None] | None = None,
    definition: Callable[[], str] | None = None,
) -> Op:
    """Declares an operation and returns it, callable on nodes.

    Args:
        infer: (operand types…, *, attributes…) → type.  Its signature names operands and attributes, unless
            `params` and `attrs` do; raises ShapeError or DTypeError without naming the operation.
        reference: the meaning: (operand arrays…, *, attributes…) → array of the inferred dtype and shape.
            Sizes among the attributes are numbers by then; floats of 16 bits are only stored, so they are float32
            here, and a float32 result is rounded (`tensorc.ops.interpret.meaning`).
        gradient: (node, g) → one gradient an operand, None where there is none; a gradient may have the
            broadcast shape, it is summed back.
        index: (node, index of a result element) → the Element it is.
        samples: operands and attributes that the registry tests use, made by `tensorc.ops.sample.sample`.
        digest: of a user's operation: what a node's code depends on besides its text.  It replaces an earlier one of
            its name; nodes of that one stay what they are.
        definition: of a user's operation: Python text that defines it again.

    Raises: IRError for a second operation of that name, or not exactly one way down.
    """
    signature = inspect.signature(infer).parameters.values()
    if params is None:
        params = tuple("*" * (p.kind is p.VAR_POSITIONAL) + p.name for p in signature if p.kind is not p.KEYWORD_ONLY)
    if attrs is None:
        attrs = tuple(p.name for p in signature if p.kind is p.KEYWORD_ONLY)
    op = Op(name=name, doc=doc, params=params, attrs=attrs, infer=infer, reference=reference, gradient=gradient,
            scalar=scalar, reduce=reduce, index=index, view=view, expand=expand, kernel=kernel, source=source,
            commutative=commutative, samples=samples, digest=digest, definition=definition)
    if name in OPS and (digest is None or OPS[name].digest is None):
        raise IRError(f"op {name} is defined twice")
    _ = op.way
    OPS[name] = op
    return op
