"""ShuffleNetV2 (Ma et al. 2018)."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.network import Network, Weights


def shufflenet_v2(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 1000,
    image: int = 224,
) -> Graph:
    """Return ShuffleNetV2 1.0."""
    net = Network("shufflenet_v2", weights, seed)
    x = net.input("image", image, image, 3)
    x = net.conv_norm(("conv1.0", "conv1.1"), x, 24, 3, 2)
    x = net.apply(ops.MaxPool((3,), (2,), padding=((1, 1),)), x, name="maxpool")
    for stage, count, outputs in ((2, 4, 116), (3, 8, 232), (4, 4, 464)):
        for index in range(count):
            x = _unit(net, f"stage{stage}.{index}", x, outputs, 1 if index else 2)
    x = net.conv_norm(("conv5.0", "conv5.1"), x, 1024, 1)
    x = net.apply(ops.GlobalAveragePool(), x, name="avgpool")
    return net.classifies(net.dense("fc", x, classes), image)


def _unit(net: Network, name: str, x: str, outputs: int, stride: int) -> str:
    half = outputs // 2
    if stride == 1:
        kept, x = net.apply(ops.Split(-1, (half, half)), x, name=f"{name}.split")
    else:
        kept = _depthwise(net, (f"{name}.branch1.0", f"{name}.branch1.1"), x, stride)
        names = (f"{name}.branch1.2", f"{name}.branch1.3")
        kept = net.conv_norm(names, kept, half, 1)
    x = net.conv_norm((f"{name}.branch2.0", f"{name}.branch2.1"), x, half, 1)
    x = _depthwise(net, (f"{name}.branch2.3", f"{name}.branch2.4"), x, stride)
    x = net.conv_norm((f"{name}.branch2.5", f"{name}.branch2.6"), x, half, 1)
    x = net.apply(ops.Concat(), kept, x, name=f"{name}.concat")
    return str(net.apply(ops.ChannelShuffle(2), x, name=name))


def _depthwise(net: Network, names: tuple[str, str], x: str, stride: int) -> str:
    channels = net.channels(x)
    return net.conv_norm(names, x, channels, 3, stride, None, groups=channels)
