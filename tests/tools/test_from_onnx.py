"""Every ONNX operator against ONNX Runtime: a tiny model each, both layouts."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import (
    check_model,
    evaluate,
    kinds,
    node,
    onnx_model,
    session,
    weights,
)
from striate import Model
from striate.errors import UnsupportedModelError
from striate.tools import convert

N = "batch"


def ints(*numbers):
    return np.array(numbers, np.int64)


def floats(*numbers):
    return np.array(numbers, np.float32)


def scalar(number):
    return np.array(number, np.float32)


def one(op, shape=(N, 4, 6, 5), opset=17, constants=None, inputs=None, **attributes):
    """Return a model of one node that reads x and then the constants in order."""
    constants = constants or {}
    inputs = inputs or {"x": shape}
    names = [*inputs, *constants]
    names = ["" if name.startswith("absent") else name for name in names]
    constants = {k: v for k, v in constants.items() if not k.startswith("absent")}
    return onnx_model(
        [node(op, names, ["y"], **attributes)], inputs, ("y",), opset, constants
    )


W2 = weights(6, 4, 3, 3)
B2 = weights(6)

CONV = {
    "plain": ((N, 4, 6, 5), {"w": W2}, {}),
    "bias": ((N, 4, 6, 5), {"w": W2, "b": B2}, {}),
    "stride": ((N, 4, 9, 8), {"w": W2, "b": B2}, {"strides": [2, 3]}),
    "dilation": ((N, 4, 9, 8), {"w": W2}, {"dilations": [2, 3]}),
    "uneven padding": ((N, 4, 6, 5), {"w": W2}, {"pads": [1, 0, 2, 3]}),
    "same upper": (
        (N, 4, 8, 7),
        {"w": weights(6, 4, 3, 2)},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ),
    "same lower": (
        (N, 4, 8, 7),
        {"w": weights(6, 4, 3, 2)},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    ),
    "valid": ((N, 4, 8, 7), {"w": W2}, {"auto_pad": "VALID"}),
    "kernel shape": ((N, 4, 6, 5), {"w": W2}, {"kernel_shape": [3, 3]}),
    "groups": ((N, 6, 6, 5), {"w": weights(4, 3, 3, 2), "b": weights(4)}, {"group": 2}),
    "depthwise": ((N, 4, 6, 5), {"w": weights(4, 1, 3, 3)}, {"group": 4}),
    "depthwise twice": (
        (N, 4, 6, 5),
        {"w": weights(8, 1, 3, 3), "b": weights(8)},
        {"group": 4, "pads": [1, 1, 1, 1]},
    ),
    "pointwise": ((N, 4, 6, 5), {"w": weights(6, 4, 1, 1)}, {}),
    "1-D": ((N, 4, 9), {"w": weights(6, 4, 3), "b": B2}, {"pads": [1, 2]}),
    "3-D": (
        (N, 2, 5, 6, 4),
        {"w": weights(3, 2, 2, 3, 2)},
        {"pads": [0, 1, 1, 1, 0, 0], "strides": [1, 2, 1]},
    ),
}


@pytest.mark.parametrize("opset", [7, 11, 22])
@pytest.mark.parametrize("name", CONV)
def test_conv(tmp_path, name, opset):
    shape, constants, attributes = CONV[name]
    graph = check_model(tmp_path, one("Conv", shape, opset, constants, **attributes))
    assert kinds(graph) == ["Conv"]


POOL = {
    "plain": (7, (N, 3, 6, 5), {"kernel_shape": [2, 2]}),
    "stride": (7, (N, 3, 9, 8), {"kernel_shape": [3, 2], "strides": [2, 3]}),
    "padding": (7, (N, 3, 6, 5), {"kernel_shape": [3, 3], "pads": [1, 0, 2, 1]}),
    "same": (
        7,
        (N, 3, 8, 7),
        {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ),
    "same lower": (
        7,
        (N, 3, 8, 7),
        {"kernel_shape": [3, 2], "auto_pad": "SAME_LOWER", "strides": [2, 2]},
    ),
    "ceil": (
        10,
        (N, 3, 8, 7),
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    ),
    "ceil padded": (
        12,
        (N, 3, 8, 6),
        {
            "kernel_shape": [3, 3],
            "strides": [2, 2],
            "ceil_mode": 1,
            "pads": [1, 1, 1, 1],
        },
    ),
    "1-D": (11, (N, 3, 9), {"kernel_shape": [3], "strides": [2]}),
    "3-D": (22, (N, 2, 4, 5, 6), {"kernel_shape": [2, 2, 3]}),
}


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("name", POOL)
def test_pool(tmp_path, op, name):
    opset, shape, attributes = POOL[name]
    graph = check_model(tmp_path, one(op, shape, opset, **attributes))
    assert kinds(graph) == [op]


@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_average_pool_counts_padding(tmp_path, ceil_mode):
    attributes = {
        "kernel_shape": [3, 3],
        "strides": [2, 2],
        "pads": [1, 1, 1, 1],
        "count_include_pad": 1,
        "ceil_mode": ceil_mode,
    }
    check_model(tmp_path, one("AveragePool", (N, 3, 8, 6), 11, **attributes))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_windows_of_one_pixel_side_by_side_are_nothing(tmp_path, op):
    model = one(op, (N, 3, 6, 5), 11, kernel_shape=[1, 1], pads=[0, 0, 0, 0])
    assert kinds(check_model(tmp_path, model)) == ["Identity"]
    model = one(op, (N, 3, 6, 5), 11, kernel_shape=[1, 1], strides=[2, 2])
    assert kinds(check_model(tmp_path, model)) == [op]


def test_max_pool_dilated(tmp_path):
    attributes = {"kernel_shape": [2, 2], "dilations": [2, 3]}
    check_model(tmp_path, one("MaxPool", (N, 3, 8, 7), 11, **attributes))


def test_average_pool_dilated(tmp_path):
    attributes = {"kernel_shape": [2, 2], "dilations": [2, 3]}
    check_model(tmp_path, one("AveragePool", (N, 3, 8, 7), 19, **attributes))


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(N, 3, 7), (N, 3, 4, 5), (N, 3, 2, 4, 5)])
def test_global_pool(tmp_path, op, shape):
    assert kinds(check_model(tmp_path, one(op, shape, 7))) == [op]


GEMM = {
    "plain": ({"b": weights(7, 4)}, {}),
    "bias": ({"b": weights(7, 4), "c": weights(4)}, {}),
    "turned": ({"b": weights(4, 7), "c": weights(4)}, {"transB": 1}),
    "scaled": ({"b": weights(7, 4), "c": weights(4)}, {"alpha": 0.5, "beta": 2.0}),
    "row": ({"b": weights(7, 4), "c": weights(1, 4)}, {"beta": 0.25}),
    "number": ({"b": weights(7, 4), "c": weights(1)}, {}),
    "no beta": ({"b": weights(7, 4), "c": weights(4)}, {"beta": 0.0}),
}


@pytest.mark.parametrize("opset", [7, 9, 13])
@pytest.mark.parametrize("name", GEMM)
def test_gemm(tmp_path, name, opset):
    constants, attributes = GEMM[name]
    if len(constants) == 1 and opset < 11:
        constants = {**constants, "c": np.zeros(4, np.float32)}
    graph = check_model(tmp_path, one("Gemm", (N, 7), opset, constants, **attributes))
    assert kinds(graph) == ["Dense"]


def test_gemm_of_a_transposed_input(tmp_path):
    model = one("Gemm", (7, 3), 13, {"b": weights(7, 4)}, transA=1)
    check_model(tmp_path, model, batches=(7,))


def test_gemm_adds_a_computed_tensor(tmp_path):
    inputs = {"x": (N, 7), "z": (N, 4)}
    nodes = [node("Gemm", ["x", "b", "z"], ["y"], beta=0.5)]
    check_model(tmp_path, onnx_model(nodes, inputs, constants={"b": weights(7, 4)}))


@pytest.mark.parametrize("shape", [(N, 7), (N, 5, 7), (N, 2, 5, 7)])
def test_mat_mul(tmp_path, shape):
    graph = check_model(tmp_path, one("MatMul", shape, 13, {"b": weights(7, 4)}))
    assert "Dense" in kinds(graph)


def test_mat_mul_with_the_constant_first(tmp_path):
    nodes = [node("MatMul", ["a", "x"], ["y"])]
    model = onnx_model(nodes, {"x": (N, 5, 7)}, constants={"a": weights(3, 5)})
    check_model(tmp_path, model)


def test_mat_mul_and_add_are_one_layer(tmp_path):
    nodes = [node("MatMul", ["x", "a"], ["p"]), node("Add", ["b", "p"], ["y"])]
    constants = {"a": weights(7, 4), "b": weights(4)}
    graph = check_model(tmp_path, onnx_model(nodes, {"x": (N, 7)}, constants=constants))
    assert kinds(graph) == ["Dense"]


NORM = [
    weights(4, low=0.5),
    weights(4, seed=1),
    weights(4, seed=2),
    weights(4, seed=3, low=0.1),
]


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
@pytest.mark.parametrize("shape", [(N, 4), (N, 4, 6), (N, 4, 6, 5), (N, 4, 2, 3, 5)])
def test_batch_normalization(tmp_path, shape, opset):
    constants = dict(zip("sbmv", NORM, strict=True))
    model = one("BatchNormalization", shape, opset, constants, epsilon=1e-3)
    assert kinds(check_model(tmp_path, model)) == ["BatchNorm"]


def test_batch_normalization_of_a_flattened_image(tmp_path):
    nodes = [
        node("Relu", ["x"], ["p"]),
        node("Flatten", ["p"], ["q"]),
        node("BatchNormalization", ["q", *"sbmv"], ["r"]),
        node("Reshape", ["r", "shape"], ["y"]),
    ]
    arrays = [weights(24, seed=seed, low=0.1) for seed in range(4)]
    constants = dict(zip("sbmv", arrays, strict=True))
    constants["shape"] = ints(0, 4, 3, 2)
    model = onnx_model(nodes, {"x": (N, 4, 3, 2)}, constants=constants)
    assert "Transpose" not in kinds(check_model(tmp_path, model))


def test_batch_normalization_of_every_element(tmp_path):
    arrays = [weights(4, 3, 2, seed=s, low=0.1) for s in range(4)]
    constants = dict(zip("sbmv", arrays, strict=True))
    model = one("BatchNormalization", (N, 4, 3, 2), 7, constants, spatial=0)

    def oracle(feeds):
        s, b, m, v = arrays
        return {"y": (feeds["x"] - m) / np.sqrt(v + 1e-5) * s + b}

    check_model(tmp_path, model, oracle)


def test_batch_normalization_before_version_7(tmp_path):
    constants = dict(zip("sbmv", NORM, strict=True))
    model = one("BatchNormalization", (N, 4, 6, 5), 6, constants, is_test=1)

    def oracle(feeds):
        s, b, m, v = (a[:, None, None] for a in NORM)
        return {"y": (feeds["x"] - m) / np.sqrt(v + 1e-5) * s + b}

    check_model(tmp_path, model, oracle)


UNARY = {
    "Relu": ("Relu", 7, {}),
    "Relu 14": ("Relu", 14, {}),
    "Sigmoid": ("Sigmoid", 7, {}),
    "Tanh": ("Tanh", 7, {}),
    "Exp": ("Exp", 7, {}),
    "Abs": ("Abs", 7, {}),
    "Neg": ("Neg", 7, {}),
    "Erf": ("Erf", 13, {}),
    "Softplus": ("Softplus", 7, {}),
    "LeakyRelu": ("LeakyRelu", 7, {}),
    "LeakyRelu alpha": ("LeakyRelu", 16, {"alpha": 0.3}),
    "Elu": ("Elu", 7, {}),
    "Elu alpha": ("Elu", 7, {"alpha": 0.4}),
    "HardSigmoid": ("HardSigmoid", 7, {}),
    "HardSigmoid slope": ("HardSigmoid", 7, {"alpha": 1 / 6, "beta": 0.4}),
    "HardSwish": ("HardSwish", 14, {}),
    "Mish": ("Mish", 18, {}),
    "Gelu": ("Gelu", 20, {}),
    "Gelu tanh": ("Gelu", 20, {"approximate": "tanh"}),
    "Clip 7": ("Clip", 7, {"min": -0.5, "max": 1.5}),
    "Clip 7 below": ("Clip", 7, {"min": -0.5}),
    "Dropout": ("Dropout", 7, {"ratio": 0.3}),
    "Dropout 12": ("Dropout", 12, {}),
    "Identity": ("Identity", 7, {}),
}


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(N, 4), (N, 4, 6, 5)])
def test_unary(tmp_path, name, shape):
    op, opset, attributes = UNARY[name]
    graph = check_model(tmp_path, one(op, shape, opset, **attributes))
    assert len(graph.nodes) == 1


@pytest.mark.parametrize("op", ["Log", "Sqrt", "Reciprocal"])
def test_unary_of_positive_numbers(tmp_path, op):
    check_model(tmp_path, one(op, (N, 4, 6, 5), 7), low=0.1)


@pytest.mark.parametrize("alpha", [1.0, 1.7])
def test_swish(tmp_path, alpha):
    def oracle(feeds):
        x = feeds["x"].astype(np.float64)
        return {"y": x / (1 + np.exp(-alpha * x))}

    graph = check_model(tmp_path, one("Swish", opset=24, alpha=alpha), oracle)
    assert kinds(graph) == ["Silu" if alpha == 1 else "Swish"]


CLIP = {
    "both": ({"a": scalar(-0.5), "b": scalar(1.5)}, "Clip"),
    "six": ({"a": scalar(0), "b": scalar(6)}, "Clip"),
    "low": ({"a": scalar(-0.5)}, "Clip"),
    "zero": ({"a": scalar(0)}, "Relu"),
    "high": ({"absent": None, "b": scalar(0.5)}, "Clip"),
    "crossed": ({"a": scalar(1.5), "b": scalar(-0.5)}, "Clip"),
}


@pytest.mark.parametrize("opset", [11, 12, 13])
@pytest.mark.parametrize("name", CLIP)
def test_clip(tmp_path, name, opset):
    constants, kind = CLIP[name]
    assert kinds(
        check_model(tmp_path, one("Clip", opset=opset, constants=constants))
    ) == [kind]


@pytest.mark.parametrize("opset", [7, 9, 16])
@pytest.mark.parametrize("shape", [(1,), (4, 1, 1), (1, 4, 1, 1), (5,), (4, 6, 5)])
def test_p_relu(tmp_path, shape, opset):
    model = one("PRelu", opset=opset, constants={"slope": weights(*shape)})
    assert kinds(check_model(tmp_path, model)) == ["PRelu"]


@pytest.mark.parametrize("size", [1, 4])
def test_p_relu_before_version_7_has_a_slope_a_channel(tmp_path, size):
    slope = weights(size)

    def oracle(feeds):
        x = feeds["x"]
        return {"y": np.where(x < 0, x * slope[:, None, None], x)}

    check_model(tmp_path, one("PRelu", opset=6, constants={"slope": slope}), oracle)


CONSTANT_SHAPES = [
    (),
    (1,),
    (5,),
    (6, 1),
    (4, 1, 1),
    (1, 4, 1, 1),
    (1, 1, 1, 5),
    (4, 6, 5),
]


@pytest.mark.parametrize("shape", CONSTANT_SHAPES)
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow"])
@pytest.mark.parametrize("first", [False, True])
def test_binary_with_a_constant(tmp_path, op, shape, first):
    names = ["c", "x"] if first else ["x", "c"]
    constants = {"c": weights(*shape, low=0.5, high=1.5)}
    model = onnx_model(
        [node(op, names, ["y"])], {"x": (N, 4, 6, 5)}, constants=constants
    )
    assert len(check_model(tmp_path, model, low=0.5).nodes) == 1


def test_binary_with_a_constant_that_is_larger(tmp_path):
    nodes = [node("Add", ["x", "c"], ["y"])]
    constants = {"c": weights(4, 6, 5)}
    check_model(tmp_path, onnx_model(nodes, {"x": (N, 4, 1, 1)}, constants=constants))


@pytest.mark.parametrize("opset", [7, 13, 14])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_binary_of_two_values(tmp_path, op, opset):
    inputs = {"x": (N, 4, 6, 5), "z": (N, 4, 6, 5)}
    nodes = [node(op, ["x", "z"], ["y"])]
    check_model(tmp_path, onnx_model(nodes, inputs, opset=opset), low=0.5)


@pytest.mark.parametrize(
    "shapes",
    [
        ((N, 4, 6, 5), (N, 4, 1, 1)),
        ((N, 1, 6, 5), (N, 4, 1, 1)),
        ((N, 4, 1, 5), (N, 4, 6, 1)),
    ],
)
def test_binary_broadcasts_two_values(tmp_path, shapes):
    inputs = dict(zip("xz", shapes, strict=True))
    graph = check_model(tmp_path, onnx_model([node("Mul", ["x", "z"], ["y"])], inputs))
    assert kinds(graph) == ["Mul"]


def test_values_of_unequal_rank_broadcast(tmp_path):
    nodes = [
        node("GlobalAveragePool", ["x"], ["g"]),
        node("Reshape", ["g", "s"], ["h"]),
        node("Add", ["x", "h"], ["y"]),
    ]
    model = onnx_model(nodes, {"x": (1, 4, 6, 5)}, constants={"s": ints(4, 1, 1)})
    graph = check_model(tmp_path, model)
    assert graph.inputs[0].shape == (1, 6, 5, 4)


@pytest.mark.parametrize("axis", [None, 1])
def test_broadcast_before_version_7(tmp_path, axis):
    b = weights(4) if axis else weights(5)
    attributes = {"broadcast": 1} | ({"axis": axis} if axis else {})
    model = one("Mul", opset=6, constants={"b": b}, **attributes)

    def oracle(feeds):
        return {"y": feeds["x"] * (b[:, None, None] if axis else b)}

    check_model(tmp_path, model, oracle)


@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "Mean"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_tensors(tmp_path, op, count):
    inputs = {f"x{i}": (N, 4, 6, 5) for i in range(count)}
    model = onnx_model([node(op, list(inputs), ["y"])], inputs, opset=8)
    check_model(tmp_path, model)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [1, 2, 3, -1, -3])
@pytest.mark.parametrize("opset", [11, 13])
def test_softmax(tmp_path, op, axis, opset):
    check_model(tmp_path, one(op, (N, 4, 3, 5), opset, axis=axis))


@pytest.mark.parametrize("opset", [11, 13])
def test_softmax_of_a_row(tmp_path, opset):
    assert kinds(check_model(tmp_path, one("Softmax", (N, 6), opset))) == ["Softmax"]


def test_softmax_before_version_13_over_channels_of_one_pixel(tmp_path):
    nodes = [
        node("GlobalAveragePool", ["x"], ["g"]),
        node("Softmax", ["g"], ["y"]),
    ]
    graph = check_model(tmp_path, onnx_model(nodes, {"x": (N, 4, 6, 5)}, opset=11))
    assert kinds(graph) == ["GlobalAveragePool", "Softmax"]


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2, -3])
def test_concat(tmp_path, axis):
    shape = [N, 4, 6, 5]
    other = list(shape)
    other[axis] = 3
    model = onnx_model(
        [node("Concat", ["x", "z"], ["y"], axis=axis)], {"x": shape, "z": other}
    )
    assert kinds(check_model(tmp_path, model)) == ["Concat"]


def test_concat_with_a_constant(tmp_path):
    nodes = [node("Concat", ["x", "c"], ["y"], axis=1)]
    model = onnx_model(nodes, {"x": (1, 4, 3, 2)}, constants={"c": weights(1, 2, 3, 2)})
    graph = check_model(tmp_path, model)
    assert graph.inputs[0].shape == (1, 3, 2, 4)
    assert graph.metadata["conversion"]["notes"]


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("opset", [2, 11, 13, 18])
def test_split(tmp_path, axis, opset):
    sizes = {1: [1, 3], 2: [4, 2], -1: [2, 3]}[axis]
    given = opset >= 13
    split = node(
        "Split",
        ["x", "s"] if given else ["x"],
        ["y", "z"],
        axis=axis,
        **({} if given else {"split": sizes}),
    )
    constants = {"s": ints(*sizes)} if given else {}

    def oracle(feeds):
        return dict(zip("yz", np.split(feeds["x"], sizes[:1], axis), strict=True))

    model = onnx_model([split], {"x": (N, 4, 6, 5)}, ("y", "z"), opset, constants)
    graph = check_model(tmp_path, model, oracle)
    assert kinds(graph) == ["Split"]
    assert graph.outputs == ["y", "z"]


def test_split_in_equal_parts(tmp_path):
    nodes = [node("Split", ["x"], ["y", "z"], axis=1)]
    check_model(tmp_path, onnx_model(nodes, {"x": (N, 4, 6, 5)}, ("y", "z"), 13))


def test_split_with_a_smaller_last_part(tmp_path):
    nodes = [node("Split", ["x"], ["y", "z"], axis=3, num_outputs=2)]
    check_model(tmp_path, onnx_model(nodes, {"x": (N, 4, 6, 5)}, ("y", "z"), 18))


SLICE = {
    "one axis": ([1], [3], [1], None),
    "two axes": ([1, 0], [3, 5], [3, 2], None),
    "from the end": ([-3], [-1], [-2], None),
    "open end": ([2], [2**31 - 1], [2], None),
    "farther end": ([2], [2**63 - 1], [2], None),
    "steps": ([0, 1], [6, 5], [2, 3], [2, 3]),
    "backwards": ([5], [-(2**31)], [2], [-1]),
    "backwards in part": ([-1, 4], [-6, 0], [2, 3], [-2, -3]),
    "leading axes": ([0, 1], [2**31 - 1, 3], None, None),
    "everything": ([0], [2**31 - 1], [2], None),
}


@pytest.mark.parametrize("name", SLICE)
def test_slice(tmp_path, name):
    starts, ends, axes, steps = SLICE[name]
    constants = {"s": ints(*starts), "e": ints(*ends)}
    if axes is not None:
        constants["a"] = ints(*axes)
    if steps is not None:
        constants["t"] = ints(*steps)
    graph = check_model(tmp_path, one("Slice", constants=constants))
    assert kinds(graph) == (["Identity"] if name == "everything" else ["Slice"])


@pytest.mark.parametrize("axes", [None, [2, 3]])
def test_slice_by_attributes(tmp_path, axes):
    attributes = {"starts": [0, 1], "ends": [9, -1]}
    if axes:
        attributes["axes"] = axes
    check_model(tmp_path, one("Slice", opset=9, **attributes))


def test_slices_that_cover_an_axis_are_one_split(tmp_path):
    nodes = [
        node("Slice", ["x", "b", "c", "one"], ["p"]),
        node("Slice", ["x", "a", "b", "one"], ["q"]),
        node("Relu", ["q"], ["r"]),
        node("Add", ["p", "r"], ["y"]),
    ]
    constants = {"a": ints(0), "b": ints(2), "c": ints(4), "one": ints(1)}
    graph = check_model(
        tmp_path, onnx_model(nodes, {"x": (N, 4, 6, 5)}, constants=constants)
    )
    assert kinds(graph) == ["Split", "Relu", "Add"]


def test_slice_of_an_open_axis(tmp_path):
    constants = {"s": ints(1, -3), "e": ints(-1, 2**31 - 1), "a": ints(2, 3)}
    model = one("Slice", (N, 4, "H", "W"), constants=constants)
    graph = check_model(tmp_path, model)
    assert graph.inputs[0].shape == ("N", "H", "W", 4)


@pytest.mark.parametrize(
    "indices", [np.int64(2), np.int64(-1), ints(1, 2, 3), ints(3, 1), ints(2, 1, 0)]
)
@pytest.mark.parametrize("axis", [1, -1])
def test_gather_of_a_range(tmp_path, indices, axis):
    model = one("Gather", constants={"i": np.asarray(indices)}, axis=axis)
    check_model(tmp_path, model)


PAD = {
    "spatial": [0, 0, 1, 2, 0, 0, 3, 0],
    "channels": [0, 1, 0, 0, 0, 2, 0, 0],
    "nothing": [0] * 8,
}


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("name", PAD)
def test_pad(tmp_path, name, mode):
    constants = {"p": ints(*PAD[name])}
    if mode == "constant":
        constants["v"] = scalar(1.5)
    model = one("Pad", opset=19, constants=constants, mode=mode)
    check_model(tmp_path, model)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad_by_attributes(tmp_path, mode):
    pads = [0, 0, 1, 2, 0, 0, 3, 0]
    check_model(tmp_path, one("Pad", opset=7, pads=pads, mode=mode, value=0.0))


def test_pad_of_some_axes(tmp_path):
    constants = {"p": ints(1, 2, 3, 4), "v": scalar(0.5), "a": ints(-1, 2)}
    check_model(tmp_path, one("Pad", opset=18, constants=constants))


def test_pad_by_negative_numbers_cuts(tmp_path):
    constants = {"p": ints(0, 0, -1, 1, 0, 1, -2, -1)}
    graph = check_model(tmp_path, one("Pad", opset=13, constants=constants))
    assert kinds(graph) == ["Slice", "Pad"]


RESHAPE = {
    "flat": [0, -1],
    "flat with the batch left over": [-1, 120],
    "rows": [0, 4, 30],
    "split channels": [0, 2, 2, 6, 5],
    "across axes": [0, 8, 15],
    "more axes": [-1, 4, 2, 3, 5],
    "same": [0, 0, 0, 0],
}


@pytest.mark.parametrize("opset", [5, 13, 14])
@pytest.mark.parametrize("name", RESHAPE)
def test_reshape(tmp_path, name, opset):
    model = one("Reshape", opset=opset, constants={"s": ints(*RESHAPE[name])})
    wanted = RESHAPE[name]

    def oracle(feeds):
        x = feeds["x"]
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
        return {"y": x.reshape(shape)}

    check_model(tmp_path, model, oracle)


def test_reshape_to_channels_that_go_on_as_an_image(tmp_path):
    nodes = [
        node("Reshape", ["x", "s"], ["p"]),
        node("Conv", ["p", "w"], ["y"]),
    ]
    constants = {"s": ints(-1, 3, 4, 5), "w": weights(2, 3, 3, 3)}
    check_model(tmp_path, onnx_model(nodes, {"x": (N, 60)}, constants=constants))


@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4, -1, -3])
@pytest.mark.parametrize("opset", [9, 13])
def test_flatten(tmp_path, axis, opset):
    if axis < 0 and opset < 11:
        opset = 11
    check_model(tmp_path, one("Flatten", opset=opset, axis=axis))


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_and_unsqueeze(tmp_path, opset):
    nodes, constants = [], {}
    for op, source, target, axes in (
        ("Unsqueeze", "x", "p", [2, -1]),
        ("Squeeze", "p", "q", [2]),
        ("Unsqueeze", "q", "r", [1]),
        ("Relu", "r", "s", None),
        ("Squeeze", "s", "y", [1, -1]),
    ):
        given = opset >= 13 and axes
        attributes = {"axes": axes} if axes and not given else {}
        inputs = [source] + ([f"a{target}"] if given else [])
        if given:
            constants[f"a{target}"] = ints(*axes)
        nodes.append(node(op, inputs, [target], **attributes))
    model = onnx_model(nodes, {"x": (N, 4, 6)}, opset=opset, constants=constants)
    check_model(tmp_path, model)


def test_squeeze_of_every_axis_of_size_one(tmp_path):
    nodes = [node("GlobalAveragePool", ["x"], ["p"]), node("Squeeze", ["p"], ["y"])]
    graph = check_model(tmp_path, onnx_model(nodes, {"x": (3, 4, 6, 5)}), batches=(3,))
    assert kinds(graph) == ["GlobalAveragePool"]
    onnx.save(onnx_model(nodes, {"x": (N, 4, 6, 5)}), tmp_path / "open.onnx")
    with pytest.raises(UnsupportedModelError, match="open may be 1"):
        convert(tmp_path / "open.onnx")


@pytest.mark.parametrize("perm", [[0, 2, 3, 1], [0, 3, 2, 1], [1, 0, 2, 3], None])
def test_transpose(tmp_path, perm):
    attributes = {} if perm is None else {"perm": perm}
    check_model(tmp_path, one("Transpose", **attributes))


REDUCE = {
    "spatial": ([2, 3], 1, "GlobalAveragePool"),
    "spatial, without the axes": ([2, 3], 0, "GlobalAveragePool"),
    "from the end": ([-1, -2], 0, "GlobalAveragePool"),
    "channels": ([1], 1, "Mean"),
    "rows": ([2], 0, "Mean"),
    "all but the batch": ([1, 2, 3], 1, "Mean"),
}


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("name", REDUCE)
def test_reduce_mean(tmp_path, name, opset):
    axes, keepdims, kind = REDUCE[name]
    given = opset >= 18
    model = one(
        "ReduceMean",
        opset=opset,
        constants={"a": ints(*axes)} if given else None,
        keepdims=keepdims,
        **({} if given else {"axes": axes}),
    )
    assert kinds(check_model(tmp_path, model))[0] == kind


@pytest.mark.parametrize("shape", [(N, 4, 6, 5), (1, 4, 1, 1)])
def test_expand(tmp_path, shape):
    wanted = [1, 4, 6, 5] if shape[0] == N else [1, 4, 3, 2]
    check_model(tmp_path, one("Expand", shape, constants={"s": ints(*wanted)}))


def test_cast_to_float_of_whole_numbers(tmp_path):
    nodes = [
        node("Cast", ["x"], ["p"], to=TensorProto.FLOAT),
        node("Mul", ["p", "c"], ["y"]),
    ]
    model = onnx_model(
        nodes,
        {"x": (N, 3, 4, 4)},
        constants={"c": floats(1 / 255)},
        dtypes={"x": TensorProto.UINT8},
    )
    onnx.save(model, tmp_path / "net.onnx")
    graph = convert(tmp_path / "net.onnx")
    assert [entry.dtype for entry in graph.inputs] == ["uint8"]
    assert kinds(graph) == ["Cast", "Mul"]
    x = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    with Model(graph, threads=1) as net:
        y = net(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, x / 255, rtol=1e-6)


def test_constants_of_every_kind(tmp_path):
    nodes = [
        node("Constant", [], ["a"], value_float=2.0),
        node("Constant", [], ["b"], value_floats=[0.5] * 5),
        node("Constant", [], ["c"], value_ints=[0, 4, -1]),
        node("Constant", [], ["d"], value=numpy_helper.from_array(weights(4, 1, 1))),
        node("Mul", ["x", "a"], ["p"]),
        node("Add", ["p", "b"], ["q"]),
        node("Sub", ["q", "d"], ["r"]),
        node("Reshape", ["r", "c"], ["y"]),
    ]
    check_model(tmp_path, onnx_model(nodes, {"x": (N, 4, 6, 5)}))


def test_if_with_a_constant_condition(tmp_path):
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(op, ["x"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)],
        )
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Size", ["s"], ["n"]),
        node("Equal", ["n", "four"], ["is_four"]),
        node("If", ["is_four"], ["p"], **branches),
        node("Neg", ["p"], ["y"]),
    ]
    model = onnx_model(nodes, {"x": (N, 4, 6, 5)}, constants={"four": np.int64(4)})
    assert kinds(check_model(tmp_path, model)) == ["Relu", "Neg"]


def test_weights_are_computed_from_weights(tmp_path):
    nodes = [
        node("ReduceMean", ["w"], ["m"], axes=[1, 2, 3], keepdims=1),
        node("Sub", ["w", "m"], ["d"]),
        node("Mul", ["d", "d"], ["s"]),
        node("ReduceMean", ["s"], ["v"], axes=[1, 2, 3], keepdims=1),
        node("Sqrt", ["v"], ["t"]),
        node("Div", ["d", "t"], ["u"]),
        node("Conv", ["x", "u"], ["y"]),
    ]
    model = onnx_model(nodes, {"x": (N, 4, 6, 5)}, constants={"w": W2})
    assert kinds(check_model(tmp_path, model)) == ["Conv"]


FOLDED = {
    "Range": [node("Range", ["one", "four", "one"], ["c"])],
    "ConstantOfShape": [node("ConstantOfShape", ["shape"], ["c"])],
    "Tile": [node("Tile", ["row", "two"], ["c"])],
    "Where": [
        node("Less", ["row", "half"], ["l"]),
        node("Where", ["l", "row", "half"], ["c"]),
    ],
    "Not": [
        node("Greater", ["row", "half"], ["g"]),
        node("Not", ["g"], ["l"]),
        node("Cast", ["l"], ["c"], to=TensorProto.FLOAT),
    ],
    "Floor": [node("Floor", ["row"], ["c"])],
    "Ceil": [node("Ceil", ["row"], ["c"])],
    "Round": [node("Round", ["row"], ["c"])],
    "Sign": [node("Sign", ["row"], ["c"])],
    "Mod": [node("Mod", ["row", "half"], ["c"], fmod=1)],
    "ReduceSum": [node("ReduceSum", ["square", "axes"], ["c"], keepdims=0)],
    "ReduceMax": [node("ReduceMax", ["square"], ["c"], axes=[0], keepdims=0)],
    "ReduceMin": [node("ReduceMin", ["square"], ["c"], axes=[-2], keepdims=0)],
    "ReduceProd": [node("ReduceProd", ["square"], ["c"], axes=[0], keepdims=0)],
    "ReduceL2": [node("ReduceL2", ["square"], ["c"], axes=[0], keepdims=1)],
    "GatherND": [node("GatherND", ["square", "places"], ["c"])],
    "Gather": [node("Gather", ["square", "picks"], ["c"], axis=1)],
    "Expand": [node("Expand", ["half", "shape"], ["c"])],
    "Concat": [node("Concat", ["row", "row"], ["c"], axis=0)],
    "Slice": [node("Slice", ["row", "zero", "two"], ["c"])],
    "Slice backwards": [node("Slice", ["row", "last", "far", "zero", "back"], ["c"])],
    "Split": [node("Split", ["row", "parts"], ["c", "other"], axis=0)],
    "Pad": [node("Pad", ["row", "ends"], ["c"])],
    "Clip": [node("Clip", ["row", "half"], ["c"])],
    "Softmax": [
        node("Softmax", ["square"], ["p"]),
        node("Gather", ["p", "pick"], ["c"]),
    ],
    "Div": [
        node("Div", ["minus", "two"], ["d"]),
        node("Cast", ["d"], ["c"], to=TensorProto.FLOAT),
    ],
    "Max": [node("Max", ["row", "half"], ["c"])],
    "MatMul": [node("MatMul", ["square", "row"], ["c"])],
    "Transpose": [
        node("Transpose", ["square"], ["t"]),
        node("Gather", ["t", "pick"], ["c"]),
    ],
}

FOLDED_CONSTANTS = {
    "one": scalar(1),
    "four": scalar(4),
    "shape": ints(3),
    "row": floats(-1.25, 0.25, 2.5),
    "half": floats(0.5),
    "square": weights(3, 3),
    "axes": ints(0),
    "two": ints(2),
    "zero": ints(0),
    "last": ints(-1),
    "far": ints(-(2**63) + 1),
    "back": ints(-1),
    "parts": ints(1, 2),
    "ends": ints(1, 2),
    "places": np.array([[0, 1], [2, 2], [1, 0]], np.int64),
    "picks": ints(2),
    "pick": np.int64(1),
    "minus": ints(-7, 7, 5),
}


@pytest.mark.parametrize("name", FOLDED)
def test_folding(tmp_path, name):
    """What is computed from constants alone becomes a weight of the Mul."""
    nodes = FOLDED[name]
    used = {value for each in nodes for value in each.input}
    constants = {k: v for k, v in FOLDED_CONSTANTS.items() if k in used}
    sizes = {"Tile": 6, "Concat": 6, "Slice": 2, "Pad": 6, "Split": 1, "Gather": 3}
    shape = (N, sizes.get(name, 3))
    if name == "Gather":
        shape = (N, 3, 2)
    model = onnx_model(
        [*nodes, node("Mul", ["x", "c"], ["y"])], {"x": shape}, constants=constants
    )
    graph = check_model(tmp_path, model)
    assert kinds(graph) == ["Mul"]


def test_a_constant_output(tmp_path):
    nodes = [node("Relu", ["x"], ["y"]), node("Neg", ["c"], ["z"])]
    model = onnx_model(nodes, {"x": (N, 3)}, ("y", "z"), constants={"c": weights(2, 3)})
    assert kinds(check_model(tmp_path, model)) == ["Relu", "Constant"]


def test_every_version_is_the_nearest_one_below():
    from striate.tools.from_onnx import importer  # noqa: F401
    from striate.tools.from_onnx.registry import find_handler

    assert find_handler("Softmax", "", 12) is not find_handler("Softmax", "", 13)
    assert find_handler("Softmax", "", 13) is find_handler("Softmax", "", 28)
    assert find_handler("Gelu", "", 19) is None
    assert find_handler("Relu", "com.example", 1) is None


def test_evaluate_restores_the_order_of_axes(tmp_path):
    """The comparison itself: a wrong axis order must not go unseen."""
    import onnx

    onnx.save(one("Relu", (N, 4, 6, 5)), tmp_path / "m.onnx")
    graph = convert(tmp_path / "m.onnx")
    assert graph.inputs[0].shape == ("N", 6, 5, 4)
    x = weights(2, 4, 6, 5)
    assert np.array_equal(evaluate(graph, {"x": x})["y"], np.maximum(x, 0))


NOTHING = np.zeros(0, np.float32)
SHAPE = (N, 4, 6, 5)
KERNEL = weights(4, 3, 3, 2)
MORE = {
    "ConvTranspose padded": (
        (7, 11, 22),
        SHAPE,
        {"w": KERNEL},
        {"strides": [2, 3], "pads": [1, 0, 1, 1], "output_padding": [1, 0]},
        ["ConvTranspose"],
    ),
    "ConvTranspose same": (
        (7, 22),
        SHAPE,
        {"w": KERNEL},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        ["ConvTranspose"],
    ),
    "ConvTranspose same lower": (
        (7, 22),
        SHAPE,
        {"w": KERNEL},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        ["ConvTranspose"],
    ),
    "ConvTranspose shape": (
        (7, 22),
        SHAPE,
        {"w": KERNEL},
        {"strides": [2, 2], "output_shape": [12, 10]},
        ["ConvTranspose"],
    ),
    "ConvTranspose groups": (
        (11,),
        SHAPE,
        {"w": KERNEL, "b": weights(6)},
        {"group": 2, "dilations": [2, 1]},
        ["ConvTranspose"],
    ),
    "ConvTranspose 3-D": (
        (11,),
        (N, 2, 3, 4, 3),
        {"w": weights(2, 3, 2, 3, 2)},
        {"strides": [2, 1, 2]},
        ["ConvTranspose"],
    ),
    "Upsample 7": (
        (7,),
        SHAPE,
        {},
        {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "linear"},
        ["Resize"],
    ),
    "Upsample 9": ((9,), SHAPE, {"s": floats(1, 1, 2, 3)}, {}, ["Resize"]),
    "Resize 10 grows": ((10,), SHAPE, {"s": floats(1, 1, 1.5, 1.7)}, {}, ["Resize"]),
    "Resize 10 shrinks": ((10,), SHAPE, {"s": floats(1, 1, 0.5, 0.7)}, {}, ["Resize"]),
    "Resize 11": (
        (11, 13, 18, 19),
        SHAPE,
        {"r": NOTHING, "s": floats(1, 1, 2, 1.5)},
        {"mode": "cubic", "coordinate_transformation_mode": "asymmetric"},
        ["Resize"],
    ),
    "Resize nearest": (
        (11, 19),
        SHAPE,
        {"r": NOTHING, "s": floats(1, 1, 2, 1.5)},
        {"nearest_mode": "ceil"},
        ["Resize"],
    ),
    "Resize policy": (
        (18,),
        (N, 4, 12, 10),
        {"r": NOTHING, "s": NOTHING, "z": ints(7, 5)},
        {
            "mode": "linear",
            "axes": [2, 3],
            "keep_aspect_ratio_policy": "not_larger",
        },
        ["Resize"],
    ),
    "Resize antialias": (
        (18,),
        (N, 4, 12, 10),
        {"r": NOTHING, "s": floats(0.5, 0.6)},
        {"mode": "linear", "antialias": 1, "axes": [2, 3]},
        ["Resize"],
    ),
    "InstanceNormalization": (
        (6, 22),
        SHAPE,
        {"s": weights(4), "b": weights(4)},
        {},
        ["InstanceNorm"],
    ),
    "GroupNormalization 18": (
        (18,),
        SHAPE,
        {"s": weights(2), "b": weights(2)},
        {"num_groups": 2},
        ["GroupNorm"],
    ),
    "GroupNormalization 21": (
        (21,),
        SHAPE,
        {"s": weights(4), "b": weights(4)},
        {"num_groups": 2},
        ["GroupNorm"],
    ),
    "LayerNormalization": (
        (17,),
        SHAPE,
        {"s": weights(4, 6, 5), "b": weights(4, 6, 5)},
        {"axis": 1},
        ["LayerNorm"],
    ),
    "RMSNormalization": ((23,), SHAPE, {"s": weights(6, 5)}, {"axis": 2}, ["RMSNorm"]),
    "LRN": (
        (7, 13),
        (N, 8, 6, 5),
        {},
        {"size": 3, "alpha": 0.1, "bias": 2.0},
        ["LRN"],
    ),
    "LpNormalization": ((11,), SHAPE, {}, {"axis": 1, "p": 1}, ["LpNorm"]),
    "DepthToSpace": ((9, 13), (N, 8, 3, 2), {}, {"blocksize": 2}, ["DepthToSpace"]),
    "SpaceToDepth": ((9, 13), (N, 3, 4, 6), {}, {"blocksize": 2}, ["SpaceToDepth"]),
    "LpPool": (
        (7, 18),
        SHAPE,
        {},
        {"kernel_shape": [2, 3], "strides": [1, 2], "p": 3, "pads": [1, 0, 0, 1]},
        ["LpPool"],
    ),
    "GlobalLpPool": ((11,), SHAPE, {}, {"p": 3}, ["GlobalLpPool"]),
    "ReduceMax": ((11, 13), SHAPE, {}, {"axes": [2]}, ["ReduceMax"]),
    "ReduceL1": ((18,), SHAPE, {"a": ints(1)}, {}, ["ReduceL1"]),
    "Gather": ((13,), SHAPE, {"i": ints(3, 0, 2)}, {"axis": 1}, ["Gather"]),
    "Gather a table": (
        (13,),
        SHAPE,
        {"i": np.array([[3, 0], [1, 1]])},
        {"axis": 1},
        None,
    ),
    "Tile": ((13,), SHAPE, {"r": ints(1, 2, 1, 3)}, {}, ["Tile"]),
    "CumSum": ((14,), SHAPE, {"a": np.array(1)}, {"reverse": 1}, ["CumSum"]),
    "MatMul": ((13,), SHAPE, {"w": weights(4, 5, 3)}, {}, None),
    "Hardmax": ((13,), SHAPE, {}, {"axis": 1}, ["Hardmax"]),
    "CenterCropPad": (
        (18,),
        SHAPE,
        {"s": ints(4, 8)},
        {"axes": [2, 3]},
        ["CenterCropPad"],
    ),
    "LSTM": (
        (7, 14),
        (7, N, 3),
        {"w": weights(1, 20, 3), "r": weights(1, 20, 5), "b": weights(1, 40)},
        {"hidden_size": 5},
        None,
    ),
    "GRU": (
        (7, 14),
        (7, N, 3),
        {"w": weights(2, 15, 3), "r": weights(2, 15, 5)},
        {"hidden_size": 5, "direction": "bidirectional", "linear_before_reset": 1},
        None,
    ),
}


@pytest.mark.parametrize("name", MORE)
def test_one_operator_at_every_meaning(tmp_path, name):
    opsets, shape, constants, attributes, wanted = MORE[name]
    for opset in opsets:
        op = name.split()[0]
        graph = check_model(tmp_path, one(op, shape, opset, constants, **attributes))
        assert wanted is None or kinds(graph) == wanted


def boxes_model():
    nodes = [
        node("NonMaxSuppression", ["boxes", "scores", "most", "overlap"], ["chosen"]),
        node("Gather", ["chosen", "last"], ["which"], axis=1),
        node("Gather", ["table", "which"], ["y"], axis=0),
    ]
    constants = {
        "most": ints(3),
        "overlap": scalar(0.5),
        "last": np.array(2),
        "table": weights(8, 4),
    }
    inputs = {"boxes": (1, 8, 4), "scores": (1, 2, 8)}
    whole = {"chosen": TensorProto.INT64}
    return onnx_model(nodes, inputs, ("chosen", "y"), 17, constants, whole)


def test_boxes_that_are_chosen(tmp_path):
    onnx.save(boxes_model(), tmp_path / "net.onnx")
    graph = convert(tmp_path / "net.onnx", io="source")
    assert kinds(graph) == ["NonMaxSuppression", "Slice", "Reshape", "Gather"]
    random = np.random.default_rng(0)
    corners = random.uniform(0, 1, (1, 8, 2)).astype(np.float32)
    sizes = random.uniform(0.3, 1, (1, 8, 2)).astype(np.float32)
    feeds = {
        "boxes": np.concatenate([corners, corners + sizes], axis=2),
        "scores": random.uniform(0, 1, (1, 2, 8)).astype(np.float32),
    }
    chosen, y = session(tmp_path / "net.onnx").run(["chosen", "y"], feeds)
    assert 0 < len(chosen) < 16
    with Model(graph, threads=1) as net:
        found = net.run(feeds)
    np.testing.assert_array_equal(found["chosen"], chosen)
    np.testing.assert_array_equal(found["y"], y)


DIGITS = ("zero", "one", "two", "three")

HEADS = {
    "gather": [
        node("Slice", ["chosen", "two", "three", "one"], ["column"]),
        node("Reshape", ["column", "rest"], ["which"]),
        node("Gather", ["table", "which"], ["y"]),
    ],
    "squeeze": [
        node("Gather", ["chosen", "two"], ["column"], axis=1),
        node("Squeeze", ["column", "one"], ["which"]),
        node("Gather", ["table", "which"], ["y"]),
    ],
    "rows": [
        node("GatherND", ["scores", "chosen"], ["best"]),
        node("Unsqueeze", ["best", "one"], ["score"]),
        node("Gather", ["chosen", "two"], ["column"], axis=1),
        node("Cast", ["column"], ["label"], to=TensorProto.FLOAT),
        node("Concat", ["label", "score"], ["y"], axis=1),
    ],
    "shape": [
        node("Cast", ["chosen"], ["real"], to=TensorProto.FLOAT),
        node("Shape", ["chosen"], ["size"]),
        node("Reshape", ["real", "size"], ["y"]),
    ],
    "first": [
        node("Cast", ["chosen"], ["real"], to=TensorProto.FLOAT),
        node("Slice", ["real", "zero", "two", "zero"], ["y"]),
    ],
    "last": [
        node("Cast", ["chosen"], ["real"], to=TensorProto.FLOAT),
        node("Slice", ["real", "least", "far", "zero"], ["y"]),
    ],
}


def head_model(nodes):
    first = ["boxes", "scores", "most", "overlap", "least score"]
    constants = {
        "most": ints(3),
        "overlap": scalar(0.5),
        "least score": scalar(0.5),
        "table": weights(8, 4),
        "rest": ints(-1),
        "least": ints(-1),
        "far": ints(1 << 40),
    }
    constants.update({name: ints(n) for n, name in enumerate(DIGITS)})
    inputs = {"boxes": (2, 8, 4), "scores": (2, 2, 8)}
    nodes = [node("NonMaxSuppression", first, ["chosen"]), *nodes]
    return onnx_model(nodes, inputs, ("y",), 17, constants)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_behind_chosen_boxes(tmp_path, name):
    onnx.save(head_model(HEADS[name]), tmp_path / "net.onnx")
    graph = convert(tmp_path / "net.onnx", io="source")
    random = np.random.default_rng(0)
    corners = random.uniform(0, 1, (2, 8, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + np.float32(0.4)], axis=2)
    scores = random.uniform(0, 1, (2, 2, 8)).astype(np.float32)
    oracle = session(tmp_path / "net.onnx")
    counts = set()
    with Model(graph, threads=1) as net:
        for scale in (1, 0.7, 0.4):
            feeds = {"boxes": boxes, "scores": scores * np.float32(scale)}
            (wanted,) = oracle.run(None, feeds)
            np.testing.assert_array_equal(net.run(feeds)["y"], wanted)
            counts.add(len(wanted))
    assert len(counts) > 1
    assert 0 in counts


@pytest.mark.parametrize(
    "nodes",
    [
        [
            node("Shape", ["chosen"], ["size"]),
            node("Expand", ["one", "size"], ["y"]),
        ],
        [
            node("Cast", ["chosen"], ["real"], to=TensorProto.FLOAT),
            node("TopK", ["real", "two"], ["y", "where"], axis=0),
        ],
        [
            node("Cast", ["chosen"], ["real"], to=TensorProto.FLOAT),
            node("ReduceMax", ["real"], ["y"], axes=[0]),
        ],
    ],
)
def test_what_would_need_to_know_how_many_are_found_is_refused(tmp_path, nodes):
    onnx.save(head_model(nodes), tmp_path / "net.onnx")
    with pytest.raises(UnsupportedModelError, match="depends on the values"):
        convert(tmp_path / "net.onnx")


EMPTY = {
    "slice": [
        node("Slice", ["x", "one", "one", "one"], ["none"]),
        node("Concat", ["x", "none", "x"], ["y"], axis=1),
    ],
    "gather": [
        node("Gather", ["x", "nothing"], ["none"], axis=1),
        node("Concat", ["none", "x"], ["y"], axis=1),
    ],
    "split": [
        node("Split", ["x", "parts"], ["a", "none", "b"], axis=1),
        node("Concat", ["b", "none", "a"], ["y"], axis=1),
    ],
    "two axes": [
        node("Slice", ["x", "one one", "one three", "axes"], ["none"]),
        node("Slice", ["x", "one", "three", "two"], ["part"]),
        node("Concat", ["part", "none"], ["y"], axis=1),
    ],
}


@pytest.mark.parametrize("name", EMPTY)
def test_parts_of_no_size_vanish(tmp_path, name):
    constants = {
        "parts": ints(3, 0, 1),
        "one one": ints(1, 1),
        "one three": ints(1, 3),
        "axes": ints(1, 2),
        "nothing": ints(),
    }
    constants.update({name: ints(n) for n, name in enumerate(DIGITS)})
    used = {name for each in EMPTY[name] for name in each.input}
    constants = {k: v for k, v in constants.items() if k in used}
    check_model(
        tmp_path, onnx_model(EMPTY[name], {"x": (N, 4, 6, 5)}, constants=constants)
    )


def test_max_pool_and_its_inverse(tmp_path):
    nodes = [
        node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2]),
        node("MaxUnpool", ["p", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    graph = check_model(tmp_path, onnx_model(nodes, {"x": (N, 3, 6, 4)}, ("p", "y")))
    assert kinds(graph) == ["MaxPoolIndices", "MaxUnpool"]


def test_places_that_nothing_reads_are_not_computed(tmp_path):
    nodes = [node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])]
    graph = check_model(tmp_path, onnx_model(nodes, {"x": (N, 3, 6, 4)}))
    assert kinds(graph) == ["MaxPool"]


def test_equal_bytes_of_two_types_are_two_weights(tmp_path):
    nodes = [
        node("Cast", ["x"], ["k"], to=TensorProto.INT32),
        node("Add", ["k", "whole"], ["p"]),
        node("Cast", ["p"], ["q"], to=TensorProto.FLOAT),
        node("Add", ["q", "real"], ["y"]),
    ]
    constants = {"whole": np.zeros(5, np.int32), "real": np.zeros(5, np.float32)}
    model = onnx_model(nodes, {"x": (N, 5)}, constants=constants)
    graph = check_model(tmp_path, model)
    assert {str(array.dtype) for array in graph.params.values()} == {
        "int32",
        "float32",
    }
