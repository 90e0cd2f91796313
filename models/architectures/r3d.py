"""ResNet with convolutions in space and time (Tran et al. 2017)."""

from __future__ import annotations

from striate import Graph, ops
from striate.models.architectures.network import RELU, Network, Weights


def r3d_18(
    weights: Weights | None = None,
    *,
    seed: int = 0,
    classes: int = 400,
    image: int = 112,
    frames: int = 16,
) -> Graph:
    """Return R3D-18 for short videos."""
    net = Network("r3d_18", weights, seed)
    x = net.input("video", frames, image, image, 3)
    x = net.conv_norm(("stem.0", "stem.1"), x, 64, (3, 7, 7), (1, 2, 2))
    for stage in range(4):
        for index in range(2):
            stride = 2 if stage and not index else 1
            x = _block(net, f"layer{stage + 1}.{index}", x, 64 << stage, stride)
    x = net.apply(ops.GlobalAveragePool(), x, name="avgpool")
    return net.finish(net.dense("fc", x, classes))


def _block(net: Network, name: str, x: str, width: int, stride: int) -> str:
    names = (f"{name}.conv1.0", f"{name}.conv1.1")
    y = net.conv_norm(names, x, width, 3, stride)
    names = (f"{name}.conv2.0", f"{name}.conv2.1")
    y = net.conv_norm(names, y, width, 3, 1, None, last=True)
    if stride > 1:
        names = (f"{name}.downsample.0", f"{name}.downsample.1")
        x = net.conv_norm(names, x, width, 1, stride, None)
    return net.activate(RELU, net.apply(ops.Add(), y, x, name=name))
