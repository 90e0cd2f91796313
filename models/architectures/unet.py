"""U-Net (Ronneberger et al. 2015) with batch norms."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.network import Network, Weights


def unet(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1,
    image: int = 256,
    width: int = 32,
) -> Graph:
    """Return a U-Net: for every pixel, how likely it belongs to each class.

    Parameters
    ----------
    image : int
        A multiple of 16.
    width : int
        Channels of the first level; each level below has twice as many.
    """
    net = Network("unet", weights, seed)
    x = net.input("image", image, image, 3)
    passed = []
    for level in range(1, 5):
        x = _twice(net, f"encoder{level}", f"enc{level}", x, width << level - 1)
        passed.append(x)
        x = net.apply(ops.MaxPool((2,), (2,)), x, name=f"pool{level}")
    x = _twice(net, "bottleneck", "bottleneck", x, width << 4)
    for level in range(4, 0, -1):
        channels = width << level - 1
        x = net.transposed_conv(f"upconv{level}", x, channels)
        x = net.apply(ops.Concat(), x, passed.pop(), name=f"decoder{level}")
        x = _twice(net, f"decoder{level}", f"dec{level}", x, channels)
    return net.finish(net.activate(ops.Sigmoid(), net.conv("conv", x, classes, 1)))


def _twice(net: Network, name: str, short: str, x: str, channels: int) -> str:
    for index in (1, 2):
        names = (f"{name}.{short}conv{index}", f"{name}.{short}norm{index}")
        x = net.conv_norm(names, x, channels)
    return x
