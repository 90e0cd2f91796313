"""GoogLeNet (Szegedy et al. 2014) with batch norms, without auxiliary heads."""

from __future__ import annotations

from functools import partial

from striate import Graph, ops
from striate.models.architectures.network import Network, Weights

MODULES = (
    ("inception3a", 64, 96, 128, 16, 32, 32),
    ("inception3b", 128, 128, 192, 32, 96, 64),
    ("maxpool3",),
    ("inception4a", 192, 96, 208, 16, 48, 64),
    ("inception4b", 160, 112, 224, 24, 64, 64),
    ("inception4c", 128, 128, 256, 24, 64, 64),
    ("inception4d", 112, 144, 288, 32, 64, 64),
    ("inception4e", 256, 160, 320, 32, 128, 128),
    ("maxpool4",),
    ("inception5a", 256, 160, 320, 32, 128, 128),
    ("inception5b", 384, 192, 384, 48, 128, 128),
)
"""Names, then channels: 1x1; 3x3 reduced and full; 5x5 reduced and full; pooled."""


def googlenet(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return GoogLeNet; its third branches are 3x3, as in torchvision."""
    net = Network("googlenet", weights, seed)
    pool = partial(net.apply, ops.MaxPool((3,), (2,), ceil_mode=True))
    x = net.input("image", image, image, 3)
    x = pool(_conv(net, "conv1", x, 64, 7, 2), name="maxpool1")
    x = _conv(net, "conv3", _conv(net, "conv2", x, 64, 1), 192)
    x = pool(x, name="maxpool2")
    for name, *channels in MODULES:
        if channels:
            x = _inception(net, name, x, *channels)
        elif name == "maxpool3":
            x = pool(x, name=name)
        else:
            x = net.apply(ops.MaxPool((2,), (2,), ceil_mode=True), x, name=name)
    x = net.apply(ops.GlobalAveragePool(), x, name="avgpool")
    return net.classifies(net.dense("fc", x, classes), image)


def _conv(
    net: Network, name: str, x: str, outputs: int, kernel: int = 3, stride: int = 1
) -> str:
    names = (f"{name}.conv", f"{name}.bn")
    return net.conv_norm(names, x, outputs, kernel, stride, epsilon=1e-3)


def _inception(
    net: Network,
    name: str,
    x: str,
    one: int,
    three_reduced: int,
    three: int,
    five_reduced: int,
    five: int,
    pooled: int,
) -> str:
    pool = ops.MaxPool((3,), padding=((1, 1),), ceil_mode=True)
    branches = [_conv(net, f"{name}.branch1", x, one, 1)]
    for branch, reduced, full in (
        ("branch2", three_reduced, three),
        ("branch3", five_reduced, five),
    ):
        y = _conv(net, f"{name}.{branch}.0", x, reduced, 1)
        branches.append(_conv(net, f"{name}.{branch}.1", y, full))
    y = net.apply(pool, x, name=f"{name}.branch4.0")
    branches.append(_conv(net, f"{name}.branch4.1", y, pooled, 1))
    return str(net.apply(ops.Concat(), *branches, name=name))
