"""Softmax, its logarithm and its limit."""

from __future__ import annotations

import numpy as np

from ..record import record
from ..spec import Array, Spec
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, normal_axis, require_float32


@record
class _Softmax(Op, abstract=True):
    """What softmax, its logarithm and its limit share: the axis."""

    axis: int = -1

    def infer(self, x: Spec) -> Spec:
        """Return the input's spec."""
        name = type(self).__name__
        require_float32(name, x)
        normal_axis(self.axis, x.rank, name)
        return x

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel; `out` may be `x`."""
        source = as_view(low, x)
        axis = normal_axis(self.axis, out.rank, type(self).__name__)
        kernel = low.load("softmax").softmax(
            out.shape, out.strides, source.strides, axis, isinstance(self, LogSoftmax)
        )
        return [Step(kernel, (out, source), "softmax")]


class Softmax(_Softmax):
    """Make positive numbers that add up to one along an axis: any shape to the same.

    exp(x) / sum(exp(x)), computed from x less its largest value.

    Parameters
    ----------
    axis : int
        From the back if negative.
    """

    def reference(self, x: Array) -> Array:
        """Return exp(x) / sum(exp(x))."""
        e = np.exp(x - x.max(axis=self.axis, keepdims=True))
        y: Array = e / e.sum(axis=self.axis, keepdims=True)
        return y


class LogSoftmax(_Softmax):
    """Take the logarithm of `Softmax` without losing small ones: x - ln(sum(exp(x))).

    Parameters
    ----------
    axis : int
        From the back if negative.
    """

    def reference(self, x: Array) -> Array:
        """Return x - ln(sum(exp(x)))."""
        shifted = x - x.max(axis=self.axis, keepdims=True)
        total = np.exp(shifted).sum(axis=self.axis, keepdims=True)
        y: Array = shifted - np.log(total)
        return y


class Hardmax(_Softmax):
    """Mark the largest element along an axis: any shape to the same.

    1 at the first of the largest, 0 elsewhere; NaN counts as the largest.

    Parameters
    ----------
    axis : int
        From the back if negative.
    """

    def reference(self, x: Array) -> Array:
        """Return 1 at the first largest element, else 0."""
        y = np.zeros_like(x)
        where = np.expand_dims(x.argmax(axis=self.axis), self.axis)
        np.put_along_axis(y, where, 1, axis=self.axis)
        return y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel; `out` may be `x`."""
        source = as_view(low, x)
        axis = normal_axis(self.axis, out.rank, "Hardmax")
        kernel = low.load("softmax").hardmax(
            out.shape, out.strides, source.strides, axis
        )
        return [Step(kernel, (out, source), "hardmax")]
