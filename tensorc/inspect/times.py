"""Where the time of functions goes, kernel by kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tensorc.errors import ArgumentError
from tensorc.inspect.found import Found
from tensorc.runtime.devices import chosen
from tensorc.runtime.profile import Profile, profile
from tensorc.runtime.program import size_symbols
from tensorc.runtime.replay import call_of, made_up

SIZE = 64
"""What a size of a graph from text is where nothing else is asked for."""

SECONDS = 0.25
"""How long a function is measured."""


def profiles_of(functions: Sequence[Found], sizes: Mapping[str, int], *, named: bool) -> Iterator[Profile | None]:
    """The profiles of functions, each at its last call in its script, or on made up values; None without a call.

    Args:
        named: whether one was asked for by name, which then must have been called.
    """
    for found in functions:
        uncalled = found.function is not None and found.inputs is None
        yield None if uncalled and not named else profile_of(found, sizes)


def print_times(functions: Sequence[Found], profiles: Iterable[Profile | None]) -> None:
    """The profiles of functions, one after another."""
    for i, (found, measured) in enumerate(zip(functions, profiles, strict=True)):
        if i:
            print()
        print(f"{found.graph.name}: never called" if measured is None else measured)


def profile_of(found: Found, sizes: Mapping[str, int] | None = None) -> Profile:
    """The profile of a function at its last call, or of a graph on made up values.

    Args:
        sizes: those of a graph from text; SIZE where one is missing.

    Raises: ArgumentError for a function that was never called, or whose sizes follow from a call and are given here;
        for sizes of a graph that it does not have.
    """
    sizes = sizes or {}
    if found.function is None:
        known = dict.fromkeys(size_symbols(found.graph), SIZE) | dict(sizes)
        device = chosen(None, "tensorc --time")
        return profile(call_of(found.graph, made_up(found.graph, known), device), found.pipeline, SECONDS)
    if sizes:
        raise ArgumentError(f"{found.graph.name} is timed at the sizes of its last call; only those of a .ir file are "
                            f"free to choose")
    if found.inputs is None:
        raise ArgumentError(f"{found.graph.name} is never called, so there is nothing to time it on")
    return found.function.profile(found.inputs, SECONDS)


def parsed_sizes(text: str | None) -> dict[str, int]:
    """`n=128,m=10` as a mapping.  Raises ArgumentError."""
    found = {}
    for part in (text or "").split(",") if text else ():
        name, _, value = part.partition("=")
        if not name.strip() or not value.strip().isdecimal():
            raise ArgumentError(f"--sizes is a list such as n=128,m=10, not {text!r}")
        found[name.strip()] = int(value)
    return found
