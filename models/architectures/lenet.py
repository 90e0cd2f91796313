"""LeNet-5 (LeCun et al. 1998)."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.network import Network, Weights


def lenet(
    weights: Weights | None = None, *, seed: int = 0, classes: int = 10, image: int = 28
) -> Graph:
    """Return LeNet-5, which reads grey pictures of digits."""
    net = Network("lenet", weights, seed)
    x = net.input("image", image, image, 1)
    for name, channels, padding in (("conv1", 6, 2), ("conv2", 16, 0)):
        x = net.conv(name, x, channels, 5, padding=padding)
        x = net.activate(ops.Tanh(), x)
        x = net.apply(ops.AveragePool((2,), (2,)), x)
    x = net.apply(ops.Flatten(), x)
    for name, width in (("fc1", 120), ("fc2", 84)):
        x = net.activate(ops.Tanh(), net.dense(name, x, width))
    return net.finish(net.dense("fc3", x, classes))
