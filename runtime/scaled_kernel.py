"""A kernel whose outputs have yet to be scaled.

A batch normalisation that is folded into a layer scales each output. The kernel stays
as it lies in the file, and whoever packs it in the order in which the layer reads it
multiplies on the way: the product would only lie beside that copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .spec import Array


class ScaledKernel:
    """A kernel times the scale of each output; stands for an array of float32.

    Parameters
    ----------
    kernel : Array
        Outputs on the last axis.
    scale : Array
        Of each output, float64.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, kernel: Array, scale: Array) -> None:
        self.kernel = kernel
        self.scale = scale
        self.shape = kernel.shape
        self.size = kernel.size
        self.ndim = kernel.ndim

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the product, computed in float64."""
        kernel, scale = factors(self)
        return (kernel * scale).astype(dtype or self.dtype)


def factors(kernel: Array | ScaledKernel) -> tuple[Array, Array]:
    """Return a kernel of float32, contiguous, and the scale of each output, float64."""
    if isinstance(kernel, ScaledKernel):
        return np.ascontiguousarray(kernel.kernel, np.float32), kernel.scale
    return np.ascontiguousarray(kernel, np.float32), np.ones(kernel.shape[-1])
