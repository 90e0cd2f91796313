"""Caffe networks of random weights against OpenCV, which also reads them.

Where OpenCV does otherwise than Caffe, a few lines of NumPy say what Caffe does.
"""

# ruff: noqa: E501

from __future__ import annotations

import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import against_opencv
import numpy as np
import pytest
import striate
from against_opencv import TOLERANCE
from striate.errors import ModelFormatError, SettingError, UnsupportedModelError
from striate.spec import Array
from striate.tools.from_caffe import from_caffe, operators
from striate.tools.oracles.opencv import oracle
from striate.tools.verification import Runtime, compare


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes((*found, number))


def chunk(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array: Array, kind: str = "shape") -> bytes:
    """Return weights as a message, written in one of the ways there are."""
    dims = b"".join(map(varint, array.shape))
    data = np.asarray(array, "<f4")
    if kind == "old":
        sizes = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(varint(i << 3) + varint(n) for i, n in enumerate(sizes, 1))
        return shape + chunk(5, data.tobytes())
    if kind == "unpacked":
        numbers = (varint(5 << 3 | 5) + struct.pack("<f", n) for n in data.reshape(-1))
        return chunk(7, chunk(1, dims)) + b"".join(numbers)
    if kind == "double":
        return chunk(7, chunk(1, dims)) + chunk(8, np.asarray(array, "<f8").tobytes())
    return chunk(7, chunk(1, dims)) + chunk(5, data.tobytes())


def caffemodel(weights: dict[str, list[Array]], kind: str = "shape") -> bytes:
    """Return a file of weights; of the old kind of layer if `kind` is "old"."""
    old = kind == "old"
    layers = [
        chunk(
            2 if old else 100,
            chunk(4 if old else 1, name.encode())
            + b"".join(chunk(6 if old else 7, blob(array, kind)) for array in arrays),
        )
        for name, arrays in weights.items()
    ]
    return chunk(1, b"net") + b"".join(layers)


class Net:
    """A description in the making, and its weights."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        dims = " ".join(f"dim: {n}" for n in shape)
        self.text = f'name: "net" input: "data" input_shape {{ {dims} }}\n'
        self.weights: dict[str, list[Array]] = {}
        self.top = "data"
        self.shape = shape

    def add(
        self,
        kind: str,
        settings: str = "",
        *weights: Array,
        bottoms: tuple[str, ...] = (),
        tops: tuple[str, ...] = (),
        name: str = "",
    ) -> str:
        """Append a layer and return its result's name."""
        name = name or f"{kind.lower()}{self.text.count('layer {')}"
        tops = tops or (name,)
        ends = "".join(f' bottom: "{b}"' for b in bottoms or (self.top,))
        ends += "".join(f' top: "{t}"' for t in tops)
        self.text += f'layer {{ name: "{name}" type: "{kind}"{ends} {settings} }}\n'
        if weights:
            self.weights[name] = list(weights)
        self.top = tops[-1]
        return self.top

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        return (self.rng.normal(size=shape) * scale).astype(np.float32)

    def conv(self, inputs: int, outputs: int, size: int, **more: Any) -> str:
        """Append a convolution of `size` and return its result's name."""
        settings = {"num_output": outputs, "kernel_size": size, **more}
        text = " ".join(f"{k}: {v}" for k, v in settings.items())
        group = settings.get("group", 1)
        fan = inputs // group * size * size
        return self.add(
            "Convolution",
            f"convolution_param {{ {text} }}",
            self.normal(outputs, inputs // group, size, size, scale=fan**-0.5),
            self.normal(outputs, scale=0.1),
        )

    def save(self, folder: Path, kind: str = "shape") -> Path:
        path = folder / "net.prototxt"
        path.write_text(self.text)
        path.with_suffix(".caffemodel").write_bytes(caffemodel(self.weights, kind))
        return path

    def picture(self, batch: int) -> Array:
        return self.normal(batch, *self.shape[1:])


def ours(path: Path, x: Array, **options: Any) -> dict[str, Array]:
    """Return what the converted network computes, in Caffe's order of axes."""
    graph = from_caffe(path, io="source", **options)
    return striate.Model(graph).run({"data": x})


def check(found: Array, wanted: Array, tolerance: float = TOLERANCE) -> None:
    assert found.shape == wanted.shape
    error = np.abs(found - wanted).max()
    assert error <= tolerance * max(np.abs(wanted).max(), 1e-3), error


def agree(net: Net, folder: Path) -> striate.Graph:
    """Compare a network's conversion with OpenCV; return it."""
    path = net.save(folder)
    return against_opencv.agree(from_caffe(path), path)


@pytest.mark.parametrize("seed", range(12))
def test_convolution(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = int(rng.choice([1, 2, 4]))
    inputs, outputs = group * int(rng.integers(1, 4)), group * int(rng.integers(1, 5))
    net = Net(1, inputs, 13, 17, seed=seed)
    kernel, stride, pad = (rng.integers(low, 4, 2) for low in (1, 1, 0))
    dilation = int(rng.integers(1, 3))
    bias = bool(seed % 3)
    weights = [net.normal(outputs, inputs // group, *kernel)]
    weights += [net.normal(outputs)] if bias else []
    net.add(
        "Convolution",
        f"convolution_param {{ num_output: {outputs} group: {group} "
        f"kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} "
        f"stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]} "
        f"dilation: {dilation} bias_term: {str(bias).lower()} }}",
        *weights,
    )
    agree(net, tmp_path)


def single(kind: str, settings: str = "", *weights: Array, shape: Any = (1, 8, 9, 11)):  # type: ignore[no-untyped-def]
    net = Net(*shape)
    net.add(kind, settings, *weights)
    return net


SINGLE = {
    "relu": ("ReLU", ""),
    "leaky": ("ReLU", "relu_param { negative_slope: 0.2 }"),
    "elu": ("ELU", "elu_param { alpha: 0.7 }"),
    "sigmoid": ("Sigmoid", ""),
    "tanh": ("TanH", ""),
    "absval": ("AbsVal", ""),
    "bnll": ("BNLL", ""),
    "power": ("Power", "power_param { power: 2 scale: 0.5 shift: 1.5 }"),
    "exp": ("Exp", "exp_param { base: 2 scale: 0.5 shift: 0.25 }"),
    "lrn": ("LRN", "lrn_param { local_size: 5 alpha: 0.3 beta: 0.6 }"),
    "softmax": ("Softmax", ""),
    "softmax axis": ("Softmax", "softmax_param { axis: 3 }"),
    "flatten": ("Flatten", ""),
    "flatten axes": ("Flatten", "flatten_param { axis: 2 end_axis: 3 }"),
    "permute": ("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
    "mvn": ("MVN", ""),
    "mvn across": ("MVN", "mvn_param { across_channels: true }"),
    "mvn mean": ("MVN", "mvn_param { normalize_variance: false }"),
    "reshape": ("Reshape", "reshape_param { shape { dim: 0 dim: 4 dim: -1 dim: 11 } }"),
    "reshape axis": ("Reshape", "reshape_param { shape { dim: 2 dim: 4 } axis: 1 num_axes: 1 }"),
    "dropout": ("Dropout", ""),
    "global average": ("Pooling", "pooling_param { pool: AVE global_pooling: true }"),
    "global max": ("Pooling", "pooling_param { pool: MAX global_pooling: true }"),
    "interp": ("Interp", "interp_param { height: 21 width: 25 }"),
    "interp zoom": ("Interp", "interp_param { zoom_factor: 3 }"),
}  # fmt: skip


@pytest.mark.parametrize("case", SINGLE)
def test_layer_without_weights(tmp_path: Path, case: str) -> None:
    agree(single(*SINGLE[case]), tmp_path)


def single_cases() -> dict[str, tuple[tuple[Any, ...], Any]]:
    """Return layers for which Caffe and OpenCV differ, and what Caffe computes."""

    def squares(x: Array, size: int) -> Array:
        half = size // 2
        wide = np.pad(x**2, [(0, 0), (0, 0), (half, half), (half, half)])
        windows = np.lib.stride_tricks.sliding_window_view(wide, (size, size), (2, 3))
        return windows.mean((-1, -2))

    def energy(x: Array) -> Array:
        wide = np.pad(x**2, [(0, 0), (2, 2), (0, 0), (0, 0)])
        return sum(wide[:, i : i + x.shape[1]] for i in range(5)) / 5

    def best(x: Array) -> Array:
        return x.reshape(len(x), -1).argmax(1).reshape(-1, 1, 1, 1).astype(np.float32)

    def mvn(x: Array, axes: tuple[int, ...]) -> Array:
        centred = x - x.mean(axes, keepdims=True)
        return centred / (x.std(axes, keepdims=True) + 0.1)

    def crowd(x: Array) -> Array:
        flat = np.sort(x.reshape(len(x), -1))[:, ::-1][:, :3]
        where = np.argsort(-x.reshape(len(x), -1), axis=1)[:, :3]
        return np.stack([where, flat], 1)[..., None].astype(np.float32)

    return {
        "tile": (("Tile", "tile_param { tiles: 2 }"), lambda x: np.tile(x, (1, 2, 1, 1))),
        "max by default": (("Pooling", "pooling_param { kernel_size: 2 stride: 2 }"),
            lambda x: np.pad(x, [(0, 0), (0, 0), (0, 1), (0, 1)], constant_values=-np.inf).reshape(len(x), 8, 5, 2, 6, 2).max((3, 5))),
        "threshold": (("Threshold", "threshold_param { threshold: 0.5 }"), lambda x: (x > 0.5).astype(np.float32)),
        "lrn k": (("LRN", "lrn_param { local_size: 5 alpha: 0.3 beta: 0.6 k: 2 }"), lambda x: x * (2 + 0.3 * energy(x)) ** -0.6),
        "lrn within": (("LRN", "lrn_param { local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL k: 7 }"),
            lambda x: x * (1 + 0.5 * squares(x, 3)) ** -0.75),
        "mvn eps": (("MVN", "mvn_param { eps: 0.1 }"), lambda x: mvn(x, (2, 3))),
        "mvn eps across": (("MVN", "mvn_param { across_channels: true eps: 0.1 }"), lambda x: mvn(x, (1, 2, 3))),
        "argmax": (("ArgMax", ""), best),
        "argmax axis": (("ArgMax", "argmax_param { axis: 1 }"), lambda x: x.argmax(1, keepdims=True).astype(np.float32)),
        "argmax value": (("ArgMax", "argmax_param { axis: 2 out_max_val: true }"), lambda x: x.max(2, keepdims=True)),
        "argmax crowd": (("ArgMax", "argmax_param { out_max_val: true top_k: 3 }"), crowd),
        "sum": (("Reduction", "reduction_param { axis: 1 coeff: 0.5 }"), lambda x: 0.5 * x.sum((1, 2, 3))),
        "asum": (("Reduction", "reduction_param { operation: ASUM axis: 2 }"), lambda x: abs(x).sum((2, 3))),
        "sumsq": (("Reduction", "reduction_param { operation: SUMSQ axis: 3 }"), lambda x: (x**2).sum(3)),
        "mean": (("Reduction", "reduction_param { operation: MEAN axis: 1 }"), lambda x: x.mean((1, 2, 3))),
        "log": (("Log", "log_param { base: 10 scale: 0.1 shift: 5 }"), lambda x: np.log10(0.1 * x + 5)),
        "clip": (("Clip", "clip_param { min: -0.5 max: 1 }"), lambda x: x.clip(-0.5, 1)),
        "relu6": (("ReLU6", ""), lambda x: x.clip(0, 6)),
        "swish": (("Swish", "swish_param { beta: 2 }"), lambda x: x / (1 + np.exp(-2 * x))),
        "shuffle": (("ShuffleChannel", "shuffle_channel_param { group: 4 }"),
            lambda x: x.reshape(-1, 4, 2, 9, 11).swapaxes(1, 2).reshape(x.shape)),
        "upsample": (("Upsample", "upsample_param { scale: 2 }"), lambda x: x.repeat(2, 2).repeat(2, 3)),
        "interp shrink": (("Interp", "interp_param { shrink_factor: 2 pad_beg: 0 pad_end: -1 }"),
            lambda x: x[:, :, [0, 2, 4, 6]][:, :, :, :10][..., [0, 2, 4, 6, 8]] if False else interp(x[:, :, :8, :10], 4, 5)),
    }  # fmt: skip


def interp(x: Array, height: int, width: int) -> Array:
    """Resample along both axes between the corner pixels."""
    for axis, size in ((2, height), (3, width)):
        places = np.arange(size) * (x.shape[axis] - 1) / max(size - 1, 1)
        low = np.minimum(places.astype(int), x.shape[axis] - 2)
        shape = [1] * 4
        shape[axis] = size
        part = (places - low).reshape(shape).astype(np.float32)
        x = np.take(x, low, axis) * (1 - part) + np.take(x, low + 1, axis) * part
    return x


@pytest.mark.parametrize("case", single_cases())
def test_layer_as_caffe_has_it(tmp_path: Path, case: str) -> None:
    layer, function = single_cases()[case]
    net = single(*layer)
    path = net.save(tmp_path)
    for batch in (1, 3):
        x = net.picture(batch)
        (found,) = ours(path, x).values()
        check(found, function(x).astype(np.float32))


@pytest.mark.parametrize("seed", range(16))
def test_pooling_rounds_up_and_clips(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = rng.integers(2, 5, 2)
    stride = np.minimum(rng.integers(1, 4, 2), kernel)
    pad = rng.integers(0, 2, 2) if seed % 2 else np.zeros(2, int)
    pool = ("MAX", "AVE")[seed // 2 % 2]
    net = Net(1, 5, *rng.integers(8, 16, 2), seed=seed)
    net.add(
        "Pooling",
        f"pooling_param {{ pool: {pool} kernel_h: {kernel[0]} kernel_w: {kernel[1]} "
        f"stride_h: {stride[0]} stride_w: {stride[1]} pad_h: {pad[0]} "
        f"pad_w: {pad[1]} }}",
    )
    path = net.save(tmp_path)
    x = net.picture(2)
    (found,) = ours(path, x).values()
    check(found, pooled(x, pool, kernel, stride, pad))
    agree(net, tmp_path)


def pooled(x: Array, pool: str, kernel: Any, stride: Any, pad: Any) -> Array:
    """Return what Caffe's loops compute."""
    sizes = []
    for n, k, s, p in zip(x.shape[2:], kernel, stride, pad, strict=True):
        count = -(-(n + 2 * p - k) // s) + 1
        if any(pad) and (count - 1) * s >= n + p:
            count -= 1
        sizes.append(count)
    y = np.empty((*x.shape[:2], *sizes), np.float32)
    for i, j in np.ndindex(*sizes):
        area = 1
        cut = []
        for at, n, k, s, p in zip(
            (i, j), x.shape[2:], kernel, stride, pad, strict=True
        ):
            start = at * s - p
            end = min(start + k, n + p)
            area *= end - start
            cut.append(slice(max(start, 0), min(end, n)))
        window = x[:, :, cut[0], cut[1]]
        y[:, :, i, j] = (
            window.max((2, 3)) if pool == "MAX" else window.sum((2, 3)) / area
        )
    return y


@pytest.mark.parametrize("seed", range(8))
def test_deconvolution(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = int(rng.choice([1, 2]))
    inputs, outputs = group * int(rng.integers(1, 4)), group * int(rng.integers(1, 4))
    kernel, stride, pad = int(rng.integers(2, 5)), int(rng.integers(1, 4)), seed % 2
    net = Net(1, inputs, 6, 9, seed=seed)
    net.add(
        "Deconvolution",
        f"convolution_param {{ num_output: {outputs} group: {group} stride: {stride} "
        f"kernel_size: {kernel} pad: {pad} }}",
        net.normal(inputs, outputs // group, kernel, kernel),
        net.normal(outputs),
    )
    agree(net, tmp_path)


WEIGHTED = ("inner", "inner axis", "inner transpose", "prelu", "prelu shared")
WEIGHTED += ("batch norm", "batch norm no scale", "scale", "bias", "normalize")
WEIGHTED += ("normalize spatial", "normalize pixels")


def weighted(case: str) -> Net:
    net = Net(1, 6, 5, 7)
    rng = net.rng
    if case == "inner":
        net.add("InnerProduct", "inner_product_param { num_output: 4 }",
                net.normal(4, 210), net.normal(4))  # fmt: skip
    elif case == "inner axis":
        net.add("InnerProduct", "inner_product_param { num_output: 4 axis: 3 bias_term: false }",
                net.normal(4, 7))  # fmt: skip
    elif case == "inner transpose":
        net.add("InnerProduct", "inner_product_param { num_output: 4 transpose: true }",
                net.normal(210, 4), net.normal(4))  # fmt: skip
    elif case == "prelu":
        net.add("PReLU", "", net.normal(6))
    elif case == "prelu shared":
        net.add("PReLU", "prelu_param { channel_shared: true }", net.normal(1))
    elif case.startswith("batch norm"):
        net.conv(6, 8, 3, pad=1)
        net.add("BatchNorm", "batch_norm_param { use_global_stats: true eps: 0.001 }",
                net.normal(8), rng.uniform(1, 9, 8), np.array([2.5]))  # fmt: skip
        if case == "batch norm":
            net.add(
                "Scale", "scale_param { bias_term: true }", net.normal(8), net.normal(8)
            )
    elif case == "scale":
        net.add("Scale", "scale_param { axis: 1 num_axes: 1 }", net.normal(6))
    elif case == "bias":
        net.add("Bias", "", net.normal(6))
    elif case == "normalize":
        net.add("Normalize", "norm_param { across_spatial: false channel_shared: false }",
                net.normal(6))  # fmt: skip
    elif case == "normalize spatial":
        net.add("Normalize", "norm_param { across_spatial: true channel_shared: true }",
                net.normal(1))  # fmt: skip
    elif case == "normalize pixels":
        net.add("Normalize", "norm_param { across_spatial: false channel_shared: true eps: 0.01 }",
                net.normal(1))  # fmt: skip
    return net


@pytest.mark.parametrize("case", WEIGHTED)
def test_layer_with_weights(tmp_path: Path, case: str) -> None:
    net = weighted(case)
    if case not in ("inner transpose", "bias"):
        agree(net, tmp_path)
        return
    path = net.save(tmp_path)
    x = net.picture(3)
    (found,) = ours(path, x).values()
    (weights,) = net.weights.values()
    if case == "bias":
        check(found, x + weights[0][:, None, None])
    else:
        check(found, x.reshape(3, -1) @ weights[0] + weights[1])


@pytest.mark.parametrize("kind", ["shape", "old", "unpacked", "double"])
def test_weights_in_every_way_they_are_written(tmp_path: Path, kind: str) -> None:
    net = Net(1, 3, 8, 8)
    net.conv(3, 4, 3, pad=1)
    net.add("PReLU", "", net.normal(4))
    net.add(
        "InnerProduct",
        "inner_product_param { num_output: 5 }",
        net.normal(5, 256),
        net.normal(5),
    )
    x = net.picture(2)
    wanted = ours(net.save(tmp_path), x)
    found = ours(net.save(tmp_path, kind), x)
    for name in wanted:
        assert np.array_equal(found[name], wanted[name])


def test_branches(tmp_path: Path) -> None:
    net = Net(1, 4, 12, 12)
    stem = net.conv(4, 8, 3, pad=1)
    net.add("Split", tops=("left", "right"))
    left = net.add("ReLU", bottoms=("left",))
    right = net.add("TanH", bottoms=("right",))
    total = net.add(
        "Eltwise",
        "eltwise_param { operation: SUM coeff: 2 coeff: -0.5 }",
        bottoms=(left, right),
    )
    product = net.add(
        "Eltwise", "eltwise_param { operation: PROD }", bottoms=(total, stem)
    )
    most = net.add(
        "Eltwise", "eltwise_param { operation: MAX }", bottoms=(product, left)
    )
    both = net.add("Concat", bottoms=(most, right, total))
    net.add(
        "Slice",
        "slice_param { slice_point: 5 slice_point: 12 }",
        bottoms=(both,),
        tops=("a", "b", "c"),
    )
    end = net.add("Concat", "concat_param { axis: 1 }", bottoms=("c", "a", "b"))
    small = net.add(
        "Pooling",
        "pooling_param { pool: MAX kernel_size: 4 stride: 2 }",
        bottoms=(end,),
    )
    net.add("Crop", "crop_param { axis: 2 offset: 2 offset: 3 }", bottoms=(end, small))
    agree(net, tmp_path)


def test_input_layers_of_two_pictures(tmp_path: Path) -> None:
    net = Net(1, 4, 6, 6)
    dims = "shape { dim: 1 dim: 4 dim: 6 dim: 6 }"
    net.text = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ {dims} }} }}\n'
        for name in ("data", "b")
    )
    left, right = net.conv(4, 8, 3), ""
    net.top = "b"
    right = net.conv(4, 8, 3)
    net.add("Eltwise", bottoms=(left, right))
    net.add("Slice", tops=("x", "y"))
    net.add("Concat", bottoms=("y", "x"))
    path = net.save(tmp_path)
    graph = from_caffe(path)
    assert [entry.name for entry in graph.inputs] == ["data", "b"]
    verdict = compare(graph, Runtime(graph), oracle(path, graph), tolerance=TOLERANCE)
    assert verdict.agrees


def test_scale_by_another_layer(tmp_path: Path) -> None:
    net = Net(1, 4, 6, 6)
    stem = net.conv(4, 8, 3, pad=1)
    gate = net.add(
        "Pooling", "pooling_param { pool: AVE global_pooling: true }", bottoms=(stem,)
    )
    flat = net.add("Flatten", bottoms=(gate,))
    net.add("Scale", "scale_param { axis: 0 }", bottoms=(stem, flat))
    path = net.save(tmp_path)
    x = net.picture(3)
    found = ours(path, x, cut_outputs=(stem, net.top))
    check(found[net.top], found[stem] * found[stem].mean((2, 3), keepdims=True))
    squeezed = Net(1, 4, 6, 6)
    stem = squeezed.conv(4, 8, 3, pad=1)
    gate = squeezed.add(
        "Pooling", "pooling_param { pool: AVE global_pooling: true }", bottoms=(stem,)
    )
    squeezed.add("Axpy", bottoms=(gate, stem, stem))
    (y,) = ours(squeezed.save(tmp_path), x).values()
    check(y, found[stem] + found[net.top])


OLD = """
name: "old" # layers of the first kind
input: "data" input_dim: 10 input_dim: 3 input_dim: 12 input_dim: 12
layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs_lr: 1 weight_decay: 0
  convolution_param { num_output: 4 kernel_size: 3 stride: 1 weight_filler { type: "xavier" } } }
layers { name: "r" type: RELU bottom: "c" top: "c" }
layers { name: "p" type: POOLING bottom: "c" top: "p" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layers { name: "i" type: INNER_PRODUCT bottom: "p" top: "i" inner_product_param { num_output: 6 } }
layers { name: "d" type: DROPOUT bottom: "i" top: "i" dropout_param: < dropout_ratio: 0.5 > }
layers { name: "s" type: SOFTMAX bottom: "i" top: "s" }
"""


def test_old_layers_in_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "old.prototxt"
    path.write_text(OLD)
    weights = {
        "c": [rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)],
        "i": [rng.normal(size=(6, 100)), rng.normal(size=6)],
    }
    path.with_suffix(".caffemodel").write_bytes(caffemodel(weights, "old"))
    graph = from_caffe(path)
    assert graph.inputs[0].shape == ("N", 12, 12, 3)
    verdict = compare(graph, Runtime(graph), oracle(path, graph), tolerance=TOLERANCE)
    assert verdict.agrees
    assert verdict.batches == [1, 3]


PHASES = """
layer { name: "train" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true crop_size: 9 } }
layer { name: "test" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 10 mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.5 } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  param { lr_mult: 1 } convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "n" type: "Python" bottom: "c" top: "c" exclude { phase: TEST } python_param { module: "os" layer: "x" } }
layer { name: "g" type: "Pooling" bottom: "c" top: "g" pooling_param { pool: AVE global_pooling: true } }
layer { name: "accuracy" type: "Accuracy" bottom: "g" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "g" bottom: "label" top: "loss" }
"""


def test_a_network_for_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "train_val.prototxt"
    path.write_text(PHASES)
    weights = {"c": [rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)]}
    path.with_suffix(".caffemodel").write_bytes(caffemodel(weights))
    done: list[tuple[int, int]] = []
    graph = from_caffe(path, progress=lambda *each: done.append(each))
    assert done == [(1, 2), (2, 2)]
    assert graph.inputs[0].shape == ("N", 10, 10, 3)
    assert graph.outputs == ["g"]
    prepared = graph.preprocess
    assert prepared is not None
    assert prepared.colour == "BGR"
    assert prepared.scale == 0.5
    assert prepared.mean == (52.0, 58.5, 61.5)


def ssd(threshold: float = 0.4, code: str = "CENTER_SIZE", **settings: Any) -> Net:
    """Return a detector of two heads, 3 classes and a background."""
    net = Net(1, 3, 32, 32, seed=3)
    trunk = net.conv(3, 8, 3, pad=1, stride=4)
    sources = [(trunk, 8), (net.conv(8, 16, 3, pad=1, stride=2), 16)]
    heads: dict[str, list[str]] = {"loc": [], "conf": [], "prior": []}
    for index, (source, channels) in enumerate(sources):
        for name, numbers in (("loc", 4), ("conf", 4)):
            net.top = source
            net.conv(channels, 4 * numbers, 3, pad=1)
            net.add("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }")
            heads[name].append(net.add("Flatten", "flatten_param { axis: 1 }"))
        sizes = f"min_size: {6 + 8 * index} max_size: {14 + 8 * index}"
        prior = net.add(
            "PriorBox",
            f"prior_box_param {{ {sizes} aspect_ratio: 2 flip: true clip: {'true' if index else 'false'} "
            "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }",
            bottoms=(source, "data"),
        )
        heads["prior"].append(prior)
    ends = [
        net.add(
            "Concat",
            f"concat_param {{ axis: {2 if name == 'prior' else 1} }}",
            bottoms=tuple(parts),
        )
        for name, parts in heads.items()
    ]
    net.add(
        "Reshape",
        "reshape_param { shape { dim: 0 dim: -1 dim: 4 } }",
        bottoms=(ends[1],),
    )
    net.add("Softmax", "softmax_param { axis: 2 }")
    scores = net.add("Flatten", "flatten_param { axis: 1 }")
    usual = {"share_location": "true", "background_label_id": 0, "keep_top_k": 2000}
    more = " ".join(f"{k}: {v}" for k, v in {**usual, **settings}.items())
    net.add(
        "DetectionOutput",
        f"detection_output_param {{ num_classes: 4 code_type: {code} {more} "
        f"confidence_threshold: {threshold} nms_param {{ nms_threshold: 0.45 top_k: 400 }} }}",
        bottoms=(ends[0], scores, ends[2]),
        name="detection_out",
    )
    return net


@pytest.mark.parametrize("code", ["CENTER_SIZE", "CORNER"])
@pytest.mark.parametrize("background", [0, 4])
def test_detector(tmp_path: Path, code: str, background: int) -> None:
    net = ssd(code=code, background_label_id=background)
    for name in list(net.weights)[2::2] if code == "CORNER" else ():
        net.weights[name] = [array * np.float32(0.1) for array in net.weights[name]]
    graph = agree(net, tmp_path)
    assert not any(node.name.startswith("priorbox") for node in graph.nodes)
    x = net.picture(2).transpose(0, 2, 3, 1)
    found = striate.Model(graph).run({"data": x})["detection_out"]
    assert len(found) > 20
    assert set(found[:, 0]) == {0, 1}
    assert set(found[:, 1]) == {1, 2, 3} if background == 0 else {0, 1, 2, 3}


def test_only_the_best_of_a_picture_are_kept(tmp_path: Path) -> None:
    net = ssd(keep_top_k=25)
    path = net.save(tmp_path)
    graph = from_caffe(path)
    feed = {"data": net.picture(2).transpose(0, 2, 3, 1)}
    found = striate.Model(graph).run(feed)["detection_out"]
    assert [int((found[:, 0] == picture).sum()) for picture in (0, 1)] == [25, 25]
    check(found, oracle(path, graph).run(feed)["detection_out"])


def test_variances_that_are_in_the_target(tmp_path: Path) -> None:
    usual = ssd()
    usual.text = re.sub("variance: [0-9.]+ ", "", usual.text)
    usual.text = usual.text.replace("clip: false", "clip: false variance: 1")
    usual.text = usual.text.replace("clip: true", "clip: true variance: 1")
    x = usual.picture(1)
    (wanted,) = ours(usual.save(tmp_path), x).values()
    (found,) = ours(ssd(variance_encoded_in_target="true").save(tmp_path), x).values()
    assert np.array_equal(found, wanted)


def test_only_the_best_of_a_class_are_looked_at(tmp_path: Path) -> None:
    net = ssd(threshold=0.1)
    net.text = net.text.replace("top_k: 400", "top_k: 7")
    path = net.save(tmp_path)
    graph = from_caffe(path)
    verdict = compare(graph, Runtime(graph), oracle(path, graph), tolerance=TOLERANCE)
    assert verdict.agrees


def alexnet(net: Net) -> None:
    net.conv(3, 12, 11, stride=4)
    net.add("ReLU", tops=(net.top,))
    net.add("LRN", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
    net.add("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    net.conv(12, 32, 5, pad=2, group=2)
    net.add("ReLU", tops=(net.top,))
    net.add("LRN", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
    net.add("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    net.conv(32, 48, 3, pad=1)
    net.add("ReLU", tops=(net.top,))
    net.conv(48, 32, 3, pad=1, group=2)
    net.add("ReLU", tops=(net.top,))
    net.add("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    net.add("InnerProduct", "inner_product_param { num_output: 64 }",
            net.normal(64, 32 * 9, scale=0.1), net.normal(64))  # fmt: skip
    net.add("ReLU", tops=(net.top,))
    net.add("Dropout", "dropout_param { dropout_ratio: 0.5 }", tops=(net.top,))
    net.add("InnerProduct", "inner_product_param { num_output: 10 }",
            net.normal(10, 64, scale=0.2), net.normal(10))  # fmt: skip
    net.add("Softmax")


def fire(net: Net, inputs: int, squeezed: int, wide: int) -> int:
    net.conv(inputs, squeezed, 1)
    source = net.add("ReLU", tops=(net.top,))
    parts = []
    for size in (1, 3):
        net.top = source
        net.conv(squeezed, wide, size, pad=size // 2)
        parts.append(net.add("ReLU", tops=(net.top,)))
    net.add("Concat", bottoms=tuple(parts))
    return 2 * wide


def squeezenet(net: Net) -> None:
    net.conv(3, 16, 3, stride=2)
    net.add("ReLU", tops=(net.top,))
    channels = 16
    for squeezed, wide in ((4, 8), (8, 16), (12, 24)):
        net.add("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
        channels = fire(net, channels, squeezed, wide)
        channels = fire(net, channels, squeezed, wide)
    net.conv(channels, 20, 1)
    net.add("ReLU", tops=(net.top,))
    net.add("Pooling", "pooling_param { pool: AVE global_pooling: true }")
    net.add("Softmax")


def googlenet(net: Net) -> None:
    net.conv(3, 8, 7, pad=3, stride=2)
    net.add("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    net.add("LRN", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
    channels = 8
    for index in range(3):
        source, parts = net.top, []
        for reduced, wide, size in ((0, 8, 1), (6, 12, 3), (4, 6, 5)):
            net.top = source
            if reduced:
                net.conv(channels, reduced, 1)
                net.add("ReLU", tops=(net.top,))
            net.conv(reduced or channels, wide, size, pad=size // 2)
            parts.append(net.add("ReLU", tops=(net.top,)))
        net.top = source
        net.add(
            "Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }"
        )
        parts.append(net.conv(channels, 6, 1))
        net.add("Concat", bottoms=tuple(parts))
        channels = 32
        if index < 2:
            net.add("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    net.add("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 }")
    net.add("Pooling", "pooling_param { pool: AVE global_pooling: true }")
    net.add(
        "InnerProduct",
        "inner_product_param { num_output: 9 }",
        net.normal(9, 32),
        net.normal(9),
    )
    net.add("Softmax")


def mobilenet(net: Net) -> None:
    channels = 3
    for wide, stride in ((8, 2), (16, 1), (24, 2), (24, 1), (32, 2)):
        if channels > 3:
            net.conv(channels, channels, 3, pad=1, stride=stride, group=channels)
            normalised(net, channels)
            net.conv(channels, wide, 1)
        else:
            net.conv(3, wide, 3, pad=1, stride=2)
        normalised(net, wide)
        channels = wide
    net.add("Pooling", "pooling_param { pool: AVE global_pooling: true }")
    net.conv(32, 11, 1)


def normalised(net: Net, channels: int) -> None:
    rng = net.rng
    net.add("BatchNorm", "batch_norm_param { use_global_stats: true }",
            net.normal(channels), rng.uniform(1, 3, channels), np.array([2.0]))  # fmt: skip
    net.add(
        "Scale",
        "scale_param { bias_term: true }",
        rng.uniform(0.5, 2, channels),
        net.normal(channels),
    )
    net.add("ReLU", tops=(net.top,))


NETWORKS = {
    "alexnet": alexnet,
    "squeezenet": squeezenet,
    "googlenet": googlenet,
    "mobilenet": mobilenet,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network(tmp_path: Path, name: str) -> None:
    side = 131 if name == "alexnet" else 64
    net = Net(1, 3, side, side, seed=5)
    NETWORKS[name](net)
    graph = agree(net, tmp_path)
    if name == "mobilenet":
        kinds = [type(node.op).__name__ for node in striate.Model(graph).graph.nodes]
        assert not kinds.count("Mul")


def test_segmentation(tmp_path: Path) -> None:
    net = Net(1, 3, 32, 40)
    net.conv(3, 8, 3, pad=10)
    net.add("Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    net.conv(8, 5, 1)
    net.add("Deconvolution", "convolution_param { num_output: 5 kernel_size: 4 stride: 2 group: 5 bias_term: false }",
            net.normal(5, 1, 4, 4))  # fmt: skip
    net.add("Crop", "crop_param { axis: 2 offset: 9 }", bottoms=(net.top, "data"))
    graph = agree(net, tmp_path)
    assert graph.specs({"data": (1, 32, 40, 3)})[graph.outputs[0]].shape == (
        1,
        32,
        40,
        5,
    )


def test_batch_norm_and_scale_are_one_layer(tmp_path: Path) -> None:
    net = weighted("batch norm")
    graph = from_caffe(net.save(tmp_path))
    assert [type(node.op).__name__ for node in graph.nodes] == ["Conv", "BatchNorm"]


def test_weights_that_hold_the_network_too(tmp_path: Path) -> None:
    layer = (
        chunk(1, b"c") + chunk(2, b"Convolution") + chunk(3, b"data") + chunk(4, b"c")
        + chunk(106, b"\x08\x02" + varint(4 << 3) + b"\x03" + varint(3 << 3) + b"\x01")
    )  # fmt: skip
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(2, 3, 3, 3)), rng.normal(size=2)]
    layer += b"".join(chunk(7, blob(array)) for array in weights)
    shape = chunk(1, b"".join(map(varint, (1, 3, 8, 8))))
    relu = chunk(1, b"r") + chunk(2, b"ReLU") + chunk(3, b"c") + chunk(4, b"c")
    relu += chunk(123, varint(1 << 3 | 5) + struct.pack("<f", 0.1))
    path = tmp_path / "net.caffemodel"
    path.write_bytes(
        chunk(1, b"net") + chunk(3, b"data") + chunk(8, shape)
        + chunk(100, layer) + chunk(100, relu)
    )  # fmt: skip
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    (found,) = ours(path, x).values()
    net = Net(1, 3, 8, 8)
    net.add("Convolution", "convolution_param { num_output: 2 kernel_size: 3 pad: 1 }",
            *(np.asarray(w, "f4") for w in weights))  # fmt: skip
    net.add("ReLU", "relu_param { negative_slope: 0.1 }")
    (wanted,) = ours(net.save(tmp_path), x).values()
    assert np.array_equal(found, wanted)


def test_cut_outputs(tmp_path: Path) -> None:
    net = ssd()
    path = net.save(tmp_path)
    (concat,) = (n for n in re.findall(r'name: "(concat\d+)"', net.text)[:1])
    graph = from_caffe(path, cut_outputs=(concat,))
    assert graph.outputs == [concat]
    with pytest.raises(SettingError, match="no layer 'nothing'"):
        from_caffe(path, cut_outputs=("nothing",))


def test_everything_that_cannot_be_converted_is_told_at_once(tmp_path: Path) -> None:
    net = Net(1, 3, 8, 8)
    net.conv(3, 4, 3)
    net.add("Python", 'python_param { module: "os" layer: "system" }')
    net.add("ROIPooling", "roi_pooling_param { pooled_w: 7 }")
    net.add("Python", bottoms=("data",))
    net.add(
        "Pooling",
        "pooling_param { pool: STOCHASTIC kernel_size: 2 }",
        bottoms=("data",),
    )
    with pytest.raises(UnsupportedModelError) as caught:
        from_caffe(net.save(tmp_path))
    message = str(caught.value)
    assert "4 layers cannot be converted" in message
    assert "Python" in message
    assert "ROIPooling" in message
    assert "pool STOCHASTIC" in message


def test_weights_of_another_network(tmp_path: Path) -> None:
    net = Net(1, 3, 8, 8)
    name = net.conv(3, 4, 3)
    net.weights[name] = [net.normal(4, 5, 3, 3), net.normal(4)]
    with pytest.raises(
        UnsupportedModelError, match=r"shape \(4, 5, 3, 3\), wanted \(4, 3, 3, 3\)"
    ):
        from_caffe(net.save(tmp_path))
    net.weights = {"other": [net.normal(4)]}
    with pytest.raises(UnsupportedModelError, match="has 0 arrays"):
        from_caffe(net.save(tmp_path))


HOSTILE = {
    "num_output": 'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 1000000000 kernel_size: 3 } }',
    "negative": 'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: -4 kernel_size: 3 } }',
    "kernel": 'layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { pool: MAX kernel_size: 0 } }',
    "pad": 'layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { pool: MAX kernel_size: 2 pad: 1000000000000 } }',
    "too large": 'layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { kernel_size: 99999999999999999999999 } }',
    "tile": 'layer { name: "t" type: "Tile" bottom: "data" top: "t" tile_param { tiles: 1000000000 } }',
    "reshape": 'layer { name: "r" type: "Reshape" bottom: "data" top: "r" reshape_param { shape { dim: 0 dim: -1 dim: -1 } } }',
    "slice": 'layer { name: "s" type: "Slice" bottom: "data" top: "a" top: "b" slice_param { slice_point: 9 } }',
    "interp": 'layer { name: "i" type: "Interp" bottom: "data" top: "i" interp_param { height: 1000000 width: 1000000 } }',
    "prior": 'layer { name: "p" type: "PriorBox" bottom: "data" bottom: "data" top: "p" prior_box_param { min_size: 0 aspect_ratio: 0 } }',
    "base": 'layer { name: "e" type: "Exp" bottom: "data" top: "e" exp_param { base: 0 } }',
    "order": 'layer { name: "p" type: "Permute" bottom: "data" top: "p" permute_param { order: 7 } }',
    "no bottom": 'layer { name: "r" type: "ReLU" top: "r" }',
    "unknown bottom": 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" }',
    "a message for a value": 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" relu_param { negative_slope { a: 1 } } }',
    "a value for a message": 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" relu_param: 3 }',
    "unclosed": 'layer { name: "r" type: "ReLU"',
    "nested": "layer { " + "a { " * 5000,
    "unclosed text": 'layer { name: "r }',
    "no layers": "force_backward: true",
    "oldest": 'layers { layer { name: "c" type: "conv" } bottom: "data" top: "c" }',
    "both": 'layers { name: "a" type: RELU bottom: "data" top: "a" } layer { name: "r" type: "ReLU" bottom: "data" top: "r" }',
    "batch statistics": 'layer { name: "b" type: "BatchNorm" bottom: "data" top: "b" batch_norm_param { use_global_stats: false } }',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_text(tmp_path: Path, case: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 } ' + HOSTILE[case]
    )
    path.with_suffix(".caffemodel").write_bytes(caffemodel({}))
    with pytest.raises((ModelFormatError, UnsupportedModelError)) as caught:
        from_caffe(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "dims",
    ["dim: 1 dim: 3 dim: -8 dim: 8", "dim: 1 dim: 3 dim: 1000000 dim: 1000000", ""],
)
def test_inputs_that_make_no_sense(tmp_path: Path, dims: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        f'input: "data" input_shape {{ {dims} }} layer {{ name: "r" type: "ReLU" bottom: "data" top: "r" }}'
    )
    path.with_suffix(".caffemodel").write_bytes(caffemodel({}))
    with pytest.raises(ModelFormatError, match="input 'data'"):
        from_caffe(path)


def test_a_data_layer_without_a_size(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "d" type: "Data" top: "data" } layer { name: "r" type: "ReLU" bottom: "data" top: "r" }'
    )
    path.with_suffix(".caffemodel").write_bytes(caffemodel({}))
    with pytest.raises(
        ModelFormatError, match="wanted the network as it is for deployment"
    ):
        from_caffe(path)


def test_damaged_weights(tmp_path: Path) -> None:
    net = Net(1, 3, 8, 8)
    name = net.conv(3, 4, 3)
    path = net.save(tmp_path)
    beside = path.with_suffix(".caffemodel")
    data = beside.read_bytes()
    for end in range(1, len(data) - 1, 7):
        beside.write_bytes(data[:end])
        with pytest.raises((ModelFormatError, UnsupportedModelError)):
            from_caffe(path)
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.integers(0, 60)] = rng.integers(0, 256)
        beside.write_bytes(bytes(damaged))
        with suppress(ModelFormatError, UnsupportedModelError):
            from_caffe(path)
    bomb = chunk(
        100,
        chunk(1, name.encode())
        + chunk(7, chunk(7, chunk(1, varint(1 << 39))) + chunk(5, bytes(8))),
    )
    for content in (b"", b"\x89HDF\r\n\x1a\n" + bytes(100), b"\xff" * 40, bomb):
        beside.write_bytes(content)
        with pytest.raises((ModelFormatError, UnsupportedModelError)):
            from_caffe(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    net = Net(1, 3, 8, 8)
    net.conv(3, 4, 3)
    path = net.save(tmp_path)
    other = path.with_suffix(".caffemodel").rename(tmp_path / "other.caffemodel")
    with pytest.raises(ModelFormatError, match="no such file"):
        from_caffe(path)
    assert from_caffe(path, other).outputs
    with pytest.raises(ModelFormatError, match="no regular file"):
        from_caffe(tmp_path, other)


def test_operators() -> None:
    assert {"Convolution", "DetectionOutput", "InnerProduct"} <= set(operators())
