"""What a file is shows in its content; what others add is found."""

import io
import json
import pickle
import struct
import sys
import types
import zipfile
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import striate
from onnx import TensorProto, helper
from onnx_models import node, onnx_model, weights
from striate import ops
from striate.errors import MissingExtraError, ModelFormatError, SettingError
from striate.tools import convert, formats
from striate.tools.conversion import Conversion, Registry, call
from striate.tools.convert_model import main
from striate.tools.formats import FORMATS, Format, recognised
from striate.tools.formats import formats as known

DIGITS = Path(__file__).parents[2] / "models" / "digits.h5"


def archive(members):
    """Return the bytes of a ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def hdf5(attributes=(), groups=()):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update(dict(attributes))
        for group in groups:
            file.create_group(group)
    return buffer.getvalue()


def onnx_bytes():
    model = onnx_model([node("Relu", ["x"], ["y"])], {"x": ("N", 3)})
    return model.SerializeToString()


def safetensors():
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    return struct.pack("<Q", len(header)) + header.encode() + bytes(4)


CONTENTS = {
    "onnx": onnx_bytes(),
    "torch": archive({"net/models/model.json": "{}"}),
    "torch before 2.9": archive({"serialized_exported_program.json": "{}"}),
    "weights": safetensors(),
    "weights in a pickle": archive({"net/data.pkl": b"\x80\x02.", "net/version": "3"}),
    "weights, old": b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80",
    "keras": archive({"config.json": "{}", "metadata.json": "{}"}),
    "keras 2": hdf5({"model_config": "{}", "keras_version": "2.4.0"}),
    "tflite": b"\x1c\0\0\0TFL3" + bytes(32),
    "darknet": b"# a comment\n\n[net]\nwidth=416\n",
    "darknet, classifier": b"[network]\r\nwidth=256\r\n",
    "caffe": b'name: "net"\nlayer {\n  name: "conv1"\n}\n',
    "caffe, weights": b"\x0a\x03net" + b"\xa2\x06\x04\x0a\x02c1",
    "caffe, old": b'name: "net"\nlayers { name: "conv1" type: CONVOLUTION }\n',
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("ending", ["", ".bin", ".h5", ".onnx"])
def test_content_tells_whatever_the_ending(tmp_path, name, ending):
    path = tmp_path / f"model{ending}"
    path.write_bytes(CONTENTS[name])
    assert recognised(path).name == name.split()[0].strip(",")


FOREIGN = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a web page": b"<!DOCTYPE html>\n<html><title>404</title></html>",
    "TorchScript": archive({"net/code/a.py": "", "net/data.pkl": b"\x80\x02."}),
    "a TensorFlow graph": b"\x0a\x06\x0a\x01x\x12\x01y" * 3,
    "weights without the network": hdf5({"layer_names": "conv1"}),
    "neither a Keras model nor": hdf5({"hello": 1}),
    "a pickle, which can run any program": pickle.dumps([1, 2], protocol=4),
    "an ncnn network": b"7767517\n3 3\nInput data 0 1 data\n",
    "an OpenVINO network": b'<?xml version="1.0"?>\n<net name="n" version="11">',
    "an archive": archive({"photo.jpg": b"", "readme.txt": b""}),
    "the format is not known": b"hello, world",
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("ending", ["", ".model"])
def test_what_is_mistaken_for_a_model_is_named(tmp_path, what, ending):
    path = tmp_path / f"model{ending}"
    path.write_bytes(FOREIGN[what])
    with pytest.raises(ModelFormatError, match=what) as caught:
        recognised(path)
    assert caught.value.code == "unknown_format"
    assert len(str(caught.value).splitlines()) == 1


def test_the_weights_of_darknet_alone(tmp_path):
    path = tmp_path / "yolov3.weights"
    path.write_bytes(struct.pack("<3iq", 0, 2, 5, 32013312) + bytes(64))
    with pytest.raises(ModelFormatError, match=r"give its \.cfg"):
        recognised(path)


@pytest.mark.parametrize("content", ["nothing", "folder", "saved model", "empty"])
def test_no_file(tmp_path, content):
    path = tmp_path / "net.onnx"
    said = {"nothing": "no such file", "empty": "empty", "folder": "found a folder"}
    if content == "empty":
        path.touch()
    elif content != "nothing":
        path.mkdir()
    if content == "saved model":
        (path / "saved_model.pb").touch()
    with pytest.raises(ModelFormatError, match=said.get(content, "SavedModel")):
        recognised(path)


def test_the_ending_speaks_where_the_content_does_not(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"hello")
    assert recognised(path).name == "tflite"


def test_one_flipped_byte_is_still_decided_or_refused(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "model"
    for content in CONTENTS.values():
        for place in random.integers(0, min(len(content), 64), 12):
            changed = bytearray(content)
            changed[place] ^= 1 << int(random.integers(8))
            path.write_bytes(changed)
            with suppress(ModelFormatError):
                assert recognised(path) in FORMATS


def test_a_model_file_is_told_from_keras(tmp_path):
    assert formats.is_striate(DIGITS)
    keras = tmp_path / "keras.h5"
    keras.write_bytes(CONTENTS["keras 2"])
    assert not formats.is_striate(keras)
    with pytest.raises(ModelFormatError):
        recognised(DIGITS)


def test_a_name_decides_between_formats(tmp_path, monkeypatch):
    twin = Format("twin", "Twin", (".t",), lambda path, head: True, lambda: None)
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, twin))
    path = tmp_path / "net"
    path.write_bytes(onnx_bytes())
    with pytest.raises(ModelFormatError, match="onnx and twin: say which") as caught:
        recognised(path)
    assert caught.value.code == "ambiguous"
    assert convert(path, format="onnx").outputs == ["y"]


def test_a_format_nobody_has():
    with pytest.raises(SettingError, match="wanted one of onnx, torch"):
        convert("net", format="onyx")


def test_options_of_other_formats(tmp_path):
    path = tmp_path / "net"
    path.write_bytes(onnx_bytes())
    with pytest.raises(SettingError, match="arch makes no sense for ONNX"):
        convert(path, arch="resnet50")


def test_settings_of_one_format(toy, tmp_path):
    (tmp_path / "net.toy").write_text("toy\ndouble\n")
    source, target = str(tmp_path / "net.toy"), str(tmp_path / "net.h5")
    graph = convert(source, factor=3)
    assert graph.params["y/y"].tolist() == [6]
    assert main([source, target, "--option", "factor=3", "--no-verify"]) == 0
    assert striate.read(target).params["y/y"].tolist() == [6]
    for wrong in ("factor", "=3", "fac tor=3", "io=source", "progress=1"):
        with pytest.raises(SystemExit):
            main([source, target, "--option", wrong])
    assert main([source, target, "--option", "colour=3"]) == 2


def test_a_cut_where_the_door_knows_none(toy, tmp_path):
    (tmp_path / "net.toy").write_text("toy\ndouble\ntwice times=2\ndouble\n")
    graph = convert(tmp_path / "net.toy", cut_outputs=["line1"])
    assert graph.outputs == ["line1"]
    assert len(graph.nodes) == graph.metadata["conversion"]["nodes_out"] == 2
    assert graph.metadata["conversion"]["order"].keys() == {"x", "line1"}
    with striate.Model(graph) as model:
        assert model(np.ones((1, 3), np.float32)).tolist() == [[8, 8, 8]]
    with pytest.raises(SettingError, match="no layer 'line7' to cut at"):
        convert(tmp_path / "net.toy", cut_outputs=["line7"])


def test_a_cut_is_compared_with_the_part_of_the_whole(toy, tmp_path, capsys):
    (tmp_path / "net.toy").write_text("toy\ndouble\ntwice times=5\n")
    source, target = str(tmp_path / "net.toy"), str(tmp_path / "net.h5")
    assert main([source, target, "--cut-outputs", "line0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verification"]["outputs"].keys() == {"line0"}
    assert main([source, target]) == 1


def test_models_in_memory():
    graph = convert(onnx.load_from_string(onnx_bytes()))
    assert graph.outputs == ["y"]
    assert convert(onnx_bytes(), format="onnx").outputs == ["y"]


def test_what_is_no_model():
    with pytest.raises(SettingError, match="cannot convert a list"):
        convert([1, 2])


TOY = Registry()


@TOY.register("double", "twice")
def double(g, x, *, times=1):
    """Double a number so many times."""
    return g.elementwise(ops.Mul(), x, y=np.array([g.factor * 2.0**times], np.float32))


def from_toy(source, *, io="channels_last", factor=1, progress=None):
    """Convert a text of one operator a line."""
    from striate.tools.builder import Builder

    lines = Path(source).read_text().splitlines()[1:]
    account = Conversion(source, "toy", len(lines), progress)
    g = Builder({"N": (2, 3)})
    g.factor = factor
    x = g.input("x", ("N", 3), (0, 1))
    account.orders.append(("x", (0, 1)))
    for number, line in enumerate(lines):
        op, *settings = line.split()
        given = dict(s.split("=") for s in settings)

        def converted(op=op, given=given, x=x):
            handler = TOY.find(op)
            if handler is None:
                raise striate.errors.UnsupportedModelError("no such line")
            return call(handler, g, [x], {k: int(v) for k, v in given.items()})

        found = account.node(g, op, f"line{number}", converted, reads=[x])
        x = found[0] if found else x
    g.output(x, "y")
    account.orders.append(("y", (0, 1)))
    return account.finish(g, "toy")


class ToyOracle:
    """Doubles as the text says."""

    name, version = "toys", "1"

    def __init__(self, factor):
        self.factor = factor

    def run(self, feeds):
        return {"y": feeds["x"] * np.float32(self.factor)}

    def layers(self, feeds):
        yield "line0", self.run(feeds)["y"]


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Install another package that adds a format by an entry point."""
    added = Format(
        "toy",
        "Toy",
        (".toy",),
        lambda path, head: head.startswith(b"toy\n"),
        "toy_importer:from_toy",
        "toy_importer:oracle",
        TOY.operators,
    )
    module = types.ModuleType("toy_importer")
    module.from_toy = from_toy
    module.oracle = lambda source, graph: ToyOracle(2)
    module.format = added
    monkeypatch.setitem(sys.modules, "toy_importer", module)
    install(monkeypatch, tmp_path / "site", "toy_importer:format")
    return module


def install(monkeypatch, site, value):
    """Make an entry point known as pip does."""
    info = site / "toys-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[striate.importers]\ntoy = {value}\n")
    monkeypatch.syspath_prepend(site)


def test_an_importer_of_another_package(toy, tmp_path, capsys):
    source, target = tmp_path / "net.toy", tmp_path / "net.h5"
    source.write_text("toy\ndouble\n")
    assert main([str(source), str(target), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["format"] == "toy"
    assert summary["verification"]["oracle"] == "toys"
    with striate.load(target) as model:
        assert model(np.ones((1, 3), np.float32)).tolist() == [[2, 2, 2]]
    assert known()["toy"].title == "Toy"
    assert formats.operators(known()["toy"]) == ["double", "twice"]


def test_its_faults_are_one_table(toy, tmp_path, capsys):
    source = tmp_path / "net.toy"
    source.write_text("toy\ndouble wide=1\nhalve\ndouble\nhalve\n")
    assert main([str(source), str(tmp_path / "net.h5")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("3 layers cannot be converted")
    assert lines[1].split() == ["operator", "count", "reason", "layers"]
    assert lines[2] == "halve     2      no such line    line1, line3"
    assert lines[3] == "double    1      attribute wide  line0"


def test_it_may_compute_something_else(toy, tmp_path, capsys):
    source, target = tmp_path / "net.toy", tmp_path / "net.h5"
    source.write_text("toy\ntwice times=2\n")
    assert main([str(source), str(target)]) == 1
    out, err = capsys.readouterr()
    assert "y not as toys 1 computes it, the first layer that is off is y" in err
    assert "more than 0.0001" in out
    assert not target.exists()


@pytest.mark.parametrize("fault", ["not there", "no format", "a taken name"])
def test_an_entry_point_that_is_wrong(toy, tmp_path, monkeypatch, capsys, fault):
    value = {"not there": "toy_importer:nothing"}.get(fault, "toy_importer:format")
    toy.format = FORMATS[0] if fault == "a taken name" else "hello"
    install(monkeypatch, tmp_path / "site", value)
    path = tmp_path / "net.strange"
    path.write_bytes(b"strange")
    assert main([str(path), str(tmp_path / "net.h5")]) == 2
    assert value in capsys.readouterr().err
    path.write_bytes(onnx_bytes())
    assert main([str(path), str(tmp_path / "net.h5")]) == 0


def test_what_a_format_refers_to_is_there():
    for entry in FORMATS:
        for reference in (entry.convert, entry.oracle, entry.operators):
            if reference is not None:
                try:
                    assert callable(formats.resolved(reference))
                except MissingExtraError:
                    pytest.fail(f"{reference} needs a package to be imported")


def test_a_message_that_is_no_model_ends_soon(tmp_path):
    """Millions of fields do not hold up the recognition."""
    path = tmp_path / "many"
    path.write_bytes(b"\x08\x01" * 1_000_000)
    with pytest.raises(ModelFormatError):
        recognised(path)


def test_a_large_model_is_recognised_without_being_read(tmp_path):
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
            [onnx.numpy_helper.from_array(weights(1000, 100), "w")],
        )
    )
    path = tmp_path / "large"
    path.write_bytes(model.SerializeToString())
    assert recognised(path).name == "onnx"
