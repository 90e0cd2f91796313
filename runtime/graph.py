"""A network as named values: what is computed, from what, with which weights."""

from __future__ import annotations

import re
from collections import ChainMap, Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import GraphError, ShapeError, UnknownLayerError
from .image import Postprocess, Preprocess
from .kernels._mapping import MappedFile
from .ops.base import Op, operand_names, required_operands
from .record import Record, record
from .spec import Array, Shape, Spec, shape_text, spec_of

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

Dim = int | str
"""A size, or a symbol such as ``"N"`` for one that each run may choose."""

DEFAULT_SIZE = 224
"""What a symbolic height or width is shown and probed with."""


@record
class Input(Record):
    """A tensor the caller gives.

    Parameters
    ----------
    name : str
        Its name in feeds.
    shape : tuple of int or str
        Sizes; a string is a symbol, and equal symbols stand for equal sizes.
    dtype : str
        Element type.
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: str = "float32"

    def spec(self, symbols: Mapping[str, int]) -> Spec:
        """Return the spec with each symbol replaced by its size."""
        return Spec(
            tuple(symbols[d] if isinstance(d, str) else d for d in self.shape),
            self.dtype,
        )

    def symbols(self, shape: Shape) -> dict[str, int]:
        """Return the size each symbol must have for `shape`.

        Raises
        ------
        ShapeError
            If `shape` does not fit.
        """
        found: dict[str, int] = {}
        fits = len(shape) == len(self.shape) and 0 not in shape
        for want, have in zip(self.shape, shape, strict=False):
            size = found.setdefault(want, have) if isinstance(want, str) else want
            fits = fits and size == have
        if not fits:
            raise ShapeError(
                f"input {self.name!r}: found shape {shape_text(shape)}, "
                f"wanted {shape_text(self.shape)}"
            )
        return found


@dataclass(frozen=True)
class Node:
    """An operator applied to values.

    Parameters
    ----------
    name : str
        Unique; with one output also the name of the value.
    op : Op
        What is computed.
    inputs : tuple of str
        Values, in the order of the operands that no weight fills.
    params : dict
        Operand name to tensor name, for operands that are weights.
    outputs : tuple of str
        The names of the values.
    activation : Op, optional
        An elementwise operator applied to the result; only passes set it.
    residual : str, optional
        A value added before the activation; only passes set it.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    params: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    activation: Op | None = None
    residual: str | None = None

    def __post_init__(self) -> None:
        if not self.outputs:
            object.__setattr__(self, "outputs", (self.name,))

    @property
    def reads(self) -> tuple[str, ...]:
        """Every value the node needs."""
        return self.inputs + ((self.residual,) if self.residual else ())

    def operands(self) -> Iterator[tuple[str, str | None]]:
        """Yield (kind, name) an operand; kind is ``value``, ``param`` or ``absent``."""
        values = iter(self.inputs)
        for operand in operand_names(type(self.op)):
            if operand.startswith("*"):
                yield from (("value", value) for value in values)
            elif operand in self.params:
                yield "param", self.params[operand]
            else:
                value = next(values, None)
                yield ("absent", None) if value is None else ("value", value)


class Graph:
    """A network, built layer by layer; `striate.save` writes it, `Model` runs it.

    Parameters
    ----------
    name : str
        What people call the network.

    Attributes
    ----------
    inputs : list of Input
    nodes : list of Node
        In an order in which they can run.
    outputs : list of str
        The values a run returns.
    params : dict of str to Array
        Weights, named ``layer/operand``.
    labels : tuple of str
        Class names, empty if there are none.
    examples : list of dict
        Some inputs with the outputs they give, arrays by name.
    preprocess : Preprocess or None
        How a picture becomes the input.
    postprocess : Postprocess or None
        How the output is read as classes.
    provenance : dict
        Where the network comes from.
    metadata : dict
        Anything else; never interpreted.
    model_id : str
        The id of the file the graph was read from; empty for others.
    file : MappedFile or None
        The mapped file that the weights are views of.

    Examples
    --------
    >>> import numpy as np
    >>> from striate import Graph, ops
    >>> graph = Graph("edges")
    >>> x = graph.input("image", ("N", 8, 8, 1))
    >>> x = graph.add(ops.Conv(), x, kernel=np.ones((3, 3, 1, 4), np.float32))
    >>> graph.output(graph.add(ops.Relu(), x))
    >>> graph.specs()["relu1"].shape
    (1, 6, 6, 4)
    """

    def __init__(self, name: str = "net") -> None:
        self.name = name
        self.inputs: list[Input] = []
        self.nodes: list[Node] = []
        self.outputs: list[str] = []
        self.params: dict[str, Array] = {}
        self.labels: tuple[str, ...] = ()
        self.examples: list[dict[str, Array]] = []
        self.preprocess: Preprocess | None = None
        self.postprocess: Postprocess | None = None
        self.provenance: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.model_id = ""
        self.file: MappedFile | None = None
        self._counts: Counter[str] = Counter()
        self._known: dict[str, Spec] = {}
        self._layers: set[str] = set()

    def input(self, name: str, shape: Iterable[Dim], dtype: str = "float32") -> str:
        """Declare an input and return its name.

        Raises
        ------
        GraphError
            If the name is taken or not allowed, or a size is not positive.
        """
        entry = Input(name, tuple(shape), dtype)
        self._check_new(name)
        for size in entry.shape:
            if isinstance(size, int) and size < 1:
                raise GraphError(f"input {name!r}: shape {shape_text(entry.shape)}")
        self.inputs.append(entry)
        self._known[name] = entry.spec(self._probe(entry))
        return name

    def add(
        self,
        op: Op,
        *inputs: str,
        name: str | None = None,
        outputs: Iterable[str] = (),
        **params: Array | str,
    ) -> Any:
        """Append a layer and return the name of its value, or a tuple of names.

        Parameters
        ----------
        op : Op
            The operator.
        *inputs : str
            Values, as `input` and `add` returned them.
        name : str, optional
            The layer's name; by default the operator's with a number.
        outputs : iterable of str, optional
            Names of the values of an operator that has several.
        **params : Array or str
            Weights by operand name; a string names a weight that is already there.

        Raises
        ------
        GraphError
            On an unknown value, a taken name, or operands that the operator lacks.
        ShapeError
            If the operands do not fit.
        """
        if name is None:
            stem = type(op).__name__.lower()
            self._counts[stem] += 1
            while self._taken(f"{stem}{self._counts[stem]}"):
                self._counts[stem] += 1
            name = f"{stem}{self._counts[stem]}"
        tensors: dict[str, str] = {}
        arrays: dict[str, Array] = {}
        for operand, value in params.items():
            if isinstance(value, str):
                tensors[operand] = value
            else:
                tensors[operand] = f"{name}/{operand}"
                arrays[f"{name}/{operand}"] = stored(value)
        node = Node(name, op, tuple(inputs), tensors, tuple(outputs))
        self.append(node, arrays)
        return node.outputs if outputs else name

    def append(self, node: Node, params: Mapping[str, Array] | None = None) -> None:
        """Append a finished node, and the weights that come with it, checked.

        Raises
        ------
        GraphError, ShapeError
            As `add`.
        """
        for value in {node.name, *node.outputs}:
            self._check_new(value)
        if len(set(node.outputs)) != len(node.outputs):
            raise GraphError(f"layer {node.name!r}: two outputs share a name")
        self._check_operands(node)
        added = dict(params or {})
        for tensor in node.params.values():
            if tensor not in self.params and tensor not in added:
                raise GraphError(f"layer {node.name!r}: no weight {tensor!r}")
        specs = _infer(node, self._known, ChainMap(added, self.params))
        self.params.update(added)
        self.nodes.append(node)
        self._layers.add(node.name)
        self._known.update(specs)

    def output(self, *values: str) -> None:
        """Declare what a run returns.

        Raises
        ------
        GraphError
            If a value does not exist or is already an output.
        """
        for value in values:
            if value not in self._known:
                raise GraphError(f"output {value!r} is not a value of the graph")
            if value in self.outputs:
                raise GraphError(f"output {value!r} is declared twice")
            self.outputs.append(value)

    def node(self, name: str) -> Node:
        """Return the layer of that name, or the one that computes that value.

        Raises
        ------
        UnknownLayerError
            If there is none.
        """
        for node in self.nodes:
            if name == node.name or name in node.outputs:
                return node
        raise UnknownLayerError(
            f"no layer {name!r} in {self.name!r}; the layers are "
            + ", ".join(node.name for node in self.nodes)
        )

    def default_shapes(self) -> dict[str, Shape]:
        """Return a shape for each input: batches of one, 224 pixels where free."""
        return {i.name: i.spec(self._probe(i)).shape for i in self.inputs}

    def specs(self, shapes: Mapping[str, Shape] | None = None) -> dict[str, Spec]:
        """Return the spec of every value for the given input shapes.

        Parameters
        ----------
        shapes : dict, optional
            Input name to shape; `default_shapes` if left out.

        Raises
        ------
        ShapeError
            If a shape does not fit the network.
        """
        shapes = self.default_shapes() if shapes is None else shapes
        symbols: dict[str, int] = {}
        specs: dict[str, Spec] = {}
        for entry in self.inputs:
            for symbol, size in entry.symbols(shapes[entry.name]).items():
                if symbols.setdefault(symbol, size) != size:
                    raise ShapeError(
                        f"input {entry.name!r}: {symbol} is {size} here and "
                        f"{symbols[symbol]} in another input"
                    )
            specs[entry.name] = Spec(shapes[entry.name], entry.dtype)
        for node in self.nodes:
            specs.update(_infer(node, specs, self.params))
        return specs

    def reference(
        self, feeds: Mapping[str, Array], outputs: Iterable[str] | None = None
    ) -> dict[str, Array]:
        """Evaluate the graph in plain NumPy, slowly, in the precision of the feeds.

        Parameters
        ----------
        feeds : dict
            Input name to array; float64 arrays give a float64 evaluation.
        outputs : iterable of str, optional
            The values wanted; the graph's outputs if left out.
        """
        values: dict[str, Array] = dict(feeds)
        self.evaluate(self.nodes, values)
        wanted = self.outputs if outputs is None else outputs
        return {name: values[name] for name in wanted}

    def evaluate(self, nodes: Iterable[Node], values: dict[str, Array]) -> None:
        """Add the values of some layers to those they need, by their references.

        Parameters
        ----------
        nodes : iterable of Node
            In an order in which they can run.
        values : dict
            What is known; float64 arrays among it give a float64 evaluation.
        """
        precise = any(a.dtype == np.float64 for a in values.values())
        for node in nodes:
            operands: list[Array | None] = []
            for kind, name in node.operands():
                if name is None:
                    operands.append(None)
                elif kind == "value":
                    operands.append(values[name])
                else:
                    operands.append(_precise(np.asarray(self.params[name]), precise))
            result = node.op.reference(*operands)
            if node.residual:
                result = result + values[node.residual]
            if node.activation:
                result = node.activation.reference(result)
            results = result if isinstance(result, tuple) else (result,)
            values.update(zip(node.outputs, results, strict=True))

    def planned(self) -> tuple[Graph, list[Node]]:
        """Return the part whose sizes follow from the shapes, and the other layers.

        The part's outputs are the graph's that it computes, then what the other layers
        read of it.
        """
        late: set[str] = set()
        rest: list[Node] = []
        for node in self.nodes:
            if node.op.dynamic or late & set(node.reads):
                rest.append(node)
                late.update(node.outputs)
        if not rest:
            return self, []
        wanted = dict.fromkeys(v for v in self.outputs if v not in late)
        wanted.update((v, None) for node in rest for v in node.reads if v not in late)
        part = self.with_nodes(node for node in self.nodes if node not in rest)
        part.outputs = list(wanted)
        return part, rest

    def outputs_of(self, node: Node) -> tuple[str, ...]:
        """Return the graph's outputs that `node` computes."""
        return tuple(value for value in node.outputs if value in self.outputs)

    def operand_specs(self, node: Node, specs: Mapping[str, Spec]) -> list[Spec | None]:
        """Return the specs of a layer's operands, None for those left out.

        Parameters
        ----------
        node : Node
            A layer of the graph.
        specs : dict
            The spec of every value, as `specs` returns them.
        """
        return _operand_specs(node, specs, self.params)

    def consumers(self) -> dict[str, list[Node]]:
        """Return the nodes that read each value."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in node.reads:
                found.setdefault(value, []).append(node)
        return found

    def with_nodes(
        self, nodes: Iterable[Node], params: Mapping[str, Array] | None = None
    ) -> Graph:
        """Return a graph of the same inputs and outputs over other nodes.

        Weights that no node uses any more are left out.
        """
        graph = Graph(self.name)
        for entry in self.inputs:
            graph.input(entry.name, entry.shape, entry.dtype)
        nodes = list(nodes)
        pool = {**self.params, **(params or {})}
        used = [tensor for node in nodes for tensor in node.params.values()]
        if nodes == self.nodes and all(pool[t] is self.params.get(t) for t in used):
            graph.nodes = nodes
            graph.params = {tensor: pool[tensor] for tensor in used}
            graph._layers = set(self._layers)
            graph._known = dict(self._known)
        else:
            for node in nodes:
                graph.append(node, {t: pool[t] for t in node.params.values()})
        graph.outputs = list(self.outputs)
        graph.labels = self.labels
        graph.preprocess = self.preprocess
        graph.postprocess = self.postprocess
        graph.provenance = self.provenance
        graph.metadata = self.metadata
        return graph

    def until(self, outputs: Iterable[str]) -> Graph:
        """Return the part of the graph that computes the given values.

        Raises
        ------
        UnknownLayerError
            If a value does not exist.
        """
        wanted = [self.value_named(name) for name in outputs]
        needed = set(wanted)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if needed & set(node.outputs):
                needed |= set(node.reads)
                kept.append(node)
        graph = self.with_nodes(reversed(kept))
        graph.outputs = wanted
        return graph

    def value_named(self, name: str) -> str:
        """Return the value of that name; a layer's name means its first output.

        Raises
        ------
        UnknownLayerError
            If there is neither.
        """
        return name if name in self._known else self.node(name).outputs[0]

    def _taken(self, name: str) -> bool:
        return name in self._known or name in self._layers

    def _check_new(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise GraphError(
                f"name {name!r}: wanted 1 to 128 of the characters A-Z a-z 0-9 _ . -, "
                "the first no . or -"
            )
        if self._taken(name):
            raise GraphError(f"name {name!r} is taken")

    def _check_operands(self, node: Node) -> None:
        for value in node.reads:
            if value not in self._known:
                raise GraphError(
                    f"layer {node.name!r} reads {value!r}, "
                    "which no earlier layer computes"
                )
        kind = type(node.op)
        names = operand_names(kind)
        unknown = node.params.keys() - set(names)
        if unknown:
            raise GraphError(
                f"layer {node.name!r}: {kind.__name__} has no operand "
                f"{sorted(unknown)}; it has {list(names)}"
            )
        packed = [n for n in kind.weights if n in required_operands(kind)]
        if not set(packed) <= node.params.keys():
            raise GraphError(
                f"layer {node.name!r}: {kind.__name__} wants {packed} as weights, "
                f"found the weights {sorted(node.params)}"
            )
        free = [n for n in names if n not in node.params]
        variadic = any(n.startswith("*") for n in free)
        missing = [n for n in free[len(node.inputs) :] if n in required_operands(kind)]
        if missing or (len(node.inputs) > len(free) and not variadic):
            raise GraphError(
                f"layer {node.name!r}: {kind.__name__} got {len(node.inputs)} values "
                f"and the weights {sorted(node.params)}, wanted {list(names)}"
            )

    @staticmethod
    def _probe(entry: Input) -> dict[str, int]:
        return {
            d: 1 if axis == 0 else DEFAULT_SIZE
            for axis, d in reversed(list(enumerate(entry.shape)))
            if isinstance(d, str)
        }


def stored(value: Array) -> Array:
    """Return a weight as graphs hold it: in C order, aligned, float64 as float32."""
    array = np.asarray(value)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return np.require(array, requirements=["C", "A"]).reshape(array.shape)


def _precise(array: Array, wanted: bool) -> Array:
    return array.astype(np.float64) if wanted and array.dtype.kind == "f" else array


def _operand_specs(
    node: Node, specs: Mapping[str, Spec], params: Mapping[str, Array]
) -> list[Spec | None]:
    found: list[Spec | None] = []
    for kind, name in node.operands():
        if name is None:
            found.append(None)
        else:
            found.append(specs[name] if kind == "value" else spec_of(params[name]))
    return found


def _infer(
    node: Node, specs: Mapping[str, Spec], params: Mapping[str, Array]
) -> dict[str, Spec]:
    try:
        result = node.op.infer(*_operand_specs(node, specs, params))
    except ShapeError as error:
        raise ShapeError(f"layer {node.name!r}: {error}") from None
    found = result if isinstance(result, tuple) else (result,)
    if len(found) != len(node.outputs):
        raise GraphError(
            f"layer {node.name!r} names {len(node.outputs)} outputs, "
            f"{type(node.op).__name__} has {len(found)}"
        )
    if node.residual and specs[node.residual] != found[0]:
        raise ShapeError(
            f"layer {node.name!r}: residual {specs[node.residual]} is not {found[0]}"
        )
    return dict(zip(node.outputs, found, strict=True))
