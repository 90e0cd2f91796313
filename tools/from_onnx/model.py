"""ONNX files as plain values, without any of protobuf's."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from striate.errors import (
    MissingExtraError,
    ModelFormatError,
    SettingError,
    UnsupportedModelError,
)
from striate.spec import Array
from striate.tools.builder import sanitised
from striate.tools.conversion import sha256_of, upstream

OVERLAP = 2
"""How many times its own size the tensors may take of a file of external data."""

TENSORS = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
"""ONNX's numbers of the element types that an array can have."""


@dataclass(frozen=True)
class SourceNode:
    """A node as the file has it.

    Parameters
    ----------
    op, domain, name : str
        The operator, where it is defined ("" for ONNX itself), and the node's name.
    inputs, outputs : tuple of str
        Names of tensors; "" for one left out.
    attributes : dict
        Numbers, text, tuples of them, arrays and `SourceGraph`.
    """

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class SourceInput:
    """An input: its name, its sizes (None if the file does not say), its type."""

    name: str
    shape: tuple[int | str | None, ...] | None
    dtype: str


@dataclass(frozen=True)
class SourceGraph:
    """Nodes in the file's order, with the constants and names around them."""

    nodes: tuple[SourceNode, ...]
    inputs: tuple[SourceInput, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]


@dataclass(frozen=True)
class SourceModel:
    """What an ONNX file says.

    Parameters
    ----------
    name : str
        Its path, or the network's name where there is no file.
    graph : SourceGraph
        The network.
    ir_version : int
        The version of the format.
    opsets : dict
        Domain to version of its operators.
    provenance : dict
        What files it was read from: ``source_sha256``, ``data_sha256``.
    proto : callable
        Returns the protobuf message again.
    notes : list of str
        What a user should know.
    """

    name: str
    graph: SourceGraph
    ir_version: int
    opsets: Mapping[str, int]
    provenance: Mapping[str, Any]
    proto: Callable[[], Any]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def shapes(self) -> dict[str, tuple[int | str | None, ...]]:
        """The shapes that ONNX's own inference finds, as far as it does."""
        return {entry.name: sizes for entry, sizes in self._inferred if sizes}

    @cached_property
    def _inferred(self) -> list[tuple[Any, tuple[int | str | None, ...] | None]]:
        import onnx

        try:
            graph = onnx.shape_inference.infer_shapes(self.proto()).graph
        except Exception:
            return []
        return [
            (entry, _sizes(entry))
            for entry in (*graph.input, *graph.value_info, *graph.output)
        ]

    def cut(self, outputs: Sequence[str], inputs: Sequence[str]) -> SourceModel:
        """Return the part between some nodes or tensors.

        Parameters
        ----------
        outputs : sequence of str
            Nodes or tensors that become the outputs; none to keep those there are.
        inputs : sequence of str
            Nodes or tensors that become inputs.

        Raises
        ------
        SettingError
            If there is nothing of that name.
        """
        graph = self.graph
        wanted = [t for name in outputs for t in self._tensors(name)]
        given = [t for name in inputs for t in self._tensors(name)]
        ends = tuple(dict.fromkeys(wanted)) or graph.outputs
        kept = upstream(
            [(reads(node), node.outputs) for node in graph.nodes], ends, given
        )
        nodes = tuple(graph.nodes[index] for index in kept)
        needed = {*ends, *(name for node in nodes for name in reads(node))}
        entries = [entry for entry in graph.inputs if entry.name in needed]
        known = {entry.name for entry in entries}
        entries += [self._given(name) for name in given if name not in known]
        return replace(
            self, graph=replace(graph, nodes=nodes, inputs=tuple(entries), outputs=ends)
        )

    def _tensors(self, name: str) -> tuple[str, ...]:
        """Return the tensors that the name of a node or of a tensor stands for."""
        graph = self.graph
        tensors = {output for node in graph.nodes for output in node.outputs}
        tensors.update(entry.name for entry in graph.inputs)
        if name in tensors:
            return (name,)
        for node in graph.nodes:
            if node.name and name in (node.name, sanitised(node.name)):
                return tuple(filter(None, node.outputs))
        raise SettingError(f"{self.name}: no node or tensor {name!r} to cut at")

    def _given(self, name: str) -> SourceInput:
        for entry, sizes in self._inferred:
            if entry.name == name:
                dtype = entry.type.tensor_type.elem_type
                return SourceInput(name, sizes, TENSORS.get(dtype, f"type {dtype}"))
        return SourceInput(name, None, "float32")


def reads(node: SourceNode) -> tuple[str, ...]:
    """Return the tensors a node reads, those of its branches included."""
    branches = [a for a in node.attributes.values() if isinstance(a, SourceGraph)]
    inner = (
        name
        for branch in branches
        for name in (*branch.outputs, *(r for n in branch.nodes for r in reads(n)))
    )
    return (*node.inputs, *inner)


def read_model(source: Any) -> SourceModel:
    """Return the contents of an ONNX model.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        The file, its contents, or the model itself.

    Raises
    ------
    ModelFormatError
        If it is not a whole ONNX file, or names data outside its own folder.
    UnsupportedModelError
        If it holds tensors of a kind that has no array.
    MissingExtraError
        If the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError(
            'reading ONNX files needs onnx: pip install "striate[onnx]"'
        ) from error
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    name = str(path or "<bytes>")
    provenance: dict[str, Any] = {}
    if isinstance(source, onnx.ModelProto):
        name, proto = source.graph.name or "onnx", source
    else:
        data = _contents(path) if path else bytes(source)
        provenance["source_sha256"] = hashlib.sha256(data).hexdigest()
        proto = _parsed(data, name)
        del data
    if not proto.ir_version or not proto.graph.node:
        raise _refused(name, "not an ONNX file: found no nodes in it")
    original = proto
    if proto.functions:
        proto = _inlined(proto, name)
    reader = _Reader(name, path)
    graph = reader.graph(proto.graph)
    if reader.data:
        provenance["data_sha256"] = {
            file.name: sha256_of(file) for file in sorted(reader.data)
        }
    return SourceModel(
        name=name,
        graph=graph,
        ir_version=proto.ir_version,
        opsets={_domain(text(o.domain)): o.version for o in proto.opset_import}
        or {"": 1},
        provenance=provenance,
        proto=(lambda: _parsed(_contents(path), name)) if path else lambda: original,
        notes=sorted(reader.notes),
    )


def _parsed(data: bytes, name: str) -> Any:
    import onnx

    try:
        return onnx.ModelProto.FromString(data)
    except Exception as error:
        raise _refused(name, f"not a whole ONNX file: {_line(error)}") from None


def _inlined(proto: Any, name: str) -> Any:
    """Return the model with its own functions written out."""
    from onnx.inliner import inline_local_functions

    try:
        return inline_local_functions(proto)
    except Exception as error:
        raise _refused(name, f"bad functions: {_line(error)}") from None


def _contents(path: Path) -> bytes:
    if path.is_dir():
        raise _refused(path, "found a folder, wanted an ONNX file", "not_a_file")
    if not path.exists():
        raise _refused(path, "no such file", "not_a_file")
    if not path.is_file():
        raise _refused(path, "found no regular file", "not_a_file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refused(path, f"cannot read: {error.strerror}", "not_a_file") from None


def _refused(
    name: str | Path, message: str, code: str = "not_onnx"
) -> ModelFormatError:
    return ModelFormatError(message, code=code, path=str(name))


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


class _Reader:
    """Turns protobuf messages into the classes above."""

    def __init__(self, name: str, path: Path | None) -> None:
        self.name = name
        self.path = path
        self.notes: set[str] = set()
        self.data: Counter[Path] = Counter()
        self._regions: dict[tuple[Path, int, str, tuple[int, ...]], Array] = {}

    def graph(self, proto: Any) -> SourceGraph:
        if proto.sparse_initializer:
            raise UnsupportedModelError(f"{self.name}: it holds sparse weights")
        constants = {
            text(tensor.name): self.array(tensor) for tensor in proto.initializer
        }
        return SourceGraph(
            nodes=tuple(self.node(node) for node in proto.node),
            inputs=tuple(
                self.input(entry)
                for entry in proto.input
                if text(entry.name) not in constants
            ),
            outputs=tuple(text(entry.name) for entry in proto.output),
            constants=constants,
        )

    def node(self, proto: Any) -> SourceNode:
        return SourceNode(
            op=text(proto.op_type),
            domain=_domain(text(proto.domain)),
            name=text(proto.name),
            inputs=tuple(map(text, proto.input)),
            outputs=tuple(map(text, proto.output)),
            attributes={text(a.name): self.attribute(a) for a in proto.attribute},
        )

    def input(self, proto: Any) -> SourceInput:
        tensor = proto.type.tensor_type
        if not proto.type.HasField("tensor_type"):
            raise UnsupportedModelError(
                f"{self.name}: input {proto.name!r} is no tensor"
            )
        dtype = TENSORS.get(tensor.elem_type, f"type {tensor.elem_type}")
        return SourceInput(text(proto.name), _sizes(proto), dtype)

    def attribute(self, proto: Any) -> Any:
        from onnx import AttributeProto as Kind

        single: dict[int, Callable[[], Any]] = {
            Kind.FLOAT: lambda: shortest(proto.f),
            Kind.INT: lambda: proto.i,
            Kind.STRING: lambda: text(proto.s),
            Kind.TENSOR: lambda: self.array(proto.t),
            Kind.GRAPH: lambda: self.graph(proto.g),
            Kind.FLOATS: lambda: tuple(map(shortest, proto.floats)),
            Kind.INTS: lambda: tuple(proto.ints),
            Kind.STRINGS: lambda: tuple(map(text, proto.strings)),
        }
        kind = proto.type
        if kind == Kind.UNDEFINED:
            kind = next(
                (
                    k
                    for k, name in (
                        (Kind.FLOAT, "f"),
                        (Kind.INT, "i"),
                        (Kind.STRING, "s"),
                        (Kind.TENSOR, "t"),
                    )
                    if proto.HasField(name)
                ),
                Kind.FLOATS if proto.floats else Kind.INTS,
            )
        return single[kind]() if kind in single else None

    def array(self, tensor: Any) -> Array:
        """Return a tensor's elements; floats of other sizes become float32."""
        from onnx import TensorProto, numpy_helper

        name = f"tensor {tensor.name!r}"
        if tensor.data_type not in TENSORS:
            kinds = TensorProto.DataType.DESCRIPTOR.values_by_number
            kind = kinds[tensor.data_type].name if tensor.data_type in kinds else "?"
            raise UnsupportedModelError(
                f"{self.name}: {name} holds {kind.lower()} elements"
            )
        if min(tensor.dims, default=0) < 0:
            raise _refused(self.name, f"{name}: shape {tuple(tensor.dims)}", "tensor")
        try:
            if tensor.data_location == TensorProto.EXTERNAL:
                array = self.external(tensor, name)
            else:
                array = numpy_helper.to_array(tensor)
        except ModelFormatError:
            raise
        except (ValueError, TypeError) as error:
            raise _refused(self.name, f"{name}: {_line(error)}", "tensor") from None
        dtype = TENSORS[tensor.data_type]
        if dtype in ("float16", "bfloat16", "float64"):
            self.notes.add(f"{dtype} weights are stored as float32")
            array = array.astype(np.float32)
        return array

    def external(self, tensor: Any, name: str) -> Array:
        """Return elements that lie in another file of the model's folder."""
        from onnx import helper

        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = self.confined(entries.get("location", ""), name)
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        shape = tuple(tensor.dims)
        wanted = math.prod(shape) * dtype.itemsize
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or wanted)
        if length != wanted or offset < 0:
            raise self.refused(
                f"{name}: {length} bytes at {offset} for shape {shape} of {dtype}"
            )
        size = path.stat().st_size
        if offset + length > size:
            raise self.refused(
                f"{name}: wanted {length} bytes at {offset} of {path.name}, which "
                f"has {size}"
            )
        region = (path, offset, str(dtype), shape)
        if region not in self._regions:
            self.data[path] += length
            if self.data[path] > OVERLAP * size:
                raise self.refused(f"{name}: its data overlaps that of other tensors")
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(length)
            self._regions[region] = np.frombuffer(data, dtype).reshape(shape)
        return self._regions[region]

    def refused(self, message: str) -> ModelFormatError:
        """Return the error for external data that cannot be read."""
        return _refused(self.name, message, "external_data")

    def confined(self, location: str, name: str) -> Path:
        """Return the file of that name if it lies in the model's folder."""
        if self.path is None:
            raise self.refused(
                f"{name}: its data lies in {location!r}, wanted the path of the model"
            )
        folder = self.path.resolve().parent
        posix, windows = PurePosixPath(location), PureWindowsPath(location)
        inside = (
            bool(location)
            and "\0" not in location
            and not posix.is_absolute()
            and not windows.drive
            and not windows.root
            and ".." not in (*posix.parts, *windows.parts)
        )
        path = (folder / location).resolve() if inside else folder
        if not inside or folder not in path.parents:
            raise self.refused(
                f"{name}: its data is said to lie in {location!r}, wanted a file in "
                "the model's own folder"
            )
        if not path.is_file():
            raise self.refused(f"{name}: found no file {location!r}")
        return path


def text(raw: str | bytes) -> str:
    """Return text; protobuf gives what is not UTF-8 as bytes."""
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw


def shortest(number: float) -> float:
    """Return the number of fewest digits that is the same in float32: 0.1, say."""
    return float(str(np.float32(number)))


def _sizes(entry: Any) -> tuple[int | str | None, ...] | None:
    """Return the sizes that a file gives for a tensor, None for one it leaves open."""
    tensor = entry.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value
        if dim.HasField("dim_value") and dim.dim_value > 0
        else (text(dim.dim_param) or None)
        for dim in tensor.shape.dim
    )
