"""Making axes a given size."""

import numpy as np
import onnx
import pytest
from check import check
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator
from strategies import any_magnitude, generators, normal, shapes
from striate import Graph, Model, ShapeError, Spec, ops


@st.composite
def targets(draw):
    """Draw a shape, some of its axes and their new sizes."""
    shape = draw(shapes())
    axes = tuple(draw(st.permutations(range(len(shape)))))
    axes = axes[: draw(st.integers(1, len(axes)))]
    sizes = draw(st.tuples(*[st.sampled_from([1, 2, 3, 7, 16, 20])] * len(axes)))
    return shape, sizes, tuple(a - draw(st.sampled_from([0, len(shape)])) for a in axes)


@given(drawn=targets(), rng=generators())
def test_matches_reference(drawn, rng):
    shape, sizes, axes = drawn
    check(ops.CenterCropPad(sizes, axes), any_magnitude(rng, shape), exact=True)


@given(drawn=targets(), rng=generators())
def test_is_that_of_onnx(drawn, rng):
    shape, sizes, axes = drawn
    x = normal(rng, shape)
    node = helper.make_node("CenterCropPad", ["x", "sizes"], ["y"], axes=axes)
    graph = helper.make_graph(
        [node],
        "crop",
        [
            helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None),
            helper.make_tensor_value_info("sizes", onnx.TensorProto.INT64, None),
        ],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    feeds = {"x": x, "sizes": np.array(sizes, np.int64)}
    (want,) = ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_array_equal(ops.CenterCropPad(sizes, axes).reference(x), want)


def test_known_values():
    x = np.arange(1, 5, dtype=np.float32)
    assert check(ops.CenterCropPad((3,)), x, exact=True).tolist() == [1, 2, 3]
    assert check(ops.CenterCropPad((7,)), x, exact=True).tolist() == [
        0, 1, 2, 3, 4, 0, 0
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_any_element_type(dtype):
    x = np.arange(12).reshape(3, 4).astype(dtype)
    check(ops.CenterCropPad((2, 7)), x, exact=True)


def test_between_layers():
    graph = Graph()
    x = graph.add(ops.Relu(), graph.input("x", (1, 5, 6, 3)))
    for sizes in ((3, 9), (9, 2), (2, 2), (11, 11)):
        x = graph.add(ops.CenterCropPad(sizes, (1, 2)), x)
    graph.output(graph.add(ops.Neg(), x))
    feed = normal(np.random.default_rng(1), (1, 5, 6, 3))
    (want,) = graph.reference({"x": feed}).values()
    np.testing.assert_array_equal(Model(graph)(feed), want)


def test_rejects():
    with pytest.raises(ValueError, match="shape"):
        ops.CenterCropPad((0,))
    with pytest.raises(ValueError, match="do not fit the axes"):
        ops.CenterCropPad((1, 2), (0,))
    with pytest.raises(ShapeError, match="do not fit a tensor of rank 3"):
        ops.CenterCropPad((1, 2)).infer(Spec((1, 2, 3)))
    with pytest.raises(ShapeError, match="repeat one"):
        ops.CenterCropPad((1, 2), (1, -2)).infer(Spec((1, 2, 3)))
    with pytest.raises(ShapeError, match="axis 3 is outside"):
        ops.CenterCropPad((1,), (3,)).infer(Spec((1, 2, 3)))
