"""Which passes a function goes through: what it is given, what the block around it adds, and how names are found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tensorc.errors import ArgumentError

if TYPE_CHECKING:
    from tensorc.passes.manager import Pipeline

ENTRY_POINTS = "tensorc.passes"


@dataclass(frozen=True)
class _Block:
    """What a `using` block asks for, within the one around it."""

    passes: tuple[Any, ...]
    without: tuple[str, ...]
    outer: _Block | None
    made: dict[Pipeline, Pipeline] = field(default_factory=dict)

    def applied(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline with what is asked for; one object for one pipeline, so that equal functions share a program."""
        if pipeline not in self.made:
            inner = self.outer.applied(pipeline) if self.outer is not None else pipeline
            self.made[pipeline] = inner.without(*self.without).joined(*self.passes)
        return self.made[pipeline]


_block: ContextVar[_Block | None] = ContextVar("tensorc passes", default=None)


@contextlib.contextmanager
def using(*passes: Any, without: str | Iterable[str] = ()) -> Iterator[None]:
    """Within the block, functions that this thread or task makes go through further passes.

    Args:
        passes: rewrites, graph passes, and names of registered or installed ones; each stands where its `place` says.
            Blocks within blocks add up; of two passes with one name the inner one is taken.
        without: names of passes or rules to leave out.

    Raises: ArgumentError for what is no pass, and for unknown names with the near ones.
    """
    from tensorc.passes.pipeline import default

    left_out = (without,) if isinstance(without, str) else tuple(without)
    block = _Block(tuple(loaded(passes)), left_out, _block.get())
    block.applied(default())
    token = _block.set(block)
    try:
        yield
    finally:
        _block.reset(token)


def chosen(passes: Any = None) -> Pipeline | None:
    """The pipeline of a function that is made now; None for the default one.

    Args:
        passes: a Pipeline, or what joins the default one: a rewrite, a graph pass, a name, or a list of such.

    Raises: ArgumentError as `using` does.
    """
    block = _block.get()
    if passes is None and block is None:
        return None
    from tensorc.passes.manager import Pipeline
    from tensorc.passes.pipeline import default

    base = passes if isinstance(passes, Pipeline) else default()
    if passes is not None and base is not passes:
        base = base.joined(*loaded(passes if isinstance(passes, list | tuple) else [passes]))
    return base if block is None else block.applied(base)


_registered: dict[str, Any] = {}


def register(name: str, passes: Any) -> None:
    """Makes a pass, a rewrite or a list of such known by name, as an entry point in the group `tensorc.passes` would.

    Raises: ArgumentError for a name that is taken already, or what is no pass.
    """
    from tensorc.passes.manager import steps_of

    if name in _registered:
        raise ArgumentError(f"a pass called {name!r} is registered already")
    items = passes if isinstance(passes, list | tuple) else [passes]
    steps_of(items)
    _registered[name] = items


def loaded(passes: Iterable[Any]) -> list[Any]:
    """Passes with names replaced by what they stand for.  Raises ArgumentError."""
    from tensorc.passes.manager import steps_of

    found: list[Any] = []
    for item in passes:
        found.extend(_found(item) if isinstance(item, str) else [item])
    steps_of(found)
    return found


def _found(name: str) -> list[Any]:
    """What is registered or installed under a name.  Raises ArgumentError, which lists the names there are."""
    if name in _registered:
        return list(_registered[name])
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name in installed:
        return _of_entry(installed[name])
    from tensorc.passes.manager import unknown
    known = (*_registered, *installed)
    nothing = f"no pass is called {name!r}; none is registered or installed"
    raise ArgumentError(unknown(name, known) if known else nothing)


def _of_entry(entry: Any) -> list[Any]:
    """What an entry point names: a pass, a list of them, or the class of a rewrite.  Raises ArgumentError."""
    from tensorc.passes.manager import steps_of
    from tensorc.passes.rewrite import Rewrite

    try:
        thing = entry.load()
        items = list(thing) if isinstance(thing, list | tuple) else [thing]
        items = [item() if isinstance(item, type) and issubclass(item, Rewrite) else item for item in items]
        steps_of(items)
    except Exception as error:
        where = f"the entry point {entry.name} = {entry.value} of the group {ENTRY_POINTS}"
        raise ArgumentError(f"{where} gives no pass: {type(error).__name__}: {error}") from error
    return items
