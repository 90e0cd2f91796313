"""What random models and networks once found wrong."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import node, onnx_model, session
from striate import Graph, Model, ShapeError, ops
from striate.errors import UnsupportedModelError
from striate.tools import convert
from striate.tools.to_onnx.model import to_onnx


def answers(tmp_path, model, feeds):
    """Return the outputs by striate and by ONNX Runtime."""
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    graph = convert(path, io="source")
    wanted = session(path).run(None, feeds)
    return list(Model(graph).run(feeds).values()), wanted


def test_a_slice_of_an_open_axis_longer_than_those_tried(tmp_path):
    attributes = {"axes": [0], "starts": [0], "ends": [21]}
    model = onnx_model(
        [node("Slice", ["x"], ["y"], **attributes)], {"x": [None]}, opset=9
    )
    x = np.arange(32, dtype=np.float32)
    (found,), (wanted,) = answers(tmp_path, model, {"x": x})
    np.testing.assert_array_equal(found, wanted)


def test_cutting_an_open_axis_where_nothing_is_left(tmp_path):
    pads = np.int64([-3, 0, 2, -1])
    model = onnx_model(
        [node("Pad", ["x", "pads"], ["y"])], {"x": [None, 1]}, constants={"pads": pads}
    )
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(UnsupportedModelError, match="leaves nothing"):
        convert(tmp_path / "model.onnx")


def test_squeezing_axes_that_are_not_named(tmp_path):
    model = onnx_model([node("Squeeze", ["x"], ["y"])], {"x": [1, 8, 1]})
    x = np.arange(8, dtype=np.float32).reshape(1, 8, 1)
    (found,), (wanted,) = answers(tmp_path, model, {"x": x})
    assert found.shape == wanted.shape == (8,)
    model = onnx_model([node("Squeeze", ["x"], ["y"])], {"x": ["batch", 8, 1]})
    onnx.save(model, tmp_path / "open.onnx")
    with pytest.raises(UnsupportedModelError, match="without axes"):
        convert(tmp_path / "open.onnx")


@pytest.mark.parametrize("op", ["Pow", "Mean", "Equal"])
def test_single_numbers_stay_single(tmp_path, op):
    model = onnx_model(
        [node(op, ["x", "c"], ["y"])],
        {"x": []},
        constants={"c": np.float32(2)},
        dtypes={"y": TensorProto.BOOL} if op == "Equal" else {},
    )
    (found,), (wanted,) = answers(tmp_path, model, {"x": np.array(3, np.float32)})
    assert found.shape == wanted.shape == ()
    assert found == wanted


def test_a_single_number_broadcasts_to_a_matrix(tmp_path):
    model = onnx_model(
        [node("And", ["x", "c"], ["y"])],
        {"x": []},
        constants={"c": np.ones((3, 1), bool)},
        dtypes={"x": TensorProto.BOOL, "y": TensorProto.BOOL},
    )
    (found,), (wanted,) = answers(tmp_path, model, {"x": np.array(True)})
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", [ops.MaxPool, ops.AveragePool])
def test_a_dilated_window_with_nothing_inside_is_refused(kind):
    graph = Graph("pool")
    x = graph.input("x", (1, 8, 2, 3))
    op = kind((2, 1), dilation=(9, 1), padding=((1, 1), (0, 0)))
    with pytest.raises(ShapeError, match="with nothing of the input"):
        graph.add(op, x)


def test_a_value_and_its_transposition_as_outputs_of_an_export(tmp_path):
    rng = np.random.default_rng(0)
    graph = Graph("turned")
    x = graph.input("x", (1, 3, 4, 5))
    y = graph.add(ops.Conv(), x, kernel=rng.standard_normal((1, 1, 5, 6)), name="y")
    graph.output(graph.add(ops.Transpose((0, 2, 3, 1)), y, name="turned"), y)
    feeds = {"x": rng.standard_normal((1, 3, 4, 5)).astype(np.float32)}
    onnx.save(to_onnx(graph), tmp_path / "turned.onnx")
    runtime = session(tmp_path / "turned.onnx")
    turned, plain = runtime.run(["turned", "y"], feeds)
    np.testing.assert_array_equal(turned, plain.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(plain, graph.reference(feeds)["y"], rtol=1e-5, atol=1e-5)


def test_a_network_that_takes_only_some_sizes_can_have_shortcuts():
    rng = np.random.default_rng(0)
    graph = Graph("sizes")
    x = graph.input("x", ("N", "L", 4))
    kernel = rng.standard_normal((1, 4, 4)).astype(np.float32)
    y = graph.add(ops.Conv(3, padding="same"), x, kernel=kernel)
    shorter = graph.add(ops.AveragePool(2, 3), x)
    graph.output(graph.add(ops.Add(), y, shorter))
    feeds = {"x": rng.standard_normal((1, 9, 4)).astype(np.float32)}
    (wanted,) = graph.reference(feeds).values()
    found = Model(graph)(feeds["x"])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
