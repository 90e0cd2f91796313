"""Normalisation, by fixed statistics and by those of the tensor itself.

Each function is named and signed like its layer.
"""

# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.from_keras.registry import KerasBuilder, keras_layer
from striate.tools.layout import Tensor, inverse, positions

SCALED = ("gamma if scale", "beta if center")

LEAST = 1e-7
"""What a standard deviation is at least taken for."""


def axes_of(g: KerasBuilder, axis: Any, rank: int) -> list[int]:
    """Return a setting that is an axis or several, sorted and counted from the front.

    In an old file it may be the list that a wrapper of Keras 2 held.
    """
    if isinstance(axis, dict):
        axis = axis.get("config", axis.get("items"))
    axes = [axis] if isinstance(axis, int) else list(axis)
    return sorted({g.axis(a, rank) for a in axes})


def one_axis(g: KerasBuilder, axis: Any, rank: int) -> int:
    """Return a setting that must be one axis."""
    axes = axes_of(g, axis, rank)
    if len(axes) != 1:
        raise UnsupportedModelError(f"the axes {axes}, wanted one")
    return axes[0]


def behind(axis: int, rank: int) -> tuple[int, ...]:
    """Return the order of axes that puts one of them last."""
    return (*(a for a in range(rank) if a != axis), axis)


def spread(array: Array, axes: Sequence[int], rank: int) -> Array:
    """Return a weight with the sizes of some axes so that it broadcasts to all."""
    shape = [1] * rank
    for axis, size in zip(axes, array.shape, strict=True):
        shape[axis] = size
    return array.reshape(shape)


@keras_layer(
    "BatchNormalization",
    "BatchNormalizationV1",
    "SyncBatchNormalization",
    weights=SCALED,
    kept=("moving_mean", "moving_variance"),
)
def BatchNormalization(
    g: KerasBuilder,
    x: Tensor,
    *,
    moving_mean: Array,
    moving_variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    axis: Any = -1,
    epsilon: float = 1e-3,
) -> Tensor:
    """Normalise with the statistics of training."""
    return g.permuted(
        ops.BatchNorm(epsilon),
        x,
        behind(one_axis(g, axis, x.rank), x.rank),
        gamma=np.ones_like(moving_mean) if gamma is None else gamma,
        beta=np.zeros_like(moving_mean) if beta is None else beta,
        mean=moving_mean,
        variance=moving_variance,
    )


@keras_layer("LayerNormalization", weights=SCALED)
def LayerNormalization(
    g: KerasBuilder,
    x: Tensor,
    *,
    gamma: Array | None = None,
    beta: Array | None = None,
    axis: Any = -1,
    epsilon: float = 1e-3,
    rms_scaling: bool = False,
) -> Tensor:
    """Normalise over some axes."""
    if rms_scaling:
        raise UnsupportedModelError("rms_scaling")
    axes = axes_of(g, axis, x.rank)
    order = g.order(x)
    weights = {
        name: spread(weight, axes, x.rank).transpose(order)
        for name, weight in (("gamma", gamma), ("beta", beta))
        if weight is not None
    }
    places = positions(order, axes)
    return g.permuted(ops.LayerNorm(places, epsilon), x, order, **weights)


@keras_layer("RMSNormalization", weights=("scale",))
def RMSNormalization(
    g: KerasBuilder, x: Tensor, *, scale: Array, axis: Any = -1, epsilon: float = 1e-6
) -> Tensor:
    """Divide by the root mean square over some axes."""
    axes = axes_of(g, axis, x.rank)
    order = g.order(x)
    gamma = spread(scale, axes, x.rank).transpose(order)
    op = ops.RMSNorm(positions(order, axes), epsilon)
    return g.permuted(op, x, order, gamma=gamma)


@keras_layer("GroupNormalization", weights=SCALED)
def GroupNormalization(
    g: KerasBuilder,
    x: Tensor,
    *,
    gamma: Array | None = None,
    beta: Array | None = None,
    groups: int = 32,
    axis: Any = -1,
    epsilon: float = 1e-3,
) -> Tensor:
    """Normalise groups of channels; -1 groups are as many as channels."""
    channel = one_axis(g, axis, x.rank)
    order = behind(channel, x.rank)
    if groups == -1:
        groups = g.fixed(x.shape[channel], "its number of channels")
    op = ops.GroupNorm(groups, epsilon)
    return g.permuted(op, x, order, gamma=gamma, beta=beta)


@keras_layer("UnitNormalization")
def UnitNormalization(g: KerasBuilder, x: Tensor, *, axis: Any = -1) -> Tensor:
    """Divide by the norm along an axis, or over several."""
    return of_unit_norm(g, x, axis, 1e-12)


def of_unit_norm(g: KerasBuilder, x: Tensor, axis: Any, epsilon: float) -> Tensor:
    """Return `x` divided by its norm over axes, or by epsilon if that is larger."""
    axes = axes_of(g, axis, x.rank)
    order = g.order(x)
    places = positions(order, axes)
    y = x.transpose(order)
    if len(places) == 1:
        normal = g.apply(ops.LpNorm(places[0], 2, epsilon), y)
    else:
        norm = g.apply(ops.ReduceL2(places, True), y)
        least = g.elementwise(ops.Maximum(), norm, y=np.array([epsilon], np.float32))
        normal = g.combine(ops.Div(), y, least)
    return normal.transpose(inverse(order))


@keras_layer("LayerScale", weights=("gamma",))
def LayerScale(
    g: KerasBuilder,
    x: Tensor,
    *,
    gamma: Array,
    init_values: Any = None,
    projection_dim: int = 0,
) -> Tensor:
    """Multiply every channel by a number."""
    return g.elementwise(ops.Mul(), x, y=gamma)


@keras_layer("Rescaling")
def Rescaling(g: KerasBuilder, x: Tensor, *, scale: Any, offset: Any = 0.0) -> Tensor:
    """Multiply by a number and add another."""
    factor, shift = g.numbers_of(scale), g.numbers_of(offset)
    y = x
    if (factor != 1).any():
        y = g.elementwise(ops.Mul(), y, y=_by_channel(g, factor, x.rank))
    if shift.any():
        y = g.elementwise(ops.Add(), y, y=_by_channel(g, shift, x.rank))
    return y


def _by_channel(g: KerasBuilder, array: Array, rank: int) -> Array:
    """Return numbers, one for all or one a channel, so that they broadcast."""
    if array.size == 1:
        return array.reshape(1)
    if g.channels_first and rank > 2:
        return array.reshape(-1, *(1,) * (rank - 2))
    return array


@keras_layer(
    "Normalization",
    kept=(
        "adapted_mean if not mean",
        "adapted_variance if not mean",
        "count if not mean",
    ),
)
def Normalization(
    g: KerasBuilder,
    x: Tensor,
    *,
    adapted_mean: Array | None = None,
    adapted_variance: Array | None = None,
    count: Any = None,
    axis: Any = (),
    mean: Any = None,
    variance: Any = None,
    invert: bool = False,
) -> Tensor:
    """Shift and scale by statistics that are settings or were learned."""
    axes = axes_of(g, axis, x.rank)
    if adapted_mean is not None and adapted_variance is not None:
        centre = spread(adapted_mean, axes, x.rank)
        power = spread(adapted_variance, axes, x.rank)
    else:
        centre, power = (
            spread(n, axes[len(axes) - n.ndim :], x.rank)
            for n in (g.numbers_of(mean), g.numbers_of(variance))
        )
    deviation = np.maximum(np.sqrt(power), np.float32(LEAST)).astype(np.float32)
    if invert:
        y = g.elementwise(ops.Mul(), x, y=deviation)
        return g.elementwise(ops.Add(), y, y=centre)
    y = g.elementwise(ops.Sub(), x, y=centre)
    return g.elementwise(ops.Div(), y, y=deviation)
