"""Operators that enlarge, shrink and sample images.

Each function is named and signed like its operator. Where a program gives factors and
not a size, they are kept: positions computed from them differ from those of the size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_onnx import resample
from striate.tools.from_torch.registry import TorchBuilder, aten_op, unbatched
from striate.tools.layout import Constant, Tensor


def resized(
    g: TorchBuilder,
    x: Tensor,
    sizes: Any,
    factors: Any,
    *,
    mode: str,
    coordinates: str,
    **settings: Any,
) -> Tensor:
    """Return an image resampled to a size, or by factors where there are some."""
    places = tuple(range(2, x.rank))
    given = [] if factors is None else [f for f in factors if f is not None]
    scales = wanted = None
    if len(given) == len(places):
        scales = g.constant(np.array(given, np.float64))
    else:
        wanted = g.sizes(g.dims(sizes))
    return resample.Resize(
        g,
        x,
        None,
        scales,
        wanted,
        axes=places,
        mode=mode,
        coordinate_transformation_mode=coordinates,
        **settings,
    )


def _register_nearest(name: str, **settings: Any) -> None:
    for rank in (1, 2, 3):

        @aten_op(f"{name}{rank}d.vec")
        def by_factors(
            g: TorchBuilder, input: Tensor, output_size: Any, scale_factors: Any
        ) -> Tensor:
            return resized(
                g, input, output_size, scale_factors, mode="nearest", **settings
            )

    @aten_op(f"{name}1d")
    def of_1(
        g: TorchBuilder, self: Tensor, output_size: Any, scales: float | None = None
    ) -> Tensor:
        return resized(g, self, output_size, [scales], mode="nearest", **settings)

    @aten_op(f"{name}2d")
    def of_2(
        g: TorchBuilder,
        self: Tensor,
        output_size: Any,
        scales_h: float | None = None,
        scales_w: float | None = None,
    ) -> Tensor:
        factors = [scales_h, scales_w]
        return resized(g, self, output_size, factors, mode="nearest", **settings)

    @aten_op(f"{name}3d")
    def of_3(
        g: TorchBuilder,
        self: Tensor,
        output_size: Any,
        scales_d: float | None = None,
        scales_h: float | None = None,
        scales_w: float | None = None,
    ) -> Tensor:
        factors = [scales_d, scales_h, scales_w]
        return resized(g, self, output_size, factors, mode="nearest", **settings)


_register_nearest("upsample_nearest", coordinates="asymmetric", nearest_mode="floor")
_register_nearest(
    "_upsample_nearest_exact",
    coordinates="half_pixel",
    nearest_mode="round_prefer_ceil",
)


def _register_smooth(name: str, rank: int, mode: str, **settings: Any) -> None:
    def resample_image(
        g: TorchBuilder, x: Tensor, sizes: Any, factors: Any, corners: bool
    ) -> Tensor:
        coordinates = "align_corners" if corners else "half_pixel"
        if corners and sizes is None:
            pairs = zip(x.shape[2:], factors, strict=True)
            lengths = [[np.array(int(n * f)) for n in dim] for dim, f in pairs]
            sizes = [Constant(tuple(each)) for each in lengths]
        kept = None if corners and sizes is not None else factors
        return resized(
            g, x, sizes, kept, mode=mode, coordinates=coordinates, **settings
        )

    @aten_op(f"{name}.vec")
    def by_factors(
        g: TorchBuilder,
        input: Tensor,
        output_size: Any,
        align_corners: bool,
        scale_factors: Any,
    ) -> Tensor:
        return resample_image(g, input, output_size, scale_factors, align_corners)

    if rank == 1:

        @aten_op(name)
        def of_1(
            g: TorchBuilder,
            self: Tensor,
            output_size: Any,
            align_corners: bool,
            scales: float | None = None,
        ) -> Tensor:
            return resample_image(g, self, output_size, [scales], align_corners)

    elif rank == 2:

        @aten_op(name)
        def of_2(
            g: TorchBuilder,
            self: Tensor,
            output_size: Any,
            align_corners: bool,
            scales_h: float | None = None,
            scales_w: float | None = None,
        ) -> Tensor:
            factors = [scales_h, scales_w]
            return resample_image(g, self, output_size, factors, align_corners)

    else:

        @aten_op(name)
        def of_3(
            g: TorchBuilder,
            self: Tensor,
            output_size: Any,
            align_corners: bool,
            scales_d: float | None = None,
            scales_h: float | None = None,
            scales_w: float | None = None,
        ) -> Tensor:
            factors = [scales_d, scales_h, scales_w]
            return resample_image(g, self, output_size, factors, align_corners)


_register_smooth("upsample_linear1d", 1, "linear")
_register_smooth("upsample_bilinear2d", 2, "linear")
_register_smooth("upsample_trilinear3d", 3, "linear")
_register_smooth("upsample_bicubic2d", 2, "cubic")
_register_smooth("_upsample_bilinear2d_aa", 2, "linear", antialias=1, exclude_outside=1)
_register_smooth(
    "_upsample_bicubic2d_aa",
    2,
    "cubic",
    antialias=1,
    exclude_outside=1,
    cubic_coeff_a=-0.5,
)


@aten_op("pixel_shuffle")
def pixel_shuffle(g: TorchBuilder, self: Tensor, upscale_factor: int) -> Any:
    """Spread channels over blocks of pixels."""
    return unbatched(
        g,
        self,
        4,
        lambda x: resample.DepthToSpace(g, x, blocksize=upscale_factor, mode="CRD"),
    )


@aten_op("pixel_unshuffle")
def pixel_unshuffle(g: TorchBuilder, self: Tensor, downscale_factor: int) -> Any:
    """Gather blocks of pixels into channels."""
    return unbatched(
        g,
        self,
        4,
        lambda x: resample.SpaceToDepth(g, x, blocksize=downscale_factor, mode="CRD"),
    )


@aten_op("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(g: TorchBuilder, self: Tensor, groups: int) -> Tensor:
    """Deal channels out to groups in turn."""
    batch, channels, *spatial = self.shape
    cut = (groups,) * g.bindings
    each = tuple(n // groups for n in channels)
    x = g.reshape(self, (batch, cut, each, *spatial))
    order = (0, 2, 1, *range(3, x.rank))
    return g.reshape(x.transpose(order), (batch, g.product((each, cut)), *spatial))


@aten_op("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(
    g: TorchBuilder,
    input: Tensor,
    grid: Tensor,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> Tensor:
    """Sample an image at the places a grid gives."""
    modes = ("linear", "nearest", "cubic")
    outside = ("zeros", "border", "reflection")
    return resample.GridSample(
        g,
        input,
        grid,
        align_corners=int(align_corners),
        mode=modes[interpolation_mode],
        padding_mode=outside[padding_mode],
    )


@aten_op("affine_grid_generator")
def affine_grid_generator(
    g: TorchBuilder, theta: Tensor, size: Any, align_corners: bool
) -> Tensor:
    """Make the grid of an affine map."""
    sizes = [g.fixed(dim, "its size") for dim in g.dims(size)[2:]]
    if len(sizes) != 2:
        raise UnsupportedModelError("of three dimensions")
    return g.apply(ops.AffineGrid(tuple(sizes), align_corners), theta)
