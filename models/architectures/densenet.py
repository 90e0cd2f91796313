"""DenseNet (Huang et al. 2016)."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.network import RELU, Network, Weights

GROWTH = 32
"""Channels that each layer adds."""


def densenet121(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return DenseNet-121."""
    net = Network("densenet121", weights, seed)
    x = net.input("image", image, image, 3)
    x = net.conv_norm(("features.conv0", "features.norm0"), x, 64, 7, 2)
    x = net.apply(ops.MaxPool((3,), (2,), padding=((1, 1),)), x, name="features.pool0")
    for block, count in enumerate((6, 12, 24, 16), 1):
        if block > 1:
            x = _transition(net, f"features.transition{block - 1}", x)
        for layer in range(1, count + 1):
            x = _dense_layer(net, f"features.denseblock{block}.denselayer{layer}", x)
    x = net.activate(RELU, net.norm("features.norm5", x))
    x = net.apply(ops.GlobalAveragePool(), x, name="avgpool")
    return net.classifies(net.dense("classifier", x, classes), image)


def _dense_layer(net: Network, name: str, x: str) -> str:
    y = net.activate(RELU, net.norm(f"{name}.norm1", x))
    y = net.conv_norm((f"{name}.conv1", f"{name}.norm2"), y, 4 * GROWTH, 1)
    y = net.conv(f"{name}.conv2", y, GROWTH, bias=False)
    return str(net.apply(ops.Concat(), x, y, name=name))


def _transition(net: Network, name: str, x: str) -> str:
    y = net.activate(RELU, net.norm(f"{name}.norm", x))
    y = net.conv(f"{name}.conv", y, net.channels(x) // 2, 1, bias=False)
    return str(net.apply(ops.AveragePool((2,), (2,)), y, name=f"{name}.pool"))
