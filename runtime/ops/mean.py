"""Averages over axes."""

from __future__ import annotations

from ..record import record
from ..spec import Array, Shape, Spec
from ..step import Step
from ..view import View
from .base import (
    Lowering,
    Op,
    as_view,
    checked_fields,
    normal_axes,
    reduced_shape,
    require_float32,
)


@record
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
        checked_fields(self, several=("axes",))

    def infer(self, x: Spec) -> Spec:
        """Return the shape with the axes of size one, or without them."""
        require_float32("Mean", x)
        reduced = normal_axes(self.axes, x.rank, "Mean")
        return Spec(reduced_shape(x.shape, reduced, self.keepdims))

    def reference(self, x: Array) -> Array:
        """Return the mean over the axes."""
        y: Array = x.mean(axis=self.axes, keepdims=self.keepdims)
        return y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel."""
        source = as_view(low, x)
        reduced = normal_axes(self.axes, source.rank, "Mean")
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
