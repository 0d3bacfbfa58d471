"""Leaves: what is fed, what is kept, where random numbers begin."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorc import ops
from tensorc.backend import scope
from tensorc.backend.handle import shown
from tensorc.backend.names import identifier, serial
from tensorc.backend.tensor import Tensor
from tensorc.ir.node import Node
from tensorc.ir.types import TensorType, i64
from tensorc.ir.types import dtype as dtype_of
from tensorc.runtime.random import Stream
from tensorc.runtime.variable import Cell

if TYPE_CHECKING:
    from tensorc.backend.updates import Update

Array = np.ndarray[Any, Any]

cells: weakref.WeakKeyDictionary[Node, Cell] = weakref.WeakKeyDictionary()
streams: weakref.WeakKeyDictionary[Node, Stream] = weakref.WeakKeyDictionary()
defaults: weakref.WeakKeyDictionary[Node, Array] = weakref.WeakKeyDictionary()
reads: weakref.WeakKeyDictionary[Node, tuple[Node, tuple[Update, ...]]] = weakref.WeakKeyDictionary()


def parameter(name: str, role: str, type: TensorType) -> Node:
    """A leaf of its own, whatever others are called."""
    node: Node = ops.parameter(name=identifier(name), role=role, uid=serial(), type=type)
    return node


class Placeholder(Tensor):
    """A value that each call of a function feeds."""

    __slots__ = ()

    def __init__(self, type: TensorType, name: str, default: Array | None = None) -> None:
        super().__init__(parameter(name, "input", type), name)
        self._keras_shape = shown(type.shape)
        self._uses_learning_phase = False
        if default is not None:
            defaults[self._node] = default


class Variable(Tensor):
    """A value that is kept between calls, in a cell of its own.

    Attributes:
        parameter: the node that stands for its value before a call.
        cell: its memory.
        constraint: the projection that Keras applies after an optimiser's step, or None.
        trainable: whether Keras trains it.
    """

    __slots__ = ("_reads", "cell", "constraint", "parameter", "trainable")

    def __init__(self, value: Array, name: str, constraint: Callable[..., Any] | None = None) -> None:
        self.parameter = parameter(name, "variable", TensorType(dtype_of(value.dtype), value.shape))
        super().__init__(self.parameter, name)
        self.cell = Cell(value, name)
        self.constraint = constraint
        self.trainable = True
        self._keras_shape = value.shape
        self._uses_learning_phase = False
        self._reads: weakref.WeakValueDictionary[tuple[Update, ...], Node] = weakref.WeakValueDictionary()
        cells[self.parameter] = self.cell

    @property
    def node(self) -> Node:
        """The value as an expression: within `K.control_dependencies`, the value after the updates named there."""
        updates = scope.in_force()
        return self._read_after(updates) if updates else self.parameter

    @property
    def later_reads(self) -> list[Node]:
        """The leaves that stand for values after updates."""
        return list(self._reads.values())

    def _read_after(self, updates: tuple[Update, ...]) -> Node:
        """A leaf for the value after the updates, which a function settles; `parameter` if none of them is ours."""
        if all(u.variable is not self for u in scope.closure(updates)):
            return self.parameter
        leaf = self._reads.get(updates)
        if leaf is None:
            leaf = parameter(f"{self.name}_after", "variable", self.parameter.type)
            self._reads[updates] = leaf
            reads[leaf] = self.parameter, updates
        return leaf


def random_key(seed: int | None) -> Node:
    """The key of a new random stream; seed None draws one from NumPy's global generator, as Keras does."""
    stream = Stream(seed)
    key = parameter("key", "key", TensorType(i64, (2,)))
    streams[key] = stream
    return key
