"""What each type of Caffe's layers computes.

Each function is named after its type of layer and takes the layer's settings by their
names.
"""

# ruff: noqa: N802

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.conversion import Registry
from striate.tools.from_onnx import axes as onnx_axes
from striate.tools.from_onnx import data as onnx_data
from striate.tools.from_onnx.axes import cut, mean, sliced
from striate.tools.from_onnx.data import along, reduced
from striate.tools.from_onnx.elementwise import combined
from striate.tools.from_onnx.layers import dense, image, on_image
from striate.tools.from_onnx.registry import OnnxBuilder, find_handler
from striate.tools.from_onnx.resample import resized
from striate.tools.layout import Dim, Tensor, Value, positions

Ints = tuple[int, ...] | list[int]
Floats = tuple[float, ...] | list[float]

LAYERS = Registry()
caffe_layer = LAYERS.register

LOSSES = frozenset(
    (
        *("SoftmaxWithLoss", "EuclideanLoss", "HingeLoss", "InfogainLoss"),
        *("SigmoidCrossEntropyLoss", "ContrastiveLoss", "MultinomialLogisticLoss"),
        *("Accuracy", "MultiBoxLoss", "SmoothL1Loss", "DetectionEvaluate"),
        *("HDF5Output", "TripletLoss", "CenterLoss", "SoftmaxWithFocalLoss"),
    )
)
"""Layers that judge a result, which are left out."""

DATA = frozenset(
    (
        *("Data", "ImageData", "HDF5Data", "MemoryData", "DummyData", "WindowData"),
        *("AnnotatedData", "Input", "VideoData", "ImageSegData", "DenseImageData"),
    )
)
"""Layers that are inputs, of which the first is the picture and others are labels."""


class CaffeBuilder(OnnxBuilder):
    """A `Builder` with what Caffe's layers need to know.

    Parameters
    ----------
    batch : int, optional
        The batch size that the file fixes and that is left open all the same.

    Attributes
    ----------
    blobs : tuple of Array
        The weights of the layer that is being converted.
    normals : dict
        What batch normalisation made of what, so that scaling joins it.
    """

    def __init__(self, batch: int | None) -> None:
        symbols = {} if batch is None else {"N": (2, 3)}
        super().__init__(symbols, opset=13, batch=batch)
        self.blobs: tuple[Array, ...] = ()
        self.normals: dict[str, tuple[Tensor, Array, Array, float]] = {}

    def blob(self, index: int, *shape: int) -> Array:
        """Return weights, whose shape may have more axes of size one.

        Raises
        ------
        UnsupportedModelError
            If the layer has none, or none of that shape.
        """
        if index >= len(self.blobs):
            raise UnsupportedModelError(
                f"the weights file has {len(self.blobs)} arrays for a layer of its "
                f"name, wanted {index + 1}"
            )
        found = self.blobs[index]
        if [n for n in found.shape if n != 1] != [n for n in shape if n != 1]:
            raise UnsupportedModelError(
                f"weights of shape {found.shape}, wanted {shape}"
            )
        return found.reshape(shape)

    def channels(self, x: Tensor) -> int:
        """Return the size of axis 1."""
        if x.rank < 2:
            raise UnsupportedModelError(
                f"its input has rank {x.rank}, wanted 2 or more"
            )
        return self.fixed(x.shape[1], "its number of channels")

    def line(self, x: Tensor, scale: float, shift: float) -> Tensor:
        """Return ``scale x + shift``."""
        if scale != 1:
            x = self.combine(ops.Mul(), x, self.number(scale))
        return x if shift == 0 else self.combine(ops.Add(), x, self.number(shift))


def _pair(
    both: Any, first: int | None, second: int | None, default: int
) -> tuple[int, int]:
    """Return settings of height and width, given together or apart."""
    values = both if isinstance(both, (list, tuple)) else [both]
    values = [value for value in values if value is not None] or [default]
    height = values[0] if first is None else first
    width = values[-1] if second is None else second
    return height, width


def _axes(
    both: Ints, pair: tuple[int | None, int | None], rank: int, least: int
) -> Any:
    """Return a setting for each of `rank` spatial axes."""
    if pair != (None, None):
        both = _pair(both, *pair, least)
    values = tuple(both) or (least,)
    values = values * rank if len(values) == 1 else values
    if len(values) != rank or min(values) < least:
        raise UnsupportedModelError(
            f"settings {list(values)} for {rank} spatial axes, wanted {least} or more"
        )
    return values


def _register_convolution(*names: str, transposed: bool = False) -> None:
    @caffe_layer(*names)
    def convolution(
        g: CaffeBuilder,
        x: Tensor,
        *,
        num_output: int,
        bias_term: bool = True,
        pad: Ints = (),
        kernel_size: Ints = (),
        stride: Ints = (),
        dilation: Ints = (),
        pad_h: int | None = None,
        pad_w: int | None = None,
        kernel_h: int | None = None,
        kernel_w: int | None = None,
        stride_h: int | None = None,
        stride_w: int | None = None,
        group: int = 1,
        axis: int = 1,
        force_nd_im2col: bool = False,
    ) -> Tensor:
        size, steps, sides, gaps = _window(
            x,
            axis,
            (kernel_size, kernel_h, kernel_w),
            (stride, stride_h, stride_w),
            (pad, pad_h, pad_w),
            dilation,
        )
        channels = g.channels(x)
        _require_groups(channels, group)
        _require_groups(num_output, group)
        if transposed:
            kernel = g.blob(0, channels, num_output // group, *size)
            op: ops.Op = ops.ConvTranspose(steps, gaps, sides, (0,), group)
        else:
            kernel = g.blob(0, num_output, channels // group, *size)
            op = ops.Conv(steps, gaps, sides, group)
        bias = g.blob(1, num_output) if bias_term else None
        kernel = kernel.transpose(*range(2, x.rank), 1, 0)
        y = g.apply(op, image(x, "its input"), kernel=kernel, bias=bias)
        return y.channels_first()


_register_convolution("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution")
_register_convolution("Deconvolution", transposed=True)


def _require_groups(channels: int, group: int) -> None:
    if group < 1 or channels % group:
        raise UnsupportedModelError(f"group {group} of {channels} channels")


def _window(
    x: Tensor, axis: int, kernel: Any, stride: Any, pad: Any, dilation: Ints
) -> tuple[Any, Any, Any, Any]:
    """Return kernel, stride, padding and dilation as operators take them."""
    if axis != 1:
        raise UnsupportedModelError(f"axis {axis}, wanted 1")
    rank = x.rank - 2
    sides = _axes(pad[0], pad[1:], rank, 0)
    return (
        _axes(kernel[0] or (() if kernel[1] else (0,)), kernel[1:], rank, 1),
        _axes(stride[0], stride[1:], rank, 1),
        tuple((n, n) for n in sides) if any(sides) else "valid",
        _axes(dilation, (None, None), rank, 1),
    )


@caffe_layer("Pooling")
def Pooling(
    g: CaffeBuilder,
    x: Tensor,
    *,
    pool: str = "MAX",
    pad: int = 0,
    pad_h: int | None = None,
    pad_w: int | None = None,
    kernel_size: int | None = None,
    kernel_h: int | None = None,
    kernel_w: int | None = None,
    stride: int = 1,
    stride_h: int | None = None,
    stride_w: int | None = None,
    global_pooling: bool = False,
    round_mode: str = "CEIL",
    ceil_mode: bool = True,
) -> Tensor:
    """Take the largest or the mean of windows; the last may stick out."""
    if pool not in ("MAX", "AVE"):
        raise UnsupportedModelError(f"pool {pool}")
    if g.results > 1:
        raise UnsupportedModelError("its second output, where the largest were")
    pixels = image(x, "its input")
    if global_pooling:
        whole = ops.GlobalMaxPool if pool == "MAX" else ops.GlobalAveragePool
        return g.apply(whole(keepdims=True), pixels).channels_first()
    kernel = _pair(kernel_size, kernel_h, kernel_w, 0)
    steps = _pair(stride, stride_h, stride_w, 1)
    sides = _pair(pad, pad_h, pad_w, 0)
    up = ceil_mode and round_mode == "CEIL"
    if up and not any(sides):
        for n, k, s in zip(x.shape[2:], kernel, steps, strict=True):
            if any(-(-(size - k) // s) * s >= size for size in n):
                raise UnsupportedModelError(
                    f"a window of {k} with stride {s} begins behind an input of {n[0]}"
                )
    around: Any = tuple((n, n) for n in sides) if any(sides) else "valid"
    if pool == "MAX":
        op: ops.Op = ops.MaxPool(kernel, steps, (1,), around, up)
    else:
        op = ops.AveragePool(kernel, steps, (1,), around, up, count_include_pad=True)
    return g.apply(op, pixels).channels_first()


@caffe_layer("InnerProduct")
def InnerProduct(
    g: CaffeBuilder,
    x: Tensor,
    *,
    num_output: int,
    bias_term: bool = True,
    axis: int = 1,
    transpose: bool = False,
) -> Tensor:
    """Multiply by a matrix, the axes from `axis` on as one."""
    axis = g.axis(axis, x.rank)
    count = g.fixed(g.product(x.shape[axis:]), "the size it multiplies")
    shape = (count, num_output) if transpose else (num_output, count)
    matrix = g.blob(0, *shape)
    bias = g.blob(1, num_output) if bias_term else None
    flat = g.reshape(x, (*x.shape[:axis], (count,) * g.bindings))
    return dense(g, flat, matrix if transpose else matrix.T, bias)


@caffe_layer("ReLU")
def ReLU(g: CaffeBuilder, x: Tensor, *, negative_slope: float = 0.0) -> Tensor:
    """Scale negative numbers, or drop them."""
    op = ops.LeakyRelu(negative_slope) if negative_slope else ops.Relu()
    return g.elementwise(op, x)


@caffe_layer("PReLU")
def PReLU(g: CaffeBuilder, x: Tensor, *, channel_shared: bool = False) -> Tensor:
    """Scale negative numbers by what was learnt."""
    channels = g.channels(x)
    slope = g.blob(0, 1) if channel_shared else g.blob(0, channels)
    shape = (1,) if channel_shared else (channels, *(1,) * (x.rank - 2))
    return g.elementwise(ops.PRelu(), x, slope=slope.reshape(shape))


@caffe_layer("ELU")
def ELU(g: CaffeBuilder, x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Bend negative numbers."""
    return g.elementwise(ops.Elu(alpha), x)


@caffe_layer("Clip")
def Clip(g: CaffeBuilder, x: Tensor, *, min: float, max: float) -> Tensor:
    """Limit numbers to an interval."""
    return g.elementwise(ops.Clip(min, max), x)


@caffe_layer("Swish")
def Swish(g: CaffeBuilder, x: Tensor, *, beta: float = 1.0) -> Tensor:
    """Weigh numbers by a sigmoid."""
    return g.elementwise(ops.Silu() if beta == 1 else ops.Swish(beta), x)


def _register_unary(name: str, op: ops.Op) -> None:
    @caffe_layer(name)
    def unary(g: CaffeBuilder, x: Tensor) -> Tensor:
        return g.elementwise(op, x)


for _name, _op in {
    "Sigmoid": ops.Sigmoid(),
    "TanH": ops.Tanh(),
    "AbsVal": ops.Abs(),
    "BNLL": ops.Softplus(),
    "ReLU6": ops.Clip(0, 6),
}.items():
    _register_unary(_name, _op)


@caffe_layer("Power")
def Power(
    g: CaffeBuilder,
    x: Tensor,
    *,
    power: float = 1.0,
    scale: float = 1.0,
    shift: float = 0.0,
) -> Tensor:
    """Compute ``(scale x + shift) ^ power``."""
    y = g.line(x, scale, shift)
    return y if power == 1 else g.combine(ops.Pow(), y, g.number(power))


@caffe_layer("Exp")
def Exp(
    g: CaffeBuilder,
    x: Tensor,
    *,
    base: float = -1.0,
    scale: float = 1.0,
    shift: float = 0.0,
) -> Tensor:
    """Compute ``base ^ (scale x + shift)``, of e if the base is -1."""
    factor = 1.0 if base == -1 else math.log(base)
    return g.elementwise(ops.Exp(), g.line(x, scale * factor, shift * factor))


@caffe_layer("Log")
def Log(
    g: CaffeBuilder,
    x: Tensor,
    *,
    base: float = -1.0,
    scale: float = 1.0,
    shift: float = 0.0,
) -> Tensor:
    """Compute the logarithm of ``scale x + shift``, the natural one if base is -1."""
    y = g.elementwise(ops.Log(), g.line(x, scale, shift))
    return y if base == -1 else g.line(y, 1 / math.log(base), 0.0)


@caffe_layer("Threshold")
def Threshold(g: CaffeBuilder, x: Tensor, *, threshold: float = 0.0) -> Tensor:
    """Return 1 for what is above a threshold, and 0."""
    above = g.combine(ops.Greater(), x, g.number(threshold))
    return g.cast(above, "float32")


@caffe_layer("BatchNorm")
def BatchNorm(
    g: CaffeBuilder,
    x: Tensor,
    *,
    use_global_stats: bool = True,
    moving_average_fraction: float = 0.999,
    eps: float = 1e-5,
    scale_bias: bool = False,
) -> Tensor:
    """Normalise with what was learnt; the third weight divides the others."""
    if not use_global_stats:
        raise UnsupportedModelError("use_global_stats: false; it depends on the batch")
    if scale_bias or len(g.blobs) > 3:
        raise UnsupportedModelError(f"{len(g.blobs)} arrays of weights, wanted 3")
    channels = g.channels(x)
    mean_value, variance = g.blob(0, channels), g.blob(1, channels)
    (total,) = g.blob(2, 1)
    factor = np.float32(0 if total == 0 else 1 / total)
    mean_value, variance = mean_value * factor, variance * factor
    y = _normalised(g, x, mean_value, variance, eps)
    if isinstance(y, Value):
        g.normals[y.name] = (x, mean_value, variance, eps)
    return y


def _normalised(
    g: CaffeBuilder,
    x: Tensor,
    mean_value: Array,
    variance: Array,
    eps: float,
    gamma: Array | None = None,
    beta: Array | None = None,
) -> Tensor:
    one = np.ones_like(mean_value)
    zero = np.zeros_like(mean_value)
    return g.apply(
        ops.BatchNorm(eps),
        x.channels_last(),
        gamma=one if gamma is None else gamma,
        beta=zero if beta is None else beta,
        mean=mean_value,
        variance=variance,
    ).channels_first()


@caffe_layer("Scale")
def Scale(
    g: CaffeBuilder,
    x: Tensor,
    other: Tensor | None = None,
    *,
    axis: int = 1,
    num_axes: int = 1,
    bias_term: bool = False,
) -> Tensor:
    """Multiply by what was learnt, or by another layer; behind `BatchNorm` as one."""
    axis = g.axis(axis, x.rank)
    if other is not None:
        y = combined(g, "Mul", x, _along(g, x, other, axis))
        return y if not bias_term else _shifted(g, x, y, axis, other.rank, 0)
    shape = _covered(g, x, axis, num_axes)
    gamma = g.blob(0, *shape)
    beta = g.blob(1, *shape) if bias_term else None
    if axis == 1 and len(shape) == 1 and isinstance(x, Value) and x.rank > 2:
        source = g.normals.get(x.name)
        if source is not None:
            return _normalised(g, *source, gamma, beta)
    ones = (1,) * (x.rank - axis - len(shape))
    y = combined(g, "Mul", x, g.constant(gamma.reshape(*shape, *ones)))
    if beta is not None:
        y = combined(g, "Add", y, g.constant(beta.reshape(*shape, *ones)))
    return y


@caffe_layer("Bias")
def Bias(
    g: CaffeBuilder,
    x: Tensor,
    other: Tensor | None = None,
    *,
    axis: int = 1,
    num_axes: int = 1,
) -> Tensor:
    """Add what was learnt, or another layer."""
    axis = g.axis(axis, x.rank)
    if other is not None:
        return combined(g, "Add", x, _along(g, x, other, axis))
    return _shifted(g, x, x, axis, num_axes, 0)


def _shifted(
    g: CaffeBuilder, x: Tensor, y: Tensor, axis: int, num_axes: int, index: int
) -> Tensor:
    shape = _covered(g, x, axis, num_axes)
    ones = (1,) * (x.rank - axis - len(shape))
    beta = g.blob(index, *shape).reshape(*shape, *ones)
    return combined(g, "Add", y, g.constant(beta))


def _covered(g: CaffeBuilder, x: Tensor, axis: int, num_axes: int) -> tuple[int, ...]:
    """Return the sizes of the axes that weights cover."""
    end = x.rank if num_axes == -1 else axis + num_axes
    if not axis <= end <= x.rank:
        raise UnsupportedModelError(f"num_axes {num_axes} from axis {axis}")
    return tuple(g.fixed(dim, "a size it covers") for dim in x.shape[axis:end])


def _along(g: CaffeBuilder, x: Tensor, other: Tensor, axis: int) -> Tensor:
    """Return another tensor with axes of size one around, to lie along `axis`."""
    ones = (1,) * g.bindings
    rest = x.rank - axis - other.rank
    if rest < 0:
        axis, rest = 0, x.rank - other.rank
    return g.reshape(other, (*(ones,) * axis, *other.shape, *(ones,) * rest))


@caffe_layer("LRN")
def LRN(
    g: CaffeBuilder,
    x: Tensor,
    *,
    local_size: int = 5,
    alpha: float = 1.0,
    beta: float = 0.75,
    norm_region: str = "ACROSS_CHANNELS",
    k: float = 1.0,
) -> Tensor:
    """Divide by a power of the energy nearby, of other channels or of pixels."""
    if not local_size % 2:
        raise UnsupportedModelError(f"local_size {local_size}, wanted an odd one")
    across = norm_region == "ACROSS_CHANNELS"
    op = ops.LRN(local_size, alpha, beta, k if across else 1.0, across)
    return on_image(g, op, x)


@caffe_layer("Softmax")
def Softmax(g: CaffeBuilder, x: Tensor, *, axis: int = 1) -> Tensor:
    """Make probabilities along an axis."""
    function: Any = find_handler("Softmax", "", 13)
    y: Tensor = function(g, x, axis=axis)
    return y


@caffe_layer("Eltwise")
def Eltwise(
    g: CaffeBuilder,
    *bottoms: Tensor,
    operation: str = "SUM",
    coeff: Floats = (),
    stable_prod_grad: bool = True,
) -> Tensor:
    """Multiply, add or take the largest, element by element."""
    if len({x.shape for x in bottoms}) > 1:
        raise UnsupportedModelError("its inputs differ in size")
    if coeff and (operation != "SUM" or len(coeff) != len(bottoms)):
        raise UnsupportedModelError(
            f"{len(coeff)} coefficients for {operation} of {len(bottoms)} inputs"
        )
    scaled = [
        g.line(x, factor, 0.0)
        for x, factor in zip(bottoms, coeff or (1.0,) * len(bottoms), strict=True)
    ]
    name = {"PROD": "Mul", "SUM": "Add", "MAX": "Max"}[operation]
    return reduce(lambda x, y: combined(g, name, x, y), scaled)


@caffe_layer("Axpy")
def Axpy(g: CaffeBuilder, scale: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Compute ``scale x + y``, one number of scale for each channel."""
    ones = (1,) * g.bindings
    factor = g.reshape(scale, (*scale.shape[:2], *(ones,) * (x.rank - 2)))
    return combined(g, "Add", combined(g, "Mul", x, factor), y)


@caffe_layer("Concat")
def Concat(
    g: CaffeBuilder, *bottoms: Tensor, axis: int = 1, concat_dim: int | None = None
) -> Tensor:
    """Join along an axis."""
    return onnx_axes.Concat(
        g, *bottoms, axis=axis if concat_dim is None else concat_dim
    )


@caffe_layer("Slice")
def Slice(
    g: CaffeBuilder,
    x: Tensor,
    *,
    axis: int = 1,
    slice_point: Ints = (),
    slice_dim: int | None = None,
) -> tuple[Tensor, ...]:
    """Cut along an axis, in equal parts unless the places are given."""
    axis = g.axis(axis if slice_dim is None else slice_dim, x.rank)
    size = g.fixed(x.shape[axis], "the size it cuts")
    if slice_point:
        edges = [0, *slice_point, size]
        sizes = tuple(b - a for a, b in pairwise(edges))
    else:
        if size % g.results:
            raise UnsupportedModelError(f"{size} elements in {g.results} equal parts")
        sizes = (size // g.results,) * g.results
    if min(sizes) < 1:
        raise UnsupportedModelError(f"parts {list(sizes)}")
    return cut(g, x, axis, sizes)


@caffe_layer("Split")
def Split(g: CaffeBuilder, x: Tensor) -> tuple[Tensor, ...]:
    """Return the same tensor several times."""
    return (x,) * g.results


@caffe_layer("Dropout", "Silence")
def Dropout(
    g: CaffeBuilder,
    x: Tensor,
    *others: Tensor,
    dropout_ratio: float = 0.5,
    scale_train: bool = True,
) -> Tensor:
    """Do nothing: it is for training."""
    if not scale_train:
        raise UnsupportedModelError("scale_train: false")
    return x


@caffe_layer("Flatten")
def Flatten(g: CaffeBuilder, x: Tensor, *, axis: int = 1, end_axis: int = -1) -> Tensor:
    """Join the axes from `axis` to `end_axis`."""
    first, end = g.axis(axis, x.rank), g.axis(end_axis, x.rank)
    if first > end:
        raise UnsupportedModelError(f"axis {axis} behind end_axis {end_axis}")
    return g.reshape(
        x,
        (
            *x.shape[:first],
            g.product(x.shape[first : end + 1]),
            *x.shape[end + 1 :],
        ),
    )


@caffe_layer("Reshape")
def Reshape(
    g: CaffeBuilder,
    x: Tensor,
    *,
    shape: dict[str, Any],
    axis: int = 0,
    num_axes: int = -1,
) -> Tensor:
    """Give some axes other sizes: 0 one that stays, -1 the one that is left."""
    first = axis if axis >= 0 else x.rank + axis + 1
    end = x.rank if num_axes == -1 else first + num_axes
    if not 0 <= first <= end <= x.rank:
        raise UnsupportedModelError(f"num_axes {num_axes} from axis {axis}")
    wanted: list[Dim] = list(x.shape[:first])
    for place, size in enumerate(shape.get("dim", ()), first):
        if size == 0 and place >= x.rank:
            raise UnsupportedModelError(f"it keeps axis {place} of {x.rank}")
        wanted.append(x.shape[place] if size == 0 else (size,) * g.bindings)
    wanted += x.shape[end:]
    return g.reshape_to(x, wanted, zero_copies=False)


@caffe_layer("Permute")
def Permute(g: CaffeBuilder, x: Tensor, *, order: Ints) -> Tensor:
    """Put the axes in another order; those left out follow."""
    axes = [*order, *(axis for axis in range(x.rank) if axis not in order)]
    if sorted(axes) != list(range(x.rank)):
        raise UnsupportedModelError(f"order {list(order)} for rank {x.rank}")
    return x.transpose(axes)


@caffe_layer("ShuffleChannel")
def ShuffleChannel(g: CaffeBuilder, x: Tensor, *, group: int) -> Tensor:
    """Deal out the channels of groups in turn."""
    channels = g.channels(x)
    _require_groups(channels, group)
    batch, _, *spatial = x.shape
    parts = [(n,) * g.bindings for n in (group, channels // group)]
    grouped = g.reshape(x, (batch, *parts, *spatial))
    turned = grouped.transpose((0, 2, 1, *range(3, grouped.rank)))
    return g.reshape(turned, x.shape)


@caffe_layer("Crop")
def Crop(
    g: CaffeBuilder, x: Tensor, like: Tensor, *, axis: int = 2, offset: Ints = ()
) -> Tensor:
    """Cut out of the axes from `axis` on as much as another layer has."""
    axis = g.axis(axis, x.rank)
    axes = tuple(range(axis, x.rank))
    starts = tuple(offset) or (0,)
    starts = starts * len(axes) if len(starts) == 1 else starts
    if len(starts) != len(axes) or like.rank != x.rank:
        raise UnsupportedModelError(f"{len(starts)} offsets for {len(axes)} axes")
    sizes = [g.fixed(like.shape[a], "the size it cuts out") for a in axes]
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    for place, end in zip(axes, ends, strict=True):
        if any(end > n for n in x.shape[place]):
            raise UnsupportedModelError(
                f"it cuts up to {end} out of {x.shape[place][0]} along axis {place}"
            )
    return sliced(g, x, starts, ends, axes, None)


@caffe_layer("Tile")
def Tile(g: CaffeBuilder, x: Tensor, *, tiles: int, axis: int = 1) -> Tensor:
    """Repeat along an axis."""
    repeats = np.ones(x.rank, np.int64)
    repeats[g.axis(axis, x.rank)] = tiles
    return onnx_data.Tile(g, x, g.constant(repeats))


@caffe_layer("MVN")
def MVN(
    g: CaffeBuilder,
    x: Tensor,
    *,
    normalize_variance: bool = True,
    across_channels: bool = False,
    eps: float = 1e-9,
) -> Tensor:
    """Take away the mean, and divide by the deviation, of each channel or picture."""
    axes = tuple(range(1 if across_channels else 2, x.rank))
    if not normalize_variance:
        return combined(g, "Sub", x, mean(g, x, axes, keepdims=1))
    order = g.order(x)
    op = ops.MeanVarianceNorm(positions(order, axes), eps)
    return g.permuted(op, x, order)


@caffe_layer("Normalize")
def Normalize(
    g: CaffeBuilder,
    x: Tensor,
    *,
    across_spatial: bool = True,
    channel_shared: bool = True,
    eps: float = 1e-10,
) -> Tensor:
    """Divide by the root of the sum of squares, and multiply by what was learnt."""
    channels = g.channels(x)
    axes = tuple(range(1, x.rank)) if across_spatial else (1,)
    count = g.fixed(g.product([x.shape[axis] for axis in axes]), "its input's size")
    scale = g.blob(0, 1) if channel_shared else g.blob(0, channels)
    gamma = (scale / math.sqrt(count)).reshape(1, -1, *(1,) * (x.rank - 2))
    order = g.order(x)
    op = ops.RMSNorm(positions(order, axes), eps / count)
    return g.permuted(op, x, order, gamma=gamma.transpose(order))


REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "SUM": lambda g, x, axes: reduced(g, ops.ReduceSum, x, axes, 0),
    "ASUM": lambda g, x, axes: reduced(g, ops.ReduceL1, x, axes, 0),
    "SUMSQ": lambda g, x, axes: reduced(g, ops.ReduceSumSquare, x, axes, 0),
    "MEAN": lambda g, x, axes: mean(g, x, axes, 0),
}


@caffe_layer("Reduction")
def Reduction(
    g: CaffeBuilder,
    x: Tensor,
    *,
    operation: str = "SUM",
    axis: int = 0,
    coeff: float = 1.0,
) -> Tensor:
    """Make one number of all axes from `axis` on."""
    axes = tuple(range(g.axis(axis, x.rank), x.rank))
    return g.line(REDUCTIONS[operation](g, x, axes), coeff, 0.0)


@caffe_layer("ArgMax")
def ArgMax(
    g: CaffeBuilder,
    x: Tensor,
    *,
    out_max_val: bool = False,
    top_k: int = 1,
    axis: int | None = None,
) -> Tensor:
    """Find the largest, along an axis or of each picture, or where they are."""
    place = 1 if axis is None else g.axis(axis, x.rank)
    flat = x
    if axis is None:
        flat = g.reshape(x, (x.shape[0], g.product(x.shape[1:])))
    if top_k == 1 and not out_max_val:
        op = ops.ArgMax(place, keepdims=True, select_last=True)
        values, indices = None, along(g, op, flat, place)[0]
    else:
        values, indices = along(g, ops.TopK(top_k, place), flat, place, outputs=2)
    where = g.cast(indices, "float32")
    if axis is not None:
        return where if values is None or not out_max_val else values
    ones = (1,) * g.bindings
    rest = (ones,) * (max(x.rank, 3) - 3)
    shape = (x.shape[0], ones, (top_k,) * g.bindings, *rest)
    if values is None or not out_max_val:
        return g.reshape(where, shape)
    return onnx_axes.Concat(
        g, g.reshape(where, shape), g.reshape(values, shape), axis=1
    )


@caffe_layer("Interp")
def Interp(
    g: CaffeBuilder,
    x: Tensor,
    *,
    height: int = 0,
    width: int = 0,
    zoom_factor: int = 1,
    shrink_factor: int = 1,
    pad_beg: int = 0,
    pad_end: int = 0,
) -> Tensor:
    """Resample between the corner pixels, after cutting off a border."""
    if max(pad_beg, pad_end) > 0 or min(zoom_factor, shrink_factor) < 1:
        raise UnsupportedModelError(f"pad_beg {pad_beg}, pad_end {pad_end}")
    if pad_beg or pad_end:
        far = (1 << 31) - 1
        ends = (pad_end or far,) * 2
        x = sliced(g, x, (-pad_beg,) * 2, ends, (2, 3), None)
    sizes = [g.fixed(dim, "its input's size") for dim in x.shape[2:]]
    if height and width:
        sizes = [height, width]
    else:
        sizes = [(n - 1) // shrink_factor + 1 for n in sizes]
        sizes = [n + (n - 1) * (zoom_factor - 1) for n in sizes]
    op = ops.Resize(
        sizes=tuple(sizes), axes=(2, 3), mode="linear", coordinates="align_corners"
    )
    return resized(g, op, x)


@caffe_layer("Upsample")
def Upsample(g: CaffeBuilder, x: Tensor, *, scale: int = 2) -> Tensor:
    """Repeat every pixel along both axes."""
    op = ops.Resize(
        scales=(float(scale),) * 2,
        axes=(2, 3),
        coordinates="asymmetric",
        nearest="floor",
    )
    return resized(g, op, x)
