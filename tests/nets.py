"""Well-known networks in PyTorch, with weights a test can trust, and their export."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and an activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        epsilon: float = 1e-5,
        padding: int | None = None,
    ) -> None:
        padding = (kernel - 1) // 2 if padding is None else padding
        layers: list[nn.Module] = [
            nn.Conv2d(
                inputs, outputs, kernel, stride, padding, groups=groups, bias=False
            ),
            nn.BatchNorm2d(outputs, eps=epsilon),
        ]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)


class LeNet5(nn.Module):
    """LeNet-5 for 28x28 digits (LeCun et al. 1998)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.tanh(self.conv1(x)))
        x = self.pool(torch.tanh(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = torch.tanh(self.fc1(x))
        x = torch.tanh(self.fc2(x))
        return self.fc3(x)


class Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat(
            [torch.relu(self.expand1(x)), torch.relu(self.expand3(x))], dim=1
        )


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 (Iandola et al. 2016)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Conv2d(512, classes, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((1, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(ConvNorm(inputs, hidden, 1, activation=nn.ReLU6))
        layers += [
            ConvNorm(hidden, hidden, 3, stride, hidden, nn.ReLU6),
            ConvNorm(hidden, outputs, 1, activation=None),
        ]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0 (Sandler et al. 2018)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2, activation=nn.ReLU6)]
        inputs = 32
        for expand, outputs, count, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for index in range(count):
                layers.append(
                    InvertedResidual(
                        inputs, outputs, stride if index == 0 else 1, expand
                    )
                )
                inputs = outputs
        layers.append(ConvNorm(320, 1280, 1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeeze, 1)
        self.fc2 = nn.Conv2d(squeeze, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = functional.silu(self.fc1(self.avgpool(x)))
        return torch.sigmoid(self.fc2(scale)) * x


class MBConv(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expand: int
    ) -> None:
        super().__init__()
        hidden = inputs * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(ConvNorm(inputs, hidden, 1, activation=nn.SiLU))
        layers += [
            ConvNorm(hidden, hidden, kernel, stride, hidden, nn.SiLU),
            SqueezeExcitation(hidden, max(1, inputs // 4)),
            ConvNorm(hidden, outputs, 1, activation=None),
        ]
        self.block = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x if self.shortcut else self.block(x)


class EfficientNetB0(nn.Module):
    """EfficientNet-B0 (Tan and Le 2019)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2, activation=nn.SiLU)]
        inputs = 32
        for expand, kernel, stride, outputs, count in (
            (1, 3, 1, 16, 1),
            (6, 3, 2, 24, 2),
            (6, 5, 2, 40, 2),
            (6, 3, 2, 80, 3),
            (6, 5, 1, 112, 3),
            (6, 5, 2, 192, 4),
            (6, 3, 1, 320, 1),
        ):
            for index in range(count):
                layers.append(
                    MBConv(inputs, outputs, kernel, 1 if index else stride, expand)
                )
                inputs = outputs
        layers.append(ConvNorm(320, 1280, 1, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, width, 3, stride)
        self.conv2 = ConvNorm(width, width, 3, activation=None)
        self.downsample = (
            ConvNorm(inputs, width, 1, stride, activation=None)
            if stride != 1 or inputs != width
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.conv2(self.conv1(x)) + shortcut)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, width, 1)
        self.conv2 = ConvNorm(width, width, 3, stride)
        self.conv3 = ConvNorm(width, 4 * width, 1, activation=None)
        self.downsample = (
            ConvNorm(inputs, 4 * width, 1, stride, activation=None)
            if stride != 1 or inputs != 4 * width
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.conv3(self.conv2(self.conv1(x))) + shortcut)


class ResNet(nn.Module):
    """ResNet (He et al. 2015), stride in the 3x3 convolution."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        counts: Sequence[int],
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 64, 7, 2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        layers: list[nn.Module] = []
        inputs = 64
        for stage, count in enumerate(counts):
            width = 64 << stage
            for index in range(count):
                layers.append(
                    block(inputs, width, 2 if stage > 0 and index == 0 else 1)
                )
                inputs = width * block.expansion
        self.layers = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.maxpool(self.stem(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class VGG16(nn.Module):
    """VGG-16 without batch norm (Simonyan and Zisserman 2014).

    `pooled` is the size the features have before the classifier: 7 for 224 pixels.
    """

    def __init__(self, classes: int = 1000, pooled: int = 7) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += [
                    nn.Conv2d(inputs, width, 3, padding=1),
                    nn.ReLU(inplace=True),
                ]
                inputs = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((pooled, pooled))
        self.classifier = nn.Sequential(
            nn.Linear(512 * pooled * pooled, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(torch.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(torch.relu(self.norm2(x)))


class DenseBlock(nn.Module):
    def __init__(self, count: int, inputs: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [DenseLayer(inputs + index * growth, growth) for index in range(count)]
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet121(nn.Module):
    """DenseNet-121 (Huang et al. 2016)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
        channels = 64
        for index, count in enumerate((6, 12, 24, 16)):
            layers.append(DenseBlock(count, channels, 32))
            channels += 32 * count
            if index < 3:
                layers += [
                    nn.BatchNorm2d(channels),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(channels, channels // 2, 1, bias=False),
                    nn.AvgPool2d(2, 2),
                ]
                channels //= 2
        layers.append(nn.BatchNorm2d(channels))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.features(x))
        x = functional.adaptive_avg_pool2d(x, (1, 1))
        return self.classifier(torch.flatten(x, 1))


class Inception(nn.Module):
    def __init__(
        self, inputs: int, c1: int, c3r: int, c3: int, c5r: int, c5: int, pool: int
    ) -> None:
        super().__init__()
        self.branch1 = ConvNorm(inputs, c1, 1, epsilon=1e-3)
        self.branch2 = nn.Sequential(
            ConvNorm(inputs, c3r, 1, epsilon=1e-3), ConvNorm(c3r, c3, 3, epsilon=1e-3)
        )
        self.branch3 = nn.Sequential(
            ConvNorm(inputs, c5r, 1, epsilon=1e-3), ConvNorm(c5r, c5, 3, epsilon=1e-3)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1, ceil_mode=True),
            ConvNorm(inputs, pool, 1, epsilon=1e-3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1
        )


class GoogLeNet(nn.Module):
    """GoogLeNet with batch norm and 3x3 in place of 5x5, as torchvision has it."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNorm(3, 64, 7, 2, epsilon=1e-3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            ConvNorm(64, 64, 1, epsilon=1e-3),
            ConvNorm(64, 192, 3, epsilon=1e-3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Inception(192, 64, 96, 128, 16, 32, 32),
            Inception(256, 128, 128, 192, 32, 96, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Inception(480, 192, 96, 208, 16, 48, 64),
            Inception(512, 160, 112, 224, 24, 64, 64),
            Inception(512, 128, 128, 256, 24, 64, 64),
            Inception(512, 112, 144, 288, 32, 64, 64),
            Inception(528, 256, 160, 320, 32, 128, 128),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            Inception(832, 256, 160, 320, 32, 128, 128),
            Inception(832, 384, 192, 384, 48, 128, 128),
            nn.AdaptiveAvgPool2d((1, 1)),
        )
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(torch.flatten(self.features(x), 1)))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.branch1 = (
            nn.Sequential(
                ConvNorm(inputs, inputs, 3, 2, inputs, None), ConvNorm(inputs, half, 1)
            )
            if stride > 1
            else None
        )
        self.branch2 = nn.Sequential(
            ConvNorm(inputs if stride > 1 else half, half, 1),
            ConvNorm(half, half, 3, stride, half, None),
            ConvNorm(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.branch1 is None:
            kept, x = x.chunk(2, dim=1)
        else:
            kept = self.branch1(x)
        return channel_shuffle(torch.cat((kept, self.branch2(x)), dim=1), 2)


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 1.0 (Ma et al. 2018)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
        inputs = 24
        for count, outputs in ((4, 116), (8, 232), (4, 464)):
            for index in range(count):
                layers.append(ShuffleUnit(inputs, outputs, 1 if index else 2))
                inputs = outputs
        layers.append(ConvNorm(inputs, 1024, 1))
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean([2, 3]))


NETS: dict[str, tuple[Callable[[], nn.Module], int, int, int]] = {
    "lenet5": (LeNet5, 61_706, 1, 28),
    "squeezenet1_1": (SqueezeNet, 1_235_496, 3, 224),
    "mobilenet_v2": (MobileNetV2, 3_504_872, 3, 224),
    "efficientnet_b0": (EfficientNetB0, 5_288_548, 3, 224),
    "resnet18": (lambda: ResNet(BasicBlock, (2, 2, 2, 2)), 11_689_512, 3, 224),
    "resnet50": (lambda: ResNet(Bottleneck, (3, 4, 6, 3)), 25_557_032, 3, 224),
    "vgg16": (VGG16, 138_357_544, 3, 224),
    "densenet121": (DenseNet121, 7_978_856, 3, 224),
    "googlenet": (GoogLeNet, 6_624_904, 3, 224),
    "shufflenet_v2_x1_0": (ShuffleNetV2, 2_278_604, 3, 224),
}
"""Maker, torchvision's number of parameters, channels and resolution."""


def randomise(module: nn.Module, seed: int, sample: Sequence[int]) -> nn.Module:
    """Give `module` He-normal weights and batch norms that do something, in place.

    The running statistics are those of a random batch of the shape `sample`, off by up
    to a fifth and a tenth of a standard deviation, so that the activations of a deep
    network neither vanish nor overflow and no batch norm is an identity.
    """
    random = torch.Generator().manual_seed(seed)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                fan_in = layer.weight[0].numel()
                layer.weight.normal_(0, (2 / fan_in) ** 0.5, generator=random)
                if layer.bias is not None:
                    layer.bias.normal_(0, 0.1, generator=random)
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5, generator=random)
            norm.bias.normal_(0, 0.2, generator=random)
            norm.momentum = None
            norm.reset_running_stats()
        if norms:
            module.train()
            module(torch.randn(tuple(sample), generator=random))
        for norm in norms:
            mean, variance = norm.running_mean, norm.running_var
            assert mean is not None
            assert variance is not None
            shift = torch.randn(mean.shape, generator=random)
            mean += 0.1 * variance.sqrt() * shift
            variance *= 1.2 ** (2 * torch.rand(mean.shape, generator=random) - 1)
    return module.eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        exporter.setLevel(logging.ERROR)
        try:
            yield
        finally:
            exporter.setLevel(level)


def export(
    module: nn.Module,
    path: Path,
    shape: Sequence[int],
    dynamic_batch: bool = True,
    opset: int = 17,
    dynamo: bool = False,
) -> Path:
    """Write `module` as an ONNX file whose input is ``image``, output ``logits``.

    The legacy exporter leaves batch norms as they are, the default one folds them into
    convolutions where it can.
    """
    sample = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0))
    with _quiet(), torch.no_grad():
        if dynamo:
            torch.onnx.export(
                module,
                (sample,),
                str(path),
                input_names=["image"],
                output_names=["logits"],
                opset_version=opset,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},)
                if dynamic_batch
                else None,
                verbose=False,
            )
        else:
            torch.onnx.export(
                module,
                (sample,),
                str(path),
                input_names=["image"],
                output_names=["logits"],
                opset_version=opset,
                dynamo=False,
                training=torch.onnx.TrainingMode.PRESERVE,
                dynamic_axes={"image": {0: "batch"}} if dynamic_batch else None,
            )
    return path
