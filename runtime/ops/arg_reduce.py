"""Where the largest and smallest elements along an axis are."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..record import record
from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from .base import (
    Lowering,
    Op,
    as_view,
    checked_fields,
    normal_axis,
    reduced_shape,
    require,
)
from .binary import NUMBERS, common_dtype


@record
class _ArgReduction(Op, abstract=True):
    """The index of an extreme along an axis, as int64.

    NaN counts as more extreme than all numbers.

    Parameters
    ----------
    axis : int
        From the back if negative.
    keepdims : bool
        Keep the axis, of size one.
    select_last : bool
        Which of several equal elements: the last, or the first.
    """

    axis: int = -1
    keepdims: bool = True
    select_last: bool = False

    largest: ClassVar[bool]

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("axis",), ("keepdims", "select_last"))

    def infer(self, x: Spec) -> Spec:
        """Return the shape with the axis of size one, or without it."""
        name = type(self).__name__
        common_dtype(name, NUMBERS, x)
        axis = normal_axis(self.axis, x.rank, name)
        require(
            x.shape[axis] > 0,
            f"{name}: axis {self.axis} of {shape_text(x.shape)} has no elements",
        )
        return Spec(reduced_shape(x.shape, (axis,), self.keepdims), "int64")

    def reference(self, x: Array) -> Array:
        """Return the indices of the extremes."""
        y: Array
        find = np.argmax if self.largest else np.argmin
        if self.select_last:
            y = x.shape[self.axis] - 1 - find(np.flip(x, self.axis), self.axis)
        else:
            y = find(x, self.axis)
        return np.expand_dims(y, self.axis) if self.keepdims else y

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel."""
        source = as_view(low, x)
        axis = normal_axis(self.axis, source.rank, type(self).__name__)
        strides = out.strides
        if self.keepdims:
            strides = strides[:axis] + strides[axis + 1 :]
        kernel = low.load("order").extreme(
            source.dtype,
            source.shape[:axis] + source.shape[axis + 1 :],
            strides,
            source.strides[:axis] + source.strides[axis + 1 :],
            source.shape[axis],
            source.strides[axis],
            self.largest,
            self.select_last,
        )
        return [Step(kernel, (out, source), "scan")]


class ArgMax(_ArgReduction):
    """Find the index of the largest element along an axis, as int64.

    NaN counts as larger than all numbers.

    Parameters
    ----------
    axis : int
        From the back if negative.
    keepdims : bool
        Keep the axis, of size one.
    select_last : bool
        Which of several equal elements: the last, or the first.
    """

    largest: ClassVar[bool] = True


class ArgMin(_ArgReduction):
    """Find the index of the smallest element along an axis, as int64.

    NaN counts as smaller than all numbers.

    Parameters
    ----------
    axis : int
        From the back if negative.
    keepdims : bool
        Keep the axis, of size one.
    select_last : bool
        Which of several equal elements: the last, or the first.
    """

    largest: ClassVar[bool] = False
