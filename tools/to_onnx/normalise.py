"""Normalisation by statistics of the tensor itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from striate import ops
from striate.spec import Shape
from striate.tools.to_onnx.elementwise import broadcast, lying, number
from striate.tools.to_onnx.exporter import Exporter, Placed, Tensor, exports, in_order


def reduce_mean(g: Exporter, x: Tensor, name: str, axes: Shape) -> str:
    """Return the mean over axes of a value that lies like `x`; they stay."""
    over = g.constant(sorted(x.position(axis) for axis in axes))
    return str(g.node("ReduceMean", name, over))


def affine(
    g: Exporter, x: Tensor, name: str, gamma: Tensor | None, beta: Tensor | None
) -> Placed:
    """Return ``gamma * value + beta`` of a value that lies like `x`."""
    placed = Placed(name, x.axes)
    for onnx, weight in (("Mul", gamma), ("Add", beta)):
        if weight is not None:
            value = Tensor(placed.name, placed.axes, x.spec, x.open)
            placed = broadcast(g, onnx, value, weight)
    return placed


@exports("LayerNorm")
def layer_norm(
    g: Exporter,
    op: ops.LayerNorm,
    x: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
) -> Any:
    """Normalise over the last axes; over others in single steps."""
    axes = tuple(sorted(axis % x.rank for axis in op.axes))
    trailing = x.shape[x.rank - len(axes) :]
    fits = axes == in_order(x.rank)[x.rank - len(axes) :] and gamma is not None
    for weight in (gamma, beta):
        fits = fits and (weight is None or weight.shape == trailing)
    if fits and gamma is not None:
        found = g.node(
            "LayerNormalization",
            g.last(x),
            g.last(gamma),
            g.last(beta) if beta else "",
            outputs=3 if op.statistics else 1,
            axis=-len(axes),
            epsilon=op.epsilon,
        )
        every = found if op.statistics else (found,)
        placed = tuple(Placed(name, in_order(x.rank)) for name in every)
        return placed if op.statistics else placed[0]
    name = lying(g, x)
    mean = reduce_mean(g, x, name, axes)
    centred = g.node("Sub", name, mean)
    power = reduce_mean(g, x, g.node("Mul", centred, centred), axes)
    root = g.node("Sqrt", g.node("Add", power, number(g, op.epsilon)))
    y = affine(g, x, g.node("Div", centred, root), gamma, beta)
    if not op.statistics:
        return y
    scale = Placed(g.node("Reciprocal", root), x.axes)
    return y, Placed(mean, x.axes), scale


@exports("RMSNorm")
def rms_norm(
    g: Exporter, op: ops.RMSNorm, x: Tensor, gamma: Tensor | None = None
) -> Placed:
    """Divide by the root mean square, in single steps: the operator is newer."""
    name = lying(g, x)
    power = reduce_mean(g, x, g.node("Mul", name, name), op.axes)
    root = g.node("Sqrt", g.node("Add", power, number(g, op.epsilon)))
    return affine(g, x, g.node("Div", name, root), gamma, None)


@exports("MeanVarianceNorm")
def mean_variance_norm(g: Exporter, op: ops.MeanVarianceNorm, x: Tensor) -> Placed:
    """Divide what is centred by the deviation, in single steps."""
    name = lying(g, x)
    centred = g.node("Sub", name, reduce_mean(g, x, name, op.axes))
    power = reduce_mean(g, x, g.node("Mul", centred, centred), op.axes)
    deviation = g.node("Add", g.node("Sqrt", power), number(g, op.epsilon))
    return Placed(g.node("Div", centred, deviation), x.axes)


@exports("LpNorm")
def lp_norm(g: Exporter, op: ops.LpNorm, x: Tensor) -> Placed:
    """Divide by the norm along an axis, in single steps if that has a lower limit."""
    name, axis = lying(g, x), x.position(op.axis)
    if not op.epsilon:
        return Placed(g.node("LpNormalization", name, axis=axis, p=op.p), x.axes)
    norm = g.node(f"ReduceL{op.p}", name, g.constant([axis]))
    limited = g.node("Max", norm, number(g, op.epsilon))
    return Placed(g.node("Div", name, limited), x.axes)


@exports("InstanceNorm", "GroupNorm")
def group_norm(
    g: Exporter,
    op: ops.InstanceNorm | ops.GroupNorm,
    x: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
) -> Placed:
    """Normalise channels, or groups of them, of each image."""
    names = [
        g.last(weight) if weight else g.constant(np.full(x.shape[-1], fill, np.float32))
        for weight, fill in ((gamma, 1.0), (beta, 0.0))
    ]
    if isinstance(op, ops.InstanceNorm):
        name = g.node("InstanceNormalization", g.first(x), *names, epsilon=op.epsilon)
        return g.image(x, name)
    name = g.first(x)
    if x.rank == 2:
        name = g.node("Unsqueeze", name, g.constant([2]))
    name = g.node(
        "GroupNormalization", name, *names, num_groups=op.groups, epsilon=op.epsilon
    )
    if x.rank == 2:
        name = g.node("Squeeze", name, g.constant([2]))
    return g.image(x, name)


@exports("LRN")
def lrn(g: Exporter, op: ops.LRN, x: Tensor) -> Placed:
    """Divide by a power of neighbours' squares.

    ONNX Runtime takes only odd numbers of neighbouring channels; otherwise their
    squares are added by a convolution with a band of ones.
    """
    if op.across and op.size % 2:
        name = g.node(
            "LRN", g.first(x), size=op.size, alpha=op.alpha, beta=op.beta, bias=op.bias
        )
        return g.image(x, name)
    name, spatial = g.first(x), x.rank - 2
    squares = g.node("Mul", name, name)
    before = (op.size - 1) // 2
    if op.across:
        channels = x.shape[-1]
        distance = np.arange(channels) - np.arange(channels)[:, None]
        near = (distance >= -before) & (distance < op.size - before)
        band = near.astype(np.float32).reshape(channels, channels, *(1,) * spatial)
        share = g.node("Conv", squares, g.constant(band, f"{g.site}/band"))
        count = float(op.size)
    else:
        share = g.node(
            "AveragePool",
            squares,
            kernel_shape=[op.size] * spatial,
            pads=[before] * spatial + [op.size - 1 - before] * spatial,
            count_include_pad=1,
        )
        count = 1.0
    scaled = g.node("Mul", share, number(g, op.alpha / count))
    power = g.node("Pow", g.node("Add", scaled, number(g, op.bias)), number(g, op.beta))
    return g.image(x, g.node("Div", name, power))
