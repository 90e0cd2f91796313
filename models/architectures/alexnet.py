"""AlexNet (Krizhevsky 2014, one tower)."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.network import RELU, Network, Weights


def alexnet(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return AlexNet."""
    net = Network("alexnet", weights, seed)
    x = net.input("image", image, image, 3)
    pool = ops.MaxPool((3,), (2,))
    x = net.activate(RELU, net.conv("features.0", x, 64, 11, 4, padding=2))
    x = net.apply(pool, x)
    x = net.activate(RELU, net.conv("features.3", x, 192, 5))
    x = net.apply(pool, x)
    for index, channels in ((6, 384), (8, 256), (10, 256)):
        x = net.activate(RELU, net.conv(f"features.{index}", x, channels))
    x = net.apply(ops.Flatten(), net.pool_to(6, net.apply(pool, x)))
    for index in (1, 4):
        x = net.activate(RELU, net.dense(f"classifier.{index}", x, 4096))
    return net.classifies(net.dense("classifier.6", x, classes), image)
