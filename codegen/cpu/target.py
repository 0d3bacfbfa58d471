"""The processor that code is made for: its vectors, and LLVM's machine for it."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")

SKIPPED = ("-disable-lsr", "-disable-post-ra")
"""LLVM's options that switch passes off."""


@dataclass(frozen=True)
class Target:
    """A processor; equal targets make equal code.

    Attributes:
        triple: LLVM's name of architecture, vendor and system.
        cpu: LLVM's name of the processor.
        features: LLVM's feature list, `+avx2,-avx512f,…`.
        bits: width of a vector register, 128, 256 or 512.
        fma: whether a fused multiply-add is one instruction; without it `llvm.fma` is a call into libm.
        half: whether float16 converts to and from float32 in one instruction.
    """

    triple: str
    cpu: str
    features: str
    bits: int
    fma: bool
    half: bool

    @staticmethod
    def of(triple: str, cpu: str, features: str) -> Target:
        """The target with these names; width, fma and half follow from the features."""
        has = frozenset(f[1:] for f in features.split(",") if f.startswith("+"))

        if _architecture(triple) == "aarch64":
            return Target(triple, cpu, features, bits=128, fma=True, half=True)

        bits = 512 if has.issuperset(AVX512) else 256 if "avx2" in has else 128
        return Target(triple, cpu, features, bits, fma="fma" in has, half="f16c" in has)

    @staticmethod
    @functools.cache
    def host() -> Target:
        """The processor of this process."""
        triple = llvm.get_process_triple()
        if os.name == "nt":
            triple += "-elf"  # LLVM's loaders know ELF best, on Windows too
        return Target.of(triple, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())

    @property
    def architecture(self) -> str:
        """`x86_64`, `aarch64`, or LLVM's name of another."""
        return _architecture(self.triple)

    @property
    def system(self) -> str:
        """`linux`, `darwin`, `windows`, or `other`."""
        for system, marks in {"linux": ("linux",), "darwin": ("darwin", "macosx"), "windows": ("windows",)}.items():
            if any(mark in self.triple for mark in marks):
                return system
        return "other"

    @property
    def key(self) -> str:
        """A text that differs wherever the machine code may differ, LLVM's version included."""
        version = ".".join(map(str, llvm.llvm_version_info))
        return f"{self.triple} {self.cpu} {self.features} llvm-{version}"

    @property
    def registers(self) -> int:
        """How many vector registers there are."""
        return 32 if self.bits == 512 or self.architecture == "aarch64" else 16

    def lanes(self, size: int) -> int:
        """How many elements of `size` bytes a vector register holds."""
        return self.bits // (8 * size)

    def machine(self) -> Any:
        """A new llvmlite TargetMachine: position-independent code, small code model."""
        _initialise(native=self.triple.startswith(llvm.get_process_triple()))
        return llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu, features=self.features, opt=2, reloc="pic", codemodel="small"
        )


@contextmanager
def quick_code_generation() -> Iterator[None]:
    """Code generation without loop strength reduction and a second scheduling, inside the `with` only.

    Explicitly vectorised loops gain nothing from the first, which takes a third of the time, and processors that
    reorder instructions nothing from the other, which takes a tenth.  LLVM's options belong to the whole process, so
    they are put back for others who use LLVM, Numba among them.
    """
    for option in SKIPPED:
        llvm.set_option("tensorc", f"{option}=true")
    try:
        yield
    finally:
        for option in SKIPPED:
            llvm.set_option("tensorc", f"{option}=false")


@functools.cache
def _initialise(native: bool) -> None:
    """Starts LLVM's back end for this machine, or all of them for code that runs elsewhere."""
    if native:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.initialize_native_asmparser()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()


def _architecture(triple: str) -> str:
    name = triple.partition("-")[0]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(name, name)
