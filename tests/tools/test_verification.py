"""What a verdict says: each number by hand, the first layer that is off, honesty."""

import json
import math

import numpy as np
import onnx
import pytest
import striate
from onnx import TensorProto
from onnx_models import node, onnx_model, weights
from striate import Graph, ops
from striate.errors import MissingExtraError, UnsupportedModelError
from striate.tools import convert
from striate.tools.oracles.onnxruntime import OnnxRuntime, oracle
from striate.tools.verification import (
    MARGIN,
    SHOWN,
    Agreement,
    Runtime,
    Step,
    Verdict,
    compare,
    example,
    oracle_of,
    told,
)

N = "batch"


def agreement(*pairs, dynamic=False):
    found = Agreement()
    for ours, theirs in pairs:
        found.add(np.array(ours), np.array(theirs), dynamic)
    return found


def test_the_numbers_by_hand():
    found = agreement(([[1.0, 2.0, 2.0]], [[1.0, 2.0, 4.0]]))
    assert found.max_abs == 2.0
    assert found.relative == 0.5
    assert found.rms == pytest.approx(math.sqrt(4 / 3))
    assert found.cosine == pytest.approx(13 / math.sqrt(9 * 21))
    assert found.top1 == [0, 1]
    assert not found.within(0.4)
    assert found.within(0.5)


def test_the_worst_run_counts():
    found = agreement(([1.0], [1.0]), ([1.0], [2.0]), ([4.0], [4.0]))
    assert found.relative == 0.5
    assert found.max_abs == 1.0


def test_what_rounds_to_almost_nothing_is_held_against_the_other_runs():
    found = agreement(([10.0], [10.0]), ([2e-9], [1e-9]))
    assert found.relative == pytest.approx(1e-9 / 1e-2)


def test_an_output_of_zeros():
    assert agreement(([0.0], [0.0])).within(0)
    assert agreement(([1e-3], [0.0])).relative == 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_must_be_so_in_both(value):
    same = agreement(([value, 1.0], [value, 1.0]))
    assert same.within(0)
    for pair in (([value, 1.0], [1.0, 1.0]), ([1.0, 1.0], [value, 1.0])):
        other = agreement(pair)
        assert not other.within(math.inf)
        assert "1 places" in other.faults[0]
    assert not agreement(([np.inf], [-np.inf])).within(math.inf)
    json.dumps(same.as_json(), allow_nan=False)


def test_whole_numbers_must_be_equal():
    assert agreement(([1, 2], [1, 2])).within(0)
    found = agreement(([1, 2, 3], [1, 3, 4]))
    assert found.unequal == 2
    assert not found.within(math.inf)
    assert not agreement(([True], [False])).within(math.inf)


def test_another_shape_is_a_fault():
    found = agreement(([1.0, 2.0], [[1.0, 2.0]]))
    assert found.faults == ["shape (2,), wanted (1, 2)"]
    assert not found.within(math.inf)


def test_rows_of_unknown_number_may_have_another_place():
    rows = [[1.0, 2.0], [3.0, 4.0], [3.0, 4.0]]
    assert agreement((rows, rows[::-1]), dynamic=True).within(1e-4)
    assert not agreement((rows, rows[::-1])).within(1e-4)
    missing = agreement((rows[:2], rows), dynamic=True)
    assert missing.faults == ["1 of 3 rows have no equal"]
    other = agreement(([[1.0, 2.0], [3.0, 5.0]], rows[:2]), dynamic=True)
    assert other.faults == ["1 of 2 rows have no equal"]
    assert agreement((np.zeros((0, 4)), np.zeros((0, 4))), dynamic=True).within(0)
    twice = agreement(([rows[0], rows[0]], [rows[0], rows[1]]), dynamic=True)
    assert twice.faults
    nowhere = [[np.nan, 2.0], [3.0, 4.0]]
    assert agreement((nowhere, rows[:2]), dynamic=True).faults
    assert agreement((rows[:2], nowhere), dynamic=True).faults
    indices = agreement(([[0, 1], [0, 2]], [[0, 2], [0, 1]]), dynamic=True)
    assert indices.within(0)


def test_ranks_count_only_where_the_oracle_is_sure():
    near = MARGIN / 2
    wanted = [[1.0, 1 - near, 0, 0, 0, 0, 0], [0, 1.0, 0.5, 0.4, 0.3, 0.2, 0.1]]
    found = [[1 - near, 1.0, 0, 0, 0, 0, 0], [0, 1.0, 0.4, 0.5, 0.3, 0.2, 0.1]]
    ranks = agreement((found, wanted))
    assert ranks.top1 == [1, 1]
    assert ranks.top5 == [1, 1]
    assert agreement((wanted, wanted)).top1 == [1, 1]


def test_examples_are_the_same_for_the_same_numbers():
    graph = Graph("net")
    x = graph.input("x", ("N", 3, 3, 2))
    graph.output(graph.add(ops.Relu(), x))
    first, again = (example(graph, 0, 3, seed=7)["x"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (3, 3, 3, 2)
    assert 0 <= first.min() < first.max() < 1
    assert example(graph, 1, 1, seed=7)["x"].min() < 0
    assert not example(graph, 2, 1)["x"].any()
    assert not np.array_equal(first, example(graph, 0, 3, seed=8)["x"])


def classifier(**weight):
    """Return a model of six layers."""
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="conv1", pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["a"], ["b"], name="leaky", alpha=0.1),
        node("MaxPool", ["b"], ["c"], name="pool", kernel_shape=[2, 2]),
        node("Conv", ["c", "v"], ["d"], name="conv2"),
        node("GlobalAveragePool", ["d"], ["e"], name="mean"),
        node("Flatten", ["e"], ["f"], name="flat"),
        node("Gemm", ["f", "m"], ["y"], name="fc"),
    ]
    constants = {
        "w": weights(8, 3, 3, 3),
        "v": weights(16, 8, 3, 3),
        "m": weights(16, 10),
        **weight,
    }
    return onnx_model(nodes, {"x": (N, 3, 12, 10)}, constants=constants)


@pytest.mark.parametrize("io", ["channels_last", "source"])
def test_a_network_agrees_with_its_source(io):
    model = classifier()
    graph = convert(model, io=io)
    verdict = compare(graph, Runtime(graph), oracle(model, graph), layers=True)
    assert verdict.agrees
    assert verdict.first == ""
    assert verdict.batches == [1, 3]
    assert 0 < verdict.outputs["y"].relative < 1e-5
    same, rows = verdict.outputs["y"].top1
    assert same == rows > 0
    layers = {step.layer for step in verdict.steps}
    assert {"conv1", "leaky", "pool", "conv2", "y"} <= layers
    assert max(step.relative for step in verdict.steps) < 1e-5


def test_the_first_layer_that_is_off_is_named():
    model = classifier()
    graph = convert(model)
    graph.params["conv2/kernel"] = graph.params["conv2/kernel"] * np.float32(1.01)
    verdict = compare(graph, Runtime(graph), oracle(model, graph))
    assert not verdict.agrees
    assert verdict.first == "conv2"
    errors = {step.layer: step.relative for step in verdict.steps}
    assert errors["conv1"] < 1e-6
    assert errors["conv2"] == pytest.approx(0.01, rel=0.1)
    assert errors["y"] > 1e-4


def test_the_way_to_the_first_is_shown_not_every_layer():
    names = [f"layer{i}" for i in range(100)]
    found = [Step(n, "Relu", 1.0 if i > 60 else 0.0, 0) for i, n in enumerate(names)]
    verdict = Verdict("o", "1", 0, 3, 1e-4, steps=found, first="layer61")
    shown = [step.layer for step in verdict.path()]
    assert len(shown) <= SHOWN
    assert shown[0] == "layer0"
    assert {"layer59", "layer60", "layer61", "layer62", "layer99"} <= set(shown)


def test_a_verdict_is_the_same_twice():
    model = classifier()
    graph = convert(model)
    first, again = (
        compare(graph, Runtime(graph), oracle(model, graph), inputs=2).as_json()
        for _ in range(2)
    )
    assert first == again
    assert first["version"]
    assert first["seed"] == 0


def test_a_network_of_fixed_batch():
    """The file says one picture; striate leaves that open, the runtime does not."""
    model = onnx_model(
        [node("Conv", ["x", "w"], ["a"]), node("Flatten", ["a"], ["y"])],
        {"x": (1, 3, 5, 5)},
        constants={"w": weights(4, 3, 3, 3)},
    )
    graph = convert(model)
    assert graph.inputs[0].shape[0] == "N"
    verdict = compare(graph, Runtime(graph), oracle(model, graph))
    assert verdict.agrees
    assert verdict.batches == [1, 3]


def test_float16_is_held_to_what_float16_can():
    model = onnx_model(
        [node("Conv", ["x", "w"], ["y"])],
        {"x": (N, 3, 5, 5)},
        constants={"w": weights(4, 3, 3, 3).astype(np.float16)},
        dtypes={"x": TensorProto.FLOAT16, "y": TensorProto.FLOAT16},
    )
    graph = convert(model)
    verdict = compare(graph, Runtime(graph), oracle(model, graph))
    assert verdict.agrees
    assert 1e-5 < verdict.outputs["y"].relative < verdict.tolerance == 2e-3


def test_newer_operators_are_evaluated_by_onnx():
    model = onnx_model([node("Relu", ["x"], ["y"])], {"x": (N, 3)}, opset=27)
    graph = convert(model)
    runtime = oracle(model, graph)
    assert runtime.name == "onnx.reference"
    assert compare(graph, Runtime(graph), runtime, layers=True).agrees


def test_a_cut_network_is_compared_with_its_part():
    model = classifier()
    graph = convert(model, cut_outputs=["conv2"], cut_inputs=["leaky"])
    assert graph.outputs == ["d"]
    assert [entry.name for entry in graph.inputs] == ["b"]
    verdict = compare(graph, Runtime(graph), oracle(model, graph), layers=True)
    assert verdict.agrees
    assert verdict.outputs["d"].max_abs < 1e-4


def test_whole_numbers_in_and_out():
    model = onnx_model(
        [node("Cast", ["x"], ["f"], to=1), node("ArgMax", ["f"], ["y"], axis=1)],
        {"x": (N, 5)},
        dtypes={"x": TensorProto.UINT8, "y": TensorProto.INT64},
    )
    graph = convert(model)
    assert compare(graph, Runtime(graph), oracle(model, graph)).agrees


def test_outputs_of_unknown_number():
    model = onnx_model(
        [node("NonZero", ["x"], ["y"])], {"x": (4, 5)}, dtypes={"y": TensorProto.INT64}
    )
    graph = convert(model)
    assert compare(graph, Runtime(graph), oracle(model, graph)).agrees


class Broken:
    """A runtime that fails, at batches of 3 only if so wished."""

    name, version = "broken", "0"

    def __init__(self, runtime, always):
        self.runtime, self.always = runtime, always

    def run(self, feeds):
        if self.always or len(feeds["x"]) == 3:
            raise RuntimeError("no such device\nat line 1")
        return self.runtime.run(feeds)

    def layers(self, feeds):
        return iter(())


def test_an_oracle_that_cannot_is_told_as_such():
    graph = convert(classifier())
    with pytest.raises(UnsupportedModelError, match=r"^broken 0 cannot run it") as told:
        compare(graph, Runtime(graph), Broken(Runtime(graph), always=True))
    assert "at line 1" not in str(told.value)
    verdict = compare(graph, Runtime(graph), Broken(Runtime(graph), always=False))
    assert verdict.agrees
    assert verdict.batches == [1]
    assert "batches of 3 were not compared" in verdict.notes[0]


def test_an_error_of_striate_is_not_taken_for_the_oracles():
    graph = convert(classifier())
    ours = Broken(Runtime(graph), always=True)
    with pytest.raises(RuntimeError, match="no such device"):
        compare(graph, ours, Runtime(graph))


def test_onnx_runtime_is_not_installed(monkeypatch, tmp_path):
    model = classifier()
    graph = convert(model)
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        OnnxRuntime(model, graph)


def test_a_format_that_nothing_else_runs():
    from striate.tools.formats import Format

    entry = Format("odd", "Odd", (), lambda path, head: False, "odd:odd")
    with pytest.raises(UnsupportedModelError, match="nothing else runs Odd"):
        oracle_of(entry, "net.odd", Graph("net"))


def test_a_source_with_its_weights_beside_it(tmp_path):
    """External data is found by the oracle too."""
    model = classifier()
    path = tmp_path / "net.onnx"
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location="net.data",
        size_threshold=0,
    )
    graph = convert(path)
    assert list(graph.provenance["data_sha256"]) == ["net.data"]
    assert compare(graph, Runtime(graph), oracle(path, graph)).agrees


def test_layers_have_the_axes_of_the_graph():
    """Every layer that is compared is compared element by element."""
    model = classifier()
    graph = convert(model)
    feeds = example(graph, 1, 2)
    ours = dict(Runtime(graph).layers(feeds))
    theirs = dict(oracle(model, graph).layers(feeds))
    assert len(theirs) >= 5
    for name, array in theirs.items():
        assert array.shape == ours[name].shape
        np.testing.assert_allclose(ours[name], array, atol=1e-4)


def test_the_verdict_is_stored_in_the_file(tmp_path):
    from striate.tools.convert_model import main

    onnx.save(classifier(), tmp_path / "net.onnx")
    paths = [str(tmp_path / name) for name in ("net.onnx", "net.h5")]
    assert main([*paths, "--verify", "2"]) == 0
    stored = striate.read(paths[1]).provenance["verification"]
    assert stored["oracle"] == "onnxruntime"
    assert stored["inputs"] == 2
    assert stored["outputs"]["y"]["relative"] < 1e-5
    assert len(striate.read(paths[1]).provenance["source_sha256"]) == 64


@pytest.mark.parametrize("nonsense", [3, "yes", {}, {"oracle": 1}, [], None])
def test_what_is_no_verdict_is_shown_as_it_is(nonsense):
    assert told(nonsense) == str(nonsense)
    odd = {"oracle": "o", "version": "1", "outputs": {"y": nonsense}}
    assert told(odd) == str(odd)
    fine = {**odd, "outputs": {"y": {"relative": 2.5e-7}, "z": {"relative": 0}}}
    assert told(fine) == "as o 1 computes it, to 2.5e-07 of the largest output"
