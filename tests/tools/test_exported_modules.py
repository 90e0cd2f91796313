"""Heads and blocks whose axes move, exported by PyTorch, against ONNX Runtime."""

import numpy as np
import pytest
import torch
from nets import export
from onnx_models import assert_close, evaluate, kinds, session
from striate.tools import convert
from torch import nn
from torch.nn import functional


class DetectionHead(nn.Module):
    """As in SSD: each pixel's boxes become rows."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 3, 2, 1)
        self.coarse = nn.Conv2d(8, 12, 3, 2, 1)
        self.fine_scores = nn.Conv2d(8, 20, 3, 1, 1)
        self.coarse_scores = nn.Conv2d(12, 20, 3, 1, 1)

    def forward(self, x):
        fine = torch.relu(self.fine(x))
        coarse = torch.relu(self.coarse(fine))
        scores = [self.fine_scores(fine), self.coarse_scores(coarse)]
        rows = [s.permute(0, 2, 3, 1).reshape(s.shape[0], -1, 5) for s in scores]
        return torch.cat(rows, 1).softmax(-1)


class AnchorHead(nn.Module):
    """As in YOLO: the channels hold anchors, which go before the pixels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 21, 3, 2, 1)

    def forward(self, x):
        y = self.conv(x)
        batch, _, height, width = y.shape
        y = y.view(batch, 3, 7, height, width).permute(0, 1, 3, 4, 2)
        return torch.sigmoid(y).reshape(batch, -1, 7)


class Gate(nn.Module):
    """Squeeze and excitation by fully connected layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 2, 1)
        self.down = nn.Linear(16, 4)
        self.up = nn.Linear(4, 16)

    def forward(self, x):
        x = self.conv(x)
        batch, channels, _, _ = x.shape
        y = functional.adaptive_avg_pool2d(x, 1).view(batch, channels)
        y = torch.sigmoid(self.up(torch.relu(self.down(y))))
        return x * y.view(batch, channels, 1, 1).expand_as(x)


class Columns(nn.Module):
    """As in a CRNN: columns become a sequence, the batch second."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, (32, 1), 1)
        self.fc = nn.Linear(16, 9)

    def forward(self, x):
        x = self.conv(x).mean(2).permute(2, 0, 1)
        return functional.log_softmax(self.fc(x), -1)


class Focus(nn.Module):
    """Every second pixel of four kinds, as channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(12, 8, 3, 1, 1)

    def forward(self, x):
        quarters = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.conv(torch.cat(quarters, 1))


class Upscale(nn.Module):
    """Channels become pixels, written as a reshape."""

    def __init__(self):
        super().__init__()
        self.before = nn.Conv2d(3, 12, 3, 1, 1)
        self.after = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        y = self.before(x)
        batch, _, height, width = y.shape
        y = y.view(batch, 3, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        return self.after(y.reshape(batch, 3, 2 * height, 2 * width))


class Normalised(nn.Module):
    """Means of the channels taken off first, borders mirrored, channels cut."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.conv = nn.Conv2d(3, 8, 5, stride=2)
        self.slope = nn.PReLU(8)

    def forward(self, x):
        x = functional.pad((x - self.mean) / 0.3, (1, 2, 1, 2), mode="reflect")
        x = self.slope(self.conv(x))
        return torch.cat([x[:, :4], x[:, 4:].abs()], 1)[:, :, ::2, 1:-1]


class Wave(nn.Module):
    """Convolution along one axis."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 9, 4)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = functional.max_pool1d(torch.relu(self.conv(x.flatten(2))), 4)
        return self.fc(x.mean(2))


class Activations(nn.Module):
    """The activations that exporters take apart."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        x = functional.hardswish(self.conv(x))
        y = functional.gelu(x) + functional.mish(x) + functional.silu(x)
        return y + functional.gelu(x, approximate="tanh") * functional.hardsigmoid(x)


MODULES = {
    DetectionHead: 0,
    AnchorHead: 1,
    Gate: 0,
    Columns: 1,
    Focus: 0,
    Upscale: 1,
    Normalised: 0,
    Wave: 0,
    Activations: 0,
}
"""Modules, and how many transposes they need."""


@pytest.mark.parametrize(
    "opset", [11, 17, 20], ids=["legacy 11", "legacy 17", "dynamo"]
)
@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
def test_module(tmp_path, kind, opset):
    torch.manual_seed(0)
    module = kind().eval()
    path = tmp_path / "net.onnx"
    export(module, path, (2, 3, 32, 32), opset=opset, dynamo=opset == 20)
    x = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    (wanted,) = session(path).run(["logits"], {"image": x})
    for io in ("channels_last", "source"):
        graph = convert(path, io=io)
        assert_close(evaluate(graph, {"image": x})["logits"], wanted, io)
        if io == "channels_last":
            found = [
                entry["reader"] for entry in graph.metadata["conversion"]["transposes"]
            ]
            assert len(found) == MODULES[kind], found
    if kind is Activations:
        assert {"HardSwish", "Gelu", "Mish", "Silu", "HardSigmoid"} <= set(kinds(graph))
