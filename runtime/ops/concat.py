"""Joining tensors."""

from __future__ import annotations

import numpy as np

from ..record import record
from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from .base import NOTHING, Epilogue, Lowering, Op, normal_axis, require
from .identity import copy_step, in_place


@record
class Concat(Op):
    """Join tensors along an axis; their other sizes are equal.

    Parameters
    ----------
    axis : int
        From the back if negative.
    """

    axis: int = -1

    def infer(self, *xs: Spec) -> Spec:
        """Return the shape with the sizes along the axis added up."""
        require(bool(xs), "Concat: there is nothing to join")
        first = xs[0]
        axis = normal_axis(self.axis, first.rank, "Concat")
        for x in xs:
            require(
                x.dtype == first.dtype
                and x.rank == first.rank
                and x.shape[:axis] == first.shape[:axis]
                and x.shape[axis + 1 :] == first.shape[axis + 1 :],
                f"Concat along axis {self.axis}: {x} does not fit {first}; found "
                + ", ".join(shape_text(each.shape) for each in xs),
            )
        total = sum(x.shape[axis] for x in xs)
        return Spec((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)

    def reference(self, *xs: Array) -> Array:
        """Return the joined array."""
        return np.concatenate(xs, axis=self.axis)

    def views_into(self, out: View, *inputs: Spec) -> tuple[View, ...]:
        """Return each input's slice of `out`."""
        axis = normal_axis(self.axis, out.rank, "Concat")
        views = []
        start = 0
        for x in inputs:
            views.append(out.slice(axis, start, x.shape[axis]))
            start += x.shape[axis]
        return tuple(views)

    def lower(
        self, low: Lowering, out: View, *xs: View, epilogue: Epilogue = NOTHING
    ) -> list[Step]:
        """Return a copy for each input that was not written into `out`."""
        places = self.views_into(out, *(x.spec for x in xs))
        pairs = [
            (place, x)
            for place, x in zip(places, xs, strict=True)
            if not in_place(place, x)
        ]
        return [
            copy_step(low, place, x, together=index < len(pairs) - 1)
            for index, (place, x) in enumerate(pairs)
        ]
