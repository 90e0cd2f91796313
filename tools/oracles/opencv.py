"""OpenCV on the Darknet or Caffe network a graph was converted from.

Some of what these frameworks compute OpenCV computes otherwise; a network that has it
is not compared: `DIFFERENT` lists Caffe's layers. Of Darknet's heads, OpenCV drops
unlikely boxes and those that overlap; the adapter turns that off, and as it cannot for
the heads of version 2 it computes these itself from the convolution before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from striate import Graph
from striate.errors import MissingExtraError, UnsupportedModelError
from striate.spec import Array
from striate.tools.from_caffe.model import CaffeLayer, is_text, read_binary, read_text
from striate.tools.from_darknet.config import Section, read_config
from striate.tools.from_darknet.importer import EPSILON
from striate.tools.oracles import as_source, as_stored, order

DIFFERENT: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
    "LRN": (
        "within a channel, or with a k other than 1",
        lambda s: s.get("norm_region") == "WITHIN_CHANNEL" or s.get("k", 1) != 1,
    ),
    "MVN": (
        "with a large eps",
        lambda s: s.get("normalize_variance", True) and s.get("eps", 0) > 1e-8,
    ),
    "ArgMax": ("along its axes", lambda s: True),
    "Reduction": ("along its axes", lambda s: True),
    "Threshold": ("at the threshold", lambda s: True),
    "Tile": ("with settings of other names", lambda s: True),
    "Bias": ("with settings of other names", lambda s: True),
}
"""Layers of Caffe that OpenCV computes otherwise, and with which settings."""

ACTIVATIONS = ("leaky", "relu", "swish", "mish", "logistic", "tanh")

KINDS = {
    "convolutional": ("conv",),
    "connected": ("fullyConnected",),
    "maxpool": ("pool",),
    "route": ("concat", "slice", "identity"),
    "dropout": ("identity",),
    "cost": ("identity",),
}
"""What OpenCV calls sections that it calls otherwise."""


def oracle(
    source: str | os.PathLike[str],
    graph: Graph,
    *,
    weights: str | os.PathLike[str] | None = None,
    epsilon: float = EPSILON,
    nms: float | None = None,
) -> OpenCV:
    """Return OpenCV on a network.

    Parameters
    ----------
    source : path
        The configuration or description.
    graph : Graph
        What it was converted to.
    weights : path, optional
        The weights; those beside the source if left out.
    epsilon, nms
        As it was converted.

    Raises
    ------
    UnsupportedModelError
        If OpenCV computes something else.
    MissingExtraError
        If it is not installed, or is one that no longer reads these files.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(
            'comparing with OpenCV needs it: pip install "opencv-python-headless<5"'
        ) from error
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        raise MissingExtraError(
            f"OpenCV {cv2.__version__} no longer reads Darknet and Caffe: pip install "
            '"opencv-python-headless<5"'
        )
    path = Path(source)
    if graph.provenance.get("source_framework") == "caffe":
        return _Caffe(cv2, path, Path(weights) if weights else None, graph)
    if epsilon != EPSILON or nms is not None:
        raise UnsupportedModelError(
            f"OpenCV knows only an epsilon of {EPSILON:g}, and no boxes of all heads"
        )
    beside = Path(weights) if weights else path.with_suffix(".weights")
    return _Darknet(cv2, path, beside, graph)


class OpenCV:
    """A network behind a graph, as a `striate.tools.oracles.Oracle`.

    Parameters
    ----------
    module : module
        OpenCV.
    graph : Graph
        What the network was converted to.
    """

    name = "opencv"

    def __init__(self, module: Any, graph: Graph) -> None:
        self.version: str = module.__version__
        self._graph = graph
        self._order = order(graph)
        self._net = self._loaded(module)
        self._net.enableWinograd(False)
        self._known = list(self._net.getLayerNames())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        return self._asked(feeds, self._graph.outputs)

    def layers(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield what every layer computes that OpenCV has by itself."""
        names = [value for node in self._graph.nodes for value in node.outputs]
        known = [name for name in names if name in self._order and self._found(name)]
        yield from self._asked(feeds, known).items()

    def _asked(
        self, feeds: Mapping[str, Array], names: Sequence[str]
    ) -> dict[str, Array]:
        batch = 1
        for name, array in feeds.items():
            source, axes = self._order[name]
            batch = len(array)
            self._net.setInput(as_source(array, axes), source)
        asked = [self._found(name) for name in names]
        for name, found in zip(names, asked, strict=True):
            if not found:
                raise UnsupportedModelError(f"OpenCV has no layer for {name!r}")
        results = dict(zip(asked, self._net.forward(asked), strict=True))
        return {
            name: self._stored(name, results[found], batch)
            for name, found in zip(names, asked, strict=True)
        }

    def _stored(self, name: str, array: Array, batch: int) -> Array:
        """Return an array of OpenCV as the graph has it."""
        axes = self._order[name][1]
        if array.ndim > len(axes):
            array = array.reshape(batch, *array.shape[1 : len(axes) - 1], -1)
        return as_stored(array, axes)

    def _loaded(self, module: Any) -> Any:
        raise NotImplementedError

    def _found(self, name: str) -> str:
        """Return what OpenCV calls the layer of a value; nothing if it has none."""
        raise NotImplementedError


class _Caffe(OpenCV):
    def __init__(
        self, module: Any, path: Path, weights: Path | None, graph: Graph
    ) -> None:
        if not is_text(path):
            raise UnsupportedModelError("OpenCV wants a prototxt beside the weights")
        self._path = path
        self._weights = weights or path.with_suffix(".caffemodel")
        net = read_text(path).with_weights(read_binary(self._weights))
        for layer in net.layers:
            _require_same(layer)
        self._makers = {top: layer.name for layer in net.layers for top in layer.tops}
        self._detected = {
            each
            for layer in net.layers
            if layer.type == "DetectionOutput"
            for each in (layer.name, *layer.tops)
        }
        self._several = {
            top for layer in net.layers if len(layer.tops) > 1 for top in layer.tops
        }
        super().__init__(module, graph)

    def _loaded(self, module: Any) -> Any:
        return module.dnn.readNetFromCaffe(str(self._path), str(self._weights))

    def _found(self, name: str) -> str:
        source = self._order[name][0]
        if name in self._graph.outputs:
            if source in self._several:
                raise UnsupportedModelError(
                    f"OpenCV gives no {source!r}, which is one of several results"
                )
            source = self._makers.get(source, source)
        return source if source in self._known else ""

    def _stored(self, name: str, array: Array, batch: int) -> Array:
        if self._order[name][0] in self._detected:
            rows = array.reshape(-1, 7)
            rows = rows[rows.any(axis=1)]
            return rows[np.lexsort((-rows[:, 2], rows[:, 1], rows[:, 0]))]
        return super()._stored(name, array, batch)


def _require_same(layer: CaffeLayer) -> None:
    """Raise `UnsupportedModelError` for what OpenCV computes otherwise."""
    if layer.type not in DIFFERENT:
        return
    reason, differs = DIFFERENT[layer.type]
    merged: dict[str, Any] = {}
    for settings in layer.settings.values():
        if isinstance(settings, dict):
            merged.update(settings)
    if differs(merged):
        raise UnsupportedModelError(
            f"OpenCV computes the {layer.type} layer {layer.name!r} otherwise, {reason}"
        )


class _Darknet(OpenCV):
    def __init__(self, module: Any, path: Path, weights: Path, graph: Graph) -> None:
        self._sections = read_config(path)
        self._weights = weights
        self._regions = [
            index
            for index, section in enumerate(self._sections[1:])
            if section.kind == "region"
        ]
        if self._regions and self._regions[0] != len(self._sections) - 2:
            raise UnsupportedModelError("OpenCV: a [region] that is not the last")
        for section in self._sections:
            normal = section.options.get("batch_normalize", "0") != "0"
            if section.kind in ("connected", "conn") and normal:
                raise UnsupportedModelError(
                    "OpenCV reads the weights of a [connected] with batch_normalize "
                    "in another order than Darknet"
                )
        super().__init__(module, graph)

    def _loaded(self, module: Any) -> Any:
        kept = self._sections[: -1 if self._regions else None]
        text = "".join(map(_written, kept)).encode()
        return module.dnn.readNetFromDarknet(
            np.frombuffer(text, np.uint8),
            np.frombuffer(self._weights.read_bytes(), np.uint8),
        )

    def _found(self, name: str) -> str:
        kind, _, index = self._order[name][0].rpartition("_")
        if kind == "region":
            kind, index = "convolutional", str(int(index) - 1)
        place = int(index)
        candidates = [f"{act}_{place + 1}" for act in ACTIVATIONS]
        candidates.append(f"bn_{place}")
        candidates += [f"{each}_{place}" for each in KINDS.get(kind, (kind,))]
        candidates.append(f"{kind}_{place}")
        return next((each for each in candidates if each in self._known), "")

    def _stored(self, name: str, array: Array, batch: int) -> Array:
        kind, _, index = self._order[name][0].rpartition("_")
        if kind == "yolo":
            return array.reshape(batch, -1, array.shape[-1])
        if kind == "region":
            return region(array, self._sections[int(index) + 1])
        return super()._stored(name, array, batch)


def _written(section: Section) -> str:
    """Return a section as text, of a head with its thresholds at zero."""
    options = dict(section.options)
    if section.kind == "yolo":
        options |= {"thresh": "0", "nms_threshold": "0"}
    kind = "net" if section.kind == "network" else section.kind
    lines = (f"{name}={value}" for name, value in options.items())
    return "\n".join((f"[{kind}]", *lines, ""))


def region(x: Array, section: Section) -> Array:
    """Return the boxes of a head of version 2, as `striate.tools.from_darknet` does.

    Parameters
    ----------
    x : Array
        What its convolution computes, (N, C, H, W).
    section : Section
        The head.
    """
    anchors = np.array(section.options["anchors"].split(","), float).reshape(-1, 2)
    batch, _, rows, columns = x.shape
    cells = x.astype(float).transpose(0, 2, 3, 1)
    cells = cells.reshape(batch, rows, columns, len(anchors), -1)
    y = cells.copy()
    y[..., [0, 1, 4]] = 1 / (1 + np.exp(-cells[..., [0, 1, 4]]))
    y[..., 0] = (y[..., 0] + np.arange(columns)[:, None]) / columns
    y[..., 1] = (y[..., 1] + np.arange(rows)[:, None, None]) / rows
    y[..., 2:4] = np.exp(cells[..., 2:4]) * anchors / (columns, rows)
    if section.options.get("softmax", "0") != "0":
        powers = np.exp(cells[..., 5:] - cells[..., 5:].max(-1, keepdims=True))
        y[..., 5:] = powers / powers.sum(-1, keepdims=True)
    y[..., 5:] *= y[..., 4:5]
    found: Array = y.reshape(batch, rows * columns * len(anchors), -1)
    return found.astype(np.float32)
