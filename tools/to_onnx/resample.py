"""Operators that resample images or rearrange pixels and channels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Shape
from striate.tools.to_onnx.elementwise import cast_to, lying
from striate.tools.to_onnx.exporter import Exporter, Placed, Tensor, exports, in_order

FORMER = ("tf_half_pixel_for_nn",)
"""Coordinates that ONNX gave up."""


@exports("Resize")
def resize(g: Exporter, op: ops.Resize, x: Tensor) -> Placed:
    """Resample some axes; images channels-first, which is all ONNX Runtime can.

    It also moves transposes past the operator as if that named every axis. So it does,
    unless the aspect is kept, which would have the other axes count.
    """
    if op.coordinates in FORMER:
        raise UnsupportedModelError(f"ONNX has no coordinates {op.coordinates!r}")
    axes = tuple(axis % x.rank for axis in op.axes) or in_order(x.rank)
    first = x.is_image and not {0, x.rank - 1} & set(axes)
    name, order = (g.first(x), g.image(x, "").axes) if first else (lying(g, x), x.axes)
    every = op.keep_aspect == "stretch"
    named = order if every else axes
    region = scales = sizes = ""
    if op.region:
        starts, stops = op.region[: len(axes)], op.region[len(axes) :]
        inside = _spread(axes, starts, named, 0.0) + _spread(axes, stops, named, 1.0)
        region = g.constant(inside, dtype=np.float32)
    if op.scales:
        wanted = _spread(axes, op.scales, named, 1.0)
        scales = g.constant(wanted, dtype=np.float32)
    else:
        sizes = _sizes(g, name, _spread(axes, op.sizes, named, None))
    name = g.node(
        "Resize",
        name,
        region,
        scales,
        sizes,
        axes=None if every else [order.index(axis) for axis in axes],
        mode=op.mode,
        coordinate_transformation_mode=op.coordinates,
        nearest_mode=op.nearest,
        cubic_coeff_a=op.cubic_coefficient,
        antialias=int(op.antialias),
        exclude_outside=int(op.exclude_outside),
        extrapolation_value=op.extrapolation,
        keep_aspect_ratio_policy=op.keep_aspect if op.sizes else None,
    )
    return Placed(name, order)


def _spread(axes: Shape, values: Sequence[Any], order: Shape, fill: Any) -> list[Any]:
    """Return a value for each axis in an order: the axis' own, or `fill`."""
    own = dict(zip(axes, values, strict=True))
    return [own.get(axis, fill) for axis in order]


def _sizes(g: Exporter, name: str, sizes: list[int | None]) -> str:
    """Return sizes as a value; None stands for the size that a value has there."""
    parts = []
    for known, group in groupby(enumerate(sizes), lambda each: each[1] is not None):
        entries = list(group)
        if known:
            parts.append(g.constant([size for _, size in entries]))
        else:
            start, end = entries[0][0], entries[-1][0] + 1
            parts.append(g.node("Shape", name, start=start, end=end))
    return parts[0] if len(parts) == 1 else str(g.node("Concat", *parts, axis=0))


@exports("DepthToSpace")
def depth_to_space(g: Exporter, op: ops.DepthToSpace, x: Tensor) -> Placed:
    """Move channels to blocks of pixels, axis by axis if there are not two."""
    if x.rank == 4:
        name = g.node("DepthToSpace", g.first(x), blocksize=op.block, mode=op.mode)
        return g.image(x, name)
    rank = x.rank - 2
    sizes = [g.size(x, axis) for axis in range(1, rank + 1)]
    blocks, channels = [op.block] * rank, x.shape[-1] // op.block**rank
    inner = [*blocks, channels] if op.mode == "DCR" else [channels, *blocks]
    wide = g.reshape(g.last(x), [None, *sizes, *inner])
    start = 1 + rank + (op.mode == "CRD")
    pairs = [each for axis in range(rank) for each in (1 + axis, start + axis)]
    channel = 1 + 2 * rank if op.mode == "DCR" else 1 + rank
    turned = g.node("Transpose", wide, perm=[0, *pairs, channel])
    shape = [None, *(n * op.block for n in sizes), channels]
    return Placed(g.reshape(turned, shape), in_order(x.rank))


@exports("SpaceToDepth")
def space_to_depth(g: Exporter, op: ops.SpaceToDepth, x: Tensor) -> Placed:
    """Move blocks of pixels to channels; what ONNX has is two axes, blocks first."""
    if x.rank == 4 and op.mode == "DCR":
        return g.image(x, g.node("SpaceToDepth", g.first(x), blocksize=op.block))
    rank = x.rank - 2
    sizes = [g.size(x, axis) // op.block for axis in range(1, rank + 1)]
    cut = [each for size in sizes for each in (size, op.block)]
    wide = g.reshape(g.last(x), [None, *cut, x.shape[-1]])
    places = [1 + 2 * axis for axis in range(rank)]
    deep = [place + 1 for place in places]
    deep = [*deep, 1 + 2 * rank] if op.mode == "DCR" else [1 + 2 * rank, *deep]
    turned = g.node("Transpose", wide, perm=[0, *places, *deep])
    shape = [None, *sizes, x.shape[-1] * op.block**rank]
    return Placed(g.reshape(turned, shape), in_order(x.rank))


@exports("GridSample")
def grid_sample(g: Exporter, op: ops.GridSample, x: Tensor, grid: Tensor) -> Placed:
    """Sample where a grid says; sound becomes images of one row."""
    name, places = g.first(x), g.last(grid)
    if x.rank == 3:
        name = g.node("Unsqueeze", name, g.constant([2]))
        places = g.node("Unsqueeze", places, g.constant([1]))
        places = g.node("Pad", places, g.constant([0] * 7 + [1]))
    name = g.node(
        "GridSample",
        name,
        places,
        mode=op.mode,
        padding_mode=op.padding_mode,
        align_corners=int(op.align_corners),
    )
    if x.rank == 3:
        name = g.node("Squeeze", name, g.constant([2]))
    return g.image(x, name)


@exports("AffineGrid")
def affine_grid(g: Exporter, op: ops.AffineGrid, theta: Tensor) -> Placed:
    """Make a grid; ONNX wants its size as that of images of one channel."""
    name = g.last(theta)
    pictures = g.node("Shape", name, start=0, end=1)
    size = g.node("Concat", pictures, g.constant([1, *op.size]), axis=0)
    name = g.node("AffineGrid", name, size, align_corners=int(op.align_corners))
    return Placed(name, g.results[0].axes)


@exports("RoiAlign")
def roi_align(
    g: Exporter, op: ops.RoiAlign, x: Tensor, rois: Tensor, batch_indices: Tensor
) -> Placed:
    """Resample regions to one size."""
    name = g.node(
        "RoiAlign",
        g.first(x),
        g.last(rois),
        cast_to(g, g.last(batch_indices), "int64"),
        mode=op.mode,
        output_height=op.output_size[0],
        output_width=op.output_size[1],
        sampling_ratio=op.sampling_ratio,
        spatial_scale=op.spatial_scale,
        coordinate_transformation_mode=op.coordinates,
    )
    return g.image(x, name)
