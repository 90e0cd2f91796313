"""Cutting regions of interest out of images."""

import numpy as np
import onnxruntime
import pytest
from check import check
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from strategies import WIDTHS, generators, normal, whole
from striate import DTypeError, ShapeError, Spec, ops

UNIT = 2.0**-24
COORDINATES = ("half_pixel", "output_half_pixel")


def bound(op, x, rois, images):
    """Return the rounding of weights, of products and of the sum over all taps."""
    size = op.reference(np.abs(x).astype(np.float64), rois, images)
    if op.mode == "max":
        return 4 * UNIT * size + 2.0**-119
    bins = np.array(op.output_size)
    most = np.abs(rois[:, [3, 2]] - rois[:, [1, 0]]).max(axis=0)
    samples = op.sampling_ratio or np.ceil(np.maximum(most, 1) / bins) + 1
    return (4 * np.prod(np.full(2, samples)) + 4) * UNIT * size + 2.0**-119


def regions(rng, count, height, width):
    """Return corners in and around an image, some of them in the wrong order."""
    x = rng.uniform(-0.3 * width, 1.3 * width, (count, 2))
    y = rng.uniform(-0.3 * height, 1.3 * height, (count, 2))
    if rng.random() < 0.8:
        x.sort(axis=1)
        y.sort(axis=1)
    corners = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
    return corners.astype(np.float32)


@pytest.mark.parametrize("mode", ["avg", "max"])
@given(
    shape=st.tuples(
        st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from(WIDTHS)
    ),
    output_size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    sampling=st.integers(0, 5),
    coordinates=st.sampled_from(COORDINATES),
    dtype=st.sampled_from(["int64", "int32"]),
    rng=generators(),
)
def test_matches_reference(mode, shape, output_size, sampling, coordinates, dtype, rng):
    x = normal(rng, shape)
    count = int(rng.integers(1, 5))
    rois = regions(rng, count, *shape[1:3])
    images = rng.integers(0, shape[0], count).astype(dtype)
    scale = float(rng.choice([1.0, 0.5, 0.1]))
    op = ops.RoiAlign(output_size, sampling, scale, mode, coordinates)
    check(op, x, rois, images, bound=bound(op, x, rois, images))


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("sampling", [0, 1, 2, 3])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_is_that_of_onnx_runtime(mode, sampling, coordinates):
    rng = np.random.default_rng(sampling)
    x = normal(rng, (2, 9, 11, 3))
    rois = np.float32([[1, 2, 7.5, 8], [0, 0, 20, 10.25], [3, 3, 3.4, 3.3]])
    images = np.array([0, 1, 0])
    node = helper.make_node(
        "RoiAlign",
        ["x", "rois", "images"],
        ["y"],
        mode=mode,
        sampling_ratio=sampling,
        spatial_scale=0.5,
        output_height=3,
        output_width=2,
        coordinate_transformation_mode=coordinates,
    )
    graph = helper.make_graph(
        [node],
        "regions",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3, 9, 11)),
            helper.make_tensor_value_info("rois", TensorProto.FLOAT, (3, 4)),
            helper.make_tensor_value_info("images", TensorProto.INT64, (3,)),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opset = [helper.make_opsetid("", 16)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feeds = {"x": np.moveaxis(x, -1, 1), "rois": rois, "images": images}
    (want,) = session.run(None, feeds)
    op = ops.RoiAlign((3, 2), sampling, 0.5, mode, coordinates)
    got = op.reference(x.astype(np.float64), rois, images)
    np.testing.assert_allclose(np.moveaxis(got, -1, 1), want, rtol=1e-4, atol=1e-5)


def test_a_region_of_whole_pixels_is_their_mean():
    x = whole(np.random.default_rng(1), (1, 4, 4, 5))
    rois = np.float32([[0, 0, 4, 4], [0, 0, 2, 2]])
    y = check(ops.RoiAlign((2, 2)), x, rois, np.array([0, 0]), exact=True)
    means = x.reshape(1, 2, 2, 2, 2, 5).mean(axis=(2, 4))
    np.testing.assert_array_equal(y[0], means[0])
    np.testing.assert_array_equal(y[1], x[0, :2, :2])


def test_known_values():
    x = np.float32([[1, 2], [3, 4]]).reshape(1, 2, 2, 1)
    rois, images = np.float32([[0, 0, 2, 2]]), np.array([0])
    one = ops.RoiAlign(sampling_ratio=1)
    assert check(one, x, rois, images, exact=True).item() == 2.5
    largest = ops.RoiAlign(sampling_ratio=1, mode="max")
    assert check(largest, x, rois, images, exact=True).item() == 1
    shifted = ops.RoiAlign(sampling_ratio=1, coordinates="output_half_pixel")
    assert check(shifted, x, rois, images, exact=True).item() == 4


def test_regions_that_are_none():
    x = normal(np.random.default_rng(2), (1, 5, 6, 3))
    nan, inf = np.nan, np.inf
    rois = np.float32(
        [
            [nan] * 4,
            [-inf, -inf, inf, inf],
            [4, 4, 1, 1],
            [0, 0, 1e30, 3],
            [9, 9, 12, 12],
        ]
    )
    images = np.array([0, 0, 0, -3, 99])
    for mode in ("avg", "max"):
        op = ops.RoiAlign((2, 2), 2, mode=mode)
        with np.errstate(all="ignore"):
            y = check(op, x, rois[2:], images[2:], bound=1e-5)
        assert np.isfinite(y).all()


def test_rejects():
    op = ops.RoiAlign((2, 2))
    x = Spec((1, 4, 4, 3))
    with pytest.raises(ShapeError, match=r"rois \(2, 5\) and batch_indices \(2,\)"):
        op.infer(x, Spec((2, 5)), Spec((2,), "int64"))
    with pytest.raises(DTypeError, match="wanted int64 or int32"):
        op.infer(x, Spec((2, 4)), Spec((2,)))
    with pytest.raises(ShapeError, match="RoiAlign wants"):
        op.infer(Spec((1, 4, 3)), Spec((2, 4)), Spec((2,), "int64"))
    with pytest.raises(ValueError, match="wanted two numbers"):
        ops.RoiAlign((2,))
    with pytest.raises(ValueError, match="sampling_ratio"):
        ops.RoiAlign((2, 2), -1)
    with pytest.raises(ValueError, match="spatial_scale 0"):
        ops.RoiAlign((2, 2), spatial_scale=0.0)
    with pytest.raises(ValueError, match="mode 'sum'"):
        ops.RoiAlign((2, 2), mode="sum")
