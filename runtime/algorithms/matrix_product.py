"""Convolution as a matrix product over taps and channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType, ModuleType

import numpy as np

from ..lowering import Epilogue, Lowering
from ..pages import aligned_zeros
from ..scaled_kernel import factors
from ..spec import Array
from ..step import Step
from ..view import View
from .moves import Moves, finish, fused

MOST_VECTORS = 4
"""Vectors of output channels in a tile, at most."""

NONE_PAIRED: Mapping[int, int] = MappingProxyType({})


def matrix_product(
    low: Lowering,
    moves: Moves,
    out: View,
    x: View,
    kernel: Array,
    bias: Array | None,
    taps: list[int],
    run: int,
    groups: int,
    epilogue: Epilogue,
) -> Step:
    """Return the step of a convolution as a product over taps and channels.

    Parameters
    ----------
    kernel : Array
        (taps..., channels a group, outputs), or (channels, outputs).
    taps : list of int
        Offsets into `x`.
    run : int
        How many contiguous elements of `x` follow each offset.
    """
    module = low.load("conv")
    lanes: int = module.lanes
    outputs = kernel.shape[-1] // groups
    vectors = -(-outputs // lanes)
    depth = kernel.size // kernel.shape[-1]
    paired = module.most_paired if 0 < outputs % lanes <= lanes // 2 else {}
    width = moves.size[3]
    rows, nr = chosen_tile(
        low, f"{depth}x{outputs}", width, vectors, module, paired=paired
    )
    together = pixels_together(width, vectors, nr, paired)

    def fill(packed: Array) -> None:
        array, scale = factors(kernel)
        module.pack_weights(
            array.reshape(-1, *kernel.shape[-2:]), scale, groups, nr, packed
        )

    def pack_bias() -> Array:
        packed = aligned_zeros(groups * vectors * lanes)
        if bias is not None:
            module.pack_bias(np.ascontiguousarray(bias, np.float32), groups, packed)
        return packed

    name = "pointwise" if len(taps) == 1 else "taps gemm"
    return Step(
        module.conv(
            moves.size,
            moves.x,
            moves.y,
            moves.r,
            groups,
            len(taps),
            run,
            x.shape[-1] // groups,
            outputs,
            (rows, nr, together),
            chunk_tiles(moves, rows, low.level2_bytes),
            finish(epilogue),
            epilogue.residual is not None,
            distant(x, out, epilogue, low.level2_bytes),
        ),
        (
            out,
            x,
            low.filled(
                kernel,
                ("conv tiles", groups, nr),
                groups * vectors * lanes * depth,
                fill,
            ),
            low.packed(
                kernel if bias is None else bias, ("conv tiles bias", groups), pack_bias
            ),
            low.constant(np.array(taps, np.int64)),
            epilogue.residual or out,
        ),
        fused(f"{name} {rows}x{nr}{' paired' * (together == 2)}", epilogue),
    )


def chosen_tile(
    low: Lowering,
    product: str,
    width: int,
    vectors: int,
    module: ModuleType,
    most_in_cache: int = 4,
    paired: Mapping[int, int] = NONE_PAIRED,
) -> tuple[int, int]:
    """Return the (pixels, vectors) of the tile of a product, as the plan chooses."""
    registers, most = module.registers, min(MOST_VECTORS, vectors)
    _, guess = best_tile(width, vectors, registers, most_in_cache, paired=paired)
    others = [nr for nr in range(1, most + 1) if nr != guess]
    nr = low.choose(f"vectors of {product}", (guess, *others)) if width > 1 else guess
    return best_tile(width, vectors, registers, most_in_cache, (nr,), paired)


def best_tile(
    width: int,
    vectors: int,
    registers: int,
    most_in_cache: int = 4,
    offered: Sequence[int] = range(1, MOST_VECTORS + 1),
    paired: Mapping[int, int] = NONE_PAIRED,
) -> tuple[int, int]:
    """Return the (pixels, vectors) of the tile that needs the fewest cycles.

    A step of the K loop takes half a cycle a product or half a cycle a load, whichever
    is more, and no less than the four cycles until a sum can be added to again. Loads
    have a small price of their own, which decides between equals; it is higher if the
    weights of more than `most_in_cache` vectors come from the second-level cache.
    Only the numbers of vectors that are `offered` are looked at. If the last vector is
    needed by half, `paired` has, by its vectors, the most pixels of a tile in which two
    pixels share it.
    """
    best = (math.inf, 1, 1)
    for nr in offered:
        if nr > vectors:
            break
        together = pixels_together(width, vectors, nr, paired)
        most = largest_tile(nr, registers)
        if together == 2 and nr == vectors:
            most = paired[nr]
        units = width // together
        tiles = -(-units // (most // together))
        long = units % tiles
        small = units // tiles
        last = vectors % nr or nr
        cycles = 0.0
        blocks = ((nr, (vectors - 1) // nr, 0.0), (last, 1, (together - 1) / 2))
        for block, count, spared in blocks:
            for pixels, times in ((small + 1, long), (small, tiles - long)):
                if count and times:
                    pixels *= together
                    loads = pixels + block
                    cost = max(pixels * (block - spared), loads, 8) / 2 + loads / 10
                    cost += block * 0.75 * (nr > most_in_cache)
                    cycles += count * times * cost
        best = min(best, (cycles, -(-units // tiles) * together, nr))
    return best[1], best[2]


def pixels_together(
    width: int, vectors: int, nr: int, paired: Mapping[int, int]
) -> int:
    """Return 2 if two pixels share the last vector of `vectors` in blocks of `nr`."""
    last = vectors % nr or nr
    return 2 if last in paired and width % 2 == 0 else 1


def largest_tile(nr: int, registers: int) -> int:
    """Return the most pixels of a tile of `nr` vectors.

    The registers hold the sums, the weights of a step, and where they are few one
    input number.
    """
    if registers == 32:
        return min(14, (registers - nr) // nr)
    return min(12, (registers - 1 - nr) // nr)


def chunk_tiles(moves: Moves, rows: int, level2_bytes: int) -> int:
    """Return how many tiles to compute before going on to the next weights.

    Their input should stay in a third of the second-level cache.
    """
    budget = level2_bytes // 3
    in_row = -(-moves.size[3] // rows)
    row_bytes = 4 * max(abs(moves.x[2]), 1)
    if moves.size[2] > 1 and row_bytes <= budget:
        return in_row * (budget // row_bytes)
    return max(1, budget // (4 * rows * max(abs(moves.x[3]), 1)))


def distant(
    x: View, out: View, epilogue: Epilogue, level2_bytes: int
) -> tuple[bool, bool]:
    """Return whether what is read, and what is stored, does not stay in the cache."""
    stored = out.spec.nbytes * (1 if epilogue.residual is None else 2)
    return x.spec.nbytes > level2_bytes // 2, stored > level2_bytes // 2
