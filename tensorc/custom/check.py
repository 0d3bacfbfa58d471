"""Whether an operation of one's own is what it says: compiled code, meaning and gradient against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorc.autodiff import gradients
from tensorc.errors import ArgumentError, TensorcError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import OPS, Node, NoGradient, Op, make
from tensorc.ir.types import TensorType, f64, numpy_kind
from tensorc.ops.interpret import apply
from tensorc.ops.sample import Sample

Array = np.ndarray[Any, Any]

TOLERANCE = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-11}
"""Of a value against its reference, relative to the larger of it and 1."""

SLOPE = 1e-5
"""Of a gradient against differences, in float64."""

STEP = 1e-6


def check(operation: Callable[..., Any], samples: Sequence[Sample] | None = None) -> None:
    """Compares what is compiled with the reference, for sizes known and unknown, and gradients with differences.

    Args:
        operation: what `custom.op` or `custom.elementwise` made.
        samples: operands and attributes, made by `custom.sample`; by default those of the operation.

    Raises: AssertionError that says which sample, and what of it, is wrong; ArgumentError without samples.
    """
    op: Op = operation.op  # type: ignore[attr-defined]
    chosen = op.samples if samples is None else samples
    if not chosen:
        raise ArgumentError(f"custom.check: {op.name} has no samples; give some: custom.sample('f32[2,3]', …)")
    for sample in chosen:
        if callable(op.kernel):
            _check_places(op, sample)
        _check_value(op, sample, sample.operands)
        unknown = _of_unknown_sizes(op, sample)
        if unknown is not None:
            _check_value(op, sample, unknown)
        if not isinstance(op.gradient, NoGradient):
            _check_gradient(op, sample.in_dtype(f64))


def _check_value(op: Op, sample: Sample, types: Sequence[TensorType]) -> None:
    params, node = _applied(op, sample, types)
    arrays = sample.arrays()
    _, plain = _applied(op, sample, sample.operands)
    want = apply(plain, arrays)
    (got,) = _compiled(params, [node])(arrays)
    _compare(got, want, TOLERANCE.get(want.dtype.name, 0.0), f"{_told(op, sample)}: compiled code and reference differ")


def _check_places(op: Op, sample: Sample) -> None:
    """Raises AssertionError where the kernel reads or writes outside of its buffers."""
    from tensorc.codegen.loopverify import verify
    from tensorc.codegen.python import oracle
    from tensorc.custom.loops import kernel_of

    _, node = _applied(op, sample, sample.operands)
    kernel = verify(kernel_of(node))
    arrays = sample.arrays()
    more = [np.zeros([int(str(s)) for s in b.shape], b.dtype.numpy) for b in kernel.buffers[len(arrays):]]
    try:
        oracle(kernel)(*arrays, *more)
    except IndexError as error:
        raise AssertionError(f"{_told(op, sample)}: the kernel leaves a buffer: {error}\n{kernel}") from None
    want = apply(node, sample.arrays())
    _compare(more[0], want, TOLERANCE.get(want.dtype.name, 0.0), f"{_told(op, sample)}: loops and reference differ")


def _check_gradient(op: Op, sample: Sample) -> None:
    """Gradients of Σ weight · value against central differences of the reference, in each float operand."""
    try:
        params, node = _applied(op, sample, sample.operands)
    except TensorcError:
        return
    if not node.dtype.is_float:
        return
    arrays = sample.arrays()
    weights = np.random.default_rng(1).uniform(0.5, 1.5, [int(str(s)) for s in node.shape])
    seed = _parameter("weights", node.type)
    found = gradients([node], [seed], params)
    there = [i for i, g in enumerate(found) if g is not None]
    if not there:
        return
    got = _compiled([*params, seed], [g for g in found if g is not None])([*arrays, weights])
    for i, value in zip(there, got, strict=True):
        _compare(value, _differences(node, arrays, weights, i), SLOPE,
                 f"{_told(op, sample)}: the gradient in operand {i} and differences differ")


def _differences(node: Node, arrays: Sequence[Array], weights: Array, which: int) -> Array:
    """(Σ weight · f(x + h) − Σ weight · f(x − h)) / 2h for each element of one operand."""
    out = np.empty(arrays[which].shape)
    for place in np.ndindex(out.shape):
        sides = []
        for step in (STEP, -STEP):
            moved = [a.copy() for a in arrays]
            moved[which][place] += step
            sides.append(float((apply(node, moved) * weights).sum()))
        out[place] = (sides[0] - sides[1]) / (2 * STEP)
    return out


def _compare(got: Array, want: Array, tolerance: float, what: str) -> None:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise AssertionError(f"{what}: {got.dtype} {got.shape}, not {want.dtype} {want.shape}")
    with np.errstate(all="ignore"):
        if numpy_kind(want.dtype) != "f":
            wrong = got != want
        else:
            a, b = got.astype(float), want.astype(float)
            off = np.abs(a - b) > tolerance * np.maximum(1, np.abs(b))
            wrong = np.where(np.isfinite(a) & np.isfinite(b), off, ~((a == b) | (np.isnan(a) & np.isnan(b))))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(f"{what} at {list(place)}: {got[place]!r}, not {want[place]!r}")


def _applied(op: Op, sample: Sample, types: Sequence[TensorType]) -> tuple[list[Node], Node]:
    """Parameters of these types, and the operation on them."""
    params = [_parameter(f"x{i}", t) for i, t in enumerate(types)]
    return params, make(op, *params, **sample.attrs)


def _parameter(name: str, type: TensorType) -> Node:
    return make(OPS["parameter"], name=name, role="input", uid=0, type=type)


def _compiled(inputs: Sequence[Node], outputs: Sequence[Node]) -> Callable[[Sequence[Array]], list[Array]]:
    from tensorc.runtime.function import Function

    return Function("check", inputs, outputs)


def _of_unknown_sizes(op: Op, sample: Sample) -> list[TensorType] | None:
    """The operands with a symbol for each size above 1; None where the operation wants to know them."""
    def unknown(size: Size) -> Size:
        return size if size in (0, 1) else dims.symbol(f"n{size}")

    types = [t.with_shape([unknown(s) for s in t.shape]) for t in sample.operands]
    try:
        op.infer(*types, **sample.attrs)
    except TensorcError:
        return None
    return None if types == list(sample.operands) else types


def _told(op: Op, sample: Sample) -> str:
    attrs = "".join(f", {k}={v!r}" for k, v in sample.attrs.items())
    return f"{op.name}({', '.join(map(str, sample.operands))}{attrs})"



