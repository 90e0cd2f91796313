"""Random resampling, padding and rearranging of images."""

import numpy as np

from .draft import Draft, family, value, weight

COORDINATES = (
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "half_pixel_symmetric",
    "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)

EMPTY = np.zeros(0, np.float32)


def factor(d):
    """Return a scale."""
    return d.one_of(1.0, 2.0, 0.5, 3.0, 1.5, 0.75, d.real(0.2, 1.0), d.real(1.0, 4.0))


@family("Resize")
def resize(d, op):
    shape = d.image(elements=3000)
    rank = len(shape)
    opset = d.opset(op, 10)
    x = value(d.normal(shape))
    mode = d.one_of("nearest", "linear", "cubic" if rank == 4 else "linear")
    if opset == 10:
        scales = [1.0, 1.0, *(factor(d) for _ in shape[2:])]
        scales = [
            s if int(n * s) != n else 1.0 for n, s in zip(shape, scales, strict=True)
        ]
        attributes = {"mode": d.one_of("nearest", "linear")}
        operands = [x, weight(np.float32(scales))]
        return Draft(op, opset, operands, attributes, rule=("share", 1e-5))
    axes = list(range(2, rank))
    all_axes = opset < 18 or d.chance(0.4)
    if not all_axes and d.chance(0.5):
        axes = d.some_of(axes, 1)
    if d.chance(0.05):
        axes = d.some_of(range(rank), 1)
    attributes = {"mode": mode}
    scales = [factor(d) for _ in axes]
    sizes = [max(1, int(shape[a] * s)) for a, s in zip(axes, scales, strict=True)]
    if d.chance(0.15):
        sizes = [1 if d.chance(0.5) else n for n in sizes]
    if all_axes:
        full = [1.0] * rank
        whole = list(shape)
        for axis, scale, size in zip(axes, scales, sizes, strict=True):
            full[axis], whole[axis] = scale, size
        scales, sizes = full, whole
        axes = list(range(rank))
    else:
        attributes["axes"] = axes
    if d.chance(0.8):
        attributes["coordinate_transformation_mode"] = d.one_of(*COORDINATES)
    if d.chance(0.6) and mode == "nearest":
        attributes["nearest_mode"] = d.one_of(
            "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"
        )
    if mode != "nearest":
        if d.chance(0.2):
            attributes["antialias"] = 1
        if d.chance(0.2):
            attributes["exclude_outside"] = 1
    if mode == "cubic" and d.chance(0.4):
        attributes["cubic_coeff_a"] = d.one_of(-0.5, -0.75, d.real(-1, 0))
    region = None
    if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        region = region_of_interest(d, [shape[a] for a in axes], all_axes)
        if d.chance(0.5):
            attributes["extrapolation_value"] = d.real(-3, 3)
    by_size = d.chance(0.5)
    if by_size and d.chance(0.3):
        attributes["keep_aspect_ratio_policy"] = d.one_of("not_larger", "not_smaller")
    elif by_size and not all_axes and region is None:
        attributes["axes"] = [a - rank if d.chance(0.2) else a for a in axes]
    nothing = weight(EMPTY) if opset < 13 or d.chance(0.5) else None
    operands = [x, weight(region) if region is not None else nothing]
    if by_size:
        operands += [nothing, weight(np.int64(sizes))]
    else:
        operands.append(weight(np.float32(scales)))
    return Draft(op, opset, operands, attributes, rule=("share", 1e-5))


def region_of_interest(d, shape, spatial_only):
    """Return where a crop starts and ends along every axis."""
    starts, ends = [], []
    for axis, _ in enumerate(shape):
        whole = (spatial_only and axis < 2) or d.chance(0.3)
        start = 0.0 if whole else d.real(-0.3, 0.6)
        end = 1.0 if whole else d.real(start, 1.4)
        starts.append(start)
        ends.append(end)
    return np.float32([*starts, *ends])


@family("Upsample")
def upsample(d, op):
    shape = d.image(d.one_of(1, 2, 2, 3), elements=2000)
    opset = d.integer(7, 9)
    scales = [1.0, 1.0, *(max(1.0, factor(d)) for _ in shape[2:])]
    attributes = {"mode": d.one_of("nearest", "linear")}
    operands = [value(d.normal(shape))]
    if opset >= 9:
        operands.append(weight(np.float32(scales)))
    else:
        attributes["scales"] = scales
    return Draft(op, opset, operands, attributes, rule=("share", 1e-5))


@family("Pad")
def pad(d, op):
    opset = d.opset(op)
    dtype = d.one_of("float32", "float32", "float32", "int64", "int32", "uint8", "bool")
    if opset < 13:
        dtype = "float32"
    shape = d.image(elements=3000) if d.chance(0.5) else d.shape(1, 5, 2000)
    rank = len(shape)
    mode = d.one_of("constant", "constant", "reflect", "edge", "wrap")
    if opset < 19 and mode == "wrap":
        mode = "edge"
    axes = list(range(rank))
    given = opset >= 18 and d.chance(0.5)
    if given:
        axes = d.some_of(axes, 1)
    before, after = [], []
    for axis in axes:
        n = shape[axis]
        most = {"reflect": n - 1, "wrap": n}.get(mode, 5)
        if d.chance(0.05):
            most += 2
        quiet = d.chance(0.5)
        before.append(0 if quiet else d.integer(0, max(0, min(most, 9))))
        after.append(0 if quiet else d.integer(0, max(0, min(most, 9))))
        if d.chance(0.1):
            before[-1] = -d.integer(0, n)
        if d.chance(0.1):
            after[-1] = -d.integer(0, n)
    pads = [*before, *after]
    x = value(d.array(shape, dtype))
    fill = d.array([], dtype)
    attributes = {}
    if mode != "constant" or d.chance(0.5):
        attributes["mode"] = mode
    if opset < 11:
        attributes["pads"] = pads
        if d.chance(0.5):
            attributes["value"] = float(fill)
        return Draft(op, opset, [x], attributes)
    operands = [x, weight(np.int64(pads))]
    if d.chance(0.6):
        operands.append(weight(fill))
    elif given:
        operands.append(None)
    if given:
        if len(operands) < 3:
            operands.append(None)
        names = [a - rank if d.chance(0.3) else a for a in axes]
        kind = d.one_of("int32", "int64")
        operands.append(weight(np.array(names, kind)))
    return Draft(op, opset, operands, attributes)


@family("DepthToSpace", "SpaceToDepth")
def blocks(d, op):
    size = d.integer(1, 3)
    batch, channels, height, width = d.image(2, elements=2000, channels=16)
    if op == "DepthToSpace":
        shape = [batch, channels * size * size, height, width]
    else:
        shape = [batch, channels, height * size, width * size]
    attributes = {"blocksize": size}
    if d.chance(0.6):
        attributes["mode"] = d.one_of("DCR", "CRD")
    return Draft(op, d.opset(op), [value(d.normal(shape))], attributes)


@family("CenterCropPad")
def center_crop_pad(d, op):
    shape = d.image(elements=3000) if d.chance(0.5) else d.shape()
    rank = len(shape)
    axes = d.some_of(range(rank), 1)
    attributes = {"axes": [a - rank if d.chance(0.3) else a for a in axes]}
    if d.chance(0.4):
        axes, attributes = range(rank), {}
    sizes = [max(1, shape[a] + d.integer(-4, 4)) for a in axes]
    operands = [value(d.normal(shape)), weight(np.int64(sizes))]
    return Draft(op, d.opset(op), operands, attributes)


@family("GridSample")
def grid_sample(d, op):
    opset = d.opset(op, 16)
    rank = 3 if opset >= 20 and d.chance(0.3) else 2
    batch, channels, *spatial = d.image(rank, elements=3000)
    sizes = [d.integer(1, 7) for _ in spatial]
    grid = d.array([batch, *sizes, rank], low=-1.6, high=1.6)
    if d.chance(0.3):
        grid = np.round(grid * 2) / np.float32(2)
    modes = ("linear", "nearest", "cubic" if rank == 2 else "linear")
    if opset < 20:
        modes = ("bilinear", "nearest", "bicubic")
    attributes = {
        "mode": d.one_of(*modes),
        "padding_mode": d.one_of("zeros", "border", "reflection"),
        "align_corners": d.integer(0, 1),
    }
    x = value(d.normal([batch, channels, *spatial]))
    rule = ("share", 2e-4)
    return Draft(op, opset, [x, value(grid)], attributes, rule=rule)


@family("AffineGrid")
def affine_grid(d, op):
    rank = d.one_of(2, 3)
    batch = d.integer(1, 3)
    theta = value(d.normal([batch, rank, rank + 1]))
    size = [batch, d.integer(1, 4), *(d.integer(1, 9) for _ in range(rank))]
    attributes = {"align_corners": d.integer(0, 1)}
    operands = [theta, weight(np.int64(size))]
    return Draft(op, d.opset(op), operands, attributes, rule=("share", 1e-6))


@family("RoiAlign")
def roi_align(d, op):
    opset = d.opset(op, 10)
    batch, channels, height, width = d.image(2, elements=3000)
    count = d.integer(1, 6)
    corner = d.array([count, 2], low=-2, high=12)
    regions = np.concatenate([corner, corner + d.array([count, 2], low=0, high=14)], 1)
    scale = d.one_of(1.0, 0.5, 0.25, d.real(0.1, 2))
    attributes = {
        "output_height": d.integer(1, 6),
        "output_width": d.integer(1, 6),
        "sampling_ratio": d.integer(0, 3),
        "spatial_scale": scale,
        "mode": d.one_of("avg", "max"),
    }
    if d.chance(0.6):
        attributes["coordinate_transformation_mode"] = d.one_of(
            "half_pixel", "output_half_pixel"
        )
    operands = [
        value(d.normal([batch, channels, height, width])),
        value(regions),
        value(d.rng.integers(0, batch, count)),
    ]
    return Draft(op, opset, operands, attributes, rule=("share", 1e-4))
