"""MobileNets of inverted residuals (Sandler et al. 2018, Howard et al. 2019)."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.network import RELU, Network, Weights

RELU6 = ops.Clip(0.0, 6.0)

V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and stride of the first."""

V3_BLOCKS = (
    (3, 16, 16, False, RELU, 1),
    (3, 64, 24, False, RELU, 2),
    (3, 72, 24, False, RELU, 1),
    (5, 72, 40, True, RELU, 2),
    (5, 120, 40, True, RELU, 1),
    (5, 120, 40, True, RELU, 1),
    (3, 240, 80, False, ops.HardSwish(), 2),
    (3, 200, 80, False, ops.HardSwish(), 1),
    (3, 184, 80, False, ops.HardSwish(), 1),
    (3, 184, 80, False, ops.HardSwish(), 1),
    (3, 480, 112, True, ops.HardSwish(), 1),
    (3, 672, 112, True, ops.HardSwish(), 1),
    (5, 672, 160, True, ops.HardSwish(), 2),
    (5, 960, 160, True, ops.HardSwish(), 1),
    (5, 960, 160, True, ops.HardSwish(), 1),
)
"""Kernel, expanded channels, channels, squeeze and excitation, activation, stride."""


def mobilenet_v2(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return MobileNetV2 1.0."""
    net = Network("mobilenet_v2", weights, seed)
    x = net.input("image", image, image, 3)
    x = net.conv_norm(("features.0.0", "features.0.1"), x, 32, 3, 2, RELU6)
    block = 0
    for expansion, outputs, count, first in V2_STAGES:
        for index in range(count):
            block += 1
            name, stride = f"features.{block}.conv", 1 if index else first
            y, layer = x, 0
            hidden = expansion * net.channels(x)
            if expansion != 1:
                names = (f"{name}.0.0", f"{name}.0.1")
                y, layer = net.conv_norm(names, y, hidden, 1, 1, RELU6), 1
            names = (f"{name}.{layer}.0", f"{name}.{layer}.1")
            y = net.conv_norm(names, y, hidden, 3, stride, RELU6, groups=hidden)
            names = (f"{name}.{layer + 1}", f"{name}.{layer + 2}")
            x = project(net, names, x, y, outputs, f"features.{block}")
    x = net.conv_norm(("features.18.0", "features.18.1"), x, 1280, 1, 1, RELU6)
    x = net.apply(ops.GlobalAveragePool(), x)
    return net.classifies(net.dense("classifier.1", x, classes), image)


def mobilenet_v3(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return MobileNetV3 large."""
    net = Network("mobilenet_v3", weights, seed)
    swish, gate = ops.HardSwish(), ops.HardSigmoid(1 / 6, 0.5)
    x = net.input("image", image, image, 3)
    names = ("features.0.0", "features.0.1")
    x = net.conv_norm(names, x, 16, 3, 2, swish, epsilon=1e-3)
    for index, row in enumerate(V3_BLOCKS, 1):
        kernel, hidden, outputs, excited, activation, stride = row
        name, y, layer = f"features.{index}.block", x, 0
        if hidden != net.channels(x):
            names = (f"{name}.0.0", f"{name}.0.1")
            y = net.conv_norm(names, y, hidden, 1, 1, activation, epsilon=1e-3)
            layer = 1
        names = (f"{name}.{layer}.0", f"{name}.{layer}.1")
        y = net.conv_norm(
            names, y, hidden, kernel, stride, activation, groups=hidden, epsilon=1e-3
        )
        if excited:
            layer += 1
            squeezed = eights(hidden // 4)
            y = squeeze_excitation(net, f"{name}.{layer}", y, squeezed, RELU, gate)
        names = (f"{name}.{layer + 1}.0", f"{name}.{layer + 1}.1")
        x = project(net, names, x, y, outputs, f"features.{index}", epsilon=1e-3)
    names = ("features.16.0", "features.16.1")
    x = net.conv_norm(names, x, 960, 1, 1, swish, epsilon=1e-3)
    x = net.apply(ops.GlobalAveragePool(), x, name="avgpool")
    x = net.activate(swish, net.dense("classifier.0", x, 1280))
    return net.classifies(net.dense("classifier.3", x, classes), image)


def eights(channels: int) -> int:
    """Return the multiple of eight nearest to `channels`, not below nine tenths."""
    nearest = max(8, (channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def squeeze_excitation(
    net: Network, name: str, x: str, squeezed: int, activation: ops.Op, gate: ops.Op
) -> str:
    """Append factors for each channel that are computed from all channels' means."""
    y = net.apply(ops.GlobalAveragePool(keepdims=True), x, name=f"{name}.avgpool")
    y = net.activate(activation, net.conv(f"{name}.fc1", y, squeezed, 1))
    y = net.activate(gate, net.conv(f"{name}.fc2", y, net.channels(x), 1))
    return str(net.apply(ops.Mul(), x, y, name=name))


def project(
    net: Network,
    names: tuple[str, str],
    x: str,
    y: str,
    outputs: int,
    block: str,
    *,
    epsilon: float = 1e-5,
) -> str:
    """Append a block's last convolution, and its input `x` if the shapes agree."""
    shortcut = net.shape(x) == (*net.shape(y)[:-1], outputs)
    y = net.conv_norm(names, y, outputs, 1, 1, None, epsilon=epsilon, last=shortcut)
    return str(net.apply(ops.Add(), y, x, name=block)) if shortcut else y
