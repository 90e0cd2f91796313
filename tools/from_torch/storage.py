"""How PyTorch's files describe tensors and the structure of results."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from striate.errors import ModelFormatError
from striate.spec import Array

DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
}
"""Element types by their number in programs."""

DEEPEST = 64
"""The most lists and dicts inside one another that results may have."""


def decoded(data: memoryview | bytes, dtype: str) -> Array:
    """Return little-endian elements as an array; short real numbers as float32."""
    if dtype == "bfloat16":
        short = np.frombuffer(data, "<u2").astype(np.uint32)
        wide: Array = (short << 16).view(np.float32)
        return wide
    array: Array = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"))
    return array.astype(np.float32) if dtype == "float16" else array


def width(dtype: str) -> int:
    """Return the bytes of an element."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def strided(
    elements: Array, offset: int, shape: Sequence[int], strides: Sequence[int]
) -> Array:
    """Return a view of elements, refused unless all of it is inside of them.

    Raises
    ------
    ValueError
        If it is not; what the message says of sizes is safe to show.
    """
    numbers = [offset, *shape, *strides]
    if len(shape) != len(strides) or len(shape) > 32:
        raise ValueError(f"{len(shape)} sizes and {len(strides)} strides")
    if any(type(n) is not int or not 0 <= n < 1 << 48 for n in numbers):
        raise ValueError("a size, stride or offset makes no sense")
    reach = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if not math.prod(shape):
        return np.zeros(tuple(shape), elements.dtype)
    if reach >= elements.size:
        raise ValueError(
            f"shape {tuple(shape)} with strides {tuple(strides)} from {offset} on "
            f"reaches past the {elements.size} elements there are"
        )
    if math.prod(shape) > elements.size:
        raise ValueError(f"shape {tuple(shape)} of {elements.size} elements")
    item = elements.itemsize
    return np.lib.stride_tricks.as_strided(
        elements[offset:],
        tuple(shape),
        tuple(s * item for s in strides),
        writeable=False,
    )


def result_names(tree: str, count: int) -> list[str]:
    """Return what to call the results of a module, "" for those without a key.

    Parameters
    ----------
    tree : str
        Their structure as `torch.export` writes it, JSON; "" if it is not known.
    count : int
        How many there are.
    """
    try:
        found = list(_paths(json.loads(tree)[1], "", 0)) if tree else []
    except (ValueError, LookupError, TypeError, AttributeError):
        found = []
    return found if len(found) == count else [""] * count


def _paths(spec: Any, path: str, depth: int) -> list[str]:
    if depth > DEEPEST:
        raise ValueError("results are nested too deeply")
    if spec["type"] is None:
        return [path]
    parts = spec["children_spec"]
    keys: list[Any] = [None] * len(parts)
    if spec["type"] in ("builtins.dict", "collections.OrderedDict"):
        keys = json.loads(spec["context"])
    elif path:
        keys = list(range(len(parts)))
    found: list[str] = []
    for key, part in zip(keys, parts, strict=True):
        inner = path if key is None else f"{path}.{key}".lstrip(".")
        found += _paths(part, inner, depth + 1)
    return found


def refusal(path: str, message: str, code: str = "torch_file") -> ModelFormatError:
    """Return the error for a file that is refused."""
    return ModelFormatError(message, code=code, path=path)
