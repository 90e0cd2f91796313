"""Keras files to graphs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from striate import Graph
from striate.errors import ModelFormatError, UnsupportedModelError
from striate.image import Preprocess, Resize
from striate.tools.conversion import Conversion, Progress, probe
from striate.tools.from_keras import (
    activations,
    layers,
    merging,
    normalise,
    operations,
    pictures,
    recurrent,
    registry,
    shapes,
    windows,
    wrappers,
)
from striate.tools.from_keras.registry import KerasBuilder, weights_of
from striate.tools.from_keras.source import (
    Call,
    Reference,
    SourceLayer,
    SourceModel,
    SourceNet,
    input_shape,
    mapped,
    read_model,
)
from striate.tools.layout import Tensor, last

LAYERS = (
    activations,
    layers,
    merging,
    normalise,
    operations,
    pictures,
    recurrent,
    shapes,
    windows,
    wrappers,
)
"""The modules that register layers."""

LETTERS = {2: "NL", 3: "NLC", 4: "NHWC", 5: "NDHWC"}
"""What to call the sizes of an input that are left open, by its rank."""

CODE = ("Lambda", "Layer")
"""Layers that are nothing but code."""

NOTHING: tuple[Any, ...] = (None, False, 0, "", [], {})
"""Values of settings that ask for nothing."""

DARKEST = 1 / 64
"""A first layer that scales by less is made for pixels from 0 to 255."""

MOST_CALLS = 100_000
"""The most calls of layers, those of networks inside others counted each time."""

Values = dict[tuple[str, int], Sequence[Tensor | None] | None]
"""The results of each call of each layer; None if it cannot be converted."""

HINTS = {
    "Lambda": "build the layer anew from layers of Keras and copy its weights, then "
    "save again",
}
"""What the user of a layer that cannot be converted can do."""


def from_keras(
    path: str | os.PathLike[str],
    *,
    io: str = "channels_last",
    progress: Progress | None = None,
) -> Graph:
    """Return the network of a Keras file.

    Parameters
    ----------
    path : path
        A ``.keras`` archive, or an ``.h5`` file of Keras 2 or 3 with the whole model.
        Neither Keras nor TensorFlow is needed, and no code of the file is run.
    io : str
        ``"channels_last"``: images go in and come out as (N, H, W, C).
        ``"source"``: as in the file, which matters if it is channels-first.
    progress : callable, optional
        Called with (layers done, layers).

    Raises
    ------
    ModelFormatError
        If it is not a whole Keras file.
    UnsupportedModelError
        If it holds what has no equal here; the message is a table of all of it.
    """
    return _Walk(read_model(path), io, progress).run()


class _Walk:
    """One pass over a model's layers."""

    def __init__(self, model: SourceModel, io: str, progress: Progress | None) -> None:
        self.model = model
        self.io = io
        self.account = Conversion(
            model.path, "keras", model.net.size(), progress, hints=HINTS
        )
        self.symbols: dict[str, tuple[int, int]] = {}

    def run(self) -> Graph:
        """Return the graph; raise `UnsupportedModelError` telling all it cannot."""
        net = self.model.net
        account = self.account
        with account.located():
            if net.size() > MOST_CALLS:
                raise UnsupportedModelError(f"it has more than {MOST_CALLS} layers")
            first = _channels_first(net)
            entries = [_input_layer(net, end) for end in net.inputs]
            shapes = [self._shape(entry, first) for entry in entries]
            self.g = KerasBuilder(self.symbols, self.model.old, first)
            inputs = [
                self._input(entry, shape)
                for entry, shape in zip(entries, shapes, strict=True)
            ]
            self._refuse(net)
            outputs = self._net(net, inputs, "")
        account.require_supported()
        with account.located():
            for end, x in zip(net.outputs, outputs, strict=True):
                self._output(end, x)
        graph = account.finish(
            self.g,
            Path(self.model.path).stem,
            source_format=self.model.format,
            source_sha256=self.model.sha256,
        )
        graph.preprocess = _preprocess(net, graph) if not first else None
        return graph

    def _refuse(self, net: SourceNet) -> None:
        """Keep what cannot be converted whatever is around it, and say what is not."""
        for layer in _every(net):
            reason = _refusal(layer)
            if reason:
                kind = f"{layer.foreign}{layer.kind}"
                self.account.problem(kind, reason, layer.name)
            policy = _policy(layer.settings)
            if policy not in ("", "float32") and layer.kind != "InputLayer":
                self.g.note(f"{policy} layers are computed in float32")

    def _shape(self, entry: SourceLayer, first: bool) -> tuple[int | str, ...]:
        """Return an input's shape with a symbol for each size that is open."""
        shape = input_shape(entry)
        if not shape:
            raise UnsupportedModelError(
                f"input {entry.name!r} has no shape; build the model, or call it once, "
                "before it is saved"
            )
        letters = LETTERS.get(len(shape), "N")
        if first and len(shape) > 2:
            letters = f"N{letters[-1]}{letters[1:-1]}"
        sizes: list[int | str] = []
        for axis, size in enumerate(shape):
            letter = letters[axis] if axis < len(letters) else f"D{axis}"
            if axis and size is None and letter == "C":
                raise UnsupportedModelError(
                    f"input {entry.name!r} leaves its number of channels open"
                )
            if axis and isinstance(size, int):
                sizes.append(size)
                continue
            if size is not None:
                self.account.notes.append(f"the batch size {size} is left open")
            sizes.append(letter)
            if letter not in self.symbols:
                self.symbols[letter] = probe(letter, self.symbols)
        return tuple(sizes)

    def _input(self, entry: SourceLayer, shape: tuple[int | str, ...]) -> Tensor:
        axes = tuple(range(len(shape)))
        if (
            self.g.channels_first
            and self.io == "channels_last"
            and 3 <= len(shape) <= 5
        ):
            axes = last(len(shape))
        dtype = _policy(entry.settings) or "float32"
        looked_up = any(
            layer.kind == "Embedding" and any(end.layer == entry.name for end in reads)
            for layer, reads in _reads(self.model.net)
        )
        if looked_up and dtype.startswith(("int", "uint")):
            dtype = "int32"
        elif dtype != "float32":
            self.account.notes.append(
                f"input {entry.name!r} takes float32, not {dtype}"
            )
            dtype = "float32"
        self.account.orders.append((entry.name, axes))
        return self.g.input(entry.name, shape, axes, dtype)

    def _output(self, end: Reference, x: Tensor | None) -> None:
        if x is None:
            raise UnsupportedModelError(f"no layer computes the output {end.layer!r}")
        axes = tuple(range(x.rank))
        if self.io == "channels_last" and 3 <= x.rank <= 5 and self.g.channels_first:
            axes = last(x.rank) if self.g.order(x) == last(x.rank) else axes
        self.g.site = end.layer
        self.g.output(x.transpose(axes), end.layer)
        self.account.orders.append((end.layer, axes))

    def _net(
        self, net: SourceNet, inputs: Sequence[Tensor | None], outer: str
    ) -> list[Tensor | None]:
        """Convert the calls of a network's layers and return its outputs."""
        if len(inputs) != len(net.inputs):
            raise UnsupportedModelError(
                f"{net.name} gets {len(inputs)} tensors, wanted {len(net.inputs)}"
            )
        values: Values = {
            (end.layer, end.call): (x,)
            for end, x in zip(net.inputs, inputs, strict=True)
        }
        waiting = [
            (layer, index, call)
            for layer in net.layers
            for index, call in enumerate(layer.calls)
        ]
        while waiting:
            later = []
            for layer, index, call in waiting:
                if all((end.layer, end.call) in values for end in call.reads()):
                    label = f"{outer}{layer.name}"
                    values[layer.name, index] = self._called(layer, call, values, label)
                else:
                    later.append((layer, index, call))
            if len(later) == len(waiting):
                raise self._unknown(later[0][0], later[0][2], values)
            waiting = later
        return [self._found(values, end) for end in net.outputs]

    def _unknown(
        self, layer: SourceLayer, call: Call, values: Values
    ) -> ModelFormatError:
        missing = next(e for e in call.reads() if (e.layer, e.call) not in values)
        return self._malformed(
            f"layer {layer.name!r} reads call {missing.call} of {missing.layer!r}, "
            "which is not there"
        )

    def _malformed(self, message: str) -> ModelFormatError:
        return ModelFormatError(message, code="keras_config", path=self.model.path)

    def _found(self, values: Values, end: Reference) -> Tensor | None:
        """Return a result, None if it could not be converted."""
        if (end.layer, end.call) not in values:
            raise self._malformed(f"no call {end.call} of {end.layer!r}, an output")
        results = values[end.layer, end.call]
        if results is not None and not 0 <= end.output < len(results):
            raise self._malformed(f"{end.layer!r} has no output {end.output}")
        return None if results is None else results[end.output]

    def _called(
        self, layer: SourceLayer, call: Call, values: Values, label: str
    ) -> Sequence[Tensor | None] | None:
        """Convert one call and return its results; None if that is not possible."""
        reads = call.reads()
        given = [self._read(end, self._found(values, end)) for end in reads]
        if layer.net is not None:
            return self._net(layer.net, given, f"{label}/")
        known = {
            end.key: x for end, x in zip(reads, given, strict=True) if x is not None
        }
        if _refusal(layer) or len(known) < len({end.key for end in reads}):
            return None

        def convert() -> Any:
            args = mapped(call.args, lambda end: known[end.key])
            kwargs = mapped(dict(call.kwargs), lambda end: known[end.key])
            try:
                return self._converted(layer, args, kwargs, label)
            except AttributeError as error:
                raise UnsupportedModelError(f"a setting of it: {error}") from None

        return self.account.node(
            self.g, layer.kind, label, convert, reads=list(known.values())
        )

    def _read(self, end: Reference, x: Tensor | None) -> Tensor | None:
        """Return a result, or a stand-in for one that could not be converted."""
        if x is not None or not end.shape or None in end.shape[1:]:
            return x
        shape: list[int | str] = ["N", *(n for n in end.shape[1:] if n is not None)]
        return self.g.input(end.layer, shape, range(len(shape)))

    def _converted(
        self, layer: SourceLayer, args: Any, kwargs: dict[str, Any], label: str
    ) -> Any:
        """Return what a layer computes."""
        if layer.operation:
            return self._operated(layer, args, kwargs)
        if layer.kind == "TFOpLambda":
            function = str(layer.settings.get("function"))
            return operations.of_tensorflow(self.g, function, args, kwargs)
        args = (*args, kwargs.pop("inputs", None))
        free = ("training",) if not self.model.old else ()
        asked = [k for k, v in kwargs.items() if k not in free and v not in NOTHING]
        if asked:
            raise UnsupportedModelError(f"it is called with {', '.join(asked)}")
        return self._applied(layer, list(_tensors(args)), label)

    def _operated(self, layer: SourceLayer, args: Any, kwargs: dict[str, Any]) -> Any:
        handler = registry.operations.find(layer.kind)
        assert handler is not None
        settings = activations.meaningful({**layer.settings, **kwargs})
        settings = _wanted(handler, settings)
        try:
            bound = inspect.signature(handler).bind(self.g, *args, **settings)
        except TypeError as error:
            raise UnsupportedModelError(str(error)) from None
        return handler(*bound.args, **bound.kwargs)

    def _applied(self, layer: SourceLayer, inputs: list[Tensor], label: str) -> Any:
        """Return what a layer makes of tensors."""
        reason = _refusal(layer)
        if reason:
            raise UnsupportedModelError(f"{layer.kind}: {reason}")
        if layer.net is not None:
            results = self._net(layer.net, inputs, f"{label}/")
            known = tuple(x for x in results if x is not None)
            if len(known) < len(results):
                raise UnsupportedModelError(f"{layer.name} cannot be converted")
            return known if len(known) > 1 else known[0]
        settings = activations.meaningful(layer.settings)
        handler = registry.wrappers.find(layer.kind)
        if handler is not None:
            parts = [self._part(part, label) for part in layer.inner]
            return handler(self.g, *inputs, *parts, **_wanted(handler, settings))
        handler = registry.layers.find(layer.kind)
        assert handler is not None
        unread = registry.UNREAD - _named(handler)
        settings = {k: v for k, v in settings.items() if k not in unread}
        settings = _wanted(handler, settings)
        unknown = sorted(settings.keys() - _named(handler)) if settings else []
        if unknown and not _open(handler):
            raise UnsupportedModelError(f"setting {', '.join(unknown)}")
        return handler(self.g, *inputs, **settings, **_weights(layer))

    def _part(self, layer: SourceLayer, label: str) -> Callable[[Tensor], Any]:
        return lambda x: self._applied(layer, [x], f"{label}/{layer.name}")


def _weights(layer: SourceLayer) -> dict[str, np.ndarray[Any, Any]]:
    """Return a layer's weights by name."""
    trained, kept = weights_of(layer.kind).names(layer.settings)
    names = [*trained, *kept]
    if len(names) != len(layer.arrays):
        wanted = ", ".join(names) or "none"
        raise UnsupportedModelError(
            f"the file has {len(layer.arrays)} weights for it, wanted {wanted}"
        )
    return dict(zip(names, layer.arrays, strict=True))


def _named(handler: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(handler).parameters)


def _open(handler: Callable[..., Any]) -> bool:
    parameters = inspect.signature(handler).parameters.values()
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def _wanted(handler: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without unknown ones that ask for nothing."""
    known = _named(handler)
    return {k: v for k, v in settings.items() if k in known or v not in NOTHING}


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in an argument, which must hold nothing else."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _tensors(value[key])
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif value is not None:
        raise UnsupportedModelError("it is called with a number")


def _refusal(layer: SourceLayer) -> str:
    """Return why a layer cannot be converted, whatever it is called with."""
    if layer.foreign:
        return "its class is not Keras's; what it computes is code that is not here"
    if layer.kind in CODE:
        return "it is Python code, and no code of a file is run"
    if layer.kind in ("InputLayer", "TFOpLambda") or layer.net is not None:
        return ""
    known = registry.operations if layer.operation else registry.layers
    if known.find(layer.kind) is None and registry.wrappers.find(layer.kind) is None:
        return "no such layer here"
    policy = _policy(layer.settings)
    if layer.settings.get("stateful"):
        return "stateful: it remembers from run to run"
    if any(kind in policy for kind in ("int", "float8")):
        return f"its weights are quantised, {policy}"
    return ""


def _policy(settings: Mapping[str, Any]) -> str:
    """Return the name of a layer's type policy."""
    dtype = settings.get("dtype")
    if isinstance(dtype, Mapping):
        inside = dtype.get("config")
        dtype = inside.get("name") if isinstance(inside, Mapping) else ""
    return str(dtype or "")


def _every(net: SourceNet) -> Iterator[SourceLayer]:
    """Yield all layers but networks, also those inside others."""
    for layer in net.layers:
        if layer.net is not None:
            yield from _every(layer.net)
        else:
            yield layer


def _reads(net: SourceNet) -> Iterator[tuple[SourceLayer, list[Reference]]]:
    for layer in net.layers:
        yield layer, [end for call in layer.calls for end in call.reads()]


def _channels_first(net: SourceNet) -> bool:
    """Return whether the first layer that says so takes (N, C, spatial...)."""
    found = (layer.settings.get("data_format") for layer in _every(net))
    return next((name for name in found if name), "") == "channels_first"


def _input_layer(net: SourceNet, end: Reference) -> SourceLayer:
    found = next((layer for layer in net.layers if layer.name == end.layer), None)
    if found is None:
        raise UnsupportedModelError(f"no layer {end.layer!r}, which is an input")
    return found


def _preprocess(net: SourceNet, graph: Graph) -> Preprocess | None:
    """Return how a picture becomes the input, if the network itself scales pixels."""
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4:
        return None
    _, height, width, channels = graph.inputs[0].shape
    first = next(
        (
            layer
            for layer, reads in _reads(net)
            if any(end.layer == net.inputs[0].layer for end in reads)
        ),
        None,
    )
    if channels not in (1, 3) or first is None or not _takes_pixels(first):
        return None
    resize = None
    if isinstance(height, int) and isinstance(width, int):
        resize = Resize("exact", (height, width))
    return Preprocess("RGB" if channels == 3 else "L", resize=resize, scale=1.0)


def _takes_pixels(layer: SourceLayer) -> bool:
    """Return whether a layer turns pixels from 0 to 255 into what a network wants."""
    if layer.kind == "Rescaling":
        scale = layer.settings.get("scale")
        return isinstance(scale, (int, float)) and 0 < scale <= DARKEST
    if layer.kind == "Normalization":
        mean = layer.settings.get("mean")
        found = layer.arrays[0] if mean is None and layer.arrays else mean
        return found is not None and float(np.max(np.asarray(found))) > 2
    return False
