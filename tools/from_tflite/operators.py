"""What each operator of TensorFlow Lite computes.

Each function is named after its operator and takes the operator's settings by their
names. Images are (N, H, W, C) as they are here.
"""

# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.conversion import Registry
from striate.tools.from_onnx import axes as onnx_axes
from striate.tools.from_onnx import data as onnx_data
from striate.tools.from_onnx.axes import FAR, cut, mean, padded, sliced
from striate.tools.from_onnx.data import along, reduced
from striate.tools.from_onnx.elementwise import combined
from striate.tools.from_onnx.layers import dense
from striate.tools.from_onnx.registry import OnnxBuilder, find_handler
from striate.tools.from_onnx.resample import resized
from striate.tools.from_tflite.schema import TYPES
from striate.tools.layout import Constant, Tensor, Value

Ints = tuple[int, ...]

OPERATORS = Registry()
tflite_op = OPERATORS.register

SAME = 0
"""The number of the padding that keeps the size; the other is none."""


def _sides(padding: int) -> str:
    return "same" if padding == SAME else "valid"


def _image(x: Tensor, rank: int = 4) -> Tensor:
    if x.rank != rank:
        raise UnsupportedModelError(f"its input has rank {x.rank}, wanted {rank}")
    return x


Arranged = tuple[Array, int]
"""A kernel (H, W, in / groups, out), and the number of groups."""


def _shared(kernel: Array, channels: int) -> Arranged:
    """Arrange a kernel (out, H, W, in / groups)."""
    if kernel.ndim != 4 or not kernel.shape[3] or channels % kernel.shape[3]:
        raise UnsupportedModelError(
            f"a kernel of shape {kernel.shape} for {channels} channels"
        )
    return kernel.transpose(1, 2, 3, 0), channels // kernel.shape[3]


def _each(kernel: Array, channels: int) -> Arranged:
    """Arrange a kernel (1, H, W, out) for each channel by itself."""
    if kernel.ndim != 4 or kernel.shape[0] != 1 or kernel.shape[3] % channels:
        raise UnsupportedModelError(
            f"a kernel of shape {kernel.shape} for {channels} channels"
        )
    return kernel[0][:, :, None], channels


def _register_convolution(
    name: str, arranged: Callable[[Array, int], Arranged]
) -> None:
    @tflite_op(name)
    def convolution(
        g: OnnxBuilder,
        x: Tensor,
        filter: Tensor,
        bias: Tensor | None = None,
        *,
        padding: int,
        stride_w: int,
        stride_h: int,
        depth_multiplier: int = 0,
        dilation_w: int = 1,
        dilation_h: int = 1,
        around: Any = None,
    ) -> Tensor:
        channels = g.fixed(_image(x).shape[3], "its number of channels")
        kernel, groups = arranged(g.array(filter, "its kernel"), channels)
        op = ops.Conv(
            (stride_h, stride_w),
            (dilation_h, dilation_w),
            around or _sides(padding),
            groups,
        )
        return g.apply(op, x, kernel=kernel, bias=g.optional(bias, "its bias"))


_register_convolution("CONV_2D", _shared)
_register_convolution("DEPTHWISE_CONV_2D", _each)


@tflite_op("CONV_3D")
def CONV_3D(
    g: OnnxBuilder,
    x: Tensor,
    filter: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int,
    stride_d: int,
    stride_w: int,
    stride_h: int,
    dilation_d: int = 1,
    dilation_w: int = 1,
    dilation_h: int = 1,
) -> Tensor:
    """Convolve along three axes; the kernel lies as it does here."""
    kernel = g.array(filter, "its kernel")
    strides = (stride_d, stride_h, stride_w)
    dilations = (dilation_d, dilation_h, dilation_w)
    op = ops.Conv(strides, dilations, _sides(padding))
    return g.apply(op, _image(x, 5), kernel=kernel, bias=g.optional(bias, "its bias"))


@tflite_op("TRANSPOSE_CONV")
def TRANSPOSE_CONV(
    g: OnnxBuilder,
    output_shape: Tensor,
    filter: Tensor,
    x: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int,
    stride_w: int,
    stride_h: int,
) -> Tensor:
    """Spread every pixel; of an odd padding the extra pixel is cut off last."""
    kernel = g.array(filter, "its kernel")
    wanted = _numbers(g, output_shape, "its output_shape")[1:3]
    around, added = [], []
    for dim, size, k, s in zip(
        _image(x).shape[1:3], wanted, kernel.shape[1:3], (stride_h, stride_w),
        strict=True,
    ):  # fmt: skip
        total = (g.fixed(dim, "its input's size") - 1) * s + k - size
        around.append((max(total, 0) // 2, max(total, 0) - max(total, 0) // 2))
        added.append(max(-total, 0))
    op = ops.ConvTranspose((stride_h, stride_w), (1,), tuple(around), tuple(added))
    return g.apply(
        op, x, kernel=kernel.transpose(1, 2, 0, 3), bias=g.optional(bias, "its bias")
    )


@tflite_op("FULLY_CONNECTED")
def FULLY_CONNECTED(
    g: OnnxBuilder,
    x: Tensor,
    filter: Tensor,
    bias: Tensor | None = None,
    *,
    weights_format: int = 0,
    keep_num_dims: bool = False,
) -> Tensor:
    """Multiply by a matrix of one row for each output."""
    if weights_format:
        raise UnsupportedModelError("its weights are shuffled for one processor")
    if filter.rank != 2:
        raise UnsupportedModelError(f"a matrix of rank {filter.rank}")
    inputs = filter.shape[1]
    if not keep_num_dims and x.shape[1:] != (inputs,):
        rest = (-1,) * g.bindings
        x = g.reshape_to(x, [rest, inputs], zero_copies=False)
    if isinstance(filter, Constant):
        kernel = g.array(filter, "its matrix").T
        return dense(g, x, kernel, g.optional(bias, "its bias"))
    product = g.operate(ops.MatMul(), x, filter.transpose((1, 0)))
    return product if bias is None else combined(g, "Add", product, bias)


def _register_pool(
    name: str, kind: type[ops.AveragePool] | type[ops.MaxPool], squares: bool = False
) -> None:
    @tflite_op(name)
    def pool(
        g: OnnxBuilder,
        x: Tensor,
        *,
        padding: int,
        stride_w: int,
        stride_h: int,
        filter_width: int,
        filter_height: int,
    ) -> Tensor:
        size = (filter_height, filter_width)
        op = kind(size, (stride_h, stride_w), (1,), _sides(padding))
        y = g.apply(op, _image(SQUARE(g, x) if squares else x))
        return g.elementwise(ops.Sqrt(), y) if squares else y


_register_pool("AVERAGE_POOL_2D", ops.AveragePool)
_register_pool("MAX_POOL_2D", ops.MaxPool)
_register_pool("L2_POOL_2D", ops.AveragePool, squares=True)


UNARY: dict[str, ops.Op] = {
    "ABS": ops.Abs(),
    "CEIL": ops.Ceil(),
    "COS": ops.Cos(),
    "ELU": ops.Elu(1.0),
    "EXP": ops.Exp(),
    "FLOOR": ops.Floor(),
    "HARD_SWISH": ops.HardSwish(),
    "LOG": ops.Log(),
    "LOGICAL_NOT": ops.Not(),
    "LOGISTIC": ops.Sigmoid(),
    "NEG": ops.Neg(),
    "RELU": ops.Relu(),
    "RELU6": ops.Clip(0, 6),
    "RELU_0_TO_1": ops.Clip(0, 1),
    "RELU_N1_TO_1": ops.Clip(-1, 1),
    "ROUND": ops.Round(),
    "SIGN": ops.Sign(),
    "SIN": ops.Sin(),
    "SQRT": ops.Sqrt(),
    "TANH": ops.Tanh(),
}

BINARY = {
    "ADD": "Add",
    "SUB": "Sub",
    "MUL": "Mul",
    "DIV": "Div",
    "POW": "Pow",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
}

COMPARISONS = {
    "EQUAL": "Equal",
    "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterOrEqual",
    "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual",
    "LOGICAL_AND": "And",
    "LOGICAL_OR": "Or",
}

REDUCTIONS: dict[str, type[ops.Reduction]] = {
    "SUM": ops.ReduceSum,
    "REDUCE_MAX": ops.ReduceMax,
    "REDUCE_MIN": ops.ReduceMin,
    "REDUCE_PROD": ops.ReduceProd,
}


def _register_unary(name: str, op: ops.Op) -> None:
    @tflite_op(name)
    def unary(g: OnnxBuilder, x: Tensor) -> Tensor:
        return g.elementwise(op, x)


def _register_binary(name: str, onnx_name: str) -> None:
    @tflite_op(name)
    def binary(g: OnnxBuilder, x: Tensor, y: Tensor) -> Tensor:
        return combined(g, onnx_name, x, y)


def _register_comparison(name: str, onnx_name: str) -> None:
    function: Any = find_handler(onnx_name, "", 13)

    @tflite_op(name)
    def comparison(g: OnnxBuilder, x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = function(g, x, y)
        return result


def _register_reduction(name: str, kind: type[ops.Reduction]) -> None:
    @tflite_op(name)
    def reduction(
        g: OnnxBuilder, x: Tensor, axes: Tensor, *, keep_dims: bool = False
    ) -> Tensor:
        return reduced(g, kind, x, _numbers(g, axes, "its axes"), int(keep_dims))


for _name, _op in UNARY.items():
    _register_unary(_name, _op)
for _name, _onnx_name in BINARY.items():
    _register_binary(_name, _onnx_name)
for _name, _onnx_name in COMPARISONS.items():
    _register_comparison(_name, _onnx_name)
for _name, _kind in REDUCTIONS.items():
    _register_reduction(_name, _kind)


def _numbers(g: OnnxBuilder, x: Tensor | None, what: str) -> Ints:
    return g.numbers(x, what) or ()


@tflite_op("NOT_EQUAL")
def NOT_EQUAL(g: OnnxBuilder, x: Tensor, y: Tensor) -> Tensor:
    """Tell which elements differ."""
    function: Any = find_handler("Equal", "", 13)
    return g.elementwise(ops.Not(), function(g, x, y))


@tflite_op("SQUARE")
def SQUARE(g: OnnxBuilder, x: Tensor) -> Tensor:
    """Multiply by itself."""
    return combined(g, "Mul", x, x)


@tflite_op("RSQRT")
def RSQRT(g: OnnxBuilder, x: Tensor) -> Tensor:
    """Divide one by the root."""
    return g.elementwise(ops.Reciprocal(), g.elementwise(ops.Sqrt(), x))


@tflite_op("SQUARED_DIFFERENCE")
def SQUARED_DIFFERENCE(g: OnnxBuilder, x: Tensor, y: Tensor) -> Tensor:
    """Return the square of the difference."""
    return SQUARE(g, combined(g, "Sub", x, y))


@tflite_op("ADD_N")
def ADD_N(g: OnnxBuilder, *tensors: Tensor) -> Tensor:
    """Add any number of tensors."""
    return reduce(lambda x, y: combined(g, "Add", x, y), tensors)


@tflite_op("LEAKY_RELU")
def LEAKY_RELU(g: OnnxBuilder, x: Tensor, *, alpha: float) -> Tensor:
    """Scale negative numbers."""
    return g.elementwise(ops.LeakyRelu(alpha), x)


@tflite_op("PRELU")
def PRELU(g: OnnxBuilder, x: Tensor, alpha: Tensor) -> Tensor:
    """Scale negative numbers by what was learnt."""
    if isinstance(alpha, Constant):
        return g.elementwise(ops.PRelu(), x, slope=g.array(alpha, "its slope"))
    return g.combine(ops.PRelu(), x, alpha)


@tflite_op("GELU")
def GELU(g: OnnxBuilder, x: Tensor, *, approximate: bool = False) -> Tensor:
    """Weigh by the normal distribution."""
    return g.elementwise(ops.Gelu("tanh" if approximate else "none"), x)


@tflite_op("SOFTMAX")
def SOFTMAX(g: OnnxBuilder, x: Tensor, *, beta: float = 1.0) -> Tensor:
    """Make probabilities along the last axis."""
    scaled = x if beta == 1 else combined(g, "Mul", x, g.number(beta))
    return g.apply(ops.Softmax(-1), scaled)


@tflite_op("LOG_SOFTMAX")
def LOG_SOFTMAX(g: OnnxBuilder, x: Tensor) -> Tensor:
    """Take the logarithm of probabilities along the last axis."""
    return g.apply(ops.LogSoftmax(-1), x)


@tflite_op("L2_NORMALIZATION")
def L2_NORMALIZATION(g: OnnxBuilder, x: Tensor) -> Tensor:
    """Divide by the norm along the last axis."""
    return g.apply(ops.LpNorm(-1, 2, 1e-6), x)


@tflite_op("LOCAL_RESPONSE_NORMALIZATION")
def LOCAL_RESPONSE_NORMALIZATION(
    g: OnnxBuilder, x: Tensor, *, radius: int, bias: float, alpha: float, beta: float
) -> Tensor:
    """Divide by a power of the energy of neighbouring channels."""
    size = 2 * radius + 1
    return g.apply(ops.LRN(size, alpha * size, beta, bias), _image(x))


@tflite_op("MEAN")
def MEAN(g: OnnxBuilder, x: Tensor, axes: Tensor, *, keep_dims: bool = False) -> Tensor:
    """Average along axes."""
    places = _numbers(g, axes, "its axes")
    return mean(g, x, places, int(keep_dims)) if places else x


@tflite_op("CONCATENATION")
def CONCATENATION(g: OnnxBuilder, *tensors: Tensor, axis: int) -> Tensor:
    """Join along an axis."""
    return onnx_axes.Concat(g, *tensors, axis=axis)


@tflite_op("RESHAPE")
def RESHAPE(
    g: OnnxBuilder, x: Tensor, shape: Tensor | None = None, *, new_shape: Ints = ()
) -> Tensor:
    """Give another shape."""
    if isinstance(shape, Constant):
        rows = [array.reshape(-1).tolist() for array in shape.arrays]
        wanted = [tuple(map(int, column)) for column in zip(*rows, strict=True)]
    elif shape is None:
        wanted = [(n,) * g.bindings for n in new_shape]
    else:
        raise UnsupportedModelError("its shape is computed, wanted a constant")
    return g.reshape_to(x, wanted, zero_copies=False)


@tflite_op("SQUEEZE")
def SQUEEZE(g: OnnxBuilder, x: Tensor, *, squeeze_dims: Ints = ()) -> Tensor:
    """Leave out axes of size one."""
    return onnx_axes.Squeeze_1(g, x, axes=squeeze_dims or None)


@tflite_op("EXPAND_DIMS")
def EXPAND_DIMS(g: OnnxBuilder, x: Tensor, axis: Tensor) -> Tensor:
    """Insert an axis of size one."""
    return onnx_axes.Unsqueeze_1(g, x, axes=_numbers(g, axis, "its axis"))


@tflite_op("TRANSPOSE")
def TRANSPOSE(g: OnnxBuilder, x: Tensor, perm: Tensor) -> Tensor:
    """Put the axes in another order."""
    return onnx_axes.Transpose(g, x, perm=_numbers(g, perm, "its order"))


@tflite_op("SLICE")
def SLICE(g: OnnxBuilder, x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    """Cut out of every axis; a size of -1 is all the rest."""
    starts = _numbers(g, begin, "its begin")
    sizes = _numbers(g, size, "its size")
    ends = [
        FAR if n == -1 or _is_batch(g, x, axis, start, n) else start + n
        for axis, (start, n) in enumerate(zip(starts, sizes, strict=True))
    ]
    return sliced(g, x, starts, ends, None, None)


def _is_batch(g: OnnxBuilder, x: Tensor, axis: int, start: int, end: int) -> bool:
    """Return whether a range is all pictures of a batch that is left open."""
    return (
        axis == 0
        and start == 0
        and end == g.batch
        and isinstance(x, Value)
        and x.shape[0] == g.batch_size
    )


@tflite_op("STRIDED_SLICE")
def STRIDED_SLICE(
    g: OnnxBuilder,
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    strides: Tensor,
    *,
    begin_mask: int = 0,
    end_mask: int = 0,
    ellipsis_mask: int = 0,
    new_axis_mask: int = 0,
    shrink_axis_mask: int = 0,
    offset: bool = False,
) -> Tensor:
    """Take every so-manyth element of ranges; masks tell which bounds count."""
    if ellipsis_mask or new_axis_mask or offset:
        raise UnsupportedModelError("an ellipsis, a new axis or an offset")
    starts = list(_numbers(g, begin, "its begin"))
    steps = _numbers(g, strides, "its strides")
    masked = end_mask | shrink_axis_mask
    ends = [FAR] * len(starts)
    if masked != (1 << len(starts)) - 1:
        ends = list(_numbers(g, end, "its end"))
    gone = []
    for axis, step in enumerate(steps):
        bit = 1 << axis
        if shrink_axis_mask & bit:
            ends[axis] = starts[axis] + 1 or FAR
            gone.append(axis)
            continue
        if begin_mask & bit:
            starts[axis] = 0 if step > 0 else FAR
        if end_mask & bit or _is_batch(g, x, axis, starts[axis], ends[axis]):
            ends[axis] = FAR if step > 0 else -FAR
    y = sliced(g, x, starts, ends, None, steps)
    return onnx_axes.Squeeze_1(g, y, axes=tuple(gone)) if gone else y


@tflite_op("SPLIT")
def SPLIT(
    g: OnnxBuilder, axis: Tensor, x: Tensor, *, num_splits: int
) -> tuple[Tensor, ...]:
    """Cut along an axis in equal parts."""
    (place,) = _numbers(g, axis, "its axis")
    place = g.axis(place, x.rank)
    size = g.fixed(x.shape[place], "the size it cuts")
    if num_splits < 1 or size % num_splits:
        raise UnsupportedModelError(f"{size} elements in {num_splits} equal parts")
    return cut(g, x, place, (size // num_splits,) * num_splits)


@tflite_op("SPLIT_V")
def SPLIT_V(
    g: OnnxBuilder, x: Tensor, sizes: Tensor, axis: Tensor, *, num_splits: int
) -> tuple[Tensor, ...]:
    """Cut along an axis in parts of given sizes; -1 is what is left."""
    (place,) = _numbers(g, axis, "its axis")
    place = g.axis(place, x.rank)
    parts = list(_numbers(g, sizes, "its sizes"))
    if parts.count(-1) == 1:
        rest = g.fixed(x.shape[place], "the size it cuts") - sum(parts) - 1
        parts[parts.index(-1)] = rest
    return cut(g, x, place, tuple(parts))


@tflite_op("PACK")
def PACK(g: OnnxBuilder, *tensors: Tensor, values_count: int, axis: int) -> Tensor:
    """Join along a new axis."""
    place = g.axis(axis, tensors[0].rank + 1)
    parts = [onnx_axes.Unsqueeze_1(g, x, axes=(place,)) for x in tensors]
    return onnx_axes.Concat(g, *parts, axis=place)


@tflite_op("UNPACK")
def UNPACK(g: OnnxBuilder, x: Tensor, *, num: int, axis: int) -> tuple[Tensor, ...]:
    """Cut along an axis, which disappears."""
    place = g.axis(axis, x.rank)
    size = g.fixed(x.shape[place], "the size it cuts")
    parts = cut(g, x, place, (1,) * size)
    return tuple(onnx_axes.Squeeze_1(g, part, axes=(place,)) for part in parts)


@tflite_op("PAD", "PADV2")
def PAD(
    g: OnnxBuilder, x: Tensor, paddings: Tensor, constant: Tensor | None = None
) -> Tensor:
    """Pad with zeros, or another number."""
    value = 0.0
    if constant is not None:
        value = float(g.array(constant, "its value").reshape(-1)[0])
    return padded(g, x, _pads(g, paddings), "constant", value)


@tflite_op("MIRROR_PAD")
def MIRROR_PAD(g: OnnxBuilder, x: Tensor, paddings: Tensor, *, mode: int = 0) -> Tensor:
    """Pad with what is inside, turned round; mode 1 repeats the edge as well."""
    pads = _pads(g, paddings)
    if mode and max(pads, default=0) > 1:
        raise UnsupportedModelError(f"symmetric paddings {list(pads)} beyond 1")
    return padded(g, x, pads, "edge" if mode else "reflect", 0.0)


def _pads(g: OnnxBuilder, paddings: Tensor) -> Ints:
    """Return all numbers before the axes, then all after."""
    found: Array = g.array(paddings, "its paddings")
    return tuple(int(n) for n in found.reshape(-1, 2).T.reshape(-1))


@tflite_op("RESIZE_BILINEAR")
def RESIZE_BILINEAR(
    g: OnnxBuilder,
    x: Tensor,
    size: Tensor,
    *,
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> Tensor:
    """Resample between neighbours."""
    where = "half_pixel" if half_pixel_centers else "asymmetric"
    op = ops.Resize(
        sizes=_numbers(g, size, "its size"),
        axes=(1, 2),
        mode="linear",
        coordinates="align_corners" if align_corners else where,
    )
    return resized(g, op, _image(x))


@tflite_op("RESIZE_NEAREST_NEIGHBOR")
def RESIZE_NEAREST_NEIGHBOR(
    g: OnnxBuilder,
    x: Tensor,
    size: Tensor,
    *,
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> Tensor:
    """Take the nearest pixel."""
    where = "tf_half_pixel_for_nn" if half_pixel_centers else "asymmetric"
    op = ops.Resize(
        sizes=_numbers(g, size, "its size"),
        axes=(1, 2),
        coordinates="align_corners" if align_corners else where,
        nearest="round_prefer_ceil" if align_corners else "floor",
    )
    return resized(g, op, _image(x))


@tflite_op("SPACE_TO_DEPTH")
def SPACE_TO_DEPTH(g: OnnxBuilder, x: Tensor, *, block_size: int) -> Tensor:
    """Gather blocks of pixels into channels."""
    return g.apply(ops.SpaceToDepth(block_size), _image(x))


@tflite_op("DEPTH_TO_SPACE")
def DEPTH_TO_SPACE(g: OnnxBuilder, x: Tensor, *, block_size: int) -> Tensor:
    """Spread channels over blocks of pixels."""
    return g.apply(ops.DepthToSpace(block_size), _image(x))


@tflite_op("BATCH_MATMUL")
def BATCH_MATMUL(
    g: OnnxBuilder, x: Tensor, y: Tensor, *, adj_x: bool = False, adj_y: bool = False
) -> Tensor:
    """Multiply matrices."""
    x, y = (
        t.transpose((*range(t.rank - 2), t.rank - 1, t.rank - 2)) if turned else t
        for t, turned in ((x, adj_x), (y, adj_y))
    )
    function: Any = find_handler("MatMul", "", 13)
    found: Tensor = function(g, x, y)
    return found


@tflite_op("CAST")
def CAST(
    g: OnnxBuilder, x: Tensor, *, in_data_type: int = 0, out_data_type: int = 0
) -> Tensor:
    """Change the element type."""
    name = TYPES.get(out_data_type, f"type {out_data_type}")
    return g.cast(x, "float32" if name in ("float16", "float64") else name)


def _register_arg(name: str, kind: Callable[..., ops.Op]) -> None:
    @tflite_op(name)
    def arg(g: OnnxBuilder, x: Tensor, axis: Tensor, *, output_type: int = 2) -> Tensor:
        place = g.axis(_numbers(g, axis, "its axis")[0], x.rank)
        y = along(g, kind(axis=place, keepdims=True), x, place)[0]
        y = onnx_axes.Squeeze_1(g, y, axes=(place,))
        return g.cast(y, TYPES[output_type]) if output_type else y


_register_arg("ARG_MAX", ops.ArgMax)
_register_arg("ARG_MIN", ops.ArgMin)


@tflite_op("TOPK_V2")
def TOPK_V2(g: OnnxBuilder, x: Tensor, k: Tensor) -> tuple[Tensor, ...]:
    """Find the largest elements along the last axis."""
    (count,) = _numbers(g, k, "its k")
    place = x.rank - 1
    values, indices = along(g, ops.TopK(count, place), x, place, outputs=2)
    return values, g.cast(indices, "int32")


@tflite_op("GATHER")
def GATHER(
    g: OnnxBuilder, x: Tensor, indices: Tensor, *, axis: int = 0, batch_dims: int = 0
) -> Tensor:
    """Take elements along an axis."""
    if batch_dims:
        raise UnsupportedModelError(f"batch_dims {batch_dims}")
    return onnx_axes.Gather(g, x, indices, axis=axis)


@tflite_op("GATHER_ND")
def GATHER_ND(g: OnnxBuilder, x: Tensor, indices: Tensor) -> Tensor:
    """Take slices where tuples of indices say."""
    return onnx_data.GatherND(g, x, indices)


@tflite_op("SELECT", "SELECT_V2")
def SELECT(g: OnnxBuilder, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Choose from two tensors."""
    return onnx_data.Where(g, condition, x, y)


@tflite_op("TILE")
def TILE(g: OnnxBuilder, x: Tensor, multiples: Tensor) -> Tensor:
    """Repeat along each axis."""
    return onnx_data.Tile(g, x, multiples)


@tflite_op("BROADCAST_TO")
def BROADCAST_TO(g: OnnxBuilder, x: Tensor, shape: Tensor) -> Tensor:
    """Repeat axes of size one."""
    return onnx_axes.Expand(g, x, shape)


@tflite_op("REVERSE_V2")
def REVERSE_V2(g: OnnxBuilder, x: Tensor, axes: Tensor) -> Tensor:
    """Turn round along axes."""
    places = _numbers(g, axes, "its axes")
    backwards = (-1,) * len(places)
    return sliced(g, x, (FAR,) * len(places), (-FAR,) * len(places), places, backwards)


@tflite_op("CUMSUM")
def CUMSUM(
    g: OnnxBuilder,
    x: Tensor,
    axis: Tensor,
    *,
    exclusive: bool = False,
    reverse: bool = False,
) -> Tensor:
    """Add up the elements along an axis up to each one."""
    place = g.axis(_numbers(g, axis, "its axis")[0], x.rank)
    return along(g, ops.CumSum(place, exclusive, reverse), x, place)[0]


@tflite_op("SHAPE")
def SHAPE(g: OnnxBuilder, x: Tensor, *, out_type: int = 2) -> Tensor:
    """Return the sizes of the axes."""
    columns = [[dim[b] for dim in x.shape] for b in range(g.bindings)]
    return Constant(tuple(np.array(column, np.int32) for column in columns))


@tflite_op("FILL")
def FILL(g: OnnxBuilder, dims: Tensor, value: Tensor) -> Tensor:
    """Repeat a number."""
    return onnx_axes.Expand(g, value, dims)


@tflite_op("ZEROS_LIKE")
def ZEROS_LIKE(g: OnnxBuilder, x: Tensor) -> Tensor:
    """Return zeros of the same shape."""
    return combined(g, "Mul", x, g.number(0.0))


@tflite_op("DEQUANTIZE")
def DEQUANTIZE(g: OnnxBuilder, x: Tensor) -> Tensor:
    """Do nothing: numbers are real here anyway."""
    return g.cast(x, "float32") if isinstance(x, Constant) else x


@tflite_op("QUANTIZE", "FAKE_QUANT")
def QUANTIZE(g: OnnxBuilder, x: Tensor) -> Tensor:
    """Do nothing: what it loses is kept here."""
    return x
