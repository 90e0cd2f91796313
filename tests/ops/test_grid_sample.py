"""Sampling images at places given by a grid, and grids from affine maps."""

import numpy as np
import onnx
import pytest
import torch
from check import check
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator
from strategies import generators, images, normal, whole
from striate import DTypeError, Graph, Model, ShapeError, Spec, ops

UNIT = 2.0**-24
MODES = ("nearest", "linear", "cubic")
OUTSIDE = ("zeros", "border", "reflection")


def bound(op, x, grid):
    """Return the rounding of weights, of products and of the sum over all taps."""
    rank = x.ndim - 2

    class Magnitudes(ops.GridSample, abstract=True):
        def taps(self, grid, n):
            index, weight = super().taps(grid, n)
            return index, np.abs(weight)

    taps = {"nearest": 1, "linear": 2, "cubic": 4}[op.mode] ** rank
    sizes = Magnitudes(op.mode, op.padding_mode, op.align_corners)
    total = sizes.reference(np.abs(x).astype(np.float64), grid)
    return (taps + 3) * UNIT * total + 2.0**-119


@st.composite
def places(draw):
    """Draw an image's shape, and the places to sample."""
    shape = draw(images())
    rank = len(shape) - 2
    return shape, draw(st.tuples(*[st.integers(1, 4)] * rank))


@pytest.mark.parametrize("mode", MODES)
@given(
    drawn=places(),
    outside=st.sampled_from(OUTSIDE),
    align=st.booleans(),
    rng=generators(),
)
def test_matches_reference(mode, drawn, outside, align, rng):
    shape, size = drawn
    x = normal(rng, shape)
    grid = rng.uniform(-2.5, 2.5, (shape[0], *size, len(size))).astype(np.float32)
    op = ops.GridSample(mode, outside, align)
    check(op, x, grid, bound=bound(op, x, grid))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("mode", MODES)
def test_halves_and_edges(mode, outside, align):
    x = normal(np.random.default_rng(1), (1, 4, 5, 9))
    ticks = np.arange(-12, 13, dtype=np.float32) / 4
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1)[None]
    op = ops.GridSample(mode, outside, align)
    check(op, x, grid, bound=bound(op, x, grid))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize(
    ("rank", "mode"),
    [(2, "nearest"), (2, "linear"), (2, "cubic"), (3, "nearest"), (3, "linear")],
)
def test_is_that_of_torch(rank, mode, outside, align):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, *(5, 4, 6)[:rank], 3))
    grid = rng.uniform(-2.5, 2.5, (2, *(3, 4, 5)[:rank], rank))
    want = torch.nn.functional.grid_sample(
        torch.from_numpy(np.moveaxis(x, -1, 1)),
        torch.from_numpy(grid),
        {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode),
        outside,
        align,
    )
    got = ops.GridSample(mode, outside, align).reference(x, grid)
    np.testing.assert_allclose(
        np.moveaxis(got, -1, 1), want.numpy(), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("mode", MODES)
def test_is_that_of_onnx(mode, outside, align):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 4, 5, 2)).astype(np.float32)
    # Beyond the border PyTorch and ONNX Runtime limit cubic taps, ONNX's evaluator the
    # place itself.
    far = 0.7 if (mode, outside) == ("cubic", "border") else 2.5
    grid = rng.uniform(-far, far, (2, 3, 4, 2)).astype(np.float32)
    node = helper.make_node(
        "GridSample",
        ["x", "grid"],
        ["y"],
        mode=mode,
        padding_mode=outside,
        align_corners=int(align),
    )
    graph = helper.make_graph(
        [node],
        "sample",
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in ("x", "grid")
        ],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    feeds = {"x": np.moveaxis(x, -1, 1), "grid": grid}
    (want,) = ReferenceEvaluator(model).run(None, feeds)
    got = ops.GridSample(mode, outside, align).reference(x.astype(np.float64), grid)
    np.testing.assert_allclose(np.moveaxis(got, -1, 1), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("mode", MODES)
def test_places_that_are_none(mode, outside):
    x = normal(np.random.default_rng(4), (1, 3, 4, 5))
    strange = np.float32([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 0])
    grid = np.stack(np.meshgrid(strange, strange), axis=-1)[None]
    op = ops.GridSample(mode, outside)
    y = check(op, x, grid, bound=bound(op, x, grid) + 1e-6)
    assert np.isfinite(y).all()


def test_known_values():
    x = np.float32([[1, 2], [3, 4]]).reshape(1, 2, 2, 1)
    grid = np.float32([[0, 0], [-1, -1], [-0.5, 0.5], [2, 0]]).reshape(1, 1, 4, 2)

    def of(*fields):
        return check(ops.GridSample(*fields), x, grid, exact=True).ravel().tolist()

    assert of() == [2.5, 0.25, 3, 0]
    assert of("linear", "border") == [2.5, 1, 3, 3]
    assert of("linear", "reflection") == [2.5, 1, 3, 2.5]
    assert of("linear", "zeros", True) == [2.5, 1, 2.75, 1.5]
    assert of("nearest", "border") == [1, 1, 3, 2]


@given(shape=images((2, 3)), align=st.booleans(), rng=generators())
def test_the_identity_map_samples_the_image(shape, align, rng):
    x = whole(rng, shape)
    rank = len(shape) - 2
    graph = Graph()
    theta = np.tile(np.eye(rank, rank + 1, dtype=np.float32), (shape[0], 1, 1))
    grid = graph.add(ops.AffineGrid(shape[1:-1], align), graph.input("t", theta.shape))
    sampled = graph.add(ops.GridSample("nearest", "border", align),
                        graph.input("x", shape), grid)  # fmt: skip
    graph.output(sampled)
    with Model(graph) as model:
        y = model.run({"x": x, "t": theta})[sampled]
    np.testing.assert_array_equal(y, x)


@given(
    n=st.integers(1, 3),
    size=st.lists(st.integers(1, 7), min_size=2, max_size=3).map(tuple),
    align=st.booleans(),
    rng=generators(),
)
def test_affine_grid_matches_reference(n, size, align, rng):
    theta = normal(rng, (n, len(size), len(size) + 1))
    op = ops.AffineGrid(size, align)
    limit = 8 * UNIT * np.abs(theta).sum(axis=-1)
    check(op, theta, bound=limit.reshape(n, *[1] * len(size), len(size)))


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid behavior")
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(3, 4), (1, 5), (2, 1, 3), (4, 3, 2)])
def test_affine_grid_is_that_of_torch(size, align):
    rank = len(size)
    theta = np.random.default_rng(5).standard_normal((2, rank, rank + 1))
    want = torch.nn.functional.affine_grid(
        torch.from_numpy(theta), (2, 3, *size), align_corners=align
    )
    got = ops.AffineGrid(size, align).reference(theta)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-12, atol=1e-12)


def test_rejects():
    with pytest.raises(ShapeError, match=r"the grid \(1, 2, 2, 3\) does not fit"):
        ops.GridSample().infer(Spec((1, 4, 4, 3)), Spec((1, 2, 2, 3)))
    with pytest.raises(ShapeError, match=r"the grid \(2, 2, 2, 2\) does not fit"):
        ops.GridSample().infer(Spec((1, 4, 4, 3)), Spec((2, 2, 2, 2)))
    with pytest.raises(DTypeError, match="GridSample: found int64"):
        ops.GridSample().infer(Spec((1, 4, 4, 3)), Spec((1, 2, 2, 2), "int64"))
    with pytest.raises(ValueError, match="mode 'bilinear', wanted one of nearest"):
        ops.GridSample("bilinear")
    with pytest.raises(ValueError, match="padding_mode 'edge'"):
        ops.GridSample("linear", "edge")
    with pytest.raises(ShapeError, match=r"theta \(1, 3, 4\) does not fit the size"):
        ops.AffineGrid((2, 2)).infer(Spec((1, 3, 4)))
    with pytest.raises(ValueError, match="wanted two or three numbers"):
        ops.AffineGrid((2,))
