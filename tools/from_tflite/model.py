"""TensorFlow Lite files as plain values: tensors and operators."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from striate.errors import ModelFormatError, UnsupportedModelError
from striate.spec import Array
from striate.tools.from_tflite.flatbuffer import Flatbuffer, Table
from striate.tools.from_tflite.schema import OPERATORS, RANGES, SETTINGS, TYPES

HIGHEST_RANK = 8

LARGEST_LABELS = 1 << 20
"""The most bytes of a file of labels."""


@dataclass(frozen=True)
class Quantization:
    """How whole numbers stand for real ones: ``(q - zero) scale``.

    Parameters
    ----------
    scale, zero : Array
        One number, or one for each position along `axis`.
    axis : int
        An axis of the tensor.
    """

    scale: Array
    zero: Array
    axis: int

    def real(self, array: Array) -> Array:
        """Return the real numbers that an array stands for."""
        shape = [1] * array.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        scale, zero = self.scale.reshape(shape), self.zero.reshape(shape)
        found: Array = ((array.astype(np.float64) - zero) * scale).astype(np.float32)
        return found


@dataclass(frozen=True)
class TfliteTensor:
    """A tensor.

    Parameters
    ----------
    name, dtype : str
        As the file has them.
    shape : tuple of int
        Its sizes.
    quantization : Quantization or None
        How it is to be read.
    data : Array or None
        Its elements if they are in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    quantization: Quantization | None
    data: Array | None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The smallest and the largest number it can stand for, if it is quantised."""
        q = self.quantization
        if q is None or q.scale.size != 1 or self.dtype not in ("int8", "uint8"):
            return None
        low, high = (
            (limit - int(q.zero[0])) * float(q.scale[0]) for limit in RANGES[self.dtype]
        )
        return low, high


@dataclass(frozen=True)
class TfliteOperator:
    """An operator: its name, the places of its tensors (-1 for none), its settings."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    settings: Mapping[str, Any]
    version: int = 1


@dataclass(frozen=True)
class TfliteModel:
    """What a file says.

    Parameters
    ----------
    tensors : tuple of TfliteTensor
        All tensors of the network.
    operators : tuple of TfliteOperator
        In an order in which they can run.
    inputs, outputs : tuple of int
        Places of tensors.
    version : int
        Of the format.
    sha256 : str
        Of the file.
    normalization : (tuple of float, tuple of float) or None
        The mean and deviation of pixels that its metadata gives.
    labels : tuple of str
        What its classes are called.
    """

    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    version: int
    sha256: str
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    labels: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def read_model(path: Path) -> TfliteModel:
    """Return the contents of a file.

    Raises
    ------
    ModelFormatError
        If it is not a whole file of this format.
    UnsupportedModelError
        If it holds tensors of a kind that has no array.
    """
    if not path.is_file():
        reason = "found no regular file" if path.exists() else "no such file"
        raise refused(path, reason, "not_a_file")
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise refused(path, f"found {data[4:8]!r}, wanted b'TFL3' at byte 4")
    try:
        return _model(path, data)
    except (ValueError, OverflowError) as error:
        raise refused(path, f"not a whole TensorFlow Lite file: {error}") from None
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{path}: {error}") from None


def refused(path: Path, message: str, code: str = "not_tflite") -> ModelFormatError:
    """Return the refusal of a file."""
    return ModelFormatError(message, code=code, path=str(path))


def _model(path: Path, data: bytes) -> TfliteModel:
    root = Flatbuffer(memoryview(data)).root()
    graphs = root.tables(2)
    if not graphs:
        raise ValueError("it has no network")
    graph = graphs[0]
    buffers = root.tables(4)
    codes = [_code(table) for table in root.tables(1)]
    tensors = tuple(_tensor(table, buffers) for table in graph.tables(0))
    operators = tuple(
        _operator(table, codes, len(tensors)) for table in graph.tables(3)
    )
    if not operators:
        raise ValueError("its network has no operators")
    metadata = _metadata(root, buffers)
    return TfliteModel(
        tensors,
        merged(tensors, operators),
        _places(graph, 1, len(tensors)),
        _places(graph, 2, len(tensors)),
        root.number(0, "I"),
        hashlib.sha256(data).hexdigest(),
        _normalization(metadata),
        _labels(path, metadata),
    )


def _code(table: Table) -> tuple[str, int]:
    number = max(table.number(0, "b"), table.number(3, "i"))
    if OPERATORS.get(number) == "CUSTOM":
        return table.text(1) or "CUSTOM", table.number(2, "i", 1)
    return OPERATORS.get(number, f"operator {number}"), table.number(2, "i", 1)


def _places(table: Table, index: int, count: int) -> tuple[int, ...]:
    found = tuple(int(place) for place in table.numbers(index, "i4"))
    if any(not -1 <= place < count for place in found):
        raise ValueError(f"there is no tensor {max(found)} among {count}")
    return found


def _operator(
    table: Table, codes: Sequence[tuple[str, int]], count: int
) -> TfliteOperator:
    index = table.number(0, "I")
    if index >= len(codes):
        raise ValueError(f"there is no operator code {index} among {len(codes)}")
    name, version = codes[index]
    options = table.table(4)
    settings: dict[str, Any] = {}
    for place, entry in enumerate(SETTINGS.get(name, "").split()):
        key, _, kind = entry.partition(":")
        kind, _, default = kind.partition("=")
        if key == "-":
            continue
        if kind.endswith("*"):
            values = options.numbers(place, "i4") if options else ()
            settings[key] = tuple(values)
        else:
            given = False if kind == "?" else int(default or 0)
            value = options.number(place, kind, given) if options else given
            settings[key] = float(str(np.float32(value))) if kind == "f" else value
    inputs, outputs = (_places(table, place, count) for place in (1, 2))
    return TfliteOperator(name, inputs, outputs, settings, version)


def _tensor(table: Table, buffers: Sequence[Table]) -> TfliteTensor:
    name = table.text(3)
    number = table.number(1, "b")
    shape = table.array(0, "i4")
    if shape.size > HIGHEST_RANK:
        raise ValueError(f"tensor {name!r} has {shape.size} axes")
    sizes = tuple(int(n) for n in shape)
    dtype = TYPES.get(number, f"type {number}")
    index = table.number(2, "I")
    if index >= len(buffers):
        raise ValueError(f"there is no buffer {index} among {len(buffers)}")
    raw = buffers[index].array(0, "u1")
    if buffers[index].number(1, "Q") > 1:
        raise UnsupportedModelError(f"tensor {name!r} lies outside the flatbuffer")
    found = TfliteTensor(name, dtype, sizes, _quantization(table, sizes), None)
    if not raw.size:
        return found
    if table.table(6) is not None:
        raise UnsupportedModelError(f"tensor {name!r} is sparse")
    if number not in TYPES:
        raise UnsupportedModelError(f"tensor {name!r} holds elements of {dtype}")
    width = np.dtype(dtype).itemsize
    if min(sizes, default=1) < 0 or raw.size != math.prod(sizes) * width:
        raise ValueError(
            f"tensor {name!r}: found {raw.size} bytes for {sizes} of {dtype}"
        )
    little = np.dtype(dtype).newbyteorder("<")
    return replace(found, data=raw.view(little).reshape(sizes))


def _quantization(table: Table, sizes: tuple[int, ...]) -> Quantization | None:
    inner = table.table(4)
    if inner is None:
        return None
    scale = inner.array(2, "f4").astype(np.float64)
    zero = inner.array(3, "i8").astype(np.float64)
    if not scale.size:
        return None
    axis = inner.number(6, "i")
    zero = zero if zero.size else np.zeros_like(scale)
    zero = np.broadcast_to(zero, scale.shape) if zero.size == 1 else zero
    wanted = sizes[axis] if 0 <= axis < len(sizes) else 1
    if zero.shape != scale.shape or scale.size not in (1, wanted):
        raise ValueError(
            f"{scale.size} scales and {zero.size} zero points along axis {axis} of "
            f"{sizes}"
        )
    if not np.isfinite(scale).all():
        raise ValueError("a scale that is not finite")
    return Quantization(scale, zero, axis)


def merged(
    tensors: Sequence[TfliteTensor], operators: Sequence[TfliteOperator]
) -> tuple[TfliteOperator, ...]:
    """Return the operators with dilated convolutions as one each.

    TensorFlow has written them as three: pixels are dealt out to several pictures,
    which are convolved, and gathered again.
    """
    readers: dict[int, list[int]] = {}
    for index, operator in enumerate(operators):
        for place in operator.inputs:
            readers.setdefault(place, []).append(index)
    found = list(operators)
    gone: set[int] = set()
    for index, deal in enumerate(operators):
        if deal.name != "SPACE_TO_BATCH_ND" or not deal.outputs:
            continue
        chain = [index]
        for _ in range(2):
            after = readers.get(operators[chain[-1]].outputs[0], [])
            chain += after if len(after) == 1 else []
        if len(chain) == 3:
            one = _dilated(tensors, *(operators[place] for place in chain))
            if one is not None:
                found[chain[2]] = one
                gone.update(chain[:2])
    return tuple(op for index, op in enumerate(found) if index not in gone)


def _dilated(
    tensors: Sequence[TfliteTensor],
    deal: TfliteOperator,
    conv: TfliteOperator,
    gather: TfliteOperator,
) -> TfliteOperator | None:
    if (
        conv.name not in ("CONV_2D", "DEPTHWISE_CONV_2D")
        or gather.name != "BATCH_TO_SPACE_ND"
        or (conv.settings["stride_w"], conv.settings["stride_h"]) != (1, 1)
        or conv.settings["padding"] != 1
        or len(deal.inputs) < 3
        or len(gather.inputs) < 3
    ):
        return None
    block, pads, again, crops = (
        tensors[place].data for place in (*deal.inputs[1:3], *gather.inputs[1:3])
    )
    if block is None or pads is None or again is None or crops is None:
        return None
    if block.shape != (2,) or pads.shape != (2, 2) or crops.shape != (2, 2):
        return None
    around = (pads - crops).tolist()
    if not np.array_equal(block, again) or min(map(min, around)) < 0:
        return None
    settings = {
        **conv.settings,
        "dilation_h": int(block[0]),
        "dilation_w": int(block[1]),
        "around": tuple(map(tuple, around)),
    }
    inputs = (deal.inputs[0], *conv.inputs[1:])
    return replace(conv, inputs=inputs, outputs=gather.outputs, settings=settings)


def _metadata(root: Table, buffers: Sequence[Table]) -> Table | None:
    """Return what the file says of its first network, in a flatbuffer of its own."""
    for entry in root.tables(6):
        index = entry.number(1, "I")
        if entry.text(0) == "TFLITE_METADATA" and index < len(buffers):
            data = memoryview(buffers[index].array(0, "u1")).cast("B")
            networks = Flatbuffer(data).root().tables(3) if len(data) > 8 else []
            return networks[0] if networks else None
    return None


def _normalization(
    network: Table | None,
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the mean and deviation of an input's pixels."""
    for tensor in network.tables(2) if network else ():
        for unit in tensor.tables(4):
            options = unit.table(1)
            if unit.number(0, "B") == 1 and options:
                mean, deviation = (options.numbers(i, "f4") for i in (0, 1))
                return tuple(mean), tuple(deviation)
    return None


def _labels(path: Path, network: Table | None) -> tuple[str, ...]:
    """Return the labels in the archive behind the flatbuffer."""
    names = [
        entry.text(0)
        for tensor in (network.tables(3) if network else ())
        for entry in tensor.tables(6)
        if entry.number(2, "b") in (2, 3)
    ]
    if not names or not zipfile.is_zipfile(path):
        return ()
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(names[0]).file_size > LARGEST_LABELS:
                return ()
            text = archive.read(names[0]).decode("utf-8", "replace")
    except (zipfile.BadZipFile, LookupError, NotImplementedError, RuntimeError):
        return ()
    return tuple(text.splitlines())
