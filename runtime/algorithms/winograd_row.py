"""Convolution by Winograd's minimal filtering along the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from ..lowering import Epilogue, Lowering
from ..pages import aligned_zeros
from ..scaled_kernel import factors
from ..spec import Array, Shape, Spec
from ..step import Step
from ..view import View
from .matrix_product import chosen_tile
from .moves import finish, fused
from .winograd import distances, interpolation

WIDTHS = (3, 4, 5)
"""Taps of a row that tiles serve; a stride counts as so many times fewer."""

MOST_TAPS = 64
"""Planes times rows of a kernel; the kernel module's limit."""

LEAST_OUTPUTS = 16
"""With fewer outputs the transform of the input has too few to serve."""

LEAST_SAVED: Mapping[int, int] = MappingProxyType({4: 36, 8: 60, 16: 27})
"""How many products an output must be spared to pay for the transforms, by the lanes of
a vector: AVX2 multiplies twice while it stores once, the others as often."""

LEAST_WIDE_GAIN = 1.1
"""How many times fewer products a tile of 5 must need than one of 4, which is more
accurate."""

LEAST_PIXELS = 4
LEAST_ALONE = 16
"""With shorter rows the transformed weights, up to twice the kernel, take longer to
read than the products save; the second where there is one row. How many rows there are
may not count, because strips of one image differ in height."""

LEAST_CHUNK = 28
"""Tiles that are done together at least."""


def row_tile(out: Spec, kernel: Spec, stride: int, lanes: int = 16) -> int:
    """Return how many outputs a tile should have; 0 for no tiles.

    Parameters
    ----------
    out : Spec
        The result of the convolution, batch first.
    kernel : Spec
        The weights.
    stride : int
        Along a row.
    lanes : int
        Of a vector; with 16 there are tiles wherever there are with fewer.
    """
    taps, channels, outputs = kernel.shape[-3:]
    width = -(-taps // stride)
    rows = math.prod(kernel.shape[:-3])
    if width not in WIDTHS or rows > MOST_TAPS or outputs < LEAST_OUTPUTS:
        return 0
    if out.spatial[-1] < (LEAST_PIXELS if out.rank > 3 else LEAST_ALONE):
        return 0
    products = {tile: _products(out, tile, width) for tile in (4, 5)[: width // 5 + 1]}
    tile = 4
    if 5 in products and products[4] >= LEAST_WIDE_GAIN * products[5]:
        tile = 5
    saved = rows * channels * (taps - stride * products[tile])
    return tile if saved >= LEAST_SAVED[lanes] else 0


def _products(out: Spec, tile: int, width: int) -> float:
    """Return how many products a kernel row takes for each output and channel."""
    pixels = out.spatial[-1]
    return -(-pixels // tile) * (tile + width - 1) / pixels


def row_reach(tile: int, taps: int, stride: int, pixels: int) -> tuple[int, int]:
    """Return how many taps and outputs a row has if its last tile is whole."""
    return -(-taps // stride) * stride, -(-pixels // tile) * tile


def block_of(
    rows: int, across: int, per_tile: int, weights: int, level2_bytes: int
) -> tuple[int, int]:
    """Return how many rows and how many tiles of a row to do together.

    V and M of a block, `per_tile` bytes a tile, are to take a quarter of the
    second-level cache, or half if the weights, which each block reads, do not fit
    beside them. Blocks are even in number, for two threads, unless there are too few
    tiles for that.
    """
    fit = max(LEAST_CHUNK, level2_bytes // 4 // per_tile)
    if weights > level2_bytes:
        fit *= 2
    if across > fit:
        return 1, _even_share(across, fit)
    if rows * across < 2 * LEAST_CHUNK:
        return rows, across
    if rows == 1:
        return 1, -(-across // 2)
    return _even_share(rows, min(fit // across, -(-rows // 2))), across


def _even_share(number: int, most: int) -> int:
    """Return the size of an even number of shares, none above `most`."""
    return -(-number // (2 * -(-number // (2 * most))))


def winograd_row(
    low: Lowering,
    tile: int,
    out: View,
    x: View,
    kernel: Array,
    bias: Array | None,
    origin: int,
    stride: Shape,
    dilation: Shape,
    epilogue: Epilogue,
) -> Step:
    """Return the step.

    Parameters
    ----------
    tile : int
        From `row_tile`.
    x : View
        With zeros, or anything that is a number, to the end of what `row_reach` says.
        With a stride along the row its pixels follow each other without a gap.
    kernel : Array
        (spatial..., channels, outputs), of one to three spatial axes.
    origin : int
        Offset of the first tap into `x`.
    stride, dilation : tuple of int
        For each spatial axis; rows are not dilated.
    """
    module = low.load("winograd_row")
    lanes: int = module.lanes
    depth, height, taps, channels, outputs = (*(1,) * 3, *kernel.shape)[-5:]
    width = -(-taps // stride[-1])
    points = tile + width - 1
    inner = channels * stride[-1]
    vectors = -(-outputs // lanes)
    planes, rows, pixels = (1, 1, *out.shape[1:-1])[-3:]
    steps = ((1, 1, *stride)[-3:-1], (1, 1, *dilation)[-3:-1])
    across = -(-pixels // tile)
    terms = depth * height * inner
    block = block_of(
        rows,
        across,
        4 * points * (inner * depth + vectors * lanes),
        4 * points * terms * outputs,
        low.level2_bytes,
    )
    in_cache = max(1, low.level1_bytes * 2 // 3 // (4 * lanes * terms))
    shared = vectors if block != (rows, across) else -(-vectors // 2)
    mr, nr = chosen_tile(
        low, f"{terms}x{outputs}", math.prod(block), shared, module, in_cache
    )
    step = module.winograd_row(
        tile,
        width,
        (out.shape[0], planes, rows, pixels),
        block,
        (depth, height),
        *steps,
        inner,
        outputs,
        (*distances(x)[:3], x.strides[-2] * stride[-1]),
        distances(out),
        distances(epilogue.residual or out),
        (mr, nr),
        finish(epilogue),
        epilogue.residual is not None,
    )

    def pack() -> Array:
        array, scale = factors(kernel)
        padded = np.zeros((depth * height, width * stride[-1], channels, outputs))
        padded[:, :taps] = array.reshape(-1, taps, channels, outputs) * scale
        g = interpolation(module.POINTS[points], width, zero=points % 2 == 0)
        u = np.tensordot(g, padded.reshape(-1, width, inner, outputs), (1, 1))
        u = u.reshape(points, terms, outputs)
        packed = aligned_zeros(points * terms * vectors * lanes)
        place = packed.reshape(points, -1)
        for first in range(0, vectors, nr):
            part = u[..., first * lanes : (first + nr) * lanes]
            to = place[:, first * lanes * terms : (first + nr) * lanes * terms]
            to.reshape(points, terms, -1)[..., : part.shape[-1]] = part
        return packed

    def pack_bias() -> Array:
        packed = aligned_zeros(vectors * lanes)
        packed[:outputs] = 0 if bias is None else bias
        return packed

    elements = module.scratch_elements(
        tile, width, block, (depth, height), *steps, inner, outputs
    )
    operands = (
        out,
        replace(x, offset=x.offset + origin),
        low.packed(kernel, ("winograd row", tile, stride[-1], nr), pack),
        low.packed(kernel if bias is None else bias, "winograd bias", pack_bias),
        epilogue.residual or out,
        low.scratch(low.threads * elements),
    )
    name = f"winograd F({tile}, {width}) {mr}x{nr}"
    return Step(step, operands, fused(name, epilogue))
