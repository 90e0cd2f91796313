"""Layers with weights, in windows and without.

Each function is named and signed like its layer.
"""

# ruff: noqa: N802

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.from_keras.activations import activated
from striate.tools.from_keras.registry import KerasBuilder, each, keras_layer
from striate.tools.from_onnx.layers import dense
from striate.tools.layout import Tensor

Ints = Sequence[int]

KERNEL = ("kernel", "bias if use_bias")

DEPTHWISE = ("depthwise_kernel", "bias if use_bias")

SEPARABLE = ("depthwise_kernel", "pointwise_kernel", "bias if use_bias")


def padded(padding: str, kernel: Ints, dilation: Ints) -> Any:
    """Return a padding as operators take it."""
    if padding in ("same", "valid"):
        return padding
    if padding == "causal" and len(kernel) == 1:
        return ((dilation[0] * (kernel[0] - 1), 0),)
    raise UnsupportedModelError(f"padding {padding!r}")


def steps(
    x: Tensor, kernel: Array, strides: Any, dilation_rate: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return stride and dilation along each axis of an image that a kernel fits."""
    if kernel.ndim != x.rank:
        raise UnsupportedModelError(
            f"a kernel of shape {kernel.shape} for an input of rank {x.rank}"
        )
    rank = x.rank - 2
    return each(strides, rank, "strides"), each(dilation_rate, rank, "dilation_rate")


def convolved(
    g: KerasBuilder,
    x: Tensor,
    kernel: Array,
    bias: Array | None,
    strides: Any,
    padding: str,
    dilation_rate: Any,
    groups: int = 1,
) -> Tensor:
    """Return an image that is channels-last under a kernel (spatial..., in, out)."""
    stride, dilation = steps(x, kernel, strides, dilation_rate)
    sides = padded(padding, kernel.shape[:-2], dilation)
    return g.apply(
        ops.Conv(stride, dilation, sides, groups), x, kernel=kernel, bias=bias
    )


def by_channel(
    g: KerasBuilder,
    x: Tensor,
    kernel: Array,
    bias: Array | None,
    strides: Any,
    padding: str,
    dilation_rate: Any,
) -> Tensor:
    """Return an image under a depthwise kernel (spatial..., C, M), as one of groups."""
    *spatial, channels, multiplier = kernel.shape
    groups = kernel.reshape(*spatial, 1, channels * multiplier)
    return convolved(g, x, groups, bias, strides, padding, dilation_rate, channels)


@keras_layer("Conv1D", "Conv2D", "Conv3D", "Convolution1D", weights=KERNEL)
def Conv2D(
    g: KerasBuilder,
    x: Tensor,
    *,
    kernel: Array,
    bias: Array | None = None,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
    groups: int = 1,
    activation: Any = None,
) -> Tensor:
    """Convolve in one, two or three dimensions."""
    y = g.image(x, data_format)
    y = convolved(g, y, kernel, bias, strides, padding, dilation_rate, groups)
    return activated(g, g.placed(y, data_format), activation)


@keras_layer("DepthwiseConv1D", "DepthwiseConv2D", weights=DEPTHWISE)
def DepthwiseConv2D(
    g: KerasBuilder,
    x: Tensor,
    *,
    depthwise_kernel: Array,
    bias: Array | None = None,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
    activation: Any = None,
) -> Tensor:
    """Convolve every channel by itself, with `depth_multiplier` kernels each."""
    windows = (strides, padding, dilation_rate)
    y = by_channel(g, g.image(x, data_format), depthwise_kernel, bias, *windows)
    return activated(g, g.placed(y, data_format), activation)


@keras_layer("SeparableConv1D", "SeparableConv2D", weights=SEPARABLE)
def SeparableConv2D(
    g: KerasBuilder,
    x: Tensor,
    *,
    depthwise_kernel: Array,
    pointwise_kernel: Array,
    bias: Array | None = None,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
    activation: Any = None,
) -> Tensor:
    """Convolve every channel by itself, then every pixel."""
    windows = (strides, padding, dilation_rate)
    y = by_channel(g, g.image(x, data_format), depthwise_kernel, None, *windows)
    y = convolved(g, y, pointwise_kernel, bias, 1, "valid", 1)
    return activated(g, g.placed(y, data_format), activation)


@keras_layer("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", weights=KERNEL)
def Conv2DTranspose(
    g: KerasBuilder,
    x: Tensor,
    *,
    kernel: Array,
    bias: Array | None = None,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: str | None = None,
    dilation_rate: Any = 1,
    activation: Any = None,
) -> Tensor:
    """Spread every pixel, as the gradient of TensorFlow's convolution does."""
    y = g.image(x, data_format)
    rank = x.rank - 2
    stride, dilation = steps(x, kernel, strides, dilation_rate)
    more = None if output_padding is None else each(output_padding, rank, "padding")
    cuts, added = [], []
    for axis in range(rank):
        reach = dilation[axis] * (kernel.shape[axis] - 1) + 1
        extra = None if more is None else more[axis]
        pair, rest = _spread(reach, stride[axis], padding, extra)
        cuts.append(pair)
        added.append(rest)
    sides: Any = tuple(cuts) if any(map(any, cuts)) else "valid"
    op = ops.ConvTranspose(stride, dilation, sides, tuple(added))
    y = g.apply(op, y, kernel=kernel, bias=bias)
    return activated(g, g.placed(y, data_format), activation)


def _spread(
    reach: int, stride: int, padding: str, more: int | None
) -> tuple[tuple[int, int], int]:
    """Return what is cut off both ends of an axis, and what is added at the end.

    Before that an axis of n has ``(n - 1) * stride + reach`` positions.
    """
    if padding == "valid":
        return (0, 0), max(0, stride - reach) if more is None else more
    if padding != "same":
        raise UnsupportedModelError(f"padding {padding!r}")
    cut = reach - stride if more is None else 2 * (reach // 2) - more
    if cut < 0:
        return (0, 0), -cut
    return (cut // 2, cut - cut // 2), 0


@keras_layer("Dense", weights=KERNEL)
def Dense(
    g: KerasBuilder,
    x: Tensor,
    *,
    kernel: Array,
    bias: Array | None = None,
    activation: Any = None,
) -> Tensor:
    """Multiply the last axis by a matrix."""
    return activated(g, dense(g, x, kernel, bias), activation)


@keras_layer("Embedding", weights=("embeddings",))
def Embedding(
    g: KerasBuilder,
    x: Tensor,
    *,
    embeddings: Array,
    input_dim: int = 0,
    output_dim: int = 0,
    mask_zero: bool = False,
    input_length: Any = None,
    weights: Any = None,
) -> Tensor:
    """Look every whole number up in a table."""
    if mask_zero:
        raise UnsupportedModelError("mask_zero: what is zero would be left out later")
    return g.operate(ops.Gather(0), g.constant(embeddings), g.cast(x, "int32"))


@keras_layer("LocallyConnected1D", "LocallyConnected2D", weights=KERNEL)
def LocallyConnected2D(
    g: KerasBuilder,
    x: Tensor,
    *,
    kernel: Array,
    bias: Array | None = None,
    filters: int,
    kernel_size: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    activation: Any = None,
    implementation: int = 1,
) -> Tensor:
    """Convolve with a kernel of its own at every position; Keras 2 has these."""
    y = g.image(x, data_format)
    size = each(kernel_size, x.rank - 2, "kernel_size")
    stride = each(strides, x.rank - 2, "strides")
    inputs = [g.fixed(dim, "its input's size") for dim in y.shape[1:]]
    sides = [
        _centred(n, k, s, padding)
        for n, k, s in zip(inputs[:-1], size, stride, strict=True)
    ]
    patches = _Patches(inputs, size, stride, sides, filters, g.first(data_format))
    own = {1: patches.of_windows, 2: patches.of_a_matrix, 3: patches.of_pairs}
    if implementation not in own:
        raise UnsupportedModelError(f"implementation {implementation}")
    op = ops.LocallyConnected(stride, tuple(sides))
    y = g.apply(op, y, kernel=own[implementation](kernel), bias=bias)
    return activated(g, g.placed(y, data_format), activation)


def _centred(n: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """Return the padding of an axis; ``same`` is not TensorFlow's usual one here.

    The middle of window i is at position i times the stride.
    """
    if padding == "valid":
        return 0, 0
    before = kernel // 2
    return before, max(0, (-(-n // stride) - 1) * stride + kernel - before - n)


class _Patches:
    """The three ways in which Keras 2 keeps the kernels of all positions.

    Parameters
    ----------
    inputs : sequence of int
        Spatial sizes and channels.
    size, stride : sequence of int
        Of the kernel.
    sides : sequence of (int, int)
        The padding.
    filters : int
        The channels that come out.
    first : bool
        Whether the file counts channels before positions.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        size: Sequence[int],
        stride: Sequence[int],
        sides: Sequence[tuple[int, int]],
        filters: int,
        first: bool,
    ) -> None:
        *spatial, self.channels = inputs
        self.spatial, self.size, self.stride = spatial, tuple(size), tuple(stride)
        self.before = [before for before, _ in sides]
        self.filters = filters
        self.first = first
        self.outputs = tuple(
            (n + sum(pair) - k) // s + 1
            for n, k, s, pair in zip(spatial, size, stride, sides, strict=True)
        )

    def of_windows(self, kernel: Array) -> Array:
        """Return kernels kept as (positions, elements of a window, filters)."""
        inside = (*self.size, self.channels)
        if self.first:
            inside = (self.channels, *self.size)
        found = kernel.reshape(*self.outputs, *inside, self.filters)
        if self.first:
            found = np.moveaxis(found, len(self.outputs), -2)
        return found

    def of_a_matrix(self, kernel: Array) -> Array:
        """Return kernels kept as a tensor from every input to every output."""
        rank = len(self.spatial)
        if self.first:
            kernel = np.moveaxis(np.moveaxis(kernel, 0, rank), rank + 1, -1)
        wanted = (*self.spatial, self.channels, *self.outputs, self.filters)
        if kernel.shape != wanted:
            raise UnsupportedModelError(
                f"a kernel of shape {kernel.shape}, wanted {wanted}"
            )
        found = self._zeros()
        for place, tap, source in self._taps():
            outgoing = (slice(None), *place)
            found[place + tap] = kernel[source][outgoing]
        return found

    def of_pairs(self, kernel: Array) -> Array:
        """Return kernels kept as a list over connected outputs and inputs, sorted."""
        found = self._zeros()
        pairs = []
        for place, tap, source in self._taps():
            for i, o in itertools.product(range(self.channels), range(self.filters)):
                output = self._flat(place, self.outputs, o, self.filters)
                entry = self._flat(source, self.spatial, i, self.channels)
                pairs.append((output, entry, (*place, *tap, i, o)))
        if len(pairs) != kernel.size:
            raise UnsupportedModelError(
                f"{kernel.size} weights, wanted {len(pairs)} for its windows"
            )
        pairs.sort()
        for weight, (_, _, where) in zip(kernel.reshape(-1), pairs, strict=True):
            found[where] = weight
        return found

    def _zeros(self) -> Array:
        return np.zeros(
            (*self.outputs, *self.size, self.channels, self.filters), np.float32
        )

    def _taps(self) -> Any:
        """Yield (output position, tap, input position) wherever that is inside."""
        for place in itertools.product(*map(range, self.outputs)):
            for tap in itertools.product(*map(range, self.size)):
                source = tuple(
                    p * s - b + t
                    for p, s, b, t in zip(
                        place, self.stride, self.before, tap, strict=True
                    )
                )
                if all(0 <= i < n for i, n in zip(source, self.spatial, strict=True)):
                    yield place, tap, source

    def _flat(
        self, place: Sequence[int], sizes: Sequence[int], channel: int, channels: int
    ) -> int:
        """Return the number of an element in the file's order."""
        if self.first:
            place, sizes = (channel, *place), (channels, *sizes)
        else:
            place, sizes = (*place, channel), (*sizes, channels)
        return int(np.ravel_multi_index(tuple(place), tuple(sizes)))
