"""A detector's last layers, as the single-shot detector has them."""

# ruff: noqa: N802

from __future__ import annotations

import math
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.builder import bounded
from striate.tools.from_caffe.layers import CaffeBuilder, Floats, caffe_layer
from striate.tools.from_onnx.axes import Concat, cut, padded
from striate.tools.from_onnx.elementwise import combined
from striate.tools.layout import Constant, Tensor

LOW = -1e30
"""Below every score."""

ROW = 7
"""Numbers of a detection: picture, class, score, and two corners."""


@caffe_layer("PriorBox")
def PriorBox(
    g: CaffeBuilder,
    x: Tensor,
    picture: Tensor,
    *,
    min_size: Floats,
    max_size: Floats = (),
    aspect_ratio: Floats = (),
    flip: bool = True,
    clip: bool = False,
    variance: Floats = (0.1,),
    img_size: int = 0,
    img_h: int = 0,
    img_w: int = 0,
    step: float = 0.0,
    step_h: float = 0.0,
    step_w: float = 0.0,
    offset: float = 0.5,
) -> Constant:
    """Return boxes around every cell and their variances, which are constants."""
    rows, columns = (g.fixed(dim, "its input's size") for dim in x.shape[2:])
    height = img_size or img_h or g.fixed(picture.shape[2], "the picture's height")
    width = img_size or img_w or g.fixed(picture.shape[3], "the picture's width")
    down = step or step_h or height / rows
    across = step or step_w or width / columns
    sides = np.array(_sides(min_size, max_size, aspect_ratio, flip))
    if len(variance) not in (1, 4):
        raise UnsupportedModelError(f"{len(variance)} variances, wanted 1 or 4")
    bounded((rows, columns, len(sides), 8))
    boxes = np.empty((rows, columns, len(sides), 4))
    x_centre = (np.arange(columns) + offset)[None, :, None] * across
    y_centre = (np.arange(rows) + offset)[:, None, None] * down
    boxes[..., 0] = (x_centre - sides[:, 0] / 2) / width
    boxes[..., 1] = (y_centre - sides[:, 1] / 2) / height
    boxes[..., 2] = (x_centre + sides[:, 0] / 2) / width
    boxes[..., 3] = (y_centre + sides[:, 1] / 2) / height
    if clip:
        boxes = boxes.clip(0, 1)
    spread = np.broadcast_to(np.array(variance), (boxes.size // 4, 4))
    both = np.stack([boxes.reshape(-1), spread.reshape(-1)])
    return g.constant(both[None].astype(np.float32))


def _sides(
    min_size: Floats, max_size: Floats, aspect_ratio: Floats, flip: bool
) -> list[tuple[float, float]]:
    """Return the width and height of each box of a cell."""
    ratios: list[float] = [1.0]
    for ratio in aspect_ratio:
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios += (ratio, 1 / ratio) if flip else (ratio,)
    found = []
    if max_size and len(max_size) != len(min_size):
        raise UnsupportedModelError(
            f"{len(max_size)} sizes max_size for {len(min_size)} min_size"
        )
    for index, least in enumerate(min_size):
        found.append((least, least))
        if max_size:
            middle = math.sqrt(least * max_size[index])
            found.append((middle, middle))
        found += [
            (least * math.sqrt(r), least / math.sqrt(r))
            for r in ratios
            if abs(r - 1) >= 1e-6
        ]
    return found


@caffe_layer("DetectionOutput")
def DetectionOutput(
    g: CaffeBuilder,
    location: Tensor,
    confidence: Tensor,
    prior: Tensor,
    *,
    num_classes: int,
    share_location: bool = True,
    background_label_id: int = 0,
    nms_param: dict[str, Any] | None = None,
    code_type: str = "CORNER",
    variance_encoded_in_target: bool = False,
    keep_top_k: int = -1,
    confidence_threshold: float = -3.4028234663852886e38,
    normalized_bbox: bool = True,
) -> Tensor:
    """Return a row for each detection: picture, class, score and corners.

    Boxes of a class that overlap a better one are left out. Rows are in order of
    picture and class, the best first.
    """
    nms = {"nms_threshold": 0.3, "top_k": -1, "eta": 1.0, **(nms_param or {})}
    if not share_location or not normalized_bbox or nms["eta"] != 1:
        raise UnsupportedModelError(
            "share_location, normalized_bbox or eta are not as usual"
        )
    known = g.array(prior, "its prior boxes")
    if known.ndim != 3 or known.shape[:2] != (1, 2) or known.shape[2] % 4:
        raise UnsupportedModelError(f"prior boxes of shape {known.shape}")
    count = known.shape[2] // 4
    boxes = decoded(
        g,
        _table(g, location, count, 4),
        known[0, 0].reshape(count, 4),
        None if variance_encoded_in_target else known[0, 1].reshape(count, 4),
        code_type,
    )
    scores = _table(g, confidence, count, num_classes).transpose((0, 2, 1))
    first = 0
    if background_label_id == 0:
        first = 1
        scores = cut(g, scores, 1, (1, num_classes - 1))[1]
    elif background_label_id not in (-1, num_classes):
        raise UnsupportedModelError(f"background_label_id {background_label_id}")
    if 0 < nms["top_k"] < count:
        scores = _best(g, scores, nms["top_k"], confidence_threshold)
    op = ops.NonMaxSuppression(count, nms["nms_threshold"], confidence_threshold)
    chosen = g.operate(op, boxes, scores)
    classes = g.fixed(scores.shape[1], "the number of classes")
    if 0 < keep_top_k < classes * count:
        chosen = _kept(g, scores, chosen, keep_top_k)
    return _rows(g, boxes, scores, chosen, first)


def _table(g: CaffeBuilder, x: Tensor, rows: int, columns: int) -> Tensor:
    """Return numbers of each picture as a table."""
    sizes = [(n,) * g.bindings for n in (rows, columns)]
    return g.reshape_to(x, (x.shape[0], *sizes), zero_copies=False)


def decoded(
    g: CaffeBuilder,
    location: Tensor,
    prior: Array,
    variance: Array | None,
    code_type: str,
) -> Tensor:
    """Return the corners of boxes that are given relative to prior ones."""
    prior = prior.astype(np.float64)
    low, high = prior[:, :2], prior[:, 2:]
    sides = high - low
    factor = np.ones_like(prior) if variance is None else variance.astype(np.float64)
    if code_type == "CORNER":
        return _line(g, location, factor, prior)
    if code_type == "CORNER_SIZE":
        return _line(g, location, factor * np.tile(sides, 2), prior)
    if code_type != "CENTER_SIZE":
        raise UnsupportedModelError(f"code_type {code_type}")
    where, size = cut(g, location, 2, (2, 2))
    centre = _line(g, where, factor[:, :2] * sides, (low + high) / 2)
    grown = g.elementwise(ops.Exp(), _line(g, size, factor[:, 2:]))
    half = _line(g, grown, sides / 2)
    return Concat(
        g, combined(g, "Sub", centre, half), combined(g, "Add", centre, half), axis=2
    )


def _line(
    g: CaffeBuilder, x: Tensor, factor: Array, shift: Array | None = None
) -> Tensor:
    y = combined(g, "Mul", x, g.constant(factor[None].astype(np.float32)))
    if shift is None:
        return y
    return combined(g, "Add", y, g.constant(shift[None].astype(np.float32)))


def _best(g: CaffeBuilder, scores: Tensor, count: int, threshold: float) -> Tensor:
    """Return the scores, those of a class that are not among the best too low."""
    values, places = g.split(ops.TopK(count, 2), scores, outputs=2)
    low = g.line(scores, 0.0, min(-1.0, threshold))
    return g.operate(ops.ScatterElements(2), low, places, values)


def _kept(g: CaffeBuilder, scores: Tensor, chosen: Tensor, count: int) -> Tensor:
    """Return the best of the chosen (picture, class, box) of each picture."""
    batch, classes, boxes = scores.shape
    flat = (batch, tuple(a * b for a, b in zip(classes, boxes, strict=True)))
    low = g.line(scores, 0.0, LOW)
    values = g.operate(ops.GatherND(), scores, chosen)
    table = g.reshape(g.operate(ops.ScatterND(), low, chosen, values), flat)
    best, places = g.split(ops.TopK(count, 1), table, outputs=2)
    marked = g.operate(ops.ScatterElements(1), g.reshape(low, flat), places, best)
    found = g.operate(ops.GatherND(), g.reshape(marked, scores.shape), chosen)
    above = g.elementwise(ops.Sign(), g.line(found, 1.0, -LOW))
    return g.operate(ops.Compress(0), chosen, g.cast(above, "bool"))


def _rows(
    g: CaffeBuilder, boxes: Tensor, scores: Tensor, chosen: Tensor, first: int
) -> Tensor:
    """Return the rows of the chosen (picture, class, box)."""
    ones = (1,) * g.bindings
    wide = padded(g, boxes, (0, 0, 3, 0, 0, 0), "constant", 0.0)
    corners = g.operate(ops.GatherND(), wide, _columns(g, chosen, (0, 2)))
    column = g.reshape(scores, (*scores.shape, ones))
    rows = _placed(g, g.operate(ops.GatherND(), column, chosen), 2)
    for place in (0, 1):
        number = g.cast(_columns(g, chosen, (place,)), "float32")
        if place and first:
            number = g.combine(ops.Add(), number, g.number(float(first)))
        rows = g.combine(ops.Add(), rows, _placed(g, number, place))
    return g.combine(ops.Add(), rows, corners)


def _columns(g: CaffeBuilder, chosen: Tensor, places: tuple[int, ...]) -> Tensor:
    return g.operate(ops.Gather(1), chosen, g.constant(np.array(places, np.int64)))


def _placed(g: CaffeBuilder, column: Tensor, place: int) -> Tensor:
    """Return a column as one of the numbers of a row, the others zero."""
    unit = np.zeros((1, ROW), np.float32)
    unit[0, place] = 1
    return g.combine(ops.Mul(), column, g.constant(unit))
