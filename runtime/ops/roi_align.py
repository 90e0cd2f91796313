"""Cutting regions of interest out of images."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ..errors import DTypeError
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import checked_sizes
from .base import Lowering, Op, as_view, require, require_float32
from .resize import one_of

MOST_SAMPLES = 4096
"""The samples of a bin along each axis are at most these."""


@record
class RoiAlign(Op):
    """Resample regions of images to one size.

    (N, H, W, C) and regions (R, 4) to (R, rows, columns, C). Each region is divided
    into bins; the result is the mean of samples of each, interpolated linearly.
    Samples more than a pixel outside the image are zero.

    Parameters
    ----------
    output_size : (int, int)
        Rows and columns of bins.
    sampling_ratio : int
        Samples of a bin along each axis; 0 for as many as it has pixels, rounded up.
    spatial_scale : float
        What the corners of regions are multiplied by; used as float32.
    mode : str
        ``"avg"``, or ``"max"`` for the largest of all pixels times their weights.
    coordinates : str
        ``"half_pixel"``: half a pixel is taken off the corners.
        ``"output_half_pixel"``: it is not, and regions are at least one pixel large.

    Notes
    -----
    Operands: `x`; `rois`, of which each row is x1, y1, x2, y2; `batch_indices` (R,),
    int64 or int32, the image of each region, limited to those there are.
    """

    output_size: Shape = (1, 1)
    sampling_ratio: int = 0
    spatial_scale: float = 1.0
    mode: Literal["avg", "max"] = "avg"
    coordinates: Literal["half_pixel", "output_half_pixel"] = "half_pixel"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        object.__setattr__(
            self, "output_size", checked_sizes(self.output_size, "output_size")
        )
        if len(self.output_size) != 2:
            raise ValueError(f"output_size {self.output_size}, wanted two numbers")
        checked_sizes(self.sampling_ratio, "sampling_ratio", 0)
        scale = self.spatial_scale
        if isinstance(scale, bool) or not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"spatial_scale {scale!r}, wanted a positive number")
        object.__setattr__(self, "spatial_scale", float(scale))
        one_of(self, "mode", ("avg", "max"))
        one_of(self, "coordinates", ("half_pixel", "output_half_pixel"))

    def infer(self, x: Spec, rois: Spec, batch_indices: Spec) -> Spec:
        """Return (R, rows, columns, C)."""
        require_float32("RoiAlign", x, rois)
        if batch_indices.dtype not in ("int64", "int32"):
            raise DTypeError(f"RoiAlign: found {batch_indices}, wanted int64 or int32")
        require(
            x.rank == 4 and 0 not in x.shape,
            f"RoiAlign wants a non-empty (N, H, W, C), found {shape_text(x.shape)}",
        )
        require(
            rois.rank == 2
            and rois.shape[1] == 4
            and batch_indices.shape == rois.shape[:1],
            f"RoiAlign: rois {shape_text(rois.shape)} and batch_indices "
            f"{shape_text(batch_indices.shape)}, wanted (R, 4) and (R,)",
        )
        return Spec((rois.shape[0], *self.output_size, x.shape[-1]))

    def reference(self, x: Array, rois: Array, batch_indices: Array) -> Array:
        """Return each bin's samples, averaged or at their largest."""
        y = np.zeros((len(rois), *self.output_size, x.shape[-1]), x.dtype)
        images = np.clip(batch_indices, 0, len(x) - 1)
        for r, (left, top, right, bottom) in enumerate(rois.astype(np.float64)):
            rows = self.samples(top, bottom, self.output_size[0], x.shape[1])
            columns = self.samples(left, right, self.output_size[1], x.shape[2])
            pixels = x[images[r]][rows[0][..., None, None, None], columns[0]]
            weights = rows[1][..., None, None, None] * columns[1]
            products = weights[..., None].astype(x.dtype) * pixels
            if not products.size:
                continue
            if self.mode == "max":
                y[r] = products.max(axis=(1, 2, 4, 5))
            else:
                y[r] = products.sum(axis=(2, 5)).mean(axis=(1, 3))
        return y

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        rois: View | Array,
        batch_indices: View | Array,
    ) -> list[Step]:
        """Return the kernel."""
        source, regions = as_view(low, x), as_view(low, rois)
        images = as_view(low, batch_indices)
        kernel = low.load("sample").roi_align(
            out.shape,
            out.strides,
            source.shape,
            source.strides,
            regions.strides[0],
            images.strides[0],
            images.dtype == "int64",
            self.sampling_ratio,
            self.spatial_scale,
            self.coordinates == "half_pixel",
            self.mode == "max",
        )
        return [Step(kernel, (out, source, regions, images), f"regions {self.mode}")]

    def multiply_adds(self, out: Spec, *operands: Spec) -> int:
        """Return the taps of every output element, two samples an axis if unknown."""
        return out.size * 4 * (self.sampling_ratio or 2) ** 2

    def samples(
        self, start: float, end: float, bins: int, n: int
    ) -> tuple[Array, Array]:
        """Return the two positions around each sample of an axis, and their weights.

        Both have the axes bin, sample, and of two; weights are zero outside the image.
        """
        offset = 0.5 if self.coordinates == "half_pixel" else 0.0
        scale = float(np.float32(self.spatial_scale))
        low = start * scale - offset
        size = (end * scale - offset) - low
        if self.coordinates == "output_half_pixel":
            size = max(size, 1.0)
        size = size / bins
        count = int(min(max(self.sampling_ratio or np.ceil(size), 0), MOST_SAMPLES))
        step = size / max(count, 1)
        at = low + np.arange(bins)[:, None] * size + step / 2 + np.arange(count) * step
        inside = (at >= -1) & (at <= n)
        at = np.clip(at, 0, n - 1)
        first = np.floor(at).astype(np.int64)
        weight = np.stack([1 - (at - first), at - first], axis=-1)
        positions = np.stack([first, np.minimum(first + 1, n - 1)], axis=-1)
        return positions, weight * inside[..., None]
