"""M5, which hears words in a waveform (Dai et al. 2016)."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.network import Network, Weights

LAYERS = ((32, 80, 16), (32, 3, 1), (64, 3, 1), (64, 3, 1))
"""Channels, kernel and stride."""


def m5(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 35,
    samples: int = 8000,
) -> Graph:
    """Return M5 for one second of sound, 8000 samples by default."""
    net = Network("m5", weights, seed)
    x = net.input("sound", samples, 1)
    for index, (channels, kernel, stride) in enumerate(LAYERS, 1):
        x = net.conv(f"conv{index}", x, channels, kernel, stride, padding=0)
        x = net.activate(ops.Relu(), net.norm(f"bn{index}", x))
        x = net.apply(ops.MaxPool((4,), (4,)), x, name=f"pool{index}")
    x = net.apply(ops.GlobalAveragePool(), x)
    x = net.dense("fc1", x, classes)
    return net.finish(net.apply(ops.LogSoftmax(), x))
