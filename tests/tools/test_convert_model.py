"""The command line: what it writes, tells, and refuses in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import striate
from onnx_models import node, onnx_model, session, weights
from striate.tools import convert_model
from striate.tools.convert_model import main

COMMAND = main

N = "batch"


@pytest.fixture
def source(tmp_path):
    """Return an ONNX file: a small classifier of RGB pictures."""
    nodes = [
        node("Conv", ["x", "w"], ["p"], name="conv1"),
        node("Sigmoid", ["p"], ["s"], name="gate"),
        node("Mul", ["p", "s"], ["q"], name="act"),
        node("Flatten", ["q"], ["f"], name="flat"),
        node("Gemm", ["f", "m", "b"], ["logits"], name="fc"),
    ]
    constants = {"w": weights(4, 3, 3, 3), "m": weights(48, 5), "b": weights(5)}
    model = onnx_model(nodes, {"x": (N, 3, 6, 5)}, ("logits",), constants=constants)
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture
def refused(source, tmp_path, run):
    """Return a function that asserts an exit status of 2 and returns the one line."""

    def check(*arguments, status=2):
        before = set(tmp_path.iterdir())
        found, out, err = run(*arguments)
        assert found == status
        assert out == ""
        assert set(tmp_path.iterdir()) == before
        assert err.startswith("convert_model: ")
        assert err.count("\n") == 1 or status == 1
        return err

    return check


@pytest.mark.parametrize("io", ["channels_last", "source"])
def test_the_model_file_computes_the_same(source, tmp_path, io, capsys):
    target = tmp_path / "net.h5"
    assert main([str(source), str(target), "--io", io]) == 0
    x = weights(3, 3, 6, 5)
    (wanted,) = session(source).run(["logits"], {"x": x})
    with striate.load(target, threads=1) as model:
        given = x if io == "source" else x.transpose(0, 2, 3, 1)
        found = model(np.ascontiguousarray(given))
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_the_summary(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / "net.h5"), "--io", "source"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for line in (
        "nodes        5 in, 5 out",
        "parameters   353",
        "inputs       x (N, 3, 6, 5)",
        "outputs      logits (N, 5)",
        "for free     1 Flatten",
        "joined into  1 Silu",
        "transposes   1",
    ):
        assert line in out
    assert "conv1" in out.splitlines()[-1]


def test_the_summary_as_json(source, tmp_path, capsys):
    target = tmp_path / "net.h5"
    assert main([str(source), str(target), "--json", "--name", "Small"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["name"] == "Small"
    assert summary["nodes_in"] == 5
    assert summary["nodes_out"] == 4
    assert summary["parameters"] == 353
    assert summary["inputs"] == {"x": ["N", 6, 5, 3]}
    assert summary["outputs"] == {"logits": ["N", 5]}
    assert summary["transposes"] == []
    assert summary["patterns"] == {"Silu": 1}
    assert summary["bytes"] == target.stat().st_size
    graph = striate.read(target)
    assert graph.provenance["name"] == "Small"
    assert graph.provenance["source_framework"] == "onnx"


def test_pictures_and_labels(source, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nbird \nfish\nsnail\n\n", "utf-8")
    arguments = ["--labels", labels, "--shortest-edge", 8, "--crop", "6x5"]
    arguments += ["--mean", "0.5,0.25,0.125", "--std", "2,2,2", "--scale", 1]
    arguments += ["--colour", "BGR", "--interpolation", "bicubic"]
    target = tmp_path / "net.h5"
    assert main([str(a) for a in [source, target, *arguments]]) == 0
    graph = striate.read(target)
    assert graph.labels == ("cat", "dog", "bird", "fish", "snail")
    assert graph.preprocess == striate.Preprocess(
        colour="BGR",
        resize=striate.Resize("shortest_edge", (8,), "bicubic"),
        crop=(6, 5),
        scale=1.0,
        mean=(0.5, 0.25, 0.125),
        std=(2.0, 2.0, 2.0),
    )
    assert graph.postprocess == striate.Postprocess("logits", "softmax")
    with striate.load(target) as model:
        answers = model.classify(np.zeros((20, 30, 3), np.uint8), top=2)
    assert len(answers) == 2


def test_without_picture_options_there_is_no_preprocessing(source, tmp_path):
    assert main([str(source), str(tmp_path / "net.h5")]) == 0
    graph = striate.read(tmp_path / "net.h5")
    assert graph.preprocess is None
    assert graph.postprocess is None


@pytest.mark.parametrize(
    ("op", "wanted"),
    [
        ("Softmax", "none"),
        ("LogSoftmax", "softmax"),
        ("Sigmoid", "none"),
        ("Relu", "softmax"),
    ],
)
def test_the_last_layer_tells_what_makes_probabilities(tmp_path, op, wanted):
    model = onnx_model([node(op, ["x"], ["y"])], {"x": (N, 2)})
    onnx.save(model, tmp_path / "net.onnx")
    (tmp_path / "labels.txt").write_text("yes\nno\n")
    paths = [tmp_path / name for name in ("net.onnx", "net.h5", "labels.txt")]
    assert main([str(paths[0]), str(paths[1]), "--labels", str(paths[2])]) == 0
    assert striate.read(paths[1]).postprocess.activation == wanted


def test_a_missing_source(refused, tmp_path):
    assert "nothing.onnx: no such file" in refused(
        tmp_path / "nothing.onnx", tmp_path / "a.h5"
    )


def test_a_source_of_another_kind(refused, tmp_path):
    (tmp_path / "net.txt").write_bytes(b"hello")
    assert "ONNX (.onnx)" in refused(tmp_path / "net.txt", tmp_path / "a.h5")


def test_a_truncated_source(refused, source, tmp_path):
    source.write_bytes(source.read_bytes()[:-100])
    assert "not a whole ONNX file" in refused(source, tmp_path / "a.h5")


def test_a_source_that_is_no_onnx_file(refused, source, tmp_path):
    source.write_bytes(b"hello")
    assert "ONNX file" in refused(source, tmp_path / "a.h5")


def test_a_missing_output_folder(refused, source, tmp_path):
    assert f"no folder {tmp_path / 'a'}" in refused(source, tmp_path / "a" / "b.h5")


def test_an_output_that_is_a_folder(refused, source, tmp_path):
    assert "found a folder" in refused(source, tmp_path)


def test_an_output_that_is_the_source(refused, source):
    content = source.read_bytes()
    assert "is the source itself" in refused(source, source)
    assert source.read_bytes() == content


def test_an_unwritable_output(refused, source, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in refused(source, tmp_path / "net.h5")


def test_the_extra_is_not_installed(refused, source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert 'pip install "striate[onnx]"' in refused(source, tmp_path / "net.h5")


def test_what_cannot_be_converted_is_one_table(refused, tmp_path):
    nodes = [
        node("Bernoulli", ["x"], ["p"], name="first"),
        node("Bernoulli", ["x"], ["q"], name="second"),
        node("Multinomial", ["x"], ["y"], name="third"),
    ]
    model = onnx_model(nodes, {"x": (N, 3, 3)}, ("p", "q", "y"))
    onnx.save(model, tmp_path / "bad.onnx")
    table = refused(tmp_path / "bad.onnx", tmp_path / "net.h5", status=1).splitlines()
    assert len(table) == 4
    assert "first, second" in table[2]
    assert "third" in table[3]


def test_what_cannot_be_converted_as_json(tmp_path, capsys):
    onnx.save(
        onnx_model([node("Bernoulli", ["x"], ["y"])], {"x": (N, 3, 3)}),
        tmp_path / "b.onnx",
    )
    assert main([str(tmp_path / "b.onnx"), str(tmp_path / "net.h5"), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == 1
    assert "Bernoulli" in answer["error"]


def test_another_number_of_labels(refused, source, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    line = refused(source, tmp_path / "net.h5", "--labels", labels)
    assert "2 labels" in line
    assert "5 classes" in line


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00"])
def test_labels_that_are_none(refused, source, tmp_path, content):
    (tmp_path / "labels.txt").write_bytes(content)
    refused(source, tmp_path / "net.h5", "--labels", tmp_path / "labels.txt")


def test_missing_labels(refused, source, tmp_path):
    refused(source, tmp_path / "net.h5", "--labels", tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--mean", "a,b"],
        ["--size", "2x3x4"],
        ["--size", "tall"],
        ["--size", "8", "--shortest-edge", "8"],
        ["--interpolation", "bicubic"],
        ["--colour", "L"],
        ["--mean", "0.5,0.5"],
        ["--std", "0,1,1"],
        ["--mean", "0.5", "--io", "source"],
        ["--io", "nchw"],
        ["--unknown"],
        ["--size", "0"],
    ],
)
def test_options_that_make_no_sense(refused, source, tmp_path, arguments):
    refused(source, tmp_path / "net.h5", *arguments)


FIRST_MINUTES = {
    "no ending": (["net.onnx", "net"], "wanted a name that ends in .h5"),
    "another ending": (["net.onnx", "net.keras"], "wanted a name that ends in .h5"),
    "a folder": ([".", "net.h5"], "found a folder"),
    "the two the wrong way round": (["net.h5", "net.onnx"], "no such file"),
    "onnx to onnx": (["net.onnx", "other.onnx"], "convert it to .h5 first"),
    "a wrong format": (["net.onnx", "net.h5", "--from", "tensorflow"], "wanted one of"),
    "weights for ONNX": (["net.onnx", "net.h5", "--weights", "w"], "weights makes no"),
    "a cut at nothing": (
        ["net.onnx", "net.h5", "--cut-outputs", "conv9"],
        "no node or tensor 'conv9'",
    ),
    "an empty cut": (["net.onnx", "net.h5", "--cut-outputs", ","], "wanted names"),
    "no verification": (["net.onnx", "net.h5", "--verify", "0"], "wanted 1 or more"),
    "both": (["net.onnx", "net.h5", "--verify", "2", "--no-verify"], "not allowed"),
    "only one name": (["net.onnx"], "required: target"),
    "a Darknet network without its weights": (["net.cfg", "net.h5"], "net.weights"),
    "a Caffe network without its weights": (
        ["net.prototxt", "net.h5"],
        "net.caffemodel",
    ),
    "a page in place of a model": (["page.onnx", "net.h5"], "found a web page"),
    "a pointer in place of a model": (["lfs.onnx", "net.h5"], "git lfs pull"),
}


@pytest.mark.parametrize("case", FIRST_MINUTES)
def test_mistakes_of_the_first_minutes(refused, source, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    Path("net.cfg").write_text(
        "[net]\nwidth=8\nheight=8\nchannels=3\n[convolutional]\nfilters=2\nsize=1\n"
    )
    Path("net.prototxt").write_text(
        'name: "n"\ninput: "data"\ninput_dim: 1\ninput_dim: 3\ninput_dim: 8\n'
        'input_dim: 8\nlayer { name: "r" type: "ReLU" bottom: "data" top: "r" }\n'
    )
    Path("page.onnx").write_text("<html><body>404</body></html>")
    Path("lfs.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    arguments, reason = FIRST_MINUTES[case]
    assert reason in refused(*arguments)


def test_the_runtime_of_the_source_is_not_installed(
    source, tmp_path, monkeypatch, capsys, refused
):
    """The summary says what to install; whoever insists gets an error."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    target = tmp_path / "net.h5"
    assert "pip install onnxruntime" in refused(source, target, "--verify", 2)
    assert main([str(source), str(target)]) == 0
    assert "verified     no: " in (out := capsys.readouterr().out)
    assert "pip install onnxruntime" in out
    assert "verification" not in striate.read(target).provenance


def test_nobody_wants_to_compare(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / "net.h5"), "--no-verify"]) == 0
    assert "verified     no, --no-verify" in capsys.readouterr().out


def test_the_target_is_replaced_only_if_all_went_well(source, tmp_path, monkeypatch):
    target = tmp_path / "net.h5"
    target.write_bytes(b"what was there before")
    whole = source.read_bytes()
    source.write_bytes(whole[:-50])
    assert main([str(source), str(target)]) == 2
    assert target.read_bytes() == b"what was there before"
    source.write_bytes(whole)
    assert main([str(source), str(target)]) == 0
    assert striate.read(target).outputs == ["logits"]


def test_a_part_of_the_network(source, tmp_path, capsys):
    target = tmp_path / "net.h5"
    cuts = ["--cut-outputs", "act", "--cut-inputs", "conv1"]
    assert main([str(source), str(target), *cuts, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["nodes_in"] == 2
    assert summary["inputs"] == {"p": ["N", 4, 3, 4]}
    assert summary["outputs"] == {"q": ["N", 4, 3, 4]}
    assert summary["verified"] is True


def test_no_arguments(refused):
    refused()


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as leave:
        main(["--help"])
    assert leave.value.code == 0
    assert "convert_model resnet50.onnx resnet50.h5" in capsys.readouterr().out


def test_as_a_program(source, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", convert_model.__name__, source, tmp_path / "net.h5"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "5 in, 4 out" in done.stdout
    assert (tmp_path / "net.h5").exists()


DIGITS = Path(__file__).parents[2] / "models" / "digits.h5"


def edited(path):
    """Write digits.h5 as other tools do, compressed and with a weight changed."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(DIGITS) as old, h5py.File(path, "w") as new:
        new.attrs.update(old.attrs)

        def copy(name, item):
            if not isinstance(item, h5py.Dataset):
                return
            settings = {"compression": "gzip"} if item.shape else {}
            changed = name == "weights/logits/bias"
            new.create_dataset(name, data=item[()] + 1 if changed else item, **settings)

        old.visititems(copy)
    return path


def test_a_file_that_another_tool_edited_is_written_anew(tmp_path, capsys):
    source, target = edited(tmp_path / "edited.h5"), tmp_path / "clean.h5"
    with pytest.raises(striate.ModelFormatError):
        striate.read(source)
    assert main([str(source), str(target), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found, was = striate.read(target), striate.read(DIGITS)
    assert found.model_id == told["model_id"] != was.model_id
    bias = was.params["logits/bias"] + 1
    np.testing.assert_array_equal(found.params["logits/bias"], bias)
    np.testing.assert_array_equal(
        found.params["conv1/kernel"], was.params["conv1/kernel"]
    )
    assert found.labels == was.labels
    assert found.preprocess == was.preprocess


def test_an_edited_file_that_is_no_model_is_refused(tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    source, target = tmp_path / "edited.h5", tmp_path / "clean.h5"
    for breakage in ("text", "no graph", "wrong shape"):
        if breakage == "text":
            source.write_text("hello")
        else:
            edited(source)
            with h5py.File(source, "a") as file:
                name = "graph" if breakage == "no graph" else "weights/logits/bias"
                del file[name]
                if breakage == "wrong shape":
                    file[name] = np.zeros(3, np.float32)
        assert main([str(source), str(target)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not target.exists()


def test_a_picture_may_be_inverted(tmp_path):
    source, target = tmp_path / "net.onnx", tmp_path / "net.h5"
    assert main([str(DIGITS), str(source)]) == 0
    assert main([str(source), str(target), "--colour", "L", "--invert"]) == 0
    assert striate.read(target).preprocess.invert is True
    assert main([str(source), str(target), "--colour", "L"]) == 0
    assert striate.read(target).preprocess.invert is False


@pytest.mark.parametrize("command", ["run_model", "bench_model", "inspect_model"])
def test_a_source_where_a_model_file_is_wanted(source, capsys, command):
    """Whoever forgets to convert is told so."""
    from importlib import import_module

    arguments = [str(source), str(source)] if command == "run_model" else [str(source)]
    assert import_module(f"striate.tools.{command}").main(arguments) == 2
    err = capsys.readouterr().err
    assert "it is ONNX: convert_model makes a model file of it" in err
    assert err.count("\n") == 1
