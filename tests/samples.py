"""The samples of the registry as cases: computations of unknown sizes, in every dtype, with values for them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from graphs import closed, tensor

from tensorc.autodiff import gradients
from tensorc.errors import TensorcError
from tensorc.ir import dims
from tensorc.ir.assume import collecting
from tensorc.ir.graph import replace_nodes
from tensorc.ir.node import Node, Op, make, symbols_of
from tensorc.ir.types import DTYPES, TensorType, boolean, f32, numpy_kind
from tensorc.ir.types import dtype as dtype_of
from tensorc.ops.sample import Sample
from tensorc.runtime.effects import READERS
from tensorc.runtime.program import canonical

Array = np.ndarray[Any, Any]
Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Case:
    """An operation applied to parameters, and the results that are looked at: its value or its gradients.

    Attributes:
        sizes: what the sample has for each symbol.
        params: the operands, and what else the outputs depend on.
    """

    label: str
    sample: Sample
    sizes: Sizes
    node: Node
    params: tuple[Node, ...]
    outputs: tuple[Node, ...]

    @property
    def accumulates(self) -> str:
        """What it makes out of several elements: "" for nothing, "mul" for their product, "add" for all else."""
        op = self.node.op
        if op.reduce is not None and op.reduce.combine == "mul":
            return "mul"
        return "" if op.scalar and self.outputs == (self.node,) else "add"

    def with_sizes(self, sizes: Sizes) -> Case:
        """The case with known sizes.  Raises TensorcError where the operation does not take them."""
        node, *rest = replace_nodes([self.node, *self.params, *self.outputs], {}, {s: sizes[s] for s in self.sizes})
        count = len(self.params)
        return replace(self, sizes={}, node=node, params=tuple(rest[:count]), outputs=tuple(rest[count:]))

    def takes(self, sizes: Sizes) -> bool:
        """Whether the operation takes these sizes, and the sample has values for them."""
        if self.sample.fixed and sizes != self.sizes:
            return False
        try:
            params = self.with_sizes(sizes).params
        except TensorcError:
            return False
        shapes = [p.shape for p in params]
        return all(n >= 0 for shape in shapes for n in shape) and [a.shape for a in self.arrays(sizes)] == shapes

    def arrays(self, sizes: Sizes) -> list[Array]:
        """Values of the parameters, indices among them inside their axes: none where an axis is empty."""
        types = [p.type.with_shape([dims.evaluate(s, sizes) for s in p.shape]) for p in self.params]
        arrays = replace(self.sample, operands=tuple(types)).arrays()
        if self.node.op.name in READERS and not self.sample.fixed:
            _, size, _ = READERS[self.node.op.name](self.node)[0]
            bound = dims.evaluate(size, sizes)
            arrays[1] = arrays[1] % bound if bound else arrays[1].ravel()[:0]
        return arrays

    def extremes(self, sizes: Sizes) -> list[Array]:
        """As arrays, with about half of the numbers replaced by some that are hard on the operation."""
        generator = np.random.default_rng(0)
        found = []
        for array in self.arrays(sizes):
            hard = self._hard(array.dtype)
            if hard:
                others = generator.choice(np.array(hard, array.dtype), array.shape)
                array = np.where(generator.random(array.shape) < 0.5, others, array)
            found.append(array)
        return found

    def _hard(self, dtype: np.dtype[Any]) -> list[Any]:
        """Numbers on which it counts what is done, but not, where elements are accumulated, in which order."""
        if numpy_kind(dtype) == "f":
            limits = dtype_of(dtype).finfo
            hard = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0]
            if self.accumulates != "mul":
                hard += [40.0, -40.0, limits.tiny, -3 * limits.smallest_subnormal]
            if not self.accumulates:
                hard += [limits.max, limits.min]
            return hard
        if dtype.kind in "iu" and self.node.op.way in ("scalar", "reduce"):
            whole = np.iinfo(dtype)
            return [whole.min, whole.max, 0, 1, whole.max // 2] + [-1] * (dtype.kind == "i")
        return []


def cases_of(op: Op) -> list[Case]:
    """The samples of an operation, and the first one in each further dtype that the operation takes."""
    return [_case(op, sample, f"{op.name}_{i}") for i, sample in enumerate([*op.samples, *_in_further_dtypes(op)])]


def with_gradients(case: Case) -> Case | None:
    """The gradients of a case in its float operands, weighted by a further parameter; None where there are none."""
    weights = tensor(f"{case.label}_weights", *case.node.shape, dtype=case.node.dtype)
    found = tuple(g for g in gradients([case.node], [weights], case.params) if g is not None)
    return replace(case, params=(*case.params, weights), outputs=found) if found else None


def distinct(cases: Iterable[Case]) -> list[Case]:
    """The cases without those that are the same computation but for the names of sizes and the dtypes of numbers."""
    found: dict[str, Case] = {}
    for case in cases:
        text = canonical(closed(*case.outputs))
        found.setdefault(re.sub(r"\b(bf|[fiu])\d+\b", "number", text), case)
    return list(found.values())


def _in_further_dtypes(op: Op) -> Iterator[Sample]:
    """The first sample with other numbers in place of the first operand's and of those that are alike."""
    known = {t.dtype for sample in op.samples for t in sample.operands}
    for sample in op.samples[:1]:
        main = next((t.dtype for t in sample.operands if t.dtype is not boolean), None)
        for dtype in DTYPES:
            if main is not None and dtype not in known:
                operands = tuple(t.with_dtype(dtype) if t.dtype is main else t for t in sample.operands)
                retyped = replace(sample, operands=operands)
                if _inferred(op, retyped) is not None:
                    yield retyped


def _inferred(op: Op, sample: Sample) -> TensorType | None:
    """The type of the result; None where the operation does not take the operands, or assumes anything of sizes."""
    with collecting() as needs:
        try:
            result = op.infer(*sample.operands, **sample.attrs)
        except TensorcError:
            return None
    return None if needs.equal or needs.reach else result


def _case(op: Op, sample: Sample, label: str) -> Case:
    sample, sizes = _of_unknown_sizes(op, sample, label)
    params = [tensor(f"{label}_x{i}", *t.shape, dtype=t.dtype) for i, t in enumerate(sample.operands)]
    node = make(op, *params, **sample.attrs)

    # A size that no operand has comes in as that of a parameter that is not used.
    told = {s for t in sample.operands for size in t.shape for s in dims.symbols(size)}
    untold = sorted(symbols_of(node) - told)
    if untold:
        params.append(tensor(f"{label}_sizes", *map(dims.symbol, untold), dtype=f32))
    return Case(label, sample, sizes, node, tuple(params), (node,))


def _of_unknown_sizes(op: Op, sample: Sample, label: str) -> tuple[Sample, Sizes]:
    """The sample with a symbol for each size but 1 that may be unknown, the same one for equal sizes."""
    annotations = {p.name: str(p.annotation) for p in inspect.signature(op.infer).parameters.values()}
    holders = [name for name in sample.attrs if "Size" in annotations[name]]
    inside = [n for name in holders for n in np.ravel(sample.attrs[name]).tolist() if n > 1]
    outside = [n for t in sample.operands for n in t.shape if n != 1]

    sizes: dict[str, int] = {}
    for value in sorted({*inside, *outside}):
        symbol = dims.symbol(f"{label}_n{value}")

        def renamed(sizes: Any, value: int = value, symbol: dims.Dim = symbol) -> Any:
            if isinstance(sizes, tuple):
                return tuple(map(renamed, sizes))
            return symbol if sizes == value else sizes

        def resized(t: TensorType, renamed: Callable[[Any], Any] = renamed) -> TensorType:
            return t.with_shape(renamed(t.shape))

        operands = tuple(map(resized, sample.operands))
        attrs = {k: renamed(v) if k in holders else v for k, v in sample.attrs.items()}
        trials = (
            replace(sample, operands=operands, attrs=attrs).with_bodies(resized),
            replace(sample, operands=operands).with_bodies(resized),
            replace(sample, attrs=attrs),
        )
        accepted = next((t for t in trials if t != sample and _inferred(op, t) is not None), None)
        if accepted is not None:
            sample = accepted
            sizes[str(symbol)] = value
    return sample, sizes
