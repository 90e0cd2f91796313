"""Operators whose result's size depends on the values; they run outside the plan."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..record import record
from ..spec import Array, Spec, shape_text
from .base import Op, checked_fields, finite_fields, normal_axis, require
from .binary import common_dtype
from .cast import DTYPES


class NonZero(Op):
    """Find where a tensor is not zero: the indices as int64, a row for each axis.

    How many there are depends on the values, so it is computed by NumPy after the
    planned run, and what depends on it too.
    """

    dynamic: ClassVar[bool] = True

    def open_axes(self) -> tuple[int | None, ...]:
        """Return the axis of the elements."""
        return (1,)

    def infer(self, x: Spec) -> Spec:
        """Return (axes, elements), the most there can be."""
        common_dtype("NonZero", DTYPES, x)
        return Spec((x.rank, x.size), "int64")

    def reference(self, x: Array) -> Array:
        """Return the indices in C order."""
        return np.array(np.nonzero(x), np.int64).reshape(x.ndim, -1)


@record
class Compress(Op):
    """Keep the slices across an axis for which a condition is true.

    Operands: `x`; `condition`, a vector of truth values, no longer than the axis. How
    many slices remain depends on the values, so it is computed by NumPy after the
    planned run, and what depends on it too.

    Parameters
    ----------
    axis : int
        From the back if negative.
    """

    axis: int = 0

    dynamic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` unless it is a whole number."""
        checked_fields(self, ("axis",))

    def open_axes(self) -> tuple[int | None, ...]:
        """Return the axis of the slices."""
        return (self.axis,)

    def infer(self, x: Spec, condition: Spec) -> Spec:
        """Return the shape if every condition is true."""
        axis = normal_axis(self.axis, x.rank, "Compress")
        common_dtype("Compress's condition", ("bool",), condition)
        require(
            condition.rank == 1 and condition.size <= x.shape[axis],
            f"Compress: condition {shape_text(condition.shape)} for axis {self.axis} "
            f"of {shape_text(x.shape)}",
        )
        shape = (*x.shape[:axis], condition.size, *x.shape[axis + 1 :])
        return Spec(shape, x.dtype)

    def reference(self, x: Array, condition: Array) -> Array:
        """Return the slices kept."""
        return np.compress(condition, x, self.axis)


@record
class Unique(Op):
    """Find the different slices across an axis.

    The outputs are: the slices; the index where each comes first; for each slice of the
    input its place among them; how often each comes. The last three are int64. How many
    there are depends on the values, so it is computed by NumPy after the planned run,
    and what depends on it too.

    Parameters
    ----------
    axis : int
        From the back if negative. Single elements are the slices of a tensor with one
        axis.
    sorted : bool
        Whether to sort them; else they stand in the order in which they first come.
    """

    axis: int = 0
    sorted: bool = True

    dynamic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("axis",), ("sorted",))

    def open_axes(self) -> tuple[int | None, ...]:
        """Return the axis of the different slices, which the third output lacks."""
        return (self.axis, 0, None, 0)

    def infer(self, x: Spec) -> tuple[Spec, Spec, Spec, Spec]:
        """Return the specs if all slices are different."""
        common_dtype("Unique", DTYPES, x)
        axis = normal_axis(self.axis, x.rank, "Unique")
        number = Spec((x.shape[axis],), "int64")
        return x, number, number, number

    def reference(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Return slices, first indices, places and counts."""
        y, first, place, counts = np.unique(x, True, True, True, axis=self.axis)
        place = place.reshape(-1)
        if not self.sorted:
            order = np.argsort(first, kind="stable")
            y, first, counts = np.take(y, order, self.axis), first[order], counts[order]
            place = np.argsort(order)[place]
        first, place, counts = (a.astype(np.int64) for a in (first, place, counts))
        return y, first, place, counts


@record
class NonMaxSuppression(Op):
    """Choose boxes of high scores that do not overlap much: (chosen, 3), int64.

    Operands: `boxes` of shape (N, boxes, 4); `scores` of shape (N, classes, boxes). In
    each picture and class the best box is chosen and those that overlap it too much are
    dropped, then the best of the rest, and so on. A row of the result is (picture,
    class, box), pictures and classes in order, boxes best first.

    How many there are depends on the values, so it is computed by NumPy after the
    planned run, and what depends on it too.

    Parameters
    ----------
    max_output : int
        The most boxes to choose in a picture for a class.
    iou_threshold : float
        A box is dropped if the area it shares with a chosen one is more than this part
        of the area the two cover.
    score_threshold : float
        Only boxes of a higher score are chosen; -3.4028234663852886e38 for all.
    center_point_box : bool
        Boxes are (x, y, width, height) around the centre (x, y); else two opposite
        corners (y, x, y, x).
    """

    max_output: int
    iou_threshold: float = 0.0
    score_threshold: float = -3.4028234663852886e38
    center_point_box: bool = False

    dynamic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_fields(self, ("max_output",), ("center_point_box",))
        finite_fields(self, "iou_threshold", "score_threshold")
        if self.max_output < 0:
            raise ValueError(f"max_output {self.max_output}, wanted at least 0")
        if not 0 <= self.iou_threshold <= 1:
            raise ValueError(f"iou_threshold {self.iou_threshold}, wanted 0 to 1")

    def open_axes(self) -> tuple[int | None, ...]:
        """Return the axis of the boxes."""
        return (0,)

    def infer(self, boxes: Spec, scores: Spec) -> Spec:
        """Return (the most boxes there can be, 3)."""
        common_dtype("NonMaxSuppression", ("float32",), boxes, scores)
        require(
            boxes.rank == scores.rank == 3
            and boxes.shape == (scores.shape[0], scores.shape[2], 4),
            f"NonMaxSuppression: boxes {shape_text(boxes.shape)} and scores "
            f"{shape_text(scores.shape)}, wanted (N, boxes, 4) and (N, classes, boxes)",
        )
        pictures, classes, count = scores.shape
        return Spec((pictures * classes * min(count, self.max_output), 3), "int64")

    def reference(self, boxes: Array, scores: Array) -> Array:
        """Return the chosen (picture, class, box)."""
        rows = [
            (picture, label, box)
            for picture, labels in enumerate(scores)
            for label, values in enumerate(labels)
            for box in self._chosen(self._corners(boxes[picture]), values)
        ]
        return np.array(rows, np.int64).reshape(-1, 3)

    def _corners(self, boxes: Array) -> Array:
        """Return the lower and the upper corners, (2, boxes, 2)."""
        first, second = boxes[:, :2], boxes[:, 2:]
        if self.center_point_box:
            first, second = first - second / 2, first + second / 2
        return np.stack([np.minimum(first, second), np.maximum(first, second)])

    def _chosen(self, corners: Array, scores: Array) -> list[int]:
        """Return the boxes chosen, best first; the earlier of equal ones is better."""
        left = np.argsort(-scores, kind="stable")
        left = left[scores[left] > self.score_threshold]
        chosen: list[int] = []
        while len(left) and len(chosen) < self.max_output:
            best, left = left[0], left[1:]
            chosen.append(int(best))
            shared = overlap(corners[:, best, None], corners[:, left])
            left = left[shared <= self.iou_threshold]
        return chosen


def overlap(box: Array, others: Array) -> Array:
    """Return the part of the area two boxes cover that they share; 0 if it is empty."""
    sides = np.minimum(box[1], others[1]) - np.maximum(box[0], others[0])
    shared = np.maximum(sides, 0).prod(-1)
    areas = (box[1] - box[0]).prod(-1) + (others[1] - others[0]).prod(-1)
    covered = areas - shared
    y: Array = np.divide(shared, covered, out=np.zeros_like(covered), where=covered > 0)
    return y
