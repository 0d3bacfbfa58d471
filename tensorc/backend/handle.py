"""The handle: what users hold, behind which stands an interned node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tensorc.backend.names import unique_name
from tensorc.ir.dims import Size
from tensorc.ir.node import Node

if TYPE_CHECKING:
    from tensorc.backend.provenance import Origin
    from tensorc.backend.updates import Update


class Shape(tuple[int | None, ...]):
    """A shape for users: ints, and None where the size is known only in the call."""

    __slots__ = ()

    def as_list(self) -> list[int | None]:
        return list(self)


def shown(sizes: Sequence[Size]) -> Shape:
    """Sizes as users see them: None for everything symbolic."""
    return Shape(s if isinstance(s, int) else None for s in sizes)


class Handle:
    """One value that a user made: a node, where it was made, and any attribute that the user hangs on it.

    Nodes are interned, so two handles may share one; handles compare and hash by identity.

    Attributes:
        node: the value.
        origin: the K call that made it, None for leaves made by hand.
        after: the updates that run whenever this value is computed (`K.control_dependencies`).
        sparse: whether it is a matrix in compressed rows (see tensorc.backend.sparse).
    """

    __slots__ = ("__dict__", "__weakref__", "_name", "_node", "after", "origin")
    _node: Node
    origin: Origin | None
    after: tuple[Update, ...]
    sparse: bool = False
    _keras_shape: tuple[int | None, ...]
    _uses_learning_phase: bool

    def __init__(self, node: Node, name: str | None = None) -> None:
        self._node = node
        self._name = name
        self.origin = None
        self.after = ()

    @property
    def node(self) -> Node:
        """The value as an expression."""
        return self._node

    @property
    def shape(self) -> Shape:
        """The sizes; None where one is known only in the call."""
        return shown(self._node.type.shape)

    def get_shape(self) -> Shape:
        """As `shape`."""
        return self.shape

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes with their symbols."""
        return self._node.type.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._node.type.shape)

    @property
    def dtype(self) -> str:
        """The element type's name, such as 'float32'."""
        return self._node.type.dtype.name

    @property
    def given_name(self) -> str | None:
        """The name that the user gave, if any."""
        return self._name

    @property
    def name(self) -> str:
        """The name given, or one made from the operation."""
        if self._name is None:
            self._name = unique_name(self._node.op.name)
        return self._name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.dtype} {tuple(self.shape)}>"

    def __bool__(self) -> bool:
        raise TypeError(
            "a tensor has no truth value while the graph is being built; "
            "use K.switch or K.equal for a choice made at run time, or `is None` to test for absence"
        )


def flat_handles(value: Any, depth: int = 3) -> list[Handle]:
    """Every handle in an argument: the value itself, or within lists, tuples and dicts."""
    if isinstance(value, Handle):
        return [value]
    if depth and isinstance(value, list | tuple):
        return [h for v in value for h in flat_handles(v, depth - 1)]
    if depth and isinstance(value, dict):
        return [h for v in value.values() for h in flat_handles(v, depth - 1)]
    return []
