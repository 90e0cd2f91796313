"""ConvNeXt (Liu et al. 2022)."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.network import Network, Weights


def convnext_tiny(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return ConvNeXt-Tiny."""
    net = Network("convnext_tiny", weights, seed)
    x = net.input("image", image, image, 3)
    x = net.conv("features.0.0", x, 96, 4, 4, padding=0)
    x = net.layer_norm("features.0.1", x)
    for stage, (channels, count) in enumerate(((96, 3), (192, 3), (384, 9), (768, 3))):
        if stage:
            x = net.layer_norm(f"features.{2 * stage}.0", x)
            x = net.conv(f"features.{2 * stage}.1", x, channels, 2, 2, padding=0)
        for index in range(count):
            x = _block(net, f"features.{2 * stage + 1}.{index}", x)
    x = net.apply(ops.GlobalAveragePool(), x, name="avgpool")
    x = net.layer_norm("classifier.0", x)
    return net.classifies(net.dense("classifier.2", x, classes), image)


def _block(net: Network, name: str, x: str) -> str:
    channels = net.channels(x)
    y = net.conv(f"{name}.block.0", x, channels, 7, groups=channels)
    y = net.layer_norm(f"{name}.block.2", y)
    y = net.activate(ops.Gelu(), net.dense(f"{name}.block.3", y, 4 * channels))
    y = net.dense(f"{name}.block.5", y, channels)
    y = net.scale(f"{name}.layer_scale", y)
    return str(net.apply(ops.Add(), y, x, name=name))
