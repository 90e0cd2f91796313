"""Windows that ONNX has no single operator for, or that have a twin with indices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.to_onnx.exporter import (
    Exporter,
    Placed,
    Tensor,
    channels_first,
    exports,
    in_order,
)
from striate.tools.to_onnx.layers import ends, per_axis, pooled
from striate.window import explicit_padding

LARGEST_KERNEL = 2**26
"""Numbers of a tiled kernel that is written out for every position."""


@exports("LocallyConnected")
def locally_connected(
    g: Exporter,
    op: ops.LocallyConnected,
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
) -> Placed:
    """Gather what every window sees, and multiply by every window's kernel."""
    array = g.array(kernel, "its kernel")
    y = _unshared(g, op.window(x.spec, kernel.spec), x, array)
    if bias is not None:
        y = g.node("Add", y, g.last(bias))
    return Placed(y, in_order(x.rank))


@exports("TiledConv")
def tiled_conv(
    g: Exporter,
    op: ops.TiledConv,
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
) -> Placed:
    """Export a locally connected layer whose kernels repeat."""
    array = g.array(kernel, "its kernel")
    rank = x.rank - 2
    counts = [g.size(g.results[0], axis) for axis in range(1, rank + 1)]
    size = math.prod(counts) * math.prod(array.shape[rank:])
    if size > LARGEST_KERNEL:
        raise UnsupportedModelError(
            f"its kernels for {counts} positions would have {size} numbers"
        )
    tiles = (np.arange(n) % t for n, t in zip(counts, array.shape, strict=False))
    tile = np.ix_(*tiles)
    y = _unshared(g, op.window(x.spec, kernel.spec), x, array[tile])
    if bias is not None and bias.rank == 1:
        y = g.node("Add", y, g.last(bias))
    elif bias is not None:
        repeated = g.array(bias, "its bias")[tile]
        y = g.node("Add", y, g.weight(bias, repeated, "repeated"))
    return Placed(y, in_order(x.rank))


def _unshared(g: Exporter, window: Any, x: Tensor, kernel: Array) -> str:
    """Return the sums for a kernel (positions..., taps..., in, out)."""
    rank = x.rank - 2
    name = g.last(x)
    if any(map(any, window.padding)):
        pairs = ((0, 0), *window.padding, (0, 0))
        name = g.node("Pad", name, g.constant(ends(pairs)))
    for axis, count in enumerate(kernel.shape[:rank]):
        starts = np.arange(count)[:, None] * window.stride[axis]
        taps = np.arange(window.kernel[axis]) * window.dilation[axis]
        name = g.node("Gather", name, g.constant(starts + taps), axis=1 + 2 * axis)
    places, taps_of = "uvw"[:rank], "abc"[:rank]
    pairs_of = "".join(p + t for p, t in zip(places, taps_of, strict=True))
    equation = f"n{pairs_of}x,{places}{taps_of}xy->n{places}y"
    weight = g.constant(kernel, f"{g.site}/kernels")
    return str(g.node("Einsum", name, weight, equation=equation))


@exports("DeformConv")
def deform_conv(
    g: Exporter,
    op: ops.DeformConv,
    x: Tensor,
    kernel: Tensor,
    offset: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Placed:
    """Convolve with taps that are moved; the kernel becomes (M, C / groups, kh, kw)."""
    plain = ops.Conv(op.stride, op.dilation, op.padding, op.groups)
    window = plain.window(x.spec, kernel.spec)
    turned = g.array(kernel, "its kernel").transpose(3, 2, 0, 1)
    name = g.node(
        "DeformConv",
        g.first(x),
        g.weight(kernel, turned, "oi"),
        g.first(offset),
        g.last(bias) if bias else "",
        g.first(mask) if mask else "",
        kernel_shape=list(window.kernel),
        strides=list(window.stride),
        dilations=list(window.dilation),
        pads=ends(window.padding),
        group=op.groups,
        offset_group=op.offset_groups,
    )
    return g.image(x, name)


@exports("MaxPoolIndices")
def max_pool_indices(
    g: Exporter, op: ops.MaxPoolIndices, x: Tensor
) -> tuple[Placed, Placed]:
    """Take the largest value of each window and where it is."""
    columns = int(op.index_order == "channels_first_columns")
    y, places = pooled(g, "MaxPool", op, x, outputs=2, storage_order=columns)
    if op.index_order == "channels_last":
        pixels = math.prod(g.size(x, axis) for axis in range(1, x.rank - 1))
        size, channels = g.constant(pixels), g.constant(x.shape[-1])
        plane, pixel = g.node("Div", places, size), g.node("Mod", places, size)
        picture = g.node("Div", plane, channels)
        channel = g.node("Mod", plane, channels)
        row = g.node("Add", g.node("Mul", picture, size), pixel)
        places = g.node("Add", g.node("Mul", row, channels), channel)
    return g.image(x, y), g.image(x, places)


@exports("MaxUnpool")
def max_unpool(g: Exporter, op: ops.MaxUnpool, x: Tensor, indices: Tensor) -> Placed:
    """Scatter into zeros, as one row of numbers."""
    first = op.index_order == "channels_first"
    order = channels_first(x.rank) if first else in_order(x.rank)
    (y,) = g.results
    sizes = [g.size(y, axis) if axis else -1 for axis in order]
    pictures = g.node("Shape", g.last(x), start=0, end=1)
    whole = g.node("Mul", pictures, g.constant([-math.prod(sizes)]))
    zeros = g.node("Expand", g.constant(np.zeros(1, np.float32)), whole)
    row = g.constant([-1])
    values, places = (
        g.node("Reshape", g.lying(each, order), row) for each in (x, indices)
    )
    name = g.node("ScatterElements", zeros, places, values, axis=0)
    return Placed(g.node("Reshape", name, g.constant(sizes)), order)


@exports("Col2Im")
def col2im(g: Exporter, op: ops.Col2Im, x: Tensor) -> Placed:
    """Add blocks up; ONNX wants the channels before the block, the positions last."""
    rank = len(op.image)
    block, stride, dilation = (
        per_axis(field, rank) for field in (op.block, op.stride, op.dilation)
    )
    span = [d * (k - 1) + 1 for k, d in zip(block, dilation, strict=True)]
    padding = explicit_padding(op.padding, op.image, tuple(span), tuple(stride))
    taps, positions = math.prod(block), x.shape[1]
    channels = x.shape[2] // taps
    shape = g.constant([0, positions, taps, channels])
    wide = g.node("Reshape", g.last(x), shape)
    turned = g.node("Transpose", wide, perm=[0, 3, 2, 1])
    name = g.node(
        "Col2Im",
        g.node("Reshape", turned, g.constant([0, channels * taps, positions])),
        g.constant(list(op.image)),
        g.constant(block),
        strides=stride,
        dilations=dilation,
        pads=ends(padding),
    )
    return Placed(name, channels_first(rank + 2))
