"""Operators that move, cut, join and reduce."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from striate import ops
from striate.spec import Array
from striate.tools.to_onnx.elementwise import lying
from striate.tools.to_onnx.exporter import (
    Exporter,
    Placed,
    Tensor,
    channels_first,
    exports,
    in_order,
)

Boxes = list[list[list[int]]]
"""For every spatial axis, the positions in each box."""


@exports("Constant")
def constant(g: Exporter, op: ops.Constant, value: Tensor) -> Placed:
    """Give a weight as a value."""
    return Placed(g.last(value), in_order(value.rank))


@exports("Transpose")
def transpose(g: Exporter, op: ops.Transpose, x: Tensor) -> Placed:
    """Only remember the other order."""
    return Placed(lying(g, x), tuple(op.axes.index(axis) for axis in x.axes))


@exports("Reshape")
def reshape(g: Exporter, op: ops.Reshape, x: Tensor) -> Placed:
    """Give another shape; axes of size one may lie anywhere."""
    (y,) = g.results
    kept = y.open[:1] == x.open[:1] and y.shape[:1] == x.shape[:1]
    if x.axes != in_order(x.rank) and kept and not any(y.open[1:]) and in_line(x):
        return Placed(g.reshape(lying(g, x), y.sizes()), y.axes)
    return Placed(g.node("Reshape", g.last(x), g.constant(list(op.shape))), y.axes)


def in_line(x: Tensor) -> bool:
    """Return whether the elements lie in order: axes of size one may be anywhere."""
    moved = [axis for axis in x.axes if x.open[axis] or x.shape[axis] != 1]
    return moved == sorted(moved) and x.axes[:1] == (0,)


@exports("Flatten")
def flatten(g: Exporter, op: ops.Flatten, x: Tensor) -> Placed:
    """Flatten; what only fully connected layers read, as it lies.

    They then get the rows of their kernels in that order.
    """
    if in_line(x):
        return Placed(g.node("Flatten", lying(g, x)), (0, 1))
    (y,) = g.results
    if y.name not in g.only_dense or x.axes[0] != 0 or any(x.open[1:]):
        return Placed(g.node("Flatten", g.last(x)), (0, 1))
    order = np.arange(math.prod(x.shape[1:])).reshape(x.shape[1:])
    name = g.node("Flatten", lying(g, x))
    g.rows[name] = order.transpose([axis - 1 for axis in x.axes[1:]]).reshape(-1)
    return Placed(name, (0, 1))


@exports("ChannelShuffle")
def channel_shuffle(g: Exporter, op: ops.ChannelShuffle, x: Tensor) -> Placed:
    """See the channels as a matrix and transpose it."""
    parts = [op.groups, x.shape[-1] // op.groups]
    if x.position(-1) == 1 and x.position(0) == 0:
        name, axes = lying(g, x), x.axes
        wide = g.node("Reshape", name, g.constant([0, *parts, -1]))
        mixed = g.node("Transpose", wide, perm=[0, 2, 1, 3])
    else:
        name, axes = g.last(x), in_order(x.rank)
        wide = g.node("Reshape", name, g.constant([-1, *parts]))
        mixed = g.node("Transpose", wide, perm=[0, 2, 1])
    sizes = x.sizes(axes)
    if x.position(-1) != 1 and None in sizes:
        return Placed(g.node("Reshape", mixed, g.node("Shape", name)), axes)
    return Placed(g.reshape(mixed, sizes, name), axes)


@exports("Concat")
def concat(g: Exporter, op: ops.Concat, *xs: Tensor) -> Placed:
    """Join tensors in the order in which the largest lies."""
    names, axes = g.aligned(*xs)
    at = axes.index(op.axis % xs[0].rank)
    return Placed(g.node("Concat", *names, axis=at), axes)


@exports("Split")
def split(g: Exporter, op: ops.Split, x: Tensor) -> tuple[Placed, ...]:
    """Cut into parts."""
    names = g.node(
        "Split",
        lying(g, x),
        g.constant(list(op.sizes)),
        outputs=len(op.sizes),
        axis=x.position(op.axis),
    )
    each = (names,) if len(op.sizes) == 1 else names
    return tuple(Placed(name, x.axes) for name in each)


@exports("Slice")
def slices(g: Exporter, op: ops.Slice, x: Tensor) -> Placed:
    """Take positions from start up to stop."""
    where = [x.position(axis) for axis in op.axes]
    settings = (op.starts, op.stops, where, op.steps)
    name = g.node("Slice", lying(g, x), *(g.constant(list(s)) for s in settings))
    return Placed(name, x.axes)


@exports("Pad")
def pad(g: Exporter, op: ops.Pad, x: Tensor) -> Placed:
    """Add positions before and after."""
    pairs = [op.padding[axis] for axis in x.axes]
    pads = [*(before for before, _ in pairs), *(after for _, after in pairs)]
    value = "" if op.mode != "constant" else g.constant(op.value, dtype=x.spec.dtype)
    name = g.node("Pad", lying(g, x), g.constant(pads), value, mode=op.mode)
    return Placed(name, x.axes)


@exports("CenterCropPad")
def center_crop_pad(g: Exporter, op: ops.CenterCropPad, x: Tensor) -> Placed:
    """Cut or pad axes to a size."""
    axes = op.axes or in_order(x.rank)
    where = [x.position(axis) for axis in axes]
    name = g.node("CenterCropPad", lying(g, x), g.constant(list(op.shape)), axes=where)
    return Placed(name, x.axes)


def remaining(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """Return how the axes of a reduced tensor lie."""
    if keepdims:
        return x.axes
    reduced = {axis % x.rank for axis in axes}
    left = [axis for axis in x.axes if axis not in reduced]
    return tuple(sorted(left).index(axis) for axis in left)


def reduced(
    g: Exporter, onnx: str, x: Tensor, axes: tuple[int, ...], keepdims: bool
) -> Placed:
    """Return a reduction over axes."""
    over = g.constant(sorted(x.position(axis) for axis in axes))
    name = g.node(onnx, lying(g, x), over, keepdims=int(keepdims))
    return Placed(name, remaining(x, axes, keepdims))


@exports("Mean")
def mean(g: Exporter, op: ops.Mean, x: Tensor) -> Placed:
    """Average over axes."""
    return reduction(g, "ReduceMean", op, x)


def reduction(g: Exporter, onnx: str, op: Any, x: Tensor) -> Placed:
    """Return a reduction with the fields `axes` and `keepdims`.

    Over no axes it is one over an axis of size one that is put behind the others.
    """
    if op.axes:
        return reduced(g, onnx, x, op.axes, op.keepdims)
    behind = g.constant([x.rank])
    name = g.node("Unsqueeze", lying(g, x), behind)
    return Placed(g.node(onnx, name, behind, keepdims=0), x.axes)


def _register_reduction(name: str) -> None:
    @exports(name)
    def handler(g: Exporter, op: Any, x: Tensor) -> Placed:
        return reduction(g, name, op, x)


for _name in (
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
):
    _register_reduction(_name)


def pooled_boxes(g: Exporter, x: Tensor, boxes: Boxes, average: bool) -> Placed:
    """Return the mean or largest of boxes of an image, axis after axis.

    What a box holds is gathered; the largest is that of a box filled up with its first
    position, a mean is a product with a matrix of shares.
    """
    name, axes = lying(g, x), x.axes
    for axis, groups in enumerate(boxes, 1):
        at = axes.index(axis)
        if average:
            shares = np.zeros((len(groups), x.shape[axis]), np.float32)
            for row, box in zip(shares, groups, strict=True):
                row[box] = 1 / len(box)
            name = _multiplied_along(g, name, shares, at, x.rank)
        else:
            most = max(map(len, groups))
            index = [box + box[:1] * (most - len(box)) for box in groups]
            taken = g.node("Gather", name, g.constant(np.array(index)), axis=at)
            over = g.constant([at + 1])
            name = g.node("ReduceMax", taken, over, keepdims=0)
    return Placed(name, axes)


def _multiplied_along(
    g: Exporter, name: str, matrix: Array, axis: int, rank: int
) -> str:
    """Return the product of a (new, old) matrix with one axis of a value."""
    if axis == rank - 2:
        return str(g.node("MatMul", g.constant(matrix), name))
    if axis != rank - 1:
        perm = [i for i in range(rank) if i != axis] + [axis]
        name = g.node("Transpose", name, perm=perm)
    name = g.node("MatMul", name, g.constant(np.ascontiguousarray(matrix.T)))
    if axis != rank - 1:
        name = g.node("Transpose", name, perm=list(np.argsort(perm)))
    return name


@exports("AdaptiveAveragePool", "AdaptiveMaxPool")
def adaptive_pool(
    g: Exporter, op: ops.AdaptiveAveragePool | ops.AdaptiveMaxPool, x: Tensor
) -> Placed:
    """Pool in boxes that share out the image."""
    average = isinstance(op, ops.AdaptiveAveragePool)
    spatial = [g.size(x, axis) for axis in range(1, x.rank - 1)]
    boxes = op.boxes(tuple(spatial))
    counts = [len(groups) for groups in boxes]
    if all(n % m == 0 for n, m in zip(spatial, counts, strict=True)):
        kernel = [n // m for n, m in zip(spatial, counts, strict=True)]
        kind = "AveragePool" if average else "MaxPool"
        name = g.node(kind, g.first(x), kernel_shape=kernel, strides=kernel)
        return Placed(name, channels_first(x.rank))
    return pooled_boxes(g, x, _positions(boxes), average)


@exports("FractionalMaxPool")
def fractional_max_pool(g: Exporter, op: ops.FractionalMaxPool, x: Tensor) -> Placed:
    """Pool in given boxes."""
    boxes = [
        [list(range(a, min(b + op.overlapping, axis[-1]))) for a, b in pairwise(axis)]
        for axis in op.boundaries
    ]
    return pooled_boxes(g, x, boxes, False)


def _positions(boxes: Any) -> Boxes:
    return [[list(range(a, a + n)) for a, n in groups] for groups in boxes]


@exports("Maxout")
def maxout(g: Exporter, op: ops.Maxout, x: Tensor) -> Placed:
    """Take the largest of each few neighbouring channels."""
    at, axes = x.position(-1), x.axes
    if x.sizes()[1:].count(None) > 0:
        at, axes = x.rank - 1, in_order(x.rank)
    sizes = x.sizes(axes)
    parts: list[int | None] = [x.shape[-1] // op.pieces, op.pieces]
    shape = g.constant([0] * at + parts + [0] * (x.rank - 1 - at))
    if at == x.rank - 1:
        wide = g.node("Reshape", g.lying(x, axes), shape)
    else:
        wide = g.reshape(g.lying(x, axes), [*sizes[:at], *parts, *sizes[at + 1 :]])
    return Placed(g.node("ReduceMax", wide, g.constant([at + 1]), keepdims=0), axes)
