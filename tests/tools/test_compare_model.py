"""The command that compares two models: what belongs together, what it answers."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import striate
from onnx_models import node, onnx_model, weights
from striate import Graph, ops
from striate.tools import convert
from striate.tools.compare_model import main

COMMAND = main

N = "batch"
DIGITS = str(Path(__file__).parents[2] / "models" / "digits.h5")


@pytest.fixture
def source(tmp_path):
    """Return an ONNX file of two inputs and two outputs."""
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="conv1"),
        node("Relu", ["a"], ["b"], name="relu1"),
        node("Mul", ["b", "z"], ["c"], name="scaled"),
        node("GlobalAveragePool", ["c"], ["d"], name="mean"),
        node("Flatten", ["d"], ["y"], name="flat"),
    ]
    model = onnx_model(
        nodes,
        {"x": (N, 3, 6, 5), "z": (N, 4, 4, 3)},
        ("y", "c"),
        constants={"w": weights(4, 3, 3, 3)},
    )
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def saved(source, target, io="channels_last", change=None, **provenance):
    graph = convert(source, io=io)
    if change:
        change(graph)
    graph.provenance.update(provenance)
    striate.save(graph, target)
    return str(target)


def compared(capsys, *arguments):
    """Return the exit status and what the command says as JSON."""
    status = main([*map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


def louder(graph):
    graph.params["conv1/kernel"] = graph.params["conv1/kernel"] * np.float32(1.1)


def test_a_model_and_its_source(source, tmp_path, capsys):
    target = saved(source, tmp_path / "net.h5")
    status, told = compared(capsys, target, source)
    assert status == 0
    assert told["agrees"] is True
    assert told["oracle"] == "onnxruntime"
    assert told["outputs"].keys() == {"y", "c"}
    assert 0 < told["outputs"]["y"]["relative"] < 1e-5
    assert told["layers"] == []


@pytest.mark.parametrize("io", ["channels_last", "source"])
def test_the_source_may_come_first(source, tmp_path, capsys, io):
    target = saved(source, tmp_path / "net.h5", io)
    status, told = compared(capsys, source, target)
    assert (status, told["oracle"]) == (0, "striate")


def test_a_source_that_is_not_the_models_own(source, tmp_path, capsys):
    """Without the account of the conversion the two are matched all the same."""
    target = saved(source, tmp_path / "net.h5", source_sha256="0" * 64)
    assert compared(capsys, target, source)[0] == 0
    graph = striate.read(target)
    graph.metadata, graph.provenance = {}, {}
    striate.save(graph, target)
    assert compared(capsys, target, source)[0] == 0


def test_axes_may_be_in_another_order(source, tmp_path, capsys):
    images = saved(source, tmp_path / "last.h5")
    planes = saved(source, tmp_path / "first.h5", "source")
    for pair in ((images, planes), (planes, images)):
        status, told = compared(capsys, *pair, "--layers")
        assert status == 0
        assert {"conv1", "relu1"} <= {step["layer"] for step in told["layers"]}
        assert max(step["relative"] for step in told["layers"]) < 1e-5


def test_a_model_that_computes_something_else(source, tmp_path, capsys):
    target = saved(source, tmp_path / "net.h5", change=louder)
    assert main([target, str(source)]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    line = next(line for line in out.splitlines() if line.startswith("conv1"))
    assert "first beyond" in line
    assert "more than 0.0001" in out
    status, told = compared(capsys, target, source)
    assert status == 1
    assert told["agrees"] is False
    assert told["first"] == "conv1"
    assert told["outputs"]["y"]["relative"] == pytest.approx(0.1, rel=0.01)


def test_the_tolerance_is_a_choice(source, tmp_path, capsys):
    target = saved(source, tmp_path / "net.h5", change=louder)
    assert main([target, str(source), "--tolerance", "0.2"]) == 0
    assert main([target, str(source), "--tolerance", "0.05"]) == 1
    same = saved(source, tmp_path / "same.h5")
    assert main([same, same, "--tolerance", "0"]) == 0


def test_names_may_differ_where_the_order_tells(tmp_path, capsys):
    def net(names, slope):
        graph = Graph("net")
        x = graph.input(names[0], ("N", 4))
        y = graph.input(names[1], ("N", 4))
        graph.output(graph.add(ops.Sub(), x, y, name=names[2]))
        striate.save(graph, tmp_path / f"{slope}.h5")
        return tmp_path / f"{slope}.h5"

    assert compared(capsys, net("abc", 1), net("xyz", 2))[0] == 0
    assert compared(capsys, net("abc", 1), net("bac", 2))[0] == 1


def test_layers_on_wish(source, tmp_path, capsys):
    target = saved(source, tmp_path / "net.h5")
    assert main([target, str(source), "--layers"]) == 0
    out = capsys.readouterr().out
    for layer in ("conv1", "relu1", "c "):
        assert f"\n{layer}" in out


def test_the_seed_changes_the_inputs(source, tmp_path, capsys):
    target = saved(source, tmp_path / "net.h5", change=louder)
    found = {
        compared(capsys, target, source, "--seed", seed)[1]["outputs"]["y"]["max_abs"]
        for seed in (0, 1)
    }
    assert len(found) == 2


def line(run, *arguments):
    """Assert an exit status of 2 and return the one line."""
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("compare_model: ")
    assert err.count("\n") == 1
    return err


def test_models_of_other_shapes(source, run):
    assert "inputs" in line(run, DIGITS, source)


def test_inputs_of_other_shapes(tmp_path, run):
    paths = []
    for size in (4, 5):
        graph = Graph("net")
        graph.output(graph.add(ops.Relu(), graph.input("x", ("N", size))))
        striate.save(graph, tmp_path / f"{size}.h5")
        paths.append(tmp_path / f"{size}.h5")
    assert "input 'x' is (1, 4), in the other model (N, 5)" in line(run, *paths)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [DIGITS],
        [DIGITS, "nothing.h5"],
        [DIGITS, DIGITS, "--inputs", "0"],
        [DIGITS, DIGITS, "--seed", "-1"],
        [DIGITS, DIGITS, "--tolerance", "nan"],
        [DIGITS, __file__],
    ],
)
def test_what_makes_no_sense(run, arguments):
    line(run, *arguments)


def test_a_runtime_that_is_not_installed(source, tmp_path, run, monkeypatch):
    import sys

    target = saved(source, tmp_path / "net.h5")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install onnxruntime" in line(run, target, source)


def test_metadata_that_makes_no_sense(source, tmp_path, capsys):
    """What a stranger's file says of its conversion is taken for what it is."""
    graph = convert(source)
    for nonsense in (
        None,
        {"order": 3},
        {"order": {"x": {"source": "x", "axes": [0, 0, 9]}}, "layers": []},
        {"order": {"x": {"source": ["x"], "axes": "0123"}}},
        {"order": {"x": {"source": "c", "axes": [1, 0]}}},
    ):
        graph.metadata["conversion"] = nonsense
        striate.save(graph, tmp_path / "net.h5")
        status = main([str(tmp_path / "net.h5"), str(source)])
        assert status in (0, 2)
        assert capsys.readouterr().err.count("\n") <= 1
