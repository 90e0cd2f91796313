"""Models as files: one HDF5 file holds a network, its weights and its labels.

Reading never involves the HDF5 library; `striate.hdf5_reader` says why. Writing does.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import mmap
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import DTypeError, GraphError, ModelFormatError
from .graph import Graph
from .graph_json import (
    MAX_TEXT,
    TENSOR,
    TENSOR_TYPES,
    LabelsEntry,
    TensorEntry,
    build,
    decode,
    encode,
    graph_errors,
    weights_used,
)
from .hdf5_reader import ALIGNMENT, Attribute, Contents, read_hdf5
from .spec import Array, shape_text

FORMAT = b"striate"
FORMAT_VERSION = (1, 0)
MAX_LABEL_BYTES = 1024
MAX_PRODUCER_BYTES = 128
ATTRIBUTES = ["format", "format_version", "model_id", "producer"]
PATH = re.compile(rf"graph|labels|weights/{TENSOR.pattern}")
LABEL = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")


def read(
    source: str | os.PathLike[str] | bytes,
    *,
    verify: bool = True,
    model_id: str | None = None,
    copy: bool = False,
    max_activation_bytes: int = 1 << 30,
) -> Graph:
    """Return the graph of a model file, checked throughout.

    The weights are read-only views of the file, mapped into memory, so that processes
    share them. (Those stored as bfloat16 are widened to float32, which is exact.)

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
        The most memory that values alive at the same time may take, for one picture.

    Raises
    ------
    ModelFormatError
        If the file is refused; `code` says why.
    """
    if isinstance(source, bytes):
        path, buffer = "<bytes>", memoryview(source)
    else:
        path = os.fspath(source)
        buffer = _file(path, copy)
    return _graph(buffer, path, verify, model_id, max_activation_bytes)


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
                tensor: _edited(file[f"weights/{tensor}"][()], entry, tensor, name)
                for tensor, entry in description.tensors.items()
            }
            items = file["labels"][()].tolist() if description.labels else []
            labels = tuple(item.decode() for item in items)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, ModelFormatError):
            raise
        raise ModelFormatError(str(error), code="object", path=name) from None
    return build(description, arrays, labels, name)


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
    graph: Graph, path: str | os.PathLike[str], *, bfloat16: Collection[str] = ()
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
    tensors = {
        name: _stored(name, graph.params[name], name in bfloat16)
        for name in weights_used(graph)
    }
    unknown = set(bfloat16) - tensors.keys()
    if unknown:
        raise GraphError(f"bfloat16 names {sorted(unknown)}, which no layer uses")
    labels = _label_array(graph.labels)
    text = encode(
        graph,
        {
            name: TensorEntry(dtype, array.shape, _sha256(array))
            for name, (dtype, array) in tensors.items()
        },
        None if labels is None else LabelsEntry(len(labels), _sha256(labels)),
    )
    image = _hdf5(text, labels, tensors)
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
    check.tensors(contents, description.tensors, description.labels)
    graph = build(
        description,
        {
            name: check.view(name, data(f"weights/{name}"), entry)
            for name, entry in description.tensors.items()
        },
        check.labels(data("labels"), description.labels) if description.labels else (),
        path,
    )
    if max_activation_bytes is not None:
        with graph_errors(path):
            peak = _peak_bytes(graph)
        if peak > max_activation_bytes:
            raise check.refusal(
                "budget",
                f"its values take {peak} bytes at one time, wanted at most "
                f"{max_activation_bytes}; raise max_activation_bytes if you trust it",
            )
    if verify:
        for name, entry in description.tensors.items():
            check.equal(
                "checksum",
                f"SHA-256 of {name}",
                _sha256(data(f"weights/{name}")),
                entry.sha256,
            )
        if description.labels:
            found, wanted = _sha256(data("labels")), description.labels.sha256
            check.equal("checksum", "SHA-256 of the labels", found, wanted)
    graph.model_id = identity
    return graph


class _Check:
    """The rules on what a model file consists of."""

    def __init__(self, path: str) -> None:
        self.path = path

    def refusal(self, code: str, message: str) -> ModelFormatError:
        return ModelFormatError(message, code=code, path=self.path)

    def equal(self, code: str, what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            raise self.refusal(code, f"{what} is {found!r}, wanted {wanted!r}")

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
        wanted = {"graph", *(f"weights/{name}" for name in tensors)}
        wanted |= {"labels"} if labels else set()
        if contents.datasets.keys() != wanted:
            raise self.refusal(
                "tensors",
                f"datasets {sorted(contents.datasets.keys() ^ wanted)[:5]} are stored "
                "and not in /graph, or in /graph and not stored",
            )
        for name, entry in tensors.items():
            found = contents.datasets[f"weights/{name}"]
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
        halves = np.frombuffer(data, "<u2").astype(np.uint32)
        array = (halves << 16).view(np.float32).reshape(entry.shape)
        array.flags.writeable = False
        return array
    dtype = np.dtype(entry.dtype).newbyteorder("<")
    return np.frombuffer(data, dtype).reshape(entry.shape)


def _peak_bytes(graph: Graph) -> int:
    """Return the memory of the values that are alive at the same time, at most."""
    sizes = {name: spec.nbytes for name, spec in graph.specs().items()}
    last = {value: node.name for node in graph.nodes for value in node.reads}
    alive = peak = sum(sizes[entry.name] for entry in graph.inputs)
    for node in graph.nodes:
        alive += sum(sizes[value] for value in node.outputs)
        peak = max(peak, alive)
        done = {v for v in node.reads if last[v] == node.name}
        done |= {v for v in node.outputs if v not in last}
        alive -= sum(sizes[value] for value in done.difference(graph.outputs))
    return peak


def _file(path: str, copy: bool) -> memoryview:
    """Return the content of a file, mapped or copied, read-only."""
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
            return _content(descriptor, status.st_size)
        return memoryview(mmap.mmap(descriptor, status.st_size, prot=mmap.PROT_READ))
    except (OSError, MemoryError) as error:
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


def _stored(name: str, array: Array, narrow: bool) -> tuple[str, Array]:
    """Return a weight's element type in the file and its little-endian elements."""
    if not TENSOR.fullmatch(name):
        raise GraphError(f"weight {name!r}: wanted a name like 'layer/operand'")
    if 0 in array.shape:
        raise GraphError(f"weight {name!r} of shape {shape_text(array.shape)} is empty")
    if array.dtype.name not in TENSOR_TYPES:
        raise DTypeError(
            f"weight {name!r} is {array.dtype.name}, wanted one of "
            + ", ".join(TENSOR_TYPES)
        )
    order = array.dtype.newbyteorder("<")
    array = np.asarray(array, order, order="C")
    if array.dtype == np.bool_ and not narrow:
        return "bool", array.view(np.uint8)
    if not narrow:
        return array.dtype.name, array
    if array.dtype != np.float32:
        raise DTypeError(f"weight {name!r} is {array.dtype.name}, wanted float32")
    bits = array.view("<u4")
    if (bits & 0xFFFF).any():
        raise DTypeError(f"weight {name!r} would lose digits as bfloat16")
    return "bfloat16", (bits >> 16).astype("<u2")


def _label_array(labels: Iterable[str]) -> Array | None:
    """Return the class names as null-padded UTF-8."""
    texts = []
    for label in labels:
        if not isinstance(label, str) or not LABEL.fullmatch(label):
            raise GraphError(f"label {label!r:.60}: wanted printable text")
        texts.append(label.encode())
    return np.array(texts, f"S{max(map(len, texts)) or 1}") if texts else None


def _hdf5(
    text: bytes, labels: Array | None, tensors: Mapping[str, tuple[str, Array]]
) -> bytes:
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
    groups: dict[str, Any] = {}
    if tensors:
        groups[""] = h5g.create(root, b"weights", gcpl=in_group)
    for name, (dtype, array) in tensors.items():
        layer, operand = name.split("/")
        if layer not in groups:
            groups[layer] = h5g.create(groups[""], layer.encode(), gcpl=in_group)
        dataset(groups[layer], operand.encode(), kinds[dtype], array)
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
        path = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
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
