"""Averages over axes."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import Array, Shape, Spec
from ..step import Step
from ..view import View
from .activation import as_view, require_float32
from .base import NOTHING, Epilogue, Lowering, Op, normal_axis, require


@dataclass(frozen=True)
class Mean(Op):
    """Average over axes.

    Parameters
    ----------
    axes : tuple of int
        From the back if negative.
    keepdims : bool
        Keep the axes, each of size one.
    """

    axes: Shape
    keepdims: bool = True

    def __post_init__(self) -> None:
        """Check the axes; raise `ValueError` unless they are whole numbers."""
        axes = tuple(self.axes)
        if any(isinstance(a, bool) or not isinstance(a, int) for a in axes):
            raise ValueError(f"axes {axes}, wanted whole numbers")
        object.__setattr__(self, "axes", axes)

    def infer(self, x: Spec) -> Spec:
        """Return the shape with the axes of size one, or without them."""
        require_float32("Mean", x)
        reduced = self._reduced(x.rank)
        kept = tuple(n for axis, n in enumerate(x.shape) if axis not in reduced)
        if self.keepdims:
            kept = tuple(1 if a in reduced else n for a, n in enumerate(x.shape))
        return Spec(kept)

    def reference(self, x: Array) -> Array:
        """Return the mean over the axes."""
        y: Array = x.mean(axis=self.axes, keepdims=self.keepdims)
        return y

    def lower(
        self, low: Lowering, out: View, x: View | Array, epilogue: Epilogue = NOTHING
    ) -> list[Step]:
        """Return the kernel."""
        source = as_view(low, x)
        reduced = self._reduced(source.rank)
        kept = [axis for axis in range(source.rank) if axis not in reduced]
        strides = out.strides
        if self.keepdims:
            strides = tuple(out.strides[axis] for axis in kept)
        kernel = low.load("reduce").mean(
            tuple(source.shape[axis] for axis in kept),
            strides,
            tuple(source.strides[axis] for axis in kept),
            tuple(source.shape[axis] for axis in reduced),
            tuple(source.strides[axis] for axis in reduced),
        )
        return [Step(kernel, (out, source), "mean")]

    def _reduced(self, rank: int) -> list[int]:
        reduced = sorted(normal_axis(axis, rank, "Mean") for axis in self.axes)
        require(len(set(reduced)) == len(reduced), f"Mean: axes {self.axes} repeat one")
        return reduced
