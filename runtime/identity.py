"""What compiled code depends on, as keys for the store: equal keys, equal code."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import llvmlite
import numpy as np

import tensorc
from tensorc import ops
from tensorc.codegen.cpu.target import Target
from tensorc.ir.graph import Graph, all_nodes
from tensorc.ir.node import Node
from tensorc.runtime import IMPORTED

if TYPE_CHECKING:
    from tensorc.passes.manager import Pipeline

COMPILER = ("codegen", "custom", "ir", "ops", "passes", "runtime")
"""The packages whose sources decide what code is made."""


def of_passes(pipeline: Pipeline | None) -> str | None:
    """The identity of a pipeline, where None stands for the default one, which then need not be imported."""
    return "default" if pipeline is None else pipeline.identity


def of_program(graph: Graph, text: str, pipeline: Pipeline | None, device: str = "") -> str | None:
    """The key of a graph's program, or None where it depends on something that is not known.

    Args:
        text: the graph's canonical text.
        device: what its code is for, and made by, where that is not this processor.
    """
    passes = of_passes(pipeline)
    own = all(getattr(ops, node.op.name, None) is node.op or digest_of(node) for node in all_nodes(graph))
    return _key("program", text, passes, device) if passes is not None and own else None


def of_kernel(text: str, device: str) -> str | None:
    """The key of a kernel for a device, as text and as what `device` says of that and of the compiler."""
    return _key("kernel", text, device)


def of_scalar(digest: str, kinds: str) -> str | None:
    """The key of a user's scalar function on arguments of these kinds."""
    return _key("scalar", digest, kinds)


def digest_of(node: Node) -> str | None:
    """What the code of a user's operation depends on besides the graph's text; None if unknown, or if it is not one."""
    return node.op.digest(node) if node.op.digest is not None else None


def of_library(name: str) -> str | None:
    """The key of code that is the same for all programs, such as the pool's."""
    return _key("library", name)


def _key(*parts: str) -> str | None:
    """A digest of the parts and of all that every piece of code depends on."""
    compiler = _compiler()
    if compiler is None:
        return None
    return hashlib.sha256("\0".join((compiler, *parts)).encode()).hexdigest()


@functools.cache
def _compiler() -> str | None:
    """The compiler and the machine it compiles for, or None where the compiler's sources cannot be told."""
    sources = _sources()
    if sources is None:
        return None
    return "\0".join([
        tensorc.__version__, sources, np.__version__, llvmlite.__version__, Target.host().key, str(sys.maxsize)
    ])


def _sources() -> str | None:
    """A digest of the compiler's sources.

    None where they are not there as files, or one is newer than what this process runs.
    """
    digest = hashlib.sha256()
    found: set[str] = set()

    for package, path in _source_files():
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mtime > IMPORTED:
                return None
            text = file.read()

        digest.update(f"{package} {os.path.basename(path)} {len(text)}\0".encode())
        digest.update(text)
        found.add(package)

    return digest.hexdigest() if found.issuperset(COMPILER) else None


def _source_files() -> Iterator[tuple[str, str]]:
    """Package and path of every source, always in the same order."""
    for root in tensorc.__path__:
        for package in COMPILER:
            for folder, folders, files in os.walk(os.path.join(root, package)):
                folders.sort()
                yield from ((package, os.path.join(folder, name)) for name in sorted(files) if name.endswith(".py"))
