"""Deformable convolution: taps that are moved by offsets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np

from ..algorithms import Moves, matrix_product
from ..record import record
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import View
from ..window import (
    Padding,
    Window,
    explicit_padding,
    output_size,
    reach,
)
from .base import (
    NOTHING,
    Epilogue,
    Lowering,
    Op,
    as_view,
    checked_window,
    per_axis,
    require,
    require_bias,
    require_float32,
)


@record
class DeformConv(Op):
    """Convolve with taps that are moved: (N, H, W, C) to (N, OH, OW, M).

    Each tap reads the image at its own place plus an offset, between pixels by bilinear
    interpolation, zero outside; the second version multiplies what it reads by a mask.

    Parameters
    ----------
    stride, dilation : tuple of int
        For each spatial axis; one number serves both.
    padding : str or tuple of (int, int)
        ``"valid"``, ``"same"``, ``"same_lower"`` or zeros (before, after) an axis.
    groups : int
        As for `Conv`.
    offset_groups : int
        Input channels are cut into this many parts with offsets of their own.

    Notes
    -----
    The operands are `x`, `kernel` of shape (kh, kw, C / groups, M), `offset` of shape
    (N, OH, OW, offset_groups * kh * kw * 2), where for each group and tap the distances
    down and to the right follow each other, `mask` of shape
    (N, OH, OW, offset_groups * kh * kw) and `bias` of shape (M,). The last two may be
    left out; kernel and bias must be weights.

    References
    ----------
    J. Dai et al., Deformable convolutional networks, 2017; X. Zhu et al., Deformable
    ConvNets v2, 2019.
    """

    stride: Shape = (1,)
    dilation: Shape = (1,)
    padding: Padding = "valid"
    groups: int = 1
    offset_groups: int = 1

    fuses: ClassVar[bool] = True
    weights: ClassVar[tuple[str, ...]] = ("kernel", "bias")
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_window(self, "groups", "offset_groups")

    def infer(
        self,
        x: Spec,
        kernel: Spec,
        offset: Spec,
        mask: Spec | None = None,
        bias: Spec | None = None,
    ) -> Spec:
        """Return (N, windows along each axis..., M)."""
        require_float32("DeformConv", x, offset, *([mask] if mask else []))
        require(
            x.rank == 4
            and kernel.rank == 4
            and 0 not in (*x.shape, *kernel.shape)
            and kernel.shape[2] * self.groups == x.shape[3]
            and kernel.shape[3] % self.groups == 0
            and x.shape[3] % self.offset_groups == 0,
            f"DeformConv with {self.groups} groups and {self.offset_groups} offset "
            f"groups: kernel {shape_text(kernel.shape)} does not fit the input "
            f"{shape_text(x.shape)}; wanted (N, H, W, C) and (kh, kw, C/groups, M)",
        )
        window = self._window(x, kernel)
        span = reach(window.kernel, window.dilation)
        counts = output_size(x.spatial, span, window.stride, window.padding)
        moved = self.offset_groups * math.prod(window.kernel)
        for name, operand, last in (
            ("offset", offset, 2 * moved),
            ("mask", mask, moved),
        ):
            wanted = (x.shape[0], *counts, last)
            require(
                operand is None or operand.shape == wanted,
                f"DeformConv: {name} {shape_text(operand.shape) if operand else ''}, "
                f"wanted {shape_text(wanted)}",
            )
        require_bias("DeformConv", bias, kernel.shape[3])
        return Spec((x.shape[0], *counts, kernel.shape[3]))

    def reference(
        self,
        x: Array,
        kernel: Array,
        offset: Array,
        mask: Array | None = None,
        bias: Array | None = None,
    ) -> Array:
        """Return the sums of products of what every tap reads."""
        window = self._window(Spec(x.shape), Spec(kernel.shape))
        head = (*offset.shape[:3], self.offset_groups, *window.kernel)
        moved = offset.reshape(*head, 2)
        places = []
        for axis in range(2):
            outputs = np.arange(offset.shape[axis + 1]) * window.stride[axis]
            taps = np.arange(window.kernel[axis]) * window.dilation[axis]
            at = np.add.outer(outputs - window.padding[axis][0], taps)
            at = np.expand_dims(at, (1, 2, 4) if axis == 0 else (0, 2, 3))
            places.append(at + moved[..., axis])
        read = _interpolated(x, *places)
        if mask is not None:
            read = read * mask.reshape(*head, 1)
        rows = np.moveaxis(read, 3, 5).reshape(
            *head[:3], *window.kernel, self.groups, -1
        )
        weight = kernel.reshape(*kernel.shape[:3], self.groups, -1)
        y: Array = np.einsum("nhwabgi,abigo->nhwgo", rows, weight)
        y = y.reshape(*offset.shape[:3], -1)
        return y if bias is None else y + bias

    def multiply_adds(
        self, out: Spec, x: Spec, kernel: Spec, *operands: Spec | None
    ) -> int:
        """Return output elements times products in each."""
        return out.size * math.prod(kernel.shape[:-1])

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View | Array,
        kernel: Array,
        offset: View | Array,
        mask: View | Array | None = None,
        bias: Array | None = None,
        epilogue: Epilogue = NOTHING,
    ) -> list[Step]:
        """Return the reading and the product of some rows at a time.

        What is read should stay in the cache until it is multiplied.
        """
        image, moved = as_view(low, x), as_view(low, offset)
        scale = moved if mask is None else as_view(low, mask)
        n, rows, pixels, _ = out.shape
        row = pixels * math.prod(kernel.shape[:2]) * image.shape[3]
        fit = max(1, low.level2_bytes * 2 // (4 * row))
        chunks = [(0, n, 0, rows)]
        if n * rows > fit:
            chunks = [
                (i, 1, first, min(fit, rows - first))
                for i in range(n)
                for first in range(0, rows, fit)
            ]
        scratch = low.scratch(max(c[1] * c[3] for c in chunks) * row)
        steps = []
        for chunk in chunks:
            i, images, first, count = chunk
            source = image.slice(0, i, images)
            ending = epilogue
            if epilogue.residual is not None:
                ending = epilogue._replace(residual=_rows(epilogue.residual, chunk))
            offsets, scales = _rows(moved, chunk), _rows(scale, chunk)
            read = replace(
                scratch,
                shape=(images, count, pixels, image.shape[3]),
                strides=(count * row, row, row // pixels, 1),
            )
            steps += [
                self._sampling(
                    low, read, source, kernel, offsets, scales, first, mask is not None
                ),
                self._product(low, _rows(out, chunk), read, kernel, bias, ending),
            ]
        return steps

    def _sampling(
        self,
        low: Lowering,
        read: View,
        x: View,
        kernel: Array,
        offset: View,
        scale: View,
        first: int,
        masked: bool,
    ) -> Step:
        window = self._window(x.spec, Spec(kernel.shape))
        bound = low.load("deform").sample(
            read.shape[:3],
            first,
            x.shape[1:3],
            window.kernel,
            window.stride,
            window.dilation,
            [before for before, _ in window.padding],
            x.shape[3],
            self.offset_groups,
            x.strides[:3],
            offset.strides[:3],
            scale.strides[:3],
            masked,
        )
        return Step(bound, (read, x, offset, scale), "interpolate")

    def _product(
        self,
        low: Lowering,
        out: View,
        read: View,
        kernel: Array,
        bias: Array | None,
        epilogue: Epilogue,
    ) -> Step:
        taps, channels = math.prod(kernel.shape[:2]), read.shape[3]
        starts, run = [t * channels for t in range(taps)], kernel.shape[2]
        if self.groups == 1:
            starts, run = [0], taps * channels
        moves = Moves.between(out, read.strides[:3], epilogue.residual)
        return matrix_product(
            low, moves, out, read, kernel, bias, starts, run, self.groups, epilogue
        )

    def _window(self, x: Spec, kernel: Spec) -> Window:
        size = kernel.shape[:2]
        stride = per_axis(self.stride, 2, "stride")
        dilation = per_axis(self.dilation, 2, "dilation")
        span = reach(size, dilation)
        padding = explicit_padding(self.padding, x.spatial, span, stride)
        return Window(size, stride, dilation, padding)


def _rows(view: View, chunk: tuple[int, int, int, int]) -> View:
    """Return some rows of some images, (first image, images, first row, rows)."""
    return view.slice(0, *chunk[:2]).slice(1, *chunk[2:])


def _interpolated(x: Array, rows: Array, columns: Array) -> Array:
    """Return the channels at places of shape (N, OH, OW, groups, kh, kw)."""
    n, height, width, _ = x.shape
    parted = x.reshape(n, height, width, rows.shape[3], -1)
    image = np.arange(n).reshape(-1, 1, 1, 1, 1, 1)
    group = np.arange(rows.shape[3]).reshape(-1, 1, 1)
    total = np.zeros((*rows.shape, parted.shape[-1]), x.dtype)
    for down, right in np.ndindex(2, 2):
        row, column = np.floor(rows) + down, np.floor(columns) + right
        weight = (1 - np.abs(rows - row)) * (1 - np.abs(columns - column))
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        i = np.where(inside, row, 0).astype(int)
        j = np.where(inside, column, 0).astype(int)
        product = weight[..., None] * parted[image, i, j, group]
        total += np.where(inside[..., None], product, 0)
    return total
