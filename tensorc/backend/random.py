"""Random tensors, drawn anew in every call, and variables drawn once.

Every function makes a stream of its own: a seed, and a counter that each call moves on.  A seed that is None is drawn
from NumPy's global generator, as in Keras, so that `np.random.seed` makes a program repeatable.
"""

from __future__ import annotations

from typing import Any

from tensorc import ops
from tensorc.backend.convert import as_node, cast_node, parse_dtype
from tensorc.backend.leaves import Variable, random_key
from tensorc.backend.names import unique_name
from tensorc.backend.provenance import public
from tensorc.backend.sizes import known_sizes
from tensorc.backend.tensor import Tensor
from tensorc.backend.variables import first_value
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ir.types import DType, f32, f64


@public("K.random_normal")
def random_normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None,
                  seed: int | None = None) -> Tensor:
    """Draws from the normal distribution."""
    kind = parse_dtype(dtype)
    drawn = ops.normal(random_key(seed), shape=known_sizes(shape), dtype=_wide(kind))
    return Tensor(_moved(cast_node(drawn, kind), mean, stddev))


@public("K.truncated_normal")
def truncated_normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None,
                     seed: int | None = None) -> Tensor:
    """Draws from the normal distribution; those beyond two standard deviations are drawn again."""
    kind = parse_dtype(dtype)
    drawn = ops.truncated_normal(random_key(seed), shape=known_sizes(shape), dtype=_wide(kind))
    return Tensor(_moved(cast_node(drawn, kind), mean, stddev))


@public("K.random_uniform")
def random_uniform(shape: Any, minval: Any = 0.0, maxval: Any = 1.0, dtype: Any = None,
                   seed: int | None = None) -> Tensor:
    """Draws from [minval, maxval), integers for an integer dtype."""
    kind = parse_dtype(dtype)
    return Tensor(_uniform(random_key(seed), known_sizes(shape), minval, maxval, kind))


@public("K.random_binomial")
def random_binomial(shape: Any, p: Any = 0.0, dtype: Any = None, seed: int | None = None) -> Tensor:
    """1 with probability p, else 0."""
    kind = parse_dtype(dtype)
    drawn = uniform_node(random_key(seed), known_sizes(shape), kind.wide if kind.is_float else f64)
    return Tensor(cast_node(ops.lt(drawn, as_node(p, drawn.dtype)), kind))


@public("K.random_uniform_variable")
def random_uniform_variable(shape: Any, low: float, high: float, dtype: Any = None, name: str | None = None,
                            seed: int | None = None) -> Variable:
    """A variable whose first value is drawn from [low, high)."""
    return _variable(random_uniform(_fixed(shape), low, high, dtype, seed), name)


@public("K.random_normal_variable")
def random_normal_variable(shape: Any, mean: float, scale: float, dtype: Any = None, name: str | None = None,
                           seed: int | None = None) -> Variable:
    """A variable whose first value is drawn from the normal distribution."""
    return _variable(random_normal(_fixed(shape), mean, scale, dtype, seed), name)


def uniform_node(key: Node, shape: tuple[Size, ...], kind: DType) -> Node:
    """Draws from [0, 1); floats of 16 bits are cut after the last place that those below 1 have, or some would be 1."""
    drawn = ops.uniform(key, shape=shape, dtype=_wide(kind), word=0)
    if kind.is_half:
        places = 2 / float(kind.finfo.eps)
        drawn = ops.floor(drawn * places) * (1 / places)
    return cast_node(drawn, kind)


def _moved(drawn: Node, mean: Any, deviation: Any) -> Node:
    """Standard draws brought to a mean and a standard deviation."""
    node: Node = drawn * as_node(deviation, drawn.dtype) + as_node(mean, drawn.dtype)
    return node


def _uniform(key: Node, shape: tuple[Size, ...], low: Any, high: Any, kind: DType) -> Node:
    """Draws from [low, high); of integers by rounding float64 draws down."""
    if kind.is_bool:
        raise ArgumentError("draws numbers, not bools\ndraw bools with K.random_binomial(shape, p, dtype='bool')")
    wide = kind if kind.is_float else f64
    drawn = uniform_node(key, shape, wide)
    bottom, top = as_node(low, wide), as_node(high, wide)
    spread = drawn * (top - bottom) + bottom
    return cast_node(spread if kind.is_float else ops.floor(spread), kind)


def _wide(kind: DType) -> DType:
    """The dtype in which floats of a kind are drawn.  Raises ArgumentError for a kind that is no float."""
    if not kind.is_float:
        raise ArgumentError(f"draws floats, not {kind.name}")
    return f64 if kind is f64 else f32


def _fixed(shape: Any) -> tuple[Size, ...]:
    """A shape of ints.  Raises ShapeError."""
    sizes = known_sizes(shape)
    if not all(isinstance(s, int) for s in sizes):
        raise ShapeError("the sizes of a variable are ints")
    return sizes


def _variable(drawn: Tensor, name: str | None) -> Variable:
    return Variable(first_value(drawn), unique_name(name or "variable"))
