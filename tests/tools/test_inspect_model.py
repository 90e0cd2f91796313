"""The command shows what a model file holds, counted right."""

import json
from pathlib import Path

import numpy as np
import pytest
import striate
from striate import Graph, ops
from striate.ops.base import Op
from striate.tools import inspect_model

COMMAND = inspect_model.main

MODELS = Path(__file__).parents[2] / "models"
DIGITS = MODELS / "digits.h5"


@pytest.fixture
def inspected(run):
    """Return a function that returns the JSON of a model."""

    def call(*arguments):
        status, out, err = run(*arguments, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return call


@pytest.fixture
def net(tmp_path):
    """Return a file: a net with free sizes, shared weights and a split."""
    graph = Graph("net")
    x = graph.input("image", ("N", "H", "W", 4))
    kernel = np.ones((3, 3, 4, 4), np.float32)
    x = graph.add(ops.Conv(stride=(2, 2)), x, name="a", kernel=kernel)
    x = graph.add(ops.Conv(), x, name="b", kernel="a/kernel")
    left, right = graph.add(
        ops.Split(sizes=(1, 3)), x, name="s", outputs=("left", "right")
    )
    graph.output(left, right)
    graph.labels = ("only",)
    striate.save(graph, tmp_path / "net.h5")
    return tmp_path / "net.h5"


def test_counts_by_hand(inspected, net):
    document = inspected(net, "--shape", "2x11x21x4")
    a, b, left, right = document["layers"]
    assert a["shape"] == [2, 5, 10, 4]
    assert a["multiply_adds"] == 2 * 5 * 10 * 4 * (3 * 3 * 4)
    assert a["bytes"] == 2 * 5 * 10 * 4 * 4
    assert a["parameters"] == b["parameters"] == 144
    assert document["parameters"] == 144
    assert document["weight_bytes"] == 144 * 4
    assert a["receptive_field"] == [{"size": 3, "stride": 2, "offset": 0}] * 2
    assert b["receptive_field"] == [{"size": 7, "stride": 2, "offset": 0}] * 2
    assert (left["name"], right["name"]) == ("left", "right")
    assert right["shape"] == [2, 3, 8, 3]
    assert document["multiply_adds"] == a["multiply_adds"] + b["multiply_adds"]
    assert document["outputs"] == {"left": [2, 3, 8, 1], "right": [2, 3, 8, 3]}
    assert document["inputs"] == {"image": ["N", "H", "W", 4]}
    assert document["shapes"] == {"image": [2, 11, 21, 4]}


def test_the_shape_may_name_its_input(inspected, net):
    named = inspected(net, "--shape", "image=1x32x32x4")
    assert named["shapes"] == {"image": [1, 32, 32, 4]}
    assert inspected(net)["shapes"] == {"image": [1, 224, 224, 4]}


def test_what_the_file_says_of_itself(inspected):
    document = inspected(DIGITS)
    graph = striate.read(DIGITS)
    striate.read(DIGITS, model_id=document["model_id"])
    assert document["name"] == "digits"
    assert document["file_bytes"] == DIGITS.stat().st_size
    assert document["labels"] == list("0123456789")
    assert document["preprocess"] == graph.preprocess.attributes()
    assert document["postprocess"] == graph.postprocess.attributes()
    assert document["provenance"]["licence"] == "Apache-2.0"
    assert document["parameters"] == sum(a.size for a in graph.params.values())
    memory = striate.Model(graph, threads=1).memory_plan()
    assert document["arena_bytes"] == memory.arena >= memory.lower_bound > 0


def test_the_table(run):
    status, out, err = run(DIGITS)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert rows["conv2"].split()[1] == "Conv"
    assert "(1, 8, 8, 48)" in rows["conv2"]
    assert "10 416" in rows["conv2"]
    assert "all" in rows["logits"]
    assert "48 506" in rows["total"]
    assert "CC BY 4.0" in out
    assert all(len(line) < 250 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--shape", "1x2"], "image"),
        (["--shape", "1x8x8x2"], "(1, 8, 8, 2)"),
        (["--shape", "1xHx8x1"], "1xHx8x1"),
        (["--shape", "picture=1x8x8x1"], "image"),
        (["--shape", "0x8x8x1"], "image"),
        (["--depth"], "--depth"),
    ],
)
def test_shapes_that_make_no_sense(run, arguments, word):
    status, out, err = run(DIGITS, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("inspect_model: ")
    assert err.count("\n") == 1
    assert word in err


def test_files_that_are_no_models(run, tmp_path):
    cut = tmp_path / "cut.h5"
    cut.write_bytes(DIGITS.read_bytes()[:-1])
    for path in (tmp_path / "none.h5", tmp_path, cut, MODELS / "README.md"):
        status, out, err = run(path)
        assert (status, out) == (2, "")
        assert str(path) in err
        assert err.count("\n") == 1


def test_help_has_an_example(run):
    status, out, _ = run("--help")
    assert status == 0
    assert "inspect_model models/digits.h5" in out


def test_every_operator_is_listed(run):
    status, out, _ = run("--operators", "--json")
    listed = {row["operator"]: row for row in json.loads(out)}
    assert status == 0
    assert listed.keys() == Op.registry.keys()
    assert listed["Conv"]["operands"] == "x, kernel, [bias]"
    assert "padding: padding" in listed["Conv"]["attributes"]
    assert listed["Concat"]["operands"] == "*xs"


def test_a_missing_model_is_told(run):
    status, _, err = run()
    assert status == 2
    assert "no model was named" in err
