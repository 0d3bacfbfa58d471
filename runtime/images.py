"""Native code that serves all programs, from the store or newly compiled."""

from __future__ import annotations

from collections.abc import Callable

from tensorc.codegen.cpu.compile import compile_text
from tensorc.codegen.cpu.target import Target
from tensorc.runtime import identity, store


def image(name: str, text: Callable[[], str]) -> bytes:
    """The object image of the library called `name`, whose LLVM IR is `text()`."""
    def compiled() -> store.Entry:
        return store.Entry(compile_text(text(), Target.host()).image)

    return store.fetch(identity.of_library(name), compiled).image
