"""Running sums."""

from __future__ import annotations

import numpy as np

from ..record import record
from ..spec import Array, Spec
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, checked_fields, normal_axis
from .binary import common_dtype


@record
class CumSum(Op):
    """Add up the elements along an axis up to each one: any shape to the same.

    Parameters
    ----------
    axis : int
        From the back if negative.
    exclusive : bool
        Leave out the element itself.
    reverse : bool
        Begin at the end.
    """

    axis: int = -1
    exclusive: bool = False
    reverse: bool = False

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("axis",), ("exclusive", "reverse"))

    def infer(self, x: Spec) -> Spec:
        """Return the input's spec."""
        common_dtype("CumSum", ("float32", "int32", "int64"), x)
        normal_axis(self.axis, x.rank, "CumSum")
        return x

    def reference(self, x: Array) -> Array:
        """Return the running sums."""
        x = np.flip(x, self.axis) if self.reverse else x
        y = np.cumsum(x, self.axis, dtype=x.dtype)
        y = y - x if self.exclusive else y
        return np.flip(y, self.axis) if self.reverse else y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel; backwards, strides are negative."""
        source = as_view(low, x)
        axis = normal_axis(self.axis, out.rank, "CumSum")
        n = out.shape[axis]
        ends = out, source
        if self.reverse:
            ends = out.slice(axis, n - 1, n, -1), source.slice(axis, n - 1, n, -1)
        to, at = ends
        kernel = low.load("reduction").running_sum(
            out.dtype,
            out.shape[:axis] + out.shape[axis + 1 :],
            to.strides[:axis] + to.strides[axis + 1 :],
            at.strides[:axis] + at.strides[axis + 1 :],
            n,
            to.strides[axis],
            at.strides[axis],
            self.exclusive,
        )
        return [Step(kernel, ends, "running sum")]
