"""ResNet (He et al. 2015) and ResNeXt (Xie et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from striate import Graph, ops
from striate.models.architectures.network import RELU, Network, Weights

Block = Callable[[Network, str, str, int, int], str]


def resnet18(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return ResNet-18."""
    net = Network("resnet18", weights, seed)
    return _resnet(net, _basic, (2, 2, 2, 2), classes, image)


def resnet50(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return ResNet-50, with the stride in the 3x3 convolutions."""
    net = Network("resnet50", weights, seed)
    return _resnet(net, _bottleneck, (3, 4, 6, 3), classes, image)


def resnext50(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return ResNeXt-50 (32x4d)."""
    net = Network("resnext50", weights, seed)
    block = partial(_bottleneck, groups=32, widening=2)
    return _resnet(net, block, (3, 4, 6, 3), classes, image)


def _resnet(
    net: Network, block: Block, counts: tuple[int, ...], classes: int, image: int
) -> Graph:
    x = net.input("image", image, image, 3)
    x = net.conv_norm(("conv1", "bn1"), x, 64, 7, 2)
    x = net.apply(ops.MaxPool((3,), (2,), padding=((1, 1),)), x, name="maxpool")
    for stage, count in enumerate(counts):
        for index in range(count):
            stride = 2 if stage and not index else 1
            x = block(net, f"layer{stage + 1}.{index}", x, 64 << stage, stride)
    x = net.apply(ops.GlobalAveragePool(), x, name="avgpool")
    return net.classifies(net.dense("fc", x, classes), image)


def _basic(net: Network, name: str, x: str, width: int, stride: int) -> str:
    y = net.conv_norm((f"{name}.conv1", f"{name}.bn1"), x, width, 3, stride)
    names = (f"{name}.conv2", f"{name}.bn2")
    y = net.conv_norm(names, y, width, 3, 1, None, last=True)
    return _added(net, name, x, y, stride)


def _bottleneck(
    net: Network,
    name: str,
    x: str,
    width: int,
    stride: int,
    groups: int = 1,
    widening: int = 1,
) -> str:
    inner = width * widening
    y = net.conv_norm((f"{name}.conv1", f"{name}.bn1"), x, inner, 1)
    names = (f"{name}.conv2", f"{name}.bn2")
    y = net.conv_norm(names, y, inner, 3, stride, groups=groups)
    names = (f"{name}.conv3", f"{name}.bn3")
    y = net.conv_norm(names, y, 4 * width, 1, 1, None, last=True)
    return _added(net, name, x, y, stride)


def _added(net: Network, name: str, x: str, y: str, stride: int) -> str:
    """Return the sum of a block's input and its branch, behind ReLU."""
    if net.shape(x) != net.shape(y):
        names = (f"{name}.downsample.0", f"{name}.downsample.1")
        x = net.conv_norm(names, x, net.channels(y), 1, stride, None)
    return net.activate(RELU, net.apply(ops.Add(), y, x, name=name))
