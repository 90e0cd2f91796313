"""Fully connected layers."""

from __future__ import annotations

from typing import ClassVar

from ..algorithms import Moves, matrix_product
from ..scaled_kernel import ScaledKernel
from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from .base import NOTHING, Epilogue, Lowering, Op, require, require_bias


class Dense(Op):
    """Multiply the last axis by a matrix: (..., C) to (..., M).

    Notes
    -----
    Operands: `x`; `kernel` of shape (C, M); `bias` of shape (M,), which may be left
    out.
    """

    fuses: ClassVar[bool] = True
    weights: ClassVar[tuple[str, ...]] = ("kernel", "bias")
    linear: ClassVar[bool] = True

    def infer(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Spec:
        """Return (..., M)."""
        require(
            x.rank >= 1
            and kernel.rank == 2
            and 0 not in x.shape + kernel.shape
            and kernel.shape[0] == x.shape[-1],
            f"Dense: kernel {shape_text(kernel.shape)} does not fit the input "
            f"{shape_text(x.shape)}; wanted ({x.shape[-1] if x.rank else 'C'}, M)",
        )
        out = kernel.shape[1]
        require_bias("Dense", bias, out)
        return Spec((*x.shape[:-1], out))

    def reference(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        """Return ``x @ kernel + bias``."""
        y: Array = x @ kernel
        return y if bias is None else y + bias

    def multiply_adds(
        self, out: Spec, x: Spec, kernel: Spec, bias: Spec | None = None
    ) -> int:
        """Return output elements times products in each."""
        return out.size * kernel.shape[0]

    def scaled(self, kernel: Array, scale: Array) -> ScaledKernel:
        """Return the product, for whoever packs it to compute."""
        return ScaledKernel(kernel, scale)

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View,
        kernel: Array,
        bias: Array | None = None,
        epilogue: Epilogue = NOTHING,
    ) -> list[Step]:
        """Return a convolution of one-pixel images."""
        moves = Moves.between(out, x.strides[:-1], epilogue.residual)
        return [
            matrix_product(
                low, moves, out, x, kernel, bias, [0], kernel.shape[0], 1, epilogue
            )
        ]
