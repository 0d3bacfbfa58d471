"""Dtypes and tensor types."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc.errors import DTypeError
from tensorc.ir import dims
from tensorc.ir.dims import Size


@dataclass(frozen=True, eq=False)
class DType:
    """One element type; compare by identity.

    Attributes:
        name: NumPy's name of it.
        short: the IR's.
        size: bytes of one element in memory.
    """

    name: str
    short: str
    size: int

    @property
    def numpy(self) -> np.dtype[Any]:
        """NumPy's dtype.  Raises DTypeError for bfloat16 where `ml_dtypes`, which has it, is not installed."""
        return numpy_dtype(self.name)

    @property
    def finfo(self) -> Any:
        """What `np.finfo` tells of a float."""
        return _ml_dtypes().finfo(self.numpy) if self is bf16 else np.finfo(self.numpy)

    @property
    def is_float(self) -> bool:
        return "float" in self.name

    @property
    def is_half(self) -> bool:
        """Is it a float of 16 bits, which is only stored: what is computed is computed in `wide`?"""
        return self.is_float and self.size == 2

    @property
    def wide(self) -> DType:
        """The dtype that arithmetic on it happens in: float32 for floats of 16 bits, else its own."""
        return f32 if self.is_half else self

    @property
    def is_integer(self) -> bool:
        return self.short[0] in "iu"

    @property
    def is_bool(self) -> bool:
        return self.short == "bool"

    def __str__(self) -> str:
        return self.short

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return dtype, (self.name,)


f16, bf16 = DType("float16", "f16", 2), DType("bfloat16", "bf16", 2)
f32, f64 = DType("float32", "f32", 4), DType("float64", "f64", 8)
i8, i16, i32, i64 = DType("int8", "i8", 1), DType("int16", "i16", 2), DType("int32", "i32", 4), DType("int64", "i64", 8)
u8, boolean = DType("uint8", "u8", 1), DType("bool", "bool", 1)

DTYPES = (f16, bf16, f32, f64, i8, i16, i32, i64, u8, boolean)
_BY_NAME = {spelling: d for d in DTYPES for spelling in (d.name, d.short)}


def dtype(spec: object) -> DType:
    """The DType of a name ('float32'), an IR spelling ('f32'), a NumPy dtype or a DType.  Raises TypeError."""
    if isinstance(spec, DType):
        return spec
    found = _BY_NAME.get(spec) if isinstance(spec, str) else None
    if found is None:
        try:
            found = _BY_NAME.get(np.dtype(spec).name)  # type: ignore[call-overload]
        except TypeError:
            found = None
    if found is None:
        raise TypeError(f"unknown dtype {spec!r}; known are {', '.join(d.name for d in DTYPES)}")
    return found


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype of a name, bfloat16 among them."""
    return np.dtype(_ml_dtypes().bfloat16 if name == bf16.name else name)


def numpy_kind(dtype: np.dtype[Any]) -> str:
    """NumPy's letter for a kind of dtypes; bfloat16, to NumPy a stranger, is a float, too."""
    return "f" if dtype.kind == "V" and dtype.name == bf16.name else dtype.kind


@functools.cache
def _ml_dtypes() -> Any:
    try:
        import ml_dtypes
    except ImportError:
        raise DTypeError("bfloat16 needs the package ml_dtypes, which makes it a dtype of NumPy's\n"
                         "pip install 'tensorc[bfloat16]'") from None
    return ml_dtypes


@dataclass(frozen=True)
class TensorType:
    """Dtype and shape of a tensor; sizes may be symbolic."""

    dtype: DType
    shape: tuple[Size, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def count(self) -> Size:
        """How many elements."""
        return dims.product(self.shape)

    @property
    def bytes(self) -> Size:
        """How many bytes its elements take, one behind the other."""
        return self.count * self.dtype.size

    def with_shape(self, shape: Sequence[Size]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def parse_type(text: str) -> TensorType:
    """The type that `text` spells, such as `f32[n,784]`.  Raises ValueError."""
    name, bracket, rest = text.strip().partition("[")
    if name not in _BY_NAME or not bracket or not rest.endswith("]"):
        raise ValueError(f"not a type: {text!r}")
    return TensorType(_BY_NAME[name], tuple(dims.parse(d) for d in split_commas(rest[:-1])))


def split_commas(text: str) -> list[str]:
    """`text` cut at its top-level commas; nothing for blank text."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [p.strip() for p in [*parts, text[start:]]] if text.strip() else []
