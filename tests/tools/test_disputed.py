"""Where ONNX's evaluator and ONNX Runtime differ, docs/onnx.md says whom we follow."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from ops_in_onnx import node_model, onnx_answers, onnx_runtime_answers
from striate import Model
from striate.errors import UnsupportedModelError
from striate.tools import convert

RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


NOTHING = np.zeros(0, np.float32)

DISPUTED = {
    "aligned corners at a scale that does not divide": (
        "Resize",
        (normal(1, 1, 2, 4), NOTHING, np.array([1, 1, 0.6, 0.6], np.float32)),
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    "unpooling into a larger output": (
        "MaxUnpool",
        (
            normal(1, 1, 2, 2),
            np.array([5, 7, 13, 15], np.int64).reshape(1, 1, 2, 2),
            np.array([1, 1, 5, 5], np.int64),
        ),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
}


def converted(path, kind, arrays, attributes):
    """Return the graph of one node, all but whose first input are constants."""
    model = node_model(kind, ["y0"], *arrays, **attributes)
    for i, array in enumerate(arrays[1:], 1):
        model.graph.initializer.append(numpy_helper.from_array(array, f"x{i}"))
    onnx.save(model, path)
    return convert(path, io="source")


def answers(path, kind, arrays, attributes):
    """Return what ONNX's evaluator, ONNX Runtime and striate compute."""
    graph = converted(path, kind, arrays, attributes)
    with Model(graph, threads=1) as net:
        (found,) = net.run({graph.inputs[0].name: arrays[0]}).values()
    (one,) = onnx_answers(kind, 1, *arrays, **attributes)
    (other,) = onnx_runtime_answers(kind, *arrays, **attributes)
    assert not np.allclose(one, other, atol=1e-3), "they agree by now"
    return one, other, found


@pytest.mark.parametrize("name", DISPUTED)
def test_it_is_what_onnx_says(tmp_path, name):
    wanted, _, found = answers(tmp_path / "net.onnx", *DISPUTED[name])
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=1e-6)


def test_cubic_sampling_beyond_the_border_is_what_onnx_runtime_says(tmp_path):
    places = RNG.uniform(-1.6, 1.6, (1, 3, 3, 2)).astype(np.float32)
    settings = {"mode": "cubic", "padding_mode": "border"}
    arrays = normal(1, 2, 4, 5), places
    _, wanted, found = answers(tmp_path / "net.onnx", "GridSample", arrays, settings)
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_clipped_memory_is_refused(tmp_path):
    arrays = normal(3, 1, 2), normal(1, 8, 2), normal(1, 8, 2)
    settings = {"hidden_size": 2, "clip": 0.5}
    with pytest.raises(UnsupportedModelError, match="not agreed"):
        converted(tmp_path / "net.onnx", "LSTM", arrays, settings)
