"""Pooling of every kind.

Each function is named and signed like its layer.
"""

# ruff: noqa: N802

from __future__ import annotations

from typing import Any

from striate import ops
from striate.tools.from_keras.layers import padded
from striate.tools.from_keras.registry import KerasBuilder, each, keras_layer
from striate.tools.layout import Tensor


def pooled(
    g: KerasBuilder,
    kind: Any,
    x: Tensor,
    pool_size: Any,
    strides: Any,
    padding: str,
    data_format: str | None,
) -> Tensor:
    """Return an image pooled in sliding windows."""
    rank = x.rank - 2
    size = each(pool_size, rank, "pool_size")
    stride = size if strides is None else each(strides, rank, "strides")
    op = kind(size, stride, padding=padded(padding, (), ()))
    return g.placed(g.apply(op, g.image(x, data_format)), data_format)


@keras_layer("MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "MaxPool2D")
def MaxPooling2D(
    g: KerasBuilder,
    x: Tensor,
    *,
    pool_size: Any = 2,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """Take the largest value of each window."""
    return pooled(g, ops.MaxPool, x, pool_size, strides, padding, data_format)


@keras_layer("AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "AvgPool2D")
def AveragePooling2D(
    g: KerasBuilder,
    x: Tensor,
    *,
    pool_size: Any = 2,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """Average each window over what is inside the image, as TensorFlow does."""
    return pooled(g, ops.AveragePool, x, pool_size, strides, padding, data_format)


def pooled_whole(
    g: KerasBuilder, kind: Any, x: Tensor, keepdims: bool, data_format: str | None
) -> Tensor:
    """Return an image pooled over all its positions."""
    y = g.apply(kind(keepdims), g.image(x, data_format))
    return g.placed(y, data_format) if keepdims else y


@keras_layer(
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D"
)
def GlobalAveragePooling2D(
    g: KerasBuilder,
    x: Tensor,
    *,
    data_format: str | None = None,
    keepdims: bool = False,
) -> Tensor:
    """Average each channel."""
    return pooled_whole(g, ops.GlobalAveragePool, x, keepdims, data_format)


@keras_layer("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D")
def GlobalMaxPooling2D(
    g: KerasBuilder,
    x: Tensor,
    *,
    data_format: str | None = None,
    keepdims: bool = False,
) -> Tensor:
    """Take each channel's largest value."""
    return pooled_whole(g, ops.GlobalMaxPool, x, keepdims, data_format)


def pooled_to(
    g: KerasBuilder, kind: Any, x: Tensor, output_size: Any, data_format: str | None
) -> Tensor:
    """Return an image pooled to a size."""
    op = kind(each(output_size, x.rank - 2, "output_size"))
    return g.placed(g.apply(op, g.image(x, data_format)), data_format)


@keras_layer(
    "AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D", "AdaptiveAveragePooling3D"
)
def AdaptiveAveragePooling2D(
    g: KerasBuilder, x: Tensor, *, output_size: Any, data_format: str | None = None
) -> Tensor:
    """Average boxes that share out the image."""
    return pooled_to(g, ops.AdaptiveAveragePool, x, output_size, data_format)


@keras_layer("AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D", "AdaptiveMaxPooling3D")
def AdaptiveMaxPooling2D(
    g: KerasBuilder, x: Tensor, *, output_size: Any, data_format: str | None = None
) -> Tensor:
    """Take the largest of boxes that share out the image."""
    return pooled_to(g, ops.AdaptiveMaxPool, x, output_size, data_format)
