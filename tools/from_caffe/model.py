"""Caffe's files as plain values: layers with their settings and weights.

The network comes as text, its weights as a binary file of the same message, in which
layers have numbers too and are looked up by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from striate.errors import ModelFormatError
from striate.spec import Array
from striate.tools.from_caffe.schema import (
    CHOICES,
    FORKED,
    MESSAGES,
    NAMES,
    OLD_NAMES,
    Field,
)
from striate.tools.from_caffe.text import Message, parse
from striate.tools.protobuf_wire import fields, signed, varints

LARGEST_TEXT = 1 << 24
"""The most bytes that a network written as text may have."""

MOST = 1 << 40
"""The largest whole number that is read."""

WHOLE = re.compile(r"[-+]?\d{1,12}", re.ASCII)

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)

TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}

Fields = dict[str, Any]
"""The fields of a message by name; of repeated ones a list."""


@dataclass(frozen=True)
class CaffeLayer:
    """A layer.

    Parameters
    ----------
    name, type : str
        As the file has them; the type as today's layers are called.
    bottoms, tops : tuple of str
        Names of what it reads and computes.
    settings : dict
        Messages by name: ``settings["convolution_param"]["pad"]``.
    blobs : tuple of Array
        Its weights.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    blobs: tuple[Array, ...] = ()


@dataclass(frozen=True)
class CaffeNet:
    """A network.

    Parameters
    ----------
    name : str
        What the file calls it.
    inputs : dict
        Shapes of the inputs that are no layers, by name.
    layers : tuple of CaffeLayer
        Those that a trained network runs, in the file's order.
    """

    name: str
    inputs: Mapping[str, tuple[int, ...]]
    layers: tuple[CaffeLayer, ...]

    def with_weights(self, other: CaffeNet) -> CaffeNet:
        """Return the network with the weights of layers of the same name."""
        known = {layer.name: layer.blobs for layer in other.layers if layer.blobs}
        layers = [
            replace(layer, blobs=known.get(layer.name, layer.blobs))
            for layer in self.layers
        ]
        return replace(self, layers=tuple(layers))


def is_text(path: Path) -> bool:
    """Return whether a file begins as text does."""
    with path.open("rb") as file:
        head = file.read(1 << 12)
    return b"\0" not in head and not any(byte < 9 for byte in head)


def read_text(path: Path) -> CaffeNet:
    """Return the network that a text file describes.

    Raises
    ------
    ModelFormatError
        If it is no such text.
    """
    size = path.stat().st_size
    if size > LARGEST_TEXT:
        raise refused(path, f"{size} bytes, wanted a text of at most {LARGEST_TEXT}")
    try:
        message = parse(path.read_bytes().decode("utf-8", "replace"))
        return _net(_typed(message, "net"))
    except ValueError as error:
        raise refused(path, f"not a Caffe network: {error}") from None


def read_binary(path: Path, everything: bool = False) -> CaffeNet:
    """Return the network of a binary file; `everything`, or only names and weights.

    Raises
    ------
    ModelFormatError
        If it is no whole file of that kind.
    """
    data = memoryview(path.read_bytes())
    try:
        net = _decoded(data, "net")
        if everything:
            return _net(net)
        return CaffeNet("", {}, tuple(map(_layer, _all_layers(net))))
    except ValueError as error:
        raise refused(path, f"not a whole Caffe file: {error}") from None


def refused(path: Path, message: str, code: str = "not_caffe") -> ModelFormatError:
    """Return the refusal of a file."""
    return ModelFormatError(message, code=code, path=str(path))


def _typed(message: Message, kind: str) -> Fields:
    """Return the fields of a message of text as its schema says."""
    known = NAMES.get(kind, {})
    found: Fields = {}
    for name, values in message.items():
        entry = known.get(name)
        if entry is None:
            read = [_guessed(value) for value in values]
            found[name] = read if len(read) > 1 else read[0]
            continue
        read = [_value(value, entry) for value in values]
        found[name] = read if entry.repeated else read[-1]
    return found


def _guessed(value: Any) -> Any:
    """Return a value of which nothing is known."""
    if isinstance(value, dict):
        return _typed(value, "")
    if value in ("true", "false"):
        return value == "true"
    if WHOLE.fullmatch(value):
        return int(value)
    return float(value) if NUMBER.fullmatch(value) else value


def _value(value: Any, entry: Field) -> Any:
    """Return a value of text, or a message of text, of a known field."""
    if entry.kind in NAMES or entry.kind == "blob":
        if not isinstance(value, dict):
            raise ValueError(f"{entry.name} {value[:40]!r}, wanted a message")
        return _typed(value, entry.kind)
    if isinstance(value, dict):
        raise ValueError(f"{entry.name} is a message, wanted a value")
    try:
        return _scalar(value, entry.kind)
    except (ValueError, LookupError):
        raise ValueError(f"{entry.name}: {value[:40]}, wanted {entry.kind}") from None


def _scalar(value: str, kind: str) -> Any:
    if kind == "text":
        return value
    if kind == "bool":
        return TRUTH[value]
    if kind == "float":
        return float(value.rstrip("fF") if value[-1:] in "fF" else value)
    if kind == "int":
        return _bounded(int(value, 0))
    if kind == "old_type":
        return OLD_NAMES.get(value.replace("_", "").upper(), value)
    numbers = CHOICES[kind]
    return numbers.get(int(value), value) if value.isdigit() else value


def _bounded(number: int) -> int:
    if abs(number) > MOST:
        raise ValueError(f"a number of {number.bit_length()} bits")
    return number


def _decoded(data: memoryview, kind: str) -> Fields:
    """Return the fields of a binary message that its schema has."""
    known = MESSAGES[kind]
    contents = list(fields(data))
    type_name = ""
    if kind == "layer":
        type_name = next((_string(c) for n, c in contents if n == 2), "")
    found: Fields = {}
    for number, content in contents:
        entry = known.get(number)
        forked = FORKED.get((type_name, number)) if kind == "layer" else None
        if forked:
            entry = Field(number, forked, forked, False)
        if entry is None:
            continue
        values = _contents(content, entry.kind)
        if entry.repeated:
            found.setdefault(entry.name, []).extend(values)
        else:
            found[entry.name] = values[-1] if values else None
    return found


def _contents(content: int | memoryview, kind: str) -> Sequence[Any]:
    """Return the values of a field, several if they are packed."""
    if kind == "blob":
        return [content]
    if kind in MESSAGES:
        return [_decoded(_bytes(content), kind)]
    if kind == "text":
        return [_string(content)]
    if kind == "float":
        data = _bytes(content)
        if len(data) % 4:
            raise ValueError(f"{len(data)} bytes of float numbers")
        return [float(str(n)) for n in np.frombuffer(data, "<f4")]
    numbers = [content] if isinstance(content, int) else varints(content)
    whole = [_bounded(signed(number)) for number in numbers]
    if kind == "bool":
        return [bool(number) for number in whole]
    if kind == "int":
        return whole
    return [CHOICES[kind].get(number, str(number)) for number in whole]


def _bytes(content: int | memoryview) -> memoryview:
    if isinstance(content, int):
        raise ValueError("a number where bytes were expected")
    return content


def _string(content: int | memoryview) -> str:
    return bytes(_bytes(content)).decode("utf-8", "replace")


def _net(net: Fields) -> CaffeNet:
    layers = [layer for layer in _all_layers(net) if _runs(layer)]
    if not layers:
        raise ValueError("found no layers in it")
    names = net.get("input", [])
    shapes = [tuple(shape.get("dim", ())) for shape in net.get("input_shape", [])]
    sizes = net.get("input_dim", [])
    shapes = shapes or [tuple(sizes[i : i + 4]) for i in range(0, len(sizes), 4)]
    if len(shapes) != len(names):
        raise ValueError(f"{len(shapes)} shapes for {len(names)} inputs")
    return CaffeNet(
        net.get("name", ""),
        dict(zip(names, shapes, strict=True)),
        tuple(map(_layer, layers)),
    )


def _all_layers(net: Fields) -> list[Fields]:
    old, new = net.get("layers", []), net.get("layer", [])
    if old and new:
        raise ValueError("it has layers of the old and of the new kind")
    if any("layer" in layer for layer in old):
        raise ValueError(
            "its layers are of the oldest kind; Caffe's upgrade_net_proto_text and "
            "upgrade_net_proto_binary make new ones of them"
        )
    return [*old, *new]


def _layer(layer: Fields) -> CaffeLayer:
    blobs = [b for b in layer.get("blobs", []) if isinstance(b, memoryview)]
    name = layer.get("name") or ""
    return CaffeLayer(
        name,
        layer.get("type") or "",
        tuple(layer.get("bottom", ())),
        tuple(layer.get("top", ())),
        {key: value for key, value in layer.items() if key.endswith("_param")},
        tuple(_blob(blob, name) for blob in blobs),
    )


def _runs(layer: Fields) -> bool:
    """Return whether a layer is in the network when it does not learn."""
    include, exclude = layer.get("include", []), layer.get("exclude", [])
    if include:
        return any(map(_meets, include))
    return not any(map(_meets, exclude))


def _meets(rule: Fields) -> bool:
    return (
        rule.get("phase", "TEST") == "TEST"
        and rule.get("min_level", 0) <= 0 <= rule.get("max_level", 0)
        and not rule.get("stage")
    )


def _blob(data: memoryview, layer: str) -> Array:
    """Return the weights of a blob; doubles become float32."""
    sizes = {1: 0, 2: 0, 3: 0, 4: 0}
    shape: list[int] | None = None
    parts: dict[int, list[memoryview]] = {5: [], 8: []}
    for number, content in fields(data):
        if number in sizes and isinstance(content, int):
            sizes[number] = _bounded(signed(content))
        elif number == 7:
            shape = _decoded(_bytes(content), "shape").get("dim", [])
        elif number in parts:
            parts[number].append(_bytes(content))
        elif number == 12:
            raise ValueError(f"layer {layer!r}: weights of half precision")
    wanted = tuple(sizes.values()) if shape is None else tuple(shape)
    number, kind = (8, "<f8") if parts[8] else (5, "<f4")
    pieces = parts[number]
    content = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
    width = int(kind[-1])
    count = math.prod(wanted)
    if min(wanted, default=1) < 0 or count * width != len(content):
        raise ValueError(
            f"layer {layer!r}: found {len(content)} bytes of weights for the shape "
            f"{wanted}, wanted {count * width}"
        )
    array = np.frombuffer(content, kind).reshape(wanted)
    return array.astype(np.float32) if kind == "<f8" else array
