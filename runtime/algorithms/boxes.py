"""Pooling in which every output position reduces a box of input positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..lowering import Lowering
from ..spec import Array, Shape
from ..step import Step
from ..view import View
from ..window import Window

Boxes = list[list[tuple[int, int]]]
"""For each axis, and each output position along it, the first input position of its
boxes and how many there are."""


def sliding_boxes(window: Window, size: Shape, counts: Shape) -> Boxes:
    """Return the part of each window that lies inside the input.

    Parameters
    ----------
    window : Window
        With a number or a pair for each axis.
    size, counts : tuple of int
        Input positions and windows along each axis.
    """
    boxes = []
    for k, s, d, (before, _), n, count in zip(
        window.kernel,
        window.stride,
        window.dilation,
        window.padding,
        size,
        counts,
        strict=True,
    ):
        starts = [at * s - before for at in range(count)]
        inside = [range(start, start + d * (k - 1) + 1, d) for start in starts]
        hits = [[p for p in taps if 0 <= p < n] for taps in inside]
        boxes.append([(hit[0] if hit else 0, len(hit)) for hit in hits])
    return boxes


def reduce_boxes(x: Array, boxes: Boxes, dilation: Shape, reduce: Any) -> Array:
    """Return `reduce` of every box: the obvious way.

    Parameters
    ----------
    x : Array
        (N, spatial..., C).
    dilation : tuple of int
        How far apart the positions of a box are along each axis.
    reduce : callable
        Takes an array of (N, positions of a box..., C), gives one of (N, C).
    """
    shape = tuple(len(axis) for axis in boxes)
    parts = []
    for at in np.ndindex(*shape):
        picked = [axis[i] for axis, i in zip(boxes, at, strict=True)]
        where = [
            slice(first, first + d * count, d)
            for (first, count), d in zip(picked, dilation, strict=True)
        ]
        index = (slice(None), *where)
        parts.append(reduce(x[index]))
    y: Array = np.stack(parts, axis=1).reshape(x.shape[0], *shape, *parts[0].shape[1:])
    return y


def box_pool(
    low: Lowering,
    out: View,
    x: View,
    boxes: Boxes,
    dilation: Shape,
    kind: str,
    name: str,
    power: int = 1,
) -> Step:
    """Return the step that reduces boxes to ``"max"``, ``"average"`` or ``"power"``."""
    module = low.load("box_pool")
    spatial = tuple(len(axis) for axis in boxes)
    kernel = module.pool(
        x.shape[0],
        x.shape[-1],
        three(spatial, 1),
        three(dilation, 1),
        (x.strides[0], *three(x.strides[1:-1], 0)),
        (out.strides[0], *three(out.strides[1:-1], 0)),
        module.KINDS[kind],
        power,
    )
    return Step(kernel, (out, x, low.constant(box_table(boxes))), name)


def box_table(boxes: Boxes) -> Array:
    """Return the table that the kernels read."""
    filled = [[(0, 1)]] * (3 - len(boxes)) + boxes
    return np.array([pair for axis in filled for pair in axis], np.int64)


def three(values: Sequence[int], fill: int) -> Shape:
    """Return three numbers, one an axis, those of missing leading axes as `fill`."""
    return (fill,) * (3 - len(values)) + tuple(values)
