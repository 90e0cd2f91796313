"""SqueezeNet (Iandola et al. 2016)."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.network import RELU, Network, Weights

FIRES = (
    (3, 16, 64),
    (4, 16, 64),
    (6, 32, 128),
    (7, 32, 128),
    (9, 48, 192),
    (10, 48, 192),
    (11, 64, 256),
    (12, 64, 256),
)
"""Index in the network, squeezed channels, channels of either expansion."""


def squeezenet(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return SqueezeNet 1.1."""
    net = Network("squeezenet", weights, seed)
    x = net.input("image", image, image, 3)
    x = net.activate(RELU, net.conv("features.0", x, 64, 3, 2, padding=0))
    for index, squeezed, expanded in FIRES:
        if index in (3, 6, 9):
            x = net.apply(
                ops.MaxPool((3,), (2,), ceil_mode=True), x, name=f"features.{index - 1}"
            )
        x = _fire(net, f"features.{index}", x, squeezed, expanded)
    x = net.activate(RELU, net.conv("classifier.1", x, classes, 1))
    x = net.apply(ops.GlobalAveragePool(), x, name="classifier.3")
    return net.classifies(x, image)


def _fire(net: Network, name: str, x: str, squeezed: int, expanded: int) -> str:
    x = net.activate(RELU, net.conv(f"{name}.squeeze", x, squeezed, 1))
    parts = [
        net.activate(RELU, net.conv(f"{name}.expand{k}x{k}", x, expanded, k))
        for k in (1, 3)
    ]
    return str(net.apply(ops.Concat(), *parts, name=name))
