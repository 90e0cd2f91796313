"""Convolution in which every channel has a kernel of its own."""

from __future__ import annotations

import numpy as np

from ..lowering import Epilogue, Lowering
from ..spec import Array
from ..step import Step
from ..view import View, aligned_zeros
from .moves import Moves, finish, fused


def depthwise(
    low: Lowering,
    moves: Moves,
    out: View,
    x: View,
    kernel: Array,
    bias: Array | None,
    taps: list[int],
    epilogue: Epilogue,
) -> Step:
    """Return the step of a convolution in which each channel has its own kernel."""
    module = low.load("depthwise")
    channels = out.shape[-1]
    rows = kernel.size // (kernel.shape[-3] * channels)
    row_bytes = rows * x.shape[-2] * 4 * module.lanes
    span = max(1, low.level1_bytes // 2 // row_bytes)
    width = kernel.shape[-3]
    if width > 1 and taps[1] - taps[0] != moves.x[3]:
        width = 1
    whole = -(-channels // module.lanes) * module.lanes

    def pack() -> Array:
        packed = aligned_zeros(whole * len(taps))
        flat = np.ascontiguousarray(kernel, np.float32).reshape(len(taps), channels)
        module.pack_weights(flat, packed)
        return packed

    def pack_bias() -> Array:
        packed = aligned_zeros(whole)
        packed[:channels] = 0 if bias is None else bias
        return packed

    return Step(
        module.depthwise(
            moves.size,
            moves.x,
            moves.y,
            moves.r,
            channels,
            len(taps),
            width,
            span,
            finish(epilogue),
            epilogue.residual is not None,
        ),
        (
            out,
            x,
            low.packed(kernel, "depthwise", pack),
            low.packed(kernel if bias is None else bias, "depthwise bias", pack_bias),
            low.constant(np.array(taps, np.int64)),
            epilogue.residual or out,
        ),
        fused("depthwise", epilogue),
    )
