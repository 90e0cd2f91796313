"""Modules and programs of PyTorch against PyTorch itself."""

import copy
import inspect
import math

import numpy as np
import pytest
import torch
from nets import NETS, randomise
from striate import Model, ops
from striate.errors import SettingError, UnsupportedModelError
from striate.tools import convert
from striate.tools.from_torch import from_torch
from striate.tools.from_torch.registry import PLACEMENT, aten
from torch import nn
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("one_torch_thread")

RELATIVE = 1e-5
"""What may differ by rounding in a layer or two, as a part of the largest output."""


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)

    def forward(self, *xs):
        return self.function(*xs, *self.parts)


def flattened(result):
    if isinstance(result, torch.Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result
    return [tensor for part in parts for tensor in flattened(part)]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compare(module, *inputs, relative=RELATIVE, batch=True):
    """Assert that a module's graph computes what it computes; return the graph.

    With `batch` the graph is made of one example and also run with three.
    """
    module = module.eval()
    graph = convert(
        module, example=tuple(x[:1] for x in inputs) if batch else inputs, io="source"
    )
    for count in (1, 3) if batch else (None,):
        given = tuple(x[:count] if count else x for x in inputs)
        with torch.no_grad():
            wanted = flattened(module(*(x.clone() for x in given)))
        model = Model(graph, threads=1)
        feeds = {
            entry.name: x.numpy() for entry, x in zip(graph.inputs, given, strict=True)
        }
        results = model.run(feeds)
        assert len(graph.outputs) == len(wanted)
        for name, tensor in zip(graph.outputs, wanted, strict=True):
            expected = tensor.numpy()
            assert results[name].shape == expected.shape
            largest = max(
                1e-6, float(np.abs(expected.astype(np.float64)).max(initial=0))
            )
            apart = np.abs(results[name].astype(np.float64) - expected)
            assert apart.max(initial=0) <= relative * largest, name
    return graph


def kinds(graph):
    return {type(node.op).__name__ for node in graph.nodes}


IMAGE = (3, 6, 13, 11)

LAYERS = {
    "conv": nn.Conv2d(6, 8, 3),
    "conv_stride": nn.Conv2d(6, 8, 3, (2, 1), (1, 0), bias=False),
    "conv_same_even": nn.Conv2d(6, 8, 4, padding="same"),
    "conv_dilated": nn.Conv2d(6, 8, 3, dilation=2, padding=2),
    "conv_groups": nn.Conv2d(6, 9, 3, groups=3),
    "depthwise_multiplier": nn.Conv2d(6, 12, 3, groups=6),
    "conv_reflect": nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"),
    "conv_circular": nn.Conv2d(6, 8, 3, padding=1, padding_mode="circular"),
    "conv_transposed": nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1),
    "conv_transposed_groups": nn.ConvTranspose2d(6, 4, 3, 2, groups=2, dilation=2),
    "batch_norm": nn.BatchNorm2d(6, eps=1e-3),
    "batch_norm_plain": nn.BatchNorm2d(6, affine=False),
    "instance_norm": nn.InstanceNorm2d(6),
    "instance_norm_affine": nn.InstanceNorm2d(6, affine=True),
    "instance_norm_tracked": nn.InstanceNorm2d(6, track_running_stats=True),
    "group_norm": nn.GroupNorm(3, 6),
    "group_norm_plain": nn.GroupNorm(2, 6, affine=False),
    "layer_norm": nn.LayerNorm([13, 11]),
    "layer_norm_plain": nn.LayerNorm([6, 13, 11], elementwise_affine=False),
    "lrn": nn.LocalResponseNorm(5, alpha=0.1, beta=0.7, k=2.0),
    "lrn_even": nn.LocalResponseNorm(4, alpha=0.1),
    "max_pool": nn.MaxPool2d(3, 2, 1),
    "max_pool_ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max_pool_ceil_padded": nn.MaxPool2d(2, 3, 1, ceil_mode=True),
    "max_pool_dilated": nn.MaxPool2d(3, 1, dilation=2),
    "avg_pool": nn.AvgPool2d(3, 2, 1),
    "avg_pool_exclude": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "avg_pool_ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "avg_pool_ceil_exclude": nn.AvgPool2d(
        3, 2, 1, ceil_mode=True, count_include_pad=False
    ),
    "avg_pool_divisor": nn.AvgPool2d(3, 2, 1, divisor_override=5),
    "adaptive": nn.AdaptiveAvgPool2d((3, 2)),
    "adaptive_one": nn.AdaptiveAvgPool2d(1),
    "adaptive_max": nn.AdaptiveMaxPool2d((4, None)),
    "reflection": nn.ReflectionPad2d((1, 2, 3, 0)),
    "replication": nn.ReplicationPad2d(2),
    "crop": nn.ZeroPad2d(-1),
    "constant_pad": nn.ConstantPad2d((0, 1, 2, 0), 1.5),
    "pixel_shuffle": nn.Sequential(nn.Conv2d(6, 12, 1), nn.PixelShuffle(2)),
    "channel_shuffle": nn.ChannelShuffle(3),
    "prelu": nn.PReLU(6),
    "prelu_one": nn.PReLU(),
    "softmax": nn.Softmax(1),
    "softmax2d": nn.Softmax2d(),
    "log_softmax": nn.LogSoftmax(1),
    "flatten_linear": nn.Sequential(nn.Flatten(), nn.Linear(858, 5)),
    "unflatten": nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (11, 13))),
    "unfold": nn.Unfold(3, padding=1, stride=2),
    "dropout": nn.Dropout2d(),
    "glu": nn.GLU(1),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear_corners": nn.Upsample((9, 30), mode="bilinear", align_corners=True),
    "bilinear_fraction": nn.Upsample(scale_factor=1.3, mode="bilinear"),
    "bicubic": nn.Upsample(scale_factor=1.7, mode="bicubic"),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest_size": nn.Upsample((7, 20)),
    "nearest_exact": nn.Upsample((7, 20), mode="nearest-exact"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    torch.manual_seed(1)
    layer = copy.deepcopy(LAYERS[name])
    for buffer, value in layer.named_buffers():
        if buffer.endswith("running_mean"):
            value.normal_()
        elif buffer.endswith("running_var"):
            value.uniform_(0.5, 2)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, 0.3, 0.5)
    compare(layer, noise(*IMAGE))


ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.LeakyReLU(0.2),
    nn.ELU(0.7),
    nn.SELU(),
    nn.CELU(1.3),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Hardtanh(-0.5, 0.7),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.LogSigmoid(),
    nn.Softplus(),
    nn.Softplus(2.0),
    nn.Softsign(),
    nn.Softshrink(0.3),
    nn.Hardshrink(0.3),
    nn.Tanhshrink(),
    nn.Threshold(0.1, 3.0),
    nn.RReLU(),
]


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=str)
def test_activations(layer):
    compare(layer, 2 * noise(3, 4, 5, 6))


FUNCTIONS = {
    "arithmetic": lambda x: (
        (1 - 2 * x) * x / (x.abs() + 1.5) + torch.rsub(x, 2, alpha=3)
    ),
    "alpha": lambda x: torch.add(x, x.relu(), alpha=0.3) - torch.sub(x, 1.0, alpha=2),
    "powers": lambda x: (
        (x.abs() + 1) ** 0.5 + x**2 + 2.0 ** x.clamp(-1, 1) + x.square()
    ),
    "roots": lambda x: (x.abs() + 0.5).rsqrt() + (x.abs() + 0.5).sqrt().reciprocal(),
    "logarithms": lambda x: x.abs().log1p() + (x.abs() + 1).log2() + x.tanh().expm1(),
    "clamped": lambda x: x.clamp(min=-0.3) + x.clamp(max=0.2) + x.clamp(-0.1, 0.5),
    "clamp_crossed": lambda x: x.clamp(0.5, -0.5),
    "broadcast": lambda x: (
        (
            x * torch.linspace(-1, 2, 6).view(6, 1, 1)
            + torch.linspace(1, 3, 6).view(1, 6, 1, 1)
            - torch.linspace(0, 1, 11)
        )
        * torch.linspace(2, 1, 11).view(1, 1, 1, 11)
    ),
    "pool_of_padded": lambda x: functional.max_pool2d(
        functional.pad(x, (0, 1, 0, 1), value=-math.inf), 2
    ),
    "aliased": lambda x: (lambda y: (y, y, x))(x.relu()),
    "addcmul": lambda x: torch.addcmul(x, x, x.sigmoid(), value=0.5),
    "lerp": lambda x: torch.lerp(x, x.relu(), 0.3),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "masked": lambda x: x.masked_fill(x < -0.5, -1e3),
    "compared": lambda x: ((x >= 0) & (x <= 1) | (x != x)).float() + (x > 0) * 2,
    "normalised": lambda x: functional.normalize(x, dim=1),
    "mean_keep": lambda x: x - x.mean((2, 3), keepdim=True),
    "statistics": lambda x: torch.cat(
        [x.mean(1), x.sum(1), x.amax(1), x.var(1), x.std(1)]
    ),
    "extremes": lambda x: (x.max(1)[0], x.max(2).indices, x.argmin(3), x.amin((1, 2))),
    "norms": lambda x: (x.norm(dim=1), torch.linalg.vector_norm(x, 1, (2, 3))),
    "logsumexp": lambda x: x.logsumexp(1),
    "cumsum": lambda x: x.cumsum(3),
    "typed_sums": lambda x: torch.cat(
        [
            x.sum(1, dtype=torch.int32),
            x.cumsum(1, dtype=torch.int64)[:, 2],
            x.mul(2).prod(1, dtype=torch.int32),
            x.gt(0).prod(1),
            x.mul(4e8).int().sum(1) % 1000,
            torch.linspace(0, 7, 11, dtype=torch.int32) * x[:, 0],
            torch.eye(11, dtype=torch.bool)[2] | x[:, 0].gt(0),
        ],
        1,
    ).float(),
    "topk": lambda x: x.flatten(1).topk(4)[0],
    "chunks": lambda x: torch.cat(x.chunk(4, 1)[::-1], 1),
    "split": lambda x: torch.cat([x.split(4, 1)[1], x.split([1, 5], 1)[1]], 1),
    "stack": lambda x: torch.stack([x, x.relu()], 2),
    "unbind": lambda x: x.unbind(1)[2] * x.select(1, -1),
    "slices": lambda x: x[:, 1:5:2, ::2, -4:] + x[:, :2, 1:, 3][..., :7, None],
    "narrow": lambda x: x.narrow(2, 3, 4),
    "axes": lambda x: x.permute(0, 2, 3, 1).transpose(1, 2).reshape(x.shape[0], -1, 6),
    "movedim": lambda x: x.movedim(1, -1).unsqueeze(1).squeeze(1).swapaxes(1, 3),
    "expand": lambda x: x[:, :1].expand(-1, 4, -1, -1) * x[:, :1].expand_as(x)[:, :4],
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "interleave": lambda x: x.repeat_interleave(2, 1),
    "flip": lambda x: x.flip(2, 3),
    "roll": lambda x: x.roll((2, -3), (2, 3)),
    "index": lambda x: x[:, torch.tensor([3, 0, 5])] + x[:, [1, 1, 2]],
    "index_select": lambda x: x.index_select(2, torch.tensor([4, 2, 9])),
    "pixel_unshuffle": lambda x: functional.pixel_unshuffle(x[..., :12, :10], 2),
    "einsum": lambda x: torch.einsum("nchw,ndhw->ncd", x, x),
    "matmul": lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    "attention": lambda x: functional.scaled_dot_product_attention(
        x.flatten(2), x.flatten(2), x.flatten(2), scale=0.1
    ),
    "causal": lambda x: functional.scaled_dot_product_attention(
        x[:, :, :5], x[:, :, :5], x[:, :, :5], is_causal=True
    ),
    "anchors": lambda x: x.view(x.shape[0], 3, 2, 13, 11).permute(0, 1, 3, 4, 2),
    "grid": lambda x: functional.grid_sample(
        x, torch.tanh(x[:, :2].permute(0, 2, 3, 1)), align_corners=False
    ),
    "fold": lambda x: functional.fold(
        functional.unfold(x, 3, stride=2, padding=1), (13, 11), 3, stride=2, padding=1
    ),
    "assigned": lambda x: _assigned(x),
    "constants": lambda x: x + torch.arange(11) * torch.ones(13, 1) + torch.eye(11)[2],
    "coordinates": lambda x: torch.cat(
        [x, torch.linspace(0, 1, 11).expand(x.shape[0], 1, 13, 11)], 1
    ),
    "rounding": lambda x: x.floor() + x.ceil() + (3 * x).round() + x.sign() + x.neg(),
    "remainders": lambda x: x % 0.7 + torch.div(x, 0.3, rounding_mode="floor"),
    "antialias": lambda x: functional.interpolate(
        x, (6, 5), mode="bilinear", antialias=True
    ),
    "antialias_cubic": lambda x: functional.interpolate(
        x, (6, 5), mode="bicubic", antialias=True
    ),
    "resized_to": lambda x: functional.interpolate(
        functional.max_pool2d(x, 2), x.shape[2:], mode="bilinear"
    ),
    "unpooled": lambda x: functional.max_unpool2d(
        *functional.max_pool2d(x[..., :12, :10], 2, return_indices=True), 2
    ),
}


def _assigned(x):
    y = x.clone()
    y[:, 1] = 0.5
    y[:, :, 2:4] = x[:, :, 5:7]
    y[..., 0] += 1
    return y


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    compare(Apply(FUNCTIONS[name]), noise(*IMAGE))


RECURRENT = {
    "lstm": nn.LSTM(6, 5, batch_first=True),
    "lstm_deep": nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True),
    "lstm_plain": nn.LSTM(6, 4, bias=False, batch_first=True),
    "gru": nn.GRU(6, 5, batch_first=True, bidirectional=True),
    "gru_deep": nn.GRU(6, 5, 2, batch_first=True),
    "rnn": nn.RNN(6, 5, nonlinearity="relu", batch_first=True),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent(name):
    torch.manual_seed(2)
    layer = copy.deepcopy(RECURRENT[name])
    for parameter in layer.parameters():
        nn.init.normal_(parameter, 0, 0.4)
    compare(layer, noise(3, 7, 6))


def test_time_before_batches():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3, padding=1)
            self.lstm = nn.LSTM(6 * 4, 5, bidirectional=True)

        def forward(self, x):
            y = self.conv(x)
            y = y.permute(3, 0, 1, 2).flatten(2)
            return self.lstm(y)[0]

    compare(Tagger(), noise(3, 3, 4, 9))


SPATIAL = {
    "conv1d": (nn.Conv1d(4, 6, 5, 2, 2), (3, 4, 21)),
    "conv3d": (nn.Conv3d(4, 6, 3, (1, 2, 2), 1), (3, 4, 5, 8, 7)),
    "transposed1d": (nn.ConvTranspose1d(4, 6, 4, 2, 1), (3, 4, 9)),
    "transposed3d": (nn.ConvTranspose3d(4, 3, 2, 2), (3, 4, 3, 4, 5)),
    "pool1d": (nn.MaxPool1d(3, 2), (3, 4, 21)),
    "average1d": (nn.AvgPool1d(3, 2, 1), (3, 4, 21)),
    "pool3d": (nn.MaxPool3d(2), (3, 4, 5, 8, 7)),
    "average3d": (nn.AvgPool3d((1, 2, 2)), (3, 4, 5, 8, 7)),
    "adaptive1d": (nn.AdaptiveAvgPool1d(4), (3, 4, 21)),
    "adaptive3d": (nn.AdaptiveAvgPool3d((2, 3, 1)), (3, 4, 5, 8, 7)),
    "norm1d": (nn.BatchNorm1d(4), (3, 4, 21)),
    "norm_vectors": (nn.Sequential(nn.BatchNorm1d(9), nn.Linear(9, 4)), (3, 9)),
    "norm3d": (nn.BatchNorm3d(4), (3, 4, 5, 8, 7)),
    "lrn1d": (nn.LocalResponseNorm(3), (3, 6, 21)),
    "lrn3d": (nn.LocalResponseNorm(3), (3, 6, 4, 5, 3)),
    "linear": (nn.Linear(9, 4), (3, 2, 9)),
    "bilinear": (nn.Upsample(scale_factor=2, mode="trilinear"), (3, 2, 3, 4, 5)),
    "linear1d": (nn.Upsample(scale_factor=1.5, mode="linear"), (3, 2, 10)),
    "group_vectors": (nn.GroupNorm(3, 9), (3, 9)),
    "rms": (nn.RMSNorm(9), (3, 4, 9)),
    "attention": (nn.MultiheadAttention(8, 2, batch_first=True), (3, 5, 8)),
}


@pytest.mark.parametrize("name", SPATIAL)
def test_other_ranks(name):
    layer, shape = SPATIAL[name]
    if name == "attention":
        layer = Apply(lambda x, a: a(x, x, x, need_weights=False)[0], layer)
    compare(layer, noise(*shape))


def test_every_handler_is_signed_like_its_operator():
    ours = ("local_response_norm.default",)
    checked = 0
    for name in aten.operators():
        operator, overload = name.split(".", 1)
        if operator in ("_operator", "math", "torch") or name in ours:
            continue
        schema = getattr(getattr(torch.ops.aten, operator), overload)._schema
        parameters = dict(
            list(inspect.signature(aten.find(name)).parameters.items())[1:]
        )
        arguments = [a for a in schema.arguments if not placement(a, parameters)]
        names = [argument.name for argument in arguments]
        extra = {n for n, p in parameters.items() if p.default is not p.empty}
        assert set(parameters) - extra <= set(names), name
        given = [n for n in parameters if n in names]
        assert given == names, name
        for argument in arguments:
            parameter = parameters[argument.name]
            assert argument.kwarg_only == (parameter.kind is parameter.KEYWORD_ONLY), (
                name
            )
            if argument.has_default_value() and argument.name != "memory_format":
                assert same(parameter.default, argument.default_value), name
            checked += 1
    assert checked > 600


def placement(argument, parameters):
    """Whether it is a keyword that is left out, as it says where a result lies."""
    left_out = argument.name in PLACEMENT and argument.name not in parameters
    return left_out and argument.kwarg_only


def same(ours, theirs):
    """Whether defaults are equal: one number stands for a list of them."""
    if isinstance(theirs, list):
        return list(theirs) == (
            list(ours) if isinstance(ours, tuple) else [ours] * len(theirs)
        )
    if theirs == "valid":
        return ours == 0
    if isinstance(theirs, float):
        return math.isclose(ours, theirs)
    return ours == theirs


def test_tied_weights_are_stored_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.second = nn.Linear(8, 8)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    graph = compare(Tied(), noise(3, 8))
    kernels = {n.params["kernel"] for n in graph.nodes if "kernel" in n.params}
    assert len(kernels) == 1


def test_weights_computed_in_the_graph_are_folded():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = functional.batch_norm(
                self.weight.reshape(1, self.out_channels, -1),
                None,
                None,
                weight=torch.full((self.out_channels,), 0.7),
                training=True,
                momentum=0.0,
                eps=1e-6,
            ).reshape_as(self.weight)
            return functional.conv2d(x, weight, self.bias, self.stride, self.padding)

    graph = compare(Standardised(6, 8, 3), noise(*IMAGE))
    assert kinds(graph) == {"Conv", "Transpose"}


def test_adaptive_pooling_is_one_node():
    graph = convert(nn.AdaptiveAvgPool2d((3, 2)), example=noise(1, 4, 44, 44))
    assert [type(node.op) for node in graph.nodes] == [ops.AdaptiveAveragePool]


def test_scale_is_kept_and_not_computed_from_the_size():
    x = noise(1, 3, 11, 11)
    by_scale = nn.Upsample(scale_factor=1.3, mode="bilinear")
    by_size = nn.Upsample((14, 14), mode="bilinear")
    assert float((by_scale(x) - by_size(x)).abs().max()) > 0.05
    compare(by_scale, x)
    compare(by_size, x)


def test_nearest_is_not_nearest_exact():
    x = noise(1, 3, 10, 10)
    results = []
    for mode in ("nearest", "nearest-exact"):
        layer = nn.Upsample((7, 7), mode=mode)
        compare(layer, x)
        results.append(layer(x))
    assert float((results[0] - results[1]).abs().max()) > 0.05


def test_flatten_permutes_the_weight_and_not_the_tensor():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(96, 5))
    graph = convert(net, example=noise(1, 3, 6, 6))
    assert "Transpose" not in kinds(graph)
    compare(net, noise(3, 3, 6, 6))


def test_dense_head_of_a_detector_stays_in_order():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 10, 3, padding=1)

        def forward(self, x):
            y = self.conv(x)
            return (
                y.view(x.shape[0], 2, 5, 6, 7)
                .permute(0, 3, 4, 1, 2)
                .reshape(x.shape[0], -1, 5)
            )

    compare(Head(), noise(3, 4, 6, 7))


def test_channel_shuffle_becomes_one_layer():
    class Shuffle(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.last = nn.Conv2d(8, 4, 1)

        def forward(self, x):
            y = self.first(x)
            batch, channels, height, width = y.shape
            y = y.view(batch, 2, channels // 2, height, width).transpose(1, 2)
            return self.last(y.reshape(batch, channels, height, width))

    assert "ChannelShuffle" in kinds(compare(Shuffle(), noise(3, 3, 5, 6)))


def test_channels_last_weights():
    layer = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    compare(layer, noise(3, 3, 6, 6))


def test_half_precision_weights_are_computed_in_float32():
    layer = nn.Conv2d(3, 8, 3).to(torch.bfloat16)
    graph = convert(layer, example=noise(1, 3, 6, 6).bfloat16(), io="source")
    x = noise(2, 3, 6, 6).bfloat16().float()
    wanted = layer.float()(x).detach().numpy()
    np.testing.assert_allclose(Model(graph)(x.numpy()), wanted, atol=1e-5)


def test_in_place_change_behind_a_view():
    def function(x):
        y = torch.relu(x)
        part = y[:, :2]
        part.mul_(3)
        part += 1
        return y * 2

    compare(Apply(function), noise(*IMAGE))


def test_in_place_activation_of_a_residual():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(6, 6, 3, padding=1)

        def forward(self, x):
            y = self.conv(x)
            y += x
            return functional.relu(y, inplace=True) + x

    compare(Block(), noise(*IMAGE))


def test_names_of_layers_inputs_and_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.Conv2d(3, 4, 3)
            self.right = nn.Conv2d(1, 4, 3)

        def forward(self, image, depth):
            y = self.left(image) + self.right(depth)
            return {"features": y, "scores": [y.mean((2, 3)), y.amax((2, 3))]}

    graph = compare(Two(), noise(3, 3, 8, 8), noise(3, 1, 8, 8))
    assert [entry.name for entry in graph.inputs] == ["image", "depth"]
    assert graph.outputs == ["features", "scores.0", "scores.1"]
    assert {"left", "right"} <= {node.name for node in graph.nodes}


def test_example_by_name():
    class Two(nn.Module):
        def forward(self, a, b):
            return a - 2 * b

    graph = convert(Two(), example={"b": noise(1, 4), "a": noise(1, 4)})
    x = noise(2, 4).numpy()
    assert np.allclose(Model(graph).run({"a": x, "b": 0 * x})[graph.outputs[0]], x)


def test_batch_that_a_module_fixes_stays():
    class Fixed(nn.Module):
        def forward(self, x):
            return x - x.mean(0, keepdim=True)

    x = noise(2, 4)
    graph = convert(Fixed(), example=x)
    result = Model(graph)(x.numpy())
    np.testing.assert_allclose(result, (x - x.mean(0)).numpy(), atol=1e-6)


def test_constant_that_each_picture_of_a_batch_gets():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(noise(1, 1, 6))

        def forward(self, x):
            rows = x.flatten(2).transpose(1, 2)
            return torch.cat([self.token.expand(x.shape[0], -1, -1), rows], 1)

    graph = compare(Token(), noise(*IMAGE))
    assert graph.inputs[0].shape[0] == "N"


def test_open_height_and_width():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
    free = torch.export.Dim.AUTO
    program = torch.export.export(
        net.eval(),
        (noise(2, 3, 16, 20),),
        dynamic_shapes=({0: free, 2: free, 3: free},),
    )
    graph = convert(program, io="source")
    assert graph.inputs[0].shape == ("N", 3, "H", "W")
    x = noise(3, 3, 9, 31)
    with torch.no_grad():
        np.testing.assert_allclose(Model(graph)(x.numpy()), net(x).numpy(), atol=1e-6)


def test_module_keeps_its_mode():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    net[1].eval()
    convert(net, example=noise(1, 3, 8, 8))
    assert [net.training, net[0].training, net[1].training] == [True, True, False]


def test_everything_unsupported_is_told_at_once():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = torch.special.i0(self.conv(x))
            return torch.fft.rfft(x, dim=-1).real.sum() + torch.erfinv(y)

    with pytest.raises(UnsupportedModelError) as error:
        convert(Odd(), example=noise(1, 3, 8, 8))
    for name in ("special_i0", "erfinv", "fft_rfft"):
        assert name in str(error.value)


def test_statistics_of_the_batch_are_refused():
    net = nn.BatchNorm2d(3, track_running_stats=False)
    with pytest.raises(UnsupportedModelError, match="statistics of the batch"):
        convert(net, example=noise(2, 3, 4, 4))


def test_settings_that_make_no_sense():
    with pytest.raises(SettingError, match="example"):
        from_torch(nn.ReLU())
    with pytest.raises(SettingError, match="found a dict"):
        from_torch({})


@pytest.mark.parametrize(
    "name", ["lenet5", "resnet18", "mobilenet_v2", "shufflenet_v2_x1_0"]
)
def test_networks(name):
    build, _, channels, size = NETS[name]
    shape = (4, channels, min(size, 64), min(size, 64))
    module = randomise(build(), 1, shape)
    compare(module, noise(3, *shape[1:]), relative=1e-4)


def test_best_classes_of_random_pictures():
    build, _, channels, _ = NETS["resnet18"]
    module = randomise(build(), 3, (8, channels, 32, 32))
    graph = convert(module, example=noise(1, channels, 32, 32), io="source")
    model = Model(graph, threads=1)
    checked = 0
    for seed in range(2):
        x = noise(64, channels, 32, 32, seed=seed)
        with torch.no_grad():
            wanted = module(x).numpy()
        top = np.sort(wanted)[:, -2:]
        clear = top[:, 1] - top[:, 0] > 1e-3 * np.abs(wanted).max()
        assert (model(x.numpy()).argmax(1) == wanted.argmax(1))[clear].all()
        checked += clear.sum()
    assert checked > 100
