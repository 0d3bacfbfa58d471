"""Compiled code on disk, shared by the processes of one user.

An entry is one file, named by its key:

    tensorc-store 1 SHA256-OF-ALL-THAT-FOLLOWS
    {"key": …, "image": LENGTH, "arrays": [[DTYPE, SHAPE], …], "facts": {…}}
    the image and the arrays, one after another

An entry that is damaged, cut short or of another format counts as missing.  Files are written aside and moved into
place, so that a reader sees a whole entry or none.  Whatever goes wrong with the disk costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tensorc import settings
from tensorc.ir.types import numpy_dtype
from tensorc.runtime.variable import aligned_empty

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("tensorc")

Array = np.ndarray[Any, Any]

FORMAT = b"tensorc-store 1 "

DEFAULT_LIMIT = 512
"""Megabytes of entries that are kept, unless TENSORC_CACHE_SIZE says otherwise."""

PATIENCE = 20.0
"""Seconds to wait for another process that compiles the same; then it is taken for dead or stopped."""

ABANDONED = 3600.0
"""Seconds after which an unfinished file is one that nobody will finish."""


@dataclass(frozen=True)
class Entry:
    """What is kept of a piece of compiled code.

    Attributes:
        image: the object image.
        facts: what else must be known to run it, in terms of JSON.
        arrays: the constants it reads.
    """

    image: bytes
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: tuple[Array, ...] = ()


class Store:
    """A folder of entries.

    Args:
        folder: made if it is not there.
        limit: bytes; beyond them the entries that were not used for longest are removed.

    Raises: OSError if the folder cannot be made; PermissionError if others could write to it, because what lies in
        it is run.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._complained = False

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder.stat()):
            raise PermissionError(f"others may write to {folder}")

    def fetch(self, key: str, make: Callable[[], Entry]) -> Entry:
        """The entry of a key, made and kept if it is not there.  Of several processes that ask, one makes it."""
        found = self.get(key)
        if found is not None:
            return found

        with self._lock(key):
            found = self.get(key)
            if found is None:
                found = make()
                self.put(key, found)
        return found

    def get(self, key: str) -> Entry | None:
        """The entry of a key, or None."""
        path = self._path(key)
        try:
            data = _read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(error)
            return None

        found = _unpacked(key, data)
        if found is None:
            log.warning("compiled code in %s is damaged and will be made anew", path)
        return found

    def put(self, key: str, entry: Entry) -> None:
        """Keeps an entry in place of any other of its key."""
        data = _packed(key, entry)
        if len(data) > self.limit:
            return

        try:
            self.write(self._path(key), data)
            self._trim()
        except OSError as error:
            self._complain(error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.program"

    def write(self, path: Path, data: bytes) -> None:
        """The file, whole or not at all, readable and writable by its owner only."""
        handle, aside = tempfile.mkstemp(prefix="unfinished-", dir=self.folder)
        try:
            with open(handle, "wb") as file:
                file.write(data)
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise

    def _trim(self) -> None:
        """Removes unfinished files that nobody will finish, and the oldest entries where all are too large.

        It goes down to three quarters of the limit, so that not every entry that follows removes another.
        """
        entries: list[tuple[float, int, str]] = []
        with os.scandir(self.folder) as files:
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    about = file.stat(follow_symlinks=False)
                    if file.name.endswith(".program"):
                        entries.append((about.st_mtime, about.st_size, file.path))
                    elif file.name.startswith("unfinished-") and time.time() - about.st_mtime > ABANDONED:
                        os.unlink(file.path)

        total = sum(size for _, size, _ in entries)
        if total <= self.limit:
            return

        for _, size, path in sorted(entries):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
            if total <= self.limit * 3 // 4:
                return

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        """Keeps other processes from making what this one makes; it saves their time, so it may fail or time out.

        Keys share 256 files, which stay.
        """
        handle = None
        if fcntl is not None:
            try:
                handle = os.open(self.folder / f"lock-{key[:2]}", os.O_RDWR | os.O_CREAT, 0o600)
                _wait_for(handle)
            except OSError as error:
                self._complain(error)

        try:
            yield
        finally:
            if handle is not None:
                fcntl.flock(handle, fcntl.LOCK_UN)  # a forked child may hold the file open for longer
                os.close(handle)

    def _complain(self, error: OSError) -> None:
        """Tells once that this store is of little use."""
        if not self._complained:
            self._complained = True
            log.warning("compiled code cannot be kept in %s: %s", self.folder, error)


def fetch(key: str | None, make: Callable[[], Entry]) -> Entry:
    """The entry of a key in this process's store; just made where there is no store, or no key."""
    store = None if key is None else shared()
    return make() if key is None or store is None else store.fetch(key, make)


@functools.cache
def shared() -> Store | None:
    """The store that the environment asks for, or None.

    TENSORC_CACHE=0 turns it off, TENSORC_CACHE_DIR says where it lies, TENSORC_CACHE_SIZE how many megabytes it holds.
    """
    if settings.CACHE.is_off:
        return None

    try:
        return Store(folder(), settings.cache_size(DEFAULT_LIMIT) * 1_000_000)
    except (OSError, RuntimeError) as error:
        log.warning("compiled code is not kept: %s", error)
        return None


def folder() -> Path:
    """Where the environment and the platform want the store.  Raises RuntimeError if there is no home."""
    if settings.CACHE_DIR.text:
        return Path(settings.CACHE_DIR.text).expanduser().absolute()

    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", "").strip()
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "tensorc" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tensorc"

    caches = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(caches) if os.path.isabs(caches) else Path.home() / ".cache") / "tensorc"


def _packed(key: str, entry: Entry) -> bytes:
    """An entry as the bytes of its file."""
    head = {
        "key": key,
        "image": len(entry.image),
        "arrays": [[array.dtype.name, array.shape] for array in entry.arrays],
        "facts": dict(entry.facts),
    }
    rest = b"".join([
        json.dumps(head).encode(), b"\n", entry.image, *(array.tobytes() for array in entry.arrays)
    ])
    return FORMAT + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def _unpacked(key: str, data: bytes) -> Entry | None:
    """The entry in a file's bytes; None unless they are as they were written, for this key."""
    start = len(FORMAT) + 65
    if not data.startswith(FORMAT) or len(data) < start:
        return None
    if data[len(FORMAT):start] != hashlib.sha256(memoryview(data)[start:]).hexdigest().encode() + b"\n":
        return None

    end = data.index(b"\n", start)
    head = json.loads(data[start:end])
    if head["key"] != key:
        return None

    at = end + 1 + head["image"]
    image = data[end + 1:at]
    arrays: list[Array] = []
    for kind, shape in head["arrays"]:
        array = aligned_empty(tuple(shape), numpy_dtype(kind))
        array[...] = np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape)
        arrays.append(array)
        at += array.nbytes
    return Entry(image, head["facts"], tuple(arrays))


def _read(path: Path) -> bytes:
    """The bytes of an entry that is now the one used last.  Raises OSError."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        if not _is_private(os.fstat(file.fileno())):
            raise PermissionError(f"others may write to {path}")
        data = file.read()

    with contextlib.suppress(OSError):
        os.utime(path)
    return data


def _is_private(about: os.stat_result) -> bool:
    """Whether this user, and nobody else, can have written there; not known on Windows, whose profiles are private."""
    if not hasattr(os, "geteuid"):
        return True
    return about.st_uid == os.geteuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _wait_for(handle: int) -> None:
    """Takes the lock on an open file, unless it cannot be had in time.  Raises OSError where locks do not work."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
    return None
