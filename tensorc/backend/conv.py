"""Convolution of sequences, images and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorc import ops
from tensorc.backend.config import normalize_data_format
from tensorc.backend.convert import promoted
from tensorc.backend.provenance import public
from tensorc.backend.shapes import reshaped
from tensorc.backend.sizes import as_size, as_sizes
from tensorc.backend.spatial import (
    OLD_NAMES,
    Ints,
    Sizes,
    channels_last,
    check_padding,
    entries,
    original,
    standing,
    with_channels_last,
)
from tensorc.backend.tensor import Tensor, matmul
from tensorc.errors import ArgumentError, ShapeError
from tensorc.ir import dims
from tensorc.ir.dims import Size
from tensorc.ir.node import Node
from tensorc.ops.infer import agree
from tensorc.ops.windows import span


@public("K.conv1d", old=OLD_NAMES)
def conv1d(x: Any, kernel: Any, strides: Any = 1, padding: str = "valid", data_format: str | None = None,
           dilation_rate: Any = 1) -> Tensor:
    """Convolution along the time axis, without flipping the kernel.

    Args:
        x: (samples, time, channels), or (samples, channels, time) for channels first.
        kernel: (width, input channels, output channels).
        padding: 'valid', 'same', or 'causal': an output depends on no later input.

    Raises: ArgumentError for another padding, or for 'causal' with channels first.
    """
    if padding == "causal" and normalize_data_format(data_format) != "channels_last":
        raise ArgumentError('padding "causal" takes data_format "channels_last" alone')
    return _convolved(x, kernel, 1, strides, padding, data_format, dilation_rate, ("valid", "same", "causal"))


@public("K.conv2d", old=OLD_NAMES)
def conv2d(x: Any, kernel: Any, strides: Any = (1, 1), padding: str = "valid", data_format: str | None = None,
           dilation_rate: Any = (1, 1)) -> Tensor:
    """Convolution of images, without flipping the kernel.

    Args:
        x: (samples, rows, columns, channels), or (samples, channels, rows, columns) for channels first.
        kernel: (rows, columns, input channels, output channels), whatever the data format.
        padding: 'valid' or 'same'.

    Raises: ArgumentError for another padding.
    """
    return _convolved(x, kernel, 2, strides, padding, data_format, dilation_rate)


@public("K.conv3d", old=OLD_NAMES)
def conv3d(x: Any, kernel: Any, strides: Any = (1, 1, 1), padding: str = "valid", data_format: str | None = None,
           dilation_rate: Any = (1, 1, 1)) -> Tensor:
    """Convolution of volumes: `K.conv2d` with one axis more."""
    return _convolved(x, kernel, 3, strides, padding, data_format, dilation_rate)


@public("K.conv2d_transpose", old=OLD_NAMES)
def conv2d_transpose(x: Any, kernel: Any, output_shape: Any, strides: Any = (1, 1), padding: str = "valid",
                     data_format: str | None = None, dilation_rate: Any = (1, 1)) -> Tensor:
    """The transpose of the convolution that leads from `output_shape` to the shape of x.

    Args:
        kernel: (rows, columns, output channels, input channels).
        output_shape: the whole shape, in the order of the data format; None as its first entry is the batch of x.

    Raises: ShapeError where the convolution would not lead to the shape of x.
    """
    return _transposed(x, kernel, output_shape, 2, strides, padding, data_format, dilation_rate)


deconv2d = conv2d_transpose


@public("K.conv3d_transpose", old=OLD_NAMES)
def conv3d_transpose(x: Any, kernel: Any, output_shape: Any, strides: Any = (1, 1, 1), padding: str = "valid",
                     data_format: str | None = None) -> Tensor:
    """`K.conv2d_transpose` with one axis more; the kernel is (depth, rows, columns, output, input channels)."""
    return _transposed(x, kernel, output_shape, 3, strides, padding, data_format, 1)


@public("K.depthwise_conv2d", old=OLD_NAMES)
def depthwise_conv2d(x: Any, depthwise_kernel: Any, strides: Any = (1, 1), padding: str = "valid",
                     data_format: str | None = None, dilation_rate: Any = (1, 1)) -> Tensor:
    """Convolution of each channel by itself.

    Args:
        depthwise_kernel: (rows, columns, input channels, multiplier); the outputs of a channel are neighbours.
    """
    return _separable(x, depthwise_kernel, None, 2, strides, padding, data_format, dilation_rate)


@public("K.separable_conv1d", old=OLD_NAMES)
def separable_conv1d(x: Any, depthwise_kernel: Any, pointwise_kernel: Any, strides: Any = 1, padding: str = "valid",
                     data_format: str | None = None, dilation_rate: Any = 1) -> Tensor:
    """Convolution of each channel by itself, then of all channels at each place.

    Args:
        depthwise_kernel: (width, input channels, multiplier).
        pointwise_kernel: (1, input channels · multiplier, output channels).
    """
    return _separable(x, depthwise_kernel, pointwise_kernel, 1, strides, padding, data_format, dilation_rate)


@public("K.separable_conv2d", old=OLD_NAMES)
def separable_conv2d(x: Any, depthwise_kernel: Any, pointwise_kernel: Any, strides: Any = (1, 1),
                     padding: str = "valid", data_format: str | None = None, dilation_rate: Any = (1, 1)) -> Tensor:
    """`K.separable_conv1d` of images: kernels (rows, columns, …) and (1, 1, …)."""
    return _separable(x, depthwise_kernel, pointwise_kernel, 2, strides, padding, data_format, dilation_rate)


@public("K.local_conv1d", old=OLD_NAMES)
def local_conv1d(inputs: Any, kernel: Any, kernel_size: Any, strides: Any, data_format: str | None = None) -> Tensor:
    """Convolution with a kernel of its own at each place.

    Args:
        inputs: (samples, time, channels), whatever the data format, as in Keras.
        kernel: (output time, width · channels, output channels).
    """
    normalize_data_format(data_format)
    return _local(inputs, kernel, 1, kernel_size, strides, None, "channels_last")


@public("K.local_conv2d", old=OLD_NAMES)
def local_conv2d(inputs: Any, kernel: Any, kernel_size: Any, strides: Any, output_shape: Any,
                 data_format: str | None = None) -> Tensor:
    """Convolution of images with a kernel of its own at each place.

    Args:
        kernel: (output rows · output columns, window, output channels), where the window is (rows, columns,
            channels), or (channels, rows, columns) for channels first, in one axis.
        output_shape: (output rows, output columns).
    """
    return _local(inputs, kernel, 2, kernel_size, strides, as_sizes(output_shape), normalize_data_format(data_format))


def _convolved(x: Any, kernel: Any, count: int, strides: Any, padding: str, data_format: str | None,
               dilation_rate: Any, allowed: Sequence[str] = ("valid", "same")) -> Tensor:
    """A convolution over `count` spatial axes."""
    order = normalize_data_format(data_format)
    check_padding(padding, allowed)
    node, w = promoted((x, kernel))
    node = channels_last(node, count, order)
    _check_kernel(w, count)
    return Tensor(original(_conv(node, w, strides, padding, dilation_rate), order))


def _separable(x: Any, depthwise: Any, pointwise: Any, count: int, strides: Any, padding: str,
               data_format: str | None, dilation_rate: Any) -> Tensor:
    """A convolution of each channel by itself, and of all channels at each place unless `pointwise` is None."""
    order = normalize_data_format(data_format)
    check_padding(padding)
    node, *kernels = promoted((x, depthwise) if pointwise is None else (x, depthwise, pointwise))
    node = channels_last(node, count, order)
    for kernel in kernels:
        _check_kernel(kernel, count)

    each, *mixing = kernels
    *window, channels, multiplier = each.shape
    each = reshaped(each, (*window, 1, channels * multiplier))
    node = _conv(node, each, strides, padding, dilation_rate, groups=channels)
    for kernel in mixing:
        if any(isinstance(n, int) and n != 1 for n in kernel.shape[:-2]):
            raise ShapeError(f"the pointwise kernel covers {kernel.shape[:-2]} places, not one")
        node = _conv(node, kernel, 1, "valid", 1)
    return Tensor(original(node, order))


def _conv(x: Node, w: Node, strides: Any, padding: str, dilation_rate: Any, groups: Size = 1) -> Node:
    """The convolution of x, channels last."""
    steps, dilations, reach = _geometry(w, strides, dilation_rate)
    low, counts = standing(x.shape[1:-1], reach, steps, padding)
    node: Node = ops.conv(x, w, strides=steps, dilations=dilations, low=low, shape=counts, groups=groups)
    return node


def _transposed(x: Any, kernel: Any, output_shape: Any, count: int, strides: Any, padding: str,
                data_format: str | None, dilation_rate: Any) -> Tensor:
    """The gradient that a convolution over `count` spatial axes would have in its input."""
    order = normalize_data_format(data_format)
    check_padding(padding)
    node, w = promoted((x, kernel))
    node = channels_last(node, count, order)
    _check_kernel(w, count)

    samples, *spatial, channels = with_channels_last(_output_sizes(output_shape, node.shape[0], count), order)
    agree(samples, node.shape[0], "output_shape and x have different numbers of samples")
    agree(channels, w.shape[-2], "the channels of output_shape are not those that the kernel gives")
    steps, dilations, reach = _geometry(w, strides, dilation_rate)
    low, counts = standing(tuple(spatial), reach, steps, padding)
    for axis, (wanted, given) in enumerate(zip(counts, node.shape[1:-1], strict=True)):
        agree(wanted, given, f"the convolution of output_shape does not have the shape of x along spatial axis {axis}")

    result = ops.conv_input_gradient(node, w, strides=steps, dilations=dilations, low=low, shape=tuple(spatial),
                                     groups=1)
    return Tensor(original(result, order))


def _output_sizes(output_shape: Any, samples: Size, count: int) -> Sizes:
    """The whole shape of a transposed convolution; None as the first entry is the number of samples of x."""
    if isinstance(output_shape, list | tuple):
        first, *rest = output_shape
        sizes = (samples if first is None else as_size(first), *map(as_size, rest))
    else:
        sizes = as_sizes(output_shape)
    if len(sizes) != count + 2:
        raise ShapeError(f"output_shape has {len(sizes)} entries, not {count + 2}")
    return sizes


def _geometry(w: Node, strides: Any, dilation_rate: Any) -> tuple[Ints, Ints, Sizes]:
    """Strides, dilations, and how many places a kernel reaches over along each axis."""
    window = w.shape[:-2]
    dilations = entries(dilation_rate, len(window), "dilation_rate")
    reach = tuple(span(k, d) for k, d in zip(window, dilations, strict=True))
    return entries(strides, len(window), "strides"), dilations, reach


def _check_kernel(kernel: Node, count: int) -> None:
    if len(kernel.shape) != count + 2:
        raise ShapeError(f"a kernel has {len(kernel.shape)} axes, not {count + 2}: {count} spatial, two of channels")


def _local(inputs: Any, kernel: Any, count: int, kernel_size: Any, strides: Any, shape: Sizes | None,
           order: str) -> Tensor:
    """A product of matrices for each place; `shape` is the spatial part of the result, None for the kernel's own."""
    node, w = promoted((inputs, kernel))
    node = channels_last(node, count, order)
    if len(w.shape) != 3:
        raise ShapeError(f"the kernel has {len(w.shape)} axes, not 3: places, elements of a window, channels")
    shape = (w.shape[0],) if shape is None else shape
    agree(dims.product(shape), w.shape[0], "the places of the kernel are not those of the output")

    patches = _patches(node, entries(kernel_size, count, "kernel_size"), entries(strides, count, "strides"), shape)
    places = tuple(range(1, count + 1))
    within = (count + 2, count + 1) if order == "channels_first" else (count + 1, count + 2)
    rows = ops.transpose(patches, perm=(*places, 0, *within))
    samples, *elements = rows.shape[count:]

    flat = reshaped(rows, (w.shape[0], samples, dims.product(elements)))
    product = reshaped(matmul(flat, w), (*shape, samples, w.shape[-1]))
    result = ops.transpose(product, perm=(count, *range(count), count + 1))
    return Tensor(original(result, order))


def _patches(x: Node, window: Ints, strides: Ints, shape: Sizes) -> Node:
    """The elements of each window: [samples, *shape, taps, channels].  Raises ShapeError where one leaves x."""
    for n, k, stride, count in zip(x.shape[1:-1], window, strides, shape, strict=True):
        last = (count - 1) * stride + k
        if isinstance(n, int) and isinstance(last, int) and count and last > n:
            raise ShapeError(f"{count} windows of {k} by strides of {stride} take {last} places, x has {n}")
    with_taps = reshaped(x, (*x.shape[:-1], 1, x.shape[-1]))
    node: Node = ops.windows(with_taps, window=window, strides=strides, low=(0,) * len(window), shape=shape, fill=0)
    return node
