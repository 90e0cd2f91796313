"""Making a tensor larger at its ends."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ..record import record
from ..spec import Array, Spec, shape_text
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, finite_fields, require
from .identity import copy_step, in_place


@record
class Pad(Op):
    """Add positions before and after every axis.

    Parameters
    ----------
    padding : tuple of (int, int)
        How many before and after each axis.
    mode : str
        What they hold, as for `numpy.pad`: ``"constant"`` the value; ``"edge"`` the
        outermost element; ``"reflect"`` the tensor mirrored at its outermost element,
        which is not repeated; ``"wrap"`` the tensor again.
    value : float
        For ``"constant"``; converted to the type of the tensor.
    """

    padding: tuple[tuple[int, int], ...]
    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant"
    value: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        pairs = tuple(tuple(pair) for pair in self.padding)
        for pair in pairs:
            if len(pair) != 2 or not all(
                isinstance(p, int) and not isinstance(p, bool) and p >= 0 for p in pair
            ):
                raise ValueError(f"padding {pair}, wanted (before, after) >= 0")
        object.__setattr__(self, "padding", pairs)
        if self.mode not in ("constant", "reflect", "edge", "wrap"):
            raise ValueError(
                f"mode {self.mode!r}, wanted 'constant', 'reflect', 'edge' or 'wrap'"
            )
        finite_fields(self, "value")

    def infer(self, x: Spec) -> Spec:
        """Return the shape with before and after added to every axis."""
        require(
            len(self.padding) == x.rank,
            f"Pad: padding for {len(self.padding)} axes, the input has the shape "
            f"{shape_text(x.shape)}",
        )
        for n, (before, after) in zip(x.shape, self.padding, strict=True):
            most = {"reflect": n - 1, "wrap": n}.get(self.mode)
            require(
                most is None or max(before, after) <= most,
                f"Pad: ({before}, {after}) is more than {self.mode} can take from an "
                f"axis of {n} in {shape_text(x.shape)}",
            )
        return Spec(
            tuple(n + b + a for n, (b, a) in zip(x.shape, self.padding, strict=True)),
            x.dtype,
        )

    def reference(self, x: Array) -> Array:
        """Return the padded array."""
        options: dict[str, Any] = (
            {"constant_values": self.value} if self.mode == "constant" else {}
        )
        return np.pad(x, self.padding, mode=self.mode, **options)

    def views_into(self, out: View, *inputs: Spec) -> tuple[View, ...]:
        """Return the inside of `out`."""
        return (self._inside(out, out.rank),)

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return a copy of the inside, then the border.

        Other borders than constants are made axis after axis out of what is there, so
        that corners come right.
        """
        source = as_view(low, x)
        inside = self._inside(out, out.rank)
        steps = [] if in_place(inside, source) else [copy_step(low, inside, source)]
        if self.mode == "constant" and out.dtype == "float32":
            border = low.load("copy").border(
                inside.shape, inside.strides, self.padding, self.value
            )
            return [*steps, Step(border, (inside,), "border")]
        value = as_view(low, np.array(self.value).astype(out.dtype))
        for axis in range(out.rank):
            done = self._inside(out, out.rank, axis)
            for place, origin in self._borders(done, axis):
                constant = self.mode == "constant"
                steps.append(
                    copy_step(
                        low, place, value.broadcast(place.shape) if constant else origin
                    )
                )
        return steps

    def _inside(self, out: View, rank: int, first: int = 0) -> View:
        """Return `out` without the padding of the axes from `first` on."""
        for axis in range(first, rank):
            before, after = self.padding[axis]
            out = out.slice(axis, before, out.shape[axis] - before - after)
        return out

    def _borders(self, done: View, axis: int) -> list[tuple[View, View]]:
        """Return each border along an axis of `done`, and what it repeats."""
        before, after = self.padding[axis]
        n = done.shape[axis]
        end = before + n
        borders = []
        for first, count in ((0, before), (end, after)):
            if not count:
                continue
            place = done.slice(axis, first - before, count)
            if self.mode == "edge":
                origin = done.slice(axis, 0 if first == 0 else n - 1, 1)
                origin = origin.broadcast(place.shape)
            elif self.mode == "wrap":
                origin = done.slice(axis, n - count if first == 0 else 0, count)
            else:
                start = before if first == 0 else n - 2
                origin = done.slice(axis, start, count, -1)
            borders.append((place, origin))
        return borders
