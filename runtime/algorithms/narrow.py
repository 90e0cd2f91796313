"""Convolution with few outputs, in which several pixels share a vector."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ..lowering import Epilogue, Lowering
from ..pages import aligned_zeros
from ..spec import Array, Shape
from ..step import Step
from ..view import View
from .moves import finish, fused

LEAST_GAIN = 1.25
"""How many times as many lanes the matrix product must take."""

LEAST_LANES = 8
"""Narrower vectors have no instruction that permutes them."""


def fits_narrow(
    low: Lowering,
    out: View,
    x: View,
    kernel: Array,
    stride: Shape,
    dilation: Shape,
    epilogue: Epilogue,
) -> bool:
    """Return whether an ungrouped convolution can be computed this way.

    The inputs of a vector must lie in one, the outputs of a row side by side, and rows
    of the kernel as far apart as rows of the output. How many rows there are may not
    count, because the order of the sums is not that of the matrix product, and strips
    of one image differ in height.
    """
    module = low.load("narrow")
    outputs = out.shape[-1]
    if out.rank < 4 or kernel.shape[-4] not in module.heights:
        return False
    dense = out.strides[-2:] == (outputs, 1) and x.strides[-1] == 1
    window = (module.lanes + outputs - 2) // outputs * stride[-1] * x.strides[-2] + 1
    return (
        dense
        and window <= module.lanes
        and stride[-2] == dilation[-2]
        and epilogue.residual is None
    )


def suits_narrow(
    low: Lowering,
    out: View,
    x: View,
    kernel: Array,
    stride: Shape,
    dilation: Shape,
    epilogue: Epilogue,
) -> bool:
    """Return whether an ungrouped convolution is faster this way.

    It is where lanes would be idle, and with five rows and one vector of outputs, for
    which the matrix product loads an input for every product.
    """
    if not fits_narrow(low, out, x, kernel, stride, dilation, epilogue):
        return False
    lanes: int = low.load("narrow").lanes
    pixels, outputs = out.shape[-2:]
    whole = -(-outputs // lanes) * lanes * pixels
    taken = -(-pixels * outputs // lanes) * lanes
    shared = kernel.shape[-4] == 5 and outputs == lanes == 16
    return lanes >= LEAST_LANES and (shared or whole >= LEAST_GAIN * taken)


def narrow(
    low: Lowering,
    out: View,
    x: View,
    kernel: Array,
    bias: Array | None,
    origin: int,
    stride: Shape,
    dilation: Shape,
    epilogue: Epilogue,
) -> Step:
    """Return the step of a convolution with few outputs.

    Parameters
    ----------
    kernel : Array
        (spatial..., channels, outputs), of two or three spatial axes.
    origin : int
        Offset of the first tap into `x`.
    stride, dilation : tuple of int
        For each spatial axis.
    """
    module = low.load("narrow")
    lanes: int = module.lanes
    outputs = out.shape[-1]
    period = outputs // math.gcd(outputs, lanes)
    number = np.arange(period * lanes).reshape(period, lanes)
    channel = number % outputs
    moving = [a * b for a, b in zip(stride, x.strides[1:-1], strict=True)]
    pixel = number // outputs - number[:, :1] // outputs
    index = (pixel * moving[-1]).astype(np.int32)

    # Axes: planes, rows, columns, elements that follow each other, outputs; then rows
    # go before the outputs, in the order of the K loop.
    weight: Array = np.asarray(kernel).reshape((1,) * (5 - kernel.ndim) + kernel.shape)
    steps = [0] * (5 - kernel.ndim) + [
        d * s for d, s in zip(dilation, x.strides[1:-1], strict=True)
    ]
    if steps[2] == x.shape[-1]:
        weight = weight.reshape(*weight.shape[:2], 1, -1, outputs)
    weight = np.moveaxis(weight, 1, 3)
    planes, columns, run, height, _ = weight.shape
    taps = [
        origin + plane * steps[0] + column * steps[2]
        for plane, column in itertools.product(range(planes), range(columns))
    ]

    def pack() -> Array:
        packed = aligned_zeros(period * weight[..., 0].size * lanes)
        spread = np.moveaxis(weight[..., channel], -2, 0)
        packed[:] = spread.reshape(-1)
        return packed

    def pack_bias() -> Array:
        packed = aligned_zeros(period * lanes)
        if bias is not None:
            packed[:] = bias[channel].reshape(-1)
        return packed

    missing = 4 - out.rank + 1
    size = (out.shape[0], *(1,) * missing, *out.shape[1:-1])
    x_moves = (x.strides[0], *(0,) * missing, *moving)
    y_moves = (out.strides[0], *(0,) * missing, *out.strides[1:-2])
    bound = module.narrow(
        size,
        x_moves,
        y_moves,
        outputs,
        len(taps),
        run,
        height,
        period,
        finish(epilogue),
    )
    operands = (
        out,
        x,
        low.packed(kernel, ("narrow", run), pack),
        low.packed(kernel if bias is None else bias, "narrow bias", pack_bias),
        low.constant(np.array(taps, np.int64)),
        low.constant(index),
    )
    return Step(bound, operands, fused("narrow", epilogue))
