"""What each section of a Darknet configuration computes.

Each function is named after its section and takes its options by their names. A
section reads the one before, and says itself which others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from striate import ops
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.conversion import Registry
from striate.tools.from_darknet.heads import Head, centres, grid, sizes
from striate.tools.from_darknet.weights import WeightStream
from striate.tools.from_onnx.axes import Concat, cut, mean, padded
from striate.tools.from_onnx.data import reduced
from striate.tools.from_onnx.elementwise import combined
from striate.tools.from_onnx.layers import dense
from striate.tools.from_onnx.registry import OnnxBuilder, find_handler
from striate.tools.from_onnx.resample import resized
from striate.tools.layout import Tensor

Ints = tuple[int, ...]
Floats = tuple[float, ...]

SECTIONS = Registry()
darknet_section = SECTIONS.register

ACTIVATIONS: Mapping[str, tuple[ops.Op, ...]] = {
    "linear": (),
    "logistic": (ops.Sigmoid(),),
    "relu": (ops.Relu(),),
    "relu6": (ops.Clip(0, 6),),
    "leaky": (ops.LeakyRelu(0.1),),
    "revleaky": (ops.LeakyRelu(0.1),),
    "relie": (ops.LeakyRelu(0.01),),
    "tanh": (ops.Tanh(),),
    "elu": (ops.Elu(1.0),),
    "selu": (ops.Selu(1.6732, 1.0507),),
    "gelu": (ops.Gelu("tanh"),),
    "swish": (ops.Silu(),),
    "mish": (ops.Mish(),),
    "hardtan": (ops.Clip(-1, 1),),
}
"""Activations that are operators here."""


class DarknetBuilder(OnnxBuilder):
    """A `Builder` with what Darknet's sections need to know.

    Parameters
    ----------
    weights : WeightStream
        Where layers take their weights from.
    size : (int, int)
        Height and width of the network's input.
    epsilon : float
        What is added to variances.

    Attributes
    ----------
    layers : list of Tensor or None
        What each section computed, (N, C, H, W); None for one that is not supported.
    heads : dict of int to Head
        What the detecting sections found.
    """

    def __init__(
        self, weights: WeightStream, size: tuple[int, int], epsilon: float
    ) -> None:
        super().__init__({"N": (2, 3)}, opset=13, batch=1)
        self.weights = weights
        self.size = size
        self.epsilon = epsilon
        self.layers: list[Tensor | None] = []
        self.heads: dict[int, Head] = {}

    def source(self, place: int) -> Tensor | None:
        """Return what a section computed, from the back if negative.

        Raises
        ------
        UnsupportedModelError
            If no earlier section has that place, or it is one that detects.
        """
        index = place if place >= 0 else len(self.layers) + place
        if not 0 <= index < len(self.layers):
            raise UnsupportedModelError(f"there is no layer {place} before it")
        if index in self.heads:
            raise UnsupportedModelError(f"it reads the boxes of layer {index}")
        return self.layers[index]

    def picture(self, x: Tensor) -> tuple[int, int, int]:
        """Return channels, height and width."""
        channels, height, width = (self.fixed(dim, "its size") for dim in x.shape[1:])
        return channels, height, width

    def activate(self, x: Tensor, name: str) -> Tensor:
        """Return an activation of `x`."""
        if name in ACTIVATIONS:
            for op in ACTIVATIONS[name]:
                x = self.elementwise(op, x)
            return x
        if name == "hard_mish":
            gate = self.scaled(self.moved(x, 2.0), 0.5)
            return self.combine(ops.Mul(), x, self.elementwise(ops.Clip(0, 1), gate))
        if name == "loggy":
            return self.elementwise(ops.Tanh(), self.scaled(x, 0.5))
        if name == "ramp":
            return self.scaled(self.elementwise(ops.LeakyRelu(1 / 11), x), 1.1)
        if name == "lhtan":
            inside = self.elementwise(ops.Clip(0, 1), x)
            return self._leaking(x, inside, inside, 0.001)
        if name == "plse":
            inside = self.elementwise(ops.Clip(-4, 4), x)
            line = self.moved(self.scaled(inside, 0.125), 0.5)
            return self._leaking(x, inside, line, 0.01)
        raise UnsupportedModelError(f"activation={name[:40]}")

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        """Return ``factor x``."""
        return self.combine(ops.Mul(), x, self.number(factor))

    def moved(self, x: Tensor, step: float) -> Tensor:
        """Return ``x + step``."""
        return self.combine(ops.Add(), x, self.number(step))

    def _leaking(self, x: Tensor, inside: Tensor, y: Tensor, slope: float) -> Tensor:
        """Return y, with a slope where x is not what is inside."""
        outside = self.combine(ops.Sub(), x, inside)
        return self.combine(ops.Add(), y, self.scaled(outside, slope))

    def statistics(self, channels: int) -> dict[str, Array]:
        """Take the scales, means and variances of a layer."""
        names = ("gamma", "mean", "variance")
        return {name: self.weights.take(channels) for name in names}

    def resample(self, x: Tensor, factor: int) -> Tensor:
        """Return `x` with every pixel repeated along both axes."""
        return resized(
            self,
            ops.Resize(
                scales=(float(factor), float(factor)),
                axes=(2, 3),
                coordinates="asymmetric",
                nearest="floor",
            ),
            x,
        )


@darknet_section("convolutional", "conv")
def convolutional(
    g: DarknetBuilder,
    x: Tensor,
    *,
    filters: int = 1,
    size: int = 1,
    stride: int = 1,
    stride_x: int = 0,
    stride_y: int = 0,
    dilation: int = 1,
    groups: int = 1,
    pad: int = 0,
    padding: int = 0,
    batch_normalize: int = 0,
    flipped: int = 0,
    activation: str = "logistic",
) -> Tensor:
    """Convolve, normalise and activate; ``pad`` keeps the size of odd kernels."""
    channels, *_ = g.picture(x)
    _at_least_one(filters=filters, size=size, dilation=dilation, groups=groups)
    if channels % groups or filters % groups:
        raise UnsupportedModelError(
            f"groups={groups} for {channels} channels and {filters} filters"
        )
    steps = (stride_y if stride_y > 0 else stride, stride_x if stride_x > 0 else stride)
    _at_least_one(stride=min(steps))
    dilation = dilation if size > 1 else 1
    side = size // 2 if pad else padding
    if dilation > 1 and 2 * side != size - 1:
        raise UnsupportedModelError(
            f"dilation={dilation} with size={size} and a padding of {side}, wanted "
            f"{(size - 1) / 2:g}"
        )
    bias = g.weights.take(filters)
    normal = g.statistics(filters) if batch_normalize else {}
    inner = channels // groups * size * size
    if flipped:
        rows = g.weights.take(inner, filters).T
    else:
        rows = g.weights.take(filters, inner)
    kernel = rows.reshape(filters, channels // groups, size, size).transpose(2, 3, 1, 0)
    around = ((side * dilation,) * 2,) * 2
    op = ops.Conv(steps, (dilation,), around if side else "valid", groups)
    pixels = x.channels_last()
    if not normal:
        y = g.apply(op, pixels, kernel=kernel, bias=bias)
    else:
        y = g.apply(op, pixels, kernel=kernel)
        y = g.apply(ops.BatchNorm(g.epsilon), y, beta=bias, **normal)
    return g.activate(y.channels_first(), activation)


@darknet_section("connected", "conn")
def connected(
    g: DarknetBuilder,
    x: Tensor,
    *,
    output: int = 1,
    batch_normalize: int = 0,
    activation: str = "logistic",
) -> Tensor:
    """Multiply by a matrix of one row for each output, normalise and activate."""
    _at_least_one(output=output)
    inputs = int(np.prod(g.picture(x), dtype=np.int64))
    bias = g.weights.take(output)
    if g.weights.transposed:
        matrix = g.weights.take(inputs, output)
    else:
        matrix = g.weights.take(output, inputs).T
    flat = g.reshape(x, (x.shape[0], (inputs,) * g.bindings))
    if batch_normalize:
        normal = g.statistics(output)
        y = dense(g, flat, matrix)
        y = g.apply(ops.BatchNorm(g.epsilon), y, beta=bias, **normal)
    else:
        y = dense(g, flat, matrix, bias)
    return g.activate(_as_picture(g, y), activation)


@darknet_section("local")
def local(
    g: DarknetBuilder,
    x: Tensor,
    *,
    filters: int = 1,
    size: int = 1,
    stride: int = 1,
    pad: int = 0,
    activation: str = "logistic",
) -> Tensor:
    """Convolve with a kernel of its own at every place."""
    channels, height, width = g.picture(x)
    _at_least_one(filters=filters, size=size, stride=stride)
    if pad not in (0, 1) or (pad and size != 3):
        raise UnsupportedModelError(f"pad={pad} with size={size}")
    rows, columns = ((n - (1 if pad else size)) // stride + 1 for n in (height, width))
    _at_least_one(places=min(rows, columns))
    bias = g.weights.take(filters, rows, columns).transpose(1, 2, 0)
    kernel = g.weights.take(rows, columns, filters, channels, size, size)
    op = ops.LocallyConnected((stride,), ((pad, pad),) * 2 if pad else "valid")
    y = g.apply(
        op, x.channels_last(), kernel=kernel.transpose(0, 1, 4, 5, 3, 2), bias=bias
    )
    return g.activate(y.channels_first(), activation)


@darknet_section("maxpool", "max")
def maxpool(
    g: DarknetBuilder,
    x: Tensor,
    *,
    size: int | None = None,
    stride: int = 1,
    stride_x: int = 0,
    stride_y: int = 0,
    padding: int | None = None,
    maxpool_depth: int = 0,
    out_channels: int = 1,
) -> Tensor:
    """Take the largest of each window; half of the padding, rounded down, is before."""
    if maxpool_depth:
        return _largest_channels(g, x, out_channels)
    kernel, around, steps = _pool_window(size, stride, stride_x, stride_y, padding)
    op = ops.MaxPool((kernel,), steps, (1,), around)
    return g.apply(op, x.channels_last()).channels_first()


@darknet_section("local_avgpool")
def local_avgpool(
    g: DarknetBuilder,
    x: Tensor,
    *,
    size: int | None = None,
    stride: int = 1,
    stride_x: int = 0,
    stride_y: int = 0,
    padding: int | None = None,
) -> Tensor:
    """Average what of each window is inside, with the windows of ``maxpool``."""
    kernel, around, steps = _pool_window(size, stride, stride_x, stride_y, padding)
    op = ops.AveragePool((kernel,), steps, (1,), around)
    return g.apply(op, x.channels_last()).channels_first()


def _pool_window(
    size: int | None, stride: int, stride_x: int, stride_y: int, padding: int | None
) -> tuple[int, Any, Ints]:
    kernel = stride if size is None else size
    steps = (stride_y if stride_y > 0 else stride, stride_x if stride_x > 0 else stride)
    _at_least_one(size=kernel, stride=min(steps))
    total = kernel - 1 if padding is None else padding
    if total < 0:
        raise UnsupportedModelError(f"padding={total}")
    return kernel, ((total // 2, total - total // 2),) * 2, steps


def _largest_channels(g: DarknetBuilder, x: Tensor, count: int) -> Tensor:
    """Return the largest of all channels that are the same modulo `count`."""
    channels, *_ = g.picture(x)
    _at_least_one(out_channels=count)
    if channels % count:
        raise UnsupportedModelError(f"out_channels={count} of {channels}")
    batch, _, *spatial = x.shape
    parts = [(n,) * g.bindings for n in (channels // count, count)]
    grouped = g.reshape(x, (batch, *parts, *spatial))
    return reduced(g, ops.ReduceMax, grouped, (1,), keepdims=0)


@darknet_section("avgpool", "avg")
def avgpool(g: DarknetBuilder, x: Tensor) -> Tensor:
    """Average each channel over the picture."""
    return mean(g, x, (2, 3), keepdims=1)


@darknet_section("upsample")
def upsample(
    g: DarknetBuilder, x: Tensor, *, stride: int = 2, scale: float = 1.0
) -> Tensor:
    """Repeat every pixel along both axes."""
    _at_least_one(stride=stride)
    y = g.resample(x, stride)
    return y if scale == 1 else g.scaled(y, scale)


@darknet_section("route")
def route(
    g: DarknetBuilder,
    x: Tensor,
    *,
    layers: Ints = (),
    groups: int = 1,
    group_id: int = 0,
) -> Tensor | None:
    """Join the channels of earlier layers, of each only one of its groups."""
    if not layers:
        raise UnsupportedModelError("it names no layers")
    parts = []
    for place in layers:
        part = g.source(place)
        if part is None:
            return None
        channels, *_ = g.picture(part)
        if groups < 1 or channels % groups or not 0 <= group_id < groups:
            raise UnsupportedModelError(
                f"group_id={group_id} of groups={groups} of {channels} channels"
            )
        if groups > 1:
            part = cut(g, part, 1, (channels // groups,) * groups)[group_id]
        parts.append(part)
    return Concat(g, *parts, axis=1)


@darknet_section("shortcut")
def shortcut(
    g: DarknetBuilder,
    x: Tensor,
    *,
    from_: Ints = (),
    activation: str = "linear",
    alpha: float = 1.0,
    beta: float = 1.0,
) -> Tensor | None:
    """Add earlier layers times ``beta``; their further channels are left out."""
    if not from_:
        raise UnsupportedModelError("it does not say from where")
    y = x if alpha == 1 else g.scaled(x, alpha)
    channels, height, width = g.picture(x)
    for place in from_:
        other = g.source(place)
        if other is None:
            return None
        count, *size = g.picture(other)
        if size != [height, width]:
            raise UnsupportedModelError(
                f"it adds {size[0]}x{size[1]} pixels to {height}x{width}"
            )
        if count > channels:
            other = cut(g, other, 1, (channels, count - channels))[0]
        elif count < channels:
            rest = (0, 0, 0, 0, 0, channels - count, 0, 0)
            other = padded(g, other, rest, "constant", 0.0)
        y = combined(g, "Add", y, other if beta == 1 else g.scaled(other, beta))
    return g.activate(y, activation)


@darknet_section("scale_channels")
def scale_channels(
    g: DarknetBuilder, x: Tensor, *, from_: int = 0, activation: str = "linear"
) -> Tensor | None:
    """Multiply every channel of an earlier layer by a number."""
    other = g.source(from_)
    if other is None:
        return None
    if g.picture(x) != (g.picture(other)[0], 1, 1):
        raise UnsupportedModelError(
            f"factors of {g.picture(x)} for a layer of {g.picture(other)}"
        )
    return g.activate(combined(g, "Mul", other, x), activation)


@darknet_section("sam")
def sam(
    g: DarknetBuilder, x: Tensor, *, from_: int = 0, activation: str = "linear"
) -> Tensor | None:
    """Multiply by an earlier layer, element by element."""
    other = g.source(from_)
    if other is None:
        return None
    if g.picture(x) != g.picture(other):
        raise UnsupportedModelError(
            f"it multiplies {g.picture(x)} by {g.picture(other)}"
        )
    return g.activate(combined(g, "Mul", other, x), activation)


@darknet_section("reorg")
def reorg(g: DarknetBuilder, x: Tensor, *, stride: int = 1, reverse: int = 0) -> Tensor:
    """Trade pixels for channels as Darknet does: its sizes are those of the input.

    The blocks are gathered as if the input had stride times the height and width and
    so many fewer channels; its elements stay in order.
    """
    channels, height, width = g.picture(x)
    _require_blocks(channels, height, width, stride, reverse)
    inner = channels // stride**2
    if reverse:
        shape: Ints = (stride, stride, inner, height, width)
        order = (0, 3, 4, 1, 5, 2)
        wanted = (inner, height * stride, width * stride)
    else:
        shape = (inner, height, stride, width, stride)
        order = (0, 3, 5, 1, 2, 4)
        wanted = (channels * stride**2, height // stride, width // stride)
    if not inner:
        raise UnsupportedModelError(f"stride={stride} for {channels} channels")
    fixed = [(n,) * g.bindings for n in shape]
    y = g.reshape(x, (x.shape[0], *fixed)).transpose(order)
    return g.reshape(y, (x.shape[0], *((n,) * g.bindings for n in wanted)))


@darknet_section("reorg3d")
def reorg3d(
    g: DarknetBuilder, x: Tensor, *, stride: int = 1, reverse: int = 0
) -> Tensor:
    """Gather blocks of pixels into channels, or spread them; the place counts first."""
    _require_blocks(*g.picture(x), stride, reverse)
    op = ops.DepthToSpace(stride) if reverse else ops.SpaceToDepth(stride)
    return g.apply(op, x.channels_last()).channels_first()


def _require_blocks(
    channels: int, height: int, width: int, stride: int, reverse: int
) -> None:
    _at_least_one(stride=stride)
    divided = (channels % stride**2,) if reverse else (height % stride, width % stride)
    if any(divided):
        raise UnsupportedModelError(
            f"stride={stride} does not divide {channels}x{height}x{width}"
        )


@darknet_section("softmax", "soft")
def softmax(
    g: DarknetBuilder,
    x: Tensor,
    *,
    groups: int = 1,
    temperature: float = 1.0,
    spatial: int = 0,
) -> Tensor:
    """Make probabilities of all numbers, of groups of them, or of each pixel's."""
    function: Any = find_handler("Softmax", "", 13)
    scaled = x if temperature == 1 else g.scaled(x, 1 / temperature)
    if spatial:
        y: Tensor = function(g, scaled, axis=1)
        return y
    count = int(np.prod(g.picture(x), dtype=np.int64))
    if groups < 1 or count % groups:
        raise UnsupportedModelError(f"groups={groups} of {count} numbers")
    shape = [(n,) * g.bindings for n in (groups, count // groups)]
    rows = function(g, g.reshape(scaled, (x.shape[0], *shape)), axis=2)
    return g.reshape(rows, x.shape)


@darknet_section("activation")
def activation(g: DarknetBuilder, x: Tensor, *, activation: str = "linear") -> Tensor:
    """Apply an activation."""
    return g.activate(x, activation)


@darknet_section("dropout", "cost", "empty", "silence")
def dropout(g: DarknetBuilder, x: Tensor) -> Tensor:
    """Do nothing: it is for training."""
    return x


@darknet_section("yolo")
def yolo(
    g: DarknetBuilder,
    x: Tensor,
    *,
    classes: int = 20,
    num: int = 1,
    mask: Ints = (),
    anchors: Floats = (),
    scale_x_y: float = 1.0,
    new_coords: int = 0,
) -> Tensor:
    """Find boxes whose anchors are pixels of the input, in versions 3 and 4."""
    chosen = mask or tuple(range(num))
    sides = _anchors(anchors, num, chosen) / np.array(g.size[::-1])
    _at_least_one(classes=classes)
    size, parts = grid(g, x, len(chosen), classes)
    xy, wh, objectness, scores = parts
    if new_coords:
        wh = g.scaled(g.combine(ops.Mul(), wh, wh), 4.0)
    else:
        xy, objectness, scores = (
            g.elementwise(ops.Sigmoid(), part) for part in (xy, objectness, scores)
        )
        wh = g.elementwise(ops.Exp(), wh)
    places = centres(g, xy, size, len(chosen), scale_x_y)
    boxes = Concat(g, places, sizes(g, wh, size, sides), axis=2)
    scores = g.combine(ops.Mul(), scores, objectness)
    return _found(g, Head(boxes, objectness, scores))


@darknet_section("region")
def region(
    g: DarknetBuilder,
    x: Tensor,
    *,
    classes: int = 20,
    num: int = 1,
    coords: int = 4,
    anchors: Floats = (),
    softmax: int = 0,
    background: int = 0,
) -> Tensor:
    """Find boxes whose anchors are cells of the grid, as version 2 does."""
    if coords != 4 or background:
        raise UnsupportedModelError(f"coords={coords}, background={background}")
    _at_least_one(classes=classes, num=num)
    size, parts = grid(g, x, num, classes)
    xy, wh, objectness, scores = parts
    sides = _anchors(anchors or (0.5,) * (2 * num), num, range(num))
    xy, objectness = (g.elementwise(ops.Sigmoid(), part) for part in (xy, objectness))
    if softmax:
        scores = g.apply(ops.Softmax(-1), scores)
    places = centres(g, xy, size, num, 1.0)
    wh = sizes(g, g.elementwise(ops.Exp(), wh), size, sides / np.array(size[::-1]))
    scores = g.combine(ops.Mul(), scores, objectness)
    return _found(g, Head(Concat(g, places, wh, axis=2), objectness, scores))


def _found(g: DarknetBuilder, head: Head) -> Tensor:
    g.heads[len(g.layers)] = head
    return head.joined(g)


def _anchors(anchors: Floats, num: int, chosen: Any) -> Array:
    """Return width and height of the chosen anchors."""
    pairs = np.array(anchors[: len(anchors) // 2 * 2]).reshape(-1, 2)
    if not len(chosen) or min(chosen) < 0 or max(chosen) >= len(pairs):
        raise UnsupportedModelError(
            f"{len(anchors)} numbers of anchors, wanted 2 for each of "
            f"{max(num, *chosen) if len(chosen) else num}"
        )
    found: Array = pairs[list(chosen)]
    return found


def _as_picture(g: DarknetBuilder, x: Tensor) -> Tensor:
    ones = (1,) * g.bindings
    return g.reshape(x, (*x.shape, ones, ones))


def _at_least_one(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise UnsupportedModelError(f"{name}={value}, wanted 1 or more")
