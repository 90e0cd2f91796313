"""Caffe networks to graphs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from striate import Graph
from striate.errors import SettingError, UnsupportedModelError
from striate.image import Preprocess, Resize
from striate.tools.builder import MOST, computable
from striate.tools.conversion import Conversion, Progress, call, sha256_of
from striate.tools.from_caffe import detection, layers
from striate.tools.from_caffe.layers import DATA, LAYERS, LOSSES, CaffeBuilder
from striate.tools.from_caffe.model import (
    CaffeLayer,
    CaffeNet,
    is_text,
    read_binary,
    read_text,
    refused,
)
from striate.tools.layout import Tensor, last

MODULES = (layers, detection)
"""The modules that register layers."""

IGNORED = frozenset(
    (
        *("weight_filler", "bias_filler", "filler", "scale_filler", "engine"),
        *("prefetch", "cudnn_math_override", "save_output_param", "norm_by_count"),
    )
)
"""Settings that do not change what a trained network computes."""

PARAMETERS = {
    "ConvolutionDepthwise": "convolution_param",
    "DepthwiseConvolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "InnerProduct": "inner_product_param",
    "BatchNorm": "batch_norm_param",
    "Normalize": "norm_param",
    "PriorBox": "prior_box_param",
    "DetectionOutput": "detection_output_param",
    "ShuffleChannel": "shuffle_channel_param",
}
"""Where layers have their settings, if not in what their type is called."""

HINTS = {
    "Python": "it is a program of its own; give the network without it",
    "DetectionOutput": "--cut-outputs NAMES leaves it out",
}


def from_caffe(
    prototxt: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    io: str = "channels_last",
    cut_outputs: Sequence[str] = (),
    progress: Progress | None = None,
) -> Graph:
    """Return the network of a Caffe description and its weights.

    Parameters
    ----------
    prototxt : path
        The network, best as it is for deployment; or a ``.caffemodel`` alone, if it
        says how large its input is.
    weights : path, optional
        The weights; the network's name with ``.caffemodel`` if left out.
    io : str
        ``"channels_last"``: pictures go in and come out as (N, H, W, C).
        ``"source"``: (N, C, H, W), transposed at the boundary.
    cut_outputs : sequence of str
        Layers or tensors that become the outputs; what lies behind is left out.
    progress : callable, optional
        Called with (layers done, layers).

    Raises
    ------
    ModelFormatError
        If a file is not what it should be, or not whole.
    UnsupportedModelError
        If the network holds what has no equal here; the message is a table of it all.
    SettingError
        If there is nothing of the name of a cut.
    """
    path = _existing(Path(prototxt))
    hashes = {"source_sha256": sha256_of(path)}
    if is_text(path):
        beside = path.with_suffix(".caffemodel") if weights is None else Path(weights)
        net = read_text(path).with_weights(read_binary(_existing(beside)))
        hashes["weights_sha256"] = sha256_of(beside)
    else:
        net = read_binary(path, everything=True)
    net = _until(path, net, cut_outputs)
    inputs = _inputs(path, net)
    fixed = _batch(inputs)
    for batch in (fixed, None):
        try:
            walk = _Walk(path, net, inputs, io, batch, progress)
            graph = walk.run(cut_outputs, hashes)
            break
        except UnsupportedModelError:
            if batch is None:
                raise
    graph.preprocess = _preprocess(net, inputs)
    return graph


def _existing(path: Path) -> Path:
    if not path.is_file():
        reason = "found no regular file" if path.exists() else "no such file"
        raise refused(path, reason, "not_a_file")
    return path


def _until(path: Path, net: CaffeNet, cut_outputs: Sequence[str]) -> CaffeNet:
    """Return the network up to the last output."""
    if not cut_outputs:
        return net
    places = []
    for name in cut_outputs:
        found = [
            index
            for index, layer in enumerate(net.layers)
            if name == layer.name or name in layer.tops
        ]
        if not found:
            raise SettingError(f"{path}: there is no layer {name!r} to cut at")
        places.append(found[-1])
    return CaffeNet(net.name, net.inputs, net.layers[: max(places) + 1])


def _inputs(path: Path, net: CaffeNet) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all inputs by name."""
    found = dict(net.inputs)
    for layer in net.layers:
        if layer.type in DATA:
            found.update(zip(layer.tops, _shapes(path, layer, net), strict=False))
    for name, shape in found.items():
        if not shape or min(shape) < 1 or math.prod(shape) > MOST:
            raise refused(
                path,
                f"input {name!r} has the shape {shape}, wanted positive sizes of at "
                f"most {MOST} numbers",
            )
    if not found:
        raise refused(
            path,
            "it has no input; wanted the network as it is for deployment, with the "
            "size of its input",
        )
    return found


def _shapes(path: Path, layer: CaffeLayer, net: CaffeNet) -> list[tuple[int, ...]]:
    """Return the shapes of a data layer's results, of pictures only the first."""
    settings = layer.settings
    given = settings.get("input_param") or settings.get("dummy_data_param") or {}
    shapes = [tuple(shape.get("dim", ())) for shape in given.get("shape", [])]
    if shapes:
        return shapes * len(layer.tops) if len(shapes) == 1 else shapes
    memory = settings.get("memory_data_param", {})
    if memory:
        sizes = [memory.get(k, 1) for k in ("batch_size", "channels", "height")]
        return [(*sizes, memory.get("width", 1))]
    crop = settings.get("transform_param", {}).get("crop_size", 0)
    picture = settings.get("image_data_param", {})
    height, width = picture.get("new_height", 0), picture.get("new_width", 0)
    size = (crop, crop) if crop else (height, width)
    channels = _first_channels(layer.tops[:1], net)
    if not min(size) or not channels:
        raise refused(
            path,
            f"the layer {layer.name!r} does not say how large its pictures are; "
            "wanted the network as it is for deployment",
        )
    return [(1, channels, *size)]


def _first_channels(tops: tuple[str, ...], net: CaffeNet) -> int:
    """Return the channels that the first convolution of an input reads."""
    for layer in net.layers:
        if layer.type == "Convolution" and layer.bottoms == tops and layer.blobs:
            group = layer.settings.get("convolution_param", {}).get("group", 1)
            shape = layer.blobs[0].shape
            return shape[1] * group if len(shape) == 4 else 0
    return 0


def _batch(inputs: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the size of the first axis of the inputs if it can be left open."""
    sizes = {shape[0] for shape in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else None


class _Walk:
    """One pass over a network's layers."""

    def __init__(
        self,
        path: Path,
        net: CaffeNet,
        inputs: Mapping[str, tuple[int, ...]],
        io: str,
        batch: int | None,
        progress: Progress | None,
    ) -> None:
        self.net = net
        self.layers = [e for e in net.layers if e.type not in (*DATA, *LOSSES)]
        self.io = io
        self.inputs = inputs
        self.fixed = batch is None
        self.account = Conversion(
            path, "caffe", len(self.layers), progress, hints=HINTS
        )
        self.path = path
        self.g = CaffeBuilder(batch)
        self.values: dict[str, Tensor | None] = {}
        self.left: dict[str, None] = {}

    def run(self, cut_outputs: Sequence[str], hashes: Mapping[str, str]) -> Graph:
        """Return the graph; raise `UnsupportedModelError` telling all it cannot."""
        with self.account.located():
            for name, shape in self.inputs.items():
                self._input(name, shape)
        for layer in self.net.layers:
            if layer.type in LOSSES or layer.type in DATA:
                for top in layer.tops:
                    self.values.setdefault(top, None)
        for index, layer in enumerate(self.layers):
            self._layer(layer, layer.name or f"{layer.type}_{index}")
        self.account.require_supported()
        with self.account.located():
            self._outputs(cut_outputs)
        if self.fixed and _batch(self.inputs) is not None:
            self.g.note("the batch size stays as in the file")
        return self.account.finish(
            self.g,
            self.path.stem,
            source_format="prototxt and caffemodel",
            **hashes,
        )

    def _input(self, name: str, shape: tuple[int, ...]) -> None:
        sizes: list[int | str] = list(shape)
        if not self.fixed:
            sizes[0] = "N"
        rank = len(shape)
        channels_last = self.io == "channels_last" and 3 <= rank <= 5
        stored = last(rank) if channels_last else tuple(range(rank))
        self.values[name] = self.g.input(name, sizes, stored)
        self.account.orders.append((name, stored))

    def _layer(self, layer: CaffeLayer, name: str) -> None:
        reads = [self.values.get(bottom) for bottom in layer.bottoms]
        unknown = [name for name in layer.bottoms if name not in self.values]

        def convert() -> Any:
            function = LAYERS.find(layer.type)
            if function is None:
                raise UnsupportedModelError("no such layer here")
            settings = _settings(layer)
            if unknown:
                raise UnsupportedModelError(f"no earlier layer computes {unknown[0]!r}")
            if any(value is None for value in reads):
                return (None,) * len(layer.tops)
            self.g.blobs = layer.blobs
            self.g.results = len(layer.tops)
            found = call(function, self.g, reads, settings)
            for result in found if isinstance(found, tuple) else (found,):
                if result is not None:
                    computable(result)
            return found

        results = self.account.node(self.g, layer.type, name, convert, reads=reads)
        for bottom in layer.bottoms:
            self.left.pop(bottom, None)
        if layer.type == "Silence":
            return
        if results is not None and len(results) < len(layer.tops):
            self.account.problem(
                layer.type, f"its output {len(layer.tops)} is not computed here", name
            )
        results = results or (None,) * len(layer.tops)
        for top, result in zip(layer.tops, results, strict=False):
            self.values[top] = result
            self.left[top] = None

    def _outputs(self, cut_outputs: Sequence[str]) -> None:
        tops = {layer.name: layer.tops for layer in self.net.layers if layer.tops}
        names = [name if name in self.values else tops[name][0] for name in cut_outputs]
        for name in names or list(self.left):
            x = self.values[name]
            if x is None:
                continue
            self.account.output(self.g, x, name, self.io)
        if not self.g.outputs:
            raise UnsupportedModelError("it computes nothing from its input")


def _settings(layer: CaffeLayer) -> dict[str, Any]:
    """Return the settings of a layer by name, without those that do not matter."""
    name = PARAMETERS.get(layer.type, f"{layer.type.lower()}_param")
    found = layer.settings.get(name) or {}
    return {key: value for key, value in found.items() if key not in IGNORED}


def _preprocess(
    net: CaffeNet, inputs: Mapping[str, tuple[int, ...]]
) -> Preprocess | None:
    """Return how a data layer prepares pictures: BGR, the mean taken away first."""
    for layer in net.layers:
        transform = layer.settings.get("transform_param")
        if transform is None or not layer.tops or transform.get("mean_file"):
            continue
        shape = inputs.get(layer.tops[0], ())
        if len(shape) != 4 or shape[1] not in (1, 3):
            continue
        scale = transform.get("scale", 1.0)
        mean = tuple(value * scale for value in transform.get("mean_value", ()))
        return Preprocess(
            "BGR" if shape[1] == 3 else "L",
            resize=Resize("exact", (shape[2], shape[3])),
            scale=scale,
            mean=mean or (0.0,),
        )
    return None
