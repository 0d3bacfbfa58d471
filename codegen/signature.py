"""What tells kernels apart: what they do, and not what they are called."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import fields
from typing import Any

from tensorc.codegen import loopir as ir
from tensorc.codegen.loopir import Work


def signature(kernel: Work) -> Hashable:
    """What a kernel does, whatever it and its buffers are called; kernels of one signature can stand for each other."""
    names: dict[str, Hashable] = {b.name: i for i, b in enumerate(kernel.buffers)}
    names[kernel.name] = "kernel"
    if not isinstance(kernel, ir.Kernel) and kernel.epilogue is not None:
        names[kernel.epilogue.name] = "epilogue"
    return _spelled(kernel, names)


def _spelled(thing: Any, names: Mapping[str, Hashable]) -> Hashable:
    """A piece of the loop IR with some names replaced."""
    if isinstance(thing, str):
        return names.get(thing, thing)
    if isinstance(thing, tuple):
        return tuple([_spelled(each, names) for each in thing])
    if isinstance(thing, ir.Num):
        return ir.Num, repr(thing.value), thing.dtype  # 0.0 is not -0.0, and nan is nan
    if type(thing).__module__ == ir.__name__:
        return type(thing), *[_spelled(getattr(thing, f.name), names) for f in fields(thing)]
    size_or_dtype: Hashable = thing
    return size_or_dtype
