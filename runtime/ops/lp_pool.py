"""Pooling by p-norms, in sliding windows and over whole images."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..algorithms.boxes import Boxes, box_pool, reduce_boxes, sliding_boxes
from ..record import record
from ..spec import Array, Spec
from ..step import Step
from ..view import View
from ..window import checked_sizes
from .base import Lowering, Op, require_float32, require_image
from .pool import SlidingPool


@record
class LpPool(SlidingPool):
    """Take the p-norm of each channel in a sliding window.

    (N, spatial..., C) to (N, windows along each axis..., C).

    Parameters
    ----------
    kernel, stride, dilation : tuple of int
        For each spatial axis; one number serves all.
    padding : str or tuple of (int, int)
        Zeros around the input.
    ceil_mode : bool
        Whether a last window that is only partly inside counts.
    p : int
        The power: the result is the p-th root of the sum of ``|x| ** p``.
    """

    p: int = 2

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        super().__post_init__()
        object.__setattr__(self, "p", checked_sizes(self.p, "p")[0])

    def infer(self, x: Spec) -> Spec:
        """Return (N, windows along each axis..., C)."""
        require_image("LpPool", x)
        require_float32("LpPool", x)
        return Spec(self.pooled(x), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the norm of every window."""
        dilation = self.window(Spec(x.shape)).dilation
        return reduce_boxes(x, self._boxes(Spec(x.shape)), dilation, self._norm)

    def lower(self, low: Lowering, out: View, x: View) -> list[Step]:
        """Return the kernel."""
        dilation = self.window(x.spec).dilation
        boxes = self._boxes(x.spec)
        name = f"power {self.p}"
        return [box_pool(low, out, x, boxes, dilation, "power", name, self.p)]

    def _boxes(self, x: Spec) -> Boxes:
        return sliding_boxes(self.window(x), x.spatial, self.pooled(x)[1:-1])

    def _norm(self, box: Array) -> Any:
        return _norm(box, self.p)


@record
class GlobalLpPool(Op):
    """Take the p-norm of each channel: (N, spatial..., C) to (N, C).

    Parameters
    ----------
    p : int
        The power: the result is the p-th root of the sum of ``|x| ** p``.
    keepdims : bool
        Keep the spatial axes, each of size one.
    """

    p: int = 2
    keepdims: bool = False

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        object.__setattr__(self, "p", checked_sizes(self.p, "p")[0])
        if not isinstance(self.keepdims, bool):
            raise ValueError(f"keepdims {self.keepdims!r}, wanted a bool")

    def infer(self, x: Spec) -> Spec:
        """Return (N, C), or (N, 1..., C) with `keepdims`."""
        require_image("GlobalLpPool", x)
        require_float32("GlobalLpPool", x)
        kept = (1,) * (x.rank - 2) if self.keepdims else ()
        return Spec((x.shape[0], *kept, x.shape[-1]), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the norm of every channel."""
        y: Array = _norm(x, self.p)
        return y.reshape(self.infer(Spec(x.shape)).shape)

    def lower(self, low: Lowering, out: View, x: View) -> list[Step]:
        """Return the kernel: one box."""
        boxes = [[(0, n)] for n in x.shape[1:-1]]
        ones = (1,) * len(boxes)
        name = f"global power {self.p}"
        return [box_pool(low, out, x, boxes, ones, "power", name, self.p)]


def _norm(box: Array, p: int) -> Any:
    axes = tuple(range(1, box.ndim - 1))
    return np.sum(np.abs(box) ** p, axis=axes) ** (1 / p)
