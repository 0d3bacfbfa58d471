"""LLVM IR text to machine code, and machine code to addresses.

    text → parsed and verified → four quick passes → object image → linked into the process

The image holds nothing of this process: what it calls outside itself is named, and resolved when it is loaded.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from tensorc.codegen.cpu.target import Target, quick_code_generation
from tensorc.errors import InternalError

_library_numbers = itertools.count()
LLVM = threading.Lock()
"""LLVM works for one thread at a time, and for none while the process forks."""

if hasattr(os, "register_at_fork"):  # no child is born with LLVM half-way through something
    os.register_at_fork(
        before=LLVM.acquire, after_in_parent=LLVM.release, after_in_child=LLVM.release
    )


class CodeError(InternalError):
    """LLVM refused generated code; `text` is that code."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(f"the code made for a program is not valid; this is a fault of tensorc\n{message}")
        self.text = text


@dataclass(frozen=True)
class Compiled:
    """An object image and the seconds each stage took: parse, optimise, generate."""

    image: bytes
    times: Mapping[str, float]


class Library:
    """An image that lies in memory, callable; it is unloaded when nobody refers to it any more."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def address(self, name: str) -> int:
        """Where the exported `name` lies; valid as long as this library lives."""
        return int(self._tracker[name])

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        """The exported `name` as a ctypes function that releases the GIL and keeps the library alive."""
        function: Any = ctypes.CFUNCTYPE(result, *arguments)(self.address(name))
        function.library = self
        return function


def compile_text(text: str, target: Target) -> Compiled:
    """The object image of LLVM IR `text`.  Raises CodeError."""
    times: dict[str, float] = {}

    with _module(text, target, times) as (module, machine):
        start = time.perf_counter()
        image = machine.emit_object(module)
        times["generate"] = time.perf_counter() - start

    return Compiled(image, times)


def optimised(text: str, target: Target) -> str:
    """The LLVM IR that code is generated from.  Raises CodeError."""
    with _module(text, target, {}) as (module, _):
        return str(module)


def assembly(text: str, target: Target) -> str:
    """The assembly text of the code that `compile_text` makes.  Raises CodeError."""
    with _module(text, target, {}) as (module, machine):
        return str(machine.emit_assembly(module))


def load(image: bytes, exports: Iterable[str], imports: Mapping[str, int] | None = None) -> Library:
    """Links an image into this process.

    Args:
        image: what `compile_text` made for this machine.
        exports: the functions of the image that will be asked for.
        imports: addresses of symbols that neither the image nor the C library defines.

    Raises: InternalError if the image is damaged or a symbol is missing.
    """
    builder = llvm.JITLibraryBuilder().add_object_img(image).add_current_process()

    for name in exports:
        builder.export_symbol(name)
    for name, address in (imports or {}).items():
        builder.import_symbol(name, address)

    try:
        with LLVM:
            return Library(builder.link(_linker(), f"tensorc-{next(_library_numbers)}"))
    except RuntimeError as error:
        raise InternalError(f"compiled code cannot be loaded: {error}") from None


@contextmanager
def _module(text: str, target: Target, times: dict[str, float]) -> Iterator[tuple[Any, Any]]:
    """The parsed, verified and optimised module with its target machine, while LLVM is ours alone."""
    with LLVM, quick_code_generation():
        start = time.perf_counter()
        machine = target.machine()
        module = _parse(text, machine)
        parsed = time.perf_counter()

        _optimise(module, machine)
        times.update(parse=parsed - start, optimise=time.perf_counter() - parsed)
        yield module, machine


def _parse(text: str, machine: Any) -> Any:
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise CodeError(str(error), text) from None
    return module


def _optimise(module: Any, machine: Any) -> None:
    """The passes that explicitly vectorised code still needs.

    Against LLVM's O3 they take half the time, and the code of four kernels was no slower.
    """
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()

    tuning = llvm.create_pipeline_tuning_options()
    passes.run(module, llvm.create_pass_builder(machine, tuning))


@functools.cache
def _linker() -> Any:
    """The process's one linker; llvmlite leaves it in place at exit, when threads may still run its code.

    JITLink places all of an object within reach of itself, which the older loader does not promise.
    """
    return llvm.create_lljit_compiler(Target.host().machine(), use_jit_link=True)
