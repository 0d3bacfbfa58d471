"""Nodes of the graph IR, and the record that says everything about one operation.

A node is immutable and interned: the same operation on the same operands with the same attributes is the
same object, so common subexpressions are shared by construction and equality is identity.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from tensorc.errors import IRError
from tensorc.ir.dims import Dim, Size, substitute, symbols
from tensorc.ir.types import DType, TensorType


@dataclass(frozen=True)
class Reduce:
    """How a reduction becomes a loop: an accumulator operation of the loop IR; `cumulative` keeps each step."""

    combine: str
    cumulative: bool = False


Kernel = Callable[[Any], Any]
"""From a `codegen.writing.Workshop` to the grid and the body of a kernel."""


@dataclass(frozen=True)
class NoGradient:
    """Why an operation has none: `K.gradients` gives None past it and can say so."""

    reason: str


@dataclass(frozen=True)
class JointGradient:
    """All results of one loop, or of one choice, are differentiated together: see tensorc.autodiff_loops."""


@dataclass(frozen=True, eq=False)
class Op:
    """All there is to know of one operation; made by `tensorc.ops.define.defop`.

    Exactly one of `scalar reduce index view expand kernel source` says how it becomes a loop.
    """

    name: str
    doc: str
    params: tuple[str, ...]                      # operand names; the last may be `*xs`
    attrs: tuple[str, ...]
    infer: Callable[..., TensorType]             # (operand types…, attributes by keyword) → type
    reference: Callable[..., Any] | None         # the meaning, over NumPy arrays
    gradient: Callable[[Node, Node], Sequence[Node | None]] | NoGradient | JointGradient
    scalar: str | None = None                    # elementwise: its name in the scalar table
    reduce: Reduce | None = None                 # a reduction over the attribute `axes` (or along `axis`)
    index: Callable[..., Any] | None = None      # an element is found by index: see tensorc.ops.define
    view: bool = False                           # the same elements in the same order under another shape
    expand: Callable[[Node], Node] | None = None # in terms of other operations
    kernel: str | Kernel | None = None           # a code generator of its own, or what writes its loops
    source: bool = False                         # a value that is given, not computed
    commutative: bool = False
    samples: Sequence[Any] = field(default=(), repr=False)
    digest: Callable[[Node], str | None] | None = None   # a user's: all that a node's code depends on, None if unknown
    definition: Callable[[], str] | None = None          # a user's: Python text that defines it again

    @property
    def variadic(self) -> bool:
        return bool(self.params) and self.params[-1].startswith("*")

    @property
    def way(self) -> str:
        """Which of the ways down this operation takes."""
        ways = {"scalar": self.scalar, "reduce": self.reduce, "index": self.index, "view": self.view,
                "expand": self.expand, "kernel": self.kernel, "source": self.source}
        taken = [name for name, given in ways.items() if given]
        if len(taken) != 1:
            raise IRError(f"op {self.name} must have exactly one way down, has {taken or 'none'}")
        return taken[0]

    def __call__(self, *args: Operand | float | np.generic | np.ndarray[Any, Any], **attrs: Any) -> Any:
        """A node, or a pattern where an operand is one.  Numbers take the dtype of the first node given."""
        if any(isinstance(a, Pattern) for a in args):
            return Pattern(self, args, attrs)
        like = next((a.type.dtype for a in args if isinstance(a, Node)), None)
        return make(self, *(a if isinstance(a, Node) else _literal(a, like) for a in args), **attrs)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


OPS: dict[str, Op] = {}


class Operand:
    """What nodes and patterns share: arithmetic that builds more of the same."""

    __slots__ = ()

    def __add__(self, other: Any) -> Any:
        return OPS["add"](self, other)

    def __radd__(self, other: Any) -> Any:
        return OPS["add"](other, self)

    def __sub__(self, other: Any) -> Any:
        return OPS["sub"](self, other)

    def __rsub__(self, other: Any) -> Any:
        return OPS["sub"](other, self)

    def __mul__(self, other: Any) -> Any:
        return OPS["mul"](self, other)

    def __rmul__(self, other: Any) -> Any:
        return OPS["mul"](other, self)

    def __truediv__(self, other: Any) -> Any:
        return OPS["div"](self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return OPS["div"](other, self)

    def __neg__(self) -> Any:
        return OPS["neg"](self)


class Node(Operand):
    """One operation applied to operands.  `node.x` reads the operand or attribute that the operation calls `x`."""

    __slots__ = ("__weakref__", "args", "attrs", "op", "type")
    op: Op
    args: tuple[Node, ...]
    attrs: Mapping[str, Any]
    type: TensorType

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def __getattr__(self, name: str) -> Any:
        if name in self.attrs:
            return self.attrs[name]
        if name in self.op.params:
            return self.args[self.op.params.index(name)]
        if f"*{name}" in self.op.params:
            return self.args[len(self.op.params) - 1:]
        raise AttributeError(f"{self.op.name} has no operand or attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"nodes are immutable ({name})")

    def __repr__(self) -> str:
        return f"<{self.op.name}: {self.type}>"

    def __reduce__(self) -> Any:
        raise TypeError("nodes do not pickle; print the graph instead")


class Pattern(Operand):
    """An operation over patterns, nodes and numbers, or a named hole (`op` is None) that matches anything.

    A number matches a constant filled with it, of any dtype and shape.
    """

    __slots__ = ("args", "attrs", "name", "op")

    def __init__(self, op: Op | None, args: tuple[Any, ...] = (), attrs: Mapping[str, Any] | None = None,
                 name: str = "") -> None:
        self.op, self.args, self.attrs, self.name = op, args, dict(attrs or {}), name

    def __repr__(self) -> str:
        return self.name if self.op is None else f"{self.op.name}({', '.join(map(repr, self.args))})"


class Nested:
    """An attribute that holds nodes of its own: the graph that an operation runs.  Compared by what it computes."""

    __slots__ = ()

    @property
    def symbols(self) -> frozenset[str]:
        """The size symbols in it, which are those of the graph around."""
        raise NotImplementedError

    def resized(self, sizes: Mapping[str, Size]) -> Nested:
        """With sizes replaced; itself where there are none of these."""
        raise NotImplementedError


Attr = Union[  # noqa: UP007
    None, bool, int, float, str, Dim, DType, TensorType, Nested, np.ndarray, tuple["Attr", ...]]

_interned: weakref.WeakValueDictionary[Any, Node] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def make(op: Op, *args: Node, **attrs: Attr) -> Node:
    """The node for this operation, type inferred.  Raises what the operation's `infer` raises, and IRError."""
    if attrs.keys() != set(op.attrs):
        missing, unknown = set(op.attrs) - attrs.keys(), attrs.keys() - set(op.attrs)
        raise IRError(f"{op.name}: " + (f"attribute {min(unknown)!r} is unknown" if unknown
                                        else f"attribute {min(missing)!r} is missing"))
    if not op.variadic and len(args) != len(op.params):
        raise IRError(f"{op.name} takes {len(op.params)} operands, not {len(args)}")
    key = (op, args, tuple((k, _key(attrs[k])) for k in op.attrs))
    node = _interned.get(key)
    if node is None:
        type = op.infer(*(a.type for a in args), **attrs)
        node = object.__new__(Node)
        for slot, value in (("op", op), ("args", args), ("attrs", attrs), ("type", type)):
            object.__setattr__(node, slot, value)
        with _lock:
            node = _interned.setdefault(key, node)
    for made in _watch.made:
        made(node)
    return node


class _Watch(threading.local):
    """Who sees what a thread makes, the innermost first."""

    made: tuple[Callable[[Node], None], ...] = ()
    rebuilt: tuple[Callable[[Node, Node], None], ...] = ()


_watch = _Watch()


@contextmanager
def watching(made: Callable[[Node], None] | None = None,
             rebuilt: Callable[[Node, Node], None] | None = None) -> Iterator[None]:
    """Within the block, `made` sees every node asked for in this thread, also those that existed before.

    `rebuilt(old, new)` sees every node that stands for an old one: the same operation on other operands or sizes.
    """
    before = _watch.made, _watch.rebuilt
    _watch.made = (made, *_watch.made) if made else _watch.made
    _watch.rebuilt = (rebuilt, *_watch.rebuilt) if rebuilt else _watch.rebuilt
    try:
        yield
    finally:
        _watch.made, _watch.rebuilt = before


def constant(value: object, dtype: DType | None = None) -> Node:
    """A constant node from a number or array (copied, made read-only)."""
    array = np.array(value, dtype=dtype.numpy if dtype else None, order="C")
    array.setflags(write=False)
    return make(OPS["constant"], value=array)


def rebuild(node: Node, args: Sequence[Node], sizes: Mapping[str, Size] | None = None, **changed: Attr) -> Node:
    """The same operation on other operands, sizes in its attributes replaced; `node` itself where nothing changed.

    Args:
        changed: attributes with other values, such as the body of a loop.
    """
    attrs = {k: _resized(v, sizes) for k, v in node.attrs.items()} if sizes else node.attrs
    if changed:
        attrs = {**attrs, **changed}
    if tuple(args) == node.args and all(attrs[k] is node.attrs[k] for k in attrs):
        return node
    new = make(node.op, *args, **attrs)
    tell_rebuilt(node, new)
    return new


def tell_rebuilt(old: Node, new: Node) -> None:
    """Tells all who are watching that a node stands for an old one now, as one that `rebuild` makes does."""
    for rebuilt in _watch.rebuilt:
        rebuilt(old, new)


def symbols_of(node: Node) -> frozenset[str]:
    """The size symbols in a node's shape and attributes."""
    sizes: list[Size] = list(node.type.shape)
    nested = [value.symbols for value in node.attrs.values() if isinstance(value, Nested)]
    for value in node.attrs.values():
        shape = value.shape if isinstance(value, TensorType) else value if isinstance(value, tuple) else (value,)
        sizes.extend(size for size in shape if isinstance(size, Dim))
    return frozenset().union(*nested, *map(symbols, sizes))


def _resized(value: Any, sizes: Mapping[str, Size]) -> Any:
    """An attribute with sizes replaced; the same object where none was."""
    if isinstance(value, Dim):
        return substitute(value, sizes)
    if isinstance(value, Nested):
        return value.resized(sizes)
    if isinstance(value, TensorType):
        shape = _resized(value.shape, sizes)
        return value if shape is value.shape else value.with_shape(shape)
    if isinstance(value, tuple):
        new = tuple(_resized(v, sizes) for v in value)
        return value if all(a is b for a, b in zip(new, value, strict=True)) else new
    return value


def _key(value: Any) -> Any:
    """Attribute → hashable key in which 0.0, -0.0, 1, True and NaN are all apart."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, tuple):
        return tuple(_key(v) for v in value)
    if isinstance(value, float):
        return "float", np.float64(value).tobytes()
    return type(value), value


def _literal(value: object, dtype: DType | None) -> Node:
    if isinstance(value, Operand):
        raise IRError(f"expected a number, got {value!r}")
    return constant(value, dtype)
