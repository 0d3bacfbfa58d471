"""The updates that `K.control_dependencies` has in force, in this thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorc.backend.updates import Update

_state = threading.local()


def in_force() -> tuple[Update, ...]:
    """The updates after which values made now are to be computed."""
    updates: tuple[Update, ...] = getattr(_state, "updates", ())
    return updates


@contextmanager
def after(updates: Iterable[Update]) -> Iterator[None]:
    """Within the block, values are computed after these updates and those of the blocks around."""
    outer = in_force()
    _state.updates = tuple(dict.fromkeys((*outer, *updates)))
    try:
        yield
    finally:
        _state.updates = outer


def closure(updates: Iterable[Update]) -> list[Update]:
    """The updates and those they wait for, each once, in an order in which they can run."""
    order: dict[Update, None] = {}
    stack = [(u, False) for u in reversed(list(updates))]
    while stack:
        update, ready = stack.pop()
        if ready:
            order[update] = None
        elif update not in order:
            stack.append((update, True))
            stack.extend((u, False) for u in reversed(update.after))
    return list(order)
