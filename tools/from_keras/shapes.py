"""Layers that move, cut, repeat or leave alone.

Each function is named and signed like its layer.
"""

# ruff: noqa: N802

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_keras.registry import KerasBuilder, each, keras_layer
from striate.tools.from_onnx.axes import FAR, padded, sliced
from striate.tools.layout import Tensor


@keras_layer(
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization",
    "StochasticDepth",
    "Identity",
    "AugMix",
    "AutoContrast",
    "CutMix",
    "Equalization",
    "MixUp",
    "RandAugment",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHeight",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomWidth",
    "RandomZoom",
)
def Identity(g: KerasBuilder, x: Tensor, **settings: Any) -> Tensor:
    """Do nothing: it is for training."""
    return x


@keras_layer("Flatten")
def Flatten(g: KerasBuilder, x: Tensor, *, data_format: str | None = None) -> Tensor:
    """Join all axes but the batch, the channels of an image last."""
    y = g.flat(x, data_format)
    rest = g.product(y.shape[1:])
    return g.reshape(y, (y.shape[0], rest))


@keras_layer("Reshape")
def Reshape(g: KerasBuilder, x: Tensor, *, target_shape: Sequence[int]) -> Tensor:
    """Give every picture another shape; -1 once for what remains."""
    return reshaped(g, x, target_shape)


def reshaped(g: KerasBuilder, x: Tensor, target: Sequence[int]) -> Tensor:
    """Return `x` with the axes behind the batch in another shape."""
    total = g.product(x.shape[1:])
    known = math.prod(n for n in target if n != -1)
    if known == 0 or any(n % known for n in total):
        raise UnsupportedModelError(f"{total[0]} elements in the shape {target}")
    rest = tuple(n // known for n in total)
    if -1 not in target and any(n != 1 for n in rest):
        raise UnsupportedModelError(f"{total[0]} elements in the shape {target}")
    sizes = [rest if n == -1 else (n,) * g.bindings for n in target]
    return g.reshape(x, (x.shape[0], *sizes))


@keras_layer("Permute")
def Permute(g: KerasBuilder, x: Tensor, *, dims: Sequence[int]) -> Tensor:
    """Put the axes in another order, counted from 1."""
    return x.transpose((0, *dims))


@keras_layer("RepeatVector")
def RepeatVector(g: KerasBuilder, x: Tensor, *, n: int) -> Tensor:
    """Repeat a vector along a new axis."""
    ones = (1,) * g.bindings
    row = g.reshape(x, (x.shape[0], ones, x.shape[1]))
    return g.apply(ops.Tile((1, n, 1)), row)


def pairs(value: Any, count: int, name: str) -> list[tuple[int, int]]:
    """Return a setting of pairs an axis, or of one number for both ends."""
    if isinstance(value, int):
        return [(value, value)] * count
    if count == 1 and len(value) == 2 and all(isinstance(n, int) for n in value):
        value = [value]
    if len(value) != count:
        raise UnsupportedModelError(f"{name} {value} for {count} axes")
    ends = [each(pair, 2, name) for pair in value]
    return [(before, after) for before, after in ends]


@keras_layer("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def ZeroPadding2D(
    g: KerasBuilder, x: Tensor, *, padding: Any = 1, data_format: str | None = None
) -> Tensor:
    """Put zeros around."""
    y = g.image(x, data_format)
    ends = [(0, 0), *pairs(padding, x.rank - 2, "padding"), (0, 0)]
    pads = (*(before for before, _ in ends), *(after for _, after in ends))
    return g.placed(padded(g, y, pads, "constant", 0.0), data_format)


@keras_layer("Cropping1D", "Cropping2D", "Cropping3D")
def Cropping2D(
    g: KerasBuilder, x: Tensor, *, cropping: Any = 0, data_format: str | None = None
) -> Tensor:
    """Cut off the edges."""
    y = g.image(x, data_format)
    ends = pairs(cropping, x.rank - 2, "cropping")
    starts = [before for before, _ in ends]
    stops = [-after if after else FAR for _, after in ends]
    y = sliced(g, y, starts, stops, tuple(range(1, x.rank - 1)), None)
    return g.placed(y, data_format)
