"""3x3 convolution by Winograd's minimal filtering."""

from __future__ import annotations

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
"""With fewer tiles of a picture the transformed weights, four times as many, take
longer to read than the products save."""


def suits_winograd(out: Spec, kernel: Spec) -> bool:
    """Return whether a convolution of stride one is faster this way.

    Parameters
    ----------
    out : Spec
        The result, batch first.
    kernel : Spec
        The weights.
    """
    if out.rank != 4 or kernel.shape[:2] != (3, 3):
        return False
    _, rows, pixels, outputs = out.shape
    tiles = -(-rows // 4) * -(-pixels // 4)
    return min(kernel.shape[2], outputs) >= LEAST_CHANNELS and tiles >= LEAST_TILES


def winograd_halo(x: Spec, counts: Shape, padding: Padding) -> Halo:
    """Return the zeros that whole tiles of 4x4 outputs reach into."""
    return (
        (0, 0),
        *(
            (before, max(0, -(-count // 4) * 4 + 2 - before - n))
            for n, count, (before, _) in zip(x.spatial, counts, padding, strict=True)
        ),
        (0, 0),
    )


def winograd(
    low: Lowering,
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
    x : View
        With at least `winograd_halo` around it.
    kernel : Array
        (3, 3, channels, outputs).
    """
    module = low.load("winograd")
    channels, outputs = kernel.shape[2:]
    n, rows, pixels, _ = out.shape
    down, across = -(-rows // 4), -(-pixels // 4)
    tiles = n * down * across
    chunk = chunk_tiles(tiles, channels, outputs, low.level2_bytes)
    vectors = -(-outputs // module.lanes)
    line = 4 * module.lanes * channels
    in_cache = max(1, low.level1_bytes * 2 // 3 // line)
    mr, nr = best_tile(chunk, vectors, module.registers, in_cache)
    v_elements, m_elements = module.scratch_elements(channels, outputs, chunk)
    residual = epilogue.residual
    whole, inputs, products, results = module.winograd(
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
        kernel, ("winograd", nr), lambda: transformed(low, kernel, vectors, nr)
    )

    def pack_bias() -> Array:
        packed = aligned_zeros(vectors * module.lanes)
        packed[:outputs] = 0 if bias is None else bias
        return packed

    b = low.packed(kernel if bias is None else bias, "winograd bias", pack_bias)
    other = residual or out
    name = fused(f"winograd {mr}x{nr}", epilogue)
    if chunk < tiles:
        scratch = low.scratch(low.threads * (v_elements + m_elements))
        return [Step(whole, (out, x, weights, b, other, scratch), name)]
    v, m = low.scratch(v_elements), low.scratch(m_elements)
    return [
        Step(inputs, (v, x), "winograd input"),
        Step(products, (m, v, weights), name),
        Step(results, (out, x, weights, b, other, m), "winograd output"),
    ]


def chunk_tiles(tiles: int, channels: int, outputs: int, level2_bytes: int) -> int:
    """Return how many tiles to do together; all of them if there are few.

    V and M of a chunk should stay in the second-level cache, but a chunk must be large
    enough that reading the transformed weights again for each costs little.
    """
    per_tile = 36 * 4 * (channels + outputs)
    fit = max(28, level2_bytes // per_tile)
    if tiles <= 2 * fit:
        return tiles
    chunks = -(-tiles // fit)
    chunks += chunks % 2
    return -(-tiles // chunks)


def transformed(low: Lowering, kernel: Array, vectors: int, nr: int) -> Array:
    """Return G g G^T of every kernel, packed for the products of each place."""
    a, b = low.load("winograd").POINTS
    scale_a = 2 * a * a * (a * a - b * b)
    scale_b = 2 * b * b * (b * b - a * a)
    g = np.array(
        [
            [1 / (a * a * b * b), 0, 0],
            [1 / scale_a, a / scale_a, a * a / scale_a],
            [1 / scale_a, -a / scale_a, a * a / scale_a],
            [1 / scale_b, b / scale_b, b * b / scale_b],
            [1 / scale_b, -b / scale_b, b * b / scale_b],
            [0, 0, 1],
        ]
    )
    module = low.load("conv")
    channels, outputs = kernel.shape[2:]
    half = np.einsum("ai,ijcn->ajcn", g, kernel.astype(np.float64))
    full = np.einsum("bj,ajcn->abcn", g, half).astype(np.float32)
    places = full.reshape(36, 1, channels, outputs)
    size = vectors * module.lanes * channels
    packed = aligned_zeros(36 * size)
    for place, weight in enumerate(places):
        module.pack_weights(weight, 1, nr, packed[place * size : (place + 1) * size])
    return packed
