"""Kernel text to PTX and machine code, by Numba-CUDA and nvJitLink.  Neither needs a GPU or a driver.

This module and `intrinsics.py` are all that knows Numba-CUDA, which is pinned.  Importing it takes a second, so that
happens when the first kernel is compiled.
"""

from __future__ import annotations

import functools
import hashlib
import linecache
import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tensorc.codegen.cuda.intrinsics import INTRINSICS, REGISTERS, Intrinsic, in_register, llvm_type
from tensorc.codegen.cuda.source import Source
from tensorc.errors import DeviceError
from tensorc.ir.types import DTYPES, DType, boolean, f32, f64

INSTALL = "pip install 'tensorc[cuda]'"
CAPABILITIES = ((8, 0), (9, 0))
"""The compute capabilities that code is tested for."""


@dataclass(frozen=True)
class Cubin:
    """Machine code of one kernel.

    Attributes:
        entry: its name in the code.
        registers, spilled, shared: registers of a thread, bytes it spills, bytes of shared memory of a block.
    """

    entry: str
    code: bytes
    registers: int
    spilled: int
    shared: int


def missing() -> list[str]:
    """What generated kernels cannot be compiled without, and is not installed."""
    from importlib.util import find_spec

    def is_there(name: str) -> bool:
        try:
            return find_spec(name) is not None
        except ModuleNotFoundError:
            return False

    wanted = {"numba_cuda": "numba-cuda", "cuda.core": "cuda-core", "nvidia.cu13": "cuda-toolkit[nvvm]"}
    return [package for name, package in wanted.items() if not is_there(name)]


def ptx(source: Source, capability: tuple[int, int] = (9, 0)) -> str:
    """The PTX of a kernel.  Raises DeviceError where Numba-CUDA is missing."""
    (text,) = _lowered(source).get_asm_strs(cc=capability)
    return str(text)


@functools.lru_cache(maxsize=1)
def _lowered(source: Source) -> Any:
    """A kernel in LLVM IR, as Numba's own library of code.

    That takes most of the time (70 ms of 90 for an average kernel), and is the same for all capabilities.
    """
    types = _numba()[1]
    from numba.cuda import compiler

    pointers = [types.CPointer(_numba_type(d, stored=True)) for d in source.dtypes]
    sizes = [types.int64 if source.wide else types.int32] * len(source.sizes)
    compiled = compiler._compile_pyfunc_with_fixup      # type: ignore[attr-defined]     # `cuda.compile`, but its PTX
    library, _ = compiled(_function(source), (*pointers, *sizes), device=False, abi="numba", cc=CAPABILITIES[0],
                          launch_bounds=source.threads)
    return library


def entry(text: str) -> str:
    """The name of the kernel in PTX."""
    found = re.search(r"\.entry (\S+?)\(", text)
    assert found is not None
    return found[1]


def cubin(text: str, capability: tuple[int, int] = (9, 0)) -> Cubin:
    """Machine code of PTX.  Raises DeviceError where nvJitLink is missing, or makes none for this capability."""
    _numba()
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=f"sm_{capability[0]}{capability[1]}", ptxas_options=["-v"])
    try:
        linker = Linker(ObjectCode.from_ptx(text.encode()), options=options)
        code = linker.link("cubin").code
    except Exception as error:
        major, minor = capability
        raise DeviceError(f"nvJitLink makes no code for compute capability {major}.{minor}: {error}") from error
    log = linker.get_info_log()

    def told(pattern: str) -> int:
        found = re.search(pattern, log)
        return int(found[1]) if found else 0

    shared = sum(int(n) for n in re.findall(r"\.shared .*\[(\d+)\];", text))
    return Cubin(entry(text), code, told(r"Used (\d+) registers"), told(r"(\d+) bytes spill stores"), shared)


def cubins(sources: Iterable[Source], capability: tuple[int, int] = (9, 0)) -> list[Cubin]:
    """Machine code of several kernels.  Raises DeviceError where a compiler is missing."""
    return [cubin(ptx(source, capability), capability) for source in sources]


# -- Numba


@functools.cache
def _numba() -> tuple[ModuleType, ModuleType]:
    lacking = missing()
    if lacking:
        raise DeviceError(f"kernels for a GPU need {', '.join(lacking)} to be compiled: {INSTALL}")
    from numba import cuda
    from numba.cuda import types

    return cuda, types


def _numba_type(dtype: DType, stored: bool = False) -> Any:
    """Numba's name of a dtype; a bool in memory is a byte."""
    types = _numba()[1]
    if dtype is boolean:
        return types.uint8 if stored else types.boolean
    return getattr(types, in_register(dtype).name)


def _dtype(numba_type: Any) -> DType | None:
    return next((d for d in REGISTERS if _numba_type(d) == numba_type), None)


def _function(source: Source) -> Any:
    """The text as a Python function, known to `linecache` so that Numba finds its lines."""
    name = f"<tensorc {source.name} {hashlib.sha256(source.text.encode()).hexdigest()[:12]}>"
    linecache.cache[name] = (len(source.text), None, source.text.splitlines(True), name)
    names = {**_names(), "I": _numba()[1].int64 if source.wide else _numba()[1].int32}
    exec(compile(source.text, name, "exec"), names)
    return names[source.name]


@functools.cache
def _names() -> dict[str, Any]:
    """What the text may speak of."""
    import math

    from numba.cuda import libdevice

    cuda, types = _numba()
    found: dict[str, Any] = {"cuda": cuda, "libdevice": libdevice, "math": math, "boolean": types.boolean}
    found |= {d.name: _numba_type(d) for d in REGISTERS if d is not boolean}
    found |= {name: _registered(each) for name, each in INTRINSICS.items()}
    for width in (2, 4, 8):
        found |= _vector_access(width)
    return found


def _registered(each: Intrinsic) -> Any:
    """An intrinsic as Numba knows one."""
    from numba.cuda.extending import intrinsic

    def answer(*types: Any) -> Any:
        dtypes = tuple(_dtype(t) for t in types)
        result = None if None in dtypes else each.result(dtypes)  # type: ignore[arg-type]
        if result is None:
            return None

        def build(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return each.build(builder, dtypes, args)  # type: ignore[arg-type]

        return _numba_type(result)(*types), build

    parameters = ", ".join("abcd"[:each.arity])
    made: dict[str, Any] = {"answer": answer}
    exec(f"def {each.name}(context, {parameters}):\n    return answer({parameters})", made)
    return intrinsic(made[each.name])


def _vector_access(width: int) -> dict[str, Any]:
    """Loads and stores of `width` neighbours, which begin at a multiple of `width`; `below` tells where memory ends.

    Elements of one or two bytes travel as words of up to four: NVVM would move four of them at a time at most.
    """
    from llvmlite import ir as llvm
    from numba.cuda.extending import intrinsic

    types = _numba()[1]

    def words(element: Any) -> tuple[Any, int]:
        """The type that memory is accessed as, and how many elements one of them holds."""
        if not isinstance(element, llvm.IntType) or element.width >= 32:
            return element, 1
        word = llvm.IntType(min(32, element.width * width))
        return word, word.width // element.width

    def vector(builder: Any, pointer: Any, index: Any, word: Any, count: int) -> Any:
        place = builder.gep(pointer, [index])
        place = builder.addrspacecast(place, llvm.PointerType(pointer.type.pointee, 1))
        return builder.bitcast(place, llvm.PointerType(llvm.VectorType(word, count), 1))

    def lane(k: int) -> Any:
        return llvm.Constant(llvm.IntType(32), k)

    def wide_index(context: Any, builder: Any, index: Any, kind: Any) -> Any:
        return context.cast(builder, index, kind, types.int64)

    def whole_load(builder: Any, pointer: Any, index: Any) -> list[Any]:
        element = pointer.type.pointee
        word, each = words(element)
        loaded = builder.load(vector(builder, pointer, index, word, width // each))
        loaded.align = width * _bytes(element)
        values = [builder.extract_element(loaded, lane(k)) for k in range(width // each)]
        if each == 1:
            return values
        return [builder.trunc(builder.lshr(values[k // each], llvm.Constant(word, k % each * element.width)), element)
                for k in range(width)]

    def whole_store(builder: Any, pointer: Any, index: Any, values: list[Any]) -> None:
        element = pointer.type.pointee
        word, each = words(element)
        full = llvm.Constant(llvm.VectorType(word, width // each), llvm.Undefined)
        for k in range(0, width, each):
            value = values[k]
            if each > 1:
                value = builder.zext(value, word)
            for j in range(1, each):
                shifted = builder.shl(builder.zext(values[k + j], word), llvm.Constant(word, j * element.width))
                value = builder.or_(value, shifted)
            full = builder.insert_element(full, value, lane(k // each))
        place = vector(builder, pointer, index, word, width // each)
        builder.store(full, place).align = width * _bytes(element)

    def is_whole(builder: Any, index: Any, below: Any) -> Any:
        return builder.icmp_signed("<=", builder.add(index, llvm.Constant(index.type, width)), below)

    @intrinsic
    def load(_context: Any, pointer: Any, index: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at = wide_index(context, builder, args[1], signature.args[1])
            return context.make_tuple(builder, signature.return_type, whole_load(builder, args[0], at))

        return types.UniTuple(pointer.dtype, width)(pointer, index), build

    @intrinsic
    def store(_context: Any, pointer: Any, index: Any, values: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at = wide_index(context, builder, args[1], signature.args[1])
            whole_store(builder, args[0], at, [builder.extract_value(args[2], k) for k in range(width)])
            return context.get_dummy_value()

        return types.void(pointer, index, types.UniTuple(pointer.dtype, width)), build

    @intrinsic
    def load_below(_context: Any, pointer: Any, index: Any, below: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at = wide_index(context, builder, args[1], signature.args[1])
            end = wide_index(context, builder, args[2], signature.args[2])
            element = args[0].type.pointee
            with builder.if_else(is_whole(builder, at, end)) as (whole, rest):
                with whole:
                    loaded = whole_load(builder, args[0], at)
                    after_whole = builder.block
                with rest:
                    zero = llvm.Constant(element, 0)
                    single = []
                    for k in range(width):
                        here = builder.add(at, llvm.Constant(at.type, k))
                        before = builder.block
                        with builder.if_then(builder.icmp_signed("<", here, end)):
                            one = builder.load(builder.gep(args[0], [here]))
                            inside = builder.block
                        value = builder.phi(element)
                        value.add_incoming(one, inside)
                        value.add_incoming(zero, before)
                        single.append(value)
                    after_rest = builder.block
            values = []
            for one, other in zip(loaded, single, strict=True):
                value = builder.phi(element)
                value.add_incoming(one, after_whole)
                value.add_incoming(other, after_rest)
                values.append(value)
            return context.make_tuple(builder, signature.return_type, values)

        return types.UniTuple(pointer.dtype, width)(pointer, index, below), build

    @intrinsic
    def store_below(_context: Any, pointer: Any, index: Any, values: Any, below: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at = wide_index(context, builder, args[1], signature.args[1])
            end = wide_index(context, builder, args[3], signature.args[3])
            parts = [builder.extract_value(args[2], k) for k in range(width)]
            with builder.if_else(is_whole(builder, at, end)) as (whole, rest):
                with whole:
                    whole_store(builder, args[0], at, parts)
                with rest:
                    for k, part in enumerate(parts):
                        here = builder.add(at, llvm.Constant(at.type, k))
                        with builder.if_then(builder.icmp_signed("<", here, end)):
                            builder.store(part, builder.gep(args[0], [here]))
            return context.get_dummy_value()

        return types.void(pointer, index, types.UniTuple(pointer.dtype, width), below), build

    return {f"load{width}": load, f"store{width}": store,
            f"load{width}_below": load_below, f"store{width}_below": store_below}


def _bytes(element: Any) -> int:
    return next(d.size for d in (f32, f64, *DTYPES) if llvm_type(d) == element or str(element) == f"i{8 * d.size}")
