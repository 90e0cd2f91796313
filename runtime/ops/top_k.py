"""The largest or smallest elements along an axis."""

from __future__ import annotations

import numpy as np

from ..record import record
from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, checked_fields, normal_axis, require
from .binary import NUMBERS, common_dtype


@record
class TopK(Op):
    """Find the k largest elements along an axis: their values and indices (int64).

    Of equal elements the first come first. NaN counts as larger than all numbers.

    Parameters
    ----------
    k : int
        How many, at most as many as there are.
    axis : int
        From the back if negative.
    largest : bool
        Whether to find the largest elements; else the smallest.
    sorted : bool
        Whether their order matters. They come best first in any case.
    """

    k: int
    axis: int = -1
    largest: bool = True
    sorted: bool = True

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("k", "axis"), ("largest", "sorted"))
        if self.k < 1:
            raise ValueError(f"k {self.k}, wanted at least 1")

    def infer(self, x: Spec) -> tuple[Spec, Spec]:
        """Return the specs of values and indices."""
        dtype = common_dtype("TopK", NUMBERS, x)
        axis = normal_axis(self.axis, x.rank, "TopK")
        require(
            self.k <= x.shape[axis],
            f"TopK: k is {self.k}, axis {self.axis} of {shape_text(x.shape)} has fewer",
        )
        shape = (*x.shape[:axis], self.k, *x.shape[axis + 1 :])
        return Spec(shape, dtype), Spec(shape, "int64")

    def reference(self, x: Array) -> tuple[Array, Array]:
        """Return values and indices by sorting."""
        if self.largest:
            backwards = np.argsort(np.flip(x, self.axis), self.axis, kind="stable")
            order = np.flip(x.shape[self.axis] - 1 - backwards, self.axis)
        else:
            order = np.argsort(x, self.axis, kind="stable")
        indices = np.take(order, range(self.k), self.axis)
        return np.take_along_axis(x, indices, self.axis), indices

    def lower(
        self, low: Lowering, out: tuple[View, View], x: View | Array
    ) -> list[Step]:
        """Return the kernel."""
        views = (*out, as_view(low, x))
        source = views[2]
        axis = normal_axis(self.axis, source.rank, "TopK")
        kernel = low.load("order").best(
            source.dtype,
            source.shape[:axis] + source.shape[axis + 1 :],
            tuple(v.strides[:axis] + v.strides[axis + 1 :] for v in views),
            source.shape[axis],
            self.k,
            tuple(v.strides[axis] for v in views),
            self.largest,
        )
        return [
            Step(kernel, (*views, low.scratch(low.threads * self.k, "int64")), "heap")
        ]
