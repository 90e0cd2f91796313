import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import hostile
import numpy as np
import pytest
from striate import (
    DTypeError,
    Graph,
    GraphError,
    Model,
    ModelFormatError,
    Node,
    Postprocess,
    Preprocess,
    Resize,
    ops,
)
from striate.hdf5_reader import NUMBERS
from striate.kernels._mapping import MappedFile
from striate.model_file import read, save

DTYPES = ["float32", "float16", "int8", "uint8", "int32", "int64", "bool"]


def net():
    """Return a graph with something of everything."""
    rng = np.random.default_rng(0)
    graph = Graph("Größe")
    x = graph.input("image", ("N", 12, 12, 3))
    graph.input("scale", ("N", 4))
    kernel = rng.standard_normal((3, 3, 3, 4), dtype=np.float32)
    conv = ops.Conv(stride=(2,), padding=((1, 0), (0, 1)))
    bias = rng.standard_normal(4, dtype=np.float32)
    x = graph.add(conv, "image", name="conv", kernel=kernel, bias=bias)
    y = graph.add(conv, "image", name="again", kernel="conv/kernel")
    graph.add(ops.Split(sizes=(1, 3)), y, name="cut", outputs=("left", "right"))
    x = graph.add(ops.GlobalAveragePool(), graph.add(ops.Relu(), x))
    graph.output(graph.add(ops.Mul(), x, "scale", name="scores"), "right")
    graph.labels = ("cat", "dog", "", "Bär")
    graph.preprocess = Preprocess(resize=Resize("exact", (12, 12)), scale=0.1)
    graph.postprocess = Postprocess("scores", top=3)
    graph.provenance = {"licence": "Apache-2.0"}
    graph.metadata = {"numbers": [1, 2.5, None, True]}
    return graph


def holding(**values):
    """Return a graph whose weights are the given arrays."""
    graph = Graph("weights")
    for name, value in values.items():
        graph.output(graph.add(ops.Constant(), name=name, value=value))
    return graph


def assert_same(found, wanted):
    assert found.name == wanted.name
    assert found.inputs == wanted.inputs
    assert found.nodes == wanted.nodes
    assert found.outputs == wanted.outputs
    assert list(found.params) == list(wanted.params)
    for name, array in wanted.params.items():
        assert found.params[name].dtype == array.dtype
        assert found.params[name].shape == array.shape
        assert found.params[name].tobytes() == array.tobytes()
    assert found.labels == wanted.labels
    assert found.preprocess == wanted.preprocess
    assert found.postprocess == wanted.postprocess
    assert found.provenance == wanted.provenance
    assert found.metadata == wanted.metadata


def refusal(source, **options):
    with pytest.raises(ModelFormatError) as caught:
        read(source, **options)
    return caught.value


def flipped_weight(path):
    """Return the bytes of a file with one bit of one weight changed."""
    data = path.read_bytes()
    with h5py.File(path) as file:
        return hostile.flipped(data, file["weights/conv/kernel"].id.get_offset())


def test_what_is_saved_is_read(tmp_path):
    path = tmp_path / "net.h5"
    save(net(), path)
    assert_same(read(path), net())
    assert_same(read(str(path), copy=True), net())
    assert_same(read(path.read_bytes(), verify=False), net())


def test_a_network_that_was_read_computes_the_same(tmp_path):
    save(net(), tmp_path / "net.h5")
    rng = np.random.default_rng(1)
    feeds = {"image": rng.random((2, 12, 12, 3)), "scale": rng.random((2, 4))}
    wanted = net().reference(feeds)
    found = read(tmp_path / "net.h5").reference(feeds)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


def test_equal_graphs_give_equal_files_at_any_time(tmp_path):
    first = save(net(), tmp_path / "first.h5")
    time.sleep(1.1)  # HDF5 counts time in seconds
    second = save(read(tmp_path / "first.h5"), tmp_path / "second.h5")
    assert first == second
    content = (tmp_path / "first.h5").read_bytes()
    assert content == (tmp_path / "second.h5").read_bytes()


def test_the_id_names_the_model(tmp_path):
    path = tmp_path / "net.h5"
    identity = save(net(), path)
    with h5py.File(path) as file:
        assert file.attrs["model_id"] == identity.encode()
        assert hashlib.sha256(file["graph"][()]).hexdigest() == identity
    assert_same(read(path, model_id=identity), net())
    assert refusal(path, model_id="0" * 64).code == "checksum"
    other = net()
    other.params["conv/bias"] = other.params["conv/bias"] + 1
    assert save(other, tmp_path / "other.h5") != identity


def test_weights_are_read_only_views_of_the_mapped_file(tmp_path):
    save(net(), tmp_path / "net.h5")
    for copy, owner in ((False, MappedFile), (True, np.ndarray)):
        for array in read(tmp_path / "net.h5", copy=copy).params.values():
            assert not array.flags.writeable
            assert array.ctypes.data % 64 == 0
            base = array
            while isinstance(base, np.ndarray):
                base = base.base
            assert isinstance(base.obj, owner)
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 2), (2,) * 8])
def test_keeps_every_type_and_rank(dtype, shape, tmp_path):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    graph = holding(a=array, b=array[..., ::-1] if shape else array)
    save(graph, tmp_path / "net.h5")
    found = read(tmp_path / "net.h5")
    assert_same(found, graph)
    with h5py.File(tmp_path / "net.h5") as file:
        stored = "uint8" if dtype == "bool" else dtype
        assert file["weights/a/value"].dtype == stored


def test_indices_and_conditions_mean_the_same_when_read(tmp_path):
    graph = Graph("picked")
    x = graph.input("x", ("N", 4))
    rows = graph.input("rows", ("N",), "int64")
    picked = graph.add(ops.Gather(1), x, indices=np.int64([3, -4, 1]))
    mask = np.array([True, False, True])
    chosen = graph.add(ops.Where(), picked, condition=mask, y=np.float32(-1))
    places = graph.add(ops.Add(), rows, y=np.int64([-(2**62)]))
    graph.output(chosen, places)
    save(graph, tmp_path / "net.h5")
    found = read(tmp_path / "net.h5")
    assert_same(found, graph)
    feeds = {"x": np.float32([[1, 2, 3, 4]]), "rows": np.int64([2**62 + 7])}
    for each in (found.reference(feeds), Model(found).run(feeds)):
        assert each[chosen].tolist() == [[4, -1, 2]]
        assert each[places].tolist() == [7]


def test_truth_values_are_0_or_1(tmp_path):
    graph = holding(a=np.array([False, True]))
    save(graph, tmp_path / "net.h5")
    content = bytearray((tmp_path / "net.h5").read_bytes())
    content[-1] = 2
    error = refusal(bytes(content), verify=False)
    assert error.code == "tensors"
    assert "a/value is bool and holds other bytes" in str(error)


def test_keeps_every_bit_of_odd_floats(tmp_path):
    bits = np.array([0x7FC00001, 0xFF800000, 0x80000000, 1, 0x7F7FFFFF], np.uint32)
    graph = holding(a=bits.view(np.float32))
    save(graph, tmp_path / "net.h5")
    assert read(tmp_path / "net.h5").params["a/value"].tobytes() == bits.tobytes()


def test_stores_little_endian(tmp_path):
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    identity = save(holding(a=array), tmp_path / "little.h5")
    graph = holding(a=array)
    graph.params["a/value"] = array.astype(">i4")
    assert save(graph, tmp_path / "big.h5") == identity


@pytest.mark.parametrize(
    "dtype", ["float64", "uint64", "int16", "complex64", "S4", "O"]
)
def test_refuses_other_types(dtype, tmp_path):
    graph = holding(a=np.zeros(2, np.float32))
    graph.params["a/value"] = np.zeros(2, dtype)
    with pytest.raises(DTypeError, match=r"a/value.*float32.*int32"):
        save(graph, tmp_path / "net.h5")
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_takes_half_the_room_and_loses_nothing(tmp_path):
    exact = (np.arange(65536, dtype=np.uint32) << 16).view(np.float32)
    graph = holding(a=exact, b=np.float32([1.5]))
    full = tmp_path / "full.h5"
    half = tmp_path / "half.h5"
    save(graph, full)
    save(graph, half, bfloat16=["a/value"])
    assert full.stat().st_size - half.stat().st_size == exact.nbytes // 2
    assert_same(read(half), graph)
    assert not read(half).params["a/value"].flags.writeable
    with h5py.File(half) as file:
        told = file["weights/a/value"]
        np.testing.assert_array_equal(told[256:32512], exact[256:32512])
        assert (
            json.loads(file["graph"][()])["tensors"]["a/value"]["dtype"] == "bfloat16"
        )


def test_bfloat16_refuses_to_round(tmp_path):
    graph = holding(a=np.float32([1, 1.001]), b=np.int32([1]))
    with pytest.raises(DTypeError, match="a/value"):
        save(graph, tmp_path / "net.h5", bfloat16=["a/value"])
    with pytest.raises(DTypeError, match=r"b/value.*int32"):
        save(graph, tmp_path / "net.h5", bfloat16=["b/value"])
    with pytest.raises(GraphError, match="c/value"):
        save(graph, tmp_path / "net.h5", bfloat16=["c/value"])


def test_shared_weights_are_stored_once_and_unused_ones_not(tmp_path):
    graph = net()
    graph.params["spare/kernel"] = np.zeros((100, 100), np.float32)
    save(graph, tmp_path / "net.h5")
    found = read(tmp_path / "net.h5")
    assert list(found.params) == ["conv/kernel", "conv/bias"]
    assert found.nodes[1].params == {"kernel": "conv/kernel"}
    with h5py.File(tmp_path / "net.h5") as file:
        assert list(file["weights"]) == ["conv"]


@pytest.mark.parametrize(
    "name", ["a", "a/b/c", "../b", "a/", "a b/c", "a/" + "b" * 129]
)
def test_refuses_weights_with_odd_names(name, tmp_path):
    graph = holding(a=np.zeros(2, np.float32))
    graph.params[name] = graph.params.pop("a/value")
    graph.nodes[0].params["value"] = name
    with pytest.raises(GraphError, match="layer/operand"):
        save(graph, tmp_path / "net.h5")


def test_refuses_empty_weights(tmp_path):
    graph = holding(a=np.zeros(2, np.float32))
    graph.params["a/value"] = np.zeros((2, 0), np.float32)
    with pytest.raises(GraphError, match=r"a/value.*\(2, 0\)"):
        save(graph, tmp_path / "net.h5")


def test_refuses_graphs_that_passes_have_rewritten(tmp_path):
    graph = net()
    node = graph.nodes[0]
    graph.nodes[0] = Node(
        node.name, node.op, node.inputs, node.params, activation=ops.Relu()
    )
    with pytest.raises(GraphError, match="conv"):
        save(graph, tmp_path / "net.h5")


@pytest.mark.parametrize("label", ["a\nb", "\x1b[31m", "nul\0", 3, None])
def test_refuses_labels_that_are_not_printable_text(label, tmp_path):
    graph = net()
    graph.labels = ("a", label)
    with pytest.raises(GraphError, match="label"):
        save(graph, tmp_path / "net.h5")


def test_what_breaks_a_limit_is_not_written(tmp_path):
    graph = net()
    graph.labels = ("x" * 1024,)
    save(graph, tmp_path / "net.h5")
    assert read(tmp_path / "net.h5").labels == graph.labels
    before = (tmp_path / "net.h5").read_bytes()
    graph.labels = ("x" * 1025,)
    with pytest.raises(ModelFormatError) as caught:
        save(graph, tmp_path / "net.h5")
    assert caught.value.code == "limit"
    assert caught.value.path == str(tmp_path / "net.h5")
    graph = net()
    graph.nodes[0] = Node("conv", ops.Conv(groups=3), ("image",), graph.nodes[0].params)
    with pytest.raises(ModelFormatError) as caught:
        save(graph, tmp_path / "net.h5")
    assert caught.value.code == "graph"
    assert (tmp_path / "net.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["net.h5"]


def test_bounds_the_text_before_it_is_read(tmp_path):
    path = hostile.write(tmp_path / "net.h5", b" " * ((16 << 20) + 1))
    assert refusal(path).code == "limit"


def test_networks_without_weights_or_layers(tmp_path):
    graph = Graph("same")
    graph.output(graph.input("x", ("N", 3)))
    save(graph, tmp_path / "net.h5")
    assert_same(read(tmp_path / "net.h5"), graph)
    graph.output(graph.add(ops.Relu(), "x"))
    save(graph, tmp_path / "net.h5")
    assert_same(read(tmp_path / "net.h5"), graph)
    graph.outputs.clear()
    with pytest.raises(ModelFormatError, match="outputs"):
        save(graph, tmp_path / "net.h5")


def test_verification_is_the_default(tmp_path):
    save(net(), tmp_path / "net.h5")
    data = flipped_weight(tmp_path / "net.h5")
    assert refusal(data).code == "checksum"
    changed = read(data, verify=False)
    assert (changed.params["conv/kernel"] != net().params["conv/kernel"]).sum() == 1


def test_the_library_reads_it(tmp_path):
    save(net(), tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5") as file:
        assert list(file) == ["graph", "labels", "weights"]
        assert list(file["weights/conv"]) == ["kernel", "bias"]
        assert file.attrs["format"] == b"striate"
        assert file.attrs["format_version"].tolist() == [1, 0]
        assert file.attrs["producer"].startswith(b"striate ")
        assert json.loads(file["graph"][()])["name"] == "Größe"
        assert [label.decode() for label in file["labels"]] == list(net().labels)
        for name, array in net().params.items():
            np.testing.assert_array_equal(file[f"weights/{name}"], array)


def test_reading_does_not_import_the_library(tmp_path):
    save(net(), tmp_path / "net.h5")
    program = (
        "import sys\n"
        "from striate.model_file import read\n"
        "read(sys.argv[1])\n"
        "assert 'h5py' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "net.h5")]
    subprocess.run(command, check=True)


def test_what_is_not_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("none", "fifo", "loop", "", "nul\0", "x" * 300):
        error = refusal(tmp_path / name)
        assert error.code == "not_a_file"
        assert str(error).count(str(tmp_path)) == 1
        assert error.path == str(tmp_path / name)
    with pytest.raises(TypeError):
        read(3)


def test_links_to_files_are_followed(tmp_path):
    save(net(), tmp_path / "net.h5")
    (tmp_path / "link.h5").symlink_to("net.h5")
    assert_same(read(tmp_path / "link.h5"), net())
    save(holding(a=np.zeros(2, np.float32)), tmp_path / "link.h5")
    assert (tmp_path / "link.h5").is_symlink()
    assert read(tmp_path / "net.h5").name == "weights"


def test_bounds_the_memory_of_a_run(tmp_path):
    graph = Graph("peak")
    x = graph.input("x", ("N", 16, 16, 4))
    a = graph.add(ops.Relu(), x)
    b = graph.add(ops.Relu(), a)
    c = graph.add(ops.Relu(), b)
    graph.add(ops.Relu(), c)
    graph.output(graph.add(ops.Add(), c, a))
    save(graph, tmp_path / "net.h5")
    peak = 3 * 16 * 16 * 4 * 4
    assert read(tmp_path / "net.h5", max_activation_bytes=peak).name == "peak"
    error = refusal(tmp_path / "net.h5", max_activation_bytes=peak - 1)
    assert error.code == "budget"
    assert str(peak) in str(error)


def test_saving_over_a_mapped_file_leaves_its_readers_alone(tmp_path):
    save(net(), tmp_path / "net.h5")
    old = read(tmp_path / "net.h5")
    save(holding(a=np.zeros(20_000, np.float32)), tmp_path / "net.h5")
    assert_same(old, net())
    assert read(tmp_path / "net.h5").name == "weights"


def test_what_cannot_be_written_is_said_and_changes_nothing(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for name in ("fifo", "folder", "none/net.h5", "file/net.h5", "nul\0", "x" * 300):
        with pytest.raises(ModelFormatError) as caught:
            save(net(), tmp_path / name)
        assert caught.value.code == "unwritable"
        assert caught.value.path == str(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fifo", "file", "folder"]
    assert (tmp_path / "fifo").is_fifo()


def run(program, *arguments):
    """Run a program in a process of its own and return what it prints."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    result = subprocess.run(command, check=True, capture_output=True, timeout=100)
    return result.stdout.decode()


def test_a_full_disk_leaves_the_old_file(tmp_path):
    save(net(), tmp_path / "net.h5")
    program = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from striate import Graph, ModelFormatError, ops\n"
        "from striate.model_file import save\n"
        "graph = Graph()\n"
        "kernel = np.zeros((1, 100_000), np.float32)\n"
        "x = graph.add(ops.Dense(), graph.input('x', ('N', 1)), kernel=kernel)\n"
        "graph.output(x)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    save(graph, sys.argv[1])\n"
        "except ModelFormatError as error:\n"
        "    print(error.code)\n"
    )
    assert run(program, tmp_path / "net.h5") == "unwritable\n"
    assert_same(read(tmp_path / "net.h5"), net())
    assert [path.name for path in tmp_path.iterdir()] == ["net.h5"]


def test_leftovers_of_dead_writers_are_removed_and_of_living_ones_kept(tmp_path):
    dead = tmp_path / ".net.h5.0123456789abcdef.tmp"
    alive = tmp_path / ".net.h5.fedcba9876543210.tmp"
    others = [
        tmp_path / name
        for name in (".other.h5.0123456789abcdef.tmp", ".net.h5.tmp", "net.h5.bak")
    ]
    for path in (dead, alive, *others):
        path.write_bytes(b"half a model")
    with alive.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        save(net(), tmp_path / "net.h5")
        assert not dead.exists()
        assert alive.exists()
    save(net(), tmp_path / "net.h5")
    wanted = {"net.h5", *(path.name for path in others)}
    assert {path.name for path in tmp_path.iterdir()} == wanted


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    graphs = [holding(a=np.full(5000, value, np.float32)) for value in range(4)]
    errors = []

    def write(graph):
        try:
            for _ in range(10):
                save(graph, tmp_path / "net.h5")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(graph,)) for graph in graphs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = read(tmp_path / "net.h5").params["a/value"]
    assert len(set(found.tolist())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["net.h5"]


KILLED = """
import os, random, signal, sys, time
import h5py, numpy as np
from striate import Graph, ops
from striate.model_file import read, save

def graph(value):
    graph = Graph()
    kernel = np.full((1000, 1000), value, np.float32)
    graph.output(
        graph.add(ops.Dense(), graph.input("x", ("N", 1000)), name="fc", kernel=kernel)
    )
    return graph

path, graphs = sys.argv[1], [graph(0), graph(1)]
identities = {save(g, path) for g in graphs}
generator = random.Random(0)
for _ in range(50):
    child = os.fork()
    if child == 0:
        while True:
            for g in graphs:
                save(g, path)
    time.sleep(generator.uniform(0.002, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for identity in identities:
        try:
            read(path, model_id=identity)
            break
        except Exception as error:
            assert error.code == "checksum", error
    else:
        sys.exit("neither")
    print(len(os.listdir(os.path.dirname(path))))
"""


def test_killed_writers_leave_a_whole_file(tmp_path):
    """Each new writer also removes what the one before left behind."""
    counts = [int(line) for line in run(KILLED, tmp_path / "net.h5").split()]
    assert len(counts) == 50
    assert set(counts) <= {1, 2}
    save(net(), tmp_path / "net.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["net.h5"]


DOCUMENT = (Path(__file__).parent.parent / "docs" / "format.md").read_text()


def test_the_document_shows_the_smallest_model(tmp_path, monkeypatch):
    monkeypatch.setattr("striate.__version__", "0.1.0")
    graph = Graph("f")
    x = graph.input("x", ("N", 1))
    kernel = np.array([[2]], np.float32)
    graph.output(graph.add(ops.Dense(), x, name="y", kernel=kernel))
    save(graph, tmp_path / "f.h5")
    shown = row = b""
    for line in re.findall(r"^[0-9a-f]{8}.*$", DOCUMENT, re.M):
        while len(shown) < int(line[:8], 16):
            shown += row  # hexdump writes * for lines like the one before
        row = bytes.fromhex(line[8:59].strip())
        shown += row
    assert shown == (tmp_path / "f.h5").read_bytes()


def test_the_document_lists_the_data_types():
    rows = re.findall(r"^\| (\w+) \| `([0-9a-f ]+)` \|$", DOCUMENT, re.M)
    told = {bytes.fromhex(message): name for name, message in rows}
    assert told == {message: kind.name for message, kind in NUMBERS.items()}
