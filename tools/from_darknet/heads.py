"""A detector's last sections: numbers of grid cells to boxes and scores.

Every head gives (N, boxes, 5 + classes): centre, width and height of a box as parts of
the picture, how sure it is that there is something, and that times how sure it is of
each class. Boxes are counted by row, column and anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.builder import bounded
from striate.tools.from_onnx.axes import Concat, cut
from striate.tools.from_onnx.elementwise import combined
from striate.tools.from_onnx.registry import OnnxBuilder
from striate.tools.layout import Tensor


@dataclass(frozen=True)
class Head:
    """What a section finds, (N, boxes, numbers) each.

    Parameters
    ----------
    boxes : Tensor
        Centre, width and height.
    objectness : Tensor
        How sure it is of a box.
    scores : Tensor
        How sure it is of each class.
    """

    boxes: Tensor
    objectness: Tensor
    scores: Tensor

    def joined(self, g: OnnxBuilder) -> Tensor:
        """Return all of it side by side."""
        return Concat(g, self.boxes, self.objectness, self.scores, axis=2)


def grid(
    g: OnnxBuilder, x: Tensor, anchors: int, classes: int
) -> tuple[tuple[int, int], tuple[Tensor, ...]]:
    """Return the cells along each axis, and centres, sizes, objectness and classes."""
    _, channels, rows, columns = x.shape
    size = (g.fixed(rows, "its rows"), g.fixed(columns, "its columns"))
    numbers = 5 + classes
    if g.fixed(channels, "its channels") != anchors * numbers:
        raise UnsupportedModelError(
            f"found {channels[0]} channels, wanted {anchors} anchors times 5 numbers "
            f"and {classes} classes"
        )
    boxes = size[0] * size[1] * anchors
    pixels = x.transpose((0, 2, 3, 1))
    cells = g.reshape(
        pixels, (x.shape[0], (boxes,) * g.bindings, (numbers,) * g.bindings)
    )
    return size, cut(g, cells, 2, (2, 2, 1, classes))


def centres(
    g: OnnxBuilder, xy: Tensor, size: tuple[int, int], anchors: int, spread: float
) -> Tensor:
    """Return places within cells as parts of the picture."""
    rows, columns = size
    bounded((rows, columns, anchors, 2))
    places = np.empty((rows, columns, anchors, 2), np.float32)
    places[..., 0] = np.arange(columns)[None, :, None]
    places[..., 1] = np.arange(rows)[:, None, None]
    scale = np.array([1 / columns, 1 / rows])
    offset = (places - (spread - 1) / 2) * scale
    moved = combined(g, "Mul", xy, g.constant((spread * scale).astype(np.float32)))
    return combined(
        g, "Add", moved, g.constant(offset.reshape(1, -1, 2).astype(np.float32))
    )


def sizes(
    g: OnnxBuilder, factors: Tensor, size: tuple[int, int], anchors: Array
) -> Tensor:
    """Return factors of the anchors as parts of the picture."""
    tiled = np.tile(anchors.astype(np.float32), (size[0] * size[1], 1))
    return combined(g, "Mul", factors, g.constant(tiled[None]))


def suppressed(
    g: OnnxBuilder, heads: Sequence[Head], overlap: float, score: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes of all heads, their scores by class, and which to keep."""
    if len({head.scores.shape[2] for head in heads}) > 1:
        raise UnsupportedModelError("the heads differ in their number of classes")
    boxes = Concat(g, *(head.boxes for head in heads), axis=1)
    scores = Concat(g, *(head.scores for head in heads), axis=1).transpose((0, 2, 1))
    count = g.fixed(boxes.shape[1], "the number of boxes")
    op = ops.NonMaxSuppression(count, overlap, score, center_point_box=True)
    return boxes, scores, g.operate(op, boxes, scores)
