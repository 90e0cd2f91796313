"""Trading channels for pixels, and back."""

import numpy as np
import onnxruntime
import pytest
import torch
from check import check
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from strategies import WIDTHS, any_magnitude, generators
from striate import ShapeError, Spec, ops

MODES = ("DCR", "CRD")


@st.composite
def deep(draw):
    """Draw a block and the shape of an image whose channels it divides."""
    axes = draw(st.integers(1, 3))
    block = draw(st.integers(1, 4 if axes < 3 else 2))
    size = draw(st.tuples(*[st.integers(1, 4)] * axes))
    channels = draw(st.sampled_from(WIDTHS if axes < 3 else (1, 3, 8, 17)))
    return block, (draw(st.integers(1, 2)), *size, channels * block**axes)


@given(drawn=deep(), mode=st.sampled_from(MODES), rng=generators())
def test_matches_reference(drawn, mode, rng):
    block, shape = drawn
    x = any_magnitude(rng, shape)
    y = check(ops.DepthToSpace(block, mode), x, exact=True).astype(np.float32)
    back = check(ops.SpaceToDepth(block, mode), y, exact=True)
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("mode", MODES)
def test_is_that_of_onnx_runtime(mode):
    x = np.arange(2 * 12 * 3 * 5, dtype=np.float32).reshape(2, 12, 3, 5)
    node = helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode=mode)
    want = ran(node, x)
    got = ops.DepthToSpace(2, mode).reference(np.moveaxis(x, 1, -1))
    np.testing.assert_array_equal(np.moveaxis(got, -1, 1), want)
    if mode == "DCR":
        back = ran(helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2), want)
        np.testing.assert_array_equal(back, x)


def ran(node, x):
    """Return a node's output by ONNX Runtime."""
    graph = helper.make_graph(
        [node],
        "blocks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opset = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})[0]


def test_crd_is_the_pixel_shuffle_of_torch():
    x = np.arange(2 * 3 * 5 * 18, dtype=np.float32).reshape(2, 3, 5, 18)
    first = torch.from_numpy(np.moveaxis(x, -1, 1))
    want = torch.nn.functional.pixel_shuffle(first, 3).numpy()
    got = ops.DepthToSpace(3, "CRD").reference(x)
    np.testing.assert_array_equal(np.moveaxis(got, -1, 1), want)
    want = torch.nn.functional.pixel_unshuffle(torch.from_numpy(want), 3).numpy()
    np.testing.assert_array_equal(
        ops.SpaceToDepth(3, "CRD").reference(got), np.moveaxis(want, 1, -1)
    )


def test_known_values():
    x = np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8)
    np.testing.assert_array_equal(
        ops.DepthToSpace(2).reference(x)[0], [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    )
    np.testing.assert_array_equal(
        ops.DepthToSpace(2, "CRD").reference(x)[0], [[[0, 4], [1, 5]], [[2, 6], [3, 7]]]
    )


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_any_element_type(dtype):
    x = np.arange(2 * 3 * 8).reshape(2, 3, 1, 8).astype(dtype)
    check(ops.DepthToSpace(2), x, exact=True)
    check(ops.SpaceToDepth(1), x, exact=True)


def test_rejects():
    with pytest.raises(ShapeError, match="4 pixels does not divide the channels of"):
        ops.DepthToSpace(2).infer(Spec((1, 2, 2, 6)))
    with pytest.raises(ShapeError, match="block of 2 does not divide the pixels of"):
        ops.SpaceToDepth(2).infer(Spec((1, 2, 3, 6)))
    with pytest.raises(ShapeError, match="DepthToSpace wants"):
        ops.DepthToSpace(2).infer(Spec((1, 4)))
    with pytest.raises(ValueError, match="block 0"):
        ops.DepthToSpace(0)
    with pytest.raises(ValueError, match="mode 'RCD', wanted 'DCR' or 'CRD'"):
        ops.SpaceToDepth(2, "RCD")
