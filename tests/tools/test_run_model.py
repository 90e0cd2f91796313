"""The command tells what is on pictures, and what is wrong in one line."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import striate
from PIL import Image
from striate import Graph, Preprocess, ops
from striate.tools import run_model

COMMAND = run_model.main

MODELS = Path(__file__).parents[2] / "models"
DIGITS = MODELS / "digits.h5"
SEVEN = MODELS / "samples" / "seven.png"
FIVE = MODELS / "samples" / "five.png"


@pytest.fixture
def refused(run, tmp_path):
    """Return a function that asserts a refusal in one line and returns the line."""

    def call(*arguments):
        before = sorted(tmp_path.rglob("*"))
        status, out, err = run(*arguments)
        assert status == 2
        assert out == ""
        assert err.startswith("run_model: ")
        assert err.count("\n") == 1
        assert "Errno" not in err
        assert sorted(tmp_path.rglob("*")) == before
        return err

    return call


@pytest.fixture
def folder(tmp_path):
    """Return a folder of three pictures, one of them broken, and a text file."""
    place = tmp_path / "scans"
    (place / "more").mkdir(parents=True)
    shutil.copy(SEVEN, place / "a.png")
    shutil.copy(FIVE, place / "more" / "c.png")
    (place / "b.png").write_bytes(SEVEN.read_bytes()[:300])
    (place / "notes.txt").write_text("no picture")
    return place


# Answers


def test_a_table(run):
    status, out, err = run(DIGITS, SEVEN)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["picture", "class", "probability"]
    assert lines[2].split()[:2] == [str(SEVEN), "7"]
    assert lines[2].endswith("%")
    assert len(lines) == 5


def test_top(run):
    assert len(run(DIGITS, SEVEN, "--top", 1)[1].splitlines()) == 3
    assert len(run(DIGITS, SEVEN, "--top", 99)[1].splitlines()) == 12


def test_json_is_what_classify_says(run):
    status, out, err = run(DIGITS, SEVEN, FIVE, "--json", "--top", 2)
    assert (status, err) == (0, "")
    document = json.loads(out)
    with striate.load(DIGITS) as model:
        for entry, path in zip(document["pictures"], (SEVEN, FIVE), strict=True):
            assert entry["picture"] == str(path)
            found = [(c["label"], c["probability"]) for c in entry["classes"]]
            assert found == model.classify(path, top=2)
    assert document["skipped"] == []


def test_a_folder_with_a_broken_picture(run, folder):
    status, out, err = run(DIGITS, folder, "--top", 1)
    assert status == 1
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["7", "5"]
    assert err.count("\n") == 1
    assert str(folder / "b.png") in err
    status, out, _ = run(DIGITS, folder, "--json")
    document = json.loads(out)
    assert status == 1
    assert len(document["pictures"]) == 2
    assert [entry["picture"] for entry in document["skipped"]] == [
        str(folder / "b.png")
    ]


def test_threads_and_instruction_sets_give_one_answer(run):
    wanted = None
    for isa in striate.kernels.SUPPORTED:
        for threads in (1, 2):
            status, out, _ = run(DIGITS, SEVEN, "--isa", isa, "--threads", threads)
            assert status == 0
            wanted = wanted or out
            assert out == wanted


# Layers


def test_any_layer_of_each_picture_is_saved(run, tmp_path):
    path = tmp_path / "out.npz"
    layers = ("--output", "pool2", "--output", "conv1")
    status, out, err = run(DIGITS, SEVEN, FIVE, *layers, "--save", path)
    assert (status, err) == (0, "")
    assert "pool2" in out
    saved = np.load(path)
    assert sorted(saved) == ["conv1", "pictures", "pool2"]
    assert saved["pictures"].tolist() == [str(SEVEN), str(FIVE)]
    with striate.load(DIGITS) as model:
        for index, picture in enumerate((SEVEN, FIVE)):
            x = striate.load_image(picture, model.graph.preprocess)
            wanted = model.run({"image": x}, ["pool2", "conv1"])
            for layer in ("pool2", "conv1"):
                np.testing.assert_array_equal(saved[layer][index], wanted[layer][0])
    assert list(tmp_path.iterdir()) == [path]


def test_saving_without_a_layer_saves_the_outputs(run, tmp_path):
    path = tmp_path / "out.npz"
    assert run(DIGITS, SEVEN, "--save", path)[0] == 0
    assert sorted(np.load(path)) == ["logits", "pictures"]


def test_a_layer_is_summed_up_without_being_saved(run):
    status, out, _ = run(DIGITS, SEVEN, "--output", "relu1", "--json")
    assert status == 0
    layer = json.loads(out)["pictures"][0]["layers"]["relu1"]
    assert layer["shape"] == [1, 8, 8, 24]
    assert 0 == layer["min"] < layer["mean"] < layer["max"]


def test_layers_of_any_name_can_be_saved(run, tmp_path):
    graph = Graph("names")
    x = graph.input("x", ("N", 4, 4, 3))
    names = ["file", "allow_pickle", "self"]
    for name in names:
        x = graph.add(ops.Relu(), x, name=name)
    graph.output(x)
    graph.preprocess = Preprocess()
    striate.save(graph, tmp_path / "net.h5")
    wanted = [argument for name in names for argument in ("--output", name)]
    path = tmp_path / "out.npz"
    assert run(tmp_path / "net.h5", SEVEN, *wanted, "--save", path)[0] == 0
    assert sorted(np.load(path)) == sorted([*names, "pictures"])


def test_a_model_that_names_no_classes(run, tmp_path):
    graph = Graph("filter")
    x = graph.input("x", ("N", "H", "W", 3))
    graph.output(graph.add(ops.AveragePool(kernel=(2, 2)), x, name="smooth"))
    graph.preprocess = Preprocess()
    striate.save(graph, tmp_path / "net.h5")
    arguments = (tmp_path / "net.h5", SEVEN, "--output", "smooth")
    status, out, _ = run(*arguments, "--json")
    (entry,) = json.loads(out)["pictures"]
    assert status == 0
    assert entry["classes"] == []
    assert entry["layers"]["smooth"]["shape"] == [1, 255, 255, 3]
    status, _, err = run(*arguments, FIVE, "--save", tmp_path / "out.npz")
    assert status == 2
    assert "pictures of one size" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.h5"]


def test_a_file_that_is_there_is_replaced_only_by_a_whole_one(
    run, tmp_path, monkeypatch
):
    path = tmp_path / "out.npz"
    path.write_bytes(b"before")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    status, _, err = run(DIGITS, SEVEN, "--save", path)
    assert status == 2
    assert "No space left" in err
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


# Refusals


def test_models_that_are_none(refused, tmp_path):
    assert "none.h5" in refused(tmp_path / "none.h5", SEVEN)
    cut = tmp_path / "cut.h5"
    cut.write_bytes(DIGITS.read_bytes()[:5000])
    assert "cut.h5" in refused(cut, SEVEN)
    assert "seven.png" in refused(SEVEN, SEVEN)
    assert str(tmp_path) in refused(tmp_path, SEVEN)


def test_pictures_that_are_none(refused, tmp_path):
    text = tmp_path / "a.png"
    text.write_text("hello")
    assert "a.png" in refused(DIGITS, text)
    assert "no such file" in refused(DIGITS, tmp_path / "none.png")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no pictures" in refused(DIGITS, empty)


def test_blank_paper(refused, tmp_path):
    Image.new("L", (50, 50), 255).save(tmp_path / "blank.png")
    assert "nothing is drawn" in refused(DIGITS, tmp_path / "blank.png")


def test_a_model_that_takes_no_pictures(refused, tmp_path):
    graph = Graph("plain")
    graph.output(graph.add(ops.Relu(), graph.input("x", ("N", 4))))
    striate.save(graph, tmp_path / "net.h5")
    assert "'plain'" in refused(tmp_path / "net.h5", SEVEN)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--threads", "0"], "threads 0"),
        (["--threads", "-3"], "threads -3"),
        (["--threads", "many"], "many"),
        (["--isa", "mmx"], "mmx"),
        (["--top", "0"], "top 0"),
        (["--output", "nope"], "nope"),
        (["--save", "/no/such/folder/out.npz"], "/no/such/folder"),
        (["--save", "/"], "folder"),
        (["--save", "/proc/out.npz"], "/proc/out.npz"),
        (["--colour"], "--colour"),
    ],
)
def test_settings_that_make_no_sense(refused, arguments, word):
    assert word in refused(DIGITS, SEVEN, *arguments)


def test_no_pictures_at_all(refused):
    assert "pictures" in refused(DIGITS)


def test_errors_in_json(run):
    status, out, err = run(DIGITS, "none.png", "--json")
    assert status == 2
    assert json.loads(out) == {"error": "none.png: no such file", "status": 2}
    assert err.count("\n") == 1


# As a program


def command(*arguments):
    return [sys.executable, "-m", "striate.tools.run_model", *map(str, arguments)]


def test_help_has_an_example(run):
    status, out, _ = run("--help")
    assert status == 0
    assert "run_model models/digits.h5" in out
    assert "exit status" in out


def test_a_reader_that_leaves_early_is_no_error(folder):
    with subprocess.Popen(
        command(DIGITS, *[SEVEN] * 20, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_progress_is_shown_on_a_terminal_only(folder):
    pictures = [SEVEN, FIVE] * 3
    quiet = subprocess.run(
        command(DIGITS, *pictures), capture_output=True, text=True, check=True
    )
    assert quiet.stderr == ""
    main_end, program_end = pty.openpty()
    with subprocess.Popen(
        command(DIGITS, *pictures), stdout=subprocess.PIPE, stderr=program_end
    ) as process:
        os.close(program_end)
        assert process.stdout.read().decode() == quiet.stdout
    shown = b""
    while True:
        try:
            part = os.read(main_end, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(main_end)
    assert b"running" in shown
