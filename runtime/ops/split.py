"""Cutting a tensor into parts."""

from __future__ import annotations

import itertools

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import checked_sizes
from .base import Lowering, Op, as_view, normal_axis, require
from .identity import copy_step


@record
class Split(Op):
    """Cut a tensor along an axis; every part is an output.

    Parameters
    ----------
    axis : int
        From the back if negative.
    sizes : tuple of int
        Of the parts, in order; they add up to the axis.
    """

    axis: int = -1
    sizes: Shape = ()

    def __post_init__(self) -> None:
        """Check the sizes; raise `ValueError` if there is none or one is below 1."""
        object.__setattr__(self, "sizes", checked_sizes(self.sizes, "sizes"))

    def infer(self, x: Spec) -> tuple[Spec, ...]:
        """Return the spec of every part."""
        axis = normal_axis(self.axis, x.rank, "Split")
        require(
            sum(self.sizes) == x.shape[axis],
            f"Split: parts {self.sizes} do not add up to axis {self.axis} of "
            f"{shape_text(x.shape)}",
        )
        return tuple(
            Spec((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
            for size in self.sizes
        )

    def reference(self, x: Array) -> tuple[Array, ...]:
        """Return the parts."""
        return tuple(np.split(x, np.cumsum(self.sizes)[:-1], axis=self.axis))

    def view(self, x: View) -> tuple[View, ...]:
        """Return the parts of the input."""
        axis = normal_axis(self.axis, x.rank, "Split")
        starts = (0, *itertools.accumulate(self.sizes))
        return tuple(
            x.slice(axis, start, size)
            for start, size in zip(starts, self.sizes, strict=False)
        )

    def lower(
        self, low: Lowering, out: View | tuple[View, ...], x: View | Array
    ) -> list[Step]:
        """Return a copy for each part."""
        outs = out if isinstance(out, tuple) else (out,)
        parts = self.view(as_view(low, x))
        return [
            copy_step(low, place, part, together=index < len(outs) - 1)
            for index, (place, part) in enumerate(zip(outs, parts, strict=True))
        ]
