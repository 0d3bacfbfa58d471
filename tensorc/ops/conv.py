"""Convolution: one product of three tensors x, w and y, read in three directions.

    y[b, p, o] = Σ_{q, c} x[b, p·stride + q·dilation − low, c] · w[q, c, o]        for the q that read inside x

x is [b, *s, ci], w is [*k, ci/groups, co], y is [b, *p, co], with one or more spatial axes.  Each operation gives one
of the three from the other two, and `shape` tells the spatial sizes of what it gives: the padding at the high end is
what `shape` makes it.  The gradients of each are the two others.

The channels of x and of y are in `groups` of neighbours; each group of y reads its own group of x.  With as many groups
as x has channels, w is a depthwise kernel [*k, ci, m] seen as [*k, 1, ci·m].  Floats of 16 bits accumulate in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorc.errors import ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node, Op
from tensorc.ir.types import TensorType
from tensorc.ops.define import defop
from tensorc.ops.elementwise import numbers
from tensorc.ops.infer import agree, same_dtype, show_shape
from tensorc.ops.sample import Sample, sample
from tensorc.ops.windows import Array, Ints, Sizes, check_counts, check_geometry


def _sample(first: str, second: str, shape: Ints, **geometry: Any) -> Sample:
    """A sample with strides and dilations of 1, no padding and one group where nothing else is said."""
    ones = (1,) * len(shape)
    usual: dict[str, Any] = {"strides": ones, "dilations": ones, "low": (0,) * len(shape), "groups": 1}
    return sample(first, second, shape=shape, **usual | geometry)


# The types.

def _checked(first: TensorType, second: TensorType, strides: Ints, dilations: Ints, low: Sizes, shape: Sizes,
             groups: Size) -> None:
    """Raises ShapeError unless ranks and geometry fit."""
    numbers(TensorType(same_dtype(first, second), ()))
    if first.rank != second.rank:
        raise ShapeError(f"the ranks of {show_shape(first.shape)} and {show_shape(second.shape)} differ")
    check_geometry(first.rank - 2, strides, dilations, low, shape)
    check_geometry(first.rank - 2, dilations)
    check_counts(*shape)
    if isinstance(groups, int) and groups < 1:
        raise ShapeError(f"there is one group or more, not {groups}")


def _check_channels(x: Size, w: Sizes, y: Size, groups: Size) -> None:
    """Raises ShapeError unless a kernel with channels w = (ci/groups, co) leads from x channels to y channels."""
    taken, given = w
    agree(x, taken * groups, f"x has {x} channels, the kernel takes {taken * groups}")
    agree(y, given, f"y has {y} channels, the kernel gives {given}")
    if isinstance(given, int) and isinstance(groups, int) and given % groups:
        raise ShapeError(f"{given} channels are no {groups} equal groups")


def _conv_type(x: TensorType, w: TensorType, *, strides: Ints, dilations: Ints, low: Sizes, shape: Sizes,
               groups: Size) -> TensorType:
    _checked(x, w, strides, dilations, low, shape, groups)
    _check_channels(x.shape[-1], w.shape[-2:], w.shape[-1], groups)
    return x.with_shape((x.shape[0], *shape, w.shape[-1]))


def _input_gradient_type(g: TensorType, w: TensorType, *, strides: Ints, dilations: Ints, low: Sizes, shape: Sizes,
                         groups: Size) -> TensorType:
    _checked(g, w, strides, dilations, low, shape, groups)
    channels = w.shape[-2] * groups
    _check_channels(channels, w.shape[-2:], g.shape[-1], groups)
    return g.with_shape((g.shape[0], *shape, channels))


def _weight_gradient_type(x: TensorType, g: TensorType, *, strides: Ints, dilations: Ints, low: Sizes, shape: Sizes,
                          groups: Size) -> TensorType:
    _checked(x, g, strides, dilations, low, shape, groups)
    agree(x.shape[0], g.shape[0], f"the batches of {show_shape(x.shape)} and {show_shape(g.shape)} differ")
    channels = dims.floordiv(x.shape[-1], groups), g.shape[-1]
    _check_channels(x.shape[-1], channels, g.shape[-1], groups)
    return x.with_shape((*shape, *channels))


# The meaning: tap by tap, a product of the elements of x and y that it relates; c, o are channels of one group g.

def _grouped(array: Array, groups: int) -> Array:
    """The last axis as [groups, channels of one]."""
    return array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups)


def _taps(x: Array, y: Array, window: Ints, strides: Ints, dilations: Ints,
          low: Ints) -> Iterator[tuple[Ints, tuple[Array, ...], tuple[Array, ...]]]:
    """For each tap that reads inside x at all: the places in x and those in y that it relates."""
    batch = np.arange(x.shape[0])
    for tap in np.ndindex(*window):
        in_x, in_y = [batch], [batch]
        geometry = zip(tap, strides, dilations, low, x.shape[1:], y.shape[1:], strict=False)
        for q, stride, dilation, before, n, count in geometry:
            places = np.arange(count) * stride + q * dilation - before
            inside = (places >= 0) & (places < n)
            in_x.append(places[inside])
            in_y.append(np.flatnonzero(inside))
        yield tap, np.ix_(*in_x), np.ix_(*in_y)


def _conv(x: Array, w: Array, *, strides: Ints, dilations: Ints, low: Ints, shape: Ints, groups: int) -> Array:
    x, w = (_grouped(a, groups) for a in (x, w))
    y = np.zeros((x.shape[0], *shape, *w.shape[-2:]), x.dtype)
    for tap, in_x, in_y in _taps(x, y, w.shape[:-3], strides, dilations, low):
        y[in_y] += np.einsum("...gc,cgo->...go", x[in_x], w[tap])
    return y.reshape(*y.shape[:-2], math.prod(y.shape[-2:]))


def _input_gradient(g: Array, w: Array, *, strides: Ints, dilations: Ints, low: Ints, shape: Ints,
                    groups: int) -> Array:
    g, w = (_grouped(a, groups) for a in (g, w))
    x = np.zeros((g.shape[0], *shape, groups, w.shape[-3]), g.dtype)
    for tap, in_x, in_y in _taps(x, g, w.shape[:-3], strides, dilations, low):
        x[in_x] += np.einsum("...go,cgo->...gc", g[in_y], w[tap])
    return x.reshape(*x.shape[:-2], math.prod(x.shape[-2:]))


def _weight_gradient(x: Array, g: Array, *, strides: Ints, dilations: Ints, low: Ints, shape: Ints,
                     groups: int) -> Array:
    x, g = (_grouped(a, groups) for a in (x, g))
    w = np.zeros((*shape, x.shape[-1], *g.shape[-2:]), x.dtype)
    for tap, in_x, in_y in _taps(x, g, shape, strides, dilations, low):
        rows, columns = (a.reshape(math.prod(a.shape[:-2]), *a.shape[-2:]) for a in (x[in_x], g[in_y]))
        w[tap] = np.einsum("pgc,pgo->cgo", rows, columns)
    return w.reshape(*w.shape[:-2], math.prod(w.shape[-2:]))


# The operations.

def _geometry(node: Any) -> dict[str, Any]:
    """The attributes that a convolution shares with its gradients."""
    return {name: node.attrs[name] for name in ("strides", "dilations", "low", "groups")}


def _spatial(x: Node) -> Sizes:
    return x.shape[1:-1]


def _window(w: Node) -> Sizes:
    return w.shape[:-2]


conv: Op = defop(
    "conv",
    doc="Convolution without flipping the kernel: y from x and w, where `shape` is the spatial part of y.",
    infer=_conv_type,
    reference=_conv,
    gradient=lambda node, g: [
        conv_input_gradient(g, node.w, shape=_spatial(node.x), **_geometry(node)),
        conv_weight_gradient(node.x, g, shape=_window(node.w), **_geometry(node)),
    ],
    kernel="conv",
    samples=[
        _sample("f32[2,5,3]", "f32[3,3,4]", (3,)),
        _sample("f32[2,6,5,3]", "f32[3,2,3,4]", (3, 5), strides=(2, 1), low=(1, 0)),
        _sample("f32[1,3,4,3,2]", "f32[2,3,2,2,3]", (2, 4, 2), low=(0, 1, 0)),
        _sample("f64[1,7,7,2]", "f64[3,2,2,2]", (3, 6), dilations=(2, 1), low=(0, 0)),
        _sample("f64[2,9,2]", "f64[2,2,3]", (4,), strides=(3,), dilations=(3,), low=(2,)),
        _sample("f32[2,4,4,4]", "f32[3,3,2,6]", (4, 4), low=(1, 1), groups=2),
        _sample("f16[1,4,2]", "f16[2,2,3]", (4,), low=(1,)),
        _sample("i32[1,4,2]", "i32[2,2,3]", (3,)),
        _sample("f32[1,1,1]", "f32[4,1,1]", (1,), low=(2,)),
        _sample("f32[0,4,2]", "f32[2,2,3]", (3,)),
        _sample("f32[2,0,2]", "f32[2,2,3]", (1,), low=(1,)),
        _sample("f32[2,4,0]", "f32[2,0,3]", (3,)),
        _sample("f32[2,4,2]", "f32[0,2,3]", (4,)),
    ],
)


conv_input_gradient: Op = defop(
    "conv_input_gradient",
    doc="The gradient of a convolution in its input, a transposed convolution: x from y's gradient g and w, where "
        "`shape` is the spatial part of x.",
    infer=_input_gradient_type,
    reference=_input_gradient,
    gradient=lambda node, h: [
        conv(h, node.w, shape=_spatial(node.g), **_geometry(node)),
        conv_weight_gradient(h, node.g, shape=_window(node.w), **_geometry(node)),
    ],
    kernel="conv",
    samples=[
        _sample("f32[2,3,4]", "f32[3,3,4]", (5,)),
        _sample("f32[2,3,5,4]", "f32[3,2,3,4]", (6, 5), strides=(2, 1), low=(1, 0)),
        _sample("f32[1,2,4,2,3]", "f32[2,3,2,2,3]", (3, 4, 3), low=(0, 1, 0)),
        _sample("f64[2,4,3]", "f64[2,2,3]", (9,), strides=(3,), dilations=(3,), low=(2,)),
        _sample("f32[2,4,4,6]", "f32[3,3,2,6]", (4, 4), low=(1, 1), groups=2),
        _sample("f16[1,4,3]", "f16[2,2,3]", (4,), low=(1,)),
        _sample("f32[2,2,1]", "f32[2,1,1]", (9,), strides=(3,)),
        _sample("f32[2,0,3]", "f32[2,2,3]", (1,)),
        _sample("f32[2,3,3]", "f32[2,2,3]", (0,)),
    ],
)


conv_weight_gradient: Op = defop(
    "conv_weight_gradient",
    doc="The gradient of a convolution in its kernel: w from x and y's gradient g, where `shape` is the spatial part "
        "of w.",
    infer=_weight_gradient_type,
    reference=_weight_gradient,
    gradient=lambda node, h: [
        conv_input_gradient(node.g, h, shape=_spatial(node.x), **_geometry(node)),
        conv(node.x, h, shape=_spatial(node.g), **_geometry(node)),
    ],
    kernel="conv",
    samples=[
        _sample("f32[2,5,3]", "f32[2,3,4]", (3,)),
        _sample("f32[2,6,5,3]", "f32[2,3,5,4]", (3, 2), strides=(2, 1), low=(1, 0)),
        _sample("f32[1,3,4,3,2]", "f32[1,2,4,2,3]", (2, 3, 2), low=(0, 1, 0)),
        _sample("f64[2,9,2]", "f64[2,4,3]", (2,), strides=(3,), dilations=(3,), low=(2,)),
        _sample("f32[2,4,4,4]", "f32[2,4,4,6]", (3, 3), low=(1, 1), groups=2),
        _sample("f16[1,4,2]", "f16[1,4,3]", (2,), low=(1,)),
        _sample("f32[0,4,2]", "f32[0,3,3]", (2,)),
    ],
)
