"""What exporters write as several operators becomes one again, and equal."""

import math

import numpy as np
import pytest
from onnx_models import check_model, kinds, node, onnx_model, weights

N = "batch"


def numbers(**values):
    return {key: np.array(value, np.float32) for key, value in values.items()}


SIGMOID = [node("Sigmoid", ["x"], ["s"])]
ERF = [
    node("Div", ["x", "root"], ["a"]),
    node("Erf", ["a"], ["b"]),
    node("Add", ["b", "one"], ["c"]),
]
CUBE = [
    node("Mul", ["x", "x"], ["a"]),
    node("Mul", ["x", "a"], ["b"]),
    node("Mul", ["few", "b"], ["c"]),
    node("Add", ["x", "c"], ["d"]),
    node("Mul", ["d", "slope"], ["e"]),
    node("Tanh", ["e"], ["f"]),
    node("Add", ["f", "one"], ["g"]),
]
POWER = [
    node("Pow", ["x", "three"], ["b"]),
    node("Mul", ["b", "few"], ["c"]),
    node("Add", ["c", "x"], ["d"]),
    node("Mul", ["slope", "d"], ["e"]),
    node("Tanh", ["e"], ["f"]),
    node("Add", ["one", "f"], ["g"]),
]
FACTORED = [
    node("Mul", ["x", "x"], ["a"]),
    node("Mul", ["a", "few"], ["b"]),
    node("Add", ["b", "one"], ["c"]),
    node("Mul", ["x", "slope"], ["d"]),
    node("Mul", ["d", "c"], ["e"]),
    node("Tanh", ["e"], ["f"]),
    node("Add", ["f", "one"], ["g"]),
]
RELU6 = [node("Add", ["x", "three"], ["a"]), node("Clip", ["a", "zero", "six"], ["b"])]

CONSTANTS = numbers(
    root=math.sqrt(2),
    one=1,
    half=0.5,
    few=0.044715,
    slope=math.sqrt(2 / math.pi),
    three=3,
    zero=0,
    six=6,
    sixth=1 / 6,
)

PATTERNS = {
    "silu": ("Silu", [*SIGMOID, node("Mul", ["x", "s"], ["y"])]),
    "silu, gate first": ("Silu", [*SIGMOID, node("Mul", ["s", "x"], ["y"])]),
    "hard swish": (
        "HardSwish",
        [
            node("HardSigmoid", ["x"], ["s"], alpha=1 / 6),
            node("Mul", ["x", "s"], ["y"]),
        ],
    ),
    "hard swish by relu6": (
        "HardSwish",
        [*RELU6, node("Mul", ["x", "b"], ["c"]), node("Div", ["c", "six"], ["y"])],
    ),
    "hard swish, divided first": (
        "HardSwish",
        [*RELU6, node("Mul", ["b", "sixth"], ["c"]), node("Mul", ["c", "x"], ["y"])],
    ),
    "hard sigmoid": ("HardSigmoid", [*RELU6, node("Div", ["b", "six"], ["y"])]),
    "mish": (
        "Mish",
        [
            node("Softplus", ["x"], ["a"]),
            node("Tanh", ["a"], ["b"]),
            node("Mul", ["x", "b"], ["y"]),
        ],
    ),
    "gelu": (
        "Gelu",
        [*ERF, node("Mul", ["x", "c"], ["d"]), node("Mul", ["d", "half"], ["y"])],
    ),
    "gelu, halved first": (
        "Gelu",
        [*ERF, node("Mul", ["half", "x"], ["d"]), node("Mul", ["d", "c"], ["y"])],
    ),
    "gelu, tanh": (
        "Gelu",
        [*CUBE, node("Mul", ["x", "half"], ["h"]), node("Mul", ["h", "g"], ["y"])],
    ),
    "gelu, tanh by a power": (
        "Gelu",
        [*POWER, node("Mul", ["x", "g"], ["h"]), node("Mul", ["h", "half"], ["y"])],
    ),
    "gelu, tanh, factored": (
        "Gelu",
        [*FACTORED, node("Mul", ["x", "g"], ["h"]), node("Mul", ["h", "half"], ["y"])],
    ),
}


def converted(tmp_path, nodes, shape=(N, 3, 4, 5), outputs=("y",), constants=None):
    used = {value for each in nodes for value in each.input}
    known = {**CONSTANTS, **(constants or {})}
    known = {key: value for key, value in known.items() if key in used}
    model = onnx_model(nodes, {"x": shape}, outputs, constants=known)
    return check_model(tmp_path, model, low=-4, high=4)


@pytest.mark.parametrize("name", PATTERNS)
def test_activation(tmp_path, name):
    kind, nodes = PATTERNS[name]
    graph = converted(tmp_path, nodes)
    assert kinds(graph) == [kind]
    assert graph.metadata["conversion"]["patterns"][kind] == 1


NEAR_MISSES = {
    "the gate has another reader": [
        *SIGMOID,
        node("Mul", ["x", "s"], ["p"]),
        node("Add", ["p", "s"], ["y"]),
    ],
    "the gate is of something else": [
        node("Neg", ["x"], ["z"]),
        node("Sigmoid", ["z"], ["s"]),
        node("Mul", ["x", "s"], ["y"]),
    ],
    "another slope": [
        node("HardSigmoid", ["x"], ["s"], alpha=0.2),
        node("Mul", ["x", "s"], ["y"]),
    ],
    "twice a silu": [
        *SIGMOID,
        node("Mul", ["s", "three"], ["t"]),
        node("Mul", ["x", "t"], ["y"]),
    ],
    "another offset": [
        *ERF[:2],
        node("Add", ["b", "three"], ["c"]),
        node("Mul", ["x", "c"], ["d"]),
        node("Mul", ["d", "half"], ["y"]),
    ],
    "another scale": [*ERF, node("Mul", ["x", "c"], ["y"])],
    "another limit": [
        node("Add", ["x", "three"], ["a"]),
        node("Clip", ["a", "zero", "three"], ["b"]),
        node("Div", ["b", "six"], ["y"]),
    ],
    "another power": [
        *[node("Pow", ["x", "one"], ["b"]), *POWER[1:]],
        node("Mul", ["x", "g"], ["h"]),
        node("Mul", ["h", "half"], ["y"]),
    ],
}


@pytest.mark.parametrize(
    "name", [name for name in NEAR_MISSES if name != "another cube"]
)
def test_near_misses_stay_as_they_are(tmp_path, name):
    nodes = NEAR_MISSES[name]
    graph = converted(tmp_path, nodes)
    assert len(graph.nodes) == len(nodes)
    assert not graph.metadata["conversion"]["patterns"]


def test_a_gate_that_is_an_output_stays(tmp_path):
    nodes = [*SIGMOID, node("Mul", ["x", "s"], ["y"])]
    assert kinds(converted(tmp_path, nodes, outputs=("s", "y"))) == ["Sigmoid", "Mul"]


CONV = {"w": weights(4, 3, 3, 3), "b": weights(4, 1, 1), "row": weights(1, 4, 1, 1)}


@pytest.mark.parametrize("bias", ["b", "row"])
def test_a_constant_added_to_a_convolution_is_its_bias(tmp_path, bias):
    nodes = [
        node("Conv", ["x", "w"], ["p"]),
        node("Add", ["p", bias], ["q"]),
        node("Relu", ["q"], ["y"]),
    ]
    graph = converted(tmp_path, nodes, constants=CONV)
    assert kinds(graph) == ["Conv", "Relu"]
    assert sorted(graph.params) == ["conv0/bias", "conv0/kernel"]


def test_a_convolution_with_two_readers_gets_no_bias(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["p"]),
        node("Add", ["p", "b"], ["q"]),
        node("Mul", ["p", "q"], ["y"]),
    ]
    assert kinds(converted(tmp_path, nodes, constants=CONV)) == ["Conv", "Add", "Mul"]


def test_a_second_constant_stays(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["p"]),
        node("Add", ["p", "b"], ["q"]),
        node("Add", ["q", "row"], ["y"]),
    ]
    assert kinds(converted(tmp_path, nodes, constants=CONV)) == ["Conv", "Add"]


def test_pooling_to_one_pixel_and_flattening_is_one_layer(tmp_path):
    nodes = [
        node("ReduceMean", ["x"], ["p"], axes=[2, 3], keepdims=1),
        node("Flatten", ["p"], ["q"]),
        node("MatMul", ["q", "m"], ["y"]),
    ]
    graph = converted(tmp_path, nodes, constants={"m": weights(3, 2)})
    assert kinds(graph) == ["GlobalAveragePool", "Dense"]
    assert graph.nodes[0].op.keepdims is False


def test_a_value_that_is_stretched_for_a_product_is_not(tmp_path):
    nodes = [
        node("GlobalAveragePool", ["x"], ["p"]),
        node("Expand", ["p", "shape"], ["q"]),
        node("Mul", ["x", "q"], ["y"]),
    ]
    constants = {"shape": np.int64([1, 3, 4, 5])}
    graph = converted(tmp_path, nodes, constants=constants)
    assert kinds(graph) == ["GlobalAveragePool", "Mul"]


def test_a_value_that_is_stretched_for_good_is(tmp_path):
    nodes = [
        node("GlobalAveragePool", ["x"], ["p"]),
        node("Expand", ["p", "shape"], ["q"]),
        node("Mul", ["p", "q"], ["y"]),
    ]
    constants = {"shape": np.int64([1, 3, 4, 5])}
    graph = converted(tmp_path, nodes, constants=constants)
    assert kinds(graph) == ["GlobalAveragePool", "Constant", "Mul", "Mul"]


@pytest.mark.parametrize(
    "bounds", [((0, 1), (2, 3)), ((0, 1), (1, 2)), ((1, 2), (2, 3)), ((0, 2), (1, 3))]
)
def test_slices_that_do_not_make_up_the_whole_stay(tmp_path, bounds):
    names = [("a", "b"), ("c", "d")]
    constants = {
        name: np.int64([number])
        for pair, numbers in zip(names, bounds, strict=True)
        for name, number in zip(pair, numbers, strict=True)
    }
    constants["axis"] = np.int64([1])
    nodes = [
        node("Slice", ["x", "a", "b", "axis"], ["p"]),
        node("Slice", ["x", "c", "d", "axis"], ["q"]),
        node("Concat", ["p", "q"], ["y"], axis=1),
    ]
    graph = converted(tmp_path, nodes, constants=constants)
    assert kinds(graph) == ["Slice", "Slice", "Concat"]
