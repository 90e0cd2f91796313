"""Which part of the input each position of a layer sees.

References
----------
A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional Neural
Networks", Distill, 2019.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import ops
from .graph import Graph, Node
from .ops.base import Op
from .record import Record, record
from .spec import Array, Shape, Spec
from .window import Window

POSITIONWISE = (
    ops.And,
    ops.BatchNorm,
    ops.Binary,
    ops.BitwiseNot,
    ops.Cast,
    ops.ChannelShuffle,
    ops.Concat,
    ops.Dense,
    ops.Elementwise,
    ops.Equal,
    ops.Greater,
    ops.GreaterOrEqual,
    ops.Hardmax,
    ops.Identity,
    ops.IsInf,
    ops.IsNaN,
    ops.LayerNorm,
    ops.Less,
    ops.LessOrEqual,
    ops.LogSoftmax,
    ops.LpNorm,
    ops.Mean,
    ops.Not,
    ops.Or,
    ops.RMSNorm,
    ops.Softmax,
    ops.Split,
    ops.Where,
    ops.Xor,
)
"""What mixes no positions, unless along an axis of the image that it names."""


@record
class ReceptiveField(Record):
    """What a layer sees along one axis of the input.

    Position ``i`` of the layer sees the input from ``offset + i * stride`` on, `size`
    positions of it. What lies outside the input is padding, and next to it a position
    may see less.

    Parameters
    ----------
    size : int
        How many input positions one position sees.
    stride : int
        How far apart neighbours look; 0 if every position sees the same.
    offset : int
        The first input position that position 0 sees.
    """

    size: int
    stride: int
    offset: int


Fields = tuple[ReceptiveField, ...]


def receptive_fields(
    graph: Graph, shapes: Mapping[str, Shape] | None = None
) -> dict[str, Fields]:
    """Return what each value sees of the input, a field for each spatial axis.

    Where branches meet, a value sees what any of them does. A value that has no
    positions of its own, such as class scores, or whose positions cannot be followed,
    such as those behind a reshape, sees everything that its inputs see.

    Parameters
    ----------
    graph : Graph
        A network of images; its inputs count as one image where they are several.
    shapes : dict, optional
        Input name to shape; `Graph.default_shapes` if left out.

    Returns
    -------
    dict of str to tuple of ReceptiveField
        By value; empty tuples for what does not depend on an image.
    """
    specs = graph.specs(shapes)
    rank = max((specs[entry.name].rank for entry in graph.inputs), default=0)
    found: dict[str, Fields] = {}
    for entry in graph.inputs:
        image = 3 <= specs[entry.name].rank == rank
        found[entry.name] = (ReceptiveField(1, 1, 0),) * (rank - 2) if image else ()
    for node in graph.nodes:
        for value in node.outputs:
            found[value] = _fields(graph, node, specs, found, specs[value])
    return found


def _fields(
    graph: Graph,
    node: Node,
    specs: Mapping[str, Spec],
    found: Mapping[str, Fields],
    out: Spec,
) -> Fields:
    operands = graph.operand_specs(node, specs)
    window = node.op.window(*operands)
    seen: list[Fields] = []
    for position, value in enumerate(node.reads):
        fields, spec = found[value], specs[value]
        if not fields:
            continue
        if spec.rank != len(fields) + 2 or out.rank != spec.rank:
            seen.append(_everything(fields, spec))
        elif position == 0:
            tables = None if window else _tables(node.op, spec, operands)
            if window:
                seen.append(_under(window, fields))
            elif tables:
                seen.append(tuple(map(_gathered, fields, tables)))
            else:
                seen.append(_through(node.op, fields, spec, out))
        elif isinstance(node.op, POSITIONWISE):
            seen.append(_through(node.op, fields, spec, out))
        else:
            seen.append(_everything(fields, spec))
    if not seen:
        return ()
    sizes = out.spatial if out.rank == len(seen[0]) + 2 else (1,) * len(seen[0])
    return tuple(
        _union([fields[axis] for fields in seen], size)
        for axis, size in enumerate(sizes)
    )


def _under(window: Window, fields: Fields) -> Fields:
    """Return what the positions of a sliding window see."""
    return tuple(
        _slid(field, kernel, stride, dilation, before)
        for field, kernel, stride, dilation, (before, _) in zip(
            fields,
            window.kernel,
            window.stride,
            window.dilation,
            window.padding,
            strict=True,
        )
    )


def _through(op: Op, fields: Fields, x: Spec, out: Spec) -> Fields:
    """Return what the positions of an operator without a window see."""
    if isinstance(op, ops.Pad):
        return tuple(
            _slid(field, 1, 1, 1, before)
            for field, (before, _) in zip(fields, op.padding[1:-1], strict=True)
        )
    if isinstance(op, ops.Slice):
        sliced = list(fields)
        for start, stop, axis, step in zip(
            op.starts, op.stops, op.axes, op.steps, strict=True
        ):
            axis %= x.rank
            if 0 < axis < x.rank - 1:
                first = slice(start, stop, step).indices(x.shape[axis])[0]
                sliced[axis - 1] = _slid(fields[axis - 1], 1, step, 1, -first)
        return tuple(sliced)
    axes = getattr(op, "axes", None) or (getattr(op, "axis", -1),)
    along_image = any(0 < axis % x.rank < x.rank - 1 for axis in axes)
    if along_image or not isinstance(op, POSITIONWISE):
        return _everything(fields, x)
    return _pixelwise(fields, x, out)


def _tables(
    op: Op, x: Spec, operands: list[Spec | None]
) -> list[tuple[Array, Array]] | None:
    """Return the first and the last position that each output position reads.

    A pair of arrays an axis; None for an operator that has no such tables.
    """
    if isinstance(op, (ops.AdaptiveAveragePool, ops.AdaptiveMaxPool)):
        boxes = [np.array(axis) for axis in op.boxes(x.spatial)]
        return [(box[:, 0], box[:, 0] + box[:, 1] - 1) for box in boxes]
    if isinstance(op, ops.Resize):
        tables = op.tables(x.shape)
        if tables.keys() & {0, x.rank - 1}:
            return None
        found = []
        for axis, size in enumerate(x.spatial, 1):
            first, count = np.arange(size), np.ones(size, int)
            if axis in tables:
                first, count = tables[axis].first, np.maximum(tables[axis].count, 1)
            found.append((first, first + count - 1))
        return found
    if isinstance(op, ops.ConvTranspose):
        kernel = operands[1]
        assert kernel is not None
        found = []
        for (stride, dilation, before, size), taps, n in zip(
            op._axes(x, kernel), kernel.shape, x.spatial, strict=False
        ):
            last = (np.arange(size) + before) // stride
            first = -((dilation * (taps - 1) - np.arange(size) - before) // stride)
            found.append((np.clip(first, 0, n - 1), np.clip(last, 0, n - 1)))
        return found
    return None


def _gathered(field: ReceptiveField, table: tuple[Array, Array]) -> ReceptiveField:
    """Return the field of positions that read spans of positions that have `field`."""
    first, last = (positions * field.stride for positions in table)
    last = last + field.size
    count = len(first)
    stride = field.stride
    if count > 1:
        near, far = count // 4, count - 1 - count // 4
        middles = (first + last) / 2
        slope = float(middles[far] - middles[near]) / (far - near)
        stride = round(slope)
        if stride < 1 or abs(slope - stride) * count > max(last - first):
            stride = 0
    first = first - stride * np.arange(count)
    last = last - stride * np.arange(count)
    low, high = int(first.min()), int(last.max())
    return ReceptiveField(high - low, stride, field.offset + low)


def _slid(
    field: ReceptiveField, kernel: int, stride: int, dilation: int, before: int
) -> ReceptiveField:
    """Return the field of a window over positions that have `field`."""
    span = dilation * (kernel - 1)
    ends = (-before * field.stride, (span - before) * field.stride)
    return ReceptiveField(
        field.size + span * abs(field.stride),
        field.stride * stride,
        field.offset + min(ends),
    )


def _pixelwise(fields: Fields, x: Spec, out: Spec) -> Fields:
    """Return the fields of positions that each read the same position of `x`."""
    if any(n not in (1, m) for n, m in zip(x.spatial, out.spatial, strict=True)):
        return _everything(fields, x)
    return tuple(
        ReceptiveField(field.size, 0, field.offset) if n == 1 < m else field
        for field, n, m in zip(fields, x.spatial, out.spatial, strict=True)
    )


def _everything(fields: Fields, x: Spec) -> Fields:
    """Return fields that hold what all positions of `x` see."""
    counts = x.spatial if x.rank == len(fields) + 2 else (1,) * len(fields)
    return tuple(_spread(f, n) for f, n in zip(fields, counts, strict=True))


def _spread(field: ReceptiveField, count: int) -> ReceptiveField:
    reach = (count - 1) * field.stride
    return ReceptiveField(field.size + abs(reach), 0, field.offset + min(0, reach))


def _union(fields: list[ReceptiveField], count: int) -> ReceptiveField:
    """Return the smallest field that holds all of `fields` at each of `count`."""
    strides = {field.stride for field in fields}
    if len(strides) > 1:
        fields = [_spread(field, count) for field in fields]
        strides = {0}
    first = min(field.offset for field in fields)
    last = max(field.offset + field.size for field in fields)
    return ReceptiveField(last - first, strides.pop(), first)
