"""Examples in a model file: what is stored, what is refused, how they are replayed."""

import hashlib
import json
from pathlib import Path

import fuzz_model_file
import h5py
import numpy as np
import pytest
import striate
from striate import DTypeError, Graph, GraphError, Model, ModelFormatError, ops
from striate.tools.inspect_model import main

MODELS = Path(__file__).parent.parent / "models"


def net():
    """Return a small network of two inputs and two outputs."""
    graph = Graph("small")
    x = graph.input("x", ("N", 4))
    y = graph.input("y", ("N", 3))
    kernel = np.random.default_rng(0).standard_normal((4, 3), dtype=np.float32)
    x = graph.add(ops.Dense(), x, name="fc", kernel=kernel)
    x = graph.add(ops.Tanh(), x, name="tanh")
    x = graph.add(ops.Add(), x, y, name="sum")
    graph.output(graph.add(ops.ArgMax(axis=-1, keepdims=False), x, name="best"), x)
    return graph


def feeds(count=2):
    random = np.random.default_rng(count)
    return {
        "x": random.standard_normal((count, 4), dtype=np.float32),
        "y": random.standard_normal((count, 3), dtype=np.float32),
    }


@pytest.fixture
def path(tmp_path):
    striate.save(net(), tmp_path / "net.h5", examples=[feeds(2), feeds(1)])
    return tmp_path / "net.h5"


def test_inputs_and_outputs_are_stored_and_read(path):
    graph = striate.read(path)
    assert len(graph.examples) == 2
    for example, given in zip(graph.examples, (feeds(2), feeds(1)), strict=True):
        assert list(example) == ["x", "y", "best", "sum"]
        for name, array in given.items():
            assert example[name].tobytes() == array.tobytes()
        precise = {name: array.astype(np.float64) for name, array in given.items()}
        wanted = net().reference(precise)
        assert example["sum"].dtype == np.float32
        np.testing.assert_array_equal(example["sum"], wanted["sum"].astype(np.float32))
        np.testing.assert_array_equal(example["best"], wanted["best"])
        assert not example["sum"].flags.writeable
    with h5py.File(path) as file:
        assert list(file["examples"]) == ["0", "1"]
        assert list(file["examples/0"]) == ["x", "y", "best", "sum"]


def test_they_stay_when_a_graph_is_saved_again(path, tmp_path):
    first = path.read_bytes()
    striate.save(striate.read(path), tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == first
    striate.save(striate.read(path), tmp_path / "none.h5", examples=[])
    assert striate.read(tmp_path / "none.h5").examples == []


def test_outputs_may_be_given(tmp_path):
    given = {**feeds(), "best": [0, 1], "sum": np.ones((2, 3))}
    striate.save(net(), tmp_path / "net.h5", examples=[given])
    (example,) = striate.read(tmp_path / "net.h5").examples
    assert example["best"].dtype == np.int64
    assert example["sum"].tolist() == np.ones((2, 3)).tolist()


@pytest.mark.parametrize(
    "example",
    [
        {"x": np.zeros((1, 4))},
        {**feeds(), "z": np.zeros(1)},
        {**feeds(), "tanh": np.zeros((2, 3))},
        {"x": np.zeros((1, 5)), "y": np.zeros((1, 3))},
        {"x": np.zeros((1, 4)), "y": np.zeros((2, 3))},
        {**feeds(), "sum": np.zeros((2, 4))},
        {"x": np.zeros((0, 4)), "y": np.zeros((0, 3))},
    ],
    ids=str,
)
def test_what_is_no_example_is_not_written(example, tmp_path):
    with pytest.raises((GraphError, striate.ShapeError)):
        striate.save(net(), tmp_path / "net.h5", examples=[example])
    assert list(tmp_path.iterdir()) == []


def test_there_are_sixteen_at_most(tmp_path):
    striate.save(net(), tmp_path / "net.h5", examples=[feeds(1)] * 16)
    with pytest.raises(GraphError, match="17 examples"):
        striate.save(net(), tmp_path / "net.h5", examples=[feeds(1)] * 17)


def test_text_is_no_input(tmp_path):
    with pytest.raises((DTypeError, ValueError)):
        striate.save(net(), tmp_path / "n.h5", examples=[{**feeds(), "x": "picture"}])


def refusal(data, **options):
    with pytest.raises(ModelFormatError) as caught:
        striate.read(data, **options)
    return caught.value


def edited(path, change):
    """Return the file with a changed text."""
    base = fuzz_model_file.Base(path.read_bytes())
    document = json.loads(json.dumps(base.document))
    change(document["examples"])
    text = json.dumps(document, separators=(",", ":")).encode()
    return fuzz_model_file.with_text(base, text)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda e: e.clear(), "limit"),
        (lambda e: e.pop(), "tensors"),
        (lambda e: e[0].pop("x"), "graph"),
        (lambda e: e[0].update(tanh=e[0].pop("sum")), "graph"),
        (lambda e: e[0]["x"].update(shape=[4, 2]), "tensors"),
        (lambda e: e[0]["x"].update(dtype="int32"), "tensors"),
        (lambda e: e[0]["x"].update(dtype="bfloat16"), "graph"),
        (lambda e: e[0]["x"].update(quantisation={"scale": "fc/kernel"}), "graph"),
        (lambda e: e[0]["x"].update(sha256="0" * 64), "checksum"),
        (lambda e: e[0].update({"../x": e[0]["x"]}), "graph"),
        (lambda e: e.reverse(), "tensors"),
    ],
)
def test_entries_that_make_no_sense_are_refused(path, change, code):
    assert refusal(edited(path, change)).code == code


def test_shapes_must_fit_each_other(tmp_path):
    """Each tensor is as its entry says, and yet they are not of one run."""
    graph = Graph("two sizes")
    x, y = graph.input("x", ("N", 3)), graph.input("y", ("M", 3))
    graph.output(graph.add(ops.Add(), x, y, name="sum"))
    example = {"x": np.zeros((2, 3)), "y": np.zeros((1, 3))}
    striate.save(graph, tmp_path / "net.h5", examples=[example])
    base = fuzz_model_file.Base((tmp_path / "net.h5").read_bytes())
    assert striate.read(base.data).examples
    text = base.bytes_of("graph").replace(b'["M", 3]', b'["N", 3]')
    error = refusal(fuzz_model_file.with_text(base, text))
    assert error.code == "graph"
    assert "N is 1 here and 2 in another input" in str(error)


def test_a_flipped_bit_is_noticed(path):
    base = fuzz_model_file.Base(path.read_bytes())
    place = base.datasets["examples/0/sum"].address
    data = bytearray(base.data)
    data[place] ^= 1
    assert refusal(bytes(data)).code == "checksum"
    assert striate.read(bytes(data), verify=False).examples


def test_the_memory_that_examples_need_is_bounded(tmp_path):
    graph = Graph("wide")
    x = graph.input("x", ("N", 8, 8, 1))
    kernel = np.ones((1, 1, 1, 64), np.float32)
    x = graph.add(ops.Conv(), x, kernel=kernel)
    graph.output(graph.add(ops.GlobalAveragePool(), x, name="mean"))
    example = {"x": np.zeros((3, 8, 8, 1), np.float32)}
    striate.save(graph, tmp_path / "net.h5", examples=[example])
    need = 3 * 4 * (8 * 8 * (1 + 64))
    assert striate.read(tmp_path / "net.h5", max_activation_bytes=need).examples
    error = refusal(tmp_path / "net.h5", max_activation_bytes=need - 1)
    assert error.code == "budget"


def check(capsys, *arguments):
    """Run the command; return its status and what it prints."""
    status = main([*map(str, arguments), "--check"])
    out, err = capsys.readouterr()
    assert err == "" or status == 2
    return status, out or err


def test_replaying_them_on_this_machine(path, capsys):
    status, out = check(capsys, path)
    assert status == 0
    assert "as the file says" in out
    status, out = check(capsys, path, "--json")
    found = json.loads(out)
    assert (status, found["agrees"], found["examples"]) == (0, True, 2)
    assert found["first_diverging"] is None
    assert found["outputs"].keys() == {"best", "sum"}
    assert found["outputs"]["sum"]["relative"] < 1e-6


def test_digits_comes_with_examples(capsys):
    status, _ = check(capsys, MODELS / "digits.h5")
    assert status == 0


def test_the_first_layer_that_computes_otherwise_is_named(path, capsys, monkeypatch):
    """Here the dense layer's weights are wrong where kernels read them."""
    right = ops.Dense.lower

    def wrong(self, low, out, x, kernel, *rest, **options):
        return right(self, low, out, x, kernel * np.float32(1.01), *rest, **options)

    monkeypatch.setattr(ops.Dense, "lower", wrong)
    status, out = check(capsys, path)
    assert status == 1
    assert "not as the file says" in out
    assert "fc (Dense)" in out
    status, out = check(capsys, path, "--json")
    found = json.loads(out)
    assert status == 1
    assert found["first_diverging"] == {"layer": "fc", "op": "Dense"}
    assert found["outputs"]["sum"]["relative"] > 1e-3


def test_outputs_that_were_never_so_are_nobodys_fault(tmp_path, capsys):
    given = {**feeds(), "best": [0, 0], "sum": np.ones((2, 3))}
    striate.save(net(), tmp_path / "net.h5", examples=[given])
    status, out = check(capsys, tmp_path / "net.h5")
    assert status == 1
    assert "no layer by itself" in out


def test_a_file_without_examples_cannot_be_checked(tmp_path, capsys):
    striate.save(net(), tmp_path / "net.h5")
    status, out = check(capsys, tmp_path / "net.h5")
    assert status == 2
    assert "holds no examples" in out


def test_an_output_of_unknown_size(tmp_path, capsys):
    graph = Graph("places")
    graph.output(graph.add(ops.NonZero(), graph.input("x", ("N", 4)), name="where"))
    striate.save(graph, tmp_path / "n.h5", examples=[{"x": [[0, 1, 0, 2]]}])
    (example,) = striate.read(tmp_path / "n.h5").examples
    assert example["where"].tolist() == [[0, 0], [1, 3]]
    with Model(striate.read(tmp_path / "n.h5")) as model:
        assert model(example["x"]).tolist() == [[0, 0], [1, 3]]
    assert check(capsys, tmp_path / "n.h5")[0] == 0


def test_the_id_covers_them(tmp_path):
    plain = striate.save(net(), tmp_path / "net.h5")
    with_examples = striate.save(net(), tmp_path / "net.h5", examples=[feeds()])
    assert plain != with_examples
    entry = json.loads(h5py.File(tmp_path / "net.h5")["graph"][()])["examples"][0]["x"]
    assert entry["sha256"] == hashlib.sha256(feeds()["x"]).hexdigest()
