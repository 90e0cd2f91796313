"""Convolution in one, two and three dimensions, grouped and depthwise included."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import numpy as np

from ..algorithms import (
    Moves,
    depthwise,
    matrix_product,
    narrow,
    row_reach,
    row_tile,
    suits_depthwise,
    suits_narrow,
    winograd,
    winograd_halo,
    winograd_others,
    winograd_row,
    winograd_tile,
)
from ..errors import ShapeError
from ..record import record
from ..scaled_kernel import ScaledKernel
from ..spec import Array, Shape, Spec, shape_text
from ..step import Step
from ..view import Halo, View
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
    checked_window,
    per_axis,
    require_bias,
    require_image,
)


@record
class Conv(Op):
    """Slide a kernel over an image: (N, spatial..., C) to (N, spatial..., M).

    It is cross-correlation, as in every framework: the kernel is not flipped.

    Parameters
    ----------
    stride, dilation : tuple of int
        For each spatial axis; one number serves all.
    padding : str or tuple of (int, int)
        ``"valid"``, ``"same"``, ``"same_lower"`` or zeros (before, after) an axis.
    groups : int
        Input and output channels are cut into this many parts that do not see each
        other. With as many groups as input channels the convolution is depthwise.

    Notes
    -----
    Operands: `x`; `kernel` of shape (spatial..., C / groups, M); `bias` of shape (M,),
    which may be left out.
    """

    stride: Shape = (1,)
    dilation: Shape = (1,)
    padding: Padding = "valid"
    groups: int = 1

    fuses: ClassVar[bool] = True
    weights: ClassVar[tuple[str, ...]] = ("kernel", "bias")
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that makes no sense."""
        checked_window(self, "groups")

    def infer(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Spec:
        """Return (N, windows along each axis..., M)."""
        require_image("Conv", x)
        inner, out = kernel.shape[-2:] if kernel.rank == x.rank else (0, 0)
        if (
            kernel.rank != x.rank
            or 0 in kernel.shape
            or inner * self.groups != x.shape[-1]
            or out % self.groups != 0
        ):
            raise ShapeError(
                f"Conv with {self.groups} groups: kernel {shape_text(kernel.shape)} "
                f"does not fit the input {shape_text(x.shape)}; wanted (spatial..., "
                f"{x.shape[-1]}/{self.groups}, a multiple of {self.groups})"
            )
        require_bias("Conv", bias, out)
        span, stride, padding = self._geometry(x, kernel)
        return Spec((x.shape[0], *output_size(x.spatial, span, stride, padding), out))

    def reference(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        """Return the sums of products, window by window."""
        spatial = tuple(range(1, x.ndim - 1))
        span, stride, padding = self._geometry(Spec(x.shape), Spec(kernel.shape))
        dilation = per_axis(self.dilation, len(spatial), "dilation")
        padded = np.pad(x, ((0, 0), *padding, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=spatial)
        every = [slice(None, None, s) for s in stride]
        nth = [slice(None, None, d) for d in dilation]
        strided: Any = (slice(None), *every)
        dilated: Any = (Ellipsis, *nth)
        windows = windows[strided][dilated]
        parts = []
        for part, weight in zip(
            np.split(windows, self.groups, axis=x.ndim - 1),
            np.split(kernel, self.groups, axis=-1),
            strict=True,
        ):
            summed = list(range(x.ndim - 1, windows.ndim))
            matching = [len(spatial), *range(len(spatial))]
            parts.append(np.tensordot(part, weight, (summed, matching)))
        y: Array = np.concatenate(parts, axis=-1)
        return y if bias is None else y + bias

    def halo(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Halo:
        """Return the padding that windows really reach into."""
        span, stride, padding = self._geometry(x, kernel)
        counts = output_size(x.spatial, span, stride, padding)
        tile = self.winograd_tile(x, kernel)
        if tile:
            depth = math.prod(kernel.shape[:-4])
            most = max((tile, *winograd_others(tile, stride[-1])))
            return winograd_halo(most, stride[-1], x, counts, depth, padding)
        tile = self.row_tile(x, kernel)
        if tile:
            across, last = row_reach(tile, kernel.shape[-3], stride[-1], counts[-1])
            span, counts = (*span[:-1], across), (*counts[:-1], last)
        return (
            (0, 0),
            *(
                (before, max(0, (count - 1) * s + k - before - n))
                for n, k, s, (before, _), count in zip(
                    x.spatial, span, stride, padding, counts, strict=True
                )
            ),
            (0, 0),
        )

    def multiply_adds(
        self, out: Spec, x: Spec, kernel: Spec, bias: Spec | None = None
    ) -> int:
        """Return output elements times products in each."""
        return out.size * math.prod(kernel.shape[:-1])

    def lower(
        self,
        low: Lowering,
        out: View,
        x: View,
        kernel: Array,
        bias: Array | None = None,
        epilogue: Epilogue = NOTHING,
    ) -> list[Step]:
        """Choose the algorithm."""
        tile = self.winograd_tile(x.spec, Spec(kernel.shape))
        if tile:
            _, stride, padding = self._geometry(x.spec, Spec(kernel.shape))
            others = winograd_others(tile, stride[-1])
            none = () if epilogue.halved else (0,)
            tile = low.choose("winograd tile", (tile, *others, *none))
        if tile:
            return [
                winograd(low, tile, stride[-1], out, x, kernel, bias, padding, epilogue)
            ]
        rank = x.rank - 2
        stride = per_axis(self.stride, rank, "stride")
        dilation = per_axis(self.dilation, rank, "dilation")
        _, _, padding = self._geometry(x.spec, Spec(kernel.shape))
        steps = [d * s for d, s in zip(dilation, x.strides[1:-1], strict=True)]
        origin = -sum(
            before * s for (before, _), s in zip(padding, x.strides[1:-1], strict=True)
        )
        taps = [
            origin + sum(k * s for k, s in zip(tap, steps, strict=True))
            for tap in itertools.product(*map(range, kernel.shape[:-2]))
        ]
        lanes = low.load("conv").lanes
        tile = self.row_tile(x.spec, Spec(kernel.shape), lanes)
        dense = x.strides[-2] == x.shape[-1]
        if tile and (dense or stride[-1] == 1) and low.choose("row tile", (tile, 0)):
            return [
                winograd_row(
                    low, tile, out, x, kernel, bias, origin, stride, dilation, epilogue
                )
            ]
        if self.groups == 1 and suits_narrow(
            low, out, x, kernel, stride, dilation, epilogue
        ):
            return [
                narrow(low, out, x, kernel, bias, origin, stride, dilation, epilogue)
            ]
        moving = [a * b for a, b in zip(stride, x.strides[1:-1], strict=True)]
        moves = Moves.between(out, (x.strides[0], *moving), epilogue.residual)
        if suits_depthwise(low, kernel, self.groups):
            return [
                depthwise(low, moves, out, x, kernel, bias, taps, self.groups, epilogue)
            ]
        run = kernel.shape[-2]
        width = kernel.shape[-3]
        if self.groups == 1 and steps[-1] == x.shape[-1] and x.strides[-1] == 1:
            taps, run = taps[::width], run * width
        return [
            matrix_product(
                low, moves, out, x, kernel, bias, taps, run, self.groups, epilogue
            )
        ]

    def scaled(self, kernel: Array, scale: Array) -> ScaledKernel:
        """Return the product, for whoever packs it to compute."""
        return ScaledKernel(kernel, scale)

    def window(self, x: Spec, kernel: Spec, bias: Spec | None = None) -> Window:
        """Return the kernel's size, the stride, the dilation and the padding."""
        span, stride, padding = self._geometry(x, kernel)
        dilation = per_axis(self.dilation, len(span), "dilation")
        return Window(kernel.shape[:-2], stride, dilation, padding)

    def winograd_tile(self, x: Spec, kernel: Spec) -> int:
        """Return the side of the tiles of Winograd's algorithm; 0 for another one."""
        if kernel.shape[-4:-2] != (3, 3) or self.groups > 1 or {*self.dilation} != {1}:
            return 0
        *deep, down, across = (1, *per_axis(self.stride, x.rank - 2, "stride"))
        if {*deep} != {1} or down != across or across > 2:
            return 0
        return winograd_tile(self.infer(x, kernel), kernel, across)

    def row_tile(self, x: Spec, kernel: Spec, lanes: int = 16) -> int:
        """Return how wide the tiles of rows are; 0 for another algorithm.

        Fewer lanes have fewer of them.
        """
        rank = x.rank - 2
        if self.groups > 1 or per_axis(self.dilation, rank, "dilation")[-1] > 1:
            return 0
        if self.winograd_tile(x, kernel):
            return 0
        stride = per_axis(self.stride, rank, "stride")
        return row_tile(self.infer(x, kernel), kernel, stride[-1], lanes)

    def _geometry(
        self, x: Spec, kernel: Spec
    ) -> tuple[Shape, Shape, tuple[tuple[int, int], ...]]:
        rank = x.rank - 2
        span = reach(kernel.shape[:-2], per_axis(self.dilation, rank, "dilation"))
        stride = per_axis(self.stride, rank, "stride")
        return span, stride, explicit_padding(self.padding, x.spatial, span, stride)
