"""Layers that bring images to another size.

Each function is named and signed like its layer. They mean what TensorFlow computes;
Keras's other backends differ from it, and from each other, at the edges.
"""

# ruff: noqa: N802

from __future__ import annotations

from typing import Any

from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_keras.registry import KerasBuilder, each, keras_layer
from striate.tools.from_onnx.axes import padded, sliced
from striate.tools.from_onnx.resample import resized
from striate.tools.layout import Tensor

CUBIC = {"cubic_coefficient": -0.5, "exclude_outside": True}
"""TensorFlow's cubic kernel, and what it does beyond the edge."""


def sampling(interpolation: str, antialias: bool = False) -> dict[str, Any]:
    """Return the fields of a `Resize` for the name of an interpolation."""
    name = interpolation.lower()
    if name == "nearest":
        return {"coordinates": "tf_half_pixel_for_nn", "nearest": "floor"}
    if name == "bilinear":
        extra = {"exclude_outside": True} if antialias else {}
        return {"mode": "linear", "antialias": antialias, **extra}
    if name == "bicubic":
        return {"mode": "cubic", "antialias": antialias, **CUBIC}
    raise UnsupportedModelError(f"interpolation {interpolation!r}")


@keras_layer("UpSampling1D", "UpSampling2D", "UpSampling3D")
def UpSampling2D(
    g: KerasBuilder,
    x: Tensor,
    *,
    size: Any = 2,
    data_format: str | None = None,
    interpolation: str = "nearest",
) -> Tensor:
    """Enlarge by whole factors."""
    factors = each(size, x.rank - 2, "size")
    fields = sampling(interpolation)
    if interpolation.lower() in ("nearest", "area"):
        fields = {"coordinates": "asymmetric", "nearest": "floor"}
    axes = tuple(range(1, x.rank - 1))
    op = ops.Resize(scales=tuple(map(float, factors)), axes=axes, **fields)
    return g.placed(resized(g, op, g.image(x, data_format)), data_format)


@keras_layer("Resizing")
def Resizing(
    g: KerasBuilder,
    x: Tensor,
    *,
    height: int,
    width: int,
    interpolation: str = "bilinear",
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    antialias: bool = False,
    data_format: str | None = None,
) -> Tensor:
    """Resample to a size; what the shape has too much is cut off or filled up."""
    y = g.image(x, data_format)
    if crop_to_aspect_ratio:
        y = cut_to_shape(g, y, height, width)
    elif pad_to_aspect_ratio:
        if fill_mode != "constant":
            raise UnsupportedModelError(f"fill_mode {fill_mode!r}")
        y = _filled_to_shape(g, y, height, width, float(fill_value))
    fields = sampling(interpolation, antialias)
    op = ops.Resize(sizes=(height, width), axes=(1, 2), **fields)
    return g.placed(resized(g, op, y), data_format)


def _size(g: KerasBuilder, x: Tensor) -> tuple[int, int]:
    height, width = (g.fixed(dim, "the size of its image") for dim in x.shape[1:3])
    return height, width


def cut_to_shape(g: KerasBuilder, x: Tensor, height: int, width: int) -> Tensor:
    """Return the largest part in the middle that has the shape of height x width."""
    old = _size(g, x)
    tall = max(min(old[0], int(old[1] * height / width)), 1)
    wide = max(min(old[1], int(old[0] * width / height)), 1)
    starts = ((old[0] - tall) // 2, (old[1] - wide) // 2)
    stops = (starts[0] + tall, starts[1] + wide)
    return sliced(g, x, starts, stops, (1, 2), None)


def _filled_to_shape(
    g: KerasBuilder, x: Tensor, height: int, width: int, value: float
) -> Tensor:
    """Return the image in the middle of a larger one of the shape height x width."""
    old = _size(g, x)
    tall = max(old[0], int(old[1] * height / width))
    wide = max(old[1], int(old[0] * width / height))
    top, left = (tall - old[0]) // 2, (wide - old[1]) // 2
    after = (tall - old[0] - top, wide - old[1] - left)
    pads = (0, top, left, 0, 0, *after, 0)
    return padded(g, x, pads, "constant", value)


@keras_layer("CenterCrop")
def CenterCrop(
    g: KerasBuilder,
    x: Tensor,
    *,
    height: int,
    width: int,
    data_format: str | None = None,
) -> Tensor:
    """Cut a part out of the middle; a smaller image is enlarged first."""
    y = g.image(x, data_format)
    old = _size(g, y)
    if old[0] >= height and old[1] >= width:
        starts = ((old[0] - height) // 2, (old[1] - width) // 2)
        y = sliced(g, y, starts, (starts[0] + height, starts[1] + width), (1, 2), None)
        return g.placed(y, data_format)
    return Resizing(
        g,
        x,
        height=height,
        width=width,
        crop_to_aspect_ratio=True,
        data_format=data_format,
    )
