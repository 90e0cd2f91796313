"""VGG (Simonyan and Zisserman 2014)."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.network import RELU, Network, Weights

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each stage of the network with 16 layers."""


def vgg16(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return VGG-16 without batch norms."""
    net = Network("vgg16", weights, seed)
    x = net.input("image", image, image, 3)
    index = 0
    for channels, count in STAGES:
        for _ in range(count):
            x = net.activate(RELU, net.conv(f"features.{index}", x, channels))
            index += 2
        x = net.apply(ops.MaxPool((2,), (2,)), x)
        index += 1
    x = net.apply(ops.Flatten(), net.pool_to(7, x))
    for name in ("classifier.0", "classifier.3"):
        x = net.activate(RELU, net.dense(name, x, 4096))
    return net.classifies(net.dense("classifier.6", x, classes), image)
