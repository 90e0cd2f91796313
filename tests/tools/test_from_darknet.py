"""Darknet networks of random weights against OpenCV, which also reads them.

What OpenCV does not know, or does otherwise, a few lines of NumPy compute as Darknet's
loops do.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
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
from striate.tools.from_darknet import from_darknet, operators
from striate.tools.oracles.opencv import oracle
from striate.tools.verification import Runtime, compare


class Net:
    """A configuration in the making, and its weights."""

    def __init__(self, height: int, width: int, channels: int = 3, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.text = f"[net]\nheight={height}\nwidth={width}\nchannels={channels}\n"
        self.shape = (channels, height, width)
        self.weights: list[Array] = []
        self.channels = [channels]

    def add(self, kind: str, channels: int | None = None, **options: Any) -> int:
        """Append a section and return its index."""
        text = "".join(f"{k.rstrip('_')}={v}\n" for k, v in options.items())
        self.text += f"[{kind}]\n{text}"
        self.channels.append(self.channels[-1] if channels is None else channels)
        return len(self.channels) - 2

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        array = (self.rng.normal(size=shape) * scale).astype("<f4")
        self.weights.append(array)
        return array

    def normalised(self, count: int, batch_normalize: bool) -> None:
        """Append the weights of one number a channel."""
        self.normal(count, scale=0.1)
        if batch_normalize:
            self.weights += self.normal_statistics(count)

    def normal_statistics(self, count: int) -> list[Array]:
        """Return scales, means and variances."""
        bounds = ((0.5, 1.5), (-0.5, 0.5), (0.3, 1.5))
        return [self.rng.uniform(*b, count).astype("<f4") for b in bounds]

    def conv(
        self, filters: int, size: int = 3, activation: str = "leaky", **more: Any
    ) -> int:
        more = {"pad": 1, "stride": 1, "batch_normalize": 1, **more}
        inputs = self.channels[-1] // more.get("groups", 1)
        self.normalised(filters, bool(more["batch_normalize"]))
        fan = inputs * size * size
        self.normal(filters, inputs, size, size, scale=(1.6 / fan) ** 0.5)
        return self.add(
            "convolutional", filters,
            filters=filters, size=size, activation=activation, **more,
        )  # fmt: skip

    def head(self, filters: int) -> None:
        """Append the convolution before boxes."""
        self.conv(filters, 1, "linear", batch_normalize=0)

    def route(self, *layers: int, **more: Any) -> int:
        here = len(self.channels) - 1
        chosen = [layer if layer >= 0 else here + layer for layer in layers]
        channels = sum(self.channels[k + 1] for k in chosen) // more.get("groups", 1)
        return self.add("route", channels, layers=",".join(map(str, layers)), **more)

    def save(self, folder: Path, version: tuple[int, int] = (0, 2)) -> Path:
        path = folder / "net.cfg"
        path.write_text(self.text)
        wide = version >= (0, 2)
        header = struct.pack("<3i", *version, 5) + bytes(8 if wide else 4)
        numbers = b"".join(array.tobytes() for array in self.weights)
        path.with_suffix(".weights").write_bytes(header + numbers)
        return path

    def picture(self, batch: int) -> Array:
        shape = (batch, *self.shape)
        return self.rng.uniform(0, 1, shape).astype(np.float32)

    def run(self, folder: Path, x: Array, **options: Any) -> list[Array]:
        """Return what the converted network computes, in Darknet's order of axes."""
        graph = from_darknet(self.save(folder), io="source", **options)
        found = striate.Model(graph).run({"data": x})
        return [found[name] for name in graph.outputs]


def agree(net: Net, folder: Path) -> striate.Graph:
    """Compare a network's conversion with OpenCV; return it."""
    path = net.save(folder)
    return against_opencv.agree(from_darknet(path), path)


def check(found: Array, wanted: Array) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize("seed", range(10))
def test_convolution(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 2, 3]))
    net = Net(*map(int, rng.integers(9, 20, 2)), channels=groups * 2, seed=seed)
    net.conv(
        groups * int(rng.integers(1, 5)),
        int(rng.integers(1, 6)),
        str(rng.choice(["linear", "leaky", "relu", "swish", "mish", "logistic"])),
        groups=groups,
        stride=int(rng.integers(1, 3)),
        batch_normalize=seed % 2,
        **({"pad": 0, "padding": int(rng.integers(0, 2))} if seed % 3 == 0 else {}),
    )
    agree(net, tmp_path)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 9, 13])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_maxpool(tmp_path: Path, size: int, stride: int) -> None:
    net = Net(16, 19)
    net.conv(4)
    net.add("maxpool", size=size, stride=stride)
    agree(net, tmp_path)


def test_maxpool_with_padding(tmp_path: Path) -> None:
    for size, padding in ((3, 0), (3, 1), (4, 2), (2, 0)):
        net = Net(13, 18)
        net.conv(4)
        net.add("maxpool", size=size, stride=2, padding=padding)
        agree(net, tmp_path)


def numpy_activations() -> dict[str, Callable[[Array], Array]]:
    """Return activations as Darknet's loops have them."""
    return {
        "relu6": lambda x: np.clip(x, 0, 6),
        "relie": lambda x: np.where(x > 0, x, 0.01 * x),
        "ramp": lambda x: x * (x > 0) + 0.1 * x,
        "tanh": np.tanh,
        "elu": lambda x: np.where(x >= 0, x, np.expm1(x)),
        "selu": lambda x: 1.0507 * np.where(x >= 0, x, 1.6732 * np.expm1(x)),
        "loggy": lambda x: 2 / (1 + np.exp(-x)) - 1,
        "plse": lambda x: np.where(
            x < -4, 0.01 * (x + 4),
            np.where(x > 4, 0.01 * (x - 4) + 1, 0.125 * x + 0.5),
        ),
        "hardtan": lambda x: np.clip(x, -1, 1),
        "lhtan": lambda x: np.where(
            x < 0, 0.001 * x, np.where(x > 1, 0.001 * (x - 1) + 1, x)
        ),
        "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3)),
        "hard_mish": lambda x: np.where(
            x > 0, x, np.where(x > -2, x * x / 2 + x, 0)
        ),
        "revleaky": lambda x: np.where(x > 0, x, 0.1 * x),
    }  # fmt: skip


@pytest.mark.parametrize("name", numpy_activations())
def test_activation(tmp_path: Path, name: str) -> None:
    net = Net(6, 7)
    net.add("activation", activation=name)
    x = net.picture(2) * 16 - 8
    (found,) = net.run(tmp_path, x)
    check(found, numpy_activations()[name](x).astype(np.float32))


def test_no_activation_is_logistic(tmp_path: Path) -> None:
    net = Net(4, 4, 2)
    net.conv(2, 1, "linear", batch_normalize=0)
    x = net.picture(1)
    (line,) = net.run(tmp_path, x)
    net.text = net.text.replace("activation=linear\n", "")
    (found,) = net.run(tmp_path, x)
    check(found, 1 / (1 + np.exp(-line)))


def reorg(x: Array, stride: int, reverse: bool) -> Array:
    """Return what Darknet's loop over the elements computes."""
    batch, channels, height, width = x.shape
    inner = channels // stride**2
    if reverse:
        shape = (batch, inner, height * stride, width * stride)
    else:
        shape = (batch, channels * stride**2, height // stride, width // stride)
    source, y = x.reshape(batch, -1), np.empty((batch, x.size // batch), x.dtype)
    for k, j, i in np.ndindex(channels, height, width):
        near = i + width * (j + height * k)
        offset, c2 = divmod(k, inner)
        w2 = i * stride + offset % stride
        h2 = j * stride + offset // stride
        far = w2 + width * stride * (h2 + height * stride * c2)
        if reverse:
            y[:, far] = source[:, near]
        else:
            y[:, near] = source[:, far]
    return y.reshape(shape)


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_reorg(tmp_path: Path, stride: int, reverse: int) -> None:
    net = Net(6, 12, 36)
    net.add("reorg", stride=stride, reverse=reverse)
    x = net.picture(2)
    (found,) = net.run(tmp_path, x)
    assert np.array_equal(found, reorg(x, stride, bool(reverse)))
    if not reverse:
        agree(net, tmp_path)


def test_reorg3d(tmp_path: Path) -> None:
    net = Net(6, 8, 5)
    net.add("reorg3d", stride=2)
    x = net.picture(2)
    (found,) = net.run(tmp_path, x)
    parts = [x[:, :, i::2, j::2] for i in range(2) for j in range(2)]
    assert np.array_equal(found, np.concatenate(parts, 1))
    net.add("reorg3d", stride=2, reverse=1)
    assert np.array_equal(net.run(tmp_path, x)[0], x)


@pytest.mark.parametrize("version", [(0, 1), (0, 2), (2, 0)])
def test_versions_of_the_header(tmp_path: Path, version: tuple[int, int]) -> None:
    net = Net(8, 8)
    net.conv(4)
    x = net.picture(1)
    (wanted,) = net.run(tmp_path, x)
    graph = from_darknet(net.save(tmp_path, version), io="source")
    assert np.array_equal(
        striate.Model(graph).run({"data": x})["convolutional_0"], wanted
    )
    assert graph.provenance["source_format"] == f"weights {version[0]}.{version[1]}.5"


def test_matrices_stored_by_inputs(tmp_path: Path) -> None:
    net = Net(4, 4)
    bias, matrix = net.normal(7), net.normal(48, 7)
    net.add("connected", 7, output=7, activation="linear")
    path = net.save(tmp_path)
    data = path.with_suffix(".weights").read_bytes()
    path.with_suffix(".weights").write_bytes(
        struct.pack("<4i", 0, 1001, 0, 0) + data[20:]
    )
    x = net.picture(2)
    found = striate.Model(from_darknet(path, io="source")).run({"data": x})
    check(found["connected_0"], x.reshape(2, -1) @ matrix + bias)


def test_connected_after_pictures(tmp_path: Path) -> None:
    net = Net(9, 11, 2)
    net.conv(4)
    net.add("maxpool", size=2, stride=2)
    inputs = 4 * 5 * 6
    net.normal(12)
    net.normal(12, inputs, scale=inputs**-0.5)
    net.weights += net.normal_statistics(12)
    net.add("connected", 12, output=12, activation="leaky", batch_normalize=1)
    net.normal(5)
    net.normal(5, 12)
    net.add("dropout", probability=0.5)
    net.add("connected", 5, output=5, activation="linear")
    net.add("softmax")
    x = net.picture(2)
    (found,) = net.run(tmp_path, x)
    bias, matrix, gamma, mean, variance, last_bias, last = net.weights[-7:]
    graph = from_darknet(tmp_path / "net.cfg", cut_outputs=("maxpool_1",), io="source")
    flat = striate.Model(graph).run({"data": x})["maxpool_1"].reshape(2, -1)
    y = (flat @ matrix.T - mean) / np.sqrt(variance + 1e-6) * gamma + bias
    z = np.where(y > 0, y, 0.1 * y) @ last.T + last_bias
    powers = np.exp(z - z.max(1, keepdims=True))
    check(found, powers / powers.sum(1, keepdims=True))


def test_kernels_stored_by_inputs(tmp_path: Path) -> None:
    net = Net(6, 7)
    net.conv(5, 3)
    x = net.picture(2)
    (wanted,) = net.run(tmp_path, x)
    net.weights[-1] = net.weights[-1].reshape(5, -1).T.copy()
    net.text = net.text.replace("[convolutional]\n", "[convolutional]\nflipped=1\n")
    assert np.array_equal(net.run(tmp_path, x)[0], wanted)


def test_softmax_in_groups(tmp_path: Path) -> None:
    net = Net(1, 1, 12)
    net.add("softmax", groups=3, temperature=2)
    x = net.picture(2)
    (found,) = net.run(tmp_path, x)
    powers = np.exp(x.reshape(2, 3, 4) / 2)
    check(found, (powers / powers.sum(2, keepdims=True)).reshape(2, 12))
    wide = Net(3, 4, 5)
    wide.add("softmax", spatial=1)
    x = wide.picture(2)
    (found,) = wide.run(tmp_path, x)
    powers = np.exp(x)
    check(found, powers / powers.sum(1, keepdims=True))


def test_local(tmp_path: Path) -> None:
    net = Net(7, 8, 2)
    bias, kernel = net.normal(3, 4 * 4), net.normal(4 * 4, 3, 2 * 9)
    net.add("local", 3, filters=3, size=3, stride=2, pad=1, activation="linear")
    x = net.picture(2)
    (found,) = net.run(tmp_path, x)
    wide = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (2, 3))
    patches = windows[:, :, ::2, ::2].transpose(0, 2, 3, 1, 4, 5).reshape(2, 16, 18)
    wanted = np.einsum("npk,pmk->nmp", patches, kernel) + bias
    check(found, wanted.reshape(2, 3, 4, 4))


def test_channels(tmp_path: Path) -> None:
    net = Net(12, 12)
    stem = net.conv(8)
    net.conv(8, 1, "linear")
    net.add("shortcut", from_=stem, activation="leaky")
    net.conv(6, 1, "swish")
    net.route(-1, stem)
    net.route(-1, groups=2, group_id=1)
    net.conv(12, 3, "mish")
    net.add("shortcut", from_=-4, activation="linear")
    net.add("upsample", stride=2)
    graph = agree(net, tmp_path)
    assert graph.outputs == ["upsample_8"]


def test_scale_channels(tmp_path: Path) -> None:
    net = Net(12, 12)
    gate = net.conv(12, stride=2)
    net.add("avgpool")
    net.conv(12, 1, "logistic")
    net.add("scale_channels", from_=gate)
    path = net.save(tmp_path)
    x = net.picture(3)
    names = ("convolutional_0", "convolutional_2", "scale_channels_3")
    wide, factors, found = net.run(tmp_path, x, cut_outputs=names)
    check(found, wide * factors[..., None, None])
    graph = from_darknet(path)
    verdict = compare(graph, Runtime(graph), oracle(path, graph), tolerance=TOLERANCE)
    assert verdict.agrees
    assert verdict.batches == [1], "OpenCV takes this section for one picture only"


def test_shortcut_of_parts(tmp_path: Path) -> None:
    net = Net(6, 6)
    stem = net.conv(4)
    net.conv(4, 1, "linear")
    net.add("shortcut", from_=stem, alpha=0.5, beta=2, activation="linear")
    x = net.picture(2)
    names = ("convolutional_0", "convolutional_1", "shortcut_2")
    first, second, found = net.run(tmp_path, x, cut_outputs=names)
    check(found, second / 2 + first * 2)


def test_connected(tmp_path: Path) -> None:
    net = Net(5, 6)
    net.conv(4)
    net.normal(9)
    net.normal(9, 120, scale=0.1)
    net.add("connected", 9, output=9, activation="swish")
    net.add("dropout", probability=0.5)
    net.normal(3)
    net.normal(3, 9)
    net.add("connected", 3, output=3, activation="linear")
    net.add("softmax")
    agree(net, tmp_path)


def test_sam(tmp_path: Path) -> None:
    net = Net(8, 8)
    stem = net.conv(4)
    net.conv(4, 1, "logistic")
    net.add("sam", from_=stem)
    agree(net, tmp_path)


def test_layers_without_equal_elsewhere(tmp_path: Path) -> None:
    net = Net(8, 10, 6)
    net.add("maxpool", maxpool_depth=1, out_channels=2)
    x = net.picture(2)
    (found,) = net.run(tmp_path, x)
    assert np.array_equal(found, x.reshape(2, 3, 2, 8, 10).max(1))
    mean = Net(8, 10, 6)
    mean.add("local_avgpool", size=2, stride=2)
    (found,) = mean.run(tmp_path, x)
    blocks = np.pad(x, [(0, 0), (0, 0), (0, 1), (0, 1)])[:, :, :8, :10]
    check(found, blocks.reshape(2, 6, 4, 2, 5, 2).mean((3, 5)))
    many = Net(8, 10, 6)
    many.add("shortcut", from_="0,0")
    with pytest.raises(UnsupportedModelError, match="there is no layer 0 before it"):
        many.run(tmp_path, x)


def darknet19(net: Net, width: int, classes: int) -> None:
    for block in ((32,), (64,), (128, 64, 128), (256, 128, 256)):
        for index, filters in enumerate(block):
            net.conv(filters // width, 1 if index % 2 else 3)
        net.add("maxpool", size=2, stride=2)
    for index, filters in enumerate((512, 256, 512, 256, 512)):
        net.conv(filters // width, 1 if index % 2 else 3)
    net.add("maxpool", size=2, stride=2)
    for index, filters in enumerate((1024, 512, 1024, 512, 1024)):
        net.conv(filters // width, 1 if index % 2 else 3)
    if classes:
        net.conv(classes, 1, "linear", batch_normalize=0)
        net.add("avgpool")
        net.add("softmax", groups=1)
        net.add("cost", type="sse")


def test_darknet19(tmp_path: Path) -> None:
    net = Net(64, 96)
    darknet19(net, 8, 50)
    graph = agree(net, tmp_path)
    assert graph.postprocess is not None
    assert graph.postprocess.activation == "none"
    assert graph.preprocess is not None
    assert graph.preprocess.crop == (64, 96)


def test_yolo_2(tmp_path: Path) -> None:
    net = Net(64, 96)
    darknet19(net, 8, 0)
    net.conv(128)
    net.conv(128)
    net.route(-9)
    net.conv(8, 1)
    net.add("reorg", net.channels[-1] * 4, stride=2)
    net.route(-1, -4)
    net.conv(128)
    net.head(5 * (5 + 7))
    anchors = "0.573,0.677, 1.874,2.063, 3.338,5.474, 7.883,3.528, 9.771,9.168"
    net.add("region", anchors=anchors, bias_match=1, classes=7, coords=4, num=5,
            softmax=1, thresh=0.6)  # fmt: skip
    graph = agree(net, tmp_path)
    assert graph.outputs == ["region_31"]


ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"


def yolo_3_tiny(height: int = 64, width: int = 96) -> Net:
    net = Net(height, width)
    for filters in (2, 4, 8, 16, 32):
        net.conv(filters)
        net.add("maxpool", size=2, stride=2)
    net.conv(64)
    net.add("maxpool", size=2, stride=1)
    net.conv(128)
    net.conv(32, 1)
    net.conv(64)
    net.head(3 * (5 + 4))
    net.add("yolo", mask="3,4,5", anchors=ANCHORS, classes=4, num=6, jitter=0.3)
    net.route(-4)
    net.conv(16, 1)
    net.add("upsample", stride=2)
    net.route(-1, 8)
    net.conv(32)
    net.head(3 * (5 + 4))
    net.add("yolo", mask="0,1,2", anchors=ANCHORS, classes=4, num=6, ignore_thresh=0.7)
    return net


def test_yolo_3_tiny(tmp_path: Path) -> None:
    graph = agree(yolo_3_tiny(), tmp_path)
    done: list[tuple[int, int]] = []
    from_darknet(tmp_path / "net.cfg", progress=lambda *each: done.append(each))
    assert done == [(n, 24) for n in range(1, 25)]
    assert graph.outputs == ["yolo_16", "yolo_23"]
    specs = graph.specs({"data": (1, 64, 96, 3)})
    assert [specs[name].shape for name in graph.outputs] == [(1, 18, 9), (1, 72, 9)]
    assert graph.preprocess is not None
    assert graph.preprocess.colour == "RGB"


def test_yolo_4_tiny(tmp_path: Path) -> None:
    net = Net(64, 64)
    net.conv(4, stride=2)
    net.conv(8, stride=2)
    for filters in (8, 16, 32):
        net.conv(filters)
        net.route(-1, groups=2, group_id=1)
        net.conv(filters // 2)
        net.conv(filters // 2)
        net.route(-1, -2)
        net.conv(filters, 1)
        net.route(-6, -1)
        net.add("maxpool", size=2, stride=2)
    net.conv(64)
    net.conv(32, 1)
    net.conv(64)
    net.head(3 * (5 + 4))
    net.add("yolo", mask="3,4,5", anchors=ANCHORS, classes=4, num=6, scale_x_y=1.05,
            nms_kind="greedynms", beta_nms=0.6)  # fmt: skip
    net.route(-4)
    net.conv(16, 1)
    net.add("upsample", stride=2)
    net.route(-1, 23)
    net.conv(32)
    net.head(3 * (5 + 4))
    net.add("yolo", mask="1,2,3", anchors=ANCHORS, classes=4, num=6, scale_x_y=1.05)
    agree(net, tmp_path)


def test_new_coordinates(tmp_path: Path) -> None:
    net = Net(32, 32)
    net.conv(8, stride=2)
    net.conv(2 * 8, 1, "logistic", batch_normalize=0)
    net.add("yolo", mask="1,2", anchors=ANCHORS, classes=3, num=6, scale_x_y=2.0,
            new_coords=1)  # fmt: skip
    graph = agree(net, tmp_path)
    x = net.picture(1)
    (found,) = net.run(tmp_path, x)
    raw = striate.Model(
        from_darknet(tmp_path / "net.cfg", cut_outputs=("convolutional_1",))
    ).run({"data": x.transpose(0, 2, 3, 1)})["convolutional_1"]
    cell = raw[0, 3, 5].reshape(2, 8)[1]
    row = found[0, (3 * 16 + 5) * 2 + 1]
    assert math.isclose(row[0], (5 + cell[0] * 2 - 0.5) / 16, rel_tol=1e-5)
    assert math.isclose(row[3], (2 * cell[3]) ** 2 * 58 / 32, rel_tol=1e-5)
    assert graph.outputs == ["yolo_2"]


def test_boxes_of_all_heads(tmp_path: Path) -> None:
    net = yolo_3_tiny()
    x = net.picture(2)
    heads = net.run(tmp_path, x)
    boxes, scores, chosen = net.run(tmp_path, x, nms=0.45, threshold=0.3)
    both = np.concatenate(heads, 1)
    assert np.array_equal(boxes, both[..., :4])
    assert np.array_equal(scores, both[..., 5:].transpose(0, 2, 1))
    assert chosen.shape[1] == 3
    assert len(chosen)
    assert (scores[tuple(chosen.T)] > 0.3).all()
    for picture, label, box in chosen:
        same = chosen[(chosen[:, 0] == picture) & (chosen[:, 1] == label), 2]
        others = [
            overlap(boxes[picture, box], boxes[picture, k]) for k in same if k != box
        ]
        assert max(others, default=0) <= 0.45 + 1e-6


def overlap(a: Array, b: Array) -> float:
    """Return the area two boxes share over the area they cover."""
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / float(np.prod(a[2:]) + np.prod(b[2:]) - shared)


def test_the_other_epsilon(tmp_path: Path) -> None:
    net = Net(4, 4)
    net.conv(4, 1, "linear")
    net.weights[3] *= 1e-4
    x = net.picture(1)
    bias, gamma, mean, variance, kernel = net.weights
    line = np.einsum("nchw,mc->nmhw", x, kernel[:, :, 0, 0])
    for epsilon in (1e-6, 1e-5):
        (found,) = net.run(tmp_path, x, epsilon=epsilon)
        scale = (gamma / np.sqrt(variance + epsilon))[:, None, None]
        check(found, (line - mean[:, None, None]) * scale + bias[:, None, None])


def test_weights_that_are_not_enough_or_too_many(tmp_path: Path) -> None:
    net = Net(8, 8)
    net.conv(4)
    net.conv(2, 1)
    path = net.save(tmp_path)
    beside = path.with_suffix(".weights")
    data = beside.read_bytes()
    size = len(data)
    assert size == 20 + 4 * (16 + 108 + 8 + 8)
    for found, code in ((size - 4, "truncated"), (19, "truncated"), (0, "truncated"),
                        (size + 4, "weights"), (size + 1, "weights")):  # fmt: skip
        beside.write_bytes((data + bytes(8))[:found])
        with pytest.raises(ModelFormatError) as caught:
            from_darknet(path)
        assert caught.value.code == code
        assert f"found {found} bytes, wanted " in str(caught.value)
        assert "\n" not in str(caught.value)
        if found > 20:
            assert f"wanted {size}" in str(caught.value)


def test_everything_that_cannot_be_converted_is_told_at_once(tmp_path: Path) -> None:
    net = Net(8, 8)
    net.conv(4)
    net.add("crop", crop_height=4)
    net.add("Gaussian_yolo")
    net.conv(4, 3, "stair")
    net.add("crop", crop_height=4)
    with pytest.raises(UnsupportedModelError) as caught:
        from_darknet(net.save(tmp_path))
    message = str(caught.value)
    assert "3 sections cannot be converted" in message
    assert "crop_1, crop_4" in message
    assert "Gaussian_yolo" in message


BAD = {
    "no text": "",
    "no net": "[convolutional]\nfilters=1\n",
    "no layers": "[net]\nwidth=4\nheight=4\n",
    "no option": "[net]\nwidth=4\nheight=4\n[convolutional]\nwhat\n",
    "negative": "[net]\nwidth=-4\nheight=4\n[convolutional]\n",
    "huge": "[net]\nwidth=1000000000\nheight=1000000000\n[maxpool]\n",
    "no number": "[net]\nwidth=four\nheight=4\n[maxpool]\n",
}


@pytest.mark.parametrize("case", BAD)
def test_a_configuration_that_makes_no_sense(tmp_path: Path, case: str) -> None:
    path = tmp_path / "net.cfg"
    path.write_text(BAD[case])
    path.with_suffix(".weights").write_bytes(bytes(20))
    with pytest.raises(ModelFormatError) as caught:
        from_darknet(path)
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)


HOSTILE = {
    "filters": ("convolutional", {"filters": 10**9, "size": 3}),
    "negative filters": ("convolutional", {"filters": -1}),
    "too long": ("convolutional", {"filters": "9" * 5000}),
    "size": ("convolutional", {"filters": 1, "size": 10**9, "pad": 1}),
    "groups": ("convolutional", {"filters": 2, "groups": 0}),
    "output": ("connected", {"output": 2 * 10**9}),
    "upsample": ("upsample", {"stride": 10**6}),
    "maxpool": ("maxpool", {"size": 0, "stride": 0}),
    "padding": ("maxpool", {"size": 2, "padding": -3}),
    "route": ("route", {"layers": "-1,7,99"}),
    "nowhere": ("route", {}),
    "reorg": ("reorg", {"stride": 0}),
    "classes": ("yolo", {"classes": 10**9, "mask": "0", "anchors": "1,2"}),
    "mask": ("yolo", {"classes": 1, "mask": "7", "anchors": "1,2", "num": 1}),
    "region": ("region", {"classes": 1, "num": 10**9, "anchors": "1"}),
    "not finite": ("upsample", {"stride": 2, "scale": "nan"}),
    "binary": ("convolutional", {"filters": 1, "xnor": 1}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_options(tmp_path: Path, case: str) -> None:
    net = Net(16, 16)
    kind, options = HOSTILE[case]
    net.add(kind, **options)
    net.weights = [np.zeros(64, "<f4")]
    with pytest.raises((ModelFormatError, UnsupportedModelError)):
        from_darknet(net.save(tmp_path))


def test_doubling_routes_are_refused(tmp_path: Path) -> None:
    net = Net(16, 16)
    net.add("maxpool", size=1, stride=1)
    for _ in range(200):
        net.add("route", layers="-1,-1")
    with pytest.raises(UnsupportedModelError, match="numbers"):
        from_darknet(net.save(tmp_path))


@pytest.mark.parametrize("seed", range(20))
def test_damaged_files(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = yolo_3_tiny()
    path = net.save(tmp_path)
    text = bytearray(path.read_bytes())
    for place in rng.integers(0, len(text), 3):
        text[place] = rng.integers(32, 127)
    path.write_bytes(bytes(text))
    with suppress(ModelFormatError, UnsupportedModelError):
        from_darknet(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    path = yolo_3_tiny().save(tmp_path)
    other = path.with_suffix(".weights").rename(tmp_path / "other.weights")
    with pytest.raises(ModelFormatError, match="no such file"):
        from_darknet(path)
    assert from_darknet(path, other).outputs
    with pytest.raises(ModelFormatError, match="no regular file"):
        from_darknet(tmp_path)
    other.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelFormatError, match="not Darknet weights"):
        from_darknet(path, other)


def test_cut_outputs(tmp_path: Path) -> None:
    path = yolo_3_tiny().save(tmp_path)
    graph = from_darknet(path, cut_outputs=("convolutional_15", "maxpool_1"))
    assert set(graph.outputs) == {"convolutional_15", "maxpool_1"}
    with pytest.raises(SettingError, match="no section 'nothing'"):
        from_darknet(path, cut_outputs=("nothing",))


def test_operators() -> None:
    assert {"convolutional", "yolo", "region", "reorg3d"} <= set(operators())
