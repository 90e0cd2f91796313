"""ONNX models to graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from striate import Graph
from striate.errors import UnsupportedModelError
from striate.tools.builder import DTYPES, FLOATS
from striate.tools.conversion import Conversion, Progress, call, probe
from striate.tools.from_onnx import (
    axes,
    constants,
    data,
    elementwise,
    layers,
    normalise,
    quantised,
    recurrent,
    resample,
    windows,
)
from striate.tools.from_onnx.model import (
    SourceGraph,
    SourceInput,
    SourceModel,
    SourceNode,
    read_model,
)
from striate.tools.from_onnx.registry import OnnxBuilder, find_handler, operators
from striate.tools.layout import Tensor, last

MODULES = (
    axes,
    constants,
    data,
    elementwise,
    layers,
    normalise,
    quantised,
    recurrent,
    resample,
    windows,
)
"""The modules that register operators."""

__all__ = ["from_onnx", "operators"]

IMAGE_OPERATORS = frozenset(
    (
        "Conv",
        "ConvTranspose",
        "ConvInteger",
        "QLinearConv",
        "MaxPool",
        "AveragePool",
        "LpPool",
        "MaxUnpool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GlobalLpPool",
        "BatchNormalization",
        "LRN",
        "Resize",
        "Upsample",
        "InstanceNormalization",
        "GroupNormalization",
        "DepthToSpace",
        "SpaceToDepth",
    )
)
"""What reads (N, C, spatial...)."""

SOURCE_OPERATORS = frozenset(
    (
        "MatMul",
        "Gemm",
        "LayerNormalization",
        "LSTM",
        "GRU",
        "RNN",
    )
)
"""What reads axes in their own order."""

KEEPING = frozenset(
    (
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Sum",
        "Max",
        "Min",
        "Clip",
        "LeakyRelu",
        "PRelu",
        "Elu",
        "HardSigmoid",
        "Cast",
        "Identity",
        "Pad",
        "Dropout",
        "Concat",
        "Slice",
        "Split",
        "QuantizeLinear",
        "DequantizeLinear",
    )
)
"""What leaves axes where they are, besides what is elementwise."""

HINTS = {
    "NonMaxSuppression": "--cut-outputs NAMES leaves it out, with the boxes and "
    "scores it reads as outputs",
}
"""What the user of an operator that cannot be converted can do."""


def from_onnx(
    source: Any,
    *,
    io: str = "channels_last",
    cut_outputs: Sequence[str] = (),
    cut_inputs: Sequence[str] = (),
    progress: Progress | None = None,
) -> Graph:
    """Return the network of an ONNX model.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        The file, its contents, or the model itself.
    io : str
        ``"channels_last"``: images go in and come out as (N, H, W, C).
        ``"source"``: as in the file, (N, C, H, W), transposed at the boundary.
    cut_outputs, cut_inputs : sequence of str
        Nodes or tensors that become the outputs, and the inputs; what lies behind, or
        before, is left out.
    progress : callable, optional
        Called with (nodes done, nodes).

    Raises
    ------
    ModelFormatError
        If it is not a whole ONNX file.
    UnsupportedModelError
        If it holds what has no equal here; the message is a table of all of it.
    MissingExtraError
        If the package onnx is not installed.
    SettingError
        If there is nothing of the name of a cut.
    """
    model = read_model(source)
    if cut_outputs or cut_inputs:
        model = model.cut(cut_outputs, cut_inputs)
    fixed = _fixed_batch(model.graph.inputs)
    if fixed is not None:
        with suppress(UnsupportedModelError):
            return _Walk(model, io, fixed, progress).run()
    return _Walk(model, io, None, progress).run()


def _fixed_batch(inputs: Sequence[SourceInput]) -> int | None:
    """Return 1 if that is the size of the first axis of every input."""
    shapes = [entry.shape for entry in inputs]
    images = [shape for shape in shapes if shape and len(shape) > 1]
    return 1 if images and all(shape[0] == 1 for shape in images) else None


class _Walk:
    """One pass over a model's nodes."""

    def __init__(
        self, model: SourceModel, io: str, batch: int | None, progress: Progress | None
    ) -> None:
        self.model = model
        self.io = io
        self.batch = batch
        self.opset = model.opsets.get("", 1)
        self.account = Conversion(
            model.name,
            "onnx",
            len(model.graph.nodes),
            progress,
            hints=HINTS,
            version="opset",
            layers="nodes",
        )
        self.values: dict[str, Tensor | None] = {}
        self.symbols: dict[str, tuple[int, int]] = {}
        self.letters: dict[str, str] = {}

    def run(self) -> Graph:
        """Return the graph; raise `UnsupportedModelError` telling all it cannot."""
        source = self.model.graph
        account = self.account
        with account.located():
            shapes = [self._shape(entry) for entry in source.inputs]
            self.g = OnnxBuilder(self.symbols, self.opset, self.batch)
            self.g.inline = self._inline
            for entry, shape in zip(source.inputs, shapes, strict=True):
                self._input(entry, shape)
        self._nodes(source)
        account.require_supported()
        with account.located():
            self._outputs(source)
        account.folded.pop("Constant", None)
        account.notes += self.model.notes
        if self.batch is None and _fixed_batch(source.inputs):
            self.g.note("the batch size stays 1, as in the file")
        return account.finish(
            self.g,
            Path(self.model.name).stem,
            source_format=f"IR {self.model.ir_version}, opset {self.opset}",
            **self.model.provenance,
        )

    def _shape(self, entry: SourceInput) -> tuple[int | str, ...]:
        """Return an input's shape with a symbol for each size the file leaves open."""
        if entry.shape is None:
            raise UnsupportedModelError(f"input {entry.name!r} has no shape")
        rank = len(entry.shape)
        letters = {3: "NCL", 4: "NCHW", 5: "NCDHW"}.get(rank, "N")
        shape: list[int | str] = []
        for axis, size in enumerate(entry.shape):
            if isinstance(size, int) and not (axis == 0 and rank > 1 and self.batch):
                shape.append(size)
                continue
            letter = letters[axis] if axis < len(letters) else f"D{axis}"
            symbol = letter
            if axis and isinstance(size, str) and size.isidentifier() and size != "N":
                symbol = size
            if isinstance(size, str):
                symbol = self.letters.setdefault(size, symbol)
            if symbol not in self.symbols:
                self.symbols[symbol] = probe(letter, self.symbols)
            shape.append(symbol)
        return tuple(shape)

    def _input(self, entry: SourceInput, shape: tuple[int | str, ...]) -> None:
        stored = tuple(range(len(shape)))
        if self.io == "channels_last":
            stored = self._input_order(entry.name, len(shape))
        if entry.dtype not in (*FLOATS, *DTYPES):
            raise UnsupportedModelError(
                f"input {entry.name!r} has {entry.dtype} elements"
            )
        value = self.g.input(entry.name, shape, stored, entry.dtype)
        if entry.dtype in FLOATS[1:]:
            self.g.note(f"input {entry.name!r} takes float32, not {entry.dtype}")
        self.values[entry.name] = value
        self.account.orders.append((entry.name, stored))

    def _input_order(self, name: str, rank: int) -> tuple[int, ...]:
        """Return the order of an input's axes that its first reader wants.

        A network that begins by transposing (N, H, W, C) reads images as they are.
        """
        if not 3 <= rank <= 5:
            return tuple(range(rank))
        axes = {name: tuple(range(rank))}
        for node in self.model.graph.nodes:
            read = next((value for value in node.inputs if value in axes), None)
            if read is None:
                continue
            seen = axes[read]
            if node.op in IMAGE_OPERATORS and not node.domain:
                return tuple(seen[axis] for axis in last(rank))
            if node.op in SOURCE_OPERATORS:
                return seen
            if node.op == "Transpose":
                perm = node.attributes.get("perm") or tuple(reversed(range(rank)))
                if set(perm) == set(range(rank)):
                    seen = tuple(seen[axis] for axis in perm)
                    axes.update(dict.fromkeys(node.outputs, seen))
            elif node.op in elementwise.UNARY or node.op in KEEPING:
                axes.update(dict.fromkeys(node.outputs, seen))
        return last(rank)

    def _nodes(self, source: SourceGraph) -> None:
        """Convert the nodes of a graph or of a taken branch."""
        for name, array in source.constants.items():
            self.values[name] = self.g.constant(array)
        counts: Counter[str] = Counter()
        used = {value for node in source.nodes for value in node.inputs}
        used.update(source.outputs)
        used.discard("")
        for node in source.nodes:
            counts[node.op] += 1
            label = node.name.removeprefix("node_") or f"{node.op}_{counts[node.op]}"
            self._node(node, label, used)

    def _node(self, node: SourceNode, label: str, used: set[str]) -> None:
        wanted = [i for i, name in enumerate(node.outputs) if name in used]
        results = self.account.node(
            self.g,
            f"{node.domain}::{node.op}" if node.domain else node.op,
            label,
            lambda: self._results(node, max(wanted, default=0) + 1),
            reads=[self.values.get(name) for name in node.inputs],
            outputs=node.outputs,
            version=str(self.model.opsets.get(node.domain, 1)),
        )
        if results is None:
            results = tuple(self._assumed(name) for name in node.outputs)
        self.values.update(zip(node.outputs, results, strict=False))

    def _results(self, node: SourceNode, count: int) -> tuple[Tensor | None, ...]:
        self.g.results = len(node.outputs)
        self.g.wanted = count
        opset = self.model.opsets.get(node.domain, 1)
        handler = find_handler(node.op, node.domain, opset)
        if handler is None:
            raise UnsupportedModelError("no such operator here")
        inputs: list[Tensor | None] = []
        for name in node.inputs:
            if name and name not in self.values:
                raise UnsupportedModelError(f"no earlier node computes {name!r}")
            inputs.append(self.values[name] if name else None)
            if name and self.values[name] is None:
                return (None,) * len(node.outputs)
        while inputs and inputs[-1] is None:
            inputs.pop()
        found = call(handler, self.g, inputs, node.attributes)
        results = found if isinstance(found, tuple) else (found,)
        if len(results) < count:
            raise UnsupportedModelError(f"its output {count} is not computed here")
        return results[: len(node.outputs)]

    def _assumed(self, name: str) -> Tensor | None:
        """Return a stand-in for what could not be converted, to look on behind it."""
        shape: list[int | str] = []
        for axis, size in enumerate(self.model.shapes.get(name, (None,))):
            symbol = self.letters.get(size) if isinstance(size, str) else size
            if axis == 0 and self.batch is not None and size == self.batch:
                symbol = "N"
            if symbol is None:
                return None
            shape.append(symbol)
        return self.g.input(name, shape, range(len(shape)))

    def _inline(self, branch: SourceGraph) -> tuple[Tensor, ...]:
        """Convert a branch in place and return its results."""
        outer = self.g.site
        self._nodes(branch)
        self.g.site = outer
        found = [self.values[name] for name in branch.outputs]
        if any(value is None for value in found):
            raise UnsupportedModelError("its branch cannot be converted")
        return tuple(value for value in found if value is not None)

    def _outputs(self, source: SourceGraph) -> None:
        for name in source.outputs:
            x = self.values.get(name)
            if x is None:
                raise UnsupportedModelError(f"no node computes the output {name!r}")
            self.account.output(self.g, x, name, self.io)
