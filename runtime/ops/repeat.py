"""Repeating a tensor."""

from __future__ import annotations

import numpy as np

from ..errors import ShapeError
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, require
from .identity import copy_step


@record
class Tile(Op):
    """Repeat a tensor along its axes: (2, 3) repeated (1, 2) times is (2, 6).

    Parameters
    ----------
    repeats : tuple of int
        How often, for each axis.
    """

    repeats: Shape

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` unless it holds whole numbers >= 1."""
        object.__setattr__(self, "repeats", _sizes(self.repeats, "repeats"))

    def infer(self, x: Spec) -> Spec:
        """Return the sizes times the repeats."""
        require(
            len(self.repeats) == x.rank,
            f"Tile: repeats {self.repeats} for an input of shape {shape_text(x.shape)}",
        )
        shape = tuple(n * r for n, r in zip(x.shape, self.repeats, strict=True))
        return Spec(shape, x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the repeated array."""
        return np.tile(x, self.repeats)

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return copies: the tensor once, then axis after axis what is there."""
        source = as_view(low, x)
        steps = []
        done = out
        for axis, n in enumerate(source.shape):
            done = done.slice(axis, 0, n)
        steps.append(copy_step(low, done, source))
        for axis in reversed(range(out.rank)):
            times = self.repeats[axis] - 1
            n, stride = source.shape[axis], out.strides[axis]
            if times:
                place = done.slice(axis, n, n)
                copies = _with_lead(place, times, n * stride)
                steps.append(copy_step(low, copies, _with_lead(done, times, 0)))
            done = done.slice(axis, 0, out.shape[axis])
        return steps


@record
class Expand(Op):
    """Stretch a tensor to a shape, by NumPy's broadcasting.

    Parameters
    ----------
    shape : tuple of int
        Aligned with the tensor at the last axes; a size of 1 keeps that of the tensor.
    """

    shape: Shape

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` unless it holds whole numbers >= 1."""
        object.__setattr__(self, "shape", _sizes(self.shape, "shape"))

    def infer(self, x: Spec) -> Spec:
        """Return the stretched shape."""
        try:
            return Spec(np.broadcast_shapes(x.shape, self.shape), x.dtype)
        except ValueError:
            raise ShapeError(
                f"Expand: {shape_text(x.shape)} does not stretch to "
                f"{shape_text(self.shape)}"
            ) from None

    def reference(self, x: Array) -> Array:
        """Return the stretched array."""
        return np.broadcast_to(x, np.broadcast_shapes(x.shape, self.shape))

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a copy."""
        return [copy_step(low, out, as_view(low, x).broadcast(out.shape))]


def _sizes(values: Shape, name: str) -> Shape:
    """Return a tuple; raise `ValueError` unless it holds whole numbers >= 1."""
    sizes = tuple(values)
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise ValueError(f"{name} {sizes}, wanted whole numbers of at least 1")
    return sizes


def _with_lead(view: View, n: int, stride: int) -> View:
    """Return a view with an axis more in front."""
    return View(
        view.buffer,
        (n, *view.shape),
        (stride, *view.strides),
        view.offset,
        view.dtype,
    )
