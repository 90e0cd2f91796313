"""Operators that enlarge, shrink and sample images.

Each function is named and signed like its operator.
"""

# ruff: noqa: N802, N803

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from striate import ops
from striate.errors import UnsupportedModelError
from striate.tools.from_onnx.layers import image, on_image
from striate.tools.from_onnx.registry import OnnxBuilder, onnx_op
from striate.tools.layout import Constant, Tensor

Ints = tuple[int, ...]


@onnx_op("Upsample", since=1)
def Upsample_1(
    g: OnnxBuilder,
    X: Tensor,
    *,
    height_scale: float,
    width_scale: float,
    mode: str = "nearest",
) -> Tensor:
    """Enlarge by factors for height and width."""
    return early(g, X, (1.0, 1.0, height_scale, width_scale), mode)


@onnx_op("Upsample", since=7)
def Upsample_7(
    g: OnnxBuilder,
    X: Tensor,
    *,
    scales: tuple[float, ...],
    mode: str = "nearest",
) -> Tensor:
    """Enlarge by factors that are an attribute."""
    return early(g, X, scales, mode)


@onnx_op("Upsample", since=9)
def Upsample(
    g: OnnxBuilder, X: Tensor, scales: Tensor, *, mode: str = "nearest"
) -> Tensor:
    """Enlarge by factors that are an input."""
    return early(g, X, factors(g, scales), mode)


@onnx_op("Resize", since=10)
def Resize_10(
    g: OnnxBuilder, X: Tensor, scales: Tensor, *, mode: str = "nearest"
) -> Tensor:
    """Resample as `Upsample`; of an axis that shrinks the next position is taken."""
    return early(g, X, factors(g, scales), mode)


def factors(g: OnnxBuilder, scales: Tensor) -> tuple[float, ...]:
    """Return constant scales, which may differ with the open sizes only by rounding."""
    return tuple(float(n) for n in g.array(scales, "its scales").reshape(-1))


def early(g: OnnxBuilder, x: Tensor, scales: tuple[float, ...], mode: Any) -> Tensor:
    """Return `x` resampled as before there were coordinate modes."""
    changed = [n for n in scales if n != 1]
    smaller = [n < 1 for n in changed]
    if mode == "nearest" and any(smaller) and not all(smaller):
        raise UnsupportedModelError(f"scales {list(scales)} enlarge and shrink")
    op = ops.Resize(
        scales=scales,
        axes=tuple(range(len(scales))),
        mode="linear" if mode in ("bilinear", "linear") else mode,
        coordinates="asymmetric",
        nearest="ceil" if any(smaller) else "floor",
    )
    return resized(g, op, x)


@onnx_op("Resize", since=11)
def Resize(
    g: OnnxBuilder,
    X: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    antialias: int = 0,
    axes: Ints | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: Any = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """Resample to a size or by factors."""
    if exclude_outside and mode == "nearest":
        raise UnsupportedModelError("exclude_outside with the mode nearest")
    if coordinate_transformation_mode == "half_pixel_symmetric" and g.opset < 19:
        raise UnsupportedModelError("half_pixel_symmetric before opset 19")
    if coordinate_transformation_mode == "tf_half_pixel_for_nn" and (
        mode != "nearest" or nearest_mode not in ("floor", "round_prefer_floor")
    ):
        raise UnsupportedModelError(
            f"tf_half_pixel_for_nn with the mode {mode}, nearest_mode {nearest_mode}"
        )
    chosen = tuple(g.axis(a, X.rank) for a in axes) if axes else tuple(range(X.rank))
    numbers: tuple[float, ...] = ()
    wanted: Ints = ()
    if _given(scales):
        assert scales is not None
        numbers = factors(g, scales)
    elif _given(sizes):
        numbers, wanted = _sizes(g, X, chosen, sizes, keep_aspect_ratio_policy)
    else:
        raise UnsupportedModelError("neither scales nor sizes")
    region: tuple[float, ...] = ()
    if coordinate_transformation_mode == "tf_crop_and_resize":
        region = tuple(float(n) for n in g.array(roi, "its roi").reshape(-1))
        for scale, axis in zip(numbers, chosen, strict=False):
            if any(n * scale % 1 for n in X.shape[axis]):
                raise UnsupportedModelError(
                    f"{coordinate_transformation_mode} by {scale}: which length is "
                    "meant where it is not whole is not agreed"
                )
    op = ops.Resize(
        sizes=wanted,
        scales=numbers,
        axes=chosen,
        mode=mode,
        coordinates=coordinate_transformation_mode,
        nearest=nearest_mode,
        cubic_coefficient=cubic_coeff_a,
        antialias=bool(antialias),
        exclude_outside=bool(exclude_outside),
        extrapolation=extrapolation_value,
        region=region,
        keep_aspect=keep_aspect_ratio_policy if wanted else "stretch",
    )
    return resized(g, op, X)


def _given(x: Tensor | None) -> bool:
    return x is not None and all(n != 0 for dim in x.shape for n in dim)


def _sizes(
    g: OnnxBuilder, x: Tensor, axes: Ints, sizes: Tensor | None, policy: str
) -> tuple[tuple[float, ...], Ints]:
    """Return scales and sizes, one of them empty: scales if the sizes are open."""
    if not isinstance(sizes, Constant) or sizes.fixed or policy != "stretch":
        if isinstance(sizes, Constant) and not sizes.fixed and policy != "stretch":
            raise UnsupportedModelError(f"open sizes with {policy}")
        return (), g.numbers(sizes, "its sizes") or ()
    scales = []
    for index, axis in enumerate(axes):
        column = [int(array.reshape(-1)[index]) for array in sizes.arrays]
        first, old = column[0], x.shape[axis][0]
        pairs = zip(column, x.shape[axis], strict=True)
        if any(size * old != first * n for size, n in pairs):
            raise UnsupportedModelError(
                f"its size along axis {axis} is no multiple of its input's"
            )
        if math.floor(old * (first / old)) != first:
            raise UnsupportedModelError(f"the scale {first}/{old} of axis {axis}")
        scales.append(first / old)
    return tuple(scales), ()


def resized(g: OnnxBuilder, op: ops.Resize, x: Tensor) -> Tensor:
    """Return `x` resampled along those axes that change, in the order they lie."""
    count = len(op.axes)
    if count not in (len(op.sizes), len(op.scales)):
        raise UnsupportedModelError(f"{count} axes and other scales or sizes")
    if op.region and len(op.region) != 2 * count:
        raise UnsupportedModelError(f"a region of {len(op.region)} for {count} axes")
    exact = op.coordinates == "tf_crop_and_resize"
    kept = [
        i
        for i, axis in enumerate(op.axes)
        if exact
        or op.keep_aspect != "stretch"
        or (op.scales and op.scales[i] != 1)
        or (op.sizes and any(n != op.sizes[i] for n in x.shape[axis]))
    ]
    if not kept:
        return x
    if op.keep_aspect == "stretch" and not exact:
        g.one_picture_at_a_time(x, [op.axes[i] for i in kept])
    else:
        g.one_picture_at_a_time(x, op.axes)
    order = g.order(x)
    kept.sort(key=lambda i: order.index(op.axes[i]))
    op = replace(
        op,
        sizes=tuple(op.sizes[i] for i in kept) if op.sizes else (),
        scales=tuple(op.scales[i] for i in kept) if op.scales else (),
        axes=tuple(order.index(op.axes[i]) for i in kept),
        region=tuple(op.region[i + half] for half in (0, count) for i in kept)
        if op.region
        else (),
    )
    return g.permuted(op, x, order)


@onnx_op("DepthToSpace")
def DepthToSpace(
    g: OnnxBuilder, input: Tensor, *, blocksize: int, mode: Any = "DCR"
) -> Tensor:
    """Spread channels over blocks of pixels."""
    return on_image(g, ops.DepthToSpace(blocksize, mode), input)


@onnx_op("SpaceToDepth")
def SpaceToDepth(
    g: OnnxBuilder, input: Tensor, *, blocksize: int, mode: Any = "DCR"
) -> Tensor:
    """Gather blocks of pixels into channels."""
    return on_image(g, ops.SpaceToDepth(blocksize, mode), input)


@onnx_op("CenterCropPad", since=18)
def CenterCropPad(
    g: OnnxBuilder, input_data: Tensor, shape: Tensor, *, axes: Ints | None = None
) -> Tensor:
    """Cut off or pad with zeros on both sides, one more at the end if it is odd."""
    rank = input_data.rank
    chosen = range(rank) if axes is None else [g.axis(axis, rank) for axis in axes]
    sizes = g.numbers(shape, "its shape") or ()
    changed = {
        axis: size
        for axis, size in zip(chosen, sizes, strict=True)
        if any(n != size for n in input_data.shape[axis])
    }
    if not changed:
        return input_data
    g.one_picture_at_a_time(input_data, tuple(changed))
    order = g.order(input_data)
    places = sorted(changed, key=order.index)
    op = ops.CenterCropPad(
        tuple(changed[axis] for axis in places),
        tuple(order.index(axis) for axis in places),
    )
    return g.permuted(op, input_data, order)


@onnx_op("GridSample", since=16)
def GridSample(
    g: OnnxBuilder,
    X: Tensor,
    grid: Tensor,
    *,
    align_corners: int = 0,
    mode: Any = "linear",
    padding_mode: Any = "zeros",
) -> Tensor:
    """Sample an image at the places a grid gives."""
    early_names: Any = {"bilinear": "linear", "bicubic": "cubic"}
    op = ops.GridSample(early_names.get(mode, mode), padding_mode, bool(align_corners))
    return g.operate(op, image(X, "its input"), grid).channels_first()


@onnx_op("AffineGrid", since=20)
def AffineGrid(
    g: OnnxBuilder, theta: Tensor, size: Tensor, *, align_corners: int = 0
) -> Tensor:
    """Make the grid of an affine map."""
    sizes = g.numbers(size, "its size") or ()
    if align_corners and 1 in sizes[2:]:
        raise UnsupportedModelError(
            f"align_corners for the size {list(sizes)}: where the corners of a size of "
            "1 lie is not agreed"
        )
    return g.apply(ops.AffineGrid(sizes[2:], bool(align_corners)), theta)


@onnx_op("RoiAlign", since=10)
def RoiAlign_10(
    g: OnnxBuilder,
    X: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    mode: Any = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Resample regions of images, whose corners are taken as they are."""
    return RoiAlign(
        g,
        X,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


@onnx_op("RoiAlign", since=16)
def RoiAlign(
    g: OnnxBuilder,
    X: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    coordinate_transformation_mode: Any = "half_pixel",
    mode: Any = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Resample regions of images to one size."""
    g.whole(X, rois)
    op = ops.RoiAlign(
        (output_height, output_width),
        sampling_ratio,
        spatial_scale,
        mode,
        coordinate_transformation_mode,
    )
    y = g.operate(op, image(X, "its input"), rois, batch_indices)
    return y.channels_first()
