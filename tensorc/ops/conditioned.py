"""Values by the references, each with a bound on what rounding and rewriting may change in it.

A value whose integers, truth values or NaNs hang on the last bits of a float is called shaky: nobody can hold compiled
code to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorc.ir.graph import postorder, replace_nodes
from tensorc.ir.node import Node
from tensorc.ir.types import dtype as dtype_of
from tensorc.ir.types import numpy_kind
from tensorc.ops.interpret import apply

Array = np.ndarray[Any, Any]

MOVES = frozenset(
    "maximum minimum neg abs sign select max min reshape transpose broadcast slice pad reverse concatenate relu clip "
    "sum_to stop_gradient floor ceil round uniform constant parameter".split()
)
"""Operations that round nothing."""

SUMS = frozenset("sum sum_to mean variance cumsum softmax log_softmax logsumexp".split())
EXACT = frozenset("add sub mul sum square matmul cumsum sum_to floordiv mod".split())
WHOLE = 2.0**22
"""Up to which whole numbers stay whole numbers in float32, sums of some of them included."""

LARGE = 1e6

SHAKY = 0.02
"""By how much a shaky float may differ from one that is known, of the largest of a tensor."""


@dataclass(frozen=True)
class Known:
    """A value; no correct program is further than `error` from it, or `error` is None: it is shaky."""

    value: Array
    error: float | None = 0.0


def known(node: Node, operands: Sequence[Known]) -> Known:
    """The value of a node, whose sizes are all numbers, on values of its operands."""
    values = [k.value for k in operands]
    value = apply(node, values)
    if any(k.error is None for k in operands) or not _is_tame(node, values, value):
        return Known(value, None)

    error = 0.0
    for moved in _neighbours(operands):
        other = apply(node, moved)
        if numpy_kind(value.dtype) != "f":
            if not np.array_equal(other, value):
                return Known(value, None)
        elif not np.array_equal(np.isfinite(other), np.isfinite(value)):
            return Known(value, None)
        else:
            error = max(error, 2 * _distance(other, value))
    if numpy_kind(value.dtype) == "f":
        error += _rounding(node, values, value)
    size = _largest(value) if numpy_kind(value.dtype) == "f" else 1.0
    coarse = 1e-3 if value.dtype.itemsize > 2 else 0.1
    return Known(value, error if error <= coarse * max(1.0, size) else None)


def evaluate(roots: Sequence[Node], values: Mapping[Node, Array], sizes: Mapping[str, int],
             done: dict[Node, Known] | None = None) -> list[Known]:
    """The roots by the references, their sizes replaced by numbers before anything else is done with them.

    Args:
        values: of every parameter.
        done: what is known of nodes whose sizes are numbers; what is found out is added.
    """
    fixed = replace_nodes([*values, *roots], {}, sizes)
    done = {} if done is None else done
    done |= {p: Known(v) for p, v in zip(fixed, values.values(), strict=False)}
    for node in postorder(fixed[len(values):], done):
        done[node] = known(node, [done[a] for a in node.args])
    return [done[r] for r in fixed[len(values):]]


def difference(got: Known | Array, want: Known) -> str:
    """In what a value is another than it may be: its type, or the first element further away than the bounds allow.

    Nothing, as text, where it is not; NaN and infinities count.  Anything may stand for a shaky value; a shaky float
    stands for another one that is near.
    """
    value, slack = (got.value, got.error) if isinstance(got, Known) else (got, 0.0)
    if (value.dtype, value.shape) != (want.value.dtype, want.value.shape):
        return f"it is {value.dtype} {value.shape}, not {want.value.dtype} {want.value.shape}"
    if slack is None and numpy_kind(value.dtype) == "f":
        slack = SHAKY * max(1.0, _largest(want.value))
    if want.error is None or slack is None:
        return ""
    with np.errstate(invalid="ignore"):
        if numpy_kind(value.dtype) == "f":
            near = np.abs(value.astype(np.float64) - want.value) <= want.error + slack
            same = near | (value == want.value) | (np.isnan(value) & np.isnan(want.value))
        else:
            same = np.asarray(value == want.value)
    if same.all():
        return ""
    place = np.unravel_index(np.argmin(same), same.shape)
    at = f" at [{', '.join(map(str, place))}]" if place else ""
    bound = f" ± {want.error + slack:.2g}" if want.error + slack else ""
    return f"it is {value[place]}{at}, not {want.value[place]}{bound} ({np.sum(~same)} of {same.size} elements differ)"


def _neighbours(operands: Sequence[Known]) -> list[list[Array]]:
    """The operands, moved by their errors: all alike, neighbours against each other, and at random."""
    if not any(k.error for k in operands):
        return []
    generator = np.random.default_rng(0)
    directions: list[Callable[[int], Array]] = [
        np.ones, lambda n: -np.ones(n),
        lambda n: (-1.0) ** np.arange(n), lambda n: (-1.0) ** (np.arange(n) // 2),
        *[lambda n: generator.choice([-1.0, 1.0], n)] * 2,
    ]
    return [
        [(k.value + along(k.value.size).reshape(k.value.shape) * k.error).astype(k.value.dtype) if k.error else k.value
         for k in operands]
        for along in directions
    ]


def _is_tame(node: Node, values: Sequence[Array], value: Array) -> bool:
    """Is an operation within the domain where every correct way to compute it agrees?"""
    name = node.op.name
    if numpy_kind(value.dtype) == "f":
        if _largest(value) > LARGE:
            return False
        if all(np.isfinite(v).all() for v in values if numpy_kind(v.dtype) == "f") and not np.isfinite(value).all():
            return value.size > 0 and name in ("max", "min") and 0 in values[0].shape
    if name in ("div", "floordiv", "mod") and numpy_kind(value.dtype) == "f":
        return bool((np.abs(values[1]) > 1e-2).all() and np.isfinite(values[1]).all())
    if name in ("log", "sqrt", "rsqrt", "pow") and numpy_kind(value.dtype) == "f":
        return bool((values[0] > 1e-2).all())
    if name == "log1p":
        return bool((values[0] > -0.9).all())
    if name in ("sin", "cos"):
        return _largest(values[0]) < 100
    return True


def _rounding(node: Node, values: Sequence[Array], value: Array) -> float:
    """What rounding inside the operation may change in its result."""
    name = node.op.name
    if name in MOVES:
        return 0.0
    if name == "cast":
        exact = numpy_kind(values[0].dtype) != "f" or values[0].dtype.itemsize <= value.dtype.itemsize
        if exact and _is_whole(values[0]):
            return 0.0
    magnitudes = [np.abs(v) if numpy_kind(v.dtype) == "f" else v for v in values]
    if name == "matmul" or name in SUMS - {"logsumexp", "log_softmax", "softmax"}:
        size = _largest(apply(node, magnitudes))
        if name in EXACT and all(map(_is_whole, values)) and size < WHOLE:
            return 0.0
    else:
        size = max([_largest(v) for v in (value, *(m for m in magnitudes if numpy_kind(m.dtype) == "f"))])
        if name in EXACT and all(map(_is_whole, values)) and size < WHOLE:
            return 0.0
    steps = 16 * (1 + math.log2(1 + max(v.size for v in values)))
    if value.dtype.itemsize == 2:                # sums are in float32
        steps = 4
    return float(steps * dtype_of(value.dtype).finfo.eps * max(size, 1e-3))


def _is_whole(array: Array) -> bool:
    if numpy_kind(array.dtype) != "f":
        return bool(numpy_kind(array.dtype) == "b" or np.abs(array.astype(np.float64)).max(initial=0) < WHOLE)
    finite = array[np.isfinite(array)]
    return bool((finite == np.rint(finite)).all() and np.abs(finite).max(initial=0) < WHOLE)


def _distance(a: Array, b: Array) -> float:
    """The largest difference where both are finite."""
    both = np.isfinite(a) & np.isfinite(b)
    return _largest(np.subtract(a, b, where=both, out=np.zeros(a.shape, a.dtype)))


def _largest(array: Array) -> float:
    """The largest finite magnitude."""
    finite = np.isfinite(array)
    return float(np.abs(array, where=finite, out=np.zeros(array.shape, array.dtype)).max(initial=0))
