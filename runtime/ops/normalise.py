"""Normalisation by statistics of the tensor itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import checked_sizes
from .base import (
    Lowering,
    Op,
    as_view,
    checked_fields,
    finite_fields,
    normal_axes,
    reduced_shape,
    require,
    require_float32,
    require_image,
)
from .binary import broadcast_shape


class _Normalisation(Op, abstract=True):
    """What divides by a statistic of its input."""

    passes: ClassVar[int] = 3

    def multiply_adds(self, out: Spec, *operands: Spec | None) -> int:
        """Return the passes over every element."""
        return self.passes * out.size


@record
class InstanceNorm(_Normalisation):
    """Normalise each channel of each image: (N, spatial..., C) to the same shape.

    (x - mean) / sqrt(variance + epsilon) * gamma + beta, where mean and variance are
    those of the channel over the spatial axes.

    Parameters
    ----------
    epsilon : float
        Added to the variance.

    Notes
    -----
    Operands: `x`; `gamma` and `beta` of shape (C,), one and zero if left out.
    """

    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` unless it is finite and not negative."""
        _check_epsilon(self)

    def infer(
        self, x: Spec, gamma: Spec | None = None, beta: Spec | None = None
    ) -> Spec:
        """Return the spec of x."""
        require_image("InstanceNorm", x)
        _require_channels("InstanceNorm", x, gamma, beta)
        return x

    def reference(
        self, x: Array, gamma: Array | None = None, beta: Array | None = None
    ) -> Array:
        """Return the formula."""
        return _affine(_standard(x, self._axes(x.ndim), self.epsilon), gamma, beta)

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        gamma: View | Array | None = None,
        beta: View | Array | None = None,
    ) -> list[Step]:
        """Return the kernel."""
        operands = _operands(low, out, x, gamma, beta)
        return [_step(low, "standard", operands, self._axes(out.rank), self.epsilon)]

    def _axes(self, rank: int) -> Shape:
        return tuple(range(1, rank - 1))


@record
class GroupNorm(_Normalisation):
    """Normalise groups of channels of each image: (N, spatial..., C) to the same shape.

    (x - mean) / sqrt(variance + epsilon) * gamma + beta, where mean and variance are
    those of a group of C / groups neighbouring channels over the spatial axes.

    Parameters
    ----------
    groups : int
        A divisor of C; 1 makes one set of each image.
    epsilon : float
        Added to the variance.

    Notes
    -----
    Operands: `x`; `gamma` and `beta` of shape (C,), one and zero if left out.
    """

    groups: int
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        (groups,) = checked_sizes(self.groups, "groups")
        object.__setattr__(self, "groups", groups)
        _check_epsilon(self)

    def infer(
        self, x: Spec, gamma: Spec | None = None, beta: Spec | None = None
    ) -> Spec:
        """Return the spec of x."""
        require(
            x.rank >= 2 and 0 not in x.shape and x.shape[-1] % self.groups == 0,
            f"GroupNorm: {self.groups} groups do not divide the channels of "
            f"{shape_text(x.shape)}",
        )
        _require_channels("GroupNorm", x, gamma, beta)
        return x

    def reference(
        self, x: Array, gamma: Array | None = None, beta: Array | None = None
    ) -> Array:
        """Return the formula, with the groups as an axis."""
        parts = x.reshape(*x.shape[:-1], self.groups, -1)
        y = _standard(parts, (*range(1, x.ndim - 1), x.ndim), self.epsilon)
        return _affine(y.reshape(x.shape), gamma, beta)

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        gamma: View | Array | None = None,
        beta: View | Array | None = None,
    ) -> list[Step]:
        """Return the kernel; narrow groups share a vector."""
        operands = _operands(low, out, x, gamma, beta)
        axes = tuple(range(1, out.rank - 1))
        run = out.shape[-1] // self.groups
        if run < low.load("normalise").VECTOR:
            return [_step(low, "standard", operands, axes, self.epsilon, run)]
        parts = [_split(view, self.groups) for view in operands]
        return [_step(low, "standard", parts, (*axes, out.rank), self.epsilon)]


@record
class LayerNorm(_Normalisation):
    """Normalise over some axes: any shape to the same shape.

    (x - mean) / sqrt(variance + epsilon) * gamma + beta, where mean and variance are
    those over the axes.

    Parameters
    ----------
    axes : tuple of int
        From the back if negative.
    epsilon : float
        Added to the variance.
    statistics : bool
        Whether mean and 1 / sqrt(variance + epsilon) are a second and a third output,
        with the axes of size one.

    Notes
    -----
    Operands: `x`; `gamma` and `beta`, which broadcast to the shape of `x`, one and zero
    if left out.
    """

    axes: Shape = (-1,)
    epsilon: float = 1e-5
    statistics: bool = False

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        _check_axes(self)
        _check_epsilon(self)

    def infer(
        self, x: Spec, gamma: Spec | None = None, beta: Spec | None = None
    ) -> Spec | tuple[Spec, Spec, Spec]:
        """Return the spec of x, and those of its statistics."""
        axes = _require_axes("LayerNorm", x, self.axes)
        _require_broadcast("LayerNorm", x, gamma, beta)
        if not self.statistics:
            return x
        kept = Spec(reduced_shape(x.shape, axes, True))
        return x, kept, kept

    def reference(
        self, x: Array, gamma: Array | None = None, beta: Array | None = None
    ) -> Array | tuple[Array, Array, Array]:
        """Return the formula, and its statistics."""
        mean = x.mean(axis=self.axes, keepdims=True)
        variance = ((x - mean) ** 2).mean(axis=self.axes, keepdims=True)
        scale = 1 / np.sqrt(variance + self.epsilon)
        y = _affine((x - mean) * scale, gamma, beta)
        return (y, mean, scale) if self.statistics else y

    def lower(
        self,
        low: Lowering,
        out: View | tuple[View, View, View],
        x: View | Array,
        gamma: View | Array | None = None,
        beta: View | Array | None = None,
    ) -> list[Step]:
        """Return the kernel."""
        y, *statistics = out if isinstance(out, tuple) else (out,)
        operands = _operands(low, y, x, gamma, beta)
        axes = normal_axes(self.axes, y.rank, "LayerNorm")
        return [
            _step(low, "standard", operands, axes, self.epsilon, 1, tuple(statistics))
        ]


@record
class RMSNorm(_Normalisation):
    """Divide by the root of the mean square over some axes: any shape to the same.

    x / sqrt(mean(x^2) + epsilon) * gamma.

    Parameters
    ----------
    axes : tuple of int
        From the back if negative.
    epsilon : float
        Added to the mean square.

    Notes
    -----
    Operands: `x`; `gamma`, which broadcasts to the shape of `x`, one if left out.
    """

    axes: Shape = (-1,)
    epsilon: float = 1e-5

    passes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        _check_axes(self)
        _check_epsilon(self)

    def infer(self, x: Spec, gamma: Spec | None = None) -> Spec:
        """Return the spec of x."""
        _require_axes("RMSNorm", x, self.axes)
        _require_broadcast("RMSNorm", x, gamma, None)
        return x

    def reference(self, x: Array, gamma: Array | None = None) -> Array:
        """Return the formula."""
        square = (x**2).mean(axis=self.axes, keepdims=True)
        return _affine(x / np.sqrt(square + self.epsilon), gamma, None)

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        gamma: View | Array | None = None,
    ) -> list[Step]:
        """Return the kernel."""
        operands = _operands(low, out, x, gamma, None)
        axes = normal_axes(self.axes, out.rank, "RMSNorm")
        return [_step(low, "root mean square", operands, axes, self.epsilon)]


@record
class LpNorm(_Normalisation):
    """Divide by the norm along an axis: any shape to the same shape.

    x / max(norm, epsilon); zeros stay zeros.

    Parameters
    ----------
    axis : int
        From the back if negative.
    p : int
        1 for the sum of magnitudes, 2 for the root of the sum of squares; a square must
        be representable in float32.
    epsilon : float
        What a norm is at least taken for.
    """

    axis: int = -1
    p: int = 2
    epsilon: float = 0.0

    passes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("axis",))
        if self.p not in (1, 2) or isinstance(self.p, bool):
            raise ValueError(f"p {self.p!r}, wanted 1 or 2")
        _check_epsilon(self)

    def infer(self, x: Spec) -> Spec:
        """Return the spec of x."""
        _require_axes("LpNorm", x, (self.axis,))
        return x

    def reference(self, x: Array) -> Array:
        """Return x divided by its norm."""
        norm = (np.abs(x) ** self.p).sum(axis=self.axis, keepdims=True) ** (1 / self.p)
        norm = np.maximum(norm, self.epsilon)
        y: Array = x / np.where(norm == 0, 1, norm)
        return y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel."""
        operands = _operands(low, out, x, None, None)
        axes = normal_axes((self.axis,), out.rank, "LpNorm")
        return [_step(low, f"L{self.p}", operands, axes, self.epsilon)]


@record
class MeanVarianceNorm(_Normalisation):
    """Make the mean zero and the variance one over some axes: any shape to the same.

    (x - mean) / (sqrt(variance) + epsilon).

    Parameters
    ----------
    axes : tuple of int
        From the back if negative.
    epsilon : float
        Added to the standard deviation.
    """

    axes: Shape
    epsilon: float = 1e-9

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        _check_axes(self)
        _check_epsilon(self)

    def infer(self, x: Spec) -> Spec:
        """Return the spec of x."""
        _require_axes("MeanVarianceNorm", x, self.axes)
        return x

    def reference(self, x: Array) -> Array:
        """Return the formula."""
        mean = x.mean(axis=self.axes, keepdims=True)
        deviation = x.std(axis=self.axes, keepdims=True)
        y: Array = (x - mean) / (deviation + self.epsilon)
        return y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel."""
        operands = _operands(low, out, x, None, None)
        axes = normal_axes(self.axes, out.rank, "MeanVarianceNorm")
        return [_step(low, "deviation", operands, axes, self.epsilon)]


def _standard(x: Array, axes: Shape, epsilon: float) -> Array:
    mean = x.mean(axis=axes, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    y: Array = (x - mean) / np.sqrt(variance + epsilon)
    return y


def _affine(y: Array, gamma: Array | None, beta: Array | None) -> Array:
    if gamma is not None:
        y = y * gamma
    return y if beta is None else y + beta


def _operands(
    low: Lowering,
    out: View,
    x: View | Array,
    gamma: View | Array | None,
    beta: View | Array | None,
) -> list[View]:
    """Return out, x, gamma and beta, the last two stretched to the shape of `out`."""
    one = np.ones((), np.float32) if gamma is None else gamma
    zero = np.zeros((), np.float32) if beta is None else beta
    return [
        out,
        as_view(low, x),
        as_view(low, one).broadcast(out.shape),
        as_view(low, zero).broadcast(out.shape),
    ]


def _split(view: View, groups: int) -> View:
    """Return the view with its last axis as groups and their channels."""
    *lead, channels = view.shape
    *strides, step = view.strides
    each = channels // groups
    return replace(
        view,
        shape=(*lead, groups, each),
        strides=(*strides, each * step, step),
        halo=(),
    )


def _step(
    low: Lowering,
    kind: str,
    operands: list[View],
    axes: Shape,
    epsilon: float,
    run: int = 1,
    statistics: tuple[View, ...] = (),
) -> Step:
    """Return the one kernel; `operands` as `_operands` returns them."""
    shape = operands[0].shape
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    kernel = low.load("normalise").normalise(
        kind,
        shape,
        tuple(view.strides for view in operands),
        axes,
        run,
        epsilon,
        tuple(tuple(view.strides[axis] for axis in kept) for view in statistics),
    )
    return Step(kernel, (*operands, *statistics), f"normalise {kind}")


def _check_epsilon(op: Any) -> None:
    finite_fields(op, "epsilon")
    if op.epsilon < 0:
        raise ValueError(f"epsilon {op.epsilon}, wanted zero or more")


def _check_axes(op: LayerNorm | RMSNorm | MeanVarianceNorm) -> None:
    checked_fields(op, several=("axes",))
    if not op.axes:
        raise ValueError("axes (), wanted one or more whole numbers")


def _require_axes(name: str, x: Spec, axes: Shape) -> Shape:
    require_float32(name, x)
    require(0 not in x.shape, f"{name}: {shape_text(x.shape)} is empty")
    return normal_axes(axes, x.rank, name)


def _require_channels(
    name: str, x: Spec, gamma: Spec | None, beta: Spec | None
) -> None:
    require_float32(name, x)
    for operand, weight in (("gamma", gamma), ("beta", beta)):
        if weight is not None:
            require_float32(name, weight)
            require(
                weight.shape == x.shape[-1:],
                f"{name}: {operand} {shape_text(weight.shape)} does not fit the input "
                f"{shape_text(x.shape)}, wanted ({x.shape[-1]},)",
            )


def _require_broadcast(
    name: str, x: Spec, gamma: Spec | None, beta: Spec | None
) -> None:
    for operand, weight in (("gamma", gamma), ("beta", beta)):
        if weight is not None:
            require_float32(name, weight)
            require(
                broadcast_shape(name, x.shape, weight.shape) == x.shape,
                f"{name}: {operand} {shape_text(weight.shape)} does not broadcast to "
                f"the shape {shape_text(x.shape)} of x",
            )
