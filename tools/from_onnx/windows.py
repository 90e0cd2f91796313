"""Operators with sliding windows that are rarer than those of `layers`.

Each function is named and signed like its operator.
"""

# ruff: noqa: N802, N803

from __future__ import annotations

import math
from typing import Any

from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_onnx.axes import padded
from striate.tools.from_onnx.layers import (
    image,
    kernel_of,
    on_image,
    padding,
    pool_padding,
)
from striate.tools.from_onnx.registry import OnnxBuilder, onnx_op
from striate.tools.layout import Tensor

Ints = tuple[int, ...]


@onnx_op("ConvTranspose")
def ConvTranspose(
    g: OnnxBuilder,
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Spread every pixel; the kernel (C, M/group, spatial...) becomes channels-last."""
    kernel = kernel_of(g, W, X.rank, kernel_shape)
    rank = X.rank - 2
    stride = tuple(strides or (1,) * rank)
    dilation = tuple(dilations or (1,) * rank)
    added = tuple(output_padding or (0,) * rank)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape[:-2], strict=True)]
    sides: Any = "valid"
    if output_shape is not None or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        total = [r - s + a for r, s, a in zip(reach, stride, added, strict=True)]
        if output_shape is not None:
            sizes = [g.fixed(dim, "its input's size") for dim in X.shape[2:]]
            total = [
                t + n * s - wanted
                for t, n, s, wanted in zip(
                    total, sizes, stride, tuple(output_shape)[-rank:], strict=True
                )
            ]
        if output_shape is None and min(total) < 0:
            raise UnsupportedModelError(
                f"auto_pad {auto_pad!r} of a kernel that reaches {reach} with the "
                f"stride {list(stride)}: its meaning is not agreed"
            )
        more = tuple(max(0, -t) for t in total)
        added = tuple(a + m for a, m in zip(added, more, strict=True))
        total = [max(0, t) for t in total]
        small = [t // 2 for t in total]
        large = [t - t // 2 for t in total]
        upper = auto_pad == "SAME_UPPER"
        pairs = (
            zip(small, large, strict=True) if upper else zip(large, small, strict=True)
        )
        sides = tuple(pairs)
        sides = sides if any(map(any, sides)) else "valid"
    else:
        sides = padding(auto_pad, pads, rank)
    op = ops.ConvTranspose(stride, dilation, sides, added, group)
    return on_image(g, op, X, kernel=kernel, bias=g.optional(B, "its bias"))


@onnx_op("LpPool")
def LpPool(
    g: OnnxBuilder,
    X: Tensor,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints = (1,),
    p: float = 2,
    pads: Ints | None = None,
    strides: Ints = (1,),
) -> Tensor:
    """Take the p-norm of each window."""
    sides = pool_padding(auto_pad, pads, kernel_shape, strides, dilations)
    op = ops.LpPool(kernel_shape, strides, dilations, sides, bool(ceil_mode), whole(p))
    return on_image(g, op, X)


@onnx_op("GlobalLpPool")
def GlobalLpPool(g: OnnxBuilder, X: Tensor, *, p: float = 2) -> Tensor:
    """Take the p-norm of each channel; the spatial axes stay with size one."""
    op = ops.GlobalLpPool(whole(p), keepdims=True)
    return on_image(g, op, X)


def whole(p: float) -> int:
    """Return a power as a whole number."""
    if p != int(p):
        raise UnsupportedModelError(f"p {p}, wanted a whole number")
    return int(p)


@onnx_op("MaxUnpool", since=9)
def MaxUnpool(
    g: OnnxBuilder,
    X: Tensor,
    I: Tensor,  # noqa: E741
    output_shape: Tensor | None = None,
    *,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Put values where they were before pooling.

    Indices count in the size that the pooling's settings give; what an output_shape
    has beyond that is zero.
    """
    rank = X.rank - 2
    around = tuple(pads or (0,) * (2 * rank))
    stride = tuple(strides or (1,) * rank)
    sizes = tuple(
        (g.fixed(dim, "its input's size") - 1) * s + k - before - after
        for dim, s, k, before, after in zip(
            X.shape[2:], stride, kernel_shape, around[:rank], around[rank:], strict=True
        )
    )
    wanted = (g.numbers(output_shape, "its output_shape") or sizes)[-rank:]
    more = [n - size for n, size in zip(wanted, sizes, strict=True)]
    if min(more) < 0:
        raise UnsupportedModelError(
            f"output_shape {list(wanted)} where its indices count in {list(sizes)}"
        )
    op = ops.MaxUnpool(sizes, "channels_first")
    x, places = image(X, "its input"), image(I, "its indices")
    y = g.operate(op, x, places).channels_first()
    return padded(g, y, (0,) * (x.rank + 2) + tuple(more), "constant", 0.0)


@onnx_op("DeformConv", since=19)
def DeformConv(
    g: OnnxBuilder,
    X: Tensor,
    W: Tensor,
    offset: Tensor,
    B: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Ints = (1,),
    group: int = 1,
    kernel_shape: Ints | None = None,
    offset_group: int = 1,
    pads: Ints | None = None,
    strides: Ints = (1,),
) -> Tensor:
    """Convolve with taps that are moved."""
    weights = g.array(W, "its kernel")
    if X.rank != 4 or weights.ndim != 4:
        raise UnsupportedModelError(f"an input of rank {X.rank}, wanted 4")
    op = ops.DeformConv(
        strides, dilations, padding("NOTSET", pads, 2), group, offset_group
    )
    moves = [None if t is None else t.channels_last() for t in (X, offset, mask)]
    kernel = g.constant(weights.transpose(2, 3, 1, 0))
    x, offsets, masks = moves
    return g.operate(op, x, kernel, offsets, masks, B).channels_first()


@onnx_op("Col2Im", since=18)
def Col2Im(
    g: OnnxBuilder,
    input: Tensor,
    image_shape: Tensor,
    block_shape: Tensor,
    *,
    dilations: Ints = (1,),
    pads: Ints | None = None,
    strides: Ints = (1,),
) -> Tensor:
    """Add blocks up into an image; the channels of a block move behind its places."""
    size = g.numbers(image_shape, "its image_shape") or ()
    block = g.numbers(block_shape, "its block_shape") or ()
    sides = padding("NOTSET", pads, len(size))
    op = ops.Col2Im(size, block, strides, dilations, sides)
    count = math.prod(block)
    rows = g.fixed(input.shape[1], "its number of rows")
    places = (count,) * g.bindings
    channels = (rows // count,) * g.bindings
    batch, _, positions = input.shape
    x = g.reshape(input, (batch, channels, places, positions)).transpose((0, 3, 2, 1))
    x = g.reshape(x, (batch, positions, input.shape[1]))
    return g.apply(op, x).channels_first()
