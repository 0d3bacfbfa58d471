"""Where values come from: every public function notes the user's line, its operands and the nodes it made.

The same note serves three ends: graphs show the user's lines, errors speak of the user's operands, and a
function finds the updates that its outputs wait for.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from tensorc.backend.complaint import complain
from tensorc.backend.handle import Handle, flat_handles
from tensorc.backend.scope import in_force
from tensorc.errors import ArgumentError, DTypeError, ShapeError
from tensorc.ir.graph import Location
from tensorc.ir.node import Node, watching

P = ParamSpec("P")
R = TypeVar("R")

PACKAGE = "tensorc."
LIBRARY = "keras."      # between us and the user: its lines are not the user's


@dataclass(slots=True, eq=False)
class Origin:
    """The K call behind a handle: its name, the user's line, the handles it took, the nodes made in it.

    `derived` pairs nodes with the earlier ones that they were derived from, by differentiation or on other operands;
    they share their lines.
    """

    call: str
    file: str
    line: int
    parents: tuple[Handle, ...]
    nodes: tuple[Node, ...]
    derived: tuple[tuple[Node, Node], ...] = ()

    @property
    def location(self) -> Location:
        return Location(self.file, self.line, self.call)


@dataclass(slots=True, eq=False)
class _Call:
    """A public function at work."""

    nodes: dict[Node, None] = field(default_factory=dict)
    inner: list[Handle] = field(default_factory=list)
    derived: list[tuple[Node, Node]] = field(default_factory=list)

    def saw(self, node: Node) -> None:
        if _thread.call is self:
            self.nodes[node] = None

    def rebuilt(self, old: Node, new: Node) -> None:
        if _thread.call is self:
            self.derived.append((new, old))


class _Thread(threading.local):
    call: _Call | None = None


_thread = _Thread()


def public(name: str, old: Mapping[str, str] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for the functions that users call.

    What K functions call of each other passes straight through: only a call from outside this package is noted.
    A function that a user handed in, such as a branch of `K.switch`, is outside again.

    Args:
        name: what errors and dumps call it, such as `K.dot`.
        old: earlier spellings of keywords, each with its present one.
    """
    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def noted(*args: P.args, **kwargs: P.kwargs) -> R:
            if old and kwargs:
                _rename(name, old, kwargs)

            frame = sys._getframe(1)
            outer = _thread.call
            if outer is not None and _is_ours(frame):
                return function(*args, **kwargs)

            frame = _users(frame)
            call = _Call()
            _thread.call = call
            try:
                with watching(call.saw, call.rebuilt):
                    result = function(*args, **kwargs)
            except (ShapeError, DTypeError, ArgumentError) as error:
                raise complain(error, name, function, args, kwargs, frame) from None
            finally:
                _thread.call = outer

            made = flat_handles(result)
            if made:
                parents = (*_operands(args), *_operands(kwargs.values()), *call.inner)
                _stamp(made, call, outer, Origin(name, frame.f_code.co_filename, frame.f_lineno, parents,
                                                 tuple(call.nodes), tuple(call.derived)))
            return result

        return noted

    return decorate


def uses(handle: Handle) -> None:
    """Tells the call at work of an operand that is not among its arguments, such as the value of a callable."""
    if _thread.call is not None:
        _thread.call.inner.append(handle)


def origin_here(call: str, parents: Iterable[Handle]) -> Origin:
    """The origin of a handle that a public function makes on the way, and does not return."""
    frame = _users(sys._getframe(1))
    return Origin(call, frame.f_code.co_filename, frame.f_lineno, tuple(parents), ())


def derives(new: Node, old: Node) -> None:
    """Tells the call at work that `new` comes of `old`, by differentiation."""
    if _thread.call is not None:
        _thread.call.derived.append((new, old))


def ancestors(handles: Iterable[Handle]) -> list[Handle]:
    """The handles and all they were made from, operands first."""
    seen: set[Handle] = set()
    order: list[Handle] = []
    stack = [(h, False) for h in reversed(list(handles))]
    while stack:
        handle, ready = stack.pop()
        if ready:
            order.append(handle)
        elif handle not in seen:
            seen.add(handle)
            stack.append((handle, True))
            parents = handle.origin.parents if handle.origin else ()
            stack.extend((p, False) for p in reversed((*parents, *handle.after)) if p not in seen)
    return order


def provenance(handles: Iterable[Handle]) -> dict[Node, tuple[Location, ...]]:
    """The user's lines behind every node that led to these handles."""
    found: dict[Node, dict[Location, None]] = {}
    for handle in ancestors(handles):
        origin = handle.origin
        if origin is None:
            continue
        for new, old in origin.derived:
            found.setdefault(new, {}).update(found.get(old, {}))
        for node in origin.nodes:
            found.setdefault(node, {})[origin.location] = None
    return {node: tuple(lines) for node, lines in found.items()}


def _operands(values: Iterable[Any]) -> list[Handle]:
    """Every handle among some arguments."""
    found: list[Handle] = []
    for value in values:
        if isinstance(value, Handle):
            found.append(value)
        elif isinstance(value, list | tuple | dict):
            found.extend(flat_handles(value))
    return found


def _is_ours(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.startswith(PACKAGE)


def _users(frame: FrameType) -> FrameType:
    """The user's frame: the first outside this package and, where there is one, outside Keras."""
    while _is_ours(frame) and frame.f_back is not None:
        frame = frame.f_back
    outside: FrameType | None = frame
    while outside is not None and outside.f_globals.get("__name__", "").startswith(LIBRARY):
        outside = outside.f_back
    return outside or frame


def _stamp(made: list[Handle], call: _Call, outer: _Call | None, origin: Origin) -> None:
    """Gives new handles their origin, and the call around, if any, its operands."""
    updates = in_force()
    for handle in made:
        if handle.origin is None:
            handle.origin = origin
            handle.after = updates
    if outer is not None:
        outer.inner.extend(made)


def _rename(name: str, old: Mapping[str, str], kwargs: dict[str, Any]) -> None:
    for keyword in old.keys() & kwargs.keys():
        if old[keyword] in kwargs:
            raise TypeError(f"{name}() got both {keyword!r} and {old[keyword]!r}, two names of one argument")
        kwargs[old[keyword]] = kwargs.pop(keyword)
