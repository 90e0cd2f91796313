"""Keras as an oracle, on its PyTorch backend unless another one is chosen.

What that backend computes otherwise than TensorFlow, for which Keras was written, is
computed here in NumPy instead, and told in `KerasOracle.notes`: averages at the edge of
an image, cubic resampling, filling up to a shape.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from striate import Graph
from striate.errors import MissingExtraError, UnsupportedModelError
from striate.spec import Array
from striate.tools.conversion import call
from striate.tools.from_keras.activations import meaningful
from striate.tools.from_keras.registry import KerasBuilder, layers, weights_of
from striate.tools.layout import Constant
from striate.tools.oracles import as_source, as_stored, order

CORRECTED = (
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "Resizing",
    "UpSampling2D",
)
"""Layers whose meaning is TensorFlow's, in some of their settings."""


def oracle(source: str | os.PathLike[str], graph: Graph) -> KerasOracle:
    """Return Keras with the model of a file.

    Raises
    ------
    MissingExtraError
        If Keras, or its backend, is not installed.
    UnsupportedModelError
        If Keras cannot load the file, which happens to files of Keras 2.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError as error:
        raise MissingExtraError(
            'comparing with Keras needs it: pip install "striate[keras]"'
        ) from error
    try:
        model = keras.saving.load_model(source, compile=False)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UnsupportedModelError(
            f"{source}: Keras {keras.__version__} cannot load it: {reason}"
        ) from error
    return KerasOracle(model, graph)


class KerasOracle:
    """A Keras model that speaks of its tensors as a graph does.

    Parameters
    ----------
    model : keras.Model
        The model.
    graph : Graph
        What it was converted to.

    Attributes
    ----------
    notes : list of str
        Which layers are computed in NumPy, because the backend differs.
    """

    name = "keras"

    def __init__(self, model: Any, graph: Graph) -> None:
        import keras

        self.version = f"{keras.__version__} ({keras.backend.backend()})"
        self.model = model
        self.graph = graph
        self.notes: list[str] = []
        self._record: dict[str, list[Any]] = {}
        self._keras = keras
        for label, layer in _labelled(model, ""):
            corrected = None
            if keras.backend.backend() != "tensorflow" and _differs(layer):
                corrected = _meaning(layer)
                self.notes.append(f"{label} as TensorFlow computes it")
            layer.call = self._recorded(label, corrected or layer.call)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        tree = self._keras.tree
        places = order(self.graph)
        self._record.clear()
        given = iter(
            as_source(feeds[entry.name], places[entry.name][1])
            for entry in self.graph.inputs
        )
        several = self.model.inputs if len(self.model.inputs) > 1 else 0
        structure = getattr(self.model, "input", several)
        inputs = tree.map_structure(lambda _: next(given), structure)
        found = tree.flatten(self.model(inputs, training=False))
        return {
            name: as_stored(_array(self._keras, y), places[name][1])
            for name, y in zip(self.graph.outputs, found, strict=True)
        }

    def layers(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield (value of the graph, its elements), in the order they are computed."""
        self.run(feeds)
        calls = {label: iter(results) for label, results in self._record.items()}
        for name, (label, axes) in order(self.graph).items():
            y = next(calls.get(label, iter(())), None)
            if y is not None and len(getattr(y, "shape", ())) == len(axes):
                yield name, as_stored(_array(self._keras, y), axes)

    def _recorded(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call_and_keep(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self._record.setdefault(label, []).append(result)
            return result

        return call_and_keep


def _array(keras: Any, tensor: Any) -> Array:
    found: Array = np.array(keras.ops.convert_to_numpy(tensor), np.float32)
    return found


def _labelled(model: Any, outer: str) -> Iterator[tuple[str, Any]]:
    """Yield each layer and operation with its name, those inside others included."""
    for layer in getattr(model, "operations", model.layers):
        label = f"{outer}{layer.name}"
        if hasattr(layer, "layers"):
            yield from _labelled(layer, f"{label}/")
        elif type(layer).__name__ != "InputLayer":
            yield label, layer


def _differs(layer: Any) -> bool:
    """Return whether the backend may compute something else than TensorFlow."""
    kind = type(layer).__name__
    if kind not in CORRECTED:
        return False
    if kind.startswith("Average"):
        return bool(layer.padding == "same")
    sampled = layer.interpolation == "bicubic" and not getattr(
        layer, "antialias", False
    )
    return sampled or bool(getattr(layer, "pad_to_aspect_ratio", False))


def _meaning(layer: Any) -> Callable[..., Any]:
    """Return what a layer computes, in NumPy."""
    from keras import ops

    kind = type(layer).__name__
    handler = layers.find(kind)
    assert handler is not None
    settings = meaningful(layer.get_config())
    trained, kept = weights_of(kind).names(settings)
    weights = dict(zip([*trained, *kept], layer.get_weights(), strict=True))
    g = KerasBuilder({}, old=False)

    def compute(x: Any, **_: Any) -> Any:
        constant = g.constant(np.array(ops.convert_to_numpy(x), np.float32))
        y = call(handler, g, [constant], {**settings, **weights})
        assert isinstance(y, Constant)
        return ops.convert_to_tensor(y.arrays[0])

    return compute
