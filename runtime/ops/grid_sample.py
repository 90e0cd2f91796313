"""Sampling images at places given by a grid, and grids from affine maps."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np

from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import checked_sizes
from .base import Lowering, Op, as_view, require, require_float32, require_image
from .resize import cubic_kernel, one_of

FAR = 1e9
"""Coordinates in pixels are limited to this; NaN counts as minus this."""


@record
class GridSample(Op):
    """Sample an image at the places a grid gives.

    (N, spatial..., C) and a grid (N, places..., axes) to (N, places..., C).

    Parameters
    ----------
    mode : str
        ``"nearest"`` (of two equally near the even one), ``"linear"`` or ``"cubic"``
        (slope -3/4).
    padding_mode : str
        What lies outside the image: ``"zeros"``; ``"border"``, the outermost pixel;
        ``"reflection"``, the image mirrored.
    align_corners : bool
        Whether -1 and 1 are the centres of the outermost pixels rather than their outer
        edges, of which the mirror is one as well.

    Notes
    -----
    Operands: `x`; `grid`, whose last axis has the coordinate along the last spatial
    axis first (x, y or x, y, z), each from -1 to 1.
    """

    mode: Literal["nearest", "linear", "cubic"] = "linear"
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros"
    align_corners: bool = False

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on another word."""
        one_of(self, "mode", ("nearest", "linear", "cubic"))
        one_of(self, "padding_mode", ("zeros", "border", "reflection"))

    def infer(self, x: Spec, grid: Spec) -> Spec:
        """Return (N, places..., C)."""
        require_image("GridSample", x)
        require_float32("GridSample", x, grid)
        require(
            grid.rank == x.rank
            and grid.shape[0] == x.shape[0]
            and grid.shape[-1] == x.rank - 2,
            f"GridSample: the grid {shape_text(grid.shape)} does not fit the input "
            f"{shape_text(x.shape)}, wanted {x.shape[0]} times places of "
            f"{x.rank - 2} coordinates",
        )
        return Spec((*grid.shape[:-1], x.shape[-1]))

    def reference(self, x: Array, grid: Array) -> Array:
        """Return the weighted sum of the pixels around each place."""
        rank = x.ndim - 2
        taps = [self.taps(grid[..., rank - 1 - a], x.shape[1 + a]) for a in range(rank)]
        batch = np.arange(x.shape[0]).reshape(-1, *(1,) * rank)
        y = np.zeros((*grid.shape[:-1], x.shape[-1]), x.dtype)
        for choice in itertools.product(*(range(w.shape[-1]) for _, w in taps)):
            picked = list(zip(taps, choice, strict=True))
            where = (batch, *(index[..., k] for (index, _), k in picked))
            weight = math.prod(w[..., k] for (_, w), k in picked)
            y += np.asarray(weight, x.dtype)[..., None] * x[where]
        return y

    def lower(
        self, low: Lowering, out: View, x: View | Array, grid: View | Array
    ) -> list[Step]:
        """Return the kernel."""
        source, places = as_view(low, x), as_view(low, grid)
        kernel = low.load("sample").grid_sample(
            out.shape,
            out.strides,
            source.shape,
            source.strides,
            places.strides,
            self.mode,
            self.padding_mode,
            self.align_corners,
        )
        return [Step(kernel, (out, source, places), f"sample {self.mode}")]

    def multiply_adds(self, out: Spec, x: Spec, grid: Spec) -> int:
        """Return the taps of every output element."""
        taps = {"nearest": 1, "linear": 2, "cubic": 4}[self.mode]
        return out.size * int(taps ** (x.rank - 2))

    def taps(self, grid: Array, n: int) -> tuple[Array, Array]:
        """Return the positions taken from an axis of n, and their weights.

        Both have the shape of `grid`, the coordinates -1 to 1, and an axis of taps.
        """
        at = grid.astype(np.float64)
        at = (at + 1) / 2 * (n - 1) if self.align_corners else ((at + 1) * n - 1) / 2
        low, high = (0.0, n - 1.0) if self.align_corners else (-0.5, n - 0.5)
        at = np.clip(np.nan_to_num(at, nan=-FAR), -FAR, FAR)
        if self.mode == "nearest":
            at = np.rint(at)
        if self.padding_mode == "border" and self.mode != "cubic":
            at = np.where((at < low) | (at > high), np.clip(at, 0, n - 1), at)
        elif self.padding_mode == "reflection":
            at = _reflected(at, low, high)
        first, taps = {"nearest": (0, 1), "linear": (0, 2), "cubic": (-1, 4)}[self.mode]
        index = np.floor(at)[..., None] + first + np.arange(taps)
        distance = np.abs(at[..., None] - index)
        weight = 1 - distance
        if self.mode == "nearest":
            weight = np.ones_like(at)[..., None]
        elif self.mode == "cubic":
            weight = cubic_kernel(distance, -0.75)
        if self.padding_mode == "zeros":
            weight = np.where((index < 0) | (index > n - 1), 0, weight)
        elif self.padding_mode == "reflection":
            index = _reflected(index, low, high)
        return np.clip(index, 0, n - 1).astype(np.int64), weight


@record
class AffineGrid(Op):
    """Make the grid of an affine map: (N, axes, axes + 1) to (N, size..., axes).

    Each place of an evenly spaced grid from -1 to 1, with a one appended, is multiplied
    by the matrix; coordinates count the last spatial axis first, as for `GridSample`.

    Parameters
    ----------
    size : tuple of int
        Places along two or three spatial axes.
    align_corners : bool
        Whether the grid reaches -1 and 1, rather than half a step from them; an axis of
        one place lies at 0.
    """

    size: Shape
    align_corners: bool = False

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        object.__setattr__(self, "size", checked_sizes(self.size, "size"))
        if len(self.size) not in (2, 3):
            raise ValueError(f"size {self.size}, wanted two or three numbers")

    def infer(self, theta: Spec) -> Spec:
        """Return (N, size..., axes)."""
        require_float32("AffineGrid", theta)
        rank = len(self.size)
        require(
            theta.rank == 3 and theta.shape[1:] == (rank, rank + 1),
            f"AffineGrid: theta {shape_text(theta.shape)} does not fit the size "
            f"{self.size}, wanted (N, {rank}, {rank + 1})",
        )
        return Spec((theta.shape[0], *self.size, rank))

    def reference(self, theta: Array) -> Array:
        """Return the matrices times the places."""
        axes = np.meshgrid(*map(self._places, self.size), indexing="ij")
        places = np.stack([*axes[::-1], np.ones(self.size)], axis=-1)
        y: Array = np.einsum("nij,...j->n...i", theta, places.astype(theta.dtype))
        return y

    def lower(self, low: Lowering, out: View, theta: View | Array) -> list[Step]:
        """Return the kernel."""
        matrices = as_view(low, theta)
        table = np.concatenate([self._places(n) for n in self.size[::-1]])
        kernel = low.load("sample").affine_grid(
            out.shape, out.strides, matrices.strides
        )
        places = low.constant(table.astype(np.float32))
        return [Step(kernel, (out, matrices, places), "affine grid")]

    def multiply_adds(self, out: Spec, theta: Spec) -> int:
        """Return the products of every matrix and place."""
        return out.size * theta.shape[1]

    def _places(self, n: int) -> Array:
        if self.align_corners:
            return np.linspace(-1, 1, n) if n > 1 else np.zeros(1)
        return (2 * np.arange(n) + 1) / n - 1


def _reflected(at: Array, low: float, high: float) -> Array:
    """Return coordinates mirrored at both ends until they lie between them."""
    if high <= low:
        return np.full_like(at, low)
    beyond = np.where(at < low, low - at, at - high)
    turns = np.floor(beyond / (high - low))
    rest = beyond - turns * (high - low)
    upwards = (at < low) == (turns % 2 == 0)
    return np.where(beyond <= 0, at, np.where(upwards, low + rest, high - rest))
