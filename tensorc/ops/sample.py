"""Samples: operands and attributes on which every test that walks the registry tries an operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorc.ir.graph import Graph, replace_nodes
from tensorc.ir.node import make
from tensorc.ir.types import DType, TensorType, parse_type


@dataclass(frozen=True)
class Sample:
    """Operand types, attributes, the span that numbers are drawn from, and the operands that are given instead."""

    operands: tuple[TensorType, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    span: tuple[float, float] = (-2.0, 2.0)
    fixed: Mapping[int, Any] = field(default_factory=dict)

    def arrays(self, seed: int = 0) -> list[NDArray[Any]]:
        """Operands with numbers from the span; the same ones for the same seed."""
        generator = np.random.default_rng(seed)
        return [np.asarray(self.fixed[i], t.dtype.numpy) if i in self.fixed else self._array(generator, t)
                for i, t in enumerate(self.operands)]

    def in_dtype(self, dtype: DType) -> Sample:
        """The sample with floats of another dtype."""
        operands = tuple(t.with_dtype(dtype) if t.dtype.is_float else t for t in self.operands)
        attrs = {k: dtype if isinstance(v, DType) and v.is_float else v for k, v in self.attrs.items()}
        whole = replace(self, operands=operands, attrs=attrs)
        return whole.with_bodies(lambda t: t.with_dtype(dtype) if t.dtype.is_float else t)

    def with_bodies(self, change: Callable[[TensorType], TensorType]) -> Sample:
        """The sample with the types of the parameters of graphs among the attributes changed."""
        return replace(self, attrs={k: _retyped(v, change) if isinstance(v, Graph) else v
                                    for k, v in self.attrs.items()})

    def _array(self, generator: np.random.Generator, type: TensorType) -> NDArray[Any]:
        low, high = self.span
        shape = tuple(int(s) for s in type.shape if isinstance(s, int))
        if type.dtype.is_bool:
            return generator.integers(0, 2, shape).astype(bool)
        if type.dtype.is_integer:
            lowest = max(int(low), int(np.iinfo(type.dtype.numpy).min))
            return generator.integers(lowest, int(high) + 1, shape).astype(type.dtype.numpy)
        return np.asarray(generator.uniform(low, high, shape)).astype(type.dtype.numpy)


def _retyped(graph: Graph, change: Callable[[TensorType], TensorType]) -> Graph:
    """A graph on parameters of other types."""
    params = {p: make(p.op, **{**p.attrs, "type": change(p.type)}) for p in graph.params}
    roots = replace_nodes(graph.roots, params)
    return replace(graph, params=tuple(params.values())).with_roots(roots)


def sample(*operands: str, span: tuple[float, float] = (-2.0, 2.0),
           fixed: Mapping[int, Any] | None = None, **attrs: Any) -> Sample:
    """A sample from types as text: `sample("f32[2,3]", "f32[3]")`."""
    return Sample(tuple(map(parse_type, operands)), attrs, span, fixed or {})


def unary(*dtypes: str, span: tuple[float, float] = (-2.0, 2.0)) -> list[Sample]:
    """One operand of several ranks, among them a size 0 and a size 1."""
    shapes = ("[2,3]", "[]", "[0,4]", "[1]")
    more = [sample(f"{d}[7]", span=span) for d in dtypes]
    return [*(sample(f"f32{s}", span=span) for s in shapes), *more]


def binary(*dtypes: str, span: tuple[float, float] = (-2.0, 2.0)) -> list[Sample]:
    """Two operands, alike and broadcast against each other."""
    pairs = (("[2,3]", "[2,3]"), ("[2,1,4]", "[3,1]"), ("[]", "[3]"), ("[5]", "[0,1]"))
    more = [sample(f"{d}[2,3]", f"{d}[3]", span=span) for d in dtypes]
    return [*(sample(f"f32{a}", f"f32{b}", span=span) for a, b in pairs), *more]
