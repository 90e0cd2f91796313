import contextlib
import copy
import json
import math
import time
from typing import Any, Literal

import hostile
import numpy as np
import pytest
from striate import (
    Graph,
    GraphError,
    ModelFormatError,
    Postprocess,
    Preprocess,
    ShapeError,
    ops,
)
from striate.graph import Input, Node
from striate.graph_json import (
    MAX_NODES,
    LabelsEntry,
    TensorEntry,
    build,
    check_types,
    decode,
    encode,
)
from striate.ops.base import Op
from striate.record import record

GOOD = hostile.graph(lambda g: None)


def entries(graph):
    return {
        name: TensorEntry(str(array.dtype), array.shape, "0" * 64)
        for name, array in graph.params.items()
    }


def encoded(graph):
    return encode(graph, entries(graph), None)


def rich():
    """Return a graph that uses every part of the text."""
    graph = Graph("Größe")
    graph.input("image", ("N", "H", "W", 3))
    graph.input("weights", ("N", 4), "float32")
    kernel = np.ones((3, 3, 3, 4), np.float32)
    conv = ops.Conv(stride=(2, 1), padding=((1, 0), (0, 1)))
    x = graph.add(conv, "image", name="conv", kernel=kernel)
    y = graph.add(conv, "image", name="again", kernel="conv/kernel")
    graph.add(ops.Split(sizes=(1, 3)), y, name="cut", outputs=("left", "right"))
    x = graph.add(ops.LeakyRelu(alpha=1e-3), x, name="leaky")
    x = graph.add(ops.GlobalAveragePool(), x, name="pool")
    x = graph.add(ops.Mul(), x, "weights", name="scores")
    graph.output(x, "right")
    graph.preprocess = Preprocess(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    graph.postprocess = Postprocess("scores", top=3)
    graph.provenance = {"licence": "Apache-2.0", "authors": ["é"]}
    graph.metadata = {"b": [1, 2.5, None, {"z": True, "a": -0.0}], "a": "\u2028"}
    return graph


def test_what_is_encoded_is_decoded():
    graph = rich()
    labels = LabelsEntry(4, "f" * 64)
    found = decode(encode(graph, entries(graph), labels), "x.h5")
    assert found.name == graph.name
    assert found.inputs == graph.inputs
    assert found.nodes == graph.nodes
    assert found.outputs == tuple(graph.outputs)
    assert found.tensors == entries(graph)
    assert found.labels == labels
    assert found.preprocess == graph.preprocess
    assert found.postprocess == graph.postprocess
    assert found.provenance == graph.provenance
    assert found.metadata == graph.metadata
    built = build(found, graph.params, ("a", "b", "c", "d"), "x.h5")
    assert built.nodes == graph.nodes
    assert built.labels == ("a", "b", "c", "d")
    assert encoded(built) == encoded(graph)


@pytest.mark.parametrize(
    "op",
    [
        ops.Conv((2, 1), padding="same_lower"),
        ops.AveragePool((2, 3), padding=((0, 1), (1, 0)), count_include_pad=True),
        ops.Slice((1,), (2**63 - 1,), (-1,)),
        ops.Clip(0, 6.0),
        ops.Gelu("tanh"),
        ops.Relu(),
    ],
    ids=lambda op: type(op).__name__,
)
def test_attributes_survive(op):
    """The attributes of every operator go the same way in `check`."""
    check_types(op)
    text = json.dumps(op.attributes())
    assert type(op).from_attributes(json.loads(text)) == op


def test_the_text_does_not_depend_on_the_order_of_making():
    weights = {"kernel": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    texts = set()
    for names in (["kernel", "bias"], ["bias", "kernel"]):
        graph = Graph()
        x = graph.input("x", ("N", 2))
        graph.output(
            graph.add(ops.Dense(), x, **{name: weights[name] for name in names})
        )
        graph.metadata = dict.fromkeys(names, 1)
        texts.add(encoded(graph))
    assert len(texts) == 1


def test_the_text_has_a_line_for_each_layer():
    lines = encoded(rich()).decode().splitlines()
    assert sum('"op": ' in line for line in lines) == len(rich().nodes)
    assert max(line.count("{") for line in lines) <= 4


def test_numpy_numbers_are_numbers():
    graph = Graph()
    x = graph.input("x", ("N", 4))
    graph.output(graph.add(ops.Clip(minimum=np.float32(0.5), maximum=6), x))
    graph.metadata = {"count": np.int64(3)}
    document = json.loads(encoded(graph))
    assert document["nodes"][0]["attributes"] == {"minimum": 0.5, "maximum": 6}
    assert document["metadata"] == {"count": 3}


@pytest.mark.parametrize(
    "metadata",
    [
        {1: "a"},
        {"deep": [{2: 3}]},
        {"x": math.nan},
        {"x": -math.inf},
        {"x": object()},
        {"x": {1, 2}},
        {"x": b"bytes"},
        {"x": "\ud800"},
    ],
)
def test_refuses_to_write_what_json_cannot_hold(metadata):
    graph = rich()
    graph.metadata = metadata
    with pytest.raises(GraphError):
        encoded(graph)


def test_refuses_to_write_a_cycle():
    graph = rich()
    graph.metadata["self"] = graph.metadata
    with pytest.raises(GraphError):
        encoded(graph)


@pytest.mark.parametrize(
    "change", [{"activation": ops.Relu()}, {"residual": "conv"}], ids=str
)
def test_refuses_to_write_what_passes_fused(change):
    graph = rich()
    last = graph.nodes[0]
    graph.nodes[0] = Node(
        last.name, last.op, last.inputs, last.params, last.outputs, **change
    )
    with pytest.raises(GraphError, match="conv"):
        encoded(graph)


def refusal(text):
    with pytest.raises(ModelFormatError) as caught:
        build(decode(text, "x.h5"), hostile.TENSORS, (), "x.h5")
    assert caught.value.path == "x.h5"
    assert str(caught.value).startswith("x.h5: /graph: ")
    return caught.value


def test_accepts_the_good_text():
    assert build(decode(GOOD, "x.h5"), hostile.TENSORS, (), "x.h5").outputs == ["fc"]


TEXTS = {
    "nothing": b"",
    "no object": b"[]",
    "a number": b"1",
    "not closed": GOOD[:-1],
    "more after it": GOOD + b"{}",
    "a zero byte": GOOD + b"\0",
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "another encoding": GOOD.decode().encode("utf-16"),
    "invalid UTF-8": GOOD.replace(b"small", b"sm\xffll", 1),
    "an overlong slash": GOOD.replace(b"small", b"\xc0\xaf", 1),
    "a surrogate half": GOOD.replace(b"small", b"\\ud800", 1),
    "a raw surrogate": GOOD.replace(b"small", b"\xed\xa0\x80", 1),
    "a control character": GOOD.replace(b"small", b"a\x01b", 1),
    "a comment": GOOD.replace(b"{", b"{ // hello\n", 1),
    "a comma too many": GOOD[:-1].rstrip() + b",}",
    "single quotes": GOOD.replace(b'"name"', b"'name'", 1),
    "infinity": GOOD.replace(b"2.5", b"Infinity"),
    "minus infinity": GOOD.replace(b"2.5", b"-Infinity"),
    "overflow": GOOD.replace(b"2.5", b"1e400"),
    "underscores": GOOD.replace(b"2.5", b"1_000"),
    "hexadecimal": GOOD.replace(b"2.5", b"0x10"),
    "a leading zero": GOOD.replace(b"2.5", b"012"),
    "a large integer": GOOD.replace(b"2.5", b"9223372036854775808"),
    "a small integer": GOOD.replace(b"2.5", b"-9223372036854775809"),
    "4000 digits": GOOD.replace(b"2.5", b"9" * 4000),
    "5000 digits": GOOD.replace(b"2.5", b"9" * 5000),
    "a key twice, escaped": GOOD.replace(b'"name"', b'"name": "a", "n\\u0061me"', 1),
    "a key twice inside": GOOD.replace(b'"note"', b'"note": 1, "note"'),
}


@pytest.mark.parametrize("name", TEXTS)
def test_refuses_text_that_is_not_strict_json(name):
    assert TEXTS[name] != GOOD
    assert refusal(TEXTS[name]).code == "graph"


def test_accepts_escapes_and_the_largest_integers():
    text = GOOD.replace(b"small", b"\\ud83d\\ude00", 1)
    text = text.replace(b"2.5", b"-9223372036854775807, 9223372036854775807, 1e308")
    found = decode(text, "x.h5")
    assert found.name == "\N{GRINNING FACE}"
    assert found.metadata["numbers"][1:4] == [-(2**63) + 1, 2**63 - 1, 1e308]


def test_bounds_the_text(monkeypatch):
    monkeypatch.setattr("striate.graph_json.MAX_TEXT", len(GOOD))
    assert decode(GOOD, "x.h5")
    assert refusal(GOOD + b" ").code == "limit"


def test_bounds_the_nodes():
    def change(g):
        g["nodes"] = [g["nodes"][1]] * (MAX_NODES + 1)

    assert refusal(hostile.graph(change)).code == "limit"


def set_at(*path):
    """Return a change that puts a value at a place in the document."""

    def change(value):
        def apply(g):
            for step in path[:-1]:
                g = g[step]
            g[path[-1]] = value

        return apply

    return change


def drop(*path):
    def change(g):
        for step in path[:-1]:
            g = g[step]
        del g[path[-1]]

    return change


NODE, CONV = ("nodes", 1), ("nodes", 0)
TENSOR = ("tensors", "fc/bias")
WRONG = {
    ("name",): [1, None, "a\nb", "x" * 257, "\x9b", ["a"]],
    ("ops",): [[], {}, {"Conv": 1}, {"Conv": "1"}],
    ("ops", "Conv"): [0, -1, True, 1.0, "1", None],
    ("ops", "conv"): [1],
    ("ops", "__class__"): [1],
    ("inputs",): [{}, [], [1], None],
    ("inputs", 0, "name"): ["", "a b", "../x", "x" * 129, 3, "conv1", ".a", "a\n"],
    ("inputs", 0, "dtype"): ["float64", "object", "bfloat16", None, ["float32"], 1],
    ("inputs", 0, "shape"): [
        {},
        "NHWC",
        [],
        [1] * 9,
        ["N", 8, 8, 0],
        ["N", 8, 8, -1],
        ["N", 8, 8, 1.0],
        ["N", 8, 8, True],
        ["N", 8, 8, None],
        ["N", 8, 8, 2**31],
        ["a b", 8, 8, 1],
        ["", 8, 8, 1],
    ],
    ("inputs", 0, "layout"): ["NHWC"],
    ("nodes",): [{}, [None], "x"],
    (*NODE, "name"): ["", "a/b", "image", "pool", None, "x" * 129],
    (*NODE, "op"): ["relu", "Op", "Gelu", None, 1, ["Relu"], "os.system"],
    (*NODE, "inputs"): [[], ["conv1", "conv1"], "conv1", ["relu1"], ["none"], [1], {}],
    (*NODE, "attributes"): [{"alpha": 1.0}, [], None, {"self": 1}, {"__init__": 1}],
    (*NODE, "params"): [{"x": "fc/bias"}, {"kernel": "fc/kernel"}, [], {"x": 1}],
    (*NODE, "outputs"): [[], ["a", "b"], ["conv1"], ["a b"], "relu1", ["x"]],
    (*NODE, "activation"): ["Relu"],
    (*CONV, "attributes", "groups"): [True, 1.0, "1", 0, -1, None, [1], 3],
    (*CONV, "attributes", "stride"): [
        "11",
        [1.0, 1.0],
        [True, True],
        [],
        [1, 1, 1],
        [-1],
    ],
    (*CONV, "attributes", "padding"): [
        "SAME",
        [[1, 1]] * 3,
        [1, 1],
        [[1]],
        5,
        [["a", 1]],
    ],
    (*CONV, "attributes", "evil"): [1],
    (*CONV, "params", "kernel"): ["fc/kernel", "/etc/passwd", 1, None, "conv1"],
    ("nodes", 2, "attributes", "keepdims"): [0, 1, "false", None, []],
    ("outputs",): [[], ["none"], ["fc", "fc"], "fc", [1], {}, ["image/"]],
    (*TENSOR, "dtype"): ["float64", "uint64", None, 1],
    (*TENSOR, "shape"): [3, [3.0], [True], [0], [-3], None, [2**31]],
    (*TENSOR, "sha256"): ["", "0" * 63, "F" * 64, None, 0],
    (*TENSOR, "offset"): [0],
    ("tensors", "fc/spare"): [hostile.GRAPH["tensors"]["fc/bias"]],
    ("tensors", "fc"): [hostile.GRAPH["tensors"]["fc/bias"]],
    ("labels",): [None, [], 3, {}],
    ("labels", "count"): [0, -1, 1.0, True, 10**6 + 1],
    ("labels", "sha256"): ["x", 1],
    ("labels", "names"): [["a"]],
    ("preprocess",): [None, {}, [], {"colour": "RGB"}, {"ink": 5}],
    ("postprocess",): [
        None,
        {},
        {"output": "none", "activation": "softmax", "top": 5},
        {"output": "fc", "activation": "exec", "top": 5},
        {"output": "fc", "activation": "softmax", "top": 0},
        {"output": ["fc"], "activation": "softmax", "top": 5},
    ],
    ("provenance",): [None, [], "me"],
    ("metadata",): [None, [], "x"],
    ("version",): [1],
}
CASES = [(path, value) for path, values in WRONG.items() for value in values]


@pytest.mark.parametrize(
    ("path", "value"), CASES, ids=[f"{p}={v!r:.30}" for p, v in CASES]
)
def test_refuses_what_the_schema_does_not_allow(path, value):
    code = refusal(hostile.graph(set_at(*path)(copy.deepcopy(value)))).code
    assert code == (
        "op" if path in {("ops", "conv"), ("ops", "__class__")} else "graph"
    )


@pytest.mark.parametrize(
    "path",
    [
        *((key,) for key in ("name", "ops", "inputs", "nodes", "outputs", "tensors")),
        ("ops", "Relu"),
        ("inputs", 0),
        *(("inputs", 0, key) for key in ("name", "shape", "dtype")),
        *(("nodes", index) for index in range(4)),
        *(("nodes", 0, key) for key in hostile.GRAPH["nodes"][0]),
        *(("nodes", 0, "attributes", key) for key in ("stride", "groups", "padding")),
        ("nodes", 0, "params", "kernel"),
        *(("tensors", name) for name in hostile.TENSORS),
        *((*TENSOR, key) for key in ("dtype", "shape", "sha256")),
        ("labels", "count"),
        ("labels", "sha256"),
    ],
    ids=str,
)
def test_refuses_what_lacks_a_part(path):
    assert refusal(hostile.graph(drop(*path))).code == "graph"


@pytest.mark.parametrize("key", ["\x1b[31m", "a\nb", "x" * 10_000])
def test_messages_are_short_and_safe_to_print(key):
    for path in ((), ("ops",), ("nodes", 0), ("nodes", 0, "attributes"), ("tensors",)):
        message = str(refusal(hostile.graph(set_at(*path, key)(key))))
        assert message.isprintable()
        assert len(message) < 600


@pytest.mark.parametrize("depth", [100, 300, 900, 3000])
def test_deep_attributes_are_refused(depth):
    deep = b"[" * depth + b"]" * depth
    text = GOOD.replace(b'"padding": "valid"', b'"padding": ' + deep)
    assert text != GOOD
    assert refusal(text).code == "graph"


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool", "MaxPoolIndices"])
@pytest.mark.parametrize(
    ("kernel", "dilation", "padding"),
    [(2**31 - 1, 1, 2**31 - 2), (3, 2**30, 2**31 - 1), (2, 2**31 - 1, 2**31 - 2)],
)
def test_enormous_windows_cost_no_time(kind, kernel, dilation, padding):
    graph = Graph()
    x = graph.input("x", ("N", 8, 8, 1))
    settings = {"kernel": (kernel,), "dilation": (dilation,)}
    op = getattr(ops, kind)(**settings, padding=((padding, padding),))
    outputs = ("y", "z") if kind == "MaxPoolIndices" else ()
    start = time.process_time()
    with contextlib.suppress(ShapeError):
        graph.add(op, x, outputs=outputs)
    assert time.process_time() - start < 1


def test_names_every_unknown_operator_at_once():
    def change(g):
        g["ops"].update({"Frobnicate": 3, "Conv": 2})

    error = refusal(hostile.graph(change))
    assert error.code == "op"
    assert "'Frobnicate' version 3" in str(error)
    assert "'Conv' version 2" in str(error)
    assert "Relu" not in str(error)


@record
class Louder(Op, abstract=True):
    """An operator whose second version brought `bias` and whose third `times`."""

    gain: float = 1.0
    bias: float = 0.0
    times: int = 1

    version = 3
    added = {"bias": (2, 0.0), "times": (3, 1)}  # noqa: RUF012

    def infer(self, x: Any) -> Any:
        return x

    def reference(self, x: Any) -> Any:
        return (x * self.gain + self.bias) * self.times


def louder(*operators):
    """Return a chain of `Louder`."""
    graph = Graph("loud")
    x = graph.input("x", ("N", 2))
    for op in operators:
        x = graph.add(op, x)
    graph.output(x)
    return graph


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(Op.registry, "Louder", Louder)


@pytest.mark.parametrize(
    ("version", "attributes", "result"),
    [
        (1, {"gain": 3.0}, 6.0),
        (2, {"gain": 3.0, "bias": 1.0}, 7.0),
        (2, {"gain": 3.0, "bias": 0.0}, 6.0),
        (3, {"gain": 3.0, "bias": 1.0, "times": 2}, 14.0),
        (3, {"gain": 3.0, "bias": 0.0, "times": 1}, 6.0),
    ],
)
def test_every_version_of_an_operator_keeps_its_meaning(
    registered, version, attributes, result
):
    document = json.loads(encoded(louder(Louder())))
    document["ops"]["Louder"] = version
    document["nodes"][0]["attributes"] = attributes
    found = build(decode(json.dumps(document).encode(), ""), {}, (), "")
    assert found.reference({"x": np.float32([[2, 2]])})["louder1"][0, 0] == result


@pytest.mark.parametrize(
    ("version", "attributes"),
    [
        (1, {"gain": 3.0, "bias": 0.0}),
        (1, {}),
        (2, {"gain": 3.0}),
        (2, {"gain": 3.0, "bias": 1.0, "times": 1}),
        (3, {"gain": 3.0, "bias": 1.0}),
    ],
)
def test_a_version_has_the_attributes_it_was_published_with(
    registered, version, attributes
):
    document = json.loads(encoded(louder(Louder())))
    document["ops"]["Louder"] = version
    document["nodes"][0]["attributes"] = attributes
    assert refusal(json.dumps(document).encode()).code == "graph"


def test_the_lowest_version_that_says_it_is_written(registered):
    for operators, version, keys in (
        ([Louder(3.0)], 1, {"gain"}),
        ([Louder(3.0), Louder(3.0, 1.0)], 2, {"gain", "bias"}),
        ([Louder(3.0, times=2), Louder()], 3, {"gain", "bias", "times"}),
    ):
        document = json.loads(encoded(louder(*operators)))
        assert document["ops"] == {"Louder": version}
        for node in document["nodes"]:
            assert node["attributes"].keys() == keys
        found = decode(json.dumps(document).encode(), "")
        assert [node.op for node in found.nodes] == operators


def test_a_newer_version_of_an_operator_is_refused(registered):
    document = json.loads(encoded(louder(Louder())))
    document["ops"]["Louder"] = 4
    error = refusal(json.dumps(document).encode())
    assert error.code == "op"
    assert "'Louder' version 4" in str(error)


def test_the_version_is_that_of_the_latest_attribute():
    for kind in ops.operators().values():
        assert kind.version == max((s for s, _ in kind.added.values()), default=1)


@record
class Typed(Op, abstract=True):
    count: int = 1
    ratio: float = 0.5
    flag: bool = False
    mode: Literal["a", "b"] = "a"
    pair: tuple[int, str] = (1, "x")
    sizes: tuple[int, ...] = ()
    pads: str | tuple[tuple[int, int], ...] = "same"
    maybe: float | None = None
    free: Any = None


@pytest.mark.parametrize(
    ("field", "value", "fits"),
    [
        ("count", 2, True),
        ("count", True, False),
        ("count", 2.0, False),
        ("count", None, False),
        ("ratio", 1, True),
        ("ratio", True, False),
        ("ratio", "1", False),
        ("flag", True, True),
        ("flag", 1, False),
        ("mode", "b", True),
        ("mode", "c", False),
        ("mode", ("a",), False),
        ("pair", (2, "y"), True),
        ("pair", (2,), False),
        ("pair", ("y", 2), False),
        ("pair", [2, "y"], False),
        ("sizes", (1, 2, 3), True),
        ("sizes", (1, 2.0), False),
        ("sizes", "123", False),
        ("sizes", 5, False),
        ("pads", "valid", True),
        ("pads", ((1, 2), (3, 4)), True),
        ("pads", (1, 2), False),
        ("pads", 1, False),
        ("maybe", None, True),
        ("maybe", 2.0, True),
        ("maybe", "x", False),
        ("free", object, True),
    ],
)
def test_annotations_are_checked(field, value, fits):
    op = Typed(**{field: value})
    if fits:
        check_types(op)
    else:
        with pytest.raises(GraphError, match=field):
            check_types(op)


def test_inputs_may_be_symbolic_and_of_any_rank():
    def change(g):
        g["inputs"].append({"name": "extra", "dtype": "uint8", "shape": ["N", "W"] * 4})

    text = hostile.graph(change)
    built = build(decode(text, "x.h5"), hostile.TENSORS, (), "x.h5")
    assert built.inputs[1] == Input("extra", ("N", "W") * 4, "uint8")


def test_what_an_operator_raises_is_a_refusal(monkeypatch):
    def infer(self, x):
        raise ZeroDivisionError("integer modulo by zero")

    monkeypatch.setattr(ops.Relu, "infer", infer)
    error = refusal(GOOD)
    assert error.code == "graph"
    assert isinstance(error.__cause__, ZeroDivisionError)
