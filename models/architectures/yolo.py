"""A small one-stage detector with the head of YOLOv2 (Redmon and Farhadi 2016)."""

from __future__ import annotations

import numpy as np
from striate import Graph, ops
from striate.models.architectures.network import Network, Weights
from striate.spec import Array

STRIDE = 32
"""Pixels a cell of the grid stands for."""

ANCHORS = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))
"""Widths and heights of the boxes that a cell begins with, in cells."""


def tiny_yolo(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 20,
    image: int = 416,
    iou_threshold: float = 0.45,
    score_threshold: float = 0.1,
    most: int = 10,
) -> Graph:
    """Return a detector of things of some classes.

    Its outputs are ``boxes``, (N, boxes, 4), centre x, centre y, width and height as
    parts of the picture; ``scores``, (N, classes, boxes); and ``chosen``, rows of
    (picture, class, box) after non-maximum suppression.

    Parameters
    ----------
    image : int
        A multiple of 32.
    iou_threshold, score_threshold : float
        For non-maximum suppression.
    most : int
        The most boxes to choose for a class.
    """
    net = Network("tiny_yolo", weights, seed)
    leaky = ops.LeakyRelu(0.1)
    x = net.input("image", image, image, 3)
    for index, channels in enumerate((16, 32, 64, 128, 256), 1):
        names = (f"conv{index}", f"bn{index}")
        x = net.conv_norm(names, x, channels, activation=leaky)
        x = net.apply(ops.MaxPool((2,), (2,)), x, name=f"pool{index}")
    x = net.conv_norm(("conv6", "bn6"), x, 512, activation=leaky)
    x = net.conv("conv7", x, len(ANCHORS) * (5 + classes), 1)
    cells = image // STRIDE
    x = net.apply(ops.Reshape((0, cells * cells * len(ANCHORS), 5 + classes)), x)
    parts = net.apply(ops.Split(-1, (2, 2, 1, classes)), x, name="parts")
    centre, size, objectness, labels = parts
    boxes = _boxes(net, centre, size, cells)
    sure = net.apply(ops.Sigmoid(), objectness)
    scores = net.apply(ops.Mul(), sure, net.apply(ops.Softmax(), labels))
    scores = net.apply(ops.Transpose((0, 2, 1)), scores, name="scores")
    suppression = ops.NonMaxSuppression(most, iou_threshold, score_threshold, True)
    chosen = net.apply(suppression, boxes, scores, name="chosen")
    return net.finish(boxes, scores, chosen)


def _boxes(net: Network, centre: str, size: str, cells: int) -> str:
    """Return boxes as parts of the picture."""
    corner, anchor, share = (
        net.apply(ops.Constant(), name=name, value=value)
        for name, value in (
            ("corners", _corners(cells)),
            ("anchors", np.tile(np.asarray(ANCHORS, np.float32), (cells * cells, 1))),
            ("cell", np.asarray(1 / cells, np.float32)),
        )
    )
    centre = net.apply(ops.Add(), net.apply(ops.Sigmoid(), centre), corner)
    size = net.apply(ops.Mul(), net.apply(ops.Exp(), size), anchor)
    boxes = net.apply(ops.Concat(), centre, size)
    return str(net.apply(ops.Mul(), boxes, share, name="boxes"))


def _corners(cells: int) -> Array:
    """Return (x, y) of the cell of every box."""
    y, x = np.divmod(np.arange(cells * cells), cells)
    return np.repeat(np.stack([x, y], axis=1), len(ANCHORS), axis=0).astype(np.float32)
