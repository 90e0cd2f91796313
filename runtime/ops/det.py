"""Determinants."""

from __future__ import annotations

import numpy as np

from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, require, require_float32


class Det(Op):
    """Take the determinant of matrices, the last two axes: (..., M, M) to (...)."""

    def infer(self, x: Spec) -> Spec:
        """Return the axes before the matrices."""
        require_float32("Det", x)
        require(
            x.rank >= 2 and x.shape[-1] == x.shape[-2] > 0,
            f"Det wants square matrices, found {shape_text(x.shape)}",
        )
        return Spec(x.shape[:-2])

    def reference(self, x: Array) -> Array:
        """Return the determinants."""
        return np.asarray(np.linalg.det(x))

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel."""
        source = as_view(low, x)
        n = source.shape[-1]
        kernel = low.load("determinant").determinant(
            out.shape, (out.strides, source.strides[:-2]), n, *source.strides[-2:]
        )
        scratch = low.scratch(low.threads * n * n, "float64")
        return [Step(kernel, (out, source, scratch), "elimination")]
