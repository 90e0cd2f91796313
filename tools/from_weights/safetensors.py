"""Weights in safetensors files: a header in JSON, then the elements."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from striate.spec import Array
from striate.tools.from_torch.storage import decoded, refusal, width

LONGEST_HEADER = 100_000_000
"""The most bytes of names and shapes, as other readers allow."""

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}


def read_safetensors(path: Path) -> dict[str, Array]:
    """Return the tensors of a file by name.

    Raises
    ------
    ModelFormatError
        If it is not such a file, not whole, or its header makes no sense.
    """
    name = str(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(LONGEST_HEADER, size - 8):
            raise refusal(
                name, f"a header of {length} bytes in a file of {size}", "truncated"
            )
        text = file.read(length)
    try:
        header = json.loads(text)
        entries = {
            str(key): _entry(name, str(key), entry, size - 8 - length)
            for key, entry in header.items()
            if key != "__metadata__"
        }
        metadata = header.get("__metadata__") or {}
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise refusal(
            name, f"its header makes no sense: {type(error).__name__}: {error}"
        ) from None
    _require_apart(name, entries)
    if size == 8 + length:
        data = np.zeros(0, np.uint8)
    else:
        data = np.memmap(path, np.uint8, "r", 8 + length)
    found = {
        key: decoded(data[begin:end].data, dtype).reshape(shape)
        for key, (dtype, shape, begin, end) in entries.items()
    }
    return {**_tied(metadata, found), **found}


Entry = tuple[str, tuple[int, ...], int, int]


def _entry(path: str, name: str, entry: Mapping[str, Any], size: int) -> Entry:
    """Return element type, shape and bounds of a tensor, checked."""
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        raise refusal(path, f"{name[:80]!r} has elements of type {entry['dtype']!r}")
    if any(type(n) is not int or n < 0 for n in (*shape, begin, end)):
        raise refusal(path, f"{name[:80]!r}: a size or offset makes no sense", "size")
    if not begin <= end <= size or end - begin != math.prod(shape) * width(dtype):
        raise refusal(
            path,
            f"{name[:80]!r}: bytes {begin} to {end} of {size} for the shape {shape}",
            "size",
        )
    return dtype, shape, begin, end


def _require_apart(path: str, entries: Mapping[str, Entry]) -> None:
    """Raise `ModelFormatError` if two tensors share bytes."""
    at = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda e: e[1][2:]):
        if begin < at:
            raise refusal(path, f"{name[:80]!r} overlaps another tensor", "overlap")
        at = end


def _tied(metadata: Any, found: Mapping[str, Array]) -> dict[str, Array]:
    """Return the tensors that were left out because another one is the same."""
    if not isinstance(metadata, dict):
        return {}
    return {
        str(name): found[same]
        for name, same in metadata.items()
        if isinstance(same, str) and same in found
    }
