"""Reordering axes."""

from __future__ import annotations

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, require
from .identity import copy_step


@record
class Transpose(Op):
    """Reorder the axes: axis i of the output is axis ``axes[i]`` of the input.

    Parameters
    ----------
    axes : tuple of int
        Every axis once.
    """

    axes: Shape

    def __post_init__(self) -> None:
        """Check the axes; raise `ValueError` unless each is there once."""
        axes = tuple(self.axes)
        if sorted(axes) != list(range(len(axes))):
            raise ValueError(f"axes {axes}, wanted every axis once")
        object.__setattr__(self, "axes", axes)

    def infer(self, x: Spec) -> Spec:
        """Return the reordered shape."""
        require(
            len(self.axes) == x.rank,
            f"Transpose: axes {self.axes} do not fit the input {shape_text(x.shape)}",
        )
        return Spec(tuple(x.shape[axis] for axis in self.axes), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the transposed array."""
        return np.transpose(x, self.axes)

    def changes_nothing(self, x: Spec) -> bool:
        """Return whether the axes stay in order."""
        return list(self.axes) == sorted(self.axes)

    def view(self, x: View) -> View | None:
        """Return the input transposed, or None if its last axis would not be dense."""
        view = x.transpose(self.axes)
        return view if view.rank == 0 or view.strides[-1] == 1 else None

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a copy."""
        return [copy_step(low, out, as_view(low, x).transpose(self.axes))]
