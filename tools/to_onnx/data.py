"""Operators that pick, sort, scatter and multiply."""

from __future__ import annotations

import numpy as np
from striate import ops
from striate.tools.to_onnx.axes import remaining
from striate.tools.to_onnx.elementwise import OPEN, cast_to, element, lying
from striate.tools.to_onnx.exporter import Exporter, Placed, Tensor, exports, in_order


@exports("ArgMax", "ArgMin")
def arg_extreme(g: Exporter, op: ops.ArgMax | ops.ArgMin, x: Tensor) -> Placed:
    """Find where the extreme along an axis is."""
    name = g.node(
        type(op).__name__,
        lying(g, x),
        axis=x.position(op.axis),
        keepdims=int(op.keepdims),
        select_last_index=int(op.select_last),
    )
    return Placed(name, remaining(x, (op.axis,), op.keepdims))


@exports("TopK")
def top_k(g: Exporter, op: ops.TopK, x: Tensor) -> tuple[Placed, Placed]:
    """Find the largest elements along an axis."""
    values, indices = g.node(
        "TopK",
        lying(g, x),
        g.constant([op.k]),
        outputs=2,
        axis=x.position(op.axis),
        largest=int(op.largest),
        sorted=int(op.sorted),
    )
    return Placed(values, x.axes), Placed(indices, x.axes)


@exports("CumSum")
def cum_sum(g: Exporter, op: ops.CumSum, x: Tensor) -> Placed:
    """Add up along an axis."""
    name = g.node(
        "CumSum",
        lying(g, x),
        g.constant(x.position(op.axis)),
        exclusive=int(op.exclusive),
        reverse=int(op.reverse),
    )
    return Placed(name, x.axes)


@exports("Gather")
def gather(g: Exporter, op: ops.Gather, x: Tensor, indices: Tensor) -> Placed:
    """Take slices; the axes of the indices stand together."""
    axis, more = op.axis % x.rank, indices.rank - 1
    name = g.node("Gather", lying(g, x), g.last(indices), axis=x.position(axis))
    axes: list[int] = []
    for each in x.axes:
        if each == axis:
            axes += range(axis, axis + indices.rank)
        else:
            axes.append(each + more if each > axis else each)
    return Placed(name, tuple(axes))


@exports("GatherElements")
def gather_elements(
    g: Exporter, op: ops.GatherElements, x: Tensor, indices: Tensor
) -> Placed:
    """Take one element for each index."""
    names, axes = g.aligned(x, indices)
    at = axes.index(op.axis % x.rank)
    return Placed(g.node("GatherElements", *names, axis=at), axes)


@exports("GatherND")
def gather_nd(g: Exporter, op: ops.GatherND, x: Tensor, indices: Tensor) -> Placed:
    """Take slices where tuples say."""
    names = (g.last(x), g.last(indices))
    name = g.node("GatherND", *names, batch_dims=op.batch_dims)
    return Placed(name, g.results[0].axes)


@exports("ScatterElements")
def scatter_elements(
    g: Exporter, op: ops.ScatterElements, x: Tensor, *written: Tensor
) -> Placed:
    """Write one element for each index."""
    names, axes = g.aligned(x, *written)
    at = axes.index(op.axis % x.rank)
    name = g.node("ScatterElements", *names, axis=at, reduction=op.reduction)
    return Placed(name, axes)


@exports("ScatterND")
def scatter_nd(g: Exporter, op: ops.ScatterND, x: Tensor, *written: Tensor) -> Placed:
    """Write slices where tuples say."""
    names = (g.last(each) for each in (x, *written))
    return Placed(g.node("ScatterND", *names, reduction=op.reduction), in_order(x.rank))


@exports("MatMul")
def mat_mul(g: Exporter, op: ops.MatMul, x: Tensor, y: Tensor) -> Placed:
    """Multiply matrices."""
    return Placed(g.node("MatMul", g.last(x), g.last(y)), g.results[0].axes)


@exports("Einsum")
def einsum(g: Exporter, op: ops.Einsum, *xs: Tensor) -> Placed:
    """Multiply and add as the equation says."""
    name = g.node("Einsum", *(g.last(x) for x in xs), equation=op.equation)
    return Placed(name, g.results[0].axes)


@exports("Tile")
def tile(g: Exporter, op: ops.Tile, x: Tensor) -> Placed:
    """Repeat along every axis."""
    repeats = g.constant([op.repeats[axis] for axis in x.axes])
    return Placed(g.node("Tile", lying(g, x), repeats), x.axes)


@exports("Expand")
def expand(g: Exporter, op: ops.Expand, x: Tensor) -> Placed:
    """Stretch to a shape."""
    name = g.node("Expand", g.last(x), g.constant(list(op.shape)))
    return Placed(name, g.results[0].axes)


@exports("ReverseSequence")
def reverse_sequence(
    g: Exporter, op: ops.ReverseSequence, x: Tensor, lengths: Tensor
) -> Placed:
    """Turn sequences round; ONNX wants them along the first two axes."""
    time, batch = op.time_axis % x.rank, op.batch_axis % x.rank
    order = (time, batch, *(a for a in range(x.rank) if a not in (time, batch)))
    whole = cast_to(g, g.last(lengths), "int64")
    name = g.node(
        "ReverseSequence", g.lying(x, order), whole, time_axis=0, batch_axis=1
    )
    return Placed(name, order)


@exports("Trilu")
def trilu(g: Exporter, op: ops.Trilu, x: Tensor) -> Placed:
    """Keep a triangle of matrices."""
    name = g.node("Trilu", g.last(x), g.constant(op.k), upper=int(op.upper))
    return Placed(name, in_order(x.rank))


@exports("EyeLike")
def eye_like(g: Exporter, op: ops.EyeLike, x: Tensor) -> Placed:
    """Make ones on a diagonal."""
    return Placed(g.node("EyeLike", g.last(x), dtype=element(op.dtype), k=op.k), (0, 1))


@exports("OneHot")
def one_hot(g: Exporter, op: ops.OneHot, indices: Tensor) -> Placed:
    """Make a vector for each index."""
    values = g.constant([op.off, op.on], dtype=op.dtype)
    depth = g.constant(op.depth)
    whole = cast_to(g, g.last(indices), "int64")
    name = g.node("OneHot", whole, depth, values, axis=op.axis)
    return Placed(name, g.results[0].axes)


@exports("NonZero")
def non_zero(g: Exporter, op: ops.NonZero, x: Tensor) -> Placed:
    """Find where a tensor is not zero, in order."""
    return Placed(g.node("NonZero", g.last(x)), (0, 1))


@exports("Compress")
def compress(g: Exporter, op: ops.Compress, x: Tensor, condition: Tensor) -> Placed:
    """Keep some slices."""
    names = (lying(g, x), g.last(condition))
    return Placed(g.node("Compress", *names, axis=x.position(op.axis)), x.axes)


@exports("Unique")
def unique(g: Exporter, op: ops.Unique, x: Tensor) -> tuple[Placed, ...]:
    """Find the different slices; which comes first depends on the order of axes."""
    names = g.node(
        "Unique", g.last(x), outputs=4, axis=op.axis % x.rank, sorted=int(op.sorted)
    )
    axes = (in_order(x.rank), (0,), (0,), (0,))
    return tuple(Placed(*each) for each in zip(names, axes, strict=True))


@exports("NonMaxSuppression")
def non_max_suppression(
    g: Exporter, op: ops.NonMaxSuppression, boxes: Tensor, scores: Tensor
) -> Placed:
    """Choose boxes; every score counts if no threshold is given."""
    least = op.score_threshold
    limit = "" if least <= -OPEN else g.constant(least, dtype=np.float32)
    name = g.node(
        "NonMaxSuppression",
        g.last(boxes),
        g.last(scores),
        g.constant(op.max_output),
        g.constant(op.iou_threshold, dtype=np.float32),
        limit,
        center_point_box=int(op.center_point_box),
    )
    return Placed(name, (0, 1))


@exports("Det")
def det(g: Exporter, op: ops.Det, x: Tensor) -> Placed:
    """Take determinants."""
    return Placed(g.node("Det", g.last(x)), g.results[0].axes)
