"""Making axes a given size by cutting or padding both ends."""

from __future__ import annotations

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec
from ..step import Step
from ..view import View
from ..window import checked_sizes
from .base import Lowering, Op, as_view, checked_fields, normal_axis, require
from .identity import copy_step, in_place


@record
class CenterCropPad(Op):
    """Cut or pad axes to a given size: any shape to the same rank.

    Half of the difference, rounded down, is cut or padded before; the rest after.
    Padding is zeros.

    Parameters
    ----------
    shape : tuple of int
        The size of each of the axes.
    axes : tuple of int
        From the back if negative; empty for every axis.
    """

    shape: Shape
    axes: Shape = ()

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` if they do not fit together."""
        object.__setattr__(self, "shape", checked_sizes(self.shape, "shape"))
        checked_fields(self, several=("axes",))
        if self.axes and len(self.axes) != len(self.shape):
            raise ValueError(f"the sizes {self.shape} do not fit the axes {self.axes}")

    def infer(self, x: Spec) -> Spec:
        """Return the shape with the new sizes."""
        return Spec(self._target(x.shape), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return zeros with the middle of x in their middle."""
        y = np.zeros(self._target(x.shape), x.dtype)
        kept = tuple(min(n, m) for n, m in zip(x.shape, y.shape, strict=True))
        y[_middle(y.shape, kept)] = x[_middle(x.shape, kept)]
        return y

    def view(self, x: View) -> View | None:
        """Return the middle of x, or None if anything is padded."""
        target = self._target(x.shape)
        if any(m > n for n, m in zip(x.shape, target, strict=True)):
            return None
        return _cut(x, target)

    def views_into(self, out: View, *inputs: Spec) -> tuple[View, ...] | None:
        """Return the middle of `out`, or None if anything is cut."""
        if any(m < n for n, m in zip(inputs[0].shape, out.shape, strict=True)):
            return None
        return (_cut(out, inputs[0].shape),)

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a copy of the middle, then of zeros on each side of every axis."""
        source = as_view(low, x)
        kept = tuple(min(n, m) for n, m in zip(source.shape, out.shape, strict=True))
        steps = []
        place, origin = _cut(out, kept), _cut(source, kept)
        if not in_place(place, origin):
            steps.append(copy_step(low, place, origin))
        zero = low.constant(np.zeros((), out.dtype))
        whole = out
        for axis, n in enumerate(kept):
            size = out.shape[axis]
            before = (size - n) // 2
            for first, end in ((0, before), (before + n, size)):
                if first < end:
                    border = whole.slice(axis, first, end - first)
                    steps.append(copy_step(low, border, zero.broadcast(border.shape)))
            whole = whole.slice(axis, before, n)
        return steps

    def _target(self, shape: Shape) -> Shape:
        axes = self.axes or tuple(range(len(shape)))
        require(
            len(axes) == len(self.shape),
            f"CenterCropPad: the sizes {self.shape} do not fit a tensor of rank "
            f"{len(shape)}",
        )
        found = [normal_axis(axis, len(shape), "CenterCropPad") for axis in axes]
        require(len(set(found)) == len(found), f"CenterCropPad: axes {axes} repeat one")
        target = list(shape)
        for axis, size in zip(found, self.shape, strict=True):
            target[axis] = size
        return tuple(target)


def _middle(shape: Shape, kept: Shape) -> tuple[slice, ...]:
    starts = [(n - k) // 2 for n, k in zip(shape, kept, strict=True)]
    return tuple(slice(s, s + k) for s, k in zip(starts, kept, strict=True))


def _cut(view: View, kept: Shape) -> View:
    """Return the middle of a view."""
    for axis, part in enumerate(_middle(view.shape, kept)):
        if part.stop - part.start != view.shape[axis]:
            view = view.slice(axis, part.start, part.stop - part.start)
    return view
