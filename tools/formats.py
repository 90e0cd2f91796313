"""Which formats of other frameworks there are, and which of them a file has.

A file is recognised by its content, whatever its name. Everything about a format that
takes time to import is named here by its import path, ``module:attribute``, and
imported when it is needed.

Other packages add formats through the entry point group ``striate.importers``; each
entry point is a `Format`. They are asked about what striate does not know itself.
"""

from __future__ import annotations

import argparse
import mmap
import os
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from striate.errors import ModelFormatError, SettingError

GROUP = "striate.importers"
"""The entry point group of formats that other packages add."""

HEAD = 1 << 16
"""Bytes from a file's start that recognisers are given."""

HDF5 = b"\x89HDF\r\n\x1a\n"

LONGEST_HEADER = 100_000_000
"""The most bytes of names and shapes in a safetensors file, as its readers allow."""

MOST_FIELDS = 1 << 17
"""Fields of an outermost protobuf message that are looked at."""

Recogniser = Callable[[Path, bytes], bool]


@dataclass(frozen=True)
class Format:
    """A format that can be converted.

    Parameters
    ----------
    name : str
        What options and error messages call it.
    title : str
        What people call it.
    endings : tuple of str
        How names of such files usually end.
    recognise : callable
        Returns whether a file, given by its path and its first `HEAD` bytes, is one.
    convert : callable or str
        Returns the `striate.Graph`, or where that function is: ``module:attribute``.
        It takes the source and keywords, of which `io` and `progress` are always
        given.
    oracle : callable or str, optional
        Takes the source and the graph and returns a `striate.tools.oracles.Oracle`.
    operators : callable or str, optional
        Returns the names of the operators that can be converted.
    """

    name: str
    title: str
    endings: tuple[str, ...]
    recognise: Recogniser
    convert: Callable[..., Any] | str
    oracle: Callable[..., Any] | str | None = None
    operators: Callable[[], Sequence[str]] | str | None = None


def resolved(reference: Callable[..., Any] | str) -> Callable[..., Any]:
    """Return the function that an import path names."""
    if not isinstance(reference, str):
        return reference
    module, _, attribute = reference.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found


def _onnx(path: Path, head: bytes) -> bool:
    fields = _fields(path, head)
    return fields.get(7) == 2 and fields.get(1) == 0


def _pt2(path: Path, head: bytes) -> bool:
    return any(
        name.endswith(("models/model.json", "serialized_exported_program.json"))
        for name in _members(path, head)
    )


def _keras(path: Path, head: bytes) -> bool:
    if head.startswith(HDF5):
        return _holds(path, b"model_config") and not _striate(path, head)
    members = _members(path, head)
    return "config.json" in members and "metadata.json" in members


def _tflite(path: Path, head: bytes) -> bool:
    return head[4:8] == b"TFL3"


def _weights(path: Path, head: bytes) -> bool:
    return _safetensors(path, head) or _pickled_weights(path, head)


def _safetensors(path: Path, head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and length <= min(LONGEST_HEADER, path.stat().st_size - 8)


def _pickled_weights(path: Path, head: bytes) -> bool:
    members = _members(path, head)
    pickled = any(name.endswith("/data.pkl") for name in members)
    legacy = (
        head[:2] == b"\x80\x02" and b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8" in head[:16]
    )
    return legacy or (pickled and not _torchscript(path, head))


def _darknet(path: Path, head: bytes) -> bool:
    lines = (line.strip() for line in _text(head).splitlines())
    first = next((line for line in lines if line and line[0] not in "#;"), "")
    return first in ("[net]", "[network]")


def _caffe(path: Path, head: bytes) -> bool:
    described = re.search(r"^\s*layers?\s*\{", _text(head), re.MULTILINE)
    return bool(described) or _caffe_weights(path, head)


FORMATS = (
    Format(
        "onnx",
        "ONNX",
        (".onnx",),
        _onnx,
        "striate.tools.from_onnx.importer:from_onnx",
        "striate.tools.oracles.onnxruntime:oracle",
        "striate.tools.from_onnx.importer:operators",
    ),
    Format(
        "torch",
        "PyTorch program",
        (".pt2",),
        _pt2,
        "striate.tools.from_torch:from_torch",
        "striate.tools.oracles.torch:oracle",
        "striate.tools.from_torch:operators",
    ),
    Format(
        "weights",
        "weights alone",
        (".safetensors", ".pth", ".pt", ".bin"),
        _weights,
        "striate.tools.from_weights:from_weights",
        None,
        "striate.tools.from_weights:operators",
    ),
    Format(
        "keras",
        "Keras",
        (".keras", ".h5"),
        _keras,
        "striate.tools.from_keras:from_keras",
        "striate.tools.oracles.keras:oracle",
        "striate.tools.from_keras:operators",
    ),
    Format(
        "tflite",
        "TensorFlow Lite",
        (".tflite",),
        _tflite,
        "striate.tools.from_tflite:from_tflite",
        "striate.tools.oracles.litert:oracle",
        "striate.tools.from_tflite:operators",
    ),
    Format(
        "darknet",
        "Darknet",
        (".cfg",),
        _darknet,
        "striate.tools.from_darknet:from_darknet",
        "striate.tools.oracles.opencv:oracle",
        "striate.tools.from_darknet:operators",
    ),
    Format(
        "caffe",
        "Caffe",
        (".prototxt", ".caffemodel"),
        _caffe,
        "striate.tools.from_caffe:from_caffe",
        "striate.tools.oracles.opencv:oracle",
        "striate.tools.from_caffe:operators",
    ),
)
"""What striate itself converts."""


def formats() -> dict[str, Format]:
    """Return the formats by name, those of other packages included.

    Raises
    ------
    SettingError
        If another package's entry point is no `Format`, or its name is taken.
    """
    found = {entry.name: entry for entry in FORMATS}
    for entry in entry_points(group=GROUP):
        try:
            added = entry.load()
        except Exception as error:
            raise SettingError(
                f"the importer {entry.value} of another package cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(added, Format):
            raise SettingError(f"the importer {entry.value} is no Format")
        if added.name in found:
            raise SettingError(
                f"the importer {entry.value}: the name {added.name!r} is taken"
            )
        found[added.name] = added
    return found


def named(name: str) -> Format:
    """Return the format of that name.

    Raises
    ------
    SettingError
        If there is none.
    """
    built_in = {entry.name: entry for entry in FORMATS}
    if name in built_in:
        return built_in[name]
    known = formats()
    if name not in known:
        raise SettingError(f"format {name!r}: wanted one of {', '.join(known)}")
    return known[name]


def recognised(source: str | os.PathLike[str]) -> Format:
    """Return the format that a file has by its content.

    Where that tells nothing its ending does, for its door to say what is wrong.

    Raises
    ------
    ModelFormatError
        If it has none, or more than one; the message says what it is if that is known,
        and what can be done.
    """
    path = Path(source)
    head = head_of(path)
    fitting = [entry for entry in FORMATS if entry.recognise(path, head)]
    if not fitting:
        others = list(formats().values())[len(FORMATS) :]
        fitting = [entry for entry in others if entry.recognise(path, head)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(entry.name for entry in fitting)
        raise _refused(path, f"could be {names}: say which with --from", "ambiguous")
    for recognise, what in FOREIGN:
        if recognise(path, head):
            raise _refused(path, f"found {what}", "unknown_format")
    ending = [e for e in formats().values() if path.suffix.lower() in e.endings]
    if len(ending) == 1:
        return ending[0]
    known = ", ".join(
        f"{entry.title} ({', '.join(entry.endings)})" for entry in formats().values()
    )
    raise _refused(path, f"the format is not known; wanted {known}", "unknown_format")


def is_striate(source: str | os.PathLike[str]) -> bool:
    """Return whether a file is a model file, perhaps an edited one."""
    path = Path(source)
    return path.is_file() and _striate(path, head_of(path))


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file.

    Raises
    ------
    ModelFormatError
        If there is no such file.
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            raise _refused(path, f"found {SAVED_MODEL}", "unknown_format")
        raise _refused(path, "found a folder, wanted a file", "not_a_file")
    if not path.exists():
        raise _refused(path, "no such file", "not_a_file")
    if not path.is_file():
        raise _refused(path, "found no regular file", "not_a_file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise _refused(path, f"cannot read: {error.strerror}", "not_a_file") from None
    if not head:
        raise _refused(path, "the file is empty", "not_a_file")
    return head


def _refused(path: Path, message: str, code: str) -> ModelFormatError:
    return ModelFormatError(message, code=code, path=str(path))


def _members(path: Path, head: bytes) -> frozenset[str]:
    """Return the names in a ZIP archive; none if it is no archive."""
    if not head.startswith(b"PK\x03\x04"):
        return frozenset()
    status = path.stat()
    return _names(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _names(path: str, size: int, modified: int) -> frozenset[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return frozenset()


def _holds(path: Path, text: bytes) -> bool:
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return content.find(text) >= 0


def _striate(path: Path, head: bytes) -> bool:
    return (
        head.startswith(HDF5)
        and _holds(path, b"format_version")
        and _holds(path, b"model_id")
    )


def _text(head: bytes) -> str:
    """Return text; nothing if the bytes are none."""
    return "" if b"\0" in head else head.decode("utf-8", "replace").lstrip("\ufeff")


def _fields(path: Path, head: bytes) -> dict[int, int]:
    """Return the wire type of each field of a protobuf file's outermost message.

    Nothing if the file is no such message to its end. Only the beginning of each field
    is looked at.
    """
    if head[0] not in b"\x08\x0a\x12\x1a\x22\x3a\x42":
        return {}
    found: dict[int, int] = {}
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        try:
            position = 0
            for _ in range(MOST_FIELDS):
                key, position = _varint(content, position)
                kind = key & 7
                if not key >> 3 or found.setdefault(key >> 3, kind) != kind:
                    return {}
                if kind in (0, 2):
                    value, position = _varint(content, position)
                position += {0: 0, 1: 8, 5: 4}[kind] if kind != 2 else value
                if position >= len(content):
                    return found if position == len(content) else {}
        except LookupError:
            return {}
    return {}


def _varint(content: mmap.mmap, position: int) -> tuple[int, int]:
    """Return a number and where it ends; `LookupError` if it does not."""
    value = 0
    for index in range(10):
        byte = content[position + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    raise LookupError


def _torchscript(path: Path, head: bytes) -> bool:
    return any("/code/" in name for name in _members(path, head))


def _frozen(path: Path, head: bytes) -> bool:
    fields = _fields(path, head)
    return fields.get(1) == 2 and fields.keys() <= {1, 2, 3, 4, 5} and 100 not in fields


def _caffe_weights(path: Path, head: bytes) -> bool:
    fields = _fields(path, head)
    return fields.get(1) == 2 and (fields.get(100) == 2 or fields.get(2) == 2)


def _darknet_weights(path: Path, head: bytes) -> bool:
    major, minor = (int.from_bytes(head[i : i + 4], "little") for i in (0, 4))
    return path.suffix == ".weights" and major == 0 and minor < 10


SAVED_MODEL = (
    "a TensorFlow SavedModel; in the program that has it: model.save('model.keras'), "
    "or convert it to .tflite, and give that"
)

FOREIGN: tuple[tuple[Recogniser, str], ...] = (
    (
        lambda path, head: head.startswith(b"version https://git-lfs"),
        "a Git LFS pointer in place of the file: git lfs pull fetches it",
    ),
    (
        lambda path, head: (
            _text(head[:256]).lstrip().lower().startswith(("<!doctype html", "<html"))
        ),
        "a web page, perhaps in place of the file that was to be downloaded",
    ),
    (
        _torchscript,
        "TorchScript; in the program that has the module: torch.export.save("
        "torch.export.export(module.eval(), (example,)), 'model.pt2'), and give that",
    ),
    (
        _darknet_weights,
        "the weights of a Darknet network: give its .cfg, and this with --weights",
    ),
    (_frozen, f"a TensorFlow graph, or {SAVED_MODEL}"),
    (
        lambda path, head: head.startswith(HDF5) and _holds(path, b"layer_names"),
        "a Keras file of weights without the network: model.save('model.keras') "
        "writes both",
    ),
    (
        lambda path, head: head.startswith(HDF5),
        "an HDF5 file that is neither a Keras model nor a model file of striate",
    ),
    (
        lambda path, head: head[0] == 0x80 and 2 <= head[1] <= 5,
        "a pickle, which can run any program and is never opened; torch.save("
        "module.state_dict(), 'model.pth') writes weights alone",
    ),
    (
        lambda path, head: _text(head).startswith("7767517"),
        "an ncnn network; give the file it was made from",
    ),
    (
        lambda path, head: "<net " in _text(head[:512]),
        "an OpenVINO network; give the file it was made from",
    ),
    (
        lambda path, head: bool(_members(path, head)),
        "an archive that holds no model striate knows; unpack it, and give the model",
    ),
)
"""Files that people mistake for what can be converted, and what to do about them."""


def operators(entry: Format) -> list[str]:
    """Return the operators of a format that can be converted."""
    return list(resolved(entry.operators)()) if entry.operators else []


def operators_table() -> str:
    """Return a Markdown table of the operators that each format converts."""
    rows = ["| format | operators | |", "|---|---|---|"]
    for entry in FORMATS:
        names = operators(entry)
        listed = ", ".join(f"`{name}`" for name in names)
        rows.append(f"| {entry.title} | {len(names)} | {listed} |")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what can be converted."""
    parser = argparse.ArgumentParser(
        prog="python -m striate.tools.formats", description=main.__doc__
    )
    parser.add_argument(
        "--operators", action="store_true", help="a Markdown table of all operators"
    )
    options = parser.parse_args(argv)
    if options.operators:
        sys.stdout.write(operators_table() + "\n")
        return 0
    for entry in formats().values():
        endings = " ".join(entry.endings)
        sys.stdout.write(f"{entry.name:<10} {entry.title:<18} {endings}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
