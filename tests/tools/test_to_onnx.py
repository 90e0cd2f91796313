"""Every operator that exports: ONNX Runtime computes what the reference says."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import striate
from onnx_models import session
from striate import Graph, Model, SettingError, Spec, UnsupportedModelError, ops
from striate.models.architectures import ARCHITECTURES
from striate.tools import convert
from striate.tools.convert_model import main
from striate.tools.to_onnx.exporter import channels_first
from striate.tools.to_onnx.model import save_onnx, to_onnx

TOLERANCE = 1e-5
"""Of the largest number of an output, against an evaluation in float64."""

ORDERS = ("channels_last", "channels_first")


def random(*shape, seed=0, low=-2.0, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def onnx_runtime(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def turned(x, io):
    """Return an array as a model of that order wants it."""
    first = io == "channels_first" and 3 <= x.ndim <= 5
    return np.array(x.transpose(channels_first(x.ndim)) if first else x, order="C")


def turned_back(x, io):
    first = io == "channels_first" and 3 <= x.ndim <= 5
    return x.transpose(np.argsort(channels_first(x.ndim))) if first else x


def exported(graph, feeds, io="channels_last"):
    """Return the model, checked by onnx, and what ONNX Runtime computes with it."""
    model = to_onnx(graph, io=io)
    onnx.checker.check_model(model, full_check=True)
    given = {name: turned(x, io) for name, x in feeds.items()}
    found = onnx_runtime(model).run(graph.outputs, given)
    results = zip(graph.outputs, found, strict=True)
    return model, {name: turned_back(y, io) for name, y in results}


def assert_close(found, wanted, what, tolerance=TOLERANCE):
    assert found.shape == wanted.shape, what
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted, err_msg=what)
        return
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=1e-3)
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(found - wanted)).max(initial=0) / scale
    assert error <= tolerance, f"{what}: off by {error:.1e} of the largest output"


def graph_of(op, feeds, weights, symbols=(0,)):
    """Return a graph of one operator; the axes in `symbols` are left open."""
    graph = Graph("one")
    names = [
        graph.input(
            name,
            (
                "NDHWC"[a] if a in symbols and x.ndim > 1 else n
                for a, n in enumerate(x.shape)
            ),
            str(x.dtype),
        )
        for name, x in feeds.items()
    ]
    with np.errstate(all="ignore"):
        found = op.reference(*feeds.values(), *weights.values())
    count = len(found) if isinstance(found, tuple) else 0
    outputs = tuple(f"y{i}" for i in range(count))
    value = graph.add(op, *names, name="layer", outputs=outputs, **weights)
    graph.output(*(outputs or (value,)))
    return graph


def check(op, feeds, weights=None, symbols=((0,),), tolerance=TOLERANCE):
    """Assert that ONNX Runtime agrees, in both orders and with sizes left open."""
    feeds = {f"x{i}": x for i, x in enumerate(feeds)}
    for which in symbols:
        graph = graph_of(op, feeds, weights or {}, which)
        precise = {
            name: x.astype(np.float64) if x.dtype.kind == "f" else x
            for name, x in feeds.items()
        }
        with np.errstate(all="ignore"):
            wanted = graph.reference(precise)
        for io in ORDERS:
            _, found = exported(graph, feeds, io)
            for name in graph.outputs:
                what = f"{op}, {io}, open {which}"
                assert_close(found[name], wanted[name], what, tolerance)


def kernel(*shape):
    return random(*shape, seed=1, low=-1, high=1)


IMAGES = {1: (2, 9, 6), 2: (2, 9, 8, 6), 3: (1, 6, 7, 5, 6)}

WINDOWS = [
    ({}, 1),
    ({}, 2),
    ({}, 3),
    ({"stride": (2,)}, 1),
    ({"stride": (2, 3), "padding": ((2, 0), (0, 1))}, 2),
    ({"dilation": (2, 1), "padding": ((1, 1),)}, 2),
    ({"stride": (2,), "padding": "same"}, 2),
    ({"stride": (2,), "padding": "same_lower"}, 2),
    ({"padding": "same", "dilation": (2,)}, 2),
    ({"stride": (1, 2, 1), "padding": "same"}, 3),
]
"""Settings of sliding windows, and for how many axes."""


@pytest.mark.parametrize(("settings", "axes"), WINDOWS)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_conv(settings, axes, groups, bias):
    weights = {"kernel": kernel(*(3, 2, 2)[:axes], 6 // groups, 12)}
    if bias:
        weights["bias"] = kernel(12)
    check(ops.Conv(groups=groups, **settings), [random(*IMAGES[axes])], weights)


@pytest.mark.parametrize("padding", ["same", "same_lower", "valid", ((1, 2),)])
def test_conv_of_any_size(padding):
    op = ops.Conv((2,), padding=padding)
    check(op, [random(2, 9, 8, 3)], {"kernel": kernel(3, 2, 3, 4)}, [(0, 1, 2)])


@pytest.mark.parametrize(
    ("settings", "axes"),
    [
        ({"stride": (2,)}, 1),
        ({"stride": (2, 3), "padding": ((1, 0), (0, 1)), "output_padding": (1, 0)}, 2),
        ({"stride": (2,), "padding": "same"}, 2),
        ({"stride": (3,), "padding": "same_lower"}, 2),
        ({"dilation": (2,), "padding": "same"}, 2),
        ({"stride": (2,), "groups": 2}, 3),
    ],
)
def test_conv_transpose(settings, axes):
    groups = settings.get("groups", 1)
    weights = {"kernel": kernel(*(3, 2, 2)[:axes], 4 // groups, 6), "bias": kernel(4)}
    symbols = [(0,), tuple(range(axes + 1))]
    check(ops.ConvTranspose(**settings), [random(*IMAGES[axes])], weights, symbols)


POOLS = [
    *WINDOWS,
    ({"stride": (2,), "ceil_mode": True}, 2),
    ({"stride": (2,), "ceil_mode": True, "padding": ((1, 1),)}, 2),
]


@pytest.mark.parametrize(("settings", "axes"), POOLS)
def test_max_pool(settings, axes):
    check(ops.MaxPool((3, 2, 2)[:axes], **settings), [random(*IMAGES[axes])])


@pytest.mark.parametrize(("settings", "axes"), POOLS)
@pytest.mark.parametrize("count", [True, False])
def test_average_pool(settings, axes, count):
    op = ops.AveragePool((3, 2, 2)[:axes], count_include_pad=count, **settings)
    check(op, [random(*IMAGES[axes])])


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("keepdims", [True, False])
def test_global_pools(axes, keepdims):
    symbols = [(0,), tuple(range(axes + 1))]
    for kind in (ops.GlobalAveragePool, ops.GlobalMaxPool, ops.GlobalLpPool):
        check(kind(keepdims=keepdims), [random(*IMAGES[axes])], None, symbols)


@pytest.mark.parametrize(
    "op",
    [
        ops.LpPool((3, 2), (2, 1), p=1),
        ops.LpPool((2, 3), padding=((1, 0), (0, 2))),
        ops.LpPool((2,), dilation=(2,), p=3),
    ],
)
def test_lp_pool(op):
    check(op, [random(2, 9, 8, 6)])


@pytest.mark.parametrize("sizes", [(3, 4), (2, 5), (1, 1), (12, 3), (1, 8)])
def test_adaptive_pools(sizes):
    for kind in (ops.AdaptiveAveragePool, ops.AdaptiveMaxPool):
        check(kind(sizes), [random(2, 9, 8, 6)])


def test_adaptive_pools_of_one_and_three_axes():
    for kind in (ops.AdaptiveAveragePool, ops.AdaptiveMaxPool):
        check(kind((4,)), [random(2, 9, 6)])
        check(kind((4, 2, 3)), [random(1, 6, 7, 5, 6)])


@pytest.mark.parametrize("overlapping", [True, False])
def test_fractional_max_pool(overlapping):
    op = ops.FractionalMaxPool(((0, 1, 3, 5, 6), (1, 2, 4)), overlapping)
    check(op, [random(2, 7, 5, 3)])


def test_dense():
    for shape in ((3, 6), (2, 5, 6), (2, 4, 5, 6), (2, 2, 3, 2, 6)):
        for weights in (
            {"kernel": kernel(6, 4), "bias": kernel(4)},
            {"kernel": kernel(6, 4)},
        ):
            check(ops.Dense(), [random(*shape)], weights)


@pytest.mark.parametrize(
    "shape", [(6,), (3, 6), (2, 5, 6), (2, 4, 5, 6), (1, 2, 3, 2, 6)]
)
def test_batch_norm(shape):
    weights = {
        "gamma": kernel(6),
        "beta": kernel(6) + 1,
        "mean": kernel(6) / 2,
        "variance": np.abs(kernel(6)) + 0.1,
    }
    check(ops.BatchNorm(1e-3), [random(*shape)], weights)


UNARY = [
    ops.Abs(),
    ops.Clip(-0.5, 1.25),
    ops.Clip(0.25, 3.4028234663852886e38),
    ops.Clip(-3.4028234663852886e38, 0.5),
    ops.Elu(0.7),
    ops.Erf(),
    ops.Exp(),
    ops.Gelu(),
    ops.Gelu("tanh"),
    ops.HardSigmoid(0.3, 0.4),
    ops.HardSwish(),
    ops.Identity(),
    ops.LeakyRelu(0.2),
    ops.Mish(),
    ops.Neg(),
    ops.Reciprocal(),
    ops.Relu(),
    ops.Sigmoid(),
    ops.Silu(),
    ops.Softplus(),
    ops.Tanh(),
    ops.Selu(),
    ops.Selu(1.5, 1.2),
    ops.Celu(0.7),
    ops.Softsign(),
    ops.ThresholdedRelu(0.6),
    ops.Shrink(0.2, 0.7),
    ops.Swish(1.5),
    ops.Sign(),
    ops.Floor(),
    ops.Ceil(),
    ops.Round(),
    ops.Sin(),
    ops.Cos(),
    ops.Tan(),
    ops.Atan(),
    ops.Sinh(),
    ops.Cosh(),
    ops.Asinh(),
]


@pytest.mark.parametrize("op", UNARY, ids=str)
def test_functions_of_one_number(op):
    check(op, [random(2, 3, 4, 5, high=5.0)])
    check(op, [random(7)])


@pytest.mark.parametrize("op", [ops.Log(), ops.Sqrt()], ids=str)
def test_functions_of_positive_numbers(op):
    check(op, [random(2, 3, 4, 5, low=0.1)])


@pytest.mark.parametrize("op", [ops.Asin(), ops.Acos(), ops.Atanh()], ids=str)
def test_functions_of_small_numbers(op):
    check(op, [random(2, 3, 4, 5, low=-0.9, high=0.9)])


def test_a_function_of_large_numbers():
    check(ops.Acosh(), [random(2, 3, 4, 5, low=1.1, high=9)])


SHAPES = [
    ((2, 3, 4, 5), (5,)),
    ((2, 3, 4, 5), (2, 1, 1, 5)),
    ((2, 3, 4, 5), (4, 1)),
    ((2, 3, 4, 5), ()),
    ((2, 1, 4, 1), (2, 3, 1, 5)),
    ((4,), (2, 3, 4)),
    ((2, 3), (3,)),
]


@pytest.mark.parametrize(("first", "second"), SHAPES)
@pytest.mark.parametrize(
    "kind", [ops.Add, ops.Sub, ops.Mul, ops.Div, ops.Maximum, ops.Minimum]
)
def test_functions_of_two_tensors(kind, first, second):
    x, y = random(*first), random(*second, seed=1, low=0.5)
    check(kind(), [x, y], symbols=[()])
    check(kind(), [x], {"y": y})


def test_a_weight_comes_first():
    graph = Graph("one")
    x = graph.input("x", ("N", 3, 4, 5))
    value = graph.add(ops.Sub(), x, x=kernel(4, 1))
    graph.output(graph.add(ops.Conv(), value, kernel=kernel(2, 2, 5, 3)))
    feeds = {"x": random(2, 3, 4, 5)}
    for io in ORDERS:
        _, found = exported(graph, feeds, io)
        for name, wanted in graph.reference(feeds).items():
            assert_close(found[name], wanted, io)


def test_pow():
    check(ops.Pow(), [random(2, 3, 4, low=0.1)], {"y": kernel(4)})


@pytest.mark.parametrize("slope", [(), (1,), (5,), (3, 4, 5), (3, 1, 1)])
def test_prelu(slope):
    check(ops.PRelu(), [random(2, 3, 4, 5)], {"slope": kernel(*slope)})


@pytest.mark.parametrize("axis", [-1, 1, 2])
@pytest.mark.parametrize("kind", [ops.Softmax, ops.LogSoftmax])
def test_softmax(kind, axis):
    check(kind(axis), [random(2, 3, 4, 5)])


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_concat_and_split(axis):
    x, y = random(2, 3, 4, 6), random(2, 3, 4, 6, seed=1)
    check(ops.Concat(axis), [x, y], symbols=[()])
    sizes = {0: (2,), 1: (1, 2), -1: (1, 2, 3)}[axis]
    check(ops.Split(axis, sizes), [x], symbols=[()])


@pytest.mark.parametrize(
    "op",
    [
        ops.Slice((1, 0), (3, 2), (1, -1)),
        ops.Slice((-1,), (-100,), (2,), (-2,)),
        ops.Slice((0, 1), (-1, 100), (1, 3), (2, 3)),
    ],
)
def test_slice(op):
    check(op, [random(2, 4, 5, 6)])


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(mode):
    value = 1.5 if mode == "constant" else 0.0
    op = ops.Pad(((0, 0), (1, 2), (0, 1), (2, 0)), mode, value)
    check(op, [random(2, 4, 5, 6)])


@pytest.mark.parametrize(
    "op",
    [
        ops.Reshape((0, -1)),
        ops.Reshape((-1, 6)),
        ops.Reshape((0, 3, 2, 24)),
        ops.Reshape((4, -1, 3)),
        ops.Reshape((0, 0, 1, 0, 6)),
        ops.Flatten(),
    ],
    ids=str,
)
def test_reshape(op):
    check(op, [random(2, 4, 6, 6)])


def test_reshape_beside_axes_of_one():
    for shape in ((2, 1, 1, 6), (2, 4, 1, 1), (2, 1, 5, 1)):
        check(ops.Reshape((0, -1)), [random(*shape)])
        check(ops.Reshape((-1,)), [random(*shape)])
        check(ops.Reshape((1, -1)), [random(*shape)])
        check(ops.Flatten(), [random(*shape)])


@pytest.mark.parametrize("axes", [(0, 3, 1, 2), (3, 2, 1, 0), (0, 1, 3, 2)])
def test_transpose(axes):
    check(ops.Transpose(axes), [random(2, 4, 5, 6)])


def test_transposes_cancel():
    graph = Graph("net")
    x = graph.input("x", ("N", 5, 6, 3))
    x = graph.add(ops.Conv(), x, kernel=kernel(2, 2, 3, 4))
    x = graph.add(ops.Transpose((0, 3, 1, 2)), x)
    x = graph.add(ops.Relu(), x)
    x = graph.add(ops.Transpose((0, 2, 3, 1)), x)
    graph.output(graph.add(ops.MaxPool((2,)), x))
    feeds = {"x": random(2, 5, 6, 3)}
    model, found = exported(graph, feeds, "channels_first")
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu", "MaxPool"]
    assert_close(found["maxpool1"], graph.reference(feeds)["maxpool1"], "")


def test_constant():
    graph = Graph("net")
    x = graph.input("x", ("N", 3, 4, 5))
    value = graph.add(ops.Constant(), value=kernel(1, 3, 4, 5), name="grid")
    graph.output(graph.add(ops.Add(), x, value, name="sum"), "grid")
    feeds = {"x": random(2, 3, 4, 5)}
    for io in ORDERS:
        _, found = exported(graph, feeds, io)
        for name, wanted in graph.reference(feeds).items():
            assert_close(found[name], wanted, io)


@pytest.mark.parametrize("shape", [(3, 6), (2, 5, 6), (2, 4, 5, 6)])
@pytest.mark.parametrize("groups", [2, 3])
def test_channel_shuffle(shape, groups):
    symbols = [(0,), tuple(range(len(shape) - 1))]
    check(ops.ChannelShuffle(groups), [random(*shape)], symbols=symbols)


@pytest.mark.parametrize("shape", [(3, 6), (2, 5, 6), (2, 4, 5, 6)])
def test_maxout(shape):
    symbols = [(0,), tuple(range(len(shape) - 1))]
    check(ops.Maxout(3), [random(*shape)], symbols=symbols)


@pytest.mark.parametrize("axes", [(1, 2), (-1,), (0, 2), (1, 2, 3)])
@pytest.mark.parametrize("keepdims", [True, False])
def test_mean(axes, keepdims):
    check(ops.Mean(axes, keepdims), [random(2, 4, 5, 6)], symbols=[(0, 1, 2), ()])


def test_what_onnx_lacks_is_told_all_at_once():
    class Strange(ops.Op, abstract=True):
        def infer(self, x):
            return x

    graph = Graph("net")
    x = graph.input("x", ("N", 5, 6, 3))
    x = graph.add(Strange(), x, name="odd1")
    x = graph.add(ops.Relu(), x)
    graph.output(graph.add(Strange(), x, name="odd2"))
    with pytest.raises(UnsupportedModelError) as error:
        to_onnx(graph)
    assert str(error.value).splitlines() == [
        "net: layers that have no equal in ONNX: 2",
        "operator  count  reason                     layers",
        "Strange   2      ONNX has no such operator  odd1, odd2",
    ]


def test_an_order_that_is_none():
    with pytest.raises(SettingError, match="io 'source', wanted"):
        to_onnx(Graph("net"), io="source")


def test_names_of_values_and_layers_stay():
    graph = Graph("net")
    x = graph.input("image", ("N", 5, 6, 3))
    x = graph.add(ops.Conv(), x, name="conv.1", kernel=kernel(2, 2, 3, 4))
    a, b = graph.add(ops.Split(-1, (1, 3)), x, name="cut", outputs=("a", "b"))
    graph.output(graph.add(ops.Silu(), b, name="end"), "image", x, a)
    feeds = {"image": random(2, 5, 6, 3)}
    for io in ORDERS:
        model, found = exported(graph, feeds, io)
        for name, wanted in graph.reference(feeds).items():
            assert_close(found[name], wanted, name)
        names = {node.name for node in model.graph.node}
        assert {"conv.1", "cut", "end", "end/Sigmoid1"} <= names
        assert [entry.name for entry in model.graph.input] == ["image"]
        first = model.graph.input[0].type.tensor_type.shape.dim
        assert first[0].dim_param == "N"


def small(name):
    settings = {
        "lenet": {},
        "vgg16": {"image": 32},
        "m5": {"samples": 7000},
        "r3d_18": {"image": 32, "frames": 8},
    }
    return ARCHITECTURES[name](seed=1, **settings.get(name, {"image": 64}))


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n != "vgg16"])
def test_architectures_there_and_back(name, tmp_path):
    graph = small(name)
    entry = graph.inputs[0]
    feeds = {entry.name: random(2, *graph.default_shapes()[entry.name][1:])}
    with Model(graph, threads=1) as model:
        wanted = model.run(feeds)
    path = tmp_path / "net.onnx"
    save_onnx(graph, path)
    onnx.checker.check_model(str(path))
    found = session(path).run(graph.outputs, feeds)
    for output, y in zip(graph.outputs, found, strict=True):
        assert_close(y, wanted[output], name, 1e-4)
    back = convert(path, io="source")
    own = sum(isinstance(node.op, ops.Transpose) for node in graph.nodes)
    assert len(back.metadata["conversion"]["transposes"]) == own
    with Model(back, threads=1) as model:
        again = model.run(feeds)
    for output in graph.outputs:
        assert_close(again[output], wanted[output], name, 1e-4)


@pytest.mark.parametrize(
    "name", ["lenet", "mobilenet_v3", "shufflenet_v2", "unet", "m5"]
)
def test_architectures_channels_first(name):
    graph = small(name)
    entry = graph.inputs[0]
    feeds = {entry.name: random(2, *graph.default_shapes()[entry.name][1:])}
    model, found = exported(graph, feeds, "channels_first")
    with Model(graph, threads=1) as runtime:
        wanted = runtime.run(feeds)
    for output in graph.outputs:
        assert_close(found[output], wanted[output], name, 1e-4)
    for node in model.graph.node:
        perm = [list(a.ints) for a in node.attribute if a.name == "perm"]
        assert perm in ([], [[0, 2, 1, 3]]), "only a channel shuffle transposes"


GAMMA = {"gamma": kernel(6), "beta": kernel(6) + 1}


@pytest.mark.parametrize("axes", [(-1,), (1, 2), (0, 3), (1, 2, 3)])
@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("weights", [{}, {"gamma": kernel(6)}, GAMMA], ids=len)
def test_layer_norm(axes, statistics, weights):
    op = ops.LayerNorm(axes, 1e-3, statistics)
    check(op, [random(2, 4, 5, 6)], weights, tolerance=3e-5)


def test_layer_norm_of_whole_images():
    weights = {"gamma": kernel(4, 5, 6), "beta": kernel(4, 5, 6)}
    check(ops.LayerNorm((1, 2, 3)), [random(2, 4, 5, 6)], weights)


@pytest.mark.parametrize("axes", [(-1,), (1, 2)])
def test_rms_and_mean_variance_norm(axes):
    check(ops.RMSNorm(axes, 1e-3), [random(2, 4, 5, 6)], {"gamma": kernel(6)})
    check(ops.RMSNorm(axes, 1e-3), [random(2, 4, 5, 6)])
    check(ops.MeanVarianceNorm(axes), [random(2, 4, 5, 6)])


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("p", [1, 2])
def test_lp_norm(axis, p):
    x = random(2, 4, 5, 6)
    x[0, :, 0] = 0
    check(ops.LpNorm(axis, p), [x])
    check(ops.LpNorm(axis, p, 4.0), [x])


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("weights", [{}, {"gamma": kernel(6)}, GAMMA], ids=len)
def test_instance_and_group_norm(axes, weights):
    for op in (ops.InstanceNorm(1e-3), ops.GroupNorm(2, 1e-3), ops.GroupNorm(6)):
        check(op, [random(*IMAGES[axes])], weights, tolerance=3e-5)


def test_group_norm_of_rows():
    check(ops.GroupNorm(2, 1e-3), [random(3, 6)], GAMMA)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("across", [True, False])
def test_lrn(size, across):
    check(ops.LRN(size, 0.3, 0.6, 1.5, across), [random(2, 4, 5, 6)])


REDUCTIONS = [
    ops.ReduceSum,
    ops.ReduceProd,
    ops.ReduceMax,
    ops.ReduceMin,
    ops.ReduceL1,
    ops.ReduceL2,
    ops.ReduceSumSquare,
    ops.ReduceLogSum,
    ops.ReduceLogSumExp,
]


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("axes", [(1, 2), (-1,), (0, 2), ()])
@pytest.mark.parametrize("keepdims", [True, False])
def test_reductions(kind, axes, keepdims):
    check(kind(axes, keepdims), [random(2, 4, 5, 6, low=0.1)], symbols=[(0, 1, 2)])


@pytest.mark.parametrize("kind", [ops.ArgMax, ops.ArgMin])
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_arg_reductions(kind, axis, keepdims, last):
    x = np.round(random(2, 4, 5, 6))
    check(kind(axis, keepdims, last), [x])


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("largest", [True, False])
def test_top_k(axis, largest):
    check(ops.TopK(3, axis, largest), [np.round(random(2, 4, 5, 6))])


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
def test_cum_sum(axis, exclusive, reverse):
    check(ops.CumSum(axis, exclusive, reverse), [random(2, 4, 5, 6)])


def whole(*shape, high, low=0):
    return np.random.default_rng(2).integers(low, high, shape)


@pytest.mark.parametrize("axis", [-1, 1, 2])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_gather(axis, shape):
    check(ops.Gather(axis), [random(2, 4, 5, 6)], {"indices": whole(*shape, high=4)})
    check(ops.Gather(axis), [random(2, 4, 5, 6), whole(*shape, high=4)])


@pytest.mark.parametrize("axis", [-1, 1])
def test_gather_and_scatter_elements(axis):
    x, indices = random(2, 4, 5, 6), whole(2, 3, 5, 2, high=4, low=-4)
    check(ops.GatherElements(axis), [x, indices], symbols=[()])
    places = np.argsort(random(2, 4, 5, 6), axis)
    for how in ("none", "add", "mul", "max", "min"):
        op = ops.ScatterElements(axis, how)
        check(op, [x, places, random(2, 4, 5, 6, seed=1)], symbols=[()])


def test_gather_and_scatter_nd():
    x, indices = random(3, 4, 5, 6), whole(3, 2, 2, high=3)
    check(ops.GatherND(), [x, indices], symbols=[()])
    check(ops.GatherND(1), [x, indices], symbols=[()])
    indices = np.array([[[0, 1], [2, 3]], [[1, 0], [2, 2]]])
    for how in ("none", "add", "max"):
        updates = random(2, 2, 5, 6, seed=1)
        check(ops.ScatterND(how), [x, indices, updates], symbols=[()])


COMPARISONS = [ops.Equal, ops.Greater, ops.GreaterOrEqual, ops.Less, ops.LessOrEqual]


@pytest.mark.parametrize("kind", COMPARISONS)
def test_comparisons(kind):
    x, y = np.round(random(2, 3, 4, 5)), np.round(random(4, 5, seed=1))
    check(kind(), [x], {"y": y})


def test_logic_and_where():
    x, y = whole(2, 3, 4, 5, high=2) > 0, whole(2, 3, 1, 5, high=2) == 0
    for kind in (ops.And, ops.Or, ops.Xor):
        check(kind(), [x, y], symbols=[()])
    check(ops.Not(), [x])
    check(ops.Where(), [x, random(2, 3, 4, 5), random(2, 1, 4, 5)], symbols=[()])


def test_bits():
    x, y = whole(2, 3, 4, 5, high=99), whole(2, 3, 1, 5, high=99)
    for kind in (ops.BitwiseAnd, ops.BitwiseOr, ops.BitwiseXor):
        check(kind(), [x, y], symbols=[()])
    check(ops.BitwiseNot(), [x])


@pytest.mark.parametrize("fmod", [True, False])
def test_mod(fmod):
    x, y = whole(2, 3, 4, 5, high=99, low=-99), whole(2, 3, 1, 5, high=9, low=1)
    check(ops.Mod(fmod), [x, y], symbols=[()])


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_cast(dtype):
    check(ops.Cast(dtype), [random(2, 3, 4, 5, low=0, high=9)])
    check(ops.Cast("float32"), [random(2, 3, 4, 5, high=9).astype(dtype)])


WHOLE_NUMBERS = [ops.Add, ops.Sub, ops.Mul, ops.Maximum, ops.Minimum]


@pytest.mark.parametrize("kind", WHOLE_NUMBERS)
def test_arithmetic_of_whole_numbers(kind):
    check(kind(), [whole(2, 3, 4, 5, high=9)], {"y": whole(5, high=9)})


@pytest.mark.parametrize(("settings", "axes"), WINDOWS)
def test_locally_connected(settings, axes):
    x = random(*IMAGES[axes])
    settings = {**settings, "padding": settings.get("padding", "valid")}
    taps = (3, 2, 2)[:axes]
    plain = ops.Conv(**settings).infer(Spec(x.shape), Spec((*taps, 6, 4)))
    weights = {"kernel": kernel(*plain.shape[1:-1], *taps, 6, 4)}
    op = ops.LocallyConnected(**settings)
    check(op, [x], {**weights, "bias": kernel(*plain.shape[1:])})
    check(op, [x], {**weights, "bias": kernel(4)})
    weights = {"kernel": kernel(*(2, 3, 2)[:axes], *taps, 6, 4)}
    op = ops.TiledConv((2, 3, 2)[:axes], **settings)
    check(op, [x], weights)
    check(op, [x], {**weights, "bias": kernel(*(2, 3, 2)[:axes], 4)})


@pytest.mark.parametrize("order", ["channels_last", "channels_first"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_max_pool_indices_and_unpool(order, axes):
    x = random(*IMAGES[axes])
    pool = ops.MaxPoolIndices((2,), (2,), index_order=order)
    check(pool, [x])
    values, indices = pool.reference(x)
    unpool = ops.MaxUnpool(x.shape[1:-1], order)
    check(unpool, [values, indices], symbols=[(), (0,)])


def test_max_pool_indices_by_columns():
    op = ops.MaxPoolIndices((2,), index_order="channels_first_columns")
    check(op, [random(2, 4, 5, 6)])


@pytest.mark.parametrize(
    "op",
    [
        ops.Col2Im((5, 6), (2, 3)),
        ops.Col2Im((6, 7), (2,), (2,), padding=((1, 0), (0, 1))),
        ops.Col2Im((7, 8), (2,), dilation=(2, 3)),
        ops.Col2Im((4, 5, 4), (2,)),
    ],
)
def test_col2im(op):
    positions = op._geometry()[1]
    taps = int(np.prod(op._geometry()[0].kernel))
    check(op, [random(2, int(np.prod(positions)), 3 * taps)])


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_and_space(axes, mode):
    size = (4, 6, 2)[:axes]
    check(ops.DepthToSpace(2, mode), [random(2, *size, 24)])
    check(ops.SpaceToDepth(2, mode), [random(2, *size, 3)])


RESIZES = [
    ops.Resize(scales=(2.0, 3.0), axes=(1, 2)),
    ops.Resize(
        scales=(2.0, 1.5), axes=(1, 2), coordinates="asymmetric", nearest="floor"
    ),
    ops.Resize(sizes=(7, 3), axes=(1, 2), mode="linear"),
    ops.Resize(sizes=(7, 9), axes=(1, 2), mode="linear", coordinates="align_corners"),
    ops.Resize(sizes=(3, 3), axes=(1, 2), mode="linear", antialias=True),
    ops.Resize(sizes=(7, 9), axes=(1, 2), mode="cubic", cubic_coefficient=-0.5),
    ops.Resize(scales=(1.5, 2.0), axes=(1, 2), mode="cubic", exclude_outside=True),
    ops.Resize(sizes=(7,), axes=(2,), mode="linear", coordinates="pytorch_half_pixel"),
    ops.Resize(scales=(1.3, 0.7), axes=(1, 2), mode="linear"),
]


@pytest.mark.parametrize("op", RESIZES, ids=str)
def test_resize(op):
    check(op, [random(2, 4, 5, 6)])


def test_resize_one_and_three_axes():
    check(ops.Resize(scales=(2.0,), axes=(1,), mode="linear"), [random(2, 5, 3)])
    op = ops.Resize(scales=(2.0,) * 3, axes=(1, 2, 3), mode="linear")
    check(op, [random(1, 3, 4, 5, 2)])


def test_coordinates_that_onnx_gave_up():
    op = ops.Resize(scales=(2.0,), axes=(1,), coordinates="tf_half_pixel_for_nn")
    graph = graph_of(op, {"x": random(2, 5, 3)}, {})
    with pytest.raises(UnsupportedModelError, match="no coordinates 'tf_half_pixel"):
        to_onnx(graph)


def test_matrix_products():
    for first, second in (
        ((2, 3, 4), (4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((4,), (4, 3)),
    ):
        check(ops.MatMul(), [random(*first), random(*second)], symbols=[()])
        check(ops.MatMul(), [random(*first)], {"y": kernel(*second)}, symbols=[()])
    check(ops.Einsum("bik,bkj->bij"), [random(2, 3, 4), random(2, 4, 5)], symbols=[()])
    check(ops.Einsum("bhwc,c->bhw"), [random(2, 3, 4, 5), random(5)], symbols=[()])


def test_tile_and_expand():
    check(ops.Tile((1, 2, 1, 3)), [random(2, 3, 4, 5)])
    check(ops.Expand((2, 1, 4, 5)), [random(3, 1, 5)], symbols=[()])


@pytest.mark.parametrize(("batch", "time"), [(0, 1), (1, 0), (0, -1), (2, 0)])
def test_reverse_sequence(batch, time):
    x = random(3, 4, 5, 6)
    lengths = whole(x.shape[batch], high=x.shape[time] + 1, low=1)
    op = ops.ReverseSequence(batch, time)
    check(op, [x], {"sequence_lens": lengths}, symbols=[()])
    check(op, [x, lengths.astype(np.int32)], symbols=[()])


@pytest.mark.parametrize("k", [-1, 0, 2])
def test_triangles_and_diagonals(k):
    for upper in (True, False):
        check(ops.Trilu(upper, k), [random(2, 3, 4, 5)])
    check(ops.EyeLike("int64", k), [random(4, 5)], symbols=[()])


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis):
    indices = whole(2, 3, high=7, low=-6)
    check(ops.OneHot(5, axis, -0.5, 2.0), [indices])
    check(ops.OneHot(5, axis, 0, 3, "int64"), [indices.astype(np.float32)])


def test_questions_about_numbers():
    x = random(2, 3, 4, 5)
    x[0, 0] = np.nan
    x[0, 1, 0], x[1, 1, 0] = np.inf, -np.inf
    check(ops.IsNaN(), [x])
    for signs in ((True, True), (True, False), (False, True)):
        check(ops.IsInf(*signs), [x])


def test_sizes_that_depend_on_values():
    x = np.round(random(2, 3, 4, 5))
    check(ops.NonZero(), [x], symbols=[()])
    for axis in (-1, 1):
        condition = whole(x.shape[axis], high=2) > 0
        check(ops.Compress(axis), [x, condition], symbols=[()])
    x[:, 1] = x[:, 0]
    for order in (True, False):
        check(ops.Unique(1, order), [x], symbols=[()])
        check(ops.Unique(0, order), [x.reshape(-1)], symbols=[()])


def test_what_depends_on_values_has_no_known_size():
    graph = Graph("net")
    x = graph.input("x", (3, 4, 5))
    places = graph.add(ops.NonZero(), graph.add(ops.Relu(), x))
    places = graph.add(ops.Transpose((1, 0)), places)
    found = graph.add(ops.GatherND(), x, places)
    graph.output(graph.add(ops.Neg(), found, name="y"))
    feeds = {"x": random(3, 4, 5)}
    for io in ORDERS:
        model, results = exported(graph, feeds, io)
        assert_close(results["y"], graph.reference(feeds)["y"], io)
        assert not model.graph.output[0].type.tensor_type.shape.dim[0].dim_value


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("least", [0.3, -3.4028234663852886e38])
def test_non_max_suppression(centre, least):
    boxes, scores = random(2, 20, 4, low=0, high=1), random(2, 3, 20, low=0, high=1)
    op = ops.NonMaxSuppression(6, 0.3, least, centre)
    check(op, [boxes, scores], symbols=[()])


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "lenet.h5"
    striate.save(ARCHITECTURES["lenet"](seed=1), path)
    return path


@pytest.mark.parametrize("io", ["channels_last", "source"])
def test_the_command_line(model_file, tmp_path, io, capsys):
    target = tmp_path / "lenet.onnx"
    assert main([str(model_file), str(target), "--io", io]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    shape = "(N, 28, 28, 1)" if io == "channels_last" else "(N, 1, 28, 28)"
    count = "1" if io == "channels_last" else "none"
    for line in (
        f"inputs      image {shape}",
        "outputs     fc3 (N, 10)",
        f"transposes  {count}",
        "opset       21",
    ):
        assert line in out
    x = random(2, 28, 28, 1)
    order = "channels_first" if io == "source" else io
    (found,) = session(target).run(["fc3"], {"image": turned(x, order)})
    wanted = striate.read(model_file).reference({"image": x})["fc3"]
    assert_close(found, wanted, io)


def test_the_command_line_in_json(model_file, tmp_path, capsys):
    target = tmp_path / "lenet.onnx"
    assert main([str(model_file), str(target), "--json", "--name", "five"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["name"] == onnx.load(target).graph.name == "five"
    assert summary["inputs"] == {"image": ["N", 28, 28, 1]}
    assert summary["nodes_in"] == 12
    assert summary["bytes"] == target.stat().st_size


def test_the_command_line_refuses_what_onnx_has_no_place_for(
    model_file, tmp_path, capsys
):
    target = tmp_path / "lenet.onnx"
    assert main([str(model_file), str(target), "--shortest-edge", "9"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("convert_model: --shortest-edge is for model files, not for")
    assert not target.exists()


def test_the_command_line_tells_what_cannot_be_exported(tmp_path, capsys):
    graph = Graph("net")
    x = graph.input("x", ("N", 5, 3))
    op = ops.Resize(scales=(2.0,), axes=(1,), coordinates="tf_half_pixel_for_nn")
    graph.output(graph.add(op, x, name="up"))
    source, target = tmp_path / "net.h5", tmp_path / "net.onnx"
    striate.save(graph, source)
    assert main([str(source), str(target)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("convert_model: net: layers that have no equal in ONNX: 1\n")
    assert err.rstrip().endswith("ONNX has no coordinates 'tf_half_pixel_for_nn'  up")
    assert not target.exists()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_deform_conv(masked, bias):
    op = ops.DeformConv((2, 1), padding=((1, 1), (0, 1)), groups=2, offset_groups=3)
    graph = Graph("net")
    feeds = {"x": random(2, 5, 6, 6), "offset": random(2, 3, 6, 24)}
    if masked:
        feeds["mask"] = random(2, 3, 6, 12)
    for name, array in feeds.items():
        graph.input(name, ("N", *array.shape[1:]))
    weights = {"bias": kernel(4)} if bias else {}
    graph.output(graph.add(op, *feeds, kernel=kernel(2, 2, 3, 4), name="y", **weights))
    wanted = graph.reference({name: x.astype(np.float64) for name, x in feeds.items()})
    for io in ORDERS:
        _, found = exported(graph, feeds, io)
        assert_close(found["y"], wanted["y"], io)


@pytest.mark.parametrize(
    "op",
    [ops.CenterCropPad((3, 8), (1, 2)), ops.CenterCropPad((5, 2), (-1, 1))],
    ids=str,
)
def test_center_crop_pad(op):
    check(op, [random(2, 4, 5, 6)])


def test_det():
    check(ops.Det(), [random(2, 3, 4, 4)])


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [True, False])
def test_grid_sample(mode, padding, corners):
    op = ops.GridSample(mode, padding, corners)
    # Outside the border ONNX Runtime's cubic is not that of ONNX's reference, as ours.
    far = 0.8 if (mode, padding) == ("cubic", "border") else 1.2
    x, grid = random(2, 5, 6, 3), random(2, 3, 4, 2, low=-far, high=far)
    check(op, [x, grid], symbols=[()])
    x, grid = random(2, 6, 3), random(2, 5, 1, low=-far, high=far)
    check(op, [x, grid], symbols=[()])
    if mode != "cubic":
        x, grid = random(1, 4, 5, 6, 2), random(1, 2, 3, 4, 3, low=-1.2, high=1.2)
        check(op, [x, grid], symbols=[()])


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("size", [(3, 4), (2, 3, 4)])
def test_affine_grid(size, corners):
    theta = random(2, len(size), len(size) + 1)
    check(ops.AffineGrid(size, corners), [theta])


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(mode, coordinates, ratio):
    corners = random(4, 2, low=0, high=4)
    rois = np.concatenate([corners, corners + random(4, 2, low=1, high=6)], axis=1)
    op = ops.RoiAlign((3, 2), ratio, 0.8, mode, coordinates)
    images = np.array([0, 1, 1, 0])
    check(op, [random(2, 7, 8, 3), rois, images], symbols=[()])


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_quantize_and_dequantize(dtype, axis):
    x = random(2, 3, 4, 5)
    scale = random(x.shape[axis], low=0.01, high=0.02)
    zero = whole(x.shape[axis], high=90).astype(dtype)
    check(ops.QuantizeLinear(axis, dtype), [x], {"scale": scale, "zero_point": zero})
    check(ops.QuantizeLinear(axis, dtype), [x], {"scale": scale[0]})
    y = ops.QuantizeLinear(axis, dtype).reference(x, scale, zero)
    check(ops.DequantizeLinear(axis), [y], {"scale": scale, "zero_point": zero})
    check(ops.DequantizeLinear(axis), [y], {"scale": scale[0]})


def test_dynamic_quantize_linear():
    check(ops.DynamicQuantizeLinear(), [random(2, 3, 4, 5, high=7)])


def bytes_of(*shape, dtype="uint8"):
    low, high = (0, 256) if dtype == "uint8" else (-128, 128)
    return whole(*shape, low=low, high=high).astype(dtype)


def test_products_of_whole_numbers():
    x, y = bytes_of(2, 3, 4), bytes_of(4, 5, dtype="int8")
    zeros = {"x_zero": np.uint8(9), "y_zero": np.int8(-3)}
    check(ops.MatMulInteger(), [x], {"y": y, **zeros})
    check(ops.MatMulInteger(), [x], {"y": y})
    weights = {
        "x_scale": np.float32(0.02),
        "x_zero": np.uint8(7),
        "y": y,
        "y_scale": np.float32(0.03),
        "y_zero": np.int8(-5),
        "scale": np.float32(0.4),
        "zero": np.uint8(100),
    }
    check(ops.QLinearMatMul(), [x], weights)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_of_whole_numbers(groups):
    settings = {"stride": (2, 1), "padding": ((1, 0), (1, 1)), "groups": groups}
    x, weight = bytes_of(2, 6, 5, 4), bytes_of(3, 2, 4 // groups, 6)
    zeros = {"x_zero": np.uint8(9), "kernel_zero": np.uint8(3)}
    check(ops.ConvInteger(**settings), [x], {"kernel": weight, **zeros})
    weights = {
        "x_scale": np.float32(0.02),
        "x_zero": np.uint8(7),
        "kernel": weight.view("int8"),
        "kernel_scale": random(6, low=0.02, high=0.05),
        "kernel_zero": np.zeros(6, np.int8),
        "scale": np.float32(0.9),
        "zero": np.uint8(100),
    }
    bias = {"bias": whole(6, low=-99, high=99).astype(np.int32)}
    check(ops.QLinearConv(**settings), [x], weights)
    check(ops.QLinearConv(**settings), [x], {**weights, **bias})


# ONNX Runtime does not clip a cell before its last activation: cells stay below 1.5.
RECURRENT = [
    (ops.LSTM, 4, {}),
    (ops.LSTM, 4, {"direction": "reverse", "clip": 1.5}),
    (ops.LSTM, 4, {"direction": "bidirectional", "batch_first": True}),
    (
        ops.LSTM,
        4,
        {"input_forget": True, "activations": ("Sigmoid", "Relu", "Softsign")},
    ),
    (ops.GRU, 3, {"direction": "bidirectional"}),
    (ops.GRU, 3, {"linear_before_reset": True, "batch_first": True}),
    (
        ops.GRU,
        3,
        {
            "activations": ("HardSigmoid", "LeakyRelu"),
            "alphas": (0.3, 0.2),
            "betas": (0.4, 0.0),
        },
    ),
    (ops.RNN, 1, {"direction": "bidirectional"}),
    (ops.RNN, 1, {"batch_first": True, "activations": ("Relu",)}),
]


@pytest.mark.parametrize(("kind", "gates", "settings"), RECURRENT)
@pytest.mark.parametrize("given", ["weights", "bias", "states", "one state", "all"])
def test_recurrent_layers(kind, gates, settings, given):
    op = kind(5, **settings)
    batch_first, d = settings.get("batch_first", False), op.directions
    graph = Graph("net")
    feeds = {"x": random(3, 4, 6) if batch_first else random(4, 3, 6)}
    weights = {"w": kernel(d, 5 * gates, 6), "r": kernel(d, 5 * gates, 5)}
    if given != "weights":
        weights["b"] = kernel(d, 10 * gates)
    if given in ("states", "one state", "all"):
        batch = 1 if given == "one state" else 3
        shape = (batch, d, 5) if batch_first else (d, batch, 5)
        if kind is ops.LSTM:
            weights["p"] = kernel(d, 15)
            weights["initial_c"] = random(*shape, seed=2, low=-1, high=1)
        weights["initial_h"] = random(*shape, seed=3)
    if given == "all":
        weights["sequence_lens"] = np.array([4, 1, 3])
    for name, x in feeds.items():
        sizes = (
            "N" if axis == 1 - batch_first else n for axis, n in enumerate(x.shape)
        )
        graph.input(name, x.shape if given in ("states", "all") else sizes)
    outputs = ("y", "h", "c")[: 3 if kind is ops.LSTM else 2]
    graph.output(*graph.add(op, *feeds, outputs=outputs, name="layer", **weights))
    wanted = graph.reference({name: x.astype(np.float64) for name, x in feeds.items()})
    for io in ORDERS:
        _, found = exported(graph, feeds, io)
        for name in outputs:
            assert_close(found[name], wanted[name], f"{op} {name} {io}")
