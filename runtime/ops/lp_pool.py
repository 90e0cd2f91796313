"""Pooling by p-norms, in sliding windows and over whole images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..algorithms.boxes import Boxes, box_pool, reduce_boxes, sliding_boxes
from ..spec import Array, Shape, Spec
from ..step import Step
from ..view import View
from ..window import (
    Padding,
    Window,
    checked_padding,
    checked_sizes,
    explicit_padding,
    output_size,
    reach,
)
from .activation import require_float32
from .base import NOTHING, Epilogue, Lowering, Op, per_axis, require_image


@dataclass(frozen=True)
class LpPool(Op):
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

    kernel: Shape
    stride: Shape = (1,)
    dilation: Shape = (1,)
    padding: Padding = "valid"
    ceil_mode: bool = False
    p: int = 2

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        for name in ("kernel", "stride", "dilation"):
            object.__setattr__(self, name, checked_sizes(getattr(self, name), name))
        padding = checked_padding(self.padding, "LpPool")
        object.__setattr__(self, "padding", padding)
        if not isinstance(self.ceil_mode, bool):
            raise ValueError(f"ceil_mode {self.ceil_mode!r}, wanted a bool")
        object.__setattr__(self, "p", checked_sizes(self.p, "p")[0])

    def infer(self, x: Spec) -> Spec:
        """Return (N, windows along each axis..., C)."""
        require_image("LpPool", x)
        require_float32("LpPool", x)
        window = self.window(x)
        span = reach(window.kernel, window.dilation)
        counts = output_size(
            x.spatial, span, window.stride, window.padding, self.ceil_mode
        )
        return Spec((x.shape[0], *counts, x.shape[-1]), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the norm of every window."""
        dilation = self.window(Spec(x.shape)).dilation
        return reduce_boxes(x, self._boxes(Spec(x.shape)), dilation, self._norm)

    def window(self, x: Spec) -> Window:
        """Return the window with a number or a pair for each spatial axis."""
        rank = x.rank - 2
        kernel = per_axis(self.kernel, rank, "kernel")
        stride = per_axis(self.stride, rank, "stride")
        dilation = per_axis(self.dilation, rank, "dilation")
        span = reach(kernel, dilation)
        padding = explicit_padding(self.padding, x.spatial, span, stride)
        return Window(kernel, stride, dilation, padding)

    def lower(
        self, low: Lowering, out: View, x: View, epilogue: Epilogue = NOTHING
    ) -> list[Step]:
        """Return the kernel."""
        dilation = self.window(x.spec).dilation
        boxes = self._boxes(x.spec)
        name = f"power {self.p}"
        return [box_pool(low, out, x, boxes, dilation, "power", name, self.p)]

    def _boxes(self, x: Spec) -> Boxes:
        counts = self.infer(Spec(x.shape)).spatial
        return sliding_boxes(self.window(x), x.spatial, counts)

    def _norm(self, box: Array) -> Any:
        return _norm(box, self.p)


@dataclass(frozen=True)
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

    def lower(
        self, low: Lowering, out: View, x: View, epilogue: Epilogue = NOTHING
    ) -> list[Step]:
        """Return the kernel: one box."""
        boxes = [[(0, n)] for n in x.shape[1:-1]]
        ones = (1,) * len(boxes)
        name = f"global power {self.p}"
        return [box_pool(low, out, x, boxes, ones, "power", name, self.p)]


def _norm(box: Array, p: int) -> Any:
    axes = tuple(range(1, box.ndim - 1))
    return np.sum(np.abs(box) ** p, axis=axes) ** (1 / p)
