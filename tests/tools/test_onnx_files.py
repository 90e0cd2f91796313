"""ONNX files as they come: how they are read, named, left open and refused."""

import contextlib
import hashlib
import sys

import numpy as np
import onnx
import pytest
import striate
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from onnx_models import (
    assert_close,
    check_model,
    evaluate,
    kinds,
    node,
    onnx_model,
    session,
    weights,
)
from striate.errors import (
    MissingExtraError,
    ModelFormatError,
    SettingError,
    UnsupportedModelError,
)
from striate.tools import convert

N = "batch"


def ints(*numbers):
    return np.array(numbers, np.int64)


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves a model and returns its path."""

    def save(model, name="net.onnx"):
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return save


def conv_model(shape=(N, 3, 6, 5), **changes):
    nodes = [node("Conv", ["x", "w"], ["p"]), node("Relu", ["p"], ["y"])]
    settings = {"constants": {"w": weights(4, 3, 3, 3)}, **changes}
    return onnx_model(nodes, {"x": shape}, **settings)


def test_provenance(saved):
    path = saved(conv_model())
    graph = convert(path)
    assert graph.provenance == {
        "name": "net",
        "source_framework": "onnx",
        "source_format": "IR 10, opset 17",
        "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "converter": f"striate {striate.__version__}",
    }


def test_layers_keep_the_names_of_their_nodes(saved):
    model = conv_model()
    model.graph.node[0].name = "/features/features.0/Conv"
    graph = convert(saved(model))
    assert [each.name for each in graph.nodes] == ["features.0.Conv", "y"]
    assert list(graph.params) == ["features.0.Conv/kernel"]


def test_nodes_without_names_get_their_operator_and_a_number(saved):
    nodes = [
        node("Relu", ["x"], ["p"], name="-"),
        node("Neg", ["p"], ["q"], name="-"),
        node("Relu", ["q"], ["r"], name="-"),
        node("Neg", ["r"], ["y"], name="-"),
    ]
    graph = convert(saved(onnx_model(nodes, {"x": (N, 3)})))
    assert [each.name for each in graph.nodes] == ["Relu_1", "Neg_1", "Relu_2", "y"]


def test_equal_names_are_told_apart(saved):
    nodes = [
        node("Relu", ["x"], ["p"], name="a/b"),
        node("Neg", ["p"], ["q"], name="a:b"),
        node("Abs", ["q"], ["y"], name="x"),
        node("Exp", ["y"], ["z"], name="a.b"),
    ]
    graph = convert(saved(onnx_model(nodes, {"x": (N, 3)}, ("y", "z"))))
    assert [each.name for each in graph.nodes] == ["a.b", "a.b_2", "y", "z"]


def test_long_names_are_cut(saved):
    nodes = [
        node("Relu", ["x"], ["p"], name=f"/{'deep/' * 60}act"),
        node("Neg", ["p"], ["y"]),
    ]
    graph = convert(saved(onnx_model(nodes, {"x": (N, 3)})))
    assert len(graph.nodes[0].name) <= 128
    assert graph.nodes[0].name.endswith("deep.act")


def test_outputs_keep_their_names_through_identities(tmp_path):
    nodes = [
        node("Relu", ["x"], ["p"]),
        node("Identity", ["p"], ["y"]),
        node("Identity", ["p"], ["z"]),
        node("Identity", ["x"], ["same"]),
    ]
    model = onnx_model(nodes, {"x": (N, 3, 4, 4)}, ("y", "z", "same"))
    graph = check_model(tmp_path, model)
    assert graph.outputs == ["y", "z", "same"]


def test_an_output_that_is_read_again(tmp_path):
    nodes = [node("Relu", ["x"], ["y"]), node("Neg", ["y"], ["z"])]
    graph = check_model(tmp_path, onnx_model(nodes, {"x": (N, 3, 4, 4)}, ("y", "z")))
    assert graph.outputs == ["y", "z"]


def test_initializers_may_be_inputs_as_well(tmp_path):
    model = conv_model()
    model.graph.input.append(
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3])
    )
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    graph = convert(path)
    assert [entry.name for entry in graph.inputs] == ["x"]


def test_equal_weights_are_stored_once(saved):
    w = weights(3, 3, 1, 1)
    nodes = [node("Conv", ["x", "a"], ["p"]), node("Conv", ["p", "b"], ["y"])]
    model = onnx_model(nodes, {"x": (N, 3, 4, 4)}, constants={"a": w, "b": w.copy()})
    graph = convert(saved(model))
    assert list(graph.params) == ["conv0/kernel"]


def test_what_no_output_needs_is_left_out(saved):
    nodes = [node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["unused"])]
    assert kinds(convert(saved(onnx_model(nodes, {"x": (N, 3)})))) == ["Relu"]


def test_the_mask_of_a_dropout_may_go_unread(tmp_path):
    nodes = [node("Dropout", ["x"], ["p", "mask"]), node("Relu", ["p"], ["y"])]
    assert kinds(check_model(tmp_path, onnx_model(nodes, {"x": (N, 3)}))) == ["Relu"]


def test_functions_of_the_model_are_written_out(saved):
    model = onnx_model(
        [node("Twice", ["x"], ["y"], domain="local")], {"x": (N, 3)}, domains=("local",)
    )
    model.functions.append(
        helper.make_function(
            "local",
            "Twice",
            ["a"],
            ["b"],
            [node("Add", ["a", "a"], ["b"])],
            [helper.make_opsetid("", 17)],
        )
    )
    graph = convert(saved(model))
    found = graph.reference({"x": np.float64([[1, 2, 3]])})["y"]
    assert found.tolist() == [[2, 4, 6]]


@pytest.mark.parametrize("name", ["batch", "N", None, "unk__6"])
def test_an_open_batch_is_called_n(saved, name):
    graph = convert(saved(conv_model((name, 3, 6, 5))))
    assert graph.inputs[0].shape == ("N", 6, 5, 3)


def test_a_fixed_batch_of_one_is_opened(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["p"]),
        node("Reshape", ["p", "s"], ["q"]),
        node("Gemm", ["q", "m"], ["y"]),
    ]
    constants = {"w": weights(4, 3, 3, 3), "s": ints(1, 48), "m": weights(48, 5)}
    graph = check_model(
        tmp_path, onnx_model(nodes, {"x": (1, 3, 6, 5)}, constants=constants)
    )
    assert graph.inputs[0].shape == ("N", 6, 5, 3)
    both = weights(3, 3, 6, 5).astype(np.float64)
    together = evaluate(graph, {"x": both})["y"]
    alone = [evaluate(graph, {"x": both[i : i + 1]})["y"] for i in range(3)]
    assert np.allclose(together, np.concatenate(alone), rtol=1e-12)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=1)],
        [node("Squeeze", ["x", "zero"], ["y"])],
        [node("Reshape", ["x", "chw"], ["y"])],
        [node("Softmax", ["x"], ["y"], axis=0)],
        [node("Concat", ["x", "x"], ["y"], axis=0)],
    ],
)
def test_a_fixed_batch_stays_where_it_matters(tmp_path, nodes):
    names = {value for each in nodes for value in each.input}
    constants = {"zero": ints(0), "chw": ints(3, 6, 5)}
    constants = {k: v for k, v in constants.items() if k in names}
    model = onnx_model(nodes, {"x": (1, 3, 6, 5)}, constants=constants)
    graph = check_model(tmp_path, model)
    assert graph.inputs[0].shape == (1, 6, 5, 3)
    assert graph.metadata["conversion"]["notes"] == [
        "the batch size stays 1, as in the file"
    ]


def test_a_height_called_n_is_not_the_batch(saved):
    graph = convert(saved(conv_model(("B", 3, "N", 5))))
    assert graph.inputs[0].shape == ("N", "H", 5, 3)


def test_equal_open_sizes_stay_equal(saved):
    graph = convert(saved(conv_model((N, 3, "side", "side"))))
    assert graph.inputs[0].shape == ("N", "side", "side", 3)


def test_a_network_too_large_for_the_usual_size_is_refused(saved):
    nodes = [node("MaxPool", ["x"], ["y"], kernel_shape=[2000, 1])]
    with pytest.raises(UnsupportedModelError, match="window of 2000"):
        convert(saved(onnx_model(nodes, {"x": (N, 3, "height", 4)})))


def test_open_height_and_width_stay_open(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["p"], strides=[2, 2]),
        node("GlobalAveragePool", ["p"], ["q"]),
        node("Flatten", ["q"], ["f"]),
        node("Gemm", ["f", "m"], ["y"]),
    ]
    constants = {"w": weights(4, 3, 3, 3), "m": weights(4, 5)}
    model = onnx_model(nodes, {"x": (N, 3, "height", None)}, constants=constants)
    graph = check_model(tmp_path, model)
    assert graph.inputs[0].shape == ("N", "height", "W", 3)
    x = weights(2, 3, 31, 47)
    path = tmp_path / "model.onnx"
    (wanted,) = session(path).run(["y"], {"x": x})
    assert_close(evaluate(graph, {"x": x})["y"], wanted)


def test_a_reshape_that_needs_a_fixed_height_names_it(saved):
    nodes = [node("Reshape", ["x", "s"], ["y"])]
    model = onnx_model(
        nodes, {"x": (N, 3, "height", 5)}, constants={"s": ints(0, 3 * 224 * 5)}
    )
    with pytest.raises(UnsupportedModelError, match="'height'"):
        convert(saved(model))


def test_a_matrix_that_needs_a_fixed_width_names_it(saved):
    nodes = [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "m"], ["y"])]
    model = onnx_model(
        nodes, {"x": (N, 3, 4, "width")}, constants={"m": weights(3 * 4 * 192, 2)}
    )
    with pytest.raises(UnsupportedModelError, match="'width'"):
        convert(saved(model))


def test_a_shape_that_is_computed_from_the_batch(tmp_path):
    """The way the legacy exporter writes ``x.view(x.size(0), -1)``."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "front"], ["n1"]),
        node("Concat", ["n1", "rest"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["f"]),
        node("Gemm", ["f", "m"], ["y"]),
    ]
    constants = {
        "zero": np.int64(0),
        "front": ints(0),
        "rest": ints(-1),
        "m": weights(90, 4),
    }
    model = onnx_model(nodes, {"x": (N, 3, 6, 5)}, constants=constants)
    graph = check_model(tmp_path, model)
    assert kinds(graph) == ["Flatten", "Dense"]


def test_a_slice_up_to_an_open_size(tmp_path):
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "two"], ["end"], axis=0),
        node("Slice", ["x", "one", "end", "two"], ["y"]),
    ]
    constants = {"one": ints(1), "two": ints(2)}
    model = onnx_model(nodes, {"x": (N, 3, "height", 4)}, constants=constants)
    assert kinds(check_model(tmp_path, model)) == ["Slice"]


def test_chunks_whose_bounds_are_computed(tmp_path):
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "one"], ["c"], axis=0),
        node("Add", ["c", "one"], ["c1"]),
        node("Div", ["c1", "two"], ["half"]),
        node("Mul", ["half", "two"], ["end"]),
        node("Slice", ["x", "zero", "half", "one"], ["a"]),
        node("Slice", ["x", "half", "end", "one"], ["b"]),
        node("Concat", ["b", "a"], ["y"], axis=1),
    ]
    constants = {"zero": ints(0), "one": ints(1), "two": ints(2)}
    graph = check_model(
        tmp_path, onnx_model(nodes, {"x": (N, 4, 6, 5)}, constants=constants)
    )
    assert kinds(graph) == ["Split", "Concat"]


def test_a_network_that_begins_channels_last_keeps_its_input(tmp_path):
    nodes = [
        node("Mul", ["x", "scale"], ["s"]),
        node("Transpose", ["s"], ["t"], perm=[0, 3, 1, 2]),
        node("Conv", ["t", "w"], ["p"]),
        node("Transpose", ["p"], ["y"], perm=[0, 2, 3, 1]),
    ]
    constants = {"w": weights(4, 3, 3, 3), "scale": weights(3)}
    graph = check_model(
        tmp_path, onnx_model(nodes, {"x": (N, 6, 5, 3)}, constants=constants)
    )
    assert kinds(graph) == ["Mul", "Conv"]
    assert graph.inputs[0].shape == ("N", 6, 5, 3)


def test_flattening_permutes_the_matrix_instead_of_the_image(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Relu", ["f"], ["r"]),
        node("Dropout", ["r"], ["d"]),
        node("Gemm", ["d", "m", "b"], ["y"], transB=1),
    ]
    constants = {"w": weights(4, 3, 3, 3), "m": weights(7, 48), "b": weights(7)}
    graph = check_model(
        tmp_path, onnx_model(nodes, {"x": (N, 3, 6, 5)}, constants=constants)
    )
    assert kinds(graph) == ["Conv", "Relu", "Flatten", "Dense"]
    assert [each.name for each in graph.nodes] == ["conv0", "relu2", "flatten1", "y"]


def test_transposes_that_stay_are_told(saved):
    nodes = [
        node("Conv", ["x", "w"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Softmax", ["f"], ["y"]),
    ]
    graph = convert(
        saved(
            onnx_model(nodes, {"x": (N, 3, 6, 5)}, constants={"w": weights(4, 3, 3, 3)})
        )
    )
    (entry,) = graph.metadata["conversion"]["transposes"]
    assert entry["reader"] == "softmax2"
    assert type(graph.node(entry["layer"]).op).__name__ == "Transpose"


def test_io_source_transposes_at_the_boundary(saved):
    graph = convert(saved(conv_model()), io="source")
    assert graph.inputs[0].shape == ("N", 3, 6, 5)
    assert kinds(graph) == ["Transpose", "Conv", "Relu", "Transpose"]
    assert graph.outputs == ["y"]


def test_io_is_one_of_two(saved):
    with pytest.raises(SettingError, match="'nchw'"):
        convert(saved(conv_model()), io="nchw")


def test_progress_counts_nodes(saved):
    calls = []
    convert(
        saved(conv_model()), progress=lambda done, nodes: calls.append((done, nodes))
    )
    assert calls == [(1, 2), (2, 2)]


def test_half_precision_weights_become_float32(saved):
    model = onnx_model(
        [node("Mul", ["x", "w"], ["y"])],
        {"x": (N, 3)},
        constants={"w": np.float16([0.5, 0.25, 2])},
        dtypes={"x": TensorProto.FLOAT16, "y": TensorProto.FLOAT16},
    )
    graph = convert(saved(model))
    assert graph.params["y/y"].dtype == np.float32
    assert graph.metadata["conversion"]["notes"] == [
        "float16 weights are stored as float32",
        "input 'x' takes float32, not float16",
    ]


def test_every_unsupported_operator_is_told_at_once(saved):
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("NonMaxSuppression", ["a", "a"], ["b"], name="nms"),
        node("Frobnicate", ["a"], ["c"], name="frob", domain="com.example"),
        node("Frobnicate", ["c"], ["d"], name="frob_again", domain="com.example"),
        node("Bernoulli", ["a"], ["e"], name="random"),
        node(
            "MaxPool",
            ["e"],
            ["g"],
            kernel_shape=[2, 2],
            pads=[0, 0, -1, 0],
            name="pool",
        ),
        node(
            "AveragePool", ["a"], ["h"], kernel_shape=[2, 2], flavour=1, name="average"
        ),
        node("Relu", ["h"], ["y"]),
    ]
    model = onnx_model(
        nodes,
        {"x": (N, 3, 8, 8)},
        constants={"w": weights(4, 3, 3, 3)},
        domains=("com.example",),
    )
    with pytest.raises(UnsupportedModelError) as caught:
        convert(saved(model))
    first, header, *rows = str(caught.value).splitlines()
    assert first.endswith("6 nodes cannot be converted")
    assert header.split() == ["operator", "opset", "count", "reason", "nodes"]
    table = "\n".join(rows)
    for text in (
        "NonMaxSuppression",
        "frob, frob_again",
        "com.example::Frobnicate  1      2",
        "Bernoulli",
        "negative pads [0, 0, -1, 0]",
        "attribute flavour",
    ):
        assert text in table
    assert rows[5].startswith("NonMaxSuppression: --cut-outputs")
    assert len(rows) == 6


def test_more_than_five_nodes_of_a_kind_are_cut_short(saved):
    nodes = [node("Loop", ["x"], [f"y{i}"], name=f"d{i}") for i in range(7)]
    model = onnx_model(nodes, {"x": (N, 3, 3)}, [f"y{i}" for i in range(7)])
    with pytest.raises(UnsupportedModelError, match=r"d0, d1, d2, d3, d4, \.\.\.$"):
        convert(saved(model))


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Conv", ["x", "x"], ["y"])], "its kernel is computed"),
        ([node("Conv", ["x", "nothing"], ["y"])], "no earlier node computes 'nothing'"),
        ([node("Conv", ["x"], ["y"])], "input W is missing"),
        ([node("MatMul", ["x", "w"], ["y"])], "do not fit"),
        ([node("Relu", ["x", "x"], ["y"])], "it has 2 inputs"),
        ([node("Relu", [""], ["y"])], "input X is"),
        ([node("TopK", ["x", "x"], ["y"])], "its K is computed"),
        (
            [node("AveragePool", ["x"], ["y", "places"], kernel_shape=[2, 2])],
            "its output 2",
        ),
        ([node("MaxPool", ["x"], ["y"])], "TypeError"),
        ([node("Transpose", ["x"], ["y"], perm=[0, 1])], r"perm \[0, 1\] for rank 4"),
        ([node("Concat", ["x", "x"], ["y"], axis=7)], "axis 7"),
        ([node("Cast", ["x"], ["y"], to=TensorProto.INT16)], "int16"),
        ([node("Softmax", ["x"], ["y"], axis="one")], "TypeError"),
        ([node("Where", ["x", "x", "x"], ["y"])], "wanted one type of bool"),
        ([node("ConstantOfShape", ["huge"], ["y"])], "constant of shape"),
        ([node("Expand", ["x", "huge"], ["y"])], "constant of shape"),
        ([node("Dropout", ["x", "", "yes"], ["y"])], "other elements in every run"),
        ([node("Conv", ["x", "w"], ["y"], group=2)], "Conv"),
        ([node("Reshape", ["x", "huge"], ["y"])], "does not fit"),
        (
            [node("Slice", ["x", "three", "three", "three"], ["y"])],
            "depends on the open size 'N'",
        ),
    ],
)
def test_refusals_say_why(saved, nodes, reason):
    names = {value for each in nodes for value in each.input}
    constants = {
        "huge": ints(1 << 20, 1 << 20),
        "yes": np.array(True),
        "w": weights(4, 3, 3, 3),
        "three": ints(3),
    }
    constants = {k: v for k, v in constants.items() if k in names}
    wanted = tuple(nodes[0].output)
    model = onnx_model(nodes, {"x": (N, 3, 4, 4)}, wanted, constants=constants)
    with pytest.raises(UnsupportedModelError, match=reason):
        convert(saved(model))


def test_gathering_everything_in_order_is_a_reshape(saved):
    """PyTorch's exporter writes ``as_strided`` so."""
    nodes = [
        node("Size", ["x"], ["size"]),
        node("Range", ["zero", "size", "one"], ["places"]),
        node("Shape", ["x"], ["shape"]),
        node("Reshape", ["places", "shape"], ["indices"]),
        node("Reshape", ["x", "rest"], ["flat"]),
        node("Gather", ["flat", "indices"], ["gathered"]),
        node("Relu", ["gathered"], ["y"]),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "rest": ints(-1)}
    model = onnx_model(nodes, {"x": (N, 3, 4, 4)}, ("y",), constants=constants)
    graph = convert(saved(model), io="source")
    assert [type(each.op).__name__ for each in graph.nodes] == ["Relu"]
    x = np.random.default_rng(0).standard_normal((5, 3, 4, 4)).astype(np.float32)
    assert np.array_equal(striate.Model(graph)(x), np.maximum(x, 0))


def test_a_missing_package_is_told(saved, monkeypatch):
    path = saved(conv_model())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r'pip install "striate\[onnx\]"'):
        convert(path)


def refused(path, code):
    with pytest.raises(ModelFormatError) as caught:
        convert(path)
    assert caught.value.code == code
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    refused(tmp_path / "net.onnx", "not_a_file")


def test_a_folder(tmp_path):
    (tmp_path / "net.onnx").mkdir()
    refused(tmp_path / "net.onnx", "not_a_file")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "not_a_file"),
        (b"hello", "not_onnx"),
        (bytes(64), "not_onnx"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "unknown_format"),
    ],
)
def test_a_file_of_something_else(tmp_path, content, code):
    (tmp_path / "net.onnx").write_bytes(content)
    refused(tmp_path / "net.onnx", code)


@pytest.mark.parametrize("name", ["net.txt", "net"])
def test_an_ending_no_converter_knows(tmp_path, name):
    (tmp_path / name).write_bytes(b"hello")
    assert ".onnx" in refused(tmp_path / name, "unknown_format")


def test_every_truncation_is_refused(saved):
    path = saved(conv_model())
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises((ModelFormatError, UnsupportedModelError)):
            convert(path)


def test_mutations_never_escape(saved):
    """Any byte may change: the file converts or is refused, nothing else."""
    path = saved(conv_model(constants={"w": weights(4, 3, 3, 3)}))
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(0, len(whole), 300):
        changed = bytearray(whole)
        changed[place] = random.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(ModelFormatError, UnsupportedModelError):
            convert(path)


def external(tmp_path, location, offset=None, length=None, data=None, folder=None):
    """Save a model whose kernel lies in another file."""
    w = weights(4, 3, 3, 3)
    tensor = numpy_helper.from_array(w, "w")
    set_external_data(tensor, location, offset, length)
    tensor.ClearField("raw_data")
    model = conv_model()
    del model.graph.initializer[:]
    model.graph.initializer.append(tensor)
    folder = folder or tmp_path
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path, w


def test_external_data(tmp_path):
    path, w = external(tmp_path, "net.onnx.data", 64, w_bytes := 4 * 3 * 3 * 3 * 4)
    (tmp_path / "net.onnx.data").write_bytes(bytes(64) + w.tobytes() + b"more")
    graph = convert(path)
    assert w_bytes == w.nbytes
    assert np.array_equal(graph.params["conv0/kernel"], w.transpose(2, 3, 1, 0))


def test_external_data_in_a_folder_below(tmp_path):
    path, w = external(tmp_path, "data/w.bin")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(w.tobytes())
    assert kinds(convert(path)) == ["Conv", "Relu"]


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../secret",
        "a/../../secret",
        "",
        ".",
        "..",
        "C:\\secret",
        "\\\\host\\secret",
        "missing",
    ],
)
def test_external_data_elsewhere_is_refused(tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(1000))
    folder = tmp_path / "model"
    folder.mkdir()
    path, _ = external(tmp_path, location, folder=folder)
    refused(path, "external_data")


def test_external_data_behind_a_symbolic_link_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(1000))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").symlink_to("../secret")
    path, _ = external(tmp_path, "w.bin", folder=folder)
    refused(path, "external_data")


def test_external_data_behind_a_linked_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.bin").write_bytes(bytes(1000))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "data").symlink_to("../elsewhere")
    path, _ = external(tmp_path, "data/w.bin", folder=folder)
    refused(path, "external_data")


@pytest.mark.parametrize(
    ("offset", "length", "size"),
    [
        (0, 432, 431),
        (1, 432, 432),
        (0, 400, 432),
        (1 << 40, 432, 432),
        (0, 1 << 40, 432),
    ],
)
def test_external_data_of_another_size_is_refused(tmp_path, offset, length, size):
    path, _ = external(tmp_path, "w.bin", offset, length)
    (tmp_path / "w.bin").write_bytes(bytes(size))
    refused(path, "external_data")


def test_external_data_with_numbers_that_are_none(tmp_path):
    path, _ = external(tmp_path, "w.bin")
    (tmp_path / "w.bin").write_bytes(bytes(432))
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="offset", value="much")
    path.write_bytes(model.SerializeToString())
    refused(path, "tensor")


def test_a_tensor_of_another_size_than_its_shape(tmp_path):
    model = conv_model()
    model.graph.initializer[0].dims[0] = 5
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    refused(path, "tensor")
