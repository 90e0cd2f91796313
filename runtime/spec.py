"""What is known of a tensor before it exists.

Every image tensor is (N, H, W, C): pictures, then rows, columns, channels. Audio is
(N, L, C), video (N, D, H, W, C). Convolution kernels are (kh, kw, in/groups, out).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Spec:
    """Shape and element type of a tensor."""

    shape: Shape
    dtype: str = "float32"

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of a contiguous array of this spec."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def spatial(self) -> Shape:
        """The axes between batch and channels."""
        return self.shape[1:-1]

    def __str__(self) -> str:
        return f"{self.dtype} {shape_text(self.shape)}"


def shape_text(shape: tuple[int | str, ...]) -> str:
    """Return a shape as people write it: ``(1, 224, 224, 3)``."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def spec_of(array: Array) -> Spec:
    """Return the spec of an array."""
    return Spec(tuple(array.shape), _name(array.dtype))


@cache
def _name(dtype: np.dtype[Any]) -> str:
    return str(dtype)
