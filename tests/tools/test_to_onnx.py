"""Every operator that exports: ONNX Runtime computes what the reference says."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_models import session
from striate import Graph, Model, SettingError, UnsupportedModelError, ops
from striate.models.architectures import ARCHITECTURES
from striate.tools import convert
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
    return np.ascontiguousarray(x.transpose(channels_first(x.ndim)) if first else x)


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
]


@pytest.mark.parametrize("op", UNARY, ids=str)
def test_functions_of_one_number(op):
    check(op, [random(2, 3, 4, 5, high=5.0)])
    check(op, [random(7)])


@pytest.mark.parametrize("op", [ops.Log(), ops.Sqrt()], ids=str)
def test_functions_of_positive_numbers(op):
    check(op, [random(2, 3, 4, 5, low=0.1)])


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
    @dataclasses.dataclass(frozen=True)
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
        "net: 2 layers have no equal in ONNX",
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


@pytest.mark.parametrize("name", ARCHITECTURES)
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
    back = convert(path)
    assert back.metadata["conversion"]["transposes"] == []
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
