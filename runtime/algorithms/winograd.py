"""3x3 convolution by Winograd's minimal filtering."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..lowering import Epilogue, Lowering
from ..spec import Array, Shape, Spec
from ..step import Step
from ..view import Halo, View, aligned_zeros
from .matrix_product import best_tile
from .moves import finish, fused

Padding = tuple[tuple[int, int], ...]

LEAST_CHANNELS = 16
"""With fewer channels the transforms cost more than the products save."""

LEAST_TILES = 6
"""With fewer tiles of a picture the transformed weights, larger than the kernel, take
longer to read than the products save."""

FEW_TILES = 16
MANY_WEIGHTS = 1 << 15
"""With so few tiles of 4x4 and so many pairs of channels their weights, four times the
kernel, take longer to read than the products that 2x2 tiles need besides."""


def winograd_tile(out: Spec, kernel: Spec) -> int:
    """Return how many outputs a tile should have along a side; 0 for no tiles.

    Parameters
    ----------
    out : Spec
        The result of a convolution of stride one, batch first.
    kernel : Spec
        The weights.
    """
    if out.rank != 4 or kernel.shape[:2] != (3, 3):
        return 0
    _, rows, pixels, outputs = out.shape
    channels = kernel.shape[2]
    if min(channels, outputs) < LEAST_CHANNELS:
        return 0
    large = -(-rows // 4) * -(-pixels // 4)
    if large > FEW_TILES or large >= LEAST_TILES and channels * outputs < MANY_WEIGHTS:
        return 4
    return 2 if -(-rows // 2) * -(-pixels // 2) >= LEAST_TILES else 0


def winograd_halo(tile: int, x: Spec, counts: Shape, padding: Padding) -> Halo:
    """Return the zeros that whole tiles of outputs reach into."""
    return (
        (0, 0),
        *(
            (before, max(0, -(-count // tile) * tile + 2 - before - n))
            for n, count, (before, _) in zip(x.spatial, counts, padding, strict=True)
        ),
        (0, 0),
    )


def winograd(
    low: Lowering,
    tile: int,
    out: View,
    x: View,
    kernel: Array,
    bias: Array | None,
    padding: Padding,
    epilogue: Epilogue,
) -> list[Step]:
    """Return the steps: one if chunks of tiles can be done by themselves, else three.

    Parameters
    ----------
    tile : int
        From `winograd_tile`.
    x : View
        With at least `winograd_halo` around it.
    kernel : Array
        (3, 3, channels, outputs).
    """
    module = low.load("winograd")
    channels, outputs = kernel.shape[2:]
    n, rows, pixels, _ = out.shape
    down, across = -(-rows // tile), -(-pixels // tile)
    tiles = n * down * across
    per_tile = (tile + 2) ** 2 * 4 * (channels + outputs)
    chunk = chunk_tiles(tiles, per_tile, low.level2_bytes)
    vectors = -(-outputs // module.lanes)
    line = 4 * module.lanes * channels
    in_cache = max(1, low.level1_bytes * 2 // 3 // line)
    mr, nr = best_tile(chunk, vectors, module.registers, in_cache)
    v_elements, m_elements = module.scratch_elements(tile, channels, outputs, chunk)
    residual = epilogue.residual
    whole, inputs, products, results = module.winograd(
        tile,
        n,
        down,
        across,
        rows,
        pixels,
        channels,
        outputs,
        chunk,
        x.strides[:3],
        out.strides[:3],
        residual.strides[:3] if residual else (0, 0, 0),
        (mr, nr),
        finish(epilogue),
        residual is not None,
    )
    start = sum(
        before * stride
        for (before, _), stride in zip(padding, x.strides[1:3], strict=True)
    )
    x = replace(x, offset=x.offset - start)
    weights = low.packed(
        kernel,
        ("winograd", tile, nr),
        lambda: transformed(low, tile, kernel, vectors, nr),
    )

    def pack_bias() -> Array:
        packed = aligned_zeros(vectors * module.lanes)
        packed[:outputs] = 0 if bias is None else bias
        return packed

    b = low.packed(kernel if bias is None else bias, "winograd bias", pack_bias)
    other = residual or out
    name = fused(f"winograd F({tile}x{tile}) {mr}x{nr}", epilogue)
    if chunk < tiles:
        scratch = low.scratch(low.threads * (v_elements + m_elements))
        return [Step(whole, (out, x, weights, b, other, scratch), name)]
    v, m = low.scratch(v_elements), low.scratch(m_elements)
    return [
        Step(inputs, (v, x), "winograd input"),
        Step(products, (m, v, weights), name),
        Step(results, (out, x, weights, b, other, m), "winograd output"),
    ]


def chunk_tiles(tiles: int, per_tile: int, level2_bytes: int) -> int:
    """Return how many tiles to do together; all of them if there are few.

    V and M of a chunk, `per_tile` bytes a tile, should stay in the second-level cache,
    but a chunk must be large enough that reading the transformed weights again for each
    costs little.
    """
    fit = max(28, level2_bytes // per_tile)
    if tiles <= 2 * fit:
        return tiles
    chunks = -(-tiles // fit)
    chunks += chunks % 2
    return -(-tiles // chunks)


def transformed(
    low: Lowering, tile: int, kernel: Array, vectors: int, nr: int
) -> Array:
    """Return G g G^T of every kernel, packed for the products of each place."""
    g = interpolation(low.load("winograd").POINTS[tile])
    module = low.load("conv")
    channels, outputs = kernel.shape[2:]
    half = np.einsum("ai,ijcn->ajcn", g, kernel.astype(np.float64))
    full = np.einsum("bj,ajcn->abcn", g, half).astype(np.float32)
    places = full.reshape(-1, 1, channels, outputs)
    size = vectors * module.lanes * channels
    packed = aligned_zeros(len(places) * size)
    for place, weight in enumerate(places):
        module.pack_weights(weight, 1, nr, packed[place * size : (place + 1) * size])
    return packed


def interpolation(points: tuple[float, ...]) -> Array:
    """Return G: a kernel of three at 0, plus and minus each point, and infinity.

    Every row is divided by the product of its point's distances to the others.
    """
    finite = [0.0, *(sign * point for point in points for sign in (1, -1))]
    rows = [
        [
            p**k / math.prod(p - other for other in finite if other != p)
            for k in range(3)
        ]
        for p in finite
    ]
    return np.array([*rows, [0, 0, 1]])
