"""Pooling in boxes that follow from the output's size, or are given."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, Literal

from ..algorithms.boxes import Boxes, box_pool, reduce_boxes
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import checked_sizes
from .base import Lowering, Op, per_axis, require, require_float32, require_image


@record
class _AdaptivePool(Op, abstract=True):
    """What adaptive pooling of either kind shares: the boxes."""

    output_size: Shape

    kind: ClassVar[Literal["average", "max"]]

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        sizes = checked_sizes(self.output_size, "output_size")
        object.__setattr__(self, "output_size", sizes)

    def infer(self, x: Spec) -> Spec:
        """Return (N, output size..., C)."""
        require_image(type(self).__name__, x)
        require_float32(type(self).__name__, x)
        sizes = per_axis(self.output_size, x.rank - 2, "output_size")
        return Spec((x.shape[0], *sizes, x.shape[-1]), x.dtype)

    def boxes(self, spatial: Shape) -> Boxes:
        """Return the boxes over an input of that size; neighbours may overlap."""
        sizes = per_axis(self.output_size, len(spatial), "output_size")
        return [
            [(i * n // m, -(-(i + 1) * n // m) - i * n // m) for i in range(m)]
            for n, m in zip(spatial, sizes, strict=True)
        ]

    def reference(self, x: Array) -> Array:
        """Return the mean or the largest value of every box."""
        ones = (1,) * (x.ndim - 2)
        function = _mean if self.kind == "average" else _largest
        return reduce_boxes(x, self.boxes(x.shape[1:-1]), ones, function)

    def lower(self, low: Lowering, out: View, x: View) -> list[Step]:
        """Return the kernel."""
        ones = (1,) * (x.rank - 2)
        boxes = self.boxes(x.shape[1:-1])
        name = f"adaptive {self.kind}"
        return [box_pool(low, out, x, boxes, ones, self.kind, name)]


class AdaptiveAveragePool(_AdaptivePool):
    """Average boxes that share out the image: (N, spatial..., C) to (N, sizes..., C).

    Along an axis of n positions box i of m holds positions ``floor(i n / m)`` to
    ``ceil((i + 1) n / m) - 1``.

    Parameters
    ----------
    output_size : tuple of int
        Boxes along each spatial axis; one number serves all.
    """

    kind: ClassVar[Literal["average", "max"]] = "average"


class AdaptiveMaxPool(_AdaptivePool):
    """Take the largest of boxes that share out the image, as `AdaptiveAveragePool`.

    Parameters
    ----------
    output_size : tuple of int
        Boxes along each spatial axis; one number serves all.
    """

    kind: ClassVar[Literal["average", "max"]] = "max"


@record
class FractionalMaxPool(Op):
    """Take the largest of given boxes: (N, spatial..., C) to (N, boxes..., C).

    With boxes of one and two positions, drawn by lot, it shrinks images by a factor
    between one and two.

    Parameters
    ----------
    boundaries : tuple of tuple of int
        For each spatial axis where the boxes begin, then where the last one ends.
    overlapping : bool
        Whether a box also holds the first position of the next one.

    References
    ----------
    B. Graham, Fractional max-pooling, 2014.
    """

    boundaries: tuple[Shape, ...]
    overlapping: bool = False

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        axes = tuple(checked_sizes(axis, "boundaries", 0) for axis in self.boundaries)
        for axis in axes:
            if len(axis) < 2 or any(a >= b for a, b in pairwise(axis)):
                raise ValueError(
                    f"boundaries {axis}, wanted two or more numbers that rise"
                )
        object.__setattr__(self, "boundaries", axes)
        if not isinstance(self.overlapping, bool):
            raise ValueError(f"overlapping {self.overlapping!r}, wanted a bool")

    def infer(self, x: Spec) -> Spec:
        """Return (N, boxes along each axis..., C)."""
        require_image("FractionalMaxPool", x)
        require_float32("FractionalMaxPool", x)
        require(
            len(self.boundaries) == x.rank - 2
            and all(
                b[-1] <= n for b, n in zip(self.boundaries, x.spatial, strict=True)
            ),
            f"FractionalMaxPool: boundaries {self.boundaries} do not fit the input "
            f"{shape_text(x.shape)}",
        )
        counts = (len(axis) - 1 for axis in self.boundaries)
        return Spec((x.shape[0], *counts, x.shape[-1]), x.dtype)

    def reference(self, x: Array) -> Array:
        """Return the largest value of every box."""
        ones = (1,) * (x.ndim - 2)
        return reduce_boxes(x, self._boxes(), ones, _largest)

    def lower(self, low: Lowering, out: View, x: View) -> list[Step]:
        """Return the kernel."""
        ones = (1,) * (x.rank - 2)
        return [box_pool(low, out, x, self._boxes(), ones, "max", "fractional max")]

    def _boxes(self) -> Boxes:
        return [
            [(a, min(b + self.overlapping, axis[-1]) - a) for a, b in pairwise(axis)]
            for axis in self.boundaries
        ]


def _mean(box: Array) -> Any:
    return box.mean(axis=tuple(range(1, box.ndim - 1)))


def _largest(box: Array) -> Any:
    return box.max(axis=tuple(range(1, box.ndim - 1)))
