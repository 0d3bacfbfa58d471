"""Names and numbers that a session gives out: unique ids per prefix, names of tensors, name scopes."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_uids: dict[str, int] = {}
_taken: dict[str, int] = {}
_serial = itertools.count(1)
_lock = threading.Lock()
_scope = threading.local()


def get_uid(prefix: str = "") -> int:
    """1, 2, 3 … for each prefix."""
    with _lock:
        _uids[prefix] = _uids.get(prefix, 0) + 1
        return _uids[prefix]


def reset_uids() -> None:
    """Starts every prefix at 1 again."""
    with _lock:
        _uids.clear()


def forget_names() -> None:
    """Makes every name free again."""
    with _lock:
        _taken.clear()


def serial() -> int:
    """A number that this process gives out once."""
    return next(_serial)


@contextmanager
def name_scope(name: str) -> Iterator[str]:
    """Within the block, names of variables and placeholders begin with `name/`."""
    outer = getattr(_scope, "path", "")
    _scope.path = f"{outer}{name}/"
    try:
        yield _scope.path
    finally:
        _scope.path = outer


def unique_name(name: str) -> str:
    """`name` within the scopes in force; `name_1`, `name_2` … where it is taken already."""
    path = getattr(_scope, "path", "") + name
    with _lock:
        times = _taken.get(path, 0)
        _taken[path] = times + 1
        while times and f"{path}_{times}" in _taken:
            times += 1
        if not times:
            return path
        _taken[f"{path}_{times}"] = 1
        return f"{path}_{times}"


def identifier(name: str) -> str:
    """A name that the text of a graph can hold: `dense_1/kernel` → `dense_1_kernel`."""
    word = re.sub(r"\W", "_", name)
    return word if word[:1].isalpha() or word[:1] == "_" else f"_{word}"
