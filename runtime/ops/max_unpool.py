"""Max pooling that remembers where the largest values were, and its inverse."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..algorithms.boxes import Boxes, box_table, sliding_boxes, three
from ..errors import DTypeError
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import checked_sizes
from .base import (
    Lowering,
    Op,
    as_view,
    per_axis,
    require,
    require_float32,
    require_image,
)
from .pool import SlidingPool, all_see_input

Order = Literal["channels_last", "channels_first", "channels_first_columns"]


@record
class MaxPoolIndices(SlidingPool):
    """Take the largest value of each window and its index.

    (N, spatial..., C) to two tensors of the shape (N, windows along each axis..., C),
    the values and, as int64, their places.

    Parameters
    ----------
    kernel, stride, dilation : tuple of int
        For each spatial axis; one number serves all.
    padding : str or tuple of (int, int)
        What lies outside the input is never the largest.
    ceil_mode : bool
        Whether a last window that is only partly inside counts.
    index_order : str
        How an index counts the elements of the input: ``"channels_last"`` as they lie,
        (N, spatial..., C); ``"channels_first"`` as (N, C, spatial...);
        ``"channels_first_columns"`` so, but with the first spatial axis running
        fastest.

    Notes
    -----
    Of equal values the first of a window counts, and of NaN the first.
    """

    index_order: Order = "channels_last"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        super().__post_init__()
        orders = ("channels_last", "channels_first", "channels_first_columns")
        _check_order(self.index_order, orders)

    def infer(self, x: Spec) -> tuple[Spec, Spec]:
        """Return (N, windows along each axis..., C), twice."""
        require_image("MaxPoolIndices", x)
        require_float32("MaxPoolIndices", x)
        shape = self.pooled(x)
        require(
            all_see_input(self.window(x), x.spatial, shape[1:-1]),
            f"MaxPoolIndices: the padding {self.padding} leaves a window with "
            f"nothing of the input {shape_text(x.shape)} inside",
        )
        return Spec(shape), Spec(shape, "int64")

    def reference(self, x: Array) -> tuple[Array, Array]:
        """Return the largest value of each window and its index."""
        spec = Spec(x.shape)
        boxes, dilation = self._boxes(spec), self.window(spec).dilation
        number = _numbers(x.shape, self.index_order)
        shape = self.infer(spec)[0].shape
        y, z = np.empty(shape, x.dtype), np.empty(shape, np.int64)
        for at in np.ndindex(shape[1:-1]):
            where = [
                slice(axis[i][0], axis[i][0] + d * axis[i][1], d)
                for axis, i, d in zip(boxes, at, dilation, strict=True)
            ]
            index, place = (slice(None), *where), (slice(None), *at)
            box = x[index].reshape(x.shape[0], -1, x.shape[-1])
            best = box.argmax(axis=1)[:, None]
            y[place] = np.take_along_axis(box, best, 1)[:, 0]
            z[place] = np.take_along_axis(number[index].reshape(box.shape), best, 1)[
                :, 0
            ]
        return y, z

    def lower(self, low: Lowering, out: tuple[View, View], x: View) -> list[Step]:
        """Return the kernel."""
        values, indices = out
        steps, image, position, channel = _distances(x.shape, self.index_order)
        kernel = low.load("box_pool").pool_with_indices(
            x.shape[0],
            x.shape[-1],
            three(values.shape[1:-1], 1),
            three(self.window(x.spec).dilation, 1),
            (x.strides[0], *three(x.strides[1:-1], 0)),
            (values.strides[0], *three(values.strides[1:-1], 0)),
            (indices.strides[0], *three(indices.strides[1:-1], 0)),
            three(steps, 0),
            image,
            position,
            channel,
        )
        table = low.constant(box_table(self._boxes(x.spec)))
        size = "x".join(map(str, self.window(x.spec).kernel))
        return [Step(kernel, (values, indices, x, table), f"max {size}, indices")]

    def _boxes(self, x: Spec) -> Boxes:
        return sliding_boxes(self.window(x), x.spatial, self.pooled(x)[1:-1])


@record
class MaxUnpool(Op):
    """Put values where indices say, zeros elsewhere: the inverse of `MaxPoolIndices`.

    (N, spatial..., C) values and int64 indices of the same shape to
    (N, output size..., C).

    Parameters
    ----------
    output_size : tuple of int
        The spatial size of the result, which is what the indices count in.
    index_order : str
        ``"channels_last"`` or ``"channels_first"``, as for `MaxPoolIndices`.

    Notes
    -----
    Of several values for one place the last is kept. Indices outside the result are
    passed over.
    """

    output_size: Shape
    index_order: Order = "channels_last"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        sizes = checked_sizes(self.output_size, "output_size")
        object.__setattr__(self, "output_size", sizes)
        _check_order(self.index_order, ("channels_last", "channels_first"))

    def infer(self, x: Spec, indices: Spec) -> Spec:
        """Return (N, output size..., C)."""
        require_image("MaxUnpool", x)
        require_float32("MaxUnpool", x)
        require(
            indices.shape == x.shape,
            f"MaxUnpool: indices {shape_text(indices.shape)} for values "
            f"{shape_text(x.shape)}; wanted the same shape",
        )
        if indices.dtype != "int64":
            raise DTypeError(f"MaxUnpool: indices of {indices.dtype}, wanted int64")
        sizes = per_axis(self.output_size, x.rank - 2, "output_size")
        return Spec((x.shape[0], *sizes, x.shape[-1]), x.dtype)

    def reference(self, x: Array, indices: Array) -> Array:
        """Return zeros with the values at the indices."""
        shape = self.infer(Spec(x.shape), Spec(indices.shape, "int64")).shape
        order = np.argsort(_numbers(shape, self.index_order).reshape(-1))
        y = np.zeros(shape, x.dtype)
        inside = (indices >= 0) & (indices < y.size)
        y.reshape(-1)[order[indices[inside]]] = x[inside]
        return y

    def lower(
        self, low: Lowering, out: View, x: View | Array, indices: View | Array
    ) -> list[Step]:
        """Return the kernel."""
        values, places = as_view(low, x), as_view(low, indices)
        kernel = low.load("unpool").unpool(
            (values.shape[0], *three(values.shape[1:-1], 1)),
            (out.shape[0], *three(out.shape[1:-1], 1)),
            out.shape[-1],
            (values.strides[0], *three(values.strides[1:-1], 0)),
            (places.strides[0], *three(places.strides[1:-1], 0)),
            (out.strides[0], *three(out.strides[1:-1], 0)),
            self.index_order == "channels_first",
        )
        return [Step(kernel, (out, values, places), "unpool")]


def _check_order(order: str, orders: tuple[str, ...]) -> None:
    if order not in orders:
        raise ValueError(f"index_order {order!r}, wanted one of {orders}")


def _distances(shape: Shape, order: str) -> tuple[Shape, int, int, int]:
    """Return what steps along each axis add to the number of a position.

    Then what an image, a position and a channel add to an index.
    """
    spatial, channels = shape[1:-1], shape[-1]
    positions = int(np.prod(spatial))
    falling = [int(np.prod(spatial[axis + 1 :])) for axis in range(len(spatial))]
    rising = [int(np.prod(spatial[:axis])) for axis in range(len(spatial))]
    steps = tuple(rising if order == "channels_first_columns" else falling)
    if order == "channels_last":
        return steps, positions * channels, channels, 1
    return steps, positions * channels, 1, positions


def _numbers(shape: Shape, order: str) -> Array:
    """Return every element's index."""
    steps, image, position, channel = _distances(shape, order)
    weights = [image, *(position * step for step in steps), channel]
    grid = np.indices(shape)
    numbers: Array = sum(w * g for w, g in zip(weights, grid, strict=True))
    return numbers
