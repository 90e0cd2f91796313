"""Weights alone, in every kind of file, and hostile ones."""

import collections
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from nets import LeNet5, SqueezeNet
from striate import Model
from striate.errors import ModelFormatError, SettingError, UnsupportedModelError
from striate.models.architectures import ARCHITECTURES
from striate.tools import convert
from striate.tools.from_weights import from_weights, operators
from torch import nn

SMALL = {
    "lenet": {"image": 28},
    "squeezenet": {"image": 32},
    "mobilenet_v2": {"image": 32},
    "shufflenet_v2": {"image": 32},
    "convnext_tiny": {"image": 32},
    "unet": {"image": 32},
    "tiny_yolo": {"image": 64},
    "m5": {"samples": 16000},
}
"""Architectures of every kind of layer, and what keeps them small."""


TORCHVISION = {
    "alexnet": "ab64f8c5af4bfbeb",
    "googlenet": "4002aa12668d3b5e",
    "resnet18": "e90b1f58ce95ad39",
    "resnet50": "d1512e10e88bf8a9",
    "resnext50": "d1512e10e88bf8a9",
    "densenet121": "01da9529598dc5d0",
    "squeezenet": "377239e32f1ba6b0",
    "mobilenet_v2": "7abb0d3441db5855",
    "mobilenet_v3": "0692ecb8f00ec469",
    "shufflenet_v2": "824c1bfd4dca640f",
    "efficientnet_b0": "da04676151c5175e",
    "convnext_tiny": "819b4674fa7a07ef",
    "r3d_18": "2699bc6b37cfa7d5",
}
"""The start of the SHA-256 of the sorted names of torchvision 0.28, a line each."""


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_are_those_of_torchvision(tmp_path, name):
    path = write_safetensors(tmp_path / "w", {})
    with pytest.raises(UnsupportedModelError) as error:
        from_weights(path, name)
    lines = str(error.value).splitlines()[1:]
    names = sorted(line.removeprefix("missing: ") for line in lines)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert digest[:16] == TORCHVISION[name]


def torch_names(graph):
    """Return a graph's weights as PyTorch has them, by torchvision's names."""
    suffix = {
        "kernel": ".weight",
        "gamma": ".weight",
        "beta": ".bias",
        "mean": ".running_mean",
        "variance": ".running_var",
        "bias": ".bias",
    }
    found = {}
    for name, array in graph.params.items():
        layer, _, operand = name.rpartition("/")
        if operand == "value":
            continue
        if operand == "kernel":
            axes = tuple(range(array.ndim))
            array = array.transpose(axes[-1], axes[-2], *axes[:-2])
        elif operand == "y":
            array = array.reshape(-1, 1, 1)
        found[layer + suffix.get(operand, "")] = np.ascontiguousarray(array)
    return found


def write_safetensors(path, tensors, metadata=None):
    header, data = {}, b""
    for name, array in tensors.items():
        kind = {"float32": "F32", "float16": "F16", "uint16": "BF16"}[str(array.dtype)]
        begin = len(data)
        data += array.tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [begin, len(data)],
        }
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("name", SMALL)
def test_weights_come_back(tmp_path, name):
    options = SMALL[name]
    graph = ARCHITECTURES[name](seed=4, **options)
    path = write_safetensors(tmp_path / "w.safetensors", torch_names(graph))
    again = from_weights(path, name, **options)
    for tensor, array in graph.params.items():
        flat = array.ndim == 2 and not np.array_equal(again.params[tensor], array)
        if flat:
            assert sorted(array[:, 0]) == sorted(again.params[tensor][:, 0])
        else:
            np.testing.assert_array_equal(again.params[tensor], array)
    assert again.provenance["source_framework"] == "weights"


@pytest.fixture(scope="module")
def lenet():
    torch.manual_seed(0)
    return LeNet5().eval()


@pytest.fixture
def picture():
    return np.random.default_rng(0).standard_normal((3, 28, 28, 1), np.float32)


def agree(graph, module, picture):
    with torch.no_grad():
        wanted = module(torch.from_numpy(picture.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(Model(graph, threads=1)(picture), wanted, atol=1e-5)


SAVED = {
    "zip": lambda state, path: torch.save(state, path),
    "legacy": lambda state, path: torch.save(
        state, path, _use_new_zipfile_serialization=False
    ),
    "protocol_4": lambda state, path: torch.save(state, path, pickle_protocol=4),
    "plain_dict": lambda state, path: torch.save(dict(state), path),
    "parameters": lambda state, path: torch.save(
        {k: nn.Parameter(v) for k, v in state.items()}, path
    ),
    "checkpoint": lambda state, path: torch.save(
        {"epoch": 3, "lr": 0.1, "state_dict": state, "best": None}, path
    ),
    "parallel": lambda state, path: torch.save(
        {f"module.{k}": v for k, v in state.items()}, path
    ),
    "compiled_average": lambda state, path: torch.save(
        {f"ema._orig_mod.model.{k}": v for k, v in state.items()}, path
    ),
    "strided": lambda state, path: torch.save(
        {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in state.items()},
        path,
    ),
    "counted": lambda state, path: torch.save(
        {**state, "bn.num_batches_tracked": torch.tensor(3)}, path
    ),
}


@pytest.mark.parametrize("how", SAVED)
def test_state_dictionaries(lenet, picture, tmp_path, how):
    path = tmp_path / "lenet.pth"
    SAVED[how](lenet.state_dict(), path)
    agree(convert(path, arch="lenet"), lenet, picture)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(lenet, tmp_path, dtype):
    path = tmp_path / "lenet.pth"
    torch.save({k: v.to(dtype) for k, v in lenet.state_dict().items()}, path)
    graph = from_weights(path, "lenet")
    wanted = lenet.conv1.weight.detach().to(dtype).float().numpy()
    np.testing.assert_array_equal(
        graph.params["conv1/kernel"], wanted.transpose(2, 3, 1, 0)
    )


def test_bfloat16_in_safetensors(lenet, tmp_path):
    tensors = {
        k: v.to(torch.bfloat16).view(torch.uint16).numpy()
        for k, v in lenet.state_dict().items()
    }
    path = write_safetensors(tmp_path / "lenet.safetensors", tensors)
    graph = from_weights(path, "lenet")
    wanted = lenet.fc3.weight.detach().bfloat16().float().numpy().T
    np.testing.assert_array_equal(graph.params["fc3/kernel"], wanted)


def test_number_of_classes_is_that_of_the_weights(tmp_path):
    module = LeNet5(classes=7).eval()
    path = tmp_path / "lenet.pth"
    torch.save(module.state_dict(), path)
    graph = from_weights(path, "lenet")
    assert graph.specs()[graph.outputs[0]].shape[-1] == 7


def test_source_order(tmp_path):
    torch.manual_seed(1)
    module = SqueezeNet(classes=5).eval()
    names = {
        k.replace("expand1.", "expand1x1.").replace("expand3.", "expand3x3."): v
        for k, v in module.state_dict().items()
    }
    path = tmp_path / "squeezenet.pth"
    torch.save(names, path)
    graph = from_weights(path, "squeezenet", io="source", image=48)
    assert graph.inputs[0].shape == ("N", 3, 48, 48)
    x = np.random.default_rng(0).standard_normal((2, 3, 48, 48), np.float32)
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(Model(graph, threads=1)(x), wanted, atol=1e-5)


def test_images_that_come_out_in_source_order(tmp_path):
    graph = ARCHITECTURES["unet"](image=32)
    path = write_safetensors(tmp_path / "w", torch_names(graph))
    turned = from_weights(path, "unet", io="source", image=32)
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3), np.float32)
    last = Model(graph, threads=1)(x)
    first = Model(turned, threads=1)(x.transpose(0, 3, 1, 2).copy())
    np.testing.assert_allclose(first, last.transpose(0, 3, 1, 2), atol=1e-5)
    assert turned.outputs == graph.outputs


def test_old_names_of_densenet(tmp_path):
    graph = ARCHITECTURES["densenet121"](image=32)
    names = {}
    for name, array in torch_names(graph).items():
        for part in ("norm", "conv"):
            for number in "12":
                if "denselayer" in name:
                    name = name.replace(f"{part}{number}.", f"{part}.{number}.")
        names[name] = array
    path = write_safetensors(tmp_path / "w", names)
    from_weights(path, "densenet121", image=32)


def test_tied_weights_that_safetensors_left_out(lenet, tmp_path):
    state = {k: v.numpy() for k, v in lenet.state_dict().items()}
    kept = {k: v for k, v in state.items() if k != "conv1.bias"}
    kept["other"] = state["conv1.bias"]
    path = write_safetensors(tmp_path / "w", kept, {"conv1.bias": "other"})
    with pytest.raises(UnsupportedModelError, match="unexpected: other") as error:
        from_weights(path, "lenet")
    assert "missing" not in str(error.value).split("\n", 1)[1]


def test_all_that_does_not_fit_is_told_at_once(lenet, tmp_path):
    state = dict(lenet.state_dict())
    del state["conv1.bias"], state["fc2.weight"]
    state["fc3.bias"] = torch.zeros(11)
    state["conv2.weight"] = torch.zeros(16, 6, 3, 3)
    state["head.extra"] = torch.zeros(2)
    path = tmp_path / "lenet.pth"
    torch.save(state, path)
    with pytest.raises(UnsupportedModelError) as error:
        from_weights(path, "lenet")
    text = str(error.value)
    for line in (
        "missing: conv1.bias",
        "missing: fc2.weight",
        "unexpected: head.extra (2,)",
        "of another shape: fc3.bias (11,)",
        "of another shape: conv2.weight",
    ):
        assert line in text
    assert str(path) in text


def test_settings_that_make_no_sense(lenet, tmp_path):
    path = tmp_path / "lenet.pth"
    torch.save(lenet.state_dict(), path)
    with pytest.raises(SettingError, match="no architecture"):
        convert(path)
    with pytest.raises(SettingError, match="resnet51"):
        convert(path, arch="resnet51")
    with pytest.raises(SettingError, match="depth"):
        from_weights(path, "lenet", depth=3)
    assert set(operators()) == set(ARCHITECTURES)


def test_file_is_read_without_torch(lenet, tmp_path):
    path = tmp_path / "lenet.pth"
    torch.save(lenet.state_dict(), path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from striate.tools import convert\n"
        f"assert convert({str(path)!r}, arch='lenet').outputs == ['fc3']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("where", ["whole", "value", "key"])
def test_pickles_that_call_functions_are_refused(tmp_path, legacy, where):
    harm = Harm(tmp_path / "harm")
    found = {"whole": harm, "value": {"a": harm}, "key": {(harm,): 1}}[where]
    path = tmp_path / "evil.pth"
    torch.save(found, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelFormatError, match="it would call") as error:
        from_weights(path, "lenet")
    assert "state_dict()" in str(error.value)
    assert not (tmp_path / "harm").exists()


def test_whole_modules_are_refused_and_told_how_to_export(lenet, tmp_path):
    path = tmp_path / "module.pth"
    torch.save(lenet, path)
    with pytest.raises(ModelFormatError, match=r"torch\.export\.save"):
        from_weights(path, "lenet")


PROGRAMS = {
    "system": b"cos\nsystem\n(S'true'\ntR.",
    "instance": b"(S'x'\nios\nsystem\n.",
    "object": b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
    "stacked": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "dotted": b"\x80\x04\x8c\x0bcollections\x8c\x13OrderedDict.__init__\x93.",
    "built": b"\x80\x02]N}X\x01\x00\x00\x00aK\x01sb.",
    "new": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "extension": b"\x80\x02\x82\x01.",
    "no_mark": b"\x80\x02t.",
    "no_end": b"\x80\x02K\x01",
    "empty": b"",
    "far_memo": b"\x80\x02K\x01r\xff\xff\xff\xff.",
    "unknown_memo": b"\x80\x02j\xff\xff\xff\x00.",
    "long_string": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "deep": b"\x80\x02" + b"]" + b"\x85" * 100_000 + b".",
    "odd": b"\x80\x02}(K\x01K\x02K\x03u.",
    "tuple_key": b"\x80\x02})K\x01s.",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_are_no_weights(lenet, tmp_path, name):
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", PROGRAMS[name])
    with pytest.raises(ModelFormatError):
        from_weights(path, "lenet")
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pth"]


def test_tensors_that_reach_outside_their_elements(tmp_path):
    for shape, strides, offset in (
        ((1 << 40,), (1,), 0),
        ((1 << 40,), (0,), 0),
        ((2, 2), (1 << 40, 1), 0),
        ((4,), (1,), 1),
        ((4,), (-1,), 3),
        ((2,), (1,), -1),
        ((2.5,), (1,), 0),
    ):
        path = tmp_path / "evil.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", tensor_program(offset, shape, strides))
            archive.writestr("evil/data/0", bytes(16))
        with pytest.raises(ModelFormatError):
            from_weights(path, "lenet")


def tensor_program(offset, shape, strides):
    """Return a pickle of a dictionary with one tensor of four elements."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            return (
                value[1:] if isinstance(value, tuple) and value[:1] == ("id",) else None
            )

    class Global:
        def __init__(self, name):
            self.name = name

    class Call:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (
                ("id", "storage", torch.FloatStorage, "0", "cpu", 4),
                offset,
                shape,
                strides,
                False,
                collections.OrderedDict(),
            )

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"conv1.weight": Call()})
    return buffer.getvalue()


def header(value, data=b""):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(1,), begin=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


SAFETENSORS = {
    "short": b"\x01\x00",
    "long_header": struct.pack("<Q", 1 << 40) + b"{}",
    "no_json": header(b"{nonsense"),
    "list": header(b"[1, 2]"),
    "deep": header(b'{"a":' * 100_000),
    "past_end": header({"a": entry(end=8, shape=(2,))}, bytes(4)),
    "wrong_size": header({"a": entry(shape=(3,))}, bytes(4)),
    "huge": header({"a": entry(shape=(1 << 40, 1 << 40), end=1 << 80)}, bytes(4)),
    "negative": header({"a": entry(begin=-4, end=0)}, bytes(4)),
    "negative_shape": header({"a": entry(shape=(-1, -1))}, bytes(4)),
    "overlap": header({"a": entry(), "b": entry()}, bytes(4)),
    "unknown_type": header({"a": entry(dtype="F4")}, bytes(4)),
    "no_offsets": header({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "text_offsets": header({"a": entry(begin="0", end="4")}, bytes(4)),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_hostile_safetensors(tmp_path, name):
    path = tmp_path / "evil.safetensors"
    path.write_bytes(SAFETENSORS[name])
    with pytest.raises(ModelFormatError) as error:
        convert(path, format="weights", arch="lenet")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_dictionaries(lenet, tmp_path, legacy):
    whole = tmp_path / "whole.pth"
    torch.save(lenet.state_dict(), whole, _use_new_zipfile_serialization=not legacy)
    data = whole.read_bytes()
    path = tmp_path / "short.pth"
    for length in (0, 3, 20, 200, len(data) // 2, len(data) - 10):
        path.write_bytes(data[:length])
        with pytest.raises(ModelFormatError):
            from_weights(path, "lenet")
