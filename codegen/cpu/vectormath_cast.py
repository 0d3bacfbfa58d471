"""Conversions between dtypes, NumPy's `astype` wherever that is defined."""

from __future__ import annotations

import numpy as np

from tensorc.codegen.cpu.vectormath import Instructions
from tensorc.ir.types import DType, bf16, f16, f32, f64, i16


def cast(o: Instructions, x: str, to: DType) -> str:
    """x converted to lanes of dtype `to`.

    Floats become integers by truncation; what is out of range saturates and NaN gives 0.  Anything becomes a bool by
    comparing it with 0.  What becomes bfloat16 becomes float32 first and is rounded twice, as by `ml_dtypes`, JAX and
    PyTorch; what becomes float16 is rounded once.
    """
    out = o.like(to)
    if o.dtype is to:
        return x
    if to.is_bool:
        return _nonzero(o, x)
    if o.dtype.is_half and to is not f32:
        return cast(o.like(f32), cast(o, x, f32), to)
    if o.dtype is f64 and to is f16:
        return _narrowed_twice(o, x)
    if to.is_half and o.dtype is not f32:
        return cast(o.like(f32), cast(o, x, f32), to)

    if o.dtype.is_float:
        return _from_float(o, x, out)
    if to.is_float:
        return o.convert("uitofp" if o.unsigned else "sitofp", x, out)
    if to.size <= o.dtype.size and not o.dtype.is_bool:
        return x if to.size == o.dtype.size else o.convert("trunc", x, out)
    return o.convert("zext" if o.unsigned else "sext", x, out)


def _nonzero(o: Instructions, x: str) -> str:
    if o.dtype.is_half:
        wide = o.like(i16)
        magnitude = wide.binary("and", o.emit(f"bitcast {o.T} {x} to {wide.T}"), wide.c(0x7FFF))
        return wide.compare("ne", magnitude, wide.c(0))
    return o.compare("une" if o.dtype.is_float else "ne", x, o.c(0))


def _from_float(o: Instructions, x: str, out: Instructions) -> str:
    if out.dtype is bf16:
        return _upper_half(o, x)
    if o.dtype is bf16:
        i = out.integers
        return out.from_bits(i.binary("shl", o.like(i16).convert("zext", x, i), i.c(16)))
    if out.dtype is f16:
        return o.convert("fptrunc", x, out) if o.half else _narrowed_by_integers(o, x, out)
    if o.dtype is f16:
        return o.convert("fpext", x, out) if o.half else _widened_by_integers(o, x, out)
    if out.dtype.is_float:
        return o.convert("fpext" if out.dtype is f64 else "fptrunc", x, out)
    return _saturated(o, x, out)


def _saturated(o: Instructions, x: str, out: Instructions) -> str:
    """Floats to integers within their range, NaN to 0.  LLVM has an intrinsic, which x86 runs lane by lane."""
    least, most = np.iinfo(out.dtype.numpy).min, np.iinfo(out.dtype.numpy).max
    top = o.dtype.numpy.type(most)
    if int(top) > most:
        top = np.nextafter(top, o.dtype.numpy.type(0))

    within = o.when("ogt", x, o.c(least), x, o.c(least))     # NaN becomes the least
    within = o.when("olt", within, o.c(top), within, o.c(top))
    whole = o.convert("fptoui" if out.unsigned else "fptosi", within, out)
    if top < most:
        whole = out.select(o.compare("ogt", x, o.c(top)), out.c(most), whole)
    return out.select(o.compare("uno", x, x), out.c(0), whole)


def _upper_half(o: Instructions, x: str) -> str:
    """f32 to bf16, half to even; NaN becomes the quiet one of its sign."""
    i = o.integers
    b = o.bits(x)
    odd = i.binary("and", i.binary("lshr", b, i.c(16)), i.c(1))
    rounded = i.plus(i.plus(b, i.c(0x7FFF)), odd)
    nan = i.binary("or", i.binary("and", b, i.c(-0x80000000)), i.c(0x7FC00000))
    value = i.select(o.compare("uno", x, x), nan, rounded)
    return i.convert("trunc", i.binary("lshr", value, i.c(16)), o.like(i16))


def _narrowed_twice(o: Instructions, x: str) -> str:
    """f64 to f16 by way of f32, rounded once: the f32 is rounded to odd, which the second rounding sees through."""
    single = o.like(f32)
    bits = single.integers
    nearest = o.convert("fptrunc", x, single)
    back = single.convert("fpext", nearest, o)

    inexact = o.compare("one", back, x)
    b = single.bits(nearest)
    even = bits.compare("eq", bits.binary("and", b, bits.c(1)), bits.c(0))
    outward = o.compare("ogt", o.magnitude(back), o.magnitude(x))
    odd = bits.plus(b, bits.select(outward, bits.c(-1), bits.c(1)))
    b = bits.select(single.mask("and", inexact, even), odd, b)
    return cast(single, single.from_bits(b), f16)


def _widened_by_integers(o: Instructions, x: str, out: Instructions) -> str:
    """f16 to f32 without an instruction for it: shift the fields, then let a multiplication rebias the exponent."""
    i = out.integers
    b = o.like(i16).convert("zext", o.emit(f"bitcast {o.T} {x} to {o.like(i16).T}"), i)
    fields = i.binary("shl", i.binary("and", b, i.c(0x7FFF)), i.c(13))
    value = out.bits(out.times(out.from_bits(fields), out.c(2.0**112)))

    special = i.compare("sge", fields, i.c(0x7C00 << 13))
    value = i.select(special, i.binary("or", fields, i.c(0x7F800000)), value)
    sign = i.binary("shl", i.binary("and", b, i.c(0x8000)), i.c(16))
    return out.from_bits(i.binary("or", value, sign))


def _narrowed_by_integers(o: Instructions, x: str, out: Instructions) -> str:
    """f32 to f16 without an instruction for it, half to even."""
    i = o.integers
    b = o.bits(x)
    magnitude = i.binary("and", b, i.c(0x7FFFFFFF))

    # Normal results: rebias, add half of the last place (less one where it is even), drop 13 bits.
    odd = i.binary("and", i.binary("lshr", magnitude, i.c(13)), i.c(1))
    normal = i.plus(i.plus(magnitude, i.c(0xFFF - (112 << 23))), odd)
    normal = i.binary("lshr", normal, i.c(13))

    # Denormal results: adding 1/2 leaves the rounded mantissa in the low bits.
    shifted = o.bits(o.plus(o.from_bits(magnitude), o.c(0.5)))
    denormal = i.minus(shifted, i.c(0x3F000000))

    value = i.when("slt", magnitude, i.c(113 << 23), denormal, normal)
    value = i.when("sge", magnitude, i.c(143 << 23), i.c(0x7C00), value)
    value = i.when("sgt", magnitude, i.c(0x7F800000), i.c(0x7E00), value)
    sign = i.binary("lshr", i.binary("and", b, i.c(-0x80000000)), i.c(16))
    narrow = i.convert("trunc", i.binary("or", value, sign), o.like(i16))
    return o.emit(f"bitcast {o.like(i16).T} {narrow} to {out.T}")
