"""Small whole numbers with scales and zero points."""

from __future__ import annotations

from typing import Any

from striate import ops
from striate.tools.to_onnx.elementwise import element, lying
from striate.tools.to_onnx.exporter import Exporter, Placed, Tensor, exports
from striate.tools.to_onnx.layers import padded


def names_of(g: Exporter, *operands: Tensor | None) -> list[str]:
    """Return the names of operands as they are, ``""`` for one left out."""
    return [g.last(each) if each else "" for each in operands]


@exports("QuantizeLinear", "DequantizeLinear")
def quantize_linear(
    g: Exporter,
    op: ops.QuantizeLinear | ops.DequantizeLinear,
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
) -> Placed:
    """Quantise or undo it; without a zero point an attribute says the type."""
    dtype = None
    if isinstance(op, ops.QuantizeLinear) and zero_point is None:
        dtype = element(op.dtype)
    name = g.node(
        type(op).__name__,
        lying(g, x),
        *names_of(g, scale, zero_point),
        axis=x.position(op.axis) if scale.spec.size > 1 else None,
        output_dtype=dtype,
    )
    return Placed(name, x.axes)


@exports("DynamicQuantizeLinear")
def dynamic_quantize_linear(
    g: Exporter, op: ops.DynamicQuantizeLinear, x: Tensor
) -> tuple[Placed, ...]:
    """Quantise with a scale that fits."""
    y, scale, zero = g.node("DynamicQuantizeLinear", lying(g, x), outputs=3)
    return Placed(y, x.axes), Placed(scale, ()), Placed(zero, ())


@exports("MatMulInteger", "QLinearMatMul")
def product(g: Exporter, op: ops.Op, *operands: Tensor | None) -> Placed:
    """Multiply matrices."""
    names = names_of(g, *operands)
    return Placed(g.node(type(op).__name__, *names), g.results[0].axes)


@exports("ConvInteger")
def conv_integer(
    g: Exporter, op: ops.ConvInteger, x: Tensor, kernel: Tensor, *zeros: Tensor | None
) -> Placed:
    """Convolve whole numbers; the kernel becomes (M, C / groups, spatial...)."""
    names = [g.first(x), _turned(g, kernel), *names_of(g, *zeros)]
    return g.image(x, g.node("ConvInteger", *names, **_window(op, x, kernel)))


@exports("QLinearConv")
def q_linear_conv(
    g: Exporter,
    op: ops.QLinearConv,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    kernel: Tensor,
    *others: Tensor | None,
) -> Placed:
    """Convolve quantised numbers; the kernel becomes (M, C / groups, spatial...)."""
    names = [g.first(x), *names_of(g, x_scale, x_zero), _turned(g, kernel)]
    names += names_of(g, *others)
    return g.image(x, g.node("QLinearConv", *names, **_window(op, x, kernel)))


def _turned(g: Exporter, kernel: Tensor) -> str:
    array, rank = g.array(kernel, "its kernel"), kernel.rank
    return g.weight(kernel, array.transpose(rank - 1, rank - 2, *range(rank - 2)), "oi")


def _window(
    op: ops.ConvInteger | ops.QLinearConv, x: Tensor, kernel: Tensor
) -> dict[str, Any]:
    """Return the attributes of a convolution."""
    plain = ops.Conv(op.stride, op.dilation, op.padding, op.groups)
    window = plain.window(x.spec, kernel.spec)
    return {
        "kernel_shape": list(window.kernel),
        "strides": list(window.stride),
        "dilations": list(window.dilation),
        "group": op.groups,
        **padded(x, op.padding, window.padding),
    }
