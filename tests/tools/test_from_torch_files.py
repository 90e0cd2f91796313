"""Programs in ``.pt2`` files, read without PyTorch, and hostile ones."""

import contextlib
import io
import json
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
from striate import Model
from striate.errors import ModelFormatError, StriateError
from striate.tools import convert
from striate.tools.from_torch.archive import read_pt2
from striate.tools.oracles.torch import oracle
from torch import nn


class Net(nn.Module):
    """A bit of everything a file stores: strides, ties, lists, constants, dicts."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(8)
        self.one = nn.Linear(8, 8)
        self.two = nn.Linear(8, 8)
        self.two.weight = self.one.weight
        self.register_buffer("scale", torch.linspace(0.5, 2, 8))

    def forward(self, x):
        y = nn.functional.relu_(self.norm(self.conv(x)))
        a, b = y.chunk(2, 1)
        y = torch.cat([b, a], 1) + self.scale.view(-1, 1, 1)
        y = nn.functional.interpolate(y, scale_factor=1.5, mode="bilinear")
        y = y.view(x.shape[0], 8, -1).mean(-1)
        return {"scores": self.two(torch.relu(self.one(y))), "map": [a * 2, b]}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = Net()
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    return net.eval()


def saved(module, path, open_batch=True):
    shapes = ({0: torch.export.Dim.AUTO},) if open_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module, (torch.zeros(2, 3, 8, 10),), dynamic_shapes=shapes
        )
        torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def path(net, tmp_path_factory):
    return saved(net, tmp_path_factory.mktemp("pt2") / "net.pt2")


def expected(net, x):
    with torch.no_grad():
        result = net(torch.from_numpy(x))
    return {
        "scores": result["scores"].numpy(),
        "map.0": result["map"][0].numpy(),
        "map.1": result["map"][1].numpy(),
    }


@pytest.mark.parametrize("open_batch", [True, False])
def test_file_against_the_module(net, tmp_path, open_batch):
    path = saved(net, tmp_path / "net.pt2", open_batch)
    graph = convert(path, io="source")
    assert graph.inputs[0].shape == ("N", 3, 8, 10)
    assert graph.outputs == ["scores", "map.0", "map.1"]
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 10), np.float32)
    results = Model(graph, threads=1).run({"x": x})
    for name, wanted in expected(net, x).items():
        np.testing.assert_allclose(results[name], wanted, atol=1e-5)
    assert len(graph.provenance["source_sha256"]) == 64
    assert graph.provenance["source_format"].startswith("torch.export 2.")
    kernels = [
        n.params["kernel"] for n in graph.nodes if type(n.op).__name__ == "Dense"
    ]
    assert len(set(kernels)) == 1


def test_file_is_read_without_torch(path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from striate.tools import convert\n"
        f"graph = convert({str(path)!r})\n"
        "assert graph.outputs[0] == 'scores'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("open_batch", [True, False])
def test_oracle_computes_outputs_and_layers(net, tmp_path, open_batch):
    path = saved(net, tmp_path / "net.pt2", open_batch)
    graph = convert(path)
    judge = oracle(path, graph)
    assert judge.version == torch.__version__
    x = np.random.default_rng(1).standard_normal((3, 8, 10, 3), np.float32)
    results = Model(graph, threads=1).run({"x": x})
    for name, wanted in judge.run({"x": x}).items():
        np.testing.assert_allclose(results[name], wanted, atol=1e-5)
    layers = dict(judge.layers({"x": x}))
    assert {"conv", "norm", "one"} <= layers.keys()
    found = Model(graph, threads=1).run({"x": x}, outputs=list(layers))
    for name, wanted in layers.items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-5)


def test_oracle_of_a_module(net):
    graph = convert(net, example=torch.zeros(1, 3, 8, 10))
    x = np.ones((2, 8, 10, 3), np.float32)
    wanted = oracle(net, graph).run({"x": x})
    results = Model(graph, threads=1).run({"x": x})
    for name in graph.outputs:
        np.testing.assert_allclose(results[name], wanted[name], atol=1e-5)


MODEL = "net/models/model.json"
WEIGHTS = "net/data/weights/model_weights_config.json"


def rewritten(path, target, change, compression=zipfile.ZIP_STORED):
    """Write an archive anew with changed members."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    members = change(members) or members
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target


def described(name, change):
    """Return a change of a member that is JSON."""

    def changed(members):
        value = json.loads(members[name])
        change(value)
        members[name] = json.dumps(value).encode()

    return changed


def first_weight(config, **changes):
    entry = next(iter(config["config"].values()))
    entry.update({k: v for k, v in changes.items() if k in entry})
    entry["tensor_meta"].update(
        {k: v for k, v in changes.items() if k in entry["tensor_meta"]}
    )


HOSTILE = {
    "older": described(MODEL, lambda m: m["schema_version"].update(major=7)),
    "no_description": lambda members: members.pop(MODEL) and None,
    "broken_description": lambda members: members.update({MODEL: b"{"}),
    "other_description": lambda members: members.update({MODEL: b"[]"}),
    "deep_description": lambda members: members.update({MODEL: b"[" * 200_000}),
    "climbing": lambda members: {**members, "net/../../evil": b"x"},
    "absolute": lambda members: {**members, "/tmp/evil": b"x"},
    "two_folders": lambda members: {**members, "other/byteorder": b"big"},
    "big_endian": lambda members: members.update({"net/byteorder": b"big"}),
    "missing_weight": lambda members: members.pop("net/data/weights/weight_0") and None,
    "short_weight": lambda members: members.update(
        {"net/data/weights/weight_0": b"1234"}
    ),
    "climbing_weight": described(
        WEIGHTS, lambda c: first_weight(c, path_name="../../models/model.json")
    ),
    "pickled_weight": described(WEIGHTS, lambda c: first_weight(c, use_pickle=True)),
    "huge_shape": described(
        WEIGHTS,
        lambda c: first_weight(c, sizes=[{"as_int": 1 << 40}, {"as_int": 1 << 40}]),
    ),
    "huge_repetition": described(
        WEIGHTS,
        lambda c: first_weight(
            c, sizes=[{"as_int": 1 << 40}] * 4, strides=[{"as_int": 0}] * 4
        ),
    ),
    "huge_offset": described(
        WEIGHTS, lambda c: first_weight(c, storage_offset={"as_int": 1 << 40})
    ),
    "negative_stride": described(
        WEIGHTS, lambda c: first_weight(c, strides=[{"as_int": -1}] * 4)
    ),
    "unknown_value": described(
        MODEL,
        lambda m: m["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(
            arg={"as_tensor": {"name": "nowhere"}}
        ),
    ),
    "unknown_operator": described(
        MODEL,
        lambda m: m["graph_module"]["graph"]["nodes"][0].update(
            target="torch.ops.aten.system.default"
        ),
    ),
    "endless_size": described(
        MODEL,
        lambda m: m["graph_module"]["graph"]["nodes"][-1]["inputs"].append(
            {"name": "size", "arg": {"as_ints": [1 << 60]}, "kind": 1}
        ),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(path, tmp_path, name):
    target = rewritten(path, tmp_path / "net.pt2", HOSTILE[name])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(StriateError) as error:
        convert(target, format="torch")
    assert str(target) in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


def test_compressed_archives_are_refused(path, tmp_path):
    target = rewritten(
        path,
        tmp_path / "bomb.pt2",
        lambda members: {**members, "net/data/weights/weight_0": bytes(1 << 26)},
        zipfile.ZIP_DEFLATED,
    )
    assert target.stat().st_size < 1 << 20
    with pytest.raises(ModelFormatError, match="compressed"):
        convert(target)


def test_truncated_files_are_refused(path, tmp_path):
    data = path.read_bytes()
    target = tmp_path / "short.pt2"
    for length in (0, 3, 100, len(data) // 2, len(data) - 30):
        target.write_bytes(data[:length])
        with pytest.raises(ModelFormatError):
            convert(target, format="torch")


def test_sample_inputs_are_never_opened(path, tmp_path):
    """They are a pickle; whatever they are, the program is read."""
    name = "net/data/sample_inputs/model.pt"
    with zipfile.ZipFile(path) as archive:
        assert name in archive.namelist()
    target = rewritten(
        path, tmp_path / "net.pt2", lambda m: m.update({name: b"cos\nsystem\n"})
    )
    assert read_pt2(target).inputs == {"x": "x"}


def test_members_that_claim_more_than_there_is(path, tmp_path):
    data = bytearray(path.read_bytes())
    place = data.rfind(b"PK\x01\x02")
    data[place + 20 : place + 28] = (1 << 31).to_bytes(4, "little") * 2
    target = tmp_path / "net.pt2"
    target.write_bytes(data)
    with pytest.raises(ModelFormatError):
        convert(target, format="torch")


def test_bytes_at_random_places(path, tmp_path):
    data = path.read_bytes()
    random = np.random.default_rng(5)
    target = tmp_path / "net.pt2"
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), 8):
            damaged[place] = random.integers(256)
        target.write_bytes(damaged)
        with contextlib.suppress(StriateError):
            convert(target, format="torch")


def test_archive_in_memory_only(path):
    """The reader takes paths; a program in memory is for PyTorch to load."""
    with pytest.raises(StriateError):
        convert(io.BytesIO(path.read_bytes()), format="torch")
