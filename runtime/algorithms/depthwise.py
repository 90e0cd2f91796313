"""Convolution in which every channel has a kernel of its own, or shares it with few."""

from __future__ import annotations

import numpy as np

from ..lowering import Epilogue, Lowering
from ..pages import aligned_zeros
from ..spec import Array
from ..step import Step
from ..view import View
from .moves import Moves, finish, fused
from .narrow import LEAST_LANES

MIXED_WIDTH = 3
"""Taps of a row that share a permuted input."""


def suits_depthwise(low: Lowering, kernel: Array, groups: int) -> bool:
    """Return whether whole groups fit into a vector side by side."""
    inputs, outputs = kernel.shape[-2], kernel.shape[-1] // groups
    if inputs == outputs == 1:
        return True
    lanes: int = low.load("depthwise").lanes
    return lanes >= LEAST_LANES and groups > 1 and max(inputs, outputs) <= lanes


def depthwise(
    low: Lowering,
    moves: Moves,
    out: View,
    x: View,
    kernel: Array,
    bias: Array | None,
    taps: list[int],
    groups: int,
    epilogue: Epilogue,
) -> Step:
    """Return the step of a convolution whose groups stand side by side in vectors.

    Parameters
    ----------
    kernel : Array
        (taps..., inputs a group, outputs).
    taps : list of int
        Offsets into `x`.
    """
    module = low.load("depthwise")
    lanes: int = module.lanes
    inputs, outputs = kernel.shape[-2], kernel.shape[-1] // groups
    alone = inputs == outputs == 1
    beside = lanes // max(inputs, outputs)
    rows = kernel.size // (kernel.shape[-3] * kernel.shape[-2] * kernel.shape[-1])
    row_bytes = rows * x.shape[-2] * 4 * lanes
    span = max(1, low.level1_bytes // 2 // row_bytes)
    width = kernel.shape[-3]
    follow = width > 1 and taps[1] - taps[0] == moves.x[3]
    if not follow or not (alone or width == MIXED_WIDTH):
        width = 1

    def vectors(array: Array) -> Array:
        """Return (vectors, ..., lanes) of an array whose last axis is channels."""
        *front, channels = array.shape
        used = beside * outputs
        count = -(-channels // used)
        whole = np.zeros((*front, count * used), np.float32)
        whole[..., :channels] = array
        spread = np.zeros((count, *front, lanes), np.float32)
        spread[..., :used] = np.moveaxis(whole.reshape(*front, count, used), -2, 0)
        return spread

    def pack() -> Array:
        weight: Array = np.asarray(kernel).reshape(-1, width, *kernel.shape[-2:])
        spread = vectors(np.swapaxes(weight, 1, 2))
        packed = aligned_zeros(spread.size)
        packed[:] = spread.reshape(-1)
        return packed

    def pack_bias() -> Array:
        spread = vectors(np.zeros(kernel.shape[-1]) if bias is None else bias)
        packed = aligned_zeros(spread.size)
        packed[:] = spread.reshape(-1)
        return packed

    group = np.minimum(np.arange(lanes) // outputs, beside - 1)
    lane = (group * inputs + np.arange(inputs)[:, None]).astype(np.int32)
    name = "depthwise" if alone else f"depthwise {inputs}x{outputs}"
    return Step(
        module.depthwise(
            moves.size,
            moves.x,
            moves.y,
            moves.r,
            kernel.shape[-1],
            (inputs, outputs, beside),
            len(taps),
            width,
            span,
            finish(epilogue),
            epilogue.residual is not None,
        ),
        (
            out,
            x,
            low.packed(kernel, ("depthwise", groups, width), pack),
            low.packed(
                kernel if bias is None else bias, ("depthwise bias", groups), pack_bias
            ),
            low.constant(np.array(taps, np.int64)),
            epilogue.residual or out,
            low.constant(lane),
        ),
        fused(name, epilogue),
    )
