"""Models as files: one HDF5 file holds a network, its weights and its labels.

Reading never involves the HDF5 library; `striate.hdf5_reader` says why. Writing does.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import math
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .cache_note import VerifiedFiles
from .errors import DTypeError, GraphError, ModelFormatError
from .graph import NAME, Graph
from .graph_json import (
    MAX_EXAMPLES,
    MAX_TEXT,
    TENSOR,
    TENSOR_TYPES,
    Description,
    LabelsEntry,
    QuantisationEntry,
    TensorEntry,
    build,
    decode,
    encode,
    graph_errors,
    weights_used,
)
from .hdf5_reader import ALIGNMENT, Attribute, Contents, read_hdf5
from .kernels._mapping import MappedFile
from .quantisation import Quantisation
from .spec import Array, Shape, Spec, shape_text, spec_of

FORMAT = b"striate"
FORMAT_VERSION = (1, 0)
MAX_LABEL_BYTES = 1024
MAX_PRODUCER_BYTES = 128
PARTS = ("scale", "zero_point")
ATTRIBUTES = ["format", "format_version", "model_id", "producer"]
NUMBER = r"(0|[1-9][0-9]?)"
PATH = re.compile(
    rf"graph|labels|weights/{TENSOR.pattern}|examples/{NUMBER}/{NAME.pattern}"
)
LABEL = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")


def read(
    source: str | os.PathLike[str] | bytes,
    *,
    verify: bool = True,
    model_id: str | None = None,
    copy: bool = False,
    max_activation_bytes: int = 1 << 30,
    verified: VerifiedFiles | None = None,
) -> Graph:
    """Return the graph of a model file, checked throughout.

    The weights are read-only views of the file, mapped into memory, so that processes
    share them. (Those stored as bfloat16 or quantised become float32 arrays.)

    Parameters
    ----------
    source : path or bytes
        The file, or its content.
    verify : bool
        Whether to compare the SHA-256 of each tensor with the one in the file.
    model_id : str, optional
        The id the model must have, 64 hexadecimal digits as `save` returned them. It
        covers the weights only together with `verify`.
    copy : bool
        Whether to read the file into memory instead of mapping it, for files that
        others may write to: what they change in a mapped file changes in the weights,
        and if they make it shorter the process dies at the next access.
    max_activation_bytes : int
        The most memory that values alive at the same time may take, for one picture,
        together with the weights that become float32.
    verified : VerifiedFiles, optional
        Notes of files that are not hashed again as long as they are as they were.

    Raises
    ------
    ModelFormatError
        If the file is refused; `code` says why.
    """
    status = None
    if isinstance(source, bytes):
        path, buffer = "<bytes>", memoryview(source)
    else:
        path = os.fspath(source)
        buffer, status = _file(path, copy)
    notes = None if copy else verified
    return _graph(buffer, path, verify, model_id, max_activation_bytes, status, notes)


def read_edited(path: str | os.PathLike[str]) -> Graph:
    """Return the graph of a model file that another tool has edited or rewritten.

    The HDF5 library reads it, whatever its layout, chunks and compression, and hashes
    are not compared: only for files whose origin is trusted. The graph is checked as
    `read` does.

    Raises
    ------
    ModelFormatError
        If it cannot be read, or what it holds is not a model.
    """
    import h5py

    name = os.fspath(path)
    try:
        with h5py.File(name, "r") as file:
            description = decode(bytes(np.asarray(file["graph"][()]).item()), name)
            arrays = {
                place: _edited(file[place][()], entry, place, name)
                for place, entry in description.datasets.items()
            }
            items = file["labels"][()].tolist() if description.labels else []
            labels = tuple(item.decode() for item in items)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, ModelFormatError):
            raise
        raise ModelFormatError(str(error), code="object", path=name) from None
    return _built(description, arrays, labels, name)


def _edited(found: Any, entry: TensorEntry, tensor: str, path: str) -> Array:
    """Return a tensor as its entry says; raise `ModelFormatError` if it is not so."""
    dtype = "float32" if entry.dtype == "bfloat16" else entry.dtype
    array = np.asarray(found)
    stored = "uint8" if dtype == "bool" else dtype
    if array.shape != entry.shape or not np.can_cast(array.dtype, stored, "same_kind"):
        raise ModelFormatError(
            f"{tensor} is {array.dtype} {shape_text(array.shape)}, /graph says "
            f"{entry.dtype} {shape_text(entry.shape)}",
            code="tensors",
            path=path,
        )
    return array.astype(dtype)


def save(
    graph: Graph,
    path: str | os.PathLike[str],
    *,
    bfloat16: Collection[str] = (),
    quantised: Mapping[str, Quantisation] | None = None,
    examples: Iterable[Mapping[str, Any]] | None = None,
) -> str:
    """Write a graph as a model file and return its id.

    Equal graphs give equal files. The file appears complete or not at all, even if
    the process is killed; one that is there already is replaced, and those who have it
    open keep the old one. A symbolic link stays and the file it names is replaced.

    Parameters
    ----------
    graph : Graph
        The network; weights that no layer uses are left out.
    path : path
        Where to, by convention ending in ``.h5``.
    bfloat16 : collection of str
        The float32 weights to store in two bytes a number.
    quantised : dict, optional
        The float32 weights to store as whole numbers, and how. They must have been
        rounded before, by `Quantisation.rounded`.
    examples : iterable of dict, optional
        A few inputs, arrays by name, for ``inspect_model --check`` to compare with what
        the network then computes elsewhere. Outputs may be among them; else they are
        those of `Graph.reference` in float64. `graph.examples` by default.

    Raises
    ------
    GraphError
        If the graph cannot be stored, such as one that passes have rewritten.
    DTypeError
        If a weight has another element type than files hold, or would lose digits.
    ModelFormatError
        If the file would break a limit of the format, or cannot be written
        (``code`` is ``"unwritable"``).
    """
    tensors = _stored_weights(graph, bfloat16, quantised or {})
    shown = [
        {name: _Stored.of(name, array) for name, array in example.items()}
        for example in _examples(graph, examples)
    ]
    labels = _label_array(graph.labels)
    text = encode(
        graph,
        {name: tensor.entry for name, tensor in tensors.items()},
        None if labels is None else LabelsEntry(len(labels), _sha256(labels)),
        [{name: t.entry for name, t in example.items()} for example in shown],
    )
    datasets = {f"weights/{name}": tensor for name, tensor in tensors.items()}
    for number, example in enumerate(shown):
        datasets.update({f"examples/{number}/{n}": t for n, t in example.items()})
    image = _hdf5(text, labels, datasets)
    name = os.fspath(path)
    _graph(
        memoryview(image), name, verify=False, model_id=None, max_activation_bytes=None
    )
    _replace(name, image)
    return _sha256(text)


def _graph(
    buffer: memoryview,
    path: str,
    verify: bool,
    model_id: str | None,
    max_activation_bytes: int | None,
    status: os.stat_result | None = None,
    verified: VerifiedFiles | None = None,
) -> Graph:
    """Return the graph in a file; every check is made here, cheap ones first."""
    contents = read_hdf5(buffer, path)
    check = _Check(path)
    check.attributes(contents.attributes)
    check.paths(contents)

    def data(name: str) -> memoryview:
        dataset = contents.datasets[name]
        return buffer[dataset.address : dataset.address + dataset.nbytes]

    text = bytes(data("graph"))
    identity = _sha256(text)
    written = contents.attributes["model_id"].data.decode(errors="replace")
    check.equal("checksum", "SHA-256 of /graph", identity, written)
    if model_id is not None:
        check.equal("checksum", "the model's id", identity, model_id)
    description = decode(text, path)
    check.tensors(contents, description.datasets, description.labels)
    widened = sum(
        4 * math.prod(entry.shape)
        for entry in description.tensors.values()
        if entry.dtype == "bfloat16" or entry.quantisation is not None
    )
    check.budget(widened, max_activation_bytes)
    graph = _built(
        description,
        {
            place: check.view(place, data(place), entry)
            for place, entry in description.datasets.items()
        },
        check.labels(data("labels"), description.labels) if description.labels else (),
        path,
    )
    if max_activation_bytes is not None:
        shapes = [_input_shapes(graph, example) for example in graph.examples]
        with graph_errors(path):
            peak = max(_peak_bytes(graph, s) for s in (graph.default_shapes(), *shapes))
        check.budget(peak + widened, max_activation_bytes)
    if verify and not (verified and status and verified.holds(identity, status)):
        for place, entry in description.datasets.items():
            check.equal(
                "checksum", f"SHA-256 of {place}", _sha256(data(place)), entry.sha256
            )
        if description.labels:
            found, wanted = _sha256(data("labels")), description.labels.sha256
            check.equal("checksum", "SHA-256 of the labels", found, wanted)
        if verified and status:
            verified.add(identity, status)
    graph.model_id = identity
    if isinstance(buffer.obj, MappedFile):
        graph.file = buffer.obj
        graph.file.forget()
    return graph


def _built(
    description: Description,
    arrays: Mapping[str, Array],
    labels: tuple[str, ...],
    path: str,
) -> Graph:
    """Return the graph of a text and the tensors at their places in the file."""
    params = {name: arrays[f"weights/{name}"] for name in description.tensors}
    for name, entry in description.tensors.items():
        if entry.quantisation is not None:
            with graph_errors(path, name, code="tensors"):
                scheme = _scheme(entry.dtype, entry.quantisation, params)
                params[name] = scheme.numbers(params[name])
                params[name].flags.writeable = False
    graph = build(description, params, labels, path)
    graph.examples = [
        {value: arrays[f"examples/{number}/{value}"] for value in example}
        for number, example in enumerate(description.examples)
    ]
    with graph_errors(path):
        for example in graph.examples:
            _check_example(graph, example)
    return graph


def _scheme(
    dtype: str, entry: QuantisationEntry, params: Mapping[str, Array]
) -> Quantisation:
    """Return how a tensor of the file is quantised."""
    scale = params[entry.scale]
    zero = params[entry.zero_point] if entry.zero_point else np.zeros(scale.shape, "i4")
    return Quantisation(dtype, scale, zero, entry.axis)


def _input_shapes(graph: Graph, example: Mapping[str, Array]) -> dict[str, Shape]:
    """Return the shapes that an example runs with."""
    return {entry.name: example[entry.name].shape for entry in graph.inputs}


def _check_example(graph: Graph, example: Mapping[str, Array]) -> None:
    """Raise an error unless the example's tensors can be those of a run."""
    specs = graph.specs(_input_shapes(graph, example))
    dynamic = any(node.op.dynamic for node in graph.nodes)
    for name, array in example.items():
        wanted, found = specs[name], spec_of(array)
        if dynamic and name in graph.outputs and found.rank == wanted.rank:
            sizes = tuple(map(min, found.shape, wanted.shape))
            wanted = Spec(sizes, wanted.dtype)
        if found != wanted:
            raise GraphError(f"example of {name!r}: found {found}, wanted {wanted}")


class _Check:
    """The rules on what a model file consists of."""

    def __init__(self, path: str) -> None:
        self.path = path

    def refusal(self, code: str, message: str) -> ModelFormatError:
        return ModelFormatError(message, code=code, path=self.path)

    def equal(self, code: str, what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            raise self.refusal(code, f"{what} is {found!r}, wanted {wanted!r}")

    def budget(self, nbytes: int, most: int | None) -> None:
        """Refuse the file if it asks for more memory than is allowed."""
        if most is not None and nbytes > most:
            raise self.refusal(
                "budget",
                f"its values take {nbytes} bytes at one time, wanted at most {most}; "
                "raise max_activation_bytes if you trust it",
            )

    def attributes(self, found: Mapping[str, Attribute]) -> None:
        """Refuse the file unless the root attributes are those of a known version."""
        mark = found.get("format")
        if mark is None or mark.dtype.name != "string" or mark.data != FORMAT:
            raise self.refusal("not_striate", "an HDF5 file, but not a striate model")
        version = found.get("format_version")
        if version is None or version.dtype.name != "int32" or version.shape != (2,):
            raise self.refusal("attribute", "format_version is not two int32")
        major, minor = np.frombuffer(version.data, "<i4").tolist()
        if major != FORMAT_VERSION[0] or not 0 <= minor <= FORMAT_VERSION[1]:
            raise self.refusal(
                "version",
                f"format version {major}.{minor}, this striate reads "
                f"{FORMAT_VERSION[0]}.0 to {FORMAT_VERSION[0]}.{FORMAT_VERSION[1]}",
            )
        self.equal("attribute", "the root's attributes", sorted(found), ATTRIBUTES)
        for name, most in ("model_id", 64), ("producer", MAX_PRODUCER_BYTES):
            attribute = found[name]
            if attribute.dtype.name != "string" or attribute.shape:
                raise self.refusal("attribute", f"{name} is not a string")
            if len(attribute.data) > most:
                raise self.refusal("attribute", f"{name} is longer than {most} bytes")

    def paths(self, contents: Contents) -> None:
        """Refuse the file unless each dataset has a place in a model."""
        for path in contents.datasets:
            if not PATH.fullmatch(path):
                raise self.refusal("object", f"{path!r:.80} has no place in a model")
        text = contents.datasets.get("graph")
        if text is None or text.dtype.name != "string" or text.shape:
            raise self.refusal("object", "/graph is not a string")
        if text.nbytes > MAX_TEXT:
            raise self.refusal(
                "limit", f"/graph has {text.nbytes} bytes, wanted up to {MAX_TEXT}"
            )

    def tensors(
        self,
        contents: Contents,
        tensors: Mapping[str, TensorEntry],
        labels: LabelsEntry | None,
    ) -> None:
        """Refuse the file unless it holds exactly the tensors of its graph."""
        wanted = {"graph", *tensors}
        wanted |= {"labels"} if labels else set()
        if contents.datasets.keys() != wanted:
            raise self.refusal(
                "tensors",
                f"datasets {sorted(contents.datasets.keys() ^ wanted)[:5]} are stored "
                "and not in /graph, or in /graph and not stored",
            )
        for name, entry in tensors.items():
            found = contents.datasets[name]
            stored = "uint8" if entry.dtype == "bool" else entry.dtype
            if (found.dtype.name, found.shape) != (stored, entry.shape):
                raise self.refusal(
                    "tensors",
                    f"{name} is {found.dtype.name} {shape_text(found.shape)}, "
                    f"/graph says {entry.dtype} {shape_text(entry.shape)}",
                )
        if labels:
            found = contents.datasets["labels"]
            if found.dtype.name != "string" or found.shape != (labels.count,):
                raise self.refusal("tensors", f"/labels is not {labels.count} strings")
            if found.dtype.size > MAX_LABEL_BYTES:
                raise self.refusal(
                    "limit", f"labels take more than {MAX_LABEL_BYTES} bytes each"
                )

    def view(self, name: str, data: memoryview, entry: TensorEntry) -> Array:
        """Return a tensor's bytes as a read-only array."""
        if entry.dtype == "bool" and np.frombuffer(data, np.uint8).max() > 1:
            raise self.refusal(
                "tensors", f"{name} is bool and holds other bytes than 0 and 1"
            )
        return _view(data, entry)

    def labels(self, data: memoryview, entry: LabelsEntry) -> tuple[str, ...]:
        """Return the class names; each must be printable UTF-8."""
        items = np.frombuffer(data, f"S{len(data) // entry.count}").tolist()
        try:
            labels = tuple(item.decode() for item in items)
        except UnicodeDecodeError as error:
            raise self.refusal("object", f"/labels: {error}") from None
        for label in labels:
            if not LABEL.fullmatch(label):
                raise self.refusal("object", f"label {label!r:.60} is not printable")
        return labels


def _view(data: memoryview, entry: TensorEntry) -> Array:
    """Return a tensor's bytes as a read-only array."""
    if entry.dtype == "bfloat16":
        bits = np.frombuffer(data, "<u2").astype(np.uint32)
        bits <<= 16
        array = bits.view(np.float32).reshape(entry.shape)
        array.flags.writeable = False
        return array
    dtype = np.dtype(entry.dtype).newbyteorder("<")
    return np.frombuffer(data, dtype).reshape(entry.shape)


def _peak_bytes(graph: Graph, shapes: Mapping[str, Shape]) -> int:
    """Return the memory of the values that are alive at the same time, at most."""
    sizes = {name: spec.nbytes for name, spec in graph.specs(shapes).items()}
    last = {value: node.name for node in graph.nodes for value in node.reads}
    alive = peak = sum(sizes[entry.name] for entry in graph.inputs)
    for node in graph.nodes:
        alive += sum(sizes[value] for value in node.outputs)
        peak = max(peak, alive)
        done = {v for v in node.reads if last[v] == node.name}
        done |= {v for v in node.outputs if v not in last}
        alive -= sum(sizes[value] for value in done.difference(graph.outputs))
    return peak


def _file(path: str, copy: bool) -> tuple[memoryview, os.stat_result]:
    """Return the content of a file, mapped or copied, read-only, and its status."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise ModelFormatError(_reason(error), code="not_a_file", path=path) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelFormatError("not a regular file", code="not_a_file", path=path)
        if not status.st_size:
            raise ModelFormatError("the file is empty", code="size", path=path)
        if copy:
            return _content(descriptor, status.st_size), status
        return memoryview(MappedFile(descriptor, status.st_size)), status
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"{path}: {_reason(error)}") from None
        raise ModelFormatError(_reason(error), code="not_a_file", path=path) from None
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    """Return what the system says, without number and path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _content(descriptor: int, size: int) -> memoryview:
    """Return the bytes of a file in memory of its own, aligned as the file is."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    content = memory.data[start : start + size]
    done = 0
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        while count := file.readinto(content[done:]):
            done += count
    return content[:done].toreadonly()


def _sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


class _Stored(NamedTuple):
    """A tensor as the file holds it: its entry and its little-endian elements."""

    entry: TensorEntry
    array: Array

    @classmethod
    def of(cls, name: str, array: Array) -> _Stored:
        """Return a tensor in its own element type."""
        if 0 in array.shape:
            raise GraphError(f"{name!r} of shape {shape_text(array.shape)} is empty")
        if array.dtype.name not in TENSOR_TYPES:
            raise DTypeError(
                f"{name!r} is {array.dtype.name}, wanted one of "
                + ", ".join(TENSOR_TYPES)
            )
        order = array.dtype.newbyteorder("<")
        array = np.asarray(array, order, order="C")
        if array.dtype == np.bool_:
            return cls.typed("bool", array.view(np.uint8))
        return cls.typed(array.dtype.name, array)

    @classmethod
    def bfloat16(cls, name: str, array: Array) -> _Stored:
        """Return the upper halves of float32 numbers whose lower halves are zero."""
        bits = _float32(name, array).view("<u4")
        if (bits & 0xFFFF).any():
            raise DTypeError(f"{name!r} would lose digits as bfloat16")
        return cls.typed("bfloat16", (bits >> 16).astype("<u2"))

    @classmethod
    def quantised(cls, name: str, array: Array, scheme: Quantisation) -> _Stored:
        """Return whole numbers; scale and zero point are stored beside them."""
        integers = scheme.integers(_float32(name, array))
        if scheme.numbers(integers).tobytes() != array.tobytes():
            raise DTypeError(
                f"{name!r} would lose digits as {scheme.dtype}; round it first, by "
                "Quantisation.rounded"
            )
        zero = f"{name}.zero_point" if scheme.zero_point.any() else None
        entry = QuantisationEntry(f"{name}.scale", zero, scheme.axis)
        return cls.typed(scheme.dtype, integers, entry)

    @classmethod
    def typed(
        cls, dtype: str, array: Array, quantisation: QuantisationEntry | None = None
    ) -> _Stored:
        """Return a tensor of a type that files hold."""
        entry = TensorEntry(dtype, array.shape, _sha256(array), quantisation)
        return cls(entry, array)


def _float32(name: str, array: Array) -> Array:
    """Return an array for a type that stores float32 in fewer bytes."""
    if array.dtype != np.float32:
        raise DTypeError(f"{name!r} is {array.dtype.name}, wanted float32")
    return np.ascontiguousarray(array, "<f4").reshape(array.shape)


def _stored_weights(
    graph: Graph, bfloat16: Collection[str], quantised: Mapping[str, Quantisation]
) -> dict[str, _Stored]:
    """Return the weights as the file holds them, scales and zero points after each."""
    used = weights_used(graph)
    unknown = {*bfloat16, *quantised} - set(used)
    if unknown or set(bfloat16) & quantised.keys():
        raise GraphError(
            f"bfloat16 and quantised name {sorted(unknown)}, which no layer uses, or a "
            "weight twice"
        )
    tensors: dict[str, _Stored] = {}
    for name in used:
        array = graph.params[name]
        if name in bfloat16:
            tensors[name] = _Stored.bfloat16(name, array)
        elif name in quantised:
            scheme = quantised[name]
            tensors[name] = _Stored.quantised(name, array, scheme)
            parts = {"scale": scheme.scale, "zero_point": scheme.zero_point}
            for part in parts if scheme.zero_point.any() else ["scale"]:
                tensors[f"{name}.{part}"] = _Stored.of(name, parts[part])
        else:
            tensors[name] = _Stored.of(name, array)
    for name in tensors:
        if not TENSOR.fullmatch(name):
            raise GraphError(f"weight {name!r}: wanted a name like 'layer/operand'")
    taken = set(used) & {f"{name}.{p}" for name in quantised for p in PARTS}
    if taken:
        raise GraphError(f"weights {sorted(taken)} have the names of scales")
    return tensors


def _examples(
    graph: Graph, examples: Iterable[Mapping[str, Any]] | None
) -> list[dict[str, Array]]:
    """Return examples with their inputs and outputs, in the order of the graph's."""
    inputs = {entry.name: entry.dtype for entry in graph.inputs}
    found = []
    for given in graph.examples if examples is None else examples:
        example = {name: np.asarray(array) for name, array in given.items()}
        if not inputs.keys() <= example.keys() <= {*inputs, *graph.outputs}:
            raise GraphError(
                f"an example holds {sorted(example)}, wanted {sorted(inputs)} and "
                f"perhaps {sorted(graph.outputs)}"
            )
        for name, dtype in inputs.items():
            example[name] = example[name].astype(dtype)
        specs = graph.specs(_input_shapes(graph, example))
        if not example.keys() >= set(graph.outputs):
            feeds = {name: _widest(example[name]) for name in inputs}
            example = {**graph.reference(feeds), **example}
        order = dict.fromkeys((*inputs, *graph.outputs))
        example = {name: example[name].astype(specs[name].dtype) for name in order}
        _check_example(graph, example)
        found.append(example)
    if len(found) > MAX_EXAMPLES:
        raise GraphError(f"{len(found)} examples, wanted up to {MAX_EXAMPLES}")
    return found


def _widest(array: Array) -> Array:
    """Return numbers in the precision of the reference."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _label_array(labels: Iterable[str]) -> Array | None:
    """Return the class names as null-padded UTF-8."""
    texts = []
    for label in labels:
        if not isinstance(label, str) or not LABEL.fullmatch(label):
            raise GraphError(f"label {label!r:.60}: wanted printable text")
        texts.append(label.encode())
    return np.array(texts, f"S{max(map(len, texts)) or 1}") if texts else None


def _hdf5(text: bytes, labels: Array | None, datasets: Mapping[str, _Stored]) -> bytes:
    """Return a file of the profile, equal for equal content."""
    from h5py import h5a, h5d, h5f, h5fd, h5g, h5p, h5s, h5t

    version = import_module(__name__.partition(".")[0]).__version__

    def string(size: int) -> Any:
        kind = h5t.C_S1.copy()
        kind.set_size(size)
        kind.set_strpad(h5t.STR_NULLPAD)
        kind.set_cset(h5t.CSET_UTF8)
        return kind

    bfloat16 = h5t.IEEE_F32LE.copy()
    bfloat16.set_fields(15, 7, 8, 0, 7)
    bfloat16.set_size(2)
    bfloat16.set_ebias(127)
    kinds = {
        "float32": h5t.IEEE_F32LE,
        "float16": h5t.IEEE_F16LE,
        "bfloat16": bfloat16,
        "int8": h5t.STD_I8LE,
        "uint8": h5t.STD_U8LE,
        "int32": h5t.STD_I32LE,
        "int64": h5t.STD_I64LE,
        "bool": h5t.STD_U8LE,
    }
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V18)
    access.set_alignment(1, ALIGNMENT)
    image = io.BytesIO()
    access.set_fileobj_driver(h5fd.fileobj_driver, image)
    in_file = h5p.create(h5p.FILE_CREATE)
    in_group = h5p.create(h5p.GROUP_CREATE)
    in_dataset = h5p.create(h5p.DATASET_CREATE)
    in_dataset.set_fill_time(h5d.FILL_TIME_NEVER)
    for properties in in_file, in_group, in_dataset:
        properties.set_obj_track_times(False)
    for properties in in_file, in_group:
        properties.set_link_creation_order(h5p.CRT_ORDER_TRACKED)

    def space(array: Array) -> Any:
        shape = array.shape
        return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)

    def attribute(group: Any, name: bytes, kind: Any, array: Array) -> None:
        h5a.create(group, name, kind, space(array)).write(array, kind)

    def dataset(group: Any, name: bytes, kind: Any, array: Array) -> None:
        created = h5d.create(group, name, kind, space(array), in_dataset)
        created.write(h5s.ALL, h5s.ALL, array, kind)

    file = h5f.create(b"model", h5f.ACC_TRUNC, in_file, access)
    root = h5g.open(file, b"/")
    for key, value in (
        (b"format", FORMAT),
        (b"model_id", _sha256(text).encode()),
        (b"producer", f"striate {version}".encode()),
    ):
        attribute(root, key, string(len(value)), np.array(value))
    number = np.array(FORMAT_VERSION, "<i4")
    attribute(root, b"format_version", h5t.STD_I32LE, number)
    dataset(root, b"graph", string(len(text)), np.array(text))
    if labels is not None:
        dataset(root, b"labels", string(labels.itemsize), labels)
    groups: dict[str, Any] = {"": root}

    def group(path: str) -> Any:
        if path not in groups:
            above, _, name = path.rpartition("/")
            groups[path] = h5g.create(group(above), name.encode(), gcpl=in_group)
        return groups[path]

    for place, tensor in datasets.items():
        above, _, name = place.rpartition("/")
        dataset(group(above), name.encode(), kinds[tensor.entry.dtype], tensor.array)
    groups.clear()
    del root
    file.close()
    return image.getvalue()


def _replace(name: str, content: bytes) -> None:
    """Put a file in place of another in one step.

    Raises
    ------
    ModelFormatError
        If that cannot be done; then nothing has changed.
    """
    try:
        target = Path(os.path.realpath(name))
        if target.exists() and not target.is_file():
            raise OSError("it exists and is not a regular file")
        with suppress(OSError):
            _remove_leftovers(target)
        with _temporary(target) as (file, path):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            path.replace(target)
        with suppress(OSError), _opened(target.parent) as descriptor:
            os.fsync(descriptor)
    except (OSError, ValueError) as error:
        raise ModelFormatError(
            f"cannot be written: {_reason(error)}", code="unwritable", path=name
        ) from error


@contextmanager
def _temporary(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Yield a new file beside `target`, locked, and its path.

    The file is gone afterwards unless it was moved.
    """
    while True:
        path = target.with_name(f".{target.name}.{os.urandom(8).hex()}.tmp")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            try:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                # Another writer may have removed it before it was locked.
                if os.fstat(descriptor).st_nlink:
                    yield file, path
                    return
            finally:
                path.unlink(missing_ok=True)


def _remove_leftovers(target: Path) -> None:
    """Delete what writers of `target` left behind when they died.

    A writer holds a lock on its temporary file as long as it lives.
    """
    leftover = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp")
    for path in target.parent.iterdir():
        if leftover.fullmatch(path.name):
            with suppress(OSError), _opened(path) as descriptor:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
