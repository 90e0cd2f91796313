"""The command measures as often as it is told and adds up what it measured."""

import json
from pathlib import Path

import pytest
import striate
from striate import Graph, ops
from striate.tools import bench_model

COMMAND = bench_model.main

DIGITS = Path(__file__).parents[2] / "models" / "digits.h5"


@pytest.fixture
def measured(run):
    """Return a function that returns the JSON of a measurement."""

    def call(*arguments):
        status, out, err = run(DIGITS, *arguments, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return call


def test_runs_are_counted_and_ordered(measured):
    document = measured("--runs", 7)
    assert document["runs"] == 7
    assert 0 < document["min_ms"] <= document["median_ms"] <= document["p90_ms"]
    assert document["isa"] == striate.kernels.ISA
    assert document["multiply_adds"] == 1233536
    assert document["gflops"] == pytest.approx(
        2e-6 * document["multiply_adds"] / document["median_ms"]
    )
    assert document["layers"] == []


def test_seconds_end_it(measured):
    document = measured("--seconds", 0.05)
    assert document["runs"] >= 1
    assert document["runs"] * document["min_ms"] < 500


def test_batch_and_threads(measured):
    one = measured("--runs", 3, "--threads", 1)
    many = measured("--runs", 3, "--batch", 4, "--threads", 2)
    assert one["shapes"] == {"image": [1, 8, 8, 1]}
    assert many["shapes"] == {"image": [4, 8, 8, 1]}
    assert (one["threads"], many["threads"]) == (1, 2)
    assert many["multiply_adds"] == 4 * one["multiply_adds"]
    assert many["pictures_per_second"] == pytest.approx(4e3 / many["median_ms"])


def test_every_instruction_set(measured):
    for isa in striate.kernels.SUPPORTED:
        assert measured("--runs", 1, "--isa", isa)["isa"] == isa


def test_layers(measured, run):
    layers = measured("--runs", 3, "--layers")["layers"]
    assert {"conv1", "conv2", "conv3", "logits"} <= {layer["name"] for layer in layers}
    assert sum(layer["share"] for layer in layers) == pytest.approx(1)
    assert all(layer["ms"] >= 0 and layer["algorithm"] for layer in layers)
    status, out, _ = run(DIGITS, "--runs", 3, "--layers")
    assert status == 0
    assert "GFLOP/s" in out.splitlines()[0]


def test_text(run):
    status, out, err = run(DIGITS, "--runs", 3)
    assert (status, err) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["model"] == "digits: image (1, 8, 8, 1)"
    assert facts["median"].endswith(" ms")


def test_inputs_of_several_kinds(run, tmp_path):
    graph = Graph("two")
    x = graph.input("x", ("N", 4))
    y = graph.input("y", ("N", 4))
    graph.output(graph.add(ops.Add(), x, y))
    striate.save(graph, tmp_path / "two.h5")
    status, out, _ = run(tmp_path / "two.h5", "--runs", 2, "--batch", 3, "--json")
    assert status == 0
    assert json.loads(out)["shapes"] == {"x": [3, 4], "y": [3, 4]}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--runs", "0"], "runs 0"),
        (["--seconds", "0"], "seconds 0"),
        (["--seconds", "nan"], "seconds nan"),
        (["--runs", "1", "--seconds", "1"], "--seconds"),
        (["--batch", "0"], "batch 0"),
        (["--threads", "0"], "threads 0"),
        (["--isa", "mmx"], "mmx"),
        (["--shape", "1x9x9x1"], "image"),
    ],
)
def test_settings_that_make_no_sense(run, arguments, word):
    status, out, err = run(DIGITS, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("bench_model: ")
    assert err.count("\n") == 1
    assert word in err


def test_a_missing_model(run, tmp_path):
    status, out, err = run(tmp_path / "none.h5")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1


def test_help_has_an_example(run):
    status, out, _ = run("--help")
    assert status == 0
    assert "bench_model models/digits.h5" in out


def test_layers_are_measured_against_the_peak(measured):
    document = measured("--runs", 3, "--threads", 1, "--layers")
    peak = document["peak_gflops"]
    assert 1 < peak < 2000
    for layer in document["layers"]:
        assert layer["peak_share"] == pytest.approx(layer["gflops"] / peak)
        assert layer["bytes"] > 0


def test_tuning_is_kept(measured, run, tmp_path):
    assert measured("--runs", 1)["tuned"] is False
    assert measured("--runs", 1, "--tune", "--cache", tmp_path)["tuned"] is True
    (kept,) = tmp_path.glob(f"*-{striate.__version__}-*.json")
    before = kept.stat().st_mtime_ns
    status, out, _ = run(DIGITS, "--runs", 1, "--tune", "--cache", tmp_path)
    assert status == 0
    assert out.splitlines()[1].endswith(", tuned")
    assert kept.stat().st_mtime_ns == before
