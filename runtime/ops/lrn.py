"""Local response normalisation."""

from __future__ import annotations

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec
from ..step import Step
from ..view import View
from ..window import Window, checked_sizes
from .base import Lowering, Op, as_view, finite_fields, require_float32, require_image


@record
class LRN(Op):
    """Divide by the energy nearby: (N, spatial..., C) to the same shape.

    x / (bias + alpha s)^beta, where s is the mean square over a window around each
    element; what lies outside the tensor counts as zero. Of an even window the larger
    part comes after.

    Parameters
    ----------
    size : int
        The window: that many channels of the same pixel, or, with `across` false, that
        many positions of the same channel along every spatial axis.
    alpha, beta, bias : float
        As above.
    across : bool
        Whether windows run across channels or within each.
    """

    size: int
    alpha: float = 0.0001
    beta: float = 0.75
    bias: float = 1.0
    across: bool = True

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        (size,) = checked_sizes(self.size, "size")
        object.__setattr__(self, "size", size)
        finite_fields(self, "alpha", "beta", "bias")

    def infer(self, x: Spec) -> Spec:
        """Return the spec of x."""
        require_image("LRN", x)
        require_float32("LRN", x)
        return x

    def reference(self, x: Array) -> Array:
        """Return the formula, with the mean squares as shifted sums."""
        axes = (x.ndim - 1,) if self.across else tuple(range(1, x.ndim - 1))
        total = x**2
        for axis in axes:
            padding = [(0, 0)] * x.ndim
            padding[axis] = self._reach(self.size)
            padded = np.pad(total, padding)
            total = np.lib.stride_tricks.sliding_window_view(padded, self.size, axis)
            total = total.sum(axis=-1)
        y: Array = x / (self.bias + self._scale(x.ndim) * total) ** self.beta
        return y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel."""
        source = as_view(low, x)
        module = low.load("lrn")
        longest = out.shape[-1] if self.across else max(out.shape[1:-1])
        before, after = self._reach(longest)
        kernel = module.lrn(
            out.shape[0],
            out.shape[-1],
            _three(out.shape[1:-1], 1),
            (source.strides[0], *_three(source.strides[1:-1], 0)),
            (out.strides[0], *_three(out.strides[1:-1], 0)),
            before,
            after,
            self._scale(out.rank),
            self.beta,
            self.bias,
            self.across,
        )
        operands = [out, source]
        if self.across:
            row = module.scratch(out.shape[-1], before, after)
            operands.append(low.scratch(low.threads * row))
        where = "across" if self.across else "within"
        return [Step(kernel, tuple(operands), f"lrn {where} channels")]

    def window(self, x: Spec) -> Window:
        """Return the window within a channel; across channels it is one position."""
        rank = x.rank - 2
        size, pads = (1, (0, 0)) if self.across else (self.size, self._reach(self.size))
        return Window((size,) * rank, (1,) * rank, (1,) * rank, (pads,) * rank)

    def multiply_adds(self, out: Spec, x: Spec) -> int:
        """Return the squares added up."""
        return out.size * int(self.size ** (1 if self.across else out.rank - 2))

    def _reach(self, n: int) -> tuple[int, int]:
        """Return how far a window reaches before and after, in an axis of n."""
        before = (self.size - 1) // 2
        return min(before, n - 1), min(self.size - 1 - before, n - 1)

    def _scale(self, rank: int) -> float:
        """Return what the sum of squares is multiplied by."""
        return self.alpha / float(self.size ** (1 if self.across else rank - 2))


def _three(values: Shape, fill: int) -> Shape:
    """Return three numbers, one an axis, those of missing leading axes as `fill`."""
    return (fill,) * (3 - len(values)) + tuple(values)
