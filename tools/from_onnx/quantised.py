"""Operators of small whole numbers that stand for others.

Each function is named and signed like its operator.
"""

# ruff: noqa: N802, N803

from __future__ import annotations

from typing import Any

from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_onnx.layers import image, kernel_of, padding
from striate.tools.from_onnx.model import TENSORS
from striate.tools.from_onnx.registry import OnnxBuilder, onnx_op
from striate.tools.layout import Tensor, Value, inverse

Ints = tuple[int, ...]


@onnx_op("QuantizeLinear", since=10)
def QuantizeLinear(
    g: OnnxBuilder,
    x: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    """Turn numbers into small whole numbers."""
    dtype: Any = TENSORS.get(output_dtype, "uint8")
    if isinstance(y_zero_point, Value):
        dtype = y_zero_point.dtype
    elif y_zero_point is not None:
        dtype = str(g.array(y_zero_point, "its zero point").dtype)
    place, order = along(g, x, y_scale, axis, block_size)
    op = ops.QuantizeLinear(place, dtype)
    y = g.operate(op, x.transpose(order), y_scale, y_zero_point)
    return y.transpose(inverse(order))


@onnx_op("DequantizeLinear", since=10)
def DequantizeLinear(
    g: OnnxBuilder,
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """Turn small whole numbers back into numbers."""
    place, order = along(g, x, x_scale, axis, block_size)
    op = ops.DequantizeLinear(place)
    y = g.operate(op, x.transpose(order), x_scale, x_zero_point)
    return y.transpose(inverse(order))


def along(
    g: OnnxBuilder, x: Tensor, scale: Tensor, axis: int, block_size: int
) -> tuple[int, Ints]:
    """Return where the axis of the scales lies, and the order of all axes."""
    if block_size:
        raise UnsupportedModelError(f"block_size {block_size}")
    if scale.rank > 1:
        raise UnsupportedModelError(f"scales of rank {scale.rank}")
    order = g.order(x)
    if scale.rank == 0 or all(n == 1 for n in scale.shape[0]):
        return -1, order
    return order.index(g.axis(axis, x.rank)), order


@onnx_op("DynamicQuantizeLinear", since=11)
def DynamicQuantizeLinear(g: OnnxBuilder, x: Tensor) -> Any:
    """Turn numbers into uint8 with a scale and a zero point that fit them."""
    g.whole(x)
    return g.split(ops.DynamicQuantizeLinear(), x, outputs=3)


@onnx_op("MatMulInteger", since=10)
def MatMulInteger(
    g: OnnxBuilder,
    A: Tensor,
    B: Tensor,
    a_zero_point: Tensor | None = None,
    b_zero_point: Tensor | None = None,
) -> Tensor:
    """Multiply matrices of whole numbers."""
    g.one_picture_at_a_time(A, (A.rank - 1,))
    return g.operate(ops.MatMulInteger(), A, B, a_zero_point, b_zero_point)


@onnx_op("QLinearMatMul", since=10)
def QLinearMatMul(
    g: OnnxBuilder,
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
) -> Tensor:
    """Multiply matrices of quantised numbers."""
    g.one_picture_at_a_time(a, (a.rank - 1,))
    left, right = (a, a_scale, a_zero_point), (b, b_scale, b_zero_point)
    return g.operate(ops.QLinearMatMul(), *left, *right, y_scale, y_zero_point)


@onnx_op("ConvInteger", since=10)
def ConvInteger(
    g: OnnxBuilder,
    x: Tensor,
    w: Tensor,
    x_zero_point: Tensor | None = None,
    w_zero_point: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = (1,),
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints = (1,),
) -> Tensor:
    """Convolve whole numbers."""
    sides = padding(auto_pad, pads, x.rank - 2)
    op = ops.ConvInteger(strides, dilations, sides, group)
    taps = g.constant(kernel_of(g, w, x.rank, kernel_shape))
    y = g.operate(op, image(x, "its input"), taps, x_zero_point, w_zero_point)
    return y.channels_first()


@onnx_op("QLinearConv", since=10)
def QLinearConv(
    g: OnnxBuilder,
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    B: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = (1,),
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints = (1,),
) -> Tensor:
    """Convolve quantised numbers."""
    sides = padding(auto_pad, pads, x.rank - 2)
    op = ops.QLinearConv(strides, dilations, sides, group)
    pixels = (image(x, "its input"), x_scale, x_zero_point)
    kernel = g.constant(kernel_of(g, w, x.rank, kernel_shape))
    taps = (kernel, w_scale, w_zero_point)
    y = g.operate(op, *pixels, *taps, y_scale, y_zero_point, B)
    return y.channels_first()
