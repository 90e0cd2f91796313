"""Choosing between two tensors, element by element."""

from __future__ import annotations

import numpy as np

from ..spec import Array, Spec
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view
from .binary import NUMBERS, broadcast_shape, common_dtype


class Where(Op):
    """Take x where a condition is true and y elsewhere, with NumPy's broadcasting.

    Operands: `condition`, truth values; `x` and `y` of one type.
    """

    def infer(self, condition: Spec, x: Spec, y: Spec) -> Spec:
        """Return the shape to which the operands stretch."""
        common_dtype("Where's condition", ("bool",), condition)
        dtype = common_dtype("Where", (*NUMBERS, "bool"), x, y)
        shape = broadcast_shape("Where", condition.shape, x.shape, y.shape)
        return Spec(shape, dtype)

    def reference(self, condition: Array, x: Array, y: Array) -> Array:
        """Return x where the condition is true and y elsewhere."""
        return np.where(condition, x, y)

    def lower(
        self,
        low: Lowering,
        out: View,
        condition: View | Array,
        x: View | Array,
        y: View | Array,
    ) -> list[Step]:
        """Return the kernel; `out` may be an operand of its own shape."""
        return [where_step(low, out, condition, x, y)]


def where_step(
    low: Lowering,
    out: View,
    condition: View | Array,
    x: View | Array,
    y: View | Array,
) -> Step:
    """Return the step ``out = x if condition else y``; all broadcast to `out`."""
    views = (out, *(as_view(low, operand) for operand in (condition, x, y)))
    strides = tuple(view.broadcast(out.shape).strides for view in views)
    kernel = low.load("compare").where(out.itemsize, out.shape, strides)
    return Step(kernel, views, "elementwise")
