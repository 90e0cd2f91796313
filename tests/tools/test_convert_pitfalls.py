"""Where conversions go wrong: each pitfall is seen by the command, or avoided."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import striate
from onnx import TensorProto
from onnx_models import node, onnx_model, weights
from PIL import Image
from striate.tools.compare_model import main as compare_main
from striate.tools.convert_model import main
from striate.tools.from_onnx import elementwise, registry

N = "batch"


@pytest.fixture
def converted(tmp_path, capsys):
    """Return a function that converts a model by the command and returns its answer."""

    def convert(model, *arguments, status=0):
        onnx.save(model, tmp_path / "net.onnx")
        paths = [str(tmp_path / "net.onnx"), str(tmp_path / "net.h5")]
        assert main([*paths, *map(str, arguments), "--json"]) == status
        told = json.loads(capsys.readouterr().out)
        if not status:
            assert told["verified"] is True
        return told

    return convert


def worst(told):
    return max(each["relative"] for each in told["verification"]["outputs"].values())


def conv_model(nodes, outputs=("y",), **constants):
    first = node("Conv", ["x", "w"], ["a"], name="conv1", pads=[1, 1, 1, 1])
    constants = {"w": weights(4, 3, 3, 3), **constants}
    return onnx_model([first, *nodes], {"x": (N, 3, 6, 5)}, outputs, 17, constants)


def test_identity_aliased_outputs(converted):
    """One tensor under three names is three outputs, and each is compared."""
    nodes = [
        node("Identity", ["a"], ["y"]),
        node("Identity", ["a"], ["z"]),
        node("Identity", ["x"], ["given"]),
    ]
    told = converted(conv_model(nodes, ("y", "z", "a", "given")))
    assert told["verification"]["outputs"].keys() == {"y", "z", "a", "given"}
    assert worst(told) < 1e-5


def test_graph_inputs_that_are_also_initializers(converted):
    model = conv_model([node("Relu", ["a"], ["y"])])
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3])
    )
    told = converted(model)
    assert told["inputs"].keys() == {"x"}


def test_unnamed_nodes_and_empty_optional_inputs(converted):
    nodes = [
        node("Clip", ["a", "", "six"], ["b"], name="-"),
        node("Resize", ["b", "", "twice"], ["y"], name="-"),
    ]
    twice = np.array([1, 1, 2, 2], np.float32)
    told = converted(conv_model(nodes, six=np.float32(6), twice=twice))
    assert worst(told) < 1e-5


def test_shared_weights_are_stored_once(converted, tmp_path):
    nodes = [
        node("Conv", ["x", "w2"], ["b"], name="conv2", pads=[1, 1, 1, 1]),
        node("Add", ["a", "b"], ["y"]),
    ]
    told = converted(conv_model(nodes, w2=weights(4, 3, 3, 3)))
    assert told["parameters"] == 4 * 3 * 3 * 3
    assert len(striate.read(tmp_path / "net.h5").params) == 1


@pytest.mark.parametrize("io", ["channels_last", "source"])
def test_flatten_before_dense_is_in_the_order_of_the_source(converted, io):
    """The weight's rows move, not the tensor, and the classes come out the same."""
    nodes = [node("Flatten", ["a"], ["f"]), node("Gemm", ["f", "m"], ["y"])]
    told = converted(conv_model(nodes, m=weights(120, 10)), "--io", io)
    same, rows = told["verification"]["outputs"]["y"]["top1"]
    assert same == rows > 0
    assert len(told["transposes"]) == (io == "source")


def test_softmax_over_channels_of_an_image(converted):
    assert worst(converted(conv_model([node("Softmax", ["a"], ["y"], axis=1)]))) < 1e-5


def test_dropout_with_a_mask_that_nobody_reads(converted):
    nodes = [node("Dropout", ["a"], ["d", "mask"]), node("Relu", ["d"], ["y"])]
    told = converted(conv_model(nodes))
    assert told["free"] == {"Dropout": 1}
    assert worst(told) < 1e-5


def test_whole_numbers_are_compared_exactly(converted):
    told = converted(
        onnx_model(
            [
                node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
                node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
            ],
            {"x": (N, 3, 4, 5)},
            ("y", "q"),
            constants={"scale": np.float32(0.02), "zero": np.uint8(7)},
            dtypes={"q": TensorProto.UINT8},
        )
    )
    assert "unequal" not in told["verification"]["outputs"]["q"]


def test_input_normalisation_left_outside_the_model(converted, tmp_path):
    """What the training did to pictures is an option, stored, and applied."""
    nodes = [
        node("GlobalAveragePool", ["a"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "m"], ["y"]),
    ]
    model = conv_model(nodes, m=weights(4, 3))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    numbers = [",".join(map(str, each)) for each in (mean, std)]
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    labels = tmp_path / "labels.txt"
    converted(model, "--mean", numbers[0], "--std", numbers[1], "--labels", labels)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    x = ((pixels / 255 - np.array(mean)) / np.array(std)).astype(np.float32)
    with striate.load(tmp_path / "net.h5") as network:
        wanted = network(x[None])[0]
        found = dict(network.classify(tmp_path / "picture.png", top=3))
    odds = np.exp(wanted - wanted.max())
    np.testing.assert_allclose(
        [found[name] for name in "abc"], odds / odds.sum(), rtol=1e-4
    )


WRONG = {
    "LeakyRelu": lambda g, X, **settings: g.elementwise(striate.ops.LeakyRelu(0.3), X),
    "HardSigmoid": lambda g, X, **settings: g.elementwise(
        striate.ops.HardSigmoid(1 / 6, 0.5), X
    ),
    "Gelu": lambda g, X, **settings: g.elementwise(striate.ops.Gelu("tanh"), X),
}
"""Importers that have fallen into a pitfall: another slope, an approximation."""


@pytest.mark.parametrize("op", WRONG)
def test_an_importer_that_fell_into_a_pitfall_is_found_out(
    converted, tmp_path, monkeypatch, op
):
    """Nothing is written, and the layer is named."""
    assert elementwise

    def wrong(g, X, *, alpha=0.0, beta=0.0, approximate="none"):
        return WRONG[op](g, X)

    versions = registry._handlers[("", op)]
    monkeypatch.setitem(registry._handlers, ("", op), dict.fromkeys(versions, wrong))
    nodes = [
        node(op, ["a"], ["b"], name="culprit"),
        node("Conv", ["b", "v"], ["y"], name="conv2"),
    ]
    model = conv_model(nodes, v=weights(4, 4, 3, 3))
    model.opset_import[0].version = 20
    told = converted(model, status=1)
    assert "the first layer that is off is culprit" in told["error"]
    errors = {step["layer"]: step["relative"] for step in told["layers"]}
    assert errors["conv1"] < 1e-6
    assert errors["culprit"] > 1e-4
    assert not (tmp_path / "net.h5").exists()
    assert main([str(tmp_path / f"net.{e}") for e in ("onnx", "h5")]) == 1
    assert not (tmp_path / "net.h5").exists()
    arguments = [str(tmp_path / f"net.{e}") for e in ("onnx", "h5")]
    assert main([*arguments, "--no-verify"]) == 0
    assert compare_main(arguments[::-1]) == 1


def test_a_batch_that_the_source_fixes(converted):
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Reshape", ["a", "shape"], ["y"]),
    ]
    model = onnx_model(
        nodes,
        {"x": (1, 3, 4, 4)},
        constants={"w": weights(2, 3, 3, 3), "shape": np.array([1, 8], np.int64)},
    )
    told = converted(model)
    assert told["inputs"]["x"][0] == "N"
    assert told["verification"]["batches"] == [1, 3]


def test_verification_of_many_inputs(converted):
    told = converted(conv_model([node("Relu", ["a"], ["y"])]), "--verify", 7)
    assert told["verification"]["inputs"] == 7


MEANINGS = """
import {first}
import striate.tools.from_onnx.importer
from striate.tools.from_onnx.registry import find_handler
for op in striate.tools.from_onnx.importer.operators():
    for opset in (7, 13, 18, 24):
        handler = find_handler(op, "", opset)
        print(op, opset, handler and (handler.__module__, handler.__qualname__))
"""


def test_another_importer_may_be_used_first():
    """What operators mean does not depend on which module was imported first."""
    meanings = {
        subprocess.run(
            [sys.executable, "-c", MEANINGS.format(first=first)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for first in ("sys", "striate.tools.from_onnx.elementwise")
    }
    assert len(meanings) == 1
