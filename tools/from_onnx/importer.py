"""ONNX models to graphs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import striate
from striate import Graph
from striate.errors import StriateError, UnsupportedModelError
from striate.tools.builder import DTYPES, FLOATS
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
    inferred_shapes,
    read_model,
)
from striate.tools.from_onnx.registry import OnnxBuilder, call, find_handler
from striate.tools.layout import Constant, Tensor, Value, last
from striate.tools.patterns import rewrite

OPERATORS = (
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

PROBES = {"N": (2, 3), "D": (24, 32), "H": (224, 256), "W": (192, 320), "L": (224, 288)}
"""Two sizes to try for what is left open; no two alike, so that each is told apart."""

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

MALFORMED = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)
"""What an attribute or constant that makes no sense may raise in a handler."""

Progress = Callable[[int, int], None]


@dataclass
class Problem:
    """An operator that cannot be converted, and where it is."""

    op: str
    opset: int
    reason: str
    nodes: list[str] = field(default_factory=list)


def from_onnx(
    path: str | os.PathLike[str],
    *,
    io: str = "channels_last",
    progress: Progress | None = None,
) -> Graph:
    """Return the network of an ONNX file.

    Parameters
    ----------
    path : path
        The file.
    io : str
        ``"channels_last"``: images go in and come out as (N, H, W, C).
        ``"source"``: as in the file, (N, C, H, W), transposed at the boundary.
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
    """
    model = read_model(path)
    fixed = _fixed_batch(model.graph.inputs)
    for batch in (None,) if fixed is None else (fixed, None):
        walk = _Walk(model, Path(path), io, batch, progress)
        try:
            graph = walk.run()
            break
        except UnsupportedModelError:
            if batch is None:
                raise
    graph.provenance = {
        "name": graph.name,
        "source_framework": "onnx",
        "source_format": f"IR {model.ir_version}, opset {walk.opset}",
        "source_sha256": model.sha256,
        "converter": f"striate {striate.__version__}",
    }
    graph.metadata["conversion"] = walk.summary(graph)
    return graph


def _fixed_batch(inputs: Sequence[SourceInput]) -> int | None:
    """Return 1 if that is the size of the first axis of every input."""
    shapes = [entry.shape for entry in inputs]
    images = [shape for shape in shapes if shape and len(shape) > 1]
    return 1 if images and all(shape[0] == 1 for shape in images) else None


class _Walk:
    """One pass over a model's nodes."""

    def __init__(
        self,
        model: SourceModel,
        path: Path,
        io: str,
        batch: int | None,
        progress: Progress | None,
    ) -> None:
        self.model = model
        self.path = path
        self.io = io
        self.batch = batch
        self.progress = progress
        self.opset = model.opsets.get("", 1)
        self.problems: list[Problem] = []
        self.folded: Counter[str] = Counter()
        self.free: Counter[str] = Counter()
        self.values: dict[str, Tensor | None] = {}
        self.done = 0
        self.symbols: dict[str, tuple[int, int]] = {}
        self.letters: dict[str, str] = {}
        self.orders: list[tuple[int, ...]] = []
        self.patterns: Counter[str] = Counter()
        self.inferred: dict[str, tuple[int | str | None, ...]] | None = None

    def run(self) -> Graph:
        """Return the graph; raise `UnsupportedModelError` telling all it cannot."""
        source = self.model.graph
        shapes = [self._shape(entry) for entry in source.inputs]
        self.g = OnnxBuilder(self.symbols, self.opset, self.batch)
        self.g.inline = self._inline
        for entry, shape in zip(source.inputs, shapes, strict=True):
            self._input(entry, shape)
        self._nodes(source)
        if self.problems:
            raise UnsupportedModelError(_table(str(self.path), self.problems))
        try:
            self._outputs(source)
            name = "".join(filter(str.isprintable, self.path.stem))
            graph, self.patterns = rewrite(self.g.graph(name))
        except StriateError as error:
            raise UnsupportedModelError(f"{self.path}: {error}") from None
        return graph

    def summary(self, graph: Graph) -> dict[str, Any]:
        """Return what was done, as plain JSON values."""
        source = self.model.graph
        notes = [*self.model.notes, *self.g.notes]
        if self.batch is None and _fixed_batch(source.inputs):
            notes.append("the batch size stays 1, as in the file")
        originals = [*(entry.name for entry in source.inputs), *source.outputs]
        names = [*(entry.name for entry in graph.inputs), *graph.outputs]
        return {
            "nodes_in": len(source.nodes),
            "nodes_out": len(graph.nodes),
            "parameters": sum(array.size for array in graph.params.values()),
            "transposes": self.g.transposes,
            "constants": dict(self.folded),
            "free": dict(self.free),
            "patterns": dict(self.patterns),
            "notes": notes,
            "order": {
                name: {"source": original, "axes": list(axes)}
                for original, name, axes in zip(
                    originals, names, self.orders, strict=True
                )
            },
        }

    def _shape(self, entry: SourceInput) -> tuple[int | str, ...]:
        """Return an input's shape with a symbol for each size the file leaves open."""
        if entry.shape is None:
            raise UnsupportedModelError(
                f"{self.path}: input {entry.name!r} has no shape"
            )
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
                self.symbols[symbol] = self._probe(letter)
            shape.append(symbol)
        return tuple(shape)

    def _probe(self, letter: str) -> tuple[int, int]:
        """Return two sizes for a symbol that no other has."""
        used = {size for sizes in self.symbols.values() for size in sizes}
        first, second = PROBES.get(letter, (224, 256))
        while {first, second} & used:
            first, second = first + 32, second + 64
        return first, second

    def _input(self, entry: SourceInput, shape: tuple[int | str, ...]) -> None:
        stored = tuple(range(len(shape)))
        if self.io == "channels_last":
            stored = self._input_order(entry.name, len(shape))
        if entry.dtype not in (*FLOATS, *DTYPES):
            raise UnsupportedModelError(
                f"{self.path}: input {entry.name!r} has {entry.dtype} elements"
            )
        value = self.g.input(entry.name, shape, stored, entry.dtype)
        if entry.dtype in FLOATS[1:]:
            self.g.note(f"input {entry.name!r} takes float32, not {entry.dtype}")
        self.values[entry.name] = value
        self.orders.append(stored)

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
            self.done += 1
            if self.progress:
                self.progress(self.done, len(self.model.graph.nodes))

    def _node(self, node: SourceNode, label: str, used: set[str]) -> None:
        wanted = [i for i, name in enumerate(node.outputs) if name in used]
        before = len(self.g.nodes)
        try:
            results = self._results(node, label, max(wanted, default=0) + 1)
        except StriateError as error:
            self._problem(node, label, str(error))
        except MALFORMED as error:
            self._problem(node, label, f"{type(error).__name__}: {error}")
        else:
            emitted = len(self.g.nodes) > before
            read = [self.values.get(name) for name in node.inputs]
            for name, result in zip(node.outputs, results, strict=False):
                if isinstance(result, Value):
                    if not emitted and not any(result is value for value in read):
                        result = replace(result, label=label)
                    self.g.prefer(result, label)
                self.values[name] = result
            self._count(node, results, emitted)
            return
        for name in node.outputs:
            self.values[name] = self._assumed(name)

    def _results(
        self, node: SourceNode, label: str, count: int
    ) -> tuple[Tensor | None, ...]:
        self.g.site = label
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
        return results

    def _problem(self, node: SourceNode, label: str, reason: str) -> None:
        op = f"{node.domain}::{node.op}" if node.domain else node.op
        opset = self.model.opsets.get(node.domain, 1)
        for problem in self.problems:
            if (problem.op, problem.reason) == (op, reason):
                problem.nodes.append(label)
                return
        self.problems.append(Problem(op, opset, reason, [label]))

    def _assumed(self, name: str) -> Tensor | None:
        """Return a stand-in for what could not be converted, to look on behind it."""
        if self.inferred is None:
            self.inferred = inferred_shapes(self.path)
        shape: list[int | str] = []
        for axis, size in enumerate(self.inferred.get(name, (None,))):
            symbol = self.letters.get(size) if isinstance(size, str) else size
            if axis == 0 and self.batch is not None and size == self.batch:
                symbol = "N"
            if symbol is None:
                return None
            shape.append(symbol)
        return self.g.input(name, shape, range(len(shape)))

    def _count(
        self, node: SourceNode, results: Sequence[Tensor | None], emitted: bool
    ) -> None:
        known = [result for result in results if result is not None]
        if known and all(isinstance(result, Constant) for result in known):
            if node.op != "Constant":
                self.folded[node.op] += 1
        elif known and not emitted:
            self.free[node.op] += 1

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
            axes = tuple(range(x.rank))
            if self.io == "channels_last" and 3 <= x.rank <= 5:
                axes = last(x.rank) if self.g.order(x) == last(x.rank) else axes
            self.g.site = name
            self.g.output(x.transpose(axes), name)
            self.orders.append(axes)


def _table(path: str, problems: Sequence[Problem]) -> str:
    """Return one table of everything that cannot be converted."""
    count = sum(len(problem.nodes) for problem in problems)
    rows = [("operator", "opset", "count", "reason", "nodes")]
    for problem in sorted(problems, key=lambda p: (-len(p.nodes), p.op)):
        names = ", ".join(problem.nodes[:5]) + (", ..." if problem.nodes[5:] else "")
        rows.append(
            (
                problem.op,
                str(problem.opset),
                str(len(problem.nodes)),
                problem.reason,
                names,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]])
        for row in rows
    ]
    return "\n".join([f"{path}: {count} nodes cannot be converted", *lines])
