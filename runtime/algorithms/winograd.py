"""3x3 convolution by Winograd's minimal filtering."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..lowering import Epilogue, Lowering
from ..pages import aligned_zeros
from ..scaled_kernel import factors
from ..spec import Array, Shape, Spec
from ..step import Step
from ..view import Halo, View
from .matrix_product import chosen_tile
from .moves import finish, fused

Padding = tuple[tuple[int, int], ...]

MOST_DEPTH = 7
"""Planes of a kernel for volumes; the kernel module's limit."""

LEAST_CHANNELS = 16
"""With fewer channels the transforms cost more than the products save."""

LEAST_TILES = 6
"""With fewer tiles of a picture the transformed weights, larger than the kernel, take
longer to read than the products save."""

FEW_TILES = 16
MANY_WEIGHTS = 1 << 17
"""With so few tiles of 4x4 and so many pairs of channels their weights, four times the
kernel, take longer to read than the products that 2x2 tiles need besides."""

LEAST_CHUNK = 28
"""Tiles, in all planes, that are done together at least."""

LEAST_STRIDED_TILES = 16
LEAST_STRIDED_CHANNELS = 32
LEAST_STRIDED_PAIRS = 1 << 12
"""A stride of two saves less: more of both, and pairs of channels, have to share it."""

MOST_STRIDED_PRODUCTS = 0.87
"""Share of the definition's products that whole tiles may need and still pay."""

STRIDED = (
    (1.0, 0.0, 0.0),
    (0.0, 1.0, 0.0),
    (1.0, 0.0, 1.0),
    (0.0, 1.0, 0.0),
    (0.0, 0.0, 1.0),
)
"""G for a stride of two: the outer taps at 0, 1 and infinity, the inner one between."""


def winograd_tile(out: Spec, kernel: Spec, stride: int) -> int:
    """Return how many outputs a tile should have along a side; 0 for no tiles.

    Parameters
    ----------
    out : Spec
        The result of the convolution, batch first, of images or volumes.
    kernel : Spec
        The weights, 3x3 in the last two spatial axes.
    stride : int
        Along rows and pixels, 1 or 2; a volume's planes have a stride of one.
    """
    if out.rank not in (4, 5):
        return 0
    rows, pixels = out.spatial[-2:]
    planes = math.prod(out.spatial[:-2])
    channels, outputs = kernel.shape[-2:]
    if min(channels, outputs) < LEAST_CHANNELS:
        return 0
    if math.prod(kernel.shape[:-4]) > MOST_DEPTH:
        return 0
    small = planes * -(-rows // 2) * -(-pixels // 2)
    if stride == 2:
        pays = (
            small >= LEAST_STRIDED_TILES
            and min(channels, outputs) >= LEAST_STRIDED_CHANNELS
            and channels * outputs >= LEAST_STRIDED_PAIRS
            and 25 * small <= MOST_STRIDED_PRODUCTS * 9 * planes * rows * pixels
        )
        return 2 if pays else 0
    large = planes * -(-rows // 4) * -(-pixels // 4)
    if large > FEW_TILES or (
        large >= LEAST_TILES and channels * outputs < MANY_WEIGHTS
    ):
        return 4
    return 2 if small >= LEAST_TILES else 0


def winograd_others(tile: int, stride: int) -> tuple[int, ...]:
    """Return the tiles that might do as well; how well depends on the machine.

    The larger one multiplies less and reads more.
    """
    return (6 - tile,) if stride == 1 else ()


def winograd_halo(
    tile: int, stride: int, x: Spec, counts: Shape, depth: int, padding: Padding
) -> Halo:
    """Return the zeros that whole tiles of outputs reach into."""
    axes = [(1, 1, depth), (tile, stride, 3), (tile, stride, 3)][-len(counts) :]
    return (
        (0, 0),
        *(
            (before, max(0, (-(-count // t) * t - 1) * s + k - before - n))
            for n, count, (t, s, k), (before, _) in zip(
                x.spatial, counts, axes, padding, strict=True
            )
        ),
        (0, 0),
    )


def winograd(
    low: Lowering,
    tile: int,
    stride: int,
    out: View,
    x: View,
    kernel: Array,
    bias: Array | None,
    padding: Padding,
    epilogue: Epilogue,
) -> Step:
    """Return the step.

    Parameters
    ----------
    tile : int
        From `winograd_tile`.
    stride : int
        Along rows and pixels, 1 or 2.
    x : View
        With at least `winograd_halo` around it.
    kernel : Array
        (3, 3, channels, outputs), for volumes with an axis of planes before.
    """
    module = low.load("winograd")
    depth, _, _, channels, outputs = (1, *kernel.shape)[-5:]
    planes, rows, pixels = (1, *out.spec.spatial)[-3:]
    if epilogue.halved:
        rows, pixels = 2 * rows, 2 * pixels
    down, across = -(-rows // tile), -(-pixels // tile)
    tiles = out.shape[0] * down * across
    points = (tile - 1) * stride + 3
    sums = 3 if stride == 2 else points
    v_bytes = 4 * points**2 * channels * (planes + depth - 1)
    m_bytes = 4 * sums**2 * outputs * planes
    weights = 4 * points**2 * channels * outputs * depth
    least = -(-LEAST_CHUNK // planes)
    chunk = chunk_tiles(
        tiles, stride, least, v_bytes + m_bytes, weights, low.level2_bytes
    )
    vectors = -(-outputs // module.lanes)
    line = 4 * module.lanes * channels * depth
    in_cache = max(1, low.level1_bytes * 2 // 3 // line)
    shared = vectors if chunk < tiles else -(-vectors // 2)
    product = f"{channels}x{outputs}"
    mr, nr = chosen_tile(low, product, chunk * planes, shared, module, in_cache)
    elements = module.scratch_elements(
        tile, stride, depth, planes, channels, outputs, chunk
    )
    residual = epilogue.residual
    step = module.winograd(
        tile,
        stride,
        depth,
        out.shape[0],
        down,
        across,
        planes,
        rows,
        pixels,
        channels,
        outputs,
        chunk,
        distances(x),
        distances(out),
        distances(residual or out),
        (mr, nr),
        finish(epilogue),
        residual is not None,
        epilogue.halved,
    )
    start = sum(
        before * stride
        for (before, _), stride in zip(padding, x.strides[1:-1], strict=True)
    )
    x = replace(x, offset=x.offset - start)

    def fill(packed: Array) -> None:
        g = np.array(STRIDED)
        if stride == 1:
            g = interpolation(module.POINTS[tile], 3)
        array, scale = factors(kernel)
        module.pack_weights(
            array.reshape(-1, *kernel.shape[-4:]), scale, g, tile, stride, nr, packed
        )

    packed = low.filled(
        kernel,
        ("winograd", tile, stride, nr),
        depth * points**2 * channels * vectors * module.lanes,
        fill,
    )

    def pack_bias() -> Array:
        packed = aligned_zeros(vectors * module.lanes)
        packed[:outputs] = 0 if bias is None else bias
        return packed

    b = low.packed(kernel if bias is None else bias, "winograd bias", pack_bias)
    scratch = low.scratch(low.threads * elements)
    strided = " stride 2" if stride == 2 else ""
    name = fused(f"winograd F({tile}x{tile}){strided} {mr}x{nr}", epilogue)
    return Step(step, (out, x, packed, b, residual or out, scratch), name)


def distances(view: View) -> tuple[int, ...]:
    """Return the distances between images, planes, rows and pixels."""
    image, *spatial, _ = view.strides
    return (image, *(0,) * (3 - len(spatial)), *spatial)


def chunk_tiles(
    tiles: int,
    stride: int,
    least: int,
    per_tile: int,
    weights: int,
    level2_bytes: int,
) -> int:
    """Return how many tiles to do together; all of them if there are few.

    V and M of a chunk, `per_tile` bytes a tile, should stay in the second-level cache,
    but a chunk must be large enough that reading the transformed weights again for each
    costs little, `least` tiles or more. With a stride of two most of a tile is V, which
    the threads should not each make: two chunks, where that does not double the reading
    of large weights.
    """
    fit = max(least, level2_bytes // per_tile)
    if stride == 2:
        fit = max(least, min(fit, -(-tiles // 2)))
    if tiles <= (fit if weights <= 4 * level2_bytes else 2 * fit):
        return tiles
    chunks = -(-tiles // fit)
    chunks += chunks % 2
    return -(-tiles // chunks)


def interpolation(points: tuple[float, ...], size: int, zero: bool = True) -> Array:
    """Return G: a kernel of `size` at zero, plus and minus each point, and infinity.

    Zero may be missing. Every row is divided by the product of its point's distances to
    the others.
    """
    finite = [*(0.0,) * zero, *(sign * point for point in points for sign in (1, -1))]
    rows = [
        [
            p**k / math.prod(p - other for other in finite if other != p)
            for k in range(size)
        ]
        for p in finite
    ]
    return np.array([*rows, [0.0] * (size - 1) + [1.0]])
