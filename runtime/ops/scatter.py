"""Writing elements to places that a tensor of indices gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, checked_fields, normal_axis, require
from .binary import NUMBERS, common_dtype
from .cast import as_int64
from .gather import require_beside, require_indices
from .identity import copy_step

How = Literal["none", "add", "mul", "max", "min"]

UPDATE: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda _, update: update,
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


@record
class ScatterElements(Op):
    """Write one element for each index, at its own place but along an axis.

    Operands: `x`; `indices`, int32 or int64; `updates` of the shape of the indices and
    the type of x. The result is x with the updates, made in order. An index counts from
    the end if negative; updates at one that is outside are skipped.

    Parameters
    ----------
    axis : int
        From the back if negative.
    reduction : str
        ``"none"``: an update replaces the element; ``"add"``, ``"mul"``, ``"max"`` or
        ``"min"``: it is combined with it.
    """

    axis: int = 0
    reduction: How = "none"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("axis",))
        _checked_reduction(self.reduction)

    def infer(self, x: Spec, indices: Spec, updates: Spec) -> Spec:
        """Return the input's spec."""
        require_indices("ScatterElements", indices)
        common_dtype("ScatterElements", (*NUMBERS, "bool"), x, updates)
        require_beside("ScatterElements", self.axis, x, indices)
        require(
            updates.shape == indices.shape,
            f"ScatterElements: updates {shape_text(updates.shape)}, wanted "
            f"{shape_text(indices.shape)} as the indices",
        )
        return x

    def reference(self, x: Array, indices: Array, updates: Array) -> Array:
        """Return x with one update after the other."""
        y: Array = x.copy()
        axis = self.axis % x.ndim
        for place in np.ndindex(indices.shape):
            index = int(indices[place])
            at = (*place[:axis], index, *place[axis + 1 :])
            if -x.shape[axis] <= index < x.shape[axis]:
                y[at] = UPDATE[self.reduction](y[at], updates[place])
        return y

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        indices: View | Array,
        updates: View | Array,
    ) -> list[Step]:
        """Return a copy and the kernel; lines run along the axis."""
        index, steps = as_int64(low, indices)
        new = as_view(low, updates)
        axis = normal_axis(self.axis, out.rank, "ScatterElements")

        def others(values: tuple[int, ...]) -> tuple[int, ...]:
            return values[:axis] + values[axis + 1 :]

        kernel = low.load("gather").scatter(
            self.reduction,
            out.dtype,
            others(index.shape),
            (others(out.strides), others(new.strides), others(index.strides)),
            (index.shape[axis],),
            ((new.strides[axis],), (index.strides[axis],)),
            (out.shape[axis],),
            (out.strides[axis],),
        )
        return [
            *steps,
            copy_step(low, out, as_view(low, x)),
            Step(kernel, (out, new, index), "scatter"),
        ]


@record
class ScatterND(Op):
    """Write slices where tuples of indices say.

    Operands: `x`; `indices`, int32 or int64, whose last axis holds tuples of indices
    along the first axes of x; `updates` of the type of x, with the other axes of the
    indices and then those of a slice. The result is x with the updates, made in order.
    Indices are read as by `ScatterElements`.

    Parameters
    ----------
    reduction : str
        As for `ScatterElements`.
    """

    reduction: How = "none"

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` on one that makes no sense."""
        _checked_reduction(self.reduction)

    def infer(self, x: Spec, indices: Spec, updates: Spec) -> Spec:
        """Return the input's spec."""
        require_indices("ScatterND", indices)
        common_dtype("ScatterND", (*NUMBERS, "bool"), x, updates)
        require(
            indices.rank > 0 and indices.shape[-1] <= x.rank,
            f"ScatterND: indices {shape_text(indices.shape)} do not fit the input "
            f"{shape_text(x.shape)}",
        )
        wanted = (*indices.shape[:-1], *x.shape[indices.shape[-1] :])
        require(
            updates.shape == wanted,
            f"ScatterND: updates {shape_text(updates.shape)}, wanted "
            f"{shape_text(wanted)} for the indices {shape_text(indices.shape)}",
        )
        return x

    def reference(self, x: Array, indices: Array, updates: Array) -> Array:
        """Return x with one update after the other."""
        y: Array = x.copy()
        for place in np.ndindex(indices.shape[:-1]):
            at = tuple(int(i) for i in indices[place])
            sizes = x.shape[: len(at)]
            if all(-n <= i < n for i, n in zip(at, sizes, strict=True)):
                y[at] = UPDATE[self.reduction](y[at], updates[place])
        return y

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        indices: View | Array,
        updates: View | Array,
    ) -> list[Step]:
        """Return a copy and the kernel; lines run along the tuples."""
        index, steps = as_int64(low, indices)
        new = as_view(low, updates)
        depth, turns = index.shape[-1], index.rank - 1
        slice_shape: Shape = out.shape[depth:]
        kernel = low.load("gather").scatter(
            self.reduction,
            out.dtype,
            slice_shape,
            (out.strides[depth:], new.strides[turns:], (0,) * len(slice_shape)),
            index.shape[:-1],
            (new.strides[:turns], index.strides[:-1]),
            out.shape[:depth],
            out.strides[:depth],
            index.strides[-1],
        )
        return [
            *steps,
            copy_step(low, out, as_view(low, x)),
            Step(kernel, (out, new, index), "scatter"),
        ]


def _checked_reduction(reduction: str) -> None:
    if reduction not in UPDATE:
        raise ValueError(f"reduction {reduction!r}, wanted one of {', '.join(UPDATE)}")
