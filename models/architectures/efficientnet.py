"""EfficientNet (Tan and Le 2019)."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.mobilenet import project, squeeze_excitation
from striate.models.architectures.network import Network, Weights

STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""Expansion, kernel, stride of the first block, channels and blocks."""


def efficientnet_b0(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return EfficientNet-B0."""
    net = Network("efficientnet_b0", weights, seed)
    silu = ops.Silu()
    x = net.input("image", image, image, 3)
    x = net.conv_norm(("features.0.0", "features.0.1"), x, 32, 3, 2, silu)
    for stage, (expansion, kernel, first, outputs, count) in enumerate(STAGES, 1):
        for index in range(count):
            block, stride = f"features.{stage}.{index}", 1 if index else first
            name, y, layer = f"{block}.block", x, 0
            hidden = expansion * net.channels(x)
            if expansion != 1:
                names = (f"{name}.0.0", f"{name}.0.1")
                y, layer = net.conv_norm(names, y, hidden, 1, 1, silu), 1
            names = (f"{name}.{layer}.0", f"{name}.{layer}.1")
            y = net.conv_norm(names, y, hidden, kernel, stride, silu, groups=hidden)
            y = squeeze_excitation(
                net,
                f"{name}.{layer + 1}",
                y,
                net.channels(x) // 4,
                silu,
                ops.Sigmoid(),
            )
            names = (f"{name}.{layer + 2}.0", f"{name}.{layer + 2}.1")
            x = project(net, names, x, y, outputs, block)
    x = net.conv_norm(("features.8.0", "features.8.1"), x, 1280, 1, 1, silu)
    x = net.apply(ops.GlobalAveragePool(), x, name="avgpool")
    return net.classifies(net.dense("classifier.1", x, classes), image)
