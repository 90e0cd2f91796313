"""Whole graphs to ONNX models."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import striate
from striate import Graph, Node, Spec
from striate.errors import (
    DTypeError,
    GraphError,
    MissingExtraError,
    SettingError,
    ShapeError,
    UnsupportedModelError,
)
from striate.ops.base import operand_names
from striate.spec import Shape
from striate.tools.conversion import Problem, table
from striate.tools.to_onnx import (
    axes,
    data,
    elementwise,
    layers,
    normalise,
    quantised,
    recurrent,
    resample,
    windows,
)
from striate.tools.to_onnx.elementwise import element
from striate.tools.to_onnx.exporter import (
    Exporter,
    OnnxNode,
    Placed,
    Tensor,
    channels_first,
    find_handler,
    in_order,
)

OPERATORS = (
    axes,
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

Size = int | str | None
"""A number, a symbol, or None for what depends on symbols or values."""

OPSET = 21
IR_VERSION = 10

LARGEST = 2**31 - 2**20
"""Bytes of weights that still fit in one file of protocol buffers."""


def to_onnx(graph: Graph, *, io: str = "channels_last") -> Any:
    """Return a graph as an `onnx.ModelProto`.

    Parameters
    ----------
    graph : Graph
        The network.
    io : str
        ``"channels_last"``: tensors of three to five axes go in and come out as
        (N, spatial..., C), as here; each is transposed once. ``"channels_first"``: as
        (N, C, spatial...), as ONNX's operators have them.

    Raises
    ------
    UnsupportedModelError
        If the network holds what ONNX cannot say; the message is a table of all of it.
    MissingExtraError
        If the package onnx is not installed.
    """
    if io not in ("channels_last", "channels_first"):
        raise SettingError(f"io {io!r}, wanted 'channels_last' or 'channels_first'")
    _require_onnx()
    return _Walk(graph, io).run()


def save_onnx(
    graph: Graph, path: str | os.PathLike[str], *, io: str = "channels_last"
) -> Any:
    """Write a graph as an ONNX file and return the `onnx.ModelProto`.

    Parameters
    ----------
    graph : Graph
        The network.
    path : path
        Where to write it.
    io : str
        As for `to_onnx`.

    Raises
    ------
    UnsupportedModelError, MissingExtraError
        As `to_onnx`.
    """
    model = to_onnx(graph, io=io)
    import onnx

    onnx.save(model, os.fspath(path))
    return model


class _Walk:
    """One pass over a graph's layers."""

    def __init__(self, graph: Graph, io: str) -> None:
        self.graph = graph
        self.io = io
        self.g = Exporter()
        self.values: dict[str, Tensor] = {}
        self.problems: list[Problem] = []
        self.specs, self.sizes = _sizes(graph)
        self.g.only_dense = _flattened_for_dense(graph)

    def run(self) -> Any:
        for entry in self.graph.inputs:
            order = self._boundary(self.specs[entry.name])
            self._define(entry.name, Placed(entry.name, order))
        for node in self.graph.nodes:
            self._node(node)
        if self.problems:
            count = sum(len(problem.layers) for problem in self.problems)
            title = f"{self.graph.name}: layers that have no equal in ONNX: {count}"
            raise UnsupportedModelError(table(title, self.problems))
        size = sum(array.nbytes for array in self.g.constants.values())
        if size > LARGEST:
            raise UnsupportedModelError(
                f"{self.graph.name}: {size} bytes of weights, one ONNX file holds "
                f"{LARGEST}"
            )
        names = self._names()
        return _model(self.graph, self.g, names, self._ends())

    def _node(self, node: Node) -> None:
        kind = type(node.op).__name__
        handler = find_handler(kind)
        before = len(self.g.nodes)
        self.g.site = node.name
        self.g.results = tuple(
            self._tensor(value, Placed(value, in_order(self.specs[value].rank)))
            for value in node.outputs
        )
        try:
            if handler is None:
                raise UnsupportedModelError("ONNX has no such operator")
            if node.activation or node.residual:
                raise UnsupportedModelError("joined with others by a pass")
            found = handler(self.g, node.op, *self._operands(node))
        except (UnsupportedModelError, ShapeError, GraphError, DTypeError) as error:
            self._problem(kind, str(error), node.name)
            found = tuple(Placed(each.name, each.axes) for each in self.g.results)
        results = found if isinstance(found, tuple) else (found,)
        for value, result in zip(node.outputs, results, strict=True):
            self._define(value, result)
        self._name_nodes(self.g.nodes[before:], node.name)

    def _operands(self, node: Node) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for kind, name in node.operands():
            if name is None:
                found.append(None)
            elif kind == "value":
                found.append(self.values[name])
            else:
                array = self.graph.params[name]
                spec = Spec(array.shape, str(array.dtype))
                closed = (False,) * array.ndim
                order = in_order(array.ndim)
                found.append(Tensor(name, order, spec, closed, array))
        names = operand_names(type(node.op))
        while found and found[-1] is None and not names[-1].startswith("*"):
            found.pop()
        return found

    def _define(self, value: str, result: Placed) -> None:
        self.values[value] = self._tensor(value, result)

    def _tensor(self, value: str, result: Placed) -> Tensor:
        opened = tuple(not isinstance(size, int) for size in self.sizes[value])
        return Tensor(result.name, result.axes, self.specs[value], opened)

    @staticmethod
    def _name_nodes(nodes: Sequence[OnnxNode], layer: str) -> None:
        """Call the last node of a layer like the layer, the others after it."""
        own = [node for node in nodes if node.name == layer]
        for index, node in enumerate(own[:-1], 1):
            node.name = f"{layer}/{node.op}{index}"

    def _problem(self, op: str, reason: str, layer: str) -> None:
        for problem in self.problems:
            if (problem.op, problem.reason) == (op, reason):
                problem.layers.append(layer)
                return
        self.problems.append(Problem(op, reason, layers=[layer]))

    def _boundary(self, spec: Spec) -> Shape:
        """Return how the axes of an input or output lie."""
        turned = self.io == "channels_first" and 3 <= spec.rank <= 5
        return channels_first(spec.rank) if turned else in_order(spec.rank)

    def _names(self) -> dict[str, str]:
        """Return what to call each ONNX value: after the striate value it holds."""
        given = {entry.name for entry in self.graph.inputs}
        fixed = given | self.g.constants.keys()
        names: dict[str, str] = {}
        for value in self.graph.outputs:
            if value in given:
                continue
            tensor = self.values[value]
            self.g.site = value
            name = self.g.lying(tensor, self._boundary(tensor.spec))
            if name in names or name in fixed:
                name = self.g.node("Identity", name)
            names[name] = value
        used = set(names.values()) | fixed
        for value, tensor in self.values.items():
            if tensor.name not in names and tensor.name not in fixed:
                name = value if value not in used else f"{value}/lying"
                names[tensor.name] = name
                used.add(name)
        return names

    def _ends(self) -> tuple[list[Any], list[Any]]:
        """Return (name, element type, sizes or symbols) of inputs and of outputs."""
        inputs, outputs = (
            [
                (
                    value,
                    self.specs[value].dtype,
                    [self.sizes[value][a] for a in self._boundary(self.specs[value])],
                )
                for value in values
            ]
            for values in (
                [entry.name for entry in self.graph.inputs],
                self.graph.outputs,
            )
        )
        return inputs, outputs


def _sizes(graph: Graph) -> tuple[dict[str, Spec], dict[str, tuple[Size, ...]]]:
    """Return every value's spec, and its sizes: a number, a symbol or None if open.

    Each symbol in turn gets another size, and what changes depends on it. One that the
    network does not let change stays at its default. What depends on values is open.
    """
    shapes = graph.default_shapes()
    specs = graph.specs(shapes)
    sizes: dict[str, list[Size]] = {v: list(s.shape) for v, s in specs.items()}
    symbols = {d for entry in graph.inputs for d in entry.shape if isinstance(d, str)}
    for symbol in sorted(symbols):
        changed = {
            entry.name: tuple(
                size + (1 if axis == 0 else 32) if d == symbol else size
                for axis, (d, size) in enumerate(
                    zip(entry.shape, shapes[entry.name], strict=True)
                )
            )
            for entry in graph.inputs
        }
        try:
            found = graph.specs(changed)
        except ShapeError:
            continue
        pairs = {
            (shapes[entry.name][axis], changed[entry.name][axis])
            for entry in graph.inputs
            for axis, size in enumerate(entry.shape)
            if size == symbol
        }
        for value, spec in found.items():
            both = zip(specs[value].shape, spec.shape, strict=True)
            for axis, pair in enumerate(both):
                if pair[0] != pair[1]:
                    first = isinstance(sizes[value][axis], int)
                    sizes[value][axis] = symbol if first and pair in pairs else None
    late: set[str] = set()
    for node in graph.nodes:
        if node.op.dynamic or late & set(node.reads):
            late.update(node.outputs)
    for value in late:
        sizes[value] = [None] * specs[value].rank
    return specs, {value: tuple(each) for value, each in sizes.items()}


def _flattened_for_dense(graph: Graph) -> frozenset[str]:
    """Return the values that only fully connected layers read."""
    return frozenset(
        value
        for value, readers in graph.consumers().items()
        if value not in graph.outputs
        and all(
            type(reader.op).__name__ == "Dense" and "kernel" in reader.params
            for reader in readers
        )
    )


def _require_onnx() -> None:
    try:
        import onnx
    except ImportError:
        raise MissingExtraError(
            'writing ONNX needs the package onnx: pip install "striate[onnx]"'
        ) from None
    del onnx


def _model(
    graph: Graph,
    g: Exporter,
    names: dict[str, str],
    ends: tuple[list[Any], list[Any]],
) -> Any:
    """Return the protocol buffer."""
    from onnx import helper, numpy_helper

    used = {name for node in g.nodes for name in node.inputs}
    used.update(name for name in names)
    inputs, outputs = (
        [helper.make_tensor_value_info(n, element(d), sizes) for n, d, sizes in end]
        for end in ends
    )
    titles = _distinct(node.name for node in g.nodes)
    nodes = [
        helper.make_node(
            node.op,
            [names.get(name, name) for name in node.inputs],
            [names.get(name, name) for name in node.outputs],
            name=title,
            **node.attributes,
        )
        for node, title in zip(g.nodes, titles, strict=True)
    ]
    constants = [
        numpy_helper.from_array(array, name)
        for name, array in g.constants.items()
        if name in used
    ]
    return helper.make_model(
        helper.make_graph(nodes, graph.name or "net", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="striate",
        producer_version=striate.__version__,
    )


def _distinct(names: Iterable[str]) -> list[str]:
    """Return names, each with a number behind it that came before."""
    count: Counter[str] = Counter()
    found = []
    for name in names:
        count[name] += 1
        found.append(name if count[name] == 1 else f"{name}/{count[name]}")
    return found
