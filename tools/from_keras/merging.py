"""Layers that put several tensors together.

Each function is named like its layer.
"""

# ruff: noqa: N802

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_keras.normalise import UnitNormalization
from striate.tools.from_keras.registry import KerasBuilder, keras_layer
from striate.tools.from_onnx import axes as onnx_axes
from striate.tools.layout import Tensor


def merged(g: KerasBuilder, op: ops.Op, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return all inputs under a binary operator, one after the other.

    One of fewer axes gets axes of size one behind the batch.
    """
    rank = max(x.rank for x in inputs)
    ones = (1,) * g.bindings
    even = [
        g.reshape(x, (x.shape[0], *(ones,) * (rank - x.rank), *x.shape[1:]))
        if x.rank < rank
        else x
        for x in inputs
    ]
    return reduce(lambda x, y: g.combine(op, x, y), even)


@keras_layer("Add")
def Add(g: KerasBuilder, *inputs: Tensor) -> Tensor:
    """Add up."""
    return merged(g, ops.Add(), inputs)


@keras_layer("Subtract")
def Subtract(g: KerasBuilder, x: Tensor, y: Tensor) -> Tensor:
    """Subtract the second from the first."""
    return merged(g, ops.Sub(), (x, y))


@keras_layer("CustomScaleLayer")
def CustomScaleLayer(
    g: KerasBuilder, x: Tensor, y: Tensor, *, scale: float = 1.0
) -> Tensor:
    """Add the second, scaled, to the first, as InceptionResNetV2 does."""
    part = g.elementwise(ops.Mul(), y, y=np.array([scale], np.float32))
    return g.combine(ops.Add(), x, part)


@keras_layer("Multiply")
def Multiply(g: KerasBuilder, *inputs: Tensor) -> Tensor:
    """Multiply."""
    return merged(g, ops.Mul(), inputs)


@keras_layer("Average")
def Average(g: KerasBuilder, *inputs: Tensor) -> Tensor:
    """Average."""
    share = np.array([1 / len(inputs)], np.float32)
    return g.elementwise(ops.Mul(), merged(g, ops.Add(), inputs), y=share)


@keras_layer("Maximum")
def Maximum(g: KerasBuilder, *inputs: Tensor) -> Tensor:
    """Take the largest."""
    return merged(g, ops.Maximum(), inputs)


@keras_layer("Minimum")
def Minimum(g: KerasBuilder, *inputs: Tensor) -> Tensor:
    """Take the smallest."""
    return merged(g, ops.Minimum(), inputs)


@keras_layer("Concatenate")
def Concatenate(g: KerasBuilder, *inputs: Tensor, axis: int = -1) -> Tensor:
    """Join along an axis."""
    if g.axis(axis, inputs[0].rank) == 0:
        raise UnsupportedModelError("it works along the batch")
    found: Tensor = onnx_axes.Concat(g, *inputs, axis=axis)
    return found


@keras_layer("Dot")
def Dot(
    g: KerasBuilder, x: Tensor, y: Tensor, *, axes: Any, normalize: bool = False
) -> Tensor:
    """Sum the products along one axis of each, for vectors and for matrices."""
    first, second = (axes, axes) if isinstance(axes, int) else axes
    one, other = g.axis(first, x.rank), g.axis(second, y.rank)
    if x.rank > 3 or y.rank > 3 or 0 in (one, other):
        raise UnsupportedModelError(f"axes {axes} of ranks {x.rank} and {y.rank}")
    if normalize:
        x = UnitNormalization(g, x, axis=one)
        y = UnitNormalization(g, y, axis=other)
    ones = (1,) * g.bindings
    rows = x.transpose((0, 2, 1)) if x.rank == 3 and one == 1 else x
    columns = y.transpose((0, 2, 1)) if y.rank == 3 and other == 2 else y
    if x.rank == 2:
        rows = g.reshape(x, (x.shape[0], ones, x.shape[1]))
    if y.rank == 2:
        columns = g.reshape(y, (*y.shape, ones))
    product = g.operate(ops.MatMul(), rows, columns)
    kept = [product.shape[0]]
    kept += [product.shape[1]] if x.rank == 3 else []
    kept += [product.shape[2]] if y.rank == 3 else []
    return g.reshape(product, kept if len(kept) > 1 else (*kept, ones))
