"""Batch normalisation, as it is after training."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..record import record
from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from .base import (
    NOTHING,
    Epilogue,
    Lowering,
    Op,
    finite_fields,
    require,
    require_float32,
)
from .binary import binary_step


@record
class BatchNorm(Op):
    """Shift and scale each channel: (..., C) to (..., C).

    (x - mean) / sqrt(variance + epsilon) * gamma + beta, with statistics from training.

    Parameters
    ----------
    epsilon : float
        Added to the variance.

    Notes
    -----
    Operands: `x`; `gamma`, `beta`, `mean` and `variance`, weights of shape (C,).
    """

    epsilon: float = 1e-5

    fuses: ClassVar[bool] = True
    weights: ClassVar[tuple[str, ...]] = ("gamma", "beta", "mean", "variance")

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` if it is not finite."""
        finite_fields(self, "epsilon")

    def infer(
        self, x: Spec, gamma: Spec, beta: Spec, mean: Spec, variance: Spec
    ) -> Spec:
        """Return the spec of x."""
        require_float32("BatchNorm", x, gamma, beta, mean, variance)
        require(x.rank > 0, "BatchNorm: the input has no axis of channels")
        for name, weight in zip(
            self.weights, (gamma, beta, mean, variance), strict=True
        ):
            require(
                weight.shape == x.shape[-1:],
                f"BatchNorm: {name} {shape_text(weight.shape)} does not fit the input "
                f"{shape_text(x.shape)}, wanted ({x.shape[-1]},)",
            )
        return x

    def reference(
        self, x: Array, gamma: Array, beta: Array, mean: Array, variance: Array
    ) -> Array:
        """Return the formula."""
        y: Array = (x - mean) / np.sqrt(variance + self.epsilon) * gamma + beta
        return y

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        gamma: Array,
        beta: Array,
        mean: Array,
        variance: Array,
        epilogue: Epilogue = NOTHING,
    ) -> list[Step]:
        """Return the kernel of ``x * scale + shift``."""
        others = (self.epsilon, beta.tobytes(), mean.tobytes(), variance.tobytes())
        scale = gamma / np.sqrt(variance.astype(np.float64) + self.epsilon)
        shift = beta - mean * scale
        weights = (
            low.packed(gamma, ("scale", *others), lambda: scale.astype(np.float32)),
            low.packed(gamma, ("shift", *others), lambda: shift.astype(np.float32)),
        )
        return [binary_step(low, "MultiplyAdd", out, (x, *weights), epilogue)]
