"""A network without its weights as strict JSON, and back.

# Design
The text is the part of a model file that has a meaning, so it is read without
latitude: no unknown, missing or repeated key, no number or string that another reader
could take differently. It names operators and tensors, never code, files or
expressions. An operator's fields are its only schema: `Op.from_attributes` takes them
and their annotations are checked here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from types import UnionType
from typing import (
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from .errors import GraphError, ModelFormatError
from .graph import NAME, Graph, Input, Node
from .hdf5_reader import MAX_RANK, MAX_SIZE
from .image import Postprocess, Preprocess
from .ops import operator
from .ops.base import Op, operand_names
from .quantisation import INTEGERS
from .record import Record, record
from .spec import Array, Shape

MAX_TEXT = 16 * 2**20
MAX_NODES = 20_000
MAX_INTEGER = 2**63 - 1
MAX_TITLE = 256
MAX_LABELS = 1_000_000
MAX_EXAMPLES = 16

TENSOR = re.compile(rf"{NAME.pattern}/{NAME.pattern}")
TITLE = re.compile(rf"[^\x00-\x1f\x7f-\x9f]{{0,{MAX_TITLE}}}")
SHA256 = re.compile(r"[0-9a-f]{64}")
INPUT_TYPES = ("float32", "float16", "int8", "uint8", "int32", "int64", "bool")
TENSOR_TYPES = (*INPUT_TYPES, "bfloat16")

REQUIRED = {"name", "ops", "inputs", "nodes", "outputs", "tensors"}
OPTIONAL = {
    "labels",
    "examples",
    "preprocess",
    "postprocess",
    "provenance",
    "metadata",
}

dumps = partial(
    json.dumps, ensure_ascii=False, allow_nan=False, default=lambda v: _plain(v)
)


class QuantisationEntry(NamedTuple):
    """The tensors that say what the whole numbers of another one stand for."""

    scale: str
    zero_point: str | None = None
    axis: int | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors it names."""
        return tuple(filter(None, (self.scale, self.zero_point)))


class TensorEntry(NamedTuple):
    """What the text says of a tensor."""

    dtype: str
    shape: Shape
    sha256: str
    quantisation: QuantisationEntry | None = None


@record
class LabelsEntry(Record):
    """What the text says of the class names."""

    count: int
    sha256: str


@dataclass
class Description:
    """A network that still lacks its weights."""

    name: str
    inputs: list[Input]
    nodes: list[Node]
    outputs: tuple[str, ...]
    tensors: dict[str, TensorEntry]
    labels: LabelsEntry | None = None
    examples: list[dict[str, TensorEntry]] = field(default_factory=list)
    preprocess: Preprocess | None = None
    postprocess: Postprocess | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def datasets(self) -> dict[str, TensorEntry]:
        """Every tensor of the file, weights and examples, by its path."""
        return {
            **{f"weights/{name}": entry for name, entry in self.tensors.items()},
            **{
                f"examples/{number}/{value}": entry
                for number, example in enumerate(self.examples)
                for value, entry in example.items()
            },
        }


def weights_used(graph: Graph) -> list[str]:
    """Return the names of the weights that layers use, in the order of first use."""
    return list(
        dict.fromkeys(t for node in graph.nodes for t in _params(node).values())
    )


def encode(
    graph: Graph,
    tensors: Mapping[str, TensorEntry],
    labels: LabelsEntry | None,
    examples: Sequence[Mapping[str, TensorEntry]] = (),
) -> bytes:
    """Return the text of a graph, the same for equal graphs.

    Parameters
    ----------
    graph : Graph
        The network.
    tensors : dict
        An entry for each weight that a layer uses, and for those that its entry names.
    labels : LabelsEntry, optional
        The entry of the class names.
    examples : sequence of dict
        Entries of the inputs and outputs of each example.

    Raises
    ------
    GraphError
        If something in the graph has no place in the text.
    """
    for node in graph.nodes:
        if node.activation is not None or node.residual is not None:
            raise GraphError(
                f"layer {node.name!r} carries a fused activation or residual; "
                "save the graph as it was before the passes"
            )
    try:
        return _indented(_document(graph, tensors, labels, examples)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise GraphError(f"{graph.name!r} has no place in JSON: {error}") from error


def decode(text: bytes, path: str) -> Description:
    """Return the network that `text` describes.

    Parameters
    ----------
    text : bytes
        The content of ``/graph``.
    path : str
        How refusals name the file.

    Raises
    ------
    ModelFormatError
        If it is not as ``docs/format.md`` says, or uses operators unknown here.
    """
    return Decoder(path).description(text)


def build(
    description: Description,
    params: Mapping[str, Array],
    labels: tuple[str, ...],
    path: str,
) -> Graph:
    """Return the graph; every layer's operands and shapes are checked.

    Raises
    ------
    ModelFormatError
        If the parts do not fit together.
    """
    graph = Graph(description.name)
    with graph_errors(path):
        for entry in description.inputs:
            graph.input(entry.name, entry.shape, entry.dtype)
        for node in description.nodes:
            new = {t: params[t] for t in node.params.values() if t not in graph.params}
            graph.append(node, new)
        graph.output(*description.outputs)
        scores = description.postprocess
        if scores is not None:
            graph.node(scores.output)
    graph.labels = labels
    graph.preprocess = description.preprocess
    graph.postprocess = description.postprocess
    graph.provenance = description.provenance
    graph.metadata = description.metadata
    return graph


class Decoder:
    """One reading of one text; `where` says which part a refusal is about."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.operators: dict[tuple[str, str], Op] = {}

    def refusal(self, message: str, code: str = "graph") -> ModelFormatError:
        """Return the exception to raise."""
        return ModelFormatError(f"/graph: {message:.500}", code=code, path=self.path)

    def description(self, text: bytes) -> Description:
        """Return the network."""
        document = self.object(self.parsed(text), "", REQUIRED, OPTIONAL)
        versions = self.versions(document["ops"])
        tensors = {
            self.matching(TENSOR, name, "tensors"): self.tensor(entry, name)
            for name, entry in self.mapping(document["tensors"], "tensors").items()
        }
        nodes = self.array(document["nodes"], "nodes")
        if len(nodes) > MAX_NODES:
            raise self.refusal(f"{len(nodes)} nodes, wanted up to {MAX_NODES}", "limit")
        described = Description(
            self.matching(TITLE, document["name"], "name"),
            [self.input(entry) for entry in self.array(document["inputs"], "inputs")],
            [self.node(entry, versions) for entry in nodes],
            self.names(document["outputs"], "outputs"),
            tensors,
        )
        if not described.outputs:
            raise self.refusal("there are no outputs")
        self.check_used(described, versions)
        if "labels" in document:
            described.labels = self.labels(document["labels"])
        if "examples" in document:
            described.examples = self.examples(document["examples"], described)
        with graph_errors(self.path):
            if "preprocess" in document:
                entry = self.mapping(document["preprocess"], "preprocess")
                described.preprocess = Preprocess.from_attributes(entry)
            if "postprocess" in document:
                entry = self.mapping(document["postprocess"], "postprocess")
                described.postprocess = Postprocess.from_attributes(entry)
        for key in ("provenance", "metadata"):
            setattr(described, key, self.mapping(document.get(key, {}), key))
        return described

    def check_used(self, described: Description, versions: Mapping[str, int]) -> None:
        """Refuse a tensor or an operator that is only used, or only described."""
        tensors = described.tensors
        used = {name for node in described.nodes for name in node.params.values()}
        for name in used & tensors.keys():
            quantised = tensors[name].quantisation
            if quantised is not None:
                self.check_quantisation(name, tensors[name], quantised, tensors)
                used.update(quantised.tensors)
        if used != tensors.keys():
            raise self.refusal(
                f"tensors {sorted(used ^ tensors.keys())[:5]} are used and not "
                "described, or described and not used"
            )
        unused = versions.keys() - {type(node.op).__name__ for node in described.nodes}
        if unused:
            raise self.refusal(f"operators {sorted(unused)} are listed and not used")

    def check_quantisation(
        self,
        name: str,
        entry: TensorEntry,
        quantised: QuantisationEntry,
        tensors: Mapping[str, TensorEntry],
    ) -> None:
        """Refuse scales and zero points that cannot belong to a tensor."""
        where = f"quantisation of {name!r}"
        if entry.dtype not in INTEGERS:
            raise self.refusal(
                f"{where}: it is {entry.dtype}, wanted one of {INTEGERS}"
            )
        shape: Shape = ()
        if quantised.axis is not None:
            if quantised.axis >= len(entry.shape):
                raise self.refusal(f"{where}: axis {quantised.axis} of {entry.shape}")
            shape = (entry.shape[quantised.axis],)
        dtypes = ("float32", "int32")
        for tensor, dtype in zip(quantised.tensors, dtypes, strict=False):
            found = tensors.get(tensor)
            if found is None or (found.dtype, found.shape) != (dtype, shape):
                raise self.refusal(f"{where}: {tensor!r} is not {dtype} {shape}")
            if found.quantisation is not None:
                raise self.refusal(f"{where}: {tensor!r} is quantised itself")

    def parsed(self, text: bytes) -> Any:
        """Return the JSON value, if every reader must take it the same way."""
        if len(text) > MAX_TEXT:
            raise self.refusal(f"{len(text)} bytes, wanted up to {MAX_TEXT}", "limit")
        try:
            value = json.loads(
                text.decode(),
                object_pairs_hook=_unique,
                parse_int=_integer,
                parse_float=_finite,
                parse_constant=_no_constant,
            )
            if b"\\u" in text:
                dumps(value).encode()
        except (ValueError, RecursionError) as error:
            raise self.refusal(str(error)) from None
        return value

    def versions(self, value: Any) -> dict[str, int]:
        """Return the version of each operator; all must be known here."""
        versions: dict[str, int] = self.mapping(value, "ops")
        newer = []
        for name, version in versions.items():
            self.integer(version, f"version of {name!r}", 1, MAX_SIZE)
            kind = operator(name)
            if kind is None or version > kind.version:
                newer.append(f"{name!r} version {version}")
        if newer:
            raise self.refusal(f"operators unknown here: {', '.join(newer)}", "op")
        return versions

    def input(self, value: Any) -> Input:
        """Return the declaration of an input."""
        entry = self.object(value, "an input", {"name", "shape", "dtype"})
        name = self.matching(NAME, entry["name"], "an input's name")
        shape = self.array(entry["shape"], f"shape of input {name!r}")
        if entry["dtype"] not in INPUT_TYPES:
            raise self.refusal(f"input {name!r} has dtype {entry['dtype']!r}")
        if len(shape) > MAX_RANK:
            raise self.refusal(f"input {name!r} has {len(shape)} axes")
        for size in shape:
            if isinstance(size, str):
                self.matching(NAME, size, f"shape of input {name!r}")
            else:
                self.integer(size, f"shape of input {name!r}", 1, MAX_SIZE)
        return Input(name, tuple(shape), entry["dtype"])

    def node(self, value: Any, versions: Mapping[str, int]) -> Node:
        """Return a node; whether its operands fit is left to the graph."""
        entry = self.object(
            value,
            "a node",
            {"name", "op", "inputs"},
            {"attributes", "params", "outputs"},
        )
        name = self.matching(NAME, entry["name"], "a node's name")
        where = f"node {name!r}"
        kind = entry["op"]
        if not isinstance(kind, str) or kind not in versions:
            raise self.refusal(f"{where}: operator {kind!r} is not listed in ops")
        attributes = self.mapping(entry.get("attributes", {}), where)
        with graph_errors(self.path, where):
            key = kind, repr(attributes)
            if key not in self.operators:
                self.operators[key] = _operator(kind, versions[kind], attributes)
            op = self.operators[key]
        params = self.mapping(entry.get("params", {}), where)
        for tensor in params.values():
            self.matching(TENSOR, tensor, where)
        outputs = self.names(entry.get("outputs", [name]), where)
        if not outputs:
            raise self.refusal(f"{where} has no outputs")
        return Node(name, op, self.names(entry["inputs"], where), params, outputs)

    def tensor(self, value: Any, name: str) -> TensorEntry:
        """Return the entry of a tensor."""
        where = f"tensor {name!r}"
        entry = self.object(
            value, where, {"dtype", "shape", "sha256"}, {"quantisation"}
        )
        shape = self.array(entry["shape"], where)
        for size in shape:
            self.integer(size, where, 1, MAX_SIZE)
        if entry["dtype"] not in TENSOR_TYPES:
            raise self.refusal(f"{where} has dtype {entry['dtype']!r}")
        digest = self.matching(SHA256, entry["sha256"], where)
        quantised = None
        if "quantisation" in entry:
            quantised = self.quantisation(entry["quantisation"], where)
        return TensorEntry(entry["dtype"], tuple(shape), digest, quantised)

    def quantisation(self, value: Any, where: str) -> QuantisationEntry:
        """Return what says how whole numbers are to be read."""
        entry = self.object(value, where, {"scale"}, {"zero_point", "axis"})
        for key in entry.keys() - {"axis"}:
            self.matching(TENSOR, entry[key], where)
        if "axis" in entry:
            self.integer(entry["axis"], where, 0, MAX_RANK)
        return QuantisationEntry(**entry)

    def examples(
        self, value: Any, described: Description
    ) -> list[dict[str, TensorEntry]]:
        """Return the entries of each example: all inputs and outputs, no others."""
        items = self.array(value, "examples")
        if not 1 <= len(items) <= MAX_EXAMPLES:
            raise self.refusal(
                f"{len(items)} examples, wanted 1 to {MAX_EXAMPLES}", "limit"
            )
        wanted = {*(entry.name for entry in described.inputs), *described.outputs}
        examples = []
        for item in items:
            example = self.object(item, "an example", wanted)
            entries = {name: self.tensor(example[name], name) for name in example}
            for name, entry in entries.items():
                if entry.dtype not in INPUT_TYPES or entry.quantisation is not None:
                    raise self.refusal(f"example of {name!r} is {entry.dtype}, or more")
            examples.append(entries)
        return examples

    def labels(self, value: Any) -> LabelsEntry:
        """Return the entry of the class names."""
        entry = self.object(value, "labels", {"count", "sha256"})
        return LabelsEntry(
            self.integer(entry["count"], "labels", 1, MAX_LABELS),
            self.matching(SHA256, entry["sha256"], "labels"),
        )

    def object(
        self,
        value: Any,
        where: str,
        required: Set[str],
        optional: Set[str] = frozenset(),
    ) -> dict[str, Any]:
        """Return an object that has these keys and no others."""
        entry = self.mapping(value, where)
        missing, unknown = required - entry.keys(), entry.keys() - required - optional
        if missing or unknown:
            raise self.refusal(
                f"{where or 'the whole'}: keys {sorted(unknown)} are unknown, "
                f"{sorted(missing)} are missing"
            )
        return entry

    def mapping(self, value: Any, where: str) -> dict[str, Any]:
        """Return an object."""
        if not isinstance(value, dict):
            raise self.refusal(f"{where}: found {value!r:.60}, wanted an object")
        return value

    def array(self, value: Any, where: str) -> list[Any]:
        """Return an array."""
        if not isinstance(value, list):
            raise self.refusal(f"{where}: found {value!r:.60}, wanted an array")
        return value

    def names(self, value: Any, where: str) -> tuple[str, ...]:
        """Return an array of names."""
        return tuple(self.matching(NAME, v, where) for v in self.array(value, where))

    def matching(self, pattern: re.Pattern[str], value: Any, where: str) -> str:
        """Return a string of the given form."""
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.refusal(
                f"{where}: found {value!r:.60}, wanted a string like {pattern.pattern}"
            )
        return value

    def integer(self, value: Any, where: str, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        if type(value) is not int or not least <= value <= most:
            raise self.refusal(
                f"{where}: found {value!r:.60}, wanted {least} to {most}"
            )
        return value


def newer_attributes(kind: type[Op], version: int) -> dict[str, Any]:
    """Return the attributes that `version` of an operator lacks, with their meaning."""
    return {n: value for n, (since, value) in kind.added.items() if since > version}


def lowest_version(op: Op) -> int:
    """Return the first version of an operator that can say what `op` does."""
    return max(
        (since for n, (since, value) in op.added.items() if getattr(op, n) != value),
        default=1,
    )


def _operator(name: str, version: int, attributes: dict[str, Any]) -> Op:
    """Return an operator of some version, if it has just these attributes."""
    kind = operator(name)
    if kind is None:
        raise GraphError(f"operator {name!r} is unknown here")
    added = newer_attributes(kind, version)
    op = kind.from_attributes({**added, **attributes})
    check_types(op)
    wanted = {k: v for k, v in op.attributes().items() if k not in added}
    if wanted != _tuples(attributes):
        raise GraphError(f"attributes {attributes}, wanted {wanted}")
    return op


def check_types(op: Op) -> None:
    """Raise `GraphError` unless each field holds what its annotation says."""
    kind: Any = type(op)
    for name, hint in _annotations(kind).items():
        value = getattr(op, name)
        if not _conforms(value, hint):
            raise GraphError(f"attribute {name} is {value!r:.60}, wanted {hint}")


@cache
def _annotations(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _conforms(value: Any, hint: Any) -> bool:
    """Return whether a frozen JSON value is of the annotated type."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_conforms(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        if args[-1:] == (Ellipsis,):
            args = args[:1] * len(value) if isinstance(value, tuple) else ()
        return (
            isinstance(value, tuple)
            and len(value) == len(args)
            and all(map(_conforms, value, args))
        )
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is hint


def _tuples(value: Any) -> Any:
    """Return `value` with tuples for lists, as operators keep them."""
    if isinstance(value, dict):
        return {key: _tuples(v) for key, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


@contextmanager
def graph_errors(path: str, where: str = "", code: str = "graph") -> Iterator[None]:
    """Turn what goes wrong inside an operator or the graph into a refusal."""
    try:
        yield
    except ModelFormatError:
        raise
    except Exception as error:  # an operator computes with numbers of a stranger
        message = ": ".join(filter(None, ("/graph", where, str(error))))
        raise ModelFormatError(f"{message:.500}", code=code, path=path) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"a key occurs twice among {[key for key, _ in pairs]!r:.200}")
    return found


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"the integer {text:.40} does not fit in 64 bits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text:.40} is out of range")
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _document(
    graph: Graph,
    tensors: Mapping[str, TensorEntry],
    labels: LabelsEntry | None,
    examples: Sequence[Mapping[str, TensorEntry]],
) -> dict[str, Any]:
    versions: dict[str, int] = {}
    for node in graph.nodes:
        name = type(node.op).__name__
        versions[name] = max(lowest_version(node.op), versions.get(name, 1))
    document = {
        "name": graph.name,
        "ops": _sorted(versions),
        "inputs": [dataclasses.asdict(entry) for entry in graph.inputs],
        "nodes": [_node(node, versions) for node in graph.nodes],
        "outputs": graph.outputs,
        "tensors": _tensors(weights_used(graph), tensors),
        "labels": dataclasses.asdict(labels) if labels else None,
        "examples": [_tensors(example, example) for example in examples],
        "preprocess": graph.preprocess and graph.preprocess.attributes(),
        "postprocess": graph.postprocess and graph.postprocess.attributes(),
        "provenance": _sorted(graph.provenance),
        "metadata": _sorted(graph.metadata),
    }
    return {k: v for k, v in document.items() if v or k in REQUIRED}


def _tensors(
    names: Iterable[str], tensors: Mapping[str, TensorEntry]
) -> dict[str, Any]:
    """Return the entries of tensors, each followed by those that it names."""
    entries: dict[str, Any] = {}
    for name in names:
        entry = tensors[name]
        entries[name] = _given(entry)
        if entry.quantisation is not None:
            entries[name]["quantisation"] = _given(entry.quantisation)
            entries.update(_tensors(entry.quantisation.tensors, tensors))
    return entries


def _given(entry: TensorEntry | QuantisationEntry) -> dict[str, Any]:
    """Return the fields of an entry that say something."""
    return {k: v for k, v in entry._asdict().items() if v is not None}


def _node(node: Node, versions: Mapping[str, int]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": node.name,
        "op": type(node.op).__name__,
        "inputs": node.inputs,
    }
    kind = type(node.op)
    newer = newer_attributes(kind, versions[kind.__name__])
    attributes = {k: v for k, v in node.op.attributes().items() if k not in newer}
    if attributes:
        entry["attributes"] = attributes
    if node.params:
        entry["params"] = _params(node)
    if node.outputs != (node.name,):
        entry["outputs"] = node.outputs
    return entry


def _params(node: Node) -> dict[str, str]:
    """Return the weights of a node in the order of its operands."""
    operands = operand_names(type(node.op))
    return {o: node.params[o] for o in operands if o in node.params}


def _sorted(value: Any) -> Any:
    """Return `value` with its keys in order; only strings are keys."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise GraphError(f"found keys {list(value)!r:.60}, wanted strings")
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(v) for v in value] if isinstance(value, (list, tuple)) else value


def _plain(value: Any) -> Any:
    """Return a NumPy number as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"found {value!r:.60}, wanted a number, text, list or dict")


def _indented(document: Mapping[str, Any]) -> str:
    """Return JSON with a line for each part that fits one, or for each part's part."""
    parts = []
    for key, value in document.items():
        text = dumps(value)
        if len(text) > 88 and isinstance(value, dict):
            items = [f"{dumps(k)}: {dumps(v)}" for k, v in value.items()]
            text = "{\n  " + ",\n  ".join(items) + "\n }"
        elif len(text) > 88 and isinstance(value, list):
            text = "[\n  " + ",\n  ".join(map(dumps, value)) + "\n ]"
        parts.append(f" {dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"
