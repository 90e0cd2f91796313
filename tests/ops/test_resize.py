"""Resampling axes."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from check import check
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator
from strategies import generators, images, normal, whole
from striate import DTypeError, ShapeError, Spec, ops
from striate.ops.resize import COORDINATES, KEEP_ASPECT, NEAREST

UNIT = 2.0**-24


def bound(op, x):
    """Return each pass's rounding: its taps' sum, their weights', and its result's."""
    size = np.abs(x.astype(np.float64))
    steps = 0
    for axis, taps in op.tables(x.shape).items():
        matrix = np.zeros((len(taps.first), size.shape[axis]))
        for p, (first, count) in enumerate(zip(taps.first, taps.count, strict=True)):
            matrix[p, first : first + count] = np.abs(taps.weights[p, :count])
        size = np.moveaxis(np.tensordot(matrix, size, (1, axis)), 0, axis)
        size[(slice(None),) * axis + (taps.count == 0,)] = abs(op.extrapolation)
        steps += taps.most + 3
    return steps * UNIT * size


@st.composite
def configurations(draw):
    """Draw an image's shape and a way to resize its spatial axes."""
    shape = draw(images())
    rank = len(shape) - 2
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    coordinates = draw(st.sampled_from(COORDINATES))
    fields = {
        "mode": mode,
        "coordinates": coordinates,
        "axes": tuple(range(1, rank + 1)),
        "nearest": draw(st.sampled_from(NEAREST)),
        "cubic_coefficient": draw(st.sampled_from([-0.75, -0.5])),
        "antialias": mode != "nearest" and draw(st.booleans()),
        "exclude_outside": mode != "nearest" and draw(st.booleans()),
        "extrapolation": draw(st.sampled_from([0.0, 10.0])),
    }
    if coordinates == "tf_crop_and_resize":
        starts = draw(st.tuples(*[st.sampled_from([0, 0.25, -0.25])] * rank))
        ends = draw(st.tuples(*[st.sampled_from([1, 0.625, 1.25])] * rank))
        fields["region"] = starts + ends
    if draw(st.booleans()):
        fields["sizes"] = draw(st.tuples(*[st.integers(1, 9)] * rank))
        fields["keep_aspect"] = draw(st.sampled_from(KEEP_ASPECT))
    else:
        fields["scales"] = draw(
            st.tuples(*[st.sampled_from([1.0, 2.0, 0.5, 1.3, 3.0, 0.6, 2.7])] * rank)
        )
    op = ops.Resize(**fields)
    if any(size < 1 for _, size, _ in op._targets(shape)):
        op = dataclasses.replace(
            op, scales=(), sizes=(2,) * rank, keep_aspect="stretch"
        )
    return shape, op


@given(drawn=configurations(), rng=generators())
def test_matches_reference(drawn, rng):
    shape, op = drawn
    x = normal(rng, shape)
    check(op, x, bound=bound(op, x))


def rounding_decides(op, shape):
    """Say whether a rounded coordinate may lie beside a number that it should be.

    Nearest pixels then differ where that is halfway. In the other modes ONNX's
    reference takes a whole number's ratio of one side and the neighbours of the other.
    """
    least = 0.5 if op.mode == "nearest" else 1.0
    regions = [op.region[i :: len(shape) - 2] for i in range(len(shape) - 2)]
    for (axis, size, scale), region in zip(op._targets(shape), regions, strict=True):
        n, ratio = shape[axis], scale or size / shape[axis]
        at, _ = op._coordinates(n, size, scale, region or (0.0, 1.0))
        symmetric = op.coordinates == "half_pixel_symmetric" and size != n * ratio
        divided = scale is None and not (8 * ratio).is_integer()
        beside = abs(at - least * (at / least).round()) < 1e-9
        if beside.any() and (symmetric or divided):
            return True
    return False


@given(drawn=configurations(), rng=generators())
def test_reference_is_that_of_onnx(drawn, rng):
    shape, op = drawn
    if op.coordinates == "pytorch_half_pixel" or op.coordinates == COORDINATES[-1]:
        op = dataclasses.replace(op, coordinates="half_pixel")
    doubtful = rounding_decides(op, shape)
    assume(op.mode == "nearest" or not doubtful)
    x = normal(rng, shape).astype(np.float64)
    rank = len(shape)
    around = [1.0, *op.scales, 1.0] if op.scales else None
    feeds = {"x": np.moveaxis(x, -1, 1)}
    if around:
        feeds["scales"] = np.array([1.0, 1.0, *op.scales])
    else:
        feeds["sizes"] = np.array(op.sizes, np.int64)
    if op.region:
        half = len(op.region) // 2
        ends = [*op.region[:half], *op.region[half:]]
        ends = ends if op.sizes else [0, 0, *ends[:half], 1, 1, *ends[half:]]
        feeds["roi"] = np.array(ends)
    node = helper.make_node(
        "Resize",
        ["x", "roi" if op.region else "", "scales" if around else ""]
        + (["sizes"] if op.sizes else []),
        ["y"],
        mode=op.mode,
        coordinate_transformation_mode=op.coordinates,
        nearest_mode=op.nearest,
        cubic_coeff_a=op.cubic_coefficient,
        antialias=int(op.antialias),
        exclude_outside=int(op.exclude_outside),
        extrapolation_value=op.extrapolation,
        keep_aspect_ratio_policy=op.keep_aspect,
        **({} if op.scales else {"axes": list(range(2, rank))}),
    )
    y = helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, None)
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), None
        )
        for name, value in feeds.items()
    ]
    graph = helper.make_graph([node], "resize", inputs, [y])
    opset = [helper.make_opsetid("", 19)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    (want,) = ReferenceEvaluator(model).run(None, feeds)
    got = np.moveaxis(op.reference(x), -1, 1)
    assert got.shape == want.shape
    # The reference adds up cubic weights from float32 numbers as large as 12.
    near = 1e-4 if op.mode == "cubic" else 1e-5
    wrong = ~np.isclose(got, want, rtol=near, atol=near)
    if doubtful:
        wrong &= ~np.isin(got, x)
    assert not wrong.any()


TORCH = [
    ("nearest", ops.Resize((1,), mode="nearest", coordinates="asymmetric"), "floor"),
    (
        "nearest-exact",
        ops.Resize((1,), mode="nearest", coordinates="half_pixel"),
        "round_prefer_ceil",
    ),
    ("bilinear", ops.Resize((1,), mode="linear"), "floor"),
    ("bicubic", ops.Resize((1,), mode="cubic"), "floor"),
]


@pytest.mark.parametrize(("mode", "op", "nearest"), TORCH, ids=[t[0] for t in TORCH])
@pytest.mark.parametrize(
    "size", [(7, 5), (14, 10), (3, 2), (1, 1), (21, 9), (5, 17)], ids=str
)
def test_matches_torch(mode, op, nearest, size):
    x = normal(np.random.default_rng(5), (2, 7, 5, 3))
    op = dataclasses.replace(op, sizes=size, axes=(1, 2), nearest=nearest)
    channels_first = torch.from_numpy(np.moveaxis(x, -1, 1).astype(np.float64))
    options = [{}]
    if mode in ("bilinear", "bicubic"):
        options += [{"align_corners": True}, {"antialias": True}]
    for option in options:
        if option.get("align_corners"):
            op = dataclasses.replace(op, coordinates="align_corners")
        if option.get("antialias"):
            op = dataclasses.replace(
                op,
                coordinates="half_pixel",
                antialias=True,
                exclude_outside=True,
                cubic_coefficient=-0.5,
            )
        want = torch.nn.functional.interpolate(
            channels_first, size=size, mode=mode, **option
        )
        got = check(op, x, bound=bound(op, x))
        np.testing.assert_allclose(
            got, np.moveaxis(want.numpy(), 1, -1), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("scale", [1.3, 2.0, 0.7, 2.45])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_the_scale_is_kept_as_torch_keeps_it(scale, mode):
    x = normal(np.random.default_rng(6), (1, 9, 8, 2))
    coordinates, nearest = "half_pixel", "floor"
    if mode == "nearest":
        coordinates = "asymmetric"
    op = ops.Resize((), (scale, scale), (1, 2), mode, coordinates, nearest)
    want = torch.nn.functional.interpolate(
        torch.from_numpy(np.moveaxis(x, -1, 1).astype(np.float64)),
        scale_factor=scale,
        mode={"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode),
        recompute_scale_factor=False,
    )
    np.testing.assert_allclose(
        op.reference(x.astype(np.float64)),
        np.moveaxis(want.numpy(), 1, -1),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("axes", [(1,), (2,), (3,), (-1, 0), (0, 1, 2, 3)])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_any_axes(axes, mode):
    x = normal(np.random.default_rng(7), (3, 4, 5, 9))
    op = ops.Resize(tuple(range(6, 6 + len(axes))), axes=axes, mode=mode)
    check(op, x, bound=bound(op, x))


@pytest.mark.parametrize("n", [1, 2, 3, 1000])
def test_shrinks_long_axes_with_many_taps(n):
    x = normal(np.random.default_rng(8), (1, 1000, 7))
    op = ops.Resize((n,), axes=(1,), mode="linear", antialias=True)
    check(op, x, bound=bound(op, x))


@given(shape=images(), rng=generators())
def test_twice_as_large_is_exact_on_whole_numbers(shape, rng):
    x = whole(rng, shape)
    axes = tuple(range(1, len(shape) - 1))
    for mode in ("nearest", "linear"):
        op = ops.Resize(scales=(2.0,) * len(axes), axes=axes, mode=mode)
        check(op, x, exact=True)


def test_nearest_repeats_pixels():
    x = np.float32([[1, 2], [3, 4]]).reshape(1, 2, 2, 1)
    y = check(ops.Resize((4, 6), axes=(1, 2)), x, exact=True)
    np.testing.assert_array_equal(y, x.repeat(2, axis=1).repeat(3, axis=2))


def test_known_values():
    x = np.arange(1, 5, dtype=np.float64).reshape(1, 4, 1)

    def of(**fields):
        return ops.Resize(axes=(1,), **fields).reference(x).ravel().tolist()

    assert of(sizes=(2,)) == [1, 3]
    assert of(sizes=(2,), nearest="ceil") == [2, 4]
    assert of(sizes=(2,), coordinates="asymmetric", mode="linear") == [1, 3]
    assert of(sizes=(2,), coordinates="align_corners", mode="linear") == [1, 4]
    assert of(sizes=(7,), coordinates="align_corners", mode="linear") == [
        1, 1.5, 2, 2.5, 3, 3.5, 4
    ]  # fmt: skip
    assert of(sizes=(1,), mode="linear") == [2.5]
    assert of(sizes=(1,), coordinates="pytorch_half_pixel", mode="linear") == [1]
    assert of(sizes=(2,), mode="linear", antialias=True) == pytest.approx(
        [(1 * 0.75 + 2 * 0.75 + 3 * 0.25 + 1 * 0.25) / 2, (2 + 9 + 12 + 4) * 0.125]
    )
    assert of(
        sizes=(3,),
        mode="linear",
        coordinates="tf_crop_and_resize",
        region=(0.5, 1.5),
        extrapolation=-1.0,
    ) == [2.5, 4, -1]


def test_what_lies_outside_hides_nan():
    x = np.full((1, 4, 3), np.nan, np.float32)
    op = ops.Resize(
        (5,),
        axes=(1,),
        mode="cubic",
        coordinates="tf_crop_and_resize",
        region=(2.0, 3.0),
        extrapolation=7.0,
    )
    np.testing.assert_array_equal(check(op, x, exact=True), 7)


def test_nan_stays_where_its_taps_are():
    x = np.ones((1, 8, 5), np.float32)
    x[0, 4, 2] = np.nan
    y = check(ops.Resize((16,), axes=(1,), mode="linear"), x, bound=1e-6)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, p, 2] for p in range(7, 11)]


def test_keeps_the_aspect():
    x = Spec((1, 10, 20, 3))
    for policy, want in (("not_larger", (8, 15)), ("not_smaller", (15, 30))):
        op = ops.Resize((15, 15), axes=(1, 2), keep_aspect=policy)
        assert op.infer(x).shape == (1, *want, 3)


def test_resizes_to_the_same_size():
    x = normal(np.random.default_rng(9), (2, 3, 17))
    op = ops.Resize((2, 3, 17), mode="cubic")
    np.testing.assert_array_equal(check(op, x, exact=True), x)


def test_rejects():
    with pytest.raises(ValueError, match="wanted one or the other"):
        ops.Resize()
    with pytest.raises(ValueError, match="wanted one or the other"):
        ops.Resize((1,), (1.0,))
    with pytest.raises(ValueError, match="mode 'area', wanted one of nearest, linear"):
        ops.Resize((1,), mode="area")
    with pytest.raises(ValueError, match="coordinates 'middle'"):
        ops.Resize((1,), coordinates="middle")
    with pytest.raises(ValueError, match=r"scales .* wanted positive"):
        ops.Resize(scales=(0.0,))
    with pytest.raises(ValueError, match="do not fit the axes"):
        ops.Resize((1, 2), axes=(1,))
    with pytest.raises(ValueError, match="region"):
        ops.Resize((1,), coordinates="tf_crop_and_resize")
    with pytest.raises(ValueError, match="antialias wants"):
        ops.Resize((1,), antialias=True)
    with pytest.raises(ValueError, match="wants sizes, not scales"):
        ops.Resize(scales=(2.0,), keep_aspect="not_larger")
    with pytest.raises(
        ShapeError, match=r"2 sizes or scales for the input \(1, 2, 3\)"
    ):
        ops.Resize((4, 4)).infer(Spec((1, 2, 3)))
    with pytest.raises(ShapeError, match="repeat one"):
        ops.Resize((4, 4), axes=(1, -2)).infer(Spec((1, 2, 3)))
    with pytest.raises(ShapeError, match="leave nothing of axis 1"):
        ops.Resize(scales=(0.1,), axes=(1,)).infer(Spec((1, 2, 3)))
    kept = ops.Resize(sizes=(2, 2), axes=(1, 2), keep_aspect="not_larger")
    with pytest.raises(ShapeError, match=r"sizes \(2, 2\) with keep_aspect 'not_larg"):
        kept.infer(Spec((1, 1, 5, 1)))
    with pytest.raises(DTypeError, match="Resize: found int32"):
        ops.Resize((4,), axes=(1,)).infer(Spec((1, 2, 3), "int32"))


def test_attributes_survive_a_file():
    op = ops.Resize(
        scales=(1.5,),
        axes=(1,),
        coordinates="tf_crop_and_resize",
        region=(0.0, 0.5),
    )
    assert ops.Resize.from_attributes(op.attributes()) == op
