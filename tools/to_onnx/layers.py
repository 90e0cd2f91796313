"""Operators with weights or sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from striate import ops
from striate.tools.to_onnx.axes import reduced
from striate.tools.to_onnx.elementwise import lying
from striate.tools.to_onnx.exporter import Exporter, Placed, Tensor, exports, in_order

Pairs = tuple[tuple[int, int], ...]


def per_axis(setting: Sequence[int], rank: int) -> list[int]:
    """Return a setting for every spatial axis; one number serves all."""
    return list(setting) * rank if len(setting) == 1 else list(setting)


def padded(x: Tensor, padding: Any, pairs: Pairs) -> dict[str, Any]:
    """Return the attributes that say how an image is padded.

    A padding that follows from the size is given in numbers if that is known, since
    ONNX Runtime takes no dilation with the words.
    """
    if isinstance(padding, str) and padding != "valid" and any(x.open[1:-1]):
        return {"auto_pad": "SAME_UPPER" if padding == "same" else "SAME_LOWER"}
    return {"pads": ends(pairs)}


def ends(pairs: Pairs) -> list[int]:
    """Return pairs (before, after) as ONNX has them: all before, then all after."""
    return [*(before for before, _ in pairs), *(after for _, after in pairs)]


@exports("Conv")
def conv(
    g: Exporter, op: ops.Conv, x: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> Placed:
    """Convolve; the kernel becomes (M, C / groups, spatial...)."""
    array = g.array(kernel, "its kernel")
    spatial = x.rank - 2
    window = op.window(x.spec, kernel.spec)
    turned = array.transpose(spatial + 1, spatial, *range(spatial))
    name = g.node(
        "Conv",
        g.first(x),
        g.weight(kernel, turned, "oi"),
        g.last(bias) if bias else "",
        kernel_shape=list(array.shape[:-2]),
        strides=list(window.stride),
        dilations=list(window.dilation),
        group=op.groups,
        **padded(x, op.padding, window.padding),
    )
    return g.image(x, name)


@exports("ConvTranspose")
def conv_transpose(
    g: Exporter,
    op: ops.ConvTranspose,
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
) -> Placed:
    """Convolve backwards; the kernel becomes (C, M / groups, spatial...)."""
    array = g.array(kernel, "its kernel")
    rank = x.rank - 2
    stride, dilation, added = (
        per_axis(field, rank) for field in (op.stride, op.dilation, op.output_padding)
    )
    pairs = []
    for axis in range(rank):
        span = (array.shape[axis] - 1) * dilation[axis] + 1
        if not isinstance(op.padding, str):
            pairs.append(op.padding[axis if len(op.padding) > 1 else 0])
        elif op.padding == "valid":
            pairs.append((0, 0))
        else:
            total = span - stride[axis] + added[axis]
            added[axis] += max(0, -total)
            small, large = max(0, total) // 2, max(0, total) - max(0, total) // 2
            pairs.append((small, large) if op.padding == "same" else (large, small))
    name = g.node(
        "ConvTranspose",
        g.first(x),
        g.weight(kernel, array.transpose(rank + 1, rank, *range(rank)), "io"),
        g.last(bias) if bias else "",
        kernel_shape=list(array.shape[:-2]),
        strides=stride,
        dilations=dilation,
        group=op.groups,
        output_padding=added,
        pads=ends(tuple(pairs)),
    )
    return g.image(x, name)


@exports("Dense")
def dense(
    g: Exporter, op: ops.Dense, x: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> Placed:
    """Multiply by a matrix; pixels that lie channels-first are convolved by it."""
    array, form = g.array(kernel, "its kernel"), ""
    if x.name in g.rows:
        array, form = array[g.rows[x.name]], "reordered"
    if x.is_image and x.is_first and x.array is None:
        turned = array.T.reshape(*array.shape[::-1], *(1,) * (x.rank - 2))
        weight = g.weight(kernel, turned, "oi")
        return g.image(
            x, g.node("Conv", g.first(x), weight, g.last(bias) if bias else "")
        )
    weight = g.weight(kernel, array, form)
    if x.rank == 2:
        name = g.node("Gemm", g.last(x), weight, g.last(bias) if bias else "")
        return Placed(name, (0, 1))
    name = g.node("MatMul", g.last(x), weight)
    if bias is not None:
        name = g.node("Add", name, g.last(bias))
    return Placed(name, in_order(x.rank))


@exports("BatchNorm")
def batch_norm(
    g: Exporter, op: ops.BatchNorm, x: Tensor, *statistics: Tensor
) -> Placed:
    """Shift and scale each channel; tensors without an axis 1 of channels by hand."""
    if x.rank >= 2 and x.position(-1) == 1 and x.position(0) == 0:
        names = [g.last(each) for each in statistics]
        name = g.node("BatchNormalization", lying(g, x), *names, epsilon=op.epsilon)
        return Placed(name, x.axes)
    gamma, beta, mean, variance = (
        g.array(each, "a statistic").astype(np.float64) for each in statistics
    )
    scale = gamma / np.sqrt(variance + op.epsilon)
    shape = [1] * x.rank
    shape[x.position(-1)] = -1
    factor, offset = (
        g.constant(array.astype(np.float32).reshape(shape), f"{g.site}/{form}")
        for form, array in (("factor", scale), ("offset", beta - mean * scale))
    )
    return Placed(g.node("Add", g.node("Mul", lying(g, x), factor), offset), x.axes)


@exports("MaxPool")
def max_pool(g: Exporter, op: ops.MaxPool, x: Tensor) -> Placed:
    """Take the largest value of each window."""
    return g.image(x, pooled(g, "MaxPool", op, x))


@exports("AveragePool")
def average_pool(g: Exporter, op: ops.AveragePool, x: Tensor) -> Placed:
    """Average each window."""
    count = int(op.count_include_pad)
    return g.image(x, pooled(g, "AveragePool", op, x, count_include_pad=count))


@exports("LpPool")
def lp_pool(g: Exporter, op: ops.LpPool, x: Tensor) -> Placed:
    """Take the norm of each window."""
    return g.image(x, pooled(g, "LpPool", op, x, p=op.p))


def pooled(g: Exporter, onnx: str, op: Any, x: Tensor, **attributes: Any) -> Any:
    """Return an operator with a sliding window and no weights, channels-first."""
    window = op.window(x.spec)
    return g.node(
        onnx,
        g.first(x),
        kernel_shape=list(window.kernel),
        strides=list(window.stride),
        dilations=list(window.dilation),
        ceil_mode=int(op.ceil_mode),
        **padded(x, op.padding, window.padding),
        **attributes,
    )


GLOBAL = {
    "GlobalAveragePool": "ReduceMean",
    "GlobalMaxPool": "ReduceMax",
    "GlobalLpPool": "",
}
"""What does the same to tensors that do not lie channels-first."""


@exports(*GLOBAL)
def global_pool(g: Exporter, op: Any, x: Tensor) -> Placed:
    """Pool each channel over the whole image."""
    onnx = type(op).__name__
    spatial = tuple(range(1, x.rank - 1))
    if not x.is_first and GLOBAL[onnx] and x.array is None:
        return reduced(g, GLOBAL[onnx], x, spatial, op.keepdims)
    name = g.node(onnx, g.first(x), p=getattr(op, "p", None))
    if op.keepdims:
        return g.image(x, name)
    return Placed(g.node("Flatten", name), (0, 1))
