"""Taking a part of a tensor."""

from __future__ import annotations

from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, checked_fields, normal_axis, require
from .identity import copy_step


@record
class Slice(Op):
    """Take every step-th position from start up to stop, as Python's slices do.

    Parameters
    ----------
    starts, stops : tuple of int
        For each axis in `axes`; counted from the end if negative, and limited to the
        axis, so that any number below minus its size stands for "before the first".
    axes : tuple of int
        From the back if negative.
    steps : tuple of int
        Not zero; a negative one goes backwards. All ones if left out.
    """

    starts: Shape
    stops: Shape
    axes: Shape
    steps: Shape = ()

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` if they do not fit together."""
        checked_fields(self, several=("starts", "stops", "axes", "steps"))
        if not self.steps:
            object.__setattr__(self, "steps", (1,) * len(self.axes))
        lengths = {len(f) for f in (self.starts, self.stops, self.axes, self.steps)}
        if len(lengths) != 1:
            raise ValueError(
                f"starts {self.starts}, stops {self.stops}, axes {self.axes} and steps "
                f"{self.steps} are not of one length"
            )
        if 0 in self.steps:
            raise ValueError(f"steps {self.steps}: a step of 0 goes nowhere")

    def infer(self, x: Spec) -> Spec:
        """Return the shape of the part."""
        shape = list(x.shape)
        for axis, part in self._ranges(x.shape).items():
            require(
                len(part) > 0,
                f"Slice {part.start}:{part.stop}:{part.step} of axis {axis} of "
                f"{shape_text(x.shape)} is empty",
            )
            shape[axis] = len(part)
        return Spec(tuple(shape), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the part."""
        parts = [slice(None)] * x.ndim
        for start, stop, axis, step in zip(
            self.starts, self.stops, self.axes, self.steps, strict=True
        ):
            parts[axis] = slice(start, stop, step)
        return x[tuple(parts)]

    def view(self, x: View) -> View | None:
        """Return the part, or None if it runs backwards or thins out the last axis."""
        view = self._part(x)
        last = view.rank - 1
        if min(self.steps, default=1) < 0 or (last >= 0 and view.strides[last] != 1):
            return None
        return view

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a copy."""
        return [copy_step(low, out, self._part(as_view(low, x)))]

    def _part(self, x: View) -> View:
        for axis, part in self._ranges(x.shape).items():
            if part != range(x.shape[axis]):
                x = x.slice(axis, part.start, len(part), part.step)
        return x

    def _ranges(self, shape: Shape) -> dict[int, range]:
        """Return the positions taken from each axis that is cut."""
        ranges: dict[int, range] = {}
        for start, stop, where, step in zip(
            self.starts, self.stops, self.axes, self.steps, strict=True
        ):
            axis = normal_axis(where, len(shape), "Slice")
            require(axis not in ranges, f"Slice: axis {axis} is given twice")
            ranges[axis] = range(*slice(start, stop, step).indices(shape[axis]))
        return ranges
