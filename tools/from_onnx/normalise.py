"""Operators that normalise with what they compute from their input.

Each function is named and signed like its operator.
"""

# ruff: noqa: N802, N803

from __future__ import annotations

from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.from_onnx.layers import on_image
from striate.tools.from_onnx.registry import OnnxBuilder, onnx_op
from striate.tools.layout import Tensor, inverse, positions

Ints = tuple[int, ...]


@onnx_op("InstanceNormalization")
def InstanceNormalization(
    g: OnnxBuilder,
    input: Tensor,
    scale: Tensor,
    B: Tensor,
    *,
    epsilon: float = 1e-5,
    consumed_inputs: Any = (),
) -> Tensor:
    """Normalise each channel of each image."""
    gamma, beta = g.array(scale, "its scale"), g.array(B, "its bias")
    return on_image(g, ops.InstanceNorm(epsilon), input, gamma=gamma, beta=beta)


@onnx_op("GroupNormalization", since=18)
def GroupNormalization_18(
    g: OnnxBuilder,
    X: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalise groups of channels; scale and bias are those of a group."""
    channels = g.fixed(X.shape[1], "its number of channels")
    weights = [g.array(t, "its scale or bias") for t in (scale, bias)]
    for weight in weights:
        if weight.shape != (num_groups,) or channels % num_groups:
            raise UnsupportedModelError(
                f"weights of shape {weight.shape} for {num_groups} groups"
            )
    gamma, beta = (np.repeat(w, channels // num_groups) for w in weights)
    return grouped(g, X, num_groups, epsilon, gamma, beta)


@onnx_op("GroupNormalization", since=21)
def GroupNormalization(
    g: OnnxBuilder,
    X: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    """Normalise groups of channels; scale and bias are those of a channel."""
    gamma, beta = (g.array(t, "its scale or bias") for t in (scale, bias))
    return grouped(g, X, num_groups, epsilon, gamma, beta)


def grouped(
    g: OnnxBuilder, x: Tensor, groups: int, epsilon: float, gamma: Array, beta: Array
) -> Tensor:
    """Return `x` with each group of channels normalised."""
    return on_image(g, ops.GroupNorm(groups, epsilon), x, gamma=gamma, beta=beta)


@onnx_op("LayerNormalization", since=17)
def LayerNormalization(
    g: OnnxBuilder,
    X: Tensor,
    Scale: Tensor,
    B: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Any:
    """Normalise over the axes from `axis` on."""
    axes = range(g.axis(axis, X.rank), X.rank)
    order = g.order(X)
    places = positions(order, axes)
    weights = {
        name: spread(g, weight, X.rank, order)
        for name, weight in (("gamma", Scale), ("beta", B))
        if weight is not None
    }
    count = 3 if g.wanted > 1 else 1
    op = ops.LayerNorm(places, epsilon, count > 1)
    found = g.split(op, X.transpose(order), outputs=count, **weights)
    return tuple(y.transpose(inverse(order)) for y in found)


@onnx_op("RMSNormalization", since=23)
def RMSNormalization(
    g: OnnxBuilder,
    X: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    """Divide by the root mean square over the axes from `axis` on."""
    axes = range(g.axis(axis, X.rank), X.rank)
    order = g.order(X)
    op = ops.RMSNorm(positions(order, axes), epsilon)
    gamma = spread(g, scale, X.rank, order)
    return g.permuted(op, X, order, gamma=gamma)


def spread(g: OnnxBuilder, weight: Tensor, rank: int, order: Ints) -> Array:
    """Return a weight that broadcasts to a tensor with its axes in that order."""
    array = g.array(weight, "its scale or bias")
    if array.ndim > rank:
        raise UnsupportedModelError(f"a weight of shape {array.shape} for rank {rank}")
    ones = (1,) * (rank - array.ndim)
    found: Array = array.reshape(ones + array.shape).transpose(order)
    return found


@onnx_op("LRN")
def LRN(
    g: OnnxBuilder,
    X: Tensor,
    *,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    bias: float = 1.0,
) -> Tensor:
    """Divide by a power of the energy of neighbouring channels."""
    op = ops.LRN(size, alpha, beta, bias)
    return on_image(g, op, X)


@onnx_op("LpNormalization")
def LpNormalization(
    g: OnnxBuilder, input: Tensor, *, axis: int = -1, p: int = 2
) -> Tensor:
    """Divide by the norm along an axis."""
    axis = g.axis(axis, input.rank)
    g.one_picture_at_a_time(input, (axis,))
    order = g.order(input)
    op = ops.LpNorm(order.index(axis), p)
    return g.permuted(op, input, order)


@onnx_op("MeanVarianceNormalization", since=9)
def MeanVarianceNormalization(
    g: OnnxBuilder, X: Tensor, *, axes: Ints = (0, 2, 3)
) -> Tensor:
    """Make the mean zero and the variance one."""
    chosen = tuple(g.axis(axis, X.rank) for axis in axes)
    g.one_picture_at_a_time(X, chosen)
    order = g.order(X)
    op = ops.MeanVarianceNorm(positions(order, chosen))
    return g.permuted(op, X, order)
