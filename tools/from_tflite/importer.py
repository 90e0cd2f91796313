"""TensorFlow Lite networks to graphs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from striate import Graph, ops
from striate.errors import SettingError, UnsupportedModelError
from striate.image import Preprocess, Resize
from striate.tools.builder import MOST, computable
from striate.tools.conversion import Conversion, Progress, call, upstream
from striate.tools.from_onnx.elementwise import OPEN
from striate.tools.from_onnx.registry import OnnxBuilder
from striate.tools.from_tflite.model import (
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
    read_model,
    refused,
)
from striate.tools.from_tflite.operators import OPERATORS
from striate.tools.from_tflite.schema import ACTIVATIONS, RANGES, TANH
from striate.tools.layout import Constant, Tensor, Value

MOVING = frozenset(
    (
        *("RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V"),
        *("PACK", "UNPACK", "SQUEEZE", "EXPAND_DIMS", "GATHER", "GATHER_ND"),
        *("MAX_POOL_2D", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "CONCATENATION", "PAD"),
        *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "MAXIMUM", "MINIMUM", "TILE"),
        *("REDUCE_MAX", "REDUCE_MIN", "REVERSE_V2", "BROADCAST_TO", "MIRROR_PAD"),
    )
)
"""Operators whose results are in the range of what they read."""


HINTS = {
    "TFLite_Detection_PostProcess": "--cut-outputs NAMES leaves it out, with the boxes "
    "and scores it reads as outputs",
}
"""What the user of an operator that cannot be converted can do."""


def from_tflite(
    source: str | os.PathLike[str],
    *,
    io: str = "channels_last",
    cut_outputs: Sequence[str] = (),
    progress: Progress | None = None,
) -> Graph:
    """Return the network of a TensorFlow Lite file.

    A quantised network is computed with real numbers: weights become the numbers that
    they stand for, and results are limited to what their whole numbers could stand for
    but not rounded to them. Only what goes in is rounded. So a result is about as far
    from the original's as the original's is from the network it was quantised from.

    Parameters
    ----------
    source : path
        The file.
    io : str
        Pictures are (N, H, W, C) in these files, whatever is asked for.
    cut_outputs : sequence of str
        Tensors that become the outputs; what lies behind is left out.
    progress : callable, optional
        Called with (operators done, operators).

    Raises
    ------
    ModelFormatError
        If it is not a whole file of this format.
    UnsupportedModelError
        If the network holds what has no equal here; the message is a table of it all.
    SettingError
        If there is nothing of the name of a cut.
    """
    path = Path(source)
    model = read_model(path)
    outputs = _cut(path, model, cut_outputs)
    fixed = _fixed_batch(model)
    for batch in (fixed, None):
        try:
            graph = _Walk(path, model, outputs, batch, progress).run()
            break
        except UnsupportedModelError:
            if batch is None:
                raise
    graph.labels = _labels(graph, model)
    graph.preprocess = _preprocess(model)
    return graph


def _cut(path: Path, model: TfliteModel, names: Sequence[str]) -> tuple[int, ...]:
    """Return the places of the outputs."""
    if not names:
        return model.outputs
    known = {tensor.name: place for place, tensor in enumerate(model.tensors)}
    for name in names:
        if name not in known:
            raise SettingError(f"{path}: there is no tensor {name!r} to cut at")
    return tuple(known[name] for name in names)


def _fixed_batch(model: TfliteModel) -> int | None:
    """Return 1 if that is the size of the first axis of every input."""
    shapes = [model.tensors[place].shape for place in model.inputs if place >= 0]
    wide = all(len(shape) > 1 and shape[0] == 1 for shape in shapes)
    return 1 if shapes and wide else None


class _Walk:
    """One pass over a file's operators."""

    def __init__(
        self,
        path: Path,
        model: TfliteModel,
        outputs: Sequence[int],
        batch: int | None,
        progress: Progress | None,
    ) -> None:
        self.path = path
        self.model = model
        self.outputs = outputs
        self.batch = batch
        kept = upstream(
            [(_keys(op.inputs), _keys(op.outputs)) for op in model.operators],
            _keys(outputs),
        )
        self.operators = [model.operators[index] for index in kept]
        self.account = Conversion(
            path,
            "tflite",
            len(self.operators),
            progress,
            hints=HINTS,
            layers="operators",
        )
        symbols = {} if batch is None else {"N": (2, 3)}
        self.g = OnnxBuilder(symbols, opset=13, batch=batch)
        self.values: dict[int, Tensor | None] = {}

    def run(self) -> Graph:
        """Return the graph; raise `UnsupportedModelError` telling all it cannot."""
        with self.account.located():
            for place in self.model.inputs:
                self._input(place)
        for index, operator in enumerate(self.operators):
            self._operator(index, operator)
        self.account.require_supported()
        with self.account.located():
            for place in self.outputs:
                self._output(place)
        quantised = any(t.bounds for t in self.model.tensors)
        if quantised:
            self.g.note("a quantised network, computed with real numbers")
        if self.batch is None and _fixed_batch(self.model):
            self.g.note("the batch size stays 1, as in the file")
        return self.account.finish(
            self.g,
            self.path.stem,
            source_format=f"TFL3, version {self.model.version}",
            source_sha256=self.model.sha256,
        )

    def _input(self, place: int) -> None:
        tensor = self.model.tensors[place]
        shape: list[int | str] = list(tensor.shape)
        if min(tensor.shape, default=1) < 1 or math.prod(tensor.shape) > MOST:
            raise refused(self.path, f"input {tensor.name!r} of shape {tensor.shape}")
        if self.batch is not None:
            shape[0] = "N"
        axes = tuple(range(len(shape)))
        dtype = "float32" if tensor.quantization else tensor.dtype
        x: Tensor = self.g.input(tensor.name, shape, axes, dtype)
        self.account.orders.append((tensor.name, axes))
        self.g.site = tensor.name
        self.values[place] = _on_grid(self.g, x, tensor)

    def _value(self, place: int) -> Tensor | None:
        """Return a tensor; the network's own are real numbers."""
        if place not in self.values:
            tensor = self.model.tensors[place]
            data = tensor.data
            if data is not None and tensor.quantization is not None:
                data = tensor.quantization.real(data)
            elif data is not None and tensor.dtype in ("float16", "float64"):
                data = data.astype(np.float32)
            self.values[place] = None if data is None else self.g.constant(data)
        return self.values[place]

    def _operator(self, index: int, operator: TfliteOperator) -> None:
        g = self.g
        tensors = self.model.tensors
        name = next((tensors[p].name for p in operator.outputs if p >= 0), "")
        label = name.partition(";")[0] or f"{operator.name}_{index}"
        reads = [
            self._value(place) if place >= 0 else None for place in operator.inputs
        ]
        unknown = any(
            value is None and place >= 0
            for place, value in zip(operator.inputs, reads, strict=True)
        )

        def convert() -> Any:
            function = OPERATORS.find(operator.name)
            if function is None:
                raise UnsupportedModelError("no such operator here")
            if unknown:
                return (None,) * len(operator.outputs)
            inputs = list(reads)
            while inputs and inputs[-1] is None:
                inputs.pop()
            g.results = len(operator.outputs)
            settings = dict(operator.settings)
            activation = settings.pop("activation", 0)
            found = call(function, g, inputs, settings)
            results = found if isinstance(found, tuple) else (found,)
            if len(results) < len(operator.outputs):
                raise UnsupportedModelError(f"its output {len(results) + 1}")
            return tuple(
                self._limited(operator, x, tensors[place], activation)
                for x, place in zip(results, operator.outputs, strict=False)
            )

        names = [tensors[place].name for place in operator.outputs]
        results = self.account.node(
            g,
            operator.name,
            label,
            convert,
            reads=reads,
            outputs=names,
            version=str(operator.version),
        )
        results = results or (None,) * len(operator.outputs)
        self.values.update(zip(operator.outputs, results, strict=False))

    def _limited(
        self, operator: TfliteOperator, x: Tensor, tensor: TfliteTensor, activation: int
    ) -> Tensor:
        """Return a result with its activation, within what its type can stand for."""
        x = computable(x)
        if activation == TANH:
            x, activation = self.g.elementwise(ops.Tanh(), x), 0
        if activation not in ACTIVATIONS:
            raise UnsupportedModelError(f"activation {activation}")
        low, high = (
            default if bound is None else bound
            for bound, default in zip(
                ACTIVATIONS[activation], (-OPEN, OPEN), strict=True
            )
        )
        bounds = tensor.bounds
        if bounds is not None and isinstance(x, Value):
            reads = [self.model.tensors[p].bounds for p in operator.inputs if p >= 0]
            if operator.name == "QUANTIZE" and not any(reads):
                return _on_grid(self.g, x, tensor)
            if operator.name not in MOVING or any(r != bounds for r in reads if r):
                low, high = max(low, bounds[0]), min(high, bounds[1])
        if (low, high) == (-OPEN, OPEN):
            return x
        relu = (low, high) == (0, OPEN)
        return self.g.elementwise(ops.Relu() if relu else ops.Clip(low, high), x)

    def _output(self, place: int) -> None:
        x = self._value(place)
        tensor = self.model.tensors[place]
        if x is None:
            raise UnsupportedModelError(f"nothing computes the output {tensor.name!r}")
        self.g.site = tensor.name
        self.g.output(x, tensor.name)
        self.account.orders.append((tensor.name, tuple(range(x.rank))))


def _keys(places: Sequence[int]) -> list[str]:
    return [str(place) for place in places if place >= 0]


def _on_grid(g: OnnxBuilder, x: Tensor, tensor: TfliteTensor) -> Tensor:
    """Return the nearest numbers that a quantised tensor can stand for."""
    q = tensor.quantization
    if q is None or q.scale.size != 1 or tensor.dtype not in RANGES or q.scale[0] == 0:
        return x
    if isinstance(x, Constant):
        return x
    scale = float(q.scale[0])
    low, high = (float(limit - q.zero[0]) for limit in RANGES[tensor.dtype])
    steps = g.combine(ops.Mul(), x, g.number(1 / scale))
    whole = g.elementwise(ops.Clip(low, high), g.elementwise(ops.Round(), steps))
    return g.combine(ops.Mul(), whole, g.number(scale))


def _labels(graph: Graph, model: TfliteModel) -> tuple[str, ...]:
    """Return the labels if there is one for each class."""
    if len(graph.outputs) != 1:
        return ()
    shape = model.tensors[model.outputs[0]].shape
    return model.labels if shape and shape[-1] == len(model.labels) else ()


def _preprocess(model: TfliteModel) -> Preprocess | None:
    """Return how the metadata says that pictures are prepared."""
    if model.normalization is None or not model.inputs:
        return None
    shape = model.tensors[model.inputs[0]].shape
    mean, deviation = model.normalization
    if len(shape) != 4 or shape[3] not in (1, 3) or 0 in deviation or not mean:
        return None
    return Preprocess(
        "RGB" if shape[3] == 3 else "L",
        resize=Resize("exact", (shape[1], shape[2])),
        scale=1.0,
        mean=mean,
        std=deviation,
    )
