"""Sources that are not what they say: one line, nothing written, nothing else read."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import node, onnx_model, weights
from striate.errors import UnsupportedModelError
from striate.tools import conversion, convert
from striate.tools.from_onnx.model import read_model

N = "batch"

PROGRAM = """
import contextlib, io, json, resource, sys
import h5py, numpy, onnx
from striate.tools.convert_model import main
opened = []
def hook(event, arguments):
    if event in ("open", "os.open"):
        opened.append(str(arguments[0]))
    elif event in ("os.system", "socket.connect"):
        opened.append(event)
sys.addaudithook(hook)
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
found = []
for arguments in json.loads(sys.argv[1]):
    opened.clear()
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(arguments)
        except BaseException as error:
            status = repr(error)
    found.append([status, said.getvalue(), list(opened)])
print(json.dumps(found))
"""


def attempted(commands):
    """Run commands in a process of 4 GB; return status, line and files of each."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path):
    """Return the model's folder; beside it is a file that nothing may read."""
    (tmp_path / "secret").write_bytes(bytes(4096))
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def refused(folder, sources):
    """Assert that sources are refused: in one line, nothing written, nothing spied.

    Parameters
    ----------
    sources : dict of str to (bytes, str, int)
        Name of the file to what is in it, a part of the line, the exit status.
    """
    commands = []
    for name, (content, _, _) in sources.items():
        (folder / name).write_bytes(content)
        weights_alone = name.endswith((".pth", ".safetensors"))
        arguments = ["--arch", "resnet18"] if weights_alone else []
        commands.append([str(folder / name), str(folder / "out.h5"), *arguments])
    before = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")}
    answers = attempted(commands)
    after = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")}
    assert after == before
    for (name, (_, reason, status)), (found, said, opened) in zip(
        sources.items(), answers, strict=True
    ):
        assert found == status, f"{name}: {found}, {said}"
        assert reason in said, f"{name}: {said}"
        assert said.startswith("convert_model: ")
        assert said.count("\n") == 1 or status == 1
        assert not any("secret" in path or path == "os.system" for path in opened)


def constant_model(tensor):
    model = onnx_model([node("Add", ["x", "w"], ["y"])], {"x": (N, 3)})
    model.graph.initializer.append(tensor)
    return model.SerializeToString()


def external(*places, dims=(3,), **settings):
    """Return a model whose weights are said to lie at (location, offset) elsewhere."""
    names = [f"y{i}" for i in range(len(places))]
    nodes = [node("Add", ["x", f"w{i}"], [y]) for i, y in enumerate(names)]
    model = onnx_model(nodes, {"x": (N, 3)}, names)
    for index, (location, offset) in enumerate(places):
        tensor = model.graph.initializer.add(name=f"w{index}", data_type=1, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": offset, **settings}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
    return model.SerializeToString()


def ints(*numbers):
    return np.array(numbers, np.int64)


HUGE = 1 << 34


def tensor(*dims):
    return constant_model(TensorProto(name="w", data_type=1, dims=dims))


ONNX = {
    "huge dims": (tensor(1 << 40), "tensor"),
    "dims that overflow": (tensor(1 << 62, 4), "tensor"),
    "negative dims": (tensor(-4), "tensor"),
    "data above": (external(("../secret", 0)), "own folder"),
    "data at the root": (external(("/etc/hostname", 0)), "own folder"),
    "data on a drive": (external(("C:\\secret", 0)), "own folder"),
    "a device": (external(("/dev/zero", 0)), "own folder"),
    "the folder itself": (external((".", 0)), "own folder"),
    "data behind a link": (external(("link", 0)), "own folder"),
    "data out of range": (external(("w.bin", 1 << 60)), "w.bin"),
    "data of huge length": (
        external(("w.bin", 0), dims=(1 << 40,), length=1 << 42),
        "w.bin",
    ),
    "one file many times": (
        external(*[("w.bin", 4 * i) for i in range(300)], dims=(200_000,)),
        "overlaps",
    ),
    "truncated": (tensor(3)[:-40], "not a whole ONNX file"),
}


def test_onnx_that_asks_for_what_it_must_not(folder):
    (folder / "w.bin").write_bytes(bytes(1 << 20))
    (folder / "link").symlink_to("../secret")
    refused(folder, {f"{name}.onnx": (*what, 2) for name, what in ONNX.items()})


FOLDED = {
    "ConstantOfShape": (["s"], {"s": ints(HUGE)}),
    "Expand": (["v", "s"], {"v": weights(1), "s": ints(HUGE)}),
    "Pad": (["v", "s"], {"v": weights(1), "s": ints(0, HUGE)}),
    "Tile": (["v", "s"], {"v": weights(1), "s": ints(HUGE)}),
    "Range": (["a", "b", "c"], {"a": ints(0)[0], "b": ints(HUGE)[0], "c": ints(1)[0]}),
    "MatMul": (["u", "v"], {"u": weights(1 << 17, 1), "v": weights(1, 1 << 17)}),
    "Mul": (["u", "v"], {"u": weights(1 << 17, 1), "v": weights(1, 1 << 17)}),
    "Gather": (["v", "i"], {"v": weights(2, 1 << 12), "i": ints(*[0] * (1 << 17))}),
    "Concat": (["v"] * 3000, {"v": weights(1 << 18)}),
}


def test_constants_that_would_fill_the_memory(folder):
    """A few bytes ask for gigabytes, by every operator that makes much of little."""
    nodes, constants = [], {}
    for op, (inputs, given) in FOLDED.items():
        settings = {"axis": 0} if op == "Concat" else {}
        nodes.append(node(op, [f"{op}_{i}" for i in inputs], [f"{op}_out"], **settings))
        constants.update({f"{op}_{name}": array for name, array in given.items()})
    model = onnx_model(
        [*nodes, node("Relu", ["x"], ["r"])],
        {"x": (N, 3)},
        (*(each.output[0] for each in nodes), "r"),
        constants=constants,
        opset=18,
    )
    content = model.SerializeToString()
    title = f"{len(FOLDED)} nodes cannot be converted"
    refused(folder, {"net.onnx": (content, title, 1)})
    with pytest.raises(UnsupportedModelError) as caught:
        convert(content, format="onnx")
    assert str(caught.value).count("it computes a constant of shape") == len(FOLDED)


def test_many_constants_that_would_fill_it_together(monkeypatch):
    monkeypatch.setattr(conversion, "LARGEST_SUM", 1000)
    nodes = [node("ConstantOfShape", ["s"], [f"c{i}"]) for i in range(20)]
    for count in (10, 11):
        outputs = [f"c{i}" for i in range(count)]
        model = onnx_model(
            nodes[:count], {"x": (N, 3)}, outputs, constants={"s": ints(100)}
        )
        if count == 10:
            assert convert(model).outputs == outputs
        else:
            with pytest.raises(UnsupportedModelError, match="elements in all"):
                convert(model)


def test_weights_that_share_their_bytes_are_read_once(folder):
    (folder / "w.bin").write_bytes(bytes(12))
    (folder / "net.onnx").write_bytes(external(*[("w.bin", 0)] * 3))
    constants = read_model(folder / "net.onnx").graph.constants
    assert constants["w0"] is constants["w1"] is constants["w2"]


class Payload:
    def __reduce__(self):
        return os.system, ("touch ../secret2",)


def archive(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


LAMBDA = {
    "class_name": "Sequential",
    "config": {
        "layers": [
            {
                "class_name": "InputLayer",
                "config": {"batch_shape": [None, 4], "name": "x"},
            },
            {
                "class_name": "Lambda",
                "config": {"name": "evil", "function": ["4wEAAAA=", None, None]},
            },
        ]
    },
}


def linked(config):
    """Return an HDF5 file whose model is said to lie in another one."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file["model_weights"] = h5py.ExternalLink("../secret", "/")
    return buffer.getvalue()


def keras(config, weights=b""):
    version = json.dumps({"keras_version": "3.0.0"})
    parts = {"config.json": config, "metadata.json": version}
    return archive({**parts, "model.weights.h5": weights})


def safetensors(header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


TENSOR = {"dtype": "F32", "shape": [HUGE, HUGE], "data_offsets": [0, HUGE]}

OTHERS = {
    "a pickle.pth": (pickle.dumps(Payload()), "pickle", 2),
    "a pickle of PyTorch.pth": (
        archive({"net/data.pkl": pickle.dumps(Payload()), "net/version": "3\n"}),
        "",
        2,
    ),
    "a pickle.pt2": (
        archive(
            {
                "net/models/model.json": "{}",
                "net/data/sample_inputs/model.pt": pickle.dumps(Payload()),
            }
        ),
        "",
        2,
    ),
    "a Lambda.keras": (keras(json.dumps(LAMBDA)), "", 2),
    "a link.h5": (linked(LAMBDA), "link", 2),
    "a bomb.keras": (keras(bytes(600_000_000)), "", 2),
    "a stump.safetensors": (struct.pack("<Q", 60) + b'{"w": {"dtype": "F', "", 2),
    "huge tensors.safetensors": (safetensors({"w": TENSOR}), "", 2),
    "a stump.tflite": (b"\x1c\0\0\0TFL3" + b"\xff" * 40, "", 2),
    "a stump.cfg": (
        b"[net]\nwidth=999999999\nheight=999999999\nchannels=3\n"
        b"[convolutional]\nfilters=999999999\nsize=3\n",
        "",
        2,
    ),
    "a stump.prototxt": (b'name: "n"\nlayer { name: "c" type: "Conv', "", 2),
    "a stump.caffemodel": (b"\x0a\x03net" + b"\xa2\x06\x04\x0a\x02c1", "", 2),
}


def test_sources_that_mean_no_good(folder):
    refused(folder, OTHERS)
    assert not (folder.parent / "secret2").exists()
