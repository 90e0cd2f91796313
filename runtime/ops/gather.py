"""Reading elements at places that a tensor of indices gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, checked_fields, normal_axis, require
from .binary import common_dtype
from .cast import as_int64


@record
class _Along(Op, abstract=True):
    """What reads along one axis."""

    axis: int = 0

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` unless it is a whole number."""
        checked_fields(self, ("axis",))


class Gather(_Along):
    """Take slices across an axis, where indices say.

    Operands: `x`; `indices`, int32 or int64. In the result the axes of `indices` stand
    in place of the axis. An index counts from the end if negative; one that is outside
    is taken as the nearest inside.

    Parameters
    ----------
    axis : int
        From the back if negative.
    """

    def infer(self, x: Spec, indices: Spec) -> Spec:
        """Return the shape with the axis replaced by those of the indices."""
        require_indices("Gather", indices)
        axis = normal_axis(self.axis, x.rank, "Gather")
        return Spec((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)

    def reference(self, x: Array, indices: Array) -> Array:
        """Return the slices."""
        y: Array = np.take(x, inside(indices, x.shape[self.axis]), self.axis)
        return y

    def lower(
        self, low: Lowering, out: View, x: View | Array, indices: View | Array
    ) -> list[Step]:
        """Return the kernel."""
        source = as_view(low, x)
        index, steps = as_int64(low, indices)
        axis = normal_axis(self.axis, source.rank, "Gather")
        before, after = source.strides[:axis], source.strides[axis + 1 :]
        kernel = low.load("gather").gather(
            out.itemsize,
            out.shape,
            (
                out.strides,
                (*before, *(0,) * index.rank, *after),
                (*(0,) * len(before), *index.strides, *(0,) * len(after)),
            ),
            (source.shape[axis],),
            (source.strides[axis],),
        )
        return [*steps, Step(kernel, (out, source, index), "gather")]


class GatherElements(_Along):
    """Take one element for each index, at its own place but along an axis.

    Operands: `x`; `indices`, int32 or int64, of as many axes, no longer than those of x
    except along `axis`. The result has their shape. Indices are read as by `Gather`.

    Parameters
    ----------
    axis : int
        From the back if negative.
    """

    def infer(self, x: Spec, indices: Spec) -> Spec:
        """Return the shape of the indices."""
        require_indices("GatherElements", indices)
        require_beside("GatherElements", self.axis, x, indices)
        return Spec(indices.shape, x.dtype)

    def reference(self, x: Array, indices: Array) -> Array:
        """Return the elements."""
        at = beside(indices.shape, self.axis, inside(indices, x.shape[self.axis]))
        y: Array = x[at]
        return y

    def lower(
        self, low: Lowering, out: View, x: View | Array, indices: View | Array
    ) -> list[Step]:
        """Return the kernel."""
        source = as_view(low, x)
        index, steps = as_int64(low, indices)
        axis = normal_axis(self.axis, source.rank, "GatherElements")
        others = tuple(0 if a == axis else s for a, s in enumerate(source.strides))
        kernel = low.load("gather").gather(
            out.itemsize,
            out.shape,
            (out.strides, others, index.strides),
            (source.shape[axis],),
            (source.strides[axis],),
        )
        return [*steps, Step(kernel, (out, source, index), "gather")]


@record
class GatherND(Op):
    """Take slices where tuples of indices say.

    Operands: `x`; `indices`, int32 or int64, whose last axis holds tuples of indices
    along the first axes of x after the batch axes. Indices are read as by `Gather`.

    Parameters
    ----------
    batch_dims : int
        How many leading axes the two share.
    """

    batch_dims: int = 0

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("batch_dims",))
        if self.batch_dims < 0:
            raise ValueError(f"batch_dims {self.batch_dims}, wanted at least 0")

    def infer(self, x: Spec, indices: Spec) -> Spec:
        """Return the axes of the indices but the last, then those of a slice."""
        require_indices("GatherND", indices)
        b = self.batch_dims
        require(
            indices.rank > b
            and x.shape[:b] == indices.shape[:b]
            and x.rank >= b + indices.shape[-1],
            f"GatherND with {b} batch axes: indices {shape_text(indices.shape)} do not "
            f"fit the input {shape_text(x.shape)}",
        )
        depth = b + indices.shape[-1]
        return Spec((*indices.shape[:-1], *x.shape[depth:]), x.dtype)

    def reference(self, x: Array, indices: Array) -> Array:
        """Return the slices."""
        b = self.batch_dims
        tuples = indices.shape[-1]
        positions = np.indices(indices.shape[:-1], sparse=True)[:b]
        found = [inside(indices[..., j], x.shape[b + j]) for j in range(tuples)]
        at: Any = (*positions, *found)
        y: Array = (
            np.broadcast_to(x, (*indices.shape[:-1], *x.shape)) if not at else x[at]
        )
        return y

    def lower(
        self, low: Lowering, out: View, x: View | Array, indices: View | Array
    ) -> list[Step]:
        """Return the kernel."""
        source = as_view(low, x)
        index, steps = as_int64(low, indices)
        b, tuples = self.batch_dims, index.shape[-1]
        free = index.rank - 1 - b
        rest = source.strides[b + tuples :]
        kernel = low.load("gather").gather(
            out.itemsize,
            out.shape,
            (
                out.strides,
                (*source.strides[:b], *(0,) * free, *rest),
                (*index.strides[:-1], *(0,) * len(rest)),
            ),
            source.shape[b : b + tuples],
            source.strides[b : b + tuples],
            index.strides[-1],
        )
        return [*steps, Step(kernel, (out, source, index), "gather")]


def require_indices(name: str, indices: Spec) -> None:
    """Raise `DTypeError` unless indices are int32 or int64."""
    common_dtype(f"{name}'s indices", ("int32", "int64"), indices)


def require_beside(name: str, axis: int, x: Spec, indices: Spec) -> None:
    """Raise `ShapeError` unless indices fit the tensor, except along an axis."""
    fits = x.rank == indices.rank > 0
    if fits:
        along = normal_axis(axis, x.rank, name)
        pairs = zip(indices.shape, x.shape, strict=True)
        fits = all(m <= n or a == along for a, (m, n) in enumerate(pairs))
    require(
        fits,
        f"{name} along axis {axis}: indices {shape_text(indices.shape)} do not fit the "
        f"input {shape_text(x.shape)}",
    )


def inside(indices: Array, size: int) -> Array:
    """Return indices counted from the front, those outside as the nearest inside."""
    y: Array = np.clip(np.where(indices < 0, indices + size, indices), 0, size - 1)
    return y


def beside(shape: Shape, axis: int, indices: Array) -> Any:
    """Return a NumPy index of each place in `shape`, along `axis` the index there."""
    places: list[Any] = list(np.indices(shape, sparse=True))
    places[axis] = indices
    return tuple(places)
