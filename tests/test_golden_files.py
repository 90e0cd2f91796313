"""Golden files load for ever, and other HDF5 tools see in them what striate sees."""

import hashlib
import json
import re
import shutil
import subprocess

import fuzz_model_file
import golden_files
import h5py
import numpy as np
import pytest
import striate
from striate import Graph, Model, ops
from striate.hdf5_reader import read_hdf5
from striate.tools import convert_model
from striate.tools.replay import Reference, replay

LISTED = json.loads(golden_files.LIST.read_text())
GOLDEN = sorted(golden_files.FOLDER.glob("*.h5"))
WITHOUT_EXAMPLES = {"no_weights"}


def by_name(path):
    return path.stem


def test_every_file_is_there_and_none_has_changed():
    assert {path.stem for path in GOLDEN} == LISTED.keys() == golden_files.MODELS.keys()
    for path in GOLDEN:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest == LISTED[path.stem]["sha256"]
    assert sum(path.stat().st_size for path in GOLDEN) < 300_000


@pytest.mark.parametrize("path", GOLDEN, ids=by_name)
def test_golden_files_compute_what_they_did(path):
    graph = striate.read(path, model_id=LISTED[path.stem]["model_id"])
    assert bool(graph.examples) == (path.stem not in WITHOUT_EXAMPLES)
    if graph.examples:
        assert replay(graph).agrees
    for example in graph.examples:
        feeds = {entry.name: example[entry.name] for entry in graph.inputs}
        for name, array in Reference(graph).run(feeds).items():
            array = array.astype(example[name].dtype)
            np.testing.assert_allclose(array, example[name], rtol=2**-22, atol=1e-30)


@pytest.mark.parametrize("name", golden_files.MODELS)
def test_the_models_are_still_written_so(name, tmp_path):
    """Only a release that changes what is written may change this, never the files."""
    graph, options = golden_files.MODELS[name]()
    options["examples"] = striate.read(golden_files.FOLDER / f"{name}.h5").examples
    model_id = striate.save(graph, tmp_path / "net.h5", **options)
    assert model_id == LISTED[name]["model_id"]


def assert_read_alike(path):
    """Assert that the library finds each dataset of a file where the reader does."""
    data = path.read_bytes()
    found = read_hdf5(memoryview(data), str(path)).datasets
    with h5py.File(path) as file:
        names = []
        file.visit(lambda name: names.append(name))
        datasets = {n: file[n] for n in names if isinstance(file[n], h5py.Dataset)}
        assert datasets.keys() == found.keys()
        for name, dataset in datasets.items():
            assert dataset.shape == found[name].shape
            assert dataset.id.get_offset() == found[name].address
            assert dataset.id.get_storage_size() == found[name].nbytes
            assert dataset.id.get_type().get_size() == found[name].dtype.size
            if found[name].dtype.name not in ("string", "bfloat16"):
                assert dataset.dtype == found[name].dtype.name
    assert fuzz_model_file.disagreement(data, striate.read(data)) == ""


@pytest.mark.parametrize("path", GOLDEN, ids=by_name)
def test_the_library_sees_the_same(path):
    assert_read_alike(path)


@pytest.mark.parametrize(("layers", "each"), [(1, 3000), (1500, 2), (100, 30)])
def test_the_library_sees_the_same_in_files_of_thousands_of_tensors(
    layers, each, tmp_path
):
    graph = Graph("many")
    values = []
    for number in range(layers * each):
        layer, operand = divmod(number, each)
        tensor = f"a_layer_of_some_name_{layer}/operand_{operand}"
        graph.params[tensor] = np.full(1 + number % 3, number, np.float32)
        node = striate.Node(f"n{number}", ops.Constant(), (), {"value": tensor})
        graph.append(node)
        values.append(node.name)
    graph.output(values[-1])
    striate.save(graph, tmp_path / "many.h5")
    assert_read_alike(tmp_path / "many.h5")
    assert len(striate.read(tmp_path / "many.h5").params) == layers * each


def rewritten(source, target):
    """Write a file as other tools do: chunked, compressed, old structures, remarks."""
    with h5py.File(source) as old, h5py.File(target, "w", libver="earliest") as new:
        new.attrs.update({**old.attrs, "remark": "edited"})

        def copied(name):
            found = old[name]
            if not isinstance(found, h5py.Dataset):
                return
            options = {} if found.shape == () else {"chunks": True, "compression": 4}
            created = new.create_dataset(name, data=found[()], **options)
            created.attrs["units"] = "none"

        old.visit(copied)


@pytest.mark.parametrize("path", GOLDEN, ids=by_name)
def test_edited_golden_files_can_be_cleaned(path, tmp_path):
    rewritten(path, tmp_path / "edited.h5")
    with pytest.raises(striate.ModelFormatError):
        striate.read(tmp_path / "edited.h5")
    command = [str(tmp_path / "edited.h5"), str(tmp_path / "clean.h5"), "--json"]
    assert convert_model.main(command) == 0
    found, wanted = striate.read(tmp_path / "clean.h5"), striate.read(path)
    assert found.nodes == wanted.nodes
    assert found.labels == wanted.labels
    for name, array in wanted.params.items():
        assert found.params[name].tobytes() == array.tobytes()
    for example, same in zip(found.examples, wanted.examples, strict=True):
        for name, array in same.items():
            np.testing.assert_array_equal(example[name], array)


def shown(*command):
    return subprocess.run(command, check=True, capture_output=True).stdout.decode()


@pytest.mark.skipif(not shutil.which("h5dump"), reason="h5dump is not installed")
@pytest.mark.parametrize("path", GOLDEN, ids=by_name)
def test_h5dump_shows_true_values(path):
    document = shown("h5dump", "-y", "-d", "/graph", str(path))
    graph = striate.read(path)
    assert f'"name": "{graph.name}"' in document
    header = shown("h5dump", "-A", str(path))
    assert graph.model_id in header
    base = fuzz_model_file.Base(path.read_bytes())
    for name, entry in base.document["tensors"].items():
        if "quantisation" in entry or entry["dtype"] in ("float16", "bool"):
            continue
        place = f"/weights/{name}"
        text = shown("h5dump", "-y", "-m", "%.9g", "-d", place, str(path))
        numbers = re.search(r"DATA \{(.*?)\}", text, re.S).group(1)
        found = np.array([float(n) for n in numbers.replace(",", " ").split()])
        array = graph.params.get(name)
        if array is None:
            with h5py.File(path) as file:
                array = file[place][...]
        np.testing.assert_array_equal(found.astype(array.dtype), array.reshape(-1))


@pytest.mark.skipif(not shutil.which("h5ls"), reason="h5ls is not installed")
@pytest.mark.parametrize("path", GOLDEN, ids=by_name)
def test_h5ls_lists_every_tensor(path):
    listed = shown("h5ls", "-r", str(path))
    base = fuzz_model_file.Base(path.read_bytes())
    for name, found in base.datasets.items():
        shape = ", ".join(map(str, found.shape)) or "SCALAR"
        line = re.escape(f"/{name}") + " +" + re.escape(f"Dataset {{{shape}}}")
        assert re.search(f"^{line}$", listed, re.M)


def test_a_model_of_golden_files_runs_on_every_instruction_set():
    path = golden_files.FOLDER / "quantised.h5"
    graph = striate.read(path)
    (example,) = graph.examples
    for isa in striate.kernels.SUPPORTED:
        with Model(graph, isa=isa) as model:
            found = model(example["image"])
        np.testing.assert_allclose(found, example["fc"], rtol=1e-5, atol=1e-5)
