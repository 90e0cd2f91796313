"""Well-known networks as graphs, with random or given weights.

Layers are named as in torchvision, where it has the network. Weights are in striate's
layout: kernels (spatial..., in, out), and what follows a `Flatten` in channels-last
order.

>>> from striate.models.architectures import ARCHITECTURES
>>> graph = ARCHITECTURES["squeezenet"](seed=1, classes=10, image=64)
>>> graph.inputs[0].shape
('N', 64, 64, 3)
"""

from __future__ import annotations

from collections.abc import Callable

from striate import Graph
from striate.models.architectures.alexnet import alexnet
from striate.models.architectures.convnext import convnext_tiny
from striate.models.architectures.densenet import densenet121
from striate.models.architectures.efficientnet import efficientnet_b0
from striate.models.architectures.googlenet import googlenet
from striate.models.architectures.lenet import lenet
from striate.models.architectures.m5 import m5
from striate.models.architectures.mobilenet import mobilenet_v2, mobilenet_v3
from striate.models.architectures.network import parameter_count
from striate.models.architectures.r3d import r3d_18
from striate.models.architectures.resnet import resnet18, resnet50, resnext50
from striate.models.architectures.shufflenet import shufflenet_v2
from striate.models.architectures.squeezenet import squeezenet
from striate.models.architectures.unet import unet
from striate.models.architectures.vgg import vgg16
from striate.models.architectures.yolo import tiny_yolo

__all__ = ["ARCHITECTURES", "parameter_count"]

ARCHITECTURES: dict[str, Callable[..., Graph]] = {
    function.__name__: function
    for function in (
        lenet,
        alexnet,
        vgg16,
        googlenet,
        resnet18,
        resnet50,
        resnext50,
        densenet121,
        squeezenet,
        mobilenet_v2,
        mobilenet_v3,
        shufflenet_v2,
        efficientnet_b0,
        convnext_tiny,
        unet,
        tiny_yolo,
        m5,
        r3d_18,
    )
}
"""Every architecture by name."""
